"""The user's cache folder: one reader, one writer, one lock. Deleting any of it is safe.

An entry that is missing, damaged or unreadable is made again; one that cannot be written is done without. Either is
reported once per process and folder, and is never an error of what asked for the entry.
"""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from filelock import FileLock
from platformdirs import user_cache_path

from search.files import replace_file, shown

T = TypeVar("T")

log = logging.getLogger(__name__)

LOCK_ERRORS = (OSError, NotImplementedError)
"""What taking a lock may raise; the second one is what older filelock raises on a file system without locks."""

_warned: set[tuple[str, Path]] = set()
_unwritten: dict[Path, str] = {}
"""Entries that could not be written: known to this process only."""


def cache_folder(what: str) -> Path:
    """Return the folder of one kind of entries, e.g. `latency`; it may not exist."""
    return user_cache_path("hfir-search") / what


def read_entry(path: Path, read: Callable[[Path], T]) -> T | None:
    """Return what an entry holds; None where there is none, or where it is damaged or unreadable.

    Args:
        path: The entry's file or folder.
        read: Reads and checks it; whatever it raises says that the entry is not as it was written.
    """
    try:
        return read(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        warn_once("read", path, "the cache entry %s cannot be read (%s); its content is computed again", error)
    except Exception as error:
        reason = f"{type(error).__name__}: {error}"
        warn_once("damaged", path, "the cache entry %s is damaged (%s); its content is computed again", reason)
    return None


def write_entry(path: Path, write: Callable[[Path], object]) -> bool:
    """Write an entry atomically; return whether that succeeded.

    Args:
        path: The entry's file.
        write: Writes the content to the path that it is given.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_file(path, write)
    except OSError as error:
        warn_once("write", path, "the cache entry %s cannot be written (%s); continuing without this cache", error)
        return False
    return True


def read_json(path: Path, parse: Callable[[Any], T]) -> T | None:
    """Return what `parse` makes of a JSON entry; None as for `read_entry`."""
    if path in _unwritten:
        return parse(json.loads(_unwritten[path]))
    return read_entry(path, lambda file: parse(json.loads(file.read_text(encoding="utf-8"))))


def write_json(path: Path, value: Any) -> None:
    """Write a JSON entry; where that fails, this process alone keeps it."""
    text = json.dumps(value)
    if write_entry(path, lambda partial: partial.write_text(text, encoding="utf-8")):
        _unwritten.pop(path, None)
    else:
        _unwritten[path] = text


@contextmanager
def entry_lock(path: Path) -> Iterator[None]:
    """Let one process at a time make an entry; where no lock can be taken, several make it, and the last one wins."""
    lock = FileLock(path.with_suffix(".lock"))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except LOCK_ERRORS as error:  # writing the entry warns where the folder cannot be written
        log.info("not locked: %s (%s)", shown(path), reason_of(error))
    try:
        yield
    finally:
        lock.release()


def positive(value: Any) -> float:
    """Return a finite number above 0 of an entry.

    Raises:
        ValueError: If it is none.
    """
    number = float(value)
    if not 0 < number < math.inf:
        raise ValueError(f"{value!r} is not a finite number above 0")
    return number


def warn_once(topic: str, path: Path, message: str, reason: BaseException | str) -> None:
    """Log a warning about an entry, once per process, topic and folder.

    Args:
        topic: What failed; other topics are reported on their own.
        path: The entry, shown in place of the first `%s`.
        message: With two `%s`.
        reason: Shown in place of the second one.
    """
    if (topic, path.parent) not in _warned:
        _warned.add((topic, path.parent))
        log.warning(message, shown(path), reason if isinstance(reason, str) else reason_of(reason))


def reason_of(error: BaseException) -> str:
    """Return the operating system's words for an error, or the error's own."""
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
