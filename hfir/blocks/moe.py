"""Sparse mixture of experts, routed per image or per window.

Top-k routing with load balancing: Switch Transformers (Fedus et al., 2022, arXiv 2101.03961). Experts are stacked
weights. Only chosen experts compute, at any batch size: each expert present takes the images (or windows) that chose
it. Nothing depends on what else is in the batch.
"""

from dataclasses import dataclass, field
from typing import NamedTuple

import torch
import torch.nn.functional as F
from einops import rearrange, repeat
from jaxtyping import Float, Int
from torch import Tensor, nn

from hfir.blocks.conv import pointwise
from hfir.blocks.ffn import gated_width
from hfir.blocks.naf import residual_scale
from hfir.blocks.norm import ChannelNorm
from hfir.blocks.padding import repeat_border
from hfir.blocks.windows import cut
from hfir.config import ROUTING_PX, MoEConfig


class Routing(NamedTuple):
    """What one router decided for a batch; `n = b · windows` rows, the windows of one image after the other."""

    logits: Tensor
    """[n e], fp32."""
    chosen: Tensor
    """[n k], expert numbers, best first."""
    windows: int = 1
    """Decisions an image: 1 where the image is routed as a whole."""
    place: str = ""
    """The stage."""


@dataclass(slots=True)
class Flow:
    """What travels beside the features: what the routers and the noise are told, and what the routers decided."""

    cue: Tensor | None = None
    """[b width], mean magnitudes of the stem's high band, or None without a frequency split."""
    condition: Tensor | None = None
    """[b q], a descriptor of the degradation, or None."""
    noise: Tensor | None = None
    """[b 1 h w], noise to inject at full resolution, or None."""
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

    def forward(
        self,
        x: Float[Tensor, "n c h w"],
        expert: Int[Tensor, " n"],
        inside: Float[Tensor, "n 1 h w"] | None = None,
    ) -> Float[Tensor, "n c p q"]:
        """Return each row through the one expert chosen for it.

        Args:
            x: Features of images, or of windows with one more pixel at each side.
            expert: The expert of each row.
            inside: For windows: 1 inside the image, 0 beyond it. The output lacks the additional pixels.
        """
        if x.device.type == "meta":  # where costs are counted: every row costs one expert, whichever
            return self._one(x, 0, inside)
        if torch.compiler.is_compiling():
            return self._by_weights(x, expert, inside)
        return self._by_rows(x, expert, inside)

    def _by_rows(self, x: Tensor, expert: Tensor, inside: Tensor | None) -> Tensor:
        """Give each expert present its rows: plain convolutions, the fastest there are."""
        present = expert.unique().tolist()
        if len(present) == 1:
            return self._one(x, present[0], inside)
        flat = x.permute(0, 2, 3, 1)  # rows are taken where they lie in one piece, whatever the memory format
        rows = [(expert == e).nonzero()[:, 0] for e in present]
        done = [
            self._one(flat[own].permute(0, 3, 1, 2), e, None if inside is None else inside[own]).permute(0, 2, 3, 1)
            for e, own in zip(present, rows, strict=True)
        ]
        together = done[0].new_empty(len(x), *done[0].shape[1:])
        for own, part in zip(rows, done, strict=True):
            together.index_copy_(0, own, part)
        return together.permute(0, 3, 1, 2)

    def _one(self, x: Tensor, expert: int, inside: Tensor | None) -> Tensor:
        hidden = self.look.shape[1]
        y = pointwise(x, self.expand[expert, :, :, None, None], self.expand_bias[expert])
        y = y if inside is None else y * inside.to(y.dtype)
        kernel = self.look[expert].view(hidden, 1, 3, 3)
        y = F.conv2d(y, kernel, self.look_bias[expert], padding=int(inside is None), groups=hidden)
        a, b = y.chunk(2, dim=1)
        return pointwise(F.gelu(a) * b, self.project[expert, :, :, None, None], self.project_bias[expert])

    def _by_weights(self, x: Tensor, expert: Tensor, inside: Tensor | None) -> Tensor:
        """Gather the weights of each row's expert: no branch on data, so the graph exports and compiles."""
        y = _pointwise(x, self.expand[expert], self.expand_bias[expert])
        if inside is None:
            y = _depthwise(y, self.look[expert], self.look_bias[expert])
        else:
            y = _depthwise_inner(y * inside.to(y.dtype), self.look[expert], self.look_bias[expert])
        a, b = y.chunk(2, dim=1)
        return _pointwise(F.gelu(a) * b, self.project[expert], self.project_bias[expert])


class MoEX(nn.Module):
    """A residual mixture of experts: a router looks at how rough each feature is, the best `top_k` experts work.

    Roughness is the mean distance of a pixel from its neighbours: noise, blur and lost detail show in it, whatever
    the size of the image, while plain means hardly tell one image from another (docs/log.md).

    With one expert its probability stays a factor (so that the router learns); with two, the gates sum to 1.
    Equal logits are told apart by expert number, so that routing is deterministic. Routed per window, the decision
    is local: router and experts see the window and one pixel beyond it, so windows leave no seam where they agree.

    Args:
        channels: Channels of input and output.
        config: How many experts, and how they are chosen.
        expansion: Of the experts.
        cue_channels: Channels of `Flow.cue`; 0 where there is none. Not used per window.
        scale: Start value of the residual scale.
        place: The stage, for those who read the decisions.
    """

    tie_break: Tensor

    def __init__(
        self,
        channels: int,
        config: MoEConfig,
        *,
        expansion: float,
        cue_channels: int,
        scale: float,
        place: str = "",
    ) -> None:
        super().__init__()
        self.config, self.place = config, place
        self.per_window = config.routing == "window"
        self.norm = ChannelNorm(channels)
        self.router = nn.Linear(channels + (0 if self.per_window else cue_channels), config.num_experts)
        self.conditioned = None
        if config.condition_channels:
            self.conditioned = nn.Linear(config.condition_channels, config.num_experts, bias=False)
            nn.init.zeros_(self.conditioned.weight)
        self.experts = ExpertBank(config.num_experts, channels, expansion)
        self.scale = residual_scale(channels, scale)
        self.register_buffer("tie_break", -1e-6 * torch.arange(config.num_experts), persistent=False)

    def forward(self, x: Float[Tensor, "b c h w"], flow: Flow) -> Float[Tensor, "b c h w"]:
        """Return the block's output, shaped like `x`; the decision is added to `flow.routings`."""
        features = self.norm(x)
        if self.per_window:
            return x + self._in_windows(features, flow)
        rough = _roughness(features).float().mean(dim=(2, 3))
        known = rough if flow.cue is None else torch.cat([rough, flow.cue.float()], dim=1)
        gates, routing = self.route(known, flow.condition)
        flow.routings.append(routing)
        return x + self._mixed(features, gates.to(x.dtype), routing.chosen)

    def route(
        self, known: Float[Tensor, "n q"], condition: Float[Tensor, "b d"] | None = None
    ) -> tuple[Float[Tensor, "n k"], Routing]:
        """Return the gate of each chosen expert, and the decision; logits and softmax are fp32.

        Args:
            known: What the router sees of each row: fp32 roughness, and the cue.
            condition: A descriptor of each image's degradation, or None.
        """
        # Sums of products, not matrix products: autocast leaves them in fp32.
        logits = (known[:, None] * self.router.weight.float()).sum(dim=2) + self.router.bias.float()
        if condition is not None and self.conditioned is not None:
            told = (condition.float()[:, None] * self.conditioned.weight.float()).sum(dim=2)
            logits = logits + told.repeat_interleave(logits.shape[0] // told.shape[0], dim=0)
        logits = logits / self.config.temperature
        if self.training and self.config.noise:
            logits = logits + self.config.noise * torch.randn_like(logits)
        # Measured from the best one: added to large logits, the tie-break would be lost in rounding.
        behind = logits - logits.amax(dim=1, keepdim=True)
        chosen = torch.topk(behind + self.tie_break, self.config.top_k, dim=1).indices
        gates = torch.softmax(logits, dim=1).gather(1, chosen)
        if self.config.top_k > 1:
            gates = gates / gates.sum(dim=1, keepdim=True)
        return gates, Routing(logits=logits, chosen=chosen, place=self.place)

    def _mixed(self, rows: Tensor, gates: Tensor, chosen: Tensor, inside: Tensor | None = None) -> Tensor:
        """Return the sum of each row's experts, weighed by their gates and by the residual scale."""
        weights = gates[:, :, None, None, None] * self.scale
        parts = [weights[:, k] * self.experts(rows, chosen[:, k], inside) for k in range(chosen.shape[1])]
        return parts[0] if len(parts) == 1 else parts[0] + parts[1]

    def _in_windows(self, features: Tensor, flow: Flow) -> Tensor:
        """Route and mix the windows of the features, and put them together again."""
        b, _, h, w = features.shape
        around = (1, 1 + -w % ROUTING_PX, 1, 1 + -h % ROUTING_PX)
        rows = rearrange(cut(F.pad(features, around), ROUTING_PX, 1), "b c i p j q -> (b i j) c p q")
        real = cut(F.pad(features.new_ones(1, 1, h, w), around), ROUTING_PX, 1)
        inside = repeat(real, "1 1 i p j q -> (b i j) 1 p q", b=b)
        rough, half = _roughness(features).float(), ROUTING_PX // 2
        places = torch.cat([rough, torch.ones_like(rough[:, :1])], dim=1)  # the last channel counts them
        to_whole = (0, -places.shape[3] % half, 0, -places.shape[2] % half)
        sums = rearrange(cut(F.pad(places, to_whole), half), "b c i p j q -> (b i j) c (p q)").sum(dim=2)
        gates, routing = self.route(sums[:, :-1] / sums[:, -1:], flow.condition)
        flow.routings.append(routing._replace(windows=rows.shape[0] // b))
        mixed = self._mixed(rows, gates.to(rows.dtype), routing.chosen, inside)
        columns = (w - 2 + around[0] + around[1]) // ROUTING_PX
        whole = rearrange(mixed, "(b i j) c p q -> b c (i p) (j q)", b=b, j=columns)
        return whole[..., :h, :w]


def _roughness(features: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h2 w2"]:
    """Return each value's distance from its right and from its lower neighbour, for every second row and column.

    Beyond the border the outermost values are repeated. A quarter of the pixels tells as much, in a third of the time.
    """
    padded = repeat_border(features, (0, 1, 0, 1))
    here = padded[..., :-1:2, :-1:2]
    return (padded[..., :-1:2, 1::2] - here).abs() + (padded[..., 1::2, :-1:2] - here).abs()


def _stacked(*shape: int, fan_in: int | None = None) -> nn.Parameter:
    """Return weights drawn as torch draws a convolution's: uniform within 1/sqrt(fan-in)."""
    inputs = fan_in if fan_in is not None else int(torch.Size(shape[2:]).numel())
    return nn.Parameter(torch.empty(shape).uniform_(-(inputs**-0.5), inputs**-0.5))


def _pointwise(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """1×1 convolution with weights [b o i] of its own for each row: one batched matrix product."""
    h, w = x.shape[-2:]
    y = torch.baddbmm(bias[:, None], x.permute(0, 2, 3, 1).flatten(1, 2), weight.transpose(1, 2))
    return y.unflatten(1, (h, w)).permute(0, 3, 1, 2)


def _depthwise(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """3×3 depth-wise convolution with weights [b c 9] of its own for each row: one grouped convolution."""
    b, c, h, w = x.shape
    kernel = weight.reshape(b * c, 1, 3, 3)
    return F.conv2d(x.reshape(1, b * c, h, w), kernel, bias.flatten(), padding=1, groups=b * c).view(b, c, h, w)


def _depthwise_inner(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """The same without the outermost pixels and for any number of rows: groups of a convolution are fixed in ONNX."""
    h, w = x.shape[2] - 2, x.shape[3] - 2
    y = bias[:, :, None, None]
    for tap in range(9):
        i, j = divmod(tap, 3)
        y = y + weight[:, :, tap, None, None] * x[:, :, i : i + h, j : j + w]
    return y
