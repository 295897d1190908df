"""Latency classes: for each named latency the best member of the front that keeps to it.

Held against the class is the upper end of the interval, as everywhere where a latency is a limit; of a member that was
measured twice, the higher of the two.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from search.report.tables import front_trials
from search.types import Study, Trial, cost_from_json


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassChoice:
    """What the front offers for one latency class.

    Args:
        limit_ms: The class.
        trial: Of the members within it, that with the highest PSNR; None where there is none.
        nearest: Where none is within it, the member with the lowest upper end.
        nearest_ms: That upper end.
    """

    limit_ms: float
    trial: Trial | None
    nearest: Trial | None = None
    nearest_ms: float | None = None

    @property
    def role(self) -> str:
        """The name of the preset's folder, e.g. `within_10ms`."""
        return f"within_{self.limit_ms:g}ms"


def choose_classes(study: Study, classes_ms: Sequence[float]) -> tuple[ClassChoice, ...]:
    """Return the choice for each class, in the order given; members without a measured latency are left out."""
    ends = [(t, end) for t in front_trials(study) if (end := upper_end_ms(study, t)) is not None]
    return tuple(_choice(limit_ms, ends) for limit_ms in classes_ms)


def upper_end_ms(study: Study, trial: Trial) -> float | None:
    """Return the upper end of a trial's latency, in ms; None where it was not measured.

    An untrusted measurement counts only where there is no other.
    """
    verified = study.facts.get("verified", {}).get(str(trial.number))
    costs = [trial.cost, None if verified is None else cost_from_json(verified)]
    known = [cost.latency for cost in costs if cost is not None and cost.latency is not None]
    counted = [latency for latency in known if latency.trusted] or known
    return max((latency.high_ms for latency in counted), default=None)


def _choice(limit_ms: float, ends: Sequence[tuple[Trial, float]]) -> ClassChoice:
    within = [trial for trial, end in ends if end <= limit_ms]
    if within:
        return ClassChoice(limit_ms=limit_ms, trial=max(within, key=lambda t: (t.value("psnr_db") or 0.0, -t.number)))
    if not ends:
        return ClassChoice(limit_ms=limit_ms, trial=None)
    nearest, end = min(ends, key=lambda pair: (pair[1], pair[0].number))
    return ClassChoice(limit_ms=limit_ms, trial=None, nearest=nearest, nearest_ms=end)
