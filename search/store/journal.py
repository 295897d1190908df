"""Optuna's journal file: opened, mended, and written a record at a time."""

from __future__ import annotations

import gc
import json
import os
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from optuna.storages import JournalStorage
from optuna.storages.journal import BaseJournalBackend, JournalFileBackend, JournalFileOpenLock

from search.types import StoreError

JOURNAL = "study.journal"


class Journal(BaseJournalBackend):
    """Optuna's journal file, where lines that belong together are appended at once.

    A proposal alone is a dozen of Optuna's lines, and each of its appends waits for the disk. Within `together` they
    wait in memory and are then written as one.
    """

    def __init__(self, path: Path) -> None:
        self._path, self._lock = path, JournalFileOpenLock(str(path))
        self._file = JournalFileBackend(str(path), lock_obj=self._lock)
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
            self._file.append_logs(logs)

    def read_logs(self, log_number_from: int) -> Iterator[dict[str, Any]]:
        """Yield the lines from a number on."""
        if not self._lines:
            return self._file.read_logs(log_number_from)
        if self._first is None:
            self._first = log_number_from
        return iter(self._lines[log_number_from - self._first :])

    def _flush(self, durable: bool) -> None:
        (lines, first), self._lines, self._first = (self._lines, self._first), [], None
        if not lines:
            return
        if any(True for _ in self._file.read_logs(first or 0)):
            raise StoreError(
                f"{self._path}: another program wrote into this journal while the search did.\n"
                "  Start the search again: it goes on. To look on, use `hfir-search dashboard`, which only reads."
            )
        whole = self._path.stat().st_size
        try:
            if durable:
                self._file.append_logs(lines)
            else:
                self._append(lines)
        except OSError:
            with suppress(OSError):  # half of what belongs together is of no use; a killed driver's is seen to later
                os.truncate(self._path, whole)
            raise
        deque(self._file.read_logs(first or 0), maxlen=0)  # lines it has not seen make it read all from the start

    def _append(self, lines: list[dict[str, Any]]) -> None:
        """Append as Optuna does, but for the sync."""
        text = "".join(json.dumps(line, separators=(",", ":")) + "\n" for line in lines)
        self._lock.acquire()
        try:
            with self._path.open("ab") as file:
                file.write(text.encode())
        finally:
            self._lock.release()


class JournalReader(BaseJournalBackend):
    """Optuna's journal file, to read: what is new is parsed in one go, not line by line."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._count = self._offset = 0

    def read_logs(self, log_number_from: int) -> Iterator[dict[str, Any]]:
        """Yield the lines from a number on; a last one that is still being written is left for later.

        Raises:
            ValueError: If another line than the last is no JSON.
        """
        if log_number_from != self._count:
            self._count = self._offset = 0
        with self._path.open("rb") as file:
            file.seek(self._offset)
            content = file.read()
        lines = content[: content.rfind(b"\n") + 1].splitlines(keepends=True)
        if lines and _is_torn(lines[-1]):
            lines.pop()
        logs: list[dict[str, Any]] = json.loads(b"[" + b",".join(lines) + b"]")
        self._offset += sum(map(len, lines))
        skipped = log_number_from - self._count
        self._count += len(logs)
        return iter(logs[skipped:])

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
    whole = content[: content.rfind(b"\n") + 1]
    torn = content[len(whole) :]
    if torn and _is_json(torn):
        with path.open("ab") as file:
            file.write(b"\n")
    elif torn:
        with path.open("r+b") as file:
            file.truncate(len(whole))


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
    """Say whether a line is the beginning of one; what is no text at all was not half written, but damaged."""
    try:
        json.loads(line)
    except json.JSONDecodeError:
        return True
    return False


def _is_json(text: bytes) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True
