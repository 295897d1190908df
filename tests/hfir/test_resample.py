"""Changing resolution inside the network."""

import pytest
import torch

from hfir.blocks.resample import DySampleUp, PixelShuffleUp, UnshuffleDown
from hfir.blocks.sampling import places, sample
from hfir.slots import DOWNSAMPLERS, UPSAMPLERS


@pytest.mark.parametrize("name", DOWNSAMPLERS)
def test_a_downsampler_sees_its_own_two_by_two_block_only(image, name: str):
    down, x = DOWNSAMPLERS[name](4, 6), image(1, 4, 8, 10)
    other = x.clone()
    other[..., 5, 3] += 1.0
    with torch.no_grad():
        differs = (down(x) != down(other)).any(dim=1)[0].nonzero().tolist()
    assert differs == [[2, 1]]


@pytest.mark.parametrize("name", ["pixelshuffle", "nearest"])
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


def test_dysample_starts_as_bilinear_enlargement(image):
    up, x = DySampleUp(6, 4), image(1, 6, 5, 3)
    with torch.no_grad():
        expected = torch.nn.functional.interpolate(up.conv(x), scale_factor=2, mode="bilinear")
        torch.testing.assert_close(up(x), expected, rtol=0, atol=5e-3)
        up.moves.weight.zero_()
        torch.testing.assert_close(up(x), expected, rtol=1e-5, atol=1e-5)


def test_dysample_moves_its_samples_by_a_quarter_of_what_it_says():
    # A ramp along each axis is sampled exactly, so the output tells where it was looked at.
    up = DySampleUp(2, 2)
    rows, columns = torch.meshgrid(torch.arange(9.0), torch.arange(9.0), indexing="ij")
    with torch.no_grad():
        up.conv.weight.copy_(torch.eye(2)[:, :, None, None])
        up.conv.bias.zero_()
        up.moves.weight.zero_()
        # t (rows, columns), then groups, then the four pixels of a block
        up.moves.bias.copy_(torch.tensor([0.8] * 8 + [-0.4] * 8))
        y = up(torch.stack([rows, columns])[None])[0, :, 2:-2, 2:-2]
    centres = places(9, 2, torch.device("cpu"))[2:-2]
    torch.testing.assert_close(y[0], (centres + 0.2)[:, None].expand(14, 14), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(y[1], (centres - 0.1).expand(14, 14), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("half", [torch.float16, torch.bfloat16])
def test_places_are_exact_in_half_precision(half: torch.dtype):
    # In bfloat16 a place near 1000 would be up to 4 pixels off; the value read there tells.
    ramp = (torch.arange(1024) % 2).to(half).view(1, 1, 1, 1024)
    at = torch.arange(1024.0)[None, None]
    assert torch.equal(sample(ramp, torch.zeros_like(at), at, outside="border"), ramp)


@pytest.mark.parametrize(("outside", "expected"), [("zeros", [0.0, 1.0, 1.5]), ("border", [1.0, 1.0, 1.5])])
def test_samples_beyond_the_image_are_zeros_or_its_border(outside: str, expected: list[float]):
    x, at = torch.tensor([[[[1.0, 2.0]]]]), torch.tensor([[[-1.0, 0.0, 0.5]]])
    assert sample(x, torch.zeros_like(at), at, outside=outside).flatten().tolist() == expected
