"""Where the tensors of a checkpoint are read from, one at a time and under Hugging Face's names: safetensors and GGUF."""

import abc
import json
import pathlib
import struct
from collections.abc import Mapping

import ml_dtypes
import numpy as np
import safetensors

from r1jax.errors import UserError

INDEX = 'model.safetensors.index.json'
# DeepSeek-V3 keeps matrices as float8 with one float32 factor for each block of this size, named so (its config.json,
# quantization_config; arXiv 2412.19437, section 3.3.2).
FP8_BLOCK = 128
FP8_SCALE = '_scale_inv'


class Source(abc.ABC):
    """A checkpoint.

    Attributes:
        where: its file or folder, for messages.
        shapes: tensor -> its shape; nothing else is read before `read` is called.
    """

    where: pathlib.Path
    shapes: Mapping[str, tuple[int, ...]]

    @abc.abstractmethod
    def read(self, name: str) -> np.ndarray:
        """Returns a tensor, as it is stored (float32, float16, bfloat16) or, where that is quantised, as float32."""


class SafetensorsSource(Source):
    """All *.safetensors of a folder. Raises UserError for a file that is damaged or missing."""

    def __init__(self, folder: pathlib.Path):
        self.where = folder
        self._files: dict[str, pathlib.Path] = {}
        self._open: dict[pathlib.Path, safetensors.safe_open] = {}
        shapes: dict[str, tuple[int, ...]] = {}
        for path in _files(folder):
            for name, shape in _header(path).items():
                if name in shapes:
                    raise UserError(f"{path}: the tensor '{name}' is in {self._files[name].name} as well")
                self._files[name], shapes[name] = path, shape
        self._scales = {name for name in shapes if name.endswith(FP8_SCALE) and name.removesuffix(FP8_SCALE) in shapes}
        self.shapes = {name: shape for name, shape in shapes.items() if name not in self._scales}

    def read(self, name: str) -> np.ndarray:
        x = self._stored(name)
        if x.dtype != ml_dtypes.float8_e4m3fn:
            return x
        if name + FP8_SCALE not in self._scales:
            raise UserError(f"{self.where}: the tensor '{name}' is float8 and the factors '{name + FP8_SCALE}' are missing")
        return dequantise_blocks(x, self._stored(name + FP8_SCALE), name)

    def _stored(self, name: str) -> np.ndarray:
        path = self._files[name]
        if path not in self._open:
            try:
                self._open[path] = safetensors.safe_open(path, framework='numpy')
            except safetensors.SafetensorError as error:
                raise UserError(f'{path} is damaged: {error}') from error
        return self._open[path].get_tensor(name)


def _files(folder: pathlib.Path) -> list[pathlib.Path]:
    """Those that the index names, where there is one; else all."""
    index = folder / INDEX
    if index.exists():
        try:
            names = sorted(set(json.loads(index.read_text())['weight_map'].values()))
        except (ValueError, KeyError, AttributeError) as error:
            raise UserError(f'{index} is no index of safetensors: {type(error).__name__}: {error}') from error
        missing = [name for name in names if not (folder / name).exists()]
        if missing:
            raise UserError(f"{folder}: the file '{missing[0]}', which {index.name} names, is missing")
        return [folder / name for name in names]
    files = sorted(folder.glob('*.safetensors'))
    if not files:
        raise UserError(f'{folder} has no *.safetensors')
    return files


def _header(path: pathlib.Path) -> dict[str, tuple[int, ...]]:
    """Returns the shapes of a file's tensors. Raises UserError, naming the tensor, where the file ends before one does."""
    size = path.stat().st_size
    try:
        with path.open('rb') as file:
            (length,) = struct.unpack('<Q', file.read(8))
            entries = json.loads(file.read(min(length, size)))
        entries.pop('__metadata__', None)
        ends = {name: 8 + length + entry['data_offsets'][1] for name, entry in entries.items()}
        shapes = {name: tuple(entry['shape']) for name, entry in entries.items()}
    except (struct.error, ValueError, KeyError, AttributeError, TypeError) as error:
        raise UserError(f'{path} is damaged: its header cannot be read ({type(error).__name__})') from error
    cut = sorted((end, name) for name, end in ends.items() if end > size)
    if cut:
        raise UserError(f"{path} is damaged: it ends within the tensor '{cut[0][1]}', {cut[-1][0] - size} bytes too early")
    return shapes


def dequantise_blocks(x: np.ndarray, factors: np.ndarray, name: str) -> np.ndarray:
    """Returns float32: each block of 128 x 128 of a float8 matrix times its factor. Raises UserError for other shapes."""
    wanted = tuple(-(-n // FP8_BLOCK) for n in x.shape)
    if factors.shape != wanted:
        raise UserError(f"the factors of the tensor '{name}' {x.shape} have shape {factors.shape}, not {wanted}")
    rows, columns = (np.arange(n) // FP8_BLOCK for n in x.shape)
    return x.astype(np.float32) * factors.astype(np.float32)[rows[:, None], columns]
