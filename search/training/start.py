"""What a full training starts from: a preset's weights, a trial of a run, or a named network without weights.

A preset folder holds the fused deploy form, and is trained as it is. A trial's checkpoint holds the training form,
whose parallel branches learn more easily. A name is trained from scratch, in training form.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from hfir.config import HFIRConfig
from hfir.errors import HFIRError
from hfir.model import HydraFusionIR, build_model
from hfir.presets import PRESET_FILE, list_presets, load_preset, preset_config
from search.counts import count
from search.evaluation.card import cost_conditions, cost_figures
from search.evaluation.cost import count_macs_g, count_parameters
from search.evaluation.plan import TaskPlan
from search.evaluation.proxy import averaged_from
from search.store import read_study
from search.study import checkpoint_path
from search.tasks.leaks import NOTHING, UNKNOWN, Seen, seen_from_json
from search.types import Cost, InputError, InputSize, TrialState, cost_from_json

MACS_AT = InputSize(width=640, height=360)
"""The input size that MACs are counted at where nothing else is known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """A network to be trained, and what is known of it.

    Args:
        name: Of the preset that training writes.
        task: What it was made for, as an experiment file has it.
        origin: Where it comes from, plain JSON, for the card.
        build: Makes the network for a task and a seed, in the form in which it is trained.
        figures: Costs, as in a preset's card; None where they are to be counted.
        conditions: What these hold for.
        seen: The photographs that its weights were trained on and selected by.
    """

    name: str
    task: Mapping[str, Any]
    origin: Mapping[str, Any]
    build: Callable[[TaskPlan, int], HydraFusionIR]
    figures: Mapping[str, Any] | None = None
    conditions: Mapping[str, Any] | None = None
    seen: Seen = NOTHING


def start_from(source: str) -> Start:
    """Return the start that a preset folder, or a known name, stands for.

    Raises:
        InputError: If there is no such folder or name, or the folder is not whole.
    """
    if source in list_presets():
        return _named(source)
    folder = Path(source)
    if not (folder / PRESET_FILE).is_file():
        raise InputError(
            f"{source}: no preset folder ({PRESET_FILE} is not there), and no known name.\n"
            f"  Give a folder under a run's presets/, --run and --trial, or one of: {', '.join(list_presets())}."
        )
    card = _card(folder / PRESET_FILE)
    costs = {"latency_ms", "latency_interval_ms", "latency_measured_again_ms", "macs_g", "params_m", "peak_mem_mib"}
    conditions = {"form", "latency", "macs_at", "macs", "peak_mem_at"}

    def build(task: TaskPlan, seed: int) -> HydraFusionIR:
        return _fitting(_loaded(folder), task, source)

    return Start(
        name=str(card.get("role", card["name"])),  # a descriptive name tells figures that training changes
        task=card["task"],
        origin={"preset": str(folder), **card.get("provenance", {})},
        build=build,
        figures={k: v for k, v in card["measured"].items() if k in costs},
        conditions={k: v for k, v in card["conditions"].items() if k in conditions},
        seen=seen_from_json(card.get("photographs")) or UNKNOWN,
    )


def start_from_trial(run_folder: Path, number: int) -> Start:
    """Return the start that a trial of a run stands for: its averaged weights, in training form.

    Raises:
        InputError: If the folder holds no run, or the run no such trial that was trained.
    """
    study = read_study(run_folder)
    trained = {t.number: t for t in study.in_state(TrialState.COMPLETE, TrialState.STOPPED) if t.measurements}
    if number not in trained:
        raise InputError(
            f"{run_folder}: trial {number} was not trained.\n"
            f"  Trained trials are {', '.join(map(str, trained)) or 'none yet'}."
        )
    trial = trained[number]
    verified = study.facts.get("verified", {}).get(str(number))
    again = cost_from_json(verified).latency if verified else None

    def build(task: TaskPlan, seed: int) -> HydraFusionIR:
        config = HFIRConfig.from_dict(trial.config or {})
        return _fitting(averaged_from(config, checkpoint_path(run_folder, number)), task, f"trial {number}")

    return Start(
        name=f"{study.name}-{number}",
        task=study.spec["task"],
        origin={"run": study.name, "trial": number, "key": trial.key, "seed": trial.seed},
        build=build,
        figures=None if trial.cost is None else cost_figures(trial.cost, again),
        conditions=None if trial.cost is None else cost_conditions(trial.cost),
        seen=seen_from_json(study.facts.get("baseline", {}).get("photographs")) or UNKNOWN,
    )


def recorded_photographs(folder: Path) -> Any:
    """Return what the card of a preset folder records of photographs; None where there is no such record."""
    card = folder / PRESET_FILE
    return _card(card).get("photographs") if card.is_file() else None


def counted_costs(config: HFIRConfig) -> Cost:
    """Return the costs of a network that need no measuring."""
    counts = count_parameters(config)
    return Cost(
        params_m=counts.deploy_m,
        params_train_m=counts.train_m,
        params_active_m=counts.active_m,
        macs_g=count_macs_g(config, MACS_AT),
        macs_at=str(MACS_AT),
    )


def weights_digest(model: HydraFusionIR) -> str:
    """Return a hash of a network's configuration and weights."""
    digest = hashlib.blake2b(digest_size=16)
    for name, tensor in model.state_dict().items():
        digest.update(name.encode() + tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def _named(name: str) -> Start:
    upscale = preset_config(name).upscale

    def build(task: TaskPlan, seed: int) -> HydraFusionIR:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return build_model(preset_config(name, upscale=task.upscale, in_channels=task.channels))

    task = {"kind": "super_resolution", "upscale": upscale, "data": {"folder": "embedded"}}
    return Start(name=name, task=task, origin={"name": name, "weights": "drawn from the recipe's seed"}, build=build)


def _card(path: Path) -> Mapping[str, Any]:
    """Read a preset's card; other keys than those that are needed here are not looked at."""
    try:
        card = YAML(typ="safe").load(path.read_text(encoding="utf-8"))
    except (YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read as YAML ({error}).\n  Copy the preset folder again.") from error
    keys = ("name", "task", "measured", "conditions")
    missing = [key for key in keys if not isinstance(card, dict) or key not in card]
    if missing:
        raise InputError(f"{path}: {', '.join(missing)} not there.\n  Give a preset folder that hfir-search wrote.")
    return card


def _loaded(folder: Path) -> HydraFusionIR:
    try:
        return load_preset(folder)
    except HFIRError as error:
        raise InputError(str(error)) from error


def _fitting(model: HydraFusionIR, task: TaskPlan, source: str) -> HydraFusionIR:
    """Refuse a task that the network does not fit."""
    config = model.config
    if (config.upscale, config.in_channels) != (task.upscale, task.channels):
        raise InputError(
            f"{source}: the network enlarges {config.upscale} times and takes {count(config.in_channels, 'channel')}, "
            f"the task asks for {task.upscale} times and {count(task.channels, 'channel')}.\n"
            "  Trained weights serve one scale and one number of channels: change the task, or take another network."
        )
    return model
