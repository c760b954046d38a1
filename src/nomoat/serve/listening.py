"""The server's port: how it is taken, and what is said at it before there is a model to answer."""

from __future__ import annotations

import asyncio
import errno
import socket
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from fastapi import FastAPI
from starlette.responses import JSONResponse

from nomoat import bounds, config
from nomoat.errors import UsageError
from nomoat.serve import replies
from nomoat.serve.answers import Answers
from nomoat.serve.auth import protect
from nomoat.serve.connections import Server, probe_clients

LOADING_WAIT_SECONDS = 2


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
def saying_that_it_loads(listener: socket.socket, *, api_key: str | None, cors: Sequence[str]) -> Iterator[None]:
    """Answers all requests at a bound socket with 503 while a model is loaded; in a thread, as Ctrl-C is to end the loading."""
    server = Server(_loading_app(api_key, cors), seconds_to_end=1)

    def run() -> None:
        # On Windows the usual loop would keep the socket for itself; a selector lets it go.
        with asyncio.Runner(loop_factory=asyncio.SelectorEventLoop) as runner:
            runner.run(server.serve(sockets=[listener.dup()]))

    thread = threading.Thread(target=run, name="loading", daemon=True)
    thread.start()
    try:
        yield
    finally:
        server.should_exit = True
        thread.join()


def _loading_app(api_key: str | None, cors: Sequence[str]) -> FastAPI:
    app = FastAPI(openapi_url=None)
    app.state.answers = Answers()  # none, which `Server` ends with itself
    protect(app, api_key=api_key, cors=cors)
    body = replies.error_body("the model is loading; ask again in a moment", kind="server_error", code="loading")
    headers = {replies.RETRY_AFTER: str(LOADING_WAIT_SECONDS), "connection": "close"}
    app.mount("/", JSONResponse(body, status_code=503, headers=headers))
    return app


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
