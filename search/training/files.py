"""What a training leaves in its folder; each file is replaced as a whole, so that none is ever half written."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import torch
from ruamel.yaml import YAML

from hfir.config import HFIRConfig
from hfir.model import HydraFusionIR
from hfir.presets import PRESET_FILE, WEIGHTS_FILE, save_weights
from search.evaluation.card import cost_conditions, cost_figures, file_digest
from search.evaluation.host import host_name, versions
from search.evaluation.quality import bicubic_baseline, mean_quality
from search.files import replace_file
from search.tasks.leaks import seen_in
from search.tasks.pairs import TaskData
from search.training.recipe import Recipe
from search.training.start import Start, counted_costs
from search.types import StoreError

CHECKPOINT_FILE = "last.ckpt"
HISTORY_FILE = "history.csv"
RECIPE_FILE = "recipe.yaml"
BEST_FOLDER = "best"
GAN_FOLDER = "gan"
SCHEMA = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Validation:
    """One line of the history: how the averaged weights did in deploy form."""

    step: int
    stage: str
    psnr_db: float
    ssim: float
    loss: float | None
    """Mean training loss since the validation before; None before the first step."""
    learning_rate: float
    images_per_s: float | None
    """Patches trained on a second since the validation before."""
    elapsed_s: float
    """Seconds spent in training since step 0, validation excluded."""


def write_checkpoint(folder: Path, state: Mapping[str, Any]) -> None:
    """Write everything that going on needs."""
    replace_file(folder / CHECKPOINT_FILE, lambda path: torch.save({"schema": SCHEMA, **state}, path))


def read_checkpoint(folder: Path, device: torch.device) -> dict[str, Any] | None:
    """Read the checkpoint back; None where there is none.

    Raises:
        StoreError: If it is damaged, or from another version.
    """
    path = folder / CHECKPOINT_FILE
    if not path.is_file():
        return None
    try:
        saved = torch.load(path, map_location=device, weights_only=True)
    except Exception as error:
        raise StoreError(
            f"{path}: the checkpoint cannot be read ({str(error).splitlines()[0]}).\n"
            "  Restore it from a copy, or start in another folder; best/ can be started from."
        ) from error
    if not isinstance(saved, dict) or saved.get("schema") != SCHEMA:
        raise StoreError(
            f"{path}: not a checkpoint of this version.\n  Start in another folder; best/ can be started from."
        )
    return saved


def write_history(folder: Path, history: Sequence[Validation]) -> None:
    """Write all validations so far as a table."""
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, [f.name for f in fields(Validation)], lineterminator="\n")
    writer.writeheader()
    writer.writerows(asdict(row) for row in history)
    replace_file(folder / HISTORY_FILE, lambda path: path.write_text(text.getvalue(), encoding="utf-8"))


def write_preset(folder: Path, model: HydraFusionIR, card: Mapping[str, Any]) -> None:
    """Write a network in deploy form as a preset folder; the digest in the card tells whether the two belong."""
    folder.mkdir(parents=True, exist_ok=True)
    replace_file(folder / WEIGHTS_FILE, lambda path: save_weights(model, path))
    weights = {"file": WEIGHTS_FILE, "sha256": file_digest(folder / WEIGHTS_FILE)}
    whole = {**card, "weights": weights, "config": model.config.to_dict()}
    write_yaml(folder / PRESET_FILE, whole)


def write_yaml(path: Path, data: Mapping[str, Any]) -> None:
    """Write plain data as YAML."""
    replace_file(path, lambda partial: YAML().dump(dict(data), partial))


class CardWriter:
    """Says in a preset's card what was trained, what was measured, and under which conditions.

    Args:
        start: What the training began with.
        recipe: How it trains, and on what.
        data: The photographs.
        config: Of the network.
    """

    def __init__(self, start: Start, recipe: Recipe, data: TaskData, config: HFIRConfig) -> None:
        self._start, self._recipe = start, recipe
        self._baseline_db = mean_quality(bicubic_baseline(data)).psnr_db
        self._images = [pair.name for pair in data.validation]
        self._seen = start.seen.and_also(seen_in(data))
        self._figures, self._conditions = start.figures, start.conditions
        if start.figures is None:
            cost = counted_costs(config)
            self._figures, self._conditions = cost_figures(cost), cost_conditions(cost)

    def card(self, row: Validation, history: Sequence[Validation], chosen: str) -> dict[str, Any]:
        """Return what `preset.yaml` holds for the weights of a validation; `chosen` says why these."""
        plan, task = self._recipe
        options: dict[str, Any] = dict(task.options)
        return {
            "schema": 1,
            "name": self._start.name,
            "task": {"kind": task.kind, **options, "channels": task.channels, "data": dict(task.folders)},
            "measured": {
                "psnr_db": round(row.psnr_db, 4),
                "ssim": round(row.ssim, 5),
                "psnr_gain_db": round(row.psnr_db - self._baseline_db, 4),
                "training_steps": row.step,
                **(self._figures or {}),
            },
            "conditions": {
                **(self._conditions or {}),
                "psnr": f"full training, averaged weights: {chosen}, on the photographs named here",
                "validation_images": self._images,
            },
            "photographs": self._seen.to_json(),
            "provenance": {"start": dict(self._start.origin), "host": host_name(), "versions": dict(versions())},
            "training": {
                "recipe": plan.to_dict(),
                "elapsed_s": round(row.elapsed_s, 1),
                "history": [
                    {"step": r.step, "stage": r.stage, "psnr_db": round(r.psnr_db, 4), "ssim": round(r.ssim, 5)}
                    for r in history
                ],
            },
        }
