"""Hugging Face folders (config.json + safetensors) of the Llama and Qwen2 families <-> Params. A reward model is what
transformers calls a classifier of sequences with one label.

One table says where each parameter comes from and how it is turned; reading and writing both follow it. A tensor is read
when it is needed, checked against the shape that `transformer.abstract` wants, and stacked with the same tensor of the
other layers; each host holds the whole float32 model while it reads.
"""

import json
import pathlib

import jax
import ml_dtypes
import numpy as np
import safetensors
import safetensors.numpy

from r1jax.errors import UserError, nearest
from r1jax.models import transformer
from r1jax.models.config import ModelConfig

# Parameter -> name on disk. Projections lie there as [out, in] with the heads flattened; ours are [in, heads, K] and so on.
TOP = {'embed_VD': 'model.embed_tokens.weight', 'final_norm_D': 'model.norm.weight', 'head_DV': 'lm_head.weight'}
SCALAR_TOP = TOP | {'head_DV': 'score.weight'}
LAYER = {
    'attn_norm': 'input_layernorm.weight',
    'wq': 'self_attn.q_proj.weight',
    'wk': 'self_attn.k_proj.weight',
    'wv': 'self_attn.v_proj.weight',
    'wo': 'self_attn.o_proj.weight',
    'mlp_norm': 'post_attention_layernorm.weight',
    'w_gate': 'mlp.gate_proj.weight',
    'w_up': 'mlp.up_proj.weight',
    'w_down': 'mlp.down_proj.weight',
    'bq': 'self_attn.q_proj.bias',
    'bk': 'self_attn.k_proj.bias',
    'bv': 'self_attn.v_proj.bias',
}
# The leading dimensions of ours that are inputs; the rest are outputs. Others are stored as they are.
INPUT_DIMS = {'head_DV': 1, 'wq': 1, 'wk': 1, 'wv': 1, 'wo': 2, 'w_gate': 1, 'w_up': 1, 'w_down': 1}
CAUSAL, SCALAR = 'ForCausalLM', 'ForSequenceClassification'
ARCHITECTURES = tuple(family + head for family in ('Llama', 'Qwen2') for head in (CAUSAL, SCALAR))
# What config.json may say of these and be left unread, because our models are so.
KNOWN = {'hidden_act': 'silu', 'mlp_bias': False, 'use_sliding_window': False}


def _from_disk(name: str, x: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    return (x.T if name in INPUT_DIMS else x).reshape(shape)


def _to_disk(name: str, x: np.ndarray) -> np.ndarray:
    if name not in INPUT_DIMS:
        return x.reshape(-1) if name in ('bq', 'bk', 'bv') else x
    return np.ascontiguousarray(x.reshape(int(np.prod(x.shape[:INPUT_DIMS[name]])), -1).T)


def _disk_shape(name: str, shape: tuple[int, ...]) -> tuple[int, ...]:
    return _to_disk(name, np.broadcast_to(np.float32(0), shape)).shape


def read_config(folder: pathlib.Path) -> ModelConfig:
    """Returns the ModelConfig of config.json, float32.

    Raises:
        UserError: if the file is missing or broken, or describes a model that is not one of `ARCHITECTURES`.
    """
    path = folder / 'config.json'
    try:
        raw = json.loads(path.read_text())
        architecture = raw['architectures'][0]
        if architecture not in ARCHITECTURES:
            raise UserError(f"{path}: cannot read the architecture '{architecture}'{nearest(architecture, ARCHITECTURES)}")
        scaling = raw.get('rope_scaling')
        if scaling and scaling.get('rope_type', scaling.get('type')) != 'default':
            raise UserError(f'{path}: its rope_scaling is not supported; only plain rotary positions are')
        # transformers 5 moved the base of the rotary angles into a dictionary of its own.
        rope = raw.get('rope_parameters') or {}
        if rope.get('rope_type', 'default') != 'default':
            raise UserError(f"{path}: its rope_parameters of type '{rope['rope_type']}' are not supported")
        # transformers writes the names of the labels, and not even them where there are two.
        labels = raw.get('num_labels', len(raw.get('id2label', ('LABEL_0', 'LABEL_1'))))
        if architecture.endswith(SCALAR) and labels != 1:
            raise UserError(f'{path}: a reward model has one label, this one has {labels}')
        for key, known in KNOWN.items():
            if raw.get(key, known) != known:
                raise UserError(f'{path}: {key}={raw[key]!r} is not supported, only {known!r} is')
        return ModelConfig(
            vocab_size=raw['vocab_size'],
            d_model=raw['hidden_size'],
            n_layers=raw['num_hidden_layers'],
            n_heads=raw['num_attention_heads'],
            n_kv_heads=raw.get('num_key_value_heads', raw['num_attention_heads']),
            head_dim=raw.get('head_dim') or raw['hidden_size'] // raw['num_attention_heads'],
            d_ff=raw['intermediate_size'],
            rope_theta=float(raw.get('rope_theta') or rope.get('rope_theta', 10_000.0)),
            norm_eps=raw['rms_norm_eps'],
            qkv_bias=raw.get('attention_bias', architecture.startswith('Qwen2')),
            tie_embeddings=raw.get('tie_word_embeddings', False),
            scalar_head=architecture.endswith(SCALAR),
            max_positions=raw['max_position_embeddings'])
    except (OSError, ValueError, KeyError, IndexError, TypeError, AttributeError) as error:
        raise UserError(f'{path} is missing or is no model description: {type(error).__name__}: {error}') from error


def read_params(folder: pathlib.Path, cfg: ModelConfig) -> transformer.Params:
    """Reads float32 parameters (NumPy) from all *.safetensors of a folder.

    Raises:
        UserError: naming the tensor, if one is missing, has another shape or has no place in the model, or the file that
            is damaged.
    """
    where = {}
    for path in sorted(folder.glob('*.safetensors')):
        try:
            file = safetensors.safe_open(path, framework='numpy')
        except safetensors.SafetensorError as error:
            raise UserError(f'{path} is damaged: {error}') from error
        where |= {name: file for name in file.keys()}
    if not where:
        raise UserError(f'{folder} has no *.safetensors')

    used = {'lm_head.weight'}  # also of tied models, where some files hold a copy of the embedding

    def read(name: str, disk_name: str, shape: tuple[int, ...]) -> np.ndarray:
        used.add(disk_name)
        if disk_name not in where:
            raise UserError(f"{folder}: the tensor '{disk_name}' is missing{nearest(disk_name, where)}")
        x = where[disk_name].get_tensor(disk_name)
        if x.shape != _disk_shape(name, shape):
            raise UserError(
                f"{folder}: the tensor '{disk_name}' has shape {x.shape}, config.json wants {_disk_shape(name, shape)}")
        return _from_disk(name, x.astype(np.float32), shape)

    abstract = transformer.abstract(cfg)
    top = {name: read(name, disk, getattr(abstract, name).shape)
           for name, disk in _top(cfg).items() if getattr(abstract, name) is not None}
    layers = {
        name: np.stack([
            read(name, f'model.layers.{i}.{disk}', getattr(abstract.layers, name).shape[1:])
            for i in range(cfg.n_layers)])
        for name, disk in LAYER.items() if getattr(abstract.layers, name) is not None}
    # Old files hold the rotary frequencies, which follow from the config.
    left = sorted(name for name in where if name not in used and not name.endswith('rotary_emb.inv_freq'))
    if left:
        raise UserError(f"{folder}: the tensor '{left[0]}' has no place in the model that config.json describes")
    return transformer.Params(layers=transformer.Layers(**layers), **top)


def _top(cfg: ModelConfig) -> dict[str, str]:
    return SCALAR_TOP if cfg.scalar_head else TOP


def write(folder: pathlib.Path, params: transformer.Params, cfg: ModelConfig, *, eos: int, bos: int | None) -> None:
    """Writes config.json and model.safetensors (bfloat16), as transformers reads them.

    No padding token is named. transformers reads the score of a reward model at the last token that is no padding, which is
    EOS, where the score belongs, as long as padding is not EOS; without one it takes batches of one sequence.
    """
    params = jax.tree.map(np.asarray, params)
    top = {disk: _to_disk(name, x) for name, disk in _top(cfg).items() if (x := getattr(params, name)) is not None}
    layers = {
        f'model.layers.{i}.{disk}': _to_disk(name, x[i])
        for name, disk in LAYER.items() if (x := getattr(params.layers, name)) is not None for i in range(cfg.n_layers)}
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {name: np.ascontiguousarray(x.astype(ml_dtypes.bfloat16)) for name, x in (top | layers).items()}
    safetensors.numpy.save_file(tensors, folder / 'model.safetensors', metadata={'format': 'pt'})
    description = {
        'architectures': [('Qwen2' if cfg.qkv_bias else 'Llama') + (SCALAR if cfg.scalar_head else CAUSAL)],
        'model_type': 'qwen2' if cfg.qkv_bias else 'llama',
        'vocab_size': cfg.vocab_size,
        'hidden_size': cfg.d_model,
        'num_hidden_layers': cfg.n_layers,
        'num_attention_heads': cfg.n_heads,
        'num_key_value_heads': cfg.n_kv_heads,
        'head_dim': cfg.head_dim,
        'intermediate_size': cfg.d_ff,
        'hidden_act': 'silu',
        'rope_theta': cfg.rope_theta,
        'rms_norm_eps': cfg.norm_eps,
        'attention_bias': cfg.qkv_bias,
        'mlp_bias': False,
        'tie_word_embeddings': cfg.tie_embeddings,
        'max_position_embeddings': cfg.max_positions,
        'bos_token_id': bos,
        'eos_token_id': eos,
        'torch_dtype': 'bfloat16',
    } | ({'num_labels': 1} if cfg.scalar_head else {})
    (folder / 'config.json').write_text(json.dumps(description, indent=2) + '\n')
