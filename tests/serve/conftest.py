"""A real server of ours on a loopback port, in a thread."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace

import openai
import pytest
from patience import PATIENCE_SECONDS, wait_until

from nomoat import net
from nomoat.engine import importer
from nomoat.engine.fake import FakeEngine
from nomoat.engine.local import LocalEngine
from nomoat.responder import Responder
from nomoat.serve.app import create_app
from nomoat.serve.connections import Server
from nomoat.serve.listening import bind
from nomoat.serve.models import Models

Start = Callable[..., str]
Sdk = Callable[..., openai.OpenAI]


@pytest.fixture(autouse=True)
def plain_httpx_everywhere(plain_httpx: None) -> None:
    """Each test here may ask a server so."""


@pytest.fixture
def prompt_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """uvicorn sleeps for tenths of a second until it looks whether it shall end, and again while it does: here for hundredths."""
    hurried = SimpleNamespace(**vars(asyncio))
    hurried.sleep = lambda seconds: asyncio.sleep(seconds / 10)
    monkeypatch.setattr("uvicorn.server.asyncio", hurried)


@pytest.fixture
def start(prompt_end: None) -> Iterator[Start]:
    """Start a server; the answer is its base URL. It is stopped, and its threads have ended, when the test is over."""
    running: list[tuple[Server, threading.Thread]] = []

    def start_one(
        responder: Responder | Mapping[str, Responder] | Models, *, api_key: str | None = None, cors: Sequence[str] = (),
        max_tokens: int | None = None, listener: socket.socket | None = None,
    ) -> str:  # fmt: skip
        listener = listener or bind("127.0.0.1", 0)
        app = create_app(responder, api_key=api_key, cors=cors, max_tokens=max_tokens)
        server = Server(app, seconds_to_end=1)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        running.append((server, thread))
        wait_until(lambda: server.started, "the server")
        return f"http://127.0.0.1:{listener.getsockname()[1]}/v1"

    yield start_one
    for server, thread in running:
        server.should_exit = True
        thread.join(timeout=PATIENCE_SECONDS)
        assert not thread.is_alive()


@pytest.fixture
def sdk() -> Iterator[Callable[..., openai.OpenAI]]:
    """OpenAI's own client for a base URL, without retries."""
    clients: list[openai.OpenAI] = []

    def make(base_url: str, *, api_key: str = "none") -> openai.OpenAI:
        http_client = net.client("ask a model server", hosts=["127.0.0.1"])
        clients.append(openai.OpenAI(base_url=base_url, api_key=api_key, max_retries=0, http_client=http_client))
        return clients[-1]

    yield make
    for client in clients:
        client.close()


@pytest.fixture
def fake(start: Start, sdk: Sdk) -> openai.OpenAI:
    return sdk(start(Responder("fake", FakeEngine())))


@pytest.fixture
def tiny(tiny_gguf: Path, start: Start, sdk: Sdk) -> Iterator[openai.OpenAI]:
    """A real engine of random weights."""
    engine = LocalEngine(importer.import_gguf(tiny_gguf))
    yield sdk(start(Responder("tiny", engine)))
    engine.close()
