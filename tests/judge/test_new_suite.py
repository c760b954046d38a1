"""A suite from a user's own file: what is guessed, and that it is said."""

from __future__ import annotations

from pathlib import Path

import pytest

from nomoat.errors import DataError, UsageError
from nomoat.judge.new_suite import suite_from_file


def test_few_answers_that_repeat_are_labels(tmp_path: Path) -> None:
    path = tmp_path / "my.csv"
    path.write_text("문장,정답\n좋아요,긍정\n별로,부정\n최고,긍정\n싫어요,부정\n")
    guess = suite_from_file(path)
    assert guess.reasons == (
        "input: column `문장` (by its name)",
        "label: column `정답` (by its name)",
        "metric: choice (2 different answers in 4 rows: 긍정, 부정)",
    )
    assert (guess.suite.metric, guess.suite.language, guess.suite.examples[0].choices) == ("choice", "ko", ("긍정", "부정"))


@pytest.mark.parametrize(
    ("answers", "metric"),
    [
        (["1", "2.5", "1,000"], "numeric"),
        (["1e5", "+3", "−2", "$4"], "numeric"),
        (["1", "2.5", "nan"], "exact"),  # which no answer's number could equal
        (["Paris", "New York", "Seoul"], "exact"),
        (["It is the capital of France, on the Seine.", "b", "c"], "rouge"),
        (["서울은 대한민국의 수도이고 아주 큰 도시이다", "부산", "대구"], "char-f1"),
    ],
)
def test_other_answers_decide_how_they_are_compared(tmp_path: Path, answers: list[str], metric: str) -> None:
    path = tmp_path / "my.tsv"
    path.write_text("question\tx\n" + "".join(f"q{at}\t{answer}\n" for at, answer in enumerate(answers)))
    guess = suite_from_file(path)
    assert guess.suite.metric == metric
    assert guess.reasons[1] == "label: column `x` (the only other one)"


def test_jsonl_and_what_the_user_says_come_first(tmp_path: Path) -> None:
    path = tmp_path / "my.jsonl"
    path.write_text('{"body": "a", "team": 3}\n{"body": "b", "team": 4}\n')
    guess = suite_from_file(path, input_column="body", label_column="team", metric="exact", name="teams")
    assert (guess.suite.name, guess.suite.metric, guess.suite.examples[0].target) == ("teams", "exact", "3")
    assert guess.reasons[2] == "metric: exact (as told)"


def test_columns_that_cannot_be_told_apart_are_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "my.csv"
    path.write_text("a1,b1,c1\nx,y,z\n")
    with pytest.raises(UsageError) as caught:
        suite_from_file(path)
    assert caught.value.message == f"`{path}`: no column is named like a usual input; say which with --input-column"
    assert caught.value.hint == "its columns are: a1, b1, c1"
    with pytest.raises(DataError, match="has no column `d1`"):
        suite_from_file(path, input_column="d1")
    with pytest.raises(DataError, match="holds 1 labels, and a choice has 2 to 256"):
        suite_from_file(path, input_column="a1", label_column="b1", metric="choice")


def test_an_empty_answer_is_named_by_its_line(tmp_path: Path) -> None:
    path = tmp_path / "my.jsonl"
    path.write_text('{"text": "a", "label": "x"}\n{"text": "b"}\n')
    with pytest.raises(DataError, match="line 2: column `label` is empty or no text"):
        suite_from_file(path)


def test_an_empty_cell_of_a_table_is_named_by_the_line_it_is_in(tmp_path: Path) -> None:
    path = tmp_path / "my.csv"
    path.write_text('text,label\n\n"two\nlines",x\nb,\n')
    with pytest.raises(DataError, match="line 5: column `label` is empty or no text"):
        suite_from_file(path)
    path.write_text('text,label\n\n"two\nlines",x\nb,y\n')
    assert [example.id for example in suite_from_file(path).suite.examples] == ["3", "5"]
