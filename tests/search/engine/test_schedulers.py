from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from search.schedulers import BY_VALUE, WITHIN_LEVELS, Ranking, Screening, one_stratum, promotions, screened_out
from search.types import Cost, Genotype, Measurement, Trial, TrialState


def candidate(number: int, psnr: list[float], macs: float, stratum: int = 1, state=TrialState.RUNNING) -> Trial:
    cost = Cost(params_m=1, params_train_m=1, params_active_m=1, macs_g=macs, macs_at="8x8")
    measurements = tuple(
        Measurement(rung=i, step=i, psnr_db=p, ssim=0.5, psnr_per_image_db=(p,), elapsed_s=1, loss=0)
        for i, p in enumerate(psnr)
    )
    return Trial(
        number=number,
        state=state,
        genotype=Genotype({"levels": stratum}),
        key=str(number),
        seed=0,
        generation=0,
        cost=cost,
        measurements=measurements,
    )


def promoted(trials: list[Trial], rung: int = 0, keep: float = 0.5, ranking: Ranking = WITHIN_LEVELS) -> list[int]:
    chosen = promotions(
        trials,
        rung=rung,
        keep=keep,
        objectives=("psnr_db", "macs_g"),
        ranking=ranking,
    )
    return [t.number for t in chosen]


def test_a_dominated_candidate_stays_behind():
    # 0 and 1 trade quality for cost; 2 is worse than 0 in both, 3 worse than 1 in both.
    trials = [candidate(0, [30], 1), candidate(1, [32], 3), candidate(2, [29], 2), candidate(3, [31], 4)]
    assert promoted(trials) == [0, 1]


def test_each_stratum_sends_its_own_share():
    # Stratum 2 starts lower everywhere: compared with stratum 1 it would send nobody.
    fast = [candidate(i, [32 + i], 1 + i, stratum=1) for i in range(2)]
    slow = [candidate(2 + i, [25 + i], 5 + i, stratum=2) for i in range(2)]
    assert len([n for n in promoted([*fast, *slow]) if n >= 2]) == 1


def test_quality_is_compared_at_the_rung_and_not_later():
    ahead = candidate(0, [30, 40], 2)
    better_here = candidate(1, [31], 2)
    assert promoted([ahead, better_here]) == [1]


EXPECTED = Ranking(stratum=one_stratum, expected_psnr_db=lambda t, rung: t.measurements[rung].psnr_db + t.number)
RANKINGS = {"within_strata": WITHIN_LEVELS, "extrapolated": EXPECTED, "value": BY_VALUE}
every_ranking = pytest.mark.parametrize("ranking", RANKINGS.values(), ids=RANKINGS)


def test_by_value_a_slow_stratum_sends_nobody():
    fast = [candidate(i, [32], 1, stratum=1) for i in range(2)]
    slow = [candidate(2 + i, [25], 5, stratum=2) for i in range(2)]
    assert promoted([*fast, *slow], ranking=BY_VALUE) == [0, 1]


def test_what_is_expected_counts_and_not_what_was_seen():
    slopes = {0: 0.5, 1: 4.0, 2: 0.5, 3: 4.0}
    ranking = Ranking(stratum=one_stratum, expected_psnr_db=lambda t, _: t.measurements[0].psnr_db + slopes[t.number])
    trials = [candidate(n, [32 - n], 2, stratum=1 + n % 2) for n in range(4)]
    assert promoted(trials, ranking=ranking) == [1, 3]
    assert promoted(trials, ranking=BY_VALUE) == [0, 1]


@every_ranking
def test_a_dominated_candidate_stays_behind_however_it_is_ranked(ranking: Ranking):
    trials = [candidate(0, [20], 4), candidate(1, [30], 1)]
    assert promoted(trials, ranking=ranking) == [1]


@every_ranking
def test_nobody_is_promoted_twice_however_they_are_ranked(ranking: Ranking):
    there = candidate(0, [35, 36], 1)
    assert promoted([there, candidate(1, [20], 2)], ranking=ranking) == []


@every_ranking
def test_failed_candidates_take_no_place_however_they_are_ranked(ranking: Ranking):
    trials = [candidate(0, [35], 1, state=TrialState.FAILED), candidate(1, [30], 2)]
    assert promoted(trials, ranking=ranking) == [1]


def test_nobody_is_promoted_twice_and_the_passed_over_may_be_later():
    first = [candidate(0, [30], 2), candidate(1, [29], 3)]
    assert promoted(first) == [0]
    went_on = replace(first[0], measurements=candidate(0, [30, 33], 2).measurements)
    assert promoted([went_on, first[1]]) == []
    weaker = [candidate(2, [28], 4), candidate(3, [27], 5)]
    assert promoted([went_on, first[1], *weaker]) == [1]


def test_failed_candidates_take_no_place():
    trials = [candidate(0, [35], 1, state=TrialState.FAILED), candidate(1, [30], 2)]
    assert promoted(trials) == [1]


@pytest.mark.parametrize(("keep", "sent"), [(0.1, 1), (0.3, 1), (0.34, 2), (0.5, 2), (0.67, 3), (1.0, 3)])
def test_the_share_that_goes_on_is_rounded_up(keep: float, sent: int):
    trials = [candidate(n, [30 - n], 1 + n) for n in range(3)]
    assert promoted(trials, keep=keep) == list(range(sent))


@every_ranking
def test_stopped_candidates_keep_their_place_but_are_not_sent_again(ranking: Ranking):
    trials = [candidate(0, [35], 1, state=TrialState.STOPPED), candidate(1, [30], 2)]
    assert promoted(trials, ranking=ranking) == []


def test_complete_candidates_keep_their_place_but_are_not_sent_again():
    trials = [candidate(0, [35, 36], 1, state=TrialState.COMPLETE), candidate(1, [30], 2)]
    assert promoted(trials) == []


@given(
    ranking=st.sampled_from(list(RANKINGS.values())),
    figures=st.lists(st.tuples(st.floats(20, 40), st.floats(0.1, 9), st.integers(1, 3)), min_size=1, max_size=12),
    keep=st.floats(0.1, 1.0),
    order=st.randoms(use_true_random=False),
)
def test_the_choice_depends_on_the_candidates_and_not_on_their_order(ranking, figures, keep, order):
    trials = [candidate(i, [p], m, s) for i, (p, m, s) in enumerate(figures)]
    expected = promoted(trials, keep=keep, ranking=ranking)
    assert expected
    shuffled = list(trials)
    order.shuffle(shuffled)
    assert promoted(shuffled, keep=keep, ranking=ranking) == expected


def left_behind(figures: list[tuple[float, float]], of: int) -> list[int]:
    trials = [replace(candidate(i, [], macs), scores={"naswot": score}) for i, (score, macs) in enumerate(figures)]
    out = screened_out(trials, Screening(score="naswot", of=of), ("psnr_db", "macs_g"))
    return [t.number for t in out]


def test_a_score_leaves_behind_what_is_as_dear_and_promises_less():
    assert left_behind([(5, 1), (9, 3), (4, 2), (8, 4)], of=2) == [2, 3]


def test_the_cheapest_and_the_most_promising_go_on_before_those_between():
    assert left_behind([(5, 5), (1, 1), (3, 3), (9, 9)], of=2) == [0, 2]


def test_a_part_of_a_lot_sends_one():
    assert left_behind([(5, 1)], of=4) == []
    assert left_behind([(5, 1), (4, 2)], of=4) == [1]
    assert left_behind([], of=4) == []
