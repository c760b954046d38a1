"""Jinja's sandbox as `transformers` sets it up for chat templates, with bounds on what a template takes.

A template is a program out of a file that anybody may have made. It has the filters, and the methods of texts, that chat templates
use. In `bounded` what it makes is counted: texts, lists and dicts by their sizes, before they are made where that could be many times
what they are made of. Each step of a loop, call and comparison counts besides, and the time is looked at every few steps.

What this does not cover: a single step, as comparing long texts, or lists that hold one another many times over, ends when it ends.
There may be ways that are not known.
"""

from __future__ import annotations

import functools
import json
import math
import re
import string
import sys
import threading
import time
from collections.abc import Callable, ItemsView, Iterable, Iterator, KeysView, Mapping, ValuesView
from contextlib import contextmanager
from datetime import datetime
from typing import Any, NoReturn

from nomoat.errors import UnsupportedError

MOST_BYTES = 2_000_000_000  # that all a template makes may take together
STEP_BYTES = 10  # what a step of a loop, a call, or a value that is written counts for besides
LOOK_BYTES = 20 * STEP_BYTES  # the time is looked at as often
MOST_SECONDS = 10.0  # of computing
WIDEST = 1000  # letters that a text is filled up to, or indented by
MOST_BITS = 16_384  # of whole numbers: what Python reads, 4,300 digits, takes 14,285
PART_BYTES = 90  # of a part of a text, as in `split`: what Python's texts take besides their letters, and its place in the list
METHODS = {  # of texts
    "capitalize", "casefold", "center", "count", "endswith", "find", "format", "index", "isalnum", "isalpha", "isascii",
    "isdecimal", "isdigit", "islower", "isnumeric", "isspace", "istitle", "isupper", "join", "ljust", "lower", "lstrip", "partition",
    "removeprefix", "removesuffix", "replace", "rfind", "rindex", "rjust", "rpartition", "rsplit", "rstrip", "split", "splitlines",
    "startswith", "strip", "swapcase", "title", "upper", "zfill",
}  # fmt: skip
FILLING = {"center", "ljust", "rjust", "zfill"}
SPLITTING = {"partition", "rpartition", "rsplit", "split", "splitlines"}
SEARCHING = {"lstrip", "rfind", "rindex", "rpartition", "rsplit", "rstrip", "strip"}  # each letter for each of another text
TEXT_FILTERS = {"capitalize", "lower", "upper"}
COMPARING_FILTERS = {"dictsort", "max", "min", "sort", "unique"}
OTHER_FILTERS = {
    "abs", "count", "d", "default", "first", "float", "items", "last", "length", "map", "reject", "rejectattr", "reverse", "select",
    "selectattr",
}  # fmt: skip
TOO_LONG = "it computes a number of more than 4,300 digits"
WIDTH = re.compile(r"\d+")
WIDE_PLACE = re.compile(r"%(\([^)]*\))?[^a-zA-Z%]*?(\d{4,}|\*)")  # of texts that `%` puts values into


class _Ration(threading.local):
    """What is left for this thread's rendering."""

    num_bytes = math.inf
    until = math.inf  # of `time.thread_time`
    looks_at = -math.inf  # so few bytes left, and the time is looked at


_left = _Ration()


@contextmanager
def bounded() -> Iterator[None]:
    """Within it a template that takes more than MOST_BYTES or MOST_SECONDS raises SecurityError."""
    outside = vars(_left).copy()
    _left.num_bytes = _left.looks_at = MOST_BYTES
    _left.until = time.thread_time() + MOST_SECONDS
    try:
        yield
    finally:
        vars(_left).clear()
        vars(_left).update(outside)


def _pay(num_bytes: int) -> None:
    left = _left.num_bytes = _left.num_bytes - num_bytes
    if left < _left.looks_at:
        _left.looks_at = left - LOOK_BYTES
        if left < 0:
            _stop(f"it makes more than {MOST_BYTES / 1e6:,.0f} MB of texts, or loops as long: a shorter conversation may do")
        if time.thread_time() > _left.until:
            _stop(f"it computes for more than {MOST_SECONDS:.0f} s: a shorter conversation may do")


def _stop(why: str) -> NoReturn:
    from jinja2.exceptions import SecurityError

    raise SecurityError(why)


def _step() -> None:
    _pay(STEP_BYTES)


def _made(value: Any, paid: int = 0) -> Any:
    """A value that a template has made; `paid`: bytes of it that were paid before."""
    _pay(max(STEP_BYTES, sys.getsizeof(value) - paid))
    return value


def _counted(values: Iterable[Any], num_bytes: int = STEP_BYTES) -> Iterator[Any]:
    """Each of these values, a step that counts for so many bytes."""
    for value in values:
        _pay(num_bytes)
        yield value


def _listed(values: Iterable[Any]) -> list[Any]:
    """These values, which may be made only now, as the letters of a text are."""
    return list(_counted(values, STEP_BYTES if isinstance(values, list | tuple) else PART_BYTES))


def _pay_for(*values: Any, times: int = 1) -> int:
    """For texts that are made of these values, each written so many times; how many bytes that were."""
    from jinja2 import Undefined

    todo, paid = list(values), 0
    while todo:
        value = todo.pop()
        num_bytes = STEP_BYTES + sys.getsizeof(value) * times
        _pay(num_bytes)
        paid += num_bytes
        if isinstance(value, list | tuple | KeysView | ValuesView | ItemsView):
            todo += value
        elif isinstance(value, Mapping):
            todo += [*value.keys(), *value.values()]
        elif not isinstance(value, str | int | float | complex | None | Undefined):
            _stop(f"it writes a value of the type {type(value).__name__}")
    return paid


def _text(value: Any) -> str:
    """A value as text; what is one is paid for by who makes something of it."""
    if isinstance(value, str):
        return value
    paid = _pay_for(value)
    return str(_made(str(value), paid))


def _joined(parts: Iterable[Any]) -> str:
    """Parts of a text, put together: of `~`, of a macro, of all that is rendered."""
    texts, paid = [], 0
    for part in parts:
        text = _text(part)
        _pay(STEP_BYTES + sys.getsizeof(text))
        paid += sys.getsizeof(text)
        texts.append(text)
    return str(_made("".join(texts), paid))


def _extension() -> Any:
    from jinja2 import nodes
    from jinja2.ext import Extension
    from jinja2.parser import Parser

    class Generation(Extension):
        """What the assistant says is marked for whoever trains; here it is what it is."""

        tags = {"generation"}  # noqa: RUF012 - as the class it is made from has it

        def parse(self, parser: Parser) -> nodes.Node:
            line = next(parser.stream).lineno
            return nodes.Scope(parser.parse_statements(("name:endgeneration",), drop_needle=True), lineno=line)

    return Generation


def _makes(node: Any) -> bool:
    """Whether what a node stands for is a list, a tuple or a dict made there, or a slice."""
    from jinja2 import nodes

    if isinstance(node, nodes.Const):
        return isinstance(node.value, list | tuple | dict)
    if isinstance(node, nodes.Getitem):
        return isinstance(node.arg, nodes.Slice)
    return isinstance(node, nodes.List | nodes.Dict) or (isinstance(node, nodes.Tuple) and node.ctx == "load")


def _code_generator() -> Any:
    from jinja2 import nodes
    from jinja2.compiler import CodeGenerator

    class Generator(CodeGenerator):
        """`~`, slices, literals, comparisons and steps of loops are told to the environment."""

        def visit(self, node: nodes.Node, *args: Any, **named: Any) -> None:
            is_told = _makes(node)
            self.write("environment.made(" * is_told)
            super().visit(node, *args, **named)
            self.write(")" * is_told)

        def visit_Concat(self, node: nodes.Concat, frame: Any) -> None:  # noqa: N802 - Jinja's name
            self.write("environment.concat((")
            for part in node.nodes:
                self.visit(part, frame)
                self.write(", ")
            self.write("))")

        def visit_Compare(self, node: nodes.Compare, frame: Any) -> None:  # noqa: N802
            self.write("(environment.step() or ")
            super().visit_Compare(node, frame)
            self.write(")")

        def visit_For(self, node: nodes.For, frame: Any) -> None:  # noqa: N802
            step = nodes.Call(nodes.EnvironmentAttribute("step"), [], [], None, None)
            node.body.insert(0, nodes.ExprStmt(step))
            super().visit_For(node, frame)

    return Generator


def environment() -> Any:
    """What compiles templates."""
    from jinja2.runtime import Macro
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    class Sandbox(ImmutableSandboxedEnvironment):
        intercepted_binops = frozenset({"+", "-", "*", "/", "//", "%", "**"})
        code_generator_class = _code_generator()
        concat = staticmethod(_joined)
        made = staticmethod(_made)
        step = staticmethod(_step)

        def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
            if operator == "%" and isinstance(left, str):
                return _filled(left, right)
            _pay_for_operator(operator, left, right)
            found = super().call_binop(context, operator, left, right)
            if isinstance(found, int) and found.bit_length() > MOST_BITS:
                _stop(TOO_LONG)
            return found if operator in "+*" else _made(found)

        def call(self, context: Any, called: Any, /, *args: Any, **named: Any) -> Any:
            _step()
            if called is _step:
                return None
            method = getattr(called, "__wrapped__", called)  # of `format`, by Jinja
            owner, name = getattr(method, "__self__", None), getattr(method, "__name__", "")
            if not isinstance(owner, str | bytes | int | float):
                found = super().call(context, called, *args, **named)
                return found if isinstance(called, Macro) else _made(found)
            if not isinstance(owner, str) or name not in METHODS:
                _stop(f"it calls `{name}`, which no chat template needs")
            if name == "join":
                args = tuple(map(_listed, args))
            paid = _pay_for_method(owner, name, args, named)
            return _made(super().call(context, called, *args, **named), paid)

    made = Sandbox(trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols", _extension()], finalize=_text)
    made.globals["raise_exception"] = _refuse
    made.globals["strftime_now"] = _now
    del made.globals["lipsum"]  # as many paragraphs as are asked for
    made.filters = _filters(made.filters)
    tests: dict[str, Any] = made.tests
    made.tests = {name: _paid(test) for name, test in tests.items() if name not in ("lower", "upper")}  # of any value's text
    return made


def _filters(theirs: dict[str, Any]) -> dict[str, Any]:
    """Those of Jinja's filters that chat templates use."""
    ours = {name: _of_text(theirs[name]) for name in TEXT_FILTERS}
    ours |= {name: _comparing(theirs[name]) for name in COMPARING_FILTERS}
    ours |= {name: _paid(theirs[name]) for name in OTHER_FILTERS}
    ours |= {"join": _join(theirs["join"]), "sum": _sum(theirs["sum"]), "safe": _text, "string": _text, "list": _listed}
    ours |= {"e": _escape, "escape": _escape, "format": _format, "indent": _indent, "int": _int, "replace": _replace, "round": _round}
    return ours | {"title": _title, "tojson": _to_json, "trim": _trim}


def _pay_for_operator(operator: str, left: Any, right: Any) -> None:
    if operator == "+":
        _pay(sys.getsizeof(left) + sys.getsizeof(right))
    elif operator == "*":
        number, other = (left, right) if isinstance(left, int | float) else (right, left)
        _pay(STEP_BYTES if isinstance(other, int | float) else sys.getsizeof(other) * max(int(number), 1))
    elif operator == "**" and isinstance(left, int) and isinstance(right, int) and left.bit_length() * right > MOST_BITS:
        _stop(TOO_LONG)


def _pay_for_method(owner: str, name: str, args: tuple[Any, ...], named: dict[str, Any]) -> int:
    """For what a method of a text makes, or looks at, beyond that text's own length; how many bytes that were."""
    texts = [value for value in (*args, *named.values()) if isinstance(value, str)]
    paid = 0
    if name in FILLING:
        _require_narrow(*args)
    elif name == "format":
        _require_narrow_fields(owner)
        return _pay_for(args, named, times=owner.count("{"))
    elif name == "replace" and len(texts) == 2:
        paid = sys.getsizeof(owner) + owner.count(texts[0]) * sys.getsizeof(texts[1])
    elif name == "join":
        paid = sum(sys.getsizeof(part) + sys.getsizeof(owner) for parts in args for part in parts)
    elif name in SPLITTING:
        paid = sys.getsizeof(owner) + PART_BYTES * (owner.count(texts[0]) if texts else len(owner) // 2)
    if name in SEARCHING and texts:
        _pay(len(owner) * len(texts[0]))
    _pay(paid)
    return paid


def _require_narrow(*values: Any) -> None:
    """Raises SecurityError if one of them is a number above WIDEST."""
    widest = max((value for value in values if isinstance(value, int)), default=0)
    if widest > WIDEST:
        _stop(f"it asks for {widest:,} letters or digits, and {WIDEST:,} are the most")


def _require_narrow_fields(text: str) -> None:
    for _, _, form, _ in string.Formatter().parse(text):
        if form and "{" in form:
            _stop("it fills a text up to a width that is computed")
        _require_narrow(*(int(width) for width in WIDTH.findall(form or "")))


def _filled(text: str, values: Any) -> str:
    """A text with values put in by `%`."""
    if WIDE_PLACE.search(text):
        _stop(f"it fills a text up to the width in `{text[:40]}`")
    paid = _pay_for(values, times=text.count("%"))
    return str(_made(text % values, paid))


def _paid(filter_: Callable[..., Any]) -> Callable[..., Any]:
    """A filter or test that what it gives is paid for."""

    @functools.wraps(filter_)  # what Jinja has marked it with is kept
    def paid(*args: Any, **named: Any) -> Any:
        _step()
        found = filter_(*args, **named)
        return _counted(found) if isinstance(found, Iterator) else _made(found)

    return paid


def _of_text(filter_: Callable[..., Any]) -> Callable[..., Any]:
    return lambda value: _made(filter_(_text(value)))


def _comparing(filter_: Callable[..., Any]) -> Callable[..., Any]:
    """A filter that may make something of all that is in what it is given, such as texts in lower case to sort by."""

    at = int(hasattr(filter_, "jinja_pass_arg"))  # where, behind the environment, what it is given stands

    @functools.wraps(filter_)
    def comparing(*args: Any, **named: Any) -> Any:
        values = args[at] if isinstance(args[at], Mapping) else _listed(args[at])
        _pay_for(values)
        return _made(filter_(*args[:at], values, *args[at + 1 :], **named))

    return comparing


def _join(filter_: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(filter_)
    def join(context: Any, values: Iterable[Any], d: Any = "", attribute: Any = None) -> Any:
        listed, between = _listed(values), _text(d)
        paid = _pay_for(listed) + len(listed) * sys.getsizeof(between)
        _pay(len(listed) * sys.getsizeof(between))
        return _made(filter_(context, listed, between, attribute), paid)

    return join


def _sum(filter_: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(filter_)
    def sum_of(context: Any, values: Iterable[Any], attribute: Any = None, start: Any = 0) -> Any:
        if not isinstance(start, int | float):
            _stop("it adds up other things than numbers")
        return filter_(context, _counted(values), attribute, start)

    return sum_of


def _escape(value: Any) -> str:
    from markupsafe import escape

    text = _text(value)
    _pay(5 * sys.getsizeof(text))  # as long as it gets: `&quot;`
    return str(_made(str(escape(text)), 5 * sys.getsizeof(text)))


def _format(value: Any, *args: Any, **named: Any) -> str:
    return _filled(_text(value), named or args)


def _indent(value: Any, width: Any = 4, first: bool = False, blank: bool = False) -> str:
    from jinja2.filters import do_indent

    text = _text(value)
    _require_narrow(len(width) if isinstance(width, str) else width)
    by = width if isinstance(width, str) else " " * width
    paid = _pay_for_method(text, "splitlines", (), {})
    added = sys.getsizeof(by) * (1 + len(text.splitlines()))
    _pay(added)
    return str(_made(do_indent(text, by, first, blank), paid + added))


def _int(value: Any, default: Any = 0, base: int = 10) -> Any:
    from jinja2.filters import do_int

    if base != 10 and isinstance(value, str):  # of tens Python itself reads no more than 4,300
        _require_narrow(len(value))
    return _made(do_int(value, default, base))


def _replace(value: Any, old: Any, new: Any, count: int | None = None) -> str:
    text, old, new = _text(value), _text(old), _text(new)
    paid = _pay_for_method(text, "replace", (old, new), {})
    return str(_made(text.replace(old, new, -1 if count is None else count), paid))


def _round(value: Any, precision: int = 0, method: Any = "common") -> Any:
    from jinja2.filters import do_round

    _require_narrow(abs(precision))
    return _made(do_round(value, precision, method))


def _title(value: Any) -> str:
    from jinja2.filters import do_title

    text = _text(value)
    paid = _pay_for_method(text, "split", (), {})  # as it does, at spaces and brackets
    return str(_made(do_title(text), paid))


def _to_json(value: Any, ensure_ascii: bool = False, indent: Any = None, separators: Any = None, sort_keys: bool = False) -> str:
    """Unlike Jinja's own it writes `<` as it is."""
    _require_narrow(len(indent) if isinstance(indent, str) else indent)
    encoder = json.JSONEncoder(ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)
    return "".join(map(_made, encoder.iterencode(value)))


def _trim(value: Any, chars: str | None = None) -> str:
    text = _text(value)
    paid = _pay_for_method(text, "strip", (chars,), {})
    return str(_made(text.strip(chars), paid))


def _now(form: str) -> str:
    _require_narrow(len(form))
    return datetime.now().astimezone().strftime(form)


def _refuse(message: str) -> None:
    raise UnsupportedError(
        f"the model's chat template refuses this conversation: {message}",
        hint="change the conversation, or name another template by --template (in Python: `template`)",
    )
