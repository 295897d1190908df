"""Figures of a run: the front, the rungs, the growth of the dominated volume.

Every figure is drawn from the records alone, by matplotlib's objects (no pyplot, no state). Colours are Okabe and
Ito's, and no meaning rests on a colour alone: shapes, sizes and labels say it as well.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from io import BytesIO
from itertools import pairwise
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Annotation, Text
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator
from matplotlib.transforms import Bbox

from search.certainty import quality_of
from search.counts import count
from search.pareto import Floats, hypervolume, minimisation_matrix, non_dominated_mask
from search.report.references import standings
from search.report.seeds import ShownInterval, shown_interval
from search.report.selection import choose_presets
from search.report.tables import front_trials, write_atomically
from search.report.words import (
    baseline_name,
    baseline_value,
    conditions_in_short,
    cost_objectives,
    describe_photographs,
    describe_steps,
    describe_task,
    figure,
    limits,
    quality_objective,
)
from search.types import OBJECTIVES, Reference, Study, Trial, TrialState

FORMATS = ("png", "svg", "pdf")
"""Formats that figures are written in."""

FIT_SHARE = 0.25
"""By which share of what the front covers its quality axis reaches below it."""
FIT_MARGIN = {"psnr_db": 0.3, "ssim": 0.01}
"""By how much it reaches below it at least."""

DPI = 100
"""Pixels an inch that sizes are planned in; files may be drawn at more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Theme:
    """Colours of a figure, by meaning."""

    paper: str
    ink: str
    muted: str
    grid: str
    front: str
    knee: str
    dominated: str
    stopped: str
    baseline: str
    reference: str


LIGHT = Theme(
    paper="#ffffff",
    ink="#1b1f24",
    muted="#5b636d",
    grid="#e6e8eb",
    front="#0072b2",
    knee="#d55e00",
    dominated="#8b929a",
    stopped="#a9afb7",
    baseline="#007a58",
    reference="#a3447f",
)
DARK = Theme(
    paper="#171a1f",
    ink="#e8eaed",
    muted="#a3abb5",
    grid="#2b3037",
    front="#56b4e9",
    knee="#e69f00",
    dominated="#8b929a",
    stopped="#6d757f",
    baseline="#2fbf97",
    reference="#e29ac4",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Points:
    """The trials that a front's panel shows, by what became of them.

    Args:
        quality: The objective upwards.
        front: Members of the front.
        dominated: Complete, and beaten by another one.
        stopped: Left behind at a rung: their quality is of fewer steps.
        floor: Down to which quality the panel is drawn: the axis is fitted to the front.
        baseline: The quality of doing nothing, where it is known.
        references: Networks that the run is compared with, trained through all rungs; bicubic is the baseline's line.
        intervals: Of the quality of the front's members and the references.
    """

    quality: str
    front: tuple[Trial, ...]
    dominated: tuple[Trial, ...]
    stopped: tuple[Trial, ...]
    floor: float
    baseline: float | None
    references: tuple[Reference, ...] = ()
    intervals: tuple[tuple[Trial | Reference, ShownInterval], ...] = ()

    @property
    def shown(self) -> tuple[Trial, ...]:
        """Every trial that is drawn."""
        others = (*self.dominated, *self.stopped)
        return (*self.front, *(t for t in others if _of(t, self.quality) >= self.floor))

    @property
    def has_baseline(self) -> bool:
        """Whether the baseline is known and within the panel."""
        return self.baseline is not None and self.baseline >= self.floor

    @property
    def shown_references(self) -> tuple[Reference, ...]:
        """Every reference that is drawn."""
        return tuple(r for r in self.references if _of(r, self.quality) >= self.floor)


def draw_front(study: Study, theme: Theme = LIGHT) -> Figure:
    """Draw the quality against each cost of the run, side by side, 1200 x 500 pixels for two costs.

    Complete candidates that others beat are grey, stopped ones small and light. The line joins the members that no
    other beats in a panel's own two figures; a member off the line earns its place by another cost.
    """
    costs = cost_objectives(study) or ("latency_ms",)
    canvas = new_figure(max(6.0 * len(costs), 8.0), 5.0, theme)
    panels: list[Axes] = list(canvas.subplots(1, len(costs), sharey=True, squeeze=False)[0])
    width = canvas.get_figwidth()
    canvas.subplots_adjust(left=0.75 / width, right=1 - 0.2 / width, top=0.875, bottom=0.25, wspace=0.06)
    for axes, cost in zip(panels, costs, strict=True):
        _draw_panel(axes, study, cost, theme)
        if axes is not panels[0]:
            axes.set_ylabel("")
            axes.tick_params(axis="y", length=0)
    title = "  ·  ".join((describe_task(study), describe_photographs(study), describe_steps(study)))
    left = 0.75 / width
    canvas.text(left, 0.93, title, color=theme.ink, fontsize=13, fontweight="bold", ha="left")
    _legend(canvas, panels, theme, y=0.075)
    caption = textwrap.fill(conditions_in_short(study), int(16 * width))
    canvas.text(left, 0.022, caption, color=theme.muted, fontsize=8, ha="left")
    return canvas


def draw_panel(study: Study, cost: str, theme: Theme = LIGHT) -> Figure:
    """Draw the quality against one cost, small enough for a phone."""
    canvas = new_figure(4.7, 4.3, theme)
    axes = canvas.subplots()
    canvas.subplots_adjust(left=0.15, right=0.98, top=0.97, bottom=0.32)
    _draw_panel(axes, study, cost, theme)
    _legend(canvas, [axes], theme, y=0.01, columns=2)
    return canvas


def draw_rungs(study: Study, theme: Theme = LIGHT) -> Figure:
    """Draw each candidate's quality over its training steps, the front's members highlighted."""
    canvas = new_figure(4.7, 3.8, theme)
    axes = canvas.subplots()
    canvas.subplots_adjust(left=0.15, right=0.98, top=0.97, bottom=0.25)
    quality = quality_objective(study)
    members = {t.number for t in front_trials(study)}
    for trial in sorted(study.trials, key=lambda t: t.number in members):
        if trial.measurements:
            _draw_curve(axes, trial, quality, theme, highlighted=trial.number in members)
    axes.set_xscale("log")
    style_axes(axes, theme, "training steps", OBJECTIVES[quality].label)
    _step_ticks(axes, study)
    _limit_curves(axes, study, quality)
    labels = _Labels(axes)
    labels.avoid_points((m.step, float(getattr(m, quality))) for t in study.trials for m in t.measurements)
    _draw_baseline(axes, study, quality, theme, labels)
    _legend(canvas, [axes], theme, y=0.015)
    return canvas


def draw_hypervolume(study: Study, theme: Theme = LIGHT) -> Figure:
    """Draw how the volume that the front dominates grew, as a share of what it is now."""
    canvas = new_figure(4.7, 3.8, theme)
    axes = canvas.subplots()
    canvas.subplots_adjust(left=0.15, right=0.98, top=0.97, bottom=0.155)
    volumes = hypervolume_growth(study)
    style_axes(axes, theme, "candidates trained", "share of the dominated volume")
    if not volumes or volumes[-1] <= 0:
        say(axes, "nothing complete dominates the baseline yet", theme)
        return canvas
    shares = [0.0, *(volume / volumes[-1] for volume in volumes)]
    axes.plot(range(len(shares)), shares, color=theme.front, linewidth=2, drawstyle="steps-post", label="volume")
    axes.set(xlim=(0, len(volumes)), ylim=(0, 1.04))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda share, _: f"{share:.0%}"))
    return canvas


def hypervolume_growth(study: Study) -> list[float]:
    """Return the dominated volume after each trained candidate, in order of their numbers.

    Measured from the baseline's quality and the budget's limits (the dearest complete candidate where there is no
    limit); costs count by their logarithm, as they do for the knee.
    """
    trained = [t for t in study.trials if t.measurements]
    complete = _complete(study)
    if not complete:
        return [0.0] * len(trained)
    points = dict(zip([t.number for t in complete], _log_costs(study, complete), strict=True))
    corner = _worst_corner(study, np.stack(list(points.values())))
    volumes: list[float] = []
    front = np.empty((0, len(corner)))
    volume = 0.0
    for trial in trained:
        point = points.get(trial.number)
        if point is not None and not (front <= point).all(axis=1).any():
            front = np.vstack([front[(front < point).any(axis=1)], point])
            volume = hypervolume(front, corner)
        volumes.append(volume)
    return volumes


def save_front(study: Study, format: str = "png") -> Path:
    """Write `front.png` (or `front.svg`) into the run's folder and return its path."""
    path = study.folder / f"front.{format}"
    return write_atomically(path, render(draw_front(study), format))


def save_figures(study: Study, format: str) -> list[Path]:
    """Write the run's figures for a paper into `figures/`: the front, a panel for each cost, the rungs, the volume.

    Args:
        study: The run.
        format: One of `FORMATS`.
    """
    drawn = {
        "front": draw_front(study),
        **{f"front-{cost}": draw_panel(study, cost) for cost in cost_objectives(study)},
        "rungs": draw_rungs(study),
        "hypervolume": draw_hypervolume(study),
    }
    folder = study.folder / "figures"
    folder.mkdir(exist_ok=True)
    return [write_atomically(folder / f"{name}.{format}", render(canvas, format)) for name, canvas in drawn.items()]


def write_figures_again(study: Study) -> list[Path]:
    """Write the figures in `figures/` of a run again, in the formats that they have; none where there are none."""
    return [
        path for f in FORMATS if (study.folder / "figures" / f"front.{f}").is_file() for path in save_figures(study, f)
    ]


def render(canvas: Figure, format: str = "svg") -> bytes:
    """Return a figure as the bytes of a file; the same figure gives the same bytes."""
    buffer = BytesIO()
    metadata: dict[str, Any] = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}.get(format, {})
    with matplotlib.rc_context({"svg.hashsalt": "hfir-search", "svg.fonttype": "path"}):
        canvas.savefig(buffer, format=format, dpi=2 * DPI, metadata=metadata)
    return buffer.getvalue()


def log_ticks(low: float, high: float) -> list[float]:
    """Return four to nine round numbers between two positive ones, for a logarithmic axis."""
    ladders = ((1,), (1, 3), (1, 2, 5), (1, 1.5, 2, 3, 5, 7), tuple(range(1, 10)), tuple(np.arange(1, 10, 0.5)))
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for ladder in ladders:
        ticks = [float(step * 10.0**decade) for decade in decades for step in ladder]
        inside = [tick for tick in ticks if low <= tick <= high]
        if len(inside) >= 4:
            return inside
    even = MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]).tick_values(low, high)
    return [float(tick) for tick in even if low <= tick <= high]


def plain(number: float) -> str:
    """Return a number as people write it: 0.0005, 20, 1,200; never a power of ten."""
    rounded = float(f"{number:.6g}")
    return f"{rounded:,.0f}" if rounded == round(rounded) else np.format_float_positional(rounded, trim="-")


# -- the front's panel -------------------------------------------------------------------------------


def points_of(study: Study, cost: str) -> Points:
    """Sort the trials that have both figures of a panel by what became of them."""
    quality = quality_objective(study)
    members = {t.number for t in front_trials(study)}
    known = [t for t in study.trials if t.value(quality) is not None and t.value(cost) is not None]
    complete = [t for t in known if t.state is TrialState.COMPLETE]
    stopped = tuple(t for t in known if t.state is TrialState.STOPPED)
    front = tuple(t for t in complete if t.number in members)
    references = tuple(r for r in drawn_references(study) if r.value(quality) is not None and r.value(cost) is not None)
    intervals = [
        (n, shown_interval(study, n)) for n in (*front, *references) if quality == quality_of(study.objectives)
    ]
    known_intervals = tuple((network, interval) for network, interval in intervals if interval is not None)
    ends = [end for n, i in known_intervals if isinstance(n, Trial) for end in (i.ends.low, i.ends.high)]
    return Points(
        quality=quality,
        front=front,
        dominated=tuple(t for t in complete if t.number not in members),
        stopped=stopped,
        floor=fitted_floor(quality, [*(_of(t, quality) for t in front), *ends]),
        baseline=baseline_value(study, quality),
        references=references,
        intervals=known_intervals,
    )


def drawn_references(study: Study) -> list[Reference]:
    """Return the references that are points of a figure: trained like the candidates; bicubic is a line already."""
    done = [standing.reference for standing in standings(study) if standing.is_done]
    return [reference for reference in done if reference.made.get("network") != "bicubic"]


def fitted_floor(quality: str, core: Sequence[float]) -> float:
    """Return how far down an axis reaches that is fitted to the front; without a front, without end.

    Args:
        quality: The axis.
        core: Figures of the front and the ends of their intervals: these are always within the axis.
    """
    if not core:
        return float("-inf")
    return min(core) - max(FIT_SHARE * (max(core) - min(core)), FIT_MARGIN[quality])


def _draw_panel(axes: Axes, study: Study, cost: str, theme: Theme) -> None:
    points = points_of(study, cost)
    axes.set_xscale("log")
    style_axes(axes, theme, _cost_label(study, cost), OBJECTIVES[points.quality].label)
    _draw_stopped(axes, points, cost, theme)
    dominated = [t for t in points.dominated if t in points.shown]
    style: dict[str, Any] = {"color": theme.dominated, "s": 34, "zorder": 3}
    hidden = len(points.dominated) - len(dominated)
    _scatter(axes, dominated, cost, points.quality, "complete, dominated", hidden=hidden, **style)
    on_line = _on_line(points, cost)
    corners = sorted((_of(t, cost), _of(t, points.quality)) for t in on_line)
    line = _draw_line(axes, corners, theme)
    style = {"s": 62, "zorder": 5, "linewidths": 1.4}
    _scatter(axes, on_line, cost, points.quality, "front", color=theme.front, edgecolors=theme.paper, **style)
    others = [t for t in points.front if t not in on_line]
    hollow = {**style, "s": 40, "facecolors": theme.paper, "edgecolors": theme.front}
    _scatter(axes, others, cost, points.quality, "front, by another cost", **hollow)
    _draw_intervals(axes, points, cost, theme)
    _mark_knee(axes, study, cost, points.quality, theme)
    _draw_references(axes, points, cost, theme)
    _limit_axes(axes, points, cost)
    labels = _Labels(axes)
    marked = (*points.shown, *points.shown_references)
    labels.avoid_points([(_of(t, cost), _of(t, points.quality)) for t in marked])
    labels.avoid_line(line)
    for network, interval in points.intervals:
        labels.avoid_line([(_of(network, cost), end) for end in (interval.ends.low, interval.ends.high)])
    if points.baseline is not None and points.has_baseline:
        labels.avoid_line([(x, points.baseline) for x in axes.get_xlim()])
    _label_presets(axes, study, cost, points.quality, theme, labels)
    _draw_baseline(axes, study, points.quality, theme, labels)
    for reference in points.shown_references:
        anchor = _of(reference, cost), _of(reference, points.quality)
        labels.place(reference.name, anchor, color=theme.reference)
    if not points.front:
        say(axes, "no candidate is complete yet", theme)


def _scatter(
    axes: Axes, trials: Sequence[Trial], cost: str, quality: str, label: str, *, hidden: int = 0, **style: Any
) -> None:
    """Draw points of one kind; those that are hidden below the axis are counted in the legend."""
    if trials or hidden:
        x, y = [_of(t, cost) for t in trials], [_of(t, quality) for t in trials]
        below = f", {hidden} below the axis" if hidden else ""
        axes.scatter(x, y, label=f"{label}{below}", **{"linewidths": 1.0, "edgecolors": "none", **style})


def _draw_stopped(axes: Axes, points: Points, cost: str, theme: Theme) -> None:
    """Draw the stopped ones, a shape for each rung."""
    shown = [t for t in points.shown if t.state is TrialState.STOPPED]
    hidden = len(points.stopped) - len(shown)
    steps = sorted({_steps(t) for t in shown})
    style: dict[str, Any] = {"color": theme.stopped, "s": 18, "zorder": 2}
    for place, step in enumerate(steps):
        members = [t for t in shown if _steps(t) == step]
        style |= {"marker": "v^<>"[min(place, 3)], "hidden": hidden if place == 0 else 0}
        _scatter(axes, members, cost, points.quality, f"stopped early ({count(step, 'step')})", **style)
    if not steps:
        _scatter(axes, (), cost, points.quality, "stopped early", marker="v", hidden=hidden, **style)


def _draw_references(axes: Axes, points: Points, cost: str, theme: Theme) -> None:
    """Draw the networks that the run is compared with; those far below are named in the legend instead."""
    hidden = [r.name for r in points.references if r not in points.shown_references]
    label = "reference" + (f" (below the axis: {', '.join(hidden)})" if hidden else "")
    x, y = ([_of(r, name) for r in points.shown_references] for name in (cost, points.quality))
    if points.references:
        style = {"color": theme.reference, "s": 58, "zorder": 5, "marker": "X", "edgecolors": theme.paper}
        axes.scatter(x, y, label=label, linewidths=1.0, **style)


def _on_line(points: Points, cost: str) -> list[Trial]:
    """Return the members that are on the front of this panel's two figures alone."""
    if not points.front:
        return []
    mask = non_dominated_mask(minimisation_matrix(points.front, (points.quality, cost)))
    return [trial for trial, kept in zip(points.front, mask, strict=True) if kept]


def _draw_line(axes: Axes, corners: Sequence[tuple[float, float]], theme: Theme) -> list[tuple[float, float]]:
    """Join points by steps: up to the next one's cost, the last one's quality is the best. Return all corners."""
    path = [*corners[:1]]
    for point in corners[1:]:
        path += [(point[0], path[-1][1]), point]
    axes.plot([x for x, _ in path], [y for _, y in path], color=theme.front, linewidth=1.4, zorder=4, alpha=0.75)
    return path


def _draw_intervals(axes: Axes, points: Points, cost: str, theme: Theme) -> None:
    """Draw the interval of each member of the front and of each reference; a point is its first seed's figure."""
    for network, interval in points.intervals:
        if isinstance(network, Reference) and network not in points.shown_references:
            continue
        color = theme.reference if isinstance(network, Reference) else theme.front
        x, ends, label = _of(network, cost), interval.ends, "" if isinstance(network, Reference) else interval.term
        axes.plot([x, x], [ends.low, ends.high], color=color, linewidth=1.0, alpha=0.55, zorder=3, label=label)


def _mark_knee(axes: Axes, study: Study, cost: str, quality: str, theme: Theme) -> None:
    knee = choose_presets(study).get("balanced")
    if knee is not None and knee.value(cost) is not None:
        style = {"color": theme.knee, "s": 95, "zorder": 6, "marker": "D", "edgecolors": theme.paper}
        _scatter(axes, [knee], cost, quality, "knee (balanced)", **style)


def _limit_axes(axes: Axes, points: Points, cost: str) -> None:
    """Leave room around the points, and above them for labels."""
    shown = (*points.shown, *points.shown_references)
    costs = [_of(t, cost) for t in shown]
    qualities = [_of(t, points.quality) for t in shown]
    qualities += [end for n, i in points.intervals if n in shown for end in (i.ends.low, i.ends.high)]
    qualities += [points.baseline] if points.baseline is not None and points.has_baseline else []
    if costs:
        room = max((max(costs) / min(costs)) ** 0.07, 1.06)
        axes.set_xlim(min(costs) / room**1.4, max(costs) * room)
        _plain_log_ticks(axes)
    if qualities:
        extent = max(qualities) - min(qualities) or 0.1
        axes.set_ylim(min(qualities) - 0.09 * extent, max(qualities) + 0.13 * extent)


def _plain_log_ticks(axes: Axes) -> None:
    axes.xaxis.set_major_locator(FixedLocator(log_ticks(*axes.get_xlim())))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: plain(value)))
    axes.xaxis.set_minor_locator(NullLocator())


def _label_presets(axes: Axes, study: Study, cost: str, quality: str, theme: Theme, labels: _Labels) -> None:
    named: dict[int, list[str]] = {}
    trials: dict[int, Trial] = {}
    for name, trial in choose_presets(study).items():
        named.setdefault(trial.number, []).append(name)
        trials[trial.number] = trial
    for number, names in sorted(named.items(), key=lambda item: "balanced" not in item[1]):  # the knee chooses first
        if trials[number].value(cost) is not None:
            color = theme.knee if "balanced" in names else theme.front
            anchor = _of(trials[number], cost), _of(trials[number], quality)
            labels.place(f"{' = '.join(names)}  #{number}", anchor, color=color, fontweight="bold")


def _draw_baseline(axes: Axes, study: Study, quality: str, theme: Theme, labels: _Labels) -> None:
    value = baseline_value(study, quality)
    if value is None:
        return
    text = f"{baseline_name(study)} {figure(quality, value)}{' dB' if quality == 'psnr_db' else ''}"
    bottom = axes.get_ylim()[0]
    if value < bottom:
        labels.place_along(f"↓ {text}", bottom, color=theme.baseline)
        return
    axes.axhline(value, color=theme.baseline, linewidth=1.4, linestyle=(0, (5, 3)), zorder=1)
    labels.place_along(text, value, color=theme.baseline)


# -- rungs and volume --------------------------------------------------------------------------------


def _draw_curve(axes: Axes, trial: Trial, quality: str, theme: Theme, *, highlighted: bool) -> None:
    steps = [m.step for m in trial.measurements]
    values = [float(getattr(m, quality)) for m in trial.measurements]
    style: dict[str, Any] = {"color": theme.stopped, "linewidth": 0.9, "markersize": 2.5, "zorder": 2}
    label = "other candidates"
    if highlighted:
        style, label = {"color": theme.front, "linewidth": 1.7, "markersize": 4, "zorder": 3}, "on the front"
    axes.plot(steps, values, marker="o", label=label, **style)


def _step_ticks(axes: Axes, study: Study) -> None:
    steps = sorted({m.step for t in study.trials for m in t.measurements})
    if steps:
        axes.set_xlim(steps[0] / 1.15, steps[-1] * 1.15)
    axes.xaxis.set_major_locator(FixedLocator([float(step) for step in steps]))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: plain(value)))
    axes.xaxis.set_minor_locator(NullLocator())


def _limit_curves(axes: Axes, study: Study, quality: str) -> None:
    """Leave out what lies far below: one diverged candidate must not crush the others."""
    values = [float(getattr(m, quality)) for t in study.trials for m in t.measurements]
    if values:
        baseline = baseline_value(study, quality)
        known = [*values, *([] if baseline is None else [baseline])]
        low = max(min(known), float(np.median(known)) - 3 * (max(known) - float(np.median(known))) - 0.1)
        room = 0.08 * (max(known) - low) or 0.1
        axes.set_ylim(low - room, max(known) + room)


def _log_costs(study: Study, trials: Sequence[Trial]) -> list[Floats]:
    matrix = minimisation_matrix(trials, study.objectives)
    costs = [not OBJECTIVES[name].maximise for name in study.objectives]
    matrix[:, costs] = np.log(matrix[:, costs])
    return list(matrix)


def _worst_corner(study: Study, points: Floats) -> list[float]:
    """Return the reference point: the baseline's quality and the logarithms of the limits."""
    known = limits(study)
    corner = []
    for name, worst in zip(study.objectives, points.max(axis=0), strict=True):
        bound = baseline_value(study, name) if OBJECTIVES[name].maximise else known.get(name)
        if bound is None:
            corner.append(float(worst) + 0.05)
        else:
            corner.append(-bound if OBJECTIVES[name].maximise else math.log(bound))
    return corner


def _complete(study: Study) -> list[Trial]:
    complete = study.in_state(TrialState.COMPLETE)
    return [t for t in complete if all(t.value(name) is not None for name in study.objectives)]


# -- shared ------------------------------------------------------------------------------------------


class _Labels:
    """Puts texts where they cover neither points, nor lines, nor each other.

    Args:
        axes: With their final limits: places are taken in pixels.
    """

    def __init__(self, axes: Axes) -> None:
        canvas = axes.get_figure(root=True)
        if canvas is None:
            raise ValueError("the axes belong to no figure, so their texts have no size.")
        self._axes, self._renderer = axes, FigureCanvasAgg(canvas).get_renderer()
        self._taken = np.empty((0, 4))
        """Boxes in pixels: left, bottom, right, top."""

    def avoid_points(self, points: Iterable[tuple[float, float]], radius: float = 6.0) -> None:
        """Keep texts off markers."""
        known = list(points)
        if known:
            pixels = self._axes.transData.transform(known)
            self._take(np.hstack([pixels - radius, pixels + radius]))

    def avoid_line(self, corners: Sequence[tuple[float, float]]) -> None:
        """Keep texts off a line of horizontal and vertical pieces."""
        pixels = [self._axes.transData.transform(corner) for corner in corners]
        for (x0, y0), (x1, y1) in pairwise(pixels):
            self._take(np.array([[min(x0, x1) - 1, min(y0, y1) - 1, max(x0, x1) + 1, max(y0, y1) + 1]]))

    def place(self, text: str, anchor: tuple[float, float], *, color: str, **style: Any) -> None:
        """Write beside a point, where it is free and near, with a fine line to it if it must be far."""
        draft = self._write(text, anchor, _OFFSETS[0], color, style)
        size = self._extent(draft)
        draft.remove()
        scores = [self._score(size, anchor, offset) for offset in _OFFSETS]
        final = self._write(text, anchor, _OFFSETS[int(np.argmin(scores))], color, style)
        self._take(np.array([self._extent(final).extents]))

    def place_along(self, text: str, height: float, *, color: str) -> None:
        """Write above or below a horizontal line, at the end where there is room."""
        spots = [(x, dy) for dy in (4, -4) for x in (0.99, 0.01, 0.5)]
        clashes = []
        for spot in spots:
            trial = self._write_along(text, height, spot, color)
            clashes.append(self._clash(self._extent(trial)))
            trial.remove()
        final = self._write_along(text, height, spots[int(np.argmin(clashes))], color)
        self._take(np.array([self._extent(final).extents]))

    def _take(self, boxes: Floats) -> None:
        self._taken = np.vstack([self._taken, boxes])

    def _score(self, size: Bbox, anchor: tuple[float, float], offset: tuple[float, float]) -> float:
        """Return how bad a place is: what the label covers, what its line crosses, and how far off it is."""
        x, y = self._axes.transData.transform(anchor) + self._renderer.points_to_pixels(1.0) * np.array(offset)
        side, level = _alignment(offset)
        left = x - size.width * {"left": 0.0, "center": 0.5, "right": 1.0}[side]
        bottom = y - size.height * {"bottom": 0.0, "center": 0.5, "top": 1.0}[level]
        covered = self._clash(Bbox.from_bounds(left, bottom, size.width, size.height))
        return 3 * covered + self._crossings(anchor, offset) + 1.5 * math.hypot(*offset)

    def _write(
        self, text: str, anchor: tuple[float, float], offset: tuple[float, float], color: str, style: dict[str, Any]
    ) -> Annotation:
        side, level = _alignment(offset)
        line = {"arrowstyle": "-", "color": color, "linewidth": 0.8, "shrinkA": 1, "shrinkB": 5}
        return self._axes.annotate(
            text,
            anchor,
            xytext=offset,
            textcoords="offset points",
            ha=side,
            va=level,
            color=color,
            fontsize=9,
            zorder=8,
            arrowprops=line if math.hypot(*offset) > 12 else None,
            **style,
        )

    def _write_along(self, text: str, height: float, spot: tuple[float, float], color: str) -> Annotation:
        side = {0.99: "right", 0.01: "left"}.get(spot[0], "center")
        return self._axes.annotate(
            text,
            (spot[0], height),
            xycoords=self._axes.get_yaxis_transform(),
            xytext=(0, spot[1]),
            textcoords="offset points",
            ha=side,
            va="bottom" if spot[1] > 0 else "top",
            color=color,
            fontsize=9,
            zorder=7,
        )

    def _extent(self, text: Annotation) -> Bbox:
        """Return the pixels of the words alone; matplotlib would count the line to the point as well."""
        text.update_positions(self._renderer)
        return Text.get_window_extent(text, self._renderer)

    def _crossings(self, anchor: tuple[float, float], offset: tuple[float, float]) -> float:
        """Return a penalty for a line from a point to its label that runs over something else."""
        start, scale = self._axes.transData.transform(anchor), self._renderer.points_to_pixels(1.0)
        left, bottom, right, top = self._taken.T
        own = (left <= start[0] + 1) & (right >= start[0] - 1) & (bottom <= start[1] + 1) & (top >= start[1] - 1)
        spots = [start + scale * share * np.array(offset) for share in np.linspace(0.2, 0.95, 8)]
        inside = [(left <= x) & (x <= right) & (bottom <= y) & (y <= top) & ~own for x, y in spots]
        return 40.0 * float(np.sum(inside))

    def _clash(self, box: Bbox) -> float:
        """Return by how many square pixels a box covers what is taken, or leaves the panel."""
        panel = self._axes.get_window_extent(self._renderer)
        inside = Bbox.intersection(panel, box)
        outside = _area(box) - (0.0 if inside is None else _area(inside))
        left, bottom, right, top = self._taken.T
        width = np.clip(np.minimum(right, box.x1) - np.maximum(left, box.x0), 0, None)
        height = np.clip(np.minimum(top, box.y1) - np.maximum(bottom, box.y0), 0, None)
        return 4 * outside + float(width @ height)


_ANGLES_DEG = (135, 90, 180, 45, 0, -45, -90, -135, 112, 67, -22, -67)
_OFFSETS: tuple[tuple[float, float], ...] = tuple(
    (round(radius * math.cos(math.radians(angle)), 1), round(radius * math.sin(math.radians(angle)), 1))
    for radius in (10, 18, 27, 38, 50)
    for angle in _ANGLES_DEG
)
"""Where a label may stand, in points from its own: near first, and above to the left, where a front is empty."""


def _alignment(offset: tuple[float, float]) -> tuple[str, str]:
    """Return which side of a label faces its point, horizontally and vertically."""
    side = "right" if offset[0] < -2 else "left" if offset[0] > 2 else "center"
    level = "bottom" if offset[1] > 2 else "top" if offset[1] < -2 else "center"
    return side, level


def _area(box: Bbox) -> float:
    return float(max(box.width, 0.0) * max(box.height, 0.0))


def new_figure(width_in: float, height_in: float, theme: Theme) -> Figure:
    """Return an empty figure of a size in inches."""
    canvas = Figure(figsize=(width_in, height_in), dpi=DPI, facecolor=theme.paper)
    FigureCanvasAgg(canvas)
    return canvas


def style_axes(axes: Axes, theme: Theme, x_label: str, y_label: str) -> None:
    """Give axes their labels, and the look that all figures share."""
    axes.set_facecolor(theme.paper)
    axes.set_xlabel(x_label, color=theme.ink, fontsize=10)
    axes.set_ylabel(y_label, color=theme.ink, fontsize=10)
    axes.tick_params(colors=theme.muted, labelsize=9, length=3)
    axes.grid(visible=True, color=theme.grid, linewidth=0.8)
    axes.set_axisbelow(True)
    for side, spine in axes.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color(theme.stopped)


def _legend(canvas: Figure, panels: Sequence[Axes], theme: Theme, *, y: float, columns: int = 7) -> None:
    entries: dict[str, Any] = {}
    for axes in panels:
        entries |= dict(zip(*reversed(axes.get_legend_handles_labels()), strict=True))
    names = sorted(entries, key=_legend_place)
    if not names:
        return
    canvas.legend(
        [entries[name] for name in names],
        names,
        loc="lower center",
        bbox_to_anchor=(0.5, y),
        ncols=min(columns, len(names)),
        frameon=False,
        labelcolor=theme.ink,
        fontsize=8.5,
        handletextpad=0.3,
        columnspacing=1.3,
    )


def _legend_place(name: str) -> int:
    """Order a legend's entries by what matters."""
    order = ("front", "on the front", "knee", "reference", "complete", "stopped", "other")
    places = [place for place, start in enumerate(order) if name.startswith(start)]
    return places[0] if places else len(order)


def say(axes: Axes, text: str, theme: Theme) -> None:
    """Write into empty axes why they are empty."""
    axes.text(0.5, 0.6, text, transform=axes.transAxes, ha="center", color=theme.muted, fontsize=11)


def _cost_label(study: Study, cost: str) -> str:
    """Return a cost's name with the input size that it holds for."""
    known = next((t.cost for t in study.trials if t.cost is not None and t.value(cost) is not None), None)
    at = None
    if known is not None:
        latency_at = known.latency.at if known.latency else None
        at = {"macs_g": known.macs_at, "latency_ms": latency_at, "peak_mem_mib": known.peak_mem_at}.get(cost)
    label = OBJECTIVES[cost].label
    label = label if label[:2].isupper() else label[0].upper() + label[1:]
    return f"{label}, {at.replace('x', '×')} input" if at else label


def _of(network: Trial | Reference, objective: str) -> float:
    """Return a figure that is known to be there."""
    value = network.value(objective)
    if value is None:
        name = f"trial {network.number}" if isinstance(network, Trial) else network.name
        raise ValueError(f"{name} has no {objective}: leave it out of this panel.")
    return value


def _steps(trial: Trial) -> int:
    return 0 if trial.last is None else trial.last.step
