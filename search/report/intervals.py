"""Intervals over the choice of validation images, by the paired bootstrap.

The images are drawn again with replacement, the same draw for all candidates (Efron, "Bootstrap methods: another look
at the jackknife", 1979; percentile intervals). What differs between images but not between candidates cancels in
differences. It covers which images were chosen, not training seeds, and with fewer than about ten images it is
narrower than it says.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from search.pareto import Floats
from search.types import Measurement

RESAMPLES = 2000
SEED = 0
FEW_IMAGES = 10
"""Fewer images than this make an interval that is too narrow to lean on."""


@dataclass(frozen=True, slots=True)
class Interval:
    """A 95 % interval, in the unit of what it is an interval of."""

    low: float
    high: float

    def signed(self) -> str:
        """Return both ends with their signs, two decimals each: `+0.50 … +2.50`."""
        return f"{self.low:+.2f} … {self.high:+.2f}"

    @property
    def holds_zero(self) -> bool:
        """Whether zero lies within: a difference whose sign is not known."""
        return self.low <= 0.0 <= self.high


def draws(images: int, *, resamples: int = RESAMPLES, seed: int = SEED) -> NDArray[np.int64]:
    """Return which images each resample holds, [resamples, images]; the same for the same arguments."""
    return np.random.default_rng(seed).integers(images, size=(resamples, images))


def per_image_table(measurements: Sequence[Measurement]) -> Floats | None:
    """Return the PSNR in dB of each image and measurement, [images, measurements].

    None where no interval can be had: fewer than two images, a differing number of them, or a figure that is not
    finite.
    """
    rows = [m.psnr_per_image_db for m in measurements]
    if not rows or len({len(row) for row in rows}) != 1 or len(rows[0]) < 2:
        return None
    table = np.array(rows, dtype=np.float64).T
    return table if np.isfinite(table).all() else None


def resampled_means(per_image: Floats, picks: NDArray[np.int64]) -> Floats:
    """Return the means over the images of each resample.

    Args:
        per_image: [images, n].
        picks: [resamples, images], of `draws`.

    Returns:
        [resamples, n].
    """
    return per_image[picks].mean(axis=1)


def interval_of(resampled: Floats) -> Interval:
    """Return the middle 95 % of resampled figures [resamples]."""
    low, high = np.percentile(resampled, [2.5, 97.5])
    return Interval(float(low), float(high))


def difference(one: Sequence[float], other: Sequence[float]) -> Interval | None:
    """Return the interval of the mean difference, `other` less `one`, image by image, in their unit.

    None where no interval can be had: fewer than two images, or a figure that is not finite.

    Raises:
        ValueError: If the two are not of one length.
    """
    differences = np.array([b - a for a, b in zip(one, other, strict=True)], dtype=np.float64)
    if len(differences) < 2 or not np.isfinite(differences).all():
        return None
    return interval_of(resampled_means(differences[:, None], draws(len(differences)))[:, 0])


def difference_db(one: Measurement, other: Measurement) -> Interval | None:
    """Return the interval of a PSNR difference in dB, `other` less `one`, image by image; None where there is none."""
    table = per_image_table([one, other])
    return None if table is None else difference(table[:, 0].tolist(), table[:, 1].tolist())
