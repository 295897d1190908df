"""What comes first among members that all keep to the bounds: one figure, or weights on several.

Weights order by the weighted Chebyshev distance to the ideal (Bowman, "On the relationship of the Tchebycheff norm and
the efficient frontier of multiple-criteria objectives", 1976): the largest weighted shortfall counts, not the sum.
With some weights each member of a front comes first; a weighted sum never prefers a member in a dent of the front
(see ADR 13).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from search.pareto import Floats
from search.report.wishes import check_name
from search.types import OBJECTIVES, InputError, Trial


@dataclass(frozen=True, slots=True)
class Preference:
    """Weights on figures; a single one orders by that figure alone, its best value first.

    Args:
        weights: By names in `search.types.OBJECTIVES`, each finite and > 0. Only their ratios count.

    Raises:
        InputError: If there are none, a name is unknown, or a weight is not finite and positive.
    """

    weights: Mapping[str, float] = field(default_factory=lambda: {"psnr_db": 1.0})

    def __post_init__(self) -> None:
        """Check names and weights."""
        if not self.weights:
            raise InputError("no figure to order by.\n  Name at least one, e.g. psnr_db.")
        for name, weight in self.weights.items():
            check_name(name)
            if not (math.isfinite(weight) and weight > 0):
                raise InputError(
                    f"the weight of {name} is {weight:g}.\n  A weight is finite and > 0: leave out what does not count."
                )

    def __str__(self) -> str:
        if len(self.weights) == 1:
            return f"best {next(iter(self.weights))} first"
        parts = ", ".join(f"{name} × {weight:g}" for name, weight in self.weights.items())
        return f"nearest to the ideal first (weighted Chebyshev: {parts})"

    def order(self, front: Sequence[Trial]) -> tuple[Trial, ...]:
        """Return the members of a front in order: by `distances`, then by the weighted sum, then by number."""
        shares = self._shares(front)
        keys = [(round(max(row), 12), round(sum(row), 12), t.number) for row, t in zip(shares, front, strict=True)]
        return tuple(front[i] for i in sorted(range(len(front)), key=lambda i: keys[i]))

    def distances(self, front: Sequence[Trial]) -> dict[int, float]:
        """Return each member's weighted Chebyshev distance to the ideal, by its number.

        A figure is scaled to [0, 1] over the front, 0 being its best value there and 1 its worst; costs by their
        logarithm, as for the knee; latencies are medians. The distance is the largest of the scaled figures, each
        times its share of the weights: 0 for the ideal, infinite where a figure is not known.
        """
        return {t.number: float(max(row)) for row, t in zip(self._shares(front), front, strict=True)}

    def _shares(self, front: Sequence[Trial]) -> Floats:
        """Return each member's weighted, scaled figures, [members, weights]."""
        total = sum(self.weights.values())
        columns = [weight / total * scaled_figures(front, name) for name, weight in self.weights.items()]
        return np.stack(columns, axis=1)


def scaled_figures(front: Sequence[Trial], objective: str) -> Floats:
    """Scale a figure over a front: 0 for its best value, 1 for its worst; costs by their logarithm.

    Returns:
        One value a member; all 0 where the members agree, infinite where one's figure is not known.
    """
    sign = -1.0 if OBJECTIVES[objective].maximise else 1.0
    raw = np.array([_known(trial, objective) for trial in front], dtype=np.float64)
    known = np.isfinite(raw)
    scaled = np.full(len(raw), np.inf)
    if known.any():
        values = on_scale(raw[known], objective) * sign
        values -= values.min()
        scaled[known] = values / (values.max() or 1.0)
    return scaled


def on_scale(values: Floats, objective: str) -> Floats:
    """Return figures as they are felt: costs by their logarithm (if all are positive), qualities as they are."""
    return values if OBJECTIVES[objective].maximise or (values <= 0).any() else np.log(values)


def _known(trial: Trial, objective: str) -> float:
    value = trial.value(objective)
    return float("nan") if value is None else value
