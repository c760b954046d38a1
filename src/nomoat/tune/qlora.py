"""Frozen, quantised matrices and the LoRA beside them.

A matrix holds the very weights that the engine serves at the default quality. How it multiplies is by what this CPU is fastest at:
expanded into bf16 or f32 once, or by the engine's own products of the file's codes, with activations and gradients rounded to 8 bits
(as the engine does). Where memory is short, what can be made again of these codes is made for each product, or each gradient.

Shapes: N tokens, I inputs, O outputs, R rank, G groups of a row, S inputs of a group.
"""

from __future__ import annotations

import copy
import itertools
import math
import operator
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
import torch

from nomoat import hardware
from nomoat.engine import step_tables, tiles
from nomoat.engine.gguf import FloatArray
from nomoat.engine.lora import USUAL_SCALE
from nomoat.engine.program import Program
from nomoat.engine.weights import Arrays, Form, quantised, restored
from nomoat.tune import kernels

INT8_ROWS = Form("int8")
Precision = Literal["float32", "bfloat16", "int8"]
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "int8": torch.float32}  # of what is multiplied
PIECE_WEIGHTS = 4_000_000  # in f32 at a time
TILED = tiles.WHOLE_BYTES
GROUP = tiles.BLOCKS[TILED][0]
TILED_BYTES = tiles.BLOCKS[TILED][1] / GROUP  # a weight


class Matrix(Protocol):
    """A frozen [O, I] matrix."""

    def times(self, x_NI: torch.Tensor, onto_NO: torch.Tensor | None = None) -> torch.Tensor:
        """x W^T: [N, O], added to `onto_NO`, where that is given: in its place, and rounded once."""
        ...

    def gradient(self, dy_NO: torch.Tensor, onto_NI: torch.Tensor | None = None) -> torch.Tensor:
        """dy W, what the inputs' gradient is: [N, I], in the same way."""
        ...

    def rows(self, indices: torch.Tensor) -> torch.Tensor:
        """Some rows, for a matrix that is a table of embeddings: f32, [..., I]."""
        ...

    def ready(self) -> Matrix:
        """The same for many products one after another: what is made for each of them otherwise is made once."""
        ...


@dataclass(frozen=True, slots=True)
class Part:
    """Rows of a matrix, yet to be read: `read` gives those of a slice in f32 [R, I]. `form`: how they are served.

    Where that is in the file's own codes, `read_tiles` gives a slice's in tiles of `type_name` [T, bytes].
    """

    num_rows: int
    num_inputs: int
    read: Callable[[slice], FloatArray]
    form: Form
    type_name: str = TILED
    read_tiles: Callable[[slice], tiles.Bytes] | None = None

    def pieces(self, form: Form) -> Iterator[Arrays]:
        """All rows in `form`, some at a time: a large matrix in f32 would be most of the memory."""
        for rows in _slices(self.num_rows, self.num_inputs):
            yield quantised(self.read(rows), form)

    def fill(self, tiles_TS: tiles.Bytes) -> None:
        """Write all rows as tiles."""
        for rows in _slices(self.num_rows, self.num_inputs):
            some_TS = tiles_TS[rows.start // tiles.TILE_ROWS : rows.stop // tiles.TILE_ROWS]
            if self.read_tiles is not None:
                some_TS[:] = self.read_tiles(rows)
            else:
                kernels.fill_tiles(some_TS, restored(quantised(self.read(rows), self.form), self.form))


def _slices(num_rows: int, num_inputs: int) -> Iterator[slice]:
    step = max(1, PIECE_WEIGHTS // num_inputs // GROUP) * GROUP
    for start in range(0, num_rows, step):
        yield slice(start, start + step)


class Expanded:
    """Codes times scales, kept as they multiply: 2 or 4 bytes a weight."""

    def __init__(self, weight_OI: torch.Tensor) -> None:
        self.weight_OI = weight_OI

    @classmethod
    def of(cls, parts: Sequence[Part], dtype: torch.dtype) -> Expanded:
        """`parts` below each other."""
        weight_OI = torch.empty(sum(part.num_rows for part in parts), parts[0].num_inputs, dtype=dtype)
        start = 0
        for part in parts:
            for piece in part.pieces(part.form):
                rows = torch.from_numpy(restored(piece, part.form))
                weight_OI[start : start + len(rows)] = rows
                start += len(rows)
        return cls(weight_OI)

    def times(self, x_NI: torch.Tensor, onto_NO: torch.Tensor | None = None) -> torch.Tensor:
        return _multiplied(x_NI, self.weight_OI.t(), onto_NO)

    def gradient(self, dy_NO: torch.Tensor, onto_NI: torch.Tensor | None = None) -> torch.Tensor:
        return _multiplied(dy_NO, self.weight_OI, onto_NI)

    def rows(self, indices: torch.Tensor) -> torch.Tensor:
        return self.weight_OI[indices].float()

    def ready(self) -> Expanded:
        return self


def _multiplied(x_NC: torch.Tensor, matrix_CR: torch.Tensor, onto_NR: torch.Tensor | None) -> torch.Tensor:
    return x_NC @ matrix_CR if onto_NR is None else onto_NR.addmm_(x_NC, matrix_CR)


class Codes:
    """The int8 codes, 1 byte a weight; expanded for each multiplication and forgotten. Forms without int8 codes are taken in rows."""

    def __init__(self, parts: Sequence[Part], dtype: torch.dtype) -> None:
        form = parts[0].form
        form = form if form.kind == "int8" and all(part.form == form for part in parts) else INT8_ROWS
        pieces = [piece for part in parts for piece in part.pieces(form)]
        self._codes_OGS = torch.cat([torch.from_numpy(codes) for codes, _ in pieces])
        self._scales_OG1 = torch.cat([torch.from_numpy(scales) for _, scales in pieces]).float()
        self._dtype = dtype

    def times(self, x_NI: torch.Tensor, onto_NO: torch.Tensor | None = None) -> torch.Tensor:
        return self.ready().times(x_NI, onto_NO)

    def gradient(self, dy_NO: torch.Tensor, onto_NI: torch.Tensor | None = None) -> torch.Tensor:
        return self.ready().gradient(dy_NO, onto_NI)

    def rows(self, indices: torch.Tensor) -> torch.Tensor:
        return (self._codes_OGS[indices] * self._scales_OG1[indices]).flatten(-2)

    def ready(self) -> Expanded:
        expanded_OGS = torch.empty(self._codes_OGS.shape, dtype=self._dtype)
        for rows in _slices(len(expanded_OGS), expanded_OGS[0].numel()):
            expanded_OGS[rows] = self._codes_OGS[rows] * self._scales_OG1[rows]
        return Expanded(expanded_OGS.flatten(1))


class OwnCodes:
    """The file's own codes in tiles, each part's bits a weight; expanded for each multiplication and forgotten."""

    def __init__(self, parts: Sequence[Part], dtype: torch.dtype) -> None:
        self._parts, self._inputs, self._dtype = _in_tiles(parts), parts[0].num_inputs, dtype

    def times(self, x_NI: torch.Tensor, onto_NO: torch.Tensor | None = None) -> torch.Tensor:
        return self.ready().times(x_NI, onto_NO)

    def gradient(self, dy_NO: torch.Tensor, onto_NI: torch.Tensor | None = None) -> torch.Tensor:
        return self.ready().gradient(dy_NO, onto_NI)

    def rows(self, indices: torch.Tensor) -> torch.Tensor:
        return _rows_of(self._parts, indices)

    def ready(self) -> Expanded:
        return Expanded(kernels.expanded(self._parts, self._inputs, self._dtype))


class Tiled:
    """The matrix in tiles for the engine's products (`engine.panels`), in f32: own codes, or 8 bits with a scale for each 32.

    Gradients multiply by its transpose in tiles of 8 bits, which is made by the first of them and kept, or made for each. Both inputs
    and their gradients are rounded to 8 bits in chunks of 64 columns, of narrow matrices 32 (docs/tried/tuning-speed.md). A run that
    goes on where there is AMX has many rounded to bf16 there (`engine.amx`).
    Idea: Wortsman et al. 2023, Stable and low-precision training for large-scale vision-language models, arXiv:2304.13013.
    """

    def __init__(self, parts: Sequence[Part], *, keeps_transpose: bool) -> None:
        self._parts, self._inputs = _in_tiles(parts), parts[0].num_inputs
        self._product = TiledProduct(self._parts, self._inputs)
        self._keeps_transpose = keeps_transpose
        self._transpose: TiledProduct | None = None

    def times(self, x_NI: torch.Tensor, onto_NO: torch.Tensor | None = None) -> torch.Tensor:
        return self._product(x_NI, onto_NO)

    def gradient(self, dy_NO: torch.Tensor, onto_NI: torch.Tensor | None = None) -> torch.Tensor:
        transpose = self._transpose or self._transposed()
        if self._keeps_transpose:
            self._transpose = transpose
        return transpose(dy_NO, onto_NI)

    def _transposed(self) -> TiledProduct:
        made_TS = kernels.transposed(self._parts, self._inputs)
        return TiledProduct([(TILED, made_TS)], tiles.TILE_ROWS * sum(len(tiles_TS) for _, tiles_TS in self._parts))

    def rows(self, indices: torch.Tensor) -> torch.Tensor:
        return _rows_of(self._parts, indices)

    def ready(self) -> Tiled:
        if self._keeps_transpose:
            return self
        for_now = copy.copy(self)
        for_now._keeps_transpose = True
        return for_now


def _in_tiles(parts: Sequence[Part]) -> list[tuple[str, tiles.Bytes]]:
    """Parts below each other in tiles [T, bytes], those of one type together."""
    found = []
    for type_name, of_type in itertools.groupby(parts, operator.attrgetter("type_name")):
        together, start = list(of_type), 0
        num_tiles = sum(part.num_rows for part in together) // tiles.TILE_ROWS
        made_TS = np.empty((num_tiles, tiles.size(type_name, tiles.TILE_ROWS, parts[0].num_inputs)), np.uint8)
        for part in together:
            stop = start + part.num_rows // tiles.TILE_ROWS
            part.fill(made_TS[start:stop])
            start = stop
        found.append((type_name, made_TS))
    return found


def _rows_of(parts: Sequence[tuple[str, tiles.Bytes]], indices: torch.Tensor) -> torch.Tensor:
    """Rows of a table of embeddings, which is one part: f32, [..., I]."""
    ((type_name, tiles_TS),) = parts
    found = torch.from_numpy(tiles.rows_of(tiles_TS, type_name, indices.flatten().numpy()))
    return found.view(*indices.shape, -1)


class TiledProduct:
    """x times a matrix in tiles, whose parts below each other are of a type each: [N, rows of all]."""

    def __init__(self, parts: Sequence[tuple[str, tiles.Bytes]], columns: int) -> None:
        self._parts, self._rows = parts, [len(tiles_TS) * tiles.TILE_ROWS for _, tiles_TS in parts]  # the program has addresses alone
        steps = [
            ("out", type_name, rows, int(tiles_TS.ctypes.data), -1)
            for (type_name, tiles_TS), rows in zip(parts, self._rows, strict=True)
        ]
        is_narrow = min(columns, sum(self._rows)) < step_tables.NARROW
        self._program = Program(steps, 0, columns, chunk=step_tables.NARROW_CHUNK if is_narrow else tiles.FINE_CHUNK)

    def __call__(self, x_NC: torch.Tensor, onto_NR: torch.Tensor | None) -> torch.Tensor:
        found = [torch.empty(len(x_NC), rows) for rows in self._rows]
        if len(x_NC):
            self._program.run(x_NC.detach().contiguous().numpy()[None], None, None, [y.numpy()[None] for y in found])
        y_NR = found[0] if len(found) == 1 else torch.cat(found, dim=1)
        return y_NR if onto_NR is None else onto_NR.add_(y_NR)


def fits_tiles(num_rows: int, num_inputs: int) -> bool:
    """Whether a matrix of this size can be kept in tiles, and so can its transpose."""
    return num_rows % GROUP == 0 and num_inputs % GROUP == 0


def bytes_a_weight(num_rows: int, num_inputs: int, precision: Precision) -> float:
    """Of a matrix of this size as it multiplies."""
    return TILED_BYTES if precision == "int8" and fits_tiles(num_rows, num_inputs) else DTYPES[precision].itemsize


def kept(parts: Sequence[Part], precision: Precision, *, expanded: bool) -> Matrix:
    """A matrix as it multiplies fastest in this precision; not `expanded`: with the least memory."""
    fit, dtype = all(fits_tiles(part.num_rows, part.num_inputs) for part in parts), DTYPES[precision]
    if precision == "int8" and fit:
        return Tiled(parts, keeps_transpose=expanded)
    if fit and all(part.read_tiles for part in parts):
        own = OwnCodes(parts, dtype)
        return own.ready() if expanded else own
    return Expanded.of(parts, dtype) if expanded else Codes(parts, dtype)


class LoraLinear(torch.autograd.Function):
    """y = x W^T + bias + scale (x A^T) B^T, with gradients for x, A and B; W stays as it is. Without A and B, nothing has one.

    In bf16 what the adapter adds is there first, and x W^T is added to it: added to y, it would be rounded away as long as it is small
    beside it (docs/tried/tuning-speed.md). In f32 it is added to x W^T, which is a pass over y less. With several B, of layers that
    read the same x: each has its R of A's rows, and its O of the outputs.
    """

    @staticmethod
    def forward(
        ctx: Any, x_NI: torch.Tensor, matrix: Matrix, bias_O: torch.Tensor | None, a_RI: torch.Tensor | None, *bs_OR: torch.Tensor
    ) -> Any:  # fmt: skip
        if a_RI is None:
            y_NO = matrix.times(x_NI)
            return y_NO if bias_O is None else y_NO.add_(bias_O)
        hidden_NR = x_NI @ a_RI.t()
        adds_last = x_NI.dtype == torch.float32
        y_NO = matrix.times(x_NI) if adds_last else x_NI.new_empty(len(x_NI), sum(map(len, bs_OR)))
        for y, hidden, b_OR in zip(*_beside(y_NO, hidden_NR, bs_OR), bs_OR, strict=True):
            y.addmm_(hidden, b_OR.t(), alpha=USUAL_SCALE, beta=int(adds_last))
        if bias_O is not None:
            y_NO += bias_O
        ctx.matrix = matrix
        ctx.save_for_backward(x_NI, hidden_NR, a_RI, *bs_OR)
        return y_NO if adds_last else matrix.times(x_NI, y_NO)

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> Any:
        x_NI, hidden_NR, a_RI, *bs_OR = ctx.saved_tensors
        (dy_NO,) = grads
        dys_NO, hiddens_NR = _beside(dy_NO, hidden_NR, bs_OR)
        dbs_OR = [(hidden.t() @ dy).t().mul_(USUAL_SCALE) for dy, hidden in zip(dys_NO, hiddens_NR, strict=True)]
        dhidden_NR = torch.cat([dy @ b_OR for dy, b_OR in zip(dys_NO, bs_OR, strict=True)], dim=1).mul_(USUAL_SCALE)
        dx_NI = None
        if ctx.needs_input_grad[0] and dy_NO.dtype == torch.float32:
            dx_NI = ctx.matrix.gradient(dy_NO).addmm_(dhidden_NR, a_RI)
        elif ctx.needs_input_grad[0]:
            dx_NI = ctx.matrix.gradient(dy_NO, dhidden_NR @ a_RI)
        return dx_NI, None, None, dhidden_NR.t() @ x_NI, *dbs_OR


def _beside(y_NO: torch.Tensor, hidden_NR: torch.Tensor, bs_OR: Sequence[torch.Tensor]) -> tuple[Any, Any]:
    """Each layer's columns of both."""
    return y_NO.split([len(b) for b in bs_OR], dim=1), hidden_NR.split([b.shape[1] for b in bs_OR], dim=1)


class AnswerLoss(torch.autograd.Function):
    """Mean cross-entropy of the answer tokens (those from 0 up), without holding all logits at once: some hundred tokens at a time.

    And each token's by itself, without gradients: [N], 0 for others.
    The gradient is computed along with the loss. Idea: Hsu et al. 2024, Liger Kernel, arXiv:2410.10989.
    """

    CHUNK_TOKENS = 128  # whose logits are small beside the rest

    @staticmethod
    def forward(
        ctx: Any, x_NW: torch.Tensor, head: Matrix, bias_V: torch.Tensor | None, targets_N: torch.Tensor, cap: float | None
    ) -> Any:
        count, losses_N, head = int((targets_N >= 0).sum()), torch.empty(len(targets_N)), head.ready()
        gradient_NW = torch.empty_like(x_NW)
        for start in range(0, len(targets_N), AnswerLoss.CHUNK_TOKENS):
            rows = slice(start, start + AnswerLoss.CHUNK_TOKENS)
            logits_CV = head.times(x_NW[rows])
            if bias_V is not None:
                logits_CV = logits_CV.float() + bias_V
            of_cap_CV = None
            if cap is not None:
                tanh_CV = torch.tanh_(logits_CV.float().div_(cap))
                logits_CV, of_cap_CV = tanh_CV * cap, tanh_CV.square_().neg_().add_(1)
            losses_N[rows] = kernels.cross_entropy(logits_CV, targets_N[rows], 1 / count)  # the logits are their slopes from here on
            slope_CV = logits_CV if of_cap_CV is None else logits_CV.mul_(of_cap_CV)
            gradient_NW[rows] = head.gradient(slope_CV.to(x_NW.dtype))
        ctx.save_for_backward(gradient_NW)
        ctx.mark_non_differentiable(losses_N)
        return losses_N.sum() / count, losses_N

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> Any:
        (gradient_NW,) = ctx.saved_tensors
        return gradient_NW * grads[0].to(gradient_NW.dtype), None, None, None, None


lora_linear: Callable[..., torch.Tensor] = LoraLinear.apply
answer_loss: Callable[..., tuple[torch.Tensor, torch.Tensor]] = AnswerLoss.apply


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
    """The number format this CPU learns fastest in. A rule, not a measurement, which other programs would sway: the same command is to
    give the same weights.

    Where CPUs are fast at bf16 a step took four fifths of int8's time on Zen 5, and in narrow models about as long on Zen 4 (wide
    ones there 1.2 times); in int8 half of f32's on a Xeon with VNNI, and half of bf16's on one that has bf16 in AVX-512 alone
    (docs/tried/tuning-speed.md). What this does not cover: CPUs with AVX-VNNI or ARM's dotprod have as many products of bytes for
    each of f32, but were not measured; Macs neither, whose f32 Apple's library multiplies by units that only it can use.
    """
    if sys.platform == "darwin":
        return hardware.Detected("float32", "PyTorch multiplies it by Apple's own units")
    flags = hardware.cpu_flags()
    is_arm_linux = "bf16" in flags and sys.platform == "linux"  # where alone PyTorch uses ARM's
    if "amx_bf16" in flags or hardware.has_fast_avx512_bf16() or is_arm_linux:
        return hardware.Detected("bfloat16", "this CPU multiplies it itself")
    if step_tables.HAS_PANELS:
        rest = "bf16 no faster than float32" if "avx512_bf16" in flags else "not bf16"
        return hardware.Detected("int8", f"this CPU multiplies bytes itself, and {rest}")
    return hardware.Detected("float32", "this CPU multiplies neither bf16 nor bytes itself")
