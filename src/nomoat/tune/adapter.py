"""The adapter folder: PEFT's two files, and `provenance.json`, which says what it was made from and may be used for."""

from __future__ import annotations

import errno
import io
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from nomoat import bounds, commands, hardware, paths, references, system_errors, whole_files
from nomoat.catalog import licences, tuned
from nomoat.catalog.licences import ChainVerdict
from nomoat.engine import arch as architectures
from nomoat.engine import importer, peft_names, tensor_check
from nomoat.engine.arch import Architecture, Dimensions
from nomoat.engine.gguf import FloatArray
from nomoat.engine.lora import ITS_BASE, USUAL_SCALE, LoraDelta
from nomoat.engine.source import ModelSource
from nomoat.engine.templates import Template
from nomoat.errors import BadFileError, NotWritableError, UnsupportedError, UsageError
from nomoat.hub_folder import ADAPTER_CONFIG, ADAPTER_WEIGHTS, CHAT_TEMPLATE, TOOL_TEMPLATE, cannot_read
from nomoat.records import Parent

if TYPE_CHECKING:
    import torch

    from nomoat.tune.prepare import Prepared

NAME = re.compile(r"[\w][\w.-]{0,63}")  # \w: letters of any script, so that a name may be Korean
CHECKPOINT_FILE, CHECKPOINT_END = "checkpoint.pt", ".checkpoint"  # the latter of its folder
CHECKPOINT_BYTES_A_WEIGHT = 20  # itself, two means of SOAP, its average, and that of the best look, in f32
LESSONS = "lessons_sha256"  # among the facts
LEARNED_BY = ("torch", "numba", "numpy")  # on whose versions the last bits of what is learned depend
BROKEN_ZIP = "PytorchStreamReader"  # with which PyTorch begins what it says of one
START_AGAIN = "start again without --resume (in Python: `resume`)"
OTHERS = ("test", "validation")  # files that a training may have beside its data


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """An adapter that a training goes on from, in place of fresh matrices; the upper `layers` have it.

    `learned`: its matrices by our layers' names, scaled as those learned here are. `provenance` is empty for one that was made
    elsewhere. `other_base`: see `references.other_base`.
    """

    name: str
    sha256: str
    learned: dict[str, FloatArray]
    rank: int
    layers: int
    provenance: dict[str, Any]
    licence: ChainVerdict
    other_base: str | None

    @property
    def instruction(self) -> str | None:
        """See `tuned.instruction_of`."""
        return tuned.instruction_of(self.provenance)

    @property
    def labels(self) -> list[str]:
        """See `tuned.labels_of`."""
        return tuned.labels_of(self.provenance)

    @property
    def form(self) -> dict[str, int | str | None]:
        """What goes on with it as it is, where that is known of it: an adapter that was made elsewhere has no words of ours."""
        found: dict[str, int | str | None] = {"rank": self.rank, "layers": self.layers}
        if self.instruction is not None or tuned.question_of(self.provenance) is not None:
            found["instruction"] = self.instruction
        if "template" in (self.provenance.get("task") or {}):
            found["template"] = tuned.template_of(self.provenance)
        return found

    def facts(self) -> dict[str, Any]:
        """What it was made from, back to the base."""
        names = ("base", "base_file", "base_sha256", "data_file", "data_sha256", "data_licence", "num_lessons", "settings", "start")
        kept = {name: self.provenance.get(name) for name in names}
        return {"adapter": self.name, "sha256": self.sha256, "labels": self.labels, "instruction": self.instruction, **kept}


def read_start(base: str, weights: Path, folder: Path, file: ModelSource) -> Start:
    """An adapter of `base` to go on from. Raises BadFileError, and UnsupportedError for another form than is learned here."""
    arch, sizes = architectures.of(file), importer.read_sizes(file)
    delta = LoraDelta(folder).of_model(arch, sizes)
    learned, shapes, ranks = dict[str, FloatArray](), dict[str, tuple[int, ...]](), set[int]()
    for layer in delta.layers:
        found = delta.scaled(layer)
        assert found is not None
        a_RI, b_OR = found
        learned |= {f"{layer}.lora_A.weight": a_RI, f"{layer}.lora_B.weight": b_OR / np.float32(USUAL_SCALE)}
        shapes[layer] = (len(b_OR), a_RI.shape[1])
        ranks |= {len(a_RI), b_OR.shape[1]}
    wanted = _shapes_from_the_top(file, arch, sizes, len(shapes))
    if shapes != wanted or len(ranks) > 1:
        other = next((name for name in {**wanted, **shapes} if wanted.get(name) != shapes.get(name)), "")
        why = f"it differs at `{other}`" if other else f"it has the ranks {', '.join(map(str, sorted(ranks)))}"
        raise UnsupportedError(
            f"a training cannot go on from `{folder.name}`: {why}, and adapters learned here change every linear layer of the upper "
            "layers, with one rank",
            hint=f"tune the base, `{base}`",
        )
    provenance = tuned.provenance_of(folder)
    return Start(
        name=folder.name, sha256=delta.sha256, learned=learned, rank=ranks.pop(),
        layers=len({name.split(".")[2] for name in shapes}), provenance=provenance,
        licence=references.adapter_chain(base, folder), other_base=references.other_base(weights, provenance),
    )  # fmt: skip


def _shapes_from_the_top(file: ModelSource, arch: Architecture, sizes: Dimensions, least: int) -> dict[str, tuple[int, ...]]:
    """The shapes (rows, columns) of the linear layers of so many upper layers as have at least so many of them."""
    whole = -(-least // len(arch.projections)) * len(arch.projections)
    upper = list(tensor_check.layer_names(arch, sizes).items())[-whole:]
    return {layer: file.tensor(tensor).shape for tensor, layer in upper}


def reserve(name: str, *, replace: bool, resume: bool) -> Path:
    """The folder an adapter of this name will have. Raises UsageError for a bad name, and for one that is taken."""
    bounds.require_text(name, "an adapter's name")
    bounds.require_flag("replace", replace)
    bounds.require_flag("resume", resume)
    if not NAME.fullmatch(name):
        raise UsageError(f"`{name}` cannot be an adapter's name", hint="use up to 64 letters, digits, dots, dashes and underscores")
    if not paths.is_name_here(name):
        raise UsageError(
            f"`{name}` cannot be an adapter's name: {paths.NO_NAME_HERE}", hint="choose another --name (in Python: `name`)"
        )
    target = paths.adapters() / name
    if target.exists() and not replace:
        hint = "choose another --name, or --replace it (in Python: `name`, `replace`)"
        if resume and can_resume(name):
            hint = (
                "if the training was stopped while it wrote the adapter, this is what it has learned; else --replace it "
                "with what comes of going on (in Python: `replace`)"
            )
        raise UsageError(f"there is an adapter `{name}` already", hint=hint)
    return target


def can_resume(name: str, *, earlier: int | None = None) -> bool:
    """Whether there is an interrupted training of that name to go on with, and not the `earlier` one (see `saved_at`)."""
    return saved_at(name) not in (None, earlier)


def resumable() -> list[str]:
    """The names of all interrupted trainings to go on with."""
    states = paths.adapters().glob(f".*{CHECKPOINT_END}/{CHECKPOINT_FILE}")
    return sorted(path.parent.name[1:].removesuffix(CHECKPOINT_END) for path in states)


def saved_at(name: str) -> int | None:
    """When the state of an interrupted training of that name was written, in nanoseconds; None: there is none.

    A training that begins anew has left the earlier one's alone until that time is another.
    """
    try:
        return (checkpoint_folder(paths.adapters() / name) / CHECKPOINT_FILE).stat().st_mtime_ns
    except OSError:
        return None


def save(
    target: Path, learned: Mapping[str, torch.Tensor], prepared: Prepared, facts: dict[str, Any], metrics: dict[str, Any]
) -> None:  # fmt: skip
    """Write the adapter as PEFT has it, whole or not at all. `learned`: `layer.lora_A.weight` and the like, of our layers. `facts` are
    those that `prepared` had at first."""
    from safetensors.torch import save as serialised

    from nomoat.tune import plots

    arch, rank = prepared.arch, prepared.settings.rank
    named = _as_peft_has_it(learned, arch, prepared.sizes)
    provenance = {
        "made": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": hardware.summary(),
        "versions": hardware.versions(*LEARNED_BY),
        **facts,
        "data": asdict(prepared.survey),
        "metrics": metrics,
        "licence": licences.as_dict(prepared.licence),
    }
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        ITS_BASE: facts["base"],
        "r": rank,
        "lora_alpha": rank * USUAL_SCALE,
        "lora_dropout": 0.0,
        "target_modules": sorted({name.split(".")[-3] for name in named}),
        "layers_to_transform": sorted({int(name.split(".")[2]) for name in learned}),
        "layers_pattern": arch.hf_layers.rpartition(".")[2],
        "fan_in_fan_out": peft_names.has_rows_last(arch),
        "bias": "none",
        "inference_mode": True,
    }
    with whole_files.whole_folder(target) as part:
        (part / ADAPTER_WEIGHTS).write_bytes(serialised(named))
        for name, told in ((ADAPTER_CONFIG, config), (tuned.PROVENANCE, provenance)):
            (part / name).write_text(json.dumps(told, indent=1, ensure_ascii=False), encoding="utf-8", newline="\n")
        if prepared.brought is not None:
            _write_templates(part, prepared.brought)
        if metrics["history"]:
            (part / "training.svg").write_text(plots.training_svg(metrics), encoding="utf-8", newline="\n")


def _write_templates(folder: Path, template: Template) -> None:
    """As `transformers` writes them beside an adapter."""
    for name, text in ((CHAT_TEMPLATE, template.text), (TOOL_TEMPLATE, template.with_tools)):
        if text is not None:
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).write_text(text, encoding="utf-8", newline="\n")


def _as_peft_has_it(learned: Mapping[str, torch.Tensor], arch: Architecture, sizes: Dimensions) -> dict[str, torch.Tensor]:
    """Under the names that `transformers` gives the family's layers, and with the rows in its order."""
    named = {}
    for name, tensor in learned.items():
        layer, end = name.rsplit(".lora_", 1)
        order = peft_names.row_order(arch, sizes, layer, len(tensor)) if end == "B.weight" else None
        rows = tensor.detach() if order is None else tensor.detach()[np.argsort(order).tolist()]
        named[f"base_model.model.{peft_names.their_name(arch, layer)}.lora_{end}"] = rows.contiguous()
    return named


class Checkpoint:
    """The last good state of a training that has not ended. Written whole or not at all."""

    def __init__(self, target: Path, facts: dict[str, Any]) -> None:
        """`facts`: what it is of, see `Prepared.facts`."""
        self._folder = checkpoint_folder(target)
        self._facts = facts
        self.name, self._has_adapter = target.name, target.exists()

    def save(self, state: dict[str, Any]) -> None:
        """Replace the last state by this one."""
        import torch

        content = io.BytesIO()  # PyTorch says of a full disk that an internal check has failed
        torch.save({**state, "origin": self._facts}, content)
        try:
            with whole_files.whole_file(self._folder / CHECKPOINT_FILE) as part, content.getbuffer() as view:
                part.write_bytes(view)
        finally:
            with suppress(OSError):  # it has the last state
                self._folder.rmdir()

    def load(self) -> dict[str, Any]:
        """The last state. Raises UsageError if it is of another nomoat, other data, another base, other settings or other tokens,
        BadFileError if it cannot be read.
        """
        state = self._read()
        now, then = _each_by_name(self._facts), _each_by_name(state["origin"])
        changed = [key for key in now if now[key] != then.get(key)]
        if changed:
            self._require_same_file(changed[0], now, then)
            name, was, wanted = changed[0], then.get(changed[0]), now[changed[0]]
            begun = (
                f"without {name}, not with {wanted}"
                if was is None
                else f"with {name} {was}, not {'without' if wanted is None else wanted}"
            )
            raise UsageError(
                f"the interrupted training of `{self.name}` was begun {begun}",
                hint=self._start_again if name == "nomoat" else f"give the same arguments as then, or {START_AGAIN}",
            )
        if self._facts[LESSONS] != state["origin"].get(LESSONS):
            raise UsageError(
                f"the interrupted training of `{self.name}` was begun with other tokens, or with other lessons held out, though its "
                "files and settings are the same",
                hint=f"a chat template that writes the date does that, and another build of nomoat may: {self._start_again}",
            )
        return state

    @property
    def _start_again(self) -> str:
        """What to do where nothing goes on from the state: it stays until then. `rm` would take an adapter of that name, too."""
        if self._has_adapter:
            return START_AGAIN
        size = paths.shown_size(paths.bytes_below(self._folder))
        remove = commands.as_line(["nomoat", "rm", f"{self._facts['base']}+{self.name}"])
        return f"{START_AGAIN}; `{remove}` removes what was left of it, {size}"

    def _read(self) -> dict[str, Any]:
        import pickle

        import torch

        path = self._folder / CHECKPOINT_FILE
        try:
            state: dict[str, Any] = torch.load(path, weights_only=True)
        except (OSError, RuntimeError, EOFError, UnicodeDecodeError, pickle.UnpicklingError) as exc:
            if isinstance(exc, OSError) and exc.errno != errno.EINVAL:  # of a file that was cut, it looks before the beginning
                raise cannot_read(path, exc, if_absent=START_AGAIN) from exc
            if isinstance(exc, RuntimeError) and not str(exc).startswith(BROKEN_ZIP):
                raise
            raise BadFileError(f"`{path}` is not a whole checkpoint: it was cut off or changed", hint=self._start_again) from exc
        return state

    def _require_same_file(self, name: str, now: dict[str, Any], then: dict[str, Any]) -> None:
        """Raises UsageError where what differs is the digest of a file that is named as it was."""
        which = name.removesuffix("_sha256")
        file = which if which in OTHERS else f"{which}_file"
        if which != name and name in then and now[file] == then[file]:
            raise UsageError(
                f"`{now[file]}` has changed since the interrupted training of `{self.name}` began",
                hint=f"give it as it was, or {START_AGAIN}",
            )

    def remove(self) -> None:
        """The training has ended well."""
        import shutil

        shutil.rmtree(self._folder, ignore_errors=True)


def _each_by_name(facts: dict[str, Any]) -> dict[str, Any]:
    """What a training has to have in common with the one it goes on from; the terms of the data change no weight."""
    start = facts.get("start")
    flat = {**facts, **facts["settings"], **facts["task"], "start": f"{start['adapter']} ({start['sha256']})" if start else None}
    return {name: value for name, value in flat.items() if name not in ("settings", "task", "data_licence", LESSONS)}


def bytes_on_disk(num_learned: int) -> int:
    """What a training of so many weights takes on the disk: the last state, and the next one beside it while that is written."""
    return 2 * CHECKPOINT_BYTES_A_WEIGHT * num_learned


def require_disk(target: Path, num_learned: int) -> None:
    """Raise NotEnoughDiskError without room for that, beside what an interrupted training of the same name left, or in its place."""
    there = paths.bytes_below(checkpoint_folder(target))
    system_errors.require_free_disk(target.parent, bytes_on_disk(num_learned) - there)


def checkpoint_folder(target: Path) -> Path:
    """Where the state of a training of that adapter is, until it has ended well."""
    return target.parent / f".{target.name}{CHECKPOINT_END}"


def alone_with(target: Path, *, hint: str) -> AbstractContextManager[None]:
    """While nobody else tunes that adapter, or raise UsageError: they would write into one checkpoint."""
    busy = UsageError(f"`{target.name}` is being tuned by another nomoat right now", hint=hint)
    return whole_files.alone(target, busy=busy)


@contextmanager
def tuning(target: Path, weights: Path) -> Iterator[None]:
    """`alone_with` it, for a training, which `tuned_on` finds meanwhile."""
    marked = target.with_name(target.name + _mark(weights))
    with alone_with(target, hint="wait for it, or choose another --name (in Python: `name`)"), whole_files.alone(marked):
        yield


def tuned_on(weights: Path) -> list[str]:
    """The adapters that are being tuned on these weights right now, on a disk that has locks.

    Not covered: a training of somebody else's, whose locks are not ours to write to.
    """
    found = []
    for path in (paths.cache() / "locks").glob(f"*{_mark(weights)}"):
        try:
            with suppress(NotWritableError), whole_files.alone(path, busy=UsageError(path.name, hint=None)):
                pass
        except UsageError:
            found.append(path.name.removesuffix(_mark(weights)))
    return sorted(found)


def _mark(weights: Path) -> str:
    """What ends the name of a lock that a training on these weights holds."""
    return f".on.{paths.sha256_of_texts(str(weights.resolve()))[:16]}"


def licence_chain(weights: Path, data: Sequence[Parent], teachers: Sequence[Parent], start: Start | None) -> ChainVerdict:
    """The licence chain of the result: the base's, that of what it goes on from, the data it learned from, and who wrote that.

    Data that a model wrote are nobody's own: who wrote them stands there, and the data only with terms of their own.
    Raises BadFileError.
    """
    known = [one for one in data if not teachers or one.licence != licences.OWN]
    base, learned = references.weights_chain(weights), licences.of_parents([*known, *teachers])
    return licences.chain_of_all(*([start.licence] if start else []), base, learned)
