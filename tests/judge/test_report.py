"""The report: one file that needs nothing else and holds what it was given, escaped."""

from __future__ import annotations

import re
from pathlib import Path
from xml.etree import ElementTree

import pytest

from nomoat.engine.fake import FakeEngine
from nomoat.judge.duel import run_duel
from nomoat.judge.plots import Point, difference_svg, forest_svg
from nomoat.judge.report import MAX_EXAMPLES_SHOWN, write_duel_report, write_evaluation_report
from nomoat.judge.run import run_suite
from nomoat.judge.suites import Suite
from nomoat.records import Example, Message
from nomoat.responder import Responder

HOSTILE = "<script>alert(1)</script> & 한국어 질문"


def responder(name: str, num_right: int) -> Responder:
    return Responder(name, FakeEngine(answers={f"{HOSTILE} {at}": "예" if at < num_right else "<b>no</b>" for at in range(40)}))


@pytest.fixture
def suite() -> Suite:
    examples = tuple(
        Example(
            id=str(at),
            messages=(Message(role="user", content=f"{HOSTILE} {at}"),),
            target="예",
            category=("음식", "영화", "few")[at % 2 if at < 38 else 2],
        )
        for at in range(40)
    )
    return Suite(name="한글 & more", metric="exact", examples=examples, sha256="abc123", licence="cc-by-4.0", source="here")


@pytest.fixture
def duel_page(suite: Suite, tmp_path: Path) -> str:
    path = tmp_path / "new" / "report.html"
    write_duel_report(run_duel(responder("조정된 모델", 30), responder("base", 10), suite, seed=5, stop_early=False), path)
    assert [entry.name for entry in path.parent.iterdir()] == ["report.html"]
    return path.read_text(encoding="utf-8")


def test_duel_report_says_who_won_and_how_to_reproduce_it(duel_page: str) -> None:
    for text in (
        "<code>조정된 모델</code> (75.0 % [59.8, 85.8]) is ahead of <code>base</code> (25.0 % [14.2, 40.2])",
        "20 of 40 = 50.0 %",
        "sha256 abc123",
        "Seed 5",
        "licence: cc-by-4.0",
        "음식",
    ):
        assert text in duel_page


def test_duel_report_asks_nothing_of_the_network(duel_page: str) -> None:
    assert not re.search(r"""(src|href)\s*=\s*["'](?!#)|url\((?!#)|@import|<script|<link|<iframe""", duel_page)
    addresses = set(re.findall(r"https?://[^\s\"'<]+", duel_page))
    assert addresses <= {"http://www.w3.org/1999/xlink", "http://www.w3.org/2000/svg"}  # names of SVG's parts, never fetched


def test_what_models_and_data_say_is_escaped(duel_page: str) -> None:
    assert "<b>no</b>" not in duel_page
    assert "&lt;b&gt;no&lt;/b&gt;" in duel_page
    assert "&lt;script&gt;alert(1)&lt;/script&gt; &amp; 한국어 질문" in duel_page
    assert "<title>한글 &amp; more: 조정된 모델 against base</title>" in duel_page


def test_examples_shown_are_those_where_the_sides_differ(duel_page: str) -> None:
    shown = re.findall(r'<p class="about">(\d+) · ', duel_page)
    assert len(shown) == MAX_EXAMPLES_SHOWN
    assert all(10 <= int(example_id) < 30 for example_id in shown)


def test_evaluation_report_shows_what_was_wrong_from_all_over_the_suite(suite: Suite, tmp_path: Path) -> None:
    write_evaluation_report(run_suite(responder("m", 10), suite), tmp_path / "r.html")
    page = (tmp_path / "r.html").read_text(encoding="utf-8")
    assert "<code>m</code> reaches 25.0 % [14.2, 40.2] on <code>한글 &amp; more</code>, 40 items" in page
    shown = [int(example_id) for example_id in re.findall(r'<p class="about">(\d+) · ', page)]
    assert len(shown) == MAX_EXAMPLES_SHOWN
    assert (min(shown), max(shown)) == (10, 37)


def test_plots_are_valid_svg_in_the_pages_own_colours() -> None:
    rows = [[Point(value=50.0, interval=(40.0, 60.0)), Point(value=100.0, interval=None)]] * 3
    forest = forest_svg(rows, low=0, high=100, unit="%", title="scores")
    difference = difference_svg(Point(value=0.0, interval=(0.0, 0.0)), unit="", title="difference")
    for svg in (forest, difference):
        assert ElementTree.fromstring(svg).get("role") == "img"
        assert "#010203" not in svg
    assert "var(--left)" in forest
    assert "var(--right)" in forest
    assert forest == forest_svg(rows, low=0, high=100, unit="%", title="scores")


def test_category_with_few_examples_gets_no_interval(duel_page: str, suite: Suite) -> None:
    from nomoat.judge.report import _forest_rows

    labels, points = _forest_rows([run_suite(responder("m", 10), suite)])
    assert labels == [("all", 40), ("few", 2), ("영화", 19), ("음식", 19)]
    assert [row[0].interval is None for row in points] == [False, True, False, False]


@pytest.mark.data
def test_report_of_the_vicuna_replay_holds_the_blogs_ratio(vicuna_folder: Path, tmp_path: Path) -> None:
    write_duel_report(run_duel("stored:vicuna80/vicuna-13b", "stored:vicuna80/gpt35"), tmp_path / "r.html")
    assert "638.0 / 693.0 = 92.06 % [" in (tmp_path / "r.html").read_text(encoding="utf-8")
