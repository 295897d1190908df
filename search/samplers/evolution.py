"""Regularised evolution (Real et al., AAAI 2019, arXiv 1802.01548), its tournament held by non-dominated rank."""

from __future__ import annotations

import numpy as np

from search.pareto import Floats, crowding_distance, non_dominated_rank
from search.samplers.coding import Coding
from search.samplers.known import matrix
from search.samplers.request import WARM_UP, Request
from search.types import Genotype

POPULATION = 20
"""The youngest so many measured candidates may have children; older ones die, however good."""
TOURNAMENT = 5
"""So many of them are drawn, and the best has a child."""


def evolved_point(request: Request) -> Genotype:
    """Return a mutation of the winner of a tournament among the youngest; at first, points drawn at random.

    Of the winner's mutations one is drawn that was not proposed before, where there is one.
    """
    told = matrix(request.trials, request.objectives)
    alive = np.flatnonzero(np.isfinite(told).all(axis=1))[-POPULATION:]
    if request.index < WARM_UP or not len(alive):
        return request.space.sample(request.seed)
    rng = np.random.default_rng(request.seed)
    drawn = alive[np.argsort(rng.random(len(alive)), kind="stable")[:TOURNAMENT]]
    winner = drawn[_order(told[drawn])[0]]
    coding = Coding(request.space)
    children = coding.neighbours(coding.encode([request.trials[int(winner)].genotype])[0], rng)
    points = [coding.decode(row) for row in children[np.argsort(rng.random(len(children)), kind="stable")]]
    fresh = [point for point in points if point.key not in request.seen]
    return next(iter((*fresh, *points)), request.space.sample(request.seed))


def _order(points: Floats) -> list[int]:
    """Return positions, best first: by rank, then the less crowded."""
    ranks = non_dominated_rank(points)
    crowding = np.zeros(len(points))
    for rank in set(ranks.tolist()):
        layer = np.flatnonzero(ranks == rank)
        crowding[layer] = crowding_distance(points[layer])
    return sorted(range(len(points)), key=lambda i: (ranks[i], -crowding[i], i))
