"""GGUF files, whole and damaged."""

from __future__ import annotations

import functools
import json
import os
import random
import struct
import tracemalloc
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
from tiny import add_tokenizer, finish, vocabulary, write_tensors, write_tiny_gguf

from nomoat.engine import importer, ollama_files, source
from nomoat.engine.gguf import READABLE_TYPES, GGUFFile
from nomoat.errors import BadFileError, NomoatError, UnsupportedError


def test_every_value_and_tensor_is_what_the_gguf_package_reads(tiny_gguf: Path) -> None:
    ours, theirs = GGUFFile(tiny_gguf), gguf.GGUFReader(tiny_gguf)
    for tensor in theirs.tensors:
        values = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
        np.testing.assert_array_equal(ours.rows(tensor.name), values, err_msg=tensor.name)
    for name, field in theirs.fields.items():
        if not name.startswith("GGUF."):
            expected = field.contents()
            assert list(ours.metadata[name]) == expected if isinstance(expected, list) else ours.metadata[name] == expected, name


QUANTISABLE = ("F32", "F16", "BF16", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "TQ1_0", "TQ2_0", "MXFP4")
WIDTH = 256  # the largest block


def random_rows(kind: str, rows: int, chance: np.random.Generator) -> tuple[Any, Any]:
    """Weights of a type [rows, WIDTH], as bytes and as numbers: quantised where `gguf` can, else random codes with usable scales."""
    if kind == "F64":
        weights = chance.normal(0, 0.1, (rows, WIDTH))
        return weights, weights.astype(np.float32)
    code = gguf.GGMLQuantizationType[kind]
    if kind in QUANTISABLE:
        raw = gguf.quants.quantize(chance.normal(0, 0.1, (rows, WIDTH)).astype(np.float32), code)
    else:
        usable = usable_blocks(code)
        raw = usable[chance.integers(0, len(usable), rows * WIDTH // gguf.GGML_QUANT_SIZES[code][0])].reshape(rows, -1)
    return raw, gguf.quants.dequantize(raw, code)


@functools.cache
def usable_blocks(code: gguf.GGMLQuantizationType) -> Any:
    """Of random blocks of this type, those whose numbers are of plausible size."""
    made = np.random.default_rng(2).integers(0, 256, (4000, gguf.GGML_QUANT_SIZES[code][1]), np.uint8)
    with np.errstate(all="ignore"):
        largest = np.abs(gguf.quants.dequantize(made, code)).max(1)
    return made[(largest > 0.01) & (largest < 10)]


def write_model(path: Path, kind: str, *, dequantised: bool, factor: float | None = None) -> Path:
    """One layer whose matrices are of that type, or hold the numbers that type's bytes mean in float32.

    `factor`: what those are multiplied by, which the file of that type says beside them.
    """
    chance = np.random.default_rng(1)
    writer = gguf.GGUFWriter(str(path), "llama")
    writer.add_block_count(1)
    writer.add_context_length(64)
    writer.add_embedding_length(WIDTH)
    writer.add_feed_forward_length(WIDTH)
    writer.add_head_count(4)
    writer.add_layer_norm_rms_eps(1e-5)
    add_tokenizer(writer, pre="smollm")
    for name in ("output_norm", "blk.0.attn_norm", "blk.0.ffn_norm"):
        writer.add_tensor(f"{name}.weight", np.ones(WIDTH, np.float32))
    matrices = [f"blk.0.{name}" for name in ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down")]
    for name in ("token_embd", *matrices):
        raw, values = random_rows(kind, len(vocabulary()) if name == "token_embd" else WIDTH, chance)
        if dequantised:
            writer.add_tensor(f"{name}.weight", values if factor is None else values * np.float32(factor))
        else:
            writer.add_tensor(f"{name}.weight", raw, raw_dtype=gguf.GGMLQuantizationType[kind])
            if factor is not None:
                writer.add_tensor(f"{name}.scale", np.array([factor], np.float32))
                writer.add_tensor(f"{name}.input_scale", np.array([0.003], np.float32))
    finish(writer)
    return path


@pytest.mark.parametrize("kind", READABLE_TYPES)
def test_a_model_of_each_type_is_imported_as_the_numbers_it_means(tmp_path: Path, kind: str) -> None:
    """The same weights as from a float32 file, byte for byte, so the same logits; those of float32 are compared in test_arch."""
    folder = importer.import_gguf(write_model(tmp_path / "quantised.gguf", kind, dequantised=False))
    numbers = importer.import_gguf(write_model(tmp_path / "numbers.gguf", kind, dequantised=True))
    assert folder != numbers or kind == "F32"
    ours = (folder / "openvino_model.bin").read_bytes()
    assert ours == (numbers / "openvino_model.bin").read_bytes() and len(set(ours)) > 100


def test_matrices_in_nvfp4_are_multiplied_by_the_factors_beside_them(tmp_path: Path) -> None:
    """As llama.cpp's converter writes them; those of inputs are for whoever rounds these, too."""
    path = write_model(tmp_path / "quantised.gguf", "NVFP4", dequantised=False, factor=0.3)
    folder = importer.import_gguf(path)
    numbers = importer.import_gguf(write_model(tmp_path / "numbers.gguf", "NVFP4", dequantised=True, factor=0.3))
    assert (folder / "openvino_model.bin").read_bytes() == (numbers / "openvino_model.bin").read_bytes()
    assert not any("scale" in name for name in GGUFFile(path).tensors)


def test_every_type_that_gguf_can_dequantise_is_read() -> None:
    def can(kind: gguf.GGMLQuantizationType) -> bool:
        try:
            gguf.quants.dequantize(np.zeros((1, gguf.GGML_QUANT_SIZES[kind][1]), np.uint8), kind)
        except NotImplementedError:
            return False
        return True

    assert {kind.name for kind in gguf.GGMLQuantizationType if can(kind)} <= set(READABLE_TYPES)


def test_a_type_that_cannot_be_read_is_refused_by_name(tmp_path: Path) -> None:
    path = write_tensors(tmp_path / "model.gguf", {"w": np.zeros((2, 292), np.uint8)}, types={"w": "Q8_K"})
    with pytest.raises(UnsupportedError) as caught:
        GGUFFile(path)
    assert caught.value.message == f"tensor `w` of `{path}` has the type Q8_K, which nomoat cannot read"


def of_type(folder: Path, code: int) -> Path:
    """A file whose only tensor says it is of the type with that number."""
    path = write_tensors(folder / "model.gguf", {"the tensor": np.zeros((2, 32), np.float32)})
    content = bytearray(path.read_bytes())
    struct.pack_into("<I", content, content.index(b"the tensor") + len("the tensor") + 4 + 2 * 8, code)
    path.write_bytes(content)
    return path


@pytest.mark.parametrize(("code", "kind", "plain"), [(31, "Q4_0_4_4", "Q4_0"), (33, "Q4_0_8_8", "Q4_0"), (37, "IQ4_NL_4_8", "IQ4_NL")])
def test_a_type_repacked_for_some_cpus_is_refused_with_the_file_to_take(tmp_path: Path, code: int, kind: str, plain: str) -> None:
    path = of_type(tmp_path, code)
    with pytest.raises(UnsupportedError) as caught:
        GGUFFile(path)
    assert caught.value.message == f"tensor `the tensor` of `{path}` has the type {kind}: {plain} repacked for Arm"
    assert caught.value.hint == f"take the {plain} file of this model: as fast, and it runs everywhere"


def test_a_type_that_only_llama_cpp_knows_is_refused_by_name_and_is_no_damage(tmp_path: Path) -> None:
    path = of_type(tmp_path, 42)
    with pytest.raises(UnsupportedError) as caught:
        GGUFFile(path)
    assert caught.value.message == f"tensor `the tensor` of `{path}` has the type Q2_0, which nomoat cannot read"
    assert str(caught.value.hint).startswith("it reads F32, F16, F64, BF16, Q4_0, ")


def test_a_type_that_nobody_knows_is_damage_or_newer_than_we_are(tmp_path: Path) -> None:
    path = of_type(tmp_path, 99)
    with pytest.raises(BadFileError) as caught:
        GGUFFile(path)
    assert caught.value.message == f"tensor `the tensor` of `{path}` has the type 99, which nomoat does not know"
    assert caught.value.hint == "it is damaged, or newer than this nomoat: compare its size, or try another file of this model"


@pytest.mark.parametrize("kind", ["Q4_1", "Q6_K"])
def test_some_rows_of_a_quantised_tensor_are_those_of_the_whole(tmp_path: Path, kind: str) -> None:
    file = GGUFFile(write_model(tmp_path / "one.gguf", kind, dequantised=False))
    whole = file.rows("blk.0.attn_q.weight")
    np.testing.assert_array_equal(file.rows("blk.0.attn_q.weight", np.array([5, 2])), whole[[5, 2]])


# ---------------------------------------------------------------- split files
def split(whole: Path, folder: Path, count: int) -> list[Path]:
    """The file as `llama-gguf-split` cuts it: all metadata in the first part, tensors dealt out in order."""
    source = gguf.GGUFReader(whole)
    file = GGUFFile(whole)
    parts = [folder / f"big-{at + 1:05}-of-{count:05}.gguf" for at in range(count)]
    for at, path in enumerate(parts):
        writer = gguf.GGUFWriter(str(path), "llama")
        if at == 0:
            for name, field in source.fields.items():
                if not name.startswith("GGUF.") and name != "general.architecture":
                    is_array = field.types[0] == gguf.GGUFValueType.ARRAY
                    writer.add_key_value(name, field.contents(), field.types[0], field.types[-1] if is_array else None)
        writer.add_uint16("split.no", at)
        writer.add_uint16("split.count", count)
        writer.add_int32("split.tensors.count", len(source.tensors))
        for tensor in source.tensors[at::count]:
            writer.add_tensor(tensor.name, file.rows(tensor.name))
        finish(writer)
    return parts


def test_any_part_of_a_split_model_opens_the_whole(tiny_gguf: Path, tmp_path: Path) -> None:
    parts, whole = split(tiny_gguf, tmp_path, 3), GGUFFile(tiny_gguf)
    for part in parts:
        file = GGUFFile(part)
        assert file.metadata["general.architecture"] == "llama" and file.num_values == whole.num_values
        for name in whole.tensors:
            np.testing.assert_array_equal(file.rows(name), whole.rows(name))
    folder, other = importer.import_gguf(parts[0]), importer.import_gguf(parts[2])
    assert folder == other
    assert (folder / "openvino_model.bin").read_bytes() == (importer.import_gguf(tiny_gguf) / "openvino_model.bin").read_bytes()


@pytest.mark.parametrize(
    ("kind", "architecture", "message", "hint"),
    [
        ("mmproj", "clip", "is the part of a model that sees images, or hears", "which lies beside it: nomoat reads texts"),
        (None, "clip", "is the part of a model that sees images, or hears", "which lies beside it: nomoat reads texts"),
        ("imatrix", None, "is an importance matrix, which serves to quantise a model", "name the file of the model's weights"),
        (None, "controlvector", "is a control vector, no model, and is not read", "name the file of the model's weights"),
        ("model", "nomic-bert-moe", "each token of this model sees those after it, too", "choose a model that writes text"),
        ("model", "llama", "is a vocabulary alone, and no model", "name the file of the model's weights"),
    ],
)
def test_a_file_that_goes_with_a_model_is_told_as_what_it_is(
    kind: str | None, architecture: str | None, message: str, hint: str, tmp_path: Path
) -> None:
    writer = gguf.GGUFWriter(str(tmp_path / "m.gguf"), "llama")
    del writer.kv_data[0]["general.architecture"]
    for key, value in (("general.type", kind), ("general.architecture", architecture)):
        if value is not None:
            writer.add_string(key, value)
    if architecture == "llama":
        add_tokenizer(writer, pre="smollm")
    else:
        writer.add_tensor("a", np.zeros(32, np.float32))
    finish(writer)
    with pytest.raises(UnsupportedError) as caught:
        importer.import_gguf(tmp_path / "m.gguf")
    assert message in caught.value.message and caught.value.hint is not None and hint in caught.value.hint


def test_a_missing_part_is_named(tiny_gguf: Path, tmp_path: Path) -> None:
    parts = split(tiny_gguf, tmp_path, 3)
    parts[1].unlink()
    with pytest.raises(BadFileError) as caught:
        importer.import_gguf(parts[0])
    assert caught.value.message == f"`{parts[0]}` is one of 3 parts, and beside it is no big-00002-of-00003.gguf"


def test_a_part_under_another_name_says_what_to_call_it(tiny_gguf: Path, tmp_path: Path) -> None:
    renamed = split(tiny_gguf, tmp_path, 2)[0].rename(tmp_path / "renamed.gguf")
    with pytest.raises(BadFileError) as caught:
        GGUFFile(renamed)
    assert caught.value.message == f"`{renamed}` says that it is part 1 of 2"
    assert caught.value.hint == "give the parts their names: `NAME-00001-of-00002.gguf` and so on"


def test_parts_that_are_named_for_each_other_say_which_the_first_is(tiny_gguf: Path, tmp_path: Path) -> None:
    first, second, third = split(tiny_gguf, tmp_path, 3)
    first.rename(tmp_path / "x")
    second.rename(first)
    (tmp_path / "x").rename(second)
    for part in (first, second, third):
        with pytest.raises(BadFileError) as caught:
            GGUFFile(part)
        assert caught.value.message == f"`{first}` says that it is part 2 of 3"
        assert caught.value.hint == "give the parts their names: `NAME-00001-of-00003.gguf` and so on"


def test_a_tensor_that_two_parts_hold_is_damage_as_for_llama_cpp(tiny_gguf: Path, tmp_path: Path) -> None:
    parts = split(tiny_gguf, tmp_path, 2)
    parts[1].write_bytes(parts[1].read_bytes().replace(b"blk.0.attn_k.weight", b"blk.0.attn_q.weight"))
    with pytest.raises(BadFileError) as caught:
        GGUFFile(parts[0])
    assert caught.value.message == f"two of the parts of `{parts[0]}` hold the tensor `blk.0.attn_q.weight`"


@pytest.mark.parametrize(
    ("second", "first", "message"),
    [
        (b"blk.1.attn_q.weight", b"blk.0.attn_q.weight", "it holds the tensor `blk.0.attn_q.weight` twice"),
        (b"llama.block_count", b"llama.vocab_count", "it says `llama.vocab_count` twice"),
    ],
)
def test_what_a_file_says_twice_is_damage_as_for_llama_cpp(tmp_path: Path, second: bytes, first: bytes, message: str) -> None:
    path = write_tiny_gguf(tmp_path / "t.gguf", said={"llama.vocab_count": 5})
    path.write_bytes(path.read_bytes().replace(second, first, 1))
    with pytest.raises(BadFileError) as caught:
        GGUFFile(path)
    assert caught.value.message == f"`{path}` is not a whole GGUF file: {message}"


def test_arrays_within_an_array_are_no_damage_and_named(tmp_path: Path) -> None:
    writer = gguf.GGUFWriter(str(tmp_path / "t.gguf"), "llama")
    writer.add_array("x.n", [[1, 2], [3]])
    finish(writer)
    with pytest.raises(UnsupportedError) as caught:
        GGUFFile(tmp_path / "t.gguf")
    assert caught.value.message.endswith("says `x.n` by arrays within an array, which neither nomoat nor llama.cpp reads")


def test_a_file_with_fewer_rows_than_tokens_is_refused(tiny_gguf: Path) -> None:
    file = GGUFFile(tiny_gguf)
    file.metadata["tokenizer.ggml.tokens"] = [*vocabulary(), "more"]
    with pytest.raises(BadFileError) as caught:
        importer.read_sizes(file)
    assert caught.value.message == f"`{tiny_gguf}` has 265 tokens, and its model knows 264"
    file.metadata["tokenizer.ggml.tokens"] = vocabulary()[:-1]  # as some converters write: the row behind them is never chosen
    assert importer.read_sizes(file).vocabulary == 264


def test_a_file_without_the_norm_of_its_output_is_refused_before_its_layers_are_read(tiny_gguf: Path) -> None:
    file = GGUFFile(tiny_gguf)
    del file.tensors["output_norm.weight"]
    with pytest.raises(BadFileError) as caught:
        importer.read_sizes(file)
    assert caught.value.message == f"`{tiny_gguf}` has no tensor `output_norm.weight`"


@pytest.mark.parametrize("key", ["split.count", "split.no", "split.tensors.count"])
@pytest.mark.parametrize("value", ["2", [2, 3]])
def test_a_number_of_parts_that_is_none_is_damage(tmp_path: Path, key: str, value: object) -> None:
    writer = gguf.GGUFWriter(str(tmp_path / "t.gguf"), "llama")
    (writer.add_string if isinstance(value, str) else writer.add_array)(key, value)  # type: ignore[operator]
    writer.add_tensor("x", np.ones(32, np.float32))
    finish(writer)
    with pytest.raises(BadFileError, match=f"`{key}` of .* is not a whole number"):
        GGUFFile(tmp_path / "t.gguf")


def test_a_text_of_most_of_the_file_that_is_none_is_damage_found_before_it_is_read(tmp_path: Path) -> None:
    """Weights that a damaged length makes a text took up to seven times their bytes. Other texts may hold bytes that are none."""
    path, junk = tmp_path / "t.gguf", random.Random(1).randbytes(1 << 20)

    def opened(text: bytes, weights: bytes = b"") -> GGUFFile:
        key = b"general.description"
        header = struct.pack("<4sIQQQ", b"GGUF", 3, 0, 1, len(key)) + key + struct.pack("<IQ", 8, len(text))
        path.write_bytes(header + text + weights)
        return GGUFFile(path)

    for text in (b"Jos\xe9", b"by Jos\xe9 " * 700, "가".encode() * 10_000 + b"\xea"):
        assert opened(text, junk).metadata == {"general.description": text.decode("utf-8", "replace")}
    tracemalloc.start()
    with pytest.raises(BadFileError, match="its header ends too early or is damaged"):
        opened(junk)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4 * len(junk)


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
    assert caught.value.hint == "nomoat reads GGUF weights; look for a file that ends in .gguf"


def test_a_file_of_a_folder_that_is_a_model_says_to_name_the_folder(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    path = tmp_path / "model.safetensors"
    path.write_bytes(bytes(100))
    with pytest.raises(BadFileError) as caught:
        GGUFFile(path)
    assert caught.value.hint == f"name its folder: `{tmp_path}`"


def write_ollama(folder: Path) -> tuple[Path, list[Path]]:
    """The blob of weights in Ollama's folder of two models, and the other files of the first one: its manifest and its template."""
    manifests, blobs = folder / "manifests/registry.ollama.ai/library/smol", folder / "blobs"
    manifests.mkdir(parents=True)
    blobs.mkdir()
    names = {"model": "1", "template": "2"}
    told = [{"mediaType": f"application/vnd.ollama.image.{kind}", "digest": f"sha256:{digest}"} for kind, digest in names.items()]
    for tag, layers in (("135m", told), ("360m", told[:1])):
        (manifests / tag).write_text(json.dumps({"schemaVersion": 2, "layers": layers}), encoding="utf-8", newline="\n")
    (blobs / "sha256-2").write_text("{{ .Prompt }}, as Ollama's templates are", encoding="utf-8", newline="\n")
    (blobs / "sha256-1").write_bytes(b"GGUF")
    return blobs / "sha256-1", [manifests / "135m", blobs / "sha256-2"]


def test_what_ollama_has_beside_a_model_s_weights_names_them(tmp_path: Path) -> None:
    weights, others = write_ollama(tmp_path / "models")
    others.append(tmp_path / "Modelfile")
    others[-1].write_text(f"# mine\nFROM {weights}\nSYSTEM brief\n", encoding="utf-8", newline="\n")
    hints = []
    for path in others:
        with pytest.raises(BadFileError, match="is not a GGUF file") as caught:
            GGUFFile(path)
        hints.append(caught.value.hint)
    of_ollama = f"name the weights of Ollama's `smol:135m`: `{weights}`"
    assert hints == [of_ollama, of_ollama, f"name the weights that it is made from: `{weights}`"]
    others[0].write_text('{"schemaVersion": 2, "layers": [{"digest": 7}]}', encoding="utf-8", newline="\n")
    del caught  # it has the file mapped, over which Windows then lets nobody write
    others[-1].write_text("FROM llama3.2  \nSYSTEM be brief\n", encoding="utf-8", newline="\n")
    found = [ollama_files.hint(path) for path in others]
    assert found == [None, None, "name the weights that it is made from: `llama3.2`"]
    others[-1].write_text("FROM llama3.2", encoding="utf-8")
    with pytest.raises(BadFileError, match="it has 13 bytes") as caught:
        GGUFFile(others[-1])
    assert caught.value.hint == found[-1]


@pytest.mark.parametrize("name", ["", "models", "models/blobs", "models/manifests/registry.ollama.ai/library"])
def test_a_folder_of_ollama_s_names_the_weights_of_its_first_model(name: str, tmp_path: Path) -> None:
    weights, _ = write_ollama(tmp_path / "models")
    hint = f"name the weights of Ollama's `smol:135m`: `{weights}`, or those of another of the 2"
    assert ollama_files.hint(tmp_path / name) == hint
    with pytest.raises(BadFileError, match="is no model: it has no") as caught:
        source.open_source(tmp_path / name)
    assert caught.value.hint == hint


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="Windows has no such pipes")
def test_a_hint_reads_no_pipe_and_names_no_file_that_is_not_there(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(BadFileError, match="it has 0 bytes"):
        GGUFFile(tmp_path / "pipe")
    weights, (manifest, template) = write_ollama(tmp_path / "models")
    assert ollama_files.hint(weights) is None
    weights.unlink()
    assert ollama_files.hint(manifest) is ollama_files.hint(template) is None
    (tmp_path / "folder").mkdir()
    for content, hint in (
        ("\ufefffrom ./folder", f"name the weights that it is made from: `{tmp_path / 'folder'}`"), ("SELECT a\nFROM users", None),
    ):  # fmt: skip
        (tmp_path / "Modelfile").write_text(content, encoding="utf-8")
        assert ollama_files.hint(tmp_path / "Modelfile") == hint


def test_what_git_leaves_in_the_place_of_a_file_is_told_as_such(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 123456789\n")
    with pytest.raises(BadFileError) as caught:
        GGUFFile(path)
    assert caught.value.message == f"`{path}` is a pointer to the file, not the file"
    assert caught.value.hint == "fetch it: `git lfs pull` in its folder"


@pytest.mark.parametrize(
    ("version", "message"),
    [
        (struct.pack(">I", 3), "`FILE` is written for big-endian machines (IBM Z, some PowerPC)"),
        (struct.pack("<I", 1), "`FILE` is of GGUF's first version, which was in use for some days of August 2023"),
        (struct.pack("<I", 4), "`FILE` is not a whole GGUF file: its version is 4, and nomoat reads 2 and 3"),
    ],
)
def test_a_file_of_another_version_or_for_other_machines_says_so(
    tiny_gguf: Path, tmp_path: Path, version: bytes, message: str
) -> None:
    path, content = tmp_path / "model.gguf", tiny_gguf.read_bytes()
    path.write_bytes(content[:4] + version + content[8:])
    with pytest.raises(NomoatError) as caught:
        GGUFFile(path)
    assert caught.value.message == message.replace("FILE", str(path))


def test_a_truncated_file_says_which_tensor_is_cut(tiny_gguf: Path, tmp_path: Path) -> None:
    path = tmp_path / "cut.gguf"
    content = tiny_gguf.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(BadFileError, match=r"tensor `blk\.0\..*` ends at byte [\d,]+, and the file has [\d,]+"):
        GGUFFile(path)


@pytest.mark.parametrize(("at", "changed"), [(24, struct.pack("<Q", 0)), (20, struct.pack("<I", 28))], ids=["offset", "F64 for F32"])
def test_a_tensor_that_begins_within_another_is_refused(tiny_gguf: Path, tmp_path: Path, at: int, changed: bytes) -> None:
    """Else the bytes of both would be weights, and answers wrong without a word."""
    path, content, name = tmp_path / "moved.gguf", bytearray(tiny_gguf.read_bytes()), b"blk.0.attn_q.weight"
    at += content.index(name) + len(name)
    content[at : at + len(changed)] = changed
    path.write_bytes(content)
    with pytest.raises(BadFileError, match=r"tensors `.*` and `.*` lie in the same bytes"):
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


@pytest.mark.skipif(not Path("/proc/self/smaps").exists(), reason="Linux says which of a file's pages this process holds")
def test_rows_that_were_copied_leave_no_pages_of_the_file_in_memory(tmp_path: Path) -> None:
    rows = np.arange(4096).repeat(WIDTH).reshape(-1, WIDTH).astype(np.float32)
    path = write_tensors(tmp_path / "large.gguf", {"large": rows})
    file = GGUFFile(path)
    np.testing.assert_array_equal(file.raw_rows("large").view(np.float32), rows)
    assert _resident_bytes(path) >= rows.nbytes
    np.testing.assert_array_equal(file.raw_rows("large", np.arange(4096)[::-1]).view(np.float32), rows[::-1])
    assert _resident_bytes(path) < rows.nbytes / 10


def _resident_bytes(path: Path) -> int:
    """Of a file that this process has mapped, what is in its memory."""
    resident, of_path = 0, False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        words = line.split()
        if "-" in words[0] and not words[0].endswith(":"):
            of_path = words[-1] == str(path)
        elif words[0] == "Rss:" and of_path:
            resident += int(words[1]) * 1024
    return resident
