"""`status`: where a run stands, from any terminal. Loads no torch."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console

from search.cli.consoles import output_console
from search.cli.showing import print_json
from search.cli.textplot import Mark, text_plot
from search.counts import count
from search.report import RunStatus, read_status
from search.report.words import cost_objectives, duration, quality_objective
from search.store import JOURNAL
from search.store.places import read_pointer, shown
from search.types import OBJECTIVES, InputError, Study, Trial, TrialState

REASONS = 6
"""Reasons for rejections that are listed."""


def show_status(folder: Path, *, watch_s: float | None, as_json: bool) -> None:
    """Print where a run stands; with `watch_s`, again and again until no process holds the run.

    Raises:
        InputError: If there is no such folder, or the pause between two looks is not positive.
        StoreError: If the journal is damaged before its last line.
    """
    if watch_s is not None and not 0 < watch_s < float("inf"):
        raise InputError(f"--watch {watch_s:g}: not a pause.\n  Give seconds, more than 0, e.g. --watch 5.")
    console = output_console()
    while True:
        status = read_status(folder)
        if as_json:
            print_json(status_record(status))
        else:
            _print(console, status, clear=watch_s is not None)
        if watch_s is None or not status.is_running:
            return
        time.sleep(watch_s)


def status_record(status: RunStatus) -> dict[str, Any]:
    """Return a status as JSON values."""
    return {
        "folder": str(status.folder),
        "run": None if status.study is None else status.study.name,
        "is_running": status.is_running,
        "finished": status.finished,
        "elapsed_s": status.elapsed_s,
        "trained_s": status.trained_s,
        "states": dict(status.states),
        "admitted": status.admitted,
        "trials": status.trials,
        "rungs": [asdict(rung) for rung in status.rungs],
        "rejections": dict(status.rejections),
        "failures": dict(status.failures),
        "front": [{"trial": t.number, **{name: t.value(name) for name in OBJECTIVES}} for t in status.front],
        "command": status.command,
    }


def status_lines(status: RunStatus) -> list[str]:
    """Return a status as lines of text."""
    lines = [f"{status.folder}: {_state(status)}"]
    place = read_pointer(status.folder)
    lines += [] if place is None else [f"records     {shown(place.url)}, study {place.study}"]
    if status.study is None:
        lines.append("Nothing is recorded here yet.")
        if (status.folder / "trials.csv").is_file():
            lines.append(
                f"Tables of a run are here, its journal ({JOURNAL}) is not: look into trials.csv and front.csv."
            )
    else:
        wanted = "" if status.trials is None else f" of {status.trials:,}"
        lines.append(f"candidates  {status.admitted}{wanted} admitted, {len(status.study.trials)} considered")
        lines.append("states      " + _tally({name: n for name, n in status.states.items() if n}))
        lines += [
            f"rung {place}      {count(rung.step, 'step')}: {count(rung.reached, 'candidate')} reached it"
            + (f", {rung.waiting} of them wait or train on" if rung.waiting else "")
            for place, rung in enumerate(status.rungs)
        ]
    if status.elapsed_s is not None:
        lines.append(
            f"time        {duration(status.elapsed_s)} since the first proposal, pauses included; "
            f"{duration(status.trained_s)} of training over all candidates"
        )
    if status.rejections:
        lines.append(f"rejected    {sum(status.rejections.values())} before training or withdrawn:")
        frequent = list(status.rejections.items())[:REASONS]
        lines += [f"            {number} {reason}" for reason, number in frequent]
        more = len(status.rejections) - len(frequent)
        lines += [f"            and {count(more, 'more reason')}"] if more > 0 else []
    if status.failures:
        lines.append(f"failed      {sum(status.failures.values())} in or before training: {_tally(status.failures)}")
    if status.study is not None:
        lines += ["", *front_lines(status.study, status.front)]
    if status.finished and status.study and status.study.facts.get("ended_by", {}).get("rule") == "space":
        lines += ["", f"Nothing is left to train: {status.study.facts['ended_early']}."]
    if status.command:
        lines += ["", f"{'More trials' if status.finished else 'Go on'}:  {status.command}"]
    return lines


def front_lines(study: Study, front: Sequence[Trial], *, columns: int = 56, rows: int = 12) -> list[str]:
    """Return the front so far as a title and a plot of `columns` by `rows` characters, or why there is none."""
    if not front:
        known = study.in_state(TrialState.COMPLETE)
        return ["No candidate is complete yet." if not known else "No complete candidate knows all objectives."]
    cost, quality = next(iter(cost_objectives(study)), "macs_g"), quality_objective(study)
    others = [t for t in study.in_state(TrialState.COMPLETE) if t not in front]
    marks = [_mark(t, cost, quality, ".") for t in others] + [_mark(t, cost, quality, "*") for t in front]
    plot = text_plot(
        [m for m in marks if m is not None],
        x_label=OBJECTIVES[cost].label,
        y_label=OBJECTIVES[quality].label,
        columns=columns,
        rows=rows,
    )
    title = f"Front so far: {count(len(front), 'member')} (*), {len(others)} dominated (.)"
    return [title, *plot.splitlines()]


def _print(console: Console, status: RunStatus, *, clear: bool) -> None:
    if clear and console.is_terminal:
        console.clear()
    console.print("\n".join(status_lines(status)), highlight=False, markup=False, soft_wrap=True)


def _state(status: RunStatus) -> str:
    if status.is_running:
        return "running"
    if status.is_running is None:
        return "its lock cannot be looked at, so whether it is running is not known"
    return "finished" if status.finished else "stopped, not finished" if status.study else "not running"


def _tally(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{number} {name}" for name, number in counts.items()) or "no candidates yet"


def _mark(trial: Trial, cost: str, quality: str, sign: str) -> Mark | None:
    x, y = trial.value(cost), trial.value(quality)
    return None if x is None or y is None else Mark(x=x, y=y, sign=sign)
