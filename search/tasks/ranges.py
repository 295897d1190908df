"""The range of each number that a task takes: for experiment files and for the degradations alike. Loads nothing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple


class Range(NamedTuple):
    """Numbers from `low` to `high`, both included."""

    low: float
    high: float

    def __str__(self) -> str:
        return f"{_plain(self.low)}..{_plain(self.high)}"


RANGES: Mapping[str, Range] = {
    "upscale": Range(2, 4),
    "sigma": Range(0.1, 100),
    "peak": Range(0.1, 1e6),
    "blur_sigma_px": Range(0.1, 8),
    "length_px": Range(1, 64),
    "angle_deg": Range(-180, 180),
    "radius_px": Range(0.75, 32),
    "noise_sigma": Range(0, 100),
    "quality": Range(1, 95),
}
"""By the option's name."""


def _plain(value: float) -> str:
    return str(int(value)) if value == int(value) else str(value)
