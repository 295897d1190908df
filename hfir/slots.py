"""The plug-in points: which class serves which name. To add a part, write its class and add a line here.

Each slot is a plain dict in plain sight; the names are those of the configuration and of a search space.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from torch import nn

from hfir.blocks.attention import channel_attention, window_attention
from hfir.blocks.conv import Depthwise
from hfir.blocks.deformable import DeformableMix
from hfir.blocks.dense import DenseBlock
from hfir.blocks.frequency import PatchDFT, grid_offset
from hfir.blocks.gating import GatedFusion
from hfir.blocks.large_kernel import RepLargeKernel
from hfir.blocks.naf import TrunkBlock
from hfir.blocks.resample import DySampleUp, NearestUp, PixelShuffleUp, StridedDown, UnshuffleDown
from hfir.blocks.skips import AddSkip, ConcatSkip
from hfir.config import DenseConfig, HFIRConfig, LargeKernelConfig, NAFConfig


def _naf(channels: int, config: HFIRConfig, mixer: NAFConfig) -> nn.Module:
    return _gated(channels, config, partial(Depthwise, kernel_size=3))


def _large_kernel(channels: int, config: HFIRConfig, mixer: LargeKernelConfig) -> nn.Module:
    kernel = RepLargeKernel if mixer.reparam and not config.fused else Depthwise
    return _gated(channels, config, partial(kernel, kernel_size=mixer.kernel_size))


def _dense(channels: int, config: HFIRConfig, mixer: DenseConfig) -> nn.Module:
    return DenseBlock(channels, fused=config.fused)


def _gated(channels: int, config: HFIRConfig, mix: Callable[[int], nn.Module]) -> nn.Module:
    return TrunkBlock(
        channels, mix, config.expansion, config.residual_scale, channel_attention=config.channel_attention
    )


MIXERS: Mapping[str, Callable[..., nn.Module]] = {"naf": _naf, "large_kernel": _large_kernel, "dense": _dense}
"""`(channels, config of the network, config of the mixer) -> trunk block` that keeps the shape."""

ATTENTIONS: Mapping[str, Callable[..., nn.Module]] = {"window": window_attention, "channel": channel_attention}
"""`(channels, config, *, shifted) -> module` that keeps the shape."""

DOWNSAMPLERS: Mapping[str, Callable[[int, int], nn.Module]] = {
    "strided": StridedDown,
    "unshuffle": UnshuffleDown,
}
"""`(in_channels, out_channels) -> module` that halves the side."""

UPSAMPLERS: Mapping[str, Callable[[int, int], nn.Module]] = {
    "pixelshuffle": PixelShuffleUp,
    "nearest": NearestUp,
    "dysample": DySampleUp,
}
"""`(in_channels, out_channels) -> module` that doubles the side."""

SKIPS: Mapping[str, Callable[[int], nn.Module]] = {"gated": GatedFusion, "add": AddSkip, "concat": ConcatSkip}
"""`(channels) -> module` of two inputs, from below and from the encoder, to one like them."""

DETAIL_MIXERS: Mapping[str, Callable[[int, int], nn.Module]] = {
    "dft": lambda channels, index: PatchDFT(channels, grid_offset(index)),
    "deformable": lambda channels, index: DeformableMix(channels),
}
"""`(channels, index) -> module` that keeps the shape, for the refiner's block of that index."""

ALL: Mapping[str, Mapping[str, Any]] = {
    "mixer": MIXERS,
    "attention": ATTENTIONS,
    "downsampler": DOWNSAMPLERS,
    "upsampler": UPSAMPLERS,
    "skip": SKIPS,
    "refiner": DETAIL_MIXERS,
}
