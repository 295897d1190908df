"""How many workers, and where a run's files lie."""

from __future__ import annotations

import os
from pathlib import Path

from search.experiment import Experiment


def worker_count(experiment: Experiment) -> int:
    """Return the worker processes of a run: as the file says, or one for each core that is ours."""
    return experiment.execution.workers or _cores()


def own_worker_count(experiment: Experiment) -> int:
    """Return the worker processes that a run has on this machine, whatever it has elsewhere."""
    workers = worker_count(experiment)
    return workers if experiment.execution.engine == "pool" else min(workers, _cores())


def ray_workers(experiment: Experiment) -> int | None:
    """Return the trials that Ray trains at a time: as many as a cluster that is there has room for, if not said."""
    if experiment.execution.workers is None and (experiment.execution.address or "local") != "local":
        return None
    return worker_count(experiment)


def run_folder(experiment: Experiment, out: Path | None) -> Path:
    """Return the folder of a run: as asked for, or `results/<name>` under the current folder."""
    return out if out is not None else Path("results") / experiment.name


def _cores() -> int:
    available = getattr(os, "sched_getaffinity", None)
    return len(available(0)) if available else (os.cpu_count() or 1)
