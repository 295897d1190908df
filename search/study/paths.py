"""Where a run keeps the files of its trials."""

from __future__ import annotations

from pathlib import Path


def checkpoint_path(folder: Path, number: int) -> Path:
    """Return where a trial's training is kept."""
    return folder / "checkpoints" / f"{number:05d}.pt"


def replicate_path(folder: Path, number: int, place: int) -> Path:
    """Return where the training of a trial's further seed is kept, counted from 1."""
    return folder / "checkpoints" / f"{number:05d}-seed{place}.pt"


def scalars_path(folder: Path, number: int) -> Path:
    """Return where the TensorBoard scalars of a trial's training are kept."""
    return folder / "tensorboard" / f"trial-{number:04d}"


def reference_path(folder: Path, name: str, key: str) -> Path:
    """Return where the training of a reference is kept; `key` tells apart what bore its name before."""
    return folder / "checkpoints" / f"reference-{name}-{key}.pt"
