"""The search space: what it refuses, what it spans, and that points never leave it."""

import itertools
import json
import math
import pickle
import random
from collections import Counter

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from search.space import Condition, Parameter, SearchSpace, SpaceError
from search.types import Genotype, InputError

few = settings(max_examples=60, deadline=None)
seeds = st.integers(0, 2**70)
VALUES = (True, False, 1, 0, 2, 1.0, 0.5, "1", "true", "naf")


@st.composite
def spaces(draw):
    """Up to six parameters of up to three choices, under up to two conditions, in any order."""
    parameters = []
    for index in range(draw(st.integers(1, 6))):
        choices = draw(st.lists(st.sampled_from(VALUES), min_size=1, max_size=3, unique_by=repr))
        conditions = []
        for _ in range(draw(st.integers(0, min(2, index)))):
            parent = draw(st.sampled_from(parameters))
            values = draw(st.lists(st.sampled_from(parent.choices), min_size=1, unique_by=repr))
            conditions.append(Condition(parent.name, tuple(values)))
        parameters.append(Parameter(f"p{index}", tuple(choices), tuple(conditions)))
    try:
        return SearchSpace(draw(st.permutations(parameters)))
    except SpaceError as error:
        assume("can never count" not in str(error))
        raise


def small_space():
    parameters = [
        Parameter("mixer", ("naf", "attention")),
        Parameter("num_heads", (1, 2, 4), (Condition("mixer", ("attention",)),)),
        Parameter("width", (32, 48, 64)),
        Parameter("gated", (True, False)),
        Parameter("upscale", (2,)),
    ]
    return SearchSpace(parameters)


def keys(points):
    return [point.key for point in points]


def typed(genotype):
    return {name: (type(value), value) for name, value in genotype.values.items()}


@few
@given(spaces(), seeds)
def test_a_sampled_point_is_contained(space, seed):
    assert space.contains(space.sample(seed))


@few
@given(spaces(), seeds)
def test_a_point_is_no_longer_contained_with_a_value_less_more_or_wrong(space, seed):
    values = dict(space.sample(seed).values)
    name = next(iter(values))
    assert not space.contains(Genotype({**values, "stranger": 1}))
    assert not space.contains(Genotype({**values, name: "no such choice"}))
    assert not space.contains(Genotype({k: v for k, v in values.items() if k != name}))


@few
@given(spaces())
def test_size_and_enumeration_agree_with_brute_force(space):
    names = [p.name for p in space.parameters]
    combinations = itertools.product(*(p.choices for p in space.parameters))
    brute = {space.canonical(dict(zip(names, values, strict=True))).key for values in combinations}
    listed = keys(space.enumerate())
    assert space.size == len(listed)
    assert set(listed) == brute
    assert len(set(listed)) == len(listed)


@few
@given(spaces())
def test_every_enumerated_point_is_contained_and_equality_of_points_is_that_of_keys(space):
    points = list(itertools.islice(space.enumerate(), 50))
    assert all(space.contains(point) for point in points)
    assert len(set(points)) == len(points)


@few
@given(spaces(), seeds)
def test_canonical_is_idempotent_and_keeps_types(space, seed):
    point = space.sample(seed)
    again = space.canonical(point.values)
    assert typed(again) == typed(point)
    assert again.key == point.key


@few
@given(spaces(), seeds)
def test_canonical_drops_what_does_not_count_whatever_it_holds(space, seed):
    point = space.sample(seed)
    rest = {p.name: "anything" for p in space.parameters if p.name not in point.values}
    assert typed(space.canonical({**rest, **point.values})) == typed(point)


@few
@given(spaces(), seeds, seeds)
def test_mutate_changes_one_active_parameter(space, seed, other):
    before = space.sample(seed)
    if all(space[name].is_fixed for name in before.values):
        with pytest.raises(SpaceError, match="no neighbour"):
            space.mutate(before, other)
        return
    after = space.mutate(before, other)
    assert space.contains(after)
    old, new = typed(before), typed(after)
    assert sum(old[name] != new[name] for name in old.keys() & new.keys()) == 1


def test_mutate_reaches_every_parameter_and_every_other_choice():
    space = small_space()
    start = space.canonical({"mixer": "naf", "width": 48, "gated": True, "upscale": 2})
    reached = {space.mutate(start, seed).key for seed in range(200)}
    # naf -> attention with 3 numbers of heads, width -> 32 or 64, gated -> False
    assert len(reached) == 3 + 2 + 1


def test_mutate_refuses_a_point_with_surplus_values():
    values = {"mixer": "naf", "num_heads": 2, "width": 48, "gated": True, "upscale": 2}
    with pytest.raises(SpaceError, match="num_heads, which does not count there"):
        small_space().mutate(Genotype(values), 0)


@few
@given(spaces(), st.randoms(use_true_random=False), seeds)
def test_the_order_of_parameters_changes_neither_hash_nor_equality_nor_samples(space, rng, seed):
    shuffled = list(space.parameters)
    rng.shuffle(shuffled)
    other = SearchSpace(shuffled)
    assert other == space
    assert hash(other) == hash(space)
    assert other.hash == space.hash
    assert other.size == space.size
    assert typed(other.sample(seed)) == typed(space.sample(seed))
    assert set(keys(other.enumerate())) == set(keys(space.enumerate()))
    start = space.sample(seed)
    if any(not space[name].is_fixed for name in start.values):
        assert typed(other.mutate(other.sample(seed), seed)) == typed(space.mutate(start, seed))


def test_the_order_of_conditions_and_of_their_values_does_not_count():
    a, b = Condition("x", (1, 2)), Condition("y", (True,))
    assert Parameter("z", (1, 2), (a, b)) == Parameter("z", (1, 2), (b, Condition("x", (2, 1))))


def test_the_hash_changes_with_any_change():
    x, y = Parameter("x", (1, 2)), Parameter("y", (1, 2))
    variants = [
        [x, y],
        [x],
        [x, Parameter("renamed", (1, 2))],
        [x, Parameter("y", (1, 2, 3))],
        [x, Parameter("y", (2, 1))],
        [x, Parameter("y", (1, 2.0))],
        [x, Parameter("y", (True, 2))],
        [x, Parameter("y", ("1", 2))],
        [x, Parameter("y", (1, 2), (Condition("x", (1,)),))],
        [x, Parameter("y", (1, 2), (Condition("x", (2,)),))],
        [x, Parameter("y", (1, 2), (Condition("x", (1, 2)),))],
    ]
    built = [SearchSpace(parameters) for parameters in variants]
    assert len({space.hash for space in built}) == len(variants)
    assert all(a != b for a, b in itertools.combinations(built, 2))
    assert all(len(space.hash) == 16 and int(space.hash, 16) >= 0 for space in built)


def test_the_hash_and_the_samples_of_a_seed_never_change():
    # Recorded on 2026-11-23; a change here breaks every stored run.
    space = small_space()
    assert space.hash == "c5d9fe486fc4ef65"
    assert [dict(space.sample(seed).values) for seed in (0, 1, 2)] == [
        {"mixer": "naf", "width": 48, "gated": False, "upscale": 2},
        {"mixer": "attention", "num_heads": 4, "width": 48, "gated": True, "upscale": 2},
        {"mixer": "naf", "width": 64, "gated": True, "upscale": 2},
    ]


def test_sampling_is_uniform_over_each_active_parameter():
    space = small_space()
    draws = [space.sample(seed) for seed in range(3000)]
    widths = Counter(draw["width"] for draw in draws)
    heads = Counter(draw["num_heads"] for draw in draws if "num_heads" in draw.values)
    total = heads.total()
    # 5 sigma of a binomial with p = 1/3: about 129 of 3000, 91 of some 1500
    assert all(abs(n - 1000) < 5 * math.sqrt(3000 * 2 / 9) for n in widths.values())
    assert all(abs(n - total / 3) < 5 * math.sqrt(total * 2 / 9) for n in heads.values())
    # 5 sigma of a binomial with p = 1/2
    assert abs(total - 1500) < 5 * math.sqrt(3000 / 4)


@few
@given(spaces(), seeds)
def test_keys_survive_a_round_trip_through_json(space, seed):
    point = space.sample(seed)
    back = Genotype(json.loads(json.dumps(dict(point.values))))
    assert back.key == point.key
    assert space.contains(back)
    assert typed(back) == typed(point)


def test_true_and_1_and_1_0_are_different_choices():
    space = SearchSpace([Parameter("x", (True, 1, 1.0, "1"))])
    assert space.size == 4
    assert [type(point["x"]) for point in space.enumerate()] == [bool, int, float, str]
    assert len(set(keys(space.enumerate()))) == 4
    for value in (True, 1, 1.0, "1"):
        assert type(space.canonical({"x": value})["x"]) is type(value)


def test_a_condition_on_1_does_not_hold_for_true():
    space = SearchSpace([Parameter("x", (True, 1)), Parameter("y", (5,), (Condition("x", (1,)),))])
    assert set(space.canonical({"x": True}).values) == {"x"}
    assert set(space.canonical({"x": 1, "y": 5}).values) == {"x", "y"}
    assert not SearchSpace([Parameter("x", (1, 0))]).contains(Genotype({"x": True}))


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        ((), "no values"),
        ((1, 2, 1), r"holds 1 twice"),
        (("a", "a"), r'holds "a" twice'),
        ((True, False, True), r"holds true twice"),
        ((float("nan"),), "holds NaN"),
        ((float("inf"),), "holds Infinity"),
        ((None,), "None .of type NoneType"),
        (([1],), "of type list"),
    ],
)
def test_choices_that_cannot_be_are_refused(choices, message):
    with pytest.raises(SpaceError, match=message):
        Parameter("x", choices)


def test_an_empty_name_and_an_empty_condition_are_refused():
    with pytest.raises(SpaceError, match="empty name"):
        Parameter("", (1,))
    with pytest.raises(SpaceError, match="condition on x has no values"):
        Condition("x", ())


def test_fixed_and_ordered_are_seen():
    assert Parameter("x", (1,)).is_fixed
    assert not Parameter("x", (1, 2)).is_fixed
    assert Parameter("x", (1, 2.5)).is_ordered
    assert not Parameter("x", (True, False)).is_ordered
    assert not Parameter("x", (1, "2")).is_ordered
    assert small_space().fixed == ("upscale",)
    assert small_space().searched == ("mixer", "num_heads", "width", "gated")


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ([Parameter("x", (1,)), Parameter("x", (2,))], "x stands in the space 2 times"),
        ([Parameter("width", (1,)), Parameter("y", (1,), (Condition("widht", (1,)),))], "mean width"),
        ([Parameter("x", ("naf",)), Parameter("y", (1,), (Condition("x", ("nav",)),))], 'mean "naf"'),
        ([Parameter("x", (1,)), Parameter("y", (1,), (Condition("x", (True,)),))], "never takes true"),
        ([Parameter("x", (1,), (Condition("x", (1,)),))], "x -> x"),
        (
            [
                Parameter("free", (1,)),
                Parameter("a", (1,), (Condition("free", (1,)), Condition("c", (1,)))),
                Parameter("b", (1,), (Condition("a", (1,)),)),
                Parameter("c", (1,), (Condition("b", (1,)),)),
            ],
            "a -> c -> b -> a",
        ),
        (
            [Parameter("x", (1, 2)), Parameter("y", (1,), (Condition("x", (1,)), Condition("x", (2,))))],
            "y can never count.* values of x",
        ),
        (
            [
                Parameter("x", (1, 2)),
                Parameter("y", (1,), (Condition("x", (1,)),)),
                Parameter("z", (1,), (Condition("y", (1,)), Condition("x", (2,)))),
            ],
            "z can never count.* values of x",
        ),
    ],
)
def test_a_space_that_cannot_be_is_refused(parameters, message):
    with pytest.raises(SpaceError, match=message) as caught:
        SearchSpace(parameters)
    assert isinstance(caught.value, InputError)
    assert caught.value.parameter in {p.name for p in parameters}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"mixer": "atention"}, 'mean "attention"'),
        ({"mixer": "attention"}, r"no value for num_heads, which counts there \(mixer is attention\)"),
        ({"width": 50}, "width = 50 is not among .*\n.*nearest is 48"),
        ({"width": "48"}, 'width = "48" is not among .*\n.*mean 48'),
        ({"gated": 1}, "gated = 1 is not among .*\n.*mean true"),
        ({"width": None}, "width = None"),
        ({"width": float("nan")}, "width = NaN"),
        ({"wdith": 48}, "no parameter wdith.\n.*mean width"),
        ({"zzz": 48}, "no parameter zzz.\n.*Choose from gated, mixer"),
    ],
)
def test_canonical_says_what_is_wrong_and_what_is_near(change, message):
    values = {"mixer": "naf", "width": 48, "gated": True, "upscale": 2}
    with pytest.raises(SpaceError, match=message):
        small_space().canonical({**values, **change})


def test_errors_cross_process_borders_whole():
    error = SpaceError("what.", remedy="do.", parameter="x")
    copy = pickle.loads(pickle.dumps(error))
    assert (str(copy), copy.problem, copy.remedy, copy.parameter) == (str(error), "what.", "do.", "x")


def test_parents_come_before_children_and_the_given_order_is_kept_otherwise():
    given_order = [
        Parameter("d", (1,), (Condition("a", (1,)),)),
        Parameter("c", (1,)),
        Parameter("a", (1,)),
        Parameter("b", (1,)),
    ]
    assert [p.name for p in SearchSpace(given_order).parameters] == ["c", "a", "d", "b"]


def test_active_of_a_partial_point_says_what_comes_next():
    space = small_space()
    names = [p.name for p in space.active({})]
    assert names == ["mixer", "width", "gated", "upscale"]
    assert [p.name for p in space.active({"mixer": "attention"})][:2] == ["mixer", "num_heads"]


def test_a_value_for_an_inactive_parent_activates_nothing():
    space = SearchSpace(
        [
            Parameter("a", (1, 2)),
            Parameter("b", (1, 2), (Condition("a", (2,)),)),
            Parameter("c", (1, 2), (Condition("b", (2,)),)),
        ]
    )
    assert [p.name for p in space.active({"a": 1, "b": 2, "c": 1})] == ["a"]
    # a=1; a=2,b=1; a=2,b=2,c=1|2
    assert space.size == 4


def test_grow_refuses_an_answer_that_is_no_choice():
    with pytest.raises(SpaceError, match="mixer = 3"):
        small_space().grow(lambda parameter: 3)


def test_the_size_of_a_huge_space_is_exact_and_instant():
    # Six levels; level k counts from depth >= k on, with 3 mixers of which one has 4 x 5 settings:
    # 2 * 1 + 1 * 20 = 22 ways a level, so the sum over depth of 22^depth; 40 free bits besides.
    parameters = [Parameter("depth", (1, 2, 3, 4, 5, 6))]
    for k in range(1, 7):
        deep = Condition("depth", tuple(range(k, 7)))
        attention = Condition(f"mixer{k}", ("attention",))
        parameters += [
            Parameter(f"mixer{k}", ("naf", "large_kernel", "attention"), (deep,)),
            Parameter(f"heads{k}", (1, 2, 3, 4), (attention,)),
            Parameter(f"window{k}", (4, 8, 12, 16, 32), (attention, deep)),
        ]
    parameters += [Parameter(f"bit{i}", (True, False)) for i in range(40)]
    random.Random(0).shuffle(parameters)
    space = SearchSpace(parameters)
    assert space.size == 2**40 * sum(22**depth for depth in range(1, 7))
    assert len(set(keys(itertools.islice(space.enumerate(), 3)))) == 3


def test_the_size_holds_where_children_share_parents_in_a_ring():
    # 40 bits in a ring; a child of 3 choices counts where two neighbouring bits are on. Summing
    # 3^(pairs on) over all rings is the trace of [[1, 1], [1, 3]]^40: eigenvalues 2 +- sqrt 2.
    parameters = []
    for i in range(40):
        parameters.append(Parameter(f"bit{i}", (0, 1)))
        both = (Condition(f"bit{i}", (1,)), Condition(f"bit{(i + 1) % 40}", (1,)))
        parameters.append(Parameter(f"child{i}", (1, 2, 3), both))
    trace, before = 4, 2  # of the powers 1 and 0; t(n+1) = 4 t(n) - 2 t(n-1)
    for _ in range(39):
        trace, before = 4 * trace - 2 * before, trace
    assert SearchSpace(parameters).size == trace


def test_a_space_without_parameters_has_one_point():
    space = SearchSpace([])
    assert space.size == 1
    assert keys(space.enumerate()) == keys([Genotype({})])
    assert space.contains(space.sample(0))


def test_describe_gives_rows_for_a_table():
    assert small_space().describe()[:2] == [
        {"name": "mixer", "choices": "naf, attention", "only when": ""},
        {"name": "num_heads", "choices": "1, 2, 4", "only when": "mixer is attention"},
    ]
    assert small_space().describe()[3]["choices"] == "true, false"
