"""The kernels against PyTorch's own operations, values and gradients, in both precisions."""

from __future__ import annotations

import ctypes
import subprocess
import sys
from collections.abc import Callable

import numpy as np
import pytest
import torch
from products import raw_rows
from torch.nn import functional

from nomoat import machine_code
from nomoat.engine import tiles
from nomoat.engine.weights import whole_bytes
from nomoat.tune import kernels
from nomoat.tune.samples import NOT_LEARNED

Function = Callable[[torch.Tensor], torch.Tensor]
PRECISIONS = pytest.mark.parametrize(("dtype", "close"), [(torch.float32, 2e-6), (torch.bfloat16, 2**-7)], ids=["f32", "bf16"])


def assert_like(ours: Function, reference: Function, x: torch.Tensor, close: float) -> None:
    """Values and the gradient of a random direction; the reference in f64."""
    own, plain = x.clone().requires_grad_(), x.double().requires_grad_()
    y, expected = ours(own), reference(plain)
    direction = torch.randn(y.shape).to(y.dtype)
    y.backward(direction)
    expected.backward(direction.double())
    assert own.grad is not None and plain.grad is not None
    for got, right in ((y, expected), (own.grad, plain.grad)):
        torch.testing.assert_close(got.double(), right, rtol=close, atol=close)


@PRECISIONS
@pytest.mark.parametrize("shape", [(5, 37), (3, 4, 16)])
def test_norm(shape: tuple[int, ...], dtype: torch.dtype, close: float) -> None:
    weight = torch.rand(shape[-1]) + 0.5
    assert_like(
        lambda x: kernels.rms_norm(x, weight, 1e-5, dtype),
        lambda x: functional.rms_norm(x, weight.shape, weight.double(), 1e-5),
        torch.randn(shape),
        close,
    )


@PRECISIONS
@pytest.mark.parametrize("activation", sorted(kernels.GATES))
def test_gate(activation: str, dtype: torch.dtype, close: float) -> None:
    def reference(x: torch.Tensor) -> torch.Tensor:
        gate, up = x.chunk(2, dim=1)
        return (functional.silu(gate) if activation == "silu" else functional.gelu(gate, approximate="tanh")) * up

    x = (torch.randn(7, 38) * 4).to(dtype)
    x[0, :4] = torch.tensor([-200.0, -30.0, 30.0, 200.0])
    assert_like(lambda x: kernels.gate(x, activation), reference, x, close)


@PRECISIONS
@pytest.mark.parametrize("turning", [16, 6])
def test_rotation(turning: int, dtype: torch.dtype, close: float) -> None:
    angles = torch.randn(5, turning // 2)

    def reference(x: torch.Tensor) -> torch.Tensor:
        first, second, rest = x.split([turning // 2, turning // 2, 16 - turning], dim=-1)
        cosine, sine = angles.double().cos()[:, None], angles.double().sin()[:, None]
        return torch.cat([first * cosine - second * sine, second * cosine + first * sine, rest], dim=-1)

    x = torch.randn(5, 3, 16).to(dtype)
    assert_like(lambda x: kernels.rotate(x, angles.cos(), angles.sin()), reference, x, close)
    assert_like(lambda x: kernels.rotate(x[:, 1:], angles.cos(), angles.sin()), lambda x: reference(x[:, 1:]), x, close)


@PRECISIONS
def test_cross_entropy_and_its_slope(dtype: torch.dtype, close: float) -> None:
    logits = (torch.randn(6, 333) * 5).to(dtype)
    logits[0, 7] = 90.0  # as good as certain: one minus the target's part is small, and has to stay
    targets = torch.tensor([7, 0, 332, 5, 5, 1])
    plain = logits.double().requires_grad_()
    expected = functional.cross_entropy(plain, targets, reduction="none")
    (expected.sum() / 4).backward()
    slope, with_fewer = logits.clone(), logits.clone()
    losses = kernels.cross_entropy(slope, targets, 1 / 4)
    assert plain.grad is not None
    torch.testing.assert_close(losses.double(), expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(slope.double(), plain.grad, rtol=close, atol=1e-6)
    targets[2] = NOT_LEARNED
    fewer = kernels.cross_entropy(with_fewer, targets, 1 / 4)
    assert fewer.tolist() == [0.0 if at == 2 else loss for at, loss in enumerate(losses.tolist())]
    assert not with_fewer[2].any() and with_fewer[3].equal(slope[3])


def test_what_is_no_number_stays_none() -> None:
    losses = kernels.cross_entropy(torch.full((1, 40), torch.nan), torch.tensor([3]), 1.0)
    assert losses.isnan().all()
    assert kernels.rms_norm(torch.full((1, 40), torch.nan), torch.ones(40), 1e-5, torch.bfloat16).isnan().all()
    assert kernels.gate(torch.full((1, 40), torch.nan), "silu").isnan().all()


def test_a_matrix_in_tiles_and_its_transpose_are_those_of_the_engine() -> None:
    """But for codes that lie between two, by the last bit of a division."""
    weights = torch.randn(96, 160, generator=torch.Generator().manual_seed(0)).numpy() * 0.02
    weights[:32, 7], weights[33, 32:64] = 0, 0
    made = np.empty((6, 5 * tiles.TILE_BYTES["Q8_0"]), np.uint8)
    kernels.fill_tiles(made, weights)
    expected = tiles.tiled(whole_bytes(weights), "Q8_0")
    assert np.abs(made.astype(np.int16) - expected).max() <= 1
    assert (made == expected).mean() > 0.999


@pytest.mark.parametrize("types", [*((name,) for name in tiles.BLOCKS), ("Q4_K", "Q6_K"), ("Q5_0", "Q8_0", "Q4_1")], ids="+".join)
def test_tiles_expanded_are_their_weights_and_the_transpose_is_these_in_8_bits(types: tuple[str, ...]) -> None:
    parts, weights = [], []
    for number, name in enumerate(types):
        made = tiles.tiled(raw_rows(name, 64 + 32 * number, 512, seed=number), name)
        parts.append((name, made))
        weights.append(tiles.rows_of(made, name, np.arange(64 + 32 * number)))
    whole = np.concatenate(weights)
    for dtype, close in ((torch.float32, 1e-6), (torch.bfloat16, 2**-7)):
        found = kernels.expanded(parts, 512, dtype).float()
        torch.testing.assert_close(found, torch.from_numpy(whole), rtol=close, atol=close * np.abs(whole).max())
    turned = kernels.transposed(parts, 512)
    expected = tiles.tiled(whole_bytes(np.ascontiguousarray(whole.T)), "Q8_0").reshape(turned.shape)
    assert np.abs(turned.astype(np.int16) - expected).max() <= 1
    assert (turned == expected).mean() > 0.999


@pytest.mark.parametrize("damage", [np.nan, np.inf, 1e30])
def test_tiles_of_what_is_no_number_are_refused(damage: float) -> None:
    weights = np.ones((32, 32), np.float32)
    weights[20, 5] = damage
    with pytest.raises(ValueError, match="no numbers"):
        kernels.fill_tiles(np.empty((2, tiles.TILE_BYTES["Q8_0"]), np.uint8), weights)


LEARNS = """
from nomoat.tune import kernels
kernels.use_threads(1)
kernels._use_norm(), kernels._use_rotation(), kernels._use_gate(), kernels._use_loss(), kernels._use_tiles()
for kernel in (
    kernels._norm_forward, kernels._norm_backward, kernels._rotate, kernels._gate_backward, kernels._cross_entropy,
    kernels._tile, kernels._transpose, kernels._expand,
):
    assert kernel.stats.cache_hits and not kernel.stats.cache_misses, kernel
"""


@pytest.mark.slow
@pytest.mark.usefixtures("kernels")
def test_who_learns_has_not_compiled_what_it_learns_with() -> None:
    """It would sum in another order than all who find it kept."""
    subprocess.run([sys.executable, "-c", LEARNS], check=True)


def test_another_process_compiles_it_which_is_said_before_once(monkeypatch: pytest.MonkeyPatch) -> None:
    said, asked = list[str](), list[tuple[str, ...]]()

    def compile_elsewhere(what: str, code: str, *types: str, progress: Callable[[int, int], None] | None) -> None:
        asked.append((what, *types))
        for done in range(3) if progress else ():
            progress(done, 2)

    monkeypatch.setattr(machine_code, "compile_elsewhere", compile_elsewhere)
    kernels.use_threads(torch.get_num_threads(), said.append)
    kernels.use_threads(torch.get_num_threads(), types=["Q4_K", "Q8_0"])
    assert said == ["compiling for this CPU (once)"]
    assert asked == [("tuning",), ("tuning-Q4_K-Q8_0", "Q4_K", "Q8_0")]


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere PyTorch and numba have an OpenMP each")
def test_threads_of_a_training_begin_none_of_their_own() -> None:
    """numba lets them, and each small product of PyTorch's attention then took as long as it takes to start one."""
    openmp = ctypes.CDLL(None)
    openmp.omp_set_max_active_levels(9)
    with kernels.threads_of_the_caller():
        kernels.set_threads(2)
        assert openmp.omp_get_max_active_levels() == 1
