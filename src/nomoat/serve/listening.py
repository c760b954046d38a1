"""The server's port: how it is taken, and what is said at it before there is a model to answer."""

from __future__ import annotations

import asyncio
import errno
import socket
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from fastapi import FastAPI
from starlette.datastructures import Headers
from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send

from nomoat import bounds, config
from nomoat.errors import UsageError
from nomoat.serve import messages, replies, web
from nomoat.serve.answers import Answers
from nomoat.serve.auth import protect
from nomoat.serve.connections import Server, probe_clients

LOADING_WAIT_SECONDS = 2
LOADING = ("the model is loading; ask again in a moment", LOADING_WAIT_SECONDS)
LOADED = ("the model is there; ask again", 0)


def bind(host: str, port: int) -> socket.socket:
    """A bound socket. Raises UsageError that says why there is none."""
    port = bounds.whole("port", port)
    if not 0 <= port <= config.MOST_PORT:  # `getaddrinfo` would take it modulo 65,536
        raise UsageError(f"`port` is {port}", hint=f"it can be 0, for a free one, to {config.MOST_PORT:,}")
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (socket.gaierror, UnicodeError) as exc:
        raise UsageError(f"`{host}` is no address of this machine", hint="try `--host 127.0.0.1` (in Python: `host`)") from exc
    family, kind, protocol, _, address = min(found, key=lambda row: row[0] != socket.AF_INET)  # `localhost` is both
    try:
        listener = socket.socket(family, kind, protocol)
    except OSError as exc:  # a system without IPv6 may know such addresses all the same
        raise _bind_error(host, port, exc) from exc
    # On Windows, which alone has the other option, SO_REUSEADDR lets two servers have one port.
    listener.setsockopt(socket.SOL_SOCKET, getattr(socket, "SO_EXCLUSIVEADDRUSE", socket.SO_REUSEADDR), 1)
    probe_clients(listener)
    try:
        listener.bind(address)
        # Another socket may be bound to the port and not listening yet; only listening takes it for good.
        listener.listen()
    except OSError as exc:
        listener.close()
        raise _bind_error(host, port, exc) from exc
    return listener


@contextmanager
def saying_that_it_loads(listener: socket.socket, *, api_key: str | None, cors: Sequence[str]) -> Iterator[Callable[[], None]]:
    """Answers all requests at a bound socket with 503 while a model is loaded; in a thread, as Ctrl-C is to end the loading.

    Yields what hands the socket over: once that has returned no connection is taken here any more, and the clients of those that were
    are still answered, until the block ends: that the model is there, and that they ask again, which is by another connection.
    """
    server = _Loading(api_key, cors)

    def run() -> None:
        try:
            # On Windows the usual loop would keep the socket for itself; a selector lets it go.
            with asyncio.Runner(loop_factory=asyncio.SelectorEventLoop) as runner:
                runner.run(server.serve(sockets=[listener.dup()]))
        finally:
            server.has_handed_over.set()  # where it failed, too

    thread = threading.Thread(target=run, name="loading", daemon=True)
    thread.start()
    try:
        yield server.hand_over
    finally:
        server.should_exit = True
        thread.join()


class _Loading(Server):
    """Ends by itself once its socket is handed over and the last client has been answered.

    A connection that is closed with a request in it that nobody has read is reset, and its client has no answer; so none is closed.
    """

    def __init__(self, api_key: str | None, cors: Sequence[str]) -> None:
        self._is_to_hand_over = False
        self.has_handed_over = threading.Event()
        super().__init__(_loading_app(api_key, cors, is_there=self.has_handed_over.is_set), seconds_to_end=1)

    def hand_over(self) -> None:
        self._is_to_hand_over = True
        self.has_handed_over.wait()

    async def on_tick(self, counter: int) -> bool:
        is_over = self.has_handed_over.is_set() and not self.server_state.connections
        if self._is_to_hand_over and not self.has_handed_over.is_set():
            for one in self.servers:
                one.close()  # its socket; what was accepted this very moment is among the connections by the next look
            self.has_handed_over.set()
        return await super().on_tick(counter) or is_over


def _loading_app(api_key: str | None, cors: Sequence[str], *, is_there: Callable[[], bool]) -> FastAPI:
    app = FastAPI(openapi_url=None)
    app.state.answers = Answers()  # none, which `Server` ends with itself
    protect(app, api_key=api_key, cors=cors)
    page = _page()

    async def come_again(scope: Scope, receive: Receive, send: Send) -> None:
        while (await receive()).get("more_body"):  # a client that is still sending when it is answered so may read no answer
            pass
        answer: Response = _come_again(scope["path"], *(LOADED if is_there() else LOADING))
        if scope.get("method") in web.READING and (scope["path"] != "/" or "text/html" in Headers(scope=scope).get("accept", "")):
            answer = page.get(scope["path"], answer)
        await answer(scope, receive, send)

    app.mount("/", come_again)
    return app


def _page() -> dict[str, Response]:
    """The page for people by its paths; it asks by itself until the model is there."""
    headers = {replies.RETRY_AFTER: str(LOADING_WAIT_SECONDS), "connection": "close"}
    return {path: web.response(path, status=503 if path == "/" else 200, headers=headers) for path in web.FILES}


def _come_again(path: str, message: str, seconds: int) -> JSONResponse:
    body = messages.error_at(path, 503, replies.error_body(message, kind="server_error", code="loading"))
    return JSONResponse(body, status_code=503, headers={replies.RETRY_AFTER: str(seconds), "connection": "close"})


def _bind_error(host: str, port: int, exc: OSError) -> UsageError:
    another = f"choose another: `--port {port + 1 if port < config.MOST_PORT else port - 1}` (in Python: `port`)"
    if exc.errno == errno.EADDRINUSE:
        return UsageError(f"port {port} of `{host}` is in use", hint=another)
    if exc.errno == errno.EACCES and sys.platform == "win32":  # which asks no administrator for any port
        return UsageError(f"port {port} of `{host}` is in use, or Windows keeps it", hint=another)
    if exc.errno in (errno.EACCES, errno.EPERM):
        return UsageError(
            f"port {port} may be had by an administrator only", hint="choose one above 1023: `--port 8080` (in Python: `port`)"
        )
    return UsageError(
        f"cannot serve at `{host}` port {port}: {exc.strerror or exc}", hint="try `--host 127.0.0.1` (in Python: `host`)"
    )
