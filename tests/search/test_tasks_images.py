"""Whatever people put into a folder of photographs."""

import errno
import json
import os
import socket
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from search.tasks import embedded
from search.tasks.embedded import embedded_photos
from search.tasks.images import ImageProblem, load_folder, photo_of, read_image
from search.types import InputError

ORIENTATION = 0x0112


def noise(height: int, width: int, channels: int = 3, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, channels), dtype=np.uint8)


def save(path: Path, pixels: np.ndarray, **options) -> Path:
    Image.fromarray(pixels).save(path, **options)
    return path


def test_a_colour_image_is_read_as_it_is(tmp_path: Path):
    photo = read_image(save(tmp_path / "a.png", noise(8, 6)))
    assert np.array_equal(photo.pixels, noise(8, 6))
    assert (photo.name, photo.notes, photo.pixels.flags.writeable) == ("a.png", (), False)


def test_a_grey_image_gets_three_equal_channels(tmp_path: Path):
    grey = noise(8, 6, 1)
    photo = read_image(save(tmp_path / "a.png", grey[..., 0]))
    assert np.array_equal(photo.pixels, np.repeat(grey, 3, axis=2))


def test_alpha_is_dropped_and_said(tmp_path: Path):
    rgba = noise(8, 6, 4)
    photo = read_image(save(tmp_path / "a.png", rgba))
    assert np.array_equal(photo.pixels, rgba[..., :3])
    assert photo.notes == ("alpha dropped, not blended",)


def test_grey_with_alpha_is_read(tmp_path: Path):
    image = Image.merge("LA", [Image.fromarray(noise(8, 6, 1)[..., 0]), Image.new("L", (6, 8), 9)])
    image.save(tmp_path / "a.png")
    photo = read_image(tmp_path / "a.png")
    assert np.array_equal(photo.pixels[..., 1], noise(8, 6, 1)[..., 0])
    assert photo.notes == ("alpha dropped, not blended",)


def test_a_palette_image_is_read_in_its_colours(tmp_path: Path):
    image = Image.new("P", (6, 8), 1)
    image.putpalette([0, 0, 0, 10, 20, 30])
    image.save(tmp_path / "plain.png")
    image.save(tmp_path / "transparent.png", transparency=bytes([0, 128]))
    for name, notes in (("plain.png", ()), ("transparent.png", ("alpha dropped, not blended",))):
        photo = read_image(tmp_path / name)
        assert photo.pixels[3, 3].tolist() == [10, 20, 30]
        assert photo.notes == notes


@pytest.mark.parametrize("name", ["a.png", "a.tif"])
def test_sixteen_bit_grey_is_scaled_and_rounded(tmp_path: Path, name: str):
    # 129 / 257 = 0.502 -> 1 (its high byte is 0), 257 * 7 -> 7, 65535 -> 255.
    levels = np.tile(np.array([[0, 128, 129, 257 * 7, 65535]], dtype=np.uint16), (5, 1))
    photo = read_image(save(tmp_path / name, levels))
    assert photo.pixels[0, :, 0].tolist() == [0, 0, 1, 7, 255]
    assert photo.notes == ("16-bit grey: scaled by 1/257",)


def write_png48(path: Path, levels: np.ndarray) -> None:
    """Pillow writes no PNG of 16 bits a channel, so it is put together here."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    height, width, _ = levels.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in levels)
    header = struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + body)


def write_tiff48(path: Path, levels: np.ndarray) -> None:
    pytest.importorskip("tifffile").imwrite(path, levels, photometric="rgb")


@pytest.mark.parametrize("write", [write_png48, write_tiff48])
def test_sixteen_bit_colour_is_within_one_level_and_said(tmp_path: Path, write):
    levels = np.random.default_rng(0).integers(0, 65536, (8, 6, 3), dtype=np.uint16)
    path = tmp_path / ("a.png" if write is write_png48 else "a.tif")
    write(path, levels)
    photo = read_image(path)
    assert np.abs(photo.pixels - levels / 257).max() <= 1
    assert photo.notes == ("16-bit colour: the high byte is kept",)


def test_levels_of_unknown_range_are_refused(tmp_path: Path):
    with pytest.raises(ImageProblem, match=r"32-bit.*convert it to PNG"):
        read_image(save(tmp_path / "a.tif", np.ones((8, 6), dtype=np.float32)))


def test_a_rotated_photo_is_turned_upright(tmp_path: Path):
    exif = Image.Exif()
    exif[ORIENTATION] = 6  # to be turned by 90 degrees clockwise when shown
    photo = read_image(save(tmp_path / "a.png", noise(8, 6), exif=exif))
    assert np.array_equal(photo.pixels, np.rot90(noise(8, 6), -1))
    assert photo.notes == ("turned upright by its orientation tag",)


def test_cmyk_becomes_rgb(tmp_path: Path):
    Image.new("CMYK", (16, 16), (0, 255, 255, 0)).save(tmp_path / "a.jpg")
    photo = read_image(tmp_path / "a.jpg")
    red, green, blue = photo.pixels[8, 8].tolist()
    assert red > 250
    assert max(green, blue) < 5
    assert photo.notes == ("CMYK converted to RGB without a colour profile",)


def test_of_several_frames_the_first_is_used(tmp_path: Path):
    frames = [Image.new("RGB", (6, 8), colour) for colour in ("red", "blue")]
    frames[0].save(tmp_path / "a.tif", save_all=True, append_images=frames[1:])
    photo = read_image(tmp_path / "a.tif")
    assert photo.pixels[0, 0].tolist() == [255, 0, 0]
    assert photo.notes == ("several frames: the first is used",)


def test_a_small_image_is_refused_with_its_size(tmp_path: Path):
    with pytest.raises(ImageProblem, match=r"6 x 40 pixels are too few.*at least 32"):
        read_image(save(tmp_path / "a.png", noise(40, 6)), min_side=32)


def unreadable_files(folder: Path) -> list[Path]:
    (folder / "text.png").write_text("not an image at all")
    (folder / "empty.jpg").write_bytes(b"")
    whole = save(folder / "whole.png", noise(64, 64)).read_bytes()
    (folder / "cut.png").write_bytes(whole[: len(whole) // 2])
    damaged = bytearray(whole)
    damaged[16:24] = b"\xff" * 8  # the size in its header: 4 294 967 295 squared
    (folder / "damaged.png").write_bytes(damaged)
    return [folder / name for name in ("text.png", "empty.jpg", "cut.png", "damaged.png", "missing.png")]


def test_unreadable_files_are_each_one_line_that_names_the_file(tmp_path: Path):
    for path in unreadable_files(tmp_path):
        with pytest.raises(ImageProblem) as caught:
            read_image(path)
        message = str(caught.value)
        assert "\n" not in message
        assert message.startswith(f"{path}: ")
        assert len(message) < len(str(path)) + 250


def test_a_folder_skips_what_it_cannot_use_and_says_each(tmp_path: Path):
    unreadable_files(tmp_path)
    save(tmp_path / "b.png", noise(64, 64, seed=1))
    save(tmp_path / "small.png", noise(4, 64))
    save(tmp_path / ".hidden.png", noise(64, 64, seed=2))
    (tmp_path / "sub").mkdir()
    for name in ("notes.txt", "paper.pdf"):
        (tmp_path / name).write_text("x")
    photos, lines = load_folder(tmp_path, min_side=32)
    assert [p.name for p in photos] == ["b.png", "whole.png"]
    reported = [line.split(": ")[0].rsplit("/")[-1] for line in lines]
    assert reported == ["cut.png", "damaged.png", "empty.jpg", "small.png", "text.png", tmp_path.name, tmp_path.name]
    assert lines[-2].endswith("subfolders are not searched: sub")
    assert lines[-1].endswith("ignored 2 files without the suffix of an image: notes.txt, paper.pdf")
    assert next(line for line in lines if "empty.jpg" in line).endswith(
        "the file is empty. Copy it again, or take it out."
    )


def test_the_same_picture_in_two_files_is_used_once(tmp_path: Path):
    save(tmp_path / "a.png", noise(40, 40))
    save(tmp_path / "b.bmp", noise(40, 40))
    photos, lines = load_folder(tmp_path, min_side=32)
    assert [p.name for p in photos] == ["a.png"]
    assert lines == [f"{tmp_path / 'b.bmp'}: the same picture as a.png; used once"]


def test_the_digest_tells_shapes_and_pixels_apart():
    flat = np.zeros((4, 6, 3), dtype=np.uint8)
    assert photo_of("a", flat).digest == photo_of("b", flat).digest
    assert photo_of("a", flat).digest != photo_of("a", flat.reshape(6, 4, 3)).digest
    assert photo_of("a", flat).digest != photo_of("a", flat + np.uint8(1)).digest
    assert len(photo_of("a", flat).digest) == 16


NOT_UTF8 = os.fsdecode(b"Stra\xdfe")


SUFFIXES = ["png", "jpg", "webp", "tif", "gif", "avif", "bmp", "tga", "ppm", "jp2", "qoi", "pcx", "sgi", "dds"]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_picture_of_any_name_is_read_and_its_name_shown(tmp_path: Path, suffix: str):
    save(tmp_path / f"a.{suffix}", noise(40, 40))
    (tmp_path / f"a.{suffix}").rename(tmp_path / f"{NOT_UTF8}.{suffix}")
    [photo], lines = load_folder(tmp_path, min_side=32)
    assert (photo.name, photo.pixels.shape, lines) == (rf"Stra\xdfe.{suffix}", (40, 40, 3), [])
    json.dumps(photo.name, ensure_ascii=False).encode("utf-8")


def test_left_out_files_of_any_name_are_named(tmp_path: Path):
    save(tmp_path / "a.png", noise(40, 40))
    save(tmp_path / f"{NOT_UTF8}.png", noise(40, 40))
    (tmp_path / f"{NOT_UTF8}.jpg").write_text("no picture")
    (tmp_path / f"{NOT_UTF8}.txt").touch()
    (tmp_path / f"{NOT_UTF8}.tif").symlink_to("nothing")
    (tmp_path / NOT_UTF8).mkdir()
    _, lines = load_folder(tmp_path, min_side=32)
    for name in ("Stra\\xdfe.png", "Stra\\xdfe.jpg", "Stra\\xdfe.txt", "Stra\\xdfe.tif", "searched: Stra\\xdfe"):
        assert any(name in line for line in lines), name
    "\n".join(lines).encode("utf-8")


def test_a_folder_and_a_file_that_are_closed_are_told_with_the_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    save(tmp_path / "a.png", noise(40, 40))
    save(tmp_path / "b.png", noise(40, 40))
    real = Path.open

    def refuse(self: Path, *arguments, **options):
        if self.name == "a.png":
            raise PermissionError(errno.EACCES, "Permission denied", str(self))
        return real(self, *arguments, **options)

    monkeypatch.setattr(Path, "open", refuse)  # the tests may run as root, whom nothing is closed to
    photos, lines = load_folder(tmp_path, min_side=32)
    assert [p.name for p in photos] == ["b.png"]
    assert "a.png: cannot be opened (Permission denied)" in lines[0]
    assert "make it readable" in lines[0]

    def closed(path):
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(os, "scandir", closed)
    with pytest.raises(InputError, match=r"the folder cannot be read \(Permission denied\)"):
        load_folder(tmp_path, min_side=32)


def test_sixteen_bit_grey_of_pgm_is_read(tmp_path: Path):
    levels = np.tile(np.array([[0, 129, 65535]], dtype=">u2"), (3, 1))
    (tmp_path / "a.pgm").write_bytes(b"P5 3 3 65535\n" + levels.tobytes())
    photo = read_image(tmp_path / "a.pgm")
    assert photo.pixels[0, :, 0].tolist() == [0, 1, 255]
    assert photo.notes == ("16-bit grey: scaled by 1/257",)


def test_a_picture_of_too_many_pixels_is_told_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    save(tmp_path / "a.png", noise(40, 40))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 700)
    with pytest.raises(ImageProblem, match=r"a\.png: 1600 pixels are too many\. At most 1400 .* shrink it\."):
        read_image(tmp_path / "a.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    assert read_image(tmp_path / "a.png").notes == ()


def test_a_missing_folder_is_an_error(tmp_path: Path):
    with pytest.raises(InputError, match="no such folder"):
        load_folder(tmp_path / "nowhere", min_side=1)


def test_a_folder_without_usable_images_is_an_error_that_lists_the_problems(tmp_path: Path):
    for i in range(7):
        (tmp_path / f"{i}.png").write_text("text")
    with pytest.raises(InputError, match="no usable image") as caught:
        load_folder(tmp_path, min_side=1)
    assert "0.png" in str(caught.value)
    assert str(caught.value).endswith("… and 2 more")


def test_the_embedded_split_is_disjoint_and_read_without_a_network(monkeypatch: pytest.MonkeyPatch):
    def refuse(*arguments: object, **options: object) -> None:
        raise AssertionError("a socket was opened")

    monkeypatch.setattr(socket, "socket", refuse)
    train, validation = embedded_photos()
    assert [p.name for p in validation] == ["chelsea.png", "coffee.png", "coins.png", "china.jpg"]
    assert len(train) == 8
    assert not {p.digest for p in train} & {p.digest for p in validation}
    assert len({p.digest for p in train + validation}) == 12
    assert not any(p.notes for p in train + validation)


def test_the_embedded_photographs_are_the_expected_pictures():
    # PNG files only: a JPEG may decode to other pixels with another version of its library.
    digests = {p.name: p.digest for p in embedded_photos().validation}
    assert digests["chelsea.png"] == "f325c1e0198be361"
    assert digests["coffee.png"] == "752246d00137b4f7"
    assert digests["coins.png"] == "07717ce7155d5753"


@pytest.mark.parametrize("module", ["skimage", "surely_not_installed"])
def test_a_missing_embedded_photograph_names_package_and_version(monkeypatch: pytest.MonkeyPatch, module: str):
    monkeypatch.setattr(embedded, "_TRAIN", {(module, "scikit-image", "data"): ("gone.png",)})
    with pytest.raises(InputError, match=r"gone\.png cannot be read from scikit-image \d+\..*reinstall"):
        embedded_photos()
