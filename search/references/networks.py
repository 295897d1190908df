"""The reference networks that are built in, by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from torch import nn

from hfir.blocks.image import BicubicBase
from search.references.edsr import EDSR
from search.references.fsrcnn import FSRCNN
from search.references.rep_stack import RepStack

BICUBIC = "bicubic"
"""Nothing to train in it: bicubic enlargement, at scale 1 the input as it is."""

BUILT_IN: Mapping[str, Callable[..., nn.Module]] = {
    BICUBIC: BicubicBase,
    "fsrcnn": FSRCNN,
    "edsr": EDSR,
    "rep_stack": RepStack,
}
"""Each is called with (in_channels, upscale) and its options by name."""
