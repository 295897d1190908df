"""The records of a task: what is trained on, what is validated on, and how they are made from photographs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePath

import numpy as np

from search.tasks.colour import luma_uint8
from search.tasks.degradations import Degradation, Levels, Mixed, by_label, degrade_photo
from search.tasks.images import Photo, Pixels
from search.types import InputError


@dataclass(frozen=True, slots=True)
class TrainPhoto:
    """A photograph to cut patches from; both arrays are 8-bit and stay in memory.

    In a mixed task each photograph is there once for each degradation; its forms share the clean array.
    """

    name: str
    clean: Pixels
    """`[H W c]`."""
    prepared: Pixels
    """`[h w c]`: the fixed part of the degradation is done, noise is not (`Degradation.prepare`)."""
    digest: str
    """Digest of the photograph as read, before any cropping."""
    label: int | None = None
    """Which of a mixed task's degradations it has: an index into `TaskData.labels`."""
    degraded_digest: str = ""
    """Digest of its degraded form as read, where that was given as a file."""


@dataclass(frozen=True, slots=True)
class Pair:
    """A validation photograph, clean and as the network gets it."""

    name: str
    clean: Pixels
    """`[H W c]`, 8-bit."""
    degraded: Levels
    """`[h w c]`, float32, 0 .. 1 but for noise."""
    label: int | None = None
    """Which of a mixed task's degradations it has: an index into `TaskData.labels`."""
    digest: str = ""
    """Digest of the clean photograph as read, before any cropping."""
    photo: str = ""
    """The photograph's file, where `name` says more than that."""
    skill: int | None = None
    """The expert that should undo its degradation: an index into `search.tasks.members.SKILLS`."""
    degraded_digest: str = ""
    """Digest of its degraded form as read, where that was given as a file."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskData:
    """All data of one task. `H = upscale * h` and `W = upscale * w` in every pair."""

    degradation: Degradation | Mixed | None
    """None where the degraded images were given as files."""
    upscale: int
    channels: int
    """3 for RGB, 1 for luma Y (BT.601, 16 .. 235)."""
    train: tuple[TrainPhoto, ...]
    validation: tuple[Pair, ...]
    notes: tuple[str, ...] = ()
    """One line for each thing that was left out or changed; to be logged by the caller."""
    storage: str = ""
    """Where this process has the arrays from, in words; empty where it built them itself."""

    @property
    def labels(self) -> tuple[str, ...]:
        """The names of the degradations that patches and pairs are labelled with; none but in a mixed task."""
        return self.degradation.names if isinstance(self.degradation, Mixed) else ()

    @property
    def skills(self) -> tuple[int, ...]:
        """For each label the expert that should undo it, an index into `search.tasks.members.SKILLS`."""
        return self.degradation.skills if isinstance(self.degradation, Mixed) else ()

    @property
    def train_images(self) -> int:
        """Photographs to train on, each counted once in however many forms it is there."""
        return len({photo.digest for photo in self.train})


def check_options(channels: int, upscale: int, limit_px: int | None) -> None:
    """Refuse what no task can be built with.

    Args:
        channels: 3 for RGB, 1 for luma.
        upscale: At least 1.
        limit_px: Longest side of a validation photograph, at least `min_side_px(upscale)`; None for any.

    Raises:
        InputError: If one of them is out of its range.
    """
    if channels not in (1, 3):
        raise InputError(
            f"channels = {channels} cannot be loaded. "
            "A task works on 3 channels (RGB) or on 1 (luma Y): choose one of the two."
        )
    if upscale < 1:
        raise InputError(f"upscale = {upscale} cannot be used. It must be at least 1: give the true ratio.")
    if limit_px is not None and limit_px < min_side_px(upscale):
        raise InputError(
            f"max_validation_px = {limit_px} is too small to score. "
            f"It must be at least {min_side_px(upscale)} at upscale {upscale}: raise it."
        )


def min_side_px(upscale: int) -> int:
    """The shortest side a clean photograph may have: 32 px, and 16 px of network input.

    SSIM needs 11 px beside the cropped border.
    """
    return max(32, 16 * upscale)


def centre_crop(pixels: Pixels, *, multiple: int, limit_px: int | None = None) -> Pixels:
    """Crop to sides that are multiples of `multiple`, and to the centre where a side exceeds `limit_px`.

    Only a side above the limit is cut around its centre; otherwise the rows and columns that do not fill
    a multiple are taken off below and at the right, as is usual for benchmarks.
    """
    height, width = (_fit(side, multiple, limit_px) for side in pixels.shape[:2])
    top, left = (
        (full - kept) // 2 // multiple * multiple for full, kept in zip(pixels.shape[:2], (height, width), strict=True)
    )
    return np.ascontiguousarray(pixels[top : top + height, left : left + width])


def _fit(side: int, multiple: int, limit_px: int | None) -> int:
    kept = side if limit_px is None else min(side, limit_px)
    return max(kept // multiple, 1) * multiple


def in_channels(pixels: Pixels, channels: int) -> Pixels:
    """Give `[h w 3]` pixels in the task's channels: as they are, or as luma `[h w 1]`."""
    return pixels if channels == 3 else luma_uint8(pixels)


def train_forms(photo: Photo, degradation: Degradation | Mixed, channels: int) -> list[TrainPhoto]:
    """Prepare one photograph for training, once for each degradation: the fixed part of each is computed here."""
    clean = in_channels(centre_crop(photo.pixels, multiple=degradation.upscale), channels)
    return [
        TrainPhoto(photo.name, clean, part.prepare(clean), photo.digest, label)
        for label, part in by_label(degradation).items()
    ]


def validation_pairs(
    photo: Photo, degradation: Degradation | Mixed, channels: int, seed: int, limit_px: int | None
) -> list[Pair]:
    """Degrade one photograph for validation, once by each degradation.

    Its noise depends on the seed and the picture alone. A pair with a label bears the degradation's name, too:
    `chelsea (denoise)`.
    """
    cropped = centre_crop(photo.pixels, multiple=degradation.upscale, limit_px=limit_px)
    clean = in_channels(cropped, channels)
    entropy = np.random.SeedSequence([seed, int(photo.digest, 16)]).generate_state(1, np.uint64)
    names, skills = (degradation.names, degradation.skills) if isinstance(degradation, Mixed) else ((), ())
    return [
        Pair(
            _pair_name(photo.name, names, label),
            clean,
            degrade_photo(part, clean, int(entropy[0])),
            label,
            photo.digest,
            photo.name,
            None if label is None else skills[label],
        )
        for label, part in by_label(degradation).items()
    ]


def _pair_name(photo: str, names: Sequence[str], label: int | None) -> str:
    return photo if label is None else f"{PurePath(photo).stem} ({names[label]})"


def crop_notes(photos: Sequence[Photo], limit_px: int | None) -> list[str]:
    """One line for each validation photograph that is cropped to its centre."""
    if limit_px is None:
        return []
    return [
        f"{p.name}: {p.pixels.shape[1]} x {p.pixels.shape[0]} px, validated on its centre of "
        f"at most {limit_px} px a side"
        for p in photos
        if max(p.pixels.shape[:2]) > limit_px
    ]
