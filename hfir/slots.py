"""The plug-in points: which class serves which name. To add a part, write its class and add a line here.

Each slot is a plain dict in plain sight; the names are those of the configuration and of a search space.
"""

from collections.abc import Callable, Mapping
from typing import Any

from torch import nn

from hfir.blocks.attention import WAGFFN
from hfir.blocks.large_kernel import large_kernel_mixer, naf_mixer
from hfir.blocks.resample import NearestUp, PixelShuffleUp, StridedDown, UnshuffleDown

MIXERS: Mapping[str, Callable[..., nn.Module]] = {
    "naf": naf_mixer,
    "large_kernel": large_kernel_mixer,
}
"""`(channels, config, *, fused) -> module` that keeps the shape."""

ATTENTIONS: Mapping[str, Callable[..., nn.Module]] = {"window": WAGFFN}
"""`(channels, *, window_size, num_heads, expansion, scale, shifted) -> module` that keeps the shape."""

DOWNSAMPLERS: Mapping[str, Callable[[int, int], nn.Module]] = {
    "strided": StridedDown,
    "unshuffle": UnshuffleDown,
}
"""`(in_channels, out_channels) -> module` that halves the side."""

UPSAMPLERS: Mapping[str, Callable[[int, int], nn.Module]] = {
    "pixelshuffle": PixelShuffleUp,
    "nearest": NearestUp,
}
"""`(in_channels, out_channels) -> module` that doubles the side."""

ALL: Mapping[str, Mapping[str, Any]] = {
    "mixer": MIXERS,
    "attention": ATTENTIONS,
    "downsampler": DOWNSAMPLERS,
    "upsampler": UPSAMPLERS,
}
