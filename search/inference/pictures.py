"""Picture files and their levels, with all that a file carries: depth, grey or colour, alpha, profile, EXIF.

libvips reads and writes; what it does not know (BMP, TGA, JPEG 2000, …), Pillow reads. A picture stands upright here:
its orientation, by EXIF or else by XMP, is applied and then reset in both. CMYK becomes sRGB by its profile. A
thumbnail is left out. What a format cannot hold is either said in a note (EXIF in TIFF) or refused (alpha in JPEG).
"""

from __future__ import annotations

import dataclasses
import re
import struct
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
import pyvips

from search.counts import count
from search.files import is_file, replace_file, shown
from search.tasks.images import SEVERAL_FRAMES, TURNED, ImageProblem, open_upright
from search.types import HFIRSearchError

Levels = npt.NDArray[np.uint8] | npt.NDArray[np.uint16]
"""Levels of 8 or 16 bits, `[h w c]`."""

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
_UNKNOWN = "unable to load from source"
"""libvips' error where none of its readers knows the format."""
_PNG = b"\x89PNG\r\n\x1a\n"
_XMP_ORIENTATION = re.compile(rb"""(tiff:Orientation(?:\s*=\s*["']|>)\s*)([1-8])""")
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


def writable(picture: Picture, format_name: str) -> Picture:
    """Return what a format can hold of a picture: for JPEG without its alpha, where that is opaque everywhere.

    Raises:
        PictureError: If the picture is transparent somewhere and the format is JPEG.
    """
    if picture.alpha is None or format_name != "jpg":
        return picture
    if picture.alpha.min() < np.iinfo(picture.alpha.dtype).max:
        raise PictureError("the picture has alpha, which JPEG cannot hold. Use --format png, webp or tif.")
    notes = (*picture.notes, "alpha left out: it is opaque everywhere")
    return dataclasses.replace(picture, alpha=None, notes=notes)


def read_picture(path: Path) -> Picture:
    """Read a file of 8 or 16 bits a channel that libvips or Pillow can decode; of several frames the first.

    Raises:
        PictureError: If the file is missing, damaged, cut short, or its levels are neither 8 nor 16 bits.
    """
    if not is_file(path):
        raise PictureError(f"{shown(path)}: no such file. Check the name.")
    try:
        with path.open("rb", buffering=0) as file:  # libvips reads the descriptor, which no buffer may have moved
            return _read(path, file)
    except OSError as error:
        raise PictureError(
            f"{shown(path)}: cannot be opened ({error.strerror}). Make it readable, or take it out."
        ) from error
    except pyvips.Error as error:
        if error.message == _UNKNOWN:
            return _read_by_pillow(path)
        raise PictureError(
            f"{shown(path)}: cannot be read as a picture ({_one_line(error)}). Replace it, or convert it to PNG."
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
        raise PictureError(f"{shown(path)}: no format that can be written. Use one of {', '.join(FORMATS)}.")
    image, notes = _image(writable(picture, name), name)

    def write(partial: Path) -> None:
        with partial.open("wb+", buffering=0) as file:  # TIFF is read back while it is written
            _SAVERS[name](image, pyvips.Target.new_to_descriptor(file.fileno()), quality)

    try:
        replace_file(path, write)
    except (pyvips.Error, OSError) as error:
        raise PictureError(f"{shown(path)}: cannot be written ({_one_line(error)}).") from error
    return notes


def _read(path: Path, file: BinaryIO) -> Picture:
    notes = _png_notes(file)
    file.seek(0)
    # From a descriptor: libvips wants names in UTF-8, and reads options into brackets: photo[1].png.
    source = pyvips.Source.new_from_descriptor(file.fileno())
    image: Any = pyvips.Image.new_from_source(source, "", fail_on="error")
    if image.get_typeof("n-pages") and image.get("n-pages") > 1:
        notes.append(SEVERAL_FRAMES)
    if texts := [name.split("-", 3)[-1] for name in _field_names(image) if name.startswith("png-comment-")]:
        notes.append(f"text of PNG left out: {', '.join(texts)}")
    turn = _orientation(image)
    if turn in range(2, 9):
        notes.append(TURNED)
        image = image.copy()
        image.set_type(pyvips.GValue.gint_type, "orientation", turn)
        image = image.autorot()
    if image.interpretation == "cmyk":
        image = image.icc_transform("srgb", embedded=True, input_profile="cmyk")
        notes.append("CMYK converted to sRGB")
    colour = image[: image.bands - 1] if image.hasalpha() else image
    if colour.bands not in (1, 3) or image.format not in ("uchar", "ushort") or image.interpretation not in _LAYOUTS:
        raise PictureError(
            f"{shown(path)}: {count(image.bands, 'channel')} of type {image.format}, {image.interpretation}. "
            "A picture has grey or RGB levels of 8 or 16 bits: convert it to PNG."
        )
    pixels = image.numpy().reshape(image.height, image.width, image.bands)
    alpha = pixels[..., -1:] if image.hasalpha() else None
    return Picture(pixels[..., : colour.bands], alpha, _header(image), tuple(notes))


def _field_names(image: Any) -> list[str]:
    """Return the names of a picture's metadata; unlike `get_fields` also where one is not UTF-8, as in PNG."""
    pointers = pyvips.vips_lib.vips_image_get_fields(image.pointer)
    names: list[str] = []
    while pointers[len(names)] != pyvips.ffi.NULL:
        names.append(pyvips.ffi.string(pointers[len(names)]).decode("utf-8", "backslashreplace"))
        pyvips.glib_lib.g_free(pointers[len(names) - 1])
    pyvips.glib_lib.g_free(pointers)
    return names


def _orientation(image: Any) -> int:
    """Return how a picture lies, 1..8: by EXIF or the tag of TIFF, else by XMP, as Pillow does."""
    if image.get_typeof("orientation"):
        return int(image.get("orientation"))
    found = _XMP_ORIENTATION.search(image.get("xmp-data")) if image.get_typeof("xmp-data") else None
    return int(found[2]) if found else 1


def _png_notes(file: BinaryIO) -> list[str]:
    """Say what libvips drops of a PNG without a word: frames of APNG, and a gamma that no profile overrides."""
    chunks = dict(_png_chunks(file))
    notes = [SEVERAL_FRAMES] if chunks.get(b"acTL", b"\0\0\0\1")[:4] > b"\0\0\0\1" else []
    if b"gAMA" in chunks and not {b"sRGB", b"iCCP", b"cICP"} & set(chunks):
        notes.append(f"gamma of PNG left out: {int.from_bytes(chunks[b'gAMA']) / 100_000:g}")
    return notes


def _png_chunks(file: BinaryIO) -> Iterator[tuple[bytes, bytes]]:
    """Yield the chunks of a PNG before its pixels: name and the first bytes; nothing for another file."""
    if file.read(len(_PNG)) != _PNG:
        return
    while len(start := file.read(8)) == 8:
        length, name = struct.unpack(">I4s", start)
        if name == b"IDAT":
            return
        place = file.tell()
        yield name, file.read(min(length, 8))
        file.seek(place + length + 4)


def _read_by_pillow(path: Path) -> Picture:
    try:
        image, notes = open_upright(path)
    except ImageProblem as problem:
        raise PictureError(str(problem)) from problem
    if image.mode.startswith("I;16"):
        return Picture(np.asarray(image).astype(np.uint16)[..., None], notes=tuple(notes))
    if image.mode == "CMYK":
        notes.append("CMYK converted to RGB without a colour profile")
    grey = image.mode in ("1", "L", "LA", "La")
    bands = ("LA" if grey else "RGBA") if image.has_transparency_data else ("L" if grey else "RGB")
    pixels = np.asarray(image.convert(bands)).reshape(image.height, image.width, len(bands))
    profile = image.info.get("icc_profile")
    fields = (("icc-profile-data", pyvips.GValue.blob_type, profile),) if profile and image.mode != "CMYK" else ()
    count = len(bands.removesuffix("A"))
    alpha = pixels[..., count:] if len(bands) > count else None
    return Picture(pixels[..., :count], alpha, Header(fields), tuple(notes))


def _header(image: Any) -> Header:
    names = [name for name in _field_names(image) if name in _BLOBS or name.startswith(_KEPT)]
    fields = tuple((name, image.get_typeof(name), _upright(name, image.get(name))) for name in names)
    return Header(fields, (image.xres, image.yres))


def _upright(name: str, value: Any) -> Any:
    """Reset the orientation in XMP: the picture stands upright."""
    return _XMP_ORIENTATION.sub(rb"\g<1>1", value) if name == "xmp-data" else value


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
    if format_name in ("png", "webp") and picture.header.holds("iptc-data"):
        notes.append(f"IPTC left out: {format_name} is written without it")
    if grey_becomes_colour:
        notes.append("written as RGB: WebP has no grey")
    return image, tuple(notes)


def _plane(levels: Levels) -> Any:
    """Return levels `[h w c]` as an image; libvips works on the array's own memory where it can."""
    height, width, bands = levels.shape
    data = np.ascontiguousarray(levels)
    kind = "uchar" if data.itemsize == 1 else "ushort"
    return pyvips.Image.new_from_memory(data.data, width, height, bands, kind)


def _save_png(image: Any, target: Any, quality: int) -> None:
    image.pngsave_target(target)


def _save_jpg(image: Any, target: Any, quality: int) -> None:
    image.jpegsave_target(target, Q=quality)


def _save_webp(image: Any, target: Any, quality: int) -> None:
    image.webpsave_target(target, Q=quality)


def _save_tif(image: Any, target: Any, quality: int) -> None:
    image.tiffsave_target(target, compression="deflate", predictor="horizontal")


_SAVERS: Mapping[str, Callable[[Any, Any, int], None]] = {
    "png": _save_png,
    "jpg": _save_jpg,
    "webp": _save_webp,
    "tif": _save_tif,
}


def _one_line(error: BaseException) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return "; ".join(line.strip() for line in str(error).splitlines() if line.strip()) or type(error).__name__
