"""The recipe as its user gives it: a YAML file, assignments on top of it, and the task.

Both are optional: a preset knows its task, and the plan has defaults.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import ValidationError

from search.evaluation.plan import TaskPlan
from search.experiment.faults import first_fault
from search.experiment.overrides import override
from search.experiment.sections import FOLDERS, ExperimentFile, TaskSection
from search.experiment.yaml_lines import Document, read_document
from search.training.plan import PlanError, TrainingPlan, plan_from
from search.types import SpecError

NOWHERE = "the command line"


class Recipe(NamedTuple):
    """What to do, and on what."""

    plan: TrainingPlan
    task: TaskPlan


def load_recipe(path: Path | None, assignments: Sequence[str], recorded_task: Mapping[str, Any]) -> Recipe:
    """Load a recipe.

    Args:
        path: A YAML file with keys of `TrainingPlan`, and `task` as in an experiment file; None for the defaults.
        assignments: `key=value` on top of it, values in YAML: `steps=2000`, `gan.steps=500`, `task.data=photos`.
        recorded_task: The task that the network was made for, as an experiment file has it. A task in the recipe
            changes single keys of it; another `kind` keeps only its channels and data.

    Raises:
        InputError: If the file cannot be read.
        SpecError: On the first fault in it, with its line, the rule and what to do.
    """
    document = _read(path)
    if assignments:
        document = override(document, assignments)
    given = document.data.get("task", {})
    if not isinstance(given, Mapping):
        raise document.fault(("task",), "has no keys.", "Write its keys below it, as in an experiment file.")
    try:
        plan = plan_from({key: value for key, value in document.data.items() if key != "task"})
    except PlanError as error:
        raise document.fault(tuple(error.key.split(".")), error.problem, error.remedy) from error
    section = _task_section(document, given, recorded_task)
    return Recipe(_with_absolute_weights(plan, document, path), _task_plan(section, document, path, plan.seed))


def _read(path: Path | None) -> Document:
    if path is None:
        return Document(data={}, source=NOWHERE, origins={(): (NOWHERE, None)})
    try:
        return read_document(path)
    except SpecError as error:
        if "sections are expected" not in error.problem:
            raise
        problem = error.problem.replace("sections are", "the keys of a recipe are")
        remedy = "A recipe has keys such as steps, batch, learning_rate, and sections task and gan."
        raise SpecError(problem, remedy=remedy, source=error.source, line=error.line) from error


def _task_section(document: Document, given: Mapping[str, Any], recorded: Mapping[str, Any]) -> TaskSection:
    kept = dict(recorded)
    if given.get("kind", recorded.get("kind")) != recorded.get("kind"):
        kept = {key: value for key, value in recorded.items() if key in ("channels", "data")}
    data = {"name": "training", "space": {}, "task": kept | dict(given)}
    try:
        return ExperimentFile.model_validate(data).task
    except ValidationError as error:
        raise first_fault(Document(data, document.source, document.origins), error) from error


def _task_plan(section: TaskSection, document: Document, path: Path | None, seed: int) -> TaskPlan:
    folders = {
        name: _absolute(value, document, ("task", "data", name), path)
        if name in FOLDERS and value != "embedded"
        else value
        for name, value in section.data.model_dump(exclude_none=True).items()
    }
    options = tuple(section.options().items())
    return TaskPlan(
        kind=section.kind, options=options, channels=section.channels, folders=tuple(folders.items()), seed=seed
    )


def _with_absolute_weights(plan: TrainingPlan, document: Document, path: Path | None) -> TrainingPlan:
    """Make the path of a backbone's weights absolute, so that a resumed training finds the same file."""
    data = plan.to_dict()
    perceptual = (data["gan"] or {}).get("perceptual")
    if perceptual is None:
        return plan
    perceptual["weights"] = _absolute(perceptual["weights"], document, ("gan", "perceptual", "weights"), path)
    return plan_from(data)


def _absolute(value: str, document: Document, key: tuple[str, ...], path: Path | None) -> str:
    """Make a path absolute: in the file it stands relative to that, on the command line to the current folder."""
    in_file = path is not None and not document.is_override(key)
    base = path.resolve().parent if in_file and path is not None else Path.cwd()
    return str((base / Path(value).expanduser()).resolve())
