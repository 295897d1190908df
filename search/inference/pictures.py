"""Picture files and their levels, with all that a file carries: depth, grey or colour, alpha, profile, EXIF.

libvips reads and writes. A picture stands upright here: its EXIF orientation is applied and then reset. CMYK becomes
sRGB by its profile. A thumbnail is left out. What a format cannot hold is either said in a note (EXIF in TIFF) or
refused (alpha in JPEG).
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyvips

from search.types import HFIRSearchError

Levels = npt.NDArray[np.uint8] | npt.NDArray[np.uint16]
"""Levels of 8 or 16 bits, `[h w c]`."""

READ_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".jfif", ".webp", ".tif", ".tiff"})
"""What counts as a picture in a folder."""
FORMATS: Mapping[str, tuple[str, ...]] = {
    "png": (".png",),
    "jpg": (".jpg", ".jpeg", ".jfif"),
    "webp": (".webp",),
    "tif": (".tif", ".tiff"),
}
"""The formats that can be written, and the suffixes that stand for them."""
SIXTEEN_BIT = frozenset({"png", "tif"})
DEFAULT_QUALITY = 95

_BLOBS = ("icc-profile-data", "xmp-data", "iptc-data")
_KEPT = ("exif-data", "exif-ifd0-", "exif-ifd2-", "exif-ifd3-", "exif-ifd4-")
"""EXIF of the picture; ifd1 is that of its thumbnail, which shows the picture as it was and is left out."""
_LAYOUTS = frozenset({"b-w", "srgb", "rgb", "grey16", "rgb16", "multiband"})


class PictureError(HFIRSearchError):
    """One picture file cannot be read or written; the message is one line and names the file."""


@dataclass(frozen=True, slots=True)
class Header:
    """What a file says beside its levels; written back as it was read.

    Args:
        fields: libvips' metadata: name, type and value.
        per_mm: Resolution across and down, in pixels per millimetre.
    """

    fields: tuple[tuple[str, int, Any], ...] = ()
    per_mm: tuple[float, float] = (1.0, 1.0)

    def holds(self, prefix: str) -> bool:
        """Say whether there is metadata whose name begins so."""
        return any(name.startswith(prefix) for name, _, _ in self.fields)


@dataclass(frozen=True, slots=True, eq=False)
class Picture:
    """A decoded picture, upright.

    Args:
        colour: `[h w 3]`, or `[h w 1]` for grey.
        alpha: `[h w 1]` of the same type, or None.
        header: What the file says beside its levels.
        notes: What was changed in reading it.
    """

    colour: Levels
    alpha: Levels | None = None
    header: Header = dataclasses.field(default_factory=Header)
    notes: tuple[str, ...] = ()

    @property
    def bits(self) -> int:
        """Bits a channel: 8 or 16."""
        return 8 * self.colour.itemsize

    @property
    def is_grey(self) -> bool:
        """Whether there is one channel beside alpha."""
        return self.colour.shape[-1] == 1


def format_of(path: Path) -> str | None:
    """Return the format that a file's suffix stands for, or None where it cannot be written."""
    return next((name for name, suffixes in FORMATS.items() if path.suffix.lower() in suffixes), None)


def written_bits(picture: Picture, format_name: str) -> int:
    """Return the bits a channel that a picture has in a format: its own where the format can."""
    return picture.bits if format_name in SIXTEEN_BIT else 8


def check_writable(picture: Picture, format_name: str) -> None:
    """Refuse what would lose the picture's alpha, before anything is spent on it.

    Raises:
        PictureError: If the picture has alpha and the format is JPEG.
    """
    if picture.alpha is not None and format_name == "jpg":
        raise PictureError("the picture has alpha, which JPEG cannot hold. Use --format png, webp or tif.")


def read_picture(path: Path) -> Picture:
    """Read a file: PNG, JPEG, WebP or TIFF of 8 or 16 bits a channel; of several frames the first.

    Raises:
        PictureError: If the file is missing, damaged, cut short, or its levels are neither 8 nor 16 bits.
    """
    if not path.is_file():
        raise PictureError(f"{path}: no such file. Check the name.")
    try:
        return _read(path)
    except pyvips.Error as error:
        raise PictureError(
            f"{path}: cannot be read as a picture ({_one_line(error)}). Replace it, or convert it to PNG."
        ) from error


def write_picture(picture: Picture, path: Path, *, quality: int = DEFAULT_QUALITY) -> tuple[str, ...]:
    """Write a file whole or not at all, in the format that its suffix stands for; an older one is replaced.

    Args:
        picture: What to write; its levels have the bits that `written_bits` says.
        path: Where to; the folder exists.
        quality: 1..100, for JPEG and WebP.

    Returns:
        Notes of what the format could not hold.

    Raises:
        PictureError: If the format cannot hold the picture, or the disk refuses.
    """
    name = format_of(path)
    if name is None:
        raise PictureError(f"{path}: no format that can be written. Use one of {', '.join(FORMATS)}.")
    check_writable(picture, name)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.part")
    image, notes = _image(picture, name)
    try:
        _SAVERS[name](image, str(unfinished), quality)
        unfinished.replace(path)
    except (pyvips.Error, OSError) as error:
        raise PictureError(f"{path}: cannot be written ({_one_line(error)}).") from error
    finally:
        with contextlib.suppress(OSError):
            unfinished.unlink(missing_ok=True)
    return notes


def _read(path: Path) -> Picture:
    # A source takes the name as it is; new_from_file would read options into brackets: photo[1].png.
    image: Any = pyvips.Image.new_from_source(pyvips.Source.new_from_file(str(path)), "", fail_on="error")
    notes = []
    if image.get_typeof("orientation") and image.get("orientation") != 1:
        notes.append("turned upright by its EXIF orientation")
    image = image.autorot()
    if image.interpretation == "cmyk":
        image = image.icc_transform("srgb", embedded=True, input_profile="cmyk")
        notes.append("CMYK converted to sRGB")
    colour = image[: image.bands - 1] if image.hasalpha() else image
    if colour.bands not in (1, 3) or image.format not in ("uchar", "ushort") or image.interpretation not in _LAYOUTS:
        raise PictureError(
            f"{path}: {image.bands} channels of type {image.format}, {image.interpretation}. "
            "A picture has grey or RGB levels of 8 or 16 bits: convert it to PNG."
        )
    pixels = image.numpy().reshape(image.height, image.width, image.bands)
    alpha = pixels[..., -1:] if image.hasalpha() else None
    return Picture(pixels[..., : colour.bands], alpha, _header(image), tuple(notes))


def _header(image: Any) -> Header:
    names = [name for name in image.get_fields() if name in _BLOBS or name.startswith(_KEPT)]
    fields = tuple((name, image.get_typeof(name), image.get(name)) for name in names)
    return Header(fields, (image.xres, image.yres))


def _image(picture: Picture, format_name: str) -> tuple[Any, tuple[str, ...]]:
    """Return a picture as libvips has it, with its metadata, and notes of what the format cannot hold."""
    image = _plane(picture.colour)
    if picture.alpha is not None:
        image = image.bandjoin(_plane(picture.alpha))
    layout = ("b-w" if picture.is_grey else "srgb") if picture.bits == 8 else ("grey16" if picture.is_grey else "rgb16")
    image = image.copy(interpretation=layout, xres=picture.header.per_mm[0], yres=picture.header.per_mm[1])
    grey_becomes_colour = picture.is_grey and format_name == "webp"
    for name, kind, value in picture.header.fields:
        if not (grey_becomes_colour and name == "icc-profile-data"):
            image.set_type(kind, name, value)
    image.set_type(pyvips.GValue.gint_type, "orientation", 1)
    if picture.header.holds("exif-"):
        image.set_type(pyvips.GValue.blob_type, "jpeg-thumbnail-data", b"")  # else exif-data brings the old one back
    notes = []
    if format_name == "tif" and picture.header.holds("exif-"):
        notes.append("EXIF left out: TIFF is written without it")
    if grey_becomes_colour:
        notes.append("written as RGB: WebP has no grey")
    return image, tuple(notes)


def _plane(levels: Levels) -> Any:
    """Return levels `[h w c]` as an image; libvips works on the array's own memory where it can."""
    height, width, bands = levels.shape
    data = np.ascontiguousarray(levels)
    kind = "uchar" if data.itemsize == 1 else "ushort"
    return pyvips.Image.new_from_memory(data.data, width, height, bands, kind)


def _save_png(image: Any, path: str, quality: int) -> None:
    image.pngsave(path)


def _save_jpg(image: Any, path: str, quality: int) -> None:
    image.jpegsave(path, Q=quality)


def _save_webp(image: Any, path: str, quality: int) -> None:
    image.webpsave(path, Q=quality)


def _save_tif(image: Any, path: str, quality: int) -> None:
    image.tiffsave(path, compression="deflate", predictor="horizontal")


_SAVERS: Mapping[str, Callable[[Any, str, int], None]] = {
    "png": _save_png,
    "jpg": _save_jpg,
    "webp": _save_webp,
    "tif": _save_tif,
}


def _one_line(error: BaseException) -> str:
    return "; ".join(line.strip() for line in str(error).splitlines() if line.strip()) or type(error).__name__
