"""How far latencies stray from quiet ones: beside a run's own trainers, and beside somebody else's processes.

python benchmarks/latency_noise.py [--space efficient] [--candidates 20] [--repeats 10] [--quiet-only] [--json FILE]

Start it on a machine where nothing else runs. Every figure is taken as a search takes it: in a worker process, under
the machine's lock, trainers between two steps, the reference beside each block. Three parts:

quiet    each candidate three times with nothing beside it; the median of the trusted ones is what the others are held
         against, and how far the three lie apart is the least that can be asked of them. With hosts that are never
         quiet, how far all figures lie apart, trusted or not, and what one takes.
own      two worker processes train all the while (`--trainers`), as those of another run on this machine would; one
         candidate is measured `--repeats` times. Wanted: each within 5 % of quiet, in the median.
foreign  one process, then one for each processor, keeps its core busy in bursts of 0.05 to 2 s with pauses as long; it
         takes no turns. Every candidate is measured once. Wanted: each figure is within 7 % of quiet or marked
         untrusted, and Kendall's tau of the trusted ones with the quiet order is 0.95 or more.

Prints a table, and stores every figure with machine and versions. One thread; caches in a folder of this call's own.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import multiprocessing
import os
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from scipy.stats import kendalltau

from hfir import ConfigError, HFIRConfig
from search.evaluation.cost import deploy_form
from search.evaluation.host import host_name, versions
from search.evaluation.jobs import ProxyEvaluator, start_worker
from search.evaluation.latency import measure_latency
from search.evaluation.plan import CandidateJob
from search.executors import ProcessExecutor
from search.experiment import Experiment, load_experiment
from search.types import InputSize, Latency

BURST_S = (0.05, 2.0)
QUIET_TURNS = 3


def drawn(experiment: Experiment, number: int) -> list[HFIRConfig]:
    """Return so many legal networks of a space that are within its static limits, as a search would measure them."""
    from search.evaluation.cost import static_counts

    limits, found, seed = dict(experiment.evaluation_plan().cost.limits), [], 0
    while len(found) < number:
        seed += 1
        try:
            config = experiment.decode(experiment.space.sample(seed))
        except ConfigError:
            continue
        counts = static_counts(config, experiment.budget.macs_at)
        if counts.macs_g <= limits.get("macs_g", float("inf")):
            found.append(config)
    return found


def measured(config: dict[str, Any], at: InputSize, threads: int) -> Latency:
    """Measure one candidate afresh; runs in a worker."""
    return measure_latency(deploy_form(HFIRConfig.from_dict(config)), at, threads)


def taken(executor: ProcessExecutor, experiment: Experiment, configs: Sequence[HFIRConfig]) -> list[Latency]:
    """Measure candidates one after the other in a worker process, as a search does."""
    work = partial(measured, at=experiment.budget.latency_at, threads=experiment.budget.threads)
    figures = []
    for config in configs:
        [outcome] = executor.run(work, [config.to_dict()])
        if outcome.value is None:
            raise RuntimeError(f"a candidate could not be measured: {outcome.error}")
        figures.append(outcome.value)
    return figures


def train_for_ever(experiment_path: str, config: dict[str, Any], folder: str, number: int) -> None:
    """Train one candidate after the other through the first rung, as a worker of a run does."""
    start_worker()
    evaluator = ProxyEvaluator(load_experiment(experiment_path).evaluation_plan())
    for turn in range(10**6):
        path = Path(folder) / f"{number}-{turn}.pt"
        evaluator.train(CandidateJob(number=turn, config=config, seed=turn, checkpoint=str(path)))


def burst_for_ever(seed: int) -> None:
    """Keep a core busy in bursts of random length, with pauses as long."""
    draw = random.Random(seed)
    while True:
        end = time.perf_counter() + draw.uniform(*BURST_S)
        while time.perf_counter() < end:
            sum(i * i for i in range(10_000))
        time.sleep(draw.uniform(*BURST_S))


@contextmanager
def beside(processes: Sequence[BaseProcess], warm_up_s: float) -> Iterator[None]:
    """Run processes meanwhile."""
    for process in processes:
        process.start()
    time.sleep(warm_up_s)
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.join()


def process(target: Callable[..., None], *args: Any) -> BaseProcess:
    """Return a process that is not started yet."""
    return multiprocessing.get_context("spawn").Process(target=target, args=args, daemon=True)


def quiet_part(executor: ProcessExecutor, experiment: Experiment, configs: list[HFIRConfig]) -> dict[str, Any]:
    """Measure each candidate in three rounds; return the quiet figures and how far the rounds lie apart."""
    start = time.perf_counter()
    rounds = [taken(executor, experiment, configs) for _ in range(QUIET_TURNS)]
    spent_s = time.perf_counter() - start
    each = [[one[i] for one in rounds] for i in range(len(configs))]
    good = [[f.median_ms for f in figures if f.trusted] for figures in each]
    quiet = [statistics.median(g or [f.median_ms for f in figures]) for g, figures in zip(good, each, strict=True)]
    apart = [max(g) / min(g) - 1 for g in good if len(g) > 1]
    all_apart = [max(ms) / min(ms) - 1 for ms in [[f.median_ms for f in figures] for figures in each]]
    return {
        "seconds_a_figure": spent_s / (QUIET_TURNS * len(configs)),
        "all_apart_median": statistics.median(all_apart),
        "all_apart_worst": max(all_apart),
        "quiet_ms": quiet,
        "untrusted": sum(not f.trusted for figures in each for f in figures),
        "candidates_never_trusted": sum(not g for g in good),
        "apart_median": statistics.median(apart) if apart else None,
        "apart_worst": max(apart, default=None),
        "figures": [[dataclasses.asdict(f) for f in figures] for figures in each],
    }


def held_against(quiet_ms: Sequence[float], figures: Sequence[Latency], within: float) -> dict[str, Any]:
    """Return how figures compare with quiet ones."""
    strays = [f.median_ms / ms - 1 for f, ms in zip(figures, quiet_ms, strict=True)]
    trusted = [i for i, f in enumerate(figures) if f.trusted]
    tau: float | None = None
    if len(trusted) > 1:
        order = [[quiet_ms[i] for i in trusted], [figures[i].median_ms for i in trusted]]
        tau = kendalltau(*order).correlation  # pyright: ignore[reportAttributeAccessIssue]
    return {
        "figures": len(figures),
        "trusted": len(trusted),
        "stray_of_the_median": statistics.median(f.median_ms for f in figures) / statistics.median(quiet_ms) - 1,
        "worst_trusted_stray": max((abs(strays[i]) for i in trusted), default=None),
        "trusted_but_further_than_wanted": sum(abs(strays[i]) > within for i in trusted),
        "kendall_tau_of_trusted": None if tau is None else float(tau),
        "strays": strays,
        "all": [dataclasses.asdict(f) for f in figures],
    }


def shown(figure: object) -> str:
    """Return a figure in few digits."""
    return "–" if figure is None else f"{figure:+.3f}" if isinstance(figure, float) else str(figure)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--space", default="efficient")
    parser.add_argument("--candidates", type=int, default=20)
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--trainers", type=int, default=2)
    parser.add_argument("--warm-up-s", type=float, default=15.0, help="for trainers to load and begin")
    parser.add_argument("--quiet-only", action="store_true", help="no trainers and no other processes beside")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        os.environ["XDG_CACHE_HOME"] = folder
        experiment = load_experiment(options.space)
        configs = drawn(experiment, options.candidates)
        executor = ProcessExecutor(1, start_worker)
        try:
            found = parts(executor, experiment, configs, options, folder)
        finally:
            executor.close()
    print(f"{len(configs)} networks of {options.space} at {experiment.budget.latency_at}, {host_name()}")
    for name, figures in found.items():
        print(f"\n{name}")
        for key, value in figures.items():
            if not isinstance(value, list):
                print(f"  {key:34s} {shown(value)}")
    if options.json is not None:
        record = {"space": options.space, "host": host_name(), "versions": versions(), "parts": found}
        options.json.write_text(json.dumps(record, indent=2) + "\n")


def parts(
    executor: ProcessExecutor,
    experiment: Experiment,
    configs: list[HFIRConfig],
    options: argparse.Namespace,
    folder: str,
) -> dict[str, dict[str, Any]]:
    """Measure quietly, beside trainers, and beside processes of others."""
    say = partial(print, file=sys.stderr, flush=True)
    say("quiet …")
    found = {"quiet": quiet_part(executor, experiment, configs)}
    if options.quiet_only:
        return found
    quiet = found["quiet"]["quiet_ms"]
    middle = sorted(range(len(configs)), key=lambda i: quiet[i])[len(configs) // 2]
    say("beside trainers of our own …")
    trained = configs[middle].to_dict()
    trainers = [process(train_for_ever, options.space, trained, folder, n) for n in range(options.trainers)]
    with beside(trainers, options.warm_up_s):
        figures = taken(executor, experiment, [configs[middle]] * options.repeats)
    found["own trainers"] = held_against([quiet[middle]] * options.repeats, figures, within=0.05)
    for number in sorted({1, os.cpu_count() or 1}):
        say(f"beside {number} of somebody else's processes …")
        with beside([process(burst_for_ever, seed) for seed in range(number)], 1.0):
            figures = taken(executor, experiment, configs)
        found[f"{number} foreign"] = held_against(quiet, figures, within=0.07)
    return found


if __name__ == "__main__":
    main()
