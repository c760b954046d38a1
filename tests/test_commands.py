"""Commands in hints: lines for the shell, and what to install so that it reaches the environment nomoat runs in."""

from __future__ import annotations

import importlib.util
import shutil
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest

from nomoat import commands
from nomoat.errors import MissingExtraError

ROOT = Path(__file__).parents[1]


@pytest.fixture(autouse=True)
def posix(monkeypatch: pytest.MonkeyPatch) -> None:
    """Quoted as for its shells, and an environment whose place has a blank in it."""
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(sys, "executable", "/my envs/nomoat/bin/python")


@pytest.fixture
def without_pip(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(shutil, "which", lambda name: name)


def test_packages_are_installed_by_this_python_s_own_pip(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name)
    assert commands.installing("httpx[socks]") == "'/my envs/nomoat/bin/python' -m pip install 'httpx[socks]'"


@pytest.mark.usefixtures("without_pip")
def test_without_pip_as_in_environments_of_uv_it_is_by_uv_into_this_environment() -> None:
    assert commands.installing("httpx[socks]") == "uv pip install --python '/my envs/nomoat/bin/python' 'httpx[socks]'"


@pytest.mark.usefixtures("without_pip")
def test_without_uv_either_it_is_by_the_pip_that_python_brings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    python = "'/my envs/nomoat/bin/python'"
    assert commands.installing("httpx") == f"{python} -m ensurepip && {python} -m pip install httpx"


def test_pip_itself_is_installed_into_this_environment() -> None:
    python = "'/my envs/nomoat/bin/python'"
    assert commands.installing_pip() == f"`{python} -m ensurepip`, or `uv pip install --python {python} pip`"


@pytest.mark.usefixtures("without_pip")
def test_an_extra_is_installed_as_what_it_brings(monkeypatch: pytest.MonkeyPatch) -> None:
    """`nomoat[serve]` would be looked up at an index, where anybody may have that name."""
    monkeypatch.setattr(
        metadata, "requires", lambda name: ["httpx>=0.27", "typer<1", "fastapi>=0.111; extra == 'serve'", "torch; extra == 'tune'"]
    )
    hint = "uv pip install --python '/my envs/nomoat/bin/python' 'fastapi>=0.111' 'typer<1'"
    assert MissingExtraError(extra="serve", what="x").hint == hint


def test_what_is_installed_tells_of_each_extra_what_the_project_lists() -> None:
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    for extra in ("serve", "tune", "ray", "convert"):
        assert all(requirement in commands.installing_extra(extra) for requirement in listed[extra])


@pytest.mark.usefixtures("without_pip")
def test_where_nomoat_is_not_installed_its_checkout_is(monkeypatch: pytest.MonkeyPatch) -> None:
    def requires(name: str) -> list[str]:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "requires", requires)
    monkeypatch.setattr(commands, "__file__", "/check out/src/nomoat/commands.py")
    assert commands.installing_extra("serve") == f"uv pip install --python '/my envs/nomoat/bin/python' '{Path('/check out')}[serve]'"


@pytest.mark.parametrize(("system", "line"), [("linux", "nomoat run 'a b' 'c<1'"), ("win32", 'nomoat run "a b" "c<1"')])
def test_a_command_is_quoted_as_the_systems_shell_reads_it(monkeypatch: pytest.MonkeyPatch, system: str, line: str) -> None:
    monkeypatch.setattr(sys, "platform", system)
    assert commands.as_line(["nomoat", "run", "a b", "c<1"]) == line
