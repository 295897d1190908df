"""Gates: every sigmoid of the network stands here, and starts almost open.

Gates multiply: seven that start at 0.5 scale a signal by 0.008. Hence a bias of +2, i.e. 0.88 at the start.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from hfir.blocks.conv import Depthwise, Pointwise

OPEN_BIAS = 2.0


class Gate(nn.Module):
    """A convolution followed by a sigmoid: values in [0, 1] for each pixel and channel.

    Args:
        in_channels: Channels that decide.
        channels: Channels that are gated.
        kernel_size: 1, or an odd number for a depth-wise gate (then both channel counts must be equal).
        bias: Start value before the sigmoid; 0 starts half open.
    """

    def __init__(self, in_channels: int, channels: int, kernel_size: int = 1, bias: float = OPEN_BIAS) -> None:
        super().__init__()
        self.conv = Pointwise(in_channels, channels) if kernel_size == 1 else Depthwise(channels, kernel_size)
        nn.init.zeros_(self.conv.weight)
        nn.init.constant_(_bias(self.conv), bias)

    def forward(self, x: Float[Tensor, "b i h w"]) -> Float[Tensor, "b c h w"]:
        """Return the gate's values in [0, 1]."""
        return torch.sigmoid(self.conv(x))


class ConvGate(nn.Module):
    """Convolutional gating: features suppress their own artefacts by what surrounds them.

    Args:
        channels: Channels of input and output.
        kernel_size: Neighbourhood that decides, odd, in pixels.
    """

    def __init__(self, channels: int, kernel_size: int = 3) -> None:
        super().__init__()
        self.gate = Gate(channels, channels, kernel_size)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """Return `x` times its gate."""
        return x * self.gate(x)


class GatedFusion(nn.Module):
    """Add what a side path brings, as far as both paths together let it through: `x + gate([x, side])·side`.

    Serves the skips of the decoder and the fusion of trunk and detail.

    Args:
        channels: Channels of both inputs and of the output.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.gate = Gate(2 * channels, channels)

    def forward(self, x: Float[Tensor, "b c h w"], side: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """Return `x` with the gated `side` added."""
        return x + self.gate(torch.cat([x, side], dim=1)) * side


def _bias(conv: nn.Conv2d) -> Tensor:
    if conv.bias is None:  # cannot be: made with a bias above
        raise RuntimeError("a gate's convolution has a bias")
    return conv.bias
