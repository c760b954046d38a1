"""Hugging Face folders: every family's weights against `transformers`, their tokenizers, and what is refused."""

from __future__ import annotations

import inspect
import itertools
import json
import os
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import safetensors
import sentencepiece
import tokenizers
import torch
import transformers
from reference import (
    CASES,
    CONTEXT,
    FIRST_CONTEXT,
    GPTOSS_YARN,
    HIDDEN,
    LLAMA_LIKE,
    LONG,
    MIXTURES,
    ROPE,
    SHORT,
    WIDTH,
    WINDOW,
    YARN,
    make_model,
    make_seeing_gemma3,
    make_seeing_ministral3,
    our_logits,
    save_folder,
    write_folder,
)
from safetensors.torch import save_file
from tiny import MERGES, SPECIAL, TEMPLATE, vocabulary, write_adapter, write_tiny_gguf

import nomoat
from nomoat.catalog import pull
from nomoat.engine import arch as architectures
from nomoat.engine import folder_tokenizer, importer
from nomoat.engine.hf_config import read_metadata
from nomoat.engine.hf_families import FAMILIES
from nomoat.engine.optimum import ForeignFolder
from nomoat.engine.safetensors import SafetensorsFolder, model_files, read_config, read_tensors
from nomoat.engine.source import open_source
from nomoat.engine.tokenizer import Tokenizer, load
from nomoat.errors import BadFileError, ContextExceededError, DataError, UnsupportedError, UsageError
from nomoat.records import Message, Request, TokenLikelihood
from nomoat.responder import Responder
from nomoat.tune.prepare import prepare

LENGTH = 3 * WINDOW + 5
SEES_WINDOW, SEES_ALL = ["sliding_attention"], ["full_attention"]


def load_file(path: Path) -> dict[str, torch.Tensor]:
    """Not mapped into memory: Windows writes over no file that is."""
    return safetensors.torch.load(path.read_bytes())


def edit(folder: Path, **changes: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def assert_logits_equal(model: Any, folder: Path) -> None:
    rows = np.random.default_rng(5).integers(3, 250, (2, LENGTH)).tolist()
    with torch.no_grad():
        expected = model(torch.tensor(rows), use_cache=False).logits.numpy()
    np.testing.assert_allclose(our_logits(importer.import_gguf(folder), rows, cut_at=9), expected, atol=1e-3)


@pytest.mark.parametrize("name", CASES | MIXTURES)
def test_logits_of_a_folder_equal_the_reference_within_a_thousandth(name: str, tmp_path: Path) -> None:
    """Families that have folders alone are compared in `test_arch.py`."""
    assert_logits_equal(*write_folder(tmp_path / "model", name))


def test_a_folder_of_gptoss_in_mxfp4_has_the_codes_of_its_gguf_file(tmp_path: Path) -> None:
    """The codes of neighbours share a byte there, and those of gate and up stand by turns."""
    kind, chance = gguf.GGMLQuantizationType.MXFP4, np.random.default_rng(1)
    _, folder = write_folder(tmp_path / "model", "gpt-oss")
    stored = load_file(folder / "model.safetensors")
    expected: dict[str, Any] = {}
    for layer, (part, rows, columns) in itertools.product(range(3), (("gate_up", 2 * HIDDEN, WIDTH), ("down", WIDTH, HIDDEN))):
        name = f"model.layers.{layer}.mlp.experts.{part}_proj"
        codes = chance.integers(0, 16, (8, rows, columns), dtype=np.uint8)
        exponents = chance.integers(118, 124, (8, rows, columns // 32), dtype=np.uint8)
        del stored[name]
        stored[f"{name}_blocks"] = torch.from_numpy((codes[..., 0::2] | codes[..., 1::2] << 4).reshape(8, rows, -1, 16))
        stored[f"{name}_scales"] = torch.from_numpy(exponents)
        levels = np.array([*gguf.quants.MXFP4.kvalues], np.float32)[codes] / 2
        values = levels * np.repeat(2.0 ** (exponents.astype(np.float32) - 127), 32, axis=-1)
        for at, own in enumerate(("gate", "up") if part == "gate_up" else ("down",)):
            expected[f"blk.{layer}.ffn_{own}_exps.weight"] = values[:, at::2] if part == "gate_up" else values
    save_file(stored, folder / "model.safetensors")
    edit(folder, quantization_config={"quant_method": "mxfp4"})
    source = open_source(folder)
    assert source.notes == ()
    assert len(expected) == 9
    for name, values in expected.items():
        assert source.tensor(name).shape == values.shape
        np.testing.assert_array_equal(source.rows(name), values.reshape(-1, values.shape[-1]))
        some = np.array([300, 5, 5, 511])
        np.testing.assert_array_equal(gguf.quants.dequantize(source.raw_rows(name, some), kind), source.rows(name)[some])
    importer.read_sizes(source)


@pytest.mark.parametrize(
    ("part", "found"),
    [("_blocks", r"`\S+_proj_blocks` of the strange shape \(1,\), without scales"), ("_bias", r"of the strange shape \(1,\)\n")],
)
def test_experts_of_gptoss_that_are_of_a_strange_shape_are_a_bad_file(part: str, found: str, tmp_path: Path) -> None:
    _, folder = write_folder(tmp_path / "model", "gpt-oss")
    name = f"model.layers.0.mlp.experts.down_proj{part}"
    save_file(load_file(folder / "model.safetensors") | {name: torch.zeros(1)}, folder / "model.safetensors")
    with pytest.raises(BadFileError, match=found):
        open_source(folder)


@pytest.mark.parametrize("name", ["mixtral", "qwen2moe"])
def test_experts_that_lie_together_as_transformers_5_has_them_are_read(name: str, tmp_path: Path) -> None:
    model, folder = write_folder(tmp_path / "model", name, save_original_format=False)
    with safetensors.safe_open(folder / "model.safetensors", "np") as file:
        assert "model.layers.0.mlp.experts.gate_up_proj" in file.keys()  # noqa: SIM118
    assert_logits_equal(model, folder)


def test_single_rows_of_experts_are_those_of_the_experts_of_each(tmp_path: Path) -> None:
    model, folder = write_folder(tmp_path / "model", "qwen3moe", dtype=torch.bfloat16)
    rows = np.array([2000, 3, 96, 100, 3])
    weights = model.model.layers[1].mlp.experts.gate_up_proj.detach().numpy()[:, :96].reshape(-1, 64)
    source = SafetensorsFolder(folder)
    np.testing.assert_array_equal(source.rows("blk.1.ffn_gate_exps.weight", rows), weights[rows])
    np.testing.assert_array_equal(source.rows("blk.1.ffn_gate_exps.weight", slice(90, 100)), weights[90:100])
    assert source.rows("blk.1.ffn_gate_exps.weight", rows[:0]).shape == (0, 64)


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (lambda weight: None, "3 matrices of experts, the last of which is number 3"),
        (lambda weight: weight[:9], "4 matrices of experts, the last of which is number 3"),
    ],
)
def test_experts_that_are_missing_or_of_other_sizes_are_a_bad_file(change: Any, found: str, tmp_path: Path) -> None:
    _, folder = write_folder(tmp_path / "model", "mixtral")
    weights, name = load_file(folder / "model.safetensors"), "model.layers.0.block_sparse_moe.experts.1.w1.weight"
    changed = change(weights.pop(name))
    save_file(weights if changed is None else {**weights, name: changed.clone()}, folder / "model.safetensors")
    with pytest.raises(BadFileError, match=f"holds {found}, that GGUF would call `blk.0.ffn_gate_exps.weight`"):
        SafetensorsFolder(folder)


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("qwen3moe", {"mlp_only_layers": [0]}, "some layers of this model have no experts"),
        ("qwen2moe", {"decoder_sparse_step": 2}, "some layers of this model have no experts"),
        ("stablelm", {"qk_layernorm": True}, "this StableLM has norms of each head, or none before its MLP (the 12B)"),
        (
            "gpt-oss",
            {"swiglu_limit": 6.0, "swiglu_alpha": 1.5},
            "the gate of this model has other numbers than others of its family (swiglu_limit, swiglu_alpha)",
        ),
        (
            "gpt-oss",
            {"layer_types": [*SEES_WINDOW, *SEES_WINDOW, *SEES_ALL]},
            "windows lie in other layers of this model (`layer_types`) than of others of `gpt-oss`",
        ),
        ("gpt-oss", {"rope_parameters": {**GPTOSS_YARN, "truncate": True}}, "this model scales its positions (`yarn truncate`)"),
        ("llama", {"rope_parameters": {**YARN, "truncate": False}}, "this model scales its positions (`yarn truncate`)"),
    ],
)
def test_a_variant_of_a_family_by_its_config_json_is_refused(name: str, changes: Any, message: str, tmp_path: Path) -> None:
    _, folder = write_folder(tmp_path / "model", name)
    edit(folder, **changes)
    with pytest.raises(UnsupportedError) as caught:
        SafetensorsFolder(folder)
    assert caught.value.message == f"{message}, which nomoat cannot do yet"


def test_numbers_of_a_gate_that_are_null_are_the_usual_ones(tmp_path: Path) -> None:
    _, folder = write_folder(tmp_path / "model", "gpt-oss")
    edit(folder, swiglu_limit=None, swiglu_alpha=None)
    importer.read_sizes(open_source(folder))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_weights_in_half_precision_and_several_files_are_read_exactly(tmp_path: Path, dtype: torch.dtype) -> None:
    model, folder = write_folder(tmp_path / "model", "qwen2", dtype=dtype, max_shard_size="100KB")
    assert len(list(folder.glob("*.safetensors"))) > 2
    source = SafetensorsFolder(folder)
    weights = model.model.layers[1].mlp.down_proj.weight.detach().numpy()
    np.testing.assert_array_equal(source.rows("blk.1.ffn_down.weight", np.array([5, 2])), weights[[5, 2]])


def test_an_output_matrix_in_the_direction_of_the_embedding_is_its_own(tmp_path: Path) -> None:
    model = make_model(CASES["llama"])
    with torch.no_grad():
        model.lm_head.weight.copy_(2 * model.model.embed_tokens.weight)
    save_folder(tmp_path / "model", model)
    assert_logits_equal(model, tmp_path / "model")


def test_an_output_matrix_is_its_own_where_config_json_calls_it_the_embedding_and_it_is_not(tmp_path: Path) -> None:
    """As `transformers` 5 reads it: of a model whose output layer was trained, as PEFT's `modules_to_save` has it."""
    model, folder = write_folder(tmp_path / "model", "llama")
    edit(folder, tie_word_embeddings=True)
    assert_logits_equal(model, folder)


@pytest.mark.parametrize(("name", "has_one"), [("llama", False), ("gemma", True), ("opt", True)])
@pytest.mark.parametrize("is_said", [True, False])
def test_a_folder_without_an_output_layer_says_so(name: str, has_one: bool, is_said: bool, tmp_path: Path) -> None:
    """As `LlamaModel` is saved alone; not where the embedding is the output layer, which some families' `config.json` leave unsaid."""
    _, folder = write_folder(tmp_path / "model", name)
    weights = load_file(folder / "model.safetensors")
    save_file({key: values for key, values in weights.items() if key != "lm_head.weight"}, folder / "model.safetensors")
    told = json.loads((folder / "config.json").read_text())
    if not is_said:
        told.pop("tie_word_embeddings", None)
    (folder / "config.json").write_text(json.dumps(told))
    with nomoat.load(str(folder)) as model:
        mute = [note for note in model.notes if note.startswith("the folder holds no output layer (`lm_head`)")]
        assert (len(mute) == 0) == has_one
        assert np.isfinite(model.embed(["the hello"])).all()


@pytest.mark.parametrize("lacking", ["self_attn.k_proj.bias", "input_layernorm.weight"])
def test_a_bias_or_a_norm_that_one_layer_lacks_is_missed(lacking: str, tmp_path: Path) -> None:
    _, folder = write_folder(tmp_path / "model", "qwen2")
    weights = load_file(folder / "model.safetensors")
    del weights[f"model.layers.1.{lacking}"]
    save_file(weights, folder / "model.safetensors")
    with pytest.raises(BadFileError, match=r"has no `blk\.1\.attn_.+`, as GGUF calls it, and 1 of 2 layers have theirs"):
        importer.read_sizes(open_source(folder))


def test_a_bias_that_one_layer_of_a_gguf_file_lacks_is_missed_too(tmp_path: Path) -> None:
    path = write_tiny_gguf(tmp_path / "t.gguf", arch="qwen2", lacking=["blk.1.attn_k.bias"])
    with pytest.raises(BadFileError, match=r"has no `blk\.1\.attn_k\.bias`, as GGUF calls it, and 1 of 2 layers have theirs"):
        importer.read_sizes(open_source(path))


def written(model: Responder, **asked: Any) -> list[TokenLikelihood]:
    """The tokens of an answer."""
    chunks = model.stream(Request(prompt="the hello", **asked))
    return [each for chunk in chunks for each in chunk.likelihoods]


def test_rows_that_are_no_token_are_never_chosen_and_count_in_likelihoods(tmp_path: Path) -> None:
    """Qwen2.5's folder has 151,936 rows and 151,665 tokens; `transformers` divides by all rows, too."""
    model, folder = write_folder(tmp_path / "model", "llama")
    tokens = len(vocabulary())
    model.resize_token_embeddings(tokens + 2, mean_resizing=False)
    with torch.no_grad():
        model.lm_head.weight[tokens] = model.lm_head.weight[5] * 40  # one of these wins, whatever the text
        model.lm_head.weight[tokens + 1] = -model.lm_head.weight[tokens]
    save_folder(folder, model)
    with nomoat.load(str(folder)) as loaded:
        ids = loaded.engine.tokenizer.encode("the hello", add_bos=True)
        with torch.no_grad():
            expected = model(torch.tensor([ids])).logits[0, -1].log_softmax(-1).numpy()
        assert expected.argmax() >= tokens
        told = written(loaded, max_new_tokens=1, top_logprobs=1)[0]
        assert told.token_id == expected[:tokens].argmax() and told.top[0].token_id == expected.argmax()
        assert told.log_probability == pytest.approx(float(expected[told.token_id]), rel=0.05)  # forty times what is rounded
        warm = written(loaded, max_new_tokens=30, temperature=2.0, seed=1, top_logprobs=0)
        assert len(warm) > 1 and all(each.token_id < tokens for each in warm)


def with_output(folder: Path, change: Any) -> dict[str, Any]:
    """A folder whose `config.json` says that its output layer is its embedding beside one made of that, and the weights without it."""
    weights = load_file(folder / "model.safetensors")
    weights.pop("lm_head.weight", None)
    save_file({**weights, "lm_head.weight": change(weights["model.embed_tokens.weight"])}, folder / "model.safetensors")
    edit(folder, tie_word_embeddings=True)
    return weights


def test_a_copy_of_the_embedding_beside_it_is_not_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nomoat.engine.safetensors.COMPARED", 5000)
    _, folder = write_folder(tmp_path / "model", "qwen2")
    weights = with_output(folder, torch.clone)
    source = SafetensorsFolder(folder)
    assert source.num_values == sum(values.numel() for values in weights.values())
    assert "output.weight" not in source.tensors

    def trained(embedding: torch.Tensor) -> torch.Tensor:
        """In its last row alone."""
        changed = embedding.clone()
        changed[-1, -1] += 1
        return changed

    with_output(folder, trained)
    assert "output.weight" in SafetensorsFolder(folder).tensors


@pytest.mark.parametrize("rows", [8, -8])
def test_an_output_layer_that_cannot_be_the_embedding_is_told_with_how_to_leave_it_out(rows: int, tmp_path: Path) -> None:
    _, folder = write_folder(tmp_path / "model", "qwen2")
    weights = with_output(folder, lambda values: torch.cat([values, values])[: len(values) + rows].clone())
    vocabulary, width = weights["model.embed_tokens.weight"].shape
    with pytest.raises(BadFileError) as caught:
        open_source(folder)
    assert caught.value.message == (
        f"`{folder}` says that its output layer is its embedding (`tie_word_embeddings`), and holds `lm_head.weight` of another "
        f"shape: {vocabulary + rows} x {width}, and the embedding is {vocabulary} x {width}"
    )
    assert caught.value.hint is not None
    exec(re.findall("`(.*?)`", caught.value.hint)[-1])
    assert open_source(folder).num_values == sum(values.numel() for values in weights.values())


@pytest.mark.parametrize("name", ["gemma", "opt"])
def test_the_one_matrix_of_a_model_may_lie_under_the_output_s_name(name: str, tmp_path: Path) -> None:
    """As `safetensors.torch.save_model` writes it."""
    model, folder = write_folder(tmp_path / "model", name)
    (embedding,) = (own for own in load_file(folder / "model.safetensors") if "embed_tokens" in own)
    weights = load_file(folder / "model.safetensors")
    save_file({"lm_head.weight": weights.pop(embedding), **weights}, folder / "model.safetensors")
    edit(folder, tie_word_embeddings=True)
    assert_logits_equal(model, folder)


def test_llama_3_stretches_its_positions_as_the_reference_does(tmp_path: Path) -> None:
    """Written as `transformers` 4 did: `rope_theta` and `rope_scaling`."""
    scaling = {
        "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 32
    }  # fmt: skip
    _, folder = write_folder(tmp_path / "model", "llama")
    edit(folder, rope_parameters=None, rope_theta=500.0, rope_scaling=scaling)
    config = {**LLAMA_LIKE, "rope_parameters": {**scaling, "rope_theta": 500.0}}
    assert_logits_equal(make_model(replace(CASES["llama"], config=config)), folder)


@pytest.mark.parametrize(
    ("name", "rope", "older"),
    [
        ("llama", ROPE, {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32}),
        ("llama", ROPE, {"rope_type": "dynamic", "factor": 4.0}),
        ("llama", {**ROPE, "rope_type": "linear", "factor": 2.0}, {"type": "linear", "factor": 4.0}),
        ("gemma3", None, {"rope_type": "linear", "factor": 4.0}),
    ],
)
def test_scaling_told_twice_and_not_the_same_is_refused(
    name: str, rope: dict[str, Any] | None, older: dict[str, Any], tmp_path: Path
) -> None:
    """As where a model card's `rope_scaling` was added to what `transformers` 5 wrote, which takes it and loses `rope_theta`."""
    _, folder = write_folder(tmp_path / "model", name)
    edit(folder, rope_scaling=older, **({} if rope is None else {"rope_parameters": rope}))
    with pytest.raises(BadFileError, match="says twice how positions are scaled, and not the same: `rope_scaling` is ") as caught:
        open_source(folder)
    assert "into `rope_parameters`, beside its `rope_theta`, and remove `rope_scaling`" in (caught.value.hint or "")


@pytest.mark.parametrize("older", [None, {}, {"type": "linear", "factor": 4}])
def test_scaling_told_twice_in_the_same_way_is_no_error(older: dict[str, Any] | None, tmp_path: Path) -> None:
    _, folder = write_folder(tmp_path / "model", "llama")
    edit(folder, rope_parameters={**ROPE, "rope_type": "linear", "factor": 4.0})
    before = open_source(folder).metadata
    edit(folder, rope_scaling=older)
    assert open_source(folder).metadata == before


def test_what_a_gptoss_leaves_unsaid_of_its_scaling_is_not_said_beside_the_newer_form(tmp_path: Path) -> None:
    _, folder = write_folder(tmp_path / "model", "gpt-oss")
    edit(folder, rope_parameters=ROPE)
    assert "gpt-oss.rope.scaling.type" not in open_source(folder).metadata


def test_a_gemma_3_that_sees_answers_texts_as_the_reference_does(tmp_path: Path) -> None:
    """Its `config.json` as Google's: of the text part no more than what differs from `transformers`' own values."""
    model, folder = make_seeing_gemma3(), tmp_path / "model"
    save_folder(folder, model)
    names = ("hidden_size", "intermediate_size", "model_type", "num_hidden_layers", "sliding_window")
    told = {name: getattr(model.config.text_config, name) for name in names}
    edit(folder, text_config={**told, "rope_scaling": {"factor": 8.0, "rope_type": "linear"}})
    assert_logits_equal(model, folder)


def test_a_ministral_3_that_sees_answers_texts_as_the_reference_does(tmp_path: Path) -> None:
    model, folder = make_seeing_ministral3(), tmp_path / "model"
    save_folder(folder, model)
    assert_logits_equal(model, folder)


def test_texts_of_a_ministral_3_end_where_its_scores_begin_to_be_scaled_by_position(tmp_path: Path) -> None:
    _, folder = write_folder(tmp_path / "model", "mistral3")
    with nomoat.load(str(folder)) as model:
        with pytest.raises(ContextExceededError, match=f"context is {CONTEXT} tokens"):
            model.complete(Request(prompt=" the" * 300))
        assert model.notes == (f"texts end at {CONTEXT} tokens here: behind them this model's scores are scaled by position",)


def test_the_names_that_transformers_5_gives_the_tensors_of_a_gemma_3_that_sees_are_known(tmp_path: Path) -> None:
    save_folder(tmp_path, make_seeing_gemma3())
    before = SafetensorsFolder(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    assert any(name.startswith("vision_tower.") for name in weights)
    new = {f"model.{name}".replace("model.language_model.model.", "model.language_model."): weights[name] for name in weights}
    assert "model.language_model.norm.weight" in new
    save_file(new, tmp_path / "model.safetensors")
    after = SafetensorsFolder(tmp_path)
    assert after.tensors == before.tensors
    np.testing.assert_array_equal(after.rows("blk.3.attn_q.weight"), before.rows("blk.3.attn_q.weight"))


@pytest.mark.parametrize("kind", [kind for kind in FAMILIES if kind != "minicpm"])  # which `transformers` does not have
def test_what_config_json_leaves_unsaid_is_what_transformers_takes(kind: str, tmp_path: Path) -> None:
    def read(config: dict[str, Any]) -> tuple[Any, ...]:
        (tmp_path / "config.json").write_text(json.dumps(config))
        read = read_config(tmp_path)
        sizes = architectures.dimensions(read_metadata(read, FAMILIES[kind]), vocabulary=0)
        whole = sizes.head_dim if architectures.find(FAMILIES[kind].arch).positions == "rope" else None
        return replace(sizes, rotary_dim=sizes.rotary_dim or whole), bool(read.get("tie_word_embeddings"))

    assert read({"model_type": kind}) == read(transformers.CONFIG_MAPPING[kind]().to_dict())


def test_what_a_minicpm_leaves_unsaid_is_what_the_code_in_its_folder_takes() -> None:
    """OpenBMB's configuration_minicpm.py of 2025."""
    said = read_metadata({**FAMILIES["minicpm"].unsaid, "model_type": "minicpm"}, FAMILIES["minicpm"])
    sizes = architectures.dimensions(said, vocabulary=0)
    assert (sizes.layers, sizes.width, sizes.heads, sizes.kv_heads, sizes.hidden) == (32, 4096, 32, 32, 11008)
    assert (sizes.context_tokens, sizes.rope_base, sizes.logit_scale) == (2048, 10000.0, 1 / 4096)
    assert sizes.embedding_scale == pytest.approx(32**0.5) and sizes.norm_epsilon == pytest.approx(32e-6)


def test_gemma_2_has_its_caps_where_config_json_leaves_them_out_and_none_where_it_says_null(tmp_path: Path) -> None:
    _, folder = write_folder(tmp_path / "model", "gemma2")
    edit(folder, attn_logit_softcapping=None)
    config = json.loads((folder / "config.json").read_text())
    del config["final_logit_softcapping"], config["sliding_window"]
    (folder / "config.json").write_text(json.dumps(config))
    sizes = importer.read_sizes(SafetensorsFolder(folder))
    assert (sizes.attention_cap, sizes.logit_cap, sizes.window) == (None, 30.0, 4096)


def test_an_exaone_is_read_under_the_names_that_real_ones_give_its_sizes(tmp_path: Path) -> None:
    """Those of the code in their folders; `transformers` 5 writes its own."""
    model, folder = write_folder(tmp_path / "model", "exaone")
    rope = model.config.rope_parameters
    edit(folder, num_hidden_layers=None, num_layers=2, rms_norm_eps=None, layer_norm_epsilon=1e-5, hidden_act=None,
         activation_function="silu", rope_parameters=None, rope_theta=rope["rope_theta"], rope_scaling=rope)  # fmt: skip
    assert_logits_equal(model, folder)


def test_a_starcoder2_says_what_its_norms_add_under_a_name_of_its_own(tmp_path: Path) -> None:
    _, folder = write_folder(tmp_path / "model", "starcoder2")
    edit(folder, norm_epsilon=0.5)
    assert importer.read_sizes(SafetensorsFolder(folder)).norm_epsilon == 0.5


def test_the_width_of_a_bloom_is_read_under_the_name_that_real_ones_give_it(tmp_path: Path) -> None:
    model, folder = write_folder(tmp_path / "model", "bloom")
    edit(folder, hidden_size=None, n_embed=model.config.hidden_size)
    assert_logits_equal(model, folder)


def test_a_model_whose_window_is_not_known_to_its_family_is_answered_within_it(tmp_path: Path) -> None:
    _, folder = write_folder(tmp_path / "model", "qwen2")
    edit(folder, use_sliding_window=True, sliding_window=100, max_window_layers=1, layer_types=None)
    assert importer.read_sizes(SafetensorsFolder(folder)).context_tokens == 100
    with nomoat.load(str(folder)) as model, pytest.raises(ContextExceededError) as caught:
        model.complete(Request(prompt_ids=120 * [5]))
    assert "but the model's context is 100 tokens, the window that its tokens see" in caught.value.message


def test_yarn_that_is_switched_on_as_the_cards_of_qwen_have_it_makes_the_context_longer(tmp_path: Path) -> None:
    """Not beyond a window."""
    _, folder = write_folder(tmp_path / "model", "qwen3")
    scaling = {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64}
    edit(folder, rope_parameters=None, rope_theta=500.0, rope_scaling=scaling, max_position_embeddings=80)
    assert importer.read_sizes(SafetensorsFolder(folder)).context_tokens == 256
    edit(folder, use_sliding_window=True, sliding_window=100, max_window_layers=1, layer_types=None)
    sizes = importer.read_sizes(SafetensorsFolder(folder))
    assert (sizes.context_tokens, sizes.context_is_window) == (100, True)


def test_a_factor_of_yarn_that_transformers_does_not_read_is_left_out_with_a_note(tmp_path: Path) -> None:
    """As of DeepSeek-R1-0528-Qwen3-8B."""
    _, folder = write_folder(tmp_path / "model", "qwen3")
    edit(folder, rope_parameters={**YARN, "attn_factor": 0.8782488562869419})
    assert_logits_equal(transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval(), folder)
    with nomoat.load(str(folder)) as loaded:
        loaded.complete(Request(prompt_ids=[5, 6], max_new_tokens=1))
        note = "positions of this model ask for a factor of YaRN (`attn_factor`, 0.878249) that is left out, as in llama.cpp"
        assert loaded.notes == (note,)


@pytest.mark.parametrize("name", ["qwen2moe", "qwen3moe"])
def test_a_window_of_a_mixture_of_qwen_s_does_not_wait_for_its_last_layers(name: str, tmp_path: Path) -> None:
    """`max_window_layers` tells Qwen2's where windows end, and Qwen3's nothing."""
    _, folder = write_folder(tmp_path / "model", name)
    edit(folder, use_sliding_window=True, sliding_window=100, max_window_layers=28, layer_types=None)
    assert importer.read_sizes(SafetensorsFolder(folder)).context_tokens == 100
    edit(folder, use_sliding_window=False)
    assert importer.read_sizes(SafetensorsFolder(folder)).context_tokens == CONTEXT


def test_weights_that_are_rounded_on_loading_elsewhere_are_answered_as_they_lie_with_a_note(tmp_path: Path) -> None:
    """As of a QLoRA that was merged, whose `config.json` still names bitsandbytes."""
    model, folder = write_folder(tmp_path / "model", "llama")
    edit(folder, quantization_config={"quant_method": "bitsandbytes", "load_in_4bit": True})
    assert_logits_equal(model, folder)
    request = Request(prompt_ids=[5, 6], max_new_tokens=1)
    with nomoat.load(str(folder)) as loaded:
        loaded.complete(request)
        note = "`config.json` says that weights are quantised by `bitsandbytes`; they are read as the folder has them"
        assert loaded.notes == loaded.notes_on(request) == (note,)


@pytest.mark.parametrize(("told", "method"), [({"load_in_4bit": True}, "bitsandbytes"), ({"bits": 4}, "a method without a name")])
def test_a_method_that_config_json_does_not_name_is_not_called_none(told: dict[str, Any], method: str, tmp_path: Path) -> None:
    _, folder = write_folder(tmp_path / "model", "llama")
    edit(folder, quantization_config=told)
    note = f"`config.json` says that weights are quantised by `{method}`; they are read as the folder has them"
    assert open_source(folder).notes == (note,)


@pytest.mark.parametrize("kind", ["llama", "olmo"])
def test_a_folder_that_is_converted_already_is_called_so(tmp_path: Path, kind: str) -> None:
    """As optimum-intel writes it, be its architecture known here or not: what to do is the same."""
    (tmp_path / "config.json").write_text(json.dumps({"model_type": kind}))
    (tmp_path / "openvino_model.xml").touch()
    for read in (nomoat.load, open_source):
        with pytest.raises(BadFileError) as caught:
            read(tmp_path)
        assert caught.value.message == (
            f"`{tmp_path}` is converted to OpenVINO already (`openvino_model.xml`), and nomoat converts by itself"
        )


def test_a_folder_that_is_an_adapter_is_called_so(tmp_path: Path) -> None:
    folder = write_adapter(tmp_path / "mine")
    with pytest.raises(BadFileError) as caught:
        nomoat.load(str(folder))
    assert (caught.value.message, caught.value.hint) == (
        f"`{folder}` is an adapter, no model", f"name its base before it: BASE+{folder}"
    )  # fmt: skip


@pytest.mark.parametrize(
    ("method", "name", "dtype"),
    [
        ("awq", "qweight", torch.int32),
        ("gptq", "qweight", torch.int32),
        ("bitsandbytes", "weight", torch.uint8),
        ("fp8", "weight", torch.float8_e4m3fn),
        ("bitsandbytes", "SCB", torch.float32),
    ],
)
def test_weights_in_codes_of_another_method_are_refused_by_its_name(
    method: str, name: str, dtype: torch.dtype, tmp_path: Path
) -> None:
    _, folder = write_folder(tmp_path / "model", "llama")
    stored = load_file(folder / "model.safetensors")
    layer = "model.layers.0.self_attn.q_proj"
    stored[f"{layer}.{name}"] = stored.pop(f"{layer}.weight").to(dtype)
    save_file(stored, folder / "model.safetensors")
    edit(folder, quantization_config={"quant_method": method, "bits": 4})
    with pytest.raises(UnsupportedError, match=f"tensor `{layer}.{name}`") as caught:
        open_source(folder)
    assert caught.value.hint == f"its weights are quantised by `{method}`: take the model they were made from, or a GGUF file of it"


@pytest.mark.parametrize(
    ("family", "method", "name", "dtype", "hint"),
    [
        ("llama", "bitsandbytes", "self_attn.q_norm.weight", torch.float32, "it is a variant that nomoat would answer wrongly"),
        ("gpt-oss", "mxfp4", "self_attn.q_norm.scales", torch.float32, "it is a variant that nomoat would answer wrongly"),
        ("gpt-oss", "mxfp4", "self_attn.q_proj.weight", torch.int8, "it reads F64, F32, F16, BF16; of quantised weights"),
    ],
)
def test_what_is_refused_for_another_cause_than_codes_says_that_of_a_quantised_folder_too(
    family: str, method: str, name: str, dtype: torch.dtype, hint: str, tmp_path: Path
) -> None:
    _, folder = write_folder(tmp_path / "model", family)
    path = folder / "model.safetensors"
    save_file({**load_file(path), f"model.layers.0.{name}": torch.ones(16, dtype=dtype)}, path)
    edit(folder, quantization_config={"quant_method": method})
    with pytest.raises(UnsupportedError, match=f"tensor `model.layers.0.{name}`") as caught:
        open_source(folder)
    assert (caught.value.hint or "").startswith(hint)


@pytest.mark.parametrize(
    "changes",
    [
        {"use_sliding_window": None},
        {"use_sliding_window": False, "layer_types": ["sliding_attention", "full_attention"]},
        {"use_sliding_window": True, "layer_types": ["full_attention", "full_attention"]},
        {"use_sliding_window": True, "layer_types": None, "max_window_layers": 2},
    ],
)
def test_a_window_that_no_layer_has_shortens_nothing(changes: dict[str, Any], tmp_path: Path) -> None:
    _, folder = write_folder(tmp_path / "model", "qwen2")
    edit(folder, sliding_window=100, **changes)
    assert importer.read_sizes(SafetensorsFolder(folder)).context_tokens == CONTEXT


def test_a_window_is_no_part_of_a_llama_and_mistral_has_one_it_does_not_state(tmp_path: Path) -> None:
    """As in `transformers`, whose Llama reads no such key."""
    _, folder = write_folder(tmp_path / "model", "llama")
    edit(folder, sliding_window=WINDOW)
    assert importer.read_sizes(SafetensorsFolder(folder)).window is None
    edit(folder, model_type="mistral")
    assert importer.read_sizes(SafetensorsFolder(folder)).window == WINDOW
    facts = json.loads((folder / "config.json").read_text())
    del facts["sliding_window"]
    (folder / "config.json").write_text(json.dumps(facts))
    assert importer.read_sizes(SafetensorsFolder(folder)).window == 4096
    edit(folder, sliding_window=None)
    assert importer.read_sizes(SafetensorsFolder(folder)).window is None


def test_a_cap_of_scores_is_no_part_of_gemma_3(tmp_path: Path) -> None:
    """`transformers` reads the key, and caps nothing."""
    _, folder = write_folder(tmp_path / "model", "gemma3")
    edit(folder, attn_logit_softcapping=2.0, final_logit_softcapping=3.0)
    sizes = importer.read_sizes(SafetensorsFolder(folder))
    assert (sizes.attention_cap, sizes.logit_cap) == (None, 3.0)
    assert_logits_equal(transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval(), folder)


def test_longrope_with_a_factor_of_its_own_is_as_loud_as_the_reference(tmp_path: Path) -> None:
    _, folder = write_folder(tmp_path / "model", "llama")
    factors = {"short_factor": SHORT.tolist(), "long_factor": LONG.tolist(), "original_max_position_embeddings": FIRST_CONTEXT}
    edit(folder, rope_parameters={**ROPE, "rope_type": "longrope", "factor": 4.0, **factors})
    assert_logits_equal(transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval(), folder)


def test_gelu_means_its_approximation_by_tanh_in_the_first_gemmas(tmp_path: Path) -> None:
    _, folder = write_folder(tmp_path / "model", "gemma")
    edit(folder, hidden_act="gelu", hidden_activation=None)
    assert SafetensorsFolder(folder).metadata["general.architecture"] == "gemma"


@pytest.mark.parametrize(("name", "told"), [("gptneox", "gelu_fast"), ("gpt2", "gelu")])
def test_a_folder_says_which_gelu_its_layers_have(name: str, told: str, tmp_path: Path) -> None:
    """GPT-NeoX-20B has the one by tanh, Pythia the exact one. The activation is there in what is tuned, too."""
    _, folder = write_folder(tmp_path / "model", name)
    usual = open_source(folder)
    edit(folder, **{"hidden_act" if name == "gptneox" else "activation_function": told})
    assert_logits_equal(transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval(), folder)
    assert {architectures.of(source).activation for source in (usual, open_source(folder))} == {"gelu", "gelu_tanh"}


def with_settings(folder: Path, **settings: Any) -> tuple[Tokenizer, Any]:
    """A tiny folder's tokenizer with these settings, and that of `transformers`."""
    path = folder / "tokenizer_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **settings}))
    return folder_tokenizer.read(folder), transformers.AutoTokenizer.from_pretrained(folder)


def test_all_tokens_that_a_tokenizer_puts_before_a_text_stand_there(tmp_path: Path) -> None:
    """As GLM-4's, which puts two."""
    _, folder = write_folder(tmp_path / "model", "llama")
    marks = ["[gMASK]", "<sop>"]
    backend = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    backend.add_special_tokens(marks)
    ids = list(map(backend.token_to_id, marks))
    before = tokenizers.processors.TemplateProcessing(single="[gMASK] <sop> $A", special_tokens=list(zip(marks, ids, strict=True)))
    backend.post_processor = tokenizers.processors.Sequence([tokenizers.processors.ByteLevel(trim_offsets=False), before])
    backend.save(str(folder / "tokenizer.json"))
    ours, theirs = with_settings(folder)
    ours.save(tmp_path)
    for made in (ours, load(tmp_path)):
        assert made.encode("the hello", add_bos=True) == theirs("the hello")["input_ids"]
        assert made.encode("the hello", add_bos=True)[:2] == ids and made.encode("the")[0] not in ids


def test_tokens_that_only_the_settings_beside_a_tokenizer_name_are_tokens_as_in_transformers(tmp_path: Path) -> None:
    _, folder = write_folder(tmp_path / "model", "llama")
    last = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json")).get_vocab_size()
    edit(folder, vocab_size=last + 3)
    decoder = {str(last + at): {"content": text, "special": at == 0} for at, text in enumerate(("<new>", "<plain>"))}
    settings = {"added_tokens_decoder": decoder, "eos_token": "<ends>", "additional_special_tokens": ["<new>", "<no row>"]}
    ours, theirs = with_settings(folder, **settings)
    text = "the<new>hello<plain> <ends>"
    assert ours.encode(text) == theirs(text, add_special_tokens=False)["input_ids"]
    assert [ours.encode(token) for token in ("<new>", "<plain>", "<ends>")] == [[last], [last + 1], [last + 2]]
    assert ours.decode(ours.encode(text)) == "thehello<plain> "
    assert ours.special.eos_id == last + 2 and last + 2 in ours.special.stop_ids
    assert len(ours.encode("<no row>")) > 1  # the model could not read it
    with pytest.raises(BadFileError, match=rf"^the token `<far>` has the number {last + 2}, and there are {last} before it"):
        with_settings(folder, added_tokens_decoder={str(last + 2): {"content": "<far>"}})
    with pytest.raises(BadFileError, match="`additional_special_tokens` in the settings of"):
        with_settings(folder, added_tokens_decoder={}, additional_special_tokens=[5])


def test_a_token_that_the_settings_give_another_one_s_number_is_none_where_the_model_has_no_row_for_it(tmp_path: Path) -> None:
    _, folder = write_folder(tmp_path / "model", "llama")
    count = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json")).get_vocab_size()
    for rows in (count, count + 1):
        edit(folder, vocab_size=rows)
        ours, theirs = with_settings(folder, added_tokens_decoder={"5": {"content": "<renamed>", "special": True}})
        assert (max(ours.encode("the<renamed>hello")) == count) == (rows > count)
    assert ours.encode("the<renamed>hello") == theirs("the<renamed>hello", add_special_tokens=False)["input_ids"]


@pytest.mark.parametrize("has_json", [True, False])
@pytest.mark.parametrize("name", ["pad_token", "unk_token"])
def test_a_word_that_fills_up_rows_or_stands_for_unknown_ones_stays_in_answers(name: str, has_json: bool, tmp_path: Path) -> None:
    """`transformers` leaves such a word, as a "!" that pads, out of all of them; a token that was added is left out here, too."""
    folder = write_folder(tmp_path / "model", "llama")[1] if has_json else base(gpt2_files(tmp_path), model_type="gpt2")
    ours, theirs = with_settings(folder, **{name: "!"})
    ids = theirs("the!! hello", add_special_tokens=False)["input_ids"]
    assert ours.encode("the!! hello") == ids
    assert ours.decode(ids) == "the!! hello"
    ours, _ = with_settings(folder, **{name: SPECIAL[0]})
    assert ours.decode(ours.encode(f"the{SPECIAL[0]}")) == "the"


@pytest.mark.parametrize("where", ["settings", "files", "file before settings"])
def test_a_folder_s_template_for_functions_is_used_where_there_are_some_as_in_transformers(where: str, tmp_path: Path) -> None:
    _, folder = write_folder(tmp_path / "model", "llama")
    templates = {"default": "D {{ messages[0].content }}", "tool_use": "T {{ tools | length }}{{ messages[0].tool_calls }}"}
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    settings["chat_template"] = [{"name": name, "template": text} for name, text in templates.items()]
    if where == "file before settings":
        (folder / "chat_template.jinja").write_text("F {% if tools %}{{ tools | length }}{% endif %}{{ messages[0].tool_calls }}")
    if where == "files":
        del settings["chat_template"]
        (folder / "additional_chat_templates").mkdir()
        (folder / "chat_template.jinja").write_text(templates["default"])
        (folder / "additional_chat_templates" / "tool_use.jinja").write_text(templates["tool_use"])
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    tool = {"type": "function", "function": {"name": "f", "description": "", "parameters": {"type": "object", "properties": {}}}}
    ours, theirs = folder_tokenizer.read(folder), transformers.AutoTokenizer.from_pretrained(folder)
    for tools in ([], [tool]):
        expected = theirs.apply_chat_template([{"role": "user", "content": "hi"}], tools=tools or None, tokenize=False)
        assert ours.render((Message(role="user", content="hi"),), tools=list(map(json.dumps, tools))) == expected
    assert set(folder.rglob("*.jinja")) <= set(model_files(folder))


@pytest.mark.parametrize("is_numbered", [False, True])
def test_special_tokens_that_an_older_transformers_wrote_elsewhere_are_read_as_by_it(is_numbered: bool, tmp_path: Path) -> None:
    """In `special_tokens_map.json`, which counts where `tokenizer_config.json` does not number its tokens, and only there makes
    another model."""
    _, folder = write_folder(tmp_path / "model", "llama")
    older = {"bos_token": SPECIAL[1], "eos_token": {"content": SPECIAL[0], "lstrip": False}, "pad_token": None}
    (folder / "special_tokens_map.json").write_text(json.dumps(older))
    template = "{{ bos_token }}{{ messages[0].content }}{{ eos_token }}"
    settings = {"bos_token": SPECIAL[0], "eos_token": SPECIAL[2], "chat_template": template}
    decoder = {str(at): {"content": token, "special": True} for at, token in enumerate(SPECIAL)}
    ours, theirs = with_settings(folder, **settings, **({"added_tokens_decoder": decoder} if is_numbered else {}))
    expected = theirs.apply_chat_template([{"role": "user", "content": "hi"}], tokenize=False, add_generation_prompt=True)
    assert ours.render((Message(role="user", content="hi"),)) == expected
    assert expected == (f"{SPECIAL[0]}hi{SPECIAL[2]}" if is_numbered else f"{SPECIAL[1]}hi{SPECIAL[0]}")
    assert (folder / "special_tokens_map.json" in model_files(folder)) is not is_numbered


def test_what_a_family_does_not_read_may_say_anything(tmp_path: Path) -> None:
    _, folder = write_folder(tmp_path / "model", "gpt2")
    edit(folder, hidden_act="silu", rotary_dim=4, rotary_pct=0.5)
    assert importer.read_sizes(SafetensorsFolder(folder)).rotary_dim is None


def test_a_folder_answers_under_its_path(tmp_path: Path) -> None:
    _, folder = write_folder(tmp_path / "model", "llama")
    with nomoat.load(str(folder)) as model:
        assert model.complete(Request(prompt="the hello", max_new_tokens=5)).usage.completion_tokens > 0


def test_a_folder_that_was_pulled_answers_under_its_name_on_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, folder = write_folder(tmp_path / "mirror" / "owner" / "repo", "llama", max_shard_size="100KB")
    monkeypatch.setenv("NOMOAT_MIRROR", str(tmp_path / "mirror"))
    pulled = pull.pull_model("hf:owner/repo")
    assert len(list(pulled.glob("*.safetensors"))) > 2
    with nomoat.load("hf:owner/repo") as model, nomoat.load(str(folder)) as same:
        assert model.digest == same.digest
        assert model.complete(Request(prompt="the hello", max_new_tokens=3)).usage.completion_tokens > 0


def test_other_weights_in_the_same_folder_are_imported_anew(tmp_path: Path) -> None:
    _, folder = write_folder(tmp_path / "model", "llama")
    first = importer.import_gguf(folder)
    assert importer.import_gguf(folder) == first
    edit(folder, rms_norm_eps=0.5)
    assert importer.import_gguf(folder) != first


# ---------------------------------------------------------------- what is refused
def test_an_unknown_architecture_is_refused_by_name(tmp_path: Path) -> None:
    _, folder = write_folder(tmp_path / "model", "llama")
    edit(folder, model_type="rwkv")
    with pytest.raises(UnsupportedError, match="the architecture `rwkv` is not one that nomoat can import"):
        importer.import_gguf(folder)


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("llama", {"hidden_act": "gelu"}, "this model's activation is `gelu` where that of `llama` is silu"),
        ("llama", {"rope_parameters": {"rope_type": "dynamic", "factor": 4.0}}, r"this model scales its positions \(`dynamic`\)"),
        ("llama", {"partial_rotary_factor": 0.5}, "this model turns 0.5 of each head's elements where `llama` turns all"),
        ("qwen2", {"rope_parameters": {**ROPE, "partial_rotary_factor": 0.25}}, "this model turns 0.25 of each head's elements"),
        ("gemma", {"hidden_act": "silu"}, "this model's activation is `silu` where that of `gemma` is gelu_tanh"),
        ("gemma", {"hidden_activation": "silu"}, "this model's activation is `silu`"),
        ("gemma2", {"hidden_activation": "gelu"}, "this model's activation is `gelu` where that of `gemma2` is gelu_t"),
        ("gemma3", {"hidden_activation": "relu"}, "this model's activation is `relu`"),
        ("gemma2", {"layer_types": [*SEES_WINDOW, *SEES_ALL, *SEES_ALL, *SEES_WINDOW]}, r"windows lie in other layers .* `gemma2`"),
        ("gemma2", {"layer_types": 4 * SEES_WINDOW}, "windows lie in other layers"),
        ("gemma3", {"layer_types": [*5 * SEES_WINDOW, *2 * SEES_ALL]}, r"windows lie in other layers .* `gemma3`"),
        ("gemma3", {"layer_types": 7 * SEES_WINDOW}, "windows lie in other layers"),
        ("gemma3", {"layer_types": None, "sliding_window_pattern": 3}, r"windows follow another pattern \(3\)"),
        (
            "gemma3",
            {"rope_parameters": {"full_attention": ROPE, "sliding_attention": {**ROPE, "rope_type": "linear", "factor": 4.0}}},
            r"scales its positions in layers with a window \(`linear`\)",
        ),
        ("exaone4", {"layer_types": 5 * SEES_ALL}, r"windows lie in other layers .* `exaone4`"),
        ("exaone4", {"layer_types": None, "sliding_window_pattern": "LG"}, r"windows follow another pattern \(LG\)"),
        ("cohere2", {"sliding_window": None}, "no layer of this Command R7B has a window, nor turns by positions"),
        ("minicpm", {"sparse_config": {"topk": 64}}, r"a token of this model sees a choice of those before it \(`sparse_config`\)"),
        ("smollm3", {"no_rope_layers": [1, 1, 0, 1]}, "other layers of this SmolLM3 turn by positions than of others"),
        ("smollm3", {"no_rope_layers": None, "no_rope_layer_interval": 3}, "other layers of this SmolLM3 turn by positions"),
        ("smollm3", {"use_sliding_window": True, "sliding_window": 8}, "this SmolLM3 sees a window"),
        ("opt", {"_remove_final_layer_norm": True}, "this OPT lacks its last norm"),
        ("falcon 7b", {"alibi": True}, "this Falcon has ALiBi"),
        ("olmoe", {"clip_qkv": 8.0}, r"this model keeps its queries, keys and values within limits \(`olmoe\.attention\.clamp_kqv`\)"),
        ("mpt", {"attn_config": {"alibi": False}}, r"this MPT is of another variant \(no ALiBi\), which nomoat"),
        ("gemma3", {"query_pre_attn_scalar": 7}, "this Gemma divides its scores by the root of 7 where others .* take 32"),
        ("gemma2", {"query_pre_attn_scalar": 16}, "this Gemma divides its scores by the root of 16 where others .* take 32"),
        ("gemma", {"use_bidirectional_attention": True}, "each token of this model sees those after it, too"),
        ("gemma3", {"use_bidirectional_attention": True}, "each token of this model sees those after it, too"),
        (
            "llama",
            {"quantization_config": {"quant_method": "bitnet"}},
            "weights and inputs of this model are rounded as they are used",
        ),
        ("qwen2", {"is_causal": False}, "each token of this model sees those after it, too"),
        ("gpt2", {"scale_attn_by_inverse_layer_idx": True}, "this GPT-2 scales its scores in another way than others"),
        ("gpt2", {"scale_attn_weights": False}, "this GPT-2 scales its scores in another way than others"),
        ("bloom", {"apply_residual_connection_post_layernorm": True}, "this model adds attention and MLP to what their norms gave"),
        ("falcon 7b", {"apply_residual_connection_post_layernorm": True}, "this model adds attention and MLP to what their norms"),
    ],
)
def test_a_variant_that_would_be_answered_wrongly_is_refused(name: str, changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    _, folder = write_folder(tmp_path / "model", name)
    edit(folder, **changes)
    with pytest.raises(UnsupportedError, match=message):
        importer.import_gguf(folder)


@pytest.mark.parametrize(
    ("family", "tensor"),
    [
        ("llama", "model.layers.0.self_attn.sinks"),
        ("opt", "model.decoder.layers.0.self_attn.sinks.weight"),
        ("opt", "model.decoder.layers.0.weight"),  # of a layer, and of no part of it
    ],
)
def test_a_tensor_the_architecture_does_not_have_is_refused_by_name(family: str, tensor: str, tmp_path: Path) -> None:
    _, folder = write_folder(tmp_path / "model", family)
    path = folder / "model.safetensors"
    save_file({**load_file(path), tensor: torch.ones(4)}, path)
    with pytest.raises(UnsupportedError, match=rf"the tensor `{re.escape(tensor)}`, which the architecture `{family}`"):
        importer.import_gguf(folder)


def test_weights_in_a_type_nomoat_cannot_read_are_refused_by_name(tmp_path: Path) -> None:
    _, folder = write_folder(tmp_path / "model", "llama", dtype=torch.float16)
    save_file({"model.norm.weight": torch.ones(64, dtype=torch.int8)}, folder / "model.safetensors")
    with pytest.raises(UnsupportedError, match=r"tensor `model\.norm\.weight` of .* has the type I8"):
        importer.import_gguf(folder)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.bool])
def test_masks_beside_the_weights_may_be_of_any_type(dtype: torch.dtype, tmp_path: Path) -> None:
    """As in real Pythias: a mask a layer, of bytes or of truths."""
    _, folder = write_folder(tmp_path / "model", "gptneox")
    before, path = SafetensorsFolder(folder).tensors, folder / "model.safetensors"
    mask = torch.ones(1, 1, 8, 8).tril().to(dtype)
    save_file({**load_file(path), "gpt_neox.layers.0.attention.bias": mask, "gpt_neox.layers.1.attention.bias": mask.clone()}, path)
    assert SafetensorsFolder(folder).tensors == before
    foreign = ForeignFolder(folder).tensors
    assert len(foreign) > len(before) / 2 and "gpt_neox.layers.0.attention.bias" not in foreign


def test_a_missing_file_of_weights_is_named(tmp_path: Path) -> None:
    _, folder = write_folder(tmp_path / "model", "llama", max_shard_size="100KB")
    lost = sorted(folder.glob("*.safetensors"))[1]
    lost.unlink()
    with pytest.raises(BadFileError, match=f"lacks 1 of its .* files of weights: {lost.name}"):
        importer.import_gguf(folder)


@pytest.mark.parametrize("are_left", [True, False], ids=["old shards", "none"])
def test_a_whole_file_of_weights_goes_before_an_index_that_was_left_there(are_left: bool, tmp_path: Path) -> None:
    """As in `transformers`, whose second `save_pretrained` into a folder leaves the first one's index."""
    model, folder = write_folder(tmp_path / "model", "llama", max_shard_size="100KB")
    for shard in folder.glob("*.safetensors"):
        if are_left:
            save_file({name: torch.zeros_like(tensor) for name, tensor in load_file(shard).items()}, shard)
        else:
            shard.unlink()
    save_file(model.state_dict(), folder / "model.safetensors")
    assert_logits_equal(model, folder)


def test_weights_that_pytorch_wrote_alone_are_named_with_how_to_write_them_anew(tmp_path: Path) -> None:
    model, folder = write_folder(tmp_path / "model", "llama")
    (folder / "model.safetensors").unlink()
    torch.save(model.state_dict(), folder / "pytorch_model.bin")
    with pytest.raises(BadFileError) as caught:
        importer.import_gguf(folder)
    assert caught.value.message == f"`{folder}` holds no `model.safetensors`, only `pytorch_model.bin`"
    code = f"AutoModelForCausalLM.from_pretrained({str(folder)!r}).save_pretrained({str(folder)!r})"
    assert caught.value.hint == f"write it with transformers, in Python: `{code}`"
    eval(code, {"AutoModelForCausalLM": transformers.AutoModelForCausalLM})
    assert_logits_equal(model, folder)


def test_weights_without_their_index_or_in_another_form_are_named(tmp_path: Path) -> None:
    _, folder = write_folder(tmp_path / "model", "llama")
    (folder / "model.safetensors").rename(folder / "model-00001-of-00002.safetensors")
    (folder / "model-00002-of-00002.safetensors").write_bytes((folder / "model-00001-of-00002.safetensors").read_bytes())
    with pytest.raises(BadFileError) as caught:
        importer.import_gguf(folder)
    message = "holds `model-00001-of-00002.safetensors` and no `model.safetensors.index.json`, which names them all"
    assert caught.value.message == f"`{folder}` {message}"
    for file in folder.glob("model*.safetensors"):
        file.unlink()
    (folder / "consolidated.00.pth").touch()
    with pytest.raises(BadFileError, match=r"holds its weights in their maker's own form, `consolidated.00.pth`"):
        importer.import_gguf(folder)


def test_a_model_that_lies_in_the_folder_is_named(tmp_path: Path) -> None:
    for name in ("b.GGUF", "a-mmproj.gguf", "c.gguf"):
        (tmp_path / name).touch()
    with pytest.raises(BadFileError) as caught:
        importer.import_gguf(tmp_path)
    assert caught.value.hint == f"name the file in it: `{tmp_path / 'b.GGUF'}`, or another of the 2"
    (file := tmp_path / "models/publisher/model/m.gguf").parent.mkdir(parents=True)  # as LM Studio has them
    file.touch()
    for folder in (file.parents[2], file.parents[1], file.parent):
        with pytest.raises(BadFileError) as caught:
            importer.import_gguf(folder)
        assert caught.value.hint == f"name the file in it: `{file}`"
    cached = tmp_path / "models--o--r"
    (snapshot := cached / "snapshots" / "0a1b").mkdir(parents=True)
    (snapshot / "config.json").write_text("{}")
    with pytest.raises(BadFileError) as caught:
        importer.import_gguf(cached)
    assert caught.value.hint == f"name the folder of the model in it: `{snapshot}`"
    write_folder(snapshot, "llama")
    for kind in (None, ["llama"]):
        edit(snapshot, model_type=kind)
        with pytest.raises(BadFileError, match=r"its `config.json` does not say `model_type`"):
            importer.import_gguf(snapshot)


def test_codes_of_mlx_are_told_by_its_name(tmp_path: Path) -> None:
    _, folder = write_folder(tmp_path / "model", "llama")
    edit(folder, quantization={"group_size": 64, "bits": 4}, quantization_config={"group_size": 64, "bits": 4})
    tensors = load_file(folder / "model.safetensors")
    name = "model.layers.0.self_attn.q_proj.weight"
    save_file(tensors | {name: torch.zeros(tensors[name].shape, dtype=torch.uint32)}, folder / "model.safetensors")
    with pytest.raises(UnsupportedError) as caught:
        importer.import_gguf(folder)
    assert caught.value.hint == "its weights are quantised by `MLX`: take the model they were made from, or a GGUF file of it"


def test_a_folder_that_is_no_model_says_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(BadFileError) as caught:
        importer.import_gguf(tmp_path)
    assert caught.value.message == f"`{tmp_path}` is no model: it has no `config.json`"


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json"])
def test_what_git_leaves_in_the_place_of_a_file_is_told_as_such(name: str, tmp_path: Path) -> None:
    _, folder = write_folder(tmp_path / "model", "llama")
    (folder / name).write_text(f"version https://git-lfs.github.com/spec/v1\noid sha256:{64 * '0'}\nsize 123456789\n")
    with pytest.raises(BadFileError) as caught:
        importer.import_gguf(folder)
    assert caught.value.message == f"`{folder / name}` is a pointer to the file, not the file"


def test_cut_weights_are_refused(tmp_path: Path) -> None:
    _, folder = write_folder(tmp_path / "model", "llama")
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(BadFileError, match=r"is not a whole safetensors file: tensor `.*` ends at byte"):
        importer.import_gguf(folder)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_attention_heads": "many"}, "config.json says `num_attention_heads` = 'many', which is not a whole number"),
        ({"num_attention_heads": 0.5}, "config.json says `num_attention_heads` = 0.5, which is not a whole number"),
        ({"hidden_size": True}, "config.json says `hidden_size` = True, which is not a whole number"),
        ({"head_dim": 1e300}, "config.json says `head_dim` = 1e+300, which is not a whole number"),
        ({"tie_word_embeddings": "no"}, "config.json says `tie_word_embeddings` = 'no', which is not true or false"),
        ({"rope_parameters": [3]}, "config.json says `rope_parameters` = [3], which is not an object"),
        ({"rope_parameters": {"factor": []}}, "config.json says `factor` = [], which is not a number"),
        ({"rope_parameters": {"rope_type": "linear"}}, "config.json scales positions as `linear` and says no `factor`"),
        ({"num_hidden_layers": 10**9}, "`FOLDER/config.json` says 1000000000 layers, and 21 tensors make 5 at most"),
        ({"num_hidden_layers": 6}, "`FOLDER/config.json` says 6 layers, and 21 tensors make 5 at most"),
        ({"num_hidden_layers": None}, "`FOLDER/config.json` says None layers, and 21 tensors make 5 at most"),
    ],
)
def test_values_of_another_kind_or_size_are_named(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    _, folder = write_folder(tmp_path / "model", "llama")
    edit(folder, **changes)
    with pytest.raises(BadFileError) as caught:
        importer.import_gguf(folder)
    assert caught.value.message == message.replace("FOLDER/", f"{folder}{os.sep}")


def test_factors_of_heads_a_billion_wide_are_not_made(tmp_path: Path) -> None:
    _, folder = write_folder(tmp_path / "model", "qwen2")
    edit(folder, head_dim=10**9, rope_parameters={"rope_type": "llama3", "factor": 2.0})
    with pytest.raises(BadFileError, match="says that heads are 1,000,000,000 wide"):
        importer.import_gguf(folder)


@pytest.mark.parametrize("name", ["config.json", "tokenizer_config.json", "generation_config.json"])
@pytest.mark.parametrize("content", [b"[" * 200_000, b'{"a": "\\ud800"}', b"\xff", b"[]"])
def test_json_that_cannot_be_read_is_named(name: str, content: bytes, tmp_path: Path) -> None:
    _, folder = write_folder(tmp_path / "model", "llama")
    (folder / name).write_bytes(content)
    with pytest.raises(BadFileError, match=rf"(?m)^`{re.escape(str(folder / name))}` (cannot be read: .*|holds no JSON object)$"):
        importer.import_gguf(folder)


def test_a_header_of_lists_in_lists_is_refused(tmp_path: Path) -> None:
    _, folder = write_folder(tmp_path / "model", "llama")
    header = b'{"a": ' + b"[" * 200_000 + b"]" * 200_000 + b"}"
    (folder / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header)
    with pytest.raises(BadFileError, match=r"is not a whole safetensors file: its header is damaged"):
        importer.import_gguf(folder)


def test_a_tensor_of_no_dimensions_is_refused_by_name(tmp_path: Path) -> None:
    _, folder = write_folder(tmp_path / "model", "llama")
    path = folder / "model.safetensors"
    save_file({**load_file(path), "model.norm.weight": torch.tensor(1.0)}, path)
    with pytest.raises(BadFileError, match=r"holds a single number as `model\.norm\.weight`"):
        importer.import_gguf(folder)


@pytest.mark.parametrize("tensor", ["output_project.weight", "token_embd_project.weight"])
def test_an_embedding_of_another_width_has_both_matrices_that_lead_to_the_layers(tensor: str, tmp_path: Path) -> None:
    """Products of a file's own codes would read behind the end of shorter rows."""
    source = SafetensorsFolder(write_folder(tmp_path / "model", "opt 350m")[1])
    importer.read_sizes(source)
    found = source.tensors.pop(tensor)
    with pytest.raises(BadFileError, match=tensor):
        importer.read_sizes(source)
    source.tensors[tensor] = replace(found, shape=found.shape[::-1])
    with pytest.raises(BadFileError, match=f"`{tensor}` is .* and should be"):
        importer.read_sizes(source)


def test_last_hidden_states_of_another_width_than_the_layers_are_embeddings(tmp_path: Path) -> None:
    reference, folder = write_folder(tmp_path / "model", "opt 350m")
    with nomoat.load(str(folder)) as model, torch.no_grad():
        ids = model.engine.tokenizer.encode("the hello", add_bos=True)
        expected = reference(input_ids=torch.tensor([ids]), output_hidden_states=True).hidden_states[-1][0].mean(0).numpy()
        (ours,) = model.embed(["the hello"])
    assert float(ours @ expected / np.linalg.norm(ours) / np.linalg.norm(expected)) > 0.99


def test_a_number_without_an_end_is_damage(tmp_path: Path) -> None:
    """To put it together took time by the square of its bytes: of ten million, hours."""
    (tmp_path / "tokenizer.model").write_bytes(b"\xff" * 10**6)
    base(tmp_path, eos_token_id=2)
    with pytest.raises(BadFileError, match="a number of more than 10 bytes"):
        folder_tokenizer.read(tmp_path)


def test_a_table_of_letters_that_is_a_number_is_damage(tmp_path: Path) -> None:
    """Python makes so many zeros of it."""
    piece, rules = b"\x0a\x03</s", b"\x10\x80\x80\x80\x80\x20"  # a number of 2^33 where bytes should be
    bpe = b"\x18\x02"
    fields = [(1, piece), (2, bpe), (3, rules)]
    (tmp_path / "tokenizer.model").write_bytes(b"".join(bytes([field << 3 | 2, len(value)]) + value for field, value in fields))
    base(tmp_path, eos_token_id=0)
    with pytest.raises(BadFileError, match=r"the file's `tokenizer\.ggml\.precompiled_charsmap` is not what it should be"):
        folder_tokenizer.read(tmp_path)


def test_a_token_the_weights_do_not_have_is_refused_wherever_it_stands(tmp_path: Path) -> None:
    """A vocabulary may be larger than its model: Gemma 3's has one token more, for images."""
    _, folder = write_folder(tmp_path / "model", "llama")
    path = folder / "tokenizer.json"
    tokenizer = tokenizers.Tokenizer.from_file(str(path))
    size = SafetensorsFolder(folder).tensor("token_embd.weight").shape[0]
    tokenizer.add_special_tokens([f"<new {number}>" for number in range(size + 1 - tokenizer.get_vocab_size())])
    tokenizer.save(str(path))
    last = tokenizer.id_to_token(size)
    with nomoat.load(str(folder)) as model:
        for ask in (
            lambda: model.engine.count_tokens(Request(prompt=f"the {last}")),
            lambda: model.score(Request(prompt=f"the {last}"), ["he"]),
            lambda: model.score(Request(prompt="the"), ["he", last]),
            lambda: model.embed([last]),
        ):
            with pytest.raises(UsageError) as caught:
                ask()
            assert caught.value.message == f"token {size} is not one of this model's {size}"
            assert caught.value.hint == f"its weights do not have `{last}`: leave it out"
        (one,) = [
            chunk.likelihoods for chunk in model.stream(Request(prompt="the", max_new_tokens=1, top_logprobs=2)) if chunk.likelihoods
        ]
        assert len(one[0].top) == 2
        assert len(model.prompt_likelihoods(Request(prompt="the hello"))) > 1
        asked = Request(prompt="the", json_schema='{"type": "boolean"}', temperature=1.0, seed=1)
        assert model.complete(asked).text in ("true", "false")
    table = tmp_path / "t.csv"
    table.write_text(f"text,label\none,a\ntwo {last},b\n")
    with pytest.raises(DataError, match=f"line 3: the model's weights do not have the token `{last}`"):
        prepare(str(folder), table, input_column="text", label_column="label")


# ---------------------------------------------------------------- tokenizers
TEXTS = [
    "", "the hello", " 두 칸  띄움", "Hello  world\n\n\tdef f(a):  # 주석", "<|im_start|>user\n안녕?<|im_end|>",
    "12345 🙂👨‍👩‍👧 ＡＢＣ ﬁ",
]  # fmt: skip


def base(folder: Path, **config: Any) -> Path:
    (folder / "config.json").write_text(json.dumps({"model_type": "llama", **config}))
    return folder


def test_a_tokenizer_json_gives_the_ids_of_transformers(tmp_path: Path) -> None:
    _, folder = write_folder(tmp_path / "model", "llama")
    ours, theirs = folder_tokenizer.read(folder), transformers.AutoTokenizer.from_pretrained(folder)
    for text in TEXTS:
        assert ours.encode(text) == theirs.encode(text, add_special_tokens=False), text
    messages = (Message(role="user", content="안녕?"),)
    assert ours.render(messages) == theirs.apply_chat_template(
        [{"role": "user", "content": "안녕?"}], tokenize=False, add_generation_prompt=True
    )
    assert (
        ours.chat_template == folder_tokenizer.chat_templates(folder)[0] == TEMPLATE
        and ours.special.eos_id == 2
        and not ours.special.add_bos
    )


@pytest.mark.parametrize(
    "rules",
    [
        {"normalization_rule_name": "identity", "remove_extra_whitespaces": False},
        {"normalization_rule_name": "nmt_nfkc", "remove_extra_whitespaces": True},
        {"normalization_rule_name": "identity", "remove_extra_whitespaces": False, "add_dummy_prefix": False},
    ],
    ids=["llama", "open llama", "gemma"],
)
def test_a_sentencepiece_model_gives_sentencepieces_ids(tmp_path: Path, rules: dict[str, Any]) -> None:
    text = tmp_path / "text.txt"
    text.write_text("\n".join([Path(inspect.getfile(Tokenizer)).read_text("utf-8"), "안녕하세요 대한민국 " * 20, *TEXTS]), "utf-8")
    sentencepiece.SentencePieceTrainer.train(
        input=str(text), model_prefix=str(tmp_path / "tokenizer"), vocab_size=900, model_type="bpe", byte_fallback=True,
        minloglevel=2, character_coverage=0.99, **rules,
    )  # fmt: skip
    theirs = sentencepiece.SentencePieceProcessor(model_file=str(tmp_path / "tokenizer.model"))
    (tmp_path / "added_tokens.json").write_text(json.dumps({"[PAD]": 900}))  # as Vicuna's
    ours = folder_tokenizer.read(base(tmp_path, bos_token_id=1, eos_token_id=2))
    for line in TEXTS:
        assert ours.encode(line) == theirs.encode(line), line
    assert (ours.special.bos_id, ours.special.eos_id, ours.special.add_bos) == (1, 2, True)
    assert ours.encode("[PAD]") == [900]


def gpt2_files(folder: Path, **settings: Any) -> Path:
    """`vocab.json`, `merges.txt` and settings, as folders without `tokenizer.json` have them."""
    (folder / "vocab.json").write_text(json.dumps({token: at for at, token in enumerate(vocabulary())}))
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *MERGES]), "utf-8")
    ends = dict.fromkeys(("eos_token", "bos_token", "unk_token"), SPECIAL[0])
    (folder / "tokenizer_config.json").write_text(json.dumps({**ends, **settings}))
    return folder


SPLIT_TEXTS = [
    *TEXTS, "the hello", "안녕  12", f"the{SPECIAL[0]}hello", "The year 2024 cost 12345 won.", "I'LL DON'T\n\n\n  x",
    "e\u0301 \u1112\u1161\u11ab",
    "price:$100!\n\n", " \t\r\n a", "the <lone> he<lone> <left> <right> \n he",
]  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "settings", "theirs"),
    [
        ("gpt2", {}, transformers.GPT2Tokenizer),
        ("opt", {"add_prefix_space": True, "tokenizer_class": "GPT2Tokenizer"}, transformers.GPT2Tokenizer),
        ("gpt_neox", {}, transformers.GPTNeoXTokenizer),
        ("qwen2", {}, transformers.Qwen2Tokenizer),
        ("qwen3", {"tokenizer_class": "GPT2Tokenizer"}, transformers.Qwen2Tokenizer),
        ("llama", {"tokenizer_class": "Qwen2TokenizerFast"}, transformers.Qwen2Tokenizer),
    ],
)
def test_vocab_and_merges_give_the_ids_of_transformers(kind: str, settings: dict[str, Any], theirs: Any, tmp_path: Path) -> None:
    flags = [("<lone>", "single_word"), ("<left>", "lstrip"), ("<right>", "rstrip")]
    decoder = {
        str(len(vocabulary()) + at): {"content": token, "special": at > 0, flag: True} for at, (token, flag) in enumerate(flags)
    }
    decoder |= {str(vocabulary().index(token)): {"content": token, "special": True} for token in SPECIAL}
    gpt2_files(tmp_path, added_tokens_decoder=decoder, **settings)
    base(tmp_path, model_type=kind, eos_token_id=[0, 2])
    reference, ours = theirs.from_pretrained(tmp_path), folder_tokenizer.read(tmp_path)
    for text in SPLIT_TEXTS:
        assert ours.encode(text) == reference.encode(text, add_special_tokens=False), text
    assert ours.special.eos_id == 0 and ours.special.stop_ids == (0, 2)


@pytest.mark.parametrize(("kind", "name"), [("llama", "GPT2Tokenizer"), ("phi3", "GPT2TokenizerFast"), ("mistral", None)])
def test_vocab_and_merges_of_families_that_split_in_several_ways_are_refused(kind: str, name: str | None, tmp_path: Path) -> None:
    """SmolLM2 and Phi-4 call their tokenizers GPT-2's, and split otherwise: only `tokenizer.json` says how."""
    with pytest.raises(UnsupportedError) as caught:
        folder_tokenizer.read(base(gpt2_files(tmp_path, tokenizer_class=name), model_type=kind))
    assert caught.value.message == (
        f"`{tmp_path}` does not say how its tokenizer splits texts, and models of the kind `{kind}` differ in it"
    )
    assert caught.value.hint == "its `tokenizer.json` says so: download that, too"


def test_no_space_is_put_before_a_text_where_a_sentencepiece_model_s_settings_say_so(tmp_path: Path) -> None:
    settings = {"legacy": False, "add_prefix_space": False}
    (tmp_path / "text.txt").write_text("\n".join([Path(inspect.getfile(Tokenizer)).read_text("utf-8"), *TEXTS]), "utf-8")
    sentencepiece.SentencePieceTrainer.train(
        input=str(tmp_path / "text.txt"), model_prefix=str(tmp_path / "tokenizer"), vocab_size=600, model_type="bpe",
        byte_fallback=True, minloglevel=2, character_coverage=0.99, normalization_rule_name="identity", remove_extra_whitespaces=False,
    )  # fmt: skip
    tokens = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "LlamaTokenizer", **tokens, **settings}))
    ours, theirs = folder_tokenizer.read(base(tmp_path, eos_token_id=2)), transformers.AutoTokenizer.from_pretrained(tmp_path)
    for text in ["hello", " hello", "  a", "hello</s>hello"]:
        assert ours.encode(text) == theirs.encode(text, add_special_tokens=False), text
    assert ours.decode(ours.encode("hello")) == "hello"


@pytest.mark.parametrize(
    ("told", "begin_ids", "end_ids"),
    [
        ({}, (), ()), ({"bos_token": "<s>"}, (1,), ()), ({"bos_token": None, "add_bos_token": None}, (), ()),
        ({"add_bos_token": True}, (1,), ()), ({"bos_token": "<s>", "add_bos_token": False, "add_eos_token": True}, (), (2,)),
    ],
)  # fmt: skip
def test_what_stands_around_a_text_of_a_sentencepiece_model_is_what_its_settings_say(
    told: dict[str, Any], begin_ids: tuple[int, ...], end_ids: tuple[int, ...], tmp_path: Path
) -> None:
    """A GGUF file that says nothing is Llama's; a folder has a token for it, or none."""
    (tmp_path / "text.txt").write_text(Path(inspect.getfile(Tokenizer)).read_text("utf-8"), "utf-8")
    sentencepiece.SentencePieceTrainer.train(
        input=str(tmp_path / "text.txt"), model_prefix=str(tmp_path / "tokenizer"), vocab_size=400, model_type="bpe", minloglevel=2
    )
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"eos_token": "</s>", **told}))
    special = folder_tokenizer.read(base(tmp_path, eos_token_id=2)).special
    assert (special.begin_ids, special.end_ids) == (begin_ids, end_ids)


@pytest.mark.parametrize("legacy", [{}, {"legacy": True}, {"legacy": False}])
def test_marks_added_to_a_sentencepiece_model_take_what_they_take_in_transformers(legacy: dict[str, bool], tmp_path: Path) -> None:
    """As Phi-3's: lines behind `<|user|>` go; and with `legacy` false, a space stands before the first word only."""
    (tmp_path / "text.txt").write_text("\n".join([Path(inspect.getfile(Tokenizer)).read_text("utf-8"), *TEXTS]), "utf-8")
    sentencepiece.SentencePieceTrainer.train(
        input=str(tmp_path / "text.txt"), model_prefix=str(tmp_path / "tokenizer"), vocab_size=600, model_type="bpe",
        byte_fallback=True, minloglevel=2, character_coverage=0.99, normalization_rule_name="identity", remove_extra_whitespaces=False,
    )  # fmt: skip
    marks = [("<|user|>", "rstrip", True), ("<word>", "single_word", False), ("<left>", "lstrip", True), ("<|end|>", "rstrip", True)]
    decoder = {str(at): {"content": token, "special": True} for at, token in enumerate(("<unk>", "<s>", "</s>"))}
    decoder |= {
        str(600 + at): {"content": token, "special": special, flag: True, "normalized": False}
        for at, (token, flag, special) in enumerate(marks)
    }
    settings = {"tokenizer_class": "LlamaTokenizer", "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", **legacy}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({**settings, "added_tokens_decoder": decoder}))
    ours = folder_tokenizer.read(base(tmp_path, model_type="phi3", eos_token_id=2))
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    for text in ["<|user|>\nhello<|end|>\n<|user|> \n", "  a", "x <left> y", "a <word> b<word>", "</s>hello <s> x"]:
        ids = theirs.encode(text, add_special_tokens=False)
        assert ours.encode(text) == ids, text
        assert ours.decode(ids) == theirs.decode(ids, skip_special_tokens=True)


def test_a_folder_without_a_tokenizer_says_which_files_it_needs(tmp_path: Path) -> None:
    with pytest.raises(BadFileError) as caught:
        folder_tokenizer.read(base(tmp_path))
    assert caught.value.message == f"`{tmp_path}` holds no tokenizer"


def test_half_a_sentencepiece_model_is_refused(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.model").write_bytes(b"\x0a\x7fcut")
    with pytest.raises(BadFileError, match="is not a whole SentencePiece model: a field of 127 bytes at byte 2"):
        folder_tokenizer.read(base(tmp_path))
    (tmp_path / "tokenizer.model").write_bytes(b"IQ== 0\nIg== 1\nIw== 2\n")
    with pytest.raises(UnsupportedError, match="is a vocabulary in tiktoken's form"):
        folder_tokenizer.read(base(tmp_path))


def test_a_folder_must_say_what_ends_a_text(tmp_path: Path) -> None:
    _, folder = write_folder(tmp_path / "model", "llama")
    (folder / "tokenizer_config.json").write_text("{}")
    (folder / "generation_config.json").unlink(missing_ok=True)
    edit(folder, eos_token_id=None)
    with pytest.raises(BadFileError, match="does not say which token ends a text"):
        folder_tokenizer.read(folder)


def test_the_tokenizer_s_own_ends_come_before_those_of_the_model_s_settings(tmp_path: Path) -> None:
    """As in Llama 3: answers stop at any of three tokens, the first of which ends no turn."""
    _, folder = write_folder(tmp_path / "model", "llama")
    path = folder / "tokenizer_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "eos_token": SPECIAL[2], "bos_token": {"content": SPECIAL[1]}}))
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": [0, 5, 2], "bos_token_id": 0}))
    tokenizer = folder_tokenizer.read(folder)
    assert (tokenizer.special.eos_id, tokenizer.special.bos_id, tokenizer.special.stop_ids) == (2, 1, (0, 2, 5))


def test_ends_that_are_no_tokens_are_left_out(tmp_path: Path) -> None:
    _, folder = write_folder(tmp_path / "model", "llama")
    edit(folder, eos_token_id=[2, -1, 10**6, 2**70], bos_token_id=2**70)
    tokenizer = folder_tokenizer.read(folder)
    assert (tokenizer.special.eos_id, tokenizer.special.bos_id) == (2, 1)  # the tokenizer's settings name a beginning, too
    assert 10**6 not in tokenizer.special.stop_ids


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("tokenizer_config.json", {"eos_token": 3}, "`eos_token` in the settings of `FOLDER` is not what it should be"),
        ("tokenizer_config.json", {"chat_template": [3]}, "`chat_template` in the settings of `FOLDER` is not what it should be"),
        ("tokenizer_config.json", {"added_tokens_decoder": {"9": {"content": "a", "rstrip": 1}}}, "`added_tokens_decoder` in the set"),
        (
            "tokenizer_config.json",
            {"add_prefix_space": "no"},
            "`add_prefix_space` in the settings of `FOLDER` is not what it should be",
        ),
        ("tokenizer_config.json", {"added_tokens_decoder": {"x": {}}}, "`added_tokens_decoder` in the settings of `FOLDER` is not"),
        ("config.json", {"eos_token_id": "2"}, "`eos_token_id` in the settings of `FOLDER` is not what it should be"),
        ("vocab.json", {"a": 0, "b": 2}, "`FOLDER/vocab.json` does not number its tokens from 0 on, each once"),
        ("vocab.json", {"a": 0, "b": "1"}, "`FOLDER/vocab.json` does not number its tokens from 0 on, each once"),
        ("added_tokens.json", {"<new>": 1.5}, "`FOLDER/added_tokens.json` does not number its tokens"),
    ],
)
def test_a_tokenizer_s_files_of_another_kind_are_named(name: str, content: dict[str, Any], message: str, tmp_path: Path) -> None:
    base(gpt2_files(tmp_path), model_type="gpt2", eos_token_id=0)
    (tmp_path / name).write_text(json.dumps(content))
    with pytest.raises(BadFileError) as caught:
        folder_tokenizer.read(tmp_path)
    assert caught.value.message.startswith(message.replace("FOLDER/", f"{tmp_path}{os.sep}").replace("FOLDER", str(tmp_path)))


def test_texts_that_are_no_utf_8_are_named(tmp_path: Path) -> None:
    _, folder = write_folder(tmp_path / "model", "llama")
    (folder / "chat_template.jinja").write_bytes(b"\xff")
    with pytest.raises(BadFileError, match=r"chat_template\.jinja` cannot be read"):
        folder_tokenizer.read(folder)


@pytest.mark.parametrize(
    ("lost", "message"),
    [
        ("hell", "is not a whole tokenizer: "),
        ("same", "gives several tokens the same number"),
        ("high", "gives a token the number 2,147,483,648, and has "),  # half a gigabyte for the numbers before it
    ],
)
def test_a_vocabulary_that_does_not_fit_together_is_refused(lost: str, message: str, tmp_path: Path) -> None:
    """`tokenizers` 0.23 panics over the first: what it raises is no `Exception`."""
    _, folder = write_folder(tmp_path / "model", "llama")
    path = folder / "tokenizer.json"
    facts = json.loads(path.read_text())
    vocabulary = facts["model"]["vocab"]
    if lost == "same":
        vocabulary["he"] = vocabulary["ll"]
    elif lost == "high":
        vocabulary["}"] = 2**31
    else:
        del vocabulary[lost]
    path.write_text(json.dumps(facts))
    with pytest.raises(BadFileError, match=message):
        folder_tokenizer.read(folder)


def test_merges_that_make_no_token_are_refused(tmp_path: Path) -> None:
    (tmp_path / "vocab.json").write_text(json.dumps({"h": 0, "i": 1, "e": 2}))
    (tmp_path / "merges.txt").write_text("h i")
    with pytest.raises(BadFileError, match="the file's vocabulary and merges do not fit together"):
        folder_tokenizer.read(base(tmp_path, model_type="gpt2", eos_token_id=0))


def test_on_windows_an_adapter_that_is_read_can_be_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It keeps a file that is mapped: what goes on from an adapter of the same name could not write its own."""
    monkeypatch.setattr("sys.platform", "win32")
    monkeypatch.setattr("mmap.mmap", None)
    save_file({"a": torch.arange(3.0)}, tmp_path / "a.safetensors")
    assert [(name, stored.values.tolist()) for name, stored in read_tensors(tmp_path / "a.safetensors")] == [("a", [0, 1, 2])]
