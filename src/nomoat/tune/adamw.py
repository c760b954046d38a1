"""AdamW by PyTorch's own function, without weight decay. PyTorch's class imports its compiler: a second of a CPU, and 70 MB."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
from torch.optim.adamw import adamw


class AdamW:
    """To the last bit what `torch.optim.AdamW` with `fused=True` does, and goes on from its states. `rate`: of the next steps."""

    def __init__(self, parameters: Sequence[torch.nn.Parameter], rate: float) -> None:
        self.rate = rate
        self._parameters = list(parameters)
        self._state: dict[int, dict[str, torch.Tensor]] = {
            at: {"step": torch.zeros(()), "exp_avg": torch.zeros_like(each), "exp_avg_sq": torch.zeros_like(each)}
            for at, each in enumerate(self._parameters)
        }

    def step(self) -> None:
        """By the gradients, which are forgotten; a parameter without one stays as it is."""
        learning = {at: each for at, each in enumerate(self._parameters) if each.grad is not None}
        gradients = [cast(torch.Tensor, each.grad) for each in learning.values()]
        steps, means, squares = ([self._state[at][name] for at in learning] for name in ("step", "exp_avg", "exp_avg_sq"))
        with torch.no_grad():
            adamw(
                [*learning.values()], gradients, means, squares, [], steps, fused=True, amsgrad=False, beta1=0.9, beta2=0.999,
                lr=self.rate, weight_decay=0.0, eps=1e-8, maximize=False,
            )  # fmt: skip
        for each in learning.values():
            each.grad = None

    def state_dict(self) -> dict[str, Any]:
        """To go on from."""
        return {"state": self._state}

    def load_state_dict(self, saved: dict[str, Any]) -> None:
        """Go on from there. PyTorch's class has no means before its first step."""
        for at, values in saved["state"].items():
            for name, value in values.items():
                self._state[at][name].copy_(value)
