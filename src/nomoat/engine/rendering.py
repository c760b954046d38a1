"""Chat templates ready to use: programs out of a file, run in Jinja's sandbox as `transformers` sets it up.

A template cannot make a text of any size in one step: by multiplying, or by filling it up to a width. What this does not cover: one
that repeats a step that doubles a text, or loops within loops.
"""

from __future__ import annotations

import functools
import json
import re
import string
from collections.abc import Callable, Iterable
from datetime import datetime
from typing import Any

from nomoat.records import Request

WIDEST = 1000  # letters that a text is filled up to, or indented by
FILLING = {"ljust", "rjust", "center", "zfill", "expandtabs", "to_bytes"}  # methods of texts, and of numbers
FILLING_FILTERS = ("center", "indent", "batch", "slice", "tojson")
WIDTH = re.compile(r"\d+")
WIDE_PLACE = re.compile(r"%(\([^)]*\))?[^a-zA-Z%]*?(\d{4,}|\*)")  # of texts that `%` puts values into


@functools.lru_cache(maxsize=8)
def compiled(template: str) -> Any:
    """A template ready to use: compiling takes longer than rendering, and every prompt and lesson is rendered."""
    return _environment().from_string(template)


@functools.lru_cache(maxsize=8)
def variables_of(template: str) -> frozenset[str]:
    """The names that a template reads and does not set itself; none of one that is no template."""
    import jinja2
    from jinja2 import meta

    try:
        return frozenset(meta.find_undeclared_variables(_environment().parse(template)))
    except jinja2.TemplateError:
        return frozenset()


def variables_for(template: str, request: Request) -> dict[str, Any]:
    """What a template is told of a request besides the conversation."""
    asked: dict[str, Any] = json.loads(request.template_variables or "{}")
    effort = request.reasoning_effort
    if effort is None:
        return asked
    read, told = variables_of(template), dict[str, Any]()
    if "reasoning_effort" in read:
        told["reasoning_effort"] = effort
    elif effort == "none" and "enable_thinking" in read:
        told["enable_thinking"] = False
    return told | asked


def unread_variables(template: str, request: Request) -> list[str]:
    """The names of a request's variables that a template does not read."""
    asked = set(json.loads(request.template_variables or "{}"))
    return sorted(asked - variables_of(template)) if asked else []


def _environment() -> Any:
    from jinja2 import nodes
    from jinja2.exceptions import SecurityError
    from jinja2.ext import Extension
    from jinja2.parser import Parser
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    class Generation(Extension):
        """What the assistant says is marked for whoever trains; here it is what it is."""

        tags = {"generation"}  # noqa: RUF012 - as the class it is made from has it

        def parse(self, parser: Parser) -> nodes.Node:
            line = next(parser.stream).lineno
            return nodes.Scope(parser.parse_statements(("name:endgeneration",), drop_needle=True), lineno=line)

    class Sandbox(ImmutableSandboxedEnvironment):
        intercepted_binops = frozenset({"*", "**", "%"})

        def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
            if operator == "%" and isinstance(left, str):
                _require_narrow_places(left)
            elif operator == "**" or not all(isinstance(value, int | float) for value in (left, right)):
                raise SecurityError(f"it computes `{operator}` of other things than numbers")
            return super().call_binop(context, operator, left, right)

        def call(self, context: Any, called: Any, /, *args: Any, **named: Any) -> Any:
            method = getattr(called, "__wrapped__", called)  # of `format`, by Jinja
            owner, name = getattr(method, "__self__", None), getattr(method, "__name__", "")
            if isinstance(owner, str | int | bytes) and name in FILLING:
                _require_narrow((*args, *named.values()))
            elif isinstance(owner, str) and name in ("format", "format_map"):
                _require_narrow_fields(owner)
            return super().call(context, called, *args, **named)

    environment = Sandbox(trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols", Generation])
    environment.globals["raise_exception"] = _refuse
    environment.globals["strftime_now"] = lambda form: datetime.now().astimezone().strftime(form)
    del environment.globals["lipsum"]  # as many paragraphs as are asked for
    environment.filters["tojson"] = _to_json
    for name in FILLING_FILTERS:
        environment.filters[name] = _narrow(environment.filters[name])
    environment.filters["format"] = _format
    return environment


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


def _narrow(filter_: Callable[..., Any]) -> Callable[..., Any]:
    """A filter that takes no width above WIDEST."""

    @functools.wraps(filter_)  # what Jinja has marked it with is kept
    def bounded(*args: Any, **named: Any) -> Any:
        _require_narrow((*args[1:], *named.values()))  # the first is what is filtered
        return filter_(*args, **named)

    return bounded


def _format(text: Any, *args: Any, **named: Any) -> str:
    """Jinja's own filter."""
    from jinja2.filters import do_format

    _require_narrow_places(str(text))
    return str(do_format(text, *args, **named))


def _to_json(value: Any, ensure_ascii: bool = False, indent: Any = None, separators: Any = None, sort_keys: bool = False) -> str:
    """Unlike Jinja's own it writes `<` as it is."""
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _refuse(message: str) -> None:
    import jinja2

    raise jinja2.TemplateError(message)
