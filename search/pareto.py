"""Trade-offs: which points are on the front, how far apart they stand, and what volume they dominate.

The array functions take points shaped [n, m] (n points, m objectives), **all objectives to minimise**;
callers flip the sign of what is to be maximised (`minimisation_matrix` does it for trials). Every value
must be finite: a candidate without a figure takes no part, it is not a point at infinity.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from search.types import OBJECTIVES, InputError, Trial, TrialState

Floats = NDArray[np.float64]


def non_dominated_mask(points: ArrayLike) -> NDArray[np.bool_]:
    """Say for each point whether no other dominates it: as good everywhere and better somewhere.

    Equal points do not dominate each other, so duplicates are all kept or all left out. Works through the
    points in lexicographic order: the first one left is on the front, and strikes all that it dominates.

    Args:
        points: [n, m], to minimise.

    Returns:
        Booleans [n].

    Raises:
        ValueError: If `points` is not two-dimensional or holds NaN or infinity.
    """
    return _mask(_checked_points(points))


def non_dominated_rank(points: ArrayLike) -> NDArray[np.intp]:
    """Number the layers of points: 0 for the front, 1 for the front of the rest, and so on.

    NSGA-II's sort (Deb et al., 2002), by peeling one front after the other.

    Args:
        points: [n, m], to minimise.

    Returns:
        Integers [n], from 0.

    Raises:
        ValueError: As in `non_dominated_mask`.
    """
    values = _checked_points(points)
    ranks = np.zeros(len(values), dtype=np.intp)
    rest = np.arange(len(values))
    while rest.size:
        rest = rest[~_mask(values[rest])]
        ranks[rest] += 1
    return ranks


def crowding_distance(points: ArrayLike) -> Floats:
    """Measure how lonely each point of a front stands; larger is lonelier.

    Sums over the objectives the gap between a point's two neighbours, in units of the objective's range
    (Deb et al., "A fast and elitist multiobjective genetic algorithm: NSGA-II", 2002). An objective in
    which all points agree adds nothing.

    Args:
        points: [n, m], the members of *one* front (rank them first).

    Returns:
        Distances [n], each in [0, m] or infinite: the ends of an objective are, and all of two or fewer.

    Raises:
        ValueError: As in `non_dominated_mask`.
    """
    values = _checked_points(points)
    if len(values) <= 2:
        return np.full(len(values), np.inf)
    distance = np.zeros(len(values))
    for column in values.T:
        order = np.argsort(column, kind="stable")
        ordered = column[order]
        extent = ordered[-1] - ordered[0]
        if extent > 0:
            distance[order[[0, -1]]] = np.inf
            distance[order[1:-1]] += (ordered[2:] - ordered[:-2]) / extent
    return distance


def hypervolume(points: ArrayLike, reference: ArrayLike) -> float:
    """Return the exact volume that the points dominate, up to the reference point.

    Two objectives are swept in O(n log n). More are cut into slabs along the last objective, each slab
    being a problem with one objective less (HSO: While et al., "A faster algorithm for calculating
    hypervolume", 2006). It adds positive terms only, so nothing cancels; cost grows as n^(m-1).

    Args:
        points: [n, m], to minimise. Points that are not better than the reference everywhere are ignored.
        reference: [m], the worst corner, in the objectives' units.

    Returns:
        The volume, >= 0, in the product of the objectives' units.

    Raises:
        ValueError: As in `non_dominated_mask`, or if `reference` does not fit the points.
    """
    values, corner = _checked_points_with_reference(points, reference)
    return _volume(values[(values < corner).all(axis=1)], corner)


def hypervolume_contributions(points: ArrayLike, reference: ArrayLike) -> Floats:
    """Return for each point the volume that would be lost without it.

    That is a point's own box less the part of it that the others dominate (the exclusive hypervolume of
    While, Bradstreet, Barone, "A fast way of calculating exact hypervolumes", 2012): 0 for duplicates,
    dominated points and those beyond the reference.

    Args:
        points: [n, m], to minimise.
        reference: [m], the worst corner.

    Returns:
        Volumes [n], each >= 0.

    Raises:
        ValueError: As in `hypervolume`.
    """
    values, corner = _checked_points_with_reference(points, reference)
    lost = np.zeros(len(values))
    inside = np.flatnonzero((values < corner).all(axis=1))
    for position, index in enumerate(inside):
        others = np.maximum(values[np.delete(inside, position)], values[index])
        own = _volume(values[index : index + 1], corner)
        lost[index] = max(0.0, own - _volume(others, corner))
    return lost


def knee_index(points: ArrayLike, log_axes: Sequence[bool]) -> int:
    """Return the index of the front's balanced point: the one nearest to the ideal.

    Each objective is scaled to [0, 1] over the front, 0 being its best value there; the knee has the least
    Euclidean distance to the origin. Costs span orders of magnitude and are felt as ratios, so they are
    scaled by their logarithm; qualities in dB are logarithmic already. An objective in which all points
    agree has no say.

    Distances count as equal below 1e-9, so that a last bit of `log` decides nothing; the first one wins.

    Args:
        points: [n, m], the members of one front, n >= 1.
        log_axes: [m], True for an objective to be scaled by its logarithm; its values must be positive.

    Returns:
        An index in [0, n).

    Raises:
        ValueError: As in `non_dominated_mask`; if there are no points, `log_axes` is not of length m, or a
            value on a logarithmic axis is not positive.
    """
    values = _checked_points(points)
    if not len(values):
        raise ValueError("an empty front has no knee: give at least one point.")
    logs = np.array(log_axes, dtype=bool)
    if logs.shape != values.shape[1:]:
        raise ValueError(f"log_axes has {logs.size} entries for {values.shape[1]} objectives: give one each.")
    if (values[:, logs] <= 0).any():
        raise ValueError("a value on a logarithmic axis is not positive: scale that axis linearly.")
    scaled = values.copy()
    scaled[:, logs] = np.log(values[:, logs])
    scaled -= scaled.min(axis=0)
    extent = scaled.max(axis=0)
    scaled /= np.where(extent > 0, extent, 1.0)
    distances: Floats = np.sqrt((scaled**2).sum(axis=1))
    return int(np.argmin(distances.round(9)))


@dataclass(frozen=True, slots=True, kw_only=True)
class ParetoFront:
    """The trials that no other beats: for each, nothing is better in one objective and as good in all.

    Args:
        objectives: Names out of `search.types.OBJECTIVES`.
        members: From cheap to dear (see `pareto_front`).
        knee: The balanced member by `knee_index`, costs on a log scale; None if there are no members.
    """

    objectives: tuple[str, ...]
    members: tuple[Trial, ...]
    knee: Trial | None


def minimisation_matrix(trials: Sequence[Trial], objectives: Sequence[str]) -> Floats:
    """Write trials as points to minimise: figures that are to be maximised get a minus sign.

    Args:
        trials: n trials; each must know every objective.
        objectives: m names out of `search.types.OBJECTIVES`.

    Returns:
        Points [n, m], in the objectives' units.

    Raises:
        InputError: If an objective is unknown.
        ValueError: If a trial lacks a figure.
    """
    signs = [-1.0 if maximise else 1.0 for maximise in _directions(objectives)]
    matrix = np.empty((len(trials), len(signs)))
    for row, trial in enumerate(trials):
        for column, (name, sign) in enumerate(zip(objectives, signs, strict=True)):
            value = trial.value(name)
            if value is None:
                raise ValueError(f"trial {trial.number} ({trial.state}) has no {name}: leave it out.")
            matrix[row, column] = sign * value
    return matrix


def pareto_front(trials: Sequence[Trial], objectives: Sequence[str]) -> ParetoFront:
    """Return the front of the COMPLETE trials that know every objective.

    Members are sorted by latency where it is an objective, else by the first objective that is a cost,
    else by the first objective from its best value on; then by number. Trials that tie in every objective
    are all members.

    Args:
        trials: In any order and state.
        objectives: At least one name out of `search.types.OBJECTIVES`; all count alike.

    Raises:
        InputError: If there are no objectives, or one is unknown.
    """
    maximise = _directions(objectives)
    known = [trial for trial in trials if _takes_part(trial, objectives)]
    points = minimisation_matrix(known, objectives)
    leading = _leading_column(objectives, maximise)
    order = sorted(np.flatnonzero(_mask(points)).tolist(), key=lambda i: (float(points[i, leading]), known[i].number))
    members = tuple(known[i] for i in order)
    knee = members[knee_index(points[order], [not flag for flag in maximise])] if members else None
    return ParetoFront(objectives=tuple(objectives), members=members, knee=knee)


def _mask(points: Floats) -> NDArray[np.bool_]:
    mask = np.zeros(len(points), dtype=np.bool_)
    left = np.lexsort(points.T[::-1]) if points.size else np.arange(len(points))
    while left.size:
        rows = points[left]
        mask[left[(rows == rows[0]).all(axis=1)]] = True
        left = left[(rows < rows[0]).any(axis=1)]
    return mask


def _volume(points: Floats, reference: Floats) -> float:
    """Return the volume dominated by points that are all better than the reference in every objective."""
    front = np.unique(points[_mask(points)], axis=0)
    if not len(front):
        return 0.0
    if front.shape[1] == 1:
        return float(reference[0] - front[0, 0])
    if front.shape[1] == 2:
        return _area(front, reference)
    front = front[np.argsort(front[:, -1], kind="stable")]
    edges = np.append(front[:, -1], reference[-1])
    return math.fsum(
        float(depth) * _volume(front[: count + 1, :-1], reference[:-1])
        for count, depth in enumerate(np.diff(edges))
        if depth > 0
    )


def _area(front: Floats, reference: Floats) -> float:
    """Sweep a front without duplicates that is sorted by its first objective, hence falling in its second."""
    widths = reference[0] - front[:, 0]
    tops = np.append(reference[1], front[:-1, 1])
    return math.fsum((widths * (tops - front[:, 1])).tolist())


def _checked_points(points: ArrayLike) -> Floats:
    values = np.asarray(points, dtype=np.float64)
    if values.ndim != 2 or (len(values) and not values.shape[1]):
        raise ValueError(f"points have shape {values.shape}: give one row a point, one column an objective.")
    bad = np.flatnonzero(~np.isfinite(values).all(axis=1))
    if bad.size:
        raise ValueError(
            f"point {bad[0]} is {values[bad[0]].tolist()}: every value must be finite; leave out what has no figure."
        )
    return values


def _checked_points_with_reference(points: ArrayLike, reference: ArrayLike) -> tuple[Floats, Floats]:
    values = _checked_points(points)
    corner = np.asarray(reference, dtype=np.float64)
    if corner.shape != values.shape[1:] or not np.isfinite(corner).all():
        raise ValueError(
            f"the reference point is {corner.tolist()} for {values.shape[1]} objectives: give one finite value each."
        )
    return values, corner


def _directions(objectives: Sequence[str]) -> list[bool]:
    """Return for each objective whether it is to be maximised."""
    if not objectives:
        raise InputError(f"no objectives are given.\n  Choose from {', '.join(OBJECTIVES)}.")
    for name in objectives:
        if name not in OBJECTIVES:
            close = difflib.get_close_matches(name, OBJECTIVES, n=1)
            hint = f"Did you mean {close[0]}?" if close else f"Choose from {', '.join(OBJECTIVES)}."
            raise InputError(f"there is no objective {name}.\n  {hint}")
    return [OBJECTIVES[name].maximise for name in objectives]


def _leading_column(objectives: Sequence[str], maximise: Sequence[bool]) -> int:
    """Return the column by which a front is sorted: latency, else the first cost, else the first."""
    if "latency_ms" in objectives:
        return list(objectives).index("latency_ms")
    return list(maximise).index(False) if False in maximise else 0


def _takes_part(trial: Trial, objectives: Sequence[str]) -> bool:
    figures = [trial.value(name) for name in objectives]
    return trial.state is TrialState.COMPLETE and all(f is not None and math.isfinite(f) for f in figures)
