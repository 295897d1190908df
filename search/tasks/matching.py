"""Pairs of clean photographs and their degraded forms: read, matched by name, held against their sizes."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from pathlib import Path

from search.tasks.images import ImageProblem, Photo, load_folder, read_image
from search.tasks.layouts import FilePair
from search.tasks.pairs import min_side_px
from search.types import InputError

_SHOWN = 5

PhotoPair = tuple[Photo, Photo]
"""Clean, degraded."""


def matched_folders(clean_folder: Path, degraded_folder: Path, upscale: int) -> tuple[list[PhotoPair], list[str]]:
    """Read two folders and return their pairs, with one line for each thing that was left out.

    Two files are a pair when their names agree but for the suffix and an ending such as `x2` or `_LRx2`.

    Args:
        clean_folder: Clean photographs.
        degraded_folder: Their degraded forms.
        upscale: Sides of the clean over sides of the degraded photograph, >= 1.

    Raises:
        InputError: If a folder holds no usable image, or there is no pair.
    """
    clean, lines = load_folder(clean_folder, min_side=min_side_px(upscale))
    degraded, more = load_folder(degraded_folder, min_side=min_side_px(upscale) // upscale)
    lines += more
    partners, doubles = _by_key(degraded, upscale, degraded_folder)
    originals, more_doubles = _by_key(clean, upscale, clean_folder)
    lines += [*doubles, *more_doubles]
    pairs = [(originals[key], partners[key]) for key in originals if key in partners]
    lines += [f"{clean_folder / originals[k].name}: no degraded form" for k in originals if k not in partners]
    lines += [f"{degraded_folder / partners[k].name}: no clean form" for k in partners if k not in originals]
    fitting = _fitting(pairs, upscale, lines)
    if not fitting:
        shown = "\n".join(f"  {line}" for line in lines[:_SHOWN])
        raise InputError(
            f"{clean_folder} and {degraded_folder} hold no pair. The names must agree but for an ending such "
            f"as x{upscale}, and the clean sides must be {upscale} times the degraded ones: "
            f"rename the files, or check upscale.\n{shown}"
        )
    return fitting, lines


def read_pairs(files: Sequence[FilePair], root: Path, upscale: int) -> tuple[list[PhotoPair], list[str]]:
    """Read listed pairs and return those that can be used, with one line for each that cannot.

    Args:
        files: What to read.
        root: The data set's folder, for messages.
        upscale: Sides of the clean over sides of the degraded photograph, >= 1.

    Raises:
        InputError: If none can be used.
    """
    pairs: list[PhotoPair] = []
    lines: list[str] = []
    names: dict[str, str] = {}
    for entry in files:
        try:
            clean = read_image(entry.clean, min_side=min_side_px(upscale))
            degraded = read_image(entry.degraded, min_side=min_side_px(upscale) // upscale)
        except ImageProblem as problem:
            lines.append(str(problem))
            continue
        lines += [f"{root / entry.name}: {note}" for note in (*clean.notes, *degraded.notes)]
        twin = names.setdefault(clean.digest, entry.name)
        if twin == entry.name:
            pairs.append((dataclasses.replace(clean, name=entry.name), degraded))
        else:
            lines.append(f"{root / entry.name}: the same picture as {twin}; used once")
    fitting = _fitting(pairs, upscale, lines)
    if not fitting:
        shown = "\n".join(f"  {line}" for line in lines[:_SHOWN])
        raise InputError(
            f"{root}: none of {len(files)} pairs can be used. Clean sides must be {upscale} times the degraded ones, "
            f"and both files readable: copy them again, or check upscale.\n{shown}"
        )
    return fitting, lines


def _fitting(pairs: Sequence[PhotoPair], upscale: int, lines: list[str]) -> list[PhotoPair]:
    """Return the pairs whose sizes fit; of the others a line is added."""
    faults = [_size_fault(clean, degraded, upscale) for clean, degraded in pairs]
    lines += [fault for fault in faults if fault]
    return [pair for pair, fault in zip(pairs, faults, strict=True) if not fault]


def _by_key(photos: list[Photo], upscale: int, folder: Path) -> tuple[dict[str, Photo], list[str]]:
    """Name photographs by what a pair has in common; of two with one key the first stays."""
    named: dict[str, Photo] = {}
    lines: list[str] = []
    for photo in photos:
        first = named.setdefault(_pair_key(photo.name, upscale), photo)
        if first is not photo:
            lines.append(f"{folder / photo.name}: would be a pair of the same picture as {first.name}; left out")
    return named, lines


def _pair_key(name: str, upscale: int) -> str:
    stem = Path(name).stem
    return re.sub(rf"[_-]?(LR|HR)?[_-]?x{upscale}$", "", stem, flags=re.IGNORECASE) or stem


def _size_fault(clean: Photo, degraded: Photo, upscale: int) -> str:
    (height, width), (small_h, small_w) = clean.pixels.shape[:2], degraded.pixels.shape[:2]
    if (height, width) == (small_h * upscale, small_w * upscale):
        return ""
    return (
        f"{clean.name}: {width} x {height} px is not {upscale} times the {small_w} x {small_h} px "
        f"of {degraded.name}; left out"
    )
