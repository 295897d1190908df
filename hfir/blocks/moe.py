"""Sparse mixture of experts, routed per image.

Top-k routing with load balancing: Switch Transformers (Fedus et al., 2022, arXiv 2101.03961). Experts are stored as
stacked weights, and each image gathers those of its experts: the cost is k experts at any batch size, the graph has
no branch on data (so it exports), and nothing depends on what else is in the batch.
"""

from dataclasses import dataclass, field
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from hfir.blocks.ffn import gated_width
from hfir.blocks.naf import residual_scale
from hfir.blocks.norm import ChannelNorm


class Routing(NamedTuple):
    """What one router decided for a batch."""

    logits: Tensor
    """[b e], fp32."""
    chosen: Tensor
    """[b k], expert numbers, best first."""


@dataclass(slots=True)
class Flow:
    """What travels beside the features: a cue for the routers, and what they decided."""

    cue: Tensor | None = None
    """[b width], means of the stem's high band, or None without a frequency split."""
    routings: list[Routing] = field(default_factory=list)


class ExpertBank(nn.Module):
    """`num_experts` gated feed-forward experts as stacked weights.

    Each expert: 1×1 expand, 3×3 depth-wise, GELU gate, 1×1 project.

    Args:
        num_experts: Experts.
        channels: Channels of input and output.
        expansion: Expanded channels as a multiple of `channels`.
    """

    def __init__(self, num_experts: int, channels: int, expansion: float) -> None:
        super().__init__()
        half = gated_width(channels, expansion)
        self.expand = _stacked(num_experts, 2 * half, channels)
        self.expand_bias = _stacked(num_experts, 2 * half, fan_in=channels)
        self.look = _stacked(num_experts, 2 * half, 9)
        self.look_bias = _stacked(num_experts, 2 * half, fan_in=9)
        self.project = _stacked(num_experts, channels, half)
        self.project_bias = _stacked(num_experts, channels, fan_in=half)

    def forward(self, x: Float[Tensor, "b c h w"], expert: Int[Tensor, " b"]) -> Float[Tensor, "b c h w"]:
        """Return each image through the one expert chosen for it."""
        y = _pointwise(x, self.expand[expert], self.expand_bias[expert])
        y = _depthwise(y, self.look[expert], self.look_bias[expert])
        a, b = y.chunk(2, dim=1)
        return _pointwise(F.gelu(a) * b, self.project[expert], self.project_bias[expert])


class MoEX(nn.Module):
    """A residual mixture of experts: the router looks at how rough each feature is, the best `top_k` experts work.

    Roughness is the mean distance of a pixel from its neighbourhood: noise, blur and lost detail show in it, whatever
    the size of the image, while plain means hardly tell one image from another (docs/log.md).

    With one expert its probability stays a factor (so that the router learns); with two, the gates sum to 1.
    Equal logits are told apart by expert number, so that routing is deterministic.

    Args:
        channels: Channels of input and output.
        num_experts: Experts, >= 2.
        top_k: Experts per image, 1 or 2.
        expansion: Of the experts.
        cue_channels: Channels of `Flow.cue`; 0 where there is none.
        scale: Start value of the residual scale.
    """

    tie_break: Tensor

    def __init__(
        self,
        channels: int,
        *,
        num_experts: int,
        top_k: int,
        expansion: float,
        cue_channels: int,
        scale: float,
    ) -> None:
        super().__init__()
        self.top_k = top_k
        self.norm = ChannelNorm(channels)
        self.router = nn.Linear(channels + cue_channels, num_experts)
        self.experts = ExpertBank(num_experts, channels, expansion)
        self.scale = residual_scale(channels, scale)
        self.register_buffer("tie_break", -1e-6 * torch.arange(num_experts), persistent=False)

    def forward(self, x: Float[Tensor, "b c h w"], flow: Flow) -> Float[Tensor, "b c h w"]:
        """Return the block's output, shaped like `x`; the decision is added to `flow.routings`."""
        features = self.norm(x)
        gates, routing = self.route(features, flow.cue)
        flow.routings.append(routing)
        mixed = torch.zeros_like(x)
        for k in range(self.top_k):
            mixed = mixed + gates[:, k, None, None, None] * self.experts(features, routing.chosen[:, k])
        return x + self.scale * mixed

    def route(
        self, features: Float[Tensor, "b c h w"], cue: Float[Tensor, "b q"] | None
    ) -> tuple[Float[Tensor, "b k"], Routing]:
        """Return the gate of each chosen expert, and the decision; logits and softmax are fp32."""
        roughness = _roughness(features).mean(dim=(2, 3)).float()
        known = roughness if cue is None else torch.cat([roughness, cue.float()], dim=1)
        # A sum of products, not a matrix product: autocast leaves it in fp32.
        logits = (known[:, None] * self.router.weight.float()).sum(dim=2) + self.router.bias.float()
        # Measured from the best one: added to large logits, the tie-break would be lost in rounding.
        behind = logits - logits.amax(dim=1, keepdim=True)
        chosen = torch.topk(behind + self.tie_break, self.top_k, dim=1).indices
        gates = torch.softmax(logits, dim=1).gather(1, chosen)
        if self.top_k > 1:
            gates = gates / gates.sum(dim=1, keepdim=True)
        return gates.to(features.dtype), Routing(logits=logits, chosen=chosen)


def _roughness(features: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
    """Return each value's distance from the mean of its 3×3 neighbourhood, which shrinks at the border."""
    return (features - F.avg_pool2d(features, 3, stride=1, padding=1, count_include_pad=False)).abs()


def _stacked(*shape: int, fan_in: int | None = None) -> nn.Parameter:
    """Return weights drawn as torch draws a convolution's: uniform within 1/sqrt(fan-in)."""
    inputs = fan_in if fan_in is not None else int(torch.Size(shape[2:]).numel())
    return nn.Parameter(torch.empty(shape).uniform_(-(inputs**-0.5), inputs**-0.5))


def _pointwise(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """1×1 convolution with weights [b o i] of its own for each image: one batched matrix product."""
    h, w = x.shape[-2:]
    y = torch.baddbmm(bias[:, None], x.permute(0, 2, 3, 1).flatten(1, 2), weight.transpose(1, 2))
    return y.unflatten(1, (h, w)).permute(0, 3, 1, 2)


def _depthwise(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """3×3 depth-wise convolution with weights [b c 9] of its own for each image: one grouped convolution."""
    b, c, h, w = x.shape
    kernel = weight.reshape(b * c, 1, 3, 3)
    y = F.conv2d(x.reshape(1, b * c, h, w), kernel, bias.flatten(), padding=1, groups=b * c)
    return y.view(b, c, h, w)
