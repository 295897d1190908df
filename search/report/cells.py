"""Fields and tables of the page: what is read, what it is sorted by, and what goes into the CSV file."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from search.report.words import figure
from search.types import OBJECTIVES, Trial


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One field of a table: what is read, and what it is sorted by (a number, or text)."""

    text: str
    sort: float | str
    numeric: bool = False
    trial: bool = False
    """Whether it is a trial's number: a click shows its card."""
    bar: float | None = None
    """A share to draw behind the text, in percent of the cell."""
    quiet: bool = False
    """Whether it is not to be leaned on: it is shown muted."""
    wraps: bool = False
    """Whether it is a sentence, which may take several lines."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """A table that sorts by a click on a column's head and is kept as CSV under its name."""

    name: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    numeric: tuple[bool, ...]


def table(name: str, columns: Sequence[str], rows: Sequence[tuple[Cell, ...]], *, words: Collection[str]) -> Table:
    """Return a table; `words` names the columns that hold text and sort by it."""
    return Table(name=name, columns=tuple(columns), rows=tuple(rows), numeric=tuple(c not in words for c in columns))


def number_cell(objective: str, value: float | None) -> Cell:
    """Return a figure without its unit; a dash, sorted last, where it is not known."""
    return Cell(text=figure(objective, value), sort=sort_key(value), numeric=True)


def change_cell(objective: str, value: float | None, *, clear: bool = True) -> Cell:
    """Return a difference with its sign; muted and marked where its interval holds zero."""
    if value is None:
        return number_cell(objective, None)
    sign = "−" if value < 0 else "+"
    mark = "" if clear else "≈ "
    return Cell(
        text=f"{mark}{sign}{figure(objective, abs(value))}", sort=sort_key(value), numeric=True, quiet=not clear
    )


def rate_cell(value: float | None) -> Cell:
    """Return a ratio to three digits."""
    return Cell(text="–" if value is None else f"{value:.3g}", sort=sort_key(value), numeric=True)


def gain_cell(quality: str, value: float | None) -> Cell:
    """Return what is gained over doing nothing."""
    text = "–" if value is None else f"{value:+.{OBJECTIVES[quality].decimals}f}"
    return Cell(text=text, sort=sort_key(value), numeric=True)


def share_cell(value: float | None) -> Cell:
    """Return a share as a number of two decimals."""
    return Cell(text="–" if value is None else f"{value:.2f}", sort=sort_key(value), numeric=True)


def percent_cell(value: float | None) -> Cell:
    """Return a share in percent, with a bar behind it."""
    if value is None:
        return share_cell(None)
    return Cell(text=f"{value:.0%}", sort=f"{value:.4f}", numeric=True, bar=round(100 * value, 1))


def trial_cell(trial: Trial | None) -> Cell:
    """Return a trial's number; one that stands for a network can be opened."""
    if trial is None:
        return count_cell(None)
    return Cell(text=f"{trial.number:,}", sort=trial.number, numeric=True, trial=trial.config is not None)


def count_cell(value: int | None) -> Cell:
    """Return a number of things."""
    return Cell(text="–" if value is None else f"{value:,}", sort="" if value is None else value, numeric=True)


def text_cell(text: str, *, quiet: bool = False, wraps: bool = False) -> Cell:
    """Return words; a dash is sorted last."""
    return Cell(text=text, sort="" if text == "–" else text, quiet=quiet, wraps=wraps)


def sort_key(value: float | None) -> float | str:
    """Return what a number is sorted by; the page puts an empty one last either way."""
    return "" if value is None else float(f"{value:.6g}")
