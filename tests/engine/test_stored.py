"""Answers given before: found by their question, refused otherwise."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from nomoat.engine.stored import StoredEngine, stored_engine
from nomoat.errors import DataError, UnknownModelError, UnsupportedError, UsageError
from nomoat.records import Message, Request
from nomoat.responder import Responder


def asking(text: str) -> Request:
    return Request(messages=(Message(role="user", content=text),))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "answer").mkdir()
    (tmp_path / "question.jsonl").write_text(
        json.dumps({"question_id": 1, "text": "Why?"}) + "\n" + json.dumps({"question_id": 2, "text": "Who?"}) + "\n"
    )
    for name in ("alpha-7b-v1", "alpha-13b", "alpha-13b-new"):
        (tmp_path / "answer" / f"answer_{name}.jsonl").write_text(
            json.dumps({"question_id": 2, "text": f"{name}: two"}) + "\n" + json.dumps({"question_id": 1, "text": "한\n1"}) + "\n"
        )
    return tmp_path


def test_stored_answer_is_found_by_its_question(folder: Path) -> None:
    responder = Responder("stored:s/alpha-13b", stored_engine("s", "alpha-13b", folder))
    assert responder.is_local
    completion = responder.complete(asking("Who?"))
    assert (completion.text, completion.finish_reason, completion.usage.bytes_out) == ("alpha-13b: two", "stop", 0)
    assert responder.complete(asking("Why?")).text == "한\n1"


def test_name_may_be_cut_short_where_only_one_begins_so(folder: Path) -> None:
    assert "alpha-7b-v1: two" in [chunk.text for chunk in stored_engine("s", "alpha-7b", folder).generate(asking("Who?"))]


@pytest.mark.parametrize("name", ["alpha", "beta", ""])
def test_unknown_name_is_told_the_known_ones(folder: Path, name: str) -> None:
    with pytest.raises(UnknownModelError) as caught:
        stored_engine("s", name, folder)
    assert caught.value.message == f"`stored:s/{name}` is not among the stored answers"
    assert caught.value.hint == "stored are: alpha-13b, alpha-13b-new, alpha-7b-v1"


def test_question_without_an_answer_is_refused(folder: Path) -> None:
    engine = stored_engine("s", "alpha-13b", folder)
    with pytest.raises(UnsupportedError) as caught:
        list(engine.generate(asking("Where is\n" + "it? " * 40)))
    assert caught.value.message == (
        "`stored:s/alpha-13b` has no answer to `Where is it? it? it? it? it? it? it? it? it? it? it? it? it…`"
    )
    with pytest.raises(UnsupportedError, match="has no answer"):
        list(engine.generate(Request(messages=(*asking("Why?").messages, *asking("Who?").messages))))


def test_token_ids_are_no_question_that_was_stored() -> None:
    with pytest.raises(UnsupportedError, match="`x` holds answers to texts, and knows no token ids"):
        list(StoredEngine({}, name="x").generate(Request(prompt_ids=(1, 2))))
    with pytest.raises(UnsupportedError, match="`x` holds answers, and fills in no middle of a text"):
        list(StoredEngine({"a": "b"}, name="x").generate(Request(prompt="a", suffix="c")))


def test_answers_have_no_likelihoods_and_no_tokenizer() -> None:
    engine = StoredEngine({"a": "b"}, name="stored:s/x")
    with pytest.raises(UnsupportedError, match="no likelihoods") as unscored:
        engine.score(asking("a"), ["b"])
    with pytest.raises(UnsupportedError, match="no tokenizer") as uncounted:
        engine.count_tokens(asking("a"))
    assert unscored.value.hint and uncounted.value.hint


@pytest.mark.parametrize(("answer", "type_name"), [(1, "int"), (None, "NoneType"), (b"yes", "bytes")])
def test_an_answer_that_is_no_text_is_named_with_its_question(answer: Any, type_name: str) -> None:
    """Classifiers predict numbers, and an API that refuses to answer gives nothing."""
    with pytest.raises(UsageError) as caught:
        StoredEngine({"Why?": "So.", "Who?": answer}, name="mine")
    assert caught.value.message == f"the answer of `mine` to `Who?` is of the type {type_name}, not a text"
    assert caught.value.hint == 'give `str(answer)`, and "" where there is none'
    with pytest.raises(UsageError, match="the answer of `mine` to `0` is of the type"):
        StoredEngine({0: answer}, name="mine")  # type: ignore[dict-item]  # by the row's number, in place of its text


def test_digest_follows_the_answers() -> None:
    assert StoredEngine({"a": "b"}, name="x").digest == StoredEngine({"a": "b"}, name="y").digest
    assert StoredEngine({"a": "b"}, name="x").digest != StoredEngine({"a": "c"}, name="x").digest


def test_broken_answer_file_is_named_with_its_line(folder: Path) -> None:
    path = folder / "answer" / "answer_alpha-13b.jsonl"
    path.write_text('{"question_id": 1, "text": "x"}\n{"question_id": 2}\n')
    with pytest.raises(DataError) as caught:
        stored_engine("s", "alpha-13b", folder)
    assert caught.value.message == f"`{path}`, line 2: needs a `question_id` and a `text`"


@pytest.mark.data
def test_vicuna_folder_answers_all_80_questions_for_all_seven_systems(vicuna_folder: Path) -> None:
    from nomoat.engine.stored import stored_names

    questions = [json.loads(line)["text"] for line in (vicuna_folder / "question.jsonl").read_text().splitlines()]
    assert len(stored_names(vicuna_folder)) == 7
    empty = 0
    for name in stored_names(vicuna_folder):
        engine = stored_engine("vicuna80", name, vicuna_folder)
        empty += sum(next(iter(engine.generate(asking(question)))).text == "" for question in questions)
    assert empty == 1, "LLaMA-13B wrote nothing to one question, and nothing else is empty"
