"""One file out of an archive."""

from __future__ import annotations

import shutil
import tarfile
import zipfile
import zlib
from pathlib import Path
from typing import IO, BinaryIO

from nomoat import paths
from nomoat.errors import BadFileError

NESTED = "!"  # `outer.tar.gz!inner/file`: a member of an archive that is itself a member


def extract(archive: Path, member: str, file: BinaryIO) -> None:
    """Write a member of a zip, a wheel or a tar to `file`. Raises BadFileError."""
    outer, _, inner = member.partition(NESTED)
    try:
        if zipfile.is_zipfile(archive):
            with zipfile.ZipFile(archive) as opened, opened.open(outer) as stream:
                _copy(stream, inner, file)
        else:
            with tarfile.open(archive) as opened_tar:
                _copy(_tar_member(opened_tar, outer), inner, file)
    # NotImplementedError: compressed in a way that `zipfile` does not know, also by a damaged number
    except (KeyError, tarfile.TarError, zipfile.BadZipFile, zlib.error, NotImplementedError, EOFError) as exc:
        hint = "run the command again; if that does not help, report this: the catalogue is wrong"
        raise BadFileError(f"`{archive.name}` holds no readable `{member}`", hint=hint) from exc


def _copy(stream: IO[bytes], inner: str, file: BinaryIO) -> None:
    if not inner:
        shutil.copyfileobj(stream, file, paths.READ_BLOCK_BYTES)
        return
    with tarfile.open(fileobj=stream, mode="r|*") as nested:
        for entry in nested:
            if entry.name == inner:
                shutil.copyfileobj(_tar_member(nested, entry), file, paths.READ_BLOCK_BYTES)
                return
    raise KeyError(inner)


def _tar_member(archive: tarfile.TarFile, member: str | tarfile.TarInfo) -> IO[bytes]:
    stream = archive.extractfile(member)
    if stream is None:  # a folder
        raise KeyError(str(member))
    return stream
