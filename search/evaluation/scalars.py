"""The course of a candidate's training as TensorBoard scalars. TensorBoard is optional, and loaded only when used."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Self

from torch import Tensor

from search.types import InputError, Measurement

EVERY = 10
"""Steps between two records; only then is the loss fetched from the device."""


def require_tensorboard() -> None:
    """Load TensorBoard's writer, so that a missing package is noticed before anything is spent.

    Raises:
        InputError: If it cannot be imported.
    """
    try:
        import torch.utils.tensorboard  # noqa: F401
    except ImportError as error:
        raise InputError(
            f"--tensorboard needs the package tensorboard, which cannot be imported ({error}).\n"
            "  Install it: pip install 'hfir-search[tensorboard]'."
        ) from error


class Scalars:
    """Writes what a training shows into a folder; a context manager, which closes the file.

    A training that was broken off between two rungs repeats its steps: TensorBoard is told to forget what an earlier
    file of the folder says of the steps from here on.

    Args:
        folder: Where the event file goes; made where it is missing.
        after: Steps that were trained before.
        batch: Patches in a step.
    """

    def __init__(self, folder: Path, *, after: int, batch: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(folder), purge_step=after + 1)
        self._batch = batch
        self._step, self._time = after, time.perf_counter()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._writer.close()

    def show_step(self, step: int, loss: Tensor, rate: float) -> None:
        """Record every tenth step: its loss, its rate, and patches a second since the record before."""
        if step % EVERY:
            return
        self._writer.add_scalar("train/loss", float(loss), step)
        self._writer.add_scalar("train/learning_rate", rate, step)
        now = time.perf_counter()
        self._writer.add_scalar("train/images_per_s", (step - self._step) * self._batch / (now - self._time), step)
        self._step, self._time = step, now

    def show_rung(self, measurement: Measurement) -> None:
        """Record what the validation photographs showed at a rung."""
        self._writer.add_scalar("validation/psnr_db", measurement.psnr_db, measurement.step)
        self._writer.add_scalar("validation/ssim", measurement.ssim, measurement.step)
