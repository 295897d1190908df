"""Joining what the encoder sends across with what comes from below; gated joining is `hfir.blocks.gating`."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from hfir.blocks.conv import Pointwise


class AddSkip(nn.Module):
    """Add the two; nothing is learned.

    Args:
        channels: Channels of both inputs and of the output.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()

    def forward(self, x: Float[Tensor, "b c h w"], side: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """Return the sum."""
        return x + side


class ConcatSkip(nn.Module):
    """Join the two by a 1×1 convolution that starts as their sum.

    Args:
        channels: Channels of both inputs and of the output.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = summing_conv(channels)

    def forward(self, x: Float[Tensor, "b c h w"], side: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """Return the joined features."""
        return self.conv(torch.cat([x, side], dim=1))


def summing_conv(width: int) -> nn.Conv2d:
    """Return a 1×1 convolution of two stacked inputs that starts as their sum."""
    conv = Pointwise(2 * width, width)
    with torch.no_grad():
        conv.weight.copy_(torch.eye(width).repeat(1, 2)[:, :, None, None])
        if conv.bias is not None:
            conv.bias.zero_()
    return conv
