"""SOAP, Adam in the directions that gradients have, along the shorter side of each matrix: an adapter's rank.

Which of its R directions is which row of A and column of B is chance: turned together, they are the same adapter. AdamW's steps depend
on it, these do not. Source: Vyas et al. 2024, SOAP, arXiv:2409.11321, there along both sides. What it gains stands in
docs/tried/tuning-accuracy.md.

Shapes: N matrices of one size, R their shorter side, D the longer one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

MEAN_PART, SQUARE_PART, PRODUCT_PART = 0.9, 0.95, 0.95  # of what was before, at each step
SMALLEST = 1e-8  # beside the root of a mean square
RATE_SCALE = 1.25  # times a rate as AdamW is given it: its steps are larger in a strong direction, these of one size in all
FIRST_STEPS, STEPS_A_BASIS = 10, 5  # directions are found anew at each of the first steps, then at each fifth


class Soap:
    """Steps of matrices without weight decay. `rate`: of the next steps, as AdamW is given them; theirs is RATE_SCALE times that."""

    def __init__(self, matrices: Sequence[torch.nn.Parameter], rate: float) -> None:
        self.rate = rate
        self._steps = 0
        self._groups: dict[tuple[int, int], list[torch.nn.Parameter]] = {}
        for matrix in matrices:
            rows, columns = matrix.shape
            self._groups.setdefault((rows, columns), []).append(matrix)
        self._state = {shape: _fresh(len(group), min(shape), max(shape)) for shape, group in self._groups.items()}

    @torch.no_grad()
    def step(self) -> None:
        """By the gradients, which are forgotten; a matrix without one is taken to have zeros."""
        self._steps += 1
        for (rows, columns), group in self._groups.items():
            lies = rows <= columns
            gradients = [torch.zeros_like(each) if each.grad is None else each.grad for each in group]
            gradient_NRD = torch.stack(gradients if lies else [each.t() for each in gradients])
            for each, step_RD in zip(group, self._directed(self._state[rows, columns], gradient_NRD), strict=True):
                each.sub_(step_RD if lies else step_RD.t(), alpha=RATE_SCALE * self.rate)
                each.grad = None

    def _directed(self, state: dict[str, torch.Tensor], gradient_NRD: torch.Tensor) -> torch.Tensor:
        """The step of each matrix, for a rate of 1."""
        state["products_NRR"].lerp_(gradient_NRD @ gradient_NRD.mT, 1 - PRODUCT_PART)
        state["mean_NRD"].lerp_(gradient_NRD, 1 - MEAN_PART)
        if self._steps <= FIRST_STEPS or self._steps % STEPS_A_BASIS == 0:
            _find_basis(state)
        basis_NRR, square_NRD = state["basis_NRR"], state["square_NRD"]
        turned_NRD = basis_NRR.mT @ gradient_NRD
        square_NRD.mul_(SQUARE_PART).addcmul_(turned_NRD, turned_NRD, value=1 - SQUARE_PART)
        root_NRD = (square_NRD / (1 - SQUARE_PART**self._steps)).sqrt_().add_(SMALLEST)
        mean_NRD = (basis_NRR.mT @ state["mean_NRD"]).div_(1 - MEAN_PART**self._steps)
        return basis_NRR @ mean_NRD.div_(root_NRD)

    def state_dict(self) -> dict[str, Any]:
        """To go on from."""
        return {"steps": self._steps, "state": self._state}

    def load_state_dict(self, saved: dict[str, Any]) -> None:
        """Go on from there."""
        self._steps = saved["steps"]
        for shape, values in saved["state"].items():
            for name, value in values.items():
                self._state[shape][name].copy_(value)


def _fresh(count: int, rank: int, length: int) -> dict[str, torch.Tensor]:
    """Running means of the gradients, of their squares in the basis, and of their products; the basis, a direction a column."""
    return {
        "mean_NRD": torch.zeros(count, rank, length), "square_NRD": torch.zeros(count, rank, length),
        "products_NRR": torch.zeros(count, rank, rank), "basis_NRR": torch.eye(rank).repeat(count, 1, 1),
    }  # fmt: skip


def _find_basis(state: dict[str, torch.Tensor]) -> None:
    """The eigenvectors of the products, and the mean squares as those of what is turned into them: as if uncorrelated before.

    Of what is no number there are none: the basis stays, and the step is no number, either.
    """
    products_NRR = state["products_NRR"]
    if not products_NRR.isfinite().all():
        return
    size_N11 = products_NRR.diagonal(dim1=1, dim2=2).mean(1)[:, None, None]  # eigenvectors do not depend on it, rounding does
    basis_NRR = torch.linalg.eigh(products_NRR / (size_N11 + torch.finfo(torch.float32).tiny))[1]
    state["square_NRD"] = (basis_NRR.mT @ state["basis_NRR"]).square_() @ state["square_NRD"]
    state["basis_NRR"] = basis_NRR
