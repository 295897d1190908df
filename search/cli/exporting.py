"""`export`: a network as a file for other programs."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from rich.table import Table
from ruamel.yaml import YAML

from hfir.errors import ConfigError, ExportError, WeightsError
from hfir.export import Exported, export_model
from hfir.presets import list_presets, load_preset
from search.cli.consoles import error_console, output_console
from search.cli.showing import print_json
from search.files import shown
from search.presets import PRESET_FILE, shipped_name
from search.types import HFIRSearchError, InputError


def export_preset(
    preset: str,
    folder: Path,
    *,
    format: str,
    name: str | None,
    opset: int | None,
    fp16: bool,
    untrained: bool,
    overwrite: bool,
    as_json: bool,
) -> None:
    """Export a preset and print what was written and how it was checked.

    Raises:
        InputError: If the preset cannot be used, or there is such a file already.
        HFIRSearchError: If the network cannot be written in this format.
    """
    _refuse_untrained(preset, untrained)
    card = _card(Path(preset))
    progress = error_console()
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)  # an untrained network is the same each time
            model = load_preset(preset)
        with progress.status(f"writing {format} and comparing it with the network …"):
            exported = export_model(
                model,
                folder,
                format=format,
                name=name or _name(preset, card),
                opset=opset,
                fp16=fp16,
                task=card.get("task", {}).get("kind"),
                overwrite=overwrite,
            )
    except (ConfigError, WeightsError) as error:
        raise InputError(str(error)) from error
    except FileExistsError as error:
        if error.errno is not None:  # from the system: the folder cannot be made
            raise
        raise InputError(str(error)) from error
    except ExportError as error:
        raise HFIRSearchError(str(error)) from error
    _show(exported, as_json=as_json)


def _refuse_untrained(preset: str, untrained: bool) -> None:
    if preset in list_presets() and not untrained:
        raise InputError(
            f"preset {preset!r} is a configuration without trained weights.\n"
            "  Name a preset folder of a run (results/efficient/presets/balanced) or a .safetensors file; "
            "--untrained exports it all the same, for timing on a device."
        )
    if untrained and preset not in list_presets():
        raise InputError(
            f"--untrained with {preset!r}: only a named preset has no weights ({', '.join(list_presets())}).\n"
            "  Leave --untrained out, or give one of these names."
        )


def _card(preset: Path) -> Mapping[str, Any]:
    """Return what `preset.yaml` says beside the weights, or nothing where there is none."""
    path = (preset if preset.is_dir() else preset.parent) / PRESET_FILE
    if not preset.exists() or not path.is_file():
        return {}
    return YAML(typ="safe").load(path) or {}


def _name(preset: str, card: Mapping[str, Any]) -> str:
    """Return the name for the file: run and preset, or that of the file that was exported before."""
    if "name" in card:
        return shipped_name(card)
    if preset in list_presets():
        return f"{preset}-untrained"
    path = Path(preset).resolve()
    stem = path.stem if path.is_file() else path.name
    return re.sub(r"^\dx_|_HydraFusionIR.*$", "", stem)


def _show(exported: Exported, *, as_json: bool) -> None:
    if as_json:
        print_json({**dataclasses.asdict(exported), "path": str(exported.path), "bytes": _size(exported)})
        return
    console = output_console()
    versions = "" if exported.opset is None else f", opset {exported.opset}, IR version {exported.ir_version}"
    console.print(shown(exported.path), highlight=False, soft_wrap=True)
    console.print(f"{exported.format}{versions}, {exported.dtype}, {_size(exported):,} bytes", highlight=False)
    for note in exported.notes:
        console.print(note, highlight=False, soft_wrap=True)
    table = Table(box=None, title="Compared with the network", title_justify="left", title_style="bold")
    table.add_column("image", justify="right")
    table.add_column("max |difference|", justify="right")
    for check in exported.checks:
        table.add_row(f"{check.height}x{check.width}", f"{check.max_difference:.1e}")
    if exported.expert_checks:
        worst = max(check.max_difference for check in exported.expert_checks)
        table.add_row(f"each of {len(exported.expert_checks)} experts", f"{worst:.1e}")
    table.add_row("allowed", f"{exported.tolerance:.1e}")
    console.print(table)


def _size(exported: Exported) -> int:
    return exported.path.stat().st_size
