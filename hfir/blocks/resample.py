"""Changing resolution: down and up inside the network, and from features to the image."""

import math

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from hfir.blocks.conv import Pointwise
from hfir.blocks.sampling import places, sample
from hfir.blocks.shuffling import shuffle, unshuffle


class StridedDown(nn.Module):
    """Halve the side by a 2×2 convolution of stride 2."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, 2, stride=2)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d h2 w2"]:
        """Return features at half the side; `h` and `w` are even."""
        return self.conv(x)


class UnshuffleDown(nn.Module):
    """Halve the side without loss: each 2×2 block becomes channels, then 1×1."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv = Pointwise(4 * in_channels, out_channels)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d h2 w2"]:
        """Return features at half the side; `h` and `w` are even."""
        return self.conv(unshuffle(x, 2))


class PixelShuffleUp(nn.Module):
    """Double the side: 1×1 to four times the channels, then shuffle; starts without a checkerboard."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv = Pointwise(in_channels, 4 * out_channels)
        repeat_for_shuffle_(self.conv, 2)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d h2 w2"]:
        """Return features at twice the side."""
        return shuffle(self.conv(x), 2)


class NearestUp(nn.Module):
    """Double the side: 1×1 to the channels, then repeat each pixel."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv = Pointwise(in_channels, out_channels)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d h2 w2"]:
        """Return features at twice the side."""
        return F.interpolate(self.conv(x), scale_factor=2.0, mode="nearest")


class DySampleUp(nn.Module):
    """Double the side by sampling between the pixels, where the content says (DySample, arXiv 2308.15085).

    1×1 to the channels, then bilinear samples whose places each group of channels moves; the moves are limited by a
    factor of 0.25 and start near zero, so it starts as bilinear enlargement. Places are fp32 in any precision.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv = Pointwise(in_channels, out_channels)
        self.groups = math.gcd(out_channels, 4)
        self.moves = Pointwise(out_channels, 8 * self.groups)
        nn.init.normal_(self.moves.weight, std=0.001)
        if self.moves.bias is not None:
            nn.init.zeros_(self.moves.bias)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d h2 w2"]:
        """Return features at twice the side."""
        y = self.conv(x)
        h, w = y.shape[-2:]
        moves = 0.25 * shuffle(self.moves(y).float(), 2)
        rows, columns = rearrange(moves, "b (t g) h w -> t (b g) h w", t=2)
        rows = rows + places(h, 2, y.device)[:, None]
        columns = columns + places(w, 2, y.device)
        grouped = rearrange(y, "b (g d) h w -> (b g) d h w", g=self.groups)
        sampled = sample(grouped, rows, columns, outside="border")
        return rearrange(sampled, "(b g) d h w -> b (g d) h w", g=self.groups)


def repeat_for_shuffle_(conv: nn.Conv2d, factor: int) -> None:
    """Start the convolution before a pixel shuffle with equal kernels for the pixels of one block.

    ICNR (Aitken et al., 2017, arXiv 1707.02937): no checkerboard at the start.
    """
    with torch.no_grad():
        for parameter in (conv.weight, conv.bias):
            if parameter is not None:
                parameter.copy_(parameter[:: factor**2].repeat_interleave(factor**2, dim=0))
