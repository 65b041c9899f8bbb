"""Models and training states on disk, through orbax.

A *model folder* holds one model for others to load: `model.json` (its ModelConfig), the tokenizer's files and sharded
`params/`. A folder with `config.json` and safetensors (Hugging Face) is read in the same way. *Checkpoints* are a
stage's own: the training state at some steps, to go on from.
"""

import dataclasses
import json
import pathlib
from typing import Any

import jax
import orbax.checkpoint as ocp

from r1jax.config import from_dict
from r1jax.data import tokenizers
from r1jax.errors import Missing, UserError
from r1jax.interop import hf
from r1jax.interop.sources import SafetensorsSource
from r1jax.models import transformer
from r1jax.models.config import AS_DESCRIBED, Execution, ModelConfig
from r1jax.parallel.distributed import barrier, is_leader
from r1jax.parallel.rules import Sharding

# Models that ship with the package, by the name after 'package:'.
ASSETS = pathlib.Path(__file__).resolve().parents[1] / 'assets'


@dataclasses.dataclass(frozen=True)
class Model:
    """A model ready for use: parameters on the mesh, their description and the tokenizer."""

    params: transformer.Params
    cfg: ModelConfig
    tokenizer: tokenizers.Tokenizer


def resolve(spec: str | pathlib.Path) -> pathlib.Path:
    """Turns 'package:NAME' or a path into the folder that holds a model (itself, or its `model/`).

    Raises:
        UserError: if there is none.
    """
    spec = str(spec)
    if spec.startswith('package:'):
        name = spec.removeprefix('package:')
        folder = ASSETS / name
        if not folder.is_dir():
            shipped = ', '.join(sorted(p.name for p in ASSETS.glob('*') if p.is_dir())) or 'none'
            raise UserError(f"no model named '{name}' ships with the package (known: {shipped})")
        return folder
    folder = pathlib.Path(spec).expanduser()
    for candidate in (folder, folder / 'model'):
        if (candidate / 'model.json').exists() or (candidate / 'config.json').exists() and any(
                candidate.glob('*.safetensors')):
            return candidate
    if not folder.exists():
        raise Missing(f'checkpoint {spec} does not exist')
    raise UserError(f'checkpoint {spec} has no model.json and no config.json with *.safetensors')


def read_config(spec: str | pathlib.Path) -> ModelConfig:
    """Returns the description of a model without its parameters. Raises UserError as `load_model` does."""
    folder = resolve(spec)
    path = folder / 'model.json'
    if not path.exists():
        return hf.read_config(folder)
    try:
        return from_dict(ModelConfig, json.loads(path.read_text()))
    except (ValueError, UserError) as error:
        raise UserError(f'{path} is no model description: {error}') from error


def load_model(spec: str | pathlib.Path, sharding: Sharding, execution: Execution = AS_DESCRIBED) -> Model:
    """Reads a model folder onto the mesh; parameters come as float32.

    Args:
        execution: how to run it. A Hugging Face folder leaves the dtype at float32.

    Raises:
        UserError: if the folder, a file or a tensor is missing or damaged, or the mesh does not divide the parameters.
    """
    cfg = read_config(spec)
    params = load_params(spec, cfg, transformer.shardings(cfg, sharding))
    return Model(params, execution.of(cfg), tokenizers.load(resolve(spec)))


def load_params(
    spec: str | pathlib.Path, cfg: ModelConfig, shardings: transformer.Params, *, as_stored: bool = False,
) -> transformer.Params:
    """Reads the parameters of a model folder of this description.

    Args:
        shardings: where they shall lie, as `transformer.shardings` gives it.
        as_stored: whether they stay in the types of the files; else they come as float32, whatever those are.

    Raises:
        UserError: if a file or a tensor is missing or damaged.
    """
    folder = resolve(spec)
    if not (folder / 'model.json').exists():
        return hf.read_params(SafetensorsSource(folder), cfg, shardings, dtype=None if as_stored else 'float32')
    path, specs = (folder / 'params').absolute(), transformer.abstract(cfg)
    with ocp.StandardCheckpointer() as checkpointer:
        try:
            if as_stored:
                stored = hf.by_path(checkpointer.metadata(path).item_metadata.tree)  # a dictionary of dictionaries
                dtypes = jax.tree.unflatten(jax.tree.structure(specs), [stored[name].dtype for name in hf.by_path(specs)])
            else:
                dtypes = jax.tree.map(lambda spec: spec.dtype, specs)
            return checkpointer.restore(path, jax.tree.map(
                lambda spec, dtype, where: jax.ShapeDtypeStruct(spec.shape, dtype, sharding=where),
                specs, dtypes, shardings))
        except (ValueError, FileNotFoundError, KeyError) as error:
            raise UserError(f'{path} cannot be read: {str(error).splitlines()[0]}') from error


def save_model(folder: pathlib.Path, model: Model) -> None:
    """Writes a model folder; each host writes its own shards."""
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save((folder / 'params').absolute(), model.params, force=True)
    if is_leader():
        model.tokenizer.save(folder)
        description = dataclasses.asdict(model.cfg)
        del description['scan_layers'], description['remat']  # how it was run, and not what it is
        (folder / 'model.json').write_text(json.dumps(description, indent=2) + '\n')
    barrier(f'{folder} saved')  # before a host that does not write goes on to read it


class Checkpoints:
    """The training states of one stage, the newest `keep` of them. A context manager."""

    def __init__(self, folder: pathlib.Path, keep: int = 2):
        self._manager = ocp.CheckpointManager(
            folder.absolute(),
            options=ocp.CheckpointManagerOptions(max_to_keep=keep, cleanup_tmp_directories=True),
            item_names=('state', 'position'))

    def latest(self) -> int | None:
        """Returns the newest step that was saved whole, None if there is none."""
        return self._manager.latest_step()

    def save(self, step: int, state: Any, position: dict) -> None:
        """Saves a pytree of arrays and a JSON-ready position (data iterator, counters), in the background."""
        self._manager.save(
            step, args=ocp.args.Composite(
                state=ocp.args.StandardSave(state), position=ocp.args.JsonSave(position)))

    def restore(self, step: int, like: Any) -> tuple[Any, dict]:
        """Returns (state, position) of a step, the state with the shapes, dtypes and shardings of `like`."""
        restored = self._manager.restore(
            step, args=ocp.args.Composite(
                state=ocp.args.StandardRestore(jax.tree.map(ocp.utils.to_shape_dtype_struct, like)),
                position=ocp.args.JsonRestore()))
        return restored.state, restored.position

    def __enter__(self) -> 'Checkpoints':
        return self

    def __exit__(self, *_: object) -> None:
        self._manager.wait_until_finished()
        self._manager.close()
