"""Frequency separation and patch-wise frequency mixing, without a full-image FFT.

A full-image FFT wraps the borders, depends on the image's size and does not export; an additive blur split and a
patch DFT written as constant matrix products do neither.
"""

import math
from typing import NamedTuple

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from hfir.blocks.conv import depthwise
from hfir.blocks.gating import Gate
from hfir.blocks.padding import repeat_border
from hfir.config import DFT_PX as PATCH


class Bands(NamedTuple):
    """The two bands of a frequency split; they sum to the input when the split's gate is half open."""

    low: Tensor
    high: Tensor


class FreqSplitGate(nn.Module):
    """Split features into a smooth band and the remainder, and weigh the two by a gate.

    The blur is `softmax(theta + log binomial)` per group of channels: non-negative and summing to 1, so it never
    rings (gain at most 1 at any frequency, exactly 1 at zero), and binomial at the start. The gate `g` weighs the
    high band by `2g` and the low one by `2(1 - g)`; it starts at 0.5, where the bands add up to the input.

    Args:
        width: Channels of the input.
        kernel_size: Side of the blur, 3, 5 or 7 pixels; larger moves detail into the high band.
    """

    log_binomial: Tensor

    def __init__(self, width: int, kernel_size: int = 5) -> None:
        super().__init__()
        groups = math.gcd(width, 8)
        self.kernel_size, self.repeats = kernel_size, width // groups
        self.theta = nn.Parameter(torch.zeros(groups, kernel_size**2))
        row = torch.tensor([float(math.comb(kernel_size - 1, i)) for i in range(kernel_size)])
        self.register_buffer("log_binomial", torch.outer(row, row).flatten().log(), persistent=False)
        self.gate = Gate(width, width, bias=0.0)

    def kernel(self) -> Float[Tensor, "c 1 k k"]:
        """Return the blur of each channel: non-negative, summing to 1."""
        weights = torch.softmax(self.theta + self.log_binomial, dim=1).repeat_interleave(self.repeats, dim=0)
        return weights.view(-1, 1, self.kernel_size, self.kernel_size)

    def blur(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """Return the smooth band of `x`; borders are replicated, which is legal for any size."""
        edge = self.kernel_size // 2
        return depthwise(repeat_border(x, (edge, edge, edge, edge)), self.kernel(), None, padding=0)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Bands:
        """Return the gated bands, each shaped like `x`."""
        low = self.blur(x)
        gate = self.gate(x)
        return Bands(low=2 * (1 - gate) * low, high=2 * gate * (x - low))


def real_dft_matrix(n: int) -> Float[Tensor, "n n"]:
    """Return the orthonormal real Fourier basis of `n` (even) samples: constant, cosines, sines, alternation."""
    t = torch.arange(n, dtype=torch.float64)
    rows = [torch.full((n,), math.sqrt(1 / n), dtype=torch.float64)]
    for f in range(1, n // 2):
        rows.append(math.sqrt(2 / n) * torch.cos(2 * math.pi * f * t / n))
        rows.append(math.sqrt(2 / n) * torch.sin(2 * math.pi * f * t / n))
    rows.append(math.sqrt(1 / n) * torch.cos(math.pi * t))
    return torch.stack(rows).float()


def grid_offset(index: int) -> int:
    """Return by how many pixels the patch grid of the block of an index is moved: every other one by half a patch."""
    return index % 2 * (PATCH // 2)


class PatchDFT(nn.Module):
    """Scale the frequencies of 8×8 patches by a learned gain; the identity at the start.

    The gain in the frequency domain follows FFTformer's DFFN (Kong et al., 2023, arXiv 2211.12250); the DFT is a
    product with a constant orthonormal matrix along each side, so it exports and needs no complex numbers.

    Args:
        channels: Channels of input and output.
        offset: Pixels by which the patch grid is moved; alternate 0 and 4 so that no seam stays.
    """

    basis: Tensor

    def __init__(self, channels: int, offset: int = 0) -> None:
        super().__init__()
        self.offset = offset
        self.gain = nn.Parameter(torch.ones(channels, PATCH, PATCH))
        self.register_buffer("basis", real_dft_matrix(PATCH), persistent=False)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """Return `x` with the spectrum of each patch scaled."""
        h, w = x.shape[-2:]
        o = self.offset
        padded = repeat_border(x, (o, -(w + o) % PATCH, o, -(h + o) % PATCH))
        spectrum = _along_both(self.basis, padded.permute(0, 2, 3, 1))
        patches = rearrange(spectrum, "b (i p) (j q) c -> b i p j q c", p=PATCH, q=PATCH)
        scaled = patches * self.gain.permute(1, 2, 0)[:, None]
        mixed = _along_both(self.basis.T, rearrange(scaled, "b i p j q c -> b (i p) (j q) c"))
        return mixed.permute(0, 3, 1, 2)[..., o : o + h, o : o + w]


def _along_both(matrix: Tensor, x: Tensor) -> Tensor:
    """Multiply the rows, then the columns of each patch of `x` [b h w c] by `matrix` [p p].

    Channels last makes each of the two one batched product of wide matrices: 4 times faster than patch by patch.
    """
    h, w = x.shape[1:3]
    y = matrix @ rearrange(x, "b (i p) w c -> b i p (w c)", p=PATCH)
    y = rearrange(y, "b i p (w c) -> b (i p) w c", w=w)
    y = matrix @ rearrange(y, "b h (j q) c -> b h j q c", q=PATCH)
    return rearrange(y, "b h j q c -> b h (j q) c", h=h)
