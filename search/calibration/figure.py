"""The figure of a calibration: the curves, and how their early order agrees with the late one."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from search.calibration.record import Record
from search.calibration.statistics import Estimate, Ordering, Table, table_of
from search.calibration.verdict import FIRST_TAU, MIDDLE_TAU, Findings
from search.counts import count
from search.report.figures import LIGHT, Theme, new_figure, plain, style_axes

LEVEL_STYLES = (("-", "front"), ("--", "knee"), (":", "baseline"))
"""Line and colour for each number of levels, in rising order; further ones begin again."""


def draw_calibration(record: Record, findings: Findings, theme: Theme = LIGHT) -> Figure:
    """Draw the curves at the left, and Kendall's tau with the last step over the ladder at the right, 1200 × 560 px."""
    table = table_of(record)
    canvas = new_figure(12.0, 5.6, theme)
    curves, agreement = canvas.subplots(1, 2, gridspec_kw={"width_ratios": (5, 7)})
    canvas.subplots_adjust(left=0.06, right=0.985, top=0.88, bottom=0.255, wspace=0.16)
    _draw_curves(curves, table, findings, theme)
    _draw_agreement(agreement, findings, theme)
    title = f"Calibration of {record.name}: how early the late order shows"
    canvas.text(0.06, 0.935, title, color=theme.ink, fontsize=13, fontweight="bold", ha="left")
    caption = textwrap.fill(f"{findings.predictor.fitted_on}. Bands: 95 %, by bootstrap over the candidates.", 190)
    canvas.text(0.06, 0.02, caption, color=theme.muted, fontsize=8, ha="left")
    return canvas


def _draw_curves(axes: Axes, table: Table, findings: Findings, theme: Theme) -> None:
    """Draw each candidate's mean over the seeds, less the mean of all candidates at that step."""
    mean = table.psnr_db.mean(axis=0)
    levels = sorted(set(table.levels))
    for place, level in enumerate(levels):
        line, colour = LEVEL_STYLES[place % len(LEVEL_STYLES)]
        for curve in mean[np.array(table.levels) == level]:
            axes.plot(table.steps, curve, line, color=getattr(theme, colour), linewidth=1.3, alpha=0.8)
        axes.plot([], [], line, color=getattr(theme, colour), linewidth=1.6, label=count(level, "level"))
    _style_steps(axes, table.steps, findings, theme)
    style_axes(axes, theme, "training steps", "PSNR (dB), mean of the seeds")
    axes.legend(loc="upper left", frameon=False, labelcolor=theme.ink, fontsize=8.5)


def _draw_agreement(axes: Axes, findings: Findings, theme: Theme) -> None:
    agreement = findings.agreement
    early = slice(None, -1)
    _style_steps(axes, agreement.steps, findings, theme)
    style_axes(axes, theme, "training steps", "Kendall's τ with the last step")
    ceiling = agreement.ceiling
    axes.axhspan(ceiling.low, ceiling.high, color=theme.grid, alpha=0.55, linewidth=0, zorder=0)
    _level_line(axes, ceiling, "between seeds", theme.muted, "-", theme)
    _level_line(axes, agreement.params.tau, "parameters alone", theme.knee, (0, (5, 2)), theme)
    _level_line(axes, agreement.macs.tau, "MACs alone", theme.baseline, (0, (1.5, 1.5)), theme)
    values = list(zip(agreement.steps, agreement.values, strict=True))[early]
    raw = list(zip(agreement.steps, agreement.raw_values, strict=True))[early]
    _course(axes, raw, "value, not averaged", theme, color=theme.dominated, marker="x", band=False)
    _course(axes, values, "value, averaged weights", theme, color=theme.front, marker="o", band=True)
    name = f"predictor: {findings.family}"
    _course(axes, findings.course, name, theme, color="#cc79a7", marker="D", band=True)
    for tau, rung in ((FIRST_TAU, 0), (MIDDLE_TAU, 1)):
        if rung < len(findings.rungs) - 1:
            axes.plot(findings.rungs[rung], tau, marker="_", color=theme.ink, markersize=16, markeredgewidth=1.6)
            axes.annotate(
                "wanted",
                (findings.rungs[rung], tau),
                xytext=(0, -11),
                textcoords="offset points",
                ha="center",
                fontsize=8,
                color=theme.ink,
            )
    low = min(0.0, *(o.tau.low for _, o in (*values, *findings.course)))
    axes.set_ylim(max(-1.0, low - 0.05), 1.02)
    axes.legend(
        loc="upper center",
        bbox_to_anchor=(0.46, -0.15),
        ncols=3,
        frameon=False,
        labelcolor=theme.ink,
        fontsize=8.5,
        columnspacing=1.4,
    )


def _course(
    axes: Axes, points: Sequence[tuple[int, Ordering]], label: str, theme: Theme, *, band: bool, **style: Any
) -> None:
    if not points:
        return
    steps, taus = [s for s, _ in points], [o.tau for _, o in points]
    if band:
        lows, highs = [t.low for t in taus], [t.high for t in taus]
        axes.fill_between(steps, lows, highs, color=style["color"], alpha=0.13, linewidth=0)
    width = 2.0 if band else 1.0
    axes.plot(steps, [t.value for t in taus], label=label, linewidth=width, markersize=4.5, zorder=4, **style)


def _level_line(axes: Axes, tau: Estimate, label: str, color: str, line: Any, theme: Theme) -> None:
    axes.axhline(tau.value, color=color, linestyle=line, linewidth=1.4, label=f"{label}: {tau.value:.2f}", zorder=2)


def _style_steps(axes: Axes, steps: Sequence[int], findings: Findings, theme: Theme) -> None:
    """Scale the steps logarithmically, with ticks at the rungs and a fine line up from each."""
    axes.set_xscale("log")
    axes.set_xlim(steps[0] / 1.08, steps[-1] * 1.08)
    shown = sorted({steps[0], *findings.rungs, *findings.recommended_rungs})
    axes.xaxis.set_major_locator(FixedLocator([float(s) for s in shown]))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: plain(value)))
    axes.xaxis.set_minor_locator(NullLocator())
    for rung in findings.rungs:
        axes.axvline(rung, color=theme.stopped, linewidth=1.0, zorder=1)
