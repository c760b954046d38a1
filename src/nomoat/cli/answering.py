"""An answer on the terminal: its words on stdout as they come, what it took on stderr."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING

from nomoat.cli import Stopped, console
from nomoat.records import Chunk, FinishReason, Request, Usage

if TYPE_CHECKING:
    from nomoat.responder import Responder


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """What was printed. `usage` is None if Ctrl-C stopped the answer."""

    text: str
    finish_reason: FinishReason
    usage: Usage | None


def show(responder: Responder, request: Request) -> Shown:
    """Print an answer as it is written. Ctrl-C stops it and keeps what is there, if anything: finish_reason "cancelled"."""
    pieces: list[str] = []
    last: Chunk | None = None
    try:
        with closing(responder.stream(request)) as chunks:
            for last in chunks:
                pieces.append(last.text)
                console.print_text(last.text, end="", flush=True)
    except Stopped:
        raise
    except KeyboardInterrupt:
        last = None
    finally:
        text = "".join(pieces)
        if text and not text.endswith("\n"):
            console.print_text(flush=True)
    if last is None or last.finish_reason is None:
        return Shown(text=text, finish_reason="cancelled", usage=None)
    return Shown(text=text, finish_reason=last.finish_reason, usage=last.usage)


def say_notes(notes: Sequence[str]) -> None:
    """What has to be known, such as what another server refused of what was asked: a line each, on stderr."""
    for note in notes:
        console.say(f"note: {note}")


def say_outcome(shown: Shown, *, max_new_tokens: int | None, knows_context: bool = True, raised_by: str = "--max-tokens") -> None:
    """Whether the answer is whole, and how fast it was; on stderr. `knows_context`: all that can have cut it is known here.

    `raised_by`: what raises `max_new_tokens`.
    """
    if shown.finish_reason == "cancelled":
        console.say("[stopped]")
        return
    why = "the model's context is full" if knows_context else "its server has a limit of its own, or the model's context is full"
    written = 0 if shown.usage is None else shown.usage.completion_tokens
    if shown.finish_reason == "length" and shown.usage is not None and not shown.usage.is_counted:
        console.say(f"[cut: {why if max_new_tokens is None else f'{raised_by} raises that, unless {why}'}]")
    elif shown.finish_reason == "length" and (max_new_tokens is None or 0 < written < max_new_tokens):
        console.say(f"[cut after {written:,} new tokens: {why}]")
    elif shown.finish_reason == "length":
        console.say(f"[cut at {max_new_tokens:,} new tokens; {raised_by} raises that]")
    elif shown.finish_reason == "filtered":
        console.say("[ended by the server's filter]")
    elif not shown.text:
        console.say("[the model ended its answer without a word]")
    if shown.usage is not None:
        console.say(render_speed(shown.usage))


def render_speed(usage: Usage) -> str:
    """`[31 prompt tokens at 1,520 tok/s, 64 new at 98 tok/s, 0.8 s]`; without a speed where nothing was timed."""
    parts = [
        f"{usage.prompt_tokens:,} prompt tokens{_kept(usage)}{_at(usage.prefill_tokens_per_second)}",
        f"{usage.completion_tokens:,} new{_at(usage.decode_tokens_per_second)}",
    ]
    if not usage.is_counted or usage.prompt_tokens == usage.completion_tokens == 0:
        parts = ["tokens not told"]
    parts.append(f"{usage.seconds:.1f} s")
    if usage.bytes_out:
        parts.append(f"{usage.bytes_out:,} bytes sent out")
    return f"[{', '.join(parts)}]"


def _kept(usage: Usage) -> str:
    return f", {usage.cached_tokens:,} of them known, {usage.read_tokens:,} read" if usage.cached_tokens else ""


def _at(tokens_per_second: float) -> str:
    return f" at {tokens_per_second:,.0f} tok/s" if tokens_per_second > 0 else ""
