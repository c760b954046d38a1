"""Writing answers one after another: for models whose attention OpenVINO cannot page, which continuous batching would answer wrongly.

What this does not have: requests at the same time wait for each other, and no prompt's beginning is kept for the next.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import numpy as np

from nomoat.engine.batching import Tokens, generation_settings
from nomoat.engine.tokenizer import SpecialTokens
from nomoat.records import Request


class Serial:
    """GenAI's pipeline over a stateful model, and the one thread that touches it: see `batching.Batcher` for why it is one."""

    def __init__(self, folder: Path, properties: dict[str, str]) -> None:
        self._incoming: queue.SimpleQueue[tuple[list[int], Any, Tokens] | None] = queue.SimpleQueue()
        self._closing = False
        made: Future[None] = Future()
        self._thread = threading.Thread(target=self._work, args=(folder, properties, made), name="nomoat-engine", daemon=True)
        self._thread.start()
        made.result()

    def submit(self, ids: list[int], request: Request, max_new_tokens: int, special: SpecialTokens) -> Tokens:
        tokens = Tokens()
        self._incoming.put((ids, generation_settings(request, max_new_tokens, special), tokens))
        return tokens

    def close(self) -> None:
        self._closing = True
        self._incoming.put(None)
        self._thread.join()

    def _work(self, folder: Path, properties: dict[str, str], made: Future[None]) -> None:
        import openvino_genai

        try:
            pipeline = openvino_genai.LLMPipeline(str(folder), "CPU", ATTENTION_BACKEND="SDPA", **properties)
        except BaseException as exc:  # noqa: BLE001 - whatever it is, it is raised where it was waited for
            made.set_exception(exc)
            return
        made.set_result(None)
        while (item := self._incoming.get()) is not None:
            ids, settings, tokens = item
            try:
                self._answer(pipeline, ids, settings, tokens)
            except RuntimeError as exc:
                tokens.ready.put(exc)

    def _answer(self, pipeline: Any, ids: list[int], settings: Any, tokens: Tokens) -> None:
        import openvino as ov

        if not (self._closing or tokens.cancelled):
            pipeline.generate(ov.Tensor(np.array([ids], np.int64)), settings, _handing_out(tokens, lambda: self._closing))
        tokens.ready.put(RuntimeError("the model was closed while it was answering") if self._closing else None)


def _handing_out(tokens: Tokens, is_closing: Any) -> Any:
    """What GenAI calls with each new token."""
    import openvino_genai

    class Streamer(openvino_genai.StreamerBase):  # type: ignore[misc]
        def write(self, new: int | Sequence[int]) -> Any:
            for token in [new] if isinstance(new, int) else new:
                tokens.ready.put(int(token))
            if tokens.cancelled or is_closing():
                return openvino_genai.StreamingStatus.CANCEL
            return openvino_genai.StreamingStatus.RUNNING

        def end(self) -> None:
            """Nothing is held back."""

    return Streamer()
