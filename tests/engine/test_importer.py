"""The cache of imported models, and adapters baked into them."""

from __future__ import annotations

import errno
import json
import math
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import psutil
import pytest
import torch
from patience import wait_until
from reference import write_folder
from safetensors.numpy import load_file, save_file
from safetensors.torch import load_file as load_as_torch_does
from safetensors.torch import save_file as save_as_torch_does
from tiny import TEMPLATE, write_adapter, write_tiny_gguf
from tokenizers import Tokenizer as Backend
from tokenizers.processors import TemplateProcessing

from nomoat import footprint, paths
from nomoat.engine import arch as architectures
from nomoat.engine import compiled, imported, importer, lora
from nomoat.engine.local import LocalEngine
from nomoat.engine.lora import LoraDelta
from nomoat.engine.source import ModelSource
from nomoat.errors import BadFileError, NotEnoughDiskError, NotEnoughMemoryError, NotWritableError, UnsupportedError
from nomoat.records import Request


def likelihood(folder: Path) -> float:
    engine = LocalEngine(folder)
    (score,) = engine.score(Request(prompt="the hello"), [" he"])
    engine.close()
    return score.log_probability


def test_a_second_import_finds_the_first_by_content(tiny_gguf: Path, tmp_path: Path) -> None:
    first = importer.import_gguf(tiny_gguf)
    copy = tmp_path / "renamed.gguf"
    copy.write_bytes(tiny_gguf.read_bytes())
    made = (first / "config.json").stat().st_mtime_ns
    assert importer.import_gguf(copy) == first
    assert (first / "config.json").stat().st_mtime_ns == made


def test_other_weights_under_the_same_name_are_imported_anew(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    write_tiny_gguf(path, arch="llama")
    first = importer.import_gguf(path)
    write_tiny_gguf(path, arch="qwen2")
    assert importer.import_gguf(path) != first


def test_what_an_older_version_imported_of_the_same_weights_goes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, other = tmp_path / "model.gguf", tmp_path / "other.gguf"
    write_tiny_gguf(path, arch="llama")
    write_tiny_gguf(other, arch="qwen2")
    with monkeypatch.context() as patch:
        patch.setattr(imported, "VERSION", "9")
        old, of_other = importer.import_gguf(path), importer.import_gguf(other)
        baked = importer.import_gguf(path, adapter=write_adapter(tmp_path / "a"))
        patch.setattr(imported, "VERSION", "1")
        first = importer.import_gguf(path, quality="high")
    told = json.loads((first / "config.json").read_text())
    del told["nomoat"]["layout"]  # which was not always said
    (first / "config.json").write_text(json.dumps(told))
    with monkeypatch.context() as patch:
        patch.setattr(imported, "VERSION", str(int(imported.VERSION) + 1))
        newer = importer.import_gguf(other)
    high = importer.import_gguf(path, quality="high")
    new = importer.import_gguf(path)
    assert [folder.exists() for folder in (old, baked, first, of_other, high, new)] == [False, False, False, False, True, True]
    importer.import_gguf(other)
    assert newer.exists()  # where two versions share a home, neither makes its own anew at each turn


def of_gguf(path: Path) -> Path:
    """A file in whose codes nomoat's own passes multiply."""
    templates = [{"name": "default", "template": TEMPLATE}, {"name": "tool_use", "template": f"{{{{ tools }}}}{TEMPLATE}"}]
    return write_tiny_gguf(path / "model.gguf", type_name="Q8_0", template=templates)


def of_folder(path: Path) -> Path:
    """A folder that OpenVINO runs, whose tokens are said in several places."""
    folder = write_folder(path / "model", "llama")[1]
    settings, tokens = folder / "tokenizer_config.json", folder / "tokenizer.json"
    told = json.loads(settings.read_text())
    settings.write_text(json.dumps({**told, "pad_token": "!", "additional_special_tokens": ["<|new|>"]}))
    begun = TemplateProcessing(single="<|im_start|> $A", special_tokens=[("<|im_start|>", 1)])
    backend = Backend.from_file(str(tokens))
    backend.post_processor = begun
    backend.save(str(tokens))
    (folder / "additional_chat_templates").mkdir()
    (folder / "additional_chat_templates" / "tool_use.jinja").write_text("{{ tools }}{{ messages }}")
    return folder


def written(folder: Path) -> str:
    """A digest of what an import holds, without what comes of the weights, of the machine, or of OpenVINO's way to write a graph."""
    told = {}
    for name in (*importer.CHECKED, "config.json"):
        text = re.sub(r'"at": \[\d+, \d+\]', '"at": []', (folder / name).read_text(encoding="utf-8"))
        told[name] = json.loads(text, parse_float=lambda number: f"{float(number):.5g}")  # CPUs differ in the last digits of powers
    for name in ("digest", "layout", "source_sha256", "files", "crc32"):
        del told["config.json"]["nomoat"][name]
    graph, steps, ends = ElementTree.parse(folder / "openvino_model.xml"), [], dict[str | None, list[str | None]]()
    for step in graph.iter("layer"):
        name, data = re.sub(r"_\d+$", "", step.get("name", "")), step.find("data")
        attributes = {} if data is None else {key: value for key, value in data.items() if key not in ("offset", "size")}
        shapes = [[port.get("id"), port.get("precision"), *(size.text for size in port.iter("dim"))] for port in step.iter("port")]
        ends[step.get("id")] = [step.get("type"), name]
        steps.append([step.get("type"), name, attributes, shapes])
    for edge in graph.iter("edge"):
        places = [[*ends[edge.get(f"{end}-layer")], edge.get(f"{end}-port")] for end in ("from", "to")]
        steps.append(["edge", *places])
    return paths.sha256_of_texts(json.dumps(told, sort_keys=True), *sorted(map(json.dumps, steps)))[:16]


@pytest.mark.parametrize(("make", "digest"), [(of_gguf, "da42da7a43489357"), (of_folder, "b9927bf1c7418d11")])
def test_a_version_is_one_of_what_an_import_holds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make: Callable[[Path], Path], digest: str
) -> None:
    """Not covered: the numbers that are computed of the weights."""
    monkeypatch.setattr(footprint, "FEW_WEIGHTS", 0)
    monkeypatch.setattr(footprint, "has_native_kernels", lambda: make is of_gguf)
    found = written(importer.import_gguf(make(tmp_path), quality="default", here=True))
    assert (imported.VERSION, found) == ("25", digest), (
        "what an import holds has changed: give `imported.VERSION` the next number, else what is here already is used as it is; "
        "then write number and digest here. The digest alone where another OpenVINO or `tokenizers` has changed it"
    )


def test_a_fresh_adapter_leaves_the_model_unchanged_and_a_strong_one_does_not(tiny_gguf: Path, tmp_path: Path) -> None:
    base = likelihood(importer.import_gguf(tiny_gguf))
    fresh = importer.import_gguf(tiny_gguf, adapter=write_adapter(tmp_path / "fresh", strength=0.0))
    strong = importer.import_gguf(tiny_gguf, adapter=write_adapter(tmp_path / "strong", strength=1.0))
    assert likelihood(fresh) == pytest.approx(base, abs=1e-5)
    assert abs(likelihood(strong) - base) > 0.1


def test_the_same_matrices_with_another_scale_are_another_model(tiny_gguf: Path, tmp_path: Path) -> None:
    """Beside the weights, too. With the usual scale an adapter is known by its weights alone."""
    folder = write_adapter(tmp_path / "a")
    usual, base = LoraDelta(folder).sha256, importer.import_gguf(tiny_gguf, fused=False)
    assert usual == paths.sha256_of(folder / "adapter_model.safetensors")
    settings = json.loads((folder / "adapter_config.json").read_text())
    digests, folders = set(), set()
    for change in ({}, {"lora_alpha": 4}, {"use_rslora": True}):
        (folder / "adapter_config.json").write_text(json.dumps(settings | change))
        digests |= {LoraDelta(folder).sha256, LocalEngine(base, beside=[folder]).adapted(0).digest}
        folders.add(importer.import_gguf(tiny_gguf, adapter=folder))
    assert (len(digests), len(folders)) == (6, 3)
    importer.forget(folder)
    assert sorted(made.exists() for made in folders) == [False, True, True]


def test_an_adapter_of_experts_with_the_usual_scale_is_known_by_its_weights_alone(tmp_path: Path) -> None:
    folder = write_adapter(tmp_path / "a", parts={"mlp.experts": (64, 32)})
    assert LoraDelta(folder).sha256 == paths.sha256_of(folder / "adapter_model.safetensors")


def test_an_adapter_of_other_sizes_is_refused_by_its_layer(tiny_gguf: Path, tmp_path: Path) -> None:
    """One of more rows, too, of which the first ones would fit."""
    folder = write_adapter(tmp_path / "large", parts={"mlp.down_proj": (128, 128)})
    with pytest.raises(BadFileError) as caught:
        importer.import_gguf(tiny_gguf, adapter=folder)
    assert caught.value.message == (
        f"`{folder / 'adapter_model.safetensors'}` changes `model.layers.0.mlp.down_proj` as one of [128, 128], "
        "and the model's is [64, 128]"
    )
    assert caught.value.hint == "an adapter fits only the model it was tuned on"


def test_an_adapter_of_another_model_is_refused_by_the_name_of_its_own(tiny_gguf: Path, tmp_path: Path) -> None:
    config = write_adapter(tmp_path / "large", parts={"mlp.down_proj": (128, 128)}) / "adapter_config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "base_model_name_or_path": "smollm2-135m"}))
    with pytest.raises(BadFileError) as caught:
        importer.import_gguf(tiny_gguf, adapter=config.parent)
    assert caught.value.hint == "an adapter fits only the model it was tuned on, `smollm2-135m`"


def test_an_adapter_of_an_output_layer_that_is_the_embedding_too_is_refused(tiny_gguf: Path, tmp_path: Path) -> None:
    """PEFT adds it to the output alone, and beside the weights an output layer has none."""
    folder = write_adapter(tmp_path / "a")
    path = folder / "adapter_model.safetensors"
    names = {part: f"base_model.model.lm_head.lora_{part}.weight" for part in "AB"}
    save_file({names["A"]: np.ones((4, 64), np.float32), names["B"]: np.ones((264, 4), np.float32)}, path)
    with pytest.raises(UnsupportedError, match="changes `lm_head`, and this model's is its embedding, too"):
        importer.import_gguf(tiny_gguf, adapter=folder)
    with pytest.raises(UnsupportedError, match="changes `lm_head`, which one beside the weights cannot here"):
        next(LocalEngine(importer.import_gguf(tiny_gguf, fused=False), beside=[folder]).generate(Request(prompt="x")))


def test_an_adapter_for_layers_that_are_not_there_is_refused_and_nothing_is_left(tiny_gguf: Path, tmp_path: Path) -> None:
    folder = write_adapter(tmp_path / "other", layers=[7], parts={"mlp.down_proj": (64, 128)})
    with pytest.raises(BadFileError) as caught:
        importer.import_gguf(tiny_gguf, adapter=folder)
    assert caught.value.message == (
        f"`{folder / 'adapter_model.safetensors'}` changes layers this model does not have: model.layers.7.mlp.down_proj"
    )
    assert list((paths.cache() / "imported").iterdir()) == []


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: (folder / "adapter_model.safetensors").write_bytes(b"cut"), "is not a whole safetensors file: it has 3 bytes"),
        (
            lambda folder: (folder / "adapter_model.safetensors").unlink(),
            "is not a whole adapter folder: it holds no `adapter_model.safetensors`",
        ),
        (lambda folder: (folder / "adapter_config.json").write_text("[1]"), "`.*adapter_config.json` holds no JSON object"),
        (lambda folder: (folder / "adapter_config.json").write_text("{}"), "`.*adapter_config.json` does not say its `peft_type`"),
        (
            lambda folder: save_file(
                {"x.lora_A.weight": np.ones((4, 128)), "x.lora_B.weight": np.ones((64, 3))}, folder / "adapter_model.safetensors"
            ),
            r"the matrices of `x` in .* do not go together: \[4, 128\] and \[64, 3\]",
        ),
        (
            lambda folder: save_file({"x": np.full(3, np.nan)}, folder / "adapter_model.safetensors"),
            "holds values that are no weights",
        ),
        (lambda folder: save_file({}, folder / "adapter_model.safetensors"), "holds no LoRA matrices"),
        (
            lambda folder: save_file({"x.lora_embedding_A": np.ones((4, 9))}, folder / "adapter_model.safetensors"),
            "holds `x.lora_embedding_A`, which is no LoRA matrix",
        ),
        (
            lambda folder: save_file(
                {f"x.lora_{part}.weight": np.ones((4, 4)) for part in "AB"} | {"lm_head.weight": np.ones((4, 4))},
                folder / "adapter_model.safetensors",
            ),
            "holds `lm_head.weight`, which is no LoRA matrix",
        ),
        (
            lambda folder: save_file(
                {"x.lora_A.weight": np.ones((0, 4)), "x.lora_B.weight": np.ones((4, 0))}, folder / "adapter_model.safetensors"
            ),
            r"the matrices of `x` in .* do not go together: \[0, 4\] and \[4, 0\]",
        ),
    ],
)
def test_a_damaged_adapter_is_named(tiny_gguf: Path, tmp_path: Path, damage: Callable[[Path], Any], message: str) -> None:
    folder = write_adapter(tmp_path / "broken")
    damage(folder)
    with pytest.raises(BadFileError, match=message) as caught:
        importer.import_gguf(tiny_gguf, adapter=folder)
    if "not a whole" in message:
        assert caught.value.hint == "tune it again with `nomoat tune`, or download it again"


@pytest.mark.parametrize("half", ["A", "B"])
def test_a_matrix_without_its_partner_is_named(tmp_path: Path, half: str) -> None:
    """Left out with it, the layer would answer as if it had not been tuned."""
    path = write_adapter(tmp_path / "half") / "adapter_model.safetensors"
    tensors = load_file(path)
    lost = [name for name in tensors if f"mlp.down_proj.lora_{half}" in name]
    save_file({name: tensor for name, tensor in tensors.items() if name not in lost}, path)
    with pytest.raises(BadFileError) as caught:
        LoraDelta(path.parent)
    assert len(lost) == 2
    assert caught.value.message == (f"`{path}` lacks 2 tensors of {len(tensors)}: {lost[0]}, {lost[1]}; its answers would be wrong")
    assert caught.value.hint == "tune it again with `nomoat tune`, or download it again"


TAKES_LONG = "a regular expression that takes too long"


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ({"lora_alpha": math.nan}, "says NaN as `lora_alpha`, which is no number that weights can be multiplied by"),
        ({"lora_alpha": -math.inf}, "says -Infinity as `lora_alpha`, which is no number that weights can be multiplied by"),
        ({"lora_alpha": 1e30}, "says 1e+30 as `lora_alpha`, which is no number that weights can be multiplied by"),
        ({"lora_alpha": None}, "says null as `lora_alpha`, which is no number that weights can be multiplied by"),
        ({"lora_alpha": "16"}, 'says "16" as `lora_alpha`, which is no number that weights can be multiplied by'),
        ({"lora_alpha": True}, "says true as `lora_alpha`, which is no number that weights can be multiplied by"),
        ({"r": "8"}, 'says "8" as `r`, which is no rank: a whole number from 1 to 1,048,576'),
        ({"r": None}, "says null as `r`, which is no rank: a whole number from 1 to 1,048,576"),
        ({"r": 0}, "says 0 as `r`, which is no rank: a whole number from 1 to 1,048,576"),
        ({"r": 2**20 + 1}, "says 1048577 as `r`, which is no rank: a whole number from 1 to 1,048,576"),
        ({"alpha_pattern": [1]}, "says [1] as `alpha_pattern`, which is no object of names and numbers"),
        ({"target_parameters": 5}, "says 5 as `target_parameters`, which is no list of names"),
        ({"target_parameters": True}, "says true as `target_parameters`, which is no list of names"),
        ({"target_parameters": "mlp.gate.weight"}, 'says "mlp.gate.weight" as `target_parameters`, which is no list of names'),
        ({"alpha_pattern": {"x": "4"}}, 'says "4" as `alpha_pattern.x`, which is no number that weights can be multiplied by'),
        ({"alpha_pattern": {"x(": 4}}, 'says "x(" as `alpha_pattern`, which is no regular expression'),
        ({"alpha_pattern": {"(([a-z]|.)+)+[X-Z]": 4}}, f'says "(([a-z]|.)+)+[X-Z]" as `alpha_pattern`, which is {TAKES_LONG}'),
        (
            {"alpha_pattern": {"(a?{900}b{0}){2,900}": 4}},
            f'says "(a?{{900}}b{{0}}){{2,900}}" as `alpha_pattern`, which is {TAKES_LONG}',
        ),
        (
            {"alpha_pattern": {f"(?:{'a?b?' * 50}){{1000}}": 4}},  # of 40 MB
            f'says "(?:{"a?b?" * 50}'[:85] + f" as `alpha_pattern`, which is {TAKES_LONG}",
        ),
        (
            {"alpha_pattern": {f"({'a?b?' * 10}{number}){{1000}}": 4 for number in range(3)}},
            f'says "({"a?b?" * 10}2){{1000}}" as `alpha_pattern`, which is {TAKES_LONG}',
        ),
        ({"alpha_pattern": {"a|" * 60_000: 4}}, f'says "{"a|" * 40}'[:85] + f" as `alpha_pattern`, which is {TAKES_LONG}"),
        (
            {"alpha_pattern": {"(?x:(?:a?{99 9}){9 99})": 4}},
            'says "(?x:(?:a?{99 9}){9 99})" as `alpha_pattern`, which is no regular expression of layers, whose names have no spaces',
        ),
    ],
)
def test_a_number_of_an_adapter_that_cannot_be_meant_is_told_by_its_key(tmp_path: Path, setting: dict[str, Any], said: str) -> None:
    """Python reads and writes `NaN` and `Infinity` as JSON."""
    path = write_adapter(tmp_path / "a") / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | setting))
    with pytest.raises(BadFileError) as caught:
        LoraDelta(path.parent)
    assert caught.value.message == f"`{path}` {said}"


@pytest.mark.parametrize(
    "pattern",
    [
        "|".join(rf"layers\.{number}\d{{0,2}}\.self_attn\.q_proj" for number in range(10)),
        r"layers\.[0-9]{1,2}\.self_attn\..{0,2000}q_proj",
        r"(?:\w{1,30}\.){1,30}q_proj",
    ],
)
def test_counts_of_a_regular_expression_that_are_not_within_each_other_are_many(pattern: str, tmp_path: Path) -> None:
    path = write_adapter(tmp_path / "a") / "adapter_config.json"
    read = json.loads(path.read_text())
    path.write_text(json.dumps(read | {"alpha_pattern": {pattern: 3}}))
    layer = "model.layers.0.self_attn.q_proj"
    changed, usual = (LoraDelta(folder).scaled(layer) for folder in (path.parent, write_adapter(tmp_path / "usual")))
    assert changed is not None and usual is not None
    np.testing.assert_allclose(changed[1], usual[1] * 3 / read["lora_alpha"], rtol=1e-5)


@pytest.mark.parametrize("key", ["r", "lora_alpha"])
def test_an_adapter_that_does_not_say_a_number_is_told_so(tmp_path: Path, key: str) -> None:
    path = write_adapter(tmp_path / "a") / "adapter_config.json"
    path.write_text(json.dumps({name: value for name, value in json.loads(path.read_text()).items() if name != key}))
    with pytest.raises(BadFileError) as caught:
        LoraDelta(path.parent)
    assert caught.value.message == f"`{path}` does not say its `{key}`"


def test_weights_of_an_adapter_that_the_system_does_not_give_are_not_to_be_made_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read(*_: object, **__: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    path = write_adapter(tmp_path / "a") / "adapter_model.safetensors"
    monkeypatch.setattr(lora, "read_tensors", read)
    with pytest.raises(BadFileError) as caught:
        LoraDelta(path.parent)
    assert caught.value.message == f"`{path}` cannot be read: Input/output error"
    assert caught.value.hint == "check the disk, and who may read the file"


def test_a_config_of_an_adapter_that_the_system_does_not_give_is_not_to_be_made_anew(tmp_path: Path) -> None:
    path = write_adapter(tmp_path / "a") / "adapter_config.json"
    path.unlink()
    path.mkdir()
    with pytest.raises(BadFileError) as caught:
        LoraDelta(path.parent)
    assert re.fullmatch(rf"`{re.escape(str(path))}` cannot be read: (Is a directory|Permission denied)", caught.value.message)
    assert caught.value.hint == "check the disk, and who may read the file"


def hinted_code(folder: Path) -> str:
    with pytest.raises(BadFileError) as caught:
        LoraDelta(folder)
    assert caught.value.hint is not None
    return caught.value.hint.split("`")[1]


def test_weights_of_an_adapter_that_pytorch_wrote_are_named_with_what_writes_them_anew(tmp_path: Path) -> None:
    """As PEFT did until 2023."""
    folder = write_adapter(tmp_path / "a")
    whole, path = LoraDelta(folder).sha256, folder / "adapter_model.safetensors"
    torch.save(load_as_torch_does(path), folder / "adapter_model.bin")
    path.unlink()
    with pytest.raises(BadFileError, match=r"holds no `adapter_model.safetensors`, only `adapter_model.bin`"):
        LoraDelta(folder)
    exec(hinted_code(folder), {})
    assert LoraDelta(folder).sha256 == whole


def test_weights_of_an_adapter_in_parts_are_named_with_what_makes_one_file_of_them(tmp_path: Path) -> None:
    """As `transformers` writes one with a small `max_shard_size`."""
    folder = write_adapter(tmp_path / "a")
    path = folder / "adapter_model.safetensors"
    tensors = load_file(path)
    for at in (0, 1):
        part = {name: tensor for number, (name, tensor) in enumerate(tensors.items()) if number % 2 == at}
        save_file(part, folder / f"adapter_model-0000{at + 1}-of-00002.safetensors")
    (folder / "adapter_model.safetensors.index.json").write_text("{}")
    path.unlink()
    with pytest.raises(BadFileError, match="holds its weights in several files"):
        LoraDelta(folder)
    exec(hinted_code(folder), {})
    assert {name: tensor.tolist() for name, tensor in load_file(path).items()} == {
        name: tensor.tolist() for name, tensor in tensors.items()
    }
    assert len(LoraDelta(folder).layers) > 0


def test_an_adapter_s_own_name_in_those_of_its_tensors_is_passed_over(tmp_path: Path) -> None:
    """As the state of a model within PEFT has it, which some trainers save; of two adapters neither is taken."""
    folder, plain = write_adapter(tmp_path / "a"), LoraDelta(write_adapter(tmp_path / "plain"))
    path = folder / "adapter_model.safetensors"
    tensors = load_file(path)
    for names in (["default"], ["my_task", "default"]):
        save_file({name.replace(".weight", f".{own}.weight"): tensor for name, tensor in tensors.items() for own in names}, path)
        if len(names) == 1:
            found = LoraDelta(folder)
            assert found.layers == plain.layers
            for layer in plain.layers:
                np.testing.assert_array_equal((found.scaled(layer) or (0, 0))[1], (plain.scaled(layer) or (0, 0))[1])
    with pytest.raises(BadFileError) as caught:
        LoraDelta(folder)
    assert caught.value.message == f"`{path}` holds several adapters: default, my_task"
    for names, said in ((["a", "b"], "a, b"), (["a", ""], "a, one without a name")):  # of half the layers each
        layers = sorted({name.partition(".lora_")[0] for name in tensors})
        own = {name: names[layers.index(name.partition(".lora_")[0]) % 2] for name in tensors}
        save_file({name.replace(".weight", f".{own[name]}.weight" if own[name] else ".weight"): tensors[name] for name in own}, path)
        with pytest.raises(BadFileError, match=f"holds several adapters: {said}\n"):
            LoraDelta(folder)
    assert caught.value.hint == "save each into a folder of its own, with PEFT's `save_pretrained`"


def test_merging_is_advised_for_the_kinds_of_adapters_that_peft_can_merge(tmp_path: Path) -> None:
    from peft.mapping import PEFT_TYPE_TO_TUNER_MAPPING

    folder = write_adapter(tmp_path / "a")
    for kind, tuner in PEFT_TYPE_TO_TUNER_MAPPING.items():
        (folder / "adapter_config.json").write_text(json.dumps({"peft_type": kind.value}))
        with pytest.raises(BadFileError) as caught:
            LoraDelta(folder)
        is_advised = (caught.value.hint or "").startswith("merge the adapter")
        assert not is_advised or hasattr(tuner, "merge_and_unload"), kind


@pytest.mark.parametrize(
    ("setting", "message", "hint"),
    [
        ({"init_lora_weights": "pissa"}, r"rests on weights that its start \(`pissa`\) changed", "save it again"),
        ({"init_lora_weights": "pissa_niter_16"}, r"its start \(`pissa_niter_16`\) changed", "save it again"),
        ({"init_lora_weights": "OLoRA"}, r"its start \(`OLoRA`\) changed", "save it again"),
        ({"init_lora_weights": "lora_ga"}, r"its start \(`lora_ga`\) changed", "save it again"),
        ({"init_lora_weights": "corda"}, r"its start \(`corda`\) changed", "save it again"),
        ({"init_lora_weights": "loftq"}, r"its start \(`loftq`\) changed", "merge it with PEFT"),
        ({"alora_invocation_tokens": [5, 6]}, "is an activated LoRA", "ask PEFT or vLLM for its answers"),
        ({"use_dora": True}, "is a LoRA with `use_dora`, which nomoat cannot add", "merge the adapter into its model with PEFT"),
        ({"layer_replication": [[0, 2], [1, 2]]}, "is a LoRA with `layer_replication`", "PEFT cannot merge"),
        ({"peft_type": "IA3"}, "is a `IA3` adapter, and nomoat adds LoRA alone", "merge the adapter"),
        ({"peft_type": "PREFIX_TUNING"}, "is a `PREFIX_TUNING` adapter, and nomoat adds LoRA alone", "PEFT cannot merge"),
    ],
)
def test_an_adapter_that_is_more_than_its_matrices_is_refused(
    tmp_path: Path, setting: dict[str, Any], message: str, hint: str
) -> None:
    """Added to the unchanged base, or to every token, they give wrong answers without a word."""
    folder = write_adapter(tmp_path / "a")
    path = folder / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | setting))
    with pytest.raises(BadFileError, match=message) as caught:
        LoraDelta(folder)
    assert caught.value.hint is not None and caught.value.hint.startswith(hint)


@pytest.mark.parametrize("start", [True, False, None, "gaussian", "eva", "orthogonal"])
def test_other_starts_of_an_adapter_leave_its_base_as_it_is(tmp_path: Path, start: object) -> None:
    """`true` stands as well in what PEFT saves for the whole base (`path_initial_model_for_weight_conversion`)."""
    folder = write_adapter(tmp_path / "a")
    path = folder / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"init_lora_weights": start, "alora_invocation_tokens": None}))
    assert len(LoraDelta(folder).layers) > 0


def test_an_adapter_tuned_with_biases_is_read_where_its_model_has_none(tmp_path: Path) -> None:
    """PEFT saves what biases there are beside the matrices."""
    folder = write_adapter(tmp_path / "a")
    path, weights = folder / "adapter_config.json", folder / "adapter_model.safetensors"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"bias": "all"}))
    assert len(LoraDelta(folder).layers) > 0
    bias = "base_model.model.model.layers.0.self_attn.q_proj.base_layer.bias"
    save_file(load_file(weights) | {bias: np.ones(64, np.float32)}, weights)
    with pytest.raises(BadFileError, match=f"holds `{bias}`, which is no LoRA matrix"):
        LoraDelta(folder)


def test_an_adapter_in_bf16_is_read(tmp_path: Path) -> None:
    """As PEFT saves one of a model that is loaded in bf16."""
    folder = write_adapter(tmp_path / "a", layers=[1], parts={"mlp.down_proj": (64, 128)})
    exact = LoraDelta(folder)
    path = folder / "adapter_model.safetensors"
    save_as_torch_does({name: tensor.bfloat16() for name, tensor in load_as_torch_does(path).items()}, path)
    (layer,) = LoraDelta(folder).layers
    for own, other in zip(LoraDelta(folder).scaled(layer) or (), exact.scaled(layer) or (), strict=True):
        assert own == pytest.approx(other, rel=0.01)


def test_an_unknown_architecture_is_refused_with_the_known_ones(tmp_path: Path) -> None:
    path = write_tiny_gguf(tmp_path / "rwkv.gguf", arch="rwkv6")
    with pytest.raises(UnsupportedError) as caught:
        importer.import_gguf(path)
    assert caught.value.message == "the architecture `rwkv6` is not one that nomoat can import"
    assert caught.value.hint == (
        f"known: {', '.join(sorted(architectures.known()))}; "
        "others may run from their Hugging Face folder with the `convert` extra "
        "(`pip install '.[convert]'` in the checkout of nomoat, best into an environment of its own)"
    )


HERE, ELSEWHERE = 10**9, 0  # bytes from which on another process imports: tiny models are imported by either


@pytest.mark.parametrize("from_bytes", [HERE, ELSEWHERE])
def test_an_interrupted_import_leaves_nothing(tiny_gguf: Path, from_bytes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importer, "ELSEWHERE_FROM_BYTES", from_bytes)

    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        importer.import_gguf(tiny_gguf, progress=stop)
    assert list((paths.cache() / "imported").iterdir()) == []


def test_another_process_imports_what_is_large_so_that_its_memory_goes_with_it(
    tiny_gguf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    how: dict[str, Any] = {"adapter": write_adapter(tmp_path / "mine"), "quality": "high", "fused": False}
    folder = importer.import_gguf(tiny_gguf, **how)
    weights = (folder / "openvino_model.bin").read_bytes()
    shutil.rmtree(folder)
    monkeypatch.setattr(importer, "ELSEWHERE_FROM_BYTES", ELSEWHERE)
    monkeypatch.setattr(importer, "_write_model", lambda *_: pytest.fail("it is imported here"))
    told: list[tuple[int, int]] = []
    assert importer.import_gguf(tiny_gguf, **how, progress=lambda *numbers: told.append(numbers)) == folder
    assert (folder / "openvino_model.bin").read_bytes() == weights
    assert told == [(1, 2), (2, 2)]


def test_without_another_process_it_is_imported_here(tiny_gguf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importer, "ELSEWHERE_FROM_BYTES", ELSEWHERE)
    for executable in (str(tmp_path / "no python"), None):
        monkeypatch.setattr(sys, "executable", executable)
        shutil.rmtree(importer.import_gguf(tiny_gguf))


def elsewhere(monkeypatch: pytest.MonkeyPatch, *, before: str = "", after: str = "") -> None:
    """Another process imports everything, and does these things besides."""
    monkeypatch.setattr(importer, "ELSEWHERE_FROM_BYTES", ELSEWHERE)
    there = importer.IMPORT.replace("path, adapter", f"import os\nfrom nomoat import errors\n{before}\npath, adapter", 1)
    monkeypatch.setattr(importer, "IMPORT", f"{there}\n{after}")


@pytest.mark.parametrize("is_noted", [False, True])
def test_another_process_gets_ready_while_the_file_is_read(
    tiny_gguf: Path, tmp_path: Path, is_noted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also one whose digest is noted already, as of a model of the catalogue, which is compared with what was published."""
    elsewhere(monkeypatch, before=f"open({str(tmp_path / 'ready')!r}, 'x').close()")
    if is_noted:
        importer.remembered_sha256(tiny_gguf)
    open_source = importer.open_source

    def open_when_ready(path: Path) -> ModelSource:
        wait_until((tmp_path / "ready").exists, "get ready")
        return open_source(path)

    monkeypatch.setattr(importer, "open_source", open_when_ready)
    monkeypatch.setattr(importer, "_write_model", lambda *_: pytest.fail("it is imported here"))
    assert (importer.import_gguf(tiny_gguf) / "openvino_model.bin").exists()


def test_what_is_refused_leaves_no_process(tiny_gguf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        assert set(psutil.Process().children()).difference(before)
        raise NotEnoughMemoryError("too large", hint=None)

    elsewhere(monkeypatch)
    before = psutil.Process().children()
    with pytest.raises(NotEnoughMemoryError):
        importer.import_gguf(tiny_gguf, check=refuse)
    assert not set(psutil.Process().children()).difference(before)


needs_signals = pytest.mark.skipif(sys.platform == "win32", reason="its processes end by no signals")


@needs_signals
def test_a_process_that_is_killed_as_it_imports_is_said_and_leaves_nothing(tiny_gguf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    elsewhere(monkeypatch, before="importer._write_model = lambda *_: os.kill(os.getpid(), 9)")
    with pytest.raises(NotEnoughMemoryError, match=r"^a process that nomoat started was killed"):
        importer.import_gguf(tiny_gguf)
    assert list((paths.cache() / "imported").iterdir()) == []


@needs_signals
def test_a_process_that_crashes_after_it_has_imported_all_is_no_error(tiny_gguf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    elsewhere(monkeypatch, after="os.kill(os.getpid(), 15)")
    monkeypatch.setattr(importer, "_write_model", lambda *_: pytest.fail("it is imported here"))
    assert (importer.import_gguf(tiny_gguf) / "openvino_model.bin").exists()


def test_what_fails_in_another_process_is_not_tried_again(tiny_gguf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It may have taken minutes until the disk was full."""
    full = 'raise errors.NotEnoughDiskError("the disk is full", hint="free some")'
    elsewhere(monkeypatch, before=f"def fill(*_):\n    {full}\nimporter._write_model = fill")
    monkeypatch.setattr(importer, "_write_model", lambda *_: pytest.fail("it is imported here"))
    with pytest.raises(NotEnoughDiskError) as caught:
        importer.import_gguf(tiny_gguf)
    assert (caught.value.message, caught.value.hint) == ("the disk is full", "free some")
    assert list((paths.cache() / "imported").iterdir()) == []


def test_what_another_process_does_not_say_fails_here_with_its_own_error(tiny_gguf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise ZeroDivisionError("a bug")

    elsewhere(monkeypatch, before="importer._write_model = None")
    with monkeypatch.context() as patch:
        patch.setattr(importer, "_write_model", fail)
        with pytest.raises(ZeroDivisionError, match=r"^a bug$"):
            importer.import_gguf(tiny_gguf)
    assert list((paths.cache() / "imported").iterdir()) == []
    assert (importer.import_gguf(tiny_gguf) / "openvino_model.bin").exists()


def test_a_bar_that_breaks_is_no_want_of_a_process(tiny_gguf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def breaks(done: int, total: int) -> None:
        raise BrokenPipeError

    elsewhere(monkeypatch)
    monkeypatch.setattr(importer, "_write_model", lambda *_: pytest.fail("it is imported here"))
    with pytest.raises(BrokenPipeError):
        importer.import_gguf(tiny_gguf, progress=breaks)
    assert list((paths.cache() / "imported").iterdir()) == []


def test_a_folder_of_locks_that_fails_hides_no_error(tiny_gguf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    elsewhere(monkeypatch, before='raise errors.NotEnoughDiskError("the disk is full", hint="free some")')
    monkeypatch.setattr("nomoat.whole_files._locked", fail)
    with pytest.raises(NotEnoughDiskError, match=r"^the disk is full\b"):
        importer.import_gguf(tiny_gguf)


def test_a_full_disk_is_said_and_leaves_nothing(tiny_gguf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda path: type("Usage", (), {"free": 1000})())
    said = f"the import of `tiny.gguf` needs 32 MB, and the disk of `{paths.cache() / 'imported'}` has 1 kB free"
    with pytest.raises(NotEnoughDiskError, match=f"^{re.escape(said)}"):
        importer.import_gguf(tiny_gguf)
    assert not list((paths.cache() / "imported").glob("*"))


def test_a_disk_that_gets_full_while_a_model_is_imported_is_told_what_all_of_it_needs(
    tiny_gguf: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not what was lacking of the graph, in a folder that is removed."""
    free = [10**9]
    monkeypatch.setattr("shutil.disk_usage", lambda path: type("Usage", (), {"free": free[0]})())

    def fill(*_: object, **__: object) -> None:
        free[0] = 1000
        raise RuntimeError("Check 'bin_file' failed: Could not write")

    monkeypatch.setattr("openvino.save_model", fill)
    with pytest.raises(NotEnoughDiskError) as caught:
        importer.import_gguf(tiny_gguf)
    there = f"the disk of `{paths.cache() / 'imported'}` has 1 kB free"
    assert caught.value.message == f"the import of `tiny.gguf` needs 32 MB, and {there}"
    assert (caught.value.hint or "").startswith("free some space (`nomoat rm --cache`")
    assert not list((paths.cache() / "imported").glob("*"))


LIMITED = """
import resource, sys
from pathlib import Path
from nomoat.engine import importer, lora
from nomoat.errors import NotWritableError
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
try:
    importer.import_gguf(Path(sys.argv[1]))
except NotWritableError as error:
    print(error.message)
    print(error.hint)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such limit")
def test_a_limit_of_files_lengths_is_said_and_leaves_nothing(tiny_gguf: Path) -> None:
    """`ulimit -f`, or a disk that holds no file of 4 GB: OpenVINO says `iostream error` of it."""
    done = subprocess.run([sys.executable, "-c", LIMITED, str(tiny_gguf)], capture_output=True, text=True, check=True)
    message, hint = done.stdout.splitlines()
    assert message.startswith(f"cannot write `{paths.cache() / 'imported'}") and message.endswith("`: File too large")
    assert "ulimit -f" in hint
    assert list((paths.cache() / "imported").iterdir()) == []


def test_a_damaged_graph_is_named_with_its_folder(tiny_gguf: Path) -> None:
    """Whose file is as long as it was: it is not imported again."""
    folder = importer.import_gguf(tiny_gguf)
    graph = folder / "openvino_model.xml"
    graph.write_bytes(graph.read_bytes().replace(b"<layer ", b"<lawyer ", 1))
    with pytest.raises(BadFileError) as caught:
        compiled.read_graph(folder)
    assert caught.value.message.startswith(f"`{folder}` is not a whole imported model: ")


def cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


@pytest.mark.parametrize("damage", [Path.unlink, cut], ids=["lost", "cut"])
@pytest.mark.parametrize(
    "name", ["openvino_model.bin", "openvino_model.xml", "tokenizer.json", "tokenizer_config.json", "config.json"]
)
def test_a_cache_that_lost_a_file_or_its_end_is_made_again(tiny_gguf: Path, name: str, damage: Callable[[Path], None]) -> None:
    folder = importer.import_gguf(tiny_gguf)
    before = likelihood(folder)
    damage(folder / name)
    assert importer.import_gguf(tiny_gguf) == folder
    assert likelihood(folder) == before


@pytest.mark.parametrize("name", ["native.json", "tokenizer.json", "tokenizer_config.json"])
def test_a_cache_in_which_bytes_are_others_is_made_again(tiny_gguf: Path, name: str) -> None:
    file = importer.import_gguf(tiny_gguf) / name
    whole = file.read_bytes()
    file.write_bytes(whole[:-1] + b"!")
    assert importer.import_gguf(tiny_gguf) == file.parent
    assert file.read_bytes() == whole


@pytest.mark.parametrize("name", ["digest", "sizes", "num_values", "storage", "files"])
def test_a_cache_that_lost_a_fact_is_made_again_and_not_opened_before(tiny_gguf: Path, name: str) -> None:
    config = importer.import_gguf(tiny_gguf) / "config.json"
    before = json.loads(config.read_text(encoding="utf-8"))
    facts = {key: value for key, value in before["nomoat"].items() if key != name}
    config.write_text(json.dumps({**before, "nomoat": facts}), encoding="utf-8")
    if name not in ("files", "num_values"):  # which only the importer asks for
        with pytest.raises(BadFileError) as caught:
            LocalEngine(config.parent)
        assert caught.value.message == f"`{config.parent}` is not a whole imported model: '{name}'"
        assert caught.value.hint == "remove that folder and try again"
    assert importer.import_gguf(tiny_gguf) == config.parent
    assert json.loads(config.read_text(encoding="utf-8")) == before


@pytest.mark.parametrize("from_bytes", [HERE, ELSEWHERE])
def test_processes_that_import_at_once_make_the_model_once_and_leave_nothing_else(tiny_gguf: Path, from_bytes: int) -> None:
    code = (
        "import sys; from pathlib import Path; from nomoat.engine import importer\n"
        f"importer.ELSEWHERE_FROM_BYTES = {from_bytes}\n"
        "importer.import_gguf(Path(sys.argv[1]), progress=lambda done, total: print(done))"
    )
    together = [subprocess.Popen([sys.executable, "-c", code, str(tiny_gguf)], stdout=subprocess.PIPE) for _ in range(3)]
    makers = [bool(process.communicate()[0]) for process in together]
    assert [process.returncode for process in together] == [0, 0, 0]
    assert makers.count(True) == 1
    assert [path.name for path in (paths.cache() / "imported").iterdir()] == [importer.import_gguf(tiny_gguf).name]


def test_what_a_killed_import_left_is_swept_by_the_next(tiny_gguf: Path) -> None:
    folder = importer.import_gguf(tiny_gguf)
    left = folder.with_name(f".{folder.name}.abcdefgh.part")
    folder.rename(left)
    importer.import_gguf(tiny_gguf)
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]


def test_a_home_that_is_a_file_is_said(tiny_gguf: Path, empty_home: Path) -> None:
    empty_home.write_text("")
    with pytest.raises(NotWritableError) as caught:
        importer.import_gguf(tiny_gguf)
    assert caught.value.message.startswith(f"cannot write `{empty_home / 'cache' / 'locks'}{os.sep}")
    assert caught.value.hint == f"check who may write to `{empty_home}`, or set NOMOAT_HOME to a folder of yours"


def test_a_home_whose_models_were_pulled_by_others_and_never_started_is_said(tiny_gguf: Path, empty_home: Path) -> None:
    (empty_home / "models").mkdir(parents=True)
    (empty_home / "cache").write_text("")
    with pytest.raises(NotWritableError) as caught:
        importer.import_gguf(tiny_gguf)
    assert caught.value.hint == (
        f"let who may write to `{empty_home}` start the model once (`nomoat run MODEL hi`), or set NOMOAT_HOME to a folder of yours"
    )


@pytest.mark.parametrize("from_bytes", [HERE, ELSEWHERE])
def test_weights_that_are_no_numbers_are_refused_by_name(tmp_path: Path, from_bytes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importer, "ELSEWHERE_FROM_BYTES", from_bytes)
    path = write_tiny_gguf(tmp_path / "damaged.gguf")
    end = path.stat().st_size
    with path.open("r+b") as file:
        file.seek(end - 1000)
        file.write(b"\xff" * 1000)
    with pytest.raises(BadFileError, match=r"`blk\.1\.ffn_down\.weight` of .* holds values that are no weights"):
        importer.import_gguf(path)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows keeps no such time")
def test_a_file_of_other_content_and_the_same_size_and_time_has_another_sha256(tmp_path: Path) -> None:
    """Whatever `cp -p` or an archive sets back: the system's own time of change goes on."""
    path = tmp_path / "model.gguf"
    path.write_bytes(b"one")
    before, first = path.stat(), importer.remembered_sha256(path)
    while path.stat().st_ctime_ns == before.st_ctime_ns:
        path.write_bytes(b"two")
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert (path.stat().st_size, path.stat().st_mtime_ns) == (3, before.st_mtime_ns)
    assert importer.remembered_sha256(path) == paths.sha256_of(path) != first
