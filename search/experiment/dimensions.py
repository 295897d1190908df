"""The space section: from what a file says of the network's dimensions to a search space.

A dimension is written as a list of choices, a range `{min, max, step}`, or one fixed value; the long form
`{choices: […], when: {other: […]}}` adds a condition. Which dimension belongs under which (no window size without
attention) is known from the table and need not be written.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping

from search.experiment.choices import Entry, choices_of, distinct, one_value, plain
from search.experiment.table import DIMENSIONS, Dimension, Needs
from search.experiment.yaml_lines import Document, KeyPath, shown
from search.space import Condition, Parameter, SearchSpace, SpaceError
from search.types import Scalar, SpecError

Known = Mapping[str, Parameter]
"""The parameters made so far, by name; a dimension may depend on these only."""


def build_space(document: Document) -> SearchSpace:
    """Build the search space of a file's `space` section; what it does not name is fixed at its default.

    Raises:
        SpecError: On the first fault, with its line.
    """
    section = document.data["space"]
    for key in section:
        if key not in DIMENSIONS:
            raise document.fault(("space", key), "unknown dimension.", _nearest(key, DIMENSIONS))
    known: dict[str, Parameter] = {}
    for name, dimension in DIMENSIONS.items():
        if name in section:
            made = _read(Entry(document, dimension, ("space", name), section[name]), known)
        else:
            made = _default(dimension, known)
        known |= {parameter.name: parameter for parameter in made}
    return _joined(document, known)


def _joined(document: Document, known: Known) -> SearchSpace:
    try:
        return SearchSpace(list(known.values()))
    except SpaceError as error:
        name = error.parameter or ""
        problem = error.problem.removeprefix(name).lstrip()
        path: KeyPath = ("space", name.split(".")[0]) if name else ("space",)
        raise document.fault(path, problem, error.remedy) from error


def _default(dimension: Dimension, known: Known) -> list[Parameter]:
    """Return what stands for a dimension that the file does not name: nothing where it never counts."""
    if not _may_count(dimension.needs, known):
        return []
    choices = (dimension.default,)
    if dimension.per_level:
        return _for_each_level(dimension, dict.fromkeys(_levels(known), choices), known)
    return [Parameter(dimension.name, choices, _table_conditions(dimension, known))]


def _read(entry: Entry, known: Known) -> list[Parameter]:
    """Return the one parameter that the file makes of a dimension, or one for each level."""
    dimension = entry.dimension
    if dimension.needs is not None and not _may_count(dimension.needs, known):
        raise _never_counts(entry, dimension.needs, known)
    conditions = _table_conditions(dimension, known)
    if isinstance(entry.body, dict) and "when" in entry.body:
        conditions += _user_conditions(entry.part("when", entry.body["when"]), known)
        entry = entry.without("when")
    if dimension.per_level:
        return _for_each_level(dimension, _by_level(entry, _levels(known)), known)
    return [Parameter(dimension.name, choices_of(entry), conditions)]


def _may_count(needs: Needs | None, known: Known) -> bool:
    return needs is None or any(needs.holds(value) for value in _values_of(needs.parent, known))


def _values_of(name: str, known: Known) -> tuple[Scalar, ...]:
    """Return what a dimension may be; its default where it never counts."""
    return known[name].choices if name in known else (DIMENSIONS[name].default,)


def _never_counts(entry: Entry, needs: Needs, known: Known) -> SpecError:
    """Return the error for a dimension whose parent never takes a value that it needs, and for all that fare alike."""
    document, always = entry.document, " or ".join(map(plain, _values_of(needs.parent, known)))
    idle = _idle_with(needs, document.data["space"], known)
    others = [name for name in idle if name != entry.dimension.name]
    nor = f"; nor can {', '.join(others)}" if others else ""
    by_hand = " ".join(f"--set space.{name}=" for name in idle) if document.is_override(("space", needs.parent)) else ""
    return entry.fault(
        f"can never count, for {needs.parent} is always {always}{nor}.",
        f"It counts only where {needs.parent} is {needs.text}. Allow that in space.{needs.parent}, or remove "
        f"{', '.join(idle)}{f' too ({by_hand})' if by_hand else ''}.",
    )


def _idle_with(needs: Needs, section: Mapping[str, object], known: Known) -> list[str]:
    """Return what of a section never counts for want of what is needed, or because what it hangs on does not."""
    idle = {needs.parent: _values_of(needs.parent, known)}
    for other in DIMENSIONS.values():
        wants = other.needs
        if wants is not None and wants.parent in idle and not any(map(wants.holds, idle[wants.parent])):
            idle[other.name] = (other.default,)
    return [name for name in idle if name in section and name != needs.parent]


def _table_conditions(dimension: Dimension, known: Known) -> tuple[Condition, ...]:
    """Return the condition that the table knows, unless it always holds."""
    needs = dimension.needs
    if needs is None:
        return ()
    parent = known[needs.parent]
    values = tuple(value for value in parent.choices if needs.holds(value))
    always = len(values) == len(parent.choices) and not parent.conditions
    return () if always else (Condition(needs.parent, values),)


def _user_conditions(when: Entry, known: Known) -> tuple[Condition, ...]:
    """Return the conditions of a file's `when`."""
    dimension = when.dimension
    if dimension.off is None:
        can = ", ".join(d.name for d in DIMENSIONS.values() if d.off is not None)
        raise when.fault(f"{dimension.name} cannot be switched off.", f"Remove `when`; it fits {can}.")
    if not isinstance(when.body, dict) or not when.body:
        raise when.fault(f"{shown(when.body)} is no condition.", "Write when: {other_dimension: [values]}.")
    return tuple(_user_condition(when.part(key, body), key, known) for key, body in when.body.items())


def _user_condition(entry: Entry, parent: str, known: Known) -> Condition:
    _require_decided_before(entry, parent, known)
    wanted = entry.body if isinstance(entry.body, list) else [entry.body]
    values = distinct(entry, [one_value(entry, DIMENSIONS[parent], value) for value in wanted])
    choices = known[parent].choices
    never = [value for value in values if value not in choices]
    if never or not values:
        raise entry.fault(
            f"{parent} is never {plain(never[0])}." if never else "the condition has no values.",
            f"space.{parent} takes {', '.join(map(plain, choices))}: name some of these.",
        )
    return Condition(parent, values)


def _require_decided_before(entry: Entry, parent: str, known: Known) -> None:
    """Refuse a condition on what is unknown, not yet decided, or not one decision."""
    fits = [name for name in known if name in DIMENSIONS]
    if parent in fits:
        return
    order = list(DIMENSIONS)
    if parent not in DIMENSIONS:
        raise entry.fault("unknown dimension.", _nearest(parent, fits))
    if parent == entry.dimension.name:
        problem = f"{parent} cannot depend on itself."
    elif order.index(parent) > order.index(entry.dimension.name):
        problem = f"{parent} is decided after {entry.dimension.name}."
    elif DIMENSIONS[parent].per_level:
        problem = f"{parent} is decided level by level, so it is not one value."
    else:
        problem = f"{parent} never counts in this space."
    raise entry.fault(problem, f"A condition looks at one of {', '.join(fits)}.")


def _levels(known: Known) -> range:
    return range(1, max(int(value) for value in known["levels"].choices) + 1)


def _for_each_level(dimension: Dimension, by_level: Mapping[int, tuple[Scalar, ...]], known: Known) -> list[Parameter]:
    """Return one parameter for each level, which counts where the network is that deep."""
    depths = known["levels"].choices
    result: list[Parameter] = []
    for level, choices in by_level.items():
        deep = tuple(depth for depth in depths if int(depth) >= level)
        conditions = () if len(deep) == len(depths) else (Condition("levels", deep),)
        result.append(Parameter(f"{dimension.name}.{level}", choices, conditions))
    return result


def _by_level(entry: Entry, levels: range) -> dict[int, tuple[Scalar, ...]]:
    """Return the choices of each level: one body for all, or a mapping from level to body."""
    body = entry.body
    if not isinstance(body, dict) or body.keys() & {"min", "max", "step", "choices"}:
        return dict.fromkeys(levels, choices_of(entry))
    names = {str(level): level for level in levels}
    rule = f"Give one entry for each level, 1 to {levels[-1]}, or one list that serves them all."
    for key in body:
        if key not in names:
            raise entry.part(key, None).fault(f"there is no level {key}.", rule)
    for name in names:
        if name not in body:
            raise entry.fault(f"level {name} is missing.", rule)
    return {level: choices_of(entry.part(name, body[name])) for name, level in names.items()}


def _nearest(word: str, known: Iterable[str]) -> str:
    """Propose the known word that looks most alike; list them all where none does."""
    words = list(known)
    near = difflib.get_close_matches(word, words, n=1)
    return f"Did you mean {near[0]}?" if near else f"Known are {', '.join(words)}."
