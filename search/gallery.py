"""Pictures for the report: crops of validation photographs as the exported presets restore them.

The report only reads what is written here, so that it never reaches torch.
"""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from hfir.model import HydraFusionIR
from hfir.presets import WEIGHTS_FILE, load_preset
from search.evaluation.cost import as_deployed
from search.evaluation.evaluator import task_data
from search.evaluation.plan import TaskPlan
from search.evaluation.proxy import restore_pair
from search.evaluation.quality import score, to_uint8
from search.presets.exporting import read_card, refuse_other_validation
from search.report import PRESETS
from search.report.pictures import FOLDER, INDEX, SCHEMA
from search.tasks.images import Pixels, densest_square
from search.tasks.pairs import Pair, TaskData
from search.tasks.resize import bicubic_up
from search.training.start import weights_digest

SIDE_PX = 96
PHOTOGRAPHS = 3
_CLASS = re.compile(r"within_(.+)ms")
"""A preset of a latency class, by its role."""


class Window(NamedTuple):
    """A square of a photograph: its upper left corner and its side, in pixels of the truth."""

    top: int
    left: int
    side: int


class Form(NamedTuple):
    """One form of a whole photograph."""

    name: str
    pixels: Pixels
    psnr_db: float | None


def write_gallery(folder: Path, plan: TaskPlan, recorded: Any = None, *, out: Path | None = None) -> list[Path]:
    """Write crops of validation photographs into `pictures/` of a run's folder, in place of what is there.

    Each is shown as input, bicubic (in super-resolution), as each preset restores it, and as it is in truth, at the
    most detailed place of the truth. In a task of several degradations there is one photograph for each.

    Args:
        folder: Of the run; its `presets/` hold the networks. Names that share their weights are shown once.
        plan: The run's task.
        recorded: The photographs that the run recorded, as `Seen.to_json`; None: not compared.
        out: Folder for `pictures/`; by default the run's.

    Returns:
        The files' paths, the list of them last; nothing where there are no presets.

    Raises:
        InputError: If the photographs are not there any more, or are not those that the run recorded.
        ConfigError: If a preset cannot be loaded.
    """
    networks = _networks(folder / "presets")
    if not networks:
        return []
    data = task_data(plan)
    refuse_other_validation(recorded, data, folder)
    target = (folder if out is None else out) / FOLDER
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    entries, paths = [], []
    for number, pair in enumerate(_chosen(data)):
        entry, written = _write_photograph(target, number, pair, data, networks)
        entries.append(entry)
        paths += written
    index = target / INDEX
    index.write_text(json.dumps({"schema": SCHEMA, "photographs": entries}, indent=1) + "\n", encoding="utf-8")
    return [*paths, index]


def most_detailed(clean: Pixels, side_px: int, grid_px: int) -> Window:
    """Return the square whose brightness changes most from pixel to pixel; the first one where several do.

    Args:
        clean: `[h w c]`, 8-bit.
        side_px: Side of the square; smaller where the photograph is.
        grid_px: Corner and side are multiples of it.
    """
    grey = clean.mean(axis=2)
    change = np.zeros(grey.shape)
    change[:, 1:] += np.abs(np.diff(grey, axis=1))
    change[1:] += np.abs(np.diff(grey, axis=0))
    side = min(side_px, *grey.shape) // grid_px * grid_px
    top, left = densest_square(change, side, grid_px)
    return Window(top, left, side)


def _networks(folder: Path) -> dict[str, HydraFusionIR]:
    """Return the presets' networks by name; those of the same weights under all their names."""
    named: dict[str, list[str]] = {}
    networks: dict[str, HydraFusionIR] = {}
    for role in _roles(folder):
        network = load_preset(folder / role)
        digest = weights_digest(network)
        named.setdefault(digest, []).append(role)
        networks[digest] = network
    return {" = ".join(names): as_deployed(networks[digest]) for digest, names in named.items()}


def _roles(folder: Path) -> list[str]:
    """Return the folders that hold a preset: the three that stand for the front, then others by their latency class.

    Another folder is a preset where its `preset.yaml` gives it that role.
    """
    held = {path.parent.name for path in folder.glob(f"*/{WEIGHTS_FILE}")}
    others = [name for name in held - set(PRESETS) if (read_card(folder / name) or {}).get("role") == name]
    return [*(name for name in PRESETS if name in held), *sorted(others, key=_place)]


def _place(role: str) -> tuple[float, str]:
    found = _CLASS.fullmatch(role)
    try:
        return float(found[1]) if found else float("inf"), role
    except ValueError:
        return float("inf"), role


def _chosen(data: TaskData) -> list[Pair]:
    """Return photographs spread over the validation set; one for each degradation where there are several."""
    if data.labels:
        groups = [[pair for pair in data.validation if pair.label == label] for label in range(len(data.labels))]
        return [group[place % len(group)] for place, group in enumerate(groups) if group]
    places = np.linspace(0, len(data.validation) - 1, min(PHOTOGRAPHS, len(data.validation)))
    return [data.validation[round(place)] for place in places]


def _write_photograph(
    target: Path, number: int, pair: Pair, data: TaskData, networks: dict[str, HydraFusionIR]
) -> tuple[dict[str, Any], list[Path]]:
    window = most_detailed(pair.clean, SIDE_PX, data.upscale)
    forms, paths = [], []
    for place, form in enumerate(_forms(pair, data, networks)):
        path = target / f"{number}-{place}.png"
        rows, columns = slice(window.top, window.top + window.side), slice(window.left, window.left + window.side)
        Image.fromarray(form.pixels[rows, columns].squeeze()).save(path, optimize=True)
        forms.append({"name": form.name, "file": path.name, "psnr_db": form.psnr_db})
        paths.append(path)
    return {"name": pair.name, "window": list(window), "forms": forms}, paths


def _forms(pair: Pair, data: TaskData, networks: dict[str, HydraFusionIR]) -> list[Form]:
    scale, seen = data.upscale, to_uint8(pair.degraded)
    if scale > 1:
        enlarged = bicubic_up(seen, scale)
        blocks = seen.repeat(scale, axis=0).repeat(scale, axis=1)
        forms = [Form("input", blocks, None), Form("bicubic", enlarged, _psnr_db(enlarged, pair, scale))]
    else:
        forms = [Form("input", seen, _psnr_db(seen, pair, scale))]
    for name, network in networks.items():
        restored = to_uint8(restore_pair(network, pair)[0])
        forms.append(Form(name, restored, _psnr_db(restored, pair, scale)))
    return [*forms, Form("truth", pair.clean, None)]


def _psnr_db(pixels: Pixels, pair: Pair, scale: int) -> float:
    return round(score(pixels / 255.0, pair.clean, upscale=scale).psnr_db, 4)
