"""Choosing from a front: bounds, what misses them, the order of what is left, and the members that stand for it."""

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from search.report import Preference, Wish, choose_presets, parse_wishes, select
from search.report.preference import scaled_figures
from search.types import InputError


def numbers(trials):
    return [trial.number for trial in trials]


def test_without_bounds_the_whole_front_is_chosen_the_best_first(rich_study):
    assert numbers(select(rich_study).candidates) == [0, 1, 4, 5]


def test_only_members_that_keep_to_all_bounds_are_chosen(rich_study):
    chosen = select(rich_study, {"latency_ms": 12.5, "macs_g": 1.0})
    assert numbers(chosen.candidates) == [4, 5]
    assert chosen.best is rich_study.trials[4]
    assert chosen.nearest is None
    assert chosen.misses == ()


def test_a_latency_keeps_to_a_bound_only_with_the_upper_end_of_its_interval(rich_study):
    # Trial 4: 5.0 ms, up to 5.1.
    assert numbers(select(rich_study, {"latency_ms": 5.0}).candidates) == []
    assert numbers(select(rich_study, {"latency_ms": 5.1}).candidates) == [4]


def test_the_lower_end_of_a_latency_must_lie_within_a_range(rich_study):
    # Trial 1: 9.8 to 10.2 ms, trial 5: 11.76 to 12.24 ms.
    assert numbers(select(rich_study, wishes=parse_wishes("latency_ms", "9.8..12.24")).candidates) == [1, 5]
    assert numbers(select(rich_study, wishes=parse_wishes("latency_ms", "9.9..12.24")).candidates) == [5]


def test_a_bound_counts_whom_it_excludes_alone_and_all_count_together(rich_study):
    # Latency shuts out 0 (40 ms) and 5 (12 ms), MACs 0 (6 G) and 1 (1.2 G).
    chosen = select(rich_study, {"latency_ms": 11.0, "macs_g": 1.0})
    assert chosen.excluded_by == {"latency_ms": 2, "macs_g": 2}
    assert [(str(e.wish), e.alone, e.only) for e in chosen.exclusions] == [
        ("latency_ms <= 11", 2, 1),
        ("macs_g <= 1", 2, 1),
    ]
    assert (chosen.members, chosen.excluded) == (4, 3)


def test_a_floor_excludes_what_is_worse(rich_study):
    chosen = select(rich_study, {"latency_ms": 20.0}, {"psnr_db": 30.9})
    assert numbers(chosen.candidates) == [1, 4]
    assert chosen.excluded_by == {"latency_ms": 1, "psnr_db": 1}


def test_a_strict_bound_excludes_what_meets_it_exactly(rich_study):
    assert numbers(select(rich_study, wishes=parse_wishes("psnr_db", ">=31.4")).candidates) == [0, 1]
    assert numbers(select(rich_study, wishes=parse_wishes("psnr_db", ">31.4")).candidates) == [0]


def test_a_dominated_candidate_is_never_chosen(rich_study):
    assert 2 not in numbers(select(rich_study, {"latency_ms": 25.0}).candidates)


def test_where_none_fits_the_nearest_is_so_in_units_of_the_front(rich_study):
    # Upper ends over the front: 5.1 to 40.8 ms, a factor of 8; MACs 0.4 to 6, a factor of 15.
    # 4: ln(5.1 / 4) / ln 8 = 0.12 and ln(0.9 / 0.6) / ln 15 = 0.15. 5: ln(12.24 / 4) / ln 8 = 0.54. 1: 0.45.
    chosen = select(rich_study, {"latency_ms": 4.0, "macs_g": 0.6})
    assert chosen.candidates == ()
    assert chosen.best is None
    assert chosen.nearest is rich_study.trials[4]
    assert [(m.wish.objective, m.value, m.excess) for m in chosen.misses] == [
        ("latency_ms", pytest.approx(5.1), pytest.approx(1.1)),
        ("macs_g", 0.9, pytest.approx(0.3)),
    ]
    assert str(chosen.misses[0]) == "latency_ms 5.10 at the upper end, not <= 4: 1.10 over"


def test_half_a_decibel_is_not_near_because_it_is_a_small_share_of_thirty(make_trial, make_study):
    # Of 0: 0.5 dB short, half of what the front spans. Of 1: 3 % over, where the front spans a factor of 10.
    trials = [
        make_trial(0, psnr_db=30.5, latency_ms=2.0, macs_g=1.0),
        make_trial(1, psnr_db=31.5, latency_ms=20.2, macs_g=1.0),
    ]
    assert select(make_study(trials), {"latency_ms": 20.0}, {"psnr_db": 31.0}).nearest is trials[1]


def test_a_figure_that_is_not_known_misses_every_bound(make_trial, make_study):
    trial = make_trial(0, psnr_db=31.0, latency_ms=None, macs_g=1.0)
    assert Wish("latency_ms", "<=", 5.0).excess(trial) == float("inf")
    chosen = select(make_study([trial], objectives=("psnr_db", "macs_g")), {"latency_ms": 5.0})
    assert chosen.nearest is trial
    assert str(chosen.misses[0]) == "latency_ms is not known (latency_ms <= 5)"


def test_an_empty_front_has_no_nearest_member(make_study):
    chosen = select(make_study(), {"latency_ms": 5.0})
    assert (chosen.candidates, chosen.nearest, chosen.excluded_by) == ((), None, {"latency_ms": 0})


def test_a_study_that_was_stopped_before_it_knew_its_objectives_has_nothing_to_choose(make_study):
    assert select(dataclasses.replace(make_study(), objectives=())).candidates == ()


@pytest.mark.parametrize(
    ("limits", "floors", "text"),
    [
        ({"latency": 5.0}, {}, "Did you mean latency_ms"),
        ({"psnr_db": 31.0}, {}, "Write psnr_db >= 31"),
        ({}, {"macs_g": 1.0}, "Write macs_g <= 1"),
        ({"macs_g": float("nan")}, {}, "a finite number"),
    ],
)
def test_a_wish_that_makes_no_sense_is_refused_with_a_remedy(rich_study, limits, floors, text):
    with pytest.raises(InputError, match=text):
        select(rich_study, limits, floors)


# -- bounds as they are written ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("objective", "text", "wishes"),
    [
        ("latency_ms", "<20", ["latency_ms < 20"]),
        ("latency_ms", " <= 20 ", ["latency_ms <= 20"]),
        ("psnr_db", ">33.5", ["psnr_db > 33.5"]),
        ("latency_ms", "20", ["latency_ms <= 20"]),
        ("ssim", ".9", ["ssim >= 0.9"]),
        ("params_m", "1e-2", ["params_m <= 0.01"]),
        ("latency_ms", "20..40", ["latency_ms >= 20", "latency_ms <= 40"]),
        ("psnr_db", "31 .. 31.5", ["psnr_db >= 31", "psnr_db <= 31.5"]),
    ],
)
def test_bounds_are_read_as_people_write_them(objective, text, wishes):
    assert [str(wish) for wish in parse_wishes(objective, text)] == wishes


@pytest.mark.parametrize(
    ("objective", "text", "told"),
    [
        ("latency_ms", "fast", "this is no bound"),
        ("latency_ms", "", "this is no bound"),
        ("latency_ms", "<", "this is no bound"),
        ("latency_ms", "..20", "this is no bound"),
        ("latency_ms", "nan", "this is no bound"),
        ("latency_ms", "<1e999", "a finite number"),
        ("latency_ms", ">20", "Write latency_ms <= 20, or a range"),
        ("psnr_db", "<31", "Write psnr_db >= 31, or a range"),
        ("latency_ms", "40..20", "Write the smaller end first: 20..40"),
        ("speed", "<20", "no figure speed"),
    ],
)
def test_what_is_no_bound_is_refused_with_a_remedy(objective, text, told):
    with pytest.raises(InputError, match=told):
        parse_wishes(objective, text)


# -- preference --------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "order"), [("latency_ms", [4, 1, 5, 0]), ("macs_g", [5, 4, 1, 0])])
def test_a_single_figure_puts_its_best_first(rich_study, name, order):
    assert numbers(select(rich_study, preference=Preference({name: 1.0})).candidates) == order


def test_distances_are_those_worked_out_by_hand(rich_study):
    # PSNR: 30.7 to 31.6. Latency: ln(10 / 5) / ln(40 / 5) = 1/3. Trial 1: max(2/3 * 0.2/0.9, 1/3 * 1/3) = 4/27.
    chosen = select(rich_study, preference=Preference({"psnr_db": 2.0, "latency_ms": 1.0}))
    assert chosen.distances[1] == pytest.approx(4 / 27)
    assert chosen.distances[0] == pytest.approx(1 / 3)
    assert chosen.distances[5] == pytest.approx(2 / 3)
    assert numbers(chosen.candidates) == [1, 0, 4, 5]


def test_only_the_ratios_of_weights_count(rich_study):
    one = select(rich_study, preference=Preference({"psnr_db": 2.0, "latency_ms": 1.0}))
    other = select(rich_study, preference=Preference({"psnr_db": 20.0, "latency_ms": 10.0}))
    assert one.distances == pytest.approx(other.distances)


def test_the_order_does_not_hang_on_what_the_bounds_shut_out(rich_study):
    weights = Preference({"psnr_db": 2.0, "latency_ms": 1.0})
    free, bound = select(rich_study, preference=weights), select(rich_study, {"latency_ms": 39}, preference=weights)
    assert bound.distances == {n: d for n, d in free.distances.items() if n != 0}


def test_a_member_in_a_dent_of_the_front_can_come_first_which_no_weighted_sum_allows(make_trial, make_study):
    # Scaled: 0 is (1, 0), 2 is (0, 1), 1 is (0.7, 0.5): above the line between them, so every weighted sum passes it.
    trials = [
        make_trial(0, psnr_db=30.0, latency_ms=1.0, macs_g=1.0),
        make_trial(1, psnr_db=30.3, latency_ms=2.0, macs_g=1.0),
        make_trial(2, psnr_db=31.0, latency_ms=4.0, macs_g=1.0),
    ]
    study = make_study(trials, objectives=("psnr_db", "latency_ms"))
    shortfalls = [scaled_figures(trials, name) for name in ("psnr_db", "latency_ms")]
    for share in (0.1, 0.3, 0.5, 0.7, 0.9):
        sums = share * shortfalls[0] + (1 - share) * shortfalls[1]
        assert sums.argmin() != 1
    weights = Preference({"psnr_db": 1 / 0.7, "latency_ms": 1 / 0.5})
    assert select(study, preference=weights).best is trials[1]


@given(st.lists(st.tuples(st.integers(1, 40), st.integers(1, 40)), min_size=1, max_size=8))
def test_every_member_of_every_front_comes_first_under_some_weights(make_trial, make_study, pairs):
    psnrs, costs = sorted({p for p, _ in pairs}), sorted({c for _, c in pairs})
    trials = [
        make_trial(n, psnr_db=30 + p / 10, latency_ms=float(c), macs_g=1.0)
        for n, (p, c) in enumerate(zip(psnrs, costs, strict=False))
    ]
    names = ("psnr_db", "latency_ms")
    shortfalls = [scaled_figures(trials, name) for name in names]
    for place, trial in enumerate(trials):
        weights = {n: 1 / max(float(s[place]), 1e-6) for n, s in zip(names, shortfalls, strict=True)}
        assert Preference(weights).order(trials)[0] is trial


def test_a_member_without_a_weighted_figure_comes_last(make_trial, make_study):
    trials = [
        make_trial(0, psnr_db=32.0, latency_ms=None, macs_g=1.0),
        make_trial(1, psnr_db=31.0, latency_ms=5.0, macs_g=0.5),
    ]
    study = make_study(trials, objectives=("psnr_db", "macs_g"))
    assert numbers(select(study, preference=Preference({"latency_ms": 1.0})).candidates) == [1, 0]


@pytest.mark.parametrize(
    ("weights", "text"),
    [({"psnr": 1.0}, "Did you mean psnr_db"), ({"psnr_db": 0.0}, "finite and > 0"), ({}, "Name at least one")],
)
def test_weights_that_make_no_sense_are_refused(weights, text):
    with pytest.raises(InputError, match=text):
        Preference(weights)


# -- presets -----------------------------------------------------------------------------------------


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
