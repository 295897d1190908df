"""Proposals where the front is expected to grow the most: what `auto` does after the warm-up.

A Gaussian process for each objective says what untried points may reach (`search.samplers.model`). Asked are the
neighbours of the front's members, one choice changed, and as many points from anywhere; proposed is the one with the
largest expected improvement of the dominated volume (Emmerich, 2005), times the probability that it keeps to the
budget. Costs are known before training, so whatever was measured teaches the models of costs, rejected or not.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.special import ndtr

from search.pareto import Floats, non_dominated_mask
from search.samplers.coding import Coding, Rows
from search.samplers.improvement import improvement
from search.samplers.known import QUALITIES, figures, matrix
from search.samplers.model import Model, Prediction, fit
from search.samplers.request import Request
from search.types import Genotype, Trial

POOL = 300
"""Neighbours, and points from anywhere, that are looked at for one proposal."""
DRAWS = 32
"""Outcomes that are imagined of each of them."""
LEARNT_MOST = 400
"""Models learn from the latest so many trials."""
FEWEST = 4
"""Below so many measured candidates nothing is expected of anything."""


class Expectation:
    """One figure's model over the points that it is known of.

    Args:
        coding: Of the space.
        rows: [n, p] all points of the run.
        values: [n] the figure, NaN where it is not known.
        rng: See `fit`.
    """

    def __init__(self, coding: Coding, rows: Rows, values: Floats, rng: np.random.Generator) -> None:
        known = np.flatnonzero(np.isfinite(values))[-LEARNT_MOST:]
        self.size = len(known)
        self._coding, self._rows = coding, rows[known]
        self._model: Model | None = None
        if self.size:
            self._model = fit(coding.apart(self._rows, self._rows), values[known], rng)

    def of(self, rows: Rows) -> Prediction:
        """Return what is expected of points."""
        if self._model is None:
            return Prediction(np.zeros(len(rows)), np.ones(len(rows)))
        return self._model.predict(self._coding.apart(rows, self._rows))


def guided_point(request: Request) -> Genotype | None:
    """Return the point that promises the most, or None where too little is known to promise anything."""
    coding, rng = Coding(request.space), np.random.default_rng(request.seed)
    trials = [t for t in request.trials if t.cost is not None]
    rows = coding.encode(t.genotype for t in trials)
    told = matrix(trials, request.objectives)
    if np.isfinite(told).all(axis=1).sum() < FEWEST:
        return _likely_within(request, coding, trials, rows, rng)
    told = _believed(request.objectives, coding, trials, rows, told, rng)
    whole = np.isfinite(told).all(axis=1) & _admitted(request, trials)
    front = told[whole][non_dominated_mask(told[whole])]
    members = rows[whole][non_dominated_mask(told[whole])]
    pool = _pool(request, coding, members, rng)
    if not len(pool):
        return None
    models = [Expectation(coding, rows, _levelled(told[:, i], n), rng) for i, n in enumerate(request.objectives)]
    outcomes = [model.of(pool) for model in models]
    reference = _reference(request, told[whole])
    gain = _expected_gain(front, reference, outcomes, rng)
    promise = gain * _within(request, coding, trials, rows, pool, rng)
    if not promise.any():
        promise = -np.stack([o.mean / (o.deviation + 1e-12) for o in outcomes], axis=1).min(axis=1)
    return coding.decode(pool[int(np.argmax(promise))])


def _believed(
    objectives: Sequence[str],
    coding: Coding,
    trials: Sequence[Trial],
    rows: Rows,
    told: Floats,
    rng: np.random.Generator,
) -> Floats:
    """Fill in what is expected of candidates that wait for their training, so that the next ones are sought elsewhere.

    Known as the kriging believer (Ginsbourger et al., 2010).
    """
    filled = told.copy()
    for column, name in enumerate(objectives):
        waiting = np.array([not t.measurements and t.reason == "" for t in trials]) & ~np.isfinite(told[:, column])
        if name in QUALITIES and waiting.any():
            model = Expectation(coding, rows, _levelled(told[:, column], name), rng)
            filled[waiting, column] = model.of(rows[waiting]).mean
    return filled


def _levelled(values: Floats, name: str) -> Floats:
    """Return figures of a quality with the worst brought up: what is far below the median is merely bad.

    At most as far below the median as the best is above it; a few collapsed trainings would else be all that a model
    has to explain.
    """
    if name not in QUALITIES or not np.isfinite(values).any():
        return values
    median, best = float(np.nanmedian(values)), float(np.nanmin(values))
    return np.minimum(values, 2 * median - best) if median > best else values


def _reference(request: Request, told: Floats) -> Floats:
    """Return the worst corner that volumes count to: the median quality so far, and the dearest cost or its limit."""
    corner = told.max(axis=0)
    for column, name in enumerate(request.objectives):
        if name in QUALITIES:
            corner[column] = float(np.median(told[:, column]))
        elif name in request.limits:
            corner[column] = float(np.log2(request.limits[name]))
    return corner


def _expected_gain(
    front: Floats, reference: Floats, outcomes: Sequence[Prediction], rng: np.random.Generator
) -> Floats:
    """Return the expected gain of volume, over outcomes drawn from the predictions; the same draws for all points."""
    mean = np.stack([o.mean for o in outcomes], axis=1)
    deviation = np.stack([o.deviation for o in outcomes], axis=1)
    draws = DRAWS if len(outcomes) <= 3 else DRAWS // 4
    imagined = mean + deviation * rng.standard_normal((draws, 1, len(outcomes)))
    return improvement(front, reference, imagined).mean(axis=0)


def _within(
    request: Request, coding: Coding, trials: Sequence[Trial], rows: Rows, pool: Rows, rng: np.random.Generator
) -> Floats:
    """Return the probability of keeping to all limits."""
    probability = np.ones(len(pool))
    for name, limit in request.limits.items():
        model = Expectation(coding, rows, figures(trials, name), rng)
        if model.size:
            expected = model.of(pool)
            probability *= ndtr((np.log2(limit) - expected.mean) / expected.deviation)
    return probability


def _likely_within(
    request: Request, coding: Coding, trials: Sequence[Trial], rows: Rows, rng: np.random.Generator
) -> Genotype | None:
    """Return a point that probably keeps to the limits, while little more is known than what missed them."""
    if not request.limits or not trials:
        return None
    pool = _unseen(request, coding, coding.draw(rng, POOL))
    if not len(pool):
        return None
    return coding.decode(pool[int(np.argmax(_within(request, coding, trials, rows, pool, rng)))])


def _pool(request: Request, coding: Coding, members: Rows, rng: np.random.Generator) -> Rows:
    """Return points that were not proposed yet: neighbours of the front, and others from anywhere."""
    near = np.concatenate([coding.neighbours(row, rng) for row in members]) if len(members) else members
    near = near[np.argsort(rng.random(len(near)), kind="stable")]
    near = _unseen(request, coding, near)[:POOL]
    return np.concatenate((near, _unseen(request, coding, coding.draw(rng, POOL))))


def _unseen(request: Request, coding: Coding, rows: Rows) -> Rows:
    """Return the rows, each once, that are none of the points proposed before."""
    seen = {row.tobytes() for row in coding.encode(t.genotype for t in request.trials)}
    kept: list[int] = []
    for index, row in enumerate(rows):
        name = row.tobytes()
        if name not in seen:
            seen.add(name)
            kept.append(index)
    return rows[kept]


def _admitted(request: Request, trials: Sequence[Trial]) -> np.ndarray:
    """[n] whether each trial keeps to the limits, as far as its costs are known."""
    inside = np.ones(len(trials), dtype=np.bool_)
    for name, limit in request.limits.items():
        inside &= ~(figures(trials, name) > np.log2(limit))
    return inside
