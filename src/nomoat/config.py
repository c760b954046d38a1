"""Settings and where each came from: flag > environment > `config.toml` in NOMOAT_HOME > detected.

Secrets are in `keys.toml` there, under the names of their variables: `secret` finds them, and nothing else reads either.
"""

from __future__ import annotations

import difflib
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from nomoat import hardware, paths
from nomoat.bounds import shown
from nomoat.errors import SettingError
from nomoat.providers import PROVIDERS, UPSTREAM_KEY
from nomoat.textfiles import parse_toml, settings_text

HUB_TOKEN = "HF_TOKEN"
CLIENTS_KEY = "NOMOAT_API_KEY"  # what a server of ours asks its clients for; it does not pass it on
SECRETS = frozenset({HUB_TOKEN, CLIENTS_KEY, UPSTREAM_KEY}.union(*(provider.key_variables for provider in PROVIDERS.values())))
ADDRESSES = ("HF_ENDPOINT", "OPENAI_BASE_URL", "RAY_ADDRESS")  # variables of others that say where to go; shown where they are set
USER_PART = re.compile(r"(?<=//)[^/?#]*@")
OPEN_TO_OTHERS = 0o077  # of a file of this user's own
# Of another's, such as a container's secret, which is root's and read by its group: that group changes it, or everybody reads it.
OPEN_TO_ALL = 0o027
WHOLE = "a whole number of at least 1"
MOST_SETTING_DIGITS = 18  # so that 64 bits hold it
THREADS_A_CPU = 4  # they wait for each other by spinning: with 16 on each of 2 busy CPUs an answer took five times as long as with 4
YES, NO = ("1", "true", "yes", "on"), ("0", "false", "no", "off", "")  # of a variable
Quality = Literal["high", "default", "small"]  # how much of a file's quality may be given up for speed and memory: `engine.layout`
QUALITIES: tuple[Quality, ...] = get_args(Quality)
FROM_FILE: dict[str, tuple[type, str]] = {  # what `config.toml` may hold
    "offline": (bool, "true or false"),
    "mirror": (str, "a folder or a URL, in quotes"),
    "context_tokens": (int, WHOLE),
    "threads": (int, WHOLE),
    "quality": (str, "high, default or small, in quotes"),
    "gateways": (str, "addresses as in http://127.0.0.1:4000, with spaces between them, in quotes"),
}
GATEWAY = re.compile(r"(https?)://(?:\[[0-9A-Fa-f:.]+\]|[^\s/?#@,:\[\]]+)(?::(\d{1,5}))?(?:/[^\s?#@,]*)?")
DEFAULT_PORTS = {"http": 80, "https": 443}
MOST_PORT = 65_535

UNSAFE_SWITCH = "NOMOAT_UNSAFE_CODE"  # see `judge.sandbox`
VARIABLES = (
    "NOMOAT_HOME", *(f"NOMOAT_{name.upper()}" for name in FROM_FILE), UNSAFE_SWITCH,
    *(name for name in sorted(SECRETS) if name.startswith("NOMOAT_")),
)  # fmt: skip
NEARNESS = 0.65  # of the words behind `NOMOAT_`: CONTEXT is near CONTEXT_TOKENS, HOST not near HOME


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """One setting: its value as text (secrets masked), its origin, and what to give where the value cannot be meant."""

    name: str
    value: str
    origin: str
    give_instead: str = ""


def mask(secret: str) -> str:
    """A secret, unreadable, but told apart from another: the last four characters if it is long enough."""
    return f"…{secret[-4:]}" if len(secret) >= 12 else "…"


def without_user(address: str) -> str:
    """An address as it may be shown: without the user and the password in it."""
    return USER_PART.sub("", address)


def read_file() -> dict[str, Any]:
    """`config.toml`, or nothing if there is none. Raises SettingError if it is not TOML or says what cannot be meant."""
    path = _path()
    if not path.exists():
        return {}
    try:
        values = parse_toml(settings_text(path.read_bytes(), f"`{path}`"))
    except OSError as exc:
        raise SettingError(f"`{path}` cannot be read: {exc.strerror}", hint="mend it or remove it") from exc
    except ValueError as exc:
        raise SettingError(f"`{path}` is not TOML: {exc}", hint="mend it or remove it") from exc
    unknown = sorted(set(values) - set(FROM_FILE))
    if unknown:
        raise SettingError(f"`{path}` sets `{unknown[0]}`, which is not a setting", hint=f"known: {', '.join(FROM_FILE)}")
    for name, value in values.items():
        kind, meaning = FROM_FILE[name]
        is_beyond = type(value) is int and not 1 <= value < 10**MOST_SETTING_DIGITS
        if type(value) is not kind or is_beyond or (isinstance(value, str) and not _can_be_meant(name, value)):
            said = value if isinstance(value, int | float) else without_user(str(value))
            raise SettingError(f"`{path}` sets `{name}` to {shown(said)}", hint=f"give {meaning}")
    return values


def keys_path() -> Path:
    """Where secrets may be written, for their owner's eyes only."""
    return paths.home() / "keys.toml"


def secret(*names: str) -> hardware.Detected[str] | None:
    """The first of these secrets that the environment has, else the first that `keys.toml` has, and where. None if neither has one.

    An empty one is one that is not set. `keys.toml` is not looked at where the environment has one. Raises SettingError for what is no
    key, and for a file that others may read or change (of another user's its group may read it), that is not TOML, or that says what
    cannot be meant. No error holds a value.
    """
    found = {name: os.environ.get(name, "").strip() for name in names}
    origin = "environment"
    if not any(found.values()):
        keys = _read_keys()
        found, origin = {name: keys.get(name, "") for name in names}, str(keys_path())
    for name, value in found.items():
        if value and not (value.isascii() and value.isprintable()):
            raise SettingError(f"{name} holds characters that no key has ({origin})", hint="set it again")
        if value:
            return hardware.Detected(value, origin)
    return None


def _read_keys() -> dict[str, str]:
    path = keys_path()
    try:
        with path.open("rb") as file:
            if os.name == "posix":
                _require_kept_from_others(path, os.fstat(file.fileno()))
            values = parse_toml(settings_text(file.read(), f"`{path}`"))
    except FileNotFoundError:
        return {}
    except OSError as exc:
        raise SettingError(f"`{path}` cannot be read: {exc.strerror}", hint="mend it or remove it") from exc
    except ValueError as exc:
        line = re.search(r" \(at line \d+", str(exc))
        where = f"{line.group()})" if line else ""
        # No more of what Python says, nor a traceback of it: there may be a key in it.
        raise SettingError(f"`{path}` is not TOML{where}", hint='write a key a line: OPENAI_API_KEY = "…"') from None
    for name, value in values.items():
        if name not in SECRETS:
            # Who has taken the name for the value does not want to see it.
            hidden = name if name.isupper() or name.upper() in SECRETS else mask(name)
            raise SettingError(f"`{path}` sets `{hidden}`, which is no key", hint=f"known: {', '.join(sorted(SECRETS))}")
        if not isinstance(value, str):
            raise SettingError(f"`{path}` sets `{name}` to what is no text", hint=f'write it in quotes: {name} = "…"')
    return {name: value.strip() for name, value in values.items()}


def _require_kept_from_others(path: Path, found: os.stat_result) -> None:
    is_own = found.st_uid == os.geteuid()
    if found.st_mode & (OPEN_TO_OTHERS if is_own else OPEN_TO_ALL):
        raise SettingError(
            f"`{path}` holds keys, and others may read or change it (mode {found.st_mode & 0o777:03o})",
            hint=f"chmod 600 {path}" if is_own else f"its owner can keep it from others: chmod 640 {path}",
        )


def variable(name: str) -> str:
    """The environment's name of a setting."""
    return f"NOMOAT_{name.upper()}"


def misspelt() -> list[tuple[str, str]]:
    """The variables in the environment that are none of ours and look like one, each with that. Others' are their own affair."""
    unknown = sorted(name for name in os.environ if name.startswith("NOMOAT_") and name not in VARIABLES)
    ours = [name.removeprefix("NOMOAT_") for name in VARIABLES]
    near = ((name, difflib.get_close_matches(name.removeprefix("NOMOAT_"), ours, n=1, cutoff=NEARNESS)) for name in unknown)
    return [(name, f"NOMOAT_{found[0]}") for name, found in near if found]


def given(name: str) -> hardware.Detected[str] | None:
    """What the user says of a setting, as text, and where: in its variable, else in `config.toml`. None if nowhere.

    An empty variable is one that is not set. Raises what `read_file` raises.
    """
    if text := os.environ.get(variable(name)):
        return hardware.Detected(text, variable(name))
    value = read_file().get(name)
    if value is None:
        return None
    return hardware.Detected(str(int(value) if isinstance(value, bool) else value), f"`{name}` in `{_path()}`")


def threads() -> hardware.Detected[int]:
    """The threads that are asked for, else one a physical core. Raises SettingError for more than would ever get anywhere."""
    asked = _whole("threads")
    if asked is not None and asked.value > (most := _most_threads()):
        raise SettingError(
            f"{asked.reason} is `{asked.value}`, and the most here is {most}: {THREADS_A_CPU} for each CPU that this process may use",
            hint=f"give at most {most}, or unset it: {hardware.threads().value} is chosen, and more only wait for each other",
        )
    return asked or hardware.threads()


def context_tokens() -> int | None:
    """The context to plan memory for; None leaves it to the model."""
    asked = _whole("context_tokens")
    return asked.value if asked else None


def quality() -> hardware.Detected[Quality]:
    """The quality that is asked for. Raises SettingError for what is none."""
    asked = given("quality") or hardware.Detected("default", "default")
    if asked.value not in QUALITIES:
        raise SettingError(f"the quality is `{asked.value}`", hint=f"give one of: {', '.join(QUALITIES)}")
    return hardware.Detected(asked.value, asked.reason)


def gateway_ports() -> hardware.Detected[frozenset[int]] | None:
    """The ports of this machine whose servers send on what they are asked, as the user says, and where. None if nowhere.

    Whatever an address in it calls this machine (`0.0.0.0`, its name), its port counts. Raises SettingError for what is no address.
    """
    asked = given("gateways")
    if asked is None:
        return None
    ports = _ports(asked.value)
    if ports is None:
        raise SettingError(f"{asked.reason} is `{without_user(asked.value)}`", hint=f"give {FROM_FILE['gateways'][1]}")
    return hardware.Detected(ports, asked.reason)


def settings() -> list[Setting]:
    """Every setting with its origin, for `nomoat config`; then the addresses that are set."""
    found = hardware.threads()
    memory = hardware.memory_total_bytes()
    return [
        _setting("home", str(paths.home())),
        _setting("offline", "0"),
        _setting("mirror", "none"),
        _setting("context_tokens", "the model's"),
        _setting("threads", str(found.value), f"detected: {found.reason}"),
        _setting("quality", "default"),
        _setting("gateways", "none"),
        Setting(name="memory", value=f"{memory.value / 1e9:.1f} GB", origin=f"detected: {memory.reason}"),
        Setting(name="cpu", value=hardware.cpu_name(), origin="detected"),
        *(
            Setting(name=name, value=without_user(value).partition("?")[0], origin="environment")
            for name in ADDRESSES
            if (value := os.environ.get(name))
        ),
    ]


def keys() -> tuple[list[Setting], SettingError | None]:
    """The keys that are set and can be used, for `nomoat config`; and why others cannot be, such as a file that is open to all."""
    found, wrong = [], None
    for name in sorted(SECRETS):
        try:
            said = secret(name)
        except SettingError as exc:
            wrong = wrong or exc
        else:
            found += [Setting(name=name, value=mask(said.value), origin=said.reason)] if said else []
    return found, wrong


def _path() -> Path:
    return paths.home() / "config.toml"


def _whole(name: str) -> hardware.Detected[int] | None:
    asked = given(name)
    if asked is None:
        return None
    if not _is_whole(asked.value):
        raise SettingError(f"{asked.reason} is `{asked.value}`", hint=f"give {WHOLE}")
    return hardware.Detected(int(asked.value), asked.reason)


def _setting(name: str, default: str, default_origin: str = "default") -> Setting:
    found = given(name)
    if found is None:
        return Setting(name=name, value=default, origin=default_origin)
    is_variable = found.reason == variable(name)
    value = without_user(found.value) if name in ("mirror", "gateways") else found.value
    origin = f"environment ({found.reason})" if is_variable else str(_path())
    return Setting(name=name, value=value, origin=origin, give_instead=_give_instead(name, found.value))


def _give_instead(name: str, text: str) -> str:
    """What to give where this cannot be meant; else nothing."""
    if not _can_be_meant(name, text):
        return FROM_FILE[name][1].removesuffix(", in quotes")
    most = _most_threads()
    return f"at most {most}" if name == "threads" and int(text) > most else ""


def _most_threads() -> int:
    return THREADS_A_CPU * hardware.cpus()


def _can_be_meant(name: str, text: str) -> bool:
    if name not in FROM_FILE:
        return True
    if name == "quality":
        return text in QUALITIES
    if name == "gateways":
        return _ports(text) is not None
    kind, _ = FROM_FILE[name]
    return kind is str or (_is_whole(text) if kind is int else text.strip().lower() in YES + NO)


def _ports(addresses: str) -> frozenset[int] | None:
    """Those of these servers; None where one is no address of a server."""
    found = list(map(GATEWAY.fullmatch, addresses.split()))
    ports = frozenset(int(one[2] or DEFAULT_PORTS[one[1]]) for one in found if one is not None)
    return ports if all(found) and all(0 < port <= MOST_PORT for port in ports) else None


def _is_whole(text: str) -> bool:
    return text.isdecimal() and len(text) <= MOST_SETTING_DIGITS and int(text) >= 1
