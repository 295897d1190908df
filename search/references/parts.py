"""What several reference networks share."""

from __future__ import annotations

from torch import nn

from hfir.blocks.image import BicubicBase

LUMA = (0.299, 0.587, 0.114)
"""Weights of red, green and blue in the luma (ITU-R BT.601)."""


def on_base(in_channels: int, upscale: int, *, wanted: bool) -> nn.Module | None:
    """Return what a network adds its output to, where that is wanted: bicubic enlargement, at scale 1 the input."""
    return BicubicBase(in_channels, upscale) if wanted else None
