"""`auto`: where a request goes, and that what must stay here stays here."""

from __future__ import annotations

import functools
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from homes import write_policy
from misbehaving import FINE, ROWS, Act, Server, Silent, events, piece, say
from patience import PATIENCE_SECONDS
from tiny import write_tiny_gguf

import nomoat
from nomoat import net, responder
from nomoat.asking.database import Database
from nomoat.catalog import prices
from nomoat.engine import Engine, KvCache
from nomoat.engine.fake import FakeEngine
from nomoat.engine.remote import RemoteEngine, remote_engine
from nomoat.errors import (
    ContextExceededError,
    NomoatError,
    NotEnoughDiskError,
    PolicyChangedError,
    RedirectedError,
    RemoteError,
    SettingError,
    StoppedError,
    UsageError,
)
from nomoat.hardware import Detected
from nomoat.records import CallingTurn, Chunk, Decision, Message, Request, ToolCall, ToolResult
from nomoat.responder import Responder
from nomoat.route import budget, fallback, in_force, learned, pii, router
from nomoat.route.pii.guard import WINDOW
from nomoat.route.policy import IfCloudFails, Policy, PolicyFile, default_path
from nomoat.route.router import RouterEngine

pytestmark = pytest.mark.usefixtures("online")
CLOUD = "http://127.0.0.1:9/v1#big"
PRIVATE = "전화는 010-1234-5678입니다"
ONLY_TEXT = "`api.openai.com` is asked for text: it takes no token ids and gives no likelihoods here"


class CloudEngine(FakeEngine):
    """A cloud that remembers what it was told."""

    is_local = False

    def __init__(self) -> None:
        super().__init__()
        self.told: list[Request] = []

    def generate(self, request: Request) -> Iterator[Chunk]:
        self.told.append(request)
        return super().generate(request)


class FixedRouter:
    """A learned router of one opinion."""

    by, local, cloud = "prompt", "small", CLOUD
    local_digest = FakeEngine().digest

    def __init__(self, score: float) -> None:
        self._score = score
        self.asked: list[str] = []

    def score(self, text: str) -> float:
        self.asked.append(text)
        return self._score


def built(
    learned_router: object = None, local: FakeEngine | None = None, **policy: object
) -> tuple[RouterEngine, CloudEngine, list[Decision]]:
    cloud, decisions = CloudEngine(), []
    settings = {"local": "small", "cloud": CLOUD, "default": "cloud", **policy}
    engine = RouterEngine(
        Policy(**settings),  # type: ignore[arg-type]
        Responder("small", local or FakeEngine()),
        Responder(CLOUD, cloud),
        learned=learned_router,  # type: ignore[arg-type]
        on_decision=decisions.append,
    )
    return engine, cloud, decisions


def said(*texts: str, system: str = "") -> Request:
    turns = [Message(role="user" if at % 2 == 0 else "assistant", content=text) for at, text in enumerate(texts)]
    return Request(messages=(*([Message(role="system", content=system)] if system else []), *turns))


def test_without_private_data_the_default_decides() -> None:
    engine, cloud, decisions = built()
    assert "".join(chunk.text for chunk in engine.generate(said("a b"))) == "b a"
    assert len(cloud.told) == 1
    assert decisions == [
        Decision(
            where="cloud", model=CLOUD, why="no router is learned; the policy's default is cloud", rule="default", score=None, kinds=()
        )
    ]


CALL = ToolCall(id="a", name="find", arguments=json.dumps({"who": "김철수"}))


def tool(**told: object) -> str:
    return json.dumps({"type": "function", "function": {"name": "find", **told}})


@pytest.mark.parametrize(
    "request_",
    [
        said(PRIVATE),
        said("call me", system=PRIVATE),
        said(PRIVATE, "I see", "what did I say?"),
        said("hello", PRIVATE, "thanks"),
        said("my resident number: 800101", "go on", "-1234560"),
        said("전화 02-123-", "go on", "4567"),
        said("hello", "010-1234-", "go on", "5678", "thanks"),
        said("call 010-12", "34-5678", "thanks"),
        said("mail kim@", "naver.com", "thanks"),
        replace(said("hello"), messages=tuple(ToolResult(role="tool", content=part, call_id="a") for part in ("010-12", "34-5678"))),
        Request(messages=(Message(role="user", content="call me 010-1234-", name="alice"),), stop=("5678",)),
        Request(prompt=PRIVATE),
        Request(prompt="hello", stop=(PRIVATE,)),
        Request(prompt="hello", suffix=PRIVATE),
        Request(prompt="", suffix=PRIVATE),
        Request(prompt='CALL = "010-12', suffix='34-5678"'),
        Request(prompt="hello", json_schema=json.dumps({"enum": ["010-1234-5678"]})),
        Request(prompt="hello", json_schema=json.dumps({"properties": {"김철수": {"type": "string"}}})),
        Request(prompt="hello", json_schema="{}", schema_name="김철수"),
        Request(prompt="hello", json_schema="{}", schema_description="of 010-1234-5678"),
        Request(messages=(Message(role="user", content="hello", name="김철수"),)),
        replace(said("hello"), template_variables=json.dumps({"who": ["김철수"]})),
        replace(said("hello"), tools=(tool(description="Calls 010-1234-5678"),)),
        replace(said("hello"), tools=(tool(parameters={"enum": ["김철수"]}),)),
        replace(said("hello"), messages=(*said("hello").messages, CallingTurn(role="assistant", content="", calls=(CALL,)))),
        replace(said("hello"), messages=(*said("hello").messages, ToolResult(role="tool", content=PRIVATE, call_id="a"))),
        replace(said("hello"), messages=(*said("hello").messages, ToolResult(role="tool", content="", call_id="010-1234-5678"))),
    ],
    ids=[
        "question",
        "system",
        "earlier turn",
        "answer",
        "split",
        "landline, split",
        "answers, split",
        "split within a group, the answer goes on",
        "mail, the answer goes on",
        "results, split within a group",
        "split before what ends the answer",
        "raw",
        "stop",
        "behind a gap",
        "behind a gap at the beginning",
        "split by a gap",
        "schema",
        "schema's names",
        "schema's own name",
        "schema's description",
        "who speaks",
        "variables",
        "tool",
        "tool's schema",
        "call",
        "result",
        "result's id",
    ],
)
def test_private_data_anywhere_in_a_request_never_leaves(request_: Request) -> None:
    engine, cloud, decisions = built(FixedRouter(0.0), names=("김철수",))
    list(engine.generate(request_))
    assert (cloud.told, decisions[0].where) == ([], "local")


def test_a_verbosity_is_no_reason_not_to_answer_here_what_stays_here(tmp_path: Path) -> None:
    with responder.load(str(write_tiny_gguf(tmp_path / "t.gguf"))) as here:
        engine = RouterEngine(Policy(local="small", cloud=CLOUD, default="cloud"), here, Responder(CLOUD, CloudEngine()))
        asked = replace(said(PRIVATE), verbosity="low", max_new_tokens=1)
        assert Responder("auto", engine).complete(asked).finish_reason == "length"
        assert engine.notes_on(asked) == ("the model is not told `verbosity`: say in a message how long the answer is to be",)


RESIDENTS = "주민번호,뒷자리\n900101,1234568"  # two cells, a pair as a date and an amount are one
AMOUNTS = "Sum the amounts:\n" + "\n".join(f"2401{day:02d},{3_000_000 + 1_111 * day}" for day in range(10, 22))
BOXES, CARD = "9 0 0 1 0 1 - 1 2 3 4 5 6 8", "5500 0000 0000\n0004"


@pytest.mark.parametrize(
    "request_",
    [
        said(RESIDENTS, "ok", AMOUNTS),
        said(RESIDENTS, system=AMOUNTS),
        said("1. first of 2", BOXES, "3 items, not 4"),
        said("3 apples plus 5", system=CARD),
        said("You are clerk no. 5", "7", CARD, "8", "3 more"),
        said("card: 5500 0000", "go on", "0000 0004", system="Of 9 clerks you are the 5th"),
        Request(prompt="1", stop=(CARD, "5")),
    ],
    ids=["table after", "table before", "boxes", "system", "digits around", "split", "stop"],
)
def test_nothing_that_stands_beside_private_data_lets_it_leave(request_: Request) -> None:
    engine, cloud, decisions = built(FixedRouter(0.0))
    assert engine.decide(said(AMOUNTS)).where == "cloud"
    list(engine.generate(request_))
    assert (cloud.told, decisions[0].rule) == ([], "private")


def test_a_further_turn_of_a_long_chat_is_looked_at_with_the_last_ones_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    engine, looked_at, find = built()[0], list[str](), pii.find
    monkeypatch.setattr(
        pii, "find", lambda text, **told: looked_at.append(text if told["kinds"] == pii.KINDS else "") or find(text, **told)
    )
    turns = [f"{at}: " + "What is a moat? " * 100 for at in range(100)]
    assert engine.decide(said(*turns[:99], system="Be kind.")).where == "cloud"
    looked_at.clear()
    assert engine.decide(said(*turns, system="Be kind.")).where == "cloud"
    assert sum(map(len, looked_at)) < 3 * WINDOW < sum(map(len, turns)) / 2


@pytest.mark.parametrize(
    ("texts", "system"),
    [
        (["go on"] * 4 + ["card: 5500 0000", "ok", "0000 0004"], ""),
        (["go on"] * 4 + ["010-12", "34-5678"], ""),
        (["go on"] * 4 + ["What is your password?", "blue42sky"], ""),
        (["P123456789012"], "통관 상담"),
    ],
    ids=["one side's", "next", "asked for", "a word far away"],
)
def test_what_goes_on_in_a_long_chat_never_leaves(texts: list[str], system: str) -> None:
    engine, long = built()[0], ["What is a moat? " * 100] * 40
    assert engine.decide(said(*long, *texts[:-1], system=system)).where == "cloud"
    assert engine.decide(said(*long, *texts, system=system)).rule == "private"
    assert engine.decide(said(*long, *texts, *long, system=system)).rule == "private"


@pytest.mark.parametrize(
    "ends", [said("010", "ok", "1234", "ok", "5678"), replace(said("010-12"), stop=("34-5678",))], ids=["in three turns", "stop"]
)
def test_what_goes_on_behind_a_text_that_fills_a_window_never_leaves(ends: Request) -> None:
    engine, (first, *others) = built()[0], ends.messages
    long = replace(first, content="What is a moat? " * (WINDOW // 16) + first.content)
    assert engine.decide(Request(messages=(long, *others[:-1]))).where == "cloud"
    assert engine.decide(replace(ends, messages=(long, *others))).rule == "private"


def test_a_turn_that_calls_and_says_nothing_does_not_part_what_goes_on_in_a_long_chat() -> None:
    engine = built()[0]
    first = Message(role="assistant", content="What is a moat? " * (WINDOW // 16) + "card: 5500 0000")
    calls = CallingTurn(role="assistant", content="", calls=(CALL,)), ToolResult(role="tool", content="ok", call_id=CALL.id)
    asked = (*said("Go on.").messages, first, *calls, Message(role="assistant", content="0000 0004"))
    assert engine.decide(Request(messages=asked[:-1])).where == "cloud"
    assert engine.decide(Request(messages=asked)).rule == "private"


def test_decision_names_what_was_found_and_not_the_text() -> None:
    engine, _, _ = built(names=("김철수",))
    decision = engine.decide(said(f"김철수, {PRIVATE}"))
    assert decision.kinds == ("phone", "name")
    assert decision.why == "it holds a phone number and a name or a pattern from the policy, which the policy keeps from the cloud"
    assert "1234" not in repr(decision)


def test_private_continuations_are_not_scored_by_the_cloud() -> None:
    engine, _, decisions = built()
    engine.score(said("who?"), [PRIVATE])
    assert decisions[0].where == "local"


def far(**policy: object) -> RouterEngine:
    """With OpenAI as the cloud, which is only asked what it could be asked."""
    engine = RemoteEngine(base_url="https://api.openai.com/v1", model="m", key="k", provider="openai")
    settings = {"local": "small", "cloud": "openai:m", "default": "cloud", **policy}
    return RouterEngine(Policy(**settings), Responder("small", FakeEngine()), Responder("openai:m", engine))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("asked", "why"),
    [
        ({"top_logprobs": 0}, ONLY_TEXT),
        ({"messages": (), "prompt_ids": (1, 2)}, ONLY_TEXT),
        ({"messages": (), "prompt": "a b"}, "`api.openai.com` takes conversations only"),
        ({"answer_start": "{"}, "`api.openai.com` begins its answers itself"),
        ({"top_k": 40}, "`api.openai.com` has no top_k"),
        ({"min_p": 0.1}, "`api.openai.com` has no min_p"),
        ({"repetition_penalty": 1.1}, "`api.openai.com` has no repetition_penalty"),
        ({"template_variables": '{"x": 1}'}, "`api.openai.com` has no chat_template_kwargs"),
    ],
)
def test_what_the_cloud_cannot_be_asked_stays_here(asked: dict[str, object], why: str) -> None:
    engine = far()
    assert engine.decide(said("a b")).where == "cloud"
    decision = engine.decide(replace(said("a b"), **asked))  # type: ignore[arg-type]
    assert (decision.where, decision.model, decision.why) == ("local", "small", why)
    engine.close()


def test_prompts_without_a_chat_stay_here_wherever_openais_name_leads() -> None:
    """OPENAI_BASE_URL may name a server that has /completions; `openai:` is asked as OpenAI is, by its name."""
    server = RemoteEngine(base_url="http://192.0.2.1/v1", model="m", key="k", provider="openai")
    policy = Policy(local="small", cloud="openai:m", default="cloud")
    engine = RouterEngine(policy, Responder("small", FakeEngine()), Responder("openai:m", server))
    assert engine.decide(said("a b")).where == "cloud"
    decision = engine.decide(Request(prompt="a b"))
    assert (decision.where, decision.rule) == ("local", "cannot_ask")
    assert decision.why == "`192.0.2.1` is named by OPENAI_BASE_URL, and what `openai:` names takes conversations only"
    engine.close()


class Failing(CloudEngine):
    """Fails after some words."""

    def __init__(self, *words: str, error: NomoatError) -> None:
        super().__init__()
        self._words, self._error = words, error
        self.has_called = False

    def generate(self, request: Request) -> Iterator[Chunk]:
        self.told.append(request)
        yield from (Chunk(text=word, begun=self.has_called) for word in self._words)
        raise self._error


def failing(cloud: Failing, local: Engine | None = None, **policy: object) -> tuple[RouterEngine, list[Decision]]:
    decisions: list[Decision] = []
    settings = {"local": "small", "cloud": CLOUD, "default": "cloud", **policy}
    engine = RouterEngine(
        Policy(**settings),  # type: ignore[arg-type]
        Responder("small", local or FakeEngine()), Responder(CLOUD, cloud), on_decision=decisions.append,
    )  # fmt: skip
    return engine, decisions


def with_cloud(url: str, max_wait_seconds: float = 120.0, **told: object) -> RouterEngine:
    """A real server is the cloud, and what it fails at is answered here."""
    policy = Policy(
        local="small", cloud=f"{url}#big", default="cloud", if_cloud_fails="local", max_wait_seconds=max_wait_seconds
    )  # fmt: skip
    there = Responder(f"{url}#big", remote_engine(f"{url}#big"))
    return RouterEngine(policy, Responder("small", FakeEngine()), there, **told)  # type: ignore[arg-type]


def test_what_fails_in_the_cloud_before_its_first_word_is_answered_here_if_the_policy_says_so() -> None:
    """What its server said is not told: it may repeat the text."""
    cloud = Failing("", error=RemoteError("`big` answered 503: not a b", status=503))
    engine, decisions = failing(cloud, if_cloud_fails="local")
    assert "".join(chunk.text for chunk in engine.generate(said("a b"))) == "b a"
    assert [(one.where, one.model, one.rule) for one in decisions] == [("cloud", CLOUD, "default"), ("local", "small", "cloud_failed")]
    assert decisions[1].why == f"`{CLOUD}` failed (status 503), and the policy then asks the local model"
    list(engine.generate(said(PRIVATE)))
    assert (len(cloud.told), decisions[2].rule) == (1, "private")


def test_what_was_not_sent_since_the_policy_changed_is_answered_here_and_nobody_is_said_to_have_failed() -> None:
    anew = Decision(where="local", model="small", why="NOMOAT_OFFLINE is set", rule="offline")
    error = PolicyChangedError("what is in force changed", hint=None, status=503, decision=anew)
    engine, decisions = failing(Failing("", error=error), if_cloud_fails="local")
    assert "".join(chunk.text for chunk in engine.generate(said("a b"))) == "b a"
    assert decisions[1:] == [anew]


@pytest.mark.parametrize(
    ("words", "error", "policy"),
    [
        (("",), RemoteError("gone"), {}),
        (("a", ""), RemoteError("gone"), {"if_cloud_fails": "local"}),
        ((), ContextExceededError(prompt_tokens=9, max_new_tokens=1, context_tokens=5), {"if_cloud_fails": "local"}),
    ],
    ids=["not allowed", "after a word", "too long"],
)
def test_otherwise_a_failure_of_the_cloud_is_raised(words: tuple[str, ...], error: NomoatError, policy: dict[str, str]) -> None:
    engine, decisions = failing(Failing(*words, error=error), **policy)
    with pytest.raises(type(error)):
        list(engine.generate(said("a b")))
    assert [decision.where for decision in decisions] == ["cloud"]


def test_what_the_cloud_fails_at_is_not_sent_to_a_local_server_that_is_named_a_gateway_meanwhile(
    serving: Callable[..., Server], monkeypatch: pytest.MonkeyPatch
) -> None:
    server = serving(FINE)

    class Named(Failing):
        def generate(self, request: Request) -> Iterator[Chunk]:
            monkeypatch.setenv("NOMOAT_GATEWAYS", server.url)
            return super().generate(request)

    engine, decisions = failing(Named(error=RemoteError("gone")), remote_engine(f"{server.url}#small"), if_cloud_fails="local")
    with pytest.raises(RemoteError, match="gone"):
        list(engine.generate(said("a b")))
    assert (server.bodies, [decision.where for decision in decisions]) == ([], ["cloud"])


def test_a_failure_of_the_cloud_after_a_call_has_begun_is_raised() -> None:
    cloud = Failing("", error=RemoteError("gone"))
    cloud.has_called = True
    engine, decisions = failing(cloud, if_cloud_fails="local")
    with pytest.raises(RemoteError):
        list(engine.generate(said("a b")))
    assert [decision.where for decision in decisions] == ["cloud"]


def test_private_data_is_the_reason_before_what_the_cloud_cannot_do() -> None:
    engine = far()
    assert engine.decide(replace(said(PRIVATE), top_k=40)).kinds == ("phone",)
    engine.close()


def test_the_cloud_is_asked_alone_too_for_an_answer_that_another_question_may_have_ended(serving: Callable[..., Server]) -> None:
    server = serving(FINE, events(piece("so far")))
    with Responder("auto", with_cloud(server.url)) as auto:
        assert [auto.complete(said("a b")).text for _ in range(2)] == ["hello 안녕", "so far"]
    assert len(server.bodies) == 4


def test_nothing_is_answered_here_for_somebody_who_has_left_while_the_cloud_was_waited_for(serving: Callable[..., Server]) -> None:
    silent, stop, decisions = Silent(), threading.Event(), []
    engine = with_cloud(serving(silent).url, on_decision=decisions.append)
    leaving = threading.Thread(target=lambda: (silent.asked.wait(PATIENCE_SECONDS), stop.set()))
    leaving.start()
    with pytest.raises(RemoteError, match="nobody waits for this answer any more"), net.asking_for(stop):
        list(engine.generate(said("a b")))
    assert [decision.where for decision in decisions] == ["cloud"]
    leaving.join()
    engine.close()


@pytest.mark.parametrize("act", [say(429, {}, headers={"retry-after": "60"}), say(503, b"busy")], ids=["too many", "busy"])
def test_where_this_machine_may_answer_a_cloud_that_refuses_for_now_is_not_waited_for(
    serving: Callable[..., Server], act: Act
) -> None:
    server, decisions = serving(act, FINE), []
    engine = with_cloud(server.url, on_decision=decisions.append)
    with Responder("auto", engine) as auto:
        assert auto.complete(said("a b")).text == "b a"
        assert (len(server.bodies), decisions[-1].rule) == (1, "cloud_failed")
        assert auto.complete(said("a b")).text == "hello 안녕"  # the next question is asked there again, at once


def test_the_log_says_once_how_the_cloud_fails_and_that_it_is_well_again(
    serving: Callable[..., Server], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing of what its server said: that may repeat the text."""
    refusal = say(401, {"error": {"message": "no key for a b"}})
    server = serving(refusal, refusal, say(402, b"a b"), refusal, FINE)
    name = f"{server.url}#big"
    with Responder("auto", with_cloud(server.url)) as auto:
        for _ in range(5):
            auto.complete(said("a b"))
        first = f"`{name}` failed (status {{}}), and what it fails at is answered on this machine; {{}}"
        assert caplog.messages == [
            first.format(401, "check the key in NOMOAT_UPSTREAM_API_KEY or NOMOAT_API_KEY"),
            first.format(402, "the account's credit is used up: look at the account"),
        ]
        caplog.clear()
        monkeypatch.setattr(fallback, "WELL_AFTER_SECONDS", 0.0)
        for _ in range(2):
            auto.complete(said("a b"))
    assert caplog.messages == [f"`{name}` answers again"]


def test_what_the_cloud_would_send_on_is_answered_here(serving: Callable[..., Server], caplog: pytest.LogCaptureFixture) -> None:
    elsewhere, decisions = serving(FINE), []
    server = serving(say(307, {}, headers={"location": f"{elsewhere.url}/chat/completions"}))
    with Responder("auto", with_cloud(server.url, on_decision=decisions.append)) as auto:
        assert auto.complete(said("a b")).text == "b a"
    assert (elsewhere.bodies, decisions[-1].rule) == ([], "cloud_failed")
    assert decisions[-1].why == f"`{server.url}#big` failed (it sends requests on), and the policy then asks the local model"
    assert caplog.messages[0].endswith("; name that server in its place if you want to use it")


def dripping(handler: Any) -> None:
    """Signs of life, until whoever asks hangs up."""
    handler.send_response(200)
    handler.send_header("content-type", "text/event-stream")
    handler.end_headers()
    with suppress(OSError):
        while True:
            handler.wfile.write(b": PROCESSING\n\n")
            time.sleep(0.02)
    handler.close_connection = True


@pytest.mark.parametrize("act", [Silent(), dripping], ids=["nothing", "signs of life"])
def test_where_this_machine_may_answer_a_cloud_that_says_nothing_is_waited_for_so_long(
    serving: Callable[..., Server], act: Act, caplog: pytest.LogCaptureFixture
) -> None:
    decisions: list[Decision] = []
    with Responder("auto", with_cloud(serving(act).url, max_wait_seconds=1.0, on_decision=decisions.append)) as auto:
        assert auto.complete(said("a b")).text == "b a"
    assert decisions[-1].rule == "cloud_failed" and caplog.messages[0].endswith(f"; {fallback.TOO_LATE_HINT}")


def test_an_answer_that_has_begun_is_waited_for_as_ever(serving: Callable[..., Server]) -> None:
    def slow(handler: Any) -> None:
        handler.send_response(200)
        handler.send_header("content-type", "text/event-stream")
        handler.end_headers()
        for row in (*ROWS, "[DONE]"):
            handler.wfile.write(f"data: {row if isinstance(row, str) else json.dumps(row)}\n\n".encode())
            handler.wfile.flush()
            time.sleep(0.4)
        handler.close_connection = True

    with Responder("auto", with_cloud(serving(slow).url, max_wait_seconds=1.0)) as auto:
        assert auto.complete(said("a b")).text == "hello 안녕"


def test_what_the_cloud_was_sent_in_vain_is_counted_with_the_answer_from_here() -> None:
    error = RemoteError("gone")
    error.bytes_out = 70
    engine, _ = failing(Failing(error=error), if_cloud_fails="local")
    assert Responder("auto", engine).complete(said("a b")).usage.bytes_out == 70


def test_what_the_cloud_was_sent_in_vain_is_counted_with_the_failure_here_too() -> None:
    error = RemoteError("gone")
    error.bytes_out = 70
    engine, _ = failing(Failing(error=error), FakeEngine(context_tokens=2), if_cloud_fails="local")
    with pytest.raises(ContextExceededError) as caught:
        list(engine.generate(said("a b c d")))
    assert caught.value.bytes_out == 70


class Noting(FakeEngine):
    def notes_on(self, request: Request) -> tuple[str, ...]:
        return ("of this machine",)


class FailingOnce(Failing):
    """Has notes, and fails at the first question only."""

    def notes_on(self, request: Request) -> tuple[str, ...]:
        return ("of the cloud",)

    def generate(self, request: Request) -> Iterator[Chunk]:
        return FakeEngine().generate(request) if self.told else super().generate(request)


def test_auto_has_the_question_of_its_tuned_model_which_says_where_it_is_asked_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    question = "Text: {text}\nLabel:"
    write_policy('local = "fake:"')
    monkeypatch.setattr(responder, "load", lambda ref, **_: Responder("tuned", FakeEngine(), question=question))
    with router.load_auto() as auto:
        assert auto.question == question
        (note,) = auto.notes_on("x")
        assert note.startswith("`tuned` was tuned on a table, and asked in other words than it learned")
        assert auto.notes_on("Text: x\nLabel:") == ()


def test_notes_are_those_of_the_model_that_answered() -> None:
    engine, _ = failing(FailingOnce(error=RemoteError("gone")), Noting(), if_cloud_fails="local")
    assert engine.notes_on(said("a b")) == ("of the cloud",)  # who would be asked
    for whose in ("of this machine", "of the cloud"):
        list(engine.generate(said("a b")))
        assert engine.notes_on(said("a b")) == (whose,)
    assert engine.notes_on(said(PRIVATE)) == ("of this machine",)


class Paid(CloudEngine):
    """A cloud whose words are paid for; it counts how often those who wait for it were sent away."""

    num_sent_away = 0

    def give_up_waiting(self) -> None:
        self.num_sent_away += 1


class FailingPaid(Paid, Failing):
    pass


def test_of_a_caller_who_has_left_a_paid_answer_is_waited_for_and_one_from_here_is_not() -> None:
    left = threading.Event()
    left.set()
    policy = Policy(local="small", cloud=CLOUD, default="cloud", if_cloud_fails="local")

    def asked(cloud: Responder, request: Request) -> str:
        with Responder("auto", RouterEngine(policy, Responder("small", FakeEngine()), cloud)) as auto:
            return auto.complete(request, caller_left=left).text

    assert asked(Responder(CLOUD, Paid()), said("a b")) == "b a"
    for cloud, request in (
        (Responder(CLOUD, Paid()), said(PRIVATE)),
        (Responder(CLOUD, FailingPaid(error=RemoteError("gone"))), said("a b")),
    ):
        with pytest.raises(StoppedError, match="`auto`: the answer was stopped"):
            asked(cloud, request)


def test_who_waits_for_the_cloud_is_sent_away_when_the_caller_leaves() -> None:
    cloud = Paid()
    with Responder("auto", RouterEngine(Policy(local="small"), Responder("small", FakeEngine()), Responder(CLOUD, cloud))) as auto:
        answers = auto.complete_many([said("a b")] * 3, concurrency=1)
        next(answers)
        answers.close()
    assert cloud.num_sent_away == 1


def test_server_that_takes_more_settings_than_openais_is_asked_with_them() -> None:
    server = RemoteEngine(base_url="http://192.0.2.1/v1", model="m", key="none")
    policy = Policy(local="small", cloud="http://192.0.2.1/v1#m", default="cloud")
    engine = RouterEngine(policy, Responder("small", FakeEngine()), Responder("http://192.0.2.1/v1#m", server))
    assert engine.decide(replace(said("a"), top_k=40, min_p=0.1, repetition_penalty=1.1)).where == "cloud"
    assert engine.decide(Request(prompt="a")).where == "cloud"
    engine.close()


def test_what_needs_the_weights_is_done_here() -> None:
    engine = far()
    auto = Responder("auto", engine)
    decisions: list[Decision] = []
    engine.on_decision = decisions.append
    assert auto.embed(["a b"]).shape == (1, 9)
    assert len(auto.prompt_likelihoods(Request(prompt="a b"))) == 2
    assert [one.num_tokens for one in auto.score(said("who?"), ["me", "not me"])] == [1, 2]
    assert [decision.where for decision in decisions] == ["local"] * 3
    assert decisions[0].why == "embeddings are computed on this machine"
    auto.close()


def test_reasons_hold_no_folder_of_this_machine(tmp_path: Path) -> None:
    path = tmp_path / "small.gguf"
    path.touch()
    fixed = FixedRouter(1.0)
    fixed.local = str(path)  # type: ignore[misc]
    engine, _, _ = built(fixed)
    assert engine.decide(said("a")).why == f"the router was learned for `small.gguf` and `{CLOUD}`; the policy's default is cloud"


@pytest.mark.parametrize(("score", "where"), [(0.49, "cloud"), (0.5, "local"), (0.9, "local")])
def test_learned_router_decides_at_the_threshold(score: float, where: str) -> None:
    fixed = FixedRouter(score)
    engine, cloud, decisions = built(fixed)
    list(engine.generate(said("first", "answer", "second", system="be brief")))
    assert (decisions[0].where, decisions[0].score, bool(cloud.told)) == (where, score, where == "cloud")
    assert decisions[0].why == f"the chance that local is as good is {score:.2f}, and the policy's threshold is 0.50"
    assert fixed.asked == ["first\nsecond"]


def test_offline_everything_stays_here(monkeypatch: pytest.MonkeyPatch) -> None:
    engine, cloud, decisions = built(FixedRouter(0.0))
    monkeypatch.setenv("NOMOAT_OFFLINE", "1")
    list(engine.generate(said("a b")))
    assert (cloud.told, decisions[0].why) == ([], "NOMOAT_OFFLINE is set")


def test_failure_of_the_local_model_is_raised_and_not_covered_up_by_the_cloud() -> None:
    engine, cloud, _ = built(FixedRouter(1.0), local=FakeEngine(context_tokens=2))
    with pytest.raises(ContextExceededError):
        list(engine.generate(said("a b c d")))
    assert cloud.told == []


@pytest.mark.parametrize(
    ("attribute", "value", "why"),
    [
        ("cloud", "openai:other", "the router was learned for `small` and `openai:other`; the policy's default is cloud"),
        (
            "local_digest",
            "old",
            "`small` has changed, or this nomoat imports it otherwise, since the router was learned: duel and learn again; "
            "the policy's default is cloud",
        ),
    ],
)
def test_router_learned_from_other_models_is_not_asked_and_the_log_says_so(
    attribute: str, value: str, why: str, caplog: pytest.LogCaptureFixture
) -> None:
    fixed = FixedRouter(1.0)
    setattr(fixed, attribute, value)
    engine, _, _ = built(fixed)
    assert (engine.decide(said("a")).why, fixed.asked) == (why, [])
    why_not = why.removesuffix("; the policy's default is cloud")
    assert caplog.messages == [f"the learned router is not asked: {why_not}; the policy's default, cloud, decides"]


def test_nothing_is_said_of_a_learned_router_that_is_asked_or_could_not_be(caplog: pytest.LogCaptureFixture) -> None:
    built(FixedRouter(1.0))
    built(FixedRouter(1.0), cloud=None, default="local")
    assert caplog.messages == []


def test_router_says_whether_prompts_may_leave() -> None:
    engine, _, _ = built()
    assert (engine.is_local, engine.context_tokens) == (False, None)
    alone = RouterEngine(Policy(local="small"), Responder("small", FakeEngine()))
    assert (alone.is_local, alone.context_tokens) == (True, 4096)
    assert alone.decide(said("a")).why == "the policy names no cloud model"
    elsewhere = FakeEngine()
    elsewhere.is_local = False
    assert not RouterEngine(Policy(local="far"), Responder("far", elsewhere)).is_local


def test_digest_changes_with_the_policy() -> None:
    assert built()[0].digest == built()[0].digest != built(threshold=0.6)[0].digest


# ---------------------------------------------------------------- the policy's budget
def billed(ref: str) -> str:
    """The reference, with a price: "a b" and 10 new tokens cost at most $0.00151, what FINE counts $0.00025."""
    prices.own_path().parent.mkdir(parents=True, exist_ok=True)
    prices.own_path().write_text(f'[[price]]\napi = "{ref}"\ninput = 10\noutput = 100\nas_of = "2026-11"\nsource = "test"\n')
    return ref


def with_budget(url: str, max_usd_per_day: float, if_cloud_fails: IfCloudFails = "error", **told: object) -> RouterEngine:
    ref = billed(f"{url}#big")
    policy = Policy(local="small", cloud=ref, default="cloud", max_usd_per_day=max_usd_per_day, if_cloud_fails=if_cloud_fails)
    return RouterEngine(policy, Responder("small", FakeEngine()), Responder(ref, remote_engine(ref)), **told)  # type: ignore[arg-type]


SHORT = replace(said("a b"), max_new_tokens=10)
DAY = "of $0.0021 a day, $0.00075 is spent, and this could cost up to $0.0015"


def test_what_could_cost_more_than_is_left_stays_here_and_the_decision_says_why(serving: Callable[..., Server]) -> None:
    server, decisions = serving(FINE), []
    engine = with_budget(server.url, 0.0021, on_decision=decisions.append)
    with Responder("auto", engine) as auto:
        assert [auto.complete(SHORT).text for _ in range(4)] == ["hello 안녕"] * 3 + ["b a"]
        assert (decisions[-1].where, decisions[-1].model, decisions[-1].why) == ("local", "small", DAY)
        assert auto.complete(replace(said("a"), max_new_tokens=1)).text == "hello 안녕"  # for which there is enough
    assert len(server.bodies) == 4
    assert engine.spent_usd == pytest.approx(4 * 0.00025)


@pytest.mark.parametrize(("act", "usd"), [(say(401, {}), 0.0), (say(200, b"no event"), 0.00151)])
def test_what_the_cloud_fails_at_costs_what_it_may_have_cost_and_is_free_while_it_is_answered_here(
    serving: Callable[..., Server], act: Act, usd: float
) -> None:
    spent: list[float] = []
    engine = with_budget(
        serving(act).url, 1.0, "local",
        on_decision=lambda decision: spent.append(budget.read_spent().today_usd) if decision.where == "local" else None,
    )  # fmt: skip
    with Responder("auto", engine) as auto:
        assert auto.complete(SHORT).text == "b a"
    assert spent == [pytest.approx(usd)]


def test_spending_is_known_to_the_next_process(serving: Callable[..., Server]) -> None:
    server = serving(FINE)
    for _ in range(2):
        with Responder("auto", with_budget(server.url, 0.0016)) as auto:
            auto.complete(SHORT)
    assert len(server.bodies) == 1


def test_what_others_have_spent_since_the_decision_keeps_it_here(serving: Callable[..., Server]) -> None:
    server, decisions = serving(FINE), []
    engine = with_budget(server.url, 0.0016, on_decision=decisions.append)
    (made,) = engine.decide_all([SHORT])
    assert made.decision.where == "cloud"
    list(engine.generate(SHORT))
    with engine.answering(made, SHORT) as (kept, responder):
        assert (kept.where, responder.ref) == ("local", "small")
    assert [one.where for one in decisions] == ["cloud", "local"]
    assert kept.why == "of $0.0016 a day, $0.00025 is spent, and this could cost up to $0.0015"
    engine.close()


def test_requests_that_are_asked_together_have_to_fit_together(serving: Callable[..., Server]) -> None:
    engine = with_budget(serving(FINE).url, 0.0032)
    where = [one.decision.where for one in engine.decide_all([SHORT, said("전화는 010-1234-5678"), SHORT, SHORT], num_answers=1)]
    assert where == ["cloud", "local", "cloud", "local"]
    assert [one.decision.where for one in engine.decide_all([SHORT], num_answers=2)] == ["cloud"]
    assert [one.decision.where for one in engine.decide_all([SHORT], num_answers=3)] == ["local"]
    engine.close()


def test_a_number_that_goes_on_in_the_next_prompt_keeps_all_of_them_here() -> None:
    engine, _, _ = built()
    for prompts, where in (
        (["내 번호 010-1234-", "5678", "b"], ["local", "local", "local"]),
        (["내 번호 010-1234-", "b", "010-1234-5678"], ["cloud", "cloud", "local"]),
        (["내 번호 010-1234-", "5678", "b", "김 010-9999-8888"], ["local", "local", "local", "local"]),
    ):
        assert [one.decision.where for one in engine.decide_all([Request(prompt=text) for text in prompts], num_answers=1)] == where


def test_without_a_budget_nothing_is_counted(serving: Callable[..., Server]) -> None:
    ref = billed(f"{serving(FINE).url}#big")
    policy = Policy(local="small", cloud=ref, default="cloud")
    engine = RouterEngine(policy, Responder("small", FakeEngine()), Responder(ref, remote_engine(ref)))
    list(engine.generate(replace(SHORT, max_new_tokens=None)))
    assert (engine.spent_usd, budget.default_path().exists()) == (None, False)
    engine.close()


def forbid_loading(monkeypatch: pytest.MonkeyPatch) -> None:
    """What can be known without a model is said before the one on this machine is loaded."""
    monkeypatch.setattr("nomoat.responder.load", lambda ref, **_: pytest.fail(f"{ref} was loaded"))


@pytest.mark.usefixtures("online")
def test_auto_refuses_a_budget_without_a_price(monkeypatch: pytest.MonkeyPatch) -> None:
    write_policy('local = "fake:"\ncloud = "openai:gpt-99"\nmax_usd_per_day = 2')
    monkeypatch.setenv("OPENAI_API_KEY", "k")
    forbid_loading(monkeypatch)
    for refused in (router.load_auto, functools.partial(router.explain, "hello")):
        with pytest.raises(
            UsageError, match=r"(?m)^the price of `openai:gpt-99` is not known, and the budget in .* cannot be kept without it$"
        ):
            refused()


# ---------------------------------------------------------------- the reference `auto`
def test_auto_without_a_policy_says_what_to_write() -> None:
    with pytest.raises(UsageError) as raised:
        router.load_auto()
    assert raised.value.message == "`auto` does not know the model on this machine: there is no policy that names it"
    assert raised.value.hint == f'write local = "smollm2-135m", or such, into `{default_path()}`'


def test_auto_is_refused_where_one_model_is_needed() -> None:
    write_policy('local = "fake:"')
    with pytest.raises(UsageError) as raised:
        nomoat.load("auto")
    assert raised.value.message == "`auto` chooses between two models, and one is needed here"
    assert raised.value.hint == "name the model; `nomoat run`, `nomoat serve` and `load_auto()` of nomoat.route.router know `auto`"


def test_auto_answers_here() -> None:
    write_policy('local = "fake:"')
    with router.load_auto() as auto:
        assert (auto.ref, auto.complete(said("a b")).text, auto.is_local) == ("auto", "b a", True)


def test_auto_follows_its_policy_while_it_runs(serving: Callable[..., Server], caplog: pytest.LogCaptureFixture) -> None:
    server = serving(FINE)
    base = f'local = "fake:"\ncloud = "{server.url}#big"\ndefault = "cloud"\n'
    write_policy(base)
    of_policy = "it holds a name or a pattern from the policy, which the policy keeps from the cloud"
    steps = [
        (base, "cloud", "no router is learned; the policy's default is cloud", ""),
        (base + 'names = ["moat"', "local", in_force.NOT_READ, "nothing is sent to the cloud until it is mended"),
        (base + 'name = ["moat"]', "local", in_force.NOT_READ, "sets `name`, which is no part of a policy"),
        (base + 'patterns = ["(?a)(?u)m"]', "local", in_force.NOT_READ, "number 1 is no regular expression"),
        (base, "cloud", "no router is learned; the policy's default is cloud", "in force from now on"),
        (base + 'names = ["moat"]', "local", of_policy, "in force from now on"),
        (base + "patterns = ['m[o]at']", "local", of_policy, "in force from now on"),
        (
            base + 'never_leaves = ["name"]',
            "cloud",
            "no router is learned; the policy's default is cloud",
            "api_key: such data may leave",
        ),
        ('local = "fake:"', "local", "the policy names no cloud model", "in force from now on"),
        (base, "cloud", "no router is learned; the policy's default is cloud", "in force from now on"),
        (base.replace("#big", "#other"), "local", in_force.OTHER_CLOUD, "new `cloud` counts from the next start"),
        (base.replace("fake:", "small"), "cloud", "no router is learned; the policy's default is cloud", "until then `fake:` answers"),
        (None, "local", "the policy names no cloud model", "in force from now on"),
    ]
    heard: list[Decision] = []
    with router.load_auto(on_decision=heard.append) as auto:
        for content, where, why, said_in_log in steps:
            write_policy(content) if content is not None else default_path().unlink()
            caplog.clear()
            for _ in range(2):
                auto.complete(said("a moat"))
                assert (heard[-1].where, heard[-1].why) == (where, why)
                assert heard[-1].model == (f"{server.url}#big" if where == "cloud" else "fake:")
                rule = {in_force.NOT_READ: "policy_broken", in_force.OTHER_CLOUD: "other_cloud"}.get(why)
                assert rule in (heard[-1].rule, None)
            assert (said_in_log in caplog.text) and caplog.text.count("has changed") <= 1  # once, not at each request
    assert len(server.bodies) == 2 * [where for _, where, _, _ in steps].count("cloud")


def test_where_a_changed_policy_makes_nomoat_fail_the_old_one_is_not_in_force(
    serving: Callable[..., Server], monkeypatch: pytest.MonkeyPatch
) -> None:
    policy = f'local = "fake:"\ncloud = "{serving(FINE).url}#big"\ndefault = "cloud"\n'
    write_policy(policy)
    with router.load_auto() as auto:
        monkeypatch.setattr(in_force.PolicyFile, "parsed", lambda file: 1 / 0)
        write_policy(policy + 'names = ["moat"]')
        with pytest.raises(ZeroDivisionError):
            auto.complete(said("a moat"))
        found = auto.engine.decide(said("a moat"))  # type: ignore[attr-defined]
        assert (found.where, found.why) == ("local", in_force.NOT_READ)


def test_a_local_server_that_is_named_a_gateway_while_auto_runs_is_asked_nothing_more(
    serving: Callable[..., Server], monkeypatch: pytest.MonkeyPatch
) -> None:
    server, cloud = serving(FINE), serving(FINE)
    private, words = f'local = "{server.url}#small"\ncloud = "{cloud.url}#big"\ndefault = "cloud"\n', said("010-1234-5678")
    write_policy(private)
    with router.load_auto() as auto:
        auto.complete(words)
        monkeypatch.setenv("NOMOAT_GATEWAYS", server.url)
        for policy in (private, private + "# changed"):
            write_policy(policy)
            with pytest.raises(RedirectedError, match=r"\(a gateway, as NOMOAT_GATEWAYS says\) sends on what it is asked"):
                auto.complete(words)
        assert not auto.is_local
    assert (len(server.bodies), cloud.bodies) == (1, [])


def test_what_waits_for_a_local_server_is_not_sent_once_it_is_named_a_gateway(
    serving: Callable[..., Server], monkeypatch: pytest.MonkeyPatch
) -> None:
    def busy(*asked: Any) -> None:
        monkeypatch.setenv("NOMOAT_GATEWAYS", server.url)
        say(429, {}, headers={"retry-after": "0"})(*asked)

    server = serving(busy, FINE)
    policy = Policy(local=f"{server.url}#small", cloud=CLOUD, default="local")
    engine = RouterEngine(policy, Responder("small", remote_engine(f"{server.url}#small")), Responder(CLOUD, CloudEngine()))
    with Responder("auto", engine) as auto, pytest.raises(RedirectedError, match="sends on what it is asked: this has to stay here"):
        auto.complete(said(PRIVATE))
    assert len(server.bodies) == 1


def test_auto_loaded_again_has_the_models_of_its_first_policy_and_follows_the_rest() -> None:
    """A server has planned the memory of those."""
    write_policy('local = "fake:"')
    file = PolicyFile()
    write_policy('local = "no such model"\nnames = ["moat"]')
    for _ in range(2):
        with router.load_auto(file=file) as auto:
            assert auto.engine.decide(said("a moat")).model == "fake:"  # type: ignore[attr-defined]
            assert "a name or a pattern from the policy" in auto.engine.decide(said("a moat")).why  # type: ignore[attr-defined]


def test_a_budget_that_is_written_while_auto_runs_is_kept(serving: Callable[..., Server]) -> None:
    ref = billed(f"{serving(FINE).url}#big")
    base = f'local = "fake:"\ncloud = "{ref}"\ndefault = "cloud"\n'
    write_policy(base)
    heard: list[Decision] = []
    with router.load_auto(on_decision=heard.append) as auto:
        for budgeted in ("", "max_usd_per_day = 0.0016", "max_usd_per_day = 0.0016", "max_usd_per_day = 0.0020", ""):
            write_policy(base + budgeted)
            auto.complete(SHORT)
        assert [one.where for one in heard] == ["cloud", "cloud", "local", "cloud", "cloud"]
        assert auto.engine.spent_usd == pytest.approx(2 * 0.00025)  # type: ignore[attr-defined]
        prices.own_path().write_text("[[price")  # what it takes is not known any more
        write_policy(base + "max_usd_per_month = 5")
        auto.complete(SHORT)
        assert heard[-1].where == "local"


def test_what_was_decided_for_the_cloud_is_decided_anew_where_the_policy_has_changed_before_it_is_asked() -> None:
    """With what was decided together with it: here a name goes on from one prompt to the next."""
    base = f'local = "fake:"\ncloud = "{CLOUD}"\n'
    write_policy(base + 'default = "cloud"\n')
    file, heard = PolicyFile(), []
    local, cloud = Responder("fake:", FakeEngine()), Responder(CLOUD, CloudEngine())
    engine = RouterEngine(file.parsed(), local, cloud, file=file, on_decision=heard.append)
    prompts = [Request(prompt=text) for text in ("about Project", "Falcon", "b")]
    made = engine.decide_all(prompts, num_answers=1)
    for changed in ('default = "cloud"\nnames = ["Project Falcon"]', 'default = "local"', "names = 1", 'default = "cloud"'):
        write_policy(base + changed)
        for one, prompt in zip(made, prompts, strict=True):
            with engine.answering(one, prompt) as (kept, responder):
                assert responder is (cloud if kept.where == "cloud" else local)
    rules = ["private", "private", "private", *["default"] * 3, *["policy_broken"] * 3, *["default"] * 3]
    assert [(one.where, one.rule) for one in heard] == list(zip(["local"] * 9 + ["cloud"] * 3, rules, strict=True))
    engine.close()


@pytest.mark.parametrize("budget", ["", "max_usd_per_day = 5\n"], ids=["free", "paid"])
@pytest.mark.parametrize("if_cloud_fails", ["error", "local"])
def test_what_the_cloud_refused_for_now_is_not_sent_again_where_the_policy_keeps_it_here_by_then(
    serving: Callable[..., Server], if_cloud_fails: str, budget: str
) -> None:
    refuse = say(429, {}, headers={"retry-after": "0"})

    def change_and_refuse(*given: Any) -> None:
        write_policy(base + 'names = ["Project Falcon"]\n')
        refuse(*given)

    server = serving(change_and_refuse, FINE)
    base = f'local = "fake:"\ncloud = "{server.url}#big"\ndefault = "cloud"\nif_cloud_fails = "{if_cloud_fails}"\n{budget}'
    write_policy(base)
    with router.load_auto() as auto:
        if if_cloud_fails == "local":
            assert auto.complete(said("about Project Falcon")).text == "Falcon Project about"
        else:
            with pytest.raises(PolicyChangedError, match="not answered by the cloud: while this waited for it") as caught:
                auto.complete(said("about Project Falcon"))
            assert (caught.value.decision.where, caught.value.decision.rule) == ("local", "private")
        assert len(server.bodies) == 1
        assert auto.complete(said("a b")).text == "hello 안녕"


def test_a_cloud_server_that_is_named_a_gateway_while_auto_runs_is_paid_from_the_budget(
    serving: Callable[..., Server], monkeypatch: pytest.MonkeyPatch
) -> None:
    """On this machine it is free."""
    server = serving(FINE)
    write_policy(f'local = "fake:"\ncloud = "{server.url}#big"\ndefault = "cloud"\nmax_usd_per_day = 0.0016\n')
    heard: list[Decision] = []
    with router.load_auto(on_decision=heard.append) as auto:
        auto.complete(SHORT)
        billed(f"{server.url}#big")
        monkeypatch.setenv("NOMOAT_GATEWAYS", server.url)
        for _ in range(2):
            auto.complete(SHORT)
    assert [one.where for one in heard] == ["cloud", "cloud", "local"]


def test_while_nobody_knows_which_servers_are_gateways_nothing_is_sent_to_a_cloud_on_this_machine(
    serving: Callable[..., Server], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    write_policy(f'local = "fake:"\ncloud = "{serving(FINE).url}#big"\ndefault = "cloud"\n')
    with router.load_auto() as auto:
        decide = auto.engine.decide  # type: ignore[attr-defined]
        assert decide(SHORT).where == "cloud"
        with monkeypatch.context() as patch:
            patch.setenv("NOMOAT_GATEWAYS", "nowhere")
            for _ in range(2):
                found = decide(SHORT)
                assert (found.where, found.why) == ("local", in_force.NOT_READ)
        assert [message for message in caplog.messages if "NOMOAT_GATEWAYS is `nowhere`" in message] == caplog.messages[-1:]
        assert decide(SHORT).where == "cloud"


def test_a_budget_whose_file_could_not_be_opened_is_tried_again(
    serving: Callable[..., Server], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """As on a disk that was full for a while: the policy's file has not changed since."""
    ref = billed(f"{serving(FINE).url}#big")
    base = f'local = "fake:"\ncloud = "{ref}"\ndefault = "cloud"\n'
    write_policy(base)

    def no_room(*_: object) -> None:
        raise NotEnoughDiskError("no space left on the disk of `runs`")

    with router.load_auto() as auto:
        decide = auto.engine.decide  # type: ignore[attr-defined]
        write_policy(base + "max_usd_per_day = 2")
        with monkeypatch.context() as patch:
            patch.setattr(in_force, "Allowance", no_room)
            for _ in range(2):
                found = decide(SHORT)
                assert (found.where, found.why, found.rule) == ("local", in_force.NOT_COUNTED, "budget")
        assert caplog.messages == [
            "no space left on the disk of `runs`; nothing is sent to the cloud meanwhile, and it is tried again each minute"
        ]
        assert decide(SHORT).where == "local"
        auto.engine._followed._again_at -= in_force.AGAIN_SECONDS  # type: ignore[attr-defined]
        assert decide(SHORT).where == "cloud"


@pytest.mark.parametrize("failing_at", ["turn", "transaction"], ids=["looked at", "set aside"])
def test_while_what_the_cloud_costs_cannot_be_written_down_all_stays_here_and_the_log_says_so_once(
    serving: Callable[..., Server], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, failing_at: str
) -> None:
    server, decisions = serving(FINE), []

    def no_room(*_: object) -> None:
        raise NotEnoughDiskError("no space left on `runs`", hint="make room")

    with Responder("auto", with_budget(server.url, 1.0, on_decision=decisions.append)) as auto:
        for num_said in (1, 2):
            with monkeypatch.context() as patch:
                patch.setattr(Database, failing_at, no_room)
                for _ in range(2):
                    assert auto.complete(SHORT).text == "b a"
                    assert (decisions[-1].where, decisions[-1].why, decisions[-1].rule) == ("local", budget.NOT_COUNTED, "budget")
            line = "no space left on `runs`; nothing is sent to the cloud until what it costs can be counted; make room"
            assert caplog.messages == [line] * num_said
            assert auto.complete(SHORT).text == "hello 안녕"
    assert len(server.bodies) == 2


def test_a_budget_without_a_price_is_kept_from_when_the_price_is_known(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "k")
    ref = "openai:gpt-99"
    base = f'local = "fake:"\ncloud = "{ref}"\ndefault = "cloud"\n'
    write_policy(base)
    with router.load_auto() as auto:
        decide = auto.engine.decide  # type: ignore[attr-defined]
        write_policy(base + "max_usd_per_day = 2")
        for _ in range(3):
            found = decide(SHORT)
            assert (found.where, found.why, found.rule) == ("local", in_force.NOT_COUNTED, "budget")
            auto.engine._followed._again_at -= in_force.AGAIN_SECONDS  # type: ignore[attr-defined]
        (said,) = caplog.messages
        assert said.startswith(f"the price of `{ref}` is not known, and ") and f"; write it into `{prices.own_path()}`" in said
        write_policy(base + "max_usd_per_day = 3")
        assert decide(SHORT).where == "local" and len(caplog.messages) == 2
        billed(ref)
        auto.engine._followed._again_at -= in_force.AGAIN_SECONDS  # type: ignore[attr-defined]
        assert decide(SHORT).where == "cloud"


def test_a_budget_for_what_cannot_be_counted_is_for_the_policy_to_mend(caplog: pytest.LogCaptureFixture) -> None:
    base = f'local = "fake:"\ncloud = "{CLOUD}"\ndefault = "cloud"\n'
    write_policy(base)
    billed(CLOUD)
    file = PolicyFile()
    followed = in_force.FollowedPolicy(file.parsed(), Responder("fake:", FakeEngine()), Responder(CLOUD, CloudEngine()), None, file)
    write_policy(base + "max_usd_per_day = 2")
    assert followed.now().only_here == in_force.NOT_READ
    assert caplog.messages == [
        f"what `{CLOUD}` takes cannot be counted, and the policy's budget cannot be kept without it; "
        "nothing is sent to the cloud until it is mended; name a server as `cloud`, or leave out the budget"
    ]


def test_a_template_named_for_auto_is_that_of_its_model_here(tiny_gguf: Path) -> None:
    write_policy(f'local = "{tiny_gguf.as_posix()}"')
    with nomoat.load(tiny_gguf, template="falcon") as asked, router.load_auto(template="falcon") as auto:
        assert auto.template == Detected("falcon", "as asked")
        assert auto.engine.count_tokens(SHORT) == asked.engine.count_tokens(SHORT)


def test_auto_looks_at_no_cloud_when_offline(monkeypatch: pytest.MonkeyPatch) -> None:
    write_policy('local = "fake:"\ncloud = "openai:gpt-4o-mini"\ndefault = "cloud"')
    monkeypatch.setenv("NOMOAT_OFFLINE", "1")
    with router.load_auto() as auto:
        assert auto.complete(said("a b")).usage.bytes_out == 0


def test_auto_loaded_offline_answers_here_when_that_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its cloud model is not there; `offline` of the file is looked at each time."""
    write_policy('local = "fake:"\ncloud = "openai:gpt-4o-mini"\ndefault = "cloud"\nif_cloud_fails = "local"')
    monkeypatch.setenv("NOMOAT_OFFLINE", "1")
    with router.load_auto() as auto:
        monkeypatch.delenv("NOMOAT_OFFLINE")
        assert isinstance(auto.engine, RouterEngine)
        decision = auto.engine.decide(said("a b"))
        assert (decision.where, decision.rule) == ("local", "cannot_ask")
        assert decision.why == "the cloud model was not loaded: nomoat was offline when `auto` was"
        assert auto.complete(said("a b")).text == "b a"


@pytest.mark.usefixtures("online")
def test_environment_cannot_send_an_allowed_provider_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    forbid_loading(monkeypatch)
    write_policy('local = "fake:"\ncloud = "openai:gpt-4o-mini"\nallowed = ["openai"]')
    monkeypatch.setenv("OPENAI_API_KEY", "k")
    monkeypatch.setenv("OPENAI_BASE_URL", "https://evil.example.com/v1")
    with pytest.raises(UsageError, match=r"the policy does not allow to ask `evil\.example\.com`"):
        router.load_auto()


def test_a_key_that_the_server_on_this_machine_needs_is_asked_for_offline_too(monkeypatch: pytest.MonkeyPatch) -> None:
    write_policy('local = "openai:m"')
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:9/v1")
    forbid_loading(monkeypatch)
    with pytest.raises(SettingError, match="`openai:m` needs a key, and OPENAI_API_KEY is not set"):
        router.load_auto()


@pytest.mark.parametrize("place", ["local", "cloud"])
def test_a_server_does_not_pass_its_clients_key_on(
    serving: Callable[..., Server], monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    monkeypatch.setenv("NOMOAT_API_KEY", "clients")
    server = serving(FINE)
    write_policy(f'local = "{server.url}#small"\ncloud = "{server.url}#big"\ndefault = "{place}"')
    with router.load_auto(as_client=False) as auto:
        auto.complete(said("a b"))
    assert [headers["authorization"] for headers in server.headers] == ["Bearer none"]


def test_explain_loads_no_model() -> None:
    write_policy('local = "no-such-model"\ncloud = "openai:gpt-4o-mini"')
    assert router.explain(PRIVATE).kinds == ("phone",)
    with pytest.raises(UsageError, match="the question is of the type int, not a text"):
        router.explain(5)  # type: ignore[arg-type]
    assert router.explain("hello") == Decision(
        where="local", model="no-such-model", why="no router is learned; the policy's default is local", rule="default"
    )
    assert not learned.folder().exists()


def test_explain_takes_a_cloud_model_on_this_machine_for_free_as_auto_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:9/v1")
    write_policy('local = "small"\ncloud = "openai:my-own"\ndefault = "cloud"\nmax_usd_per_day = 1')
    assert router.explain("hello").where == "cloud"


def test_the_budget_for_keys_and_values_is_the_local_models(monkeypatch: pytest.MonkeyPatch) -> None:
    bounds: list[int] = []
    local = FakeEngine()
    monkeypatch.setattr(local, "bound_cache", bounds.append, raising=False)
    with Responder("auto", RouterEngine(Policy(local="small"), Responder("small", local))) as auto:
        auto.bound_cache(1234)
        assert auto.engine.kv_cache is None
        monkeypatch.setattr(FakeEngine, "kv_cache", KvCache(used_bytes=1, max_bytes=2))
        assert auto.engine.kv_cache == KvCache(used_bytes=1, max_bytes=2)
    assert bounds == [1234]


def test_what_the_first_answer_needs_is_the_local_models(monkeypatch: pytest.MonkeyPatch) -> None:
    local, started = FakeEngine(), []
    monkeypatch.setattr(local, "start", lambda: started.append("small"))
    with Responder("auto", RouterEngine(Policy(local="small"), Responder("small", local))) as auto:
        auto.engine.start()
    assert started == ["small"]
