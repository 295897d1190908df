"""Figures of a comparison of samplers: how far each is from the true front, and how far rungs tell the order."""

from __future__ import annotations

import textwrap

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullLocator

from search.pareto import Floats
from search.report.figures import DPI, LIGHT, Theme, log_ticks, plain
from search.tabular.fidelity import Agreement, Fidelity
from search.tabular.summary import Contender, mean_of
from search.tabular.table import Table

COLOURS = ("#d55e00", "#0072b2", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#5b636d", "#1b1f24")
LINES = ("-", "--", "-.", ":", (0, (6, 2, 1, 2)), (0, (1, 1)))
LEAST_REGRET = 1e-3
POINTS = 60
"""Places along a curve."""


def draw_courses(table: Table, contenders: tuple[Contender, ...], *, title: str, theme: Theme = LIGHT) -> Figure:
    """Draw what is missing to the true front's volume, mean and 95 % interval over seeds, over the training steps.

    Both axes are logarithmic; a curve begins with the first candidate that was trained to the last rung.
    """
    canvas, panel = _panel((9.0, 5.6), theme)
    ends = [contender.courses[0].steps[-1] for contender in contenders]
    first = table.steps[-1] * 4
    for place, contender in enumerate(contenders):
        steps = np.geomspace(min(first, max(ends) / 2), min(c.steps[-1] for c in contender.courses), POINTS)
        missing = np.array([1.0 - _shares_at_steps(contender, count) for count in steps])
        bands = [mean_of(row) for row in missing]
        colour, line = COLOURS[place % len(COLOURS)], LINES[place % len(LINES)]
        panel.plot(steps, [max(b.mean, LEAST_REGRET) for b in bands], line, color=colour, label=contender.label)  # pyright: ignore[reportArgumentType]
        lows, highs = ([max(value, LEAST_REGRET) for value in side] for side in zip(*[b[1:] for b in bands]))  # noqa: B905
        panel.fill_between(steps, lows, highs, color=colour, alpha=0.12, linewidth=0)
    panel.set_xscale("log")
    panel.set_yscale("log")
    panel.set_xlabel(f"trained {'epochs' if table.name.startswith('nb201') else 'steps'}, all candidates together")
    panel.set_ylabel("share of the true front's volume that is missing")
    _log_axis(panel)
    panel.legend(frameon=False, fontsize=9, labelcolor=theme.ink)
    _title(canvas, title, f"mean and 95 % interval over {len(contenders[0].courses)} seeds; {table.conditions}", theme)
    return canvas


def draw_fidelity(table: Table, fidelity: Fidelity, theme: Theme = LIGHT) -> Figure:
    """Draw Kendall's tau of each rung against the last, with the agreement of two seeds as what can be had."""
    canvas, panel = _panel((7.5, 4.6), theme)
    steps = table.steps[:-1]
    _draw_agreements(panel, steps, fidelity.by_rung, "same seed", COLOURS[0], "o-")
    if fidelity.across_rungs is not None:
        _draw_agreements(panel, steps, fidelity.across_rungs, "another seed", COLOURS[1], "s--")
    if fidelity.seeds is not None:
        panel.axhline(fidelity.seeds.tau, color=theme.muted, linestyle=":", label="two seeds at the last rung")
    panel.axhline(abs(fidelity.by_cost.tau), color=theme.muted, linestyle="-.", label=f"order by {table.cost} alone")
    panel.set_xscale("log")
    panel.set_xticks(steps, [str(step) for step in steps])
    panel.xaxis.set_minor_locator(NullLocator())
    panel.set_ylim(top=1.0)
    panel.set_xlabel("training steps of the rung")
    panel.set_ylabel(f"Kendall's tau to step {table.steps[-1]}")
    panel.legend(frameon=False, fontsize=9, labelcolor=theme.ink)
    _title(canvas, f"Do short trainings tell the order?  ·  table {table.name}", table.conditions, theme)
    return canvas


def _shares_at_steps(contender: Contender, count: float) -> Floats:
    """Return [seeds] the share that was reached within so many steps."""
    return np.array(
        [
            course.shares[position - 1]
            if (position := int(np.searchsorted(course.steps, count, side="right")))
            else 0.0
            for course in contender.courses
        ]
    )


def _draw_agreements(
    panel: Axes, steps: tuple[int, ...], found: tuple[Agreement, ...], label: str, colour: str, style: str
) -> None:
    taus = np.array([agreement.tau for agreement in found])
    reach = np.array([(a.tau - a.low, a.high - a.tau) for a in found]).T.clip(min=0.0)
    panel.errorbar(steps, taus, yerr=reach, fmt=style, color=colour, capsize=3, label=label)


def _panel(size: tuple[float, float], theme: Theme) -> tuple[Figure, Axes]:
    canvas = Figure(figsize=size, dpi=DPI, facecolor=theme.paper)
    FigureCanvasAgg(canvas)
    panel = canvas.subplots()
    canvas.subplots_adjust(left=0.11, right=0.97, top=0.86, bottom=0.13)
    panel.set_facecolor(theme.paper)
    panel.grid(color=theme.grid, linewidth=0.8)
    panel.tick_params(colors=theme.muted, labelsize=9)
    for spine in panel.spines.values():
        spine.set_color(theme.grid)
    for axis in (panel.xaxis, panel.yaxis):
        axis.label.set_color(theme.ink)
    return canvas, panel


def _log_axis(panel: Axes) -> None:
    for axis, limits in ((panel.xaxis, panel.get_xlim()), (panel.yaxis, panel.get_ylim())):
        axis.set_ticks(log_ticks(*limits))
        axis.set_major_formatter(FuncFormatter(lambda value, place: plain(value)))
        axis.set_minor_locator(NullLocator())


def _title(canvas: Figure, title: str, below: str, theme: Theme) -> None:
    canvas.text(0.11, 0.95, title, color=theme.ink, fontsize=13, fontweight="bold", ha="left")
    columns = int(14 * canvas.get_figwidth())
    canvas.text(0.11, 0.935, textwrap.fill(below, columns), color=theme.muted, fontsize=8, ha="left", va="top")
