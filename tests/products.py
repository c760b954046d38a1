"""Products with codes in tiles and with adapters beside them, for tests. No PyTorch: a process of its own imports it at once."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from nomoat.engine import tiles
from nomoat.engine.adapters import beside
from nomoat.engine.program import Program, max_parts
from nomoat.engine.step_tables import Job

TYPES = list(tiles.BLOCKS)
# Each way to read codes once: these four differ in their levels alone from IQ4_XS, and from IQ2_S.
WAYS_TO_READ = [name for name in TYPES if name not in ("IQ3_S", "IQ3_XXS", "IQ2_XXS", "IQ2_XS")]
PLACES = {"Q2_K": 80, "Q3_K": 108, "Q6_K": 208}  # of a block's float16, if not its beginning


def raw_rows(type_name: str, rows: int, columns: int, *, seed: int = 0) -> npt.NDArray[np.uint8]:
    """Any codes and small scales, scales of plausible size before them, as a file has them."""
    chance = np.random.default_rng(seed)
    weights, size = tiles.BLOCKS[type_name]
    blocks = chance.integers(0, 256, (rows, columns // weights, size), dtype=np.uint8)
    if type_name == "MXFP4":
        blocks[..., 0] = chance.integers(119, 123, blocks.shape[:2])
        return blocks.reshape(rows, -1)
    start, numbers = PLACES.get(type_name, 0), 2 if tiles.LAYOUTS[type_name].names[1] == "offset" else 1  # type: ignore[index]
    scales = chance.uniform(0.001, 0.01, (rows, columns // weights, numbers)).astype(np.float16)
    blocks[..., start : start + 2 * numbers] = scales.view(np.uint8)
    return blocks.reshape(rows, -1)


def product(x_MC: npt.NDArray[np.float32], raw: npt.NDArray[np.uint8], type_name: str, *, chunk: int = 0) -> npt.NDArray[np.float32]:
    """`chunk`: see `Program`."""
    made = tiles.tiled(raw, type_name)
    y_1MR = np.full((1, len(x_MC), len(raw)), np.nan, np.float32)
    Program([("out", type_name, len(raw), 0, -1)], made.ctypes.data, x_MC.shape[1], chunk=chunk).run(x_MC[None], None, None, [y_1MR])
    return y_1MR[0]


class Given:
    """Two adapters of one layer, as `LoraDelta` has them: the second has another rank."""

    def __init__(self, rank: int) -> None:
        chance = np.random.default_rng(rank)
        self.a_RI, self.b_OR = (chance.normal(size=size).astype(np.float32) for size in ((rank, 768), (80, rank)))

    def scaled(self, layer: str) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]] | None:
        return (self.a_RI, self.b_OR) if layer == "x" else None

    def require_fitting(self, layer: str, sizes: tuple[int, int]) -> None:
        assert sizes == (80, 768)


def product_with_adapters(x_MC: npt.NDArray[np.float32], owners: list[int]) -> npt.NDArray[np.float32]:
    """Weights are zero: what comes is the adapters'."""
    weights = tiles.tiled(raw_rows("Q8_0", 80, 768) * np.uint8(0), "Q8_0")
    program = Program([("out", "Q8_0", 80, 0, -1)], weights.ctypes.data, 768)
    added = beside([("x", 80)], 768, [Given(5), Given(20)])  # type: ignore[list-item]
    assert added is not None
    program.add_beside(0, added)
    owners_M, y_1MR = np.array(owners, np.int64), np.zeros((1, len(x_MC), 80), np.float32)
    program.prepare(max_parts(len(x_MC)))
    program._job[Job.ADAPTERS] = owners_M.ctypes.data
    program.run(x_MC[None], None, None, [y_1MR])
    return y_1MR[0]
