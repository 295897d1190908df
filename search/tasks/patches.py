"""Training batches: random patches, each batch a pure function of (seed, step)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from search.counts import count
from search.tasks.degradations import Levels, by_label, to_levels
from search.tasks.images import Pixels
from search.tasks.pairs import TaskData, TrainPhoto
from search.tasks.resize import mirrored
from search.types import InputError


class Batch(NamedTuple):
    """Images are float32 in channels-last memory, on the scale 0 .. 1 but for noise."""

    degraded: Tensor
    """`[b c h w]`: the network's input."""
    clean: Tensor
    """`[b c h*upscale w*upscale]`: what it should give."""
    labels: Tensor | None = None
    """`[b]`, int64: the expert that should undo each patch's degradation, an index into
    `search.tasks.members.SKILLS`; None but in a mixed task."""


class PatchSampler:
    """Cuts batches of random patches, flipped and turned at random, out of a task's training photographs.

    Batch `step` depends on the seed and the step alone: any step can be recomputed after a restart, and
    all candidates that share a seed see the same data (common random numbers), so that their figures
    differ by the network and not by the luck of the draw. In a mixed task each degradation is as likely as
    another, for a photograph has one area in all its forms.

    Args:
        data: The task.
        patch_px: Side of a patch of the network's *input* in pixels, >= 1; the clean patch is
            `upscale` times larger.
        batch: Patches a batch, >= 1.
        seed: >= 0.

    Raises:
        InputError: If an argument is out of range, or no photograph is as large as a patch.
    """

    def __init__(self, data: TaskData, patch_px: int, batch: int, seed: int) -> None:
        for name, value, low in (("patch_px", patch_px, 1), ("batch", batch, 1), ("seed", seed, 0)):
            if value < low:
                raise InputError(f"{name} = {value} cannot be used. It must be at least {low}: raise it.")
        self._data, self._patch, self._batch, self._seed = data, patch_px, batch, seed
        self._photos = [p for p in data.train if min(p.prepared.shape[:2]) >= patch_px]
        self.notes = _too_small(data.train, patch_px)
        """One line for each photograph that is smaller than a patch and so never used."""
        if not self._photos:
            raise InputError(_none_left(data, patch_px))
        areas = np.array([p.prepared.shape[0] * p.prepared.shape[1] for p in self._photos], dtype=np.float64)
        self._shares = np.cumsum(areas / areas.sum())

    def batch(self, step: int) -> Batch:
        """Cut the batch of a training step (>= 0); photographs are drawn in proportion to their area."""
        rng = np.random.default_rng(np.random.SeedSequence([self._seed, step]))
        side, scale = self._patch, self._data.upscale
        clean = np.empty((self._batch, side * scale, side * scale, self._data.channels), dtype=np.uint8)
        cuts: list[_Cut] = []
        for slot, draws in enumerate(rng.random((self._batch, 4))):
            photo = self._photos[min(int(np.searchsorted(self._shares, draws[0])), len(self._photos) - 1)]
            top, left = (int(d * (n - side + 1)) for d, n in zip(draws[1:3], photo.prepared.shape[:2], strict=True))
            turn = int(draws[3] * 8)
            cuts.append(_Cut(photo, top, left, turn))
            clean[slot] = _turned(_square(photo.clean, top * scale, left * scale, side * scale), turn)
        skills = self._data.skills
        known = torch.tensor([skills[cut.photo.label or 0] for cut in cuts]) if skills else None
        return Batch(_to_tensor(self._degraded(cuts, rng)), _to_tensor(to_levels(clean)), known)

    def _degraded(self, cuts: Sequence[_Cut], rng: np.random.Generator) -> Levels:
        """Apply the drawn part, one degradation after the other; what was given as files stays as it is."""
        side = self._patch
        degraded = np.empty((len(cuts), side, side, self._data.channels), dtype=np.float32)
        parts = by_label(self._data.degradation)
        if not parts:
            degraded[:] = to_levels(self._prepared(cuts, 0))
        for label, degradation in parts.items():
            rows = [i for i, cut in enumerate(cuts) if cut.photo.label == label]
            if rows:
                prepared = self._prepared([cuts[i] for i in rows], degradation.margin_px)
                degraded[rows] = degradation.degrade_patches(prepared, rng)
        return degraded

    def _prepared(self, cuts: Sequence[_Cut], margin: int) -> Pixels:
        """Cut prepared patches with a margin around them: `[b side+2m side+2m c]`."""
        side = self._patch + 2 * margin
        squares = (_square(c.photo.prepared, c.top - margin, c.left - margin, side) for c in cuts)
        return np.stack([_turned(square, c.turn) for square, c in zip(squares, cuts, strict=True)])


class _Cut(NamedTuple):
    """Where a patch lies: in which photograph, at which pixel of the network's input, in which of eight turns."""

    photo: TrainPhoto
    top: int
    left: int
    turn: int


def _square(image: Pixels, top: int, left: int, side: int) -> Pixels:
    """Cut a square; beyond the border the image is mirrored, the edge pixel repeated."""
    height, width = image.shape[:2]
    if min(top, left) >= 0 and top + side <= height and left + side <= width:
        return image[top : top + side, left : left + side]
    rows, columns = (mirrored(np.arange(at, at + side), n) for at, n in ((top, height), (left, width)))
    return image[rows[:, None], columns]


def _turned(patch: Pixels, turn: int) -> Pixels:
    """One of the eight symmetries of the square, as a view: three bits for transpose and two flips."""
    if turn & 1:
        patch = patch.swapaxes(0, 1)
    return patch[:: -1 if turn & 2 else 1, :: -1 if turn & 4 else 1]


def _to_tensor(levels: Levels) -> Tensor:
    """View `[b h w c]` as a `[b c h w]` tensor, which then lies in channels-last memory."""
    return torch.from_numpy(levels).permute(0, 3, 1, 2)


def _too_small(photos: tuple[TrainPhoto, ...], patch_px: int) -> tuple[str, ...]:
    lines = (
        f"{p.name}: never trained on, its network input of {p.prepared.shape[1]} x {p.prepared.shape[0]} px "
        f"is smaller than a patch of {patch_px} px"
        for p in photos
        if min(p.prepared.shape[:2]) < patch_px
    )
    return tuple(dict.fromkeys(lines))


def _none_left(data: TaskData, patch_px: int) -> str:
    largest = max((min(p.prepared.shape[:2]) for p in data.train), default=0)
    return (
        f"patch_px = {patch_px} fits into none of {count(data.train_images, 'training photograph')}. "
        f"A patch must fit into the network input, whose largest shorter side is {largest} px "
        f"(clean photographs are {data.upscale} times that): lower patch_px, or use larger photographs."
    )
