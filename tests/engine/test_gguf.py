"""GGUF files, whole and damaged."""

from __future__ import annotations

import random
import struct
from pathlib import Path

import gguf
import numpy as np
import pytest

from nomoat.engine.gguf import GGUFFile
from nomoat.errors import BadFileError, NomoatError


def test_every_value_and_tensor_is_what_the_gguf_package_reads(tiny_gguf: Path) -> None:
    ours, theirs = GGUFFile(tiny_gguf), gguf.GGUFReader(tiny_gguf)
    for tensor in theirs.tensors:
        values = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
        np.testing.assert_array_equal(ours.rows(tensor.name), values, err_msg=tensor.name)
    for name, field in theirs.fields.items():
        if not name.startswith("GGUF."):
            expected = field.contents()
            assert list(ours.metadata[name]) == expected if isinstance(expected, list) else ours.metadata[name] == expected, name


@pytest.mark.parametrize("kind", ["Q4_0", "Q4_1", "Q5_0", "Q8_0"])
def test_some_rows_of_a_quantised_tensor_are_those_of_the_whole(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "one.gguf"
    weights = np.random.default_rng(0).normal(size=(8, 64)).astype(np.float32)
    writer = gguf.GGUFWriter(str(path), "llama")
    quantised = gguf.quants.quantize(weights, gguf.GGMLQuantizationType[kind])
    writer.add_tensor("w", quantised, raw_dtype=gguf.GGMLQuantizationType[kind])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    file = GGUFFile(path)
    whole = file.rows("w")
    assert whole.shape == (8, 64) and np.abs(whole - weights).max() < 0.5
    np.testing.assert_array_equal(file.rows("w", np.array([5, 2])), whole[[5, 2]])


def test_an_empty_file_is_named_with_its_size(tmp_path: Path) -> None:
    path = tmp_path / "empty.gguf"
    path.touch()
    with pytest.raises(BadFileError) as caught:
        GGUFFile(path)
    assert caught.value.message == f"`{path}` is not a GGUF file: it has 0 bytes"


def test_another_format_is_told_by_its_first_bytes(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(b"PK\x03\x04" + bytes(100))
    with pytest.raises(BadFileError) as caught:
        GGUFFile(path)
    assert caught.value.message == f"`{path}` is not a GGUF file: it starts with b'PK\\x03\\x04' instead of b'GGUF'"


def test_a_truncated_file_says_which_tensor_is_cut(tiny_gguf: Path, tmp_path: Path) -> None:
    path = tmp_path / "cut.gguf"
    content = tiny_gguf.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(BadFileError, match=r"tensor `blk\.0\..*` ends at byte [\d,]+, and the file has [\d,]+"):
        GGUFFile(path)


def test_a_header_that_claims_a_billion_tensors_allocates_nothing(tmp_path: Path) -> None:
    path = tmp_path / "liar.gguf"
    path.write_bytes(struct.pack("<4sIQQ", b"GGUF", 3, 1 << 40, 1 << 40) + bytes(64))
    with pytest.raises(BadFileError, match="it claims 1,099,511,627,776 tensors"):
        GGUFFile(path)


def test_damaged_headers_end_in_our_own_errors(tiny_gguf: Path, tmp_path: Path) -> None:
    """1,000 files, each with a few bytes of its header changed or cut: read whole, or refused in our words."""
    content = tiny_gguf.read_bytes()
    chance = random.Random(1)
    path = tmp_path / "damaged.gguf"
    refused = 0
    for _ in range(1000):
        damaged = bytearray(content[: chance.randrange(24, len(content))] if chance.random() < 0.3 else content)
        for _ in range(chance.randrange(1, 4)):
            damaged[chance.randrange(min(len(damaged), 6000))] = chance.randrange(256)
        path.write_bytes(damaged)
        try:
            GGUFFile(path)
        except NomoatError:
            refused += 1
    assert refused > 300
