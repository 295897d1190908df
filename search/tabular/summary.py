"""What many searches of a table say together: means with intervals, and how many steps one sampler saves another."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from search.pareto import Floats
from search.schedulers import Screening
from search.tabular.benchmark import Course, at_trained, steps_to

RESAMPLES = 2000
MARKS = (20, 50, 100, 150, 200, 300, 500, 1000)
"""Numbers of trained candidates that tables show, as far as the searches went."""
FIRST_FAIR = 20
"""From so many trained candidates on a sampler should be no worse than chance."""


class Mean(NamedTuple):
    """A mean over seeds and its 95 % interval (percentile bootstrap over the seeds)."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Contender:
    """All searches of one sampler under one scheduler and one screening.

    Args:
        sampler: Its name.
        scheduler: Likewise.
        courses: One a seed.
        screening: By which score candidates were left behind untrained; None for by none.
    """

    sampler: str
    scheduler: str
    courses: tuple[Course, ...]
    screening: Screening | None = None

    @property
    def label(self) -> str:
        """How tables and figures call it."""
        scheduler = "" if self.scheduler == "full" else self.scheduler
        screening = "" if self.screening is None else str(self.screening)
        return ", ".join(filter(None, (self.sampler, scheduler, screening)))

    def shares_at(self, count: int) -> Floats:
        """Return [seeds] the share after so many trained candidates."""
        return np.array([at_trained(course, count) for course in self.courses])


def contenders(courses: Sequence[Course]) -> tuple[Contender, ...]:
    """Group searches by sampler, scheduler and screening, in the order in which they come, each by rising seed."""
    groups: dict[tuple[str, str, Screening | None], list[Course]] = {}
    for course in courses:
        groups.setdefault((course.sampler, course.scheduler, course.screening), []).append(course)
    return tuple(
        Contender(
            sampler=sampler,
            scheduler=scheduler,
            courses=tuple(sorted(group, key=lambda c: c.seed)),
            screening=screening,
        )
        for (sampler, scheduler, screening), group in groups.items()
    )


def mean_of(values: Floats) -> Mean:
    """Return the mean of figures over seeds, with its interval."""
    picks = np.random.default_rng(0).integers(len(values), size=(RESAMPLES, len(values)))
    low, high = np.percentile(values[picks].mean(axis=1), [2.5, 97.5])
    return Mean(float(values.mean()), float(low), float(high))


def marks_up_to(evaluations: int) -> tuple[int, ...]:
    """Return the numbers of trained candidates that a table shows."""
    return (*(mark for mark in MARKS if mark < evaluations), evaluations)


class Saving(NamedTuple):
    """How few of another's steps a contender needs for what that one reached."""

    share: float
    """The other's median share after its so many candidates."""
    steps: float
    """Median of the contender's steps to that share; infinite where half of its searches never reach it."""
    other_steps: float
    """Median of the other's steps to it, likewise."""

    @property
    def ratio(self) -> float:
        """The contender's steps as a share of the other's; NaN where neither reaches it."""
        return self.steps / self.other_steps if np.isfinite(self.other_steps) else float("nan")


def saving(one: Contender, other: Contender, trained: int) -> Saving:
    """Say how many training steps one contender needs for the hypervolume that another reaches with so many candidates.

    The hypervolume is the median over the other's searches, so that half of them reach it.
    """
    share = _median(other.shares_at(trained))
    steps = [_median([steps_to(course, share) for course in each.courses]) for each in (one, other)]
    return Saving(share, *steps)


def _median(values: Sequence[float] | Floats) -> float:
    """Return the lower median: a value that occurs, so that infinities are not averaged."""
    return float(np.quantile(values, 0.5, method="lower"))


def behind_chance(one: Contender, chance: Contender, evaluations: int) -> list[tuple[int, float]]:
    """Return the numbers of trained candidates from 20 on with a mean below that of chance, and by how much."""
    found: list[tuple[int, float]] = []
    for count in range(FIRST_FAIR, evaluations + 1):
        lead = float(one.shares_at(count).mean() - chance.shares_at(count).mean())
        if lead < 0:
            found.append((count, lead))
    return found
