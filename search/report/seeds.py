"""What is known of a candidate's quality beyond one figure: its mean over seeds, an interval, and over what."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from search.certainty import mean_interval, quality_of, values_of
from search.counts import count
from search.report.intervals import Interval, difference, draws, interval_of, per_image_table, resampled_means
from search.report.words import figure
from search.types import Reference, Study, Trial, TrialState

SEEDS, GAIN = "mean over seeds, 95 %", "gain, 95 %"
"""What an interval that figures show is of."""


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


@dataclass(frozen=True, slots=True, kw_only=True)
class ShownInterval:
    """A 95 % interval that tells networks apart, as figures show it.

    Args:
        ends: In the unit of the quality, around the network's own figure.
        term: What it is an interval of: `SEEDS` or `GAIN`.
        text: In words.
    """

    ends: Interval
    term: str
    text: str


def shown_interval(study: Study, network: Trial | Reference) -> ShownInterval | None:
    """Return the interval of a network's quality that figures show; None where there is none.

    That is the interval of its mean over seeds where it has several, else of its gain over the baseline, photograph by
    photograph, laid around its own PSNR. How far unlike photographs lie apart is no part of either.
    """
    quality = quality_of(study.objectives)
    known = estimate(network, quality) if isinstance(network, Trial) else None
    if known is not None and known.interval is not None and known.over == "seeds":
        return ShownInterval(ends=known.interval, term=SEEDS, text=str(known))
    value, gain = network.value(quality), _gain(study, network)
    if value is None or gain is None or quality != "psnr_db" or network.last is None:
        return None
    own = network.last.psnr_per_image_db
    mean = float(np.mean(own)) - float(np.mean(study.facts["baseline"]["psnr_per_image_db"]))
    return ShownInterval(
        ends=Interval(value + gain.low - mean, value + gain.high - mean),
        term=GAIN,
        text=f"{gain.signed()} over {count(len(own), 'image')}",
    )


def gain_intervals(study: Study, trials: Sequence[Trial]) -> dict[int, Interval]:
    """Return the 95 % intervals of what candidates gain over the baseline in PSNR, by trial, in dB.

    Over the validation images, image by image, so that how far the images differ does not count. Empty where they say
    less than `estimate` does (quality is not PSNR, or some candidate has several seeds), or one cannot be had.
    """
    found: dict[int, Interval] = {}
    for trial in trials:
        interval = _gain(study, trial)
        if interval is None or len(values_of(trial, "psnr_db")) > 1 or quality_of(study.objectives) != "psnr_db":
            return {}
        found[trial.number] = interval
    return found


def _gain(study: Study, network: Trial | Reference) -> Interval | None:
    """Return the interval of what a network gains over the baseline, photograph by photograph, in dB."""
    baseline = study.facts.get("baseline", {}).get("psnr_per_image_db", ())
    own = () if network.last is None else network.last.psnr_per_image_db
    return difference(baseline, own) if len(own) == len(baseline) else None


def _interval(trial: Trial, quality: str, values: list[float]) -> tuple[Interval | None, str]:
    if len(values) > 1:
        return Interval(*mean_interval(values)), "seeds"
    table = per_image_table([trial.last]) if trial.last is not None and quality == "psnr_db" else None
    if table is None:
        return None, ""
    return interval_of(resampled_means(table, draws(len(table)))[:, 0]), "images"
