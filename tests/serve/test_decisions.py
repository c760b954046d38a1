"""`auto` served: each answer says where its prompt went, why, and with what score; never what was in it."""

from __future__ import annotations

import json
import re
import threading
import urllib.parse
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal

import httpx
import openai
import pytest
from misbehaving import FINE, Server, Silent, piece, say
from patience import PATIENCE_SECONDS, wait_until

from nomoat.catalog import prices
from nomoat.engine.fake import FakeEngine
from nomoat.engine.remote import remote_engine
from nomoat.errors import RemoteError
from nomoat.records import Chunk, Request
from nomoat.responder import Responder
from nomoat.route import budget
from nomoat.route.policy import Policy, PolicyFile, default_path
from nomoat.route.router import RouterEngine
from nomoat.serve.decisions import HEADERS
from nomoat.serve.models import Loader, Models

pytestmark = pytest.mark.usefixtures("online")
Start = Callable[..., str]
Sdk = Callable[..., openai.OpenAI]
CLOUD = "http://llm.example.com/v1#big"
PRIVATE = "전화는 010-1234-5678입니다"
DEFAULT = "no router is learned; the policy's default is cloud"
HOLDS_PHONE = "it holds a phone number, which the policy keeps from the cloud"


class Watched(FakeEngine):
    """Keeps what it was asked; `failure`: what it answers with."""

    def __init__(self, *, is_local: bool, failure: Exception | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.is_local = is_local
        self.asked: list[Request] = []
        self._failure = failure

    def generate(self, request: Request) -> Iterator[Chunk]:
        self.asked.append(request)
        if self._failure:
            raise self._failure
        yield from super().generate(request)


class Learned:
    """A learned router of one opinion."""

    by, local, cloud, local_digest = "prompt", "small", CLOUD, FakeEngine().digest

    def score(self, text: str) -> float:
        return 0.25


class LearnedByAnswers(Learned):
    """Finds an answer of one word good enough, and no longer one."""

    by = "answer"

    def score_of(self, sure: float) -> float:
        return 0.75 if sure > -0.5 else 0.25


def auto(
    cloud: Watched | None = None, local: Watched | None = None, learned: Any = None, ref: str = "small",
    if_cloud_fails: Literal["error", "local"] = "error", **told: Any,
) -> Responder:  # fmt: skip
    policy = Policy(local=ref, cloud=CLOUD, default="cloud", if_cloud_fails=if_cloud_fails)
    here, there = local or Watched(is_local=True), cloud or Watched(is_local=False)
    return Responder("auto", RouterEngine(policy, Responder(ref, here), Responder(CLOUD, there), learned=learned, **told))


def ask(url: str, text: str, **fields: Any) -> dict[str, str]:
    """The headers of an answer that begin with `x-nomoat-`, read before its body."""
    body = {"model": "auto", "messages": [{"role": "user", "content": text}], **fields}
    with httpx.stream("POST", f"{url}/chat/completions", json=body) as answer:
        told = headers_of(answer)
        assert answer.read()
    return told


def headers_of(answer: httpx.Response) -> dict[str, str]:
    return {name: value for name, value in answer.headers.items() if name.startswith("x-nomoat-")}


@pytest.mark.parametrize("stream", [False, True])
def test_answer_says_where_its_prompt_went_and_why(start: Start, stream: bool) -> None:
    url = start(auto())
    assert ask(url, "hello", stream=stream) == {
        "x-nomoat-where": "cloud", "x-nomoat-model": CLOUD, "x-nomoat-why": DEFAULT, "x-nomoat-rule": "default",
    }  # fmt: skip
    assert ask(url, PRIVATE, stream=stream) == {
        "x-nomoat-where": "local", "x-nomoat-model": "small", "x-nomoat-why": HOLDS_PHONE, "x-nomoat-rule": "private",
    }  # fmt: skip


CALL = {"type": "function_call", "call_id": "a", "name": "f"}
RESULT = {"type": "function_call_output", "call_id": "a"}
TOLD = [{"type": "input_text", "text": PRIVATE}]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    "fields",
    [
        {"input": PRIVATE}, {"input": "hi", "instructions": PRIVATE}, {"input": [{"role": "user", "content": TOLD}]},
        {"input": [{"role": "assistant", "content": [{"type": "refusal", "refusal": PRIVATE}]}]},
        {"input": [CALL | {"arguments": json.dumps({"x": PRIVATE})}]}, {"input": [RESULT | {"output": PRIVATE}]},
        {"input": [RESULT | {"output": TOLD}]},
        {"input": "hi", "tools": [{"type": "function", "name": "f", "description": PRIVATE}]},
        {"input": "hi", "text": {"format": {"type": "json_schema", "name": "x", "schema": {"description": PRIVATE}}}},
    ],
)  # fmt: skip
def test_private_text_of_a_response_stays_here_wherever_it_stands(start: Start, fields: dict[str, Any], stream: bool) -> None:
    cloud = Watched(is_local=False)
    url = start(auto(cloud))
    told = [httpx.post(f"{url}/responses", json={"model": "auto", "stream": stream, **body}) for body in (fields, {"input": "hello"})]
    assert [(one.status_code, one.headers["x-nomoat-where"], one.headers["x-nomoat-rule"]) for one in told] == [
        (200, "local", "private"), (200, "cloud", "default"),
    ]  # fmt: skip
    assert [[message.content for message in asked.messages] for asked in cloud.asked] == [["hello"]]


USE = {"type": "tool_use", "id": "a", "name": "f"}
CAME = {"type": "tool_result", "tool_use_id": "a"}
HELLO = {"role": "user", "content": "hello"}


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    "fields",
    [
        {"messages": [{"role": "user", "content": [{"type": "text", "text": PRIVATE}]}]}, {"system": PRIVATE},
        {"system": [{"type": "text", "text": PRIVATE}]}, {"messages": [HELLO, {"role": "system", "content": PRIVATE}]},
        {"messages": [{"role": "assistant", "content": [USE | {"input": {"x": PRIVATE}}]}, HELLO]},
        {"messages": [{"role": "user", "content": [CAME | {"content": PRIVATE}]}]},
        {"messages": [{"role": "user", "content": [CAME | {"content": [{"type": "text", "text": PRIVATE}]}]}]},
        {"tools": [{"name": "f", "description": PRIVATE, "input_schema": {}}]},
        {"output_config": {"format": {"type": "json_schema", "schema": {"description": PRIVATE}}}},
    ],
)  # fmt: skip
def test_private_text_of_a_message_stays_here_wherever_it_stands(start: Start, fields: dict[str, Any], stream: bool) -> None:
    cloud = Watched(is_local=False)
    url = start(auto(cloud))
    bodies = [{"model": "auto", "stream": stream, "max_tokens": 9, "messages": [HELLO], **one} for one in (fields, {})]
    told = [httpx.post(f"{url}/messages", json=body) for body in bodies]
    assert [(one.status_code, one.headers["x-nomoat-where"], one.headers["x-nomoat-rule"]) for one in told] == [
        (200, "local", "private"), (200, "cloud", "default"),
    ]  # fmt: skip
    assert [[message.content for message in asked.messages] for asked in cloud.asked] == [["hello"]]


def test_what_a_message_passes_over_is_not_sent_on(start: Start) -> None:
    """Such as what a model thought, and the mark of a conversation."""
    cloud = Watched(is_local=False)
    thought = {"role": "assistant", "content": [{"type": "thinking", "thinking": PRIVATE}, {"type": "text", "text": "hm"}]}
    body = {"model": "auto", "messages": [HELLO, thought, HELLO], "metadata": {"user_id": PRIVATE}}
    assert httpx.post(f"{start(auto(cloud))}/messages", json=body).headers["x-nomoat-where"] == "cloud"
    assert PRIVATE not in repr(cloud.asked[0].messages)


@pytest.mark.parametrize("stream", [False, True])
def test_by_a_router_of_answers_the_local_model_is_asked_once_and_the_cloud_what_it_is_not_sure_of(
    start: Start, sdk: Sdk, stream: bool
) -> None:
    here, there = Watched(is_local=True), Watched(is_local=False)
    url = start(auto(there, here, learned=LearnedByAnswers()))
    told = {text: ask(url, text, stream=stream) for text in ("moat", "hello moat")}
    assert {text: (one["x-nomoat-where"], one["x-nomoat-score"]) for text, one in told.items()} == {
        "moat": ("local", "0.7500"), "hello moat": ("cloud", "0.2500"),
    }  # fmt: skip
    assert [request.messages[0].content for request in here.asked] == ["moat", "hello moat"]
    assert [request.messages[0].content for request in there.asked] == ["hello moat"]
    answer = sdk(url).chat.completions.create(model="auto", messages=[{"role": "user", "content": "moat"}], n=2)
    assert [choice.message.content for choice in answer.choices] == ["moat", "moat"]


def test_learned_routers_score_is_told(start: Start) -> None:
    assert ask(start(auto(learned=Learned())), "hello") == {
        "x-nomoat-where": "cloud", "x-nomoat-model": CLOUD, "x-nomoat-score": "0.2500", "x-nomoat-rule": "learned",
        "x-nomoat-why": "the chance that local is as good is 0.25, and the policy's threshold is 0.50",
    }  # fmt: skip


def test_text_completions_and_embeddings_say_it_too(start: Start, sdk: Sdk) -> None:
    client = sdk(start(auto()))
    reply = client.completions.with_raw_response.create(model="auto", prompt="hello")
    assert headers_of(reply.http_response)["x-nomoat-where"] == "cloud"
    reply = client.embeddings.with_raw_response.create(model="auto", input=["one two", "three"])
    assert headers_of(reply.http_response) == {
        "x-nomoat-where": "local", "x-nomoat-model": "small", "x-nomoat-why": "embeddings are computed on this machine",
        "x-nomoat-rule": "embeddings",
    }  # fmt: skip
    assert reply.parse().usage.prompt_tokens == 3


def test_token_ids_are_read_here_whatever_the_default_is(start: Start) -> None:
    reply = httpx.post(f"{start(auto())}/embeddings", json={"model": "auto", "input": [[1, 2], [3]]})
    assert (reply.status_code, reply.json()["usage"]["prompt_tokens"]) == (200, 3)


def test_prompts_of_one_request_that_go_to_both_sides_are_told_of_each(start: Start) -> None:
    cloud, local = Watched(is_local=False), Watched(is_local=True)
    body = {"model": "auto", "prompt": ["hello", PRIVATE, "again"], "n": 2}
    reply = httpx.post(f"{start(auto(cloud, local))}/completions", json=body)
    told = [["cloud", "local"], [CLOUD, "small"], [DEFAULT, HOLDS_PHONE], ["default", "private"], [], []]
    assert [reply.headers.get_list(name) for name in HEADERS] == told
    assert ({asked.prompt for asked in cloud.asked}, [asked.prompt for asked in local.asked]) == ({"hello", "again"}, [PRIVATE] * 2)


def test_headers_hold_no_folder_and_can_be_sent_whatever_a_model_is_called(start: Start, tmp_path: Path) -> None:
    path = tmp_path / "작은 100%.gguf"
    path.touch()
    told = ask(start(auto(ref=str(path))), PRIVATE)["x-nomoat-model"]
    assert told.isascii() and urllib.parse.unquote(told) == path.name


def test_failed_answer_says_where_its_prompt_went(start: Start) -> None:
    url = start(auto(Watched(is_local=False, failure=RemoteError("the cloud is gone", wait_seconds=7.0))))
    body = {"model": "auto", "messages": [{"role": "user", "content": "hello"}]}
    for stream in (False, True):
        reply = httpx.post(f"{url}/chat/completions", json={**body, "stream": stream})
        assert (reply.status_code, reply.headers["x-nomoat-where"], reply.headers["retry-after"]) == (502, "cloud", "7")


@pytest.mark.parametrize("stream", [False, True])
def test_what_the_cloud_fails_at_is_answered_here_where_the_policy_says_so(start: Start, stream: bool) -> None:
    cloud = Watched(is_local=False, failure=RemoteError("`big` answered 401: hello", status=401))
    url = start(auto(cloud, if_cloud_fails="local"))
    body = {"model": "auto", "messages": [{"role": "user", "content": "hello moat"}], "stream": stream}
    reply = httpx.post(f"{url}/chat/completions", json=body)
    assert (reply.status_code, "moat" in reply.text, len(cloud.asked)) == (200, True, 1)
    assert headers_of(reply) == {
        "x-nomoat-where": "local", "x-nomoat-model": "small", "x-nomoat-rule": "cloud_failed",
        "x-nomoat-why": f"`{CLOUD}` failed (status 401), and the policy then asks the local model",
    }  # fmt: skip
    counted = httpx.get(f"{url.removesuffix('/v1')}/metrics").text
    for where, rule in (("cloud", "default"), ("local", "cloud_failed")):
        assert f'nomoat_routed_answers_total{{model="auto",rule="{rule}",where="{where}"}} 1.0' in counted


class Hanging(Watched):
    """Says nothing until it may `go_on`."""

    def __init__(self, *, is_local: bool) -> None:
        super().__init__(is_local=is_local)
        self.go_on = threading.Event()

    def generate(self, request: Request) -> Iterator[Chunk]:
        for chunk in super().generate(request):
            assert self.go_on.wait(PATIENCE_SECONDS)
            yield chunk


@pytest.mark.parametrize("side", ["cloud", "local"])
def test_one_side_that_says_nothing_keeps_what_goes_to_the_other_not_waiting(
    start: Start, monkeypatch: pytest.MonkeyPatch, side: str
) -> None:
    """The local side may be a server, too."""
    monkeypatch.setattr("nomoat.serve.answers.MAX_TEXTS", 2)
    hanging = Hanging(is_local=side == "local")
    url = start(auto(**{side: hanging}))  # type: ignore[arg-type]
    texts = ("hello", PRIVATE) if side == "cloud" else (PRIVATE, "hello")
    with ThreadPoolExecutor(3) as clients:
        waiting = [clients.submit(ask, url, texts[0]) for _ in range(3)]
        try:
            wait_until(lambda: "nomoat_answers_under_way 3.0" in httpx.get(url.replace("/v1", "/metrics")).text, "all of them")
            other = ask(url, texts[1])["x-nomoat-where"]
            embedded = httpx.post(f"{url}/embeddings", json={"input": "hello"}).status_code
            assert (other, embedded, len(hanging.asked)) == ("local" if side == "cloud" else "cloud", 200, 2)
        finally:
            hanging.go_on.set()
    assert [one.result()["x-nomoat-where"] for one in waiting] == [side] * 3


def test_what_falls_back_to_a_slow_side_here_keeps_what_goes_to_the_cloud_not_waiting(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nomoat.serve.answers.MAX_TEXTS", 2)
    local, cloud = Hanging(is_local=True), Watched(is_local=False, failure=RemoteError("no", status=503))
    url = start(auto(cloud, local, if_cloud_fails="local"))
    with ThreadPoolExecutor(4) as clients:
        try:
            fallen = [clients.submit(ask, url, "hello") for _ in range(3)]
            wait_until(lambda: (len(local.asked), len(cloud.asked)) == (2, 3), "all of them")
            cloud._failure = None
            assert clients.submit(ask, url, "hello").result(20)["x-nomoat-where"] == "cloud"
            assert len(local.asked) == 2
        finally:
            local.go_on.set()
    assert [one.result()["x-nomoat-rule"] for one in fallen] == ["cloud_failed"] * 3


def test_a_text_that_waits_for_the_cloud_is_not_sent_once_the_policy_keeps_it_here(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It then waits for this side, and for no other text of the cloud's."""
    monkeypatch.setattr("nomoat.serve.answers.MAX_TEXTS", 2)
    written = f'local = "small"\ncloud = "{CLOUD}"\ndefault = "cloud"\n'
    default_path().parent.mkdir(parents=True, exist_ok=True)
    default_path().write_text(written)
    file, local, cloud = PolicyFile(), Hanging(is_local=True), Hanging(is_local=False)
    here, there = Responder("small", local), Responder(CLOUD, cloud)
    url = start(Responder("auto", RouterEngine(file.parsed(), here, there, file=file)))
    with ThreadPoolExecutor(6) as clients:
        hang = [clients.submit(ask, url, "hello") for _ in range(2)]
        try:
            wait_until(lambda: len(cloud.asked) == 2, "both")
            late = [clients.submit(ask, url, "about Project Falcon") for _ in range(3)]
            wait_until(lambda: "nomoat_answers_under_way 5.0" in httpx.get(url.replace("/v1", "/metrics")).text, "all of them")
            other = clients.submit(ask, url, "about another")
            default_path().write_text(written + 'names = ["Project Falcon"]\n')
            cloud.go_on.set()
            assert (other.result(20)["x-nomoat-rule"], len(local.asked)) == ("default", 2)
        finally:
            cloud.go_on.set()
            local.go_on.set()
    assert [(one.result()["x-nomoat-where"], one.result()["x-nomoat-rule"]) for one in late] == [("local", "private")] * 3
    assert [one.result()["x-nomoat-where"] for one in hang] == ["cloud"] * 2
    assert sorted(message.content for asked in cloud.asked for message in asked.messages) == ["about another", "hello", "hello"]


@pytest.mark.parametrize("stream", [False, True])
def test_what_the_cloud_refused_for_now_and_the_policy_keeps_here_by_then_is_refused_as_such(
    start: Start, serving: Callable[..., Server], stream: bool
) -> None:
    """With status 503, after which clients ask again."""
    refuse = say(429, {}, headers={"retry-after": "0"})

    def change_and_refuse(*given: Any) -> None:
        default_path().write_text(written + 'names = ["Project Falcon"]\n')
        refuse(*given)

    server = serving(change_and_refuse, FINE)
    written = f'local = "small"\ncloud = "{server.url}#big"\ndefault = "cloud"\n'
    default_path().parent.mkdir(parents=True, exist_ok=True)
    default_path().write_text(written)
    file, cloud = PolicyFile(), Responder(f"{server.url}#big", remote_engine(f"{server.url}#big"))
    url = start(Responder("auto", RouterEngine(file.parsed(), Responder("small", Watched(is_local=True)), cloud, file=file)))
    body = {"model": "auto", "messages": [{"role": "user", "content": "about Project Falcon"}], "stream": stream}
    reply = httpx.post(f"{url}/chat/completions", json=body)
    error = reply.json()["error"]
    assert (reply.status_code, error["type"], error["code"], len(server.bodies)) == (503, "server_error", "policy_changed", 1)
    why = "while this waited for it, what is in force changed, and keeps it here (it "
    assert error["message"].startswith(f"not answered by the cloud: {why}")
    assert httpx.post(f"{url}/chat/completions", json=body).headers["x-nomoat-where"] == "local"


def test_embeddings_that_take_long_keep_no_answer_waiting(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nomoat.serve.answers.MAX_TEXTS", 2)
    begun, go_on = threading.Semaphore(0), threading.Event()

    class Slow(Watched):
        def embed(self, *asked: Any, **how: Any) -> Any:
            begun.release()
            assert go_on.wait(PATIENCE_SECONDS)
            return super().embed(*asked, **how)

    url = start(auto(local=Slow(is_local=True)))
    with ThreadPoolExecutor(2) as clients:
        slow = [clients.submit(httpx.post, f"{url}/embeddings", json={"input": "hello"}) for _ in range(2)]
        try:
            for _ in slow:
                assert begun.acquire(timeout=PATIENCE_SECONDS)
            assert [ask(url, text)["x-nomoat-where"] for text in ("hello", PRIVATE)] == ["cloud", "local"]
        finally:
            go_on.set()
    assert [one.result().status_code for one in slow] == [200] * 2


def test_answer_of_a_model_that_chooses_nothing_has_no_such_header(start: Start) -> None:
    body = {"messages": [{"role": "user", "content": "hello"}]}
    assert headers_of(httpx.post(f"{start(Responder('fake', FakeEngine()))}/chat/completions", json=body)) == {}


def test_metrics_count_the_answers_of_each_side_and_on_decision_hears_of_them(start: Start) -> None:
    heard: list[str] = []
    url = start(auto(on_decision=lambda decision: heard.append(decision.where)))
    ask(url, "hello", n=2)
    ask(url, PRIVATE)
    httpx.post(f"{url}/embeddings", json={"input": "hello"})
    body = httpx.get(url.replace("/v1", "/metrics")).text
    counted = re.findall(r'^nomoat_routed_answers_total{model="auto",rule="(\w+)",where="(\w+)"} (\S+)$', body, re.M)
    assert sorted(counted) == [("default", "cloud", "2.0"), ("embeddings", "local", "1.0"), ("private", "local", "1.0")]
    assert heard == ["cloud", "cloud", "local", "local"]


def test_what_stays_here_may_fill_this_models_context(start: Start) -> None:
    local = Watched(is_local=True, context_tokens=100)
    ask(start(auto(local=local)), PRIVATE)
    assert local.asked[0].max_new_tokens == 98


@pytest.mark.parametrize("stream", [False, True])
def test_a_prompt_that_is_only_read_is_read_here(start: Start, stream: bool) -> None:
    cloud = remote_engine("http://192.0.2.1/v1#m")
    body = {"prompt": "c b a", "echo": True, "max_tokens": 0, "stream": stream}
    reply = httpx.post(f"{start(auto(cloud))}/completions", json=body)  # type: ignore[arg-type]
    assert (reply.status_code, reply.headers.get("x-nomoat-where"), "c b a" in reply.text) == (200, "local", True)
    cloud.close()


def test_likelihoods_of_a_prompt_are_read_here(start: Start) -> None:
    body = {"prompt": "c b a", "echo": True, "logprobs": 1, "max_tokens": 1}
    cloud = Watched(is_local=False)
    # as the engines of servers do
    cloud.refusal = lambda request: RemoteError("no likelihoods") if request.top_logprobs is not None else None  # type: ignore[attr-defined]
    reply = httpx.post(f"{start(auto(cloud))}/completions", json=body)
    assert (reply.status_code, reply.json()["choices"][0]["text"], cloud.asked) == (200, "c b aa", [])
    assert (reply.headers["x-nomoat-where"], reply.headers["x-nomoat-why"]) == ("local", "no likelihoods")
    assert json.dumps(reply.json()).count("token_logprobs") == 1


def test_setting_that_the_cloud_refused_is_told_of_answers_from_there_only(start: Start, serving: Callable[..., Server]) -> None:
    cloud = remote_engine(f"{serving(say(400, {'error': 'Unknown name seed'}), FINE).url}#m")
    url = start(auto(cloud))  # type: ignore[arg-type]
    told = [ask(url, text, seed=1).get("x-nomoat-notes") for text in ("hello", PRIVATE)]
    assert told == ["`m` at `127.0.0.1` refuses `seed`: asked again it may answer otherwise", None]
    cloud.close()


# ---------------------------------------------------------------- the policy's budget
@pytest.fixture
def with_budget(serving: Callable[..., Server]) -> Iterator[Callable[..., Responder]]:
    """Makes `auto`, whose cloud takes $100 a million new tokens: ten cost $0.001, and what FINE counts $0.0002.

    Named before `start`, it closes what it made after the server has ended.
    """
    made: list[Responder] = []

    def make(max_usd_per_day: float, *acts: Callable[..., None]) -> Responder:
        ref = f"{serving(*acts or (FINE,)).url}#big"
        prices.own_path().parent.mkdir(parents=True, exist_ok=True)
        prices.own_path().write_text(f'[[price]]\napi = "{ref}"\ninput = 0\noutput = 100\nas_of = "2026-11"\nsource = "test"\n')
        policy = Policy(local="small", cloud=ref, default="cloud", max_usd_per_day=max_usd_per_day)
        engine = RouterEngine(policy, Responder("small", FakeEngine()), Responder(ref, remote_engine(ref)))
        made.append(Responder("auto", engine))
        return made[-1]

    yield make
    for responder in made:
        responder.close()


def spent_by(url: str) -> float:
    body = httpx.get(url.replace("/v1", "/metrics")).text
    return float(re.findall(r'^nomoat_cloud_usd_total{model="auto"} (\S+)$', body, re.M)[0])


@pytest.mark.parametrize("stream", [False, True])
def test_what_could_cost_more_than_is_left_is_answered_here_and_says_why(
    with_budget: Callable[..., Responder], start: Start, stream: bool
) -> None:
    url = start(with_budget(0.0013))
    assert [ask(url, "a b", max_tokens=10, stream=stream)["x-nomoat-where"] for _ in range(2)] == ["cloud", "cloud"]
    assert spent_by(url) == pytest.approx(0.0004)
    told = ask(url, "a b", max_tokens=10, stream=stream)
    assert (told["x-nomoat-where"], told["x-nomoat-model"]) == ("local", "small")
    assert told["x-nomoat-why"] == "of $0.0013 a day, $0.0004 is spent, and this could cost up to $0.001"
    assert told["x-nomoat-rule"] == "budget"
    counted = httpx.get(url.replace("/v1", "/metrics")).text
    assert 'nomoat_routed_answers_total{model="auto",rule="budget",where="local"} 1.0' in counted


def test_answers_to_one_prompt_go_where_there_is_room_for_all_of_them(with_budget: Callable[..., Responder], start: Start) -> None:
    url = start(with_budget(0.0025))
    assert ask(url, "a b", max_tokens=10, n=3)["x-nomoat-where"] == "local"
    assert ask(url, "a b", max_tokens=10, n=2)["x-nomoat-where"] == "cloud"
    assert spent_by(url) == pytest.approx(0.0004)


@pytest.mark.parametrize("stream", [False, True])
def test_without_max_tokens_the_policys_longest_answer_is_asked_for_and_told(
    with_budget: Callable[..., Responder], start: Start, stream: bool
) -> None:
    """$0.4096 may be spent on it."""
    asked: list[dict[str, Any]] = []

    def act(handler: Any) -> None:
        asked.append(handler.body)
        FINE(handler)

    url = start(with_budget(0.5, act))
    told = ask(url, "a b", stream=stream)
    assert (told["x-nomoat-where"], told["x-nomoat-max-tokens"]) == ("cloud", "4096")
    assert "x-nomoat-max-tokens" not in ask(url, "a b", stream=stream, max_tokens=10)
    assert [body["max_tokens"] for body in asked] == [4096, 10]
    told = ask(url, "a b", stream=stream, n=2)
    assert (told["x-nomoat-where"], len(asked)) == ("local", 2)
    assert told["x-nomoat-why"] == "of $0.50 a day, $0.0004 is spent, and this could cost up to $0.8192"
    assert "x-nomoat-max-tokens" not in told


def test_a_client_that_leaves_pays_the_most_its_answer_could_cost(with_budget: Callable[..., Responder], start: Start) -> None:
    silent = Silent(piece("so far"))
    url = start(with_budget(1.0, silent))
    body = {"model": "auto", "messages": [{"role": "user", "content": "a b"}], "max_tokens": 10, "stream": True}
    with httpx.stream("POST", f"{url}/chat/completions", json=body) as answer:
        chunks = answer.iter_raw()  # once nobody has it, the connection is closed
        assert any(b"so far" in chunk for chunk in chunks)
        assert (budget.read_spent().today_usd, spent_by(url)) == (pytest.approx(0.001), 0)
    assert silent.hung_up.wait(PATIENCE_SECONDS)
    wait_until(lambda: spent_by(url))  # a moment after the connection is closed
    assert (budget.read_spent().today_usd, spent_by(url)) == (pytest.approx(0.001), pytest.approx(0.001))


def test_spending_is_counted_since_the_servers_start_also_of_what_was_unloaded(
    with_budget: Callable[..., Responder], start: Start
) -> None:
    loaders = [
        Loader(names=("auto",), planned_bytes=1, load=lambda: [with_budget(1.0)]),
        Loader(names=("other",), planned_bytes=1, load=lambda: [Responder("other", FakeEngine())]),
    ]
    models = Models(loaders=loaders, memory_bytes=1)
    url = start(models)
    for count in (1, 2):
        ask(url, "a b", max_tokens=10)
        assert spent_by(url) == pytest.approx(count * 0.0002)
        ask(url, "a b", model="other")
        assert (list(models.loaded()), spent_by(url)) == (["other"], pytest.approx(count * 0.0002))


def test_metrics_of_what_counts_no_money_do_not_speak_of_it(start: Start) -> None:
    assert "nomoat_cloud_usd_total{" not in httpx.get(start(auto()).replace("/v1", "/metrics")).text
