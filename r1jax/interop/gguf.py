"""GGUF files of the Llama, Qwen2 and Qwen3 families, through the `gguf` package: their tensors under Hugging Face's names,
their description as config.json has it, and their tokenizer as a tokenizer.json.
"""

import dataclasses
import json
import pathlib
import re
from typing import Any

import ml_dtypes
import numpy as np
import tokenizers
from tokenizers import AddedToken, Regex, decoders, models, normalizers, pre_tokenizers

from r1jax.errors import Missing, UserError, nearest
from r1jax.interop.sources import Source
from r1jax.models.config import LlamaRope, ModelConfig
from r1jax.models.rope import frequencies

ARCHITECTURES = {'llama': 'LlamaForCausalLM', 'qwen2': 'Qwen2ForCausalLM', 'qwen3': 'Qwen3ForCausalLM'}
TOP = {'token_embd': 'model.embed_tokens', 'output_norm': 'model.norm', 'output': 'lm_head'}
LAYER = {
    'attn_norm': 'input_layernorm', 'attn_q': 'self_attn.q_proj', 'attn_k': 'self_attn.k_proj', 'attn_v': 'self_attn.v_proj',
    'attn_output': 'self_attn.o_proj', 'attn_q_norm': 'self_attn.q_norm', 'attn_k_norm': 'self_attn.k_norm',
    'ffn_norm': 'post_attention_layernorm', 'ffn_gate': 'mlp.gate_proj', 'ffn_up': 'mlp.up_proj',
    'ffn_down': 'mlp.down_proj'}
# llama.cpp turns neighbouring rows as a pair, so the rows of these lie in another order; in files of Llama alone.
PERMUTED = ('self_attn.q_proj', 'self_attn.k_proj')

CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"


def _by_expression(numbers: str) -> list:
    """The cut of Llama 3 and of Qwen2, which differ in how many digits stay together."""
    words = r"[^\r\n\p{L}\p{N}]?\p{L}+"
    rest = r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    expression = Regex(f'{CONTRACTIONS}|{words}|{numbers}|{rest}')
    return [pre_tokenizers.Split(expression, 'isolated'), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]


@dataclasses.dataclass(frozen=True)
class Cut:
    """What the name that files have for how text is cut stands for, beside the pieces themselves.

    Attributes:
        pieces: how text is cut before byte pairs are merged.
        normalizer: what is done to it before.
        whole_first: whether a piece that is a token stays whole, even if merges would make it of others.
        bos: whether BOS goes first where the file does not say so.
    """

    pieces: list
    normalizer: normalizers.Normalizer | None = None
    whole_first: bool = False
    bos: bool = False


# As tokenizer.json of the models themselves has it; llama.cpp knows that by these names (llama-vocab.cpp).
CUTS = {
    'smollm': Cut([pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]),
    'llama-bpe': Cut(_by_expression(r'\p{N}{1,3}'), whole_first=True, bos=True),
    'qwen2': Cut(_by_expression(r'\p{N}'), normalizers.NFC()),
}
CONTROL, USER_DEFINED = 3, 4  # token types of llama.cpp


# Types of tensors that are not quantised; others are turned into float32, in which ggml has their factors multiplied.
PLAIN = {'F32': np.float32, 'F16': np.float16, 'BF16': ml_dtypes.bfloat16}


class GgufSource(Source):
    """The tensors of a GGUF file. Opening one takes seconds: `description` and `write_tokenizer` use what is read here.

    Attributes:
        reader: the file's GGUFReader.
        architecture: one of `ARCHITECTURES`.
    """

    def __init__(self, path: pathlib.Path):
        """Raises UserError for a damaged file, another architecture, or a tensor that has no name here."""
        self.where = path
        self.reader, self.architecture = open_gguf(path)
        self._tensors = {}
        for tensor in self.reader.tensors:
            if tensor.name != 'rope_freqs.weight':  # follows from the config, see `description`
                self._tensors[_name(tensor.name, path)] = tensor
        # ggml counts dimensions from the fastest one.
        self.shapes = {name: tuple(map(int, reversed(tensor.shape))) for name, tensor in self._tensors.items()}
        self.dtypes = {
            name: np.dtype(PLAIN.get(tensor.tensor_type.name, np.float32)) for name, tensor in self._tensors.items()}

    def read(self, name: str) -> np.ndarray:
        from gguf import quants

        tensor = self._tensors[name]
        if tensor.tensor_type.name in PLAIN:
            x = tensor.data.view(self.dtypes[name])
        else:
            try:
                x = quants.dequantize(tensor.data, tensor.tensor_type)
            except NotImplementedError as error:
                raise UserError(
                    f"{self.where}: the tensor '{tensor.name}' is quantised as {tensor.tensor_type.name}, which the package "
                    'gguf cannot undo') from error
        x = x.reshape(self.shapes[name])
        if self.architecture == 'llama' and name.removesuffix('.weight').endswith(PERMUTED):
            key = 'head_count' if 'q_proj' in name else 'head_count_kv'
            heads = field(self.reader, f'llama.attention.{key}', self.where)
            x = x.reshape(heads, -1, 2, x.shape[1]).swapaxes(1, 2).reshape(x.shape)
        return x


def open_gguf(path: pathlib.Path) -> tuple[Any, str]:
    """Returns the file's GGUFReader and its architecture. Raises UserError for one that is damaged or of another one."""
    try:
        import gguf
    except ImportError as error:
        raise Missing("GGUF files are read through the package 'gguf': pip install 'r1jax[gguf]'") from error
    try:
        reader = gguf.GGUFReader(path)
    # It trusts what it reads, and stumbles over damage in as many ways as there are bytes.
    except Exception as error:
        raise UserError(f'{path} is no GGUF file, or is damaged: {type(error).__name__}: {error}') from error
    architecture = field(reader, 'general.architecture', path)
    if architecture not in ARCHITECTURES:
        raise UserError(f"{path}: cannot read the architecture '{architecture}'{nearest(str(architecture), ARCHITECTURES)}")
    return reader, architecture


def field(reader, key: str, path: pathlib.Path, default: Any = None) -> Any:
    """Returns a value of the file's metadata. Raises UserError, naming it, where it is missing and has no default."""
    found = reader.fields.get(key)
    if found is None and default is None:
        raise UserError(f"{path}: its metadata lack '{key}'{nearest(key, reader.fields)}")
    try:
        return default if found is None else found.contents()
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is damaged: '{key}' of its metadata is no text") from error


def _name(name: str, path: pathlib.Path) -> str:
    """Returns Hugging Face's name of a tensor."""
    match = re.fullmatch(r'(?:blk\.(\d+)\.)?(\w+)\.(weight|bias)', name)
    layer, part, kind = match.groups() if match else (None, None, None)
    known = TOP if layer is None else LAYER
    if part not in known:
        raise UserError(f"{path}: the tensor '{name}' has no place in a model of its architecture")
    return f'{known[part]}.{kind}' if layer is None else f'model.layers.{layer}.{known[part]}.{kind}'


def description(source: GgufSource) -> dict[str, Any]:
    """Returns what config.json would say of the file's model, see `hf.config_of`. Raises UserError for what is missing."""
    reader, architecture, path = source.reader, source.architecture, source.where

    def value(key: str, default: Any = None) -> Any:
        return field(reader, f'{architecture}.{key}', path, default)

    names = {tensor.name: tensor for tensor in reader.tensors}
    if 'token_embd.weight' not in names:
        raise UserError(f"{path}: the tensor 'token_embd.weight' is missing{nearest('token_embd.weight', names)}")
    heads, width = value('attention.head_count'), value('embedding_length')
    described = {
        'architectures': [ARCHITECTURES[architecture]],
        'vocab_size': int(names['token_embd.weight'].shape[1]),
        'hidden_size': width,
        'num_hidden_layers': value('block_count'),
        'num_attention_heads': heads,
        'num_key_value_heads': value('attention.head_count_kv', heads),
        'head_dim': value('attention.key_length', width // heads),
        'intermediate_size': value('feed_forward_length'),
        'rope_theta': value('rope.freq_base', 10_000.0),
        # Stored as float32: 1e-5 comes back as 9.99999974e-06.
        'rms_norm_eps': float(f"{value('attention.layer_norm_rms_epsilon'):.6g}"),
        'max_position_embeddings': value('context_length'),
        'tie_word_embeddings': 'output.weight' not in names,
        'attention_bias': 'blk.0.attn_q.bias' in names,
    }
    if 'rope_freqs.weight' in names:
        described['rope_scaling'] = _llama_scaling(np.asarray(names['rope_freqs.weight'].data), described, path)
    elif value('rope.scaling.type', 'none') != 'none':
        raise UserError(f"{path}: its rotary scaling '{value('rope.scaling.type')}' is not supported")
    return described


def _llama_scaling(factors: np.ndarray, described: dict[str, Any], path: pathlib.Path) -> dict[str, Any]:
    """The scaling of Llama 3 from what llama.cpp keeps of it: by how much slower each pair turns.

    Its slowest pair says the factor; that the rest is as in the released models (1, 4 and 8,192) is checked.
    """
    scaling = {
        'rope_type': 'llama3', 'factor': float(factors[-1]), 'low_freq_factor': 1.0, 'high_freq_factor': 4.0,
        'original_max_position_embeddings': 8192}
    shape = {'vocab_size': 1, 'd_model': 2, 'n_layers': 1, 'n_heads': 1, 'n_kv_heads': 1, 'd_ff': 1}
    plain = ModelConfig(**shape, head_dim=2 * len(factors), rope_theta=float(described['rope_theta']))
    scaled = dataclasses.replace(plain, rope_scaling=LlamaRope(factor=scaling['factor']))
    if not np.allclose(frequencies(plain) / frequencies(scaled), factors, rtol=1e-3):
        raise UserError(f'{path}: its rotary scaling (rope_freqs.weight) is not that of Llama 3.1 and later')
    return scaling


def write_tokenizer(source: GgufSource, folder: pathlib.Path) -> None:
    """Writes the file's tokenizer as tokenizer.json and tokenizer_config.json.

    Raises:
        UserError: for a tokenizer other than byte-level BPE, a damaged one, or a cut of the text that is not in `CUTS`.
    """
    reader, path = source.reader, source.where
    kind = field(reader, 'tokenizer.ggml.model', path)
    if kind != 'gpt2':
        raise UserError(f"{path}: its tokenizer '{kind}' is not supported, only byte-level BPE ('gpt2') is")
    name = field(reader, 'tokenizer.ggml.pre', path)
    if name not in CUTS:
        raise UserError(f"{path}: it cuts text as '{name}', which is not supported{nearest(name, CUTS)}")
    cut = CUTS[name]
    tokens, types = field(reader, 'tokenizer.ggml.tokens', path), field(reader, 'tokenizer.ggml.token_type', path)
    merges = [tuple(merge.split(' ')) for merge in field(reader, 'tokenizer.ggml.merges', path)]
    vocabulary = {token: i for i, token in enumerate(tokens)}
    try:
        tokenizer = tokenizers.Tokenizer(models.BPE(vocabulary, merges, ignore_merges=cut.whole_first))
    except Exception as error:  # the tokenizers package raises bare Exception
        raise UserError(f'{path}: its tokens and merges make no tokenizer ({error})') from error
    if cut.normalizer:
        tokenizer.normalizer = cut.normalizer
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(cut.pieces)
    tokenizer.decoder = decoders.ByteLevel()
    added = [(token, kind) for token, kind in zip(tokens, types, strict=True) if kind in (CONTROL, USER_DEFINED)]
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token, t in added if t == CONTROL])
    tokenizer.add_tokens([AddedToken(token, normalized=False) for token, t in added if t == USER_DEFINED])
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / 'tokenizer.json'))
    config = {'add_bos_token': field(reader, 'tokenizer.ggml.add_bos_token', path, cut.bos)}
    for role in ('bos', 'eos', 'padding'):
        token = field(reader, f'tokenizer.ggml.{role}_token_id', path, -1)
        if token >= 0:
            config[f"{'pad' if role == 'padding' else role}_token"] = tokens[token]
    template = field(reader, 'tokenizer.chat_template', path, '')
    if template:
        config['chat_template'] = template
    (folder / 'tokenizer_config.json').write_text(json.dumps(config, ensure_ascii=False, indent=2) + '\n', encoding='utf-8')
