"""The mixed task: four degradations by their labels, in training and validation; and nothing changed for the others."""

import hashlib

import numpy as np
import pytest
import torch

from search.evaluation.quality import bicubic_baseline
from search.tasks.dataset import PatchSampler, TaskData, embedded_task
from search.tasks.degradations import Deblur, Degradation, Denoise, Jpeg, LostDetail, Mixed, SuperResolution, by_label
from search.tasks.images import Photo
from search.tasks.pairs import train_forms, validation_pairs
from search.tasks.resize import bicubic_down, bicubic_up

NAMES = ("texture", "denoise", "deblur", "artifact")


def photo(height: int = 51, width: int = 64, seed: int = 0) -> Photo:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Photo(f"p{seed}.png", pixels, f"{seed + 1:x}")


def task(degradation: Degradation | Mixed, photos: int = 3) -> TaskData:
    made = [photo(seed=seed) for seed in range(photos + 1)]
    return TaskData(
        degradation=degradation,
        upscale=degradation.upscale,
        channels=3,
        train=tuple(form for p in made[1:] for form in train_forms(p, degradation, 3)),
        validation=tuple(validation_pairs(made[0], degradation, 3, 0, None)),
    )


def test_detail_is_lost_by_shrinking_to_half_and_enlarging_again():
    clean = photo(50, 64).pixels
    assert np.array_equal(LostDetail().prepare(clean), bicubic_up(bicubic_down(clean, 2), 2))


@pytest.mark.parametrize(("height", "width"), [(51, 64), (33, 35), (1, 1)])
def test_odd_sides_keep_their_size_and_a_constant_its_level(height: int, width: int):
    flat = np.full((height, width, 1), 200, dtype=np.uint8)
    assert np.array_equal(LostDetail().prepare(flat), flat)


def test_the_parts_are_named_in_the_order_of_their_labels():
    mixed = Mixed(15, 1.2, 30)
    assert mixed.names == NAMES
    assert dict(by_label(mixed)) == {0: LostDetail(), 1: Denoise(15), 2: Deblur(1.2), 3: Jpeg(30)}
    assert dict(by_label(Denoise(15))) == {None: Denoise(15)}
    assert not by_label(None)


def test_every_photograph_is_prepared_once_for_each_degradation_in_8_bits():
    forms = train_forms(photo(), Mixed(), 3)
    assert [form.label for form in forms] == [0, 1, 2, 3]
    assert all(form.prepared.dtype == np.uint8 and form.clean is forms[0].clean for form in forms)
    assert forms[1].prepared is forms[1].clean, "noise is drawn later: no copy is kept for it"
    assert len({form.prepared.tobytes() for form in forms}) == 4


def test_photographs_are_counted_once_in_all_their_forms():
    data = task(Mixed())
    assert (len(data.train), data.train_images, data.labels) == (12, 3, NAMES)
    assert (task(Denoise(25)).train_images, task(Denoise(25)).labels) == (3, ())


def test_each_degradation_is_as_likely_and_drawn_for_each_patch_by_itself():
    sampler = PatchSampler(task(Mixed()), 8, 16, seed=0)
    labels = torch.stack([sampler.batch(step).labels for step in range(100)])
    shares = torch.bincount(labels.flatten(), minlength=4) / labels.numel()
    # 1,600 draws of probability 1/4: standard error 0.011; 0.045 is 4 of them.
    assert (shares - 0.25).abs().max() < 0.045
    assert sum(len(set(row.tolist())) > 1 for row in labels) > 95


def test_a_patch_has_the_degradation_that_its_label_says():
    data = task(Mixed(sigma=50))
    batch = PatchSampler(data, 16, 64, seed=1).batch(3)
    assert batch.labels.dtype == torch.int64
    prepared = {
        label: {form.prepared.tobytes(): form for form in data.train if form.label == label} for label in range(4)
    }
    for degraded, clean, label in zip(batch.degraded, batch.clean, batch.labels.tolist(), strict=True):
        noisy = not np.allclose(degraded.numpy() * 255, np.rint(degraded.numpy() * 255), atol=1e-3)
        assert noisy == (label == 1)
        if noisy:  # 768 draws: standard error of the deviation 1.3
            assert abs(float((degraded - clean).std()) * 255 - 50) < 6
        else:
            whole = [form.prepared for form in prepared[label].values()]
            assert any(holds(image, np.rint(degraded.permute(1, 2, 0).numpy() * 255)) for image in whole)


def holds(image: np.ndarray, patch: np.ndarray) -> bool:
    """Say whether a patch, turned in any way, stands somewhere in an image."""
    windows = np.lib.stride_tricks.sliding_window_view(image, patch.shape)[:, :, 0].astype(np.float32)
    turns = [np.rot90(side, k) for side in (patch, patch.swapaxes(0, 1)) for k in range(4)]
    return any((np.abs(windows - turn).max(axis=(2, 3, 4)) == 0).any() for turn in turns)


def test_a_mixed_batch_is_a_pure_function_of_seed_and_step():
    data = task(Mixed())
    first, second = PatchSampler(data, 8, 8, seed=3), PatchSampler(data, 8, 8, seed=3)
    first.batch(0)
    assert all(torch.equal(a, b) for a, b in zip(first.batch(7), second.batch(7), strict=True))
    assert not torch.equal(first.batch(7).labels, PatchSampler(data, 8, 8, seed=4).batch(7).labels)


def test_a_held_out_photograph_is_validated_on_in_each_of_the_four_ways():
    pairs = task(Mixed()).validation
    assert [pair.name for pair in pairs] == [f"p0 ({name})" for name in NAMES]
    assert [pair.label for pair in pairs] == [0, 1, 2, 3]
    assert len({pair.degraded.tobytes() for pair in pairs}) == 4
    (alone,) = validation_pairs(photo(), Denoise(25), 3, 0, None)
    assert np.array_equal(pairs[1].degraded, alone.degraded)
    assert (alone.name, alone.label) == ("p0.png", None)


def test_the_baseline_of_a_mixed_task_is_the_input_itself():
    scores = bicubic_baseline(task(Mixed()))
    assert len(scores) == 4
    # White noise of 25 levels: 20 log10(255 / 25) = 20.17 dB, a little more for what is clipped at 0 and 255.
    assert 20.0 < scores[1].psnr_db < 21.5


def test_the_embedded_mixed_task_has_eight_photographs_and_sixteen_pairs():
    data = embedded_task(Mixed(), 1, seed=0, max_validation_px=64)
    assert (data.train_images, len(data.train), len(data.validation)) == (8, 32, 16)
    assert data.validation[3].name == "chelsea (artifact)"


@pytest.mark.parametrize(
    ("degradation", "digest"), [(SuperResolution(2), "1024dd875a2eaa54"), (Denoise(25), "9925d131e674fa69")], ids=repr
)
def test_batches_of_the_other_tasks_are_what_they_were_before_there_was_a_mixed_one(degradation, digest: str):
    sampler = PatchSampler(task(degradation), 16, 8, seed=3)
    found = hashlib.blake2b(digest_size=8)
    for step in range(3):
        batch = sampler.batch(step)
        assert batch.labels is None
        found.update(batch.degraded.numpy().tobytes() + batch.clean.numpy().tobytes())
    assert found.hexdigest() == digest
