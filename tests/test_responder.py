"""What is asked of a model from Python, and whether there is memory for what a reference means."""

from __future__ import annotations

import ast
import copy
import importlib
import inspect
import json
import pickle
import re
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from tiny import write_adapter, write_learned, write_tiny_gguf

import nomoat
from nomoat import commands, extras, footprint, hardware, labelling, responder
from nomoat.cli.show import show
from nomoat.engine import importer
from nomoat.engine.fake import FakeEngine
from nomoat.engine.source import open_source
from nomoat.errors import (
    BadFileError,
    CacheExceededError,
    ContextExceededError,
    ForkedError,
    NomoatError,
    NoTemplateError,
    NotEnoughMemoryError,
    RemoteError,
    SchemaError,
    SettingError,
    StoppedError,
    UnsupportedError,
    UsageError,
)
from nomoat.hardware import Detected
from nomoat.judge.settings import RunSettings
from nomoat.records import Chunk, Message, Request
from nomoat.responder import Responder


def test_weights_that_are_removed_while_they_are_loaded_are_an_error_that_says_so(tmp_path: Path) -> None:
    """By `nomoat rm` in another terminal, say."""
    path = write_tiny_gguf(tmp_path / "tiny.gguf")
    with pytest.raises(BadFileError) as caught:
        responder.load(str(path), progress=lambda *_: path.unlink(missing_ok=True))
    assert caught.value.message == f"`{path}` was removed while it was loaded"
    assert caught.value.hint == "load it when it is there again; `nomoat pull MODEL` fetches a model"


def test_a_text_is_the_first_question_of_a_conversation() -> None:
    with responder.load("fake:") as model:
        asked = Request(messages=(Message(role="user", content="What is a moat?"),))
        assert model.complete("What is a moat?") == model.complete(asked)
        assert list(model.stream("What is a moat?")) == list(model.stream(asked))
        assert model.score("a moat", ["moat", "lake"]) == model.score(
            Request(messages=(Message(role="user", content="a moat"),)), ["moat", "lake"]
        )
        assert [answer.text for _, answer in sorted(model.complete_many(["a b", asked], concurrency=1))] == ["b a", "moat? a is What"]


def test_what_is_neither_a_text_nor_a_request_is_refused_with_what_to_give() -> None:
    with responder.load("fake:") as model:
        for ask in (model.complete, model.stream, model.prompt_likelihoods, lambda asked: model.score(asked, ["moat"])):
            with pytest.raises(
                UsageError,
                match=r"(?m)^a model is asked a text or a `nomoat\.records\.Request`, and the question is of the type list$",
            ) as raised:
                ask([{"role": "user", "content": "What is a moat?"}])  # type: ignore[operator]
            assert raised.value.hint == 'give "…", or for a conversation Request(messages=(Message(role="user", content="…"), …))'


def test_one_text_where_several_are_meant_is_not_taken_for_its_characters() -> None:
    with responder.load("fake:") as model:
        for ask in (model.embed, lambda texts: model.score("a moat", texts), model.complete_many):
            for one in ("moat", Request(prompt="moat"), None):
                kind = type(one).__name__
                with pytest.raises(UsageError, match=f"several texts are asked about at once, and this is one {kind}") as raised:
                    ask(one)  # type: ignore[operator]
                assert raised.value.hint == 'give a list: ["…"]'


def test_a_table_where_texts_are_meant_is_not_taken_for_the_names_of_its_columns() -> None:
    class DataFrame:
        """As those of pandas, polars and pyarrow."""

        columns = ("text", "label")

        def __iter__(self) -> Iterator[str]:
            return iter(self.columns)

    hint = 'give one of its columns: `table["text"]`, or of a dict `list(texts.values())`'
    with responder.load("fake:") as model:
        for ask in (model.embed, lambda texts: model.score("a moat", texts), model.complete_many):
            for table, kind in ((DataFrame(), "DataFrame"), ({"a": "one text", "b": "another"}, "dict")):
                with pytest.raises(UsageError, match=f"and of this {kind} only the names would be taken") as raised:
                    ask(table)  # type: ignore[operator]
                assert raised.value.hint == hint


def test_of_several_the_error_names_the_one_that_is_wrong() -> None:
    with responder.load("fake:") as model:
        asks: dict[str, Any] = {
            "texts": model.embed, "continuations": lambda texts: model.score("a moat", texts), "requests": model.complete_many,
        }  # fmt: skip
        for name, ask in asks.items():
            for strange, why in (
                (None, "is (of the type|a) NoneType"),
                (float("nan"), "is (of the type|a) float"),
                ("\ud800", "is not whole"),
            ):
                with pytest.raises(UsageError, match=rf"`{name}\[2\]` {why}"):
                    ask(["moat", "lake", strange])


def test_of_several_questions_the_error_of_one_that_fails_names_it() -> None:
    with Responder("m", FakeEngine(context_tokens=20)) as model:
        answered = model.complete_many(["moat", "word " * 100, "lake"], concurrency=1)
        assert next(answered)[0] == 0
        with pytest.raises(ContextExceededError, match=r"^`requests\[1\]`: the prompt is too long") as raised:
            next(answered)
        assert (raised.value.at, raised.value.message) == (1, str(raised.value))
        with pytest.raises(ContextExceededError, match=r"^the prompt is too long") as raised:
            list(model.complete_many(["word " * 100]))
        assert raised.value.at is None


class Failing(FakeEngine):
    """Fails with one and the same error, as an engine does for all that it was asked."""

    def __init__(self, error: NomoatError) -> None:
        super().__init__()
        self._error = error

    def generate(self, request: Request) -> Iterator[Chunk]:
        raise self._error


@pytest.mark.parametrize("error", [
    RemoteError("refused", status=400), RemoteError("blocked", status=451),
    RemoteError("no", status=403, code="content_policy_violation"), RemoteError("no", status=403, code="moderation_blocked"),
    *(RemoteError(f"`h` answered 403: {said}", status=403) for said in (
        # OpenRouter, xAI, OpenAI
        "Your chosen model requires moderation and your input was flagged",
        "Your input was flagged for the following reasons: violence", "Input was flagged",
        "Content violates usage guidelines. Team: t, API key ID: k, Model: grok-4, Failed check: SAFETY_CHECK_TYPE_BIO",
        "Your request was rejected as a result of our safety system.",
        "Invalid prompt: your prompt was flagged as potentially violating our usage policy.",
        # gateways
        "Input was rejected by moderation", "Blocked by moderation", "Request blocked by our moderation system",
        "Access denied by Content-Policy", "Your input violates our content moderation guidelines.",
        "Request blocked due to content policy violation.", "Content policy violation", "Your prompt may violate our content policy",
        # threats, and what an account restricts
        "Your prompt was flagged. Repeated violations may result in your account being suspended.",
        "Your request was flagged: repeated violations may get your account banned",
        "Your input was flagged. Your account may be suspended, or is disabled if this goes on",
        "Your prompt was flagged. Your account has not been suspended", "Your prompt was flagged. Your account is to be suspended",
        "Your prompt was flagged. Users who do so again are banned", "Input was flagged: restricted for users under 18",
        "The prompt was flagged: such content is restricted by your organization",
    )),
    *(RemoteError(f"`h` answered 500: {said}", status=500) for said in (
        # llama.cpp, Ollama, others
        "input (596 tokens) is too large to process. increase the physical batch size (current batch size: 512)",
        "request (5000 tokens) exceeds the available context size (4096 tokens), try increasing it",
        "the input exceeds the context size", "the input length exceeds the context length",
        "the input length exceeds maximum context length",
        "message is too long", "messages is too long", "inputs are too long", "content is too long", "image is too large",
        "Payload is too large", "input (file a.txt) is too large", "prompt is too long: 250000 tokens > 200000 maximum",
    )),
    CacheExceededError("too long"), NoTemplateError("no chats"), SchemaError("no schema"),
])  # fmt: skip
def test_an_error_that_names_one_of_several_questions_is_not_the_engines_own(error: NomoatError) -> None:
    said, hint = error.message, "ask otherwise"
    error.hint = hint
    with Responder("m", Failing(error)) as model:
        for _ in range(2):
            with pytest.raises(type(error)) as raised:
                list(model.complete_many(["a", "b"], concurrency=1))
            assert (raised.value.at, raised.value.message, raised.value.hint) == (0, f"`requests[0]`: {said}", hint)
        with pytest.raises(type(error)) as raised:
            model.complete("a")
        assert (raised.value.at, str(raised.value)) == (None, said)


def test_a_traceback_says_once_what_is_wrong_with_one_of_several_questions_where_and_why() -> None:
    error = UnsupportedError("not so")
    error.__cause__ = KeyError("the root")
    with Responder("m", Failing(error)) as model, pytest.raises(UnsupportedError) as raised:
        list(model.complete_many(["a", "b"], concurrency=1))
    said = "".join(traceback.format_exception(raised.value))
    assert (said.count("not so"), said.count("the root"), said.count("raise self._error")) == (1, 1, 1)


@pytest.mark.parametrize("error", [
    RemoteError("the key is wrong", status=401), RemoteError("no answer"), NotEnoughMemoryError("too large"), StoppedError("closed"),
    SettingError("no key"), ForkedError("a fork"),
    RemoteError("Unsupported country, region, or territory", status=403, code="unsupported_country_region_territory"),
    RemoteError("it crashed, or took too long", status=500),
    RemoteError("the model is too large for the memory of this machine", status=500),
    RemoteError("moderation service is down", status=500), RemoteError("`content-filter.corp` answered 500: crashed", status=500),
    *(RemoteError(said, status=403) for said in (
        "your key has no access to the moderation endpoint", "Your account has been flagged for review", "Key is disabled",
        "This API key has been flagged as compromised", "Your account was flagged for potential abuse. Contact us",
        "Your account was blocked by moderation", "Your access has been flagged",
        "Your account has been suspended because your requests violated our usage policies",
        "Too many of your requests were flagged: this API key is disabled", "Your messages were flagged; we terminated your account",
        "Account suspended: your requests were flagged", "Your requests were flagged. Your API key k-1 of team t has been revoked",
        "Your prompts were flagged, and the user a@b is now blocked", "API key has been disabled because your requests were flagged",
        "Account has been suspended: your requests were flagged", "Too many prompts were flagged. Account is blocked.",
        "Request is prohibited by organization's policy. vpcServiceControls",
        "The request violates the service perimeter of the project",
    )),
    *(RemoteError(said, status=500) for said in (
        "The model for this request is too large for the memory", "the prompt cache is too large for this machine",
        "The request queue is too long", "text model is too large to load", "the content filter is down",
        "Request exceeds the rate limit in the context of your plan",
    )),
    *(RemoteError("not now", status=status) for status in (404, 405, 408, 409, 410, 425, 429, 502, 503, 504, 520, 529)),
])  # fmt: skip
def test_what_befalls_all_questions_is_said_of_none(error: NomoatError) -> None:
    with Responder("m", Failing(error)) as model, pytest.raises(type(error), match=f"^{error.message}$") as raised:
        list(model.complete_many(["a", "b"]))
    assert raised.value is error and error.at is None


def test_a_whole_answer_has_the_likelihoods_that_were_asked_for() -> None:
    request = Request(prompt="a moat is", max_new_tokens=3, top_logprobs=2)
    with responder.load("fake:") as model:
        streamed = [one for chunk in model.stream(request) for one in chunk.likelihoods]
        assert len(streamed) == 3 and len(streamed[0].top) == 2
        assert list(model.complete(request).likelihoods) == streamed
        ((_, answer),) = model.complete_many([request])
        assert list(answer.likelihoods) == streamed
        assert model.complete("a moat is").likelihoods == ()


def test_an_array_of_pyarrows_is_the_texts_in_it() -> None:
    class Array:
        """Who iterates over it gets scalars of pyarrow's own."""

        def __iter__(self) -> Iterator[object]:
            return iter([object()])

        def to_pylist(self) -> list[str]:
            return ["moat"]

    with responder.load("fake:") as model:
        assert model.embed(Array()).shape[0] == 1  # type: ignore[arg-type]
        assert len(model.score("a", Array())) == 1  # type: ignore[arg-type]
        assert len(list(model.complete_many(Array()))) == 1  # type: ignore[arg-type]


def test_nothing_is_asked_where_one_of_the_questions_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    with responder.load("fake:") as model:
        monkeypatch.setattr(model, "complete", lambda *_, **__: pytest.fail("was asked"))
        with pytest.raises(UsageError, match=r"and `requests\[1\]` is of the type int"):
            model.complete_many(["moat", 1])  # type: ignore[list-item]


@pytest.mark.parametrize(
    "row", [[1.5], np.array([1.0, 2.0]), ["moat"], ("a", "b"), np.array(["moat"], object), b"moat", {1: 2}, [True], [None]]
)
def test_a_row_to_embed_that_is_no_text_and_no_tokens_is_refused(row: Any) -> None:
    """In the pass that texts share it failed all of these."""
    with responder.load("fake:") as model, pytest.raises(UsageError) as raised:
        model.embed(["moat", row])
    assert raised.value.message == "`texts[1]` are no whole numbers"
    assert raised.value.hint == 'give "…", or the whole numbers that are the model\'s own tokens'


def test_a_token_of_too_many_digits_is_named_with_its_place() -> None:
    with responder.load("fake:") as model, pytest.raises(UsageError, match=r"(?m)^`texts\[1\]\[2\]` is 1\.00e\+200$"):
        model.embed(["moat", [1, 2, 10**200]])


def test_a_context_and_a_concurrency_may_be_numbers_of_numpys(tiny_gguf: Path) -> None:
    with responder.load(tiny_gguf, context_tokens=np.int64(64)) as model:
        assert sorted(at for at, _ in model.complete_many(["moat", "wall"], concurrency=np.int64(2))) == [0, 1]


def test_tokens_to_embed_may_be_numbers_of_numpys(tiny_gguf: Path) -> None:
    with responder.load(tiny_gguf) as model:
        assert (model.embed(np.array([[5, 6], [7, 8]])) == model.embed([[5, 6], (7, 8)])).all()


@pytest.mark.parametrize("copied", [pickle.dumps, copy.copy, copy.deepcopy])
def test_a_model_that_is_pickled_or_copied_says_to_load_it_where_it_is_needed(copied: Callable[[Any], Any]) -> None:
    with (
        responder.load("fake:") as model,
        pytest.raises(UnsupportedError, match="<model fake:> cannot be pickled or copied") as raised,
    ):
        copied(model)
    assert raised.value.hint == "give the other process its name, 'fake:', and have it load the model itself"


def test_what_is_no_event_is_refused_as_one() -> None:
    given: Any = 1
    with responder.load("fake:") as model, pytest.raises(UsageError, match="`caller_left` is 1"):
        model.complete("moat", caller_left=given)
    reads: list[Any] = [lambda model: model.embed(["moat"], stop=given), lambda model: model.prompt_likelihoods("moat", stop=given)]
    for read in reads:
        with responder.load("fake:") as model, pytest.raises(UsageError, match="`stop` is 1"):
            read(model)


def test_a_prompt_of_no_words_has_no_likelihoods() -> None:
    with responder.load("fake:") as model:
        assert model.prompt_likelihoods(Request(prompt=" ")) == []


def test_several_texts_may_come_one_after_another_and_may_be_none() -> None:
    with responder.load("fake:") as model:
        assert model.embed(text for text in ["a", "b c"]).shape == (2, 9)
        assert model.embed([]).shape == (0, 9)
        assert model.score("a moat", (text for text in ["moat", "lake"])) == model.score("a moat", ["moat", "lake"])
        asked = (Request(prompt="a b", max_new_tokens=count) for count in (1, 2))
        assert [answer.text for _, answer in sorted(model.complete_many(asked, concurrency=1))] == ["b", "b a"]


def test_what_is_no_whole_text_is_refused_also_beside_requests() -> None:
    with responder.load("fake:") as model:
        asks: list[Any] = [model.embed, lambda texts: model.score("a moat", texts)]
        for ask in asks:
            with pytest.raises(UsageError, match="its character 1 is half of one"):
                ask(["moat", "\ud800"])
            for cell in (None, float("nan")):
                with pytest.raises(UsageError, match=f"is of the type {type(cell).__name__}, not a text") as caught:
                    ask([cell])
                assert "`dropna()`" in str(caught.value.hint)
        for one in (None, float("nan")):
            with pytest.raises(UsageError) as caught:
                model.complete(one)  # type: ignore[arg-type]
            assert str(caught.value.hint).startswith('give "…", or for a conversation Request(')


def test_no_answers_at_once_are_refused_when_they_are_asked_for() -> None:
    """They yielded none, and no error."""
    with responder.load("fake:") as model:
        asks: list[Any] = [lambda: model.complete_many(["a"], concurrency=0), lambda: RunSettings(concurrency=0)]
        for ask in asks:
            with pytest.raises(UsageError, match="0 answers in the making at once are asked for"):
                ask()


def test_a_model_is_named_by_a_path_too_and_by_nothing_else(tiny_gguf: Path) -> None:
    asked = Request(prompt="the", max_new_tokens=2)
    with responder.load(tiny_gguf) as model, responder.load(str(tiny_gguf)) as same:
        assert (model.ref, model.complete(asked).text) == (str(tiny_gguf), same.complete(asked).text)
    with pytest.raises(UsageError, match="a model is named by a text or a path, and this is of the type NoneType"):
        responder.load(None)  # type: ignore[arg-type]


@pytest.mark.parametrize("option", ["template", "fallback_template"])
def test_a_chat_template_that_nobody_knows_is_refused_whichever_way_it_is_named(tiny_gguf: Path, option: str) -> None:
    for wrong, message in (("x", "no chat template is called `x`"), (5, "a chat template's name is of the type int, not a text")):
        with pytest.raises(UsageError, match=f"^{message}"):
            responder.load(tiny_gguf, **{option: wrong})  # type: ignore[arg-type]


def test_a_model_tells_which_it_is_and_whether_it_is_closed() -> None:
    with responder.load("fake:") as model:
        assert repr(model) == "<model fake:>"
    assert repr(model) == "<model fake:, closed>"


def test_a_model_tuned_on_a_table_says_where_it_is_asked_in_other_words() -> None:
    question = labelling.kept_question([], "Which colour?")
    asked = labelling.put_question(question, "x")
    note = (
        "`base+colours` was tuned on a table, and asked in other words than it learned: `nomoat run` with `--as-tuned` asks about "
        "a text in those, and `nomoat show` prints them"
    )
    other_turns = (Message(role="user", content=asked), Message(role="assistant", content="red"), Message(role="user", content="x"))
    with responder.Responder("base+colours", FakeEngine(), question=question) as model:
        for plain in ("x", Request(prompt="x"), Request(messages=other_turns)):
            assert model.notes_on(plain) == (note,)
        for learned in (
            asked,
            Request(prompt=f"<|user|>{asked}<|end|>"),
            Request(messages=other_turns[::-1]),
            Request(prompt_ids=(1,)),
        ):
            assert model.notes_on(learned) == ()
        assert model.notes == ()
    with responder.load("fake:") as model:
        assert model.notes_on("x") == ()


def test_a_caller_who_leaves_gets_an_error_of_nomoat() -> None:
    left = threading.Event()
    with responder.load("fake:") as model:
        assert model.complete("a b c", caller_left=left).finish_reason == "stop"
        left.set()
        with pytest.raises(StoppedError) as caught:
            model.complete("a b c", caller_left=left)
    assert caught.value.message == "`fake:`: the answer was stopped"


def test_counts_that_are_no_numbers_are_refused(tiny_gguf: Path) -> None:
    for ref in (tiny_gguf, "fake:", "http://127.0.0.1:1#x"):
        with pytest.raises(UsageError, match=r"(?m)^`context_tokens` is '64', of the type str$"):
            responder.load(ref, context_tokens="64")  # type: ignore[arg-type]
        with pytest.raises(UsageError, match=r"(?m)^`context_tokens` is 64\.0, of the type float$") as caught:
            responder.load(ref, context_tokens=64.0)  # type: ignore[arg-type]
        assert caught.value.hint == "give a whole number (an int)"
    with pytest.raises(UsageError, match=r"(?m)^`as_client` is 'no', of the type str$"):
        responder.load("fake:", as_client="no")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match=r"(?m)^`progress` is True, of the type bool$"):
        responder.load(tiny_gguf, progress=True)  # type: ignore[arg-type]
    with responder.load("fake:") as model, pytest.raises(UsageError, match=r"(?m)^`concurrency` is '2', of the type str$"):
        model.complete_many(["a"], concurrency="2")  # type: ignore[arg-type]


@pytest.mark.parametrize("count", [0, -1])
def test_a_context_of_no_tokens_is_refused(tiny_gguf: Path, count: int) -> None:
    with pytest.raises(UsageError, match=f"a context of {count} tokens is asked for"):
        responder.load(tiny_gguf, context_tokens=count)


def test_a_stream_can_be_closed() -> None:
    with responder.load("fake:") as model:
        with closing(model.stream("a b c")) as chunks:
            assert next(chunks).text == "c"
        assert list(chunks) == []


def test_what_nomoat_offers_is_told_by_help_and_dir_and_is_there() -> None:
    assert dir(nomoat) == sorted(nomoat.__all__)
    told, _, modules = str(nomoat.__doc__).partition("in modules:\n")
    assert set(re.findall(r"^(\w+)\(", told, re.MULTILINE)) == {*nomoat.__all__} - {"__version__"}
    found = re.findall(r"^nomoat\.(\S+) +(.+)$", modules, re.MULTILINE)
    assert len(found) > 10
    page = (Path(__file__).parents[1] / "docs" / "python.md").read_text(encoding="utf-8")
    for name, words in found:
        module = importlib.import_module(f"nomoat.{name}")
        # What is named stands before a colon and what is said of it, or alone.
        names = [one for part in words.split("; ") for one in re.findall(r"\b(?:[a-z]+_[a-z_]+|[A-Z][a-z]\w+)\b", part)]
        assert all(hasattr(module, one) for one in names), (name, names)
        assert f"nomoat.{name}" in page, name


WITHOUT_EXTRAS = """
import sys
import threading
class Lacks:
    def find_spec(self, name, path=None, target=None):
        if name in ("uvicorn", "safetensors"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Lacks())
from nomoat import *
import inspect, nomoat
from nomoat.errors import MissingExtraError
assert {"load", "duel", "evaluate", "serve", "tune", "__version__"} <= set(dir(nomoat))
assert dict(inspect.getmembers(nomoat))["load"] is load
for function in (serve, tune, nomoat.serve, nomoat.tune):
    try:
        function("fake:")
    except MissingExtraError as error:
        print(error, error.hint)
print(inspect.getdoc(tune))
print(hasattr(tune, "__signature__"))
"""


def test_without_their_extras_the_public_functions_are_there_and_say_what_to_install() -> None:
    done = subprocess.run([sys.executable, "-c", WITHOUT_EXTRAS], capture_output=True, text=True, check=False)
    says = [f"`nomoat.{name}` needs nomoat's `{name}` extra {commands.installing_extra(name)}" for name in ("serve", "tune")]
    doc = "Fine-tuning on a CPU. `nomoat.tune(...)` is `nomoat.tune.train.tune(...)`."
    assert done.stdout.splitlines() == [*says, *says, doc, "False"], done.stderr


def test_a_module_of_nobody_s_that_is_missing_is_not_taken_for_an_extra() -> None:
    with pytest.raises(ModuleNotFoundError, match="nomoat_nowhere"), extras.needed_for("this"):
        importlib.import_module("nomoat_nowhere")


@pytest.mark.parametrize(("name", "module"), [("serve", "nomoat.serve.app"), ("tune", "nomoat.tune.train")])
def test_a_public_function_is_described_also_where_its_package_stands_in_its_place(name: str, module: str) -> None:
    function = getattr(importlib.import_module(module), name)
    standing = getattr(nomoat, name)
    assert isinstance(standing, ModuleType)
    assert inspect.signature(standing) == inspect.signature(function)
    assert str(inspect.getdoc(standing)).endswith(f"{name}{inspect.signature(function)}\n\n{inspect.getdoc(function)}")


@pytest.mark.parametrize("name", ["serve", "tune"])
def test_a_public_function_is_pickled_and_copied_also_where_its_package_stands_in_its_place(name: str) -> None:
    standing = importlib.import_module(f"nomoat.{name}")
    assert pickle.loads(pickle.dumps(standing)) is copy.copy(standing) is copy.deepcopy(standing) is standing


def test_a_type_checker_is_told_of_no_names_that_are_not_there() -> None:
    """A `__getattr__` that it sees would give any."""
    seen = [node.name for node in ast.parse(inspect.getsource(nomoat)).body if isinstance(node, ast.FunctionDef)]
    assert "__dir__" in seen and "__getattr__" not in seen
    with pytest.raises(AttributeError, match="module 'nomoat' has no attribute 'evaluatee'"):
        nomoat.evaluatee  # type: ignore[attr-defined]  # noqa: B018


@pytest.fixture
def amx(monkeypatch: pytest.MonkeyPatch) -> None:
    """A CPU with AMX and much memory, where no model is too small for its file's own codes."""
    monkeypatch.setattr(hardware, "cpu_flags", lambda: frozenset({"avx2", "fma", "f16c", "amx_bf16"}))
    monkeypatch.setattr(hardware, "memory_total_bytes", lambda: Detected(64 * 10**9, "memory of the machine"))
    monkeypatch.setattr(footprint, "FEW_WEIGHTS", 0)


@pytest.mark.usefixtures("amx")
def test_show_says_that_a_file_keeps_its_codes(tiny_gguf: Path, capsys: pytest.CaptureFixture[str]) -> None:
    show(str(tiny_gguf), as_json=True)
    facts = json.loads(capsys.readouterr().out)
    assert facts["layout"]["forms"] == {"": ["tiles", 0]}


@pytest.mark.parametrize(("flags", "is_shared"), [({"avx2", "fma", "f16c"}, True), ({"asimddp"}, True), ({"neon"}, False)])
def test_a_base_and_its_adapters_are_loaded_together_where_either_way_of_answering_lets_adapters_stand_beside_the_weights(
    flags: set[str], is_shared: bool, tiny_gguf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ARM has nomoat's own passes and no paged attention, as Gemma 2 everywhere."""
    monkeypatch.setattr(hardware, "cpu_flags", lambda: frozenset(flags))
    monkeypatch.setattr(footprint, "FEW_WEIGHTS", 0)
    refs = [str(tiny_gguf), f"{tiny_gguf}+{write_adapter(tmp_path / 'mine')}"]
    assert responder.groups(refs) == ([refs] if is_shared else [[ref] for ref in refs])


@pytest.mark.usefixtures("amx")
def test_a_model_in_its_own_codes_is_loaded_where_there_is_room_for_it(tiny_gguf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = responder.memory_need(open_source(tiny_gguf), 64)
    need = found.total_bytes
    check = responder._memory_check("tiny", 64)
    source = open_source(tiny_gguf)
    stored = importer.planned(source)
    sizes = importer.read_sizes(source)
    told = sizes, source.num_values, stored.bytes_of(source, sizes), stored.has_tiles, "llama"
    monkeypatch.setattr(hardware, "memory_of_this_process_bytes", lambda: 0)
    monkeypatch.setattr(hardware, "memory_available_bytes", lambda: Detected(need, "free"))
    check(*told)
    monkeypatch.setattr(hardware, "memory_available_bytes", lambda: Detected(need - 1, "free"))
    with pytest.raises(NotEnoughMemoryError, match=r"`tiny` needs about 0\.4\d* GB of memory at a context of 64 tokens"):
        check(*told)


@pytest.mark.parametrize("where", ["chat_template.jinja", "tokenizer_config.json"])
@pytest.mark.parametrize("stands_beside", [True, False])
def test_an_adapter_answers_with_the_chat_template_in_its_folder(
    where: str, stands_beside: bool, tiny_gguf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    """Trainers save that of their lessons there. Another one is asked for by name, and the base keeps its own."""
    if not stands_beside:
        monkeypatch.setattr(footprint, "has_native_kernels", lambda: False)
    adapter, text, talk = write_adapter(tmp_path / "mine"), "T {{ messages[0].content }}>", (Message(role="user", content="hello"),)
    ref = f"{tiny_gguf}+{adapter}"
    with responder.load(ref) as model:
        without = model.digest
        assert model.engine.tokenizer is not None and model.engine.tokenizer.render(talk) != "T hello>"
    (adapter / where).write_text(text if where.endswith("jinja") else json.dumps({"chat_template": text}))
    with responder.load(ref) as model:
        assert model.engine.tokenizer is not None and model.engine.tokenizer.prompt_text(Request(messages=talk)) == ("T hello>", False)
        assert model.digest != without and model.template is None
    with responder.load(ref, template="vicuna_v1.1") as model:
        assert model.engine.tokenizer is not None and "USER: hello" in model.engine.tokenizer.render(talk)
    with responder.load(ref, fallback_template="vicuna_v1.1") as model:
        assert model.engine.tokenizer is not None and model.engine.tokenizer.render(talk) == "T hello>"
    shared = responder.load_sharing([str(tiny_gguf), ref])
    tokenizers = [model.engine.tokenizer for model in shared]
    assert [found is not None and found.render(talk) == "T hello>" for found in tokenizers] == [False, True]
    shared[0].close()
    show(ref)
    assert "chat template: the one in its folder" in capsys.readouterr().out.splitlines()
    (adapter / where).write_text(open_source(tiny_gguf).chat_template or "")  # the base's own answers as if nothing lay there
    if not where.endswith("jinja"):
        (adapter / where).write_text(json.dumps({"chat_template": (adapter / where).read_text(), "bos_token": False}))
    with responder.load(ref) as model:
        assert model.digest == without
    (adapter / where).write_text("\xff" if where.endswith("jinja") else "[]", encoding="latin-1")
    assert isinstance(responder.what_is_wrong(ref), BadFileError)
    write_learned(adapter, "a")
    facts = json.loads((adapter / "provenance.json").read_text())
    (adapter / "provenance.json").write_text(json.dumps({**facts, "task": {"template": "falcon"}}))  # where one is named, none is read
    assert responder.what_is_wrong(ref) is None
