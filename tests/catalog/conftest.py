"""A file server on this machine that misbehaves as told."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from patience import PATIENCE_SECONDS


class FileServer(ThreadingHTTPServer):
    """Serves `files` by path. `cut_after` bytes of a body it hangs up, once; `status` is answered instead of a file."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[str, bytes] = {}
        self.redirects: dict[str, tuple[str, str]] = {}  # path: (other path, x-linked-etag)
        self.cut_after: int | None = None
        self.pause_after: int | None = None  # bytes, then silence until the client goes away
        self.status: int | None = None
        self.headers: dict[str, str] = {}  # with every answer, refusals included
        self.knows_ranges = True
        self.minds_versions = True  # else a range is of whatever version there is
        self.etag = '"one"'  # none, if empty
        self.asked: list[tuple[str, dict[str, str]]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class Handler(BaseHTTPRequestHandler):
    server: FileServer

    def log_message(self, *_: Any) -> None:
        """Keep the test's stderr clean."""

    def send_headers(self) -> None:
        for name, value in self.server.headers.items():
            self.send_header(name, value)
        self.end_headers()

    def refuse(self, status: int) -> None:
        self.send_response(status)
        self.send_header("Content-Length", "0")
        self.send_headers()

    def do_GET(self) -> None:
        server = self.server
        server.asked.append((self.path, {name.lower(): value for name, value in self.headers.items()}))
        if server.status is not None:
            return self.refuse(server.status)
        if self.path in server.redirects:
            target, linked = server.redirects[self.path]
            self.send_response(302)
            self.send_header("Location", target)
            self.send_header("X-Linked-Etag", f'"{linked}"')
            return self.send_headers()
        body = server.files.get(self.path)
        if body is None:
            return self.refuse(404)
        start, whole = 0, len(body)
        wanted = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        is_same = not server.minds_versions or self.headers.get("If-Range", server.etag) == server.etag
        if wanted and server.knows_ranges and is_same:
            start = int(wanted[1])
            if start >= whole:
                return self.refuse(416)
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{whole - 1}/{whole}")
        else:
            self.send_response(200)
        body = body[start:]
        self.send_header("Content-Length", str(len(body)))
        if server.etag:
            self.send_header("ETag", server.etag)
        self.send_headers()
        if server.cut_after is not None:
            body, server.cut_after = body[: server.cut_after], None
            self.close_connection = True
        if server.pause_after is not None:
            self.wfile.write(body[: server.pause_after])
            self.wfile.flush()
            time.sleep(10 * PATIENCE_SECONDS)
            return None
        self.wfile.write(body)
        return None


@pytest.fixture
def server() -> Iterator[FileServer]:
    served = FileServer()
    thread = threading.Thread(target=served.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    yield served
    served.shutdown()
    served.server_close()
    thread.join()
