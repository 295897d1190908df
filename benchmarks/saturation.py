"""How many workers can one driver keep busy?

Usage: `python benchmarks/saturation.py [--workers 1 2 4 8 16 32 64 128 256] [--compress 1 10 100] [--trials 1024]
[--sampler random] [--out FILE]`.

Method. The driver is the real one: Director, SearchRun and RunStore on a journal in a temporary folder. The workers are
simulated: a training's answer comes from arithmetic, and its duration is drawn by its trial's seed, evenly from 1 to 60
s, divided by `--compress`. Time is a simulated clock that runs on with the driver's real time while it works (asking,
storing, deciding), and leaps to the next answer when it would wait. So a second of simulated time holds a second of the
driver at most, no time is spent on waiting, and 256 workers need no 256 cores. Each generation has four candidates a
worker; the time for which workers stand idle while the next one is proposed is counted, as it is in a run. Measuring
costs before training takes no time here; in a real run it is one candidate at a time, on purpose (latencies).

Prints for each number of workers: trials a second of simulated time; the share of the workers' time that was used; the
share of its time for which the driver was busy, at 100 % it is what limits; and how that splits into asking, writing
the journal (with its syncs), and the rest of storing and deciding. Figures hold for a quiet machine and its disk.
"""

from __future__ import annotations

import argparse
import heapq
import json
import platform
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))

from engine_overhead import Arithmetic, Rungs, Search, Synthetic, open_store  # pyright: ignore[reportMissingImports]

from search.evaluation.plan import CandidateJob
from search.executors import Outcome
from search.study import SearchRun

SHORTEST_S, LONGEST_S = 1.0, 60.0
PER_WORKER = 4
"""Candidates of a generation for each worker."""


class Simulation:
    """An executor whose workers are simulated, and the clock that they share with the driver.

    Args:
        workers: How many.
        compress: Divides the durations.
    """

    def __init__(self, workers: int, compress: float) -> None:
        self.workers, self.compress = workers, compress
        self.idle_s = self.used_s = 0.0
        self._behind = time.perf_counter()

    @property
    def now_s(self) -> float:
        """The simulated time: the driver's own, and what it did not have to wait for."""
        return time.perf_counter() - self._behind

    def run(self, function: Callable[[Any], Any], jobs: Iterable[Any]) -> Iterator[Outcome[Any, Any]]:
        """Yield one outcome a job, in the order in which they would come in."""
        waiting, busy, order = iter(jobs), [], 0
        while True:
            for job in islice(waiting, self.workers - len(busy)):
                began = time.perf_counter()
                outcome = Outcome(job, value=function(job))
                self._behind += time.perf_counter() - began  # a worker's time, not the driver's
                duration_s = self._duration_s(function, job)
                self.used_s += duration_s
                heapq.heappush(busy, (self.now_s + duration_s, order, outcome))
                order += 1
            if not busy:
                return
            end_s, _, outcome = heapq.heappop(busy)
            self._leap_to(end_s)
            yield outcome

    def close(self) -> None:
        """Do nothing: there are no workers."""

    def _leap_to(self, end_s: float) -> None:
        wait_s = max(0.0, end_s - self.now_s)
        self.idle_s += wait_s
        self._behind -= wait_s

    def _duration_s(self, function: Callable[[Any], Any], job: Any) -> float:
        if not isinstance(job, CandidateJob) or getattr(function, "__name__", "") != "train":
            return 0.0
        return float(np.random.default_rng([job.seed, job.rung]).uniform(SHORTEST_S, LONGEST_S)) / self.compress


class Watch:
    """Adds up the real time that is spent in some functions, each without those that it calls among them."""

    def __init__(self) -> None:
        self.spent_s: defaultdict[str, float] = defaultdict(float)
        self._inner_s = [0.0]

    def on(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return a function that does the same, and is timed."""

        def timed(*arguments: Any, **named: Any) -> Any:
            self._inner_s.append(0.0)
            began = time.perf_counter()
            try:
                return function(*arguments, **named)
            finally:
                whole_s = time.perf_counter() - began
                self.spent_s[name] += whole_s - self._inner_s.pop()
                self._inner_s[-1] += whole_s

        return timed


def simulate(workers: int, compress: float, trials: int, sampler: str) -> dict[str, float]:
    """Run one study; return the figures."""
    search = Search(trials=trials, sampler=sampler, generation=PER_WORKER * workers)
    problem = Synthetic(search=search, proxy=Rungs((100,)))
    with tempfile.TemporaryDirectory() as place:
        store, simulation, watch = open_store(problem, Path(place) / "run"), Simulation(workers, compress), Watch()
        run = SearchRun(problem, Arithmetic(), store, simulation)
        journal = store._journal
        run.director.propose = watch.on("asking", run.director.propose)
        run.director.take = watch.on("deciding", run.director.take)
        run.director.next_step = watch.on("deciding", run.director.next_step)
        if journal is not None:
            journal._flush = watch.on("writing", journal._flush)
        run.run()
    total_s = simulation.now_s
    busy_s = total_s - simulation.idle_s
    return {
        "workers": workers,
        "compress": compress,
        "trials": trials,
        "trials_per_s": trials / total_s,
        "workers_used": simulation.used_s / (workers * total_s),
        "driver_busy": busy_s / total_s,
        "driver_ms_per_trial": 1000 * busy_s / trials,
        **{name: watch.spent_s[name] / busy_s for name in ("asking", "writing", "deciding")},
    }


def main() -> None:
    """Print the table, and write it as JSON where it is asked for."""
    parser = argparse.ArgumentParser(description="How many workers one driver can keep busy.")
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2, 4, 8, 16, 32, 64, 128, 256])
    parser.add_argument("--compress", type=float, nargs="+", default=[1, 10, 100])
    parser.add_argument("--trials", type=int, default=1024)
    parser.add_argument("--sampler", default="random")
    parser.add_argument("--out", type=Path, help="JSON file for the figures")
    options = parser.parse_args()
    rows = []
    print("compress workers trials/s workers used driver busy ms/trial | asking writing deciding")
    for compress in options.compress:
        for workers in options.workers:
            row = simulate(workers, compress, options.trials, options.sampler)
            rows.append(row)
            print(
                f"{compress:>8g} {workers:>7} {row['trials_per_s']:>8.2f} {row['workers_used']:>12.0%} "
                f"{row['driver_busy']:>11.1%} {row['driver_ms_per_trial']:>8.1f} | "
                f"{row['asking']:>6.0%} {row['writing']:>7.0%} {row['deciding']:>8.0%}",
                flush=True,
            )
    if options.out is not None:
        machine = {"machine": platform.platform(), "python": platform.python_version(), "sampler": options.sampler}
        options.out.write_text(json.dumps(machine | {"rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
