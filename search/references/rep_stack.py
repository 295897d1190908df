"""A plain stack of 3×3 convolutions that trains as a sum of branches: what runs is nothing but convolutions.

Zhang, Zeng, Zhang: Edge-oriented convolution block for real-time super resolution on mobile devices (ECBSR), ACM
Multimedia 2021; the idea: RepVGG (Ding et al., 2021, arXiv 2101.03697).
"""

from __future__ import annotations

import copy

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from hfir.blocks.conv import ToPixels
from hfir.blocks.folding import Foldable
from hfir.blocks.prelu import PReLU
from hfir.blocks.shuffling import shuffle

EDGE_FILTERS = {
    "sobel_x": ((1.0, 0.0, -1.0), (2.0, 0.0, -2.0), (1.0, 0.0, -1.0)),
    "sobel_y": ((1.0, 2.0, 1.0), (0.0, 0.0, 0.0), (-1.0, -2.0, -1.0)),
    "laplacian": ((0.0, 1.0, 0.0), (1.0, -4.0, 1.0), (0.0, 1.0, 0.0)),
}
"""The first and second derivatives that the paper's block has branches for (§3.2). Each sums to 0."""
EDGE_STD = 0.001
"""Of the edge branches' initial scales: they start all but silent."""


class RepStack(nn.Module):
    """`depth` + 2 edge-oriented convolutions of `width` channels, a PReLU after each but the last (ECBSR-M·C·).

    The last makes `s²` values a pixel and channel; each input pixel is added to its own, and a pixel shuffle places
    them. So the network adds to the enlargement by the nearest pixel; at scale 1 nothing is placed, and it adds to
    the input.

    Args:
        in_channels: Of the image.
        upscale: Factor between input and output side, >= 1.
        width: Channels of the features, the paper's C.
        depth: Convolutions between the first and the last, the paper's M.
        expansion: Of the branch that expands and squeezes, a factor on the channels.
    """

    def __init__(self, in_channels: int, upscale: int, *, width: int = 16, depth: int = 4, expansion: int = 2) -> None:
        super().__init__()
        self.upscale = upscale
        sizes = [(in_channels, width), *[(width, width)] * depth]
        layers: list[nn.Module] = []
        for channels, features in sizes:
            layers += [RepConv(channels, features, expansion), PReLU(features)]
        self.body = nn.Sequential(*layers, RepConv(width, in_channels * upscale**2, expansion))

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c hs ws"]:
        """Return the restored image."""
        residual = self.body(x)
        return shuffle(residual + x.repeat_interleave(self.upscale**2, dim=1), self.upscale)

    def fuse(self) -> RepStack:
        """Return the deploy form: the same network of plain 3×3 convolutions, the input left as it is."""
        deployed = copy.deepcopy(self)
        deployed.body = nn.Sequential(*(_plain(m) if isinstance(m, RepConv) else m for m in deployed.body))
        return deployed


class RepConv(Foldable):
    """A 3×3 convolution that trains as the sum of six branches.

    3×3; 1×1 to `expansion` times the channels, then 3×3; 1×1, then a scaled Sobel filter in x, in y, and a Laplacian;
    the input itself where input and output have as many channels (RepVGG). A sum of linear branches *is* one
    convolution: their kernels are added up before it runs, which also settles the border (the paper pads what lies
    between two convolutions of a branch by the first one's bias, to the same end).

    Args:
        channels: Of the input.
        features: Channels of the output.
        expansion: Of the expand-and-squeeze branch.
    """

    edges: Tensor

    def __init__(self, channels: int, features: int, expansion: int) -> None:
        super().__init__()
        self.full = nn.Conv2d(channels, features, 3)
        self.expand = nn.Conv2d(channels, expansion * channels, 1)
        self.squeeze = nn.Conv2d(expansion * channels, features, 3)
        self.points = nn.ModuleDict({name: nn.Conv2d(channels, features, 1, bias=False) for name in EDGE_FILTERS})
        self.scales = nn.ParameterDict({n: nn.Parameter(EDGE_STD * torch.randn(features)) for n in EDGE_FILTERS})
        self.register_buffer("edges", torch.tensor(list(EDGE_FILTERS.values())), persistent=False)
        self.has_identity = channels == features

    def merged_kernel(self) -> Float[Tensor, "o i 3 3"]:
        """Return the one kernel that all branches add up to."""
        kernel = self.full.weight + torch.einsum("omyx,mi->oiyx", self.squeeze.weight, self.expand.weight[:, :, 0, 0])
        for edge, name in zip(self.edges, EDGE_FILTERS, strict=True):
            scale = self.scales[name]
            point = self.points.get_submodule(name).get_parameter("weight")[:, :, 0, 0]
            kernel = kernel + torch.einsum("o,oi,yx->oiyx", scale, point, edge)
        if self.has_identity:
            centre = torch.eye(len(kernel), device=kernel.device, dtype=kernel.dtype)
            kernel = kernel + F.pad(centre[:, :, None, None], (1, 1, 1, 1))
        return kernel

    def merged_bias(self) -> Float[Tensor, " o"]:
        """Return the one bias; those of the edge branches vanish, for their filters sum to 0."""
        squeezed = torch.einsum("omyx,m->o", self.squeeze.weight, _bias(self.expand))
        return _bias(self.full) + squeezed + _bias(self.squeeze)

    def forward(self, x: Float[Tensor, "b i h w"]) -> Float[Tensor, "b o h w"]:
        """Return the sum of all branches of `x`."""
        return F.conv2d(x, self.merged_kernel(), self.merged_bias(), padding=1)


def _plain(rep: RepConv) -> nn.Conv2d:
    """Return the equivalent plain convolution."""
    weight = rep.full.weight
    plain = ToPixels(weight.shape[1], weight.shape[0]).to(weight)
    plain.load_state_dict(rep.folded())
    return plain


def _bias(layer: nn.Conv2d) -> Tensor:
    return layer.get_parameter("bias")
