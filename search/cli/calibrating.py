"""`calibrate`: whether early rungs can be trusted, from the command line."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from search.calibration.record import Record
from search.calibration.summary import FIGURE, SUMMARY, write_findings
from search.calibration.verdict import Findings, findings_to_json, read_findings
from search.cli.consoles import error_console, output_console
from search.cli.logs import file_log, logging_to, shown_log
from search.cli.showing import print_json
from search.counts import count
from search.evaluation.jobs import start_worker
from search.executors import ProcessExecutor
from search.experiment import Experiment, load_experiment
from search.experiment.calibrations import calibration_folder
from search.files import shown
from search.ladder import Calibration
from search.prediction import FILE
from search.report.words import duration
from search.runtime import worker_count
from search.store import hold
from search.types import InputError

QUICK_CANDIDATES = 8
RANGE_CANDIDATES = 3
"""Candidates of the range test, evenly over the others."""


def calibrate_experiment(
    path: str,
    *,
    overrides: list[str],
    out: Path | None,
    candidates: int,
    seeds: int,
    steps: str | None,
    rates: str | None,
    crop_px: int,
    quick: bool,
    quiet: bool,
    as_json: bool,
) -> None:
    """Train what a calibration lacks, write its files and print the verdict.

    Raises:
        InputError: If the file, the data or an option cannot be used.
        StoreError: If the folder holds another calibration, or is in use.
        EvaluationError: If a training fails.
    """
    experiment = load_experiment(path, overrides)
    rungs = experiment.proxy.rungs
    if len(rungs) < 2:
        raise InputError(
            f"{path}: proxy.rungs is {list(rungs)}.\n  One rung has no early order to be judged: name two."
        )
    ladder = _numbers("--steps", steps, int) if steps else (list(rungs) if quick else default_ladder(rungs))
    tested = _numbers("--rates", rates, float) if rates else []
    folder = out if out is not None else calibration_folder(experiment)
    errors = error_console(quiet=quiet)
    executor = ProcessExecutor(worker_count(experiment), start_worker)
    handlers = [file_log_in(folder)] if errors.quiet else [file_log_in(folder), shown_log(errors)]
    with hold(folder), logging_to(*handlers):
        try:
            with _progress(errors) as onlooker:
                calibration = Calibration(
                    experiment,
                    folder,
                    executor,
                    candidates=min(candidates, QUICK_CANDIDATES) if quick else candidates,
                    seeds=seeds,
                    steps=ladder,
                    crop_px=crop_px,
                    onlooker=onlooker,
                )
                _warn(errors, calibration, executor.workers)
                record = calibration.run()
                if tested:
                    record = calibration.run_range_test(tested, RANGE_CANDIDATES, rungs[min(1, len(rungs) - 1)])
        finally:
            executor.close()
        findings = read_findings(record, rungs, experiment.proxy.keep)
        write_findings(folder, record, findings)
    _tell(experiment, folder, findings, quiet=quiet, as_json=as_json)


def default_ladder(rungs: tuple[int, ...]) -> list[int]:
    """Return where to look: half of the first rung, all rungs, and tenths of the last."""
    tenths = [round(rungs[-1] * share / 10) for share in range(1, 11)]
    return sorted({max(1, rungs[0] // 2), *rungs, *(t for t in tenths if t > 0)})


def file_log_in(folder: Path) -> logging.Handler:
    """Return a handler for the calibration's log; makes the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    return file_log(folder / "calibrate.log")


def _warn(errors: Console, calibration: Calibration, workers: int) -> None:
    """Say how long it will take, before it takes it."""
    missing = calibration.missing
    if missing:
        expected = duration(calibration.expected_s())
        errors.print(
            f"Missing: {count(missing, 'training')} of {count(calibration.plan.steps[-1], 'step')}, about "
            f"{expected} on {count(workers, 'worker')}. Ctrl-C stops; the same command goes on, and repeats no "
            "training that is finished.",
            highlight=False,
        )


@contextmanager
def _progress(errors: Console) -> Iterator[Callable[[Record, int], None]]:
    """Show a bar on a terminal; elsewhere the log tells."""
    if errors.quiet or not errors.is_terminal:
        yield lambda record, wanted: None
        return
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=errors, transient=True) as bars:
        bar = bars.add_task("trainings", total=None)

        def look(record: Record, wanted: int) -> None:
            bars.update(bar, total=wanted, completed=len(record.curves) + len(record.range_test))

        yield look


def _numbers(option: str, text: str, kind: type) -> list:
    """Read numbers > 0 between commas."""
    try:
        values = [kind(part) for part in text.split(",")]
    except ValueError:
        values = []
    if not values or not all(0 < value < float("inf") for value in values):
        raise InputError(f"{option} {text}: not a list of numbers above 0.\n  Write them with commas, e.g. 40,80,160.")
    return values


def _tell(experiment: Experiment, folder: Path, findings: Findings, *, quiet: bool, as_json: bool) -> None:
    if as_json:
        print_json({"folder": str(folder), **findings_to_json(findings)})
    elif not quiet:
        console = output_console()
        console.print(f"Calibration of {experiment.name}", style="bold", highlight=False)
        for line in findings.words:
            console.print(f"* {line}", highlight=False)
        console.print(f"Summary: {shown(folder / SUMMARY)}   Figure: {shown(folder / FIGURE)}", highlight=False)
        console.print(
            f"To rank by the predictor: --set proxy.rank_by=extrapolated --set proxy.predictor={folder / FILE}",
            highlight=False,
        )
