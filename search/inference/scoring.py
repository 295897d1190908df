"""Scores of a trained network on a folder of photographs, beside what costs nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from pydantic import Field, ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError
from torch import Tensor

from hfir.tiling import Window
from search.evaluation.quality import Quality, bicubic_baseline, mean_quality, score
from search.experiment.faults import first_fault
from search.experiment.sections import Section, TaskSection
from search.experiment.yaml_lines import Document, parse_value
from search.inference.networks import Restorer, preset_file
from search.tasks.dataset import paired_photos
from search.tasks.degradations import DEGRADATIONS, Degradation, Mixed, by_label
from search.tasks.images import load_folder
from search.tasks.pairs import Pair, TaskData, min_side_px, validation_pairs
from search.types import InputError

NOISE_SEED = 0
"""Draws the noise of a photograph, together with its content: the same on every call."""

OnImage = Callable[[int, int], None]
"""Take the number of images scored and of all."""


class Score(NamedTuple):
    """One image: what the network reaches, and what costs nothing."""

    image: str
    network: Quality
    baseline: Quality


@dataclass(frozen=True, slots=True, kw_only=True)
class Scores:
    """Scores of one folder and what they hold for.

    Args:
        images: In order of the names.
        task: What was done to the photographs, in words.
        baseline: What the baseline is: bicubic, or the degraded input.
        conventions: How PSNR and SSIM were taken.
        notes: What was left out.
    """

    images: tuple[Score, ...]
    task: str
    baseline: str
    conventions: str
    notes: tuple[str, ...]

    @property
    def mean(self) -> Score:
        """Means over the images."""
        return Score(
            "mean", mean_quality([s.network for s in self.images]), mean_quality([s.baseline for s in self.images])
        )


class _TaskFile(Section):
    """An experiment file of which only the task is there."""

    task: TaskSection = Field()


def read_task(text: str) -> TaskSection:
    """Read a task as an experiment file writes it, on one line: `{kind: denoise, sigma: 25}`.

    Raises:
        SpecError: On the first fault in it.
    """
    source = f"--task {text}"
    return _validated(parse_value(text, source), source)


def recorded_task(preset: str, upscale: int) -> TaskSection:
    """Return the task that a preset was made for; for one without a record, bicubic super-resolution.

    Raises:
        InputError: If there is no record and the network does not enlarge, or the record cannot be read.
    """
    card = preset_file(preset)
    if card is None and upscale > 1:
        return TaskSection(kind="super_resolution", upscale=upscale)
    if card is None:
        raise InputError(
            f"{preset}: no preset.yaml beside the weights says which degradation the network was made for. "
            "Give it: --task '{kind: denoise, sigma: 25}', or --degraded with a folder of degraded images."
        )
    try:
        record = YAML(typ="safe").load(card)["task"]
        task = {key: value for key, value in record.items() if key not in ("data", "channels")}
    except (YAMLError, OSError, TypeError, KeyError, AttributeError) as error:
        raise InputError(
            f"{card}: holds no task that can be read ({error}). Copy the preset again, or give --task."
        ) from error
    return _validated(task, str(card))


def score_folder(
    restorer: Restorer,
    folder: Path,
    *,
    task: TaskSection | None = None,
    degraded: Path | None = None,
    on_image: OnImage | None = None,
) -> Scores:
    """Score a network on photographs that a task degrades, or on pairs of files.

    Args:
        restorer: The network; its tiles count.
        folder: Clean photographs.
        task: What to do to them; None where `degraded` is given.
        degraded: A folder of their degraded forms, matched by name.
        on_image: Told after each image.

    Raises:
        InputError: If a folder cannot be used, or the task enlarges by another factor than the network.
        EvaluationError: If the network's output is not finite.
    """
    if degraded is not None:
        pairs, notes = paired_photos(folder, degraded, restorer.scale, restorer.channels)
        return _scores(restorer, pairs, len(pairs), f"pairs with {degraded}", notes, on_image)
    if task is None:
        raise InputError("neither a task nor degraded images are given. One of them is needed: give --task.")
    degradation = _degradation(task, restorer.scale)
    photos, notes = load_folder(folder, min_side=min_side_px(restorer.scale))
    pairs = (
        pair for photo in photos for pair in validation_pairs(photo, degradation, restorer.channels, NOISE_SEED, None)
    )
    return _scores(restorer, pairs, len(photos) * len(by_label(degradation)), _in_words(task), notes, on_image)


def _scores(
    restorer: Restorer,
    pairs: Iterable[Pair],
    count: int,
    task: str,
    notes: list[str],
    on_image: OnImage | None,
) -> Scores:
    scores = []
    for pair in pairs:
        scores.append(_score(restorer.told(pair.label), pair))
        if on_image is not None:
            on_image(len(scores), count)
    return Scores(
        images=tuple(scores),
        task=task,
        baseline="bicubic" if restorer.scale > 1 else "input",
        conventions=_conventions(restorer),
        notes=tuple(notes),
    )


def _score(restorer: Restorer, pair: Pair) -> Score:
    image = torch.from_numpy(np.ascontiguousarray(pair.degraded)).permute(2, 0, 1)[None]
    height, width = image.shape[-2:]
    restored = np.empty(pair.clean.shape, dtype=np.float32)

    def read(window: Window) -> Tensor:
        part = image[..., slice(*window.rows), slice(*window.columns)]
        return part.contiguous(memory_format=torch.channels_last).to(restorer.device)

    def write(top: int, left: int, part: Tensor) -> None:
        restored[top : top + part.shape[-2], left : left + part.shape[-1]] = part[0].permute(1, 2, 0).numpy()

    restorer.run(read, write, (height, width))
    alone = TaskData(degradation=None, upscale=restorer.scale, channels=restorer.channels, train=(), validation=(pair,))
    [baseline] = bicubic_baseline(alone)
    return Score(pair.name, score(restored, pair.clean, upscale=restorer.scale), baseline)


def _degradation(task: TaskSection, upscale: int) -> Degradation | Mixed:
    if task.scale != upscale:
        raise InputError(
            f"the task {_in_words(task)} enlarges by {task.scale}, the network by {upscale}. "
            "They must agree: choose another task or preset."
        )
    make = cast("Callable[..., Degradation | Mixed]", DEGRADATIONS[task.kind])
    return make(**task.options())


def _validated(data: Any, source: str) -> TaskSection:
    """Check a task by the rules of experiment files, and in their words."""
    if isinstance(data, Mapping) and ("data" in data or "channels" in data):
        raise InputError(
            f"{source}: data and channels are not told here: --data names the photographs, the network decides on the "
            "channels. Leave both out."
        )
    document = Document({"task": data}, source, {(): (source, None)})
    try:
        return _TaskFile.model_validate(document.data).task
    except ValidationError as error:
        raise first_fault(document, error) from error


def _in_words(task: TaskSection) -> str:
    return " ".join([task.kind, *(f"{name}={value:g}" for name, value in task.options().items())])


def _conventions(restorer: Restorer) -> str:
    scale, luma = restorer.scale, restorer.channels == 1
    if scale > 1:
        what = f"on luma Y (BT.601, 16..235, 8 bits) without a border of {scale} px, images cropped to multiples of it"
    else:
        what = "on luma Y, whole images" if luma else "on RGB, whole images"
    return f"PSNR and SSIM {what}, after rounding to 8 bits"
