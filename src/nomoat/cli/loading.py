"""Loading a model for a command: a bar while a file is imported for the first time."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nomoat.cli import console

if TYPE_CHECKING:
    from nomoat.responder import Responder


def load_with_bar(ref: str, *, context_tokens: int | None = None) -> Responder:
    """The responder of a reference. An import happens once for each file, and takes seconds to minutes."""
    from nomoat.responder import load

    with console.item_progress() as bar:
        task = bar.add_task(f"importing {ref} (once)", total=None, info="layers", visible=False)

        def show(done: int, total: int) -> None:
            bar.update(task, completed=done, total=total, visible=True)

        return load(ref, context_tokens=context_tokens, progress=show)
