"""What a run looks like from outside while it goes on: a live panel on a terminal, nothing elsewhere."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, TaskProgressColumn, TextColumn
from rich.progress import Progress as Bars
from rich.table import Table
from rich.text import Text

from search.cli.status import front_lines
from search.cli.tables import front_table
from search.experiment import Experiment
from search.feasibility import expected_steps
from search.pareto import pareto_front
from search.report import funnel
from search.report.status import counts_as_trained
from search.study import Onlooker, Progress
from search.types import Study, TrialState

FRONT_ROWS = 10
PLOT_COLUMNS, PLOT_ROWS = 56, 12
"""Characters of the plot's panel, at most."""
LEAST_COLUMNS, LEAST_ROWS = 30, 6
"""A smaller one shows nothing, and is left out."""
BESIDE, AROUND = 12, 5
"""What the plot needs besides its panel: columns for the figures, lines for title, axis and labels."""


@contextmanager
def live_progress(experiment: Experiment, console: Console) -> Iterator[Onlooker]:
    """Show a live panel while the block runs; the onlooker that it yields feeds it."""
    total = expected_steps(experiment, experiment.most_trials)
    bars = Bars(
        TextColumn("{task.description}", style="bold", markup=False),
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("{task.fields[left]}", markup=False),
        console=console,
    )
    bar = bars.add_task(experiment.name, total=total, left="")
    start, first = time.monotonic(), -1

    with Live(bars, console=console, refresh_per_second=2, transient=True) as live:

        def look(progress: Progress) -> None:
            nonlocal first
            done = sum(t.last.step for t in progress.study.trials if t.last is not None)
            first = done if first < 0 else first
            left = time_left(time.monotonic() - start, done - first, max(0, total - done))
            bars.update(bar, completed=min(done, total), left=left)
            above = Group(bars, _status(progress, experiment), front_table(progress.study, rows=FRONT_ROWS))
            free = console.height - len(console.render_lines(above, pad=False)) - 1
            plot = front_plot(progress.study, columns=console.width, lines=free)
            live.update(Group(above, Text("\n".join(plot), no_wrap=True, overflow="crop")) if plot else above)

        yield look


def front_plot(study: Study, *, columns: int, lines: int) -> list[str]:
    """Return the front so far as a plot that fits; empty where there is no front yet, or no room.

    Args:
        study: The run as it stands; figures that are not finite are left out.
        columns: Characters of a line that are free.
        lines: Lines that are free.
    """
    wide, high = min(PLOT_COLUMNS, columns - BESIDE), min(PLOT_ROWS, lines - AROUND)
    if wide < LEAST_COLUMNS or high < LEAST_ROWS:
        return []
    front = pareto_front(study.trials, study.objectives).members
    return front_lines(study, front, columns=wide, rows=high) if front else []


def time_left(elapsed_s: float, done: int, left: int) -> str:
    """Return the time left in words, from the steps trained so far in this session."""
    if done < 100:
        return "time left: …"
    minutes = elapsed_s * left / done / 60
    return f"about {minutes:.0f} min left" if minutes >= 1 else "less than a minute left"


def _status(progress: Progress, experiment: Experiment) -> Table:
    study = progress.study
    counts = funnel(study)
    grid = Table.grid(padding=(0, 3))
    spent = sum(counts_as_trained(trial) for trial in study.trials)
    training = ", ".join(str(n) for n in sorted(progress.running)) or "none"
    grid.add_row(progress.phase, f"candidates {spent}/{experiment.most_trials}", f"in training: {training}")
    rejected = len(study.in_state(TrialState.INFEASIBLE))
    screened = f", screened out {counts['screened']}" if counts["screened"] else ""
    grid.add_row(
        f"complete {counts['complete']}",
        f"rejected before training {rejected}{screened}",
        f"duplicates {counts['duplicate']}, failed {counts['failed']}",
    )
    return grid
