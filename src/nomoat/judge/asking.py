"""One model being asked the questions of a suite: all at once or some at a time, each answer kept before it is scored."""

from __future__ import annotations

import hashlib
import math
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from nomoat import matching
from nomoat.asking.answers import FailuresInARow, Question, collect, collect_scores, count_earlier, failure_of, kept_scores
from nomoat.asking.room import asked_with_other, with_room
from nomoat.asking.store import Answered, AnswerStore
from nomoat.engine import stored, templates
from nomoat.engine.remote import RemoteEngine
from nomoat.errors import BudgetReachedError, ContextExceededError, DataError, NomoatError, UnsupportedError, UsageError
from nomoat.judge import asked_notes, choices, code, sandbox
from nomoat.judge.askable import require_context, template_of
from nomoat.judge.groups import conversations_of, grouped, groups_in
from nomoat.judge.kept import KeptEngine, asked_then, is_of_another, require_common
from nomoat.judge.metrics import score_text
from nomoat.judge.settings import RunSettings
from nomoat.judge.suite import Suite
from nomoat.judge.verdict import Evaluation, notes_over_all, side_of
from nomoat.providers import is_remote, named_in
from nomoat.records import ChoiceScores, Completion, ContinuationScore, Example, Message, Outcome, Request
from nomoat.responder import Responder

MOST_TRIED = 16  # programs that an answer passed, to see whether they pass without one
FEW_IN_VAIN = 8  # answers that all ended before they began, of which those to all other questions would be no better
NOTHING_SAID = "…"  # in the place of an empty answer, where another question follows: some servers refuse an empty message
_Words = tuple[Any, ...]  # a question's messages, its text, how its answer begins, and the choices offered


@dataclass(slots=True, kw_only=True)
class Asking:
    """One model being asked the questions of a suite, all at once or some at a time."""

    model: Responder
    suite: Suite
    store: AnswerStore
    settings: RunSettings
    label: str = ""  # under which its progress is shown, if not its reference
    examples: list[Example] = field(default_factory=list)
    outcomes: list[Outcome] = field(default_factory=list)
    num_reused: int = 0
    num_cut: int = 0
    num_cut_before: int = 0  # by their server, which counted fewer tokens than the limit
    num_unbegun: int = 0  # of those that were cut, such as hold nothing, or a draft alone
    num_left_out: int = 0  # kept answers that were cut off within less room than there is now, and those to what follows them
    num_filtered: int = 0
    num_cached_tokens: int = 0  # of prompts, which the model did not read anew
    num_failed: int = 0
    bytes_in_vain: int = 0
    dropped: list[Outcome] = field(default_factory=list)  # of conversations not answered to their end: no evidence, but paid for
    lost: dict[Request, int] = field(default_factory=dict)  # see `Collected`
    failure: NomoatError | None = None
    in_a_row: FailuresInARow = field(default_factory=FailuresInARow)
    writes_choices: bool = False
    unread: set[str] = field(default_factory=set)  # examples whose written answer is none of the choices, and no refusal
    unread_cut: set[str] = field(default_factory=set)  # those of them that were cut off, of a model that can be asked again
    asked: dict[Request, str] = field(default_factory=dict)  # what was answered in writing, and the first example that asked it
    histories: dict[str, tuple[Message, ...]] = field(default_factory=dict)  # by example: its conversation, and the model's answer
    scores: Mapping[Question, ChoiceScores] = field(default_factory=dict)  # the kept ones of a model that is not here
    likelihoods: dict[str, tuple[ContinuationScore, ...]] = field(default_factory=dict)  # of each answered example's choices
    ran: dict[str, sandbox.Ran] = field(default_factory=dict)  # how the program of each answer of code ended, by example
    tried: dict[str, bool] = field(default_factory=dict)  # whether the tests of some that passed would pass any answer, by example
    groups: dict[str, str] = field(init=False)
    lettered: bool = field(init=False)  # whether a choice that is written is a letter
    kept_ids: set[str] | None = None  # of the examples that a model which is not here has answered; None before it is looked up
    version: Answered | None = None  # what a model which is not here was asked; its questions by example are `then`
    then: dict[str, Question] = field(default_factory=dict)
    lettered_as: dict[str, str] = field(default_factory=dict)  # by example: the id that it had then, by which its letters are drawn
    _limits: list[int] | None = None
    _is_alpaca: bool | None = None  # whether the model's chat template is Alpaca's; None before that is looked up
    _requests: dict[str, tuple[Any, Request]] = field(default_factory=dict)  # by example, with what they depend on: see `request`

    def __post_init__(self) -> None:
        self.groups = groups_in(self.suite)
        # Answers that were given before know nothing of our letters, nor do those of them that are kept.
        is_asked = self.suite.metric == "choice" and not self.model.digest.startswith(stored.DIGEST_BEGINS)
        self.lettered = is_asked and choices.by_letter(self.suite)

    def ask(self, examples: Sequence[Example]) -> list[Outcome]:
        """Ask these, and keep what they are worth, which is returned: here, and in the store, where `route` finds it.

        Where the budget is used up, or a question failed, fewer are answered, and `failure` says why.
        """
        if isinstance(self.model.engine, KeptEngine):
            examples = self.kept(self.model.engine, examples)
        outcomes = (
            _by_choice(self, examples) if self.suite.metric == "choice" and not self.writes_choices else _by_text(self, examples)
        )
        answered = {outcome.example_id for outcome in outcomes}
        self.examples += [example for example in examples if example.id in answered]
        self.outcomes += outcomes
        # A judge's scores are still to come; kept answers have their outcomes already.
        if self.suite.metric != "judge" and not isinstance(self.model.engine, KeptEngine):
            self.store.save_outcomes(self.suite.sha256, self.suite.metric, self.model.digest, outcomes)
        return outcomes

    def kept(self, engine: KeptEngine, examples: Sequence[Example]) -> list[Example]:
        """Those that a model which is not here was asked before. What is kept of the whole suite is looked up once."""
        if self.kept_ids is None:
            self.kept_ids = self._find_kept(engine)
        known = self.kept_ids
        return [example for example in examples if example.id in known]

    def _find_kept(self, engine: KeptEngine) -> set[str]:
        self.show(0)
        self.version, asked = asked_then(engine, self.suite, self.store)
        examples = self._pair(engine, asked)
        if self.suite.metric == "choice":
            if scored := self._scored_before(engine, examples):
                return scored
            self.writes_choices = True
            examples = self._pair(engine, asked)
        found = {example.id for example in self.answered(examples)}
        self.num_left_out = len(self._cut_before(found, examples))
        return found

    def _pair(self, engine: KeptEngine, asked: Mapping[str, Question]) -> list[Example]:
        """Set `then`: which of these questions, by their ids then, each example is. Return the examples that may have been asked.

        First by its words, whatever its id: the number of a row is another one once a row comes before it. The words of a later turn
        are all that the user said so far. Else by its id, unless ids are such numbers; a later turn only where the one before it is
        paired by its id, too. Raises DataError where none is paired, of another suite.
        """
        before = {name: _words(question) for name, question in asked.items()}
        if self.writes_choices and self.lettered:
            self.lettered_as = self._lettered_then(before)
        now, said = self._words_now(), {name: _without_answers(words) for name, words in before.items()}
        there = {words: name for of_then in (said, before) for name, words in of_then.items()}
        same = {
            name: name if words in (before.get(name), said.get(name)) else there[words]
            for name, words in now.items() if words in there
        }  # fmt: skip
        moved = [name for name, then in same.items() if name != then]
        elsewhere = {now[name] for name in moved}
        # Where most have moved, ids are numbers of rows, and the id of a row that is in no words of then is another row's.
        are_numbers = len(moved) > max(len(same) - len(moved), len(now) / 4)
        self.then = {name: asked[then] for name, then in same.items()}
        for example in self.suite.examples:
            by_id = None if are_numbers or example.id in same else asked.get(example.id)
            if by_id is None or {before[example.id], said[example.id]} & elsewhere or self._has_other_letters(example, by_id):
                continue
            if not example.follows or self.then.get(example.follows) is asked.get(example.follows):
                self.then[example.id] = by_id
        if self.version is None or not is_of_another(engine, self.version, self.suite):
            return [*self.suite.examples]
        if not self.then:
            require_common(engine, self.suite, asked)
        return [example for example in self.suite.examples if example.id in self.then]

    def _words_now(self) -> dict[str, _Words]:
        """Each example's words; of a later turn, with those before it, and without the model's answers."""
        now = dict[str, _Words]()
        for example in self.suite.examples:
            messages, *rest = _words(self._asked_now(example))
            now[example.id] = (messages, *rest)
            if example.follows in now:
                now[example.id] = _without_answers(((*now[example.follows][0], *messages), *rest))
        return now

    def _lettered_then(self, before: Mapping[str, _Words]) -> dict[str, str]:
        """Of the examples whose question, with its choices, had another id, and so other letters for these: that id."""
        ids = {choices.without_letters(messages): name for name, (messages, *_) in before.items() if messages}
        found = {}
        for example in self.suite.examples:
            then = ids.get(example.messages, example.id)
            by_itself, as_then = (_words((self.written(replace(example, id=name)), ())) for name in (example.id, then))
            if by_itself != before.get(example.id) and as_then == before.get(then):
                found[example.id] = then
        return found

    def _has_other_letters(self, example: Example, then: Question) -> bool:
        """Whether a letter that answers what was asked then stands for another choice than it would now."""
        asked = "".join(message.content for message in then[0].messages[-1:])
        if self.suite.metric != "choice" or not asked.endswith(choices.LETTERS_END):
            return False
        return not self.lettered or choices.are_at_other_letters(example, asked)

    def answered(self, examples: Sequence[Example]) -> list[Example]:
        """Those whose answer is in the store; of a conversation, to the very words that came before. They are remembered."""
        found = []
        for example in examples:
            if example.follows and example.follows not in self.histories:
                continue
            if (answer := self.store.answer(self.model.digest, self.request(example))) is not None:
                self.remember(example, answer)
                found.append(example)
        return found

    def _cut_before(self, found: set[str], examples: Sequence[Example]) -> set[str]:
        """Of these examples, but those found, the ones whose kept answer was cut off within less room than there is now, or that
        follow such a one."""
        cut: set[str] = set()
        for example in examples:
            if example.id in found:
                continue
            if example.follows and example.follows not in self.histories:
                is_cut = example.follows in cut
            else:
                request = self.request(example)
                tried = (replace(request, max_new_tokens=limit) for limit in self._limits or ())
                is_cut = any(self.store.answer(self.model.digest, one) is not None for one in tried)
            if is_cut:
                cut.add(example.id)
        return cut

    @property
    def max_unread(self) -> float:
        """Of the choices, that one is the likeliest is all that is asked; by token, one that is read to its end can pass any other."""
        return 0.0 if self.suite.per_token else math.inf

    def _scored_before(self, engine: KeptEngine, examples: Sequence[Example]) -> set[str]:
        """Those whose choices' likelihoods are kept, by id; all of the form that has most of them."""
        questions = {example.id: self.question(example) for example in examples}
        for form in engine.forms:
            found = kept_scores(form, questions.values(), self.store, max_unread=self.max_unread)
            if len(found) > len(self.scores):
                self.scores, engine.forms = found, (form,)
            if len(found) == len({*questions.values()}):
                break
        return {example_id for example_id, question in questions.items() if question in self.scores}

    def is_unbegun(self, example: Example, answer: Completion) -> bool:
        """Whether an answer was cut off and is at most a draft; of a model that is not here, not of one which its template began."""
        if answer.finish_reason != "length":
            return False
        tokenizer, text = self.model.engine.tokenizer, answer.text
        if tokenizer is not None and tokenizer.prompt_text(self.request(example))[0].rstrip().endswith(matching.DRAFT_BEGINS):
            text = matching.DRAFT_BEGINS + text
        return not matching.without_draft(text).strip()

    @property
    def is_in_vain(self) -> bool:
        """Whether all answers ended before they began, and more would cost as much: they took money, and all the room there was."""
        return FEW_IN_VAIN <= self.num_unbegun == len(self.examples) and self.settings.spending.may_cost(self.model)

    def remember(self, example: Example, answer: Completion) -> None:
        """Keep what was said so far for the examples that follow this one."""
        said = self.suite.answer_in(answer.text)
        turn = Message(role="assistant", content=said if said.strip() else NOTHING_SAID)
        self.histories[example.id] = (*self.request(example).messages, turn)

    def evaluation(self, *, notes: Sequence[str] = ()) -> Evaluation:
        """What the answers so far come to, in the groups that are among them. Raises the failure if there is not one answer."""
        if not self.outcomes and self.failure is not None:
            raise self.failure
        if not self.outcomes and self.num_left_out:
            raise DataError(asked_notes.left_out(self), hint="name the model itself: what was cut off is asked again")
        if not self.outcomes:
            hint = (
                "name the --limit, --seed, --max-tokens and --reasoning-effort (in Python: `limit`, `seed`, `max_new_tokens`, "
                "`reasoning_effort`), the same --judge or none, "
                "and of a table, whose labels depend on them, the same models together, that they were asked with"
            )
            raise DataError(
                f"`{self.model.ref}` holds no answers to these questions", hint="; ".join((hint, *self.suite.notes))
            )  # fmt: skip
        suite = replace(self.suite, examples=tuple(self.examples), max_new_tokens=self.max_new_tokens)
        outcomes = grouped(self.outcomes, groups_in(suite))
        facts = {"digest": self.model.digest, "reused answers": str(self.num_reused)}
        price, seed = self.settings.spending.pricing(self.model).note, self.settings.seed
        earlier, tells_little = self.asked_earlier(), asked_notes.tells_little(self)
        side = side_of(
            self.model.ref, self.model.licence, suite.metric, outcomes, facts=facts, price=price,
            dropped=self.dropped, earlier=earlier, bytes_in_vain=self.bytes_in_vain,
        )  # fmt: skip
        return Evaluation(
            suite=suite,
            likelihoods=self.likelihoods,
            side=replace(side, num_reused=self.num_reused),
            outcomes=outcomes,
            notes=(*notes, *asked_notes.notes(self, earlier), *notes_over_all(suite, self.model.ref, outcomes)),
            seed=seed,
            partial=asked_notes.missing(self) or asked_notes.left_out(self) or tells_little,
            tells_little=tells_little,
            unread=frozenset(self.unread),
            unread_cut=frozenset(self.unread_cut),
        )

    def show(self, num_done: int) -> None:
        """Tell the progress how many of the examples asked now are answered."""
        self.settings.progress(self.label or self.model.ref, len(self.examples) + num_done, len(self.suite.examples))

    def asked_earlier(self) -> list[Outcome]:
        """What these questions came to when they were asked with a lower limit, whole or cut off: no evidence, but paid for."""
        if not self.asked or not self.settings.spending.may_cost(self.model):
            return []
        examples = {example.id: example for example in self.suite.examples}
        earlier = asked_with_other(self.model, [*self.asked], store=self.store)
        return [_paid(self, examples[self.asked[request]], answer, score=0.0) for request, answer in earlier]

    @property
    def max_new_tokens(self) -> int:
        """What a written answer may have."""
        return self.settings.max_new_tokens or self.suite.max_new_tokens

    @property
    def asked_as(self) -> str:
        """The model's reference; of kept answers, the one that they were asked under."""
        return self.model.engine.model if isinstance(self.model.engine, KeptEngine) else self.model.ref

    def request(self, example: Example) -> Request:
        """What the model is asked, with as much room as the settings give; see `with_room`. A kept answer may have had less.

        It is made once, as it is asked for often, and a later look may find another answer; and again where what was said before, or
        was asked then, is another now.
        """
        before, then = self.histories.get(example.follows), self.then.get(example.id)
        depends_on = (self.writes_choices, before, then, self.lettered_as.get(example.id))
        known = self._requests.get(example.id)
        if known is None or known[0] != depends_on:
            self._requests[example.id] = known = depends_on, self._made_request(example)
        return known[1]

    def _made_request(self, example: Example) -> Request:
        """What goes on with a text does not think: it is asked for no reasoning effort."""
        usual, _ = self.question(example)
        if self.settings.reasoning_effort != usual.reasoning_effort and usual.prompt is None and not self.is_in_other_words(example):
            usual = replace(usual, reasoning_effort=self.settings.reasoning_effort)
        wanted = self.settings.max_new_tokens
        if wanted is None:
            return usual
        if self._limits is None:
            self._limits = [limit for limit in self.store.limits(self.model.digest) if limit <= wanted]
        return with_room(self.model, usual, wanted, store=self.store, limits=self._limits)

    def question(self, example: Example) -> Question:
        """What is asked, with the choices whose likelihoods are taken. Of a model that is not here and was asked it in other words, or
        with other choices, what it was asked then."""
        now, then = self._now_and_then(example)
        is_of_then = isinstance(self.model.engine, KeptEngine) and self.model.engine.suite != self.suite.name
        return then if then is not None and (is_of_then or _words(then) != _words(now)) else now

    def _now_and_then(self, example: Example) -> tuple[Question, Question | None]:
        """`then` is None where it was not asked, or where only one of them is about likelihoods."""
        now, then = self._asked_now(example), self.then.get(example.id)
        return now, then if then is not None and bool(then[1]) == bool(now[1]) else None

    def _asked_now(self, example: Example) -> Question:
        is_written = self.suite.metric != "choice" or self.writes_choices
        offered = () if is_written else tuple(f"{self.suite.delimiter}{choice}" for choice in example.choices)
        return self._usual(example), offered

    def is_in_other_words(self, example: Example) -> bool:
        """Whether a kept answer is to other words, or choices, than the suite has now."""
        if example.id not in self.then:
            return False
        now, then = self._now_and_then(example)
        return then is not None and _words(then) != _words(now)

    def has_other_target(self, example: Example) -> bool:
        """Whether the question that an answer in other words is paired with had other right answers: it may be another question."""
        then = "" if self.version is None else self.version.targets.get(example.id, "")
        now = _target_digest(example)
        return "" not in (then, now) and not {*then.split()} & {*now.split()} and self.is_in_other_words(example)

    def has_other_room(self, example: Example) -> bool:
        """Whether a kept answer in writing to the same words had another limit, or other stops, than the suite has now."""
        (request, offered), (now, _) = self.question(example), self._asked_now(example)
        room = (now.stop, now.max_new_tokens if self.settings.max_new_tokens is None else request.max_new_tokens)
        return not offered and (request.stop, request.max_new_tokens) != room and not self.is_in_other_words(example)

    def _usual(self, example: Example) -> Request:
        """With the suite's limit. Who offers no plain continuation of a text is asked in a chat, whatever the suite says."""
        if self.writes_choices:
            return self.written(example)
        common: dict[str, Any] = {"max_new_tokens": self.suite.max_new_tokens, "temperature": 0.0, "stop": self.suite.stop}
        asked_as = self.asked_as
        if self.suite.answer_start and is_remote(asked_as):
            raise UnsupportedError(
                f"`{self.suite.name}` puts words into a model's mouth, and `{asked_as}` is a server, which begins its answers itself",
                hint="ask models on this machine, or use another suite",
            )
        provider = named_in(asked_as)
        is_chat = self.suite.chat or (provider is not None and provider.chats_only)
        if not is_chat:
            return Request(prompt=example.messages[-1].content, **common)
        if self.suite.metric == "code" and not self.suite.chat:
            raise UnsupportedError(
                f"`{self.suite.name}` lets a model go on with code, and `{asked_as}` only chats: what it says is no continuation",
                hint="ask models on this machine, or use a suite that asks for code in a chat, such as `humaneval`",
            )
        messages = (*self.histories.get(example.follows, ()), *self._asked_of(example))
        return Request(messages=messages, answer_start=self.suite.answer_start, **common)

    def _asked_of(self, example: Example) -> tuple[Message, ...]:
        """The example's messages; of an instruction with its input those that a model with Alpaca's template is tuned on."""
        if not example.alpaca_question:
            return example.messages
        if self._is_alpaca is None:
            self._is_alpaca = template_of(self.model, self.asked_as, self.settings) == templates.ALPACA.text
        *before, last = example.messages
        return (*before, replace(last, content=example.alpaca_question)) if self._is_alpaca else example.messages

    def written(self, example: Example) -> Request:
        """What a model is asked that writes its choice."""
        messages = choices.written_question(self._as_lettered(example), lettered=self.lettered)
        return Request(messages=messages, max_new_tokens=self.suite.max_new_tokens, temperature=0.0)

    def choice_written(self, example: Example, answer: str) -> str | None:
        """Which choice an answer in writing is: see `choices.written_choice`."""
        return choices.written_choice(self._as_lettered(example), answer, lettered=self.lettered)

    def _as_lettered(self, example: Example) -> Example:
        return replace(example, id=self.lettered_as.get(example.id, example.id))

    def outcome(self, example: Example, *, answer: str, score: float, seconds: float, key: str) -> Outcome:
        """What this model's answer to an example, which is kept under that key, was worth."""
        ran = self.ran.get(example.id)
        return Outcome(
            suite=self.suite.name,
            example_id=example.id,
            model=self.model.ref,
            answer=answer,
            score=score,
            category=example.category,
            group=self.groups[example.id],
            seconds=seconds,
            cost_usd=self.settings.spending.pricing(self.model).likelihoods_usd,
            ended="" if ran is None else ran.outcome,
            said="" if ran is None else ran.said,
            answer_key=key,
            target_digest=_target_digest(example),
        )


def _target_digest(example: Example) -> str:
    """Of each right answer as `exact` compares it: who writes one otherwise, or adds another, asks no other question. "" where there
    is none, as for a judge."""
    targets = {matching.normalise_answer(target) for target in (example.target, *example.other_targets) if target}
    return " ".join(sorted(hashlib.sha256(target.encode(errors="surrogatepass")).hexdigest()[:8] for target in targets))


def _words(question: Question) -> _Words:
    request, offered = question
    return request.messages, request.prompt, request.answer_start, offered


def _without_answers(words: _Words) -> _Words:
    messages, *rest = words
    return (tuple(message for message in messages if message.role != "assistant"), *rest)


def _by_choice(run: Asking, examples: Sequence[Example]) -> list[Outcome]:
    """Likelihood of each example's choices; written answers for a model that gives no likelihoods, such as any server's."""
    if isinstance(run.model.engine, RemoteEngine):
        run.writes_choices = True
        return _by_text(run, examples)
    run.show(0)  # looking them up may take long, too
    questions = [run.question(example) for example in examples]
    kept = run.scores or kept_scores(run.model.scores_digest, questions, run.store, max_unread=run.max_unread)
    pending = [example for example, question in zip(examples, questions, strict=True) if question not in kept]
    require_context(run, pending, new_tokens=1)
    try:
        collected = collect_scores(
            run.model,
            questions,
            store=run.store,
            max_unread=run.max_unread,
            concurrency=run.settings.concurrency,
            kept=kept,
            show=lambda num_open: run.show(len(examples) - num_open),
        )
    except UnsupportedError:
        run.writes_choices = True
        return _by_text(run, examples)
    run.num_reused += len(examples) - len(pending)
    outcomes = []
    for example, (request, offered), scored in zip(examples, questions, collected, strict=True):
        if isinstance(scored, ContextExceededError):
            raise scored
        at = matching.likeliest(scored.scores, per_token=run.suite.per_token)
        meant = example.choices
        if run.is_in_other_words(example):
            meant = tuple(choices.choice_offered(example, one) for one in offered)
        answer = meant[at]
        if meant == example.choices:
            run.likelihoods[example.id] = scored.scores
        key, score = run.store.key(run.model.scores_digest, request, offered), choices.is_right(example, answer)
        outcomes.append(run.outcome(example, answer=answer, score=score, seconds=scored.seconds, key=key))
    return outcomes


def _by_text(run: Asking, examples: Sequence[Example]) -> list[Outcome]:
    answered: dict[str, Completion] = {}
    for part in _asked_together(run, examples):
        _ask_in_turn(run, part, answered)
        if isinstance(run.failure, BudgetReachedError):
            begun, answered = answered, _whole_conversations(examples, answered)
            run.dropped += [_paid(run, *pair, score=0.0) for pair in _pairs(examples, begun) if pair[0].id not in answered]
            break
        if len(answered) >= FEW_IN_VAIN and all(run.is_unbegun(*pair) for pair in _pairs(examples, answered)):
            break
    pairs = _pairs(examples, answered)
    cut = {example.id: completion.usage for example, completion in pairs if completion.finish_reason == "length"}
    run.num_unbegun += sum(run.is_unbegun(*pair) for pair in pairs)
    num_before = sum(usage.is_counted and usage.completion_tokens < run.max_new_tokens for usage in cut.values())
    run.num_cut += len(cut) - num_before
    run.num_cut_before += num_before
    different = {run.request(example): completion for example, completion in pairs}
    run.num_cached_tokens += sum(completion.usage.cached_tokens for completion in different.values())
    filtered = {example.id for example, completion in pairs if completion.finish_reason == "filtered"}
    run.num_filtered += len(filtered)
    scores = _scores(run, [(example, completion.text) for example, completion in pairs])
    run.unread -= filtered
    if not isinstance(run.model.engine, KeptEngine):
        run.unread_cut |= run.unread & cut.keys()
    return [_paid(run, *pair, score=score) for pair, score in zip(pairs, scores, strict=True)]


def _pairs(examples: Sequence[Example], answered: Mapping[str, Completion]) -> list[tuple[Example, Completion]]:
    """Those that have an answer, with it."""
    return [(example, answered[example.id]) for example in examples if example.id in answered]


def _asked_together(run: Asking, examples: Sequence[Example]) -> Iterator[Sequence[Example]]:
    """Everything at once, of a model that takes money but for a few conversations before, by which it is known whether its answers
    begin; with a budget, a few conversations at a time, in random order.

    Otherwise the budget would be spent on their first questions, and what was answered would be no fair sample.
    """
    conversations = conversations_of(examples)
    if run.settings.spending.budget is None or len(conversations) == len(examples):
        num_first = max(FEW_IN_VAIN, run.settings.concurrency)
        if len(conversations) > num_first and not run.examples and run.settings.spending.may_cost(run.model):
            first = [example for conversation in random.Random(0).sample(conversations, num_first) for example in conversation]
            yield first
            chosen = {example.id for example in first}
            examples = [example for example in examples if example.id not in chosen]
        yield examples
        return
    run.answered(examples)  # from here on it is known which words came before
    known = [run.request(example) for example in examples if not example.follows or example.follows in run.histories]
    count_earlier(run.model, known, store=run.store, spending=run.settings.spending)
    random.Random(0).shuffle(conversations)
    for start in range(0, len(conversations), run.settings.concurrency):
        yield [example for conversation in conversations[start : start + run.settings.concurrency] for example in conversation]


def _ask_in_turn(run: Asking, examples: Sequence[Example], answered: dict[str, Completion]) -> None:
    """Add an answer to each example, as far as there is one. One that follows another is asked once that one is answered."""
    tried: set[str] = set()
    while remaining := [example for example in examples if example.id not in tried]:
        ready = [example for example in remaining if not example.follows or example.follows in run.histories]
        if not ready and run.failure is not None:  # what they follow got no answer
            break
        if not ready:
            said = f"example `{remaining[0].id}` follows `{remaining[0].follows}`, which is not asked"
            raise UsageError(said, hint="ask that one, too: put it before the other into the suite")
        tried |= {example.id for example in ready}
        for example, completion in _written(run, ready, len(answered)):
            answered[example.id] = completion
            run.remember(example, completion)


def _whole_conversations(examples: Sequence[Example], answered: dict[str, Completion]) -> dict[str, Completion]:
    """The answers of conversations that were answered to their end."""
    whole = [conversation for conversation in conversations_of(examples) if all(example.id in answered for example in conversation)]
    return {example.id: answered[example.id] for conversation in whole for example in conversation}


def _scores(run: Asking, pairs: Sequence[tuple[Example, str]]) -> list[float]:
    """What each written answer is worth."""
    suite = run.suite
    if run.writes_choices:  # from the whole answer, as the notes count them
        chosen = [run.choice_written(example, answer) for example, answer in pairs]
        run.unread |= {example.id for (example, _), choice in zip(pairs, chosen, strict=True) if choice is None}
        return [choices.is_right(example, choice) for (example, _), choice in zip(pairs, chosen, strict=True)]
    pairs = [(example, suite.answer_in(answer)) for example, answer in pairs]
    if suite.metric == "judge":
        return [0.0] * len(pairs)
    if suite.metric == "code":
        ended = code.run_answers(pairs, chat=suite.chat)
        run.ran |= {example.id: ran for (example, _), ran in zip(pairs, ended, strict=True)}
        passed = [example for (example, _), ran in zip(pairs, ended, strict=True) if ran.passed]
        run.tried |= code.passing_unanswered(passed[: MOST_TRIED - len(run.tried)])
        return [float(ran.passed) for ran in ended]
    return [score_text(suite.metric, answer, example, schema=suite.schema) for example, answer in pairs]


def _written(run: Asking, examples: Sequence[Example], num_before: int) -> Iterator[tuple[Example, Completion]]:
    """Every example that got an answer with it, in order, once all are there."""
    if run.model.engine.context_tokens is not None:
        run.show(num_before)  # counting their tokens may take long, too; of a model without a bound that is not done
    requests = {example.id: run.request(example) for example in examples}
    missing = (example for example in examples if run.store.answer(run.model.digest, requests[example.id]) is None)
    require_context(run, missing, new_tokens=run.max_new_tokens)
    collected = collect(
        run.model,
        list(requests.values()),
        store=run.store,
        spending=run.settings.spending,
        concurrency=run.settings.concurrency,
        show=lambda num_open: run.show(num_before + len(examples) - num_open),
        in_a_row=run.in_a_row,
    )
    found = collected.answers
    run.num_reused += collected.num_reused
    run.num_failed += collected.num_failed
    run.bytes_in_vain += collected.bytes_in_vain
    run.lost.update(collected.lost)
    run.failure = failure_of(run.failure, collected)
    return ((example, found[requests[example.id]]) for example in examples if requests[example.id] in found)


def _paid(run: Asking, example: Example, completion: Completion, *, score: float) -> Outcome:
    """The outcome of a written answer, with what that took."""
    request = run.request(example)
    first = run.asked.setdefault(request, example.id)
    key = run.store.key(run.model.digest, request)
    return replace(
        run.outcome(example, answer=completion.text, score=score, seconds=0.0, key=key),
        same_as="" if first == example.id else first,
        seconds=completion.usage.seconds,
        prompt_tokens=completion.usage.prompt_tokens,
        completion_tokens=completion.usage.completion_tokens,
        bytes_out=completion.usage.bytes_out,
        cost_usd=run.settings.spending.pricing(run.model).cost_usd(completion),
    )
