"""The sample picture of a preset: the same crop as input, enlarged by bicubic, restored, and as it should be."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from hfir.model import HydraFusionIR
from search.evaluation.proxy import restore_pair
from search.evaluation.quality import Quality, psnr_db, to_uint8
from search.tasks.images import Pixels, densest_square
from search.tasks.pairs import Pair, TaskData
from search.tasks.resize import bicubic_up

SIDE_PX = 120
"""Side of the crop, in pixels of the clean photograph."""
ZOOM = 2
"""Each pixel is drawn as so many by so many."""
GAP_PX = 8
CAPTION_PX = 22


@dataclass(frozen=True, slots=True)
class Panel:
    """One picture of the row."""

    name: str
    pixels: Pixels
    psnr_db: float | None
    """Of the crop, against the truth; None for the truth itself."""

    @property
    def caption(self) -> str:
        """What stands above it."""
        return self.name if self.psnr_db is None else f"{self.name} {self.psnr_db:.2f} dB"


@dataclass(frozen=True, slots=True)
class Sample:
    """The picture and what it shows.

    Args:
        png: The file.
        photograph: The name of the validation photograph.
        at: Left and top of the crop in the clean photograph, in pixels.
        side_px: Side of the crop.
        panels: From left to right.
    """

    png: bytes
    photograph: str
    at: tuple[int, int]
    side_px: int
    panels: tuple[Panel, ...]


def make_sample(model: HydraFusionIR, data: TaskData, scores: Sequence[Quality]) -> Sample:
    """Draw the sample of a network: of the validation photograph with the median PSNR, the place of most detail.

    So neither the photograph nor the place is picked for what the network does well.

    Args:
        model: In deploy form, channels last.
        data: Of the task that it was made for.
        scores: Of the network on each validation photograph.
    """
    by_psnr = np.argsort([quality.psnr_db for quality in scores], kind="stable")
    pair = data.validation[int(by_psnr[(len(scores) - 1) // 2])]
    restored, _ = restore_pair(model, pair)
    side = min(SIDE_PX, *pair.clean.shape[:2]) // data.upscale * data.upscale
    top, left = _most_detail(pair.clean, side, data.upscale)
    panels = _panels(pair, to_uint8(restored), data, (slice(top, top + side), slice(left, left + side)))
    return Sample(_draw(panels), pair.name, (left, top), side, tuple(panels))


def _panels(pair: Pair, restored: Pixels, data: TaskData, crop: tuple[slice, slice]) -> list[Panel]:
    given = to_uint8(pair.degraded)
    truth = pair.clean[crop]

    def panel(name: str, pixels: Pixels) -> Panel:
        luma = data.upscale > 1 and truth.shape[-1] == 3
        return Panel(name, pixels[crop], psnr_db(pixels[crop], truth, luma=luma))

    plain = [panel("input", given.repeat(data.upscale, axis=0).repeat(data.upscale, axis=1))]
    if data.upscale > 1:
        plain.append(panel("bicubic", to_uint8(bicubic_up(given, data.upscale) / 255.0)))
    return [*plain, panel("restored", restored), Panel("truth", truth, None)]


def _most_detail(clean: Pixels, side: int, multiple: int) -> tuple[int, int]:
    """Return top and left of the square with the largest sum of gradients; both multiples of `multiple`."""
    down, right = np.gradient(clean.astype(np.float64).mean(axis=-1))
    return densest_square(np.hypot(down, right), side, multiple)


def _draw(panels: Sequence[Panel]) -> bytes:
    """Return the panels side by side as a PNG, captions above."""
    side = panels[0].pixels.shape[0] * ZOOM
    width = len(panels) * (side + GAP_PX) - GAP_PX
    canvas = Image.new("RGB", (width, side + CAPTION_PX), "white")
    pen, font = ImageDraw.Draw(canvas), ImageFont.load_default(size=14)
    for i, panel in enumerate(panels):
        left = i * (side + GAP_PX)
        pixels = panel.pixels.repeat(3 // panel.pixels.shape[-1], axis=-1)
        canvas.paste(Image.fromarray(pixels).resize((side, side), Image.Resampling.NEAREST), (left, CAPTION_PX))
        pen.text((left, 2), panel.caption, fill="black", font=font)
    file = io.BytesIO()
    canvas.save(file, format="PNG", optimize=True)
    return file.getvalue()
