"""A whole model's pass as a chain of jobs for `program`'s threads: steps, and the attention between them.

Shapes: T tokens of N rows, W those whose logits are wanted, V vocabulary, D width, R pairs of a head that are turned.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from nomoat import jit
from nomoat.engine import attention, prompt_attention
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
    TOKENS_A_PART,
    WANTED,
    WEIGHT,
    WIDTH,
    Program,
    place,
    run_links,
    team,
)

ROOM_TOKENS = 64  # memory for tokens is made for a multiple of so many
SCORED_TOKENS = 1024  # memory for scores grows by so many: each time it does, all programs look anew where theirs lies


class Chain:
    """See the module. One thread at a time."""

    def __init__(self, programs: Sequence[Program], last: Program, norm: Any, facts: dict[str, Any]) -> None:
        """`programs`: one before the first attention, one after each. `last`: of the output layer. `facts`: see `between.facts_of`."""
        self._programs, self._norm = [*programs, last], norm
        self._facts = np.zeros(attention.NUM_FACTS, np.int64)
        scale = int(np.float32(facts["head_dim"] ** -0.5).view(np.uint32))
        told = (facts["heads"], facts["kv_heads"], facts["head_dim"], 2 * len(facts["inverse"]), scale, facts["window"])
        self._facts[: len(told)] = told
        self._facts[attention.EPSILON] = programs[0].epsilon
        functions = (attention.keep_keys, attention.attend, prompt_attention.unpack, prompt_attention.attend)
        self._facts[attention.KEEP_CODE :] = [jit.compiled(function, 3).address for function in functions]
        self._head_norms = np.array(facts["norms"], np.float32)  # [layer, query or key, head width], or empty
        self._links = np.zeros((2 * len(programs) + 1, LINK), np.int64)
        self._arrays: dict[str, Any] = {}
        self._most_tokens, self._most_wanted = 0, 0
        self._make_room(1, 1)

    def _make_room(self, tokens: int, wanted: int) -> None:
        """For a pass of so many tokens, with logits of so many."""
        if tokens <= self._most_tokens and wanted <= self._most_wanted:
            return
        self._most_tokens = max(self._most_tokens, -(-tokens // ROOM_TOKENS) * ROOM_TOKENS)
        self._most_wanted = max(self._most_wanted, -(-wanted // ROOM_TOKENS) * ROOM_TOKENS)
        heads, kv_heads, head_dim = self._facts[: attention.WIDTH + 1]
        width, all_heads = len(self._norm), heads * head_dim
        shapes = {"residual": width, "hidden": width, "seen": all_heads}
        shapes |= {f"output {number}": all_heads + 2 * kv_heads * head_dim for number in range(3)}
        self._arrays = {name: np.empty((self._most_tokens, size), np.float32) for name, size in shapes.items()}
        for name, size in {"chosen": width, "logits": int(self._programs[-1].steps[0, ROWS])}.items():
            self._arrays[name] = np.empty((self._most_wanted, size), np.float32)
        parts = -(-self._most_tokens // TOKENS_A_PART)
        self._taken = np.zeros(parts * sum(len(program.steps) for program in self._programs) + len(self._programs), np.int64)
        self._fill(self._programs[:-1], self._programs[-1], parts)

    def _address(self, name: str) -> int:
        return int(self._arrays[name].ctypes.data)

    def _fill(self, programs: Sequence[Program], last: Program, parts: int) -> None:
        """All numbers that stay, but where keys and values lie. `parts`: of the longest pass, see `program`."""
        outputs = [self._address(f"output {number}") for number in range(3)]
        residual, seen = self._address("residual"), self._address("seen")
        heads, kv_heads, head_dim = self._facts[: attention.WIDTH + 1]
        taken = int(self._taken.ctypes.data)
        self._links[:, STATE] = team().state.ctypes.data
        for number, program in enumerate(self._programs):
            row = self._links[2 * number]
            row[STEPS : TAKEN + 1] = program.steps.ctypes.data, len(program.steps), program.room.ctypes.data, taken
            taken += 8 * len(program.steps) * parts
            row[WIDTH], row[EPSILON], row[SEEN], row[BEFORE], row[AFTER] = program.width, program.epsilon, seen, residual, residual
            row[OUTPUTS : OUTPUTS + 3], row[CHUNK_COLUMNS] = outputs, program.chunk
        self._links[0, SEEN] = 0
        self._links[-1, [SEEN, BEFORE, AFTER, OUTPUTS]] = self._address("chosen"), 0, 0, self._address("logits")
        for layer, program in enumerate(programs[:-1]):
            row = self._links[2 * layer + 1]
            rows = [int(step[ROWS]) for step in program.steps if step[KIND] == OUT]
            starts = np.cumsum([0, *rows])
            row[NUM_STEPS], row[attention.FACTS], row[attention.SEEN] = ATTENTION, self._facts.ctypes.data, seen
            row[attention.UNITS] = taken + 8 * layer
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
        self, x_TD: Any, places_T: Any, blocks: Any, first_blocks_T: Any, lengths_N: Any, cosines_TR: Any, sines_TR: Any, wanted_W: Any
    ) -> tuple[Any, Any]:  # fmt: skip
        """Logits [W, V] and last hidden states [T, D], overwritten by the next pass."""
        tokens, wanted = len(x_TD), len(wanted_W)
        self._make_room(tokens, wanted)
        self._arrays["residual"][:tokens] = x_TD
        self._links[::2, TOKENS] = tokens
        self._links[-2, [TOKENS, WANTED, NUM_WANTED]] = tokens, wanted_W.ctypes.data, wanted
        self._links[-1, TOKENS] = wanted
        few, rows = _apart(places_T, first_blocks_T, lengths_N)
        scores = 4 * SCORED_TOKENS * (int(places_T[few].max(initial=0)) // SCORED_TOKENS + 1)
        ends = rows[:, prompt_attention.PLACE] + rows[:, prompt_attention.TOKENS]
        _, kv_heads, width = self._facts[: attention.WIDTH + 1]
        unpacked = prompt_attention.unpacked_bytes(int((-(-ends // attention.BLOCK_TOKENS)).sum()), int(kv_heads), int(width))
        room = prompt_attention.room_bytes(int(width))
        arrays = (cosines_TR, sines_TR, places_T, blocks, first_blocks_T, few)

        def ready() -> None:
            memory: tuple[int, ...] = place("attention", scores * len(team())), scores
            if len(rows):
                memory += place("unpacked", unpacked), place("rooms", room * len(team())), room
            told = (tokens, *(array.ctypes.data for array in arrays), len(few), rows.ctypes.data, len(rows), *memory)
            self._facts[attention.TOKENS : attention.TOKENS + len(told)] = told
            self._taken[:] = 0

        run_links(self._links, self._programs, ready)
        return self._arrays["logits"][:wanted], self._arrays["hidden"][:tokens]


def _apart(places_T: Any, first_blocks_T: Any, lengths_N: Any) -> tuple[Any, Any]:
    """The tokens that are attended to one by one, and the rows of many, see `prompt_attention`."""
    starts = np.cumsum([0, *lengths_N])[:-1]
    is_long = lengths_N >= prompt_attention.ROW_TOKENS
    few = np.flatnonzero(~np.repeat(is_long, lengths_N)).astype(np.int64)
    rows = np.zeros((int(is_long.sum()), prompt_attention.ROW_NUMBERS), np.int64)
    firsts, lengths = starts[is_long], lengths_N[is_long]
    ends = places_T[firsts] + lengths
    blocks = -(-ends // attention.BLOCK_TOKENS)
    for column, numbers in (
        (prompt_attention.FIRST_TOKEN, firsts), (prompt_attention.TOKENS, lengths), (prompt_attention.PLACE, places_T[firsts]),
        (prompt_attention.FIRST_BLOCK, first_blocks_T[firsts]), (prompt_attention.BLOCKS_BEFORE, np.cumsum(blocks) - blocks),
    ):  # fmt: skip
        rows[:, column] = numbers
    return few, rows
