"""Bicubic resizing as MATLAB's `imresize` does it, which is what the super-resolution field measures by.

Cubic convolution with a = -0.5 (Keys 1981). When shrinking, the kernel is stretched by the inverse
scale, which is the antialiasing filter; borders are mirrored with the edge pixel repeated
(`c b a | a b c`). Pillow, OpenCV and torch differ in one of the three, by up to several dB.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from search.types import InputError

_KERNEL_SUPPORT = 4.0
"""Width of the unstretched cubic kernel, in input pixels."""


class Taps(NamedTuple):
    """How each output pixel of one axis is mixed: `out[i] = sum_p weights[i, p] * image[indices[i, p]]`."""

    indices: npt.NDArray[np.intp]
    weights: npt.NDArray[np.float64]


def cubic(distance: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Keys' cubic kernel, a = -0.5, at a distance in pixels; 0 beyond two pixels."""
    x = np.abs(distance)
    near = 1.5 * x**3 - 2.5 * x**2 + 1.0
    far = -0.5 * x**3 + 2.5 * x**2 - 4.0 * x + 2.0
    return np.where(x <= 1.0, near, np.where(x <= 2.0, far, 0.0))


@lru_cache(maxsize=256)
def axis_taps(in_length: int, out_length: int, scale: float) -> Taps:
    """Work out indices and weights of one axis; each row of weights sums to 1.

    Args:
        in_length: Pixels before, >= 1.
        out_length: Pixels after, >= 1.
        scale: Output pixels per input pixel, > 0; below 1 the kernel is stretched by `1 / scale`.
    """
    stretch = min(scale, 1.0)
    support = _KERNEL_SUPPORT / stretch
    # Centres of the output pixels on the input's axis, where input pixel i has its centre at i.
    centres = (np.arange(out_length, dtype=np.float64) + 0.5) / scale - 0.5
    first = np.floor(centres - support / 2)
    positions = first[:, None] + np.arange(int(np.ceil(support)) + 2)
    weights = stretch * cubic(stretch * (centres[:, None] - positions))
    weights /= weights.sum(axis=1, keepdims=True)
    used = np.any(weights != 0.0, axis=0)
    taps = Taps(mirrored(positions[:, used].astype(np.intp), in_length), weights[:, used])
    for array in taps:  # shared by every caller through the cache
        array.setflags(write=False)
    return taps


def mirrored(positions: npt.NDArray[np.intp], length: int) -> npt.NDArray[np.intp]:
    """Fold any position back into `0 .. length - 1`, the edge pixel repeated."""
    folded = positions % (2 * length)
    return np.where(folded < length, folded, 2 * length - 1 - folded)


def _resize_rows(image: npt.NDArray[np.float64], taps: Taps) -> npt.NDArray[np.float64]:
    """Mix along the first axis, tap by tap: few large passes instead of a dense matrix product."""
    out = np.zeros((taps.indices.shape[0], *image.shape[1:]), dtype=np.float64)
    term = np.empty_like(out)
    for index, weight in zip(taps.indices.T, taps.weights.T, strict=True):
        np.multiply(image[index], weight[:, None, None], out=term)
        out += term
    return out


def imresize(
    image: npt.NDArray[np.floating], out_h: int, out_w: int, *, scale: float | None = None
) -> npt.NDArray[np.float64]:
    """Resize as MATLAB's `imresize(image, scale, 'bicubic')`, without its rounding.

    Args:
        image: `[h w c]`, any range; the result may overshoot that range, as bicubic does.
        out_h: Height of the result in pixels, >= 1.
        out_w: Width of the result in pixels, >= 1.
        scale: Output pixels per input pixel; by default the ratio of the lengths, axis by axis. Give it
            where the output length was rounded, as `imresize` with a scale does.

    Returns:
        `[out_h out_w c]`, float64.

    Raises:
        InputError: If the image is not `[h w c]`, is empty, or a size or the scale is not positive.
    """
    if image.ndim != 3 or 0 in image.shape:
        raise InputError(
            f"imresize: the image has shape {image.shape}. It must be [h w c] with no empty axis: "
            "add a channel axis to a grey image."
        )
    if out_h < 1 or out_w < 1 or (scale is not None and not scale > 0):
        raise InputError(
            f"imresize: cannot make {out_h} x {out_w} pixels at scale {scale}. "
            "Lengths must be at least 1 and the scale above 0: check the size of the image."
        )
    height, width = image.shape[:2]
    rows = axis_taps(height, out_h, scale or out_h / height)
    columns = axis_taps(width, out_w, scale or out_w / width)
    tall = _resize_rows(np.asarray(image, dtype=np.float64), rows)
    return np.ascontiguousarray(_resize_rows(tall.swapaxes(0, 1), columns).swapaxes(0, 1))


def round_to_uint8(levels: npt.NDArray[np.floating]) -> npt.NDArray[np.uint8]:
    """Round 8-bit levels as MATLAB does, halves upwards, and clip to 0 .. 255."""
    return np.clip(np.floor(levels + 0.5), 0, 255).astype(np.uint8)


def bicubic_down(image: npt.NDArray[np.uint8], scale: int) -> npt.NDArray[np.uint8]:
    """Shrink `[h w c]` by a whole factor to `[h/scale w/scale c]`, rounded to 8 bits.

    Raises:
        InputError: If a side is not a multiple of `scale`, or `scale` is below 1.
    """
    height, width = image.shape[:2]
    if scale < 1 or height % scale or width % scale:
        raise InputError(
            f"bicubic_down: {width} x {height} pixels do not divide by the scale {scale}. "
            "Both sides must be multiples of a scale of at least 1: crop the image first."
        )
    return round_to_uint8(imresize(image.astype(np.float64), height // scale, width // scale))


def bicubic_up(image: npt.NDArray[np.uint8], scale: int) -> npt.NDArray[np.uint8]:
    """Enlarge `[h w c]` by a whole factor to `[h*scale w*scale c]`, rounded to 8 bits.

    Raises:
        InputError: If `scale` is below 1.
    """
    height, width = image.shape[:2]
    return round_to_uint8(imresize(image.astype(np.float64), height * scale, width * scale))
