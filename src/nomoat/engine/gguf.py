"""Reading GGUF files: metadata, and tensors dequantised a few rows at a time.

The `gguf` package knows the quantisation types; its own reader makes an array for every string of the vocabulary, which takes it
2 to 8 seconds. This one takes a tenth of a second, checks every size against the file, and never allocates on a file's word.
Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md

A large model may be split: `name-00001-of-00003.gguf` and so on, its metadata in the first part. Any part names the whole.
"""

from __future__ import annotations

import itertools
import math
import mmap
import re
import struct
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from nomoat import paths
from nomoat.engine import ollama_files, pooling
from nomoat.errors import BadFileError, UnsupportedError
from nomoat.hub_folder import CONFIG, require_fetched

if TYPE_CHECKING:
    from nomoat.engine.tokenizer import Tokenizer

MAGIC = b"GGUF"
FIRST_VERSION, VERSIONS = 1, (2, 3)
OF_AN_EXPERT = re.compile(r"(blk\.\d+\.ffn_(?:gate|up|down))\.(\d{1,4})\.weight")
STRING, ARRAY = 8, 9
NUMBERS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
MAX_DIMENSIONS = 4
LARGEST_WEIGHT = 1e6  # no weight is as large; the scales of what it becomes are float16
PLAIN_TYPES: dict[str, Any] = {"F32": np.float32, "F16": np.float16, "F64": np.float64}
# What the `gguf` package can turn into numbers.
READABLE_TYPES = (
    *PLAIN_TYPES, "BF16", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K", "TQ1_0", "TQ2_0", "MXFP4",
    "NVFP4", "IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ3_XXS", "IQ3_S", "IQ1_S", "IQ1_M", "IQ4_NL", "IQ4_XS",
)  # fmt: skip

# Q4_0 and IQ4_NL in the order of one kind of CPU each; llama.cpp took these types out again in 2024
REPACKED_TYPES = {
    31: ("Q4_0_4_4", "Q4_0"), 32: ("Q4_0_4_8", "Q4_0"), 33: ("Q4_0_8_8", "Q4_0"),
    36: ("IQ4_NL_4_4", "IQ4_NL"), 37: ("IQ4_NL_4_8", "IQ4_NL"), 38: ("IQ4_NL_8_8", "IQ4_NL"),
}  # fmt: skip

# llama.cpp's names of types that the `gguf` package, or older releases of it, do not know
NEWER_TYPES = {40: "NVFP4", 41: "Q1_0", 42: "Q2_0"}

FloatArray = npt.NDArray[np.float32]
Rows = slice | npt.NDArray[np.intp] | None  # all, or some


@dataclass(frozen=True, slots=True)
class Tensor:
    """Where a tensor lies. `shape` is rows first, as numpy has it: a matrix is [output, input]."""

    name: str
    type_name: str
    shape: tuple[int, ...]
    offset: int
    row_bytes: int
    file_number: int = 0  # of a model that is split over several files

    @property
    def end(self) -> int:
        """The byte of the file behind it."""
        return self.offset + self.row_bytes * self.num_rows

    @property
    def num_values(self) -> int:
        """How many weights it holds."""
        return math.prod(self.shape)

    @property
    def num_rows(self) -> int:
        """Rows of a matrix; 1 for a vector."""
        return math.prod(self.shape[:-1])

    @property
    def is_matrix(self) -> bool:
        """Or several; the biases of experts are none."""
        return len(self.shape) > 1 and not self.name.endswith(".bias")


class Opened:
    """What every opened model has, whatever its format."""

    tensors: dict[str, Tensor]
    notes: tuple[str, ...] = ()  # what has to be known about its answers

    @property
    def num_values(self) -> int:
        """Weights of all tensors."""
        return sum(tensor.num_values for tensor in self.tensors.values())


def parts_of(path: Path) -> list[Path]:
    """The files a GGUF model is split over, in order; of one that is not split, itself. Raises BadFileError if a part is missing."""
    parts = [path.with_name(name) for name in paths.split_names(path.name)]
    missing = [part.name for part in parts if not part.exists()]
    if missing and len(parts) > 1:
        raise BadFileError(
            f"`{path}` is one of {len(parts)} parts, and beside it is no {', '.join(missing[:3])}",
            hint="put all the parts into one folder",
        )
    return parts


class GGUFFile(Opened):
    """A GGUF model opened for reading. `metadata` holds every key; `tensors` every tensor by name, but for numbers beside
    matrices in NVFP4: `.scale` is a factor that `rows` multiplies by, and `.input_scale` is for who rounds inputs to 4 bits, too.

    Raises BadFileError if a file is truncated, is not GGUF, states sizes it does not have, or is a part whose others are missing;
    UnsupportedError for a type of tensor the `gguf` package cannot read, for experts of several types in one layer, and for
    arrays within arrays.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        names = parts_of(path)
        self._parts = [_Part(name) for name in names]
        self.metadata = self._parts[0].metadata
        count, number = self._whole_number("split.count", 1), self._whole_number("split.no", 0)
        if count > 1 and (count != len(names) or number != 0):
            raise BadFileError(
                f"`{names[0]}` says that it is part {number + 1} of {count}",
                hint=f"give the parts their names: `NAME-00001-of-{count:05}.gguf` and so on",
            )
        self.tensors = {}
        for number, part in enumerate(self._parts):
            for name, tensor in part.tensors.items():
                if name in self.tensors:
                    raise BadFileError(f"two of the parts of `{path}` hold the tensor `{name}`", hint="download them again")
                self.tensors[name] = replace(tensor, file_number=number)
        expected = self._whole_number("split.tensors.count", len(self.tensors))
        if count > 1 and expected != len(self.tensors):
            raise BadFileError(f"the parts of `{path}` hold {len(self.tensors)} tensors, not {expected}", hint="download them again")
        self._apart: dict[str, list[Tensor]] = {}
        self._join_experts()
        self._factors: dict[str, float] = {}
        self._take_factors()

    def _take_factors(self) -> None:
        """Those beside matrices in NVFP4 leave `tensors`."""
        for name in [name for name, tensor in self.tensors.items() if tensor.type_name == "NVFP4"]:
            for kind in ("scale", "input_scale"):
                beside = name.removesuffix("weight") + kind
                if beside in self.tensors and self.tensors[beside].num_values == 1:
                    if kind == "scale":
                        self._factors[name] = self.rows(beside).item()
                    del self.tensors[beside]

    def _join_experts(self) -> None:
        """Matrices of experts that are apart, as in files before April 2024, become one tensor of all of them, as in newer ones."""
        found: dict[str, dict[int, Tensor]] = {}
        for tensor in self.tensors.values():
            if match := OF_AN_EXPERT.fullmatch(tensor.name):
                found.setdefault(f"{match[1]}_exps.weight", {})[int(match[2])] = tensor
        for name, by_number in found.items():
            parts = [by_number[number] for number in sorted(by_number)]
            first, types = parts[0], {part.type_name for part in parts}
            if len(types) > 1:
                raise UnsupportedError(
                    f"the experts of one layer of `{self.path}` have different types: {', '.join(sorted(types))} in `{name}`",
                    hint="try another file of this model, such as one made after April 2024",
                )
            if len({part.shape for part in parts}) == 1 and sorted(by_number) == list(range(len(parts))) and name not in self.tensors:
                self._apart[name] = parts
                self.tensors[name] = replace(first, name=name, shape=(len(parts), *first.shape))
                for part in parts:
                    del self.tensors[part.name]

    def _whole_number(self, key: str, default: int) -> int:
        value = self.metadata.get(key, default)
        if type(value) is not int:
            raise BadFileError(f"`{key}` of `{self.path}` is not a whole number", hint="download it again, or try another file")
        return value

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

    def raw_rows(self, name: str, rows: Rows = None) -> npt.NDArray[np.uint8]:
        """Rows of a tensor as their bytes: [rows, row bytes]. Single ones are a copy, which keeps no page of the file in memory."""
        tensor = self.tensor(name)
        if name in self._apart:
            parts = self._apart[name]
            numbers = row_numbers(rows, tensor.num_rows)
            return rows_by_expert(numbers, parts[0].num_rows, lambda expert, within: self._rows_of(parts[expert], within))
        return self._rows_of(tensor, rows)

    def _rows_of(self, tensor: Tensor, rows: Rows) -> npt.NDArray[np.uint8]:
        raw = self._parts[tensor.file_number].raw_rows(tensor)
        found = raw if rows is None else raw[rows]
        if isinstance(rows, np.ndarray):
            self._parts[tensor.file_number].give_back(tensor)
        return found

    def rows(self, name: str, rows: Rows = None) -> FloatArray:
        """Rows of a tensor, dequantised: [rows, columns], or [columns] for a vector."""
        tensor = self.tensor(name)
        values = dequantise(self.raw_rows(name, rows), tensor.type_name)
        values = values * np.float32(self._factors[name]) if name in self._factors else values
        if name not in self._apart:
            self._parts[tensor.file_number].give_back(tensor)
        require_weights(values, what=f"tensor `{name}` of `{self.path}`")
        return values.reshape(-1) if len(tensor.shape) == 1 else values

    @property
    def chat_template(self) -> str | None:
        """See `ModelSource`."""
        from nomoat.engine import gguf_tokenizer, templates

        return templates.of_file(*map(self.metadata.get, gguf_tokenizer.TEMPLATES))[0]

    @property
    def pooling(self) -> str:
        """See `ModelSource`."""
        return pooling.of_metadata(self.metadata)

    def read_tokenizer(self) -> Tokenizer:
        """Its tokenizer. Raises UnsupportedError, BadFileError."""
        from nomoat.engine import gguf_tokenizer

        return gguf_tokenizer.from_metadata(self.metadata)


def row_numbers(rows: Rows, count: int) -> npt.NDArray[np.intp]:
    """Which of `count` rows they are."""
    return np.arange(count)[slice(None) if rows is None else rows]


def rows_by_expert(
    rows: npt.NDArray[np.intp], of_one: int, read: Callable[[int, npt.NDArray[np.intp]], npt.NDArray[Any]]
) -> npt.NDArray[Any]:
    """A copy of rows of matrices, each of `of_one` rows and one under the other, that lie anywhere.

    `read` gets the number of a matrix, and which of its rows.
    """
    experts, within = np.divmod(rows, of_one)
    made: npt.NDArray[Any] | None = None
    for expert in np.unique(experts):
        places = np.flatnonzero(experts == expert)
        found = read(int(expert), within[places])
        made = np.empty((len(rows), *found.shape[1:]), found.dtype) if made is None else made
        made[places] = found
    return read(0, within) if made is None else made


def require_weights(values: FloatArray, *, what: str) -> None:
    """Raise BadFileError, which says `what` they are, if some of these are no weights: NaN, too."""
    if not (values.size == 0 or (values.min() > -LARGEST_WEIGHT and values.max() < LARGEST_WEIGHT)):
        raise BadFileError(f"{what} holds values that are no weights", hint="download it again, and compare its size")


def dequantise(raw: npt.NDArray[np.uint8], type_name: str) -> FloatArray:
    """Bytes of rows [rows, bytes] -> their values [rows, columns] in float32."""
    import gguf

    with np.errstate(all="ignore"):  # what damage does to scales is found afterwards
        if type_name in PLAIN_TYPES:
            values = raw.copy().view(PLAIN_TYPES[type_name])
        elif type_name in FASTER:
            values = FASTER[type_name](raw)
        else:
            values = gguf.quants.dequantize(raw, gguf.GGMLQuantizationType[type_name])
        return np.asarray(values.astype(np.float32, copy=False))


def _q5_0(raw: npt.NDArray[np.uint8]) -> FloatArray:
    """As `gguf` does it, in 1.7 ns a weight instead of 4.8: most of a small model's Q4_K_M is of this type."""
    blocks = raw.reshape(-1, 22)  # a scale, the fifth bits, the first four of weights 0 to 15 and 16 to 31
    codes = np.empty((len(blocks), 32), np.uint8)
    np.bitwise_and(blocks[:, 6:], 15, out=codes[:, :16])
    np.right_shift(blocks[:, 6:], 4, out=codes[:, 16:])
    codes |= np.unpackbits(blocks[:, 2:6], axis=1, bitorder="little") << 4
    codes -= 16
    return _scaled(codes.view(np.int8), blocks, len(raw))


def _q8_0(raw: npt.NDArray[np.uint8]) -> FloatArray:
    """As `gguf` does it, in 0.7 ns a weight instead of 1.4."""
    blocks = raw.reshape(-1, 34)
    return _scaled(blocks[:, 2:].view(np.int8), blocks, len(raw))


def _scaled(codes: npt.NDArray[np.int8], blocks: npt.NDArray[np.uint8], num_rows: int) -> FloatArray:
    scales = blocks[:, :2].copy().view(np.float16).astype(np.float32)
    return np.multiply(codes, scales, dtype=np.float32).reshape(num_rows, -1)


FASTER = {"Q5_0": _q5_0, "Q8_0": _q8_0}
TEXT_LENGTH = struct.Struct("<Q")


class _Part:
    """One file: its own metadata and tensors."""

    def __init__(self, path: Path) -> None:
        self.path = path
        if path.is_dir():
            raise BadFileError(f"`{path}` is a folder, not a GGUF file", hint="name the .gguf file in it")
        try:
            size = path.stat().st_size
            if size < 24:
                raise BadFileError(
                    f"`{path}` is not a GGUF file: it has {size} bytes", hint=ollama_files.hint(path) or "download it again"
                )
            with path.open("rb") as file:
                self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except FileNotFoundError as exc:
            raise BadFileError(f"no file at `{path}`", hint="check the path") from exc
        self._bytes = np.frombuffer(self._map, np.uint8)
        try:
            self._read_header()
        except (struct.error, IndexError, UnicodeDecodeError, OverflowError, MemoryError) as exc:
            raise self._broken(f"its header ends too early or is damaged ({exc})") from exc

    def raw_rows(self, tensor: Tensor) -> npt.NDArray[np.uint8]:
        """A tensor's bytes where they lie: [rows, bytes]."""
        return self._bytes[tensor.offset : tensor.end].reshape(tensor.num_rows, tensor.row_bytes)

    def give_back(self, tensor: Tensor) -> None:
        """Let go of a tensor's pages, which count as this process's memory while they are mapped. Read again, they come back."""
        if hasattr(self._map, "madvise"):  # not on Windows
            start = tensor.offset // mmap.PAGESIZE * mmap.PAGESIZE
            self._map.madvise(mmap.MADV_DONTNEED, start, tensor.end - start)

    def _broken(self, why: str) -> BadFileError:
        return BadFileError(f"`{self.path}` is not a whole GGUF file: {why}", hint="download it again, and compare its size")

    def _what_to_name(self) -> str:
        """In place of a file of another kind."""
        if (self.path.parent / CONFIG).exists():  # such as `model.safetensors`
            return f"name its folder: `{self.path.parent.absolute()}`"
        return "nomoat reads GGUF weights; look for a file that ends in .gguf"

    def _read_header(self) -> None:
        if self._map[:4] != MAGIC:
            require_fetched(self.path)
            raise BadFileError(
                f"`{self.path}` is not a GGUF file: it starts with {bytes(self._map[:4])!r} instead of {MAGIC!r}",
                hint=ollama_files.hint(self.path) or self._what_to_name(),
            )
        self._at = 4
        version = self._number("I")
        if version == FIRST_VERSION:
            raise UnsupportedError(
                f"`{self.path}` is of GGUF's first version, which was in use for some days of August 2023",
                hint="take a newer file of this model",
            )
        if int.from_bytes(version.to_bytes(4, "little"), "big") in (FIRST_VERSION, *VERSIONS):
            raise UnsupportedError(
                f"`{self.path}` is written for big-endian machines (IBM Z, some PowerPC)",
                hint="take the file of this model for little-endian ones, which most are",
            )
        if version not in VERSIONS:
            raise self._broken(f"its version is {version}, and nomoat reads {' and '.join(map(str, VERSIONS))}")
        num_tensors, num_keys = self._number("Q"), self._number("Q")
        size = len(self._map)
        if num_tensors > size // 24 or num_keys > size // 13:
            raise self._broken(f"it claims {num_tensors:,} tensors and {num_keys:,} keys in {size:,} bytes")
        self.metadata: dict[str, Any] = {}
        for _ in range(num_keys):
            key = self._string()
            if key in self.metadata:
                raise self._broken(f"it says `{key}` twice")
            self.metadata[key] = self._value(key, self._number("I"))
        infos = [self._tensor_info() for _ in range(num_tensors)]
        alignment = self.metadata.get("general.alignment", 32)
        if not isinstance(alignment, int) or alignment < 1 or alignment > 1 << 20:
            raise self._broken(f"its alignment is {alignment!r}")
        start = -(-self._at // alignment) * alignment
        self.tensors: dict[str, Tensor] = {}
        for info in infos:
            self._place(*info, start)
        # what a wrong offset, size or type leads to, and would be read as weights
        for before, after in itertools.pairwise(sorted(self.tensors.values(), key=lambda tensor: tensor.offset)):
            if after.offset < before.end:
                raise self._broken(f"tensors `{before.name}` and `{after.name}` lie in the same bytes")

    def _tensor_info(self) -> tuple[str, tuple[int, ...], int, int]:
        name = self._string()
        num_dimensions = self._number("I")
        if not 1 <= num_dimensions <= MAX_DIMENSIONS:
            raise self._broken(f"tensor `{name}` has {num_dimensions} dimensions")
        shape = tuple(int(self._number("Q")) for _ in range(num_dimensions))[::-1]
        return name, shape, int(self._number("I")), int(self._number("Q"))

    def _place(self, name: str, shape: tuple[int, ...], type_code: int, offset: int, start: int) -> None:
        import gguf

        kind = self._kind(name, type_code)
        block, block_bytes = gguf.GGML_QUANT_SIZES[kind]
        columns = shape[-1]
        if 0 in shape or columns % block:
            raise self._broken(f"tensor `{name}` of type {kind.name} has the shape {list(shape)}")
        row_bytes = columns // block * block_bytes
        end = start + offset + row_bytes * math.prod(shape[:-1])
        if end > len(self._map):
            raise self._broken(f"tensor `{name}` ends at byte {end:,}, and the file has {len(self._map):,}")
        if name in self.tensors:
            raise self._broken(f"it holds the tensor `{name}` twice")
        self.tensors[name] = Tensor(name, kind.name, shape, start + offset, row_bytes)

    def _kind(self, name: str, type_code: int) -> Any:
        """The `gguf` package's of a tensor's type. Raises UnsupportedError, or BadFileError for one that nobody knows."""
        import gguf

        where, known = f"tensor `{name}` of `{self.path}` has the type", gguf.GGMLQuantizationType.__members__
        if type_code in REPACKED_TYPES:
            type_name, plain = REPACKED_TYPES[type_code]
            raise UnsupportedError(
                f"{where} {type_name}: {plain} repacked for Arm",
                hint=f"take the {plain} file of this model: as fast, and it runs everywhere",
            )
        type_name = next((kind.name for kind in known.values() if kind == type_code), NEWER_TYPES.get(type_code, ""))
        if not type_name:
            raise BadFileError(
                f"{where} {type_code}, which nomoat does not know",
                hint="it is damaged, or newer than this nomoat: compare its size, or try another file of this model",
            )
        readable = [kind for kind in READABLE_TYPES if kind in known]
        if type_name not in readable:
            raise UnsupportedError(
                f"{where} {type_name}, which nomoat cannot read",
                hint=f"it reads {', '.join(readable)}; try another file of this model",
            )
        return known[type_name]

    def _number(self, code: str) -> Any:
        (value,) = struct.unpack_from("<" + code, self._map, self._at)
        self._at += struct.calcsize(code)
        return value

    def _string(self) -> str:
        return self._strings(1)[0]

    def _strings(self, count: int) -> list[str]:
        """In a loop that asks nothing of the object: a vocabulary and its merges are 300,000 texts."""
        data, at, end, length, found = self._map, self._at, len(self._map), TEXT_LENGTH.unpack_from, []
        longest = end // 16  # of one that need not be UTF-8: weights that are read as a text take up to seven times their bytes
        for _ in range(count):
            (size,) = length(data, at)
            at += TEXT_LENGTH.size
            if size > end - at:
                raise self._broken(f"a text of {size:,} bytes is claimed at byte {at:,}")
            # a vocabulary may hold bytes that are no text by themselves
            found.append(data[at : at + size].decode("utf-8", "replace" if size <= longest else "strict"))
            at += size
        self._at = at
        return found

    def _value(self, key: str, kind: int) -> Any:
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
            return self._strings(count)
        if kind == ARRAY:
            raise UnsupportedError(
                f"`{self.path}` says `{key}` by arrays within an array, which neither nomoat nor llama.cpp reads",
                hint="try another file of this model",
            )
        if kind not in NUMBERS:
            raise self._broken(f"an array of the kind {kind} at byte {self._at:,}")
        size = struct.calcsize(NUMBERS[kind]) * count
        if size > len(self._map) - self._at:
            raise self._broken(f"an array of {count:,} numbers is claimed at byte {self._at:,}")
        self._at += size
        return np.frombuffer(self._map[self._at - size : self._at], "<" + NUMBERS[kind])
