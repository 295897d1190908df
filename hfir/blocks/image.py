"""From and to the image: stem, base and head."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from hfir.blocks.conv import ToPixels
from hfir.blocks.resample import repeat_for_shuffle_
from hfir.blocks.shuffling import shuffle

HEAD_STD = 0.002
"""The head starts so small that the output starts at the base: some 40 dB from it (docs/log.md)."""


def pad_to_multiple(x: Float[Tensor, "b c h w"], multiple: int) -> Float[Tensor, "b c hp wp"]:
    """Pad right and below to a multiple: mirrored as far as the side allows, the rest repeats the border.

    Nothing to pad (`multiple` 1) is left alone: torch copies the image for each padding by nothing.
    """
    if multiple == 1:
        return x
    h, w = x.shape[-2:]
    right, below = -w % multiple, -h % multiple
    mirrored = (0, min(right, w - 1), 0, min(below, h - 1))
    x = F.pad(x, mirrored, mode="reflect")
    return F.pad(x, (0, right - mirrored[1], 0, below - mirrored[3]), mode="replicate")


class BicubicPhases(nn.Module):
    """Bicubic enlargement (Keys, 1981; a = -0.5) before its pixel shuffle; at scale 1 the input itself.

    Each of the s·s output pixels around an input pixel is a fixed 5×5 blend of its neighbours, so the whole is one
    convolution with constant weights, and exports as such. Borders are replicated. Autocast does not reach it: it
    carries the picture itself, and bf16 has 8 bits for that.

    Args:
        channels: Channels of the image.
        upscale: Factor between input and output side.
    """

    kernel: Tensor

    def __init__(self, channels: int, upscale: int) -> None:
        super().__init__()
        self.channels, self.upscale = channels, upscale
        phases = bicubic_phases(upscale)
        blends = torch.einsum("yi,xj->yxij", phases, phases).reshape(upscale**2, 1, 5, 5)
        self.register_buffer("kernel", blends.repeat(channels, 1, 1, 1), persistent=False)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b css h w"]:
        """Return the `s²` values of each pixel and channel."""
        if self.upscale == 1:
            return x
        device = x.device.type
        if torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device):
            with torch.autocast(device, enabled=False):
                return self._blended(x.float())
        return self._blended(x)

    def _blended(self, x: Tensor) -> Tensor:
        padded = F.pad(x, (2, 2, 2, 2), mode="replicate")
        return F.conv2d(padded, self.kernel, groups=self.channels)


class BicubicBase(nn.Module):
    """Bicubic enlargement, at scale 1 the input itself; see `BicubicPhases`.

    Args:
        channels: Channels of the image.
        upscale: Factor between input and output side.
    """

    def __init__(self, channels: int, upscale: int) -> None:
        super().__init__()
        self.phases = BicubicPhases(channels, upscale)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c hs ws"]:
        """Return the enlarged image."""
        upscale = self.phases.upscale
        return x if upscale == 1 else shuffle(self.phases(x), upscale)


def bicubic_phases(upscale: int) -> Float[Tensor, "s 5"]:
    """Return, for each of the `s` output pixels of an input pixel, the weights of the 5 inputs around it."""
    centre = (torch.arange(upscale, dtype=torch.float64) + 0.5) / upscale - 0.5
    distance = (torch.arange(-2, 3, dtype=torch.float64) - centre[:, None]).abs()
    near = 1.5 * distance**3 - 2.5 * distance**2 + 1
    far = -0.5 * distance**3 + 2.5 * distance**2 - 4 * distance + 2
    return torch.where(distance <= 1, near, torch.where(distance < 2, far, 0.0)).float()


class Head(nn.Module):
    """From features to the image's residual, as `s²` values a pixel for a pixel shuffle; starts near zero.

    The shuffle is left to the network, which adds the base before it: one shuffle for both. On a CPU each takes as
    long as 0.6 of a 3×3 convolution of 16 channels (docs/log.md).

    Args:
        width: Channels of the features.
        channels: Channels of the image.
        upscale: Factor between input and output side.
    """

    def __init__(self, width: int, channels: int, upscale: int) -> None:
        super().__init__()
        self.conv = ToPixels(width, channels * upscale**2)
        nn.init.trunc_normal_(self.conv.weight, std=HEAD_STD)
        if self.conv.bias is not None:
            nn.init.zeros_(self.conv.bias)
        repeat_for_shuffle_(self.conv, upscale)

    def forward(self, x: Float[Tensor, "b d h w"]) -> Float[Tensor, "b css h w"]:
        """Return what is added to the base before its shuffle."""
        return self.conv(x)
