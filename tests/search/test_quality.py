"""PSNR and SSIM against values worked by hand."""

import json
import math

import numpy as np
import pytest
import torch

from search.evaluation.quality import PSNR_CAP_DB, bicubic_baseline, psnr_db, score, ssim, to_uint8
from search.tasks.dataset import Pair, TaskData
from search.types import EvaluationError, InputError


def noise(seed: int = 0, shape: tuple[int, ...] = (32, 40, 3)) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 200, shape, dtype=np.uint8)


def task(clean: np.ndarray, degraded: np.ndarray, upscale: int) -> TaskData:
    pair = Pair("a", clean, degraded)
    return TaskData(degradation=None, upscale=upscale, channels=3, train=(), validation=(pair,))


def test_a_constant_error_of_a_tenth_is_20_db():
    # 25.5 levels are not whole; 51 of 255 is a fifth: 20 log10(5) = 13.979 dB, one level: 48.131 dB.
    assert psnr_db(noise(), noise() + np.uint8(51), luma=False) == pytest.approx(20 * math.log10(5))
    assert psnr_db(noise(), noise() + np.uint8(1), luma=False) == pytest.approx(48.1308, abs=1e-4)


def test_luma_squeezes_an_error_by_219_of_255_and_rounds():
    # Grey 100 -> Y 16 + 85.88 = 101.88 -> 102, grey 151 -> 145.68 -> 146: an error of 44.
    low, high = (np.full((16, 16, 3), v, dtype=np.uint8) for v in (100, 151))
    assert psnr_db(low, high, luma=True) == pytest.approx(20 * math.log10(255 / 44))
    assert psnr_db(low[..., :1], high[..., :1], luma=True) == pytest.approx(20 * math.log10(255 / 44))


def test_errors_in_the_cropped_border_do_not_count():
    framed = noise()
    framed[0], framed[:, -1] = 255, 255
    assert psnr_db(noise(), framed, border=1, luma=False) == PSNR_CAP_DB
    assert psnr_db(noise(), framed, border=0, luma=False) < 30


def test_identical_images_have_the_cap_and_ssim_one():
    quality = score(noise() / 255.0, noise(), upscale=1)
    assert quality == (100.0, pytest.approx(1.0))
    assert json.loads(json.dumps(quality.psnr_db, allow_nan=False)) == 100.0


def test_a_psnr_above_the_cap_is_reported_as_the_cap():
    # One level of error in one of 1.1 million values: 48.13 + 10 log10(1.1e6) = 108.5 dB.
    clean = np.zeros((1000, 1100, 1), dtype=np.uint8)
    restored = clean.copy()
    restored[500, 500] = 1
    assert psnr_db(restored, clean, luma=False) == 100.0


def test_ssim_of_two_constant_images_is_its_luminance_term():
    # Without variance only (2 ab + C1) / (a^2 + b^2 + C1) remains, C1 = (0.01 * 255)^2 = 6.5025.
    a, b = (np.full((20, 20, 3), v, dtype=np.uint8) for v in (100, 150))
    expected = (2 * 100 * 150 + 6.5025) / (100**2 + 150**2 + 6.5025)
    assert ssim(a, b, luma=False) == pytest.approx(expected)


def test_ssim_agrees_with_its_formula_at_the_only_position_of_a_single_window():
    a, b = noise(1, (11, 11, 1)).astype(float)[..., 0], noise(2, (11, 11, 1)).astype(float)[..., 0]
    line = np.exp(-(np.arange(-5, 6) ** 2) / (2 * 1.5**2))
    window = np.outer(line, line) / line.sum() ** 2
    mean_a, mean_b = (window * a).sum(), (window * b).sum()
    var_a, var_b = (window * (a - mean_a) ** 2).sum(), (window * (b - mean_b) ** 2).sum()
    covariance = (window * (a - mean_a) * (b - mean_b)).sum()
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    expected = (2 * mean_a * mean_b + c1) * (2 * covariance + c2)
    expected /= (mean_a**2 + mean_b**2 + c1) * (var_a + var_b + c2)
    measured = ssim(noise(1, (11, 11, 1)), noise(2, (11, 11, 1)), luma=False)
    assert measured == pytest.approx(expected, abs=1e-12)


def test_super_resolution_is_scored_on_luma_without_border_and_restoration_on_rgb():
    other = noise(5)
    as_sr, as_restoration = (score(other / 255.0, noise(), upscale=s) for s in (2, 1))
    assert as_sr.psnr_db == psnr_db(other, noise(), border=2, luma=True)
    assert as_sr.ssim == ssim(other, noise(), border=2, luma=True)
    assert as_restoration.psnr_db == psnr_db(other, noise(), border=0, luma=False)
    assert as_restoration.ssim == ssim(other, noise(), border=0, luma=False)


def test_a_luma_network_is_not_squeezed_a_second_time():
    a, b = noise(0, (32, 32, 1)), noise(1, (32, 32, 1))
    assert score(a / 255.0, b, upscale=2).psnr_db == psnr_db(a, b, border=2, luma=False)


def test_arrays_and_tensors_of_any_precision_score_alike():
    levels = noise(1).astype(np.float32) / 255
    expected = score(levels, noise(), upscale=2)
    assert score(torch.from_numpy(levels).requires_grad_(), noise(), upscale=2) == expected
    assert score(levels.astype(np.float64), noise(), upscale=2) == expected


def test_output_is_clipped_and_rounded():
    assert to_uint8(np.array([-0.2, 0.499 / 255, 0.5 / 255, 1.7])).tolist() == [0, 0, 1, 255]


@pytest.mark.parametrize("broken", [math.nan, math.inf])
def test_a_diverged_output_is_refused(broken: float):
    levels = noise() / 255.0
    levels[3, 4, 1] = broken
    with pytest.raises(EvaluationError, match=r"1 value not finite.*diverged"):
        score(torch.from_numpy(levels), noise(), upscale=1)


def test_different_shapes_are_refused():
    with pytest.raises(InputError, match="of one shape"):
        psnr_db(noise(), noise()[:-1], luma=False)


def test_a_border_that_leaves_nothing_is_refused():
    with pytest.raises(InputError, match="border of 16 px"):
        psnr_db(noise(), noise(), border=16, luma=False)


def test_ssim_refuses_an_image_below_its_window():
    with pytest.raises(InputError, match=r"10 x 30 px are left.*11 x 11"):
        ssim(noise(0, (32, 12, 3)), noise(1, (32, 12, 3)), border=1, luma=False)


def test_the_baseline_of_a_flat_photo_is_perfect_and_of_restoration_the_input():
    flat = np.full((64, 64, 3), 90, dtype=np.uint8)
    (enlarged,) = bicubic_baseline(task(flat, np.full((32, 32, 3), 90 / 255, dtype=np.float32), 2))
    assert enlarged.psnr_db == PSNR_CAP_DB
    degraded = (noise() + 51).astype(np.float32) / 255
    (unchanged,) = bicubic_baseline(task(noise(), degraded, 1))
    assert unchanged.psnr_db == pytest.approx(13.9794, abs=1e-3)
