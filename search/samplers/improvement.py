"""By how much points would enlarge the volume that a front dominates; thousands of points at once."""

from __future__ import annotations

import numpy as np

from search.pareto import Floats, non_dominated_mask


def improvement(front: Floats, reference: Floats, points: Floats) -> Floats:
    """Return the volume that each point would add to a front's, exactly.

    Two objectives are cut into strips between the front's members; more into slabs along the last objective, each a
    problem with one objective less (as in `search.pareto.hypervolume`).

    Args:
        front: [k, m], to minimise; k may be 0. Members beyond the reference are ignored.
        reference: [m] the worst corner.
        points: [..., m].

    Returns:
        [...], each >= 0.
    """
    inside = front[(front < reference).all(axis=1)]
    members = np.unique(inside[non_dominated_mask(inside)], axis=0) if len(inside) else inside
    return _added(members, reference, points)


def _added(front: Floats, reference: Floats, points: Floats) -> Floats:
    if len(reference) == 1:
        best = min(float(front.min()), float(reference[0])) if len(front) else float(reference[0])
        return np.maximum(0.0, best - points[..., 0])
    if len(reference) == 2:
        return _added_area(front, reference, points)
    order = np.argsort(front[:, -1], kind="stable")
    ordered = front[order]
    edges = np.concatenate(([-np.inf], ordered[:, -1], reference[-1:]))
    total = np.zeros(points.shape[:-1])
    for count in range(len(ordered) + 1):
        depth = np.maximum(0.0, edges[count + 1] - np.maximum(edges[count], points[..., -1]))
        if edges[count + 1] > edges[count] and depth.any():
            total += depth * _added(ordered[:count, :-1], reference[:-1], points[..., :-1])
    return total


def _added_area(front: Floats, reference: Floats, points: Floats) -> Floats:
    kept = front[non_dominated_mask(front)] if len(front) else front
    kept = kept[np.argsort(kept[:, 0], kind="stable")]
    lefts = (-np.inf, *kept[:, 0])
    rights = (*kept[:, 0], reference[0])
    tops = (reference[1], *kept[:, 1])
    total = np.zeros(points.shape[:-1])
    for left, right, top in zip(lefts, rights, tops, strict=True):  # strip by strip: all at once leaves the cache
        width = np.maximum(0.0, right - np.maximum(left, points[..., 0]))
        total += width * np.maximum(0.0, top - points[..., 1])
    return total
