"""A whole model's pass as a chain of jobs for `program`'s threads: steps, and the attention between them.

Shapes: T tokens of N rows, W those whose logits are wanted, V vocabulary, D width, R pairs of a head that are turned.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from nomoat.engine import attention_tables
from nomoat.engine.attention_tables import Attention, LaidOut, PassRow, View
from nomoat.engine.program import (
    ANNOUNCE,
    DO_SHARE,
    SHARE_OF_JOBS,
    Program,
    give_back_memory,
    max_parts,
    place,
    product_of,
    run_jobs,
    team,
    to_panels_of,
)
from nomoat.engine.step_tables import (
    ATTENTION,
    BY_AMX,
    CHOICE,
    COUNTS,
    HAS_PANELS,
    JOB_NUMBERS,
    LAST_NORM,
    MOST_OUTPUTS,
    Job,
    Kind,
    Step,
)
from nomoat.engine.team import COUNT, SERVE
from nomoat.machine_code import Compiled

if TYPE_CHECKING:
    from nomoat.engine.native import AttentionFacts

LAY_OUT = Compiled("engine.attention", "lay_out", 1)
ATTENTION_FUNCTIONS = (
    Compiled("engine.kv_cache", "keep", 3),
    Compiled("engine.attention", "attend", 3),
    Compiled("engine.attention", "join", 3),
    *([Compiled("engine.attention_amx", "attend", 3)] if BY_AMX else []),
)
ROOM_TOKENS = 64  # memory for tokens is made for a multiple of so many
FEW_WANTED = 8  # times as many tokens in a pass: then the last layer is computed for the wanted ones alone


def functions(type_names: Iterable[str]) -> list[Compiled]:
    """All that models with matrices of these types need compiled, the longest first."""
    names = sorted(type_names)
    found = [SHARE_OF_JOBS, *reversed(ATTENTION_FUNCTIONS), *map(product_of, names), LAY_OUT, SERVE, ANNOUNCE, DO_SHARE, COUNT]
    forms = (True, False) if BY_AMX else (False,) if HAS_PANELS else ()
    return [*found, *(to_panels_of(name, in_words=form) for form in forms for name in names)]


class _Jobs:
    """A chain's jobs, and which of them are what."""

    def __init__(self, jobs: Sequence[Any], first_of_wanted: int) -> None:
        """`first_of_wanted`: from this one on they work on the tokens whose logits are wanted."""
        self.numbers = np.array(jobs)
        kinds, places = self.numbers[:, Job.NUM_STEPS], np.arange(len(jobs))
        self.attentions = np.flatnonzero(kinds == ATTENTION)
        self._of_tokens, self._of_wanted = np.setdiff1d(places[:first_of_wanted], self.attentions), places[first_of_wanted:]
        self._told = 0, 0, (0, 0), False

    def tell(self, tokens: int, wanted: int, owners: tuple[int, int], *, in_panels: bool) -> None:
        """How many a pass has, where the adapters of either stand, and whether its tokens are multiplied as many are: see `steps`."""
        if self._told != (tokens, wanted, owners, in_panels):
            self._told = tokens, wanted, owners, in_panels
            self.numbers[self._of_tokens, Job.IN_PANELS] = in_panels
            for jobs, count, place in ((self._of_tokens, tokens, owners[0]), (self._of_wanted, wanted, owners[1])):
                self.numbers[jobs, Job.TOKENS], self.numbers[jobs, Job.ADAPTERS] = count, place


class Chain:
    """See the module. One thread at a time."""

    def __init__(
        self, programs: Sequence[Program], last: Program, norm: Any, facts: AttentionFacts, number_sizes: tuple[int, int]
    ) -> None:
        """`programs`: one before the first attention, one after each. `last`: of the output layer. `number_sizes`: see
        `footprint.kv_sizes`.
        """
        self._programs, self._norm = [*programs, last], norm
        self._sizes = facts.heads, facts.kv_heads, facts.head_dim
        self._views = [(np.array(view["inverse"], np.float32), np.float32(view["magnitude"])) for view in facts.views]
        self._view_of_layer = facts.layers
        self._number_sizes = number_sizes
        # of each view; the last row is of the last attention, where nobody asks what other tokens see
        views = [*facts.views, facts.views[self._view_of_layer[-1]]]
        self._view_rows = np.stack([self._view_row(view, facts, programs[0].epsilon) for view in views])
        self._head_norms = [[np.array(part, np.float32) for part in of_layer] for of_layer in facts.norms]  # of queries, of keys
        self._sinks = np.array(facts.sinks, np.float32)  # [layer, head], or empty
        self._cache = 0
        self._arrays: dict[str, Any] = {}
        self._most_tokens, self._most_wanted = 0, 0
        self._make_room(1, 1)
        weakref.finalize(self, give_back_memory).atexit = False

    def _view_row(self, view: dict[str, Any], facts: AttentionFacts, epsilon: int) -> Any:
        row = np.zeros(attention_tables.VIEW_NUMBERS, np.int64)
        scale, cap = (int(np.float32(number).view(np.uint32)) for number in (facts.scale, facts.cap))
        row[: View.EPSILON + 1] = *self._sizes, 2 * len(view["inverse"]), scale, cap, view["window"], epsilon
        row[[View.KEY_SIZE, View.VALUE_SIZE]] = self._number_sizes
        row[View.ALL_NORMED] = bool(facts.norms) and len(facts.norms[0][0]) > facts.head_dim
        row[View.KEEP_CODE : View.KEEP_CODE + len(ATTENTION_FUNCTIONS)] = [function.address for function in ATTENTION_FUNCTIONS]
        return row

    def _make_room(self, tokens: int, wanted: int) -> None:
        """For a pass of so many tokens, with logits of so many."""
        if tokens <= self._most_tokens and wanted <= self._most_wanted:
            return
        most_tokens = max(self._most_tokens, -(-tokens // ROOM_TOKENS) * ROOM_TOKENS)
        most_wanted = max(self._most_wanted, -(-wanted // ROOM_TOKENS) * ROOM_TOKENS)
        self._most_tokens = self._most_wanted = 0  # until all is there: where memory does not suffice, the next pass makes it anew
        heads, kv_heads, head_dim = self._sizes
        width, all_heads = len(self._norm), heads * head_dim
        shapes = {"residual": width, "hidden": width, "seen": all_heads}
        shapes |= {f"output {number}": all_heads + 2 * kv_heads * head_dim for number in range(MOST_OUTPUTS)}
        self._arrays = {name: np.empty((most_tokens, size), np.float32) for name, size in shapes.items()}
        shapes = {"chosen seen": all_heads, "chosen residual": width, "chosen": width}
        shapes["logits"] = int(self._programs[-1].steps[0, Step.ROWS])
        self._arrays |= {name: np.empty((most_wanted, size), np.float32) for name, size in shapes.items()}
        self._make_tables(most_tokens, most_wanted)
        self._fill(max_parts(most_tokens))
        self._most_tokens, self._most_wanted = most_tokens, most_wanted

    def _make_tables(self, most_tokens: int, most_wanted: int) -> None:
        """What `attention.lay_out` and the turning of positions fill, and where attention finds it."""
        numbers = dict.fromkeys(("places", "first blocks", "owners"), most_tokens)
        numbers |= dict.fromkeys(("wanted", "chosen owners"), most_wanted)
        self._arrays |= {name: np.empty(size, np.int64) for name, size in numbers.items()}
        self._arrays["floats"] = np.empty(most_tokens, np.float32)
        most_many = most_tokens // attention_tables.MANY_TOKENS
        for name, most in (("few", most_tokens), ("many", most_many), ("asked", most_wanted)):
            self._arrays[name] = np.empty((most, attention_tables.ROW_NUMBERS), np.int64)
        for number, (inverse, _) in enumerate(self._views):
            for name in ("cosines", "sines"):
                self._arrays[f"{name} {number}"] = np.empty((most_tokens, len(inverse)), np.float32)
        for row, number in enumerate([*range(len(self._views)), self._view_of_layer[-1]]):
            names = (f"cosines {number}", f"sines {number}", "places", "first blocks", "few", "many")
            self._view_rows[row, View.COSINES : View.MANY_ROWS + 1] = [self._address(name) for name in names]
        self._view_rows[-1, View.FEW_ROWS] = self._address("asked")
        laid = ("floats", "places", "first blocks", "owners", "wanted", "chosen owners", "few", "many", "asked")
        self._laid = np.zeros(attention_tables.LAID_OUT_NUMBERS, np.int64)
        self._laid_at = int(self._laid.ctypes.data)
        self._laid[LaidOut.FLOATS : LaidOut.NUM_FEW] = [self._address(name) for name in laid]

    def _address(self, name: str) -> int:
        return int(self._arrays[name].ctypes.data)

    def _view_at(self, row: int) -> int:
        return int(self._view_rows[row].ctypes.data)

    def _fill(self, parts: int) -> None:
        """All numbers that stay. `parts`: of the longest pass, see `program`.

        The last layer's jobs stand there twice: for all tokens, and for those alone whose logits are wanted.
        """
        num_steps = [COUNTS * len(program.steps) for program in self._programs]
        self._taken = np.zeros(parts * sum(num_steps) + 2 * len(self._programs), np.int64)
        takens = self._taken.ctypes.data + 8 * parts * np.cumsum([0, *num_steps])
        *before, after, head = (self._steps(*both) for both in zip(self._programs, takens, strict=False))
        attentions = [self._attention(layer, takens[-1] + 16 * layer) for layer in range(len(before))]
        width, all_heads = self._arrays["residual"].shape[1], self._arrays["seen"].shape[1]
        head[[Job.ATTENDED, Job.BEFORE, Job.AFTER, Job.OUTPUTS]] = self._address("chosen"), 0, 0, self._address("logits")
        before[0][Job.ATTENDED] = 0
        of_all = [attentions[-1], after, self._last_norm("residual", "hidden"), self._between(CHOICE, "hidden", "chosen", width), head]
        last_attention, last_steps = attentions[-1].copy(), after.copy()
        last_attention[Attention.VIEW] = self._view_at(-1)
        last_steps[[Job.ATTENDED, Job.BEFORE, Job.AFTER]] = [
            self._address(f"chosen {name}") for name in ("seen", "residual", "residual")
        ]
        of_wanted = [
            last_attention, self._between(CHOICE, "seen", "chosen seen", all_heads),
            self._between(CHOICE, "residual", "chosen residual", width), last_steps,
            self._last_norm("chosen residual", "chosen"), head,
        ]  # fmt: skip
        body = [job for both in zip(before, attentions, strict=True) for job in both][:-1]
        self._for_all = _Jobs(body + of_all, len(body) + 3)
        self._for_wanted = _Jobs(body + of_wanted, len(body) + 1)
        self.use(self._cache)

    def _steps(self, program: Program, taken: int) -> Any:
        row, residual = program.job(taken), self._address("residual")
        row[Job.ATTENDED], row[Job.BEFORE], row[Job.AFTER] = self._address("seen"), residual, residual
        row[Job.OUTPUTS : Job.OUTPUTS + MOST_OUTPUTS] = [self._address(f"output {number}") for number in range(MOST_OUTPUTS)]
        return row

    def _attention(self, layer: int, units: int) -> Any:
        row = np.zeros(JOB_NUMBERS, np.int64)
        heads, kv_heads, head_dim = self._sizes
        rows = [int(step[Step.ROWS]) for step in self._programs[layer].steps if step[Step.KIND] == Kind.OUT]
        starts = np.cumsum([0, *rows])
        view = self._view_at(self._view_of_layer[layer])
        row[Job.STATE], row[Job.NUM_STEPS], row[Attention.VIEW] = team().state.ctypes.data, ATTENTION, view
        row[Attention.ATTENDED], row[Attention.NEXT_UNITS] = self._address("seen"), units
        for part, begin in enumerate((0, heads * head_dim, (heads + kv_heads) * head_dim)):
            at = int(np.searchsorted(starts, begin, side="right")) - 1
            row[Attention.QUERY + part] = self._address(f"output {at}") + 4 * (begin - starts[at])
            row[Attention.QUERY_ROW_BYTES + part] = 4 * rows[at]
        if self._head_norms:
            row[Attention.QUERY_NORM], row[Attention.KEY_NORM] = (part.ctypes.data for part in self._head_norms[layer])
        if len(self._sinks):
            row[Attention.SINKS] = self._sinks[layer].ctypes.data
        return row

    def _last_norm(self, before: str, after: str) -> Any:
        row = self._between(LAST_NORM, before, after, len(self._norm))
        row[Job.EPSILON], row[Job.WEIGHT] = self._programs[-2].epsilon, self._norm.ctypes.data
        return row

    def _between(self, kind: int, before: str, after: str, width: int) -> Any:
        row = np.zeros(JOB_NUMBERS, np.int64)
        row[Job.STATE], row[Job.NUM_STEPS], row[Job.WIDTH] = team().state.ctypes.data, kind, width
        row[Job.BEFORE], row[Job.AFTER] = self._address(before), self._address(after)
        if kind == CHOICE:
            row[Job.WANTED] = self._address("wanted")
        return row

    def use(self, cache: int) -> None:
        """Keys and values lie there: of each block those of all layers, one layer after another."""
        self._cache = cache
        _, kv_heads, width = self._sizes
        keys, values = (kv_heads * attention_tables.head_bytes(width, size) for size in self._number_sizes)
        self._view_rows[:, View.BLOCK_BYTES] = len(self._view_of_layer) * (keys + values)
        for jobs in (self._for_all, self._for_wanted):
            for layer, at in enumerate(jobs.attentions):
                here = cache + layer * (keys + values)
                jobs.numbers[at, [Attention.KEYS, Attention.VALUES]] = here, here + keys

    def run(self, x_TD: Any, rows_N5: Any, blocks: Any, *, hidden: bool) -> tuple[Any, Any]:
        """Logits [W, V] and last hidden states [T, D], overwritten by the next pass; these are no states at all if not `hidden`.

        `rows_N5`: see `attention.lay_out`. `blocks`: of all rows, one after another.
        """
        tokens, wanted = len(x_TD), int(rows_N5[:, PassRow.WANTED].sum())
        self._make_room(tokens, wanted)
        arrays = self._arrays
        arrays["residual"][:tokens] = x_TD
        heads, kv_heads, width = self._sizes
        laid = self._laid
        laid[: LaidOut.FLOATS] = rows_N5.ctypes.data, len(rows_N5), tokens, heads // kv_heads
        LAY_OUT.call(self._laid_at)
        few, many, asked, *portions, keys = laid[LaidOut.NUM_FEW :].tolist()
        for number, (inverse, magnitude) in enumerate(self._views):
            self._turn(arrays[f"cosines {number}"][:tokens], arrays[f"sines {number}"][:tokens], inverse, magnitude)
        jobs = self._for_wanted if not hidden and FEW_WANTED * wanted <= tokens else self._for_all
        has_owners = bool((rows_N5[:, PassRow.ADAPTER] >= 0).any())
        owners = (self._address("owners"), self._address("chosen owners")) if has_owners else (0, 0)
        jobs.tell(tokens, wanted, owners, in_panels=hidden)  # a text's states are the same, alone and beside others
        room = attention_tables.room_bytes(width)
        units = [kv_heads * count for count in portions]
        pieces = [attention_tables.pieces(count, keys, len(team())) for count in units]
        partial = max(attention_tables.partial_bytes(*both, width) for both in zip(units, pieces, strict=True))

        def ready() -> None:
            rooms_at, partial_at = place("rooms", room * len(team())), place("partial", partial)
            told = (tokens, blocks.ctypes.data, rooms_at, room, partial_at, pieces[0], few, many)
            self._view_rows[:, View.TOKENS : View.KEEP_CODE] = told
            self._view_rows[-1, View.PIECES : View.KEEP_CODE] = pieces[1], asked, 0
            self._taken[:] = 0

        run_jobs(jobs.numbers, self._programs, ready)
        return arrays["logits"][:wanted], arrays["hidden"][:tokens]

    def _turn(self, cosines_TR: Any, sines_TR: Any, inverse_R: Any, magnitude: Any) -> None:
        """Of each token's place, which is at `floats`."""
        angles_TR = np.multiply.outer(self._arrays["floats"][: len(cosines_TR)], inverse_R)
        np.cos(angles_TR, out=cosines_TR)
        np.sin(angles_TR, out=sines_TR)
        if magnitude != 1:
            cosines_TR *= magnitude
            sines_TR *= magnitude
