"""What Python tells attention, and its memory: the places of numbers in tables, without what is compiled.

A pass is of texts' new tokens; `chain` fills the tables, `kv_cache` and `attention` read them.
"""

from __future__ import annotations

import math

from nomoat.engine.blocks import BLOCK_TOKENS
from nomoat.engine.tiles import CACHE_LINE

# of a layer: queries, keys and values with the bytes from one token's to the next's; the cache; what was seen
FACTS, QUERY, KEY, VALUE, QUERY_ROW, KEY_ROW, VALUE_ROW, KEYS, VALUES, SEEN, QUERY_NORM, KEY_NORM, UNITS = range(3, 16)
LINK_NUMBERS = 18
# of a model's layers that see alike
HEADS, KV_HEADS, WIDTH, TURNING, SCALE, CAP, WINDOW, EPSILON, BLOCK_BYTES, KEY_SIZE, VALUE_SIZE = range(11)
# where a pass has each token's turn, its place in its text, and where that text's blocks begin in the list of blocks; the rows of
# few tokens and those of many (see `attention`)
COSINES, SINES, PLACES, FIRST_BLOCKS, FEW_TABLE, MANY_TABLE = range(11, 17)
# of a pass: its tokens and blocks, memory, the pieces that the keys of few tokens are seen in, and how many rows there are
PASS_TOKENS, BLOCKS, ROOMS, ROOM_BYTES, PARTIAL, PIECES, NUM_FEW, NUM_MANY = range(17, 25)
KEEP_CODE, ATTEND_CODE, JOIN_CODE, NUM_FACTS = range(25, 29)  # functions of a link's address, a thread and their number
SMALL, WIDE = 1, 2  # bytes of a number
MANY_TOKENS = 24  # from so many tokens of a text on
FIRST_TOKEN, TOKENS, PLACE, FIRST_BLOCK, ROW_NUMBERS = range(5)  # of a row: some tokens of a text
# of what `attention.lay_out` is told: addresses and counts; and what it tells
ROWS, NUM_ROWS, NUM_TOKENS, GROUP, FLOATS_OF, PLACES_OF, FIRST_BLOCKS_OF, OWNERS_OF = range(8)
WANTED, WANTED_OWNERS, FEW, MANY, ASKED = range(8, 13)
COUNT_FEW, COUNT_MANY, COUNT_ASKED, FEW_PORTIONS, ASKED_PORTIONS, LONGEST, LAY_OUT_NUMBERS = range(13, 20)
ROW_TOLD = 5  # numbers of a row that it is told
COLUMNS = BLOCK_TOKENS  # of a product: the keys of a block, or so many of a value's columns
QUERIES = 12  # a panel, whose sums with 32 keys or columns fill the registers
PORTION = 2 * QUERIES  # two panels meet a block of keys in turn
SPAN_BLOCKS = 8
SPAN_BYTES = 4 * SPAN_BLOCKS * BLOCK_TOKENS  # of a query's scores
# of a query so far: its largest score, the sum of its weights, what that is scaled by; what 1 of its own whole numbers stands for, and
# 1 of its weights'
MOST, TOTAL, FACTOR, QUERY_UNIT, WEIGHT_UNIT, STATE = range(6)
STATE_BYTES = 4 * STATE
PIECE_KEYS = 128  # at least, of a piece
UNITS_A_THREAD = 4  # from so many on no pieces are needed for every thread to have as much to do as the others


def head_bytes(width: int, size: int) -> int:
    """Bytes of a block's keys or values of one head, with what 1 stands for in each token's. `size`: bytes of a number."""
    return BLOCK_TOKENS * (width * size + 4)


def room_bytes(width: int) -> int:
    """Bytes of a thread's scratch memory: its queries, their scores, what they have seen, their states; scales of a span's values."""
    size = PORTION * (2 * width + 4 * _whole_columns(width) + SPAN_BYTES + STATE_BYTES) + SPAN_BYTES
    return -(-size // CACHE_LINE) * CACHE_LINE


def _whole_columns(width: int) -> int:
    return -(-width // COLUMNS) * COLUMNS


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
    return 0 if parts == 1 else units * parts * PORTION * 4 * (width + STATE)
