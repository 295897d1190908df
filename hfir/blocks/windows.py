"""Cutting a plane into windows that may reach over their borders, by index: shapes stay free, so it exports."""

import torch
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor


def reach(side: int, size: int, border: int, device: torch.device) -> Int[Tensor, "n k"]:
    """Return which places each window of a side sees: `n = side / size` windows of `k = size + 2·border` places.

    Places before 0 and from `side` on lie beyond the plane.
    """
    starts = torch.arange(0, side, size, device=device)
    return starts[:, None] + torch.arange(-border, size + border, device=device)


def cut(x: Float[Tensor, "b c h w"], size: int, border: int) -> Float[Tensor, "b c nh k nw l"]:
    """Cut `x`, whose sides are multiples of `size`, into windows; beyond one side the other one begins again.

    Returns:
        Windows in rows and columns: `nh · nw` of them, each `size + 2·border` pixels a side.
    """
    h, w = x.shape[-2:]
    if border:
        for axis, side in ((2, h), (3, w)):
            places = reach(side, size, border, x.device) % side
            x = x.index_select(axis, places.flatten())
    k = size + 2 * border
    return rearrange(x, "b c (i p) (j q) -> b c i p j q", p=k, q=k)
