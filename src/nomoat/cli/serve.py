"""`nomoat serve`: an OpenAI-compatible server for one model or several."""

from __future__ import annotations

import functools
import json
import logging
import math
import os
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Annotated

import typer

from nomoat import commands, config, labelling, references
from nomoat.cli import answering, completion, console, options
from nomoat.cli.loading import load_sharing_with_bar
from nomoat.errors import UsageError
from nomoat.words import first_few

if TYPE_CHECKING:
    from nomoat.route.policy import PolicyFile
    from nomoat.serve.models import Models

SECONDS_TO_END = 0.5
NAMED = 5  # models in a note

Drain = Annotated[
    int, typer.Option("--drain", metavar="SECONDS", min=0, help="How long answers under way may go on once it is to end.")
]
MaxTokens = Annotated[
    int | None,
    typer.Option("--max-tokens", min=1, show_default=False, help="Longest answer, for clients that ask for more or say nothing."),
]


def _require_finite(gigabytes: float | None) -> float | None:
    if gigabytes is not None and not math.isfinite(gigabytes * 1e9):  # bytes
        raise UsageError(f"--memory is {gigabytes:g}", hint="give it in GB, such as 4")
    return gigabytes


Memory = Annotated[
    float | None,
    typer.Option(
        "--memory",
        min=0.1,
        callback=_require_finite,
        show_default=False,
        help="GB for models loaded at once; without it 80 % of what is free.",
    ),
]


@console.logged(logging.getLogger("nomoat.serve"))
def serve(
    models: Annotated[
        list[str],
        typer.Argument(
            metavar="MODEL...", help="Models to serve, each under the name given here.", autocompletion=completion.models_here
        ),
    ],
    host: Annotated[str, typer.Option(help="Address to bind. Anything but this machine's own needs a key.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=config.MOST_PORT, help="Port to bind; 0 takes a free one.")] = 8080,
    api_key: Annotated[
        str | None,
        typer.Option(
            show_default=False, help="What clients must send; without it NOMOAT_API_KEY, which other users of the machine do not see."
        ),
    ] = None,
    cors: Annotated[
        list[str] | None,
        typer.Option(metavar="ORIGIN", show_default=False, help="Web pages that may ask, with the key; may be given again."),
    ] = None,
    drain_seconds: Drain = 0,
    max_tokens: MaxTokens = None,
    context_tokens: options.ContextSize = None,
    quality: options.Quality = None,
    template: options.Template = None,
    memory_gigabytes: Memory = None,
) -> None:
    """Serve models over HTTP, as OpenAI's API does, and a page to talk to them in a browser.

    \b
    Examples:
      nomoat serve smollm2-135m
      nomoat serve smollm2-135m smollm2-135m+spam --port 9000
      NOMOAT_API_KEY=what-others-send nomoat serve smollm2-135m --host 0.0.0.0

    The first model is loaded at once, the others when they are first asked for. What has been idle the longest is unloaded when the
    memory is needed. Several adapters of one base share its weights. Ctrl-C stops it. No prompt and no answer is logged. Models on
    other servers (http://...) are asked with the key in NOMOAT_UPSTREAM_API_KEY, never with the one clients send. Keys are variables,
    or lines of keys.toml in NOMOAT_HOME.
    """
    from nomoat import extras, responder

    with extras.needed_for("`nomoat serve`"):
        from nomoat.serve import app, auth, sharing
        from nomoat.serve.models import from_references
    key_from = "--api-key"
    if api_key is not None:
        auth.require_sendable(api_key)
    elif said := config.secret(config.CLIENTS_KEY):
        api_key, key_from = said.value, said.reason
    responder.require_template_taken(models, template)
    policy, auto_local = _policy() if references.AUTO in models else (None, None)
    served = from_references(
        models, context_tokens=context_tokens, template=template, auto_local=auto_local,
        memory_bytes=None if memory_gigabytes is None else int(memory_gigabytes * 1e9),
        load=functools.partial(load_sharing_with_bar, context_tokens=context_tokens, template=template, policy=policy),
    )  # fmt: skip
    with suppress(KeyboardInterrupt):  # while the model is loaded; once it serves, `app.serve` returns
        app.serve(
            served, host=host, port=port, api_key=api_key, cors=cors or (), drain_seconds=drain_seconds, max_tokens=max_tokens,
            on_ready=lambda url: _say_ready(url, served, key_from if api_key else None),
        )  # fmt: skip
    _end_without(sharing.THREAD_NAME)


def _policy() -> tuple[PolicyFile, str]:
    """What `auto` goes by, and its model on this machine; what has to be known about it is said.

    What can be seen to keep `auto` from being loaded is raised before anything is.
    """
    from nomoat.route import router
    from nomoat.route.policy import PolicyFile

    file = PolicyFile()
    policy = file.parsed()
    answering.say_notes(policy.notes)
    return file, router.require_loadable(policy)


def _end_without(threads: str) -> None:
    """Say that it has stopped, and end the process now if threads of this name go on.

    Python would wait for one that hangs in a connection nobody answers.
    """
    from nomoat import cache

    console.say("stopped")
    deadline = time.monotonic() + SECONDS_TO_END
    for thread in threading.enumerate():
        if thread.name.startswith(threads):
            thread.join(max(0.0, deadline - time.monotonic()))
            if thread.is_alive():
                cache.remove_temporary()
                os._exit(0)


def _say_ready(url: str, models: Models, key_from: str | None) -> None:
    """How to ask, from here and from other machines, and which models have to be asked otherwise: in their own words, or no chats.

    The key is not shown: the lines name the variable if it is from the environment, else KEY, and where that is.

    `key_from` None: there is none.
    """
    reachable = _at(url, "127.0.0.1", "[::1]")
    header, key = "", '"none"'
    if key_from == "environment":
        variable = "%NOMOAT_API_KEY%" if sys.platform == "win32" else "$NOMOAT_API_KEY"
        header, key = f' -H "Authorization: Bearer {variable}"', 'os.environ["NOMOAT_API_KEY"]'
    elif key_from:
        header, key = ' -H "Authorization: Bearer KEY"', '"KEY"'
    questions, first = models.questions(models.names), models.names[0]
    without_chat = [name for name, chats in models.chats(models.names).items() if chats is False]
    console.say(f"{', '.join(models.names)} at {url} (Ctrl-C stops)")
    console.say(f"  in a browser: {reachable.removesuffix('v1')}")
    if reachable != url and (address := _for_others(is_ipv6="[" in url)):
        console.say(f"  from other machines: {_at(url, address, address).removesuffix('v1')}")
    content = labelling.put_question(questions.get(first, labelling.TEXT), "What is a moat?")
    # a small model may write on until its context is full, as curl shows nothing meanwhile: by itself a chat has no limit
    call, body = "chat/completions", {"model": first, "messages": [{"role": "user", "content": content}], "max_tokens": 200}
    if first in without_chat:
        call, body = "completions", {"model": first, "prompt": "A moat is"}
    in_ascii = sys.platform == "win32"  # where a curl may send what its code page makes of other letters
    asked = commands.as_line([json.dumps(body, ensure_ascii=in_ascii)])
    console.say(f'  curl {reachable}/{call}{header} -H "Content-Type: application/json" -d {asked}')
    console.say(f'  openai.OpenAI(base_url="{reachable}", api_key={key})')
    if key_from not in (None, "environment"):
        console.say(f"  KEY: the one of {key_from}")
    if questions:
        tuned = [name for name in questions if name != references.AUTO]
        answering.say_notes([_ask_as_tuned(tuned or ["the model that `auto` answers with here"])])
    if without_chat:
        answering.say_notes([_ask_for_texts(without_chat)])


def _at(url: str, ipv4: str, ipv6: str) -> str:
    """The URL of a server that is bound to all addresses, at this one of them; another server's stays."""
    return url.replace("//0.0.0.0:", f"//{ipv4}:").replace("//[::]:", f"//{ipv6}:")


def _for_others(*, is_ipv6: bool) -> str | None:
    """Where other machines reach a server that is bound to all addresses, as URLs have it."""
    from nomoat import net

    if is_ipv6 and (address := net.own_address(is_ipv6=True)):
        return f"[{address}]"
    return net.own_address(is_ipv6=False) if not is_ipv6 or net.ipv6_takes_ipv4() else None


def _ask_as_tuned(names: Sequence[str]) -> str:
    each = "was tuned on a table, and has" if len(names) == 1 else "were each tuned on a table, and have"
    return (
        f"{first_few(names, NAMED)} {each} to be asked in its words, which `nomoat show MODEL` prints and `v1/models` has as "
        "`question`; an answer to other words says so in the header `x-nomoat-notes`"
    )


def _ask_for_texts(names: Sequence[str]) -> str:
    each = "has no chat template: it completes" if len(names) == 1 else "have no chat template: they complete"
    return (
        f"{first_few(names, NAMED)} {each} texts (`v1/completions`), and chats are refused, the page's too; `--template NAME` gives "
        "one, to all models of a server, and `nomoat run MODEL hi` says which fits"
    )
