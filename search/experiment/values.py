"""What a dimension's values may be: small sets that can test a value and describe themselves as JSON Schema."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

from search.types import Scalar


class Values(Protocol):
    """The set of values that one dimension may draw its choices from."""

    @property
    def kind(self) -> type:
        """Type of every value; values of other types are not even asked about."""
        ...

    @property
    def schema(self) -> dict[str, Any]:
        """The set as JSON Schema."""
        ...

    def allows(self, value: Any) -> bool:
        """Say whether a value of the right type is in the set."""
        ...


@dataclass(frozen=True, slots=True)
class Whole:
    """Whole numbers from `low` to `high`, both included, `step` apart."""

    low: int
    high: int
    step: int = 1

    @property
    def kind(self) -> type:
        """Type of the values."""
        return int

    @property
    def schema(self) -> dict[str, Any]:
        """Bounds; an enumeration where bounds cannot say it."""
        if self.low % self.step:
            return {"enum": list(range(self.low, self.high + 1, self.step))}
        bounds: dict[str, Any] = {"type": "integer", "minimum": self.low, "maximum": self.high}
        return bounds if self.step == 1 else {**bounds, "multipleOf": self.step}

    def allows(self, value: Any) -> bool:
        """Say whether the number is one of them."""
        return value in range(self.low, self.high + 1, self.step)


@dataclass(frozen=True, slots=True)
class Number:
    """Numbers from `low` to `high`, both included."""

    low: float
    high: float

    @property
    def kind(self) -> type:
        """Type of the values."""
        return float

    @property
    def schema(self) -> dict[str, Any]:
        """Bounds."""
        return {"type": "number", "minimum": self.low, "maximum": self.high}

    def allows(self, value: Any) -> bool:
        """Say whether the number is between the bounds; nan is not."""
        return self.low <= value <= self.high


@dataclass(frozen=True, slots=True)
class OneOf:
    """A handful of words, numbers or switches, all of one type."""

    members: tuple[Scalar, ...]

    @property
    def kind(self) -> type:
        """Type of the members."""
        return type(self.members[0])

    @property
    def schema(self) -> dict[str, Any]:
        """An enumeration."""
        return {"enum": list(self.members)}

    def allows(self, value: Any) -> bool:
        """Say whether the value is a member."""
        return value in self.members


@dataclass(frozen=True, slots=True)
class SumOf:
    """Words joined by `+`, each at most once."""

    words: tuple[str, ...]

    @property
    def kind(self) -> type:
        """Type of the values."""
        return str

    @property
    def schema(self) -> dict[str, Any]:
        """A pattern; it lets a word through twice, which `allows` does not."""
        word = "|".join(self.words)
        return {"type": "string", "pattern": rf"^({word})(\+({word}))*$"}

    def allows(self, value: Any) -> bool:
        """Say whether the text is such a sum."""
        parts = value.split("+")
        return all(part in self.words for part in parts) and len(set(parts)) == len(parts)


SWITCH = OneOf((True, False))
