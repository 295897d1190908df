"""A search whose candidates are not trained but waited for: what is measured with it is the engine alone.

Imported by the benchmarks of engines and by their tests. Each figure is a fixed function of the candidate and the rung,
so two runs that did the same work have the same records. What was begun and what was recorded is written to a ledger,
in the order in which it happened, so that repeated work shows.
"""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from search.evaluation.answers import Admission, Baseline
from search.evaluation.host import versions
from search.evaluation.plan import CandidateJob
from search.space import Parameter, SearchSpace
from search.store import RunStore
from search.study import Onlooker, Progress
from search.types import Cost, EvaluationError, Genotype, InputError, Measurement, Study, TrialState

OBJECTIVES = ("psnr_db", "macs_g")


@dataclass(frozen=True)
class Settings:
    """How candidates are proposed and compared."""

    trials: int
    generation: int
    sampler: str = "random"
    seed: int = 0
    rungs: tuple[int, ...] = (1, 2, 3)
    keep: float = 0.5


@dataclass(frozen=True)
class Point:
    """What a genotype stands for: itself."""

    values: Mapping[str, Any]

    def to_dict(self) -> dict[str, Any]:
        """Return its values."""
        return dict(self.values)


class WaitingProblem:
    """A space of 4096 points, for quality and cost.

    Args:
        settings: How it is searched.
    """

    name = "waiting"
    objectives = OBJECTIVES

    def __init__(self, settings: Settings) -> None:
        self.search = self.proxy = settings
        self.limits: Mapping[str, float] = {}
        self.space = SearchSpace([Parameter(name, tuple(range(16))) for name in ("a", "b", "c")])

    def decode(self, genotype: Genotype) -> Point:
        """Return the genotype's values."""
        return Point(genotype.values)

    def store(self, folder: Path) -> RunStore:
        """Open the record of a run."""
        spec = {"objectives": list(OBJECTIVES)}
        return RunStore(folder, name=self.name, objectives=OBJECTIVES, identity="waiting", spec=spec)


@dataclass(frozen=True)
class Waiting:
    """Answers about candidates after a while.

    Args:
        ledger: A file for what was begun; all workers can write it.
        seconds: What a rung takes.
        busy: Compute all the while, on one core; else sleep.
        fails: What becomes of some candidates, by number: `nan` for a figure that is none, `error`, `input` for
            data that cannot be used, or `killed`, which ends the worker.
    """

    ledger: Path
    seconds: float = 0.0
    busy: bool = False
    fails: tuple[tuple[int, str], ...] = ()

    def look_at_data(self, job: None) -> Baseline:
        """Return a baseline of nothing."""
        return Baseline(
            psnr_db=0.0,
            ssim=0.0,
            images=(),
            psnr_per_image_db=(),
            train_images=0,
            notes=(),
            host="",
            versions=versions(),
        )

    def admit(self, job: CandidateJob) -> Admission:
        """Let everything through."""
        cost = Cost(params_m=1.0, params_train_m=1.0, params_active_m=1.0, macs_g=_macs(job), macs_at="1x1")
        return Admission(cost=cost, margins={}, reason="")

    def remeasure(self, job: CandidateJob) -> Admission:
        """Return the same again."""
        return self.admit(job)

    def train(self, job: CandidateJob) -> Measurement:
        """Wait, and go on from the checkpoint as a training would."""
        checkpoint = Path(job.checkpoint)
        done = json.loads(checkpoint.read_text(encoding="utf-8"))["rung"] if checkpoint.is_file() else -1
        if done < job.rung:
            note(self.ledger, "begun", job.number, job.rung)
            self._wait(job.rung - done)
        fate = dict(self.fails).get(job.number, "")
        if fate == "error":
            raise EvaluationError("as asked for")
        if fate == "input":
            raise InputError("as asked for.")
        if fate == "killed":
            os.kill(os.getpid(), 9)
        checkpoint.parent.mkdir(parents=True, exist_ok=True)
        checkpoint.write_text(json.dumps({"rung": job.rung}), encoding="utf-8")
        psnr_db = math.nan if fate == "nan" else 30.0 + _quality(job) + 0.1 * job.rung
        return Measurement(
            rung=job.rung,
            step=job.rung + 1,
            psnr_db=psnr_db,
            ssim=0.5,
            psnr_per_image_db=(psnr_db,),
            elapsed_s=job.rung + 1.0,
            loss=0.0,
        )

    def _wait(self, rungs: int) -> None:
        end = time.monotonic() + self.seconds * rungs
        if self.busy:
            # A fixed amount of work would be fairer to a busy machine, but its time could not be chosen.
            while time.monotonic() < end:
                math.fsum(math.sqrt(i) for i in range(10_000))
        else:
            time.sleep(max(0.0, end - time.monotonic()))


def no_preparation() -> None:
    """Prepare a worker for waiting."""


class Entry(NamedTuple):
    """One line of the ledger."""

    what: str
    number: int
    rung: int


def note(ledger: Path, what: str, number: int, rung: int) -> None:
    """Append a line, whole."""
    with ledger.open("a", encoding="utf-8") as file:
        file.write(f"{what} {number} {rung}\n")


def read_ledger(ledger: Path) -> Iterator[Entry]:
    """Yield what happened, in its order."""
    for line in ledger.read_text(encoding="utf-8").splitlines():
        what, number, rung = line.split()
        yield Entry(what, int(number), int(rung))


def recorder(ledger: Path) -> Onlooker:
    """Return an onlooker that notes each rung when it is recorded."""
    seen: set[tuple[int, int]] = set()

    def look(progress: Progress) -> None:
        known = {(t.number, m.rung) for t in progress.study.trials for m in t.measurements}
        for number, rung in sorted(known - seen):
            note(ledger, "recorded", number, rung)
        seen.update(known)

    return look


def faults(study: Study, unbroken: Study, ledger: Path) -> list[str]:
    """Return what a run lost or repeated, one line each; what was under way when a worker was lost is begun again.

    Args:
        study: The run that was disturbed.
        unbroken: The same run, undisturbed.
        ledger: Of the disturbed run.
    """
    found = [
        f"trial {a.number}: {b.state} after {len(b.measurements)} rungs, not {a.state} after {len(a.measurements)}"
        for a, b in zip(unbroken.trials, study.trials, strict=False)
        if (a.state, a.measurements) != (b.state, b.measurements)
    ]
    if len(study.trials) != len(unbroken.trials):
        found.append(f"{len(study.trials)} trials, not {len(unbroken.trials)}")
    recorded: set[tuple[int, int]] = set()
    for what, number, rung in read_ledger(ledger):
        if what == "recorded":
            recorded.add((number, rung))
        elif (number, rung) in recorded:
            found.append(f"trial {number}: rung {rung} was trained again after it was recorded")
    unfinished = study.in_state(TrialState.RUNNING)
    return [*found, *(f"trial {t.number}: still RUNNING" for t in unfinished)]


def _macs(job: CandidateJob) -> float:
    return 1.0 + job.config["a"] + 0.1 * job.config["b"]


def _quality(job: CandidateJob) -> float:
    return job.config["a"] + math.sin(job.config["b"] + 3 * job.config["c"])
