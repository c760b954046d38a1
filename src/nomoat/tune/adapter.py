"""The adapter folder: PEFT's two files, and `provenance.json`, which says what it was made from and may be used for."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nomoat import __version__, hardware, paths
from nomoat.engine import importer
from nomoat.errors import BadFileError, UsageError
from nomoat.records import Parent

if TYPE_CHECKING:
    import torch

NAME = re.compile(r"[\w][\w.-]{0,63}")  # \w: letters of any script, so that a name may be Korean
CHECKPOINT_FILE = "checkpoint.pt"


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """What an adapter is made from. `task` says how the data was turned into prompts; `data_licence` is a licence's id; `teachers` are
    those that wrote the data, and what they showed.
    """

    base: str
    weights: Path
    data: Path
    data_licence: str
    num_lessons: int
    settings: dict[str, Any]
    task: dict[str, Any]
    teachers: tuple[Parent, ...] = ()

    def facts(self) -> dict[str, Any]:
        """As it is written into `provenance.json`, and compared before a training is resumed."""
        return {
            "base": self.base,
            "base_file": self.weights.name,
            "base_sha256": importer.sha256_of_model(self.weights),
            "data_file": self.data.name,
            "data_sha256": paths.sha256_of(self.data),
            "data_licence": self.data_licence,
            "num_lessons": self.num_lessons,
            "settings": self.settings,
            "task": self.task,
        }


def reserve(name: str, *, replace: bool, resume: bool) -> Path:
    """The folder an adapter of this name will have. Raises UsageError for a bad name, and for one that is taken."""
    if not NAME.fullmatch(name):
        raise UsageError(f"`{name}` cannot be an adapter's name", hint="use up to 64 letters, digits, dots, dashes and underscores")
    target = paths.adapters() / name
    if target.exists() and not replace:
        raise UsageError(f"there is an adapter `{name}` already", hint="choose another --name, or --replace it")
    if resume and not can_resume(name):
        raise UsageError(f"there is no interrupted training of `{name}` to go on with", hint="leave out --resume to start")
    return target


def can_resume(name: str) -> bool:
    """Whether there is an interrupted training of that name to go on with."""
    return (_checkpoint_folder(paths.adapters() / name) / CHECKPOINT_FILE).exists()


def save(target: Path, learned: Mapping[str, torch.Tensor], origin: Origin, metrics: dict[str, Any], survey: dict[str, Any]) -> None:
    """Write the adapter as PEFT names its parts, whole or not at all. `learned`: `layer.lora_A.weight` and the like."""
    from safetensors.torch import save as serialised

    from nomoat.tune import plots, qlora

    provenance = {
        "nomoat": __version__,
        "made": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": hardware.summary(),
        **origin.facts(),
        "data": survey,
        "metrics": metrics,
        "licence": _licence(origin),
    }
    rank = origin.settings["rank"]
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": origin.base,
        "r": rank,
        "lora_alpha": rank * qlora.LORA_SCALE,
        "lora_dropout": 0.0,
        "target_modules": sorted({name.split(".")[-3] for name in learned}),
        "layers_to_transform": sorted({int(name.split(".")[2]) for name in learned}),
        "layers_pattern": "layers",
        "bias": "none",
        "inference_mode": True,
    }
    with paths.whole_folder(target) as part:
        named = {f"base_model.model.{name}": tensor.detach().contiguous() for name, tensor in learned.items()}
        (part / importer.ADAPTER_WEIGHTS).write_bytes(serialised(named))
        for name, facts in (("adapter_config.json", config), ("provenance.json", provenance)):
            (part / name).write_text(json.dumps(facts, indent=1, ensure_ascii=False), encoding="utf-8")
        if metrics["history"]:
            (part / "training.svg").write_text(plots.training_svg(metrics), encoding="utf-8")


class Checkpoint:
    """The last good state of a training that has not ended. Written whole or not at all."""

    def __init__(self, target: Path, origin: Origin) -> None:
        self._folder = _checkpoint_folder(target)
        self._origin = origin
        self.name = target.name

    def save(self, state: dict[str, Any]) -> None:
        """Replace the last state by this one."""
        import torch

        content = io.BytesIO()  # PyTorch says of a full disk that an internal check has failed
        torch.save({**state, "origin": self._origin.facts()}, content)
        with paths.whole_file(self._folder / CHECKPOINT_FILE) as part:
            part.write_bytes(content.getbuffer())

    def load(self) -> dict[str, Any]:
        """The last state. Raises UsageError if it is of other data, another base or other settings."""
        import pickle

        import torch

        path = self._folder / CHECKPOINT_FILE
        try:
            state: dict[str, Any] = torch.load(path, weights_only=True)
        except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as exc:
            raise BadFileError(f"`{path}` is not a whole checkpoint: {exc}", hint="start again without --resume") from exc
        now, then = ({**facts, **facts["settings"], **facts["task"]} for facts in (self._origin.facts(), state["origin"]))
        for facts in (now, then):  # each by its own name
            del facts["settings"], facts["task"]
        changed = [key for key in now if now[key] != then.get(key)]
        if changed:
            name, was, wanted = changed[0], then.get(changed[0]), now[changed[0]]
            begun = (
                f"without {name}, not with {wanted}"
                if was is None
                else f"with {name} {was}, not {'without' if wanted is None else wanted}"
            )
            raise UsageError(
                f"the interrupted training of `{self.name}` was begun {begun}",
                hint="give the same arguments as then, or start again without --resume",
            )
        return state

    def remove(self) -> None:
        """The training has ended well."""
        import shutil

        shutil.rmtree(self._folder, ignore_errors=True)


def _checkpoint_folder(target: Path) -> Path:
    return target.parent / f".{target.name}.checkpoint"


def _licence(origin: Origin) -> dict[str, Any]:
    """The licence chain of the result: the base's, the data it learned from, and who wrote that."""
    from nomoat.catalog import cards, licences

    learned_from = Parent(kind="data", name=origin.data.name, licence=origin.data_licence)
    return licences.as_dict(licences.chain(cards.find(origin.base), [learned_from, *origin.teachers]))
