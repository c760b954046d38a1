"""The page for people: a conversation with one of the served models, in a browser.

Its files are the server's own, and its content security policy lets nothing else load: what a model writes, a picture's address and
a link included, makes no request to anybody until a link is followed. What was said stays in the browser's tab.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from fastapi import FastAPI
from starlette.responses import Response
from starlette.routing import Route

FILES = {
    "/": "index.html",
    "/web/page.css": "page.css",
    "/web/page.js": "page.js",
}  # what everybody may read, who holds the key or not
READING = ["GET", "HEAD"]  # the methods of what is only read: who asks whether a server is up asks for no body
TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript"}
HEADERS: Mapping[str, str] = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "referrer-policy": "no-referrer",
    "x-dns-prefetch-control": "off",  # a link's host would be looked up before anybody follows it
    "x-content-type-options": "nosniff",
    "cache-control": "no-cache",
}


def add_page(app: FastAPI) -> None:
    """Serve the page at `/`."""
    for path in FILES:
        app.routes.append(Route(path, response(path), methods=READING))  # a response is an ASGI application itself


def response(path: str, *, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """What stands at one of `FILES`, with `headers` beside its own."""
    file = Path(__file__).with_name(FILES[path])
    return Response(file.read_bytes(), status_code=status, media_type=TYPES[file.suffix], headers={**HEADERS, **(headers or {})})
