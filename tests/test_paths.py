"""Where nomoat keeps its files, and whose they are."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from nomoat import paths, system_errors, whole_files
from nomoat.asking.store import AnswerStore
from nomoat.catalog.part import part_of
from nomoat.errors import UsageError


@pytest.mark.parametrize("name", ["m.gguf", "m-00003-of-00002.gguf", "m-00000-of-00000.gguf", "m-1-of-2.gguf"])
def test_a_name_that_is_no_part_s_is_that_of_a_whole(name: str) -> None:
    assert paths.split_names(name) == [name]


def test_the_parts_of_a_split_file_keep_their_ending() -> None:
    assert paths.split_names("m-00002-of-00002.GGUF") == ["m-00001-of-00002.GGUF", "m-00002-of-00002.GGUF"]


@pytest.fixture
def usual_umask() -> Iterator[None]:
    before = os.umask(0o022)
    yield
    os.umask(before)


def mode_of(folder: Path) -> int:
    return folder.stat().st_mode & 0o777


@pytest.mark.skipif(os.name != "posix", reason="modes are POSIX's")
@pytest.mark.usefixtures("usual_umask")
@pytest.mark.parametrize("make", ["file", "folder", "place", "lock", "pulled", "answers"])
def test_the_home_is_made_for_its_owner_alone(make: str, empty_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever makes it, below folders that are not there either."""
    home = tmp_path / "above" / "home"
    monkeypatch.setenv("NOMOAT_HOME", str(home))
    target = home / "below" / "it"
    makers = {
        "file": lambda: whole_files.whole_file(target), "folder": lambda: whole_files.whole_folder(target),
        "lock": lambda: whole_files.alone(target),
        "pulled": lambda: part_of(target, "pull a model", lambda _done, _all: None), "answers": AnswerStore,
    }  # fmt: skip
    if make == "place":
        system_errors.require_writable(target)
    else:
        with makers[make]() as part:
            if make == "file":
                part.touch()
    assert (mode_of(home), mode_of(home.parent)) == (0o700, 0o755)
    assert not empty_home.exists()


@pytest.mark.skipif(os.name != "posix", reason="modes are POSIX's")
@pytest.mark.usefixtures("usual_umask")
def test_a_home_that_is_there_stays_as_open_as_it_is(empty_home: Path) -> None:
    empty_home.mkdir()
    AnswerStore().close()
    assert (mode_of(empty_home), mode_of(empty_home / "runs")) == (0o755, 0o700)
    (empty_home / "runs").chmod(0o750)
    AnswerStore().close()
    assert mode_of(empty_home / "runs") == 0o750


@pytest.mark.skipif(sys.platform == "win32", reason="Windows does not ask HOME")
def test_an_empty_home_is_one_that_is_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    import pwd

    monkeypatch.delenv("NOMOAT_HOME")
    monkeypatch.setenv("HOME", "")
    assert paths.home() == Path(pwd.getpwuid(os.getuid()).pw_dir) / ".nomoat"
    assert paths.expanded("/a/~") == Path("/a/~")
    monkeypatch.setattr("pwd.getpwuid", {}.__getitem__)  # as in a container, which knows no such user
    with pytest.raises(UsageError) as caught:
        paths.home()
    assert (caught.value.message, caught.value.hint) == ("`~/.nomoat`: no home folder is known for `~`", "give NOMOAT_HOME instead")


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere names are Unicode")
def test_a_home_that_is_no_utf_8_is_refused_at_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("NOMOAT_HOME", os.fsdecode(os.fsencode(tmp_path) + b"/\xb8\xf0"))
    with pytest.raises(UsageError, match="is not UTF-8") as caught:
        paths.require_home()
    caught.value.message.encode()
    assert caught.value.hint == "set it to a folder of yours with another name"


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere names are Unicode")
def test_a_home_of_utf_8_is_told_apart_from_a_locale_that_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """Python reads such names with half characters where it was told to do without UTF-8 (PYTHONUTF8=0)."""
    monkeypatch.setattr(paths, "home", lambda: Path("/srv/해자".encode().decode("ascii", "surrogateescape")))
    with pytest.raises(UsageError) as caught:
        paths.require_home()
    assert caught.value.message == "NOMOAT_HOME is `/srv/해자`, which is UTF-8, and this locale's encoding is not"
    assert caught.value.hint == "set a locale of UTF-8 (`LC_ALL=C.UTF-8`), or PYTHONUTF8=1"
