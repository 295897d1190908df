"""Scores on a folder of photographs: of a trained network or of bicubic, beside another or what costs nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import torch
from pydantic import Field, ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError
from torch import Tensor

from hfir.tiling import Window
from search.counts import count
from search.evaluation.perceptual import PERCEPTUAL, PerceptualMetric
from search.evaluation.quality import convention, psnr_db, ssim, to_uint8, untrained
from search.experiment.faults import first_fault
from search.experiment.sections import Option, Section, TaskSection
from search.experiment.yaml_lines import Document, parse_value
from search.inference.networks import Restorer, preset_file
from search.tasks.dataset import paired_photos
from search.tasks.degradations import DEGRADATIONS, Degradation, Mixed, by_label
from search.tasks.images import Photo, Pixels, load_folder
from search.tasks.leaks import Seen, refuse_seen, seen_before, seen_from_json
from search.tasks.pairs import Pair, min_side_px, validation_pairs
from search.types import InputError

NOISE_SEED = 0
"""Draws the noise of a photograph, together with its content: the same on every call."""

METRICS = ("psnr", "ssim", *PERCEPTUAL)
"""What can be measured, as it is asked for."""

OnImage = Callable[[int, int], None]
"""Take the number of images scored and of all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """Something that restores images, to be scored.

    Args:
        name: As tables call it.
        scale: Output side over input side.
        channels: 3 for RGB, 1 for luma.
        restore: Gives the restored image of a pair, `[H W c]` on the scale 0 .. 1.
    """

    name: str
    scale: int
    channels: int
    restore: Callable[[Pair], npt.NDArray[np.floating]]


@dataclass(frozen=True, slots=True)
class Score:
    """One image: figures by name (`psnr_db`, `ssim`, `lpips`, `dists`).

    Args:
        image: Its name.
        figures: Of what is scored.
        other: Of what it is compared with; None where it stands alone.
    """

    image: str
    figures: Mapping[str, float]
    other: Mapping[str, float] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Scores:
    """Scores of one folder and what they hold for.

    Args:
        images: In order of the names.
        task: What was done to the photographs, in words.
        baseline: What they are compared with: bicubic, the degraded input, or another network; None for nothing.
        conventions: How the figures were taken.
        notes: What was left out.
    """

    images: tuple[Score, ...]
    task: str
    baseline: str | None
    conventions: str
    notes: tuple[str, ...]

    @property
    def mean(self) -> Score:
        """Means over the images."""
        others = [s.other for s in self.images if s.other is not None]
        return Score("mean", _means([s.figures for s in self.images]), _means(others) if others else None)


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


def network(restorer: Restorer, name: str) -> Subject:
    """Return a trained network as what is scored; it is told the degradation where it asks and the pair knows it."""

    def restore(pair: Pair) -> npt.NDArray[np.floating]:
        return _restored(restorer.told(pair.skill), pair)

    return Subject(name=name, scale=restorer.scale, channels=restorer.channels, restore=restore)


def what_costs_nothing(scale: int, channels: int) -> Subject:
    """Return bicubic enlargement (MATLAB's, rounded to 8 bits) as what is scored; at scale 1 the degraded input."""

    def restore(pair: Pair) -> npt.NDArray[np.floating]:
        return untrained(pair.degraded, scale)

    return Subject(name="bicubic" if scale > 1 else "input", scale=scale, channels=channels, restore=restore)


class Ruler:
    """Measures restored images by the chosen metrics, all on the same pixels.

    Args:
        metrics: Names in `METRICS`, in the order of the figures.
        scale: Of the task, which decides border and channels (`search.evaluation.quality.convention`).
        channels: 3 for RGB, 1 for luma.
        rgb: Take PSNR and SSIM on RGB though the task enlarges.
        device: Where perceptual metrics run.

    Raises:
        InputError: If a metric is unknown or named twice, its package or weights are missing, or RGB is asked of luma.
    """

    def __init__(
        self,
        metrics: Sequence[str] = ("psnr", "ssim"),
        *,
        scale: int,
        channels: int,
        rgb: bool = False,
        device: torch.device | None = None,
    ) -> None:
        unknown = [name for name in metrics if name not in METRICS]
        if unknown or not metrics or len(set(metrics)) < len(metrics):
            raise InputError(
                f"--metrics {','.join(metrics)}: not a list of metrics. "
                f"Name each once, joined by commas: {', '.join(METRICS)}."
            )
        if rgb and channels == 1:
            raise InputError("--rgb: a network of one channel restores luma alone. Leave --rgb out, or score another.")
        self._convention = convention(upscale=scale, channels=channels, rgb=rgb)
        self._scale, self._channels = scale, channels
        place = device or torch.device("cpu")
        self._measures: dict[str, Callable[[Pixels, Pixels], float]] = {}
        self._perceptual: list[PerceptualMetric] = []
        for name in metrics:
            self._add(name, place)

    def figures(self, restored: npt.NDArray[np.floating], clean: Pixels) -> dict[str, float]:
        """Return the figures of a restored image `[H W c]` on the scale 0 .. 1, rounded to 8 bits first."""
        pixels = to_uint8(restored)
        return {name: measure(pixels, clean) for name, measure in self._measures.items()}

    @property
    def conventions(self) -> str:
        """How the figures are taken, in words."""
        border, luma = self._convention
        names = " and ".join({"psnr_db": "PSNR", "ssim": "SSIM"}[n] for n in self._measures if n in ("psnr_db", "ssim"))
        parts = [f"{names} on {self._where(border, luma)}"] if names else []
        if self._perceptual:
            grey = " of three equal channels" if self._channels == 1 else ""
            what = " and ".join(metric.name.upper() for metric in self._perceptual)
            cropped = f" without a border of {border} px" if border else ""
            parts.append(f"{what} ({self._perceptual[0].source}; lower is better) on RGB{grey}{cropped}")
        return f"{'; '.join(parts)}, after rounding to 8 bits"

    def _where(self, border: int, luma: bool) -> str:
        what = "luma Y (BT.601, 16..235, 8 bits)" if luma or (self._channels == 1 and border) else "RGB"
        if not border:
            return "luma Y, whole images" if self._channels == 1 else "RGB, whole images"
        return f"{what} without a border of {border} px, images cropped to multiples of it"

    def _add(self, name: str, device: torch.device) -> None:
        border, luma = self._convention
        if name == "psnr":
            self._measures["psnr_db"] = lambda a, b: psnr_db(a, b, border=border, luma=luma)
        elif name == "ssim":
            self._measures["ssim"] = lambda a, b: ssim(a, b, border=border, luma=luma)
        else:
            metric = PerceptualMetric(name, device)
            self._perceptual.append(metric)
            self._measures[name] = lambda a, b: metric(a, b, border=border)


def recorded_photographs(preset: str) -> Seen | None:
    """Return which photographs a preset has seen; None where its record, if it has one, does not say."""
    card = preset_file(preset)
    try:
        record = None if card is None else YAML(typ="safe").load(card)
    except (YAMLError, OSError):
        return None
    return seen_from_json(record.get("photographs")) if isinstance(record, Mapping) else None


def check_unseen(preset: str, photos: Sequence[Photo], *, allowed: bool) -> str:
    """Hold test photographs against what a preset has seen.

    Args:
        preset: Its folder or file.
        photos: Clean photographs to test on.
        allowed: Let it pass where it has seen some.

    Returns:
        What the output has to say about it; empty where none was seen.

    Raises:
        InputError: If it has seen one, and that is not allowed.
    """
    seen = recorded_photographs(preset)
    if seen is None:
        return f"{preset} does not record which photographs it was trained on and selected by: not checked"
    lines = seen_before(photos, seen)
    if not allowed:
        refuse_seen(preset, lines, len(photos))
    parts = [f"--seen: {preset} has seen {len(lines)} of these photographs: {'; '.join(lines)}"] if lines else []
    if not seen.complete:
        parts.append(f"{preset} was trained on from a network that records no photographs: checked in part")
    return "; ".join(parts)


def score_folder(
    subject: Subject,
    folder: Path,
    *,
    task: TaskSection | None = None,
    degraded: Path | None = None,
    other: Subject | None = None,
    ruler: Ruler | None = None,
    check: Callable[[Sequence[Photo]], Sequence[str]] | None = None,
    on_image: OnImage | None = None,
) -> Scores:
    """Score something on photographs that a task degrades, or on pairs of files.

    Args:
        subject: What is scored.
        folder: Clean photographs.
        task: What to do to them; None where `degraded` is given.
        degraded: A folder of their degraded forms, matched by name.
        other: What it is compared with, of the same scale and channels.
        ruler: What is measured; by default PSNR and SSIM.
        check: Shown the clean photographs before anything is spent; gives notes on them, or refuses them.
        on_image: Told after each image.

    Raises:
        InputError: If a folder cannot be used, or the task enlarges by another factor than the subject.
        EvaluationError: If an output is not finite.
    """
    _check_alike(subject, other)
    ruler = ruler or Ruler(scale=subject.scale, channels=subject.channels)
    pairs: Iterable[Pair]
    if degraded is not None:
        photos, pairs, notes = paired_photos(folder, degraded, subject.scale, subject.channels)
        count, words = len(photos), f"pairs with {degraded}"
    elif task is not None:
        degradation = _degradation(task, subject.scale)
        photos, notes = load_folder(folder, min_side=min_side_px(subject.scale))
        pairs = (p for f in photos for p in validation_pairs(f, degradation, subject.channels, NOISE_SEED, None))
        count, words = len(photos) * len(by_label(degradation)), _in_words(task)
    else:
        raise InputError("neither a task nor degraded images are given. One of them is needed: give --task.")
    remarks = [] if check is None else check(photos)
    scores: list[Score] = []
    for pair in pairs:
        compared = None if other is None else ruler.figures(other.restore(pair), pair.clean)
        scores.append(Score(pair.name, ruler.figures(subject.restore(pair), pair.clean), compared))
        if on_image is not None:
            on_image(len(scores), count)
    return Scores(
        images=tuple(scores),
        task=words,
        baseline=None if other is None else other.name,
        conventions=ruler.conventions,
        notes=(*notes, *remarks),
    )


def _check_alike(subject: Subject, other: Subject | None) -> None:
    if other is not None and (other.scale, other.channels) != (subject.scale, subject.channels):
        raise InputError(
            f"{subject.name} enlarges {subject.scale} times and takes {count(subject.channels, 'channel')}, "
            f"{other.name} {other.scale} times and {count(other.channels, 'channel')}. What is compared must agree in "
            "both: choose another."
        )


def _means(rows: Sequence[Mapping[str, float]]) -> dict[str, float]:
    return {name: sum(row[name] for row in rows) / len(rows) for name in rows[0]}


def _restored(restorer: Restorer, pair: Pair) -> npt.NDArray[np.float32]:
    image = torch.from_numpy(np.ascontiguousarray(pair.degraded)).permute(2, 0, 1)[None]
    height, width = image.shape[-2:]
    restored = np.empty(pair.clean.shape, dtype=np.float32)

    def read(window: Window) -> Tensor:
        part = image[..., slice(*window.rows), slice(*window.columns)]
        return part.contiguous(memory_format=torch.channels_last).to(restorer.device)

    def write(top: int, left: int, part: Tensor) -> None:
        restored[top : top + part.shape[-2], left : left + part.shape[-1]] = part[0].permute(1, 2, 0).numpy()

    restorer.run(read, write, (height, width))
    return restored


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
    return " ".join([task.kind, *(f"{name}={_option(value)}" for name, value in task.options().items())])


def _option(value: Option) -> str:
    return ",".join(value) if isinstance(value, tuple) else f"{value:g}"
