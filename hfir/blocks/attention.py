"""Attention inside windows or between channels, and the block around it: attention, then a gated FFN (WAGFFN).

Windows and shifts: Swin (Liu et al., 2021, arXiv 2103.14030). Overlap: HAT (Chen et al., 2023, arXiv 2205.04437).
Attention between channels: Restormer (Zamir et al., 2022, arXiv 2111.09881). Padding to whole windows happens here and
is masked: no real pixel ever attends to padding, beyond the image, nor across the seam that the cyclic shift makes.
"""

import torch
import torch.nn.functional as F
from einops import rearrange, repeat
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from hfir.blocks.ffn import GatedFFN
from hfir.blocks.large_kernel import depthwise
from hfir.blocks.naf import residual_scale
from hfir.blocks.norm import ChannelNorm
from hfir.blocks.windows import cut, reach
from hfir.config import ChannelAttentionConfig, WindowAttentionConfig


def window_attention(channels: int, config: WindowAttentionConfig, *, shifted: bool) -> nn.Module:
    """Return attention inside windows, as a configuration says."""
    return WindowAttention(
        channels,
        config.window_size,
        config.num_heads,
        shifted=shifted,
        overlap=config.overlap,
        num_tokens=config.num_tokens,
    )


def channel_attention(channels: int, config: ChannelAttentionConfig, *, shifted: bool) -> nn.Module:
    """Return attention between channels, which has no windows to shift."""
    return TransposedAttention(channels, config.num_heads)


class WindowAttention(nn.Module):
    """Multi-head attention inside windows, with a learned bias for each relative position.

    Args:
        channels: Channels of input and output; `num_heads` divides them.
        window_size: Side of a window in pixels.
        num_heads: Heads.
        shifted: Move the windows by half a window, so that neighbours meet.
        overlap: Keys and values come from a window that is larger by this share of the side, half of it at each.
        num_tokens: Summaries of the image beside each window's keys; 0 for none.
    """

    relative_index: Tensor

    def __init__(
        self,
        channels: int,
        window_size: int,
        num_heads: int,
        *,
        shifted: bool,
        overlap: float = 0.0,
        num_tokens: int = 0,
    ) -> None:
        super().__init__()
        self.window_size, self.num_heads = window_size, num_heads
        self.shift = window_size // 2 if shifted else 0
        self.border = round(overlap * window_size / 2)
        self.qkv = nn.Conv2d(channels, 3 * channels, 1)
        self.project = nn.Conv2d(channels, channels, 1)
        offsets = 2 * (window_size + self.border) - 1
        self.position_bias = nn.Parameter(torch.zeros(offsets**2, num_heads))
        self.register_buffer("relative_index", _relative_index(window_size, self.border), persistent=False)
        self.tokens = GlobalTokens(channels, num_tokens, num_heads) if num_tokens else None

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """Return attended features, shaped like `x`."""
        h, w = x.shape[-2:]
        size, shift, heads = self.window_size, self.shift, self.num_heads
        padded = F.pad(self.qkv(x), (0, -w % size, 0, -h % size))
        grid = torch.roll(padded, (-shift, -shift), dims=(2, 3)) if shift else padded
        columns, channels = grid.shape[3] // size, x.shape[1]
        asked, answers = grid[:, :channels], grid[:, channels:]
        q = rearrange(cut(asked, size, 0), "b (n d) i p j q -> b (i j n) (p q) d", n=heads)
        k, v = rearrange(cut(answers, size, self.border), "b (t n d) i p j q -> t b (i j n) (p q) d", t=2, n=heads)
        bias = self._bias(h, w)
        if self.tokens is not None:
            k, v, bias = self._with_tokens(self.tokens, x, k, v, bias)
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=bias.to(q.dtype))
        y = rearrange(y, "b (i j n) (p q) d -> b (n d) (i p) (j q)", n=heads, p=size, j=columns)
        y = torch.roll(y, (shift, shift), dims=(2, 3)) if shift else y
        return self.project(y[..., :h, :w])

    def _with_tokens(
        self, tokens: "GlobalTokens", x: Tensor, k: Tensor, v: Tensor, bias: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Append the image's summaries, projected as pixels are, to what every window sees."""
        own, channels = self.qkv, x.shape[1]
        projected = F.linear(
            tokens(x), own.weight[channels:, :, 0, 0], None if own.bias is None else own.bias[channels:]
        )
        windows = k.shape[1] // self.num_heads
        summary = repeat(projected, "b s (t n d) -> t b (i n) s d", t=2, n=self.num_heads, i=windows)
        more = repeat(tokens.bias, "n s -> 1 (i n) p s", i=windows, p=bias.shape[2])
        scale = repeat(tokens.scale, "(n d) -> (i n) 1 d", i=windows, n=self.num_heads)
        return (
            torch.cat([k, summary[0]], dim=2),
            torch.cat([v, scale.to(v.dtype) * summary[1]], dim=2),
            torch.cat([bias, more], dim=3),
        )

    def _bias(self, h: int, w: int) -> Float[Tensor, "1 nw_heads n m"]:
        """Return what is added to the scores: position bias, and -inf where a pair must not meet."""
        table = self.position_bias[self.relative_index].movedim(-1, 0)
        rows, columns = self._together(h), self._together(w)
        together = rows[:, None, :, None, :, None] & columns[None, :, None, :, None, :]
        apart = ~rearrange(together, "i j p q r s -> (i j) 1 (p q) (r s)")
        return table.masked_fill(apart, float("-inf")).flatten(0, 1)[None]

    def _together(self, side: int) -> Bool[Tensor, "n p r"]:
        """Return, for each window along one side, which asking and answering places may meet.

        They meet where they are as far apart in the image as in the window (no seam of the cyclic shift lies between)
        and the answering one is real; padding may ask anyone, for nobody looks at what it gets.
        """
        padded = side + -side % self.window_size
        windows = (reach(padded, self.window_size, border, self.position_bias.device) for border in (0, self.border))
        (asking_seam, asking), (answering_seam, answering) = (self._in_image(places, padded) for places in windows)
        no_seam = asking_seam[:, :, None] == answering_seam[:, None, :]
        return no_seam & ((answering < side)[:, None, :] | (asking >= side)[:, :, None])

    def _in_image(self, places: Int[Tensor, "n k"], padded: int) -> tuple[Int[Tensor, "n k"], Int[Tensor, "n k"]]:
        """Return how far the shift moved each place (it differs across a seam), and where in the image it lies."""
        image = (places + self.shift) % padded
        return image - places, image


class GlobalTokens(nn.Module):
    """Summaries of the image: each is a mean of all pixels, weighted by a learned question.

    As keys and values of every window they carry what is far away, at a cost linear in the pixels. Their values start
    at zero. The result then depends on the whole image, so tiles differ from it.

    Args:
        channels: Channels of the features.
        num_tokens: Summaries.
        num_heads: Heads of the attention that they serve.
    """

    def __init__(self, channels: int, num_tokens: int, num_heads: int) -> None:
        super().__init__()
        self.question = nn.Conv2d(channels, num_tokens, 1)
        self.bias = nn.Parameter(torch.zeros(num_heads, num_tokens))
        self.scale = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b s c"]:
        """Return the summaries; the softmax over the pixels is fp32."""
        weights = torch.softmax(self.question(x).flatten(2).float(), dim=2).to(x.dtype)
        return weights @ x.flatten(2).transpose(1, 2)


class TransposedAttention(nn.Module):
    """Attention between the channels of a head: linear in the pixels, global in reach (MDTA, arXiv 2111.09881).

    Queries and keys are normalised over the pixels, so the scores are cosines, and are sharpened by a learned
    temperature for each head; scores and softmax are fp32.

    Args:
        channels: Channels of input and output; `num_heads` divides them.
        num_heads: Heads.
    """

    def __init__(self, channels: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.qkv = nn.Sequential(nn.Conv2d(channels, 3 * channels, 1), depthwise(3 * channels, 3))
        self.temperature = nn.Parameter(torch.ones(num_heads, 1, 1))
        self.project = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """Return attended features, shaped like `x`."""
        h, w = x.shape[-2:]
        q, k, v = rearrange(self.qkv(x), "b (t n d) h w -> t b n d (h w)", t=3, n=self.num_heads)
        cosines = F.normalize(q.float(), dim=-1) @ F.normalize(k.float(), dim=-1).transpose(-1, -2)
        weights = torch.softmax(cosines.float() * self.temperature.float(), dim=-1)
        y = weights.to(v.dtype) @ v
        return self.project(rearrange(y, "b n d (h w) -> b (n d) h w", h=h, w=w))


class WAGFFN(nn.Module):
    """Attention, then a gated feed-forward part, both residual with a learned small scale.

    Args:
        channels: Channels of input and output.
        attention: What attends; keeps the shape.
        expansion: Of the feed-forward part.
        scale: Start value of the residual scales.
    """

    def __init__(self, channels: int, attention: nn.Module, *, expansion: float, scale: float) -> None:
        super().__init__()
        self.norm_attention = ChannelNorm(channels)
        self.attention = attention
        self.norm_ffn = ChannelNorm(channels)
        self.ffn = GatedFFN(channels, expansion)
        self.beta, self.gamma = residual_scale(channels, scale), residual_scale(channels, scale)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """Return the block's output, shaped like `x`."""
        x = x + self.beta * self.attention(self.norm_attention(x))
        return x + self.gamma * self.ffn(self.norm_ffn(x))


def _relative_index(size: int, border: int) -> Int[Tensor, "n m"]:
    """Number the offsets between asking and answering pixels of a window, for the table of position biases."""
    span = 2 * (size + border) - 1
    offset = torch.arange(size)[:, None] - torch.arange(-border, size + border) + size + border - 1
    pairs = offset[:, None, :, None] * span + offset[None, :, None, :]
    return rearrange(pairs, "p q r s -> (p q) (r s)")
