"""The frequency split is a true low-pass and adds up; the patch DFT is orthonormal and starts as the identity."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hfir.blocks.frequency import PATCH, FreqSplitGate, PatchDFT, real_dft_matrix

kernel_sizes = st.sampled_from([3, 5, 7])


def stirred_split(width: int, kernel_size: int, seed: int, spread: float) -> FreqSplitGate:
    split = FreqSplitGate(width, kernel_size)
    with torch.no_grad():
        split.theta.copy_(torch.randn(split.theta.shape, generator=torch.Generator().manual_seed(seed)) * spread)
    return split


@given(kernel_sizes, st.integers(1, 12), st.integers(1, 12))
def test_the_bands_add_up_to_the_features_at_the_start(image, kernel_size: int, h: int, w: int):
    x = image(2, 8, h, w) - 0.5
    with torch.no_grad():
        bands = FreqSplitGate(8, kernel_size)(x)
    torch.testing.assert_close(bands.low + bands.high, x, rtol=0, atol=1e-6)


@given(kernel_sizes, st.integers(0, 99), st.sampled_from([0.0, 1.0, 20.0]))
def test_the_blur_is_a_low_pass_whatever_it_learned(kernel_size: int, seed: int, spread: float):
    kernel = stirred_split(12, kernel_size, seed, spread).kernel().detach().double()
    assert kernel.shape == (12, 1, kernel_size, kernel_size)
    assert (kernel >= 0).all()
    torch.testing.assert_close(kernel.sum(dim=(1, 2, 3)), torch.ones(12).double(), rtol=0, atol=1e-6)
    gain = torch.fft.fft2(kernel, s=(32, 32)).abs()
    assert gain.max() <= 1 + 1e-6
    torch.testing.assert_close(gain[..., 0, 0], torch.ones(12, 1).double(), rtol=0, atol=1e-6)


def test_the_blur_starts_binomial():
    # [1 2 1] / 4 along both sides: corners 1/16, edges 2/16, centre 4/16.
    kernel = FreqSplitGate(4, 3).kernel()[0, 0]
    expected = torch.tensor([[1.0, 2, 1], [2, 4, 2], [1, 2, 1]]) / 16
    torch.testing.assert_close(kernel, expected)


def test_a_flat_image_has_no_high_band():
    with torch.no_grad():
        bands = stirred_split(8, 5, 0, 1.0)(torch.full((1, 8, 6, 9), 0.7))
    assert bands.high.abs().max() < 1e-6


def test_an_open_gate_keeps_the_high_band_only(image):
    split, x = FreqSplitGate(8, 5), image(1, 8, 6, 6)
    with torch.no_grad():
        split.gate.conv.bias.fill_(50.0)  # sigmoid 1: low times 0, high times 2
        bands = split(x)
        torch.testing.assert_close(bands.high, 2 * (x - split.blur(x)))
    assert bands.low.abs().max() == 0


def test_channels_share_their_blur_in_groups_of_the_width():
    # 12 channels: gcd(12, 8) = 4 groups of 3.
    kernel = stirred_split(12, 3, 0, 1.0).kernel()
    assert FreqSplitGate(12, 3).theta.shape == (4, 9)
    assert torch.equal(kernel[0], kernel[2])
    assert not torch.equal(kernel[2], kernel[3])


@pytest.mark.parametrize("n", [2, 4, 8, 16])
def test_the_real_dft_is_orthonormal(n: int):
    basis = real_dft_matrix(n)
    torch.testing.assert_close(basis @ basis.T, torch.eye(n), rtol=0, atol=1e-6)


def test_the_real_dft_of_four_samples_by_hand():
    # Constant 1/2; cos and sin of one turn times sqrt(2/4) = 0.7071; alternation 1/2.
    r = math.sqrt(0.5)
    expected = torch.tensor([[0.5, 0.5, 0.5, 0.5], [r, 0, -r, 0], [0, r, 0, -r], [0.5, -0.5, 0.5, -0.5]])
    torch.testing.assert_close(real_dft_matrix(4), expected, rtol=0, atol=1e-6)


@given(st.sampled_from([0, 4]), st.integers(1, 20), st.integers(1, 20))
def test_the_patch_dft_is_the_identity_at_the_start(image, offset: int, h: int, w: int):
    x = image(2, 3, h, w)
    with torch.no_grad():
        torch.testing.assert_close(PatchDFT(3, offset)(x), x, rtol=0, atol=1e-5)


def test_the_patch_dft_keeps_what_its_gain_keeps(image):
    # Only the constant passes: each patch becomes its mean. 16 x 24 holds 2 x 3 whole patches.
    dft, x = PatchDFT(2), image(1, 2, 16, 24)
    with torch.no_grad():
        dft.gain.zero_()
        dft.gain[:, 0, 0] = 1
        y = dft(x)
    means = torch.nn.functional.avg_pool2d(x, PATCH)
    torch.testing.assert_close(y, means.repeat_interleave(PATCH, 2).repeat_interleave(PATCH, 3))


@pytest.mark.parametrize(("offset", "patch"), [(0, range(8, 16)), (4, range(4, 12))])
def test_the_offset_moves_the_grid_by_half_a_patch(image, offset: int, patch: range):
    dft, x = PatchDFT(1, offset), image(1, 1, 16, 16)
    other = x.clone()
    other[..., 9, 9] += 1
    with torch.no_grad():
        dft.gain.copy_(1 + image(1, PATCH, PATCH, seed=3))
        differs = ((dft(x) - dft(other)).abs() > 1e-7)[0, 0].nonzero()
    assert {int(v) for v in differs.flatten()} == set(patch)


def test_the_gain_is_of_each_channel_alone(image):
    dft, x = PatchDFT(2), image(1, 2, 8, 8)
    with torch.no_grad():
        dft.gain[1] = 3.0
        y = dft(x)
    torch.testing.assert_close(y[:, 0], x[:, 0], rtol=0, atol=1e-5)
    torch.testing.assert_close(y[:, 1], 3 * x[:, 1], rtol=0, atol=1e-5)
