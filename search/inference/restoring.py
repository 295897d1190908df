"""Restore picture files, one after the other: existing results are skipped, failures are reported at the end."""

from __future__ import annotations

import logging
import stat
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from hfir.config import EXPERT_NAMES
from hfir.tiling import OnTile, TileGrid
from search.evaluation.routing import asks_for_degradation
from search.files import shown
from search.inference.channels import Canvas
from search.inference.jobs import Job
from search.inference.networks import Restorer
from search.inference.pictures import (
    DEFAULT_QUALITY,
    Picture,
    PictureError,
    format_of,
    read_picture,
    writable,
    write_picture,
    written_bits,
)
from search.types import HFIRSearchError, InputError

log = logging.getLogger(__name__)

Progress = Callable[[int, Job, float], None]
"""Take the number of pictures that are finished, the job at work, and the share of its tiles that is done."""


@dataclass(slots=True)
class Outcome:
    """What became of the jobs.

    Args:
        restored: Files written now.
        there_already: Files that an earlier call wrote, left as they are.
        failed: Sources that could not be restored, and why, in one line.
        notes: What was changed or left out in a picture, with the sources that it holds for.
    """

    restored: list[Path] = field(default_factory=list)
    there_already: list[Path] = field(default_factory=list)
    failed: list[tuple[Path, str]] = field(default_factory=list)
    notes: dict[str, list[Path]] = field(default_factory=dict)


def restore_all(
    restorer: Restorer,
    jobs: Sequence[Job],
    *,
    overwrite: bool = False,
    quality: int = DEFAULT_QUALITY,
    on_progress: Progress | None = None,
) -> Outcome:
    """Restore every picture whose result is not there yet.

    Args:
        restorer: The network.
        jobs: From `search.inference.jobs.plan_jobs`.
        overwrite: Restore those anew whose result is there.
        quality: 1..100, for JPEG and WebP.
        on_progress: Told how far it is.

    Raises:
        InputError: If a folder for the results cannot be made.
    """
    for folder in dict.fromkeys(job.target.parent for job in jobs):
        _make_folder(folder)
    outcome, todo = Outcome(), []
    for job in jobs:
        try:
            there = _is_there(job.target)
        except PictureError as error:
            outcome.failed.append((job.source, str(error)))
            continue
        if there and not overwrite:
            outcome.there_already.append(job.target)
        else:
            todo.append(job)
    for finished, job in enumerate(todo):

        def on_tile(run: int, tiles: int, finished: int = finished, job: Job = job) -> None:
            if on_progress is not None:
                on_progress(finished, job, run / tiles)

        try:
            for note in _restore_file(restorer, job, quality, on_tile):
                outcome.notes.setdefault(note, []).append(job.source)
            outcome.restored.append(job.target)
        except HFIRSearchError as error:
            log.info("failed source=%s reason=%s", shown(job.source), error)
            outcome.failed.append((job.source, str(error)))
    return outcome


def restore_picture(
    restorer: Restorer, picture: Picture, *, bits: int, on_tile: OnTile | None = None
) -> tuple[Picture, TileGrid]:
    """Return the restored picture and how it was cut into tiles.

    Args:
        restorer: The network.
        picture: What to restore.
        bits: Bits a channel of the result: 8 or 16.
        on_tile: Told after each tile.

    Raises:
        EvaluationError: If the output is not finite, or memory does not suffice.
    """
    canvas = Canvas(picture, channels=restorer.channels, scale=restorer.scale, bits=bits, device=restorer.device)
    grid = restorer.run(canvas.read, canvas.write, canvas.size, on_tile)
    return canvas.result(), grid


def _restore_file(restorer: Restorer, job: Job, quality: int, on_tile: OnTile) -> list[str]:
    """Restore a picture and return notes on it."""
    format_name = format_of(job.target) or "png"
    picture = writable(read_picture(job.source), format_name)
    restored, grid = restore_picture(restorer, picture, bits=written_bits(picture, format_name), on_tile=on_tile)
    notes = [*picture.notes, *_network_notes(restorer, grid), *write_picture(restored, job.target, quality=quality)]
    log.info("restored source=%s target=%s tiles=%d", shown(job.source), shown(job.target), grid.tiles)
    return notes


def _network_notes(restorer: Restorer, grid: TileGrid) -> list[str]:
    notes = []
    if grid.tiles > 1 and restorer.model.has_global_path:
        notes.append(f"{grid.tiles} tiles, and the network looks at the whole picture: each tile knew of itself only")
    if restorer.degradation is None and asks_for_degradation(restorer.model.config):
        notes.append(f"the network asks for the degradation and was told none: {', '.join(EXPERT_NAMES)}")
    return notes


def _is_there(target: Path) -> bool:
    """Say whether a result exists; PictureError where none can be written under its name."""
    try:
        there = target.stat()
    except FileNotFoundError:
        return False
    except OSError as error:
        raise PictureError(
            f"the result {shown(target)} cannot be written ({error.strerror}). Rename the picture, or use -o."
        ) from error
    if stat.S_ISDIR(there.st_mode):
        raise PictureError(f"the result {shown(target)} cannot be written: it is a folder. Move it, or use -o.")
    return True


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"{shown(folder)}: cannot be made a folder ({error.strerror}). Name another with -o."
        ) from error
