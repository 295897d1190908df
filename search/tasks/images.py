"""Reading photographs, whatever people put into a folder, as 8-bit RGB."""

from __future__ import annotations

import hashlib
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps

from search.types import InputError

Pixels = npt.NDArray[np.uint8]
"""An image of 8-bit levels, `[h w c]`."""

IMAGE_SUFFIXES = frozenset(
    {".png", ".jpg", ".jpeg", ".jfif", ".bmp", ".tif", ".tiff", ".webp", ".gif", ".ppm", ".pgm", ".pnm"}
    | {".jp2", ".avif", ".heic", ".heif", ".jxl"}
)
"""What counts as an image in a folder. Some need a plug-in of Pillow; without it they are reported."""

_SHOWN = 5
"""How many names or problems a message lists before it only counts."""


class ImageProblem(InputError):
    """One image file cannot be used; the message is one line."""


@dataclass(frozen=True, slots=True)
class Photo:
    """A decoded photograph. Equal pictures have equal digests, whatever their files."""

    name: str
    """The file's name, suffix included."""
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
    """Read one file as 8-bit RGB: upright by its EXIF orientation, first frame only, alpha dropped.

    Grey images get three equal channels. 16-bit grey is scaled by 1/257 and rounded; of 16-bit colour
    Pillow keeps the high byte, which differs from rounding by one level at most.

    Args:
        path: The file.
        min_side: Shortest side in pixels that is accepted, >= 1.

    Raises:
        ImageProblem: If the file is missing, cannot be decoded, holds no 8- or 16-bit levels, or is
            smaller than `min_side`.
    """
    if not path.is_file():
        raise ImageProblem(f"{path}: no such file. Check the name.")
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            pixels, notes = _decode(path)
    except ImageProblem:
        raise
    except Exception as error:  # on a damaged file a decoder may raise anything at all
        cause = " ".join(str(error).replace(f"{str(path)!r}", "the file").split()) or "no reason given"
        raise ImageProblem(
            f"{path}: cannot be read as an image ({type(error).__name__}: {cause}). "
            "A file must be whole and of a type that Pillow reads: replace it, or convert it to PNG."
        ) from error
    height, width = pixels.shape[:2]
    if min(height, width) < min_side:
        raise ImageProblem(
            f"{path}: {width} x {height} pixels are too few. "
            f"The shorter side must be at least {min_side}: use a larger picture."
        )
    notes += [f"Pillow: {w.message}" for w in caught]
    return photo_of(path.name, pixels, tuple(notes))


def _decode(path: Path) -> tuple[Pixels, list[str]]:
    notes: list[str] = []
    with Image.open(path) as opened:
        if getattr(opened, "n_frames", 1) > 1:
            notes.append("several frames: the first is used")
        if opened.mode not in ("I", "I;16", "I;16L", "I;16B", "F") and ";16" in _raw_mode(opened):
            notes.append("16-bit colour: the high byte is kept")
        if opened.getexif().get(0x0112, 1) != 1:
            notes.append("turned upright by its EXIF orientation")
        image = ImageOps.exif_transpose(opened)
    if image.mode.startswith("I;16"):
        notes.append("16-bit grey: scaled by 1/257")
        grey = np.floor(np.asarray(image).astype(np.float64) / 257 + 0.5).astype(np.uint8)
        return np.repeat(grey[..., None], 3, axis=2), notes
    if image.mode in ("I", "F"):
        raise ImageProblem(
            f"{path}: its levels are 32-bit numbers, whose range is not known. "
            "Photographs must have 8 or 16 bits a channel: convert it to PNG."
        )
    if image.has_transparency_data:
        notes.append("alpha dropped, not blended")
        image = image.convert("RGBA")
    if image.mode == "CMYK":
        notes.append("CMYK converted to RGB without a colour profile")
    return np.asarray(image.convert("RGB")), notes


def _raw_mode(image: Image.Image) -> str:
    """The layout of the levels in the file, such as `RGB;16B`; Pillow's own mode hides the depth."""
    tiles = getattr(image, "tile", None) or [None]
    arguments = getattr(tiles[0], "args", "")
    return str(arguments[0]) if isinstance(arguments, tuple) and arguments else str(arguments)


def load_folder(folder: Path, *, min_side: int) -> tuple[list[Photo], list[str]]:
    """Read every image of a folder, in order of the names; subfolders and hidden files are left out.

    Args:
        folder: Where the photographs are.
        min_side: Shortest side in pixels that is accepted, >= 1.

    Returns:
        The photographs, and one line for each thing that was left out or changed: unusable images,
        duplicates (the first by name stays), files that are not images.

    Raises:
        InputError: If the folder does not exist or holds no usable image.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder. It must hold the photographs: check the path.")
    files = sorted(f for f in folder.iterdir() if f.is_file() and not f.name.startswith("."))
    others = [f.name for f in files if f.suffix.lower() not in IMAGE_SUFFIXES]
    photos, lines = _read_all([f for f in files if f.suffix.lower() in IMAGE_SUFFIXES], min_side)
    if others:
        more = ", …" if len(others) > _SHOWN else ""
        shown = ", ".join(others[:_SHOWN])
        lines.append(f"{folder}: ignored {len(others)} files that are not images: {shown}{more}")
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
        lines += [f"{file}: {note}" for note in photo.notes]
        twin = first_names.setdefault(photo.digest, photo.name)
        if twin == photo.name:
            photos.append(photo)
        else:
            lines.append(f"{file}: the same picture as {twin}; used once")
    return photos, lines


def _nothing_usable(folder: Path, lines: list[str]) -> str:
    shown = [f"  {line}" for line in lines[:_SHOWN]]
    if len(lines) > _SHOWN:
        shown.append(f"  … and {len(lines) - _SHOWN} more")
    head = (
        f"{folder}: no usable image. The folder itself must hold photographs "
        f"({', '.join(sorted(IMAGE_SUFFIXES))}); subfolders are not searched: "
        "name the folder that holds them."
    )
    return "\n".join([head, *shown])


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
