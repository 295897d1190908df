"""How far a table's short trainings tell the order of its long ones, and one seed that of another."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.stats import kendalltau

from search.pareto import Floats
from search.tabular.table import Table

RESAMPLES = 500


class Agreement(NamedTuple):
    """Kendall's tau-b between two orders of the same networks: 1 for the same order, 0 for none in common."""

    tau: float
    low: float
    high: float
    """95 % interval, by a bootstrap over the networks."""


class Fidelity(NamedTuple):
    """What a table says of its own rungs and seeds."""

    by_rung: tuple[Agreement, ...]
    """Each rung but the last against the last, under the first seed: what a search would be told."""
    across_rungs: tuple[Agreement, ...] | None
    """Each rung but the last under the first seed against the last under the second: free of shared luck."""
    seeds: Agreement | None
    """The first two seeds at the last rung: what no proxy can beat."""
    by_cost: Agreement
    """The cost against the last rung: what costs nothing to know."""


def fidelity_of(table: Table) -> Fidelity | None:
    """Compare a table's rungs and seeds; None where it has one rung and one seed."""
    whole = np.isfinite(table.quality).all(axis=(0, 2))
    if not whole.any() or table.quality.shape[2] < 2:
        return None
    seeds = np.flatnonzero(whole)
    first, last = table.quality[:, seeds[0], :], table.quality[:, seeds[0], -1]
    other = table.quality[:, seeds[1], -1] if len(seeds) > 1 else None
    short = range(len(table.steps) - 1)
    return Fidelity(
        by_rung=tuple(agreement(first[:, rung], last) for rung in short),
        across_rungs=None if other is None else tuple(agreement(first[:, rung], other) for rung in short),
        seeds=None if other is None else agreement(last, other),
        by_cost=agreement(table.costs[table.cost], table.true_quality),
    )


def agreement(one: Floats, other: Floats) -> Agreement:
    """Return Kendall's tau-b between two figures of the same networks, with its interval."""
    rng = np.random.default_rng(0)
    drawn = [_tau(one[picks], other[picks]) for picks in rng.integers(len(one), size=(RESAMPLES, len(one)))]
    low, high = np.nanpercentile(drawn, [2.5, 97.5])
    return Agreement(_tau(one, other), float(low), float(high))


def _tau(one: Floats, other: Floats) -> float:
    return float(kendalltau(one, other).statistic)  # pyright: ignore[reportAttributeAccessIssue]
