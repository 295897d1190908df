"""Encoder, bottleneck, decoder and detail refiner: sequences of blocks, and the skips between them."""

from collections.abc import Iterator
from functools import partial
from itertools import pairwise

from jaxtyping import Float
from torch import Tensor, nn

from hfir.blocks.ffn import SimpleGate, gated_width
from hfir.blocks.frequency import PATCH, PatchDFT
from hfir.blocks.gating import ConvGate, GatedFusion
from hfir.blocks.moe import Flow, MoEX
from hfir.blocks.naf import TrunkBlock, residual_scale
from hfir.blocks.norm import ChannelNorm
from hfir.config import HFIRConfig
from hfir.slots import ATTENTIONS, DOWNSAMPLERS, MIXERS, UPSAMPLERS


class Stage(nn.Module):
    """The blocks of one stage, then its experts.

    Where the stage has attention, each trunk block is followed by an attention block; `shifts` says of each in
    turn whether its windows are shifted, and alternates over the whole network.

    Args:
        config: The network's configuration.
        name: The stage's name, as in `HFIRConfig.stages`.
        depth: Trunk blocks.
        shifts: Alternating False, True, …
    """

    def __init__(self, config: HFIRConfig, name: str, depth: int, shifts: Iterator[bool]) -> None:
        super().__init__()
        channels, attention, experts = config.channels_at(name), config.attention, config.experts
        self.blocks = nn.Sequential()
        for _ in range(depth):
            self.blocks.append(_trunk_block(config, channels))
            if attention is not None and name in attention.stages:
                self.blocks.append(_attention_block(config, channels, next(shifts)))
        self.experts: MoEX | None = None
        if experts is not None and name in experts.stages:
            self.experts = MoEX(
                channels,
                num_experts=experts.num_experts,
                top_k=experts.top_k,
                expansion=config.expansion,
                cue_channels=0 if config.frequency_split is None else config.width,
                scale=config.residual_scale,
            )

    def forward(self, x: Float[Tensor, "b c h w"], flow: Flow) -> Float[Tensor, "b c h w"]:
        """Return the stage's output, shaped like `x`."""
        x = self.blocks(x)
        return x if self.experts is None else self.experts(x, flow)


class Encoder(nn.Module):
    """Stages from full resolution down; there is no further down after the last."""

    def __init__(self, config: HFIRConfig, shifts: Iterator[bool]) -> None:
        super().__init__()
        names = [f"enc{level}" for level in range(1, config.levels + 1)]
        self.stages = nn.ModuleList(
            Stage(config, name, depth, shifts) for name, depth in zip(names, config.encoder_blocks, strict=True)
        )
        down = DOWNSAMPLERS[config.downsampler]
        widths = [config.channels_at(name) for name in names]
        self.downs = nn.ModuleList(down(a, b) for a, b in pairwise(widths))

    def forward(self, x: Float[Tensor, "b c h w"], flow: Flow) -> list[Tensor]:
        """Return the output of each stage, full resolution first."""
        skips = [self.stages[0](x, flow)]
        for down, stage in zip(self.downs, self.stages[1:], strict=True):
            skips.append(stage(down(skips[-1]), flow))
        return skips


class Decoder(nn.Module):
    """Stages from the deepest level up; the first fuses its skip without upsampling."""

    def __init__(self, config: HFIRConfig, shifts: Iterator[bool]) -> None:
        super().__init__()
        names = [f"dec{level}" for level in range(config.levels, 0, -1)]
        widths = [config.channels_at(name) for name in names]
        up = UPSAMPLERS[config.upsampler]
        self.ups = nn.ModuleList(up(a, b) for a, b in pairwise(widths))
        self.fuses = nn.ModuleList(GatedFusion(c) for c in widths)
        self.gates = nn.ModuleList(ConvGate(c) for c in widths)
        self.stages = nn.ModuleList(
            Stage(config, name, depth, shifts) for name, depth in zip(names, config.decoder_blocks, strict=True)
        )

    def forward(self, x: Float[Tensor, "b c h w"], skips: list[Tensor], flow: Flow) -> Tensor:
        """Return features at full resolution [b width H W], from the deepest ones and the encoder's skips."""
        for i, (fuse, gate, stage) in enumerate(zip(self.fuses, self.gates, self.stages, strict=True)):
            x = self.ups[i - 1](x) if i else x
            x = stage(gate(fuse(x, skips[-1 - i])), flow)
        return x


class DetailBlock(nn.Module):
    """One block of the refiner: mix the frequencies of patches between two 1×1 convolutions, residual.

    Args:
        width: Channels of input and output.
        expansion: Expanded channels as a multiple of `width`.
        scale: Start value of the residual scale.
        offset: Pixels by which the patch grid is moved.
    """

    def __init__(self, width: int, expansion: float, scale: float, offset: int) -> None:
        super().__init__()
        half = gated_width(width, expansion)
        self.norm = ChannelNorm(width)
        self.mix = nn.Sequential(
            nn.Conv2d(width, 2 * half, 1),
            PatchDFT(2 * half, offset),
            SimpleGate(),
            ConvGate(half),
            nn.Conv2d(half, width, 1),
        )
        self.scale = residual_scale(width, scale)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """Return refined features, shaped like `x`."""
        return x + self.scale * self.mix(self.norm(x))


class DetailRefiner(nn.Sequential):
    """`depth` detail blocks at full resolution; every other one has its patch grid moved by half a patch."""

    def __init__(self, config: HFIRConfig, depth: int) -> None:
        super().__init__(
            *(
                DetailBlock(config.width, config.expansion, config.residual_scale, i % 2 * (PATCH // 2))
                for i in range(depth)
            )
        )


def _trunk_block(config: HFIRConfig, channels: int) -> TrunkBlock:
    mixer = MIXERS[config.mixer.kind]
    mix = partial(mixer, config=config.mixer, fused=config.fused)
    return TrunkBlock(channels, mix, config.expansion, config.residual_scale)


def _attention_block(config: HFIRConfig, channels: int, shifted: bool) -> nn.Module:
    if config.attention is None:  # the caller asked only where there is attention
        raise ValueError("attention is None: this network has no attention block")
    return ATTENTIONS[config.attention.kind](
        channels,
        window_size=config.attention.window_size,
        num_heads=config.attention.num_heads,
        expansion=config.expansion,
        scale=config.residual_scale,
        shifted=shifted,
    )
