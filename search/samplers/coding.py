"""Points of a conditional space as rows of small integers, so that thousands can be drawn and compared at once."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from search.pareto import Floats
from search.space import Parameter, SearchSpace
from search.types import Genotype

Rows = NDArray[np.int64]
"""[n, p]: for each parameter the position of its choice, or `OFF` where it does not count."""
OFF = -1


class Coding:
    """Translates between genotypes and rows; columns are the space's parameters, parents first."""

    def __init__(self, space: SearchSpace) -> None:
        self.space = space
        self.parameters = space.parameters
        self.sizes = np.array([len(p.choices) for p in self.parameters], dtype=np.int64)

    def encode(self, points: Iterable[Genotype]) -> Rows:
        """Return the rows of points of the space."""
        rows = [
            [self._positions[i].get(_name(p, point), OFF) for i, p in enumerate(self.parameters)] for point in points
        ]
        return np.array(rows, dtype=np.int64).reshape(len(rows), len(self.parameters))

    def decode(self, row: Sequence[int] | NDArray[np.int64]) -> Genotype:
        """Return the point of one row."""
        chosen = {p.name: p.choices[int(i)] for p, i in zip(self.parameters, row, strict=True) if i != OFF}
        return self.space.grow(lambda p: chosen[p.name])

    def draw(self, rng: np.random.Generator, count: int) -> Rows:
        """Return points drawn like `SearchSpace.sample` does: each active parameter uniformly over its choices."""
        return self.completed(np.full((count, len(self.parameters)), OFF, dtype=np.int64), rng)

    def neighbours(self, row: NDArray[np.int64], rng: np.random.Generator) -> Rows:
        """Return all points that differ from one in a single active choice; what comes to count by that is drawn."""
        changed: list[NDArray[np.int64]] = []
        for column in np.flatnonzero(row != OFF):
            for choice in range(self.sizes[column]):
                if choice != row[column]:
                    other = row.copy()
                    other[column] = choice
                    changed.append(other)
        return self.completed(np.array(changed, dtype=np.int64).reshape(len(changed), len(row)), rng)

    def completed(self, rows: Rows, rng: np.random.Generator) -> Rows:
        """Return rows with what does not count switched off, and what counts but has no choice drawn."""
        drawn = np.floor(rng.random(rows.shape) * self.sizes).astype(np.int64)
        out = rows.copy()
        for column, masks in enumerate(self._conditions):
            active = np.ones(len(rows), dtype=np.bool_)
            for parent, allowed in masks:
                active &= allowed[out[:, parent]]  # OFF reads the last entry, which is False
            chosen = np.where(out[:, column] == OFF, drawn[:, column], out[:, column])
            out[:, column] = np.where(active, chosen, OFF)
        return out

    def apart(self, one: Rows, other: Rows) -> Floats:
        """Return [n, m] how far points are apart: the mean over the searched parameters, each in 0..1.

        Numbers differ by how many choices lie between them, others are the same or not; a parameter that counts for
        one point alone is as different as can be, one that counts for neither not at all.
        """
        total = np.zeros((len(one), len(other)))
        searched = [i for i, p in enumerate(self.parameters) if not p.is_fixed]
        for column in searched:
            place = self._places[column]
            a, b = place[one[:, column]], place[other[:, column]]
            both = (one[:, column] != OFF)[:, None] & (other[:, column] != OFF)[None, :]
            if self.parameters[column].is_ordered:
                distance = np.abs(a[:, None] - b[None, :])
            else:
                distance = (a[:, None] != b[None, :]).astype(np.float64)
            either = (one[:, column] != OFF)[:, None] != (other[:, column] != OFF)[None, :]
            total += np.where(both, distance, either)
        return total / max(1, len(searched))

    @cached_property
    def _positions(self) -> list[dict[object, int]]:
        """For each parameter, the position of each choice."""
        return [{(type(c), c): i for i, c in enumerate(p.choices)} for p in self.parameters]

    @cached_property
    def _places(self) -> list[Floats]:
        """For each parameter, where its choices lie in 0..1 by rank; 0 for `OFF`."""
        found: list[Floats] = []
        for parameter in self.parameters:
            choices = list(parameter.choices)
            order = sorted(choices) if parameter.is_ordered else choices  # pyright: ignore[reportArgumentType]
            ranks = [order.index(choice) / max(1, len(choices) - 1) for choice in choices]
            found.append(np.array([*ranks, 0.0]))
        return found

    @cached_property
    def _conditions(self) -> list[list[tuple[int, NDArray[np.bool_]]]]:
        """For each parameter, its parents and which of their choices let it count; the last entry is `OFF`."""
        columns = {p.name: i for i, p in enumerate(self.parameters)}
        return [
            [
                (columns[c.parent], np.array([*(c.holds({c.parent: v}) for v in self.space[c.parent].choices), False]))
                for c in parameter.conditions
            ]
            for parameter in self.parameters
        ]


def _name(parameter: Parameter, point: Genotype) -> object:
    """Return what tells a point's choice from all others, 1 from 1.0 and True; None where there is none."""
    if parameter.name not in point.values:
        return None
    value = point[parameter.name]
    return type(value), value
