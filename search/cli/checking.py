"""`check`: what an experiment will do, before anything is spent."""

from __future__ import annotations

import dataclasses
from functools import partial

from rich.table import Table

from search.cli.consoles import error_console, output_console
from search.cli.showing import print_json
from search.counts import count
from search.evaluation.jobs import start_worker
from search.executors import ProcessExecutor
from search.experiment import Experiment, load_experiment
from search.experiment.calibrations import calibration_words
from search.feasibility import Feasibility, check_feasibility
from search.runtime import worker_count
from search.types import EvaluationError


def check_experiment(path: str, overrides: list[str], *, as_json: bool) -> None:
    """Load, probe and describe an experiment."""
    experiment = load_experiment(path, overrides)
    console, progress = output_console(), error_console()
    workers = worker_count(experiment)
    with progress.status("probing the space: decoding, counting, running a few networks …"):
        found = _in_a_worker(experiment, workers)
    if as_json:
        print_json({"name": experiment.name, **dataclasses.asdict(found)})
        return
    console.print(_space_table(experiment))
    console.print(_summary_table(experiment, found, workers))
    console.print(calibration_words(experiment), style="dim", highlight=False)
    for note in (*found.baseline.notes, found.baseline.storage):
        console.print(f"data: {note}", style="dim", soft_wrap=True)


def _in_a_worker(experiment: Experiment, workers: int) -> Feasibility:
    """Probe in a process prepared as those of a run are, so that the times are those of a run."""
    executor = ProcessExecutor(1, start_worker)
    try:
        [outcome] = executor.run(partial(check_feasibility, workers=workers), [experiment])
    finally:
        executor.close()
    if outcome.value is None:
        raise outcome.error or EvaluationError("the probe answered with nothing; please report this.")
    return outcome.value


def _space_table(experiment: Experiment) -> Table:
    table = Table(title=f"Space of {experiment.name}", title_justify="left", title_style="bold", box=None)
    for heading in ("dimension", "choices", "only when"):
        table.add_column(heading, overflow="fold")
    for row in experiment.space.describe():
        table.add_row(*row.values())
    return table


def _summary_table(experiment: Experiment, found: Feasibility, workers: int) -> Table:
    table = Table(title="What to expect", title_justify="left", title_style="bold", box=None, show_header=False)
    table.add_row("points of the space, exactly", f"{found.size:,}")
    table.add_row("legal networks", _share(found.legal, found.probed) + " of random points")
    limits = experiment.budget.limits()
    for name, (inside, checked) in found.within.items():
        table.add_row(f"  within {name} <= {limits[name]:g}", _share(inside, checked) + _hint(inside, checked))
    table.add_row("  legal and within all limits", _share(*found.within_all))
    table.add_row("trials", f"{_trials(experiment, found)}, {count(found.training_steps, 'training step')} expected")
    table.add_row(
        "proposals",
        "none would fit"
        if found.proposals is None
        else f"at most about {found.proposals}: samplers learn to keep to the budget",
    )
    minutes = "unknown: no probed network fits" if found.minutes is None else f"about {found.minutes:.0f} min"
    table.add_row("time", f"{minutes} on {count(workers, 'worker')}, one thread each")
    base = found.baseline
    table.add_row(
        "photographs",
        f"{base.train_images} to train on, {len(base.images)} to validate on: {', '.join(base.images)}",
    )
    if experiment.references:
        names = ", ".join(reference.name for reference in experiment.references)
        table.add_row("compared with", f"{names}; each trained {count(experiment.proxy.rungs[-1], 'step')} at the end")
    what = "bicubic" if experiment.task.scale > 1 else "degraded input"
    table.add_row(f"{what} on these", f"{base.psnr_db:.2f} dB, SSIM {base.ssim:.4f}")
    return table


def _trials(experiment: Experiment, found: Feasibility) -> str:
    """Return how many candidates will be trained; where the space holds fewer than asked for, say so."""
    asked = experiment.search.trials
    if found.trials == asked:
        return f"{asked:,}"
    return f"about {found.trials:,} of the {asked:,} asked for (the space has {count(found.size, 'point')})"


def _share(part: int, whole: int) -> str:
    return f"{part / whole:.0%} ({part}/{whole})" if whole else "not probed"


def _hint(inside: int, checked: int) -> str:
    return "   <- this limit bites" if checked and inside / checked < 0.5 else ""
