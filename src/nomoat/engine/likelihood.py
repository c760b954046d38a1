"""Scoring texts: the log-likelihood of continuations, with the key-value cache in our own hands."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from nomoat.records import ContinuationScore

SCORE_CHUNK_TOKENS = 256  # bounds the memory of logits: tokens x vocabulary x 4 bytes


class Scorer:
    """Log-likelihoods with the cache in our hands. Not thread-safe: the engine holds its lock.

    Shapes: N continuations, L tokens of the longest, T prompt tokens, V vocabulary.
    """

    def __init__(self, folder: Path, properties: dict[str, str]) -> None:
        compiled = _core().compile_model(str(folder / "openvino_model.xml"), "CPU", properties)
        self._request = compiled.create_infer_request()

    def score(self, prompt: list[int], continuations: Sequence[list[int]]) -> list[ContinuationScore]:
        """One pass over the prompt, then all continuations as one batch on its cache, a part of their tokens at a time."""
        if not continuations:
            return []
        self._request.reset_state()
        for start in range(0, len(prompt), SCORE_CHUNK_TOKENS):
            part = prompt[start : start + SCORE_CHUNK_TOKENS]
            logits_TV = self._infer(np.array([part]), np.ones((1, start + len(part)), np.int64), start, np.zeros(1))[0]
        count = len(continuations)
        ids_NL, real_NL = _padded(continuations)
        first_V = logits_TV[-1]
        totals = (first_V[ids_NL[:, 0]] - _log_sum_exp(first_V)).astype(np.float64)
        beams = np.zeros(count, np.int64)
        inputs_NL = ids_NL[:, :-1]
        step = max(1, SCORE_CHUNK_TOKENS // count)
        for start in range(0, inputs_NL.shape[1], step):
            part_NL = inputs_NL[:, start : start + step]
            end = start + part_NL.shape[1]
            mask = np.concatenate([np.ones((count, len(prompt)), np.int64), real_NL[:, :end]], axis=1)
            logits_NLV = self._infer(part_NL, mask, len(prompt) + start, beams)
            chosen = _log_softmax_at(logits_NLV, ids_NL[:, start + 1 : end + 1])
            totals += (chosen * real_NL[:, start + 1 : end + 1]).sum(axis=1)
            beams = np.arange(count, dtype=np.int64)
        return [
            ContinuationScore(log_probability=float(total), num_tokens=len(row))
            for total, row in zip(totals, continuations, strict=True)
        ]

    def _infer(
        self, ids: npt.NDArray[Any], mask: npt.NDArray[np.int64], first_position: int, beams: npt.NDArray[Any]
    ) -> npt.NDArray[np.float32]:
        positions = np.broadcast_to(np.arange(first_position, first_position + ids.shape[1]), ids.shape)
        inputs = {
            "input_ids": ids.astype(np.int64),
            "attention_mask": mask,
            "position_ids": np.ascontiguousarray(positions, np.int64),
            "beam_idx": beams.astype(np.int32),
        }
        return np.asarray(self._request.infer(inputs, share_outputs=True)[0])


@functools.cache
def _core() -> Any:
    """OpenVINO's core, kept for as long as the process lives: see `batching.Batcher` for what unloading it in another thread does."""
    import openvino as ov

    return ov.Core()


def _padded(rows: Sequence[list[int]]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Rows side by side, filled up with zeros, and which of them are real: both [N, L]."""
    width = max(map(len, rows))
    ids, real = np.zeros((len(rows), width), np.int64), np.zeros((len(rows), width), np.int64)
    for at, row in enumerate(rows):
        ids[at, : len(row)], real[at, : len(row)] = row, 1
    return ids, real


def _log_softmax_at(logits_NLV: npt.NDArray[np.float32], ids_NL: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
    """Log probability of each id under its logits, [N, L]."""
    return np.asarray(np.take_along_axis(logits_NLV, ids_NL[..., None], axis=-1)[..., 0] - _log_sum_exp(logits_NLV))


def _log_sum_exp(logits: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    largest = logits.max(axis=-1, keepdims=True)
    return np.asarray(largest[..., 0] + np.log(np.exp(logits - largest).sum(axis=-1)))
