"""What duels left behind: the outcomes of two models on the same examples, read from the judge's file.

`runs/answers.sqlite`, table `outcomes`: suite_sha256, metric, model_digest, example_id, outcome (an `Outcome` as JSON),
unix_seconds. The file belongs to `judge`; it is opened for reading only. It holds no prompts: whoever asks brings them.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from nomoat import paths
from nomoat.errors import BadFileError, DataError
from nomoat.records import Outcome

LOCK_WAIT_SECONDS = 60.0
NEWEST = """
SELECT outcome, model_digest FROM outcomes
WHERE suite_sha256 = ?1 AND json_extract(outcome, '$.model') = ?2 AND model_digest = (
    SELECT model_digest FROM outcomes WHERE suite_sha256 = ?1 AND json_extract(outcome, '$.model') = ?2
    ORDER BY unix_seconds DESC LIMIT 1)
ORDER BY example_id
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """One prompt, and what the two models' answers to it were worth."""

    prompt: str
    local_score: float
    cloud_score: float

    @property
    def local_as_good(self) -> bool:
        """Whether sending this prompt away gained nothing."""
        return self.local_score >= self.cloud_score


@dataclass(frozen=True, slots=True, kw_only=True)
class Pairs:
    """The pairs of two models. `local_digest` names the version of the local model that gave the answers."""

    local: str
    cloud: str
    local_digest: str
    pairs: tuple[Pair, ...]


def read_pairs(local: str, cloud: str, suites: Mapping[str, Mapping[str, str]], *, path: Path | None = None) -> Pairs:
    """Pairs of the examples that both models answered. `suites`: for each suite's sha256, prompts by example id.

    Of a model that was asked in several versions, the version asked last counts.
    Raises DataError if the two never met in a suite, or the local model changed between suites; BadFileError.
    """
    path = paths.runs() / "answers.sqlite" if path is None else path
    pairs: list[Pair] = []
    digests: set[str] = set()
    with _opened(path) as db:
        for suite_sha256, prompts in suites.items():
            ours, digest = _newest(db, suite_sha256, local)
            theirs, _ = _newest(db, suite_sha256, cloud)
            shared = [name for name in ours if name in theirs and name in prompts]
            pairs += [Pair(prompt=prompts[name], local_score=ours[name], cloud_score=theirs[name]) for name in shared]
            digests |= {digest} if shared else set()
    if not pairs:
        raise DataError(
            f"no outcomes of `{local}` and `{cloud}` on the same questions", hint=f"nomoat duel {local} {cloud} --suite SUITE --all"
        )
    if len(digests) > 1:
        raise DataError(
            f"`{local}` was not the same model in each of these suites",
            hint=f"repeat the duels: nomoat duel {local} {cloud} --suite SUITE --all",
        )
    return Pairs(local=local, cloud=cloud, local_digest=digests.pop(), pairs=tuple(pairs))


def _newest(db: sqlite3.Connection | None, suite_sha256: str, model: str) -> tuple[dict[str, float], str]:
    """Scores by example of a model's latest version in a suite, and that version's digest."""
    rows = [] if db is None else db.execute(NEWEST, (suite_sha256, model)).fetchall()
    outcomes = [Outcome(**json.loads(text)) for text, _ in rows]
    return {outcome.example_id: outcome.score for outcome in outcomes}, rows[0][1] if rows else ""


@contextmanager
def _opened(path: Path) -> Iterator[sqlite3.Connection | None]:
    """The file, for reading; None if no duel was ever fought here."""
    if not path.exists():
        yield None
        return
    try:
        with closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True, timeout=LOCK_WAIT_SECONDS)) as db:
            yield db
    except (sqlite3.DatabaseError, TypeError, ValueError) as exc:
        raise BadFileError(f"`{path}` cannot be read: {exc}", hint="it may be damaged, or from another version of nomoat") from exc
