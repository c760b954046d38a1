"""What `auto` decides by now: the policy as its file is, what the loaded models allow of it, the learned router, the budget.

The file is read again when it has changed, or `gateways` of the cloud model, so that a server follows it. What could not be followed
keeps everything here: a file that cannot be meant, a budget that cannot be kept, another `cloud` than was loaded. Where it lies with
something else (a full disk, a file that another process holds, a table of prices), it is tried again. Another `local` counts from the
next start.

What this does not cover: a router that is learned anew counts from the next start; a price that changes, once the policy does; a
request that is being answered goes on as it was decided.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace

from nomoat import references
from nomoat.engine.budget import Rates
from nomoat.errors import NomoatError, UsageError
from nomoat.records import Rule
from nomoat.responder import Responder
from nomoat.route import budget
from nomoat.route.budget import Allowance, rates_of
from nomoat.route.learned import LearnedRouter
from nomoat.route.policy import Policy, PolicyFile

NOT_READ = "the policy has changed and cannot be read, so nothing leaves until it is mended"
OTHER_CLOUD = "the policy has changed and names another cloud model, which is not loaded"
UNTIL_MENDED = "until it is mended"
NOT_COUNTED = f"the policy has changed, and {budget.NOT_COUNTED}"
RULE_OF: Mapping[str, Rule] = {NOT_READ: "policy_broken", OTHER_CLOUD: "other_cloud", NOT_COUNTED: "budget"}
AGAIN_SECONDS = 60.0

log = logging.getLogger("nomoat.route")


@dataclass(frozen=True, slots=True, kw_only=True)
class Usable:
    """The learned router, or None and why there is none for these models. `provided`: what was not looked at and has to hold."""

    learned: LearnedRouter | None
    why_not: str = ""
    provided: str = ""


def usable(policy: Policy, learned: LearnedRouter | None, *, local_digest: str | None = None) -> Usable:
    """A learned router speaks of the two models it learned from only. `local_digest` is the local model's now, if it is loaded."""
    if learned is None:
        return Usable(learned=None, why_not="no router is learned")
    if (learned.local, learned.cloud) != (policy.local, policy.cloud):
        local, cloud = references.shown_name(learned.local), references.shown_name(learned.cloud)
        return Usable(learned=None, why_not=f"the router was learned for `{local}` and `{cloud}`")
    name = references.shown_name(learned.local)
    if local_digest is None:
        return Usable(learned=learned, provided=f", if `{name}` is the same as when the router was learned")
    if learned.local_digest != local_digest:
        since = "has changed, or this nomoat imports it otherwise, since the router was learned: duel and learn again"
        return Usable(learned=None, why_not=f"`{name}` {since}")
    return Usable(learned=learned)


@dataclass(frozen=True, slots=True, kw_only=True)
class InForce:
    """What one decision is made by. `only_here`: why nothing may leave, whatever the policy says; empty if it may."""

    policy: Policy
    router: Usable
    allowance: Allowance | None
    only_here: str = ""


class FollowedPolicy:
    """See the module. Safe to use from several threads. Without `file` it stays as it is.

    Raises UsageError for a policy with a budget that cannot be kept: see `Allowance`.
    """

    def __init__(
        self, policy: Policy, local: Responder, cloud: Responder | None, learned: LearnedRouter | None, file: PolicyFile | None
    ) -> None:  # fmt: skip
        self._first = policy
        self._local = local
        self._cloud = cloud
        self._learned = learned
        self._file = file
        self._lock = threading.Lock()
        self._again_at = math.inf  # on the monotonic clock, where the policy is to be followed though its file has not changed since
        self._said = ""  # why it could not be, the last time; once is enough
        self._was_local = cloud is not None and cloud.is_local
        self._allowance: Allowance | None = None  # made once there is a budget, and kept
        self.last = self._of(policy, self._rates_of(policy))

    @property
    def spent_usd(self) -> float | None:
        """See `RouterEngine.spent_usd`."""
        return None if self._allowance is None else self._allowance.spent_usd

    def now(self) -> InForce:
        """What is in force, after a look at the policy's file."""
        with self._lock:
            try:
                is_local = self._cloud is not None and self._cloud.is_local
            except UsageError as error:  # `gateways` cannot be meant, so nobody knows where the cloud's prompts would go
                return self._kept_here(error, NOT_READ, UNTIL_MENDED)
            if self._file is not None:
                if self._file.has_changed() or is_local != self._was_local:  # as `gateways` says by now
                    self._was_local, self._again_at, self._said = is_local, -math.inf, ""
                if time.monotonic() >= self._again_at:
                    self.last = self._followed(self._file)
            return self.last

    def close(self) -> None:
        """Let go of the file in which spending is counted."""
        if self._allowance is not None:
            self._allowance.close()

    def _followed(self, file: PolicyFile) -> InForce:
        self._again_at, self.last = math.inf, replace(self.last, only_here=NOT_READ)  # also where what follows fails
        try:
            policy = file.parsed()
            if policy.cloud not in (None, self._first.cloud):
                log.warning("the policy's new `cloud` counts from the next start; until then everything stays here")
                return replace(self.last, only_here=OTHER_CLOUD)
            if policy.cloud is not None and self._cloud is not None:
                policy.require_allowed(self._cloud.engine.host)
            try:
                rates = self._rates_of(policy)
            except UsageError as error:  # a price that is not known, which is written elsewhere
                return self._followed_later(error)
            found = self._of(replace(policy, local=self._first.local), rates)
        except UsageError as error:
            return self._kept_here(error, NOT_READ, UNTIL_MENDED)
        except NomoatError as error:
            return self._followed_later(error)
        log.warning("the policy `%s` or `gateways` has changed, and is in force from now on", file.path)
        for note in policy.notes:
            log.warning("%s", note)
        if policy.local not in (None, self._first.local):
            log.warning("its `local` counts from the next start; until then `%s` answers", self._first.local)
        return found

    def _followed_later(self, error: NomoatError) -> InForce:
        self._again_at = time.monotonic() + AGAIN_SECONDS
        return self._kept_here(error, NOT_COUNTED, "meanwhile, and it is tried again each minute")

    def _kept_here(self, error: NomoatError, why: str, how_long: str) -> InForce:
        """Nothing may leave, which is said once."""
        if error.message != self._said:
            hint = f"; {error.hint}" if error.hint else ""
            log.error("%s; nothing is sent to the cloud %s%s", error.message, how_long, hint)
        self._said = error.message
        return replace(self.last, only_here=why)

    def _of(self, policy: Policy, rates: Rates | None) -> InForce:
        router = usable(policy, self._learned, local_digest=self._local.digest)
        if self._learned is not None and policy.cloud is not None and router.why_not:
            log.warning("the learned router is not asked: %s; the policy's default, %s, decides", router.why_not, policy.default)
        return InForce(policy=policy, router=router, allowance=self._allowance_of(policy, rates))

    def _rates_of(self, policy: Policy) -> Rates | None:
        return None if self._cloud is None else rates_of(policy, is_local=self._cloud.is_local)

    def _allowance_of(self, policy: Policy, rates: Rates | None) -> Allowance | None:
        if self._cloud is None or rates is None:
            return None
        if self._allowance is None:
            self._allowance = Allowance(policy, rates, self._cloud)
        self._allowance.follow(policy, rates)
        return self._allowance
