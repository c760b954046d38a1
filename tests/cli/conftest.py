"""What the tests of the command line share: a shell, and a tuned adapter."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import shell

from nomoat.catalog import cards, licences
from nomoat.records import Parent


@pytest.fixture
def nomoat(monkeypatch: pytest.MonkeyPatch) -> Callable[..., shell.Done]:
    """Runs the command line within this process, without a terminal, and without the mirror of whoever runs the tests."""
    monkeypatch.delenv("NOMOAT_MIRROR", raising=False)
    return shell.nomoat


@pytest.fixture
def program(monkeypatch: pytest.MonkeyPatch) -> Callable[..., shell.Done]:
    """Runs the program itself, likewise. One test of each verb does: that it starts with nothing imported."""
    monkeypatch.delenv("NOMOAT_MIRROR", raising=False)
    return shell.program


@pytest.fixture
def tuned(empty_home: Path) -> Callable[[str], Path]:
    """Makes an adapter as `tune` leaves it, its name and its data in Korean; given the licence of the data."""

    def make(licence: str) -> Path:
        folder = empty_home / "adapters" / "후기"
        folder.mkdir(parents=True)
        data = licences.of_parents([Parent(kind="data", name="후기.csv", licence=licence)])
        chain = licences.chain_of_all(licences.chain(cards.card("openllama-3b")), data)
        facts = {"base": "openllama-3b", "licence": licences.as_dict(chain)}
        (folder / "provenance.json").write_text(json.dumps(facts), encoding="utf-8")
        return folder

    return make
