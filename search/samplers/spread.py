"""Proposals that look at no result: spread over the space, so that all of it is seen about equally often."""

from __future__ import annotations

import numpy as np
from scipy.stats import qmc

from search.samplers.request import Request
from search.space import Parameter, SearchSpace
from search.types import Genotype, Scalar, stable_hash


def spread_point(request: Request) -> Genotype:
    """Return the point of a Latin hypercube over the choices (McKay et al., 1979) that belongs to this proposal.

    Each parameter goes through its choices in an order that the run's seed shuffles anew for every round.
    """

    def choose(parameter: Parameter) -> Scalar:
        lap, place = divmod(request.index, len(parameter.choices))
        purpose = int(stable_hash([parameter.name, lap]), 16)
        rng = np.random.default_rng(np.random.SeedSequence(request.run_seed, spawn_key=(purpose,)))
        order = np.argsort(rng.random(len(parameter.choices)), kind="stable")
        return parameter.choices[int(order[place])]

    return request.space.grow(choose)


def sobol_point(request: Request) -> Genotype:
    """Return the point of a scrambled Sobol sequence (Owen, 1998) that belongs to this proposal.

    Each parameter has a dimension of the sequence, whether it counts or not, so all is known from the index.
    """
    sequence = qmc.Sobol(d=len(request.space.parameters), scramble=True, rng=np.random.default_rng(request.run_seed))
    if request.index:  # scipy 1.17 cannot go forward by nothing
        sequence.fast_forward(request.index)
    place = sequence.random(1)[0]
    where = {p.name: float(u) for p, u in zip(request.space.parameters, place, strict=True)}
    return request.space.grow(lambda p: p.choices[min(int(where[p.name] * len(p.choices)), len(p.choices) - 1)])


def smallest_point(space: SearchSpace) -> Genotype:
    """Return the point with the smallest value of every ordered parameter and the first choice of every other."""
    return space.grow(lambda p: min(p.choices) if p.is_ordered else p.choices[0])  # pyright: ignore[reportArgumentType]
