"""Folders as transformers and DeepSeek write them, with random weights and the files of a tokenizer."""

import json
import pathlib
import tempfile

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
    'deepseek_v3 plain queries': DEEPSEEK | {'q_lora_rank': None, 'rope_parameters': {'rope_theta': 1e4}},
}


def write_tokenizer(folder):
    """A byte-level BPE as of an Instruct model, whose text ends with either of two tokens."""
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE())
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = tokenizers.decoders.ByteLevel()
    tokenizer.train_from_iterator(['let me think about this again and again'], tokenizers.trainers.BpeTrainer(
        vocab_size=300, show_progress=False, initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=['<|start|>', '<|end|>', '<|stop|>', '<|user|>', '<|pad|>']))
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / 'tokenizer.json'))
    (folder / 'tokenizer_config.json').write_text(json.dumps(
        {'tokenizer_class': 'PreTrainedTokenizerFast', 'bos_token': '<|start|>', 'eos_token': '<|end|>',
         'pad_token': '<|pad|>', 'add_bos_token': False, 'model_max_length': 128}))
    (folder / 'special_tokens_map.json').write_text(json.dumps({'bos_token': '<|start|>', 'eos_token': '<|end|>'}))
    (folder / 'chat_template.jinja').write_text(TEMPLATE)
    (folder / 'generation_config.json').write_text(json.dumps({'eos_token_id': [1, 2], 'temperature': 0.6}))


def build(name, dtype, *, reward=False, **sizes):
    """A model of transformers with random weights; so are the norms and the experts' balance, in whose 1 and 0 a mistake
    would not show."""
    import torch
    import transformers

    config = transformers.AutoConfig.for_model(
        name.split()[0], **MODELS[name] | sizes, **({'num_labels': 1, 'pad_token_id': 4} if reward else {}))
    auto = transformers.AutoModelForSequenceClassification if reward else transformers.AutoModelForCausalLM
    model, rng = auto.from_config(config, dtype=getattr(torch, dtype)), np.random.default_rng(0)
    for x in model.state_dict().values():
        values = rng.normal(size=x.shape)
        if x.ndim > 1:
            values[..., 0, :2] = -0.0, 1e-7  # a subnormal number in float16
        x.copy_(torch.tensor(values))
    return model.eval()


def write_folder(folder, name, dtype, *, reward=False, shard='5GB'):
    """What transformers writes, with a tokenizer."""
    build(name, dtype, reward=reward).save_pretrained(folder, max_shard_size=shard)
    write_tokenizer(folder)
    return folder


def write_deepseek(folder, *, float8=False, **sizes):
    """What DeepSeek released: with the module that predicts the token after the next one as one more layer, and float8.

    Returns the tensors that are to come back, with float8 as DeepSeek's own conversion to bfloat16 has them.
    """
    import safetensors.torch
    import torch

    n = DEEPSEEK['num_hidden_layers']
    with tempfile.TemporaryDirectory() as made:
        model = build('deepseek_v3', 'bfloat16', **sizes, num_hidden_layers=n + 1)
        model.save_pretrained(made)
        stored, description = tensors(pathlib.Path(made)), json.loads((pathlib.Path(made) / 'config.json').read_text())
    d, layer, rng = description['hidden_size'], f'model.layers.{n}.', np.random.default_rng(1)
    for name, shape in {'enorm': [d], 'hnorm': [d], 'eh_proj': [d, 2 * d], 'shared_head.norm': [d]}.items():
        stored[f'{layer}{name}.weight'] = torch.tensor(rng.normal(size=shape)).bfloat16()
    stored[f'{layer}embed_tokens.weight'] = stored['model.embed_tokens.weight'].clone()
    stored[f'{layer}shared_head.head.weight'] = stored['lm_head.weight'].clone()
    stored |= {name: x.float() for name, x in stored.items() if name.endswith('e_score_correction_bias')}
    wanted = dict(stored)
    for name, x in wanted.items():
        if float8 and name.endswith('_proj.weight') and 'eh_proj' not in name:
            stored[name], stored[f'{name}_scale_inv'], wanted[name] = to_float8(x)
    folder.mkdir(parents=True)
    names = sorted(stored)
    files = {'model-00001-of-00002.safetensors': names[::2], 'model-00002-of-00002.safetensors': names[1::2]}
    for file, of_file in files.items():
        safetensors.torch.save_file({name: stored[name].contiguous() for name in of_file}, folder / file)
    (folder / 'model.safetensors.index.json').write_text(json.dumps(
        {'metadata': {}, 'weight_map': {name: file for file, of_file in files.items() for name in of_file}}))
    description |= {'num_hidden_layers': n, 'num_nextn_predict_layers': 1}
    if float8:
        description['quantization_config'] = {
            'activation_scheme': 'dynamic', 'fmt': 'e4m3', 'quant_method': 'fp8', 'weight_block_size': [128, 128]}
    (folder / 'config.json').write_text(json.dumps(description))
    write_tokenizer(folder)
    return wanted


def to_float8(x):
    """Returns a matrix as float8, the factor of each block of 128 x 128, and what the two make together."""
    import torch

    quantised, back = torch.empty(x.shape, dtype=torch.float8_e4m3fn), torch.empty(x.shape, dtype=torch.bfloat16)
    factors = torch.empty(-(-x.shape[0] // 128), -(-x.shape[1] // 128))
    for i in range(factors.shape[0]):
        for j in range(factors.shape[1]):
            block = slice(128 * i, 128 * (i + 1)), slice(128 * j, 128 * (j + 1))
            factors[i, j] = x[block].float().abs().max() / 448
            quantised[block] = (x[block].float() / factors[i, j]).to(torch.float8_e4m3fn)
            back[block] = (quantised[block].float() * factors[i, j]).bfloat16()
    return quantised, factors, back


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
