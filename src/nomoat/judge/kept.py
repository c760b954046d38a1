"""`stored:SUITE/MODEL` where MODEL is one that answered SUITE here before: its kept answers, without the model or its server.

Answers and likelihoods are found in the store under the digest of the model that gave them. What was never asked has no answer, and is
left out by `Asking.ask`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from nomoat.asking.store import AnswerStore
from nomoat.catalog.datasets import pull_dataset
from nomoat.engine import Engine, served_scores_digest
from nomoat.engine.stored import stored_names
from nomoat.errors import UnknownModelError, UnsupportedError
from nomoat.judge.builtin import BUILT_IN
from nomoat.judge.metrics import METRICS
from nomoat.records import Chunk, ContinuationScore, Request
from nomoat.references import STORED
from nomoat.responder import Responder, ref_of


class KeptEngine(Engine):
    """The place of a model that is not here. `model` is the reference it was asked under.

    `forms`: the digests its likelihoods may be kept under: that of the file's own weights first, then that of the form served with
    less memory. Once some are found, the one they were kept under.
    """

    is_local = True
    context_tokens: int | None = None

    def __init__(self, model: str, digest: str) -> None:
        self.model = model
        self._ask = f"name `{model}` itself, and it is asked"
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
    known = store.digests(suite)
    meant = [name] if name in known else [model for model in known if model.casefold().startswith(name.casefold())]
    if len(meant) != 1:
        there = (
            f"answered `{suite}` here: {', '.join(known)}" if known else "run `nomoat eval MODEL SUITE` first: its answers are kept"
        )
        raise UnknownModelError(f"no answers of `{name}` to `{suite}` are kept", hint=there)
    return Responder(ref, KeptEngine(meant[0], known[meant[0]]))
