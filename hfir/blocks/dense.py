"""The dense block: one 3×3 convolution across all channels.

Depth-wise blocks save multiplications, but a dense convolution runs near a processor's peak and needs neither a norm
nor a gate; at a few milliseconds an image it restores more (ADR 28).
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from hfir.blocks.folding import Foldable
from hfir.blocks.prelu import PReLU

START = 0.25
"""Of a usual kernel's size, what a dense one starts with beside the identity."""
WIDTH = 16
"""Up to so many channels a kernel learns at the optimiser's rate, wider ones more slowly."""


class DenseBlock(nn.Module):
    """A dense 3×3 convolution and a PReLU: a trunk block without norm, gate or residual.

    Args:
        channels: Of input and output.
        fused: Whether the convolution is the plain one of the deploy form.
    """

    def __init__(self, channels: int, *, fused: bool) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1) if fused else DenseConv(channels)
        self.act = PReLU(channels)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """Return the block's output, shaped like `x`."""
        return self.act(self.conv(x))


class DenseConv(Foldable):
    """A dense 3×3 convolution that trains as the identity plus `gain` times a kernel; they add up to one.

    It starts near the identity, as all of the trunk does. The gain falls with the width: one step of Adam moves each
    weight alike, so what it does to the output grows with the number of weights that are summed. A step is to change
    the output alike at any width (maximal update parametrisation, Yang et al., 2022, arXiv 2203.03466).

    Args:
        channels: Of input and output.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.gain = min(1.0, WIDTH / channels)
        self.weight = nn.Parameter(nn.Conv2d(channels, channels, 3).weight.detach() * (START / self.gain))
        self.bias = nn.Parameter(torch.zeros(channels))

    def merged_kernel(self) -> Float[Tensor, "c c 3 3"]:
        """Return the one kernel that runs."""
        identity = torch.eye(len(self.weight), dtype=self.weight.dtype, device=self.weight.device)
        return self.gain * self.weight + F.pad(identity[:, :, None, None], (1, 1, 1, 1))

    def merged_bias(self) -> Float[Tensor, " c"]:
        """Return the one bias."""
        return self.bias

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """Return the filtered features."""
        return F.conv2d(x, self.merged_kernel(), self.merged_bias(), padding=1)
