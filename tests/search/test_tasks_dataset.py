"""Sources of photographs, the split between training and validation, and batches of patches."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from search.tasks.dataset import PatchSampler, TaskData, embedded_task, folder_task, paired_task
from search.tasks.degradations import Denoise, Jpeg, SuperResolution
from search.tasks.images import photo_of
from search.tasks.matching import matched_folders
from search.tasks.pairs import TrainPhoto
from search.tasks.resize import bicubic_down
from search.types import InputError


def noise(height: int, width: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def write(folder: Path, name: str, pixels: np.ndarray) -> None:
    folder.mkdir(exist_ok=True, parents=True)
    Image.fromarray(pixels).save(folder / name)


def photo_folder(folder: Path, count: int, *, first: int = 0, side: int = 48) -> Path:
    for seed in range(first, first + count):
        write(folder, f"{seed:03}.png", noise(side, side + 1, seed))
    return folder


def names(data: TaskData) -> tuple[set[str], set[str]]:
    return {p.name for p in data.train}, {p.name for p in data.validation}


def coordinates(height: int, width: int, scale: int = 1) -> TaskData:
    """A photo whose prepared pixels hold (row, column, 7); each clean pixel repeats its degraded one."""
    rows, columns = np.meshgrid(np.arange(height), np.arange(width), indexing="ij")
    small = np.stack([rows, columns, np.full_like(rows, 7)], axis=2).astype(np.uint8)
    large = small.repeat(scale, axis=0).repeat(scale, axis=1)
    photo = TrainPhoto("grid", large, small, "0")
    return TaskData(degradation=None, upscale=scale, channels=3, train=(photo,), validation=())


def test_the_embedded_task_is_whole_without_any_file():
    data = embedded_task(SuperResolution(3), 3, seed=0)
    assert (len(data.train), len(data.validation), data.upscale) == (8, 4, 3)
    for pair in data.validation:
        assert max(pair.clean.shape) <= 512
        assert tuple(3 * n for n in pair.degraded.shape[:2]) == pair.clean.shape[:2]
    assert any("coffee.png: 600 x 400 px, validated on its centre" in note for note in data.notes)


def test_one_channel_means_luma_in_clean_and_degraded():
    data = embedded_task(SuperResolution(4), 1, seed=0)
    levels = np.concatenate([p.clean.ravel() for p in data.train])
    assert all(p.clean.shape[-1] == p.prepared.shape[-1] == 1 for p in data.train)
    assert 16 <= levels.min() < 30
    assert 220 < levels.max() <= 235
    assert data.validation[0].degraded.shape[-1] == 1


def test_two_channels_are_refused(tmp_path: Path):
    with pytest.raises(InputError, match=r"channels = 2.*choose"):
        folder_task(Denoise(25), photo_folder(tmp_path, 3), 2, seed=0)


@pytest.mark.parametrize(("count", "held_out"), [(2, 1), (5, 1), (10, 2), (60, 8)])
def test_about_a_fifth_is_held_out_and_nothing_twice(tmp_path: Path, count: int, held_out: int):
    data = folder_task(SuperResolution(2), photo_folder(tmp_path, count), 3, seed=0)
    train, validation = names(data)
    assert (len(train), len(validation)) == (count - held_out, held_out)
    assert not train & validation


def test_the_split_ignores_seeds_and_file_names(tmp_path: Path):
    photo_folder(tmp_path / "a", 10)
    for file in (tmp_path / "a").iterdir():
        write(tmp_path / "b", f"renamed_{99 - int(file.stem)}.png", np.array(Image.open(file)))
    first = folder_task(SuperResolution(2), tmp_path / "a", 3, seed=0)
    second = folder_task(SuperResolution(2), tmp_path / "b", 3, seed=5)
    assert {p.clean.tobytes() for p in first.validation} == {p.clean.tobytes() for p in second.validation}


def test_a_new_photo_moves_at_most_two_others(tmp_path: Path):
    photo_folder(tmp_path, 10)
    before = names(folder_task(SuperResolution(2), tmp_path, 3, seed=0))[1]
    for seed in range(10, 16):
        photo_folder(tmp_path, 1, first=seed)
        after = names(folder_task(SuperResolution(2), tmp_path, 3, seed=0))[1]
        assert len(before ^ after) <= 2
        before = after


def test_one_photo_alone_cannot_be_split(tmp_path: Path):
    with pytest.raises(InputError, match="At least two are needed"):
        folder_task(SuperResolution(2), photo_folder(tmp_path, 1), 3, seed=0)


def test_what_is_validated_on_may_not_be_trained_on_whatever_its_name(tmp_path: Path):
    train = photo_folder(tmp_path / "train", 5)
    write(tmp_path / "validation", "other_name.bmp", noise(48, 49, seed=3))
    with pytest.raises(InputError, match="1 of 5 training photographs are validated on as well") as caught:
        folder_task(SuperResolution(2), train, 3, 0, tmp_path / "validation")
    assert f"{train}/003.png = {tmp_path / 'validation'}/other_name.bmp" in str(caught.value)
    assert "take these files out of one of the two folders" in str(caught.value)


def test_of_many_leaks_five_are_named_and_all_are_counted(tmp_path: Path):
    folder = photo_folder(tmp_path, 7)
    with pytest.raises(InputError, match=r"7 of 7 training photographs(.|\n)*004\.png\n  … and 2 more"):
        folder_task(SuperResolution(2), folder, 3, 0, folder)


def test_photos_are_cropped_to_a_multiple_of_the_scale(tmp_path: Path):
    data = folder_task(SuperResolution(4), photo_folder(tmp_path, 3, side=66), 3, seed=0)
    assert {p.clean.shape for p in data.train} == {(64, 64, 3)}
    expected = bicubic_down(noise(66, 67, int(data.train[0].name[:3]))[:64, :64], 4)
    assert np.array_equal(data.train[0].prepared, expected)


def test_a_large_validation_photo_is_cropped_to_its_centre_and_said(tmp_path: Path):
    folder = photo_folder(tmp_path, 2, side=60)
    data = folder_task(Denoise(10), folder, 3, seed=0, max_validation_px=40)
    (pair,) = data.validation
    assert np.array_equal(pair.clean, noise(60, 61, int(pair.name[:3]))[10:50, 10:50])
    assert data.notes == (f"{pair.name}: 61 x 60 px, validated on its centre of at most 40 px a side",)
    assert data.train[0].clean.shape == (60, 61, 3)


def test_a_crop_too_small_to_score_is_refused(tmp_path: Path):
    with pytest.raises(InputError, match=r"max_validation_px = 63.*at least 64"):
        folder_task(SuperResolution(4), photo_folder(tmp_path, 2, side=70), 3, 0, max_validation_px=63)


def test_validation_noise_depends_on_seed_and_picture(tmp_path: Path):
    folder = photo_folder(tmp_path, 10)
    first, again, other = (folder_task(Denoise(25), folder, 3, seed=s).validation for s in (0, 0, 1))
    assert np.array_equal(first[0].degraded, again[0].degraded)
    assert not np.array_equal(first[0].degraded, other[0].degraded)
    residuals = [p.degraded - p.clean / np.float32(255) for p in first]
    assert not np.allclose(residuals[0], residuals[1], atol=1e-3)


def pair_folders(root: Path, *, scale: int = 2) -> tuple[Path, Path, Path, Path]:
    for part, first in (("train", 0), ("validation", 10)):
        for seed in range(first, first + 3):
            write(root / part / "clean", f"p{seed}.png", noise(64, 68, seed))
            small = bicubic_down(noise(64, 68, seed), scale)
            write(root / part / "degraded", f"p{seed}{'x2' if seed % 2 else '_LRx2'}.png", small)
    return tuple(root / part / kind for part in ("train", "validation") for kind in ("clean", "degraded"))


def test_pairs_are_matched_by_name_and_kept_as_given(tmp_path: Path):
    data = paired_task(*pair_folders(tmp_path), upscale=2, channels=3)
    assert names(data) == ({"p0.png", "p1.png", "p2.png"}, {"p10.png", "p11.png", "p12.png"})
    assert (data.degradation, data.notes) == (None, ())
    assert np.array_equal(data.train[1].prepared, bicubic_down(noise(64, 68, 1), 2))
    np.testing.assert_array_equal(np.rint(data.validation[0].degraded * 255), bicubic_down(noise(64, 68, 10), 2))


def test_cropped_pairs_still_show_the_same_place(tmp_path: Path):
    data = paired_task(*pair_folders(tmp_path), upscale=2, channels=3, max_validation_px=42)
    for pair in data.validation:
        whole = noise(64, 68, int(pair.name[1:3]))
        assert np.array_equal(pair.clean, whole[10:52, 12:54])  # the centre, moved to an even corner
        assert pair.degraded.shape == (21, 21, 3)
        inner = bicubic_down(pair.clean, 2)[4:-4, 4:-4] / np.float32(255)  # away from the crop's border
        np.testing.assert_array_equal(pair.degraded[4:-4, 4:-4], inner)


def test_unmatched_and_misfitting_pairs_are_left_out_and_said(tmp_path: Path):
    folders = pair_folders(tmp_path)
    write(folders[0], "lonely.png", noise(64, 64, 20))
    write(folders[1], "widowed.png", noise(32, 32, 21))
    write(folders[0], "wrong.png", noise(64, 64, 22))
    write(folders[1], "wrong.png", noise(33, 32, 22))
    data = paired_task(*folders, upscale=2, channels=3)
    assert names(data)[0] == {"p0.png", "p1.png", "p2.png"}
    assert [note.rsplit("/")[-1] for note in data.notes] == [
        "lonely.png: no degraded form",
        "widowed.png: no clean form",
        "wrong.png: 64 x 64 px is not 2 times the 32 x 33 px of wrong.png; left out",
    ]


@pytest.mark.parametrize(
    ("clean", "degraded"),
    [
        ("a_HR", "a_LR"),
        ("a_HR", "a_LR2"),
        ("a_HR_x2", "a_LRBI_x2"),
        ("img_001_SRF_2_HR", "img_001_SRF_2_LR"),
        ("a_GT", "a_LQ"),
        ("a_HQ", "a"),
        ("a_x1", "a_x2"),
        ("a", "a-lr"),
    ],
)
def test_the_usual_endings_of_super_resolution_sets_are_matched(tmp_path: Path, clean: str, degraded: str):
    write(tmp_path / "clean", f"{clean}.png", noise(64, 68, 0))
    write(tmp_path / "small", f"{degraded}.png", noise(32, 34, 0))
    pairs, lines = matched_folders(tmp_path / "clean", tmp_path / "small", 2)
    assert ([(c.name, d.name) for c, d in pairs], lines) == ([(f"{clean}.png", f"{degraded}.png")], [])


def test_names_that_only_look_like_endings_stay_apart(tmp_path: Path):
    for seed, name in enumerate(("photo", "photo2", "uhr", "u", "color")):
        write(tmp_path / "clean", f"{name}.png", noise(64, 68, seed))
        write(tmp_path / "small", f"{name}.png", noise(32, 34, seed))
    pairs, lines = matched_folders(tmp_path / "clean", tmp_path / "small", 2)
    assert all(c.name == d.name for c, d in pairs)
    assert (len(pairs), lines) == (5, [])


def test_a_clean_photograph_is_cropped_where_its_sides_are_no_multiple(tmp_path: Path):
    write(tmp_path / "clean", "a.png", noise(67, 81, 0))
    write(tmp_path / "small", "a.png", noise(33, 40, 1))
    [(clean, degraded)], lines = matched_folders(tmp_path / "clean", tmp_path / "small", 2)
    assert np.array_equal(clean.pixels, noise(67, 81, 0)[:66, :80])
    assert np.array_equal(degraded.pixels, noise(33, 40, 1))
    assert clean.digest == photo_of("a.png", noise(67, 81, 0)).digest  # of the whole photograph: it is one picture
    assert lines == ["a.png: 81 x 67 px is not 2 times the 40 x 33 px of a.png; cropped to 80 x 66 px"]


def test_folders_without_any_pair_are_an_error(tmp_path: Path):
    folders = pair_folders(tmp_path)
    with pytest.raises(InputError, match=r"hold no pair.*check upscale"):
        paired_task(*folders, upscale=1, channels=3)


def test_paired_training_photos_that_are_validated_on_are_refused(tmp_path: Path):
    clean, degraded, *validation = pair_folders(tmp_path)
    write(clean, "p99.png", noise(64, 68, 11))
    write(degraded, "p99.png", bicubic_down(noise(64, 68, 11), 2))
    with pytest.raises(InputError, match=r"clean/p99\.png = .*clean/p11\.png"):
        paired_task(clean, degraded, *validation, upscale=2, channels=1)


@pytest.mark.parametrize("degradation", [SuperResolution(2), Denoise(25)], ids=repr)
def test_a_batch_is_a_pure_function_of_seed_and_step(tmp_path: Path, degradation):
    data = folder_task(degradation, photo_folder(tmp_path, 4), 3, seed=0)
    first, second = PatchSampler(data, 8, 4, seed=3), PatchSampler(data, 8, 4, seed=3)
    for step in range(20):
        first.batch(step)
    assert torch.equal(first.batch(7).degraded, second.batch(7).degraded)
    assert torch.equal(first.batch(7).clean, second.batch(7).clean)
    assert not torch.equal(first.batch(7).degraded, first.batch(8).degraded)
    assert not torch.equal(first.batch(7).degraded, PatchSampler(data, 8, 4, seed=4).batch(7).degraded)


@pytest.mark.parametrize("channels", [1, 3])
def test_a_batch_has_its_shape_range_and_memory_layout(channels: int):
    batch = PatchSampler(embedded_task(SuperResolution(2), channels, 0), 16, 5, seed=0).batch(0)
    assert (batch.degraded.shape, batch.clean.shape) == ((5, channels, 16, 16), (5, channels, 32, 32))
    assert batch.labels is None
    for tensor in batch[:2]:
        assert tensor.dtype == torch.float32
        assert tensor.is_contiguous(memory_format=torch.channels_last)
        assert 0 <= tensor.min() < tensor.max() <= 1


def test_degraded_and_clean_patches_show_the_same_place_in_the_same_turn():
    sampler = PatchSampler(coordinates(20, 30, scale=3), 6, 8, seed=0)
    for step in range(10):
        batch = sampler.batch(step)
        repeated = batch.degraded.repeat_interleave(3, dim=2).repeat_interleave(3, dim=3)
        assert torch.equal(repeated, batch.clean)


def test_all_positions_and_all_eight_turns_occur():
    corners, turns = set(), set()
    sampler = PatchSampler(coordinates(7, 9), 4, 16, seed=0)
    for step in range(100):
        for patch in torch.round(sampler.batch(step).degraded * 255).int():
            corners.add((int(patch[0].min()), int(patch[1].min())))
            down, right = patch[:2, 1, 0] - patch[:2, 0, 0], patch[:2, 0, 1] - patch[:2, 0, 0]
            turns.add((*down.tolist(), *right.tolist()))
    assert corners == {(row, column) for row in range(4) for column in range(6)}
    assert len(turns) == 8


def test_photos_are_drawn_in_proportion_to_their_area():
    parts = [("small", 10, 10, 0), ("large", 10, 30, 255)]
    train = tuple(
        TrainPhoto(name, *(np.full((h, w, 1), level, dtype=np.uint8),) * 2, digest=name) for name, h, w, level in parts
    )
    data = TaskData(degradation=None, upscale=1, channels=1, train=train, validation=())
    sampler = PatchSampler(data, 4, 100, seed=0)
    share = float(np.mean([sampler.batch(step).clean.mean() for step in range(40)]))
    # 4,000 draws of probability 3/4: standard error 0.0068; 0.03 is more than 4 of them.
    assert abs(share - 0.75) < 0.03


def test_noise_in_training_is_unclipped_and_of_its_strength():
    black = np.zeros((40, 40, 3), dtype=np.uint8)
    data = TaskData(
        degradation=Denoise(25),
        upscale=1,
        channels=3,
        train=(TrainPhoto("a", black, black, "0"),),
        validation=(),
    )
    batch = PatchSampler(data, 32, 8, seed=0).batch(0)
    assert not batch.clean.any()
    assert abs(float(batch.degraded.std()) * 255 - 25) < 0.6  # 24,576 draws: 5 standard errors of 0.11
    assert batch.degraded.min() < 0


def test_a_photo_smaller_than_a_patch_is_left_out_and_said(tmp_path: Path):
    photo_folder(tmp_path, 6, side=100)
    folder = photo_folder(tmp_path, 6, first=6, side=48)
    sampler = PatchSampler(folder_task(SuperResolution(2), folder, 3, seed=0), 32, 4, seed=0)
    assert len(sampler.notes) > 0
    assert all("24 x 24 px is smaller than a patch of 32 px" in note for note in sampler.notes)
    assert sampler.batch(0).clean.shape == (4, 3, 64, 64)


def test_a_patch_that_fits_nowhere_is_an_error_with_the_largest_side(tmp_path: Path):
    data = folder_task(Jpeg(20), photo_folder(tmp_path, 3), 3, seed=0)
    with pytest.raises(InputError, match=r"patch_px = 49 fits into none of 2 .*48 px.*lower patch_px"):
        PatchSampler(data, 49, 4, seed=0)
    assert PatchSampler(data, 48, 4, seed=0).batch(0).degraded.shape == (4, 3, 48, 48)


@pytest.mark.parametrize("options", [(0, 1, 0), (8, 0, 0), (8, 1, -1)])
def test_senseless_sampler_options_are_refused(options: tuple[int, int, int]):
    with pytest.raises(InputError, match="must be at least"):
        PatchSampler(coordinates(20, 20), *options)
