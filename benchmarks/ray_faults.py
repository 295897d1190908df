"""Does a run on Ray survive the loss of nodes, workers and drivers at random moments, without loss or repetition?

Usage: `python benchmarks/ray_faults.py [--kills 20] [--trials 24] [--seconds 0.5] [--seed 0]`. On a cluster of two
nodes on this machine, candidates that wait instead of training (waiting_task.py) are searched; at random moments a
worker, a node or the driver is killed with SIGKILL, until so many kills are made; runs that end before that are
followed by others. A node that was killed is replaced, a killed driver started again. Each run is then compared with
an undisturbed one: the same trials with the same figures, no rung trained again after it was recorded, none left
RUNNING. Prints a line for each kill and each run; exit code 1 where a run differs.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import ray.cloudpickle
import waiting_task
from ray.cluster_utils import Cluster
from ray_nodes import cluster_of, join, kill, lose, workers_of
from waiting_task import Settings, Waiting, WaitingProblem, faults, no_preparation, read_ledger, recorder

from search.executors import InlineExecutor
from search.ray_engine import RayRun, RaySettings
from search.store import hold, read_study
from search.study import SearchRun
from search.types import Study

CPUS = 2
PATIENCE_S = 600.0


def drive(folder: Path, address: str | None, *, trials: int, generation: int, seconds: float) -> Study:
    """Run, or go on with, a search in a folder; on a cluster, or in this process where there is no address."""
    folder.mkdir(parents=True, exist_ok=True)
    ledger = folder / "ledger"
    problem = WaitingProblem(Settings(trials=trials, generation=generation))
    with hold(folder):
        search = SearchRun(
            problem,
            Waiting(ledger, seconds),
            problem.store(folder),
            InlineExecutor(),
            onlooker=recorder(ledger),
        )
        if address is None:
            return search.run()
        ray.cloudpickle.register_pickle_by_value(waiting_task)  # nodes have hfir-search, not its benchmarks
        return RayRun(search, RaySettings(address=address, retries=100), no_preparation).run()


class Disturbed:
    """One run whose driver is a process of its own, and what is killed of it.

    Args:
        folder: Of the run.
        cluster: Where its trials are trained.
        options: For the driver.
    """

    def __init__(self, folder: Path, cluster: Cluster, options: list[str]) -> None:
        self.folder, self.cluster, self._options = folder, cluster, options
        folder.mkdir()
        self._driver = self._start()

    def _start(self) -> subprocess.Popen[bytes]:
        command = [sys.executable, __file__, "--drive", str(self.folder), "--address", self.cluster.address]
        with (self.folder / "driver.log").open("ab") as log:
            return subprocess.Popen([*command, *self._options], stdout=log, stderr=log)

    @property
    def begun(self) -> int:
        """How many rungs were begun."""
        ledger = self.folder / "ledger"
        return sum(entry.what == "begun" for entry in read_ledger(ledger)) if ledger.is_file() else 0

    def wait(self, seconds: float) -> bool:
        """Wait until a rung more was begun, and then so long; return whether the driver ended meanwhile."""
        before, end = self.begun, time.monotonic() + PATIENCE_S
        while self.begun <= before and self._driver.poll() is None:
            if time.monotonic() > end:
                raise TimeoutError(f"nothing was begun for {PATIENCE_S:.0f} s; see {self.folder / 'driver.log'}")
            time.sleep(0.05)
        time.sleep(seconds)
        return self._driver.poll() is not None

    def disturb(self, kind: str, chance: random.Random) -> str:
        """Kill something, see to what replaces it, and return what it was."""
        nodes = list(self.cluster.worker_nodes)
        if kind == "driver":
            self._driver.kill()
            self._driver.wait()
            self._driver = self._start()
            return "the driver"
        node = chance.choice(nodes)
        if kind == "node":
            lose(self.cluster, node)
            join(self.cluster, CPUS)
            return "a node"
        workers = workers_of(node)
        if workers:
            kill(chance.choice(workers))
        return "a worker" if workers else "nothing: the node had no worker"

    def finish(self) -> int:
        """Let the run come to its end, and return the driver's exit code."""
        return self._driver.wait(timeout=PATIENCE_S)


def main() -> int:
    """Kill, compare, and return 1 where a run differs."""
    arguments = _arguments()
    size = {"trials": arguments.trials, "generation": arguments.generation}
    if arguments.drive is not None:
        drive(arguments.drive, arguments.address, seconds=arguments.seconds, **size)
        return 0
    options = [f"--{name}={value}" for name, value in (size | {"seconds": arguments.seconds}).items()]
    chance = random.Random(arguments.seed)
    kills = {"a worker": 0, "a node": 0, "the driver": 0}
    found: list[str] = []
    with TemporaryDirectory() as name, cluster_of(2, CPUS) as cluster:
        unbroken = drive(Path(name) / "unbroken", None, seconds=0.0, **size)
        runs = 0
        while sum(kills.values()) < arguments.kills:
            run = Disturbed(Path(name) / f"run{runs}", cluster, options)
            runs += 1
            while sum(kills.values()) < arguments.kills and not run.wait(chance.uniform(0.0, 3 * arguments.seconds)):
                killed = run.disturb(chance.choice(["worker", "node", "driver"]), chance)
                if killed in kills:
                    kills[killed] += 1
                print(f"run {runs}: killed {killed} after {run.begun} rungs were begun", flush=True)
            code = run.finish()
            wrong = faults(read_study(run.folder), unbroken, run.folder / "ledger")
            wrong += [f"the driver ended with exit code {code}"] if code else []
            print(f"run {runs}: {'; '.join(wrong) or 'as if nothing had happened'}", flush=True)
            if wrong:
                print((run.folder / "driver.log").read_text()[-3000:])
            found += wrong
    print(json.dumps({"kills": kills, "runs": runs, "faults": len(found), **size, "seconds": arguments.seconds}))
    return 1 if found else 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Kill parts of a run on Ray at random, and see what is lost.")
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--trials", type=int, default=24, help="of each run")
    parser.add_argument("--generation", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=0.5, help="that each rung takes")
    parser.add_argument("--seed", type=int, default=0, help="of what is killed, and when")
    parser.add_argument("--drive", type=Path, help="be the driver of a run in this folder; used by the script itself")
    parser.add_argument("--address", help="of the driver's cluster")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
