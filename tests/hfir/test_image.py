"""From and to the image: padding, the bicubic base (against the platform's own resizing), the head."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from hfir.blocks.image import BicubicBase, BicubicPhases, Head, bicubic_phases, pad_to_multiple
from search.tasks.resize import imresize


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("upscale", [2, 3, 4])
def test_the_base_agrees_with_matlabs_bicubic_away_from_the_border(image, upscale: int, channels: int):
    x = image(1, channels, 12, 17, seed=upscale)
    ours = BicubicBase(channels, upscale)(x)[0].permute(1, 2, 0).numpy()
    theirs = imresize(x[0].permute(1, 2, 0).numpy(), 12 * upscale, 17 * upscale)
    inside = slice(3 * upscale, -3 * upscale)
    np.testing.assert_allclose(ours[inside, inside], theirs[inside, inside], rtol=0, atol=1e-4)


def test_the_base_at_scale_one_is_the_input(image):
    x = image(1, 3, 5, 6)
    assert BicubicBase(3, 1)(x) is x


def test_autocast_does_not_reach_the_base(image):
    """It carries the picture itself, and bf16 has 8 bits for that."""
    x, base = image(1, 3, 9, 7), BicubicPhases(3, 2)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cast = base(x)
    assert torch.equal(cast, base(x))


@pytest.mark.parametrize("upscale", [1, 2, 3, 4])
def test_the_weights_of_every_phase_sum_to_one(upscale: int):
    torch.testing.assert_close(bicubic_phases(upscale).sum(dim=1), torch.ones(upscale))


def test_the_phases_at_scale_two_by_hand():
    # Output pixels lie 1/4 before and after the centre: h(1/4) = 0.8671875, h(3/4) = 0.2265625,
    # h(5/4) = -0.0703125, h(7/4) = -0.0234375 (the 5th tap is 9/4 away: 0).
    before = [-0.0234375, 0.2265625, 0.8671875, -0.0703125, 0.0]
    torch.testing.assert_close(bicubic_phases(2), torch.tensor([before, before[::-1]]))


@given(st.integers(1, 4), st.integers(1, 9), st.integers(1, 9))
def test_a_flat_image_stays_flat_to_the_border(upscale: int, h: int, w: int):
    y = BicubicBase(3, upscale)(torch.full((1, 3, h, w), 0.6))
    assert y.shape == (1, 3, h * upscale, w * upscale)
    torch.testing.assert_close(y, torch.full_like(y, 0.6))


@given(st.integers(1, 20), st.integers(1, 20), st.sampled_from([1, 2, 4, 8]))
def test_padding_adds_right_and_below_and_no_more_than_needed(image, h: int, w: int, multiple: int):
    x = image(1, 2, h, w)
    padded = pad_to_multiple(x, multiple)
    assert all(side % multiple == 0 for side in padded.shape[2:])
    assert 0 <= padded.shape[2] - h < multiple
    assert 0 <= padded.shape[3] - w < multiple
    assert torch.equal(padded[..., :h, :w], x)


def test_padding_mirrors_as_far_as_the_side_allows_then_repeats():
    # 1 2 3, to 8: mirrored without the edge 2 1, then the last one again and again.
    x = torch.tensor([1.0, 2.0, 3.0]).view(1, 1, 1, 3)
    assert pad_to_multiple(x, 8)[0, 0, 0].tolist() == [1, 2, 3, 2, 1, 1, 1, 1]
    assert pad_to_multiple(x, 8)[0, 0, 7].tolist() == [1, 2, 3, 2, 1, 1, 1, 1]
    assert pad_to_multiple(x, 4)[0, 0, 0].tolist() == [1, 2, 3, 2]


@pytest.mark.parametrize("upscale", [2, 3, 4])
def test_the_head_starts_without_a_checkerboard(image, upscale: int):
    # Equal kernels for the pixels of a block: each s x s block of the output is flat.
    with torch.no_grad():
        y = F.pixel_shuffle(Head(8, 3, upscale)(image(1, 8, 5, 6)), upscale)
    blocks = y.unflatten(3, (6, upscale)).unflatten(2, (5, upscale))
    assert torch.equal(blocks, blocks[:, :, :, :1, :, :1].expand_as(blocks))
    assert y[:, 0].std() > 0
    assert not torch.allclose(y[:, 0], y[:, 1])


@pytest.mark.parametrize(("channels", "upscale", "run"), [(3, 1, 3), (3, 2, 16), (3, 3, 32), (3, 4, 48), (1, 2, 4)])
def test_the_head_fills_up_output_channels_where_nothing_is_learnt(channels: int, upscale: int, run: int):
    head = Head(8, channels, upscale).to(memory_format=torch.channels_last)
    torch.nn.init.normal_(head.conv.weight)
    x = torch.randn(1, 8, 20, 13).contiguous(memory_format=torch.channels_last)
    learning = head(x)
    with torch.inference_mode():
        deployed = head(x)
    assert torch.equal(deployed, learning)
    assert deployed.stride(3) == run, "numbers from one pixel to the next"
    assert learning.stride(3) == channels * upscale**2


def test_filled_up_channels_are_neither_counted_nor_exported():
    from torch.utils.flop_counter import FlopCounterMode

    for device in ("meta", "cpu"):
        with torch.device(device), torch.inference_mode(), FlopCounterMode(display=False) as counter:
            Head(8, 3, 2)(torch.empty(1, 8, 10, 10))
        assert counter.get_total_flops() == 2 * 100 * 9 * 8 * 12
    with torch.no_grad():
        exported = torch.export.export(Head(8, 3, 2), (torch.rand(1, 8, 10, 10),))
    assert not [node for node in exported.graph.nodes if "pad" in str(node.target)]
