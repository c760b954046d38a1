"""Writing answers: GenAI's continuous batching, stepped by one thread. Requests made at the same time share each step."""

from __future__ import annotations

import itertools
import queue
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import numpy as np

from nomoat.engine.tokenizer import SpecialTokens
from nomoat.records import Request

BATCH_TOKENS = 2048  # prompt tokens a step may read, over all requests


class Tokens:
    """The tokens of one answer as they are made. `cancel` stops the work; calling it after the end is fine."""

    def __init__(self) -> None:
        self.ready: queue.SimpleQueue[int | BaseException | None] = queue.SimpleQueue()
        self.cancelled = False

    def __iter__(self) -> Iterator[int]:
        while (item := self.ready.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            yield item

    def cancel(self) -> None:
        self.cancelled = True


def generation_settings(request: Request, max_new_tokens: int, special: SpecialTokens) -> Any:
    """A request in GenAI's words."""
    import openvino_genai

    settings = openvino_genai.GenerationConfig()
    settings.max_new_tokens = max_new_tokens
    settings.eos_token_id = special.eos_id
    settings.stop_token_ids = set(special.stop_ids)
    settings.apply_chat_template = False
    settings.do_sample = request.temperature > 0
    if settings.do_sample:
        settings.temperature, settings.top_p = request.temperature, request.top_p
        if request.top_k:
            settings.top_k = request.top_k
        settings.rng_seed = (time.time_ns() if request.seed is None else request.seed) % 2**32  # a seed may be any whole number
    return settings


class Batcher:
    """GenAI's continuous batching, and the one thread that touches it, from its making to its end.

    OpenVINO's CPU plugin gives the thread that loads it a stack for signal handlers and unmaps it in the thread that unloads it. If
    those were two threads, the next Ctrl-C of the first would be a segmentation fault.
    """

    def __init__(self, folder: Path, properties: dict[str, str]) -> None:
        self._incoming: queue.SimpleQueue[tuple[list[int], Any, Tokens] | None] = queue.SimpleQueue()
        made: Future[None] = Future()
        self._thread = threading.Thread(target=self._work, args=(folder, properties, made), name="nomoat-engine", daemon=True)
        self._thread.start()
        made.result()

    def submit(self, ids: list[int], request: Request, max_new_tokens: int, special: SpecialTokens) -> Tokens:
        tokens = Tokens()
        self._incoming.put((ids, generation_settings(request, max_new_tokens, special), tokens))
        return tokens

    def close(self) -> None:
        self._incoming.put(None)
        self._thread.join()

    def _work(self, folder: Path, properties: dict[str, str], made: Future[None]) -> None:
        try:
            self._make(folder, properties)
        except BaseException as exc:  # noqa: BLE001 - whatever it is, it is raised where it was waited for
            made.set_exception(exc)
            return
        made.set_result(None)
        self._answer()  # in a method of its own: GenAI's handles point into the pipeline, and have to be gone before it goes
        while self._pipeline.has_non_finished_requests():  # a cancelled request gives its memory back in the next step
            self._pipeline.step()
        del self._pipeline

    def _make(self, folder: Path, properties: dict[str, str]) -> None:
        import openvino_genai

        scheduler = openvino_genai.SchedulerConfig()
        scheduler.max_num_batched_tokens = BATCH_TOKENS
        scheduler.enable_prefix_caching = True
        self._pipeline = openvino_genai.ContinuousBatchingPipeline(str(folder), scheduler, "CPU", properties)

    def _answer(self) -> None:
        numbers = itertools.count()
        running: dict[int, tuple[Any, Tokens]] = {}
        while True:
            # with nothing to do, wait for a request; with work under way, take what has come and go on
            while not self._pipeline.has_non_finished_requests() or not self._incoming.empty():
                item = self._incoming.get()
                if item is None:
                    for handle, tokens in running.values():
                        handle.cancel()
                        tokens.ready.put(RuntimeError("the model was closed while it was answering"))
                    return
                self._add(next(numbers), item, running)
            try:
                self._pipeline.step()
            except RuntimeError as exc:
                for _, tokens in running.values():
                    tokens.ready.put(exc)
                running.clear()
                continue
            for number, (handle, tokens) in list(running.items()):
                if self._hand_out(handle, tokens):
                    del running[number]

    def _add(self, number: int, item: tuple[list[int], Any, Tokens], running: dict[int, tuple[Any, Tokens]]) -> None:
        import openvino as ov

        ids, settings, tokens = item
        try:
            handle = self._pipeline.add_request(number, ov.Tensor(np.array([ids], np.int64)), settings)
        except RuntimeError as exc:  # settings GenAI refuses concern this request only
            tokens.ready.put(exc)
            return
        running[number] = (handle, tokens)

    @staticmethod
    def _hand_out(handle: Any, tokens: Tokens) -> bool:
        """Pass on what was made in this step; True if this answer has ended."""
        import openvino_genai

        while handle.can_read():
            for output in handle.read().values():
                for token in output.generated_ids:
                    tokens.ready.put(int(token))
        if tokens.cancelled:
            handle.cancel()
            tokens.ready.put(None)
            return True
        if handle.get_status() != openvino_genai.GenerationStatus.RUNNING:
            tokens.ready.put(None)
            return True
        return False
