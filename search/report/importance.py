"""What matters: how much each dimension of the space has to do with being among the best in one figure.

PED-ANOVA (Watanabe, Bansal, Hutter, "PED-ANOVA: Efficiently Quantifying Hyperparameter Importance in Arbitrary
Subspaces", IJCAI 2023, arXiv 2304.10255), in the form for conditional spaces (arXiv 2601.20800), as Optuna has it:
how far the values among the best candidates are spread otherwise than among all. A dimension that counts only under
another one is judged among the candidates in which it is active; that it is active at all is put down to its parent.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.importance import PedAnovaImportanceEvaluator

from search.report.tables import dimension_names
from search.report.words import quality_objective
from search.types import OBJECTIVES, Scalar, Study, Trial

T = TypeVar("T")

ENOUGH = 16
"""Fewer candidates than this show nothing but chance."""
_BEST, _BEST_AT_LEAST = 0.1, 5
"""The best tenth counts as best, and five candidates at least: Optuna's advice."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Importance:
    """What one figure depends on.

    Args:
        objective: A name in `search.types.OBJECTIVES`.
        candidates: How many were looked at.
        best: How many of them count as best.
        shares: For each dimension with several values its share of all importance; they sum to 1, or are all 0.
    """

    objective: str
    candidates: int
    best: int
    shares: Mapping[str, float]


def importances(study: Study) -> list[Importance]:
    """Return what the run's quality and each of its costs depend on; objectives with too few candidates are left out.

    The quality is that at the first rung: every trained candidate has it, at equal steps, while only the promoted ones
    have the last. A cost is known of more candidates, those over a limit among them.
    """
    quality = quality_objective(study)
    names = (quality, *(name for name in study.objectives if name != quality))
    found = [_importance(study, name) for name in names if name in OBJECTIVES]
    return [importance for importance in found if importance is not None]


def first_quality(trial: Trial, objective: str) -> float | None:
    """Return a quality at the first rung, where the candidate was trained."""
    return float(getattr(trial.measurements[0], objective)) if trial.measurements else None


def _importance(study: Study, objective: str) -> Importance | None:
    value = first_quality if OBJECTIVES[objective].maximise else Trial.value
    known = [(trial, figure) for trial in study.trials if (figure := value(trial, objective)) is not None]
    if len(known) < ENOUGH:
        return None
    best = max(_BEST, _BEST_AT_LEAST / len(known))
    shares = _shares(study, known, best, maximise=OBJECTIVES[objective].maximise)
    return Importance(objective=objective, candidates=len(known), best=round(best * len(known)), shares=shares)


def _shares(study: Study, known: Sequence[tuple[Trial, float]], best: float, *, maximise: bool) -> dict[str, float]:
    choices = {name: _choices(known, name) for name in dimension_names(study)}
    spread = {name: CategoricalDistribution(values) for name, values in choices.items() if len(values) > 1}
    optuna_study = _quietly(lambda: _optuna_study(known, spread, maximise=maximise))
    evaluator = PedAnovaImportanceEvaluator(target_quantile=best)
    raw = _quietly(lambda: evaluator.evaluate(optuna_study)) if spread else {}
    total = sum(raw.values())
    return {name: raw.get(name, 0.0) / total if total else 0.0 for name in spread}


def _choices(known: Sequence[tuple[Trial, float]], name: str) -> list[str]:
    """Return the values of a dimension as texts, for `True`, `1` and `1.0` are three of them."""
    return list(dict.fromkeys(_text(t.genotype[name]) for t, _ in known if name in t.genotype.values))


def _text(value: Scalar) -> str:
    return json.dumps(value)


def _optuna_study(
    known: Sequence[tuple[Trial, float]], spread: Mapping[str, BaseDistribution], *, maximise: bool
) -> optuna.Study:
    """Return the candidates as a study in memory: only active dimensions, one figure."""
    study = optuna.create_study(direction="maximize" if maximise else "minimize")
    for trial, figure in known:
        active = {name: _text(value) for name, value in trial.genotype.values.items() if name in spread}
        distributions = {name: spread[name] for name in active}
        study.add_trial(optuna.create_trial(params=active, distributions=distributions, value=figure))
    return study


def _quietly(work: Callable[[], T]) -> T:
    """Do something without Optuna's remarks: on small groups (the page says how many there are) and on new parts."""
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return work()
    finally:
        optuna.logging.set_verbosity(verbosity)
