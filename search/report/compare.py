"""Runs side by side: whose front is better, where, and whether the difference is more than the choice of images.

Only like is held against like. PSNR compares on one task and the same validation images alone; latency on one host,
at one input size, with one runtime. Where latencies do not compare, the runs are compared on multiply-accumulates.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np

from search.counts import count
from search.pareto import Floats, hypervolume, pareto_front
from search.report.intervals import (
    FEW_IMAGES,
    Interval,
    difference_db,
    draws,
    interval_of,
    per_image_table,
    resampled_means,
)
from search.report.words import LONGER, REMEASURE, after_steps, baseline_value, describe_steps
from search.types import OBJECTIVES, Cost, InputError, Measurement, Study, Trial, TrialState

AXES = ("latency_ms", "macs_g", "params_m", "peak_mem_mib")
"""Costs in the order in which they are tried as an axis."""
RESAMPLES = 500
"""Of the hypervolume's interval: each resample draws every run's front anew."""
BASELINE_TOLERANCE_DB = 0.01
"""What the same images may differ by in PSNR between machines before they count as other images."""
REFERENCE_COST = 1.1
"""The reference point's cost, in units of the dearest member of all fronts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ComparedRun:
    """One run in a comparison.

    Args:
        label: Its name, or its folder where two runs bear one name.
        study: Its records.
        front: Members over PSNR and the common cost alone, from cheap to dear.
        hypervolume: What the front dominates up to the common reference point, in dB times doublings of the cost.
        interval: Of the hypervolume, over the validation images; None with fewer than two.
        behind: By how much it falls short of the run with the largest hypervolume, as a paired interval; None for that
            run itself, and where there is no interval.
    """

    label: str
    study: Study
    front: tuple[Trial, ...]
    hypervolume: float
    interval: Interval | None
    behind: Interval | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Band:
    """A stretch of the cost axis, between two consecutive members of all fronts.

    Args:
        low: Its cheaper end, which belongs to it.
        high: Its dearer end, which does not; None for the last band.
        winner: Label of the run with the highest PSNR at no more than `low`.
        number: The winner's candidate.
        second: Label of the next best run; None where no other has a member as cheap.
        lead_db: By how much the winner leads; None without a second.
        lead_interval_db: Its paired interval over the validation images.
    """

    low: float
    high: float | None
    winner: str
    number: int
    second: str | None
    lead_db: float | None
    lead_interval_db: Interval | None

    @property
    def is_clear(self) -> bool:
        """Whether the lead is more than the choice of images: no rival, or an interval that leaves zero out."""
        return self.second is None or (self.lead_interval_db is not None and not self.lead_interval_db.holds_zero)


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Runs on one pair of axes: PSNR upwards, a cost to the right.

    Args:
        cost: The common cost.
        cost_conditions: What the cost holds for, in words.
        why_not: For each cost that was tried before and does not compare, why.
        runs: In the order given.
        reference: The common reference point: PSNR in dB, and the cost.
        baseline_psnr_db: What doing nothing scores on these images; None where no run found it out.
        bands: From cheap to dear; none where no run has a front.
        images: Validation images behind each PSNR.
        caveats: Differences between the runs that do not forbid the comparison, and what the intervals leave out.
    """

    cost: str
    cost_conditions: str
    why_not: Mapping[str, str]
    runs: tuple[ComparedRun, ...]
    reference: tuple[float, float] | None
    baseline_psnr_db: float | None
    bands: tuple[Band, ...]
    images: int
    caveats: tuple[str, ...]


def compare_runs(studies: Sequence[Study]) -> Comparison:
    """Compare runs by their fronts over PSNR and the first cost that compares.

    The cost is latency where all runs measured it on one host under the same conditions and searched over it, else
    MACs, else parameters or memory. Costs count by their logarithm to the base 2 in the hypervolume. The reference
    point is the baseline's PSNR (the worst member's where there is none) and 1.1 times the dearest member's cost.

    Args:
        studies: Two or more; a run without a complete candidate takes part with an empty front.

    Raises:
        InputError: With fewer than two runs; if tasks or validation images differ; or if no cost compares.
    """
    if len(studies) < 2:
        raise InputError("there is nothing to compare with.\n  Give the folders of two runs or more.")
    _check_same_task(studies)
    _check_same_images(studies)
    cost, why_not = _common_cost(studies)
    labels = _labels(studies)
    fronts = [pareto_front(_complete_on(study, cost), ("psnr_db", cost)).members for study in studies]
    reference = _reference(studies, fronts, cost)
    volumes = [0.0 if reference is None else _volume(_points(front, cost), reference) for front in fronts]
    resampled = None if reference is None else _resampled_volumes(studies, cost, reference)
    leader = int(np.argmax(volumes))
    runs = tuple(
        ComparedRun(
            label=label,
            study=study,
            front=front,
            hypervolume=volume,
            interval=None if resampled is None else interval_of(resampled[:, place]),
            behind=None
            if resampled is None or place == leader
            else interval_of(resampled[:, leader] - resampled[:, place]),
        )
        for place, (label, study, front, volume) in enumerate(zip(labels, studies, fronts, volumes, strict=True))
    )
    return Comparison(
        cost=cost,
        cost_conditions=_words(_conditions(studies, cost)),
        why_not=why_not,
        runs=runs,
        reference=reference,
        baseline_psnr_db=_baseline(studies),
        bands=_bands(runs, cost),
        images=_images(studies),
        caveats=_caveats(studies, labels, cost),
    )


def merged_bands(bands: Sequence[Band]) -> list[tuple[Band, ...]]:
    """Return neighbouring bands with one winner, one second and one verdict, together."""
    return [tuple(group) for _, group in groupby(bands, key=lambda band: (band.winner, band.second, band.is_clear))]


# -- what compares -----------------------------------------------------------------------------------


def _check_same_task(studies: Sequence[Study]) -> None:
    """Refuse runs of different tasks; the folder of the photographs aside, and runs that have recorded nothing."""
    known = [study for study in studies if study.spec.get("task")]
    tasks = [{k: v for k, v in study.spec["task"].items() if k != "data"} for study in known]
    for study, task in zip(known, tasks, strict=True):
        if task != tasks[0]:
            names = sorted(name for name in {*task, *tasks[0]} if task.get(name) != tasks[0].get(name))
            told = "; ".join(f"{name}: {tasks[0].get(name)} against {task.get(name)}" for name in names)
            raise InputError(
                f"{known[0].folder} and {study.folder} are of different tasks ({told}).\n"
                "  PSNR compares on one task only. Compare runs of one task."
            )


def _check_same_images(studies: Sequence[Study]) -> None:
    """Refuse runs whose validation images differ, by name or by what the baseline scores on each of them."""
    known = [study for study in studies if study.facts.get("baseline")]
    for study in known[1:]:
        first, other = known[0].facts["baseline"], study.facts["baseline"]
        rule = "\n  PSNR compares on the same validation images only. Run both searches on the same data."
        here, there = list(first.get("images", ())), list(other.get("images", ()))
        if here != there:
            raise InputError(
                f"{known[0].folder} and {study.folder} were validated on different images: "
                f"{', '.join(here) or 'none'} against {', '.join(there) or 'none'}.{rule}"
            )
        a, b = first.get("psnr_per_image_db", ()), other.get("psnr_per_image_db", ())
        if len(a) != len(b) or any(abs(x - y) > BASELINE_TOLERANCE_DB for x, y in zip(a, b, strict=True)):
            raise InputError(
                f"{known[0].folder} and {study.folder} name the same validation images, but doing nothing scores "
                f"differently on them: {_list(a)} against {_list(b)} dB.{rule}"
            )


def _common_cost(studies: Sequence[Study]) -> tuple[str, dict[str, str]]:
    """Return the first cost that compares, and why those before it do not."""
    why_not: dict[str, str] = {}
    searched = [name for name in AXES if all(name in study.objectives for study in studies)]
    for name in searched:
        reason = _mismatch(studies, name)
        if not reason:
            return name, why_not
        why_not[name] = reason
    for name in AXES:
        if name not in searched and not _mismatch(studies, name):
            return name, why_not | {
                other: "not an objective of every run" for other in AXES[: AXES.index(name)] if other not in why_not
            }
    told = "; ".join(f"{name}: {reason}" for name, reason in why_not.items()) or "no cost is known in every run"
    raise InputError(f"no cost compares between these runs ({told}).\n  Measure them on one host, at one input size.")


def _mismatch(studies: Sequence[Study], cost: str) -> str:
    """Return why a cost does not compare between the runs; empty where it does."""
    known = _conditions(studies, cost)
    complete = [study for study in studies if study.in_state(TrialState.COMPLETE)]
    lacking = [study for study in complete if not any(_is_known(t, cost) for t in _complete(study))]
    if lacking:
        return f"not known in {lacking[0].folder}"
    differing = [f"{name}: {' against '.join(sorted(values))}" for name, values in known.items() if len(values) > 1]
    return "; ".join(differing)


def _conditions(studies: Sequence[Study], cost: str) -> dict[str, set[str]]:
    """Return all values that each condition of a cost takes in the complete candidates of the runs."""
    found: dict[str, set[str]] = {}
    for study in studies:
        for trial in _complete(study):
            for name, value in ({} if trial.cost is None else _conditions_of(trial.cost, cost)).items():
                found.setdefault(name, set()).add(value)
    return found


def _conditions_of(cost: Cost, name: str) -> dict[str, str]:
    if name == "macs_g":
        return {"input": cost.macs_at}
    if name == "peak_mem_mib" and cost.peak_mem_at is not None:
        return {"input": cost.peak_mem_at}
    if name == "latency_ms" and cost.latency is not None:
        at = cost.latency
        return {
            "host": at.host,
            "device": at.device,
            "threads": str(at.threads),
            "dtype": at.dtype,
            "input": at.at,
            "runtime": at.runtime,
        }
    return {}


def _words(conditions: Mapping[str, set[str]]) -> str:
    return ", ".join(f"{name} {' / '.join(sorted(values))}" for name, values in conditions.items())


def _caveats(studies: Sequence[Study], labels: Sequence[str], cost: str) -> tuple[str, ...]:
    known = dict.fromkeys(after_steps(study) for study in studies if _complete(study))
    texts = [f"PSNR is {' and '.join(known)} of training; {LONGER}."] if known else []
    if len({study.objectives for study in studies}) > 1:
        told = "; ".join(f"{label}: {', '.join(s.objectives)}" for label, s in zip(labels, studies, strict=True))
        texts.append(f"The runs searched over different objectives ({told}).")
    if any(cost not in study.objectives for study in studies):
        texts.append(
            f"Not every run searched over {OBJECTIVES[cost].label}: one that did not is shown at a disadvantage."
        )
    differing = _differences_of_training(studies)
    if differing:
        told = "; ".join(f"{label}: {describe_steps(s)}" for label, s in zip(labels, studies, strict=True))
        texts.append(
            f"The runs trained differently ({', '.join(differing)}; {told}): fronts differ by training as well."
        )
    untrusted = [
        f"{label} #{t.number}"
        for label, study in zip(labels, studies, strict=True)
        for t in _complete(study)
        if cost == "latency_ms" and t.cost is not None and t.cost.latency is not None and not t.cost.latency.trusted
    ]
    if untrusted:
        texts.append(f"Untrusted latencies, the machine was busy: {', '.join(untrusted)}. {REMEASURE}")
    images = _images(studies)
    if images > 1:
        texts.append(f"Intervals cover the choice of the {count(images, 'validation image')}, not training seeds.")
    if images < FEW_IMAGES and any(_complete(study) for study in studies):
        few = "a single image gives no interval" if images < 2 else "intervals over so few images are too narrow"
        texts.append(f"{count(images, 'validation image')}: {few}.")
    return tuple(texts)


def _differences_of_training(studies: Sequence[Study]) -> list[str]:
    """Return which settings of the proxy training differ; those that only decide who goes on aside."""
    proxies: list[dict[str, Any]] = [dict(study.spec.get("proxy", {})) for study in studies]
    for proxy in proxies:
        for name in ("keep", "rank_by", "predictor"):
            proxy.pop(name, None)
        proxy["steps"] = (proxy.pop("rungs", None) or [None])[-1]
    names = sorted({name for proxy in proxies for name in proxy})
    return [name for name in names if any(proxy.get(name) != proxies[0].get(name) for proxy in proxies)]


def _labels(studies: Sequence[Study]) -> list[str]:
    """Return each run's name, or its folder where two bear one name.

    Raises:
        InputError: If one folder is given twice.
    """
    folders = [study.folder.resolve() for study in studies]
    if len(set(folders)) < len(folders):
        twice = next(f for f in folders if folders.count(f) > 1)
        raise InputError(f"{twice} is given twice.\n  Give each run's folder once.")
    names = [study.name for study in studies]
    return [s.name if names.count(s.name) == 1 else str(s.folder) for s in studies]


# -- volumes -----------------------------------------------------------------------------------------


def _reference(studies: Sequence[Study], fronts: Sequence[tuple[Trial, ...]], cost: str) -> tuple[float, float] | None:
    """Return the common reference point, PSNR and cost; None where no run has a front."""
    members = [t for front in fronts for t in front]
    if not members:
        return None
    baseline = _baseline(studies)
    worst = min(_of(t, "psnr_db") for t in members) if baseline is None else baseline
    return worst, REFERENCE_COST * max(_of(t, cost) for t in members)


def _points(trials: Sequence[Trial], cost: str) -> Floats:
    """Return trials as points to minimise, [n, 2]: PSNR with a minus sign, the cost's logarithm to the base 2."""
    rows = [(-_of(t, "psnr_db"), math.log2(_of(t, cost))) for t in trials]
    return np.array(rows, dtype=np.float64).reshape(len(rows), 2)


def _volume(points: Floats, reference: tuple[float, float]) -> float:
    return hypervolume(points, (-reference[0], math.log2(reference[1])))


def _resampled_volumes(studies: Sequence[Study], cost: str, reference: tuple[float, float]) -> Floats | None:
    """Return each run's hypervolume under resampled images, [resamples, runs]; None where there is no interval.

    The front is chosen anew in each resample, among all complete candidates, and the baseline moves along.
    """
    groups = [_complete_on(study, cost) for study in studies]
    measured = [t.last for group in groups for t in group if t.last is not None]
    baseline = next((s.facts["baseline"]["psnr_per_image_db"] for s in studies if s.facts.get("baseline")), None)
    table = per_image_table(measured)
    if table is None or (baseline is not None and len(baseline) != len(table)):
        return None
    picks = draws(len(table), resamples=RESAMPLES)
    means = resampled_means(table, picks)
    worst = None if baseline is None else resampled_means(np.array(baseline, dtype=np.float64)[:, None], picks)[:, 0]
    volumes, start = np.zeros((len(picks), len(groups))), 0
    for run, group in enumerate(groups):
        points = _points(group, cost)
        for row, psnrs in enumerate(means[:, start : start + len(group)]):
            points[:, 0] = -psnrs
            floor = reference[0] if worst is None else float(worst[row])
            volumes[row, run] = _volume(points, (floor, reference[1]))
        start += len(group)
    return volumes


# -- bands -------------------------------------------------------------------------------------------


def _bands(runs: Sequence[ComparedRun], cost: str) -> tuple[Band, ...]:
    edges = sorted({_of(t, cost) for run in runs for t in run.front})
    ends: list[float | None] = [*edges[1:], None]
    return tuple(_band(runs, cost, low, high) for low, high in zip(edges, ends, strict=False))


def _band(runs: Sequence[ComparedRun], cost: str, low: float, high: float | None) -> Band:
    best = [(run.label, trial) for run in runs if (trial := _best_within(run.front, cost, low)) is not None]
    (winner, first), *others = sorted(best, key=lambda pair: -_of(pair[1], "psnr_db"))
    second = others[0] if others else None
    return Band(
        low=low,
        high=high,
        winner=winner,
        number=first.number,
        second=None if second is None else second[0],
        lead_db=None if second is None else _of(first, "psnr_db") - _of(second[1], "psnr_db"),
        lead_interval_db=None if second is None else difference_db(_last(second[1]), _last(first)),
    )


def _best_within(front: Sequence[Trial], cost: str, most: float) -> Trial | None:
    """Return the member with the highest PSNR at no more than a cost."""
    within = [t for t in front if _of(t, cost) <= most]
    return max(within, key=lambda t: _of(t, "psnr_db")) if within else None


# -- shared ------------------------------------------------------------------------------------------


def _complete(study: Study) -> tuple[Trial, ...]:
    return study.in_state(TrialState.COMPLETE)


def _complete_on(study: Study, cost: str) -> list[Trial]:
    """Return the complete candidates with a PSNR and a cost that has a logarithm."""
    known = [t for t in _complete(study) if _is_known(t, cost) and _is_known(t, "psnr_db")]
    return [t for t in known if _of(t, cost) > 0]


def _is_known(trial: Trial, objective: str) -> bool:
    value = trial.value(objective)
    return value is not None and math.isfinite(value)


def _baseline(studies: Sequence[Study]) -> float | None:
    return next((value for s in studies if (value := baseline_value(s, "psnr_db")) is not None), None)


def _images(studies: Sequence[Study]) -> int:
    lasts = [t.last for study in studies for t in _complete(study) if t.last is not None]
    return max((len(last.psnr_per_image_db) for last in lasts), default=0)


def _last(trial: Trial) -> Measurement:
    if trial.last is None:
        raise ValueError(f"trial {trial.number} was never trained: it cannot be on a front.")
    return trial.last


def _of(trial: Trial, objective: str) -> float:
    value = trial.value(objective)
    if value is None:
        raise ValueError(f"trial {trial.number} has no {objective}: it cannot be on this front.")
    return value


def _list(values: Sequence[float]) -> str:
    return ", ".join(f"{value:.2f}" for value in values)
