"""A form of its own for prompts: it computes what the codes stand for, and shares keys and values with the form for answers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nomoat import config, footprint, hardware
from nomoat.engine import dense, importer, layout, paged
from nomoat.engine.dense import TwoForms
from nomoat.engine.gguf import GGUFFile
from nomoat.engine.openvino import OpenVINOEngine
from nomoat.engine.paged import PagedModel, Row
from nomoat.records import Request
from nomoat.responder import Responder

EXACT = {"INFERENCE_PRECISION_HINT": "f32", "DYNAMIC_QUANTIZATION_GROUP_SIZE": "0", "KV_CACHE_PRECISION": "u8"}
PROMPT = [5, 6, 7, 8, 9, 10, 11, 12]


@pytest.fixture
def folder(tiny_gguf: Path) -> Path:
    return importer.import_gguf(tiny_gguf)


def two_forms(folder: Path) -> TwoForms:
    """Both computed in float32, as not every CPU has bf16; the weights of prompts are rounded to bf16."""
    model = TwoForms(PagedModel(folder, EXACT), PagedModel(folder, EXACT, change=dense.expand))
    model.allocate(8)
    return model


def splits_of_products(model: Any) -> list[Any]:
    splits = [node for node in model.get_ops() if node.get_type_name() == "VariadicSplit"]
    return [node for node in splits if node.input_value(0).get_node().get_type_name() == "MatMul"]


def test_bf16_is_the_nearest_to_codes_times_scales() -> None:
    random = np.random.default_rng(0)
    codes = random.integers(-127, 128, (100, 48)).astype(np.int8)
    scales = random.uniform(1e-3, 1, (100, 1)).astype(np.float16)
    exact = codes * scales.astype(np.float32)
    ours = (dense._as_bf16(codes, scales).astype(np.uint32) << 16).view(np.float32)
    assert np.abs(ours - exact).max() > 0
    assert (np.abs(ours - exact) <= np.abs(exact) * 2**-8).all()


def test_every_matrix_of_a_layer_is_expanded_and_the_output_is_not(folder: Path) -> None:
    model = paged.core().read_model(folder / "openvino_model.xml")
    paged._page(model, folder, [])
    matrices = [node for node in model.get_ops() if dense._int8_rows(node) is not None]
    assert splits_of_products(model)
    kept = dense.expand(model)
    assert not splits_of_products(model)
    left = [node for node in model.get_ops() if dense._int8_rows(node) is not None]
    assert len(kept) >= 4
    assert len(matrices) - len(kept) == len(left) == 1  # shared by embedding and output


def test_a_prompt_and_what_follows_it_are_what_one_form_computes(folder: Path) -> None:
    one = PagedModel(folder, EXACT)
    one.allocate(8)
    two = two_forms(folder)
    for rows in (
        [Row(PROMPT, 0, [0], 8, reading=True)],
        [Row([3], 8, [0], 1)],
        [Row([4], 9, [0], 1), Row(PROMPT, 0, [1], 2, reading=True)],
    ):
        expected, hidden = (part.copy() for part in one.run(rows))
        ours, ours_hidden = two.run(rows)
        assert ours.shape == expected.shape
        assert ours_hidden.shape == hidden.shape
        assert np.abs(ours - expected).max() < 0.05 * np.abs(expected).max()


def test_the_engine_reads_prompts_in_a_form_of_their_own(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = layout.Layout(EXACT, {}, hardware.Detected("bf16", "test"))
    monkeypatch.setattr(layout.Layout, "prompt_properties", EXACT)
    monkeypatch.setattr(layout, "choose", lambda *args, **kwargs: chosen)
    seen: list[tuple[bool, ...]] = []
    whole = TwoForms.run

    def run(self: TwoForms, rows: list[Row]) -> object:
        seen.append(tuple(row.reading for row in rows))
        return whole(self, rows)

    monkeypatch.setattr(TwoForms, "run", run)
    with Responder("tiny", OpenVINOEngine(folder)) as model:
        assert model.complete(Request(prompt="the hello", max_new_tokens=4)).usage.completion_tokens > 0
    assert seen[0] == (True,)
    assert set(seen[1:]) == {(False,)}


def test_it_is_for_cpus_with_amx_and_models_of_moderate_size(tiny_gguf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hardware, "cpu_name", lambda: "Intel(R) Xeon(R)")
    monkeypatch.setattr(hardware, "memory_total_bytes", lambda: hardware.Detected(24 << 30, "test"))
    file = GGUFFile(tiny_gguf)
    sizes = importer.read_sizes(file)

    def form(flags: str, quality: config.Quality = "default", num_weights: int = 500_000_000) -> str:
        monkeypatch.setattr(hardware, "cpu_flags", lambda: frozenset(flags.split()))
        stored = layout.storage(file, sizes, quality)
        return layout.choose(sizes, stored, threads=hardware.Detected(2, "test"), num_weights=num_weights).prompts.value

    assert form("avx512_bf16 amx_bf16") == "bf16"
    assert form("avx512_bf16") == "codes"
    assert form("avx512_bf16 amx_bf16", "high") == "codes"
    assert form("avx512_bf16 amx_bf16", num_weights=footprint.PROMPT_WEIGHTS + 1) == "codes"
    assert form("avx512_bf16 amx_bf16", num_weights=footprint.FEW_WEIGHTS - 1) == "codes"
    monkeypatch.setattr(hardware, "memory_total_bytes", lambda: hardware.Detected(8 << 30, "test"))
    assert form("avx512_bf16 amx_bf16") == "codes"
