"""Answers that cost money: counted, bounded, never lost, never paid for twice. The servers are real ones on loopback."""

from __future__ import annotations

import dataclasses
import functools
import json
import math
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import shell
from misbehaving import Act, Server, counted, events, half, piece, priced, reset, say, thinking
from patience import PATIENCE_SECONDS, wait_until
from quiz import quiz
from scripted import Choosing
from tiny import write_adapter, write_tiny_gguf

import nomoat
from nomoat import hardware, matching, responder, whole_files
from nomoat.asking.answers import FREE_HINT, collect, collect_scores, count_earlier, kept_scores
from nomoat.asking.preview import preview_requests
from nomoat.asking.spending import GIVE_PRICE, Spending
from nomoat.asking.spent import Spent
from nomoat.asking.store import AnswerStore, default_path
from nomoat.engine import importer, served_scores_digest
from nomoat.engine.fake import FakeEngine
from nomoat.engine.local import LocalEngine
from nomoat.engine.remote import remote_engine
from nomoat.errors import (
    BudgetReachedError,
    CacheExceededError,
    ContextExceededError,
    NotEnoughDiskError,
    NotEnoughMemoryError,
    RedirectedError,
    RemoteError,
    StoppedError,
    UsageError,
)
from nomoat.judge.duel import run_duel
from nomoat.judge.judged import run_judged_duel
from nomoat.judge.metrics import Metric
from nomoat.judge.run import run_suite
from nomoat.judge.settings import RunSettings
from nomoat.judge.table import run_table
from nomoat.judge.verdict import compare, in_common
from nomoat.money import dollars
from nomoat.records import ChoiceScores, Chunk, Completion, ContinuationScore, Request, Usage
from nomoat.responder import Responder

Serving = Callable[..., Server]
suite_of = functools.partial(quiz, max_new_tokens=10)


def test_likelihoods_of_less_memory_are_kept_apart_and_none_is_taken_for_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A smaller container, or `ulimit -v`, with the same home: the served form's. Those of the file's own weights stay in place."""
    path = write_tiny_gguf(tmp_path / "tiny.gguf", type_name="Q4_0")
    folder = importer.import_gguf(path)
    question = (Request(prompt="the hello"), (" he", " world"))
    found: dict[int, list[ChoiceScores | ContextExceededError]] = {}
    plenty = hardware.memory_total_bytes().value
    for total in (plenty, 1000, plenty, 1000):
        limit = hardware.Detected(total, "a test")
        monkeypatch.setattr(hardware, "memory_total_bytes", lambda limit=limit: limit)
        with Responder("m", LocalEngine(folder, weights=path)) as model, AnswerStore() as store:
            assert (store.choice_scores(model.scores_digest, *question) is None) == (total not in found)
            assert found.setdefault(total, collect_scores(model, [question], store=store)) == collect_scores(
                model, [question], store=store
            )
            assert (model.scores_digest == model.digest) == (total == plenty)
    first, other = ([one.log_probability for one in found[total][0].scores] for total in (plenty, 1000))  # type: ignore[union-attr]
    assert first != other


def test_an_adapter_beside_the_weights_says_so_too_and_what_can_never_be_exact_keeps_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, adapter = write_tiny_gguf(tmp_path / "tiny.gguf"), write_adapter(tmp_path / "a")
    folder = importer.import_gguf(path)
    for exactly, is_apart in ((True, False), (False, True), (None, False)):
        monkeypatch.setattr(importer, "fits_exactly", lambda _path, exactly=exactly: exactly)
        engine = LocalEngine(folder, weights=path, beside=[adapter])
        for view in (Responder("m", engine), Responder("m+a", engine.adapted(0))):
            assert view.scores_digest == (served_scores_digest(view.digest) if is_apart else view.digest)
        engine.close()
    engine = LocalEngine(folder)
    assert engine.scores_digest == served_scores_digest(engine.digest)


class Loading(FakeEngine):
    """Takes five seconds to be ready for likelihoods, and one for a question, by a clock of its own."""

    now = 0.0

    def score(self, request: Request, continuations: Sequence[str]) -> list[ContinuationScore]:
        self.now += (5 if self.now == 0 else 0) + (1 if continuations else 0)
        return super().score(request, continuations)


def test_loading_is_no_part_of_the_first_answers_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = Loading()
    monkeypatch.setattr("nomoat.engine.time", SimpleNamespace(perf_counter=lambda: engine.now))
    questions = [(Request(prompt=text), ("yes", "no")) for text in "ab"]
    with AnswerStore(tmp_path / "answers.sqlite") as store:
        found = collect_scores(Responder("fake:", engine), questions, store=store)
    assert [scores.seconds for scores in found if isinstance(scores, ChoiceScores)] == [1, 1]


def test_short_questions_of_one_length_are_asked_one_after_another_and_long_ones_as_they_stand() -> None:
    """Those of one passage stand together, and what they begin with is read once."""
    asked: list[str] = []

    class Asked(FakeEngine):
        def score(self, request: Request, continuations: Sequence[str]) -> list[ContinuationScore]:
            asked.extend([request.prompt or ""] if continuations else [])
            return super().score(request, continuations)

    passages = [letter * length + f" {at}" for letter, length in (("a", 500), ("가", 300), ("c", 900)) for at in range(2)]
    texts = ["x" * 9, *passages[:3], "y" * 50, *passages[3:], "z" * 9]
    with AnswerStore() as store:
        collect_scores(
            Responder("fake:", Asked()), [(Request(prompt=text), ("yes", "no")) for text in texts], store=store, concurrency=1
        )
    assert asked == [*passages, "y" * 50, "x" * 9, "z" * 9]


def test_who_waits_to_be_read_is_sent_away_by_ctrl_c_and_what_was_read_is_kept() -> None:
    questions = [(Request(prompt=text), ("yes", "no")) for text in "ab"]
    sent_away: list[str | None] = []

    class Waiting(FakeEngine):
        def timed_scores(
            self, request: Request, continuations: Sequence[str], *, max_unread: float = 0.0, stop: threading.Event | None = None
        ) -> ChoiceScores:
            if request.prompt == "b" and stop is not None and stop.wait(PATIENCE_SECONDS):
                sent_away.append(request.prompt)
                raise StoppedError("not read", hint=None)
            return super().timed_scores(request, continuations, max_unread=max_unread, stop=stop)

    def press_ctrl_c(num_open: int) -> None:
        if num_open < len(questions):
            raise KeyboardInterrupt

    model = Responder("fake:", Waiting())
    with AnswerStore() as store:
        with pytest.raises(KeyboardInterrupt):
            collect_scores(model, questions, store=store, show=press_ctrl_c)
        assert sent_away == ["b"] and list(kept_scores(model.scores_digest, questions, store)) == questions[:1]


def test_a_servers_answers_wait_for_the_disk_unless_they_cost_nothing(serving: Serving, monkeypatch: pytest.MonkeyPatch) -> None:
    paid: list[bool] = []
    save = AnswerStore.save_answer

    def saving(*what: Any, is_paid: bool, **more: Any) -> bool:
        paid.append(is_paid)
        return save(*what, is_paid=is_paid, **more)

    monkeypatch.setattr(AnswerStore, "save_answer", saving)
    costs_nothing = Spending(input_usd_per_million=0.0, output_usd_per_million=0.0)
    with AnswerStore() as store, nomoat.load(f"{serving(FINE).url}#m") as server, nomoat.load("fake:") as here:
        for at, (model, price) in enumerate(((here, Spending()), (server, costs_nothing), (server, priced()))):
            request = Request(messages=suite_of(3).examples[at].messages, max_new_tokens=4)
            collect(model, [request], store=store, spending=price, concurrency=1)
    assert paid == [False, False, True]


# `question 7` is 10 bytes, with 16 and 32 more at most 58 tokens in, and 10 out: at most $0.078, and really $0.012.
REAL_USD = 0.012
FINE = counted("yes", 10, 1)


def by_question(acts: dict[str, Act], otherwise: Act) -> Act:
    """An act for each question."""

    def act(handler: BaseHTTPRequestHandler) -> None:
        question = handler.body["messages"][-1]["content"]  # type: ignore[attr-defined]
        acts.get(question, otherwise)(handler)

    return act


def test_cost_is_of_the_tokens_the_server_counted_at_the_price_given(serving: Serving) -> None:
    evaluation = run_suite(f"{serving(FINE).url}#m", suite_of(4), RunSettings(spending=priced()))
    assert [outcome.cost_usd for outcome in evaluation.outcomes] == pytest.approx([REAL_USD] * 4)
    side = evaluation.side
    assert (side.cost_usd_per_1000, side.cost_usd) == (pytest.approx(1000 * REAL_USD), pytest.approx(4 * REAL_USD))
    assert side.price == "$1,000.00 in, $2,000.00 out per million tokens, as given"


def test_what_runs_here_costs_nothing_but_electricity_and_stored_answers_have_no_cost(serving: Serving) -> None:
    for model in ("fake:", f"{serving(FINE).url}#m"):
        side = run_suite(model, suite_of(2)).side
        assert (side.cost_usd, side.price) == (0.0, "runs here: electricity is not counted")


def test_answers_without_counts_have_no_known_cost(serving: Serving) -> None:
    evaluation = run_suite(f"{serving(counted('yes', 0, 0), FINE).url}#m", suite_of(2), RunSettings(spending=priced(), concurrency=1))
    assert sorted(outcome.cost_usd is None for outcome in evaluation.outcomes) == [False, True]
    assert evaluation.side.cost_usd is None
    assert any(note.startswith("1 answer of ") and note.endswith(": the cost is not known") for note in evaluation.notes)


def test_answers_that_a_server_counts_in_part_are_said_and_count_with_the_most_they_can_have_cost(serving: Serving) -> None:
    in_part = events(piece("yes", "stop"), {"choices": [], "usage": {"prompt_tokens": -900_000, "completion_tokens": 2}})
    server = serving(in_part)
    for _ in range(2):  # the second time they are stored
        settings = RunSettings(spending=priced(max_cost_usd=1e6), concurrency=1)
        evaluation = run_suite(f"{server.url}#m", suite_of(2), settings)
        note = f"2 answers of `{server.url}#m` came without a whole count of tokens, or with one that cannot be: the cost is not known"
        assert f"{note}, and the budget counts the most each can have cost" in evaluation.notes
        assert settings.spending.budget is not None
        assert (evaluation.side.cost_usd, settings.spending.budget.spent_usd) == (None, pytest.approx(2 * 0.078))


def test_answers_without_a_whole_count_have_no_known_cost_and_count_with_the_most_they_can_have_cost() -> None:
    request = Request(prompt="x", max_new_tokens=50)
    usage = Usage(prompt_tokens=5, completion_tokens=0, prefill_seconds=0.0, decode_seconds=0.0)
    with Responder("http://127.0.0.1:1/v1#m", FakeEngine()) as model:
        pricing = priced().pricing(model)
    assert pricing.rates is not None
    silent = Completion(text="", finish_reason="stop", usage=usage)
    assert pricing.billed_usd(request, silent) == pricing.cost_usd(silent) == pricing.rates.cost_usd(usage)
    said = Completion(text="hi", finish_reason="stop", usage=dataclasses.replace(usage, is_counted=False))
    assert pricing.cost_usd(said) is None
    assert pricing.billed_usd(request, said) == pricing.rates.most_usd(request)
    beyond = dataclasses.replace(said, usage=dataclasses.replace(said.usage, prompt_tokens=10**6))
    assert pricing.billed_usd(request, beyond) == pricing.rates.most_usd(request, beyond.usage) > pricing.rates.most_usd(request)
    refused = Completion(text="", finish_reason="filtered", usage=dataclasses.replace(usage, prompt_tokens=0))
    assert pricing.billed_usd(request, refused) == 0.0


def test_what_was_asked_without_a_known_price_has_no_known_cost_though_it_was_asked_by_likelihood() -> None:
    workers = Responder("org/model", FakeEngine())  # on other machines: nobody knows what these take
    workers.engine.is_local = False
    assert Spent(pricing=Spending().pricing(workers)).cost_usd is None
    assert Spent(pricing=Spending().pricing(Responder("fake:", FakeEngine()))).cost_usd == 0.0


def test_own_price_table_comes_before_ours(serving: Serving, empty_home: Path) -> None:
    ref = f"{serving(FINE).url}#m"
    empty_home.mkdir()
    row = f'[[price]]\napi = "{ref}"\ninput = 3.0\noutput = 4.0\nas_of = "2026-11"\nsource = "contract"\n'
    (empty_home / "prices.toml").write_text(row)
    assert run_suite(ref, suite_of(1)).side.price == "$3.00 in, $4.00 out per million tokens, your price as of 2026-11 (contract)"


def test_a_run_ends_at_the_first_answer_of_litellms_proxy_here_which_may_have_been_billed(
    serving: Serving, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nomoat.engine.remote._proxy_ports", set())  # the port may be another test's afterwards
    server = serving(events(piece("yes", "stop"), headers={"x-litellm-version": "1.108.7"}))
    with pytest.raises(RedirectedError, match="is LiteLLM's proxy") as caught:
        run_suite(f"{server.url}#m", suite_of(9), RunSettings(spending=priced(), concurrency=1))
    assert len(server.bodies) == 1
    assert notes_of(caught.value) == [
        f"note: 1 call to `{server.url}#m` brought no whole answer, and may have been billed: at most $0.078"
    ]


def test_answer_counts_once_however_often_it_is_needed(serving: Serving) -> None:
    """Four answers of $0.012, asked for twice in one run, and once more in the next."""
    server = serving(FINE)
    model = f"{server.url}#m"
    for _ in range(2):
        budget = priced(1.0)
        for _ in range(2):
            run_suite(model, suite_of(4), RunSettings(spending=budget))
        assert budget.budget is not None
        assert budget.budget.spent_usd == pytest.approx(4 * REAL_USD)
    assert len(server.bodies) == 4


def test_budget_is_spent_on_whole_conversations(serving: Serving) -> None:
    """A second turn may cost $0.123: after three conversations and one more first turn, $0.2 have no room for it."""
    turns = tuple(dataclasses.replace(e, follows=str(at - 1) if at % 2 else "") for at, e in enumerate(suite_of(30).examples))
    suite = dataclasses.replace(suite_of(30), examples=turns)
    server = serving(FINE)
    evaluation = run_suite(f"{server.url}#m", suite, RunSettings(spending=priced(0.2), concurrency=1))
    ids = [int(outcome.example_id) for outcome in evaluation.outcomes]
    assert len(server.bodies) == 7
    assert len(ids) == 6
    assert [at + 1 for at in ids[::2]] == ids[1::2]
    assert max(ids) > 10  # drawn from all over the suite
    assert evaluation.notes[0].startswith(f"PARTIAL: 6 of 30 questions were answered by `{server.url}#m`: the budget of $")
    side = evaluation.side
    assert side.cost_usd == pytest.approx(7 * REAL_USD)
    assert side.cost_usd_per_1000 == pytest.approx(1000 * REAL_USD)
    whole = run_suite(f"{server.url}#m", suite, RunSettings(spending=priced(5.0), concurrency=8))
    assert (len(whole.outcomes), whole.partial, len(server.bodies)) == (30, "", 30)


def test_a_budget_of_conversations_counts_all_earlier_answers_first(serving: Serving) -> None:
    """Thirty at once are answered in their first turns, $0.36; one at a time, second turns would be asked before those had counted."""
    turns = tuple(dataclasses.replace(e, follows=str(at - 1) if at % 2 else "") for at, e in enumerate(suite_of(60).examples))
    suite = dataclasses.replace(suite_of(60), examples=turns)
    server = serving(FINE)
    for concurrency in (30, 1):
        with suppress(BudgetReachedError):  # of not one whole conversation
            run_suite(f"{server.url}#m", suite, RunSettings(spending=priced(0.5), concurrency=concurrency))
        assert len(server.bodies) * REAL_USD < 0.5


@pytest.mark.parametrize("concurrency", [1, 8])
def test_budget_holds_before_each_call_and_a_higher_one_goes_on(serving: Serving, concurrency: int) -> None:
    """$0.2 allow one call after another until the next could exceed it: 11 answers of $0.012 leave less than $0.078."""
    server = serving(FINE)
    evaluation = run_suite(f"{server.url}#m", suite_of(30), RunSettings(spending=priced(0.2), concurrency=concurrency))
    assert len(server.bodies) == len(evaluation.outcomes) == 11
    assert evaluation.partial.startswith("the budget of $0.20 is reached: $0.132 is spent, and the next call may cost $0.07")
    assert evaluation.notes[0].startswith(f"PARTIAL: 11 of 30 questions were answered by `{server.url}#m`: the budget of $")
    again = run_suite(f"{server.url}#m", suite_of(30), RunSettings(spending=priced(0.2), concurrency=concurrency))
    assert len(server.bodies) == 11
    assert again.outcomes == evaluation.outcomes
    whole = run_suite(f"{server.url}#m", suite_of(30), RunSettings(spending=priced(1.0), concurrency=concurrency))
    assert (len(whole.outcomes), whole.partial) == (30, "")
    assert len(server.bodies) == 30


def test_calls_under_way_count_in_full(serving: Serving) -> None:
    """Four at once, each held by the server until all have come or wait: $0.16 has room for two of at most $0.078."""
    come, running, most, lock = 0, 0, 0, threading.Lock()
    spent = priced(0.16)
    budget = spent.budget
    assert budget is not None

    def held(handler: BaseHTTPRequestHandler) -> None:
        nonlocal come, running, most
        with lock:
            come, running = come + 1, running + 1
            most = max(most, running)
        wait_until(lambda: come + len(budget._queue) >= 4, "four questions")
        with lock:
            running -= 1
        FINE(handler)

    run_suite(f"{serving(held).url}#m", suite_of(6), RunSettings(spending=spent, concurrency=4))
    assert (come, most) == (6, 2)


def test_lost_answers_may_have_been_billed_and_count(serving: Serving) -> None:
    """The first answer breaks off: $0.078 are gone, and $0.15 has no room for another try."""
    server = serving(half)
    with pytest.raises(BudgetReachedError, match=r"\$0.078 is spent"):
        run_suite(f"{server.url}#m", suite_of(5), RunSettings(spending=priced(0.15), concurrency=1))
    assert len(server.bodies) == 1


def test_lost_answers_count_in_later_runs_too(serving: Serving) -> None:
    """$0.078 of the first run leave no room in $0.15 for another try; a dollar has room for it, and for the five answers."""
    server = serving(half, FINE)
    for _ in range(3):
        with pytest.raises(BudgetReachedError, match=r"\$0.078 is spent"):
            run_suite(f"{server.url}#m", suite_of(5), RunSettings(spending=priced(0.15), concurrency=1))
    assert len(server.bodies) == 1
    for _ in range(2):
        enough = priced(1.0)
        evaluation = run_suite(f"{server.url}#m", suite_of(5), RunSettings(spending=enough, concurrency=1))
        assert enough.budget is not None and enough.budget.spent_usd == pytest.approx(0.078 + 5 * REAL_USD)
    note = f"1 call to `{server.url}#m` brought no whole answer, and may have been billed: at most $0.078 more"
    assert (note in evaluation.notes, evaluation.side.cost_usd) == (True, pytest.approx(5 * REAL_USD))


def notes_of(error: BaseException) -> list[str]:
    return [note for note in error.__notes__ if not note.startswith("hint: ")]


def test_what_may_have_been_paid_is_said_where_nothing_was_answered(serving: Serving) -> None:
    """Two questions, each asked three times: six times $0.078. What is free is not told of."""
    server = serving(half)
    for prices, notes in (
        (priced(), [f"note: 6 calls to `{server.url}#m` brought no whole answer, and may have been billed: at most $0.468"]),
        (Spending(), []),
    ):
        with pytest.raises(RemoteError, match="before it was whole") as caught:
            run_suite(f"{server.url}#m", suite_of(2), RunSettings(spending=prices))
        assert notes_of(caught.value) == notes


def test_what_both_sides_were_paid_is_said_where_a_duel_ends_in_an_error(serving: Serving, empty_home: Path) -> None:
    """The left's server did not count one answer. Of the right's, one came; its key was refused after a call was lost."""
    left = serving(counted("yes", 0, 0), FINE)
    right = serving(FINE, half, say(401, {"error": {"message": "no such key"}}))
    row = '[[price]]\napi = "{}#m"\ninput = 1000.0\noutput = 2000.0\nas_of = 2026-11-25\nsource = "us"\n'
    empty_home.mkdir(exist_ok=True)
    (empty_home / "prices.toml").write_text("".join(row.format(server.url) for server in (left, right)))
    with pytest.raises(RemoteError, match="no such key") as caught:
        run_duel(f"{left.url}#m", f"{right.url}#m", suite_of(3), RunSettings(concurrency=1), stop_early=False)
    kept = "what came is kept, and is not asked again"
    assert notes_of(caught.value) == [
        f"note: 3 answers of `{left.url}#m` came before, which cost at most $0.102: {kept}",
        f"note: 1 answer of `{right.url}#m` came before, which cost $0.012: {kept}",
        f"note: 1 call to `{right.url}#m` brought no whole answer, and may have been billed: at most $0.078 more",
    ]


def test_a_call_lost_before_there_was_a_budget_counts_once_there_is_one(serving: Serving) -> None:
    server = serving(half, FINE)
    run_suite(f"{server.url}#m", suite_of(5), RunSettings(spending=priced(), concurrency=1))
    enough = priced(1.0)
    run_suite(f"{server.url}#m", suite_of(5), RunSettings(spending=enough))
    assert enough.budget is not None and enough.budget.spent_usd == pytest.approx(0.078 + 5 * REAL_USD)


def test_lost_calls_of_questions_that_come_later_count_before_the_first_is_asked(serving: Serving) -> None:
    """Of 30 conversations, all first turns were lost. Asked one at a time, the first would be asked before the others counted."""
    turns = tuple(dataclasses.replace(e, follows=str(at - 1) if at % 2 else "") for at, e in enumerate(suite_of(60).examples))
    suite = dataclasses.replace(suite_of(60), examples=turns)
    server = serving(FINE)
    model = f"{server.url}#m"
    with AnswerStore() as store:
        for example in turns[::2]:
            request = Request(messages=example.messages, max_new_tokens=10, temperature=0.0)
            store.count_lost(remote_engine(model).digest, request)
    with pytest.raises(BudgetReachedError):
        run_suite(model, suite, RunSettings(spending=priced(30 * 0.078), concurrency=1))
    assert server.bodies == []


def test_looking_up_what_is_answered_is_shown_while_it_lasts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 100,000 questions it takes a while, in which there was no bar."""
    monkeypatch.setattr("nomoat.asking.answers.LOOKED_UP_AT_ONCE", 2)
    requests = [Request(messages=example.messages, max_new_tokens=10) for example in suite_of(6).examples]
    shown: list[int] = []
    with nomoat.load("fake:") as model, AnswerStore() as store:
        collect(model, requests[:5], store=store, spending=priced(), concurrency=1)
        collect(model, requests, store=store, spending=priced(), concurrency=1, show=shown.append)
    assert shown == [4, 2, 1, 0]


@pytest.mark.parametrize("metric", ["exact", "choice"])
def test_bar_is_there_before_anything_is_looked_up(metric: Metric, monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[tuple[str, int, int]] = []
    asked = quiz(2, metric, choices=("yes", "no") if metric == "choice" else ())
    looked_up_first: list[bool] = []
    for name in ("answer", "choice_scores"):
        monkeypatch.setattr(AnswerStore, name, lambda *_given: looked_up_first.append(not shown))
    run_suite("fake:", asked, RunSettings(progress=lambda *told: shown.append(told)))
    assert shown[0] == ("fake:", 0, 2)
    assert looked_up_first and not any(looked_up_first)


def test_calls_left_under_way_after_ctrl_c_count_in_later_runs(serving: Serving, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of three calls, one is answered, one refused, and one is held for longer than a person waits."""
    go_on = threading.Event()

    def held(handler: BaseHTTPRequestHandler) -> None:
        go_on.wait(60)
        FINE(handler)

    server = serving(by_question({"question 1": say(400, {"error": {"message": "no"}}), "question 2": held}, FINE))
    requests = [Request(messages=example.messages, max_new_tokens=10) for example in suite_of(3).examples]

    def interrupt(num_open: int) -> None:
        if num_open == 1:
            wait_until(lambda: len(server.bodies) == 3, "three questions")
            raise KeyboardInterrupt

    monkeypatch.setattr("nomoat.responder.GRACE_SECONDS", 0.0)
    before = set(threading.enumerate())
    with nomoat.load(f"{server.url}#m") as model, AnswerStore() as store:
        with pytest.raises(KeyboardInterrupt):
            collect(model, requests, store=store, spending=priced(), concurrency=3, show=interrupt)
        lost = [store.num_lost(model.digest, request) for request in requests]
        go_on.set()
        for thread in {one for one in threading.enumerate() if one.name == "answer"} - before:
            thread.join()
        assert lost == [store.num_lost(model.digest, request) for request in requests] == [0, 0, 1]


def test_answers_that_cost_nothing_are_not_waited_for_after_ctrl_c(serving: Serving) -> None:
    go_on = threading.Event()

    def held(handler: BaseHTTPRequestHandler) -> None:
        go_on.wait(60)
        FINE(handler)

    server = serving(by_question({"question 1": held}, FINE))
    requests = [Request(messages=example.messages, max_new_tokens=10) for example in suite_of(2).examples]

    def interrupt(num_open: int) -> None:
        if num_open == 1:
            wait_until(lambda: len(server.bodies) == 2, "two questions")
            raise KeyboardInterrupt

    before, begun = set(threading.enumerate()), time.monotonic()
    with nomoat.load(f"{server.url}#m") as model, AnswerStore() as store:
        with pytest.raises(KeyboardInterrupt):
            collect(model, requests, store=store, spending=Spending(), concurrency=2, show=interrupt)
        waited = time.monotonic() - begun
        go_on.set()
        for thread in {one for one in threading.enumerate() if one.name == "answer"} - before:
            thread.join()
    assert waited < 20


def test_what_is_spent_stays_spent_though_somebody_removes_what_it_was_for(serving: Serving) -> None:
    request = Request(messages=suite_of(1).examples[0].messages, max_new_tokens=10)
    spent = priced(1.0)
    assert spent.budget is not None
    with nomoat.load(f"{serving(FINE).url}#m") as model, AnswerStore() as store:
        store.count_lost(model.digest, request)
        count_earlier(model, [request], store=store, spending=spent)
        before = spent.budget.spent_usd
        store.forget()
        count_earlier(model, [request], store=store, spending=spent)
    assert spent.budget.spent_usd == before > 0


def test_no_question_leaves_for_a_server_without_room_for_its_answer(serving: Serving, monkeypatch: pytest.MonkeyPatch) -> None:
    """The disk fills while the first two are answered."""
    server = serving(FINE)
    usage = shutil.disk_usage("/")
    monkeypatch.setattr("nomoat.system_errors.shutil.disk_usage", lambda _: usage._replace(free=10**7 - (len(server.bodies) == 2)))
    requests = [Request(messages=one.messages, max_new_tokens=10) for one in suite_of(9).examples]
    with nomoat.load(f"{server.url}#m") as model, AnswerStore() as store:
        with pytest.raises(NotEnoughDiskError, match=r"(?m)runs` needs 10 MB, and its disk has 10 MB free$"):
            collect(model, requests, store=store, spending=priced(), concurrency=1)
        assert [store.answer(model.digest, request) is not None for request in requests] == [True] * 2 + [False] * 7
    assert len(server.bodies) == 2
    assert run_suite("fake:", suite_of(2)).outcomes  # what is computed here is asked as before


def test_answers_that_came_and_could_not_be_kept_are_told_with_their_cost_and_count_as_lost(serving: Serving) -> None:
    """SQLite says the same of a file that may get no longer and of a full disk; a count still fits into the pages that are there."""
    together = threading.Barrier(3, timeout=PATIENCE_SECONDS)

    def long_one(handler: BaseHTTPRequestHandler) -> None:
        together.wait()
        counted("yes " * 9000, 10, 1)(handler)

    server = serving(*[long_one] * 3, FINE)
    requests = [Request(messages=one.messages, max_new_tokens=10) for one in suite_of(9).examples]
    with nomoat.load(f"{server.url}#m") as model, AnswerStore() as store:
        (num_pages,) = store._db.connection.execute("PRAGMA page_count").fetchone()
        store._db.connection.execute(f"PRAGMA max_page_count = {num_pages}")
        spent = priced()
        with pytest.raises(NotEnoughDiskError) as caught, spent.told():
            collect(model, requests, store=store, spending=spent, concurrency=3)
        assert [store.num_lost(model.digest, request) for request in requests] == [1] * 3 + [0] * 6
    place = f"no space left on the disk of `{default_path().parent}`"
    assert caught.value.message == f"{place}; 3 answers came and could not be kept, which cost $0.036"
    assert notes_of(caught.value) == []
    assert len(server.bodies) == 3


def test_answers_that_could_not_be_kept_are_told_after_ctrl_c_too(serving: Serving) -> None:
    go_on = threading.Event()

    def long_one(handler: BaseHTTPRequestHandler) -> None:
        go_on.wait(PATIENCE_SECONDS)
        counted("yes " * 9000, 10, 1)(handler)

    server = serving(by_question({"question 0": FINE}, long_one))
    requests = [Request(messages=one.messages, max_new_tokens=10) for one in suite_of(3).examples]

    def interrupt(num_open: int) -> None:
        if num_open == 2:
            wait_until(lambda: len(server.bodies) == 3, "three questions")
            go_on.set()
            raise KeyboardInterrupt

    with nomoat.load(f"{server.url}#m") as model, AnswerStore() as store:
        (num_pages,) = store._db.connection.execute("PRAGMA page_count").fetchone()
        store._db.connection.execute(f"PRAGMA max_page_count = {num_pages}")
        with pytest.raises(KeyboardInterrupt) as caught:
            collect(model, requests, store=store, spending=priced(), concurrency=3, show=interrupt)
    place = f"no space left on the disk of `{default_path().parent}`"
    assert caught.value.__notes__ == [f"note: {place}; 2 answers came and could not be kept, which cost $0.024"]


def test_what_was_paid_is_told_once_though_more_comes_while_it_is_told(serving: Serving) -> None:
    url = serving(FINE).url
    requests = [Request(messages=one.messages, max_new_tokens=10) for one in suite_of(2).examples]
    with nomoat.load(f"{url}#m") as model, AnswerStore() as store:
        spent = priced()
        ask = functools.partial(collect, model, store=store, spending=spent, concurrency=1)
        with pytest.raises(ValueError, match="a failure") as caught, spent.told():
            try:
                with spent.told():
                    ask(requests[:1])
                    raise ValueError("a failure")
            finally:
                ask(requests)
    assert [note.partition(" came")[0] for note in caught.value.__notes__] == [f"note: 2 answers of `{url}#m`"]


def test_more_spent_than_may_be_is_said(serving: Serving) -> None:
    """The server counts a thousand times the tokens: $12 for an answer that $0.078 were set aside for."""
    server = serving(counted("yes", 10_000, 1000))
    evaluation = run_suite(f"{server.url}#m", suite_of(1), RunSettings(spending=priced(0.2)))
    assert evaluation.notes == (
        "more than the budget of $0.20 is spent, or may be: a server counted more tokens than it was allowed, or earlier tries at "
        "these questions, lost calls included, had a higher bound or none",
    )


def test_answers_that_a_lower_limit_cut_off_count_in_the_cost_and_in_the_budget(serving: Serving) -> None:
    """Each reads 9 tokens for $0.009; three of four come to $0.020 for 10 of thinking, and then to $0.004 as the fourth did."""
    server = serving(thinking("yes", 300))
    model = f"{server.url}#m"
    assert run_suite(model, suite_of(4), RunSettings(spending=priced())).side.cost_usd == pytest.approx(3 * 0.029 + 0.013)
    whole = run_suite(model, suite_of(4), RunSettings(spending=priced(), max_new_tokens=400))
    assert whole.side.cost_usd == pytest.approx(3 * 0.029 + 4 * 0.013)
    assert whole.side.cost_usd_per_1000 == pytest.approx(13)
    assert whole.notes == (f"the cost of `{model}` in total holds $0.087 for 3 answers asked for before with another limit",)
    spending = priced(0.2)
    again = run_suite(model, suite_of(4), RunSettings(spending=spending, max_new_tokens=400))
    assert spending.budget is not None and spending.budget.spent_usd == pytest.approx(3 * 0.029 + 4 * 0.013)
    assert (again.side.cost_usd, len(server.bodies)) == (whole.side.cost_usd, 7)


def test_whole_answers_with_a_lower_limit_are_not_told_as_cut_off(serving: Serving) -> None:
    """Without a limit of one's own, the suite's holds, and what was asked for with another is asked for again."""
    server = serving(counted("yes", 9, 2))
    model = f"{server.url}#m"
    run_suite(model, suite_of(2), RunSettings(spending=priced(), max_new_tokens=3))
    again = run_suite(model, suite_of(2), RunSettings(spending=priced()))
    assert again.notes == (f"the cost of `{model}` in total holds $0.026 for 2 answers asked for before with another limit",)
    assert (again.side.cost_usd, len(server.bodies)) == (pytest.approx(4 * 0.013), 4)


def test_cached_prompts_at_the_full_price_are_said(serving: Serving) -> None:
    usage = {"prompt_tokens": 9, "completion_tokens": 2, "prompt_tokens_details": {"cached_tokens": 4}}
    model = f"{serving(events(piece('yes', 'stop'), {'choices': [], 'usage': usage})).url}#m"
    evaluation = run_suite(model, suite_of(3), RunSettings(spending=priced()))
    said = f"12 tokens of prompts were in the cache of `{model}`, and are reckoned at the full price: its bill may be lower"
    assert (evaluation.notes, evaluation.side.cost_usd) == ((said,), pytest.approx(3 * 0.013))
    assert run_suite(model, suite_of(3)).notes == ()


def test_refusals_cost_nothing(serving: Serving) -> None:
    server = serving(*[say(429, {"error": {"message": "slow down"}})] * 5, FINE)
    evaluation = run_suite(f"{server.url}#m", suite_of(3), RunSettings(spending=priced(0.12), concurrency=1))
    assert (len(evaluation.outcomes), evaluation.partial) == (3, "")


def test_two_runs_at_once_pay_for_nothing_twice_and_keep_to_one_bound_together(
    serving: Serving, caplog: pytest.LogCaptureFixture
) -> None:
    """$0.2 are enough for 11 answers: see above. The first is held until the second run has found that it has to wait."""

    def held(handler: BaseHTTPRequestHandler) -> None:
        wait_until(lambda: "another run is asking" in caplog.text, "the second run")
        FINE(handler)

    server = serving(held, FINE)
    model = f"{server.url}#m"
    with ThreadPoolExecutor(2) as two_runs:
        runs = [two_runs.submit(run_suite, model, suite_of(30), RunSettings(spending=priced(0.2), concurrency=4)) for _ in range(2)]
    evaluations = [run.result() for run in runs]
    waits = f"note: another run is asking `{model}`; waiting for it, so that no answer is paid for twice{FREE_HINT}"
    assert set(caplog.messages) == {waits}  # once or twice: between its first answers and the rest, a run lets others in
    assert len(server.bodies) == 11
    assert evaluations[0].outcomes == evaluations[1].outcomes
    assert all("$0.132 is spent" in evaluation.partial for evaluation in evaluations)
    assert sum(int(evaluation.side.facts["reused answers"]) for evaluation in evaluations) == 11


def test_where_a_disk_has_no_locks_what_is_paid_for_twice_counts(serving: Serving, monkeypatch: pytest.MonkeyPatch) -> None:
    """While the one call is under way, another process keeps its own answer: that one stays, and the call counts as a lost one."""
    monkeypatch.setattr(whole_files, "_locked", lambda _file, *, wait: None)
    asked = Request(messages=suite_of(1).examples[0].messages, max_new_tokens=10, temperature=0.0)

    def overtaken(handler: BaseHTTPRequestHandler) -> None:
        with AnswerStore() as other:
            other.save_answer(remote_engine(model).digest, asked, Completion(text="yes", finish_reason="stop", usage=usage))
        counted("no", 10, 1)(handler)

    usage = Usage(prompt_tokens=20, completion_tokens=2, prefill_seconds=0.0, decode_seconds=0.0)
    model = f"{serving(overtaken).url}#m"
    spent = priced(1.0)
    evaluation = run_suite(model, suite_of(1), RunSettings(spending=spent))
    assert (evaluation.outcomes[0].answer, evaluation.outcomes[0].cost_usd) == ("yes", pytest.approx(2 * REAL_USD))
    assert spent.budget is not None and spent.budget.spent_usd == pytest.approx(3 * REAL_USD)
    assert f"1 call to `{model}` brought no whole answer, and may have been billed: at most $0.078 more" in evaluation.notes
    later = priced(1.0)
    run_suite(model, suite_of(1), RunSettings(spending=later))
    assert later.budget is not None and later.budget.spent_usd == pytest.approx(2 * REAL_USD + 0.078)


def test_what_another_run_has_computed_meanwhile_is_not_computed_again() -> None:
    """Here the other run is within the first question: it answers the second, and its likelihoods."""
    requests = [Request(prompt=text) for text in "ab"]
    choices = ("yes", "no")

    class Overtaken(FakeEngine):
        asked = 0

        def generate(self, request: Request) -> Iterator[Chunk]:
            Overtaken.asked += 1
            with AnswerStore() as other:
                other.save_answer(self.digest, requests[1], Completion(text="other's", finish_reason="stop", usage=usage))
                scores = ChoiceScores(scores=(ContinuationScore(log_probability=-1.0, num_tokens=1),) * 2, seconds=1.0)
                other.save_choice_scores(self.digest, requests[1], choices, scores)
            return super().generate(request)

        def score(self, request: Request, continuations: Sequence[str]) -> list[ContinuationScore]:
            assert request != requests[1]
            return super().score(request, continuations)

    usage = Usage(prompt_tokens=1, completion_tokens=1, prefill_seconds=0.0, decode_seconds=0.0)
    model = Responder("fake:", Overtaken())
    with AnswerStore() as store:
        collected = collect(model, requests, store=store, spending=Spending(), concurrency=1)
        assert (Overtaken.asked, collected.num_reused, collected.answers[requests[1]].text) == (1, 1, "other's")
        found = collect_scores(model, [(request, choices) for request in requests], store=store)
    assert isinstance(found[1], ChoiceScores) and found[1].seconds == 1.0


def test_choices_kept_with_more_unread_than_is_asked_for_are_read_anew_and_replaced() -> None:
    """By whoever wants to know their shares, after whoever wanted the likeliest alone; not the other way round."""
    question = (Request(prompt="a"), ("yes", "no"))
    yes = ContinuationScore(log_probability=-1.0, num_tokens=1)

    def scores(max_unread: float) -> tuple[ContinuationScore, ...]:
        no = ContinuationScore(log_probability=-4.0 if max_unread else -9.0, num_tokens=1, is_bound=max_unread > 0)
        return yes, no

    engine = Choosing(scores)
    model = Responder("fake:", engine)

    def collected(store: AnswerStore, max_unread: float) -> list[float]:
        (found,) = collect_scores(model, [question], store=store, max_unread=max_unread)
        assert isinstance(found, ChoiceScores) and matching.likeliest(found.scores) == 0
        return [score.log_probability for score in found.scores]

    with AnswerStore() as store:
        assert [collected(store, most) for most in (math.inf, math.inf, 0.06)] == [[-1.0, -4.0]] * 3
        assert kept_scores(model.scores_digest, [question], store, max_unread=0.04) == {}
        assert [collected(store, most) for most in (0.0, math.inf)] == [[-1.0, -9.0]] * 2
    assert engine.max_unread == [math.inf, 0.0]


def test_what_is_kept_is_looked_up_once_before_a_server_is_asked(serving: Serving, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a budget, too, of which earlier answers and lost calls count."""
    server = serving(FINE)
    model = responder.load(f"{server.url}#m")
    spending = Spending(max_cost_usd=1.0, input_usd_per_million=1.0, output_usd_per_million=1.0)
    looked_up: list[Request] = []
    plain = AnswerStore.answer

    def counting(store: AnswerStore, digest: str, request: Request) -> Completion | None:
        assert not server.bodies
        looked_up.append(request)
        return plain(store, digest, request)

    monkeypatch.setattr(AnswerStore, "answer", counting)
    requests = [Request(messages=example.messages, max_new_tokens=5) for example in suite_of(10).examples]
    with AnswerStore() as store:
        collected = collect(model, requests, store=store, spending=spending, concurrency=2)
    assert (len(collected.answers), sorted(looked_up, key=requests.index)) == (10, requests)


def test_budget_without_a_price_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-1")
    monkeypatch.delenv("NOMOAT_OFFLINE")
    with pytest.raises(UsageError) as caught:
        run_suite("openai:gpt-99", suite_of(3), RunSettings(spending=Spending(max_cost_usd=1.0)))
    assert caught.value.message == "the price of `openai:gpt-99` is not known, and the budget cannot be kept without it"
    assert caught.value.hint == GIVE_PRICE


class Elsewhere(FakeEngine):
    """Asks others, nobody knows whom: `auto` does."""

    is_local = False


def test_what_is_sent_by_one_of_two_models_can_be_neither_bounded_nor_told_beforehand() -> None:
    auto = Responder("auto", Elsewhere())
    with pytest.raises(UsageError) as caught:
        run_suite(auto, suite_of(3), RunSettings(spending=priced(1.0)))
    assert caught.value.message == "what `auto` sends away cannot be counted, and the budget cannot be kept without it"
    message = r"(?m)^what `auto` would send, and to whom, is not known beforehand$"
    with pytest.raises(UsageError, match=message), AnswerStore() as store:
        preview_requests(auto, [Request(prompt="x")], spending=priced(), store=store)
    workers = Responder("smollm2-135m", Elsewhere())  # on other machines, which take no price
    assert len(run_suite(workers, suite_of(3), RunSettings(spending=priced(1.0))).outcomes) == 3
    with AnswerStore() as store:
        assert preview_requests(workers, [Request(prompt="y")], spending=priced(), store=store) is None


def test_one_price_is_not_two_models(serving: Serving) -> None:
    one, other = (f"{serving(FINE).url}#m" for _ in range(2))
    with pytest.raises(UsageError, match="one price is given for two models"):
        run_duel(one, other, suite_of(2), RunSettings(spending=priced()))
    with pytest.raises(UsageError, match="a price has two parts"):
        Spending(input_usd_per_million=1.0)
    checked = priced()
    for server in (one, other):
        checked.require_one_server([server])
    with responder.load(one) as model, responder.load(other) as second:
        checked.pricing(model)
        with pytest.raises(UsageError) as caught:
            checked.pricing(second)
    assert caught.value.message == f"one price is given for two models, `{one}` and `{other}`"
    assert re.findall(r'^api = "(.+)"$', str(caught.value.hint), re.MULTILINE) == [one, other]


def test_duel_with_a_budget_compares_what_both_answered(serving: Serving) -> None:
    server = serving(FINE)
    duel = run_duel(f"{server.url}#m", "fake:", suite_of(30), RunSettings(spending=priced(0.2)))
    assert duel.verdict.num_examples == len(duel.left.outcomes) == len(duel.right.outcomes) == 11
    assert duel.verdict.partial.startswith("the budget of $0.20 is reached")
    mirrored = run_duel("fake:", f"{server.url}#m", suite_of(30), RunSettings(spending=priced(0.2)))
    assert mirrored.verdict.num_examples == len(mirrored.left.suite.examples) == 11
    assert len(server.bodies) == 11


def test_duel_that_money_ended_says_so(serving: Serving) -> None:
    equal = Responder("equal", FakeEngine(answers={f"question {at}": "yes" for at in range(30)}))
    verdict = run_duel(f"{serving(FINE).url}#m", equal, suite_of(30), RunSettings(spending=priced(0.2))).verdict
    assert (verdict.num_examples, verdict.winner) == (11, "undecided")
    assert verdict.notes[-1].endswith(
        "whenever one stops: the rest was not asked, for want of money (`--max-cost`, in Python: `max_cost_usd`)"
    )


def test_money_that_ends_a_run_is_named_though_a_question_failed_before(serving: Serving) -> None:
    """Every question fails in the first round, and every one is answered in the second, until $0.2 are spent."""
    equal = Responder("equal", FakeEngine(answers={f"question {at}": "yes" for at in range(30)}))
    server = serving(*[say(400, {"error": {"message": "no"}})] * 2, FINE)
    verdict = run_duel(f"{server.url}#m", equal, suite_of(30), RunSettings(spending=priced(0.2), concurrency=2)).verdict
    assert (verdict.num_examples, len(server.bodies)) == (11, 13)
    assert verdict.partial.startswith("the budget of $0.20 is reached")
    assert verdict.notes[-1].endswith("the rest was not asked, for want of money (`--max-cost`, in Python: `max_cost_usd`)")


def test_two_servers_share_the_budget(serving: Serving, empty_home: Path) -> None:
    """$0.4 for 30 questions: the left side may spend half, which is 11 answers; the right side gets no more than these."""
    servers = [serving(FINE), serving(FINE)]
    empty_home.mkdir()
    row = '[[price]]\napi = "{}#m"\ninput = 1000.0\noutput = 2000.0\nas_of = "2026-11"\nsource = "contract"\n'
    (empty_home / "prices.toml").write_text("".join(row.format(server.url) for server in servers))
    refs = [f"{server.url}#m" for server in servers]
    duel = run_duel(*refs, suite_of(30), RunSettings(spending=Spending(max_cost_usd=0.4)), stop_early=False)
    assert [len(server.bodies) for server in servers] == [11, 11]
    assert duel.verdict.num_examples == 11
    assert "$0.20 is kept for who is asked next" in duel.verdict.partial


def test_a_side_says_what_all_its_answers_cost_also_those_that_are_not_compared(serving: Serving) -> None:
    """30 questions, 2 of the same words; the other side has answers to 4. 29 were paid for."""
    suite = suite_of(30)
    examples = tuple(dataclasses.replace(e, messages=suite.examples[0].messages) if e.id == "1" else e for e in suite.examples)
    suite = dataclasses.replace(suite, examples=examples)
    server = serving(FINE)
    one = run_suite(f"{server.url}#m", suite, RunSettings(spending=priced(5.0)))
    other = run_suite("fake:", dataclasses.replace(suite, examples=examples[:4]))
    assert len(server.bodies) == 29
    for side in (one.side, compare(*in_common([one, other])).left):
        assert side.cost_usd == pytest.approx(29 * REAL_USD)
    assert compare(*in_common([one, other])).num_examples == 4


def test_models_of_a_table_are_asked_no_more_than_one_before_them_has_answered(serving: Serving) -> None:
    """$0.2 for 30 questions is 11 answers, as above; the models after it are asked these."""
    here = [Responder(name, FakeEngine(answers={f"question {at}": name for at in range(30)})) for name in ("yes", "no")]
    shown: list[tuple[str, int, int]] = []
    settings = RunSettings(spending=priced(0.2), concurrency=2, progress=lambda *row: shown.append(row))
    board = run_table([f"{serving(FINE).url}#m", *here], suite_of(30), settings).leaderboard
    assert {(model, total) for model, _, total in shown[1:] if model in ("yes", "no")} == {("yes", 11), ("no", 11)}
    assert board.num_examples == 11
    assert any("11 of 30 questions were answered by" in note for note in board.notes)


def test_what_a_server_refused_is_said_of_its_kept_answers_too(serving: Serving) -> None:
    server = serving(say(400, {"error": {"message": "Unsupported value: 'temperature' does not support 0"}}), FINE)
    note = "`m` at `127.0.0.1` refuses `temperature`: its answers are its own sampling, not the likeliest words"
    for ref in (f"{server.url}#m", f"{server.url}#m", f"stored:quiz/{server.url}#m"):
        assert note in run_suite(ref, suite_of(3), RunSettings(concurrency=1)).notes
    assert len(server.bodies) == 4
    judge = serving(say(400, {"error": {"message": "Unsupported value: 'temperature' does not support 0"}}), counted("[[A]]", 10, 1))
    sides = [Responder(name, FakeEngine(answers={"question 0": name})) for name in ("left", "right")]
    for _ in range(2):
        notes = run_judged_duel(*sides, suite_of(1), f"{judge.url}#m", RunSettings(concurrency=1)).verdict.notes
        assert note in notes
    assert len(judge.bodies) == 3


def test_one_question_that_fails_loses_no_other(serving: Serving) -> None:
    moderated = say(403, {"error": {"message": "Your input was flagged for the following reasons: violence", "code": 403}})
    for act in (half, reset, say(500, {"error": {"message": "oops"}}), say(400, {"error": {"message": "too long"}}), moderated):
        server = serving(by_question({"question 3": act}, FINE))
        evaluation = run_suite(f"{server.url}#m", suite_of(8), RunSettings(concurrency=4))
        assert [outcome.example_id for outcome in evaluation.outcomes] == list("0124567")
        assert evaluation.partial.startswith("1 question got no answer: ")
        asked = len(server.bodies)
        assert len(run_suite(f"{server.url}#m", suite_of(8), RunSettings(concurrency=4)).outcomes) == 7
        assert {body["messages"][-1]["content"] for body in server.bodies[asked:]} == {"question 3"}


def test_one_question_longer_than_the_context_loses_no_other() -> None:
    requests = [Request(prompt=words) for words in ("a b", "a " * 60, "b c")]
    with AnswerStore() as store:
        model = Responder("short", FakeEngine(context_tokens=50))
        collected = collect(model, requests, store=store, spending=priced(), concurrency=1)
    assert list(collected.answers) == [requests[0], requests[2]]
    assert isinstance(collected.failed[requests[1]], ContextExceededError)
    assert (collected.failure, collected.num_failed) == (collected.failed[requests[1]], 1)


def test_an_answer_that_a_shorter_context_ended_is_asked_anew_and_replaced(tmp_path: Path) -> None:
    weights, request = tmp_path / "m.gguf", Request(prompt="the fox and", max_new_tokens=40)
    write_tiny_gguf(weights)
    found = []
    with AnswerStore() as store:
        for context_tokens in (16, 16, 200, 16, 200):
            with nomoat.load(str(weights), context_tokens=context_tokens) as model:
                collected = collect(model, [request], store=store, spending=priced(), concurrency=1)
                found.append((collected.answers[request].usage.completion_tokens, collected.num_reused))
                assert collected.answers[request] == store.answer(model.digest, request)
    (short, _), _, (whole, _), *_ = found
    assert short < whole
    assert found == [(short, 0), (short, 1), (whole, 0), (whole, 1), (whole, 1)]


def test_one_text_longer_than_the_cache_loses_no_other() -> None:
    class Short(FakeEngine):
        def generate(self, request: Request) -> Iterator[Chunk]:
            if len(request.prompt or "") > 50:
                raise CacheExceededError("no room")
            return super().generate(request)

    requests = [Request(prompt=words) for words in ("a b", "a " * 60, "b c")]
    with AnswerStore() as store:
        collected = collect(Responder("short", Short()), requests, store=store, spending=priced(), concurrency=1)
    assert list(collected.answers) == [requests[0], requests[2]]
    assert isinstance(collected.failed[requests[1]], CacheExceededError)


def test_a_model_that_has_no_memory_at_all_ends_the_run() -> None:
    class Unready(FakeEngine):
        def generate(self, request: Request) -> Iterator[Chunk]:
            raise NotEnoughMemoryError("the system does not give 9.0 GB of memory")

    requests = [Request(prompt=words) for words in ("a b", "b c")]
    with AnswerStore() as store, pytest.raises(NotEnoughMemoryError, match=r"9\.0 GB"):
        collect(Responder("unready", Unready()), requests, store=store, spending=priced(), concurrency=1)


def test_what_was_sent_for_a_question_that_failed_counts_as_sent(serving: Serving, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three times where the answer breaks off each time; also where a duel looks at what both sides answered."""
    server = serving(by_question({"question 1": half, "question 3": say(400, {"error": {"message": "no"}})}, FINE))
    monkeypatch.delenv("NOMOAT_OFFLINE")
    monkeypatch.setenv("NOMOAT_GATEWAYS", server.url)
    engine = remote_engine(f"{server.url}#m")
    with Responder("r", engine) as model:
        evaluation = run_suite(model, suite_of(4), RunSettings(concurrency=1))
        sent = sum(int(headers["content-length"]) for headers in server.headers)
        assert (len(server.bodies), len(evaluation.outcomes)) == (6, 2)
        assert evaluation.side.bytes_out == sent > sum(outcome.bytes_out for outcome in evaluation.outcomes)
        short = dataclasses.replace(evaluation, outcomes=evaluation.outcomes[:1])
        cut, _ = in_common([evaluation, short])
        assert (len(cut.outcomes), cut.side.bytes_out) == (1, sent)
        spent = Spent(pricing=priced().pricing(model))
        with AnswerStore() as store:
            requests = [Request(messages=example.messages) for example in suite_of(4).examples]
            collected = collect(model, requests, store=store, spending=priced(), concurrency=1)
            spent.add(collected)
        assert spent.bytes_out == sum(int(headers["content-length"]) for headers in server.headers[6:])


@pytest.mark.parametrize("first", [half, say(503, {"error": {"message": "busy"}})])
def test_what_was_sent_for_a_question_that_the_budget_ended_counts_as_sent(
    first: Act, serving: Serving, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once $0.05 of the $0.1 are spent while the first question waits for its answer, $0.078 for asking again do not fit."""
    limited = priced(0.1)
    assert limited.budget is not None
    count = limited.budget.count

    def act(handler: BaseHTTPRequestHandler) -> None:
        count(0.05)
        first(handler)

    server = serving(act)
    monkeypatch.delenv("NOMOAT_OFFLINE")
    monkeypatch.setenv("NOMOAT_GATEWAYS", server.url)
    engine = remote_engine(f"{server.url}#m")
    requests = [Request(messages=example.messages, max_new_tokens=10) for example in suite_of(2).examples]
    with Responder(f"{server.url}#m", engine) as model, AnswerStore() as store:
        collected = collect(model, requests, store=store, spending=limited, concurrency=1)
    assert isinstance(collected.failure, BudgetReachedError)
    assert [int(headers["content-length"]) for headers in server.headers] == [collected.bytes_in_vain]


@pytest.mark.parametrize(
    ("status", "said"), [(401, "no"), (403, "no"), (404, "no"), (403, "Your account is suspended: your requests were flagged")]
)
def test_wrong_key_unknown_model_and_a_closed_account_end_the_run_at_once(serving: Serving, status: int, said: str) -> None:
    server = serving(say(status, {"error": {"message": said}}))
    with pytest.raises(RemoteError, match=f"answered {status}: {said}"):
        run_suite(f"{server.url}#m", suite_of(50), RunSettings(concurrency=2))
    assert len(server.bodies) <= 4


def test_server_that_only_fails_is_given_up(serving: Serving) -> None:
    server = serving(say(400, {"error": {"message": "never"}}))
    with pytest.raises(RemoteError, match="answered 400: never"):
        run_suite(f"{server.url}#m", suite_of(50), RunSettings(concurrency=1))
    assert len(server.bodies) == 5


def test_question_the_content_filter_stops_counts_as_answered(serving: Serving) -> None:
    refused = say(400, {"error": {"message": "filtered", "code": "content_filter"}})
    server = serving(by_question({"question 1": refused}, FINE))
    evaluation = run_suite(f"{server.url}#m", suite_of(3), RunSettings(spending=priced()))
    assert [outcome.score for outcome in evaluation.outcomes] == [1.0, 0.0, 1.0]
    assert evaluation.side.cost_usd == pytest.approx(2 * REAL_USD)  # what was refused before any work cost nothing
    again = RunSettings(spending=priced(max_cost_usd=2.5 * REAL_USD))
    assert run_suite(f"{server.url}#m", suite_of(3), again).partial == ""
    assert again.spending.budget is not None and again.spending.budget.spent_usd == pytest.approx(2 * REAL_USD)
    assert any(note.startswith("1 of 3 questions were stopped by the content filter") for note in evaluation.notes)


# ---------------------------------------------------------------- the process ends
def command(server: Server, suite: Path, *more: str) -> list[str]:
    return ["eval", f"{server.url}#m", str(suite), "--concurrency", "4", "--json", *more]


def written_suite(folder: Path, num_examples: int) -> Path:
    path = folder / "quiz.jsonl"
    path.write_text("".join(f'{{"input": "question {at}", "target": "yes"}}\n' for at in range(num_examples)))
    return path


def slowly(handler: BaseHTTPRequestHandler) -> None:
    time.sleep(0.05)
    FINE(handler)


def test_kill_9_loses_only_what_was_under_way_and_nothing_is_paid_twice(serving: Serving, tmp_path: Path) -> None:
    server = serving(slowly)
    suite = written_suite(tmp_path, 60)
    killed = 0
    for at in (10, 30):  # killed twice, at different moments
        process = subprocess.Popen([shell.NOMOAT, *command(server, suite)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        wait_until(lambda at=at: len(server.bodies) >= at, "the questions")
        process.kill()
        process.wait(timeout=PATIENCE_SECONDS)
        killed += 1
    done = shell.nomoat(*command(server, suite))
    said = json.loads(done.stdout)
    assert said["num_examples"] == 60
    assert int(said["side"]["facts"]["reused answers"]) >= 30 - 4 * killed
    asked = [body["messages"][-1]["content"] for body in server.bodies if body]  # a killed process may have sent half a request
    assert len(set(asked)) == 60
    assert len(asked) <= 60 + 4 * killed


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no Ctrl-C for one process alone")
def test_ctrl_c_waits_for_answers_under_way_and_keeps_them(serving: Serving, tmp_path: Path) -> None:
    def held(handler: BaseHTTPRequestHandler) -> None:
        time.sleep(0.5)
        FINE(handler)

    server = serving(*[FINE] * 4, held)
    run = command(server, written_suite(tmp_path, 60), "--price-in", "1000", "--price-out", "2000")
    process = subprocess.Popen([shell.NOMOAT, *run], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    wait_until(lambda: len(server.bodies) >= 8, "the questions")
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=PATIENCE_SECONDS)
    assert process.returncode == 130
    assert "\nstopped: what was answered so far is kept in " in f"\n{errors}"
    asked = len(server.bodies)
    with AnswerStore() as store:
        (kept,) = store._db.connection.execute("SELECT count(*) FROM answers").fetchone()
    assert kept == asked
    assert errors.splitlines()[-1:] == [  # before it, where they took a moment, what is waited for
        f"note: {asked} answers of `{server.url}#m` came before, which cost {dollars(asked * REAL_USD)}: "
        "what came is kept, and is not asked again"
    ]


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no Ctrl-C for one process alone")
def test_ctrl_c_ends_a_run_that_waits_for_another(serving: Serving, tmp_path: Path) -> None:
    server = serving(FINE)
    digest, locks = remote_engine(f"{server.url}#m").digest, default_path().with_name("locks")
    run = command(server, written_suite(tmp_path, 2), "--price-in", "1", "--price-out", "1")
    with whole_files.alone(default_path().with_name(digest), locks=locks):
        process = subprocess.Popen([shell.NOMOAT, *run], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        assert process.stderr is not None
        assert process.stderr.readline().startswith(f"note: another run is asking `{server.url}#m`; waiting for it")
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=PATIENCE_SECONDS)
    assert (process.returncode, server.bodies) == (130, [])
    assert errors == "stopped before anything was asked\n"


def test_partial_result_says_so_on_stderr_and_by_its_exit_code(serving: Serving, tmp_path: Path) -> None:
    suite = written_suite(tmp_path, 30)
    price = ("--max-cost", "0.2", "--price-in", "1000", "--price-out", "2000")
    done = shell.nomoat(*command(serving(FINE), suite, *price))
    assert done.returncode == 3
    assert done.stderr.startswith("partial: the budget of $0.20 is reached: ")
    said = json.loads(done.stdout)
    assert (said["num_examples"] < 30, said["partial"] != "") == (True, True)


def test_python_gets_the_outcomes_there_are(serving: Serving) -> None:
    assert len(nomoat.evaluate(f"{serving(FINE).url}#m", suite_of(30), spending=priced(0.2))) == 11
