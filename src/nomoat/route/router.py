"""`auto`: a model reference that sends each request to the model on this machine or to the cloud, and says why.

The policy speaks first: private data stays here whatever else is said. Then a router learned from the user's duels, then the
policy's default. A failure is raised where it happens: nothing is ever sent to the cloud because the local model failed.

A conversation is judged anew at each turn, as a whole: what was private in it keeps it here.

What this does not cover: a client that leaves the private turns out sends the rest as if they had never been.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from nomoat import net
from nomoat import responder as responders
from nomoat.engine import Engine
from nomoat.errors import UsageError
from nomoat.records import Chunk, ContinuationScore, Request
from nomoat.responder import ImportProgress, Responder
from nomoat.route import pii
from nomoat.route.learned import LearnedRouter, load_router
from nomoat.route.pii import KIND_TITLES, Kind
from nomoat.route.policy import Place, Policy, default_path, load_policy

AUTO = "auto"


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """Where a request goes and why. `score`: the learned chance that local is as good; None if nobody asked the learned router.

    `kinds`: private data found, as far as the policy cares.
    """

    where: Place
    model: str | None
    why: str
    score: float | None = None
    kinds: tuple[Kind, ...] = ()


OnDecision = Callable[[Decision], None]


def explain(text: str, *, policy: Policy | None = None, learned: LearnedRouter | None = None) -> Decision:
    """Where `text` would go. Loads no model and sends nothing. By default under the policy and the learned router of NOMOAT_HOME."""
    policy = load_policy() if policy is None else policy
    return decide(text, text, policy, usable(policy, load_router() if learned is None else learned))


@dataclass(frozen=True, slots=True, kw_only=True)
class Usable:
    """The learned router, or None and why there is none for these models."""

    learned: LearnedRouter | None
    why_not: str = ""


def usable(policy: Policy, learned: LearnedRouter | None, *, local_digest: str | None = None) -> Usable:
    """A learned router speaks of the two models it learned from only. `local_digest` is the local model's now, if it is loaded."""
    if learned is None:
        return Usable(learned=None, why_not="no router is learned")
    if (learned.local, learned.cloud) != (policy.local, policy.cloud):
        return Usable(learned=None, why_not=f"the router was learned for `{learned.local}` and `{learned.cloud}`")
    if local_digest is not None and learned.local_digest != local_digest:
        return Usable(learned=None, why_not=f"`{learned.local}` has changed since the router was learned")
    return Usable(learned=learned)


def decide(everything: str, question: str, policy: Policy, router: Usable) -> Decision:
    """`everything` is what would leave, and must hold nothing private; `question` is what the learned router is asked about."""

    def local(why: str, kinds: tuple[Kind, ...] = ()) -> Decision:
        return Decision(where="local", model=policy.local, why=why, kinds=kinds)

    found = pii.find(everything, kinds=policy.never_leaves, names=policy.names)
    kinds = tuple(dict.fromkeys(finding.kind for finding in found))
    if kinds:
        return local(f"it holds {_listed([KIND_TITLES[kind] for kind in kinds])}, which the policy keeps here", kinds)
    if policy.cloud is None:
        return local("the policy names no cloud model")
    if forbidden := net.offline():
        return local(f"{forbidden} is set")
    if router.learned is None:
        model = policy.cloud if policy.default == "cloud" else policy.local
        return Decision(where=policy.default, model=model, why=f"{router.why_not}; the policy's default is {policy.default}")
    score = router.learned.score(question)
    where: Place = "local" if score >= policy.threshold else "cloud"
    return Decision(
        where=where,
        model=policy.local if where == "local" else policy.cloud,
        why=f"the chance that local is as good is {score:.2f}, and the policy's threshold is {policy.threshold:.2f}",
        score=score,
    )


class RouterEngine:
    """An `Engine` that is one of two, decided for each request. `on_decision` is told before the first word."""

    def __init__(
        self,
        policy: Policy,
        local: Responder,
        cloud: Responder | None = None,
        *,
        learned: LearnedRouter | None = None,
        on_decision: OnDecision | None = None,
    ) -> None:
        self.policy = policy
        self.router = usable(policy, learned, local_digest=local.digest)
        self.on_decision = on_decision
        self._local = local
        self._cloud = cloud

    @property
    def digest(self) -> str:
        """Changes with the policy, the learned router and either model."""
        parts = [repr(self.policy), repr(self.router), self._local.digest, self._cloud.digest if self._cloud else ""]
        return "router-" + hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]

    @property
    def is_local(self) -> bool:
        """Whether prompts stay on this machine whatever they are."""
        return self._cloud is None or self._cloud.is_local

    @property
    def context_tokens(self) -> int | None:
        """The local model's; unknown where a request may go to the cloud."""
        return self._local.engine.context_tokens if self._cloud is None else None

    def decide(self, request: Request, continuations: Sequence[str] = ()) -> Decision:
        """Where this request goes and why; asking twice gives the same answer."""
        everything, question = _texts(request, continuations)
        return decide(everything, question, self.policy, self.router)

    def generate(self, request: Request) -> Iterator[Chunk]:
        return self._chosen(request).generate(request)

    def score(self, request: Request, continuations: Sequence[str]) -> list[ContinuationScore]:
        return self._chosen(request, continuations).score(request, continuations)

    def count_tokens(self, request: Request) -> int:
        return self._engine(self.decide(request)).count_tokens(request)

    def close(self) -> None:
        self._local.close()
        if self._cloud is not None:
            self._cloud.close()

    def _chosen(self, request: Request, continuations: Sequence[str] = ()) -> Engine:
        decision = self.decide(request, continuations)
        if self.on_decision is not None:
            self.on_decision(decision)
        return self._engine(decision)

    def _engine(self, decision: Decision) -> Engine:
        if decision.where == "local":
            return self._local.engine
        if self._cloud is None:
            raise UsageError(f"`{decision.model}` was not loaded", hint="nomoat was offline when `auto` was loaded; load it again")
        return self._cloud.engine


def load_auto(
    *, context_tokens: int | None = None, progress: ImportProgress | None = None, compiling: ImportProgress | None = None,
    on_decision: OnDecision | None = None,
) -> Responder:  # fmt: skip
    """The responder of the reference `auto`, as the policy and the learned router of NOMOAT_HOME make it.

    Raises UsageError for a policy without a local model or with one that is not on this machine, and what `responder.load` raises
    for either model. Offline, the cloud model is not even looked at.
    """
    policy = load_policy()
    if policy.local is None:
        raise UsageError(
            "`auto` does not know the model on this machine: there is no policy that names it",
            hint=f'write local = "smollm2-135m", or such, into `{default_path()}`',
        )
    local = responders.load(policy.local, context_tokens=context_tokens, progress=progress, compiling=compiling)
    try:
        if not local.is_local:
            raise UsageError(
                f"the policy names `{policy.local}` as `local`, which is not on this machine", hint=f"change it in `{policy.path}`"
            )
        cloud = _load_cloud(policy)
        learned = load_router()
    except BaseException:
        local.close()
        raise
    engine = RouterEngine(policy, local, cloud, learned=learned, on_decision=on_decision)
    licence = local.licence if cloud is None else f"local: {local.licence}; cloud: {cloud.licence}"
    return Responder(AUTO, engine, licence=licence)


def question_of(request: Request) -> str:
    """What the learned router learns from and is asked about: what the user said, without system messages and earlier answers."""
    return request.prompt or "\n".join(message.content for message in request.messages if message.role == "user")


def _load_cloud(policy: Policy) -> Responder | None:
    if policy.cloud is None or net.offline():
        return None
    cloud = responders.load(policy.cloud)
    try:
        policy.require_allowed(getattr(cloud.engine, "host", ""))  # the environment may send a provider's name elsewhere
    except UsageError:
        cloud.close()
        raise
    return cloud


def _texts(request: Request, continuations: Sequence[str]) -> tuple[str, str]:
    """All that would leave with a request, and the question in it, where a number may go on over two turns."""
    question = question_of(request)
    everything = [question, *(message.content for message in request.messages), *request.stop, request.answer_start, *continuations]
    if request.json_schema is not None:
        everything.append(_schema_words(request.json_schema))
    return "\n\n".join(everything), question


def _schema_words(schema: str) -> str:
    """A JSON schema with its words as they are, not as `\\u` escapes. What is no JSON stays; whoever is asked with it refuses it."""
    try:
        return json.dumps(json.loads(schema), ensure_ascii=False)
    except ValueError:
        return schema


def _listed(words: Sequence[str]) -> str:
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)
