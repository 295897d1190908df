from __future__ import annotations

import optuna
import pytest
from optuna.distributions import CategoricalDistribution, IntDistribution

from search.samplers import build_sampler, distribution_of, proposal_seed, propose, smallest_point
from search.space import Condition, Parameter, SearchSpace
from search.types import Genotype

SPACE = SearchSpace(
    [
        Parameter("width", (8, 12, 16)),
        Parameter("levels", (1, 2, 3)),
        Parameter("ratio", (1.5, 2.66)),
        Parameter("fixed", ("only",)),
        Parameter("attention", ("none", "window")),
        Parameter("window", (12, 8), (Condition("attention", ("window",)),)),
        Parameter("split", (True, False)),
    ]
)


def new_study() -> optuna.Study:
    return optuna.create_study(directions=["maximize", "minimize"])


def proposals(name: str, count: int, stop_at: int | None = None) -> list[Genotype]:
    """Propose and tell; at `stop_at` go on in a study that knows only the records of the first."""
    study = new_study()
    found: list[Genotype] = []
    for index in range(count):
        if index == stop_at:
            resumed = new_study()
            resumed.add_trials(study.get_trials())
            study = resumed
        study.sampler = build_sampler(
            name, seed=proposal_seed(5, index), index=index, space=SPACE, front=lambda: found[-2:]
        )
        trial, genotype = propose(study, SPACE)
        width = int(genotype["width"])
        study.tell(trial, [width + len(str(genotype["attention"])), width * int(genotype["levels"])])
        found.append(genotype)
    return found


@pytest.mark.parametrize("name", ["auto", "tpe", "nsga2", "random"])
def test_proposals_are_points_of_the_space(name: str):
    assert all(SPACE.contains(genotype) for genotype in proposals(name, 25))


@pytest.mark.parametrize("name", ["auto", "tpe", "nsga2", "random"])
def test_a_stopped_run_proposes_what_the_unbroken_one_would_have(name: str):
    assert proposals(name, 24) == proposals(name, 24, stop_at=15)


@pytest.mark.parametrize("name", ["auto", "tpe", "nsga2", "random"])
def test_proposals_vary(name: str):
    assert len(set(proposals(name, 25))) > 5


def test_auto_begins_at_the_small_end():
    first = proposals("auto", 1)[0]
    assert first == smallest_point(SPACE)
    assert (first["width"], first["levels"], first["ratio"], first["attention"]) == (8, 1, 1.5, "none")


def test_after_the_warm_up_auto_changes_members_of_the_front():
    member = SPACE.sample(1)
    study = new_study()
    study.sampler = build_sampler("auto", seed=9, index=13, space=SPACE, front=lambda: [member])
    _, genotype = propose(study, SPACE)
    shared = [n for n in member.values if n in genotype.values]
    assert sum(member[n] != genotype[n] for n in shared) == 1


def test_evenly_spaced_whole_numbers_are_ordered_and_the_rest_are_choices():
    assert distribution_of(Parameter("levels", (1, 2, 3))) == IntDistribution(1, 3, step=1)
    assert distribution_of(Parameter("width", (8, 12, 16))) == IntDistribution(8, 16, step=4)
    assert distribution_of(Parameter("width", (8, 12, 24))) == CategoricalDistribution((8, 12, 24))
    assert distribution_of(Parameter("window", (12, 8))) == CategoricalDistribution((12, 8))
    assert distribution_of(Parameter("split", (True, False))) == CategoricalDistribution((True, False))


def test_seeds_differ_by_run_proposal_and_purpose():
    seeds = {proposal_seed(run, index, purpose) for run in (0, 1) for index in (0, 1) for purpose in (0, 1)}
    assert len(seeds) == 8
