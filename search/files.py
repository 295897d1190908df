"""Writing files so that a reader, or a crash, never meets half of one."""

from __future__ import annotations

import errno
from collections.abc import Callable
from pathlib import Path

NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""What a write says where the disk, a quota or a limit on files is full."""


def replace_file(path: Path, write: Callable[[Path], object]) -> Path:
    """Write a file under another name beside it, then put it in its place at once; return its path."""
    partial = path.with_name(f"{path.name}.part")
    try:
        write(partial)
    except BaseException:
        partial.unlink(missing_ok=True)  # half a file is of no use, and takes room on a disk that may be full
        raise
    return partial.replace(path)
