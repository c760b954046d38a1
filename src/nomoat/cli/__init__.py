"""The command line: one file a verb, thin; whatever is heavy is imported when the verb runs."""

from __future__ import annotations

import errno
import gc
import os
import re
import signal
import sys
import threading
from contextlib import suppress
from typing import Any, NoReturn, TextIO

import typer

from nomoat import __version__, paths, system_errors
from nomoat.cli import console
from nomoat.cli.groups import Group, Verbs
from nomoat.errors import IncompleteError, NomoatError, UsageError

# Each is a function, or commands, of that name in the module of that name; in the README's order.
VERBS = (
    "demo", "pull", "models", "show", "rm", "run", "serve", "tune", "export", "distil", "suites", "eval", "duel", "route", "bench",
    "config",
)  # fmt: skip
SECONDS_TO_NEXT_TRY = 0.05
LITTLE_BYTES = 6 << 30  # two copies of OpenBLAS, of numpy and scipy, map 40 MB for each of up to 64 threads
KEPT_BACK_BYTES = 8 << 20  # mapped, not used: what the words of an error need where memory ends, and modules without bytecode
GARBAGE_THRESHOLD = 50_000  # new objects between two looks for garbage: imports make many and drop none

# What people who come from other tools type, and what it is called here.
CALLED_ELSEWHERE = {
    "list": "models", "ls": "models", "search": "models", "download": "pull", "install": "pull", "info": "show", "delete": "rm",
    "remove": "rm", "chat": "run", "ask": "run", "generate": "run", "start": "serve", "server": "serve", "train": "tune",
    "finetune": "tune", "fine-tune": "tune", "evaluate": "eval", "test": "eval", "score": "eval", "compare": "duel", "vs": "duel",
    "benchmark": "bench", "convert": "export", "merge": "export", "distill": "distil",
}  # fmt: skip

NOT_HERE = {  # verbs that have no counterpart, and what to do instead
    "ps": "While 'nomoat serve' runs, its /v1/models tells what is loaded.",
    "stop": "Ctrl-C ends 'nomoat serve'; nothing else stays in memory.",
    "create": "A system message and settings are options of 'nomoat run'; 'nomoat tune' teaches a model.",
    "cp": "A file has the name it lies under: a symbolic link gives it another one.",
    "push": "'nomoat export' writes files that you can upload.",
    "help": "'nomoat -h' lists the verbs, 'nomoat VERB -h' tells of one.",
}


class Stopped(KeyboardInterrupt):
    """The system wants this process to end: SIGTERM, or a terminal that is closed. As Ctrl-C, but where that ends an answer alone."""


class _Verbs(Group):
    """The verbs; one that Ctrl-C ends, and that has no more to say of it, says so, and one of another tool is told its name here."""

    def __init__(self, **told: Any) -> None:
        super().__init__(**told)
        self.commands = Verbs(VERBS)  # type: ignore[assignment]

    def resolve_command(self, ctx: typer.Context, args: list[str]) -> Any:  # type: ignore[override]
        told = NOT_HERE | {name: f"Here that is 'nomoat {verb}'." for name, verb in CALLED_ELSEWHERE.items()}
        if args[0] in told:
            ctx.fail(f"No such command '{args[0]}'. {told[args[0]]}")
        return super().resolve_command(ctx, args)

    def invoke(self, ctx: typer.Context) -> Any:  # type: ignore[override]
        if signal.getsignal(signal.SIGINT) is signal.SIG_DFL:  # until here it would have been a traceback, see `nomoat.__main__`
            signal.signal(signal.SIGINT, signal.default_int_handler)
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            console.say("stopped")
            raise typer.Exit(console.STOPPED_EXIT) from None


app = typer.Typer(
    name="nomoat",
    cls=_Verbs,
    no_args_is_help=True,
    add_completion=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="""Run, tune and prove open language models on an ordinary PC.

    \b
    Examples:
      nomoat demo                                   # the whole story in minutes
      nomoat pull smollm2-135m                      # fetch a model, licence and memory first
      nomoat run smollm2-135m "What is a moat?"     # ask it, here, privately
    """,
)


def _print_version(asked: bool) -> None:
    if asked:
        console.print_text(f"nomoat {__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: bool = typer.Option(False, "--version", callback=_print_version, is_eager=True, help="Print the version."),
) -> None:
    """Settings that every verb shares."""
    from nomoat import config as settings

    paths.require_home()  # whatever the verb: what no verb can do without is said at once
    settings.read_file()
    for name, meant in settings.misspelt():
        console.say(f"note: {name} is set, and nomoat knows no such variable; did you mean {meant}?")


def _stop(number: int, frame: object) -> None:
    """Be stopped by the system as by Ctrl-C: what is under way is kept or swept."""
    raise Stopped


def _interrupt_again(lost: sys.UnraisableHookArgs) -> None:
    """Ctrl-C that came where Python can raise nothing (in a callback of C, in a destructor) comes again a moment later; so does
    `Stopped`."""
    if not issubclass(lost.exc_type, KeyboardInterrupt):
        sys.__unraisablehook__(lost)
        return
    main_thread = threading.main_thread().ident or 0
    number = signal.SIGTERM if issubclass(lost.exc_type, Stopped) else signal.SIGINT
    again = threading.Timer(SECONDS_TO_NEXT_TRY, signal.pthread_kill, [main_thread, number])
    again.daemon = True
    again.start()


def _open_what_is_closed() -> bool:
    """What a daemon closed is read as nothing (`<&-`), and words to a person are lost (`2>&-`). Else a file of ours would be opened
    as 1, where others print. Returns whether stdout is closed (`>&-`): then data for it is no success, and each write there fails.
    """
    is_closed = sys.stdout is None
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            mode = "r" if name == "stdin" else "w"
            os.dup2(os.open(os.devnull, os.O_WRONLY if name == "stderr" else os.O_RDONLY), number)
            setattr(sys, name, open(number, mode, buffering=1, encoding="utf-8", closefd=False))  # noqa: SIM115 - as long as the process
    return is_closed


def _map_little() -> None:
    """Where `ulimit -v` leaves little to map, OpenBLAS has one thread: for memory of more it may ask without end."""
    with suppress(ImportError):  # Windows
        import resource

        if 0 <= resource.getrlimit(resource.RLIMIT_AS)[0] < LITTLE_BYTES:  # -1: no limit
            os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")


def _fail(error: NomoatError) -> NoReturn:
    from nomoat.config import without_user

    for line in (f"error: {error.message}", *getattr(error, "__notes__", ())):  # the hint is the first note
        console.say(re.sub(r"\S+", lambda word: without_user(word[0]), line))  # what was given may be an address with a password
    _drop_what_is_refused(1, sys.stdout)
    sys.exit(2 if isinstance(error, IncompleteError) else 1)


def _drop_what_is_refused(number: int, stream: TextIO) -> None:
    """For an end that was an error already, or whose words may be lost: else Python writes it once more, and exits with 120."""
    try:
        stream.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), number)


def main() -> None:
    """Entry point: our own errors become a few lines on stderr and exit code 1, or 2; anything else is a bug and shows itself."""
    has_no_stdout = _open_what_is_closed()
    signal.signal(signal.SIGTERM, _stop)
    if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) is signal.SIG_DFL:  # a terminal that is closed; not under `nohup`
        signal.signal(signal.SIGHUP, _stop)
    if hasattr(signal, "pthread_kill"):  # not on Windows
        sys.unraisablehook = _interrupt_again
    gc.set_threshold(GARBAGE_THRESHOLD)
    console.print_what_it_can()
    _map_little()
    kept_back = bytearray(KEPT_BACK_BYTES)
    try:
        app()
    except SystemExit as end:
        if end.code:
            _drop_what_is_refused(1, sys.stdout)
        _drop_what_is_refused(2, sys.stderr)
        raise
    except NomoatError as error:
        _fail(error)
    except (OSError, MemoryError, RuntimeError, ImportError) as exc:
        del kept_back
        if has_no_stdout and isinstance(exc, OSError) and exc.errno == errno.EBADF:
            lost = "stdout is closed (`>&-`), and what was to be written there is lost"
            _fail(UsageError(lost, hint="where it is not wanted, `>/dev/null`"))
        found = system_errors.as_error(exc)
        if found is None:
            raise
        _fail(found)
