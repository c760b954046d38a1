"""The network that learns against the implementations in `transformers`, on the tiny models the engine is compared on."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from products import raw_rows
from reference import CASES, WINDOW, make_model, write_folder, write_gguf
from torch.nn.attention import SDPBackend, sdpa_kernel

from nomoat import hardware
from nomoat.engine import arch as architectures
from nomoat.engine import importer, step_tables, tiles
from nomoat.engine.source import ModelSource, open_source
from nomoat.engine.weights import Form
from nomoat.tune import qlora
from nomoat.tune.network import Network, Places

LONG, SHARED = 3 * WINDOW + 5, 30


@pytest.mark.parametrize(
    ("name", "keep_expanded", "frozen"),
    [*((name, True, 0) for name in CASES), ("llama", False, 0), ("llama", True, 1), ("gemma3", True, 1)],
)
def test_every_family_gives_the_logits_of_its_reference(name: str, keep_expanded: bool, frozen: int, tmp_path: Path) -> None:
    model = make_model(CASES[name])
    source = open_source(write_gguf(tmp_path / "model.gguf", CASES[name], model))
    assert_logits_equal(model, source, keep_expanded=keep_expanded, frozen=frozen)


@pytest.mark.parametrize(
    "name",
    [
        *("arcee", "ernie4_5", "exaone", "exaone4", "falcon 40b", "gemma3", "glm4", "gpt2", "granite", "hunyuan-dense", "llama"),
        *("mistral3", "nemotron", "olmo3", "opt", "phi3", "qwen2", "smollm3"),
    ],
)
def test_a_folder_of_the_hub_gives_the_logits_of_its_reference(name: str, tmp_path: Path) -> None:
    model, folder = write_folder(tmp_path / "model", name)
    assert_logits_equal(model, open_source(folder), keep_expanded=True, frozen=0)


def assert_logits_equal(model: Any, file: ModelSource, *, keep_expanded: bool, frozen: int) -> None:
    arch, sizes = architectures.of(file), importer.read_sizes(file)
    network = Network(file, arch, sizes, rank=4, seed=0, precision="float32", keep_expanded=keep_expanded, frozen=frozen)
    ids_BT = torch.randint(3, 250, (2, LONG), generator=torch.Generator().manual_seed(1))
    ids_BT[1, :SHARED] = ids_BT[0, :SHARED]
    with torch.no_grad():
        expected = model(input_ids=ids_BT, use_cache=False).logits
        wanted_BT = torch.rand(ids_BT.shape, generator=torch.Generator().manual_seed(2)) < 0.5
        hidden_NW = network.hidden(network.read(ids_BT), wanted_BT)
        whole, (losses_N, hits_N) = network.logits(hidden_NW), network.losses(hidden_NW, ids_BT[wanted_BT])
        none_N, all_N = (network.losses(hidden_NW, ids_N)[1] for ids_N in (whole.argmin(-1), whole.argmax(-1)))
        beginning = network.begin(ids_BT[0, :SHARED].tolist())
        wanted_after_BT = wanted_BT[:, SHARED:]
        after = network.logits(network.hidden(network.read(ids_BT[:, SHARED:], beginning), wanted_after_BT, beginning))
    torch.testing.assert_close(whole, expected[wanted_BT], atol=1e-4, rtol=0)
    expected_losses_N = torch.nn.functional.cross_entropy(expected[wanted_BT], ids_BT[wanted_BT], reduction="none")
    torch.testing.assert_close(losses_N, expected_losses_N, atol=1e-4, rtol=0)
    assert torch.equal(hits_N, whole.argmax(-1) == ids_BT[wanted_BT])
    assert all_N.all() and not none_N.any()
    torch.testing.assert_close(after, expected[:, SHARED:][wanted_after_BT], atol=1e-4, rtol=0)


def network_of(name: str, folder: Path, *, precision: str = "float32", frozen: int = 0) -> Network:
    """That of a tiny model of the reference, with expanded weights."""
    source = open_source(write_gguf(folder / f"{precision}.gguf", CASES[name], make_model(CASES[name])))
    arch, sizes = architectures.of(source), importer.read_sizes(source)
    return Network(source, arch, sizes, rank=4, seed=0, precision=precision, keep_expanded=True, frozen=frozen)


def test_padding_may_stand_beyond_the_last_learned_place(tmp_path: Path) -> None:
    network = network_of("gpt2", tmp_path, frozen=1)
    ids_BT = torch.randint(3, 250, (2, network.sizes.context_tokens), generator=torch.Generator().manual_seed(1))
    padded_BTW = network.read(torch.nn.functional.pad(ids_BT, (0, 3)))
    torch.testing.assert_close(padded_BTW[:, :-3], network.read(ids_BT), atol=1e-5, rtol=0)


def test_what_alibi_adds_is_no_coarser_in_bf16_at_the_end_of_a_long_row(tmp_path: Path) -> None:
    """A place of 1,000 times a slope of a quarter is rounded to twos in bf16, and what is next to a query must not be."""
    networks = (network_of("bloom", tmp_path, precision=precision) for precision in ("bfloat16", "float32"))
    coarse, fine = (network._masks(Places(30, 30, 1, 1000), False) for network in networks)
    for ours, exact in zip(coarse, fine, strict=True):
        torch.testing.assert_close(ours.float().softmax(-1), exact.softmax(-1), atol=0.003, rtol=0)


@pytest.mark.parametrize("name", ["bloom", "gemma3", "llama"])
def test_masks_are_made_some_queries_at_a_time_and_hold_what_is_planned(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In f32 and at once a mask's parts take four times the memory of a mask in bf16."""
    from nomoat.tune import network

    ours = network_of(name, tmp_path, precision="bfloat16")
    kinds = {sight.local for sight in ours._sights}
    made: list[int] = []
    of_some = Network._mask
    monkeypatch.setattr(Network, "_mask", lambda self, queries, *given: (made.append(len(queries)), of_some(self, queries, *given))[1])
    found = [mask for local in kinds for mask in ours._masks(Places(150, 150, 2, 200), local)]
    assert max(made) == 64 and sum(made) == 350 * len(kinds)
    assert sum(mask.numel() for mask in found) == network.num_masked(ours.arch, ours.sizes, 150, 200)
    monkeypatch.setattr(network, "MASKED_QUERIES", 10**6)
    whole = [mask for local in kinds for mask in ours._masks(Places(150, 150, 2, 200), local)]
    assert all(torch.equal(one, other) for one, other in zip(found, whole, strict=True))


def test_long_rows_and_short_ones_are_attended_to_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    from nomoat.tune import network

    query, key, value = (torch.randn(2, heads, 9, 8, generator=torch.Generator().manual_seed(heads)) for heads in (4, 2, 2))
    mask = torch.zeros(9, 9).masked_fill(torch.ones(9, 9).triu(1).bool(), -torch.inf)
    short = network._attend(query, key, value, mask)
    monkeypatch.setattr(network, "SHORT_SCORES", 1)
    torch.testing.assert_close(network._attend(query, key, value, mask), short)


@pytest.mark.parametrize("name", ["bloom", "gemma3", "llama"])
def test_masks_of_long_rows_are_such_as_pytorch_s_kernel_without_all_scores_takes(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Behind a beginning, too. The plain one, which it takes else without a word, holds a number for each pair of tokens and head."""
    ours = network_of(name, tmp_path)
    monkeypatch.setattr("nomoat.tune.network.SHORT_SCORES", 1)
    ids_BT, wanted_BT = torch.randint(3, 250, (2, 40)), torch.ones(2, 40, dtype=torch.bool)
    with sdpa_kernel(SDPBackend.FLASH_ATTENTION):  # an error where that cannot be
        beginning = ours.begin([5] * 30)
        ours.loss(ours.hidden(ours.read(ids_BT, beginning), wanted_BT, beginning), ids_BT.flatten())[0].backward()


@pytest.mark.parametrize("cap", [None, 5.0])
def test_the_loss_in_parts_is_that_of_pytorch_and_so_is_its_gradient(cap: float | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(qlora.AnswerLoss, "CHUNK_TOKENS", 4)
    generator = torch.Generator().manual_seed(0)
    weights = torch.randn(50, 16, generator=generator).numpy()
    head, x = (
        qlora.Expanded.of([qlora.Part(*weights.shape, weights.__getitem__, Form("float32"))], torch.float32),
        torch.randn(10, 16, generator=generator),
    )
    bias, targets = torch.randn(50, generator=generator), torch.arange(10)
    ours, theirs = x.clone().requires_grad_(), x.clone().requires_grad_()
    loss, of_each = qlora.answer_loss(ours, head, bias, targets, cap)
    logits = theirs @ head.weight_OI.t() + bias
    capped = logits if cap is None else torch.tanh(logits / cap) * cap
    expected = torch.nn.functional.cross_entropy(capped, targets)
    (3 * loss).backward()
    (3 * expected).backward()
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(of_each, torch.nn.functional.cross_entropy(capped, targets, reduction="none"))
    torch.testing.assert_close(ours.grad, theirs.grad)


@pytest.mark.parametrize("store", [qlora.Expanded.of, qlora.Codes])
def test_a_matrix_read_in_pieces_is_the_matrix_read_at_once(store: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    weights = torch.randn(50, 16, generator=torch.Generator().manual_seed(0)).numpy()
    parts = [qlora.Part(len(half), 16, half.__getitem__, Form("int8", group=8)) for half in (weights[:20], weights[20:])]
    x = torch.randn(3, 16)
    at_once = store(parts, torch.float32).times(x)
    monkeypatch.setattr(qlora, "PIECE_WEIGHTS", 7 * 16)
    torch.testing.assert_close(store(parts, torch.float32).times(x), at_once)
    torch.testing.assert_close(at_once, x @ torch.from_numpy(weights).t(), atol=0.1, rtol=0)


@pytest.mark.parametrize("expanded", [True, False])
def test_what_a_fresh_adapter_adds_is_not_rounded_away_in_bf16(expanded: bool) -> None:
    """A thousandth of y, where y's last bit is worth four: y moves by it in the mean, and so do the gradients of x."""
    torch.manual_seed(0)
    weight = torch.randn(64, 256) / 16
    part = qlora.Part(64, 256, lambda rows: weight[rows].numpy(), Form("float32"))
    matrix = qlora.kept([part], "bfloat16", expanded=expanded)
    x_NI = torch.randn(2048, 256, dtype=torch.bfloat16, requires_grad=True)
    a_RI, b_OR, dy_NO = torch.randn(4, 256).bfloat16() / 16, 2.5e-4 * torch.randn(64, 4).bfloat16(), torch.randn(2048, 64).bfloat16()
    changes = []
    for b in (b_OR, torch.zeros_like(b_OR)):
        y_NO = qlora.lora_linear(x_NI, matrix, None, a_RI, b)
        changes.append((y_NO.detach().float(), torch.autograd.grad(y_NO, x_NI, dy_NO)[0].float()))
    exact = qlora.USUAL_SCALE * b_OR.float() @ a_RI.float()
    for (with_it, without), added in zip(
        zip(*changes, strict=True), (x_NI.detach().float() @ exact.t(), dy_NO.float() @ exact), strict=True
    ):
        assert float(((with_it - without) * added).sum() / (added * added).sum()) == pytest.approx(1, abs=0.1)


@pytest.mark.skipif(not step_tables.HAS_PANELS, reason="this CPU has no VNNI")
def test_products_in_8_bits_are_near_those_in_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = torch.Generator().manual_seed(0)
    weights, x, dy = (torch.randn(size, generator=generator) for size in ((160, 96), (50, 96), (50, 160)))
    parts = [qlora.Part(len(half), 96, half.numpy().__getitem__, Form("float32")) for half in (weights[:64], weights[64:])]
    monkeypatch.setattr(qlora, "PIECE_WEIGHTS", 40 * 96)
    matrix, thrifty = (qlora.kept(parts, "int8", expanded=expanded) for expanded in (True, False))
    assert isinstance(matrix, qlora.Tiled)
    for like in (thrifty, thrifty.ready()):
        assert torch.equal(like.gradient(dy), matrix.gradient(dy))
    for ours, exact, most in ((matrix.times(x), x @ weights.t(), 0.01), (matrix.gradient(dy), dy @ weights, 0.012)):
        assert (ours - exact).norm() < most * exact.norm()
    torch.testing.assert_close(matrix.rows(torch.tensor([[3, 159]])), weights[[3, 159]][None], atol=0.02, rtol=0)
    assert matrix.times(x[:0]).shape == (0, 160)
    for odd in (weights[:150], weights[:, :80]):
        assert isinstance(
            qlora.kept([qlora.Part(*odd.shape, odd.numpy().__getitem__, Form("float32"))], "int8", expanded=True), qlora.Expanded
        )


@pytest.mark.parametrize(
    ("precision", "close"),
    [
        pytest.param("int8", 0.012, marks=pytest.mark.skipif(not step_tables.HAS_PANELS, reason="this CPU has no VNNI")),
        ("float32", 1e-6),
    ],
)
def test_a_files_own_codes_multiply_as_the_weights_they_stand_for(
    precision: qlora.Precision, close: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of two types, as in the queries, keys and values of a Q4_K_M file."""
    parts, weights = [], []
    for number, name in enumerate(("Q4_K", "Q4_K", "Q6_K")):
        made = tiles.tiled(raw_rows(name, 64, 256, seed=number), name)
        values = tiles.rows_of(made, name, np.arange(64))
        weights.append(torch.from_numpy(values))

        def read_tiles(rows: slice, made: tiles.Bytes = made) -> tiles.Bytes:
            return made[rows.start // tiles.TILE_ROWS : rows.stop // tiles.TILE_ROWS]

        parts.append(qlora.Part(64, 256, values.__getitem__, Form("float32"), name, read_tiles))
    monkeypatch.setattr(qlora, "PIECE_WEIGHTS", 32 * 256)
    weights_OI, generator = torch.cat(weights), torch.Generator().manual_seed(0)
    x, dy = (torch.randn(50, size, generator=generator) for size in (256, 192))
    for expanded in (True, False):
        matrix = qlora.kept(parts, precision, expanded=expanded)
        for ours, exact in ((matrix.times(x), x @ weights_OI.t()), (matrix.gradient(dy), dy @ weights_OI)):
            assert (ours - exact).norm() < close * exact.norm()
        table = qlora.kept(parts[2:], precision, expanded=expanded)
        torch.testing.assert_close(table.rows(torch.tensor([[3, 63]])), weights[2][[3, 63]][None])


@pytest.mark.parametrize(
    ("name", "flags", "has_panels", "platform", "precision"),
    [
        ("AMD EPYC 9R14", {"avx512_bf16", "avx512_vnni"}, True, "linux", "bfloat16"),
        ("Intel(R) Xeon(R) Processor", {"avx512_bf16", "avx512_vnni"}, True, "linux", "int8"),
        ("Intel(R) Xeon(R) Processor", {"amx_bf16", "avx512_bf16"}, True, "win32", "bfloat16"),
        ("Neoverse-V1", {"asimddp", "bf16"}, True, "linux", "bfloat16"),
        ("Intel(R) Core(TM) Ultra 7 155H", {"avx2", "avx_vnni"}, True, "linux", "int8"),
        ("Neoverse-N1", {"asimddp"}, True, "linux", "int8"),
        ("Intel(R) Core(TM) i5-6200U CPU @ 2.30GHz", {"avx2"}, False, "linux", "float32"),
        ("Apple M2", {"asimddp", "bf16"}, True, "darwin", "float32"),
        ("Snapdragon X Elite", {"asimddp", "bf16"}, True, "win32", "int8"),
    ],
)
def test_the_number_format_of_tuning_follows_from_the_cpu_alone(
    name: str, flags: set[str], has_panels: bool, platform: str, precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is measured: other programs would sway it, and the same command give other weights."""
    monkeypatch.setattr(hardware, "cpu_name", lambda: name)
    monkeypatch.setattr(hardware, "cpu_flags", lambda: frozenset(flags))
    monkeypatch.setattr(step_tables, "HAS_PANELS", has_panels)
    monkeypatch.setattr(sys, "platform", platform)
    found = qlora.fastest_precision()
    assert found.value == precision and found.reason
