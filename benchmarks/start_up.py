"""How long it takes until something happens: `--help`, a worker, and a run up to its first training step.

Each figure is the median over `--repeats` fresh processes, after one that is not counted (files come into memory, and
the photographs into the cache). The run is `smoke` with one candidate and two rungs of a few steps.

    python benchmarks/start_up.py
    python benchmarks/start_up.py --repeats 9 --imports      # and the slowest imports of `--help` and of a run

The rows: `hfir-search --help` to its end; a worker, from being asked for to its first answer, and two at once; of a
run, from the start of its process, when the photographs are loaded, when the first training step begins, its end, and
the seconds of processor that it took with its workers, which say more than the others on a machine that is not quiet.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from search.evaluation.jobs import start_worker
from search.executors import ProcessExecutor
from search.store import JOURNAL

MAIN = "from search.cli import main; main()"
SMALL = ("search.generation=1", "proxy.rungs=[4,8]", "references=[]", "execution.workers=2")
POLL_S = 0.005


def nothing(job: int) -> int:
    """Do nothing; what is timed is the way here."""
    return job


def time_help() -> float:
    """Return the seconds of `hfir-search --help`."""
    begun = time.perf_counter()
    subprocess.run([sys.executable, "-c", MAIN, "--help"], check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - begun


def time_workers(workers: int) -> float:
    """Return the seconds from asking for workers to the answer of the last of them."""
    executor = ProcessExecutor(workers, start_worker)
    begun = time.perf_counter()
    try:
        list(executor.run(nothing, range(workers)))
        return time.perf_counter() - begun
    finally:
        executor.close()


def time_run(folder: Path) -> dict[str, float]:
    """Run a small experiment from nothing; return the seconds from its start to what its journal shows."""
    found: dict[str, float] = {}
    changes = [word for change in SMALL for word in ("--set", change)]
    command = [sys.executable, "-c", MAIN, "run", "smoke", "--trials", "1", "--out", str(folder), "--quiet", *changes]
    begun, before = time.perf_counter(), _children_s()
    with subprocess.Popen(command) as process:
        while process.poll() is None:
            now = time.perf_counter() - begun
            text = (folder / JOURNAL).read_text() if (folder / JOURNAL).is_file() else ""
            if "photographs" not in found and '"fact:baseline"' in text:
                found["photographs"] = now
            if "first step" not in found and '"measurement:0"' in text:
                found["first step"] = now - _trained_s(text)
            time.sleep(POLL_S)
    if process.returncode:
        raise SystemExit(f"the run ended with exit code {process.returncode}")
    return {**found, "end": time.perf_counter() - begun, "processor": _children_s() - before}


def _children_s() -> float:
    """Return the processor time of all processes that this one, and those it started, have waited for."""
    times = os.times()
    return times.children_user + times.children_system


def _trained_s(journal: str) -> float:
    """Return how long the first training took that a journal holds."""
    [record] = [json.loads(line) for line in journal.splitlines() if '"measurement:0"' in line][:1]
    return float(record["user_attr"]["measurement:0"]["elapsed_s"])


def slowest_imports(*arguments: str, number: int = 12) -> list[str]:
    """Return the imports of a command that take longest by themselves, in the form of `-X importtime`."""
    command = [sys.executable, "-X", "importtime", "-c", MAIN, *arguments]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    lines = [line for line in done.stderr.splitlines() if line.startswith("import time:") and "self" not in line]
    return sorted(lines, key=lambda line: -int(line.split(":")[1].split("|")[0]))[:number]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--imports", action="store_true", help="list the slowest imports, too")
    arguments = parser.parse_args()
    rows: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as temporary:
        os.environ["XDG_CACHE_HOME"] = str(Path(temporary) / "cache")
        for repeat in range(arguments.repeats + 1):
            figures = {"--help": time_help(), "a worker": time_workers(1), "two workers": time_workers(2)}
            run = time_run(Path(temporary) / f"run-{repeat}")
            figures |= {f"run: {name}": seconds for name, seconds in run.items()}
            for name, seconds in figures.items():
                rows.setdefault(name, []).extend([seconds] if repeat else [])
    print(f"{os.cpu_count()} cores, Python {sys.version.split()[0]}, median (least, most) of {arguments.repeats}, in s")
    for name, seconds in rows.items():
        print(f"{name:20}{statistics.median(seconds):8.2f}  ({min(seconds):.2f}, {max(seconds):.2f})")
    if arguments.imports:
        for command in (("--help",), ("run", "no-such-file")):
            print(f"\n{' '.join(command)}: microseconds itself | with what it imports | module")
            print("\n".join(slowest_imports(*command)))


if __name__ == "__main__":
    main()
