"""Connections that bring nothing, clients that do not read, and how both end with the server."""

from __future__ import annotations

import asyncio
import errno
import functools
import signal
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import httpx
import pytest
from leaving import asking, endless
from patience import PATIENCE_SECONDS, wait_until
from scripted import ScriptedEngine

from nomoat.engine.fake import FakeEngine
from nomoat.records import Chunk, Usage
from nomoat.responder import Responder
from nomoat.serve import connections
from nomoat.serve.app import create_app
from nomoat.serve.connections import Connection, Server
from nomoat.serve.listening import bind

HALF = b"POST /v1/chat/completions HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-length: 1000\r\n\r\n{"
STREAM = {"messages": [{"role": "user", "content": "hi"}], "stream": True}
LONG = 100_000.0
IDLE_SECONDS = connections.IDLE_SECONDS
USAGE = Usage(prompt_tokens=1, completion_tokens=51, prefill_seconds=0.0, decode_seconds=0.0)


class Running:
    """A server in a thread, which ends when it is told to."""

    def __init__(self, responder: Responder, *, seconds_to_end: int = 1, drain_seconds: int = 0) -> None:
        self._listener = bind("127.0.0.1", 0)
        self.server = Server(create_app(responder), seconds_to_end=seconds_to_end, drain_seconds=drain_seconds)
        self.thread = threading.Thread(target=self.server.run, kwargs={"sockets": [self._listener]}, daemon=True)
        self.address = self._listener.getsockname()
        self.url = f"http://127.0.0.1:{self.address[1]}"
        self.thread.start()
        wait_until(lambda: self.server.started, "the server")

    def connections(self) -> list[Connection]:
        return [one for one in list(self.server.server_state.connections) if isinstance(one, Connection)]

    def connection_of(self, client: socket.socket) -> Connection:
        """The server's end of it, as soon as there is one."""
        mine: list[Connection] = []

        def has_come() -> bool:
            mine[:] = [one for one in self.connections() if one.client == client.getsockname()]
            return bool(mine)

        wait_until(has_come, "the connection")
        return mine[0]

    @contextmanager
    def sending(self, content: bytes) -> Iterator[tuple[socket.socket, Connection]]:
        """Both ends of a connection over which this was sent."""
        with socket.create_connection(self.address, timeout=PATIENCE_SECONDS) as client:
            client.sendall(content)
            connection = self.connection_of(client)
            wait_until(lambda: connection.headers is not None or not content, "what was sent")
            yield client, connection

    def end(self) -> None:
        self.server.should_exit = True
        self.thread.join(PATIENCE_SECONDS)
        assert not self.thread.is_alive()


@pytest.fixture(autouse=True)
def only_what_is_long_is_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "SILENT_SECONDS", LONG * 0.9)
    monkeypatch.setattr(connections, "IDLE_SECONDS", LONG * 1.9)


@pytest.fixture
def run() -> Iterator[Callable[..., Running]]:
    running: list[Running] = []

    def start(responder: Responder, *, seconds_to_end: int = 1, drain_seconds: int = 0) -> Running:
        running.append(Running(responder, seconds_to_end=seconds_to_end, drain_seconds=drain_seconds))
        return running[-1]

    yield start
    for one in running:
        one.end()


def test_a_connection_in_which_nothing_comes_is_given_up_and_a_slow_one_is_not(run: Callable[..., Running]) -> None:
    one = run(Responder("fake", FakeEngine()))
    with one.sending(b"") as (mute, first), one.sending(HALF) as (half, second), one.sending(HALF) as (slow, third):
        third._heard_at -= LONG / 2
        was = third._heard_at
        slow.sendall(b" ")
        wait_until(lambda: third._heard_at > was + LONG / 4, "the byte")
        third._heard_at -= LONG / 2
        first._heard_at -= LONG
        second._heard_at -= LONG
        assert mute.recv(1) == b"" and half.recv(1) == b""
        assert third in one.connections() and third.is_half
    assert httpx.get(f"{one.url}/health").status_code == 200


def test_an_answer_that_takes_long_is_not_given_up(run: Callable[..., Running]) -> None:
    begun, closed = threading.Event(), threading.Event()
    one = run(Responder("fake", ScriptedEngine(lambda: endless(begun, closed))))
    with asking(f"{one.url}/v1/chat/completions", STREAM) as client, one.sending(b"") as (mute, idle):
        assert begun.wait(PATIENCE_SECONDS)
        answering = one.connection_of(client)
        answering._heard_at -= LONG
        idle._heard_at -= LONG
        assert mute.recv(1) == b""  # the server has looked
        assert client.recv(1) and not closed.is_set() and not answering.is_silent


def test_after_an_answer_that_took_long_it_is_the_clients_turn_anew(run: Callable[..., Running]) -> None:
    one = run(Responder("fake", FakeEngine()))
    with httpx.Client() as client:
        assert client.get(f"{one.url}/health").status_code == 200
        (kept,) = one.connections()
        kept._heard_at -= LONG
        kept.on_response_complete()
        assert not kept.is_silent


def test_an_idle_connection_is_kept_longer_than_clients_and_proxies_keep_theirs_and_the_end_waits_for_none(
    run: Callable[..., Running],
) -> None:
    """Else a request is sent while its connection is closed, and has no answer. The longest default known is LiteLLM's, 120 s."""
    one = run(Responder("fake", FakeEngine()), seconds_to_end=1000)
    with one.sending(b"GET /health HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n") as (_, kept):
        wait_until(lambda: kept.is_idle, "the end of the answer")
        assert kept.timeout_keep_alive == connections.IDLE_SECONDS and IDLE_SECONDS > 120
        kept._heard_at -= LONG  # too long for a request that is not whole
        assert not kept.is_silent
        one.end()


def test_a_next_request_that_is_begun_and_not_sent_on_is_given_up_as_a_first_one_is(run: Callable[..., Running]) -> None:
    one = run(Responder("fake", FakeEngine()))
    with one.sending(b"GET /health HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n") as (client, kept):
        wait_until(lambda: kept.is_idle, "the end of the answer")
        client.sendall(b"GET /health")
        wait_until(lambda: not kept.is_idle, "the next request")
        assert not kept.is_silent
        kept._heard_at -= LONG
        assert kept.is_silent


def test_idle_connections_are_given_up_when_there_is_no_room_for_more(run: Callable[..., Running]) -> None:
    one = run(Responder("fake", FakeEngine()))
    full = {"message": "no", "exception": OSError(errno.EMFILE, "Too many open files"), "socket": None}
    with one.sending(HALF) as (_, begun), one.sending(b"GET /health HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n") as (client, idle):
        wait_until(lambda: idle.is_idle, "the end of the answer")
        one.server._loop_error(begun.loop, full)
        while client.recv(1000):
            pass
        assert one.connections() == [begun]


def test_the_end_waits_neither_for_half_a_request_nor_for_who_does_not_read_but_says_it_to_who_does(
    run: Callable[..., Running], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "UNREAD_SECONDS", 0.2)
    words = iter(["word " * 10_000, "word "])
    answer = functools.partial(endless, threading.Event(), threading.Event())
    one = run(Responder("fake", ScriptedEngine(lambda: answer(words=next(words)))), seconds_to_end=1000)
    with one.sending(b""), one.sending(HALF), asking(f"{one.url}/v1/chat/completions", STREAM) as client:
        unread = one.connection_of(client)
        wait_until(lambda: unread.flow.write_paused, "more than a client that does not read has room for")
        with httpx.stream("POST", f"{one.url}/v1/chat/completions", json=STREAM) as reading:
            lines = reading.iter_lines()
            assert next(lines).startswith("data: ")
            one.server.should_exit = True
            assert any('"shutting_down"' in line for line in lines)
        one.end()


def test_a_server_that_drains_writes_answers_under_way_to_their_end_and_takes_nothing_else(run: Callable[..., Running]) -> None:
    go_on = threading.Event()

    def script() -> Iterator[Chunk]:
        yield Chunk(text="word ")
        assert go_on.wait(PATIENCE_SECONDS)
        yield from [Chunk(text="word ")] * 2  # one that is told to stop ends after the next
        yield Chunk(text="", finish_reason="stop", usage=USAGE)

    one = run(Responder("m", ScriptedEngine(script)), drain_seconds=1000)
    with (
        one.sending(b"GET /health HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n") as (_, idle), one.sending(b"") as (_, empty),
        httpx.stream("POST", f"{one.url}/v1/chat/completions", json=STREAM) as reading,
    ):  # fmt: skip
        lines = reading.iter_lines()
        assert next(lines).startswith("data: ")
        wait_until(lambda: idle.is_idle, "the end of the answer")
        for _ in range(2):  # from `timeout`, which sends it to the server and to all of its group
            one.server.handle_exit(signal.SIGTERM, None)
        wait_until(lambda: not {idle, empty} & set(one.connections()), "the end of those that have no answer")
        with pytest.raises(httpx.ConnectError):
            httpx.get(f"{one.url}/health")
        go_on.set()
        written = [line for line in lines if line]
        assert '"finish_reason":"stop"' in written[-2] and written[-1] == "data: [DONE]"
        one.end()


@pytest.mark.parametrize("seconds", [1000, 1])
def test_a_server_that_drains_ends_answers_at_a_second_signal_or_after_its_time(
    run: Callable[..., Running], seconds: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "ONE_SIGNAL_SECONDS", -1.0)
    answer = functools.partial(endless, threading.Event(), threading.Event())
    one = run(Responder("m", ScriptedEngine(answer)), drain_seconds=seconds)
    with httpx.stream("POST", f"{one.url}/v1/chat/completions", json=STREAM) as reading:
        lines = reading.iter_lines()
        assert next(lines).startswith("data: ")
        for _ in range(2 if seconds == 1000 else 1):
            one.server.handle_exit(signal.SIGINT, None)
        assert any('"shutting_down"' in line for line in lines)
        one.end()
    assert not one.server.force_exit


def test_a_client_that_leaves_before_much_that_is_ready_is_written_is_no_line_of_the_log(
    run: Callable[..., Running], caplog: pytest.LogCaptureFixture
) -> None:
    """asyncio logs from the fifth write on that goes into a lost connection, if it has not told of the loss yet."""
    holding, left, written, held = (threading.Event() for _ in range(4))

    def hold() -> None:
        holding.set()
        assert held.wait(PATIENCE_SECONDS)

    def answer() -> Iterator[Chunk]:
        yield Chunk(text="first")
        assert left.wait(PATIENCE_SECONDS)
        yield from [Chunk(text="word ")] * 50
        written.set()
        yield Chunk(text="", finish_reason="stop", usage=USAGE)

    one = run(Responder("fake", ScriptedEngine(answer)))
    with asking(f"{one.url}/v1/chat/completions", STREAM) as client:
        while b"first" not in client.recv(1000):
            pass
        one.connection_of(client).loop.call_soon_threadsafe(hold)
        assert holding.wait(PATIENCE_SECONDS)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # a reset, not an orderly end
    left.set()
    assert written.wait(PATIENCE_SECONDS)
    held.set()
    wait_until(lambda: not one.connections(), "the end of the connection")
    assert not caplog.records


@pytest.mark.parametrize("upgrade", ["h2c", "websocket"])
def test_who_asks_for_another_protocol_is_answered_in_http_and_is_no_line_of_the_log(
    run: Callable[..., Running], caplog: pytest.LogCaptureFixture, upgrade: str
) -> None:
    """Java's HttpClient offers HTTP/2 with each request; coding agents can be told to try a WebSocket first."""
    running = run(Responder("fake", FakeEngine()))
    headers = {"connection": "Upgrade", "upgrade": upgrade}
    with httpx.Client(base_url=running.url, headers=headers, timeout=PATIENCE_SECONDS) as client:
        assert client.post("/v1/chat/completions", json={**STREAM, "stream": False}).json()["choices"][0]["message"]["content"] == "hi"
        refused = client.get("/v1/responses")
    assert (refused.status_code, refused.json()["error"]["message"]) == (405, "GET /v1/responses: method not allowed")
    assert [one.getMessage() for one in caplog.records if one.levelname != "INFO"] == []


def test_the_system_is_asked_whether_clients_are_still_there(run: Callable[..., Running]) -> None:
    one = run(Responder("fake", FakeEngine()))
    with one.sending(b"") as (_, connection):
        accepted = connection.transport.get_extra_info("socket")
        assert accepted.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)


def test_as_many_connections_are_allowed_as_the_system_lets_a_process_have() -> None:
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    hard = before[1]
    if hard != resource.RLIM_INFINITY and hard <= 256:
        pytest.skip("there is nothing to raise")
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
        connections.allow_many()
        raised, still = resource.getrlimit(resource.RLIMIT_NOFILE)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    assert raised == (connections.MAX_FILES if hard == resource.RLIM_INFINITY else min(hard, connections.MAX_FILES))
    assert still == hard


def test_that_there_is_no_room_for_more_connections_is_said_once_and_other_errors_as_ever(caplog: pytest.LogCaptureFixture) -> None:
    server = Server(create_app(Responder("fake", FakeEngine())))
    loop = asyncio.new_event_loop()
    try:
        with socket.socket() as listener:
            full = {"message": "no", "exception": OSError(errno.EMFILE, "Too many open files"), "socket": listener}
            for _ in range(3):
                server._loop_error(loop, full)
        server._loop_error(loop, {"message": "something else", "exception": OSError(errno.EMFILE, "Too many open files")})
    finally:
        loop.close()
    assert [record.getMessage() for record in caplog.records] == [
        "no more connections can be taken (Too many open files); 0 are open", "something else",
    ]  # fmt: skip
