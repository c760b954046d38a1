"""What Python tells the threads that compute, and their memory: the places of numbers in tables, without what is compiled.

A model's pass is a chain of jobs, done one after another by all threads of a team together. `program` and `chain` write it in Python:
a row of `JOB_NUMBERS` for each job, and what its addresses lead to. `steps.share` reads it in each thread. Each table is an IntEnum of
its places; every place holds 64 bits, a number or the address of a table or of float32.

    TeamState
      JOBS ────────────> the chain: NUM_JOBS rows, each one of these

    Job: steps of a `program.Program`             Attention: a layer's, a Job whose NUM_STEPS is ATTENTION
      STATE ───────────> TeamState                  STATE ─────────────> TeamState
      STEPS ───────────> Step, NUM_STEPS rows       VIEW ──────────────> View: how its layers see, and the pass
        CODE ──────────> machine code                 KEEP_CODE, ... ──> machine code of `kv_cache`, `attention` and `attention_amx`
        TILES ─────────> weights                      FEW_ROWS, ... ───> Row: new tokens of a text
        VECTOR ────────> a bias, a norm's weights     BLOCKS ──────────> list of the texts' blocks
      ROOM ────────────> Room: memory of a part       ROOMS, PARTIAL ──> memory of the threads
      NEXT_TILES ──────> counts of tiles taken      NEXT_UNITS ────────> counts of queries taken
      ADAPTER_STEPS ───> AdapterStep, as Step       KEYS, VALUES ──────> this layer's in the cache's first block
        TILES ─────────> A of all adapters          QUERY, KEY, VALUE ─> OUTPUTS of the job before
        B_TILES ───────> BTile: B of each           ATTENDED ──────────> ATTENDED of the job after
      ADAPTERS ────────> each token's adapter
      ATTENDED, BEFORE, AFTER, OUTPUTS ─> rows of tokens

Steps and attention take turns: up to the first layer's queries, keys and values, its attention, up to the next layer's, and so on. A
`Job` of LAST_NORM, one or two of CHOICE (of the tokens whose logits are wanted) and the output layer, a single step, are the last.
"""

from __future__ import annotations

from enum import IntEnum

from nomoat import hardware
from nomoat.engine.tiles import CACHE_LINE, CHUNK, FINE_CHUNK, TILE_ROWS


class Kind(IntEnum):
    """What a step does, see `custom_ops.FusedBlock`, which has their names in small letters."""

    ADD = 0
    HOLD = 1
    ADD_NORM = 2
    NORM = 3
    GATED = 4
    GELU_GATED = 5
    OUT = 6
    CHOOSE = 7
    EXPERTS_GATED = 8
    EXPERTS_ADD = 9
    EXPERTS_CLAMPED = 10
    CHOOSE_OF_ALL = 11
    ADD_SHARED = 12


class Step(IntEnum):
    """A row of a program's table of steps. A norm has KIND, ROWS and VECTOR alone."""

    KIND = 0  # a `Kind`
    CODE = 1  # address of the product of some tokens with a tile, see `kernels.product`
    PANELS_CODE = 2  # address of what makes a tile's codes what many tokens are multiplied by; 0 without `HAS_PANELS`
    GROUP = 3  # weights of a row that share a scale
    ROWS = 4  # of the weights: numbers of a token's result
    COLUMNS = 5  # of the weights: numbers of a token's input
    TILES = 6  # address of the weights, tile by tile
    TILE_BYTES = 7
    # address of ROWS float32: a bias, or a norm's weights; 0: none, nor a norm. Of experts one expert's biases after another's. Of
    # `CHOOSE` its weights, ROWS x COLUMNS, and then its biases
    VECTOR = 8
    EXPERTS = 9  # of a mixture, whose ROWS are those of one expert
    CHOSEN = 10  # of them, by each token
    CHUNK = 11  # columns that share a scale where many tokens are multiplied in 8 bits; by AMX in bf16, unless it is `AMX_CHUNK`


class AdapterStep(IntEnum):
    """A row of the table of what adapters add to a step's result. Its first places are `Step`'s: the matrix A of all adapters."""

    B_TILES = len(Step)  # address of a table of `BTile` [adapter][tile of the step's]; 0: no adapter changes this step
    NUM_TILES = len(Step) + 1  # of the step's weights
    USERS = len(Step) + 2  # address of a number for each of A's tiles: a bit for each adapter that has rows there


class BTile(IntEnum):
    """What an adapter adds to a tile: a tile of its B, times A's results."""

    WEIGHTS = 0  # address of float16 [rank][row of the tile]
    FIRST_RANK = 1  # which of A's results is the adapter's first
    RANK = 2  # how many are; 0: the adapter adds nothing


class Room(IntEnum):
    """Addresses of memory that all programs share, for the tokens of a part. The threads have copies, in which they exchange some."""

    INPUTS = 0  # of a product, in 8 bits (`kernels`, `panels`, `amx_bytes`) or in bf16 (`amx`)
    SCALES = 1  # float32: what 1 stands for in 8 bits
    TOTALS = 2  # float32: sums that the weights' offsets need, see `kernels.round_inputs`
    SUMS = 3  # of whole numbers, see there; or what a chunk's sums begin with, see `panels.round_into_panel`
    RESULT = 4  # float32 [token][row] of a step
    PAIRS = 5  # `PAIR_ROOM` bytes a thread
    NEXT_INPUTS = 6  # what becomes INPUTS, SCALES and SUMS while these are still read
    NEXT_SCALES = 7
    NEXT_SUMS = 8
    HIDDEN = 9  # float32 [token][rank]: A's results
    COPIES = 10  # `COPY_BYTES` a thread
    # of a mixture of experts, see `experts`: as INPUTS to SUMS, of pairs; float32 of tokens and of pairs; and numbers of 64 bits
    EXPERT_INPUTS = 11
    EXPERT_SCALES = 12
    EXPERT_TOTALS = 13
    EXPERT_SUMS = 14
    EXPERT_RESULT = 15  # float32 [pair][row]
    EXPERT_SCORES = 16  # float32 [token][expert, the shared one last]
    EXPERT_WEIGHTS = 17  # float32 [token][which it asks]
    EXPERT_PICKS = 18  # [token][which it asks]: an expert
    EXPERT_PLACES = 19  # [token][which it asks]: a pair
    EXPERT_TOKENS = 20  # [pair]
    EXPERT_STARTS = 21  # [expert]: its first pair
    EXPERT_COUNTS = 22  # [expert]: how many it has
    EXPERTS_ASKED = 23  # how many experts have pairs, and which


class Job(IntEnum):
    """A row of a chain. LAST_NORM and CHOICE have STATE, NUM_STEPS, WIDTH to AFTER and one of their own alone."""

    STATE = 0  # address of `team.TeamState`
    STEPS = 1  # address of the table of `Step`
    NUM_STEPS = 2  # its rows; or ATTENTION, LAST_NORM, CHOICE
    ROOM = 3  # address of the table of `Room`
    NEXT_TILES = 4  # address of counts of tiles that threads have taken, [part][`COUNTS`][step]; all 0 before the pass
    WIDTH = 5  # numbers of a token's row in BEFORE and AFTER
    EPSILON = 6  # of norms: a float32's bits
    TOKENS = 7
    ATTENDED = 8  # address of the first product's input, mostly what attention gave; 0: a norm is first
    BEFORE = 9  # address of the residual before all steps; of a norm's or a choice's input
    AFTER = 10  # address of the residual after them, which may be the same; of the result
    OUTPUTS = 11  # addresses of the results of up to three steps `OUT`
    WEIGHT = 11  # in place of these: address of the last norm's weights
    WANTED = 11  # or, of a choice, of the places of the tokens among those before
    ADAPTER_STEPS = 14  # address of the table of `AdapterStep`
    ADAPTERS = 15  # address of each token's adapter, -1 for none; 0: no token has one
    IN_PANELS = 16  # not 0: however few tokens there are, they are multiplied as many are


GATE_LIMIT, GATE_SLOPE = 7.0, 1.702  # see `elementwise.clamped_gate`
ATTENTION, LAST_NORM, CHOICE = 0, -1, -2  # what stands for a number of steps in jobs that are none
MOST_OUTPUTS = Job.ADAPTER_STEPS - Job.OUTPUTS
STEP_NUMBERS, B_TILE_NUMBERS, ROOM_NUMBERS = len(Step), len(BTile), len(Room)
ADAPTER_STEP_NUMBERS = STEP_NUMBERS + len(AdapterStep)
JOB_NUMBERS = Job.IN_PANELS + 1
LAST_BIT = 62  # of USERS: stands for all further adapters
COPY_BYTES = 8 * CACHE_LINE  # of a thread's two copies of `Room` and one of `Step`, the last two for experts
PIECES = 8  # of a product, for each thread: one that is slower takes fewer
COUNTS = 2  # of tiles taken, for each step: of its product and of what adapters add
# Many tokens are multiplied in panels, where that is faster: in 8 bits (`panels`), or by AMX in 8 bits or bf16 (`amx_bytes`, `amx`)
HAS_PANELS = hardware.has_vnni() or hardware.has_dotprod()
# Whether Intel's AMX multiplies what many tokens are multiplied by, and what their queries see of keys
BY_AMX = hardware.amx().value
NARROW = 768  # below this width a model's answers change too much with `CHUNK` or `AMX_CHUNK`
# Of so many last layers gate and up are not in 8 bits by AMX. The layer before the last takes away what makes the first token's
# numbers so large: rounded, it leaves other logits there (KL 5.4 in Qwen2.5-Coder-1.5B; with it in bf16 0.05, with both 0.03)
LAST_LAYERS = 2
# In 8 bits without AMX they have a scale for so many columns. With fewer tokens than the second they are hardly faster, and farther
# from float32 than what is multiplied token by token
NARROW_CHUNK, NARROW_PANELS_FROM = FINE_CHUNK // 2, 48
PANELS_FROM = 24  # tokens: with fewer, to round codes takes longer than it saves
AMX_PANEL_TOKENS, INT8_PANEL_TOKENS = 32, 12
PANEL_TOKENS = AMX_PANEL_TOKENS if BY_AMX else INT8_PANEL_TOKENS
INPUT_BYTES = 2 if BY_AMX else 1  # of a number of a panel
PAIR_COLUMNS = 640 if BY_AMX else CHUNK  # of two tiles, whose weights stay in the nearest cache
# AMX multiplies in 8 bits where a model bears it, with a scale for so many columns
AMX_CHUNK = 2 * CHUNK
BYTE_CHUNKS = 4  # of two tiles in 8 bits, in that cache
PAIR_BYTES = 2 * TILE_ROWS * INPUT_BYTES * PAIR_COLUMNS
TOKENS_A_PART = 672 if BY_AMX else 336  # at most, of a prompt, whose intermediate results stay in a CPU's caches
PART_TOKENS = TOKENS_A_PART + PANEL_TOKENS  # a few more may be read, if not used
SUMS_BYTES = 4 * TILE_ROWS * PART_TOKENS  # of a tile
GATED_BYTES = 4 * (AMX_CHUNK if BY_AMX else CHUNK) * PART_TOKENS
CHUNK_SUMS_BYTES = 4 * 2 * TILE_ROWS * AMX_PANEL_TOKENS if BY_AMX else 0  # of two tiles and a panel, as whole numbers
# of a thread: two tiles' sums, scales, zeros and codes, two chunks' sums, and a chunk of a gate's results
SCALES_AFTER = 2 * SUMS_BYTES
ZEROS_AFTER = SCALES_AFTER + BYTE_CHUNKS * 2 * 4 * TILE_ROWS
CODES_AFTER = ZEROS_AFTER + 2 * 4 * TILE_ROWS
CHUNK_SUMS_AFTER = CODES_AFTER + PAIR_BYTES
PAIR_ROOM = CHUNK_SUMS_AFTER + 2 * CHUNK_SUMS_BYTES + GATED_BYTES


def chunk_of(width: int, *, is_last_gate: bool = False, has_experts: bool = False) -> int:
    """`Step.CHUNK` in a model of this width, if nothing asks for another.

    `is_last_gate`: gate and up of the `LAST_LAYERS`. `has_experts`: the model; of no mixture 8 bits by AMX were measured, nor do its
    experts' places fit `AMX_CHUNK`.
    """
    if BY_AMX and width >= NARROW and not has_experts and not is_last_gate:
        return AMX_CHUNK
    if width >= NARROW:
        return CHUNK
    return FINE_CHUNK if BY_AMX else NARROW_CHUNK


def panels_from(chunk: int) -> int:
    """From how many tokens on they are multiplied in panels whose chunks have so many columns."""
    return NARROW_PANELS_FROM if chunk == NARROW_CHUNK else PANELS_FROM


def tokens_a_part(tokens: int) -> int:
    """Whole panels, in parts of about the same size. Without any token, too: a prompt's first pass may want no logits."""
    tokens = max(1, tokens)
    parts = -(-tokens // TOKENS_A_PART)
    return -(-tokens // (parts * PANEL_TOKENS)) * PANEL_TOKENS
