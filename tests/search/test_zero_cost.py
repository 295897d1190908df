"""Zero-cost scores: finite for every option, a function of configuration, batch and seed, and what each is made of."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import get_args

import pytest
import torch

from hfir.config import DenseConfig, HFIRConfig, LargeKernelConfig, MixerConfig, NAFConfig
from hfir.errors import ConfigError
from hfir.model import build_model
from search.evaluation.data import task_data
from search.evaluation.plan import SCORE_NAMES
from search.evaluation.zero_cost import SCORES, Score, naswot, proxy_batch, synflow
from search.experiment import load_experiment
from search.experiment.sections import ScreeningSection
from search.space import SearchSpace
from search.tasks.patches import Batch
from search.types import EvaluationError, Genotype

WIDE = load_experiment(Path(__file__).parents[1] / "assets" / "wide.yaml")
each_score = pytest.mark.parametrize("score", SCORES.values(), ids=SCORES)


def covering(space: SearchSpace, legal: Callable[[Genotype], bool]) -> list[Genotype]:
    """Return points that together have every choice of every parameter."""
    open_choices = {(p.name, choice) for p in space.parameters for choice in p.choices}
    points: list[Genotype] = []
    for seed in range(2000):
        point = space.sample(seed)
        new = open_choices & set(point.values.items())
        if new and legal(point):
            points.append(point)
            open_choices -= new
        if not open_choices:
            return points
    raise AssertionError(f"never drawn: {open_choices}")


def is_legal(point: Genotype) -> bool:
    try:
        WIDE.decode(point)
    except ConfigError:
        return False
    return True


POINTS = covering(WIDE.space, is_legal)


@pytest.fixture(scope="module")
def batch() -> Batch:
    """The first batch of the proxy, with the label of each patch."""
    plan = WIDE.evaluation_plan()
    return proxy_batch(plan.proxy, task_data(plan.task))


@pytest.fixture
def small() -> HFIRConfig:
    return next(c for c in map(WIDE.decode, POINTS) if c.experts is None)


def test_the_names_are_those_of_the_experiment_file():
    assert tuple(SCORES) == SCORE_NAMES == get_args(ScreeningSection.model_fields["score"].annotation)


@each_score
@pytest.mark.parametrize("point", POINTS, ids=lambda p: p.key)
def test_a_score_repeats_itself_for_every_option_and_leaves_the_random_numbers_alone(score: Score, point, batch):
    config = WIDE.decode(point)
    torch.manual_seed(7)
    before = torch.random.get_rng_state()
    first = score(config, batch, 3)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert score(config, batch, 3) == first
    assert abs(first) < 1e6


@each_score
def test_another_seed_draws_other_weights(score: Score, small: HFIRConfig, batch: Batch):
    assert score(small, batch, 0) != score(small, batch, 1)


@pytest.mark.parametrize("name", ["naswot", "grad_norm"])
def test_a_score_that_looks_at_patches_asks_for_some(name: str, small: HFIRConfig):
    with pytest.raises(EvaluationError, match=f"{name} looks at patches, but there is no batch"):
        SCORES[name](small, None, 0)


def test_synflow_looks_at_no_patch_and_rises_with_the_width(small: HFIRConfig, batch: Batch):
    assert synflow(small, None, 0) == synflow(small, batch, 0)
    assert synflow(replace(small, width=3 * small.width), None, 0) > synflow(small, None, 0)


@pytest.mark.parametrize("mixer", [NAFConfig(), LargeKernelConfig(kernel_size=3), DenseConfig()])
def test_naswot_is_lower_for_patches_that_are_alike(small: HFIRConfig, batch: Batch, mixer: MixerConfig):
    alike = batch._replace(degraded=batch.degraded[:1].expand_as(batch.degraded).contiguous())
    plain = replace(small, mixer=mixer, attention=None, refiner=None)
    assert naswot(plain, alike, 0) < naswot(plain, batch, 0)


def test_naswot_does_not_depend_on_the_order_of_the_patches(small: HFIRConfig, batch: Batch):
    labels = None if batch.labels is None else batch.labels.flip(0)
    turned = batch._replace(degraded=batch.degraded.flip(0), labels=labels)
    assert naswot(small, turned, 0) == pytest.approx(naswot(small, batch, 0), rel=1e-6)


def test_the_gradient_of_what_is_restored_already_is_zero(small: HFIRConfig, batch: Batch):
    torch.manual_seed(0)
    with torch.no_grad():
        restored = build_model(small)(batch.degraded)
    assert SCORES["grad_norm"](small, batch._replace(clean=restored), 0) == 0.0
    assert SCORES["grad_norm"](small, batch, 0) > 0.0


def test_a_score_that_is_no_number_is_an_error_that_says_what_to_do(small: HFIRConfig, batch: Batch):
    broken = batch._replace(degraded=batch.degraded * float("nan"))
    with pytest.raises(EvaluationError, match="the score grad_norm is nan; it must be finite"):
        SCORES["grad_norm"](small, broken, 0)
