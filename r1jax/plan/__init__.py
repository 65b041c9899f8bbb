"""Plans a stage for TPUs that nobody has rented: compiles its programs with the TPU's compiler, on any machine.

`programs` says what a stage runs and on which shapes; `costs` compiles that and reads memory (`compiled.memory_analysis`),
traffic (`hlo`) and operations (`flops`); `report` prints it and says what helps where it does not fit.
"""

import dataclasses
import importlib.util
import os
from collections.abc import Iterator

import jax
from jax.experimental import mesh_utils, topologies
from jax.sharding import AxisType, Mesh
from ml_collections import ConfigDict

from r1jax import pipeline
from r1jax.errors import Missing, UserError, nearest
from r1jax.models.config import Execution, ModelConfig
from r1jax.models.presets import preset
from r1jax.parallel.mesh import AXES, mesh_sizes
from r1jax.plan.chips import Chip, chip
from r1jax.plan.costs import Costs, TooLarge, measure
from r1jax.plan.programs import bytes_on_device, programs
from r1jax.runtime.checkpoint import read_config
from r1jax.stages.pretrain import PretrainStage


@dataclasses.dataclass(frozen=True)
class Planned:
    """One program of a stage on its topology.

    Attributes:
        memory: bytes on one device, by name; 'activations' are the program's temporaries.
        costs: of one unit; None where the compiler found no way to fit it into memory.
        compile_s: how long the compiler took.
    """

    name: str
    unit: str
    memory: dict[str, float]
    costs: Costs | None
    compile_s: float
    chip: Chip

    @property
    def total(self) -> float:
        """Bytes on one device."""
        return sum(self.memory.values())

    @property
    def fits(self) -> bool:
        return self.costs is not None and self.total <= self.chip.hbm

    @property
    def bounds(self) -> dict[str, float]:
        """Seconds that one unit takes at least, by what bounds it: compute, memory, interconnect."""
        if self.costs is None:
            return {}
        return {
            'compute': self.costs.flops / self.chip.flops,
            'memory': self.costs.hbm_bytes / self.chip.bandwidth,
            'interconnect': self.costs.seconds_of_collectives}

    @property
    def bound(self) -> str:
        """What takes longest, if all three overlap."""
        return max(self.bounds, key=self.bounds.get)


@dataclasses.dataclass(frozen=True)
class Subject:
    """What is planned: a stage of an experiment, the model it starts from, and a mesh of devices that are not there."""

    experiment: str
    stage: str
    settings: object
    cfg: ModelConfig
    topology: str
    mesh: Mesh


def subject(config: ConfigDict, stage: str | None, topology: str | None, model: str | None) -> Subject:
    """Finds what is to be planned.

    Args:
        stage: its name; None if the experiment has but one.
        topology: 'v5p:8x8x8'; None is the experiment's own.
        model: a preset, in place of the experiment's base; None is that base where it exists, else the experiment's own. A
            stage of pretraining starts from the preset that it names.

    Raises:
        UserError: one of them is unknown or missing, or the mesh does not lay out the topology.
    """
    planned = pipeline.plan(config)
    experiment = planned.experiment
    names = list(experiment.stages)
    if stage is None and len(names) > 1:
        raise UserError(f'--stage is missing; the stages are: {", ".join(names)}')
    stage = stage or names[0]
    if stage not in names:
        raise UserError(f'--stage={stage}: the experiment has no such stage{nearest(stage, names)}')
    topology = topology or experiment.plan.topology
    if not topology:
        raise UserError('--topology is missing, as in v5p:8x8x8, and the experiment names none (plan.topology)')
    cfg = _model(experiment, experiment.stages[stage].config, model)
    devices = _devices(topology)
    mesh = Mesh(
        mesh_utils.create_device_mesh(mesh_sizes(experiment.mesh, len(devices)), devices, allow_split_physical_axes=True),
        AXES, axis_types=(AxisType.Auto,) * len(AXES))
    return Subject(experiment.name, stage, experiment.stages[stage].config, cfg, topology, mesh)


def _model(experiment, stage: object, model: str | None) -> ModelConfig:
    if isinstance(stage, PretrainStage):
        model = model or stage.model
    try:
        cfg = preset(model) if model else read_config(experiment.base)
    except Missing as error:
        if not experiment.plan.model:
            raise UserError(f'{error}; --model names a shape instead, see `r1jax tasks`') from error
        cfg = preset(experiment.plan.model)
    return Execution(experiment.dtype, experiment.scan_layers, experiment.remat).of(cfg)


def _devices(topology: str) -> list[jax.Device]:
    """The devices of a topology, which the TPU's compiler knows without there being any."""
    chip(topology)
    if importlib.util.find_spec('libtpu') is None:
        raise UserError("the TPU's compiler is not installed: pip install 'r1jax[tpu]'")
    # What libtpu would else look for at length, and complain that it is not there; and several plans may be made at once.
    for name, value in {
            'TPU_SKIP_MDS_QUERY': '1', 'TPU_WORKER_HOSTNAMES': 'localhost', 'TPU_ACCELERATOR_TYPE': 'v5p-8',
            'ALLOW_MULTIPLE_LIBTPU_LOAD': '1'}.items():
        os.environ.setdefault(name, value)
    try:
        return topologies.get_topology_desc(platform='tpu', topology_name=topology).devices
    except (jax.errors.JaxRuntimeError, ValueError, RuntimeError) as error:
        raise UserError(f"topology '{topology}': {str(error).splitlines()[0]}") from error


def plan(what: Subject) -> Iterator[Planned]:
    """Yields each program of the stage as it has been compiled.

    Raises:
        UserError: if the mesh does not divide a batch or a parameter.
    """
    of_chip = chip(what.topology)
    for make in programs(what.settings, what.cfg, what.mesh):
        program = make(what.cfg)
        memory = {name: sum(map(bytes_on_device, trees)) for name, trees in program.memory.items()}
        try:
            found, seconds = measure(make, what.cfg, what.mesh, of_chip)
            memory |= {'activations': found.temporary, 'program': found.code}
        except TooLarge as error:
            found, seconds = None, 0.0
            memory['activations'] = max(0.0, error.used - sum(map(bytes_on_device, program.args)))
        yield Planned(program.name, program.unit, memory, found, seconds, of_chip)


__all__ = ['Planned', 'Subject', 'plan', 'subject']
