"""`nomoat bench`: what this machine can do, and how near a model comes to it."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nomoat import __version__
from nomoat.cli import completion, console, options
from nomoat.cli.loading import bars, loading_bars
from nomoat.errors import UsageError

if TYPE_CHECKING:
    from nomoat.bench.machine import Load, Machine
    from nomoat.bench.model import ModelSpeed


def bench(
    model: Annotated[
        str | None,
        typer.Argument(metavar="MODEL", help="A model on this machine: see `nomoat models`.", autocompletion=completion.models_here),
    ] = None,
    quality: options.Quality = None,
    as_json: options.AsJson = False,
) -> None:
    """Measure this machine's limits and, with MODEL, how near the model comes to them.

    \b
    Examples:
      nomoat bench                        # memory and arithmetic, in about three seconds
      nomoat bench smollm2-135m           # and how fast this model reads and writes
      nomoat bench smollm2-135m --quality high
      nomoat bench smollm2-135m --json

    Each figure is the best of several runs; other programs make it smaller. A note says so where the machine was busy before.
    """
    from nomoat.bench.machine import measure_machine, read_load
    from nomoat.bench.model import measure_model

    if quality is not None and model is None:
        raise UsageError("--quality is of a model, and none is named", hint="add MODEL")
    load, speed = read_load(), None
    if model is not None:
        with bars(*loading_bars(model), (f"timing {model}", "turns")) as (importing, compiling, progress):
            speed = measure_model(model, import_progress=importing, compiling=compiling, progress=progress)
    machine = measure_machine()
    if as_json:
        of_run = {"nomoat": __version__, "date": datetime.now(UTC).isoformat(timespec="seconds")}
        console.print_json({**of_run, "machine": machine, "load": load, "model": None if speed is None else _facts(speed, machine)})
        return
    _print_machine(machine)
    if speed is not None:
        console.print_text()
        _print_model(speed, machine)
    if load.is_busy:
        console.say(_busy_note(load))


def _busy_note(load: Load) -> str:
    return (
        f"note: the machine was busy: other programs used {load.busy_cpus:.1f} of its {load.num_cpus} CPUs just before; the figures "
        "are smaller for it: close them, or believe the larger of two runs"
    )


def _print_machine(machine: Machine) -> None:
    console.print_text(machine.summary)
    console.print_text(f"memory read, 1 thread     {machine.read_bytes_per_second_one_thread / 1e9:8.1f} GB/s")
    if machine.num_threads > 1:
        console.print_text(f"memory read, {f'{machine.num_threads} threads':<12} {machine.read_bytes_per_second / 1e9:8.1f} GB/s")
    console.print_text(f"matrix product, float32   {machine.gemm_flops / 1e9:8.1f} GFLOP/s")


def _print_model(speed: ModelSpeed, machine: Machine) -> None:
    facts = _facts(speed, machine)
    console.print_text(f"{speed.model}, best of {speed.turns}, one request at a time")
    console.print_text(f"load to the first token   {speed.load_seconds:8.2f} s")
    reading, writing = f"prefill, {speed.prompt_tokens} tokens", f"decode, {speed.new_tokens} tokens"
    console.print_text(
        f"{reading:<25} {_speed(speed.prefill_tokens_per_second)}{_share(facts['prefill_share'], 'of float32 arithmetic')}"
    )
    console.print_text(
        f"{writing:<25} {_speed(speed.decode_tokens_per_second)}{_share(facts['decode_share'], 'of what memory allows')}"
    )
    if speed.weights is not None:
        console.print_text(f"stored as                 {speed.weights.stored_as}")
        weights = f"{speed.weights.read_bytes / 1e6:,.1f} of weights"
        console.print_text(f"read a token              {facts['read_bytes_a_token'] / 1e6:8.1f} MB  ({weights})")
        console.print_text(f"float32 arithmetic gives  {_speed(facts['prefill_float32_tokens_per_second'])}")
        console.print_text(f"memory allows             {_speed(facts['decode_limit_tokens_per_second'])}")


def _facts(speed: ModelSpeed, machine: Machine) -> dict[str, Any]:
    """The speeds with the limits beside them, as plain data."""
    prefill_float32 = None if speed.weights is None else speed.weights.prefill_at_float32(machine)
    decode_limit = None if speed.weights is None else speed.weights.decode_limit(machine, speed.context_tokens)
    return {
        "model": speed.model,
        "turns": speed.turns,
        "prompt_tokens": speed.prompt_tokens,
        "new_tokens": speed.new_tokens,
        "load_seconds": speed.load_seconds,
        "prefill_tokens_per_second": speed.prefill_tokens_per_second,
        "prefill_float32_tokens_per_second": prefill_float32,
        "prefill_share": _ratio(speed.prefill_tokens_per_second, prefill_float32),
        "decode_tokens_per_second": speed.decode_tokens_per_second,
        "decode_limit_tokens_per_second": decode_limit,
        "decode_share": _ratio(speed.decode_tokens_per_second, decode_limit),
        "stored_as": None if speed.weights is None else speed.weights.stored_as,
        "weights_read_bytes": None if speed.weights is None else speed.weights.read_bytes,
        "read_bytes_a_token": None if speed.weights is None else speed.weights.bytes_a_token(speed.context_tokens),
    }


def _ratio(value: float | None, limit: float | None) -> float | None:
    return None if value is None or limit is None else value / limit


def _speed(tokens_per_second: float | None) -> str:
    return " not timed" if tokens_per_second is None else f"{tokens_per_second:8,.1f} tok/s"


def _share(share: float | None, of_what: str) -> str:
    return "" if share is None else f"  ({100 * share:.0f} % {of_what})"
