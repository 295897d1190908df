"""Cutting a plane into windows that may reach over their borders, by index: shapes stay free, so it exports."""

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor


def cut(x: Float[Tensor, "b c h w"], size: int, border: int = 0) -> Float[Tensor, "b c nh k nw l"]:
    """Cut a plane into windows that begin every `size` pixels and are `size + 2·border` wide.

    Args:
        x: The plane, padded by `border` at each side; without the padding its sides are multiples of `size`.
        size: Pixels from window to window.
        border: Pixels that a window sees of its neighbours at each side.

    Returns:
        Windows in rows and columns: `nh · nw` of them, `k = l = size + 2·border` pixels a side.
    """
    wide = size + 2 * border
    if border:
        for axis in (2, 3):
            starts = torch.arange(0, x.shape[axis] - 2 * border, size, device=x.device)
            x = x.index_select(axis, (starts[:, None] + torch.arange(wide, device=x.device)).flatten())
    return rearrange(x, "b c (i p) (j q) -> b c i p j q", p=wide, q=wide)
