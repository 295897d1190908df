"""A run as another device sees it: its latencies in the place of the run's own."""

from __future__ import annotations

import difflib
from dataclasses import replace
from typing import Any

from search.types import InputError, Latency, Study, Trial


def on_device(study: Study, name: str | None) -> Study:
    """Return the run with the latencies of a device that were imported under a name; as it is for None.

    Candidates that were not measured there have no latency, and so no place on a front. Latency is an objective then,
    whether or not the run searched over it.

    Raises:
        InputError: If there is no device of that name.
    """
    if name is None:
        return study
    devices = study.facts.get("devices", {})
    if name not in devices:
        close = difflib.get_close_matches(name, devices, n=1)
        known = f"Did you mean {close[0]}?" if close else f"Known are {', '.join(devices) or 'none yet'}."
        raise InputError(
            f"{study.folder}: no figures of a device {name}. {known}\n"
            f"  `hfir-search measure import {study.folder} results.csv --name {name}` brings them in."
        )
    latencies = devices[name]["latencies"]
    objectives = study.objectives if "latency_ms" in study.objectives else (*study.objectives, "latency_ms")
    trials = tuple(_seen(trial, latencies.get(str(trial.number)), name) for trial in study.trials)
    return replace(study, trials=trials, objectives=objectives)


def _seen(trial: Trial, figures: dict[str, Any] | None, name: str) -> Trial:
    if trial.cost is None:
        return trial
    latency = None if figures is None else Latency(**{**figures, "host": f"{name}: {figures['host']}"})
    return replace(trial, cost=replace(trial.cost, latency=latency))
