"""What does the platform itself cost a trial: asking, recording, telling, deciding what comes next?

Usage: `python benchmarks/engine_overhead.py [--trials 1000 5000 10000] [--rungs 1] [--generation 1] [--sampler random]
[--out FILE]`. A made-up space of 393,216 points is searched by the real Director, SearchRun and RunStore, on a journal
in a temporary folder; the evaluator answers at once, from arithmetic, in this process. Nothing is rejected, so a trial
is one proposal, one admission and a measurement a rung. A trial's time is the wall time from the end of the trial
before it; where a generation has more than one candidate, or there are more rungs, trials end together, and the mean
says more than the median. After the run, the time to read the study as `report` does. Prints medians and 95th
percentiles in ms, the processor's time alone, and the journal's size; the goal is a median of 10 ms at most over 10,000
trials, and 3 s at most to read them.

Figures hold for a quiet machine and its disk: each measurement is synced to the disk before the
next step.
"""

from __future__ import annotations

import argparse
import json
import platform
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from search.evaluation.answers import Admission, Baseline
from search.evaluation.plan import CandidateJob
from search.executors import InlineExecutor, Outcome
from search.space import Parameter, SearchSpace
from search.store import RunStore, read_study
from search.study import Director, Kind, SearchRun
from search.study.steps import Job
from search.types import Cost, Genotype, Measurement, TrialState

WIDTHS = tuple(range(4, 132, 4))
SPACE = SearchSpace(
    [
        Parameter("width", WIDTHS),
        Parameter("depth", tuple(range(1, 33))),
        Parameter("kernel", (3, 5, 7, 9)),
        Parameter("mixer", ("a", "b", "c")),
        *(Parameter(f"switch{i}", (False, True)) for i in range(5)),
        Parameter("levels", (1, 2, 3, 4, 5, 6)[:1]),
    ]
)


@dataclass(frozen=True)
class Described:
    """A point stands for itself."""

    values: dict[str, Any]

    def to_dict(self) -> dict[str, Any]:
        """Return the point."""
        return self.values


@dataclass(frozen=True)
class Search:
    """How candidates are proposed."""

    trials: int
    sampler: str = "random"
    seed: int = 0
    generation: int = 1


@dataclass(frozen=True)
class Rungs:
    """At which steps they are compared."""

    rungs: tuple[int, ...]
    keep: float = 0.5


@dataclass(frozen=True)
class Synthetic:
    """A problem without networks."""

    search: Search
    proxy: Rungs
    name: str = "synthetic"
    space: SearchSpace = SPACE
    objectives: tuple[str, ...] = ("psnr_db", "macs_g", "params_m")
    limits: Mapping[str, float] = field(default_factory=dict)

    def decode(self, genotype: Genotype) -> Described:
        """Return the point itself."""
        return Described(dict(genotype.values))


class Arithmetic:
    """Answers from the point alone."""

    def look_at_data(self, job: None) -> Baseline:
        """Return a baseline of nothing."""
        return Baseline(
            psnr_db=20.0,
            ssim=0.5,
            images=("none",),
            psnr_per_image_db=(20.0,),
            train_images=0,
            notes=(),
            host="made up",
            versions={},
        )

    def admit(self, job: CandidateJob) -> Admission:
        """Admit everything."""
        width, depth = job.config["width"], job.config["depth"]
        params = width**2 * depth * 1e-5
        cost = Cost(
            params_m=params,
            params_train_m=params,
            params_active_m=params,
            macs_g=params * 64 / job.config["kernel"],
            macs_at="64x64",
        )
        return Admission(cost=cost, margins={"params_m": -0.5, "macs_g": -0.5}, reason="")

    def train(self, job: CandidateJob) -> Measurement:
        """Return a quality that rises with size and rung, with noise drawn by the seed."""
        noise = float(np.random.default_rng([job.seed, job.rung]).normal(0, 0.2))
        psnr = 20 + float(np.log(job.config["width"] * job.config["depth"])) + job.rung + noise
        return Measurement(
            rung=job.rung,
            step=100 * (job.rung + 1),
            psnr_db=psnr,
            ssim=psnr / 50,
            psnr_per_image_db=tuple(psnr + i / 10 for i in range(8)),
            elapsed_s=1.0,
            loss=0.1,
        )

    def remeasure(self, job: CandidateJob) -> Admission:
        """Return the same."""
        return self.admit(job)


def main() -> None:
    """Print the table, and write it as JSON where it is asked for."""
    parser = argparse.ArgumentParser(description="What the platform itself costs a trial.")
    parser.add_argument("--trials", type=int, nargs="+", default=[1000, 5000, 10_000])
    parser.add_argument("--rungs", type=int, default=1)
    parser.add_argument("--generation", type=int, default=1)
    parser.add_argument("--sampler", default="random")
    parser.add_argument("--out", type=Path, help="JSON file for the figures")
    options = parser.parse_args()
    rows = [measure(n, options.rungs, options.generation, options.sampler) for n in options.trials]
    print(
        f"{'trials':>7} {'median ms':>10} {'p95 ms':>8} {'mean ms':>8} {'cpu ms':>8} {'load s':>7} {'journal MB':>11}"
    )
    for row in rows:
        print(
            f"{row['trials']:>7} {row['median_ms']:>10.2f} {row['p95_ms']:>8.2f} {row['mean_ms']:>8.2f} "
            f"{row['cpu_ms']:>8.2f} {row['load_s']:>7.2f} {row['journal_mb']:>11.1f}"
        )
    if options.out is not None:
        machine = {"machine": platform.platform(), "python": platform.python_version()}
        options.out.write_text(json.dumps(machine | {"rows": rows}, indent=1) + "\n")


def measure(trials: int, rungs: int, generation: int, sampler: str) -> dict[str, float]:
    """Run a study of so many trials; return the figures."""
    steps = tuple(100 * (rung + 1) for rung in range(rungs))
    problem = Synthetic(search=Search(trials=trials, sampler=sampler, generation=generation), proxy=Rungs(steps))
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "run"
        store = open_store(problem, folder)
        run, ends = SearchRun(problem, Arithmetic(), store, InlineExecutor()), [time.perf_counter()]
        watch(run.director, store, ends)
        before = time.process_time()
        study = run.run()
        total, cpu_s = time.perf_counter() - ends[0], time.process_time() - before
        begun = time.perf_counter()
        assert len(read_study(folder).trials) == len(study.trials)
        load_s = time.perf_counter() - begun
        journal = folder / "study.journal"
        each_ms = 1000 * np.diff(ends)
        return {
            "trials": trials,
            "rungs": rungs,
            "median_ms": float(np.median(each_ms)),
            "p95_ms": float(np.percentile(each_ms, 95)),
            "mean_ms": 1000 * total / trials,
            "cpu_ms": 1000 * cpu_s / trials,
            "load_s": load_s,
            "journal_mb": journal.stat().st_size / 1e6 if journal.is_file() else 0.0,
        }


def watch(director: Director, store: RunStore, ends: list[float]) -> None:
    """Keep the time at which each trial ended."""
    take, done = director.take, [0]

    def timed(kind: Kind, outcome: Outcome[Job, Any]) -> None:
        take(kind, outcome)
        if (count := store.index.count(TrialState.COMPLETE, TrialState.FAILED)) > done[0]:
            done[0] = count
            ends.append(time.perf_counter())

    director.take = timed


def open_store(problem: Synthetic, folder: Path) -> RunStore:
    """Open a store for the problem, made if it is not there."""
    return RunStore(
        folder,
        name=problem.name,
        objectives=problem.objectives,
        identity="synthetic",
        spec={"objectives": list(problem.objectives), "search": {"trials": problem.search.trials}},
    )


if __name__ == "__main__":
    main()
