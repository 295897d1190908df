"""Whose turn it is on this machine: one measurement at a time, and no training step of ours beside it.

Whoever measures holds two locks: the gate, which keeps others out, and the floor, which training steps share while they
last. A trainer passes the gate before each step, so a measurement waits for the steps in progress, and trainers wait
between two steps until it is over. The locks are those of the operating system on files in the user's cache folder:
they go with the process that holds them, however it ends.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO

from search.evaluation.host import cache_folder, host_name
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
    with _lock_file("gate").open("ab") as gate, _lock_file("floor").open("ab") as floor:
        if not _try(gate, fcntl.LOCK_EX):
            log.warning("waiting: another hfir-search measures on this machine (%s)", gate.name)
            fcntl.flock(gate, fcntl.LOCK_EX)
        _wait_for_steps(floor)
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
        with ExitStack() as opened:
            if fcntl is not None:
                self._gate, self._floor = (opened.enter_context(_lock_file(n).open("ab")) for n in ("gate", "floor"))
            self._opened = opened.pop_all()
        return self

    def __exit__(self, *error: object) -> None:
        """Close the locks, and with them give up a step that was cut short."""
        self._opened.close()

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Take one step."""
        if fcntl is None:
            yield
            return
        fcntl.flock(self._gate, fcntl.LOCK_SH)
        fcntl.flock(self._floor, fcntl.LOCK_SH)
        fcntl.flock(self._gate, fcntl.LOCK_UN)
        yield
        fcntl.flock(self._floor, fcntl.LOCK_UN)


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


def _lock_file(name: str) -> Path:
    """Return a lock's file: one for each machine, for a home folder may be shared by several."""
    folder = cache_folder("turns")
    folder.mkdir(parents=True, exist_ok=True)
    return folder / f"{name}-{stable_hash(host_name())}.lock"
