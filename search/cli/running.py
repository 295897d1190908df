"""`run`: the search from the command line, and the files that it leaves."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

from rich.console import Console
from rich.logging import RichHandler
from ruamel.yaml import YAML

from search.cli.progress import live_progress
from search.cli.showing import conditions, frame_records, print_json
from search.cli.tables import front_table, output_console
from search.evaluation.evaluator import start_worker
from search.executors import ProcessExecutor
from search.experiment import Experiment, load_experiment
from search.gallery import write_gallery
from search.presets import export_presets
from search.report import choose_presets, write_all, write_report
from search.runtime import run_folder, worker_count
from search.store import RunStore, hold
from search.study import Onlooker, SearchRun
from search.types import HFIRSearchError, Study, TrialState

log = logging.getLogger(__name__)


def run_experiment(
    path: str,
    *,
    overrides: list[str],
    out: Path | None,
    time_budget_s: float | None,
    remeasure: bool,
    quiet: bool,
    as_json: bool,
) -> None:
    """Run an experiment to its end, write its results and print the front.

    Raises:
        InputError: If the file, the data or the folder cannot be used.
        HFIRSearchError: If no candidate completed.
    """
    experiment = load_experiment(path, overrides)
    folder = run_folder(experiment, out)
    deadline = None if time_budget_s is None else time.monotonic() + time_budget_s
    errors = Console(stderr=True, quiet=quiet)
    with hold(folder), _logging(folder, errors):
        store = RunStore(
            folder,
            name=experiment.name,
            objectives=experiment.objectives,
            identity=experiment.identity,
            spec=experiment.spec,
        )
        YAML().dump(experiment.spec, folder / "experiment.yaml")
        finished = _search(experiment, store, errors, deadline, remeasure)
        study = store.study()
        _write_results(experiment, study)
    _tell(study, folder, finished=finished, quiet=quiet, as_json=as_json)


def _search(experiment: Experiment, store: RunStore, errors: Console, deadline: float | None, remeasure: bool) -> bool:
    """Search until done or out of time; return whether the run is finished."""
    executor = ProcessExecutor(worker_count(experiment), start_worker)
    with _display(experiment, errors) as onlooker:
        search = SearchRun(experiment, store, executor, onlooker=onlooker, deadline=deadline, remeasure=remeasure)
        if search.is_finished:
            errors.print(
                f"{store.folder} is finished: {experiment.search.trials} candidates were trained. "
                "Raise --trials to go on.",
                highlight=False,
            )
            return True
        try:
            search.run()
        finally:
            executor.close()
        return search.is_finished


@contextmanager
def _display(experiment: Experiment, errors: Console) -> Iterator[Onlooker]:
    if errors.quiet or not errors.is_terminal:
        with nullcontext():
            yield lambda progress: None
    else:
        with live_progress(experiment, errors) as onlooker:
            yield onlooker


@contextmanager
def _logging(folder: Path, errors: Console) -> Iterator[None]:
    """Log to the run's folder, and to standard error: everything where it is no terminal, else warnings."""
    root = logging.getLogger("search")
    file = logging.FileHandler(folder / "run.log", encoding="utf-8")
    file.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    shown: logging.Handler = logging.StreamHandler()
    if errors.is_terminal:  # the live panel shows the rest, and must not be torn apart by plain lines
        shown = RichHandler(console=errors, show_path=False, show_time=False)
        shown.setLevel(logging.WARNING)
    handlers = [file] if errors.quiet else [file, shown]
    root.setLevel(logging.INFO)
    for handler in handlers:
        root.addHandler(handler)
    try:
        yield
    finally:
        for handler in handlers:
            root.removeHandler(handler)
            handler.close()


def _write_results(experiment: Experiment, study: Study) -> None:
    write_all(study)
    if study.in_state(TrialState.COMPLETE):
        export_presets(study, experiment.evaluation_plan(), choose_presets(study))
        write_gallery(study.folder, experiment.evaluation_plan().task)
        write_report(study)  # again, with the pictures: the first one is there whatever becomes of the presets


def _tell(study: Study, folder: Path, *, finished: bool, quiet: bool, as_json: bool) -> None:
    """Print the front and where things lie.

    Raises:
        HFIRSearchError: If the run is over and no candidate completed.
    """
    complete = study.in_state(TrialState.COMPLETE)
    if finished and not complete:
        ended = study.facts.get("ended_early", "every candidate failed")
        raise HFIRSearchError(
            f"{folder}: no candidate completed ({ended}).\n"
            f"  See {folder / 'report.html'}; `hfir-search check` says which limit bites."
        )
    if as_json:
        print_json({"run": study.name, "folder": str(folder), "finished": finished, "front": frame_records(study)})
    elif not quiet:
        console = output_console()
        console.print(front_table(study))
        console.print(conditions(study), style="dim", highlight=False)
        if not finished:
            console.print("Paused by --time-budget; the same command goes on.", highlight=False)
        console.print(f"Report: {folder / 'report.html'}   Presets: {folder / 'presets'}", highlight=False)
