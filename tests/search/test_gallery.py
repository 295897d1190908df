"""Pictures for the report: the most detailed place, crops of each form, presets that are one network."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from hfir import HFIRConfig
from hfir.model import build_model
from hfir.presets import PRESET_FILE, WEIGHTS_FILE, save_weights
from search.evaluation.plan import TaskPlan
from search.gallery import SIDE_PX, most_detailed, write_gallery
from search.report.pictures import read_pictures
from search.tasks.images import read_image

DOUBLE = TaskPlan(
    kind="super_resolution", options=(("upscale", 2),), channels=3, folders=(("folder", "embedded"),), seed=0
)
NOISY = TaskPlan(kind="denoise", options=(("sigma", 25.0),), channels=1, folders=(("folder", "embedded"),), seed=0)


@pytest.fixture
def make_presets(tmp_path):
    """Return a function that writes presets by name, each from a seed; equal seeds are equal networks."""

    def make(seeds, **choices):
        for name, seed in seeds.items():
            torch.manual_seed(seed)
            (tmp_path / "presets" / name).mkdir(parents=True)
            model = build_model(HFIRConfig(width=8, bottleneck_blocks=0, decoder_blocks=(0,), **choices))
            save_weights(model, tmp_path / "presets" / name / WEIGHTS_FILE)
        return tmp_path

    return make


def test_the_most_detailed_place_is_found_on_the_grid():
    clean = np.zeros((40, 60, 3), dtype=np.uint8)
    clean[21:29:2, 33:41] = 255
    window = most_detailed(clean, 12, 4)
    assert window.side == 12
    assert window.top % 4 == window.left % 4 == 0
    assert window.top <= 20
    assert window.top + window.side >= 29
    assert window.left <= 32
    assert window.left + window.side >= 41


def test_a_flat_or_small_photograph_has_a_place_too():
    assert most_detailed(np.zeros((20, 30, 1), dtype=np.uint8), 96, 3) == (0, 0, 18)


def test_each_preset_is_shown_between_the_input_and_the_truth(make_presets):
    folder = make_presets({"fastest": 1, "balanced": 1, "best": 2})
    written = write_gallery(folder, DOUBLE)
    photographs = read_pictures(folder)
    assert len(photographs) == 3
    for photograph in photographs:
        assert [form.name for form in photograph.forms] == ["input", "bicubic", "fastest = balanced", "best", "truth"]
        assert [form.psnr_db is None for form in photograph.forms] == [True, False, False, False, True]
        assert len({form.source for form in photograph.forms}) == 5
    crops = [read_image(path).pixels for path in written if path.suffix == ".png"]
    assert {crop.shape for crop in crops} == {(SIDE_PX, SIDE_PX, 3)}
    assert sum(path.stat().st_size for path in written) < 600_000


def test_presets_of_latency_classes_follow_the_three_and_other_folders_are_left_out(make_presets):
    seeds = {"within_20ms": 3, "within_5ms": 1, "best": 2, "fastest": 1, "within_9ms": 5, "copy": 4}
    folder = make_presets(seeds, upscale=1, in_channels=1)
    for role in seeds:
        (folder / "presets" / role / PRESET_FILE).write_text(f"role: {'best' if role == 'copy' else role}\n")
    write_gallery(folder, NOISY)
    names = [form.name for form in read_pictures(folder)[0].forms]
    assert names == ["input", "fastest = within_5ms", "best", "within_9ms", "within_20ms", "truth"]


def test_a_crop_is_cut_from_where_the_list_says(make_presets):
    folder = make_presets({"best": 1}, upscale=1, in_channels=1)
    write_gallery(folder, NOISY)
    [first, *_] = json.loads((folder / "pictures/pictures.json").read_text())["photographs"]
    assert [form["name"] for form in first["forms"]] == ["input", "best", "truth"]
    assert 20.0 < first["forms"][0]["psnr_db"] < 21.0  # sigma 25: 10 log10(255² / 25²) = 20.17, and clipping helps
    assert len(first["window"]) == 3
    with Image.open(folder / "pictures" / first["forms"][2]["file"]) as truth:
        assert truth.mode == "L"


def test_old_pictures_are_replaced_and_none_are_made_without_presets(make_presets, tmp_path):
    assert write_gallery(tmp_path, DOUBLE) == []
    folder = make_presets({"best": 1}, upscale=1, in_channels=1)
    (folder / "pictures").mkdir()
    (folder / "pictures/old.png").write_bytes(b"")
    write_gallery(folder, NOISY)
    assert not (folder / "pictures/old.png").exists()
