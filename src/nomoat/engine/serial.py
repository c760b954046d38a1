"""An imported model run over one text at a time: for models whose attention OpenVINO cannot page, and CPUs without AVX2 (ARM's).

What this does not have: texts at the same time wait for each other, no prompt's beginning is kept for the next, no guesses are made.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from nomoat.engine import shutdown
from nomoat.engine.compiled import core, read_graph
from nomoat.engine.paged import Row, ask_for_what_is_wanted


class SerialModel:
    """Runs passes as `paged.PagedModel` does, with one row in each, which goes on where the last pass ended or begins anew."""

    takes_many = False
    alike_from = 1  # token: it reads a prompt in the same passes every time
    largest_pass = 256  # tokens: all their scores are held at once, heads x tokens x tokens seen x 4 bytes
    block_bytes = mapped_bytes = 0

    def __init__(self, folder: Path, properties: dict[str, str]) -> None:
        model = read_graph(folder)
        ask_for_what_is_wanted(model, folder, token_axis=1)
        compiled = core().compile_model(model, "CPU", properties)
        self._request = compiled.create_infer_request()
        self._passes = shutdown.passes()
        self.vocabulary = int(compiled.output(0).partial_shape[-1].get_length())

    def allocate(self, num_blocks: int) -> None:
        """Nothing: the model holds its cache itself."""

    def run(self, rows: Sequence[Row]) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        """Logits [W, V] of the wanted tokens and last hidden states [T, D], both overwritten by the next pass."""
        import openvino as ov

        (row,) = rows
        if row.past == 0:
            self._request.reset_state()
        end = row.past + len(row.ids)
        inputs = {
            "input_ids": np.array([row.ids], np.int64),
            "attention_mask": np.ones((1, end), np.int64),
            "position_ids": np.arange(row.past, end, dtype=np.int64)[None],
            "beam_idx": np.zeros(1, np.int32),
            "wanted": np.arange(len(row.ids) - row.wanted, len(row.ids), dtype=np.int64),
        }
        with self._passes:
            shutdown.require_time()
            for name, value in inputs.items():
                self._request.set_tensor(name, ov.Tensor(value))
            self._request.start_async()
            self._request.wait()
        logits, hidden = (self._request.get_output_tensor(at).data for at in (0, 1))
        return logits.reshape(-1, self.vocabulary), hidden.reshape(-1, hidden.shape[-1])
