"""What each step up the front buys, as the page shows it: a table, the ties, and what the intervals leave out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from search.counts import count
from search.report.cells import Cell, Table, change_cell, number_cell, rate_cell, table, text_cell, trial_cell
from search.report.explain import Change, ExplainedMember, FrontExplanation, Group
from search.types import OBJECTIVES, Trial

SHORT = {"psnr_db": "PSNR", "latency_ms": "latency"}
TIES, NEXT_INTERVAL, CHEAPER_INTERVAL = "tied in", "next: 95 %", "cheaper: 95 %"

NOTHING = "–"

_Column = Callable[[ExplainedMember], Cell]


@dataclass(frozen=True, slots=True, kw_only=True)
class Tie:
    """Members that cannot be told apart: the mark that the table gives them, and which they are."""

    mark: str
    trials: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Steps:
    """The section's content.

    Args:
        table: A row for each member, from cheap to dear; a column that no member has a figure for is left out.
        order: By which cost they stand; empty where the run has none.
        ties: Groups of members.
        caveats: What the intervals leave out, as sentences.
    """

    table: Table
    order: str
    ties: tuple[Tie, ...]
    caveats: tuple[str, ...]


def front_steps(explanation: FrontExplanation) -> Steps:
    """Return what the page says of an explained front; a front without members has a table without rows."""
    members = explanation.members
    marks = _marks(explanation.groups)
    leading = ["psnr_db", explanation.cost or "latency_ms"]
    trials = {member.trial.number: member.trial for member in members}
    columns: dict[str, _Column] = {
        "trial": lambda m: trial_cell(m.trial),
        **_figure_columns(leading, members),
        **_change_columns("next", [m.upgrade for m in members], lambda m: m.upgrade, trials),
        **_rate_columns(members),
        **_figure_columns([name for name in ("latency_ms", "macs_g") if name not in leading], members),
        **_change_columns("cheaper", [m.cheaper for m in members], lambda m: m.cheaper, trials),
        **({TIES: lambda m: text_cell(_marks_of(m.trial.number, marks), quiet=True)} if marks else {}),
    }
    rows = [tuple(cell(member) for cell in columns.values()) for member in members]
    return Steps(
        table=table("steps", list(columns), rows, words=(TIES, NEXT_INTERVAL, CHEAPER_INTERVAL)),
        order="" if explanation.cost is None else OBJECTIVES[explanation.cost].label.partition(" (")[0],
        ties=tuple(_tie(mark, group) for mark, group in marks.items()),
        caveats=explanation.caveats,
    )


def _figure_columns(names: Sequence[str], members: Sequence[ExplainedMember]) -> dict[str, _Column]:
    known = [name for name in names if any(m.trial.value(name) is not None for m in members)]
    return {OBJECTIVES[name].label: _figure_column(name) for name in known}


def _figure_column(name: str) -> _Column:
    return lambda member: number_cell(name, member.trial.value(name))


def _change_columns(
    title: str,
    changes: Sequence[Change | None],
    of: Callable[[ExplainedMember], Change | None],
    trials: Mapping[int, Trial],
) -> dict[str, _Column]:
    """Return the columns of one kind of change, those that decide first; none where no member has one."""
    known = [change for change in changes if change is not None]
    if not known:
        return {}

    def column(cell: Callable[[Change], Cell], missing: Cell) -> _Column:
        return lambda member: missing if (change := of(member)) is None else cell(change)

    nothing = number_cell("psnr_db", None)
    columns = {
        title: column(lambda c: trial_cell(trials.get(c.number)), nothing),
        f"{title}: ΔPSNR (dB)": column(
            lambda c: change_cell("psnr_db", c.psnr_db, clear=c.is_clear or c.psnr_interval_db is None), nothing
        ),
    }
    if any(change.latency_ms is not None for change in known):
        columns[f"{title}: Δlatency (ms)"] = column(lambda c: change_cell("latency_ms", c.latency_ms), nothing)
    if any(change.psnr_interval_db is not None for change in known):
        columns[f"{title}: 95 %"] = column(
            lambda c: text_cell(_interval(c), quiet=True), text_cell(NOTHING, quiet=True)
        )
    if any(change.macs_g is not None for change in known):
        columns[f"{title}: ΔMACs (G)"] = column(lambda c: change_cell("macs_g", c.macs_g), nothing)
    return columns


def _rate_columns(members: Sequence[ExplainedMember]) -> dict[str, _Column]:
    """Return what the next member gives for its cost."""
    rates: dict[str, Callable[[Change], float | None]] = {
        "dB per ms": lambda change: change.db_per_ms,
        "dB per GMAC": lambda change: change.db_per_gmac,
    }
    upgrades = [member.upgrade for member in members if member.upgrade is not None]
    return {
        title: _rate_column(rate)
        for title, rate in rates.items()
        if any(rate(upgrade) is not None for upgrade in upgrades)
    }


def _rate_column(rate: Callable[[Change], float | None]) -> _Column:
    return lambda member: rate_cell(None if member.upgrade is None else rate(member.upgrade))


def _interval(change: Change) -> str:
    interval = change.psnr_interval_db
    if interval is None:
        return NOTHING
    return f"{interval.low:+.2f} to {interval.high:+.2f}".replace("-", "−")


def _marks(groups: Sequence[Group]) -> dict[str, Group]:
    """Number the groups of each kind: `PSNR 1`, `latency 1`, `latency 2`. What is alike in both is in both anyway."""
    marks: dict[str, Group] = {}
    for objective, name in SHORT.items():
        alone = [group for group in groups if group.figures == (objective,)]
        marks |= {f"{name} {place}": group for place, group in enumerate(alone, start=1)}
    both = [group for group in groups if len(group.figures) > 1]
    return marks | {f"both {place}": group for place, group in enumerate(both, start=1)}


def _marks_of(number: int, marks: Mapping[str, Group]) -> str:
    """Return a member's groups in short: `PSNR 3 to 5, latency 1`; a stretch of one kind is without gaps."""
    kinds: dict[str, list[str]] = {}
    for mark, group in marks.items():
        if number in group.numbers:
            kind, _, place = mark.partition(" ")
            kinds.setdefault(kind, []).append(place)
    return ", ".join(f"{kind} {_stretch(places)}" for kind, places in kinds.items()) or NOTHING


def _stretch(places: Sequence[str]) -> str:
    return places[0] if len(places) == 1 else f"{places[0]} to {places[-1]}"


def _tie(mark: str, group: Group) -> Tie:
    return Tie(
        mark=mark,
        trials=f"{count(len(group.numbers), 'member')}: trials {', '.join(str(n) for n in group.numbers)}",
    )
