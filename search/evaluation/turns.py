"""Whose turn it is on this machine: one measurement at a time, and no training step of ours beside it.

Whoever measures holds two locks: the gate, which keeps others out, and the floor, which training steps share while they
last. A trainer passes the gate before each step, so a measurement waits for the steps in progress, and trainers wait
between two steps until it is over. The locks are those of the operating system on files in the user's cache folder:
they go with the process that holds them, however it ends. Where they cannot be locked, a warning says so, and nobody
waits.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO

from search.caching import cache_folder, warn_once
from search.evaluation.host import host_name
from search.types import stable_hash

try:
    import fcntl
except ImportError:  # Windows: measurements and training are not kept apart there, and the reference network tells
    fcntl = None

log = logging.getLogger(__name__)

STEP_LIMIT_S = 60.0
"""A measurement waits so long for training steps in progress; a trainer that is halted must not halt it, too."""
POLL_S = 0.01

_measuring_here = False


@contextmanager
def measuring() -> Iterator[None]:
    """Hold the machine for a measurement; waits, and says so, where another process of this user measures on it."""
    global _measuring_here
    if fcntl is None or _measuring_here:
        yield
        return
    with ExitStack() as opened:
        try:
            gate, floor = _open_locks(opened)
            if not _try(gate, fcntl.LOCK_EX):
                log.warning("waiting: another hfir-search measures on this machine (%s)", gate.name)
                fcntl.flock(gate, fcntl.LOCK_EX)
            _wait_for_steps(floor)
        except OSError as error:
            _warn_unlocked(error)
        _measuring_here = True
        try:
            yield
        finally:
            _measuring_here = False


class Steps:
    """The training steps of one training, each taken when nobody measures on this machine.

    Used as a context; the locks' files stay open meanwhile, so that a step costs some 10 µs where nobody measures.
    """

    def __enter__(self) -> Steps:
        """Open the locks."""
        self._opened = ExitStack()
        self._locks: tuple[IO[bytes], IO[bytes]] | None = None
        if fcntl is not None:
            try:
                self._locks = _open_locks(self._opened)
            except OSError as error:
                self._give_up(error)
        return self

    def __exit__(self, *error: object) -> None:
        """Close the locks, and with them give up a step that was cut short."""
        self._opened.close()

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Take one step."""
        self._pass_gate()
        yield
        if fcntl is not None and self._locks is not None:
            fcntl.flock(self._locks[1], fcntl.LOCK_UN)

    def _pass_gate(self) -> None:
        if fcntl is None or self._locks is None:
            return
        gate, floor = self._locks
        try:
            fcntl.flock(gate, fcntl.LOCK_SH)
            fcntl.flock(floor, fcntl.LOCK_SH)
            fcntl.flock(gate, fcntl.LOCK_UN)
        except OSError as error:
            self._give_up(error)

    def _give_up(self, error: OSError) -> None:
        """Close the locks: the other steps of this training do not wait."""
        self._opened.close()
        self._locks = None
        _warn_unlocked(error)


def _wait_for_steps(floor: IO[bytes]) -> None:
    deadline = time.monotonic() + STEP_LIMIT_S
    while fcntl is not None and not _try(floor, fcntl.LOCK_EX):
        if time.monotonic() > deadline:
            log.warning("measuring beside a training step that takes more than %g s (%s)", STEP_LIMIT_S, floor.name)
            return
        time.sleep(POLL_S)


def _try(file: IO[bytes], how: int) -> bool:
    if fcntl is None:
        return True
    try:
        fcntl.flock(file, how | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _open_locks(opened: ExitStack) -> tuple[IO[bytes], IO[bytes]]:
    """Return the gate and the floor, opened.

    Raises:
        OSError: If a file cannot be created.
    """
    gate, floor = (opened.enter_context(_lock_file(name).open("ab")) for name in ("gate", "floor"))
    return gate, floor


def _lock_file(name: str) -> Path:
    """Return a lock's file in a folder that exists."""
    path = _lock_path(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def _lock_path(name: str) -> Path:
    """Return the path of a lock: one for each machine, for a home folder may be shared by several."""
    return cache_folder("turns") / f"{name}-{stable_hash(host_name())}.lock"


def _warn_unlocked(error: OSError) -> None:
    message = "%s cannot be locked (%s): measurements do not wait for each other or for training steps, and latencies "
    warn_once("lock", _lock_path("gate"), message + "may disturb each other", error)
