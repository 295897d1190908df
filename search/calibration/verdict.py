"""What follows from a calibration: which rungs, how many go on, which rate, and whether to trust it; in plain words."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np

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
from search.pareto import Floats
from search.prediction import Predictor

FIRST_TAU = 0.5
"""What the first rung should reach."""
MIDDLE_TAU = 0.7
"""What the second one should reach."""
SURVIVAL = 0.9
"""The share of the best quarter that should survive the first rung."""
KEEPS = (0.25, 0.3, 0.35, 0.4, 0.5, 0.6, 0.75)
"""Shares that are considered."""
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
class Findings:
    """A calibration, read to the end.

    Args:
        agreement: Of values and costs with the end.
        rungs: The experiment's.
        families: How each family of features predicts at the experiment's rungs, candidates left out.
        family: The chosen one.
        recommended_rungs: Steps of the ladder; the experiment's where they are as good.
        recommended: The predictions' order at each of these but the last.
        keep: The smallest share that lets nine tenths of the best quarter through the first rung.
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
    keep: float
    course: tuple[tuple[int, Ordering], ...]
    rates: tuple[RateRow, ...]
    predictor: Predictor
    words: tuple[str, ...]


def read_findings(record: Record, rungs: Sequence[int]) -> Findings:
    """Read a calibration to the end.

    Args:
        record: With all its curves, or as many as there are.
        rungs: The experiment's, among the steps of the ladder.

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
    keep = least_keep(left_out(table, recommended, 0, family), table.reference) if orders else 1.0
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
        keep=keep,
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

    A first rung does with a tau of 0.5 for candidates left out, a second one, at twice its steps or later, with 0.7;
    both must pass `floor`, what costs alone reach. Where no step does, the best one is taken.
    """

    def tau(rungs: tuple[int, ...], rung: int) -> float:
        return ordering(table, left_out(table, (*rungs, table.steps[-1]), rung, family)).tau.value

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


def least_keep(scores: Floats, reference: Floats) -> float:
    """Return the least share of `KEEPS` with which `SURVIVAL` of the best quarter go on, on average over seeds."""
    best = np.argsort(-reference, kind="stable")[: max(1, round(TOP_SHARE * len(reference)))]
    for keep in KEEPS:
        quota = math.ceil(keep * len(reference))
        through = [np.isin(best, np.argsort(-row, kind="stable")[:quota]).mean() for row in scores]
        if float(np.mean(through)) >= SURVIVAL:
            return keep
    return 1.0


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
            f"Rate: {best.learning_rate:g} reached most, {best.psnr_db[-1]:.2f} dB after {best.steps[-1]} steps "
            f"(mean of {best.candidates} candidates, one seed); {verdict}."
        )
    words.append(_schedule(agreement, findings.rungs))
    return words


def _judged(tau: float, floor: float) -> str:
    if tau > floor:
        return f"The better one passes costs alone by {tau - floor:.2f}."
    return "Neither passes costs alone."


def _recommended(findings: Findings) -> str:
    rungs = list(findings.recommended_rungs)
    taus = " and ".join(f"{o.tau.value:.2f}" for o in findings.recommended)
    ranked = "rank_by: extrapolated" if findings.family != "value" else "rank_by: value"
    same = "as they are" if findings.recommended_rungs == findings.rungs else f"instead of {list(findings.rungs)}"
    return (
        f"Recommended: rungs {rungs} ({same}) with {ranked}, tau {taus} on candidates left out; keep "
        f"{findings.keep:g}, the least share that lets {SURVIVAL:.0%} of the best quarter through the first rung."
    )


def _schedule(agreement: Agreement, rungs: Sequence[int]) -> str:
    early = [agreement.steps.index(step) for step in rungs[:-1]]
    averaged = float(np.mean([agreement.values[i].tau.value for i in early])) if early else 1.0
    raw = float(np.mean([agreement.raw_values[i].tau.value for i in early])) if early else 1.0
    better = "averaged weights" if averaged >= raw else "the weights themselves"
    return (
        "Schedule: constant rate, so that a rung can be gone on from; over the early rungs the averaged weights order "
        f"with a mean tau of {averaged:.2f}, the weights themselves with {raw:.2f}: {better} serve better here."
    )
