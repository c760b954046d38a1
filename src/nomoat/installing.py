"""Commands that install what is missing beside this nomoat, for hints. The name alone would be looked up at an index, as anybody's."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

from nomoat import paths


def command(*requirements: str) -> str:
    """One that installs these where this process would find them, whether its environment is active or not, as a line for the shell.

    By pip, or by uv where this Python has no pip, as in the environments that uv makes.
    """
    python = sys.executable or "python"
    has_pip = importlib.util.find_spec("pip") is not None
    words = [python, "-m", "pip", "install"] if has_pip else ["uv", "pip", "install", "--python", python]
    return paths.as_command([*words, *requirements])


def extra(name: str) -> str:
    """One that installs all that an extra of nomoat brings. Where nomoat is used from its checkout alone, nomoat is installed, too."""
    from importlib import metadata

    try:
        told = [one.partition(";") for one in metadata.requires("nomoat") or []]
    except metadata.PackageNotFoundError:
        told = []
    found = [requirement.strip() for requirement, _, marker in told if marker.strip() == f"extra == '{name}'"]
    return command(*(found or [f"{Path(__file__).parents[2]}[{name}]"]))


def pip() -> str:
    """Two ways to have pip beside nomoat, each for the shell."""
    python = sys.executable or "python"
    by_python, by_uv = [python, "-m", "ensurepip"], ["uv", "pip", "install", "--python", python, "pip"]
    return f"`{paths.as_command(by_python)}`, or `{paths.as_command(by_uv)}`"
