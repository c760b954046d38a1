"""Every error is in `errors.py`, and in the tree at its top."""

from __future__ import annotations

import ast
import re
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
