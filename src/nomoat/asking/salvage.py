"""What can still be read of a damaged SQLite file, page by page: SQLite itself gives up all that lies behind a page it cannot read.

Format: https://www.sqlite.org/fileformat2.html, of tables WITHOUT ROWID, whose rows lie in the pages of an index. What was written
last may still lie in the file's `-wal`, whose pages go first, up to the last transaction that was committed. Pages on the list of free
ones hold rows that were removed: left out.

What this does not cover: whether a row is what was written.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

Value = bytes | int | float | None  # texts as their bytes: they may be damaged, too

INTERIOR, LEAF = 2, 10  # kinds of an index's pages
USUAL_PAGE_BYTES = 4096
PAGE_BYTES = [2**power for power in range(9, 17)]  # those there are
LOG_MAGIC = {0x377F0682: "<", 0x377F0683: ">"}  # what a log begins with, and the order of bytes in its checksums
INTEGER_BYTES = (0, 1, 2, 3, 4, 6, 8)  # by the type's number
UNREADABLE = (IndexError, ValueError, struct.error)


@dataclass(slots=True)
class DamagedFile:
    """A file of so many pages; what `rows` has met is counted. `num_bad_rows`: those that are nothing, in pages that were read."""

    file: BinaryIO
    log: BinaryIO | None = None
    page_bytes: int = USUAL_PAGE_BYTES
    num_pages: int = 0
    num_pages_read: int = 0
    num_rows: int = 0
    num_bad_rows: int = 0
    _logged: dict[int, int] = field(default_factory=dict)  # where in the log the newest version of a page lies

    def __post_init__(self) -> None:
        if self.log is not None:
            with suppress(OSError):
                self._read_log(self.log)
        size = self.file.seek(0, 2)
        head = self._page(1)
        told = int.from_bytes(head[16:18], "big")
        if head.startswith(b"SQLite format 3\0") and told in PAGE_BYTES and not self._logged:  # a log's page size is checked
            self.page_bytes = told
        there = max([-(-size // self.page_bytes), *self._logged])
        told_pages = int.from_bytes(head[28:32], "big")
        self.num_pages = told_pages if there <= told_pages <= 1000 * there else there  # more than there are: it was cut

    def rows(self) -> Iterator[list[Value]]:
        """Every row that can be read, in no order."""
        free = self._free_pages()
        for number in range(2, self.num_pages + 1):  # in the first there are the tables' names alone
            page = b"" if number in free else self._page(number)
            if page[:1] not in (bytes([INTERIOR]), bytes([LEAF])):
                continue
            self.num_pages_read += 1
            yield from self._rows_of(page)

    def num_lost_rows(self) -> int:
        """After `rows`: those that were met and not read, and as many as would lie in the pages that were not."""
        each = self.num_rows / max(self.num_pages_read, 1)
        not_read = self.num_pages - 1 - len(self._free_pages()) - self.num_pages_read
        return self.num_bad_rows + round(each * max(not_read, 0))

    def _rows_of(self, page: bytes) -> Iterator[list[Value]]:
        before = 12 if page[0] == INTERIOR else 8
        num_cells = min(int.from_bytes(page[3:5], "big"), (len(page) - before) // 2)
        for (start,) in struct.iter_unpack(">H", page[before : before + 2 * num_cells]):
            try:
                values = _values(self._payload(page, start + (4 if page[0] == INTERIOR else 0)))
            except UNREADABLE:
                self.num_bad_rows += 1
                continue
            self.num_rows += 1
            yield values

    def _payload(self, page: bytes, at: int) -> bytes:
        """A row, with what lies of it in a chain of other pages."""
        size, at = _varint(page, at)
        if size > self.num_pages * self.page_bytes:
            raise ValueError("too long")
        most, least = (self.page_bytes - 12) * 64 // 255 - 23, (self.page_bytes - 12) * 32 // 255 - 23
        here = least + (size - least) % (self.page_bytes - 4)
        here = size if size <= most else here if here <= most else least
        payload, after = page[at : at + here], page[at + here : at + here + 4]
        while len(payload) < size:
            part = self._page(int.from_bytes(after, "big"))
            if len(part) < self.page_bytes:
                raise ValueError("cut off")
            self.num_pages_read += 1
            after, payload = part[:4], payload + part[4:]
        return payload[:size]

    def _page(self, number: int) -> bytes:
        """A page, or nothing where there is none, or the disk does not give it."""
        if number < 1:
            return b""
        file, at = self.file, (number - 1) * self.page_bytes
        if self.log is not None and number in self._logged:
            file, at = self.log, self._logged[number]
        try:
            file.seek(at)
            return file.read(self.page_bytes)
        except OSError:
            return b""

    def _free_pages(self) -> set[int]:
        free: set[int] = set()
        trunk = int.from_bytes(self._page(1)[32:36], "big")
        while trunk and trunk not in free and len(page := self._page(trunk)) >= 8:
            free.add(trunk)
            trunk, count = struct.unpack_from(">II", page)
            free.update(number for (number,) in struct.iter_unpack(">I", page[8 : 8 + 4 * min(count, len(page) // 4 - 2)]))
        return free

    def _read_log(self, log: BinaryIO) -> None:
        """The pages of committed transactions since the log began anew: those with its salt, as far as their checksums are right."""
        head = log.read(32)
        magic, told = int.from_bytes(head[:4], "big"), int.from_bytes(head[8:12], "big")
        if len(head) < 32 or magic not in LOG_MAGIC or told not in PAGE_BYTES:
            return
        order = LOG_MAGIC[magic]
        if (sums := _checksums(head[:24], (0, 0), order)) != struct.unpack(">II", head[24:]):
            return
        self.page_bytes = told
        at, uncommitted = len(head), dict[int, int]()
        while len(frame := log.read(24 + told)) == 24 + told and frame[8:16] == head[16:24]:
            sums = _checksums(frame[:8] + frame[24:], sums, order)
            if sums != struct.unpack(">II", frame[16:24]):
                return
            uncommitted[int.from_bytes(frame[:4], "big")] = at + 24
            at += len(frame)
            if any(frame[4:8]):  # the file's size after a commit
                self._logged |= uncommitted
                uncommitted.clear()


@contextmanager
def opened(path: Path) -> Iterator[DamagedFile]:
    """The file at this path, which is no link, with its log where there is one."""
    log = path.with_name(path.name + "-wal")
    with path.open("rb") as file, log.open("rb") if log.is_file() else nullcontext() as written:
        yield DamagedFile(file, written)


def _checksums(data: bytes, sums: tuple[int, int], order: str) -> tuple[int, int]:
    """Those of a log up to and with this part of it, from those before it. Source: the file format, "Checksum Algorithm"."""
    one, other = sums
    for first, second in struct.iter_unpack(f"{order}II", data):
        one = (one + first + other) & 0xFFFFFFFF
        other = (other + second + one) & 0xFFFFFFFF
    return one, other


def _values(payload: bytes) -> list[Value]:
    """The columns of a row."""
    head_bytes, at = _varint(payload, 0)
    values: list[Value] = []
    begin = head_bytes
    while at < head_bytes:
        kind, at = _varint(payload, at)
        size = (kind - 12) // 2 if kind >= 12 else 8 if kind == 7 else 0 if kind in (8, 9) else INTEGER_BYTES[kind]
        part = payload[begin : begin + size]
        begin += size
        if len(part) < size:
            raise ValueError("cut off")
        if kind == 0:
            values.append(None)
        elif kind in (8, 9):
            values.append(kind - 8)
        elif kind == 7:
            values.append(struct.unpack(">d", part)[0])
        else:
            values.append(part if kind >= 12 else int.from_bytes(part, "big", signed=True))
    return values


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """A number of one to nine bytes, and where it ends."""
    value = 0
    for end in range(at, at + 8):
        value = value << 7 | data[end] & 0x7F
        if data[end] < 0x80:
            return value, end + 1
    return value << 8 | data[at + 8], at + 9
