"""Train every network of a small space at every rung, and keep what they reached: the table `ours`.

Three passes over one folder, each of which goes on where it was stopped:

    python benchmarks/build_table.py OUT --workers 2        # trains: 240 networks x 2 seeds, 63 min of 2 cores
    python benchmarks/build_table.py OUT --latencies        # measures: run it on a quiet machine, some 20 min
    python benchmarks/build_table.py OUT --pack DIR         # writes DIR/ours.parquet and DIR/ours.md

`--limit N` stops a pass after N networks, to try it. Seed 0 comes first for all networks, in an order that a seed
shuffles, then seed 1. A seed draws the patches, alike for all networks, and with a network's key its first weights.
The space, the task and the rungs stand in search/tabular/data/ours.yaml; validation is cut to the centre square of
`VALIDATION_PX`, so that training is what a network's time goes into.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import random
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, replace
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import Any, TextIO, cast

import torch

from search.evaluation.cost import count_macs_g, count_parameters, deploy_form
from search.evaluation.host import host_name, versions
from search.evaluation.jobs import start_worker
from search.evaluation.latency import measure_latency
from search.evaluation.proxy import ProxyTraining
from search.evaluation.quality import mean_quality
from search.experiment import Experiment, load_experiment
from search.tasks.dataset import TaskData, embedded_task
from search.tasks.degradations import DEGRADATIONS
from search.types import Genotype, stable_hash

EXPERIMENT = Path(__file__).parents[1] / "search" / "tabular" / "data" / "ours.yaml"
VALIDATION_PX = 192
ORDER_SEED = 0
TRAININGS, LATENCIES, CONDITIONS = "trainings.jsonl", "latencies.jsonl", "conditions.json"


def main() -> int:
    """Run one pass."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="folder of the record")
    parser.add_argument("--latencies", action="store_true", help="measure latencies instead of training")
    parser.add_argument("--pack", type=Path, metavar="DIR", help="write the table from the record")
    parser.add_argument("--seeds", type=int, default=2, help="seeds to train, from 0")
    parser.add_argument("--limit", type=int, default=None, help="stop after so many networks")
    parser.add_argument("--workers", type=int, default=1, help="networks trained at a time, one thread each")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    experiment = the_experiment()
    start_worker()
    if arguments.pack is not None:
        from search.tabular.packing import pack

        for path in pack(arguments.out, arguments.pack, experiment):
            print(path)
    elif arguments.latencies:
        measure(experiment, arguments.out, arguments.limit)
    else:
        train(experiment, arguments.out, arguments.seeds, arguments.limit, arguments.workers)
    return 0


def train(experiment: Experiment, out: Path, seeds: int, limit: int | None, workers: int) -> None:
    """Train what is not yet recorded."""
    write_conditions(experiment, out, load_data())
    done = {(line["key"], line["seed"]) for line in read_lines(out / TRAININGS)}
    waiting = [(s, g) for s in range(seeds) for g in shuffled(experiment) if (g.key, s) not in done]
    spawn = multiprocessing.get_context("spawn")
    with (
        (out / TRAININGS).open("a", encoding="utf-8") as record,
        ProcessPoolExecutor(workers, mp_context=spawn, initializer=start_worker) as pool,
    ):
        jobs = [pool.submit(trained, genotype, seed) for seed, genotype in waiting[:limit]]
        for count, job in enumerate(as_completed(jobs), start=1):
            line = job.result()
            append(record, line)
            last = line["rungs"][-1]
            print(
                f"{count}/{len(jobs)} seed {line['seed']} {line['key']} {last['psnr_db']:.3f} dB "
                f"{last['elapsed_s']:.1f} s",
                flush=True,
            )


@lru_cache
def the_experiment() -> Experiment:
    """Return the space and the proxy, read once a process."""
    return load_experiment(EXPERIMENT)


@lru_cache
def load_data() -> TaskData:
    """Return the embedded photographs, those to validate on cut to their centres."""
    return embedded_task(
        cast(Any, DEGRADATIONS["super_resolution"])(upscale=2), channels=3, seed=0, max_validation_px=VALIDATION_PX
    )


def trained(genotype: Genotype, seed: int) -> dict[str, Any]:
    """Train one network through all rungs, and return its line of the record."""
    experiment, data = the_experiment(), load_data()
    config, plan = experiment.decode(genotype), replace(experiment.evaluation_plan().proxy, data_seed=seed)
    weights_seed = int(stable_hash([genotype.key, seed]), 16) % 2**31
    training = ProxyTraining(config, plan, data, weights_seed)
    rungs: list[dict[str, Any]] = []
    for step in plan.rungs:
        loss = training.run_to(step)
        qualities = training.validate().qualities
        rungs.append(
            {
                "step": step,
                **mean_quality(qualities)._asdict(),
                "psnr_per_image_db": [q.psnr_db for q in qualities],
                "loss": loss,
                "elapsed_s": training.elapsed_s,
            }
        )
    counts = count_parameters(config)
    return {
        "key": genotype.key,
        "genotype": dict(genotype.values),
        "seed": seed,
        "params_m": counts.deploy_m,
        "params_train_m": counts.train_m,
        "macs_g": count_macs_g(config, experiment.budget.macs_at),
        "rungs": rungs,
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def measure(experiment: Experiment, out: Path, limit: int | None) -> None:
    """Measure the latency of every network that has none yet, alone on the machine."""
    done = {line["key"] for line in read_lines(out / LATENCIES)}
    waiting = [g for g in shuffled(experiment) if g.key not in done]
    with (out / LATENCIES).open("a", encoding="utf-8") as record:
        for count, genotype in enumerate(waiting[:limit], start=1):
            torch.manual_seed(0)
            model = deploy_form(experiment.decode(genotype))
            latency = measure_latency(model, experiment.budget.latency_at, experiment.budget.threads)
            append(record, {"key": genotype.key, "latency": asdict(latency)})
            doubt = f" ({latency.doubt})" if latency.doubt else ""
            print(f"{count}/{len(waiting)} {genotype.key} {latency.median_ms:.3f} ms{doubt}")


def write_conditions(experiment: Experiment, out: Path, data: TaskData) -> None:
    """Keep what the figures hold for; a record is of one space and recipe, and refuses another."""
    conditions = {
        "space": experiment.space.hash,
        "spec": experiment.spec,
        "validation_px": VALIDATION_PX,
        "validation": [pair.name for pair in data.validation],
        "train": sorted({photo.name for photo in data.train}),
        "order_seed": ORDER_SEED,
        "host": host_name(),
        "versions": dict(versions()),
        "threads": 1,
        "started_at": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    path = out / CONDITIONS
    if not path.is_file():
        path.write_text(json.dumps(conditions, indent=1) + "\n", encoding="utf-8")
        return
    known = json.loads(path.read_text(encoding="utf-8"))
    changed = [k for k in ("space", "spec", "validation_px", "versions") if known[k] != conditions[k]]
    if changed:
        raise SystemExit(f"{path}: {', '.join(changed)} differ from now. Give another folder, or delete this one.")


def shuffled(experiment: Experiment) -> list[Genotype]:
    """Return all points of the space, in the order in which they are trained."""
    points = list(experiment.space.enumerate())
    random.Random(ORDER_SEED).shuffle(points)
    return points


def read_lines(path: Path) -> Iterator[dict[str, Any]]:
    """Yield what was recorded; a last line that was not finished is cut off, to be trained again."""
    if not path.is_file():
        return
    content = path.read_bytes()
    whole = content[: content.rfind(b"\n") + 1]
    if whole != content:
        path.write_bytes(whole)
    yield from map(json.loads, whole.splitlines())


def append(record: TextIO, line: dict[str, Any]) -> None:
    """Write one line, down to the disk."""
    record.write(json.dumps(line) + "\n")
    record.flush()
    os.fsync(record.fileno())


if __name__ == "__main__":
    started = time.monotonic()
    code = main()
    print(f"{time.monotonic() - started:.0f} s")
    raise SystemExit(code)
