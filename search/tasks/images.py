"""Reading photographs, whatever people put into a folder, as 8-bit RGB; and which files of a folder are pictures."""

from __future__ import annotations

import errno
import hashlib
import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps

from search.counts import count
from search.files import FolderWalk, is_file, is_folder, shown
from search.types import InputError

Pixels = npt.NDArray[np.uint8]
"""An image of 8-bit levels, `[h w c]`."""

PICTURE_SUFFIXES = frozenset(
    {".png", ".apng", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".tif", ".tiff", ".gif", ".avif", ".heic", ".heif"}
    | {".bmp", ".dib", ".ppm", ".pgm", ".pbm", ".pnm", ".tga", ".jp2", ".j2k", ".jxl", ".qoi", ".pcx", ".sgi", ".dds"}
    | {".psd", ".ico", ".icns"}
)
"""What counts as a picture in a folder, for every command; a file that cannot be decoded here is reported by name."""

SEVERAL_FRAMES = "several frames: the first is used"
TURNED = "turned upright by its orientation tag"

_SHOWN = 5
"""How many names or problems an error lists before it only counts."""
_NAMED = 20
"""How many left-out files a note names before it only counts."""


class ImageProblem(InputError):
    """One image file cannot be used; the message is one line."""


@dataclass(frozen=True, slots=True)
class Photo:
    """A decoded photograph. Equal pictures have equal digests, whatever their files."""

    name: str
    """The file's name, suffix included, as `search.files.shown` shows it: it can be written anywhere."""
    pixels: Pixels
    """`[h w 3]`, read-only."""
    digest: str
    """16 hexadecimal digits: BLAKE2b of shape and pixels."""
    notes: tuple[str, ...] = ()
    """What was changed in reading it (alpha dropped, turned upright, …)."""


def pixel_digest(pixels: Pixels) -> str:
    """Name a picture by its content: 16 hexadecimal digits of BLAKE2b over shape and pixels."""
    digest = hashlib.blake2b(repr(pixels.shape).encode(), digest_size=8)
    digest.update(np.ascontiguousarray(pixels).data)
    return digest.hexdigest()


def photo_of(name: str, pixels: Pixels, notes: tuple[str, ...] = ()) -> Photo:
    """Wrap pixels `[h w 3]` as a `Photo`; the array is copied and made read-only."""
    own = np.array(pixels, dtype=np.uint8, order="C")
    own.setflags(write=False)
    return Photo(name, own, pixel_digest(own), notes)


def read_image(path: Path, *, min_side: int = 1) -> Photo:
    """Read one file as 8-bit RGB: upright by its orientation tag, first frame only, alpha dropped.

    Grey images get three equal channels. 16-bit grey is scaled by 1/257 and rounded; of 16-bit colour
    Pillow keeps the high byte, which differs from rounding by one level at most.

    Args:
        path: The file.
        min_side: Shortest side in pixels that is accepted, >= 1.

    Raises:
        ImageProblem: If the file is missing, cannot be decoded, holds no 8- or 16-bit levels, or is
            smaller than `min_side`.
    """
    image, notes = open_upright(path)
    pixels = _as_rgb(image, notes)
    height, width = pixels.shape[:2]
    if min(height, width) < min_side:
        raise ImageProblem(
            f"{shown(path)}: {width} x {height} pixels are too few. "
            f"The shorter side must be at least {min_side}: use a larger picture."
        )
    return photo_of(shown(path.name), pixels, tuple(notes))


def open_upright(path: Path) -> tuple[Image.Image, list[str]]:
    """Decode a file by Pillow: its first frame, turned upright; and what was changed, in one line each.

    Of 16-bit grey all bits are kept, as mode `I;16`.

    Raises:
        ImageProblem: If the file is missing, cannot be decoded, or holds no 8- or 16-bit levels.
    """
    if not is_file(path):
        raise ImageProblem(f"{shown(path)}: no such file. Check the name.")
    try:
        with path.open("rb") as file, warnings.catch_warnings(record=True) as caught:  # by a path, TIFF wants UTF-8
            warnings.simplefilter("always")
            image, notes = _decode(file)
    except Image.DecompressionBombError as error:
        pixels = next(iter(re.findall(r"\d+", str(error))), "too many")
        raise ImageProblem(
            f"{shown(path)}: {pixels} pixels are too many. At most {2 * (Image.MAX_IMAGE_PIXELS or 0)} are read "
            "at once: cut the picture into parts, or shrink it."
        ) from error
    except Exception as error:  # on a damaged file a decoder may raise anything at all
        raise ImageProblem(f"{shown(path)}: {_cause(path, error)}") from error
    if image.mode in ("I", "F"):
        raise ImageProblem(
            f"{shown(path)}: its levels are 32-bit numbers, whose range is not known. "
            "Photographs must have 8 or 16 bits a channel: convert it to PNG."
        )
    notes += [f"Pillow: {w.message}" for w in caught if not issubclass(w.category, Image.DecompressionBombWarning)]
    return image, notes


def _cause(path: Path, error: Exception) -> str:
    if isinstance(error, OSError) and error.errno is not None:
        remedy = "make it readable" if error.errno in (errno.EACCES, errno.EPERM) else "copy it again"
        return f"cannot be opened ({error.strerror}). Each picture is read whole: {remedy}, or take it out."
    if is_file(path) and path.stat().st_size == 0:
        return "the file is empty. Copy it again, or take it out."
    reason = " ".join(re.sub(r"<_io\.\w+ name=.*>", "", str(error)).split()) or "no reason given"
    return (
        f"cannot be read as a picture ({type(error).__name__}: {reason}). "
        "A file must be whole and of a type that Pillow reads: replace it, or convert it to PNG."
    )


def _decode(file: BinaryIO) -> tuple[Image.Image, list[str]]:
    notes: list[str] = []
    with Image.open(file) as opened:
        if getattr(opened, "n_frames", 1) > 1:
            notes.append(SEVERAL_FRAMES)
        if opened.mode not in ("I", "I;16", "I;16L", "I;16B", "F") and ";16" in _raw_mode(opened):
            notes.append("16-bit colour: the high byte is kept")
        if opened.getexif().get(0x0112, 1) != 1:
            notes.append(TURNED)
        image = ImageOps.exif_transpose(opened)
        if opened.format == "PPM" and image.mode == "I":  # Pillow scales grey of more than 8 bits to 16
            image = image.convert("I;16")
    return image, notes


def _as_rgb(image: Image.Image, notes: list[str]) -> Pixels:
    if image.mode.startswith("I;16"):
        notes.append("16-bit grey: scaled by 1/257")
        grey = np.floor(np.asarray(image).astype(np.float64) / 257 + 0.5).astype(np.uint8)
        return np.repeat(grey[..., None], 3, axis=2)
    if image.has_transparency_data:
        notes.append("alpha dropped, not blended")
        image = image.convert("RGBA")
    if image.mode == "CMYK":
        notes.append("CMYK converted to RGB without a colour profile")
    return np.asarray(image.convert("RGB"))


def _raw_mode(image: Image.Image) -> str:
    """The layout of the levels in the file, such as `RGB;16B`; Pillow's own mode hides the depth."""
    tiles = getattr(image, "tile", None) or [None]
    arguments = getattr(tiles[0], "args", "")
    return str(arguments[0]) if isinstance(arguments, tuple) and arguments else str(arguments)


def find_pictures(
    folder: Path, *, recursive: bool = False, leave_out: tuple[Path, ...] = ()
) -> tuple[list[Path], list[str]]:
    """Return the pictures of a folder in order of their names, and one line for each kind of thing that is left out.

    Hidden files are left out without a line.

    Args:
        folder: Where to look.
        recursive: Search subfolders too, each real folder once.
        leave_out: Folders that are not entered.

    Raises:
        InputError: If the folder cannot be read.
    """
    walk = FolderWalk(folder, recursive, leave_out)
    files = listed(walk)
    others = [file for file in files if not is_picture(file)]
    lines = [f"{shown(path)}: left out: {reason}" for path, reason in walk.skipped]
    if walk.subfolders:
        lines.append(f"{shown(folder)}: subfolders are not searched: {_names(walk.subfolders, folder)}")
    if others:
        lines.append(
            f"{shown(folder)}: ignored {count(len(others), 'file')} without the suffix of an image: "
            f"{_names(others, folder)}"
        )
    return [file for file in files if is_picture(file)], lines


def listed(walk: FolderWalk) -> list[Path]:
    """Return the files of a walk.

    Raises:
        InputError: If the folder cannot be read.
    """
    try:
        return list(walk)
    except OSError as error:
        raise InputError(
            f"{shown(walk.folder)}: the folder cannot be read ({error.strerror}). Check the path and its permissions."
        ) from error


def is_picture(path: Path) -> bool:
    """Say whether a file counts as a picture, by its suffix."""
    return path.suffix.lower() in PICTURE_SUFFIXES


def _names(paths: Sequence[Path], folder: Path) -> str:
    names = [shown(path.relative_to(folder)) for path in paths[:_NAMED]]
    more = [f"… and {len(paths) - _NAMED} more"] if len(paths) > _NAMED else []
    return ", ".join([*names, *more])


def load_folder(folder: Path, *, min_side: int) -> tuple[list[Photo], list[str]]:
    """Read every image of a folder, in order of the names; subfolders and hidden files are left out.

    Args:
        folder: Where the photographs are.
        min_side: Shortest side in pixels that is accepted, >= 1.

    Returns:
        The photographs, and one line for each thing that was left out or changed: unusable images,
        duplicates (the first by name stays), files that are not images.

    Raises:
        InputError: If the folder does not exist, cannot be read, or holds no usable image.
    """
    if not is_folder(folder):
        raise InputError(f"{shown(folder)}: no such folder. It must hold the photographs: check the path.")
    files, left_out = find_pictures(folder)
    photos, lines = _read_all(files, min_side)
    lines += left_out
    if not photos:
        raise InputError(_nothing_usable(folder, lines))
    return photos, lines


def _read_all(files: list[Path], min_side: int) -> tuple[list[Photo], list[str]]:
    first_names: dict[str, str] = {}
    photos: list[Photo] = []
    lines: list[str] = []
    for file in files:
        try:
            photo = read_image(file, min_side=min_side)
        except ImageProblem as problem:
            lines.append(str(problem))
            continue
        lines += [f"{shown(file)}: {note}" for note in photo.notes]
        if photo.digest in first_names:
            lines.append(f"{shown(file)}: the same picture as {first_names[photo.digest]}; used once")
        else:
            first_names[photo.digest] = photo.name
            photos.append(photo)
    return photos, lines


def _nothing_usable(folder: Path, lines: list[str]) -> str:
    listed = [f"  {line}" for line in lines[:_SHOWN]]
    if len(lines) > _SHOWN:
        listed.append(f"  … and {len(lines) - _SHOWN} more")
    head = (
        f"{shown(folder)}: no usable image. The folder itself must hold photographs "
        f"({', '.join(sorted(PICTURE_SUFFIXES))}); subfolders are not searched: "
        "name the folder that holds them."
    )
    return "\n".join([head, *listed])


def densest_square(weights: npt.NDArray[np.float64], side: int, multiple: int) -> tuple[int, int]:
    """Return top and left of the square with the largest sum of weights; the first one where several have it.

    Args:
        weights: `[h w]`.
        side: Of the square, at most h and w.
        multiple: Top and left are multiples of it.
    """
    sums = np.pad(weights.cumsum(axis=0).cumsum(axis=1), ((1, 0), (1, 0)))
    within = sums[side:, side:] - sums[:-side, side:] - sums[side:, :-side] + sums[:-side, :-side]
    within = within[::multiple, ::multiple]
    row, column = np.unravel_index(int(within.argmax()), within.shape)
    return int(row) * multiple, int(column) * multiple
