"""Stored reviews: found for a pair in either order; those that were published, against their own text."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from nomoat.errors import UnsupportedError
from nomoat.judge.duel import run_duel
from nomoat.judge.stored_reviews import load_reviews, parse_scores
from nomoat.judge.suite import Suite
from nomoat.records import Example, Message
from nomoat.textfiles import read_jsonl


def write_lines(path: Path, *rows: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))


def review(question: int, *, text: str = "9 8.5\nBoth are fine.", score: object = (9.0, 8.5)) -> dict[str, object]:
    ids = {"answer1_id": f"big{question}", "answer2_id": f"small{question}"}
    return {"question_id": question, **ids, "text": text, "score": score}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("big", "small", "other"):
        rows = [{"question_id": at, "text": name, "answer_id": f"{name}{at}"} for at in (1, 2)]
        write_lines(tmp_path / f"answer/answer_{name}.jsonl", *rows)
    write_lines(tmp_path / "review/run/r.jsonl", review(1), review(2, text="So:\nAssistant 1: 3", score=[3, 7]))
    rows = [{"reviewer_id": f"gpt-9-{kind}", "metadata": {"temperature": 0.2}} for kind in ("math", "coding")]
    write_lines(tmp_path / "reviewer.jsonl", *rows)
    return tmp_path


def test_reviews_are_found_in_both_orders_and_know_who_was_shown_first(folder: Path) -> None:
    one, other = load_reviews("s", folder, "big", "small"), load_reviews("s", folder, "small", "big")
    assert one.scores == {"1": (9.0, 8.5), "2": (3.0, 7.0)}
    assert other.scores == {"1": (8.5, 9.0), "2": (7.0, 3.0)}
    assert str(one.scores["2"]) == "(3.0, 7.0)"  # as `--json` has all scores
    assert one.shown_first == other.shown_first == "big"
    assert (one.judge, one.temperature, one.num_in_prose) == ("gpt-9", 0.2, 1)


def test_reviews_of_examples_that_belong_together_are_in_groups(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("catalog.datasets", "judge.kept"):
        monkeypatch.setattr(f"nomoat.{module}.pull_dataset", lambda name: folder)
    write_lines(folder / "question.jsonl", *({"question_id": at, "text": f"question {at}"} for at in (1, 2)))
    first, second = (
        Example(id=str(at), messages=(Message(role="user", content=f"question {at}"),), target="", group="text") for at in (1, 2)
    )
    note = "all 2 examples are of one group: one piece of evidence, which leaves open what others would say"
    for examples in ((first, second), (replace(first, group=""), replace(second, group="", follows="1"))):
        suite = Suite(name="vicuna80", metric="review", examples=examples, sha256="", folder=folder)
        duel = run_duel("stored:vicuna80/big", "stored:vicuna80/small", suite)
        assert [outcome.group for outcome in duel.left.outcomes] == [examples[0].group or "1"] * 2
        assert note in duel.verdict.notes
    alone = replace(suite, examples=(replace(first, group=""), replace(second, group="")))
    assert note not in run_duel("stored:vicuna80/big", "stored:vicuna80/small", alone).verdict.notes


def test_pair_that_was_never_reviewed_is_told_the_pairs_there_are(folder: Path) -> None:
    with pytest.raises(UnsupportedError) as caught:
        load_reviews("s", folder, "other", "big")
    assert caught.value.message == "no stored review compares `other` and `big`"
    assert caught.value.hint == "reviewed together were: small and big"


@pytest.mark.parametrize(
    ("text", "scores"),
    [
        ("9 8.5\nBoth", (9.0, 8.5)),
        ("\n 10,  7 \nBoth", (10.0, 7.0)),
        ("8/9", (8.0, 9.0)),
        ("First, 9 8", None),
        ("9 8 7\n", None),
        ("", None),
    ],
)
def test_scores_are_read_from_a_first_line_that_holds_nothing_else(text: str, scores: tuple[float, float] | None) -> None:
    assert parse_scores(text) == scores


@pytest.mark.data
def test_each_published_file_reviews_all_questions_for_one_pair_and_says_the_scores_recorded_with_it(vicuna_folder: Path) -> None:
    owner = {
        row["answer_id"]: path.stem for path in vicuna_folder.glob("answer/*.jsonl") for _, row in read_jsonl(path)
    }  # fmt: skip
    for path in vicuna_folder.glob("review/*/*.jsonl"):
        rows = [row for _, row in read_jsonl(path)]
        assert len({row["question_id"] for row in rows}) == 80
        assert len({(owner[row["answer1_id"]], owner[row["answer2_id"]]) for row in rows}) == 1
        assert all(parse_scores(row["text"]) in (None, tuple(row["score"])) for row in rows)
        assert all(0 <= score <= 10 for row in rows for score in row["score"])


@pytest.mark.data
@pytest.mark.parametrize(
    ("left", "right", "totals"),
    [
        ("vicuna-13b", "gpt35", (638.0, 693.0)),
        ("vicuna-13b", "bard", (655.5, 664.0)),
        ("vicuna-13b", "alpaca-13b", (704.0, 583.0)),
        ("vicuna-13b", "llama-13b", (694.0, 513.0)),
        ("vicuna-7b", "gpt35", (604.0, 688.0)),
        ("vicuna-13b-20230322-new-hp", "gpt35", (633.5, 684.0)),
    ],
)
def test_totals_are_the_published_ones(vicuna_folder: Path, left: str, right: str, totals: tuple[float, float]) -> None:
    """The blog of 2023-03-30 for Vicuna-13B; the other two recounted from the same files."""
    scores = load_reviews("vicuna80", vicuna_folder, left, right).scores.values()
    assert (sum(one for one, _ in scores), sum(other for _, other in scores)) == totals
