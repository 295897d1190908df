"""What follows from a calibration: which rungs, how many go on, which rate, and whether to trust it; in plain words."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np
from numpy.typing import NDArray

from search.calibration.fitting import FAMILIES, Trial, check_rungs, compare_families, fit_predictor, left_out
from search.calibration.record import Curve, Record
from search.calibration.statistics import (
    TOP_SHARE,
    Agreement,
    Ordering,
    Table,
    ordering,
    read_agreement,
    table_of,
)
from search.counts import count
from search.pareto import Floats
from search.prediction import Predictor

FIRST_TAU = 0.5
"""What the first rung should reach."""
MIDDLE_TAU = 0.7
"""What the second one should reach."""
SURVIVAL = 0.9
"""The share of the best quarter that should survive the first rung."""
SAME_TAU = 0.05
"""Taus nearer than this are told as the same."""
KEEPS = (0.25, 0.3, 0.35, 0.4, 0.5, 0.6, 0.75)
"""Shares that are considered."""
RANKINGS = ("within_strata", "value", "extrapolated")
"""What promotions can rank by; of equals the earlier is recommended."""
COSTS = "costs"
"""The family that looks at no training; it is the measure of the others, and never chosen."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RateRow:
    """What one learning rate did in the range test.

    Args:
        learning_rate: Constant after the warm-up.
        steps: Where it was looked at.
        psnr_db: Mean over the candidates, averaged weights, at each step.
        candidates: How many.
    """

    learning_rate: float
    steps: tuple[int, ...]
    psnr_db: tuple[float, ...]
    candidates: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Survival:
    """How many of the best a rung lets through.

    Args:
        step: The rung.
        shares: For each of `RANKINGS`, the share of the quarter that ends best that goes on.
    """

    step: int
    shares: Mapping[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Findings:
    """A calibration, read to the end.

    Args:
        agreement: Of values and costs with the end.
        rungs: The experiment's.
        families: How each family of features predicts at the experiment's rungs, candidates left out.
        family: The chosen one.
        recommended_rungs: Steps of the ladder; the experiment's where they are as good.
        recommended: The predictions' order at each of these but the last.
        keep_asked: The experiment's.
        survivals: At the experiment's rungs and the recommended ones, with the experiment's `keep`.
        ranking: What promotions had best rank by: one of `RANKINGS`.
        keep: The smallest share that lets nine tenths of the best quarter through the first recommended rung.
        course: The predictions' order at each step of the ladder that has one at half of it or less.
        rates: The range test; empty without one.
        predictor: Fitted for the experiment's rungs.
        words: The verdict.
    """

    agreement: Agreement
    rungs: tuple[int, ...]
    families: tuple[Trial, ...]
    family: str
    recommended_rungs: tuple[int, ...]
    recommended: tuple[Ordering, ...]
    keep_asked: float
    survivals: tuple[Survival, ...]
    ranking: str
    keep: float
    course: tuple[tuple[int, Ordering], ...]
    rates: tuple[RateRow, ...]
    predictor: Predictor
    words: tuple[str, ...]


def read_findings(record: Record, rungs: Sequence[int], keep: float) -> Findings:
    """Read a calibration to the end.

    Args:
        record: With all its curves, or as many as there are.
        rungs: The experiment's, among the steps of the ladder.
        keep: The experiment's.

    Raises:
        InputError: If a rung is no step of the ladder.
        ValueError: If too few candidates have two curves.
    """
    table = table_of(record)
    check_rungs(table, rungs)
    agreement = read_agreement(table)
    families = tuple(compare_families(table, rungs))
    family = choose_family(families)
    recommended = recommend_rungs(table, family, _floor(agreement, families), tuple(rungs))
    orders = tuple(ordering(table, left_out(table, recommended, rung, family)) for rung in range(len(recommended) - 1))
    shown = [(tuple(rungs), i) for i in range(len(rungs) - 1)]
    shown += [(recommended, i) for i in range(len(recommended) - 1) if recommended[i] not in rungs]
    survivals = tuple(sorted((survival(table, r, i, family, keep) for r, i in shown), key=lambda s: s.step))
    counted = [s for s in survivals if s.step in recommended]
    ranking = max(RANKINGS, key=lambda name: round(sum(s.shares[name] for s in counted), 6))
    rates = range_table(record.range_test)
    course = tuple(
        (step, ordering(table, left_out(table, (before, step, table.steps[-1]), 1, family)))
        for before, step in _halves(table.steps)
    )
    facts = {
        "tau_of_value": {str(s): _rounded(v.tau) for s, v in zip(agreement.steps, agreement.values, strict=True)},
        "tau_of_params": _rounded(agreement.params.tau),
        "tau_of_macs": _rounded(agreement.macs.tau),
        "tau_between_seeds": _rounded(agreement.ceiling),
        "seed_sd_db": round(agreement.seed_sd_db, 4),
        "spread_db": round(agreement.spread_db, 4),
    }
    predictor = fit_predictor(record, table, rungs, family, facts)
    findings = Findings(
        agreement=agreement,
        rungs=tuple(rungs),
        families=families,
        family=family,
        recommended_rungs=recommended,
        recommended=orders,
        keep_asked=keep,
        survivals=survivals,
        ranking=ranking,
        keep=least_keep(table, recommended, family, ranking),
        course=course,
        rates=rates,
        predictor=predictor,
        words=(),
    )
    return dataclasses.replace(findings, words=tuple(_words(findings, record)))


def choose_family(trials: Sequence[Trial]) -> str:
    """Return the family with the best mean tau over the rungs; of equals, the one with the fewest features."""
    means = {
        name: float(np.mean([t.ordering.tau.value for t in trials if t.family == name]))
        for name in FAMILIES
        if name != COSTS
    }
    return max(means, key=lambda name: (round(means[name], 6), -len(FAMILIES[name])))


def recommend_rungs(table: Table, family: str, floor: float, present: tuple[int, ...]) -> tuple[int, ...]:
    """Return the present rungs where they do, else the earliest steps that do; the last one stays.

    A first rung does with a tau of 0.5, a second one, at twice its steps or later, with 0.7; both must pass `floor`,
    what costs alone reach. Where no step does, the best one is taken.
    """

    def tau(rungs: tuple[int, ...], rung: int) -> float:
        return best_tau(table, (*rungs, table.steps[-1]), rung, family)

    wanted = [FIRST_TAU, *[MIDDLE_TAU] * (len(present) - 2)]
    good = [tau(present[:-1], rung) >= max(wanted[rung], floor) for rung in range(len(present) - 1)]
    if all(good):
        return present
    chosen: tuple[int, ...] = ()
    for rung in range(len(present) - 1):
        least = 2 * chosen[-1] if chosen else table.steps[0]
        steps = [s for s in table.steps[:-1] if least <= s <= table.steps[-1] // (len(present) - 1 - rung)]
        if not steps:
            break
        taus = {s: tau((*chosen, s), rung) for s in steps}
        enough = [s for s in steps if taus[s] >= max(wanted[rung], floor)]
        chosen = (*chosen, enough[0] if enough else max(steps, key=lambda s: taus[s]))
    return (*chosen, table.steps[-1])


def best_tau(table: Table, rungs: Sequence[int], rung: int, family: str) -> float:
    """Return the tau of a rung's value, or of the predictions on candidates left out where that is higher.

    Each counts as the lower of its two figures, against the mean over the seeds and across seeds.
    """
    value = ordering(table, table.psnr_db[:, :, table.steps.index(rungs[rung])])
    predicted = ordering(table, left_out(table, rungs, rung, family))
    return max(min(order.tau.value, order.tau_across.value) for order in (value, predicted))


def survival(table: Table, rungs: Sequence[int], rung: int, family: str, keep: float) -> Survival:
    """Return how many of the best go on from a rung with a `keep`, by each ranking; predictions are left-out ones."""
    values = table.psnr_db[:, :, table.steps.index(rungs[rung])]
    scores = {"value": values, "within_strata": values, "extrapolated": left_out(table, rungs, rung, family)}
    best = np.argsort(-table.reference, kind="stable")[: max(1, round(TOP_SHARE * len(table.reference)))]
    shares = {
        name: float(np.mean([np.isin(best, _kept(row, _groups(table, name), keep)).mean() for row in scores[name]]))
        for name in RANKINGS
    }
    return Survival(step=rungs[rung], shares=shares)


def least_keep(table: Table, rungs: Sequence[int], family: str, ranking: str) -> float:
    """Return the least share of `KEEPS` with which `SURVIVAL` of the best quarter pass the first rung; 1 if none."""
    passing = [k for k in KEEPS if survival(table, rungs, 0, family, k).shares[ranking] >= SURVIVAL]
    return min(passing, default=1.0)


def _groups(table: Table, ranking: str) -> NDArray[np.int64]:
    return np.array(table.levels) if ranking == "within_strata" else np.zeros(len(table.levels), dtype=np.int64)


def _kept(scores: Floats, groups: NDArray[np.int64], keep: float) -> list[int]:
    """Return the best share of each group, rounded up."""
    kept: list[int] = []
    for group in np.unique(groups):
        members = np.flatnonzero(groups == group)
        order = members[np.argsort(-scores[members], kind="stable")]
        kept += order[: math.ceil(keep * len(members))].tolist()
    return kept


def range_table(curves: Sequence[Curve]) -> tuple[RateRow, ...]:
    """Return the range test by rising rate; a rate at which a candidate diverged is left out."""
    by_rate = {
        rate: {c.candidate: c for c in members}
        for rate, members in groupby(sorted(curves, key=lambda c: c.learning_rate), key=lambda c: c.learning_rate)
    }
    wanted = {curve.candidate for curve in curves}
    return tuple(
        RateRow(
            learning_rate=rate,
            steps=next(iter(members.values())).steps,
            psnr_db=tuple(np.mean([c.psnr_db for c in members.values()], axis=0).tolist()),
            candidates=len(members),
        )
        for rate, members in by_rate.items()
        if set(members) == wanted
    )


def best_rate(rates: Sequence[RateRow]) -> RateRow | None:
    """Return the rate with the highest mean PSNR at its last step; None without a range test."""
    return max(rates, key=lambda row: row.psnr_db[-1], default=None)


def findings_to_json(findings: Findings) -> dict[str, Any]:
    """Return the findings as plain values; the predictor has a file of its own."""
    fields = dataclasses.asdict(findings)
    del fields["predictor"]
    return fields


def _floor(agreement: Agreement, families: Sequence[Trial]) -> float:
    """Return what is reached without training: by parameters, by MACs, or by what is fitted to both and the levels."""
    fitted = [t.ordering.tau.value for t in families if t.family == COSTS]
    return max(agreement.params.tau.value, agreement.macs.tau.value, *fitted)


def _halves(steps: Sequence[int]) -> list[tuple[int, int]]:
    """Pair each step but the last with the latest one at half of it or earlier, where there is one."""
    return [(max(s for s in steps if s <= step / 2), step) for step in steps[:-1] if steps[0] <= step / 2]


def _rounded(estimate: Any) -> list[float]:
    return [round(estimate.value, 3), round(estimate.low, 3), round(estimate.high, 3)]


def _words(findings: Findings, record: Record) -> list[str]:
    agreement, floor = findings.agreement, _floor(findings.agreement, findings.families)
    fitted = next(t.ordering.tau.value for t in findings.families if t.family == COSTS)
    words = [
        f"Without training, parameters order the candidates with tau {agreement.params.tau.value:.2f}, MACs with "
        f"{agreement.macs.tau.value:.2f}, a fit to both and the levels with {fitted:.2f} on candidates left out; two "
        f"seeds of the same networks agree with {agreement.ceiling.value:.2f}.",
    ]
    value = {s: v.tau.value for s, v in zip(agreement.steps, agreement.values, strict=True)}
    for rung, step in enumerate(findings.rungs[:-1]):
        predicted = findings.predictor.models[rung].tau
        words.append(
            f"Rung {step}: the value orders with tau {value[step]:.2f}, the predictor ({findings.family}) with "
            f"{predicted:.2f} on candidates left out. {_judged(max(value[step], predicted), floor)}"
        )
    if not any(max(value[s], m.tau) > floor for s, m in zip(findings.rungs, findings.predictor.models, strict=False)):
        words.append(
            "WARNING: no rung but the last beats costs alone. Training to the early rungs tells nothing that "
            "counting does not: begin with a later rung, or with one rung only."
        )
    words.append(_recommended(findings))
    best = best_rate(findings.rates)
    if best is not None:
        rate = record.conditions["proxy"]["learning_rate"]
        verdict = "as it is" if best.learning_rate == rate else f"the experiment has {rate:g}"
        words.append(
            f"Rate: {best.learning_rate:g} reached most, {best.psnr_db[-1]:.2f} dB after "
            f"{count(best.steps[-1], 'step')} (mean of {count(best.candidates, 'candidate')}, one seed); {verdict}."
        )
    words.append(_schedule(agreement, findings.rungs))
    return words


def _judged(tau: float, floor: float) -> str:
    if tau > floor:
        return f"The better one passes costs alone by {tau - floor:.2f}."
    return "Neither passes costs alone."


def _recommended(findings: Findings) -> str:
    rungs = findings.recommended_rungs
    value = dict(zip(findings.agreement.steps, findings.agreement.values, strict=True))
    taus = "; ".join(
        f"at {step} the value orders with tau {value[step].tau.value:.2f} ({value[step].tau_across.value:.2f} across "
        f"seeds), the predictor with {order.tau.value:.2f} ({order.tau_across.value:.2f})"
        for step, order in zip(rungs, findings.recommended, strict=False)
    )
    same = "as they are" if rungs == findings.rungs else f"instead of {list(findings.rungs)}"
    caveat = "" if rungs == findings.rungs else " Chosen on these candidates, so it flatters: a step later is safer."
    through = " and ".join(f"{s.shares[findings.ranking]:.0%}" for s in findings.survivals if s.step in rungs)
    return (
        f"Recommended: rungs {list(rungs)} ({same}) with rank_by: {findings.ranking}: {taus}. With keep "
        f"{findings.keep_asked:g} they let {through} of the best quarter go on; the least keep that lets "
        f"{SURVIVAL:.0%} through the first rung is {findings.keep:g}.{caveat}"
    )


def _schedule(agreement: Agreement, rungs: Sequence[int]) -> str:
    early = [agreement.steps.index(step) for step in rungs[:-1]]
    averaged = float(np.mean([agreement.values[i].tau.value for i in early])) if early else 1.0
    raw = float(np.mean([agreement.raw_values[i].tau.value for i in early])) if early else 1.0
    better = "the averaged weights serve" if averaged > raw else "the weights themselves serve"
    judged = "no difference" if abs(averaged - raw) < SAME_TAU else f"{better} better here"
    return (
        "Schedule: constant rate, so that a rung can be gone on from; over the early rungs the averaged weights order "
        f"with a mean tau of {averaged:.2f}, the weights themselves with {raw:.2f}: {judged}."
    )
