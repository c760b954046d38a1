"""Answers of code: what in an answer is the code, and whether it passes its tests."""

from __future__ import annotations

import ast
import itertools
import re
import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from nomoat import hardware
from nomoat.judge import sandbox
from nomoat.judge.examples import ANSWER
from nomoat.records import Example

FENCED = re.compile(r"^[ \t]*```(?P<language>[\w+.-]*)[ \t]*\r?\n(?P<code>.*?)(?:^[ \t]*```|\Z)", re.MULTILINE | re.DOTALL)
PYTHON = re.compile(r"py(?:thon)?[\d.]*", re.IGNORECASE)  # as a block names its language
FUTURE = re.compile(r"(?:from __future__ import .*\n)+")
MAX_LINES_LEFT_OUT = 200
FENCE_AFTER = re.compile(r"^[ \t]*```", re.MULTILINE)


def run_answers(pairs: Sequence[tuple[Example, str]], *, chat: bool) -> list[sandbox.Ran]:
    """How each answer ended with the tests of its example: of several targets by the first that it passes, else by the first.

    Several run at once. Raises UnsupportedError.
    """
    # Of a text that is read without a file's name: what Python thinks of an answer's style is nobody's matter here.
    warnings.filterwarnings("ignore", module="<unknown>")
    programs = [
        (at, _around(target, code_in(answer)) if chat else target.replace(ANSWER, continued_code(answer), 1))
        for at, (example, answer) in enumerate(pairs)
        for target in (example.target, *example.other_targets)
    ]
    ended: dict[int, sandbox.Ran] = {}
    with ThreadPoolExecutor(max_workers=hardware.cpus()) as pool:  # more at once would share each program's time
        for at, ran in pool.map(lambda program: (program[0], sandbox.run_python(program[1])), programs):
            if at not in ended or (ran.passed and not ended[at].passed):
                ended[at] = ran
    return [ended[at] for at in range(len(pairs))]


def _around(target: str, code: str) -> str:
    """The program that tests an answer, with its code in it. What code begins by importing from `__future__`, Python wants first."""
    first = FUTURE.match(f"{code}\n")
    if first is None:
        return target.replace(ANSWER, code, 1)
    return first[0] + target.replace(ANSWER, code[first.end() :], 1)


def code_in(answer: str) -> str:
    """The code of an answer, without what only shows how to use it: its first fenced block that says it is Python, else the first
    that names no language and is Python, else the first; all of it if there is none. Those that define something come first.

    Left out are lines at the end that are no Python, and at the top level asserts, prints, texts, and expressions behind the last
    function, class or lambda with a name: an answer's own examples are not what was asked for, and may be wrong. An expression before
    that, or where there is none of these, may do what is needed, as a call does.
    """
    blocks = [*FENCED.finditer(answer)]
    named = [block["code"] for block in blocks if PYTHON.fullmatch(block["language"])]
    parsed = [block["code"] for block in blocks if not block["language"] and _is_python(block["code"])]
    defining = (code for code in (*named, *parsed) if (tree := _parsed(code)) is not None and any(map(_defines, tree.body)))
    return _without_examples(next(itertools.chain(defining, named, parsed, (block["code"] for block in blocks)), answer))


def continued_code(answer: str) -> str:
    """A text that goes on where code ended, up to a fence that closes it."""
    return FENCE_AFTER.split(answer, maxsplit=1)[0]


def _without_examples(code: str) -> str:
    tree = _parsed(code)
    if tree is None:
        return code  # its test will say so
    last = max((at for at, node in enumerate(tree.body) if _defines(node)), default=len(tree.body))
    kept = [node for at, node in enumerate(tree.body) if not _shows(node) and not (isinstance(node, ast.Expr) and at > last)]
    try:
        return ast.unparse(ast.Module(body=kept, type_ignores=[]))
    except (RecursionError, ValueError):  # `1 + 1 + …`, hundreds of them; a number of thousands of digits, as 0x…
        return code


def _defines(node: ast.stmt) -> bool:
    """Whether a statement is a function, a class, or `NAME = lambda …`."""
    if isinstance(node, ast.Assign | ast.AnnAssign):
        return isinstance(node.value, ast.Lambda)
    return isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)


def _is_python(code: str) -> bool:
    tree = _tree(code)
    return tree is not None and bool(tree.body)


def _tree(code: str) -> ast.Module | None:
    """None if it is not Python, or more than can be read."""
    try:
        return ast.parse(code)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


def _shows(node: ast.stmt) -> bool:
    """Whether a statement only shows something, wherever it stands: an assert, a print, a text."""
    match node:
        case ast.Assert() | ast.Expr(ast.Constant() | ast.Call(ast.Name("print"))):
            return True
    return False


def _parsed(code: str) -> ast.Module | None:
    """As many of the code's first lines as are Python: what stands below the function, or where the answer was cut, may be none.

    Source: EvalPlus's sanitizer, which takes the longest run of lines that parses.
    """
    lines = code.splitlines(keepends=True)
    ends = range(len(lines), max(0, len(lines) - MAX_LINES_LEFT_OUT), -1)
    return next((tree for end in ends if (tree := _tree("".join(lines[:end]))) is not None), None)
