"""The tokens of a model, as lm-evaluation-harness asks a vLLM server for them."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import httpx
import openai
import pytest
from leaving import asking
from patience import PATIENCE_SECONDS, wait_until

from nomoat.engine import importer
from nomoat.engine.fake import FakeEngine
from nomoat.engine.openvino import OpenVINOEngine
from nomoat.responder import Responder


def ask(url: str, **body: object) -> dict[str, object]:
    reply: dict[str, object] = httpx.post(url, json=body).raise_for_status().json()
    return reply


def test_a_text_and_its_tokens_are_told_as_the_model_reads_them(tiny: openai.OpenAI, tiny_gguf: Path) -> None:
    engine = OpenVINOEngine(importer.import_gguf(tiny_gguf))
    tokenizer, url = engine.tokenizer, str(tiny.base_url.copy_with(path="/"))
    for text in ("the hello", "안녕 🙂"):
        for add in (True, False):
            ids = tokenizer.encode(text, add_bos=add)
            told = ask(f"{url}tokenize", prompt=text, add_special_tokens=add)
            assert told == {"count": len(ids), "max_model_len": engine.context_tokens, "tokens": ids}
        assert ask(f"{url}detokenize", tokens=tokenizer.encode(text)) == {"prompt": text}
    assert ask(f"{url}tokenize", prompt="the") == ask(f"{url}tokenize", prompt="the", add_special_tokens=True)
    info = httpx.get(f"{url}tokenizer_info").json()
    for token in (info["bos_token"], info["eos_token"]):  # which the harness asks for the numbers of
        (number,) = ask(f"{url}tokenize", prompt=token, add_special_tokens=False)["tokens"]  # type: ignore[misc]
        assert ask(f"{url}detokenize", tokens=[number]) == {"prompt": token}
    assert (info["chat_template"], info["add_bos_token"]) == (tokenizer.chat_template, tokenizer.special.add_bos)
    engine.close()


def test_what_are_no_tokens_and_models_without_are_refused(start: Callable[..., str]) -> None:
    url = start(Responder("fake", FakeEngine())).removesuffix("/v1")
    for path, body, message in (
        ("tokenize", {"prompt": "a"}, "`fake` does not tell its tokens; use a model on this machine"),
        ("tokenize", {"prompt": ["a"]}, "`prompt`: Input should be a valid string"),
        ("detokenize", {"tokens": [-1]}, "`tokens.0`: Input should be greater than or equal to 0"),
        ("detokenize", {"tokens": [1 << 32]}, "`tokens.0`: Input should be less than 4294967296"),
    ):
        answer = httpx.post(f"{url}/{path}", json=body)
        assert (answer.status_code, answer.json()["error"]["message"]) == (400, message)


@pytest.mark.parametrize("path", ["tokenize", "detokenize"])
def test_client_that_goes_away_is_worked_for_no_longer_and_counted(start: Callable[..., str], path: str) -> None:
    begun, go_on = threading.Event(), threading.Event()

    class Slow(FakeEngine):
        @property
        def tokenizer(self) -> None:
            begun.set()
            assert go_on.wait(PATIENCE_SECONDS)

    url = start(Responder("fake", Slow())).removesuffix("/v1")
    with asking(f"{url}/{path}", {"prompt": "a", "tokens": [1]}):
        assert begun.wait(PATIENCE_SECONDS)
    counted = 'nomoat_requests_total{model="fake",outcome="gone"} 1.0'
    wait_until(lambda: counted in httpx.get(f"{url}/metrics").text, counted)
    go_on.set()
    assert httpx.post(f"{url}/{path}", json={"prompt": "a", "tokens": [1]}).status_code == 400
    assert 'nomoat_requests_total{model="fake",outcome="error"} 1.0' in httpx.get(f"{url}/metrics").text


def test_tokens_are_told_to_holders_of_the_key_alone(start: Callable[..., str]) -> None:
    url = start(Responder("fake", FakeEngine()), api_key="s3cret").removesuffix("/v1")
    assert httpx.get(f"{url}/tokenizer_info").status_code == 401


@pytest.mark.parametrize("path", ["tokenize", "detokenize"])
def test_a_model_that_is_not_there_is_named(start: Callable[..., str], path: str) -> None:
    url = start(Responder("fake", FakeEngine())).removesuffix("/v1")
    answer = httpx.post(f"{url}/{path}", json={"model": "gpt", "prompt": "a", "tokens": [1]})
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "model_not_found")
