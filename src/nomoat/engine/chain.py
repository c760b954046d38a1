"""A whole model's pass over a few tokens as a chain of jobs for `program`'s threads: steps, and the attention between them.

Shapes: T tokens, at most M of them, W those whose logits are wanted, V vocabulary, D width, R pairs of a head that are turned.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from nomoat.engine import attention
from nomoat.engine.program import (
    AFTER,
    ATTENTION,
    BEFORE,
    CHOSEN,
    CHUNK_COLUMNS,
    EPSILON,
    KIND,
    LAST_NORM,
    LINK,
    NUM_STEPS,
    NUM_WANTED,
    OUT,
    OUTPUTS,
    ROWS,
    SEEN,
    STATE,
    STEPS,
    TAKEN,
    TOKENS,
    WANTED,
    WEIGHT,
    WIDTH,
    Program,
    place,
    run_links,
    team,
)

SCORED_TOKENS = 1024  # memory for scores grows by so many: each time it does, all programs look anew where theirs lies


class Chain:
    """See the module. One thread at a time."""

    def __init__(self, programs: Sequence[Program], last: Program, norm: Any, facts: dict[str, Any], most: int) -> None:
        """`programs`: one before the first attention, one after each. `last`: of the output layer. `facts`: see `short.facts_of`."""
        self._programs, self._norm = [*programs, last], norm
        self._facts = np.zeros(attention.NUM_FACTS, np.int64)
        scale = int(np.float32(facts["head_dim"] ** -0.5).view(np.uint32))
        told = (facts["heads"], facts["kv_heads"], facts["head_dim"], 2 * len(facts["inverse"]), scale, facts["window"])
        self._facts[: len(told)] = told
        self._facts[attention.EPSILON] = programs[0].epsilon
        self._head_norms = np.array(facts["norms"], np.float32)  # [layer, query or key, head width], or empty
        heads = facts["heads"] * facts["head_dim"]
        both = 2 * facts["kv_heads"] * facts["head_dim"]
        shapes = {"residual": len(norm), "hidden": len(norm), "chosen": len(norm), "seen": heads}
        shapes |= {f"output {number}": heads + both for number in range(3)} | {"logits": int(last.steps[0, ROWS])}
        self._arrays = {name: np.zeros((most, size), np.float32) for name, size in shapes.items()}
        self._taken = np.zeros(sum(len(program.steps) for program in self._programs), np.int64)
        self._links = np.zeros((2 * len(programs) + 1, LINK), np.int64)
        self._fill(programs, last)

    def _address(self, name: str) -> int:
        return int(self._arrays[name].ctypes.data)

    def _fill(self, programs: Sequence[Program], last: Program) -> None:
        """All numbers that stay."""
        outputs = [self._address(f"output {number}") for number in range(3)]
        residual, seen = self._address("residual"), self._address("seen")
        heads, kv_heads, head_dim = self._facts[: attention.WIDTH + 1]
        taken = int(self._taken.ctypes.data)
        self._links[:, STATE] = team().state.ctypes.data
        for number, program in enumerate(self._programs):
            row = self._links[2 * number]
            row[STEPS : TAKEN + 1] = program.steps.ctypes.data, len(program.steps), program.room.ctypes.data, taken
            taken += 8 * len(program.steps)
            row[WIDTH], row[EPSILON], row[SEEN], row[BEFORE], row[AFTER] = program.width, program.epsilon, seen, residual, residual
            row[OUTPUTS : OUTPUTS + 3], row[CHUNK_COLUMNS] = outputs, program.chunk
        self._links[0, SEEN] = 0
        self._links[-1, [SEEN, BEFORE, AFTER, OUTPUTS]] = self._address("chosen"), 0, 0, self._address("logits")
        for layer, program in enumerate(programs[:-1]):
            row = self._links[2 * layer + 1]
            rows = [int(step[ROWS]) for step in program.steps if step[KIND] == OUT]
            starts = np.cumsum([0, *rows])
            row[NUM_STEPS], row[attention.FACTS], row[attention.SEEN] = ATTENTION, self._facts.ctypes.data, seen
            for part, begin in enumerate((0, heads * head_dim, (heads + kv_heads) * head_dim)):
                at = int(np.searchsorted(starts, begin, side="right")) - 1
                row[attention.QUERY + part] = outputs[at] + 4 * (begin - starts[at])
                row[attention.QUERY_ROW + part] = 4 * rows[at]
            if len(self._head_norms):
                row[attention.QUERY_NORM], row[attention.KEY_NORM] = (part.ctypes.data for part in self._head_norms[layer])
        row = self._links[-2]
        row[NUM_STEPS], row[WIDTH], row[EPSILON] = LAST_NORM, len(self._norm), programs[-1].epsilon
        row[BEFORE], row[AFTER], row[WEIGHT] = residual, self._address("hidden"), self._norm.ctypes.data
        row[CHOSEN] = self._address("chosen")

    def use(self, caches: Sequence[tuple[int, int]]) -> None:
        """Where each layer's keys and values lie."""
        for layer, places in enumerate(caches):
            self._links[2 * layer + 1, [attention.KEYS, attention.VALUES]] = places

    def run(
        self, x_TD: Any, places_T: Any, blocks: Any, first_blocks_T: Any, cosines_TR: Any, sines_TR: Any, wanted_W: Any
    ) -> tuple[Any, Any]:
        """Logits [W, V] and last hidden states [T, D], overwritten by the next pass."""
        tokens, wanted = len(x_TD), len(wanted_W)
        self._arrays["residual"][:tokens] = x_TD
        self._links[::2, TOKENS] = tokens
        self._links[-2, [TOKENS, WANTED, NUM_WANTED]] = tokens, wanted_W.ctypes.data, wanted
        self._links[-1, TOKENS] = wanted
        scores = 4 * SCORED_TOKENS * (int(places_T.max()) // SCORED_TOKENS + 1)
        arrays = (cosines_TR, sines_TR, places_T, blocks, first_blocks_T)

        def ready() -> None:
            self._facts[attention.TOKENS : attention.TOKENS + 6] = tokens, *(array.ctypes.data for array in arrays)
            self._facts[attention.SCORES : attention.SCORES + 2] = place("attention", scores * len(team())), scores
            self._taken[:] = 0

        run_links(self._links, self._programs, ready)
        return self._arrays["logits"][:wanted], self._arrays["hidden"][:tokens]
