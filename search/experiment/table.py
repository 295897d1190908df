"""The table of dimensions: every decision about the network that a space can name, in the order of deciding.

To add one, add a row here, read it in `decode`, and run `just schema`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from hfir.config import TOKEN_COUNTS, WINDOW_OVERLAPS, WINDOW_SIZES
from search.experiment.values import SWITCH, Number, OneOf, SumOf, Values, Whole
from search.types import Scalar


@dataclass(frozen=True, slots=True)
class Needs:
    """A dimension counts only while another one takes certain values.

    Args:
        parent: The other dimension; it stands earlier in the table.
        holds: Whether a value of the parent lets the dimension count.
        text: Those values in words, for messages and tables.
    """

    parent: str
    holds: Callable[[Any], bool]
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Dimension:
    """One decision about the network.

    Args:
        name: As in files and in the columns of tables.
        about: What it decides.
        values: What its values may be.
        rule: The same in words; reads on from "It takes …".
        default: Its value where a file does not name it.
        needs: What it belongs under; known here, so that no file has to write it.
        off: Its value where a `when` of the file switches it off; None where that cannot be.
        per_level: One decision for each level of the network.
    """

    name: str
    about: str
    values: Values
    rule: str
    default: Scalar
    needs: Needs | None = None
    off: Scalar | None = None
    per_level: bool = False


def _is(*values: Scalar) -> Callable[[Any], bool]:
    return lambda value: value in values


def _more_than_one(value: Any) -> bool:
    return value > 1


MAX_LEVELS = 3
STAGE_NAMES = ("enc1", "enc2", "enc3", "mid", "dec3", "dec2", "dec1", "deepest")
EXPERT_STAGE_NAMES = (*STAGE_NAMES, "refiner")
_STAGES_RULE = (
    "stages joined by '+': enc1, enc2, enc3, mid, dec3, dec2, dec1, or deepest (encoder, bottleneck and "
    "decoder at the deepest level)"
)
_LARGE_KERNEL = Needs("mixer", _is("large_kernel"), "large_kernel")
_GATED = Needs("mixer", _is("naf", "large_kernel"), "naf or large_kernel")
_ATTENTION = Needs("attention", _is("window", "channel"), "window or channel")
_WINDOWS = Needs("attention", _is("window"), "window")
_EXPERTS = Needs("num_experts", _more_than_one, "more than 1")
_RESAMPLING = Needs("levels", _more_than_one, "more than 1")
_SPLIT = Needs("frequency_split", _is(True), "true")
_REFINER = Needs("refiner", _is("dft", "deformable"), "dft or deformable")

_ROWS = (
    Dimension(
        name="width",
        about="Channels at full resolution; each further level has twice as many.",
        values=Whole(4, 256, 2),
        rule="even numbers of channels, 4..256",
        default=16,
    ),
    Dimension(
        name="levels",
        about="Resolutions that the network works at; each further level halves the side.",
        values=Whole(1, MAX_LEVELS),
        rule="1, 2 or 3 resolutions",
        default=1,
    ),
    Dimension(
        name="encoder_blocks",
        about="Blocks in the encoder stage of each level.",
        values=Whole(1, 16),
        rule="1..16 blocks in an encoder stage",
        default=2,
        per_level=True,
    ),
    Dimension(
        name="bottleneck_blocks",
        about="Blocks at the deepest level, between encoder and decoder.",
        values=Whole(0, 16),
        rule="0..16 blocks between encoder and decoder",
        default=1,
    ),
    Dimension(
        name="decoder_blocks",
        about="Blocks in the decoder stage of each level.",
        values=Whole(0, 16),
        rule="0..16 blocks in a decoder stage",
        default=1,
        per_level=True,
    ),
    Dimension(
        name="mixer",
        about="Spatial mixing inside each block: depth-wise 3×3, depth-wise K×K, or one dense 3×3 convolution.",
        values=OneOf(("naf", "large_kernel", "dense")),
        rule="naf, large_kernel or dense",
        default="naf",
    ),
    Dimension(
        name="kernel_size",
        about="Side of the large kernel in pixels; 11 and 13 are slow on CPUs.",
        values=Whole(3, 13, 2),
        rule="odd sides in pixels, 3..13",
        default=7,
        needs=_LARGE_KERNEL,
    ),
    Dimension(
        name="reparam",
        about="Whether the large kernel is trained as a sum of branches, which fold into one for use.",
        values=SWITCH,
        rule="true or false",
        default=True,
        needs=_LARGE_KERNEL,
    ),
    Dimension(
        name="channel_attention",
        about="Whether blocks scale their channels by means over the image; without it tiles equal the whole image.",
        values=SWITCH,
        rule="true or false",
        default=True,
        needs=_GATED,
    ),
    Dimension(
        name="expansion",
        about="How much wider a block is inside than outside.",
        values=Number(1.0, 4.0),
        rule="1..4 times the width",
        default=2.0,
        needs=_GATED,
    ),
    Dimension(
        name="attention",
        about="Attention after the blocks of attention_stages.",
        values=OneOf(("none", "window", "channel")),
        rule="none, window or channel",
        default="none",
        off="none",
    ),
    Dimension(
        name="window_size",
        about="Side of the attention windows.",
        values=OneOf(WINDOW_SIZES),
        rule="4, 8, 12 or 16 pixels",
        default=8,
        needs=_WINDOWS,
    ),
    Dimension(
        name="window_overlap",
        about="By how much of its side the window that is looked at is larger than the one that looks.",
        values=OneOf(WINDOW_OVERLAPS),
        rule="0 or 0.5 of the side",
        default=0.0,
        needs=_WINDOWS,
    ),
    Dimension(
        name="global_tokens",
        about="Summaries of the whole image that every window sees; with them tiles differ from the whole image.",
        values=OneOf(TOKEN_COUNTS),
        rule="0, 4, 8 or 16 summaries",
        default=0,
        needs=_WINDOWS,
    ),
    Dimension(
        name="num_heads",
        about="Attention heads; they must divide the channels of each stage with attention.",
        values=Whole(1, 64),
        rule="1..64 heads",
        default=2,
        needs=_ATTENTION,
    ),
    Dimension(
        name="attention_stages",
        about="Stages with attention.",
        values=SumOf(STAGE_NAMES),
        rule=_STAGES_RULE,
        default="mid",
        needs=_ATTENTION,
    ),
    Dimension(
        name="num_experts",
        about="Experts of the mixture at the end of the expert_stages.",
        values=Whole(1, 64),
        rule="1 (no mixture) to 64 experts",
        default=1,
        off=1,
    ),
    Dimension(
        name="top_k",
        about="Experts that one image, or window, is sent to.",
        values=Whole(1, 2),
        rule="1 or 2 experts per image or window",
        default=1,
        needs=_EXPERTS,
    ),
    Dimension(
        name="expert_routing",
        about="What is sent to experts: the image as a whole, or each 16×16 window of a stage's features.",
        values=OneOf(("image", "window")),
        rule="image or window",
        default="image",
        needs=_EXPERTS,
    ),
    Dimension(
        name="expert_temperature",
        about="Divides the routers' logits; larger is more even.",
        values=Number(0.1, 10.0),
        rule="0.1..10",
        default=1.0,
        needs=_EXPERTS,
    ),
    Dimension(
        name="expert_noise",
        about="Standard deviation of what is added to the routers' logits while training.",
        values=Number(0.0, 1.0),
        rule="0..1",
        default=0.0,
        needs=_EXPERTS,
    ),
    Dimension(
        name="expert_condition",
        about="Whether routers are told which degradation an image has; for the task mixed, whose images are labelled.",
        values=SWITCH,
        rule="true or false",
        default=False,
        needs=_EXPERTS,
    ),
    Dimension(
        name="expert_stages",
        about="Stages with a mixture of experts.",
        values=SumOf(EXPERT_STAGE_NAMES),
        rule=f"{_STAGES_RULE}, or refiner",
        default="mid",
        needs=_EXPERTS,
    ),
    Dimension(
        name="downsampler",
        about="How the side is halved from level to level.",
        values=OneOf(("strided", "unshuffle")),
        rule="strided or unshuffle",
        default="strided",
        needs=_RESAMPLING,
    ),
    Dimension(
        name="upsampler",
        about="How the side is doubled back from level to level.",
        values=OneOf(("pixelshuffle", "nearest", "dysample")),
        rule="pixelshuffle, nearest or dysample",
        default="pixelshuffle",
        needs=_RESAMPLING,
    ),
    Dimension(
        name="skip",
        about="How the decoder joins what the encoder sends across.",
        values=OneOf(("gated", "add", "concat")),
        rule="gated, add or concat",
        default="gated",
    ),
    Dimension(
        name="frequency_split",
        about="Whether features are split into a smooth band and the rest.",
        values=SWITCH,
        rule="true or false",
        default=False,
        off=False,
    ),
    Dimension(
        name="split_kernel_size",
        about="Side of the blur that makes the smooth band, in pixels.",
        values=Whole(3, 7, 2),
        rule="3, 5 or 7 pixels",
        default=5,
        needs=_SPLIT,
    ),
    Dimension(
        name="refiner",
        about="Detail branch on the high band.",
        values=OneOf(("none", "dft", "deformable")),
        rule="none, dft or deformable",
        default="none",
        needs=_SPLIT,
        off="none",
    ),
    Dimension(
        name="refiner_depth",
        about="Blocks of the refiner.",
        values=Whole(1, 8),
        rule="1..8 blocks",
        default=1,
        needs=_REFINER,
    ),
    Dimension(
        name="refiner_noise",
        about="Whether the refiner can inject noise in the GAN stage of a full training; silent in the proxy.",
        values=SWITCH,
        rule="true or false",
        default=False,
        needs=_REFINER,
    ),
)

DIMENSIONS: Mapping[str, Dimension] = {row.name: row for row in _ROWS}
"""All dimensions by name; a dimension stands after those that it depends on."""
