"""What the experts do, for a reader: loads, balance, and which degradation goes to which expert."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from search.counts import count
from search.report.figures import LIGHT, Theme, new_figure, render, say, style_axes
from search.report.selection import choose_presets
from search.report.tables import write_atomically
from search.types import BALANCED_ENTROPY, DEAD_SHARE, ExpertUse, Study, Trial, TrialState

ROW_IN = 2.7
"""Height of one mixture's row, in inches."""


def trials_with_experts(study: Study) -> tuple[Trial, ...]:
    """Return the complete candidates whose experts were looked at."""
    return tuple(trial for trial in study.in_state(TrialState.COMPLETE) if uses_of(trial))


def presets_with_experts(study: Study) -> dict[str, Trial]:
    """Return the presets that have experts, each trial once, under all its names: `fastest = balanced`."""
    named: dict[int, list[str]] = {}
    presets = {name: trial for name, trial in choose_presets(study).items() if uses_of(trial)}
    for name, trial in presets.items():
        named.setdefault(trial.number, []).append(name)
    trials = {trial.number: trial for trial in presets.values()}
    return {" = ".join(names): trials[number] for number, names in named.items()}


def uses_of(trial: Trial) -> tuple[ExpertUse, ...]:
    """Return what each mixture of a candidate did at its last rung; nothing where that is not known."""
    return () if trial.last is None else trial.last.experts


def judgement(use: ExpertUse) -> str:
    """Say in plain words how the load is shared."""
    if use.dead:
        names = ", ".join(str(expert + 1) for expert in use.dead)
        return f"{count(len(use.dead), 'dead expert')}: {names}"
    if use.load_entropy >= BALANCED_ENTROPY:
        return "balanced"
    return "uneven, no expert dead"


def expert_labels(study: Study, use: ExpertUse) -> list[str]:
    """Return the experts' numbers, from 1; with the degradation that each was taught, where it was."""
    proxy = study.spec.get("proxy", {})
    taught = use.degradations if proxy.get("routing_supervision", 0) else ()
    return [f"{i + 1}\n{taught[i % len(taught)]}" if taught else str(i + 1) for i in range(len(use.load))]


def draw_experts(study: Study, trials: Sequence[tuple[str, Trial]], theme: Theme = LIGHT) -> Figure:
    """Draw a row for each mixture: the load of each expert, and where there are labels, degradation by expert.

    Args:
        study: The run.
        trials: Candidates, each with the words that its rows are headed by.
        theme: The colours.
    """
    rows = [(f"{words}, {use.stage}", use) for words, trial in trials for use in uses_of(trial)]
    columns = 2 if any(use.degradations for _, use in rows) else 1
    height = ROW_IN * max(len(rows), 1)
    canvas = new_figure(4.7 * columns, height, theme)
    panels = canvas.subplots(max(len(rows), 1), columns, squeeze=False)
    canvas.subplots_adjust(
        left=0.13 if columns == 1 else 0.07,
        right=0.98,
        top=1 - 0.5 / height,
        bottom=0.62 / height,
        wspace=0.3,
        hspace=0.85,
    )
    if not rows:
        say(panels[0][0], "no candidate has experts", theme)
    for axes, (words, use) in zip(panels, rows, strict=False):
        labels = expert_labels(study, use)
        _draw_load(axes[0], use, labels, f"{words}\nload entropy {use.load_entropy:.2f}: {judgement(use)}", theme)
        if columns == 2:
            _draw_degradations(axes[1], use, labels, theme)
    return canvas


def save_experts(study: Study, format: str = "png") -> list[Path]:
    """Write `experts.png` (or `.svg`) of the presets into the run's folder; nothing where none has experts."""
    trials = [(f"{names} (trial {trial.number})", trial) for names, trial in presets_with_experts(study).items()]
    if not trials:
        return []
    path = study.folder / f"experts.{format}"
    return [write_atomically(path, render(draw_experts(study, trials), format))]


def _draw_load(axes: Axes, use: ExpertUse, labels: Sequence[str], title: str, theme: Theme) -> None:
    places, fair = range(len(use.load)), 1 / len(use.load)
    style_axes(axes, theme, "expert", "share of choices")
    axes.set_title(title, color=theme.ink, fontsize=9.5, loc="left")
    colours = [theme.knee if place in use.dead else theme.front for place in places]
    axes.bar(places, use.load, color=colours, width=0.68, zorder=3)
    axes.axhline(fair, color=theme.muted, linewidth=1, linestyle="--", zorder=4)
    axes.axhline(DEAD_SHARE * fair, color=theme.knee, linewidth=1, linestyle=":", zorder=4)
    for place, share in zip(places, use.load, strict=True):
        text = f"{share:.0%}" + (" dead" if place in use.dead else "")
        axes.annotate(
            text,
            (place, max(share, DEAD_SHARE * fair)),
            (0, 2),
            textcoords="offset points",
            ha="center",
            color=theme.ink,
            fontsize=8.5,
        )
    axes.set_xticks(list(places), labels)
    axes.set_ylim(0, max(*use.load, 2 * fair) * 1.15)
    axes.yaxis.set_major_formatter(FuncFormatter(lambda share, _: f"{share:.0%}"))


def _draw_degradations(axes: Axes, use: ExpertUse, labels: Sequence[str], theme: Theme) -> None:
    """Draw the table as a heat map with its numbers: dark is much, and no meaning rests on the shade alone."""
    if not use.degradations:
        axes.set_axis_off()
        return
    style_axes(axes, theme, "expert", "")
    axes.grid(visible=False)
    shares = np.array(use.load_by_degradation)
    shades = LinearSegmentedColormap.from_list("share", [theme.paper, theme.front])
    axes.imshow(shares, cmap=shades, vmin=0, vmax=1, aspect="auto")
    for row, column in np.ndindex(shares.shape):
        share = float(shares[row, column])
        colour = theme.paper if share > 0.5 else theme.ink
        axes.text(column, row, f"{share:.0%}", ha="center", va="center", color=colour, fontsize=8.5)
    axes.set_xticks(range(len(labels)), labels)
    axes.set_yticks(range(len(use.degradations)), use.degradations)
    if use.information_bits is not None:
        title = f"degradation tells {use.information_bits:.2f} bits of the expert"
        axes.set_title(title, color=theme.ink, fontsize=9.5, loc="left")
