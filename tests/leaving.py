"""Clients that go away before they are answered, and an answer that ends when they do."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
from patience import PATIENCE_SECONDS

from nomoat.records import Chunk


@contextmanager
def asking(url: str, body: object) -> Iterator[socket.socket]:
    """A POST that has been sent, with this JSON; its client goes away when the block ends."""
    target, content = httpx.URL(url), json.dumps(body).encode()
    head = f"POST {target.path} HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-length: {len(content)}\r\n\r\n"
    with socket.create_connection((target.host, target.port or 0), timeout=PATIENCE_SECONDS) as connection:
        connection.sendall(head.encode() + content)
        yield connection


def endless(begun: threading.Event, closed: threading.Event, *, words: str = "word ") -> Iterator[Chunk]:
    """An answer that goes on until it is closed, which it tells."""
    begun.set()
    try:
        while True:
            yield Chunk(text=words)
            time.sleep(0.01)
    finally:
        closed.set()
