"""The two halves of a separable convolution: 1×1 across channels, and depth-wise across pixels."""

from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from hfir.blocks.eager import is_eager

FAST_COLUMNS = 3
"""Kernels with more columns learn so many at a time; see `depthwise`."""

LANES = 8
"""Output channels that oneDNN computes at once."""


class Pointwise(nn.Conv2d):
    """A 1×1 convolution: the same linear map of the channels at each pixel.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        bias: Whether a bias is added.
    """

    def __init__(self, in_channels: int, out_channels: int, *, bias: bool = True) -> None:
        super().__init__(in_channels, out_channels, 1, bias=bias)

    def forward(self, input: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d h w"]:
        """Return the mapped features."""
        return pointwise(input, self.weight, self.bias)


def pointwise(
    x: Float[Tensor, "b c h w"], weight: Float[Tensor, "d c 1 1"], bias: Float[Tensor, " d"] | None
) -> Float[Tensor, "b d h w"]:
    """Return a 1×1 convolution of `x`.

    On a CPU with one thread and few images, torch has 1×1 kernels done by a general matrix product instead of oneDNN,
    unless they are dilated. A dilation changes nothing of one tap, and here halves the time (docs/log.md).
    """
    dilation = 2 if x.is_cpu and not torch.compiler.is_exporting() else 1
    return F.conv2d(x, weight, bias, dilation=dilation)


class Depthwise(nn.Conv2d):
    """A convolution of each channel by itself that keeps the size.

    Args:
        channels: Channels of input and output.
        kernel_size: Side of the kernel, odd.
    """

    def __init__(self, channels: int, kernel_size: int) -> None:
        super().__init__(channels, channels, kernel_size, padding=kernel_size // 2, groups=channels)

    def forward(self, input: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """Return the filtered features."""
        return depthwise(input, self.weight, self.bias, padding=self.kernel_size[0] // 2)


def depthwise(
    x: Float[Tensor, "b c h w"], weight: Float[Tensor, "c 1 k k"], bias: Float[Tensor, " c"] | None, *, padding: int
) -> Float[Tensor, "b c i j"]:
    """Return a depth-wise convolution of `x`, its border padded with zeros.

    On a CPU, oneDNN has a fast gradient for kernels of up to three columns only; beyond, it takes one for dense
    convolutions, at ten times the cost (torch 2.13; docs/log.md). So wider kernels learn three columns at a time.
    """
    by_columns = (
        FAST_COLUMNS < weight.shape[3] <= x.shape[3]
        and weight.requires_grad
        and torch.is_grad_enabled()
        and x.is_cpu
        and x.dtype == weight.dtype == torch.float32
        and not (torch.is_autocast_enabled("cpu") or torch.compiler.is_exporting())
        and not torch.jit.is_tracing()  # pyright: ignore[reportPrivateImportUsage]
    )
    if by_columns:
        return _ByColumns.apply(x, weight, bias, padding)  # pyright: ignore[reportReturnType]
    return F.conv2d(x, weight, bias, padding=padding, groups=x.shape[1])


class _ByColumns(torch.autograd.Function):
    """A depth-wise convolution whose kernel's gradient is taken a few columns at a time."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, padding: int) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.padding = padding
        return F.conv2d(x, weight, bias, padding=padding, groups=x.shape[1])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None, None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        x, weight = ctx.saved_tensors
        of_x = _gradient(grad, x, weight, (ctx.padding, ctx.padding), 0) if ctx.needs_input_grad[0] else None
        of_weight = _weight_gradient(grad, x, weight, ctx.padding) if ctx.needs_input_grad[1] else None
        of_bias = grad.sum(dim=(0, 2, 3)) if ctx.needs_input_grad[2] else None
        return of_x, of_weight, of_bias, None


def _weight_gradient(grad: Tensor, x: Tensor, weight: Tensor, padding: int) -> Tensor:
    """Return the gradient of a kernel: that of some columns is that of a narrow kernel, of the part of `x` it sees."""
    columns = weight.shape[3]
    parts: list[Tensor] = []
    for first in range(0, columns, FAST_COLUMNS):
        taps = weight[..., first : first + FAST_COLUMNS]
        seen = F.pad(x, (padding - first, padding - columns + first + taps.shape[3]))
        parts.append(_gradient(grad, seen, taps, (padding, 0), 1))
    return torch.cat(parts, dim=3)


def _gradient(grad: Tensor, x: Tensor, weight: Tensor, padding: tuple[int, int], of: int) -> Tensor:
    """Return the gradient of a depth-wise convolution's input (`of` 0) or kernel (`of` 1)."""
    wanted = [of == 0, of == 1, False]
    once, no_offset = [1, 1], [0, 0]
    return torch.ops.aten.convolution_backward(
        grad, x, weight, None, once, list(padding), once, False, no_offset, x.shape[1], wanted
    )[of]


class ToPixels(nn.Conv2d):
    """A 3×3 convolution to the values that a pixel shuffle places.

    On a CPU, channels last, oneDNN takes output channels by eight, and longer for twelve than for sixteen (torch 2.13;
    docs/log.md). So twelve are filled up with zeros, but where something learns: gradients would lose what is won.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(in_channels, out_channels, 3, padding=1)

    def forward(self, input: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d h w"]:
        """Return the values; other numbers may lie between those of one pixel and of the next."""
        missing = -self.out_channels % LANES if self.out_channels > LANES else 0
        if not missing or self.bias is None or torch.is_grad_enabled() or not is_eager(input):
            return super().forward(input)
        weight = F.pad(self.weight, (0, 0, 0, 0, 0, 0, 0, missing))
        return F.conv2d(input, weight, F.pad(self.bias, (0, missing)), padding=1)[:, : self.out_channels]
