"""Models of others into model folders, and ours into Hugging Face folders. Nothing is written before all has been read."""

import os
import pathlib
import shutil
from collections.abc import Callable

from r1jax.data import tokenizers
from r1jax.errors import UserError
from r1jax.interop import gguf, hf
from r1jax.interop.sources import SafetensorsSource
from r1jax.models import transformer
from r1jax.parallel.distributed import barrier, is_leader
from r1jax.parallel.mesh import MeshConfig, make_mesh
from r1jax.parallel.rules import TRAINING, Sharding
from r1jax.runtime.checkpoint import Model, load_model, save_model


def import_model(source: pathlib.Path, out: pathlib.Path) -> Model:
    """Reads a Hugging Face folder or a GGUF file and writes a model folder, spread over all devices.

    Raises:
        UserError: `out` is there already, or what `source` holds is missing, damaged or of an unknown family; then nothing
            has been written.
    """
    if source.is_file():
        cfg, read = hf.config_of(gguf.description(source), source), gguf.GgufSource(source)
    elif source.is_dir():
        cfg, read = hf.read_config(source), SafetensorsSource(source)
    else:
        raise UserError(f'there is no file or folder {source} to import')
    sharding = Sharding(make_mesh(MeshConfig(data=1, fsdp=-1)), TRAINING)

    def write(folder: pathlib.Path) -> None:
        if source.is_file():
            gguf.write_tokenizer(source, folder)
        model = Model(params, cfg, tokenizers.load(folder if source.is_file() else source))
        save_model(folder, model)

    _refuse_existing(out)
    params = hf.read_params(read, cfg, transformer.shardings(cfg, sharding))
    _write_whole(out, write)
    return load_model(out, sharding)


def export_model(checkpoint: str, out: pathlib.Path, dtype: str, shard_bytes: int) -> list[pathlib.Path]:
    """Writes a model as a Hugging Face folder that transformers loads, and returns its files.

    Raises:
        UserError: `out` is there already, or the checkpoint is missing or damaged.
    """
    _refuse_existing(out)
    model = load_model(checkpoint, Sharding(make_mesh(MeshConfig(data=1, fsdp=-1)), TRAINING))

    def write(folder: pathlib.Path) -> None:
        hf.write(
            folder, model.params, model.cfg, eos=model.tokenizer.eos_id, bos=model.tokenizer.bos_id, dtype=dtype,
            shard_bytes=shard_bytes)
        if is_leader():
            model.tokenizer.save(folder)

    _write_whole(out, write)
    return sorted(out.iterdir())


def _refuse_existing(out: pathlib.Path) -> None:
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f'{out} is there already; name a new folder')


def _write_whole(out: pathlib.Path, write: Callable[[pathlib.Path], None]) -> None:
    """Writes into a folder beside `out` that becomes `out` when all is written."""
    beside = out.with_name(f'.{out.name}.tmp')
    if is_leader():
        shutil.rmtree(beside, ignore_errors=True)
        beside.mkdir(parents=True)
    barrier(f'{beside} made')
    write(beside)
    barrier(f'{beside} written')
    if is_leader():
        if out.exists():
            out.rmdir()
        os.replace(beside, out)
    barrier(f'{out} written')
