"""The server: `create_app` makes the ASGI application, `serve` binds a port and runs it.

The API's pages for people (Swagger) are off: they load their code from a content network, and nothing here leaves the machine.
No prompt and no answer is logged.
"""

from __future__ import annotations

import dataclasses
import errno
import socket
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, asynccontextmanager

import uvicorn
from fastapi import FastAPI
from fastapi import Request as HttpRequest
from fastapi.responses import JSONResponse, Response, StreamingResponse
from starlette.exceptions import HTTPException
from starlette.types import Receive, Scope, Send

from nomoat import __version__, net
from nomoat import responder as responders
from nomoat.errors import BadRequestError, NomoatError, UnknownModelError, UsageError
from nomoat.records import Chunk, Completion
from nomoat.responder import Responder
from nomoat.serve import wire
from nomoat.serve.answers import Answer, Answers
from nomoat.serve.auth import Guard

# For a model whose context is not known (another server) when a client sets no limit.
MAX_NEW_TOKENS_OF_UNKNOWN_CONTEXT = 4096
SHUTDOWN_SECONDS = 5
MAX_BODY_BYTES = 2 << 20  # some 400,000 tokens; while more is tokenised, everyone else would wait
CLIENT_CLOSED_REQUEST = 499  # nginx's; nobody is there to read it


def create_app(responder: Responder | Mapping[str, Responder], *, api_key: str | None = None) -> FastAPI:
    """An OpenAI-compatible application for one responder, or for several under the names clients ask for.

    The caller closes the responders, after the application has ended. `api_key`: what clients must send; None asks for none.
    """
    served = dict(responder) if isinstance(responder, Mapping) else {responder.name: responder}
    if not served:
        raise UsageError("there is no model to serve")
    answers = Answers()
    created = int(time.time())

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        yield
        answers.close()

    app = FastAPI(title="nomoat", version=__version__, docs_url=None, redoc_url=None, openapi_url=None, lifespan=lifespan)
    app.state.answers = answers
    app.add_middleware(Guard, api_key=api_key)
    app.add_exception_handler(NomoatError, _nomoat_error)
    app.add_exception_handler(HTTPException, _http_error)

    @app.post("/v1/chat/completions")
    async def chat_completions(request: HttpRequest) -> Response:
        return await _answer(request, wire.parse_chat(await _body(request)), served, answers)

    @app.post("/v1/completions")
    async def completions(request: HttpRequest) -> Response:
        return await _answer(request, wire.parse_text(await _body(request)), served, answers)

    @app.get("/v1/models")
    async def models() -> Response:
        return JSONResponse(wire.render_models(list(served), created=created))

    @app.get("/health")
    async def health() -> Response:
        return JSONResponse({"status": "ok"})

    return app


def serve(
    model: str | Responder | Sequence[str | Responder],
    *,
    host: str = "127.0.0.1",
    port: int = 8080,
    api_key: str | None = None,
    on_ready: Callable[[str], None] | None = None,
) -> None:
    """Serve models until Ctrl-C. References are loaded and closed here; a Responder stays the caller's.

    `port` 0 takes a free one. `on_ready` gets the base URL (`http://127.0.0.1:8080/v1`) as soon as requests are accepted.
    Raises UsageError for a host that others can reach without a key, and for a port that cannot be had; what
    `nomoat.responder.load` raises.
    """
    if not net.is_loopback(host) and not api_key:
        raise UsageError(
            f"`{host}` can be reached from other machines, and there is no API key",
            hint="add `--api-key KEY`, or serve this machine only with `--host 127.0.0.1`",
        )
    models = [model] if isinstance(model, str | Responder) else model
    with bind(host, port) as listener, ExitStack() as stack:
        loaded = [stack.enter_context(responders.load(one)) if isinstance(one, str) else one for one in models]
        app = create_app({one.name: one for one in loaded}, api_key=api_key or None)
        config = uvicorn.Config(
            app, log_config=None, access_log=False, lifespan="on", server_header=False, timeout_graceful_shutdown=SHUTDOWN_SECONDS
        )
        if on_ready is not None:
            bound_port = listener.getsockname()[1]
            on_ready(f"http://{f'[{host}]' if ':' in host else host}:{bound_port}/v1")
        try:
            _Server(config).run(sockets=[listener])
        except KeyboardInterrupt:
            return  # uvicorn has shut down in order, and raises the signal again


def bind(host: str, port: int) -> socket.socket:
    """A bound socket. Raises UsageError that says why there is none."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (socket.gaierror, UnicodeError) as exc:
        raise UsageError(f"`{host}` is no address of this machine", hint="try `--host 127.0.0.1`") from exc
    family, kind, protocol, _, address = min(found, key=lambda row: row[0] != socket.AF_INET)  # `localhost` is both
    listener = socket.socket(family, kind, protocol)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(address)
        # Another socket may be bound to the port and not listening yet; only listening takes it for good.
        listener.listen()
    except OSError as exc:
        listener.close()
        raise _bind_error(host, port, exc) from exc
    return listener


class _Server(uvicorn.Server):
    """Ends the answers that are being written before it waits for their connections."""

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        app = self.config.app
        if isinstance(app, FastAPI):
            app.state.answers.stop()
        await super().shutdown(sockets)


class _EventStream(StreamingResponse):
    """Stops the engine when the client has gone, at whatever point that is noticed."""

    def __init__(self, events: AsyncIterator[bytes], answer: Answer) -> None:
        super().__init__(events, media_type="text/event-stream", headers={"cache-control": "no-cache"})
        self._answer = answer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._answer.stop()


async def _body(request: HttpRequest) -> bytes:
    """The request's body. Raises BadRequestError as soon as it is too long; the rest is never read into memory."""
    body = bytearray()
    async for piece in request.stream():
        body += piece
        if len(body) > MAX_BODY_BYTES:
            raise BadRequestError(f"the body is longer than {MAX_BODY_BYTES:,} bytes", code="body_too_long", status=413)
    return bytes(body)


async def _answer(request: HttpRequest, call: wire.Call, served: Mapping[str, Responder], answers: Answers) -> Response:
    name, responder = _find(call.model, served)
    answer = answers.start(lambda: _chunks(responder, call))
    reply = wire.Reply(call, name)
    chunks = aiter(answer)
    try:
        first = await anext(chunks)  # what is wrong with a request shows here, while there is a status to say it with
    except BaseException:
        answer.stop()
        raise
    if call.stream:
        return _EventStream(_events(reply, first, chunks), answer)
    pieces = [first.text]
    last = first
    try:
        while last.finish_reason is None:
            if await request.is_disconnected():
                return Response(status_code=CLIENT_CLOSED_REQUEST)
            last = await anext(chunks)
            pieces.append(last.text)
    finally:
        answer.stop()
    if last.usage is None:
        raise NomoatError(f"`{name}` ended without its usage")
    whole = Completion(text="".join(pieces), finish_reason=last.finish_reason, usage=last.usage)
    return JSONResponse(reply.whole(whole))


async def _events(reply: wire.Reply, first: Chunk, rest: AsyncIterator[Chunk]) -> AsyncIterator[bytes]:
    yield reply.opening() + reply.event(first)
    try:
        if first.finish_reason is None:
            async for chunk in rest:
                yield reply.event(chunk)
    except NomoatError as error:
        yield wire.render_error_event(error)
        return
    yield wire.DONE


def _chunks(responder: Responder, call: wire.Call) -> Iterator[Chunk]:
    limit = call.max_new_tokens or _room(responder, call)
    yield from responder.stream(dataclasses.replace(call.request, max_new_tokens=limit))


def _room(responder: Responder, call: wire.Call) -> int:
    """How many tokens the context leaves for an answer; at least 1, so that the engine itself says that a prompt is too long."""
    context = responder.engine.context_tokens
    if context is None:
        return MAX_NEW_TOKENS_OF_UNKNOWN_CONTEXT
    return max(1, context - responder.engine.count_tokens(call.request))


def _find(name: str | None, served: Mapping[str, Responder]) -> tuple[str, Responder]:
    if name is None and len(served) == 1:
        return next(iter(served.items()))
    known = f"known: {', '.join(served)}"
    if name is None:
        raise UnknownModelError("the request names no model", hint=known)
    if name not in served:
        raise UnknownModelError(f"there is no model `{name}` here", hint=known)
    return name, served[name]


async def _nomoat_error(request: HttpRequest, error: Exception) -> Response:
    if not isinstance(error, NomoatError):
        raise error
    status, body = wire.render_error(error)
    return JSONResponse(body, status_code=status)


async def _http_error(request: HttpRequest, error: Exception) -> Response:
    """No such path, or not with this method."""
    if not isinstance(error, HTTPException):
        raise error
    message = f"{request.method} {request.url.path}: {str(error.detail).lower()}"
    return JSONResponse(wire.error_body(message), status_code=error.status_code, headers=error.headers)


def _bind_error(host: str, port: int, exc: OSError) -> UsageError:
    if exc.errno == errno.EADDRINUSE:
        return UsageError(f"port {port} of `{host}` is in use", hint=f"choose another: `--port {port + 1}`")
    if exc.errno in (errno.EACCES, errno.EPERM):
        return UsageError(f"port {port} may be had by an administrator only", hint="choose one above 1023: `--port 8080`")
    return UsageError(f"cannot serve at `{host}` port {port}: {exc.strerror or exc}", hint="try `--host 127.0.0.1`")
