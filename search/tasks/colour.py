"""Luma, the one channel that super-resolution is scored on."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from search.tasks.resize import round_to_uint8
from search.types import InputError

_BT601 = np.array([65.481, 128.553, 24.966]) / 255.0
"""Studio swing: white (255, 255, 255) has Y = 16 + 219 = 235. Same figures as MATLAB's `rgb2ycbcr`."""


def rgb_to_y(rgb: npt.NDArray[np.floating | np.integer]) -> npt.NDArray[np.float64]:
    """Take the luma Y of ITU-R BT.601, studio swing, unrounded.

    A grey image (one channel) counts as RGB with three equal channels, so its Y is `16 + 219/255 * grey`
    and not `grey`. The customary figures of Set14, which holds four grey images, depend on this.

    Args:
        rgb: `[... 3]` or `[... 1]`, in 0 .. 255.

    Returns:
        `[...]`, float64, in 16 .. 235.

    Raises:
        InputError: If the last axis holds neither 3 channels nor 1.
    """
    channels = rgb.shape[-1] if rgb.ndim else 0
    if channels == 1:
        return 16.0 + _BT601.sum() * rgb[..., 0].astype(np.float64)
    if channels != 3:
        raise InputError(
            f"rgb_to_y: an array of shape {rgb.shape} has {channels} channels in its last axis. "
            "Luma is taken of 3 channels (RGB) or 1 (grey): drop alpha, or move the channels last."
        )
    return 16.0 + rgb.astype(np.float64) @ _BT601


def luma_uint8(pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Turn `[h w 3]` or grey `[h w 1]` pixels into their luma image `[h w 1]`, rounded, in 16 .. 235."""
    return round_to_uint8(rgb_to_y(pixels))[..., None]
