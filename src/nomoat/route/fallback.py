"""The cloud model where the policy says `if_cloud_fails = "local"`: what fails there before its first word or call is answered here.

Once either has come the failure is raised: an answer is one model's. Nothing goes the other way.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import replace

from nomoat import net
from nomoat.engine import Engine
from nomoat.engine.remote import RemoteEngine
from nomoat.errors import NomoatError, RemoteError
from nomoat.records import Chunk, ContinuationScore, Request
from nomoat.responder import Responder, Stream


class OrHere(Engine):
    """The engine of the answer to one request. `on_failure` is told why, before this machine is asked, and may raise that.

    With this machine to answer, the cloud is asked once, and not waited for where it refuses for now; nothing is answered here for
    somebody who has left. Not covered: a server that takes a connection and says nothing is waited for as long as everywhere.
    """

    def __init__(self, cloud: Responder, local: Responder, on_failure: Callable[[RemoteError], None]) -> None:
        self._now = Responder(cloud.ref, cloud.engine.asked_once()) if isinstance(cloud.engine, RemoteEngine) else cloud
        self.give_up_waiting = self._now.engine.give_up_waiting
        self._local = local
        self._on_failure = on_failure

    @property
    def digest(self) -> str:
        return self._now.digest

    @property
    def is_local(self) -> bool:
        return self._now.is_local

    @property
    def context_tokens(self) -> int | None:
        return self._now.engine.context_tokens

    def notes_on(self, request: Request) -> tuple[str, ...]:
        """See `Responder.notes_on`: of the one who answered."""
        return self._now.notes_on(request)

    def generate(self, request: Request) -> Iterator[Chunk]:
        has_begun = False
        try:
            with closing(self._now.stream(request)) as chunks:
                for chunk in chunks:
                    has_begun = has_begun or bool(chunk.text) or chunk.begun
                    yield chunk
            return
        except RemoteError as error:
            if has_begun:
                raise
            net.require_asker()  # else what ended the wait for somebody who has left would be the cloud's failure
            failure = error
        self._on_failure(failure)
        self._now = self._local
        self.give_up_waiting = self._local.engine.give_up_waiting
        yield Chunk(text="")  # whoever reads may go on elsewhere: see `serve.served`
        yield from _having_sent(failure.bytes_out, self._local.stream(request))

    def score(self, request: Request, continuations: Sequence[str]) -> list[ContinuationScore]:
        return self._now.score(request, continuations)

    def count_tokens(self, request: Request) -> int:
        return self._now.engine.count_tokens(request)

    def close(self) -> None:
        """Both are their owner's."""


def _having_sent(num_bytes: int, chunks: Stream[Chunk]) -> Iterator[Chunk]:
    """The answer, or its failure, with what was sent before in vain."""
    try:
        with closing(chunks):
            for chunk in chunks:
                usage = chunk.usage and replace(chunk.usage, bytes_out=chunk.usage.bytes_out + num_bytes)
                yield replace(chunk, usage=usage)
    except NomoatError as error:
        error.bytes_out += num_bytes
        raise
