"""Between a sampler and Optuna: every proposal is asked through the study, so that it is recorded like any other."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, IntDistribution
from optuna.samplers import BaseSampler
from optuna.trial import FrozenTrial, Trial

from search.space import Parameter, SearchSpace
from search.types import Genotype, Scalar


def propose(study: optuna.Study, space: SearchSpace) -> tuple[Trial, Genotype]:
    """Ask the study's sampler for a point: Optuna's record of it, and the genotype."""
    trial = study.ask()
    return trial, space.grow(lambda parameter: suggest(trial, parameter))


def suggest(trial: Trial, parameter: Parameter) -> Scalar:
    """Let Optuna decide one parameter; one with a single choice is not asked about."""
    if parameter.is_fixed:
        return parameter.choices[0]
    distribution = distribution_of(parameter)
    if isinstance(distribution, IntDistribution):
        return trial.suggest_int(parameter.name, distribution.low, distribution.high, step=distribution.step)
    chosen = trial.suggest_categorical(parameter.name, parameter.choices)
    return next(c for c in parameter.choices if type(c) is type(chosen) and c == chosen)


def distribution_of(parameter: Parameter) -> BaseDistribution:
    """Return Optuna's description of a parameter: evenly spaced whole numbers are ordered, the rest are choices."""
    choices = parameter.choices
    if all(type(c) is int for c in choices):
        steps = {int(b) - int(a) for a, b in pairwise(choices)}
        if len(steps) == 1 and min(steps) > 0:
            return IntDistribution(int(choices[0]), int(choices[-1]), step=steps.pop())
    return CategoricalDistribution(choices)


class GivenPoint(BaseSampler):
    """Answers with one point that was decided beforehand, so that Optuna records it like its own."""

    def __init__(self, point: Genotype) -> None:
        self._point = point

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """Return nothing: every parameter is answered on its own."""
        return {}

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: Mapping[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Return nothing: every parameter is answered on its own."""
        return {}

    def sample_independent(
        self,
        study: optuna.Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        """Return the point's value of the parameter."""
        return self._point[param_name]
