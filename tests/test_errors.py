"""Every error is in `errors.py`, and in the tree at its top."""

from __future__ import annotations

import ast
import copy
import pickle
import re
import traceback
from pathlib import Path

from nomoat import errors


def test_tree_shows_every_error_below_its_base() -> None:
    drawn: dict[str, str] = {}
    above: list[str] = []
    for line in (errors.__doc__ or "").splitlines():
        if found := re.match(r"(?P<lines>[│├└─ ]*)(?P<name>\w+Error)  ", line):
            depth = len(found["lines"]) // 4
            above[depth:] = [found["name"]]
            drawn[found["name"]] = above[depth - 1] if depth else "Exception"
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, errors.NomoatError)]
    assert drawn == {kind.__name__: kind.__base__.__name__ for kind in kinds if kind.__base__}


def test_a_traceback_ends_in_what_to_do_and_the_text_of_the_error_does_not() -> None:
    error = errors.BadFileError("`m.gguf` is cut off", hint="pull it again")
    lines = "".join(traceback.format_exception(error)).splitlines()
    assert lines == ["nomoat.errors.BadFileError: `m.gguf` is cut off", "hint: pull it again"]
    assert str(error) == error.message


def test_a_traceback_has_the_hint_of_now_beside_notes_of_others() -> None:
    error = errors.BadFileError("no", hint="pull it again")
    error.add_note("while reading the third")
    for same in (copy.copy(error), pickle.loads(pickle.dumps(error))):
        same.hint = f"there: {same.hint}"
        assert same.__notes__ == ["hint: there: pull it again", "while reading the third"]
        same.hint = None
        assert same.__notes__ == ["while reading the third"]
    assert error.__notes__ == ["hint: pull it again", "while reading the third"]


def test_no_other_file_has_errors_of_its_own() -> None:
    files = Path(errors.__file__).parent.rglob("*.py")
    classes = [
        (path.name, node.name)
        for path in files
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.ClassDef) and any(hasattr(errors, ast.unparse(base).rpartition(".")[2]) for base in node.bases)
    ]
    assert [name for file, name in classes if file != "errors.py"] == []
    assert len(classes) > 20


def test_a_copy_s_notes_are_its_own() -> None:
    error = errors.UsageError("meant", hint="so")
    copied = copy.copy(error)
    copied.add_note("of one request")
    assert error.__notes__ == ["hint: so"]
