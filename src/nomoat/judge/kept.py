"""`stored:SUITE/MODEL` where MODEL is one that answered SUITE here before: its kept answers, without the model or its server.

Answers and likelihoods are found in the store under the digest of the model that gave them; where the suite that is asked now is
another one, or in other words, by the ids of its examples. What was never asked has no answer, and is left out by `Asking.ask`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from nomoat.asking.answers import Question
from nomoat.asking.store import DIGEST_LETTERS, Answered, AnswerStore
from nomoat.catalog.datasets import pull_dataset
from nomoat.engine import Engine, served_scores_digest
from nomoat.engine.stored import stored_names
from nomoat.errors import DataError, UnknownModelError, UnsupportedError
from nomoat.judge.builtin import BUILT_IN
from nomoat.judge.metrics import METRICS
from nomoat.records import Chunk, ContinuationScore, Request
from nomoat.references import STORED
from nomoat.responder import Responder, ref_of
from nomoat.words import counted, listed

if TYPE_CHECKING:
    from nomoat.judge.suite import Suite

BY_A_JUDGE = ("judged", "grade")  # metrics of answers that were asked for a judge, with room for it


class KeptEngine(Engine):
    """The place of a model that is not here. `model` is the reference it was asked under.

    `suite` is the one it was asked in, and `versions` what it was asked there, those of last first; `others` are of other weights that
    had its name. `forms`: the digests its likelihoods may be kept under: that of the file's own weights first, then that of the form
    served with less memory. Once some are found, the one they were kept under.
    """

    is_local = True
    context_tokens: int | None = None

    def __init__(self, suite: str, versions: Sequence[Answered], others: Sequence[Answered]) -> None:
        self.suite, self.versions, self.others = suite, versions, others
        self.model, digest = versions[0].model, versions[0].model_digest
        self._ask = f"name `{self.model}` itself, and it is asked"
        self.digest: str = digest
        self.forms: tuple[str, ...] = (digest, served_scores_digest(digest))

    @property
    def scores_digest(self) -> str:
        """See `Responder.scores_digest`."""
        return self.forms[0]

    def generate(self, request: Request) -> Iterator[Chunk]:
        raise UnsupportedError(f"`{self.model}` was not asked this before, and its kept answers are all there is", hint=self._ask)

    def score(self, request: Request, continuations: Sequence[str]) -> list[ContinuationScore]:
        raise UnsupportedError(f"the likelihoods `{self.model}` gave here are not kept", hint=self._ask)

    def count_tokens(self, request: Request) -> int:
        raise UnsupportedError(f"`{self.model}` is not loaded: there are only its kept answers", hint=self._ask)

    def close(self) -> None:
        """Nothing to free."""


def is_kept(ref: str) -> bool:
    """Whether a reference means kept answers of this machine, and not published ones, or a model."""
    suite, _, name = ref.removeprefix(STORED).partition("/")
    if not ref.startswith(STORED) or not name:
        return False
    published = BUILT_IN.get(suite)
    if published is None or METRICS[published.metric].origin != "stored":
        return True
    return not any(known.casefold().startswith(name.casefold()) for known in stored_names(pull_dataset(published.dataset)))


def kept_first(models: Sequence[str | Responder]) -> list[int]:
    """The positions of models in the order to ask them: what kept answers lack need not be asked of the others, nor paid for."""
    refs = [ref_of(model) for model in models]
    return sorted(range(len(refs)), key=lambda at: not is_kept(refs[at]))


def unasked_note(ref: str, num_kept: int, num_asked: int) -> str:
    """What has to be known of kept answers that may have ended where an earlier duel knew its winner, and are all used; "" if nothing.

    `num_kept` of `num_asked` questions have one.
    """
    if num_kept == num_asked or not is_kept(ref):
        return ""
    return (
        f"`{ref}` has kept answers to some of the questions only: if an earlier duel ended there because its winner was known, "
        "the intervals are narrower here, and p of a comparison smaller, than they should be"
    )


def kept_responder(ref: str, store: AnswerStore) -> Responder:
    """The responder of a reference that `is_kept`; MODEL may be cut short where only one begins so.

    Raises UnknownModelError, naming the models that answered the suite.
    """
    suite, _, name = ref.removeprefix(STORED).partition("/")
    answered = store.answered(suite)
    known = list(dict.fromkeys(one.model for one in answered))
    named = [name] if name in known else [model for model in known if model.casefold().startswith(name.casefold())]
    meant = [one for one in answered if one.model in named]
    if not named and len(name) >= DIGEST_LETTERS:
        meant = [one for one in answered if one.model_digest.startswith(name)]
    if len(named) > 1 or not meant:
        there = (
            f"answered `{suite}` here: {', '.join(known)}" if known else "run `nomoat eval MODEL SUITE` first: its answers are kept"
        )
        raise UnknownModelError(f"no answers of `{name}` to `{suite}` are kept", hint=there)
    last = meant[0].model_digest
    versions = [one for one in meant if one.model_digest == last]
    return Responder(ref, KeptEngine(suite, versions, [one for one in meant if one.model_digest != last]))


def asked_then(engine: KeptEngine, suite: Suite, store: AnswerStore) -> tuple[Answered, dict[str, Question]]:
    """What the model was asked in the suite that its reference names, by the examples' ids then: the questions of `suite` itself where
    it was asked those, else the last ones.

    Raises DataError where these are of another suite, and none is kept.
    """
    version = next((one for one in engine.versions if one.suite_sha256 == suite.sha256), engine.versions[0])
    is_judged = suite.metric == "judge"
    keys = {
        example_id: key
        for metric, kept in version.keys.items() if (metric in BY_A_JUDGE) == is_judged
        for example_id, key in kept.items()
    }  # fmt: skip
    found = {example_id: store.question(key) for example_id, key in keys.items()}
    questions = {example_id: question for example_id, question in found.items() if question is not None}
    if is_of_another(engine, version, suite) and not questions:
        how = "with" if is_judged else "without"
        raise DataError(
            f"what `{engine.model}` was asked in `{engine.suite}` {how} a judge is not kept beside its answers",
            hint=f"run `nomoat eval` over `{engine.suite}` once more, {how} a judge: nothing that is kept is asked for twice",
        )
    return version, questions


def is_of_another(engine: KeptEngine, version: Answered, suite: Suite) -> bool:
    """Whether what the reference names are answers to another suite than this one."""
    return engine.suite != suite.name and version.suite_sha256 != suite.sha256


def require_common(engine: KeptEngine, suite: Suite, asked: Collection[str]) -> None:
    """Raise DataError where no example of the suite has an id of then."""
    if not any(example.id in asked for example in suite.examples):
        raise DataError(
            f"`{engine.model}` answered {counted(len(asked), 'example')} of `{engine.suite}`, and none has the id of one of the "
            f"{counted(len(suite.examples), 'example')} of `{suite.name}`: answers are paired by id",
            hint=f"name answers to `{suite.name}`, or give the same questions the same ids in both",
        )


def named_otherwise(engine: KeptEngine, version: Answered) -> Iterator[str]:
    """What else the names of kept answers stand for, and how that is named."""
    if others := [one for one in engine.versions if _differ(one, version)]:
        named = listed([f"`{STORED}{one.suite_sha256[:16]}/{engine.model}` ({_day(one)})" for one in others])
        yield f"`{engine.model}` was asked `{engine.suite}` in other words, too: those answers are {named}"
    if others := list({one.model_digest: one for one in reversed(engine.others)}.values()):
        named = listed([f"`{STORED}{engine.suite}/{one.model_digest[:16]}` ({_day(one)})" for one in others])
        yield (
            f"`{engine.model}` was not always the same weights: the answers used are those of `{version.model_digest[:16]}` "
            f"({_day(version)}), and others are {named}"
        )


def _differ(one: Answered, other: Answered) -> bool:
    """Whether something was asked otherwise in one than in the other."""
    pairs = [(one.keys.get(metric, {}), kept) for metric, kept in other.keys.items()]
    return any(key != kept[example_id] for mine, kept in pairs for example_id, key in mine.items() if example_id in kept)


def _day(one: Answered) -> str:
    return datetime.fromtimestamp(one.unix_seconds, UTC).strftime("%Y-%m-%d %H:%M UTC")
