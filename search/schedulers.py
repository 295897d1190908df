"""Which candidates go on to the next rung: successive halving on several objectives.

Costs are known before training; only quality depends on the rung. A candidate is ranked by non-dominated sorting of
both (Deb et al., 2002), ties going to the less crowded. Short trainings misrank families of networks (those that work
at full resolution start fast and end low). Three answers, by `proxy.rank_by`: compare within strata, and send a share
of each on; compare all by the quality that a predictor expects at the last rung; or compare all as they stand.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass

import numpy as np

from search.pareto import crowding_distance, non_dominated_rank
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
    earlier may be promoted later, and none is promoted twice.

    Args:
        trials: All trials of the study.
        rung: The rung to promote from.
        keep: Share of each stratum that goes on, rounded up, 0 < keep <= 1.
        objectives: Names in `OBJECTIVES`.
        ranking: What is compared, and among whom.
    """
    strata: dict[Hashable, list[Trial]] = {}
    for trial in sorted(trials, key=lambda t: t.number):
        if len(trial.measurements) > rung and trial.state is not TrialState.FAILED:
            strata.setdefault(ranking.stratum(trial), []).append(trial)
    chosen: list[Trial] = []
    for members in strata.values():
        quota = math.ceil(keep * len(members))
        best = [members[i] for i in _order(members, rung, objectives, ranking.expected_psnr_db)[:quota]]
        chosen += [t for t in best if len(t.measurements) == rung + 1 and t.state is TrialState.RUNNING]
    return tuple(sorted(chosen, key=lambda t: t.number))


def _order(
    trials: Sequence[Trial],
    rung: int,
    objectives: Sequence[str],
    expected_psnr_db: Callable[[Trial, int], float] | None,
) -> list[int]:
    """Return indices, best first: by rank, then the less crowded, then the earlier."""

    def minimised(trial: Trial, objective: str) -> float:
        if objective == "psnr_db" and expected_psnr_db is not None:
            return -expected_psnr_db(trial, rung)
        return _minimised(trial, objective, rung)

    points = np.array([[minimised(trial, name) for name in objectives] for trial in trials])
    ranks = non_dominated_rank(points)
    crowding = np.zeros(len(trials))
    for rank in set(ranks.tolist()):
        front = np.flatnonzero(ranks == rank)
        crowding[front] = crowding_distance(points[front])
    return sorted(range(len(trials)), key=lambda i: (ranks[i], -crowding[i], trials[i].number))


def _minimised(trial: Trial, objective: str, rung: int) -> float:
    if OBJECTIVES[objective].maximise:
        return -float(getattr(trial.measurements[rung], objective))
    value = trial.value(objective)
    return math.inf if value is None else value
