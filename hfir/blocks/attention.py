"""Shifted-window attention with a gated feed-forward part (WAGFFN).

Windows and shifts: Swin (Liu et al., 2021, arXiv 2103.14030). Padding to whole windows happens here and is masked:
no real pixel ever attends to padding, nor across the seam that the cyclic shift makes.
"""

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from hfir.blocks.ffn import GatedFFN
from hfir.blocks.naf import residual_scale
from hfir.blocks.norm import ChannelNorm


class WindowAttention(nn.Module):
    """Multi-head attention inside windows, with a learned bias for each relative position.

    Args:
        channels: Channels of input and output; `num_heads` divides them.
        window_size: Side of a window in pixels.
        num_heads: Heads.
        shifted: Move the windows by half a window, so that neighbours meet.
    """

    relative_index: Tensor

    def __init__(self, channels: int, window_size: int, num_heads: int, *, shifted: bool) -> None:
        super().__init__()
        self.window_size, self.num_heads = window_size, num_heads
        self.shift = window_size // 2 if shifted else 0
        self.qkv = nn.Conv2d(channels, 3 * channels, 1)
        self.project = nn.Conv2d(channels, channels, 1)
        self.position_bias = nn.Parameter(torch.zeros((2 * window_size - 1) ** 2, num_heads))
        self.register_buffer("relative_index", _relative_index(window_size), persistent=False)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """Return attended features, shaped like `x`."""
        h, w = x.shape[-2:]
        size, shift = self.window_size, self.shift
        padded = F.pad(self.qkv(x), (0, -w % size, 0, -h % size))
        grid = torch.roll(padded, (-shift, -shift), dims=(2, 3)) if shift else padded
        q, k, v = rearrange(grid, "b (t n d) (i p) (j q) -> t b (i j n) (p q) d", t=3, n=self.num_heads, p=size, q=size)
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=self._bias(h, w).to(q.dtype))
        y = rearrange(y, "b (i j n) (p q) d -> b (n d) (i p) (j q)", n=self.num_heads, p=size, j=grid.shape[3] // size)
        y = torch.roll(y, (shift, shift), dims=(2, 3)) if shift else y
        return self.project(y[..., :h, :w])

    def _bias(self, h: int, w: int) -> Float[Tensor, "1 nw_heads n n"]:
        """Return what is added to the scores: position bias, and -inf where a pair must not meet."""
        table = self.position_bias[self.relative_index].movedim(-1, 0)
        apart = ~self._together(h, w)[:, None]
        return table.masked_fill(apart, float("-inf")).flatten(0, 1)[None]

    def _together(self, h: int, w: int) -> Bool[Tensor, "nw n n"]:
        """Return which pairs of pixels of each window come from one region of the image."""
        rows, columns = self._region(h), self._region(w)
        region = rearrange(
            rows[:, None] * 4 + columns, "(i p) (j q) -> (i j) (p q)", p=self.window_size, q=self.window_size
        )
        return region[:, :, None] == region[:, None, :]

    def _region(self, side: int) -> Int[Tensor, " padded"]:
        """Number the regions along one side after padding and shift: real, wrapped, padding."""
        padded = side + -side % self.window_size
        place = torch.arange(padded, device=self.position_bias.device)
        wrapped = place >= padded - self.shift
        padding = (place + self.shift) % padded >= side
        return 2 * padding.long() + wrapped.long()


class WAGFFN(nn.Module):
    """Window attention, then a gated feed-forward part, both residual with a learned small scale.

    Args:
        channels: Channels of input and output.
        window_size: Side of a window in pixels.
        num_heads: Heads; they divide `channels`.
        expansion: Of the feed-forward part.
        scale: Start value of the residual scales.
        shifted: Whether the windows are moved by half a window.
    """

    def __init__(
        self,
        channels: int,
        *,
        window_size: int,
        num_heads: int,
        expansion: float,
        scale: float,
        shifted: bool,
    ) -> None:
        super().__init__()
        self.norm_attention = ChannelNorm(channels)
        self.attention = WindowAttention(channels, window_size, num_heads, shifted=shifted)
        self.norm_ffn = ChannelNorm(channels)
        self.ffn = GatedFFN(channels, expansion)
        self.beta, self.gamma = residual_scale(channels, scale), residual_scale(channels, scale)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """Return the block's output, shaped like `x`."""
        x = x + self.beta * self.attention(self.norm_attention(x))
        return x + self.gamma * self.ffn(self.norm_ffn(x))


def _relative_index(size: int) -> Int[Tensor, "n n"]:
    """Number the offsets between the pixels of a window, for the table of position biases."""
    place = torch.stack(torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")).flatten(1)
    offset = place[:, :, None] - place[:, None, :] + size - 1
    return offset[0] * (2 * size - 1) + offset[1]
