"""Where a run's wall time goes: added up while it goes on, and kept among its facts, one record a session.

A record is written with an answer that is recorded anyway, never by itself while the search goes on, and at most every
`KEEP_EVERY_S`; what is lost with a driver that is killed is what it did after the last one.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Mapping
from typing import Any

from search.evaluation.plan import CandidateJob, ReferenceJob
from search.executors import Outcome
from search.store import PROFILE, RunStore
from search.study.steps import Job, Kind
from search.timing import Phase, Stopwatch, Work

KEEP_EVERY_S = 10.0
PHASES: Mapping[Kind, Phase] = {
    Kind.LOOK: Phase.START_UP,
    Kind.TRY_REFERENCE: Phase.START_UP,
    Kind.ADMIT: Phase.MEASURING,
    Kind.REMEASURE: Phase.MEASURING,
    Kind.MEASURE_REFERENCE: Phase.MEASURING,
    Kind.TRAIN: Phase.TRAINING,
    Kind.REPLICATE: Phase.TRAINING,
    Kind.TRAIN_REFERENCE: Phase.TRAINING,
}
"""Which phase a step with jobs is, from when its first one is given out to its last answer."""
WHOLE: Mapping[Kind, str] = {Kind.TRY_REFERENCE: "references", Kind.MEASURE_REFERENCE: "references"}
"""Jobs whose parts are not told apart, by the name that they are shown under."""


class Profile:
    """Adds up where one session of a run spends its time.

    Args:
        store: The run's record.
        workers: Trainings at the same time; None where that is not known.
        age_s: For how long this process has been there; None where the session is counted from now on.
        numbered: Whether workers have numbers, so that each one's share is known.
        clock: Seconds from any point on.
    """

    def __init__(
        self,
        store: RunStore,
        *,
        workers: int | None,
        age_s: float | None = None,
        numbered: bool = True,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        earlier = store.facts.get(PROFILE, {})
        self._store, self._clock = store, clock
        self._key = f"{PROFILE}:{len(earlier)}"
        self._watch = Stopwatch(age_s=age_s or 0.0, clock=clock)
        self._fixed = {
            "since": "driver" if age_s is None else "process",
            "workers": workers,
            "before_s": 0.0 if earlier else float(store.facts.get("elapsed_s", 0.0)),
        }
        self._parts: dict[Phase, dict[str, float]] = {phase: {} for phase in Phase}
        if age_s is not None:
            self._parts[Phase.START_UP]["imports"] = age_s
        self._counts = dict.fromkeys((Phase.PROPOSING, Phase.MEASURING, Phase.TRAINING), 0)
        self._busy_s: list[float] | None = [0.0] * (workers or 0) if numbered else None
        self._out: set[Hashable] = set()
        self._kept_at: float | None = None
        self._has_begun = False

    def enter(self, phase: Phase) -> None:
        """Count from now on to a phase."""
        self._watch.enter(phase)

    def begin(self, kind: Kind, job: Hashable) -> None:
        """Hear that a job is given out: its name as `name_of` gives it."""
        self._has_begun = True
        self._out.add(job)
        self.enter(PHASES[kind])

    def propose(self) -> None:
        """Hear that the driver asks for a candidate."""
        self._counts[Phase.PROPOSING] += 1
        self.enter(Phase.PROPOSING)

    def end(self, kind: Kind, outcome: Outcome[Job, Any]) -> None:
        """Hear the answer to a job."""
        phase, work = PHASES[kind], outcome.work
        self._out.discard(name_of(outcome.job))
        if not self._out and phase is not Phase.START_UP:  # what follows a start-up job is more of it, up to a step
            self.enter(Phase.RECORDING)
        if phase in self._counts:
            self._counts[phase] += 1
        self._add(phase, "starting", outcome.starting_s)
        if work is None:
            return
        if kind in WHOLE:
            self._add(phase, WHOLE[kind], work.busy_s)
            return
        self.add(phase, work)
        self._add(phase, "rest", work.busy_s - sum(work.spans.values()))
        if phase is Phase.TRAINING and self._busy_s is not None and outcome.worker is not None:
            self._busy_s += [0.0] * (outcome.worker + 1 - len(self._busy_s))
            self._busy_s[outcome.worker] += work.busy_s

    def add(self, phase: Phase, work: Work) -> None:
        """Add what the driver did in a phase by itself, by its spans."""
        for name, seconds in work.spans.items():
            self._add(phase, name, seconds)

    def keep_if_due(self) -> None:
        """Write the record where the last one is `KEEP_EVERY_S` old."""
        if self._kept_at is None or self._clock() - self._kept_at >= KEEP_EVERY_S:
            self.keep()

    def keep(self) -> None:
        """Write the record of this session; nothing where no step was taken in it."""
        if not self._has_begun:
            return
        self._kept_at = self._clock()
        self._store.note(self._key, self.record())

    def record(self) -> dict[str, Any]:
        """Return the session so far as plain JSON: seconds by phase, which add up to `wall_s`, and their parts.

        Parts of `measuring` and `training` are workers' time, which runs side by side; `starting` is no part of it.
        """
        phases = {phase.value: round(seconds, 3) for phase, seconds in self._watch.read().items()}
        return {
            **self._fixed,
            "wall_s": round(sum(phases.values()), 3),
            "phases": phases,
            "parts": {p.value: {n: round(s, 3) for n, s in parts.items()} for p, parts in self._parts.items() if parts},
            "counts": {phase.value: number for phase, number in self._counts.items()},
            "busy_s": None if self._busy_s is None else [round(seconds, 3) for seconds in self._busy_s],
        }

    def _add(self, phase: Phase, name: str, seconds: float) -> None:
        if seconds > 0:
            parts = self._parts[phase]
            parts[name] = parts.get(name, 0.0) + seconds


def name_of(job: Job) -> Hashable:
    """Return what tells the jobs of a step apart."""
    if isinstance(job, CandidateJob):
        return job.number
    return job.reference.name if isinstance(job, ReferenceJob) else None
