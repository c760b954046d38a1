"""Weights (or a server, or stored answers) to text. `Engine` is the base of all of them, and says what an engine does."""

from __future__ import annotations

import hashlib
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from nomoat import net
from nomoat.errors import StoppedError
from nomoat.records import ChoiceScores, Chunk, ContinuationScore, Request, TokenLikelihood

if TYPE_CHECKING:
    from nomoat.engine.tokenizer import Tokenizer
    from nomoat.errors import UnsupportedError

# Here, because every module that imports OpenVINO or PyTorch imports something of this package first.
net.silence_telemetry()


def served_scores_digest(digest: str) -> str:
    """What likelihoods are kept under that a model's served form gave: where there is memory, its file's own weights give others.

    `digest`: the engine's, under which those of the file's own weights are kept.
    """
    return hashlib.sha256(f"{digest}\nlikelihoods of the served form".encode()).hexdigest()


def closed() -> StoppedError:
    """For who asks an engine after its `close`."""
    return StoppedError("the model is closed", hint="load it again, or close it when all has been asked")


@dataclass(frozen=True, slots=True, kw_only=True)
class KvCache:
    """Memory for keys and values: what they have taken by now, those kept of earlier texts included, and what they may take."""

    used_bytes: int
    max_bytes: int


class Engine(ABC):
    """Something that answers. Safe to call from several threads; calls at the same time are batched where that is faster.

    Each engine has the first three itself, as attributes or properties, and the abstract methods; of the rest what it does otherwise.
    """

    if TYPE_CHECKING:  # properties, since nobody else sets them; while it runs they would forbid an engine attributes of these names

        @property
        def digest(self) -> str:
            """Names the weights, their layout and the template: equal digests give equal answers to equal greedy requests, of one
            version on CPUs of one kind. Others round otherwise (AMX, bf16), and their answers count as the same model's."""
            ...

        @property
        def is_local(self) -> bool:
            """Whether prompts stay on this machine."""
            ...

        @property
        def context_tokens(self) -> int | None:
            """Longest prompt plus answer; None if a server does not tell."""
            ...

    host: str = ""  # the server that is asked; empty for an engine on this machine
    tokenizer: Tokenizer | None = None  # None where it is not known here
    give_up_waiting: Callable[[], None] | None = None  # sends away who waits for a server or for workers; None: it is in this process

    @property
    def scores_digest(self) -> str:
        """What stored likelihoods are kept under: see `Responder.scores_digest`."""
        return self.digest

    @property
    def num_workers(self) -> int:
        """How many processes, each with the whole model, answer."""
        return 1

    @property
    def notes(self) -> tuple[str, ...]:
        """What has to be known about its answers, whatever they say."""
        return ()

    def notes_on(self, request: Request) -> tuple[str, ...]:
        """What has to be known about the answer to this request, once it has begun."""
        return ()

    @property
    def kv_cache(self) -> KvCache | None:
        """What its keys and values take; None where it has none here, has not begun, or cannot tell."""
        return None

    def refusal(self, request: Request) -> UnsupportedError | None:
        """What says that this cannot be asked; None if it can, as far as is known before asking."""
        return None

    def bound_cache(self, num_bytes: int) -> None:  # noqa: B027 - most keep nothing
        """See `Responder.bound_cache`."""

    def start(self) -> None:  # noqa: B027 - most need nothing
        """Have what the first answer needs, threads among it: so a server says at its start what it lacks. A fork that is made after
        that cannot ask."""

    def chosen_for(self, request: Request) -> AbstractContextManager[Engine]:
        """Who writes the answer to this request, within the block: itself, but for an engine that is one of several."""
        return nullcontext(self)

    def asked_for_whole(self, *, alone: bool) -> Engine:
        """This engine for whoever asks again where an answer may not be whole. `alone`: it is asked once others that come by this
        process have their answers, and they wait for that. Of one in this process it is itself: no question ends another's answer.
        """
        return self

    @abstractmethod
    def generate(self, request: Request) -> Iterator[Chunk]:
        """Yield the answer as it is written; the last chunk carries `finish_reason` and `usage`. A chunk may be empty.

        Closing the iterator stops the work. Raises ContextExceededError before the first chunk; never cuts a prompt.
        """
        ...

    @abstractmethod
    def score(self, request: Request, continuations: Sequence[str]) -> list[ContinuationScore]:
        """Log-likelihood of each continuation right after the request's prompt, the prompt computed once. Without any continuation the
        engine only makes itself ready, which can take seconds.

        Raises UnsupportedError where an engine has no access to likelihoods.
        """
        ...

    def timed_scores(
        self, request: Request, continuations: Sequence[str], *, max_unread: float = 0.0, stop: threading.Event | None = None
    ) -> ChoiceScores:
        """`score`, and how long it took: neither loading, nor waiting for others' questions to be read. Of a pass that reads several
        questions each has its share.

        `max_unread`: an engine may leave some of many continuations unread (`ContinuationScore.is_bound`) that cannot be the likeliest
        one, and whose probabilities add up to so many times those of the others at most; 0 for none, infinity for all of these.
        Once `stop` is set, who waits may be sent away, and a long question left before it is read whole, with StoppedError.
        """
        self.score(request, ())
        began = time.perf_counter()
        scores = self.score(request, continuations)
        return ChoiceScores(scores=tuple(scores), seconds=time.perf_counter() - began)

    @abstractmethod
    def count_tokens(self, request: Request) -> int:
        """Tokens of the prompt as the model would see it, template included.

        Raises UnsupportedError if unknown, and ContextExceededError for one so much longer than the context that it is not counted.
        """
        ...

    @abstractmethod
    def close(self) -> None:
        """Free the memory. Calling it twice is fine."""
        ...


@runtime_checkable
class Reader(Protocol):
    """What engines can do beside that if they have the weights at hand.

    Once `stop` is set, the work ends soon, with NomoatError.
    """

    def embed(self, texts: Sequence[str | Sequence[int]], *, stop: threading.Event | None = None) -> npt.NDArray[np.float32]:
        """Of each text the mean of its last hidden states, or the first one or the last where the model says so, [N, D].

        A text may be given as the model's own token ids. Raises UnsupportedError for a model that asks for something else.
        """
        ...

    def prompt_likelihoods(self, request: Request, *, stop: threading.Event | None = None) -> list[TokenLikelihood]:
        """How likely each token of the prompt was after those before it, with `top_logprobs` alternatives; the first has none."""
        ...
