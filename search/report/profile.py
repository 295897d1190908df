"""Where a run's wall time went, read from its records: see `search.study.profile` for what is kept."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from search.store import PROFILE
from search.timing import USEFUL, Phase
from search.types import Study, Trial

NAMES: Mapping[Phase, str] = {
    Phase.START_UP: "start-up",
    Phase.PROPOSING: "proposing",
    Phase.MEASURING: "measuring",
    Phase.TRAINING: "training",
    Phase.RECORDING: "recording and waiting",
    Phase.RESULTS: "results",
}
PRESET_COSTS = "preset_costs"
"""Of the results: presets are measured as they ship, so this is measuring, and no overhead."""
PARTS: Mapping[Phase, Mapping[str, str]] = {
    Phase.START_UP: {
        "imports": "imports and records",
        "starting": "starting a worker, meanwhile",
        "photographs": "loading photographs",
        "references": "trying references",
        "rest": "scoring doing nothing",
    },
    Phase.MEASURING: {
        "counts": "parameters and MACs",
        "memory": "memory",
        "latency": "latency",
        "one_step": "one training step",
        "score": "zero-cost score",
        "references": "references",
        "rest": "rest",
    },
    Phase.TRAINING: {
        "steps": "training steps",
        "validation": "validation",
        "checkpoint": "checkpoint",
        "building": "building the network",
        "photographs": "loading photographs",
        "rest": "rest",
    },
    Phase.RESULTS: {
        "imports": "imports",
        "tables": "tables and report",
        PRESET_COSTS: "measuring presets again",
        "pictures": "pictures",
        "rest": "writing presets",
    },
}
"""What workers did in a phase, in the results the driver: by the names in the records, in the order of the table."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """Seconds with a name."""

    name: str
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerUse:
    """One worker while the driver's phase was training.

    Args:
        worker: Its number, from 0.
        busy_s: At work on trainings.
        wall_s: How long training lasted in the sessions that had this worker.
    """

    worker: int
    busy_s: float
    wall_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class RunProfile:
    """Where a run's wall time went, over all its sessions that were recorded.

    Args:
        sessions: How many; 0 for a run from before they were recorded.
        wall_s: All of it: the sum of the phases. Pauses between sessions are no part of it.
        phases: Seconds of the driver's wall clock by phase.
        parts: What workers did in a phase, in the results the driver, in seconds of theirs; with several workers more
            than the phase lasted.
        counts: Candidates proposed, measurements, trainings through a rung.
        busy_s: Workers at work on trainings.
        idle_s: Workers without one while others had one, and starting; None where their number is not known.
        workers: Each worker's share; empty where workers have no numbers, as with Ray.
        worker_counts: Workers of each session; None where that is not known.
        from_process: Whether every session is counted from the start of its process.
        before_s: Wall time that the run had taken before its sessions were recorded.
        trained_s: Seconds of training steps of all trials, from their own records, which older runs have, too.
        trainings: Trials with such a record.
        slowest: Trials with the most seconds of training steps, the slowest first.
    """

    sessions: int
    wall_s: float
    phases: Mapping[Phase, float]
    parts: Mapping[Phase, tuple[Part, ...]]
    counts: Mapping[Phase, int]
    busy_s: float
    idle_s: float | None
    workers: tuple[WorkerUse, ...]
    worker_counts: tuple[int | None, ...]
    from_process: bool
    before_s: float
    trained_s: float
    trainings: int
    slowest: tuple[Trial, ...]

    @property
    def overhead(self) -> float | None:
        """Share of the wall time that was neither training nor measuring; None where nothing was recorded."""
        useful = sum(self.phases[phase] for phase in USEFUL)
        useful += sum(part.seconds for part in self.parts[Phase.RESULTS] if part.name == PRESET_COSTS)
        return 1 - useful / self.wall_s if self.wall_s > 0 else None


def read_profile(study: Study, *, slowest: int = 5) -> RunProfile:
    """Add up what the sessions of a run have recorded.

    Args:
        study: The run.
        slowest: How many of its slowest trials to name.
    """
    records = [record for _, record in sorted(study.facts.get(PROFILE, {}).items(), key=lambda item: int(item[0]))]
    phases = {phase: sum(float(r["phases"].get(phase.value, 0.0)) for r in records) for phase in Phase}
    trained = [trial for trial in study.trials if trial.last is not None]
    parts = {phase: _parts(phase, records) for phase in PARTS}
    busy_s = sum(part.seconds for part in parts[Phase.TRAINING])
    return RunProfile(
        sessions=len(records),
        wall_s=sum(phases.values()),
        phases=phases,
        parts=parts,
        counts={phase: sum(r["counts"][phase.value] for r in records) for phase in _counted(records)},
        busy_s=busy_s,
        idle_s=_idle_s(records, busy_s),
        workers=_workers(records),
        worker_counts=tuple(record["workers"] for record in records),
        from_process=all(record["since"] == "process" for record in records),
        before_s=sum(record["before_s"] for record in records),
        trained_s=sum(_train_s(trial) for trial in trained),
        trainings=len(trained),
        slowest=tuple(sorted(trained, key=lambda trial: -_train_s(trial))[:slowest]),
    )


def overhead_words(profile: RunProfile) -> str:
    """Return the sentence that a profile comes down to; empty where nothing was recorded."""
    if profile.overhead is None:
        return ""
    return f"{profile.overhead:.1%} of the wall time was neither training nor measuring"


def profile_in_short(study: Study) -> str:
    """Return the phases with their shares and the sentence, as a line of the report; empty for older runs."""
    profile = read_profile(study)
    if profile.overhead is None:
        return ""
    shares = ", ".join(
        f"{NAMES[phase]} {seconds / profile.wall_s:.1%}" for phase, seconds in profile.phases.items() if seconds
    )
    return f"{shares}: {overhead_words(profile)}, of {profile.wall_s:,.0f} s up to the writing of this page"


def _counted(records: list[dict[str, Any]]) -> list[Phase]:
    return [Phase(name) for name in records[0]["counts"]] if records else []


def _parts(phase: Phase, records: list[dict[str, Any]]) -> tuple[Part, ...]:
    found: Counter[str] = Counter()
    for record in records:
        found.update(record["parts"].get(phase.value, {}))
    if phase is Phase.TRAINING:
        del found["starting"]  # a worker that starts is not at work yet
    return tuple(Part(name=name, seconds=found[name]) for name in PARTS[phase] if found[name])


def _idle_s(records: list[dict[str, Any]], busy_s: float) -> float | None:
    """Return for how long workers had no training while another had one."""
    if any(record["workers"] is None for record in records):
        return None
    room = sum(record["workers"] * record["phases"].get(Phase.TRAINING.value, 0.0) for record in records)
    return max(0.0, room - busy_s)


def _workers(records: list[dict[str, Any]]) -> tuple[WorkerUse, ...]:
    if any(record["busy_s"] is None for record in records):
        return ()
    number = max((len(record["busy_s"]) for record in records), default=0)
    return tuple(
        WorkerUse(
            worker=worker,
            busy_s=sum(r["busy_s"][worker] for r in records if worker < len(r["busy_s"])),
            wall_s=sum(r["phases"].get(Phase.TRAINING.value, 0.0) for r in records if worker < len(r["busy_s"])),
        )
        for worker in range(number)
    )


def _train_s(trial: Trial) -> float:
    return 0.0 if trial.last is None else trial.last.elapsed_s
