"""The budget's gate: what a candidate's figures are checked against, and when it is over."""

import dataclasses

import pytest

from search.evaluation import evaluator
from search.evaluation.plan import CostPlan
from search.types import InputSize


def checked(cost, **limits: float) -> tuple[dict[str, float], bool, str]:
    """Return the margins, whether a limit is missed, and the reason."""
    at = InputSize(width=160, height=160)
    plan = CostPlan(macs_at=at, latency_at=at, threads=1, limits=tuple(limits.items()))
    margins = evaluator._margins(plan, cost)
    return margins, evaluator._over(margins), evaluator._reason(plan, cost, margins)


@pytest.fixture
def cost(make_trial):
    """Costs of a candidate whose latency is 10 ms, from 9.8 to 10.2."""
    return make_trial(0, latency_ms=10.0, macs_g=2.0, params_m=0.5, peak_mem_mib=12.0).cost


def test_of_a_latency_the_upper_end_of_its_interval_must_keep_the_limit(cost):
    assert checked(cost, latency_ms=10.1)[1:] == (True, "latency_ms 10.2 > 10.1")
    assert checked(cost, latency_ms=10.3)[1:] == (False, "")


def test_a_figure_at_its_limit_keeps_it(cost):
    assert checked(cost, macs_g=2.0, params_m=0.5, peak_mem_mib=12.0, latency_ms=cost.latency.high_ms)[1:] == (
        False,
        "",
    )


def test_a_margin_is_the_share_of_the_limit_that_a_figure_is_over_it(cost):
    margins, is_over, reason = checked(cost, macs_g=1.6, params_m=1.0)
    assert margins == {"macs_g": pytest.approx(0.25), "params_m": pytest.approx(-0.5)}
    assert is_over
    assert reason == "macs_g 2 > 1.6"


def test_what_was_not_measured_is_not_checked(cost):
    unmeasured = dataclasses.replace(cost, latency=None)
    assert checked(unmeasured, latency_ms=1.0) == ({}, False, "")
