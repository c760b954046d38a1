"""What can be meant by what a caller gives: texts, numbers, lists, a request's settings. `records` asks here before it holds any."""

from __future__ import annotations

import json
import math
import numbers
import operator
import reprlib
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from typing import Any

from nomoat.errors import SchemaError, UsageError

# What a chat template is given of each conversation, whatever else a request gives it.
TEMPLATES_OWN = frozenset({"add_generation_prompt", "bos_token", "documents", "eos_token", "messages", "tools"})

# OpenAI's where it has them. The HTTP API and the options of `nomoat run` are held to them too.
NUMBERS: dict[str, tuple[float, float]] = {
    "temperature": (0, 2), "top_p": (0, 1), "min_p": (0, 1), "repetition_penalty": (0.01, 10), "presence_penalty": (-2, 2),
    "frequency_penalty": (-2, 2),
}  # fmt: skip
MOST_DIGITS = 100  # of whole numbers: Python and JSON write them, and a float holds them; no setting means more
WHOLE_NUMBERS = ("max_new_tokens", "top_k", "top_logprobs", "seed")
SEVERAL_TEXTS = ("stop", "tools", "may_call", "must_call")
AS_JSON = ("json_schema", "template_variables")
MISSING = ("NAType", "NaTType")  # pandas', by the name of their types
GAP_HINT = 'give "…"; empty cells of a data frame are left out by `dropna()` (pandas) or `drop_nulls()` (polars)'
TOOLS_HINT = 'such as {"type": "function", "function": {"name": "…", "description": "…", "parameters": {a JSON schema}}}'
MESSAGES_HINT = 'give messages=(Message(role="user", content="…"), …); one question can be asked as a text: model.complete("…")'


def settle(request: Any, message_type: type) -> None:
    """Make of a new `Request`'s settings what is meant by them: tuples of lists, of one text one of texts, JSON of objects, numbers of
    numpy's. Raises UsageError for what cannot be meant.
    """
    request_has = {
        "messages": _messages(request.messages, message_type),
        **{name: _texts(name, getattr(request, name)) for name in SEVERAL_TEXTS},
        **{name: _json(name, getattr(request, name)) for name in AS_JSON},
        **{name: _number(name, getattr(request, name)) for name in NUMBERS},
        **{name: _whole_number(name, getattr(request, name)) for name in WHOLE_NUMBERS},
        "prompt_ids": None if request.prompt_ids is None else token_ids("prompt_ids", request.prompt_ids),
    }
    for name, value in request_has.items():
        object.__setattr__(request, name, value)
    if request.prompt is not None:
        require_text(request.prompt, "the prompt")
    for name in ("schema_name", "schema_description", "answer_start", "suffix"):
        require_text(getattr(request, name), f"`{name}`")
    require_flag("one_call", request.one_call)
    if request.json_schema is not None:
        _require_schema(request.json_schema)
    if request.template_variables:
        _require_variables(request.template_variables)
    _require_functions(request.tools, request.may_call, request.must_call)


def _messages(given: Any, message_type: type) -> tuple[Any, ...]:
    messages = _several("messages", given, message_type)
    strange = [one for one in messages if not isinstance(one, message_type)]
    if strange:
        raise UsageError(f"`messages` holds something of the type {type(strange[0]).__name__}, not Messages", hint=MESSAGES_HINT)
    return messages


def _texts(name: str, given: Any) -> tuple[Any, ...]:
    texts = tuple(_json(name, one) if name == "tools" else one for one in _several(name, given) if one is not None)
    for text in texts:
        require_text(text, f"what `{name}` holds")
    return texts


def _several(name: str, given: Any, one: type = str) -> tuple[Any, ...]:
    """As a tuple. A text is a sequence, too, of its characters, and is not meant so."""
    if given is None or isinstance(given, (str, Mapping, one)):
        return () if given is None else (given,)
    try:
        return tuple(in_order(given))
    except TypeError as exc:
        raise UsageError(f"`{name}` is of the type {type(given).__name__}, not a tuple", hint="give a tuple") from exc


def _json(name: str, given: Any) -> str | None:
    """As it is, or what an object is as JSON."""
    if given is None or isinstance(given, str):
        return given
    if not isinstance(given, Mapping):
        raise UsageError(f"`{name}` is of the type {type(given).__name__}, and neither a text nor a dict", hint="give JSON, or a dict")
    try:
        return json.dumps(dict(given), allow_nan=False)
    except (TypeError, ValueError, RecursionError) as exc:
        raise UsageError(f"`{name}` cannot be written as JSON: {exc}", hint="give JSON, or a dict") from exc


def _number(name: str, given: Any) -> float:
    low, high = NUMBERS[name]
    number = _plain(given)
    if number is None or not low <= number <= high:
        raise UsageError(f"`{name}` is {shown(given)}", hint=f"it can be {low:g} to {high:g}")
    return float(number)  # 1 and 1.0 are one setting, and answers are kept under one key


def _whole_number(name: str, given: Any) -> int | None:
    if given is None:
        return None
    number = whole(name, given)
    if name == "max_new_tokens" and number < 1:
        raise UsageError(f"an answer of at most {number} tokens is asked for", hint="ask for at least 1")
    if name != "seed" and number < 0:
        raise UsageError(f"`{name}` is {number}", hint="it can be 0 or more")
    return number


def _plain(given: Any) -> float | None:
    """A number as one of Python's own; None for what is none, as True is, and for one that no float holds."""
    if isinstance(given, bool) or not isinstance(given, numbers.Real):
        return None
    try:
        number = float(given)
    except OverflowError:
        return None
    return int(given) if isinstance(given, numbers.Integral) else number


def token_ids(name: str, given: Any, *, hint: str = 'for a text give prompt="…"') -> tuple[int, ...]:
    """Whole numbers, numpy's too, as Python's own. Raises UsageError, with this hint, for what are none; bytes and dicts are none."""
    try:
        if isinstance(given, bytes | bytearray | Mapping):
            raise TypeError
        ids = tuple(map(_index, given))
    except TypeError as exc:
        raise UsageError(f"`{name}` are no whole numbers", hint=hint) from exc
    for one in (min(ids), max(ids)) if ids else ():
        whole(f"{name}[{ids.index(one)}]", one)
    return ids


def _index(given: Any) -> int:
    """A whole number, numpy's too, as one of Python's. Raises TypeError for what is none, as 4.0 and True are."""
    if isinstance(given, bool):
        raise TypeError
    return operator.index(given)


def whole(name: str, given: Any) -> int:
    """A whole number, numpy's too, as Python's own, which JSON and checkpoints hold. Raises UsageError for what is none, as 4.0 and
    True are none, and for one of hundreds of digits.
    """
    try:
        number = _index(given)
    except TypeError as exc:
        kind = type(given).__name__
        raise UsageError(f"`{name}` is {shown(given)}, of the type {kind}", hint="give a whole number (an int)") from exc
    if abs(number) >= 10**MOST_DIGITS:
        raise UsageError(f"`{name}` is {shown(number)}", hint=f"give a whole number of at most {MOST_DIGITS} digits")
    return number


def require_flag(name: str, given: Any) -> None:
    """Raises UsageError for what is neither True nor False."""
    if not isinstance(given, bool):
        raise UsageError(f"`{name}` is {shown(given)}, of the type {type(given).__name__}", hint="give True or False")


def number(name: str, given: Any) -> float:
    """A number, numpy's too, as Python's own. Raises UsageError for what is none, as True is none, and for one that no float holds."""
    plain = _plain(given)
    if plain is None:
        raise UsageError(f"`{name}` is {shown(given)}", hint="it is a number")
    return float(plain)


def several(given: Any, what: str, *, one: Any = str) -> list[Any]:
    """All of them. A text is a sequence, too, of its characters, and is not meant so, nor a table as the names of its columns.
    Raises UsageError for `one`, for a mapping and a data frame, and for what is no iterable.

    `what` are several: "texts are asked about at once".
    """
    if isinstance(given, Mapping) or hasattr(given, "columns"):  # data frames of pandas and polars, tables of pyarrow
        hint = 'give one of its columns: `table["text"]`, or of a dict `list(texts.values())`'
        raise UsageError(f"several {what}, and of this {type(given).__name__} only the names would be taken", hint=hint)
    if isinstance(given, one) or not isinstance(given, Iterable):
        raise UsageError(f"several {what}, and this is one {type(given).__name__}", hint='give a list: ["…"]')
    return list(given.to_pylist() if hasattr(given, "to_pylist") else given)  # pyarrow's arrays, which give scalars of its own


def in_order(given: Any) -> Any:
    """The texts of a set sorted, all else as it is.

    A set's own order differs by process, and kept answers are found by what was asked, in its order.
    """
    return sorted(given, key=lambda one: one if isinstance(one, str) else "") if isinstance(given, set | frozenset) else given


def is_missing(given: Any) -> bool:
    """Whether it is an empty cell of a data frame: None, NaN, and NA and NaT of pandas."""
    if isinstance(given, Decimal):
        return given.is_nan()  # also a signaling one, which is no float
    return given is None or type(given).__name__ in MISSING or (isinstance(given, float) and math.isnan(given))


def text_hint(given: Any, what: str, *, otherwise: str = 'give "…"') -> str:
    """What to do where this is given in place of a text. What is not one of several (`texts[0]`) is no cell."""
    return GAP_HINT if "[" in what and is_missing(given) else otherwise


def require_texts(name: str, given: Sequence[Any]) -> None:
    """As `require_text`, of each of several that are given as `name`: the error says which one it is."""
    for at, text in enumerate(given):
        require_text(text, f"`{name}[{at}]`")


def require_one_of(name: str, given: Any, known: Sequence[str]) -> None:
    """Raises UsageError for a word that is none of those known."""
    if given not in known:
        raise UsageError(f"`{name}` is {shown(given)}", hint=f"known are {', '.join(known)}")


def require_type(name: str, given: Any, kind: Any) -> None:
    """Raises UsageError for an object of another type."""
    if not isinstance(given, kind):
        hint = f"give a {kind.__module__}.{kind.__name__}"
        raise UsageError(f"`{name}` is {shown(given)}, of the type {type(given).__name__}", hint=hint)


class _Shown(reprlib.Repr):
    def repr_int(self, x: int, level: int) -> str:
        return repr(x) if abs(x) < 10**MOST_DIGITS else f"{Decimal(x):.3g}"


shown = _Shown().repr  # as `repr` in a line: what is long is shortened, and of a number too long for Python to write stands its size


def require_text(text: Any, what: str) -> None:
    """Raises UsageError for what is none, and for half a character: JSON and shell arguments can carry such (a lone surrogate), which
    no tokenizer and no server reads."""
    if not isinstance(text, str):
        raise UsageError(f"{what} is of the type {type(text).__name__}, not a text", hint=text_hint(text, what))
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as exc:
        if "\udc80" <= text[exc.start] <= "\udcff":  # so Python keeps a byte that the locale has no character for
            raise UsageError(
                f"{what} is not whole: its character {exc.start + 1:,} is a byte that this locale's encoding does not have",
                hint="set a locale of UTF-8 (`LC_ALL=C.UTF-8`), or PYTHONUTF8=1",
            ) from exc
        raise UsageError(
            f"{what} is not whole: its character {exc.start + 1:,} is half of one", hint="send UTF-8 text; convert it first: `iconv`"
        ) from exc


def _read_json(text: str) -> Any:
    """Raises ValueError for what is no JSON, such as NaN, and for a number that Python cannot read, such as 1e999; RecursionError."""
    return json.loads(text, parse_constant=_refuse_constant, parse_float=_finite)


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no number of JSON's")


def _finite(digits: str) -> float:
    if math.isinf(number := float(digits)):
        raise ValueError(f"the number {shown(digits)} is beyond a float's range")
    return number


def _require_schema(text: str) -> None:
    """Raises SchemaError for what is no JSON object. Whether an answer can be held to it is for the engine to say."""
    try:
        schema = _read_json(text)
    except (ValueError, RecursionError) as exc:
        raise SchemaError(f"the JSON schema is not JSON that can be read: {exc}", hint="see https://json-schema.org") from exc
    if not isinstance(schema, dict):
        raise SchemaError(
            f"the JSON schema is of the type {type(schema).__name__}, not an object", hint="`{}` allows every JSON value"
        )


def _require_variables(text: str) -> None:
    """Raises UsageError for what are no variables of a chat template."""
    try:
        variables = _read_json(text)
        require_text(json.dumps(variables, ensure_ascii=False), "what a template is told")
    except (ValueError, RecursionError) as exc:
        raise UsageError(f"the template's variables are no JSON: {exc}", hint='such as {"enable_thinking": false}') from exc
    if not isinstance(variables, dict):
        raise UsageError("the template's variables are no JSON object", hint='such as {"enable_thinking": false}')
    if taken := sorted(TEMPLATES_OWN.intersection(variables)):
        raise UsageError(f"the template's variable `{taken[0]}` is set from the conversation itself", hint="leave it out")


def _require_functions(tools: Sequence[str], may_call: Sequence[str], must_call: Sequence[str]) -> None:
    """Raises UsageError for tools that are no functions as OpenAI has them, and for calls of others than these."""
    names = []
    for at, tool in enumerate(tools):
        try:
            function = _read_json(tool)["function"]
            name, parameters = function["name"], function.get("parameters", {})
        except (ValueError, RecursionError, TypeError, LookupError) as exc:
            raise UsageError(f"`tools[{at}]` is no function", hint=TOOLS_HINT) from exc
        if not isinstance(name, str) or not isinstance(parameters, Mapping):
            raise UsageError(f"`tools[{at}]` has a name or parameters that are none", hint=TOOLS_HINT)
        names.append(name)
    for field, given, known in (("may_call", may_call, names), ("must_call", must_call, may_call or names)):
        are_known = frozenset(known)
        if unknown := [name for name in given if name not in are_known]:
            hint = f"those are {', '.join(known)}" if known else "give them as `tools`"
            which = "request's functions" if known is names else "functions that may be called"
            raise UsageError(f"`{field}` names `{unknown[0]}`, which is none of the {which}", hint=hint)
