"""A folder of the hub, pulled: first what configures the model and its words, then its weights.

The files gather in `.pull` inside the folder and are moved out when all are there, `config.json` last: a folder without it is no
model. All are of one commit of the repository, also when a pull that was cut off goes on later.

What this does not cover: servers and mirrors that name no commits, and change between two files.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nomoat import system_errors, whole_files
from nomoat.catalog.fetch import Origin, fetch
from nomoat.catalog.part import busy, require_space
from nomoat.errors import BadFileError, DownloadError, NotThereError, UnsupportedError
from nomoat.hub_folder import (
    CONFIG,
    CONFIG_FILES,
    INDEX,
    MODULES,
    NESTED,
    POOLING,
    TERMS_FILES,
    TOKENIZER_FILES,
    WEIGHTS,
    read_object,
    weight_names,
)
from nomoat.progress import FileProgress
from nomoat.records import Source

STAGE, NOTE = ".pull", ".origin"
WEIGHTS_OR_PART = re.compile(r".*\.safetensors(\.part)?")
MIRROR, NEWEST = "mirror", "newest"  # origins that are no commits
GGUF_HINT = "a GGUF file of the hub is named `hf:owner/repo/file.gguf`"

Look = Callable[[dict[str, Any]], None]


def is_whole(folder: Path) -> bool:
    """Whether a model was pulled into this folder, and its weights still lie there: whoever removes those by hand leaves the rest."""
    if not (folder / CONFIG).is_file():
        return False
    if (folder / WEIGHTS).is_file():
        return True
    try:
        return all((folder / name).is_file() for name in weight_names(read_object(folder / INDEX)))
    except BadFileError:  # of an index that cannot be read, whoever opens the model says so
        return (folder / INDEX).is_file()


def files_of(folder: Path) -> list[Path]:
    """What makes the model of this folder; GGUF files beside it are models of their own."""
    found = (*folder.glob("[!.]*"), *(folder / name for name in NESTED))
    return sorted(path for path in found if path.is_file() and path.suffix != ".gguf") if (folder / CONFIG).is_file() else []


def left_of_pull(folder: Path) -> list[Path]:
    """What a pull that was cut off has left."""
    return sorted(path for path in (folder / STAGE).rglob("*") if path.is_file())


def pull_folder(repo: str, folder: Path, *, progress: FileProgress, look_at: Look | None) -> Path:
    """Fetch `owner/repo` into `folder`; a model that is there is replaced when the new one is whole.

    `look_at` is shown `config.json` before the weights are asked for, and may raise; weights that came before stay. Raises what
    `fetch` raises, UnsupportedError for a repository without safetensors or tokenizer, BadFileError for a broken JSON file.
    """
    with held(repo, folder):
        try:
            gathering = _begin(repo, folder / STAGE, progress)
            if look_at is not None:
                look_at(gathering.read(CONFIG))
            gathering.get_all()
            with system_errors.translate_disk_errors(folder / CONFIG):
                _move_out(folder)
        except (BadFileError, UnsupportedError):  # what came of it is of no use; who looks may refuse now what he took at the last try
            if not any(WEIGHTS_OR_PART.fullmatch(path.name) for path in left_of_pull(folder)):
                shutil.rmtree(folder / STAGE)
            raise
        finally:
            _sweep(folder)
    return folder


def held(repo: str, folder: Path) -> AbstractContextManager[None]:
    """Nobody pulls or removes it within this block; raises DownloadError where somebody does."""
    return whole_files.alone(folder.with_name(repo.replace("/", "+")), busy=busy(f"hf:{repo}"))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Gathering:
    """Files of one repository on their way into the stage. `origin`: MIRROR, NEWEST or a commit."""

    repo: str
    stage: Path
    progress: FileProgress
    origin: str

    def get_all(self) -> None:
        for name in (*CONFIG_FILES, *TOKENIZER_FILES, *TERMS_FILES):
            self.get(name)
        if self.get(MODULES):
            self.get(POOLING)
        there = {name for name in TOKENIZER_FILES if (self.stage / name).is_file()}
        if not there & {"tokenizer.json", "tokenizer.model"} and not there >= {"vocab.json", "merges.txt"}:
            raise UnsupportedError(f"`hf:{self.repo}` holds no tokenizer that nomoat can read", hint=f"try a GGUF of it; {GGUF_HINT}")
        if self.get(WEIGHTS):  # as `engine.safetensors` reads it, an index beside it or not
            return
        if not self.get(INDEX):
            raise UnsupportedError(f"`hf:{self.repo}` holds no `{WEIGHTS}`", hint=f"try a GGUF of it; {GGUF_HINT}")
        index = self.read(INDEX)
        names = weight_names(index)
        facts = index.get("metadata")
        total = facts.get("total_size") if isinstance(facts, dict) else None
        if isinstance(total, int):
            here = sum(path.stat().st_size for path in self.stage.glob("*") if ".safetensors" in path.name)
            require_space(f"hf:{self.repo}", self.stage, max(0, total - here))
        for name in names:
            if not self.get(name):
                raise DownloadError(f"`hf:{self.repo}` lacks `{name}`, which its index names", hint="try another copy of this model")

    def get(self, name: str) -> bool:
        """Whether the repository has that file; it is in the stage now."""
        if not (self.stage / name).is_file():
            try:
                _fetch(self.repo, name, self.stage, self.origin, self.progress)
            except NotThereError:
                return False
        return True

    def read(self, name: str) -> dict[str, Any]:
        """A JSON file of the stage. Raises BadFileError."""
        return read_object(self.stage / name, shown=f"hf:{self.repo}/{name}")


def _begin(repo: str, stage: Path, progress: FileProgress) -> _Gathering:
    """Go on with what lies in the stage, or fetch `config.json`, which says where all the rest comes from."""
    noted = stage / NOTE
    if not (noted.is_file() and (stage / CONFIG).is_file()):
        try:
            found = _fetch(repo, CONFIG, stage, NEWEST, progress)
        except NotThereError as exc:
            raise DownloadError(f"`hf:{repo}` holds no `{CONFIG}`: it is no folder that nomoat could run", hint=GGUF_HINT) from exc
        with whole_files.whole_file(noted) as part:
            part.write_text(MIRROR if found.is_mirror else found.commit or NEWEST, newline="\n")
    return _Gathering(repo=repo, stage=stage, progress=progress, origin=noted.read_text())


def _fetch(repo: str, name: str, stage: Path, origin: str, progress: FileProgress) -> Origin:
    source = Source(
        url="mirror:" if origin == MIRROR else f"hf:{repo}/{name}",
        file_name=f"{repo}/{name}",
        revision=None if origin in (MIRROR, NEWEST) else origin,
    )
    return fetch(
        source,
        stage / name,
        purpose="pull a model",
        progress=lambda _, done_bytes, total_bytes: progress(name, done_bytes, total_bytes),
    )


def _move_out(folder: Path) -> None:
    for old in sorted(files_of(folder), key=lambda path: path.name != CONFIG):  # from here on it is no model
        old.unlink()
    for path in sorted(left_of_pull(folder), key=lambda path: path.name == CONFIG):
        if not path.name.startswith("."):
            target = folder / path.relative_to(folder / STAGE)
            target.parent.mkdir(exist_ok=True)
            whole_files.put(path, target)
    for name in NESTED:
        with suppress(OSError):  # still used, or not there
            (folder / name).parent.rmdir()
    shutil.rmtree(folder / STAGE)


def _sweep(folder: Path) -> None:
    """Remove a stage in which nothing lies but the note of its origin, and folders made for nothing."""
    if all(path.name == NOTE for path in left_of_pull(folder)):
        shutil.rmtree(folder / STAGE, ignore_errors=True)
    whole_files.remove_empty(folder)
