"""A small scatter plot of plain characters, for terminals and logs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """One point of a plot.

    Args:
        x: Its place along the logarithmic axis, > 0.
        y: Its height.
        sign: One character; of marks in one place, the last one given is seen.
    """

    x: float
    y: float
    sign: str


def text_plot(marks: Sequence[Mark], *, x_label: str, y_label: str, columns: int = 56, rows: int = 12) -> str:
    """Draw marks over a logarithmic x axis, both axes labelled with their ends.

    Args:
        marks: In any order; those that are not finite, or not positive in x, are left out.
        x_label: Name and unit.
        y_label: Name and unit.
        columns: Characters of the panel, >= 20.
        rows: Lines of the panel, >= 3.

    Returns:
        Lines without trailing spaces; empty where there is nothing to draw.
    """
    shown = [m for m in marks if math.isfinite(m.x) and math.isfinite(m.y) and m.x > 0]
    if not shown:
        return ""
    xs, ys = [math.log(m.x) for m in shown], [m.y for m in shown]
    panel = [[" "] * columns for _ in range(rows)]
    for mark, x in zip(shown, xs, strict=True):
        row = rows - 1 - _place(mark.y, min(ys), max(ys), rows)
        panel[row][_place(x, min(xs), max(xs), columns)] = mark.sign
    top, bottom = f"{max(ys):.2f}", f"{min(ys):.2f}"
    margin = max(len(top), len(bottom))
    ticks = {0: top, rows - 1: bottom}
    lines = [y_label]
    lines += [f"{ticks.get(row, ''):>{margin}} |{''.join(cells)}" for row, cells in enumerate(panel)]
    left, right = _short(math.exp(min(xs))), _short(math.exp(max(xs)))
    lines.append(f"{'':>{margin}} +{'-' * columns}")
    lines.append(f"{'':>{margin}}  {left}{right:>{columns - len(left)}}")
    lines.append(f"{'':>{margin}}  {f'{x_label}, logarithmic':^{columns}}")
    return "\n".join(line.rstrip() for line in lines)


def _place(value: float, low: float, high: float, cells: int) -> int:
    """Return the cell of a value between two ends; the middle one where the ends are one."""
    return cells // 2 if high <= low else round((value - low) / (high - low) * (cells - 1))


def _short(value: float) -> str:
    return f"{value:.3g}" if value < 1000 else f"{value:.0f}"
