"""The tokens of a model, as lm-evaluation-harness asks a vLLM server for them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import httpx
import openai
import pytest
from leaving import asking
from patience import wait_until

from nomoat.engine import importer
from nomoat.engine.fake import FakeEngine
from nomoat.engine.local import LocalEngine
from nomoat.responder import Responder
from nomoat.serve.models import Loader, Models


def ask(url: str, **body: object) -> dict[str, object]:
    reply: dict[str, object] = httpx.post(url, json=body).raise_for_status().json()
    return reply


def test_a_text_and_its_tokens_are_told_as_the_model_reads_them(tiny: openai.OpenAI, tiny_gguf: Path) -> None:
    engine = LocalEngine(importer.import_gguf(tiny_gguf))
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


def test_a_number_that_is_no_token_of_the_model_is_not_left_out_without_a_word(tiny: openai.OpenAI) -> None:
    url = f"{tiny.base_url.copy_with(path='/')}detokenize"
    for strange in (99999, (1 << 32) - 1):
        answer = httpx.post(url, json={"tokens": [5, strange, 6]})
        message = f"token {strange} is not one of this model's; send its own, as /tokenize tells them"
        assert (answer.status_code, answer.json()["error"]["message"]) == (400, message)


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
def test_no_model_is_loaded_for_a_client_that_went_away_while_it_waited_for_room(start: Callable[..., str], path: str) -> None:
    loaded: list[str] = []

    def loader(name: str) -> Loader:
        def load() -> list[Responder]:
            loaded.append(name)
            return [Responder(name, FakeEngine())]

        return Loader(names=(name,), planned_bytes=1, load=load)

    models = Models(loaders=[loader("in use"), loader("waited for"), loader("next")], memory_bytes=1)
    url = start(models).removesuffix("/v1")
    body = {"prompt": "a", "tokens": [1]}
    with models.use("in use"):
        with asking(f"{url}/{path}", {"model": "waited for", **body}):
            wait_until(lambda: models._waiting, "the client's turn")
        counted = 'nomoat_requests_total{model="waited for",outcome="gone"} 1.0'
        wait_until(lambda: counted in httpx.get(f"{url}/metrics").text, counted)
    assert httpx.post(f"{url}/{path}", json={"model": "next", **body}).status_code == 400
    assert loaded == ["in use", "next"]
    assert 'nomoat_requests_total{model="next",outcome="error"} 1.0' in httpx.get(f"{url}/metrics").text


def test_tokens_are_told_to_holders_of_the_key_alone(start: Callable[..., str]) -> None:
    url = start(Responder("fake", FakeEngine()), api_key="s3cret").removesuffix("/v1")
    assert httpx.get(f"{url}/tokenizer_info").status_code == 401


@pytest.mark.parametrize("path", ["tokenize", "detokenize"])
def test_a_model_that_is_not_there_is_named(start: Callable[..., str], path: str) -> None:
    url = start(Responder("fake", FakeEngine())).removesuffix("/v1")
    answer = httpx.post(f"{url}/{path}", json={"model": "gpt", "prompt": "a", "tokens": [1]})
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "model_not_found")
