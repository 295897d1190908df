"""Reading features between pixels."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor


def sample(
    x: Float[Tensor, "b c h w"],
    rows: Float[Tensor, "b p q"],
    columns: Float[Tensor, "b p q"],
    *,
    outside: str,
) -> Float[Tensor, "b c p q"]:
    """Return `x` at places in pixels, bilinearly; computed in fp32 and returned in the type of `x`.

    Half precision places a sample up to 0.75 px off in images 256 px wide, so places are never held in it.

    Args:
        x: Features.
        rows: Where, fp32; pixel `i` lies at `i`.
        columns: Likewise.
        outside: What lies beyond the image: `zeros` or `border`.
    """
    h, w = x.shape[-2:]
    grid = torch.stack([(2 * columns + 1) / w - 1, (2 * rows + 1) / h - 1], dim=-1)
    y = F.grid_sample(x.float(), grid, mode="bilinear", padding_mode=outside, align_corners=False)
    return y.to(x.dtype)


def places(side: int, per_pixel: int, device: torch.device) -> Float[Tensor, " n"]:
    """Return the centres of `per_pixel` samples in each pixel along a side, fp32: 0, 1, 2, … for one."""
    return (torch.arange(side * per_pixel, device=device, dtype=torch.float32) + 0.5) / per_pixel - 0.5
