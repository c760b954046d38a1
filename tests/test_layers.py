"""Who may import whom, as CONTRIBUTING.md draws it: a part imports from lower layers only; those of layer 1 also from each other."""

from __future__ import annotations

import ast
import functools
import inspect
import re
from collections.abc import Iterator
from pathlib import Path

import nomoat
from nomoat import errors

ROOT = Path(nomoat.__file__).parent
PAGE = (Path(__file__).parents[1] / "CONTRIBUTING.md").read_text(encoding="utf-8")
ROWS = re.findall(r"^(\d)  (.+?)(?:   .*)?$", PAGE, re.MULTILINE)  # what is said of a layer stands three spaces to the right
LAYERS = {name.removesuffix("/"): int(layer) for layer, names in ROWS for name in names.split()} | {"__main__": 8}
# A package's name for itself: the list of public functions, imported when they are asked for.
PUBLIC_SURFACE = "__init__"


@functools.cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def imports_of(path: Path) -> set[str]:
    """Names of nomoat's parts that a file imports, at its top or late."""
    found: set[str] = set()
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[1] for alias in node.names if alias.name.startswith("nomoat.")}
        elif isinstance(node, ast.ImportFrom) and node.module == "nomoat":
            found |= {alias.name for alias in node.names if alias.name in LAYERS}
        elif isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("nomoat."):
            found.add(node.module.split(".")[1])
    return found


def part_of(path: Path) -> str:
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


FILES = sorted(path for path in ROOT.rglob("*.py") if part_of(path) != PUBLIC_SURFACE)


def test_the_drawing_shows_each_part_and_no_other() -> None:
    assert {part_of(path) for path in FILES} == set(LAYERS)


def test_imports_go_down() -> None:
    for path in FILES:
        own = part_of(path)
        for other in imports_of(path) - {own}:
            assert LAYERS[other] < LAYERS[own] or LAYERS[own] == LAYERS[other] == 1, f"{path}: {own} imports {other}"


def texts_of(tree: ast.AST) -> list[tuple[int, str]]:
    """The line and the words of each text of a file but its docstrings; `x` stands for what an f-string only names."""
    docstrings = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    parts = {id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in ast.walk(node) if part is not node}
    texts = [node for node in ast.walk(tree) if isinstance(node, ast.JoinedStr | ast.Constant) and id(node) not in docstrings | parts]
    return [(node.lineno, words_of(node)) for node in texts]


def words_of(node: ast.AST) -> str:
    if isinstance(node, ast.JoinedStr):
        return "".join(words_of(part) for part in node.values)
    said = "".join(one.value for one in ast.walk(node) if isinstance(one, ast.Constant) and isinstance(one.value, str))
    return said or ("x" if isinstance(node, ast.FormattedValue) else "")


def test_the_check_sees_options_in_texts_of_every_form() -> None:
    code = """def f():
    "Leave out --rank."
    return "--rank", f"--{name}", f"--{name}-column", f"leave {'--rank' if name else ''} out", f"{a}-{b}"
"""
    assert [said for _, said in texts_of(ast.parse(code))] == ["--rank", "--x", "--x-column", "leave --rank out", "x-x"]


def test_the_check_sees_imports_of_every_form(tmp_path: Path) -> None:
    path = tmp_path / "x.py"
    path.write_text("import nomoat.tune.train\nfrom nomoat import paths\ndef f():\n    from nomoat.judge.run import duel\n")
    assert imports_of(path) == {"tune", "paths", "judge"}


# Modules that Windows' Python does not have, and one of ours that needs them.
POSIX_ONLY = {"fcntl", "grp", "pty", "pwd", "resource", "sandbox_child", "syslog", "termios", "tty"}


def test_what_windows_lacks_is_imported_where_it_is_used_alone() -> None:
    """`eval` and `duel` once ended there before they had begun."""
    for path in (path for path in FILES if path.stem not in POSIX_ONLY):
        for node in tree_of(path).body:
            if isinstance(node, ast.Import | ast.ImportFrom):
                assert not POSIX_ONLY & {name for alias in node.names for name in alias.name.split(".")}, f"{path}:{node.lineno}"


def test_a_text_is_written_alike_on_every_system_and_files_get_their_names_in_one_place() -> None:
    """Windows writes other line ends where none is named, and renames nothing that is open: see `whole_files.put`."""
    for path in (path for path in FILES if path.stem not in POSIX_ONLY):
        for node in ast.walk(tree_of(path)):
            match node:
                case ast.Call(ast.Attribute(attr="write_text"), keywords=named):
                    assert "newline" in {keyword.arg for keyword in named}, f"{path}:{node.lineno}"
                case ast.Call(ast.Attribute(ast.Name("os"), "replace" | "rename")):
                    assert path.name == "whole_files.py", f"{path}:{node.lineno}"


def calls() -> Iterator[tuple[Path, ast.Call, str]]:
    """What is called by a bare name: in which file, and the name."""
    for path in FILES:
        for node in ast.walk(tree_of(path)):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                yield path, node, node.func.id


def test_what_an_error_says_names_no_option_of_the_command_line_to_those_who_call_from_python() -> None:
    """A hint may, beside what Python has in its place."""
    for path, call, name in calls():
        if part_of(path) != "cli" and name.endswith("Error") and call.args:
            said = " ".join(words for _, words in texts_of(call.args[0]))
            assert not re.search(r"(?<![\w-])--?[a-z]", said), f"{path}:{call.lineno}"


TAKE_A_HINT = {
    name
    for name, kind in vars(errors).items()
    if isinstance(kind, type) and issubclass(kind, errors.NomoatError) and "hint" in inspect.signature(kind).parameters
}


def test_every_error_says_what_to_do() -> None:
    """`hint=None` is for those that no user sees."""
    for path, call, name in calls():
        assert name not in TAKE_A_HINT or any(keyword.arg == "hint" for keyword in call.keywords), f"{path}:{call.lineno}"


CALLED_FROM_PYTHON = ("asking", "distil", "judge", "route", "serve", "tables", "tune")


def test_what_names_an_option_names_what_python_has_in_its_place() -> None:
    for path in (path for path in FILES if part_of(path) in CALLED_FROM_PYTHON):
        for line, said in texts_of(tree_of(path)):
            bare = re.sub("`(?:nomoat|ray) [^`]*`|var\\(--[a-z]+\\)", "", said)  # whole commands, colours of a page
            assert "in Python" in said or not re.search(r"(?<![\w-])--[a-z]", bare), f"{path}:{line}"


def test_functions_stay_short_enough_to_read() -> None:
    for path in FILES:
        for node in ast.walk(tree_of(path)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                assert (node.end_lineno or 0) - node.lineno < 70, f"{path}:{node.lineno} {node.name}"
