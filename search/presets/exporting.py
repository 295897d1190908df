"""Write presets: read each network back from its file, score it, measure it, hold it against the budget, then keep it.

A folder is made elsewhere and moved into place file by file when all of it is there, `preset.yaml` last. Files of an
earlier call that no longer belong are removed; files that are none of ours stay.
"""

from __future__ import annotations

import logging
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from hfir.config import HFIRConfig
from hfir.errors import ExportError
from hfir.export import Exported, export_model, file_name
from hfir.presets import PRESET_FILE, WEIGHTS_FILE, load_preset, save_weights
from search.evaluation.card import cost_conditions, cost_figures, file_digest
from search.evaluation.cost import as_deployed
from search.evaluation.evaluator import task_data
from search.evaluation.plan import EvaluationPlan
from search.evaluation.proxy import deployed_from, validate
from search.evaluation.quality import mean_quality
from search.executors import Executor, InlineExecutor
from search.presets.budget import BudgetCheck, check_budget, measure_folder
from search.presets.card import render_card
from search.presets.names import descriptive_name, shipped_name
from search.presets.sample import Sample, make_sample
from search.study import checkpoint_path
from search.tasks.identity import refuse_other_photographs
from search.tasks.leaks import seen_in
from search.tasks.pairs import TaskData
from search.timing import span
from search.types import Cost, EvaluationError, Study, Trial, cost_from_json

log = logging.getLogger(__name__)

CARD_FILE = "card.md"
SAMPLE_FILE = "sample.png"
SAME_PSNR_DB = 0.01
"""The exported network must score what its trial scored, to this much: 8-bit rounding may tip over on other CPUs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """A preset that was written, or was there already.

    Args:
        role: `fastest`, `balanced`, `best` or a class such as `within_10ms`; the folder's name.
        name: The same with its figures.
        folder: Where it lies.
        trial: The trial's number.
        notes: What is to be known of it, one line each: an untrusted latency, an ONNX file that could not be written.
        onnx: Name of the ONNX file in it; None without one.
        renewed: False where the folder was there already and holds this very trial.
    """

    role: str
    name: str
    folder: Path
    trial: int
    notes: tuple[str, ...] = ()
    onnx: str | None = None
    renewed: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """A preset that was not written.

    Args:
        role: As in `Written`.
        trial: The trial's number.
        reason: With the figures.
        damaged: Whether the run's files are at fault, rather than the budget.
    """

    role: str
    trial: int
    reason: str
    damaged: bool = False


@dataclass(frozen=True, slots=True)
class _Network:
    """What all presets of one trial share."""

    folder: Path
    config: HFIRConfig
    cost: Cost
    sample: Sample


def export_presets(
    study: Study,
    plan: EvaluationPlan,
    chosen: Mapping[str, Trial],
    *,
    classes_ms: Mapping[str, float] | None = None,
    out: Path | None = None,
    onnx: bool = False,
    executor: Executor | None = None,
    keep_current: bool = False,
) -> list[Written | Refused]:
    """Write one folder a preset, and say of each what became of it.

    Args:
        study: The run that the trials are from; its folder holds their checkpoints.
        plan: How the run was evaluated.
        chosen: Roles and the trials behind them.
        classes_ms: For roles that are latency classes, their limit.
        out: Folder of the presets' folders; by default `presets/` of the run.
        onnx: Write an ONNX file too; 5 to 60 s a network.
        executor: Where costs are measured; by default in this process.
        keep_current: Leave a folder as it is that holds the same trial under the same role, whole, with the latency
            of the records. Where the latency alone differs, an ONNX file that is there is written again as well.
    """
    out = out if out is not None else study.folder / "presets"
    out.mkdir(parents=True, exist_ok=True)
    results: list[Written | Refused] = []
    with tempfile.TemporaryDirectory(dir=out, prefix=".writing-") as temporary:
        exporter = _Exporter(study, plan, Path(temporary), onnx=onnx, executor=executor or InlineExecutor())
        for role, trial in chosen.items():
            card = _card_of(out / role, study, trial) if keep_current else None
            if card is not None and _has_latency_of(card, trial):
                result: Written | Refused = _unchanged(out / role, card, trial)
            else:
                result = exporter.export(role, trial, out / role, (classes_ms or {}).get(role), earlier=card)
            log.info("study=%s preset=%s %s", study.name, role, _in_short(result))
            results.append(result)
    return results


class _Exporter:
    """Writes presets of one run; each network is built and measured once, whatever roles it has.

    Args:
        study: The run.
        plan: How it was evaluated.
        temporary: An empty folder beside the presets.
        onnx: Whether to write ONNX files.
        executor: Where costs are measured.
    """

    def __init__(self, study: Study, plan: EvaluationPlan, temporary: Path, *, onnx: bool, executor: Executor) -> None:
        self.study, self.plan, self.temporary = study, plan, temporary
        self.onnx, self.executor = onnx, executor
        self._networks: dict[int, _Network | EvaluationError] = {}
        self._onnx: dict[int, Exported | ExportError] = {}

    def export(
        self, role: str, trial: Trial, target: Path, class_ms: float | None, *, earlier: Mapping[str, Any] | None = None
    ) -> Written | Refused:
        """Write one preset, or say why not.

        Args:
            role: The folder's name.
            trial: The preset's.
            target: The folder.
            class_ms: The limit of a latency class; None for other roles.
            earlier: The card that the folder has, if it holds this very trial.
        """
        try:
            name = descriptive_name(role, trial)
            network = self._network(trial, None if earlier is None else target / WEIGHTS_FILE)
        except EvaluationError as error:
            return Refused(role=role, trial=trial.number, reason=str(error), damaged=True)
        limits = self._limits(class_ms)
        check = check_budget(network.cost, limits, _recorded_host(trial))
        if check.refusal:
            note = f"; {target} still holds the preset of an earlier call" if target.is_dir() else ""
            return Refused(role=role, trial=trial.number, reason=f"over its limit: {check.refusal}{note}")
        staging = self.temporary / role
        staging.mkdir()
        onnx = self.onnx or "onnx" in (earlier or {})
        notes = self._fill(staging, role, name, trial, network, limits, check, onnx=onnx)
        _install(staging, target)
        file = next((name for name in _recorded_files(target) if name.endswith(".onnx")), None)
        return Written(role=role, name=name, folder=target, trial=trial.number, notes=notes, onnx=file)

    def _network(self, trial: Trial, weights: Path | None) -> _Network:
        """Return a trial's network, read back, scored and measured.

        Args:
            trial: Whose.
            weights: Of an earlier preset of the same trial, used where its checkpoint is not there.

        Raises:
            EvaluationError: If its checkpoint is missing or damaged, or the network scores differently.
        """
        if trial.number not in self._networks:
            try:
                self._networks[trial.number] = self._build(trial, weights)
            except EvaluationError as error:
                self._networks[trial.number] = error
        known = self._networks[trial.number]
        if isinstance(known, EvaluationError):
            raise known
        return known

    def _build(self, trial: Trial, weights: Path | None) -> _Network:
        checkpoint = checkpoint_path(self.study.folder, trial.number)
        if not checkpoint.is_file() and weights is None:
            raise EvaluationError(
                f"the weights of trial {trial.number} are not there: {checkpoint} is missing. "
                "Copy the run's checkpoints/ back; without them, only a new run in another folder trains it again."
            )
        data = task_data(self.plan.task)
        recorded = self.study.facts.get("baseline", {}).get("photographs")
        refuse_other_validation(recorded, data, self.study.folder)
        folder = self.temporary / f"trial-{trial.number}"
        folder.mkdir()
        if weights is not None and not checkpoint.is_file():
            shutil.copyfile(weights, folder / WEIGHTS_FILE)
        else:
            config = HFIRConfig.from_dict(trial.config or {})
            trained = deployed_from(config, self.plan.proxy, data, seed=trial.seed, checkpoint=checkpoint)
            save_weights(trained, folder / WEIGHTS_FILE)
        model = as_deployed(load_preset(folder))
        scores = validate(model, data)
        self._compare(trial, mean_quality(scores).psnr_db, checkpoint)
        sample = make_sample(model, data, scores)
        (folder / SAMPLE_FILE).write_bytes(sample.png)
        with span("preset_costs"):
            [outcome] = self.executor.run(partial(measure_folder, self.plan.cost), [folder])
        if outcome.value is None:
            raise EvaluationError(f"trial {trial.number} could not be measured: {outcome.error}.") from outcome.error
        return _Network(folder, model.config, outcome.value, sample)

    def _compare(self, trial: Trial, psnr_db: float, checkpoint: Path) -> None:
        recorded = trial.value("psnr_db") or 0.0
        if abs(psnr_db - recorded) > SAME_PSNR_DB:
            raise EvaluationError(
                f"the exported network scores {psnr_db:.3f} dB, its trial {trial.number} {recorded:.3f} dB. "
                f"{checkpoint} or the photographs are not those of the trial: restore them, or start a run elsewhere."
            )

    def _limits(self, class_ms: float | None) -> dict[str, float]:
        limits = dict(self.plan.cost.limits)
        if class_ms is not None:
            limits["latency_ms"] = min(class_ms, limits.get("latency_ms", class_ms))
        return limits

    def _fill(
        self,
        staging: Path,
        role: str,
        name: str,
        trial: Trial,
        network: _Network,
        limits: Mapping[str, float],
        check: BudgetCheck,
        *,
        onnx: bool,
    ) -> tuple[str, ...]:
        """Write all files of a preset into a folder and return what is to be known of it."""
        notes = list(check.notes)
        card = _card(self.study, self.plan, trial, role, name)
        card["checked"] = _checked(network.cost, limits, notes)
        for file in (WEIGHTS_FILE, SAMPLE_FILE):
            shutil.copyfile(network.folder / file, staging / file)
        if onnx:
            exported = self._exported(trial, network, shipped_name(card), card["task"]["kind"])
            if isinstance(exported, ExportError):
                notes.append(f"without an ONNX file: {exported}")
            else:
                target = file_name(network.config, shipped_name(card), format="onnx", opset=exported.opset)
                shutil.copyfile(exported.path, staging / target)
                card["onnx"] = _onnx_record(target, exported)
        card["files"] = {path.name: file_digest(path) for path in sorted(staging.iterdir())}
        card["weights"] = {"file": WEIGHTS_FILE, "sha256": card["files"][WEIGHTS_FILE]}
        card["config"] = network.config.to_dict()
        YAML().dump(card, staging / PRESET_FILE)
        files = {**card["files"], PRESET_FILE: file_digest(staging / PRESET_FILE)}
        (staging / CARD_FILE).write_text(render_card(self.study, trial, card, network.sample, files), encoding="utf-8")
        return tuple(notes)

    def _exported(self, trial: Trial, network: _Network, name: str, task: str) -> Exported | ExportError:
        if trial.number not in self._onnx:
            try:
                self._onnx[trial.number] = export_model(
                    load_preset(network.folder), network.folder, format="onnx", name=name, task=task
                )
            except ExportError as error:
                self._onnx[trial.number] = error
        return self._onnx[trial.number]


def refuse_other_validation(recorded: Any, data: TaskData, run: Path) -> None:
    """Refuse to score or show networks of a run on other validation photographs than the run recorded.

    Raises:
        InputError: If they differ; it names what was changed, removed or added.
    """
    remedy = "start a new run in another folder"
    refuse_other_photographs(recorded, seen_in(data), str(run), remedy, roles=("validation",))


def read_card(folder: Path) -> dict[str, Any] | None:
    """Return what `preset.yaml` of a folder holds; None where there is none, or it is no mapping."""
    path = folder / PRESET_FILE
    try:
        card = YAML(typ="safe").load(path) if path.is_file() else None
    except YAMLError:
        return None
    return card if isinstance(card, dict) else None


def _card_of(folder: Path, study: Study, trial: Trial) -> dict[str, Any] | None:
    """Return the card of an earlier call's preset, where the folder holds this trial and its weights are whole."""
    card = read_card(folder)
    if card is None or "checked" not in card or not (folder / WEIGHTS_FILE).is_file():
        return None
    origin = card.get("provenance", {})
    same = (origin.get("run"), origin.get("trial"), origin.get("key")) == (study.name, trial.number, trial.key)
    return card if same and card["weights"]["sha256"] == file_digest(folder / WEIGHTS_FILE) else None


def _has_latency_of(card: Mapping[str, Any], trial: Trial) -> bool:
    """Say whether a card tells the latency that the trial has now; it may have been measured again."""
    if trial.cost is None:
        return True
    figures = cost_figures(trial.cost)
    return all(card["measured"].get(name) == figures[name] for name in ("latency_ms", "latency_interval_ms"))


def _unchanged(folder: Path, card: Mapping[str, Any], trial: Trial) -> Written:
    return Written(
        role=folder.name,
        name=card["name"],
        folder=folder,
        trial=trial.number,
        notes=tuple(card["checked"].get("notes", ())),
        onnx=card.get("onnx", {}).get("file"),
        renewed=False,
    )


def _install(staging: Path, target: Path) -> None:
    """Move a preset into place, the card that vouches for it last, and remove what an earlier one left."""
    target.mkdir(parents=True, exist_ok=True)
    earlier = (read_card(target) or {}).get("files", {})
    for path in sorted(staging.iterdir(), key=lambda p: p.name == PRESET_FILE):
        path.replace(target / path.name)
    for name in earlier:
        if Path(name).name == name and name not in _recorded_files(target):
            (target / name).unlink(missing_ok=True)


def _recorded_files(folder: Path) -> Mapping[str, str]:
    return (read_card(folder) or {}).get("files", {})


def _card(study: Study, plan: EvaluationPlan, trial: Trial, role: str, name: str) -> dict[str, Any]:
    """Return what `preset.yaml` holds of the trial: what was measured, and under which conditions."""
    verified = study.facts.get("verified", {}).get(str(trial.number))
    again = cost_from_json(verified).latency if verified else None
    cost, last, baseline = trial.cost, trial.last, study.facts["baseline"]
    if cost is None or last is None:
        raise EvaluationError(f"preset {role}: trial {trial.number} is not complete, so it has no figures.")
    return {
        "schema": 1,
        "name": name,
        "role": role,
        "task": study.spec["task"],
        "measured": {
            "psnr_db": round(last.psnr_db, 4),
            "ssim": round(last.ssim, 5),
            "psnr_gain_db": round(last.psnr_db - baseline["psnr_db"], 4),
            "training_steps": last.step,
            **cost_figures(cost, again),
        },
        "conditions": {
            **cost_conditions(cost),
            "psnr": "short proxy training only: ranks candidates, is not what full training reaches",
            "validation_images": list(baseline["images"]),
            "validation_seed": plan.task.seed,
        },
        "provenance": {
            "run": study.name,
            "trial": trial.number,
            "key": trial.key,
            "seed": trial.seed,
            "versions": dict(baseline["versions"]),
        },
        **({"photographs": baseline["photographs"]} if "photographs" in baseline else {}),
    }


def _checked(cost: Cost, limits: Mapping[str, float], notes: list[str]) -> dict[str, Any]:
    """Return the budget's check on the exported network: figures, limits, and where it was."""
    figures = cost_figures(cost)
    figures.pop("latency_measured_again_ms")
    latency = cost_conditions(cost)["latency"]
    what = "the exported network, read back from its file"
    return {"what": what, **figures, "latency": latency, "limits": dict(limits), "notes": list(notes)}


def _onnx_record(file: str, exported: Exported) -> dict[str, Any]:
    worst = max(check.max_difference for check in (*exported.checks, *exported.expert_checks))
    return {
        "file": file,
        "opset": exported.opset,
        "ir_version": exported.ir_version,
        "dtype": exported.dtype,
        "max_difference": float(f"{worst:.1e}"),
        "readers": list(exported.notes),
    }


def _recorded_host(trial: Trial) -> str | None:
    return None if trial.cost is None or trial.cost.latency is None else trial.cost.latency.host


def _in_short(result: Written | Refused) -> str:
    if isinstance(result, Refused):
        return f"trial={result.trial} refused={result.reason!r}"
    return f"trial={result.trial} name={result.name}" + ("" if result.renewed else " (as it was)")
