"""Losses and speed of the steps since the last validation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from search.types import EvaluationError


class StepFigures(NamedTuple):
    """What a step shows, as scalars on its device."""

    loss: Tensor
    watched: Tensor
    """The sum of all that must stay finite: losses, gradient norms."""


class Pace:
    """Sums over steps; they stay on their device until they are asked for, so that no step waits for them."""

    def __init__(self) -> None:
        self._sums: Tensor | None = None
        self._steps = self._images = 0
        self._seconds = 0.0

    def add(self, figures: StepFigures, images: int, seconds: float) -> None:
        """Take in a step: its figures, its patches, its time."""
        step = torch.stack(figures)
        self._sums = step if self._sums is None else self._sums + step
        self._steps, self._images, self._seconds = self._steps + 1, self._images + images, self._seconds + seconds

    @property
    def loss(self) -> float | None:
        """The mean loss; None before the first step."""
        return None if self._sums is None else float(self._sums[0]) / self._steps

    @property
    def images_per_s(self) -> float | None:
        """Patches trained on a second; None before the first step."""
        return self._images / self._seconds if self._seconds else None

    def check_finite(self, step: int, rate: float) -> None:
        """Refuse to go on, or to write anything, after a loss or a gradient that was not finite.

        Raises:
            EvaluationError: If there was one.
        """
        if self._sums is not None and not bool(torch.isfinite(self._sums).all()):
            raise EvaluationError(
                f"training diverged before step {step}: a loss or a gradient is not finite, at a rate of {rate:g}.\n"
                "  The checkpoint is from before. Lower learning_rate or gradient_clip, and train in another folder."
            )

    def state(self) -> dict[str, Any]:
        """Return everything that going on needs."""
        return {"sums": self._sums, "steps": self._steps, "images": self._images, "seconds": self._seconds}

    def resume(self, state: Mapping[str, Any]) -> None:
        """Take up the sums from what `state` returned."""
        self._sums, self._steps = state["sums"], state["steps"]
        self._images, self._seconds = state["images"], state["seconds"]
