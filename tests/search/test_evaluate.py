"""`evaluate`: bicubic against an independent computation, metrics, and what is compared with what."""

from __future__ import annotations

import json
import math
import types
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import Result
from PIL import Image
from ruamel.yaml import YAML
from skimage import color, data, metrics
from torch import nn
from typer.testing import CliRunner

from hfir import HFIRConfig, build_model, fuse, save_weights
from hfir.presets import WEIGHTS_FILE
from search.cli.app import app
from search.evaluation.perceptual import PerceptualMetric
from search.inference.scoring import Ruler
from search.report.intervals import difference
from search.tasks.images import read_image
from search.types import InputError


def call(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(a) for a in arguments])


def preset(folder: Path, *, shift: float = 0.0, **options) -> Path:
    """Write a preset that gives its base plus a constant."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = fuse(build_model(HFIRConfig(width=4, **options)))
    for parameter in model.head.parameters():
        nn.init.zeros_(parameter)
    last = [p for p in model.head.parameters() if p.ndim == 1][-1]
    nn.init.constant_(last, shift)
    folder.mkdir()
    save_weights(model, folder / WEIGHTS_FILE)
    return folder


@pytest.fixture
def photographs(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    for name, photo in (("cat", data.chelsea()), ("coffee", data.coffee()), ("face", data.astronaut())):
        Image.fromarray(photo[100:221, 120:265]).save(folder / f"{name}.png")
    return folder


# Bicubic ------------------------------------------------------------------------------------------


def keys_matrix(before: int, after: int) -> np.ndarray:
    """MATLAB's imresize of one axis as a dense matrix, written out by its definition."""
    matrix, scale = np.zeros((after, before)), after / before
    stretch = min(scale, 1.0)
    for i in range(after):
        centre = (i + 0.5) / scale - 0.5
        for j in range(math.floor(centre - 2 / stretch) - 1, math.ceil(centre + 2 / stretch) + 2):
            x = abs(centre - j) * stretch
            weight = 1.5 * x**3 - 2.5 * x**2 + 1 if x <= 1 else -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2 if x < 2 else 0
            mirrored = -1 - j if j < 0 else 2 * before - 1 - j if j >= before else j
            matrix[i, mirrored] += weight
    return matrix / matrix.sum(axis=1, keepdims=True)


def resized(image: np.ndarray, height: int, width: int) -> np.ndarray:
    rows, columns = keys_matrix(image.shape[0], height), keys_matrix(image.shape[1], width)
    return np.floor(np.einsum("ih,hwc,jw->ijc", rows, image, columns) + 0.5).clip(0, 255)


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_bicubic_scores_what_its_definition_gives(photographs: Path, scale: int):
    done = call("evaluate", "bicubic", "--data", photographs, "--upscale", scale, "--json")
    assert done.exit_code == 0, done.output
    scores = json.loads(done.stdout)
    for row in scores["images"]:
        image = np.array(Image.open(photographs / row["image"])).astype(float)
        clean = image[: image.shape[0] // scale * scale, : image.shape[1] // scale * scale]
        small = resized(clean, clean.shape[0] // scale, clean.shape[1] // scale)
        restored = resized(small, *clean.shape[:2])
        inner = (slice(scale, -scale), slice(scale, -scale))
        a, b = (np.floor(color.rgb2ycbcr(i / 255)[..., 0][inner] + 0.5) for i in (clean, restored))
        assert row["psnr_db"] == pytest.approx(metrics.peak_signal_noise_ratio(a, b, data_range=255), abs=0.002)
        options = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
        assert row["ssim"] == pytest.approx(metrics.structural_similarity(a, b, data_range=255, **options), abs=1e-4)
    assert scores["baseline"] is None
    assert f"luma Y (BT.601, 16..235, 8 bits) without a border of {scale} px" in scores["conventions"]
    assert scores["mean"]["psnr_db"] == pytest.approx(np.mean([row["psnr_db"] for row in scores["images"]]))


def test_rgb_is_scored_where_asked_and_said(photographs: Path):
    luma, colour = (
        json.loads(call("evaluate", "bicubic", "--data", photographs, "--upscale", 2, "--json", *more).stdout)
        for more in ((), ("--rgb",))
    )
    assert "on RGB without a border of 2 px" in colour["conventions"]
    assert colour["mean"]["psnr_db"] < luma["mean"]["psnr_db"] - 0.5  # luma is squeezed to 219 of 255 levels


def test_bicubic_scores_pairs_of_files(photographs: Path, tmp_path: Path):
    small = tmp_path / "small"
    small.mkdir()
    for file in photographs.iterdir():
        image = Image.open(file).crop((0, 0, 144, 120))
        image.save(file)
        Image.fromarray(resized(np.array(image).astype(float), 60, 72).astype(np.uint8)).save(small / file.name)
    made, given = (
        json.loads(call("evaluate", "bicubic", "--data", photographs, "--upscale", 2, "--json", *more).stdout)
        for more in ((), ("--degraded", small))
    )
    assert made["images"] == given["images"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ((), "Give --upscale 2, 3 or 4"),
        (("--upscale", 2, "--task", "{kind: jpeg}"), "--task: for networks, not for bicubic"),
        (("--upscale", 2, "--half", "bf16", "--tile", 64), "--tile, --half: for networks"),
        (("--upscale", 2, "--metrics", "psnr,vmaf"), "Name each once, joined by commas: psnr, ssim, lpips, dists"),
        (("--upscale", 2, "--metrics", "ssim,ssim"), "--metrics ssim,ssim: not a list of metrics"),
    ],
)
def test_what_bicubic_cannot_do_is_refused(photographs: Path, options, words: str):
    done = call("evaluate", "bicubic", "--data", photographs, *options)
    assert done.exit_code == 2, done.output
    assert words in " ".join(done.output.split())


# Comparisons --------------------------------------------------------------------------------------


def test_two_networks_are_compared_image_by_image(photographs: Path, tmp_path: Path):
    plain, shifted = preset(tmp_path / "plain", upscale=2), preset(tmp_path / "shifted", upscale=2, shift=0.05)
    done = call("evaluate", plain, "--data", photographs, "--against", shifted, "--json")
    assert done.exit_code == 0, done.output
    scores = json.loads(done.stdout)
    gains = [row["psnr_db"] - row["baseline_psnr_db"] for row in scores["images"]]
    found = scores["difference"]["psnr_db"]
    assert scores["baseline"] == str(shifted)
    assert found["mean"] == pytest.approx(np.mean(gains))
    low, high = found["interval_95"]
    assert min(gains) <= low <= found["mean"] <= high <= max(gains)
    assert low > 0, "a network that is brighter by 5 % is worse on every photograph"
    table = call("evaluate", plain, "--data", photographs, "--against", shifted).stdout
    assert "95 % interval" in table
    assert "paired bootstrap over 3 images" in table
    assert "narrower than it says" in table


def test_networks_of_two_scales_do_not_compare(photographs: Path, tmp_path: Path):
    two, three = (preset(tmp_path / f"x{scale}", upscale=scale) for scale in (2, 3))
    done = call("evaluate", two, "--data", photographs, "--against", three)
    assert done.exit_code == 2
    assert "must agree in both" in " ".join(done.output.split())


def test_a_network_says_its_scale_itself_and_luma_has_no_rgb(photographs: Path, tmp_path: Path):
    luma = preset(tmp_path / "luma", upscale=2, in_channels=1)
    for option, words in ((("--upscale", 2), "--upscale is for bicubic"), (("--rgb",), "restores luma alone")):
        done = call("evaluate", luma, "--data", photographs, *option)
        assert done.exit_code == 2
        assert words in " ".join(done.output.split())


def test_an_interval_of_differences_holds_their_mean_and_needs_two_images():
    one, other = [30.0, 31.0, 35.0, 28.0], [30.5, 31.6, 35.4, 28.5]
    interval = difference(one, other)
    assert interval is not None
    assert 0.4 <= interval.low < 0.5 < interval.high <= 0.6
    assert difference([30.0], [31.0]) is None
    assert difference([30.0, 31.0], [math.inf, 31.0]) is None


# The leak guard -----------------------------------------------------------------------------------


def recorded(folder: Path, photographs: Path, *, role: str, complete: bool = True, **card) -> Path:
    """Write a preset that has seen a picture under another name."""
    made = preset(folder, upscale=2)
    seen = {"train": {}, "validation": {}, "complete": complete}
    seen[role][read_image(photographs / "cat.png").digest] = "holiday.bmp"
    task = {"kind": "super_resolution", "upscale": 2}
    YAML().dump({"task": task, "photographs": seen, **card}, made / "preset.yaml")
    return made


@pytest.mark.parametrize(("role", "words"), [("train", "trained on"), ("validation", "selected by")])
def test_a_network_is_not_tested_on_what_it_has_seen(photographs: Path, tmp_path: Path, role: str, words: str):
    network = recorded(tmp_path / "net", photographs, role=role)
    done = call("evaluate", network, "--data", photographs)
    said = " ".join(done.output.split())
    assert done.exit_code == 2
    assert "has seen 1 of these 3 photographs" in said
    assert f"cat.png = holiday.bmp, {words}" in said
    assert "take them out of --data" in said
    allowed = json.loads(call("evaluate", network, "--data", photographs, "--seen", "--json").stdout)
    assert any(f"--seen: {network} has seen 1" in note and "cat.png" in note for note in allowed["notes"])


def test_the_other_network_of_a_comparison_is_held_to_it_too(photographs: Path, tmp_path: Path):
    known, fresh = recorded(tmp_path / "known", photographs, role="train"), preset(tmp_path / "fresh", upscale=2)
    done = call("evaluate", fresh, "--data", photographs, "--against", known)
    assert done.exit_code == 2
    assert "known has seen 1 of these 3 photographs" in " ".join(done.output.split())


def test_pairs_of_files_are_held_to_it_too(photographs: Path, tmp_path: Path):
    (tmp_path / "small").mkdir()
    for file in photographs.iterdir():
        image = Image.open(file).crop((0, 0, 144, 120))
        image.save(file)
        image.resize((72, 60)).save(tmp_path / "small" / file.name)
    network = recorded(tmp_path / "net", photographs, role="train")
    assert call("evaluate", network, "--data", photographs, "--degraded", tmp_path / "small").exit_code == 2


def test_what_cannot_be_checked_is_said(photographs: Path, tmp_path: Path):
    old, alone = preset(tmp_path / "old", upscale=2), tmp_path / "alone.safetensors"
    (old / WEIGHTS_FILE).rename(alone)
    notes = json.loads(call("evaluate", alone, "--data", photographs, "--json").stdout)["notes"]
    assert any("does not record which photographs" in note and "not checked" in note for note in notes)
    (photographs / "cat.png").rename(tmp_path / "cat.png")
    half = recorded(tmp_path / "half", tmp_path, role="train", complete=False)
    notes = json.loads(call("evaluate", half, "--data", photographs, "--json").stdout)["notes"]
    assert any("checked in part" in note for note in notes)


# Perceptual metrics -------------------------------------------------------------------------------


def absolute_difference(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    assert a.shape == b.shape
    assert a.shape[:2] == (1, 3)
    return (a - b).abs().mean()


@pytest.fixture
def pyiqa(monkeypatch: pytest.MonkeyPatch) -> types.ModuleType:
    """A stand-in with pyiqa's one function; the real one wants its weights from the internet."""
    module = types.ModuleType("pyiqa")
    module.create_metric = lambda name, device: absolute_difference
    monkeypatch.setitem(__import__("sys").modules, "pyiqa", module)
    monkeypatch.setattr("search.evaluation.perceptual.version", lambda name: "0.0")
    return module


def test_perceptual_metrics_see_the_same_pixels_in_rgb_from_0_to_1(pyiqa):
    clean = np.full((20, 24, 3), 100, dtype=np.uint8)
    off = clean + np.uint8(51)
    off[:2] = 255  # within the border
    ruler = Ruler(["lpips", "psnr"], scale=2, channels=3)
    figures = ruler.figures(off / 255.0, clean)
    assert list(figures) == ["lpips", "psnr_db"]
    assert figures["lpips"] == pytest.approx(0.2, abs=1e-6)
    assert "LPIPS (pyiqa 0.0; lower is better) on RGB without a border of 2 px" in ruler.conventions
    grey = Ruler(["dists"], scale=1, channels=1)
    assert grey.figures(off[..., :1] / 255.0, off[..., :1]) == {"dists": 0.0}
    assert "of three equal channels" in grey.conventions


def test_weights_that_cannot_be_fetched_are_told(pyiqa):
    def offline(name, device):
        raise OSError("<urlopen error no route to host>")

    pyiqa.create_metric = offline
    with pytest.raises(InputError, match=r"lpips: its weights cannot be loaded \(OSError: .*no route.*\n  pyiqa downl"):
        PerceptualMetric("lpips", torch.device("cpu"))


def test_a_missing_package_is_told_with_its_extra(monkeypatch: pytest.MonkeyPatch, photographs: Path):
    monkeypatch.setitem(__import__("sys").modules, "pyiqa", None)
    done = call("evaluate", "bicubic", "--data", photographs, "--upscale", 2, "--metrics", "psnr,ssim,lpips,dists")
    assert done.exit_code == 2
    assert "pip install 'hfir-search[perceptual]'" in " ".join(done.output.split())
