"""Changing resolution inside the network."""

import pytest
import torch

from hfir.blocks.resample import PixelShuffleUp, UnshuffleDown
from hfir.slots import DOWNSAMPLERS, UPSAMPLERS


@pytest.mark.parametrize("name", DOWNSAMPLERS)
def test_a_downsampler_sees_its_own_two_by_two_block_only(image, name: str):
    down, x = DOWNSAMPLERS[name](4, 6), image(1, 4, 8, 10)
    other = x.clone()
    other[..., 5, 3] += 1.0
    with torch.no_grad():
        differs = (down(x) != down(other)).any(dim=1)[0].nonzero().tolist()
    assert differs == [[2, 1]]


@pytest.mark.parametrize("name", UPSAMPLERS)
def test_an_upsampler_starts_without_a_checkerboard(image, name: str):
    with torch.no_grad():
        y = UPSAMPLERS[name](6, 4)(image(1, 6, 5, 3))
    blocks = y.unflatten(3, (3, 2)).unflatten(2, (5, 2))
    assert torch.equal(blocks, blocks[:, :, :, :1, :, :1].expand_as(blocks))


def test_unshuffling_loses_nothing():
    # With 1x1 weights that pick each pixel of the block in turn, shuffling gives the image back.
    down, up, x = UnshuffleDown(1, 4), PixelShuffleUp(4, 1), torch.arange(24.0).view(1, 1, 4, 6)
    with torch.no_grad():
        for conv in (down.conv, up.conv):
            conv.weight.copy_(torch.eye(4)[:, :, None, None])
            conv.bias.zero_()
        assert torch.equal(up(down(x)), x)
