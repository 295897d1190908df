"""A finite conditional search space: parameters, when they count, and the points they span.

Nothing here knows of networks. A point (`Genotype`) holds the *active* parameters only, so that two
descriptions of one candidate are one point; what is legal as a network is decided where it is built.

Values are compared by type and value, for Python holds `True == 1 == 1.0` and a genotype's key does not.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeVar

import numpy as np

from search.types import Genotype, InputError, Scalar, stable_hash

T = TypeVar("T")


class SpaceError(InputError):
    """A space, or a point of it, that cannot be used.

    Args:
        problem: What is wrong, with the values.
        remedy: The rule and what to do about it.
        parameter: The parameter it is about, so that a reader of files can name the line; None if several.
    """

    def __init__(self, problem: str, *, remedy: str, parameter: str | None = None) -> None:
        self.problem, self.remedy, self.parameter = problem, remedy, parameter
        super().__init__(f"{problem}\n  {remedy}")

    def __reduce__(self) -> tuple[Any, ...]:
        """Rebuild from keyword arguments, so that the error crosses process borders whole."""
        return _rebuild_space_error, (self.problem, self.remedy, self.parameter)


def _rebuild_space_error(problem: str, remedy: str, parameter: str | None) -> SpaceError:
    return SpaceError(problem, remedy=remedy, parameter=parameter)


@dataclass(frozen=True, slots=True, eq=False)
class Condition:
    """The parameter that carries this counts only while `parent` is active and takes one of `values`.

    Args:
        parent: Name of another parameter of the space.
        values: The values that let it count, at least one, none twice; their order does not matter.

    Raises:
        SpaceError: If `values` is empty, holds one value twice, or holds something else than a scalar.
    """

    parent: str
    values: tuple[Scalar, ...]

    def __post_init__(self) -> None:
        _check_values(self.values, f"a condition on {self.parent}", None)

    def holds(self, active: Mapping[str, Scalar]) -> bool:
        """Say whether these active parameters and their values meet the condition."""
        return self.parent in active and _is_in(active[self.parent], self.values)

    @property
    def record(self) -> tuple[str, tuple[str, ...]]:
        """What makes two conditions equal, as plain text."""
        return self.parent, tuple(sorted(map(_text, self.values)))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Condition) and self.record == other.record

    def __hash__(self) -> int:
        return hash(self.record)

    def __str__(self) -> str:
        return f"{self.parent} is {' or '.join(map(_plain, self.values))}"


@dataclass(frozen=True, slots=True, eq=False)
class Parameter:
    """One decision: a name and the values it may take, in the order in which they were written.

    Args:
        name: Unique in its space, not empty.
        choices: At least one plain str, bool, int or finite float; none twice. `True`, `1` and `1.0` differ.
        conditions: All must hold for the parameter to count; empty means that it always does.

    Raises:
        SpaceError: If the name is empty, or the choices are empty, repeated or no scalars.
    """

    name: str
    choices: tuple[Scalar, ...]
    conditions: tuple[Condition, ...] = ()

    def __post_init__(self) -> None:
        if not self.name:
            raise SpaceError("a parameter has an empty name.", remedy="Give every parameter a name.")
        _check_values(self.choices, self.name, self.name)

    @property
    def is_fixed(self) -> bool:
        """Whether there is nothing to decide: one choice only."""
        return len(self.choices) == 1

    @property
    def is_ordered(self) -> bool:
        """Whether all choices are numbers (bools are not), so that near and far mean something."""
        return all(type(choice) in (int, float) for choice in self.choices)

    def accepts(self, value: object) -> bool:
        """Say whether `value` is one of the choices, in type and value."""
        return _is_in(value, self.choices)

    def is_active(self, active: Mapping[str, Scalar]) -> bool:
        """Say whether the parameter counts, given the *active* parameters before it and their values."""
        return all(condition.holds(active) for condition in self.conditions)

    @property
    def record(self) -> tuple[str, tuple[str, ...], tuple[tuple[str, tuple[str, ...]], ...]]:
        """What makes two parameters equal, as plain text; the order of the choices is part of it."""
        conditions = sorted({condition.record for condition in self.conditions})
        return self.name, tuple(map(_text, self.choices)), tuple(conditions)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Parameter) and self.record == other.record

    def __hash__(self) -> int:
        return hash(self.record)


class SearchSpace:
    """All points that the parameters span, each written in one way only.

    Two spaces are equal when they hold equal parameters, whatever the order. The order of a parameter's
    *choices* does count: it is the order of enumeration, and what a seed draws depends on it.

    Args:
        parameters: In any order; `parameters` holds them with parents before children, otherwise as given.

    Raises:
        SpaceError: On a name used twice, a condition on an unknown parameter or on a value that its parent
            never takes, conditions in a circle, or a parameter whose conditions contradict each other.
    """

    def __init__(self, parameters: Sequence[Parameter]) -> None:
        self._by_name = {parameter.name: parameter for parameter in parameters}
        _check_unique(parameters)
        for parameter in parameters:
            _check_conditions(parameter, self._by_name)
        self.parameters: tuple[Parameter, ...] = _in_topological_order(parameters)
        _check_reachable(self.parameters)

    def __getitem__(self, name: str) -> Parameter:
        """Return a parameter by its name; SpaceError, naming the nearest, where there is none."""
        if name not in self._by_name:
            raise _unknown_parameter(name, self._by_name)
        return self._by_name[name]

    @property
    def fixed(self) -> tuple[str, ...]:
        """Names of the parameters with one choice."""
        return tuple(parameter.name for parameter in self.parameters if parameter.is_fixed)

    @property
    def searched(self) -> tuple[str, ...]:
        """Names of the parameters with several choices."""
        return tuple(parameter.name for parameter in self.parameters if not parameter.is_fixed)

    def active(self, values: Mapping[str, Scalar]) -> tuple[Parameter, ...]:
        """Return the parameters that count, given these values; parents before children.

        A value for a parameter that does not count is ignored, and a parent without a value activates
        nothing; so a partial point may be asked what comes next.
        """
        found: list[Parameter] = []
        known: dict[str, Scalar] = {}
        for parameter in self.parameters:
            if parameter.is_active(known):
                found.append(parameter)
                if parameter.name in values:
                    known[parameter.name] = values[parameter.name]
        return tuple(found)

    def grow(self, choose: Callable[[Parameter], Scalar]) -> Genotype:
        """Build a point by asking `choose` once for each active parameter, parents before children.

        This is the one way in which points come about; samplers bring their own `choose`.

        Raises:
            SpaceError: If `choose` answers with something that is not among the parameter's choices.
        """
        values: dict[str, Scalar] = {}
        for parameter in self.parameters:
            if parameter.is_active(values):
                values[parameter.name] = _checked(parameter, choose(parameter))
        return Genotype(values)

    def canonical(self, values: Mapping[str, Scalar]) -> Genotype:
        """Return the point that these values describe: parameters that do not count are dropped.

        Raises:
            SpaceError: If a name is unknown, an active parameter has no value, or a value is not among its
                parameter's choices (the nearest is named).
        """
        for name in values:
            if name not in self._by_name:
                raise _unknown_parameter(name, self._by_name)
        return self.grow(lambda parameter: _given(parameter, values))

    def contains(self, genotype: Genotype) -> bool:
        """Say whether the genotype holds exactly the active parameters, each with one of its choices."""
        active = self.active(genotype.values)
        return {parameter.name for parameter in active} == set(genotype.values) and all(
            parameter.accepts(genotype[parameter.name]) for parameter in active
        )

    def sample(self, seed: int) -> Genotype:
        """Draw a point: each active parameter uniformly over its choices.

        Every draw depends on the seed, the parameter's name and the number of its choices alone, so that
        one seed gives one point on every machine, in whatever order the parameters were written. Points
        are not equally likely: one under few conditions is likelier than one of a large branch.

        Args:
            seed: >= 0, of any size.
        """
        return self.grow(lambda parameter: _pick(parameter.choices, seed, "sample", parameter.name))

    def mutate(self, genotype: Genotype, seed: int) -> Genotype:
        """Change one active parameter to another of its choices; then make the point whole again.

        The parameter is drawn uniformly from those with several choices. Parameters that come to count by
        the change are drawn, those that no longer count are dropped, all others keep their values.

        Args:
            genotype: A point of this space.
            seed: >= 0, of any size.

        Raises:
            SpaceError: If the genotype is not of this space, or none of its parameters has a second choice.
        """
        self._require(genotype)
        movable = sorted(name for name in genotype.values if not self[name].is_fixed)
        if not movable:
            raise SpaceError(
                f"{_point(genotype.values)} has no neighbour: each of its parameters has one choice only.",
                remedy="Mutation needs an active parameter with at least two choices.",
            )
        target = self[_pick(movable, seed, "mutate which")]
        others = [choice for choice in target.choices if not _is_same(choice, genotype[target.name])]
        kept = {**genotype.values, target.name: _pick(others, seed, "mutate to", target.name)}
        return self.grow(
            lambda parameter: (
                kept[parameter.name]
                if parameter.name in kept
                else _pick(parameter.choices, seed, "mutate new", parameter.name)
            )
        )

    def enumerate(self) -> Iterator[Genotype]:
        """Yield each point once, like an odometer: the last active parameter turns fastest."""
        start: dict[str, Scalar] | None = {}
        while start is not None:
            point = self._first_from(start)
            yield point
            start = self._next_start(point)

    @cached_property
    def size(self) -> int:
        """The exact number of points, counted without visiting them.

        Parameters are decided one after the other, but of what was decided only one thing is remembered:
        the set of later parameters that are switched off by it. Ways that switch off the same are added
        up, so parameters without children just multiply. Decisions are ordered to keep these sets few.
        """
        children = {parameter.name: self._children(parameter) for parameter in self.parameters}
        ways: Counter[frozenset[str]] = Counter({frozenset(): 1})
        for parameter in _in_counting_order(self.parameters, children):
            outcomes = self._outcomes(parameter, children[parameter.name])
            after: Counter[frozenset[str]] = Counter()
            for off, count in ways.items():
                if parameter.name in off:
                    after[(off - {parameter.name}) | children[parameter.name]] += count
                    continue
                for switched_off, choices in outcomes.items():
                    after[off | switched_off] += count * choices
            ways = after
        return ways.total()

    @cached_property
    def hash(self) -> str:
        """A stable name of the space in 16 hexadecimal digits, whatever the order of its parameters."""
        return stable_hash(sorted(parameter.record for parameter in self.parameters))

    def describe(self) -> list[dict[str, str]]:
        """Return one row a parameter for a table, with the columns `name`, `choices` and `only when`."""
        return [
            {
                "name": parameter.name,
                "choices": ", ".join(map(_plain, parameter.choices)),
                "only when": " and ".join(map(str, parameter.conditions)),
            }
            for parameter in self.parameters
        ]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, SearchSpace) and self._records() == other._records()

    def __hash__(self) -> int:
        return hash(self.hash)

    def __repr__(self) -> str:
        return f"SearchSpace({len(self.parameters)} parameters, {self.size} points, hash={self.hash})"

    def _records(self) -> set[tuple[Any, ...]]:
        return {parameter.record for parameter in self.parameters}

    def _require(self, genotype: Genotype) -> None:
        """Refuse what is not a point of this space, saying why."""
        surplus = set(genotype.values) - set(self.canonical(genotype.values).values)
        if surplus:
            name = min(surplus)
            raise SpaceError(
                f"{_point(genotype.values)} holds {name}, which does not count there.",
                remedy="Make it a point of the space with `canonical` first.",
                parameter=name,
            )

    def _first_from(self, start: Mapping[str, Scalar]) -> Genotype:
        """Return the first point, in the order of `enumerate`, that begins with these values."""
        return self.grow(lambda parameter: start[parameter.name] if parameter.name in start else parameter.choices[0])

    def _next_start(self, point: Genotype) -> dict[str, Scalar] | None:
        """Turn the last parameter that can be turned; return the values up to it, or None at the end."""
        start = dict(point.values)
        while start:
            name, value = start.popitem()
            choices = self[name].choices
            following = next(i for i, choice in enumerate(choices, 1) if _is_same(choice, value))
            if following < len(choices):
                return {**start, name: choices[following]}
        return None

    def _children(self, parent: Parameter) -> frozenset[str]:
        return frozenset(
            child.name
            for child in self.parameters
            if any(condition.parent == parent.name for condition in child.conditions)
        )

    def _outcomes(self, parent: Parameter, children: frozenset[str]) -> Counter[frozenset[str]]:
        """Count the parent's choices by the set of children that each switches off."""
        return Counter(
            frozenset(name for name in children if not _allows(parent.name, choice, self[name]))
            for choice in parent.choices
        )


def _is_same(one: object, other: object) -> bool:
    return type(one) is type(other) and one == other


def _is_in(value: object, values: Iterable[Scalar]) -> bool:
    return any(_is_same(value, known) for known in values)


def _allows(parent: str, value: Scalar, child: Parameter) -> bool:
    """Say whether this value of one parent leaves the child its chance."""
    return all(_is_in(value, c.values) for c in child.conditions if c.parent == parent)


def _text(value: object) -> str:
    """Write a value so that different values read differently: `1`, `1.0`, `true`, `"1"`."""
    if type(value) in (bool, int, float, str):
        return json.dumps(value, ensure_ascii=False)
    return f"{value!r} (of type {type(value).__name__})"


def _plain(value: Scalar) -> str:
    """Write a value as one would in a file: text without quotes."""
    return value if isinstance(value, str) else _text(value)


def _point(values: Mapping[str, Scalar]) -> str:
    return "{" + ", ".join(f"{name}: {_text(value)}" for name, value in values.items()) + "}"


def _pick(choices: Sequence[T], seed: int, *purpose: str) -> T:
    """Draw one of the choices; the draw is a function of seed and purpose alone.

    It takes the 64 bits from `SeedSequence` itself: its output is fixed for good (NEP 19), that of
    `Generator.integers` may change with a version of numpy. The bias of the modulo is below 2^-50.
    """
    digest = hashlib.blake2b("\n".join(purpose).encode(), digest_size=8).digest()
    sequence = np.random.SeedSequence(seed, spawn_key=(int.from_bytes(digest, "big"),))
    return choices[int(sequence.generate_state(1, np.uint64)[0]) % len(choices)]


def _check_values(values: Sequence[Scalar], owner: str, parameter: str | None) -> None:
    if not values:
        raise SpaceError(f"{owner} has no values.", remedy="Give at least one.", parameter=parameter)
    for position, value in enumerate(values):
        if type(value) not in (bool, int, float, str) or (type(value) is float and not math.isfinite(value)):
            raise SpaceError(
                f"{owner} holds {_text(value)}, which cannot be a value.",
                remedy="Values are plain text, true or false, and finite numbers.",
                parameter=parameter,
            )
        if _is_in(value, values[:position]):
            raise SpaceError(
                f"{owner} holds {_text(value)} twice.",
                remedy="Each value may stand once; 1, 1.0 and true are different values.",
                parameter=parameter,
            )


def _check_unique(parameters: Iterable[Parameter]) -> None:
    for name, count in Counter(parameter.name for parameter in parameters).items():
        if count > 1:
            raise SpaceError(
                f"{name} stands in the space {count} times.",
                remedy="Names must be unique; join the choices or rename one.",
                parameter=name,
            )


def _check_conditions(parameter: Parameter, by_name: Mapping[str, Parameter]) -> None:
    """Refuse conditions on unknown parameters and on values that these never take."""
    for condition in parameter.conditions:
        if condition.parent not in by_name:
            raise SpaceError(
                f"{parameter.name} counts only when {condition}, but there is no parameter {condition.parent}.",
                remedy=_nearest_text(condition.parent, by_name),
                parameter=parameter.name,
            )
        parent = by_name[condition.parent]
        for value in condition.values:
            if not parent.accepts(value):
                raise SpaceError(
                    f"{parameter.name} counts only when {condition}, but {parent.name} never takes {_text(value)}.",
                    remedy=_nearest_choice(value, parent),
                    parameter=parameter.name,
                )


def _in_topological_order(parameters: Sequence[Parameter]) -> tuple[Parameter, ...]:
    """Put parents before children; where both may come first, keep the given order."""
    placed: dict[str, Parameter] = {}
    waiting: list[Parameter] = list(parameters)
    while waiting:
        ready = next((p for p in waiting if all(c.parent in placed for c in p.conditions)), None)
        if ready is None:
            raise _circle(waiting)
        placed[ready.name] = ready
        waiting = [p for p in waiting if p is not ready]
    return tuple(placed.values())


def _circle(waiting: Sequence[Parameter]) -> SpaceError:
    """Name one circle among parameters of which each waits for another."""
    parent_of = {
        p.name: next(c.parent for c in p.conditions if any(c.parent == q.name for q in waiting)) for p in waiting
    }
    path = [waiting[0].name]
    while parent_of[path[-1]] not in path:
        path.append(parent_of[path[-1]])
    start = parent_of[path[-1]]
    circle = [*path[path.index(start) :], start]
    return SpaceError(
        f"these parameters wait for each other: {' -> '.join(circle)}.",
        remedy="Conditions must not form a circle; remove one of them.",
        parameter=start,
    )


def _check_reachable(ordered: Iterable[Parameter]) -> None:
    """Refuse a parameter that can never count.

    Conditions are joined by "and" only, its parents' conditions included, so a parameter can count
    exactly when the values asked of each of its ancestors have one in common.
    """
    needs: dict[str, dict[str, tuple[Scalar, ...]]] = {}
    for parameter in ordered:
        own: dict[str, tuple[Scalar, ...]] = {}
        for condition in parameter.conditions:
            for name, values in (*needs[condition.parent].items(), (condition.parent, condition.values)):
                own[name] = tuple(value for value in own.get(name, values) if _is_in(value, values))
                if not own[name]:
                    raise SpaceError(
                        f"{parameter.name} can never count: its conditions ask for values of {name} that "
                        "exclude each other.",
                        remedy="All conditions must hold at once, those of its parents too; relax one.",
                        parameter=parameter.name,
                    )
        needs[parameter.name] = own


def _in_counting_order(ordered: Sequence[Parameter], children: Mapping[str, frozenset[str]]) -> Iterator[Parameter]:
    """Yield parents before children, finishing what was begun before beginning anew.

    Each step takes the parameter that leaves the fewest children pending: undecided, with a decided parent.
    """
    waiting, decided, pending = list(ordered), set[str](), frozenset[str]()
    while waiting:
        ready = (p for p in waiting if all(c.parent in decided for c in p.conditions))
        chosen = min(ready, key=lambda p: len((pending | children[p.name]) - {p.name}))
        waiting = [p for p in waiting if p is not chosen]
        decided.add(chosen.name)
        pending = (pending | children[chosen.name]) - {chosen.name}
        yield chosen


def _given(parameter: Parameter, values: Mapping[str, Scalar]) -> Scalar:
    if parameter.name not in values:
        why = f" ({' and '.join(map(str, parameter.conditions))})" if parameter.conditions else ""
        raise SpaceError(
            f"{_point(values)} has no value for {parameter.name}, which counts there{why}.",
            remedy=f"Choose from {', '.join(map(_text, parameter.choices))}.",
            parameter=parameter.name,
        )
    return values[parameter.name]


def _checked(parameter: Parameter, value: Scalar) -> Scalar:
    if not parameter.accepts(value):
        raise SpaceError(
            f"{parameter.name} = {_text(value)} is not among its choices.",
            remedy=_nearest_choice(value, parameter),
            parameter=parameter.name,
        )
    return value


def _unknown_parameter(name: str, known: Iterable[str]) -> SpaceError:
    return SpaceError(f"there is no parameter {name}.", remedy=_nearest_text(name, known), parameter=name)


def _nearest_text(word: str, known: Iterable[str]) -> str:
    """Propose the known word that looks most alike; list them all where none does."""
    words = sorted(known)
    close = difflib.get_close_matches(word, words, n=1)
    if close:
        return f"Did you mean {close[0]}?"
    return f"Choose from {', '.join(words)}." if words else "There are none."


def _nearest_choice(value: object, parameter: Parameter) -> str:
    """Propose the choice nearest to a value: by size among numbers, by spelling otherwise."""
    choices = f"Choose from {', '.join(map(_text, parameter.choices))}"
    twin = next((c for c in parameter.choices if c == value or str(c).lower() == str(value).lower()), None)
    if twin is not None:
        return f"{choices}: did you mean {_text(twin)}? Type matters: 1, 1.0, true and text differ."
    numbers = [c for c in parameter.choices if isinstance(c, int | float) and not isinstance(c, bool)]
    if numbers and isinstance(value, int | float) and math.isfinite(value):
        distance = [abs(number - value) for number in numbers]
        return f"{choices}; the nearest is {_text(numbers[distance.index(min(distance))])}."
    close = difflib.get_close_matches(str(value), [c for c in parameter.choices if isinstance(c, str)], n=1)
    return f"{choices}; did you mean {_text(close[0])}?" if close else f"{choices}."
