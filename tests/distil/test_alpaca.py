"""Seeds that are Alpaca's, under whatever name."""

from __future__ import annotations

import pytest
from letters import decomposed

from nomoat.distil import alpaca
from nomoat.distil.prompts import Task


def tasks(*instructions: str) -> list[Task]:
    return [Task(instruction=instruction, input="", output="x") for instruction in instructions]


def test_half_of_the_instructions_decide_whatever_their_case_and_spaces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(alpaca, "_fingerprints", lambda: {alpaca.fingerprint("Name a bird."), alpaca.fingerprint("새 이름")})
    assert alpaca.are_mostly_alpacas(tasks("name  a BIRD. ", "Another"))
    assert not alpaca.are_mostly_alpacas(tasks("Name a bird.", "Another", "A third"))
    assert alpaca.are_mostly_alpacas(tasks(decomposed("새 이름")))
    assert not alpaca.are_mostly_alpacas([])


def test_there_is_a_fingerprint_for_each_of_alpacas_seeds() -> None:
    assert len(alpaca._fingerprints()) == 175
    assert {len(one) for one in alpaca._fingerprints()} == {alpaca.FINGERPRINT_DIGITS}
