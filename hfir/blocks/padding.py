"""Padding that repeats the border of features."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor


def repeat_border(x: Float[Tensor, "b c h w"], sides: tuple[int, int, int, int]) -> Float[Tensor, "b c i j"]:
    """Return `x` with its outermost pixels repeated beyond it: left, right, above and below, as `F.pad` counts.

    While it is compiled, written as concatenations: torch 2.13 takes the gradient of its own padding to lie in one
    order of axes, and gets it in another where features lie channels last, so that the compiled step fails.
    """
    if not torch.compiler.is_compiling() or torch.compiler.is_exporting():
        return F.pad(x, sides, mode="replicate")
    left, right, above, below = sides
    return _repeat_ends(_repeat_ends(x, 3, left, right), 2, above, below)


def _repeat_ends(x: Tensor, axis: int, before: int, after: int) -> Tensor:
    first, last = x.narrow(axis, 0, 1), x.narrow(axis, x.shape[axis] - 1, 1)
    return torch.cat([first] * before + [x] + [last] * after, dim=axis)
