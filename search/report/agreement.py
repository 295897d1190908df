"""Whether early comparisons can be trusted: how each rung orders the candidates, against the last one."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from search.report.words import quality_objective
from search.types import Study, Trial

ENOUGH = 4
"""Fewer candidates than this have no order worth a figure."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreement:
    """One rung against the last.

    Args:
        step: Training steps at the rung.
        last_step: Training steps at the last rung.
        candidates: How many reached both.
        spearman: Rank correlation of their qualities, in -1..1; None where there are too few, or all are alike.
        best_kept: Whether the best at the rung is the best at the end.
    """

    step: int
    last_step: int
    candidates: int
    spearman: float | None
    best_kept: bool | None


def rank_agreement(study: Study) -> list[Agreement]:
    """Return how each rung but the last orders the candidates that went through all; nothing where none did.

    They are the promoted ones, which lie closer together than all: the figures are on the low side.
    """
    quality = quality_objective(study)
    count = max((len(t.measurements) for t in study.trials), default=0)
    through = [t for t in study.trials if len(t.measurements) == count]
    return [_agreement(through, rung, quality) for rung in range(count - 1)]


def _agreement(through: list[Trial], rung: int, quality: str) -> Agreement:
    early = [float(getattr(t.measurements[rung], quality)) for t in through]
    late = [float(getattr(t.measurements[-1], quality)) for t in through]
    known = len(through) >= ENOUGH
    return Agreement(
        step=through[0].measurements[rung].step,
        last_step=through[0].measurements[-1].step,
        candidates=len(through),
        spearman=_spearman(early, late) if known else None,
        best_kept=int(np.argmax(early)) == int(np.argmax(late)) if known else None,
    )


def _spearman(first: list[float], second: list[float]) -> float | None:
    ranks = np.stack([pd.Series(values).rank().to_numpy() for values in (first, second)])
    if (np.ptp(ranks, axis=1) == 0).any():
        return None
    return float(np.corrcoef(ranks)[0, 1])
