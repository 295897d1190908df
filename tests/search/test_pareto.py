"""Fronts, ranks, volumes and knees: golden values by hand, and properties against naive versions."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from search.pareto import (
    crowding_distance,
    hypervolume,
    hypervolume_contributions,
    knee_index,
    minimisation_matrix,
    non_dominated_mask,
    non_dominated_rank,
    pareto_front,
)
from search.types import Cost, Genotype, InputError, Latency, Measurement, Trial, TrialState

few = settings(max_examples=60, deadline=None)


@st.composite
def clouds(draw, min_points=0, max_points=9, max_axes=4):
    """Points on a small integer grid: many ties and duplicates, and exact arithmetic."""
    axes = draw(st.integers(1, max_axes))
    row = st.tuples(*[st.integers(0, 5)] * axes)
    rows = draw(st.lists(row, min_size=min_points, max_size=max_points))
    return np.array(rows, dtype=float).reshape(len(rows), axes)


def dominates(a, b):
    return bool((a <= b).all() and (a < b).any())


def naive_mask(points):
    return [not any(dominates(other, point) for other in points) for point in points]


def naive_volume(points, reference):
    """Count the unit cells of the grid below the reference that some point dominates."""
    cells = itertools.product(*(range(int(r)) for r in reference))
    return sum(any((point <= cell).all() for point in points) for cell in map(np.array, cells))


@few
@given(clouds())
def test_the_fast_mask_equals_the_naive_one(points):
    assert non_dominated_mask(points).tolist() == naive_mask(points)


@few
@given(clouds(), st.randoms(use_true_random=False))
def test_the_front_does_not_depend_on_the_order_of_points(points, rng):
    order = list(range(len(points)))
    rng.shuffle(order)
    assert non_dominated_mask(points[order]).tolist() == non_dominated_mask(points)[order].tolist()


@few
@given(clouds())
def test_the_front_of_a_front_is_itself_and_no_member_dominates_another(points):
    front = points[non_dominated_mask(points)]
    assert non_dominated_mask(front).all()
    assert not any(dominates(a, b) for a, b in itertools.permutations(front, 2))


def test_the_mask_keeps_all_duplicates():
    assert non_dominated_mask([[1, 2], [2, 1], [1, 2], [2, 2]]).tolist() == [True, True, True, False]


def test_the_mask_agrees_with_the_naive_one_on_many_real_points():
    points = np.random.default_rng(0).normal(size=(300, 3))
    assert non_dominated_mask(points).tolist() == naive_mask(points)


@few
@given(clouds())
def test_rank_0_is_the_front_and_each_rank_is_the_front_of_what_is_left(points):
    ranks = non_dominated_rank(points)
    assert ((ranks == 0) == non_dominated_mask(points)).all()
    for rank in range(ranks.max(initial=-1) + 1):
        left = ranks >= rank
        assert (non_dominated_mask(points[left]) == (ranks[left] == rank)).all()


def test_ranks_of_a_staircase():
    # (1,3) (3,1) are the front; (2,4) falls to (1,3); (4,4) to (2,4) as well
    assert non_dominated_rank([[2, 4], [1, 3], [4, 4], [3, 1]]).tolist() == [1, 0, 2, 0]


def test_crowding_distance_by_hand():
    # First axis 0 1 3 4, range 4; second 8 4 2 0, range 8.
    # (1,4): (3-0)/4 + (8-2)/8 = 1.5;  (3,2): (4-1)/4 + (4-0)/8 = 1.25; the ends are infinite.
    points = [[3, 2], [0, 8], [1, 4], [4, 0]]
    assert crowding_distance(points).tolist() == [1.25, math.inf, 1.5, math.inf]


def test_an_objective_in_which_all_agree_adds_no_crowding_distance():
    points = [[3, 7, 2], [0, 7, 8], [1, 7, 4], [4, 7, 0]]
    assert crowding_distance(points).tolist() == [1.25, math.inf, 1.5, math.inf]


@pytest.mark.parametrize("count", [0, 1, 2])
def test_two_points_or_fewer_are_infinitely_lonely(count):
    assert crowding_distance(np.ones((count, 2))).tolist() == [math.inf] * count


def test_hypervolume_by_hand_in_two_dimensions():
    # Reference (5, 5). Boxes to it: (1,4) 4x1, (2,2) 3x3, (4,1) 1x4. Sweep along the first axis:
    # from 1 to 2 height 1, from 2 to 4 height 3, from 4 to 5 height 4: 1 + 6 + 4 = 11.
    assert hypervolume([[2, 2], [4, 1], [1, 4]], [5, 5]) == 11.0
    # A dominated point, a duplicate and points on and beyond the reference change nothing.
    more = [[2, 2], [4, 1], [1, 4], [3, 3], [2, 2], [0, 5], [9, 0]]
    assert hypervolume(more, [5, 5]) == 11.0


def test_hypervolume_by_hand_in_three_dimensions():
    # Reference (3, 3, 3), boxes of 1x2x3 = 6 each for (2,1,0), (0,2,1), (1,0,2).
    # Pairs overlap from their elementwise maximum on: (2,2,1) 1x1x2, (1,2,2) 2x1x1, (2,1,2) 1x2x1: 2 each.
    # All three: (2,2,2) 1. Inclusion-exclusion: 18 - 6 + 1 = 13.
    points = [[2, 1, 0], [0, 2, 1], [1, 0, 2]]
    assert hypervolume(points, [3, 3, 3]) == 13.0
    # Each alone: 6 - 2 - 2 + 1 = 3.
    assert hypervolume_contributions(points, [3, 3, 3]).tolist() == [3.0, 3.0, 3.0]


def test_hypervolume_of_one_objective_and_of_no_points():
    assert hypervolume([[2], [3]], [7]) == 5.0
    assert hypervolume(np.empty((0, 3)), [1, 1, 1]) == 0.0
    assert hypervolume([[1, 1]], [1, 1]) == 0.0


@few
@given(clouds())
def test_hypervolume_equals_the_count_of_dominated_cells(points):
    reference = [4] * points.shape[1]
    assert hypervolume(points, reference) == naive_volume(points, reference)


@few
@given(clouds(min_points=1))
def test_hypervolume_never_falls_when_a_point_is_added(points):
    reference = np.full(points.shape[1], 5.0)
    volumes = [hypervolume(points[:count], reference) for count in range(len(points) + 1)]
    assert all(low <= high for low, high in itertools.pairwise(volumes))


@few
@given(clouds())
def test_contributions_agree_with_leaving_one_out(points):
    reference = np.full(points.shape[1], 4.0)  # some points are on it, some beyond
    whole = hypervolume(points, reference)
    left_out = [whole - hypervolume(np.delete(points, i, axis=0), reference) for i in range(len(points))]
    assert hypervolume_contributions(points, reference).tolist() == left_out


def test_both_ends_of_every_objective_are_infinitely_far_apart():
    # (6, 3, 3) is the worst in the first objective and the best in none. Of (3, 2, 2) the neighbours are 0 and 4 of 6,
    # 0 and 3 of 5, 0 and 3 of 5.
    distances = crowding_distance([[0, 4, 4], [4, 0, 5], [5, 5, 0], [6, 3, 3], [3, 2, 2]])
    assert distances.tolist() == [math.inf] * 4 + [pytest.approx(4 / 6 + 3 / 5 + 3 / 5)]


def test_the_knee_is_the_corner_of_the_front():
    assert knee_index([[0, 10], [1, 1], [10, 0]], [False, False]) == 1


def test_the_knee_scales_costs_by_their_logarithm():
    # In logs the costs are 0, 1/3, 2/3, 1. Distances: 1, sqrt(1/9 + 0.36) = 0.686,
    # sqrt(4/9 + 0.04) = 0.696, 1.
    front = [[1, 1.0], [10, 0.6], [100, 0.2], [1000, 0.0]]
    assert knee_index(front, [True, False]) == 1
    # Linear: (0.009, 0.6) is 0.600 away, (0.099, 0.2) only 0.223.
    assert knee_index(front, [False, False]) == 2


def test_the_knee_is_nearest_by_the_euclidean_distance():
    # (0.1, 0.55) is 0.559 away from the ideal, (0.4, 0.4) is 0.566; by the larger part alone the second would win.
    assert knee_index([[0, 1], [0.1, 0.55], [0.4, 0.4], [1, 0]], [False, False]) == 1
    # (0.02, 0.65) is 0.650 away; by the sum of the parts it would win.
    assert knee_index([[0, 1], [0.02, 0.65], [0.4, 0.4], [1, 0]], [False, False]) == 2


def test_ties_for_the_knee_go_to_the_first_and_a_single_point_is_its_own():
    assert knee_index([[1, 0], [0, 1]], [False, False]) == 0
    assert knee_index([[1, 100], [10, 10], [100, 1], [10, 10]], [True, True]) == 1
    assert knee_index([[3.0, 4.0]], [True, False]) == 0
    # The same three numbers in another order: their squares' sums differ in the last bit, falling.
    near_tie = [[0.6, 0.6, 0.9], [0.6, 0.9, 0.6], [0, 1, 1], [1, 0, 1], [1, 1, 0]]
    assert knee_index(near_tie, [False] * 3) == 0


def test_an_objective_in_which_all_agree_has_no_say_in_the_knee():
    assert knee_index([[0, 7, 10], [1, 7, 1], [10, 7, 0]], [False, True, False]) == 1


@pytest.mark.parametrize(
    ("points", "log_axes", "message"),
    [
        (np.empty((0, 2)), [True, True], "empty front"),
        ([[1, 2]], [True], "1 entries for 2 objectives"),
        ([[0, 2]], [True, False], "not positive"),
    ],
)
def test_a_knee_that_cannot_be_is_refused(points, log_axes, message):
    with pytest.raises(ValueError, match=message):
        knee_index(points, log_axes)


@pytest.mark.parametrize("function", [non_dominated_mask, non_dominated_rank, crowding_distance])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_values_that_are_not_finite_are_refused_by_row(function, value):
    with pytest.raises(ValueError, match="point 1 is"):
        function([[1, 2], [1, value]])
    with pytest.raises(ValueError, match="point 1 is"):
        hypervolume([[1, 2], [value, 1]], [5, 5])


def test_points_and_references_of_a_wrong_shape_are_refused():
    with pytest.raises(ValueError, match="one row a point"):
        non_dominated_mask([1, 2, 3])
    with pytest.raises(ValueError, match="3 objectives"):
        hypervolume([[1, 2, 3]], [5, 5])
    with pytest.raises(ValueError, match="finite"):
        hypervolume_contributions([[1, 2]], [5, math.inf])


def trial(number, psnr_db=None, latency_ms=None, params_m=1.0, state=TrialState.COMPLETE):
    measurement = (
        None
        if psnr_db is None
        else Measurement(
            rung=0, step=1, psnr_db=psnr_db, ssim=0.9, psnr_per_image_db=(psnr_db,), elapsed_s=1.0, loss=0.1
        )
    )
    latency = (
        None
        if latency_ms is None
        else Latency(
            median_ms=latency_ms,
            low_ms=latency_ms,
            high_ms=latency_ms,
            repeats=1,
            at="8x8",
            threads=1,
            device="cpu",
            dtype="float32",
            runtime="eager",
            host="test",
            measured_at="2026-11-23T00:00:00Z",
        )
    )
    cost = Cost(
        params_m=params_m,
        params_train_m=params_m,
        params_active_m=params_m,
        macs_g=1.0,
        macs_at="8x8",
        latency=latency,
    )
    return Trial(
        number=number,
        state=state,
        genotype=Genotype({"n": number}),
        key=str(number),
        seed=number,
        generation=0,
        cost=cost,
        measurements=() if measurement is None else (measurement,),
    )


def numbers(front):
    return [member.number for member in front.members]


def test_only_complete_trials_that_know_every_objective_are_on_the_front():
    trials = [
        trial(0, 30.0, 5.0),
        trial(1, 99.0, 1.0, state=TrialState.STOPPED),
        trial(2, 99.0, 1.0, state=TrialState.FAILED),
        trial(3, 99.0, None),
        trial(4, None, 1.0),
        trial(5, math.nan, 1.0),
        trial(8, math.inf, 1.0),
        trial(6, 31.0, 6.0),
        trial(7, 29.0, 6.0),
    ]
    assert numbers(pareto_front(trials, ["psnr_db", "latency_ms"])) == [0, 6]


def test_members_are_sorted_by_latency_then_by_number_and_ties_are_all_kept():
    trials = [trial(3, 32.0, 9.0), trial(2, 30.0, 5.0), trial(1, 30.0, 5.0), trial(0, 31.0, 7.0)]
    front = pareto_front(trials, ["psnr_db", "params_m", "latency_ms"])
    assert numbers(front) == [1, 2, 0, 3]
    assert front.objectives == ("psnr_db", "params_m", "latency_ms")


def test_without_latency_the_first_cost_sorts_and_without_costs_the_first_quality():
    trials = [trial(0, 32.0, params_m=9.0), trial(1, 30.0, params_m=5.0)]
    assert numbers(pareto_front(trials, ["psnr_db", "params_m"])) == [1, 0]
    assert numbers(pareto_front(trials, ["psnr_db"])) == [0]


def test_the_knee_of_a_front_of_trials_takes_costs_in_logs():
    # In logs of 1, 10, 100, 1000 ms and of losses 1, 0.6, 0.2, 0 the second is nearest (see above).
    rows = [(30.0, 1.0), (30.4, 10.0), (30.8, 100.0), (31.0, 1000.0)]
    trials = [trial(number, psnr, ms) for number, (psnr, ms) in enumerate(rows)]
    knee = pareto_front(trials, ["psnr_db", "latency_ms"]).knee
    assert knee is trials[1]


def test_an_empty_front_has_no_knee():
    front = pareto_front([trial(0, 30.0)], ["psnr_db", "latency_ms"])
    assert front.members == ()
    assert front.knee is None


@few
@given(st.lists(st.tuples(st.integers(25, 30), st.integers(1, 5)), max_size=8), st.randoms())
def test_the_front_of_trials_does_not_depend_on_their_order(rows, rng):
    trials = [trial(number, float(psnr), float(ms)) for number, (psnr, ms) in enumerate(rows)]
    shuffled = list(trials)
    rng.shuffle(shuffled)
    names = ["psnr_db", "latency_ms"]
    front = pareto_front(trials, names)
    assert pareto_front(shuffled, names) == front
    assert pareto_front(front.members, names) == front


def test_the_matrix_flips_what_is_to_be_maximised():
    matrix = minimisation_matrix([trial(0, 30.0, 5.0, 0.5)], ["latency_ms", "psnr_db", "params_m"])
    assert matrix.tolist() == [[5.0, -30.0, 0.5]]
    assert minimisation_matrix([], ["psnr_db", "params_m"]).shape == (0, 2)


def test_the_matrix_refuses_unknown_objectives_and_trials_without_a_figure():
    with pytest.raises(InputError, match="Did you mean psnr_db"):
        minimisation_matrix([], ["psnr"])
    with pytest.raises(InputError, match="no objectives"):
        pareto_front([], [])
    with pytest.raises(ValueError, match=r"trial 4 \(COMPLETE\) has no latency_ms"):
        minimisation_matrix([trial(4, 30.0)], ["latency_ms"])
