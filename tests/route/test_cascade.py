"""A cascade: the model on this machine answers first, and what it is not sure enough of goes to the cloud."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from nomoat import net
from nomoat.engine import Engine
from nomoat.engine.fake import FakeEngine
from nomoat.engine.remote import remote_engine
from nomoat.errors import ContextExceededError, RemoteError, UnsupportedError
from nomoat.records import Chunk, Completion, Decision, Message, Request, TokenLikelihood, Usage
from nomoat.responder import Responder
from nomoat.route.cascade import sureness, surenesses
from nomoat.route.in_force import Usable
from nomoat.route.policy import Policy
from nomoat.route.router import RouterEngine, decide

pytestmark = pytest.mark.usefixtures("online")
CLOUD = "http://127.0.0.1:9/v1#big"
PRIVATE = "전화는 010-1234-5678입니다"
USAGE = Usage(prompt_tokens=1, completion_tokens=1, prefill_seconds=0.0, decode_seconds=0.0)


class Here(FakeEngine):
    """Is certain of every word by half, and remembers what it was asked."""

    def __init__(self, *, tells: bool = True, **told: Any) -> None:
        super().__init__(**told)
        self.asked: list[Request] = []
        self._tells = tells

    def generate(self, request: Request) -> Iterator[Chunk]:
        self.asked.append(request)
        for chunk in super().generate(request):
            yield chunk if self._tells else Chunk(text=chunk.text, finish_reason=chunk.finish_reason, usage=chunk.usage)


class There(Here):
    is_local = False

    def __init__(self) -> None:
        super().__init__(answers={"a b": "of the cloud"})


class Failing(There):
    def generate(self, request: Request) -> Iterator[Chunk]:
        raise RemoteError("gone")


class ByAnswer:
    """A learned router that finds an answer of one word good enough, and no longer one."""

    by, local, cloud, local_digest = "answer", "small", CLOUD, FakeEngine().digest

    def score_of(self, sure: float) -> float:
        return 0.9 if sure > -0.5 else 0.1


def built(here: FakeEngine | None = None, there: FakeEngine | None = None, **policy: Any) -> tuple[RouterEngine, list[Decision]]:
    decisions: list[Decision] = []
    engine = RouterEngine(
        Policy(**{"local": "small", "cloud": CLOUD, **policy}),
        Responder("small", here or Here()), Responder(CLOUD, there or There()), learned=ByAnswer(),  # type: ignore[arg-type]
        on_decision=decisions.append,
    )  # fmt: skip
    return engine, decisions


def said(text: str, **settings: Any) -> Request:
    return Request(messages=(Message(role="user", content=text),), **settings)


def answer_of(engine: RouterEngine, request: Request) -> str:
    return "".join(chunk.text for chunk in engine.generate(request))


def test_sureness_is_the_log_odds_of_the_whole_answer() -> None:
    def answer(*probabilities: float | None) -> Completion:
        told = [None if one is None else math.log(one) for one in probabilities]
        tokens = tuple(TokenLikelihood(token_id=0, content=b"", log_probability=one) for one in told)
        return Completion(text="x", finish_reason="stop", usage=USAGE, likelihoods=tokens)

    assert sureness(answer(0.9, 0.8)) == pytest.approx(math.log(0.72 / 0.28))
    assert sureness(answer(None, 0.5)) == 0.0
    assert sureness(answer(1.0)) == pytest.approx(math.log(1e6))
    assert sureness(answer(*[0.01] * 500)) == pytest.approx(500 * math.log(0.01))
    assert sureness(answer()) is None


def test_a_model_is_asked_how_sure_it_is_of_each_answer() -> None:
    told: list[tuple[int, int]] = []
    asked = [said("a b c"), said("a"), said("a b", top_logprobs=3)]
    found = surenesses(Responder("small", FakeEngine()), asked, lambda *so_far: told.append(so_far))
    assert found == pytest.approx([math.log(0.125 / 0.875), 0.0, math.log(0.25 / 0.75)])
    assert told == [(1, 3), (2, 3), (3, 3)]


@pytest.mark.parametrize("engine", [lambda: Here(tells=False), lambda: remote_engine(CLOUD)], ids=["kept", "a server"])
def test_of_a_model_that_tells_no_likelihoods_nothing_can_be_learned_so(engine: Callable[[], Engine]) -> None:
    with Responder("small", engine()) as model, pytest.raises(UnsupportedError, match=r"^`small` does not tell how likely"):
        surenesses(model, [said("a"), said("b")])


def test_what_the_local_model_is_sure_of_stays_and_is_written_once() -> None:
    here, there = Here(), There()
    engine, decisions = built(here, there)
    assert answer_of(engine, said("a", temperature=0.7)) == "a"
    assert (len(here.asked), there.asked) == (1, [])
    assert here.asked[0] == said("a", temperature=0.7, top_logprobs=0)
    assert [(one.where, one.rule, one.score) for one in decisions] == [("local", "learned", 0.9)]
    assert decisions[0].why == "the chance that local's answer is as good is 0.90, and the policy's threshold is 0.50"


def test_what_it_is_not_sure_of_goes_to_the_cloud() -> None:
    there = There()
    engine, decisions = built(there=there)
    assert answer_of(engine, said("a b")) == "of the cloud"
    assert [request.messages[0].content for request in there.asked] == ["a b"]
    assert [(one.where, one.rule, one.score) for one in decisions] == [("cloud", "learned", 0.1)]


def test_what_has_to_stay_is_not_asked_first_and_streams() -> None:
    here = Here()
    engine, decisions = built(here)
    assert len(list(engine.generate(said(PRIVATE)))) > 1
    assert here.asked == [said(PRIVATE)]
    assert decisions[0].rule == "private"


def test_several_answers_to_one_request_are_each_written_anew() -> None:
    here = Here()
    engine, _ = built(here)
    (made,) = engine.decide_all([said("a")], num_answers=2)
    for _ in range(2):
        with engine.answering(made, said("a")) as (_, responder):
            assert responder.complete(said("a")).text == "a"
    assert len(here.asked) == 3


def test_what_the_cloud_fails_at_is_answered_with_what_was_written() -> None:
    here = Here()
    engine, decisions = built(here, Failing(), if_cloud_fails="local")
    assert answer_of(engine, said("a b")) == "b a"
    assert [one.rule for one in decisions] == ["learned", "cloud_failed"]
    assert len(here.asked) == 1


def test_where_the_local_model_fails_nothing_goes_to_the_cloud() -> None:
    there = There()
    engine, _ = built(Here(context_tokens=2), there)
    with pytest.raises(ContextExceededError):
        answer_of(engine, said("a b c"))
    assert there.asked == []


@pytest.mark.parametrize("default", ["local", "cloud"])
def test_without_likelihoods_the_default_decides(default: str) -> None:
    engine, decisions = built(Here(tells=False), default=default)
    answer_of(engine, said("a b"))
    assert decisions[0].where == default
    assert decisions[0].why == f"local did not tell how sure it is of its answer; the policy's default is {default}"


def test_of_a_call_of_a_function_the_default_decides() -> None:
    engine, decisions = built()
    tool = {"type": "function", "function": {"name": "f"}}
    *_, last = engine.generate(said('{"name":"f","arguments":{}}', tools=(tool,)))
    assert [one.name for one in last.calls] == ["f"]
    assert decisions[0].why == "local did not tell how sure it is of its answer; the policy's default is local"


def test_where_the_budget_is_used_up_nothing_is_written_first() -> None:
    def answer() -> Completion:
        raise AssertionError("it was asked")

    policy, learned = Policy(local="small", cloud=CLOUD), Usable(learned=ByAnswer())  # type: ignore[arg-type]
    decision = decide(["a"], "a", policy, learned, over_budget=lambda: "all is spent", answer=answer)
    assert (decision.where, decision.rule, decision.why) == ("local", "budget", "all is spent")


def test_who_asks_where_it_would_go_has_nobody_asked() -> None:
    here = Here()
    engine, _ = built(here)
    decision = engine.decide(said("a b"))
    assert (decision.where, decision.rule, decision.score) == ("local", "learned", None)
    assert decision.why == "local answers first, and what it is not sure enough of goes to the cloud"
    assert engine.notes_on(said("a b")) == () and engine.count_tokens(said("a b")) == 2
    assert here.asked == []


def test_nothing_is_written_first_for_somebody_who_has_left() -> None:
    engine, _ = built()
    left = threading.Event()
    left.set()
    with net.asking_for(left), pytest.raises(RemoteError, match="nobody waits for this answer any more"):
        engine.decide_all([said("a b")])
