"""A whole model's pass as a chain of jobs for `program`'s threads: steps, and the attention between them.

Shapes: T tokens of N rows, W those whose logits are wanted, V vocabulary, D width, R pairs of a head that are turned.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from nomoat import jit
from nomoat.engine import attention, prompt_attention
from nomoat.engine.blocks import BLOCK_TOKENS
from nomoat.engine.kernels import PRODUCTS
from nomoat.engine.panels import CAN_BE_USED, TO_BYTES
from nomoat.engine.program import (
    AFTER,
    ATTENTION,
    BEFORE,
    CHOICE,
    CHUNK_COLUMNS,
    EPSILON,
    KIND,
    LAST_NORM,
    LINK,
    NUM_STEPS,
    OUT,
    OUTPUTS,
    ROOM,
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
    max_parts,
    place,
    run_links,
    share,
    team,
)
from nomoat.engine.program import prepare as prepare_programs

ATTENTION_FUNCTIONS = (attention.keep_keys, attention.attend, prompt_attention.unpack, prompt_attention.attend)
ROOM_TOKENS = 64  # memory for tokens is made for a multiple of so many
FEW_WANTED = 8  # times as many tokens in a pass: then the last layer is computed for the wanted ones alone
SCORED_TOKENS = 1024  # memory for scores grows by so many: each time it does, all programs look anew where theirs lies


def prepare(type_names: Iterable[str], progress: Callable[[int, int], None]) -> None:
    """Compile what models with matrices of these types need: seconds, once a machine. `progress` is told (functions done, functions).

    Raises NotEnoughDiskError, NotWritableError.
    """
    names = sorted(type_names)
    functions: list[tuple[Callable[..., None], int]] = [(function, 3) for function in (share, *ATTENTION_FUNCTIONS)]
    functions += [(PRODUCTS[name], 9) for name in names] + [(TO_BYTES[name], 5) for name in names if CAN_BE_USED]
    for done, (function, count) in enumerate(functions):
        progress(done, len(functions))
        jit.compiled(function, count)
    prepare_programs()
    progress(len(functions), len(functions))


class _Links:
    """A chain's jobs, and which of them are what."""

    def __init__(self, links: Sequence[Any], first_of_wanted: int) -> None:
        """`first_of_wanted`: from this one on they work on the tokens whose logits are wanted."""
        self.numbers = np.array(links)
        kinds, places = self.numbers[:, NUM_STEPS], np.arange(len(links))
        self.attentions, self.choices = np.flatnonzero(kinds == ATTENTION), np.flatnonzero(kinds == CHOICE)
        self.of_tokens, self.of_wanted = np.setdiff1d(places[:first_of_wanted], self.attentions), places[first_of_wanted:]


class Chain:
    """See the module. One thread at a time."""

    def __init__(self, programs: Sequence[Program], last: Program, norm: Any, facts: dict[str, Any]) -> None:
        """`programs`: one before the first attention, one after each. `last`: of the output layer. `facts`: see `between.facts_of`."""
        self._programs, self._norm = [*programs, last], norm
        self._sizes = facts["heads"], facts["kv_heads"], facts["head_dim"]
        self._views = [self._facts_of_view(view, facts, programs[0].epsilon) for view in facts["views"]]
        self._view_of_layer = facts["layers"]
        # of the last attention, where nobody asks what other tokens see
        self._facts_of_wanted = self._views[self._view_of_layer[-1]].copy()
        self._head_norms = np.array(facts["norms"], np.float32)  # [layer, query or key, head width], or empty
        self._caches: Sequence[tuple[int, int]] = []
        self._arrays: dict[str, Any] = {}
        self._most_tokens, self._most_wanted = 0, 0
        self._make_room(1, 1)

    def _facts_of_view(self, view: dict[str, Any], facts: dict[str, Any], epsilon: int) -> Any:
        row = np.zeros(attention.NUM_FACTS, np.int64)
        scale, cap = (int(np.float32(facts[name]).view(np.uint32)) for name in ("scale", "cap"))
        row[: attention.EPSILON + 1] = *self._sizes, 2 * len(view["inverse"]), scale, cap, view["window"], epsilon
        row[attention.KEEP_CODE :] = [jit.compiled(function, 3).address for function in ATTENTION_FUNCTIONS]
        return row

    def _make_room(self, tokens: int, wanted: int) -> None:
        """For a pass of so many tokens, with logits of so many."""
        if tokens <= self._most_tokens and wanted <= self._most_wanted:
            return
        self._most_tokens = max(self._most_tokens, -(-tokens // ROOM_TOKENS) * ROOM_TOKENS)
        self._most_wanted = max(self._most_wanted, -(-wanted // ROOM_TOKENS) * ROOM_TOKENS)
        heads, kv_heads, head_dim = self._sizes
        width, all_heads = len(self._norm), heads * head_dim
        shapes = {"residual": width, "hidden": width, "seen": all_heads}
        shapes |= {f"output {number}": all_heads + 2 * kv_heads * head_dim for number in range(3)}
        self._arrays = {name: np.empty((self._most_tokens, size), np.float32) for name, size in shapes.items()}
        shapes = {"chosen seen": all_heads, "chosen residual": width, "chosen": width}
        shapes["logits"] = int(self._programs[-1].steps[0, ROWS])
        self._arrays |= {name: np.empty((self._most_wanted, size), np.float32) for name, size in shapes.items()}
        self._fill(max_parts(self._most_tokens))

    def _address(self, name: str) -> int:
        return int(self._arrays[name].ctypes.data)

    def _fill(self, parts: int) -> None:
        """All numbers that stay. `parts`: of the longest pass, see `program`.

        The last layer's links stand there twice: for all tokens, and for those alone whose logits are wanted.
        """
        num_steps = [len(program.steps) for program in self._programs]
        self._taken = np.zeros(parts * sum(num_steps) + len(self._programs), np.int64)
        takens = self._taken.ctypes.data + 8 * parts * np.cumsum([0, *num_steps])
        *before, after, head = (self._steps(*both) for both in zip(self._programs, takens, strict=False))
        attentions = [self._attention(layer, takens[-1] + 8 * layer) for layer in range(len(before))]
        width, all_heads = self._arrays["residual"].shape[1], self._arrays["seen"].shape[1]
        head[[SEEN, BEFORE, AFTER, OUTPUTS]] = self._address("chosen"), 0, 0, self._address("logits")
        before[0][SEEN] = 0
        of_all = [attentions[-1], after, self._last_norm("residual", "hidden"), self._between(CHOICE, "hidden", "chosen", width), head]
        last_attention, last_steps = attentions[-1].copy(), after.copy()
        last_attention[attention.FACTS] = self._facts_of_wanted.ctypes.data
        last_steps[[SEEN, BEFORE, AFTER]] = [self._address(f"chosen {name}") for name in ("seen", "residual", "residual")]
        of_wanted = [
            last_attention, self._between(CHOICE, "seen", "chosen seen", all_heads),
            self._between(CHOICE, "residual", "chosen residual", width), last_steps,
            self._last_norm("chosen residual", "chosen"), head,
        ]  # fmt: skip
        body = [link for both in zip(before, attentions, strict=True) for link in both][:-1]
        self._for_all = _Links(body + of_all, len(body) + 3)
        self._for_wanted = _Links(body + of_wanted, len(body) + 1)
        self.use(self._caches)

    def _steps(self, program: Program, taken: int) -> Any:
        row, residual = np.zeros(LINK, np.int64), self._address("residual")
        places = (array.ctypes.data for array in (team().state, program.steps, program.room))
        row[[STATE, STEPS, ROOM]], row[NUM_STEPS], row[TAKEN] = [*places], len(program.steps), taken
        row[WIDTH], row[EPSILON], row[CHUNK_COLUMNS] = program.width, program.epsilon, program.chunk
        row[SEEN], row[BEFORE], row[AFTER] = self._address("seen"), residual, residual
        row[OUTPUTS : OUTPUTS + 3] = [self._address(f"output {number}") for number in range(3)]
        return row

    def _attention(self, layer: int, units: int) -> Any:
        row = np.zeros(LINK, np.int64)
        heads, kv_heads, head_dim = self._sizes
        rows = [int(step[ROWS]) for step in self._programs[layer].steps if step[KIND] == OUT]
        starts = np.cumsum([0, *rows])
        facts = self._views[self._view_of_layer[layer]]
        row[STATE], row[NUM_STEPS], row[attention.FACTS] = team().state.ctypes.data, ATTENTION, facts.ctypes.data
        row[attention.SEEN], row[attention.UNITS] = self._address("seen"), units
        for part, begin in enumerate((0, heads * head_dim, (heads + kv_heads) * head_dim)):
            at = int(np.searchsorted(starts, begin, side="right")) - 1
            row[attention.QUERY + part] = self._address(f"output {at}") + 4 * (begin - starts[at])
            row[attention.QUERY_ROW + part] = 4 * rows[at]
        if len(self._head_norms):
            row[attention.QUERY_NORM], row[attention.KEY_NORM] = (part.ctypes.data for part in self._head_norms[layer])
        return row

    def _last_norm(self, before: str, after: str) -> Any:
        row = self._between(LAST_NORM, before, after, len(self._norm))
        row[EPSILON], row[WEIGHT] = self._programs[-2].epsilon, self._norm.ctypes.data
        return row

    def _between(self, kind: int, before: str, after: str, width: int) -> Any:
        row = np.zeros(LINK, np.int64)
        row[STATE], row[NUM_STEPS], row[WIDTH] = team().state.ctypes.data, kind, width
        row[BEFORE], row[AFTER] = self._address(before), self._address(after)
        return row

    def use(self, caches: Sequence[tuple[int, int]]) -> None:
        """Where each layer's keys and values lie."""
        self._caches = caches
        for links in (self._for_all, self._for_wanted):
            for at, places in zip(links.attentions, caches, strict=False):
                links.numbers[at, [attention.KEYS, attention.VALUES]] = places

    def run(
        self, x_TD: Any, places_T: Any, blocks: Any, first_blocks_T: Any, lengths_N: Any, turns: Sequence[tuple[Any, Any]],
        wanted_W: Any, *, hidden: bool,
    ) -> tuple[Any, Any]:  # fmt: skip
        """Logits [W, V] and last hidden states [T, D], overwritten by the next pass; these are no states at all if not `hidden`.

        `turns`: cosines and sines of every token's place [T, R], of each view.
        """
        tokens, wanted = len(x_TD), len(wanted_W)
        self._make_room(tokens, wanted)
        self._arrays["residual"][:tokens] = x_TD
        few, rows = _apart(places_T, first_blocks_T, lengths_N)
        links = self._for_wanted if not hidden and FEW_WANTED * wanted <= tokens else self._for_all
        links.numbers[links.of_tokens, TOKENS] = tokens
        links.numbers[links.of_wanted, TOKENS] = wanted
        links.numbers[links.choices, WANTED] = wanted_W.ctypes.data
        farthest = max(places_T[one_by_one].max(initial=0) for one_by_one in (few, wanted_W))
        scores = 4 * SCORED_TOKENS * (int(farthest) // SCORED_TOKENS + 1)
        ends = rows[:, prompt_attention.PLACE] + rows[:, prompt_attention.TOKENS]
        _, kv_heads, width = self._sizes
        unpacked = prompt_attention.unpacked_bytes(int((-(-ends // BLOCK_TOKENS)).sum()), kv_heads, width)
        room = prompt_attention.room_bytes(width)
        arrays = (places_T, blocks, first_blocks_T, few)

        def ready() -> None:
            memory: tuple[int, ...] = place("attention", scores * len(team())), scores
            if len(rows):
                memory += place("unpacked", unpacked), place("rooms", room * len(team())), room
            told = (tokens, *(array.ctypes.data for array in arrays), len(few), rows.ctypes.data, len(rows), *memory)
            views = zip((*self._views, self._facts_of_wanted), (*turns, turns[self._view_of_layer[-1]]), strict=True)
            for facts, (cosines, sines) in views:
                facts[[attention.COSINES, attention.SINES]] = cosines.ctypes.data, sines.ctypes.data
                facts[attention.TOKENS : attention.TOKENS + len(told)] = told
            one_by_one = [attention.FEW, attention.NUM_FEW, attention.NUM_ROWS]
            self._facts_of_wanted[one_by_one] = wanted_W.ctypes.data, wanted, 0
            self._taken[:] = 0

        run_links(links.numbers, self._programs, ready)
        return self._arrays["logits"][:wanted], self._arrays["hidden"][:tokens]


def _apart(places_T: Any, first_blocks_T: Any, lengths_N: Any) -> tuple[Any, Any]:
    """The tokens that are attended to one by one, and the rows of many, see `prompt_attention`."""
    starts = np.cumsum([0, *lengths_N])[:-1]
    is_long = lengths_N >= prompt_attention.ROW_TOKENS
    few = np.flatnonzero(~np.repeat(is_long, lengths_N)).astype(np.int64)
    rows = np.zeros((int(is_long.sum()), prompt_attention.ROW_NUMBERS), np.int64)
    firsts, lengths = starts[is_long], lengths_N[is_long]
    ends = places_T[firsts] + lengths
    blocks = -(-ends // BLOCK_TOKENS)
    for column, numbers in (
        (prompt_attention.FIRST_TOKEN, firsts), (prompt_attention.TOKENS, lengths), (prompt_attention.PLACE, places_T[firsts]),
        (prompt_attention.FIRST_BLOCK, first_blocks_T[firsts]), (prompt_attention.BLOCKS_BEFORE, np.cumsum(blocks) - blocks),
    ):  # fmt: skip
        rows[:, column] = numbers
    return few, rows
