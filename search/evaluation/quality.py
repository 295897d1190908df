"""How good a restored image is: PSNR and SSIM by the conventions of the field.

Super-resolution is scored on luma Y with a border of `upscale` pixels taken off, restoration on RGB and
on the whole image; both after rounding to 8 bits. Luma networks (one channel) are scored on that channel.

Luma is rounded to 8 bits too, as MATLAB's `rgb2ycbcr` does with 8-bit images: the published tables were
made so. Code that leaves it unrounded reports up to 0.03 dB more at 34 dB (measured on Set5, x2).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from torch import Tensor

from search.counts import count
from search.tasks.colour import luma_uint8
from search.tasks.images import Pixels
from search.tasks.pairs import TaskData
from search.tasks.resize import bicubic_up, round_to_uint8
from search.types import DivergedError, InputError

PSNR_CAP_DB = 100.0
"""Reported for identical images, whose PSNR is infinite: JSON has no infinity. One level of error in one
of a million pixels is 108 dB, so values are capped there as well."""

_SSIM_WINDOW = 11


class Convention(NamedTuple):
    """Which pixels are compared, and of which channels."""

    border_px: int
    """Taken off at each side first."""
    luma: bool
    """BT.601 luma of colour images, otherwise all channels."""


class Quality(NamedTuple):
    """The two figures of one image, or their means over several."""

    psnr_db: float
    ssim: float


def psnr_db(first: Pixels, second: Pixels, *, border: int = 0, luma: bool) -> float:
    """Peak signal-to-noise ratio, peak 255, in dB; at most `PSNR_CAP_DB`.

    Args:
        first: `[h w c]`, 8-bit, c = 3 or 1.
        second: The same shape.
        border: Pixels taken off at each side first, >= 0.
        luma: Compare BT.601 luma (grey counts as RGB with equal channels), otherwise all channels.

    Raises:
        InputError: If the shapes or types differ, or the border leaves nothing.
    """
    a, b = _compared(first, second, border, luma)
    mse = float(np.mean((a - b) ** 2))
    return PSNR_CAP_DB if mse == 0 else min(float(10 * np.log10(255.0**2 / mse)), PSNR_CAP_DB)


def ssim(first: Pixels, second: Pixels, *, border: int = 0, luma: bool) -> float:
    """Structural similarity (Wang et al. 2004), 1 for identical images.

    Gaussian window of 11 x 11 pixels with sigma 1.5, K1 = 0.01, K2 = 0.03, averaged over the positions
    where the window lies inside; on luma, or as the mean over the channels.

    Args:
        first: `[h w c]`, 8-bit, c = 3 or 1.
        second: The same shape.
        border: Pixels taken off at each side first, >= 0.
        luma: Compare BT.601 luma, otherwise all channels.

    Raises:
        InputError: If the shapes or types differ, or fewer than 11 x 11 pixels are left.
    """
    from skimage.metrics import structural_similarity  # here: a slow import that PSNR does not need

    a, b = _compared(first, second, border, luma)
    if min(a.shape[:2]) < _SSIM_WINDOW:
        raise InputError(
            f"ssim: {a.shape[1]} x {a.shape[0]} px are left after a border of {border} px is cropped. "
            f"At least {_SSIM_WINDOW} x {_SSIM_WINDOW} px are needed: use a larger image."
        )
    similarity: Any = structural_similarity(
        a,
        b,
        data_range=255.0,
        gaussian_weights=True,
        sigma=1.5,
        use_sample_covariance=False,
        K1=0.01,
        K2=0.03,
        channel_axis=-1,
    )
    return float(similarity)


def convention(*, upscale: int, channels: int, rgb: bool = False) -> Convention:
    """Return how images of a task are scored.

    Args:
        upscale: Above 1: `upscale` pixels of border are taken off, and colour is scored on luma. 1: whole images, all
            channels.
        channels: 3, or 1 for luma, which is compared as it is.
        rgb: Score colour on all channels though the task enlarges.
    """
    enlarges = upscale > 1
    return Convention(upscale if enlarges else 0, enlarges and channels == 3 and not rgb)


def score(restored: npt.NDArray[np.floating] | Tensor, clean: Pixels, *, upscale: int, rgb: bool = False) -> Quality:
    """Score a network's output against the clean image, by the convention of its task.

    Args:
        restored: `[h w c]`, on the scale 0 .. 1; clipped and rounded to 8 bits here.
        clean: `[h w c]`, 8-bit. With one channel it is luma already and compared as it is.
        upscale: As in `convention`.
        rgb: As in `convention`.

    Raises:
        EvaluationError: If the output holds NaN or infinity: the network diverged.
        InputError: If the shapes differ, or the image is too small for SSIM.
    """
    pixels = to_uint8(restored)
    border, luma = convention(upscale=upscale, channels=clean.shape[-1], rgb=rgb)
    return Quality(psnr_db(pixels, clean, border=border, luma=luma), ssim(pixels, clean, border=border, luma=luma))


def mean_quality(qualities: Sequence[Quality]) -> Quality:
    """Return the means over several images, at least one."""
    count = len(qualities)
    return Quality(sum(q.psnr_db for q in qualities) / count, sum(q.ssim for q in qualities) / count)


def to_uint8(levels: npt.NDArray[np.floating] | Tensor) -> Pixels:
    """Turn an array or tensor on the scale 0 .. 1 into 8-bit levels: clipped, halves rounded upwards.

    Raises:
        DivergedError: If it holds NaN or infinity.
    """
    array = levels.detach().float().cpu().numpy() if isinstance(levels, Tensor) else levels
    broken = int(np.size(array) - np.count_nonzero(np.isfinite(array)))
    if broken:
        raise DivergedError(
            f"the restored image holds {count(broken, 'value')} not finite. A network's output must be "
            "finite to be scored: its training diverged; lower the learning rate or clip gradients."
        )
    return round_to_uint8(array.astype(np.float64) * 255.0)


def bicubic_baseline(data: TaskData) -> list[Quality]:
    """Score what costs nothing: bicubic enlargement for super-resolution, else the input as it is.

    Returns:
        One entry for each validation photograph, in their order.
    """
    return [score(untrained(p.degraded, data.upscale), p.clean, upscale=data.upscale) for p in data.validation]


def untrained(degraded: npt.NDArray[np.float32], upscale: int) -> npt.NDArray[np.floating]:
    """Return what costs nothing, on the scale 0 .. 1: the bicubic enlargement, 8-bit; at `upscale` 1 the input."""
    return degraded if upscale == 1 else bicubic_up(to_uint8(degraded), upscale) / 255.0


def _compared(
    first: Pixels, second: Pixels, border: int, luma: bool
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Check both images and bring them to `[h w c]` float64 without the border."""
    if first.shape != second.shape or first.ndim != 3 or first.dtype != np.uint8 or second.dtype != np.uint8:
        raise InputError(
            f"quality: cannot compare {first.dtype} {first.shape} with {second.dtype} {second.shape}. "
            "Both images must be uint8 [h w c] of one shape: convert or crop them first."
        )
    height, width = first.shape[:2]
    if border < 0 or min(height, width) <= 2 * border:
        raise InputError(
            f"quality: a border of {border} px cannot be taken off {width} x {height} px. "
            "It must be at least 0 and leave a pixel: use a larger image."
        )
    inner = (slice(border, height - border), slice(border, width - border))
    a, b = first[inner], second[inner]
    if luma:
        a, b = luma_uint8(a), luma_uint8(b)
    return a.astype(np.float64), b.astype(np.float64)
