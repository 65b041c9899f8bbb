"""A parameter before it exists."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class ArraySpec:
    """Shape, logical axes (the dimensions' names for `parallel.rules`), initialiser and dtype of one parameter.

    An `exact` one is used in float32 whatever the model computes in, and is never rounded for it.
    """

    shape: tuple[int, ...]
    axes: tuple[str | None, ...]
    init: str = 'normal'  # 'normal' (fan-in scaled), 'ones' or 'zeros'
    fan_in: int = 1
    dtype: str = 'float32'
    exact: bool = False
