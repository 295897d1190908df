"""What is known of a candidate's quality beyond one figure: its mean over seeds, an interval, and over what."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from search.certainty import mean_interval, quality_of, values_of
from search.report.intervals import Interval, difference, draws, interval_of, per_image_table, resampled_means
from search.report.words import count, figure
from search.types import Study, Trial, TrialState


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """A candidate's quality.

    Args:
        quality: psnr_db or ssim.
        mean: Over its seeds.
        interval: 95 %: of the mean over seeds by Student's t where there are two or more, else of the mean over the
            validation images by the bootstrap; None where neither can be had.
        over: What the interval is over: `seeds`, `images`, or nothing.
        seeds: Trainings behind the mean.
        images: Validation images behind each of them.
        failed: Further seeds whose training failed.
    """

    quality: str
    mean: float
    interval: Interval | None
    over: str
    seeds: int
    images: int
    failed: int

    def __str__(self) -> str:
        """Return it in words: `31.40–31.62 over 3 seeds`."""
        if self.interval is None:
            return "–"
        ends = "–".join(figure(self.quality, end) for end in (self.interval.low, self.interval.high))
        failed = f", {count(self.failed, 'more')} failed" if self.failed else ""
        return (
            f"{ends} over {count(self.seeds, 'seed') if self.over == 'seeds' else count(self.images, 'image')}{failed}"
        )


def estimate(trial: Trial, quality: str = "psnr_db") -> Estimate | None:
    """Return what is known of a complete candidate's quality; None of any other."""
    if trial.state is not TrialState.COMPLETE or trial.last is None:
        return None
    values = values_of(trial, quality)
    if not values:
        return None
    interval, over = _interval(trial, quality, values)
    return Estimate(
        quality=quality,
        mean=float(np.mean(values)),
        interval=interval,
        over=over,
        seeds=len(values),
        images=len(trial.last.psnr_per_image_db),
        failed=1 + len(trial.replicates) - len(values),
    )


def gain_intervals(study: Study, trials: Sequence[Trial]) -> dict[int, Interval]:
    """Return the 95 % intervals of what candidates gain over the baseline in PSNR, by trial, in dB.

    Over the validation images, image by image, so that how far the images differ does not count. Empty where they say
    less than `estimate` does (quality is not PSNR, or some candidate has several seeds), or one cannot be had.
    """
    baseline = study.facts.get("baseline", {}).get("psnr_per_image_db", ())
    found: dict[int, Interval] = {}
    for trial in trials:
        own = () if trial.last is None else trial.last.psnr_per_image_db
        interval = difference(baseline, own) if len(own) == len(baseline) else None
        if interval is None or len(values_of(trial, "psnr_db")) > 1 or quality_of(study.objectives) != "psnr_db":
            return {}
        found[trial.number] = interval
    return found


def _interval(trial: Trial, quality: str, values: list[float]) -> tuple[Interval | None, str]:
    if len(values) > 1:
        return Interval(*mean_interval(values)), "seeds"
    table = per_image_table([trial.last]) if trial.last is not None and quality == "psnr_db" else None
    if table is None:
        return None, ""
    return interval_of(resampled_means(table, draws(len(table)))[:, 0]), "images"
