"""How well an early order of candidates agrees with the late one.

Kendall's tau-b (1945): of all pairs of candidates, those in the same order less those in the other one, as a share;
ties count for neither. Intervals are 95 % percentile intervals of the bootstrap over candidates. A rung is held
against the last one in two ways: against the mean of all seeds there, which is the best that is known of a candidate,
and across seeds, the rung of one against the last of another, so that luck which lasts a whole training does not
flatter it. The latter, taken of the last rung itself, is the ceiling: what no early figure can be expected to pass.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import permutations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from search.calibration.record import Candidate, Curve, Record
from search.counts import count
from search.pareto import Floats
from search.report.intervals import draws

BEST_SHARE = 1 / 3
"""Agreement is also taken among the candidates that end best: there the choices are made."""
TOP_SHARE = 1 / 4
"""Recall is that of this share of the candidates."""
ENOUGH = 4
"""Fewer candidates have no order worth a figure."""
RESAMPLES = 1000


@dataclass(frozen=True, slots=True)
class Estimate:
    """A figure with its 95 % interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.2f} ({self.low:.2f} to {self.high:.2f})"


@dataclass(frozen=True, slots=True, kw_only=True)
class Ordering:
    """How one way to order candidates agrees with how they end.

    Args:
        tau: With the mean over seeds at the last step.
        tau_across: With the last step of other seeds; that of `tau` where the order does not depend on a seed.
        tau_best: As `tau`, among the third that ends best; None where they are too few.
        recall: Of the quarter that ends best, the share that the order puts into its best quarter.
        by_levels: As `tau`, among the candidates of each number of levels; those with too few are left out.
    """

    tau: Estimate
    tau_across: Estimate
    tau_best: float | None
    recall: Estimate
    by_levels: Mapping[int, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreement:
    """A whole calibration, read.

    Args:
        steps: The ladder.
        values: At each step, the order by PSNR of the averaged weights.
        raw_values: Likewise of the weights themselves.
        params: The order by parameters alone.
        macs: The order by MACs alone.
        ceiling: Between seeds at the last step.
        seed_sd_db: Standard deviation between seeds at the last step, pooled over candidates.
        spread_db: Best less worst at the last step, mean over seeds.
        whole_tau: Tau of the centres that were looked at with whole photographs, at the last step.
    """

    steps: tuple[int, ...]
    values: tuple[Ordering, ...]
    raw_values: tuple[Ordering, ...]
    params: Ordering
    macs: Ordering
    ceiling: Estimate
    seed_sd_db: float
    spread_db: float
    whole_tau: float


@dataclass(frozen=True, slots=True)
class Table:
    """The curves of all candidates that have all seeds, as arrays.

    Args:
        candidates: In order of their numbers.
        steps: The ladder.
        psnr_db: Averaged weights, [seeds, candidates, steps].
        raw_psnr_db: The weights themselves, likewise.
        whole_psnr_db: Last step, whole photographs, [seeds, candidates].
    """

    candidates: tuple[Candidate, ...]
    steps: tuple[int, ...]
    psnr_db: Floats
    raw_psnr_db: Floats
    whole_psnr_db: Floats

    @property
    def last(self) -> Floats:
        """What the candidates reached, [seeds, candidates], on the centres that every step is looked at on."""
        return self.psnr_db[:, :, -1]

    @property
    def reference(self) -> Floats:
        """Its mean over the seeds, [candidates]."""
        return self.last.mean(axis=0)

    @property
    def levels(self) -> list[int]:
        """Of each candidate."""
        return [c.levels for c in self.candidates]


def table_of(record: Record) -> Table:
    """Bring a record's curves into arrays; candidates that lack a seed which others have are left out.

    Raises:
        ValueError: If fewer than `ENOUGH` candidates have two seeds or more.
    """
    seeds = sorted({c.seed for c in record.curves})
    whole = [c for c in record.candidates if all(record.curve_of(c.number, s) for s in seeds)]
    if len(seeds) < 2 or len(whole) < ENOUGH:
        raise ValueError(
            f"{count(len(whole), 'candidate')} with curves of all of {count(len(seeds), 'seed')}; "
            f"at least {ENOUGH} of 2 are needed."
        )
    rows = [[_curve(record, c, seed) for c in whole] for seed in seeds]

    def array(read: Callable[[Curve], object]) -> Floats:
        return np.array([[read(curve) for curve in row] for row in rows], dtype=np.float64)

    return Table(
        candidates=tuple(whole),
        steps=rows[0][0].steps,
        psnr_db=array(lambda c: c.psnr_db),
        raw_psnr_db=array(lambda c: c.raw_psnr_db),
        whole_psnr_db=array(lambda c: c.whole_psnr_db),
    )


def read_agreement(table: Table) -> Agreement:
    """Return all statistics of a calibration."""
    costs = [np.array([getattr(c, name) for c in table.candidates]) for name in ("params_m", "macs_g")]
    params, macs = (ordering(table, np.tile(cost, (len(table.last), 1))) for cost in costs)
    return Agreement(
        steps=table.steps,
        values=tuple(ordering(table, table.psnr_db[:, :, i]) for i in range(len(table.steps))),
        raw_values=tuple(ordering(table, table.raw_psnr_db[:, :, i]) for i in range(len(table.steps))),
        params=params,
        macs=macs,
        ceiling=_over_seeds(_pairs(table.last, table.last), _weighted_tau),
        seed_sd_db=float(np.sqrt(table.last.var(axis=0, ddof=1).mean())),
        spread_db=float(np.ptp(table.reference)),
        whole_tau=kendall_tau(table.whole_psnr_db.mean(axis=0), table.reference),
    )


def ordering(table: Table, scores: Floats) -> Ordering:
    """Say how scores order the candidates.

    Args:
        table: The curves.
        scores: [seeds, candidates]: from what each seed's training showed; higher is better.
    """
    reference = table.reference
    against_mean = [(row, reference) for row in scores]
    best = np.argsort(-reference, kind="stable")[: math.ceil(BEST_SHARE * len(reference))]
    members = {level: np.flatnonzero(np.array(table.levels) == level) for level in sorted(set(table.levels))}
    return Ordering(
        tau=_over_seeds(against_mean, _weighted_tau),
        tau_across=_over_seeds(_pairs(scores, table.last), _weighted_tau),
        tau_best=_mean_tau(scores, reference, best) if len(best) >= ENOUGH else None,
        recall=_over_seeds(against_mean, _weighted_recall),
        by_levels={k: _mean_tau(scores, reference, who) for k, who in members.items() if len(who) >= ENOUGH},
    )


def kendall_tau(first: ArrayLike, second: ArrayLike) -> float:
    """Return Kendall's tau-b of two figures of n candidates, in -1..1; 0 where one of them is constant."""
    return float(_weighted_tau(np.asarray(first), np.asarray(second), np.ones((1, np.size(first))))[0])


def top_recall(scores: ArrayLike, reference: ArrayLike) -> float:
    """Return the share of the best quarter of `reference` that is in the best quarter of `scores`."""
    return float(_weighted_recall(np.asarray(scores), np.asarray(reference), np.ones((1, np.size(scores))))[0])


def _weighted_tau(x: Floats, y: Floats, weights: Floats) -> Floats:
    """Return tau-b for each row of weights [resamples, n], which say how often each candidate is counted.

    A pair counts by the product of its weights; a candidate makes no pair with its own copies.
    """
    a, b = np.sign(x[:, None] - x[None]), np.sign(y[:, None] - y[None])

    def total(pairs: Floats) -> Floats:
        return ((weights @ pairs) * weights).sum(axis=1)

    scale = np.sqrt(total(a * a) * total(b * b))
    return np.divide(total(a * b), scale, out=np.zeros_like(scale), where=scale > 0)


def _weighted_recall(x: Floats, y: Floats, weights: Floats) -> Floats:
    """Return the recall of the best quarter for each row of weights."""
    by_score, by_reference = np.argsort(-x, kind="stable"), np.argsort(-y, kind="stable")
    counts = weights.astype(np.int64)
    top = max(1, round(TOP_SHARE * len(y)))

    def taken(order: NDArray[np.intp]) -> NDArray[np.int64]:
        """Say how often each candidate is within the top, copies counted."""
        ordered = counts[:, order]
        before = np.cumsum(ordered, axis=1) - ordered
        within = np.clip(top - before, 0, ordered)
        return within[:, np.argsort(order)]

    return np.minimum(taken(by_score), taken(by_reference)).sum(axis=1) / top


Score = Callable[[Floats, Floats, Floats], Floats]


def _over_seeds(pairs: Sequence[tuple[Floats, Floats]], score: Score) -> Estimate:
    """Return the mean of a score over pairs of orders, with its interval over the choice of candidates."""
    count = len(pairs[0][0])
    resamples = np.stack([np.bincount(row, minlength=count) for row in draws(count, resamples=RESAMPLES)])
    weights = np.vstack([np.ones((1, count)), resamples.astype(np.float64)])
    means = np.mean([score(a, b, weights) for a, b in pairs], axis=0)
    low, high = np.percentile(means[1:], [2.5, 97.5])
    return Estimate(float(means[0]), float(low), float(high))


def _pairs(scores: Floats, last: Floats) -> list[tuple[Floats, Floats]]:
    """Pair the scores of each seed with the last rung of each other one."""
    return [(scores[a], last[b]) for a, b in permutations(range(len(last)), 2)]


def _mean_tau(scores: Floats, reference: Floats, members: NDArray[np.intp]) -> float:
    return float(np.mean([kendall_tau(row[members], reference[members]) for row in scores]))


def _curve(record: Record, candidate: Candidate, seed: int) -> Curve:
    curve = record.curve_of(candidate.number, seed)
    if curve is None:
        raise ValueError(f"candidate {candidate.number} has no curve of seed {seed}.")
    return curve
