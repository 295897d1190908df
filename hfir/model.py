"""HydraFusionIR: the whole network."""

from itertools import cycle

import torch
from jaxtyping import Float
from torch import Tensor, nn

from hfir.blocks.frequency import Bands, FreqSplitGate
from hfir.blocks.gating import GatedFusion
from hfir.blocks.image import BicubicBase, Head, pad_to_multiple
from hfir.blocks.moe import Flow, Routing
from hfir.config import HFIRConfig
from hfir.stages import Decoder, DetailRefiner, Encoder, Stage


class HydraFusionIR(nn.Module):
    """Restore or enlarge images: `[b c h w]` in [0, 1] to `[b c h·s w·s]`; any `h`, `w` >= 1.

    The output is not clamped. The configuration travels in the state dict as the uint8 buffer `hfir_cfg`, so that
    a weight file alone can be recognised and rebuilt.

    Args:
        config: What to build.
    """

    hfir_cfg: Tensor

    def __init__(self, config: HFIRConfig) -> None:
        super().__init__()
        self.config = config
        shifts = cycle((False, True))
        self.stem = nn.Conv2d(config.in_channels, config.width, 3, padding=1)
        self.split: FreqSplitGate | None = None
        self.merge: nn.Conv2d | None = None
        if config.frequency_split is not None:
            self.split = FreqSplitGate(config.width, config.frequency_split.kernel_size)
            self.merge = _summing_conv(config.width)
        self.encoder = Encoder(config, shifts)
        self.bottleneck = Stage(config, "mid", config.bottleneck_blocks, shifts)
        self.decoder = Decoder(config, shifts)
        self.refiner: DetailRefiner | None = None
        self.fusion: GatedFusion | None = None
        if config.refiner is not None:
            self.refiner = DetailRefiner(config, config.refiner.depth)
            self.fusion = GatedFusion(config.width)
        self.head = Head(config.width, config.in_channels, config.upscale)
        self.base = BicubicBase(config.in_channels, config.upscale)
        self.register_buffer("hfir_cfg", torch.tensor(list(config.to_json_bytes()), dtype=torch.uint8))

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c hs ws"]:
        """Return the restored image."""
        return self.restore(x, Flow())

    def forward_with_routing(self, x: Float[Tensor, "b c h w"]) -> tuple[Float[Tensor, "b c hs ws"], list[Routing]]:
        """Return the restored image and what each router decided, for the balancing losses."""
        flow = Flow()
        return self.restore(x, flow), flow.routings

    def restore(self, x: Float[Tensor, "b c h w"], flow: Flow) -> Float[Tensor, "b c hs ws"]:
        """Return the restored image; `flow` carries the routers' cue and collects their decisions."""
        h, w = x.shape[-2:]
        padded = pad_to_multiple(x, self.config.multiple_of)
        features = self.stem(padded)
        trunk, high = features, None
        if self.split is not None and self.merge is not None:
            bands: Bands = self.split(features)
            trunk, high = self.merge(torch.cat(bands, dim=1)), bands.high
            flow.cue = high.mean(dim=(2, 3))
        skips = self.encoder(trunk, flow)
        trunk = self.decoder(self.bottleneck(skips[-1], flow), skips, flow)
        if self.refiner is not None and self.fusion is not None and high is not None:
            trunk = self.fusion(trunk, self.refiner(high))
        y = self.head(trunk) + self.base(padded)
        return y[..., : h * self.config.upscale, : w * self.config.upscale]


def build_model(config: HFIRConfig) -> HydraFusionIR:
    """Build an untrained network; weights come from torch's global generator (seed it for repeatable ones)."""
    return HydraFusionIR(config)


def _summing_conv(width: int) -> nn.Conv2d:
    """Return a 1×1 convolution of two stacked bands that starts as their sum."""
    conv = nn.Conv2d(2 * width, width, 1)
    with torch.no_grad():
        conv.weight.copy_(torch.eye(width).repeat(1, 2)[:, :, None, None])
        if conv.bias is not None:
            conv.bias.zero_()
    return conv
