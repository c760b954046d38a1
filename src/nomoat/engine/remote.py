"""A model behind an OpenAI-compatible server: a cloud API, or Ollama, LM Studio, vLLM, llama.cpp, another nomoat.

A server that is busy or cannot be reached is asked again, with waits that grow (`pacing`); an answer that broke off is not, because
part of it may have been shown: `Responder.complete` asks for it again. Settings a server refuses are left out (`dialect`).

Not covered: likelihoods, images.
"""

from __future__ import annotations

import copy
import hashlib
import itertools
import json
import logging
import re
import threading
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import urlsplit

from nomoat import net
from nomoat.engine import Engine, closed, pacing, server_address
from nomoat.engine.budget import Bill, Calls, Meter
from nomoat.engine.dialect import (
    SERVER_ERROR,
    Body,
    Dialect,
    cached_tokens,
    completion_tokens,
    meant_status,
    prompt_tokens,
    status_in,
    text_of,
    words_of,
)  # fmt: skip
from nomoat.engine.tool_calls import Gathered
from nomoat.errors import Fate, NomoatError, RedirectedError, RemoteError, UnsupportedError, UsageError, is_of_what_was_asked
from nomoat.providers import ANY_SERVER
from nomoat.records import Chunk, ContinuationScore, FinishReason, Request, Usage
from nomoat.textfiles import whole_characters

if TYPE_CHECKING:
    import httpx

# A CPU server may think about a long prompt for minutes before it sends the first byte.
READ_TIMEOUT_SECONDS = 600.0
# An answer may take so much, and so much more a token: events of most servers have some 300 bytes, and not all count what was thought.
MOST_BYTES, MOST_BYTES_A_TOKEN = 32 << 20, 4096
MOST_NEW_TOKENS = 1 << 18  # where none are said; more than any model writes
MAX_ATTEMPTS = 8  # where a server refuses for now: with the waits of `pacing`, about a minute, as long as most limits count
TOLD_AT_ATTEMPT = 4  # some seconds after the first: whoever waits is told why, once
MAX_CONNECTS = 3
TOO_MANY_REQUESTS = 429
REFUSED_FOR_NOW = frozenset({408, 409, 425, TOO_MANY_REQUESTS})
GAVE_UP_WAITING = frozenset({504, 524})  # a gateway: what stands behind it may have worked, and may go on
QUOTA_CODES = frozenset({"insufficient_quota", "billing_hard_limit_reached"})  # a 429 that no waiting helps
FILTER_CODES = frozenset({"content_filter", "content_policy_violation", "invalid_prompt"})
# How OpenAI says that a model used up its room while it thought, in place of an empty answer.
NO_ROOM = re.compile(r"could not finish the message because max_tokens\b", re.IGNORECASE)
NO_JSON = (json.JSONDecodeError, UnicodeDecodeError)
BROKEN_WORDS = (ValueError, RecursionError)  # of whoever reads an answer: no JSON, no UTF-8, thousands of digits or of brackets
MAX_QUOTED_CHARACTERS = 300
NO_HEADERS: Mapping[str, str] = {}
FINISH_REASONS: dict[str, FinishReason] = {"length": "length", "content_filter": "filtered"}
FAILED = "error"  # the finish reason of Mistral and OpenRouter for an answer that failed midway
FAILURES = {"error", "message", "detail", "text"}  # what events have that tell of a failure, in place of `choices`
NEEDED_HEADERS = frozenset(
    {"host", "accept", "accept-encoding", "connection", "content-type", "content-length", "user-agent", "authorization"}
)
LITELLM = "x-litellm-"  # begins headers of its proxy's answers
log = logging.getLogger("nomoat.engine")
_proxy_ports: set[int] = set()  # of this machine, where one has answered this process; what is done with it is atomic
ABOUT_THIS_MACHINE = "x-stainless-"  # the SDK's headers with the system, the processor, versions


def remote_engine(ref: str, *, as_client: bool = True) -> RemoteEngine:
    """The engine that a reference to a server names; see `server_address` for the forms. `as_client`: see `responder.load`.

    Connects only if the reference leaves the model out. Raises UsageError for a reference that cannot be meant or a key that
    is not set, OfflineError, RemoteError.
    """
    provider, base_url, model, key = server_address.parse_to_ask(ref, as_client=as_client)
    engine = RemoteEngine(base_url=base_url, model=model, key=key, provider=provider, as_client=as_client)
    if not model:
        try:
            engine.model = _only_model(ref, engine.list_models())
        except NomoatError:
            engine.close()
            raise
    return engine


@dataclass(slots=True)
class _Sent:
    """What one request has sent to a server outside so far, all its attempts together. Its answer may be read in several threads."""

    num_bytes: int = 0
    most_bytes_in: int = MOST_BYTES  # that an answer may have


@dataclass(slots=True)
class _Told:
    """What a server has told so far of one answer. The SDK does not check what a server sends."""

    calls: Gathered = field(default_factory=Gathered)
    has_begun: bool = False  # something of an answer has come, if only whose turn it is
    has_text: bool = False  # be it empty
    is_refused: bool = False  # its words are those of a refusal
    finish_reason: FinishReason | None = None
    usage: Any = None
    failure: str = ""  # the words of an event that was nothing of an answer, which some send in place of the rest


class RemoteEngine(Engine):
    """One model of one server. Safe to call from several threads."""

    context_tokens: int | None = None

    def __init__(
        self,
        *,
        base_url: str,
        model: str,
        key: str,
        provider: str = ANY_SERVER,
        read_timeout_seconds: float = READ_TIMEOUT_SECONDS,
        as_client: bool = True,
    ) -> None:
        import httpx
        import openai

        self.base_url = base_url.rstrip("/")
        self._origin = _origin(httpx.URL(self.base_url))
        self._port = net.port_of(self.base_url)
        self.model = model
        self.host = net.host_of(base_url)
        self._provider = provider
        self._key = key
        self._key_variables = server_address.variables_asked_for(provider, as_client=as_client)
        self._timeout_seconds = read_timeout_seconds
        self.meter: Meter | None = None  # set by whoever has a budget to keep
        self.has_to_stay = False  # set by whoever asks what may not leave this machine, whatever `gateways` says meanwhile
        self._asks_again = True
        self._wants_whole = self._asks_alone = False
        self._require_may_leave: Callable[[], None] = lambda: None
        self.calls = Calls()
        self._pace = pacing.Pace(counts_silent=as_client)
        self._dialect = Dialect(self.host, is_cloud=provider != ANY_SERVER)
        self._sending = threading.local()  # `sent`: whose this thread sends
        http_client = net.client("ask a model server", hosts=[self.host])
        http_client.event_hooks["request"].append(self._before_each_attempt)
        http_client.event_hooks["response"] += [self._refuse_proxy, self._bound]
        self._client = openai.OpenAI(
            api_key=key,
            base_url=self.base_url,
            http_client=cast(Any, http_client),  # newer SDKs are typed for httpx2 and take httpx as well
            timeout=cast(Any, httpx.Timeout(read_timeout_seconds, connect=net.CONNECT_TIMEOUT_SECONDS)),
            max_retries=0,  # asked again here, where each call is metered
        )

    def __repr__(self) -> str:
        return f"RemoteEngine({self.base_url}#{self.model})"

    def with_meter(self, meter: Meter) -> RemoteEngine:
        """This engine with a meter of its own; the connection, its pace and what was learned of the server are shared."""
        metered = copy.copy(self)
        metered.meter = meter
        return metered

    def asked_once(self) -> RemoteEngine:
        """This engine as `with_meter` gives it, but where the server refuses for now, or is not reached, that is raised at once."""
        once = copy.copy(self)
        once._asks_again = False
        return once

    def asked_for_whole(self, *, alone: bool) -> RemoteEngine:
        """See `Engine.asked_for_whole`. Not covered: who else asks that server, such as an engine for another model of it."""
        strict = copy.copy(self)
        strict._wants_whole, strict._asks_alone = True, alone
        return strict

    def asked_while(self, require_may_leave: Callable[[], None]) -> RemoteEngine:
        """This engine as `with_meter` gives it, but before each time that it is asked, when its turn has come, this may raise."""
        checked = copy.copy(self)
        checked._require_may_leave = require_may_leave
        return checked

    @property
    def is_local(self) -> bool:
        """Whether what it is asked stays on this machine, as `gateways` and the model's name say by now."""
        return net.stays_here(self.base_url, self.model)

    @property
    def place(self) -> str:
        """The host, and why one on this machine counts as outside, where it does."""
        return f"{self.host}{self._gateway_note}"

    @property
    def _gateway_note(self) -> str:
        return net.gateway_note(self.base_url, self.model)

    @property
    def notes(self) -> tuple[str, ...]:
        """What the server refused of a request, where it changes what its answers mean."""
        return self._about_it(self._dialect.notes)

    def notes_on(self, request: Request) -> tuple[str, ...]:
        """Those of `notes` that concern the answer to this request; known when its first word has come."""
        return self._about_it(self._dialect.notes_on(request))

    @property
    def digest(self) -> str:
        """Server and model name: whether the server changes what stands behind the name is not known here."""
        return "remote-" + hashlib.sha256(f"{self.base_url}#{self.model}".encode()).hexdigest()[:16]

    def generate(self, request: Request) -> Iterator[Chunk]:
        """See `Engine.generate`. Asks again, after a wait, where a server refused for now or could not be reached: see `asked_once`.

        Ends soon, wherever it is, when whoever asks has left (`net.asking_for`).
        Raises RemoteError, OfflineError; UnsupportedError for top_k in a cloud API; BudgetReachedError where there is a meter;
        RedirectedError; StoppedError once it is closed.
        """
        net.require_allowed("ask a model server", self.host, gateway=self._gateway_note)
        request = request if self.meter is None else self.meter.rates.limited(request)
        sent = _Sent(most_bytes_in=MOST_BYTES + MOST_BYTES_A_TOKEN * (request.max_new_tokens or MOST_NEW_TOKENS))
        came_at = self._pace.num_given_up
        for attempt in itertools.count(1):
            try:
                with (
                    self._pace.turn(came_at, alone=self._asks_alone) as turn,
                    closing(self._attempt(request, came_at, sent, turn)) as chunks,
                ):
                    self._require_may_leave()
                    for chunk in _in_whole_characters(chunks):
                        turn.has_begun = True
                        yield chunk
                return
            except NomoatError as error:
                error.bytes_out = sent.num_bytes
                if not isinstance(error, RemoteError) or error.fate != "rejected":
                    raise
                if attempt == self._max_attempts(error):
                    error.was_asked_often = attempt > 1
                    raise
                self._wait(error, attempt, came_at)

    def refusal(self, request: Request) -> UnsupportedError | None:
        """See `Dialect.refusal`. Nothing is sent."""
        return self._dialect.refusal(request)

    def give_up_waiting(self) -> None:
        """Send away the threads that wait to ask, now or later, what was asked before; those whose answer is being written go on."""
        self._pace.give_up_waiting()

    def _max_attempts(self, error: RemoteError) -> int:
        if not self._asks_again or net.certificate_hint(error) is not None:  # which no wait makes a trusted one
            return 1
        return MAX_ATTEMPTS if error.status is not None else MAX_CONNECTS

    def _wait(self, error: RemoteError, attempt: int, came_at: int) -> None:
        """As long as the number of attempts suggests, or longer if the server asks for it; with all others, if it was too much for it.

        A server may ask for no wait at all, or for one until a time that our clock has passed.
        """
        seconds = max(pacing.wait_before(attempt), error.wait_seconds or 0.0)
        if seconds > pacing.LONGEST_ASKED_WAIT_SECONDS:
            error.hint = f"the server asks to wait for {seconds / 60:,.0f} minutes"
            raise error
        if attempt == TOLD_AT_ATTEMPT and self._pace.is_first_told():
            # a server's own words may repeat the question
            is_kept = error.status is not None and net.asks_for_another()
            why = f"`{self.host}` answered {error.status}" if is_kept else error.message
            log.warning("note: `%s` keeps refusing, and is asked again: %s", self.host, why)
        if error.status == TOO_MANY_REQUESTS or error.wait_seconds is not None:
            self._pace.too_fast(seconds)
        self._pace.pause(seconds, came_at)

    def _attempt(self, request: Request, came_at: int, sent: _Sent, turn: pacing.Turn) -> Generator[Chunk]:
        """One call, billed where there is a meter."""
        first: float | None = None
        told = _Told()
        with self._metered(request, came_at) as bill, self._translate_errors():
            started = time.perf_counter()  # here: who waits for the budget waits for no server
            stream = self._send(request, sent, told)
            body = None if stream is None else Body(stream.response, self._too_long)
            with stream if stream is not None else nullcontext(()) as events, self._translate_errors(BROKEN_WORDS, told=told):
                for event in events:
                    text = self._read(event, told)
                    if text or (told.calls and first is None):
                        first = first or time.perf_counter()
                        yield Chunk(text=text, begun=not text)
            if told.finish_reason and body is not None and body.is_stream:
                self._dialect.gives_reasons = True
            finish_reason = told.finish_reason or self._end_of(body, told, turn)
            finish_reason = "filtered" if told.is_refused and finish_reason == "stop" else finish_reason
            ended_at = time.perf_counter()
            writing_since = ended_at if first is None or body is None or not body.is_stream else first
            num_read, num_written = prompt_tokens(told.usage), completion_tokens(told.usage, has_written=first is not None)
            usage = Usage(
                prompt_tokens=num_read or 0,
                cached_tokens=cached_tokens(told.usage),
                completion_tokens=num_written or 0,
                is_counted=None not in (num_read, num_written) if stream is not None else finish_reason == "filtered",
                prefill_seconds=writing_since - started,
                decode_seconds=ended_at - writing_since,
                bytes_out=sent.num_bytes,
            )
            if self.meter is not None:
                is_free = stream is None and usage.is_counted
                bill.usd = 0.0 if is_free else self.meter.rates.billed_usd(request, usage)
        self._pace.went_well()  # here: who has the last chunk asks for no more
        yield Chunk(text="", finish_reason=finish_reason, usage=usage, calls=told.calls.calls)

    def _end_of(self, body: Body | None, told: _Told, turn: pacing.Turn) -> FinishReason:
        """Why an answer ended whose server did not say so; raises what says that it is none, or not whole.

        `body` is None where the question was refused.
        """
        if body is None:
            return "filtered"
        if body.is_cut_json or body.has_error_event or (told.failure and body.is_stream):
            raise self._cut_off(told.failure)
        if not told.has_begun:
            raise self._no_answer()
        if not body.is_whole or not (told.has_text or told.calls):
            raise self._cut_off()
        if body.is_stream and not self._may_end_without_reason(turn):
            error = self._cut_off()
            error.ended_bare = True
            raise error
        return "stop"

    def _may_end_without_reason(self, turn: pacing.Turn) -> bool:
        """Whether what the end mark alone ended is whole: llama-cpp-python's server ends an answer so when the next question comes.

        Where none came it is, and tells that the server never gives reasons; but of one that gave some, only what was asked alone.
        Where one came, and nothing is known of the server, it is for whoever cannot ask again.
        """
        if turn.is_newest and self._dialect.gives_reasons is None:
            self._dialect.gives_reasons = False
        if self._dialect.gives_reasons is None:
            return not self._wants_whole
        return not self._dialect.gives_reasons or (turn.is_newest and self._asks_alone)

    @contextmanager
    def _metered(self, request: Request, came_at: int) -> Iterator[Bill]:
        """A call that is paid from the budget, where there is one. A server that was not asked takes no money.

        Raises what `Pace.turn` raises, where whoever asks has left while this waited for the budget.
        """
        with self.meter.call(request) if self.meter is not None else nullcontext(Bill(0.0)) as bill:
            most, bill.usd = bill.usd, 0.0
            self._pace.require_asker(came_at)
            bill.usd = most
            with self.calls.under_way(request, bill):
                yield bill

    def score(self, request: Request, continuations: Sequence[str]) -> list[ContinuationScore]:
        """Always raises UnsupportedError."""
        raise UnsupportedError(
            f"`{self.model}` at `{self.host}` gives no likelihoods", hint="compare its written answers: use an `exact` suite"
        )

    def count_tokens(self, request: Request) -> int:
        """Always raises UnsupportedError."""
        raise UnsupportedError(
            f"the tokenizer of `{self.model}` at `{self.host}` is not known here", hint="use a model on this machine"
        )

    def list_models(self) -> list[str]:
        """Names of the models the server has. Raises RemoteError."""
        with self._translate_errors(BROKEN_WORDS):
            try:  # the SDK stumbles over a page, such as a web server's own, as we do over one of another form
                page: Any = self._client.models.list()
                return [str(row.id) for row in page.data]
            except (AttributeError, TypeError) as exc:
                raise self._no_answer() from exc

    def close(self) -> None:
        self._client.close()

    def _send(self, request: Request, sent: _Sent, told: _Told) -> Any:
        """The SDK's stream of events, still to be read; None if there is no answer but why it ended: the provider's content filter
        refused the question, or the model used up its room while it thought."""
        import openai

        self._sending.sent = sent
        body = self._dialect.body(self.model, request)
        while True:
            try:
                return (self._client.chat.completions if "messages" in body else self._client.completions).create(**body)
            except (openai.BadRequestError, openai.UnprocessableEntityError, openai.InternalServerError) as exc:
                said = self._said(exc.body, exc.response.text)
                if meant_status(exc.status_code, said, exc.code) >= SERVER_ERROR:
                    raise
                if exc.code in FILTER_CODES or NO_ROOM.match(said):
                    told.finish_reason = None if exc.code in FILTER_CODES else "length"
                    return None
                learned = self._dialect.learn(said, body)
                refused, body = body, self._dialect.body(self.model, request)
                if not learned or body == refused:
                    raise

    def _read(self, event: Any, told: _Told) -> str:
        """The text of one event; what else it tells is kept in `told`. Raises RemoteError where it tells that the answer failed."""
        usage = getattr(event, "usage", None)
        told.usage = usage or told.usage
        try:
            if not event.choices:
                extra = event.model_extra or {}
                if event.choices is None and usage is None and not extra.keys().isdisjoint(FAILURES):  # else a ping, or the like
                    told.failure = words_of(extra) or told.failure
                return ""
            choice = event.choices[0]
            delta = getattr(choice, "delta", None)
            text = text_of(getattr(choice, "text", None) if delta is None else delta.content)
            refusal = getattr(delta, "refusal", None)
            told.calls.add(getattr(delta, "tool_calls", None) or ())
        except (AttributeError, TypeError) as exc:
            raise self._odd_answer() from exc
        reason, error = getattr(choice, "finish_reason", None) or None, getattr(choice, "error", None)
        if not all(isinstance(said, str | None) for said in (text, refusal, reason)):
            raise self._odd_answer()
        if error or reason == FAILED:
            raise self._failed(words_of(error))
        if reason:
            told.finish_reason = FINISH_REASONS.get(reason, "stop")
        if delta is None and text is None and not reason:  # an event beside the answer, such as a filter's of what came before
            return ""
        told.is_refused = told.is_refused or bool(refusal)
        told.has_begun, told.has_text, told.failure = True, told.has_text or text is not None, ""
        return text or refusal or ""

    @contextmanager
    def _translate_errors(self, no_answer: tuple[type[Exception], ...] = NO_JSON, *, told: _Told | None = None) -> Iterator[None]:
        """`told`: of an answer that the server has begun to send, so that there is a connection."""
        import httpx
        import openai

        broken = self._lost if told is None else self._cut_off
        try:
            yield
        except openai.APITimeoutError as exc:
            was_sent = not isinstance(exc.__cause__, httpx.ConnectTimeout | httpx.PoolTimeout)
            fate: Fate = "final" if was_sent else "rejected"
            hint = (None if was_sent else net.proxy_hint(self.base_url)) or "try again, or ask for less"
            raise RemoteError(f"`{self.host}` did not answer within {self._timeout_seconds:g} s", hint=hint, fate=fate) from exc
        except openai.APIConnectionError as exc:
            if isinstance(exc.__cause__, NomoatError):
                raise exc.__cause__ from exc
            raise broken(exc.__cause__ or exc) from exc
        except openai.APIStatusError as exc:
            said = self._said(exc.body, exc.response.text)
            code = exc.type if exc.type in QUOTA_CODES else exc.code
            raise self._refused(exc.status_code, said, code=code, param=exc.param, headers=exc.response.headers) from exc
        except openai.APIError as exc:  # an error event within the stream
            said, status = words_of(exc.body) or exc.message, status_in(exc.body)
            if status is not None and told is not None and not told.has_begun:  # in place of an answer with this status
                raise self._refused(status, self._quote(said), code=exc.code, param=exc.param) from exc
            raise self._failed(said) from exc
        except httpx.HTTPError as exc:
            raise broken(exc) from exc
        except no_answer as exc:
            raise self._no_answer() from exc
        except RuntimeError as exc:  # httpx's word for a client that is closed
            if not self._client.is_closed():
                raise
            raise closed() from exc

    def _about_it(self, notes: Sequence[str]) -> tuple[str, ...]:
        return tuple(f"`{self.model}` at `{self.host}` {note}" for note in notes)

    def _no_answer(self) -> RemoteError:
        return RemoteError(
            f"`{self.host}` sent something that is no answer of an OpenAI-compatible server",
            hint=f"check the address: is `{self.base_url}` the server's base, ending in /v1?",
            fate="lost",
        )

    def _odd_answer(self) -> RemoteError:
        """Asked for again, it would be paid for again, and come in the same form."""
        error = self._no_answer()
        error.fate, error.hint = "final", "ask another model, or another server that has this one"
        return error

    def _too_long(self) -> RemoteError:
        return RemoteError(
            f"`{self.host}` goes on sending after more than any answer to what was asked for can be", hint="ask another server"
        )

    def _failed(self, said: str) -> RemoteError:
        why = f": {self._quote(said)}" if said else ""
        return RemoteError(f"`{self.host}` failed while it answered{why}", hint="try again", fate="lost")

    def _cut_off(self, cause: BaseException | str = "") -> RemoteError:
        """`cause`: what broke the connection, or what the server said."""
        why = f": {self._quote(str(cause)) or type(cause).__name__}" if cause else ""
        others = " while nobody else asks it: some servers, such as llama-cpp-python's, end an answer when the next question comes"
        hint = f"try again{'' if cause else others}"
        return RemoteError(f"`{self.host}` ended the answer of `{self.model}` before it was whole{why}", hint=hint, fate="lost")

    def _lost(self, cause: BaseException) -> RemoteError:
        import httpx

        is_here = net.is_loopback(self.host)
        hint = "is the server running, and the port right?" if is_here else "check the network, then try again"
        return RemoteError(
            f"no connection to `{self.base_url}`: {self._quote(str(cause)) or type(cause).__name__}",
            hint=net.certificate_hint(cause) or net.proxy_hint(self.base_url) or hint,
            fate="rejected" if isinstance(cause, httpx.ConnectError) else "lost",
        )

    def _refused(
        self, sent_status: int, said: str, *, code: object, param: object, headers: Mapping[str, str] = NO_HEADERS
    ) -> RemoteError:
        status = meant_status(sent_status, said, code)
        variable = " or ".join(self._key_variables)
        hints = {
            401: f"check the key in {variable}",
            402: "the account's credit is used up: look at the account",
            403: f"the key in {variable} may not use this model",
            404: f"does the server have a model `{self.model}`, and is the address right?",
            429: "too many requests, or the account's quota is used up: wait, or look at the account",
        } | dict.fromkeys(GAVE_UP_WAITING, "try again, or ask for less")
        if "response_format" in said:
            without = "ask without --json-schema (in Python: `json_schema`), or with one that this server takes"
            hints |= dict.fromkeys((400, 422), without)
        is_for_good = code in QUOTA_CODES or headers.get(pacing.SHOULD_RETRY) == "false"
        for_now = (status in REFUSED_FOR_NOW or status >= 500) and not is_for_good
        fate: Fate = "lost" if status in GAVE_UP_WAITING else "rejected" if for_now else "final"
        error = RemoteError(
            f"`{self.host}` answered {sent_status}: {said or 'nothing more'}",
            status=status,
            hint=hints.get(status, "the server's own fault: try again later" if status >= 500 else None),
            fate=fate,
            wait_seconds=pacing.asked_wait(headers) if for_now else None,
            code=None if code is None or str(code).isdecimal() else self._quote(str(code)),  # some repeat the status
            param=self._quote(param) if isinstance(param, str) else None,
        )
        if status == 403 and is_of_what_was_asked(error):
            error.hint = "ask otherwise, or another model"
        return error

    def _said(self, body: object, text: str) -> str:
        return self._quote(words_of(body) or text)

    def _quote(self, text: str) -> str:
        """What a server said: in one line, not too long, without what drives terminals, and without our key, which some repeat."""
        shown = "".join(character if character.isprintable() else " " for character in text)
        line = " ".join((shown if self._key == server_address.NO_KEY else shown.replace(self._key, "…")).split())
        return line if len(line) <= MAX_QUOTED_CHARACTERS else line[:MAX_QUOTED_CHARACTERS] + "…"

    def _before_each_attempt(self, request: httpx.Request) -> None:
        """Count what is sent, and send it to the server that was named only, and nothing with it that tells about this machine; nor to
        others what is meant for OpenAI, or for the server that OPENAI_BASE_URL names.

        The SDK adds an organisation, a project, the headers of OPENAI_CUSTOM_HEADERS, and the system it runs on. Raises
        RedirectedError where a redirect leads elsewhere, where the server is known as LiteLLM's proxy (see `_refuse_proxy`), and where
        it `has_to_stay` here and is named a gateway by now.
        """
        self._require_named(request.url)
        if self.has_to_stay and not self.is_local:
            raise net.has_to_stay(self.base_url, self._gateway_note, hint="ask a model on this machine")
        if self.is_local and self._port in _proxy_ports:
            raise self._is_proxy("it is not asked")
        if not self.is_local:
            getattr(self._sending, "sent", _Sent()).num_bytes += int(request.headers.get("content-length", 0))
        for name in list(request.headers):
            if name.startswith(ABOUT_THIS_MACHINE) or (self._provider != "openai" and name not in NEEDED_HEADERS):
                del request.headers[name]
        if self._provider != "openai":
            request.headers["user-agent"] = "nomoat"
            request.headers["authorization"] = f"Bearer {self._key}"

    def _refuse_proxy(self, response: httpx.Response) -> None:
        """Raise RedirectedError where a server that counts as this machine says that it is LiteLLM's proxy. This process asks it
        nothing more."""
        if self.is_local and any(name.startswith(LITELLM) for name in response.headers):
            _proxy_ports.add(self._port)
            error = self._is_proxy("its answer is refused")
            error.may_be_billed = response.is_success
            raise error

    def _is_proxy(self, consequence: str) -> RedirectedError:
        parts = urlsplit(self.base_url)
        return RedirectedError(
            f"`{self.base_url}` is LiteLLM's proxy, which may send on what it is asked, and it counts as this machine: {consequence}",
            hint=f"add `{parts.scheme}://{parts.netloc}` to `gateways` in config.toml, or to NOMOAT_GATEWAYS, which goes before it",
        )

    def _bound(self, response: httpx.Response) -> None:
        """Let no more be read of what a server answers than what was asked for may take; errors and lists of models, too."""
        most, pieces = getattr(self._sending, "sent", _Sent()).most_bytes_in, response.iter_bytes

        def bounded(chunk_size: int | None = None) -> Iterator[bytes]:
            num_bytes = 0
            for piece in pieces(chunk_size):
                num_bytes += len(piece)
                if num_bytes > most:
                    response.close()
                    raise self._too_long()
                yield piece

        response.iter_bytes = bounded  # type: ignore[method-assign]  # all ways to read a response go by this one

    def _require_named(self, url: httpx.URL) -> None:
        """Neither prompts nor keys are for others on that host, or between here and there. From http to https, each at its own port,
        is no worse."""
        unencrypted = ("http", *_origin(url)[1:]) if url.scheme == "https" and url.port is None else None
        if self._origin not in (_origin(url), unencrypted):
            raise RedirectedError(
                f"refused to connect to `{url.scheme}://{url.netloc.decode()}` to ask a model server: "
                f"only `{self.base_url}` was asked for, and it sends requests on",
                hint="name that server in its place if you want to use it",
            )


def _in_whole_characters(chunks: Iterable[Chunk]) -> Iterator[Chunk]:
    """The chunks, a character whose halves came in two of them in the later one; a half without the other is `�`."""
    held = ""
    for chunk in chunks:
        text = held + chunk.text
        held = text[-1:] if chunk.finish_reason is None and "\ud800" <= text[-1:] <= "\udbff" else ""
        text = whole_characters(text[: len(text) - len(held)])
        if text or chunk.begun or chunk.finish_reason is not None:
            yield replace(chunk, text=text)


def _only_model(ref: str, names: Sequence[str]) -> str:
    if len(names) == 1:
        return names[0]
    if not names:
        raise UsageError(f"the server at `{ref}` has no model", hint=f"load one there, or name the one to ask for: `{ref}#MODEL`")
    raise UsageError(f"the server at `{ref}` has {len(names)} models: {', '.join(names)}", hint=f"write `{ref}#{names[0]}`")


def _origin(url: httpx.URL) -> tuple[str, str, int | None]:
    return url.scheme, url.host, url.port
