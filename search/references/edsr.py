"""EDSR: residual blocks without batch norm under one long skip.

Lim, Son, Kim, Nah, Lee: Enhanced deep residual networks for single image super-resolution, 2017 (arXiv 1707.02921).
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from jaxtyping import Float
from torch import Tensor, nn

from search.references.parts import LUMA, on_base
from search.types import InputError

MEAN = (0.4488, 0.4371, 0.4040)
"""Mean of DIV2K's pixels (red, green, blue), which the paper takes off before and adds after."""


class EDSR(nn.Module):
    """Head, `blocks` residual blocks, a convolution, a skip around them, and sub-pixel enlargement (fig. 3).

    The paper's baseline has 16 blocks of 64 channels and no residual scaling; small ones come by arguments. Scale 4
    enlarges twice by 2, as there. At scale 1 nothing enlarges: the last convolution makes the image of the features.

    Args:
        in_channels: Of the image, 1 or 3.
        upscale: Factor between input and output side, 1 to 4.
        width: Channels of the features.
        blocks: Residual blocks.
        residual_scale: Factor of a block's branch; 0.1 in the paper's large network.
        base: Add the output to a bicubic enlargement (at scale 1: to the input). Not in the paper; a short training
            gets further with it.

    Raises:
        InputError: If the channels are neither 1 nor 3.
    """

    mean: Tensor

    def __init__(
        self,
        in_channels: int,
        upscale: int,
        *,
        width: int = 64,
        blocks: int = 16,
        residual_scale: float = 1.0,
        base: bool = False,
    ) -> None:
        super().__init__()
        if in_channels not in (1, 3):
            raise InputError(f"EDSR: {in_channels} channels are not possible. It takes images of 1 or 3.")
        mean = MEAN if in_channels == 3 else (sum(w * m for w, m in zip(LUMA, MEAN, strict=True)),)
        self.register_buffer("mean", torch.tensor(mean).reshape(1, -1, 1, 1), persistent=False)
        self.head = nn.Conv2d(in_channels, width, 3, padding=1)
        self.body = nn.Sequential(
            *(ResidualBlock(width, residual_scale) for _ in range(blocks)), nn.Conv2d(width, width, 3, padding=1)
        )
        self.tail = nn.Sequential(*_enlargement(width, upscale), nn.Conv2d(width, in_channels, 3, padding=1))
        self.base = on_base(in_channels, upscale, wanted=base)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c hs ws"]:
        """Return the restored image."""
        features = self.head(x - self.mean)
        y = self.tail(features + self.body(features))
        return y + self.mean if self.base is None else y + self.base(x)


class ResidualBlock(nn.Module):
    """`x + scale · conv(relu(conv(x)))` (§3.1)."""

    def __init__(self, width: int, residual_scale: float) -> None:
        super().__init__()
        self.scale = residual_scale
        self.branch = nn.Sequential(
            nn.Conv2d(width, width, 3, padding=1), nn.ReLU(), nn.Conv2d(width, width, 3, padding=1)
        )

    def forward(self, x: Float[Tensor, "b d h w"]) -> Float[Tensor, "b d h w"]:
        """Return features shaped like `x`."""
        return x + self.scale * self.branch(x)


def _enlargement(width: int, upscale: int) -> Iterator[nn.Module]:
    """Yield a convolution and a pixel shuffle for each step: 4 is 2 times 2, 1 is none."""
    for factor in {1: (), 4: (2, 2)}.get(upscale, (upscale,)):
        yield nn.Conv2d(width, width * factor**2, 3, padding=1)
        yield nn.PixelShuffle(factor)
