"""The policy: a file a person can read, which says what never leaves this machine and where the rest may go.

`policy.toml` in NOMOAT_HOME; every line may be left out:

    local = "smollm2-135m+reviews"      # the model on this machine
    cloud = "openai:gpt-4o-mini"        # where the rest may go; without it everything stays here
    threshold = 0.5                     # stays here if the learned chance that local is as good is at least this
    default = "local"                   # where a text goes while no router is learned: "local" or "cloud"
    if_cloud_fails = "error"            # or "local": what fails in the cloud before its first word is then answered here
    max_wait_seconds = 120              # with "local" there: how long the cloud is waited for until its first word
    never_leaves = [
        "resident_number", "identity_document", "number_plate", "phone", "business_number", "customs_code", "bank_account", "card",
        "email", "address", "api_key", "name",
    ]
    names = ["김철수", "Project Moat"]  # people, products, whatever must not be told
    patterns = ['환자번호 ?\\d{8}']     # regular expressions of what must not be told
    allowed = ["openai"]                # providers and hosts that may be asked; without it `cloud` is, also where OPENAI_BASE_URL says
    max_usd_per_day = 2.0               # what `cloud` may cost on a day of UTC; what could cost more stays here: see `budget`
    max_usd_per_month = 20.0            # and in a month
    max_answer_tokens = 4096            # with either of them: the longest answer `cloud` is asked for where a request names none

What this does not cover: duels and evaluations name their models themselves and do not ask the policy.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, cast
from urllib.parse import urlsplit

from nomoat import bounds, paths, references
from nomoat.bounds import MOST_DIGITS, shown
from nomoat.errors import UsageError
from nomoat.providers import PROVIDERS, is_remote, named_in
from nomoat.records import Place
from nomoat.route.pii import KINDS, Kind
from nomoat.route.pii.patterns import why_unusable
from nomoat.textfiles import parse_toml, settings_text

IfCloudFails = Literal["error", "local"]

DEFAULT_ORIGIN = "default"
DEFAULT_THRESHOLD = 0.5
DEFAULT_WAIT_SECONDS = 120.0  # models that reason think before their first word; clients often give up after 600
MOST_WAIT_SECONDS = 600.0  # of any server: see `engine.remote`
DEFAULT_ANSWER_TOKENS = 4096  # no model with a price of the table is refused for it: some write no more than that at once
MOST_USD = 1e9
OWN = ("names", "patterns")  # the user's own words
BUDGETS = ("max_usd_per_day", "max_usd_per_month")


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """See the module. `given` names what the file says itself, `path` is that file, None if there is none."""

    local: str | None = None
    cloud: str | None = None
    threshold: float = DEFAULT_THRESHOLD
    default: Place = "local"
    if_cloud_fails: IfCloudFails = "error"
    max_wait_seconds: float = DEFAULT_WAIT_SECONDS
    never_leaves: tuple[Kind, ...] = KINDS
    names: tuple[str, ...] = ()
    patterns: tuple[str, ...] = ()
    allowed: tuple[str, ...] = ()
    max_usd_per_day: float | None = None
    max_usd_per_month: float | None = None
    max_answer_tokens: int = DEFAULT_ANSWER_TOKENS
    path: Path | None = None
    given: frozenset[str] = field(default_factory=frozenset)

    def __post_init__(self) -> None:
        """Numbers are Python's own from here on: `RouterEngine.digest` is made of how they are written."""
        for name in ("threshold", "max_wait_seconds", *BUDGETS):
            if (given := getattr(self, name)) is not None:
                object.__setattr__(self, name, bounds.number(name, given))
        object.__setattr__(self, "max_answer_tokens", bounds.whole("max_answer_tokens", self.max_answer_tokens))

    @property
    def has_budget(self) -> bool:
        """Whether what the cloud may cost has a bound."""
        return self.max_usd_per_day is not None or self.max_usd_per_month is not None

    @property
    def notes(self) -> tuple[str, ...]:
        """What whoever wrote it may not know: the kinds that its own `never_leaves` lacks, as one written before they were kinds does.

        Nothing without a cloud. `name` is never missed: without it in `never_leaves` there are no `names` and no `patterns`.
        """
        left_out = [kind for kind in KINDS if kind not in (*self.never_leaves, "name")]
        if self.cloud is None or not left_out:
            return ()
        return (f"never_leaves does not name {', '.join(left_out)}: such data may leave",)

    def origin(self, name: str) -> str:
        """Where a setting came from: the file, or "default"."""
        return str(self.path) if name in self.given else DEFAULT_ORIGIN

    def require_allowed(self, host: str) -> None:
        """Raise UsageError if `allowed` is given and does not hold this host, by name or by its provider's name."""
        hosts = {PROVIDERS[name].host if name in PROVIDERS else name.lower() for name in self.allowed}
        if self.allowed and host.lower() not in hosts:
            raise UsageError(
                f"the policy does not allow to ask `{host}`: `allowed` is {', '.join(self.allowed)}",
                hint=f"change `cloud` or `allowed` in `{self.path}`",
            )


SETTINGS = tuple(one.name for one in fields(Policy) if one.name not in ("path", "given"))


def default_path() -> Path:
    """Where the policy is looked for."""
    return paths.home() / "policy.toml"


def load_policy() -> Policy:
    """The policy of NOMOAT_HOME's file; without a file everything stays here.

    Raises UsageError for what is not TOML, not a setting, or cannot be meant. A policy is never half in force.
    """
    return PolicyFile().parsed()


class PolicyFile:
    """The policy's file, and whether it has changed since it was looked at last."""

    def __init__(self) -> None:
        self.path = default_path()
        self._read = self._content()

    def has_changed(self) -> bool:
        """Whether there is something else in it now, which `parsed` is from now on. A file that goes or comes has changed, too."""
        before, self._read = self._read, self._content()
        return self._read != before

    def parsed(self) -> Policy:
        """What it said when it was looked at last. Raises what `load_policy` raises."""
        if isinstance(self._read, str):
            raise _unreadable(self.path, self._read)
        return Policy() if self._read is None else _parsed(self.path, self._read)

    def _content(self) -> bytes | str | None:
        """None if there is none; a text that says why it could not be read."""
        try:
            return self.path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as exc:
            return str(exc)


def _parsed(path: Path, content: bytes) -> Policy:
    try:
        values = parse_toml(settings_text(content, f"the policy `{path}`"))
    except ValueError as exc:
        raise _unreadable(path, str(exc)) from exc
    unknown = sorted(set(values) - set(SETTINGS))
    if unknown:
        raise _error(path, f"sets `{unknown[0]}`, which is no part of a policy", f"known: {', '.join(SETTINGS)}")
    checked = {name: _checked(path, name, value) for name, value in values.items()}
    policy = Policy(**checked, path=path, given=frozenset(values))
    _require_sense(policy, path)
    return policy


def _host_of(ref: str) -> str:
    """The host that a reference to a server names: a provider's own, or the URL's; empty for what is no URL."""
    provider = named_in(ref)
    try:
        return provider.host if provider is not None else (urlsplit(ref).hostname or "").lower()
    except ValueError:
        return ""


def _checked(path: Path, name: str, value: Any) -> Any:
    if name in ("never_leaves", *OWN, "allowed"):
        return _checked_words(path, name, value)
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    is_text = isinstance(value, str) and value.strip() != ""
    if name in BUDGETS:
        fits = is_number and 0 < value <= MOST_USD
        hint = f"give a number of USD above 0, at most {MOST_USD:,.0f}, without quotes; without `cloud` nothing is spent"
    elif name == "threshold":
        fits, hint = is_number and 0 <= value <= 1, "give a number from 0 (everything local) to 1"
    elif name == "max_wait_seconds":
        fits, hint = is_number and 1 <= value <= MOST_WAIT_SECONDS, f"give a number of seconds from 1 to {MOST_WAIT_SECONDS:g}"
    elif name == "max_answer_tokens":
        fits = is_number and isinstance(value, int) and 1 <= value < 10**MOST_DIGITS
        hint = "give a whole number of tokens, at least 1"
    elif is_text and name == "default":
        fits, hint = value in ("local", "cloud"), 'give "local" or "cloud"'
    elif is_text and name == "if_cloud_fails":
        fits, hint = value in ("error", "local"), 'give "error" or "local"'
    else:
        fits, hint = is_text, "give a text in quotes, or leave it out"
    if not fits:
        raise _error(path, f"sets `{name}` to {shown(value)}", hint)
    return value


def _checked_words(path: Path, name: str, value: Any) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(word, str) and word.strip() for word in value):
        given = "something else than texts" if name in OWN else shown(value)  # these must not be told, to a log neither
        raise _error(path, f"sets `{name}` to {given}", 'give a list of texts: ["one", "two"]')
    unknown = [word for word in value if name == "never_leaves" and word not in KINDS]
    if unknown:
        raise _error(path, f"names `{unknown[0]}` in `never_leaves`, which nomoat cannot recognise", f"known: {', '.join(KINDS)}")
    for number, pattern in enumerate(value if name == "patterns" else (), 1):
        if why := why_unusable(pattern):
            raise _error(
                path,
                f"lists `patterns`, of which number {number} {why}",
                "give regular expressions in single quotes, bound repeats, and have none within another or behind one of the same "
                "characters: ['MRN\\d{1,8}']",
            )
    return tuple(cast(list[str], value))


def _require_sense(policy: Policy, path: Path) -> None:
    if references.AUTO in (policy.local, policy.cloud):
        raise _error(path, "names `auto` as a model, which is the router itself", "name the model that is to answer")
    if policy.local is not None and not references.is_local(policy.local):
        raise _error(
            path,
            f"names `{policy.local}`{references.gateway_note(policy.local)} as `local`, and what it is asked leaves this machine",
            "name a model on this machine, or a server on it that runs the model itself",
        )
    if policy.cloud is not None and not is_remote(policy.cloud):
        raise _error(
            path, f"names `{policy.cloud}` as `cloud`, which is no server", 'such as "openai:gpt-4o-mini" or "https://host/v1#model"'
        )
    if policy.cloud is not None and not _host_of(policy.cloud):
        raise _error(path, f"names `{policy.cloud}` as `cloud`, which is no address", 'such as "https://host/v1#model"')
    if policy.cloud is None and policy.default == "cloud":
        raise _error(path, 'sets `default` to "cloud" and names no `cloud`', 'add cloud = "openai:gpt-4o-mini", or such')
    for own in OWN:
        if getattr(policy, own) and "name" not in policy.never_leaves:
            raise _error(path, f"lists `{own}`, and `never_leaves` does not hold `name`", f"add it there, or remove the {own}")
    if "max_answer_tokens" in policy.given and not policy.has_budget:
        raise _error(
            path, "sets `max_answer_tokens` and no budget", f"add {' or '.join(f'`{name}`' for name in BUDGETS)}, or remove it"
        )
    if policy.cloud is not None and "allowed" in policy.given and not policy.allowed:
        raise _error(path, "sets `allowed` to [], which allows nobody, and names a `cloud`", "remove the line `cloud`, or `allowed`")
    if policy.cloud is not None:
        policy.require_allowed(_host_of(policy.cloud))


def _unreadable(path: Path, why: str) -> UsageError:
    return UsageError(f"the policy `{path}` cannot be read: {why}", hint="mend it; without the file everything stays here")


def _error(path: Path, what: str, hint: str) -> UsageError:
    return UsageError(f"the policy `{path}` {what}", hint=hint)
