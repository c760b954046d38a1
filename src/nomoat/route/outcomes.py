"""What duels left behind: the outcomes of two models on the same examples, read from where answers are kept. They hold no prompts:
whoever asks brings them.
"""

from __future__ import annotations

import math
from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from nomoat.asking.store import AnswerStore, KeptOutcome, default_path
from nomoat.errors import DataError
from nomoat.records import Outcome

# How a judge's scores are kept: shares of pairs won, against whomever the pairs were with; grades from 1 to 10.
JUDGED_PAIRS, GRADE = "judged", "grade"


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """One prompt, and what the two models' answers to it were worth. Prompts of one `group` are not independent (one text)."""

    prompt: str
    local_score: float
    cloud_score: float
    group: str = ""

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


def read_pairs(
    local: str, cloud: str, suites: Mapping[str, Mapping[str, str]], *, names: Mapping[str, str], duel: str, has_table: bool = False
) -> Pairs:
    """Pairs of the examples that both models answered. `suites`: for each suite's sha256, prompts by example id; `names`: its name.

    `duel`: the command that fights it, for whoever has to. `has_table`: one of the suites is a table, of which another duel may have
    asked otherwise.

    Both scores of a pair are of one metric, in each suite the one that both were scored by last; a judge's verdicts on pairs count
    only where the two models were each other's opponent. Of a model that was asked in several versions, the version asked last counts.
    Raises DataError if the two never met in one of the suites, met in no way that compares them, were graded in one suite and
    scored from 0 to 1 in another, or if the local model changed between suites; BadFileError.
    """
    pairs: list[Pair] = []
    digests: set[str] = set()
    metrics: set[str] = set()
    for suite_sha256, prompts in suites.items():
        ours, theirs = (_newest(_kept(suite_sha256, model), prompts) for model in (local, cloud))
        metric = _last_in_common(ours, theirs)
        if metric is None and _names_in(ours) & _names_in(theirs):
            raise DataError(
                f"`{local}` and `{cloud}` answered the same questions of `{names[suite_sha256]}`, and nothing compares their scores: "
                "they are of different metrics, or a judge's verdicts against other models",
                hint=f"`{duel}`",
            )
        if metric is None:
            remark = "; of a table, the question depends on the models named together" if has_table else ""
            raise DataError(
                f"no outcomes of `{local}` and `{cloud}` on the same questions of `{names[suite_sha256]}`",
                hint=f"fight it first: `{duel}`{remark}",
            )
        metrics.add(metric)
        digests.add(ours[metric].digest)
        pairs += _paired(ours[metric].outcomes, theirs[metric].outcomes, prompts, suite_sha256)
    if GRADE in metrics and len(metrics) > 1:
        raise DataError("one of these suites was graded from 1 to 10 and another scored from 0 to 1", hint="learn from one of them")
    if len(digests) > 1:
        raise DataError(
            f"`{local}` was not the same model in each of these suites",
            hint=f"repeat the duels: `{duel}`",
        )
    return Pairs(local=local, cloud=cloud, local_digest=digests.pop(), pairs=tuple(pairs))


def require_as_now(found: Pairs, local_digest: str | None, *, duel: str) -> None:
    """Raise DataError for answers that the local model would not give by now. `local_digest`: its own; None if it is not known."""
    if local_digest not in (None, found.local_digest):
        raise DataError(
            f"`{found.local}` has changed, or this nomoat imports it otherwise, since these duels: "
            "a router learned from them would not be used",
            hint=f"duel again with this nomoat: `{duel}`",
        )


@dataclass(frozen=True, slots=True)
class _Scored:
    """One version of a model by one metric: outcomes by example, and when the last of them was kept."""

    digest: str
    unix_seconds: float
    outcomes: dict[str, Outcome] = field(default_factory=dict)


def _kept(suite_sha256: str, model: str) -> Sequence[KeptOutcome]:
    """Those kept last first; none, and no file is made, where no duel was ever fought here."""
    if not default_path().exists():
        return ()
    with AnswerStore() as store:
        return store.outcomes(suite_sha256=suite_sha256, model=model)


def _newest(kept: Sequence[KeptOutcome], known: Container[str]) -> dict[str, _Scored]:
    """By metric, the `known` examples' outcomes of the version of a model that was asked last."""
    found: dict[str, _Scored] = {}
    for one in kept:
        scored, outcome = found.setdefault(one.metric, _Scored(one.model_digest, one.unix_seconds)), one.outcome
        if one.model_digest == scored.digest and outcome.example_id in known:
            scored.outcomes[outcome.example_id] = outcome
    return found


def _last_in_common(ours: Mapping[str, _Scored], theirs: Mapping[str, _Scored]) -> str | None:
    """The metric that compares the two, the one used last if there are several."""
    able = [name for name in ours if name in theirs and _compares(name, ours[name].outcomes, theirs[name].outcomes)]
    return max(able, key=lambda name: min(ours[name].unix_seconds, theirs[name].unix_seconds), default=None)


def _compares(metric: str, ours: Mapping[str, Outcome], theirs: Mapping[str, Outcome]) -> bool:
    """Whether there are shared examples; a judge shares one point between two opponents."""
    sums = [ours[name].score + theirs[name].score for name in ours if name in theirs]
    return bool(sums) and (metric != JUDGED_PAIRS or all(math.isclose(total, 1.0, abs_tol=1e-6) for total in sums))


def _paired(
    ours: Mapping[str, Outcome], theirs: Mapping[str, Outcome], prompts: Mapping[str, str], suite_sha256: str
) -> Iterator[Pair]:  # fmt: skip
    for name in sorted(ours.keys() & theirs.keys()):
        group = f"{suite_sha256} {ours[name].group}" if ours[name].group else ""
        yield Pair(prompt=prompts[name], local_score=ours[name].score, cloud_score=theirs[name].score, group=group)


def _names_in(scored: Mapping[str, _Scored]) -> set[str]:
    return {name for one in scored.values() for name in one.outcomes}
