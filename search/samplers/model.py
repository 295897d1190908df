"""What untried points may reach: a Gaussian process over a space of choices.

Two points are alike by the parameters on which they agree. Its kernel adds what each parameter does by itself to what
they do together, so a dozen points already say something; how much of each, how far similarity reaches and how noisy
figures are is chosen from a small grid by the likelihood (Rasmussen and Williams, 2006, sections 2.2 and 5.4). More
freedom than that, a range for each parameter, did worse with a hundred points (docs/adr/0019).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import product
from typing import NamedTuple

import numpy as np
from scipy.linalg import cho_solve, cholesky, solve_triangular

from search.pareto import Floats

ADDITIVE = (0.2, 0.5, 0.8)
"""Shares of the kernel that are what parameters do by themselves."""
RANGES = (2.0, 6.0)
"""How fast similarity falls with the distance, in 1 / distance."""
NOISES = (0.01, 0.1, 0.3)
"""Variances of the noise, as shares of the signal's."""
JUDGED_MOST = 160
"""The grid is judged on at most so many points; all of them are then used."""
AVERAGED_MOST, LEAST_WEIGHT = 4, 0.05
"""So many settings are averaged at most, and none that is less likely than this."""


class Prediction(NamedTuple):
    """What is expected of n points, and how surely."""

    mean: Floats
    """[n]"""
    deviation: Floats
    """[n] standard deviations, without the noise of a figure."""


@dataclass(frozen=True)
class _Process:
    """A process under one setting, of standardised figures."""

    additive: float
    reach: float
    factor: Floats
    weights: Floats
    variance: float

    def predict(self, apart: Floats) -> Prediction:
        similar = kernel(apart, self.additive, self.reach)
        explained = solve_triangular(self.factor, similar.T, lower=True, check_finite=False)
        variance = np.maximum(1.0 - (explained**2).sum(axis=0), 1e-6) * self.variance
        return Prediction(mean=similar @ self.weights, deviation=np.sqrt(variance))


@dataclass(frozen=True)
class Model:
    """Fitted processes under several settings, and how much each counts; `fit` makes one."""

    processes: tuple[_Process, ...]
    shares: tuple[float, ...]
    centre: float
    scale: float

    def predict(self, apart: Floats) -> Prediction:
        """Say what is expected of points, given their distances [n, m] to the m that were fitted."""
        found = [process.predict(apart) for process in self.processes]
        mean = np.sum([share * p.mean for share, p in zip(self.shares, found, strict=True)], axis=0)
        square = np.sum(
            [share * (p.deviation**2 + p.mean**2) for share, p in zip(self.shares, found, strict=True)], axis=0
        )
        deviation = np.sqrt(np.maximum(square - mean**2, 1e-9))
        return Prediction(mean=self.centre + self.scale * mean, deviation=self.scale * deviation)


def kernel(apart: Floats, additive: float, reach: float) -> Floats:
    """Return how alike points are, 1 for the same, given their distances in 0..1."""
    return additive * (1.0 - apart) + (1.0 - additive) * np.exp(-reach * apart)


def fit(apart: Floats, values: Floats, rng: np.random.Generator) -> Model:
    """Fit a process to figures.

    Args:
        apart: [n, n] distances of the points.
        values: [n] their figures, n >= 1.
        rng: Draws which points the grid is judged on, where there are many.
    """
    centre, scale = float(values.mean()), float(values.std()) or 1.0
    standard = (values - centre) / scale
    judged = np.arange(len(values))
    if len(values) > JUDGED_MOST:
        judged = np.argsort(rng.random(len(values)), kind="stable")[:JUDGED_MOST]
    near, heard = apart[np.ix_(judged, judged)], standard[judged]
    settings = list(product(ADDITIVE, RANGES, NOISES))
    likely = np.array([_likelihood(_factor(near, *setting), heard) for setting in settings])
    shares = np.exp(likely - likely.max())
    shares /= shares.sum()
    taken = [i for i in np.argsort(-shares, kind="stable")[:AVERAGED_MOST] if shares[i] >= LEAST_WEIGHT]
    return Model(
        processes=tuple(_process(apart, standard, *settings[i]) for i in taken),
        shares=tuple(float(shares[i] / shares[taken].sum()) for i in taken),
        centre=centre,
        scale=scale,
    )


def _process(apart: Floats, standard: Floats, additive: float, reach: float, noise: float) -> _Process:
    factor = _factor(apart, additive, reach, noise)
    return _Process(
        additive=additive,
        reach=reach,
        factor=factor,
        weights=cho_solve((factor, True), standard, check_finite=False),
        variance=_signal(factor, standard),
    )


def _factor(apart: Floats, additive: float, reach: float, noise: float) -> Floats:
    covariance = kernel(apart, additive, reach)
    covariance[np.diag_indices(len(covariance))] += noise
    return cholesky(covariance, lower=True, check_finite=False)


def _signal(factor: Floats, standard: Floats) -> float:
    """Return the likeliest variance of the signal, given the kernel."""
    whitened = solve_triangular(factor, standard, lower=True, check_finite=False)
    return float(whitened @ whitened) / len(standard) + 1e-12


def _likelihood(factor: Floats, standard: Floats) -> float:
    """Return the logarithm of the likelihood, the signal's variance at its best, up to a constant."""
    return -0.5 * len(standard) * math.log(_signal(factor, standard)) - float(np.log(np.diag(factor)).sum())
