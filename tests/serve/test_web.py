"""The page for people: what is served, and to whom. In a browser it is tried by `test_page.py`."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import get_args

import httpx
import pytest
from patience import PATIENCE_SECONDS

from nomoat.engine.fake import FakeEngine
from nomoat.records import Rule
from nomoat.responder import Responder
from nomoat.serve import replies, web
from nomoat.serve.web import FILES

Start = Callable[..., str]


def page_of(start: Start, *, api_key: str | None = None) -> str:
    """The address of the page, without its last slash."""
    return start(Responder("fake", FakeEngine()), api_key=api_key).removesuffix("/v1")


def test_the_page_loads_nothing_from_anywhere_else(start: Start) -> None:
    address = page_of(start)
    for path in FILES:
        answer = httpx.get(address + path)
        assert answer.status_code == 200
        assert "default-src 'none'" in answer.headers["content-security-policy"]
        assert answer.headers["x-dns-prefetch-control"] == "off"
        assert "://" not in answer.text
    assert '<script type="module" src="web/page.js">' in httpx.get(address).text


def test_the_page_is_there_without_the_key_and_renders_nothing_without_it(start: Start) -> None:
    address = page_of(start, api_key="k")
    assert httpx.get(address).status_code == 200
    assert httpx.post(f"{address}/web/markdown", content="*a*").status_code == 401
    assert httpx.post(f"{address}/web/markdown", content="*a*", headers={"authorization": "Bearer k"}).json() == "<p><em>a</em></p>\n"


def test_others_are_answered_while_an_answer_is_rendered(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    begun, go_on = threading.Event(), threading.Event()

    def slow(markdown: str) -> str:
        begun.set()
        assert go_on.wait(PATIENCE_SECONDS)
        return markdown

    monkeypatch.setattr("nomoat.serve.app.as_html", slow)
    address = page_of(start)
    with ThreadPoolExecutor(1) as pool:
        rendering = pool.submit(httpx.post, f"{address}/web/markdown", content="*a*")
        assert begun.wait(PATIENCE_SECONDS)
        try:
            assert httpx.get(f"{address}/health").status_code == 200
        finally:
            go_on.set()
        assert rendering.result().json() == "*a*"


def test_what_is_too_long_to_be_rendered_is_refused(start: Start) -> None:
    address = page_of(start)
    assert httpx.post(f"{address}/web/markdown", content="a" * (256 << 10)).status_code == 200
    assert httpx.post(f"{address}/web/markdown", content="a" * ((256 << 10) + 1)).status_code == 413


def test_a_page_of_somebody_else_cannot_use_the_renderer(start: Start) -> None:
    answer = httpx.post(f"{page_of(start)}/web/markdown", content="*a*", headers={"origin": "https://example.com"})
    assert answer.status_code == 403


def test_every_reason_of_auto_for_an_answer_has_words_in_korean() -> None:
    source = (Path(web.__file__).parent / "page.js").read_text(encoding="utf-8")
    known = re.search(r"why: {\n(.*?)\n    },", source, re.DOTALL)
    assert known is not None
    assert set(re.findall(r"^ +(\w+): ", known[1], re.MULTILINE)) == set(get_args(Rule)) - {"embeddings"}


def test_every_error_code_has_words_in_korean() -> None:
    """But those of a wrong key and a wrong host: the page asks for the first itself, and is not shown where the other comes."""
    source = Path(web.__file__).parent
    known = re.search(
        r"wrong: {\n(.*?)\n    }, // by the error's type or code", (source / "page.js").read_text(encoding="utf-8"), re.DOTALL
    )
    given = {code for _, _, _, code in replies.STATUS_AND_TYPE if code} | {code for _, _, code, _ in replies.OWN_FILES}
    for file in source.parent.glob("*.py"):
        given |= set(re.findall(r'code="(\w+)"', file.read_text(encoding="utf-8")))
    assert known is not None
    assert set(re.findall(r"^ +(\w+): ", known[1], re.MULTILINE)) == given - {"invalid_api_key", "wrong_host"} | {
        "rate_limit_error",
        "other",
    }
