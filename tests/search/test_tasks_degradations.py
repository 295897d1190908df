"""Each kind of damage: deterministic by its seed, of the right size, and of the right strength."""

import numpy as np
import pytest

from search.tasks.degradations import (
    DEGRADATIONS,
    Deblur,
    Defocus,
    Degradation,
    Denoise,
    Jpeg,
    LostDetail,
    Mixed,
    MotionBlur,
    Poisson,
    SuperResolution,
    degrade_photo,
)
from search.tasks.resize import bicubic_down
from search.types import InputError

KINDS: list[Degradation] = [
    SuperResolution(2),
    SuperResolution(3),
    Denoise(25),
    Deblur(1.5, 2.0),
    Deblur(1.5),
    Jpeg(20),
    LostDetail(),
    Poisson(30),
    MotionBlur(7, 30.0),
    MotionBlur(7, None, 1.0),
    MotionBlur(7),
    Defocus(2.5),
    Defocus(2.5, 2.0),
]


def picture(channels: int = 3) -> np.ndarray:
    wave = np.sin(np.arange(48)[:, None, None] / 5 + np.arange(36)[None, :, None] / 3 + np.arange(channels))
    return (127 + 100 * wave).astype(np.uint8)


@pytest.mark.parametrize("kind", KINDS, ids=repr)
@pytest.mark.parametrize("channels", [1, 3])
def test_the_input_is_float32_of_the_right_size(kind: Degradation, channels: int):
    degraded = degrade_photo(kind, picture(channels), seed=0)
    assert degraded.shape == (48 // kind.upscale, 36 // kind.upscale, channels)
    assert degraded.dtype == np.float32
    assert abs(float(degraded.mean()) - picture(channels).mean() / 255) < 0.02


@pytest.mark.parametrize("kind", KINDS, ids=repr)
def test_a_seed_decides_the_degraded_photo(kind: Degradation):
    first = degrade_photo(kind, picture(), seed=1)
    assert np.array_equal(first, degrade_photo(kind, picture(), seed=1))
    assert np.array_equal(first, degrade_photo(kind, picture(), seed=2)) == kind.deterministic


@pytest.mark.parametrize("kind", KINDS, ids=repr)
def test_the_clean_photo_is_left_untouched(kind: Degradation):
    clean = picture()
    clean.setflags(write=False)
    degrade_photo(kind, clean, seed=0)
    assert np.array_equal(clean, picture())


def test_every_kind_is_listed_by_its_name():
    kinds = {"super_resolution", "denoise", "poisson", "deblur", "motion_blur", "defocus", "jpeg", "mixed"}
    assert set(DEGRADATIONS) == kinds
    assert {type(kind) for kind in KINDS} - {LostDetail} | {Mixed} == set(DEGRADATIONS.values())


def test_super_resolution_is_bicubic_shrinking():
    expected = bicubic_down(picture(), 2) / np.float32(255)
    assert np.array_equal(degrade_photo(SuperResolution(2), picture(), 0), expected)


def test_noise_has_its_strength_and_is_neither_clipped_nor_rounded():
    black = np.zeros((200, 200, 3), dtype=np.uint8)
    noise = degrade_photo(Denoise(25), black, seed=0) * 255
    # 120,000 draws: the deviation's own standard error is 25 / sqrt(240,000) = 0.05; 0.25 is 5 of them.
    assert abs(float(noise.std()) - 25) < 0.25
    assert abs(float(noise.mean())) < 5 * 25 / 120_000**0.5
    assert noise.min() < -50
    assert np.unique(noise).size > 10_000


def test_a_kind_draws_something_exactly_where_it_holds_noise():
    drawn = [kind for kind in KINDS if not kind.deterministic]
    directions = [MotionBlur(7, None, 1.0), MotionBlur(7)]
    assert drawn == [Denoise(25), Deblur(1.5, 2.0), Poisson(30), *directions, Defocus(2.5, 2.0)]


def test_blur_noise_has_its_strength():
    flat = np.full((100, 100, 3), 128, dtype=np.uint8)
    # 30,000 draws: standard error 4 / sqrt(60,000) = 0.016; 0.08 is 5 of them.
    assert abs(float(degrade_photo(Deblur(1.0, 4.0), flat, seed=0).std()) * 255 - 4) < 0.08


def test_noise_differs_from_patch_to_patch():
    patches = np.zeros((2, 8, 8, 3), dtype=np.uint8)
    first, second = Denoise(10).degrade_patches(patches, np.random.default_rng(0))
    assert not np.array_equal(first, second)


def test_blur_spreads_an_impulse_as_a_gaussian():
    # Neighbour over centre of a sampled Gaussian is exp(-1 / (2 sigma^2)) = exp(-0.125) = 0.8825 at sigma 2.
    impulse = np.zeros((41, 41, 1), dtype=np.uint8)
    impulse[18:23, 18:23] = 255
    blurred = Deblur(2.0).prepare(impulse)[..., 0].astype(float)
    line = np.exp(-(np.arange(-8, 9) ** 2) / 8.0)
    line /= line.sum()
    box = np.zeros(41)
    box[18:23] = 1
    profile = np.convolve(box, line, mode="same")
    np.testing.assert_allclose(blurred, 255 * np.outer(profile, profile), atol=0.5 + 1e-9)


def test_blur_keeps_a_constant_image_up_to_its_border():
    flat = np.full((20, 30, 3), 200, dtype=np.uint8)
    assert np.array_equal(Deblur(3.0).prepare(flat), flat)


def test_lower_jpeg_quality_damages_more():
    errors = [np.abs(Jpeg(q).prepare(picture()).astype(int) - picture()).mean() for q in (10, 40, 90)]
    assert errors[0] > errors[1] > errors[2] > 0


@pytest.mark.parametrize("stripes_are", ["upright", "level"])
def test_jpeg_halves_the_resolution_of_chroma_in_both_directions(stripes_are: str):
    # Red and blue columns (or rows) in turn: at 4:2:0 two share their chroma, so that both turn alike.
    stripes = np.zeros((16, 16, 3), dtype=np.uint8)
    stripes[:, ::2, 0], stripes[:, 1::2, 2] = 255, 255
    is_level = stripes_are == "level"
    decoded = Jpeg(95).prepare(stripes.transpose(1, 0, 2).copy() if is_level else stripes).astype(int)
    decoded = decoded.transpose(1, 0, 2) if is_level else decoded
    chroma = decoded[..., 0] - decoded[..., 2]
    assert np.abs(chroma[:, ::2] - chroma[:, 1::2]).max() < 120


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        ("super_resolution", {"upscale": 1}, r"upscale = 1 is out of range.*2\.\.4"),
        ("denoise", {"sigma": 0}, "sigma = 0"),
        ("denoise", {"sigma": float("nan")}, "sigma = nan"),
        ("deblur", {"blur_sigma_px": 0}, "blur_sigma_px = 0"),
        ("deblur", {"blur_sigma_px": 1, "noise_sigma": -1}, "noise_sigma = -1"),
        ("jpeg", {"quality": 101}, "quality = 101"),
        ("mixed", {"blur_sigma_px": 0}, "blur_sigma_px = 0"),
    ],
)
def test_a_value_out_of_range_is_refused_with_its_range(kind: str, options: dict, message: str):
    with pytest.raises(InputError, match=message):
        DEGRADATIONS[kind](**options)
