"""Models as judges: of pairs in both orders, of single answers, and measured against labels first."""

from __future__ import annotations

import dataclasses
import functools
import importlib.util
import json
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from homes import be_at_home_in
from misbehaving import Server, counted, events, piece, priced, thinking
from quiz import quiz

from nomoat.asking.spending import Spending
from nomoat.asking.store import AnswerStore
from nomoat.engine.fake import FakeEngine
from nomoat.errors import BudgetReachedError, ContextExceededError, DataError, RemoteError, UnsupportedError, UsageError
from nomoat.judge import agreement, judge_prompts
from nomoat.judge.judged import run_graded, run_judged_duel, run_judged_duels, run_judged_table
from nomoat.judge.model_judge import Judge, Pair, PairVerdict
from nomoat.judge.report import write_duel_report
from nomoat.judge.run import run_suite
from nomoat.judge.settings import RunSettings
from nomoat.judge.suite import Suite
from nomoat.records import Chunk, ContinuationScore, Example, Message, Request, Usage
from nomoat.responder import Responder

BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "judge_agreement.py"
suite_of = functools.partial(quiz, metric="judge", name="open", target="", max_new_tokens=64)


class Scripted(FakeEngine):
    """A judge that writes what `verdict` makes of the prompt, and gives no likelihoods."""

    def __init__(self, verdict: Callable[[str], str]) -> None:
        super().__init__(context_tokens=100_000)
        self.verdict = verdict
        self.asked: list[str] = []

    def generate(self, request: Request) -> Iterator[Chunk]:
        prompt = request.messages[-1].content
        self.asked.append(prompt)
        usage = Usage(prompt_tokens=1, completion_tokens=1, prefill_seconds=0.0, decode_seconds=0.0)
        yield Chunk(text=self.verdict(prompt), finish_reason="stop", usage=usage)

    def score(self, request: Request, continuations: Sequence[str]) -> list[ContinuationScore]:
        raise UnsupportedError("writes only")


def section(prompt: str, title: str) -> str:
    return prompt.partition(f"<<< {title} >>>")[2].partition(f"<<< End: {title} >>>")[0].strip()


def likes_good(prompt: str) -> str:
    """Prefers the answer that says good; ties where both or neither do."""
    one, other = ("good" in section(prompt, f"Assistant {name}") for name in "AB")
    return "I looked at both. " + ("[[C]]" if one == other else "[[A]]" if one else "[[B]]")


def side(name: str, good: Sequence[int], num_examples: int) -> Responder:
    answers = {f"question {at}": f"a good answer {name}" if at in good else f"an answer {name}" for at in range(num_examples)}
    return Responder(name, FakeEngine(answers=answers))


def asked_message(text: str) -> tuple[Message, ...]:
    return (Message(role="user", content="Why?"), Message(role="assistant", content=text))


# ---------------------------------------------------------------- prompts and verdicts
def test_prompt_shows_the_question_once_and_each_answer_in_its_place() -> None:
    request = judge_prompts.pair_request(asked_message("because"), asked_message("그냥"), writes=True)
    prompt = request.messages[0].content
    assert (section(prompt, "The task"), section(prompt, "Assistant A"), section(prompt, "Assistant B")) == ("Why?", "because", "그냥")
    assert prompt.count("[[C]] if they are equally good") == 2


def test_prompt_of_a_conversation_shows_each_sides_own_and_asks_for_the_last_answer() -> None:
    first = asked_message("one"), asked_message("two")
    last = (Message(role="user", content="And?"), Message(role="assistant", content="so"))
    prompt = judge_prompts.pair_request((*first[0], *last), (*first[1], *last), reference="42", writes=True).messages[0].content
    assert section(prompt, "The task") == "Why?"
    assert section(prompt, "Assistant B") == "(assistant) two\n\n(user) And?\n\n(assistant) so"
    assert section(prompt, "Reference answer") == "42"
    assert judge_prompts.LAST_TURN.strip() in prompt


@pytest.mark.parametrize(
    ("text", "verdict"),
    [
        ("Both are fine. [[C]]", "C"), ("[[A]] is tempting, but [[B]]", "B"), ("A wins", None), ("[[D]]", None), ("", None),
        ("<think>[[B]]?</think>[[A]]", "A"), ("<think>If A is right it is [[A]], but", None), ("<think>[[B]]</think>Neither.", None),
    ],
)  # fmt: skip
def test_last_verdict_counts(text: str, verdict: str | None) -> None:
    assert judge_prompts.parse_verdict(text) == verdict


@pytest.mark.parametrize(
    ("text", "grade"),
    [
        ("Rating: [[7]]", 7.0), ("[[5]] no, [[8.5]]", 8.5), ("[[11]]", None), ("7", None),
        ("<think>[[3]]?</think>[[4]]", 4.0), ("<think>perhaps [[3]], or", None),
    ],
)  # fmt: skip
def test_last_grade_counts(text: str, grade: float | None) -> None:
    assert judge_prompts.parse_grade(text) == grade


@pytest.mark.parametrize(
    ("first", "second", "score"),
    [("A", "B", 1.0), ("B", "A", 0.0), ("A", "A", 0.5), ("B", "B", 0.5), ("C", "C", 0.5), ("A", "C", 0.5), (None, "B", 0.5)],
)
def test_pair_is_won_in_both_orders_or_not_at_all(first: str | None, second: str | None, score: float) -> None:
    assert PairVerdict(first=first, second=second).score == score


# ---------------------------------------------------------------- duels and grades
def test_judged_duel_counts_wins_in_both_orders_and_names_the_judge() -> None:
    """12 of 20 good against none: 12 wins, 8 ties; a sign test of 12 to 0 gives p = 0.0005."""
    judge = Responder("judge", Scripted(likes_good))
    duel = run_judged_duel(side("left", range(12), 20), side("right", [], 20), suite_of(20), judge)
    verdict = duel.verdict
    assert (verdict.metric, verdict.wins, verdict.ties, verdict.losses, verdict.winner) == ("judged", 12, 8, 0, "left")
    assert (verdict.left.score, verdict.right.score) == (0.8, 0.2)
    assert verdict.notes[0] == (
        "judged by `judge`, by what it wrote; at a cost of $0.00. A judge is a model: it has tastes of its own"
    )
    assert "both orders gave the same verdict in 20 of 20 = 100 % [84, 100]" in verdict.notes[1]
    assert "this judge's agreement with labels was never measured: `--judge-check vicuna80` (in Python: `check`) does" in verdict.notes


def test_report_of_a_judged_duel_has_the_bar_and_no_plot_of_three_points(tmp_path: Path) -> None:
    judge = Responder("judge", Scripted(likes_good))
    duel = run_judged_duel(side("left", range(12), 20), side("right", [], 20), suite_of(20), judge)
    write_duel_report(duel, tmp_path / "r.html", command="nomoat duel")
    page = (tmp_path / "r.html").read_text(encoding="utf-8")
    assert "The difference, left minus right" in page
    assert "Item by item" not in page


def test_judged_table_rates_each_model_by_the_pairs_it_won() -> None:
    """Good in 18, 12 and 0 of 20: each better one wins where it alone is good, and all else is a tie."""
    engine = Scripted(likes_good)
    models = [side("none", [], 20), side("most", range(18), 20), side("some", range(12), 20)]
    table = run_judged_table(models, suite_of(20), Responder("judge", engine))
    board = table.leaderboard
    assert [row.side.model for row in board.standings] == ["most", "some", "none"]
    most, some, none = board.standings
    assert [row.side.score for row in board.standings] == pytest.approx([0.5 * (0.65 + 0.95), 0.5 * (0.35 + 0.8), 0.5 * (0.05 + 0.2)])
    assert most.rating > some.rating > none.rating
    assert (some.difference, none.difference) == (pytest.approx(0.35 - 0.65), pytest.approx(0.05 - 0.95))
    assert none.p_value is not None and none.p_value < 1e-3
    assert (board.metric, board.num_examples, most.side.facts["judge"]) == ("judged", 20, "judge")
    assert "both orders gave the same verdict in 60 of 60 = 100 % [85, 100]" in board.notes[1]
    assert len(engine.asked) == 3 * 20 * 2
    with pytest.raises(UsageError, match="at least two different models"):
        run_judged_table(models[:1], suite_of(20), Responder("judge", engine))
    with pytest.raises(UsageError, match="several models are put in order, and this is one str"):
        run_judged_table("fake:", suite_of(20), Responder("judge", engine))  # type: ignore[arg-type]


def test_judged_duels_over_several_suites_share_alpha_and_correct_their_p_values() -> None:
    suites = [suite_of(20), suite_of(30)]
    duels = run_judged_duels(side("left", range(12), 30), side("right", [], 30), suites, Responder("judge", Scripted(likes_good)))
    verdicts = [duel.verdict for duel in duels]
    assert [verdict.alpha for verdict in verdicts] == [0.025, 0.025]
    assert [verdict.wins for verdict in verdicts] == [12, 12]
    assert all(verdict.p_value_corrected == pytest.approx(2 * verdicts[0].p_value, rel=0.5) for verdict in verdicts)


def test_judge_of_a_table_out_of_money_has_judged_whole_examples(serving: Callable[..., Server]) -> None:
    server = serving(counted("[[A]]", 100, 10))
    spending = priced(5.0)
    models = [side(name, [], 20) for name in ("one", "two", "three")]
    board = run_judged_table(models, suite_of(20), f"{server.url}#judge", RunSettings(concurrency=1, spending=spending)).leaderboard
    assert 0 < board.num_examples < 20
    assert len(server.bodies) - 6 * board.num_examples < 6  # several threads may break off in more than one example


def test_judge_that_looks_at_the_order_only_decides_nothing() -> None:
    judge = Responder("judge", Scripted(lambda _prompt: "[[A]]"))
    verdict = run_judged_duel(side("left", [0], 10), side("right", [1], 10), suite_of(10), judge).verdict
    assert (verdict.wins, verdict.ties, verdict.losses, verdict.winner) == (0, 10, 0, "undecided")
    assert (
        "both orders gave the same verdict in 0 of 10 = 0 % [0, 28]; "
        "the answer shown first won 20 of 20 = 100 % [73, 100] of the decided showings" in verdict.notes
    )


def test_verdicts_that_cannot_be_read_are_ties_and_counted() -> None:
    judge = Responder("judge", Scripted(lambda prompt: likes_good(prompt) if "question 0" in prompt else "hard to say"))
    verdict = run_judged_duel(side("left", [0], 3), side("right", [], 3), suite_of(3), judge).verdict
    assert (verdict.wins, verdict.ties) == (1, 2)
    assert "2 of 3 pairs got a verdict that could not be read in at least one order: they count as ties" in verdict.notes


def test_judge_that_gives_no_verdict_that_can_be_read_is_an_error_whatever_else_is_a_tie(serving: Callable[..., Server]) -> None:
    """Its draft takes up all there is room for. Of four pairs one is of equal answers, which it never sees."""
    usage = {"prompt_tokens": 9, "completion_tokens": 512}
    thinker = serving(events(piece("", "length"), {"choices": [], "usage": usage}))
    left, right = (
        Responder(name, FakeEngine(answers={f"question {at}": f"of {name}" if at else "the same" for at in range(4)}))
        for name in ("left", "right")
    )
    with pytest.raises(DataError) as caught:
        run_judged_duel(left, right, suite_of(4), f"{thinker.url}#judge")
    assert caught.value.message == (
        "the judge wrote nothing that could be read as a verdict; 6 of 6 answers of the judge were cut off within 512 new tokens "
        "(a higher `--max-tokens`, in Python: `max_new_tokens`, gives it more, too)"
    )


def knowing_all_but_the_last(name: str, num_equal: int, num_others: int) -> Responder:
    answers = {f"question {at}": "the same" if at < num_equal else f"of {name} {at}" for at in range(num_equal + num_others)}
    return Responder(name, FakeEngine(answers=answers))


@pytest.mark.parametrize(("num_equal", "num_others"), [(19, 1), (0, 3)])
def test_verdicts_that_can_be_read_in_one_order_are_ties_and_no_error(num_equal: int, num_others: int) -> None:
    judge = Responder("judge", Scripted(lambda said: "[[A]]" if said.index("of left") < said.index("of right") else "cannot say"))
    sides = [knowing_all_but_the_last(name, num_equal, num_others) for name in ("left", "right")]
    verdict = run_judged_duel(*sides, suite_of(num_equal + num_others), judge).verdict
    assert verdict.ties == num_equal + num_others
    unread = f"{num_others} of {num_equal + num_others} pairs got a verdict that could not be read in at least one order"
    assert any(note.startswith(unread) for note in verdict.notes)


def test_one_pair_without_a_verdict_beside_many_equal_answers_is_a_tie() -> None:
    judge = Responder("judge", Scripted(lambda _prompt: "cannot say"))
    sides = [knowing_all_but_the_last(name, 19, 1) for name in ("left", "right")]
    assert run_judged_duel(*sides, suite_of(20), judge).verdict.ties == 20


@pytest.mark.parametrize(("num_equal", "num_others"), [(97, 3), (18, 2), (1, 1), (0, 1)])
def test_a_judge_without_any_verdict_is_an_error_however_many_answers_are_equal(num_equal: int, num_others: int) -> None:
    judge = Responder("judge", Scripted(lambda _prompt: "cannot say"))
    sides = [knowing_all_but_the_last(name, num_equal, num_others) for name in ("left", "right")]
    with pytest.raises(DataError, match="wrote nothing that could be read as a verdict"):
        run_judged_duel(*sides, suite_of(num_equal + num_others), judge)


class Short(FakeEngine):
    """A judge with likelihoods and a context that is too short for whatever holds one of these words."""

    def __init__(self, *words: str) -> None:
        super().__init__()
        self.words = words

    def score(self, request: Request, continuations: Sequence[str]) -> list[ContinuationScore]:
        if any(word in request.messages[-1].content for word in self.words):
            raise ContextExceededError(prompt_tokens=900, max_new_tokens=1, context_tokens=512)
        return [ContinuationScore(log_probability=float("A" in text or "7" in text), num_tokens=1) for text in continuations]


@pytest.mark.parametrize("checked", [False, True])
def test_a_judge_whose_context_is_too_short_is_an_error_that_says_so(checked: bool, tmp_path: Path) -> None:
    judge, check = Responder("judge", Short("")), str(labelled_file(tmp_path)) if checked else None
    sides = side("left", [0], 3), side("right", [], 3)
    for ask in (
        lambda: run_judged_duel(*sides, suite_of(3), judge, check=check),
        lambda: run_graded(sides[0], suite_of(3), judge, check=check),
    ):
        with pytest.raises(DataError, match=r"the judge gave no verdict: .* the model's context is 512 tokens") as caught:
            ask()
        assert caught.value.hint is not None and "a longer context" in caught.value.hint


def test_pairs_that_are_longer_than_the_judges_context_are_counted(tmp_path: Path) -> None:
    judge = Responder("judge", Short("question 1"))
    sides = [knowing_all_but_the_last(name, 0, 3) for name in ("left", "right")]
    notes = run_judged_duel(*sides, suite_of(3), judge, check=str(labelled_file(tmp_path))).verdict.notes
    assert "2 questions to the judge did not fit into its context of 512 tokens" in notes


def test_equal_answers_are_a_tie_without_asking_and_verdicts_are_asked_for_once() -> None:
    engine = Scripted(likes_good)
    both = side("same", [0, 1], 4), side("same", [0, 1], 4)
    assert run_judged_duel(*both, suite_of(4), Responder("judge", engine)).verdict.ties == 4
    assert engine.asked == []
    for _ in range(2):
        run_judged_duel(side("left", [0], 4), side("right", [], 4), suite_of(4), Responder("judge", engine))
    assert len(engine.asked) == 8


def test_judge_with_likelihoods_takes_the_likeliest_verdict() -> None:
    class Likes(FakeEngine):
        def score(self, request: Request, continuations: Sequence[str]) -> list[ContinuationScore]:
            wanted = likes_good(request.messages[-1].content)[-5:]
            return [ContinuationScore(log_probability=-float(text != wanted), num_tokens=3) for text in continuations]

    verdict = run_judged_duel(
        side("left", range(6), 10), side("right", [9], 10), suite_of(10), Responder("judge", Likes())
    ).verdict  # fmt: skip
    assert (verdict.wins, verdict.ties, verdict.losses) == (6, 3, 1)
    assert verdict.notes[0].startswith(
        "judged by `judge`, by what its verdicts' likelihoods lean to over both orders, without an explanation"
    )


def test_order_cancels_out_where_likelihoods_can_be_had() -> None:
    """A judge that always likes what is shown second by 3, and the good answer by 1: its verdict is B, and its lean is right."""

    class Biased(FakeEngine):
        def score(self, request: Request, continuations: Sequence[str]) -> list[ContinuationScore]:
            prompt = request.messages[-1].content
            good = {f"[[{name}]]": float("good" in section(prompt, f"Assistant {name}")) for name in "AB"}
            bias = {"[[A]]": 0.0, "[[B]]": 3.0, "[[C]]": -9.0}
            return [ContinuationScore(log_probability=bias[text] + good.get(text, 0.0), num_tokens=3) for text in continuations]

    verdict = run_judged_duel(side("left", range(6), 10), side("right", [9], 10), suite_of(10), Responder("judge", Biased())).verdict
    assert (verdict.wins, verdict.ties, verdict.losses) == (6, 3, 1)
    assert "both orders gave the same verdict in 0 of 10" in verdict.notes[1]


def test_second_turn_is_judged_within_its_conversation() -> None:
    first = Example(id="1", messages=(Message(role="user", content="question 0"),), target="", group="1")
    then = Example(id="2", messages=(Message(role="user", content="and then?"),), target="", follows="1", group="1")
    engine = Scripted(likes_good)
    suite = Suite(name="two", metric="judge", examples=(first, then), sha256="two", max_new_tokens=64)
    run_judged_duel(side("left", [0], 1), side("right", [], 1), suite, Responder("judge", engine))
    assert any("(assistant) a good answer left\n\n(user) and then?" in section(prompt, "Assistant A") for prompt in engine.asked)


def test_graded_evaluation_has_the_mean_grade_and_leaves_out_what_cannot_be_read() -> None:
    def grade(prompt: str) -> str:
        answer = section(prompt, "The answer")
        return "[[9]]" if "good" in answer else "[[3]]" if "left" in answer and "question 3" not in prompt else "none"

    evaluation = run_graded(side("left", [0, 1], 4), suite_of(4), Responder("judge", Scripted(grade)))
    assert [outcome.score for outcome in evaluation.outcomes] == [9.0, 9.0, 3.0]
    assert (evaluation.suite.metric, evaluation.side.score) == ("grade", 7.0)
    assert evaluation.side.score_low >= 1
    assert "1 of 4 grades could not be read: those answers are left out" in evaluation.notes


def test_grades_that_a_judge_wrote_before_are_used_again() -> None:
    engine = Scripted(lambda _prompt: "[[7]]")
    for _ in range(2):
        assert len(run_graded(side("left", [], 3), suite_of(3), Responder("judge", engine)).outcomes) == 3
    assert len(engine.asked) == 3


def test_judge_that_grades_nothing_is_an_error() -> None:
    with pytest.raises(DataError, match="wrote nothing that could be read as a verdict"):
        run_graded(side("left", [], 2), suite_of(2), Responder("judge", Scripted(lambda _prompt: "fine")))


def test_judge_of_a_server_is_paid_from_the_same_budget(serving: Callable[..., Server]) -> None:
    server = serving(counted("[[A]]", 100, 10))
    spending = priced(5.0)
    duel = run_judged_duel(
        side("left", [0], 20),
        side("right", [], 20),
        suite_of(20),
        f"{server.url}#judge",
        RunSettings(concurrency=1, spending=spending),
    )
    assert duel.verdict.partial.startswith("the judge did not judge all: the budget of $5.00 is reached")
    assert 0 < duel.verdict.num_examples < 20
    assert spending.budget is not None
    assert spending.budget.spent_usd == pytest.approx(len(server.bodies) * 0.12)
    assert spending.budget.spent_usd <= 5.0
    assert duel.verdict.num_examples == len(server.bodies) // 2  # of several at once, more than one pair may be judged in one order


def half_budget() -> RunSettings:
    """Of 40 pairs, each $0.24 to judge, about half."""
    return RunSettings(concurrency=1, spending=priced(5.0))


@pytest.mark.parametrize("num_before", [0, 10])
def test_of_equal_answers_the_same_share_counts_as_of_the_others(num_before: int, serving: Callable[..., Server]) -> None:
    """Every second pair is equal: where the budget ends, as many equal ones count as judged ones, some of them by an earlier run."""
    server = serving(counted("[[A]]", 100, 10))
    left, right = (
        Responder(name, FakeEngine(answers={f"question {at}": "the same" if at % 2 else f"of {name}" for at in range(40)}))
        for name in ("left", "right")
    )
    judge = f"{server.url}#judge"
    if num_before:
        run_judged_duel(left, right, suite_of(num_before), judge)
    verdict = run_judged_duel(left, right, suite_of(40), judge, half_budget()).verdict
    num_judged = len(server.bodies) // 2
    assert num_before // 2 < num_judged < 20
    assert (verdict.num_examples, verdict.ties) == (2 * num_judged, 2 * num_judged)  # it prefers whoever is shown first: all are ties
    assert f"both orders gave the same verdict in 0 of {num_judged} " in verdict.notes[2]
    assert verdict.notes[2].endswith(f"{num_judged} of {2 * num_judged} pairs were equal answers: ties, and not shown")


def test_result_of_a_judge_out_of_money_says_so_in_its_notes_and_its_report(serving: Callable[..., Server], tmp_path: Path) -> None:
    judge = f"{serving(counted('[[A]]', 100, 10)).url}#judge"
    models = side("left", [0], 40), side("right", [], 40)
    duel = run_judged_duel(*models, suite_of(40), judge, half_budget())
    said = f"PARTIAL: the judge `{judge}` judged {duel.verdict.num_examples} of 40 questions: the budget of $5.00 is reached"
    assert duel.verdict.notes[0].startswith(said)
    write_duel_report(duel, tmp_path / "r.html", command="nomoat duel")
    assert "PARTIAL: the judge " in (tmp_path / "r.html").read_text(encoding="utf-8")
    assert any(note.startswith(said) for note in run_judged_table(models, suite_of(40), judge, half_budget()).leaderboard.notes)
    grader = f"{serving(counted('[[7]]', 100, 10)).url}#judge"
    evaluation = run_graded(models[0], suite_of(80), grader, half_budget())
    said = f"PARTIAL: the judge `{grader}` judged {len(evaluation.outcomes)} of 80 questions: the budget of $"
    assert 0 < len(evaluation.outcomes) < 80 and any(note.startswith(said) for note in evaluation.notes)


def test_duels_that_were_fought_are_kept_where_the_budget_ends_before_the_next_suite(serving: Callable[..., Server]) -> None:
    judge = f"{serving(counted('[[A]]', 100, 10)).url}#judge"
    examples = suite_of(60).examples
    parts = (("open", examples[:40]), ("next", examples[40:50]), ("last", examples[50:]))
    suites = [dataclasses.replace(suite_of(60), name=name, examples=part) for name, part in parts]
    models = side("left", [0], 60), side("right", [], 60)
    (duel,) = run_judged_duels(*models, suites, judge, half_budget())
    assert duel.verdict.notes[-1].startswith("PARTIAL: nothing was fought over `next` and `last`: the budget of $5.00 is reached")
    assert duel.verdict.partial.startswith("the judge did not judge all: the budget of $5.00 is reached")
    assert duel.verdict.p_value_corrected == min(1.0, 3 * duel.verdict.p_value)
    with pytest.raises(BudgetReachedError):
        nothing = RunSettings(spending=priced(0.0))
        run_judged_duels(*models, suites[1:], judge, nothing)


def test_a_judge_sees_the_words_that_were_put_into_a_models_mouth() -> None:
    suite = dataclasses.replace(suite_of(1), answer_start="Well, ")
    engine = Scripted(likes_good)
    run_judged_duel(side("left", [0], 1), side("right", [], 1), suite, Responder("judge", engine))
    assert section(engine.asked[0], "Assistant A") == "Well, a good answer left"


def test_a_judge_sees_no_drafts_and_the_outcome_keeps_them() -> None:
    judge = Scripted(likes_good)
    drafted = Responder("a", FakeEngine(answers={"question 0": "<think>is it good?</think>\n\nan answer"}))
    found = run_judged_duel(drafted, side("b", [0], 1), suite_of(1), Responder("judge", judge))
    assert section(judge.asked[0], "Assistant A") == "an answer"
    assert (found.verdict.left.score, found.left.outcomes[0].answer) == (0.0, "<think>is it good?</think>\n\nan answer")


def test_models_after_one_that_answered_a_part_are_asked_no_more_than_that() -> None:
    run_suite(side("first", range(20), 20), dataclasses.replace(suite_of(5), metric="exact"))
    second = Scripted(lambda _prompt: "an answer")
    run_judged_duel("stored:open/first", Responder("second", second), suite_of(20), Responder("judge", Scripted(likes_good)))
    assert len(second.asked) == 5


@pytest.mark.parametrize(("metric", "reference"), [("exact", "42"), ("regex", ""), ("code", "")])
def test_a_judge_is_shown_no_pattern_and_no_test_as_if_it_were_an_answer(metric: str, reference: str) -> None:
    suite, engine = quiz(1, metric=metric, target="42"), Scripted(likes_good)
    run_judged_duel(side("left", [0], 1), side("right", [], 1), suite, Responder("judge", engine))
    engine.verdict = lambda _prompt: "[[7]]"
    run_graded(side("left", [0], 1), suite, Responder("judge", engine))
    assert [section(prompt, "Reference answer") for prompt in engine.asked] == [reference] * 3


def test_a_judge_that_thinks_first_gets_room_too_and_never_less_than_it_has(serving: Callable[..., Server]) -> None:
    server = serving(thinking("[[7]]", 600))
    judge, model = f"{server.url}#judge", side("left", [], 3)
    assert len(run_graded(model, suite_of(3), judge).outcomes) == 1
    evaluation = run_graded(model, suite_of(3), judge, RunSettings(max_new_tokens=601))
    assert (len(evaluation.outcomes), len(server.bodies)) == (3, 3 + 2)
    assert len(run_graded(model, suite_of(3), judge, RunSettings(max_new_tokens=9)).outcomes) == 1
    assert len(server.bodies) == 3 + 2


# ---------------------------------------------------------------- agreement with labels
def labelled_file(folder: Path) -> Path:
    rows = [("good", "poor", "a"), ("poor", "good", "b"), ("good", "poor", "b"), ("poor", "poor too", "tie"), ("good", "poor", "tie")]
    path = folder / "labels.jsonl"
    lines = [{"question": "Why?", "answer_a": one, "answer_b": other, "winner": winner} for one, other, winner in rows]
    path.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    return path


def test_shares_of_a_judge_count_equal_questions_as_one_piece_of_evidence() -> None:
    """Three questions eight times each: 24 verdicts the same in both orders, and three of them by themselves."""
    suite = suite_of(3)
    suite = dataclasses.replace(suite, examples=tuple(dataclasses.replace(suite.examples[at % 3], id=str(at)) for at in range(24)))
    judge = Responder("judge", Scripted(likes_good))
    verdict = run_judged_duel(side("a", [0, 1], 3), side("b", [2], 3), suite, judge).verdict
    same = agreement.share([True] * 24, [str(at % 3) for at in range(24)])
    assert same != agreement.share([True] * 24, [str(at) for at in range(24)])
    assert any(f"both orders gave the same verdict in {same}" in note for note in verdict.notes)
    assert (verdict.wins, verdict.losses, verdict.p_value) == (16, 8, 1.0)


def test_shares_of_a_judge_count_pairs_of_one_question_as_one_piece_of_evidence() -> None:
    """20 questions, four pairs each, of which all say the same: no more is known than from 20 pairs, and not what 80 would say."""
    always_first, consistent = PairVerdict(first="A", second="A"), PairVerdict(first="A", second="B")
    verdicts = [consistent if at % 2 else always_first for at in range(20) for _ in range(4)]
    questions = [str(at) for at in range(20) for _ in range(4)]
    said = agreement.order_words(verdicts, questions)
    assert said.startswith("both orders gave the same verdict in 40 of 80 = 50 % [27, 73]; ")  # Wilson's of 20 pairs: [30, 70]
    alone = agreement.order_words(verdicts, [str(at) for at in range(80)])
    assert alone.startswith("both orders gave the same verdict in 40 of 80 = 50 % [39, 61]; ")


def test_agreement_is_counted_with_and_without_ties_and_kept_for_later_verdicts(tmp_path: Path) -> None:
    judge = Responder("judge", Scripted(likes_good))
    sides = side("left", [0], 2), side("right", [], 2)
    checked = run_judged_duel(*sides, suite_of(2), judge, check=str(labelled_file(tmp_path))).verdict
    expected = (
        "agreement with the labels of labels.jsonl, 5 pairs: where both name a winner, the same one in 2 of 3 = 67 % [21, 94] "
        "(chance: 50 %); ties included, 3 of 5 = 60 % [23, 88] (always the commonest label: 40 %), "
        "kappa 0.44 [0.01, 0.84], which is not known to be better than chance; "
        "both orders gave the same verdict in 5 of 5 = 100 % [57, 100]; "
        "the answer shown first won 4 of 8 = 50 % [13, 87] of the decided showings"
    )
    assert checked.notes[-1] == expected
    assert run_judged_duel(*sides, suite_of(2), judge).verdict.notes[-1] == expected


def test_agreement_is_over_the_pairs_whose_verdict_can_be_read_and_counts_the_others(tmp_path: Path) -> None:
    """One of the two pairs that are labelled ties is not read: that is no agreement on a tie."""
    judge = Scripted(lambda prompt: likes_good(prompt) if "too" not in prompt else "")
    labelled = agreement.load_labels(str(labelled_file(tmp_path)))
    with AnswerStore() as store:
        judging = Judge(model=Responder("judge", judge), store=store, spending=Spending(), concurrency=1)
        found = agreement.measure(judging, labelled)
    assert found is not None and "labels.jsonl, 4 pairs: " in found.sentence
    assert found.sentence.endswith(" of the decided showings; 1 more got a verdict that could not be read")


def test_agreement_of_a_judge_that_gives_no_verdict_is_none_and_is_not_kept(tmp_path: Path) -> None:
    silent, check = Responder("silent", Scripted(lambda _prompt: "")), str(labelled_file(tmp_path))
    with pytest.raises(DataError, match=r"the judge gave none of the labelled pairs of `.*` a verdict that can be read"):
        run_judged_duel(side("left", [0], 2), side("right", [], 2), suite_of(2), silent, check=check)
    assert agreement.remembered(silent.digest) is None


def test_a_labelled_pair_that_failed_does_not_make_grades_partial(tmp_path: Path) -> None:
    def say(prompt: str) -> str:
        if "The answer" not in prompt and section(prompt, "Assistant B") == "poor too":
            raise RemoteError("the judge fell over this pair")
        return "none" if "question 3" in prompt else "[[7]]" if "The answer" in prompt else "[[A]]"

    check = str(labelled_file(tmp_path))
    evaluation = run_graded(side("left", [0, 1], 4), suite_of(4), Responder("judge", Scripted(say)), check=check)
    assert "1 of 4 grades could not be read: those answers are left out" in evaluation.notes
    assert any(note.startswith("agreement with the labels of labels.jsonl, 4 pairs: ") for note in evaluation.notes)
    assert evaluation.partial == "" and not any("PARTIAL" in note for note in evaluation.notes)


def test_labels_lie_in_the_home_folder_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    be_at_home_in(tmp_path, monkeypatch)
    path = labelled_file(tmp_path)
    assert agreement.load_labels(f"~/{path.name}") == agreement.load_labels(str(path))


def test_labels_that_are_none_are_named_with_their_line(tmp_path: Path) -> None:
    path = tmp_path / "labels.jsonl"
    path.write_text('{"question": "q", "answer_a": "a", "answer_b": "b", "winner": "c"}\n')
    with pytest.raises(DataError, match="line 1: a labelled pair has"):
        agreement.load_labels(str(path))
    with pytest.raises(UsageError, match="`nosuch`: there is no such file of labels"):
        agreement.load_labels("nosuch")
    path.write_text('{"question": "q", "answer_a": "a", "answer_b": "b", "winner": ["a"]}\n')
    with pytest.raises(DataError, match="line 1: a labelled pair has"):
        agreement.load_labels(str(path))


def counting_characters() -> agreement.Agreement:
    pairs = [Pair(one=asked_message("x" * at), other=asked_message("xx")) for at in (1, 2, 3)]
    labelled = agreement.LabelledPairs(pairs=tuple(pairs), labels=(0.0, 0.5, 1.0), whose="ours")
    found = agreement.compare([agreement.by_length(pair) for pair in pairs], labelled)
    assert found is not None
    return found


def test_what_two_judges_were_measured_to_be_at_the_same_time_is_kept_of_both(monkeypatch: pytest.MonkeyPatch) -> None:
    """The second begins when the first has read what is kept, and not yet written it."""
    found, read = counting_characters(), agreement._kept
    second = threading.Thread(target=agreement.remember, args=("second", found))

    def overtaken() -> dict[str, str]:
        kept = read()
        monkeypatch.setattr(agreement, "_kept", read)
        second.start()
        second.join(timeout=0.5)
        return kept

    monkeypatch.setattr(agreement, "_kept", overtaken)
    agreement.remember("first", found)
    second.join()
    assert agreement.remembered("first") == agreement.remembered("second") == found.sentence


@pytest.mark.skipif(not BENCHMARK.is_file(), reason="needs the repository's benchmarks folder")
def test_benchmark_of_judges_has_a_row_for_each() -> None:
    spec = importlib.util.spec_from_file_location("judges_benchmark", BENCHMARK)
    assert spec is not None and spec.loader is not None
    benchmark = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(benchmark)
    row = benchmark.row_of("the longer answer", counting_characters())
    assert (row["num_pairs"], row["both_decided"], row["kappa"], row["verdicts"]) == (3, 2, 1.0, {"BA": 1, "CC": 1, "AB": 1})
    table = benchmark.render([row], {"num": 4, "equal": 2, "more_than_1": 1, "mean_gap": 0.75})
    assert "| the longer answer | 3 | 2 of 2 = 100 % [34, 100] | 3 of 3 = 100 % [44, 100] | 1.00 " in table


@pytest.mark.data
def test_reviews_of_vicuna80_are_labels(vicuna_folder: Path) -> None:
    """GPT-4 against itself: a judge that prefers whoever GPT-4 scored higher agrees throughout."""
    labelled = agreement.load_labels("vicuna80", num_pairs=50)
    known = dict(zip(labelled.pairs, labelled.labels, strict=True))
    texts = {(pair.one[-1].content, pair.other[-1].content): label for pair, label in known.items()}

    def verdict(prompt: str) -> str:
        shown = section(prompt, "Assistant A"), section(prompt, "Assistant B")
        label = texts[shown] if shown in texts else 1 - texts[shown[1], shown[0]]
        return {1.0: "[[A]]", 0.0: "[[B]]", 0.5: "[[C]]"}[label]

    with AnswerStore() as store:
        judge = Judge(model=Responder("judge", Scripted(verdict)), store=store, spending=Spending(), concurrency=4)
        found = agreement.measure(judge, labelled)
    assert found is not None
    assert found.num_pairs == 50 and found.same_share.startswith("50 of 50 ")
    assert found.both_decided > 20 and found.agreed_share.startswith(f"{found.both_decided} of {found.both_decided} ")


def test_pairs_are_known_by_their_last_answers() -> None:
    assert Pair(one=asked_message("x "), other=asked_message("x")).is_same
