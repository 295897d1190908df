"""Who writes into a run's folder: one process at a time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from search.types import StoreError

LOCK = "run.lock"
HOLD_TIMEOUT_S = 0.3
"""How long a driver tries for its folder: `is_held` takes the lock for an instant, and must not turn one away."""


@contextmanager
def hold(folder: Path) -> Iterator[None]:
    """Hold a run's folder: a second driver on it is refused. The lock goes with the process, however it ends.

    Raises:
        StoreError: If another process holds it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / LOCK, timeout=HOLD_TIMEOUT_S)
    try:
        lock.acquire()
    except Timeout as error:
        raise StoreError(
            f"{folder}: another hfir-search is running in this folder.\n"
            "  Wait for it, stop it, or give another folder with --out."
        ) from error
    try:
        yield
    finally:
        lock.release()


def is_held(folder: Path) -> bool | None:
    """Say whether a driver holds a run's folder; None where its lock cannot be looked at (a folder of another user)."""
    if not (folder / LOCK).is_file():
        return False
    lock = FileLock(folder / LOCK, timeout=0)
    try:
        lock.acquire()
    except Timeout:
        return True
    except OSError:
        return None
    lock.release()
    return False
