"""Loading a model for a command: a bar while a file is imported for the first time."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nomoat.cli import console

if TYPE_CHECKING:
    from nomoat.responder import Responder


def load_with_bar(
    ref: str, *, context_tokens: int | None = None, template: str | None = None, say_decisions: bool = True
) -> Responder:
    """The responder of a reference, `auto` included. An import happens once for each file, and takes seconds to minutes.

    A chat template that is not the model's own is said on stderr; so is, with `say_decisions`, where the router sends each request
    and why.
    """
    from nomoat.responder import load

    with console.item_progress() as bar:
        task = bar.add_task(f"importing {ref} (once)", total=None, info="layers", visible=False)

        def show(done: int, total: int) -> None:
            bar.update(task, completed=done, total=total, visible=True)

        if ref == "auto":
            from nomoat.route.router import load_auto

            told = (lambda decision: console.say(f"[{decision.where}: {decision.why}]")) if say_decisions else None
            return load_auto(context_tokens=context_tokens, progress=show, on_decision=told)
        responder = load(ref, context_tokens=context_tokens, template=template, progress=show)
    if responder.template:
        console.say(f"[chat template: {responder.template}, {'as asked' if template else 'from its card: the file has none'}]")
    return responder
