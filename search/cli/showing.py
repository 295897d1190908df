"""`front` and `select`: look at a run. Loads no torch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from rich.console import Console

from search.cli.tables import front_table, output_console, trial_table
from search.report import front_frame, select
from search.store import read_study
from search.types import OBJECTIVES, Study, Trial, TrialState, to_json


def show_front(folder: Path, *, as_json: bool) -> None:
    """Print the front of a run."""
    study = read_study(folder)
    if as_json:
        print_json({"run": study.name, "front": frame_records(study)})
        return
    console = output_console()
    if not study.in_state(TrialState.COMPLETE):
        console.print(f"{folder}: no candidate is complete yet ({len(study.trials)} considered).")
        return
    console.print(front_table(study))
    console.print(conditions(study), style="dim", highlight=False)


def show_selection(folder: Path, limits: dict[str, float], floors: dict[str, float], *, as_json: bool) -> None:
    """Print the members of a front that keep to the limits."""
    study = read_study(folder)
    selection = select(study, limits, floors)
    if as_json:
        print_json(
            {
                "run": study.name,
                "candidates": [to_json(t) for t in selection.candidates],
                "excluded_by": dict(selection.excluded_by),
                "nearest": None if selection.nearest is None else to_json(selection.nearest),
            }
        )
        return
    console = output_console()
    if selection.candidates:
        title = f"{len(selection.candidates)} members of the front keep to the limits, best first"
        console.print(trial_table(study, selection.candidates, title=title))
    elif selection.nearest is not None:
        console.print("No member of the front keeps to all limits. The nearest:")
        console.print(trial_table(study, [selection.nearest], title="nearest"))
    else:
        console.print(f"{folder}: no candidate is complete yet.")
    for name, count in selection.excluded_by.items():
        if count:
            bound = f"at least {floors[name]:g}" if name in floors else f"at most {limits[name]:g}"
            console.print(f"{OBJECTIVES[name].label} {bound} excludes {count}", highlight=False)


def frame_records(study: Study) -> list[dict[str, Any]]:
    """Return the front's rows as JSON values."""
    return json.loads(front_frame(study).to_json(orient="records") or "[]")


def conditions(study: Study) -> str:
    """Return in one line what the figures hold for."""
    known = [t for t in study.trials if t.cost is not None and t.cost.latency is not None]
    if not known:
        return ""
    return _conditions_of(known[0], study)


def _conditions_of(trial: Trial, study: Study) -> str:
    cost = trial.cost
    if cost is None or cost.latency is None:
        return ""
    latency = cost.latency
    steps = study.spec.get("proxy", {}).get("rungs", ["?"])[-1]
    return (
        f"PSNR after {steps} proxy steps; latency on {latency.host}, {latency.threads} thread, {latency.dtype}, "
        f"batch 1, input {latency.at}; MACs at input {cost.macs_at} (FLOPs are twice that); deploy form"
    )


def print_json(value: Any) -> None:
    """Print a value as JSON on standard output."""
    Console(soft_wrap=True).print_json(json.dumps(value))
