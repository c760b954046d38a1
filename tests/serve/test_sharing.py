"""Clients of one server: turns, and bounds on what waits. Behind a proxy on this machine, a client is whom the proxy names."""

from __future__ import annotations

import asyncio
import gc
import json
import socket
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import httpx
import pytest
from leaving import asking
from patience import PATIENCE_SECONDS, wait_until
from scripted import ScriptedEngine

from nomoat import hardware, net
from nomoat.engine.fake import FakeEngine
from nomoat.errors import StoppedError
from nomoat.records import Chunk, Place, Usage
from nomoat.responder import Responder
from nomoat.serve.answers import Answer, Answers
from nomoat.serve.sharing import Idle, Row, Shares

Start = Callable[..., str]
END = Chunk(text="", finish_reason="stop", usage=Usage(prompt_tokens=1, completion_tokens=1, prefill_seconds=0.0, decode_seconds=0.0))
HI = {"messages": [{"role": "user", "content": "hi"}]}


class Held:
    """A model's server that answers nothing before it may `go_on`."""

    def __init__(self, start: Start) -> None:
        self.go_on = threading.Event()
        self.engine = ScriptedEngine(self._script)
        self.url = start(Responder("m", self.engine))

    def _script(self) -> Iterator[Chunk]:
        assert self.go_on.wait(PATIENCE_SECONDS)
        yield END

    def ask(self, client: str, path: str = "chat/completions", **body: Any) -> httpx.Response:
        return httpx.post(f"{self.url}/{path}", json=body or HI, headers={"x-forwarded-for": client}, timeout=PATIENCE_SECONDS)

    def metric(self, name: str) -> float:
        lines = httpx.get(self.url.replace("/v1", "/metrics")).text.splitlines()
        return next(float(line.split()[-1]) for line in lines if line.startswith(name))

    def wait_for(self, under_way: int) -> None:
        wait_until(lambda: self.metric("nomoat_answers_under_way") == under_way, f"{under_way} under way")


@pytest.fixture
def held(start: Start) -> Iterator[Held]:
    server = Held(start)
    yield server
    server.go_on.set()


def test_a_client_has_as_much_as_it_leaves_free() -> None:
    shares = Shares(12)
    taken = [client for client in "aaaaaaaabbbbbbbbcccc" if shares.take(client)]
    assert taken == [*"aaaaaabbbc"]
    shares.give_back("a", 6)
    assert not shares.take("a", 5)
    assert shares.take("a", 4)


class FewThreads:
    """A system that lets rows begin no more threads than `most`."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, most: int) -> None:
        self.most, self.begun = most, 0
        begin = threading.Thread.start

        def start(thread: threading.Thread) -> None:
            if thread.name.startswith("answer"):
                if self.begun >= self.most:
                    raise RuntimeError("can't start new thread")
                self.begun += 1
            begin(thread)

        monkeypatch.setattr(threading.Thread, "start", start)


@pytest.mark.parametrize(("places", "threads"), [pytest.param(1, 99, id="few places"), pytest.param(64, 1, id="few threads")])
def test_clients_take_turns_with_what_waits_and_one_has_its_own_in_order(
    places: int, threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    FewThreads(monkeypatch, threads)
    done: list[str] = []
    go_on = threading.Event()
    row = Row("m", places)
    first = row.put("a", go_on.wait, PATIENCE_SECONDS)
    rest = [row.put(name[0], done.append, name) for name in ("a2", "a3", "a4", "b1", "b2", "c1")]
    go_on.set()
    for one in (first, *rest):
        one.result(PATIENCE_SECONDS)
    row.close()
    assert done == ["a2", "b1", "c1", "a3", "b2", "a4"]


@pytest.mark.parametrize(("limit", "asked", "lacks"), [(64, {"a": 200}, 0), (70, {"a": 64, "b": 32}, 1)])
def test_what_waits_begins_where_others_end_though_the_system_has_no_more_threads(
    limit: int, asked: dict[str, int], lacks: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    FewThreads(monkeypatch, limit)
    row = Row("m", 64)
    with_room = threading.Event()
    waiting = [row.put(client, with_room.wait, PATIENCE_SECONDS) for client, count in asked.items() for _ in range(count)]
    with_room.set()
    assert all(future.result(PATIENCE_SECONDS) for future in waiting)
    row.close()
    assert caplog.messages == ["answers of `m` wait for those under way: can't start new thread"] * lacks


def test_a_row_has_all_its_threads_again_once_the_system_has(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    system = FewThreads(monkeypatch, 1)
    row = Row("m", 4)
    ends = [threading.Event() for _ in range(3)]
    futures = [row.put("a", end.wait, PATIENCE_SECONDS) for end in ends]
    for at, most in ((0, 1), (1, 99)):
        system.most = most
        ends[at].set()
        futures[at].result(PATIENCE_SECONDS)
    assert row.put("b", str, "at once").result(PATIENCE_SECONDS) == "at once"
    ends[2].set()
    row.close()
    assert len(caplog.messages) == 1


def test_a_thread_without_work_waits_for_more_and_keeps_nothing_of_what_has_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of texts one after the other, none finds it neither at work nor waiting."""
    monkeypatch.setattr("nomoat.serve.sharing.IDLE_SECONDS", 2 * PATIENCE_SECONDS)

    class Text:
        def write(self) -> threading.Thread:
            return threading.current_thread()

    system = FewThreads(monkeypatch, 1)
    row, seen = Row("m", 64), []
    for at in range(300):
        text = Text()
        seen.append(weakref.ref(text))
        thread = row.put(str(at % 3), text.write).result(PATIENCE_SECONDS)
        del text
    wait_until(lambda: not any(one() for one in seen), "its texts to be forgotten")
    assert system.begun == 1
    row.close()
    thread.join(PATIENCE_SECONDS)
    assert not thread.is_alive()


def test_an_idle_thread_takes_the_work_of_any_row(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also at once, where whoever has the end of one begins another."""
    FewThreads(monkeypatch, 1)
    idle = Idle()
    rows = [Row(name, 64, idle) for name in "ab"]
    for at in range(100):
        assert rows[at % 2].put("a", str, at).result(PATIENCE_SECONDS) == str(at)
    first = rows[0].put("a", str, "first")
    later: list[Future[str]] = []
    first.add_done_callback(lambda _: later.append(rows[1].put("a", str, "later")))
    wait_until(lambda: bool(later), "the first to end")
    assert later[0].result(PATIENCE_SECONDS) == "later"
    for row in rows:
        row.close()


def test_a_thread_for_which_nothing_comes_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nomoat.serve.sharing.IDLE_SECONDS", 0.01)
    row = Row("m", 64)
    thread = row.put("a", threading.current_thread).result(PATIENCE_SECONDS)
    thread.join(PATIENCE_SECONDS)
    assert not thread.is_alive()
    assert row.put("a", str, "again").result(PATIENCE_SECONDS) == "again"


def test_to_wait_for_a_thread_takes_no_longer_the_more_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    FewThreads(monkeypatch, 1)
    row, go_on = Row("m", 64), threading.Event()
    began = time.monotonic()
    waiting = [row.put("a", go_on.wait, PATIENCE_SECONDS) for _ in range(5000)]
    took = time.monotonic() - began
    row.close()
    go_on.set()
    assert [type(future.exception(PATIENCE_SECONDS)) for future in waiting[-2:]] == [StoppedError] * 2
    assert took < 5


@pytest.mark.parametrize("daemon", [False, True])
def test_a_process_that_ends_writes_what_it_has_begun_and_nothing_that_waits(daemon: bool) -> None:
    """Also one that serves from a thread: see `nomoat.serve` in notebooks."""
    script = f"""
import atexit, threading, time
from nomoat.serve.sharing import Row

def put():
    futures.extend(row.put("a", time.sleep, 0.5) for _ in range(50))
    futures[-1].add_done_callback(lambda _: late.append(row.put("b", time.sleep, 0.5)))

row, futures, late = Row("m", 1), [], []
putting = threading.Thread(target=put, daemon={daemon})
putting.start()
putting.join()
atexit.register(lambda: print([type(one.exception(0)).__name__ for one in (futures[0], futures[1], futures[-1], late[0])]))
"""
    ended = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True, timeout=PATIENCE_SECONDS)
    assert (ended.stdout, ended.stderr) == ("['NoneType', 'StoppedError', 'StoppedError', 'StoppedError']\n", "")


def test_one_client_alone_has_all_places_and_another_does_not_wait_behind_it(held: Held, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nomoat.serve.answers.MAX_TEXTS", 2)
    with ThreadPoolExecutor(4) as clients:
        many = [clients.submit(held.ask, "10.0.0.1") for _ in range(3)]
        wait_until(lambda: len(held.engine.asked) == 2 and held.metric("nomoat_answers_waiting") == 1, "two of them")
        other = clients.submit(held.ask, "10.0.0.2")
        wait_until(lambda: len(held.engine.asked) == 3, "the other client's")
        assert (held.metric("nomoat_answers_under_way"), held.metric("nomoat_answers_waiting")) == (4, 1)
        held.go_on.set()
        assert [one.result().status_code for one in (*many, other)] == [200] * 4


def test_embeddings_take_turns_too(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    class Slow(FakeEngine):
        def embed(self, *given: Any, **how: Any) -> Any:
            begun.release()
            assert go_on.wait(PATIENCE_SECONDS)
            return super().embed(*given, **how)

    def embed(client: str) -> int:
        return httpx.post(f"{url}/embeddings", json={"input": "hi"}, headers={"x-forwarded-for": client}).status_code

    monkeypatch.setattr("nomoat.serve.answers.MAX_TEXTS", 2)
    begun, go_on = threading.Semaphore(0), threading.Event()
    url = start(Responder("m", Slow()))
    with ThreadPoolExecutor(4) as clients:
        found = [clients.submit(embed, "10.0.0.1") for _ in range(3)]
        try:
            assert all(begun.acquire(timeout=PATIENCE_SECONDS) for _ in range(2))
            found.append(clients.submit(embed, "10.0.0.2"))
            assert begun.acquire(timeout=PATIENCE_SECONDS)
        finally:
            go_on.set()
    assert [one.result() for one in found] == [200] * 4


def test_a_client_that_leaves_while_it_waits_leaves_its_place_at_once(held: Held, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nomoat.serve.answers.MAX_TEXTS", 1)
    with ThreadPoolExecutor(1) as clients:
        first = clients.submit(held.ask, "127.0.0.1")
        held.wait_for(1)
        with asking(f"{held.url}/chat/completions", HI), asking(f"{held.url}/completions", {"prompt": ["hi"] * 20}):
            held.wait_for(22)
        held.wait_for(1)
        held.go_on.set()
        assert first.result().status_code == 200
    assert len(held.engine.asked) == 1


def test_what_is_read_for_a_client_is_read_in_its_name() -> None:
    async def main() -> str:
        answers = Answers()
        try:
            return await answers.work("m", lambda stop: net.asker(), client="192.0.2.7")
        finally:
            answers.close()

    assert asyncio.run(main()) == "192.0.2.7"


def test_what_waits_when_the_server_ends_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nomoat.serve.answers.MAX_TEXTS", 1)

    async def main() -> None:
        answers = Answers()
        working = [asyncio.ensure_future(answers.work("m", lambda stop: stop.wait(PATIENCE_SECONDS))) for _ in range(2)]
        await asyncio.sleep(0)
        answers.close()
        assert await working[0]
        with pytest.raises(StoppedError):
            await working[1]

    asyncio.run(main())


@pytest.mark.parametrize("places", [(), ("cloud",)])
def test_what_waits_for_nobody_any_more_is_forgotten_at_once(places: tuple[Place, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where its model has decided already who answers."""
    monkeypatch.setattr("nomoat.serve.answers.MAX_TEXTS", 1)
    go_on, begun, closed = threading.Event(), threading.Event(), threading.Event()

    def wait(stop: threading.Event) -> Iterator[Chunk | Place]:
        yield from places
        begun.set()
        assert go_on.wait(PATIENCE_SECONDS)
        yield END

    def write(stop: threading.Event) -> Iterator[Chunk | Place]:
        try:
            yield from places
            yield END
        finally:
            closed.set()

    async def left(answers: Answers) -> weakref.ref[Answer]:
        answer = answers.start("m", [write])
        while len(places) != answer.is_begun(0):
            await asyncio.sleep(0.01)
        answer.stop()
        return weakref.ref(answer)

    async def main() -> None:
        answers = Answers()
        answers.start("m", [wait])
        assert await asyncio.to_thread(begun.wait, PATIENCE_SECONDS)
        async with asyncio.timeout(PATIENCE_SECONDS):
            seen = await left(answers)
            while seen() is not None:
                await asyncio.sleep(0.01)
                gc.collect()
        assert (answers.num_texts, closed.is_set()) == (1, bool(places))
        go_on.set()
        answers.close()

    asyncio.run(main())


@pytest.mark.parametrize("asked", [{}, {"stream": True}])
def test_more_texts_than_there_is_room_for_are_refused_until_some_are_answered(
    start: Start, monkeypatch: pytest.MonkeyPatch, asked: dict[str, Any]
) -> None:
    """A client that comes later still finds some."""
    monkeypatch.setattr("nomoat.serve.sharing.MAX_TEXTS_HELD", 8)
    held = Held(start)
    with ThreadPoolExecutor(2) as clients:
        try:
            many = clients.submit(held.ask, "10.0.0.1", **HI, n=4)
            held.wait_for(4)
            refused = [held.ask("10.0.0.1", **HI, **asked), held.ask("10.0.0.1", "responses", input="hi"),
                       held.ask("10.0.0.1", "embeddings", input="hi")]  # fmt: skip
            other = clients.submit(held.ask, "10.0.0.2", **HI, n=2)
            held.wait_for(6)
        finally:
            held.go_on.set()
        assert (many.result().status_code, other.result().status_code) == (200, 200)
    assert [(one.status_code, one.headers["retry-after"]) for one in refused] == [(503, "10")] * 3
    assert refused[0].json()["error"] == {
        "message": "too much is asked at once: there is no room for 1 more texts that are being written or wait for their turn; "
        "ask again in a moment",
        "type": "server_error", "param": None, "code": "busy",
    }  # fmt: skip
    assert held.metric('nomoat_requests_total{model="m",outcome="error"}') == 3
    assert held.ask("10.0.0.1", **HI, n=4).status_code == 200


@pytest.mark.parametrize("in_pieces", [False, True])
def test_more_bytes_of_bodies_than_there_is_room_for_are_refused_when_they_have_come(
    start: Start, monkeypatch: pytest.MonkeyPatch, in_pieces: bool
) -> None:
    monkeypatch.setattr("nomoat.serve.sharing.MAX_BODY_BYTES_HELD", 4_000_000)
    held = Held(start)
    long = json.dumps({"messages": [{"role": "user", "content": "x" * 1_500_000}]}).encode()

    def ask(client: str) -> int:
        content = iter([long[:700_000], long[700_000:]]) if in_pieces else long
        headers = {"x-forwarded-for": client}
        return httpx.post(f"{held.url}/chat/completions", content=content, headers=headers, timeout=PATIENCE_SECONDS).status_code

    with ThreadPoolExecutor(1) as clients:
        try:
            first = clients.submit(ask, "10.0.0.1")
            held.wait_for(1)
            assert ask("10.0.0.1") == 503
            assert httpx.post(f"{held.url}/chat/completions", content=b"x" * 2_200_000).status_code == 413
        finally:
            held.go_on.set()
        assert first.result() == 200
    assert ask("10.0.0.1") == 200


def test_memory_that_parsing_long_bodies_took_is_given_back(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    given_back: list[int] = []
    monkeypatch.setattr(hardware, "give_back_freed_memory", lambda: given_back.append(1))
    url = start(Responder("fake", FakeEngine()))
    for more in ("", "x" * (64 << 10), "x" * (1 << 20)):
        assert httpx.post(f"{url}/chat/completions", json={**HI, "user": more}).status_code == 200
    assert given_back == [1]


def test_what_is_said_of_a_body_s_length_takes_no_more_than_any_body_may(start: Start) -> None:
    url = httpx.URL(start(Responder("m", FakeEngine())))
    with socket.create_connection((url.host, url.port or 80)) as other:
        other.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-length: 134217728\r\n\r\n{")
        assert httpx.post(f"{url}/chat/completions", json=HI, timeout=PATIENCE_SECONDS).status_code == 200
