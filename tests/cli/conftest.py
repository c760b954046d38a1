"""What the tests of the command line share: a shell, and a tuned adapter."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from nomoat.catalog import cards, licences
from nomoat.records import Parent

NOMOAT = str(Path(sys.executable).with_name("nomoat"))


@pytest.fixture
def nomoat(monkeypatch: pytest.MonkeyPatch) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs the command line, without a terminal, and without the mirror of whoever runs the tests."""
    monkeypatch.delenv("NOMOAT_MIRROR", raising=False)

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [NOMOAT, *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, stdin=subprocess.DEVNULL)

    return run


@pytest.fixture
def tuned(empty_home: Path) -> Callable[[str], Path]:
    """Makes an adapter as `tune` leaves it, its name and its data in Korean; given the licence of the data."""

    def make(licence: str) -> Path:
        folder = empty_home / "adapters" / "후기"
        folder.mkdir(parents=True)
        data = licences.of_parents([Parent(kind="data", name="후기.csv", licence=licence)])
        chain = licences.joined(licences.chain(cards.card("openllama-3b")), data)
        facts = {"base": "openllama-3b", "licence": licences.as_dict(chain)}
        (folder / "provenance.json").write_text(json.dumps(facts), encoding="utf-8")
        return folder

    return make
