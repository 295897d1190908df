"""The data of a task: embedded photographs, a folder, folders of pairs, or a data set of a known layout.

This is the module to import from; records, patches and reading live beside it.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np

from search.files import shown
from search.tasks.degradations import Degradation, Mixed, to_levels
from search.tasks.embedded import embedded_photos
from search.tasks.images import Photo, load_folder
from search.tasks.layouts import Found, find, recognised
from search.tasks.leaks import refuse_leaks
from search.tasks.matching import PhotoPair, matched_folders, read_pairs
from search.tasks.pairs import (
    Pair,
    TaskData,
    TrainPhoto,
    centre_crop,
    check_options,
    crop_notes,
    in_channels,
    min_side_px,
    train_forms,
    validation_pairs,
)
from search.tasks.patches import Batch, PatchSampler
from search.types import InputError

__all__ = [
    "MAX_VALIDATION_PX",
    "Batch",
    "Pair",
    "PatchSampler",
    "TaskData",
    "TrainPhoto",
    "embedded_task",
    "folder_task",
    "layout_task",
    "paired_photos",
    "paired_task",
]

MAX_VALIDATION_PX = 512
"""Validation photographs are cropped to this many pixels a side, so that a rung's check stays short."""

_VALIDATION_SHARE = 5
_VALIDATION_MOST = 8


def embedded_task(
    degradation: Degradation | Mixed,
    channels: int,
    seed: int,
    *,
    max_validation_px: int | None = MAX_VALIDATION_PX,
) -> TaskData:
    """Build a task from the photographs in the wheels of scikit-image and scikit-learn; no download.

    Args:
        degradation: What the network has to undo.
        channels: 3 for RGB, 1 for luma.
        seed: Draws the noise of the validation photographs, >= 0.
        max_validation_px: Longest side of a validation photograph; None for whole photographs.

    Raises:
        InputError: If a photograph is missing from its wheel, or `channels` is neither 3 nor 1.
    """
    train, validation = embedded_photos()
    return _degraded_task(degradation, list(train), list(validation), channels, seed, max_validation_px, [])


def folder_task(
    degradation: Degradation | Mixed,
    folder: Path,
    channels: int,
    seed: int,
    validation: Path | None = None,
    *,
    max_validation_px: int | None = MAX_VALIDATION_PX,
) -> TaskData:
    """Build a task from a folder of clean photographs.

    Without a folder for validation, a fifth of the photographs (at least 1, at most 8) is held out: those
    with the smallest content digests. So the split depends on the pictures alone, neither on their names
    nor on the seed, and a new photograph moves at most one or two others.

    Args:
        degradation: What the network has to undo.
        folder: Clean photographs.
        channels: 3 for RGB, 1 for luma.
        seed: Draws the noise of the validation photographs, >= 0.
        validation: Another folder to validate on, of other pictures.
        max_validation_px: Longest side of a validation photograph; None for whole photographs.

    Raises:
        InputError: If a folder holds no usable image, fewer than two photographs are there to be
            split, or a picture is in both folders.
    """
    min_side = min_side_px(degradation.upscale)
    photos, lines = load_folder(folder, min_side=min_side)
    if validation is None:
        train, held_out = _split(photos, folder)
    else:
        held_out, more = load_folder(validation, min_side=min_side)
        train, lines = photos, lines + more
        refuse_leaks(train, held_out, (shown(folder), shown(validation)))
    return _degraded_task(degradation, train, held_out, channels, seed, max_validation_px, lines)


def paired_task(
    train_clean: Path,
    train_degraded: Path,
    validation_clean: Path,
    validation_degraded: Path,
    upscale: int,
    channels: int,
    *,
    max_validation_px: int | None = MAX_VALIDATION_PX,
) -> TaskData:
    """Build a task from clean photographs and their degraded forms, given as files.

    `search.tasks.matching.matched_folders` says which files are a pair.

    Args:
        train_clean: Folder of clean photographs to train on.
        train_degraded: Their degraded forms.
        validation_clean: Folder of clean photographs to validate on.
        validation_degraded: Their degraded forms.
        upscale: Sides of the clean over sides of the degraded photograph, >= 1.
        channels: 3 for RGB, 1 for luma.
        max_validation_px: Longest side of a validation photograph; None for whole photographs.

    Raises:
        InputError: If a folder holds no usable image or no pair, or a picture is in both clean folders.
    """
    check_options(channels, upscale, max_validation_px)
    train, notes = matched_folders(train_clean, train_degraded, upscale)
    held_out, more = matched_folders(validation_clean, validation_degraded, upscale)
    places = shown(train_clean), shown(validation_clean)
    return _given_task(train, held_out, places, upscale, channels, max_validation_px, [*notes, *more])


def layout_task(
    layout: str | None,
    root: Path,
    kind: str,
    degradation: Degradation | Mixed,
    channels: int,
    seed: int,
    *,
    max_validation_px: int | None = MAX_VALIDATION_PX,
) -> TaskData:
    """Build a task from a data set of a known layout; what was recognised is the first of its notes.

    Args:
        layout: A name in `search.tasks.layouts.LAYOUTS`; None where the folder shows which it is.
        root: The data set's folder.
        kind: Of the task.
        degradation: What the network has to undo, where the data set holds no degraded forms for it.
        channels: 3 for RGB, 1 for luma.
        seed: Draws the noise of the validation photographs, >= 0.
        max_validation_px: Longest side of a validation photograph; None for whole photographs.

    Raises:
        InputError: If the folder does not have the layout, or its photographs cannot be used.
    """
    upscale = degradation.upscale
    check_options(channels, upscale, max_validation_px)
    named = layout or recognised(root)
    if named is None:
        raise InputError(
            f"{shown(root)}: shows no known layout. Name the folder that holds the photographs themselves."
        )
    found = find(named, root, kind, upscale)
    if found.clean is None:
        data = _listed_task(found, root, upscale, channels, max_validation_px)
    elif found.degraded is None:
        train, validation = found.clean
        data = folder_task(degradation, train, channels, seed, validation, max_validation_px=max_validation_px)
    else:
        (train, validation), (small, small_validation) = found.clean, found.degraded
        folders = train, small, validation, small_validation
        data = paired_task(*folders, upscale, channels, max_validation_px=max_validation_px)
    return dataclasses.replace(data, notes=(*found.notes, *data.notes))


def paired_photos(
    clean: Path, degraded: Path, upscale: int, channels: int, *, max_px: int | None = None
) -> tuple[list[Photo], list[Pair], list[str]]:
    """Return the clean photographs and the pairs of two folders to score on, and notes of what was left out.

    They are matched as `paired_task` does.

    Args:
        clean: Folder of clean photographs.
        degraded: Their degraded forms.
        upscale: Sides of the clean over sides of the degraded photograph, >= 1.
        channels: 3 for RGB, 1 for luma.
        max_px: Longest side that is kept of a clean photograph; None for whole photographs.

    Raises:
        InputError: If a folder holds no usable image, or there is no pair.
    """
    check_options(channels, upscale, max_px)
    matched, notes = matched_folders(clean, degraded, upscale)
    return [c for c, _ in matched], [_given_pair(c, d, upscale, channels, max_px) for c, d in matched], notes


def _listed_task(found: Found, root: Path, upscale: int, channels: int, limit_px: int | None) -> TaskData:
    """Train on the listed pairs, and validate on a few of those held out, spread evenly over them."""
    places = np.linspace(0, len(found.held_out) - 1, min(_VALIDATION_MOST, len(found.held_out)))
    chosen = [found.held_out[round(place)] for place in places]
    train, notes = read_pairs(found.train, root, upscale)
    held_out, more = read_pairs(chosen, root, upscale)
    left = len(found.held_out) - len(chosen)
    notes += (
        [f"{shown(root)}: {left} of the pairs held out are not used: {len(chosen)} are validated on"] if left else []
    )
    return _given_task(train, held_out, (shown(root), shown(root)), upscale, channels, limit_px, [*notes, *more])


def _given_task(
    train: list[PhotoPair],
    held_out: list[PhotoPair],
    places: tuple[str, str],
    upscale: int,
    channels: int,
    limit_px: int | None,
    notes: list[str],
) -> TaskData:
    clean_held_out = [clean for clean, _ in held_out]
    refuse_leaks([clean for clean, _ in train], clean_held_out, places)
    return TaskData(
        degradation=None,
        upscale=upscale,
        channels=channels,
        train=tuple(_given_train(c, d, channels) for c, d in train),
        validation=tuple(_given_pair(c, d, upscale, channels, limit_px) for c, d in held_out),
        notes=(*notes, *crop_notes(clean_held_out, limit_px)),
    )


def _degraded_task(
    degradation: Degradation | Mixed,
    train: list[Photo],
    held_out: list[Photo],
    channels: int,
    seed: int,
    limit_px: int | None,
    lines: list[str],
) -> TaskData:
    check_options(channels, degradation.upscale, limit_px)
    if seed < 0:
        raise InputError(f"seed = {seed} cannot be used. It must be at least 0: give a whole number.")
    cropped = crop_notes(held_out, limit_px)
    return TaskData(
        degradation=degradation,
        upscale=degradation.upscale,
        channels=channels,
        train=tuple(form for p in train for form in train_forms(p, degradation, channels)),
        validation=tuple(pair for p in held_out for pair in validation_pairs(p, degradation, channels, seed, limit_px)),
        notes=(*lines, *cropped),
    )


def _split(photos: list[Photo], folder: Path) -> tuple[list[Photo], list[Photo]]:
    """Divide into (train, validation), each in order of the names."""
    if len(photos) < 2:
        raise InputError(
            f"{shown(folder)}: one usable photograph cannot be both trained and validated on. "
            "At least two are needed: add photographs, or name a second folder for validation."
        )
    count = min(max(round(len(photos) / _VALIDATION_SHARE), 1), _VALIDATION_MOST)
    held_out = set(sorted(p.digest for p in photos)[:count])
    return [p for p in photos if p.digest not in held_out], [p for p in photos if p.digest in held_out]


def _given_train(clean: Photo, degraded: Photo, channels: int) -> TrainPhoto:
    pixels, prepared = in_channels(clean.pixels, channels), in_channels(degraded.pixels, channels)
    return TrainPhoto(clean.name, pixels, prepared, clean.digest, degraded_digest=degraded.digest)


def _given_pair(clean: Photo, degraded: Photo, upscale: int, channels: int, limit_px: int | None) -> Pair:
    """Crop both to the same place; the clean corner falls on a pixel border of the degraded one."""
    small_limit = None if limit_px is None else limit_px // upscale
    small = centre_crop(degraded.pixels, multiple=1, limit_px=small_limit)
    large = centre_crop(clean.pixels, multiple=upscale, limit_px=limit_px)
    levels = to_levels(in_channels(small, channels))
    pixels = in_channels(large, channels)
    return Pair(clean.name, pixels, levels, digest=clean.digest, degraded_digest=degraded.digest)
