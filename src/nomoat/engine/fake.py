"""A deterministic engine without weights, for tests and documentation: it needs no file and answers at once.

It answers with the words of the last message in reverse order, one word a chunk, and prefers short continuations that share
words with the prompt. `answers` overrides the answer to a given last message.
"""

from __future__ import annotations

import dataclasses
import hashlib
import math
import threading
from collections.abc import Generator, Iterator, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from nomoat.engine import Engine, tool_calls
from nomoat.errors import ContextExceededError
from nomoat.records import Chunk, ContinuationScore, Request, TokenLikelihood, Usage

FAKE_CONTEXT_TOKENS = 4096


class FakeEngine(Engine):
    """See the module. One word is one token; times are always 0."""

    is_local = True

    def __init__(self, *, answers: Mapping[str, str] | None = None, context_tokens: int = FAKE_CONTEXT_TOKENS) -> None:
        self.context_tokens: int | None = context_tokens
        self._answers = dict(answers or {})
        content = "\n".join(f"{key}\t{value}" for key, value in sorted(self._answers.items()))
        self.digest: str = "fake-" + hashlib.sha256(content.encode()).hexdigest()[:16]

    def generate(self, request: Request) -> Iterator[Chunk]:
        return tool_calls.recognised(self._words(request), request) if request.tools else self._words(request)

    def _words(self, request: Request) -> Generator[Chunk]:
        prompt_tokens = self.count_tokens(request)
        if self.context_tokens is not None and prompt_tokens >= self.context_tokens:
            raise ContextExceededError(
                prompt_tokens=prompt_tokens, max_new_tokens=request.max_new_tokens or 1, context_tokens=self.context_tokens
            )
        last = request.messages[-1].content if request.messages else self._text(request)
        words = self._answers.get(last, " ".join(reversed(last.split()))).split(" ")
        kept = words[: request.max_new_tokens]
        for at, word in enumerate(kept):
            text = word if at == 0 else f" {word}"
            yield Chunk(text=text, likelihoods=() if request.top_logprobs is None else (_likelihood(text, request),))
        yield Chunk(
            text="",
            finish_reason="stop" if len(kept) == len(words) else "length",
            usage=Usage(prompt_tokens=prompt_tokens, completion_tokens=len(kept), prefill_seconds=0.0, decode_seconds=0.0),
        )

    def embed(self, texts: Sequence[str | Sequence[int]], *, stop: threading.Event | None = None) -> npt.NDArray[np.float32]:
        """How often each of eight kinds of words occurs, and 1."""
        rows = [text.split() if isinstance(text, str) else list(map(str, text)) for text in texts]
        counts = [[1.0, *(sum(len(word) % 8 == k for word in words) for k in range(8))] for words in rows]
        return np.array(counts, np.float32).reshape(len(rows), 9)

    def prompt_likelihoods(self, request: Request, *, stop: threading.Event | None = None) -> list[TokenLikelihood]:
        words = self._text(request).split()
        found = [_likelihood(word if at == 0 else f" {word}", request) for at, word in enumerate(words)]
        return [dataclasses.replace(one, log_probability=None, top=()) for one in found[:1]] + found[1:]

    def score(self, request: Request, continuations: Sequence[str]) -> list[ContinuationScore]:
        known = set(self._text(request).lower().split())
        rows = []
        for continuation in continuations:
            words = continuation.lower().split()
            strange = sum(word not in known for word in words)
            rows.append(ContinuationScore(log_probability=-1.0 * len(words) - 2.0 * strange, num_tokens=len(words)))
        return rows

    def count_tokens(self, request: Request) -> int:
        return len(self._text(request).split())

    def close(self) -> None:
        """Nothing to free."""

    @staticmethod
    def _text(request: Request) -> str:
        if request.prompt_ids is not None:
            return " ".join(map(str, request.prompt_ids))
        return request.prompt + request.suffix if request.prompt is not None else "\n".join(m.content for m in request.messages)


def _likelihood(text: str, request: Request) -> TokenLikelihood:
    """Every word is certain by half; the others that were asked for are a quarter as likely as the one before."""
    content = text.encode()
    top = [
        TokenLikelihood(token_id=at, content=content if at == 0 else b"?" * at, log_probability=-math.log(2 * 4**at))
        for at in range(request.top_logprobs or 0)
    ]
    return TokenLikelihood(token_id=0, content=content, log_probability=-math.log(2), top=tuple(top))
