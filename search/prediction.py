"""From what a short training showed to what a long one would show: a small linear model that anyone can read.

One ridge regression (Hoerl and Kennard, 1970) for each rung but the last, on standardised features of the learning
curve so far and of costs known beforehand. `hfir-search calibrate` fits it; a space names its file, and promotions
may rank by it. Applying it takes a dot product, so nothing but the standard library is needed here.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from search.types import InputError, Trial

SCHEMA = 1
FILE = "predictor.json"
"""Its name in the folder of a calibration."""
FEATURES = ("psnr_db", "gain_db", "log2_params", "log2_macs")
"""What `features_at` gives, beside the levels."""
LEVELS = "levels="
"""Features of this name and a number are 1 for networks of so many levels, 0 for others."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RungModel:
    """What predicts the PSNR at the last rung from one rung.

    `predicted = intercept + sum(coefficient * (feature - mean) / scale)`, in dB.

    Args:
        step: The rung.
        features: Names, as `features_at` gives them.
        means: Of each feature over the candidates that it was fitted on.
        scales: Their standard deviations, > 0.
        coefficients: In dB for a standard deviation.
        intercept: In dB.
        alpha: Strength of the ridge, chosen by leave-one-out on the training candidates.
        tau: Kendall's tau of predictions of candidates left out with what they reached.
        tau_low: Lower end of its 95 % interval, by bootstrap over candidates.
        tau_high: Upper end.
    """

    step: int
    features: tuple[str, ...]
    means: tuple[float, ...]
    scales: tuple[float, ...]
    coefficients: tuple[float, ...]
    intercept: float
    alpha: float
    tau: float
    tau_low: float
    tau_high: float

    def predict(self, features: Mapping[str, float]) -> float:
        """Return the predicted PSNR in dB."""
        rows = zip(self.features, self.means, self.scales, self.coefficients, strict=True)
        return self.intercept + sum(c * (features.get(name, 0.0) - m) / s for name, m, s, c in rows)


@dataclass(frozen=True, slots=True, kw_only=True)
class Predictor:
    """A calibrated ranking of one space under one proxy.

    Args:
        name: Of the experiment that was calibrated.
        space: Hash of its space.
        task: Its task, as resolved, without its data.
        proxy: What of the proxy decides a curve: batch, patch, rate, warm-up, loss, supervision.
        rungs: Steps that it was fitted for; the last one is what it predicts.
        fitted_on: Candidates and seeds, limits, photographs: in words.
        models: One for each rung but the last.
        facts: What else the calibration found: tau of the value itself, of costs alone, between seeds.
    """

    name: str
    space: str
    task: Mapping[str, Any]
    proxy: Mapping[str, Any]
    rungs: tuple[int, ...]
    fitted_on: str
    models: tuple[RungModel, ...]
    facts: Mapping[str, Any]

    @property
    def levels(self) -> frozenset[int]:
        """The numbers of levels that it has seen."""
        names = [name for model in self.models for name in model.features if name.startswith(LEVELS)]
        return frozenset(int(name.removeprefix(LEVELS)) for name in names)

    def predict(self, trial: Trial, rung: int) -> float:
        """Return the PSNR in dB that a trial is expected to reach at the last rung; known there, it is that itself.

        Args:
            trial: Measured at the rung, and counted.
            rung: Index into `rungs`.

        Raises:
            ValueError: If the trial lacks one of these.
        """
        if rung == len(self.rungs) - 1:
            return trial.measurements[rung].psnr_db
        if trial.cost is None or len(trial.measurements) <= rung:
            raise ValueError(f"trial {trial.number} has no cost, or was not measured at rung {rung}.")
        seen = [(m.step, m.psnr_db) for m in trial.measurements[: rung + 1]]
        features = features_at(
            seen, params_m=trial.cost.params_m, macs_g=trial.cost.macs_g, levels=int(trial.genotype["levels"])
        )
        return self.models[rung].predict(features)


def features_at(seen: Sequence[tuple[int, float]], *, params_m: float, macs_g: float, levels: int) -> dict[str, float]:
    """Return what a prediction may look at.

    Args:
        seen: Steps of the rungs so far, and the PSNR in dB at each; at least one.
        params_m: Parameters of the deploy form, in millions.
        macs_g: Multiply-accumulates of the deploy form, in 1e9.
        levels: Of the network.

    Returns:
        `psnr_db` at the last rung seen; `gain_db`, by how much it rose for each doubling of steps since the rung
        before (absent at the first); `log2_params` and `log2_macs`; and 1 under `levels=N`.
    """
    (step, value) = seen[-1]
    features = {
        "psnr_db": value,
        "log2_params": math.log2(params_m),
        "log2_macs": math.log2(macs_g),
        f"{LEVELS}{levels}": 1.0,
    }
    if len(seen) > 1:
        before, earlier = seen[-2]
        features["gain_db"] = (value - earlier) / math.log2(step / before)
    return features


def predictor_to_json(predictor: Predictor) -> dict[str, Any]:
    """Return a predictor as plain values, as its file holds them."""
    return {"schema": SCHEMA, **dataclasses.asdict(predictor)}


def read_predictor(path: Path) -> Predictor:
    """Read a predictor's file.

    Raises:
        InputError: If it is not there, or holds something else.
    """
    try:
        fields = json.loads(path.read_text(encoding="utf-8"))
        if fields.pop("schema") != SCHEMA:
            raise ValueError("it has another schema")
        models = tuple(_model(m) for m in fields.pop("models"))
        predictor = Predictor(**{**fields, "rungs": tuple(fields["rungs"]), "models": models})
        if [m.step for m in models] != list(predictor.rungs[:-1]):
            raise ValueError("its models do not stand for its rungs")
        return predictor
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f"{path}: not a predictor of schema {SCHEMA} ({error}).\n"
            "  `hfir-search calibrate FILE` writes one, predictor.json in its folder."
        ) from error


def _model(fields: Mapping[str, Any]) -> RungModel:
    values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in fields.items()}
    model = RungModel(**values)
    if not len(model.features) == len(model.means) == len(model.scales) == len(model.coefficients):
        raise ValueError("features, means, scales and coefficients differ in number")
    unknown = [n for n in model.features if n not in FEATURES and not n.startswith(LEVELS)]
    if unknown:
        raise ValueError(f"there is no feature {unknown[0]}")
    if min(model.scales, default=1.0) <= 0:
        raise ValueError("a scale is not above 0")
    return model
