"""Loading a model for a command: a bar while a file is imported, or its products are compiled, for the first time."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

from nomoat.cli import answering, console
from nomoat.progress import Progress

if TYPE_CHECKING:
    from rich.progress import TaskID

    from nomoat.asking.workers import Workers
    from nomoat.responder import Responder
    from nomoat.route.policy import PolicyFile


def load_with_bar(
    ref: str,
    *,
    context_tokens: int | None = None,
    template: str | None = None,
    takes_auto: bool = False,
    as_client: bool = True,
    policy: PolicyFile | None = None,
) -> Responder:
    """The responder of a reference, with `takes_auto` also of `auto`, whose `template` is that of its model on this machine. An import
    happens once for each file: seconds to minutes.

    A chat template that is used by its name is said on stderr; so is, with `as_client`, what has to be known about the policy, and
    where the router sends each request and why. `as_client`: see `responder.load`; `policy`: `load_auto`'s file.
    """
    from nomoat import references, responder

    load, held, name = functools.partial(responder.load, ref), ref, ""
    if ref == references.AUTO and takes_auto:
        from nomoat.route.policy import PolicyFile
        from nomoat.route.router import load_auto

        policy = PolicyFile() if policy is None else policy
        parsed = policy.parsed()
        if as_client:
            answering.say_notes(parsed.notes)
        told = (lambda decision: console.say(f"[{decision.where}: {decision.why}]")) if as_client else None
        load, held = functools.partial(load_auto, on_decision=told, file=policy), parsed.local or ref
        name = references.shown_name(held)
    with bars(*loading_bars(held)) as (show, compiling):
        loaded = load(context_tokens=context_tokens, template=template, as_client=as_client, progress=show, compiling=compiling)
    _say_template(loaded, name=name)
    _say_context(loaded, asked=context_tokens)
    return loaded


def load_on(workers: Workers | None, ref: str) -> Responder:
    """The responder of a reference on these workers; without any, as `load_with_bar`."""
    if workers is None:
        return load_with_bar(ref)
    responder = workers.load(ref)
    _say_template(responder)
    return responder


def load_sharing_with_bar(
    refs: Sequence[str], *, context_tokens: int | None, template: str | None, policy: PolicyFile | None
) -> Sequence[Responder]:
    """For a server: the responders of references that share their weights; of one reference, `load_with_bar`'s, `auto` included.

    The `template` is for those of them that take one.
    """
    from nomoat.references import takes_template
    from nomoat.responder import load_sharing

    if len(refs) == 1:
        taken = template if takes_template(refs[0]) else None
        return [load_with_bar(refs[0], context_tokens=context_tokens, template=taken, takes_auto=True, as_client=False, policy=policy)]
    with bars(*loading_bars(refs[0])) as (show, compiling):
        found = load_sharing(refs, context_tokens=context_tokens, template=template, progress=show, compiling=compiling)
    for responder in found:
        _say_template(responder, name=responder.name)
    _say_context(found[0], asked=context_tokens)
    return found


def loading_bars(ref: str) -> tuple[tuple[str, str], tuple[str, str]]:
    """The bars for what is done once: a file's import, and the compiling of its products."""
    return (f"importing {ref} (once)", "layers"), ("compiling for this CPU (once)", "functions")


@contextmanager
def bars(*named: tuple[str, str]) -> Iterator[list[Progress]]:
    """Functions that each draw a bar, made when first called: most starts need none, and do not import `rich`.

    Named are each by its title and by what is counted. Where there is no terminal to draw on, the title is said once.
    """
    with ExitStack() as stack:
        shown = functools.cache(lambda: stack.enter_context(console.item_progress()))

        @functools.cache
        def task(title: str, counted: str) -> TaskID:
            if not console.shows_bars():
                console.say(f"[{title}]")
            return shown().add_task(title, total=None, info=counted)

        def show(title: str, counted: str, done: int, total: int) -> None:
            shown().update(task(title, counted), completed=done, total=total)

        yield [functools.partial(show, *one) for one in named]


def _say_context(responder: Responder, *, asked: int | None) -> None:
    has = responder.engine.context_tokens
    if asked is not None and has is not None and has < asked:
        console.say(f"note: a context of {asked:,} tokens is asked for, and `{responder.ref}` has {has:,}")


def _say_template(responder: Responder, *, name: str = "") -> None:
    if responder.template:
        console.say(f"[{name + ', ' if name else ''}chat template: {responder.template.value}, {responder.template.reason}]")
