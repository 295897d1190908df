"""Whether a search still finds something: how long ago the volume that its front dominates last grew.

The volume is taken over a corner that never moves while the run goes on, so that growth means growth.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from search.pareto import hypervolume
from search.types import OBJECTIVES, Study, Trial, TrialState

GROWTH = 1e-3
"""The volume has grown when it is larger than it was at its last growth by more than this share."""


def trained_since_growth(study: Study) -> int:
    """Return how many candidates were trained after the one that last made the dominated volume grow.

    Candidates count in the order of their numbers, trained ones alone; before the first growth all of them do.
    Costs count by their logarithm. The corner is the baseline's quality (without one, the worst at the first rung of
    the first generation) and the budget's limits (without one, the dearest candidate of the first generation).
    """
    trained = [t for t in study.trials if t.measurements]
    corner = _corner(study)
    known: list[list[float]] = []
    volume, since = 0.0, 0
    for trial in trained:
        since += 1
        point = _point(trial, study.objectives)
        if point is None or corner is None:
            continue
        grown = hypervolume([*known, point], corner)
        known.append(point)
        if grown > volume * (1 + GROWTH):
            volume, since = grown, 0
    return since


def _point(trial: Trial, objectives: Sequence[str]) -> list[float] | None:
    """Return a complete candidate as a point to minimise; None for any other."""
    figures = {name: trial.value(name) for name in objectives}
    if trial.state is not TrialState.COMPLETE or any(v is None or not math.isfinite(v) for v in figures.values()):
        return None
    return [_minimised(name, value) for name, value in figures.items() if value is not None]


def _corner(study: Study) -> list[float] | None:
    """Return the worst corner; None while the first generation does not tell it."""
    corner = [_worst(study, name) for name in study.objectives]
    return None if None in corner else [value for value in corner if value is not None]


def _worst(study: Study, name: str) -> float | None:
    if OBJECTIVES[name].maximise:
        bound = study.facts.get("baseline", {}).get(name)
    else:
        bound = _limit(study.spec.get("budget", {}).get(name))
    if bound is not None:
        return _minimised(name, float(bound))
    first = [t for t in study.trials if t.generation == study.trials[0].generation and t.measurements]
    figures = [getattr(t.measurements[0], name) if OBJECTIVES[name].maximise else t.value(name) for t in first]
    known = [_minimised(name, float(value)) for value in figures if value is not None and math.isfinite(value)]
    return float(np.max(known)) if known else None


def _limit(value: Any) -> float | None:
    return value.get("max") if isinstance(value, Mapping) else value


def _minimised(name: str, value: float) -> float:
    if OBJECTIVES[name].maximise:
        return -value
    return math.log(value) if value > 0 else -math.inf
