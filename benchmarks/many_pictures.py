"""How does the time before the first picture grow with the number of pictures in a folder?

Usage: `python benchmarks/many_pictures.py [--counts 2500 5000 10000] [--restored 20000] [--evaluate]`. Random
pictures of 32 x 32 px are written to a temporary folder, each count a part of the next. Measured, in seconds, without
the start of Python and the loading of a network:

* restore: `plan_jobs` and `restore_all` where all results but one exist; that one is restored by a tiny network.
* evaluate: reading the folder of `--data`, until the first picture is scored; with `--evaluate` the whole command.
* task.data: `task_data` with an empty cache (read, degraded, written), and again from the cache.

Each line ends with the processor time over that of the line before, divided by the ratio of the counts: 1 is linear,
2 is quadratic for twice as many. Exit code 1 where one is above 1.5, or where the restoring of `--restored` pictures
takes 5 s or more.
"""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import PIL
import pyvips
import torch
from PIL import Image
from typer.testing import CliRunner

from hfir import HFIRConfig, build_model, fuse
from search.cli.app import app
from search.evaluation.cost import as_deployed
from search.evaluation.data import task_data
from search.evaluation.host import host_name
from search.evaluation.plan import TaskPlan
from search.inference.jobs import plan_jobs
from search.inference.networks import Restorer
from search.inference.restoring import restore_all
from search.tasks.images import load_folder

SIDE_PX = 32
LIMIT_S = 5.0
GROWTH = 1.5


class Spent(NamedTuple):
    """Seconds of the processor, and on the clock."""

    cpu_s: float
    wall_s: float


def main() -> int:
    """Print the tables; return 1 where a time grows faster than the number of pictures, or is above its limit."""
    parser = argparse.ArgumentParser(description="Times by the number of pictures in a folder.")
    parser.add_argument("--counts", type=int, nargs="+", default=[2500, 5000, 10000], help="pictures in a folder")
    parser.add_argument("--restored", type=int, default=20_000, help="pictures of which all but one are restored")
    parser.add_argument("--evaluate", action="store_true", help="also the whole of `evaluate bicubic`")
    given = parser.parse_args()
    counts = sorted(set(given.counts))
    torch.set_num_threads(1)
    print(
        f"{host_name()}, load {os.getloadavg()[0]:.1f} at the start, one thread; Python {platform.python_version()}, "
        f"Pillow {PIL.__version__}, libvips {'.'.join(str(pyvips.version(i)) for i in range(3))}; "
        f"PNG of {SIDE_PX} x {SIDE_PX} px, random levels"
    )
    with tempfile.TemporaryDirectory() as place:
        os.environ["XDG_CACHE_HOME"] = str(Path(place) / "cache")
        folder = Path(place) / "pictures"
        folder.mkdir()
        times(folder, 2, Path(place), whole=given.evaluate)  # what is imported on first use
        rows = {count: times(folder, count, Path(place), whole=given.evaluate) for count in counts}
        worst = table(rows)
        spent = restoring(links(folder, Path(place) / "links", given.restored), Path(place) / "out")
    print(f"restore of {given.restored} pictures of which one is missing: {spent.cpu_s:.2f} s ({spent.wall_s:.2f} s)")
    return 1 if worst > GROWTH or spent.wall_s >= LIMIT_S else 0


def times(folder: Path, count: int, place: Path, *, whole: bool) -> dict[str, Spent]:
    """Fill a folder up to a number of pictures, and measure."""
    rng = np.random.default_rng(0)
    for number in range(len(list(folder.iterdir())), count):
        levels = rng.integers(0, 256, (SIDE_PX, SIDE_PX, 3), dtype=np.uint8)
        levels[0, 0] = number >> 16, number >> 8 & 255, number & 255  # no two are the same picture
        Image.fromarray(levels).save(folder / f"{number:06}.png")
    place_of = (("folder", str(folder)),)
    plan = TaskPlan(kind="denoise", options=(("sigma", 25.0),), channels=3, folders=place_of, seed=count)
    task_data.cache_clear()
    found = {
        "restore": restoring(folder, place / f"out{count}"),
        "evaluate, until the first": spent(lambda: load_folder(folder, min_side=SIDE_PX)),
        "task.data, first": spent(lambda: task_data(plan)),
    }
    task_data.cache_clear()
    found["task.data, from the cache"] = spent(lambda: task_data(plan))
    if whole:
        arguments = ["evaluate", "bicubic", "--data", str(folder), "--upscale", "2"]
        found["evaluate, all"] = spent(lambda: CliRunner().invoke(app, arguments))
    return found


def restoring(folder: Path, out: Path) -> Spent:
    """Restore a folder of which all results but one exist."""
    out.mkdir()
    for file in folder.iterdir():
        (out / file.name).touch()
    next(out.iterdir()).unlink()
    with torch.random.fork_rng(devices=[]):
        model = as_deployed(fuse(build_model(HFIRConfig(width=4, upscale=1))))
    restorer = Restorer(model=model, device=torch.device("cpu"))
    outcomes = []
    found = spent(lambda: outcomes.append(restore_all(restorer, plan_jobs([folder], out).jobs)))
    if len(outcomes[0].restored) != 1:
        sys.exit(f"restored {len(outcomes[0].restored)} pictures, not one")
    shutil.rmtree(out)
    return found


def links(folder: Path, target: Path, count: int) -> Path:
    """Return a folder of so many files, each a hard link to a picture of another folder."""
    target.mkdir()
    files = sorted(folder.iterdir())
    for number in range(count):
        (target / f"{number:06}.png").hardlink_to(files[number % len(files)])
    return target


def spent(work: Callable[[], object]) -> Spent:
    """Return the time that a piece of work takes."""
    cpu, wall = time.process_time(), time.perf_counter()
    work()
    return Spent(time.process_time() - cpu, time.perf_counter() - wall)


def table(rows: dict[int, dict[str, Spent]]) -> float:
    """Print the times, and return the fastest growth."""
    worst = 0.0
    print(f"{'':<28}{'pictures':>10}{'CPU s':>10}{'wall s':>10}{'growth':>10}")
    for name in next(iter(rows.values())):
        before: tuple[int, Spent] | None = None
        for count, found in rows.items():
            growth = None if before is None else found[name].cpu_s / before[1].cpu_s / (count / before[0])
            worst = max(worst, growth or 0.0)
            words = "" if growth is None else f"{growth:.2f}"
            print(f"{name:<28}{count:>10}{found[name].cpu_s:>10.2f}{found[name].wall_s:>10.2f}{words:>10}", flush=True)
            before = count, found[name]
    return worst


if __name__ == "__main__":
    sys.exit(main())
