"""Answers survive whatever happens to the process, and other processes at the same time."""

from __future__ import annotations

import dataclasses
import io
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from patience import PATIENCE_SECONDS
from small_disk import FILL, run_on_small_disk

from nomoat import paths, system_errors, whole_files
from nomoat.asking import database
from nomoat.asking.salvage import LEAF, DamagedFile
from nomoat.asking.store import (
    IF_DAMAGED,
    SCHEMA_VERSION,
    AnswerStore,
    ChoiceScores,
    _key,
    _opened,
    _sealed,
    damaged_files,
    default_path,
    save_readable,
)
from nomoat.errors import BadFileError, DamagedError, NotEnoughDiskError, UsageError
from nomoat.records import Completion, ContinuationScore, Message, Outcome, Request, TokenLikelihood, ToolCall, Usage


def asking(text: str, **changes: object) -> Request:
    return Request(messages=(Message(role="user", content=text),), **changes)  # type: ignore[arg-type]


TOOLS = {"tools": ('{"type": "function", "function": {"name": "f"}}',)}


def answering(text: str) -> Completion:
    usage = Usage(prompt_tokens=3, completion_tokens=2, prefill_seconds=0.25, decode_seconds=0.5, bytes_out=7)
    return Completion(text=text, finish_reason="length", usage=usage)


def test_answer_comes_back_whole_after_the_store_was_closed() -> None:
    with AnswerStore() as store:
        assert store.answer("m", asking("왜?")) is None
        store.save_answer("m", asking("왜?"), answering("그냥\x00\n"))
    with AnswerStore() as store:
        assert store.answer("m", asking("왜?")) == answering("그냥\x00\n")
    assert default_path() == paths.runs() / "answers.sqlite"


def test_a_store_that_was_closed_says_so_and_not_that_its_file_is_bad() -> None:
    with AnswerStore() as store:
        pass
    store.close()
    for ask in (lambda: store.answer("m", asking("왜?")), lambda: store.save_answer("m", asking("왜?"), answering("그냥"))):
        with pytest.raises(UsageError, match=r"answers\.sqlite` was closed") as raised:
            ask()
        assert raised.value.hint == "open it again, or leave it when all has been asked"


def test_likelihoods_of_an_answer_are_not_kept() -> None:
    likelihood = TokenLikelihood(token_id=1, content=b"\xea", log_probability=-1.0)
    with AnswerStore() as store:
        store.save_answer("m", asking("왜?", top_logprobs=0), dataclasses.replace(answering("그냥"), likelihoods=(likelihood,)))
        assert store.answer("m", asking("왜?", top_logprobs=0)) == answering("그냥")


def test_a_store_may_be_named_by_a_text(tmp_path: Path) -> None:
    with AnswerStore(str(tmp_path / "mine.sqlite")) as store:
        assert store.path == tmp_path / "mine.sqlite"


def test_answer_belongs_to_one_model_and_one_request_with_its_settings() -> None:
    with AnswerStore() as store:
        store.save_answer("m", asking("why?"), answering("so"))
        for model, request in (
            ("n", asking("why?")),
            ("m", asking("why")),
            ("m", asking("why?", max_new_tokens=5)),
            ("m", asking("why?", temperature=0.5)),
            ("m", Request(prompt="why?")),
        ):
            assert store.answer(model, request) is None


def test_limits_are_those_of_one_model_s_answers() -> None:
    with AnswerStore() as store:
        for model, limit in (("m", 500), ("m", 20), ("m", None), ("n", 7)):
            store.save_answer(model, asking("why?", max_new_tokens=limit), answering("so"))
        store.count_lost("m", asking("why?", max_new_tokens=9))
        store.save_notes("m", ["a note"])
        assert (store.limits("m"), store.limits("none")) == ([20, 500], [])


def test_limits_are_read_of_all_answers_once_and_known_whoever_adds_one() -> None:
    looks: list[str] = []
    with AnswerStore() as store, AnswerStore() as other:
        store.save_answer("m", asking("0", max_new_tokens=500), answering("x"))
        store._db.connection.set_trace_callback(lambda said: looks.append(said) if "DISTINCT" in said else None)
        for added, limit in enumerate((500, 20, 30), start=1):
            store.save_answer("m", asking(f"a{added}", max_new_tokens=limit), answering("x"))
            assert limit in store.limits("m")
        assert len(looks) == 1
        other.save_answer("m", asking("b", max_new_tokens=7), answering("x"))
        assert store.limits("m") == [7, 20, 30, 500]
        store.forget()
        assert store.limits("m") == []


def test_of_many_requests_those_asked_before_are_found_without_making_the_others() -> None:
    made: list[int] = []

    def with_seed(seed: int) -> tuple[Request, Request]:
        made.append(seed)
        return asking("why?", seed=seed), asking("why?", seed=seed, max_new_tokens=7)

    with AnswerStore() as store:
        for model, request in (
            ("m", with_seed(70)[0]), ("m", with_seed(9)[1]), ("m", with_seed(10**11)[0]), ("n", with_seed(8)[0]),
            ("m", asking("how?")), ("m", asking("how?", seed=30)),
        ):  # fmt: skip
            store.save_answer(model, request, answering("so"))
        store.save_notes("m", ["a note"])
        made.clear()
        found = store.asked_before("m", range(5, 10**10), with_seed)
        assert (found, sorted(made)) == ([with_seed(9)[1], with_seed(70)[0]], [9, 30, 70])
        store.count_lost("m", with_seed(20)[0])
        store.save_answer("m", with_seed(70)[1], answering("so"))
        made.clear()
        found = store.asked_before("m", range(5, 10**10), with_seed)
        assert ([request.seed for request in found], set(made)) == ([9, 20, 70, 70], {*range(5, 21), 30, 70})


def test_answers_of_an_earlier_version_are_still_found() -> None:
    """The key as version 0.1.0 made it, before requests had an `answer_start`: another key would pay for everything again."""
    assert _key("answer", "m", asking("안녕", max_new_tokens=8)) == "3bdf8a89d5a42f5217e5641586dd32acc6ed84eec2c8ea099d4eb3e4bc0f4d43"
    for told in (
        {"answer_start": "네"}, {"template_variables": '{"enable_thinking": false}'}, {"reasoning_effort": "none"}, TOOLS,
        {"schema_name": "event"}, {"schema_description": "in KST"}, {"verbosity": "low"},
    ):  # fmt: skip
        assert _key("answer", "m", asking("안녕", max_new_tokens=8, **told)) != _key("answer", "m", asking("안녕", max_new_tokens=8))
    gap = Request(prompt="안녕", suffix="!", max_new_tokens=8)
    assert _key("answer", "m", gap) != _key("answer", "m", dataclasses.replace(gap, suffix=""))
    named = Request(messages=(Message(role="user", content="안녕", name="alice"),), max_new_tokens=8)
    assert _key("answer", "m", named) != _key("answer", "m", asking("안녕", max_new_tokens=8))


def test_calls_of_functions_come_back_with_their_answer() -> None:
    called = dataclasses.replace(answering(""), calls=(ToolCall(id="a1", name="f", arguments='{"city": "서울"}'),))
    with AnswerStore() as store:
        store.save_answer("m", asking("왜?", **TOOLS), called)
    with AnswerStore() as store:
        assert store.answer("m", asking("왜?", **TOOLS)) == called


def test_first_answer_stays() -> None:
    with AnswerStore() as one, AnswerStore() as other:
        one.save_answer("m", asking("why?"), answering("first"))
        other.save_answer("m", asking("why?"), answering("second"))
        completion = one.answer("m", asking("why?"))
    assert completion is not None
    assert completion.text == "first"


def test_a_store_tells_that_something_was_written_by_whomever() -> None:
    with AnswerStore() as one, AnswerStore() as other:
        states = [one.state(), one.state()]
        for store in (one, other):
            store.save_answer("m", asking(f"why, {len(states)}?"), answering("so"))
            states.append(one.state())
        one.answer("m", asking("why?"))
        states.append(one.state())
    assert states[0] == states[1] and len({*states[1:4]}) == 3 and states[3] == states[4]


def test_choice_scores_belong_to_their_choices_in_their_order() -> None:
    scored = ChoiceScores(
        scores=(
            ContinuationScore(log_probability=-1.25, num_tokens=2),
            ContinuationScore(log_probability=float("-inf"), num_tokens=1),
        ),
        seconds=0.125,
    )
    with AnswerStore() as store:
        store.save_choice_scores("m", asking("x"), ["no", "yes"], scored)
        assert store.choice_scores("m", asking("x"), ["no", "yes"]) == scored
        assert store.choice_scores("m", asking("x"), ["yes", "no"]) is None
        unread = dataclasses.replace(scored.scores[1], log_probability=-9.0, is_bound=True)
        bound = dataclasses.replace(scored, scores=(scored.scores[0], unread))
        store.save_choice_scores("m", asking("x"), ["no", "yes"], bound)
        assert store.choice_scores("m", asking("x"), ["no", "yes"]) == scored
        store.save_choice_scores("m", asking("x"), ["no", "yes"], bound, replace=True)
        assert store.choice_scores("m", asking("x"), ["no", "yes"]) == bound
        assert store.answer("m", asking("x")) is None


def test_outcomes_of_a_second_run_replace_those_of_the_first() -> None:
    first = [Outcome(suite="s", example_id=name, model="m", answer="a", score=0.0) for name in ("1", "2")]
    again = [Outcome(suite="s", example_id="2", model="m", answer="b", score=1.0, category="예")]
    with AnswerStore() as store:
        store.save_outcomes("suite", "exact", "digest", first)
        store.save_outcomes("suite", "exact", "digest", again)
        store.save_outcomes("other", "exact", "digest", first)
        assert [one.outcome for one in store.outcomes(suite_sha256="suite")] == [again[0], first[0]]  # those kept last first
        assert (len(store.outcomes()), len(store.outcomes(model="m")), store.outcomes(model="n")) == (4, 4, [])


WRITER = """
import sys, time
from nomoat.asking.store import AnswerStore
from nomoat.records import Completion, Message, Request, ToolCall, Usage
usage = Usage(prompt_tokens=1, completion_tokens=1, prefill_seconds=0.0, decode_seconds=0.0)
with AnswerStore() as store:
    for at in range(int(sys.argv[2])):
        request = Request(messages=(Message(role="user", content=f"{sys.argv[1]} {at}"),))
        store.save_answer("m", request, Completion(text=str(at), finish_reason="stop", usage=usage), is_paid=at % 2 == 0)
        print(at, flush=True)
"""


def test_killed_process_loses_no_answer_it_had_saved_paid_for_or_not() -> None:
    writer = subprocess.Popen([sys.executable, "-c", WRITER, "a", "1000000"], stdout=subprocess.PIPE, text=True)
    assert writer.stdout is not None
    with writer.stdout:
        for _ in range(25):
            writer.stdout.readline()
        writer.kill()
        said = 25 + len(writer.stdout.readlines())
    assert writer.wait() != 0
    with AnswerStore() as store:
        for at in range(said):
            completion = store.answer("m", asking(f"a {at}"))
            assert completion is not None
            assert completion.text == str(at)


def test_only_what_may_have_cost_money_waits_for_the_disk() -> None:
    """Told by the statements, for no test can cut the power."""
    said: list[str] = []
    with AnswerStore() as store:
        with store._db.turn() as db:
            db.set_trace_callback(said.append)
        store.save_answer("m", asking("paid"), answering("so"))
        store.save_answer("m", asking("free"), answering("so"), is_paid=False)
        store.save_choice_scores(
            "m", asking("scored"), ["a"], ChoiceScores(scores=(ContinuationScore(log_probability=-1.0, num_tokens=1),), seconds=0.0)
        )
        store.count_lost("m", asking("lost"))
        store.save_answer("m", asking("paid too"), answering("so"))
    saved: dict[str, str] = {}
    level = "FULL"  # as it was opened
    for statement in said:
        if statement.startswith("PRAGMA synchronous"):
            level = statement.split()[-1]
        for what in ("paid too", "paid", "free", "scored", '"num"'):
            if statement.startswith("INSERT") and what in statement:
                saved.setdefault(what, level)
    assert saved == {"paid": "FULL", "free": "NORMAL", "scored": "NORMAL", '"num"': "FULL", "paid too": "FULL"}


def test_processes_that_write_at_the_same_time_all_write() -> None:
    writers = [subprocess.Popen([sys.executable, "-c", WRITER, name, "20"], stdout=subprocess.DEVNULL) for name in "abcd"]
    assert [writer.wait(timeout=PATIENCE_SECONDS) for writer in writers] == [0, 0, 0, 0]
    with AnswerStore() as store:
        assert all(store.answer("m", asking(f"{name} {at}")) is not None for name in "abcd" for at in range(20))


OPENER = """
import sys, time
from pathlib import Path
from nomoat.asking.store import AnswerStore
for round in range(20):
    while time.time() < float(sys.argv[1]) + 0.04 * round:
        pass
    AnswerStore(Path(sys.argv[2], f"{round}.sqlite")).close()
"""


def test_processes_that_open_a_new_file_together_do_not_trip_over_each_other(tmp_path: Path) -> None:
    """Without the waiting in `_use_wal`, a process in seven fails each round on two cores: 20 rounds let none of 4 through."""
    start = str(time.time() + 1.0)
    openers = [subprocess.Popen([sys.executable, "-c", OPENER, start, str(tmp_path)]) for _ in range(4)]
    assert [opener.wait(timeout=PATIENCE_SECONDS) for opener in openers] == [0, 0, 0, 0]


def test_closing_waits_for_the_turn_of_another_thread() -> None:
    """SQLite closed within another thread's statement takes the process with it."""
    store = AnswerStore()
    with store._db.turn() as db:
        closing = threading.Thread(target=store.close)
        closing.start()
        closing.join(0.05)
        assert closing.is_alive()
        assert db.execute("SELECT 1").fetchone() == (1,)
    closing.join()
    store.close()


def stored_bytes() -> bytes:
    return b"".join(path.read_bytes() for path in paths.runs().glob("answers.sqlite*"))


def fill(store: AnswerStore, count: int) -> None:
    for at in range(count):
        store.save_answer("m", asking(f"question {at}"), answering(f"secret {at}" * 100))
    store.save_outcomes("s", "exact", "m", [Outcome(suite="s", example_id="1", model="m", answer="secret", score=0.0)])
    store.save_notes("m", ["note"])
    store.count_lost("m", asking("question 0"))


def test_what_is_forgotten_is_in_no_file_also_while_another_process_has_it_open() -> None:
    with AnswerStore() as other, AnswerStore() as store:
        fill(other, 50)
        assert b"secret 49" in stored_bytes()
        assert store.forget() == (50, 1)
        assert b"secret" not in stored_bytes() and b"question" not in stored_bytes()
        assert other.answer("m", asking("question 1")) is None
        assert (other.outcomes(), other.notes("m"), other.num_lost("m", asking("question 0"))) == ([], (), 0)
        other.save_answer("m", asking("later"), answering("so"))
        assert store.answer("m", asking("later")) == answering("so")
        assert store.forget() == (1, 0)
    AnswerStore().close()


def test_forgetting_that_was_stopped_halfway_is_done_by_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    with AnswerStore() as store:
        fill(store, 50)
    with monkeypatch.context() as patch, AnswerStore() as store, pytest.raises(KeyboardInterrupt):
        patch.setattr("nomoat.asking.database.Database.shrink", lambda _self: signal.raise_signal(signal.SIGINT))
        store.forget()
    assert b"secret" in stored_bytes()
    with AnswerStore() as store:
        assert store.forget() == (0, 0)
    assert b"secret" not in stored_bytes()


def test_forgetting_waits_for_a_writer_and_says_who_reads_too_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nomoat.asking.database.LOCK_WAIT_SECONDS", 0.2)
    with AnswerStore() as other, AnswerStore() as store:
        fill(other, 2)
        reading = sqlite3.connect(default_path(), isolation_level=None)
        reading.execute("BEGIN")
        reading.execute("SELECT * FROM answers").fetchone()
        with pytest.raises(BadFileError, match="is locked by another process"):
            store.forget()
        reading.close()
        store.forget()
    assert b"secret" not in stored_bytes()


@pytest.mark.parametrize("content", [b"this is no database at all, only text\n" * 100, b"SQLite format 3\x00" + b"\xff" * 5000])
def test_damaged_file_is_named_and_not_touched(content: bytes) -> None:
    path = default_path()
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    with pytest.raises(BadFileError) as caught:
        AnswerStore()
    assert caught.value.message == f"`{path}` is damaged: file is not a database"
    assert caught.value.hint == IF_DAMAGED
    assert path.read_bytes() == content


def test_an_empty_file_was_cut_and_is_not_taken_for_a_new_one() -> None:
    AnswerStore().close()
    default_path().write_bytes(b"")
    with pytest.raises(DamagedError, match="is damaged: it is empty"):
        AnswerStore()
    assert not any(path.name.endswith(".part") for path in default_path().parent.iterdir())


def overwrite(at: int, num_bytes: int) -> None:
    with default_path().open("r+b") as file:
        file.seek(at)
        file.write(random.Random(7).randbytes(num_bytes))


def a_leaf(after: int = 4) -> int:
    """Where some page of rows begins, that has no others below it, after so many pages."""
    content = default_path().read_bytes()
    return next(at for at in range((after + 1) * 4096, len(content), 4096) if content[at] == LEAF)


@pytest.mark.parametrize(
    ("damage", "least_saved"),
    [
        pytest.param(lambda: overwrite(0, 3000), 60, id="the head"),
        pytest.param(lambda: overwrite(4096, 3000), 50, id="the root"),
        pytest.param(lambda: overwrite(a_leaf(), 3000), 45, id="a page"),
        pytest.param(lambda: os.truncate(default_path(), default_path().stat().st_size // 2), 10, id="cut"),
        pytest.param(lambda: default_path().write_bytes(b""), 0, id="nothing left"),
        pytest.param(lambda: default_path().write_bytes(b"only text\n" * 1000), 0, id="no database"),
    ],
)
def test_what_can_be_read_of_a_damaged_file_is_saved_and_it_is_kept_beside(damage: Callable[[], object], least_saved: int) -> None:
    """Short answers and long ones, which lie on several pages each; and what is saved is what was written."""
    questions = {asking(f"question {at}"): answering(f"secret {at} " * (500 if at % 7 == 0 else 50)) for at in range(60)}
    with AnswerStore() as store:
        for question, answer in questions.items():
            store.save_answer("m", question, answer)
        store.save_outcomes("s", "exact", "m", [Outcome(suite="s", example_id="1", model="m", answer="a", score=0.5)])
    damage()
    before = default_path().read_bytes()
    with pytest.raises(DamagedError), AnswerStore() as store:
        store.forget_damaged()
    saved = save_readable()
    assert saved.num_answers >= least_saved
    assert saved.num_lost_rows > 0 or saved.num_answers in (0, 60)
    assert (saved.old, saved.old.read_bytes()) == (default_path().with_name("answers.sqlite.damaged"), before)
    with AnswerStore() as store:
        assert store.forget_damaged() == 0
        found = [store.answer("m", question) for question in questions]
    assert sum(answer is not None for answer in found) == saved.num_answers
    assert all(answer in (None, given) for answer, given in zip(found, questions.values(), strict=True))
    assert {path.name for path in default_path().parent.glob("*.damaged*")} == {"answers.sqlite.damaged"}


def test_what_is_saved_holds_what_lies_in_the_log_and_not_what_was_removed(tmp_path: Path) -> None:
    with AnswerStore() as store:
        fill(store, 20)
        store._db.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        store._db.connection.execute("DELETE FROM answers")
        for at in range(3):
            store.save_answer("m", asking(f"later {at}"), answering("so" * 1000))
        for path in default_path().parent.glob("answers.sqlite*"):
            shutil.copy(path, tmp_path / path.name)
    saved = save_readable(tmp_path / "answers.sqlite")
    assert (saved.num_answers, saved.num_outcomes, saved.num_lost_rows) == (3, 1, 0)
    assert {path.name for path in damaged_files(tmp_path / "answers.sqlite")} >= {
        "answers.sqlite.damaged",
        "answers.sqlite.damaged-wal",
    }
    assert save_readable(tmp_path / "answers.sqlite").old.name == "answers.sqlite.damaged-2"


def copied_while_written(to: Path, statement: str) -> Path:
    """The store's files as a power cut leaves them in the midst of a transaction, a part of which is in the log already."""
    with AnswerStore() as store:
        store._db.connection.execute("PRAGMA cache_size = 5")
        store._db.connection.execute("BEGIN IMMEDIATE")
        store._db.connection.execute(statement)
        for path in default_path().parent.glob("answers.sqlite*"):
            shutil.copy(path, to / path.name)
        store._db.connection.execute("ROLLBACK")
    return to / "answers.sqlite"


def test_what_was_never_committed_does_not_count_in_what_is_saved(tmp_path: Path) -> None:
    with AnswerStore() as store:
        for at in range(60):
            store.save_answer("m", asking(f"question {at}"), answering(f"{at} " * 500))
    path = copied_while_written(tmp_path, "DELETE FROM answers")
    assert path.with_name("answers.sqlite-wal").stat().st_size > 100_000
    saved = save_readable(path)
    assert (saved.num_answers, saved.num_lost_rows) == (60, 0)


@pytest.mark.parametrize("at", [0, 10, 26, 32 + 24 + 100], ids=["magic", "page size", "checksum", "first page"])
def test_a_damaged_log_is_read_no_further_than_it_is_whole(tmp_path: Path, at: int) -> None:
    with AnswerStore() as store:
        fill(store, 20)
    with AnswerStore() as store:
        for number in range(3):
            store.save_answer("m", asking(f"later {number}"), answering("so" * 1000))
        for path in default_path().parent.glob("answers.sqlite*"):
            shutil.copy(path, tmp_path / path.name)
    log = tmp_path / "answers.sqlite-wal"
    content = bytearray(log.read_bytes())
    content[at] ^= 4
    log.write_bytes(content)
    assert save_readable(tmp_path / "answers.sqlite").num_answers == 20


def test_a_file_cut_within_its_list_of_free_pages_is_read(tmp_path: Path) -> None:
    path = tmp_path / "answers.sqlite"
    with AnswerStore(path) as store:
        for at in range(60):
            store.save_answer("m", asking(f"question {at}"), answering(f"{at} " * 500))
    with sqlite3.connect(path, isolation_level=None) as connection:
        connection.execute("PRAGMA journal_mode = DELETE")
        connection.execute("DELETE FROM answers")
    connection.close()
    trunk = int.from_bytes(path.read_bytes()[32:36], "big")
    os.truncate(path, (trunk - 1) * 4096 + 5)
    assert save_readable(path).num_outcomes == 0


def test_a_row_without_a_value_is_counted_as_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    kept = _sealed("key", {"num": 1}).encode()
    rows = [[b"key", model, b"null", kept, 1.0] for model in (None, b"m")]
    monkeypatch.setattr(DamagedFile, "rows", lambda _file: iter(rows))
    damaged = DamagedFile(io.BytesIO())
    with AnswerStore() as store:
        store.add_from(damaged)
        assert damaged.num_bad_rows == 1
        assert store._db.connection.execute("SELECT model FROM answers").fetchall() == [("m",)]


@pytest.fixture
def linked(tmp_path: Path) -> tuple[Path, Path]:
    """A link to a store on another disk, and the store."""
    link, target = tmp_path / "home" / "answers.sqlite", tmp_path / "disk" / "real.sqlite"
    link.parent.mkdir()
    target.parent.mkdir()
    link.symlink_to(target)
    return link, target


def test_a_damaged_file_that_a_link_leads_to_is_kept_with_its_log(linked: tuple[Path, Path]) -> None:
    link, target = linked
    with AnswerStore() as store:
        fill(store, 20)
        store._db.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        store.save_answer("m", asking("later"), answering("so"))
        for path in default_path().parent.glob("answers.sqlite*"):
            shutil.copy(path, target.with_name(path.name.replace("answers", "real")))
    damaged, log = b"\0" * 3000 + target.read_bytes()[3000:], target.with_name("real.sqlite-wal").read_bytes()
    target.write_bytes(damaged)
    saved = save_readable(link)
    assert (saved.num_answers, saved.old) == (21, target.with_name("real.sqlite.damaged"))
    assert (saved.old.read_bytes(), saved.old.with_name("real.sqlite.damaged-wal").read_bytes()) == (damaged, log)
    assert link.is_symlink() and not target.with_name("real.sqlite-wal").exists()
    assert damaged_files(link) == damaged_files(target)
    with AnswerStore(link) as store:
        assert store.answer("m", asking("later")) == answering("so")


def test_a_new_file_where_a_link_leads_has_nothing_of_an_old_ones_log(linked: tuple[Path, Path]) -> None:
    link, target = linked
    with AnswerStore(link) as store:
        fill(store, 20)
        kept = {path: path.read_bytes() for path in target.parent.glob("real.sqlite?*")}
    target.unlink()
    for path, content in kept.items():
        path.write_bytes(content)
    with AnswerStore(link) as store:
        assert store.answer("m", asking("question 0")) is None


def test_nothing_is_left_of_a_new_file_that_could_not_be_filled(monkeypatch: pytest.MonkeyPatch) -> None:
    with AnswerStore() as store:
        fill(store, 1)

    def breaks(store: AnswerStore, _damaged: object) -> tuple[int, int]:
        part = store.path
        store.close()
        for end in ("-wal", "-shm"):  # as on a full disk, where the log cannot be emptied
            part.with_name(part.name + end).write_bytes(b"secret")
        raise NotEnoughDiskError("full")

    monkeypatch.setattr(AnswerStore, "add_from", breaks)
    with pytest.raises(NotEnoughDiskError):
        save_readable()
    assert list(default_path().parent.glob("**/.*")) == []


def test_a_store_that_another_process_made_meanwhile_on_a_disk_without_locks_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    make_tables = database._make_tables

    def late(connection: sqlite3.Connection, schema: str, version: int) -> None:
        make_tables(connection, schema, version)
        monkeypatch.setattr(database, "_make_tables", make_tables)
        with AnswerStore() as first:
            first.save_answer("m", asking("1"), answering("paid for"))

    monkeypatch.setattr(whole_files, "_locked", lambda *_file, **_wait: None)
    monkeypatch.setattr(database, "_make_tables", late)
    with AnswerStore() as second:
        assert second.answer("m", asking("1")) == answering("paid for")


def test_file_of_a_newer_nomoat_is_refused() -> None:
    AnswerStore().close()
    connection = sqlite3.connect(default_path())
    connection.execute("PRAGMA user_version = 99")
    connection.close()
    with pytest.raises(BadFileError, match="was written by a newer nomoat"):
        AnswerStore()


def test_others_may_write_while_damaged_rows_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nomoat.asking.database.LOCK_WAIT_SECONDS", 0.2)
    with AnswerStore(tmp_path / "a.sqlite") as store, closing(sqlite3.connect(store.path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        assert store.num_damaged() == 0


@pytest.mark.parametrize("version", [0, SCHEMA_VERSION - 1, SCHEMA_VERSION, 99])
def test_someone_else_s_database_is_refused_and_left_as_it_is(version: int) -> None:
    default_path().parent.mkdir(parents=True)
    with closing(sqlite3.connect(default_path())) as connection:
        connection.executescript(f"CREATE TABLE theirs (one); PRAGMA user_version = {version};")
    content = default_path().read_bytes()
    with pytest.raises(BadFileError, match="was written by a newer nomoat" if version == 99 else "is no file of nomoat's") as caught:
        AnswerStore()
    assert not isinstance(caught.value, DamagedError)
    assert default_path().read_bytes() == content


def test_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    folder = tmp_path / "answers.sqlite"
    folder.mkdir()
    with pytest.raises(BadFileError, match="cannot be used: unable to open database file"):
        AnswerStore(folder)


def test_full_disk_is_said_so_and_what_was_saved_stays() -> None:
    with AnswerStore() as store:
        store.save_answer("m", asking("1"), answering("kept"))
        (pages,) = store._db.connection.execute("PRAGMA page_count").fetchone()
        store._db.connection.execute(f"PRAGMA max_page_count = {pages + 2}")
        with pytest.raises(NotEnoughDiskError):
            store.save_answer("m", asking("2"), answering("x" * 100_000))
    with AnswerStore() as store:
        assert store.answer("m", asking("1")) == answering("kept")
        assert store.answer("m", asking("2")) is None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class NewerUsage(Usage):
    watts: float = 65.0


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class NewerCall(ToolCall):
    kind: str = "function"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class NewerCompletion(Completion):
    mood: str = "calm"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class NewerOutcome(Outcome):
    confidence: float = 0.5


def test_what_a_newer_nomoat_says_besides_in_an_answer_or_an_outcome_is_passed_over() -> None:
    used = {"prompt_tokens": 3, "completion_tokens": 2, "prefill_seconds": 0.25, "decode_seconds": 0.5}
    called = {"id": "1", "name": "weather", "arguments": "{}"}
    scored = {"suite": "s", "example_id": "1", "model": "m", "answer": "a", "score": 1.0}
    newer = NewerCompletion(text="kept", finish_reason="stop", usage=NewerUsage(**used), calls=(NewerCall(**called),))
    with AnswerStore() as store:
        store.save_answer("m", asking("1"), newer)
        store.save_outcomes("suite", "exact", "m", [NewerOutcome(**scored)])
        known = Completion(text="kept", finish_reason="stop", usage=Usage(**used), calls=(ToolCall(**called),))
        assert (store.answer("m", asking("1")), [one.outcome for one in store.outcomes()]) == (known, [Outcome(**scored)])


@pytest.mark.parametrize(
    ("column", "why"),
    [
        ("'{bad json'", "an answer cannot be read (JSONDecodeError: Expecting property name"),
        ("'[]'", "an answer cannot be read (ValueError: it is not what was written)"),
        ("'{}'", "an answer cannot be read (ValueError: it is not what was written)"),
        ("replace(answer, 'kept', 'kepu')", "an answer cannot be read (ValueError: it is not what was written)"),
        ("json_remove(answer, '$.digest')", "an answer cannot be read (ValueError: it is not what was written)"),
        ("7", "an answer cannot be read ("),
        (f"'{'[' * 100_000}'", "an answer cannot be read (RecursionError: "),
        ("CAST(x'22ff22' AS TEXT)", "an answer cannot be read (UnicodeDecodeError: "),
    ],
)
def test_damaged_answer_is_an_error_that_says_what_to_do(column: str, why: str) -> None:
    with AnswerStore() as store:
        store.save_answer("m", asking("1"), answering("kept"))
        store._db.connection.execute(f"UPDATE answers SET answer = {column}")
        with pytest.raises(BadFileError) as caught:
            store.answer("m", asking("1"))
    assert caught.value.message.startswith(f"`{default_path()}` is damaged: {why}")
    assert caught.value.message.endswith(f", the row with the key `{_key('answer', 'm', asking('1'))}`")
    assert caught.value.hint == IF_DAMAGED


def test_what_is_damaged_is_removed_and_nothing_else(answers_of_all_kinds: AnswerStore) -> None:
    """Of each kind one is damaged and one whole."""
    store, db = answers_of_all_kinds, answers_of_all_kinds._db.connection
    assert store.forget_damaged() == 0
    before = db.execute("SELECT count(*) FROM answers").fetchone()
    db.execute("UPDATE answers SET answer = replace(replace(answer, 's', 'z'), 'num', 'mun') WHERE model = 'bad'")
    db.execute("UPDATE outcomes SET outcome = '[]' WHERE model_digest = 'bad'")
    assert (before, store.forget_damaged()) == ((8,), 5)
    assert [model for (model,) in db.execute("SELECT DISTINCT model FROM answers ORDER BY 1")] == ["good"]
    assert (store.answer("bad", asking("1")), store.num_lost("bad", asking("1")), store.notes("bad")) == (None, 0, ())
    assert len(store.outcomes()) == 1
    for text in ("'{bad json'", "'[]'", "7", "CAST(x'22ff22' AS TEXT)"):
        store.save_answer("bad", asking("1"), answering("kept"))
        db.execute(f"UPDATE answers SET answer = {text} WHERE model = 'bad'")
        assert store.forget_damaged() == 1
    store.save_answer("bad", asking("1"), answering("kept"))
    db.execute("UPDATE answers SET request = '{bad json' WHERE model = 'bad'")
    assert store.forget_damaged() == 1


@pytest.fixture
def answers_of_all_kinds() -> Iterator[AnswerStore]:
    scored = ChoiceScores(scores=(ContinuationScore(log_probability=-1.0, num_tokens=1),), seconds=0.1)
    with AnswerStore() as store:
        for model in ("good", "bad"):
            store.save_answer(model, asking("1"), answering("kept"))
            store.save_choice_scores(model, asking("1"), ["a"], scored)
            store.save_notes(model, ["note"])
            store.count_lost(model, asking("1"))
            store.save_outcomes("suite", "exact", model, [Outcome(suite="s", example_id="1", model="m", answer="a", score=0.0)])
        yield store


def test_no_bit_that_a_disk_turns_changes_an_answer_unnoticed() -> None:
    value = {"text": "Ja, 네.", "usage": {"prompt_tokens": 3}}
    sealed = _sealed("key", value).encode()
    for at in range(8 * len(sealed)):
        turned = bytearray(sealed)
        turned[at // 8] ^= 1 << at % 8
        with pytest.raises((TypeError, ValueError)):
            _opened("key", bytes(turned))
    with pytest.raises(ValueError, match="it is not what was written"):
        _opened("another key", sealed)


@pytest.mark.parametrize("value", ["'{bad json'", "'[1]'", "CAST(x'22ff22' AS TEXT)"])
def test_damaged_scores_notes_and_outcomes_are_errors_too(value: str) -> None:
    scored = ChoiceScores(scores=(ContinuationScore(log_probability=-1.0, num_tokens=1),), seconds=0.1)
    with AnswerStore() as store:
        store.save_choice_scores("m", asking("1"), ["a"], scored)
        store.save_notes("m", ["note"])
        store.count_lost("m", asking("1"))
        store.save_outcomes("suite", "exact", "m", [Outcome(suite="s", example_id="1", model="m", answer="a", score=0.0)])
        store._db.connection.execute(f"UPDATE answers SET answer = {value}")
        store._db.connection.execute(f"UPDATE outcomes SET outcome = {value}")
        reads: list[Callable[[], object]] = [
            lambda: store.choice_scores("m", asking("1"), ["a"]), lambda: store.notes("m"), store.outcomes,
            lambda: store.num_lost("m", asking("1")), lambda: store.count_lost("m", asking("1")),
        ]  # fmt: skip
        for read in reads:
            with pytest.raises(BadFileError, match="is damaged"):
                read()


def test_damaged_outcomes_name_no_models() -> None:
    with AnswerStore() as store:
        store.save_outcomes("suite", "exact", "m", [Outcome(suite="s", example_id="1", model="m", answer="a", score=0.0)])
        store._db.connection.execute("UPDATE outcomes SET outcome = '{bad json'")
        with pytest.raises(BadFileError, match="is damaged: malformed JSON"):
            store.answered("s")


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such limit")
def test_limit_on_the_size_of_files_is_not_taken_for_a_matter_of_permissions() -> None:
    code = (
        "import resource\n"
        "from nomoat.asking.store import AnswerStore\n"
        "from nomoat.errors import BadFileError\n"
        "with AnswerStore() as store:\n"
        "    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))\n"
        "    try:\n"
        "        store.save_notes('m', ['x' * 200_000])\n"
        "    except BadFileError as error:\n"
        "        print(error.message, error.hint, sep='\\n')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=PATIENCE_SECONDS, check=True)
    assert done.stdout == (
        f"`{default_path()}` cannot be used: disk I/O error\n"
        "does its disk fail, or is there a limit on how large a file may be (`ulimit -f`)?\n"
    )


FILLED = f"""
import sys
from nomoat.asking.store import AnswerStore
from nomoat.errors import NotEnoughDiskError
AnswerStore().close()
{FILL}
try:
    AnswerStore()
except NotEnoughDiskError as error:
    print(error.message)
"""


def test_a_full_disk_is_not_taken_for_one_that_fails() -> None:
    """SQLite has no room for the file that readers share, and calls that an error of the disk."""
    done = run_on_small_disk(paths.runs(), [sys.executable, "-c", FILLED, str(paths.runs())])
    assert done.stdout.splitlines()[0] == f"no space left on the disk of `{paths.runs()}`", done.stderr


def test_a_place_without_room_for_more_files_is_not_taken_for_one_of_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "answers.sqlite").mkdir()  # what SQLite cannot open, either
    with pytest.raises(BadFileError, match="unable to open database file") as caught:
        AnswerStore(tmp_path / "answers.sqlite")
    assert caught.value.hint == system_errors.RUNS_HINT
    monkeypatch.setattr("nomoat.system_errors._has_no_inodes", lambda _: True)
    with pytest.raises(NotEnoughDiskError, match=r"^no more files fit on the disk of"):
        AnswerStore(tmp_path / "answers.sqlite")


def test_a_log_cut_within_its_head_is_none() -> None:
    head = bytes.fromhex("377f0682002de218") + (4096).to_bytes(4, "big") + bytes(20)
    for size in (12, 20, 28, 31):
        assert list(DamagedFile(io.BytesIO(), io.BytesIO(head[:size])).rows()) == []
