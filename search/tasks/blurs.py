"""Kernels of motion and defocus blur, and convolution with one kernel for each image of a batch.

All kernels are non-negative, symmetric about their centre, anti-aliased, and sum to 1: the mean is kept, nothing moves.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import numpy.typing as npt

from search.tasks.images import Pixels

Kernels = npt.NDArray[np.float64]
"""`[b k k]`, k odd."""

_SAMPLES_PER_PX = 16
"""Points that a pixel of the path, or a side of a pixel of the disc, is sampled at."""


def motion_margin_px(length_px: float) -> int:
    """Return how far the kernels of `motion_kernels` reach from their centre."""
    return int(np.ceil(length_px / 2))


def motion_kernels(length_px: float, angles_deg: npt.NDArray[np.floating]) -> Kernels:
    """Return kernels of uniform motion along a line, one for each angle (Gonzalez & Woods, Digital Image Processing).

    The path is sampled sixteen times a pixel, and each point shared between the four pixels around it.

    Args:
        length_px: Length of the path, > 0.
        angles_deg: `[b]`, from the x axis towards the top of the image.

    Returns:
        `[b k k]` with k = 2 * `motion_margin_px` + 1.
    """
    reach = motion_margin_px(length_px)
    side = 2 * reach + 1
    count = int(np.ceil(_SAMPLES_PER_PX * length_px)) + 1
    along = np.linspace(-length_px / 2, length_px / 2, count)
    radians = np.deg2rad(np.asarray(angles_deg, dtype=np.float64))[:, None]
    rows, columns = reach - along * np.sin(radians), reach + along * np.cos(radians)
    kernels = np.zeros((len(radians), side, side))
    image = np.broadcast_to(np.arange(len(radians))[:, None], rows.shape)
    top, left = (np.clip(np.floor(axis).astype(np.intp), 0, side - 2) for axis in (rows, columns))
    down, right = rows - top, columns - left
    for row, row_share in ((top, 1 - down), (top + 1, down)):
        for column, column_share in ((left, 1 - right), (left + 1, right)):
            np.add.at(kernels, (image, row, column), row_share * column_share)
    return kernels / kernels.sum(axis=(1, 2), keepdims=True)


@lru_cache(maxsize=16)
def disc_kernel(radius_px: float) -> Kernels:
    """Return the kernel `[1 k k]` of an ideal lens out of focus: a disc.

    Pentland 1987, "A new sense for depth of field".
    Each pixel weighs as much as the share of it that lies within the disc, by 16 x 16 points.

    Args:
        radius_px: > 0.
    """
    reach = int(np.ceil(radius_px))
    side = 2 * reach + 1
    points = (np.arange(side * _SAMPLES_PER_PX) + 0.5) / _SAMPLES_PER_PX - 0.5 - reach
    inside = points[:, None] ** 2 + points[None, :] ** 2 <= radius_px**2
    covered = inside.reshape(side, _SAMPLES_PER_PX, side, _SAMPLES_PER_PX).mean(axis=(1, 3))
    kernel = (covered / covered.sum())[None]
    kernel.setflags(write=False)  # shared by every caller through the cache
    return kernel


def with_margin(images: Pixels, margin_px: int) -> Pixels:
    """Extend `[b h w c]` by pixels at each side, mirrored with the edge pixel repeated."""
    if margin_px == 0:
        return images
    sides = ((0, 0), (margin_px, margin_px), (margin_px, margin_px), (0, 0))
    return np.pad(images, sides, mode="symmetric")


def convolved(images: Pixels, kernels: Kernels) -> npt.NDArray[np.float64]:
    """Convolve each image with its kernel, where the kernel lies inside.

    Args:
        images: `[b h w c]`, 8-bit.
        kernels: `[b k k]`, or `[1 k k]` for all.

    Returns:
        `[b h-k+1 w-k+1 c]` in 8-bit levels, not rounded.
    """
    from scipy.signal import fftconvolve  # here: half a second that other tasks need not spend

    return fftconvolve(images.astype(np.float64), kernels[..., None], mode="valid", axes=(1, 2))
