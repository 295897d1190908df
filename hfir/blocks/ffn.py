"""Feed-forward parts: how wide, and gated."""

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from hfir.blocks.conv import Depthwise, Pointwise


def gated_width(channels: int, expansion: float) -> int:
    """Return the channels that are left after a gate: half of `expansion · channels`, even, at least 2."""
    return max(2, 2 * round(expansion * channels / 4))


class SimpleGate(nn.Module):
    """Multiply one half of the channels by the other (NAFNet, arXiv 2204.04676)."""

    def forward(self, x: Float[Tensor, "b c2 h w"]) -> Float[Tensor, "b c h w"]:
        """Return the product of the two halves of the channels."""
        a, b = x.chunk(2, dim=1)
        return a * b


class GatedFFN(nn.Module):
    """Expand 1×1, look around 3×3 depth-wise, gate by GELU, project 1×1 (Restormer's GDFN, arXiv 2111.09881).

    Args:
        channels: Channels of input and output.
        expansion: Expanded channels as a multiple of `channels`; the gate halves them.
    """

    def __init__(self, channels: int, expansion: float) -> None:
        super().__init__()
        half = gated_width(channels, expansion)
        self.expand = Pointwise(channels, 2 * half)
        self.look = Depthwise(2 * half, 3)
        self.project = Pointwise(half, channels)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """Return the mixed features, shaped like `x`."""
        a, b = self.look(self.expand(x)).chunk(2, dim=1)
        return self.project(F.gelu(a) * b)
