"""Whether a model's embedding and its output matrix are one."""

from __future__ import annotations

import functools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import numpy.typing as npt

from nomoat.engine.gguf import PLAIN_TYPES, FloatArray, GGUFFile, Tensor, dequantise
from nomoat.engine.source import ModelSource

CHUNK_VALUES, THREADS = 1_000_000, 2  # weights compared at a time by one thread, and how many do: bounds the peak memory
# The two matrices of some files are one, quantised twice. Keeping one saves a fifth of a small model and is closer to fp32. How far
# apart they may be by `_apart`, as a share of their rows' lengths: of Q3_K it is 0.01 to 0.02.
SAME_MATRIX = 0.02
# A row may be so many times as far as all (2.4 were seen, and 3.3 where we rounded to Q4_0), or as Q8_0 rounds at worst; one that is
# next to nothing, beside the usual one, as far as the half precision of scales rounds it.
FURTHEST_ROW, ROUNDED, NOTHING = 5, 1e-4, 1e-3
COMPARED = 256  # columns of such matrices; whole blocks of every type


def output_tensor(file: ModelSource) -> str:
    """The tensor to read the output matrix from."""
    return "output.weight" if "output.weight" in file.tensors else "token_embd.weight"


def head_tensor(file: ModelSource) -> tuple[str, str]:
    """The tensors to read the embedding and the output matrix from; the same name twice where they are one matrix.

    Of two that look so each row is compared: a training may have changed a few tokens' of one of them.
    """
    embedding, output = file.tensor("token_embd.weight"), file.tensor(output_tensor(file))
    if embedding is not output and (embedding.shape != output.shape or not _are_one(file, embedding, output)):
        return embedding.name, output.name
    return output.name, output.name


def _are_one(file: ModelSource, embedding: Tensor, output: Tensor) -> bool:
    """Whether two tensors of one shape are one matrix. Some rows come first, which tell most that are two."""
    kinds = {embedding.type_name, output.type_name}
    is_rounded = not kinds <= {*PLAIN_TYPES, "BF16"}

    def read(rows: npt.NDArray[np.intp], values: Callable[..., Any] = file.rows) -> tuple[Any, Any]:
        if is_rounded:
            return _beginnings(file, embedding, rows), _beginnings(file, output, rows)
        return values(embedding.name, rows), values(output.name, rows)

    some = read(np.linspace(0, embedding.num_rows - 1, 64).astype(np.intp))
    are_same: Callable[..., bool]
    if is_rounded:
        are_same = functools.partial(_are_rounded_alike, _apart(*some))
    elif len(kinds) == 1:  # matrices that were one before a training are near, and are two
        are_same = np.array_equal
    else:
        are_same = _are_near
    if not are_same(*some):
        return False
    # of one type their bytes tell, in a third of the time
    values = file.raw_rows if len(kinds) == 1 and isinstance(file, GGUFFile) else file.rows
    step = max(1, CHUNK_VALUES // embedding.shape[-1])
    pieces = [np.arange(start, min(start + step, embedding.num_rows)) for start in range(0, embedding.num_rows, step)]
    with ThreadPoolExecutor(THREADS) as pool:
        return all(pool.map(lambda rows: are_same(*read(rows, values)), pieces))


def _are_near(a_RC: FloatArray, b_RC: FloatArray) -> bool:
    """By the bits of bfloat16, and the smallest number of float16."""
    return bool((np.abs(a_RC - b_RC) <= 2**-24 + 2**-8 * np.abs(b_RC)).all())


def _beginnings(file: ModelSource, tensor: Tensor, rows: npt.NDArray[np.intp]) -> FloatArray:
    """Some columns of rows, which take a fifth of the time of all: a training changes a row in each."""
    columns = tensor.shape[-1]
    return dequantise(file.raw_rows(tensor.name, rows)[:, : tensor.row_bytes * min(COMPARED, columns) // columns], tensor.type_name)


def _are_rounded_alike(of_some: tuple[FloatArray, FloatArray], a_RC: FloatArray, b_RC: FloatArray) -> bool:
    """Whether rows are as near as if both were rounded of one, by how far some are apart (see `_apart`)."""
    apart, usual = (float(values.mean()) for values in of_some)
    if not apart <= SAME_MATRIX * usual or usual == 0:
        return False
    apart_R, size_R = _apart(a_RC, b_RC)
    return bool((apart_R <= max(FURTHEST_ROW * apart / usual, ROUNDED) * np.maximum(size_R, NOTHING * usual)).all())


def _apart(a_RC: FloatArray, b_RC: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Of R rows, half the square of their difference, and the product of their lengths. Where these are equal, the first is 1 less the
    cosine of the second."""
    with np.errstate(all="ignore"):  # of values that are no weights nothing is near, and whoever reads them all refuses them
        apart_R, a_R, b_R = (np.einsum("rc,rc->r", values_RC, values_RC) for values_RC in (a_RC - b_RC, a_RC, b_RC))
        return apart_R / 2, np.sqrt(a_R * b_R)
