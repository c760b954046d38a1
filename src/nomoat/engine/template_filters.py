"""The filters, tests and methods of texts that chat templates use, each paid for before it makes much (`rations`)."""

from __future__ import annotations

import functools
import json
import re
import string
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime
from typing import Any

from nomoat.engine import comparing
from nomoat.engine.rations import (
    ESCAPED,
    PART_BYTES,
    STEP_BYTES,
    listed,
    made,
    metered,
    pay,
    pay_for,
    require_once,
    step,
    stop,
    text_of,
)
from nomoat.errors import UnsupportedError

WIDEST = 1000  # letters that a text is filled up to, or indented by
CASED_BYTES = 12  # that Python takes for each letter, if not all are ASCII, while it makes others of them
LOOKED_UP_BYTES = 30  # a letter of an attribute's name: two of them, such as `0.`, may be a step for each value
METHODS = {  # of texts
    "capitalize", "casefold", "center", "count", "endswith", "find", "format", "index", "isalnum", "isalpha", "isascii",
    "isdecimal", "isdigit", "islower", "isnumeric", "isspace", "istitle", "isupper", "join", "ljust", "lower", "lstrip", "partition",
    "removeprefix", "removesuffix", "replace", "rfind", "rindex", "rjust", "rpartition", "rsplit", "rstrip", "split", "splitlines",
    "startswith", "strip", "swapcase", "title", "upper", "zfill",
}  # fmt: skip
CASING = {"capitalize", "casefold", "lower", "swapcase", "title", "upper"}
FILLING = {"center", "ljust", "rjust", "zfill"}
SPLITTING = {"partition", "rpartition", "rsplit", "split", "splitlines"}
SEARCHING = {"lstrip", "rfind", "rindex", "rpartition", "rsplit", "rstrip", "strip"}  # each letter for each of another text
AT_ENDS = {"endswith", "startswith"}
# of a text alone, and the method that costs as much: `title` takes a text apart at spaces and brackets
TEXT_FILTERS = {"capitalize": "capitalize", "lower": "lower", "title": "split", "upper": "upper"}
COMPARING_FILTERS = {"dictsort", "max", "min", "sort"}
LOOPING_FILTERS = {"map", "reject", "rejectattr", "select", "selectattr"}
OTHER_FILTERS = {"abs", "count", "d", "default", "first", "float", "items", "last", "length", "reverse"}
NUMBER_TESTS = {"divisibleby", "even", "odd"}  # by `%`, which fills texts
NAME_TESTS = {"filter", "test"}
WIDTH = re.compile(r"\d+")
WIDE_PLACE = re.compile(r"%(\([^)]*\))?[^a-zA-Z%]*?(\d{4,}|\*)")  # of texts that `%` puts values into


def filters(theirs: dict[str, Any]) -> dict[str, Any]:
    """Those of Jinja's filters that chat templates use."""
    from jinja2 import pass_environment

    ours = {name: _of_text(theirs[name], method) for name, method in TEXT_FILTERS.items()}
    ours |= {name: _comparing(theirs[name]) for name in COMPARING_FILTERS}
    ours |= {name: _looping(theirs[name]) for name in LOOPING_FILTERS}
    ours |= {name: _paid(theirs[name]) for name in OTHER_FILTERS}
    ours |= {"join": _join(theirs["join"]), "sum": _sum(theirs["sum"]), "safe": text_of, "string": text_of, "list": listed}
    ours |= {"e": _escape, "escape": _escape, "format": _format, "indent": _indent, "int": _int, "replace": _replace, "round": _round}
    return ours | {"tojson": _to_json, "trim": _trim, "unique": pass_environment(comparing.unique)}


def tests(theirs: dict[str, Any]) -> dict[str, Any]:
    """Jinja's tests, but for those that make a text of any value."""
    ours = {name: _paid(test) for name, test in theirs.items() if name not in ("lower", "upper")}
    ours |= {name: _of_type(theirs[name], int | float) for name in NUMBER_TESTS}
    ours |= {name: _of_type(theirs[name], str) for name in NAME_TESTS}
    return ours | {name: comparing.COMPARED[operator] for name, operator in comparing.TESTS.items()}


def pay_for_method(owner: str, name: str, args: tuple[Any, ...], named: dict[str, Any]) -> int:
    """For what a method of a text makes, or looks at, beyond that text's own length; how many bytes that were."""
    if name not in METHODS:
        stop(f"it calls `{name}`, which no chat template needs")
    texts = [value for value in (*args, *named.values()) if isinstance(value, str)]
    paid = 0
    if name == "format":
        return _pay_for_fields(owner, args, named)
    if name not in AT_ENDS:
        pay(len(owner) // comparing.LETTERS)
    elif args and isinstance(args[0], tuple):
        pay_for(args[0])
    if name in FILLING:
        _require_narrow(*args)
    elif name in CASING:
        pay(0 if owner.isascii() else len(owner) * CASED_BYTES)
    elif name == "replace" and len(texts) == 2:
        paid = sys.getsizeof(owner) + owner.count(texts[0]) * sys.getsizeof(texts[1])
    elif name == "join":
        paid = sum(sys.getsizeof(part) + sys.getsizeof(owner) for parts in args for part in metered(parts))
    elif name in SPLITTING:
        paid = sys.getsizeof(owner) + PART_BYTES * (owner.count(texts[0]) if texts else len(owner) // 2)
    if name in SEARCHING and texts:
        pay(len(owner) * len(texts[0]))
    pay(paid)
    return paid


def filled(text: str, values: Any) -> str:
    """A text with values put in by `%`."""
    pay(len(text) * (1 + text.count("%(")) + WIDEST * text.count("%"))
    if WIDE_PLACE.search(text):
        stop(f"it fills a text up to the width in `{text[:40]}`")
    paid = pay_for(
        values if isinstance(values, tuple) else [values], times=text.count("%") * (ESCAPED if "r" in text or "a" in text else 1)
    )
    return str(made(text % values, paid))


def _pay_for_fields(text: str, args: tuple[Any, ...], named: dict[str, Any]) -> int:
    pay(LOOKED_UP_BYTES * len(text) + WIDEST * text.count("{"))
    for _, _, form, _ in string.Formatter().parse(text):
        if form and "{" in form:
            stop("it fills a text up to a width that is computed")
        _require_narrow(*(int(width) for width in WIDTH.findall(form or "")))
    return pay_for([*args, *named.values()], times=text.count("{") * (ESCAPED if "!" in text else 1))


def _require_narrow(*values: Any) -> None:
    """Raises SecurityError if one of them is a number above WIDEST."""
    widest = max((value for value in values if isinstance(value, int)), default=0)
    if widest > WIDEST:
        stop(f"it asks for {widest:,} letters or digits, and {WIDEST:,} are the most")


def _paid(filter_: Callable[..., Any]) -> Callable[..., Any]:
    """A filter or test that what it gives is paid for."""

    @functools.wraps(filter_)  # what Jinja has marked it with is kept
    def paid(*args: Any, **named: Any) -> Any:
        step()
        found = filter_(*args, **named)
        return metered(found) if isinstance(found, Iterator) else made(found)

    return paid


def _of_type(test: Callable[..., Any], kind: Any) -> Callable[..., Any]:
    """A test of values of this type alone."""

    @functools.wraps(test)
    def of_type(*args: Any) -> Any:
        value = args[int(hasattr(test, "jinja_pass_arg"))]
        if not isinstance(value, kind):
            stop(f"it tests a value of the type {type(value).__name__} as no chat template needs")
        step()
        return test(*args)

    return of_type


def _of_text(filter_: Callable[..., Any], method: str) -> Callable[..., Any]:
    def of_text(value: Any) -> Any:
        text = text_of(value)
        paid = pay_for_method(text, method, (), {})
        return made(filter_(text), paid)

    return of_text


def _looping(filter_: Callable[..., Any]) -> Callable[..., Any]:
    """A filter that gives some of the values it is given, or what another one makes of each: a step for each that it looks at."""

    @functools.wraps(filter_)
    def looping(context: Any, values: Any, *args: Any, **named: Any) -> Any:
        _require_narrow(*(len(name) for name in (*args[:1], named.get("attribute")) if isinstance(name, str)))
        return made(filter_(context, metered(values) if values else values, *args, **named))

    return looping


def _comparing(filter_: Callable[..., Any]) -> Callable[..., Any]:
    """A filter that compares, and may make something of all that is in what it is given, such as texts in lower case.

    To sort compares each value with some others, at most as many as the number of values has bits, or about as many.
    """

    @functools.wraps(filter_)
    def comparing(*args: Any, **named: Any) -> Any:
        at = int(hasattr(filter_, "jinja_pass_arg"))  # where, behind the environment, what it is given stands
        values = args[at] if isinstance(args[at], Mapping) else listed(args[at])
        bits = len(values).bit_length()
        letters = sum(len(name) for name in (*args[at + 1 :], *named.values()) if isinstance(name, str))
        pay(len(values) * (bits * STEP_BYTES + letters * LOOKED_UP_BYTES))
        pay_for([values], times=bits)
        return made(filter_(*args[:at], values, *args[at + 1 :], **named))

    return comparing


def _join(filter_: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(filter_)
    def join(context: Any, values: Iterable[Any], d: Any = "", attribute: Any = None) -> Any:
        parts, between = listed(values), text_of(d)
        pay(len(parts) * (sys.getsizeof(between) + _price(attribute)))
        paid = pay_for(parts) + len(parts) * sys.getsizeof(between)
        require_once(paid)
        return made(filter_(context, parts, between, attribute), paid)

    return join


def _sum(filter_: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(filter_)
    def sum_of(context: Any, values: Iterable[Any], attribute: Any = None, start: Any = 0) -> Any:
        if not isinstance(start, int | float):
            stop("it adds up other things than numbers")
        return filter_(context, metered(values, STEP_BYTES + _price(attribute)), attribute, start)

    return sum_of


def _price(attribute: Any) -> int:
    return LOOKED_UP_BYTES * len(attribute) if isinstance(attribute, str) else 0


def _escape(value: Any) -> str:
    from markupsafe import escape

    text = text_of(value)
    pay(5 * sys.getsizeof(text))  # as long as it gets: `&quot;`
    return str(made(str(escape(text)), 5 * sys.getsizeof(text)))


def _format(value: Any, *args: Any, **named: Any) -> str:
    return filled(text_of(value), named or args)


def _indent(value: Any, width: Any = 4, first: bool = False, blank: bool = False) -> str:
    from jinja2.filters import do_indent

    text = text_of(value)
    _require_narrow(len(width) if isinstance(width, str) else width)
    by = width if isinstance(width, str) else " " * width
    paid = pay_for_method(text, "splitlines", (), {})
    added = sys.getsizeof(by) * (1 + len(text.splitlines()))
    pay(added)
    return str(made(do_indent(text, by, first, blank), paid + added))


def _int(value: Any, default: Any = 0, base: int = 10) -> Any:
    from jinja2.filters import do_int

    if base != 10 and isinstance(value, str):  # of tens Python itself reads no more than 4,300
        _require_narrow(len(value))
    return made(do_int(value, default, base))


def _replace(value: Any, old: Any, new: Any, count: int | None = None) -> str:
    text, old, new = text_of(value), text_of(old), text_of(new)
    paid = pay_for_method(text, "replace", (old, new), {})
    return str(made(text.replace(old, new, -1 if count is None else count), paid))


def _round(value: Any, precision: int = 0, method: Any = "common") -> Any:
    from jinja2.filters import do_round

    _require_narrow(abs(precision))
    return made(do_round(value, precision, method))


def _to_json(value: Any, ensure_ascii: bool = False, indent: Any = None, separators: Any = None, sort_keys: bool = False) -> str:
    """Unlike Jinja's own it writes `<` as it is. Python's own code does it piece by piece."""
    _require_narrow(len(indent) if isinstance(indent, str) else indent)
    encoder = json.JSONEncoder(ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)
    return "".join(map(made, encoder.iterencode(value)))


def _trim(value: Any, chars: str | None = None) -> str:
    text = text_of(value)
    paid = pay_for_method(text, "strip", (chars,), {})
    return str(made(text.strip(chars), paid))


def now(form: str) -> str:
    _require_narrow(len(form))
    return datetime.now().astimezone().strftime(form)


def refuse(message: Any) -> None:
    raise UnsupportedError(
        f"the model's chat template refuses this conversation: {text_of(message)[:WIDEST]}",
        hint="change the conversation, or name another template by --template (in Python: `template`)",
    )
