"""Where a run stands: read from its folder alone, by anyone, while it goes on."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from search.report.tables import front_trials, funnel
from search.report.words import failures, is_finished
from search.store import JOURNAL, LOCK, POINTER, is_held, read_study, times_of
from search.types import OBJECTIVES, InputError, Study, Trial, TrialState

BOUNDS = ("time", "steps", "patience")
"""Keys of `search` that end a search besides the number of trials."""

_TRACES = (LOCK, POINTER, JOURNAL, "experiment.yaml", "trials.csv")
"""What a run leaves in its folder, some of it from the first moment on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rung:
    """How far candidates came.

    Args:
        step: Training steps of the rung.
        reached: Candidates that were trained to it.
        waiting: Those of them that stand there, neither stopped nor trained further: RUNNING.
    """

    step: int
    reached: int
    waiting: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RunStatus:
    """A run at one moment.

    Args:
        folder: The run's.
        study: Its records; None where nothing is recorded yet.
        is_running: Whether a process holds the folder; None where that cannot be found out.
        finished: Whether the run came to its end.
        elapsed_s: From the first proposal to now, or to the last record of a run that stands still; pauses
            included. None before the first proposal.
        trained_s: Seconds of training, summed over the candidates.
        states: Number of candidates in each state.
        admitted: Candidates that count against `search.trials`; those that are screened, from their first rung on.
        trials: `search.trials`; None where nothing is recorded yet.
        rungs: From the first one on.
        rejections: Candidates rejected before training, by reason; the most frequent first.
        failures: Candidates that failed, by what they failed of (see `search.types.FailureKind`).
        front: Members so far.
        command: What to type to go on with it; empty where it is running, or nothing is recorded.
    """

    folder: Path
    study: Study | None
    is_running: bool | None
    finished: bool
    elapsed_s: float | None
    trained_s: float
    states: Mapping[str, int]
    admitted: int
    trials: int | None
    rungs: tuple[Rung, ...]
    rejections: Mapping[str, int]
    failures: Mapping[str, int]
    front: tuple[Trial, ...]
    command: str


def read_status(folder: Path) -> RunStatus:
    """Read where a run stands, without touching it. One that has begun may have recorded nothing yet.

    Raises:
        InputError: If there is no such folder, or nothing in it is of a run.
        StoreError: If the journal is damaged before its last line.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: there is no such folder.\n  Give the folder of a run, e.g. results/efficient.")
    if not any((folder / name).exists() for name in _TRACES):
        raise InputError(f"{folder}: no run has begun here.\n  Give the folder of a run, e.g. results/efficient.")
    try:
        study = read_study(folder)
    except InputError:
        if (folder / POINTER).exists():  # its records are in a database, which is missing or not to be used
            raise
        study = None
    running = is_held(folder)
    trials = () if study is None else study.trials
    finished = study is not None and is_finished(study) and not _was_extended(study)
    return RunStatus(
        folder=folder,
        study=study,
        is_running=running,
        finished=finished,
        elapsed_s=_elapsed_s(folder, running=bool(running)),
        trained_s=sum(t.last.elapsed_s for t in trials if t.last is not None),
        states={state.value: sum(t.state is state for t in trials) for state in TrialState},
        admitted=sum(counts_as_trained(t) for t in trials),
        trials=None if study is None else study.spec.get("search", {}).get("trials"),
        rungs=() if study is None else _rungs(study),
        rejections={} if study is None else rejections(study),
        failures={} if study is None else {kind.value: number for kind, number in failures(study).items()},
        front=() if study is None else front_trials(study),
        command="" if running or study is None else _command(folder, study, finished=finished),
    )


def counts_as_trained(trial: Trial) -> bool:
    """Say whether a candidate counts against `search.trials`; one that may yet be screened out does not."""
    if trial.state is TrialState.RUNNING and trial.scores:
        return bool(trial.measurements)
    return trial.state not in (TrialState.INFEASIBLE, TrialState.DUPLICATE, TrialState.SCREENED)


def _was_extended(study: Study) -> bool:
    """Say whether a run that had come to its end is now asked for more trials, or under other bounds."""
    search = study.spec.get("search", {})
    wanted, under = search.get("trials"), study.facts.get("finished_under")
    other_bounds = under is not None and under != {
        key: search[key] for key in (*BOUNDS, "replicates") if search.get(key)
    }
    return other_bounds or (wanted is not None and int(study.facts.get("finished", 0)) < int(wanted))


def _elapsed_s(folder: Path, *, running: bool) -> float | None:
    times = times_of(folder)
    if times is None:
        return None
    begun, last = times
    return max(0.0, ((datetime.now(UTC) if running else last) - begun).total_seconds())


def _rungs(study: Study) -> tuple[Rung, ...]:
    steps = study.spec.get("proxy", {}).get("rungs") or ()
    return tuple(
        Rung(
            step=int(step),
            reached=sum(any(m.rung == rung for m in t.measurements) for t in study.trials),
            waiting=sum(
                t.state is TrialState.RUNNING and t.last is not None and t.last.rung == rung for t in study.trials
            ),
        )
        for rung, step in enumerate(steps)
    )


def rejections(study: Study) -> dict[str, int]:
    """Count what was rejected before training: over which limit, or by which rule of the network."""
    counts: Counter[str] = Counter()
    for name, number in funnel(study).items():
        limit = name.removeprefix("over_")
        if name.startswith("over_") and limit in OBJECTIVES:
            counts[f"over the limit of {OBJECTIVES[limit].label}"] += number
    for trial in study.in_state(TrialState.INFEASIBLE):
        if trial.cost is None:
            counts[f"no legal network: {trial.reason}" if trial.reason else "no legal network"] += 1
    withdrawn = len(study.facts.get("withdrawn", {}))
    counts["withdrawn when measured again"] += withdrawn
    return {reason: number for reason, number in counts.most_common() if number}


def _command(folder: Path, study: Study, *, finished: bool) -> str:
    """Return what goes on with a run: the same in the same folder, with twice of what ended it if it is finished."""
    if not (folder / "experiment.yaml").is_file():
        return ""
    words = ["hfir-search", "run", str(folder / "experiment.yaml"), "--out", str(folder)]
    search, rule = study.spec.get("search", {}), study.facts.get("ended_by", {}).get("rule")
    if finished and rule in BOUNDS and search.get(rule):
        words += ["--set", f"search.{rule}={2 * search[rule]}"]
    elif finished and search.get("trials") is not None:
        words += ["--trials", str(2 * int(search["trials"]))]
    return shlex.join(words)
