"""Folders as transformers and DeepSeek write them, with random weights and the files of a tokenizer."""

import json

import numpy as np
import tokenizers

TEMPLATE = "{% for m in messages %}<|user|>{{ m['content'] }}<|end|>{% endfor %}"
SHAPE = {
    'vocab_size': 320, 'hidden_size': 32, 'intermediate_size': 48, 'num_hidden_layers': 2, 'num_attention_heads': 4,
    'num_key_value_heads': 2, 'max_position_embeddings': 128}
LLAMA3 = {
    'rope_type': 'llama3', 'rope_theta': 5e5, 'factor': 8.0, 'low_freq_factor': 1.0, 'high_freq_factor': 4.0,
    'original_max_position_embeddings': 64}
YARN = {
    'rope_type': 'yarn', 'rope_theta': 1e4, 'factor': 4.0, 'original_max_position_embeddings': 32, 'beta_fast': 32,
    'beta_slow': 1, 'mscale': 1.0, 'mscale_all_dim': 1.0}
DEEPSEEK = SHAPE | {
    'num_key_value_heads': 4, 'num_hidden_layers': 3, 'moe_intermediate_size': 24, 'n_routed_experts': 8,
    'num_experts_per_tok': 2, 'n_group': 4, 'topk_group': 2, 'n_shared_experts': 1, 'routed_scaling_factor': 2.5,
    'first_k_dense_replace': 1, 'kv_lora_rank': 24, 'q_lora_rank': 16, 'qk_nope_head_dim': 16, 'qk_rope_head_dim': 8,
    'v_head_dim': 12, 'rope_parameters': YARN}
# What is given to transformers' config classes, by its model_type and a word for what is special.
MODELS = {
    'qwen2': SHAPE,
    'qwen2 tied': SHAPE | {'tie_word_embeddings': True, 'rms_norm_eps': 1e-5},
    'llama': SHAPE | {'num_key_value_heads': 4},
    'llama 3': SHAPE | {'rope_parameters': LLAMA3, 'head_dim': 16},
    'qwen3 tied': SHAPE | {'tie_word_embeddings': True, 'head_dim': 16},
    'deepseek_v3': DEEPSEEK,
    'deepseek_v3 plain queries': DEEPSEEK | {'q_lora_rank': None, 'rope_parameters': {'rope_type': 'default', 'rope_theta': 1e4}},
}


def write_tokenizer(folder, **config):
    """A byte-level BPE as of an Instruct model, whose text ends with either of two tokens."""
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE())
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = tokenizers.decoders.ByteLevel()
    tokenizer.train_from_iterator(['let me think about this again and again'], tokenizers.trainers.BpeTrainer(
        vocab_size=300, show_progress=False, initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=['<|start|>', '<|end|>', '<|stop|>', '<|user|>']))
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / 'tokenizer.json'))
    (folder / 'tokenizer_config.json').write_text(json.dumps(
        {'tokenizer_class': 'PreTrainedTokenizerFast', 'bos_token': '<|start|>', 'eos_token': '<|end|>', 'add_bos_token': False,
         'model_max_length': 128} | config))
    (folder / 'special_tokens_map.json').write_text(json.dumps({'bos_token': '<|start|>', 'eos_token': '<|end|>'}))
    (folder / 'chat_template.jinja').write_text(TEMPLATE)
    (folder / 'generation_config.json').write_text(json.dumps({'eos_token_id': [1, 2], 'temperature': 0.6}))


def build(name, dtype, *, reward=False):
    """A model of transformers with random weights; so are the norms and the experts' balance, in whose 1 and 0 a mistake
    would not show."""
    import torch
    import transformers

    config = transformers.AutoConfig.for_model(
        name.split()[0], **MODELS[name], **({'num_labels': 1, 'pad_token_id': 0} if reward else {}))
    auto = transformers.AutoModelForSequenceClassification if reward else transformers.AutoModelForCausalLM
    model, rng = auto.from_config(config, dtype=getattr(torch, dtype)), np.random.default_rng(0)
    for x in model.state_dict().values():
        values = rng.normal(size=x.shape)
        if x.ndim == 2:
            values[0, :2] = -0.0, 1e-7  # nothing in float16 but a subnormal number
        x.copy_(torch.tensor(values))
    return model.eval()


def write_folder(folder, name, dtype, *, reward=False, shard='5GB'):
    """What transformers writes, with a tokenizer."""
    build(name, dtype, reward=reward).save_pretrained(folder, max_shard_size=shard)
    write_tokenizer(folder)
    return folder


def tensors(folder):
    """All tensors of a folder by name, as torch reads them."""
    import safetensors.torch

    found = {}
    for path in sorted(folder.glob('*.safetensors')):
        more = safetensors.torch.load_file(path)
        assert not found.keys() & more.keys()
        found |= more
    return found


def same_bits(a, b):
    import torch

    return a.dtype == b.dtype and a.shape == b.shape and torch.equal(
        a.contiguous().view(torch.uint8), b.contiguous().view(torch.uint8))
