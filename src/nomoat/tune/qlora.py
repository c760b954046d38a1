"""Frozen, quantised matrices and the LoRA beside them.

A matrix holds the very int8 codes and row scales that the engine serves. How it multiplies is measured on this machine at the start:
expanded into bf16 or f32 once, or with the codes themselves, activations rounded to int8 token by token (as the engine does).

Shapes: N tokens, I inputs, O outputs, R rank, G groups of a row, S inputs of a group.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import torch

from nomoat import hardware
from nomoat.engine.gguf import FloatArray
from nomoat.engine.weights import Arrays, Form, quantised, restored
from nomoat.tune import kernels

LORA_SCALE = 2.0  # alpha / rank, as the adapter's configuration says
INT8_ROWS = Form("int8")
Precision = Literal["float32", "bfloat16"]
PRECISION_TRIES = 30
PIECE_WEIGHTS = 4_000_000  # in f32 at a time


class Matrix(Protocol):
    """A frozen [O, I] matrix."""

    def times(self, x_NI: torch.Tensor) -> torch.Tensor:
        """x W^T: [N, O]."""
        ...

    def gradient(self, dy_NO: torch.Tensor) -> torch.Tensor:
        """dy W, what the inputs' gradient is: [N, I]."""
        ...

    def rows(self, indices: torch.Tensor) -> torch.Tensor:
        """Some rows, for a matrix that is a table of embeddings: f32, [..., I]."""
        ...


@dataclass(frozen=True, slots=True)
class Part:
    """Rows of a matrix, yet to be read: `read` gives those of a slice in f32 [R, I]. `form`: how they are served."""

    num_rows: int
    num_inputs: int
    read: Callable[[slice], FloatArray]
    form: Form

    def pieces(self, form: Form) -> Iterator[Arrays]:
        """All rows in `form`, some at a time: a large matrix in f32 would be most of the memory."""
        for rows in _slices(self.num_rows, self.num_inputs):
            yield quantised(self.read(rows), form)


def _slices(num_rows: int, num_inputs: int) -> Iterator[slice]:
    step = max(1, PIECE_WEIGHTS // num_inputs)
    for start in range(0, num_rows, step):
        yield slice(start, start + step)


class Expanded:
    """Codes times scales, kept in `dtype`: 2 or 4 bytes a weight. `parts`: below each other."""

    def __init__(self, parts: Sequence[Part], dtype: torch.dtype) -> None:
        self.weight_OI = torch.empty(sum(part.num_rows for part in parts), parts[0].num_inputs, dtype=dtype)
        start = 0
        for part in parts:
            for piece in part.pieces(part.form):
                rows = torch.from_numpy(restored(piece, part.form))
                self.weight_OI[start : start + len(rows)] = rows
                start += len(rows)

    def times(self, x_NI: torch.Tensor) -> torch.Tensor:
        return x_NI @ self.weight_OI.t()

    def gradient(self, dy_NO: torch.Tensor) -> torch.Tensor:
        return dy_NO @ self.weight_OI

    def rows(self, indices: torch.Tensor) -> torch.Tensor:
        return self.weight_OI[indices].float()


class Codes:
    """The int8 codes, 1 byte a weight; expanded for each multiplication and forgotten. Forms without int8 codes are taken in rows."""

    def __init__(self, parts: Sequence[Part], dtype: torch.dtype) -> None:
        form = parts[0].form
        form = form if form.kind == "int8" and all(part.form == form for part in parts) else INT8_ROWS
        pieces = [piece for part in parts for piece in part.pieces(form)]
        self._codes_OGS = torch.cat([torch.from_numpy(codes) for codes, _ in pieces])
        self._scales_OG1 = torch.cat([torch.from_numpy(scales) for _, scales in pieces]).float()
        self._dtype = dtype

    def times(self, x_NI: torch.Tensor) -> torch.Tensor:
        return x_NI @ self._expanded().t()

    def gradient(self, dy_NO: torch.Tensor) -> torch.Tensor:
        return dy_NO @ self._expanded()

    def rows(self, indices: torch.Tensor) -> torch.Tensor:
        return (self._codes_OGS[indices] * self._scales_OG1[indices]).flatten(-2)

    def _expanded(self) -> torch.Tensor:
        expanded_OGS = torch.empty(self._codes_OGS.shape, dtype=self._dtype)
        for rows in _slices(len(expanded_OGS), expanded_OGS[0].numel()):
            expanded_OGS[rows] = self._codes_OGS[rows] * self._scales_OG1[rows]
        return expanded_OGS.flatten(1)


class LoraLinear(torch.autograd.Function):
    """y = x W^T + bias + scale (x A^T) B^T, with gradients for x, A and B; W stays as it is. Without A and B, nothing has one."""

    @staticmethod
    def forward(
        ctx: Any, x_NI: torch.Tensor, matrix: Matrix, bias_O: torch.Tensor | None, a_RI: torch.Tensor | None, b_OR: torch.Tensor | None
    ) -> Any:
        y_NO = matrix.times(x_NI)
        if bias_O is not None:
            y_NO += bias_O
        if a_RI is None or b_OR is None:
            return y_NO
        hidden_NR = x_NI @ a_RI.t()
        y_NO.addmm_(hidden_NR, b_OR.t(), alpha=LORA_SCALE)
        ctx.matrix = matrix
        ctx.save_for_backward(x_NI, hidden_NR, a_RI, b_OR)
        return y_NO

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> Any:
        (dy_NO,) = grads
        x_NI, hidden_NR, a_RI, b_OR = ctx.saved_tensors
        dhidden_NR = (dy_NO @ b_OR).mul_(LORA_SCALE)
        dx_NI = ctx.matrix.gradient(dy_NO).addmm_(dhidden_NR, a_RI) if ctx.needs_input_grad[0] else None
        return dx_NI, None, None, dhidden_NR.t() @ x_NI, (dy_NO.t() @ hidden_NR).mul_(LORA_SCALE)


class AnswerLoss(torch.autograd.Function):
    """Mean cross-entropy of the answer tokens (those from 0 up), without holding all logits at once: some hundred tokens at a time.

    The gradient is computed along with the loss. Idea: Hsu et al. 2024, Liger Kernel, arXiv:2410.10989.
    """

    CHUNK_TOKENS = 256

    @staticmethod
    def forward(
        ctx: Any, x_NW: torch.Tensor, head: Matrix, bias_V: torch.Tensor | None, targets_N: torch.Tensor, cap: float | None
    ) -> Any:
        count, total = int((targets_N >= 0).sum()), torch.zeros(())
        gradient_NW = torch.empty_like(x_NW)
        for start in range(0, len(targets_N), AnswerLoss.CHUNK_TOKENS):
            rows = slice(start, start + AnswerLoss.CHUNK_TOKENS)
            logits_CV = head.times(x_NW[rows])
            if bias_V is not None:
                logits_CV = logits_CV.float() + bias_V
            if cap is not None:
                logits_CV = torch.tanh_(logits_CV.float().div_(cap)).mul_(cap)
            losses_C, slope_CV = kernels.cross_entropy(logits_CV, targets_N[rows], 1 / count)
            total += losses_C.sum()
            if cap is not None:
                slope_CV *= 1 - (logits_CV / cap) ** 2
            gradient_NW[rows] = head.gradient(slope_CV.to(x_NW.dtype))
        ctx.save_for_backward(gradient_NW)
        return total / count

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> Any:
        (gradient_NW,) = ctx.saved_tensors
        return gradient_NW * grads[0].to(gradient_NW.dtype), None, None, None, None


lora_linear: Callable[..., torch.Tensor] = LoraLinear.apply
answer_loss: Callable[..., torch.Tensor] = AnswerLoss.apply


def fresh_lora(name: str, *, rank: int, inputs: int, outputs: int, seed: int) -> dict[str, torch.nn.Parameter]:
    """A and B of a new adapter on a layer, by PEFT's names. B is zero: a fresh adapter changes nothing. Initialised as PEFT does."""
    generator = torch.Generator().manual_seed(seed)
    bound = 1 / math.sqrt(inputs)  # Kaiming's uniform with a = sqrt(5)
    a_RI = torch.empty(rank, inputs).uniform_(-bound, bound, generator=generator)
    return {
        f"{name}.lora_A.weight": torch.nn.Parameter(a_RI),
        f"{name}.lora_B.weight": torch.nn.Parameter(torch.zeros(outputs, rank)),
    }


def fastest_precision() -> hardware.Detected[Precision]:
    """The number format this CPU multiplies matrices fastest in, measured now, the best of many tries in turn."""
    times: dict[torch.dtype, list[float]] = {torch.float32: [], torch.bfloat16: []}
    pairs = {dtype: (torch.randn(512, 768, dtype=dtype), torch.randn(1536, 768, dtype=dtype)) for dtype in times}
    for _ in range(PRECISION_TRIES):
        for dtype, (x, weight) in pairs.items():
            started = time.perf_counter()
            torch.nn.functional.linear(x, weight)
            times[dtype].append(time.perf_counter() - started)
    speeds = {dtype: 2 * 512 * 768 * 1536 / min(tries) / 1e9 for dtype, tries in times.items()}
    f32, bf16 = speeds[torch.float32], speeds[torch.bfloat16]
    if bf16 > 1.3 * f32:
        return hardware.Detected("bfloat16", f"{bf16:.0f} GFLOP/s here, against {f32:.0f} with f32")
    return hardware.Detected("float32", f"{f32:.0f} GFLOP/s here, against {bf16:.0f} with bf16")
