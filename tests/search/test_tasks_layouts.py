"""Data sets by the layout of their folders: what is recognised, what is held out, what is said of a half one."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from search.evaluation.evaluator import look_at_data, task_data
from search.evaluation.plan import EvaluationPlan, TaskPlan
from search.experiment import load_experiment
from search.tasks.dataset import layout_task
from search.tasks.degradations import Deblur, Denoise, SuperResolution
from search.tasks.layouts import recognised
from search.tasks.resize import bicubic_down
from search.types import InputError


def noise(seed: int, height: int = 72, width: int = 72) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def write(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def div2k(root: Path, *scales: int) -> Path:
    for part, first in (("train", 1), ("valid", 801)):
        for number in range(first, first + 3):
            write(root / f"DIV2K_{part}_HR/{number:04}.png", noise(number))
            for scale in scales:
                small = bicubic_down(noise(number), scale)
                write(root / f"DIV2K_{part}_LR_bicubic/X{scale}/{number:04}x{scale}.png", small)
    return root


def gopro(root: Path, sequences: int = 6, frames: int = 4) -> Path:
    for sequence in range(sequences):
        for frame in range(frames):
            seed = 100 * sequence + frame
            for part, shift in (("sharp", 0), ("blur", 10_000)):
                write(root / f"train/GOPR0372_07_{sequence:02}/{part}/{frame:06}.png", noise(seed + shift))
    write(root / "test/GOPR0384_11_00/sharp/000001.png", noise(7))
    return root


def sidd(root: Path, scenes: int = 5, phones: tuple[str, ...] = ("S6", "GP")) -> Path:
    number = 0
    for scene in range(1, scenes + 1):
        for phone in phones:
            number += 1
            folder = root / f"Data/{number:04}_{scene:03}_{phone}_00100_00060_3200_L"
            write(folder / f"{number:04}_GT_SRGB_010.PNG", noise(number))
            write(folder / f"{number:04}_NOISY_SRGB_010.PNG", noise(number + 1000))
    return root


def plan(root: Path, kind: str = "denoise", upscale: int = 2) -> TaskPlan:
    options = {"denoise": ("sigma", 25.0), "deblur": ("blur_sigma_px", 2.0), "super_resolution": ("upscale", upscale)}
    return TaskPlan(kind=kind, options=(options[kind],), channels=3, folders=(("folder", str(root)),), seed=0)


# DIV2K --------------------------------------------------------------------------------------------


def test_div2k_is_recognised_and_its_files_are_the_degraded_forms(tmp_path: Path):
    data = task_data(plan(div2k(tmp_path, 2, 3), "super_resolution", upscale=3))
    assert ({p.name for p in data.train}, len(data.validation)) == ({"0001.png", "0002.png", "0003.png"}, 3)
    assert data.degradation is None
    assert data.notes[0] == f"{tmp_path}: recognised as DIV2K: 3 to train on, 3 to validate on"
    assert "files of DIV2K_train_LR_bicubic/X3" in data.notes[1]
    assert np.array_equal(data.train[0].prepared, bicubic_down(noise(1), 3))


def test_without_files_of_the_scale_div2k_is_shrunk_here_and_said(tmp_path: Path):
    data = layout_task("div2k", div2k(tmp_path, 2), "super_resolution", SuperResolution(4), 3, 0)
    assert data.degradation == SuperResolution(4)
    assert any("no DIV2K_train_LR_bicubic/X4: degraded forms are made here" in note for note in data.notes)


def test_other_tasks_take_the_clean_photographs_of_div2k(tmp_path: Path):
    data = layout_task(None, div2k(tmp_path, 2), "denoise", Denoise(25), 3, 0)
    assert (data.degradation, len(data.train), len(data.validation)) == (Denoise(25), 3, 3)


# GoPro, SIDD --------------------------------------------------------------------------------------


def test_whole_sequences_of_gopro_are_held_out(tmp_path: Path):
    data = task_data(plan(gopro(tmp_path), "deblur"))
    train, validation = ({Path(p.name).parts[1] for p in photos} for photos in (data.train, data.validation))
    assert (len(train), len(validation), len(data.train), len(data.validation)) == (5, 1, 20, 4)
    assert not train & validation
    assert f"recognised as GoPro: 20 pairs to train on, 4 of sequence {validation.pop()} held out" in data.notes[0]
    assert "GOPR0384_11_00" not in " ".join(p.name for p in data.train), "the test set is left alone"
    number = int(data.train[0].name.split("_")[-1][:2]) * 100
    assert np.array_equal(data.train[0].prepared, noise(number + 10_000))
    assert np.array_equal(data.train[0].clean, noise(number))


def test_of_many_frames_held_out_eight_are_validated_on_and_the_rest_is_not_used(tmp_path: Path):
    data = layout_task("gopro", gopro(tmp_path, 2, 11), "motion_blur", Deblur(2), 3, 0)
    assert (len(data.train), len(data.validation)) == (11, 8)
    assert [pair.name[-6:-4] for pair in data.validation][::7] == ["00", "10"]
    assert f"{tmp_path}: 3 of the pairs held out are not used: 8 are validated on" in data.notes


def test_whole_scenes_of_sidd_are_held_out(tmp_path: Path):
    data = task_data(plan(sidd(tmp_path), "denoise"))
    train, validation = ({p.name.split("_")[1] for p in photos} for photos in (data.train, data.validation))
    assert (len(train), len(validation), len(data.train), len(data.validation)) == (4, 1, 8, 2)
    assert not train & validation
    number = int(Path(data.train[0].name).name[:4])
    assert np.array_equal(data.train[0].prepared, noise(number + 1000))


def test_an_unreadable_pair_is_named_and_the_others_are_used(tmp_path: Path):
    gopro(tmp_path)
    broken = tmp_path / "train/GOPR0372_07_00/blur/000002.png"
    broken.write_bytes(b"nonsense")
    data = task_data(plan(tmp_path, "deblur"))
    assert any(str(broken) in note for note in data.notes) or len(data.validation) == 3
    assert len(data.train) + len(data.validation) == 23


# What does not fit --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "lost", "kind", "words"),
    [
        (div2k, "DIV2K_valid_HR", "denoise", r"has the layout div2k in part; missing with images:\n  DIV2K_valid_HR\n"),
        (div2k, "DIV2K_train_HR", "denoise", r"DIV2K_train_HR\n  DIV2K has DIV2K_train_HR and"),
        (
            gopro,
            "train/GOPR0372_07_01/blur",
            "deblur",
            r"missing with images:\n  train/GOPR0372_07_01/blur\n  GoPro has",
        ),
        (gopro, "train/GOPR0372_07_01/blur/000003.png", "deblur", r"missing:\n  train/GOPR0372_07_01/blur/000003\.png"),
        (sidd, "Data/0002_001_GP_00100_00060_3200_L/0002_NOISY_SRGB_010.PNG", "denoise", r"0002_NOISY_SRGB_010\.PNG"),
        (sidd, "Data/0002_001_GP_00100_00060_3200_L/0002_GT_SRGB_010.PNG", "denoise", r"L/\*_GT_SRGB_\*\n  SIDD has"),
    ],
)
def test_a_half_data_set_is_told_once_with_what_is_missing(tmp_path: Path, make, lost: str, kind: str, words: str):
    path = make(tmp_path) / lost
    for file in [path] if path.is_file() else list(path.iterdir()):
        file.unlink()
    with pytest.raises(InputError, match=words) as caught:
        task_data(plan(tmp_path, kind))
    assert "Add what is missing, or name the folders" in str(caught.value)


def test_small_files_for_one_half_only_are_told(tmp_path: Path):
    for file in (div2k(tmp_path, 2) / "DIV2K_valid_LR_bicubic/X2").iterdir():
        file.unlink()
    with pytest.raises(InputError, match=r"missing with images:\n  DIV2K_valid_LR_bicubic/X2\n"):
        layout_task("div2k", tmp_path, "super_resolution", SuperResolution(2), 3, 0)


def test_many_gaps_are_counted(tmp_path: Path):
    for file in gopro(tmp_path).glob("train/*/blur/000001.png"):
        file.unlink()
    with pytest.raises(InputError, match="… and 1 more"):
        task_data(plan(tmp_path, "deblur"))


def test_a_task_that_the_pairs_are_not_for_is_refused(tmp_path: Path):
    with pytest.raises(InputError, match="gopro holds pairs for deblur and motion_blur, the task is denoise"):
        task_data(plan(gopro(tmp_path)))


def test_a_single_scene_cannot_be_split(tmp_path: Path):
    with pytest.raises(InputError, match=r"one scene \(001\) cannot be both"):
        task_data(plan(sidd(tmp_path, 1)))


def test_a_folder_of_photographs_is_no_data_set_whatever_lies_below_it(tmp_path: Path):
    gopro(tmp_path)
    assert recognised(tmp_path) == "gopro"
    for seed in range(3):
        write(tmp_path / f"{seed}.png", noise(seed))
    assert recognised(tmp_path) is None
    assert len(task_data(plan(tmp_path)).train) == 2
    assert recognised(tmp_path / "nowhere") is None


# In an experiment file ----------------------------------------------------------------------------


def test_an_experiment_names_the_layout_and_check_says_what_was_recognised(tmp_path: Path):
    sidd(tmp_path / "sidd")
    file = tmp_path / "x.yaml"
    file.write_text("name: x\ntask: {kind: denoise, data: {layout: sidd, root: sidd}}\nspace: {width: [8, 16]}\n")
    found = load_experiment(file).evaluation_plan()
    assert dict(found.task.folders) == {"layout": "sidd", "root": str(tmp_path / "sidd")}
    assert isinstance(found, EvaluationPlan)
    baseline = look_at_data(found)
    assert any("recognised as SIDD" in note for note in baseline.notes)
