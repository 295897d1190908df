"""Read the choices of a dimension: a list, a range `{min, max, step}`, `{choices: …}`, or one value."""

from __future__ import annotations

import difflib
import math
from dataclasses import dataclass
from typing import Any

from search.experiment.table import Dimension
from search.experiment.values import OneOf, Values
from search.experiment.yaml_lines import Document, KeyPath, decimal_point, shown
from search.types import Scalar, SpecError

MAX_CHOICES = 1000
_KINDS = {int: "a whole number", float: "a number", str: "a word", bool: "true or false"}
_RANGE_RULE = "A range is written {min: 1, max: 4, step: 1}; whole numbers may leave the step out."
_LONG_RULE = "The long form is {choices: […], when: {other_dimension: [values]}}."


@dataclass(frozen=True, slots=True)
class Entry:
    """What a file says about one dimension, or a part of that."""

    document: Document
    dimension: Dimension
    path: KeyPath
    body: Any

    def part(self, key: str | int, body: Any) -> Entry:
        """Return what stands under a key or at a position."""
        return Entry(self.document, self.dimension, (*self.path, key), body)

    def without(self, key: str) -> Entry:
        """Return the same without one of its keys."""
        rest = {name: value for name, value in self.body.items() if name != key}
        return Entry(self.document, self.dimension, self.path, rest)

    def fault(self, problem: str, remedy: str) -> SpecError:
        """Return the error for it, with its line and its name."""
        return self.document.fault(self.path, problem, remedy)


def choices_of(entry: Entry) -> tuple[Scalar, ...]:
    """Return the choices that were written as a list, a range or one value, in the short or the long form."""
    if not isinstance(entry.body, dict) or "choices" not in entry.body:
        return _short_form(entry)
    for key in entry.body:
        if key != "choices":
            raise entry.part(key, None).fault("unknown key.", _LONG_RULE)
    return _short_form(entry.part("choices", entry.body["choices"]))


def _short_form(entry: Entry) -> tuple[Scalar, ...]:
    body, rule = entry.body, entry.dimension.rule
    if not isinstance(body, dict | list):
        return (one_value(entry, entry.dimension, body),)
    if not body:
        raise entry.fault("names no choices.", f"Name at least one: {rule}.")
    if isinstance(body, dict):
        return _range(entry)
    items = [entry.part(i, value) for i, value in enumerate(body)]
    return distinct(entry, [one_value(item, item.dimension, item.body) for item in items])


def distinct(entry: Entry, values: list[Scalar]) -> tuple[Scalar, ...]:
    """Return the values; refuse one that stands twice, at the line of the second."""
    for i, value in enumerate(values):
        if value in values[:i]:
            raise entry.part(i, value).fault(f"{plain(value)} stands twice.", "Name each value once.")
    return tuple(values)


def _range(entry: Entry) -> tuple[Scalar, ...]:
    kind, body = entry.dimension.values.kind, entry.body
    if kind not in (int, float):
        raise entry.fault("only numbers can have a range.", f"List choices: {entry.dimension.rule}.")
    for key in body:
        if key not in ("min", "max", "step"):
            raise entry.part(key, None).fault("unknown key.", _RANGE_RULE)
    for key in ("min", "max", "step") if kind is float else ("min", "max"):
        if key not in body:
            raise entry.fault(f"the range has no {key}.", _RANGE_RULE)
    low, high = (_number(entry.part(key, body[key]), kind) for key in ("min", "max"))
    step = _number(entry.part("step", body.get("step", 1)), kind)
    return tuple(one_value(entry, entry.dimension, value) for value in _steps(entry, low, high, step))


def _steps(entry: Entry, low: float, high: float, step: float) -> list[float]:
    """Return the values of a range; the last is the largest that does not pass `high`."""
    if step <= 0 or low > high:
        key = "step" if step <= 0 else "min"
        raise entry.part(key, None).fault(
            f"a range from {low} to {high} by {step} holds nothing.", "min <= max and step > 0 must hold."
        )
    count = int((high - low) / step + 1e-9) + 1
    if count > MAX_CHOICES:
        raise entry.fault(
            f"a range from {low} to {high} by {step} holds {count} values.",
            f"At most {MAX_CHOICES} are possible; raise the step.",
        )
    values = [low + i * step for i in range(count)]
    return [round(value, 10) for value in values] if isinstance(low, float) else values


def _number(entry: Entry, kind: type) -> Any:
    value = float(entry.body) if kind is float and type(entry.body) is int else entry.body
    if type(value) is not kind or not math.isfinite(value):
        raise entry.fault(f"{shown(entry.body)} is not {_KINDS[kind]}.", decimal_point(entry.body) + _RANGE_RULE)
    return value


def one_value(entry: Entry, dimension: Dimension, value: Any) -> Scalar:
    """Check one value against a dimension: its type, then its rule."""
    values = dimension.values
    if values.kind is float and type(value) is int:
        value = float(value)
    subject = "It" if entry.dimension is dimension else dimension.name
    rule = f"{subject} takes {dimension.rule}."
    if type(value) is not values.kind:
        raise entry.fault(f"{shown(value)} is not {_KINDS[values.kind]}.", decimal_point(value) + rule)
    if not values.allows(value):
        raise entry.fault(f"{plain(value)} is not possible.", _nearest(value, values) + rule)
    return value


def _nearest(value: Any, values: Values) -> str:
    """Propose the word that looks most alike, where words are wanted."""
    words = values.members if isinstance(values, OneOf) and values.kind is str else ()
    near = difflib.get_close_matches(str(value), [str(word) for word in words], n=1)
    return f"Did you mean {near[0]}? " if near else ""


def plain(value: Any) -> str:
    """Write a value as in a file: words without quotes."""
    return value if isinstance(value, str) else shown(value)
