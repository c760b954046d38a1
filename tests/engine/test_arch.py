"""Every architecture against its implementation in `transformers`, on tiny random weights that both hold exactly."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from reference import (
    CASES,
    CONTEXT,
    EXACT,
    FIRST_CONTEXT,
    FOLDER_CASES,
    HEAD,
    MIXTURES,
    WIDTH,
    WINDOW,
    YARN_KEYS,
    YARN_MAGNITUDE,
    compiled_exactly,
    make_model,
    our_logits,
    write_folder,
    write_gguf,
)
from tiny import vocabulary
from transformers.models.mpt.modeling_mpt import build_mpt_alibi_tensor

from nomoat.cli.model_facts import file_need
from nomoat.engine import arch as architectures
from nomoat.engine import batching, importer, positions
from nomoat.engine.batching import Batcher
from nomoat.engine.compiled import CompiledCopy
from nomoat.engine.local import LocalEngine
from nomoat.engine.lookup import Lookup
from nomoat.engine.paged import PagedModel, Row
from nomoat.engine.sampling import Sampler
from nomoat.engine.source import open_source
from nomoat.engine.texts import Answer, Reading
from nomoat.errors import BadFileError, UnsupportedError
from nomoat.records import Request

ROOT = Path(__file__).parents[2]
LONG = 3 * WINDOW + 5  # past the window, and past its cache's first blocks
PAGED = [*(name for name in CASES if name != "gemma2"), *FOLDER_CASES, "gpt-oss"]  # see test_serial.py


@pytest.fixture(scope="module", params=CASES | FOLDER_CASES | MIXTURES)
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Path]:
    """A reference and the folder of our import of its file, or of its folder where no file has the family."""
    folder = tmp_path_factory.mktemp("arch")
    if request.param in FOLDER_CASES:
        model, path = write_folder(folder / "model", request.param)
    else:
        case = (CASES | MIXTURES)[request.param]
        model = make_model(case)
        path = write_gguf(folder / "model.gguf", case, model)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NOMOAT_HOME", str(folder / "home"))
        return model, importer.import_gguf(path)


@pytest.fixture(scope="module")
def compiled(made: tuple[Any, Path]) -> Any:
    """Our model, once for all who ask it: each request has a cache of its own."""
    return compiled_exactly(made[1])


def reference_logits(model: Any, ids: list[list[int]], mask: list[list[int]] | None = None) -> Any:
    ids_BT = torch.tensor(ids)
    mask_BT = torch.ones_like(ids_BT) if mask is None else torch.tensor(mask)
    inputs = {"input_ids": ids_BT, "attention_mask": mask_BT}
    if model.config.model_type not in ("bloom", "mpt"):  # these have no positions to be told
        inputs["position_ids"] = (mask_BT.cumsum(1) - 1).clamp(min=0)
    with torch.no_grad():
        return model(**inputs, use_cache=False).logits.numpy()


def random_rows(count: int, length: int) -> list[list[int]]:
    return np.random.default_rng(length).integers(3, 250, (count, length)).tolist()


def test_every_known_architecture_has_a_case() -> None:
    assert {case.arch for case in (CASES | FOLDER_CASES | MIXTURES).values()} == set(architectures.known())


@pytest.mark.parametrize("page", ["docs/models.md", "README.md", "README.ko.md"])
def test_a_page_names_every_known_architecture(page: str) -> None:
    words = set(re.findall(r"[a-z0-9_-]+", (ROOT / page).read_text(encoding="utf-8").lower()))
    assert architectures.known().keys() <= words


@pytest.mark.parametrize("length", [1, 7, LONG])
def test_logits_equal_the_reference_within_a_thousandth(made: tuple[Any, Path], compiled: Any, length: int) -> None:
    rows = random_rows(2, length)
    expected = reference_logits(made[0], rows)
    assert expected.std() > 0.5  # else closeness would mean nothing
    np.testing.assert_allclose(our_logits(compiled, rows), expected, atol=1e-3)
    if length > 1:
        np.testing.assert_allclose(our_logits(compiled, rows, cut_at=length // 2), expected, atol=1e-3)


@pytest.mark.parametrize("side", ["left", "right"])
def test_rows_of_a_batch_with_padding_equal_the_reference_within_a_thousandth(
    made: tuple[Any, Path], compiled: Any, side: str
) -> None:
    rows, lengths = random_rows(3, LONG), [LONG, WINDOW + 9, 5]
    mask = [[0] * (LONG - n) + [1] * n if side == "left" else [1] * n + [0] * (LONG - n) for n in lengths]
    mask_BT, real = np.array(mask), np.array(mask, bool)
    inputs = {
        "input_ids": np.array(rows), "attention_mask": mask_BT, "position_ids": (mask_BT.cumsum(1) - 1).clip(min=0),
        "beam_idx": np.arange(3, dtype=np.int32),
    }  # fmt: skip
    found = compiled.create_infer_request().infer(inputs)[0]
    np.testing.assert_allclose(found[real], reference_logits(made[0], rows, mask)[real], atol=1e-3)


def answered(batcher: Batcher, prompts: list[list[int]]) -> list[tuple[list[int], list[float | None]]]:
    """Twelve greedy tokens after each prompt, made at the same time, and the log-probabilities given."""
    asked = Request(prompt="x", top_logprobs=0)
    answers = [Answer(ids, Sampler(asked, ids), max_new_tokens=12, stop_ids=(), lookup=Lookup(ids)) for ids in prompts]
    for answer in answers:
        batcher.submit(answer)
    picks = [[pick for pick in answer.tokens if pick is not None] for answer in answers]
    return [([pick.token for pick in row], [pick.log_probability for pick in row]) for row in picks]


@pytest.fixture(scope="module")
def copy(made: tuple[Any, Path], tmp_path_factory: pytest.TempPathFactory) -> CompiledCopy:
    """Where our model is kept as compiled, once for all who ask it."""
    return CompiledCopy(tmp_path_factory.mktemp("copy") / "copy", EXACT)


@pytest.fixture(scope="module")
def batcher(made: tuple[Any, Path], copy: CompiledCopy) -> Iterator[Batcher]:
    """One for all who ask it: what one has asked is no beginning of what another asks."""
    _, folder = made
    batcher = Batcher(lambda: PagedModel(folder, EXACT, copy=copy), context_tokens=CONTEXT)
    yield batcher
    batcher.close()


@pytest.mark.parametrize("made", PAGED, indirect=True)
def test_a_compiled_model_read_back_from_disk_gives_the_same_bits(made: tuple[Any, Path], copy: CompiledCopy) -> None:
    _, folder = made
    given = []
    for model in (PagedModel(folder, EXACT, copy=copy), PagedModel(folder, EXACT, copy=copy)):
        model.allocate(8)
        ids = random_rows(1, LONG)[0]
        given.append(model.run([Row(ids, 0, list(range(8)), LONG)])[0].copy())
    assert copy.read() is not None  # else both were compiled
    assert (given[0] == given[1]).all()


def reference_log_probabilities(model: Any, ids: list[int]) -> Any:
    """Of each token after the first."""
    rows = torch.from_numpy(reference_logits(model, [ids])[0, :-1]).log_softmax(-1)
    return rows.gather(1, torch.tensor(ids[1:])[:, None])[:, 0].numpy()


@pytest.mark.parametrize("made", PAGED, indirect=True)
def test_continuous_batching_gives_the_reference_s_log_probabilities(made: tuple[Any, Path], batcher: Batcher) -> None:
    """PagedAttention drops a mask it does not know without a word: this is the path that answers."""
    (prompt,) = random_rows(1, LONG)
    ((answer, given),) = answered(batcher, [prompt])
    expected = reference_log_probabilities(made[0], prompt + answer)
    np.testing.assert_allclose(given, expected[-12:], atol=1e-3)
    reading = Reading(prompt + answer, top_logprobs=0)
    batcher.submit(reading)
    np.testing.assert_allclose([pick.log_probability for pick in reading.result.result()[1]], expected, atol=1e-3)


@pytest.mark.parametrize("made", PAGED, indirect=True)
def test_prompts_read_in_parts_beside_others_and_on_a_cached_prefix_are_answered_as_by_the_reference(
    made: tuple[Any, Path], batcher: Batcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batching, "PASS_TOKENS", 32)
    monkeypatch.setattr(batching, "PASS_TOKENS_BESIDE_ANSWERS", 32)
    _, first = random_rows(2, LONG)
    second, third = first[: 2 * WINDOW] + random_rows(1, 33)[0], [*first, 9, 8, 7]
    for prompts in ([first, second], [third]):
        for prompt, (answer, given) in zip(prompts, answered(batcher, prompts), strict=True):
            expected = reference_log_probabilities(made[0], prompt + answer)[-12:]
            np.testing.assert_allclose(given, expected, atol=1e-3)


@pytest.mark.parametrize("heads", [1, 4, 6, 40])
def test_alibi_slopes_equal_those_of_the_reference(heads: int) -> None:
    bias_HK = build_mpt_alibi_tensor(heads, 2, alibi_bias_max=8)[:, 0]
    np.testing.assert_allclose(positions.alibi_slopes(heads, 8.0), bias_HK[:, 1] - bias_HK[:, 0], rtol=1e-6)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        (
            "expert_count",
            8,
            "this model is a mixture of 8 experts in a family (`gemma3`) whose mixtures are others, which nomoat cannot do yet",
        ),
        ("rope.scaling.type", "ntk", "this model scales its positions (`ntk`), which nomoat cannot do yet"),
        (
            "rope.scaling.yarn_log_multiplier",
            0.1,
            "this model scales its positions by a variant of `yarn`, which nomoat cannot do yet",
        ),
        (
            "attention.causal",
            False,
            "each token of this model sees those after it, too (an embedding model), which nomoat cannot do yet",
        ),
        (
            "attention.sliding_window_pattern",
            4,
            "this model's attention windows follow another pattern (4) than `gemma3` has, which nomoat cannot do yet",
        ),
    ],
)
def test_a_variant_that_would_be_answered_wrongly_is_refused(key: str, value: Any, message: str, tmp_path: Path) -> None:
    case = CASES["gemma3"]
    varied = replace(case, keys=case.keys | {key: value})
    path = write_gguf(tmp_path / "varied.gguf", varied, make_model(varied))
    with pytest.raises(UnsupportedError) as caught:
        importer.import_gguf(path)
    assert caught.value.message == message


@pytest.mark.parametrize(
    ("name", "keys", "message"),
    [
        ("granite", {"rope.scaling.finetuned": False}, "this model does not turn by positions"),
        ("granitemoe", {"rope.scaling.finetuned": False}, "this model does not turn by positions"),
        (
            "olmoe",
            {"attention.clamp_kqv": 8.0},
            "this model keeps its queries, keys and values within limits (`olmoe.attention.clamp_kqv`)",
        ),
        ("glm4", {"rope.dimension_sections": [8, 12, 12, 0]}, "this model turns by several positions at once (it sees images)"),
        ("cohere2", {"attention.sliding_window": 0}, "no layer of this Command R7B has a window, nor turns by positions"),
        ("qwen3", {"residual_scale": 0.5}, "this model adds another part of what its layers give than others of its family"),
        (
            "exaone4",
            {"attention.sliding_window_pattern": [True, False, True, False, True]},
            "this model's attention windows follow another pattern ([True, False, True, False, True]) than `exaone4` has",
        ),
    ],
)
def test_a_file_whose_layers_turn_or_see_otherwise_than_its_family_s_is_refused(
    name: str, keys: dict[str, Any], message: str, tmp_path: Path
) -> None:
    case = (CASES | MIXTURES)[name]
    case = replace(case, keys=case.keys | keys)
    with pytest.raises(UnsupportedError) as caught:
        importer.import_gguf(write_gguf(tmp_path / "varied.gguf", case, make_model(case)))
    assert caught.value.message == f"{message}, which nomoat cannot do yet"


@pytest.mark.parametrize("key", ["embedding_scale", "residual_scale", "logit_scale"])
def test_a_file_of_minicpm_that_leaves_one_of_its_scales_out_is_refused(key: str, tmp_path: Path) -> None:
    """It would be answered without it."""
    case = CASES["minicpm"]
    case = replace(case, keys={name: value for name, value in case.keys.items() if name != key})
    with pytest.raises(BadFileError) as caught:
        importer.import_gguf(write_gguf(tmp_path / "old.gguf", case, make_model(case)))
    assert caught.value.message == f"the file does not say `minicpm.{key}`: it was converted before files of `minicpm` said it"
    assert caught.value.hint == "take a newer conversion of this model, or its Hugging Face folder"


def test_a_file_of_minicpm_turns_by_positions_whatever_it_says_in_the_place_of_granite_s_switch() -> None:
    """As llama.cpp reads it."""
    sizes = {
        "context_length": 64, "embedding_length": 32, "feed_forward_length": 64, "block_count": 2, "attention.head_count": 4,
        "attention.layer_norm_rms_epsilon": 1e-5, **CASES["minicpm"].keys,
    }  # fmt: skip
    told = {"general.architecture": "minicpm"} | {f"minicpm.{key}": value for key, value in sizes.items()}
    with_switch = architectures.dimensions(told | {"minicpm.rope.scaling.finetuned": False}, vocabulary=10)
    assert with_switch == architectures.dimensions(told, vocabulary=10)


@pytest.mark.parametrize(
    "tensor", ["attn_q_norm.weight", "attn_sinks.weight", "post_ffw_norm.weight", "ffn_norm.bias", "attn_q.scale"]
)
def test_a_tensor_that_would_be_left_out_is_refused_by_name(tensor: str, tmp_path: Path) -> None:
    case = replace(CASES["llama"], extra={f"blk.1.{tensor}": np.ones(HEAD, np.float32)})
    path = write_gguf(tmp_path / "more.gguf", case, make_model(case))
    with pytest.raises(UnsupportedError) as caught:
        importer.import_gguf(path)
    assert caught.value.message == f"`{path}` holds the tensor `blk.1.{tensor}`, which the architecture `llama` does not have"


def test_a_file_of_2023_of_phi_2_is_refused_by_its_matrix_of_queries_keys_and_values(tmp_path: Path) -> None:
    """It is whole: what its architecture has under other names is not missing."""
    source = open_source(write_gguf(tmp_path / "model.gguf", CASES["phi2"], make_model(CASES["phi2"])))
    first, *_ = [source.tensors.pop(f"blk.0.attn_{part}.weight") for part in "qkv"]
    fused = "blk.0.attn_qkv.weight"
    source.tensors[fused] = replace(first, name=fused, shape=(3 * first.shape[0], first.shape[1]))
    with pytest.raises(UnsupportedError, match=f"holds the tensor `{fused}`, which the architecture `phi2` does not have"):
        importer.read_sizes(source)


def test_a_bias_of_logits_that_have_a_scale_is_refused(tmp_path: Path) -> None:
    case = CASES["command-r"]
    model = make_model(case)
    case = replace(case, extra={"output.bias": np.ones(model.config.vocab_size, np.float32)})
    with pytest.raises(UnsupportedError, match=r"holds the tensor `output\.bias`, which the architecture `command-r` does not have"):
        importer.import_gguf(write_gguf(tmp_path / "more.gguf", case, model))


def test_what_answers_to_texts_do_not_depend_on_may_be_there(tmp_path: Path) -> None:
    names = ("blk.0.attn_rot_embd", "v.blk.0.attn_q.weight", "mm.input_projection.weight")
    case = replace(CASES["gemma3"], extra={name: np.ones(32, np.float32) for name in names})
    importer.read_sizes(open_source(write_gguf(tmp_path / "more.gguf", case, make_model(case))))


def sizes_with(name: str, tmp_path: Path, keys: dict[str, Any]) -> architectures.Dimensions:
    """Of a case's file that says these instead of the case's own keys."""
    case = replace(CASES[name], keys=keys)
    return importer.read_sizes(open_source(write_gguf(tmp_path / "model.gguf", case, make_model(case))))


@pytest.mark.parametrize(
    ("keys", "scale"),
    [
        ({"rope.scale_linear": 4.0}, 4.0),
        ({"rope.scaling.factor": 4.0}, 4.0),
        ({"rope.scale_linear": 0.0}, 1.0),
        ({"rope.scaling.type": "none", "rope.scaling.factor": 4.0}, 1.0),
    ],
)
def test_positions_are_scaled_linearly_where_a_file_states_a_factor_and_no_way(
    keys: dict[str, Any], scale: float, tmp_path: Path
) -> None:
    """As llama.cpp does it: files older than November 2023 have no `rope.scaling.type`."""
    assert sizes_with("llama, linear scaling", tmp_path, keys).rope_scale == scale


@pytest.mark.parametrize(("kind", "said", "longest"), [("yarn", 80, 256), ("yarn", 300, 300), ("linear", 80, 80)])
def test_yarn_makes_the_context_as_long_as_its_positions_are_stretched(kind: str, said: int, longest: int, tmp_path: Path) -> None:
    """Qwen's cards switch it on for texts four times as long, and leave the context that the file says."""
    sizes = sizes_with("llama, linear scaling", tmp_path, YARN_KEYS | {"rope.scaling.type": kind, "context_length": said})
    assert (sizes.context_tokens, sizes.rope_scale) == (longest, 4.0)
    assert file_need(open_source(tmp_path / "model.gguf"), None)[1] == longest


@pytest.mark.parametrize(
    ("asked", "noted"),
    [
        (
            1 / YARN_MAGNITUDE,
            ["positions of this model ask for a factor of YaRN (`attn_factor`, 0.878249) that is left out, as in llama.cpp"],
        ),
        (YARN_MAGNITUDE, []),
    ],
)
def test_a_factor_of_yarn_that_llama_cpp_overwrites_is_left_out_with_a_note(asked: float, noted: list[str], tmp_path: Path) -> None:
    """As of DeepSeek-R1-0528-Qwen3-8B."""
    sizes = sizes_with("llama, YaRN", tmp_path, YARN_KEYS | {"rope.scaling.yarn_attn_factor": asked})
    assert sizes.rope_magnitude == pytest.approx(YARN_MAGNITUDE)
    facts = json.loads((importer.import_gguf(tmp_path / "model.gguf") / "config.json").read_text())["nomoat"]
    assert facts["notes"] == noted


def test_a_number_told_for_each_layer_is_one_where_all_are_the_same() -> None:
    """As llama.cpp reads it. Layers that differ are refused."""
    keys = {"block_count": 3, "embedding_length": 64, "feed_forward_length": 128, "context_length": 64}
    told = {f"llama.{key}": value for key, value in keys.items()} | {"llama.attention.layer_norm_rms_epsilon": 1e-5}
    told |= {"general.architecture": "llama", "llama.attention.head_count": np.array([4, 4, 4], np.int32)}
    assert architectures.dimensions(told | {"llama.attention.head_count_kv": np.array([2, 2, 2])}, vocabulary=9).kv_heads == 2
    with pytest.raises(BadFileError, match=r"the file says `llama.attention.head_count_kv` = array\(\[2, 2, 1\]\)"):
        architectures.dimensions(told | {"llama.attention.head_count_kv": np.array([2, 2, 1])}, vocabulary=9)
    with pytest.raises(BadFileError, match=r"the file says `llama\.context_length` = 4294967295") as caught:
        architectures.dimensions(told | {"llama.context_length": 2**32 - 1}, vocabulary=9)
    assert caught.value.hint == "one number is needed, above 0 and below 2,147,483,648; try another file"
    del told["llama.attention.layer_norm_rms_epsilon"]
    with pytest.raises(BadFileError, match=r"the file does not say `llama\.attention\.layer_norm_rms_epsilon`"):
        architectures.dimensions(told, vocabulary=9)


def test_gemma_2_has_a_window_and_caps_unless_its_file_says_0(tmp_path: Path) -> None:
    """llama.cpp's: the first files of the family do not state them."""
    keys = {"attention.key_length": 32}
    unsaid = sizes_with("gemma2", tmp_path, keys)
    assert (unsaid.window, unsaid.attention_cap, unsaid.logit_cap) == (4096, 50.0, 30.0)
    keys |= {"attention.sliding_window": 0, "attn_logit_softcapping": 0.0, "final_logit_softcapping": 0.0}
    none = sizes_with("gemma2", tmp_path, keys)
    assert (none.window, none.attention_cap, none.logit_cap) == (None, None, None)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("attention.head_count_kv", 2, "states sizes that its tensors do not have"),
        ("rope.dimension_count", 18, "the file turns 18 of the 16 elements of a head"),
    ],
)
def test_sizes_that_do_not_fit_the_tensors_are_a_bad_file(key: str, value: int, message: str, tmp_path: Path) -> None:
    case = CASES["gptneox"]
    path = write_gguf(tmp_path / "lying.gguf", replace(case, keys=case.keys | {key: value}), make_model(case))
    with pytest.raises(BadFileError, match=message):
        importer.import_gguf(path)


@pytest.mark.parametrize(
    ("tensor", "shape"),
    [
        ("output.weight", (len(vocabulary()), HEAD)),
        ("output.weight", (len(vocabulary()) - 1, WIDTH)),
        ("token_embd.weight", (len(vocabulary()), HEAD)),
    ],
)
def test_what_stands_around_the_layers_has_their_width(tensor: str, shape: tuple[int, int], tmp_path: Path) -> None:
    """Products of a file's own codes would read behind the end of shorter rows."""
    source = open_source(write_gguf(tmp_path / "lying.gguf", CASES["llama"], make_model(CASES["llama"])))
    importer.read_sizes(source)
    source.tensors[tensor] = replace(source.tensors["token_embd.weight"], shape=shape)
    with pytest.raises(BadFileError, match=f"`{tensor}` is {shape[0]} x {shape[1]} and should be"):
        importer.read_sizes(source)


def test_long_rope_has_its_long_factors_for_a_context_beyond_its_first(tmp_path: Path) -> None:
    """The reference takes them for any text longer than the first context; ours for every text, once such a context is asked for."""
    case = CASES["phi3, LongRoPE"]
    model = make_model(case)
    path = write_gguf(tmp_path / "long.gguf", case, model)
    folder = importer.import_gguf(path, context_tokens=FIRST_CONTEXT + 1)
    rows = random_rows(2, FIRST_CONTEXT + 24)
    expected = reference_logits(model, rows)
    np.testing.assert_allclose(our_logits(folder, rows), expected, atol=1e-3)
    np.testing.assert_allclose(our_logits(folder, rows, cut_at=100), expected, atol=1e-3)
    short = importer.import_gguf(path, context_tokens=FIRST_CONTEXT)
    assert short == importer.import_gguf(path) != folder
    assert [LocalEngine(folder).context_tokens for folder in (short, folder)] == [FIRST_CONTEXT, CONTEXT]
