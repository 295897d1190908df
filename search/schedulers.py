"""Which candidates go on to the next rung: successive halving on several objectives.

Costs are known before training; only quality depends on the rung. A candidate is ranked by non-dominated sorting of
both (Deb et al., 2002), ties going to the less crowded. Short trainings misrank families of networks (those that work
at full resolution start fast and end low), so candidates are compared within strata, and a share of each goes on.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Sequence

import numpy as np

from search.pareto import crowding_distance, non_dominated_rank
from search.types import OBJECTIVES, Trial, TrialState


def promotions(
    trials: Sequence[Trial],
    *,
    rung: int,
    keep: float,
    objectives: Sequence[str],
    stratum: Callable[[Trial], Hashable],
) -> tuple[Trial, ...]:
    """Return the candidates that are to be trained from `rung` to the next one, in order of their numbers.

    All candidates that ever reached the rung are compared, by what they showed *there*: a candidate passed over
    earlier may be promoted later, and none is promoted twice.

    Args:
        trials: All trials of the study.
        rung: The rung to promote from.
        keep: Share of each stratum that goes on, rounded up, 0 < keep <= 1.
        objectives: Names in `OBJECTIVES`.
        stratum: What groups candidates that are fairly compared.
    """
    strata: dict[Hashable, list[Trial]] = {}
    for trial in sorted(trials, key=lambda t: t.number):
        if len(trial.measurements) > rung and trial.state is not TrialState.FAILED:
            strata.setdefault(stratum(trial), []).append(trial)
    chosen: list[Trial] = []
    for members in strata.values():
        quota = math.ceil(keep * len(members))
        best = [members[i] for i in _order(members, rung, objectives)[:quota]]
        chosen += [t for t in best if len(t.measurements) == rung + 1 and t.state is TrialState.RUNNING]
    return tuple(sorted(chosen, key=lambda t: t.number))


def _order(trials: Sequence[Trial], rung: int, objectives: Sequence[str]) -> list[int]:
    """Return indices, best first: by rank, then the less crowded, then the earlier."""
    points = np.array([[_minimised(t, name, rung) for name in objectives] for t in trials])
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
