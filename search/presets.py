"""Presets: chosen candidates as folders that ship, with weights, configuration and measured figures."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from hfir.config import HFIRConfig
from hfir.presets import PRESET_FILE, WEIGHTS_FILE, load_preset, save_weights
from search.evaluation.card import cost_conditions, cost_figures
from search.evaluation.cost import as_deployed
from search.evaluation.evaluator import task_data
from search.evaluation.plan import EvaluationPlan
from search.evaluation.proxy import deployed_from, validate
from search.study import checkpoint_path
from search.types import EvaluationError, Study, Trial, cost_from_json

SAME_PSNR_DB = 0.01
"""The exported network must score what its trial scored, to this much: 8-bit rounding may tip over on other CPUs."""


def export_presets(study: Study, plan: EvaluationPlan, chosen: Mapping[str, Trial]) -> list[Path]:
    """Write one folder a preset under `presets/`, and return the folders.

    Each network is read back from its file and scored again on the validation photographs before it counts.

    Args:
        study: The run that the trials are from; its folder holds their checkpoints.
        plan: How the run was evaluated.
        chosen: Preset names and the trials behind them.

    Raises:
        EvaluationError: If a checkpoint is missing or damaged, or the exported network scores differently.
    """
    folders = []
    for name, trial in chosen.items():
        folder = study.folder / "presets" / name
        folder.mkdir(parents=True, exist_ok=True)
        _export(study, plan, trial, folder, name)
        folders.append(folder)
    return folders


def _export(study: Study, plan: EvaluationPlan, trial: Trial, folder: Path, name: str) -> None:
    data = task_data(plan.task)
    config = HFIRConfig.from_dict(trial.config or {})
    checkpoint = checkpoint_path(study.folder, trial.number)
    model = deployed_from(config, plan.proxy, data, seed=trial.seed, checkpoint=checkpoint)
    save_weights(model, folder / WEIGHTS_FILE)
    scores = validate(as_deployed(load_preset(folder)), data)
    psnr_db = sum(q.psnr_db for q in scores) / len(scores)
    recorded = trial.value("psnr_db") or 0.0
    if abs(psnr_db - recorded) > SAME_PSNR_DB:
        raise EvaluationError(
            f"preset {name}: the exported network scores {psnr_db:.3f} dB, its trial {trial.number} "
            f"{recorded:.3f} dB. The checkpoint is not that of the trial: delete {checkpoint} and run again."
        )
    YAML().dump(_card(study, trial, model.config, name, folder), folder / PRESET_FILE)


def _card(study: Study, trial: Trial, config: HFIRConfig, name: str, folder: Path) -> dict[str, Any]:
    """Return what `preset.yaml` holds: what the network is, what was measured, and under which conditions."""
    verified = study.facts.get("verified", {}).get(str(trial.number))
    again = cost_from_json(verified).latency if verified else None
    cost, last, baseline = trial.cost, trial.last, study.facts["baseline"]
    if cost is None or last is None or cost.latency is None:
        raise EvaluationError(f"preset {name}: trial {trial.number} is not complete, so it has no figures.")
    return {
        "schema": 1,
        "name": name,
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
        },
        "provenance": {
            "run": study.name,
            "trial": trial.number,
            "key": trial.key,
            "seed": trial.seed,
            "versions": dict(baseline["versions"]),
        },
        "weights": {
            "file": WEIGHTS_FILE,
            "sha256": hashlib.sha256((folder / WEIGHTS_FILE).read_bytes()).hexdigest(),
        },
        "config": config.to_dict(),
    }
