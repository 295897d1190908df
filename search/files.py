"""Files and folders: write a file whole, walk a folder once, show a path as text."""

from __future__ import annotations

import codecs
import errno
import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""Error numbers of a full disk, quota or file size limit."""
UNUSABLE = (
    errno.ENOENT,
    errno.EACCES,
    errno.EPERM,
    errno.EROFS,
    errno.EEXIST,
    errno.ENOTDIR,
    errno.EISDIR,
    errno.ENAMETOOLONG,
    errno.ELOOP,
)
"""Error numbers of a path that the user has to change, or its permissions: the program is not at fault."""


def replace_file(path: Path, write: Callable[[Path], object]) -> Path:
    """Write a file atomically: to a temporary name in the same folder, to the disk, then renamed; return its path.

    The temporary name is unique, so that several processes may write the same file: the last one wins. It is short,
    so that any name that the file system allows can be written.

    Args:
        path: The file to create or replace.
        write: Writes the content to the path that it is given.

    Raises:
        OSError: If the file cannot be written. The temporary file is deleted.
    """
    partial = temporary_name(path)
    try:
        write(partial)
        _flush_to_disk(partial)
        return partial.replace(path)
    except BaseException as error:
        with suppress(OSError):
            partial.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.filename in (partial, str(partial)):
            error.filename = str(path)  # the name that the user knows
        raise


def may_write(path: Path) -> bool:
    """Say whether a file can be created or replaced, before anything is computed for it."""
    if path.exists():
        return not path.is_dir() and os.access(path, os.W_OK)
    return path.parent.is_dir() and os.access(path.parent, os.W_OK)


def temporary_name(path: Path) -> Path:
    """Return a new hidden name in the folder of a file."""
    return path.with_name(f".{secrets.token_hex(6)}.part")


def _flush_to_disk(path: Path) -> None:
    descriptor = os.open(path, os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def shown(path: os.PathLike[str] | str) -> str:
    r"""Return a path as printable text: bytes that are not UTF-8 and control characters as `\xdf`."""
    text = os.fsencode(path).decode("utf-8", "backslashreplace")
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


ESCAPED = "search.escaped"
"""Error handler of text streams: what the encoding lacks is written as an escape, bytes of a name as `shown` does."""


def _escaped(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    lacking = error.object[error.start : error.end]
    named = (f"\\x{ord(c) - 0xDC00:02x}" if "\udc80" <= c <= "\udcff" else None for c in lacking)
    text = [n or c.encode("ascii", "backslashreplace").decode() for n, c in zip(named, lacking, strict=True)]
    return "".join(text), error.end


codecs.register_error(ESCAPED, _escaped)


@dataclass(slots=True)
class FolderWalk:
    """The files below a folder, hidden ones left out; each real folder is entered once, so links cannot loop.

    Args:
        folder: Where to start.
        recursive: Enter subfolders too.
        leave_out: Folders that are not entered, such as the one with the results.

    Attributes:
        skipped: Folders and files that could not be read, with the reason, in one line each. Complete after the walk.
        subfolders: Those that were not entered because the walk is not recursive. Complete after the walk.

    Raises:
        OSError: On iteration, if the first folder itself cannot be read.
    """

    folder: Path
    recursive: bool = False
    leave_out: tuple[Path, ...] = ()
    skipped: list[tuple[Path, str]] = field(default_factory=list)
    subfolders: list[Path] = field(default_factory=list)

    def __iter__(self) -> Iterator[Path]:
        """Yield files in order of their names, the files of a folder before its subfolders."""
        left_out = {_identity(path) for path in self.leave_out if is_folder(path)} - {_identity(self.folder)}
        entered: set[tuple[int, int]] = set()
        waiting = [self.folder]
        while waiting:  # a stack: the depth of a tree has no limit
            folder = waiting.pop()
            try:
                identity = _identity(folder)
                if identity in entered:
                    continue
                files, subfolders = self._content(folder, left_out)
            except OSError as error:
                if folder is self.folder:
                    raise
                self.skipped.append((folder, error.strerror or str(error)))
                continue
            entered.add(identity)
            yield from files
            if self.recursive:
                waiting += reversed(subfolders)
            else:
                self.subfolders += subfolders

    def _content(self, folder: Path, left_out: set[tuple[int, int]]) -> tuple[list[Path], list[Path]]:
        with os.scandir(folder) as entries:
            found = sorted((e for e in entries if not e.name.startswith(".")), key=lambda e: e.name)
        files: list[Path] = []
        subfolders: list[Path] = []
        for entry in found:
            path = folder / entry.name
            try:
                if entry.is_file():
                    files.append(path)
                elif entry.is_dir():
                    if _identity(path) not in left_out:
                        subfolders.append(path)
                else:
                    reason = "the link points to nothing" if entry.is_symlink() else "not a regular file"
                    self.skipped.append((path, reason))
            except OSError as error:
                self.skipped.append((path, error.strerror or str(error)))
        return files, subfolders


def is_file(path: Path) -> bool:
    """Say whether a path is a file; where it cannot be looked at (closed folder, name too long) it is none."""
    try:
        return path.is_file()
    except OSError:
        return False


def is_folder(path: Path) -> bool:
    """Say whether a path is a folder; where it cannot be looked at (closed folder, name too long) it is none."""
    try:
        return path.is_dir()
    except OSError:
        return False


def _identity(folder: Path) -> tuple[int, int]:
    status = folder.stat()
    return status.st_dev, status.st_ino
