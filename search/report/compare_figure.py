"""The figure of a comparison: the fronts of several runs over one another, and below them who leads where.

Colours are Okabe and Ito's; each run has a marker, a line style and a row of its own as well, so no meaning rests on a
colour alone.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullFormatter, NullLocator

from search.report.compare import Band, ComparedRun, Comparison, merged_bands
from search.report.figures import DPI, LIGHT, Theme, fitted_floor, log_ticks, plain
from search.report.seeds import ShownInterval, shown_interval
from search.report.words import baseline_name, describe_task
from search.types import OBJECTIVES, Trial

LEFT = 0.125
"""Where the panels begin, as a share of the width: room for the runs' names."""
LEGEND_COLUMNS = 3
CAPTION_LINES = 4
_COLOURS = ("#0072b2", "#d55e00", "#cc79a7", "#e69f00", "#56b4e9", "#009e73")
_MARKERS = "osD^vP"
_LINES = ("-", "--", "-.", ":", (0, (6, 2, 1, 2)), (0, (1, 1)))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Style:
    """How one run is drawn."""

    color: str
    marker: str
    line: str | tuple[int, tuple[int, ...]]


def draw_comparison(comparison: Comparison, theme: Theme = LIGHT) -> Figure:
    """Draw the fronts of a comparison over one another, and a row for each run with the bands that it leads.

    A full block is a lead that the intervals confirm, a hollow one a lead that may be the choice of images. Runs beyond
    six repeat colours, with other lines.
    """
    rows = len(comparison.runs)
    foot = 1.15 + 0.2 * _legend_rows(rows)
    height = 4.0 + foot + 0.22 * rows
    canvas = Figure(figsize=(9.0, height), dpi=DPI, facecolor=theme.paper)
    FigureCanvasAgg(canvas)
    panel, strip = canvas.subplots(2, 1, sharex=True, height_ratios=(4.0, 0.22 * rows + 0.1))
    canvas.subplots_adjust(left=LEFT, right=0.97, top=1 - 0.5 / height, bottom=foot / height, hspace=0.06)
    styles = [_style_of(place) for place in range(rows)]
    low, high = _extent(comparison)
    for run, style in zip(comparison.runs, styles, strict=True):
        _draw_front(panel, run, comparison.cost, style, high, theme)
    _draw_baseline(panel, comparison, theme)
    _draw_bands(strip, comparison, styles, high)
    _dress(panel, strip, comparison, (low, high), theme)
    title = "  ·  ".join(("Fronts compared", describe_task(comparison.runs[0].study)))
    canvas.text(LEFT, 1 - 0.32 / height, title, color=theme.ink, fontsize=13, fontweight="bold", ha="left")
    _legend(canvas, panel, theme, (foot - 0.45) / height)
    canvas.text(LEFT, 0.1 / height, _caption(comparison), color=theme.muted, fontsize=8, ha="left", va="bottom")
    return canvas


def _style_of(place: int) -> _Style:
    kinds = len(_COLOURS)
    return _Style(
        color=_COLOURS[place % kinds],
        marker=_MARKERS[place % kinds],
        line=_LINES[(place + place // kinds) % kinds],
    )


def _extent(comparison: Comparison) -> tuple[float, float]:
    """Return the ends of the cost axis, with room around the members."""
    costs = [_known(t.value(comparison.cost)) for run in comparison.runs for t in run.front]
    if not costs:
        return 1.0, 10.0
    room = max((max(costs) / min(costs)) ** 0.08, 1.1)
    return min(costs) / room, max(costs) * room


def _draw_front(axes: Axes, run: ComparedRun, cost: str, style: _Style, end: float, theme: Theme) -> None:
    """Draw members, joined by steps: up to the next one's cost, the last one's quality is the best."""
    xs = [_known(t.value(cost)) for t in run.front]
    ys = [_known(t.value("psnr_db")) for t in run.front]
    if not xs:
        axes.plot([], [], color=style.color, linestyle=style.line, label=f"{run.label}: nothing complete")
        return
    axes.step([*xs, end], [*ys, ys[-1]], where="post", color=style.color, linestyle=style.line, linewidth=1.5, zorder=3)
    for trial, interval in _intervals(run):
        x = _known(trial.value(cost))
        axes.plot(
            [x, x], [interval.ends.low, interval.ends.high], color=style.color, linewidth=1.0, alpha=0.4, zorder=2
        )
    style_of_points = {"marker": style.marker, "markersize": 7.5, "markeredgecolor": theme.paper}
    axes.plot(xs, ys, color=style.color, linewidth=0, zorder=4, **style_of_points)
    axes.plot([], [], color=style.color, linestyle=style.line, label=run.label, **style_of_points)


def _draw_baseline(axes: Axes, comparison: Comparison, theme: Theme) -> None:
    value = comparison.baseline_psnr_db
    if value is None:
        return
    style: dict[str, Any] = {"color": theme.baseline, "linewidth": 1.4, "linestyle": (0, (5, 3)), "zorder": 1}
    name = f"{baseline_name(comparison.runs[0].study)} {value:.2f} dB"
    if value < fitted_floor("psnr_db", _core(comparison)):
        axes.plot([], [], label=f"{name}, below the axis", **style)
    else:
        axes.axhline(value, label=name, **style)


def _intervals(run: ComparedRun) -> list[tuple[Trial, ShownInterval]]:
    """Return the intervals of a front's members, where they are known."""
    known = [(t, shown_interval(run.study, t)) for t in run.front]
    return [(trial, interval) for trial, interval in known if interval is not None]


def _core(comparison: Comparison) -> list[float]:
    """Return what the quality axis is fitted to: all members of the fronts, with their intervals."""
    values = [_known(t.value("psnr_db")) for run in comparison.runs for t in run.front]
    intervals = [i.ends for run in comparison.runs for _, i in _intervals(run)]
    return [*values, *(i.low for i in intervals), *(i.high for i in intervals)]


def _draw_bands(axes: Axes, comparison: Comparison, styles: Sequence[_Style], end: float) -> None:
    places = {run.label: place for place, run in enumerate(comparison.runs)}
    for group in merged_bands(comparison.bands):
        place, style = places[group[0].winner], styles[places[group[0].winner]]
        start, stop = _ends(group, end)
        filled = style.color if group[0].is_clear else "none"
        axes.barh(
            -place,
            stop - start,
            left=start,
            height=0.62,
            facecolor=filled,
            edgecolor=style.color,
            linewidth=1.3,
            zorder=3,
        )


def _ends(group: Sequence[Band], end: float) -> tuple[float, float]:
    return group[0].low, end if group[-1].high is None else group[-1].high


def _dress(panel: Axes, strip: Axes, comparison: Comparison, extent: tuple[float, float], theme: Theme) -> None:
    """Set scales, ticks, labels and colours of both panels."""
    for axes in (panel, strip):
        axes.set_xscale("log")
        axes.set_xlim(*extent)
        axes.set_facecolor(theme.paper)
        axes.tick_params(colors=theme.muted, labelsize=9, length=3)
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.set_axisbelow(True)
        axes.grid(visible=True, color=theme.grid, linewidth=0.8)
        for side, spine in axes.spines.items():
            spine.set_visible(side in ("left", "bottom"))
            spine.set_color(theme.stopped)
    strip.xaxis.set_major_locator(FixedLocator(log_ticks(*extent)))
    strip.xaxis.set_major_formatter(FuncFormatter(lambda value, _: plain(value)))
    panel.tick_params(axis="x", labelbottom=False)
    strip.set_yticks([-place for place in range(len(comparison.runs))], [_short(run.label) for run in comparison.runs])
    strip.set_ylim(-len(comparison.runs) + 0.4, 0.6)
    strip.grid(visible=False, axis="y")
    panel.set_ylabel(OBJECTIVES["psnr_db"].label, color=theme.ink, fontsize=10)
    label = OBJECTIVES[comparison.cost].label
    strip.set_xlabel(label if label[:2].isupper() else label[0].upper() + label[1:], color=theme.ink, fontsize=10)
    if comparison.reference is None:
        panel.text(
            0.5,
            0.5,
            "no candidate is complete yet",
            transform=panel.transAxes,
            ha="center",
            color=theme.muted,
            fontsize=11,
        )


def _legend(canvas: Figure, panel: Axes, theme: Theme, top: float) -> None:
    handles, names = panel.get_legend_handles_labels()
    canvas.legend(
        handles,
        names,
        loc="upper center",
        bbox_to_anchor=(0.5, top),
        ncols=min(LEGEND_COLUMNS, len(names)),
        frameon=False,
        labelcolor=theme.ink,
        fontsize=8.5,
    )


def _legend_rows(runs: int) -> int:
    return -(-(runs + 1) // LEGEND_COLUMNS)


def _caption(comparison: Comparison) -> str:
    reasons = [f"not compared on {name} ({why})" for name, why in comparison.why_not.items()]
    parts = [
        comparison.cost_conditions,
        *reasons,
        *_bar_words(comparison),
        "blocks: who leads at no more than that cost; full: clearly, hollow: it may be the choice of images",
    ]
    texts = [part for part in (*parts, *(text.rstrip(".") for text in comparison.caveats)) if part]
    lines = textwrap.wrap("  ·  ".join(texts), 130)
    cut = len(lines) > CAPTION_LINES
    return "\n".join(lines[:CAPTION_LINES]) + (" …" if cut else "")


def _bar_words(comparison: Comparison) -> list[str]:
    terms = dict.fromkeys(i.term for run in comparison.runs for _, i in _intervals(run))
    return [f"bars: {' or '.join(terms)}"] if terms else []


def _short(label: str) -> str:
    return label if len(label) <= 12 else "…" + label[-11:]


def _known(value: float | None) -> float:
    """Return a figure that is known to be there: members of a front have both."""
    if value is None:
        raise ValueError("a member of a front lacks a figure: draw fronts of `compare_runs` only.")
    return value
