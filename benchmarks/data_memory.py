"""What does one more worker cost in memory, on one set of photographs? Real processes, proportional set size.

Usage: `python benchmarks/data_memory.py [FOLDER] [--workers 1 2 4] [--scale 2] [--copies 8] [--own]`. FOLDER
holds photographs; without one, a folder is made of the embedded photographs, each `--copies` times with other
pixels. In each worker the task is loaded as a search loads it, every photograph is read once in full, and a few
batches are cut. `--own` gives each worker a copy of its own, as it was before photographs were shared.

The proportional set size (PSS, /proc/PID/smaps_rollup, Linux) divides each page by the processes that have
mapped it, so the sum over the workers is what the machine spends. The same workers without photographs are
measured first; the difference is the photographs' share, and its growth with each worker is the figure wanted:
below 5 % of the data. Memory figures hold on a busy machine too. Exit code 1 where the growth is 5 % or more.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import tempfile
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from pathlib import Path

import numpy as np
from PIL import Image

from search.evaluation.data import task_data
from search.evaluation.plan import TaskPlan
from search.tasks.embedded import embedded_photos
from search.tasks.pairs import TaskData
from search.tasks.patches import PatchSampler

MIB = 2**20
LIMIT = 0.05
BATCHES = 3


def main() -> int:
    """Print the table; return 1 where a worker adds too much."""
    parser = argparse.ArgumentParser(description="Memory of N workers on one set of photographs.")
    parser.add_argument("folder", type=Path, nargs="?", help="photographs; by default made from the embedded ones")
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2, 4], help="numbers of workers to measure")
    parser.add_argument("--scale", type=int, default=2, help="of the super-resolution task, 2..4")
    parser.add_argument("--copies", type=int, default=8, help="of each embedded photograph, where there is no folder")
    parser.add_argument("--own", action="store_true", help="a copy in each worker, to compare with")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as made:
        folder = given.folder or made_folder(Path(made), given.copies)
        plan = TaskPlan(
            kind="super_resolution",
            options=(("upscale", given.scale),),
            channels=3,
            folders=(("folder", str(folder.resolve())),),
            seed=0,
        )
        return table(plan, sorted(set(given.workers)), own=given.own)


def table(plan: TaskPlan, counts: list[int], *, own: bool) -> int:
    """Measure each number of workers and print a line for it."""
    data = task_data(plan)
    size = data_mib(data)
    print(data.storage)
    print(f"{len(data.train)} photographs to train on, {len(data.validation)} to validate on: {size:.1f} MiB of arrays")
    print(f"{'workers':>8}{'without MiB':>14}{'with MiB':>12}{'photographs MiB':>18}{'per worker more':>18}")
    shares: list[float] = []
    for count in counts:
        without, with_data = total_pss_mib(plan, count, "none"), total_pss_mib(plan, count, "own" if own else "shared")
        shares.append(with_data - without)
        growth = (shares[-1] - shares[0]) / (count - counts[0]) if count > counts[0] else 0.0
        more = "" if count == counts[0] else f"{growth:.1f} MiB, {growth / size:.1%}"
        print(f"{count:>8}{without:>14.1f}{with_data:>12.1f}{shares[-1]:>18.1f}{more:>18}", flush=True)
    if len(counts) < 2:
        return 0
    growth = (shares[-1] - shares[0]) / (counts[-1] - counts[0]) / size
    print(f"each worker adds {growth:.1%} of the data; the limit is {LIMIT:.0%}")
    return 0 if growth < LIMIT else 1


def total_pss_mib(plan: TaskPlan, count: int, mode: str) -> float:
    """Return the PSS of so many workers together, all of them ready at once."""
    context = multiprocessing.get_context("spawn")
    workers: list[tuple[SpawnProcess, Connection]] = []
    try:
        for _ in range(count):
            ours, theirs = context.Pipe()
            worker = context.Process(target=work, args=(plan, mode, theirs))
            worker.start()
            workers.append((worker, ours))
        for _, pipe in workers:
            pipe.recv()
        return sum(pss_mib(worker.pid or 0) for worker, _ in workers)
    finally:
        for worker, pipe in workers:
            pipe.send(None)
            worker.join()


def work(plan: TaskPlan, mode: str, pipe: Connection) -> None:
    """Load, touch every page, cut a few batches, say so, and wait for the end."""
    data = None if mode == "none" else task_data(plan)
    if data is not None and mode == "own":
        data = own_copy(data)
    if data is not None:
        touched = sum(int(image.sum()) for photo in data.train for image in (photo.clean, photo.prepared))
        touched += sum(float(pair.degraded.sum()) + int(pair.clean.sum()) for pair in data.validation)
        sampler = PatchSampler(data, 32, 8, seed=0)
        for step in range(BATCHES):
            sampler.batch(step)
        assert touched
    pipe.send(os.getpid())
    pipe.recv()


def own_copy(data: TaskData) -> TaskData:
    """Return the data with arrays of its own."""
    import dataclasses

    train = tuple(dataclasses.replace(p, clean=np.array(p.clean), prepared=np.array(p.prepared)) for p in data.train)
    validation = tuple(
        dataclasses.replace(p, clean=np.array(p.clean), degraded=np.array(p.degraded)) for p in data.validation
    )
    return dataclasses.replace(data, train=train, validation=validation)


def pss_mib(pid: int) -> float:
    """Return a process's proportional set size."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="utf-8").splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) / 1024
    raise RuntimeError(f"/proc/{pid}/smaps_rollup tells no Pss: this needs Linux 4.14 or later")


def data_mib(data: TaskData) -> float:
    """Return what the arrays of a task take, each counted once."""
    arrays = {a.__array_interface__["data"][0]: a.nbytes for p in data.train for a in (p.clean, p.prepared)}
    arrays |= {a.__array_interface__["data"][0]: a.nbytes for p in data.validation for a in (p.clean, p.degraded)}
    return sum(arrays.values()) / MIB


def made_folder(folder: Path, copies: int) -> Path:
    """Write each embedded photograph several times, a level brighter each time, so that no two are alike."""
    photos = [photo for part in embedded_photos() for photo in part]
    for photo in photos:
        for copy in range(copies):
            Image.fromarray(np.minimum(photo.pixels, 255 - copy) + np.uint8(copy)).save(
                folder / f"{Path(photo.name).stem}-{copy}.png"
            )
    return folder


if __name__ == "__main__":
    raise SystemExit(main())
