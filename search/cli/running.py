"""`run`: the search from the command line, and the files that it leaves.

What is slow to import is imported where it is used: the workers start meanwhile, and import torch themselves.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from ruamel.yaml import YAML

from search.cli.consoles import error_console, output_console
from search.cli.logs import file_log, logging_to, shown_log
from search.counts import count
from search.evaluation.jobs import ProxyEvaluator, start_worker
from search.executors import ProcessExecutor
from search.experiment import Experiment, encode, load_experiment, with_enqueued
from search.experiment.calibrations import calibration_words
from search.files import replace_file, shown
from search.runtime import own_worker_count, ray_workers, run_folder
from search.store import RunStore, hold, read_study
from search.timing import Phase, process_age_s, span, working
from search.types import HFIRSearchError, Study, TrialState

if TYPE_CHECKING:
    from search.cli.presets import Shipment
    from search.study import Job, Onlooker, Profile, Progress, SearchRun
    from search.tracking import MLflowLog

log = logging.getLogger(__name__)


def run_experiment(
    path: str,
    *,
    overrides: list[str],
    out: Path | None,
    enqueue: list[str],
    warm_starts: list[Path],
    time_budget_s: float | None,
    remeasure: bool,
    tensorboard: bool,
    mlflow: str | None,
    storage: str | None,
    quiet: bool,
    as_json: bool,
) -> None:
    """Run an experiment to its end, write its results and print the front.

    Raises:
        InputError: If the file, the data or the folder cannot be used, or a package is missing.
        HFIRSearchError: If no candidate completed.
    """
    experiment = load_experiment(path, overrides)
    if enqueue:
        experiment = with_enqueued(experiment, enqueue)
    earlier = [read_study(source) for source in warm_starts]
    folder = run_folder(experiment, out)
    if tensorboard:
        _require_tensorboard()
    tracker = None if mlflow is None else _tracker(mlflow)
    deadline = None if time_budget_s is None else time.monotonic() + time_budget_s
    errors = error_console(quiet=quiet)
    with (
        hold(folder),
        logging_to(*_logs(folder, errors)),
        closing(_store(experiment, folder, storage)) as store,
        closing(_workers(experiment, store)) as executor,
    ):
        profile = _profile(experiment, store, executor)
        for before in earlier:
            _take_over(experiment, store, before, errors)
        spec = _write_experiment(store)
        _tell_calibration(experiment, store, errors)
        _tell_size(experiment, store, errors)
        try:
            finished = _search(
                experiment,
                store,
                executor,
                profile,
                errors,
                tracker,
                deadline=deadline,
                remeasure=remeasure,
                scalars=tensorboard,
            )
        finally:
            if store.study().spec != spec:  # photographs in another folder, found to be the same
                _write_experiment(store)
        shipment = _write_results(experiment, store, executor, profile)
        study = store.study()
    _tell(study, folder, finished=finished, quiet=quiet, as_json=as_json)
    _refuse_damage(folder, shipment)


def _store(experiment: Experiment, folder: Path, storage: str | None) -> RunStore:
    return RunStore(
        folder,
        name=experiment.name,
        objectives=experiment.objectives,
        identity=experiment.identity,
        spec=experiment.spec,
        earlier_identity=experiment.earlier_identity,
        storage=storage,
    )


def _write_experiment(store: RunStore) -> Mapping[str, Any]:
    """Write the experiment as it is recorded, for commands that need more than the records; return it."""
    spec = store.study().spec
    replace_file(store.folder / "experiment.yaml", lambda path: YAML().dump(dict(spec), path))
    return spec


def _workers(experiment: Experiment, store: RunStore) -> ProcessExecutor:
    """Return the workers on this machine; where there is something to train here, they are starting already."""
    executor = ProcessExecutor(own_worker_count(experiment), start_worker, limit_s=_limit_s)
    if experiment.execution.engine == "pool" and not store.facts.get("finished"):
        executor.start()
    return executor


def _limit_s(job: Job) -> float | None:
    from search.study import time_limit

    return time_limit(job)


def _profile(experiment: Experiment, store: RunStore, executor: ProcessExecutor) -> Profile:
    """Begin to add up where this session's time goes, what went since the process began included."""
    from search.study import Profile

    pool = experiment.execution.engine == "pool"
    workers = executor.workers if pool else ray_workers(experiment)
    return Profile(store, workers=workers, age_s=process_age_s(), numbered=pool)


def _require_tensorboard() -> None:
    from search.evaluation.scalars import require_tensorboard

    require_tensorboard()


def _tracker(uri: str) -> MLflowLog:
    from search.tracking import MLflowLog

    return MLflowLog(uri)


def _take_over(experiment: Experiment, store: RunStore, earlier: Study, errors: Console) -> None:
    """Begin from an earlier run, and say what was taken over."""
    from search.study import warm_start

    made = warm_start(store, experiment.space, earlier, encode)
    log.info("%s", made)
    if errors.is_terminal:  # where the log shows warnings only
        errors.print(str(made), highlight=False, markup=False)


def _tell_calibration(experiment: Experiment, store: RunStore, errors: Console) -> None:
    """Say whether the early rungs can be trusted, and keep it for the report."""
    words = calibration_words(experiment)
    errors.print(words, style="dim", highlight=False)
    if store.study().facts.get("calibration") != words:
        store.note("calibration", words)


def _tell_size(experiment: Experiment, store: RunStore, errors: Console) -> None:
    """Keep the size of the space, and say where it holds fewer candidates than are asked for."""
    size, trials = experiment.space.size, experiment.search.trials
    if store.facts.get("points") != size:
        store.note("points", size)
    if size < trials:
        words = f"The space has {count(size, 'point')}: at most {size:,} of the {trials:,} trials can be trained."
        errors.print(words, highlight=False, soft_wrap=True)


def _search(
    experiment: Experiment,
    store: RunStore,
    executor: ProcessExecutor,
    profile: Profile,
    errors: Console,
    tracker: MLflowLog | None,
    *,
    deadline: float | None,
    remeasure: bool,
    scalars: bool,
) -> bool:
    """Search until done or out of time; return whether the run is finished."""
    from search.study import Progress, References, SearchRun, added_plans, rules_of

    before = store.study()
    named = {reference.name for reference in experiment.references}
    added = [plan for plan in added_plans(before) if remeasure and plan.name not in named]
    with _display(experiment, errors) as display:
        onlooker = display if tracker is None else _tracked(display, tracker)
        onlooker(Progress(study=before, phase="starting", running=frozenset()))
        evaluator = _evaluator(experiment, remeasure=remeasure)
        search = SearchRun(
            experiment,
            evaluator,
            store,
            executor,
            references=References(
                (*experiment.references, *added),
                store,
                rungs=experiment.proxy.rungs,
                seed=experiment.search.seed,
                remeasure=remeasure,
            ),
            onlooker=onlooker,
            deadline=deadline,
            scalars=scalars,
            move=remeasure,
            remeasure=remeasure,
            rules=rules_of(experiment),
            profile=profile,
        )
        if search.is_finished and not (remeasure and _is_of_another_machine(before)):
            _tell_finished(search, errors, remeasure=remeasure)
            return True
        _run(experiment, search)
        finished = search.is_finished
    if remeasure:
        _tell_remeasured(before, store.study(), errors)
    return finished


def _is_of_another_machine(study: Study) -> bool:
    from search.evaluation.host import host_name
    from search.study import foreign_trials

    return bool(foreign_trials(study, host_name()))


def _tell_finished(search: SearchRun, errors: Console, *, remeasure: bool) -> None:

    store, waiting = search.store, search.director.waiting
    waits = f" {count(waiting, 'enqueued configuration')} not trained." if waiting else ""
    study = store.study()
    text = f"{shown(store.folder)} is finished: {_why(study)}{waits} {_latency_advice(study, remeasure=remeasure)}"
    errors.print(text.rstrip(), highlight=False, markup=False, soft_wrap=True)


def _latency_advice(study: Study, *, remeasure: bool) -> str:
    """Return what --remeasure would do, or why it did nothing; empty where there is no need to mention it."""
    from search.certainty import untrusted_latencies

    untrusted = untrusted_latencies(study)
    if untrusted and remeasure:
        return (
            f"Untrusted, but not measured again: {', '.join(untrusted)}. A network that `measure beside` added from a "
            "module is measured again by the same `measure beside` command."
        )
    if untrusted:
        number = count(len(untrusted), "latency is", "latencies are")
        return f"{number} untrusted: rerun this command with --remeasure on an idle machine to measure again."
    if remeasure:
        return (
            "Every latency of its front and its references is trusted, so nothing was measured again. --remeasure "
            "measures untrusted latencies of a finished run again; while a run is not finished, it ignores cached ones."
        )
    return ""


def _tell_remeasured(before: Study, after: Study, errors: Console) -> None:
    """Say how many latencies were untrusted, and which still are."""
    from search.certainty import untrusted_latencies

    was, still = untrusted_latencies(before), untrusted_latencies(after)
    if not was and not still:
        return
    text = f"Untrusted latencies of the front and the references: {len(was)} before, {len(still)} now"
    text += f" ({', '.join(still)}). Rerun this command on an idle machine." if still else "."
    errors.print(text, highlight=False, markup=False, soft_wrap=True)


def _why(study: Study) -> str:
    """Return what ended a finished run, and what continues it."""
    from search.report.words import failure_words

    early, rule = study.facts.get("ended_early"), study.facts.get("ended_by", {}).get("rule", "trials")
    if early and rule == "space":
        return f"{early}. Nothing is left to train; widen the space or the budget, with another --out."
    if early:
        return f"{early}. Raise search.{rule} to continue."
    trained, failed = sum(bool(t.measurements) for t in study.trials), len(study.in_state(TrialState.FAILED))
    failures = f", {failed:,} failed ({failure_words(study)})" if failed else ""
    verb = "was" if trained == 1 else "were"
    return f"{count(trained, 'candidate')} {verb} trained{failures}. Raise --trials to continue."


def _run(experiment: Experiment, search: SearchRun) -> None:
    """Search, with the engine that the experiment names."""
    if experiment.execution.engine == "pool":
        search.run()
        return
    from search.ray_engine import RayRun, RaySettings  # only where it is asked for: Ray is slow to import

    execution = experiment.execution
    given = {
        "address": execution.address,
        "gpus_per_trial": execution.gpus_per_trial,
        "storage_path": execution.storage_path,
        "retries": execution.retries,
    }
    settings = RaySettings(
        workers=ray_workers(experiment), **{name: value for name, value in given.items() if value is not None}
    )
    RayRun(search, settings, start_worker).run()


def _evaluator(experiment: Experiment, *, remeasure: bool) -> ProxyEvaluator:
    plan = experiment.evaluation_plan()
    return ProxyEvaluator(replace(plan, cost=replace(plan.cost, remeasure=remeasure)))


@contextmanager
def _display(experiment: Experiment, errors: Console) -> Iterator[Onlooker]:
    if errors.quiet or not errors.is_terminal:
        with nullcontext():
            yield lambda progress: None
    else:
        from search.cli.progress import live_progress

        with live_progress(experiment, errors) as onlooker:
            yield onlooker


def _tracked(display: Onlooker, tracker: MLflowLog) -> Onlooker:
    def look(progress: Progress) -> None:
        display(progress)
        tracker.log(progress.study)

    return look


def _logs(folder: Path, errors: Console) -> list[logging.Handler]:
    kept = file_log(folder / "run.log")
    return [kept] if errors.quiet else [kept, shown_log(errors)]


def _write_results(experiment: Experiment, store: RunStore, executor: ProcessExecutor, profile: Profile) -> Shipment:
    """Write tables, report and presets; what there is to say of presets is logged."""
    profile.enter(Phase.RESULTS)
    with working() as work:
        shipment = _written(experiment, store.study(), executor)
    profile.add(Phase.RESULTS, work)
    profile.keep()
    if shipment.results:
        from search.report import write_report

        write_report(store.study())  # again, with the pictures: the first is there whatever becomes of the presets
        profile.keep()
    return shipment


def _written(experiment: Experiment, study: Study, executor: ProcessExecutor) -> Shipment:
    with span("imports"):
        from search.cli.presets import Shipment, ship
        from search.gallery import write_gallery
        from search.report import write_all, write_figures_again

    with span("tables"):
        write_all(study)
        write_figures_again(study)
    if not study.in_state(TrialState.COMPLETE):
        return Shipment((), ())
    shipment = ship(study, experiment, experiment.deploy.classes_ms, executor=executor, keep_current=True)
    for remark in shipment.remarks():
        log.warning("study=%s preset %s", study.name, remark)
    with span("pictures"):
        recorded = study.facts.get("baseline", {}).get("photographs")
        write_gallery(study.folder, experiment.evaluation_plan().task, recorded)
    return shipment


def _refuse_damage(folder: Path, shipment: Shipment) -> None:
    """End with an error where a preset is missing because files of the run are; a missed budget is only told.

    Raises:
        HFIRSearchError: If there is such a preset.
    """
    damaged = [f"preset {r.role}: {r.reason}" for r in shipment.refused if r.damaged]
    if damaged:
        raise HFIRSearchError(f"{folder}: " + "\n  ".join(damaged))


def _tell(study: Study, folder: Path, *, finished: bool, quiet: bool, as_json: bool) -> None:
    """Print the front and where things lie.

    Raises:
        HFIRSearchError: If the run is over and no candidate completed.
    """
    from search.cli.showing import frame_records, print_front, print_json, reference_records
    from search.report.words import failure_words

    complete = study.in_state(TrialState.COMPLETE)
    if finished and not complete:
        failed = failure_words(study)
        ended = study.facts.get("ended_early") or f"every candidate failed: {failed}"
        raise HFIRSearchError(
            f"{folder}: no candidate completed ({ended}).\n"
            f"  See {folder / 'report.html'}; `hfir-search check` says which limit bites."
        )
    if as_json:
        print_json(
            {"run": study.name, "folder": str(folder), "finished": finished, "front": frame_records(study)}
            | reference_records(study)
        )
    elif not quiet:
        console = output_console()
        print_front(console, study)
        _print_failures(console, study)
        _print_ending(console, study, finished=finished)
        if not finished:
            console.print("Paused by --time-budget; the same command goes on.", highlight=False)
        console.print(
            f"Report: {shown(folder / 'report.html')}   Presets: {shown(folder / 'presets')}", highlight=False
        )


def _print_ending(console: Console, study: Study, *, finished: bool) -> None:
    """Say what ended a search before its trials were spent."""
    early = study.facts.get("ended_early")
    if finished and early:
        console.print(f"Ended early: {early}.", highlight=False)


def _print_failures(console: Console, study: Study) -> None:
    from search.report.words import failure_words

    failed = len(study.in_state(TrialState.FAILED))
    if failed:
        console.print(
            f"{count(failed, 'candidate')} failed: {failure_words(study)}; the report holds each one's traceback.",
            highlight=False,
        )
