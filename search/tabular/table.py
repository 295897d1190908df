"""A table: every point of a space, what it costs, and what it reached at each rung under each seed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from search.pareto import Floats, hypervolume
from search.space import SearchSpace
from search.types import InputError


@dataclass(frozen=True, kw_only=True)
class Table:
    """What was found out about every point of a space.

    Args:
        name: As `load_table` knows it.
        space: The points.
        keys: [n] keys of the genotypes, one row each.
        steps: [r] training steps of the rungs, rising.
        quality: [n, s, r], to maximise: PSNR in dB, or what stands in for it; NaN where a seed was not trained.
        elapsed_s: [n, s, r] seconds of training up to a rung; NaN where that is not known.
        costs: [n] each, by the names of `search.types.OBJECTIVES`, to minimise, all above 0.
        cost: The cost that fronts are drawn over.
        quality_label: What the quality is, for a reader.
        conditions: What the figures hold for, in one line.
        floor_share: Share of the points within the limits, 0 to 1, that count for nothing: those of the worst quality.
        scores: [n, s] each, by the names of `search.evaluation.zero_cost.SCORES`, to maximise; a point's row has one
            figure for each seed's first weights. Empty where none were computed.
    """

    name: str
    space: SearchSpace
    keys: tuple[str, ...]
    steps: tuple[int, ...]
    quality: Floats
    elapsed_s: Floats
    costs: Mapping[str, Floats]
    cost: str
    quality_label: str
    conditions: str
    floor_share: float = 0.0
    scores: Mapping[str, Floats] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse a table that cannot answer."""
        rows, _, rungs = self.quality.shape
        if rungs != len(self.steps) or rows != len(self.keys) or self.elapsed_s.shape != self.quality.shape:
            raise InputError(
                f"table {self.name}: {len(self.keys)} keys and {len(self.steps)} rungs, but qualities shaped "
                f"{self.quality.shape}.\n  It was not written by hfir-search, or is damaged: make or convert it again."
            )
        if len(set(self.keys)) != rows or rows != self.space.size:
            raise InputError(
                f"table {self.name}: {len(set(self.keys))} distinct points, but its space has {self.space.size}.\n"
                "  A table answers for every point of its space: finish its trainings first."
            )

    @cached_property
    def row_of(self) -> Mapping[str, int]:
        """Row of each genotype, by its key."""
        return {key: row for row, key in enumerate(self.keys)}

    @cached_property
    def true_quality(self) -> Floats:
        """[n] mean over the seeds at the last rung."""
        return np.nanmean(self.quality[:, :, -1], axis=1)

    @cached_property
    def points(self) -> Floats:
        """[n, 2] to minimise: minus the true quality, and the binary logarithm of the cost."""
        return np.stack([-self.true_quality, np.log2(self.costs[self.cost])], axis=1)

    def seeds_of(self, row: int) -> NDArray[np.intp]:
        """Return the seeds that a point was trained under."""
        return np.flatnonzero(np.isfinite(self.quality[row, :, -1]))

    def total(self, limits: Mapping[str, float]) -> float:
        """Return the volume of the true front of what keeps to the limits."""
        return hypervolume(self.points[self.within(limits)], self.reference(limits))

    def reference(self, limits: Mapping[str, float]) -> Floats:
        """Return [2] the worst corner of volumes: the floor of the quality, and the limit of the cost, or its dearest.

        Both are those of what keeps to the limits: under a tight one few points reach the median of the whole table.
        """
        inside = self.within(limits)
        floor = float(np.quantile(self.true_quality[inside], self.floor_share))
        dearest = np.log2(limits[self.cost]) if self.cost in limits else self.points[inside, 1].max()
        return np.array([-floor, dearest])

    def within(self, limits: Mapping[str, float]) -> NDArray[np.bool_]:
        """[n] whether a point keeps to all limits."""
        inside = np.ones(len(self.keys), dtype=np.bool_)
        for name, limit in limits.items():
            inside &= self.costs[name] <= limit
        return inside

    def volume(self, rows: Sequence[int], limits: Mapping[str, float]) -> float:
        """Return the volume that rows dominate: by their true qualities, for luck with a seed is no gain."""
        return hypervolume(self.points[list(rows)].reshape(-1, 2), self.reference(limits))
