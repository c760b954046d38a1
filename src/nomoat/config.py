"""Settings and where each came from: flag > environment > `config.toml` in NOMOAT_HOME > detected."""

from __future__ import annotations

import os
import tomllib
from dataclasses import dataclass
from typing import Any

from nomoat import hardware, paths
from nomoat.errors import UsageError

SECRETS = frozenset({"HF_TOKEN", "OPENAI_API_KEY", "GOOGLE_API_KEY", "ANTHROPIC_API_KEY", "NOMOAT_API_KEY"})
WHOLE = "a whole number of at least 1"
QUALITIES = ("high", "default", "small")  # how much of a file's quality may be given up for speed and memory: `engine.layout`
FROM_FILE: dict[str, tuple[type, str]] = {  # what `config.toml` may hold
    "offline": (bool, "true or false"),
    "mirror": (str, "a folder or a URL, in quotes"),
    "context_tokens": (int, WHOLE),
    "threads": (int, WHOLE),
    "quality": (str, "high, default or small, in quotes"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """One setting: its value as text (secrets masked) and its origin."""

    name: str
    value: str
    origin: str


def mask(secret: str) -> str:
    """A secret, unreadable, but told apart from another: the last four characters if it is long enough."""
    return f"…{secret[-4:]}" if len(secret) >= 12 else "…"


def read_file() -> dict[str, Any]:
    """`config.toml`, or nothing if there is none. Raises UsageError if it is not TOML or names what is not a setting."""
    path = paths.home() / "config.toml"
    if not path.exists():
        return {}
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as exc:
        raise UsageError(f"`{path}` cannot be read: {exc.strerror}", hint="mend it or remove it") from exc
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as exc:
        raise UsageError(f"`{path}` is not TOML: {exc}", hint="mend it or remove it") from exc
    unknown = sorted(set(values) - set(FROM_FILE))
    if unknown:
        raise UsageError(f"`{path}` sets `{unknown[0]}`, which is not a setting", hint=f"known: {', '.join(FROM_FILE)}")
    for name, value in values.items():
        kind, meaning = FROM_FILE[name]
        if type(value) is not kind or (type(value) is int and value < 1):
            raise UsageError(f"`{path}` sets `{name}` to {value!r}", hint=f"give {meaning}")
    return values


def apply_file() -> None:
    """Put what `config.toml` says into the environment, where the environment does not say it already."""
    for name, value in read_file().items():
        text = ("1" if value else "0") if isinstance(value, bool) else str(value)
        os.environ.setdefault(f"NOMOAT_{name.upper()}", text)


def threads() -> hardware.Detected[int]:
    """`NOMOAT_THREADS`, else one a physical core."""
    text = os.environ.get("NOMOAT_THREADS")
    if not text:
        return hardware.threads()
    if not text.isdecimal() or int(text) < 1:
        raise UsageError(f"NOMOAT_THREADS is `{text}`", hint=f"give {WHOLE}")
    return hardware.Detected(int(text), "environment")


def context_tokens() -> int | None:
    """`NOMOAT_CONTEXT_TOKENS`: the context to plan memory for; None leaves it to the model."""
    text = os.environ.get("NOMOAT_CONTEXT_TOKENS")
    if not text:
        return None
    if not text.isdecimal() or int(text) < 1:
        raise UsageError(f"NOMOAT_CONTEXT_TOKENS is `{text}`", hint=f"give {WHOLE}")
    return int(text)


def quality() -> hardware.Detected[str]:
    """`NOMOAT_QUALITY`: one of QUALITIES. Raises UsageError for anything else."""
    text = os.environ.get("NOMOAT_QUALITY")
    if not text:
        return hardware.Detected("default", "default")
    if text not in QUALITIES:
        raise UsageError(f"the quality is `{text}`", hint=f"give one of: {', '.join(QUALITIES)}")
    return hardware.Detected(text, "environment")


def settings(environment_before_file: dict[str, str] | None = None) -> list[Setting]:
    """Every setting with its origin, for `nomoat config`. `environment_before_file`: the environment as the user gave it."""
    given = os.environ if environment_before_file is None else environment_before_file
    in_file = read_file()
    rows = [_setting("home", "NOMOAT_HOME", str(paths.home()), given, in_file)]
    rows.append(_setting("offline", "NOMOAT_OFFLINE", "0", given, in_file))
    rows.append(_setting("mirror", "NOMOAT_MIRROR", "none", given, in_file))
    rows.append(_setting("context_tokens", "NOMOAT_CONTEXT_TOKENS", "the model's", given, in_file))
    found = hardware.threads()
    rows.append(_setting("threads", "NOMOAT_THREADS", str(found.value), given, in_file, f"detected: {found.reason}"))
    rows.append(_setting("quality", "NOMOAT_QUALITY", "default", given, in_file))
    memory = hardware.memory_total_bytes()
    rows.append(Setting(name="memory", value=f"{memory.value / 1e9:.1f} GB", origin=f"detected: {memory.reason}"))
    rows.append(Setting(name="cpu", value=hardware.cpu_name(), origin="detected"))
    for name in sorted(SECRETS):
        if given.get(name):
            rows.append(Setting(name=name, value=mask(given[name]), origin="environment"))
    return rows


def _setting(name: str, variable: str, default: str, given: Any, in_file: dict[str, Any], default_origin: str = "default") -> Setting:
    if variable in given:
        return Setting(name=name, value=given[variable], origin=f"environment ({variable})")
    if name in in_file:
        return Setting(name=name, value=str(in_file[name]), origin=str(paths.home() / "config.toml"))
    return Setting(name=name, value=default, origin=default_origin)
