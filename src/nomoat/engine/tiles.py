"""The own codes of a GGUF file (see BLOCKS) in the order in which `kernels` multiplies by them.

Sixteen rows are a tile, which is read from its first byte to its last. Codes lie four inputs of each row after one another in 64
bytes, an operand of the instructions that multiply bytes; two such operands share 64 bytes, the first in the low halves. Bits above
the fourth, and codes of two bits, lie in operands of their own, the first's lowest. Nothing is rounded: scales and offsets are the
file's.

Shapes: R rows, C columns (inputs), T tiles, B blocks of a row, G groups of a block, S bytes of a tile, M some rows.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import numpy.typing as npt

TILE_ROWS = 16
CACHE_LINE = 64  # bytes; weights and memory for them begin where one does
# columns that share a scale where many tokens are multiplied (`panels`); the second at the quality `high`, in narrow models and in
# families with outliers, whose answers change too much with the first (docs/tried/products.md, nearness.md)
CHUNK, FINE_CHUNK = 128, 64
BLOCKS = {  # weights of a block, its bytes in the file
    "Q4_0": (32, 18), "Q4_1": (32, 20), "Q5_0": (32, 22), "Q5_1": (32, 24), "Q8_0": (32, 34), "Q2_K": (256, 84), "Q3_K": (256, 110),
    "Q4_K": (256, 144), "Q5_K": (256, 176), "Q6_K": (256, 210), "MXFP4": (32, 17), "IQ4_NL": (32, 18), "IQ4_XS": (256, 136),
    "IQ3_S": (256, 110), "IQ3_XXS": (256, 98), "IQ2_S": (256, 82), "IQ2_XS": (256, 74), "IQ2_XXS": (256, 66),
}  # fmt: skip
GROUP_CODES = {**dict.fromkeys(BLOCKS, 32), **dict.fromkeys(("Q2_K", "Q3_K", "Q6_K", "IQ2_S", "IQ2_XS"), 16)}  # share a scale
WHOLE_BYTES = "Q8_0"
IN_CACHE = 1 << 18  # weights put into tiles at a time: what is between has room in a core's own cache
_IQ4 = (-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113)  # Source: ggml's kvalues_iq4nl
_IQ2 = (-86, -50, -16, 16, 50, 86)
# What the codes of these types stand for, in UNITS of a group's scale, so that the largest is near 127, but for MXFP4. A file has IQ2
# and IQ3 as places in a table of vectors with signs aside: their weights are of so few levels that 4 bits hold each of them.
LEVELS = {
    "MXFP4": (0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12),  # twice E2M1's
    "IQ4_NL": _IQ4, "IQ4_XS": _IQ4, "IQ3_S": tuple(range(-120, 121, 16)), "IQ2_S": _IQ2, "IQ2_XS": _IQ2, "IQ2_XXS": _IQ2,
    "IQ3_XXS": (-124, -104, -88, -72, -56, -40, -24, -8, 8, 24, 40, 56, 72, 88, 104, 124),
}  # fmt: skip
UNITS = {"IQ3_S": 1 / 8, "IQ3_XXS": 1 / 8, "IQ2_S": 1 / 16, "IQ2_XS": 1 / 16, "IQ2_XXS": 1 / 16}
LARGEST_EXPONENT = 127 + 16  # of MXFP4's scales, which are powers of two: those of others are float16, and no larger
FOUR_BITS = {"Q2_K", "Q3_K", "Q4_0", "Q4_1", "Q4_K", *LEVELS}  # types of at most so many a code
LANES = ("<f2", (TILE_ROWS,))  # one number of each row
OPERAND = (TILE_ROWS, 4)  # four codes of each row


def _layout(second: str | None, small: str | None, groups: int, codes: tuple[int, ...], *, fifth: bool = False) -> np.dtype[np.void]:
    """A scale of each row, perhaps a second number; small scales of so many groups; perhaps operands of fifth bits; and codes."""
    fields: list[Any] = [("scale", *LANES)]
    fields += [(second, *LANES)] if second else []
    fields += [("scales", small, (groups, TILE_ROWS))] if small else []
    fields += [("high", "u1", OPERAND)] if fifth else []
    return np.dtype([*fields, ("codes", "u1", (*codes, *OPERAND))])


LAYOUTS = {  # of a block's weights in sixteen rows; `codes` knows these places
    "Q4_0": _layout(None, None, 0, (4,)),
    "Q4_1": _layout("offset", None, 0, (4,)),
    "Q5_0": _layout(None, None, 0, (4,), fifth=True),
    "Q5_1": _layout("offset", None, 0, (4,), fifth=True),
    "Q8_0": _layout(None, None, 0, (8,)),  # codes and 128
    # of 16 inputs each: a scale in the low halves and a minimum in the high ones; an operand of two bits
    "Q2_K": _layout("offset", "u1", 16, (16,)),
    # of 16 inputs each a scale; of 32 each two operands of two bits, and one of third bits
    "Q3_K": _layout("unused", "i1", 16, (8, 3)),
    # scales and minima by turns, of 32 inputs each
    "Q4_K": _layout("offset", "u1", 16, (32,)),
    # the same, and of 32 inputs each an operand of fifth bits behind four
    "Q5_K": _layout("offset", "u1", 16, (8, 5)),
    # of 16 inputs each: a scale; twice their low halves and once their two high bits
    "Q6_K": _layout("unused", "i1", 16, (16, 3)),
    "IQ4_NL": _layout(None, None, 0, (4,)),
    "MXFP4": np.dtype([("exponent", "u1", (TILE_ROWS,)), ("codes", "u1", (4, *OPERAND))]),
    **dict.fromkeys(("IQ4_XS", "IQ3_S", "IQ3_XXS", "IQ2_XXS"), _layout("unused", "i1", 8, (32,))),  # of 32 inputs each a scale
    **dict.fromkeys(("IQ2_S", "IQ2_XS"), _layout("unused", "i1", 16, (32,))),  # of 16
}
TILE_BYTES = {type_name: layout.itemsize for type_name, layout in LAYOUTS.items()}
Bytes = npt.NDArray[np.uint8]


def fit(type_name: str, rows: int, columns: int) -> bool:
    """Whether a matrix of this type and size can be kept in tiles."""
    return type_name in BLOCKS and rows % TILE_ROWS == 0 and columns % BLOCKS[type_name][0] == 0


def type_of(type_name: str, rows: int, columns: int, *, changed: bool) -> str | None:
    """The type a matrix has in tiles: the file's, or 8 bits for others and for changed weights; None if it does not fit."""
    own = type_name if type_name in BLOCKS and not changed else WHOLE_BYTES
    return own if fit(own, rows, columns) else None


def padded(rows: int) -> int:
    """The rows of whole tiles that hold so many."""
    return -(-rows // TILE_ROWS) * TILE_ROWS


def size(type_name: str, rows: int, columns: int) -> int:
    """The bytes of all tiles of a matrix that fits."""
    return int(padded(rows) // TILE_ROWS * (columns // BLOCKS[type_name][0]) * TILE_BYTES[type_name])


def tiled(raw: Bytes, type_name: str, out: Bytes | None = None) -> Bytes:
    """Tiles [T, S] of rows as the file has them [R, row bytes], zeros after the last; written into `out`, if given, of one piece.

    Raises ValueError for scales that are no numbers.
    """
    if missing := padded(len(raw)) - len(raw):
        raw = np.concatenate([raw, np.zeros((missing, raw.shape[1]), np.uint8)])
    codes, block_bytes = BLOCKS[type_name]
    blocks = raw.reshape(len(raw) // TILE_ROWS, TILE_ROWS, -1, block_bytes)
    num_tiles, num_blocks = len(blocks), blocks.shape[2]
    made = np.empty((num_tiles, num_blocks * TILE_BYTES[type_name]), np.uint8) if out is None else out
    step = max(1, IN_CACHE // (TILE_ROWS * num_blocks * codes))
    for at in range(0, num_tiles, step):
        parts_of_blocks = [_flat(part) for part in MAKERS[type_name](blocks[at : at + step])]
        np.concatenate(parts_of_blocks, axis=-1, out=made[at : at + step].reshape(-1, num_blocks, TILE_BYTES[type_name]))
    return made


def rows_of(tiles_TS: Bytes, type_name: str, rows_M: npt.NDArray[np.integer[Any]]) -> npt.NDArray[np.float32]:
    """The weights [M, C] of some rows."""
    blocks_TB, fields = tiles_TS.view(LAYOUTS[type_name]), LAYOUTS[type_name].names or ()
    tile, lane = np.asarray(rows_M) // TILE_ROWS, np.asarray(rows_M) % TILE_ROWS

    def of(name: str) -> npt.NDArray[Any]:
        """A field's part of these rows, whose axis of 16 is the one before the last of codes, the last of numbers: [M, B, ...]."""
        found: npt.NDArray[Any] = np.moveaxis(blocks_TB[name], -2 if name in ("codes", "high") else -1, 0)[lane, tile]
        return found

    exponents = of("exponent") if "exponent" in fields else None
    scales = (of("scale").astype(np.float32) if exponents is None else _powers(exponents))[..., None]
    codes = _unpacked(type_name, of("codes"), of("high") if "high" in fields else None)
    if "unused" in fields:
        scales = scales * of("scales") * np.float32(UNITS.get(type_name, 1))
    if type_name in ZEROS:
        return _scaled(codes.astype(np.int16) - ZEROS[type_name], scales)
    offsets = of("offset").astype(np.float32)[..., None]
    if type_name == "Q2_K":
        small = of("scales")
        scales, offsets = scales * (small & 15), -offsets * (small >> 4)
    elif type_name in ("Q4_K", "Q5_K"):
        small = of("scales").reshape(*scales.shape[:2], 8, 2)
        scales, offsets = scales * small[..., 0], -offsets * small[..., 1]
    return _scaled(codes, scales, offsets)


def _powers(exponents: Bytes) -> npt.NDArray[np.float32]:
    """Scales of MXFP4's levels, which are twice the file's; 0 for those below 1e-38."""
    return (np.maximum(exponents.astype(np.int32) - 1, 0) << 23).astype(np.uint32).view(np.float32)


def _unpacked(type_name: str, codes: Bytes, high: Bytes | None) -> npt.NDArray[Any]:
    """Codes of some rows [M, B, operands, 4], with those that share bytes apart, in the order of their inputs."""

    def bits(packed: Bytes, width: int) -> Bytes:
        """Of one operand [..., 4] those of 8 / width operands [..., 8 / width, 4]."""
        shifts = np.arange(0, 8, width, dtype=np.uint8)[:, None]
        return np.asarray((packed[..., None, :] >> shifts) & ((1 << width) - 1), np.uint8)

    if type_name == "Q8_0":
        return codes
    if type_name == "Q2_K":
        return bits(codes, 2)
    if type_name == "Q3_K":
        low = bits(codes[..., :2, :], 2)
        return low | (bits(codes[..., 2, :], 1).reshape(low.shape) << 2)
    if type_name == "Q6_K":
        low = bits(codes[..., :2, :], 4)
        return low | (bits(codes[..., 2, :], 2).reshape(low.shape) << 4)
    if type_name == "Q5_K":
        low, high = bits(codes[..., :4, :], 4), codes[..., 4, :]
    else:
        low = bits(codes, 4)
    if type_name in LEVELS:
        return np.array(LEVELS[type_name], np.int16)[low]
    return low if high is None else low | (bits(high, 1).reshape(low.shape) << 4)


def _scaled(
    codes: npt.NDArray[Any], scales_MBG: npt.NDArray[np.float32], offsets_MBG: npt.NDArray[np.float32] | None = None
) -> npt.NDArray[np.float32]:
    weights = codes.reshape(*scales_MBG.shape, -1) * scales_MBG[..., None]
    return np.asarray(weights if offsets_MBG is None else weights + offsets_MBG[..., None], np.float32).reshape(len(codes), -1)


# What a tile's block holds, of blocks [T, 16, B, bytes] as files have them.
def _q4_0(blocks: Bytes) -> list[Bytes]:
    return [_number(blocks, 0), _operands(blocks[..., 2:], 4, together=16)]


def _q4_1(blocks: Bytes) -> list[Bytes]:
    return [_number(blocks, 0), _number(blocks, 2), _operands(blocks[..., 4:], 4, together=16)]


def _q5_0(blocks: Bytes) -> list[Bytes]:
    """A float16, 32 fifth bits, 16 bytes of low halves."""
    return [_number(blocks, 0), _fifth_bits(blocks[..., 2:6]), _operands(blocks[..., 6:], 4, together=16)]


def _q5_1(blocks: Bytes) -> list[Bytes]:
    """The same with an offset behind the first number."""
    fifth, low = _fifth_bits(blocks[..., 4:8]), _operands(blocks[..., 8:], 4, together=16)
    return [_number(blocks, 0), _number(blocks, 2), fifth, low]


def _q8_0(blocks: Bytes) -> list[Bytes]:
    return [_number(blocks, 0), _operands(blocks[..., 2:], 8) ^ np.uint8(128)]


def _q2_k(blocks: Bytes) -> list[Bytes]:
    """16 scales with minima, 64 bytes of codes, two float16. Source: ggml's dequantize_row_q2_K."""
    return [_number(blocks, 80), _number(blocks, 82), _small(blocks[..., :16]), _operands(blocks[..., 16:80], 2)]


def _q3_k(blocks: Bytes) -> list[Bytes]:
    """32 bytes of third bits, 64 of two bits, 16 scales of 6 bits in 12, a float16. Source: ggml's dequantize_row_q3_K."""
    low, high = _operands(blocks[..., 32:96], 2), _operands(blocks[..., :32], 1)
    scales = parts(blocks[..., 96:104], 4, together=8) | (parts(blocks[..., 104:108], 2, together=4) << 4)
    return [_number(blocks, 108), _unused(blocks), _small(scales - np.uint8(32)), _behind(low, high)]


def _q4_k(blocks: Bytes) -> list[Bytes]:
    """Two float16, scales and minima, 128 bytes of codes."""
    return [_number(blocks, 0), _number(blocks, 2), _by_turns(blocks), _operands(blocks[..., 16:], 4)]


def _q5_k(blocks: Bytes) -> list[Bytes]:
    """The same, with 32 bytes of fifth bits before the codes' low halves. Source: ggml's dequantize_row_q5_K."""
    low, high = _operands(blocks[..., 48:], 4), _operands(blocks[..., 16:48], 1)
    return [_number(blocks, 0), _number(blocks, 2), _by_turns(blocks), _behind(low, high)]


def _q6_k(blocks: Bytes) -> list[Bytes]:
    """128 bytes of low halves, 64 of two high bits, 16 signed scales, a float16. Source: ggml's dequantize_row_q6_K."""
    low, high = _operands(blocks[..., :128], 4, together=64), _operands(blocks[..., 128:192], 2)
    return [_number(blocks, 208), _unused(blocks), _small(blocks[..., 192:208]), _behind(low, high)]


def _mxfp4(blocks: Bytes) -> list[Bytes]:
    """A scale's exponent, codes. Source: ggml's dequantize_row_mxfp4."""
    exponents = np.ascontiguousarray(blocks[..., 0].transpose(0, 2, 1))
    if (exponents > LARGEST_EXPONENT).any():
        raise ValueError("scales that are no numbers")
    return [exponents, _operands(blocks[..., 1:], 4, together=16)]


def _iq4_xs(blocks: Bytes) -> list[Bytes]:
    """A float16, 8 scales of 6 bits (high bits in two bytes, low halves in four), codes. Source: ggml's dequantize_row_iq4_xs."""
    scales = parts(blocks[..., 4:8], 4, together=1) | (parts(blocks[..., 2:4], 2, together=1) << 4)
    codes = _operands(blocks[..., 8:], 4, together=16)
    return [_number(blocks, 0), _unused(blocks), _small(scales - np.uint8(32)), codes]


def _iq3_s(blocks: Bytes) -> list[Bytes]:
    """64 places of 9 bits, the ninth apart; 32 bytes of signs; 8 scales of 4 bits. Source: ggml's dequantize_row_iq3_s."""
    places = blocks[..., 2:66] | (parts(blocks[..., 66:74], 1, together=1).astype(np.uint16) << 8)
    return _of_levels(blocks, "IQ3_S", places, blocks[..., 74:106], parts(blocks[..., 106:], 4, together=1))


def _iq3_xxs(blocks: Bytes) -> list[Bytes]:
    """64 places; of each 32 inputs four signs of 7 bits and a scale of 4. Source: ggml's dequantize_row_iq3_xxs."""
    return _of_levels(blocks, "IQ3_XXS", blocks[..., 2:66], _signs(blocks[..., 66:]), blocks[..., 69::4] >> 4)


def _iq2_s(blocks: Bytes) -> list[Bytes]:
    """32 places of 10 bits, two of them apart; 32 bytes of signs; 16 scales of 4 bits. Source: ggml's dequantize_row_iq2_s."""
    places = blocks[..., 2:34] | (parts(blocks[..., 66:74], 2, together=1).astype(np.uint16) << 8)
    return _of_levels(blocks, "IQ2_S", places, blocks[..., 34:66], parts(blocks[..., 74:], 4, together=1))


def _iq2_xs(blocks: Bytes) -> list[Bytes]:
    """32 places of 9 bits, each with a sign of 7; 16 scales of 4 bits. Source: ggml's dequantize_row_iq2_xs."""
    both = np.ascontiguousarray(blocks[..., 2:66]).view("<u2")
    return _of_levels(blocks, "IQ2_XS", both & 511, _signs_in_7_bits()[both >> 9], parts(blocks[..., 66:], 4, together=1))


def _iq2_xxs(blocks: Bytes) -> list[Bytes]:
    """Of each 32 inputs four places, four signs of 7 bits and a scale of 4. Source: ggml's dequantize_row_iq2_xxs."""
    groups = blocks[..., 2:].reshape(*blocks.shape[:3], 8, 8)
    signs = _signs(groups[..., 4:].reshape(*blocks.shape[:3], -1))
    return _of_levels(blocks, "IQ2_XXS", groups[..., :4].reshape(*blocks.shape[:3], -1), signs, groups[..., 7] >> 4)


def _of_levels(blocks: Bytes, type_name: str, places: npt.NDArray[Any], signs: Bytes, scales: npt.NDArray[Any]) -> list[Bytes]:
    """Weights by their vectors' places in the type's table, and a bit for each sign; 2 * scale + 1 is a group's scale."""
    above = _vectors(type_name)[places].reshape(*blocks.shape[:3], 256)  # so many levels above the lowest one that has no sign
    half = len(LEVELS[type_name]) // 2
    codes = np.where(parts(signs, 1, together=1), half - 1 - above, half + above)
    return [_number(blocks, 0), _unused(blocks), _small(2 * scales + 1), _shared(_fours(np.asarray(codes, np.uint8)), 4)]


def _signs(words: Bytes) -> Bytes:
    """The signs of eight inputs each, of which a word of 32 bits has four, below its scale."""
    places = (np.ascontiguousarray(words).view("<u4")[..., None] >> np.array([0, 7, 14, 21], np.uint32)) & 127
    return np.asarray(_signs_in_7_bits()[places.reshape(*words.shape[:-1], -1)])


@functools.cache
def _signs_in_7_bits() -> Bytes:
    """An eighth sign makes their number even."""
    import gguf

    return np.frombuffer(gguf.quants.IQ2_XXS.ksigns, np.uint8)


@functools.cache
def _vectors(type_name: str) -> Bytes:
    """The type's table, with the order of a number among those that stand in it in its place."""
    import gguf

    table = getattr(gguf.quants, type_name)
    table.init_grid()
    numbers = table.grid.reshape(table.grid_shape)
    return np.asarray(np.searchsorted(np.unique(numbers), numbers), np.uint8)


MAKERS = {
    "Q4_0": _q4_0, "Q4_1": _q4_1, "Q5_0": _q5_0, "Q5_1": _q5_1, "Q8_0": _q8_0, "Q2_K": _q2_k, "Q3_K": _q3_k, "Q4_K": _q4_k,
    "Q5_K": _q5_k, "Q6_K": _q6_k, "IQ4_NL": _q4_0, "IQ4_XS": _iq4_xs, "IQ3_S": _iq3_s, "IQ3_XXS": _iq3_xxs, "IQ2_S": _iq2_s,
    "IQ2_XS": _iq2_xs, "IQ2_XXS": _iq2_xxs, "MXFP4": _mxfp4,
}  # fmt: skip
ZEROS = {"Q4_0": 8, "Q5_0": 16, "Q8_0": 128, "Q3_K": 4, "Q6_K": 32, **dict.fromkeys(LEVELS, 0)}  # the code of a weight of 0


def parts(packed: Bytes, bits: int, *, together: int = 32) -> Bytes:
    """Codes of so many bits as files have them: of so many bytes the lowest bits first, then those above them."""
    shifts = np.arange(0, 8, bits, dtype=np.uint8)[:, None]
    found = (packed.reshape(*packed.shape[:-1], -1, 1, together) >> shifts) & ((1 << bits) - 1)
    return np.asarray(found.reshape(*packed.shape[:-1], -1), np.uint8)


def scales_and_minima(blocks: Bytes) -> tuple[Bytes, Bytes]:
    """Of blocks of Q4_K and Q5_K the 8 scales and the 8 minima, of 6 bits in 12 bytes. Source: ggml's get_scale_min_k4."""
    low, high, mixed = blocks[..., 4:8], blocks[..., 8:12], blocks[..., 12:16]
    scales = np.concatenate([low & 63, (mixed & 15) | (low >> 6 << 4)], axis=-1)
    minima = np.concatenate([high & 63, (mixed >> 4) | (high >> 6 << 4)], axis=-1)
    return scales, minima


def _by_turns(blocks: Bytes) -> Bytes:
    return _flat(np.stack(scales_and_minima(blocks), axis=-1).transpose(0, 2, 3, 4, 1))


def _small(scales: npt.NDArray[Any]) -> Bytes:
    """A byte of each group [T, 16, B, G], those of the sixteen rows beside one another."""
    return _flat(np.asarray(scales.transpose(0, 2, 3, 1), np.uint8))


def _number(blocks: Bytes, at: int) -> Bytes:
    """A float16 of each row, beside one another: [T, B, bytes]."""
    numbers = np.ascontiguousarray(blocks[..., at : at + 2].view(np.float16)[..., 0].transpose(0, 2, 1))
    if not np.isfinite(numbers).all():
        raise ValueError("scales that are no numbers")
    return np.asarray(numbers.view(np.uint8))


def _unused(blocks: Bytes) -> Bytes:
    return np.zeros((len(blocks), blocks.shape[2], 2 * TILE_ROWS), np.uint8)


def _flat(values: Bytes) -> Bytes:
    """[T, B, bytes]."""
    return values.reshape(*values.shape[:2], -1)


def _operands(packed: Bytes, bits: int, *, together: int = 32) -> Bytes:
    """Codes [T, 16, B, bytes], packed as those of `parts`, as operands [T, B, number, 64]: four inputs of each row side by side."""
    fours = _fours(packed)
    fours = fours.reshape(*fours.shape[:2], -1, together // 4, TILE_ROWS)
    found = np.empty((*fours.shape[:3], 8 // bits, *fours.shape[3:]), np.uint32)
    for at in range(8 // bits):
        np.right_shift(fours, np.uint32(bits * at), out=found[:, :, :, at])
    found &= np.uint32(0x01010101 * ((1 << bits) - 1))
    return _shared(found.reshape(*fours.shape[:2], -1, TILE_ROWS), bits)


def _fifth_bits(packed: Bytes) -> Bytes:
    """The same of a bit of each of 32 codes [T, 16, B, 4], the first's lowest."""
    found = (_fours(packed) >> np.arange(0, 32, 4, dtype=np.uint32)[:, None]) & np.uint32(15)
    found *= np.uint32(0x00204081)  # puts each of four bits where a byte begins
    found &= np.uint32(0x01010101)
    return _shared(found, 1)


def _fours(codes: Bytes) -> npt.NDArray[np.uint32]:
    """Bytes [T, 16, B, C], four beside one another as one number: those of the sixteen rows beside one another [T, B, C / 4, 16]."""
    return np.ascontiguousarray(codes.view(np.uint32).transpose(0, 2, 3, 1))


def _shared(fours: npt.NDArray[np.uint32], bits: int) -> Bytes:
    """Operands [T, B, number, 64] of codes as `_fours` gives them; of few bits several in one place, the first's lowest."""
    several = fours.reshape(*fours.shape[:2], -1, 8 // bits, TILE_ROWS)
    found = several[:, :, :, 0].copy()
    for at in range(1, 8 // bits):
        found |= several[:, :, :, at] << np.uint32(bits * at)
    return found.view(np.uint8)


def _behind(low: Bytes, high: Bytes) -> Bytes:
    """Of each of `high`'s operands those of `low` that belong to it, and then it."""
    return np.concatenate([low.reshape(*high.shape[:3], -1, 64), high[..., None, :]], axis=-2)
