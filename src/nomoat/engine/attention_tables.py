"""What Python tells attention, and its memory: the places of numbers in tables, without what is compiled.

A pass is of texts' new tokens; `chain` fills the tables, `kv_cache` and `attention` read them. How they belong together is drawn in
`step_tables`.
"""

from __future__ import annotations

import math
from enum import IntEnum

from nomoat.engine.blocks import BLOCK_TOKENS
from nomoat.engine.step_tables import BY_AMX
from nomoat.engine.tiles import CACHE_LINE


class Attention(IntEnum):
    """A row of a chain that is a layer's attention: its places beside STATE and NUM_STEPS, which are `step_tables.Job`'s."""

    VIEW = 3  # address of the table of `View`
    QUERY = 4  # addresses of the first token's queries, keys and values, float32 [head][column]
    KEY = 5
    VALUE = 6
    QUERY_ROW_BYTES = 7  # from one token's to the next's
    KEY_ROW_BYTES = 8
    VALUE_ROW_BYTES = 9
    KEYS = 10  # addresses of the layer's keys and values in the cache's first block
    VALUES = 11
    ATTENDED = 12  # address of the result, float32 [token][head][column]
    QUERY_NORM = 13  # addresses of the weights of a head's norm, or of all heads'; 0: it has none
    KEY_NORM = 14
    NEXT_UNITS = 15  # address of two counts of portions that threads have taken: of many tokens and of few; 0 before the pass
    SINKS = 16  # address of what each head's weights are shared with, float32: scores that stand for no key; 0: it has none


class View(IntEnum):
    """What a pass is for a model's layers that see alike: how they see, its tokens, its memory."""

    HEADS = 0
    KV_HEADS = 1
    WIDTH = 2  # columns of a head
    ROTARY = 3  # the columns that positions turn
    SCALE = 4  # of scores: a float32's bits
    CAP = 5  # of scores: a float32's bits; 0: none
    WINDOW = 6  # tokens; 0: all are seen
    EPSILON = 7  # of norms of queries and keys (`Attention.QUERY_NORM`): a float32's bits
    BLOCK_BYTES = 8  # from one block of the cache to the next, of all layers
    KEY_SIZE = 9  # bytes of a number: SMALL or WIDE
    VALUE_SIZE = 10
    ALL_NORMED = 11  # not 0: norms are of all heads at once, not of each
    COSINES = 12  # addresses of float32 [token][ROTARY / 2]
    SINES = 13
    POSITIONS = 14  # address of each token's place in its text
    FIRST_BLOCKS = 15  # address of where the blocks of each token's text begin in BLOCKS
    FEW_ROWS = 16  # addresses of the tables of `Row`: of texts with few new tokens and with many
    MANY_ROWS = 17
    TOKENS = 18
    BLOCKS = 19  # address of the list of blocks of all texts
    ROOMS = 20  # address of memory for the threads
    ROOM_BYTES = 21  # of a thread, see `room_bytes`
    PARTIAL = 22  # address of what is seen in pieces, see `partial_bytes`
    PIECES = 23  # that the keys of few tokens are seen in
    NUM_FEW = 24  # rows
    NUM_MANY = 25
    KEEP_CODE = 26  # addresses of functions of a job's address, a thread and their number
    ATTEND_CODE = 27
    JOIN_CODE = 28
    AMX_CODE = 29  # of many tokens, which are ATTEND_CODE's where it is 0


class Row(IntEnum):
    """Some tokens of a text."""

    FIRST_TOKEN = 0  # in the pass
    TOKENS = 1
    POSITION = 2  # of the first, in its text
    FIRST_BLOCK = 3  # of its text, in the list of blocks


class PassRow(IntEnum):
    """A text's part of a pass, as `chain` is told."""

    TOKENS = 0
    PAST = 1  # tokens before them
    WANTED = 2  # of how many of them, the last ones, logits are wanted
    BLOCKS = 3
    ADAPTER = 4  # -1: none


class LaidOut(IntEnum):
    """What `attention.lay_out` is told; from NUM_FEW on what it tells."""

    ROWS = 0  # address of the table of `PassRow`
    NUM_ROWS = 1
    NUM_TOKENS = 2
    GROUP = 3  # heads that share a key's
    FLOATS = 4  # address of each token's position as float32
    POSITIONS = 5  # address of what `View.POSITIONS` is
    FIRST_BLOCKS = 6  # address of what `View.FIRST_BLOCKS` is
    ADAPTERS = 7  # address of each token's adapter
    WANTED = 8  # address of the places of the wanted tokens in the pass
    WANTED_ADAPTERS = 9  # address of their adapters
    FEW = 10  # addresses of tables of `Row`: of texts with few new tokens, with many, with wanted ones
    MANY = 11
    ASKED = 12
    NUM_FEW = 13  # rows of these
    NUM_MANY = 14
    NUM_ASKED = 15
    FEW_PORTIONS = 16  # of queries of a head of keys, see `PORTION`
    ASKED_PORTIONS = 17
    LONGEST = 18  # tokens of the longest text


class QueryState(IntEnum):
    """Of a query so far, in float32."""

    MOST = 0  # its largest score
    TOTAL = 1  # the sum of its weights
    FACTOR = 2  # what that is scaled by
    QUERY_UNIT = 3  # what 1 of its own whole numbers stands for
    WEIGHT_UNIT = 4  # and 1 of its weights'


VIEW_NUMBERS, ROW_NUMBERS, PASS_ROW_NUMBERS, LAID_OUT_NUMBERS = len(View), len(Row), len(PassRow), len(LaidOut)
STATE_NUMBERS = len(QueryState)
STATE_BYTES = 4 * STATE_NUMBERS
SMALL, WIDE = 1, 2  # bytes of a number
MANY_TOKENS = 24  # from so many tokens of a text on
COLUMNS = BLOCK_TOKENS  # of a product: the keys of a block, or so many of a value's columns
QUERIES = 12  # a panel, whose sums with 32 keys or columns fill the registers
PORTION = 2 * QUERIES  # two panels meet a block of keys in turn
SPAN_BLOCKS = 8
SPAN_BYTES = 4 * SPAN_BLOCKS * BLOCK_TOKENS  # of a query's scores
# Queries of rows of many meet keys by AMX, where that is to be had, in larger portions: for each keys and values are laid out anew
AMX_LEAST, AMX_PORTION = 32, 192
AMX_ROWS, STEP = 16, 64  # queries, and bytes of each, that one instruction takes
SUMS_BYTES = 3 * 4 * COLUMNS * AMX_ROWS  # of a block's keys, or of so many columns of values
AMX_STATE_BYTES = STATE_NUMBERS * 4 * AMX_ROWS  # of sixteen queries, [`QueryState`][query]
SPLIT_BYTES = 2 * SPAN_BLOCKS * BLOCK_TOKENS  # of a query's weights of a span
PIECE_KEYS = 128  # at least, of a piece
UNITS_A_THREAD = 4  # from so many on no pieces are needed for every thread to have as much to do as the others


def head_bytes(width: int, size: int) -> int:
    """Bytes of a block's keys or values of one head, with what 1 stands for in each token's. `size`: bytes of a number."""
    return BLOCK_TOKENS * (width * size + 4)


def room_places(room: int, width: int) -> tuple[int, int, int, int, int, int]:
    """A thread's scratch memory, which begins with its queries: bytes of what one of them has seen; where their scores lie, what they
    have seen, their states, and the scales of a span's values; its end."""
    seen_bytes = 4 * (-(-width // COLUMNS) * COLUMNS)
    scores = room + PORTION * 2 * width
    seen = scores + PORTION * SPAN_BYTES
    states = seen + PORTION * seen_bytes
    scales = states + PORTION * STATE_BYTES
    return seen_bytes, scores, seen, states, scales, scales + SPAN_BYTES


def amx_places(room: int, width: int) -> tuple[int, int, int, int, int, int, int, int, int, int, int, int]:
    """The same for AMX, whose queries are first: where a span's keys and values lie in fours, a query's numbers, scores, weights,
    sums, what queries have seen, the scales of keys and values, which keys queries see, states; its end."""
    padded, columns, span = -(-width // STEP) * STEP, -(-width // COLUMNS) * COLUMNS, SPAN_BLOCKS * BLOCK_TOKENS
    keys = room + AMX_PORTION * WIDE * padded
    values = keys + span * WIDE * padded
    numbers = values + span * WIDE * columns
    scores = numbers + 4 * padded
    weights = scores + AMX_ROWS * SPAN_BYTES
    sums = weights + AMX_ROWS * SPLIT_BYTES
    seen = sums + 2 * SUMS_BYTES
    key_scales = seen + AMX_PORTION * 4 * columns
    value_scales = key_scales + SPAN_BYTES
    sights = value_scales + SPAN_BYTES
    states = sights + 8 * (2 * AMX_ROWS + AMX_PORTION)
    end = states + AMX_PORTION // AMX_ROWS * AMX_STATE_BYTES
    return keys, values, numbers, scores, weights, sums, seen, key_scales, value_scales, sights, states, end


def room_bytes(width: int) -> int:
    """Bytes of it."""
    end = max(room_places(0, width)[-1], amx_places(0, width)[-1] if BY_AMX else 0)
    return -(-end // CACHE_LINE) * CACHE_LINE


def pieces(units: int, keys: int, threads: int) -> int:
    """How many the keys of few tokens are seen in: so many that as many units' pieces as possible are the same for each thread.

    `units`: portions of queries, of each head of keys. `keys`: of the longest text.
    """
    if units == 0 or units >= UNITS_A_THREAD * threads:
        return 1
    even = threads // math.gcd(units, threads)
    enough = -(-UNITS_A_THREAD * threads // units)
    return max(1, min(even, enough, keys // PIECE_KEYS))


def partial_bytes(units: int, parts: int, width: int) -> int:
    """Bytes of what is seen in so many parts of the keys, before they are joined; none for a single part."""
    return 0 if parts == 1 else units * parts * PORTION * 4 * (width + STATE_NUMBERS)
