"""How much of the pool's throughput does Ray's local engine reach, at trials of some seconds of computing?

Usage: `python benchmarks/ray_throughput.py [--workers 2] [--trials 24] [--seconds 10] [--repeats 3] [--out FILE]`. Both
engines search the same candidates, which compute on one core for so many seconds a rung instead of training
(waiting_task.py); they take turns, the pool first. The time is that of the whole run, with the start of the workers and
of Ray, and once more without it: from the first rung that was begun to the last that was recorded. Run it on a quiet
machine. Prints a table, and with `--out` writes JSON with the machine and the versions.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import NamedTuple

import ray.cloudpickle
import waiting_task
from waiting_task import Settings, Waiting, WaitingProblem, no_preparation, recorder

from search.evaluation.host import host_name, versions
from search.executors import InlineExecutor, ProcessExecutor
from search.ray_engine import RayRun, RaySettings
from search.study import SearchRun


class Times(NamedTuple):
    """Seconds that a run took."""

    whole: float
    trained: float
    rungs: int


def run_once(engine: str, folder: Path, arguments: argparse.Namespace) -> Times:
    """Search once with an engine, `pool` or `ray`."""
    problem = WaitingProblem(Settings(trials=arguments.trials, generation=arguments.generation))
    ledger = folder / "ledger"
    executor = ProcessExecutor(arguments.workers, no_preparation) if engine == "pool" else InlineExecutor()
    stamps: list[float] = []
    note = recorder(ledger)

    def look(progress: object) -> None:
        note(progress)  # pyright: ignore[reportArgumentType]
        if ledger.is_file():
            stamps.append(time.monotonic())

    evaluator = Waiting(ledger, arguments.seconds, busy=True)
    search = SearchRun(problem, evaluator, problem.store(folder), executor, onlooker=look)
    begun = time.monotonic()
    try:
        study = (
            search.run()
            if engine == "pool"
            else RayRun(search, RaySettings(workers=arguments.workers), no_preparation).run()
        )
    finally:
        executor.close()
    rungs = sum(len(trial.measurements) for trial in study.trials)
    return Times(time.monotonic() - begun, stamps[-1] - stamps[0] + arguments.seconds, rungs)


def main() -> int:
    """Let the engines take turns, and print what they did."""
    parser = argparse.ArgumentParser(description="Rungs a minute of the pool and of Ray on this machine.")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--trials", type=int, default=24)
    parser.add_argument("--generation", type=int, default=12)
    parser.add_argument("--seconds", type=float, default=10.0, help="of computing in each rung")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", type=Path, help="a JSON file")
    arguments = parser.parse_args()
    ray.cloudpickle.register_pickle_by_value(waiting_task)
    taken: dict[str, list[Times]] = {"pool": [], "ray": []}
    with TemporaryDirectory() as name:
        for repeat in range(arguments.repeats):
            for engine, times in taken.items():
                folder = Path(name) / f"{engine}{repeat}"
                folder.mkdir()
                times.append(run_once(engine, folder, arguments))
    print(f"{'engine':<8}{'rungs':>7}{'whole s':>10}{'rungs/min':>11}{'trained s':>11}{'rungs/min':>11}")
    for engine, times in taken.items():
        rungs, whole, trained = times[0].rungs, median(t.whole for t in times), median(t.trained for t in times)
        rates = 60 * rungs / whole, 60 * rungs / trained
        print(f"{engine:<8}{rungs:>7}{whole:>10.1f}{rates[0]:>11.2f}{trained:>11.1f}{rates[1]:>11.2f}")
    shares = {
        part: median(getattr(t, part) for t in taken["pool"]) / median(getattr(t, part) for t in taken["ray"])
        for part in ("whole", "trained")
    }
    print(f"Ray's throughput over the pool's: {shares['whole']:.3f}, without the start {shares['trained']:.3f}")
    if arguments.out is not None:
        setting = {name: value for name, value in vars(arguments).items() if name != "out"}
        record = {"host": host_name(), "versions": versions(), "setting": setting, "shares": shares}
        record["seconds"] = {engine: [t._asdict() for t in times] for engine, times in taken.items()}
        arguments.out.write_text(json.dumps(record, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
