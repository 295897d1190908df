"""Encoder, bottleneck, decoder and detail refiner: sequences of blocks, and the skips between them."""

from collections.abc import Iterator
from itertools import pairwise

from jaxtyping import Float
from torch import Tensor, nn

from hfir.blocks.attention import WAGFFN
from hfir.blocks.conv import Pointwise
from hfir.blocks.ffn import SimpleGate, gated_width
from hfir.blocks.gating import ConvGate
from hfir.blocks.moe import Flow, MoEX
from hfir.blocks.naf import residual_scale
from hfir.blocks.noise import NoiseInjection
from hfir.blocks.norm import ChannelNorm
from hfir.config import AttentionConfig, HFIRConfig, RefinerConfig
from hfir.slots import ATTENTIONS, DETAIL_MIXERS, DOWNSAMPLERS, MIXERS, SKIPS, UPSAMPLERS


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
        channels, attention = config.channels_at(name), config.attention
        self.blocks = nn.Sequential()
        for _ in range(depth):
            self.blocks.append(MIXERS[config.mixer.kind](channels, config, config.mixer))
            if attention is not None and name in attention.stages:
                self.blocks.append(_attention_block(config, attention, channels, shifted=next(shifts)))
        self.experts = _experts(config, name)

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
        self.fuses = nn.ModuleList(SKIPS[config.skip](c) for c in widths)
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
    """One block of the refiner: mix details between two 1×1 convolutions, residual; then noise, if there is any.

    Args:
        config: The network's configuration.
        refiner: Its refiner's.
        index: The block's place among its like.
    """

    def __init__(self, config: HFIRConfig, refiner: RefinerConfig, index: int) -> None:
        super().__init__()
        width, half = config.width, gated_width(config.width, config.expansion)
        self.norm = ChannelNorm(width)
        self.mix = nn.Sequential(
            Pointwise(width, 2 * half),
            DETAIL_MIXERS[refiner.kind](2 * half, index),
            SimpleGate(),
            ConvGate(half),
            Pointwise(half, width),
        )
        self.scale = residual_scale(width, config.residual_scale)
        self.noise = NoiseInjection(width) if refiner.noise else None

    def forward(self, x: Float[Tensor, "b c h w"], flow: Flow) -> Float[Tensor, "b c h w"]:
        """Return refined features, shaped like `x`."""
        x = x + self.scale * self.mix(self.norm(x))
        return x if self.noise is None else self.noise(x, flow.noise)


class DetailRefiner(nn.Module):
    """`depth` detail blocks at full resolution, then their experts, if there are any."""

    def __init__(self, config: HFIRConfig, refiner: RefinerConfig) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(DetailBlock(config, refiner, i) for i in range(refiner.depth))
        self.experts = _experts(config, "refiner")

    def forward(self, x: Float[Tensor, "b c h w"], flow: Flow) -> Float[Tensor, "b c h w"]:
        """Return the refined high band, shaped like `x`."""
        for block in self.blocks:
            x = block(x, flow)
        return x if self.experts is None else self.experts(x, flow)


def _attention_block(config: HFIRConfig, attention: AttentionConfig, channels: int, *, shifted: bool) -> WAGFFN:
    attend = ATTENTIONS[attention.kind](channels, attention, shifted=shifted)
    return WAGFFN(channels, attend, expansion=config.expansion, scale=config.residual_scale)


def _experts(config: HFIRConfig, place: str) -> MoEX | None:
    """Return the experts at the end of a stage, or None where it has none."""
    if config.experts is None or place not in config.experts.stages:
        return None
    return MoEX(
        config.channels_at(place),
        config.experts,
        expansion=config.expansion,
        cue_channels=0 if config.frequency_split is None else config.width,
        scale=config.residual_scale,
        place=place,
    )
