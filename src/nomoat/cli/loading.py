"""Loading a model for a command: a bar while a file is imported for the first time."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

from nomoat.cli import console

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

    from nomoat.responder import Responder


def load_with_bar(
    ref: str, *, context_tokens: int | None = None, template: str | None = None, say_decisions: bool = True
) -> Responder:
    """The responder of a reference, `auto` included. An import happens once for each file, and takes seconds to minutes.

    A chat template that is not the model's own is said on stderr; so is, with `say_decisions`, where the router sends each request
    and why.
    """
    from nomoat.responder import load

    with _import_bar(ref) as show:
        if ref == "auto":
            from nomoat.route.router import load_auto

            told = (lambda decision: console.say(f"[{decision.where}: {decision.why}]")) if say_decisions else None
            return load_auto(context_tokens=context_tokens, progress=show, on_decision=told)
        responder = load(ref, context_tokens=context_tokens, template=template, progress=show)
    _say_template(responder)
    return responder


def load_sharing_with_bar(
    refs: Sequence[str], *, context_tokens: int | None = None, template: str | None = None
) -> Sequence[Responder]:  # fmt: skip
    """The responders of references that share their weights; of one reference, `load_with_bar`'s."""
    from nomoat.responder import load_sharing

    if len(refs) == 1:
        return [load_with_bar(refs[0], context_tokens=context_tokens, template=template, say_decisions=False)]
    with _import_bar(refs[0]) as show:
        found = load_sharing(refs, context_tokens=context_tokens, template=template, progress=show)
    for responder in found:
        _say_template(responder, name=responder.name)
    return found


@contextmanager
def _import_bar(ref: str) -> Iterator[Callable[[int, int], None]]:
    """What shows a bar as soon as it is told of a layer. Most starts import nothing, and do not wait for what draws bars."""
    with ExitStack() as stack:

        @functools.cache
        def bar() -> tuple[Progress, TaskID]:
            shown = stack.enter_context(console.item_progress())
            return shown, shown.add_task(f"importing {ref} (once)", total=None, info="layers")

        def show(done: int, total: int) -> None:
            shown, task = bar()
            shown.update(task, completed=done, total=total)

        yield show


def _say_template(responder: Responder, *, name: str = "") -> None:
    if responder.template:
        console.say(f"[{name + ', ' if name else ''}chat template: {responder.template.value}, {responder.template.reason}]")
