"""Normalisation over channels."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn


class ChannelNorm(nn.Module):
    """Layer norm over the channels of each pixel, with statistics in fp32.

    In half precision the squared deviations overflow and `eps` vanishes, so the statistics never are.
    Both paths compute the same function; the faster one depends on how the pixels lie in memory.

    Args:
        channels: Channels of the input.
        eps: Added to the variance.
    """

    def __init__(self, channels: int, eps: float = 1e-6) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.eps = eps

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """Return `x`, normalised per pixel, scaled and shifted per channel."""
        if x.is_contiguous(memory_format=torch.channels_last):
            return self._pixels_last(x)
        return self._channels_first(x)

    def _pixels_last(self, x: Tensor) -> Tensor:
        flat = x.permute(0, 2, 3, 1)
        weight, bias = self.weight.float(), self.bias.float()
        y = F.layer_norm(flat.float(), (flat.shape[-1],), weight, bias, self.eps)
        return y.to(x.dtype).permute(0, 3, 1, 2)

    def _channels_first(self, x: Tensor) -> Tensor:
        x32 = x.float()
        variance, mean = torch.var_mean(x32, dim=1, keepdim=True, correction=0)
        y = (x32 - mean) * torch.rsqrt(variance + self.eps)
        return (y * self.weight[:, None, None] + self.bias[:, None, None]).to(x.dtype)
