"""How many trials a minute one worker and two workers finish, and where the time goes.

The aim: two workers on two cores finish at least 1.8 times as many trials a minute as one. Each way runs the same
experiment from nothing, into a folder and with a memory of latencies of its own; workers are started before the clock.

    python benchmarks/throughput.py                                     # smoke, 24 trials; 10 to 20 minutes when quiet
    python benchmarks/throughput.py --space efficient --trials 24
    python benchmarks/throughput.py --trials 2 --set proxy.rungs=[2,4]  # only to see that it works

The columns: wall time, trials a minute and how many times as many as with one worker; seconds spent on measuring
candidates (nothing else runs then, so more workers do not help), on training, and on all else; and the share of
the workers' time while training that they were busy (what is missing are stragglers at the end of a rung).

Before them stands what the machine allows: how many times as many steps a second as one process so many processes take
that do nothing but train one network each, in turns, without any of the engine. Cores that share caches, memory or
execution units give less than their number.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import torch

from hfir import ConfigError, HFIRConfig
from search.evaluation.evaluator import task_data
from search.evaluation.jobs import ProxyEvaluator, start_worker
from search.evaluation.plan import CandidateJob
from search.evaluation.proxy import ProxyTraining
from search.executors import Outcome, ProcessExecutor
from search.experiment import Experiment, load_experiment
from search.store import RunStore, hold
from search.study import Progress, SearchRun, rules_of, time_limit
from search.types import Measurement, TrialState


class TimedExecutor(ProcessExecutor):
    """Adds up for how long workers trained, each from its job's beginning to its answer."""

    busy_s = 0.0

    def run(self, function: Callable[[Any], Any], jobs: Iterable[Any]) -> Iterator[Outcome[Any, Any]]:
        """Yield outcomes as they come in."""
        begun: dict[tuple[int, int], float] = {}

        given = _Noted(jobs, begun)
        for outcome in super().run(function, given):
            if isinstance(outcome.value, Measurement):
                self.busy_s += time.perf_counter() - begun[outcome.job.number, outcome.job.rung]
            yield outcome


class _Noted:
    """Jobs as they are given out, the time noted; asked again after each outcome, as the executor does."""

    def __init__(self, jobs: Iterable[Any], begun: dict[tuple[int, int], float]) -> None:
        self._jobs, self._begun = iter(jobs), begun

    def __iter__(self) -> _Noted:
        return self

    def __next__(self) -> Any:
        job = next(self._jobs)
        if isinstance(job, CandidateJob):
            self._begun[job.number, job.rung] = time.perf_counter()
        return job


class Stopwatch:
    """Adds up wall time by what goes on."""

    def __init__(self) -> None:
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self._what, self._since = "else", time.perf_counter()

    def __call__(self, progress: Progress) -> None:
        """Note what goes on from now."""
        now = time.perf_counter()
        self.seconds[self._what] += now - self._since
        first = progress.phase.split()[0]
        self._what, self._since = (first if first in ("measuring", "training") else "else"), now


def measure(experiment: Experiment, workers: int) -> dict[str, float]:
    """Run an experiment from nothing; return its figures."""
    with tempfile.TemporaryDirectory() as temporary:
        os.environ["XDG_CACHE_HOME"] = str(Path(temporary) / "cache")
        folder = Path(temporary) / "run"
        executor = TimedExecutor(workers, start_worker, limit_s=time_limit)
        evaluator = ProxyEvaluator(experiment.evaluation_plan())
        list(executor.run(evaluator.look_at_data, [None] * workers))  # starts the workers, loads torch and the data
        watch = Stopwatch()
        with hold(folder):
            store = RunStore(
                folder,
                name=experiment.name,
                objectives=experiment.objectives,
                identity=experiment.identity,
                spec=experiment.spec,
            )
            begun = time.perf_counter()
            search = SearchRun(experiment, evaluator, store, executor, onlooker=watch, rules=rules_of(experiment))
            try:
                study = search.run()
            finally:
                executor.close()
        wall_s = time.perf_counter() - begun
        trials = len(study.in_state(TrialState.COMPLETE, TrialState.STOPPED))
    training_s = watch.seconds["training"]
    return {
        "wall_s": wall_s,
        "per_minute": 60 * trials / wall_s,
        "measuring_s": watch.seconds["measuring"],
        "training_s": training_s,
        "else_s": wall_s - training_s - watch.seconds["measuring"],
        "busy": executor.busy_s / (workers * training_s) if training_s else 0.0,
    }


def steps_per_s(
    experiment: Experiment, processes: int, seconds: float, *, config: HFIRConfig | None = None, threads: int = 1
) -> float:
    """Return the training steps a second of so many processes together that do nothing else.

    Args:
        experiment: Says how to train.
        processes: How many.
        seconds: For how long.
        config: What each trains; by default the first network that the space gives.
        threads: Of each.
    """
    spawn = multiprocessing.get_context("spawn")
    ready, rates = spawn.Barrier(processes), spawn.Queue()
    config = config or next(filter(None, (_legal(experiment, seed) for seed in range(100))))
    given = (experiment, config, threads, ready, rates, seconds)
    started = [spawn.Process(target=_train_alone, args=given) for _ in range(processes)]
    for process in started:
        process.start()
    total = sum(rates.get() for _ in started)
    for process in started:
        process.join()
    return total


def _train_alone(
    experiment: Experiment, config: HFIRConfig, threads: int, ready: Any, rates: Any, seconds: float
) -> None:
    """Train one network, and put the steps a second."""
    start_worker()
    torch.set_num_threads(threads)
    plan = experiment.evaluation_plan()
    training = ProxyTraining(config, plan.proxy, task_data(plan.task), 0)
    training.run_to(5)
    ready.wait()
    first, begun = training.step, time.perf_counter()
    while time.perf_counter() - begun < seconds:
        training.run_to(training.step + 1)
    rates.put((training.step - first) / (time.perf_counter() - begun))


def _legal(experiment: Experiment, seed: int) -> HFIRConfig | None:
    try:
        return experiment.decode(experiment.space.sample(seed))
    except ConfigError:
        return None


def allowed(experiment: Experiment, workers: int, *, turns: int = 5, seconds: float = 6.0) -> float:
    """Return how many times the steps of one process so many take, the median of some turns."""
    pairs = [[steps_per_s(experiment, n, seconds) for n in (1, workers)] for _ in range(turns)]
    return statistics.median(many / one for one, many in pairs)


def main() -> None:
    """Run the ways one after the other and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--space", default="smoke", help="experiment file, or the name of one that ships")
    parser.add_argument("--trials", type=int, default=24)
    parser.add_argument("--workers", type=int, default=2, help="compared with one")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="change the experiment")
    arguments = parser.parse_args()
    changes = [*arguments.set, f"search.trials={arguments.trials}"]
    ways = {
        "1 worker": (1, []),
        f"{arguments.workers} workers": (arguments.workers, []),
        f"{arguments.workers} workers, asynchronous": (arguments.workers, ["execution.asynchronous=true"]),
    }
    print(f"{arguments.space}, {arguments.trials} trials, {os.cpu_count()} cores, one thread a worker")
    print(f"{'':28}{'wall s':>9}{'a minute':>10}{'times':>7}{'measuring':>11}{'training':>10}{'else':>7}{'busy':>7}")
    gain = allowed(load_experiment(arguments.space, changes), arguments.workers)
    print(f"{arguments.workers} processes that only train: {gain:.2f} times the steps of one", flush=True)
    first = 0.0
    for name, (workers, more) in ways.items():
        found = measure(load_experiment(arguments.space, [*changes, *more]), workers)
        first = first or found["per_minute"]
        print(
            f"{name:28}{found['wall_s']:9.1f}{found['per_minute']:10.2f}{found['per_minute'] / first:7.2f}"
            f"{found['measuring_s']:11.1f}{found['training_s']:10.1f}{found['else_s']:7.1f}{found['busy']:7.0%}",
            flush=True,
        )


if __name__ == "__main__":
    main()
