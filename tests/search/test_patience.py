"""How long ago the dominated volume grew: counted by hand on studies made by hand."""

import dataclasses

from search.study.patience import GROWTH, trained_since_growth
from search.types import TrialState


def member(make_trial, number, psnr_db, latency_ms, macs_g=1.0, **options):
    return make_trial(number, psnr_db=psnr_db, latency_ms=latency_ms, macs_g=macs_g, **options)


def test_candidates_after_the_last_growth_are_counted(make_study, make_trial):
    grows, grows_again = member(make_trial, 0, 31.0, 20.0), member(make_trial, 2, 31.5, 20.0)
    dominated = [member(make_trial, number, 30.5, 30.0) for number in (1, 3, 4)]
    assert trained_since_growth(make_study([grows])) == 0
    assert trained_since_growth(make_study([grows, dominated[0]])) == 1
    assert trained_since_growth(make_study([grows, dominated[0], grows_again, *dominated[1:]])) == 2


def test_what_was_never_trained_does_not_count(make_study, make_trial):
    rejected = make_trial(1, TrialState.INFEASIBLE, macs_g=9.0, reason="macs_g 9 > 8")
    assert trained_since_growth(make_study([member(make_trial, 0, 31.0, 20.0), rejected])) == 0


def test_stopped_candidates_count_and_never_grow_it(make_study, make_trial):
    stopped = member(make_trial, 1, 33.0, 5.0, state=TrialState.STOPPED, rungs=1)
    assert trained_since_growth(make_study([member(make_trial, 0, 31.0, 20.0), stopped])) == 1


def test_below_the_baseline_or_over_a_limit_nothing_grows(make_study, make_trial):
    below, over = member(make_trial, 0, 29.9, 20.0), member(make_trial, 1, 31.0, 61.0)
    assert trained_since_growth(make_study([below, over])) == 2


def test_a_growth_within_the_tolerance_is_none(make_study, make_trial):
    first = member(make_trial, 0, 31.0, 20.0)
    hair, more = (member(make_trial, 1, 31.0 + share * GROWTH, 20.0) for share in (0.5, 2.0))
    assert trained_since_growth(make_study([first, hair])) == 1
    assert trained_since_growth(make_study([first, more])) == 0


def test_without_limits_and_baseline_the_first_generation_is_the_corner(make_study, make_trial):
    trials = [member(make_trial, 0, 31.0, 20.0, macs_g=2.0), member(make_trial, 1, 31.5, 10.0)]
    dearer = dataclasses.replace(member(make_trial, 2, 32.0, 500.0), generation=1)
    assert trained_since_growth(make_study(trials, facts={"baseline": {}}, budget={})) == 0
    assert trained_since_growth(make_study([*trials, dearer], facts={"baseline": {}}, budget={})) == 1
