"""`restore`: trained networks at work on picture files."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, get_args

import pyvips
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from search.cli.consoles import error_console, output_console
from search.cli.logs import logging_to, shown_log
from search.counts import count
from search.files import shown
from search.inference.jobs import Job, plan_jobs
from search.inference.networks import Half, open_restorer, with_tiles_within
from search.inference.pictures import DEFAULT_QUALITY, FORMATS
from search.inference.restoring import Outcome, restore_all
from search.types import HFIRSearchError, InputError

_NAMED = 5
"""Pictures that a note names before it only counts."""


def restore_files(
    inputs: list[Path],
    *,
    preset: str,
    out: Path,
    recursive: bool,
    overwrite: bool,
    format_name: str | None,
    quality: int | None,
    device: str,
    half: str,
    tile_px: int | None,
    overlap_px: int,
    memory_limit_mib: float,
    degradation: str | None,
) -> None:
    """Restore pictures and say what became of them.

    Raises:
        InputError: If something that was asked for cannot be done; nothing is spent then.
        HFIRSearchError: If some pictures could not be restored; the others are.
    """
    _one_of("--format", format_name, (*FORMATS, None))
    jobs, left_out = plan_jobs(inputs, out, format_name=format_name, recursive=recursive)
    pyvips.cache_set_max(0)  # every picture is read once: libvips need not remember the last hundred
    errors = error_console()
    with logging_to(shown_log(errors)):
        restorer = open_restorer(
            preset,
            device=device,
            half=half_named(half),
            tile_px=tile_px,
            overlap_px=overlap_px,
            degradation=degradation,
        )
        if tile_px is None:
            restorer = with_tiles_within(restorer, memory_limit_mib)
        with shown_progress(errors) as bar:

            def look(finished: int, job: Job, share: float) -> None:
                bar("restoring", finished + share, len(jobs), shown(job.source.name))

            outcome = restore_all(
                restorer,
                jobs,
                overwrite=overwrite,
                quality=DEFAULT_QUALITY if quality is None else quality,
                on_progress=look,
            )
    for line in (*left_out, *_noted(outcome)):
        errors.print(f"note: {line}", soft_wrap=True)
    _tell(outcome)


def _noted(outcome: Outcome) -> list[str]:
    """Return each note once, with the pictures that it holds for."""
    lines = []
    for note, sources in outcome.notes.items():
        more = f" and {len(sources) - _NAMED} more" if len(sources) > _NAMED else ""
        lines.append(f"{note}: {', '.join(map(shown, sources[:_NAMED]))}{more}")
    return lines


def _tell(outcome: Outcome) -> None:
    console = output_console()
    parts = [f"restored {len(outcome.restored)}"]
    if outcome.there_already:
        parts.append(f"there already {len(outcome.there_already)} (--overwrite restores them anew)")
    if outcome.failed:
        parts.append(f"failed {len(outcome.failed)}")
    console.print(", ".join(parts))
    if outcome.failed:
        total = len(outcome.restored) + len(outcome.there_already) + len(outcome.failed)
        reasons = [
            reason if shown(source) in reason else f"{shown(source)}: {reason}" for source, reason in outcome.failed
        ]
        raise HFIRSearchError(
            "\n  ".join([f"{len(outcome.failed)} of {count(total, 'picture')} could not be restored:", *reasons])
        )


def half_named(name: str) -> Half:
    """Return a precision by its name; InputError where it is none."""
    _one_of("--half", name, get_args(Half))
    return name  # pyright: ignore[reportReturnType]


def _one_of(option: str, value: str | None, legal: tuple[str | None, ...]) -> None:
    if value not in legal:
        raise InputError(f"{option} {value}: not known. Use one of {', '.join(v for v in legal if v)}.")


@contextmanager
def shown_progress(errors: Console) -> Iterator[Any]:
    """Show a bar on a terminal while the block runs; what it yields takes (what, done, total, name)."""
    if not errors.is_terminal:
        yield lambda what, done, total, name: None
        return
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    with Progress(*columns, TextColumn("{task.fields[name]}", markup=False), console=errors, transient=True) as bars:
        task = bars.add_task("", name="")

        def update(what: str, done: float, total: int, name: str) -> None:
            bars.update(task, description=what, completed=done, total=total, name=name)

        yield update
