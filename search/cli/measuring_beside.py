"""`measure beside`: one network beside a run's, measured and trained as its candidates are."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from rich.text import Text

from search.cli.consoles import error_console, output_console
from search.cli.showing import conditions, print_json, reference_records
from search.cli.tables import reference_table
from search.evaluation.jobs import ProxyEvaluator, start_worker
from search.executors import ProcessExecutor, value_of
from search.experiment import Experiment, load_experiment
from search.files import shown
from search.references.plan import ReferencePlan
from search.report import write_all
from search.store import RunStore, has_records, hold
from search.study import References, refuse_other_baseline
from search.types import HFIRSearchError, InputError, Study


def measure_beside(
    where: str, *, module: str | None, network: str | None, args: str, name: str | None, as_json: bool
) -> None:
    """Measure and train one network; keep and show it beside the front where a run is given.

    Args:
        where: Folder of a run, or an experiment file.
        module: Import path of a factory, looked for in the current folder first.
        network: Instead: a built-in one.
        args: Its arguments, a JSON object.
        name: What it is called.
        as_json: Print JSON instead of a table.

    Raises:
        InputError: If the network cannot be had, or the data or the folder cannot be used.
        HFIRSearchError: If it cannot be measured or trained.
    """
    folder = Path(where) if has_records(Path(where)) else None
    source = where if folder is None else str(folder / "experiment.yaml")
    experiment, plan = load_experiment(source), _plan(source, module, network, args, name)
    if folder is None:
        with TemporaryDirectory() as empty:
            study = _measured(experiment, plan, Path(empty))
    else:
        study = _measured(experiment, plan, folder)
        write_all(study)
    alone = replace(study, facts={**study.facts, "references": {plan.name: study.facts["references"][plan.name]}})
    if as_json:
        print_json({"run": study.name, **reference_records(alone)})
    else:
        console = output_console()
        console.print(reference_table(alone))
        console.print(conditions(study), style="dim", highlight=False)
        if folder is not None:
            console.print(f"Kept in {shown(folder)}; see {shown(folder / 'report.html')}", highlight=False)
    [reference] = alone.references
    if reference.reason:
        raise HFIRSearchError(f"{plan.name}: {reference.reason}\n  {reference.failure.strip()}")


def _plan(source: str, module: str | None, network: str | None, args: str, name: str | None) -> ReferencePlan:
    """Return the network that the options mean, checked as if it stood in the file."""
    if (module is None) == (network is None):
        raise InputError("--module and --network: give one of them.\n  A network of your own, or a built-in one.")
    try:
        given = json.loads(args)
    except ValueError as error:
        raise InputError(f"--args {args}: not JSON ({error}).\n  Write an object: '{{\"width\": 32}}'.") from error
    named = {"name": name, "module": module, "network": network, "args": given}
    written = json.dumps([{key: value for key, value in named.items() if value is not None}])
    [plan] = load_experiment(source, [f"references={written}"]).references
    return replace(plan, source="--network" if module is None else "--module", line=None)


def _measured(experiment: Experiment, plan: ReferencePlan, folder: Path) -> Study:
    """Do all that is to be done for one reference, in a run's folder."""
    evaluator, executor = ProxyEvaluator(experiment.evaluation_plan()), ProcessExecutor(1, start_worker)
    with hold(folder), error_console().status("starting") as status:
        store = RunStore(
            folder,
            name=experiment.name,
            objectives=experiment.objectives,
            identity=experiment.identity,
            spec=experiment.spec,
            earlier_identity=experiment.earlier_identity,
        )
        rungs, seed = experiment.proxy.rungs, experiment.search.seed
        references = References([plan], store, rungs=rungs, seed=seed, complete=False, remeasure=True)
        references.begin()
        try:
            if "baseline" in store.facts:
                status.update("loading photographs")
                [outcome] = executor.run(evaluator.look_at_data, [None])
                refuse_other_baseline(store.study(), value_of(outcome))
            while step := references.trying(store.study()) or references.next_step(store.study()):
                status.update(Text(step.phase))
                for outcome in executor.run(getattr(evaluator, step.kind.value), step.jobs):
                    references.take(step.kind, outcome)
            return store.study()
        finally:
            executor.close()
            store.close()
