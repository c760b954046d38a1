"""The server: `create_app` makes the ASGI application, `serve` binds a port and runs it.

FastAPI's own pages (Swagger) are off: they load their code from a content network, and nothing here leaves the machine.
No prompt and no answer is logged.
"""

from __future__ import annotations

import asyncio
import dataclasses
import functools
import os
import signal
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, closing, contextmanager
from socket import socket
from typing import Any, TypeVar

import uvicorn
from fastapi import FastAPI
from fastapi import Request as HttpRequest
from fastapi.responses import JSONResponse, Response, StreamingResponse
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from nomoat import __version__, bounds, net, references
from nomoat.errors import BadRequestError, NomoatError, UsageError
from nomoat.records import Chunk, Request, Usage
from nomoat.responder import Responder
from nomoat.serve import replies, responses, tokens, web, wire
from nomoat.serve.answers import Answer, Answers, Item, stopped
from nomoat.serve.auth import protect, require_origins, require_sendable
from nomoat.serve.connections import Server, allow_many
from nomoat.serve.decisions import Decisions, Spending
from nomoat.serve.listening import bind, saying_that_it_loads
from nomoat.serve.metrics import CLIENT_CLOSED_REQUEST, CountErrors, Metrics
from nomoat.serve.models import Models, from_references
from nomoat.serve.web.markdown import as_html

MAX_BODY_BYTES = 2 << 20  # some 400,000 tokens
MAX_MARKDOWN_BYTES = 256 << 10  # some 50,000 tokens; what is longer the page shows as plain text
MAX_BODY_BYTES_AT_ONCE = 64 << 10  # what is longer is parsed beside the event loop, which all clients share
MAX_EMBEDDINGS_BODY_BYTES = 16 << 20  # many texts at once, of some 5,000 Korean characters each
SIGN_SECONDS = 15.0  # a stream in which nothing comes for longer gets a sign of life: proxies and clients often give up after 60
STREAM_HEADERS = {"cache-control": "no-cache", "x-accel-buffering": "no"}  # nginx gathers what it passes on unless told not to

T = TypeVar("T")
Reference = str | os.PathLike[str]


def create_app(
    responder: Responder | Mapping[str, Responder] | Models, *, api_key: str | None = None, cors: Sequence[str] = ()
) -> FastAPI:  # fmt: skip
    """An OpenAI-compatible application for one responder, for several under the names clients ask for, or for models loaded as needed.

    The caller closes them, after the application has ended. `api_key`: what clients must send; None asks for none. `cors`: origins
    (`https://HOST:PORT`) whose web pages may ask with the key; pages of this machine may anyway.
    Raises UsageError for a key that cannot be sent or is empty, for what is no origin, and for origins without a key.
    """
    models = responder if isinstance(responder, Models) else _given(responder)
    answers = Answers()
    metrics = Metrics(
        num_texts=lambda: answers.num_texts, num_loaded=lambda: len(models.loaded()), spent_usd=Spending(models).usd
    )  # fmt: skip
    served = Served(models, answers, metrics)
    created = int(time.time())

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        yield
        answers.close()

    app = FastAPI(title="nomoat", version=__version__, docs_url=None, redoc_url=None, openapi_url=None, lifespan=lifespan)
    app.state.answers = answers
    protect(app, api_key=api_key, cors=cors)
    app.add_middleware(CountErrors, metrics=metrics)  # around the guard
    for of, told in ((NomoatError, _nomoat_error), (ClientDisconnect, _client_left), (HTTPException, _http_error)):
        app.add_exception_handler(of, told)
    web.add_page(app)

    @app.post("/v1/chat/completions")
    async def chat_completions(request: HttpRequest) -> Response:
        return await served.answer(request, await _read(request, wire.parse_chat))

    @app.post("/v1/completions")
    async def completions(request: HttpRequest) -> Response:
        return await served.answer(request, await _read(request, wire.parse_text))

    responses.add_route(app, read=_read, answer=served.answer)
    tokens.add_routes(app, read=_read, models=models, answers=answers)

    @app.post("/v1/embeddings")
    async def embeddings(request: HttpRequest) -> Response:
        body = await _body(request, MAX_EMBEDDINGS_BODY_BYTES, advice="; send fewer texts at once")
        return await served.embed(request, await _parsed(wire.parse_embeddings, body))

    @app.api_route("/v1/models", methods=web.READING)
    @app.api_route("/v1/models/", methods=web.READING)
    async def list_models() -> Response:
        return JSONResponse(_listed(models, models.names, created))

    @app.api_route("/v1/models/{name:path}", methods=web.READING)
    async def show_model(name: str) -> Response:
        return JSONResponse(_listed(models, [models.find(name)], created)["data"][0])

    @app.post("/web/markdown")
    async def markdown(request: HttpRequest) -> Response:
        text = (await _body(request, MAX_MARKDOWN_BYTES)).decode("utf-8", "replace")
        return JSONResponse(await asyncio.to_thread(as_html, text))

    @app.api_route("/metrics", methods=web.READING)
    async def show_metrics() -> Response:
        return Response(metrics.render(), media_type="text/plain; version=0.0.4; charset=utf-8")

    @app.api_route("/health", methods=web.READING)
    async def health() -> Response:
        return JSONResponse({"status": "ok"})

    return app


def _listed(models: Models, names: Sequence[str], created: int) -> dict[str, Any]:
    return replies.render_models(names, models.loaded(), models.local(), models.questions(), created=created)


def _given(responder: Responder | Mapping[str, Responder]) -> Models:
    return Models(dict(responder) if isinstance(responder, Mapping) else {responder.name: responder})


def serve(
    model: Reference | Responder | Sequence[Reference] | Models,
    *,
    host: str = "127.0.0.1",
    port: int = 8080,
    api_key: str | None = None,
    cors: Sequence[str] = (),
    on_ready: Callable[[str], None] | None = None,
) -> None:
    """Serve models until Ctrl-C. Of references the first is loaded now and the others when they are asked for; a Responder stays the
    caller's, and `auto` has to be one.

    `port` 0 takes a free one. `cors`: see `create_app`. `on_ready` gets the base URL (`http://127.0.0.1:8080/v1`) as soon as requests
    are answered: those that come before the first model is loaded are told to come again, with status 503.
    Raises UsageError for a host that others can reach without a key, for a key that cannot be sent or is empty, for origins without a
    key, and for a port that cannot be had; what `nomoat.responder.load` raises.
    """
    bounds.require_text(host, "`host`")
    cors = bounds.several(cors, "origins may be let in")
    if api_key is not None:
        require_sendable(api_key)
    if not net.is_loopback(host) and api_key is None:
        raise UsageError(
            f"`{host}` can be reached from other machines, and there is no API key",
            hint="add `--api-key KEY`, or serve this machine only with `--host 127.0.0.1` (in Python: `api_key`, `host`)",
        )
    require_origins(cors, api_key)
    allow_many()
    with bind(host, port) as listener:
        models = _models(model)
        try:
            with saying_that_it_loads(listener, api_key=api_key, cors=cors), models.use(models.names[0]):
                pass  # what cannot be loaded is said before anything is served
            _run(create_app(models, api_key=api_key, cors=cors), listener, host, on_ready)
        finally:
            models.close()


def _models(model: Reference | Responder | Sequence[Reference] | Models) -> Models:
    if isinstance(model, Models):
        return model
    if isinstance(model, Responder):
        return _given(model)
    given = [model] if isinstance(model, str | os.PathLike) or not isinstance(model, Iterable) else model
    return from_references([references.named(one) for one in given])


def _run(app: FastAPI, listener: socket, host: str, on_ready: Callable[[str], None] | None) -> None:
    if on_ready is not None:
        bound_port = listener.getsockname()[1]
        on_ready(f"http://{f'[{host}]' if ':' in host else host}:{bound_port}/v1")
    server = Server(app)
    try:
        with _ended_by_a_closed_terminal(server):
            server.run(sockets=[listener])
    except KeyboardInterrupt:
        return  # uvicorn has shut down in order, and raises the signal again


@contextmanager
def _ended_by_a_closed_terminal(server: uvicorn.Server) -> Iterator[None]:
    """SIGHUP ends the server as Ctrl-C does, where it would raise an error in the midst of its work; not under `nohup`.

    uvicorn sees to SIGINT and SIGTERM alone.
    """
    number = getattr(signal, "SIGHUP", None)  # not on Windows
    before = signal.getsignal(number) if number is not None else None
    if number is None or not callable(before) or threading.current_thread() is not threading.main_thread():
        yield
        return
    signal.signal(number, server.handle_exit)
    try:
        yield
    finally:
        signal.signal(number, before)


class _EventStream(StreamingResponse):
    """Stops the engine when the client has gone, at whatever point that is noticed."""

    def __init__(self, events: AsyncIterator[bytes], answer: Answer) -> None:
        super().__init__(events, media_type="text/event-stream", headers=STREAM_HEADERS)
        self._answer = answer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._answer.stop()


async def _body(request: HttpRequest, max_bytes: int = MAX_BODY_BYTES, *, advice: str = "") -> bytes:
    """The request's body. Raises BadRequestError if it is packed, and as soon as it is too long: the rest is not read into memory."""
    packed = request.headers.get("content-encoding", "identity")
    if packed.lower() != "identity":
        message = f"`Content-Encoding: {packed}` is not supported; send the body as it is"
        raise BadRequestError(message, code="unsupported", status=415)
    body = bytearray()
    async for piece in request.stream():
        body += piece
        if len(body) > max_bytes:
            raise BadRequestError(f"the body is longer than {max_bytes:,} bytes{advice}", code="body_too_long", status=413)
    return bytes(body)


async def _read(request: HttpRequest, parse: Callable[[bytes], T]) -> T:
    return await _parsed(parse, await _body(request))


async def _parsed(parse: Callable[[bytes], T], body: bytes) -> T:
    return parse(body) if len(body) <= MAX_BODY_BYTES_AT_ONCE else await asyncio.to_thread(parse, body)


class Served:
    """How requests are answered: by which model, in which thread, counted where."""

    def __init__(self, models: Models, answers: Answers, metrics: Metrics) -> None:
        self._models = models
        self._answers = answers
        self._metrics = metrics

    async def answer(self, request: HttpRequest, call: wire.Call, form: replies.MakeForm = replies.Reply) -> Response:
        """The response to a call, whole or as it is written, in this form."""
        name = self._models.find(call.model)
        asked = [dataclasses.replace(one, max_new_tokens=call.max_new_tokens or None) for one in call.requests]
        if call.max_new_tokens == 0:  # read and counted only, for which likelihoods or at least a tokenizer have to be at hand
            asked = [dataclasses.replace(one, top_logprobs=one.top_logprobs or 0) for one in asked]
        decisions = self._decisions(request, name, asked, call.n)
        makes = [functools.partial(self._counted, name, call, at, decisions, time.perf_counter()) for at in range(len(call.requests))]
        answer = self._answers.start(makes)
        reply = form(call, name)
        try:
            if call.stream:
                chunks = answer.chunks(every=SIGN_SECONDS)
                # what is wrong with a request shows here, while there is a status to say it with
                first = await _unless_gone(request, _first(chunks, decisions))
                if first is not None:
                    return _with_decisions(request, _EventStream(self._events(name, reply, *first, chunks), answer))
            else:
                whole = await _unless_gone(request, self._whole(name, answer.chunks(), call, reply))
                if whole is not None:
                    self._metrics.count_request(name, "ok")
                    return _with_decisions(request, whole)
        except BaseException:
            answer.stop()
            self._metrics.count_request(name, "error")
            raise
        answer.stop()
        self._metrics.count_request(name, "gone")
        return Response(status_code=CLIENT_CLOSED_REQUEST)

    async def embed(self, request: HttpRequest, call: wire.EmbeddingCall) -> Response:
        """The response to a wish for embeddings."""
        name = self._models.find(call.model)
        decisions = self._decisions(request, name, (), 1)

        def work(stop: threading.Event) -> Response:
            with self._models.use(name, stop) as loaded:
                responder = decisions.choose_embedder(loaded)
                vectors_ND = responder.embed(call.texts, stop=stop)  # first: a server gives no embeddings and counts no tokens
                num_tokens = 0
                for text in call.texts:
                    if stop.is_set():
                        raise stopped()
                    num_tokens += _num_tokens(responder, text)
                return JSONResponse(replies.render_embeddings(call, name, vectors_ND, num_tokens))

        try:
            response = await _unless_gone(request, self._answers.work(work))
        except BaseException:
            self._metrics.count_request(name, "error")
            raise
        self._metrics.count_request(name, "gone" if response is None else "ok")
        return Response(status_code=CLIENT_CLOSED_REQUEST) if response is None else _with_decisions(request, response)

    def _decisions(self, request: HttpRequest, name: str, asked: Sequence[Request], num_answers: int) -> Decisions:
        """Those of an HTTP request, where `_with_decisions` finds them again, if it ends in an error too."""
        decisions = Decisions(asked, num_answers=num_answers, count=functools.partial(self._metrics.count_routed, name))
        request.state.decisions = decisions
        return decisions

    async def _whole(self, name: str, chunks: AsyncIterator[Item], call: wire.Call, reply: replies.Form) -> Response:
        pieces: list[list[Chunk]] = [[] for _ in call.requests]
        async for item in chunks:
            if item is None:
                continue
            at, chunk = item
            pieces[at].append(chunk)

        def rendered() -> Response:  # in a thread: there may be 1,024 texts, with likelihoods
            return JSONResponse(reply.whole([_whole(name, parts, echo=call.echo) for parts in pieces]))

        return await asyncio.to_thread(rendered)

    async def _events(self, name: str, reply: replies.Form, first: Item, rest: AsyncIterator[Item]) -> AsyncIterator[bytes]:
        usages: dict[int, Usage] = {}
        outcome = "gone"
        try:
            yield await asyncio.to_thread(reply.opening)
            async for item in _first_and_rest(first, rest):
                if item is None:
                    yield replies.SIGN_OF_LIFE
                    continue
                at, chunk = item
                if chunk.usage is not None:
                    usages[at] = chunk.usage
                # the last may tell all of the text again
                yield reply.event(chunk, at) if chunk.finish_reason is None else await asyncio.to_thread(reply.event, chunk, at)
            outcome = "ok"
            yield await asyncio.to_thread(reply.closing, usages)
        except NomoatError as error:
            outcome = "error"
            yield reply.failure(error)
        except Exception:
            outcome = "error"
            raise
        finally:
            self._metrics.count_request(name, outcome)

    def _counted(
        self, name: str, call: wire.Call, at: int, decisions: Decisions, came: float, stop: threading.Event
    ) -> Iterator[Chunk]:  # fmt: skip
        """One text of an answer, counted once it is whole, from when its request `came`."""
        with closing(self._chunks(name, call, at, decisions, stop)) as chunks:
            for chunk in chunks:
                if chunk.usage is not None:
                    self._metrics.count_answer(name, chunk.usage, time.perf_counter() - came)
                yield chunk

    def _chunks(self, name: str, call: wire.Call, at: int, decisions: Decisions, stop: threading.Event) -> Generator[Chunk]:
        """One text of an answer, in its thread."""
        request = call.requests[at]
        with call.naming_tools(), self._models.use(name, stop) as loaded, decisions.choose(loaded, at) as responder:
            if call.echo:
                yield from _prompt_chunks(responder, request, stop)
            if call.max_new_tokens == 0:
                tokens = responder.engine.count_tokens(request)
                usage = Usage(prompt_tokens=tokens, completion_tokens=0, prefill_seconds=0.0, decode_seconds=0.0)
                yield Chunk(text="", finish_reason="length", usage=usage)
            else:
                limit = call.max_new_tokens or _room(responder, request)
                yield from responder.stream(dataclasses.replace(request, max_new_tokens=limit))


def _with_decisions(request: HttpRequest, response: Response) -> Response:
    decisions: Decisions | None = getattr(request.state, "decisions", None)
    for name, value in decisions.headers() if decisions is not None else ():
        response.headers.append(name, value)
    return response


def _num_tokens(responder: Responder, text: str | tuple[int, ...]) -> int:
    return responder.engine.count_tokens(Request(prompt=text)) if isinstance(text, str) else len(text)


def _prompt_chunks(responder: Responder, request: Request, stop: threading.Event) -> Iterator[Chunk]:
    """The prompt as part of the answer, with its likelihoods if they were asked for."""
    if request.top_logprobs is None and request.prompt is not None:
        yield Chunk(text=request.prompt)
        return
    likelihoods = responder.prompt_likelihoods(request, stop=stop)
    text = request.prompt or b"".join(one.content for one in likelihoods).decode("utf-8", "replace")
    yield Chunk(text=text, likelihoods=() if request.top_logprobs is None else tuple(likelihoods))


def _whole(name: str, chunks: Sequence[Chunk], *, echo: bool) -> replies.Whole:
    last = chunks[-1]
    if last.finish_reason is None or last.usage is None:
        raise NomoatError(f"`{name}` ended without its usage")
    text = "".join(chunk.text for chunk in chunks)
    likelihoods = tuple(one for chunk in chunks for one in chunk.likelihoods)
    ahead = replies.ahead_of(chunks[0]) if echo else 0
    return replies.Whole(
        text=text, finish_reason=last.finish_reason, usage=last.usage, likelihoods=likelihoods, ahead=ahead, calls=last.calls
    )  # fmt: skip


async def _first(chunks: AsyncIterator[Item], decisions: Decisions) -> tuple[Item]:
    """The first chunk or, where this machine answers, that there was none for a while: another server may refuse, with a status."""
    async for item in chunks:
        if item is not None or decisions.stays_here:
            return (item,)
    raise NomoatError("the engine ended without a word")


async def _first_and_rest(first: Item, rest: AsyncIterator[Item]) -> AsyncIterator[Item]:
    yield first
    async for item in rest:
        yield item


async def _unless_gone(request: HttpRequest, work: Awaitable[T]) -> T | None:
    """The result of `work`, or None as soon as the client has gone away."""
    working = asyncio.ensure_future(work)
    gone = asyncio.ensure_future(_gone(request))
    try:
        await asyncio.wait({working, gone}, return_when=asyncio.FIRST_COMPLETED)
        return working.result() if working.done() else None
    finally:
        for task in (working, gone):
            task.cancel()


async def _gone(request: HttpRequest) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _room(responder: Responder, request: Request) -> int | None:
    """How many tokens the context leaves for an answer; at least 1, so that the engine itself says that a prompt is too long.

    None where the context is not known: another server knows it.
    """
    context = responder.engine.context_tokens
    if context is None:
        return None
    return max(1, context - responder.engine.count_tokens(request))


async def _nomoat_error(request: HttpRequest, error: Exception) -> Response:
    if not isinstance(error, NomoatError):
        raise error
    status, body = replies.render_error(error)
    return _with_decisions(request, JSONResponse(body, status_code=status, headers=replies.error_headers(error)))


async def _client_left(request: HttpRequest, error: Exception) -> Response:
    """While it was sending its request."""
    return Response(status_code=CLIENT_CLOSED_REQUEST)


async def _http_error(request: HttpRequest, error: Exception) -> Response:
    """No such path, or not with this method."""
    if not isinstance(error, HTTPException):
        raise error
    path, code = request.url.path, None
    message = f"{request.method} {path}: {str(error.detail).lower()}"
    if error.status_code == 404 and path.startswith("/v1/"):
        message, code = f"`{path}` is not served; served are {', '.join(_calls(request.app))}", "unsupported"
    elif error.status_code == 404:
        message += "; the API is under /v1, as in /v1/chat/completions"
    return JSONResponse(replies.error_body(message, code=code), status_code=error.status_code, headers=error.headers)


def _calls(app: FastAPI) -> list[str]:
    """The paths of the API."""
    paths = [route.path for route in app.routes if isinstance(route, Route)]
    return [path for path in paths if path.startswith("/v1/") and not path.endswith(("/", "}"))]
