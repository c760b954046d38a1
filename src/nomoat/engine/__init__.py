"""Weights (or a server, or stored answers) to text. `Engine` is what each of them can do."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator, Sequence
from typing import Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from nomoat import net
from nomoat.records import Chunk, ContinuationScore, Request, TokenLikelihood

# Here, because every module that imports OpenVINO or PyTorch imports something of this package first.
net.silence_telemetry()


def served_scores_digest(digest: str) -> str:
    """What likelihoods are kept under that a model's served form gave: where there is memory, its file's own weights give others.

    `digest`: the engine's, under which those of the file's own weights are kept.
    """
    return hashlib.sha256(f"{digest}\nlikelihoods of the served form".encode()).hexdigest()


class Engine(Protocol):
    """Something that answers. Safe to call from several threads; calls at the same time are batched where that is faster."""

    @property
    def digest(self) -> str:
        """Names the weights, their layout and the template: equal digests give equal answers to equal greedy requests."""
        ...

    @property
    def is_local(self) -> bool:
        """Whether prompts stay on this machine."""
        ...

    @property
    def context_tokens(self) -> int | None:
        """Longest prompt plus answer; None if a server does not tell."""
        ...

    def generate(self, request: Request) -> Iterator[Chunk]:
        """Yield the answer as it is written; the last chunk carries `finish_reason` and `usage`. A chunk may be empty.

        Closing the iterator stops the work. Raises ContextExceededError before the first chunk; never cuts a prompt.
        """
        ...

    def score(self, request: Request, continuations: Sequence[str]) -> list[ContinuationScore]:
        """Log-likelihood of each continuation right after the request's prompt, the prompt computed once. Without any continuation the
        engine only makes itself ready, which can take seconds.

        Raises UnsupportedError where an engine has no access to likelihoods.
        """
        ...

    def count_tokens(self, request: Request) -> int:
        """Tokens of the prompt as the model would see it, template included. Raises UnsupportedError if unknown."""
        ...

    def close(self) -> None:
        """Free the memory. Calling it twice is fine."""
        ...


@runtime_checkable
class Reader(Protocol):
    """What engines can do beside that if they have the weights at hand.

    Once `stop` is set, the work ends soon, with NomoatError.
    """

    def embed(self, texts: Sequence[str | Sequence[int]], *, stop: threading.Event | None = None) -> npt.NDArray[np.float32]:
        """The mean of each text's last hidden states, [N, D]. A text may be given as the model's own token ids."""
        ...

    def prompt_likelihoods(self, request: Request, *, stop: threading.Event | None = None) -> list[TokenLikelihood]:
        """How likely each token of the prompt was after those before it, with `top_logprobs` alternatives; the first has none."""
        ...
