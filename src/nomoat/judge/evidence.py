"""What a result is told with: when, with what and on what it was made, and each answer behind it. `--json` prints both."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from nomoat import __version__, bounds, config, hardware, references
from nomoat.engine import importer
from nomoat.errors import UsageError
from nomoat.hub_folder import adapter_weights
from nomoat.judge.verdict import Evaluation
from nomoat.words import listed

MEASURED_BY = ("openvino", "numba", "numpy", "scipy")  # what answers and what intervals are reckoned with


def circumstances(models: Iterable[str | Path]) -> dict[str, Any]:
    """Version, date (UTC), machine, `quality`, versions of others, and the files of these models where they are of this machine.

    Raises UsageError for one model in place of several, and what finding these files raises.
    """
    named = dict.fromkeys(map(references.named, bounds.several(models, "models are told of")))
    return {
        "nomoat": __version__,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": hardware.summary(),
        "quality": config.quality().value,
        "versions": hardware.versions(*MEASURED_BY),
        "weights": [_weights(ref) for ref in named if references.names_weights(ref)],
    }


def _weights(ref: str) -> dict[str, Any]:
    """The files that a model was loaded from, by their content, and what its likelihoods are computed in."""
    files = references.find_files(ref)
    return {
        "model": ref,
        "file": files.weights.name,
        "sha256": importer.sha256_of_model(files.weights),
        "adapter_sha256": None if files.adapter is None else importer.remembered_sha256(adapter_weights(files.adapter)),
        "likelihoods": "float32" if importer.fits_exactly(files.weights) else "as it answers",
    }


def items(sides: Sequence[Evaluation]) -> list[dict[str, Any]]:
    """Every item with its score and what it was for; of several models lists, in their order, of the items that all answered.

    Raises UsageError for one evaluation in place of several, and for those of several suites.
    """
    sides = bounds.several(sides, "evaluations are told of", one=Evaluation)
    if not sides:
        return []
    answered = [{outcome.example_id: outcome for outcome in side.outcomes} for side in sides]
    asked = [{example.id: example for example in side.suite.examples} for side in sides]
    rows = []
    for name in [name for name in answered[0] if all(name in side for side in answered)]:
        together, example = [side[name] for side in answered], asked[0][name]
        if any(examples[name].target != example.target for examples in asked):
            suites = listed(list(dict.fromkeys(f"`{side.suite.name}`" for side in sides)))
            hint = "give those of one suite at a time"
            raise UsageError(f"question `{name}` has not one right answer in evaluations of {suites}", hint=hint)
        row: dict[str, Any] = {"id": example.id}
        row |= _of_each("score", "scores", [outcome.score for outcome in together])
        row |= {"target": example.target} | ({"other_targets": example.other_targets} if example.other_targets else {})
        row |= _of_each("answer", "answers", [outcome.answer for outcome in together])
        row |= _of_each("seconds", "seconds", [outcome.seconds or None for outcome in together])
        if any(outcome.ended for outcome in together):
            row |= _of_each("ended", "ended", [outcome.ended for outcome in together])
            row |= _of_each("said", "said", [outcome.said for outcome in together])
        likelihoods = [side.likelihoods.get(example.id) for side in sides]
        if any(likelihoods):
            row |= {"choices": example.choices} | _of_each("likelihoods", "likelihoods", likelihoods)
        rows.append(row)
    return rows


def _of_each(of_one: str, of_several: str, values: Sequence[Any]) -> dict[str, Any]:
    """The only model's value, or those of several."""
    return {of_one: values[0]} if len(values) == 1 else {of_several: values}
