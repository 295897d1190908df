"""What a run's records tell of its candidates, as numbers to minimise: quality is negated, costs by their logarithm.

A candidate that was stopped early is judged by what it would have reached: its last figure, and what others gained
from there on. Only then do short and long trainings compare.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from search.pareto import Floats
from search.types import OBJECTIVES, Measurement, Trial

QUALITIES = tuple(name for name, objective in OBJECTIVES.items() if objective.maximise)


def figures(trials: Sequence[Trial], name: str) -> Floats:
    """Return what is known of each trial in an objective or a cost, to minimise.

    Args:
        trials: n, in any state.
        name: A name in `search.types.OBJECTIVES`.

    Returns:
        [n]: minus the quality expected at the last rung, or the binary logarithm of the cost; NaN where nothing is
        known.
    """
    if name in QUALITIES:
        gains = _gains(trials, name)
        return np.array([_expected(trial, name, gains) for trial in trials])
    return np.array([_logarithm(trial.value(name)) for trial in trials])


def matrix(trials: Sequence[Trial], objectives: Sequence[str]) -> Floats:
    """Return [n, m] what is known of each trial in each objective, to minimise; NaN where nothing is."""
    return np.stack([figures(trials, name) for name in objectives], axis=1).reshape(len(trials), len(objectives))


def _gains(trials: Sequence[Trial], name: str) -> list[float]:
    """Return the median gain from each rung to the next, over the trials that reached both."""
    rungs = max((len(trial.measurements) for trial in trials), default=0)
    gained: list[list[float]] = [[] for _ in range(max(0, rungs - 1))]
    for trial in trials:
        for rung, (before, after) in enumerate(pairwise(trial.measurements)):
            gained[rung].append(_value(after, name) - _value(before, name))
    return [float(np.median(each)) for each in gained]


def _expected(trial: Trial, name: str, gains: Sequence[float]) -> float:
    if trial.last is None:
        return float("nan")
    return -(_value(trial.last, name) + sum(gains[len(trial.measurements) - 1 :]))


def _value(measurement: Measurement, name: str) -> float:
    return float(getattr(measurement, name))


def _logarithm(value: float | None) -> float:
    return float("nan") if value is None or not value > 0 else float(np.log2(value))
