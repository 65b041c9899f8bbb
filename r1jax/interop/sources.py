"""Where the tensors of a checkpoint are read from, one at a time and under Hugging Face's names: safetensors and GGUF."""

import abc
import dataclasses
import json
import math
import pathlib
import struct
from collections.abc import Mapping

import ml_dtypes
import numpy as np

from r1jax.errors import UserError, nearest

SINGLE, INDEX = 'model.safetensors', 'model.safetensors.index.json'
# The types of safetensors that are read. Its own readers for NumPy do not know the last one, so files are read here.
FLOAT8 = np.dtype(ml_dtypes.float8_e4m3fn)
DTYPES = {
    'F32': np.dtype(np.float32), 'F16': np.dtype(np.float16), 'BF16': np.dtype(ml_dtypes.bfloat16), 'F8_E4M3': FLOAT8}
# DeepSeek-V3 keeps matrices as float8 with one float32 factor for each block of this size, named so (its config.json,
# quantization_config; arXiv 2412.19437, section 3.3.2).
FP8_BLOCK = 128
FP8_SCALE = '_scale_inv'


class Source(abc.ABC):
    """A checkpoint.

    Attributes:
        where: its file or folder, for messages.
        shapes: tensor -> its shape; nothing else is read before `read` is called.
        dtypes: tensor -> the type in which `read` returns it: float32, float16 or bfloat16.
    """

    where: pathlib.Path
    shapes: Mapping[str, tuple[int, ...]]
    dtypes: Mapping[str, np.dtype]

    @abc.abstractmethod
    def read(self, name: str) -> np.ndarray:
        """Returns a tensor, dequantised where it is quantised."""


@dataclasses.dataclass(frozen=True)
class _Stored:
    """Where a tensor lies: in a file, from a byte on."""

    path: pathlib.Path
    start: int
    dtype: np.dtype
    shape: tuple[int, ...]

    def read(self) -> np.ndarray:
        n_bytes = math.prod(self.shape) * self.dtype.itemsize
        return np.fromfile(self.path, np.uint8, n_bytes, offset=self.start).view(self.dtype).reshape(self.shape)


class SafetensorsSource(Source):
    """The safetensors of a folder: those that transformers would read. Float8 with the factors of its blocks is given as
    bfloat16, as DeepSeek's own conversion of its checkpoints does: half the memory of float32, and finer than float8 by far.
    """

    def __init__(self, folder: pathlib.Path):
        """Raises UserError for a file that is missing or damaged, and for tensors of other types."""
        self.where = folder
        stored: dict[str, _Stored] = {}
        for path in _files(folder):
            for name, tensor in _header(path).items():
                if name in stored:
                    raise UserError(f"{path}: the tensor '{name}' is in {stored[name].path.name} as well")
                stored[name] = tensor
        self._factors = {}
        for name, tensor in stored.items():
            if tensor.dtype == FLOAT8:
                if name + FP8_SCALE not in stored:
                    raise UserError(
                        f"{tensor.path}: the tensor '{name}' is float8 and its factors '{name + FP8_SCALE}' are missing")
                self._factors[name] = stored[name + FP8_SCALE]
        self._stored = {
            name: tensor for name, tensor in stored.items() if name.removesuffix(FP8_SCALE) not in self._factors or
            name in self._factors}
        self.shapes = {name: tensor.shape for name, tensor in self._stored.items()}
        self.dtypes = {
            name: DTYPES['BF16'] if name in self._factors else tensor.dtype for name, tensor in self._stored.items()}

    def read(self, name: str) -> np.ndarray:
        x = self._stored[name].read()
        if name in self._factors:
            return dequantise_blocks(x, self._factors[name].read(), f"{self.where}: the tensor '{name}'").astype(
                self.dtypes[name])
        return x


def _files(folder: pathlib.Path) -> list[pathlib.Path]:
    """One for all, else those that the index names, else all there are."""
    if (folder / SINGLE).exists():
        return [folder / SINGLE]
    index = folder / INDEX
    if index.exists():
        try:
            names = sorted(set(json.loads(index.read_text())['weight_map'].values()))
            missing = [name for name in names if not (folder / name).exists()]
        except (ValueError, KeyError, AttributeError, TypeError) as error:
            raise UserError(f'{index} is no index of safetensors: {type(error).__name__}: {error}') from error
        if missing:
            raise UserError(f"{folder}: the file '{missing[0]}', which {index.name} names, is missing")
        return [folder / name for name in names]
    files = sorted(folder.glob('*.safetensors'))
    if not files:
        raise UserError(f'{folder} has no *.safetensors')
    return files


def _header(path: pathlib.Path) -> dict[str, _Stored]:
    """Returns a file's tensors. Raises UserError, naming what is wrong, where the header and the file do not agree."""
    size = path.stat().st_size
    try:
        with path.open('rb') as file:
            (length,) = struct.unpack('<Q', file.read(8))
            entries = json.loads(file.read(min(length, size)))
        entries.pop('__metadata__', None)
        spans = sorted((*entry['data_offsets'], name) for name, entry in entries.items())
        types = {name: entry['dtype'] for name, entry in entries.items()}
        shapes = {name: tuple(map(int, entry['shape'])) for name, entry in entries.items()}
        data = 8 + length
        cut = [name for _, end, name in spans if data + end > size]
    except (struct.error, ValueError, KeyError, AttributeError, TypeError) as error:
        raise UserError(f'{path} is damaged: its header cannot be read ({type(error).__name__})') from error
    for name, dtype in types.items():
        if dtype not in DTYPES:
            raise UserError(f"{path}: the tensor '{name}' is of the type {dtype}{nearest(str(dtype), DTYPES)}")
    if cut:
        early = data + spans[-1][1] - size
        raise UserError(f"{path} is damaged: it ends within the tensor '{cut[0]}', {early} bytes too early")
    so_far = 0
    for start, end, name in spans:
        if start != so_far or end - start != math.prod(shapes[name]) * DTYPES[types[name]].itemsize:
            raise UserError(
                f"{path} is damaged: the tensor '{name}' of {shapes[name]} cannot lie at bytes {start} to {end} of its data")
        so_far = end
    if data + so_far != size:
        raise UserError(f'{path} is damaged: {size - data - so_far} bytes follow its last tensor')
    return {name: _Stored(path, data + start, DTYPES[types[name]], shapes[name]) for start, _, name in spans}


def dequantise_blocks(x: np.ndarray, factors: np.ndarray, what: str) -> np.ndarray:
    """Returns float32: each block of 128 x 128 of a float8 matrix times its factor. Raises UserError for other shapes."""
    wanted = tuple(-(-n // FP8_BLOCK) for n in x.shape)
    if x.ndim != 2 or factors.shape != wanted:
        raise UserError(f'{what} {x.shape} has factors of shape {factors.shape}, not {wanted}')
    rows, columns = (np.arange(n) // FP8_BLOCK for n in x.shape)
    return x.astype(np.float32) * factors.astype(np.float32)[rows[:, None], columns]
