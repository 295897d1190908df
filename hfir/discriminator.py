"""The other player of the GAN stage: tells real from restored images, pixel by pixel."""

from itertools import pairwise

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from hfir.errors import ConfigError

MIN_SIDE_PX = 8
"""Three halvings must leave a pixel."""
_SLOPE = 0.2


class UNetDiscriminator(nn.Module):
    """A U-Net that gives a logit for each pixel (Schönfeld et al. 2020, arXiv 2002.12655).

    Three levels down and up, joined by sums; every convolution but the first and the last is divided by its largest
    singular value, which keeps the game stable (Real-ESRGAN, Wang et al. 2021, arXiv 2107.10833).

    Args:
        in_channels: Of the images, >= 1.
        width: Channels at full resolution, >= 1; each level down doubles them.
    """

    def __init__(self, in_channels: int = 3, width: int = 64) -> None:
        super().__init__()
        widths = [width, 2 * width, 4 * width, 8 * width]
        self.stem = nn.Conv2d(in_channels, width, 3, padding=1)
        self.down = nn.ModuleList(
            spectral_norm(nn.Conv2d(a, b, 4, stride=2, padding=1, bias=False)) for a, b in pairwise(widths)
        )
        self.up = nn.ModuleList(
            spectral_norm(nn.Conv2d(a, b, 3, padding=1, bias=False)) for a, b in pairwise(reversed(widths))
        )
        self.refine = nn.ModuleList(spectral_norm(nn.Conv2d(width, width, 3, padding=1, bias=False)) for _ in range(2))
        self.head = nn.Conv2d(width, 1, 3, padding=1)

    def forward(self, image: Float[Tensor, "b c h w"]) -> Float[Tensor, "b 1 h w"]:
        """Return logits, high where a pixel looks real; any `h`, `w` >= 8.

        Raises:
            ConfigError: If the image is smaller.
        """
        if min(image.shape[-2:]) < MIN_SIDE_PX:
            raise ConfigError(
                f"discriminator: an image of {image.shape[-1]} x {image.shape[-2]} px is too small. "
                f"It must be at least {MIN_SIDE_PX} x {MIN_SIDE_PX} px: train on larger patches."
            )
        features = _active(self.stem(image))
        skips: list[Tensor] = []
        for down in self.down:
            skips.append(features)
            features = _active(down(features))
        for up, skip in zip(self.up, reversed(skips), strict=True):
            enlarged = F.interpolate(features, size=skip.shape[-2:], mode="bilinear", align_corners=False)
            features = _active(up(enlarged)) + skip
        for refine in self.refine:
            features = _active(refine(features))
        return self.head(features)


def _active(features: Tensor) -> Tensor:
    return F.leaky_relu(features, _SLOPE)
