"""Which candidates go on to the next rung: successive halving on several objectives.

Costs are known before training; only quality depends on the rung. A candidate is ranked by non-dominated sorting of
both (Deb et al., 2002), ties going to the less crowded. Short trainings misrank families of networks (those that work
at full resolution start fast and end low). Three answers, by `proxy.rank_by`: compare within strata, and send a share
of each on; compare all by the quality that a predictor expects at the last rung; or compare all as they stand.

Before the first rung a zero-cost score can stand in for quality, so that of many candidates few are trained.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass

import numpy as np

from search.pareto import Floats, crowding_distance, non_dominated_rank
from search.types import OBJECTIVES, Trial, TrialState

Stratum = Callable[[Trial], Hashable]


def one_stratum(trial: Trial) -> Hashable:
    """Put every candidate into the same group."""
    return None


def by_levels(trial: Trial) -> Hashable:
    """Group candidates by the resolutions that they work at; those without levels are one group."""
    return trial.genotype.values.get("levels")


@dataclass(frozen=True, slots=True, kw_only=True)
class Ranking:
    """What promotions compare, and among whom.

    Args:
        stratum: What groups candidates that are fairly compared.
        expected_psnr_db: Says of a trial and a rung which PSNR is to be expected at the last one; that is compared
            then, and not the PSNR at the rung.
    """

    stratum: Stratum
    expected_psnr_db: Callable[[Trial, int], float] | None = None


WITHIN_LEVELS = Ranking(stratum=by_levels)
"""By quality at the rung, among equal `levels`."""
BY_VALUE = Ranking(stratum=one_stratum)
"""By quality at the rung, among all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Screening:
    """Train the most promising of many candidates alone.

    Args:
        score: What stands in for quality: a name in `search.evaluation.zero_cost.SCORES`.
        of: Of each so many that pass the budget, one is trained, >= 2.
    """

    score: str
    of: int

    def __str__(self) -> str:
        return f"{self.score}:{self.of}"

    def places(self, candidates: int) -> int:
        """Return how many of so many candidates go on, rounded up."""
        return math.ceil(candidates / self.of)


def screened_out(trials: Sequence[Trial], screening: Screening, objectives: Sequence[str]) -> tuple[Trial, ...]:
    """Return the candidates that a score leaves behind, in order of their numbers.

    They are ranked as promotions are, but by their score instead of any quality, and by the costs among the objectives:
    a cheap network is left behind by one that is as cheap and promises more, not by one that is merely larger.

    Args:
        trials: Candidates with a score and costs.
        screening: By which score, and how many.
        objectives: Names in `OBJECTIVES`.
    """
    costs = [name for name in objectives if not OBJECTIVES[name].maximise]
    points = np.array([[-t.scores[screening.score], *(_minimised(t, name) for name in costs)] for t in trials])
    order = _order(points, [t.number for t in trials]) if trials else []
    return tuple(sorted((trials[i] for i in order[screening.places(len(trials)) :]), key=lambda t: t.number))


def promotions(
    trials: Sequence[Trial],
    *,
    rung: int,
    keep: float,
    objectives: Sequence[str],
    ranking: Ranking = WITHIN_LEVELS,
) -> tuple[Trial, ...]:
    """Return the candidates that are to be trained from `rung` to the next one, in order of their numbers.

    All candidates that ever reached the rung are compared, by what they showed *there*: a candidate passed over
    earlier may be promoted later, and none is promoted twice. One whose costs are not known (it could not be measured
    where the run moved to) is left out.

    Args:
        trials: All trials of the study.
        rung: The rung to promote from.
        keep: Share of each stratum that goes on, rounded up, 0 < keep <= 1.
        objectives: Names in `OBJECTIVES`.
        ranking: What is compared, and among whom.
    """
    strata: dict[Hashable, list[Trial]] = {}
    for trial in sorted(trials, key=lambda t: t.number):
        if len(trial.measurements) > rung and trial.state is not TrialState.FAILED and _is_known(trial, objectives):
            strata.setdefault(ranking.stratum(trial), []).append(trial)
    chosen: list[Trial] = []
    for members in strata.values():
        quota = math.ceil(keep * len(members))
        points = np.array([[_shown(t, name, rung, ranking) for name in objectives] for t in members])
        best = [members[i] for i in _order(points, [t.number for t in members])[:quota]]
        chosen += [t for t in best if len(t.measurements) == rung + 1 and t.state is TrialState.RUNNING]
    return tuple(sorted(chosen, key=lambda t: t.number))


def _order(points: Floats, numbers: Sequence[int]) -> list[int]:
    """Return indices of points to minimise, best first: by rank, then the less crowded, then the earlier."""
    ranks = non_dominated_rank(points)
    crowding = np.zeros(len(points))
    for rank in set(ranks.tolist()):
        front = np.flatnonzero(ranks == rank)
        crowding[front] = crowding_distance(points[front])
    return sorted(range(len(points)), key=lambda i: (ranks[i], -crowding[i], numbers[i]))


def _shown(trial: Trial, objective: str, rung: int, ranking: Ranking) -> float:
    """Return what a trial showed at a rung, or what is expected of it since, to minimise."""
    if objective == "psnr_db" and ranking.expected_psnr_db is not None:
        return -ranking.expected_psnr_db(trial, rung)
    if OBJECTIVES[objective].maximise:
        return -float(getattr(trial.measurements[rung], objective))
    return _minimised(trial, objective)


def _is_known(trial: Trial, objectives: Sequence[str]) -> bool:
    return all(OBJECTIVES[name].maximise or trial.value(name) is not None for name in objectives)


def _minimised(trial: Trial, cost: str) -> float:
    value = trial.value(cost)
    return math.inf if value is None else value
