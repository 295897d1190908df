"""Pixels to channels and back: pixel (un)shuffle (Shi et al., 2016, arXiv 1609.05158), fast on a CPU."""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from hfir.blocks.eager import is_eager

Move = Callable[[Tensor, int], Tensor]
FEW = 8
"""Below so many channels of the result, strided copies beat torch's shuffle (torch 2.13; docs/log.md)."""


def shuffle(x: Float[Tensor, "b css h w"], factor: int) -> Float[Tensor, "b c hs ws"]:
    """Return `x` with each pixel's s² values of a channel as s·s pixels, as `F.pixel_shuffle` does.

    On a CPU, channels last, torch moves one number at a time; a strided copy for each of the s² values moves rows.
    Unshuffling, which is also the gradient, gains at any number of channels.
    """
    if not _pays(x):
        return F.pixel_shuffle(x, factor)
    return _Moved.apply(x, factor, _joined, _parted)  # pyright: ignore[reportReturnType]


def unshuffle(x: Float[Tensor, "b c hs ws"], factor: int) -> Float[Tensor, "b css h w"]:
    """Return `x` with each s·s block of pixels as s² channels, as `F.pixel_unshuffle` does; see `shuffle`."""
    if not _pays(x):
        return F.pixel_unshuffle(x, factor)
    return _Moved.apply(x, factor, _parted, _joined)  # pyright: ignore[reportReturnType]


class _Moved(torch.autograd.Function):
    """One way forward, the other one backward: each is the other's gradient."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, factor: int, there: Move, back: Move) -> Tensor:
        ctx.factor, ctx.back = factor, back
        return there(x, factor)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        return ctx.back(grad, ctx.factor), None, None, None


def _joined(x: Tensor, factor: int) -> Tensor:
    b, channels, h, w = x.shape
    c = channels // factor**2
    if c >= FEW:
        return F.pixel_shuffle(x, factor)
    values = x.permute(0, 2, 3, 1)
    out = x.new_empty((b, h, factor, w, factor, c))
    for row in range(factor):
        for column in range(factor):
            out[:, :, row, :, column].copy_(values[..., row * factor + column :: factor**2])
    return out.view(b, h * factor, w * factor, c).permute(0, 3, 1, 2)


def _parted(x: Tensor, factor: int) -> Tensor:
    b, c, height, width = x.shape
    h, w = height // factor, width // factor
    values = x.permute(0, 2, 3, 1).reshape(b, h, factor, w, factor, c)
    out = x.new_empty((b, h, w, c * factor**2))
    for row in range(factor):
        for column in range(factor):
            out[..., row * factor + column :: factor**2].copy_(values[:, :, row, :, column])
    return out.permute(0, 3, 1, 2)


def _pays(x: Tensor) -> bool:
    """Say whether copies pay: they do channels last."""
    return is_eager(x) and x.is_contiguous(memory_format=torch.channels_last)
