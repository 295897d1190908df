"""Attention inside windows or between channels, and the block around it: attention, then a gated FFN (WAGFFN).

Windows and shifts: Swin (Liu et al., 2021, arXiv 2103.14030). Overlap: HAT (Chen et al., 2023, arXiv 2205.04437).
Attention between channels: Restormer (Zamir et al., 2022, arXiv 2111.09881). Windows are shifted by padding instead of
a cyclic shift, so none holds a seam; padding to whole windows happens here, and no pixel ever attends to it.
"""

import torch
import torch.nn.functional as F
from einops import rearrange, repeat
from jaxtyping import Float, Int
from torch import Tensor, nn

from hfir.blocks.conv import Depthwise, Pointwise
from hfir.blocks.ffn import GatedFFN
from hfir.blocks.naf import residual_scale
from hfir.blocks.norm import ChannelNorm
from hfir.blocks.windows import cut
from hfir.config import ChannelAttentionConfig, WindowAttentionConfig

NEVER = -3e4
"""A score that leaves nothing in a softmax; within the range of fp16."""


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
        self.qkv = Pointwise(channels, 3 * channels)
        self.project = Pointwise(channels, channels)
        offsets = 2 * (window_size + self.border) - 1
        self.position_bias = nn.Parameter(torch.zeros(offsets**2, num_heads))
        self.register_buffer("relative_index", _relative_index(window_size, self.border), persistent=False)
        self.tokens = GlobalTokens(channels, num_tokens, num_heads) if num_tokens else None

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """Return attended features, shaped like `x`."""
        (b, channels, h, w), (size, heads, first) = x.shape, (self.window_size, self.num_heads, self.shift)
        around = (first, -(w + first) % size, first, -(h + first) % size)
        wider = tuple(side + self.border for side in around)
        whole = not any(wider) and not torch.compiler.is_compiling()  # nothing to pad: nothing beyond the image
        qkv = self.qkv(x)
        asked, answers = qkv[:, :channels], qkv[:, channels:]
        if not whole:
            asked, answers = F.pad(asked, around), F.pad(answers, wider)
        q = rearrange(cut(asked, size), "b (n d) i p j q -> (b i j) n (p q) d", n=heads)
        answers = cut(answers, size, self.border)
        k, v = rearrange(answers, "b (t n d) i p j q -> t (b i j) n (p q) d", t=2, n=heads)
        if not whole:
            beyond = cut(F.pad(x.new_zeros(1, 1, h, w), wider, value=NEVER), size, self.border)
            beyond = repeat(beyond, "1 1 i p j q -> (b i j) n (p q) 1", b=b, n=heads)
            q, k, v = F.pad(q, (0, 1), value=1.0), torch.cat([k, beyond], dim=-1), F.pad(v, (0, 1))
        y = self._attend(x, q, k, v)
        columns = (w + around[0] + around[1]) // size
        y = rearrange(y, "(b i j) n (p q) d -> b (n d) (i p) (j q)", b=b, p=size, j=columns)
        return self.project(y[..., first : first + h, first : first + w])

    def _attend(self, x: Tensor, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Return the softmax-weighed values.

        One channel more than the head's tells what lies beyond the image: against a 1 in `q` it moves the score of such
        a key far down (`v` has it too, for equal lengths are faster). So every window shares one table of biases,
        instead of one mask for each: less memory, and faster.
        """
        bias, channels = self.position_bias.T[:, self.relative_index], x.shape[1] // self.num_heads
        if self.tokens is not None:
            more = (0, q.shape[-1] - channels)
            token_k, token_v = self._tokens(self.tokens, x, windows=k.shape[0] // x.shape[0])
            k, v = torch.cat([k, F.pad(token_k, more)], dim=2), torch.cat([v, F.pad(token_v, more)], dim=2)
            bias = torch.cat([bias, repeat(self.tokens.bias, "n s -> n p s", p=q.shape[2])], dim=2)
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=bias[None].to(q.dtype), scale=channels**-0.5)
        return y[..., :channels]

    def _tokens(self, tokens: "GlobalTokens", x: Tensor, windows: int) -> tuple[Tensor, Tensor]:
        """Return keys and values of each image's summaries, projected as pixels are, for each of its windows."""
        own, channels = self.qkv, x.shape[1]
        shift = None if own.bias is None else own.bias[channels:]
        projected = F.linear(tokens(x), own.weight[channels:, :, 0, 0], shift)
        k, v = repeat(projected, "b s (t n d) -> t (b i) n s d", t=2, n=self.num_heads, i=windows)
        return k, v * rearrange(tokens.scale, "(n d) -> n 1 d", n=self.num_heads).to(v.dtype)


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
        self.question = Pointwise(channels, num_tokens)
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
        self.qkv = nn.Sequential(Pointwise(channels, 3 * channels), Depthwise(3 * channels, 3))
        self.temperature = nn.Parameter(torch.ones(num_heads, 1, 1))
        self.project = Pointwise(channels, channels)

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
