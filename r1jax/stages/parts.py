"""Sampling for data in parts that are written one by one, so that an interrupted stage goes on after the last one."""

import pathlib
from collections.abc import Callable, Iterator, Sequence

import pyarrow as pa

from r1jax.data import tasks
from r1jax.parallel.distributed import barrier, is_leader
from r1jax.parallel.rules import Sharding
from r1jax.rewards.base import Example
from r1jax.rewards.chat import Chat, JudgeConfig, open_chat
from r1jax.runtime import datasets


def portion(slots: int, samples: int) -> int:
    """How many questions to sample at once: enough to keep the slots full until near the end."""
    return max(1, 16 * slots // samples)


def open_judge(config: JudgeConfig, sharding: Sharding) -> Chat:
    """The judge of what becomes a part: an endpoint is asked by the leader, who writes the part that all hosts read.

    The others get empty replies. A checkpoint lies on the mesh, and all of them ask it. Raises UserError as `open_chat`.
    """
    if config.is_endpoint and not is_leader():
        return lambda prompts: [''] * len(prompts)
    return open_chat(config, sharding)


def in_parts(
    folder: pathlib.Path, task: str, questions: int, size: int, seed: int, schema: pa.Schema,
    make: Callable[[int, Sequence[Example]], list[dict]],
) -> Iterator[tuple[int, list[Example], list[dict]]]:
    """Makes what is missing of the parts, and reads them all.

    Args:
        folder: where the parts lie, one Parquet file each.
        task: its training split is gone through from the beginning.
        questions: how many of it.
        size: questions of a part.
        schema: of the rows.
        make: (position of the first example, examples) -> the rows of a part.

    Yields:
        (position of the first example, examples, rows) of each part, in order.
    """
    examples = tasks.open_task(task, 'train', seed=seed)
    for first in range(0, questions, size):
        some = [next(examples) for _ in range(min(size, questions - first))]
        part = folder / f'part_{first:09d}.parquet'
        if not part.exists():
            rows = make(first, some)
            if is_leader():
                datasets.write(part, rows, schema)
            barrier(part.name)
        yield first, some, datasets.read(part, schema)
