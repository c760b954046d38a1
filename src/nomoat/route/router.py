"""`auto`: a model reference that sends each request to the model on this machine or to the cloud, and says why.

The policy speaks first: private data stays here whatever else is said. Then a router learned from the user's duels, then the
policy's default; what could cost more than the policy's budget has left stays here. A failure is raised where it happens, but for
the cloud's where the policy says `if_cloud_fails = "local"` (`fallback`): nothing is ever sent there because the local model failed.
By a router that goes by answers the local model is asked before it is decided (`cascade`), and nobody else.

A conversation is judged anew at each turn: what was private in it keeps it here, whatever is said beside that (`guard`).

What this does not cover: a client that leaves the private turns out sends the rest as if they had never been.
"""

from __future__ import annotations

import copy
import functools
import hashlib
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from nomoat import bounds, net, references
from nomoat import responder as responders
from nomoat.engine import Engine, KvCache, server_address
from nomoat.engine.budget import Rates
from nomoat.engine.remote import RemoteEngine
from nomoat.errors import PolicyChangedError, UsageError
from nomoat.progress import Progress
from nomoat.records import Chunk, Completion, ContinuationScore, Decision, Message, Place, Request, Rule, TokenLikelihood
from nomoat.responder import Responder
from nomoat.route import cascade, in_force
from nomoat.route.budget import OverBudgetError, rates_of, read_spent, why_over_budget
from nomoat.route.cascade import Draft
from nomoat.route.fallback import CloudError, Failures, OrHere, how_it_failed
from nomoat.route.in_force import FollowedPolicy, InForce, Usable, usable
from nomoat.route.learned import LearnedRouter, load_router
from nomoat.route.pii import KIND_TITLES, Kind
from nomoat.route.pii.guard import WINDOW, private_kinds, windows
from nomoat.route.policy import Policy, PolicyFile, default_path, load_policy
from nomoat.words import listed

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt


OnDecision = Callable[[Decision], None]


def explain(text: str, *, policy: Policy | None = None) -> Decision:
    """Where `text` would go. Loads no model and sends nothing. By default under the policy of NOMOAT_HOME.

    Whether the local model is still the one that the router was learned from is known when it is loaded: the reason says so.
    What it could cost is that of a question with the longest answer that `Request` has by default.
    """
    bounds.require_text(text, "the question")
    policy = load_policy() if policy is None else policy
    rates = _rates(policy)

    def over_budget() -> str:
        question = Request(messages=(Message(role="user", content=text),))
        return "" if rates is None else why_over_budget(policy, read_spent(), rates.most_usd(question))

    return decide([text], text, policy, usable(policy, load_router()), over_budget=over_budget)


def decide(
    texts: Iterable[str],
    question: str,
    policy: Policy,
    router: Usable,
    *,
    only_here: str = "",
    over_budget: Callable[[], str] = lambda: "",
    whole: str = "",
    answer: Callable[[], Completion] | None = None,
) -> Decision:
    """None of the `texts`, which are what would leave, may hold anything private, nor may `whole`, which is all of it (see
    `private_kinds`); the learned router is asked about `question`, or about the local model's `answer` to it, which is called for
    where nothing else has decided, and there is budget left. Without one a router that goes by answers has it answered here first,
    and no more is said.

    `only_here` says why the cloud model could not be asked this, if so. `over_budget` is asked of what would leave: why that could
    cost too much.
    """
    decision = _first_that_applies(_private_kinds(texts, policy, whole), question, policy, router, only_here, over_budget, answer)
    if decision.where == "cloud" and (why := over_budget()):
        return _kept_here(policy, decision, "budget", why)
    return decision


def _kept_here(policy: Policy, decision: Decision, rule: Rule, why: str) -> Decision:
    """What was decided for the cloud is done here."""
    return replace(decision, where="local", model=policy.local, why=why, rule=rule, max_new_tokens=None)


def _failed(policy: Policy, decision: Decision, error: CloudError) -> Decision:
    """What was decided for the cloud is done here: it failed, which the server's own words do not say, as they may repeat the text; or
    it was not asked (again), since what is in force by now decided otherwise."""
    if isinstance(error, PolicyChangedError):
        return error.decision
    why = f"`{references.shown_name(decision.model or '')}` failed{how_it_failed(error)}, and the policy then asks the local model"
    return _kept_here(policy, decision, "cloud_failed", why)


def _first_that_applies(
    kinds: tuple[Kind, ...], question: str, policy: Policy, router: Usable, only_here: str, over_budget: Callable[[], str],
    answer: Callable[[], Completion] | None,
) -> Decision:  # fmt: skip
    """`kinds`: what is private in what would leave."""

    def local(rule: Rule, why: str, kinds: tuple[Kind, ...] = ()) -> Decision:
        return Decision(where="local", model=policy.local, why=why, rule=rule, kinds=kinds)

    if kinds:
        held = listed([KIND_TITLES[kind] for kind in kinds])
        return local("private", f"it holds {held}, which the policy keeps from the cloud", kinds)
    if policy.cloud is None:
        return local("no_cloud", "the policy names no cloud model")
    if forbidden := net.offline():
        return local("offline", f"{forbidden} is set")
    if only_here:
        return local(in_force.RULE_OF.get(only_here, "cannot_ask"), only_here)
    return _by_chance(question, policy, router, over_budget, answer)


def _by_chance(
    question: str, policy: Policy, router: Usable, over_budget: Callable[[], str], answer: Callable[[], Completion] | None
) -> Decision:  # fmt: skip
    """What the learned router says, or else the policy's default."""
    model_at: dict[Place, str | None] = {"local": policy.local, "cloud": policy.cloud}

    def by_default(why: str) -> Decision:
        why = f"{why}; the policy's default is {policy.default}"
        return Decision(where=policy.default, model=model_at[policy.default], why=why, rule="default")

    if (learned := router.learned) is None:
        return by_default(router.why_not)
    if learned.by == "prompt":
        what, score = "local", learned.score(question)
    elif why := over_budget():  # before anybody waits for the whole of an answer that is given in any case
        return Decision(where="local", model=policy.local, why=why, rule="budget")
    elif answer is None:
        why = "local answers first, and what it is not sure enough of goes to the cloud"
        return Decision(where="local", model=policy.local, why=why + router.provided, rule="learned")
    elif (sure := cascade.sureness(answer())) is None:
        return by_default("local did not tell how sure it is of its answer")
    else:
        what, score = "local's answer", learned.score_of(sure)
    where: Place = "local" if score >= policy.threshold else "cloud"
    why = f"the chance that {what} is as good is {score:.2f}, and the policy's threshold is {policy.threshold:.2f}{router.provided}"
    return Decision(where=where, model=model_at[where], why=why, rule="learned", score=score)


def _private_kinds(texts: Iterable[str], policy: Policy, whole: str = "") -> tuple[Kind, ...]:
    return private_kinds(texts, kinds=policy.never_leaves, names=policy.names, patterns=policy.patterns, whole=whole)


class _Together:
    """Requests that are asked together. Safe to use from several threads."""

    def __init__(self, requests: Sequence[Request]) -> None:
        self._requests = requests
        self._lock = threading.Lock()
        self._found: tuple[InForce, str] | None = None  # what `going_on` found, by these rules

    def going_on(self, rules: InForce) -> str:
        """All questions that are asked together and are not private alone, if one after another they are, as where a number goes on
        from one to the next; nothing where none of them may leave."""
        with self._lock:
            if self._found is None or self._found[0] is not rules:
                self._found = rules, self._going_on(rules)
            return self._found[1]

    def _going_on(self, rules: InForce) -> str:
        policy = rules.policy
        if len(self._requests) < 2 or policy.cloud is None or rules.only_here:
            return ""
        questions = map(question_of, self._requests)
        together = "\n".join(text for text in questions if not _private_kinds([text], policy))
        return together if _private_kinds([together], policy) else ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Decided:
    """A decision with what it was made by, so that it can be made anew where that has changed before the answer is asked for."""

    decision: Decision
    rules: InForce
    together: _Together
    draft: Draft


class RouterEngine(Engine):
    """An engine that is one of two, decided for each request, a `Reader`, and what `serve.decisions` calls a Chooser.

    `on_decision` is told before the first word. `file` is looked at before each decision, and followed: see `FollowedPolicy`. What
    needs the weights at hand (likelihoods, embeddings), and what the cloud model does not take, is done on this machine.

    Raises UsageError for a policy with a budget that cannot be kept: see `Allowance`.
    """

    def __init__(
        self,
        policy: Policy,
        local: Responder,
        cloud: Responder | None = None,
        *,
        learned: LearnedRouter | None = None,
        on_decision: OnDecision | None = None,
        file: PolicyFile | None = None,
    ) -> None:
        self.on_decision = on_decision
        self._local = local
        if isinstance(local.engine, RemoteEngine):
            local.engine.has_to_stay = True
        self._cloud = cloud
        self.give_up_waiting = None if cloud is None else cloud.engine.give_up_waiting
        self._followed = FollowedPolicy(policy, local, cloud, learned, file)
        self._failures = Failures()
        self._last: tuple[Request, Responder] | None = None  # what was answered, and by whom

    @property
    def digest(self) -> str:
        """Changes with the policy, the learned router and either model."""
        rules = self._followed.last
        parts = [repr(rules.policy), repr(rules.router), self._local.digest, self._cloud.digest if self._cloud else ""]
        return "router-" + hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]

    @property
    def is_local(self) -> bool:
        """Whether prompts stay on this machine whatever they are."""
        return self._local.is_local and (self._cloud is None or self._cloud.is_local)

    @property
    def context_tokens(self) -> int | None:
        """The local model's; unknown where a request may go to the cloud."""
        return self._local.engine.context_tokens if self._cloud is None else None

    @property
    def spent_usd(self) -> float | None:
        """What the cloud's answers have cost since this was made; None where nobody counts that: without a budget, or a price."""
        return self._followed.spent_usd

    def decide(self, request: Request, continuations: Sequence[str] = ()) -> Decision:
        """Where this request goes and why; asking twice gives the same answer while no more is spent. No model is asked: what the
        local one has to answer first is told to be here."""
        rules = self._followed.now()
        return self._decide(rules, request, continuations, _most_usd(rules, request))

    def decide_all(self, requests: Sequence[Request], *, num_answers: int = 1) -> list[Decided]:
        """Where each of several requests goes that are asked together, each `num_answers` times: the budget has room for all of it.

        Private data that goes on from one to the next keeps all of them here. By a router that goes by answers the local model is
        asked what may leave, once each, for as long as whoever asks is there (`net.asking_for`).
        """
        made: list[Decided] = []
        usd = 0.0
        rules = self._followed.now()
        together = _Together(requests)
        for request in requests:
            most = num_answers * _most_usd(rules, request)
            draft = Draft(lambda: self._here, request, num_answers=num_answers)
            decision = self._decide(rules, request, (), usd + most, together.going_on(rules), draft)
            made.append(Decided(decision=decision, rules=rules, together=together, draft=draft))
            if decision.where == "cloud":
                usd += most
        return made

    def _still(self, made: Decided, request: Request, *, is_set_aside: bool = False) -> tuple[Decision, InForce]:
        """What was decided, and by what; decided anew where it was for the cloud, and something else is in force by now.

        `is_set_aside`: what it can cost is counted as spent already.
        """
        if made.decision.where == "local" or (rules := self._followed.now()) is made.rules:
            return made.decision, made.rules
        usd = 0.0 if is_set_aside else _most_usd(rules, request)
        return self._decide(rules, request, (), usd, made.together.going_on(rules), made.draft), rules

    def _require_still(self, made: Decided, request: Request) -> None:
        """Raises PolicyChangedError if what is in force by now keeps here what waits for its turn in the cloud, or for another try."""
        decision, _ = self._still(made, request, is_set_aside=True)
        if decision.where == "local":
            raise PolicyChangedError(
                f"not answered by the cloud: while this waited for it, what is in force changed, and keeps it here ({decision.why})",
                hint="ask again", status=503, decision=decision,
            )  # fmt: skip

    def _decide(
        self, rules: InForce, request: Request, continuations: Sequence[str], usd: float, going_on: str = "",
        draft: Draft | None = None,
    ) -> Decision:  # fmt: skip
        """`usd`: what it could cost, with all that is asked together with it; `going_on`: see `_Together`."""
        only_here = rules.only_here or self._only_here(replace(request, top_logprobs=0) if continuations else request)

        def over_budget() -> str:
            return "" if rules.allowance is None else rules.allowance.why_over_budget(usd)

        (texts, whole), question = _texts(request, continuations), question_of(request)
        decision = decide(
            [*texts, going_on], question, rules.policy, rules.router, only_here=only_here, over_budget=over_budget, whole=whole,
            answer=None if draft is None else draft.answer,
        )  # fmt: skip
        if decision.where == "local" or rules.allowance is None or request.max_new_tokens is not None:
            return decision
        return replace(decision, max_new_tokens=rules.allowance.rates.limited(request).max_new_tokens)

    def decide_embedding(self) -> Decision:
        """Always here."""
        why = "embeddings are computed on this machine"
        return Decision(where="local", model=self._followed.last.policy.local, why=why, rule="embeddings")

    def chosen(self, decision: Decision) -> Responder:
        """Who does what was decided so, and costs nothing; `on_decision` is told."""
        self._tell(decision)
        return self._side(decision)

    @contextmanager
    def answering(self, made: Decided, request: Request, on_change: OnDecision | None = None) -> Iterator[tuple[Decision, Responder]]:
        """Who answers what was decided so, within the block, and the decision as it is kept; `on_decision` is told.

        What has waited until now leaves only if what is in force now says so, too. Until the block ends, the most the answer can cost
        is set aside; where others have spent it since, the answer is made here. So it is where the cloud fails and the policy says so:
        `on_change` is told that decision, before the first word.
        """
        decision, rules = self._still(made, request)
        with ExitStack() as paying:
            if decision.where == "local" or rules.allowance is None:
                responder = made.draft.as_written(self._here) if decision.where == "local" else self._side(decision)
            else:
                try:
                    responder = paying.enter_context(rules.allowance.paying(request))
                except OverBudgetError as error:
                    decision, responder = _kept_here(rules.policy, decision, "budget", str(error)), made.draft.as_written(self._here)
            self._tell(decision)
            if decision.where == "cloud" and isinstance(responder.engine, RemoteEngine):
                require = functools.partial(self._require_still, replace(made, decision=decision, rules=rules), request)
                responder = Responder(responder.ref, responder.engine.asked_while(require))
            if decision.where == "cloud" and rules.policy.if_cloud_fails == "local":
                name = references.shown_name(responder.ref)

                def on_failure(error: CloudError) -> None:
                    paying.close()  # what it cost is known
                    if not isinstance(error, PolicyChangedError):
                        self._failures.failed(name, error)
                    if not self._local.is_local:  # named a gateway since it was loaded: see `_here`
                        raise error
                    changed = _failed(rules.policy, decision, error)
                    self._tell(changed)
                    if on_change is not None:
                        on_change(changed)

                engine = OrHere(
                    responder, made.draft.as_written(self._local), wait_seconds=rules.policy.max_wait_seconds, on_failure=on_failure,
                    on_word=functools.partial(self._failures.answered, name),
                )  # fmt: skip
                responder = Responder(responder.ref, engine)
            yield decision, responder

    @contextmanager
    def chosen_for(self, request: Request) -> Iterator[Engine]:
        """Of `answering`, as is decided of this request; `notes_on` tells of it afterwards."""
        with self.answering(self.decide_all([request])[0], request) as (_, responder):
            self._last = request, responder
            yield responder.engine

    def generate(self, request: Request) -> Iterator[Chunk]:
        with self.chosen_for(request) as engine:
            yield from engine.generate(request)

    def score(self, request: Request, continuations: Sequence[str]) -> list[ContinuationScore]:
        return self.chosen(self.decide(request, continuations)).score(request, continuations)

    def notes_on(self, request: Request) -> tuple[str, ...]:
        """See `Responder.notes_on`; of the one who answered, or who would answer if it were asked now."""
        if (last := self._last) is not None and last[0] == request:
            return last[1].notes_on(request)
        asked = self._local if self._cloud is None or self.decide(request).where == "local" else self._cloud
        return asked.notes_on(request)

    def embed(self, texts: Sequence[str | Sequence[int]], *, stop: threading.Event | None = None) -> npt.NDArray[np.float32]:
        return self.chosen(self.decide_embedding()).embed(texts, stop=stop)

    def prompt_likelihoods(self, request: Request, *, stop: threading.Event | None = None) -> list[TokenLikelihood]:
        decision = self.decide(request if request.top_logprobs is not None else replace(request, top_logprobs=0))
        return self.chosen(decision).prompt_likelihoods(request, stop=stop)

    def count_tokens(self, request: Request) -> int:
        return self._side(self.decide(request)).engine.count_tokens(request)

    @property
    def kv_cache(self) -> KvCache | None:
        """See `Engine.kv_cache`: that of the model on this machine."""
        return self._local.engine.kv_cache

    def bound_cache(self, num_bytes: int) -> None:
        """See `Responder.bound_cache`: that of the model on this machine."""
        self._local.bound_cache(num_bytes)

    def start(self) -> None:
        """See `Engine.start`: the model on this machine."""
        self._local.engine.start()

    def close(self) -> None:
        self._local.close()
        if self._cloud is not None:
            self._cloud.close()
        self._followed.close()

    def _only_here(self, request: Request) -> str:
        """Why the cloud model, which the policy names, cannot be asked this; empty if it can."""
        if self._cloud is None:
            return "the cloud model was not loaded: nomoat was offline when `auto` was"
        refusal = self._cloud.engine.refusal(request)
        return refusal.message if refusal is not None else ""

    def _tell(self, decision: Decision) -> None:
        if self.on_decision is not None:
            self.on_decision(decision)

    @property
    def _here(self) -> Responder:
        """The model on this machine. Raises RedirectedError where its server was named a gateway since it was loaded."""
        if not self._local.is_local:
            ref = self._local.ref
            hint = "name a model on this machine as `local` in the policy, and start again"
            raise net.has_to_stay(references.shown_name(ref), references.gateway_note(ref), hint=hint)
        return self._local

    def _side(self, decision: Decision) -> Responder:
        if decision.where == "local":
            return self._here
        assert self._cloud is not None  # else nothing is decided for it: see `_only_here`
        return self._cloud


def load_auto(
    *, context_tokens: int | None = None, template: str | None = None, as_client: bool = True, progress: Progress | None = None,
    compiling: Progress | None = None, on_decision: OnDecision | None = None, file: PolicyFile | None = None,
) -> Responder:  # fmt: skip
    """The responder of the reference `auto`, as the policy and the learned router of NOMOAT_HOME make it.

    `on_decision` is told where each prompt goes and why; `context_tokens` to `compiling` are those of `load`, of the model on this
    machine.
    `file`: the policy as it was read before, whose models are loaded whatever it says now; the rest is followed.

    Raises what `require_loadable` raises, before anything is loaded, and what `responder.load` raises for either model, and is given
    `as_client`. Offline, the cloud model is not even looked at, and not asked later either.
    """
    file = PolicyFile() if file is None else copy.copy(file)
    policy = file.parsed()
    here = require_loadable(policy)
    with ExitStack() as loaded:
        cloud = None
        if policy.cloud is not None and not net.offline():  # first: what is wrong with it is seen sooner
            cloud = loaded.enter_context(responders.load(policy.cloud, as_client=as_client))
        local = loaded.enter_context(
            responders.load(
                here,
                context_tokens=context_tokens,
                template=template,
                as_client=as_client,
                progress=progress,
                compiling=compiling,
            )
        )
        engine = RouterEngine(policy, local, cloud, learned=load_router(), on_decision=on_decision, file=file)
        loaded.pop_all()  # the engine closes them from now on
    licence = local.licence if cloud is None else f"local: {local.licence}; cloud: {cloud.licence}"
    return Responder(references.AUTO, engine, licence=licence, template=local.template, question=local.question)


def _most_usd(rules: InForce, request: Request) -> float:
    return 0.0 if rules.allowance is None else rules.allowance.rates.most_usd(request)


def question_of(request: Request) -> str:
    """What the learned router learns from and is asked about: what the user said, without system messages and earlier answers.

    Of a text with a gap both sides, as they stand: what is private may go on from one to the other.
    """
    return (request.prompt or "") + request.suffix or "\n".join(
        message.content for message in request.messages if message.role == "user"
    )


def require_loadable(policy: Policy) -> str:
    """The model on this machine that `auto` answers with, by a policy by which it can be loaded, as far as that is known beforehand:
    nothing is loaded, and nobody is asked.

    Raises UsageError for a policy that names none, for a cloud that `allowed` does not hold (the environment may send a provider's
    name elsewhere), or with a budget and no known price; SettingError for a key that either model needs and that is not set; DataError
    for the user's own prices. Offline, nothing is looked at of the cloud. Not covered: whether the files of a model are here.
    """
    if policy.local is None:
        raise UsageError(
            "`auto` does not know the model on this machine: there is no policy that names it",
            hint=f'write local = "smollm2-135m", or such, into `{default_path()}`',
        )
    if references.names_server(policy.local):
        references.require_key(policy.local)
    if policy.cloud is not None and not net.offline():
        references.require_key(policy.cloud)
        policy.require_allowed(net.host_of(server_address.parse(policy.cloud)[1]))
        _rates(policy)
    return policy.local


def _rates(policy: Policy) -> Rates | None:
    """See `rates_of`, before the cloud model is loaded."""
    return rates_of(policy, is_local=policy.cloud is not None and bool(references.is_local(policy.cloud)))


def _texts(request: Request, continuations: Sequence[str]) -> tuple[list[str], str]:
    """Whatever would leave with a request: each text of it, and together, as a number may go on from one to the next, what either side
    said, and all of it. Of a long one, all of it comes by itself, and together what the next turn leaves as it is, and the end."""
    ends = [text for text in (*request.stop, request.answer_start, *continuations) if text]
    rows = [*request.rows_of_texts, ends]
    parts = [text for row in rows for text in row]
    said = [message for message in request.messages if message.content]  # a turn that only calls says nothing
    of_sides = ([message.content for message in said if message.role == role] for role in ("user", "assistant"))
    raw = (request.prompt or "") + request.suffix
    last = [text for text in (*(message.content for message in said[-1:]), raw, *ends) if text]
    whole = "\n".join(parts)
    is_long = len(whole) > WINDOW
    together = [text for row in (*of_sides, *((*rows, last) if is_long else [parts])) for text in windows(row)]
    return [*parts, raw, *together], whole if is_long else ""
