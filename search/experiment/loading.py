"""Load an experiment file: find it, read it, check it section by section."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from hfir.config import HFIRConfig
from search.counts import count
from search.evaluation.plan import CostPlan, EvaluationPlan, ProxyPlan, TaskPlan
from search.experiment.decode import decode
from search.experiment.dimensions import build_space
from search.experiment.enqueue import read_entries
from search.experiment.faults import first_fault
from search.experiment.overrides import override
from search.experiment.sections import (
    FOLDERS,
    WITHIN_STRATA,
    BudgetSection,
    DataSection,
    DeploySection,
    ExecutionSection,
    ExperimentFile,
    ProxySection,
    ReferenceSection,
    SearchSection,
    TaskSection,
)
from search.experiment.yaml_lines import Document, Origin, read_document
from search.prediction import Predictor, predictor_to_json, read_predictor
from search.references.plan import ReferencePlan
from search.schedulers import BY_VALUE, WITHIN_LEVELS, Ranking, Screening, one_stratum
from search.space import SearchSpace
from search.types import Genotype, InputError, stable_hash


@dataclass(frozen=True)
class Experiment:
    """An experiment, checked: what to search, for which task, within which budget.

    `space` offers `sample(seed)`, `size`, `contains`, `enumerate`; `decode` makes a network's configuration of a
    point of it.
    """

    name: str
    source: str
    """The file that it was read from."""
    space: SearchSpace
    task: TaskSection
    budget: BudgetSection
    objectives: tuple[str, ...]
    proxy: ProxySection
    search: SearchSection
    execution: ExecutionSection
    deploy: DeploySection
    enqueued: tuple[Genotype, ...]
    """Points that are proposed before the sampler is asked."""
    spec: dict[str, Any]
    """The file as resolved: overrides applied, defaults filled in, folders absolute; plain JSON."""
    references: tuple[ReferencePlan, ...] = ()
    """Networks to compare with."""
    predictor: Predictor | None = None
    """What promotions rank by, with `proxy.rank_by: extrapolated`; else None."""

    @property
    def limits(self) -> dict[str, float]:
        """The budget's limits, by the cost's name."""
        return self.budget.limits()

    @property
    def most_trials(self) -> int:
        """Candidates that can be trained: `search.trials`, or all points of a smaller space."""
        return min(self.search.trials, self.space.size)

    def decode(self, genotype: Genotype) -> HFIRConfig:
        """Return the network that a genotype stands for.

        Raises:
            hfir.ConfigError: If the combination breaks a rule of the network.
        """
        return decode(genotype, upscale=self.task.scale, in_channels=self.task.channels)

    def evaluation_plan(self) -> EvaluationPlan:
        """Return what workers are told: task, sizes and limits of costs, and the proxy."""
        folders = self.task.data.model_dump(exclude_none=True)
        task = TaskPlan(
            kind=self.task.kind,
            options=tuple(self.task.options().items()),
            channels=self.task.channels,
            folders=tuple(folders.items()),
            seed=self.search.seed,
        )
        cost = CostPlan(
            macs_at=self.budget.macs_at,
            latency_at=self.budget.latency_at,
            threads=self.budget.threads,
            limits=tuple(self.budget.limits().items()),
            runtime=self.budget.latency_ms.runtime,
            device=self.budget.latency_ms.device,
        )
        proxy = ProxyPlan(
            rungs=self.proxy.rungs,
            batch=self.proxy.batch,
            patch_px=self.proxy.patch_px,
            learning_rate=self.proxy.learning_rate,
            warmup_steps=self.proxy.warmup_steps,
            loss=self.proxy.loss,
            data_seed=self.search.seed,
            routing_supervision=self.proxy.routing_supervision,
        )
        score = None if self.screening is None else self.screening.score
        return EvaluationPlan(task=task, cost=cost, proxy=proxy, score=score)

    @property
    def screening(self) -> Screening | None:
        """Which candidates are left behind untrained: `search.screening`."""
        given = self.search.screening
        return None if given is None else Screening(score=given.score, of=given.of)

    @property
    def ranking(self) -> Ranking:
        """What promotions compare, and among whom: `proxy.rank_by`."""
        if self.predictor is not None:
            return Ranking(stratum=one_stratum, expected_psnr_db=self.predictor.predict)
        return WITHIN_LEVELS if self.proxy.rank_by == WITHIN_STRATA else BY_VALUE

    @cached_property
    def identity(self) -> str:
        """A hash of all that decides what a trial means, but for the photographs: a run records those by their content.

        A run goes on only under the same identity. The number of trials, the workers, the latency classes and the
        references are left out: a run may be extended, moved, chosen from anew, and compared with more. So are how
        promotions rank where it is the default, and the screening where there is none, for runs of older versions; of
        a predictor the contents count, and not where its file lies.
        """
        return self._identity({key: value for key, value in self.spec["task"].items() if key != "data"})

    @property
    def earlier_identity(self) -> str:
        """The identity as earlier versions recorded it: the folders of the photographs are part of it."""
        return self._identity(self.spec["task"])

    def _identity(self, task: dict[str, Any]) -> str:
        fixed = {"task": task, **{key: self.spec[key] for key in ("objectives", "proxy")}}
        fixed["budget"] = _without_defaults(self.spec["budget"])
        fixed["proxy"] = {k: v for k, v in fixed["proxy"].items() if k not in ("rank_by", "predictor")}
        if self.proxy.rank_by != WITHIN_STRATA:
            fixed["rank_by"] = self.proxy.rank_by
        if self.predictor is not None:
            fixed["predictor"] = predictor_to_json(self.predictor)
        search = {key: self.spec["search"][key] for key in ("sampler", "seed", "generation")}
        if self.screening is not None:
            search["screening"] = self.spec["search"]["screening"]
        return stable_hash({**fixed, "search": search, "space": self.space.hash})


def load_experiment(path: str | Path, overrides: Sequence[str] = ()) -> Experiment:
    """Load an experiment file.

    Args:
        path: A file, or the name of a space that ships with the package (`efficient`).
        overrides: Assignments `section.key=value` on top of the file, values in YAML.

    Raises:
        InputError: If there is no such file.
        SpecError: On the first fault in it, with its line, the rule and what to do.
    """
    found = _find(path)
    document = read_document(found)
    if overrides:
        document = override(document, overrides)
    sections = _validate(document)
    folder = found.resolve().parent
    data = _absolute_folders(sections.task.data, document, folder)
    task = sections.task.model_copy(update={"data": data})
    references = _resolved(sections.references, document, folder)
    proxy = sections.proxy.model_copy(update={"predictor": _absolute_predictor(sections.proxy, document, folder)})
    update = {"task": task, "proxy": proxy, "references": references}
    sections = sections.model_copy(update=update)
    space = build_space(document)
    _check_labels(space, task, document)
    entries = document.data.get("search", {}).get("enqueue", ())
    where = ("search", "enqueue")
    enqueued = read_entries(document, where, entries, space, upscale=task.scale, in_channels=task.channels)
    spec = _spec(sections)
    spec["search"]["enqueue"] = [dict(point.values) for point in enqueued]
    return Experiment(
        name=sections.name,
        source=str(path),
        space=space,
        task=task,
        budget=sections.budget,
        objectives=sections.objectives,
        proxy=sections.proxy,
        search=sections.search,
        execution=sections.execution,
        deploy=sections.deploy,
        enqueued=enqueued,
        spec=spec,
        predictor=_fitting_predictor(sections, spec, space, document),
        references=tuple(_plan_of(r, document.origin(("references", i))) for i, r in enumerate(references)),
    )


def _check_labels(space: SearchSpace, task: TaskSection, document: Document) -> None:
    """Refuse networks that ask for an image's degradation where the task does not tell it."""
    told = [p for p in space.parameters if p.name == "expert_condition" and True in p.choices]
    if told and not task.labelled:
        raise document.fault(
            ("space", "expert_condition"),
            f"true asks for the degradation of each image, which task {task.kind} does not tell.",
            "Only task mixed, its degradations made here, has labels: choose it, or remove expert_condition.",
        )


def _fitting_predictor(
    sections: ExperimentFile, spec: dict[str, Any], space: SearchSpace, document: Document
) -> Predictor | None:
    """Read the predictor that promotions rank by, and refuse one that was fitted under other conditions."""
    proxy = sections.proxy
    if proxy.rank_by != "extrapolated" or proxy.predictor is None:
        return None
    key = ("proxy", "predictor")
    try:
        predictor = read_predictor(Path(proxy.predictor))
    except InputError as error:
        problem, remedy = str(error).split("\n", 1)
        raise document.fault(key, problem, remedy.strip()) from error
    task = {k: v for k, v in spec["task"].items() if k != "data"}
    asked = {"rungs": list(proxy.rungs), **{k: getattr(proxy, k) for k in predictor.proxy}, "task": task}
    fitted = {"rungs": list(predictor.rungs), **predictor.proxy, "task": dict(predictor.task)}
    differing = [k for k in asked if asked[k] != fitted[k]]
    if differing:
        name = differing[0]
        raise document.fault(
            key,
            f"was fitted with {name} = {fitted[name]}, and here it is {asked[name]}.",
            "Make them equal, or calibrate this file: `hfir-search calibrate` writes a predictor for it.",
        )
    unseen = sorted({int(v) for v in space["levels"].choices} - predictor.levels) if predictor.levels else []
    if unseen:
        raise document.fault(
            key,
            f"has seen no network of {count(unseen[0], 'level')}, which space.levels allows.",
            "Calibrate this file, or remove these levels from the space.",
        )
    return predictor


def _absolute_predictor(proxy: ProxySection, document: Document, folder: Path) -> str | None:
    """Make the predictor's path absolute, as those of folders are."""
    if proxy.predictor is None:
        return None
    base = Path.cwd() if document.is_override(("proxy", "predictor")) else folder
    return str((base / Path(proxy.predictor).expanduser()).resolve())


def spaces_folder() -> Path:
    """Return the folder of the experiment files that ship with the package."""
    packaged = Path(__file__).resolve().parents[1] / "spaces"
    return packaged if packaged.is_dir() else Path(__file__).resolve().parents[2] / "spaces"


def available_spaces() -> tuple[str, ...]:
    """Return the names of the experiment files that ship with the package."""
    return tuple(sorted(path.stem for path in spaces_folder().glob("*.yaml")))


def _find(path: str | Path) -> Path:
    given = Path(path)
    if given.is_file():
        return given
    shipped = spaces_folder() / f"{given.stem}.yaml"
    plain_name = given.name in (given.stem, f"{given.stem}.yaml")
    in_spaces = given.parent in (Path(), Path("spaces"))
    if plain_name and in_spaces and shipped.is_file():
        return shipped
    near = difflib.get_close_matches(given.stem, available_spaces(), n=1)
    hint = f"Did you mean {near[0]}? " if near else ""
    raise InputError(
        f"{path}: no such experiment file.\n"
        f"  {hint}Give a file, or a space that ships with hfir-search: {', '.join(available_spaces())}."
    )


def _absolute_folders(data: DataSection, document: Document, folder: Path) -> DataSection:
    """Make folders absolute: those in the file stand relative to it, those of `--set` to the current folder."""
    changes: dict[str, str] = {}
    for name in FOLDERS:
        value = getattr(data, name)
        if value is None or value == "embedded":
            continue
        base = Path.cwd() if document.is_override(("task", "data", name)) else folder
        changes[name] = str((base / Path(value).expanduser()).resolve())
    return data.model_copy(update=changes)


def _resolved(
    references: tuple[ReferenceSection, ...], document: Document, folder: Path
) -> tuple[ReferenceSection, ...]:
    """Give each a name, and each module its folder: relative to the file, for those of `--set` to the current one."""
    base = Path.cwd() if document.is_override(("references",)) else folder
    paths = [str((base / Path(r.path or ".").expanduser()).resolve()) if r.module else None for r in references]
    return tuple(
        r.model_copy(update={"name": r.called, "path": path}) for r, path in zip(references, paths, strict=True)
    )


def _plan_of(reference: ReferenceSection, origin: Origin) -> ReferencePlan:
    source, line = origin
    return ReferencePlan(
        name=reference.name,
        network=reference.network or "",
        module=reference.module or "",
        args=reference.args,
        folder=reference.path or "",
        source=source,
        line=line,
    )


def _spec(sections: ExperimentFile) -> dict[str, Any]:
    spec = sections.model_dump(mode="json", exclude_none=True)
    spec["task"] |= sections.task.options()
    spec["budget"] |= {"threads": sections.budget.threads}
    spec["budget"]["latency_ms"]["at"] = [sections.budget.latency_at.width, sections.budget.latency_at.height]
    spec["budget"]["macs_g"]["at"] = [sections.budget.macs_at.width, sections.budget.macs_at.height]
    spec["execution"]["workers"] = sections.execution.workers or "auto"
    spec["execution"]["timeout_s"] = sections.execution.timeout_s or "auto"
    if sections.proxy.rank_by != "extrapolated":
        spec["proxy"].pop("predictor", None)  # it does not count
    return spec


def _without_defaults(budget: Mapping[str, Any]) -> dict[str, Any]:
    """Return a budget without what stands for itself, so that runs of before there was a choice go on."""
    usual = {"runtime": "torch", "device": "cpu"}
    latency = {key: value for key, value in budget["latency_ms"].items() if usual.get(key) != value}
    return {**budget, "latency_ms": latency}


def _validate(document: Document) -> ExperimentFile:
    try:
        return ExperimentFile.model_validate(document.data)
    except ValidationError as error:
        raise first_fault(document, error) from error
