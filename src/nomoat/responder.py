"""A model reference -> something that answers. The one place that knows every form a reference can take.

smollm2-135m                      a card of the catalogue, pulled before
path/to/file.gguf                 weights on disk
hf:owner/repo/file.gguf           a file of the Hugging Face hub, pulled before
BASE+ADAPTER                      a base with a tuned adapter, by name or by folder
openai:gpt-4o-mini                a cloud API (also google:, anthropic:)
http://host:port/v1#model         any OpenAI-compatible server
stored:suite/name                 answers given before and kept
fake:                             the deterministic engine of tests and docs
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from types import TracebackType

from nomoat.engine import Engine
from nomoat.records import Chunk, Completion, ContinuationScore, Request

DEFAULT_WORKERS = 16


class Responder:
    """An engine under the name the user gave it. Use as a context manager, or call `close`."""

    def __init__(self, ref: str, engine: Engine, *, licence_id: str | None = None) -> None:
        self.ref = ref
        self.engine = engine
        self.licence_id = licence_id

    @property
    def digest(self) -> str:
        """What stored answers are kept under: see `Engine.digest`."""
        return self.engine.digest

    @property
    def is_local(self) -> bool:
        """Whether prompts stay on this machine."""
        return self.engine.is_local

    def stream(self, request: Request) -> Iterator[Chunk]:
        """The answer as it is written; see `Engine.generate`."""
        return self.engine.generate(request)

    def complete(self, request: Request) -> Completion:
        """The whole answer."""
        pieces: list[str] = []
        for chunk in self.engine.generate(request):
            pieces.append(chunk.text)
            if chunk.finish_reason is not None and chunk.usage is not None:
                return Completion(text="".join(pieces), finish_reason=chunk.finish_reason, usage=chunk.usage)
        raise RuntimeError(f"{self.ref}: the engine ended without a finish reason")

    def complete_many(self, requests: Sequence[Request], *, workers: int = DEFAULT_WORKERS) -> Iterator[tuple[int, Completion]]:
        """Answers as (index, completion), in the order in which they finish; up to `workers` at once.

        The first failure is raised after the answers that had finished before it were yielded.
        """
        pool = ThreadPoolExecutor(max_workers=workers)
        running: dict[Future[Completion], int] = {}
        waiting = iter(enumerate(requests))
        try:
            while True:
                while len(running) < workers and (following := next(waiting, None)) is not None:
                    index, request = following
                    running[pool.submit(self.complete, request)] = index
                if not running:
                    return
                done, _ = wait(running, return_when=FIRST_COMPLETED)
                failed = [future for future in done if future.exception() is not None]
                for future in done:
                    if future not in failed:
                        yield running[future], future.result()
                for future in failed:
                    future.result()
                for future in done:
                    del running[future]
        finally:
            pool.shutdown(wait=True, cancel_futures=True)

    def score(self, request: Request, continuations: Sequence[str]) -> list[ContinuationScore]:
        """Log-likelihood of each continuation; see `Engine.score`."""
        return self.engine.score(request, continuations)

    def close(self) -> None:
        """Free the engine's memory."""
        self.engine.close()

    def __enter__(self) -> Responder:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self.close()


def load(ref: str) -> Responder:
    """The responder a reference names. Raises UnknownModelError, BadFileError, NotEnoughMemoryError, UnsupportedError."""
    if ref == "fake:":
        from nomoat.engine.fake import FakeEngine

        return Responder(ref, FakeEngine())
    raise NotImplementedError(ref)
