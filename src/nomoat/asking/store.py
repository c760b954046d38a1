"""Every answer, kept before it is scored: one that was computed or paid for is never lost, and never asked for twice, but
for a local model's that a shorter context than it has now ended.

One SQLite file, `runs/answers.sqlite`. Answers lie under the digest of model and request, so any suite that asks the same finds
them, and so does how many calls brought none; what the model's server refused of its requests lies under the model's. Outcomes (what
the answers were worth) lie under suite, model and example, with each name that suite and model had; `route` learns from them.

What this does not cover: a disk that changes a letter of an outcome, or of a row's copies of model and request, which have no digest;
an answer that was still being written when the process died, or the disk got full, with its cost; and two processes that ask the same
question at the same moment, which `answers.collect` keeps from it where it may cost money and the disk has locks: both ask, and the
first answer is kept.
"""

from __future__ import annotations

import dataclasses
import glob
import hashlib
import itertools
import json
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, cast

from nomoat import paths, whole_files
from nomoat.asking import salvage
from nomoat.asking.database import Database, beside
from nomoat.records import (
    ChoiceScores,
    Completion,
    ContinuationScore,
    FinishReason,
    Message,
    Outcome,
    Request,
    ToolCall,
    Usage,
    fields_of,
    known_fields,
)
from nomoat.references import STORED

if TYPE_CHECKING:
    import sqlite3

SCHEMA_VERSION = 2
ANSWER_COLUMNS, OUTCOME_COLUMNS = 5, 6
SEAL = "digest"  # the name of a row's digest within it
NO_REQUEST = "null"  # where an answer's request stands, for what is kept beside answers: notes, and calls that brought none
NAMES = "names"  # in an outcome: see `_outcome_of`
OF_OUTCOME = "suite_sha256 = ? AND metric = ? AND model_digest = ? AND example_id = ?"
OF_SUITE = (
    "json_extract(outcome, '$.suite') = ?1 OR substr(suite_sha256, 1, length(?1)) = ?1 "
    "OR EXISTS (SELECT 1 FROM json_each(outcome, '$.names') WHERE substr(key, 1, 1 + length(?1)) = ?1 || '/')"
)
DIGEST_LETTERS = 8  # of a sha256, at least, that stand for a name
LIKELIHOODS = "likelihoods"  # the kind of a key, of those of choices
NUM_ANSWERS = f"SELECT count(*) FROM answers WHERE request <> '{NO_REQUEST}'"
# what is raised over a text that is not what we write
UNREADABLE = (AttributeError, LookupError, OverflowError, RecursionError, TypeError, ValueError)
IF_DAMAGED = "`nomoat rm --damaged` removes what cannot be read, and saves the rest; what is gone is computed, and paid for, again"
# Fields of `Request` that are no part of a key, which is to stay what it is, where they say nothing.
ADDED_LATER = (
    "answer_start", "may_call", "must_call", "one_call", "reasoning_effort", "schema_description", "schema_mode", "schema_name",
    "suffix", "template_variables", "tools", "verbosity",
)  # fmt: skip

SCHEMA = """
CREATE TABLE IF NOT EXISTS answers (
    key TEXT PRIMARY KEY, model TEXT NOT NULL, request TEXT NOT NULL, answer TEXT NOT NULL, unix_seconds REAL NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS outcomes (
    suite_sha256 TEXT NOT NULL, metric TEXT NOT NULL, model_digest TEXT NOT NULL, example_id TEXT NOT NULL,
    outcome TEXT NOT NULL, unix_seconds REAL NOT NULL,
    PRIMARY KEY (suite_sha256, metric, model_digest, example_id)
) WITHOUT ROWID;
"""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class KeptOutcome:
    """What an answer was worth, by which metric, of which version of its model, and when it was kept."""

    outcome: Outcome
    metric: str
    model_digest: str
    unix_seconds: float


@dataclasses.dataclass(slots=True, kw_only=True)
class Answered:
    """What one version of a model was asked of one version of a suite, under a name of each. `unix_seconds`: when last.

    `keys`: what its answers are kept under (see `AnswerStore.question`), by metric and example. `targets`: `Outcome.target_digest` of
    each example that has right answers.
    """

    suite_sha256: str
    model_digest: str
    model: str
    unix_seconds: float
    keys: dict[str, dict[str, str]] = dataclasses.field(default_factory=dict)
    targets: dict[str, str] = dataclasses.field(default_factory=dict)


def default_path() -> Path:
    """Where answers are kept unless told otherwise."""
    return paths.runs() / "answers.sqlite"


class AnswerStore:
    """The answers of one file. A context manager; several threads may use it.

    What a `save_` has kept outlives its process once that returns; a power cut, too, but for likelihoods and answers that were not
    paid for: those that it loses are computed again.
    Raises what `Database` raises.
    """

    def __init__(self, path: str | Path | None = None) -> None:
        self.path = default_path() if path is None else paths.expanded(path)
        self._db = Database(self.path, schema=SCHEMA, version=SCHEMA_VERSION, table="answers", if_damaged=IF_DAMAGED)
        self._limits: dict[str, tuple[int, set[int]]] = {}  # by model, and as of what others wrote: each look reads all answers

    def answer(self, model_digest: str, request: Request) -> Completion | None:
        """The stored answer of this model to this request."""
        key = _key("answer", model_digest, request)
        with self._understood(key):
            row = self._get(key)
            return None if row is None else _completion_of(row)

    def state(self) -> tuple[int, int]:
        """Another one once anything was written to the file, by whomever."""
        with self._db.turn() as db:
            (version,) = db.execute("PRAGMA data_version").fetchone()  # of what other connections write
            return db.total_changes, int(version)

    def save_answer(
        self, model_digest: str, request: Request, completion: Completion, *, is_paid: bool = True, replace: bool = False
    ) -> bool:
        """Keep an answer, and return True. If there is one already, that one stays, but to `replace` it. `is_paid`: it may have cost
        money."""
        key, value = _key("answer", model_digest, request), dataclasses.asdict(completion)
        del value["likelihoods"]
        return self._put(key, model_digest, request, value, is_paid=is_paid, replace=replace)

    def asked_before(self, model_digest: str, seeds: range, asked_with: Callable[[int], Sequence[Request]]) -> list[Request]:
        """Those of the requests, one or some with each of these seeds, that have an answer of this model or a lost call.

        Only those are made whose seed an answer of the model has; but where calls to it were lost, whose requests are not kept, all up
        to the last of these.
        """
        named = f"CASE request WHEN '{NO_REQUEST}' THEN 'lost' ELSE json_extract(request, '$.seed') END"
        with self._understood(), self._db.turn() as db:
            kept = dict(db.execute(f"SELECT key, {named} FROM answers WHERE model = ?", (model_digest,)).fetchall())
        kept.pop(_hashed(["notes", model_digest]), None)
        lost = {key for key, seed in kept.items() if seed == "lost"}
        answered = {seed for seed in kept.values() if isinstance(seed, int) and seed in seeds}
        found: dict[int, list[Request]] = {}
        for seed in itertools.chain(answered, itertools.takewhile(lambda _seed: lost, seeds)):
            keys = {request: {_key(kind, model_digest, request) for kind in ("answer", "lost")} for request in asked_with(seed)}
            found[seed] = [request for request, own in keys.items() if own & kept.keys()]
            lost.difference_update(*keys.values())
        return [request for seed in sorted(found) for request in found[seed]]

    def limits(self, model_digest: str) -> list[int]:
        """What the stored answers of this model might have had at most, in tokens, the least first."""
        limit = "json_extract(request, '$.max_new_tokens')"
        with self._understood(), self._db.turn() as db:
            (version,) = db.execute("PRAGMA data_version").fetchone()
            if (known := self._limits.get(model_digest)) is None or known[0] != version:
                found = db.execute(f"SELECT DISTINCT {limit} FROM answers WHERE model = ? AND {limit} > 0", (model_digest,))
                self._limits[model_digest] = known = version, {int(tokens) for (tokens,) in found.fetchall()}
            return sorted(known[1])

    def num_lost(self, model_digest: str, request: Request) -> int:
        """How many calls for this answer may have been billed, and brought none."""
        key = _key("lost", model_digest, request)
        with self._understood(key):
            row = self._get(key)
            return 0 if row is None else int(row["num"])

    def count_lost(self, model_digest: str, request: Request) -> None:
        """One more such call."""
        key = _key("lost", model_digest, request)
        with self._db.transaction() as db:
            _put_beside(db, key, model_digest, {"num": self.num_lost(model_digest, request) + 1})

    def choice_scores(self, model_digest: str, request: Request, choices: Sequence[str]) -> ChoiceScores | None:
        """The stored likelihoods of these choices after this request."""
        key = _key(LIKELIHOODS, model_digest, request, *choices)
        with self._understood(key):
            row = self._get(key)
            return None if row is None else _scores_of(row)

    def save_choice_scores(
        self, model_digest: str, request: Request, choices: Sequence[str], scored: ChoiceScores, *, replace: bool = False
    ) -> None:
        """Keep likelihoods. If they are there already, those stay, but to `replace` them."""
        rows = [(score.log_probability, score.num_tokens, *([True] if score.is_bound else [])) for score in scored.scores]
        value = {"choices": list(choices), "scores": rows, "seconds": scored.seconds}
        key = _key(LIKELIHOODS, model_digest, request, *choices)
        self._put(key, model_digest, request, value, is_paid=False, replace=replace)

    def notes(self, model_digest: str) -> tuple[str, ...]:
        """What has to be known about this model's stored answers."""
        key = _hashed(["notes", model_digest])
        with self._understood(key):
            row = self._get(key)
            return () if row is None else tuple(row["notes"])

    def save_notes(self, model_digest: str, notes: Sequence[str]) -> None:
        """Add to them; those there are stay."""
        key = _hashed(["notes", model_digest])
        with self._db.transaction() as db:
            known = self.notes(model_digest)
            if set(notes) - set(known):
                _put_beside(db, key, model_digest, {"notes": list(dict.fromkeys((*known, *notes)))})

    def save_outcomes(self, suite_sha256: str, metric: str, model_digest: str, outcomes: Sequence[Outcome]) -> None:
        """Keep what a run's answers were worth, all or none; an earlier run over the same example is replaced, but for the names that
        it gave to suite and model."""
        now = time.time()
        with self._db.transaction() as db:
            for one in outcomes:
                row = (suite_sha256, metric, model_digest, one.example_id)
                before = db.execute(f"SELECT outcome FROM outcomes WHERE {OF_OUTCOME}", row).fetchone()
                names = dict[str, float]()
                with suppress(*UNREADABLE):
                    names = {} if before is None else _outcome_of(before[0])[1]
                told = dataclasses.asdict(one) | {NAMES: names | {f"{one.suite}/{one.model}": now}}
                db.execute("INSERT OR REPLACE INTO outcomes VALUES (?, ?, ?, ?, ?, ?)", (*row, _dumps(told), now))

    def outcomes(self, *, suite_sha256: str | None = None, model: str | None = None) -> list[KeptOutcome]:
        """Outcomes of every run, or of one suite's, or one model's by any name it had; those kept last under it first, then by suite,
        model and example."""
        found = []
        for outcome, names, (suite, metric, digest) in self._outcomes("suite_sha256 = coalesce(?1, suite_sha256)", suite_sha256):
            seconds = [at for name, at in names.items() if model in (None, outcome.model, name.partition("/")[2])]
            if seconds:
                kept = KeptOutcome(outcome=outcome, metric=metric, model_digest=digest, unix_seconds=max(seconds))
                found.append((-kept.unix_seconds, suite, digest, outcome.example_id, kept))
        return [kept for *_, kept in sorted(found, key=lambda row: row[:-1])]

    def answered(self, suite: str) -> list[Answered]:
        """Who answered a suite of this name, or one whose sha256 begins so, and what was asked: those asked last first."""
        found: dict[tuple[str, str, str], Answered] = {}
        for outcome, names, (sha256, metric, digest) in self._outcomes(OF_SUITE, suite):
            for name, seconds in names.items():
                called, _, model = name.partition("/")
                is_meant = called == suite or (len(suite) >= DIGEST_LETTERS and sha256.startswith(suite))
                if is_meant and not model.startswith(STORED):
                    one = Answered(suite_sha256=sha256, model_digest=digest, model=model, unix_seconds=seconds)
                    one = found.setdefault((sha256, digest, model), one)
                    one.unix_seconds = max(one.unix_seconds, seconds)
                    one.keys.setdefault(metric, {})[outcome.example_id] = outcome.answer_key
                    if outcome.target_digest:
                        one.targets[outcome.example_id] = outcome.target_digest
        return sorted(found.values(), key=lambda one: (-one.unix_seconds, one.suite_sha256, one.model_digest))

    def _outcomes(self, where: str, value: str | None) -> Iterator[tuple[Outcome, dict[str, float], tuple[str, str, str]]]:
        """Outcomes with their names; and the suite, metric and model of each."""
        with self._understood():
            with self._db.turn() as db:
                found = db.execute(
                    f"SELECT outcome, suite_sha256, metric, model_digest FROM outcomes WHERE {where}", (value,)
                ).fetchall()
            for text, sha256, metric, digest in found:
                yield *_outcome_of(text), (sha256, metric, digest)

    def question(self, key: str) -> tuple[Request, tuple[str, ...]] | None:
        """What the answer under this key is to: a request, and the choices whose likelihoods it is, if it is that. None where there is
        no such answer, or the copy of its request is not what was asked."""
        with self._understood(key), self._db.turn() as db:
            row = db.execute("SELECT model, request, CAST(answer AS BLOB) FROM answers WHERE key = ?", (key,)).fetchone()
            if row is None:
                return None
            digest, told, answer = row
            choices = tuple(_opened(key, answer).get("choices", ()))
            facts = json.loads(told)
            request = known_fields(Request, facts | {"messages": [known_fields(Message, each) for each in facts["messages"]]})
        return (request, choices) if key == self.key(digest, request, choices) else None

    def key(self, model_digest: str, request: Request, choices: Sequence[str] = ()) -> str:
        """What the answer to this is kept under; with choices, their likelihoods."""
        return _key(LIKELIHOODS if choices else "answer", model_digest, request, *choices)

    def forget(self) -> tuple[int, int]:
        """Remove all answers and outcomes, with all that was asked, from the file and those beside it; return how many of each.

        All or none are gone, whatever else uses the file; what others save after this is there.
        """
        with self._db.transaction() as db:
            self._limits.clear()
            db.execute("PRAGMA secure_delete = OFF")  # `shrink` does it, and takes no second file of this size, on a full disk maybe
            (num_answers,) = db.execute(NUM_ANSWERS).fetchone()
            db.execute("DELETE FROM answers")
            num_outcomes = db.execute("DELETE FROM outcomes").rowcount
        self._db.shrink()
        return num_answers, num_outcomes

    def forget_damaged(self) -> int:
        """Remove the answers and outcomes that cannot be read, and what else was kept beside answers; return how many they were.

        Raises DamagedError where it is not rows alone that are damaged: see `save_readable`.
        """
        with self._db.transaction() as db:
            self._limits.clear()
            return sum(db.execute(f"DELETE {rows}").rowcount for rows in self._damaged_rows(db))

    def num_damaged(self) -> int:
        """How many rows `forget_damaged` would remove; meanwhile others may write. Raises what it raises."""
        with self._db.turn() as db:
            return sum(db.execute(f"SELECT count(*) {rows}").fetchone()[0] for rows in self._damaged_rows(db))

    def _damaged_rows(self, db: sqlite3.Connection) -> tuple[str, str]:
        """For SQL: where the rows are that cannot be read."""
        self._db.require_whole()
        db.create_function("is_kept", 2, _is_kept)
        db.create_function("is_outcome", 1, _is_outcome)
        return (
            "FROM answers WHERE NOT json_valid(request) OR NOT is_kept(CAST(key AS BLOB), CAST(answer AS BLOB))",
            "FROM outcomes WHERE NOT is_outcome(CAST(outcome AS BLOB))",
        )

    def add_from(self, damaged: salvage.DamagedFile) -> tuple[int, int]:
        """Add the rows of a damaged file that `_whole_row` finds whole; return how many answers and outcomes there are then."""
        with self._db.transaction() as db:
            self._limits.clear()
            for row in damaged.rows():
                if (told := _whole_row(row)) is None:
                    damaged.num_bad_rows += 1
                else:
                    table = "answers" if len(told) == ANSWER_COLUMNS else "outcomes"
                    db.execute(f"INSERT OR IGNORE INTO {table} VALUES ({', '.join('?' * len(told))})", told)
            (num_answers,) = db.execute(NUM_ANSWERS).fetchone()
            (num_outcomes,) = db.execute("SELECT count(*) FROM outcomes").fetchone()
        self._db.empty_log()
        return num_answers, num_outcomes

    def close(self) -> None:
        """Let go of the file. Calling it twice is fine."""
        self._db.close()

    def __enter__(self) -> AnswerStore:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self.close()

    @contextmanager
    def _understood(self, key: str | None = None) -> Iterator[None]:
        """Raise BadFileError where what is read, under this key, is not what we write."""
        try:
            yield
        except UNREADABLE as exc:
            row = "" if key is None else f", the row with the key `{key}`"
            raise self._db.damaged(f"an answer cannot be read ({type(exc).__name__}: {exc}){row}") from exc

    def _get(self, key: str) -> dict[str, Any] | None:
        with self._db.turn() as db:
            row = db.execute("SELECT CAST(answer AS BLOB) FROM answers WHERE key = ?", (key,)).fetchone()
        return None if row is None else _opened(key, row[0])

    def _put(
        self, key: str, model_digest: str, request: Request, value: dict[str, Any], *, is_paid: bool, replace: bool = False
    ) -> bool:
        """Whether it is there now: nothing was, or it was to be replaced."""
        row = (key, model_digest, _dumps(_told(request)), _sealed(key, value), time.time())
        with self._db.turn() if is_paid else self._db.quick_turn() as db:
            if request.max_new_tokens and (known := self._limits.get(model_digest)) is not None:
                known[1].add(request.max_new_tokens)
            return db.execute(f"INSERT OR {'REPLACE' if replace else 'IGNORE'} INTO answers VALUES (?, ?, ?, ?, ?)", row).rowcount > 0


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Saved:
    """What was read of a damaged file, which lies at `old` now. `num_lost_rows` is an estimate, by the pages not read."""

    num_answers: int
    num_outcomes: int
    num_lost_rows: int
    old: Path


def save_readable(path: Path | None = None) -> Saved:
    """Put a new file in the place of a damaged one, with all that can still be read of it; the old one is kept beside it.

    Where a link leads to it, that stays, and both lie where it leads. Nobody else should have it open: what they save would go into
    the old one. Raises NotEnoughDiskError.
    """
    path = paths.led_to(default_path() if path is None else path)
    with whole_files.whole_file(path) as part:
        part.unlink(missing_ok=True)  # a store begins as no file, in a folder for its owner alone
        try:
            with AnswerStore(part) as store, salvage.opened(path) as damaged:
                num_answers, num_outcomes = store.add_from(damaged)
                num_lost = damaged.num_lost_rows()
        finally:
            for left in (*beside(part), path.with_name("locks") / part.name):
                left.unlink(missing_ok=True)
        old = _kept_aside(path)
    return Saved(num_answers=num_answers, num_outcomes=num_outcomes, num_lost_rows=num_lost, old=old)


def damaged_files(path: Path) -> list[Path]:
    """Those that `save_readable` kept, with what lies beside each; and new ones that it did not end, because it was killed."""
    path = paths.led_to(path)
    name = glob.escape(path.name)
    return sorted(old for pattern in (f"{name}.damaged*", f".{name}.[0-9]*.part*") for old in path.parent.glob(pattern))


def _kept_aside(path: Path) -> Path:
    """The damaged file, which is no link, under another name, until the user removes it."""
    names = (f"{path.name}.damaged{f'-{number}' if number > 1 else ''}" for number in itertools.count(1))
    old = next(place for name in names if not (place := path.with_name(name)).exists())
    try:
        os.link(path, old)  # it stays at its place until the new one is there
    except OSError:  # the disk has no links
        whole_files.put(path, old)
    for mine, its in zip(beside(path), beside(old), strict=True):
        with suppress(FileNotFoundError):
            whole_files.put(mine, its)
    return old


def _key(kind: str, model_digest: str, request: Request, *continuations: str) -> str:
    return _hashed([kind, model_digest, _told(request), continuations])


def _completion_of(row: Mapping[str, Any]) -> Completion:
    finish_reason = cast(FinishReason, row["finish_reason"])
    calls = tuple(known_fields(ToolCall, call) for call in row["calls"])
    return Completion(text=row["text"], finish_reason=finish_reason, usage=known_fields(Usage, row["usage"]), calls=calls)


def _scores_of(row: Mapping[str, Any]) -> ChoiceScores:
    scores = tuple(
        ContinuationScore(log_probability=value, num_tokens=tokens, is_bound=is_bound == [True])
        for value, tokens, *is_bound in row["scores"]
    )
    return ChoiceScores(scores=scores, seconds=row["seconds"])


def _whole_row(row: Sequence[salvage.Value]) -> tuple[str | float | None, ...] | None:
    """The row of an answer or an outcome, if it is whole: what is kept under an answer's key is what was written, and the rest of the
    row, or an outcome, which has no digest, can be read."""
    if None in row:  # no column may be empty
        return None
    with suppress(*UNREADABLE):
        told = tuple(value.decode() if isinstance(value, bytes) else value for value in row)
        if len(told) == ANSWER_COLUMNS:
            key, _, request, answer, _ = map(str, told)
            json.loads(request)
            _opened(key, answer.encode())
            return told
        if len(told) == OUTCOME_COLUMNS and _is_outcome(str(told[4]).encode()):
            return told
    return None


def _is_outcome(told: bytes) -> bool:
    with suppress(*UNREADABLE):
        _outcome_of(told.decode())
        return True
    return False


def _outcome_of(text: str) -> tuple[Outcome, dict[str, float]]:
    """And its names, each SUITE/MODEL, under which it was kept, with when last."""
    told = json.loads(text)
    return known_fields(Outcome, told), dict(told[NAMES])


def _put_beside(db: sqlite3.Connection, key: str, model_digest: str, value: dict[str, Any]) -> None:
    """Keep what is no answer; what was there under this key is replaced."""
    row = (key, model_digest, NO_REQUEST, _sealed(key, value), time.time())
    db.execute("INSERT OR REPLACE INTO answers VALUES (?, ?, ?, ?, ?)", row)


def _sealed(key: str, value: dict[str, Any]) -> str:
    """What is kept under a key, with a digest of both, not of the other columns: a disk may change a letter, which stays a text."""
    return _dumps(value | {SEAL: _hashed([key, value])})


def _opened(key: str, answer: bytes) -> dict[str, Any]:
    """What was kept under a key. Raises one of UNREADABLE if it is not what was written."""
    kept = json.loads(answer.decode())
    if not isinstance(kept, dict) or kept.pop(SEAL, None) != _hashed([key, kept]):
        raise ValueError("it is not what was written")
    return kept


def _is_kept(key: bytes, answer: bytes) -> bool:
    """Whether this is what was written under the key."""
    with suppress(*UNREADABLE):
        _opened(key.decode(), answer)
        return True
    return False


def _hashed(value: object) -> str:
    return hashlib.sha256(_dumps(value).encode()).hexdigest()


def _told(request: Request) -> dict[str, object]:
    return {name: value for name, value in fields_of(request).items() if value or name not in ADDED_LATER}


_dumps = json.JSONEncoder(ensure_ascii=False, sort_keys=True, default=fields_of).encode
