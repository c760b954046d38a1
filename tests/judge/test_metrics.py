"""The table of metrics: it has each of them, so has its page, and what a written answer is worth by one."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest
from letters import decomposed

from nomoat.judge.examples import asked
from nomoat.judge.metrics import METRICS, WRITABLE, score_text
from nomoat.judge.scorers import rouge
from nomoat.records import Example

SUITES_PAGE = Path(__file__).parents[2] / "docs" / "suites.md"
OF_TEXT = [name for name, scoring in METRICS.items() if scoring.of_text is not None]


def test_the_page_has_each_metric_that_a_suite_may_ask_for_and_no_other() -> None:
    (table,) = re.findall(r"^### Metrics\n\n((?:\|.*\n)+)", SUITES_PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    rows = [line.split("|")[1] for line in table.splitlines()[2:]]
    assert sorted(re.findall("`(.+?)`", " ".join(rows))) == sorted(WRITABLE)


def test_all_that_a_suite_may_ask_for_is_scored() -> None:
    """By the text, or by `run`: a choice, code that is run, and nothing until a judge has compared."""
    assert set(WRITABLE) - set(OF_TEXT) == {"choice", "code", "judge"}


@pytest.mark.parametrize("metric", OF_TEXT)
def test_what_is_right_or_wrong_scores_1_or_0_and_the_rest_scores_between_them_too(metric: str) -> None:
    example = Example(id="1", messages=asked("x"), target='{"a": 1, "b": 2}')
    score = score_text(metric, '{"a": 1, "b": 3}', example)
    assert (score in (0.0, 1.0)) == METRICS[metric].right_or_wrong


def test_best_of_several_targets_counts() -> None:
    example = Example(id="1", messages=asked("x"), target="no", other_targets=("yes", "yeah"))
    assert score_text("exact", "Yes.", example) == 1.0
    places = dataclasses.replace(example, target='{"city": "Seoul"}', other_targets=('{"city": "서울"}',))
    assert [score_text("json", answer, places) for answer in ('{"city": "서울"}', '{"city": "Busan"}')] == [1.0, 0.0]


@pytest.mark.parametrize("metric", [name for name in OF_TEXT if name != "numeric"])
def test_the_parts_that_letters_are_written_in_make_no_difference(metric: str) -> None:
    """macOS writes a Korean syllable as two or three characters, and é as two."""
    said = '"환불은 보통 사흘 안에 끝납니다, café 주인"'
    example = Example(id="1", messages=asked("x"), target=decomposed(said))
    assert score_text(metric, said, example) == score_text(metric, example.target, dataclasses.replace(example, target=said)) == 1.0
    assert score_text(metric, decomposed(said), example) == 1.0


def test_equal_fractions_are_equal_scores_to_the_last_digit() -> None:
    """Two words of two and three of five make F1 2 / 3 against four, which differ in the last bit as they are computed."""
    example = Example(id="1", messages=asked("x"), target="a b c d")
    assert rouge("a b", "a b c d") != rouge("a b c x y", "a b c d")
    assert score_text("rouge", "a b", example) == score_text("rouge", "a b c x y", example) == pytest.approx(2 / 3)
