"""What other programs are given: the merged file answers as the tuned model does, and the LoRA file holds the same change."""

from __future__ import annotations

import errno
import json
import os
import re
import struct
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from reference import CASES, MIXTURES, RANK, make_adapter, make_model, our_logits, write_folder, write_gguf
from safetensors.numpy import load_file, save_file
from small_disk import run_on_small_disk
from tiny import write_adapter, write_learned, write_tiny_gguf
from typer.testing import CliRunner

from nomoat import commands
from nomoat.catalog import licences
from nomoat.cli import app
from nomoat.engine import importer
from nomoat.engine.gguf import GGUFFile
from nomoat.engine.lora import LoraDelta
from nomoat.engine.source import open_source
from nomoat.errors import BadFileError, NotEnoughDiskError, UnsupportedError
from nomoat.records import Parent
from nomoat.tune import export
from nomoat.tune.adapter import licence_chain


@pytest.mark.parametrize("name", ["llama", "qwen2", "falcon 40b", "gptj"])
def test_the_merged_file_gives_the_logits_of_the_tuned_model(name: str, tmp_path: Path) -> None:
    weights = write_gguf(tmp_path / "base.gguf", CASES[name], make_model(CASES[name]))
    adapter = make_adapter(tmp_path / "adapter", weights)
    merged = export.merged_gguf(weights, adapter, tmp_path / "merged.gguf", quantisation="F32")
    rows = [[5, 9, 200, 17, 3, 44]]
    tuned = our_logits(importer.import_gguf(weights, adapter=adapter), rows)
    base = our_logits(importer.import_gguf(weights), rows)
    assert np.abs(tuned - base).max() > 0.5
    np.testing.assert_allclose(our_logits(importer.import_gguf(merged), rows), tuned, atol=1e-4)
    keys = [set(GGUFFile(path).metadata) - {"general.quantization_version"} for path in (weights, merged)]
    assert (keys[0] - keys[1], keys[1] - keys[0]) == (
        set(),
        {"general.name", "general.finetune", "general.file_type", "general.base_model.count", "general.base_model.0.name"},
    )
    assert GGUFFile(merged).metadata["general.name"] == "base+adapter"  # programs list models by it


def test_what_makes_the_weights_of_experts_is_not_rounded_in_a_merged_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where the gate of the expert that all tokens ask is written as a matrix of one row."""
    model, gate, add = make_model(MIXTURES["qwen2moe"]), "ffn_gate_inp_shexp", gguf.GGUFWriter.add_tensor

    def add_as_matrix(writer: Any, name: str, tensor: Any, **told: Any) -> None:
        add(writer, name, tensor.reshape(1, -1) if gate in name else tensor, **told)

    with monkeypatch.context() as patched:
        patched.setattr(gguf.GGUFWriter, "add_tensor", add_as_matrix)
        weights = write_gguf(tmp_path / "base.gguf", MIXTURES["qwen2moe"], model)
    adapter = write_adapter(tmp_path / "adapter", layers=[0], parts={"self_attn.q_proj": (64, 64)})
    tensors = GGUFFile(export.merged_gguf(weights, adapter, tmp_path / "merged.gguf")).tensors
    assert tensors[f"blk.0.{gate}.weight"].shape == (1, 64)
    types = {part: tensors[f"blk.0.{part}.weight"].type_name for part in ("attn_q", "ffn_up_exps", "ffn_gate_inp", gate)}
    assert types == {"attn_q": "Q8_0", "ffn_up_exps": "Q8_0", "ffn_gate_inp": "F32", gate: "F32"}


@pytest.mark.parametrize("is_tied", [False, True])
def test_the_output_matrix_of_a_4_bit_file_has_8_bits_and_the_file_says_how_it_was_written(is_tied: bool, tmp_path: Path) -> None:
    """As in files of llama.cpp: in 4 bits SmolLM2's tied embedding moved the margins between answers by half as much again."""
    path = tmp_path / "base.gguf"
    weights = write_tiny_gguf(path) if is_tied else write_gguf(path, CASES["llama"], make_model(CASES["llama"]))
    assert ("output.weight" in GGUFFile(weights).tensors) is not is_tied
    adapter = make_adapter(tmp_path / "adapter", weights)
    for kind, output, number in (("Q4_0", "Q8_0", 2), ("Q5_1", "Q8_0", 9), ("F16", "F16", 1), ("F32", "F32", 0)):
        merged = GGUFFile(export.merged_gguf(weights, adapter, tmp_path / f"{kind}.gguf", quantisation=kind))  # type: ignore[arg-type]
        types = {name: tensor.type_name for name, tensor in merged.tensors.items()}
        assert (types["blk.0.attn_q.weight"], types["token_embd.weight"]) == (kind, output if is_tied else kind)
        assert types.get("output.weight", output) == output
        assert merged.metadata["general.file_type"] == number


BY = "commercial use: yes, if (Creative Commons BY 4.0)"


def test_exported_files_say_what_they_were_made_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Named(gguf.GGUFWriter):
        def __init__(self, path: str, arch: str) -> None:
            super().__init__(path, arch)
            self.add_name("Base 1B")
            self.add_organization("Maker")
            self.add_base_model_count(2)
            self.add_base_model_name(0, "Pretrained 1B")
            self.add_base_model_name(1, "Another")

    with monkeypatch.context() as patched:
        patched.setattr(gguf, "GGUFWriter", Named)
        weights = write_tiny_gguf(tmp_path / "base.gguf")
    adapter = write_adapter(tmp_path / "mine")
    told = {"name": "Base 1B+mine", "finetune": "mine", "base_model.count": 1, "base_model.0.name": "Base 1B"}
    told["base_model.0.organization"] = "Maker"
    for write in (export.merged_gguf, export.lora_gguf):
        said = GGUFFile(write(weights, adapter, tmp_path / "m.gguf")).metadata
        assert {key.removeprefix("general."): said[key] for key in said if key.startswith(export.OWN_KEYS)} == told


@pytest.mark.parametrize(
    ("base", "data", "claimed"),
    [
        ("apache-2.0", "own", {"general.license": "Apache-2.0", "general.license.link": "L"}),
        ("apache-2.0", "apache-2.0", {"general.license": "Apache-2.0", "general.license.link": "L"}),
        ("apache-2.0", "cc-by-4.0", {"general.license": "other", "general.license.name": BY}),
        (
            "mit",
            "own",
            {"general.license": "other", "general.license.name": "commercial use: yes (MIT License)"},
        ),
        ("unknown", "own", {"general.license": "other", "general.license.name": "commercial use: unknown (terms not known)"}),
    ],
)
def test_a_licence_that_the_base_claims_is_kept_where_all_was_made_under_it(
    base: str, data: str, claimed: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Licensed(gguf.GGUFWriter):
        def __init__(self, path: str, arch: str) -> None:
            super().__init__(path, arch)
            self.add_license("Apache-2.0")
            self.add_license_link("L")

    with monkeypatch.context() as patched:
        patched.setattr(gguf, "GGUFWriter", Licensed)
        weights = write_tiny_gguf(tmp_path / "base.gguf")
    parents = (Parent(kind="base", name="b", licence=base), Parent(kind="data", name="d", licence=data))
    terms, adapter = licences.of_parents(parents), write_adapter(tmp_path / "mine")
    for write in (export.merged_gguf, export.lora_gguf):
        said = GGUFFile(write(weights, adapter, tmp_path / "m.gguf", terms=terms)).metadata
        assert {key: said[key] for key in said if key.startswith("general.license")} == claimed


def test_the_lora_file_holds_the_change_in_the_file_s_order_of_rows(tmp_path: Path) -> None:
    weights = write_gguf(tmp_path / "base.gguf", CASES["llama"], make_model(CASES["llama"]))
    adapter = make_adapter(tmp_path / "adapter", weights)
    lora = GGUFFile(export.lora_gguf(weights, adapter, tmp_path / "lora.gguf"))
    merged = GGUFFile(export.merged_gguf(weights, adapter, tmp_path / "merged.gguf", quantisation="F32"))
    assert lora.metadata["general.type"] == "adapter" and lora.metadata["adapter.lora.alpha"] == 2 * RANK
    with pytest.raises(UnsupportedError, match=r"lora.gguf` is an adapter, no model"):
        open_source(tmp_path / "lora.gguf")
    for tensor in ("blk.0.attn_q.weight", "blk.1.ffn_down.weight"):
        change = 2 * lora.rows(f"{tensor}.lora_b") @ lora.rows(f"{tensor}.lora_a")
        np.testing.assert_allclose(merged.rows(tensor), GGUFFile(weights).rows(tensor) + change, atol=1e-5)


def test_the_lora_file_of_a_rank_stabilised_adapter_has_its_scale(tmp_path: Path) -> None:
    """PEFT's `use_rslora` divides by the rank's root, llama.cpp always by the rank."""
    weights = write_gguf(tmp_path / "base.gguf", CASES["llama"], make_model(CASES["llama"]))
    adapter = make_adapter(tmp_path / "adapter", weights)
    config = json.loads((adapter / "adapter_config.json").read_text())
    (adapter / "adapter_config.json").write_text(json.dumps(config | {"use_rslora": True}))
    lora = GGUFFile(export.lora_gguf(weights, adapter, tmp_path / "lora.gguf"))
    merged = GGUFFile(export.merged_gguf(weights, adapter, tmp_path / "merged.gguf", quantisation="F32"))
    tensor = "blk.0.attn_q.weight"
    change = lora.metadata["adapter.lora.alpha"] / RANK * lora.rows(f"{tensor}.lora_b") @ lora.rows(f"{tensor}.lora_a")
    np.testing.assert_allclose(merged.rows(tensor), GGUFFile(weights).rows(tensor) + change, atol=1e-5)


@pytest.mark.parametrize("is_stabilised", [False, True])
def test_layers_with_a_rank_and_a_scale_of_their_own_change_as_peft_says(tmp_path: Path, is_stabilised: bool) -> None:
    """Also in a LoRA file, which has one alpha for all."""
    from peft import LoraConfig, PeftModel, get_peft_model

    weights = write_gguf(tmp_path / "base.gguf", CASES["llama"], make_model(CASES["llama"]))
    torch.manual_seed(0)
    config = LoraConfig(
        r=4, lora_alpha=8, use_rslora=is_stabilised, target_modules=["q_proj", "v_proj", "down_proj"], init_lora_weights=False,
        rank_pattern={r"layers\.1\..*": 6, "q_proj": 2}, alpha_pattern={"down_proj": 3, "q_proj": 40, "self_attn.q_proj": 7},
    )  # fmt: skip
    with warnings.catch_warnings():  # PEFT 0.21 asks transformers 5 for an attribute under its old name
        warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing.*", category=FutureWarning)
        get_peft_model(make_model(CASES["llama"]), config).save_pretrained(str(tmp_path / "adapter"))
        model = PeftModel.from_pretrained(make_model(CASES["llama"]), str(tmp_path / "adapter"))
    theirs = {
        name.removeprefix("base_model.model."): part.get_delta_weight("default").detach().numpy()
        for name, part in model.named_modules()
        if hasattr(part, "get_delta_weight")
    }
    delta = LoraDelta(tmp_path / "adapter")
    assert delta.layers == theirs.keys() and {len(delta.matrices(layer)[0]) for layer in theirs} == {2, 4, 6}  # type: ignore[index]
    lora = GGUFFile(export.lora_gguf(weights, tmp_path / "adapter", tmp_path / "lora.gguf"))
    for layer, change in theirs.items():
        a_RI, b_OR = delta.scaled(layer) or (np.zeros(0), np.zeros(0))
        np.testing.assert_allclose(b_OR @ a_RI, change, atol=1e-5)
        np.testing.assert_allclose(delta(layer, np.arange(len(change))), change, atol=1e-5)
        if "v_proj" in layer or "down_proj" in layer:  # whose rows lie in the file as they are
            tensor = f"blk.{layer.split('.')[2]}.{'attn_v' if 'v_proj' in layer else 'ffn_down'}.weight"
            a_RI, b_OR = (lora.rows(f"{tensor}.lora_{end}") for end in "ab")
            np.testing.assert_allclose(lora.metadata["adapter.lora.alpha"] / len(a_RI) * b_OR @ a_RI, change, atol=1e-5)


def test_other_scales_of_some_layers_are_another_adapter(tmp_path: Path) -> None:
    folder = write_adapter(tmp_path / "a")
    path, digests = folder / "adapter_config.json", [LoraDelta(folder).sha256]
    settings = json.loads(path.read_text())
    for alpha in (9, 10):
        path.write_text(json.dumps(settings | {"alpha_pattern": {r"layers\.0\..*": alpha}}))
        digests.append(LoraDelta(folder).sha256)
    assert len(set(digests)) == 3


def test_an_adapter_of_the_output_layer_cannot_be_exported(tmp_path: Path) -> None:
    weights = write_gguf(tmp_path / "base.gguf", CASES["llama"], make_model(CASES["llama"]))
    adapter = make_adapter(tmp_path / "adapter", weights)
    path = adapter / "adapter_model.safetensors"
    more = {f"base_model.model.lm_head.lora_{part}.weight": np.ones((4, 4), np.float32) for part in "AB"}
    save_file(load_file(path) | more, path)
    for form in (export.merged_gguf, export.lora_gguf):
        with pytest.raises(UnsupportedError) as caught:
            form(weights, adapter, tmp_path / "out.gguf")
        assert caught.value.message == f"`{adapter}` changes the output layer (`lm_head`), and such an adapter cannot be exported"
        assert caught.value.hint is not None and "merge_and_unload" in caught.value.hint
    assert not (tmp_path / "out.gguf").exists()


def test_an_adapter_of_an_output_layer_that_is_the_embedding_too_is_not_to_be_merged(tiny_gguf: Path, tmp_path: Path) -> None:
    """PEFT's merge would change both."""
    adapter = write_adapter(tmp_path / "a")
    names = {part: f"base_model.model.lm_head.lora_{part}.weight" for part in "AB"}
    matrices = {names["A"]: np.ones((4, 64), np.float32), names["B"]: np.ones((264, 4), np.float32)}
    save_file(matrices, adapter / "adapter_model.safetensors")
    for form in (export.merged_gguf, export.lora_gguf):
        with pytest.raises(UnsupportedError, match="changes `lm_head`, and this model's is its embedding, too") as caught:
            form(tiny_gguf, adapter, tmp_path / "out.gguf")
        assert caught.value.hint == "tune an adapter without `lm_head` among its target modules"


def test_the_merged_file_keeps_texts_that_are_no_utf_8_and_does_without_empty_arrays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    class Odd(gguf.GGUFWriter):
        def __init__(self, path: str, arch: str) -> None:
            super().__init__(path, arch)
            self.add_key_value("general.description", b"caf\xe9", gguf.GGUFValueType.STRING)
            self.add_key_value("general.author", b"Ren\xe9", gguf.GGUFValueType.STRING)
            self.add_key_value("general.tags", [b"na\xefve", "예".encode()], gguf.GGUFValueType.ARRAY, gguf.GGUFValueType.STRING)
            self.add_finetune("Instruct")
            self.add_key_value("general.languages", [], gguf.GGUFValueType.ARRAY, gguf.GGUFValueType.STRING)

        def _pack_val(self, val: object, *rest: object, **named: object) -> bytes:
            if val == []:  # the writer refuses what other tools write
                return struct.pack("<IIQ", gguf.GGUFValueType.ARRAY, gguf.GGUFValueType.STRING, 0)
            return super()._pack_val(val, *rest, **named)  # type: ignore[arg-type]

    with monkeypatch.context() as patched:
        patched.setattr(gguf, "GGUFWriter", Odd)
        weights = write_tiny_gguf(tmp_path / "base.gguf")
    adapter = write_adapter(tmp_path / "adapter", layers=[1])
    merged = export.merged_gguf(weights, adapter, tmp_path / "merged.gguf")
    before, after = (gguf.GGUFReader(str(path)).fields for path in (weights, merged))
    assert before.keys() - after.keys() == {"general.languages", "general.author"}
    assert GGUFFile(merged).metadata["general.base_model.0.author"].startswith("Ren")
    for name, texts in (("general.description", [b"caf\xe9"]), ("general.tags", [b"na\xefve", "예".encode()])):
        assert [after[name].parts[at].tobytes() for at in after[name].data] == texts
    assert GGUFFile(merged).metadata["tokenizer.ggml.tokens"] == GGUFFile(weights).metadata["tokenizer.ggml.tokens"]
    assert (GGUFFile(merged).metadata["general.finetune"], caplog.messages) == ("adapter", [])  # gguf warns of a key that is set twice


def test_the_merged_file_of_a_base_of_another_alignment_is_readable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Aligned(gguf.GGUFWriter):
        def __init__(self, path: str, arch: str) -> None:
            super().__init__(path, arch)
            self.add_custom_alignment(256)

    with monkeypatch.context() as patched:
        patched.setattr(gguf, "GGUFWriter", Aligned)
        weights = write_tiny_gguf(tmp_path / "base.gguf")
    adapter = write_adapter(tmp_path / "adapter", layers=[1])
    merged = GGUFFile(export.merged_gguf(weights, adapter, tmp_path / "merged.gguf", quantisation="Q8_0"))
    base = GGUFFile(weights)
    assert base.metadata["general.alignment"] == 256
    for tensor in base.tensors:
        if not tensor.startswith("blk.1."):
            np.testing.assert_allclose(merged.rows(tensor), base.rows(tensor), atol=0.01, err_msg=tensor)


def test_an_adapter_of_the_upper_layers_leaves_the_lower_ones_alone(tmp_path: Path) -> None:
    weights = write_gguf(tmp_path / "base.gguf", CASES["llama"], make_model(CASES["llama"]))
    adapter = make_adapter(tmp_path / "adapter", weights, frozen=1)
    lora = GGUFFile(export.lora_gguf(weights, adapter, tmp_path / "lora.gguf"))
    assert lora.tensors and all(name.startswith("blk.1.") for name in lora.tensors)
    merged = export.merged_gguf(weights, adapter, tmp_path / "merged.gguf", quantisation="F32")
    for tensor in GGUFFile(weights).tensors:
        is_as_it_was = np.array_equal(GGUFFile(merged).rows(tensor), GGUFFile(weights).rows(tensor))
        assert is_as_it_was != (f"{tensor}.lora_a" in lora.tensors), tensor
    rows = [[5, 9, 200, 17, 3, 44]]
    tuned = our_logits(importer.import_gguf(weights, adapter=adapter), rows)
    np.testing.assert_allclose(our_logits(importer.import_gguf(merged), rows), tuned, atol=1e-4)


def test_a_folder_s_adapter_becomes_the_lora_file_of_the_gguf_made_of_it(tmp_path: Path) -> None:
    model, folder = write_folder(tmp_path / "model", "llama")
    weights = write_gguf(tmp_path / "model.gguf", CASES["llama"], model)
    adapter = make_adapter(tmp_path / "adapter", folder)
    made = [export.lora_gguf(base, adapter, tmp_path / f"{base.suffix}.gguf") for base in (folder, weights)]
    assert made[0].read_bytes() == made[1].read_bytes()
    with pytest.raises(UnsupportedError, match="is a Hugging Face folder, whose tokenizer nomoat cannot write") as caught:
        export.merged_gguf(folder, adapter, tmp_path / "merged.gguf")
    assert caught.value.hint is not None
    assert "convert_hf_to_gguf.py, and the adapter that runs beside it with `nomoat export --form lora`; or merge" in caught.value.hint


@pytest.mark.parametrize("exported", [export.merged_gguf, export.lora_gguf])
def test_an_architecture_llama_cpp_does_not_know_is_refused(exported: Callable[..., Path], tmp_path: Path) -> None:
    """And not sent to llama.cpp's converter, as other folders are."""
    _, folder = write_folder(tmp_path / "model", "opt")
    with pytest.raises(UnsupportedError, match="`opt`, which llama"):
        exported(folder, make_adapter(tmp_path / "adapter", folder), tmp_path / "made.gguf")


@pytest.mark.parametrize("exported", [export.merged_gguf, export.lora_gguf])
def test_what_is_wrong_with_a_folder_is_told_where_its_adapter_is_exported(exported: Callable[..., Path], tmp_path: Path) -> None:
    _, folder = write_folder(tmp_path / "model", "llama")
    adapter, config = make_adapter(tmp_path / "adapter", folder), json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"model_type": "madeup"}))
    with pytest.raises(UnsupportedError, match="the architecture `madeup` is not one that nomoat can import"):
        exported(folder, adapter, tmp_path / "made.gguf")
    (folder / "config.json").write_text("{")
    with pytest.raises(BadFileError, match=r"config\.json` cannot be read"):
        exported(folder, adapter, tmp_path / "made.gguf")


def test_an_adapter_of_another_model_is_refused_and_nothing_is_left(tmp_path: Path) -> None:
    weights = write_gguf(tmp_path / "base.gguf", CASES["llama"], make_model(CASES["llama"]))
    other = write_gguf(tmp_path / "other.gguf", CASES["gemma3"], make_model(CASES["gemma3"]))
    adapter = make_adapter(tmp_path / "adapter", other)
    for exported in (export.merged_gguf, export.lora_gguf):
        with pytest.raises(
            BadFileError, match=r"changes `model.layers.0.self_attn.q_proj` as one of \[128, 64\], and the model's is \[64, 64\]"
        ):
            exported(weights, adapter, tmp_path / "made.gguf")
    assert not list(tmp_path.glob("*made*"))


@pytest.mark.parametrize("exported", [export.merged_gguf, export.lora_gguf])
def test_an_adapter_of_too_many_rows_or_of_layers_that_are_not_there_is_refused(exported: Callable[..., Path], tmp_path: Path) -> None:
    base = write_tiny_gguf(tmp_path / "base.gguf")
    large = write_adapter(tmp_path / "large", parts={"mlp.down_proj": (128, 128)})
    strange = write_adapter(tmp_path / "strange", layers=[7])
    for adapter, message in (
        (large, r"as one of \[128, 128\], and the model's is \[64, 128\]"),
        (strange, "does not have: model.layers.7"),
    ):
        with pytest.raises(BadFileError, match=message):
            exported(base, adapter, tmp_path / "made.gguf")


@pytest.mark.parametrize("exported", [export.merged_gguf, export.lora_gguf])
def test_a_disk_without_room_is_said_before_anything_is_written(
    exported: Callable[..., Path], tiny_gguf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=1000))
    with pytest.raises(NotEnoughDiskError) as caught:
        exported(tiny_gguf, write_adapter(tmp_path / "adapter"), tmp_path / "made.gguf")
    assert re.fullmatch(rf"`{re.escape(str(tmp_path))}` needs \d+ kB, and its disk has 1 kB free", caught.value.message)
    assert caught.value.hint == "free some space, or choose another place"
    assert not list(tmp_path.glob("*made*"))


@pytest.mark.parametrize("exported", ["merged_gguf", "lora_gguf"])
def test_a_disk_that_fills_up_meanwhile_is_said_and_nothing_is_left(exported: str, tiny_gguf: Path, tmp_path: Path) -> None:
    """A file system on which there is room for the file's beginning, and not for its end."""
    place, adapter = tmp_path / "small", write_adapter(tmp_path / "adapter", rank=64)
    code = (
        "import sys; from pathlib import Path; from nomoat import system_errors; from nomoat.tune import export\n"
        "system_errors.require_free_disk = lambda *_: None\n"
        f"export.{exported}(Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]) / 'made.gguf')"
    )
    done = run_on_small_disk(place, [sys.executable, "-c", code, str(tiny_gguf), str(adapter), str(place)])
    assert f"\nnomoat.errors.NotEnoughDiskError: no space left on the disk of `{place}`\n" in done.stderr
    assert done.stdout == "", "files were left behind"


def test_the_merged_file_is_written_tensor_by_tensor(tiny_gguf: Path, tmp_path: Path) -> None:
    """So that one of them is in memory at a time."""
    written: list[int] = []

    def progress(done: int, total: int) -> None:
        written.append(next(tmp_path.glob(".made.gguf.*.part")).stat().st_size)

    made = export.merged_gguf(tiny_gguf, write_adapter(tmp_path / "adapter"), tmp_path / "made.gguf", progress=progress)
    assert len(written) == len(GGUFFile(tiny_gguf).tensors)
    assert 0 < written[len(written) // 2] < 0.8 * made.stat().st_size


def test_the_command_writes_a_file_and_a_modelfile_that_names_it(tmp_path: Path) -> None:
    from nomoat import paths

    weights = write_gguf(tmp_path / "base.gguf", CASES["llama"], make_model(CASES["llama"]))
    make_adapter(paths.adapters() / "mine", weights)
    result = CliRunner().invoke(app, ["export", f"{weights}+mine", "-o", str(tmp_path / "out"), "--form", "ollama"])
    assert result.exit_code == 0, result.output
    assert (tmp_path / "out" / "Modelfile").read_text().startswith("FROM ./mine.gguf\n")
    written = GGUFFile(tmp_path / "out" / "mine.gguf")
    assert written.tensor("blk.0.attn_q.weight").type_name == gguf.GGMLQuantizationType.Q8_0.name


@pytest.mark.parametrize("named", [None, "alpaca"])
def test_the_merged_file_has_the_base_s_templates_or_the_one_it_was_tuned_with(named: str | None, tmp_path: Path) -> None:
    from nomoat import paths

    own = {"default": "D {{ messages[0].content }}", "tool_use": "T {{ tools | length }}{{ messages[0].tool_calls }}"}
    weights = write_tiny_gguf(tmp_path / "base.gguf", template=[{"name": name, "template": text} for name, text in own.items()])
    adapter = write_adapter(paths.adapters() / "mine")
    if named is not None:
        facts = {"task": {"template": named}, "licence": licences.as_dict(licences.chain(None))}
        (adapter / "provenance.json").write_text(json.dumps(facts))
    result = CliRunner().invoke(app, ["export", f"{weights}+mine", "-o", str(tmp_path / "out.gguf")])
    assert result.exit_code == 0, result.output
    base, merged = (GGUFFile(path).read_tokenizer() for path in (weights, tmp_path / "out.gguf"))
    if named is not None:
        base.use_template(named)
    for tools in ([], ["{}"]):
        assert merged.template_for(tools) == base.template_for(tools)
    assert (base.template_for(["{}"]) == own["tool_use"]) == (named is None)


def test_the_merged_file_has_the_templates_that_lie_beside_the_adapter(tmp_path: Path) -> None:
    from nomoat import paths

    weights = write_tiny_gguf(tmp_path / "base.gguf")
    adapter = write_adapter(paths.adapters() / "mine")
    own = {"default": "D {{ messages[0].content }}", "tool_use": "T {{ tools | length }}{{ messages[0].tool_calls }}"}
    told = {"chat_template": [{"name": name, "template": text} for name, text in own.items()]}
    (adapter / "tokenizer_config.json").write_text(json.dumps(told))
    result = CliRunner().invoke(app, ["export", f"{weights}+mine", "-o", str(tmp_path / "out.gguf")])
    assert result.exit_code == 0, result.output
    assert GGUFFile(tmp_path / "out.gguf").read_tokenizer().templates == own


@pytest.mark.parametrize(("name", "given"), [("mine.v1", "mine.v1"), ("가게", "tuned")])
def test_the_next_command_is_one_that_the_shell_and_ollama_take(name: str, given: str, tmp_path: Path) -> None:
    """Ollama's names are of ASCII letters, and a folder's may have a space."""
    from nomoat import paths

    weights = write_gguf(tmp_path / "base.gguf", CASES["llama"], make_model(CASES["llama"]))
    make_adapter(paths.adapters() / name, weights)
    output = tmp_path / "my out"
    result = CliRunner().invoke(app, ["export", f"{weights}+{name}", "-o", str(output), "--form", "ollama"])
    assert result.exit_code == 0, result.output
    command = commands.as_line(["ollama", "create", given, "-f", str(output / "Modelfile")])
    assert f"wrote {output / 'Modelfile'}; next: {command}\n" in result.stderr


def test_data_a_teacher_wrote_are_nobodys_own(tmp_path: Path) -> None:
    base, told = write_tiny_gguf(tmp_path / "base.gguf"), []
    teacher = Parent(kind="teacher", name="openai:gpt-4o", licence="openai-assistant")
    for licence, teachers in (("own", ()), ("own", (teacher,)), ("cc-by-4.0", (teacher,))):
        found = licence_chain(base, [licences.stated_data("d.jsonl", licence)], teachers, None)
        told.append([link.licence for link in found.links[1:]])
    assert told == [["own"], ["openai-assistant"], ["cc-by-4.0", "openai-assistant"]]


@pytest.mark.parametrize("licence", ["cc-by-nc-4.0", "apache-2.0"])
def test_terms_that_the_user_stated_of_data_are_unconfirmed_and_say_who_stated_them(licence: str, tmp_path: Path) -> None:
    base = write_tiny_gguf(tmp_path / "base.gguf")
    data = licence_chain(base, [licences.stated_data("d.csv", licence)], (), None).links[1]
    assert (data.licence, data.source, data.confirmed) == (licence, "stated by the user", "memory")


@pytest.mark.parametrize("form", ["gguf", "lora", "ollama"])
@pytest.mark.parametrize(("data", "commercial"), [("own", "unknown"), ("cc-by-nc-4.0", "no")])
def test_the_terms_of_what_was_learned_go_with_the_file(
    form: str, data: str, commercial: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The base's file claims `general.license`, and no card knows it: what may be done is said beside the exported file, and in it."""
    from nomoat import paths, references

    class Licensed(gguf.GGUFWriter):
        def __init__(self, path: str, arch: str) -> None:
            super().__init__(path, arch)
            self.add_license("apache-2.0")
            self.add_license_name("Apache")

    with monkeypatch.context() as patched:
        patched.setattr(gguf, "GGUFWriter", Licensed)
        base = write_tiny_gguf(tmp_path / "base.gguf")
    mine = write_adapter(paths.adapters() / "mine")
    terms = [licences.stated_data("d.csv", data)]
    facts = {"base": str(base), "licence": licences.as_dict(licence_chain(base, terms, (), None))}
    (mine / "provenance.json").write_text(json.dumps(facts))
    output = tmp_path / "out.gguf"
    done = CliRunner().invoke(app, ["export", f"{base}+mine", "-o", str(output), "--form", form])
    assert done.exit_code == 0 and f"commercial use: {commercial}" in done.stderr
    beside = json.loads(output.with_name("out.gguf.provenance.json").read_text()) if form != "ollama" else None
    assert beside is None or beside["licence"]["commercial"] == commercial
    if form == "lora":
        return
    made = output / "mine.gguf" if form == "ollama" else output
    claims = {key: value for key, value in GGUFFile(made).metadata.items() if key.startswith("general.license")}
    title = {"own": "terms not known", "cc-by-nc-4.0": "Creative Commons BY-NC 4.0"}[data]
    assert claims == {"general.license": "other", "general.license.name": f"commercial use: {commercial} ({title})"}
    shown = json.loads(CliRunner().invoke(app, ["show", str(made), "--json"]).stdout)
    assert (shown["licence"]["commercial"], len(shown["licence"]["links"])) == (commercial, 2)
    assert "claims the licence" not in CliRunner().invoke(app, ["show", str(made)]).stdout  # it is this very chain's
    named = {"own": "the maker's own data", "cc-by-nc-4.0": "Creative Commons BY-NC 4.0"}[data]
    assert [link["title"] for link in shown["licence"]["links"] if link["role"] == "data"] == [named]
    assert licence_chain(made, [licences.stated_data("d.csv", "own")], (), None).commercial == commercial
    made.write_bytes(base.read_bytes())  # another file under its name
    assert references.weights_chain(made).links[0].name == "weights of unknown origin"
    assert len(references.weights_chain(made).links) == 1
    assert "claims the licence apache-2.0 (Apache), which nobody" in CliRunner().invoke(app, ["show", str(made)]).stdout


@pytest.mark.parametrize("form", ["gguf", "lora", "ollama"])
def test_the_words_of_its_table_go_with_the_file(form: str, tiny_gguf: Path, empty_home: Path, tmp_path: Path) -> None:
    """A table's model answers other words with nonsense; the file has what it learned in it, and so its facts are beside it."""
    from nomoat import paths, references
    from nomoat.asking import as_tuned

    mine = write_adapter(paths.adapters() / "mine")
    write_learned(mine, "ham", "spam", instruction="Which is it?")
    output = tmp_path / "out.gguf"
    done = CliRunner().invoke(app, ["export", f"{tiny_gguf}+mine", "-o", str(output), "--form", form])
    line = r'asked in these words, with a text in place of {text}: "Which is it?\n\nText: {text}\nLabel:"'
    assert line in done.stderr.splitlines()
    made = output / "mine.gguf" if form == "ollama" else output
    beside = json.loads(made.with_name(f"{made.name}.provenance.json").read_text())
    assert (beside["adapter"], beside["base_sha256"]) == ("mine", paths.sha256_of(tiny_gguf))
    assert form != "ollama" or (output / "Modelfile").read_text().startswith(f"# {line}\nFROM ./mine.gguf\n")
    if form == "lora":
        return
    ref = str(made)
    whole = "Which is it?\n\nText: Win cash\nLabel:"
    asked = [CliRunner().invoke(app, ["run", ref, *words, "-n", "2", "--json"]) for words in (["--as-tuned", "Win cash"], [whole])]
    assert len({json.loads(one.stdout)["usage"]["prompt_tokens"] for one in asked}) == 1
    assert "asked in other words" in CliRunner().invoke(app, ["run", ref, "Win cash", "-n", "2"]).stderr
    assert line in CliRunner().invoke(app, ["show", ref]).stdout.splitlines()
    (learned,) = as_tuned.learned_by([ref])
    assert (learned.labels, learned.instruction, learned.question) == (
        {"ham", "spam"},
        "Which is it?",
        whole.replace("Win cash", "{text}"),
    )
    made.write_bytes(tiny_gguf.read_bytes())  # another file under its name
    assert references.find_files(ref).question is None and as_tuned.learned_by([ref]) == []


@pytest.mark.parametrize("form", ["gguf", "lora", "ollama"])
def test_what_is_there_is_replaced_only_if_asked_and_the_base_never(form: str, tmp_path: Path) -> None:
    from nomoat import paths

    base = write_tiny_gguf(tmp_path / "mine.gguf")
    before = base.read_bytes()
    write_adapter(paths.adapters() / "mine")

    def run(output: Path, *more: str) -> str:
        result = CliRunner().invoke(app, ["export", f"{base}+mine", "-o", str(output), "--form", form, *more])
        return str(result.exception) if result.exit_code else "written"

    of_base = tmp_path if form == "ollama" else base
    for more in ((), ("--replace",)):
        assert run(of_base, *more) == f"`{base}` is the base itself, which the tuned model is made of"
    output = tmp_path / "out.gguf"
    target = output / "mine.gguf" if form == "ollama" else output
    assert run(output) == "written"
    first = target.stat().st_ino
    assert run(output) == f"`{target}` is there already"
    assert (target.stat().st_ino, base.read_bytes()) == (first, before)
    assert run(output, "--replace") == "written"
    assert target.stat().st_ino != first
    if form == "ollama":
        target.unlink()
        assert run(output) == f"`{output / 'Modelfile'}` is there already"


@pytest.mark.parametrize("form", ["gguf", "lora"])
def test_a_file_gets_the_ending_by_which_it_is_known(tiny_gguf: Path, tmp_path: Path, form: str) -> None:
    """`BASE+FILE` is an adapter by it, and other programs list no file without; a name may have a point of its own."""
    from nomoat import paths

    write_adapter(paths.adapters() / "mine")
    for name, made in (("qwen2.5-mine", "qwen2.5-mine.gguf"), ("MINE.GGUF", "MINE.GGUF")):
        result = CliRunner().invoke(app, ["export", f"{tiny_gguf}+mine", "-o", str(tmp_path / name), "--form", form])
        assert f"wrote {tmp_path / made} (" in result.stderr
        assert (tmp_path / made).is_file() and (made == name or not (tmp_path / name).exists())


def test_a_folder_is_no_file_to_export_to(tiny_gguf: Path, tmp_path: Path) -> None:
    from nomoat import paths

    write_adapter(paths.adapters() / "mine")
    result = CliRunner().invoke(app, ["export", f"{tiny_gguf}+mine", "-o", str(tmp_path), "--replace"])
    assert str(result.exception) == f"`{tmp_path}` is a folder"


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="a system without such pipes")
def test_a_pipe_is_no_file_to_export_to(tiny_gguf: Path, tmp_path: Path) -> None:
    """The terms that are written beside a file name its sha256: it is read again."""
    from nomoat import paths

    write_adapter(paths.adapters() / "mine")
    os.mkfifo(tmp_path / "pipe")
    result = CliRunner().invoke(app, ["export", f"{tiny_gguf}+mine", "-o", str(tmp_path / "pipe"), "--replace"])
    assert str(result.exception) == f"`{tmp_path / 'pipe'}` is a pipe or a device, and a model is a file"


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="a system without such links")
def test_a_log_that_stdout_goes_to_is_no_file_to_export_to(tiny_gguf: Path, tmp_path: Path) -> None:
    from nomoat import paths

    write_adapter(paths.adapters() / "mine")
    with (tmp_path / "log").open("w") as log:
        (tmp_path / "stdout").symlink_to(f"/proc/self/fd/{log.fileno()}")
        result = CliRunner().invoke(app, ["export", f"{tiny_gguf}+mine", "-o", str(tmp_path / "stdout"), "--replace"])
    assert str(result.exception) == f"`{tmp_path / 'stdout'}` is a pipe or a device, and a model is a file"


def test_a_quantisation_may_be_named_in_small_letters(tiny_gguf: Path, empty_home: Path, tmp_path: Path) -> None:
    """As llama.cpp takes it."""
    write_adapter(empty_home / "adapters" / "mine")
    made = [tmp_path / "small.gguf", tmp_path / "large.gguf"]
    for name, path in zip(("bf16", "BF16"), made, strict=True):
        result = CliRunner().invoke(app, ["export", f"{tiny_gguf}+mine", "-o", str(path), "--quantisation", name])
        assert result.exit_code == 0, result.exception
    assert made[0].read_bytes() == made[1].read_bytes()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["BASE"], "is not tuned"),
        (["BASE+mine", "--quantisation", "Q9"], "`Q9` is no quantisation that can be written"),
        (["BASE+mine", "--form", "lora", "--quantisation", "Q4_0"], "an adapter alone is written as it is"),
    ],
)
def test_what_cannot_be_exported_is_said(tiny_gguf: Path, tmp_path: Path, arguments: list[str], message: str) -> None:
    arguments = [argument.replace("BASE", str(tiny_gguf)) for argument in arguments]
    result = CliRunner().invoke(app, ["export", *arguments, "-o", str(tmp_path / "x.gguf")])
    assert message in str(result.exception)


@pytest.mark.parametrize("form", ["gguf", "lora", "ollama"])
def test_a_disk_that_fills_up_leaves_no_weights_without_their_terms(form: str, tiny_gguf: Path, tmp_path: Path) -> None:
    """Nor a Modelfile whose weights are not there; what was there stays."""
    from nomoat import paths
    from nomoat.catalog import sidecar

    write_adapter(paths.adapters() / "mine")
    output = tmp_path / "new" / "out"
    arguments = ["export", f"{tiny_gguf}+mine", "-o", str(output), "--form", form]

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    def files() -> dict[Path, bytes]:
        return {path: path.read_bytes() for path in output.parent.rglob("*") if path.is_file()}

    for more in ((), ("--replace",)):
        before = files()
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(sidecar, "_beside", full)
            result = CliRunner().invoke(app, [*arguments, *more])
        assert str(result.exception) == f"no space left on the disk of `{output if form == 'ollama' else output.parent}`"
        assert files() == before
        assert output.parent.exists() == bool(before)
        assert CliRunner().invoke(app, [*arguments, *more]).exit_code == 0


@pytest.mark.parametrize("form", ["gguf", "ollama"])
def test_a_file_is_no_folder_to_export_into(form: str, tiny_gguf: Path) -> None:
    from nomoat import paths

    write_adapter(paths.adapters() / "mine")
    output = tiny_gguf / "x.gguf" if form == "gguf" else tiny_gguf
    result = CliRunner().invoke(app, ["export", f"{tiny_gguf}+mine", "-o", str(output), "--form", form])
    assert str(result.exception) == f"`{tiny_gguf}` is a file, not a folder"
