"""An imported model run over one text at a time: for models whose attention OpenVINO cannot page, and CPUs without AVX2 (ARM's).

What this does not have: texts at the same time wait for each other, no prompt's beginning is kept for the next, no guesses are made.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from nomoat.engine.compiled import core, read_graph
from nomoat.engine.paged import Inference, Row, ask_for_what_is_wanted


class SerialModel:
    """Runs passes as `paged.PagedModel` does, with one row in each, which goes on where the last pass ended or begins anew."""

    takes_many = False
    alike_from = 1  # token: it reads a prompt in the same passes every time
    largest_pass = 256  # tokens: all their scores are held at once, heads x tokens x tokens seen x 4 bytes
    block_bytes = mapped_bytes = 0

    def __init__(self, folder: Path, properties: dict[str, str]) -> None:
        model = read_graph(folder)
        ask_for_what_is_wanted(model, folder, token_axis=1)
        self._inference = Inference(core().compile_model(model, "CPU", properties))

    def allocate(self, num_blocks: int) -> None:
        """Nothing: the model holds its cache itself."""

    def run(self, rows: Sequence[Row]) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        """Logits [W, V] of the wanted tokens and last hidden states [T, D], both overwritten by the next pass."""
        (row,) = rows
        if row.past == 0:
            self._inference.request.reset_state()
        end = row.past + len(row.ids)
        inputs: dict[str, npt.NDArray[Any]] = {
            "input_ids": np.array([row.ids], np.int64),
            "attention_mask": np.ones((1, end), np.int64),
            "position_ids": np.arange(row.past, end, dtype=np.int64)[None],
            "beam_idx": np.zeros(1, np.int32),
            "wanted": np.arange(len(row.ids) - row.wanted, len(row.ids), dtype=np.int64),
        }
        return self._inference.run(inputs)
