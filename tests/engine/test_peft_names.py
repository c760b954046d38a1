"""Adapters of every family as PEFT makes them: their names and the order of their rows are those of `transformers`."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import openvino as ov
import pytest
import torch
from reference import (
    CASES,
    EXACT,
    FOLDER_CASES,
    MIXTURES,
    make_adapter,
    make_model,
    make_seeing_gemma3,
    our_logits,
    save_folder,
    write_folder,
    write_gguf,
)
from safetensors.numpy import load_file, save_file

from nomoat import footprint
from nomoat.catalog import licences
from nomoat.engine import arch as architectures
from nomoat.engine import importer, peft_names, tensor_check
from nomoat.engine.arch import Architecture, Dimensions
from nomoat.engine.gguf import GGUFFile
from nomoat.engine.lora import LoraDelta
from nomoat.engine.native import Blueprint, NativeModel
from nomoat.engine.paged import PagedModel, Row
from nomoat.engine.source import open_source
from nomoat.errors import BadFileError, UnsupportedError
from nomoat.tune import adapter, export

LENGTH = 9
ALL_CASES = CASES | FOLDER_CASES
# the first case of each architecture, and further forms of some; an architecture without a case fails under its own name
FIRST_CASES = [
    next((case for case in ALL_CASES if ALL_CASES[case].arch == name), name)
    for name, arch in architectures.known().items()
    if not arch.has_experts
]
MODELS = [*FIRST_CASES, "falcon 40b", "opt 350m"]
ONE_PART = {"falcon 7b": ["query_key_value"], "gptj": ["k_proj", "fc_in"], "opt": ["q_proj", "v_proj"]}


def rows() -> list[list[int]]:
    return np.random.default_rng(5).integers(3, 250, (2, LENGTH)).tolist()


def logits_of(model: Any) -> Any:
    with torch.no_grad():
        return model(input_ids=torch.tensor(rows()), use_cache=False).logits.numpy()


def adapt(model: Any, folder: Path, targets: str | Sequence[str], config: Mapping[str, Any] | None = None, **saving: Any) -> Any:
    """The logits of the model with an adapter of PEFT, which is saved. It changes them by more than they may differ."""
    from peft import LoraConfig, get_peft_model

    before = logits_of(model)
    torch.manual_seed(3)
    with warnings.catch_warnings():  # PEFT says what it does by itself, and asks transformers for attributes under old names
        warnings.simplefilter("ignore")
        targets = targets if isinstance(targets, str) else list(targets)
        settings = {"r": 4, "lora_alpha": 8, "target_modules": targets} | dict(config or {})
        adapted = get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", **settings))
        for name, weight in adapted.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(weight, 0, 0.3)
        adapted.save_pretrained(str(folder), **saving)
        after = logits_of(adapted.eval())
    assert np.abs(after - before).max() > 0.1
    return after


def write_matrices(folder: Path, shapes: Mapping[str, tuple[int, int]], **config: Any) -> None:
    """A PEFT folder of random matrices of rank 4 for layers of these names, [rows, columns]."""
    chance, tensors = np.random.default_rng(3), {}
    for layer, (rows_here, columns) in shapes.items():
        tensors[f"base_model.model.{layer}.lora_A.weight"] = chance.standard_normal((4, columns)).astype(np.float32) / columns**0.5
        tensors[f"base_model.model.{layer}.lora_B.weight"] = chance.standard_normal((rows_here, 4)).astype(np.float32) * 0.3
    folder.mkdir()
    save_file(tensors, folder / "adapter_model.safetensors")
    told = {"peft_type": "LORA", "task_type": "CAUSAL_LM", "r": 4, "lora_alpha": 8, **config}
    (folder / "adapter_config.json").write_text(json.dumps(told))


def beside_logits(weights: Path, adapted: Path) -> Any:
    folder = importer.import_gguf(weights, fused=False)
    model = PagedModel(folder, EXACT, importer.read_adapters(folder, [adapted]))
    model.allocate(4)
    told = [Row(ids, 0, [at], LENGTH, adapter=0) for at, ids in enumerate(rows())]
    return model.run(told)[0].reshape(len(told), LENGTH, -1)


def assert_baked_exactly(weights: Path, adapted: Path, expected: Any, scratch: Path) -> None:
    """In float32."""
    ov.save_model(importer.exact_model(weights, adapter=adapted), scratch / "openvino_model.xml", compress_to_fp16=False)
    np.testing.assert_allclose(our_logits(scratch, rows()), expected, atol=1e-3)


def assert_baked(weights: Path, adapted: Path, expected: Any, scratch: Path) -> None:
    """In float32, and in the weights that are served."""
    assert_baked_exactly(weights, adapted, expected, scratch)
    np.testing.assert_allclose(our_logits(importer.import_gguf(weights, adapter=adapted), rows()), expected, atol=0.3)  # int8


def assert_adapted(weights: Path, adapted: Path, expected: Any, scratch: Path) -> None:
    """Baked into the weights, and beside them where the model can be run with others."""
    assert_baked(weights, adapted, expected, scratch)
    if importer.read_sizes(open_source(weights)).has_paged_attention:
        np.testing.assert_allclose(beside_logits(weights, adapted), expected, atol=1e-3)


@pytest.mark.parametrize("name", MODELS)
def test_an_adapter_of_all_linear_layers_gives_what_peft_gives(name: str, tmp_path: Path) -> None:
    """With the folder it was tuned on, and with the GGUF file of that, whose rows are given to the same passes."""
    model, folder = write_folder(tmp_path / "model", name)
    in_gguf = write_gguf(tmp_path / "model.gguf", CASES[name], model) if name in CASES else None
    expected = adapt(model, tmp_path / "adapter", "all-linear")
    assert_adapted(folder, tmp_path / "adapter", expected, tmp_path)
    if in_gguf:
        assert_baked_exactly(in_gguf, tmp_path / "adapter", expected, tmp_path)


def test_an_adapter_of_a_mixture_s_linear_layers_gives_what_peft_gives(tmp_path: Path) -> None:
    """Of attention, of the expert that all tokens ask, and of its gate; those that are chosen are no linear layers, see below."""
    model, folder = write_folder(tmp_path / "model", "qwen2moe")
    in_gguf = write_gguf(tmp_path / "model.gguf", MIXTURES["qwen2moe"], model)
    expected = adapt(model, tmp_path / "adapter", "all-linear")
    names = load_file(tmp_path / "adapter" / "adapter_model.safetensors")
    assert "base_model.model.model.layers.0.mlp.shared_expert_gate.lora_A.weight" in names
    for weights in (folder, in_gguf):
        assert_baked(weights, tmp_path / "adapter", expected, tmp_path)


def assert_experts_baked(weights: Path, adapted: Path, expected: Any, scratch: Path) -> None:
    """In float32, and in tiles, where a token may ask another expert, of two of nearly one score."""
    assert_baked_exactly(weights, adapted, expected, scratch)
    if not footprint.has_native_kernels():
        return
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(footprint, "FEW_WEIGHTS", 0)
        model = NativeModel(Blueprint(importer.import_gguf(weights, adapter=adapted)))
    model.allocate(4)
    served = model.run([Row(ids, 0, [at], LENGTH) for at, ids in enumerate(rows())])[0].reshape(expected.shape)
    assert np.median(np.abs(served - expected)) < 0.05


def experts_of(name: str) -> dict[str, Any]:
    """Settings of PEFT for all that a mixture's experts are and what chooses them, the first with a scale of its own."""
    block = "block_sparse_moe" if name == "granitemoe" else "mlp"
    router = "router" if name in ("granitemoe", "gpt-oss") else "gate"
    parts = [f"{block}.experts.gate_up_proj", f"{block}.experts.down_proj", f"{block}.{router}.weight"]
    return {"target_parameters": parts, "alpha_pattern": {parts[0]: 6}, "r": 2}


@pytest.mark.parametrize("name", MIXTURES)
def test_an_adapter_of_experts_gives_what_peft_gives(name: str, tmp_path: Path) -> None:
    """Of those that are chosen, and of what chooses."""
    model, folder = write_folder(tmp_path / "model", name)
    in_gguf = write_gguf(tmp_path / "model.gguf", MIXTURES[name], model)
    expected = adapt(model, tmp_path / "adapter", ["q_proj"], experts_of(name))
    for weights in (folder, in_gguf):
        assert_experts_baked(weights, tmp_path / "adapter", expected, tmp_path)
    with pytest.raises(UnsupportedError, match=r"changes .*experts \(`model\.layers\.0\.mlp\..*`\), which one beside the weights"):
        importer.require_beside(folder, [tmp_path / "adapter"])


@pytest.mark.parametrize("name", ["mixtral", "gpt-oss"])
def test_scales_of_experts_and_of_what_chooses_are_peft_s_and_tell_adapters_apart(name: str, tmp_path: Path) -> None:
    """Of parameters PEFT compares a pattern with their whole names, `mlp.gate.weight`, and not with the layer's."""
    _, folder = write_folder(tmp_path / "model", name)
    told = experts_of(name)
    gate_up, _, router = told["target_parameters"]
    digests = []
    for number, scales in enumerate(({gate_up: 6}, {gate_up: 3}, {router: 3}, {router.removesuffix(".weight"): 3})):
        adapted = tmp_path / f"adapter{number}"
        expected = adapt(make_model(MIXTURES[name]), adapted, ["q_proj"], told | {"alpha_pattern": scales})
        ov.save_model(importer.exact_model(folder, adapter=adapted), tmp_path / "openvino_model.xml", compress_to_fp16=False)
        np.testing.assert_allclose(our_logits(tmp_path, rows()), expected, atol=1e-3)
        config = json.loads((tmp_path / "adapter0" / "adapter_config.json").read_text())
        (tmp_path / "adapter0" / "adapter_config.json").write_text(json.dumps(config | {"alpha_pattern": scales}))
        digests.append(LoraDelta(tmp_path / "adapter0").sha256)
    assert len(set(digests)) == 4


@pytest.mark.parametrize("name", ["mixtral", "qwen3moe"])
def test_an_adapter_of_experts_that_transformers_4_had_apart_gives_what_peft_gives(name: str, tmp_path: Path) -> None:
    """PEFT reads such ones, too, and makes of them what `transformers` 5 has."""
    from peft import PeftModel

    model, folder = write_folder(tmp_path / "model", name)
    _, sizes = importer.family_of(importer.import_gguf(folder))
    block, parts = ("block_sparse_moe", ("w1", "w3", "w2")) if name == "mixtral" else ("mlp", ("gate_proj", "up_proj", "down_proj"))
    shapes = {f"{block}.gate": (sizes.experts, sizes.width)}
    for number in range(sizes.experts):
        both = (sizes.hidden, sizes.width), (sizes.hidden, sizes.width), (sizes.width, sizes.hidden)
        shapes |= {f"{block}.experts.{number}.{part}": shape for part, shape in zip(parts, both, strict=True)}
    adapted = tmp_path / "adapter"
    every = {f"model.layers.{layer}.{part}": shape for layer in range(sizes.layers) for part, shape in shapes.items()}
    write_matrices(adapted, every, target_modules=["gate", *parts])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.filterwarnings("error", message=".*missing adapter keys.*")
        theirs = PeftModel.from_pretrained(make_model(MIXTURES[name]), str(adapted)).eval()
    expected = logits_of(theirs)
    assert np.abs(expected - logits_of(model)).max() > 0.1
    assert_experts_baked(folder, adapted, expected, tmp_path)


def mixtral_of_8() -> tuple[Architecture, Dimensions]:
    """Three experts, 8 wide, of 6 in between."""
    sizes = Dimensions(
        layers=1, width=8, heads=1, kv_heads=1, head_dim=8, hidden=6, vocabulary=9, context_tokens=9, norm_epsilon=1e-5, rope_base=1e4,
        experts=3, experts_chosen=2,
    )  # fmt: skip
    return architectures.with_experts(architectures.find("llama"), sizes.experts), sizes


def test_experts_that_an_adapter_leaves_as_they_are_get_nothing_and_ranks_may_differ(tmp_path: Path) -> None:
    names = {number: f"model.layers.0.block_sparse_moe.experts.{number}.w3" for number in (0, 2)}
    write_matrices(tmp_path / "a", dict.fromkeys(names.values(), (6, 8)))
    path = tmp_path / "a" / "adapter_model.safetensors"
    saved = load_file(path)
    lower = f"base_model.model.{names[2]}.lora"
    saved[f"{lower}_A.weight"], saved[f"{lower}_B.weight"] = saved[f"{lower}_A.weight"][:2], saved[f"{lower}_B.weight"][:, :2].copy()
    save_file(saved, path)
    delta, layer = LoraDelta(tmp_path / "a").of_model(*mixtral_of_8()), "model.layers.0.mlp.experts.up_proj"
    a_ERI, b_EOR = delta.matrices(layer) or (np.zeros(0), np.zeros(0))
    for found in (delta(layer, np.arange(18)), delta.alpha / a_ERI.shape[1] * (b_EOR @ a_ERI).reshape(18, 8)):
        assert found is not None
        assert not found[6:12].any()
        for number, scale in ((0, 8 / 4), (2, 8 / 2)):
            a_RI, b_OR = (saved[f"base_model.model.{names[number]}.lora_{end}.weight"] for end in "AB")
            np.testing.assert_allclose(found[6 * number : 6 * number + 6], scale * b_OR @ a_RI, atol=1e-5)
    assert delta(layer, np.array([17, 0])) == pytest.approx(delta(layer, np.arange(18))[[17, 0]], abs=1e-5)  # type: ignore[index]


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        ({"mlp.experts.3.w1": (6, 8)}, "mlp.experts.3.w1` as one of [6, 8], which no expert of the model has"),
        ({"mlp.experts.0.w9": (6, 8)}, "mlp.experts.0.w9` as one of [6, 8], which no expert of the model has"),
        ({"mlp.experts.0.w2": (6, 8)}, "mlp.experts.0.w2` as one of [6, 8], which no expert of the model has"),
        ({"mlp.experts": (12, 8)}, "mlp.experts` as one of [12, 8], which no 3 experts of the model have"),
        ({"mlp.experts.0.w1": (6, 8), "mlp.experts.0.gate_proj": (6, 8)}, "mlp.experts.gate_proj` twice, under two names"),
    ],
    ids=["number", "part", "sizes", "rank", "twice"],
)
def test_an_adapter_of_experts_that_a_mixture_does_not_have_is_refused(
    shapes: dict[str, tuple[int, int]], message: str, tmp_path: Path
) -> None:
    write_matrices(tmp_path / "a", {f"model.layers.0.{name}": shape for name, shape in shapes.items()})
    with pytest.raises(BadFileError) as caught:
        LoraDelta(tmp_path / "a").of_model(*mixtral_of_8())
    assert caught.value.message == f"`{tmp_path / 'a' / 'adapter_model.safetensors'}` changes `model.layers.0.{message}"
    assert caught.value.hint == "an adapter fits only the model it was tuned on"


def test_what_chooses_among_experts_has_other_names_elsewhere() -> None:
    """Granite's in `transformers` 4 is a linear layer within another."""
    arch, _ = mixtral_of_8()
    for name in ("block_sparse_moe.gate", "block_sparse_moe.router.layer", "block_sparse_moe.router", "mlp.router", "mlp.gate"):
        assert peft_names.our_name(arch, f"model.layers.3.{name}") == "model.layers.3.mlp.gate"


@pytest.mark.parametrize("name", ONE_PART)
def test_an_adapter_of_some_layers_gives_what_peft_gives(name: str, tmp_path: Path) -> None:
    model, folder = write_folder(tmp_path / "model", name)
    assert_adapted(folder, tmp_path / "adapter", adapt(model, tmp_path / "adapter", ONE_PART[name]), tmp_path)


def test_an_adapter_of_a_model_without_its_output_is_the_same(tmp_path: Path) -> None:
    """Tuned on `AutoModel`, whose layers have no `transformer.` before them."""
    model, folder = write_folder(tmp_path / "model", "gpt2")
    expected = adapt(model, tmp_path / "adapter", "all-linear")
    path = tmp_path / "adapter" / "adapter_model.safetensors"
    save_file({name.replace(".transformer.", "."): matrix for name, matrix in load_file(path).items()}, path)
    assert_adapted(folder, tmp_path / "adapter", expected, tmp_path)


def test_an_adapter_under_the_names_of_a_folder_s_own_code_is_the_same(tmp_path: Path) -> None:
    """As PEFT wrote those of EXAONE before `transformers` had it."""
    model, folder = write_folder(tmp_path / "model", "exaone")
    expected = adapt(model, tmp_path / "adapter", "all-linear")
    path, own = tmp_path / "adapter" / "adapter_model.safetensors", architectures.find("exaone").own_names
    found = {}
    for name, matrix in load_file(path).items():
        part = next(part for part in own if part in name)
        found[name.replace("model.layers.", "transformer.h.").replace(part, own[part])] = matrix
    assert "base_model.model.transformer.h.0.attn.attention.out_proj.lora_A.weight" in found
    save_file(found, path)
    assert_adapted(folder, tmp_path / "adapter", expected, tmp_path)


@pytest.mark.parametrize("theirs_first", [True, False])
def test_one_layer_under_two_names_is_refused(theirs_first: bool, tmp_path: Path) -> None:
    model, folder = write_folder(tmp_path / "model", "gptj")
    adapt(model, tmp_path / "adapter", ["q_proj"])
    path = tmp_path / "adapter" / "adapter_model.safetensors"
    theirs, ours = "transformer.h.0.attn.q_proj", "model.layers.0.self_attn.q_proj"
    found = load_file(path)
    save_file({**found, **{name.replace(theirs, ours): matrix for name, matrix in found.items()}}, path)
    delta = LoraDelta(tmp_path / "adapter")
    delta._pairs = dict(sorted(delta._pairs.items(), key=lambda pair: (pair[0] == theirs) != theirs_first))
    arch, sizes = importer.family_of(importer.import_gguf(folder))
    assert arch is not None
    with pytest.raises(BadFileError, match="twice, under two names" if theirs_first else "changes layers this model does not have"):
        delta.of_model(arch, sizes).require_all_used(but=[layer for layer, _ in tensor_check.of_layers(arch, sizes)])


def test_of_an_adapter_of_a_gemma_3_that_sees_the_part_that_reads_is_used(tmp_path: Path) -> None:
    model = make_seeing_gemma3()
    save_folder(tmp_path / "model", model)
    expected = adapt(model, tmp_path / "adapter", ["q_proj", "down_proj"])
    assert any("vision_tower" in name for name in load_file(tmp_path / "adapter" / "adapter_model.safetensors"))
    assert_adapted(tmp_path / "model", tmp_path / "adapter", expected, tmp_path)


@pytest.mark.parametrize("name", ["gpt2", "falcon 40b", "gptj"])
def test_exports_of_an_adapter_hold_the_change_in_the_file_s_order_of_rows(name: str, tmp_path: Path) -> None:
    model, _ = write_folder(tmp_path / "model", name)
    weights = write_gguf(tmp_path / "model.gguf", CASES[name], model)
    expected = adapt(model, tmp_path / "adapter", "all-linear")
    merged = export.merged_gguf(weights, tmp_path / "adapter", tmp_path / "merged.gguf", quantisation="F32")
    ov.save_model(importer.exact_model(merged), tmp_path / "openvino_model.xml", compress_to_fp16=False)
    np.testing.assert_allclose(our_logits(tmp_path, rows()), expected, atol=1e-3)
    lora, base, whole = (GGUFFile(path) for path in (export.lora_gguf(weights, tmp_path / "adapter", tmp_path / "l"), weights, merged))
    changed = {tensor.rpartition(".lora_")[0] for tensor in lora.tensors}
    assert len(changed) == 2 * len(architectures.find(CASES[name].arch).projections)
    for tensor in changed:
        change = 2 * lora.rows(f"{tensor}.lora_b") @ lora.rows(f"{tensor}.lora_a")
        np.testing.assert_allclose(whole.rows(tensor) - base.rows(tensor), change, atol=1e-5)


@pytest.mark.parametrize("name", ["mixtral", "gpt-oss"])
def test_exports_of_an_adapter_of_experts_hold_the_change_of_each(name: str, tmp_path: Path) -> None:
    model, folder = write_folder(tmp_path / "model", name)
    weights = write_gguf(tmp_path / "model.gguf", MIXTURES[name], model)
    expected = adapt(model, tmp_path / "adapter", ["q_proj"], experts_of(name))
    merged = export.merged_gguf(weights, tmp_path / "adapter", tmp_path / "merged.gguf", quantisation="F32")
    ov.save_model(importer.exact_model(merged), tmp_path / "openvino_model.xml", compress_to_fp16=False)
    np.testing.assert_allclose(our_logits(tmp_path, rows()), expected, atol=1e-3)
    lora, base, whole = (GGUFFile(path) for path in (export.lora_gguf(folder, tmp_path / "adapter", tmp_path / "l"), weights, merged))
    up, sizes = "blk.0.ffn_up_exps.weight", importer.read_sizes(base)
    assert lora.tensor(f"{up}.lora_a").shape == (sizes.experts, 2, sizes.width)  # as llama.cpp takes them
    assert lora.tensor(f"{up}.lora_b").shape == (sizes.experts, sizes.hidden, 2)
    a_ERI, b_EOR = (lora.rows(f"{up}.lora_{end}").reshape(lora.tensor(f"{up}.lora_{end}").shape) for end in "ab")
    change = lora.metadata["adapter.lora.alpha"] / 2 * (b_EOR @ a_ERI)
    np.testing.assert_allclose(whole.rows(up) - base.rows(up), change.reshape(-1, sizes.width), atol=1e-5)


@pytest.mark.parametrize(("name", "other"), [("bloom", "llama"), ("gptj", "gpt2")])
def test_an_adapter_of_another_family_is_refused(name: str, other: str, tmp_path: Path) -> None:
    model, _ = write_folder(tmp_path / "model", name)
    adapt(model, tmp_path / "adapter", "all-linear")
    _, folder = write_folder(tmp_path / "other", other)
    with pytest.raises(BadFileError) as refused:
        importer.import_gguf(folder, adapter=tmp_path / "adapter")
    assert refused.value.hint == "an adapter fits only the model it was tuned on"


@pytest.mark.parametrize("name", ["gptneox", "gptj"])
def test_an_adapter_of_another_size_is_refused(name: str, tmp_path: Path) -> None:
    model, folder = write_folder(tmp_path / "model", name)
    adapt(model, tmp_path / "adapter", ["query_key_value"] if name == "gptneox" else ["q_proj"])
    path = tmp_path / "adapter" / "adapter_model.safetensors"
    wide = {name: np.concatenate([matrix, matrix[:2]]) if "lora_B" in name else matrix for name, matrix in load_file(path).items()}
    save_file(wide, path)
    with pytest.raises(BadFileError, match=r"changes `model\.layers\.0\.self_attn\.") as refused:
        importer.import_gguf(folder, adapter=tmp_path / "adapter")
    assert refused.value.hint == "an adapter fits only the model it was tuned on"


def test_what_cannot_stand_beside_the_weights_is_refused_before_they_are_asked(tmp_path: Path) -> None:
    model, folder = write_folder(tmp_path / "model", "gpt2")
    good, strange = tmp_path / "good", tmp_path / "strange"
    adapt(model, good, "all-linear")
    adapt(write_folder(tmp_path / "other", "bloom")[0], strange, "all-linear")
    assert importer.import_with(folder, [good], alone=False)[1] == [good]
    with pytest.raises(
        BadFileError, match=r"changes layers this model does not have: transformer\.h\.0\.mlp\.dense_4h_to_h"
    ) as refused:
        importer.import_with(folder, [good, strange], alone=False)
    assert refused.value.hint == "an adapter fits only the model it was tuned on"


def test_an_output_layer_under_another_name_is_changed_as_by_peft(tmp_path: Path) -> None:
    """As `transformers` before 5 calls that of GPT-NeoX."""
    model, folder = write_folder(tmp_path / "model", "gptneox")
    expected = adapt(model, tmp_path / "adapter", ["lm_head", "dense"], save_embedding_layers=False)
    path = tmp_path / "adapter" / "adapter_model.safetensors"
    save_file({name.replace(".lm_head.", ".embed_out."): matrix for name, matrix in load_file(path).items()}, path)
    assert_baked(folder, tmp_path / "adapter", expected, tmp_path)
    with pytest.raises(UnsupportedError, match="changes `lm_head`, which one beside the weights cannot here"):
        importer.import_with(folder, [tmp_path / "adapter"], alone=False)


@pytest.mark.parametrize("name", ["llama", "gptj"])
def test_an_adapter_of_the_output_layer_is_run_with_the_copy_that_peft_saves_of_that(name: str, tmp_path: Path) -> None:
    """By default it saves the layer as it was, with its bias (GPT-J), and takes it in place of the model's: here it differs."""
    from peft import PeftModel

    model, folder = write_folder(tmp_path / "model", name)
    adapt(model, tmp_path / "adapter", ["lm_head", "q_proj"])
    path = tmp_path / "adapter" / "adapter_model.safetensors"
    saved = load_file(path)
    copies = {key: values for key, values in saved.items() if ".base_layer." in key}
    assert len(copies) == (2 if name == "gptj" else 1)
    save_file(saved | {key: np.flip(values, 0).copy() for key, values in copies.items()}, path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = PeftModel.from_pretrained(make_model(CASES[name]), str(tmp_path / "adapter")).eval()
    expected = logits_of(theirs)
    assert_baked(folder, tmp_path / "adapter", expected, tmp_path)
    key = next(iter(copies))
    save_file(saved | {key: saved[key][:-1]}, path)
    with pytest.raises(BadFileError, match=f"holds `{key}` of ") as refused:
        importer.import_gguf(folder, adapter=tmp_path / "adapter")
    assert refused.value.hint == "an adapter fits only the model it was tuned on"
    save_file({name: values for name, values in saved.items() if "lm_head.lora" not in name}, path)
    with pytest.raises(BadFileError, match=f"holds `{key}`, which is no LoRA matrix of a layer"):
        importer.import_gguf(folder, adapter=tmp_path / "adapter")


TIED = "unless the model's output layer is its embedding, too"
BIASED = "if each of these layers has a bias there"


@pytest.mark.parametrize(
    ("settings", "condition", "is_right"),
    [
        ({"target_modules": ["q_proj", "embed_tokens"]}, TIED, {"own": True, "tied": False}),
        ({"target_modules": ["q_proj", "lm_head"], "use_dora": True}, TIED, {"own": True, "tied": False}),
        ({"target_modules": ["q_proj"], "lora_bias": True}, BIASED, {"biased": True, "own": False}),
        ({"target_modules": ["q_proj"], "use_dora": True}, "", {"own": True, "tied": True}),
        ({"target_modules": ["q_proj"], "modules_to_save": ["lm_head"]}, "", {"own": True, "tied": True}),
        ({"target_modules": ["q_proj"], "trainable_token_indices": [3, 5]}, "", {"own": True, "tied": True}),
    ],
    ids=["embedding", "output with DoRA", "bias", "DoRA", "whole output", "tokens"],
)
def test_merging_is_advised_under_the_condition_that_peft_s_merge_needs(
    settings: dict[str, Any], condition: str, is_right: dict[str, bool], tmp_path: Path
) -> None:
    from peft import LoraConfig, get_peft_model

    for kind, expected in is_right.items():
        torch.manual_seed(3)
        model = make_model(CASES["qwen2" if kind == "biased" else "llama"])
        if kind == "tied":
            model.config.tie_word_embeddings, model.lm_head.weight = True, model.model.embed_tokens.weight
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            adapted = get_peft_model(model, LoraConfig(r=4, init_lora_weights=False, **settings)).eval()
            for weight in adapted.parameters():
                weight.data += 0.1 * torch.randn_like(weight) * weight.requires_grad
            adapted.save_pretrained(str(tmp_path / kind))
            wanted = logits_of(adapted)
            try:
                is_same = np.allclose(logits_of(adapted.merge_and_unload()), wanted, atol=1e-3)
            except RuntimeError:
                is_same = False
        assert is_same is expected, kind
        with pytest.raises(BadFileError) as caught:
            LoraDelta(tmp_path / kind)
        hint = "merge the adapter into its model with PEFT (`merge_and_unload`), and run that folder"
        assert caught.value.hint is not None and caught.value.hint.startswith(f"{hint}, {condition}" if condition else hint)
        assert condition or caught.value.hint == hint


@pytest.mark.parametrize("name", MODELS)
def test_peft_loads_what_was_tuned_here_and_gives_the_same(name: str, tmp_path: Path) -> None:
    """All linear layers of the upper block, as `tune` learns them."""
    from peft import PeftModel

    model, folder = write_folder(tmp_path / "model", name)
    random, learned = torch.Generator().manual_seed(3), {}
    arch, sizes = importer.family_of(importer.import_gguf(folder))
    assert arch is not None
    for layer, (rows_here, columns) in tensor_check.of_layers(arch, sizes):
        if layer.startswith(f"model.layers.{sizes.layers - 1}."):
            learned[f"{layer}.lora_A.weight"] = torch.randn((4, columns), generator=random) / columns**0.5
            learned[f"{layer}.lora_B.weight"] = torch.randn((rows_here, 4), generator=random) * 0.3
    terms = licences.chain(None)
    prepared: Any = SimpleNamespace(
        arch=arch, sizes=sizes, settings=SimpleNamespace(rank=4), survey=terms, licence=terms, brought=None
    )  # fmt: skip
    adapter.save(tmp_path / "adapter", learned, prepared, {"base": str(folder)}, {"history": []})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.filterwarnings("error", message=".*missing adapter keys.*")
        theirs = PeftModel.from_pretrained(make_model(ALL_CASES[name]), str(tmp_path / "adapter")).eval()
    expected = logits_of(theirs)
    assert np.abs(expected - logits_of(model)).max() > 0.1
    assert_baked_exactly(folder, tmp_path / "adapter", expected, tmp_path)
    delta = LoraDelta(tmp_path / "adapter").of_model(arch, sizes)
    for layer in delta.layers:
        a_RI, b_OR = delta.matrices(layer) or (np.zeros(0), np.zeros(0))
        np.testing.assert_array_equal(a_RI, learned[f"{layer}.lora_A.weight"])
        np.testing.assert_array_equal(b_OR, learned[f"{layer}.lora_B.weight"])
    assert 2 * len(delta.layers) == len(learned)
    assert adapter.read_start(str(folder), folder, tmp_path / "adapter", open_source(folder)).layers == 1


def test_an_adapter_tuned_here_with_llama_s_names_is_run_as_before(tmp_path: Path) -> None:
    """So they were written before they had the family's own."""
    _, folder = write_folder(tmp_path / "model", "gptj")
    old = make_adapter(tmp_path / "adapter", folder)
    named = LoraDelta(old)
    found = named.of_model(*importer.family_of(importer.import_gguf(folder)))  # type: ignore[arg-type]
    assert found.layers == named.layers
    for layer in named.layers:
        np.testing.assert_array_equal((found.scaled(layer) or (0, 0))[1], (named.scaled(layer) or (0, 0))[1])
