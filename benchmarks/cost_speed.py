"""How long it takes to know what a candidate costs: counts alone, counts remembered, and all of it with latency.

python benchmarks/cost_speed.py [--space efficient] [--networks 20] [--json FILE]

Networks are drawn from the space. `counts` are parameters, MACs and activations of a network never seen before, as the
budget's gate finds them; `remembered` the same from the disk, in a process that has not counted it; `full` adds memory
and latency, freshly measured, as `admit` does, and one training step on noise. One thread, caches in a folder of this
call's own. Wanted: 50 ms and 1.5 s in the median, on an idle core. Medians with the 10th and 90th percentile.
"""

import argparse
import dataclasses
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import torch

from hfir import ConfigError, HFIRConfig
from search.caching import cache_folder
from search.evaluation import cost
from search.evaluation.evaluator import admit
from search.evaluation.host import host_name, versions
from search.evaluation.jobs import start_worker
from search.evaluation.plan import CandidateJob
from search.experiment import Experiment, load_experiment


def drawn(experiment: Experiment, number: int) -> list[HFIRConfig]:
    """Return so many legal networks of a space."""
    found: dict[HFIRConfig, None] = {}
    seed = 0
    while len(found) < number:
        with suppress(ConfigError):
            found[experiment.decode(experiment.space.sample(seed))] = None
        seed += 1
    return list(found)


def timed_ms(work: Callable[[], object]) -> float:
    """Return how long one call takes."""
    start = time.perf_counter()
    work()
    return (time.perf_counter() - start) * 1e3


def spread(times_ms: list[float]) -> dict[str, float]:
    """Return median, 10th and 90th percentile."""
    tenths = statistics.quantiles(times_ms, n=10) if len(times_ms) > 1 else times_ms * 9
    return {"median_ms": statistics.median(times_ms), "p10_ms": tenths[0], "p90_ms": tenths[-1]}


def measure(experiment: Experiment, networks: list[HFIRConfig]) -> dict[str, dict[str, float]]:
    """Return the times of each way to know a cost."""
    plan = experiment.evaluation_plan()
    at = plan.cost.macs_at
    cost.count_afresh(networks[0], at)  # the first call loads what torch loads late
    counts = [timed_ms(lambda c=config: cost.static_counts(c, at)) for config in networks]
    cost._remembered.cache_clear()
    remembered = [timed_ms(lambda c=config: cost.static_counts(c, at)) for config in networks]
    unlimited = dataclasses.replace(plan, cost=dataclasses.replace(plan.cost, limits=()))
    full = []
    for number, config in enumerate(networks):
        job = CandidateJob(number=number, config=config.to_dict(), seed=number, checkpoint="")
        cost._remembered.cache_clear()
        for path in cache_folder("counts").iterdir():
            path.unlink()
        full.append(timed_ms(lambda j=job: admit(unlimited, j)))
    return {"counts": spread(counts), "remembered": spread(remembered), "full": spread(full)}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--space", default="efficient")
    parser.add_argument("--networks", type=int, default=20)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    start_worker()
    with tempfile.TemporaryDirectory() as cache:
        os.environ["XDG_CACHE_HOME"] = cache
        experiment = load_experiment(options.space)
        found = measure(experiment, drawn(experiment, options.networks))
    print(f"{options.networks} networks of {options.space}, {torch.get_num_threads()} thread, {host_name()}")
    for name, figures in found.items():
        print(f"{name:12s} {figures['median_ms']:9.1f} ms   ({figures['p10_ms']:.1f} to {figures['p90_ms']:.1f})")
    if options.json is not None:
        record = {"space": options.space, "networks": options.networks, "host": host_name(), "versions": versions()}
        options.json.write_text(json.dumps({**record, "figures": found}, indent=2) + "\n")


if __name__ == "__main__":
    main()
