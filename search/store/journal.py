"""Optuna's journal file: opened, mended, and written a record at a time."""

from __future__ import annotations

import gc
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from optuna.storages import JournalStorage
from optuna.storages.journal import BaseJournalBackend, JournalFileOpenLock

from search.types import StoreError

JOURNAL = "study.journal"
_AT_ONCE = 1 << 16
"""Bytes of lines that are parsed in one go: larger parts are not faster, and take memory."""


class Journal(BaseJournalBackend):
    """Optuna's journal file, where lines that belong together are appended at once.

    A proposal alone is a dozen of Optuna's lines, and each of its appends waits for the disk. Within `together` they
    wait in memory and are then written as one.

    Args:
        path: Of the file; made if it is not there. No line of it may be torn.
    """

    def __init__(self, path: Path) -> None:
        path.touch()
        self._path, self._lock = path, JournalFileOpenLock(str(path))
        self._reader = JournalReader(path, mended=True)
        self._together = False
        self._lines: list[dict[str, Any]] = []
        self._first: int | None = None

    @contextmanager
    def together(self, *, durable: bool) -> Iterator[None]:
        """Keep lines back until the end of the block, then append them, whatever ended it.

        Args:
            durable: Wait until the disk has them, and all before them. Without, they outlive this process, however it
                ends, but not a power failure.

        Raises:
            StoreError: If another program wrote into the journal during the block.
            OSError: If they cannot be written.
        """
        if self._together:
            yield
            return
        self._together = True
        try:
            yield
        finally:
            self._together = False
            self._flush(durable)

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Append lines, or keep them back."""
        if self._together:
            self._lines += json.loads(json.dumps(logs))  # what is read back is what will stand in the file
        else:
            with self._locked():
                self._append(logs, durable=True)

    def read_logs(self, log_number_from: int) -> Iterator[dict[str, Any]]:
        """Yield the lines from a number on."""
        if not self._lines:
            return self._reader.read_logs(log_number_from)
        if self._first is None:
            self._first = log_number_from
        return iter(self._lines[log_number_from - self._first :])

    def _flush(self, durable: bool) -> None:
        lines, self._lines, self._first = self._lines, [], None
        if not lines:
            return
        with self._locked():
            if self._path.stat().st_size != self._reader.end:
                raise StoreError(
                    f"{self._path}: another program wrote into this journal while the search did.\n"
                    "  Start the search again: it goes on. To look on, use `hfir-search dashboard`, which only reads."
                )
            self._append(lines, durable)
            self._reader.pass_over(len(lines))

    def _append(self, lines: list[dict[str, Any]], durable: bool) -> None:
        """Append all lines or none, as Optuna writes them."""
        text = "".join(json.dumps(line, separators=(",", ":")) + "\n" for line in lines)
        whole = self._path.stat().st_size
        try:
            with self._path.open("ab") as file:
                file.write(text.encode())
                if durable:
                    file.flush()
                    os.fsync(file.fileno())
        except OSError:
            with suppress(OSError):  # half of what belongs together is of no use; a killed driver's is seen to later
                os.truncate(self._path, whole)
            raise

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Keep out whoever appends as Optuna does."""
        self._lock.acquire()
        try:
            yield
        finally:
            self._lock.release()


class JournalReader(BaseJournalBackend):
    """Optuna's journal file, to read: many lines are parsed in one go, and what was read is not read again.

    Args:
        path: Of the file.
        mended: Its end was mended: there, too, a line that is whole but no JSON is damaged, not torn.
    """

    def __init__(self, path: Path, *, mended: bool = False) -> None:
        self._path, self._mended = path, mended
        self._count = 0
        self.end = 0
        """Bytes that were read, up to the end of a line."""

    def read_logs(self, log_number_from: int) -> Iterator[dict[str, Any]]:
        """Yield the lines from a number on; a last one that is still being written is left for later.

        Raises:
            ValueError: If another line than the last is no JSON.
        """
        if log_number_from != self._count:
            self._count = self.end = 0
        with self._path.open("rb") as file:
            file.seek(self.end)
            while lines := file.readlines(_AT_ONCE):
                ended = lines[-1].endswith(b"\n")
                last = not ended or not file.peek(1)
                if last and not (ended and self._mended) and _is_torn(lines[-1]):
                    lines.pop()
                logs = _parsed(lines, self._count + 1)
                skipped = max(log_number_from - self._count, 0)
                self._count += len(lines)
                self.end += sum(map(len, lines))
                yield from logs[skipped:]
                if last:
                    return

    def pass_over(self, count: int) -> None:
        """Take the lines that were just appended, so many and up to the file's end, as read."""
        self._count += count
        self.end = self._path.stat().st_size

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Refuse: this one reads."""
        raise StoreError(f"{self._path}: opened to read; please report this.")


def open_journal(path: Path) -> tuple[JournalStorage, Journal]:
    """Open a journal to write: made if it is not there, mended if its end is torn.

    Raises:
        StoreError: If it is damaged before its last line.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    repair_journal(path)
    path.with_name(f"{path.name}.lock").unlink(missing_ok=True)  # left by a driver that was killed while writing
    journal = Journal(path)
    return _replayed(path, journal), journal


def read_journal(path: Path) -> JournalStorage:
    """Open a journal to read, without touching it.

    Raises:
        StoreError: If it is damaged before its last line.
    """
    return _replayed(path, JournalReader(path))


def repair_journal(path: Path) -> None:
    """Drop a torn last line (a driver that was killed, a full disk), before anything is appended behind it."""
    if not path.is_file():
        return
    content = path.read_bytes()
    start = content.rfind(b"\n", 0, -1) + 1
    last = content[start:]
    if not last or not _is_torn(last):
        return
    with path.open("r+b") as file:
        try:
            json.loads(last)
        except ValueError:
            file.truncate(start)
        else:  # all but its newline was written
            file.seek(0, os.SEEK_END)
            file.write(b"\n")


@contextmanager
def no_garbage_sought() -> Iterator[None]:
    """Reading makes objects by the hundred thousand, and all of them stay: looking through them again takes long."""
    sought = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if sought:
            gc.enable()


def _replayed(path: Path, backend: BaseJournalBackend) -> JournalStorage:
    try:
        with no_garbage_sought():
            return JournalStorage(backend)
    except (
        ValueError,
        LookupError,
        TypeError,
        AttributeError,
        AssertionError,
    ) as error:  # what optuna's replay trips over
        raise StoreError(
            f"{path}: the journal is damaged ({error}).\n  Restore it from a copy, or start in another folder."
        ) from error


def _is_torn(line: bytes) -> bool:
    """Say whether a last line was not written to its end: its newline is missing, or it is text but no JSON.

    What ends in a newline and is no text at all was not half written: it is damaged.
    """
    if not line.endswith(b"\n"):
        return True
    try:
        json.loads(line)
    except UnicodeDecodeError:
        return False
    except json.JSONDecodeError:
        return True
    return False


def _parsed(lines: list[bytes], first: int) -> list[dict[str, Any]]:
    """Parse lines in one go, which takes a third of the time; one by one where that fails, to name the wrong one.

    Args:
        lines: Each with its newline.
        first: Number of the first of them in the file, from 1.

    Raises:
        ValueError: If a line is not one JSON value.
    """
    with suppress(ValueError):
        logs: list[dict[str, Any]] = json.loads(b"[" + b",".join(lines) + b"]")
        if len(logs) == len(lines):  # else values were joined or parted across the commas
            return logs
    return [_parsed_line(line, number) for number, line in enumerate(lines, first)]


def _parsed_line(line: bytes, number: int) -> dict[str, Any]:
    try:
        return json.loads(line)
    except ValueError as error:
        raise ValueError(f"line {number}: {error}") from error
