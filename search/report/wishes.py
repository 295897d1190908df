"""Bounds on what is chosen: how they are written, what is held against them, and who misses them.

A latency is held with its whole 95 % interval: an upper bound is kept only if the upper end keeps it, as in the
budget's gate, and the lower bound of a range only if the lower end does. Every other figure is held as it is.
"""

from __future__ import annotations

import difflib
import math
import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal, cast

from search.types import OBJECTIVES, InputError, Trial

Op = Literal["<", "<=", ">", ">="]
_KEEPS: Mapping[Op, Callable[[float, float], bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
_NUMBER = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"
_ONE_SIDE = re.compile(rf"(<=|>=|<|>|)\s*({_NUMBER})")
_RANGE = re.compile(rf"({_NUMBER})\s*\.\.\s*({_NUMBER})")


@dataclass(frozen=True, slots=True)
class Wish:
    """One bound on what is chosen.

    Args:
        objective: A name in `search.types.OBJECTIVES`.
        op: From which side: `<` or `<=` for at most, `>` or `>=` for at least.
        value: The bound, in the objective's unit.

    Raises:
        InputError: If the objective is unknown, or the value is not finite.
    """

    objective: str
    op: Op
    value: float

    def __post_init__(self) -> None:
        """Check the name and the value."""
        check_name(self.objective)
        if not math.isfinite(self.value):
            raise InputError(f"{self}: a bound is a finite number.\n  Leave the bound out where there is none.")

    def __str__(self) -> str:
        return f"{self.objective} {self.op} {self.value:g}"

    @property
    def is_upper(self) -> bool:
        """Whether it bounds from above."""
        return self.op in ("<", "<=")

    def held(self, trial: Trial) -> float | None:
        """Return the figure that is held against the bound, of a latency an end of its interval; None if unknown."""
        value = trial.value(self.objective)
        if self.objective == "latency_ms" and trial.cost is not None and trial.cost.latency is not None:
            value = trial.cost.latency.high_ms if self.is_upper else trial.cost.latency.low_ms
        return value if value is not None and math.isfinite(value) else None

    def is_met(self, trial: Trial) -> bool:
        """Say whether a trial keeps to the bound; one whose figure is not known does not."""
        value = self.held(trial)
        return value is not None and _KEEPS[self.op](value, self.value)

    def excess(self, trial: Trial) -> float:
        """Return by how much a trial misses the bound, in the objective's unit; 0 where not, infinite if unknown."""
        value = self.held(trial)
        if value is None:
            return float("inf")
        return max(0.0, value - self.value if self.is_upper else self.value - value)


@dataclass(frozen=True, slots=True)
class Miss:
    """A bound that a trial misses.

    Args:
        wish: The bound.
        value: The figure that was held against it; None where it is not known.
        excess: By how much, in the objective's unit, >= 0; infinite where the figure is not known.
    """

    wish: Wish
    value: float | None
    excess: float

    def __str__(self) -> str:
        if self.value is None:
            return f"{self.wish.objective} is not known ({self.wish})"
        name, decimals = self.wish.objective, OBJECTIVES[self.wish.objective].decimals
        end = f" at the {'upper' if self.wish.is_upper else 'lower'} end" if name == "latency_ms" else ""
        side = "over" if self.wish.is_upper else "short"
        return (
            f"{name} {self.value:.{decimals}f}{end}, not {self.wish.op} {self.wish.value:g}: "
            f"{self.excess:.{decimals}f} {side}"
        )


def parse_wishes(objective: str, text: str) -> tuple[Wish, ...]:
    """Read a bound as it is written on the command line.

    Args:
        objective: A name in `search.types.OBJECTIVES`.
        text: `<20`, `<=20`, `>33.5`, `>=33.5`, a range `20..40` (both ends included), or a bare number: at most this
            of a cost, at least this of a quality.

    Returns:
        One wish, or the two of a range.

    Raises:
        InputError: If the text is no bound, bounds from the senseless side alone, or the range is empty.
    """
    check_name(objective)
    if match := _RANGE.fullmatch(text.strip()):
        low, high = float(match[1]), float(match[2])
        if low > high:
            raise InputError(
                f"{objective} {text}: the range is empty.\n  Write the smaller end first: {high:g}..{low:g}."
            )
        return Wish(objective, ">=", low), Wish(objective, "<=", high)
    if match := _ONE_SIDE.fullmatch(text.strip()):
        return (one_sided(objective, cast(Op, match[1] or sensible_op(objective)), float(match[2])),)
    raise InputError(
        f'{objective} {text}: this is no bound.\n  Write "<20", "<=20", ">20", a range 20..40, or a number alone.'
    )


def one_sided(objective: str, op: Op, value: float) -> Wish:
    """Return a bound that stands alone.

    Raises:
        InputError: If it bounds a cost from below or a quality from above, which shuts out the best.
    """
    wish = Wish(objective, op, value)
    fits = sensible_op(objective)
    if op[0] != fits[0]:
        kind = "a quality: it has a floor" if fits == ">=" else "a cost: it has an upper limit"
        raise InputError(
            f"{wish}: {objective} is {kind}.\n  Write {objective} {fits} {value:g}, or a range, low..high."
        )
    return wish


def sensible_op(objective: str) -> Op:
    """Return the side from which a figure is bounded: at most of a cost, at least of a quality."""
    return ">=" if OBJECTIVES[objective].maximise else "<="


def misses(wishes: tuple[Wish, ...], trial: Trial) -> tuple[Miss, ...]:
    """Return the bounds that a trial misses, in the order in which they are given."""
    return tuple(Miss(w, w.held(trial), w.excess(trial)) for w in wishes if not w.is_met(trial))


def check_name(name: str) -> None:
    """Refuse what is no figure.

    Raises:
        InputError: With the nearest name.
    """
    if name not in OBJECTIVES:
        close = difflib.get_close_matches(name, OBJECTIVES, n=1)
        hint = f"Did you mean {close[0]}?" if close else f"Choose from {', '.join(OBJECTIVES)}."
        raise InputError(f"there is no figure {name} to choose by.\n  {hint}")
