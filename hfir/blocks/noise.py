"""Noise for textures that cannot be known, only imagined."""

import torch
from jaxtyping import Float
from torch import Tensor, nn


class NoiseInjection(nn.Module):
    """Add white noise, weighed by a learned factor per channel that starts at zero (StyleGAN, arXiv 1812.04948).

    It draws noise only while training in GAN mode (`gan_mode`); in eval it adds what it is given, and else nothing:
    the same input gives the same output.

    Args:
        channels: Channels of input and output.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(channels))
        self.gan_mode = False

    def forward(
        self, x: Float[Tensor, "b c h w"], noise: Float[Tensor, "b 1 h w"] | None = None
    ) -> Float[Tensor, "b c h w"]:
        """Return `x` with noise, or `x` itself."""
        if noise is None and self.training and self.gan_mode:
            noise = torch.randn(x.shape[0], 1, *x.shape[2:], device=x.device, dtype=x.dtype)
        return x if noise is None else x + self.weight[:, None, None] * noise.to(x.dtype)
