"""Files that appear whole or not at all, and places that cannot be written."""

from __future__ import annotations

from pathlib import Path

import pytest

from nomoat import paths
from nomoat.errors import NotWritableError


@pytest.mark.parametrize("name", ["m.gguf", "m-00003-of-00002.gguf", "m-00000-of-00000.gguf", "m-1-of-2.gguf"])
def test_a_name_that_is_no_part_s_is_that_of_a_whole(name: str) -> None:
    assert paths.split_names(name) == [name]


def test_a_file_below_a_file_cannot_be_written_and_the_place_is_named(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("")
    with pytest.raises(NotWritableError) as caught, paths.whole_file(tmp_path / "a" / "b" / "report.html"):
        pass
    message = f"cannot write `{tmp_path}/a/b/report.html`: Not a directory (`{tmp_path}/a/b`)"
    hint = "check that its folder is yours, or choose another place"
    assert (caught.value.message, caught.value.hint) == (message, hint)


def test_a_missing_file_that_is_read_meanwhile_is_not_blamed_on_the_place(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), paths.whole_file(tmp_path / "out" / "x"):
        (tmp_path / "elsewhere" / "missing").read_text()
