"""Between a picture's levels and a network's channels, part by part, so that no float copy of a picture exists.

| picture | network | what happens |
|---|---|---|
| colour | 3 channels | as it is |
| grey | 3 channels | three equal channels in, their mean out |
| colour | 1 channel | luma Y (BT.601, 16..235) through the network, chroma enlarged bicubically |
| grey | 1 channel | as luma, which is what such networks are trained on |

Alpha never goes through the network: it is enlarged bicubically, or left as it is at scale 1. Pixels of alpha 0
take the colour of visible neighbours first, so that no hidden colour shows at the edges.
"""

from __future__ import annotations

import dataclasses
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from hfir.tiling import Span, Window
from search.inference.pictures import Levels, Picture
from search.inference.transparency import fill_hidden
from search.tasks.colour import rgb_to_y
from search.tasks.resize import imresize
from search.types import EvaluationError

_CHUNK_ROWS = 64
"""Rows that are converted at a time: what is in floating point stays small."""
_MARGIN_PX = 4
"""Pixels beside a part that bicubic enlargement looks at, and some to spare."""
_LUMA_RANGE = 219 / 255
"""Luma of BT.601 in studio swing spans 219 of 255 levels."""


class Canvas:
    """One picture on its way through a network: gives its parts as input, takes parts of the output.

    Args:
        picture: What is restored.
        channels: Of the network: 1 or 3.
        scale: Of the network.
        bits: Bits a channel of the result: 8 or 16.
        device: Of the network.
    """

    def __init__(self, picture: Picture, *, channels: int, scale: int, bits: int, device: torch.device) -> None:
        if picture.alpha is not None:
            picture = dataclasses.replace(picture, colour=fill_hidden(picture.colour, picture.alpha))
        self.picture, self.channels, self.scale, self.device = picture, channels, scale, device
        self.peak = 2**bits - 1
        height, width = picture.colour.shape[:2]
        shape = (height * scale, width * scale, picture.colour.shape[-1])
        self.restored = np.zeros(shape, dtype=np.uint8 if bits == 8 else np.uint16)

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the input."""
        height, width = self.picture.colour.shape[:2]
        return height, width

    def read(self, window: Window) -> Tensor:
        """Return a part of the picture as `[1 c h w]` in 0 .. 1."""
        levels = self.picture.colour[slice(*window.rows), slice(*window.columns)]
        part = levels.astype(np.float32) / np.float32(np.iinfo(levels.dtype).max)
        if self.channels == 1:
            part = _luma(part)
        tensor = torch.from_numpy(np.ascontiguousarray(part)).permute(2, 0, 1)[None]
        tensor = tensor.expand(1, self.channels, -1, -1).contiguous(memory_format=torch.channels_last)
        return tensor.to(self.device)

    def write(self, top: int, left: int, part: Tensor) -> None:
        """Take a part `[1 c h w]` of the output, which starts at a row and a column of it.

        Raises:
            EvaluationError: If a value is not finite.
        """
        columns = Span(left, left + part.shape[-1])
        for first in range(0, part.shape[-2], _CHUNK_ROWS):
            chunk = part[0, :, first : first + _CHUNK_ROWS].permute(1, 2, 0).numpy()
            if not np.isfinite(chunk).all():
                raise EvaluationError(
                    "the network's output holds values that are not finite. Its weights are damaged, or they need "
                    "more range than --half fp16 has: use --half none, or another preset."
                )
            rows = Span(top + first, top + first + chunk.shape[0])
            coloured = self._coloured(chunk, Window(rows, columns))
            self.restored[slice(*rows), slice(*columns)] = _rounded(coloured, self.peak)

    def result(self) -> Picture:
        """Return the restored picture with its alpha and header."""
        picture = self.picture
        alpha = None if picture.alpha is None else self._alpha(picture.alpha)
        return Picture(cast("Levels", self.restored), alpha, picture.header, picture.notes)

    def _coloured(self, chunk: npt.NDArray[np.float32], place: Window) -> npt.NDArray[np.floating]:
        """Turn a part of the network's output into the picture's channels, on the scale 0 .. 1."""
        if self.channels == 3:
            return chunk.mean(axis=-1, keepdims=True) if self.picture.is_grey else chunk
        if self.picture.is_grey:
            return (chunk - 16 / 255) / _LUMA_RANGE
        # With chroma fixed, a change of luma changes red, green and blue by the same amount.
        plain = enlarged_part(self.picture.colour, self.scale, place)
        return plain + (chunk - _luma(plain)) / _LUMA_RANGE

    def _alpha(self, alpha: Levels) -> Levels:
        height, width = self.restored.shape[:2]
        enlarged = np.empty((height, width, 1), dtype=self.restored.dtype)
        for top in range(0, height, _CHUNK_ROWS):
            rows = Span(top, min(top + _CHUNK_ROWS, height))
            part = enlarged_part(alpha, self.scale, Window(rows, Span(0, width)))
            enlarged[slice(*rows)] = _rounded(part, self.peak)
        return cast("Levels", enlarged)


def enlarged_part(levels: Levels, scale: int, place: Window) -> npt.NDArray[np.float64]:
    """Return a part of a bicubic enlargement on the scale 0 .. 1, unclipped, without computing the rest.

    Args:
        levels: `[h w c]`.
        scale: Whole factor; 1 gives the levels as they are.
        place: The part, in pixels of the result.
    """
    rows, columns = (_source(span, scale, side) for span, side in zip(place, levels.shape[:2], strict=True))
    part = levels[slice(*rows), slice(*columns)] / np.float64(np.iinfo(levels.dtype).max)
    if scale > 1:
        part = imresize(part, part.shape[0] * scale, part.shape[1] * scale)
    top, left = rows.start * scale, columns.start * scale
    return part[place.rows.start - top : place.rows.stop - top, place.columns.start - left : place.columns.stop - left]


def _source(span: Span, scale: int, side: int) -> Span:
    """Return the input pixels that bicubic enlargement looks at for some output pixels."""
    return Span(max(0, span.start // scale - _MARGIN_PX), min(side, -(-span.stop // scale) + _MARGIN_PX))


def _luma(levels: npt.NDArray[np.floating]) -> npt.NDArray[Any]:
    """Return the luma `[h w 1]` of `[h w 3]` or grey `[h w 1]`, all on the scale 0 .. 1, in the same precision."""
    return (rgb_to_y(levels * 255.0) / 255.0)[..., None].astype(levels.dtype)


def _rounded(levels: npt.NDArray[np.floating], peak: int) -> npt.NDArray[np.floating]:
    """Bring 0 .. 1 to whole levels, clipped, halves upwards."""
    return np.clip(np.floor(levels * peak + 0.5), 0, peak)
