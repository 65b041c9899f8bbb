"""What every stage is given and gives back."""

import dataclasses
import pathlib

from jax.sharding import Mesh

from r1jax.parallel.rules import DECODING, TRAINING, Sharding


@dataclasses.dataclass(frozen=True)
class Inputs:
    """What a stage finds when it starts.

    Attributes:
        name: the stage's name in the experiment.
        seed: of the experiment; everything random is derived from it.
        mesh: the devices.
        base: the model to start from: 'package:NAME', or the folder of an earlier stage's artifact.
        dtype: what models compute in, 'float32' or 'bfloat16'; None is what their descriptions say. Parameters,
            optimizer state and losses are float32 either way.
    """

    name: str
    seed: int
    mesh: Mesh
    base: str
    dtype: str | None = None

    @property
    def training(self) -> Sharding:
        return Sharding(self.mesh, TRAINING)

    @property
    def decoding(self) -> Sharding:
        return Sharding(self.mesh, DECODING)


@dataclasses.dataclass(frozen=True)
class Artifact:
    """What a finished stage leaves: the folder of its model."""

    model: pathlib.Path
