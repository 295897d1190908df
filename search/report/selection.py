"""Choosing from the front: what meets given limits, and three members that stand for it.

The figures are those that the trials show: of a latency, the median. The front is the run's own, over its objectives;
a limit on a cost that is none of them (say parameters) is held against the front's members all the same.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from search.pareto import pareto_front
from search.report.tables import front_trials
from search.report.words import quality_objective
from search.types import OBJECTIVES, InputError, Study, Trial

PRESETS: Mapping[str, str] = {
    "fastest": "the cheapest on the front",
    "balanced": "the knee: nearest to the ideal",
    "best": "the highest quality on the front",
}
"""Names that `choose_presets` gives, and what they stand for."""


@dataclass(frozen=True, slots=True)
class Wish:
    """One limit on what is chosen.

    Args:
        objective: A name in `search.types.OBJECTIVES`.
        op: `<=` for a cost, `>=` for a quality.
        value: The limit, in the objective's unit.

    Raises:
        InputError: If the objective is unknown, or is not limited from that side.
    """

    objective: str
    op: Literal["<=", ">="]
    value: float

    def __post_init__(self) -> None:
        """Check the name and the direction."""
        _check_name(self.objective)
        fits = ">=" if OBJECTIVES[self.objective].maximise else "<="
        if self.op != fits:
            kind = "a quality: it has a floor" if fits == ">=" else "a cost: it has an upper limit"
            raise InputError(f"{self}: {self.objective} is {kind}.\n  Write {self.objective} {fits} {self.value:g}.")

    def __str__(self) -> str:
        return f"{self.objective} {self.op} {self.value:g}"

    def excess(self, trial: Trial) -> float:
        """Return by which share of the limit a trial misses it; 0 where it meets it, infinite where unknown."""
        value = trial.value(self.objective)
        if value is None:
            return float("inf")
        over = value - self.value if self.op == "<=" else self.value - value
        if over <= 0:
            return 0.0
        return over / abs(self.value) if self.value else float("inf")


@dataclass(frozen=True, slots=True)
class Miss:
    """A limit that a trial misses.

    Args:
        wish: The limit.
        value: What the trial shows; None where it is not known.
        excess: By which share of the limit, > 0.
    """

    wish: Wish
    value: float | None
    excess: float

    def __str__(self) -> str:
        if self.value is None:
            return f"{self.wish.objective} is not known ({self.wish})"
        shown = f"{self.value:.{OBJECTIVES[self.wish.objective].decimals}f}"
        return f"{self.wish.objective} {shown}, not {self.wish.op} {self.wish.value:g} ({self.excess:.1%} off)"


@dataclass(frozen=True, slots=True)
class Selection:
    """What of a front meets some limits.

    Args:
        candidates: Members that meet all, the highest PSNR first.
        excluded_by: For each limit's objective, how many members miss it; one that misses two counts twice.
        nearest: Where none meets all, the member whose largest relative miss is the smallest.
        misses: The limits that `nearest` misses, the largest miss first.
    """

    candidates: tuple[Trial, ...]
    excluded_by: dict[str, int]
    nearest: Trial | None = None
    misses: tuple[Miss, ...] = ()

    @property
    def best(self) -> Trial | None:
        """The candidate with the highest PSNR, if there is one."""
        return self.candidates[0] if self.candidates else None


def select(
    study: Study, limits: Mapping[str, float] | None = None, floors: Mapping[str, float] | None = None
) -> Selection:
    """Choose from the front what meets all limits.

    Args:
        study: The run.
        limits: Upper limits on costs by name, e.g. `{"latency_ms": 10}`.
        floors: Lower limits on qualities by name, e.g. `{"psnr_db": 31}`.

    Raises:
        InputError: If a name is unknown, or a cost is given a floor or a quality an upper limit.
    """
    wishes = [Wish(name, "<=", value) for name, value in (limits or {}).items()]
    wishes += [Wish(name, ">=", value) for name, value in (floors or {}).items()]
    members = front_trials(study)
    fitting = [t for t in members if not any(wish.excess(t) for wish in wishes)]
    nearest = None if fitting else min(members, key=lambda t: (_worst(wishes, t), t.number), default=None)
    return Selection(
        candidates=tuple(sorted(fitting, key=lambda t: (-_known(t, "psnr_db"), t.number))),
        excluded_by={wish.objective: sum(wish.excess(t) > 0 for t in members) for wish in wishes},
        nearest=nearest,
        misses=() if nearest is None else misses(wishes, nearest),
    )


def misses(wishes: list[Wish], trial: Trial) -> tuple[Miss, ...]:
    """Return the limits that a trial misses, the largest relative miss first."""
    found = [Miss(wish, trial.value(wish.objective), wish.excess(trial)) for wish in wishes]
    return tuple(sorted((m for m in found if m.excess > 0), key=lambda m: -m.excess))


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


def _worst(wishes: list[Wish], trial: Trial) -> float:
    return max((wish.excess(trial) for wish in wishes), default=0.0)


def _known(trial: Trial, objective: str) -> float:
    value = trial.value(objective)
    return float("-inf") if value is None else value


def _check_name(name: str) -> None:
    if name not in OBJECTIVES:
        close = difflib.get_close_matches(name, OBJECTIVES, n=1)
        hint = f"Did you mean {close[0]}?" if close else f"Choose from {', '.join(OBJECTIVES)}."
        raise InputError(f"there is no figure {name} to choose by.\n  {hint}")
