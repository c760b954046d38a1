"""Mixtures of experts: their products, whole models that have them, and what is refused."""

from __future__ import annotations

import ctypes
import functools
from dataclasses import replace
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from reference import MIXTURES, make_model, write_gguf
from tiny import write_adapter, write_tensors

from nomoat import footprint, hardware
from nomoat.engine import importer, layout, step_tables, tiles
from nomoat.engine.gguf import GGUFFile, Tensor
from nomoat.engine.native import Blueprint, NativeModel
from nomoat.engine.paged import Row
from nomoat.engine.program import Program
from nomoat.engine.step_tables import Room, Step
from nomoat.errors import BadFileError, UnsupportedError
from nomoat.tune import export, prepare

needs_instructions = pytest.mark.skipif(
    not footprint.has_native_kernels(), reason="nomoat's own products need AVX2, FMA and F16C, or ARM's dotprod"
)
WIDTH, HIDDEN = 288, 416  # no multiples of a chunk
MOST_TOKENS = 400


def silu(x: Any) -> Any:
    return x / (1 + np.exp(-x))


def clamped(gate: Any, up: Any) -> Any:
    """GPT-OSS's."""
    gate = np.minimum(gate, 7)
    return gate / (1 + np.exp(-1.702 * gate)) * (np.clip(up, -7, 7) + 1)


class Mixture:
    """Weights of a mixture, and what it makes of inputs in float64.

    `shared`: with an expert that all tokens ask, the last; others are weighted by the softmax of all scores then. `is_gptoss`: with
    biases and the clamped gate.
    """

    def __init__(self, experts: int, chosen: int, type_name: str, *, shared: bool = False, is_gptoss: bool = False) -> None:
        chance = np.random.default_rng(experts)
        self.experts, self.chosen, self.type_name, self.shared, self.is_gptoss = experts, chosen, type_name, shared, is_gptoss
        shapes = ((experts + shared,), (experts + shared, 2 * HIDDEN), (experts + shared, WIDTH))
        self.biases = [(5 * is_gptoss * chance.normal(size=shape)).astype(np.float32) for shape in shapes]
        self.norm = chance.uniform(0.5, 1.5, WIDTH).astype(np.float32)
        self.router = chance.normal(size=(experts + shared, WIDTH)).astype(np.float32)
        kind = gguf.GGMLQuantizationType[type_name]
        gated, down = (
            chance.normal(size=((experts + shared) * rows, columns)).astype(np.float32) * np.float32(columns**-0.5)
            for rows, columns in ((2 * HIDDEN, WIDTH), (WIDTH, HIDDEN))
        )
        self.gated, self.down = gguf.quants.quantize(gated, kind), gguf.quants.quantize(down, kind)  # of each expert the gate, then up

    def program(self) -> tuple[Program, Any]:
        """And the memory it needs."""
        of_router, of_gated, of_down = self.biases
        router = np.concatenate([self.router.reshape(-1), of_router])
        parts = [self.norm, router, tiles.tiled(self.gated, self.type_name), tiles.tiled(self.down, self.type_name), of_gated, of_down]
        weights = np.concatenate([part.reshape(-1).view(np.uint8) for part in parts])
        norm, router, gated, down, *biases = np.cumsum([0, *(part.nbytes for part in parts)])[:6].tolist()
        biases, gate = (biases, "experts_clamped") if self.is_gptoss else ([-1, -1], "experts_gated")
        mixture = (self.experts, self.chosen)
        of_one = [part.nbytes // (self.experts + 1) for part in parts[2:]]
        of_shared = [
            ("gated", self.type_name, 2 * HIDDEN, gated + self.experts * of_one[0], -1),
            ("hold", self.type_name, WIDTH, down + self.experts * of_one[1], -1), ("add_shared", "", WIDTH, -1, -1, *mixture),
        ]  # fmt: skip
        steps = [
            ("norm", "", WIDTH, -1, norm),
            ("choose_of_all" if self.shared else "choose", "", len(self.router), -1, router, *mixture),
            *(of_shared if self.shared else ()),
            (gate, self.type_name, 2 * HIDDEN, gated, biases[0], *mixture),
            ("experts_add", self.type_name, WIDTH, down, biases[1], *mixture),
        ]  # fmt: skip
        return Program(steps, weights.ctypes.data, WIDTH, width=WIDTH, epsilon=1e-6), weights

    def exact(self, x_MW: Any) -> Any:
        kind = gguf.GGMLQuantizationType[self.type_name]
        gated = gguf.quants.dequantize(self.gated, kind).reshape(-1, 2, HIDDEN, WIDTH).astype(np.float64)
        down = gguf.quants.dequantize(self.down, kind).reshape(-1, WIDTH, HIDDEN).astype(np.float64)
        normed = x_MW / np.sqrt(np.mean(x_MW.astype(np.float64) ** 2, axis=1, keepdims=True) + 1e-6) * self.norm
        of_router, of_gated, of_down = self.biases
        scores, of_shared = np.split(normed @ self.router.T + of_router, [self.experts], axis=1)
        made = x_MW.astype(np.float64)
        for m, x in enumerate(normed):
            asked = np.argsort(-scores[m])[: self.chosen]
            all_weights = np.exp(scores[m] - scores[m].max())
            weights = all_weights[asked] / (all_weights if self.shared else all_weights[asked]).sum()
            if self.shared:
                asked, weights = [*asked, self.experts], [*weights, 1 / (1 + np.exp(-of_shared[m, 0]))]
            for e, weight in zip(asked, weights, strict=True):
                gate, up = (gated[e] @ x + of_gated[e].reshape(2, HIDDEN)).astype(np.float64)
                made[m] += weight * (down[e] @ (clamped(gate, up) if self.is_gptoss else silu(gate) * up) + of_down[e])
        return made


@functools.lru_cache(maxsize=1)  # of tests that follow each other
def known_mixture(experts: int, chosen: int, type_name: str, **more: bool) -> tuple[Mixture, Any, Any]:
    """A mixture, inputs, and what it makes of each of them."""
    given = Mixture(experts, chosen, type_name, **more)
    x_MW = np.random.default_rng(MOST_TOKENS).normal(size=(MOST_TOKENS, WIDTH)).astype(np.float32)
    return given, x_MW, given.exact(x_MW)


@needs_instructions
@pytest.mark.parametrize("tokens", [1, 2, 23, 24, 70, MOST_TOKENS])
@pytest.mark.parametrize("mixture", [(4, 2), (40, 3), (3, 3)])
@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("type_name", ["Q4_0", "Q8_0"])
def test_each_token_gets_what_the_experts_it_asks_give(tokens: int, mixture: tuple[int, int], shared: bool, type_name: str) -> None:
    """By few experts, where many tokens are multiplied in panels, and by many; the last of several parts is shorter."""
    given, *of_all = known_mixture(*mixture, type_name, shared=shared)
    program, weights = given.program()
    x_MW, exact = (rows[:tokens] for rows in of_all)
    after_1MW = np.full((1, tokens, WIDTH), np.nan, np.float32)
    program.run(None, x_MW[None], after_1MW, [])
    assert np.sqrt(np.mean((after_1MW[0] - exact) ** 2)) < 0.04 * np.sqrt(np.mean((exact - x_MW) ** 2))
    assert len(weights)


@needs_instructions
@pytest.mark.parametrize("tokens", [1, 23, 70, MOST_TOKENS])
@pytest.mark.parametrize("mixture", [(4, 2), (40, 3)])
def test_experts_of_gptoss_have_biases_and_a_clamped_gate(tokens: int, mixture: tuple[int, int]) -> None:
    given, *of_all = known_mixture(*mixture, "MXFP4", is_gptoss=True)
    program, weights = given.program()
    x_MW, exact = (rows[:tokens] for rows in of_all)
    after_1MW = np.full((1, tokens, WIDTH), np.nan, np.float32)
    program.run(None, x_MW[None], after_1MW, [])
    assert np.sqrt(np.mean((after_1MW[0] - exact) ** 2)) < 0.02 * np.sqrt(np.mean((exact - x_MW) ** 2))
    assert len(weights)


@needs_instructions
@pytest.mark.parametrize("strange", [np.nan, -np.inf, np.inf])
@pytest.mark.parametrize("tokens", [3, 400])
@pytest.mark.parametrize("type_name", ["Q4_0", "Q8_0"])
def test_a_token_of_no_numbers_leaves_the_others_as_they_are(tokens: int, strange: float, type_name: str) -> None:
    given = Mixture(8, 4, type_name)
    program, weights = given.program()
    x_MW = np.random.default_rng(tokens).normal(size=(tokens, WIDTH)).astype(np.float32)
    made = []
    for value in (1, strange):
        x_MW[1] = value
        after_1MW = np.full((1, tokens, WIDTH), np.nan, np.float32)
        program.run(None, x_MW[None], after_1MW, [])
        made.append(np.delete(after_1MW[0], 1, axis=0))
        picks = np.ctypeslib.as_array(ctypes.cast(int(program.room[Room.EXPERT_PICKS]), ctypes.POINTER(ctypes.c_int64)), (4 * 2,))
        assert all(len(set(picks[at : at + 4])) == 4 for at in (0, 4))
    np.testing.assert_array_equal(*made)
    assert len(weights)


@needs_instructions
@pytest.mark.parametrize("tokens", [3, 400])
def test_what_the_norm_gives_is_rounded_for_the_experts_alone(tokens: int) -> None:
    """The choice among them reads float32."""
    program, weights = Mixture(8, 2, "Q4_0").program()
    x_1MW = np.random.default_rng(tokens).normal(size=(1, tokens, WIDTH)).astype(np.float32)
    program.run(None, x_1MW, np.empty_like(x_1MW), [])  # makes its memory
    inputs = np.ctypeslib.as_array(ctypes.cast(int(program.room[Room.INPUTS]), ctypes.POINTER(ctypes.c_uint8)), (tokens * WIDTH,))
    inputs[:] = 7
    program.run(None, x_1MW, np.empty_like(x_1MW), [])
    assert (inputs == 7).all()
    assert len(weights)


def kl(expected: Any, found: Any) -> float:
    """Mean divergence a token."""
    first, second = (torch.log_softmax(torch.tensor(logits), -1) for logits in (expected, found))
    return float((first.exp() * (first - second)).sum(-1).mean())


@needs_instructions
@pytest.mark.parametrize("name", MIXTURES)
def test_a_pass_of_our_own_gives_the_reference_s_logits(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Prompts, tokens one by one, and several texts at once. Experts of random models are nearly as likely as others: some differ."""
    monkeypatch.setattr(footprint, "FEW_WEIGHTS", 0)
    reference = make_model(MIXTURES[name])
    blueprint = Blueprint(importer.import_gguf(write_gguf(tmp_path / "model.gguf", MIXTURES[name], reference)))
    assert blueprint.can_run()
    ours = NativeModel(blueprint)
    ours.allocate(16)
    ids = np.random.default_rng(1).integers(10, 250, 100).tolist()
    with torch.no_grad():
        expected = reference(torch.tensor([ids])).logits[0].numpy()
    blocks = list(range(8))
    prompt = np.array(ours.run([Row(ids, 0, blocks, len(ids))])[0])
    one_by_one = np.concatenate([np.array(ours.run([Row([token], at, blocks, 1)])[0]) for at, token in enumerate(ids)])
    assert kl(expected, prompt) < 0.03
    assert kl(expected, one_by_one) < 0.03
    both = ours.run([Row(ids[60:70], 60, blocks, 10), Row(ids[:30], 0, [9, 10], 30)])[0]
    assert kl(expected[60:70], both[:10]) < 0.03
    assert kl(expected[:30], both[10:]) < 0.03


@needs_instructions
@pytest.mark.parametrize("name", ["qwen3moe", "qwen2moe"])
def test_nothing_of_a_mixture_is_in_8_bits_by_amx(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor what comes before the first layer's experts, nor the logits, however wide it is."""
    monkeypatch.setattr(footprint, "FEW_WEIGHTS", 0)
    monkeypatch.setattr(step_tables, "BY_AMX", True)
    monkeypatch.setattr(step_tables, "NARROW", 1)
    path = write_gguf(tmp_path / "model.gguf", MIXTURES[name], make_model(MIXTURES[name]))
    chain = NativeModel(Blueprint(importer.import_gguf(path)))._chain
    assert {int(chunk) for program in chain._programs for chunk in program.steps[:, Step.CHUNK]} == {0, tiles.CHUNK}  # 0: of norms


@needs_instructions
def test_a_text_s_states_are_the_same_alone_and_beside_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(footprint, "FEW_WEIGHTS", 0)
    path = write_gguf(tmp_path / "model.gguf", MIXTURES["qwen3moe"], make_model(MIXTURES["qwen3moe"]))
    ours = NativeModel(Blueprint(importer.import_gguf(path)))
    ours.allocate(16)
    ids = np.random.default_rng(1).integers(10, 250, 40).tolist()
    alone = np.array(ours.run([Row(ids[:9], 0, [0, 1], 1, hidden=True)])[1])
    beside = np.array(ours.run([Row(ids[:9], 0, [0, 1], 1, hidden=True), Row(ids, 0, [2, 3, 4], 1, hidden=True)])[1])
    assert np.array_equal(alone, beside[:9])


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"expert_used_count": 25}, "the file says that each token asks 25 of 24 experts"),
        ({"expert_used_count": 0}, "the file says that each token asks 0 of 24 experts"),
        (
            {"expert_gating_func": 2},
            "this model weights its experts in another way than by the softmax of those that are chosen, which nomoat cannot do yet",
        ),
        (
            {"expert_shared_count": 1},
            "this model has experts that all tokens ask (`qwen3moe.expert_shared_count`), unlike others of its family, which nomoat "
            "cannot do yet",
        ),
        (
            {"leading_dense_block_count": 1},
            "this model has layers without experts (`qwen3moe.leading_dense_block_count`), unlike others of its family, which nomoat "
            "cannot do yet",
        ),
    ],
)
def test_a_mixture_of_another_kind_is_refused(keys: dict[str, int], message: str, tmp_path: Path) -> None:
    case = replace(MIXTURES["qwen3moe"], keys=MIXTURES["qwen3moe"].keys | keys)
    with pytest.raises((UnsupportedError, BadFileError)) as caught:
        importer.import_gguf(write_gguf(tmp_path / "model.gguf", case, make_model(case)))
    assert caught.value.message == message


@pytest.mark.parametrize(
    ("told", "message"),
    [
        (
            {"llama.expert_used_count": None},
            "the file does not say how many of its 4 experts each token asks (`llama.expert_used_count`)",
        ),
        ({"llama.expert_count": np.array([4, 8])}, "the file says `llama.expert_count` = array([4, 8])"),
    ],
)
def test_a_mixture_that_cannot_be_is_a_bad_file(told: dict[str, Any], message: str, tmp_path: Path) -> None:
    file = GGUFFile(write_gguf(tmp_path / "model.gguf", MIXTURES["mixtral"], make_model(MIXTURES["mixtral"])))
    file.metadata = {key: value for key, value in (file.metadata | told).items() if value is not None}
    with pytest.raises(BadFileError) as caught:
        importer.read_sizes(file)
    assert caught.value.message == message


def test_a_file_may_say_that_experts_are_weighted_by_the_softmax_of_all(tmp_path: Path) -> None:
    case = replace(MIXTURES["qwen3moe"], keys=MIXTURES["qwen3moe"].keys | {"expert_weights_norm": False})
    assert not importer.read_sizes(GGUFFile(write_gguf(tmp_path / "model.gguf", case, make_model(case)))).experts_normed


def test_experts_are_as_wide_as_other_mlps_unless_the_file_says_more_than_0(tmp_path: Path) -> None:
    case = replace(MIXTURES["mixtral"], keys=MIXTURES["mixtral"].keys | {"expert_feed_forward_length": 0})
    assert importer.read_sizes(GGUFFile(write_gguf(tmp_path / "model.gguf", case, make_model(case)))).hidden == 128


def test_a_file_of_qwen2moe_that_says_no_widths_of_experts_has_what_llama_cpp_takes(tmp_path: Path) -> None:
    case = replace(MIXTURES["qwen2moe"], keys={"expert_count": 6, "expert_used_count": 2})
    wide = case.config | {"moe_intermediate_size": 64, "shared_expert_intermediate_size": 128}
    sizes = importer.read_sizes(GGUFFile(write_gguf(tmp_path / "model.gguf", case, make_model(replace(case, config=wide)))))
    assert (sizes.hidden, sizes.shared_hidden) == (64, 128)


def test_an_imported_mixture_is_known_as_one(tmp_path: Path) -> None:
    """Of `llama`, which has others as well."""
    path = write_gguf(tmp_path / "model.gguf", MIXTURES["mixtral"], make_model(MIXTURES["mixtral"]))
    arch, _ = importer.family_of(importer.import_gguf(path))
    assert arch is not None
    assert arch.has_experts


def test_matrices_of_experts_that_are_apart_are_those_of_a_newer_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = GGUFFile(write_gguf(tmp_path / "whole.gguf", MIXTURES["mixtral"], make_model(MIXTURES["mixtral"])))
    add = gguf.GGUFWriter.add_tensor

    def add_apart(writer: Any, name: str, tensor: Any, **told: Any) -> None:
        if "_exps" not in name:
            return add(writer, name, tensor, **told)
        for number, part in reversed(list(enumerate(tensor))):  # in any order
            add(writer, name.replace("_exps", f".{number}"), np.ascontiguousarray(part), **told)

    monkeypatch.setattr(gguf.GGUFWriter, "add_tensor", add_apart)
    apart = GGUFFile(write_gguf(tmp_path / "apart.gguf", MIXTURES["mixtral"], make_model(MIXTURES["mixtral"])))
    assert {name: tensor.shape for name, tensor in apart.tensors.items()} == {
        name: tensor.shape for name, tensor in whole.tensors.items()
    }
    for name in whole.tensors:
        assert np.array_equal(apart.rows(name), whole.rows(name))
    name, some = "blk.1.ffn_down_exps.weight", np.array([200, 3, 64, 70, 255])
    assert np.array_equal(apart.raw_rows(name, some), whole.raw_rows(name, some))
    assert np.array_equal(apart.rows(name, slice(60, 70)), whole.rows(name, slice(60, 70)))
    importer.read_sizes(apart)


def test_experts_of_several_types_in_one_layer_are_refused(tmp_path: Path) -> None:
    kinds = {f"blk.0.ffn_up.{number}.weight": np.zeros((32, 64), kind) for number, kind in enumerate((np.float32, np.float16))}
    path = write_tensors(tmp_path / "model.gguf", kinds)
    with pytest.raises(UnsupportedError, match=r"have different types: F16, F32 in `blk\.0\.ffn_up_exps\.weight`"):
        GGUFFile(path)


def test_an_adapter_of_what_chooses_among_experts_is_loaded_alone(tmp_path: Path) -> None:
    path = write_gguf(tmp_path / "model.gguf", MIXTURES["mixtral"], make_model(MIXTURES["mixtral"]))
    adapter = write_adapter(tmp_path / "adapter", layers=[0], parts={"mlp.gate": (4, 64)})
    assert importer.import_with(path, [adapter], alone=True)[1] == ()
    with pytest.raises(UnsupportedError) as caught:
        importer.import_with(path, [adapter], alone=False)
    assert caught.value.message == (
        f"`{adapter / 'adapter_model.safetensors'}` changes what makes the weights of experts (`model.layers.0.mlp.gate`), "
        "which one beside the weights cannot here"
    )


@needs_instructions
def test_room_is_asked_for_experts_as_an_adapter_leaves_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In 8 bits, though the file has them in 4."""
    monkeypatch.setattr(footprint, "FEW_WEIGHTS", 0)
    path = write_gguf(tmp_path / "whole.gguf", MIXTURES["mixtral"], make_model(MIXTURES["mixtral"]))
    parts = {"self_attn.v_proj": (32, 64)}
    small = export.merged_gguf(path, write_adapter(tmp_path / "a", parts=parts), tmp_path / "small.gguf", quantisation="Q4_0")
    of_one = {f"mlp.experts.{number}.{part}": (128, 64) for number in range(4) for part in ("gate_proj", "up_proj")}
    adapter, told = write_adapter(tmp_path / "adapter", parts=of_one), []

    def check(sizes: object, num_values: int, num_bytes: int, *_: object) -> None:
        told.append(num_bytes)

    for given in (None, adapter):
        folder = importer.import_gguf(small, adapter=given, check=check)
        assert told[-1] == pytest.approx((folder / "openvino_model.bin").stat().st_size, rel=0.15)
    assert told[1] > 1.3 * told[0]


def test_rows_of_experts_that_are_no_whole_tiles_are_no_tiles() -> None:
    """Though the rows of all experts together are."""
    for rows, form in ((32, layout.TILES), (24, layout.ROWS)):
        tensor = Tensor("blk.0.ffn_up_exps.weight", "Q8_0", (8, rows, 64), 0, 0)
        stored = layout.Storage("default", {"": layout.TILES}, fused=True, reason="")
        assert stored.form("model.layers.0.mlp.experts.up_proj", tensor, changed=False) == form


def test_a_large_mixture_is_never_computed_by_all_its_experts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(footprint, "MANY_WEIGHTS", 1000)
    monkeypatch.setattr(hardware, "cpu_flags", lambda: frozenset({"sse2"}))
    monkeypatch.setattr(importer, "sha256_of_model", None)  # it is refused before it is read whole
    path = write_gguf(tmp_path / "model.gguf", MIXTURES["qwen3moe"], make_model(MIXTURES["qwen3moe"]))
    with pytest.raises(UnsupportedError) as caught:
        importer.import_gguf(path)
    assert caught.value.message == f"each token asks 3 of the 24 experts of `{path}`, and all of them would be computed"
    assert importer.fits_exactly(path) is False


@needs_instructions
def test_a_large_mixture_with_adapters_that_its_products_do_not_take_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(footprint, "MANY_WEIGHTS", 1000)
    path = write_gguf(tmp_path / "model.gguf", MIXTURES["qwen3moe"], make_model(MIXTURES["qwen3moe"]))
    with pytest.raises(UnsupportedError, match="and all of them would be computed") as caught:
        importer.import_gguf(path, fused=False)
    assert caught.value.hint == "load each adapter alone"


def test_the_merged_file_of_a_mixture_chooses_as_its_base(tmp_path: Path) -> None:
    path = write_gguf(tmp_path / "model.gguf", MIXTURES["mixtral"], make_model(MIXTURES["mixtral"]))
    adapter = write_adapter(tmp_path / "adapter", parts={"self_attn.v_proj": (32, 64)})
    base, merged = GGUFFile(path), GGUFFile(export.merged_gguf(path, adapter, tmp_path / "merged.gguf"))
    assert np.array_equal(merged.rows("blk.0.ffn_gate_inp.weight"), base.rows("blk.0.ffn_gate_inp.weight"))
    assert merged.tensor("blk.0.ffn_up_exps.weight").type_name == "Q8_0"
    importer.read_sizes(merged)


def test_a_mixture_cannot_be_tuned(tmp_path: Path) -> None:
    path = write_gguf(tmp_path / "model.gguf", MIXTURES["mixtral"], make_model(MIXTURES["mixtral"]))
    with pytest.raises(UnsupportedError, match="is a mixture of experts, which runs here but cannot be tuned"):
        prepare.opened(path)


def test_a_thread_has_room_for_its_copies() -> None:
    assert 8 * (2 * step_tables.ROOM_NUMBERS + step_tables.STEP_NUMBERS) <= step_tables.COPY_BYTES
