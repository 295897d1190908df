"""Pareto local search (Paquete et al., 2004): neighbours of the front's members that were not proposed before."""

from __future__ import annotations

import numpy as np

from search.pareto import non_dominated_mask
from search.samplers.coding import Coding
from search.samplers.known import matrix
from search.samplers.request import WARM_UP, Request
from search.types import Genotype


def local_point(request: Request) -> Genotype:
    """Return a neighbour of a member of the front, one choice changed; at first, points drawn at random.

    A member is drawn, then one of its neighbours that was not proposed before; where all of its neighbours were, the
    next member; where all of the front's were, a point from anywhere.
    """
    told = matrix(request.trials, request.objectives)
    known = np.flatnonzero(np.isfinite(told).all(axis=1))
    if request.index < WARM_UP or not len(known):
        return request.space.sample(request.seed)
    rng, coding, seen = np.random.default_rng(request.seed), Coding(request.space), request.seen
    members = known[non_dominated_mask(told[known])]
    for member in members[np.argsort(rng.random(len(members)), kind="stable")]:
        near = coding.neighbours(coding.encode([request.trials[int(member)].genotype])[0], rng)
        for row in near[np.argsort(rng.random(len(near)), kind="stable")]:
            point = coding.decode(row)
            if point.key not in seen:
                return point
    return request.space.sample(request.seed)
