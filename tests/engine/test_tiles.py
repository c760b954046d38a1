"""A file's own codes in tiles: the weights they are, the products with them, and whole models that compute with them."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
import threading
import weakref
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import numpy.typing as npt
import pytest
import tiny
import torch
from patience import PATIENCE_SECONDS, wait_until
from products import PLACES, TYPES, WAYS_TO_READ, Given, product, product_with_adapters, raw_rows
from reference import CASES, make_model, write_gguf
from tiny import ADAPTED, NORMS_LAST, write_adapter, write_tiny_gguf

from nomoat import cache, config, footprint, hardware, machine_code
from nomoat.engine import arch as architectures
from nomoat.engine import batching, chain, fused, importer, layout, native, shutdown, step_tables, tiles
from nomoat.engine.blocks import BLOCK_TOKENS
from nomoat.engine.gguf import GGUFFile
from nomoat.engine.likelihood import Question, Scorer
from nomoat.engine.local import LocalEngine
from nomoat.engine.lookup import Lookup
from nomoat.engine.lora import LoraDelta
from nomoat.engine.native import Blueprint, NativeModel
from nomoat.engine.paged import PagedModel, Row
from nomoat.engine.program import Program
from nomoat.engine.sampling import Sampler
from nomoat.engine.source import open_source
from nomoat.engine.step_tables import Kind, Step
from nomoat.engine.texts import Answer
from nomoat.errors import BadFileError
from nomoat.records import Request
from nomoat.responder import load, memory_need
from nomoat.tune import export
from tests.engine.test_adapters import EXACT

needs_instructions = pytest.mark.skipif(
    not footprint.has_native_kernels(), reason="nomoat's own products need AVX2, FMA and F16C, or ARM's dotprod"
)
# of the root mean square: inputs have 8 bits, with a scale for each 32; by AMX for each 256, as weights then have
ROUNDING, AMX_ROUNDING = 0.012, 0.015
BF16_ROUNDING = 0.004
NATIVE_CASES = [
    "chatglm", "chatglm, one matrix", "ernie4_5", "exaone", "exaone4", "exaone4, no window", "gemma", "gemma2", "gemma3", "glm4",
    "granite", "llama, heads wider than the model", "minicpm", "mistral3", "olmo2", "olmo3", "phi3, window", "smollm3",
]  # fmt: skip


def dequantised(raw: npt.NDArray[np.uint8], type_name: str) -> npt.NDArray[np.float32]:
    return np.asarray(gguf.quants.dequantize(raw, gguf.GGMLQuantizationType[type_name]))


@pytest.mark.parametrize("type_name", TYPES)
def test_tiles_hold_the_files_weights_to_the_last_bit(type_name: str) -> None:
    raw = raw_rows(type_name, 48, 512)
    made = tiles.tiled(raw, type_name)
    assert made.nbytes == tiles.size(type_name, 48, 512)
    rows = np.array([47, 0, 16, 15, 16, 31])
    assert np.array_equal(tiles.rows_of(made, type_name, rows), dequantised(raw, type_name)[rows])


@pytest.mark.parametrize("type_name", TYPES)
def test_tiles_are_the_same_however_many_are_made_at_a_time_and_zeros_fill_the_last(
    type_name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    raw, place = raw_rows(type_name, 37, 512), np.empty((3, tiles.size(type_name, 16, 512)), np.uint8)
    whole = tiles.tiled(np.concatenate([raw, np.zeros((11, raw.shape[1]), np.uint8)]), type_name)
    monkeypatch.setattr(tiles, "IN_CACHE", 1)
    assert tiles.tiled(raw, type_name, place) is place
    assert np.array_equal(place, whole)


@pytest.mark.parametrize("type_name", TYPES)
def test_scales_that_are_no_numbers_are_refused(type_name: str) -> None:
    raw = raw_rows(type_name, 16, 512)
    nan = b"\xff" if type_name == "MXFP4" else np.float16("nan").tobytes()
    raw[3, PLACES.get(type_name, 0) :][: len(nan)] = np.frombuffer(nan, np.uint8)
    with pytest.raises(ValueError, match="no numbers"):
        tiles.tiled(raw, type_name)


@needs_instructions
@pytest.mark.parametrize("type_name", TYPES)
def test_a_product_differs_by_the_rounding_of_its_inputs_alone(type_name: str) -> None:
    raw = raw_rows(type_name, 80, 768)
    weights_RC = dequantised(raw, type_name)
    for tokens in (1, 2, 3, 7, 12, 13, 26, 32, 35, 300):
        x_MC = np.random.default_rng(1).normal(size=(tokens, 768)).astype(np.float32)
        x_MC[0, :32] = 0  # a group without a scale
        exact = x_MC @ weights_RC.T
        error = product(x_MC, raw, type_name) - exact
        most = AMX_ROUNDING if step_tables.BY_AMX and tokens >= step_tables.PANELS_FROM else ROUNDING
        assert np.sqrt(np.mean(error**2)) < most * np.sqrt(np.mean(exact**2)), tokens


@needs_instructions
@pytest.mark.parametrize("columns", [576, 768])
def test_tokens_are_rounded_in_panels_from_as_many_on_as_the_width_says(columns: int) -> None:
    raw, enough = raw_rows("Q4_1", 48, columns), step_tables.panels_from(step_tables.chunk_of(columns))
    assert enough == (48 if columns == 576 and not step_tables.BY_AMX else 24)
    x_MC = np.random.default_rng(1).normal(size=(enough, columns)).astype(np.float32)
    each = np.concatenate([product(x_MC[m : m + 1], raw, "Q4_1") for m in range(enough)])
    assert product(x_MC[:-1], raw, "Q4_1") == pytest.approx(each[:-1], rel=1e-5, abs=1e-5)
    differs = np.abs(product(x_MC, raw, "Q4_1") - each).max() > 1e-3
    assert differs == step_tables.HAS_PANELS


@pytest.mark.skipif(not step_tables.BY_AMX, reason="this CPU has no AMX, or the system does not give it")
@pytest.mark.parametrize("type_name", TYPES)
@pytest.mark.parametrize(("chunk", "most"), [(tiles.FINE_CHUNK, BF16_ROUNDING), (step_tables.AMX_CHUNK, AMX_ROUNDING)])
def test_many_tokens_are_multiplied_by_amx_in_bf16_or_in_8_bits(type_name: str, chunk: int, most: float) -> None:
    raw = raw_rows(type_name, 48, 1280)
    weights_RC = dequantised(raw, type_name)
    for tokens in (33, 48, 49, 700):
        x_MC = np.random.default_rng(1).normal(size=(tokens, 1280)).astype(np.float32)
        exact = x_MC @ weights_RC.T
        errors = np.mean((product(x_MC, raw, type_name, chunk=chunk) - exact) ** 2, axis=1)
        size = np.sqrt(np.mean(exact**2))
        assert np.sqrt(errors.mean()) < most * size, tokens
        assert np.sqrt(errors.max()) < 2 * most * size, tokens  # of no token is it much larger


@pytest.mark.skipif(not step_tables.BY_AMX, reason="this CPU has no AMX, or the system does not give it")
@pytest.mark.parametrize("chunk", [tiles.FINE_CHUNK, step_tables.AMX_CHUNK])
def test_by_amx_a_token_is_computed_alike_whatever_is_beside_it(chunk: int) -> None:
    raw, x_MC = raw_rows("Q5_0", 48, 1568), np.random.default_rng(1).normal(size=(700, 1568)).astype(np.float32)
    alone = product(x_MC[:24], raw, "Q5_0", chunk=chunk)
    for tokens in (33, 49, 64, 700):
        assert np.array_equal(product(x_MC[:tokens], raw, "Q5_0", chunk=chunk)[:24], alone), tokens


@needs_instructions
@pytest.mark.parametrize("tokens", [20, 33, 70])
@pytest.mark.parametrize("has_bias", [False, True])
@pytest.mark.parametrize("columns", [672, 1568])
def test_products_of_many_are_added_whatever_the_columns_and_tiles(tokens: int, has_bias: bool, columns: int) -> None:
    """Five tiles, of which the last has no second; columns in parts of different sizes, the last chunk no whole step of AMX's."""
    chance = np.random.default_rng(4)
    raw = raw_rows("Q8_0", 80, columns)
    x_MC, before_MR = chance.normal(size=(tokens, columns)).astype(np.float32), chance.normal(size=(tokens, 80)).astype(np.float32)
    bias_R = chance.normal(size=80).astype(np.float32) * has_bias
    made = tiles.tiled(raw, "Q8_0").reshape(-1)
    weights = np.concatenate([made, bias_R.view(np.uint8)])
    after_1MR = np.full((1, tokens, 80), np.nan, np.float32)
    program = Program([("add", "Q8_0", 80, 0, len(made) if has_bias else -1)], weights.ctypes.data, columns, width=80)
    program.run(x_MC[None], before_MR[None], after_1MR, [])
    exact = before_MR + x_MC @ dequantised(raw, "Q8_0").T + bias_R
    assert np.sqrt(np.mean((after_1MR[0] - exact) ** 2)) < ROUNDING * np.sqrt(np.mean(exact**2))


@needs_instructions
@pytest.mark.parametrize("chunk", [tiles.FINE_CHUNK, *([step_tables.AMX_CHUNK] if step_tables.BY_AMX else [])])
def test_a_gate_is_rounded_chunk_by_chunk_for_the_product_after_it(chunk: int) -> None:
    """Of 1,120 columns, whose last chunk is no whole step of AMX's; tokens that fill no panel, and those of a whole part and more."""
    chance, width, hidden = np.random.default_rng(5), 800, 1120
    norm = chance.uniform(0.5, 1.5, width).astype(np.float32)
    gated, down = raw_rows("Q8_0", 2 * hidden, width), raw_rows("Q8_0", width, hidden, seed=1)
    parts = [norm.view(np.uint8), *(tiles.tiled(raw, "Q8_0").reshape(-1) for raw in (gated, down))]
    weights, (_, of_gate, of_down) = np.concatenate(parts), np.cumsum([0, *map(len, parts[:2])]).tolist()
    steps = [("norm", "", width, -1, 0), ("gated", "Q8_0", 2 * hidden, of_gate, -1), ("add", "Q8_0", width, of_down, -1)]
    program = Program(steps, weights.ctypes.data, width, width=width, epsilon=1e-6, chunk=chunk)
    x_MW = chance.normal(size=(700, width)).astype(np.float32)
    normed = x_MW / np.sqrt(np.mean(x_MW**2, axis=1, keepdims=True) + 1e-6) * norm
    gate, up = np.split(normed @ dequantised(gated, "Q8_0").T, 2, axis=1)
    exact = (gate / (1 + np.exp(-gate)) * up) @ dequantised(down, "Q8_0").T
    whole = np.empty((0, width), np.float32)
    for tokens in (700, 24, 33, 47):
        after_1MW = np.full((1, tokens, width), np.nan, np.float32)
        program.run(None, x_MW[None, :tokens], after_1MW, [])
        errors = np.mean((after_1MW[0] - x_MW[:tokens] - exact[:tokens]) ** 2, axis=1)
        assert np.sqrt(errors.max()) < 0.03 * np.sqrt(np.mean(exact**2)), tokens
        whole = whole if len(whole) else after_1MW[0]
        assert np.array_equal(after_1MW[0], whole[:tokens]), tokens


WITHOUT_AMX = """
import sys
import numpy as np
from nomoat import hardware
hardware.amx = lambda: hardware.Detected(False, "refused")
from nomoat.engine import program, step_tables, tiles
assert not step_tables.BY_AMX
raw, x = (np.load(file) for file in sys.argv[1:3])
made = tiles.tiled(raw, "Q4_K")
y = np.zeros((1, len(x), len(raw)), np.float32)
program.Program([("out", "Q4_K", len(raw), 0, -1)], made.ctypes.data, x.shape[1]).run(x[None], None, None, [y])
np.save(sys.argv[3], y[0])
"""


@pytest.mark.skipif(not step_tables.BY_AMX, reason="this CPU has no AMX, or the system does not give it")
def test_where_the_system_does_not_give_amx_many_tokens_are_multiplied_in_8_bits(tmp_path: Path) -> None:
    raw = raw_rows("Q4_K", 48, 512)
    x_MC = np.random.default_rng(1).normal(size=(40, 512)).astype(np.float32)
    files = [tmp_path / f"{name}.npy" for name in ("raw", "x", "y")]
    for file, array in zip(files, (raw, x_MC), strict=False):
        np.save(file, array)
    subprocess.run([sys.executable, "-c", WITHOUT_AMX, *map(str, files)], check=True)
    exact = x_MC @ dequantised(raw, "Q4_K").T
    error = np.sqrt(np.mean((np.load(files[-1]) - exact) ** 2)) / np.sqrt(np.mean(exact**2))
    assert BF16_ROUNDING < error < ROUNDING


@needs_instructions
@pytest.mark.parametrize("type_name", TYPES)
def test_inputs_that_8_bits_can_hold_give_exact_products(type_name: str) -> None:
    raw = raw_rows(type_name, 32, 512)
    x_MC = np.random.default_rng(2).integers(-127, 128, (5, 512)).astype(np.float32)
    x_MC[:, ::32] = 127
    exact = x_MC.astype(np.float64) @ dequantised(raw, type_name).T.astype(np.float64)
    assert product(x_MC, raw, type_name) == pytest.approx(exact, rel=1e-4, abs=1e-3 * np.abs(exact).max())


OTHER_CPU = """
import sys
import numpy as np
from nomoat import hardware
flags = hardware.cpu_flags() - {"avx512_vnni", "avx_vnni"}
hardware.cpu_flags = lambda: flags
from nomoat.engine import kernels
kernels.TOKENS_AT_ONCE = (4, 0)  # five tokens are four, and one of four; other numbers would be compiled, and not run
from products import WAYS_TO_READ, product, product_with_adapters, raw_rows
x = np.random.default_rng(1).normal(size=(5, 768)).astype(np.float32)
products = [product(x, raw_rows(name, 80, 768), name) for name in WAYS_TO_READ]
np.save(sys.argv[1], np.stack([*products, product_with_adapters(x, [0, 1, 1, -1, 0])]))
"""


@pytest.mark.skipif("avx2" not in hardware.cpu_flags(), reason="this CPU has no AVX2")
def test_a_cpu_with_avx2_alone_computes_the_same(tmp_path: Path, empty_home: Path) -> None:
    """With that home its code is compiled anew, for instructions that this CPU may have better ones for."""
    place = tmp_path / "avx2.npy"
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run([sys.executable, "-c", OTHER_CPU, str(place)], check=True, env=environment)
    x_MC = np.random.default_rng(1).normal(size=(5, 768)).astype(np.float32)
    products = [product(x_MC, raw_rows(name, 80, 768), name) for name in WAYS_TO_READ]
    ours = np.stack([*products, product_with_adapters(x_MC, [0, 1, 1, -1, 0])])
    assert np.load(place) == pytest.approx(ours, rel=1e-4, abs=1e-4)


@needs_instructions
@pytest.mark.parametrize("owners", [[0], [1, -1, 0], [1] * 9 + [0] * 8, [0] * 21 + [-1] + [1] * 20 + [0] * 10])
def test_each_token_gets_what_its_own_adapter_adds(owners: list[int]) -> None:
    x_MC = np.random.default_rng(1).normal(size=(len(owners), 768)).astype(np.float32)
    adapters = [Given(5), Given(20)]
    exact = np.stack(
        [adapters[at].b_OR @ (adapters[at].a_RI @ x) if at >= 0 else np.zeros(80) for at, x in zip(owners, x_MC, strict=True)]
    )
    error = product_with_adapters(x_MC, owners) - exact
    assert np.sqrt(np.mean(error**2)) < 2 * ROUNDING * np.sqrt(np.mean(exact**2))
    assert not error[np.array(owners) < 0].any()


def wait_until_the_team_sleeps() -> None:
    """All of its threads but the caller's, which found no job for a while."""
    from nomoat.engine import program
    from nomoat.engine.team import TEAM_NUMBERS, TeamState

    program.team().state[TeamState.THREADS] = len(program.team())  # that were fewer if tests ran beside
    others = len(program.team()) - 1
    if not others:
        pytest.skip("a team of one thread sleeps never")
    wait_until(lambda: program.team().state[TEAM_NUMBERS:].sum() == others, "sleep")


@needs_instructions
def test_threads_that_sleep_are_woken_for_the_next_job() -> None:
    raw = raw_rows("Q4_K", 64, 256)
    x_MC = np.ones((1, 256), np.float32)
    first = product(x_MC, raw, "Q4_K")
    for asleep in (False, True, False, True):
        if asleep:
            wait_until_the_team_sleeps()
        assert np.array_equal(product(x_MC, raw, "Q4_K"), first)


@needs_instructions
@pytest.mark.parametrize("presses", [1, 3])
def test_a_job_is_done_whatever_interrupts_its_beginning(presses: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C between the announcement and the caller's share, and again: the next job would wait for a share of this one."""
    from nomoat.engine import program
    from nomoat.engine.team import Team

    made = tiles.tiled(raw_rows("Q4_K", 64, 256), "Q4_K")
    job = program.Program([("out", "Q4_K", 64, 0, -1)], made.ctypes.data, 256)
    x_1MC, first, interrupted, after = np.ones((1, 1, 256), np.float32), *(np.zeros((1, 1, 64), np.float32) for _ in range(3))
    job.run(x_1MC, None, None, [first])
    wait_until_the_team_sleeps()
    wake, came = Team.wake, []

    def pressed(self: Team) -> None:
        came.append(self)
        if len(came) <= presses:
            raise KeyboardInterrupt
        wake(self)

    with monkeypatch.context() as patch:
        patch.setattr(Team, "wake", pressed)
        with pytest.raises(KeyboardInterrupt):
            job.run(x_1MC, None, None, [interrupted])
    assert np.array_equal(interrupted, first)
    job.run(x_1MC, None, None, [after])
    assert np.array_equal(after, first)


# -------------------------------------------------------------------- models
@pytest.fixture
def tiles_at_any_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(footprint, "TILES_FROM_WEIGHTS", 0)


def log_probability(model: Any, properties: dict[str, str], ids: list[int]) -> float:
    return Scorer(model, properties).score_many([Question(ids[:1], [ids[1:]])])[0][0].log_probability


@needs_instructions
def test_at_high_quality_prompts_are_rounded_in_smaller_chunks(tmp_path: Path, tiles_at_any_size: None) -> None:
    path = write_tiny_gguf(tmp_path / "m.gguf", type_name="Q4_0")
    qualities: tuple[config.Quality, ...] = ("high", "default")
    folders = [importer.import_gguf(path, quality=quality) for quality in qualities]
    fine, usual = ((folder / "openvino_model.xml").read_text(encoding="utf-8") for folder in folders)
    assert f'chunk="{tiles.FINE_CHUNK}"' in fine and 'chunk="0"' in usual


@needs_instructions
@pytest.mark.parametrize("arch", ["llama", "qwen2", "qwen3", *NORMS_LAST])
@pytest.mark.parametrize("fused", [True, False])
def test_a_model_of_tiles_computes_what_its_file_says(tmp_path: Path, tiles_at_any_size: None, arch: str, fused: bool) -> None:
    """Fused: all between two layers' attention is one operation, with biases (qwen2). Apart: each product by itself."""
    path = write_tiny_gguf(tmp_path / f"{arch}.gguf", arch=arch, type_name="Q4_0")
    ids = np.random.default_rng(0).integers(3, 250, 40).tolist()
    folder = importer.import_gguf(path, fused=fused)
    written = (folder / "openvino_model.xml").read_text(encoding="utf-8")
    assert ("FusedBlock" in written) == fused
    assert (written.count('type="TiledProduct"') > 1) != fused  # one is the output layer
    exact = log_probability(importer.exact_model(path), layout.EXACT_PROPERTIES, ids)
    assert log_probability(folder, layout.EXACT_PROPERTIES, ids) == pytest.approx(exact, rel=0.01)


def properties_of(source: GGUFFile) -> dict[str, str]:
    """Of OpenVINO, for this model as it is imported here."""
    sizes, stored = importer.read_sizes(source), importer.planned(source)
    return layout.choose(sizes, stored, threads=config.threads()).properties


@needs_instructions
def test_a_model_of_tiles_reads_many_texts_in_one_pass(tmp_path: Path, tiles_at_any_size: None) -> None:
    path = write_tiny_gguf(tmp_path / "llama.gguf", type_name="Q4_1")
    source = GGUFFile(path)
    properties = properties_of(source)
    assert importer.planned(source).has_tiles
    assert properties["ENABLE_CPU_PINNING"] == "NO"
    model = PagedModel(importer.import_gguf(path), properties)
    model.allocate(8)
    ids = np.random.default_rng(1).integers(3, 250, (2, 2 * BLOCK_TOKENS)).tolist()
    alone = [np.array(model.run([Row(text, 0, [at, 2 + at], 1)])[0]) for at, text in enumerate(ids)]
    together = model.run([Row(text, 0, [4 + at, 6 + at], 1) for at, text in enumerate(ids)])[0]
    assert together == pytest.approx(np.concatenate(alone), abs=0.05)


@needs_instructions
def test_a_matrix_that_an_adapter_changes_has_8_bits_and_one_that_does_not_fit_is_int8(
    tmp_path: Path, tiles_at_any_size: None
) -> None:
    source = GGUFFile(write_tiny_gguf(tmp_path / "llama.gguf", type_name="Q4_0"))
    stored = importer.planned(source)
    tensor = source.tensor("blk.0.ffn_up.weight")
    assert stored.form("model.layers.0.mlp.up_proj", tensor, changed=False) == layout.TILES
    assert stored.form("model.layers.0.mlp.up_proj", tensor, changed=True) == layout.TILES8
    odd = replace(tensor, shape=(tensor.shape[0] + 8, tensor.shape[1]))
    assert stored.form("model.layers.0.mlp.up_proj", odd, changed=False) == layout.ROWS
    assert stored.form("lm_head", odd, changed=False) == layout.TILES


@needs_instructions
def test_adapters_change_a_model_of_tiles_baked_or_beside(tmp_path: Path, tiles_at_any_size: None) -> None:
    path = write_tiny_gguf(tmp_path / "llama.gguf", type_name="Q4_0")
    adapter = write_adapter(tmp_path / "a")
    ids = np.random.default_rng(3).integers(3, 250, 30).tolist()
    exact = log_probability(importer.exact_model(path, adapter=adapter), layout.EXACT_PROPERTIES, ids)
    assert log_probability(importer.import_gguf(path, adapter=adapter), layout.EXACT_PROPERTIES, ids) == pytest.approx(exact, rel=0.01)
    engine = LocalEngine(importer.import_gguf(path, fused=False), beside=[adapter])
    tuned = engine.adapted(0).prompt_likelihoods(Request(prompt_ids=tuple(ids)))  # type: ignore[attr-defined]
    assert sum(one.log_probability for one in tuned[1:]) == pytest.approx(exact, rel=0.01)
    engine.close()


def test_a_cpu_without_the_instructions_gets_another_form(
    tmp_path: Path, tiles_at_any_size: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_tiny_gguf(tmp_path / "llama.gguf", type_name="Q4_0")
    monkeypatch.setattr(hardware, "cpu_flags", lambda: frozenset({"sse2"}))
    stored = importer.planned(GGUFFile(path))
    assert not stored.has_tiles
    assert "FusedBlock" not in (importer.import_gguf(path) / "openvino_model.xml").read_text(encoding="utf-8")


def test_a_model_with_other_norms_is_built_product_by_product(tmp_path: Path, tiles_at_any_size: None) -> None:
    path = write_tiny_gguf(tmp_path / "llama.gguf", type_name="Q4_0")
    source = GGUFFile(path)
    stored = importer.planned(source)
    sizes = importer.read_sizes(source)
    usual = fused.FusedBuilder(source, architectures.find("llama"), sizes, stored)
    assert usual.can_build() == stored.has_tiles
    assert not fused.FusedBuilder(source, replace(architectures.find("llama"), norm="layer"), sizes, stored).can_build()


# -------------------------------------------------------------------- passes of our own
@pytest.fixture
def small_ones_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """Models that are too small for what they need to be worth compiling."""
    monkeypatch.setattr(footprint, "FEW_WEIGHTS", 0)


@needs_instructions
@pytest.mark.parametrize(("name", "up_type", "is_changed"), [
    ("llama", "Q5_0", False), ("llama", None, True), ("command-r", None, True),
])  # fmt: skip
def test_room_is_asked_for_a_gate_and_what_it_opens_as_they_are_multiplied(
    name: str, up_type: str | None, is_changed: bool, tmp_path: Path, tiles_at_any_size: None, small_ones_too: None
) -> None:
    """Together in whole bytes where they are one product and differ in type, or an adapter changes one of them; else apart."""
    path = tmp_path / "small.gguf"
    if name == "llama":
        write_tiny_gguf(path, type_name="Q4_0", up_type=up_type)
    else:
        whole = write_gguf(tmp_path / "whole.gguf", CASES[name], make_model(CASES[name]))
        same = write_adapter(tmp_path / "same", strength=0, parts={"mlp.down_proj": ADAPTED["mlp.down_proj"]})
        export.merged_gguf(whole, same, path, quantisation="Q4_0")
    gate = write_adapter(tmp_path / "gate", parts={"mlp.gate_proj": ADAPTED["mlp.gate_proj"]})
    told: list[int] = []

    def check(sizes: object, num_values: int, num_bytes: int, *_: object) -> None:
        told.append(num_bytes)

    folder = importer.import_gguf(path, adapter=gate if is_changed else None, check=check)
    assert told == [pytest.approx((folder / "openvino_model.bin").stat().st_size, rel=0.03)]


def of_usual_decoder(path: Path, **told: Any) -> tuple[NativeModel, PagedModel, list[int]]:
    """The same model run by nomoat alone and by OpenVINO, and tokens."""
    path = write_tiny_gguf(path, **told)
    folder = importer.import_gguf(path)
    ours, theirs = NativeModel(Blueprint(folder)), PagedModel(folder, properties_of(GGUFFile(path)))
    for model in (ours, theirs):
        model.allocate(16)
    assert ours.block_bytes < theirs.block_bytes  # that has 16 bits a number
    return ours, theirs, np.random.default_rng(1).integers(10, 250, 200).tolist()


@needs_instructions
@pytest.mark.parametrize("arch", ["llama", "qwen2", "qwen3", *NORMS_LAST])
@pytest.mark.parametrize("quality", ["default", "high"])
def test_memory_is_planned_as_keys_and_values_are_kept(
    tmp_path: Path, small_ones_too: None, monkeypatch: pytest.MonkeyPatch, arch: str, quality: config.Quality
) -> None:
    monkeypatch.setattr(footprint, "in_tiles", lambda num_weights, quality: True)  # else `high` would be int8
    monkeypatch.setenv("NOMOAT_QUALITY", quality)
    path = write_tiny_gguf(tmp_path / f"{arch}.gguf", arch=arch, type_name="Q4_0")
    need = memory_need(open_source(path), 128)
    engine = LocalEngine(importer.import_gguf(path))
    model = engine._make_model()
    assert isinstance(model, NativeModel)
    assert need.kv_cache_bytes * BLOCK_TOKENS == 128 * model.block_bytes
    expected = 4 if quality == "high" else {"llama": 2}.get(arch, 3)  # bytes of a key's and a value's numbers together
    sizes = engine._sizes
    assert need.kv_cache_bytes == 128 * sizes.layers * sizes.kv_heads * (expected * sizes.head_dim + 8)


def passes(model: NativeModel | PagedModel, ids: list[int], step: int) -> npt.NDArray[np.float32]:
    """The logits of all tokens but a first part of 100, so many in each pass, beside another text's."""
    model.run([Row(ids[:100], 0, [9, 3, 4, 7, 1, 0], 1), Row(ids[20:90], 0, [2, 5, 6], 1)])
    made = []
    for at in range(100, 140, step):
        rows = [Row(ids[at : at + step], at, [9, 3, 4, 7, 1, 0], step), Row(ids[90:91], 70, [2, 5, 6], 1)]
        made.append(np.array(model.run(rows)[0]))
    return np.concatenate([logits[:-1] for logits in made])


@needs_instructions
@pytest.mark.parametrize("arch", ["llama", "qwen2", "qwen3", *NORMS_LAST])
@pytest.mark.parametrize("type_name", ["Q4_0", "Q5_0", None])
def test_a_pass_of_our_own_gives_what_openvino_gives(tmp_path: Path, small_ones_too: None, arch: str, type_name: str | None) -> None:
    """Answers of some tokens in a pass, and a prompt's 40 at once."""
    ours, theirs, ids = of_usual_decoder(tmp_path / f"{arch}.gguf", arch=arch, type_name=type_name)
    for step in (8, 40):
        own, other = passes(ours, ids, step), passes(theirs, ids, step)
        assert np.sqrt(np.mean((own - other) ** 2)) < 0.03 * np.std(other)
        assert (own.argmax(-1) == other.argmax(-1)).mean() > 0.85
    row = [Row(ids[:5], 0, [8], 1, hidden=True)]
    assert np.array(ours.run(row)[1]) == pytest.approx(theirs.run(row)[1], abs=0.2)


@needs_instructions
@pytest.mark.parametrize("arch", ["llama", "qwen3", *NORMS_LAST])
def test_a_prompt_gives_the_same_to_the_last_bit_in_whatever_parts_it_is_read(tmp_path: Path, small_ones_too: None, arch: str) -> None:
    """So no answer with a seed depends on what else is answered meanwhile, nor a prompt's beginning that is kept on its end."""
    ours, _, ids = of_usual_decoder(tmp_path / f"{arch}.gguf", arch=arch, type_name="Q4_0")

    def read(*ends: int) -> npt.NDArray[np.float32]:
        parts = zip((0, *ends), (*ends, len(ids)), strict=True)
        rows = [Row(ids[start:end], start, list(range(16)), end - start, hidden=True) for start, end in parts]
        return np.concatenate([np.array(ours.run([row])[1]) for row in rows])

    whole = read()
    for end in (100, 101, 96):
        assert np.array_equal(read(end), whole)


@needs_instructions
@pytest.mark.parametrize("name", ["llama", "gemma3"])
def test_the_same_prompt_has_the_same_answer_whether_its_beginning_is_kept_or_not(
    tmp_path: Path, small_ones_too: None, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Ends of a few tokens would be rounded otherwise, as would those that a first pass leaves."""
    monkeypatch.setattr(batching, "PASS_TOKENS", 256)
    path = tmp_path / "model.gguf"
    path = write_tiny_gguf(path, type_name="Q4_0") if name == "llama" else write_gguf(path, CASES[name], make_model(CASES[name]))
    folder = importer.import_gguf(path)
    batcher = batching.Batcher(lambda: NativeModel(Blueprint(folder)), context_tokens=512)
    chance = np.random.default_rng(1)
    kept = []
    try:
        for length in (5, 34, 66, 100, 129, 160, 258, 300):
            ids = chance.integers(10, 250, length).tolist()
            made = [_answer_of(batcher, ids) for _ in range(3)]
            kept += [num_kept for _, num_kept in made]
            assert made[0][0] == made[1][0] == made[2][0]
    finally:
        batcher.close()
    beginning = 300 - NativeModel(Blueprint(folder)).alike_from
    assert kept[-3:] == [0, beginning, beginning]


@needs_instructions
@pytest.mark.parametrize(("short", "long"), [(32, 90), (40, 90), (47, 120)])
def test_a_prompt_has_the_same_answer_after_a_shorter_one_with_which_it_begins(
    tmp_path: Path, small_ones_too: None, short: int, long: int
) -> None:
    """Which a narrow model reads by the products of few tokens, and the longer one alone by those of many."""
    folder = importer.import_gguf(write_tiny_gguf(tmp_path / "model.gguf", type_name="Q4_0"))
    ids = np.random.default_rng(1).integers(10, 250, long).tolist()

    def answers(*lengths: int) -> list[list[tuple[int, float | None]]]:
        batcher = batching.Batcher(lambda: NativeModel(Blueprint(folder)), context_tokens=512)
        try:
            return [_answer_of(batcher, ids[:length])[0] for length in lengths]
        finally:
            batcher.close()

    assert answers(short, long)[1] == answers(long)[0]


def _answer_of(batcher: batching.Batcher, ids: list[int]) -> tuple[list[tuple[int, float | None]], int | None]:
    """Its tokens with their log-probabilities, and how many of the prompt's were kept."""
    asked = Request(prompt="x", top_logprobs=0, temperature=1.5, seed=7)
    answer = Answer(ids, Sampler(asked, ids), max_new_tokens=12, stop_ids=(), lookup=Lookup(ids))
    batcher.submit(answer)
    return [(pick.token, pick.log_probability) for pick in answer.tokens if pick is not None], answer.tokens.num_kept


@needs_instructions
def test_a_texts_embedding_is_the_same_alone_and_beside_others(tmp_path: Path, small_ones_too: None) -> None:
    """Few tokens are otherwise multiplied by other products than many."""
    engine = LocalEngine(importer.import_gguf(write_tiny_gguf(tmp_path / "model.gguf", type_name="Q4_0")))
    try:
        texts = ["the hello", "world", "안녕 the hello " * 9, "a", *(f"{at} the hello world " * 5 for at in range(40))]
        assert sum(len(engine.tokenizer.encode(text, add_bos=True)) for text in texts) > batching.PASS_TOKENS  # one is cut by a pass
        together = engine.embed(texts)
        alone = np.concatenate([engine.embed([text]) for text in texts])
    finally:
        engine.close()
    assert np.array_equal(together, alone)


@needs_instructions
@pytest.mark.parametrize(
    ("part", "damaged"),
    [("kv_heads", "kv_haeds"), ('{"heads', '{{"heads'), ('{"heads', '["heads'), ('"facts"', '"fatcs"'), ('"norm"', '"nrom"'),
     ('"programs"', '"porgrams"'), ('"types"', '"tpyes"')],
)  # fmt: skip
def test_a_pass_of_our_own_is_not_made_of_damaged_facts(tmp_path: Path, small_ones_too: None, part: str, damaged: str) -> None:
    """Whose file is as long as it was: it is not imported again."""
    folder = importer.import_gguf(write_tiny_gguf(tmp_path / "model.gguf", type_name="Q4_0"))
    told = folder / "native.json"
    text = told.read_text(encoding="utf-8")
    assert text.count(part) == 1
    told.write_text(text.replace(part, damaged), encoding="utf-8")
    with pytest.raises(BadFileError) as caught:
        NativeModel(Blueprint(folder))
    assert caught.value.message == f"`{folder}` is not a whole imported model"
    assert caught.value.hint == "remove that folder and try again"
    told.write_text(text, encoding="utf-8")
    (folder / "openvino_model.bin").write_bytes(b"")
    with pytest.raises(BadFileError, match="is not a whole imported model"):
        NativeModel(Blueprint(folder))


@needs_instructions
@pytest.mark.parametrize("name", NATIVE_CASES)
def test_a_pass_of_our_own_gives_the_reference_s_logits(tmp_path: Path, small_ones_too: None, name: str) -> None:
    """Norms around or after attention and MLP, and of all heads at once, a gate of GELU, capped scores and logits, windows and
    rotations by layer, multipliers."""
    reference = make_model(CASES[name])
    ours = NativeModel(Blueprint(importer.import_gguf(write_gguf(tmp_path / "model.gguf", CASES[name], reference))))
    ours.allocate(16)
    ids = np.random.default_rng(1).integers(10, 250, 200).tolist()
    with torch.no_grad():
        expected = reference(torch.tensor([ids[:140]])).logits[0, 100:].numpy()
    for step in (1, 8, 40):
        own, most = passes(ours, ids, step), 0.05 if step_tables.BY_AMX else 0.06
        assert np.sqrt(np.mean((own - expected) ** 2)) < most * np.std(expected)  # without any one of these it is 0.14 and more
        assert (own.argmax(-1) == expected.argmax(-1)).mean() > 0.85  # random weights' logits lie close together


@needs_instructions
@pytest.mark.parametrize("arch", ["llama", "qwen2", "olmo2"])
def test_adapters_beside_a_pass_of_our_own_give_what_openvino_gives(tmp_path: Path, small_ones_too: None, arch: str) -> None:
    """Two adapters of different ranks on different layers, and none: prompts, short passes, and all of them in one pass."""
    path = write_tiny_gguf(tmp_path / "model.gguf", arch=arch, type_name="Q4_0")
    sizes = {"a": (20, ADAPTED | {"self_attn.o_proj": (64, 64)}), "b": (3, {"mlp.down_proj": ADAPTED["mlp.down_proj"]})}
    adapters = [
        LoraDelta(write_adapter(tmp_path / name, seed=len(parts), rank=rank, parts=parts)) for name, (rank, parts) in sizes.items()
    ]
    ours = NativeModel(Blueprint(importer.import_gguf(path)), adapters)
    theirs = PagedModel(importer.import_gguf(path, fused=False), EXACT, adapters)
    ids = np.random.default_rng(1).integers(10, 250, 200).tolist()
    blocks = {None: [9, 3, 4, 7, 1, 0], 0: [2, 5, 6, 8, 10], 1: [11, 12, 13, 14, 15]}
    found = []
    for model in (ours, theirs):
        model.allocate(16)
        prompts = [Row(ids[:100], 0, blocks[owner], 40, adapter=owner) for owner in blocks]
        alone = [np.array(model.run([row])[0]) for row in prompts]
        nexts = [Row(ids[100:102], 100, blocks[owner], 2, adapter=owner) for owner in blocks]
        found.append(np.concatenate([*alone, model.run(prompts)[0], model.run(nexts)[0]]))
    own, other = found
    errors = [np.sqrt(np.mean((own[at : at + 40] - other[at : at + 40]) ** 2)) for at in range(0, 240, 40)]
    assert all(error < most for error, most in zip(errors, [0.05, 0.09, 0.06] * 2, strict=True))  # what is left out is 0.5
    assert np.sqrt(np.mean((own[240:] - other[240:]) ** 2)) < 0.06
    assert np.abs(own[:40] - own[40:80]).mean() > 0.1 < np.abs(own[:40] - own[80:120]).mean()
    wanted = [np.array(ours.run([Row(ids[:100], 0, [1, 2, 3, 4], 1, adapter=0)])[0]) for _ in range(2)]  # the last layer for one token
    assert np.array_equal(*wanted)
    assert np.sqrt(np.mean((wanted[0] - own[79]) ** 2)) < 0.02 * np.std(other)


@needs_instructions
def test_the_same_import_serves_a_model_alone_and_with_adapters_beside_it(tmp_path: Path, small_ones_too: None) -> None:
    path = write_tiny_gguf(tmp_path / "llama.gguf", type_name="Q4_0")
    fitting = write_adapter(tmp_path / "a")
    strange = write_adapter(tmp_path / "b", parts={"mlp.no_proj": (64, 64)})
    for alone in (True, False):
        assert importer.import_with(path, [fitting], alone=alone) == (importer.import_gguf(path), [fitting])
        with pytest.raises(BadFileError, match="changes layers this model does not have"):
            importer.import_with(path, [strange], alone=alone)
    assert list(cache.folders(cache.IMPORTED)) == [importer.import_gguf(path)]  # nothing is imported to be refused
    large = LoraDelta(write_adapter(tmp_path / "c", seed=1, rank=2, parts={"mlp.down_proj": (64, 64)}))
    with pytest.raises(
        BadFileError, match=r"changes `model.layers.0.mlp.down_proj` as one of \[64, 64\], and the model's is \[64, 128\]"
    ):
        NativeModel(Blueprint(importer.import_gguf(path)), [large])


@needs_instructions
@pytest.mark.parametrize("exactly", [True, False])
def test_an_adapter_beside_the_weights_scores_continuations(
    tmp_path: Path, small_ones_too: None, monkeypatch: pytest.MonkeyPatch, exactly: bool
) -> None:
    """In float32, or, where there is no memory for that, from an import with the adapter baked into it."""
    monkeypatch.setattr(importer, "fits_exactly", lambda path: exactly)
    path = write_tiny_gguf(tmp_path / "llama.gguf", type_name="Q4_0")
    adapter = write_adapter(tmp_path / "a")
    request, ends = Request(prompt="the hello world"), [" he", " world"]
    baked = LocalEngine(importer.import_gguf(path, adapter=adapter), weights=path, adapter=adapter)
    beside = LocalEngine(importer.import_gguf(path), weights=path, beside=[adapter])
    expected = [[one.log_probability for one in engine.score(request, ends)] for engine in (baked, beside)]
    found = beside.adapted(0).score(request, ends)  # type: ignore[attr-defined]
    assert [one.log_probability for one in found] == expected[0] != expected[1]
    beside.close(), baked.close()


@needs_instructions
def test_the_last_layer_is_computed_for_wanted_tokens_alone_and_says_the_same(tmp_path: Path, small_ones_too: None) -> None:
    """Three rows of which few logits are wanted, and then the next token, for which all keys have to be there."""
    ours, _, ids = of_usual_decoder(tmp_path / "llama.gguf", type_name="Q4_0")
    found = []
    for hidden in (True, False):
        rows = [Row(ids[:100], 0, [9, 3, 4, 7], 2, hidden=hidden), Row(ids[20:90], 0, [2, 5, 6], 1), Row(ids[5:12], 0, [8], 1)]
        logits, states = (part.copy() for part in ours.run(rows))
        assert states.shape[0] == 177
        found.append(np.concatenate([logits, ours.run([Row(ids[100:101], 100, [9, 3, 4, 7], 1)])[0]]))
        assert ours.run([Row(ids[:60], 0, [0, 1], 0, hidden=hidden)])[0].shape[0] == 0  # as the first passes of a long prompt
        ours.run([Row(ids[60:130], 60, [0, 1, 10, 11, 12], 1, hidden=hidden)])
    assert found[0].shape[0] == 5
    assert np.sqrt(np.mean((found[0] - found[1]) ** 2)) < 0.02 * np.std(found[0])
    assert np.array_equal(found[0][-1], found[1][-1])


@needs_instructions
def test_passes_give_the_same_bits_however_many_tokens_are_in_one(tmp_path: Path, small_ones_too: None) -> None:
    ours, _, ids = of_usual_decoder(tmp_path / "llama.gguf", type_name="Q4_0")
    assert np.array_equal(passes(ours, ids, 1), passes(ours, ids, 8))


@needs_instructions
def test_a_pass_sees_no_further_back_than_the_window(tmp_path: Path, small_ones_too: None, monkeypatch: pytest.MonkeyPatch) -> None:
    read = importer.read_sizes
    monkeypatch.setattr(importer, "read_sizes", lambda *args, **told: replace(read(*args, **told), window=40))
    ours, theirs, ids = of_usual_decoder(tmp_path / "llama.gguf", type_name="Q4_0")
    for step in (8, 40):
        own, most = passes(ours, ids, step), 0.04 if step_tables.BY_AMX else 0.03
        assert np.sqrt(np.mean((own - passes(theirs, ids, step)) ** 2)) < most * np.std(own)  # without a window 1.06


@needs_instructions
def test_gate_and_up_of_the_last_layers_are_not_in_8_bits_by_amx(
    tmp_path: Path, small_ones_too: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Here of the last of two."""
    monkeypatch.setattr(step_tables, "BY_AMX", True)
    monkeypatch.setattr(step_tables, "NARROW", 1)
    monkeypatch.setattr(step_tables, "LAST_LAYERS", 1)
    ours = NativeModel(Blueprint(importer.import_gguf(write_tiny_gguf(tmp_path / "llama.gguf", type_name="Q4_0"))))
    chunks = [row[Step.CHUNK] for program in ours._chain._programs for row in program.steps if row[Step.KIND] == Kind.GATED]
    assert chunks == [step_tables.AMX_CHUNK, tiles.CHUNK]


@needs_instructions
def test_memory_grows_with_a_pass_and_keeps_what_was_read(tmp_path: Path, small_ones_too: None) -> None:
    """A long prompt after a short one, many logits after one: the keys of the first stay."""
    ours, _, ids = of_usual_decoder(tmp_path / "llama.gguf", type_name="Q4_0")
    ours.run([Row(ids[:40], 0, [0, 1], 1)])
    expected = np.array(ours.run([Row(ids[40:41], 40, [0, 1], 1)])[0])
    assert ours.run([Row(ids[:150], 0, [2, 3, 4, 5, 6], 150)])[0].shape[0] == 150
    assert np.array_equal(ours.run([Row(ids[40:41], 40, [0, 1], 1)])[0], expected)


@needs_instructions
def test_another_process_compiles_what_a_model_needs_before_it_is_asked(
    tmp_path: Path, small_ones_too: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever compiles would compute other bits than those who find it kept: also in a program that shows no bar. Where all is kept,
    none is asked, which would need a place to write to."""
    folder = importer.import_gguf(write_tiny_gguf(tmp_path / "llama.gguf", type_name="Q5_0"))
    asked: list[tuple[object, ...]] = []
    monkeypatch.setattr(machine_code, "compile_elsewhere", lambda *told, progress=None: asked.append(told))
    with monkeypatch.context() as patch:
        patch.setattr(machine_code.Compiled, "is_kept", False)
        LocalEngine(folder).compile_once()
        next(iter(LocalEngine(folder).generate(Request(prompt="a"))))
    LocalEngine(folder).compile_once()
    assert asked == [("Q5_0-Q8_0", native.COMPILE, "Q5_0", "Q8_0")] * 2  # Q8_0: what is no such type becomes that


@needs_instructions
def test_what_cannot_be_compiled_is_said_when_the_model_is_loaded(
    tmp_path: Path, small_ones_too: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As with a numba that compiles none of it: a server would say that it is ready, and fail at each request."""
    monkeypatch.setattr(machine_code, "compile_elsewhere", lambda *told, progress=None: None)
    monkeypatch.setattr(chain, "functions", lambda types: [machine_code.Compiled("engine.team_kernels", "no_such_function", 2)])
    path = write_tiny_gguf(tmp_path / "llama.gguf", type_name="Q5_0")
    with pytest.raises(AttributeError, match="no_such_function"):
        load(str(path), compiling=lambda done, total: None)


@needs_instructions
def test_all_functions_are_told_of_as_they_are_compiled(kernels: None) -> None:
    functions = chain.functions(["Q5_0", "Q8_0"])
    of_panels = 2 * (step_tables.HAS_PANELS + step_tables.BY_AMX)
    assert len(functions) == 11 + of_panels + step_tables.BY_AMX
    done = subprocess.run([sys.executable, "-c", native.COMPILE, "Q5_0", "Q8_0"], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [f"{number} {len(functions)}" for number in range(len(functions) + 1)]
    assert all((machine_code.FOLDER / f"{function.symbol}.o").exists() for function in functions)


@pytest.mark.parametrize(("told", "value"), [("cpu_name", "another machine's"), ("cpu_flags", frozenset())])
def test_what_another_cpu_compiled_is_kept_apart(monkeypatch: pytest.MonkeyPatch, told: str, value: object) -> None:
    """A home may be on several machines, and a virtual machine goes on with another CPU."""
    ours = machine_code._version()
    monkeypatch.setattr(hardware, told, lambda: value)
    assert machine_code._version() != ours


@needs_instructions
def test_a_vocabulary_that_is_no_whole_number_of_tiles_is_padded(tmp_path: Path, small_ones_too: None) -> None:
    """Those of all these tests have 264 tokens."""
    path = write_tiny_gguf(tmp_path / "llama.gguf", type_name="Q4_0")
    source = GGUFFile(path)
    stored = importer.planned(source)
    assert stored.has_tiles
    assert stored.tensor_bytes(source.tensor("token_embd.weight")) == tiles.size(tiles.WHOLE_BYTES, 272, 64)
    ours, theirs, ids = of_usual_decoder(path, type_name="Q4_0")
    assert ours.vocabulary == len(tiny.vocabulary()) == 264
    for model in (ours, theirs):
        assert model.run([Row(ids[:7], 0, [3], 7)])[0].shape == (7, 264)


@needs_instructions
def test_memory_of_passes_is_given_back_when_a_model_ends(tmp_path: Path, small_ones_too: None) -> None:
    """At once, or at the end of the job that is under way; the other model goes on."""
    from nomoat.engine import program

    ours, other = (of_usual_decoder(tmp_path / name, type_name="Q4_0")[0] for name in ("one.gguf", "two.gguf"))
    rows = [Row(list(range(100)), 0, [0, 1, 2, 3], 2)]
    expected = np.array(ours.run(rows)[0])
    assert program._memory._arrays
    del ours
    assert not program._memory._arrays
    assert np.array_equal(other.run(rows)[0], expected)
    with program._one_at_a_time:
        program.give_back_memory()
        assert program._memory._arrays
    assert np.array_equal(other.run(rows)[0], expected)
    assert not program._memory._arrays
    assert np.array_equal(other.run(rows)[0], expected)


@needs_instructions
@pytest.mark.parametrize("interrupted", [False, True])
def test_memory_that_is_unwanted_as_a_job_ends_is_given_back(monkeypatch: pytest.MonkeyPatch, interrupted: bool) -> None:
    """Whoever gives it back then finds the job's lock held still. By Ctrl-C, too."""
    from nomoat.engine import program

    class Lock:
        """Just before it is free, another model ends."""

        def __init__(self) -> None:
            self.lock = threading.Lock()
            self.acquire, self.release = self.lock.acquire, self.lock.release

        def __enter__(self) -> bool:
            return self.lock.acquire()

        def __exit__(self, *told: object) -> None:
            program.give_back_memory()
            assert program._memory._arrays
            self.lock.release()

    def do(*told: Any) -> None:
        done(*told)
        if interrupted:
            raise KeyboardInterrupt

    done = program._do
    monkeypatch.setattr(program, "_do", do)
    monkeypatch.setattr(program, "_one_at_a_time", Lock())
    with pytest.raises(KeyboardInterrupt) if interrupted else nullcontext():
        product(np.ones((1, 256), np.float32), raw_rows("Q4_K", 16, 256), "Q4_K")
    assert not program._memory._arrays


def test_who_has_waited_longest_has_the_next_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    """A long prompt's passes would follow one another, and texts of all other models wait for its end."""
    from nomoat.engine import program

    order: list[int] = []

    def take_turn(number: int) -> None:
        program.run_jobs(np.zeros((1, 1), np.int64), [], lambda: order.append(number))

    def have_others_wait() -> None:
        for number in (1, 2, 3):
            last = program._last_in_line
            others.append(threading.Thread(target=take_turn, args=(number,)))
            others[-1].start()
            wait_until(lambda last=last: program._last_in_line is not last, "another in line")  # type: ignore[misc]

    others: list[threading.Thread] = []
    monkeypatch.setattr(program, "_do", lambda *told: None)
    program.run_jobs(np.zeros((1, 1), np.int64), [], have_others_wait)
    take_turn(4)
    for other in others:
        other.join(PATIENCE_SECONDS)
    assert order == [1, 2, 3, 4]


def test_who_is_interrupted_in_line_holds_up_nobody_and_lets_nobody_in(monkeypatch: pytest.MonkeyPatch) -> None:
    from nomoat.engine import program

    order: list[str] = []

    def interrupted(mine: threading.Lock) -> threading.Lock:
        behind(mine)
        raise KeyboardInterrupt

    def work() -> None:
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(program, "_behind", interrupted)
            program.run_jobs(np.zeros((1, 1), np.int64), [], lambda: order.append("interrupted"))
        last = program._last_in_line
        next_one.start()
        wait_until(lambda: program._last_in_line is not last, "the next in line")
        order.append("first")

    behind = program._behind
    monkeypatch.setattr(program, "_do", lambda *told: None)
    ask = (np.zeros((1, 1), np.int64), [], lambda: order.append("next"))
    next_one = threading.Thread(target=program.run_jobs, args=ask)
    program.run_jobs(np.zeros((1, 1), np.int64), [], work)
    next_one.join(PATIENCE_SECONDS)
    assert order == ["first", "next"]


def test_memory_that_grows_is_given_back_before_there_is_more(monkeypatch: pytest.MonkeyPatch) -> None:
    from nomoat.engine.program import _Memory

    memory = _Memory()
    memory.place("inputs", 100)
    before, was = memory.moves, weakref.ref(memory._arrays["inputs"])

    def full(*told: Any) -> None:
        assert was() is None
        raise MemoryError

    monkeypatch.setattr(np, "zeros", full)
    with pytest.raises(MemoryError):
        memory.place("inputs", 1000)
    assert memory.moves > before  # whoever knew the place asks again


def test_compiled_code_is_kept_by_all_sources_it_is_made_of() -> None:
    """Code of older ones, with other sizes, would write anywhere: every file is listed that has compiled functions, or gives any of
    those names and numbers, but names with which nothing is computed.
    """
    package = Path(machine_code.__file__).parent
    compiled = re.compile(r"^from nomoat import.* jit\b", re.M)
    files = {path.relative_to(package).as_posix(): path.read_text(encoding="utf-8") for path in package.rglob("*.py")}
    found = {name for name, text in files.items() if compiled.search(text)} | {"jit.py"}
    assert "engine/elementwise.py" in found
    never_compiled = {
        "child_process",
        "config",
        "engine/chain",
        "engine/forked",
        "engine/shutdown",
        "errors",
        "hardware",
        "machine_code",
        "paths",
    }
    assert found <= set(machine_code.SOURCES)
    imported = set()
    for name in {*found, *machine_code.SOURCES}:
        for node in ast.walk(ast.parse(files[name])):
            if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "nomoat":
                folder = "/".join((node.module or "").split(".")[1:])
                modules = {f"{folder}/{alias.name}.py".lstrip("/") for alias in node.names}
                imported |= (modules & files.keys()) or {f"{folder}.py"}
    assert imported - {f"{name}.py" for name in never_compiled} <= set(machine_code.SOURCES)


@needs_instructions
def test_no_job_begins_when_the_process_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    ends = threading.Event()
    ends.set()
    monkeypatch.setattr(shutdown, "process_ends", ends)
    with pytest.raises(RuntimeError, match="the process ends"):
        product(np.ones((1, 256), np.float32), raw_rows("Q4_K", 16, 256), "Q4_K")


def test_a_process_that_ends_waits_for_the_job_that_is_under_way() -> None:
    """Its threads would go on in memory that is no more: a segmentation fault after the last word."""
    script = """
import os, threading, time
from nomoat.engine import program
began = threading.Event()
def job():
    with program._one_at_a_time:
        began.set()
        time.sleep(0.5)
        os.write(1, b"whole")
threading.Thread(target=job, daemon=True).start()
began.wait()
"""
    assert subprocess.run([sys.executable, "-c", script], check=True, capture_output=True).stdout == b"whole"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="Windows has no fork")
def test_a_fork_that_ends_does_not_wait_for_the_job_of_the_process_it_is_a_fork_of() -> None:
    script = """
import os, sys
from nomoat.engine import forked, program
forked.begin()
with program._one_at_a_time:
    child = os.fork()
    if child == 0:
        sys.exit(7)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    assert subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, timeout=30).stdout == b"7\n"


@needs_instructions
@pytest.mark.parametrize("scored", [False, True])
def test_a_process_that_ends_waits_for_a_pass_of_openvino_between_two_products(
    tmp_path: Path, small_ones_too: None, monkeypatch: pytest.MonkeyPatch, scored: bool
) -> None:
    from nomoat.engine import program

    _, model, ids = of_usual_decoder(tmp_path / "model.gguf", type_name="Q4_0")
    scorer = Scorer(importer.import_gguf(tmp_path / "model.gguf"), EXACT)

    def once() -> npt.NDArray[np.float32]:
        told = (
            [scorer.score_many([Question(ids[:3], [ids[3:9]])])[0][0].log_probability]
            if scored
            else model.run([Row(ids[:7], 0, [3], 7)])[0]
        )
        return np.array(told)

    def slow(*told: Any) -> None:
        run(*told)
        began.set()
        assert may_go_on.wait(PATIENCE_SECONDS)

    expected, made, run = once(), [], program.Program.run
    began, may_go_on = threading.Event(), threading.Event()
    for event in ("_no_pass_begins", "process_ends"):
        monkeypatch.setattr(shutdown, event, threading.Event())
    monkeypatch.setattr(program.Program, "run", slow)
    passing = threading.Thread(target=lambda: made.append(once()), daemon=True)
    exiting = threading.Thread(target=program._wait_for_the_last_job, daemon=True)
    passing.start()
    assert began.wait(PATIENCE_SECONDS)
    exiting.start()
    exiting.join(0.2)
    assert exiting.is_alive()
    may_go_on.set()
    for thread in (passing, exiting):
        thread.join(PATIENCE_SECONDS)
    assert np.array_equal(made[0], expected)
    with pytest.raises(RuntimeError, match="the process ends"):
        once()


@needs_instructions
def test_a_pass_for_which_memory_does_not_suffice_leaves_the_next_ones_whole(
    tmp_path: Path, small_ones_too: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours, _, ids = of_usual_decoder(tmp_path / "model.gguf", type_name="Q4_0")
    few, many = Row(ids[:5], 0, [0], 5), Row(ids[:150], 0, [1, 2, 3, 4, 5], 150)
    expected, empty = np.array(ours.run([few])[0]), np.empty

    def full(shape: Any, *more: Any) -> Any:
        if isinstance(shape, tuple) and shape[0] == 192 and shape[-1] >= 264:  # the logits, after much else is there
            raise MemoryError
        return empty(shape, *more)

    with monkeypatch.context() as patch:
        patch.setattr(np, "empty", full)
        with pytest.raises(MemoryError):
            ours.run([many])
        assert np.array_equal(ours.run([few])[0], expected)
        with pytest.raises(MemoryError):
            ours.run([many])
    assert ours.run([many])[0].shape == (150, ours.vocabulary)
    assert np.array_equal(ours.run([few])[0], expected)
