"""The port: how it is taken, and what clients hear at it before a model is there."""

from __future__ import annotations

import errno
import http.client
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any, Never

import httpx
import pytest
from patience import PATIENCE_SECONDS, wait_until

from nomoat.engine.fake import FakeEngine
from nomoat.errors import UsageError
from nomoat.responder import Responder
from nomoat.serve import app, web
from nomoat.serve.app import serve
from nomoat.serve.listening import bind, saying_that_it_loads
from nomoat.serve.models import Loader, Models

LOADING = {
    "error": {"message": "the model is loading; ask again in a moment", "type": "server_error", "param": None, "code": "loading"}
}


@contextmanager
def loading(api_key: str | None = None) -> Iterator[str]:
    """The address of a server that loads its model."""
    with bind("127.0.0.1", 0) as listener, saying_that_it_loads(listener, api_key=api_key, cors=()):
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


@pytest.mark.parametrize(
    ("method", "path"), [("GET", "/health"), ("GET", "/"), ("GET", "/v1/models"), ("POST", "/v1/chat/completions"), ("PUT", "/x")]
)
def test_while_the_model_is_loaded_everybody_is_told_to_come_again(method: str, path: str) -> None:
    with loading() as url:
        answer = httpx.request(method, url + path, headers={"origin": "http://localhost:3000"})
    assert (answer.status_code, answer.json(), answer.headers["retry-after"]) == (503, LOADING, "2")
    assert answer.headers["access-control-allow-origin"] == "http://localhost:3000"


def test_a_browser_is_shown_the_page_while_the_model_is_loaded_and_what_looks_whether_the_server_is_ready_is_not() -> None:
    browser = {"accept": "text/html,application/xhtml+xml,*/*;q=0.8"}
    with loading() as url:
        page = httpx.get(url, headers=browser)
        assert (page.status_code, page.headers["retry-after"], page.text) == (503, "2", web.response("/").body.decode())
        for path, is_there in (("/web/page.js", True), ("/web/page.css", True), ("/v1/models", False), ("/health", False)):
            answer = httpx.get(url + path, headers=browser)
            assert (answer.status_code, answer.headers["connection"]) == (200 if is_there else 503, "close")
            assert ("content-security-policy" in answer.headers) == is_there
        assert httpx.post(f"{url}/web/page.js", headers=browser).json() == LOADING


def test_the_guard_stands_before_a_server_that_loads_too() -> None:
    with loading() as url:
        assert httpx.get(f"{url}/v1/models", headers={"host": "evil.example"}).status_code == 403
    with loading(api_key="s3cret") as url:
        assert httpx.get(f"{url}/v1/models").status_code == 401
        assert httpx.get(f"{url}/health").status_code == 503


def test_a_client_in_the_midst_of_its_request_does_not_keep_a_model_that_is_loaded_waiting() -> None:
    with loading() as url, socket.create_connection(("127.0.0.1", httpx.URL(url).port or 0), timeout=PATIENCE_SECONDS) as client:
        client.sendall(b"POST /v1/chat")
        assert httpx.get(url).status_code == 503
    assert client.fileno() == -1


def test_whoever_was_accepted_while_the_model_was_loaded_is_answered_after_that_too(prompt_end: None) -> None:
    """Connected and silent, in the midst of a request, and with an earlier one answered; the last came last, so all are accepted."""
    post = b"POST /v1/chat/completions HTTP/1.1\r\nhost: 127.0.0.1\r\nauthorization: Bearer s3cret\r\ncontent-length: 1000\r\n\r\n"
    rest = b"x" * 1000
    with (
        bind("127.0.0.1", 0) as listener,
        saying_that_it_loads(listener, api_key="s3cret", cors=()) as hand_over,
        _connected(listener) as mute,
        _connected(listener) as half,
        _connected(listener) as kept,
    ):
        half.sendall(post + rest[1:])
        kept.sendall(b"GET /v1/models HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n")
        assert kept.recv(1000).startswith(b"HTTP/1.1 401 ")
        hand_over()
        with _connected(listener) as new:
            listener.setblocking(True)  # the loop that had its double made both otherwise
            accepted, address = listener.accept()
            accepted.close()
            assert address == new.getsockname()
        for client, sent in ((mute, post + rest), (half, rest[:1]), (kept, post + rest)):
            client.sendall(sent)
            told = _until_closed(client)
            assert b"HTTP/1.1 503 " in told and b"retry-after: 0\r\n" in told and b"the model is there; ask again" in told
        wait_until(lambda: "loading" not in [one.name for one in threading.enumerate()], "the end of what has nobody left to answer")


def test_a_long_request_is_read_before_its_client_is_told_to_come_again() -> None:
    """Else the connection is reset while it sends."""
    with loading() as url, closing(http.client.HTTPConnection(httpx.URL(url).netloc.decode())) as client:
        client.request("POST", "/v1/embeddings", body=b"x" * 20_000_000)
        assert client.getresponse().status == 503


@contextmanager
def _connected(listener: socket.socket) -> Iterator[socket.socket]:
    with socket.create_connection(listener.getsockname(), timeout=PATIENCE_SECONDS) as client:
        yield client


def _until_closed(client: socket.socket) -> bytes:
    return b"".join(iter(lambda: client.recv(1 << 16), b""))


def test_the_port_is_handed_over_once_the_model_is_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    """And stays taken all the while."""
    statuses: list[int] = []
    ports: list[int] = []
    taking = bind

    def noting(host: str, port: int) -> socket.socket:
        listener = taking(host, port)
        ports.append(listener.getsockname()[1])
        return listener

    def load() -> list[Responder]:
        statuses.append(httpx.get(f"http://127.0.0.1:{ports[0]}/health").status_code)
        with pytest.raises(UsageError, match="is in use"):
            bind("127.0.0.1", ports[0])
        return [Responder("fake", FakeEngine())]

    class Ended(app.Server):
        async def on_tick(self, counter: int) -> bool:
            def ask() -> None:
                statuses.append(httpx.get(f"http://127.0.0.1:{ports[0]}/health").status_code)
                self.should_exit = True

            if counter == 0:
                threading.Thread(target=ask).start()
            return await super().on_tick(counter)

    monkeypatch.setattr(app, "bind", noting)
    monkeypatch.setattr(app, "Server", Ended)
    ready: list[str] = []
    serve(Models(loaders=[Loader(names=("fake",), planned_bytes=0, load=load)], memory_bytes=0), port=0, on_ready=ready.append)
    assert (statuses, ready) == ([503, 200], [f"http://127.0.0.1:{ports[0]}/v1"])


def test_serve_says_that_the_port_is_in_use_before_it_loads_anything() -> None:
    with bind("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(UsageError) as caught:
            serve("no such model", port=port)
    assert caught.value.message == f"port {port} of `127.0.0.1` is in use"
    assert caught.value.hint == f"choose another: `--port {port + 1}` (in Python: `port`)"


@pytest.mark.parametrize(("port", "said"), [(70000, "70000"), (65536, "65536"), (-1, "-1"), ("abc", "'abc', of the type str")])
def test_what_is_no_port_is_refused(port: Any, said: str) -> None:
    """`getaddrinfo` takes 70000 for 4464, and 65536 for any."""
    with pytest.raises(UsageError, match=f"(?m)^`port` is {said}$"):
        bind("127.0.0.1", port)


def test_a_port_that_windows_refuses_is_in_use_or_kept_and_needs_no_administrator(monkeypatch: pytest.MonkeyPatch) -> None:
    class Refused(socket.socket):
        def bind(self, address: object) -> None:
            raise PermissionError(errno.EACCES, "An attempt was made to access a socket in a way forbidden by its access permissions")

    monkeypatch.setattr("nomoat.serve.listening.socket.socket", Refused)
    said = {
        "win32": ("port 8080 of `127.0.0.1` is in use, or Windows keeps it", "choose another: `--port 8081` (in Python: `port`)"),
        "linux": ("port 8080 may be had by an administrator only", "choose one above 1023: `--port 8080` (in Python: `port`)"),
    }
    for system, words in said.items():
        monkeypatch.setattr(sys, "platform", system)
        with pytest.raises(UsageError) as caught:
            bind("127.0.0.1", 8080)
        assert (caught.value.message, caught.value.hint) == words


def test_a_system_without_ipv6_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def without(*_: object) -> Never:
        raise OSError(errno.EAFNOSUPPORT, "Address family not supported by protocol")

    monkeypatch.setattr("nomoat.serve.listening.socket.socket", without)
    with pytest.raises(UsageError) as caught:
        bind("::1", 8080)
    assert caught.value.message == "cannot serve at `::1` port 8080: Address family not supported by protocol"


def test_beside_the_last_port_the_one_before_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    class Used(socket.socket):
        def bind(self, address: object) -> None:
            raise OSError(errno.EADDRINUSE, "Address already in use")

    monkeypatch.setattr("nomoat.serve.listening.socket.socket", Used)
    for port, another in ((65534, 65535), (65535, 65534)):
        with pytest.raises(UsageError) as caught:
            bind("127.0.0.1", port)
        assert caught.value.hint == f"choose another: `--port {another}` (in Python: `port`)"


def test_bind_prefers_ipv4_for_localhost_and_refuses_what_is_no_address() -> None:
    with bind("localhost", 0) as listener:
        assert listener.family == socket.AF_INET
    with pytest.raises(UsageError, match=r"`192\.0\.2\.1` port 0"):
        bind("192.0.2.1", 0)
