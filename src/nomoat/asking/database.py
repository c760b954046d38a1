"""One SQLite file that several threads and processes read and write at the same time, and that a killed process leaves whole.

What this does not cover: a network folder whose locks do not work is no place for such a file.
"""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from nomoat import paths, system_errors, whole_files
from nomoat.errors import BadFileError, DamagedError, UsageError

LOCK_WAIT_SECONDS = 60.0
DAMAGED = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_ERROR)  # the last: no such table, no JSON
MAYBE_FULL = (sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN)  # no room for its `-shm`; no more files
NOT_ALLOWED = (sqlite3.SQLITE_PERM, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_AUTH)


class Database:
    """A file of ours, made if it is not there, with a folder for its owner alone. What a turn has written is on the disk at its end,
    but for a `quick_turn`.

    `schema` makes the tables of `version`; `table` is one of them; `if_damaged` says what to do about a damaged file.
    Raises DamagedError, also for an empty file, which was cut, and for what is no SQLite file; BadFileError for a database that is not
    ours, or from a newer nomoat; and NotEnoughDiskError.
    """

    def __init__(self, path: Path, *, schema: str, version: int, table: str, if_damaged: str) -> None:
        self.path = path
        self._is_closed = False
        self._if_damaged = if_damaged
        with system_errors.translate_disk_errors(path):
            paths.make_folder(path.parent, mode=paths.OWNER_ALONE)
            self._make_file(schema, version)
        self._file = _file_at(path)  # before it is opened: if it is replaced in between, that one is not taken for the other
        self._lock = threading.RLock()  # one statement at a time, and a transaction as a whole
        with self._translated():
            # Every statement commits by itself.
            self.connection = sqlite3.connect(path, timeout=LOCK_WAIT_SECONDS, isolation_level=None, check_same_thread=False)
            try:
                self._open(version, table)
            except BaseException:
                self.connection.close()
                raise

    @contextmanager
    def turn(self) -> Iterator[sqlite3.Connection]:
        """The turn of one thread. Raises what opening raises, BadFileError where another process holds the file too long, and
        UsageError where it was closed."""
        with self._translated(), self._lock:
            if self._is_closed:
                raise UsageError(f"`{self.path}` was closed", hint="open it again, or leave it when all has been asked")
            yield self.connection

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """A turn in which no other process writes, and which is written as a whole, or not at all if it raises."""
        with self.turn() as connection:
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield connection
            except BaseException:
                if connection.in_transaction:  # some failures, as of a full disk, have ended it already
                    connection.execute("ROLLBACK")
                raise
            connection.execute("COMMIT")

    @contextmanager
    def quick_turn(self) -> Iterator[sqlite3.Connection]:
        """A turn that does not wait for the disk: a power cut may undo what it writes, no `kill -9` does. Not within a transaction."""
        with self.turn() as connection:
            connection.execute("PRAGMA synchronous = NORMAL")
            try:
                yield connection
            finally:
                connection.execute("PRAGMA synchronous = FULL")

    def is_in_place(self) -> bool:
        """Whether the file is still the one at its path. Of one that was moved, replaced or removed another process sees nothing."""
        return self._file is not None and _file_at(self.path) == self._file

    def shrink(self) -> None:
        """Let nothing of removed rows be left, in the file or in those beside it. What a killed process began so can be begun again.

        Raises BadFileError, too, where another process has not read to its end for too long.
        """
        with self.turn() as connection:
            connection.execute("VACUUM")
            self.empty_log()

    def empty_log(self) -> None:
        """Let all that was written be in the file itself. Raises what `shrink` raises."""
        with self.turn() as connection:
            (is_busy, _, _) = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
            if is_busy:
                raise self._locked()

    def close(self) -> None:
        """Let go of the file, after the turn of whoever has it. Calling it twice is fine."""
        with self._lock:  # closed within another thread's statement, it would take the process with it
            self._is_closed = True
            self.connection.close()

    def require_whole(self) -> None:
        """Raises DamagedError where a page is damaged; what rows say is not looked at."""
        with self.turn() as connection:
            (told,) = connection.execute("PRAGMA quick_check(1)").fetchone()
        if told != "ok":
            raise self.damaged(told)

    def damaged(self, why: object) -> DamagedError:
        """The error for what was found in the file and cannot have been written by us."""
        return DamagedError(f"`{self.path}` is damaged: {why}", hint=self._if_damaged)

    def _locked(self) -> BadFileError:
        return BadFileError(
            f"`{self.path}` is locked by another process for more than {LOCK_WAIT_SECONDS:.0f} s",
            hint="wait for it or end it, or set NOMOAT_HOME elsewhere",
        )

    def _make_file(self, schema: str, version: int) -> None:
        """The file with its tables, whole, if there is none; without what lies beside it of one that was moved or removed while a
        process had it open: to SQLite, which keeps that beside what a link leads to, it is of any file with this name."""
        place = paths.led_to(self.path)
        if place.exists():
            return
        with whole_files.alone(place, locks=place.with_name("locks")):
            if place.exists():
                return
            for old in beside(place):
                old.unlink(missing_ok=True)
            new = whole_files.whole_file(place, first_stays=True)  # on a disk without locks another process may make it, too
            with self._translated(), new as part, closing(sqlite3.connect(part)) as connection:
                _make_tables(connection, schema, version)

    def _open(self, version: int, table: str) -> None:
        if self.path.is_file() and not self.path.stat().st_size:
            raise self.damaged("it is empty")
        self.connection.execute(f"PRAGMA busy_timeout = {int(LOCK_WAIT_SECONDS * 1000)}")
        self._require_ours(version, table)
        self._use_wal()
        self.connection.execute("PRAGMA synchronous = FULL")  # it may be about money: on the disk, not only in the system's cache
        self.connection.execute(f"SELECT count(*) FROM (SELECT 1 FROM {table} LIMIT 1)")  # a damaged file says so now

    def _require_ours(self, version: int, table: str) -> None:
        """Raises BadFileError for what is not, of which nothing is changed."""
        (found,) = self.connection.execute("PRAGMA user_version").fetchone()
        if found > version:
            raise BadFileError(f"`{self.path}` was written by a newer nomoat", hint="update nomoat, or set NOMOAT_HOME elsewhere")
        has_table = self.connection.execute("SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = ?", (table,)).fetchone()
        if found < version or not has_table:
            raise BadFileError(f"`{self.path}` is no file of nomoat's", hint="move it away, or set NOMOAT_HOME elsewhere")

    def _use_wal(self) -> None:
        """Let readers and one writer work at the same time.

        SQLite does not wait for its lock here, whatever the timeout says, when several processes open a new file together.
        """
        deadline = time.monotonic() + LOCK_WAIT_SECONDS
        while True:
            try:
                self.connection.execute("PRAGMA journal_mode = WAL")
                return
            except sqlite3.OperationalError as exc:
                if exc.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                    raise
                time.sleep(0.01)

    @contextmanager
    def _translated(self) -> Iterator[None]:
        """SQLite's errors as ours."""
        try:
            yield
        except sqlite3.DatabaseError as exc:
            code = getattr(exc, "sqlite_errorcode", 0) & 0xFF
            if code == sqlite3.SQLITE_FULL or (code in MAYBE_FULL and system_errors.is_full(self.path.parent)):
                raise system_errors.full_disk(self.path) from exc
            if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
                raise self._locked() from exc
            if code == 0 and isinstance(exc, sqlite3.OperationalError):  # the error quotes the whole text
                raise self.damaged("a text in it is not UTF-8") from exc
            if code in DAMAGED:
                raise self.damaged(exc) from exc
            hint = system_errors.RUNS_HINT if code in NOT_ALLOWED else None
            if code == sqlite3.SQLITE_IOERR:
                hint = "does its disk fail, or is there a limit on how large a file may be (`ulimit -f`)?"
            raise BadFileError(f"`{self.path}` cannot be used: {exc}", hint=hint) from exc


def beside(path: Path) -> tuple[Path, Path]:
    """What SQLite keeps beside a file that is no link: its log, and what processes that use it share."""
    return path.with_name(f"{path.name}-wal"), path.with_name(f"{path.name}-shm")


def _file_at(path: Path) -> tuple[int, int] | None:
    """Which file that is, whatever it is called; None where there is none, or it cannot be seen."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _make_tables(connection: sqlite3.Connection, schema: str, version: int) -> None:
    connection.executescript(f"BEGIN IMMEDIATE; {schema} PRAGMA user_version = {version}; COMMIT;")
