"""What every command shares: stderr for people, stdout for data, and progress bars with an ETA."""

from __future__ import annotations

import codecs
import dataclasses
import functools
import io
import json
import logging
import shutil
import sys
import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from nomoat.errors import UsageError
from nomoat.words import SHOWN_TURNS

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress, TextColumn
    from rich.segment import Segment
    from rich.table import Table

# Words that are not ours (a model's, a server's, of a file's name) must not drive the user's terminal (clipboard, title, colours).
# They show letters in another order than they stand in.
DIRECTIONS = (0x061C, 0x200E, 0x200F, *SHOWN_TURNS)
TERMINAL_CONTROLS = {code: None for code in (*range(0x20), *range(0x7F, 0xA0), *DIRECTIONS) if chr(code) not in "\n\t"}
# Those that JSON leaves as they are, in its own words.
ESCAPED_CONTROLS = {code: f"\\u{code:04x}" for code in (*range(0x7F, 0xA0), *DIRECTIONS)}
NARROW_WIDTH = 70  # columns: with less there is room for no bar
FIGURES_WIDTH = 30  # of a narrow one, for what stands behind a name: "12.3/270.9 MB 0:00:12"
LONG_WORD = 20  # columns: one that is wider may be broken where a cell may
SECONDS_BETWEEN_LINES = 30.0  # of a log, on how far a model or a file is
GAP = 2  # blanks between the columns of a table
PIPED_WIDTH = 200  # no line is broken for a program that reads
STOPPED_EXIT = 130  # as shells have it of Ctrl-C

LOG_LINE, LOG_TIME = "%(asctime)s %(levelname)s: %(message)s", "%Y-%m-%d %H:%M:%S%z"

_may_be_lost = threading.Event()  # these two: see `logged`
_logs: list[logging.Logger] = []


def stderr_console() -> Console:
    """A console on stderr, for bars. Made anew each time, so that tests which replace sys.stderr see it."""
    return _console(stderr=True, soft_wrap=True)


def stdout_console() -> Console:
    """A console on stdout, for tables a person reads."""
    return _console()


def _console(**options: Any) -> Console:
    """What stands in brackets or colons is text there, and no markup; nor does a text drive the terminal it is shown on."""
    from rich.console import Console
    from rich.segment import Segment

    class Plain(Console):
        def render(self, *given: Any, **named: Any) -> Iterable[Segment]:
            for part in super().render(*given, **named):
                is_text = self.is_terminal and not part.control
                yield Segment(part.text.translate(TERMINAL_CONTROLS), part.style) if is_text else part

        def print(self, *objects: Any, **options: Any) -> None:
            """Rich fills up a table's last column with blanks, and leaves one where it breaks a line: a file gets none."""
            if self.is_terminal:
                super().print(*objects, **options)
                return
            with self.capture() as shown:
                super().print(*objects, **options)
            self.file.write("\n".join(line.rstrip(" ") for line in shown.get().split("\n")))

    out = Plain(highlight=False, markup=False, emoji=False, **options)
    if out.is_dumb_terminal:  # rich takes each for one of 80 columns
        out.size = shutil.get_terminal_size()
    return out


def wide_out() -> Console:
    """A console on stdout, for lists that programs read too."""
    out = stdout_console()
    if not out.is_terminal:
        out.width = PIPED_WIDTH
    return out


def table(*, show_header: bool = True) -> Table:
    """An empty table without lines."""
    from rich.table import Table

    return Table(box=None, pad_edge=False, padding=(0, GAP, 0, 0), show_header=show_header)


def facts_table() -> Table:
    """An empty one of names, and beside each what is so called, which may go on in the next line."""
    facts = table(show_header=False)
    facts.add_column(no_wrap=True)
    facts.add_column(overflow="fold")
    return facts


def print_rows(
    out: Console, columns: Mapping[str, Sequence[str]], *, num_heads: int, broken: Collection[str] = (), numbers: Collection[str] = ()
) -> None:
    """A table of these columns, by their titles. Cells of those that are `broken` may be: between words, and long words;
    the first get what room there is. `numbers` stand to the right.

    Where it is wider than the console, each row stands by itself: its first `num_heads` cells in a line, and below it, beside their
    titles, those of the others that are neither "-" nor empty.
    """
    from rich.cells import cell_len
    from rich.text import Text

    whole = {title: max(map(cell_len, (title, *cells))) for title, cells in columns.items()}
    words = {title: max(map(cell_len, (title, *" ".join(columns[title]).split()))) for title in broken}
    widths = whole | {title: min(LONG_WORD, width) for title, width in words.items()}
    spare = out.width - sum(widths.values()) - GAP * (len(columns) - 1)
    if spare >= 0:
        rows = table()
        for title in broken:
            more = min(whole[title] - widths[title], spare)
            widths[title], spare = widths[title] + more, spare - more
        for title, width in widths.items():
            rows.add_column(title, width=width, overflow="fold", justify="right" if title in numbers else "left")
        for row in zip(*columns.values(), strict=True):
            rows.add_row(*(Text(cell) for cell in row))
        out.print(rows)
        return
    width = max(map(len, [*columns][num_heads:]))
    for row in zip(*columns.values(), strict=True):
        out.print(Text("  ".join(row[:num_heads]), overflow="fold"))
        facts = facts_table()
        for title, cell in list(zip(columns, row, strict=True))[num_heads:]:
            if cell not in ("-", ""):
                facts.add_row(f"   {title:{width}}", Text(cell))
        out.print(facts)


def say(text: str) -> None:
    """One plain sentence to the person, on stderr. Raises OSError where that cannot be written, but within `logged`."""
    text = text.translate(TERMINAL_CONTROLS)
    if _logs:
        _logs[-1].info("%s", text)
        return
    try:
        print(text, file=sys.stderr, flush=True)
    except OSError:
        if not _may_be_lost.is_set():
            raise


@contextmanager
def logged(log: logging.Logger) -> Iterator[None]:
    """Logs are on stderr, with time and level. Where that is no terminal, `log` tells of its INFO, too, and within this, in all
    threads, what `say` is told is among it: a log has one kind of line. What cannot be written is lost, and clients are answered
    all the same: the disk of a log is full, its reader or the terminal has gone."""
    logging.basicConfig(format=LOG_LINE, datefmt=LOG_TIME)
    level = log.level
    _may_be_lost.set()
    if not sys.stderr.isatty():
        log.setLevel(logging.INFO)
        _logs.append(log)
    try:
        yield
    finally:
        _may_be_lost.clear()
        _logs.clear()
        log.setLevel(level)


def print_text(text: str = "", *, end: str = "\n", flush: bool = False) -> None:
    """A text on stdout. A terminal is not driven by it; a pipe and a file get it as it is."""
    print(text.translate(TERMINAL_CONTROLS) if sys.stdout.isatty() else text, end=end, flush=flush)


def one_line(text: str) -> str:
    """The text in one line, blanks in place of its line ends, without control characters."""
    return " ".join(text.splitlines()).translate(TERMINAL_CONTROLS)


def has_person() -> bool:
    """Whether a person sits at a terminal, who can be asked. Python has no stdin at all where it was closed (`<&-`)."""
    return sys.stdin is not None and sys.stdin.isatty()


def confirm_removal(what: str, *, yes: bool) -> None:
    """End the command if the person does not want this removed. Raises UsageError where there is nobody to ask."""
    import typer

    if yes:
        return
    if not has_person():
        raise UsageError(
            f"there is no terminal to ask on whether to remove {what}; nothing was removed", hint="if that is meant, add --yes"
        )
    if not typer.confirm(f"Remove {what}?", err=True):
        raise typer.Exit(1)


def piped() -> str:
    """The text that is piped in; empty where nothing is. Raises UsageError if it is no text.

    What is not UTF-8 is read as what this system writes to a pipe, nomoat too (CP949 on a Korean Windows), and that is noted.
    """
    if sys.stdin is None or sys.stdin.isatty():
        return ""
    given = sys.stdin.buffer.read()
    try:
        return given.decode("utf-8-sig")
    except UnicodeDecodeError as exc:
        with suppress(UnicodeDecodeError):
            text = given.decode(sys.stdin.encoding)
            say(f"note: what is piped in is not UTF-8 text, and is read as {sys.stdin.encoding}, as this system writes it")
            return text
        raise UsageError(
            f"what is piped in is not UTF-8 text (byte {exc.start:,})",
            hint="save it as UTF-8, or convert it, such as Korean of Windows: `iconv -f cp949 -t utf-8`",
        ) from exc


def print_what_it_can() -> None:
    """What stdout's encoding lacks (an emoji in CP949) is written as `?`, and ends nothing; in a file or a pipe it is noted."""
    if isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout.errors in ("strict", "surrogateescape"):
        codecs.register_error("noted", _replaced)
        sys.stdout.reconfigure(errors="replace" if sys.stdout.isatty() or _writes_all() else "noted")


def _replaced(exc: UnicodeError) -> tuple[str | bytes, int]:
    _note_lack(sys.stdout.encoding)
    return codecs.replace_errors(exc)


@functools.cache
def _note_lack(encoding: str) -> None:
    say(f"note: in what is written `?` stands for characters that {encoding} lacks; PYTHONUTF8=1 writes them all")


def _writes_all() -> bool:
    """Whether stdout's encoding has all letters."""
    return codecs.lookup(sys.stdout.encoding or "utf-8").name == "utf-8"


def print_json(value: object) -> None:
    """Data for machines, on stdout, whole in whatever encoding that has. Dataclasses become objects."""
    text = json.dumps(value, ensure_ascii=not _writes_all(), indent=2, default=_plain)
    print(text.translate(ESCAPED_CONTROLS) if sys.stdout.isatty() else text)


def byte_progress() -> Progress:
    """A bar for downloads: size, speed, time left. On a narrow terminal only size and time."""
    from rich.progress import BarColumn, DownloadColumn, TimeRemainingColumn, TransferSpeedColumn

    if _is_narrow():
        return _progress(DownloadColumn(), TimeRemainingColumn())
    return _progress(BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())


@contextmanager
def download_bar(title: str) -> Iterator[Callable[[str, int, int | None], None]]:
    """A bar that shows what it is told: (file name, bytes so far, bytes in all if known). It bears the title until then."""
    with byte_progress() as bar:
        task = bar.add_task(title, total=None)

        def show(name: str, done_bytes: int, total_bytes: int | None) -> None:
            bar.update(task, description=name, completed=done_bytes, total=total_bytes)

        yield show


def item_progress() -> Progress:
    """A bar for counted work: done of total, time left, and a free text field `info`."""
    from rich.progress import BarColumn, MofNCompleteColumn

    return _timed_progress(BarColumn(), MofNCompleteColumn())


def stage_progress() -> Progress:
    """A bar for work in stages that is measured in parts of a whole: percent, time left, and a free text field `info`."""
    from rich.progress import BarColumn, TaskProgressColumn

    return _timed_progress(BarColumn(bar_width=20), TaskProgressColumn())


def _timed_progress(bar: Any, done: Any) -> Progress:
    """On a narrow terminal only how much is done, and the time left."""
    from rich.progress import TimeElapsedColumn, TimeRemainingColumn

    left = (_text_column("left"), TimeRemainingColumn())
    if _is_narrow():
        return _progress(done, *left)
    return _progress(bar, done, _text_column("{task.fields[info]}"), TimeElapsedColumn(), *left)


@contextmanager
def waiting(what: str) -> Iterator[Callable[[int, int], None]]:
    """A bar with a clock for work such as "reading my.csv". On a narrow terminal the clock alone.

    It has a length, and the time left, once it is told (done so far, in all); in a log that is a line at each new tenth.
    """
    from rich.progress import TimeElapsedColumn

    with _progress(TimeElapsedColumn()) if _is_narrow() else stage_progress() as bar:
        task, log = bar.add_task(what, total=None, info=""), Tenths(bar, apart_seconds=SECONDS_BETWEEN_LINES)

        def show(done: int, total: int) -> None:
            bar.update(task, completed=done, total=total)
            log.show(what, done / max(total, 1), "")

        yield show


def _text_column(text: str, *, max_width: int | None = None) -> TextColumn:
    """Brackets in a model's or a file's name are no markup."""
    from rich.progress import TextColumn
    from rich.table import Column

    return TextColumn(text, markup=False, table_column=Column(no_wrap=True, max_width=max_width))


def _is_narrow() -> bool:
    return stderr_console().width < NARROW_WIDTH


def shows_bars() -> bool:
    """Whether stderr is a terminal, as far as both the system and rich can tell, on which a line can be drawn again (TERM)."""
    out = stderr_console()
    return out.is_terminal and not out.is_dumb_terminal and sys.stderr.isatty()


def _progress(*columns: Any) -> Progress:
    """On stderr, behind its description, and gone when the work is done. In a log there is none, whatever FORCE_COLOR tells rich."""
    from rich.progress import Progress

    name_width = max(1, stderr_console().width - FIGURES_WIDTH) if _is_narrow() else None
    described = (_text_column("{task.description}", max_width=name_width), *columns)
    return Progress(*described, console=stderr_console(), transient=True, disable=not shows_bars())


class Tenths:
    """Tells a log, where the bar is not drawn, how far a piece of work is: a line at each new tenth of it."""

    def __init__(self, bar: Progress, *, apart_seconds: float = 0.0) -> None:
        """`apart_seconds`: so long after the beginning, and after a line, there is none."""
        self._is_told, self._apart_seconds = bar.disable, apart_seconds
        self._silent_until, self._last = time.monotonic() + apart_seconds, -1

    def show(self, what: str, fraction: float, info: str) -> None:
        """So much of it is done; `info`, if there is any, stands behind that."""
        tenths, now = int(10 * fraction), time.monotonic()
        if tenths < self._last:  # there is more of it than was known
            self._last = -1
        if self._is_told and tenths > self._last and now >= self._silent_until:
            self._silent_until, self._last = now + self._apart_seconds, tenths
            say(f"{what}: {fraction:.0%}{', ' if info else ''}{info}")


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.asdict(value)
    if isinstance(value, frozenset | set):
        return list(value)
    return str(value)
