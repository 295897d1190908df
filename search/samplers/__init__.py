"""Where proposals come from, behind one contract: the records and an index in, a point out.

A sampler is built anew for every proposal and depends on the run's records, its seed and the proposal's index alone.
Nothing is pickled, and a run that was stopped proposes what the unbroken run would have proposed. Our own samplers are
functions of a `Request`; Optuna's are built with its seed and read the same records through the study.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from importlib.util import find_spec

import optuna
from optuna.samplers import BaseSampler, GPSampler, NSGAIIISampler, NSGAIISampler, TPESampler

from search.samplers.asking import GivenPoint, distribution_of, propose
from search.samplers.evolution import evolved_point
from search.samplers.guided import guided_point
from search.samplers.local import local_point
from search.samplers.request import WARM_UP, Request, proposal_seed
from search.samplers.spread import smallest_point, sobol_point, spread_point
from search.types import Genotype, InputError

__all__ = [
    "SAMPLERS",
    "WARM_UP",
    "GivenPoint",
    "Request",
    "build_sampler",
    "distribution_of",
    "proposal_seed",
    "propose",
    "smallest_point",
]

POPULATION = 20
"""Of NSGA-II and -III: with Optuna's 50 the first fifty proposals are random search."""


def auto_point(request: Request) -> Genotype:
    """Return the proposal of `auto`: a spread over the space at first, then where the front is expected to grow most.

    In a space with numbers the first proposal is its small end (the smallest value of every number), so that the front
    reaches it.
    """
    if request.index == 0 and any(p.is_ordered and not p.is_fixed for p in request.space.parameters):
        return smallest_point(request.space)
    if request.index < WARM_UP:
        return spread_point(request)
    return guided_point(request) or request.space.sample(request.seed)


def _random_point(request: Request) -> Genotype:
    return request.space.sample(request.seed)


OWN: Mapping[str, Callable[[Request], Genotype]] = {
    "auto": auto_point,
    "random": _random_point,
    "qmc": sobol_point,
    "evolution": evolved_point,
    "local": local_point,
}


def _tpe(seed: int) -> BaseSampler:
    return TPESampler(multivariate=True, group=True, constant_liar=True, n_startup_trials=WARM_UP, seed=seed)


def _tpe_default(seed: int) -> BaseSampler:
    return TPESampler(seed=seed)


def _nsga2(seed: int) -> BaseSampler:
    return NSGAIISampler(population_size=POPULATION, seed=seed)


def _nsga3(seed: int) -> BaseSampler:
    return NSGAIIISampler(population_size=POPULATION, seed=seed)


def _gp(seed: int) -> BaseSampler:
    missing = [name for name in ("scipy", "torch") if find_spec(name) is None]
    if missing:
        raise InputError(
            f"sampler gp needs {' and '.join(missing)}, which cannot be imported here.\n"
            f"  Install it: pip install {' '.join(missing)}. Or take another sampler; auto needs no more than is there."
        )
    return GPSampler(seed=seed, n_startup_trials=WARM_UP)


OPTUNA: Mapping[str, Callable[[int], BaseSampler]] = {
    "tpe": _tpe,
    "tpe-default": _tpe_default,
    "nsga2": _nsga2,
    "nsga3": _nsga3,
    "gp": _gp,
}
"""`tpe-default` is what Optuna chooses by itself for several objectives: there to be compared with."""

SAMPLERS = ("auto", "random", "qmc", "tpe", "tpe-default", "nsga2", "nsga3", "gp", "evolution", "local")
"""Every name that `build_sampler` knows."""


def build_sampler(name: str, request: Request) -> BaseSampler:
    """Return the sampler for one proposal.

    Args:
        name: One of `SAMPLERS`.
        request: The records, and which proposal is wanted.

    Raises:
        InputError: If a package that the sampler needs is not installed.
    """
    if name in OWN:
        return GivenPoint(OWN[name](request))
    with warnings.catch_warnings():  # optuna 5.0 still calls some samplers and options experimental
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return OPTUNA[name](request.seed)
