"""`profile`: where a run's wall time went. Loads no torch."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from search.cli.consoles import output_console
from search.cli.showing import print_json
from search.counts import count
from search.report.profile import NAMES, PARTS, RunProfile, overhead_words, read_profile
from search.report.words import conditions, describe_network, duration
from search.store import read_study
from search.timing import Phase
from search.types import Study, Trial


def show_profile(folder: Path, *, as_json: bool) -> None:
    """Print where a run's wall time went.

    Raises:
        InputError: If the folder holds no run.
        StoreError: If its journal is damaged before its last line.
    """
    study = read_study(folder)
    profile = read_profile(study)
    if as_json:
        print_json({"run": study.name, "folder": str(folder), **profile_record(study, profile)})
        return
    console = output_console()
    if profile.sessions:
        console.print(profile_table(study, profile))
    for line in profile_lines(study, profile):
        console.print(line, highlight=False, markup=False, soft_wrap=True)
    if profile.slowest:
        _print_slowest(console, profile)


def profile_record(study: Study, profile: RunProfile) -> dict[str, Any]:
    """Return a profile as JSON values: seconds, and shares of 1; null for what is not known."""
    recorded = profile.sessions > 0
    return {
        "recorded": recorded,
        "sessions": profile.sessions,
        "wall_s": profile.wall_s if recorded else None,
        "phases_s": {phase.value: seconds for phase, seconds in profile.phases.items()} if recorded else None,
        "parts_s": {phase.value: {part.name: part.seconds for part in parts} for phase, parts in profile.parts.items()},
        "counts": {phase.value: number for phase, number in profile.counts.items()},
        "overhead": profile.overhead,
        "workers_busy_s": profile.busy_s if recorded else None,
        "workers_idle_s": profile.idle_s if recorded else None,
        "workers": [
            {"worker": use.worker, "busy_s": use.busy_s, "busy": use.busy_s / use.wall_s if use.wall_s else None}
            for use in profile.workers
        ],
        "worker_counts": list(profile.worker_counts),
        "from_process_start": profile.from_process if recorded else None,
        "unrecorded_s": profile.before_s if recorded else study.facts.get("elapsed_s"),
        "training_steps_s": profile.trained_s,
        "slowest": [
            {"trial": t.number, "train_s": t.last.elapsed_s, "steps": t.last.step} for t in profile.slowest if t.last
        ],
        "conditions": _conditions(study, profile),
    }


def profile_table(study: Study, profile: RunProfile) -> Table:
    """Return a row for each phase, and under it what its workers did."""
    title = f"Where {profile.wall_s:,.1f} s of {study.name} went"
    table = Table(title=title, title_justify="left", title_style="bold", box=None, pad_edge=False)
    table.add_column("phase")
    for heading in ("s", "share"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("", overflow="fold")
    for phase, seconds in profile.phases.items():
        table.add_row(NAMES[phase], f"{seconds:,.1f}", f"{seconds / profile.wall_s:.1%}", _counted(profile, phase))
        for name, spent in _did(profile, phase):
            table.add_row(f"  {name}", f"{spent:,.1f}", "", "", style="dim")
    table.add_row("all", f"{profile.wall_s:,.1f}", "100.0%", count(profile.sessions, "session"))
    return table


def profile_lines(study: Study, profile: RunProfile) -> list[str]:
    """Return what there is to say beside the table: the sentence, workers, conditions, what is missing."""
    if not profile.sessions:
        elapsed = study.facts.get("elapsed_s")
        return [
            f"{study.folder}: this run is from before its time was recorded by phases, so overhead, measuring and "
            "workers are not known.",
            *([f"wall time     {duration(float(elapsed))}"] if elapsed is not None else []),
            f"training      {duration(profile.trained_s)} of training steps, summed over "
            f"{count(profile.trainings, 'trial')}",
        ]
    lines = [f"{overhead_words(profile)}."]
    lines += list(_worker_lines(profile))
    if profile.before_s:
        lines.append(f"Not in it: {duration(profile.before_s)} from before its time was recorded by phases.")
    if not profile.from_process:
        lines.append("Not in it: imports of sessions that do not know when their process began.")
    lines += [f"{name:<12}  {text}" for name, text in _conditions(study, profile).items()]
    return lines


def _did(profile: RunProfile, phase: Phase) -> Iterator[tuple[str, float]]:
    for part in profile.parts.get(phase, ()):
        yield PARTS[phase][part.name], part.seconds
    if phase is Phase.TRAINING and profile.idle_s is not None:
        yield "idle", profile.idle_s


def _counted(profile: RunProfile, phase: Phase) -> str:
    nouns = {Phase.PROPOSING: "candidate", Phase.MEASURING: "measurement", Phase.TRAINING: "training"}
    words = count(profile.counts[phase], nouns[phase]) if phase in nouns else ""
    return f"{words}; below, seconds of workers" if phase is Phase.TRAINING else words


def _worker_lines(profile: RunProfile) -> Iterator[str]:
    """Yield how busy workers were while the run trained."""
    if profile.idle_s is None:
        yield "Workers: how many there were is not known, so neither is their idle time."
    elif profile.busy_s:
        share = profile.busy_s / (profile.busy_s + profile.idle_s)
        each = ", ".join(f"{u.worker}: {u.busy_s / u.wall_s:.0%}" for u in profile.workers if u.wall_s)
        yield f"While it trained, workers were busy {share:.0%} of the time{f' (worker {each})' if each else ''}."


def _conditions(study: Study, profile: RunProfile) -> dict[str, str]:
    """Return under which conditions the seconds hold."""
    known = conditions(study)
    counts = [str(number) if number else "an unknown number" for number in dict.fromkeys(profile.worker_counts)]
    engine = study.spec.get("execution", {}).get("engine", "pool")
    rows = {
        "Host": known.get("Host", ""),
        "Workers": f"{' or '.join(counts)}, one thread each, engine {engine}" if counts else "",
        "Versions": known.get("Versions", ""),
    }
    return {name: text for name, text in rows.items() if text}


def _print_slowest(console: Console, profile: RunProfile) -> None:
    table = Table(title="Slowest trials, by training steps", title_justify="left", title_style="bold", box=None)
    for heading in ("trial", "s", "steps", "ms a step"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("network", overflow="fold")
    for trial in profile.slowest:
        table.add_row(*_slow(trial), describe_network(trial.config))
    console.print(table)


def _slow(trial: Trial) -> tuple[str, ...]:
    if trial.last is None:
        return (str(trial.number), "–", "–", "–")
    seconds, steps = trial.last.elapsed_s, trial.last.step
    return (str(trial.number), f"{seconds:,.1f}", f"{steps:,}", f"{1000 * seconds / steps:,.1f}" if steps else "–")
