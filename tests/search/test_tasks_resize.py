"""Bicubic resizing and luma, against values worked by hand."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from search.tasks.colour import luma_uint8, rgb_to_y
from search.tasks.resize import axis_taps, bicubic_down, bicubic_up, cubic, imresize, round_to_uint8
from search.types import InputError

lengths = st.integers(1, 40)


def row(*levels: float) -> np.ndarray:
    return np.array(levels, dtype=np.float64).reshape(1, -1, 1)


def test_the_kernel_is_keys_with_a_minus_one_half():
    # a = -0.5 at 0.5: 1.5/8 - 2.5/4 + 1 = 0.5625; at 1.5: -0.5*3.375 + 2.5*2.25 - 6 + 2 = -0.0625.
    assert cubic(np.array([0.0, 0.5, 1.0, 1.5, 2.0, 2.5])).tolist() == [1, 0.5625, 0, -0.0625, 0, 0]


def test_enlarging_an_impulse_by_two_gives_the_kernel_at_quarter_pixels():
    # Output 2i lies at i - 1/4, output 2i + 1 at i + 1/4. h(1/4) = 1.5/64 - 2.5/16 + 1 = 0.8671875,
    # h(3/4) = 0.2265625, h(5/4) = -0.0703125, h(7/4) = -0.0234375; together they are 1.
    enlarged = imresize(row(0, 0, 0, 1, 0, 0, 0), 1, 14)[0, :, 0]
    half = [-0.0234375, -0.0703125, 0.2265625, 0.8671875]
    np.testing.assert_allclose(enlarged, [0, 0, 0, *half, *half[::-1], 0, 0, 0], atol=1e-15)


def test_shrinking_an_impulse_by_two_stretches_the_kernel_over_eight_pixels():
    # Output j lies at 2j + 1/2; weights are h(d / 2) / 2 for d = 0.5, 1.5, 2.5, 3.5:
    # 0.43359375, 0.11328125, -0.03515625, -0.01171875. The impulse at 6 is 1.5 right of j = 2 (4.5),
    # 0.5 left of j = 3 (6.5), 3.5 from j = 1 (2.5), 2.5 from j = 4 (8.5).
    shrunk = imresize(row(*[0] * 6, 1, *[0] * 7), 1, 7)[0, :, 0]
    expected = [0, -0.01171875, 0.11328125, 0.43359375, -0.03515625, 0, 0]
    np.testing.assert_allclose(shrunk, expected, atol=1e-15)


def test_the_border_repeats_the_edge_pixel_when_mirrored():
    # The first of four outputs lies at -1/4: taps at -2, -1, 0, 1 weigh h(7/4), h(3/4), h(1/4), h(5/4) and
    # mirror to pixels 1, 0, 0, 1. So pixel 0 counts 0.2265625 + 0.8671875 = 1.09375 of its level.
    assert imresize(row(64, 0), 1, 4)[0, 0, 0] == pytest.approx(64 * 1.09375)


@given(lengths, lengths)
def test_the_weights_of_every_output_pixel_sum_to_one(before: int, after: int):
    taps = axis_taps(before, after, after / before)
    np.testing.assert_allclose(taps.weights.sum(axis=1), 1.0, atol=1e-12)
    assert 0 <= taps.indices.min() <= taps.indices.max() < before


@settings(max_examples=30)
@given(lengths, lengths, lengths, lengths)
def test_a_constant_image_stays_constant(h: int, w: int, out_h: int, out_w: int):
    np.testing.assert_allclose(imresize(np.full((h, w, 2), 77.0), out_h, out_w), 77.0, atol=1e-9)


def test_the_same_size_gives_the_image_back():
    image = np.random.default_rng(0).random((9, 7, 3))
    np.testing.assert_allclose(imresize(image, 9, 7), image, atol=1e-15)


def test_rows_and_columns_are_treated_alike():
    image = np.random.default_rng(1).random((12, 18, 3))
    turned = imresize(image.swapaxes(0, 1), 9, 4).swapaxes(0, 1)
    np.testing.assert_allclose(imresize(image, 4, 9), turned, atol=1e-12)


def test_a_given_scale_overrides_the_ratio_of_rounded_lengths():
    image = row(*range(10))
    assert not np.allclose(imresize(image, 1, 4), imresize(image, 1, 4, scale=1 / 3))


def test_halves_are_rounded_upwards_and_levels_clipped():
    levels = np.array([-3.0, 0.5, 1.5, 2.49, 254.5, 300.0])
    assert round_to_uint8(levels).tolist() == [0, 1, 2, 2, 255, 255]


def test_down_and_up_keep_type_and_size():
    image = np.random.default_rng(2).integers(0, 256, (12, 9, 3), dtype=np.uint8)
    small = bicubic_down(image, 3)
    assert (small.shape, small.dtype) == ((4, 3, 3), np.uint8)
    assert (bicubic_up(small, 3).shape, bicubic_up(small, 3).dtype) == ((12, 9, 3), np.uint8)


def test_shrinking_refuses_sides_that_do_not_divide():
    with pytest.raises(InputError, match=r"9 x 12 pixels do not divide by the scale 2.*crop"):
        bicubic_down(np.zeros((12, 9, 3), dtype=np.uint8), 2)


@pytest.mark.parametrize("shape", [(4, 4), (0, 4, 3)])
def test_resizing_refuses_what_is_no_image(shape: tuple[int, ...]):
    with pytest.raises(InputError, match="must be"):
        imresize(np.zeros(shape), 2, 2)


def test_resizing_refuses_an_empty_result():
    with pytest.raises(InputError, match="at least 1"):
        imresize(np.zeros((4, 4, 3)), 0, 2)


def test_white_has_luma_235_and_black_16():
    colours = np.array([[255, 255, 255], [0, 0, 0], [255, 0, 0]], dtype=np.uint8)
    np.testing.assert_allclose(rgb_to_y(colours), [235, 16, 16 + 65.481], atol=1e-12)


def test_grey_counts_as_rgb_with_equal_channels():
    grey = np.arange(256, dtype=np.uint8).reshape(16, 16, 1)
    np.testing.assert_allclose(rgb_to_y(grey), rgb_to_y(np.repeat(grey, 3, axis=2)), atol=1e-12)
    assert luma_uint8(grey).max() == 235


def test_luma_refuses_an_alpha_channel():
    with pytest.raises(InputError, match=r"4 channels.*drop alpha"):
        rgb_to_y(np.zeros((2, 2, 4)))
