"""Commands as people type them, for hints: a line for the shell, and what installs what is missing beside this nomoat."""

from __future__ import annotations

import importlib.util
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

ACTED_ON_BY_CMD = re.compile(r"[&|<>^()]")  # outside quotes


def as_line(words: Sequence[str]) -> str:
    """The words as one line for this system's shell: in quotes where need be, double ones on Windows, whose `cmd` has no others."""
    return " ".join(map(_in_cmd, words)) if sys.platform == "win32" else shlex.join(words)


def _in_cmd(word: str) -> str:
    quoted = subprocess.list2cmdline([word])  # for the program: to `cmd`, `ray>=2.45` is a file to write
    return f'"{word}"' if quoted == word and ACTED_ON_BY_CMD.search(word) else quoted


def installing(*requirements: str) -> str:
    """One that installs these where this process would find them, whether its environment is active or not, as a line for the shell.

    By pip, or where this Python has none, as in the environments that uv makes, by uv, or by the pip that Python brings.
    """
    python = sys.executable or "python"
    by_pip = as_line([python, "-m", "pip", "install", *requirements])
    if importlib.util.find_spec("pip") is not None:
        return by_pip
    if shutil.which("uv"):
        return as_line(["uv", "pip", "install", "--python", python, *requirements])
    return f"{as_line([python, '-m', 'ensurepip'])} && {by_pip}"


def installing_extra(name: str) -> str:
    """One that installs all that an extra of nomoat brings. Where nomoat is used from its checkout alone, nomoat is installed, too."""
    from importlib import metadata

    try:
        told = [one.partition(";") for one in metadata.requires("nomoat") or []]
    except metadata.PackageNotFoundError:
        told = []
    found = [requirement.strip() for requirement, _, marker in told if marker.strip() == f"extra == '{name}'"]
    if found:  # pip looks at nothing else that is installed: what nomoat has an upper bound for would be replaced
        found += [requirement.strip() for requirement, _, marker in told if not marker and "<" in requirement]
    return installing(*(found or [f"{Path(__file__).parents[2]}[{name}]"]))


def installing_pip() -> str:
    """Two ways to have pip beside nomoat, each for the shell."""
    python = sys.executable or "python"
    by_python, by_uv = [python, "-m", "ensurepip"], ["uv", "pip", "install", "--python", python, "pip"]
    return f"`{as_line(by_python)}`, or `{as_line(by_uv)}`"
