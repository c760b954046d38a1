"""Which lessons are learned again, once all were learned."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
import torch
from learning import tune

from nomoat.tune import loop, prepare, sweeps
from nomoat.tune.samples import Sample


def test_those_known_least_are_learned_again_once_all_were_learned(
    tiny_gguf: Path, table: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One lesson in three is hard and stays so, another is hard when it is first met alone, and the last one is easy."""
    learn, met = loop.Run._learn, list[list[int]]()

    def pretended(run: loop.Run, batch: list[Sample]) -> torch.Tensor:
        places = run.sweeps.places(batch)
        losses = {0: 9.0, 1: 1.0 if run.lessons_done >= len(run.training) else 5.0, 2: 2.0}
        return torch.tensor([losses[place % 3] for place in places])

    def learned(run: loop.Run, batch: list[Sample]) -> float:
        met.append(run.sweeps.places(batch))
        return learn(run, batch)

    monkeypatch.setattr(sweeps, "MANY_LABELS", 3)
    monkeypatch.setattr(loop.Run, "backward", pretended)
    monkeypatch.setattr(loop.Run, "_learn", learned)
    tune(tiny_gguf, table, settings=prepare.Settings(rank=4, batch=9, layers=1, epochs=171 / 81))
    assert [len(batch) for batch in met] == [9] * 19
    found = [sorted(itertools.chain(*met[start:stop])) for start, stop in ((0, 9), (9, 14), (14, 19))]
    hard, hard_at_first, easy = (list(range(first, 81, 3)) for first in range(3))
    assert found[0] == list(range(81))
    assert found[1] == sorted(hard + hard_at_first[:18])
    assert found[2] == sorted(hard + hard_at_first[18:] + easy[:9])


@pytest.mark.parametrize(
    ("labels", "each", "answers", "has_many"),
    [(20, 10, 1, True), (19, 50, 1, False), (20, 9, 1, False), (200, 1, 1, False), (20, 10, 2, False)],
    ids=["enough of both", "few labels", "few lessons a label", "free answers", "conversations"],
)
def test_many_labels_are_told_by_answers_that_lessons_share(labels: int, each: int, answers: int, has_many: bool) -> None:
    spans = ((1, 3), (3, 5))[:answers]
    lessons = [Sample(tokens=[1, label, 2, label, 2], answers=spans) for label in range(labels) for _ in range(each)]
    assert sweeps.has_many_labels(lessons) == has_many
