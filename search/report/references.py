"""The networks that a run is compared with: how each stands against the front, in figures and in words."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from search.report.intervals import Interval, difference_db
from search.report.tables import front_trials
from search.report.words import LONGER, after_steps, figure, quality_objective
from search.types import Reference, Study, Trial


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """How a reference stands against the front.

    Args:
        reference: The network.
        rival: The best member of the front that is no slower; None where there is none, or the reference is not done.
        gain: The rival's quality less the reference's, in the unit of the quality; both after the last rung.
        interval_db: The 95 % interval of that difference over the validation images, where it is PSNR.
        is_done: Whether the reference was trained through all rungs.
    """

    reference: Reference
    rival: Trial | None
    gain: float | None
    interval_db: Interval | None
    is_done: bool

    @property
    def is_dominated(self) -> bool:
        """Whether a member of the front is better and no slower."""
        return self.gain is not None and self.gain > 0

    @property
    def is_clear(self) -> bool:
        """Whether the sign of the difference is known: there is no interval, or zero lies outside."""
        return self.interval_db is None or not self.interval_db.holds_zero


def standings(study: Study) -> tuple[Standing, ...]:
    """Return how each reference stands against the front, in the order of the experiment."""
    return tuple(_standing(study, reference) for reference in study.references)


def describe_made(made: dict[str, Any]) -> str:
    """Return how a reference is made as words: `edsr (width 32, blocks 8)`, `my_net:MyNet`."""
    args = ", ".join(
        f"{name} {value if isinstance(value, str) else json.dumps(value)}" for name, value in made["args"].items()
    )
    name = made.get("network") or made["module"]
    return f"{name} ({args})" if args else str(name)


def describe_standing(study: Study, standing: Standing) -> str:
    """Return in a sentence whether, and after how many steps, the front beats a reference at no more latency."""
    reference, rival = standing.reference, standing.rival
    if reference.reason:
        return f"failed: {reference.reason}"
    if not standing.is_done:
        return "not trained through all rungs yet"
    if reference.value("latency_ms") is None:
        return "not measured on the machine of the front"
    if not front_trials(study):
        return "there is no front yet"
    if rival is None or standing.gain is None:
        return "not beaten: no member of the front is as fast"
    quality = quality_objective(study)
    size, unit = figure(quality, abs(standing.gain)), " dB" if quality == "psnr_db" else ""
    mine, theirs = (figure("latency_ms", network.value("latency_ms")) for network in (reference, rival))
    steps, end = after_steps(study), f"{theirs} against {mine} ms; {LONGER}"
    if not standing.is_clear:
        sign = "+" if standing.is_dominated else "-"
        return f"level with trial {rival.number} {steps}: {sign}{size}{unit} is within the photographs' interval, {end}"
    if standing.is_dominated:
        return f"beaten by trial {rival.number} {steps}: {size}{unit} better, {end}"
    return f"not beaten {steps}: trial {rival.number}, the best as fast, is {size}{unit} worse, {end}"


def _standing(study: Study, reference: Reference) -> Standing:
    quality, latency_ms = quality_objective(study), reference.value("latency_ms")
    is_done = _is_done(study, reference)
    mine = reference.value(quality) if is_done else None
    if mine is None or latency_ms is None:
        return Standing(reference=reference, rival=None, gain=None, interval_db=None, is_done=is_done)
    as_fast = [t for t in front_trials(study) if (ms := t.value("latency_ms")) is not None and ms <= latency_ms]
    rival = max(as_fast, key=lambda t: t.value(quality) or 0.0, default=None)
    theirs = None if rival is None else rival.value(quality)
    return Standing(
        reference=reference,
        rival=rival,
        gain=None if theirs is None else theirs - mine,
        interval_db=_interval(reference, rival) if quality == "psnr_db" else None,
        is_done=is_done,
    )


def _is_done(study: Study, reference: Reference) -> bool:
    rungs = study.spec.get("proxy", {}).get("rungs", ())
    last = reference.last
    return not reference.reason and last is not None and last.rung == len(rungs) - 1


def _interval(reference: Reference, rival: Trial | None) -> Interval | None:
    if rival is None or rival.last is None or reference.last is None:
        return None
    return difference_db(reference.last, rival.last)
