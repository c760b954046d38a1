"""What stands beside a file that a model wrote: who taught it, and on what terms. `distil` writes it, `tune` reads it.

`export` writes one beside weights, with their licence chain and what they were taught to answer.

`tasks.jsonl` has `tasks.jsonl.provenance.json`. A file that was renamed has its own by the sha256, among the sidecars of its folder.
What this does not cover: a file that was moved without its sidecar, and rows that were copied into another file.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from nomoat import __version__, paths, whole_files
from nomoat.catalog import licences
from nomoat.catalog.datasets import SEEDS
from nomoat.errors import BadFileError
from nomoat.hub_folder import read_object
from nomoat.records import Parent, known_fields

SUFFIX = ".provenance.json"
EXPORT_AGAIN = "export the tuned model again"


@dataclass(frozen=True, slots=True, kw_only=True)
class Sidecar:
    """`parents` are what the file was made from: teachers and data, with terms as they are known now; `notes` say where others
    are written. `is_of_this_content`: the file was not changed since."""

    teacher: str
    parents: tuple[Parent, ...]
    notes: tuple[str, ...]
    is_of_this_content: bool
    facts: dict[str, Any]


def path_of(data: Path) -> Path:
    """Where the sidecar of a file stands."""
    return data.with_name(data.name + SUFFIX)


def saving(data: Path, *, sha256: str, teacher: str, parents: Sequence[Parent], facts: dict[str, Any]) -> AbstractContextManager[None]:
    """The sidecar of a file that will have this sha256, in its place when the block ends well; else what was there stays.

    Put the file in its place after this block: then none ever stands there without its teacher.
    """
    known = {"file": data.name, "sha256": sha256, "teacher": teacher, "made_from": [asdict(one) for one in parents]}
    return _beside(data, {**known, **facts})


@contextmanager
def whole_with_chain(weights: Path, terms: licences.ChainVerdict | None, facts: Mapping[str, Any]) -> Iterator[Path]:
    """As `whole_files.whole_file`, for exported weights and, beside them, what they may be used for, and other facts: both or none.

    See `chain_of`, `told_of`.
    """
    with whole_files.whole_file(weights) as part:
        yield part
        if terms is not None:
            told = {
                "file": weights.name,
                "sha256": paths.sha256_of(part),
                "nomoat": __version__,
                **facts,
                "licence": licences.as_dict(licences.for_others(terms)),
            }
            with _beside(weights, told):
                pass


@contextmanager
def _beside(data: Path, told: dict[str, Any]) -> Iterator[None]:
    with whole_files.whole_file(path_of(data)) as part:
        part.write_text(json.dumps(told, indent=1, ensure_ascii=False) + "\n", encoding="utf-8", newline="\n")
        yield


def find(data: Path) -> Sidecar | None:
    """The sidecar of a file; one of its name counts even where the file was changed since. Raises BadFileError for a broken one."""
    own = path_of(data)
    others = sorted(path for path in data.parent.glob(f"*{SUFFIX}") if path != own)
    if not data.is_file() or (not own.exists() and not others):
        return None
    sha256 = paths.sha256_of(data)
    if own.exists():
        return _read(own, sha256)
    same = (path for path in others if _facts(path).get("sha256") == sha256)
    return next((_read(path, sha256) for path in same), None)


def chain_of(weights: Path, sha256_of: Callable[[Path], str]) -> licences.ChainVerdict:
    """The licence chain that `nomoat export` wrote beside this very file; otherwise that of an unknown origin. Raises BadFileError."""
    path, told = _told(weights, sha256_of)
    return recorded_chain(told, path, hint=EXPORT_AGAIN) if told else licences.chain(None)


def told_of(weights: Path, sha256_of: Callable[[Path], str]) -> dict[str, Any]:
    """What `nomoat export` wrote beside this very file; empty for another one, which may have its name. Raises BadFileError."""
    return _told(weights, sha256_of)[1]


def _told(weights: Path, sha256_of: Callable[[Path], str]) -> tuple[Path, dict[str, Any]]:
    """The sidecar of this very file, which may have been renamed since, as terms ask for a name, and what it holds."""
    own = path_of(weights)
    told = {own: read_object(own, hint=EXPORT_AGAIN)} if own.is_file() else {}
    told |= {path: _facts(path) for path in sorted(weights.parent.glob(f"*.gguf{SUFFIX}")) if path != own}
    sha256 = sha256_of(weights) if told else None
    return next(((path, facts) for path, facts in told.items() if facts.get("sha256") == sha256), (own, {}))


def recorded_chain(told: dict[str, Any], path: Path, *, hint: str) -> licences.ChainVerdict:
    """The licence chain in what the provenance file at this path told. Raises BadFileError if there is none, or one that only a newer
    nomoat understands."""
    try:
        verdicts = [link["commercial"] for link in told["licence"]["links"]]
        if unheard := [one for one in verdicts if one not in licences.STRICTEST_FIRST]:
            raise BadFileError(f"`{path}` was written by a newer nomoat: `commercial` is `{unheard[0]}` there", hint="update nomoat")
        return licences.from_dict(told["licence"])
    except (KeyError, TypeError, ValueError) as exc:
        raise BadFileError(f"`{path}` holds no licence chain under `licence`", hint=hint) from exc


def _facts(path: Path) -> dict[str, Any]:
    """What a file of that name says, if it is one of ours."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _read(path: Path, sha256: str) -> Sidecar:
    facts = _facts(path)
    try:
        written = tuple(known_fields(Parent, row) for row in facts["made_from"])
        parents = licences.as_known_now(written)
        settings = facts.get("settings")
        are_labels = isinstance(settings, dict) and "labels" in settings
        if not are_labels and any(parent.name == SEEDS for parent in parents):  # it may be of a nomoat that did not know it yet
            parents = licences.for_assistant(parents, facts["teacher"])
        notes = tuple(
            f"of {now.name}, `{path.name}` has other terms (`{then.licence}`) than are known now (`{now.licence}`)"
            for then, now in zip(written, parents, strict=True)
            if now.licence != then.licence
        )
        return Sidecar(
            teacher=facts["teacher"], parents=parents, notes=notes, is_of_this_content=facts["sha256"] == sha256, facts=facts
        )
    except (AttributeError, KeyError, TypeError) as exc:
        raise BadFileError(
            f"`{path}` should say which teacher wrote the file beside it, and does not",
            hint="run the same `nomoat distil` again with --replace (in Python: `replace`): it writes both anew",
        ) from exc
