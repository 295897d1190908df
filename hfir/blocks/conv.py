"""The two halves of a separable convolution: 1×1 across channels, and depth-wise across pixels."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn


class Pointwise(nn.Conv2d):
    """A 1×1 convolution: the same linear map of the channels at each pixel.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        bias: Whether a bias is added.
    """

    def __init__(self, in_channels: int, out_channels: int, *, bias: bool = True) -> None:
        super().__init__(in_channels, out_channels, 1, bias=bias)

    def forward(self, input: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d h w"]:
        """Return the mapped features."""
        return pointwise(input, self.weight, self.bias)


def pointwise(
    x: Float[Tensor, "b c h w"], weight: Float[Tensor, "d c 1 1"], bias: Float[Tensor, " d"] | None
) -> Float[Tensor, "b d h w"]:
    """Return a 1×1 convolution of `x`.

    On a CPU with one thread and few images, torch has 1×1 kernels done by a general matrix product instead of oneDNN,
    unless they are dilated. A dilation changes nothing of one tap, and here halves the time (docs/log.md).
    """
    dilation = 2 if x.is_cpu and not torch.compiler.is_compiling() else 1
    return F.conv2d(x, weight, bias, dilation=dilation)


def depthwise(channels: int, kernel_size: int) -> nn.Conv2d:
    """Return a depth-wise convolution that keeps the size."""
    return nn.Conv2d(channels, channels, kernel_size, padding=kernel_size // 2, groups=channels)
