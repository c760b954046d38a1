"""Jinja's sandbox as `transformers` sets it up for chat templates, with bounds on what a template takes.

A template is a program out of a file that anybody may have made. In `bounded` it can take neither all memory nor a core for ever: what
its texts take is counted before they are made, each step of a loop and each call costs something, too, and its time is looked at then.
What this does not cover: comparing lists that hold one another many times over.
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
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from typing import Any

from nomoat.errors import UnsupportedError

MOST_BYTES = 500_000_000  # that all texts of a rendering may take together
STEP_BYTES = 500  # what a step of a loop, a call, or a value that is written counts for besides
LOOK_BYTES = 20 * STEP_BYTES  # the time is looked at as often
MOST_SECONDS = 5.0  # of computing
WIDEST = 1000  # letters that a text is filled up to, or indented by
FILLING = {"ljust", "rjust", "center", "zfill", "expandtabs", "to_bytes"}  # methods of texts, and of numbers
FILLING_FILTERS = ("center", "indent", "batch", "slice", "tojson", "wordwrap", "urlize")
# filters that make no text of what they are given
LOOKING_FILTERS = {
    "abs", "attr", "batch", "count", "d", "default", "dictsort", "first", "float", "groupby", "int", "items", "last", "length", "list",
    "map", "max", "min", "random", "reject", "rejectattr", "reverse", "round", "select", "selectattr", "slice", "sort", "unique",
}  # fmt: skip
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
    _left.num_bytes = _left.looks_at = MOST_BYTES
    _left.until = time.thread_time() + MOST_SECONDS
    try:
        yield
    finally:
        del _left.num_bytes, _left.until, _left.looks_at


def _pay(num_bytes: int) -> None:
    left = _left.num_bytes = _left.num_bytes - num_bytes
    if left < _left.looks_at:
        _left.looks_at = left - LOOK_BYTES
        _require_left()


def _require_left() -> None:
    from jinja2.exceptions import SecurityError

    if _left.num_bytes < 0:
        raise SecurityError(f"it makes more than {MOST_BYTES / 1e6:,.0f} MB of texts, or loops as long")
    if time.thread_time() > _left.until:
        raise SecurityError(f"it computes for more than {MOST_SECONDS:.0f} s")


def _pay_for(*values: Any, times: int = 1) -> None:
    """For texts that are made of these values, each written so many times."""
    todo = list(values)
    while todo:
        value = todo.pop()
        _pay(STEP_BYTES + sys.getsizeof(value) * times)
        if isinstance(value, list | tuple):
            todo += value
        elif isinstance(value, Mapping):
            todo += [*value.keys(), *value.values()]


def _step() -> None:
    _pay(STEP_BYTES)


def _joined(parts: Iterable[Any]) -> str:
    """Parts of a text, put together: of `~`, of a macro, of all that is rendered."""
    written = []
    for part in parts:
        _pay_for(part)
        written.append(str(part))
    return "".join(written)


def _shown(value: Any) -> Any:
    """What stands in `{{ }}`; texts are counted when they are put together."""
    if not isinstance(value, str):
        _pay_for(value)
    return value


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


def _code_generator() -> Any:
    from jinja2 import nodes
    from jinja2.compiler import CodeGenerator

    class Generator(CodeGenerator):
        """`~` and steps of loops are told to the environment."""

        def visit_Concat(self, node: nodes.Concat, frame: Any) -> None:  # noqa: N802 - Jinja's name
            self.write("environment.concat((")
            for part in node.nodes:
                self.visit(part, frame)
                self.write(", ")
            self.write("))")

        def visit_For(self, node: nodes.For, frame: Any) -> None:  # noqa: N802
            node.body.insert(0, nodes.ExprStmt(nodes.EnvironmentAttribute("step()")))  # is written as `environment.step()`
            super().visit_For(node, frame)

    return Generator


def environment() -> Any:
    """What compiles templates."""
    from jinja2.exceptions import SecurityError
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    class Sandbox(ImmutableSandboxedEnvironment):
        intercepted_binops = frozenset({"+", "*", "**", "%"})
        code_generator_class = _code_generator()
        concat = staticmethod(_joined)
        step = staticmethod(_step)

        def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
            if operator == "+":
                _pay_for(left, right)
            elif operator == "%" and isinstance(left, str):
                _require_narrow_places(left)
                _pay_for(right, times=left.count("%"))
            elif operator == "**" or not all(isinstance(value, int | float) for value in (left, right)):
                raise SecurityError(f"it computes `{operator}` of other things than numbers")
            else:
                _pay(sys.getsizeof(left) * sys.getsizeof(right))  # whole numbers may have any length
            return super().call_binop(context, operator, left, right)

        def call(self, context: Any, called: Any, /, *args: Any, **named: Any) -> Any:
            _step()
            method = getattr(called, "__wrapped__", called)  # of `format`, by Jinja
            owner, name = getattr(method, "__self__", None), getattr(method, "__name__", "")
            if isinstance(owner, str | int | bytes) and name in FILLING:
                _require_narrow((*args, *named.values()))
            if not isinstance(owner, str | bytes):
                return super().call(context, called, *args, **named)
            if name == "join":
                args = tuple(map(list, args))
            _pay_for_method(owner, name, args, named)
            found = super().call(context, called, *args, **named)
            _pay_for(found)
            return found

    made = Sandbox(trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols", _extension()], finalize=_shown)
    made.globals["raise_exception"] = _refuse
    made.globals["strftime_now"] = lambda form: datetime.now().astimezone().strftime(form)
    del made.globals["lipsum"]  # as many paragraphs as are asked for
    made.filters |= {"tojson": _to_json, "format": _format, "replace": _replace, "join": _join(made.filters["join"])}
    made.filters |= {name: _narrow(made.filters[name]) for name in FILLING_FILTERS}
    made.filters = {name: _paid(name, filter_) for name, filter_ in made.filters.items()}
    return made


def _pay_for_method(owner: Any, name: str, args: tuple[Any, ...], named: dict[str, Any]) -> None:
    """For what a method of a text makes beyond that text's own length."""
    from jinja2.exceptions import SecurityError

    if name == "translate":
        raise SecurityError("it replaces letters by a table")
    if name in ("format", "format_map"):
        _require_narrow_fields(owner)
        _pay_for(args, named, times=owner.count("{"))
    elif name == "replace":
        _pay(owner.count(args[0]) * sys.getsizeof(args[1]))
    elif name == "join":
        _pay_for(args)
        _pay(len(args[0]) * sys.getsizeof(owner))


def _require_narrow(values: Iterable[Any]) -> None:
    """Raises SecurityError if one of them is a number above WIDEST."""
    from jinja2.exceptions import SecurityError

    widest = max((value for value in values if isinstance(value, int)), default=0)
    if widest > WIDEST:
        raise SecurityError(f"it fills a text up to {widest:,} letters")


def _require_narrow_places(text: str) -> None:
    from jinja2.exceptions import SecurityError

    if WIDE_PLACE.search(text):
        raise SecurityError(f"it fills a text up to the width in `{text[:40]}`")


def _require_narrow_fields(text: str) -> None:
    from jinja2.exceptions import SecurityError

    for _, _, form, _ in string.Formatter().parse(text):
        if form and "{" in form:
            raise SecurityError("it fills a text up to a width that is computed")
        _require_narrow(int(width) for width in WIDTH.findall(form or ""))


def _paid(name: str, filter_: Callable[..., Any]) -> Callable[..., Any]:
    """A filter that what it makes is paid for."""

    @functools.wraps(filter_)  # what Jinja has marked it with is kept
    def paid(*args: Any, **named: Any) -> Any:
        _step()
        if name not in LOOKING_FILTERS:
            _pay_for(*args)
        found = filter_(*args, **named)
        _pay(sys.getsizeof(found))
        return found

    return paid


def _narrow(filter_: Callable[..., Any]) -> Callable[..., Any]:
    """A filter that takes no width above WIDEST, and may put in something at each letter."""

    @functools.wraps(filter_)
    def narrow(*args: Any, **named: Any) -> Any:
        values = (*args, *named.values())
        _require_narrow(values[1:])  # the first is what is filtered
        sizes = [value if isinstance(value, int) else len(value) for value in values if isinstance(value, int | str)]
        _pay(math.prod(sorted(sizes)[-2:]))
        return filter_(*args, **named)

    return narrow


def _format(text: Any, *args: Any, **named: Any) -> str:
    """Jinja's own filter."""
    from jinja2.filters import do_format

    _require_narrow_places(str(text))
    _pay_for(args, named, times=str(text).count("%"))
    return str(do_format(text, *args, **named))


def _replace(text: Any, old: Any, new: Any, count: int = -1) -> str:
    """Jinja's own filter."""
    _pay(str(text).count(str(old)) * sys.getsizeof(str(new)))
    return str(text).replace(str(old), str(new), count)


def _join(filter_: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(filter_)
    def join(context: Any, value: Iterable[Any], d: str = "", attribute: Any = None) -> Any:
        values = list(value)
        _pay_for(values)
        _pay(len(values) * sys.getsizeof(str(d)))
        return filter_(context, values, d, attribute)

    return join


def _to_json(value: Any, ensure_ascii: bool = False, indent: Any = None, separators: Any = None, sort_keys: bool = False) -> str:
    """Unlike Jinja's own it writes `<` as it is."""
    between = sum(map(len, separators or ())) + (len(indent) if isinstance(indent, str) else indent or 0)
    _pay_for(value, times=1 + between)
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _refuse(message: str) -> None:
    raise UnsupportedError(f"the model's chat template refuses this conversation: {message}")
