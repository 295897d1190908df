"""Layer norm over channels: both memory paths, and statistics that half precision cannot break."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hfir.blocks.norm import ChannelNorm


def stirred_norm(channels: int) -> ChannelNorm:
    norm = ChannelNorm(channels)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        norm.weight.copy_(torch.randn(channels, generator=generator))
        norm.bias.copy_(torch.randn(channels, generator=generator))
    return norm


@given(st.integers(1, 3), st.integers(2, 9), st.integers(1, 6), st.integers(1, 6), st.integers(0, 99))
def test_both_memory_paths_agree(image, b: int, c: int, h: int, w: int, seed: int):
    norm, x = stirred_norm(c), 10 * image(b, c, h, w, seed=seed)
    first, last = norm._channels_first(x), norm._pixels_last(x)
    torch.testing.assert_close(first, last, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(norm(x), first, rtol=1e-4, atol=1e-4)
    x_last = x.contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(norm(x_last), first, rtol=1e-4, atol=1e-4)


def test_the_memory_format_is_kept(image):
    x = image(2, 6, 5, 4)
    assert ChannelNorm(6)(x).is_contiguous()
    x = x.contiguous(memory_format=torch.channels_last)
    assert ChannelNorm(6)(x).is_contiguous(memory_format=torch.channels_last)


def test_one_pixel_by_hand():
    # Channels 1, 3: mean 2, variance 1, so -1 and 1; times (2, 3) plus (10, 20) gives 8 and 23.
    norm = ChannelNorm(2, eps=0.0)
    with torch.no_grad():
        norm.weight.copy_(torch.tensor([2.0, 3.0]))
        norm.bias.copy_(torch.tensor([10.0, 20.0]))
    assert norm(torch.tensor([1.0, 3.0]).view(1, 2, 1, 1)).flatten().tolist() == [8.0, 23.0]


def test_each_pixel_is_normalised_on_its_own(image):
    x = image(1, 6, 4, 4)
    changed = x.clone()
    changed[..., 2, 3] = 50.0 * torch.arange(6)
    differs = (ChannelNorm(6)(x) != ChannelNorm(6)(changed)).any(dim=1)[0]
    assert differs.nonzero().tolist() == [[2, 3]]


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_does_not_overflow(dtype: torch.dtype, channels_last: bool):
    # Deviations of 30000 squared are 9e8, far above fp16's 65504.
    x = torch.tensor([30000.0, -30000.0, 30000.0, -30000.0]).view(1, 4, 1, 1).expand(1, 4, 2, 3)
    layout = torch.channels_last if channels_last else torch.contiguous_format
    x = x.to(dtype).contiguous(memory_format=layout)
    for norm in (ChannelNorm(4), ChannelNorm(4).to(dtype)):
        y = norm(x)
        assert y.dtype == dtype
        torch.testing.assert_close(y, x.sign(), rtol=1e-2, atol=0)


@pytest.mark.parametrize("channels_last", [False, True])
def test_small_deviations_keep_their_eps_in_half_precision(channels_last: bool):
    # Squared, 2^-14 = 6e-5 and eps = 1e-6 vanish in fp16 (0/0 without fp32 statistics). By hand:
    # d / sqrt(d² + 1e-6) = 6.104e-5 / sqrt(3.725e-9 + 1e-6) = 0.06092.
    d = 2.0**-14
    layout = torch.channels_last if channels_last else torch.contiguous_format
    x = torch.tensor([d, -d]).half().view(1, 2, 1, 1).expand(1, 2, 2, 2).contiguous(memory_format=layout)
    torch.testing.assert_close(
        ChannelNorm(2).half()(x)[0, :, 0, 0].float(), torch.tensor([0.06092, -0.06092]), rtol=1e-3, atol=0
    )
