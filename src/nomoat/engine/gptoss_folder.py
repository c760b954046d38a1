"""A Hugging Face folder of GPT-OSS, whose experts lie otherwise than those of other families.

The published folders have MXFP4 codes (`…_blocks`, `…_scales`), which become those of a GGUF file bit for bit; `transformers` writes
plain numbers, a column an output. Of gate and up both have one tensor, with their outputs by turns.

Shapes: E experts, R rows (outputs), C columns (inputs), N rows that are asked for, of all experts one after another.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from nomoat.engine.gguf import FloatArray, Rows, dequantise, require_weights, row_numbers
from nomoat.engine.safetensors import TYPES, OfExperts, SafetensorsFolder, Stored, Translated, read_tensors, weight_files
from nomoat.errors import BadFileError

BLOCK, HALF = 32, 16  # codes that share a scale, and the bytes they lie in
OF_EXPERTS = re.compile(r"(?:model\.)?layers\.(\d+)\.mlp\.experts\.(gate_up|down)_proj(_blocks|_scales|_bias)?")
PARTS = {"gate_up": (("gate", slice(0, None, 2)), ("up", slice(1, None, 2))), "down": (("down", slice(None)),)}  # rows of each


@dataclass(frozen=True, slots=True)
class _Codes:
    """`blocks` [E, R, C / 32, 16], two neighbours a byte, the first in the low half; `exponents` [E, R, C / 32] of their scales."""

    blocks: npt.NDArray[np.uint8]
    exponents: npt.NDArray[np.uint8]
    type_name: str = "MXFP4"

    @property
    def shape(self) -> tuple[int, ...]:
        return (*self.exponents.shape[:2], self.exponents.shape[2] * BLOCK)

    @property
    def row_bytes(self) -> int:
        return int(self.exponents.shape[2] * (1 + HALF))

    def raw_rows(self, rows: Rows) -> npt.NDArray[np.uint8]:
        """As a GGUF file has them: of each 32 an exponent, and bytes with the first 16 in the low halves, the others in the high."""
        experts, of_one = self.shape[:2]
        rows_N = row_numbers(rows, experts * of_one)
        places = np.divmod(rows_N, of_one)
        found, made = self.blocks[places], np.empty((len(rows_N), self.exponents.shape[2], 1 + HALF), np.uint8)
        codes = np.stack([found & 15, found >> 4], axis=-1).reshape(*found.shape[:-1], 2, HALF)
        made[..., 0], made[..., 1:] = self.exponents[places], codes[..., 0, :] | (codes[..., 1, :] << 4)
        return made.reshape(len(rows_N), -1)

    def rows(self, rows: Rows, *, what: str) -> FloatArray:
        """[N, C]."""
        values_NC = dequantise(self.raw_rows(rows), self.type_name)
        require_weights(values_NC, what=what)
        return values_NC


class GptOssFolder(SafetensorsFolder):
    """See the module, and `SafetensorsFolder`."""

    codes_read = "mxfp4"

    def _read(self) -> None:
        super()._read()
        stored = {
            name: tensor
            for file in weight_files(self.path)
            for name, tensor in read_tensors(file, lambda name: ".experts." in name, types=TYPES | {"U8": "u1"})
        }
        for name, tensor in stored.items():
            if not name.endswith("_scales"):
                self._add_experts(name, tensor, stored.get(f"{name.removesuffix('_blocks')}_scales"))

    def _is_read(self, name: str) -> bool:
        return ".experts." not in name and super()._is_read(name)

    def _gguf_name(self, name: str) -> str | None:
        return super()._gguf_name(f"{name}.weight" if name.endswith(".sinks") else name)

    def _add_experts(self, name: str, stored: Stored, scales: Stored | None) -> None:
        found = OF_EXPERTS.fullmatch(name)
        if found is None:
            raise self._strange(name)
        layer, part, kind = found.groups()
        values = stored.values
        for own, rows in PARTS[part]:
            target = f"blk.{layer}.ffn_{own}_exps"
            if kind == "_bias" and values.ndim == 2:
                self._tensors[f"{target}.bias"] = Translated(Stored(values[:, rows], stored.type_name))
            elif kind == "_blocks" and scales is not None and values.shape == (*scales.values.shape, HALF) and values.ndim == 4:
                self._tensors[f"{target}.weight"] = _Codes(values[:, rows], scales.values[:, rows])
            elif kind is None and values.ndim == 3:
                self._tensors[f"{target}.weight"] = OfExperts([Stored(of_one[:, rows].T, stored.type_name) for of_one in values])
            else:
                lacks = ", without scales that go with it" if kind == "_blocks" else ""
                raise BadFileError(
                    f"`{self.path}` holds `{name}` of the strange shape {values.shape}{lacks}", hint="download it again"
                )

    def raw_rows(self, name: str, rows: Rows = None) -> npt.NDArray[np.uint8]:
        """Of experts' codes alone."""
        part = self._tensors.get(name)
        return part.raw_rows(rows) if isinstance(part, _Codes) else super().raw_rows(name, rows)
