"""Choosing from the front: what keeps to given bounds, in an order of preference, and three members that stand for it.

The front is the run's own, over its objectives; a bound on a figure that is none of them (say parameters) is held
against the front's members all the same. What is held against a bound: see `search.report.wishes`. What comes first:
see `search.report.preference`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from search.pareto import pareto_front
from search.report.preference import Preference, on_scale
from search.report.tables import front_trials
from search.report.wishes import Miss, Wish, misses, one_sided
from search.report.words import quality_objective
from search.types import Study, Trial

PRESETS: Mapping[str, str] = {
    "fastest": "the cheapest on the front",
    "balanced": "the knee: nearest to the ideal",
    "best": "the highest quality on the front",
}
"""Names that `choose_presets` gives, and what they stand for."""


@dataclass(frozen=True, slots=True)
class Exclusion:
    """What one bound shuts out.

    Args:
        wish: The bound.
        alone: Members that miss it.
        only: Members that miss it and no other: dropping this bound brings them back.
    """

    wish: Wish
    alone: int
    only: int


@dataclass(frozen=True, slots=True)
class Selection:
    """What of a front keeps to some bounds.

    Args:
        candidates: Members that keep to all, in the order of `preference`.
        preference: The order.
        distances: Each candidate's distance to the ideal by its number (see `Preference.distances`).
        members: How many the front has.
        exclusions: One a bound, as given.
        excluded_by: For each bounded figure, how many members miss a bound on it.
        nearest: Where none keeps to all, the member whose largest miss is the smallest, in units of the figure's range
            on the front (costs as ratios).
        misses: The bounds that `nearest` misses.
    """

    candidates: tuple[Trial, ...]
    preference: Preference
    distances: Mapping[int, float]
    members: int
    exclusions: tuple[Exclusion, ...]
    excluded_by: Mapping[str, int]
    nearest: Trial | None = None
    misses: tuple[Miss, ...] = ()

    @property
    def best(self) -> Trial | None:
        """The first candidate, if there is one."""
        return self.candidates[0] if self.candidates else None

    @property
    def excluded(self) -> int:
        """How many members all bounds together exclude."""
        return self.members - len(self.candidates)


def select(
    study: Study,
    limits: Mapping[str, float] | None = None,
    floors: Mapping[str, float] | None = None,
    *,
    wishes: Sequence[Wish] = (),
    preference: Preference | None = None,
) -> Selection:
    """Choose from the front what keeps to all bounds.

    Args:
        study: The run.
        limits: Upper limits on costs by name, e.g. `{"latency_ms": 10}`; a latency's interval must lie below.
        floors: Lower limits on qualities by name, e.g. `{"psnr_db": 31}`.
        wishes: Further bounds, e.g. of `parse_wishes("latency_ms", "20..40")`.
        preference: What comes first; the highest PSNR where it is not given.

    Raises:
        InputError: If a name is unknown, or a cost is given a floor or a quality an upper limit.
    """
    bounds = (
        *(one_sided(name, "<=", value) for name, value in (limits or {}).items()),
        *(one_sided(name, ">=", value) for name, value in (floors or {}).items()),
        *wishes,
    )
    preference = preference or Preference()
    members = front_trials(study)
    missed = {t.number: misses(bounds, t) for t in members}
    fitting = {t.number for t in members if not missed[t.number]}
    candidates = tuple(t for t in preference.order(members) if t.number in fitting) if members else ()
    distances = preference.distances(members) if members else {}
    nearest = None if fitting else _nearest(members, bounds)
    return Selection(
        candidates=candidates,
        preference=preference,
        distances={t.number: distances[t.number] for t in candidates},
        members=len(members),
        exclusions=tuple(_exclusion(wish, list(missed.values())) for wish in bounds),
        excluded_by={w.objective: _missing(w.objective, missed) for w in bounds},
        nearest=nearest,
        misses=() if nearest is None else missed[nearest.number],
    )


def choose_presets(study: Study) -> dict[str, Trial]:
    """Return the members that stand for the front, by the names in `PRESETS`; one may bear several names.

    `fastest` has the lowest latency, or the lowest first cost where latency is no objective; `balanced` is the knee;
    `best` has the highest PSNR, or the highest first quality where PSNR is no objective. Empty where nothing is
    complete.
    """
    if not study.objectives:
        return {}
    front = pareto_front(study.trials, study.objectives)
    if front.knee is None:
        return {}
    quality = quality_objective(study)
    best = max(front.members, key=lambda t: (_known(t, quality), -t.number))
    return {"fastest": front.members[0], "balanced": front.knee, "best": best}


def _exclusion(wish: Wish, missed: Sequence[tuple[Miss, ...]]) -> Exclusion:
    missing = [[miss.wish for miss in one] for one in missed]
    return Exclusion(wish, alone=sum(wish in one for one in missing), only=sum(one == [wish] for one in missing))


def _missing(objective: str, missed: Mapping[int, tuple[Miss, ...]]) -> int:
    return sum(any(miss.wish.objective == objective for miss in one) for one in missed.values())


def _nearest(members: Sequence[Trial], wishes: Sequence[Wish]) -> Trial | None:
    """Return the member whose largest miss is the smallest, in units of the front's ranges."""
    if not members:
        return None
    worst = np.max([_scaled_misses(members, wish) for wish in wishes], axis=0)
    return min(zip(worst.round(12).tolist(), members, strict=True), key=lambda pair: (pair[0], pair[1].number))[1]


def _scaled_misses(members: Sequence[Trial], wish: Wish) -> list[float]:
    """Return by how much each member misses a bound, in units of what the members span; infinite if unknown."""
    known = [value for value in map(wish.held, members) if value is not None]
    *held, bound = on_scale(np.array([*known, wish.value]), wish.objective).tolist()
    extent = max(held) - min(held) if held else 0.0
    sign = 1.0 if wish.is_upper else -1.0
    distances = iter([max(0.0, sign * (value - bound)) / (extent or 1.0) for value in held])
    return [float("inf") if wish.held(t) is None else next(distances) for t in members]


def _known(trial: Trial, objective: str) -> float:
    value = trial.value(objective)
    return float("-inf") if value is None else value
