"""Models on this disk: pull, find, list, remove. A card's file lies in `models/ID/`, the hub's in `models/hf/OWNER/REPO/`.

The hub's repositories hold GGUF files, each a model of its own, or the one model of a folder with `config.json` (see `folders`).
"""

from __future__ import annotations

import glob
import re
import sys
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from urllib.parse import unquote, urlsplit

from nomoat import paths, system_errors, whole_files
from nomoat.catalog import cards, folders, part
from nomoat.catalog.fetch import fetch
from nomoat.errors import (
    BadFileError,
    DownloadError,
    NomoatError,
    NotEnoughDiskError,
    NotWritableError,
    OfflineError,
    UnknownModelError,
    UnsupportedError,
    UsageError,
)
from nomoat.progress import FileProgress, quiet
from nomoat.records import ModelCard, Source

HUB_HINT = "a GGUF file of the hub is named `hf:owner/repo/file.gguf`, a folder of safetensors `hf:owner/repo`"
TAG_HINT = "a quantisation is named by its file: the repository's page lists them, `hf:owner/repo/NAME-Q4_K_M.gguf`"
REVISION_HINT = (
    "`hf:owner/repo` is the newest; a GGUF file of another revision is named by its address, "
    "`https://huggingface.co/owner/repo/resolve/REVISION/file.gguf`"
)
HUB_HOSTS = ("huggingface.co", "www.huggingface.co", "hf.co")
TAGGED = re.compile(r"hf:[^/:@]+/[^/:@]+:[^/:@]+")
REVISED = re.compile(r"hf:[^/:@]+/[^/:@]+@.+")
REPOSITORY = re.compile(r"hf:([\w-][\w.-]*/[\w-][\w.-]*)(?<!\.gguf)")
HUB_FILE = re.compile(r"hf:[\w-][\w.-]*/[\w-][\w.-]*(/[^./\\:\0-\x1f][^/\\:\0-\x1f]*)+(?<=\.gguf)")
BROWSED = re.compile(r"^(/[^/]+/[^/]+)/blob/")
ADDRESS = re.compile(r"https:[^?#]*")  # up to its query, as in `m.gguf?download=true`
NO_NAME = re.compile(r"\.*|.*[\\:\0-\x1f].*", re.DOTALL)  # would lead out of a folder, on some system
NO_PART = re.compile(f"%|{paths.NOT_ON_WINDOWS.pattern}", re.IGNORECASE)  # of what Windows refuses, `%` stands for


@dataclass(frozen=True, slots=True, kw_only=True)
class Installed:
    """A model on this disk, a file or a folder. `ref` is what names it on the command line."""

    ref: str
    path: Path
    size_bytes: int


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a model belongs and where its file can be had."""

    folder: Path
    sources: tuple[Source, ...]

    def file(self) -> Path | None:
        return next((path for source in self.sources if (path := self.folder / source.file_name).is_file()), None)


def pull_model(
    card_or_ref: ModelCard | str, *, force: bool = False, progress: FileProgress = quiet, look_at: folders.Look | None = None
) -> Path:
    """Fetch a model's file or folder and return its path; what is here already is fetched again only with `force`.

    Of a split model, all parts are fetched, whichever is named. `look_at` is shown a folder's `config.json` before its weights come.

    A reference is a card's id, `hf:owner/repo/file.gguf`, `hf:owner/repo` (a folder of safetensors) or `https://host/file.gguf`.
    Raises UnknownModelError, UsageError (a closed model), UnsupportedError (no file known) and what `fetch` raises.
    """
    ref = card_or_ref if isinstance(card_or_ref, str) else card_or_ref.id
    if repo := _repository(ref):
        folder = _folder(repo)
        here = folders.is_whole(folder) and not force
        return folder if here else folders.pull_folder(repo, folder, progress=progress, look_at=look_at)
    pulled = {part: _pull_file(_place(part), force=force, progress=progress) for part in _parts(ref)}
    return pulled[ref]


def _repository(ref: str) -> str | None:
    """The `owner/repo` of a reference to a whole folder of the hub."""
    match = REPOSITORY.fullmatch(ref)
    return match[1] if match else None


def _folder(repo: str) -> Path:
    return paths.models().joinpath("hf", *repo.split("/"))


def _parts(ref: str) -> list[str]:
    """The references of all files of a split model, each with what an address has behind its file; else the reference itself."""
    address = ADDRESS.match(ref)
    end = address.end() if address else len(ref)
    folder, slash, name = ref[:end].rpartition("/")
    return [f"{folder}{slash}{part}{ref[end:]}" for part in paths.split_names(name)]


def _pull_file(place: _Place, *, force: bool, progress: FileProgress) -> Path:
    here = place.file()
    if here is not None and not force:
        return here
    failure: NomoatError | None = None
    for source in place.sources:
        try:
            fetch(source, place.folder / source.file_name, purpose="pull a model", progress=progress)
            return place.folder / source.file_name
        except (DownloadError, OfflineError) as exc:
            failure = failure or exc  # the first source is the best one, and so is its reason
    assert failure is not None
    raise failure


def require_source(ref: str) -> None:
    """Raise, as `pull_model` would, if a reference names nothing that can be pulled."""
    if not _repository(ref):
        _place(ref)


def find_installed(ref: str) -> Path | None:
    """Where the model of that reference lies, if it is pulled: a split one with all its parts."""
    if repo := _repository(ref):
        return _folder(repo) if folders.is_whole(_folder(repo)) else None
    try:
        here = {part: _place(part).file() for part in _parts(ref)}
    except NomoatError:
        return None
    return here[ref] if all(here.values()) else None


def card_of(weights: Path, sha256_of: Callable[[Path], str]) -> ModelCard | None:
    """The card of these weights, wherever they lie: they were pulled under its id, or have its sha256. A name says nothing."""
    here, root = weights.absolute(), paths.models().absolute()
    card = cards.find(here.relative_to(root).parts[0]) if here.parent.is_relative_to(root) else None
    if card is not None and (installed := find_installed(card.id)) and installed.absolute() == here:
        return card
    sha256 = sha256_of(weights)
    return next((card for card in cards.cards() if any(source.sha256 == sha256 for source in card.sources)), None)


def require_as_published(weights: Path, sha256_of: Callable[[Path], str]) -> None:
    """Raise BadFileError if this is a card's file, where `pull_model` put it, and has another sha256 than the card names.

    One of another size is not read for that.
    """
    folder = weights.absolute().parent
    card = cards.find(folder.name) if folder.parent == paths.models().absolute() else None
    published = [source for source in card.sources if source.file_name == weights.name] if card else []
    if card is None or not published or any(source.sha256 is None for source in published):
        return
    sizes, size = [source.size_bytes for source in published], weights.stat().st_size
    if None not in sizes and size not in sizes:
        wrong = f"it has {size:,} bytes, not {sizes[0]:,}"
    else:
        wrong = "" if sha256_of(weights) in {source.sha256 for source in published} else "its sha256 is another one"
    if wrong:
        raise BadFileError(
            f"`{weights}` is not the file that the catalogue names for `{card.id}`: {wrong}",
            hint=f"it was damaged or replaced since it was pulled; fetch it again: `nomoat pull {card.id} --force`",
        )


def installed() -> list[Installed]:
    """Every pulled model; a split one under the first of its parts that are here."""
    root = paths.models()
    files = (path for path in root.rglob("[!.]*.gguf") if [path] == _parts_here(path)[:1])
    models = sorted([*files, *(folder for folder in root.glob("hf/*/*") if folders.is_whole(folder))])
    return [Installed(ref=_ref(path.relative_to(root)), path=path, size_bytes=size_bytes(path)) for path in models]


def size_bytes(path: Path) -> int:
    """Of a pulled model's file, with the other parts of a split one, or of its folder's files."""
    return sum(file.stat().st_size for file in (folders.files_of(path) if path.is_dir() else _parts_here(path)))


def _parts_here(path: Path) -> list[Path]:
    """The parts of a split model that lie beside this one, itself included; else the file itself."""
    return [part for name in paths.split_names(path.name) if (part := path.with_name(name)).is_file()]


def remove(ref: str, *, first: Callable[[], int] = lambda: 0) -> int:
    """Remove a pulled model, and what is left of a pull that was cut off. Returns the bytes that got free.

    `first` is done before, when nobody else is at the model, and returns the bytes that it freed. Raises what `require_here` raises,
    and DownloadError while it is being pulled.
    """
    require_here(ref)
    with ExitStack() as held:
        if repo := _repository(ref):
            with suppress(NotEnoughDiskError, NotWritableError):  # of the lock: what is removed may be what fills the disk
                held.enter_context(folders.held(repo, _folder(repo)))
        else:
            for target in _targets(ref):
                held.enter_context(part.held(target))
        freed = first()
        doomed = _files(ref)
        freed += sum(path.stat().st_size for path in doomed)
        for path in doomed:
            with system_errors.translate_disk_errors(path, to="remove"):
                path.unlink()
    for folder in {path.parent for path in doomed}:
        whole_files.remove_empty(folder)
    return freed


def require_here(ref: str) -> None:
    """Raise UnknownModelError if there is nothing for `remove`."""
    if not _files(ref):
        here = ", ".join(f"`{model.ref}`" for model in installed())
        raise UnknownModelError(f"no model called `{ref}` is pulled", hint=f"pulled: {here}" if here else "nothing is pulled yet")


def _files(ref: str) -> list[Path]:
    """What is here of a model, and of a pull of it that was cut off."""
    if repo := _repository(ref):
        return [*folders.files_of(_folder(repo)), *folders.left_of_pull(_folder(repo))]
    found = (path for target in _targets(ref) for path in (target, *target.parent.glob(f".{glob.escape(target.name)}.part*")))
    return [path for path in found if path.is_file()]


def bytes_arrived(ref: str) -> int:
    """What is here already of a card's file, of a pull that was cut off."""
    return sum(path.stat().st_size for target in _targets(ref) if (path := part.path_of(target)).is_file())


def _targets(ref: str) -> list[Path]:
    """Where the files of a model belong."""
    try:
        places = [_place(one) for one in _parts(ref)]
    except NomoatError:
        return []
    return [place.folder / source.file_name for place in places for source in place.sources]


def _place(ref: str) -> _Place:
    card = cards.find(ref)
    if card is not None:
        _require_source(card)
        return _Place(paths.models() / card.id, card.sources)
    scheme, _, rest = ref.partition(":")
    if scheme == "hf":
        if not HUB_FILE.fullmatch(ref):
            hint = TAG_HINT if TAGGED.fullmatch(ref) else REVISION_HINT if REVISED.fullmatch(ref) else HUB_HINT
            raise UsageError(f"`{ref}` names no file of the hub", hint=hint)
        parts = tuple(map(_name, rest.split("/")))
        return _Place(paths.models().joinpath("hf", *parts[:-1]), (Source(url=ref, file_name=parts[-1]),))
    if scheme == "https":
        try:
            url = urlsplit(ref)
        except ValueError as exc:
            raise UsageError(f"`{ref}` is no address: {exc}", hint="give it as the server's page does") from exc
        if "@" in url.netloc:
            raise UsageError(
                f"an address holds no user and no password (`https://{url.netloc.rpartition('@')[2]}`)",
                hint="nomoat gives no login: fetch the file yourself, and name its path",
            )
        is_hub = url.netloc.lower() in HUB_HOSTS
        if is_hub:  # a browser shows the file's page
            url = url._replace(path=BROWSED.sub(r"\1/resolve/", url.path))
        parts = PurePosixPath(unquote(url.path)).parts[1:]
        names = (url.netloc.replace(":", ""), *parts)
        if not url.hostname or not parts or any(map(NO_NAME.fullmatch, names)) or not parts[-1].endswith(".gguf"):
            raise UsageError(f"`{ref}` names no GGUF file", hint=HUB_HINT if is_hub else "the address has to end in .gguf")
        return _Place(
            paths.models().joinpath("https", *map(_name, (url.netloc, *parts[:-1]))),
            (Source(url=url.geturl() if is_hub else ref, file_name=_name(parts[-1])),),
        )
    raise UnknownModelError(f"no model is called `{ref}`", hint=_hint_instead(ref))


def _hint_instead(ref: str) -> str:
    """For what is no reference; Ollama and LM Studio name repositories of the hub without `hf:`."""
    host, _, behind = ref.partition("/")
    is_hub = host.lower() in HUB_HOSTS
    if TAGGED.fullmatch(f"hf:{behind if is_hub else ref}"):
        return TAG_HINT
    if is_hub:
        return HUB_HINT
    return f"there is no such path; {HUB_HINT}" if REPOSITORY.fullmatch(f"hf:{ref}") else cards.nearest_hint(ref)


def _name(part: str) -> str:
    """Of a file or folder, for a part of a reference. Where Windows would not take it, `%3A` stands for `:`, and so on."""
    return NO_PART.sub(lambda found: f"%{ord(found[0][0]):02X}{found[0][1:]}", part) if sys.platform == "win32" else part


def _ref(path: Path) -> str:
    match tuple(map(unquote, path.parts)) if sys.platform == "win32" else path.parts:
        case ("hf", *rest):
            return "hf:" + "/".join(rest)
        case ("https", *rest):
            return "https://" + "/".join(rest)
        case (name, *_):
            return name
    raise ValueError(f"{path} lies nowhere")


def _require_source(card: ModelCard) -> None:
    if card.kind == "closed":
        hint = f"ask it as `{card.api}`" if card.api else card.notes
        raise UsageError(f"`{card.id}` is a closed model: its weights were never published", hint=hint)
    if not card.sources:
        raise UnsupportedError(f"nomoat knows no GGUF file of `{card.id}`", hint=card.notes)
