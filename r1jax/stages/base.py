"""What every stage is given, what it gives back, and what the pipeline must know of its kind."""

import dataclasses
import pathlib
from collections.abc import Callable, Mapping
from typing import Any, Literal

from jax.sharding import Mesh

from r1jax.models.config import AS_DESCRIBED, Execution
from r1jax.parallel.rules import DECODING, TRAINING, Sharding

# What a stage can make, and what others can be given: a model, one with a scalar head, or a folder of Parquet files.
Made = Literal['model', 'reward_model', 'data']
MODEL = 'model'  # the role of the model that a stage starts from


@dataclasses.dataclass(frozen=True)
class Inputs:
    """What a stage finds when it starts.

    Attributes:
        name: the stage's name in the experiment.
        seed: of the experiment; everything random is derived from it.
        mesh: the devices.
        model: the model to start from: 'package:NAME', or the folder of an earlier stage's artifact; '' without one.
        execution: how models are run. Parameters, optimizer state and losses are float32 whatever they compute in.
        given: the folders of all other artifacts by role ('data', or the name of a reward).
    """

    name: str
    seed: int
    mesh: Mesh
    model: str
    execution: Execution = AS_DESCRIBED
    given: Mapping[str, str] = dataclasses.field(default_factory=dict)

    @property
    def training(self) -> Sharding:
        return Sharding(self.mesh, TRAINING)

    @property
    def decoding(self) -> Sharding:
        return Sharding(self.mesh, DECODING)


@dataclasses.dataclass(frozen=True)
class Artifact:
    """What a finished stage leaves: the folder that later stages are given, and figures for the summary.

    Attributes:
        folder: a model folder, or a folder of data.
        figures: metric -> {mean, low, high, n}, as in summary.json; what only the stage itself can measure.
    """

    folder: pathlib.Path
    figures: Mapping[str, Mapping[str, float]] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class StageKind:
    """A kind of stage, as experiment files name it.

    Attributes:
        settings: its frozen dataclass. `settings.check(sharding, model)` gets the description of the model that the stage
            will start from (None without one), raises UserError for what can be known to fail, and returns that of the
            model it will leave (None for data).
        run: (settings, inputs, folder) -> Artifact; goes on with what an earlier start has left in the folder.
        makes: what its artifact is.
        takes: role -> what it must be. A missing 'model' is the latest model that a stage before made, or the base.
        more: what inputs of roles beyond `takes` are; None where there may be none.
    """

    settings: type
    run: Callable[[Any, Inputs, pathlib.Path], Artifact]
    makes: Made = 'model'
    takes: Mapping[str, Made] = dataclasses.field(default_factory=dict)
    more: Made | None = None

    def wants(self, role: str) -> Made | None:
        """What the input of a role must be."""
        return self.takes.get(role, self.more)
