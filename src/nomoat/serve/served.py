"""How a request to a model is answered, whatever its path: its body is read, its model asked in a thread, its end counted."""

from __future__ import annotations

import asyncio
import dataclasses
import functools
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Iterator, Sequence
from contextlib import closing
from typing import TypeVar

from fastapi import Request as HttpRequest
from fastapi.responses import JSONResponse, Response, StreamingResponse
from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope, Send

from nomoat import hardware, system_errors
from nomoat.errors import BadRequestError, BusyError, ContextExceededError, NomoatError, SettingError, UsageError
from nomoat.records import Chunk, Place, Request, Usage
from nomoat.responder import Responder
from nomoat.serve import replies, wire
from nomoat.serve.answers import Answer, Answers, Item
from nomoat.serve.decisions import Decisions
from nomoat.serve.metrics import Metrics
from nomoat.serve.models import Models
from nomoat.serve.sharing import client_of, stopped

MAX_BODY_BYTES = 2 << 20  # some 400,000 tokens
MAX_BODY_BYTES_AT_ONCE = 64 << 10  # what is longer is parsed beside the event loop, which all clients share
BODY_BYTES_OF_WEIGHT = 1 << 20  # to look for memory that is free takes a millisecond
SIGN_SECONDS = 15.0  # a stream in which nothing comes for longer gets a sign of life: proxies and clients often give up after 60
STREAM_HEADERS = {"cache-control": "no-cache", "x-accel-buffering": "no"}  # nginx gathers what it passes on unless told not to

T = TypeVar("T")


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


async def read_body(
    request: HttpRequest, parse: Callable[[bytes], T], *, max_bytes: int = MAX_BODY_BYTES, advice: str = ""
) -> T:  # fmt: skip
    """The request's body, parsed. Raises BadRequestError if it is packed, and as soon as it is too long: the rest is not read into
    memory; BusyError where others take all the memory for bodies; and what `parse` raises."""
    body = await _body(request, max_bytes, advice)
    if len(body) <= MAX_BODY_BYTES_AT_ONCE:
        return parse(body)

    def parsed() -> T:
        try:
            return parse(body)
        finally:  # else bodies that were read before this one stay in memory, while what they say waits
            if len(body) >= BODY_BYTES_OF_WEIGHT:
                hardware.give_back_freed_memory()

    return await asyncio.to_thread(parsed)


async def _body(request: HttpRequest, max_bytes: int, advice: str) -> bytes:
    packed = request.headers.get("content-encoding", "identity")
    if packed.lower() != "identity":
        message = f"`Content-Encoding: {packed}` is not supported; send the body as it is"
        raise BadRequestError(message, code="unsupported", status=415)
    body, num_bytes = bytearray(), 0
    declared = min(int(request.headers.get("content-length", 0)), max_bytes)  # else it is held as it comes
    busy: BusyError | None = None
    async for piece in request.stream():
        num_bytes += len(piece)
        if num_bytes > max_bytes:
            raise BadRequestError(f"the body is longer than {max_bytes:,} bytes{advice}", code="body_too_long", status=413)
        if busy is not None:
            continue
        try:
            request.state.held.hold_body(max(declared, num_bytes))
            body += piece
        except BusyError as error:
            busy = error  # told at the end: a client that is still sending may read no answer
            body.clear()
    if busy is not None:
        raise busy
    return bytes(body)


class Served:
    """Answers requests: by which model, in which thread, counted where. Whoever has gone is answered with ClientDisconnect."""

    def __init__(self, models: Models, answers: Answers, metrics: Metrics, *, max_tokens: int | None = None) -> None:
        """`max_tokens`: of an answer, where a client asks for more, or says nothing."""
        self._models = models
        self._answers = answers
        self._metrics = metrics
        self._max_tokens = max_tokens

    async def answer(self, request: HttpRequest, call: wire.Call, form: replies.MakeForm = replies.Reply) -> Response:
        """The response to a call, whole or as it is written, in this form."""
        name = self._find(request, call.model, len(call.requests))
        call = self._shortened(call)
        asked = [dataclasses.replace(one, max_new_tokens=call.max_new_tokens or None) for one in call.requests]
        if call.max_new_tokens == 0:  # read and counted only, for which likelihoods or at least a tokenizer have to be at hand
            asked = [dataclasses.replace(one, top_logprobs=one.top_logprobs or 0) for one in asked]
        decisions = self._decisions(request, name, asked, call.n, call.notes)
        makes = [functools.partial(self._counted, name, call, at, decisions, time.perf_counter()) for at in range(len(call.requests))]
        answer = self._answers.start(name, makes, client=client_of(request))
        reply = form(call, name)
        try:
            if call.stream:
                chunks = answer.chunks(every=SIGN_SECONDS)
                # what is wrong with a request shows here, while there is a status to say it with
                first = await _unless_gone(request, _first(chunks, decisions))
                return with_decisions(request, _EventStream(self._events(name, reply, first, chunks), answer))
            response = await _unless_gone(request, self._answer_whole(name, answer.chunks(), call, reply))
        except BaseException as exc:
            answer.stop()
            self._count_failed(name, exc)
            raise
        self._metrics.count_request(name, "ok")
        return with_decisions(request, response)

    async def embed(self, request: HttpRequest, call: wire.EmbeddingCall) -> Response:
        """The response to a wish for embeddings."""
        name = self._models.find(call.model)
        decisions = self._decisions(request, name, (), 1)

        def embedded(loaded: Responder, stop: threading.Event) -> Response:
            responder = decisions.choose_embedder(loaded)
            if call.dimensions is not None:
                wire.require_dimensions(call.dimensions, responder.embed(()).shape[1])
            try:
                vectors_ND = responder.embed(call.texts, stop=stop)  # first: a server gives no embeddings and counts no tokens
            except SettingError:  # that is about this server
                raise
            except (ContextExceededError, UsageError) as exc:
                raise wire.about_input(exc, call) from exc
            num_tokens = 0
            for text in call.texts:
                if stop.is_set():
                    raise stopped()
                num_tokens += _num_tokens(responder, text)
            return JSONResponse(replies.render_embeddings(call, name, vectors_ND, num_tokens))

        return with_decisions(request, await self.work(request, name, embedded))

    async def work(self, request: HttpRequest, model: str | None, ask: Callable[[Responder, threading.Event], T]) -> T:
        """What `ask` gives of a model, in a thread. It is told what is set when nobody waits for it any more."""
        name = self._find(request, model, 1)

        def asked(stop: threading.Event) -> T:
            with self._models.use(name, stop) as loaded:
                return ask(loaded, stop)

        try:
            found = await _unless_gone(request, self._answers.work(name, asked, client=client_of(request)))
        except BaseException as exc:
            self._count_failed(name, exc)
            raise
        self._metrics.count_request(name, "ok")
        return found

    async def count(self, request: HttpRequest, call: wire.Call) -> int:
        """The tokens of a call's one prompt, as the model that would answer it sees it; no answer is written."""
        (asked,) = call.requests
        self._models.require_template(self._models.find(call.model), asked)

        def counted(loaded: Responder, _stop: threading.Event) -> int:
            with call.in_its_words(0):
                return loaded.engine.count_tokens(asked)

        return await self.work(request, call.model, counted)

    def _find(self, request: HttpRequest, model: str | None, num_texts: int) -> str:
        """The name of a model that has as many more texts to write now. Raises UnknownModelError and BusyError."""
        name = self._models.find(model)
        try:
            request.state.held.hold_texts(num_texts)
        except BusyError as error:
            self._count_failed(name, error)
            raise
        return name

    def _shortened(self, call: wire.Call) -> wire.Call:
        """The call with no longer an answer than this server gives; one that asked for more has a note of it."""
        asked, most = call.max_new_tokens, self._max_tokens
        if most is None or (asked is not None and asked <= most):
            return call
        told = () if asked is None else (f"an answer has at most {most:,} tokens on this server",)
        return dataclasses.replace(call, max_new_tokens=most, notes=(*call.notes, *told))

    def _count_failed(self, name: str, error: BaseException) -> None:
        self._metrics.count_request(name, "gone" if isinstance(error, ClientDisconnect) else "error")

    def _decisions(
        self, request: HttpRequest, name: str, asked: Sequence[Request], num_answers: int, notes: Sequence[str] = ()
    ) -> Decisions:  # fmt: skip
        """Those of an HTTP request, where `with_decisions` finds them again, if it ends in an error too."""
        count = functools.partial(self._metrics.count_routed, name)
        decisions = Decisions(asked, num_answers=num_answers, count=count, notes=notes)
        request.state.decisions = decisions
        return decisions

    async def _answer_whole(self, name: str, chunks: AsyncIterator[Item], call: wire.Call, reply: replies.Form) -> Response:
        pieces: list[list[Chunk]] = [[] for _ in call.requests]
        async for item in chunks:
            if item is None:
                continue
            at, chunk = item
            pieces[at].append(chunk)

        def rendered() -> Response:  # in a thread: there may be 1,024 texts, with likelihoods
            return JSONResponse(reply.whole([_joined_chunks(name, parts, echo=call.echo) for parts in pieces]))

        return await asyncio.to_thread(rendered)

    async def _events(self, name: str, reply: replies.Form, first: Item, rest: AsyncIterator[Item]) -> AsyncIterator[bytes]:
        usages: dict[int, Usage] = {}
        outcome = "gone"
        try:
            yield await asyncio.to_thread(reply.opening)
            async for item in _first_and_rest(first, rest):
                # That the client has left shows between two writes; each into a lost connection is a line of the log.
                await asyncio.sleep(0)
                if item is None:
                    yield reply.sign_of_life
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
        except Exception as exc:
            outcome = "error"
            if (want := system_errors.as_want(exc)) is None:
                raise
            yield reply.failure(want)
        finally:
            self._metrics.count_request(name, outcome)

    def _counted(
        self, name: str, call: wire.Call, at: int, decisions: Decisions, came: float, stop: threading.Event
    ) -> Iterator[Chunk | Place]:  # fmt: skip
        """One text of an answer, counted once it is whole, from when its request `came`, or its client has left."""
        with closing(self._chunks(name, call, at, decisions, stop)) as chunks:
            for chunk in chunks:
                if isinstance(chunk, Chunk) and chunk.usage is not None:
                    if chunk.finish_reason == "cancelled":
                        self._metrics.count_left(name, chunk.usage)
                    else:
                        self._metrics.count_answer(name, chunk.usage, time.perf_counter() - came)
                yield chunk

    def _chunks(self, name: str, call: wire.Call, at: int, decisions: Decisions, stop: threading.Event) -> Generator[Chunk | Place]:
        """One text of an answer, in its thread, and where its model chooses, in one of the side's it is decided for by then."""
        self._models.require_template(name, call.requests[at])
        with call.in_its_words(at), self._models.use(name, stop) as loaded:
            if (place := decisions.place(loaded, at)) is not None:
                yield place
            with decisions.choose(loaded, at) as responder, closing(_text(responder, call, call.requests[at], stop)) as chunks:
                while True:
                    if place is not None and (now := decisions.place(loaded, at)) is not None and now != place:
                        yield (place := now)
                    if (chunk := next(chunks, None)) is None:
                        return
                    yield chunk


def with_decisions(request: HttpRequest, response: Response) -> Response:
    """The response with headers that say who answered and why, where that was decided."""
    decisions: Decisions | None = getattr(request.state, "decisions", None)
    for name, value in decisions.headers() if decisions is not None else ():
        response.headers.append(name, value)
    return response


def _text(responder: Responder, call: wire.Call, request: Request, stop: threading.Event) -> Generator[Chunk]:
    _require_infill(responder, request)
    if call.echo:
        asked = dataclasses.replace(request, max_new_tokens=call.max_new_tokens or None)  # how it goes on is known while it is read
        yield from _prompt_chunks(responder, asked, stop)
    if call.max_new_tokens == 0:
        tokens = responder.engine.count_tokens(request)
        usage = Usage(prompt_tokens=tokens, completion_tokens=0, prefill_seconds=0.0, decode_seconds=0.0)
        yield Chunk(text="", finish_reason="length", usage=usage)
    else:
        limit = call.max_new_tokens or _room(responder, request)
        yield from responder.stream(dataclasses.replace(request, max_new_tokens=limit))


def _require_infill(responder: Responder, request: Request) -> None:
    """Raises BadRequestError if a middle is asked for that this model, as far as is known here, has no tokens for."""
    tokenizer = responder.engine.tokenizer
    if request.suffix and tokenizer is not None and tokenizer.marks is None:
        what = f"`{responder.name}` has no tokens to fill in the middle of a text; ask a model of code that has them"
        raise BadRequestError(f"`suffix`: {what}, such as Qwen2.5-Coder", param="suffix", code="unsupported")


def _num_tokens(responder: Responder, text: str | tuple[int, ...]) -> int:
    """Of a text that becomes a vector."""
    if not isinstance(text, str):
        return len(text)
    tokenizer = responder.engine.tokenizer
    return responder.engine.count_tokens(Request(prompt=text)) + (0 if tokenizer is None else len(tokenizer.special.end_ids))


def _prompt_chunks(responder: Responder, request: Request, stop: threading.Event) -> Iterator[Chunk]:
    """The prompt as part of the answer, with its likelihoods if they were asked for."""
    if request.top_logprobs is None and request.prompt is not None:
        yield Chunk(text=request.prompt)
        return
    likelihoods = responder.prompt_likelihoods(request, stop=stop)
    text = request.prompt or b"".join(one.content for one in likelihoods).decode("utf-8", "replace")
    yield Chunk(text=text, likelihoods=() if request.top_logprobs is None else tuple(likelihoods))


def _joined_chunks(name: str, chunks: Sequence[Chunk], *, echo: bool) -> replies.WholeReply:
    last = chunks[-1]
    if last.finish_reason is None or last.usage is None:
        raise NomoatError(f"`{name}` ended without its usage", hint="ask again")
    text = "".join(chunk.text for chunk in chunks)
    likelihoods = tuple(one for chunk in chunks for one in chunk.likelihoods)
    ahead = replies.ahead_of(chunks[0]) if echo else 0
    return replies.WholeReply(
        text=text, finish_reason=last.finish_reason, usage=last.usage, likelihoods=likelihoods, ahead=ahead, calls=last.calls,
        stopped_by=last.stopped_by,
    )  # fmt: skip


async def _first(chunks: AsyncIterator[Item], decisions: Decisions) -> Item:
    """The first chunk or, where this process answers, that there was none for a while: another server may refuse, with a status."""
    async for item in chunks:
        if item is not None or decisions.needs_no_server:
            return item
    raise NomoatError("the engine ended without a word", hint="ask again")


async def _first_and_rest(first: Item, rest: AsyncIterator[Item]) -> AsyncIterator[Item]:
    yield first
    async for item in rest:
        yield item


async def _unless_gone(request: HttpRequest, work: Awaitable[T]) -> T:
    """The result of `work`. Raises ClientDisconnect as soon as the client has gone away."""
    working = asyncio.ensure_future(work)
    gone = asyncio.ensure_future(_gone(request))
    try:
        await asyncio.wait({working, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise ClientDisconnect
        return working.result()
    finally:
        for task in (working, gone):
            task.cancel()


async def _gone(request: HttpRequest) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _room(responder: Responder, request: Request) -> int | None:
    """How many tokens the context leaves for an answer; at least 1: counting, or the engine itself, says that a prompt is too long.

    None where the context is not known: another server knows it.
    """
    context = responder.engine.context_tokens
    if context is None:
        return None
    return max(1, context - responder.engine.count_tokens(request))
