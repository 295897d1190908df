"""Choosing from a front: limits, what misses them, and the members that stand for it."""

import pytest

from search.report import Wish, choose_presets, select
from search.types import InputError


def numbers(trials):
    return [trial.number for trial in trials]


def test_without_limits_the_whole_front_is_chosen_the_best_first(rich_study):
    assert numbers(select(rich_study).candidates) == [0, 1, 4, 5]


def test_only_members_that_meet_all_limits_are_chosen(rich_study):
    chosen = select(rich_study, {"latency_ms": 12.0, "macs_g": 1.0})
    assert numbers(chosen.candidates) == [4, 5]
    assert chosen.best is rich_study.trials[4]
    assert chosen.nearest is None
    assert chosen.misses == ()


def test_a_limit_counts_whom_it_excludes_on_its_own(rich_study):
    assert select(rich_study, {"latency_ms": 11.0, "macs_g": 1.0}).excluded_by == {"latency_ms": 2, "macs_g": 2}


def test_a_floor_excludes_what_is_worse(rich_study):
    chosen = select(rich_study, {"latency_ms": 20.0}, {"psnr_db": 30.9})
    assert numbers(chosen.candidates) == [1, 4]
    assert chosen.excluded_by == {"latency_ms": 1, "psnr_db": 1}


def test_a_dominated_candidate_is_never_chosen(rich_study):
    assert 2 not in numbers(select(rich_study, {"latency_ms": 20.0}).candidates)


def test_where_none_fits_the_nearest_has_the_smallest_largest_miss(rich_study):
    # Of latency <= 4 and macs <= 0.6: 4 misses by 25 % and 50 %, 5 by 200 % and 0, 1 by 150 % and 100 %.
    chosen = select(rich_study, {"latency_ms": 4.0, "macs_g": 0.6})
    assert chosen.candidates == ()
    assert chosen.best is None
    assert chosen.nearest is rich_study.trials[4]
    assert [(m.wish.objective, m.value, pytest.approx(m.excess)) for m in chosen.misses] == [
        ("macs_g", 0.9, 0.5),
        ("latency_ms", 5.0, 0.25),
    ]
    assert str(chosen.misses[1]) == "latency_ms 5.00, not <= 4 (25.0% off)"


def test_a_figure_that_meets_its_limit_exactly_is_no_miss(rich_study):
    assert numbers(select(rich_study, {"latency_ms": 5.0}).candidates) == [4]


def test_a_figure_that_is_not_known_misses_every_limit(make_trial):
    trial = make_trial(0, psnr_db=31.0, latency_ms=None, macs_g=1.0)
    assert Wish("latency_ms", "<=", 5.0).excess(trial) == float("inf")


def test_an_empty_front_has_no_nearest_member(make_study):
    chosen = select(make_study(), {"latency_ms": 5.0})
    assert (chosen.candidates, chosen.nearest, chosen.excluded_by) == ((), None, {"latency_ms": 0})


@pytest.mark.parametrize(
    ("limits", "floors", "text"),
    [
        ({"latency": 5.0}, {}, "Did you mean latency_ms"),
        ({"psnr_db": 31.0}, {}, "Write psnr_db >= 31"),
        ({}, {"macs_g": 1.0}, "Write macs_g <= 1"),
    ],
)
def test_a_wish_that_makes_no_sense_is_refused_with_a_remedy(rich_study, limits, floors, text):
    with pytest.raises(InputError, match=text):
        select(rich_study, limits, floors)


def test_the_presets_are_the_cheapest_the_knee_and_the_best(rich_study):
    chosen = choose_presets(rich_study)
    assert {name: trial.number for name, trial in chosen.items()} == {"fastest": 4, "balanced": 1, "best": 0}


def test_presets_follow_the_objectives_of_the_run(make_trial, make_study):
    trials = [
        make_trial(0, psnr_db=31.0, latency_ms=5.0, macs_g=1.0, params_m=0.9),
        make_trial(1, psnr_db=30.5, latency_ms=9.0, macs_g=1.0, params_m=0.1),
    ]
    chosen = choose_presets(make_study(trials, objectives=("ssim", "params_m")))
    assert (chosen["fastest"].number, chosen["best"].number) == (1, 0)


def test_one_member_may_bear_all_names(make_trial, make_study):
    chosen = choose_presets(make_study([make_trial(3, psnr_db=31.0, latency_ms=5.0, macs_g=1.0)]))
    assert {name: t.number for name, t in chosen.items()} == {"fastest": 3, "balanced": 3, "best": 3}


def test_without_a_complete_candidate_there_are_no_presets(make_study):
    assert choose_presets(make_study()) == {}
