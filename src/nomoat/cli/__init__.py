"""The command line: one file a verb, thin; whatever is heavy is imported when the verb runs."""

from __future__ import annotations

import gc
import signal
import sys

import typer

from nomoat import __version__
from nomoat.cli.bench import bench
from nomoat.cli.config import config
from nomoat.cli.demo import demo
from nomoat.cli.distil import distil
from nomoat.cli.duel import duel
from nomoat.cli.eval import eval_
from nomoat.cli.export import export
from nomoat.cli.models import models
from nomoat.cli.pull import pull
from nomoat.cli.rm import rm
from nomoat.cli.route import route
from nomoat.cli.run import run
from nomoat.cli.serve import serve
from nomoat.cli.show import show
from nomoat.cli.suites import suites
from nomoat.cli.tune import tune
from nomoat.errors import NomoatError

GARBAGE_THRESHOLD = 50_000  # new objects between two looks for garbage: imports make many and drop none

app = typer.Typer(
    name="nomoat",
    no_args_is_help=True,
    add_completion=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="""Run, tune and prove open language models on an ordinary PC.

    \b
    Examples:
      nomoat demo                                   the whole story in minutes
      nomoat pull smollm2-135m                      fetch a model, licence and memory first
      nomoat run smollm2-135m "What is a moat?"     ask it, here, privately
    """,
)
for command in (demo, pull, models, show, rm, run, serve, distil, tune, export, duel, bench, config):
    app.command()(command)
app.command("eval")(eval_)
app.add_typer(route, name="route")
app.add_typer(suites, name="suites")


def _print_version(asked: bool) -> None:
    if asked:
        print(f"nomoat {__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: bool = typer.Option(False, "--version", callback=_print_version, is_eager=True, help="Print the version."),
) -> None:
    """Settings that every verb shares."""
    from nomoat import config as settings

    settings.read_file()  # whatever the verb: a broken file is said at once


def _interrupt(number: int, frame: object) -> None:
    """Be stopped by the system as by Ctrl-C: what is under way is kept or swept."""
    raise KeyboardInterrupt


def main() -> None:
    """Entry point: our own errors become two lines on stderr and exit code 1; anything else is a bug and shows itself."""
    signal.signal(signal.SIGTERM, _interrupt)
    gc.set_threshold(GARBAGE_THRESHOLD)
    try:
        app()
    except NomoatError as error:
        print(f"error: {error.message}", file=sys.stderr)
        if error.hint:
            print(f"hint: {error.hint}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        sys.exit(130)
