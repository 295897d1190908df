"""Depth-wise convolutions: plain, and re-parameterised from branches.

Structural re-parameterisation: RepVGG (Ding et al., 2021, arXiv 2101.03697); dilated branches: UniRepLKNet (Ding et
al., 2024, arXiv 2311.15599). No batch norm: restoration networks train on small crops.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from hfir.blocks.conv import Depthwise, depthwise
from hfir.blocks.folding import Foldable


class RepLargeKernel(Foldable):
    """A depth-wise K×K convolution that trains as a sum of branches and deploys as one kernel.

    Branches: K×K, every smaller odd side down to 3, 3×3 with each dilation that fits, 1×1, and a scaled identity.
    A sum of linear branches with one stride *is* one convolution, so the branch kernels are added up before the
    convolution runs: training costs one K×K convolution a step, not one for each branch.

    Args:
        channels: Channels of input and output.
        kernel_size: K, odd, >= 3.
    """

    def __init__(self, channels: int, kernel_size: int) -> None:
        super().__init__()
        self.channels, self.kernel_size = channels, kernel_size
        full = Depthwise(channels, kernel_size)
        self.full = full.weight
        self.bias = nn.Parameter(torch.zeros(channels))
        self.inner = nn.ParameterDict({str(k): _small(channels, k) for k in range(3, kernel_size, 2)})
        self.dilated = nn.ParameterDict({str(r): _small(channels, 3) for r in range(2, (kernel_size - 1) // 2 + 1)})
        self.point = _small(channels, 1)
        self.identity = nn.Parameter(torch.zeros(channels, 1, 1, 1))

    def merged_kernel(self) -> Float[Tensor, "c 1 k k"]:
        """Return the one kernel that all branches add up to."""
        kernel = self.full + _centred(self.point + self.identity, self.kernel_size)
        for weight in self.inner.values():
            kernel = kernel + _centred(weight, self.kernel_size)
        for dilation, weight in self.dilated.items():
            kernel = kernel + _centred(_spread(weight, int(dilation)), self.kernel_size)
        return kernel

    def merged_bias(self) -> Float[Tensor, " c"]:
        """Return the one bias; the branches have none of their own."""
        return self.bias

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """Return the sum of all branches of `x`."""
        return depthwise(x, self.merged_kernel(), self.merged_bias(), padding=self.kernel_size // 2)


def _small(channels: int, side: int) -> nn.Parameter:
    """Side branches start small: the sum keeps the variance of the K×K branch."""
    return nn.Parameter(nn.init.trunc_normal_(torch.empty(channels, 1, side, side), std=0.02))


def _centred(kernel: Tensor, side: int) -> Tensor:
    return F.pad(kernel, ((side - kernel.shape[-1]) // 2,) * 4)


def _spread(kernel: Tensor, dilation: int) -> Tensor:
    """Write a dilated kernel as the dense one it stands for: zeros between its taps."""
    return F.conv_transpose2d(kernel, kernel.new_ones(1, 1, 1, 1), stride=dilation)
