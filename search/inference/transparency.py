"""Colour under transparency: hidden pixels take the colour of the visible ones near them, before a network runs.

Programs store any colour where alpha is 0, mostly black. A network, like every filter, mixes neighbouring pixels, so
that colour would come out as a dark ring around what is visible. The fill is the push-pull pyramid of Gortler et al.,
1996, doi 10.1145/237170.237200, weighted by alpha: averages of visible pixels from fine to coarse, then each hole
filled from the finest level that sees something.
"""

from __future__ import annotations

from typing import cast

import numpy as np
import numpy.typing as npt

from search.inference.pictures import Levels

_CHUNK_ROWS = 64
"""Rows that are converted at a time, an even number: a float copy exists of a quarter of the picture at most."""


def fill_hidden(colour: Levels, alpha: Levels) -> Levels:
    """Return the colour with pixels of alpha 0 filled from visible ones; all other pixels keep their levels.

    Args:
        colour: `[h w c]`.
        alpha: `[h w 1]`, of the same type.

    Returns:
        The same array where no pixel is hidden, or all are.
    """
    if alpha.all() or not alpha.any():
        return colour
    height, width = alpha.shape[:2]
    coarse = np.empty((-(-height // 2), -(-width // 2), colour.shape[-1] + 1), np.float32)
    for top in range(0, height, _CHUNK_ROWS):
        rows = slice(top, top + _CHUNK_ROWS)
        weight = alpha[rows].astype(np.float32) / np.float32(np.iinfo(alpha.dtype).max)
        coarse[top // 2 : (top + _CHUNK_ROWS) // 2] = _halved(colour[rows].astype(np.float32), weight)
    filled_coarse = _filled(coarse)
    filled = colour.copy()
    for top in range(0, height, _CHUNK_ROWS):
        rows = slice(top, min(top + _CHUNK_ROWS, height))
        hidden = alpha[rows, :, 0] == 0
        if hidden.any():
            filled[rows][hidden] = np.floor(_doubled(filled_coarse, rows, width)[hidden] + np.float32(0.5))
    return cast("Levels", filled)


def _filled(level: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Return the colour `[h w c]` of a level `[h w c+1]` (weight last) with its holes filled from coarser levels."""
    colour, weight = level[..., :-1], level[..., -1:]
    if weight.min() >= 1 or level.shape[:2] == (1, 1):
        return colour
    height, width = level.shape[:2]
    below = _doubled(_filled(_halved(colour, weight)), slice(0, height), width)
    return cast("npt.NDArray[np.float32]", below + weight * (colour - below))


def _halved(colour: npt.NDArray[np.float32], weight: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Return a level of half the sides: mean colours of 2x2 pixels, and the sum of their weights, 1 at most."""
    height, width = weight.shape[:2]
    both = np.concatenate([colour * weight, weight], axis=-1)
    both = np.pad(both, ((0, height % 2), (0, width % 2), (0, 0)))
    both = both[::2] + both[1::2]
    both = both[:, ::2] + both[:, 1::2]
    total = both[..., -1:]
    np.divide(both[..., :-1], total, out=both[..., :-1], where=total > 0)
    np.minimum(total, 1, out=total)
    return cast("npt.NDArray[np.float32]", both)


def _doubled(level: npt.NDArray[np.float32], rows: slice, width: int) -> npt.NDArray[np.float32]:
    """Return some rows, from an even one, of a level's bilinear enlargement to twice its sides, cut to a width."""
    with_neighbours = np.arange(rows.start // 2 - 1, -(-rows.stop // 2) + 1)
    part = level[with_neighbours.clip(0, level.shape[0] - 1)]
    part = _twice(part)[: rows.stop - rows.start]
    return _twice(np.pad(part, ((0, 0), (1, 1), (0, 0)), "edge").swapaxes(0, 1)).swapaxes(0, 1)[:, :width]


def _twice(level: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Return two pixels for each along the first axis but the outermost: 3/4 of itself and 1/4 of a neighbour."""
    fine = np.repeat(np.float32(0.75) * level[1:-1], 2, axis=0)
    quarter = np.float32(0.25) * level
    fine[::2] += quarter[:-2]
    fine[1::2] += quarter[2:]
    return fine
