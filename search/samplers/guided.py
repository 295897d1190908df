"""Proposals where the front is expected to grow the most: what `auto` does after the warm-up.

A Gaussian process for each objective says what untried points may reach (`search.samplers.model`). Asked are the
neighbours of the front's members, one choice changed, and as many points from anywhere, then the neighbours of the
best of these; proposed is the one with the largest expected improvement of the dominated volume (Emmerich, 2005), times
the probability that it keeps to the budget. Costs are known before training, so whatever was measured teaches the
models of costs, rejected or not.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

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
ROUNDS, CLIMBERS = 2, 6
"""So often the neighbours of so many of the most promising are looked at, too."""
DRAWS = 32
"""Outcomes that are imagined of each of them."""
LEARNT_MOST = 400
"""Models learn from the latest so many trials."""
WIDE_EVERY = 4
"""Every so many proposals the cheap end of the front counts, too."""
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
    unseen = _Unseen(coding.encode(t.genotype for t in request.trials))
    pool = _pool(unseen, coding, members, rng)
    if not len(pool):
        return None
    models = [Expectation(coding, rows, _levelled(told[:, i], n), rng) for i, n in enumerate(request.objectives)]
    limits = {name: Expectation(coding, rows, figures(trials, name), rng) for name in request.limits}
    reference, draws = _reference(request, told[whole]), rng.standard_normal((_draws(models), 1, len(models)))

    def promise(points: Rows) -> Floats:
        return _expected_gain(front, reference, [m.of(points) for m in models], draws) * _within(
            request, limits, points
        )

    promised = promise(pool)
    for _ in range(ROUNDS):
        climbers = pool[np.argsort(-promised, kind="stable")[:CLIMBERS]]
        more = unseen.of(np.concatenate([coding.neighbours(row, rng) for row in climbers]))
        if len(more):
            pool, promised = np.concatenate((pool, more)), np.concatenate((promised, promise(more)))
    if not promised.any():  # no growth is in sight anywhere: look where least is known
        promised = np.max(
            [m.of(pool).deviation / (np.ptp(told[whole], axis=0)[i] + 1e-9) for i, m in enumerate(models)], axis=0
        )
    return coding.decode(pool[int(np.argmax(promised))])


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
    """Return the worst corner that volumes count to: the dearest cost or its limit, and, by turns, two qualities.

    Mostly, what is worse than the median so far counts for nothing, so demands rise with what is found; at every fourth
    proposal all counts but what collapsed. The one finds good networks sooner, the other the cheap end.
    """
    corner = told.max(axis=0)
    for column, name in enumerate(request.objectives):
        if name in QUALITIES:
            levelled = _levelled(told[:, column], name)
            corner[column] = np.median(levelled) if request.index % WIDE_EVERY else levelled.max()
        elif name in request.limits:
            corner[column] = np.log2(request.limits[name])
    return corner


def _draws(models: Sequence[Expectation]) -> int:
    return DRAWS if len(models) <= 3 else DRAWS // 4


def _expected_gain(front: Floats, reference: Floats, outcomes: Sequence[Prediction], draws: Floats) -> Floats:
    """Return the expected gain of volume, over outcomes drawn from the predictions; the same draws for all points."""
    mean = np.stack([o.mean for o in outcomes], axis=1)
    deviation = np.stack([o.deviation for o in outcomes], axis=1)
    return improvement(front, reference, mean + deviation * draws).mean(axis=0)


def _within(request: Request, models: Mapping[str, Expectation], pool: Rows) -> Floats:
    """Return the probability of keeping to all limits."""
    probability = np.ones(len(pool))
    for name, limit in request.limits.items():
        if models[name].size:
            expected = models[name].of(pool)
            probability *= ndtr((np.log2(limit) - expected.mean) / expected.deviation)
    return probability


def _likely_within(
    request: Request, coding: Coding, trials: Sequence[Trial], rows: Rows, rng: np.random.Generator
) -> Genotype | None:
    """Return a point that probably keeps to the limits, while little more is known than what missed them."""
    if not request.limits or not trials:
        return None
    pool = _Unseen(coding.encode(t.genotype for t in request.trials)).of(coding.draw(rng, POOL))
    if not len(pool):
        return None
    models = {name: Expectation(coding, rows, figures(trials, name), rng) for name in request.limits}
    return coding.decode(pool[int(np.argmax(_within(request, models, pool)))])


def _pool(unseen: _Unseen, coding: Coding, members: Rows, rng: np.random.Generator) -> Rows:
    """Return points that were not proposed yet: neighbours of the front, and others from anywhere."""
    near = np.concatenate([coding.neighbours(row, rng) for row in members]) if len(members) else members
    near = near[np.argsort(rng.random(len(near)), kind="stable")]
    return np.concatenate((unseen.of(near, most=POOL), unseen.of(coding.draw(rng, POOL))))


class _Unseen:
    """Lets each point pass once, and those proposed before never.

    Args:
        rows: [n, p] what was proposed before.
    """

    def __init__(self, rows: Rows) -> None:
        self._seen = {row.tobytes() for row in rows}

    def of(self, rows: Rows, most: int | None = None) -> Rows:
        """Return the first `most` rows that did not pass before."""
        kept: list[int] = []
        for index, row in enumerate(rows):
            name = row.tobytes()
            if name not in self._seen and (most is None or len(kept) < most):
                self._seen.add(name)
                kept.append(index)
        return rows[kept]


def _admitted(request: Request, trials: Sequence[Trial]) -> np.ndarray:
    """[n] whether each trial keeps to the limits, as far as its costs are known."""
    inside = np.ones(len(trials), dtype=np.bool_)
    for name, limit in request.limits.items():
        inside &= ~(figures(trials, name) > np.log2(limit))
    return inside
