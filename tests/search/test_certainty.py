"""What further seeds say: intervals against scipy, who is replicated, and how probable a place on the front is."""

import dataclasses
from io import StringIO

import numpy as np
import pytest
from rich.console import Console
from scipy import stats

from search.certainty import (
    difference_interval,
    front_probabilities,
    is_clear,
    mean_interval,
    to_replicate,
    untrusted_candidates,
    untrusted_latencies,
    values_of,
)
from search.cli.tables import front_table
from search.report import front_frame
from search.report.figures import draw_front
from search.report.interactive import page_data
from search.report.intervals import Interval, interval_of
from search.report.page import render_page
from search.report.seeds import estimate, gain_intervals, shown_interval
from search.report.words import conditions
from search.types import Replicate

A, B = [31.0, 31.2, 30.9, 31.3], [31.6, 31.4, 31.9]


def with_seeds(trial, *further):
    made = [Replicate(seed=n, psnr_db=value, ssim=None if value is None else 0.9) for n, value in enumerate(further)]
    return dataclasses.replace(trial, replicates=tuple(made))


@pytest.fixture
def member(make_trial):
    def make(number, psnr_db, latency_ms, *further):
        return with_seeds(make_trial(number, psnr_db=psnr_db, latency_ms=latency_ms, macs_g=1.0), *further)

    return make


def test_intervals_are_those_of_scipy():
    low, high = mean_interval(A)
    assert (low, high) == pytest.approx(stats.t.interval(0.95, 3, np.mean(A), stats.sem(A)))
    welch = stats.ttest_ind(B, A, equal_var=False).confidence_interval(0.95)
    assert difference_interval(A, B) == pytest.approx((welch.low, welch.high))


def test_an_interval_is_the_middle_95_percent_of_the_resamples():
    interval = interval_of(np.arange(1001.0))
    assert (interval.low, interval.high) == (25.0, 975.0)


def test_seeds_without_any_scatter_differ_by_what_they_differ():
    assert difference_interval([31.0, 31.0], [31.5, 31.5]) == (0.5, 0.5)


def test_neighbours_are_replicated_until_their_order_is_clear_or_the_limit_is_reached(member):
    near = [member(0, 31.0, 5.0), member(1, 31.1, 10.0)]
    assert [t.number for t in to_replicate(near, "psnr_db", 2)] == [0, 1]
    assert to_replicate(near, "psnr_db", 0) == ()
    unclear = [member(0, 31.0, 5.0, 31.2), member(1, 31.1, 10.0, 30.9)]
    assert [t.number for t in to_replicate(unclear, "psnr_db", 2)] == [0, 1]
    assert to_replicate(unclear, "psnr_db", 1) == ()
    clear = [member(0, 31.0, 5.0, 31.01), member(1, 32.0, 10.0, 32.01)]
    assert to_replicate(clear, "psnr_db", 5) == ()


def test_only_what_is_unclear_is_replicated(member):
    members = [member(0, 30.0, 5.0, 30.001), member(1, 31.0, 8.0, 31.001), member(2, 31.1, 10.0, 30.9)]
    assert [t.number for t in to_replicate(members, "psnr_db", 3)] == [1, 2]


def test_a_round_that_was_broken_off_is_finished_first(member):
    """Member 0 has its second further seed, member 1 not yet: what counts are the seeds that both have."""
    broken = [member(0, 31.0, 5.0, 31.2, 31.1), member(1, 31.1, 10.0, 30.9)]
    assert [t.number for t in to_replicate(broken, "psnr_db", 3)] == [1]


def test_an_order_that_was_clear_stays_clear(member):
    one, other = member(0, 31.0, 5.0, 31.01, 33.0), member(1, 32.0, 10.0, 32.01, 30.0)
    assert is_clear(one, other, "psnr_db")


def test_seeds_that_failed_count_as_tried_and_not_as_a_value(member):
    failed = member(0, 31.0, 5.0, None)
    assert values_of(failed, "psnr_db") == [31.0]
    assert [t.number for t in to_replicate([failed, member(1, 31.1, 9.0, 31.0)], "psnr_db", 1)] == []
    known = estimate(failed)
    assert known is not None
    assert (known.seeds, known.failed) == (1, 1)


def test_a_place_that_no_seed_endangers_is_certain_and_two_equals_share_it(member):
    far = [member(0, 30.0, 5.0, 30.01, 29.99), member(1, 32.0, 10.0, 32.01, 31.99)]
    assert front_probabilities(far, ("psnr_db", "latency_ms")) == {0: 1.0, 1: 1.0}
    same = [member(0, 31.0, 5.0, 31.2, 30.8), member(1, 31.0, 10.0, 31.2, 30.8)]
    shares = front_probabilities(same, ("psnr_db", "latency_ms"))
    assert shares[0] == 1.0  # nothing is cheaper
    assert shares[1] == pytest.approx(0.5, abs=0.04)


def test_without_a_second_seed_nothing_is_known_of_places(member, rich_study):
    assert front_probabilities([member(0, 31.0, 5.0)], ("psnr_db", "latency_ms")) == {}
    assert front_probabilities(rich_study.trials, rich_study.objectives) == {}


def test_a_candidate_of_one_seed_takes_the_scatter_of_the_others(member):
    trials = [member(0, 31.0, 5.0, 31.4, 30.6), member(1, 31.2, 10.0)]
    freedom, pooled = 2, float(np.std([31.0, 31.4, 30.6], ddof=1))
    rng = np.random.default_rng(1)
    first = 31.0 + pooled / np.sqrt(3) * rng.standard_t(2, 200_000)
    second = 31.2 + pooled * rng.standard_t(freedom, 200_000)
    shares = front_probabilities(trials, ("psnr_db", "latency_ms"))
    assert shares[1] == pytest.approx(float(np.mean(second >= first)), abs=0.03)


def test_the_same_records_give_the_same_probabilities(member):
    trials = [member(0, 31.0, 5.0, 31.4), member(1, 31.2, 10.0, 30.9)]
    objectives = ("psnr_db", "latency_ms")
    assert front_probabilities(trials, objectives) == front_probabilities(trials, objectives)


@pytest.fixture
def replicated(make_study, member):
    return make_study([member(0, 31.0, 5.0, 31.2, 31.1), member(1, 31.6, 10.0, 31.5, 31.9), member(2, 31.3, 20.0)])


def test_an_interval_says_what_it_is_over(replicated):
    over_seeds, single = estimate(replicated.trials[0]), estimate(replicated.trials[2])
    assert over_seeds is not None
    assert over_seeds.interval is not None
    assert (over_seeds.over, over_seeds.seeds) == ("seeds", 3)
    assert over_seeds.mean == pytest.approx(31.1)
    assert str(over_seeds).endswith("over 3 seeds")
    assert single is not None
    assert single.interval is None  # one image, one seed: nothing to draw again


def test_tables_page_and_picture_show_it(replicated):
    front = front_frame(replicated).set_index("trial")
    assert front.loc[0, "psnr_mean_db"] == pytest.approx(31.1)
    assert front.loc[0, "psnr_low_db"] < 31.1 < front.loc[0, "psnr_high_db"]
    assert (front.loc[0, "psnr_interval"], front.loc[0, "seeds"]) == ("seeds", 3)
    assert front.loc[0, "front_probability"] == 1.0
    assert "over 3 seeds" in render_page(replicated)
    assert "2 members of the front trained with up to 2 further seeds" in conditions(replicated)["Seeds"]
    data = page_data(replicated)["trials"]
    assert data["interval"][0][0] < 31.1 < data["interval"][0][1]
    assert data["on_front"][0] == 1.0
    lines = [line for line in draw_front(replicated).axes[0].lines if len(set(line.get_xdata())) == 1]
    assert len([line for line in lines if len(line.get_xdata()) == 2]) >= 2


# -- against the baseline ----------------------------------------------------------------------------


def test_a_gain_has_the_interval_of_its_differences_image_by_image(make_trial, make_study, seen_on):
    # The baseline has 29 and 31 dB: gains of 1 on both images, and of 0.5 and 2.5.
    steady = seen_on(make_trial(0, psnr_db=31.0, latency_ms=5.0, macs_g=1.0), 30.0, 32.0)
    mixed = seen_on(make_trial(1, psnr_db=31.5, latency_ms=6.0, macs_g=1.0), 29.5, 33.5)
    found = gain_intervals(make_study([steady, mixed]), [steady, mixed])
    assert found == {0: Interval(1.0, 1.0), 1: Interval(0.5, 2.5)}


def test_gains_have_no_interval_where_seeds_say_more_or_images_nothing(make_trial, make_study, seen_on):
    one = seen_on(make_trial(0, psnr_db=31.0, latency_ms=5.0, macs_g=1.0), 30.0, 32.0)
    again = with_seeds(one, 31.1)
    single = make_trial(1, psnr_db=31.0, latency_ms=5.0, macs_g=1.0)
    assert gain_intervals(make_study([one]), [one])
    assert gain_intervals(make_study([again]), [again]) == {}
    assert gain_intervals(make_study([one, single]), [one, single]) == {}
    assert gain_intervals(make_study([one], objectives=("ssim", "macs_g")), [one]) == {}


def test_the_table_and_the_page_show_the_gain_with_its_interval(make_trial, make_study, seen_on):
    blocks = {"encoder_blocks.1": 1, "bottleneck_blocks": 0, "decoder_blocks.1": 0}
    genotype = {"width": 8, "levels": 1, **blocks}
    one = seen_on(make_trial(0, psnr_db=31.0, latency_ms=5.0, macs_g=1.0, genotype=genotype), 29.5, 33.5)
    study = make_study([one])
    console = Console(width=160, record=True, file=StringIO())
    console.print(front_table(study, intervals=True))
    text = console.export_text()
    assert "+0.50 … +2.50" in text
    assert "95 %: of the gain, photograph by photograph, over 2 validation images, one seed each" in text
    page = render_page(study)
    assert "gain, 95 % over 2 images" in page
    assert "+0.50 … +2.50" in page


def test_a_figure_shows_seeds_where_there_are_several_else_the_gain_around_the_networks_own_psnr(unlike_study):
    member = unlike_study.trials[1]
    shown = shown_interval(unlike_study, member)
    assert shown is not None
    assert (shown.term, shown.text) == ("gain, 95 %", "+1.00 … +1.20 over 2 images")
    assert (shown.ends.low, shown.ends.high) == pytest.approx((31.0, 31.2))  # around 31.1 dB
    again = shown_interval(unlike_study, with_seeds(member, 31.2))
    assert again is not None
    assert (again.term, again.text[-12:]) == ("mean over seeds, 95 %", "over 2 seeds")
    single = dataclasses.replace(member.last, psnr_per_image_db=(31.1,))
    lonely = dataclasses.replace(member, measurements=(*member.measurements[:-1], single))
    assert shown_interval(unlike_study, lonely) is None


def test_what_an_untrusted_latency_decides_about_the_front(make_trial, make_study):
    def trial(number, psnr_db, ms, low_ms, trusted):
        made = make_trial(number, psnr_db=psnr_db, latency_ms=ms, macs_g=1.0)
        latency = dataclasses.replace(made.cost.latency, low_ms=low_ms, trusted=trusted)
        return dataclasses.replace(made, cost=dataclasses.replace(made.cost, latency=latency))

    trials = [
        trial(0, 30.0, 4.0, 3.9, False),  # on the front
        trial(1, 31.0, 5.0, 4.9, True),
        trial(2, 30.9, 5.2, 2.6, False),  # at 2.6 ms it would be
        trial(3, 30.8, 5.2, 5.1, False),  # nowhere near
    ]
    assert [t.number for t in untrusted_candidates(trials, ("psnr_db", "latency_ms"))] == [0, 2]
    assert untrusted_latencies(make_study(trials, objectives=("psnr_db", "latency_ms"))) == ("trial 0", "trial 2")
