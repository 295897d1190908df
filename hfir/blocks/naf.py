"""The trunk's block: spatial mixing between gates, then a feed-forward part, both residual."""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from hfir.blocks.conv import Pointwise
from hfir.blocks.ffn import SimpleGate, gated_width
from hfir.blocks.norm import ChannelNorm


def residual_scale(channels: int, start: float) -> nn.Parameter:
    """Return a learned scale per channel that starts small: a deep network starts near the identity."""
    return nn.Parameter(torch.full((1, channels, 1, 1), start))


class ChannelAttention(nn.Module):
    """Scale channels by a linear map of their means over the image (NAFNet's SCA; no sigmoid).

    The mean is global, so at inference a tile should be no smaller than the training crop.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """Return `x` with each channel scaled."""
        return x * self.conv(x.mean(dim=(2, 3), keepdim=True))


class TrunkBlock(nn.Module):
    """NAFNet's block (Chen et al., 2022, arXiv 2204.04676) around any depth-wise mixer.

    `y = x + β·project(SCA(SG(mix(expand(norm(x))))))`, then `z = y + γ·project(SG(expand(norm(y))))`.

    Args:
        channels: Channels of input and output.
        mix: Maker of the spatial mixing: expanded channels -> module that keeps the shape.
        expansion: Expanded channels as a multiple of `channels`.
        scale: Start value of β and γ.
        channel_attention: Whether there is SCA; without it the block is local.
    """

    def __init__(
        self,
        channels: int,
        mix: Callable[[int], nn.Module],
        expansion: float,
        scale: float,
        *,
        channel_attention: bool = True,
    ) -> None:
        super().__init__()
        half = gated_width(channels, expansion)
        self.norm_mix = ChannelNorm(channels)
        self.mix = nn.Sequential(
            Pointwise(channels, 2 * half),
            mix(2 * half),
            SimpleGate(),
            ChannelAttention(half) if channel_attention else nn.Identity(),
            Pointwise(half, channels),
        )
        self.norm_ffn = ChannelNorm(channels)
        self.ffn = nn.Sequential(Pointwise(channels, 2 * half), SimpleGate(), Pointwise(half, channels))
        self.beta, self.gamma = residual_scale(channels, scale), residual_scale(channels, scale)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """Return the block's output, shaped like `x`."""
        x = x + self.beta * self.mix(self.norm_mix(x))
        return x + self.gamma * self.ffn(self.norm_ffn(x))
