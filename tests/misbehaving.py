"""A real HTTP server on loopback that answers as it is told: well, or in every bad way we know."""

from __future__ import annotations

import json
import ssl
import subprocess
import threading
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from patience import PATIENCE_SECONDS

from nomoat.asking.spending import Spending

Act = Callable[[BaseHTTPRequestHandler], None]


class Server:
    """Does one act a request, the last one again and again; keeps headers and bodies."""

    def __init__(self, *acts: Act, certificate: Path | None = None) -> None:
        """`certificate`: a file with it and its key, for https."""
        self.headers: list[dict[str, str]] = []
        self.bodies: list[dict[str, Any]] = []
        self.paths: list[str] = []
        outer = self
        lock = threading.Lock()

        class Handler(BaseHTTPRequestHandler):
            body: dict[str, Any]

            def do_POST(self) -> None:
                raw = self.rfile.read(int(self.headers.get("content-length", 0)))
                with lock:
                    outer.headers.append({name.lower(): value for name, value in self.headers.items()})
                    outer.bodies.append(json.loads(raw) if raw else {})
                    outer.paths.append(self.path)
                    act = acts[min(len(outer.bodies), len(acts)) - 1]
                self.body = json.loads(raw) if raw else {}
                act(self)

            do_GET = do_POST

            def log_message(self, *_: object) -> None:
                pass

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._http.handle_error = lambda *_: None  # type: ignore[method-assign]
        if certificate is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate)
            self._http.socket = context.wrap_socket(self._http.socket, server_side=True)
        self._thread = threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()
        self.url = f"http{'s' if certificate else ''}://127.0.0.1:{self._http.server_port}/v1"

    def close(self) -> None:
        self._http.shutdown()
        self._thread.join()
        self._http.server_close()


def self_signed(pem: Path) -> Path:
    """Write a certificate for 127.0.0.1 and its key into one file; openssl makes them."""
    key = pem.with_suffix(".key")
    made = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-subj", "/CN=nomoat"]
    made += ["-addext", "subjectAltName=IP:127.0.0.1", "-out", str(pem), "-keyout", str(key)]
    subprocess.run(made, check=True, capture_output=True)
    pem.write_text(pem.read_text() + key.read_text())
    return pem


def say(status: int, body: object, kind: str = "application/json", headers: Mapping[str, str] | None = None) -> Act:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()

    def act(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(status)
        handler.send_header("content-type", kind)
        handler.send_header("content-length", str(len(raw)))
        for name, value in (headers or {}).items():
            handler.send_header(name, value)
        handler.end_headers()
        handler.wfile.write(raw)

    return act


def events(*rows: object, done: bool = True, headers: Mapping[str, str] | None = None) -> Act:
    lines = [f"data: {row if isinstance(row, str) else json.dumps(row)}\n\n" for row in rows] + ["data: [DONE]\n\n"] * done
    return say(200, "".join(lines).encode(), "text/event-stream", headers)


class Pieces:
    """A body that comes in these pieces, each by itself."""

    def __init__(self, *pieces: bytes) -> None:
        self._pieces = pieces

    def __call__(self, handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.send_header("content-type", "text/event-stream")
        handler.send_header("transfer-encoding", "chunked")
        handler.end_headers()
        for piece in (*self._pieces, b""):
            handler.wfile.write(f"{len(piece):x}\r\n".encode() + piece + b"\r\n")
            handler.wfile.flush()


def piece(text: str | None, reason: str | None = None) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": {"content": text}, "finish_reason": reason}]}


ROWS = (
    piece("hel"), piece("lo 안녕"), piece(None, "stop"),
    {"choices": [], "usage": {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7}},
)  # fmt: skip
FINE = events(*ROWS)


def counted(text: str, prompt_tokens: int, completion_tokens: int) -> Act:
    """A whole answer, with these token counts."""
    usage = {"prompt_tokens": prompt_tokens, "completion_tokens": completion_tokens}
    return events(piece(text, "stop"), {"choices": [], "usage": usage})


def priced(max_cost_usd: float | None = None) -> Spending:
    """A dollar for a thousand tokens in, two for a thousand out."""
    return Spending(max_cost_usd=max_cost_usd, input_usd_per_million=1000.0, output_usd_per_million=2000.0)


def thinking(text: str, num_hidden: int) -> Act:
    """`text` behind so many tokens of thinking that are not sent; nothing where they are all that there is room for. Question 0 is
    answered at once."""

    def act(handler: BaseHTTPRequestHandler) -> None:
        body: dict[str, Any] = handler.body  # type: ignore[attr-defined]
        limit = body.get("max_completion_tokens") or body["max_tokens"]
        is_cut = limit <= num_hidden and "question 0" not in body["messages"][-1]["content"]
        usage = {"prompt_tokens": 9, "completion_tokens": limit if is_cut else 2}
        events(piece("", "length") if is_cut else piece(text, "stop"), {"choices": [], "usage": usage})(handler)

    return act


def reset(handler: BaseHTTPRequestHandler) -> None:
    handler.connection.shutdown(2)


def half(handler: BaseHTTPRequestHandler) -> None:
    """Promises more than it sends, then hangs up."""
    handler.send_response(200)
    handler.send_header("content-type", "text/event-stream")
    handler.send_header("content-length", "100000")
    handler.end_headers()
    handler.wfile.write(f"data: {json.dumps(piece('so far'))}\n\n".encode())
    handler.wfile.flush()
    handler.connection.shutdown(2)


class Silent:
    """Says nothing, or after `first` nothing more, until whoever asks hangs up; then `hung_up` is set."""

    def __init__(self, *first: object) -> None:
        self.asked = threading.Event()
        self.hung_up = threading.Event()
        self._first = b"".join(f"data: {json.dumps(row)}\n\n".encode() for row in first)

    def __call__(self, handler: BaseHTTPRequestHandler) -> None:
        if self._first:
            handler.send_response(200)
            handler.send_header("content-type", "text/event-stream")
            handler.end_headers()
            handler.wfile.write(self._first)
        self.asked.set()
        handler.connection.settimeout(10 * PATIENCE_SECONDS)
        try:
            has_left = not handler.connection.recv(1)
        except ConnectionResetError:  # before it had read all that was sent
            has_left = True
        if has_left:
            self.hung_up.set()
        handler.close_connection = True
