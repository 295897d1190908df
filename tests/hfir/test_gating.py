"""Gates start almost open."""

import pytest
import torch

from hfir.blocks.ffn import GatedFFN, SimpleGate, gated_width
from hfir.blocks.gating import ConvGate, GatedFusion

OPEN = 0.8807970779778823  # 1 / (1 + exp(-2))


def test_a_conv_gate_starts_almost_open_everywhere(image):
    x = image(1, 4, 5, 5)
    with torch.no_grad():
        torch.testing.assert_close(ConvGate(4)(x), OPEN * x)


def test_a_fusion_starts_as_the_sum_with_the_side_almost_open(image):
    x, side = image(1, 4, 5, 5, seed=1), image(1, 4, 5, 5, seed=2)
    with torch.no_grad():
        torch.testing.assert_close(GatedFusion(4)(x, side), x + OPEN * side)


def test_a_closed_fusion_leaves_the_trunk_alone(image):
    fusion, x = GatedFusion(4), image(1, 4, 5, 5, seed=1)
    with torch.no_grad():
        fusion.gate.conv.bias.fill_(-200.0)
        assert torch.equal(fusion(x, image(1, 4, 5, 5, seed=2)), x)


def test_a_simple_gate_multiplies_the_first_half_by_the_second():
    x = torch.tensor([2.0, 3.0, 5.0, 7.0]).view(1, 4, 1, 1)
    assert SimpleGate()(x).flatten().tolist() == [10.0, 21.0]


@pytest.mark.parametrize(
    ("channels", "expansion", "left"),
    # Half of expansion * channels, to the nearest even number: 8 * 2.66 / 2 = 10.64 -> 10; 4 * 1 / 2 = 2.
    [(8, 2.0, 8), (8, 1.5, 6), (8, 2.66, 10), (4, 1.0, 2), (16, 1.5, 12), (12, 2.66, 16)],
)
def test_what_a_gate_leaves_is_even(channels: int, expansion: float, left: int):
    assert gated_width(channels, expansion) == left


def test_the_feed_forward_part_sees_one_pixel_around(image):
    ffn, x = GatedFFN(4, 2.0), image(1, 4, 7, 7)
    other = x.clone()
    other[..., 3, 3] += 5.0
    with torch.no_grad():
        differs = (ffn(x) != ffn(other)).any(dim=1)[0].nonzero()
    assert {tuple(at) for at in differs.tolist()} == {(i, j) for i in (2, 3, 4) for j in (2, 3, 4)}
