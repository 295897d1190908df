"""A PReLU whose gradient is quick on a CPU."""

from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from hfir.blocks.eager import is_eager


class PReLU(nn.PReLU):
    """`x` where it is positive, else `weight · x`, with a learnt slope a channel (He et al., 2015, arXiv 1502.01852).

    torch 2.13 takes its gradient on a CPU one number at a time, in five to eight times as long as five operations on
    all (docs/log.md). The input's gradient is the same to the bit, the slopes' up to the order of a sum.

    Args:
        channels: Of the input.
    """

    def __init__(self, channels: int) -> None:
        super().__init__(channels)

    def forward(self, input: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """Return the activations."""
        learns = torch.is_grad_enabled() and input.dtype == self.weight.dtype and is_eager(input)
        if learns and not torch.is_autocast_enabled("cpu"):
            return _PReLU.apply(input, self.weight)  # pyright: ignore[reportReturnType]
        return F.prelu(input, self.weight)


class _PReLU(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        return F.prelu(x, weight)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        x, weight = ctx.saved_tensors
        rising = torch.ops.aten.threshold_backward(grad, x, 0.0)
        falling = grad - rising
        of_x = torch.addcmul(rising, falling, weight.view(1, -1, 1, 1)) if ctx.needs_input_grad[0] else None
        of_weight = falling.mul_(x).sum(dim=(0, 2, 3)) if ctx.needs_input_grad[1] else None
        return of_x, of_weight
