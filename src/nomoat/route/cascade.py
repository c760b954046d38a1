"""A cascade: the model on this machine answers first, and what it is not sure enough of goes to the cloud.

How sure it is of an answer: how probable it found that answer among all there could be. That says far more of whether it is right
than the prompt does, and costs no more than the answer itself, which is what is given where it stays.
Source: cascades, Chen, Zaharia and Zou 2023, arXiv:2305.05176; the likelihood as a measure, Jitkrittum et al. 2023, arXiv:2307.02764.

What this does not cover: the first word comes when the answer is whole, so that long ones are waited for; a model that is sure of what
is wrong; calls of functions, of which duels say nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from nomoat import net
from nomoat.errors import UnsupportedError
from nomoat.progress import Progress
from nomoat.records import Chunk, Completion, Request
from nomoat.responder import Responder
from nomoat.route.stand_in import StandIn

SUREST = 1e-6  # of the probability that is left for other answers: below it lies what rounding leaves


def sureness(answer: Completion) -> float | None:
    """The log-odds of an answer, which its model told the likelihoods of, against all others. None if it told none, and for calls:
    the JSON that they are written in says little of whether they are right."""
    told = [one.log_probability for one in answer.likelihoods if one.log_probability is not None]
    if answer.calls or not told:
        return None
    total = sum(told)
    return total - math.log(max(-math.expm1(total), SUREST))


def surenesses(model: Responder, requests: Sequence[Request], progress: Progress = lambda _done, _total: None) -> list[float]:
    """How sure a model is of its answer to each request, in their order. It is asked anew: kept answers have no likelihoods.

    Raises UnsupportedError for a model that tells no likelihoods; what `Responder.complete_many` raises.
    """
    untold = UnsupportedError(
        f"`{model.ref}` does not tell how likely its answers are, so nothing can be learned from how sure it is of them",
        hint="learn from the prompts: --by prompt (in Python: leave out `sure`)",
    )
    asked = [replace(request, top_logprobs=0) for request in requests]
    if any(model.engine.refusal(request) is not None for request in asked):
        raise untold
    found: dict[int, float] = {}
    for at, answer in model.complete_many(asked):
        sure = sureness(answer)
        if sure is None:
            raise untold
        found[at] = sure
        progress(len(found), len(requests))
    return [found[at] for at in range(len(requests))]


class Draft:
    """The local model's answer to a request, written when it is first asked for."""

    def __init__(self, local: Callable[[], Responder], request: Request, *, num_answers: int) -> None:
        """`local` may raise, where the model may not be asked. `num_answers`: how many the request is to have; of several each is
        written by itself."""
        self._local = local
        self._request = request
        self._num_answers = num_answers
        self._answer: Completion | None = None

    def answer(self) -> Completion:
        """Raises what the model raises: nothing goes to the cloud because something failed here; RemoteError for who has left."""
        if self._answer is None:
            answer = self._local().complete(replace(self._request, top_logprobs=0))
            net.require_asker()  # else it may be a part of one
            self._answer = answer
        return self._answer

    def as_written(self, local: Responder) -> Responder:
        """`local`, which answers with what it has written already, if it has."""
        if self._answer is None or self._num_answers > 1:
            return local
        return Responder(local.ref, _Written(local, self._answer))


class _Written(StandIn):
    """Of the one request whose answer the local model has written."""

    def __init__(self, local: Responder, answer: Completion) -> None:
        super().__init__(local)
        self._answer = answer

    def generate(self, request: Request) -> Iterator[Chunk]:
        answer = self._answer
        yield Chunk(text=answer.text, finish_reason=answer.finish_reason, usage=answer.usage, calls=answer.calls)
