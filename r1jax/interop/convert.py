"""Models of others into model folders, and ours into Hugging Face folders. Nothing is written before all has been read."""

import math
import os
import pathlib
import shutil
import tempfile
from collections.abc import Callable

import jax
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from r1jax.data import tokenizers
from r1jax.errors import UserError
from r1jax.interop import gguf, hf
from r1jax.interop.sources import SafetensorsSource
from r1jax.models import transformer
from r1jax.models.config import ModelConfig
from r1jax.models.spec import ArraySpec
from r1jax.parallel.distributed import barrier, is_leader
from r1jax.parallel.mesh import MeshConfig, make_mesh
from r1jax.runtime.checkpoint import Model, load_params, read_config, resolve, save_model


def import_model(source: pathlib.Path, out: pathlib.Path) -> ModelConfig:
    """Reads a Hugging Face folder or a GGUF file and writes a model folder, its parameters in the types in which they are
    stored. Returns what the model looks like.

    Raises:
        UserError: `out` is there already, or what `source` holds is missing, damaged or of an unknown family; then nothing
            has been written.
    """
    _refuse_existing(out)
    with tempfile.TemporaryDirectory() as made:
        if source.is_file():
            read = gguf.GgufSource(source)
            cfg = hf.config_of(gguf.description(read), source)
            gguf.write_tokenizer(read, pathlib.Path(made))
            tokenizer = tokenizers.load(made)
        elif source.is_dir():
            cfg, read, tokenizer = hf.read_config(source), SafetensorsSource(source), tokenizers.load(source)
        else:
            raise UserError(f'there is no file or folder {source} to import')
        if tokenizer.vocab_size > cfg.vocab_size:
            raise UserError(
                f'{source}: its tokenizer has {tokenizer.vocab_size} tokens, and its model an embedding of {cfg.vocab_size}')
        params = hf.read_params(read, cfg, spread(cfg), dtype=None)
        _write_whole(out, lambda folder: save_model(folder, Model(params, cfg, tokenizer)))
    return cfg


def export_model(checkpoint: str, out: pathlib.Path, dtype: str | None, shard_bytes: int) -> list[pathlib.Path]:
    """Writes a model as a Hugging Face folder that transformers loads, and returns its files.

    Args:
        dtype, shard_bytes: see `hf.write`.

    Raises:
        UserError: `out` is there already, or the checkpoint is missing, damaged or beyond the range of `dtype`; then nothing
            has been written.
    """
    _refuse_existing(out)
    cfg = read_config(checkpoint)
    tokenizer = tokenizers.load(resolve(checkpoint))
    params = load_params(checkpoint, cfg, spread(cfg), as_stored=True)

    def write(folder: pathlib.Path) -> None:
        hf.write(
            folder, params, cfg, eos=tokenizer.eos_id, bos=tokenizer.bos_id,
            pad=None if tokenizer.pad_id == tokenizer.eos_id else tokenizer.pad_id, dtype=dtype, shard_bytes=shard_bytes)
        if is_leader():
            tokenizer.save(folder)

    _write_whole(out, write)
    return sorted(out.iterdir())


def spread(cfg: ModelConfig) -> transformer.Params:
    """Returns Params of NamedShardings: where parameters lie between reading and writing.

    Nothing is computed with them, so each is cut along one dimension, over as many of all devices as divide it. That is the
    experts', so that a host reads its own alone, or else the longest.
    """
    def one(spec: ArraySpec) -> NamedSharding:
        at = spec.axes.index('experts') if 'experts' in spec.axes else int(np.argmax(spec.shape))
        mesh = make_mesh(MeshConfig(data=-1, fsdp=math.gcd(jax.device_count(), spec.shape[at])))
        return NamedSharding(mesh, PartitionSpec(*[None] * at, 'fsdp'))

    return jax.tree.map(one, transformer.abstract(cfg))


def _refuse_existing(out: pathlib.Path) -> None:
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f'{out} is there already; name a new folder')


def _write_whole(out: pathlib.Path, write: Callable[[pathlib.Path], None]) -> None:
    """Writes into a folder beside `out` that becomes `out` when all is written, and is removed if that fails."""
    beside = out.with_name(f'.{out.name}.tmp')
    if is_leader():
        shutil.rmtree(beside, ignore_errors=True)  # of one that was killed
        beside.mkdir(parents=True)
    barrier(f'{beside} made')
    try:
        write(beside)
    except BaseException:
        shutil.rmtree(beside, ignore_errors=True)
        raise
    barrier(f'{beside} written')
    if is_leader():
        if out.exists():
            out.rmdir()
        os.replace(beside, out)
    barrier(f'{out} written')
