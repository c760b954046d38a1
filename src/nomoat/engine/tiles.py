"""The own codes of a GGUF file (Q4_0, Q4_1, Q4_K, Q5_0, Q6_K, Q8_0) in the order in which `kernels` multiplies by them.

Sixteen rows are a tile, which is read from its first byte to its last. Codes lie four inputs of each row after one another in 64
bytes, an operand of the instructions that multiply bytes; two such operands share 64 bytes, the first in the low halves. Nothing is
rounded: scales and offsets are the file's.

Shapes: R rows, C columns (inputs), T tiles, B blocks of a row, G groups of a block, S bytes of a tile, M some rows.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

TILE_ROWS = 16
# weights of a block, its bytes in the file
BLOCKS = {"Q4_0": (32, 18), "Q4_1": (32, 20), "Q4_K": (256, 144), "Q6_K": (256, 210), "Q5_0": (32, 22), "Q8_0": (32, 34)}
WHOLE_BYTES = "Q8_0"
LANES = ("<f2", (TILE_ROWS,))  # one number of each row
LAYOUTS = {  # of a block's weights in sixteen rows; `kernels` knows these places
    "Q4_0": np.dtype([("scale", *LANES), ("codes", "u1", (4, TILE_ROWS, 4))]),
    "Q4_1": np.dtype([("scale", *LANES), ("offset", *LANES), ("codes", "u1", (4, TILE_ROWS, 4))]),
    # scales and minima by turns, of 32 inputs each
    "Q4_K": np.dtype([("scale", *LANES), ("offset", *LANES), ("scales", "u1", (16, TILE_ROWS)), ("codes", "u1", (32, TILE_ROWS, 4))]),
    # of 16 inputs each: a scale; twice their low halves and once their two high bits
    "Q6_K": np.dtype(
        [("scale", *LANES), ("unused", *LANES), ("scales", "i1", (16, TILE_ROWS)), ("codes", "u1", (16, 3, TILE_ROWS, 4))]
    ),
    # the fifth bit of an operand's codes is a bit of each byte, the first operand's the lowest
    "Q5_0": np.dtype([("scale", *LANES), ("high", "u1", (TILE_ROWS, 4)), ("codes", "u1", (4, TILE_ROWS, 4))]),
    "Q8_0": np.dtype([("scale", *LANES), ("codes", "u1", (8, TILE_ROWS, 4))]),  # codes and 128
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


def tiled(raw: Bytes, type_name: str) -> Bytes:
    """Tiles [T, S] of rows as the file has them [R, row bytes], zeros after the last.

    Raises ValueError for scales that are no numbers.
    """
    if missing := padded(len(raw)) - len(raw):
        raw = np.concatenate([raw, np.zeros((missing, raw.shape[1]), np.uint8)])
    blocks = raw.reshape(len(raw) // TILE_ROWS, TILE_ROWS, -1, BLOCKS[type_name][1])
    makers = {"Q4_0": _q4_0, "Q4_1": _q4_1, "Q4_K": _q4_k, "Q6_K": _q6_k, "Q5_0": _q5_0, "Q8_0": _q8_0}
    made = makers[type_name](blocks)
    return np.ascontiguousarray(np.concatenate(made, axis=-1)).reshape(len(blocks), -1)


def rows_of(tiles_TS: Bytes, type_name: str, rows_M: npt.NDArray[np.integer[Any]]) -> npt.NDArray[np.float32]:
    """The weights [M, C] of some rows."""
    blocks_TB = tiles_TS.view(LAYOUTS[type_name])
    tile, lane = np.asarray(rows_M) // TILE_ROWS, np.asarray(rows_M) % TILE_ROWS

    def of(name: str) -> npt.NDArray[Any]:
        """A field's part of these rows, whose axis of 16 is the one before the last of codes, the last of numbers: [M, B, ...]."""
        found: npt.NDArray[Any] = np.moveaxis(blocks_TB[name], -2 if name in ("codes", "high") else -1, 0)[lane, tile]
        return found

    low = of("codes")
    if type_name == "Q8_0":
        scales = of("scale").astype(np.float32)[..., None]
        return _scaled(low, scales, -128 * scales)
    if type_name == "Q6_K":
        low, high = low[..., :2, :], (low[..., 2:, :] >> np.array([0, 2, 4, 6], np.uint8)[:, None]) & 3
        codes = np.stack([low & 15, low >> 4], axis=-2).reshape(high.shape) | (high << 4)
        scales = of("scale").astype(np.float32)[..., None] * of("scales")
        return _scaled(codes, scales, -32 * scales)
    codes, scales = np.stack([low & 15, low >> 4], axis=-2), of("scale").astype(np.float32)[..., None]
    if type_name == "Q5_0":
        fifth = (of("high")[..., None, :] >> np.arange(8, dtype=np.uint8)[:, None]) & 1
        return _scaled(codes.reshape(fifth.shape) | (fifth << 4), scales, -16 * scales)
    if type_name == "Q4_0":
        return _scaled(codes, scales, -8 * scales)
    offsets = of("offset").astype(np.float32)[..., None]
    if type_name == "Q4_K":
        small = of("scales").reshape(*scales.shape[:2], 8, 2)
        scales, offsets = scales * small[..., 0], -offsets * small[..., 1]
    return _scaled(codes, scales, offsets)


def _scaled(codes: Bytes, scales_MBG: npt.NDArray[np.float32], offsets_MBG: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    groups = codes.reshape(*scales_MBG.shape, -1)
    return np.asarray(groups * scales_MBG[..., None] + offsets_MBG[..., None], np.float32).reshape(len(codes), -1)


def _q4_0(blocks: Bytes) -> list[Bytes]:
    return [_beside(_numbers(blocks[..., 0:2])), _nibbles(halves(blocks[..., 2:]))]


def _q4_1(blocks: Bytes) -> list[Bytes]:
    return [_beside(_numbers(blocks[..., 0:2])), _beside(_numbers(blocks[..., 2:4])), _nibbles(halves(blocks[..., 4:]))]


def _q4_k(blocks: Bytes) -> list[Bytes]:
    """Two float16, scales and minima, 256 codes."""
    both_TB8S = np.stack(scales_and_minima(blocks), axis=-1).transpose(0, 2, 3, 4, 1)
    codes = halves(blocks[..., 16:].reshape(*blocks.shape[:3], 4, 32)).reshape(*blocks.shape[:3], 256)
    numbers = [_beside(_numbers(blocks[..., 0:2])), _beside(_numbers(blocks[..., 2:4]))]
    return [*numbers, both_TB8S.reshape(*both_TB8S.shape[:2], -1), _nibbles(codes)]


def _q6_k(blocks: Bytes) -> list[Bytes]:
    """128 bytes of low halves, 64 of two high bits, 16 signed scales, a float16. Source: ggml's dequantize_row_q6_K."""
    lead = blocks.shape[:3]
    low = blocks[..., :128].reshape(*lead, 2, 2, 32)  # halves of 128 inputs; two of their four parts, low bits first
    high = blocks[..., 128:192].reshape(*lead, 2, 1, 32)
    nibbles = np.concatenate([low & 15, low >> 4], axis=-2)
    whole = nibbles | ((high >> np.array([0, 2, 4, 6], np.uint8)[:, None]) & 3) << 4
    fours = _fours(whole.reshape(*lead, 256))
    fours = fours.reshape(*fours.shape[:2], 16, 4, 64)
    low_halves = (fours[..., 0::2, :] & 15) | (fours[..., 1::2, :] << 4)
    shifted = (fours >> 4) << np.array([0, 2, 4, 6], np.uint8)[:, None]
    codes = np.concatenate([low_halves, np.bitwise_or.reduce(shifted, axis=-2, keepdims=True)], axis=-2)
    parts = [blocks[..., 192:208].transpose(0, 2, 3, 1), codes]
    number = _beside(_numbers(blocks[..., 208:210]))
    return [number, np.zeros_like(number), *(part.reshape(*part.shape[:2], -1) for part in parts)]


def _q5_0(blocks: Bytes) -> list[Bytes]:
    """A float16, 32 fifth bits, 16 bytes of low halves."""
    fifth = np.unpackbits(blocks[..., 2:6], axis=-1, bitorder="little")
    fours = _fours(fifth)
    high = np.bitwise_or.reduce(fours << np.arange(8, dtype=np.uint8)[:, None], axis=-2)
    return [_beside(_numbers(blocks[..., 0:2])), high, _nibbles(halves(blocks[..., 6:]))]


def _q8_0(blocks: Bytes) -> list[Bytes]:
    codes = _fours(blocks[..., 2:] ^ np.uint8(128))
    return [_beside(_numbers(blocks[..., 0:2])), codes.reshape(*codes.shape[:2], -1)]


def _numbers(two_bytes: Bytes) -> npt.NDArray[np.float16]:
    """Float16 [T, 16, B]."""
    numbers = np.ascontiguousarray(two_bytes).view(np.float16)[..., 0]
    if not np.isfinite(numbers).all():
        raise ValueError("scales that are no numbers")
    return numbers


def _beside(numbers: npt.NDArray[Any]) -> Bytes:
    """A number of each row, beside one another: [T, B, bytes]."""
    return np.asarray(np.ascontiguousarray(numbers.transpose(0, 2, 1)).view(np.uint8))


def halves(group_bytes: Bytes) -> Bytes:
    """Codes of a group as files have them: the low halves of its bytes, then the high ones."""
    return np.concatenate([group_bytes & 15, group_bytes >> 4], axis=-1)


def scales_and_minima(blocks: Bytes) -> tuple[Bytes, Bytes]:
    """Of blocks of Q4_K [..., 144] the 8 scales and the 8 minima, of 6 bits in 12 bytes. Source: ggml's get_scale_min_k4."""
    low, high, mixed = blocks[..., 4:8], blocks[..., 8:12], blocks[..., 12:16]
    scales = np.concatenate([low & 63, (mixed & 15) | (low >> 6 << 4)], axis=-1)
    minima = np.concatenate([high & 63, (mixed >> 4) | (high >> 6 << 4)], axis=-1)
    return scales, minima


def _fours(codes: Bytes) -> Bytes:
    """Codes [T, 16, B, C] as [T, B, C / 4, 64]: four inputs of each row after one another."""
    rows = codes.reshape(*codes.shape[:3], -1, 4).transpose(0, 2, 3, 1, 4)
    return np.ascontiguousarray(rows).reshape(*rows.shape[:3], 64)


def _nibbles(codes: Bytes) -> Bytes:
    """Two of such 64 bytes in one place, the first in the low halves: [T, B, bytes]."""
    fours = _fours(codes)
    both = np.bitwise_or(fours[..., 0::2, :], fours[..., 1::2, :] << 4)
    return np.asarray(both.reshape(*both.shape[:2], -1), np.uint8)
