"""Which matrices of a file are one."""

from __future__ import annotations

from pathlib import Path

import gguf
import numpy as np
import numpy.typing as npt
import pytest
from tiny import write_tensors

from nomoat.engine.gguf import FloatArray, GGUFFile
from nomoat.engine.tied_embeddings import head_tensor

ROWS, COLUMNS = 300, 64
EMBEDDING = np.random.default_rng(3).normal(0, 0.02, (ROWS, COLUMNS)).astype(np.float32)
TRAINED = EMBEDDING * np.float32(1 + 1e-3)  # nearly one direction, cosine 1
MOVED = EMBEDDING + np.random.default_rng(4).normal(0, 0.002, (ROWS, COLUMNS)).astype(np.float32)  # cosine 0.995
ONE, TWO = ("output.weight", "output.weight"), ("token_embd.weight", "output.weight")


def write(path: Path, embedding: tuple[str, FloatArray], output: tuple[str, FloatArray] | None) -> GGUFFile:
    """A file of the one matrix, or of both, each of a type."""
    told = {"token_embd.weight": embedding} | ({} if output is None else {"output.weight": output})
    raw = {name: gguf.quants.quantize(values, gguf.GGMLQuantizationType[kind]) for name, (kind, values) in told.items()}
    return GGUFFile(write_tensors(path, raw, types={name: kind for name, (kind, _) in told.items()}))


@pytest.mark.parametrize(
    ("types", "output", "expected"),
    [
        (("F32", "F32"), EMBEDDING, ONE),
        (("F16", "F16"), EMBEDDING, ONE),
        (("BF16", "BF16"), EMBEDDING, ONE),
        (("F32", "BF16"), EMBEDDING, ONE),
        (("F16", "F32"), EMBEDDING, ONE),
        (("BF16", "F16"), EMBEDDING, ONE),
        (("F32", "F32"), TRAINED, TWO),
        (("F16", "F16"), MOVED, TWO),
        (("BF16", "BF16"), MOVED, TWO),
        (("F32", "F16"), MOVED, TWO),
        (("Q8_0", "Q4_0"), EMBEDDING, ONE),
        (("Q4_0", "F16"), EMBEDDING, ONE),
        (("Q8_0", "Q8_0"), -EMBEDDING, TWO),
        (("Q8_0", "Q8_0"), EMBEDDING[::-1], TWO),
    ],
)
def test_an_output_matrix_is_the_embedding_where_it_holds_the_same_numbers(
    types: tuple[str, str], output: FloatArray, expected: tuple[str, str], tmp_path: Path
) -> None:
    """Numbers that were rounded to codes need only be near; what a training has moved apart is two matrices."""
    file = write(tmp_path / "a.gguf", (types[0], EMBEDDING), (types[1], np.ascontiguousarray(output)))
    assert head_tensor(file) == expected


@pytest.mark.parametrize(
    "types", [("F32", "F32"), ("BF16", "BF16"), ("F16", "F32"), ("Q8_0", "Q8_0"), ("Q4_0", "Q8_0"), ("Q4_0", "F16")]
)
def test_an_embedding_of_which_a_few_rows_were_trained_is_no_output_matrix(types: tuple[str, str], tmp_path: Path) -> None:
    """As of tokens that were added: ten in a vocabulary of 150,000."""
    trained = EMBEDDING.copy()
    trained[7] = EMBEDDING[8]
    file = write(tmp_path / "a.gguf", (types[0], trained), (types[1], EMBEDDING))
    assert head_tensor(file) == TWO


@pytest.mark.parametrize("kind", ["F32", "F16", "BF16"])
def test_matrices_of_one_type_are_compared_as_they_lie(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """To make numbers of all took most of the time."""
    file, made = write(tmp_path / "a.gguf", (kind, EMBEDDING), (kind, EMBEDDING)), []
    rows = GGUFFile.rows

    def counted(self: GGUFFile, name: str, rows_N: npt.NDArray[np.intp]) -> FloatArray:
        made.append(len(rows_N))
        return rows(self, name, rows_N)

    monkeypatch.setattr(GGUFFile, "rows", counted)
    assert head_tensor(file) == ONE and sum(made) < ROWS


def test_a_row_of_next_to_nothing_that_is_rounded_otherwise_makes_no_second_matrix(tmp_path: Path) -> None:
    """As of tokens that no text had."""
    values = EMBEDDING.copy()
    values[7] *= 1e-5
    file = write(tmp_path / "a.gguf", ("Q8_0", values), ("Q4_0", values))
    assert not np.allclose(*(file.rows(name, np.array([7])) for name in TWO), rtol=0.5)
    assert head_tensor(file) == ONE


def test_without_an_output_matrix_the_embedding_is_it(tmp_path: Path) -> None:
    assert head_tensor(write(tmp_path / "a.gguf", ("F16", EMBEDDING), None)) == ("token_embd.weight", "token_embd.weight")


def test_an_embedding_of_nothing_is_no_output_matrix(tmp_path: Path) -> None:
    file = write(tmp_path / "a.gguf", ("Q8_0", EMBEDDING * 0), ("Q8_0", EMBEDDING))
    assert head_tensor(file) == TWO
