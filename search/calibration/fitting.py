"""Fitting what predicts the end of a training from its beginning, and how well that does on candidates left out.

Small ridge regressions by scikit-learn, one for each rung. What is reported is always leave-one-candidate-out: all
seeds of a candidate are predicted by a model that saw none of them, neither in its features' scales nor in the choice
of the ridge's strength.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from sklearn.linear_model import Ridge
from sklearn.preprocessing import StandardScaler

from search.calibration.record import Record
from search.calibration.statistics import Ordering, Table, ordering
from search.counts import count
from search.pareto import Floats
from search.prediction import LEVELS, Predictor, RungModel, features_at
from search.types import InputError

ALPHA = 1.0
"""Strength of the ridge, for standardised features."""

FAMILIES: Mapping[str, tuple[str, ...]] = {
    "costs": ("log2_params", "log2_macs", LEVELS),
    "value": ("psnr_db",),
    "value, levels": ("psnr_db", LEVELS),
    "curve": ("psnr_db", "gain_db"),
    "value, costs": ("psnr_db", "log2_params", "log2_macs"),
    "curve, costs": ("psnr_db", "gain_db", "log2_params", "log2_macs"),
    "curve, costs, levels": ("psnr_db", "gain_db", "log2_params", "log2_macs", LEVELS),
}
"""What is tried as features, by name; `levels=` stands for one feature for each number of levels."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """How one family of features did at one rung.

    Args:
        family: A name in `FAMILIES`.
        step: The rung.
        ordering: Of the predictions for candidates that were left out.
    """

    family: str
    step: int
    ordering: Ordering


def features_of(table: Table, rungs: Sequence[int], rung: int) -> list[list[dict[str, float]]]:
    """Return what was known at a rung, for each seed and candidate."""
    places = [table.steps.index(step) for step in rungs[: rung + 1]]
    return [
        [
            features_at(
                [(table.steps[p], float(row[p])) for p in places],
                params_m=candidate.params_m,
                macs_g=candidate.macs_g,
                levels=candidate.levels,
            )
            for candidate, row in zip(table.candidates, curves, strict=True)
        ]
        for curves in table.psnr_db
    ]


def left_out(table: Table, rungs: Sequence[int], rung: int, family: str) -> Floats:
    """Return predictions in dB for each seed and candidate, by models that never saw the candidate."""
    known = features_of(table, rungs, rung)
    names = _names(table, family, rung)
    x = np.array([[[f.get(n, 0.0) for n in names] for f in row] for row in known])
    predicted = np.empty(x.shape[:2])
    for candidate in range(x.shape[1]):
        others = np.arange(x.shape[1]) != candidate
        model = _fit(x[:, others], table.last[:, others])
        predicted[:, candidate] = model.predict(x[:, candidate])
    return predicted


def compare_families(table: Table, rungs: Sequence[int]) -> list[Trial]:
    """Return how each family does at each rung but the last."""
    return [
        Trial(family=family, step=rungs[rung], ordering=ordering(table, left_out(table, rungs, rung, family)))
        for rung in range(len(rungs) - 1)
        for family in FAMILIES
    ]


def fit_predictor(
    record: Record, table: Table, rungs: Sequence[int], family: str, facts: Mapping[str, Any]
) -> Predictor:
    """Fit one family at each rung but the last, on all candidates.

    Args:
        record: Where the curves are from.
        table: Its curves.
        rungs: Steps of the ladder; the last must be its last.
        family: A name in `FAMILIES`.
        facts: To be kept beside it.
    """
    check_rungs(table, rungs)
    models = []
    for rung, step in enumerate(rungs[:-1]):
        names = _names(table, family, rung)
        x = np.array([[[f.get(n, 0.0) for n in names] for f in row] for row in features_of(table, rungs, rung)])
        fitted = _fit(x, table.last)
        tau = ordering(table, left_out(table, rungs, rung, family)).tau
        models.append(_model(fitted, step, names, (tau.value, tau.low, tau.high)))
    conditions = record.conditions
    return Predictor(
        name=record.name,
        space=record.space,
        task={k: v for k, v in conditions["task"].items() if k != "data"},
        proxy={k: v for k, v in conditions["proxy"].items() if k != "data_seed"},
        rungs=tuple(rungs),
        fitted_on=_fitted_on(record, table),
        models=tuple(models),
        facts=dict(facts),
    )


def check_rungs(table: Table, rungs: Sequence[int]) -> None:
    """Refuse rungs that the ladder lacks.

    Raises:
        InputError: If one is missing, or the last one is not the ladder's.
    """
    missing = [step for step in rungs if step not in table.steps]
    if missing or rungs[-1] != table.steps[-1]:
        raise InputError(
            f"rungs {list(rungs)}: not steps of the ladder {list(table.steps)} that end with its last.\n"
            "  Choose among them with --rungs, or train another ladder with --steps into another folder."
        )


def _names(table: Table, family: str, rung: int) -> tuple[str, ...]:
    """Return the features of a family at a rung: the first has no gain, and each number of levels is one."""
    names: list[str] = []
    for name in FAMILIES[family]:
        if name == LEVELS:
            names += [f"{LEVELS}{level}" for level in sorted(set(table.levels))]
        elif name != "gain_db" or rung > 0:
            names.append(name)
    return tuple(names)


class _Fitted(NamedTuple):
    """A ridge and the scaling of its features."""

    scaler: StandardScaler
    ridge: Ridge

    def predict(self, x: Floats) -> Floats:
        return self.ridge.predict(self.scaler.transform(x))


def _fit(x: Floats, y: Floats) -> _Fitted:
    """Fit on [seeds, candidates, features] and [seeds, candidates]; the target is the mean over seeds."""
    rows = x.reshape(-1, x.shape[-1])
    target = np.broadcast_to(y.mean(axis=0), y.shape).reshape(-1)
    scaler = StandardScaler().fit(rows)
    return _Fitted(scaler, Ridge(alpha=ALPHA).fit(scaler.transform(rows), target))


def _model(fitted: _Fitted, step: int, names: tuple[str, ...], tau: tuple[float, float, float]) -> RungModel:
    scaler: Any = fitted.scaler
    ridge: Any = fitted.ridge
    return RungModel(
        step=step,
        features=names,
        means=_plain(scaler.mean_),
        scales=_plain(scaler.scale_),
        coefficients=_plain(ridge.coef_),
        intercept=float(f"{ridge.intercept_:.8g}"),
        alpha=ALPHA,
        tau=round(tau[0], 4),
        tau_low=round(tau[1], 4),
        tau_high=round(tau[2], 4),
    )


def _plain(values: Floats) -> tuple[float, ...]:
    return tuple(float(f"{v:.8g}") for v in values)


def _fitted_on(record: Record, table: Table) -> str:
    baseline = record.conditions["baseline"]
    limits = ", ".join(f"{k} <= {v:g}" for k, v in record.conditions["limits"].items()) or "no limits"
    return (
        f"{count(len(table.candidates), 'candidate')} × {count(len(table.last), 'seed')} ({limits}); "
        f"{count(baseline['train_images'], 'photograph')} to train on, "
        f"the centres ({record.conditions['crop_px']} px) of {', '.join(baseline['images'])} to look at; "
        f"{baseline['host']}"
    )
