"""Hugging Face folders (config.json + safetensors) of the Llama, Qwen2, Qwen3 and DeepSeek-V3 families <-> Params. A reward
model is what transformers calls a classifier of sequences with one label.

`tables` says where each parameter lies and how it is turned, `sources` where tensors are read from.
"""

import collections
import dataclasses
import functools
import json
import math
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import safetensors.numpy
from jax.experimental import multihost_utils
from jax.sharding import NamedSharding, PartitionSpec

from r1jax.errors import UserError, nearest
from r1jax.interop.sources import FP8_BLOCK, INDEX, SINGLE, SafetensorsSource, Source
from r1jax.interop.tables import Place, copies, places, second_token_copies
from r1jax.models import transformer
from r1jax.models.config import Experts, LatentAttention, LlamaRope, ModelConfig, Yarn
from r1jax.models.spec import ArraySpec
from r1jax.parallel.distributed import is_leader

BALANCE = 'e_score_correction_bias'
CAUSAL, SCALAR = 'ForCausalLM', 'ForSequenceClassification'
FAMILIES = ('Llama', 'Qwen2', 'Qwen3', 'DeepseekV3')
ARCHITECTURES = tuple(family + head for family in FAMILIES for head in (CAUSAL, SCALAR))
# What config.json may say of these and be left unread, because our models are so.
KNOWN = {'hidden_act': 'silu', 'mlp_bias': False, 'use_sliding_window': False}
# What it may say of quantised weights: DeepSeek-V3's blocks of float8, which `SafetensorsSource` turns into bfloat16.
FP8 = {'quant_method': 'fp8', 'fmt': 'e4m3', 'weight_block_size': [FP8_BLOCK, FP8_BLOCK]}
KNOWN_OF_DEEPSEEK = KNOWN | {
    'attention_bias': False, 'scoring_func': 'sigmoid', 'topk_method': 'noaux_tc', 'norm_topk_prob': True,
    'moe_layer_freq': 1, 'rope_interleave': True}


def read_config(folder: pathlib.Path) -> ModelConfig:
    """Returns the ModelConfig of a folder's config.json, float32.

    The module that predicts the token after the next one counts only where its tensors are there: transformers leaves them
    out when it writes a model, and lets config.json speak of them as before.

    Raises:
        UserError: as `config_of` and `SafetensorsSource` do.
    """
    path = folder / 'config.json'
    if not path.exists():
        raise UserError(f'{folder} has no config.json, which says what model it holds')
    try:
        raw = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise UserError(f'{path} is no model description: {type(error).__name__}: {error}') from error
    cfg = config_of(raw, path)
    if cfg.mtp and not any(name.startswith(f'model.layers.{cfg.n_layers}.') for name in SafetensorsSource(folder).shapes):
        cfg = dataclasses.replace(cfg, mtp=0)
    return cfg


def config_of(raw: Any, path: pathlib.Path) -> ModelConfig:
    """Returns the ModelConfig of what config.json holds, float32.

    Args:
        path: where it came from, for messages.

    Raises:
        UserError: if it lacks something, or describes a model that is not one of `ARCHITECTURES`.
    """
    try:
        architecture = raw['architectures'][0]
        if architecture not in ARCHITECTURES:
            raise UserError(f"{path}: cannot read the architecture '{architecture}'{nearest(architecture, ARCHITECTURES)}")
        family = architecture.removesuffix(CAUSAL).removesuffix(SCALAR)
        # transformers writes the names of the labels, and not even them where there are two.
        labels = raw.get('num_labels', len(raw.get('id2label', ('LABEL_0', 'LABEL_1'))))
        if architecture.endswith(SCALAR) and labels != 1:
            raise UserError(f'{path}: a reward model has one label, this one has {labels}')
        for key, known in (KNOWN_OF_DEEPSEEK if family == 'DeepseekV3' else KNOWN).items():
            if raw.get(key, known) != known:
                raise UserError(f'{path}: {key}={raw[key]!r} is not supported, only {known!r} is')
        sliding = sorted(set(raw.get('layer_types') or ()) - {'full_attention'})
        if sliding:
            raise UserError(f"{path}: layer_types has '{sliding[0]}', which is not supported, only 'full_attention' is")
        quantised = raw.get('quantization_config') or {}
        for key, known in FP8.items() if quantised else ():
            if quantised.get(key) != known:
                raise UserError(f'{path}: quantization_config has {key}={quantised.get(key)!r}, only {known!r} is supported')
        theta, scaling = _read_rope(raw, path)
        return ModelConfig(
            vocab_size=raw['vocab_size'],
            d_model=raw['hidden_size'],
            n_layers=raw['num_hidden_layers'],
            n_heads=raw['num_attention_heads'],
            n_kv_heads=raw.get('num_key_value_heads') or raw['num_attention_heads'],
            d_ff=raw['intermediate_size'],
            rope_theta=theta,
            rope_scaling=scaling,
            norm_eps=raw['rms_norm_eps'],
            tie_embeddings=raw.get('tie_word_embeddings', False),
            scalar_head=architecture.endswith(SCALAR),
            max_positions=raw['max_position_embeddings'],
            **(_read_deepseek(raw) if family == 'DeepseekV3' else _read_dense(raw, family)))
    except KeyError as error:
        raise UserError(f'{path} is no model description: it lacks {error}') from error
    except (ValueError, IndexError, TypeError, AttributeError, ArithmeticError) as error:
        raise UserError(f'{path} is no model description: {type(error).__name__}: {error}') from error


def _read_dense(raw: Mapping[str, Any], family: str) -> dict[str, Any]:
    return {
        'head_dim': raw.get('head_dim') or raw['hidden_size'] // raw['num_attention_heads'],
        'qkv_bias': raw.get('attention_bias', family == 'Qwen2'),
        'qk_norm': family == 'Qwen3'}


def _read_deepseek(raw: Mapping[str, Any]) -> dict[str, Any]:
    return {
        'head_dim': raw['qk_nope_head_dim'],
        'latent': LatentAttention(
            kv_rank=raw['kv_lora_rank'], q_rank=raw.get('q_lora_rank'), rope_dim=raw['qk_rope_head_dim'],
            v_dim=raw['v_head_dim']),
        'experts': Experts(
            n=raw['n_routed_experts'], per_token=raw['num_experts_per_tok'], d_ff=raw['moe_intermediate_size'],
            shared=raw.get('n_shared_experts') or 0, groups=raw['n_group'], groups_per_token=raw['topk_group'],
            scale=raw['routed_scaling_factor'], dense_layers=raw['first_k_dense_replace']),
        'mtp': raw.get('num_nextn_predict_layers', 0)}


def _read_rope(raw: Mapping[str, Any], path: pathlib.Path) -> tuple[float, LlamaRope | Yarn | None]:
    """Returns the base of the rotary angles and how positions are stretched."""
    # transformers 5 moved the base into the dictionary of the scaling, and gave that another name.
    rope = raw.get('rope_parameters') or raw.get('rope_scaling') or {}
    theta = float(raw.get('rope_theta') or rope.get('rope_theta', 10_000.0))
    kind = rope.get('rope_type', rope.get('type', 'default'))
    if kind == 'default':
        return theta, None
    if kind == 'llama3':
        return theta, LlamaRope(
            factor=float(rope['factor']), low=float(rope['low_freq_factor']), high=float(rope['high_freq_factor']),
            original_positions=rope['original_max_position_embeddings'])
    if kind == 'yarn' and rope.get('attention_factor') is None and rope.get('truncate', True):
        return theta, Yarn(
            factor=float(rope['factor']), original_positions=rope['original_max_position_embeddings'],
            beta_fast=float(rope.get('beta_fast') or 32), beta_slow=float(rope.get('beta_slow') or 1),
            mscale=float(rope.get('mscale', 1)), mscale_all_dim=float(rope.get('mscale_all_dim', 0)))
    raise UserError(f"{path}: its rotary scaling '{kind}' {dict(rope)} is not supported; 'llama3' is, and plain 'yarn'")


def read_params(
    source: Source, cfg: ModelConfig, shardings: transformer.Params | None = None, dtype: str | None = 'float32',
) -> transformer.Params:
    """Reads a checkpoint's tensors one at a time.

    All names and shapes are checked before the first tensor is read.

    Args:
        shardings: where parameters shall lie, see `transformer.shardings`. Each host then reads what its own devices hold
            and has no more than its share of one parameter in memory beside. None gives whole NumPy arrays.
        dtype: of the parameters; None leaves each in the type in which its tensors are stored, float32 where those differ.

    Raises:
        UserError: naming the tensor, if one is missing, has another shape, has no place in the model, holds numbers that are
            not finite, or ought to repeat another and does not.
    """
    specs, where = by_path(transformer.abstract(cfg)), by_path(shardings) if shardings is not None else None
    found = list(places(cfg))
    _check(source, cfg, found, specs)
    arrays: dict[str, Any] = {}
    # Parameter by parameter, so that one at a time is in memory; a tensor may hold parts of two.
    by_parts = collections.defaultdict(list)
    for place in found:
        by_parts[tuple(place.stack + part for part in place.entry.parts)].append(place)
    for paths, of_parts in by_parts.items():
        types = {source.dtypes[place.name] for place in of_parts} if dtype is None else {np.dtype(dtype)}
        kept = types.pop() if len(types) == 1 else np.dtype(np.float32)
        pieces = [_Pieces(specs[path].shape, kept, where[path] if where else None) for path in paths]
        for place in of_parts:
            if any(piece.wants(place.index) for piece in pieces):
                _read_place(source, place, cfg, pieces)
        arrays |= {path: piece.assemble() for path, piece in zip(paths, pieces, strict=True)}
        del pieces  # before those of the next one are made
    return jax.tree.unflatten(jax.tree.structure(transformer.abstract(cfg)), [arrays[path] for path in specs])


def _read_place(source: Source, place: Place, cfg: ModelConfig, pieces: Sequence['_Pieces']) -> None:
    """Reads a tensor into the parameters that it holds parts of."""
    x = source.read(place.name)
    if not np.isfinite(x).all():
        raise UserError(f"{source.where}: the tensor '{place.name}' holds numbers that are not finite")
    shapes = [piece.shape[len(place.index):] for piece in pieces]
    for piece, part in zip(pieces, place.entry.read(x, shapes, cfg), strict=True):
        piece.put(place.index, part)


def _check(source: Source, cfg: ModelConfig, found: Sequence[Place], specs: Mapping[str, ArraySpec]) -> None:
    for place in found:
        if place.name not in source.shapes:
            raise UserError(f"{source.where}: the tensor '{place.name}' is missing{nearest(place.name, source.shapes)}")
        shapes = [specs[place.stack + part].shape[len(place.index):] for part in place.entry.parts]
        shape, wanted = source.shapes[place.name], place.entry.shape(shapes)
        if shape != wanted:
            raise UserError(
                f"{source.where}: the tensor '{place.name}' has shape {shape}, its model's description wants {wanted}")
    # Old files hold the rotary frequencies, which follow from the config.
    repeated = {place.name: place.entry.name for place in copies(cfg)}
    used = {place.name for place in found} | set(repeated)
    left = sorted(name for name in source.shapes if name not in used and not name.endswith('rotary_emb.inv_freq'))
    if left:
        raise UserError(f"{source.where}: the tensor '{left[0]}' has no place in the model of its description")
    for copy, first in repeated.items():
        if copy in source.shapes and not np.array_equal(source.read(copy), source.read(first)):
            raise UserError(
                f"{source.where}: the tensor '{copy}' ought to repeat '{first}', by its model's description, and does not")


class _Pieces:
    """One parameter on its way to this host's devices: a buffer for each different part of it that they hold."""

    def __init__(self, shape: tuple[int, ...], dtype: np.dtype, sharding: jax.sharding.NamedSharding | None):
        self.shape, self._sharding = shape, sharding
        # A part is where it starts and stops along each dimension.
        whole = tuple((0, n) for n in shape)
        self._devices = {} if sharding is None else {
            device: tuple(s.indices(n)[:2] for s, n in zip(index, shape, strict=True))
            for device, index in sharding.addressable_devices_indices_map(shape).items()}
        self._buffers = {
            part: np.empty([stop - start for start, stop in part], dtype)
            for part in (set(self._devices.values()) or {whole})}

    def wants(self, place: tuple[int, ...]) -> bool:
        """Whether a device of this host holds anything of the layer (and expert) `place`."""
        return any(_holds(part, place) for part in self._buffers)

    def put(self, place: tuple[int, ...], value: np.ndarray) -> None:
        for part, buffer in self._buffers.items():
            if _holds(part, place):
                here = tuple(i - start for i, (start, _) in zip(place, part, strict=False))
                buffer[here] = value[tuple(slice(*ends) for ends in part[len(place):])]

    def assemble(self) -> Any:
        if self._sharding is None:
            (buffer,) = self._buffers.values()
            return buffer
        array = jax.make_array_from_single_device_arrays(
            self.shape, self._sharding,
            [jax.device_put(self._buffers[part], device) for device, part in self._devices.items()])
        return array.block_until_ready()  # until then the buffers are needed


def _holds(part: tuple[tuple[int, int], ...], place: tuple[int, ...]) -> bool:
    return all(start <= i < stop for i, (start, stop) in zip(place, part, strict=False))


def by_path(params: Any) -> dict[str, Any]:
    """Returns the leaves of Params, or of dictionaries like it, by path ('layers.attn.wq'), in the order of the tree."""
    leaves, _ = jax.tree_util.tree_flatten_with_path(params)
    return {jax.tree_util.keystr(path, simple=True, separator='.'): leaf for path, leaf in leaves}


def write(
    folder: pathlib.Path, params: transformer.Params, cfg: ModelConfig, *, eos: int, bos: int | None, pad: int | None = None,
    dtype: str | None = None, shard_bytes: int = 5 * 10**9,
) -> None:
    """Writes config.json, generation_config.json and safetensors as transformers reads them, with an index where there are
    several. Each host writes its share of the files, and has the tensors of one in memory.

    Args:
        pad: named only where it is not EOS: transformers reads the score of a reward model at the last token that is no
            padding, which is to be EOS. Where none is named it takes batches of one sequence.
        dtype: 'float32', 'bfloat16' or 'float16'; None leaves each parameter in its own. So does the experts' balance, which
            DeepSeek-V3 keeps in float32: differences in it are small against its size.
        shard_bytes: largest file, if a single tensor is not larger.

    Raises:
        UserError: naming the tensor, if one holds numbers that are not finite in that type; or no family of transformers has
            the model's parts.
    """
    description = _description(cfg, eos, bos, pad)
    arrays, specs = by_path(params), by_path(transformer.abstract(cfg))
    found = [*places(cfg), *second_token_copies(cfg)]

    def shape(place: Place) -> tuple[int, ...]:
        return place.entry.shape([specs[place.stack + part].shape[len(place.index):] for part in place.entry.parts])

    def stored(place: Place) -> np.dtype:
        own = arrays[place.stack + place.entry.parts[0]].dtype
        return np.dtype(own if dtype is None or place.name.endswith(BALANCE) else jnp.dtype(dtype))

    def tensor(place: Place) -> np.ndarray:
        parts = [_fetch(arrays[place.stack + part], place.index) for part in place.entry.parts]
        with np.errstate(over='ignore'):  # told below
            x = np.ascontiguousarray(place.entry.write(parts, cfg).astype(stored(place)))
        if not np.isfinite(x).all():
            raise UserError(f"the tensor '{place.name}' holds numbers that are not finite in {stored(place)}")
        return x

    files: list[list[Place]] = [[]]
    sizes = [0]
    for place in found:
        more = math.prod(shape(place)) * stored(place).itemsize
        if files[-1] and sizes[-1] + more > shard_bytes:
            files.append([])
            sizes.append(0)
        files[-1].append(place)
        sizes[-1] += more
    folder.mkdir(parents=True, exist_ok=True)
    names = [SINGLE] if len(files) == 1 else [
        f'model-{i:05d}-of-{len(files):05d}.safetensors' for i in range(1, len(files) + 1)]
    for number, (name, of_file) in enumerate(zip(names, files, strict=True)):
        # All hosts take part in bringing a tensor together; the one whose file it is keeps it.
        tensors = {}
        for place in of_file:
            x = tensor(place)
            if number % jax.process_count() == jax.process_index():
                tensors[place.name] = x
        if tensors:
            safetensors.numpy.save_file(tensors, folder / name, metadata={'format': 'pt'})
    if not is_leader():
        return
    if len(files) > 1:
        index = {place.name: name for name, of_file in zip(names, files, strict=True) for place in of_file}
        _write_json(folder / INDEX, {'metadata': {'total_size': sum(sizes)}, 'weight_map': index})
    # transformers computes in the type that is named, by default.
    _write_json(folder / 'config.json', description | {'torch_dtype': str(stored(found[0]))})
    _write_json(folder / 'generation_config.json', {'bos_token_id': bos, 'eos_token_id': eos})


def _fetch(x: jax.Array, index: tuple[int, ...]) -> np.ndarray:
    """Returns one layer (and expert) of a parameter on the host, brought together from all devices."""
    if not isinstance(x.sharding, NamedSharding):  # on one device
        return np.asarray(x[index])
    bits = take(x, index, x.sharding)
    if not bits.is_fully_addressable:
        bits = multihost_utils.process_allgather(bits, tiled=True)
    return np.asarray(bits).view(x.dtype)


@functools.partial(jax.jit, static_argnames='sharding')
def take(x: jax.Array, index: tuple[int, ...], sharding: NamedSharding) -> jax.Array:
    """Returns the bits of x[index] as integers, on all devices; what is left of the dimensions is split as it was.

    The compiler would bring the whole of x to all devices first. Here the one that has the place adds it to the zeros of the
    others: integers, because in floating point -0 + 0 is 0.
    """
    spec = (*sharding.spec, *[None] * (x.ndim - len(sharding.spec)))

    def local(bits: jax.Array) -> jax.Array:
        mine, axes = True, ()
        for i, axis in zip(index, spec, strict=False):
            n = bits.shape[0]
            if axis is not None:
                i, axes = i - n * jax.lax.axis_index(axis), (*axes, *([axis] if isinstance(axis, str) else axis))
                mine &= (0 <= i) & (i < n)
            bits = jax.lax.dynamic_index_in_dim(bits, jnp.clip(i, 0, n - 1), keepdims=False)
        # Not all devices add numbers of 16 bits.
        return jax.lax.psum(jnp.where(mine, bits, 0).astype(jnp.uint32), axes).astype(bits.dtype) if axes else bits

    bits = jax.lax.bitcast_convert_type(x, f'uint{8 * x.dtype.itemsize}')
    return jax.shard_map(
        local, mesh=sharding.mesh, in_specs=PartitionSpec(*spec), out_specs=PartitionSpec(*spec[len(index):]))(bits)


def _write_json(path: pathlib.Path, content: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2) + '\n')


def _description(cfg: ModelConfig, eos: int, bos: int | None, pad: int | None) -> dict[str, Any]:
    """What config.json says of a model."""
    if (cfg.latent is None) != (cfg.experts is None) or cfg.qkv_bias and cfg.qk_norm:
        raise UserError(
            'no family of transformers has the parts of this model: latent attention and experts go together (DeepSeek-V3), '
            'qkv_bias (Qwen2) and qk_norm (Qwen3) do not')
    if cfg.latent:
        family = 'DeepseekV3'
    else:
        family = 'Qwen3' if cfg.qk_norm else 'Qwen2' if cfg.qkv_bias else 'Llama'
    description = {
        'architectures': [family + (SCALAR if cfg.scalar_head else CAUSAL)],
        'model_type': 'deepseek_v3' if cfg.latent else family.lower(),
        'vocab_size': cfg.vocab_size,
        'hidden_size': cfg.d_model,
        'num_hidden_layers': cfg.n_layers,
        'num_attention_heads': cfg.n_heads,
        'num_key_value_heads': cfg.n_kv_heads,
        'intermediate_size': cfg.d_ff,
        'hidden_act': 'silu',
        'rope_theta': cfg.rope_theta,
        'rms_norm_eps': cfg.norm_eps,
        'attention_bias': cfg.qkv_bias,
        'tie_word_embeddings': cfg.tie_embeddings,
        'max_position_embeddings': cfg.max_positions,
        'bos_token_id': bos,
        'eos_token_id': eos,
    } | ({} if pad is None else {'pad_token_id': pad}) | ({'num_labels': 1} if cfg.scalar_head else {})
    if cfg.rope_scaling:
        description['rope_scaling'] = _rope_scaling(cfg.rope_scaling)
    if not cfg.latent:
        return description | {'head_dim': cfg.head_dim, 'mlp_bias': False}
    return description | {
        'kv_lora_rank': cfg.latent.kv_rank,
        'q_lora_rank': cfg.latent.q_rank,
        'qk_nope_head_dim': cfg.head_dim,
        'qk_rope_head_dim': cfg.latent.rope_dim,
        'v_head_dim': cfg.latent.v_dim,
        'n_routed_experts': cfg.experts.n,
        'n_shared_experts': cfg.experts.shared,
        'num_experts_per_tok': cfg.experts.per_token,
        'moe_intermediate_size': cfg.experts.d_ff,
        'n_group': cfg.experts.groups,
        'topk_group': cfg.experts.groups_per_token,
        'routed_scaling_factor': cfg.experts.scale,
        'norm_topk_prob': True,
        'scoring_func': 'sigmoid',
        'topk_method': 'noaux_tc',
        'first_k_dense_replace': cfg.experts.dense_layers,
        'moe_layer_freq': 1,
        'num_nextn_predict_layers': cfg.mtp,
    }


def _rope_scaling(scaling: LlamaRope | Yarn) -> dict[str, Any]:
    common = {'factor': scaling.factor, 'original_max_position_embeddings': scaling.original_positions}
    if isinstance(scaling, LlamaRope):
        return common | {'rope_type': 'llama3', 'low_freq_factor': scaling.low, 'high_freq_factor': scaling.high}
    return common | {
        'rope_type': 'yarn', 'type': 'yarn', 'beta_fast': scaling.beta_fast, 'beta_slow': scaling.beta_slow,
        'mscale': scaling.mscale, 'mscale_all_dim': scaling.mscale_all_dim}
