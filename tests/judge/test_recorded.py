"""Published tables of scores, replayed: the numbers are those that were published."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

import nomoat
from nomoat.engine.recorded import read_recorded
from nomoat.engine.stored import stored_engine, stored_names
from nomoat.errors import DataError, UnknownModelError, UnsupportedError, UsageError
from nomoat.judge.builtin import BUILT_IN
from nomoat.judge.duel import run_duel
from nomoat.judge.run import run_suite
from nomoat.judge.scorers import numeric
from nomoat.judge.settings import RunSettings
from nomoat.judge.suites import load_suite, write_suite
from nomoat.records import Message, Request, Verdict

RECORDED = [name for name, suite in BUILT_IN.items() if suite.metric in ("recorded", "published")]


def measured(verdict: Verdict, name: str) -> str:
    return next(measure.text for measure in verdict.measures if measure.name == name)


@pytest.mark.data
@pytest.mark.usefixtures("recorded_folders")
def test_gsm8k_replay_counts_what_routellm_published() -> None:
    """RouteLLM, arXiv:2406.18665: GPT-4 85.67 %, Mixtral 63.84 %; either one 92.87 %."""
    verdict = nomoat.duel("stored:routellm-gsm8k/gpt-4", "stored:routellm-gsm8k/mixtral")
    assert (verdict.num_examples, verdict.winner, verdict.looks) == (1319, "left", ())
    assert (round(verdict.left.score, 4), round(verdict.right.score, 4)) == (0.8567, 0.6384)
    assert (verdict.wins, verdict.losses, measured(verdict, "either right")) == (383, 95, "1,225 of 1,319")


@pytest.mark.data
@pytest.mark.usefixtures("recorded_folders")
def test_mmlu_replay_has_every_subject_as_a_category() -> None:
    """RouteLLM, as above: GPT-4 80.58 %, Mixtral 68.08 %; either one 85.86 %."""
    duel = run_duel("stored:routellm-mmlu/gpt-4", "stored:routellm-mmlu/mixtral")
    assert (round(duel.verdict.left.score, 4), round(duel.verdict.right.score, 4)) == (0.8058, 0.6808)
    assert measured(duel.verdict, "either right") == "12,057 of 14,042"
    assert len({outcome.category for outcome in duel.left.outcomes}) == 57


@pytest.mark.data
@pytest.mark.usefixtures("recorded_folders")
def test_lora_land_replay_says_what_31_tasks_can_show() -> None:
    """The table of arXiv:2405.00732: tuned phi-2 scores higher than GPT-4 on 20 of 31 tasks, which 31 tasks do not make a winner."""
    verdict = nomoat.duel("stored:lora-land/phi-2", "stored:lora-land/gpt-4")
    assert (measured(verdict, "wins"), verdict.ties, verdict.winner) == ("20 of 31", 1, "undecided")
    assert nomoat.duel("stored:lora-land/gemma-2b", "stored:lora-land/gpt-4").wins == 18


@pytest.mark.data
@pytest.mark.usefixtures("recorded_folders")
@pytest.mark.parametrize("name", RECORDED)
def test_recorded_suite_has_as_many_items_as_the_list_of_suites_says(name: str, tmp_path: Path) -> None:
    suite = load_suite(name)
    assert len(suite.examples) == BUILT_IN[name].num_examples == len({example.id for example in suite.examples})
    with pytest.raises(UsageError, match="has scores from elsewhere"):
        write_suite(suite, tmp_path)


@pytest.mark.data
@pytest.mark.usefixtures("recorded_folders")
def test_gsm8k_answers_that_are_wrong_for_two_zeros_are_as_many_as_the_note_says() -> None:
    """Recorded as right, right by number, and right by number alone, of GPT-4 and of Mixtral."""
    if not os.environ.get("NOMOAT_MIRROR"):
        pytest.skip("needs GSM8K's targets: set NOMOAT_MIRROR")
    folder = load_suite("routellm-gsm8k").folder
    assert folder is not None
    asked = (
        example.messages[-1].content.rpartition("Question:")[2].rpartition("Answer:")[0] for example in load_suite("gsm8k").examples
    )
    targets = dict(zip((" ".join(text.split()) for text in asked), (e.target for e in load_suite("gsm8k").examples), strict=True))
    counts = []
    for model in ("gpt-4-1106-preview", "Mixtral-8x7B-Instruct-v0.1"):
        rows = [
            (row.scores[model], numeric(row.answers[model], targets[" ".join(row.question.split())])) for row in read_recorded(folder)
        ]
        counts.append((sum(old for old, _ in rows), sum(new for _, new in rows), sum(new > old for old, new in rows)))
    assert counts == [(1130, 1171, 42), (842, 843, 6)]
    assert any("1,171 to 843 are right" in note for note in BUILT_IN["routellm-gsm8k"].notes)


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A table of two files in place of RouteLLM's."""
    folder = tmp_path / "small"
    folder.mkdir()
    (folder / "a.csv").write_text("prompt,org/Mix,gpt,gpt_response\n한국어?,True,False,아니오\nq2,True,True,yes\n", encoding="utf-8")
    (folder / "b.csv").write_text("prompt,org/Mix,gpt,gpt_response\nq3,False,True,ok\n", encoding="utf-8")
    monkeypatch.setattr("nomoat.catalog.datasets.pull_dataset", lambda name: folder)
    return folder


def test_rows_have_their_file_as_category_and_their_line_as_id(small: Path) -> None:
    rows = read_recorded(small)
    assert [(row.id, row.category, row.question) for row in rows] == [("a-1", "a", "한국어?"), ("a-2", "a", "q2"), ("b-1", "b", "q3")]
    assert (rows[0].scores, rows[0].answers) == ({"Mix": 1.0, "gpt": 0.0}, {"gpt": "아니오"})
    assert stored_names(small) == ["Mix", "gpt"]
    request = Request(messages=(Message(role="user", content="한국어?"),))
    assert [next(iter(stored_engine("small", name, small).generate(request))).text for name in ("gpt", "mix")] == [
        "아니오",
        "scored 1",
    ]


def test_a_question_of_several_rows_is_answered_with_the_last_and_tables_are_read_once(
    small: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (small / "c.csv").write_text("prompt,org/Mix,gpt,gpt_response\nq3,True,True,better\n", encoding="utf-8")
    read: list[Path] = []
    monkeypatch.setattr("nomoat.engine.stored.read_recorded", lambda folder: read.append(folder) or read_recorded(folder))
    engine = stored_engine("small", "gpt", small)
    assert [chunk.text for chunk in engine.generate(Request(prompt="q3"))] == ["better"]
    assert read == [small]


def test_recorded_duel_uses_the_recorded_scores(small: Path) -> None:
    duel = run_duel("stored:routellm-mmlu/mix", "stored:routellm-mmlu/gpt")
    assert (duel.verdict.wins, duel.verdict.ties, duel.verdict.losses) == (1, 1, 1)
    assert [outcome.answer for outcome in duel.right.outcomes] == ["아니오", "yes", "ok"]
    assert duel.verdict.notes[0].startswith("recorded answers: Ong et al. 2024")
    assert duel.verdict.notes[1] == "scores are RouteLLM's; the answers themselves were not kept"
    assert run_duel("stored:routellm-mmlu/mix", "stored:routellm-mmlu/gpt", settings=RunSettings(limit=2)).verdict.num_examples == 2


def test_equal_questions_that_were_recorded_are_one_group(small: Path) -> None:
    (small / "b.csv").write_text("prompt,org/Mix,gpt,gpt_response\nq2,False,True,ok\n", encoding="utf-8")
    duel = run_duel("stored:routellm-mmlu/mix", "stored:routellm-mmlu/gpt")
    assert [[outcome.group for outcome in side.outcomes] for side in (duel.left, duel.right)] == [["", "a-2", "a-2"]] * 2
    assert duel.verdict.p_value == 1.0
    assert duel.verdict.notes[-2].startswith(
        "1 of the 3 questions of `routellm-mmlu` are equal to one before them: equal questions are"
    )
    assert duel.verdict.notes[-1].startswith("3 examples in 2 groups that belong together: errors are those between groups")


def test_recorded_suite_compares_its_own_systems_only(small: Path) -> None:
    with pytest.raises(UnsupportedError, match="has recorded scores only, and `fake:` is not one of them"):
        nomoat.duel("stored:routellm-mmlu/gpt", "fake:", "routellm-mmlu")
    with pytest.raises(UnknownModelError, match="is not among the stored answers"):
        nomoat.duel("stored:routellm-mmlu/gpt", "stored:routellm-mmlu/llama")


def test_evaluation_of_a_recorded_system_is_its_recorded_scores(small: Path) -> None:
    evaluation = run_suite("stored:routellm-mmlu/gpt", "routellm-mmlu")
    assert [outcome.score for outcome in evaluation.outcomes] == [0.0, 1.0, 1.0]
    with pytest.raises(UnsupportedError) as caught:
        run_suite("fake:", "routellm-mmlu")
    assert caught.value.hint == "recorded are: stored:routellm-mmlu/Mix, stored:routellm-mmlu/gpt"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("prompt,gpt\nq,maybe\n", "row 1: `gpt` is 'maybe', and should be True, False or a score between 0 and 1"),
        ("prompt,gpt\nq,7\n", "row 1: `gpt` is '7', and should be True, False or a score between 0 and 1"),
        ("question,gpt\nq,1\n", "row 1: needs a `prompt` or a `task`"),
        ("prompt,gpt\n", "has a header and no rows"),
        ("prompt,a/gpt,b/gpt\nq,1,0\n", "the columns `a/gpt` and `b/gpt` are both called `gpt`"),
        ("prompt,gpt,a/gpt_response,gpt_response\nq,1,x,y\n", "the columns `a/gpt_response` and `gpt_response` are both called"),
        ("prompt,gpt\nq,1,1\n", "line 2: 3 fields, and the header has 2"),
        ("prompt,gpt\nq\n", "line 2: 1 field, and the header has 2"),
    ],
)
def test_table_that_is_not_as_it_should_be_is_named_with_its_row(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(DataError) as caught:
        read_recorded(tmp_path)
    assert message in caught.value.message
