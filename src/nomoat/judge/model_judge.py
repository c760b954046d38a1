"""A model as a judge: of pairs of answers, shown in both orders, or of single ones.

A pair is won by the answer that wins in both orders; if the order decides, or a verdict cannot be read, it is a tie. Where the judge's
likelihoods can be had, what it gives to whoever is shown first or last cancels out over the two orders (Wang et al. 2023,
arXiv:2305.17926), and the answer wins that it leans to in the end. Verdicts are stored like any answer, and cost like any answer.

What this does not cover: a judge prefers longer answers, its own style, and often its own family. How far it agrees with labels of
people or of another judge is measured by `agreement.py`.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from nomoat import matching
from nomoat.asking.answers import collect, collect_scores, failure_of
from nomoat.asking.room import with_room
from nomoat.asking.spending import Spending
from nomoat.asking.spent import Spent
from nomoat.asking.store import AnswerStore
from nomoat.errors import BudgetReachedError, ContextExceededError, DataError, NomoatError, UnsupportedError
from nomoat.judge import judge_prompts
from nomoat.progress import Progress
from nomoat.records import ChoiceScores, Message, Request
from nomoat.responder import Responder
from nomoat.words import counted

Conversation = tuple[Message, ...]

WIN, TIE, LOSS = 1.0, 0.5, 0.0
UNREADABLE = ""  # no verdict: the question and its answers are longer than the judge's context


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """Two conversations that begin with the same question and end with an answer each."""

    one: Conversation
    other: Conversation
    reference: str = ""

    @property
    def is_same(self) -> bool:
        """Whether both sides said the same throughout."""
        return self.one[:-1] == self.other[:-1] and self.one[-1].content.strip() == self.other[-1].content.strip()


@dataclass(frozen=True, slots=True, kw_only=True)
class PairVerdict:
    """The verdicts with `one` shown first, and with `other` shown first; each A, B or C, or None if it could not be read.

    `lean` is the log-odds of `one` against `other`, summed over both orders; None where likelihoods cannot be had. Not `is_asked`:
    both answers are equal, and no judge saw them.
    """

    first: str | None
    second: str | None
    lean: float | None = None
    is_asked: bool = True

    @property
    def score(self) -> float:
        """1 if `one` won, 0 if `other` did, 0.5 if neither: by `lean`, or else by winning in both orders."""
        if self.lean is not None:
            return WIN if self.lean > 0 else LOSS if self.lean < 0 else TIE
        return {("A", "B"): WIN, ("B", "A"): LOSS}.get((self.first or "", self.second or ""), TIE)

    @property
    def is_readable(self) -> bool:
        """Whether a verdict was found in what the judge wrote about each order."""
        return self.first is not None and self.second is not None

    @property
    def is_silent(self) -> bool:
        """Whether there is no verdict to be read in either order."""
        return self.first is None and self.second is None

    @property
    def is_consistent(self) -> bool:
        """Whether both orders said the same."""
        return (self.first, self.second) in (("A", "B"), ("B", "A"), ("C", "C"))


EQUAL = PairVerdict(first="C", second="C", is_asked=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """What a judge said to one request, and how likely each verdict was, where that can be had."""

    text: str
    log_probabilities: tuple[float, ...] = ()


@dataclass(slots=True, kw_only=True)
class Judge:
    """A model that judges, and what it is asked with."""

    model: Responder
    store: AnswerStore
    spending: Spending
    concurrency: int
    max_new_tokens: int = judge_prompts.MAX_VERDICT_TOKENS
    show: Progress = lambda _done, _total: None
    writes: bool | None = None  # not known before it is asked
    failure: NomoatError | None = None
    num_cut: int = 0
    too_long: list[ContextExceededError] = field(default_factory=list)  # one for each question
    spent: Spent = field(init=False)

    def __post_init__(self) -> None:
        self.spent = Spent(pricing=self.spending.pricing(self.model))

    @property
    def notes(self) -> tuple[str, ...]:
        """What has to be known about its verdicts, whatever they say."""
        return (*self.cut_note, *self.too_long_note, *self.spent.notes(self.model, self.store, self.spending))

    @property
    def cut_note(self) -> tuple[str, ...]:
        """How many of its answers were cut off, and may have no verdict for that."""
        if not self.num_cut:
            return ()
        return (
            f"{self.num_cut:,} of {self.spent.num_answers:,} answers of the judge were cut off within {self.max_new_tokens} new "
            "tokens (a higher `--max-tokens`, in Python: `max_new_tokens`, gives it more, too)",
        )

    @property
    def too_long_note(self) -> tuple[str, ...]:
        """How many questions it has no verdict on because they are longer than its context."""
        if not self.too_long:
            return ()
        questions = counted(len(self.too_long), "question")
        return (f"{questions} to the judge did not fit into its context of {self.too_long[0].context_tokens:,} tokens",)

    def no_verdict(self, said: str) -> NomoatError:
        """The error of a judge none of whose verdicts can be read, which `said` says."""
        if self.failure is None and self.too_long:  # a likelihood is a verdict, whatever it is
            return DataError(f"the judge gave no verdict: {self.too_long[0].message}", hint=self.too_long[0].hint)
        return self.failure or DataError("; ".join((said, *self.cut_note)), hint="name another judge")

    def pairs(self, pairs: Sequence[Pair], *, together: int = 1) -> list[PairVerdict | None]:
        """The verdict on each pair; None where the budget was used up, or the judge failed. Equal answers are a tie unasked.

        Each `together` pairs in a row are of one example. A budget is spent on whole examples, in a random order; where it is used up,
        of those with equal answers alone the same share has a verdict as of the others: otherwise more ties than wins would count.
        """
        blocks = [range(start, start + together) for start in range(0, len(pairs), together)]
        if self.spending.budget is not None:
            random.Random(0).shuffle(blocks)
        asked = [pairs[at] for block in blocks for at in block if not pairs[at].is_same]

        def requests(writes: bool) -> list[Request]:
            return [
                judge_prompts.pair_request(*order, reference=pair.reference, writes=writes)
                for pair in asked
                for order in ((pair.one, pair.other), (pair.other, pair.one))
            ]

        found = self._said(requests, judge_prompts.VERDICTS, in_order=True)
        said = iter(zip(found[::2], found[1::2], strict=True))
        verdicts = {at: EQUAL if pairs[at].is_same else _verdict(*next(said)) for block in blocks for at in block}
        if isinstance(self.failure, BudgetReachedError) and None in verdicts.values():
            equal = [block for block in blocks if all(pairs[at].is_same for at in block)]
            shown = [block for block in blocks if not all(pairs[at].is_same for at in block)]
            left_out = [block for block in shown if None in map(verdicts.get, block)]
            left_out += equal[round(len(equal) * (len(shown) - len(left_out)) / len(shown)) :]
            for block in left_out:
                verdicts.update(dict.fromkeys(block))
        return [verdicts[at] for at in range(len(pairs))]

    def grades(self, conversations: Sequence[tuple[Conversation, str]]) -> list[float | None]:
        """The grade of each conversation (with its reference answer, or ""): 1 to 10; None where there is none to be read."""

        def requests(writes: bool) -> list[Request]:
            return [
                judge_prompts.grade_request(conversation, reference=reference, writes=writes)
                for conversation, reference in conversations
            ]

        found = self._said(requests, judge_prompts.GRADES, in_order=False)
        return [None if said is None else judge_prompts.parse_grade(said.text) for said in found]

    def _said(self, requests: Callable[[bool], list[Request]], verdicts: Sequence[str], *, in_order: bool) -> list[Said | None]:
        """What the judge said to each request: written, or, where its likelihoods can be had, the likeliest verdict."""
        if self.writes is not True:
            try:
                chosen: list[Said | None] = [*self._likeliest(requests(False), verdicts)]
                self.writes = False
                return chosen
            except UnsupportedError:
                self.writes = True
        return self._written(requests(True), in_order=in_order)

    def _likeliest(self, requests: Sequence[Request], verdicts: Sequence[str]) -> list[Said]:
        found = collect_scores(
            self.model,
            [(request, tuple(verdicts)) for request in requests],
            store=self.store,
            concurrency=self.concurrency,
            show=lambda num_open: self.show(len(requests) - num_open, len(requests)),
        )
        self.too_long = [scored for scored in found if isinstance(scored, ContextExceededError)]
        return [_likeliest_of(verdicts, scored) for scored in found]

    def _written(self, requests: Sequence[Request], *, in_order: bool) -> list[Said | None]:
        if self.max_new_tokens > judge_prompts.MAX_VERDICT_TOKENS:
            limits = [limit for limit in self.store.limits(self.model.digest) if limit <= self.max_new_tokens]
            requests = [with_room(self.model, one, self.max_new_tokens, store=self.store, limits=limits) for one in requests]
        collected = collect(
            self.model,
            requests,
            store=self.store,
            spending=self.spending,
            concurrency=self.concurrency,
            show=lambda num_open: self.show(len(requests) - num_open, len(requests)),
            in_order=in_order,
        )
        self.failure = failure_of(self.failure, collected)
        if not collected.answers and self.failure is not None and not isinstance(self.failure, BudgetReachedError):
            raise self.failure
        self.spent.add(collected)
        self.num_cut += sum(completion.finish_reason == "length" for completion in collected.answers.values())
        return [Said(text=collected.answers[request].text) if request in collected.answers else None for request in requests]


def _likeliest_of(verdicts: Sequence[str], scored: ChoiceScores | ContextExceededError) -> Said:
    if isinstance(scored, ContextExceededError):
        return Said(text=UNREADABLE)
    likelihoods = tuple(score.log_probability for score in scored.scores)
    return Said(text=verdicts[matching.likeliest(scored.scores)], log_probabilities=likelihoods)


def _verdict(first: Said | None, second: Said | None) -> PairVerdict | None:
    if first is None or second is None:
        return None
    lean = None
    if first.log_probabilities and second.log_probabilities:
        (first_a, first_b, _), (second_a, second_b, _) = first.log_probabilities, second.log_probabilities
        lean = first_a - first_b + second_b - second_a
    return PairVerdict(
        first=judge_prompts.parse_verdict(first.text), second=judge_prompts.parse_verdict(second.text), lean=lean
    )  # fmt: skip
