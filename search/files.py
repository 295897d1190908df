"""Writing files so that a reader, or a crash, never meets half of one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path


def replace_file(path: Path, write: Callable[[Path], object]) -> Path:
    """Write a file under another name beside it, then put it in its place at once; return its path."""
    partial = path.with_name(f"{path.name}.part")
    write(partial)
    return partial.replace(path)
