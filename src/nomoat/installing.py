"""Commands that install what is missing beside this nomoat, for hints. The name alone would be looked up at an index, as anybody's."""

from __future__ import annotations

import importlib.util
import shutil
import sys
from pathlib import Path

from nomoat import paths


def command(*requirements: str) -> str:
    """One that installs these where this process would find them, whether its environment is active or not, as a line for the shell.

    By pip, or where this Python has none, as in the environments that uv makes, by uv, or by the pip that Python brings.
    """
    python = sys.executable or "python"
    by_pip = paths.as_command([python, "-m", "pip", "install", *requirements])
    if importlib.util.find_spec("pip") is not None:
        return by_pip
    if shutil.which("uv"):
        return paths.as_command(["uv", "pip", "install", "--python", python, *requirements])
    return f"{paths.as_command([python, '-m', 'ensurepip'])} && {by_pip}"


def extra(name: str) -> str:
    """One that installs all that an extra of nomoat brings. Where nomoat is used from its checkout alone, nomoat is installed, too."""
    from importlib import metadata

    try:
        told = [one.partition(";") for one in metadata.requires("nomoat") or []]
    except metadata.PackageNotFoundError:
        told = []
    found = [requirement.strip() for requirement, _, marker in told if marker.strip() == f"extra == '{name}'"]
    if found:  # pip looks at nothing else that is installed: what nomoat has an upper bound for would be replaced
        found += [requirement.strip() for requirement, _, marker in told if not marker and "<" in requirement]
    return command(*(found or [f"{Path(__file__).parents[2]}[{name}]"]))


def pip() -> str:
    """Two ways to have pip beside nomoat, each for the shell."""
    python = sys.executable or "python"
    by_python, by_uv = [python, "-m", "ensurepip"], ["uv", "pip", "install", "--python", python, "pip"]
    return f"`{paths.as_command(by_python)}`, or `{paths.as_command(by_uv)}`"
