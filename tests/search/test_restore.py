"""`restore` and `evaluate` as their user meets them: files, messages, exit codes."""

from __future__ import annotations

import csv
import errno
import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import Result
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageCms
from ruamel.yaml import YAML
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn
from typer.testing import CliRunner

from hfir import HFIRConfig, MoEConfig, build_model, fuse, save_weights
from hfir.presets import WEIGHTS_FILE
from hfir.tiling import Span, Window
from search.cli.app import app
from search.files import shown
from search.inference.channels import enlarged_part
from search.inference.jobs import Job, plan_jobs
from search.inference.networks import find_device, load_trained, measure_pass_memory, open_restorer
from search.inference.pictures import Picture, read_picture, write_picture
from search.inference.restoring import restore_all
from search.tasks.resize import bicubic_up, imresize
from search.types import InputError

ABSENT = "cuda:99"


def call(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(a) for a in arguments])


def preset(folder: Path, *, still: bool = True, task: dict | None = None, **options) -> Path:
    """Write a preset; a still one gives nothing but its base: the input itself, or its bicubic enlargement."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = fuse(build_model(HFIRConfig(width=4, **options)))
    if still:
        for parameter in model.head.parameters():
            nn.init.zeros_(parameter)
    folder.mkdir()
    save_weights(model, folder / WEIGHTS_FILE)
    if task is not None:
        YAML().dump({"task": task}, folder / "preset.yaml")
    return folder


@pytest.fixture(scope="module")
def same(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A preset that gives colour pictures back as they are."""
    return preset(tmp_path_factory.mktemp("presets") / "same", upscale=1)


@pytest.fixture(scope="module")
def double(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A preset that enlarges colour pictures twice, bicubically."""
    task = {"kind": "super_resolution", "upscale": 2, "channels": 3, "data": {"folder": "embedded"}}
    return preset(tmp_path_factory.mktemp("presets") / "double", upscale=2, task=task)


def levels(*shape: int, bits: int = 8, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 2**bits, shape).astype(np.uint8 if bits == 8 else np.uint16)


def smooth(height: int = 40, width: int = 48) -> np.ndarray:
    """Levels in the middle of the range, so that nothing clips."""
    small = np.random.default_rng(0).integers(60, 190, (height // 8, width // 8, 3)).astype(np.uint8)
    return bicubic_up(small, 8)


def picture_at(path: Path, colour: np.ndarray | None = None, alpha: np.ndarray | None = None) -> Picture:
    picture = Picture(levels(40, 48, 3) if colour is None else colour, alpha)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_picture(picture, path)
    return picture


# What a picture keeps ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("channels", [1, 3])
def test_depth_grey_and_alpha_go_through_tiles_untouched(same: Path, tmp_path: Path, bits: int, channels: int):
    before = picture_at(
        tmp_path / "in.png", levels(90, 70, channels, bits=bits), levels(90, 70, 1, bits=bits, seed=1) | 1
    )
    done = call("restore", tmp_path / "in.png", "--preset", same, "-o", tmp_path / "out.png", "--tile", 64)
    assert done.exit_code == 0, done.output
    assert "restored 1" in done.output
    assert "tiles=4" in done.output
    after = read_picture(tmp_path / "out.png")
    assert after.colour.dtype == before.colour.dtype
    assert np.array_equal(after.colour, before.colour)
    assert after.alpha is not None
    assert before.alpha is not None
    assert np.array_equal(after.alpha, before.alpha)


def test_enlarging_enlarges_alpha_bicubically_and_keeps_grey(double: Path, tmp_path: Path):
    colour, alpha = smooth()[..., :1], smooth()[..., 1:2]
    picture_at(tmp_path / "in.png", colour, alpha)
    assert call("restore", tmp_path / "in.png", "--preset", double, "-o", tmp_path / "out.png").exit_code == 0
    after = read_picture(tmp_path / "out.png")
    assert after.colour.shape == (80, 96, 1)
    assert after.alpha is not None
    assert np.array_equal(after.alpha, bicubic_up(alpha, 2))
    inside = (slice(8, -8), slice(8, -8))  # at the border bicubic mirrors, the network's base repeats
    assert np.abs(after.colour[inside].astype(int) - bicubic_up(colour, 2)[inside]).max() <= 1


def test_sixteen_bits_become_eight_where_the_format_has_no_more(same: Path, tmp_path: Path):
    before = picture_at(tmp_path / "in.png", levels(20, 30, 3, bits=16))
    done = call("restore", tmp_path / "in.png", "--preset", same, "-o", tmp_path / "o", "--format", "tif")
    assert done.exit_code == 0
    assert read_picture(tmp_path / "o/in.tif").bits == 16
    call("restore", tmp_path / "in.png", "--preset", same, "-o", tmp_path / "out.webp", "--quality", 100)
    assert read_picture(tmp_path / "out.webp").bits == 8
    assert before.bits == 16


def test_a_photograph_comes_out_upright_with_exif_and_profile(same: Path, tmp_path: Path):
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = 3, "Maker"
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    stored = levels(40, 48, 3)
    with Image.fromarray(stored) as image:
        image.save(tmp_path / "in.png", exif=exif, icc_profile=profile)
    assert call("restore", tmp_path / "in.png", "--preset", same, "-o", tmp_path / "out.png").exit_code == 0
    with Image.open(tmp_path / "out.png") as image:
        assert image.getexif()[0x0112] == 1
        assert image.getexif()[0x010F] == "Maker"
        assert image.info["icc_profile"] == profile
        assert np.array_equal(np.asarray(image), stored[::-1, ::-1])


@pytest.mark.parametrize("upscale", [1, 2])
def test_a_luma_network_leaves_chroma_to_bicubic(tmp_path: Path, upscale: int):
    """Its base is bicubic too, so luma and chroma meet again as if the whole had been enlarged."""
    luma = preset(tmp_path / "luma", in_channels=1, upscale=upscale)
    for name, colour in (("colour", smooth()), ("grey", smooth()[..., :1])):
        picture_at(tmp_path / f"{name}.png", colour)
        target = tmp_path / f"{name}-out.png"
        assert call("restore", tmp_path / f"{name}.png", "--preset", luma, "-o", target).exit_code == 0
        expected = bicubic_up(colour, upscale).astype(int)[8:-8, 8:-8]
        after = read_picture(target).colour
        assert after.shape[-1] == colour.shape[-1]
        assert np.abs(after[8:-8, 8:-8] - expected).max() <= (0 if upscale == 1 else 1)


def test_a_change_of_luma_changes_colours_and_grey_by_as_many_levels_as_it_stands_for(tmp_path: Path):
    """Luma spans 219 levels where grey spans 255: +219/255 * 20 levels of luma are +20 of red, green and blue."""
    brighter = preset(tmp_path / "brighter", in_channels=1, upscale=1)
    model = load_trained(str(brighter))
    nn.init.constant_(list(model.head.parameters())[-1], 219 / 255 * 20 / 255)
    save_weights(model, brighter / WEIGHTS_FILE)
    for channels in (1, 3):
        picture_at(tmp_path / f"{channels}.png", smooth()[..., :channels])
        target = tmp_path / f"{channels}-out.png"
        assert call("restore", tmp_path / f"{channels}.png", "--preset", brighter, "-o", target).exit_code == 0
        assert np.array_equal(read_picture(target).colour, smooth()[..., :channels] + 20)


@given(
    height=st.integers(1, 30),
    width=st.integers(1, 30),
    scale=st.integers(1, 4),
    corners=st.tuples(*[st.floats(0, 1)] * 4),
)
def test_any_part_of_an_enlargement_is_that_of_the_whole(height, width, scale, corners):
    image = levels(height, width, 2, bits=16, seed=height)
    whole = imresize(image / 65535, height * scale, width * scale) if scale > 1 else image / 65535
    top, bottom = sorted(round(c * height * scale) for c in corners[:2])
    left, right = sorted(round(c * width * scale) for c in corners[2:])
    part = enlarged_part(image, scale, Window(Span(top, bottom), Span(left, right)))
    np.testing.assert_allclose(part, whole[top:bottom, left:right], rtol=0, atol=1e-12)


# Which files, and what becomes of them ----------------------------------------------------------------------------


def test_one_broken_file_is_told_at_the_end_and_the_others_are_restored(same: Path, tmp_path: Path):
    for name in ("a.png", "c.png"):
        picture_at(tmp_path / "in" / name)
    picture_at(tmp_path / "in/d.png", alpha=levels(40, 48, 1))
    (tmp_path / "in/b.png").write_bytes(b"nonsense")
    (tmp_path / "in/notes.txt").write_text("not a picture")
    done = call("restore", tmp_path / "in", "--preset", same, "-o", tmp_path / "out", "--format", "jpg")
    assert done.exit_code == 1
    assert "restored 2, failed 2" in done.output
    assert "2 of 4 pictures could not be restored" in done.output
    assert f"{tmp_path / 'in/b.png'}: cannot be read as a picture" in done.output
    assert "d.png: the picture has alpha, which JPEG cannot hold" in done.output
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["a.jpg", "c.jpg"]


def test_what_is_there_stays_and_the_same_command_goes_on(same: Path, tmp_path: Path):
    for name in ("a.png", "b.png"):
        picture_at(tmp_path / "in" / name)
    (tmp_path / "out").mkdir()
    (tmp_path / "out/a.png").write_bytes(b"precious")
    command = ("restore", tmp_path / "in", "--preset", same, "-o", tmp_path / "out")
    done = call(*command)
    assert done.exit_code == 0
    assert "restored 1, there already 1 (--overwrite restores them anew)" in done.output
    assert (tmp_path / "out/a.png").read_bytes() == b"precious"
    assert "restored 2" in call(*command, "--overwrite").output
    assert read_picture(tmp_path / "out/a.png").colour.shape == (40, 48, 3)


def test_results_of_one_name_are_refused_before_anything_is_spent(same: Path, tmp_path: Path):
    picture_at(tmp_path / "in/a.png")
    picture_at(tmp_path / "in/a.webp")
    done = call("restore", tmp_path / "in", "--preset", same, "-o", tmp_path / "out")
    assert done.exit_code == 2
    assert "several inputs would have one result" in done.output
    assert "a.png and" in done.output
    assert "a.webp" in done.output
    assert not (tmp_path / "out").exists()


NOT_UTF8 = os.fsdecode(b"Stra\xdfe")


@pytest.mark.parametrize("stem", [NOT_UTF8, "b" * 251, "あ" * 83, "photo[bold]", ":smile:"])
def test_a_picture_of_any_name_is_restored(same: Path, tmp_path: Path, stem: str):
    picture_at(tmp_path / "in" / f"{stem}.png")
    (tmp_path / "in/b.png").write_bytes(b"nonsense")
    done = call("restore", tmp_path / "in", "--preset", same, "-o", tmp_path / "out")
    assert done.exit_code == 1
    assert "restored 1, failed 1" in done.output
    assert shown(f"{stem}.png") in done.output
    assert [p.name for p in (tmp_path / "out").iterdir()] == [f"{stem}.png"]


def test_a_result_whose_name_is_too_long_is_refused_before_anything_is_computed(
    same: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    picture_at(tmp_path / "in" / f"{'b' * 251}.png")
    (tmp_path / "out/c.webp").mkdir(parents=True)
    picture_at(tmp_path / "in/c.png")
    monkeypatch.setattr("search.inference.restoring.read_picture", None)
    done = call("restore", tmp_path / "in", "--preset", same, "-o", tmp_path / "out", "--format", "webp")
    assert done.exit_code == 1
    assert "b.webp cannot be written (File name too long)" in done.output
    assert "c.webp cannot be written: it is a folder" in done.output


def test_every_picture_of_a_folder_is_restored_and_the_rest_is_named(same: Path, tmp_path: Path):
    (tmp_path / "in/sub").mkdir(parents=True)
    for suffix in ("bmp", "gif", "avif", "tga", "ppm", "jp2", "png"):
        Image.fromarray(levels(40, 48, 3)).save(tmp_path / "in" / f"{suffix}.{suffix}")
    (tmp_path / "in/phone.heic").write_bytes(b"not decoded here")
    (tmp_path / "in/notes.txt").write_text("words")
    (tmp_path / "in/gone.png").symlink_to("nothing")
    (tmp_path / "in/twin.png").symlink_to("png.png")
    done = call("restore", tmp_path / "in", "--preset", same, "-o", tmp_path / "out")
    assert done.exit_code == 1
    assert "restored 7, failed 1" in done.stdout
    for words in (
        "phone.heic: cannot be read as a picture",
        "ignored 1 file without the suffix of an image: notes.txt",
        "gone.png: left out: the link points to nothing",
        "subfolders are not searched: sub",
        "twin.png: the same file as",
    ):
        assert words in done.stderr, words


def test_links_that_go_round_and_closed_folders_do_not_stop_a_batch(
    same: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    picture_at(tmp_path / "in/a/x.png")
    for name in ("u", "v"):
        (tmp_path / "in/a" / name).symlink_to("..")
    (tmp_path / "in/lost+found").mkdir()
    scandir = os.scandir

    def refusing(path: Path):
        if Path(path).name == "lost+found":
            raise PermissionError(errno.EACCES, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refusing)  # the tests may run as root, whom nothing is closed to
    done = call("restore", tmp_path / "in", "--recursive", "--preset", same, "-o", tmp_path / "out")
    assert done.exit_code == 0, done.output
    assert "lost+found: left out: Permission denied" in done.stderr
    assert [p.relative_to(tmp_path / "out").as_posix() for p in (tmp_path / "out").rglob("*.png")] == ["a/x.png"]


def test_a_note_that_holds_for_many_pictures_is_printed_once(same: Path, tmp_path: Path):
    frames = [Image.fromarray(levels(40, 48, 3, seed=seed)) for seed in (0, 1)]
    (tmp_path / "in").mkdir()
    for number in range(7):
        frames[0].save(tmp_path / "in" / f"{number}.webp", save_all=True, append_images=frames[1:])
    done = call("restore", tmp_path / "in", "--preset", same, "-o", tmp_path / "out")
    assert done.stderr.count("several frames") == 1
    assert "several frames: the first is used: " in done.stderr
    assert "4.webp and 2 more" in done.stderr


def test_opaque_alpha_is_dropped_for_jpeg(same: Path, tmp_path: Path):
    picture_at(tmp_path / "a.png", alpha=np.full((40, 48, 1), 255, dtype=np.uint8))
    done = call("restore", tmp_path / "a.png", "--preset", same, "-o", tmp_path / "out", "--format", "jpg")
    assert done.exit_code == 0, done.output
    assert "alpha left out: it is opaque everywhere" in done.stderr
    assert read_picture(tmp_path / "out/a.jpg").colour.shape == (40, 48, 3)


def test_finished_pictures_are_looked_up_once_each(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """So that the time grows with their number, not with its square: comparisons of jobs are counted."""
    jobs = [Job(tmp_path / f"{n}.png", tmp_path / "out" / f"{n}.png") for n in range(300)]
    (tmp_path / "out").mkdir()
    for job in jobs:
        job.target.touch()
    looked, equal = [], Path.__eq__

    def counted(self: Path, other: object) -> bool:
        looked.append(self)
        return equal(self, other)

    monkeypatch.setattr(Path, "__eq__", counted)
    outcome = restore_all(None, jobs)  # pyright: ignore[reportArgumentType]
    assert len(outcome.there_already) == 300
    assert len(looked) < 10 * 300


def test_a_result_never_replaces_an_input(same: Path, tmp_path: Path):
    picture_at(tmp_path / "a.png")
    for out in (tmp_path, tmp_path / "a.png", tmp_path / "sub" / ".." / "a.png"):
        done = call("restore", tmp_path / "a.png", "--preset", same, "-o", out, "--overwrite")
        assert done.exit_code == 2
        assert "would replace an input" in done.output


def test_folders_are_searched_below_only_where_asked_and_never_in_the_results(tmp_path: Path):
    for name in ("a.png", "sub/b.jpg", "out/c.png", ".hidden.png", "sub/.git/d.png"):
        picture_at(tmp_path / name)
    flat = plan_jobs([tmp_path], tmp_path / "out")
    assert [job.target.relative_to(tmp_path).as_posix() for job in flat.jobs] == ["out/a.png"]
    deep = plan_jobs([tmp_path, tmp_path / "a.png"], tmp_path / "out", recursive=True, format_name="webp")
    assert [job.target.relative_to(tmp_path).as_posix() for job in deep.jobs] == ["out/a.webp", "out/sub/b.webp"]


def test_out_is_a_file_for_one_input_with_a_suffix_and_else_a_folder(tmp_path: Path):
    picture_at(tmp_path / "a.png")
    picture_at(tmp_path / "b.png")
    one, both = [tmp_path / "a.png"], [tmp_path / "a.png", tmp_path / "b.png"]
    (tmp_path / "dir.png").mkdir()
    assert plan_jobs(one, tmp_path / "x.tif").jobs[0].target == tmp_path / "x.tif"
    assert plan_jobs(one, tmp_path / "x").jobs[0].target == tmp_path / "x/a.png"
    assert plan_jobs(one, tmp_path / "dir.png").jobs[0].target == tmp_path / "dir.png/a.png"
    assert plan_jobs(both, tmp_path / "x.v2").jobs[1].target == tmp_path / "x.v2/b.png"
    with pytest.raises(InputError, match="the two must agree"):
        plan_jobs(one, tmp_path / "x.tif", format_name="png")
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="need a folder"):
        plan_jobs(both, tmp_path / "file")


def test_inputs_that_are_missing_or_empty_are_refused(tmp_path: Path):
    with pytest.raises(InputError, match="no such file or folder"):
        plan_jobs([tmp_path / "none.png"], tmp_path / "out")
    with pytest.raises(InputError, match=r"no pictures.*--recursive"):
        plan_jobs([tmp_path], tmp_path / "out")


def test_a_folder_that_cannot_be_made_is_refused(same: Path, tmp_path: Path):
    picture_at(tmp_path / "a.png")
    (tmp_path / "file").write_text("")
    done = call("restore", tmp_path / "a.png", "--preset", same, "-o", tmp_path / "file/out")
    assert done.exit_code == 2
    assert "cannot be made a folder" in done.output


# The network ------------------------------------------------------------------------------------------------------


def test_a_name_without_weights_is_refused(tmp_path: Path):
    picture_at(tmp_path / "a.png")
    done = call("restore", tmp_path / "a.png", "--preset", "efficient", "-o", tmp_path / "out.png")
    assert done.exit_code == 2
    assert "a configuration without weights" in done.output
    assert not (tmp_path / "out.png").exists()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--device", ABSENT), "sees"),
        (("--device", "gpu"), "Use cpu, cuda or cuda:N"),
        (("--half", "fp8"), "Use one of none, bf16, fp16"),
        (("--format", "gif"), "Use one of png, jpg, webp, tif"),
        (("--tile", "40"), "tile 40 px with overlap 32 px"),
        (("--overlap", "-1"), "overlap -1 px"),
        (("--memory-limit-mib", "1"), "The limit must hold one such tile"),
        (("--preset", "nowhere"), "no such file"),
    ],
)
def test_what_cannot_be_done_is_said_before_anything_is_spent(same: Path, tmp_path: Path, options, words: str):
    picture_at(tmp_path / "a.png")
    done = call("restore", tmp_path / "a.png", "--preset", same, "-o", tmp_path / "out", *options)
    assert done.exit_code == 2, done.output
    assert words in done.output
    assert not (tmp_path / "out").exists()


def test_a_network_of_four_channels_is_no_network_for_pictures(tmp_path: Path):
    with pytest.raises(InputError, match="a network of 4 channels"):
        open_restorer(str(preset(tmp_path / "four", in_channels=4)))


def test_devices_are_named_as_torch_names_them():
    assert find_device("cpu") == torch.device("cpu")
    for wrong in ("cpu:1", "cuda:", "cuda:x", "mps", ""):
        with pytest.raises(InputError, match="Use cpu, cuda or cuda:N"):
            find_device(wrong)


def test_a_training_form_is_folded_on_loading(tmp_path: Path):
    save_weights(build_model(HFIRConfig(width=4)), tmp_path / "a.safetensors")
    assert load_trained(str(tmp_path / "a.safetensors")).config.fused


def test_memory_grows_with_the_pixels_of_a_tile(double: Path):
    memory = measure_pass_memory(open_restorer(str(double)))
    assert memory.fixed_mib >= 0
    assert memory.bytes_per_px > 4 * (3 + 3 * 4)  # input and output alone


@pytest.mark.parametrize("half", ["bf16", "fp16"])
def test_half_precision_leaves_the_picture_its_bits(tmp_path: Path, half: str):
    """bf16 has 8 bits of mantissa: a base in bf16 would be off by 128 levels of 16 bits and more."""
    enlarging = preset(tmp_path / "net", still=False, upscale=2)
    before = smooth().astype(np.uint16) * 257
    picture_at(tmp_path / "in.png", before)
    results = []
    for precision in ("none", half):
        target = tmp_path / f"{precision}.png"
        done = call("restore", tmp_path / "in.png", "--preset", enlarging, "-o", target, "--half", precision)
        assert done.exit_code == 0, done.output
        results.append(read_picture(target).colour.astype(int))
    assert 0 < np.abs(results[0] - results[1]).max() < 40


def test_a_network_that_diverged_is_told_and_writes_nothing(tmp_path: Path):
    broken = preset(tmp_path / "broken", upscale=1)
    model = load_trained(str(broken))
    nn.init.constant_(next(model.head.parameters()), float("nan"))
    save_weights(model, broken / WEIGHTS_FILE)
    picture_at(tmp_path / "a.png")
    done = call("restore", tmp_path / "a.png", "--preset", broken, "-o", tmp_path / "out.png")
    assert done.exit_code == 1
    assert "output holds values that are not finite" in done.output
    assert not (tmp_path / "out.png").exists()


# Scores -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def photographs(tmp_path: Path) -> Path:
    for name in ("a", "b"):
        picture_at(tmp_path / f"photos/{name}.png", levels(67, 80, 3, seed=ord(name)))
    return tmp_path / "photos"


def test_a_bicubic_network_scores_as_bicubic_does_beside_the_border(double: Path, tmp_path: Path):
    picture_at(tmp_path / "photos/a.png", smooth(160, 160))
    scores = json.loads(call("evaluate", double, "--data", tmp_path / "photos", "--json").stdout)
    assert scores["task"] == "super_resolution upscale=2"
    assert scores["baseline"] == "bicubic"
    assert "border of 2 px" in scores["conventions"]
    assert scores["mean"]["psnr_db"] == pytest.approx(scores["mean"]["baseline_psnr_db"], abs=0.5)
    assert [row["image"] for row in scores["images"]] == ["a.png"]


def test_a_network_that_does_nothing_scores_as_its_input_and_tiles_do_not_matter(
    same: Path, photographs: Path, tmp_path: Path
):
    task = ("--task", "{kind: denoise, sigma: 10}")
    whole = call("evaluate", same, "--data", photographs, *task, "--json")
    tiled = call("evaluate", same, "--data", photographs, *task, "--json", "--tile", 64, "--csv", tmp_path / "s.csv")
    first, second = (json.loads(done.stdout) for done in (whole, tiled))
    assert first["images"] == second["images"]
    assert second["tile_px"] == 64
    for row in first["images"]:
        assert row["psnr_db"] == row["baseline_psnr_db"]
        assert 27 < row["psnr_db"] < 29.5  # sigma 10 is 28.13 dB; clipping at the ends of the range adds some
    with (tmp_path / "s.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["image"] for row in rows] == ["a.png", "b.png"]
    assert float(rows[0]["psnr_db"]) == first["images"][0]["psnr_db"]


def test_the_table_states_its_conventions(same: Path, photographs: Path):
    (photographs / "c.png").write_bytes(b"nonsense")
    done = call("evaluate", same, "--data", photographs, "--task", "{kind: jpeg, quality: 40}")
    assert done.exit_code == 0, done.output
    assert "jpeg quality=40" in done.stdout
    assert "PSNR and SSIM on RGB, whole images, after rounding to 8 bits" in done.stdout
    assert "mean" in done.stdout
    assert "+0.00" in done.stdout
    assert "c.png: cannot be read" in done.stdout.replace("\n", " ")


def test_pairs_are_matched_by_name(double: Path, same: Path, tmp_path: Path):
    picture_at(tmp_path / "clean/a.png", levels(64, 80, 3))
    picture_at(tmp_path / "small/ax2.png", levels(32, 40, 3, seed=5))
    picture_at(tmp_path / "noisy/a.png", levels(64, 80, 3))
    scores = json.loads(
        call("evaluate", double, "--data", tmp_path / "clean", "--degraded", tmp_path / "small", "--json").stdout
    )
    assert scores["mean"]["psnr_db"] < 20
    equal = json.loads(
        call("evaluate", same, "--data", tmp_path / "clean", "--degraded", tmp_path / "noisy", "--json").stdout
    )
    assert equal["mean"]["psnr_db"] == 100
    assert equal["task"] == f"pairs with {tmp_path / 'noisy'}"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ((), "no preset.yaml beside the weights"),
        (("--task", "{kind: denoise, sigmaa: 3}"), "Did you mean sigma?"),
        (("--task", "{kind: denoise, sigma: 300}"), "task.sigma: 300 is too large"),
        (("--task", "[1, 2]"), "task"),
        (("--task", "{kind: denoise, data: embedded}"), "--data names the photographs"),
        (("--task", "{kind: super_resolution}"), "enlarges by 2, the network by 1"),
        (("--task", "{kind: denoise}", "--degraded", "."), "Leave one out"),
        (("--task", "{kind: denoise}", "--csv", "no/such/folder.csv"), "cannot be written"),
    ],
)
def test_what_cannot_be_scored_is_refused(same: Path, photographs: Path, options, words: str):
    done = call("evaluate", same, "--data", photographs, *options)
    assert done.exit_code == 2, done.output
    assert words in done.output


def test_a_weight_file_alone_is_scored_on_bicubic_super_resolution(photographs: Path, tmp_path: Path):
    alone = preset(tmp_path / "alone", upscale=3) / WEIGHTS_FILE
    scores = json.loads(call("evaluate", alone, "--data", photographs, "--json").stdout)
    assert scores["task"] == "super_resolution upscale=3"


def test_a_damaged_record_is_told(tmp_path: Path, photographs: Path):
    damaged = preset(tmp_path / "damaged", upscale=2)
    (damaged / "preset.yaml").write_text("name: x\n")
    done = call("evaluate", damaged, "--data", photographs)
    assert done.exit_code == 2
    assert "holds no task that can be read" in done.output


def test_help_loads_neither_torch_nor_libvips():
    import subprocess
    import sys

    code = (
        "import sys; from search.cli import main; from contextlib import suppress\n"
        "sys.argv = ['hfir-search', 'restore', '--help']\n"
        "with suppress(SystemExit): main()\n"
        "assert not {'torch', 'pyvips', 'numpy'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, env=os.environ)
    assert done.returncode == 0, done.stderr
    assert "--memory-limit-mib" in done.stdout


def test_a_network_that_asks_is_told_the_degradation(tmp_path: Path):
    # A trained router: what it is told decides. Without it, it decides by itself, and says so.
    asking = MoEConfig(num_experts=4, condition_channels=4)
    folder = preset(tmp_path / "asking", still=False, upscale=1, experts=asking)
    state = load_file(folder / WEIGHTS_FILE)
    state["bottleneck.experts.conditioned.weight"] = 100 * torch.eye(4)
    state["bottleneck.experts.scale"].fill_(50.0)
    with safe_open(folder / WEIGHTS_FILE, framework="pt") as file:
        metadata = file.metadata()
    save_file(state, folder / WEIGHTS_FILE, metadata=metadata)
    picture = tmp_path / "in.png"
    pixels = np.random.default_rng(0).integers(0, 256, (32, 40, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(picture)
    results = set()
    for name in ("texture", "denoise", "deblur", "artifact"):
        out = tmp_path / f"{name}.png"
        assert call("restore", picture, "--preset", folder, "-o", out, "--degradation", name).exit_code == 0
        results.add(out.read_bytes())
    assert len(results) == 4
    blind = call("restore", picture, "--preset", folder, "-o", tmp_path / "blind.png")
    assert "asks for the degradation and was told none" in blind.stderr


def test_a_degradation_that_is_unknown_or_not_asked_for_is_refused(tmp_path: Path, same: Path):
    picture = tmp_path / "in.png"
    Image.new("RGB", (32, 32)).save(picture)
    for name, words in (("denoise", "cannot be told 'denoise'"), ("rain", "Use one of texture")):
        result = call("restore", picture, "--preset", same, "-o", tmp_path / "out", "--degradation", name)
        assert result.exit_code == 2
        assert words in result.stderr
