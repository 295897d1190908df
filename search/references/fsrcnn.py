"""FSRCNN: features at the input's size, enlarged by one transposed convolution at the end.

Dong, Loy, Tang: Accelerating the super-resolution convolutional neural network, 2016 (arXiv 1608.00367).
"""

from __future__ import annotations

from collections.abc import Iterator

from jaxtyping import Float
from torch import Tensor, nn

from hfir.blocks.prelu import PReLU
from search.references.parts import on_base

DECONVOLUTION_STD = 0.001
"""Of the last layer's initial weights; the others start as He et al. (2015) have it for PReLU (§3.3)."""
KERNEL = 9


class FSRCNN(nn.Module):
    """`Conv(5, d) – Conv(1, s) – m × Conv(3, s) – Conv(1, d) – DeConv(9)`, a PReLU after each but the last (§3.2).

    The paper's network is FSRCNN(56, 12, 4), its small one FSRCNN-s (32, 5, 1); both restore the luma alone, here
    every channel of the image. At scale 1 the transposed convolution is an ordinary one, of stride 1.

    Args:
        in_channels: Of the image.
        upscale: Factor between input and output side, >= 1.
        d: Channels of the features.
        s: Channels that they are shrunk to, where the mapping takes place.
        m: Mapping layers.
        base: Add the output to a bicubic enlargement (at scale 1: to the input). Not in the paper; a short training
            gets further with it.
    """

    def __init__(
        self, in_channels: int, upscale: int, *, d: int = 56, s: int = 12, m: int = 4, base: bool = False
    ) -> None:
        super().__init__()
        self.features = nn.Sequential(*_layers(in_channels, d, s, m))
        self.enlarge = nn.ConvTranspose2d(
            d, in_channels, KERNEL, stride=upscale, padding=KERNEL // 2, output_padding=upscale - 1
        )
        nn.init.normal_(self.enlarge.weight, std=DECONVOLUTION_STD)
        self.base = on_base(in_channels, upscale, wanted=base)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c hs ws"]:
        """Return the restored image."""
        y = self.enlarge(self.features(x))
        return y if self.base is None else y + self.base(x)


def _layers(in_channels: int, d: int, s: int, m: int) -> Iterator[nn.Module]:
    sizes = [(in_channels, d, 5), (d, s, 1), *[(s, s, 3)] * m, (s, d, 1)]
    for channels, features, side in sizes:
        layer = nn.Conv2d(channels, features, side, padding=side // 2)
        nn.init.kaiming_normal_(layer.weight, a=0.25)  # 0.25: the slope that PReLU starts with
        yield layer
        yield PReLU(features)
