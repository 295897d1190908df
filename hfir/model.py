"""HydraFusionIR: the whole network."""

from itertools import cycle
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from hfir.blocks.frequency import Bands, FreqSplitGate
from hfir.blocks.gating import GatedFusion
from hfir.blocks.image import BicubicPhases, Head, pad_to_multiple
from hfir.blocks.moe import Flow, Routing
from hfir.blocks.noise import NoiseInjection
from hfir.blocks.shuffling import shuffle
from hfir.blocks.skips import summing_conv
from hfir.config import HFIRConfig
from hfir.errors import ConfigError
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
            self.merge = summing_conv(config.width)
        self.encoder = Encoder(config, shifts)
        self.bottleneck = Stage(config, "mid", config.bottleneck_blocks, shifts)
        self.decoder = Decoder(config, shifts)
        self.refiner: DetailRefiner | None = None
        self.fusion: GatedFusion | None = None
        if config.refiner is not None:
            self.refiner = DetailRefiner(config, config.refiner)
            self.fusion = GatedFusion(config.width)
        self.head = Head(config.width, config.in_channels, config.upscale)
        self.base = BicubicPhases(config.in_channels, config.upscale)
        self.register_buffer("hfir_cfg", torch.tensor(list(config.to_json_bytes()), dtype=torch.uint8))
        self.register_load_state_dict_pre_hook(_keep_configuration)

    @property
    def has_global_path(self) -> bool:
        """Whether a tile gives another result than the same place in the whole image."""
        return self.config.has_global_path

    @property
    def supports_fp16(self) -> bool:
        """Whether the network may run in half precision; bf16 it may always."""
        return self.config.supports_fp16

    def gan_mode(self, on: bool) -> None:
        """Switch the refiner's noise on or off; it is drawn in training only."""
        for module in self.modules():
            if isinstance(module, NoiseInjection):
                module.gan_mode = on

    def forward(
        self,
        x: Float[Tensor, "b c h w"],
        condition: Float[Tensor, "b q"] | None = None,
        noise: Float[Tensor, "b 1 h w"] | None = None,
    ) -> Float[Tensor, "b c hs ws"]:
        """Return the restored image.

        Args:
            x: The degraded image.
            condition: What is known of its degradation, for the routers; of `experts.condition_channels` numbers.
            noise: Noise for the refiner to inject, where its configuration has `noise`.

        Raises:
            ConfigError: If the network has no use for what is given.
        """
        return self.forward_with_routing(x, condition, noise)[0]

    def forward_with_routing(
        self,
        x: Float[Tensor, "b c h w"],
        condition: Float[Tensor, "b q"] | None = None,
        noise: Float[Tensor, "b 1 h w"] | None = None,
    ) -> tuple[Float[Tensor, "b c hs ws"], list[Routing]]:
        """Return the restored image and what each router decided, for the balancing losses; see `forward`."""
        self._check_use(condition, noise)
        padded_noise = None if noise is None else pad_to_multiple(noise, self.config.multiple_of)
        flow = Flow(condition=condition, noise=padded_noise)
        return self._restored(x, flow), flow.routings

    def _restored(self, x: Tensor, flow: Flow) -> Tensor:
        h, w = x.shape[-2:]
        padded = pad_to_multiple(x, self.config.multiple_of)
        features = self.stem(padded)
        trunk, high = features, None
        if self.split is not None and self.merge is not None:
            bands: Bands = self.split(features)
            trunk, high = self.merge(torch.cat(bands, dim=1)), bands.high
            flow.cue = high.abs().mean(dim=(2, 3))
        skips = self.encoder(trunk, flow)
        trunk = self.decoder(self.bottleneck(skips[-1], flow), skips, flow)
        if self.refiner is not None and self.fusion is not None and high is not None:
            trunk = self.fusion(trunk, self.refiner(high, flow))
        y = shuffle(self.head(trunk) + self.base(padded), self.config.upscale)
        return y[..., : h * self.config.upscale, : w * self.config.upscale]

    def _check_use(self, condition: Tensor | None, noise: Tensor | None) -> None:
        known = 0 if self.config.experts is None else self.config.experts.condition_channels
        if condition is not None and condition.shape[1] != known:
            raise ConfigError(
                f"condition has {condition.shape[1]} numbers, but experts.condition_channels = {known}: "
                "both must be equal. Give a condition of that length, or none."
            )
        if noise is not None and (self.config.refiner is None or not self.config.refiner.noise):
            raise ConfigError("noise is given, but refiner.noise is off: there is nothing to inject it. Give none.")


def build_model(config: HFIRConfig) -> HydraFusionIR:
    """Build an untrained network; weights come from torch's global generator (seed it for repeatable ones)."""
    return HydraFusionIR(config)


def _keep_configuration(model: nn.Module, state: dict[str, Any], prefix: str, *_: Any) -> None:
    """Keep a network's `hfir_cfg` when weights are loaded: files of older versions name fewer options."""
    if f"{prefix}hfir_cfg" in state:
        state[f"{prefix}hfir_cfg"] = model.hfir_cfg
