"""Where proposals come from: Optuna's samplers, and local search around the front.

A sampler is built anew for every proposal, seeded by the run's seed and the proposal's index. Nothing is pickled, and a
run that was stopped proposes what the unbroken run would have proposed.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, IntDistribution
from optuna.samplers import BaseSampler, NSGAIISampler, TPESampler
from optuna.trial import FrozenTrial, Trial

from search.space import Parameter, SearchSpace
from search.types import Genotype, Scalar

WARM_UP = 12
"""Proposals that are drawn at random before any model of the space is trusted."""


def proposal_seed(run_seed: int, index: int, purpose: int = 0) -> int:
    """Return the seed of one proposal, from the run's seed and the proposal's index."""
    return int(np.random.SeedSequence([run_seed, index, purpose]).generate_state(1)[0])


def build_sampler(
    name: str, *, seed: int, index: int, space: SearchSpace, front: Callable[[], Sequence[Genotype]]
) -> BaseSampler:
    """Return the sampler for one proposal.

    `auto` begins at the small end of the space (the smallest value of every number), so that the front reaches it;
    draws the rest of the first `WARM_UP` proposals at random; then alternates multivariate TPE with a mutation of a
    member of the front.

    Args:
        name: auto, tpe, nsga2 or random.
        seed: Of this proposal.
        index: Of this proposal, from 0.
        space: What is searched.
        front: Returns the front's members so far; only called where they count.
    """
    if name == "auto" and index == 0:
        return GivenPoint(smallest_point(space))
    if name == "random" or (name == "auto" and index < WARM_UP):
        return GivenPoint(space.sample(seed))
    members = front() if name == "auto" and index % 2 else ()
    if members:
        return GivenPoint(space.mutate(members[seed % len(members)], seed))
    if name == "nsga2":
        return NSGAIISampler(population_size=20, seed=seed)
    with warnings.catch_warnings():  # optuna 5.0 still calls `group` experimental
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return TPESampler(multivariate=True, group=True, constant_liar=True, n_startup_trials=WARM_UP, seed=seed)


def smallest_point(space: SearchSpace) -> Genotype:
    """Return the point with the smallest value of every ordered parameter and the first choice of every other."""
    return space.grow(lambda p: min(p.choices) if p.is_ordered else p.choices[0])  # pyright: ignore[reportArgumentType]


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
