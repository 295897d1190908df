"""`restore` and `evaluate`: trained networks at work on picture files."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, get_args

import pyvips
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.table import Table

from search.cli.logs import logging_to, shown_log
from search.cli.showing import print_json
from search.cli.tables import output_console
from search.inference.jobs import Job, plan_jobs
from search.inference.networks import Half, open_restorer, with_tiles_within
from search.inference.pictures import DEFAULT_QUALITY, FORMATS
from search.inference.restoring import Outcome, restore_all
from search.inference.scoring import Score, Scores, read_task, recorded_task, score_folder
from search.types import HFIRSearchError, InputError


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
    jobs = plan_jobs(inputs, out, format_name=format_name, recursive=recursive)
    pyvips.cache_set_max(0)  # every picture is read once: libvips need not remember the last hundred
    errors = Console(stderr=True)
    with logging_to(shown_log(errors)):
        restorer = open_restorer(
            preset,
            device=device,
            half=_half(half),
            tile_px=tile_px,
            overlap_px=overlap_px,
            degradation=degradation,
        )
        if tile_px is None:
            restorer = with_tiles_within(restorer, memory_limit_mib)
        with _progress(errors) as bar:

            def look(finished: int, job: Job, share: float) -> None:
                bar("restoring", finished + share, len(jobs), job.source.name)

            outcome = restore_all(
                restorer,
                jobs,
                overwrite=overwrite,
                quality=DEFAULT_QUALITY if quality is None else quality,
                on_progress=look,
            )
    _tell(outcome)


def evaluate_preset(
    preset: str,
    *,
    folder: Path,
    task: str | None,
    degraded: Path | None,
    device: str,
    half: str,
    tile_px: int | None,
    overlap_px: int,
    csv_file: Path | None,
    as_json: bool,
) -> None:
    """Score a preset on a folder of photographs and print the table.

    Raises:
        InputError: If the preset, the task or a folder cannot be used.
    """
    if task is not None and degraded is not None:
        raise InputError("--task and --degraded: images are degraded by a task, or given as files. Leave one out.")
    errors = Console(stderr=True)
    with logging_to(shown_log(errors)):
        restorer = open_restorer(preset, device=device, half=_half(half), tile_px=tile_px, overlap_px=overlap_px)
        chosen = None
        if degraded is None:
            chosen = read_task(task) if task is not None else recorded_task(preset, restorer.scale)
        with _progress(errors) as bar:
            scores = score_folder(
                restorer,
                folder,
                task=chosen,
                degraded=degraded,
                on_image=lambda done, count: bar("evaluating", done, count, ""),
            )
    if csv_file is not None:
        _write_csv(scores, csv_file)
    if as_json:
        print_json(_as_json(scores, preset, folder, tile_px))
    else:
        _print_scores(scores, preset, folder, tile_px)


def _tell(outcome: Outcome) -> None:
    console = output_console()
    parts = [f"restored {len(outcome.restored)}"]
    if outcome.there_already:
        parts.append(f"there already {len(outcome.there_already)} (--overwrite restores them anew)")
    if outcome.failed:
        parts.append(f"failed {len(outcome.failed)}")
    console.print(", ".join(parts), highlight=False)
    if outcome.failed:
        total = len(outcome.restored) + len(outcome.there_already) + len(outcome.failed)
        reasons = [reason if str(source) in reason else f"{source}: {reason}" for source, reason in outcome.failed]
        raise HFIRSearchError(
            "\n  ".join([f"{len(outcome.failed)} of {total} pictures could not be restored:", *reasons])
        )


def _print_scores(scores: Scores, preset: str, folder: Path, tile_px: int | None) -> None:
    console = output_console()
    console.print(f"{preset} on {folder}: {scores.task}", style="bold", highlight=False, soft_wrap=True)
    table = Table(box=None, pad_edge=False)
    table.add_column("image\n", overflow="fold")
    headings = ("PSNR\ndB", "SSIM\n", f"{scores.baseline}\ndB", f"{scores.baseline}\nSSIM", "gain\ndB")
    for heading in headings:
        table.add_column(heading, justify="right", no_wrap=True)
    for i, row in enumerate(scores.images):
        table.add_row(*_row(row), end_section=i == len(scores.images) - 1)
    table.add_row(*_row(scores.mean), style="bold")
    console.print(table)
    tiles = "" if tile_px is None else f"; tiles of {tile_px} px"
    console.print(f"{scores.conventions}{tiles}", style="dim", highlight=False)
    for note in scores.notes:
        console.print(f"data: {note}", style="dim", highlight=False)


def _row(row: Score) -> list[str]:
    network, baseline = row.network, row.baseline
    figures = [f"{network.psnr_db:.2f}", f"{network.ssim:.4f}", f"{baseline.psnr_db:.2f}", f"{baseline.ssim:.4f}"]
    return [row.image, *figures, f"{network.psnr_db - baseline.psnr_db:+.2f}"]


def _record(row: Score) -> dict[str, Any]:
    return {
        "image": row.image,
        "psnr_db": row.network.psnr_db,
        "ssim": row.network.ssim,
        "baseline_psnr_db": row.baseline.psnr_db,
        "baseline_ssim": row.baseline.ssim,
    }


def _as_json(scores: Scores, preset: str, folder: Path, tile_px: int | None) -> dict[str, Any]:
    return {
        "preset": preset,
        "data": str(folder),
        "task": scores.task,
        "baseline": scores.baseline,
        "conventions": scores.conventions,
        "tile_px": tile_px,
        "images": [_record(row) for row in scores.images],
        "mean": {key: value for key, value in _record(scores.mean).items() if key != "image"},
        "notes": list(scores.notes),
    }


def _write_csv(scores: Scores, path: Path) -> None:
    rows = [_record(row) for row in scores.images]
    try:
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    except OSError as error:
        raise InputError(f"--csv {path}: cannot be written ({error.strerror}). Name another file.") from error


def _half(name: str) -> Half:
    _one_of("--half", name, get_args(Half))
    return name  # pyright: ignore[reportReturnType]


def _one_of(option: str, value: str | None, legal: tuple[str | None, ...]) -> None:
    if value not in legal:
        raise InputError(f"{option} {value}: not known. Use one of {', '.join(v for v in legal if v)}.")


@contextmanager
def _progress(errors: Console) -> Iterator[Any]:
    """Show a bar on a terminal while the block runs; what it yields takes (what, done, total, name)."""
    if not errors.is_terminal:
        yield lambda what, done, total, name: None
        return
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    with Progress(*columns, TextColumn("{task.fields[name]}"), console=errors, transient=True) as bars:
        task = bars.add_task("", name="")

        def update(what: str, done: float, total: int, name: str) -> None:
            bars.update(task, description=what, completed=done, total=total, name=name)

        yield update
