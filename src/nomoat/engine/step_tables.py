"""What Python tells the threads that compute, and their memory: the places of numbers in tables, without what is compiled.

`program` and `chain` fill the tables, `steps` reads them.
"""

from __future__ import annotations

from nomoat import hardware
from nomoat.engine.attention_tables import LINK_NUMBERS
from nomoat.engine.tiles import CACHE_LINE, CHUNK, TILE_ROWS

KINDS = ("add", "hold", "add_norm", "norm", "gated", "gelu_gated", "out")
ADD, HOLD, ADD_NORM, NORM, GATED, GELU_GATED, OUT = range(len(KINDS))
KIND, CODE, PANELS_CODE, GROUP, ROWS, COLUMNS, TILES, TILE_SIZE, VECTOR = range(9)  # columns of a table of steps
# further ones of what adapters add to a step's result, see `_add_beside`: the address of a table of places (0: nothing), its length,
# and where it is told whose the matrix's tiles are, a bit for each adapter
PLACES, NUM_TILES, USERS, BESIDE_NUMBERS = range(VECTOR + 1, VECTOR + 5)
LAST_BIT = 62  # stands for all further adapters
INPUTS, SCALES, TOTALS, SUMS, RESULT, PAIRS, NEXT_INPUTS, NEXT_SCALES, NEXT_SUMS, HIDDEN, COPIES, ROOMS = range(12)  # places of memory
COPY_BYTES = 2 * CACHE_LINE  # of a thread's copy of these, which it changes
# numbers of a job
STATE, STEPS, NUM_STEPS, ROOM, TAKEN, WIDTH, EPSILON, TOKENS, SEEN, BEFORE, AFTER, OUTPUTS = range(12)
WEIGHT = WANTED = OUTPUTS  # of the last norm; of a choice
# of a prompt's panels; the table of what adapters add, and the address of each token's adapter, -1 for none; 0 if no token has one
CHUNK_COLUMNS, BESIDE, OWNERS = OUTPUTS + 3, OUTPUTS + 4, OUTPUTS + 5
IN_PANELS = OUTPUTS + 6  # not 0: however few tokens there are, they are multiplied as many are
LINK = LINK_NUMBERS  # numbers of a job in a chain
PLACE = 3  # numbers of a place
ATTENTION, LAST_NORM, CHOICE = 0, -1, -2  # what stands for a number of steps in jobs that are none
COUNTS = 2  # of tiles taken, for each step: of its product and of what is beside it
# Many tokens are multiplied in panels, where that is faster: in 8 bits (`panels`), or in bf16 where AMX can be used (`amx`)
HAS_PANELS = bool({"avx512_vnni", "avx_vnni", "asimddp"} & hardware.cpu_flags())
IN_BF16 = hardware.amx().value
PANELS_FROM = 24  # tokens: with fewer, to round codes takes longer than it saves
BF16_PANEL_TOKENS, INT8_PANEL_TOKENS = 32, 12
PANEL_TOKENS = BF16_PANEL_TOKENS if IN_BF16 else INT8_PANEL_TOKENS
INPUT_BYTES = 2 if IN_BF16 else 1  # of a number of a panel
PAIR_COLUMNS = 640 if IN_BF16 else CHUNK  # of two tiles, whose weights stay in the nearest cache
PAIR_BYTES = 2 * TILE_ROWS * INPUT_BYTES * PAIR_COLUMNS
TOKENS_A_PART = 672 if IN_BF16 else 336  # at most, of a prompt, whose intermediate results stay in a CPU's caches
PART_TOKENS = TOKENS_A_PART + PANEL_TOKENS  # a few more may be read, if not used
SUMS_BYTES = 4 * TILE_ROWS * PART_TOKENS  # of a tile
GATED_BYTES = 4 * CHUNK * PART_TOKENS
# of a thread: two tiles' sums, scales, zeros and codes, and a chunk of a gate's results
SCALES_AFTER = 2 * SUMS_BYTES
ZEROS_AFTER = SCALES_AFTER + 2 * 4 * TILE_ROWS
CODES_AFTER = ZEROS_AFTER + 2 * 4 * TILE_ROWS
PAIR_ROOM = CODES_AFTER + PAIR_BYTES + GATED_BYTES


def tokens_a_part(tokens: int) -> int:
    """Whole panels, in parts of about the same size. Without any token, too: a prompt's first pass may want no logits."""
    tokens = max(1, tokens)
    parts = -(-tokens // TOKENS_A_PART)
    return -(-tokens // (parts * PANEL_TOKENS)) * PANEL_TOKENS
