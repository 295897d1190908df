"""Pairs of clean photographs and their degraded forms: read, matched by name, held against their sizes."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from pathlib import Path

from search.counts import count
from search.files import shown
from search.tasks.images import ImageProblem, Photo, load_folder, read_image
from search.tasks.layouts import FilePair
from search.tasks.pairs import centre_crop, min_side_px
from search.types import InputError

_SHOWN = 5

PhotoPair = tuple[Photo, Photo]
"""Clean, degraded."""


def matched_folders(clean_folder: Path, degraded_folder: Path, upscale: int) -> tuple[list[PhotoPair], list[str]]:
    """Read two folders and return their pairs, with one line for each thing that was left out.

    Two files are a pair when their names agree but for the suffix and the usual endings of super-resolution data sets:
    `x2`, `_LRx2`, `_LR2`, `_LRBI_x2`, `_LR`, `_HR`, `_GT`, `_LQ`, `_HQ`, `_x1` (for `upscale` = 2). Where the clean
    sides are no multiple of `upscale`, and the degraded ones are their quotients rounded down, the clean photograph is
    cropped below and at the right.

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
    lines += [f"{shown(clean_folder)}/{originals[k].name}: no degraded form" for k in originals if k not in partners]
    lines += [f"{shown(degraded_folder)}/{partners[k].name}: no clean form" for k in partners if k not in originals]
    fitting = _fitting(pairs, upscale, lines)
    if not fitting:
        listed = "\n".join(f"  {line}" for line in lines[:_SHOWN])
        raise InputError(
            f"{shown(clean_folder)} and {shown(degraded_folder)} hold no pair. The names must agree but for an ending "
            f"such as x{upscale}, _LR or _HR, and the clean sides must be {upscale} times the degraded ones: "
            f"rename the files, or check upscale.\n{listed}"
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
        lines += [f"{shown(root)}/{entry.name}: {note}" for note in (*clean.notes, *degraded.notes)]
        twin = names.setdefault(clean.digest, entry.name)
        if twin == entry.name:
            pairs.append((dataclasses.replace(clean, name=entry.name), degraded))
        else:
            lines.append(f"{shown(root)}/{entry.name}: the same picture as {twin}; used once")
    fitting = _fitting(pairs, upscale, lines)
    if not fitting:
        listed = "\n".join(f"  {line}" for line in lines[:_SHOWN])
        raise InputError(
            f"{shown(root)}: none of {count(len(files), 'pair')} can be used. Clean sides must be {upscale} times "
            f"the degraded ones, and both files readable: copy them again, or check upscale.\n{listed}"
        )
    return fitting, lines


def _fitting(pairs: Sequence[PhotoPair], upscale: int, lines: list[str]) -> list[PhotoPair]:
    """Return the pairs whose sizes fit, clean ones cropped to a multiple; add lines on what was cropped or left out."""
    fitting: list[PhotoPair] = []
    for clean, degraded in pairs:
        (height, width), (small_h, small_w) = clean.pixels.shape[:2], degraded.pixels.shape[:2]
        sizes = f"{width} x {height} px is not {upscale} times the {small_w} x {small_h} px of {degraded.name}"
        if (height // upscale, width // upscale) != (small_h, small_w):
            lines.append(f"{clean.name}: {sizes}; left out")
            continue
        if (height, width) != (small_h * upscale, small_w * upscale):
            lines.append(f"{clean.name}: {sizes}; cropped to {small_w * upscale} x {small_h * upscale} px")
            cropped = centre_crop(clean.pixels, multiple=upscale)
            cropped.setflags(write=False)
            clean = dataclasses.replace(clean, pixels=cropped)
        fitting.append((clean, degraded))
    return fitting


def _by_key(photos: list[Photo], upscale: int, folder: Path) -> tuple[dict[str, Photo], list[str]]:
    """Name photographs by what a pair has in common; of two with one key the first stays."""
    named: dict[str, Photo] = {}
    lines: list[str] = []
    for photo in photos:
        first = named.setdefault(_pair_key(photo.name, upscale), photo)
        if first is not photo:
            lines.append(f"{shown(folder)}/{photo.name}: would be a pair of the same picture as {first.name}; left out")
    return named, lines


def _pair_key(name: str, upscale: int) -> str:
    stem = Path(name).stem
    endings = (
        rf"[_-]?(LR|HR)?[_-]?x{upscale}",
        rf"[_-](LR|HR|GT|LQ|HQ)(BI|BD|DN)?([_-]?x?({upscale}|1))?",
        r"[_-]x1",
    )
    return re.sub(rf"({'|'.join(endings)})$", "", stem, flags=re.IGNORECASE) or stem
