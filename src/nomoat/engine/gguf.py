"""Reading GGUF files: metadata, and tensors dequantised a few rows at a time.

The `gguf` package knows the quantisation types; its own reader makes an array for every string of the vocabulary, which takes it
2 to 8 seconds. This one takes a tenth of a second, checks every size against the file, and never allocates on a file's word.
Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

from __future__ import annotations

import math
import mmap
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from nomoat.errors import BadFileError

MAGIC = b"GGUF"
VERSIONS = (2, 3)
STRING, ARRAY = 8, 9
NUMBERS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
MAX_DIMENSIONS = 4
LARGEST_WEIGHT = 1e6  # no weight is as large; the scales of what it becomes are float16

FloatArray = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Tensor:
    """Where a tensor lies. `shape` is rows first, as numpy has it: a matrix is [output, input]."""

    name: str
    type_name: str
    shape: tuple[int, ...]
    offset: int
    row_bytes: int

    @property
    def num_values(self) -> int:
        """How many weights it holds."""
        return math.prod(self.shape)

    @property
    def num_rows(self) -> int:
        """Rows of a matrix; 1 for a vector."""
        return math.prod(self.shape[:-1])


class GGUFFile:
    """A GGUF file opened for reading. `metadata` holds every key; `tensors` every tensor by name.

    Raises BadFileError if the file is truncated, is not GGUF, or states sizes it does not have.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            size = path.stat().st_size
            if size < 24:
                raise BadFileError(f"`{path}` is not a GGUF file: it has {size} bytes", hint="download it again")
            with path.open("rb") as file:
                self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except FileNotFoundError as exc:
            raise BadFileError(f"no file at `{path}`", hint="check the path") from exc
        except IsADirectoryError as exc:
            raise BadFileError(f"`{path}` is a folder, not a GGUF file", hint="name the .gguf file in it") from exc
        self._bytes = np.frombuffer(self._map, np.uint8)
        try:
            self._read_header()
        except (struct.error, IndexError, UnicodeDecodeError, OverflowError, MemoryError) as exc:
            raise self._broken(f"its header ends too early or is damaged ({exc})") from exc

    def _broken(self, why: str) -> BadFileError:
        return BadFileError(f"`{self.path}` is not a whole GGUF file: {why}", hint="download it again, and compare its size")

    def _read_header(self) -> None:
        if self._map[:4] != MAGIC:
            raise BadFileError(
                f"`{self.path}` is not a GGUF file: it starts with {bytes(self._map[:4])!r} instead of {MAGIC!r}",
                hint="nomoat reads GGUF weights; look for a file that ends in .gguf",
            )
        self._at = 4
        version = self._number("I")
        if version not in VERSIONS:
            raise self._broken(f"its version is {version}, and nomoat reads {' and '.join(map(str, VERSIONS))}")
        num_tensors, num_keys = self._number("Q"), self._number("Q")
        size = len(self._map)
        if num_tensors > size // 24 or num_keys > size // 13:
            raise self._broken(f"it claims {num_tensors:,} tensors and {num_keys:,} keys in {size:,} bytes")
        self.metadata: dict[str, Any] = {}
        for _ in range(num_keys):
            key = self._string()
            self.metadata[key] = self._value(self._number("I"))
        infos = [self._tensor_info() for _ in range(num_tensors)]
        alignment = self.metadata.get("general.alignment", 32)
        if not isinstance(alignment, int) or alignment < 1 or alignment > 1 << 20:
            raise self._broken(f"its alignment is {alignment!r}")
        start = -(-self._at // alignment) * alignment
        self.tensors: dict[str, Tensor] = {}
        for info in infos:
            self._place(*info, start)

    def _tensor_info(self) -> tuple[str, tuple[int, ...], int, int]:
        name = self._string()
        num_dimensions = self._number("I")
        if not 1 <= num_dimensions <= MAX_DIMENSIONS:
            raise self._broken(f"tensor `{name}` has {num_dimensions} dimensions")
        shape = tuple(int(self._number("Q")) for _ in range(num_dimensions))[::-1]
        return name, shape, int(self._number("I")), int(self._number("Q"))

    def _place(self, name: str, shape: tuple[int, ...], type_code: int, offset: int, start: int) -> None:
        import gguf

        try:
            kind = gguf.GGMLQuantizationType(type_code)
        except ValueError as exc:
            raise self._broken(f"tensor `{name}` has the unknown type {type_code}") from exc
        block, block_bytes = gguf.GGML_QUANT_SIZES[kind]
        columns = shape[-1]
        if 0 in shape or columns % block:
            raise self._broken(f"tensor `{name}` of type {kind.name} has the shape {list(shape)}")
        row_bytes = columns // block * block_bytes
        end = start + offset + row_bytes * math.prod(shape[:-1])
        if end > len(self._map):
            raise self._broken(f"tensor `{name}` ends at byte {end:,}, and the file has {len(self._map):,}")
        self.tensors[name] = Tensor(name, kind.name, shape, start + offset, row_bytes)

    def _number(self, code: str) -> Any:
        (value,) = struct.unpack_from("<" + code, self._map, self._at)
        self._at += struct.calcsize(code)
        return value

    def _string(self) -> str:
        size = self._number("Q")
        if size > len(self._map) - self._at:
            raise self._broken(f"a text of {size:,} bytes is claimed at byte {self._at:,}")
        self._at += size
        # a vocabulary may hold bytes that are no text by themselves
        return self._map[self._at - size : self._at].decode("utf-8", "replace")

    def _value(self, kind: int) -> Any:
        if kind == STRING:
            return self._string()
        if kind in NUMBERS:
            return self._number(NUMBERS[kind])
        if kind != ARRAY:
            raise self._broken(f"a value of the unknown kind {kind} at byte {self._at:,}")
        kind, count = self._number("I"), self._number("Q")
        if kind == STRING:
            if count > (len(self._map) - self._at) // 8:
                raise self._broken(f"{count:,} texts are claimed at byte {self._at:,}")
            return [self._string() for _ in range(count)]
        if kind not in NUMBERS:
            raise self._broken(f"an array of the kind {kind} at byte {self._at:,}")
        size = struct.calcsize(NUMBERS[kind]) * count
        if size > len(self._map) - self._at:
            raise self._broken(f"an array of {count:,} numbers is claimed at byte {self._at:,}")
        self._at += size
        return np.frombuffer(self._map[self._at - size : self._at], "<" + NUMBERS[kind])

    # ---------------------------------------------------------------- use
    @property
    def num_values(self) -> int:
        """Weights of all tensors."""
        return sum(tensor.num_values for tensor in self.tensors.values())

    def require(self, key: str) -> Any:
        """A metadata value that must be there."""
        if key not in self.metadata:
            raise BadFileError(f"`{self.path}` does not say `{key}`", hint="the file was made by a tool that left it out; try another")
        return self.metadata[key]

    def tensor(self, name: str) -> Tensor:
        """A tensor that must be there."""
        if name not in self.tensors:
            raise BadFileError(f"`{self.path}` has no tensor `{name}`", hint="the file is not complete for its architecture")
        return self.tensors[name]

    def raw_rows(self, name: str, rows: slice | npt.NDArray[np.intp] | None = None) -> npt.NDArray[np.uint8]:
        """Rows of a tensor as their bytes: [rows, row bytes]."""
        tensor = self.tensor(name)
        end = tensor.offset + tensor.row_bytes * tensor.num_rows
        raw = self._bytes[tensor.offset : end].reshape(tensor.num_rows, tensor.row_bytes)
        return raw if rows is None else raw[rows]

    def rows(self, name: str, rows: slice | npt.NDArray[np.intp] | None = None) -> FloatArray:
        """Rows of a tensor, dequantised: [rows, columns], or [columns] for a vector."""
        import gguf

        tensor = self.tensor(name)
        raw = self.raw_rows(name, rows)
        kind = gguf.GGMLQuantizationType[tensor.type_name]
        plain = {"F32": np.float32, "F16": np.float16, "F64": np.float64}.get(tensor.type_name)
        with np.errstate(all="ignore"):  # what comes of damage is looked for below
            values = raw.copy().view(plain) if plain else gguf.quants.dequantize(raw, kind)
            values = values.astype(np.float32, copy=False)
        if not (values.size == 0 or (values.min() > -LARGEST_WEIGHT and values.max() < LARGEST_WEIGHT)):  # so refuses NaN, too
            raise self._broken(f"tensor `{name}` holds values that are no weights")
        return values.reshape(-1) if len(tensor.shape) == 1 else values
