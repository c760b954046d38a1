"""Chat templates ready to use: programs out of a file, run in the sandbox that `sandbox` makes."""

from __future__ import annotations

import functools
import json
from typing import Any

from nomoat.engine import harmony, rations
from nomoat.engine.templates import NAMED
from nomoat.errors import UnsupportedError
from nomoat.records import Request

MOST_LETTERS = 1000  # of what is said of a failure


def render(template: str, /, **told: Any) -> str:
    """What a template makes of what it is told. Raises UnsupportedError if it refuses that, or fails."""
    try:
        with rations.bounded():
            return str(_compiled(template).render(told))
    except UnsupportedError:  # its own refusal
        raise
    except Exception as exc:  # a template is a program out of the file, and fails in any way a program can
        why = "it asks for more memory than there is" if isinstance(exc, MemoryError) else str(exc) or type(exc).__name__
        raise UnsupportedError(
            f"the model's chat template fails: {why[:MOST_LETTERS]}",
            hint="`--template NAME` (in Python: `template`) puts another in its place: " + ", ".join(NAMED),
        ) from exc


@functools.lru_cache(maxsize=8)
def _compiled(template: str) -> Any:
    """A template ready to use: compiling takes longer than rendering, and every prompt and lesson is rendered."""
    from nomoat.engine import sandbox  # which imports Jinja

    return sandbox.compiled(template)


@functools.lru_cache(maxsize=8)
def variables_of(template: str) -> frozenset[str]:
    """The names that a template reads and does not set itself; none of one that is no template."""
    import jinja2
    from jinja2 import meta

    from nomoat.engine import sandbox

    try:
        with rations.bounded():
            return frozenset(meta.find_undeclared_variables(sandbox.parsed(template)))
    except (jinja2.TemplateError, RecursionError, ValueError):  # brackets, or numbers, that are too deep or too long
        return frozenset()


def variables_for(template: str, request: Request) -> dict[str, Any]:
    """What a template is told of a request besides the conversation."""
    asked: dict[str, Any] = json.loads(request.template_variables or "{}")
    effort = request.reasoning_effort
    if harmony.is_spoken(template) and (learned := harmony.EFFORTS.get(str(harmony.effort_of(request)))):
        asked["reasoning_effort"] = learned
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
