"""Nothing leaves before it was said what, and agreed to."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import typer
from misbehaving import Server, counted
from shell import Done

from nomoat.asking.spending import Spending
from nomoat.asking.store import AnswerStore
from nomoat.cli import sending
from nomoat.errors import UsageError
from nomoat.judge.judged import run_graded
from nomoat.judge.run import run_suite
from nomoat.judge.settings import RunSettings
from nomoat.judge.suite import Suite
from nomoat.judge.suites import load_suite
from nomoat.route.policy import default_path


@pytest.fixture
def suite(tmp_path: Path) -> Suite:
    path = tmp_path / "quiz.jsonl"
    path.write_text('{"input": "Call 010-1234-5678", "target": "yes"}\n{"input": "왜?", "target": "yes"}\n', encoding="utf-8")
    return load_suite(path)


@pytest.fixture
def elsewhere(serving: Callable[..., Server], monkeypatch: pytest.MonkeyPatch) -> Server:
    """A server that nomoat takes for one outside."""
    monkeypatch.setattr("nomoat.net.is_loopback", lambda _host: False)
    monkeypatch.delenv("NOMOAT_OFFLINE")
    return serving(counted("yes", 1, 1))


def consent(server: Server, suite: Suite, *, yes: bool, judge: str | None = None, spending: Spending | None = None) -> None:
    sending.require_consent(
        [f"{server.url}#m", "fake:"], [suite], RunSettings(spending=spending or Spending()), yes=yes, judge=judge
    )  # fmt: skip


def test_a_log_is_told_how_far_the_look_for_personal_data_is(
    elsewhere: Server, suite: Suite, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a million texts it takes minutes."""
    monkeypatch.setattr("nomoat.cli.console.SECONDS_BETWEEN_LINES", 0.0)
    consent(elsewhere, suite, yes=True)
    said = "looking for personal data: 0%\nlooking for personal data: 50%\n"
    assert said in capsys.readouterr().err


SAID = "2 texts (22 bytes) would go to 127.0.0.1, for `{url}#m`; cost not known\n"


def test_preview_says_how_much_goes_where_and_shows_one_text(
    elsewhere: Server, suite: Suite, capsys: pytest.CaptureFixture[str]
) -> None:
    consent(elsewhere, suite, yes=True)
    assert capsys.readouterr().err == SAID.format(url=elsewhere.url) + (
        "one of them: Call 010-1234-5678\n1 of 2 hold what looks like personal data: a phone number\n"
    )
    assert elsewhere.bodies == []


def test_of_a_server_on_this_machine_nothing_is_looked_up_before_it_is_asked(
    serving: Callable[..., Server], suite: Suite, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """100,000 questions took a minute."""
    monkeypatch.setattr(AnswerStore, "answer", lambda *_given: pytest.fail("looked up"))
    consent(serving(counted("yes", 1, 1)), suite, yes=False)
    assert capsys.readouterr().err == ""


def test_of_a_server_on_this_machine_it_is_said_why_it_counts_as_outside(
    serving: Callable[..., Server], suite: Suite, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("NOMOAT_OFFLINE")
    server = serving(counted("yes", 1, 1))
    monkeypatch.setenv("NOMOAT_GATEWAYS", server.url)
    consent(server, suite, yes=True, judge=f"{server.url}#j")
    place = "127.0.0.1 (a gateway, as NOMOAT_GATEWAYS says)"
    said = capsys.readouterr().err
    assert said.startswith(f"2 texts (22 bytes) would go to {place}, for `{server.url}#m`; cost not known\n")
    assert f"would go to {place}, for the judge `{server.url}#j`\n" in said


def test_texts_without_a_chat_are_counted_and_searched_too(
    elsewhere: Server, suite: Suite, capsys: pytest.CaptureFixture[str]
) -> None:
    consent(elsewhere, dataclasses.replace(suite, chat=False), yes=True)
    assert capsys.readouterr().err == SAID.format(url=elsewhere.url) + (
        "one of them: Call 010-1234-5678\n1 of 2 hold what looks like personal data: a phone number\n"
    )


def test_names_of_the_policy_are_personal_and_a_broken_policy_lets_nothing_out(
    elsewhere: Server, suite: Suite, capsys: pytest.CaptureFixture[str]
) -> None:
    default_path().parent.mkdir(parents=True, exist_ok=True)
    default_path().write_text('names = ["왜"]', encoding="utf-8")
    consent(elsewhere, suite, yes=True)
    of_both = "2 of 2 hold what looks like personal data: a phone number, a name or a pattern from the policy\n"
    assert capsys.readouterr().err.endswith(of_both)
    default_path().write_text("patterns = ['^.*왜']", encoding="utf-8")
    consent(elsewhere, suite, yes=True)
    assert capsys.readouterr().err.endswith(of_both)
    default_path().write_text("names = [", encoding="utf-8")
    with pytest.raises(UsageError, match=r"policy\.toml"):
        consent(elsewhere, suite, yes=True)


def test_a_closed_stdin_is_nobody_who_could_agree(elsewhere: Server, suite: Suite, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", None)
    with pytest.raises(UsageError) as caught:
        consent(elsewhere, suite, yes=False)
    assert caught.value.hint == "if that is meant, add --yes"


@pytest.mark.parametrize("agreed", [True, False])
def test_person_at_a_terminal_is_asked(elsewhere: Server, suite: Suite, monkeypatch: pytest.MonkeyPatch, agreed: bool) -> None:
    monkeypatch.setattr("sys.stdin.isatty", lambda: True)
    monkeypatch.setattr("typer.confirm", lambda _text, **_kwargs: agreed)
    if agreed:
        consent(elsewhere, suite, yes=False)
    else:
        with pytest.raises(typer.Exit) as caught:
            consent(elsewhere, suite, yes=False)
        assert caught.value.exit_code == 1


def test_what_is_answered_already_is_not_sent_again(elsewhere: Server, suite: Suite, capsys: pytest.CaptureFixture[str]) -> None:
    run_suite(f"{elsewhere.url}#m", suite)
    consent(elsewhere, suite, yes=False)
    assert capsys.readouterr().err == ""


def test_questions_that_follow_others_are_not_sent_again_either(
    elsewhere: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With their conversation, 3 bytes longer by the first answer and 4 by the first question, the second is asked again."""
    path = tmp_path / "talk.jsonl"
    rows = [{"id": "1", "input": "Who?", "target": "yes"}, {"id": "2", "input": "Why?", "target": "yes", "follows": "1"}]
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    suite = load_suite(path)
    run_suite(f"{elsewhere.url}#m", dataclasses.replace(suite, examples=suite.examples[:1]))
    consent(elsewhere, suite, yes=True)
    assert capsys.readouterr().err.startswith("1 text (15 bytes) would go to 127.0.0.1")  # and two empty lines
    run_suite(f"{elsewhere.url}#m", suite)
    consent(elsewhere, suite, yes=False)
    assert capsys.readouterr().err == ""


def test_answers_for_a_judge_are_longer_and_asked_for_though_short_ones_are_there(
    elsewhere: Server, suite: Suite, capsys: pytest.CaptureFixture[str]
) -> None:
    """512 tokens at a dollar for a thousand, for each of two texts."""
    run_suite(f"{elsewhere.url}#m", suite)
    price = Spending(input_usd_per_million=0.0, output_usd_per_million=1000.0)
    consent(elsewhere, suite, yes=True, judge="fake:", spending=price)
    assert capsys.readouterr().err.startswith(SAID.format(url=elsewhere.url).replace("cost not known", "at most $1.024"))
    run_graded(f"{elsewhere.url}#m", suite, "fake:")
    consent(elsewhere, suite, yes=False, judge="fake:")
    assert capsys.readouterr().err == ""


def test_script_without_yes_is_told_what_would_go(
    nomoat: Callable[..., Done], suite: Suite, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-1")
    monkeypatch.setenv("NOMOAT_OFFLINE", "0")
    done = nomoat("eval", "openai:gpt-4o-mini", str(tmp_path / "quiz.jsonl"))
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        "error: 2 texts (22 bytes) would go to api.openai.com, for `openai:gpt-4o-mini`; at most $0.000056; "
        "1 of 2 hold what looks like personal data: a phone number\n"
        "hint: if that is meant, add --yes\n"
    )


def test_script_that_would_let_a_judge_outside_see_answers_is_told_so(
    nomoat: Callable[..., Done], suite: Suite, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-1")
    monkeypatch.setenv("NOMOAT_OFFLINE", "0")
    quiz = str(tmp_path / "quiz.jsonl")
    for asked, answers in ((("duel", "fake:", "fake:", "-s"), "answers, twice,"), (("eval", "fake:"), "answer")):
        done = nomoat(*asked, quiz, "--judge", "openai:gpt-4o")
        assert done.stderr == (
            f"error: each question with its {answers} would go to api.openai.com, for the judge `openai:gpt-4o`; 1 of 3 questions, "
            "reference answers and labelled texts for the judge hold what looks like personal data: a phone number\n"
            "hint: if that is meant, add --yes\n"
        )


def test_what_a_judge_outside_would_see_is_searched_too_and_its_labels_are_named(
    elsewhere: Server, suite: Suite, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    labels = tmp_path / "labels.jsonl"
    rows = [{"question": f"Who is {n}?", "answer_a": "Kim", "answer_b": "kim@naver.com", "winner": "a"} for n in range(3)]
    labels.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    examples = (suite.examples[0], dataclasses.replace(suite.examples[1], target="Write to lee@naver.com"))
    sending.require_consent(
        ["fake:"], [dataclasses.replace(suite, examples=examples)], RunSettings(), yes=True,
        judge=f"{elsewhere.url}#j", check=str(labels),
    )  # fmt: skip
    assert capsys.readouterr().err == (
        f"each question with its answer would go to 127.0.0.1, for the judge `{elsewhere.url}#j`\n"
        f"3 labelled pairs of `{labels}`, each twice, would go to 127.0.0.1, to check the judge\n"
        "one of them: Call 010-1234-5678\n"
        "3 of 9 questions, reference answers and labelled texts for the judge hold what looks like personal data: "
        "a phone number, an e-mail address\n"
    )


def test_servers_on_this_machine_are_not_asked_about(serving: Callable[..., Server], suite: Suite) -> None:
    consent(serving(counted("yes", 1, 1)), suite, yes=False)
