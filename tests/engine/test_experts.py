"""Mixtures of experts: their products, whole models that have them, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from reference import MIXTURES, make_model, write_gguf

from nomoat import footprint
from nomoat.engine import importer, step_tables, tiles
from nomoat.engine.gguf import GGUFFile
from nomoat.engine.native import Blueprint, NativeModel
from nomoat.engine.paged import Row
from nomoat.engine.program import Program
from nomoat.errors import BadFileError, UnsupportedError
from nomoat.tune import prepare

needs_instructions = pytest.mark.skipif(
    not footprint.has_native_kernels(), reason="nomoat's own products need AVX2, FMA and F16C, or ARM's dotprod"
)
WIDTH, HIDDEN = 288, 416  # no multiples of a chunk


def silu(x: Any) -> Any:
    return x / (1 + np.exp(-x))


class Mixture:
    """Weights of a mixture, and what it makes of inputs in float64."""

    def __init__(self, experts: int, chosen: int, type_name: str) -> None:
        chance = np.random.default_rng(experts)
        self.experts, self.chosen, self.type_name = experts, chosen, type_name
        self.norm = chance.uniform(0.5, 1.5, WIDTH).astype(np.float32)
        self.router = chance.normal(size=(experts, WIDTH)).astype(np.float32)
        kind = gguf.GGMLQuantizationType[type_name]
        gated, down = (
            chance.normal(size=(experts * rows, columns)).astype(np.float32) * np.float32(columns**-0.5)
            for rows, columns in ((2 * HIDDEN, WIDTH), (WIDTH, HIDDEN))
        )
        self.gated, self.down = gguf.quants.quantize(gated, kind), gguf.quants.quantize(down, kind)  # of each expert the gate, then up

    def program(self) -> tuple[Program, Any]:
        """And the memory it needs."""
        parts = [self.norm, self.router, tiles.tiled(self.gated, self.type_name), tiles.tiled(self.down, self.type_name)]
        weights = np.concatenate([part.reshape(-1).view(np.uint8) for part in parts])
        norm, router, gated, down = np.cumsum([0, *(part.nbytes for part in parts)])[:4].tolist()
        mixture = (self.experts, self.chosen)
        steps = [
            ("norm", "", WIDTH, -1, norm), ("choose", "", self.experts, -1, router, *mixture),
            ("experts_gated", self.type_name, 2 * HIDDEN, gated, -1, *mixture),
            ("experts_add", self.type_name, WIDTH, down, -1, *mixture),
        ]  # fmt: skip
        return Program(steps, weights.ctypes.data, WIDTH, width=WIDTH, epsilon=1e-6), weights

    def exact(self, x_MW: Any) -> Any:
        kind = gguf.GGMLQuantizationType[self.type_name]
        gated = gguf.quants.dequantize(self.gated, kind).reshape(self.experts, 2, HIDDEN, WIDTH).astype(np.float64)
        down = gguf.quants.dequantize(self.down, kind).reshape(self.experts, WIDTH, HIDDEN).astype(np.float64)
        normed = x_MW / np.sqrt(np.mean(x_MW.astype(np.float64) ** 2, axis=1, keepdims=True) + 1e-6) * self.norm
        scores = normed @ self.router.T
        made = x_MW.astype(np.float64)
        for m, x in enumerate(normed):
            asked = np.argsort(-scores[m])[: self.chosen]
            weights = np.exp(scores[m, asked] - scores[m, asked].max())
            for e, weight in zip(asked, weights / weights.sum(), strict=True):
                made[m] += weight * (down[e] @ (silu(gated[e, 0] @ x) * (gated[e, 1] @ x)))
        return made


@needs_instructions
@pytest.mark.parametrize("tokens", [1, 2, 23, 24, 70, 400])
@pytest.mark.parametrize("mixture", [(4, 2), (40, 3), (3, 3)])
@pytest.mark.parametrize("type_name", ["Q4_0", "Q8_0"])
def test_each_token_gets_what_the_experts_it_asks_give(tokens: int, mixture: tuple[int, int], type_name: str) -> None:
    """By few experts, where many tokens are multiplied in panels, and by many; the last of several parts is shorter."""
    given = Mixture(*mixture, type_name)
    program, weights = given.program()
    x_MW = np.random.default_rng(tokens).normal(size=(tokens, WIDTH)).astype(np.float32)
    after_1MW = np.full((1, tokens, WIDTH), np.nan, np.float32)
    program.run(None, x_MW[None], after_1MW, [])
    exact = given.exact(x_MW)
    assert np.sqrt(np.mean((after_1MW[0] - exact) ** 2)) < 0.04 * np.sqrt(np.mean((exact - x_MW) ** 2))
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
        ({"expert_shared_count": 1}, "this model has experts that all tokens ask, or layers without any, which nomoat cannot do yet"),
    ],
)
def test_a_mixture_of_another_kind_is_refused(keys: dict[str, int], message: str, tmp_path: Path) -> None:
    case = replace(MIXTURES["qwen3moe"], keys=MIXTURES["qwen3moe"].keys | keys)
    with pytest.raises((UnsupportedError, BadFileError)) as caught:
        importer.import_gguf(write_gguf(tmp_path / "model.gguf", case, make_model(case)))
    assert caught.value.message == message


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


def test_a_mixture_cannot_be_tuned(tmp_path: Path) -> None:
    path = write_gguf(tmp_path / "model.gguf", MIXTURES["mixtral"], make_model(MIXTURES["mixtral"]))
    with pytest.raises(UnsupportedError, match="is a mixture of experts, which runs here but cannot be tuned"):
        prepare.opened(path)


def test_a_thread_has_room_for_its_copies() -> None:
    assert 8 * (2 * step_tables.ROOM_NUMBERS + step_tables.STEP_NUMBERS) <= step_tables.COPY_BYTES
