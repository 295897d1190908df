"""Where time goes: the age of this process, a stopwatch that knows phases, and jobs that say what they do.

Code that is worth telling apart says so by `span`; whoever wants to know listens by `working`. Nobody listening, a
span costs a microsecond. Standard library only.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path


class Phase(StrEnum):
    """What a driver's wall time is spent on; each moment of a session belongs to one of them."""

    START_UP = "start_up"
    """From the start of the process to the first step, and until workers, photographs and references are there."""
    PROPOSING = "proposing"
    """Asking the sampler."""
    MEASURING = "measuring"
    """Costs of candidates and references, with nothing else running."""
    TRAINING = "training"
    """At least one training is out with a worker."""
    RECORDING = "recording"
    """What lies between: decisions, promotion, records, the display."""
    RESULTS = "results"
    """Tables, presets, pictures, report."""


USEFUL = (Phase.MEASURING, Phase.TRAINING)
"""What a run is made for; all else is overhead."""


class Stopwatch:
    """Adds up a wall time by phases, without a gap: leaving one is entering the next.

    Args:
        phase: Which one it begins in.
        age_s: How long that one has lasted already.
        clock: Seconds from any point on.
    """

    def __init__(
        self, phase: Phase = Phase.START_UP, *, age_s: float = 0.0, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._clock, self._phase = clock, phase
        self._since = clock() - age_s
        self._seconds = dict.fromkeys(Phase, 0.0)

    def enter(self, phase: Phase) -> None:
        """Count from now on to a phase."""
        now = self._clock()
        self._seconds[self._phase] += now - self._since
        self._phase, self._since = phase, now

    def read(self) -> Mapping[Phase, float]:
        """Return the seconds of each phase up to now."""
        self.enter(self._phase)
        return dict(self._seconds)


@dataclass(slots=True)
class Work:
    """How long a job took where it ran.

    Args:
        busy_s: From its beginning to its answer.
        spans: Seconds of its parts that have a name; what they leave has none.
    """

    busy_s: float = 0.0
    spans: dict[str, float] = field(default_factory=dict)


_listening: ContextVar[Work | None] = ContextVar("listening", default=None)


@contextmanager
def working() -> Iterator[Work]:
    """Time a job and its spans; they are all known at the end of the block."""
    work, begun = Work(), time.perf_counter()
    token = _listening.set(work)
    try:
        yield work
    finally:
        _listening.reset(token)
        work.busy_s = time.perf_counter() - begun


@contextmanager
def span(name: str) -> Iterator[None]:
    """Give a part of a job a name, under which its time is added up. Spans lie side by side, not in one another."""
    work = _listening.get()
    if work is None:
        yield
        return
    begun = time.perf_counter()
    try:
        yield
    finally:
        work.spans[name] = work.spans.get(name, 0.0) + time.perf_counter() - begun


def process_age_s() -> float | None:
    """Return for how long this process has been there, as Linux knows it to 0.01 s; None on other systems."""
    stat = Path("/proc/self/stat")
    if not stat.is_file():
        return None
    after_name = stat.read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    begun_ticks = int(after_name[19])  # field 22; 3 is the first after the name
    return time.clock_gettime(time.CLOCK_BOOTTIME) - begun_ticks / os.sysconf("SC_CLK_TCK")
