"""The clients' connections: how many there may be, which are given up, and how they end with the server."""

from __future__ import annotations

import asyncio
import errno
import logging
import math
import socket
import time
from collections.abc import Iterable
from contextlib import suppress
from types import FrameType
from typing import Any

import uvicorn
from fastapi import FastAPI
from uvicorn.protocols.http.h11_impl import H11Protocol

from nomoat.words import counted

SHUTDOWN_SECONDS = 5  # for answers to end in order
UNREAD_SECONDS = 2.0  # of these for a client that takes nothing of what is written for it
SILENT_SECONDS = 75  # how long a client may send nothing of a request that is not whole
# And nothing after an answer. Longer than clients (httpx: 5 s, LiteLLM: 120 s) and proxies (nginx: 60 s) keep idle ones open: what is
# closed here while they send is a request without an answer.
IDLE_SECONDS = 130
LOOK_SECONDS = 0.1
# Signals so near each other are one: `timeout` sends it to the server, and then to all of its group.
ONE_SIGNAL_SECONDS = 1.0
MAX_FILES = 1 << 16  # more connections than one event loop serves; "no limit" is refused by some systems
FULL = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
FULL_SECONDS = 60.0  # between two words about that
# A client whose machine has gone without a word is noticed within two minutes, where the system lets us say so.
PROBES = {"TCP_KEEPIDLE": 60, "TCP_KEEPINTVL": 15, "TCP_KEEPCNT": 4}

log = logging.getLogger("nomoat.serve")


def allow_many() -> None:
    """Let this process have as many connections as the system allows; without that it is often 1,024 files, or 256."""
    try:
        import resource
    except ModuleNotFoundError:  # Windows, which has no such limit
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MAX_FILES if hard == resource.RLIM_INFINITY else min(hard, MAX_FILES)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def probe_clients(listener: socket.socket) -> None:
    """Have the system ask now and then whether the clients of this socket are still there; connections inherit that."""
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in PROBES.items():
        if (option := getattr(socket, name, None)) is not None:
            with suppress(OSError):  # systems that know the name and not the option
                listener.setsockopt(socket.IPPROTO_TCP, option, value)


class Connection(H11Protocol):
    """A client's connection, which knows whose turn it is."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._heard_at = self.loop.time()
        self._unread, self._taken_at = math.inf, self._heard_at

    def data_received(self, data: bytes) -> None:
        self._heard_at = self.loop.time()
        super().data_received(data)

    def on_response_complete(self) -> None:
        self._heard_at = self.loop.time()  # the client's turn begins
        super().on_response_complete()

    def _unsupported_upgrade_warning(self) -> None:
        """Nothing: Java's clients offer HTTP/2 with each request, and are content with this one; uvicorn warns each time."""

    @property
    def is_half(self) -> bool:
        """Whether no request has come yet, or not the whole of one that waits for an answer."""
        return self.cycle is None or (self.cycle.more_body and not self.cycle.response_complete)

    @property
    def is_silent(self) -> bool:
        """Whether the client, whose turn it is, has sent nothing for SILENT_SECONDS, or for IDLE_SECONDS after an answer."""
        is_its_turn = self.is_half or self.cycle.response_complete
        is_heard = not self.flow.read_paused and not self.transport.get_write_buffer_size()
        most = IDLE_SECONDS if self.is_idle else SILENT_SECONDS
        return is_its_turn and is_heard and self.loop.time() - self._heard_at > most

    @property
    def is_idle(self) -> bool:
        """Whether an answer has been given, and nothing of another request has come."""
        return self.timeout_keep_alive_task is not None and not self.transport.get_write_buffer_size()

    def is_left_unread(self) -> bool:
        """Whether nothing of what is written was taken for UNREAD_SECONDS; counted from the first call, and to be called often."""
        unread = self.transport.get_write_buffer_size()
        if not unread or unread < self._unread:
            self._taken_at = self.loop.time()
        self._unread = unread
        return self.loop.time() - self._taken_at > UNREAD_SECONDS


class Server(uvicorn.Server):
    """Gives up connections in which nothing comes any more, and ends in a time that can be told.

    Not covered: a client that sends a byte now and then, and one that never reads, keep their connections while the server runs.
    """

    def __init__(self, app: FastAPI, *, seconds_to_end: int = SHUTDOWN_SECONDS, drain_seconds: int = 0) -> None:
        """`drain_seconds`: how long answers under way may be written on before they are ended in order."""
        super().__init__(uvicorn.Config(
            app, http=Connection, ws="none", log_config=None, access_log=False, lifespan="on", server_header=False,
            timeout_graceful_shutdown=seconds_to_end, timeout_keep_alive=IDLE_SECONDS,
        ))  # fmt: skip
        self._app = app
        self._drain_seconds = drain_seconds
        self._asked_to_end_at = 0.0  # by the clock of `time.monotonic`
        self._is_full = False
        self._full_said_at = -FULL_SECONDS

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        asyncio.get_running_loop().set_exception_handler(self._loop_error)
        await super().startup(sockets)

    async def on_tick(self, counter: int) -> bool:
        if counter % 10 == 0:  # once a second
            is_full, self._is_full = self._is_full, False
            _drop(one for one in self._connections() if one.is_silent or (is_full and one.is_idle))
        return await super().on_tick(counter)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """A second signal, which comes later than ONE_SIGNAL_SECONDS, ends the answers that the first has let be written on.

        None breaks off what is then done in order, as uvicorn would, with an error for each answer: it takes `seconds_to_end` at most.
        """
        if not self.should_exit:
            self._asked_to_end_at = time.monotonic()
            super().handle_exit(sig, frame)
        elif time.monotonic() - self._asked_to_end_at > ONE_SIGNAL_SECONDS:
            self._drain_seconds = 0

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Ends the answers that are being written, after `drain_seconds`, before it waits for their connections."""
        answers = self._app.state.answers
        if self._drain_seconds:
            log.info("draining: %s under way may take %d seconds", counted(answers.num_texts, "answer"), self._drain_seconds)
            await self._drain(sockets or ())
        if num_cut := answers.num_texts:
            log.info("ending %s under way", counted(num_cut, "answer"))
        answers.stop()
        dropping = asyncio.ensure_future(self._drop_while_ending())
        try:
            await super().shutdown(sockets)
        finally:
            dropping.cancel()

    async def _drain(self, sockets: Iterable[socket.socket]) -> None:
        """Takes no more connections, and on those that are open no more requests, and waits for the answers under way."""
        for server in self.servers:
            server.close()
        for one in sockets:
            one.close()
        for connection in self._connections():
            connection.shutdown()
        loop = asyncio.get_running_loop()
        began = loop.time()
        while self.server_state.connections and loop.time() < began + self._drain_seconds:
            await asyncio.sleep(LOOK_SECONDS)
        self._drain_seconds = 0

    async def _drop_while_ending(self) -> None:
        """Those that nobody need wait for: see `SHUTDOWN_SECONDS`."""
        while True:
            _drop(one for one in self._connections() if one.is_half or one.is_left_unread())
            await asyncio.sleep(LOOK_SECONDS)

    def _connections(self) -> list[Connection]:
        return [one for one in self.server_state.connections if isinstance(one, Connection)]

    def _loop_error(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """asyncio tells of each try to accept a connection that there is no room for: thousands a second, with a traceback each."""
        error = context.get("exception")
        if not isinstance(error, OSError) or error.errno not in FULL or "socket" not in context:
            loop.default_exception_handler(context)
            return
        self._is_full = True
        if loop.time() - self._full_said_at >= FULL_SECONDS:
            self._full_said_at = loop.time()
            log.error("no more connections can be taken (%s); %d are open", error.strerror, len(self.server_state.connections))


def _drop(connections: Iterable[Connection]) -> None:
    for one in connections:
        one.transport.abort()
