"""The report: one file that needs nothing else and holds what it was given, escaped."""

from __future__ import annotations

import dataclasses
import html
import re
from pathlib import Path
from xml.etree import ElementTree

import pytest
from browser import chrome, needs_browser, set_viewport
from markupsafe import escape

from nomoat.catalog.licences import licences
from nomoat.engine.fake import FakeEngine
from nomoat.judge import agreement, report, slices, wording
from nomoat.judge.duel import run_duel, run_duels
from nomoat.judge.groups import groups_of
from nomoat.judge.korean import twin
from nomoat.judge.plots import Point, cost_svg, forest_svg, scatter_svg
from nomoat.judge.report import (
    MAX_EXAMPLES_SHOWN,
    _difference_forest,
    write_duel_report,
    write_duels_report,
    write_evaluation_report,
    write_table_report,
)
from nomoat.judge.run import run_suite
from nomoat.judge.settings import RunSettings
from nomoat.judge.suite import Suite
from nomoat.judge.table import run_table
from nomoat.judge.verdict import Duel, Evaluation, Rules, compare, score_interval, side_of
from nomoat.records import Example, Message, Outcome, Verdict
from nomoat.responder import Responder

COMMAND = "nomoat eval one more"
SCRIPT = (
    '<script>const ko = document.getElementById("ko"); ko.checked = /^ko\\b/.test(navigator.language); '
    '(onchange = () => { document.documentElement.lang = ko.checked ? "ko" : "en"; })();</script>'
)
HOSTILE = "<script>alert(1)</script> & 한국어 질문"


def responder(name: str, num_right: int) -> Responder:
    return Responder(name, FakeEngine(answers={f"{HOSTILE} {at}": "예" if at < num_right else "<b>no</b>" for at in range(40)}))


def in_one(page: str, language: str) -> str:
    """The page as who reads this language sees it."""
    other = {"en": "ko", "ko": "en"}[language]
    page = re.sub(rf'(?s)<(t?span)[^>]* lang="{other}">.*?</\1>', "", page)
    page = re.sub(rf'(?s)<(t?span) lang="{language}">(.*?)</\1>', r"\2", page)
    return re.sub(' data-ko="[^"]*"', "", page)


def english(path: Path) -> str:
    return in_one(path.read_text(encoding="utf-8"), "en")


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
    duel = run_duel(responder("조정된 모델", 30), responder("base", 10), suite, RunSettings(seed=5), stop_early=False)
    write_duel_report(duel, path, command="nomoat duel '조정된 모델' base")
    assert [entry.name for entry in path.parent.iterdir()] == ["report.html"]
    return english(path)


def test_duel_report_says_who_won_and_how_to_reproduce_it(duel_page: str) -> None:
    for text in (
        "<code>조정된 모델</code> (75.0 % [59.8, 85.8]) is ahead of <code>base</code> (25.0 % [14.2, 40.2])",
        "20 of 40 = 50.0 %",
        "digest abc123",
        "<tr><th>seed</th><td>5</td></tr>",
        "<tr><th>licence of the data</th><td>cc-by-4.0</td></tr>",
        "음식",
        "<pre>nomoat duel &#39;조정된 모델&#39; base</pre>",
    ):
        assert text in duel_page


def test_a_report_leaves_out_the_end_of_a_very_long_question_or_answer_and_says_so(suite: Suite, tmp_path: Path) -> None:
    asked = Example(id="long", messages=(Message(role="user", content="é" * 1_000_000),), target="t" * 30_000)
    model = Responder("model", FakeEngine(answers={asked.messages[0].content: "<" * 20_001}))
    evaluation = run_suite(model, dataclasses.replace(suite, examples=(asked,)), RunSettings())
    write_evaluation_report(evaluation, tmp_path / "report.html", command=COMMAND)
    page = english(tmp_path / "report.html")
    assert [page.count("é"), page.count("&lt;"), page.count("t" * 19_999 + "…")] == [20_000, 20_000, 1]
    assert re.findall(r"characters that are not on this page: ([\d,]+)", page) == ["980,000", "1"]
    assert len(page) < 250_000


def test_duel_report_asks_nothing_of_the_network(duel_page: str) -> None:
    assert not re.search(r"""(src|href)\s*=\s*["'](?!#)|url\((?!#)|@import|<link|<iframe""", duel_page)
    assert re.findall(r"<script.*", duel_page) == [SCRIPT]
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


def test_report_over_several_suites_is_one_page_with_corrected_p_values(suite: Suite, tmp_path: Path) -> None:
    """20 to 0 and 5 to 0, exact McNemar: p = 2 / 2**20 and 2 / 2**5 = 0.0625; the larger of two stays as it is."""
    easy = dataclasses.replace(suite, name="easy", sha256="def", examples=suite.examples[:15])
    duels = run_duels(responder("left & co", 30), responder("right", 10), [suite, easy], stop_early=False)
    path = tmp_path / "report.html"
    write_duels_report(duels, path, command=COMMAND)
    page = english(path)
    for text in (
        "<code>left &amp; co</code> is ahead on 1 of 2 suites, <code>right</code> on 0; too close to call on 1.",
        '<td data-label="p-value">0.0625</td><td data-label="corrected">0.0625</td>',
        '<td data-label="p-value">&lt; 0.0001</td>',
        "an uncorrected p below 0.025, each suite&#39;s equal share of alpha",
        "95 % intervals, all together",
        "suite 2</th><td>easy, digest def",
        f"<pre>{COMMAND}</pre>",
    ):
        assert text in page, text
    assert page.count('<article class="example">') == 8
    for fact in ("bytes sent to other machines", "latency, median / 95th percentile", "cost in total", "licence"):
        assert page.count(f"<th>{fact}</th>") == 2, fact
    assert page.count("<script") == 1


def test_a_suite_of_one_item_has_the_number_alone_beside_the_others(suite: Suite, tmp_path: Path) -> None:
    one = dataclasses.replace(suite, name="one", sha256="one", examples=suite.examples[:1])
    duels = run_duels(responder("left", 30), responder("right", 10), [suite, one], stop_early=False)
    write_duels_report(duels, tmp_path / "report.html", command=COMMAND)
    assert re.findall(r'<td data-label="items">(.*?)</td>', english(tmp_path / "report.html")) == [str(len(suite.examples)), "1"]


def test_figures_have_no_minus_before_a_0_and_no_more_digits_of_confidence_than_alpha_has() -> None:
    assert wording._points("exact", -1e-17, -1e-9, 1e-9, sign="+") == "+0.0 points [+0.0, +0.0]"
    assert wording._points("grade", -0.001, -0.5, 0.006) == "0.00 points [-0.50, 0.01]"
    assert wording._points("grade", -0.2, -0.5, -0.004) == "-0.2000 points [-0.5000, -0.0040]"
    alphas = (0.05, 0.05 / 2, 0.05 / 3, 0.1 / 3, 0.00001)
    assert [wording.render_confidence(alpha) for alpha in alphas] == ["95 %", "97.5 %", "98.33 %", "96.67 %", "99.999 %"]
    alphas = (0.125, 0.999, 1e-7, 1e-30)
    shown = [wording.render_confidence(alpha) for alpha in alphas]
    assert shown == ["87.5 %", "0.1 %", "99.99999 %", "99.99999999999999999999999999 %"]


def test_evaluation_report_shows_what_was_wrong_from_all_over_the_suite(suite: Suite, tmp_path: Path) -> None:
    write_evaluation_report(run_suite(responder("m", 10), suite), tmp_path / "r.html", command=COMMAND)
    page = english(tmp_path / "r.html")
    assert "<code>m</code> reaches 25.0 % [14.2, 40.2] on <code>한글 &amp; more</code>, 40 items" in page
    shown = [int(example_id) for example_id in re.findall(r'<p class="about">(\d+) · ', page)]
    assert len(shown) == MAX_EXAMPLES_SHOWN
    assert (min(shown), max(shown)) == (10, 37)


def test_a_report_says_that_too_many_categories_have_no_rows(suite: Suite, tmp_path: Path) -> None:
    examples = tuple(dataclasses.replace(suite.examples[0], id=str(at), category=f"kind {at}") for at in range(101))
    evaluation = run_suite(responder("m", 10), dataclasses.replace(suite, examples=examples))
    write_evaluation_report(evaluation, tmp_path / "r.html", command=COMMAND)
    assert "The 101 categories have no rows: more than 100 tell little." in english(tmp_path / "r.html")


def test_evaluation_report_of_grades_shows_the_lowest(suite: Suite, tmp_path: Path) -> None:
    """On a scale of 1 to 10 no grade is below 1."""
    plain = run_suite(responder("m", 40), suite)
    graded = dataclasses.replace(suite, metric="grade")
    outcomes = tuple(dataclasses.replace(outcome, score=float(10 - at % 10)) for at, outcome in enumerate(plain.outcomes))
    evaluation = dataclasses.replace(plain, suite=graded, outcomes=outcomes)
    write_evaluation_report(evaluation, tmp_path / "r.html", command=COMMAND)
    page = english(tmp_path / "r.html")
    assert "<h2>The answers with the lowest scores</h2>" in page
    assert re.findall(r" · score (\d+)</p>", page) == ["1"] * 4 + ["2"] * 4 + ["3"] * 2
    best = dataclasses.replace(evaluation, outcomes=tuple(dataclasses.replace(outcome, score=10.0) for outcome in outcomes))
    write_evaluation_report(best, tmp_path / "r.html", command=COMMAND)
    assert "lowest scores" not in english(tmp_path / "r.html")


def test_dots_that_look_alike_are_drawn_as_one_line() -> None:
    """900 pairs, a dot each, in three colours and two sizes: a line of its own for each took seconds."""
    pairs = [(left / 30, right / 30) for left in range(30) for right in range(30)]
    svg = scatter_svg([*pairs, pairs[1]], low=0, high=1, title="items")
    assert len(re.findall(r"<use [^>]*fill-opacity: 0.55", svg)) == 900
    assert svg.count('<g id="line2d_') < 50  # ticks and the grid among them


def test_only_differences_have_a_line_at_0_and_two_colours() -> None:
    """Ratings reach below 0, too: 100 to 0 between two models is a rating of 305 [-29, 695]."""
    rows = [[Point(value=-29.0, interval=(-80.0, 20.0))]]
    ratings = forest_svg(rows, low=-100, high=100, unit="", title="ratings")
    differences = forest_svg(rows, low=-100, high=100, unit="", title="differences", is_difference=True)
    assert ["var(--right)" in svg for svg in (ratings, differences)] == [False, True]
    assert ["var(--left)" in svg for svg in (ratings, differences)] == [True, False]
    assert differences.count('<g id="line2d_') == ratings.count('<g id="line2d_') + 1


def test_plots_are_valid_svg_in_the_pages_own_colours() -> None:
    rows = [[Point(value=50.0, interval=(40.0, 60.0)), Point(value=100.0, interval=None)]] * 3
    forest = forest_svg(rows, low=0, high=100, unit="%", title="scores")
    [difference, _] = _difference_forest([Point(value=0.0, interval=(0.0, 0.0))], room=1.25, title="difference")
    for svg in (forest, difference):
        assert ElementTree.fromstring(svg).get("role") == "img"
        assert "#010203" not in svg
    assert "var(--left)" in forest
    assert "var(--right)" in forest
    assert forest == forest_svg(rows, low=0, high=100, unit="%", title="scores")


def test_what_costs_nothing_is_drawn_whole_on_the_axis_of_its_cost() -> None:
    svg = cost_svg([(0.0, 50.0, (40.0, 60.0)), (2.0, 70.0, (60.0, 80.0))], title="cost")
    assert not re.search(r"clip-path[^>]*var\(--(?:left|right)\)|<g clip-path", svg)


def test_the_title_of_a_plot_is_text() -> None:
    [svg, _] = _difference_forest([Point(value=0.0, interval=None)], room=1.25, title='"scores" <b>')
    assert ElementTree.fromstring(svg).get("aria-label") == '"scores" <b>'


def test_rows_are_categories_lengths_and_languages_with_what_each_side_won(suite: Suite) -> None:
    from nomoat.judge.report import _forest_rows
    from nomoat.judge.slices import slices_of

    duel = run_duel(responder("a", 30), responder("b", 10), suite, stop_early=False)
    labels, points = _forest_rows((duel.left, duel.right), slices_of(suite.examples), 0.05)
    assert labels == [("all", "40: 20 to 0"), ("few", "2: 0 to 0"), ("영화", "19: 10 to 0"), ("음식", "19: 10 to 0")]
    assert [row[0].interval is None for row in points] == [False, True, False, False]  # a row with few examples gets no interval


@pytest.mark.parametrize("stop_early", [True, False])
def test_where_a_duel_may_stop_the_page_says_which_rows_have_intervals_for_that(
    suite: Suite, tmp_path: Path, stop_early: bool
) -> None:
    duel = run_duel(responder("a", 30), responder("b", 10), suite, RunSettings(concurrency=1), stop_early=stop_early)
    assert duel.verdict.num_examples < 40 if stop_early else duel.verdict.num_examples == 40
    write_duel_report(duel, tmp_path / "r.html", command=COMMAND)
    page = (tmp_path / "r.html").read_text(encoding="utf-8")
    said = "The interval of all items holds wherever the duel stops; those of the other rows are for a number of items fixed before."
    assert (said in in_one(page, "en")) == (str(twin(said)) in in_one(page, "ko")) == stop_early


def test_the_scores_of_every_row_are_there_in_figures_too(suite: Suite, tmp_path: Path) -> None:
    """A screen reader reads no picture."""
    kinds = {"few": "all", "영화": "영화", "음식": "음식"}  # a category that is called as a row of ours
    examples = tuple(dataclasses.replace(example, category=kinds[example.category]) for example in suite.examples)
    named = dataclasses.replace(suite, examples=examples)
    write_duel_report(run_duel(responder("a", 30), responder("b", 10), named, stop_early=False), tmp_path / "r.html", command=COMMAND)
    for language, whole in (("en", "all"), ("ko", "전체")):
        page = in_one((tmp_path / "r.html").read_text(encoding="utf-8"), language).replace("\u00a0", " ")
        (table,) = re.findall("(?s)<details>.*?</details>", page)
        cells = r"<tr><th>(.*?)</th><td>(.*?)</td><td>(.*?)</td></tr>"
        assert re.findall(cells, table) == [
            (whole, "75.0 % [59.8, 85.8]", "25.0 % [14.2, 40.2]"),
            ("all", "0.0 %", "0.0 %"),
            ("영화", "78.9 % [56.7, 91.5]", "26.3 % [11.8, 48.8]"),
            ("음식", "78.9 % [56.7, 91.5]", "26.3 % [11.8, 48.8]"),
        ]


def test_names_show_what_would_turn_their_letters_around_and_questions_and_answers_do_not(suite: Suite, tmp_path: Path) -> None:
    turn, shown = "\u202e", "⟨U+202E⟩"
    asked = [(f"question {turn}{at}", f"kind{turn}") for at in range(4)]
    examples = tuple(
        Example(id=f"id{turn}{at}", messages=(Message(role="user", content=text),), target=f"t{turn}", category=kind)
        for at, (text, kind) in enumerate(asked)
    )
    turned = dataclasses.replace(suite, name=f"suite{turn}", source=f"source{turn}", examples=examples)
    answers = {text: f"t{turn}" for text, _ in asked}
    models = [Responder(f"{name}{turn}", FakeEngine(answers=answers if name == "a" else {})) for name in "abc"]
    write_duel_report(run_duel(*models[:2], turned, stop_early=False), tmp_path / "duel.html", command=f"nomoat duel a{turn}")
    write_duels_report(run_duels(*models[:2], [turned] * 2, stop_early=False), tmp_path / "duels.html", command=COMMAND)
    write_evaluation_report(run_suite(models[1], turned), tmp_path / "evaluation.html", command=COMMAND)
    write_table_report(run_table(models, turned), tmp_path / "table.html", command=COMMAND)
    for path in tmp_path.glob("*.html"):
        page = path.read_text(encoding="utf-8")
        texts = re.findall('<p class="text"[^>]*>(.*?)</p>', page)
        assert shown not in "".join(texts) and (path.stem == "table") == (turn not in "".join(texts))
        assert turn not in re.sub('<p class="text"[^>]*>.*?</p>', "", page), path.name
        assert page.count(shown) > 5


def test_parts_of_few_groups_have_no_interval(suite: Suite) -> None:
    """20 examples of a category in 4 groups are 4 pieces of evidence; in 10 groups of 2 their interval is one of groups."""
    for size, is_known in ((5, False), (2, True)):
        examples = tuple(
            dataclasses.replace(example, category="ab"[at % 2], group=f"{at % 2}-{at // 2 // size}")
            for at, example in enumerate(suite.examples)
        )
        evaluation = run_suite(responder("one", 30), dataclasses.replace(suite, examples=examples))
        rows = slices.slices_of(examples)
        _, points = report._forest_rows([evaluation], rows, 0.05)
        part = [evaluation.outcomes[at] for at in rows[1].positions]
        low, high = score_interval("exact", [outcome.score for outcome in part], groups=groups_of(part))
        assert rows[1].name == "a"
        assert points[1][0].interval == ((100 * low, 100 * high) if is_known else None)


def test_duel_that_stopped_shows_its_confidence_sequence(suite: Suite, tmp_path: Path) -> None:
    duel = run_duel(responder("a", 38), responder("b", 1), suite, RunSettings(concurrency=4, seed=2), rules=Rules(rope=3))
    assert duel.verdict.num_examples < 40
    write_duel_report(duel, tmp_path / "r.html", command=COMMAND)
    page = english(tmp_path / "r.html")
    assert "<h2>While it went on</h2>" in page
    assert f"{duel.verdict.num_examples} of 40 items" in page
    assert ">points, left minus right<" in page and ">items asked<" in page
    last = duel.verdict.looks[-1]
    assert f" After {last.num_examples} items: {100 * last.low:.1f} to {100 * last.high:.1f}." in page
    assert "cost of 1,000 answers" in page
    assert "<tr><th>price</th><td>runs here: electricity is not counted</td><td>" in page
    assert "What quality costs" not in page


def test_what_counts_as_equal_is_said_in_the_points_of_the_scale(suite: Suite, tmp_path: Path) -> None:
    """12 per cent of a judge's 0 to 10 are 1.2 points."""
    duel = run_duel(responder("a", 20), responder("b", 20), suite, stop_early=False)
    left, right = (
        dataclasses.replace(
            part,
            suite=dataclasses.replace(suite, metric="review"),
            outcomes=tuple(
                dataclasses.replace(outcome, score=7.0 + 0.1 * (at % 3 == bump)) for at, outcome in enumerate(part.outcomes)
            ),
        )
        for bump, part in enumerate((duel.left, duel.right))
    )
    reviewed = Duel(verdict=compare(left, right, rules=Rules(rope=12)), left=left, right=right)
    assert reviewed.verdict.winner == "equal"
    assert reviewed.verdict.sentence.endswith(", less than the 1.2 that count.")
    write_duel_report(reviewed, tmp_path / "r.html", command=COMMAND)
    assert "<tr><th>counts as equal</th><td>within 1.2 points</td></tr>" in english(tmp_path / "r.html")
    shares = dataclasses.replace(duel, verdict=dataclasses.replace(duel.verdict, rope=2.0))
    write_duel_report(shares, tmp_path / "shares.html", command=COMMAND)
    page = (tmp_path / "shares.html").read_text(encoding="utf-8")
    assert '<span lang="en">within 2 percentage points</span><span lang="ko">2 %p 이내</span>' in page


def test_report_of_paid_answers_shows_what_quality_costs(suite: Suite, tmp_path: Path) -> None:
    duel = run_duel(responder("a", 30), responder("b", 10), suite, stop_early=False)
    sides = [
        dataclasses.replace(side, cost_usd_per_1000=cost, cost_usd=cost / 25)
        for side, cost in ((duel.left.side, 0.002), (duel.right.side, 5))
    ]
    left, right = (dataclasses.replace(part, side=side) for part, side in zip((duel.left, duel.right), sides, strict=True))
    verdict = dataclasses.replace(duel.verdict, left=sides[0], right=sides[1])
    write_duel_report(Duel(verdict=verdict, left=left, right=right), tmp_path / "r.html", command=COMMAND)
    page = english(tmp_path / "r.html")
    assert "<h2>What quality costs</h2>" in page
    assert "<td>$0.002</td><td>$5.00</td>" in page
    assert "<td>$0.00008</td><td>$0.20</td>" in page


def test_square_counts_right_and_wrong_together(duel_page: str) -> None:
    square = duel_page[duel_page.index("Right and wrong, together") :]
    assert [int(count) for count in re.findall(r"<td[^>]*>(\d+)</td>", square)[:4]] == [10, 20, 0, 10]


def test_leaderboard_report_names_every_model_in_order(suite: Suite, tmp_path: Path) -> None:
    table = run_table([responder("나쁨", 5), responder("좋음", 36), responder("mid", 20)], suite)
    write_table_report(table, tmp_path / "t.html", command=COMMAND)
    page = english(tmp_path / "t.html")
    assert "<title>한글 &amp; more: 좋음, mid, 나쁨</title>" in page
    assert page.index("1. 좋음") < page.index("2. mid") < page.index("3. 나쁨")
    assert [len(re.findall(f'<td data-label="{fact}">', page)) for fact in ("cost in total", "bytes sent out")] == [3, 3]
    assert not re.search(r"""(src|href)\s*=\s*["'](?!#)|<link""", page)
    assert f"<pre>{COMMAND}</pre>" in page


def test_labels_of_a_plot_show_the_end_of_a_long_name_and_the_whole_of_it_when_pointed_at(suite: Suite, tmp_path: Path) -> None:
    names = [f'http://127.0.0.1:18801/v1#model-{at}"<b>' for at in range(3)]
    table = run_table([responder(name, count) for name, count in zip(names, (9, 6, 3), strict=True)], suite)
    write_table_report(table, tmp_path / "report.html", command="-")
    page = english(tmp_path / "report.html")
    for at, name in enumerate(names):
        assert f'<span title="{escape(f"{at + 1}. {name}")}"><i>{at + 1}. http://127' in page
        assert f"</i><b>{escape(name[-16:])}</b></span>" in page


def test_leaderboard_report_of_models_that_always_tied_draws_one_rating(suite: Suite, tmp_path: Path) -> None:
    table = run_table([responder("one", 20), responder("same", 20)], suite)
    write_table_report(table, tmp_path / "t.html", command=COMMAND)
    one = table.leaderboard.standings[0]
    assert one.rating_low < 1000 < one.rating_high
    assert f"1,000 [{one.rating_low:,.0f}, {one.rating_high:,.0f}]" in english(tmp_path / "t.html").replace("\u00a0", " ")


def test_every_plot_is_there_for_a_wide_page_and_for_a_telephone(duel_page: str) -> None:
    assert duel_page.count('<div class="wide"><svg') == duel_page.count('<div class="narrow"><svg') == 2
    identifiers = re.findall(r'\bid="([^"]+)"', duel_page)
    assert len(identifiers) > 10


def test_interval_is_not_broken_at_the_end_of_a_line(duel_page: str) -> None:
    assert "<td>75.0 % [59.8,\u00a085.8]</td>" in duel_page


def test_in_korean_a_page_has_no_english_but_names_and_units(suite: Suite, tmp_path: Path) -> None:
    """Of each kind of page: all that it shows but questions and answers."""
    names = {
        *COMMAND.split(),
        "ms",
        "UTC",
        "English",
        "RouteLLM",
        "Bradley",
        "Terry",
        "Elo",
        "Holm",
        "confidence",
        "sequence",
        "alpha",
    }
    texts = '<title>.*?</title>|<pre>.*?</pre>|<p class="text"[^>]*>.*?</p>|<style.*?</style>|<script>.*?</script>'
    data = r"cc-by-4\.0|abc123|fake-\w+|\b(?:few|easy|def|here)\b"
    left, right, third = (responder(name, count) for name, count in (("l", 30), ("r", 10), ("m", 20)))
    easy = dataclasses.replace(suite, name="easy", sha256="def", examples=suite.examples[:15])
    told = dataclasses.replace(suite, source="", notes=("scores are RouteLLM's; the answers themselves were not kept",))
    write_duel_report(run_duel(left, right, told, RunSettings(limit=30), rules=Rules(rope=3)), tmp_path / "duel.html", command=COMMAND)
    write_duels_report(run_duels(left, right, [suite, easy], stop_early=False), tmp_path / "duels.html", command=COMMAND)
    write_table_report(run_table([left, right, third], suite), tmp_path / "table.html", command=COMMAND)
    write_evaluation_report(run_suite(right, suite), tmp_path / "evaluation.html", command=COMMAND)
    for path in tmp_path.glob("*.html"):
        page = in_one(path.read_text(encoding="utf-8"), "ko")
        shown = html.unescape(re.sub(rf"(?s){texts}|{data}|<!--.*?-->|<[^>]*>", " ", page))
        assert set(re.findall("[A-Za-z]{2,}", shown)) <= names, path.name
        assert "문항" in shown


def test_licences_that_have_no_name_are_in_korean_beside_those_that_have() -> None:
    assert {*report.LICENCE_TITLES} <= {terms.title for terms in licences().values()}
    for english, korean in (
        ("yes (Apache License 2.0, your own data)", "가능 (Apache License 2.0, 직접 준비한 데이터)"),
        ("yes, if (your own data, Gemma Terms of Use)", "조건부 가능 (직접 준비한 데이터, Gemma Terms of Use)"),
        ("yes, if, with use restrictions (Gemma Terms of Use)", "조건부 가능(용도 제한 있음) (Gemma Terms of Use)"),
        ("unknown (terms not known)", "알 수 없음 (조건을 알 수 없음)"),
        ("no (terms of your own data)", "불가 (terms of your own data)"),
        (
            "local: yes (your own data); cloud: unknown (terms not known)",
            "이 컴퓨터: 가능 (직접 준비한 데이터); 클라우드: 알 수 없음 (조건을 알 수 없음)",
        ),
    ):
        assert str(report._licence(english)) == f'<span lang="en">{english}</span><span lang="ko">{korean}</span>'


def test_data_that_is_a_word_of_the_reports_stays_as_it_is(suite: Suite, tmp_path: Path) -> None:
    """Names of categories, models and suites, licences, sources and labels."""
    kinds = ("no", "all", "right", "")
    examples = tuple(
        dataclasses.replace(example, category=kinds[at % 4], target="yes" if at < 30 else "no")
        for at, example in enumerate(suite.examples)
    )
    named = dataclasses.replace(suite, name="judge", source="not known", licence="no", examples=examples)
    answers = [{example.messages[-1].content: "yes" if at < most else "no" for at, example in enumerate(examples)} for most in (40, 0)]
    models = [
        Responder(name, FakeEngine(answers=answers[at]), licence=f"yes, if ({name})") for at, name in enumerate(("model", "unknown"))
    ]
    write_duel_report(run_duel(*models, named, stop_early=False), tmp_path / "duel.html", command=COMMAND)
    page = in_one((tmp_path / "duel.html").read_text(encoding="utf-8"), "ko")
    rows = re.findall(r'<div><span title="([^"]*)"', page)
    assert rows[:6] == ["전체", "(없음)", "all", "no", "right", "점수 차"]
    assert "<tr><th>출처</th><td>not known</td></tr>" in page and "<tr><th>데이터의 라이선스</th><td>no</td></tr>" in page
    assert "<td>조건부 가능 (model)</td><td>조건부 가능 (unknown)</td>" in page
    assert "judge, 다이제스트 " in page and "정답: no" in page and ">unknown</span>" in page
    write_duels_report(run_duels(*models, [named, named], stop_early=False), tmp_path / "duels.html", command=COMMAND)
    assert '<td class="break" data-label="ahead">model</td>' in in_one((tmp_path / "duels.html").read_text(encoding="utf-8"), "ko")


@needs_browser
def test_the_browsers_language_chooses_and_the_reader_may(duel_page: str, tmp_path: Path) -> None:
    from selenium.webdriver.common.by import By

    for language, before, after in (("ko-KR", "다시 해 보려면", "To do it again"), ("en-US", "To do it again", "다시 해 보려면")):
        browser = chrome(language)
        try:
            browser.get((tmp_path / "new" / "report.html").as_uri())
            for title in (before, after):
                assert [heading.text for heading in browser.find_elements(By.TAG_NAME, "h2")][-1] == title
                shown = {"다시 해 보려면": "ko", "To do it again": "en"}[title]
                assert browser.find_element(By.TAG_NAME, "html").get_attribute("lang") == shown
                browser.find_element(By.CSS_SELECTOR, "[name=language]:not(:checked)").click()
        finally:
            browser.quit()


def test_a_question_and_an_answer_say_their_language_and_long_ones_can_be_scrolled_by_keyboard(suite: Suite, tmp_path: Path) -> None:
    """Nothing is said of letters that many languages have."""
    asked = {"뭐지": "なに", "Was ist das?": "这是什么", "일": "1\n" * 8, "둘": "b" * 151}
    examples = tuple(Example(id=text, messages=(Message(role="user", content=text),), target="-") for text in asked)
    evaluation = run_suite(Responder("m", FakeEngine(answers=asked)), dataclasses.replace(suite, examples=examples))
    write_evaluation_report(evaluation, tmp_path / "r.html", command=COMMAND)
    found = re.findall(r'<p class="text" lang="(\w*)"( tabindex="0")?>', english(tmp_path / "r.html"))
    short = [language for language, scrolled in found if not scrolled]
    assert short == ["ko", "ja", "", "zh", "ko", "ko"] and found.count(("", ' tabindex="0"')) == 2


def test_tables_have_titles_of_their_rows_and_no_empty_ones(suite: Suite, duel_page: str, tmp_path: Path) -> None:
    one, two = responder("one", 20), responder("two", 10)
    write_table_report(run_table([one, two], suite), tmp_path / "table.html", command=COMMAND)
    write_duels_report(run_duels(one, two, [suite, suite], stop_early=False), tmp_path / "duels.html", command=COMMAND)
    table, duels = english(tmp_path / "table.html"), english(tmp_path / "duels.html")
    assert "<th></th>" not in table + duels + duel_page
    assert re.findall('<th scope="row" class="title break">([^<]*)', table) == ["one", "two"]
    assert re.findall('<th scope="row" class="title break">([^<]*)', duels) == ["한글 &amp; more"] * 2


@needs_browser
def test_a_report_is_whole_on_a_small_telephone_on_paper_and_in_the_colours_of_the_reader(duel_page: str, tmp_path: Path) -> None:
    browser = chrome("en-US")

    def emulate(width: int, medium: str = "screen", **features: str) -> None:
        set_viewport(browser, width, 640)
        given = [{"name": name.replace("_", "-"), "value": value} for name, value in features.items()]
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": medium, "features": given})

    try:
        browser.get((tmp_path / "new" / "report.html").as_uri())
        wider = "return [...document.querySelectorAll('.card')].filter((one) => one.scrollWidth > one.clientWidth).length"
        emulate(320)
        assert browser.execute_script(wider) == 0
        grounds = """return [[".legend .left", "::before"], [".legend .right", "::before"], [".bar .won"]].map(([where, part]) => {
            const style = getComputedStyle(document.querySelector(where), part);
            return [style.backgroundColor, style.printColorAdjust ?? style.webkitPrintColorAdjust];
        })"""
        coloured = [["rgb(47, 111, 222)", "exact"], ["rgb(217, 115, 13)", "exact"], ["rgb(47, 111, 222)", "exact"]]
        emulate(980, forced_colors="active", prefers_color_scheme="light")
        assert browser.execute_script(grounds) == coloured
        emulate(703, "print", prefers_color_scheme="dark")  # A4 but for its margins
        assert browser.execute_script(grounds) == coloured
        shown = "return ['.wide', '.narrow', 'details table'].map((one) => document.querySelector(one).checkVisibility())"
        assert browser.execute_script(shown) == [True, False, True]
        assert browser.execute_script(wider) == 0
    finally:
        browser.quit()


@needs_browser
def test_digits_on_the_colours_of_the_sides_are_dark_enough_to_be_read(suite: Suite, tmp_path: Path) -> None:
    """At least 4.5 to 1: https://www.w3.org/TR/WCAG22/#contrast-minimum."""
    models = [
        Responder(name, FakeEngine(answers={f"{HOSTILE} {at}": "예" if at in right else "no" for at in range(40)}))
        for name, right in (("a", range(25)), ("b", range(10, 32)))
    ]
    write_duel_report(run_duel(*models, suite, stop_early=False), tmp_path / "r.html", command=COMMAND)
    contrasts = """const lights = (colour) => {
            const linear = colour.match(/\\d+/g).slice(0, 3).map((one) => Math.pow((one / 255 + 0.055) / 1.055, 2.4));
            return 0.05 + 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2];
        };
        const behind = (place) => {
            const { backgroundColor } = getComputedStyle(place);
            return backgroundColor === "rgba(0, 0, 0, 0)" ? behind(place.parentElement) : backgroundColor;
        };
        return [...document.querySelectorAll(".bar span, .square td, .small, summary")].map((place) => {
            const [ink, ground] = [lights(getComputedStyle(place).color), lights(behind(place))];
            return Math.max(ink, ground) / Math.min(ink, ground);
        })"""
    browser = chrome("en-US")
    try:
        browser.get((tmp_path / "r.html").as_uri())
        for scheme in ("light", "dark"):
            browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": scheme}]})
            found = browser.execute_script(contrasts)
            assert len(found) >= 3 + 4 + 2 and min(found) >= 4.5, scheme
    finally:
        browser.quit()


def test_report_of_the_vicuna_replay_holds_the_blogs_ratio(vicuna_folder: Path, tmp_path: Path) -> None:
    write_duel_report(run_duel("stored:vicuna80/vicuna-13b", "stored:vicuna80/gpt35"), tmp_path / "r.html", command=COMMAND)
    assert "638.0 / 693.0 = 92.06 % [" in english(tmp_path / "r.html")


def test_figures_near_an_end_of_the_scale_are_not_rounded_to_it() -> None:
    """20,000 items, 12 apart: one digit would say 100.0 % of both, and a lead of [0.0, 0.1]."""
    found = measured("exact", 20_000, 19_988)
    assert wording.summary_of(found) == (
        "`l` (100.000 % [99.981, 100.000]) is ahead of `r` (99.9 % [99.9, 100.0]) on `s`, 20,000 items: "
        "by 0.060 points [0.034, 0.105], p = 0.0005."
    )
    assert wording.render_measure(found.measures[2]) == "0 of 20,000 = 0.000 % [0.000, 0.019]"
    assert twin(wording.render_difference(found)) == "+0.060 %p [+0.034, +0.105]"
    estimates = ((0.9999, 0.9998, 1.0), (0.7, 0.5, 0.9998), (0.0001, 0.0, 0.0002))
    assert [wording.render_estimate("exact", *estimate) for estimate in estimates] == [
        "99.990 % [99.980, 100.000]",
        "70.0 % [50.0, 100.0]",
        "0.010 % [0.000, 0.020]",
    ]
    assert [wording.render_score("exact", share) for share in (0.0, 0.0004, 0.9998, 1 - 1e-12)] == [
        "0.0 %",
        "0.040 %",
        "99.980 %",
        "100.0 %",
    ]
    assert [wording.render_score("grade", grade) for grade in (1.0, 9.997, 9.9)] == ["1.00", "9.9970", "9.90"]
    assert twin("+0.0031 points [+0.0010, +0.0100]") == "+0.0031점 [+0.0010, +0.0100]"
    assert agreement.share([True] * 999 + [False], [str(at) for at in range(1_000)]) == "999 of 1,000 = 99.90 % [99.44, 99.98]"


def measured(metric: str, num_items: int, num_right: int) -> Verdict:
    examples = tuple(Example(id=str(at), messages=(Message(role="user", content=f"{at}"),), target="a") for at in range(num_items))
    suite = Suite(name="s", metric=metric, examples=examples, sha256="")
    sides = []
    for model, right in (("l", num_items), ("r", num_right)):
        scored = [Outcome(suite="s", example_id=e.id, model=model, answer="", score=float(int(e.id) < right)) for e in examples]
        side = side_of(model, "unknown", metric, scored, facts={})
        sides.append(Evaluation(suite=suite, side=side, outcomes=tuple(scored)))
    return compare(*sides)


@pytest.mark.parametrize(
    ("p_value", "alpha", "said"),
    [
        (0.04999, 0.05, "p = 0.04999"), (0.05, 0.05, "p = 0.0500"), (0.05001, 0.05, "p = 0.0500"), (0.0207, 0.05, "p = 0.0207"),
        (0.02499, 0.025, "p = 0.02499"), (0.012499, 0.0125, "p = 0.012499"), (0.016666, 0.05 / 3, "p = 0.016666"),
        (0.1496, 0.15, "p = 0.1496"), (0.1496, 0.05, "p = 0.15"), (0.0099999, 0.01, "p = 0.0099999"), (0.25, 0.05, "p = 0.25"),
        (0.996, 0.05, "p = 0.996"), (1.0, 0.05, "p = 1.00"), (0.00001, 0.05, "p < 0.0001"), (0.00001, 0.00001, "p < 0.0001"),
    ],
)  # fmt: skip
def test_a_p_value_is_not_rounded_up_to_an_alpha_that_it_is_below(p_value: float, alpha: float, said: str) -> None:
    assert wording.render_p_value(p_value, alpha) == said
