"""Answers of code: what in an answer is the code, and whether it passes its tests."""

from __future__ import annotations

import ast
import builtins
import functools
import itertools
import re
import symtable
import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

from nomoat import hardware
from nomoat.judge import sandbox
from nomoat.judge.examples import ANSWER, code_target
from nomoat.records import Example

# As CommonMark has it: a fence of at least three, which one alike ends that is indented no deeper, or by up to three. One that says
# it is Python ends a block and begins another: what should have ended it was indented deeper, or is missing.
FENCED = re.compile(
    r"^(?P<indent>[ \t]*)(?P<fence>`{3,}|~{3,})(?P<info>[^\n`]*)\n(?P<code>.*?)"
    r"(?:(?=^(?:(?P=indent)| {0,3})(?P=fence)[ \t{.]*(?i:py))|^(?:(?P=indent)| {0,3})(?P=fence)|\Z)",
    re.MULTILINE | re.DOTALL,
)
FENCES_WITHIN = 3  # one in another, as of a page of Markdown with a program in it
PYTHON = re.compile(r"[{.\s]*py(?:thon)?[\d.]*(?![\w-])", re.IGNORECASE)  # as a block says: `python title="a.py"`, `{.python}`
BEGINNING = re.compile(r"^(?:(?:async )?def |class |import |from [\w.]+ import |@\w)", re.MULTILINE)  # of code below words
WORD_ABOVE = re.compile(r"\A\s*\w+[ \t\r]*\n")  # as `Solution`, which would be a name of Python's
ASSERT = re.compile(r"^assert\b", re.MULTILINE)
FIRST_INDENT = re.compile(r"^[ \t]*(?=\S)", re.MULTILINE)
FUTURE = re.compile(r"(?:from __future__ import .*\n)+")
MAX_LINES_LEFT_OUT = 200
STANDS = ("pass", "x", "def x(): pass", "+")  # for an answer: a statement, a value or name, below a decorator, between values
SOON = sandbox.Limits(cpu_seconds=1, wall_seconds=2.0)  # what calls nothing needs no more
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
    that names no language and is Python, else all of it if that is Python, else the first block; all of it if there is none. Those
    that define something come first, then any other block that does, then what does so outside of blocks, without words above an
    import, function or class.

    Left out are lines at the end that are no Python, and at the top level asserts, prints, texts, and expressions behind the last
    function, class or lambda with a name: an answer's own examples are not what was asked for, and may be wrong. An expression before
    that, or where there is none of these, may do what is needed, as a call does. Where there is nothing else, all of it stays.
    """
    blocks = [*_blocks(answer, FENCES_WITHIN)]
    named = [code for info, code in blocks if PYTHON.match(info)]
    parsed = [code for info, code in blocks if not info and _is_python(code)]
    others = [code for _, code in blocks]
    defining = filter(_has_definition, (*named, *parsed, *others, _unfenced(answer)))
    whole = [answer] if _is_python(answer) else []  # a line of `~` in a text is no fence
    return _without_examples(next(itertools.chain(defining, named, parsed, whole, others), answer))


def _unfenced(answer: str) -> str:
    """An answer from its first import, function or class on; all of it behind a first line of one word if that defines something, or
    there is none.

    What stands in a block is passed over, as the lines above it are code, too, but for a block's first line: a function whose text
    holds a fence may be a block cut in two.
    """
    answer = WORD_ABOVE.sub("", answer)
    if _has_definition(answer):
        return answer
    within = [block.span("code") for block in FENCED.finditer(answer)]
    starts = (found.start() for found in BEGINNING.finditer(answer))
    return answer[next((at for at in starts if not any(first < at < last for first, last in within)), 0) :]


def _blocks(text: str, depth: int) -> Iterator[tuple[str, str]]:
    """What each fenced block says it is, and its code; behind a block that defines nothing those within it."""
    for block in FENCED.finditer(text) if depth else ():
        code = _outdented(block["code"], len(block["indent"]))
        yield block["info"].strip(), code
        if not _has_definition(code):
            yield from _blocks(code, depth - 1)


def _outdented(code: str, width: int) -> str:
    """A block's code without that much of its indent, as in an item of a list; all of it if its first line is indented less."""
    first = FIRST_INDENT.search(code)
    width = min(width, len(first[0])) if first else 0
    return re.sub(rf"^[ \t]{{1,{width}}}", "", code, flags=re.MULTILINE) if width else code


def broken_program(target: str, *, chat: bool) -> str:
    """Why this is no Python program with a place for an answer's code; empty if it is one, whatever stands in that place. Without
    `chat` an answer may go on within a line, so that nothing but the place is looked for.
    """
    if ANSWER not in target:
        return f"has a target without {ANSWER} before its tests, where the answer's code goes"
    if not chat:
        return ""
    with warnings.catch_warnings(action="ignore"):  # what Python thinks of the style of tests
        indents = dict.fromkeys(("", *re.findall(r"^[ \t]+", target, re.MULTILINE)))
        bodies = (f"{indent}{more}pass" for indent in indents for more in ("", "    ", "\t"))  # below `def f():`, or another line
        if any(_tree(target.replace(ANSWER, code)) is not None for code in (*STANDS, *bodies)):
            return ""
    return "has a target that is no Python program, whatever stands for {answer}: no other language is run"


def tests(texts: Sequence[str]) -> str:
    """The program that puts an answer to tests: texts of Python with an assert at the top level, without the answer's place. Empty
    if they are something else: a function that nobody calls, or a solution, which needs no name but its own.
    """
    whole = "\n".join(texts)
    if ANSWER in whole or not ASSERT.search(whole):
        return ""
    with warnings.catch_warnings(action="ignore"):
        tree = _tree(whole)
        are_tests = tree is not None and any(isinstance(node, ast.Assert) for node in tree.body) and bool(_needed_names(whole))
    return code_target(before="", after=whole).lstrip() if are_tests else ""


def _needed_names(program: str) -> set[str]:
    """The names that a program uses and neither sets nor imports, and that are none of Python's."""
    try:
        tables = [symtable.symtable(program, "answer.py", "exec")]
    except (SyntaxError, RecursionError):
        return set()
    own = {one.get_name() for one in tables[0].get_symbols() if one.is_assigned() or one.is_imported()}
    for table in tables:
        tables.extend(table.get_children())
    used = {one.get_name() for table in tables for one in table.get_symbols() if one.is_global() or table is tables[0]}
    return used - own - {*dir(builtins)}


def passing_unanswered(examples: Sequence[Example]) -> dict[str, bool]:
    """Whether the tests of each example, by its id, pass without an answer. Several run at once."""
    with ThreadPoolExecutor(max_workers=hardware.cpus()) as pool:
        passing = pool.map(passes_unanswered, [example.target for example in examples])
        return {example.id: passes for example, passes in zip(examples, passing, strict=True)}


@functools.lru_cache(maxsize=4096)
def passes_unanswered(target: str) -> bool:
    """Whether a program that tests an answer soon runs to its end without one: its tests are never called, as pytest's functions."""
    return sandbox.run_python(target.replace(ANSWER, "", 1), limits=SOON).passed


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
        return ast.unparse(ast.Module(body=kept or tree.body, type_ignores=[]))  # a value may be all that is asked for
    except (RecursionError, ValueError):  # `1 + 1 + …`, hundreds of them; a number of thousands of digits, as 0x…
        return code


def _defines(node: ast.stmt) -> bool:
    """Whether a statement is a function, a class, or `NAME = lambda …`."""
    if isinstance(node, ast.Assign | ast.AnnAssign):
        return isinstance(node.value, ast.Lambda)
    return isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)


def _has_definition(code: str) -> bool:
    tree = _parsed(code)
    return tree is not None and any(map(_defines, tree.body))


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


@functools.lru_cache(maxsize=16)  # an answer is asked about more than once
def _parsed(code: str) -> ast.Module | None:
    """As many of the code's first lines as are Python: what stands below the function, or where the answer was cut, may be none.

    Source: EvalPlus's sanitizer, which takes the longest run of lines that parses.
    """
    lines = code.splitlines(keepends=True)
    ends = range(len(lines), max(0, len(lines) - MAX_LINES_LEFT_OUT), -1)
    return next((tree for end in ends if (tree := _tree("".join(lines[:end]))) is not None), None)
