"""The engine: runs an imported folder with OpenVINO on the CPU.

Answers come from GenAI's continuous batching, stepped by one thread of this engine: requests made at the same time share each step.
Likelihoods come from the same model file, compiled once more when they are first asked for, with the cache in our own hands.
"""

from __future__ import annotations

import functools
import itertools
import json
import queue
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from nomoat import config
from nomoat.engine import layout, tokenizer
from nomoat.engine.arch import Dimensions
from nomoat.errors import BadFileError, ContextExceededError
from nomoat.records import Chunk, ContinuationScore, FinishReason, Request, Usage

SCORE_CHUNK_TOKENS = 256  # bounds the memory of logits: tokens x vocabulary x 4 bytes
BATCH_TOKENS = 2048  # prompt tokens a step may read, over all requests


class OpenVINOEngine:
    """See the module. Nothing is compiled before it is needed; the digest is that of the imported folder."""

    is_local = True

    def __init__(self, folder: Path, *, context_tokens: int | None = None) -> None:
        try:
            facts = json.loads((folder / "config.json").read_text(encoding="utf-8"))["nomoat"]
        except (OSError, KeyError, json.JSONDecodeError) as exc:
            raise BadFileError(f"`{folder}` is not a whole imported model: {exc}", hint="remove that folder and try again") from exc
        self.digest: str = facts["digest"]
        sizes = Dimensions(**facts["sizes"])
        self.context_tokens: int | None = min(sizes.context_tokens, context_tokens or sizes.context_tokens)
        self.tokenizer = tokenizer.load(folder)
        self._folder = folder
        self.layout = layout.choose(sizes, num_threads=config.threads().value)
        self._lock = threading.Lock()
        self._batcher: _Batcher | None = None
        self._scorer: _Scorer | None = None

    def generate(self, request: Request) -> Iterator[Chunk]:
        ids = self._checked_ids(request)
        batcher = self._started_batcher()
        started = time.perf_counter()  # compiling the model is loading, not reading the prompt
        assert self.context_tokens is not None
        room = self.context_tokens - len(ids)
        tokens = batcher.submit(ids, request, min(request.max_new_tokens, room), self.tokenizer.special)
        return self._stream(request, len(ids), tokens, started)

    def _stream(self, request: Request, prompt_tokens: int, tokens: _Tokens, started: float) -> Iterator[Chunk]:
        text = _StopWatch(request.stop)
        stream = self.tokenizer.decode_stream()
        first_at: float | None = None
        count = 0
        reason: FinishReason = "length"
        try:
            for token in tokens:
                first_at = first_at or time.perf_counter()
                count += 1
                if token in self.tokenizer.special.stop_ids:
                    reason = "stop"
                    break
                if piece := text.push(stream.push(token)):
                    yield Chunk(text=piece)
                if text.stopped:
                    reason = "stop"
                    break
        finally:
            tokens.cancel()
        rest = "" if text.stopped else text.push(stream.finish()) + text.finish()
        ended = time.perf_counter()
        usage = Usage(
            prompt_tokens=prompt_tokens,
            completion_tokens=count,
            prefill_seconds=(first_at or ended) - started,
            decode_seconds=ended - (first_at or ended),
        )
        yield Chunk(text=rest, finish_reason=reason, usage=usage)

    def score(self, request: Request, continuations: Sequence[str]) -> list[ContinuationScore]:
        ids = self.tokenizer.prompt_ids(request)
        rows = [self.tokenizer.encode(text) for text in continuations]
        for text, row in zip(continuations, rows, strict=True):
            if not row:
                raise ValueError(f"the continuation {text!r} has no tokens")
        self._require_room(len(ids), max((len(row) for row in rows), default=0))
        if not ids:
            raise ValueError("a likelihood needs a prompt of at least one token")
        with self._lock:
            if self._scorer is None:
                self._scorer = _Scorer(self._folder, self.layout.properties)
            return self._scorer.score(ids, rows)

    def count_tokens(self, request: Request) -> int:
        return len(self.tokenizer.prompt_ids(request))

    def close(self) -> None:
        with self._lock:
            if self._batcher is not None:
                self._batcher.close()
            self._batcher = self._scorer = None

    def _checked_ids(self, request: Request) -> list[int]:
        ids = self.tokenizer.prompt_ids(request)
        self._require_room(len(ids), 1, request.max_new_tokens)
        return ids

    def _require_room(self, prompt_tokens: int, needed: int, wanted: int | None = None) -> None:
        if self.context_tokens is not None and prompt_tokens + needed > self.context_tokens:
            raise ContextExceededError(
                prompt_tokens=prompt_tokens, max_new_tokens=wanted or needed, context_tokens=self.context_tokens
            )

    def _started_batcher(self) -> _Batcher:
        with self._lock:
            if self._batcher is None:
                self._batcher = _Batcher(self._folder, self.layout.properties)
            return self._batcher


class _StopWatch:
    """Looks for stop strings in a text that grows, and holds back what may be the beginning of one."""

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = [stop for stop in stops if stop]
        self._held = ""
        self.stopped = False

    def push(self, piece: str) -> str:
        self._held += piece
        found = [at for stop in self._stops if (at := self._held.find(stop)) >= 0]
        if found:
            self.stopped = True
            return self._held[: min(found)]
        keep = max((self._overlap(stop) for stop in self._stops), default=0)
        out, self._held = self._held[: len(self._held) - keep], self._held[len(self._held) - keep :]
        return out

    def finish(self) -> str:
        return self._held

    def _overlap(self, stop: str) -> int:
        """How many of the last characters could be the beginning of `stop`."""
        longest = min(len(stop) - 1, len(self._held))
        return next((size for size in range(longest, 0, -1) if self._held.endswith(stop[:size])), 0)


class _Tokens:
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


class _Batcher:
    """GenAI's continuous batching, and the one thread that touches it, from its making to its end.

    OpenVINO's CPU plugin gives the thread that loads it a stack for signal handlers and unmaps it in the thread that unloads it. If
    those were two threads, the next Ctrl-C of the first would be a segmentation fault.
    """

    def __init__(self, folder: Path, properties: dict[str, str]) -> None:
        self._incoming: queue.SimpleQueue[tuple[list[int], Any, _Tokens] | None] = queue.SimpleQueue()
        made: Future[None] = Future()
        self._thread = threading.Thread(target=self._work, args=(folder, properties, made), name="nomoat-engine", daemon=True)
        self._thread.start()
        made.result()

    def submit(self, ids: list[int], request: Request, max_new_tokens: int, special: tokenizer.SpecialTokens) -> _Tokens:
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
        tokens = _Tokens()
        self._incoming.put((ids, settings, tokens))
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
        running: dict[int, tuple[Any, _Tokens]] = {}
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

    def _add(self, number: int, item: tuple[list[int], Any, _Tokens], running: dict[int, tuple[Any, _Tokens]]) -> None:
        import openvino as ov

        ids, settings, tokens = item
        try:
            handle = self._pipeline.add_request(number, ov.Tensor(np.array([ids], np.int64)), settings)
        except RuntimeError as exc:  # settings GenAI refuses concern this request only
            tokens.ready.put(exc)
            return
        running[number] = (handle, tokens)

    @staticmethod
    def _hand_out(handle: Any, tokens: _Tokens) -> bool:
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


class _Scorer:
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
    """OpenVINO's core, kept for as long as the process lives: see `_Batcher` for what unloading it in another thread does."""
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
