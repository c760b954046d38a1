"""Who may ask: the bearer key, and the check that a request on loopback was meant for it.

Not covered: TLS, several keys, rate limits. Put a reverse proxy in front for those.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Sequence
from urllib.parse import unquote, urlsplit

from fastapi import FastAPI
from starlette.datastructures import Headers
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send
from starlette.websockets import WebSocketClose

from nomoat import bounds, net
from nomoat.engine import pacing
from nomoat.errors import BadRequestError, UsageError
from nomoat.serve import messages, replies, web
from nomoat.serve.decisions import HEADERS, NOTES

OPEN_PATHS = frozenset({"/health", *web.FILES})  # the page asks for the key before it asks for anything else
ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://([a-z0-9._-]+|\[[0-9a-f:]+\])(:\d+)?")
LETS_IN = {
    "host": "a key lets others in: start it with `--api-key KEY` (in Python: `api_key`) or NOMOAT_API_KEY",
    "origin": "a key lets other pages in: start it with `--api-key KEY` (in Python: `api_key`) or NOMOAT_API_KEY, and "
    "`--cors ORIGIN` (in Python: `cors`)",
}
# Said by browsers, of pictures and scripts too, which a page of elsewhere may name without an Origin.
FETCH_SITE, ELSEWHERE = "sec-fetch-site", "cross-site"
POLICY_VIOLATION = 1008  # a WebSocket's word for it


def require_sendable(key: str) -> None:
    """Raise UsageError for a key that no client can send in a header, which would lock everyone out, and for an empty one."""
    bounds.require_text(key, "the API key")
    if not key:
        raise UsageError(
            "the API key is empty", hint="give one (is a variable unset?), or leave it out to serve this machine without a key"
        )
    if not (key.isascii() and key.isprintable() and key == key.strip()):
        raise UsageError(
            "the API key holds characters that a header cannot carry", hint="use letters without accents, digits and signs only"
        )


def require_origins(origins: Sequence[str], api_key: str | None) -> None:
    """Raise UsageError for what no browser sends as an origin, and for any without a key: `Guard` would let none of them in."""
    for origin in origins:
        if not ORIGIN.fullmatch(origin):
            raise UsageError(
                f"`{origin}` is no origin of web pages",
                hint="write it as browsers do, in small letters and without a path: https://HOST:PORT",
            )
    if origins and not api_key:
        raise UsageError(
            f"pages of `{origins[0]}` are to be let in, and there is no API key",
            hint="add `--api-key KEY` (in Python: `api_key`); pages of this machine (http://localhost) need neither",
        )


def protect(app: FastAPI, *, api_key: str | None, cors: Sequence[str]) -> None:
    """Put `Guard` in front of an application, and tell browsers whose pages may ask: this machine's, and those of the origins `cors`.

    Raises UsageError as `require_sendable` and `require_origins` do.
    """
    if api_key is not None:
        require_sendable(api_key)
    require_origins(cors, api_key)
    app.add_middleware(Guard, api_key=api_key)
    # Around the guard: a browser asks ahead whether a page may ask, and sends no key with that.
    app.add_middleware(
        Cors, allow_origins=cors, allow_methods=(*web.READING, "POST"), allow_headers=("*",), allow_private_network=True,
        expose_headers=(*HEADERS, NOTES, replies.RETRY_AFTER, pacing.SHOULD_RETRY),
    )  # fmt: skip


class Cors(CORSMiddleware):
    """Tells browsers that the pages `Guard` lets in may ask: whatever their scheme, an app's `tauri://localhost` too."""

    def is_allowed_origin(self, origin: str) -> bool:
        return super().is_allowed_origin(origin) or net.is_loopback(_host_name(origin))


class Guard:
    """ASGI middleware in front of all that answers, WebSockets included. With `api_key`, only its holder gets in.

    Without a key, a server on loopback answers only requests that name this machine as Host, and as Origin if there is one:
    otherwise any web page could reach it through its visitor's browser (DNS rebinding, cross-site posts). Where there is none, as for
    the pictures of a page, the browser says whether the page is of elsewhere: then it may have `OPEN_PATHS`, which a link may lead to.

    Not covered: browsers that do not say that (Safari before 16.4).
    """

    def __init__(self, app: ASGIApp, *, api_key: str | None) -> None:
        self._app = app
        self._api_key = api_key

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope = _for_its_path(scope)
        problem = None if scope["type"] == "lifespan" else self._problem(scope)
        if problem is None:
            await self._app(scope, receive, send)
            return
        if scope["type"] == "websocket":
            await WebSocketClose(code=POLICY_VIOLATION)(scope, receive, send)
            return
        status, body = replies.render_error(problem)
        body = messages.error_at(scope["path"], status, body)
        headers = {"www-authenticate": "Bearer"} if status == 401 else None
        await JSONResponse(body, status_code=status, headers=headers)(scope, receive, send)

    def _problem(self, scope: Scope) -> BadRequestError | None:
        headers, is_open = Headers(scope=scope), scope["path"] in OPEN_PATHS
        if self._api_key is not None:
            return None if is_open else _problem_with_key(headers, self._api_key)
        server = scope.get("server")
        if server is None or not net.is_loopback(server[0]):
            return None
        for name, remedy in LETS_IN.items():
            value = headers.get(name)
            if value is not None and not net.is_loopback(_host_name(value)):
                return _refused(name, value, remedy)
        if headers.get(FETCH_SITE) == ELSEWHERE and "origin" not in headers and not is_open:
            return _refused(FETCH_SITE, ELSEWHERE, LETS_IN["origin"])
        return None


def _problem_with_key(headers: Headers, key: str) -> BadRequestError | None:
    scheme, _, given = headers.get("authorization", "").partition(" ")
    of_anthropics = headers.get("x-api-key", "")  # as its clients send it
    # Compared in a time that does not tell how much of the key was right.
    if scheme.lower() == "bearer" and secrets.compare_digest(given.strip().encode(), key.encode()):
        return None
    if secrets.compare_digest(of_anthropics.strip().encode(), key.encode()):
        return None
    # The first are OpenAI's own words, by which LiteLLM tells it from a bad request.
    said = (
        "Incorrect API key provided: it is not this server's"
        if given or of_anthropics
        else "an API key is needed: `Authorization: Bearer KEY`"
    )
    return BadRequestError(said, code="invalid_api_key", status=401)


def _refused(name: str, value: str, remedy: str) -> BadRequestError:
    what = f"this server answers its own machine only, and the request's {name} is `{value}`"
    return BadRequestError(f"{what}; {remedy}", code="wrong_host", status=403)


def _for_its_path(scope: Scope) -> Scope:
    """A request for a whole URL, as proxies are sent, is one for its path at its host, whatever `Host` says (RFC 9112, 3.2.2)."""
    if scope["type"] != "http" or not scope["path"].lower().startswith(("http://", "https://")):
        return scope
    _, _, rest = scope["raw_path"].partition(b"://")
    host, _, path = rest.partition(b"/")
    headers = [(b"host", host), *(one for one in scope["headers"] if one[0] != b"host")]
    return {**scope, "headers": headers, "raw_path": b"/" + path, "path": unquote("/" + path.decode("ascii"))}


def _host_name(value: str) -> str:
    """The host of `host:port` or of `scheme://host:port`; empty if there is none."""
    try:
        return urlsplit(value if "://" in value else f"//{value}").hostname or ""
    except ValueError:
        return ""
