"""What a result is told with: what it was made with, and each answer behind it."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from pathlib import Path

import pytest
from quiz import knowing, quiz
from scripted import Choosing
from tiny import write_adapter

import nomoat
from nomoat.errors import UsageError
from nomoat.judge import evidence
from nomoat.judge.duel import run_duel
from nomoat.judge.run import run_suite
from nomoat.judge.settings import RunSettings
from nomoat.records import ContinuationScore
from nomoat.responder import Responder


def test_what_a_result_was_made_with_names_the_content_of_each_model_s_files(
    tiny_gguf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    adapter = write_adapter(tmp_path / "lora")
    tuned = f"{tiny_gguf}+{adapter}"
    sha256, of_adapter = (hashlib.sha256(path.read_bytes()).hexdigest() for path in (tiny_gguf, adapter / "adapter_model.safetensors"))
    rows = [
        {"model": str(tiny_gguf), "file": tiny_gguf.name, "sha256": sha256, "adapter_sha256": None, "likelihoods": "float32"},
        {"model": tuned, "file": tiny_gguf.name, "sha256": sha256, "adapter_sha256": of_adapter, "likelihoods": "float32"},
    ]
    models = [str(tiny_gguf), tuned, tiny_gguf, "stored:quiz/a", "http://127.0.0.1:1/v1#m"]
    assert evidence.circumstances(models)["weights"] == rows
    with pytest.raises(UsageError, match="several models are told of, and this is one str"):
        evidence.circumstances(tuned)
    monkeypatch.setattr("nomoat.engine.importer.fits_exactly", lambda _path: False)
    assert evidence.circumstances(models)["weights"] == [{**row, "likelihoods": "as it answers"} for row in rows]


def test_a_duel_is_told_from_python_with_every_answer_and_what_it_was_made_with() -> None:
    found = run_duel(knowing("a", 2), knowing("b", 1), quiz(3), stop_early=False)
    items, made = evidence.items((found.left, found.right)), evidence.circumstances([])
    told = json.loads(json.dumps({**dataclasses.asdict(found.verdict), "run": made, "items": items}, default=dataclasses.asdict))
    assert (told["run"]["nomoat"], told["run"]["quality"], told["run"]["weights"]) == (nomoat.__version__, "default", [])
    assert [row["answers"] for row in told["items"]] == [["yes", "yes"], ["yes", "no"], ["no", "no"]]


def test_models_asked_one_by_one_are_told_together_of_what_all_answered() -> None:
    """Each drew others of the eight: row by row another question's score would stand beside the first one's."""
    one, other = (
        run_suite(knowing(name, {2}), quiz(8), RunSettings(limit=limit, seed=seed)) for name, limit, seed in (("a", 5, 0), ("b", 4, 1))
    )
    ids = [[outcome.example_id for outcome in side.outcomes] for side in (one, other)]
    items = evidence.items([one, other])
    assert ids[0] != ids[1] and [row["id"] for row in items] == [name for name in ids[0] if name in ids[1]]
    assert all(row["scores"] == [float(row["id"] == "2")] * 2 for row in items)
    with pytest.raises(UsageError, match="several evaluations are told of, and this is one Evaluation"):
        evidence.items(one)  # type: ignore[arg-type]
    assert evidence.items([]) == []


def test_evaluations_of_several_suites_are_not_told_together() -> None:
    """Both count their questions from 0: one's score would stand beside the target of the other's."""
    suites = quiz(2, name="affirmed"), quiz(2, name="denied", target="no")
    with pytest.raises(UsageError) as caught:
        evidence.items([run_suite("fake:", suite) for suite in suites])
    assert caught.value.message == "question `0` has not one right answer in evaluations of `affirmed` and `denied`"


def test_likelihoods_of_choices_become_json() -> None:
    (row,) = evidence.items([run_suite("fake:", quiz(1, "choice", choices=("no", "yes")))])
    assert [{*each} for each in json.loads(json.dumps(row, default=dataclasses.asdict))["likelihoods"]] == [
        {"log_probability", "num_tokens", "is_bound"}
    ] * 2


@pytest.mark.parametrize(("per_token", "most"), [(False, math.inf), (True, 0.0)])
def test_a_choice_that_was_not_read_to_its_end_says_so_and_by_token_all_are(per_token: bool, most: float) -> None:
    def scores(max_unread: float) -> tuple[ContinuationScore, ...]:
        no = ContinuationScore(log_probability=-4.0, num_tokens=9, is_bound=max_unread > 0)
        return no, ContinuationScore(log_probability=-1.0, num_tokens=1)

    engine = Choosing(scores)
    suite = dataclasses.replace(quiz(1, "choice", choices=("no", "yes")), per_token=per_token)
    (row,) = evidence.items([run_suite(Responder("fake:", engine), suite)])
    assert engine.max_unread[-1] == most
    told = json.loads(json.dumps(row, default=dataclasses.asdict))["likelihoods"]
    assert told[0] == {"log_probability": -4.0, "num_tokens": 9, "is_bound": not per_token} and not told[1]["is_bound"]
