"""Photon noise, motion and defocus: their laws, and batches that are degraded at once; mixtures of chosen members."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hfir.config import EXPERT_NAMES
from search.tasks.blurs import convolved, disc_kernel, motion_kernels, motion_margin_px, with_margin
from search.tasks.dataset import PatchSampler, TaskData
from search.tasks.degradations import Defocus, Denoise, Mixed, MotionBlur, Poisson, degrade_photo
from search.tasks.images import Photo
from search.tasks.members import DEFAULT_MEMBERS, MEMBERS, SKILLS
from search.tasks.pairs import train_forms, validation_pairs
from search.types import InputError

lengths = st.floats(1, 64, allow_nan=False)
angles = st.floats(-180, 180, allow_nan=False)
radii = st.floats(0.75, 32, allow_nan=False)


def photo(seed: int = 0, height: int = 51, width: int = 64) -> Photo:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Photo(f"p{seed}.png", pixels, f"{seed + 1:x}")


# Kernels ------------------------------------------------------------------------------------------


def assert_is_a_blur(kernel: np.ndarray) -> None:
    assert kernel.shape[0] == kernel.shape[1]
    assert kernel.shape[0] % 2 == 1
    assert kernel.min() >= 0
    assert kernel.sum() == pytest.approx(1, abs=1e-12)
    np.testing.assert_allclose(kernel, kernel[::-1, ::-1], atol=1e-12)


@given(lengths, st.lists(angles, min_size=1, max_size=4))
def test_motion_kernels_are_blurs_that_move_nothing(length: float, directions: list[float]):
    kernels = motion_kernels(length, np.array(directions))
    assert kernels.shape == (len(directions), *(2 * motion_margin_px(length) + 1,) * 2)
    for kernel in kernels:
        assert_is_a_blur(kernel)


@given(radii)
def test_disc_kernels_are_blurs_and_even_in_all_directions(radius: float):
    (kernel,) = disc_kernel(radius)
    assert_is_a_blur(kernel)
    np.testing.assert_allclose(kernel, kernel.T, atol=1e-12)


@given(st.floats(2, 40, allow_nan=False), angles)
def test_a_motion_has_its_length_and_direction(length: float, angle: float):
    # Uniform on a segment: variance L^2 / 12 along it, none across; sharing points between pixels adds at most 1/4 px^2
    # to each axis.
    (kernel,) = motion_kernels(length, np.array([angle]))
    reach = kernel.shape[0] // 2
    rows, columns = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    along = columns * np.cos(np.deg2rad(angle)) - rows * np.sin(np.deg2rad(angle))
    across = columns * np.sin(np.deg2rad(angle)) + rows * np.cos(np.deg2rad(angle))
    assert length**2 / 12 - 0.01 <= (kernel * along**2).sum() <= length**2 / 12 * 1.05 + 0.26
    assert (kernel * across**2).sum() <= 0.26


def test_a_level_motion_is_a_box_with_shared_ends():
    (kernel,) = motion_kernels(5, np.array([0.0]))
    np.testing.assert_allclose(kernel[3], [0.0, 0.18, 0.2, 0.2, 0.2, 0.18, 0.0][:7], atol=0.03)
    assert kernel[[0, 1, 2, 4, 5, 6]].max() < 1e-12


def test_an_upward_motion_is_level_motion_turned():
    level, upright = motion_kernels(9, np.array([0.0, 90.0]))
    np.testing.assert_allclose(upright, level.T, atol=1e-9)


def test_a_rising_motion_rises_to_the_right():
    (kernel,) = motion_kernels(20, np.array([45.0]))
    assert kernel[:10, 11:].sum() > 0.4, "towards the top of the image, which is its first rows"


@given(radii)
def test_a_disc_has_its_radius(radius: float):
    # Uniform on a disc: variance r^2 / 4 in each direction; a pixel's own extent adds 1/12, and the grid up to 0.07.
    (kernel,) = disc_kernel(radius)
    reach = kernel.shape[0] // 2
    places = np.arange(-reach, reach + 1)
    variance = (kernel.sum(axis=0) * places**2).sum()
    assert variance == pytest.approx(radius**2 / 4 + 1 / 12, rel=0.01, abs=0.09)


def test_each_image_of_a_batch_is_convolved_with_its_own_kernel():
    images = np.stack([photo(seed, 20, 24).pixels for seed in range(3)])
    kernels = motion_kernels(6, np.array([0.0, 50.0, 140.0]))
    together = convolved(images, kernels)
    side = kernels.shape[-1]
    windows = np.lib.stride_tricks.sliding_window_view(images.astype(float), (side, side), axis=(1, 2))
    expected = np.einsum("bhwcij,bij->bhwc", windows, kernels[:, ::-1, ::-1])
    np.testing.assert_allclose(together, expected, atol=1e-9)


# Photons ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("peak", [0.5, 4, 30, 1000])
@pytest.mark.parametrize("level", [0, 64, 255])
def test_photon_noise_has_the_mean_and_a_peak_th_of_it_as_variance(peak: float, level: int):
    flat = np.full((200, 200, 3), level, dtype=np.uint8)
    found = degrade_photo(Poisson(peak), flat, seed=1).astype(np.float64)
    mean, draws = level / 255, flat.size
    # Standard errors of mean and variance of n Poisson draws of rate q = peak * mean, in units of 1/peak:
    # sqrt(q / n) and sqrt((q + 2 q^2) / n); five of each.
    rate = peak * mean
    assert abs(found.mean() - mean) <= 5 * np.sqrt(rate / draws) / peak + 1e-6
    assert abs(found.var() - mean / peak) <= 5 * np.sqrt((rate + 2 * rate**2) / draws) / peak**2 + 1e-6


def test_photons_are_whole_and_not_clipped():
    counts = degrade_photo(Poisson(10), np.full((50, 50, 1), 255, dtype=np.uint8), seed=0) * 10
    np.testing.assert_allclose(counts, np.rint(counts), atol=1e-5)
    assert counts.max() > 12


# Blurs on photographs and patches -----------------------------------------------------------------


@pytest.mark.parametrize("kind", [MotionBlur(15, 20.0), MotionBlur(15), Defocus(4.0)], ids=repr)
@pytest.mark.parametrize("level", [0, 77, 255])
def test_a_constant_image_stays_as_it_is_up_to_its_border(kind, level: int):
    flat = np.full((24, 30, 3), level, dtype=np.uint8)
    np.testing.assert_allclose(degrade_photo(kind, flat, seed=0) * 255, level, atol=1e-4)


@pytest.mark.parametrize("kind", [MotionBlur(9, -70.0), MotionBlur(9), Defocus(3.0), Poisson(100)], ids=repr)
def test_mean_brightness_is_kept(kind):
    clean = photo(3, 200, 240).pixels
    found = degrade_photo(kind, clean, seed=2)
    # Rounding to 8 bits averages out; the mirrored border is weighted a little unlike the middle.
    assert abs(float(found.mean()) - clean.mean() / 255) < 0.002


def test_the_batch_is_drawn_by_its_generator_patch_by_patch():
    kind = MotionBlur(9, None, 0.0)
    one = with_margin(photo(0, 16, 16).pixels[None], kind.margin_px)
    batch = np.repeat(one, 4, axis=0)
    first = kind.degrade_patches(batch, np.random.default_rng(5))
    assert first.shape == (4, 16, 16, 3)
    assert np.array_equal(first, kind.degrade_patches(batch, np.random.default_rng(5)))
    assert len({patch.tobytes() for patch in first}) == 4, "each patch has a direction of its own"


def test_a_motion_that_is_drawn_takes_every_direction():
    # A bright pixel becomes the kernel itself. A rising and a falling motion differ in the sign of its covariance, a
    # level and an upright one in which variance is larger: of 200 patches, about 50 have each of the four.
    kind = MotionBlur(15)
    patches = np.zeros((200, 41, 41, 1), dtype=np.uint8)
    patches[:, 20, 20] = 255
    blurred = kind.degrade_patches(patches, np.random.default_rng(0))[..., 0]
    reach = blurred.shape[1] // 2
    rows, columns = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    rises = (blurred * rows * columns).sum(axis=(1, 2)) < 0
    is_level = (blurred * (columns**2 - rows**2)).sum(axis=(1, 2)) > 0
    for one in (rises & is_level, rises & ~is_level, ~rises & is_level, ~rises & ~is_level):
        assert 30 <= one.sum() <= 70


def task(degradation, photos: int = 3) -> TaskData:
    made = [photo(seed) for seed in range(photos + 1)]
    return TaskData(
        degradation=degradation,
        upscale=1,
        channels=3,
        train=tuple(form for p in made[1:] for form in train_forms(p, degradation, 3)),
        validation=tuple(validation_pairs(made[0], degradation, 3, 0, None)),
    )


def test_a_patch_is_blurred_by_what_really_lies_around_it():
    # One direction for all: then a patch must be a piece of the whole photograph, blurred.
    kind, image = MotionBlur(9, None), photo(1, 64, 64)
    data = TaskData(degradation=kind, upscale=1, channels=3, train=tuple(train_forms(image, kind, 3)), validation=())
    fixed = {turn: degrade_photo(MotionBlur(9, turn), image.pixels, 0) for turn in (0.0, 90.0)}
    sampler = PatchSampler(data, 12, 1, seed=0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            "search.tasks.degradations.motion_kernels", lambda length, drawn: motion_kernels(length, drawn * 0)
        )
        for step in range(20):
            found = sampler.batch(step).degraded[0].permute(1, 2, 0).numpy()
            pieces = [turned for whole in fixed.values() for turned in all_turns(whole)]
            assert any(holds(piece, found) for piece in pieces)


def all_turns(image: np.ndarray) -> list[np.ndarray]:
    return [np.rot90(side, k) for side in (image, image.swapaxes(0, 1)) for k in range(4)]


def holds(image: np.ndarray, patch: np.ndarray) -> bool:
    windows = np.lib.stride_tricks.sliding_window_view(image, patch.shape)[:, :, 0]
    return bool((np.abs(windows - patch).max(axis=(2, 3, 4)) < 1.5 / 255).any())


# Mixtures -----------------------------------------------------------------------------------------


def test_the_experts_are_named_as_the_network_names_them():
    assert SKILLS == EXPERT_NAMES
    assert DEFAULT_MEMBERS == SKILLS
    assert {member.skill for member in MEMBERS.values()} == set(SKILLS)


def test_a_mixture_of_chosen_members_labels_them_and_says_which_expert_is_for_which():
    mixed = Mixed(members=("poisson", "artifact", "motion_blur"), peak=8)
    data = task(mixed)
    assert data.labels == ("poisson", "artifact", "motion_blur")
    assert [SKILLS[skill] for skill in data.skills] == ["denoise", "artifact", "deblur"]
    assert mixed.parts[0] == Poisson(8)
    assert [(pair.name, pair.label, pair.skill) for pair in data.validation] == [
        ("p0 (poisson)", 0, 1),
        ("p0 (artifact)", 1, 3),
        ("p0 (motion_blur)", 2, 2),
    ]
    batch = PatchSampler(data, 16, 60, seed=0).batch(0)
    assert set(batch.labels.tolist()) == {1, 2, 3}
    assert torch.isfinite(batch.degraded).all()


def test_a_member_degrades_as_the_task_of_that_kind():
    (alone,) = validation_pairs(photo(), Poisson(8), 3, 4, None)
    mixed = validation_pairs(photo(), Mixed(members=("defocus", "poisson"), peak=8), 3, 4, None)
    assert np.array_equal(mixed[1].degraded, alone.degraded)


def test_every_member_can_be_mixed_in():
    data = task(Mixed(members=tuple(MEMBERS)), photos=2)
    assert (len(data.train), len(data.validation)) == (14, 7)
    first, again = (PatchSampler(data, 8, 40, seed=1).batch(3) for _ in range(2))
    assert torch.equal(first.degraded, again.degraded)


@pytest.mark.parametrize("members", [(), ("rain",), ("denoise", "denoise")])
def test_members_that_are_none_are_refused(members):
    with pytest.raises(InputError, match="cannot be mixed"):
        Mixed(members=members)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Poisson(0), "poisson: peak = 0 is out of range"),
        (lambda: MotionBlur(0.5), "motion_blur: length_px = 0.5"),
        (lambda: MotionBlur(5, 200), "motion_blur: angle_deg = 200"),
        (lambda: Defocus(40), "defocus: radius_px = 40"),
        (lambda: Defocus(2, -1), "defocus: noise_sigma = -1"),
        (lambda: Denoise(0), "denoise: sigma = 0"),
    ],
)
def test_strengths_out_of_range_are_refused(make, words: str):
    with pytest.raises(InputError, match=words):
        make()
