"""A LoRA in one GGUF file adds what PEFT's folder of it adds, and is an adapter wherever one is named."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
from reference import CASES, make_adapter, make_model, our_logits, write_gguf
from tiny import write_adapter, write_learned, write_tiny_gguf
from typer.testing import CliRunner

from nomoat import paths, references
from nomoat.catalog import tuned
from nomoat.cli import app
from nomoat.engine import importer
from nomoat.engine.gguf import GGUFFile
from nomoat.engine.local import LocalEngine
from nomoat.engine.lora import LoraDelta
from nomoat.errors import BadFileError, NomoatError, UnsupportedError
from nomoat.records import Request
from nomoat.tune import adapter as adapters
from nomoat.tune import export

ROWS = [[5, 9, 200, 17, 3, 44]]


def exported(weights: Path, folder: Path) -> Path:
    return export.lora_gguf(weights, folder, folder.with_name("mine-lora.gguf"))


def write_lora(path: Path, tensors: dict[str, Any], **keys: Any) -> Path:
    """A file of these tensors, which says that it is a LoRA of the alpha 4, if `keys` say nothing else."""
    said = {"general__type": "adapter", "adapter__type": "lora", "adapter__lora__alpha": 4.0, **keys}
    writer = gguf.GGUFWriter(str(path), "llama")
    for key, value in said.items():
        name = key.replace("__", ".")
        if isinstance(value, str):
            writer.add_string(name, value)
        elif isinstance(value, float):
            writer.add_float32(name, value)
        elif value is not None:
            writer.add_array(name, value)
    for name, values in tensors.items():
        writer.add_tensor(name, values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def pair(name: str = "blk.0.attn_q.weight", rows: int = 64, columns: int = 64, rank: int = 2) -> dict[str, Any]:
    return {f"{name}.lora_a": np.ones((rank, columns), np.float32), f"{name}.lora_b": np.ones((rows, rank), np.float32)}


@pytest.mark.parametrize("name", ["llama", "qwen2", "falcon 40b", "gptj", "gptneox"])
def test_it_adds_what_the_folder_adds(name: str, tmp_path: Path) -> None:
    weights = write_gguf(tmp_path / "base.gguf", CASES[name], make_model(CASES[name]))
    folder = make_adapter(tmp_path / "adapter", weights)
    made = [our_logits(importer.import_gguf(weights, adapter=one), ROWS) for one in (folder, exported(weights, folder))]
    np.testing.assert_array_equal(*made)
    assert np.abs(made[0] - our_logits(importer.import_gguf(weights), ROWS)).max() > 0.5


def test_its_alpha_is_divided_by_each_layer_s_rank(tmp_path: Path) -> None:
    file = write_lora(tmp_path / "l.gguf", pair(rank=2) | pair("blk.1.ffn_down.weight", columns=128, rank=8))
    delta = LoraDelta(file)
    for layer, rank in (("blk.0.attn_q", 2), ("blk.1.ffn_down", 8)):
        change = delta(layer, np.arange(1))
        assert change is not None
        np.testing.assert_array_equal(change, np.full_like(change, 4 / rank * rank))


def test_half_floats_are_read(tmp_path: Path) -> None:
    halves = {name: values.astype(np.float16) for name, values in pair().items()}
    assert LoraDelta(write_lora(tmp_path / "l.gguf", halves)).layers == {"blk.0.attn_q"}


def test_it_stands_beside_others_and_training_goes_on_from_it(tmp_path: Path) -> None:
    weights = write_gguf(tmp_path / "base.gguf", CASES["llama"], make_model(CASES["llama"]))
    folder = make_adapter(tmp_path / "mine", weights)
    file = exported(weights, folder)
    importer.require_beside(weights, [file, folder])
    starts = [adapters.read_start("b", weights, one, GGUFFile(weights)) for one in (folder, file)]
    assert starts[0].learned.keys() == starts[1].learned.keys()
    for name, values in starts[0].learned.items():
        np.testing.assert_allclose(values, starts[1].learned[name], rtol=1e-6)


def test_terms_and_words_go_with_the_file_also_once_it_has_another_name(tiny_gguf: Path, empty_home: Path, tmp_path: Path) -> None:
    mine = write_adapter(paths.adapters() / "mine")
    write_learned(mine, "ham", "spam", instruction="Which is it?")
    output = tmp_path / "mine-lora.gguf"
    assert CliRunner().invoke(app, ["export", f"{tiny_gguf}+mine", "-o", str(output), "--form", "lora"]).exit_code == 0
    output = output.rename(tmp_path / "Llama-mine.gguf")
    files = references.find_files(f"{tiny_gguf}+{output}")
    assert files.adapter == output and files.question == "Which is it?\n\nText: {text}\nLabel:"
    own = references.adapter_chain(str(tiny_gguf), mine)
    assert [link.name for link in references.adapter_chain(str(tiny_gguf), output).links] == [link.name for link in own.links]
    ref = f"{tiny_gguf}+{output}"
    asked = [json.loads(CliRunner().invoke(app, ["run", one, "--as-tuned", "Win cash", "-n", "3", "--json"]).stdout) for one in
             (f"{tiny_gguf}+mine", ref)]  # fmt: skip
    assert asked[0]["text"] == asked[1]["text"]
    assert 'asked in these words, with a text in place of {text}: "Which' in CliRunner().invoke(app, ["show", ref]).stdout


def test_show_of_the_file_alone_tells_its_base_its_rank_and_its_terms(tiny_gguf: Path, empty_home: Path, tmp_path: Path) -> None:
    mine = write_adapter(paths.adapters() / "mine")
    write_learned(mine, "ham", "spam", instruction="Which is it?")
    output, other = tmp_path / "mine-lora.gguf", exported(tiny_gguf, mine)
    assert CliRunner().invoke(app, ["export", f"{tiny_gguf}+mine", "-o", str(output.with_suffix("")), "--form", "lora"]).exit_code == 0
    shown = [CliRunner().invoke(app, ["show", str(place)]).stdout.splitlines() for place in (output, mine, other)]
    assert [lines[2].split(",")[:2] for lines in shown] == 3 * [["LoRA: rank 4", " alpha 8"]]
    assert shown[0][3] == f"no model by itself; its base: {tiny_gguf.name}; asked as {tiny_gguf.name}+{output}"
    assert shown[0][-1].startswith('asked in these words, with a text in place of {text}: "Which')
    assert shown[2][3] == f"no model by itself; its base: tiny; asked as BASE+{other}"
    found = json.loads(CliRunner().invoke(app, ["show", str(output), "--json"]).stdout)
    assert (found["base"], found["lora"]["ranks"], found["lora"]["layers"]) == (tiny_gguf.name, [4], [0, 1])
    nameless = other.rename(tmp_path / "mine")
    assert f"+{nameless}.gguf, once the file is called so" in CliRunner().invoke(app, ["show", str(nameless)]).stdout


def test_likelihoods_are_those_of_the_folder_s(tiny_gguf: Path, tmp_path: Path) -> None:
    folder = write_adapter(tmp_path / "mine")
    request, found = Request(prompt="Win cash"), list[list[float]]()
    for one in (folder, exported(tiny_gguf, folder)):
        beside = LocalEngine(importer.import_gguf(tiny_gguf, fused=False), weights=tiny_gguf, beside=[one]).adapted(0)
        found.append([score.log_probability for score in beside.score(request, (" ham", " spam"))])
    assert found[0] == found[1]


def test_without_what_export_writes_beside_it_its_data_are_not_recorded(tiny_gguf: Path, tmp_path: Path) -> None:
    file = exported(tiny_gguf, write_adapter(tmp_path / "mine"))
    assert not tuned.provenance_of(file)
    assert references.adapter_chain(str(tiny_gguf), file).links[-1].name == "not recorded"


@pytest.mark.parametrize(
    ("write", "kind", "message"),
    [
        (write_tiny_gguf, BadFileError, "is no adapter"),
        (lambda path: write_lora(path, pair(), adapter__type="ia3"), BadFileError, "is a `ia3` adapter, and nomoat adds LoRA alone"),
        (lambda path: write_lora(path, pair(), adapter__alora__invocation_tokens=[1, 2]), BadFileError, "is an activated LoRA"),
        (lambda path: write_lora(path, pair(), adapter__lora__alpha=None), BadFileError, "does not say `adapter.lora.alpha`"),
        (lambda path: write_lora(path, pair(), adapter__lora__alpha="two"), BadFileError, "says 'two' as `adapter.lora.alpha`"),
        (lambda path: write_lora(path, {}), BadFileError, "holds no LoRA matrices"),
        (lambda path: write_lora(path, {"output_norm.weight": np.ones(64, np.float32)}), BadFileError, "which is no LoRA matrix"),
        (lambda path: write_lora(path, dict([*pair().items()][:1])), BadFileError, "lacks 1 tensor of 2"),
        (lambda path: write_lora(path, pair() | dict([*pair(rank=3).items()][1:])), BadFileError, "do not go together"),
        (lambda path: write_lora(path, pair(rows=32)), BadFileError, r"as one of 32 rows"),
        (lambda path: write_lora(path, pair("blk.0.ffn_up.weight")), BadFileError, r"as one of \[64, 64\], and the model's is"),
        (lambda path: write_lora(path, pair("blk.9.attn_q.weight")), BadFileError, "does not have: model.layers.9.self_attn.q_proj"),
        (lambda path: write_lora(path, pair("token_embd.weight")), BadFileError, "does not have: token_embd"),
        (
            lambda path: write_lora(path, {"blk.0.ffn_up_exps.weight.lora_a": np.ones((2, 2, 64), np.float32)}),
            UnsupportedError,
            "changes a mixture's experts",
        ),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_file_is_told(
    write: Callable[[Path], Path], kind: type[NomoatError], message: str, tiny_gguf: Path, tmp_path: Path
) -> None:
    file = write(tmp_path / "l.gguf")
    with pytest.raises(kind, match=message) as caught:
        importer.import_gguf(tiny_gguf, adapter=file)
    assert caught.value.hint


def test_a_truncated_file_is_told(tiny_gguf: Path, tmp_path: Path) -> None:
    file = exported(tiny_gguf, write_adapter(tmp_path / "mine"))
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(BadFileError):
        importer.import_gguf(tiny_gguf, adapter=file)
