"""Leaderboards: the order, what lies between the rows, and what was never compared."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from quiz import knowing, quiz

from nomoat.engine.fake import FakeEngine
from nomoat.errors import UnsupportedError, UsageError
from nomoat.judge.suite import Suite
from nomoat.judge.table import run_table
from nomoat.judge.verdict import Rules, score_interval
from nomoat.responder import Responder

N = 120


@pytest.fixture
def suite() -> Suite:
    return quiz(N)


def test_leaderboard_orders_models_and_says_whom_it_cannot_tell_from_the_first(suite: Suite) -> None:
    board = run_table([knowing("low", range(20)), knowing("top", range(100)), knowing("near", range(3, 100))], suite).leaderboard
    assert [row.side.model for row in board.standings] == ["top", "near", "low"]
    top, near, low = board.standings
    assert top.rating > near.rating > low.rating
    assert sum(row.rating for row in board.standings) == pytest.approx(3000)
    assert (top.side.score_low, top.side.score_high) == score_interval("exact", [1.0] * 100 + [0.0] * 20)
    assert (top.difference, top.p_value) == (None, None)
    assert near.difference == pytest.approx(-3 / 120)
    assert near.p_value == pytest.approx(0.25)
    assert low.p_value is not None
    assert low.p_value < 1e-9
    assert board.sentence == "`top` leads 1 other model on `quiz`, 120 items; too close to call between it and `near`."


def test_p_values_are_corrected_for_all_pairs(suite: Suite) -> None:
    """6 against 0, twice: p = 2 / 2**6 = 0.031 each, times three pairs, the one of the two behind included. Corrected for the
    rows alone, one of ten equal models was worse than the first in 8 of 100 simulated tables of 200 items, and so in 1 of 100.
    """
    models = [knowing("top", range(60)), knowing("b", range(54)), knowing("c", range(6, 60))]
    board = run_table(models, suite).leaderboard
    assert [row.p_value for row in board.standings[1:]] == [3 * 2 / 2**6, 3 * 2 / 2**6]
    assert board.sentence == (
        "Too close to call on `quiz`, 120 items: no model leads; `top` is not known to be better than `b` and `c`."
    )


def test_every_pair_has_its_p_value_before_and_after_the_correction(suite: Suite) -> None:
    models = [knowing("top", range(60)), knowing("b", range(54)), knowing("c", range(6, 60))]
    pairs = run_table(models, suite).leaderboard.pairs
    assert [(pair.left, pair.right) for pair in pairs] == [("top", "b"), ("top", "c"), ("b", "c")]
    assert [pair.p_value for pair in pairs] == [2 / 2**6, 2 / 2**6, 1.0]
    assert [pair.p_value_corrected for pair in pairs] == [3 * 2 / 2**6, 3 * 2 / 2**6, 1.0]
    assert pairs[0].difference == pytest.approx(6 / 120)
    assert pairs[0].difference_low < pairs[0].difference < pairs[0].difference_high


@pytest.mark.parametrize("wins", [0, 3], ids=["all tied", "all won"])
def test_ratings_of_models_of_which_every_item_says_the_same_have_an_interval(suite: Suite, wins: int) -> None:
    few = dataclasses.replace(suite, examples=suite.examples[:3])
    board = run_table([knowing("one", range(wins)), knowing("other", range(0))], few).leaderboard
    for row in board.standings:
        assert row.rating_low < row.rating < row.rating_high
    assert board.sentence.startswith("Too close to call on `quiz`, 3 items: no model leads; ")


def test_a_model_with_a_higher_score_that_won_fewer_items_is_no_follower(suite: Suite) -> None:
    """`steady` wins 90 items by a little, `bold` the other 30 by everything: an F1 of 2/3 against 1/2, and of 0 against 1."""
    targets = {f"question {at}": "p q" if at < 90 else "c" for at in range(N)}
    steady = {text: "p q x x" if target == "p q" else "x" for text, target in targets.items()}
    bold = {text: "p x" if target == "p q" else "c" for text, target in targets.items()}
    graded = tuple(dataclasses.replace(example, target=targets[example.messages[-1].content]) for example in suite.examples)
    models = [Responder(name, FakeEngine(answers=answers)) for name, answers in (("bold", bold), ("steady", steady))]
    board = run_table(models, dataclasses.replace(suite, metric="f1", examples=graded)).leaderboard
    leader, other = board.standings
    assert (leader.side.model, other.side.model) == ("steady", "bold")
    assert other.difference_low is not None and other.difference_low > 0
    assert board.sentence == (
        "No model leads on `quiz`, 120 items; `bold` has a higher score than `steady`, and won fewer items, which the order goes by."
    )
    last = Responder("last", FakeEngine(answers=dict.fromkeys(targets, "x")))
    three = run_table([*models, last], dataclasses.replace(suite, metric="f1", examples=graded)).leaderboard
    assert three.sentence == (
        "`steady` leads 1 other model on `quiz`, 120 items; `bold` has a higher score, and won fewer items, which the order goes by."
    )


def test_scores_keep_to_the_tables_alpha(suite: Suite) -> None:
    board = run_table([knowing("top", range(100)), knowing("low", range(20))], suite, rules=Rules(alpha=0.01)).leaderboard
    side = board.standings[0].side
    assert (side.score_low, side.score_high) == score_interval("exact", [1.0] * 100 + [0.0] * 20, alpha=0.01)


def test_items_of_one_group_are_one_piece_of_evidence_for_scores_and_ratings(suite: Suite) -> None:
    """30 items, and each of them four times, in a group: ratings are known no better by the second, and scores less well than by
    120 items.
    """
    known = {"top": range(100), "low": range(20, 80)}
    models = [knowing(name, right) for name, right in known.items()]
    groups = [str(at // 4) for at in range(N)]
    fourfold = tuple(
        dataclasses.replace(example, messages=suite.examples[at - at % 4].messages, group=groups[at])
        for at, example in enumerate(suite.examples)
    )
    once, again = (
        run_table(models, dataclasses.replace(suite, examples=examples)).leaderboard.standings
        for examples in (suite.examples[::4], fourfold)
    )
    for few, many in zip(once, again, strict=True):
        scores = [float(at - at % 4 in known[many.side.model]) for at in range(N)]
        assert (many.side.score_low, many.side.score_high) == score_interval("exact", scores, groups=groups)
        assert many.rating_high - many.rating_low == pytest.approx(few.rating_high - few.rating_low, rel=0.1)


def test_table_needs_different_models(suite: Suite) -> None:
    for names in ([], ["fake:"], ["fake:", "fake:"]):
        with pytest.raises(UsageError, match="a table needs at least two different models") as caught:
            run_table(names, suite)
        assert caught.value.hint == "name two models or more, each once"


@pytest.mark.data
def test_vicunas_reviews_make_one_table_of_the_blogs_five_systems(vicuna_folder: Path) -> None:
    names = [f"stored:vicuna80/{name}" for name in ("llama-13b", "alpaca-13b", "bard", "gpt35", "vicuna-13b")]
    board = run_table(names).leaderboard
    assert [row.side.model.rpartition("/")[2] for row in board.standings] == ["gpt35", "vicuna-13b", "bard", "alpaca-13b", "llama-13b"]
    assert board.notes[0] == "5 of 10 pairs were reviewed; a score is the mean over a model's pairs"
    assert [row.p_value is None for row in board.standings] == [True, False, True, True, True]  # nobody reviewed Bard against ChatGPT
    assert {*board.standings[0].side.facts} == {"digest"}  # a total is of one pair's reviews, and a score of all
    with pytest.raises(UnsupportedError, match="do not connect"):
        run_table(["stored:vicuna80/bard", "stored:vicuna80/gpt35"])
