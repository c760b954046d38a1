"""The server: `create_app` makes the ASGI application, `serve` binds a port and runs it.

FastAPI's own pages (Swagger) are off: they load their code from a content network, and nothing here leaves the machine.
So are its redirects to paths without a slash at the end: they would name an address that a proxy in front does not have.
No prompt and no answer is logged.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from socket import socket
from typing import Any

import uvicorn
from fastapi import FastAPI
from fastapi import Request as HttpRequest
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.routing import Route

from nomoat import __version__, bounds, net, references, system_errors
from nomoat.errors import NomoatError, UsageError
from nomoat.responder import Responder
from nomoat.serve import messages, replies, responses, tokens, web, wire
from nomoat.serve.answers import Answers
from nomoat.serve.auth import protect, require_origins, require_sendable
from nomoat.serve.connections import Server, allow_many
from nomoat.serve.decisions import CloudCosts
from nomoat.serve.listening import bind, saying_that_it_loads
from nomoat.serve.metrics import CLIENT_CLOSED_REQUEST, CountErrors, Metrics
from nomoat.serve.models import Models, from_references
from nomoat.serve.served import Served, read_body, with_decisions
from nomoat.serve.sharing import Sharing
from nomoat.serve.web.markdown import as_html

MAX_MARKDOWN_BYTES = 256 << 10  # some 50,000 tokens; what is longer the page shows as plain text
MAX_EMBEDDINGS_BODY_BYTES = 16 << 20  # many texts at once, of some 5,000 Korean characters each

OF_LIKELIHOODS = ("/rerank", "/score")  # vLLM's, llama.cpp's and others'
LIKELIHOODS_HERE = "likelihoods of texts: `/v1/completions` with `echo`, `logprobs` and `max_tokens` 0"
log = logging.getLogger("nomoat.serve")

Reference = str | os.PathLike[str]


def create_app(
    responder: Responder | Mapping[str, Responder] | Models, *, api_key: str | None = None, cors: Sequence[str] = (),
    max_tokens: int | None = None,
) -> FastAPI:  # fmt: skip
    """An OpenAI-compatible application for one responder, for several under the names clients ask for, or for models loaded as needed.

    The caller closes them, after the application has ended. `api_key`: what clients must send; None asks for none. `cors`: origins
    (`https://HOST:PORT`) whose web pages may ask with the key; pages of this machine may anyway. `max_tokens`: see `serve`.
    Raises UsageError for a key that cannot be sent or is empty, for what is no origin, origins without a key, `max_tokens` below 1.
    """
    _require_tokens(max_tokens)
    models = responder if isinstance(responder, Models) else _given(responder)
    answers = Answers()
    metrics = _metrics(models, answers)
    served = Served(models, answers, metrics, max_tokens=max_tokens)
    created = int(time.time())

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        yield
        answers.close()

    app = FastAPI(title="nomoat", version=__version__, openapi_url=None, redirect_slashes=False, lifespan=lifespan)
    app.state.answers = answers
    app.add_middleware(Sharing)
    protect(app, api_key=api_key, cors=cors)
    app.add_middleware(CountErrors, metrics=metrics)  # around the guard
    app.exception_handlers.update(ERRORS)
    web.add_page(app)

    @app.post("/v1/chat/completions")
    async def chat_completions(request: HttpRequest) -> Response:
        return await served.answer(request, await read_body(request, wire.parse_chat))

    @app.post("/v1/completions")
    async def completions(request: HttpRequest) -> Response:
        return await served.answer(request, await read_body(request, wire.parse_text))

    for form in (responses, messages, tokens):
        form.add_routes(app, served)

    @app.post("/v1/embeddings")
    async def embeddings(request: HttpRequest) -> Response:
        advice = "; send fewer texts at once"
        call = await read_body(request, wire.parse_embeddings, max_bytes=MAX_EMBEDDINGS_BODY_BYTES, advice=advice)
        return await served.embed(request, call)

    @app.api_route("/v1/models", methods=web.READING)
    @app.api_route("/v1/models/", methods=web.READING)
    async def list_models() -> Response:
        return JSONResponse(await asyncio.to_thread(_listed, models, models.names, created))

    @app.api_route("/v1/models/{name:path}", methods=web.READING)
    async def show_model(name: str) -> Response:
        return JSONResponse((await asyncio.to_thread(_listed, models, [models.find(name)], created))["data"][0])

    @app.post("/web/markdown")
    async def markdown(request: HttpRequest) -> Response:
        text = await read_body(request, lambda body: body.decode("utf-8", "replace"), max_bytes=MAX_MARKDOWN_BYTES)
        return JSONResponse(await asyncio.to_thread(as_html, text))

    @app.api_route("/metrics", methods=web.READING)
    async def show_metrics() -> Response:
        return Response(metrics.render(), media_type="text/plain; version=0.0.4; charset=utf-8")

    @app.api_route("/health", methods=web.READING)
    async def health() -> Response:
        return JSONResponse({"status": "ok"})

    return app


def _listed(models: Models, names: Sequence[str], created: int) -> dict[str, Any]:
    told = models.local(), models.chats(names), models.questions(names)
    return replies.render_models(names, models.loaded(), *told, created=created)


def _metrics(models: Models, answers: Answers) -> Metrics:
    return Metrics(
        num_texts=lambda: answers.num_texts, num_waiting=lambda: answers.num_waiting, num_loaded=lambda: len(models.loaded()),
        spent_usd=CloudCosts(models).usd, kv_caches=models.kv_caches,
    )  # fmt: skip


def _given(responder: Responder | Mapping[str, Responder]) -> Models:
    return Models(dict(responder) if isinstance(responder, Mapping) else {responder.name: responder})


def serve(
    model: Reference | Responder | Sequence[Reference] | Models,
    *,
    host: str = "127.0.0.1",
    port: int = 8080,
    api_key: str | None = None,
    cors: Sequence[str] = (),
    drain_seconds: int = 0,
    max_tokens: int | None = None,
    memory_bytes: int | None = None,
    context_tokens: int | None = None,
    on_ready: Callable[[str], None] | None = None,
) -> None:
    """Serve models until Ctrl-C. Of references the first is loaded now and the others when they are asked for; a Responder stays the
    caller's, and `auto` has to be one.

    `port` 0 takes a free one. `cors`: see `create_app`. `on_ready` gets the base URL (`http://127.0.0.1:8080/v1`) as soon as requests
    are answered: those that come before the first model is loaded are told to come again, with status 503. `drain_seconds`: how long
    answers under way may be written on once Ctrl-C, or SIGTERM, came; a second one ends them. `max_tokens`: of the longest answer,
    which clients have that ask for a longer one, or say nothing.
    `memory_bytes`: what models that are loaded here may take at once, without it 80 % of what is free; `context_tokens`: their
    context, where their own is longer.
    Raises UsageError in a thread whose event loop runs, for a host that others can reach without a key, for a port that cannot be had,
    and for memory or a context of what is loaded already; what `create_app` and `nomoat.responder.load` raise.
    """
    _require_no_loop()
    bounds.require_text(host, "`host`")
    cors = bounds.several(cors, "origins may be let in")
    if api_key is not None:
        require_sendable(api_key)
    if not net.is_loopback(host) and api_key is None:
        raise UsageError(
            f"`{host}` can be reached from other machines, and there is no API key",
            hint="set NOMOAT_API_KEY or add `--api-key KEY`, or serve this machine only with `--host 127.0.0.1` "
            "(in Python: `api_key`, `host`)",
        )
    require_origins(cors, api_key)
    if bounds.whole("drain_seconds", drain_seconds) < 0:
        raise UsageError(f"`drain_seconds` is {drain_seconds}", hint="it can be 0 or more")
    _require_tokens(max_tokens)
    allow_many()
    with bind(host, port) as listener:
        models = _models(model, memory_bytes, context_tokens)
        try:
            with saying_that_it_loads(listener, api_key=api_key, cors=cors) as hand_over:
                _start_first(models)
                app = create_app(models, api_key=api_key, cors=cors, max_tokens=max_tokens)
                hand_over()
                _run(Server(app, drain_seconds=drain_seconds), listener, host, on_ready)
        finally:
            models.close()


def _require_tokens(max_tokens: int | None) -> None:
    if max_tokens is not None and bounds.whole("max_tokens", max_tokens) < 1:
        raise UsageError(f"`max_tokens` is {max_tokens}", hint="it can be 1 or more; leave it out for no limit")


def _require_no_loop() -> None:
    try:
        asyncio.get_running_loop()
    except RuntimeError:  # there is none
        return
    raise UsageError(
        "an event loop runs in this thread, as in a notebook, and the server needs one of its own",
        hint="serve from another thread: `threading.Thread(target=nomoat.serve, args=[MODEL], daemon=True).start()`",
    )


def _models(
    model: Reference | Responder | Sequence[Reference] | Models, memory_bytes: int | None, context_tokens: int | None
) -> Models:  # fmt: skip
    if isinstance(model, Models | Responder):
        if memory_bytes is not None or context_tokens is not None:
            raise UsageError(
                "`memory_bytes` and `context_tokens` are for models that the server loads, and this one is given to it",
                hint="give its reference, or load it with the context it is to have: `nomoat.load(REF, context_tokens=2048)`",
            )
        return model if isinstance(model, Models) else _given(model)
    given = [model] if isinstance(model, str | os.PathLike) or not isinstance(model, Iterable) else model
    refs = [references.named(one) for one in given]
    return from_references(refs, memory_bytes=memory_bytes, context_tokens=context_tokens)


def _start_first(models: Models) -> None:
    """What cannot be loaded, or run, is said before anything is served. In a function, which keeps no model that is unloaded later."""
    with models.use(models.names[0]) as first:
        first.engine.start()


def _run(server: Server, listener: socket, host: str, on_ready: Callable[[str], None] | None) -> None:
    if on_ready is not None:
        bound_port = listener.getsockname()[1]
        on_ready(f"http://{f'[{host}]' if ':' in host else host}:{bound_port}/v1")
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


async def _nomoat_error(request: HttpRequest, error: Exception) -> Response:
    if not isinstance(error, NomoatError):
        raise error
    status, body = replies.render_error(error)
    body = messages.error_at(request.url.path, status, body)
    return with_decisions(request, JSONResponse(body, status_code=status, headers=replies.error_headers(error)))


async def _want(request: HttpRequest, error: Exception) -> Response:
    """Of threads, where one beside the event loop cannot be begun, or of memory. All else is a bug."""
    if (want := system_errors.as_want(error)) is None:
        raise error
    log.error("%s %s: %s", request.method, request.url.path, want.message)
    return await _nomoat_error(request, want)


async def _client_left(request: HttpRequest, error: Exception) -> Response:
    """While it was sending its request, or waiting for what is not streamed."""
    return Response(status_code=CLIENT_CLOSED_REQUEST)


async def _http_error(request: HttpRequest, error: Exception) -> Response:
    """No such path, or not with this method."""
    if not isinstance(error, HTTPException):
        raise error
    path, code = request.url.path, None
    message = f"{request.method} {path}: {str(error.detail).lower()}"
    if error.status_code == 404 and path.removeprefix("/v1") in OF_LIKELIHOODS:
        message, code = f"`{path}` is not served; {LIKELIHOODS_HERE}", "unsupported"
    elif error.status_code == 404 and path.startswith("/v1/"):
        message, code = f"`{path}` is not served; served are {', '.join(_calls(request.app))}", "unsupported"
    elif error.status_code == 404 and path.startswith("/api/"):
        message += "; this is OpenAI's API, not Ollama's or LM Studio's: its clients take a base URL that ends in /v1"
    elif error.status_code == 404 and (served := path.rstrip("/")) in _paths(request.app):
        message += f"; `{served}` is served, without a slash at its end"
    elif error.status_code == 404:
        message += "; the API is under /v1, as in /v1/chat/completions"
    body = messages.error_at(path, error.status_code, replies.error_body(message, code=code))
    return JSONResponse(body, status_code=error.status_code, headers=error.headers)


ERRORS = {  # and what answers a request that ends in one
    NomoatError: _nomoat_error, ClientDisconnect: _client_left, HTTPException: _http_error, RuntimeError: _want, MemoryError: _want,
}  # fmt: skip


def _calls(app: FastAPI) -> list[str]:
    """The paths of the API."""
    return [path for path in _paths(app) if path.startswith("/v1/") and not path.endswith(("/", "}"))]


def _paths(app: FastAPI) -> list[str]:
    return [route.path for route in app.routes if isinstance(route, Route)]
