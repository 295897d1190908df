"""The front, explained: what the next member buys, what a cheaper one costs, and what cannot be told apart.

All from the records. Differences in PSNR carry a paired bootstrap interval over the validation images (see
`search.report.intervals`); latencies carry their own intervals.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from search.counts import count
from search.report.intervals import FEW_IMAGES, Interval, difference_db
from search.report.tables import front_trials
from search.report.words import LONGER, REMEASURE, cost_objectives
from search.types import Genotype, Measurement, Scalar, Study, Trial, TrialState


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """What changes on the way from one candidate to another: the other's figures less the one's.

    Args:
        number: The other candidate.
        psnr_db: Difference in dB, both after as many training steps; None where they share no rung.
        psnr_interval_db: Its 95 % interval over the validation images; None with fewer than two images.
        latency_ms: Difference in ms of the medians; None where one is not known.
        macs_g: Difference in 1e9 multiply-accumulates; None where one is not known.
    """

    number: int
    psnr_db: float | None
    psnr_interval_db: Interval | None
    latency_ms: float | None
    macs_g: float | None

    @property
    def is_clear(self) -> bool:
        """Whether the sign of the PSNR difference is known: there is an interval, and zero lies outside."""
        return self.psnr_interval_db is not None and not self.psnr_interval_db.holds_zero

    @property
    def db_per_ms(self) -> float | None:
        """PSNR for latency, in dB a ms; None where not both rise or both fall."""
        return _rate(self.psnr_db, self.latency_ms)

    @property
    def db_per_gmac(self) -> float | None:
        """PSNR for multiply-accumulates, in dB per 1e9; None where not both rise or both fall."""
        return _rate(self.psnr_db, self.macs_g)


@dataclass(frozen=True, slots=True, kw_only=True)
class Neighbour:
    """A candidate that was really evaluated and differs in one dimension, that dimension's children aside.

    Args:
        dimension: The one that differs.
        here: Its value in the member.
        there: Its value in the neighbour.
        state: The neighbour's.
        reason: Why it is in that state.
        step: Training steps after which both PSNRs are compared: those of the last rung that both reached.
        trained_fully: Whether it was trained through the last rung.
        change: From the member to the neighbour.
    """

    dimension: str
    here: Scalar
    there: Scalar
    state: TrialState
    reason: str
    step: int | None
    trained_fully: bool
    change: Change


@dataclass(frozen=True, slots=True, kw_only=True)
class ExplainedMember:
    """A member of the front and what surrounds it.

    Args:
        trial: The member.
        upgrade: To the next dearer member with a higher PSNR; None for the best.
        cheaper: To the best member among the cheaper ones; None for the cheapest.
        neighbours: Candidates one change away, those with the highest PSNR relative to the member first.
    """

    trial: Trial
    upgrade: Change | None
    cheaper: Change | None
    neighbours: tuple[Neighbour, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """Members that the intervals cannot tell apart, each from each.

    Such ties do not carry over from one pair to the next, so a member may stand in several groups.

    Args:
        figures: In what: `psnr_db`, `latency_ms`, or both at once.
        numbers: Of the members, two or more.
    """

    figures: tuple[str, ...]
    numbers: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class FrontExplanation:
    """A front with what its figures say and do not say.

    Args:
        cost: The cost by which the members are in order; None where the run has no cost among its objectives.
        members: From cheap to dear.
        groups: Members that cannot be told apart: in PSNR, in latency, in both.
        images: Validation images behind each PSNR.
        caveats: What the intervals leave out, as sentences.
    """

    cost: str | None
    members: tuple[ExplainedMember, ...]
    groups: tuple[Group, ...]
    images: int
    caveats: tuple[str, ...]


def explain_front(study: Study) -> FrontExplanation:
    """Explain the front of a run. A run without a complete candidate has no members, no groups and no caveats."""
    members = front_trials(study)
    cost = _leading_cost(study)
    return FrontExplanation(
        cost=cost,
        members=tuple(
            ExplainedMember(
                trial=member,
                upgrade=_upgrade(members, place) if cost else None,
                cheaper=_cheaper(members, place, cost) if cost else None,
                neighbours=neighbours(study, member),
            )
            for place, member in enumerate(members)
        ),
        groups=_groups(members),
        images=_images(members),
        caveats=_caveats(members),
    )


def neighbours(study: Study, member: Trial) -> tuple[Neighbour, ...]:
    """Return the evaluated candidates whose genotype differs from a member's in exactly one dimension.

    Evaluated: their costs are known. The best relative to the member come first, those without a PSNR last.
    """
    found = []
    for other in study.trials:
        dimension = changed_dimension(member.genotype, other.genotype)
        if dimension is not None and other.cost is not None and other.state is not TrialState.DUPLICATE:
            found.append(_neighbour(study, member, other, dimension))
    return tuple(sorted(found, key=lambda n: (n.change.psnr_db is None, -(n.change.psnr_db or 0.0), n.change.number)))


def changed_dimension(one: Genotype, other: Genotype) -> str | None:
    """Return the only dimension in which two points of one space differ; None where there are none or several.

    Dimensions that are active in one of the two alone are children of what changed and do not count: whether a
    dimension is active follows from the values of the others.
    """
    shared = [name for name in one.values if name in other.values]
    changed = [name for name in shared if not _same(one[name], other[name])]
    return changed[0] if len(changed) == 1 else None


def change(one: Trial, other: Trial) -> Change:
    """Return what changes from one candidate to another, PSNR at the last rung that both reached."""
    at = common_rung(one, other)
    return Change(
        number=other.number,
        psnr_db=None if at is None else _finite(at[1].psnr_db - at[0].psnr_db),
        psnr_interval_db=None if at is None else difference_db(*at),
        latency_ms=_difference(one, other, "latency_ms"),
        macs_g=_difference(one, other, "macs_g"),
    )


def common_rung(one: Trial, other: Trial) -> tuple[Measurement, Measurement] | None:
    """Return both candidates' measurements at the last rung that both reached, None where there is none."""
    theirs = {m.rung: m for m in other.measurements}
    shared = [(m, theirs[m.rung]) for m in one.measurements if m.rung in theirs]
    return shared[-1] if shared else None


def _neighbour(study: Study, member: Trial, other: Trial, dimension: str) -> Neighbour:
    at = common_rung(member, other)
    rungs = study.spec.get("proxy", {}).get("rungs") or ()
    return Neighbour(
        dimension=dimension,
        here=member.genotype[dimension],
        there=other.genotype[dimension],
        state=other.state,
        reason=other.reason,
        step=None if at is None else at[0].step,
        trained_fully=other.last is not None and (not rungs or other.last.rung == len(rungs) - 1),
        change=change(member, other),
    )


def _upgrade(members: Sequence[Trial], place: int) -> Change | None:
    here = _psnr(members[place])
    better = (t for t in members[place + 1 :] if _psnr(t) > here)
    dearer = next(better, None)
    return None if dearer is None else change(members[place], dearer)


def _cheaper(members: Sequence[Trial], place: int, cost: str) -> Change | None:
    here = members[place].value(cost)
    below = [t for t in members[:place] if (t.value(cost) or 0.0) < (here or 0.0)]
    return change(members[place], max(below, key=_psnr)) if below else None


def _groups(members: Sequence[Trial]) -> tuple[Group, ...]:
    """Return what cannot be told apart, in PSNR, in latency, and in both at once."""
    kinds: tuple[tuple[tuple[str, ...], Callable[[Trial, Trial], bool]], ...] = (
        (("psnr_db",), _alike_in_psnr),
        (("latency_ms",), _alike_in_latency),
        (("psnr_db", "latency_ms"), lambda a, b: _alike_in_latency(a, b) and _alike_in_psnr(a, b)),
    )
    return tuple(
        Group(figures=figures, numbers=tuple(t.number for t in run))
        for figures, alike in kinds
        for run in _maximal_runs(_sorted_by(members, figures[0]), alike)
    )


def _maximal_runs(ordered: Sequence[Trial], alike: Callable[[Trial, Trial], bool]) -> list[Sequence[Trial]]:
    """Return the longest stretches of two or more in which each is like each, none within another."""
    runs: list[Sequence[Trial]] = []
    reached = 0
    for start in range(len(ordered)):
        end = max(start + 1, reached)  # what the last stretch held is alike without its first, too
        while end < len(ordered) and all(alike(ordered[end], other) for other in ordered[start:end]):
            end += 1
        if end - start > 1 and end > reached:
            runs.append(ordered[start:end])
        reached = max(reached, end)
    return runs


def _alike_in_psnr(one: Trial, other: Trial) -> bool:
    if one.last is None or other.last is None:
        return False
    interval = difference_db(one.last, other.last)
    return interval is not None and interval.holds_zero


def _alike_in_latency(one: Trial, other: Trial) -> bool:
    a = None if one.cost is None else one.cost.latency
    b = None if other.cost is None else other.cost.latency
    return a is not None and b is not None and a.host == b.host and a.low_ms <= b.high_ms and b.low_ms <= a.high_ms


def _sorted_by(members: Sequence[Trial], objective: str) -> list[Trial]:
    known = [t for t in members if t.value(objective) is not None]
    return sorted(known, key=lambda t: (t.value(objective) or 0.0, t.number))


def _caveats(members: Sequence[Trial]) -> tuple[str, ...]:
    if not members:
        return ()
    images = _images(members)
    steps = max((t.last.step for t in members if t.last is not None), default=0)
    texts = [f"PSNR is after {count(steps, 'step')} of training; {LONGER}.", _psnr_caveat(images)]
    if 1 < images < FEW_IMAGES:
        texts.append(
            f"With {images} images the bootstrap intervals are narrower than 95 %: take them as a lower bound."
        )
    latencies = [(t.number, t.cost.latency) for t in members if t.cost is not None and t.cost.latency is not None]
    doubtful = [f"#{number}" for number, latency in latencies if not latency.trusted]
    if doubtful:
        texts.append(f"The latency of {', '.join(doubtful)} is untrusted: the machine was busy. {REMEASURE}")
    if len({latency.host for _, latency in latencies}) > 1:
        texts.append("Latencies were taken on several hosts and do not compare between them.")
    return tuple(texts)


def _psnr_caveat(images: int) -> str:
    if images > 1:
        return (
            f"PSNR intervals cover the choice of the {count(images, 'validation image')}, not training seeds: "
            "another seed moves a candidate as well."
        )
    what = "There is a single validation image" if images else "The records hold no PSNR of single images"
    return f"{what}: no interval for PSNR can be had, and none is shown."


def _leading_cost(study: Study) -> str | None:
    costs = cost_objectives(study)
    return "latency_ms" if "latency_ms" in costs else next(iter(costs), None)


def _images(members: Sequence[Trial]) -> int:
    return max((len(t.last.psnr_per_image_db) for t in members if t.last is not None), default=0)


def _psnr(trial: Trial) -> float:
    value = trial.value("psnr_db")
    return float("-inf") if value is None else value


def _difference(one: Trial, other: Trial, objective: str) -> float | None:
    here, there = one.value(objective), other.value(objective)
    return None if here is None or there is None else _finite(there - here)


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _rate(gain_db: float | None, cost: float | None) -> float | None:
    return None if gain_db is None or cost is None or gain_db * cost <= 0 else gain_db / cost


def _same(one: Scalar, other: Scalar) -> bool:
    return type(one) is type(other) and one == other
