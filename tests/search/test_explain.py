"""The explained front: what a step buys, what lies one change away, and what the intervals cannot tell apart."""

import dataclasses

import numpy as np
import pytest

from search.cli.explaining import explanation_lines, explanation_record
from search.report import explain_front
from search.report.explain import changed_dimension
from search.report.intervals import difference_db, draws, interval_of, resampled_means
from search.types import Genotype, TrialState


def with_images(trial, *psnrs):
    """Return a trial whose every measurement has these PSNRs per image, moved to keep the measurement's mean."""
    shift = [value - sum(psnrs) / len(psnrs) for value in psnrs]
    measurements = tuple(
        dataclasses.replace(m, psnr_per_image_db=tuple(m.psnr_db + s for s in shift)) for m in trial.measurements
    )
    return dataclasses.replace(trial, measurements=measurements)


def explained(study):
    return {member.trial.number: member for member in explain_front(study).members}


# -- steps -------------------------------------------------------------------------------------------


def test_members_stand_in_order_of_the_first_cost(rich_study):
    explanation = explain_front(rich_study)
    assert explanation.cost == "latency_ms"
    assert [m.trial.number for m in explanation.members] == [4, 1, 5, 0]


def test_an_upgrade_is_the_next_dearer_member_with_a_higher_psnr(rich_study):
    members = explained(rich_study)
    upgrade = members[4].upgrade
    assert (upgrade.number, upgrade.psnr_db, upgrade.latency_ms) == (1, pytest.approx(0.5), pytest.approx(5.0))
    assert upgrade.db_per_ms == pytest.approx(0.1)
    assert upgrade.db_per_gmac == pytest.approx(0.5 / 0.3)
    assert members[1].upgrade.number == 0  # past 5, which is dearer and worse
    assert members[0].upgrade is None


def test_the_cheaper_alternative_is_the_best_of_all_that_are_cheaper(rich_study):
    members = explained(rich_study)
    assert members[4].cheaper is None
    assert (members[1].cheaper.number, members[1].cheaper.psnr_db) == (4, pytest.approx(-0.5))
    assert (members[0].cheaper.number, members[0].cheaper.latency_ms) == (1, pytest.approx(-30.0))  # not 5


def test_a_rate_needs_both_figures_to_move_the_same_way(rich_study):
    # 5 is slower than 1, worse, and has fewer MACs: latency buys nothing, MACs do.
    cheaper = explained(rich_study)[5].cheaper
    assert cheaper.number == 1
    assert cheaper.db_per_ms is None
    assert cheaper.db_per_gmac == pytest.approx(0.7 / 0.8)


def test_a_run_without_a_cost_has_members_but_no_steps(make_trial, make_study):
    study = make_study([make_trial(0, psnr_db=31.0, latency_ms=5.0, macs_g=1.0)], objectives=("psnr_db", "ssim"))
    explanation = explain_front(study)
    assert explanation.cost is None
    assert [(m.upgrade, m.cheaper) for m in explanation.members] == [(None, None)]


# -- neighbours --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("one", "other", "dimension"),
    [
        ({"width": 8, "levels": 1}, {"width": 16, "levels": 1}, "width"),
        ({"width": 8, "levels": 1}, {"width": 16, "levels": 2}, None),
        ({"width": 8, "levels": 1}, {"width": 8, "levels": 1}, None),
        ({"width": 8, "levels": 1}, {"width": 8, "levels": 2, "encoder_blocks.2": 1}, "levels"),
        ({"mixer": "naf", "width": 8}, {"mixer": "large_kernel", "kernel_size": 5, "width": 8}, "mixer"),
        ({"mixer": "naf", "width": 8}, {"mixer": "large_kernel", "kernel_size": 5, "width": 16}, None),
        ({"mixer": "large_kernel", "kernel_size": 3}, {"mixer": "large_kernel", "kernel_size": 5}, "kernel_size"),
    ],
)
def test_one_change_is_one_dimension_its_children_aside(one, other, dimension):
    assert changed_dimension(Genotype(one), Genotype(other)) == dimension
    assert changed_dimension(Genotype(other), Genotype(one)) == dimension


@pytest.fixture
def family(make_trial, make_study):
    """A member and what was evaluated around it: 1 fully, 2 to the first rung, 3 for its costs alone."""

    def trial(number, width, state=TrialState.COMPLETE, **figures):
        return make_trial(number, state, genotype={"width": width, "levels": 1}, **figures)

    state = TrialState
    return make_study(
        [
            trial(0, 16, psnr_db=31.6, latency_ms=8.0, macs_g=2.0),
            trial(1, 8, psnr_db=31.0, latency_ms=10.0, macs_g=3.0),
            trial(2, 24, state.STOPPED, psnr_db=30.7, latency_ms=12.0, macs_g=3.0, rungs=1, reason="not promoted"),
            trial(3, 32, state.INFEASIBLE, macs_g=9.0, reason="macs_g 9 > 8"),
            trial(4, 40, state.DUPLICATE, macs_g=2.0),
            trial(5, 48, state.INFEASIBLE, reason="no legal network"),
        ]
    )


def test_neighbours_were_really_evaluated_and_carry_their_state(family):
    [member] = explain_front(family).members
    found = {n.change.number: n for n in member.neighbours}
    assert set(found) == {1, 2, 3}  # neither the duplicate nor the illegal one
    assert (found[1].dimension, found[1].here, found[1].there) == ("width", 16, 8)
    assert (found[1].trained_fully, found[1].step, found[1].change.psnr_db) == (True, 1200, pytest.approx(-0.6))
    assert (found[3].state, found[3].reason) == (TrialState.INFEASIBLE, "macs_g 9 > 8")
    assert (found[3].step, found[3].change.psnr_db, found[3].change.latency_ms) == (None, None, None)
    assert found[3].change.macs_g == pytest.approx(7.0)


def test_a_stopped_neighbour_is_compared_after_as_many_steps(family):
    # At the first rung the member stood at 31.6 - 2 * 0.4 = 30.8 dB, its neighbour at 30.7.
    [member] = explain_front(family).members
    stopped = next(n for n in member.neighbours if n.change.number == 2)
    assert (stopped.trained_fully, stopped.step) == (False, 100)
    assert stopped.change.psnr_db == pytest.approx(-0.1)


# -- intervals and groups ----------------------------------------------------------------------------


def test_the_interval_of_a_difference_cancels_what_images_have_in_common(make_trial):
    one = with_images(make_trial(0, psnr_db=30.0, macs_g=1.0), 24.0, 29.0, 31.0, 36.0)
    other = with_images(make_trial(1, psnr_db=30.1, macs_g=1.0), 24.0, 29.0, 31.0, 36.0)
    interval = difference_db(one.last, other.last)
    assert (interval.low, interval.high) == (pytest.approx(0.1), pytest.approx(0.1))


def test_the_interval_is_near_the_normal_one_for_many_images():
    # 400 images with a standard deviation of 1: 1.96 / 20 = 0.098 on each side; the tolerance is 4 sigma of the
    # resampling (about 0.002 for the ends of 2,000 resamples).
    images = np.random.default_rng(3).normal(size=(400, 1))
    images = (images - images.mean()) / images.std()
    interval = interval_of(resampled_means(images, draws(400))[:, 0])
    assert interval.low == pytest.approx(-0.098, abs=0.012)
    assert interval.high == pytest.approx(0.098, abs=0.012)


def test_one_image_or_differing_numbers_give_no_interval(make_trial):
    single = make_trial(0, psnr_db=30.0, macs_g=1.0)
    two = with_images(single, 29.0, 31.0)
    three = with_images(single, 29.0, 30.0, 31.0)
    assert difference_db(single.last, single.last) is None
    assert difference_db(two.last, three.last) is None
    assert difference_db(two.last, dataclasses.replace(two.last, psnr_per_image_db=(float("nan"), 30.0))) is None


@pytest.fixture
def tied(make_trial, make_study):
    """0 and 1 tie in PSNR (each wins on some images) and in latency, 2 is clearly better and slower."""
    return make_study(
        [
            with_images(make_trial(0, psnr_db=31.00, latency_ms=10.0, macs_g=1.0), 28.0, 30.0, 32.0, 34.0),
            with_images(make_trial(1, psnr_db=31.05, latency_ms=10.2, macs_g=1.2), 28.3, 29.7, 32.3, 33.7),
            with_images(make_trial(2, psnr_db=32.00, latency_ms=20.0, macs_g=2.0), 28.0, 30.0, 32.0, 34.0),
        ]
    )


def test_members_that_the_intervals_cannot_tell_apart_are_grouped(tied):
    groups = {group.figures: group.numbers for group in explain_front(tied).groups}
    assert groups == {("psnr_db",): (0, 1), ("latency_ms",): (0, 1), ("psnr_db", "latency_ms"): (0, 1)}


def test_a_change_says_whether_its_sign_is_known(tied):
    members = explained(tied)
    assert not members[0].upgrade.is_clear
    assert members[1].upgrade.is_clear


def test_groups_may_overlap_where_ties_do_not_carry_over(make_trial, make_study):
    # Intervals of 2 % around 10.0, 10.3 and 10.6 ms: the neighbours overlap, the ends do not.
    trials = [make_trial(n, psnr_db=31.0 + n, latency_ms=ms, macs_g=1.0 + n) for n, ms in enumerate((10.0, 10.3, 10.6))]
    groups = [g.numbers for g in explain_front(make_study(trials)).groups if g.figures == ("latency_ms",)]
    assert groups == [(0, 1), (1, 2)]


def test_latencies_of_different_hosts_are_not_called_alike(tied):
    first = tied.trials[0]
    moved = dataclasses.replace(first.cost, latency=dataclasses.replace(first.cost.latency, host="another"))
    study = dataclasses.replace(tied, trials=(dataclasses.replace(first, cost=moved), *tied.trials[1:]))
    explanation = explain_front(study)
    assert {g.figures for g in explanation.groups} == {("psnr_db",)}
    assert any("several hosts" in text for text in explanation.caveats)


def test_the_caveats_say_what_the_intervals_leave_out(tied, rich_study):
    text = " ".join(explain_front(tied).caveats)
    assert "4 validation images, not training seeds" in text
    assert "narrower than 95 %" in text
    assert "single validation image" in " ".join(explain_front(rich_study).caveats)


def test_untrusted_latencies_are_named(tied):
    first = tied.trials[0]
    cost = dataclasses.replace(first.cost, latency=dataclasses.replace(first.cost.latency, trusted=False))
    study = dataclasses.replace(tied, trials=(dataclasses.replace(first, cost=cost), *tied.trials[1:]))
    assert any("#0 is untrusted" in text for text in explain_front(study).caveats)
    assert "(latency untrusted)" in "\n".join(explanation_lines(study))


def test_the_same_records_give_the_same_intervals(tied):
    assert explain_front(tied) == explain_front(tied)


# -- in words ----------------------------------------------------------------------------------------


def test_words_and_json_tell_the_same(tied):
    text = "\n".join(explanation_lines(tied))
    assert "Cannot be told apart in PSNR and latency: #0, #1" in text
    assert "#1: +0.05 dB [" in text
    assert "unclear" in text
    record = explanation_record(explain_front(tied))
    assert [m["trial"] for m in record["members"]] == [0, 1, 2]
    assert record["members"][1]["upgrade"]["is_clear"] is True


def test_odd_studies_are_explained_without_a_crash(make_trial, make_study):
    nan = make_trial(1, psnr_db=float("nan"), latency_ms=5.0, macs_g=1.0)
    rejected = make_trial(0, TrialState.INFEASIBLE, macs_g=9.0, reason="macs_g 9 > 8")
    for trials in ([], [rejected], [nan]):
        explanation = explain_front(make_study(trials))
        assert (explanation.members, explanation.groups, explanation.caveats) == ((), (), ())
        assert "no front to explain" in explanation_lines(make_study(trials))[0]
    one = make_study([make_trial(2, psnr_db=31.0, latency_ms=5.0, macs_g=1.0), nan, rejected])
    assert "none, this is the best" in "\n".join(explanation_lines(one))
