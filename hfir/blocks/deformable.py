"""Depth-wise mixing whose taps move with the content, written over bilinear sampling.

Deformable convolution with modulation: Zhu et al., 2019, arXiv 1811.11168.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from hfir.blocks.conv import Depthwise, Pointwise
from hfir.blocks.gating import Gate
from hfir.blocks.sampling import places, sample

_TAPS = 9


class DeformableMix(nn.Module):
    """A depth-wise 3×3 convolution; each pixel moves its nine taps and weighs them by gates.

    The moves start at zero, so it starts as a plain depth-wise convolution behind open gates. Beyond the image lie
    zeros. All channels share the moves.

    Args:
        channels: Channels of input and output.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        plain = Depthwise(channels, 3)
        self.weight, self.bias = plain.weight, plain.bias
        self.look = Depthwise(channels, 3)
        self.moves = Pointwise(channels, 2 * _TAPS)
        nn.init.zeros_(self.moves.weight)
        if self.moves.bias is not None:
            nn.init.zeros_(self.moves.bias)
        self.open = Gate(channels, _TAPS)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """Return the mixed features, shaped like `x`."""
        h, w = x.shape[-2:]
        seen = self.look(x)
        rows, columns = self.moves(seen).float().chunk(2, dim=1)
        tap = torch.arange(_TAPS, device=x.device)[:, None, None]
        rows = rows + places(h, 1, x.device)[:, None] + (tap // 3 - 1)
        columns = columns + places(w, 1, x.device) + (tap % 3 - 1)
        taken = sample(x, rows.flatten(1, 2), columns.flatten(1, 2), outside="zeros").unflatten(2, (_TAPS, h))
        weighed = taken * self.open(seen)[:, None] * self.weight.view(1, -1, _TAPS, 1, 1)
        y = weighed.sum(dim=2)
        return y if self.bias is None else y + self.bias[:, None, None]
