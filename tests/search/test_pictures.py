"""Picture files: what goes in comes out, and what cannot is said."""

from __future__ import annotations

import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import pyvips
from PIL import Image, ImageCms, PngImagePlugin

from search.inference.pictures import (
    Picture,
    PictureError,
    format_of,
    read_picture,
    writable,
    write_picture,
    written_bits,
)
from search.tasks.images import read_image


def levels(bits: int, channels: int, seed: int = 0) -> np.ndarray:
    """Smooth levels over the whole range, so that lossy formats keep close to them."""
    rng = np.random.default_rng(seed)
    small = rng.integers(0, 2**bits, (4, 5, channels)).astype(np.float64)
    rows, columns = np.linspace(0, 3, 40), np.linspace(0, 4, 50)
    top, left = np.minimum(rows.astype(int), 2), np.minimum(columns.astype(int), 3)
    y, x = (rows - top)[:, None, None], (columns - left)[None, :, None]
    a, b = small[top][:, left], small[top][:, left + 1]
    c, d = small[top + 1][:, left], small[top + 1][:, left + 1]
    mixed = (1 - y) * ((1 - x) * a + x * b) + y * ((1 - x) * c + x * d)
    return mixed.astype(np.uint8 if bits == 8 else np.uint16)


def picture(bits: int = 8, channels: int = 3, *, alpha: bool = False) -> Picture:
    return Picture(levels(bits, channels), levels(bits, 1, seed=1) if alpha else None)


@pytest.mark.parametrize("suffix", ["png", "tif"])
@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("alpha", [False, True])
def test_lossless_formats_keep_depth_grey_and_alpha(tmp_path: Path, suffix, bits, channels, alpha):
    before = picture(bits, channels, alpha=alpha)
    assert written_bits(before, suffix) == bits
    write_picture(before, tmp_path / f"a.{suffix}")
    after = read_picture(tmp_path / f"a.{suffix}")
    assert (after.bits, after.is_grey) == (bits, channels == 1)
    assert np.array_equal(after.colour, before.colour)
    if before.alpha is None:
        assert after.alpha is None
    else:
        assert after.alpha is not None
        assert np.array_equal(after.alpha, before.alpha)


def test_jpeg_keeps_grey_and_webp_keeps_alpha(tmp_path: Path):
    write_picture(picture(8, 1), tmp_path / "a.jpg", quality=95)
    assert read_picture(tmp_path / "a.jpg").is_grey
    notes = write_picture(picture(8, 1, alpha=True), tmp_path / "a.webp", quality=95)
    assert notes == ("written as RGB: WebP has no grey",)
    after = read_picture(tmp_path / "a.webp")
    assert after.colour.shape == (40, 50, 3)
    assert after.alpha is not None
    assert np.array_equal(after.alpha, levels(8, 1, seed=1))
    assert written_bits(picture(16), "webp") == written_bits(picture(16), "jpg") == 8


def test_quality_decides_on_size_and_error(tmp_path: Path):
    sizes = []
    for quality in (20, 95):
        write_picture(picture(), tmp_path / f"{quality}.jpg", quality=quality)
        sizes.append((tmp_path / f"{quality}.jpg").stat().st_size)
    assert sizes[0] < sizes[1]


def photograph(path: Path, *, orientation: int = 1) -> np.ndarray:
    """Write a file as a camera would, and return its levels as they lie in the file."""
    colour = levels(8, 3)
    exif = Image.Exif()
    exif[0x010F] = "Maker"
    exif[0x0112] = orientation
    exif.get_ifd(0x8769)[0x9003] = "2026:01:02 03:04:05"
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    with Image.fromarray(colour) as image:
        image.save(path, exif=exif, icc_profile=profile, dpi=(300, 300), quality=100, subsampling=0)
    return colour


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp"])
def test_orientation_is_applied_and_reset_while_the_rest_is_kept(tmp_path: Path, suffix):
    stored = photograph(tmp_path / "in.jpg", orientation=6)
    upright = read_picture(tmp_path / "in.jpg")
    turned = np.rot90(stored, -1).astype(int)  # 6: to be turned clockwise
    assert upright.colour.shape == turned.shape
    assert np.abs(upright.colour - turned).max() < 12
    assert upright.notes == ("turned upright by its orientation tag",)
    assert write_picture(upright, tmp_path / f"out.{suffix}") == ()
    with Image.open(tmp_path / f"out.{suffix}") as image, Image.open(tmp_path / "in.jpg") as source:
        exif = image.getexif()
        assert image.size == (40, 50)
        assert exif[0x0112] == 1
        assert exif[0x010F] == "Maker"
        assert exif.get_ifd(0x8769)[0x9003] == "2026:01:02 03:04:05"
        assert image.info["icc_profile"] == source.info["icc_profile"]
    again = read_picture(tmp_path / f"out.{suffix}")
    assert again.colour.shape == turned.shape
    assert again.notes == ()


def test_the_thumbnail_of_the_old_picture_is_left_out(tmp_path: Path):
    image = pyvips.Image.new_from_memory(levels(8, 3).tobytes(), 50, 40, 3, "uchar").copy(interpretation="srgb")
    image.set_type(pyvips.GValue.gstr_type, "exif-ifd0-Make", "Maker")
    image.set_type(pyvips.GValue.blob_type, "jpeg-thumbnail-data", image.jpegsave_buffer())
    image.jpegsave(str(tmp_path / "in.jpg"))
    write_picture(read_picture(tmp_path / "in.jpg"), tmp_path / "out.jpg")
    before, after = (pyvips.Image.new_from_file(str(tmp_path / name)) for name in ("in.jpg", "out.jpg"))
    assert "jpeg-thumbnail-data" in before.get_fields()
    assert "jpeg-thumbnail-data" not in after.get_fields()
    assert "exif-ifd0-Make" in after.get_fields()


def test_tiff_keeps_the_profile_and_says_that_exif_is_left_out(tmp_path: Path):
    photograph(tmp_path / "in.jpg", orientation=8)
    notes = write_picture(read_picture(tmp_path / "in.jpg"), tmp_path / "out.tif")
    assert notes == ("EXIF left out: TIFF is written without it",)
    with Image.open(tmp_path / "out.tif") as image, Image.open(tmp_path / "in.jpg") as source:
        assert image.info["icc_profile"] == source.info["icc_profile"]
        assert image.size == (40, 50)
        assert image.info["dpi"] == pytest.approx((300, 300))


def test_names_with_brackets_are_names(tmp_path: Path):
    write_picture(picture(), tmp_path / "photo[1].png")
    assert np.array_equal(read_picture(tmp_path / "photo[1].png").colour, levels(8, 3))


def test_a_palette_becomes_colour_and_cmyk_becomes_srgb(tmp_path: Path):
    with Image.fromarray(levels(8, 3)) as image:
        image.convert("P").save(tmp_path / "p.png")
        image.convert("CMYK").save(tmp_path / "c.jpg")
    assert read_picture(tmp_path / "p.png").colour.shape == (40, 50, 3)
    converted = read_picture(tmp_path / "c.jpg")
    assert converted.colour.shape == (40, 50, 3)
    assert converted.notes == ("CMYK converted to sRGB",)


def refused(path: Path) -> str:
    with pytest.raises(PictureError) as caught:
        read_picture(path)
    text = str(caught.value)
    assert str(path) in text
    assert "\n" not in text
    return text


def test_what_is_no_picture_is_refused_in_one_line(tmp_path: Path):
    (tmp_path / "a.png").write_bytes(b"nonsense")
    (tmp_path / "b.png").write_bytes(b"")
    assert "cannot be read as a picture" in refused(tmp_path / "a.png")
    assert "the file is empty" in refused(tmp_path / "b.png")
    assert "no such file" in refused(tmp_path / "c.png")
    assert "no such file" in refused(tmp_path)


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tif"])
def test_a_file_cut_short_is_refused_and_not_filled_with_grey(tmp_path: Path, suffix):
    path = tmp_path / f"a.{suffix}"
    write_picture(picture(), path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])
    assert "cannot be read as a picture" in refused(path)


def test_levels_of_32_bits_are_refused(tmp_path: Path):
    with Image.fromarray(np.zeros((8, 9), dtype=np.float32)) as image:
        image.save(tmp_path / "f.tif")
    assert "1 channel of type float" in refused(tmp_path / "f.tif")


def test_jpeg_refuses_alpha_instead_of_losing_it(tmp_path: Path):
    with pytest.raises(PictureError, match="alpha, which JPEG cannot hold"):
        write_picture(picture(alpha=True), tmp_path / "a.jpg")


def test_a_failed_write_leaves_nothing_behind(tmp_path: Path):
    (tmp_path / "taken.png").mkdir()
    with pytest.raises(PictureError, match=r"taken\.png: cannot be written"):
        write_picture(picture(), tmp_path / "taken.png")
    wide = Picture(np.zeros((1, 16_384, 3), dtype=np.uint8))
    with pytest.raises(PictureError, match=r"wide\.webp: cannot be written \(.*too large"):
        write_picture(wide, tmp_path / "wide.webp")
    assert [path.name for path in tmp_path.iterdir()] == ["taken.png"]


def test_a_suffix_stands_for_a_format():
    assert [format_of(Path(name)) for name in ("a.JPG", "a.jpeg", "a.tiff", "a.webp", "a.png")] == [
        "jpg",
        "jpg",
        "tif",
        "webp",
        "png",
    ]
    assert format_of(Path("folder")) is None
    assert format_of(Path("a.gif")) is None


# Any name, any kind -----------------------------------------------------------------------------------------------

NOT_UTF8 = os.fsdecode(b"Stra\xdfe")
LOSSLESS = ["png", "tif", "gif", "bmp", "tga", "ppm", "jp2", "qoi", "pcx", "sgi", "dds", "ico"]


@pytest.mark.parametrize("suffix", LOSSLESS)
def test_every_kind_of_picture_is_read_whatever_its_name(tmp_path: Path, suffix: str):
    colour = np.kron(levels(8, 3)[::20, ::10], np.ones((20, 10, 1), dtype=np.uint8))[:32, :32]  # few colours, for GIF
    Image.fromarray(colour).save(tmp_path / f"a.{suffix}", **({"irreversible": False} if suffix == "jp2" else {}))
    (tmp_path / f"a.{suffix}").rename(tmp_path / f"{NOT_UTF8}.{suffix}")
    after = read_picture(tmp_path / f"{NOT_UTF8}.{suffix}")
    assert np.array_equal(after.colour, colour)
    assert after.alpha is None or after.alpha.min() == 255


def test_grey_sixteen_bits_and_alpha_are_kept_of_what_pillow_reads(tmp_path: Path):
    deep = levels(16, 1)
    (tmp_path / "a.pgm").write_bytes(b"P5 50 40 65535\n" + deep.astype(">u2").tobytes())
    assert np.array_equal(read_picture(tmp_path / "a.pgm").colour, deep)
    Image.fromarray(levels(8, 1)[..., 0]).save(tmp_path / "a.bmp")
    assert np.array_equal(read_picture(tmp_path / "a.bmp").colour, levels(8, 1))
    Image.fromarray(levels(8, 4)).save(tmp_path / "a.tga")
    after = read_picture(tmp_path / "a.tga")
    assert np.array_equal(after.colour, levels(8, 4)[..., :3])
    assert after.alpha is not None
    assert np.array_equal(after.alpha, levels(8, 4)[..., 3:])


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "tif"])
@pytest.mark.parametrize("stem", [NOT_UTF8, "b" * 251, "あ" * 83])
def test_any_name_can_be_written(tmp_path: Path, stem: str, suffix: str):
    path = tmp_path / f"{stem[: 254 - len(suffix)]}.{suffix}"
    write_picture(picture(), path)
    assert read_picture(path).colour.shape == (40, 50, 3)
    assert [found.name for found in tmp_path.iterdir()] == [path.name]


def test_a_name_that_is_not_utf8_is_shown_in_errors(tmp_path: Path):
    (tmp_path / f"{NOT_UTF8}.png").write_bytes(b"nonsense")
    with pytest.raises(PictureError, match=r"Stra\\xdfe\.png: cannot be read") as caught:
        read_picture(tmp_path / f"{NOT_UTF8}.png")
    str(caught.value).encode("utf-8")
    with pytest.raises(PictureError, match=r"Stra\\xdfe: no format"):
        write_picture(picture(), tmp_path / NOT_UTF8)


# What a format does not hold, or a file says twice ----------------------------------------------------------------


def test_jpeg_drops_alpha_that_is_opaque_everywhere_and_says_it(tmp_path: Path):
    opaque = Picture(levels(8, 3), np.full((40, 50, 1), 255, dtype=np.uint8))
    assert writable(opaque, "png") is opaque
    fitting = writable(opaque, "jpg")
    assert fitting.alpha is None
    assert fitting.notes == ("alpha left out: it is opaque everywhere",)
    write_picture(opaque, tmp_path / "a.jpg")
    assert read_picture(tmp_path / "a.jpg").colour.shape == (40, 50, 3)
    opaque.alpha[3, 4] = 254  # pyright: ignore[reportOptionalSubscript]
    with pytest.raises(PictureError, match="JPEG cannot hold"):
        writable(opaque, "jpg")


@pytest.mark.parametrize("suffix", ["png", "webp", "gif", "tif"])
def test_of_several_frames_the_first_is_read_and_it_is_said(tmp_path: Path, suffix: str):
    frames = [Image.fromarray(levels(8, 3, seed)) for seed in (0, 1)]
    frames[0].save(tmp_path / f"a.{suffix}", save_all=True, append_images=frames[1:])
    frames[0].save(tmp_path / f"one.{suffix}")
    assert read_picture(tmp_path / f"a.{suffix}").notes == ("several frames: the first is used",)
    assert read_picture(tmp_path / f"one.{suffix}").notes == ()


def test_text_and_gamma_of_png_are_said_to_be_left_out(tmp_path: Path):
    info = PngImagePlugin.PngInfo()
    info.add_text("Author", "somebody")
    info.add_text("Schöpfer", "jemand")
    info.add(b"gAMA", struct.pack(">I", 100_000))
    Image.fromarray(levels(8, 3)).save(tmp_path / "a.png", pnginfo=info)
    assert read_picture(tmp_path / "a.png").notes == (
        "gamma of PNG left out: 1",
        r"text of PNG left out: Author, Sch\xf6pfer",
    )


def test_a_gamma_that_srgb_overrides_is_not_worth_a_word(tmp_path: Path):
    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    Image.fromarray(levels(8, 3)).save(tmp_path / "a.png")
    whole = (tmp_path / "a.png").read_bytes()
    extra = chunk(b"sRGB", b"\0") + chunk(b"gAMA", struct.pack(">I", 45_455))
    (tmp_path / "a.png").write_bytes(whole[:33] + extra + whole[33:])
    assert read_picture(tmp_path / "a.png").notes == ()


XMP = (
    '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
    '<rdf:Description xmlns:tiff="http://ns.adobe.com/tiff/1.0/" tiff:Orientation="6"/></rdf:RDF></x:xmpmeta>'
)


@pytest.mark.parametrize("exif_too", [False, True])
@pytest.mark.parametrize("suffix", ["png", "jpg", "webp"])
def test_orientation_in_xmp_alone_turns_the_picture_and_is_reset_where_it_stays(tmp_path: Path, suffix, exif_too):
    source, exif, info = tmp_path / f"a.{suffix}", Image.Exif(), PngImagePlugin.PngInfo()
    exif[0x0112] = 6
    info.add_itxt("XML:com.adobe.xmp", XMP)
    options = {"pnginfo": info} if suffix == "png" else {"xmp": XMP.encode()}
    Image.fromarray(levels(8, 3)).save(source, **options, **({"exif": exif} if exif_too else {}))
    upright = read_picture(source)
    assert upright.colour.shape == (50, 40, 3)
    assert upright.notes == read_image(source).notes == ("turned upright by its orientation tag",)
    assert np.abs(upright.colour.astype(int) - read_image(source).pixels).max() <= 4
    write_picture(upright, tmp_path / "out.png")
    again = read_picture(tmp_path / "out.png")
    assert again.colour.shape == read_image(tmp_path / "out.png").pixels.shape == (50, 40, 3)
    assert again.notes == ()
    [xmp] = [value for name, _, value in again.header.fields if name == "xmp-data"]
    assert b'tiff:Orientation="1"' in xmp
