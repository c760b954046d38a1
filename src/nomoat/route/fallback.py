"""The cloud model where the policy says `if_cloud_fails = "local"`: what fails there before its first word or call is answered here.

Once either has come the failure is raised: an answer is one model's. Nothing goes the other way.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace

from nomoat import net
from nomoat.engine import Engine
from nomoat.engine.remote import RemoteEngine
from nomoat.errors import NomoatError, RedirectedError, RemoteError
from nomoat.records import Chunk, Request
from nomoat.responder import Responder, Stream
from nomoat.route.stand_in import StandIn

CloudError = RemoteError | RedirectedError
TOO_LATE_HINT = "does it hang? what it needs more time for, such as thinking, needs a larger `max_wait_seconds` in the policy"
WELL_AFTER_SECONDS = 60.0  # without a failure

log = logging.getLogger("nomoat.route")


class Failures:
    """Tells the log how the cloud fails, each way once, and when it is well again. Safe to use from several threads.

    Nothing of the server's own words is told: they may repeat the text.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._said: set[str] = set()  # since it was well
        self._last_at = 0.0

    def failed(self, name: str, error: CloudError) -> None:
        """What it was asked is answered here."""
        hint = f"; {error.hint}" if error.hint else ""
        line = f"`{name}` failed{how_it_failed(error)}, and what it fails at is answered on this machine{hint}"
        with self._lock:
            is_said = line in self._said
            self._said.add(line)
            self._last_at = time.monotonic()
        if not is_said:
            log.warning("%s", line)

    def answered(self, name: str) -> None:
        """It did what it was asked."""
        with self._lock:
            if not self._said or time.monotonic() - self._last_at < WELL_AFTER_SECONDS:
                return
            self._said.clear()
        log.warning("`%s` answers again", name)


def how_it_failed(error: CloudError) -> str:
    """To be said behind who did; empty where it did not answer at all, or not as an OpenAI-compatible server does."""
    if isinstance(error, RedirectedError):
        return " (it sends requests on)"
    return "" if error.status is None else f" (status {error.status})"


class OrHere(StandIn):
    """The engine of the answer to one request. `on_failure` is told why, before this machine is asked, and may raise that; `on_word`
    that the cloud has begun to answer, or has ended without a word.

    With this machine to answer, the cloud is asked once, not waited for where it refuses for now, and for `wait_seconds` at most for
    its first word; nothing is answered here for somebody who has left.
    """

    def __init__(
        self, cloud: Responder, local: Responder, *, wait_seconds: float, on_failure: Callable[[CloudError], None],
        on_word: Callable[[], None],
    ) -> None:  # fmt: skip
        super().__init__(Responder(cloud.ref, cloud.engine.asked_once()) if isinstance(cloud.engine, RemoteEngine) else cloud)
        self._local = local
        self._wait_seconds = wait_seconds
        self._on_failure = on_failure
        self._on_word = on_word
        self._as_wanted: Callable[[Engine], Engine] = lambda engine: engine

    def asked_for_whole(self, *, alone: bool) -> OrHere:
        """See `Engine.asked_for_whole`. It is itself, of which `notes_on` tells."""
        self._as_wanted = lambda engine: engine.asked_for_whole(alone=alone)
        return self

    def generate(self, request: Request) -> Iterator[Chunk]:
        has_begun = False
        try:
            with closing(self._stream(self._model, request)) as chunks:
                first: list[Chunk] = []
                # Within it nothing is given on: what comes after that may be read in another thread.
                with net.waiting_at_most(self._wait_seconds, hint=TOO_LATE_HINT):
                    while not has_begun and (chunk := next(chunks, None)) is not None:
                        first.append(chunk)
                        has_begun = bool(chunk.text) or chunk.begun
                self._on_word()
                yield from first
                yield from chunks
            return
        except (RemoteError, RedirectedError) as error:
            if has_begun:
                raise
            net.require_asker()  # else what ended the wait for somebody who has left would be the cloud's failure
            failure = error
        self._on_failure(failure)
        self._stand_for(self._local)
        yield Chunk(text="")  # whoever reads may go on elsewhere: see `serve.served`
        yield from _having_sent(failure.bytes_out, self._stream(self._local, request))

    def _stream(self, responder: Responder, request: Request) -> Stream[Chunk]:
        return Responder(responder.ref, self._as_wanted(responder.engine)).stream(request)


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
