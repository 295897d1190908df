"""The plug-in points: which class serves which name. To add a part, write its class and add a line here.

Each slot is a plain dict in plain sight; the names are those of the configuration and of a search space.
"""

from collections.abc import Callable, Mapping
from typing import Any

from torch import nn

from hfir.blocks.attention import channel_attention, window_attention
from hfir.blocks.deformable import DeformableMix
from hfir.blocks.frequency import PatchDFT, grid_offset
from hfir.blocks.gating import GatedFusion
from hfir.blocks.large_kernel import large_kernel_mixer, naf_mixer
from hfir.blocks.resample import DySampleUp, NearestUp, PixelShuffleUp, StridedDown, UnshuffleDown
from hfir.blocks.skips import AddSkip, ConcatSkip

MIXERS: Mapping[str, Callable[..., nn.Module]] = {
    "naf": naf_mixer,
    "large_kernel": large_kernel_mixer,
}
"""`(channels, config, *, fused) -> module` that keeps the shape."""

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
