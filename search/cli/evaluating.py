"""`evaluate`: the scores of a trained network, or of bicubic, on a folder of photographs."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.table import Table

from search.cli.consoles import error_console, output_console
from search.cli.logs import logging_to, shown_log
from search.cli.restoring import half_named, shown_progress
from search.cli.showing import print_json
from search.counts import count
from search.experiment.sections import TaskSection
from search.files import may_write, shown
from search.inference.networks import Restorer, open_restorer
from search.inference.scoring import (
    Ruler,
    Score,
    Scores,
    Subject,
    check_unseen,
    network,
    read_task,
    recorded_task,
    score_folder,
    what_costs_nothing,
)
from search.report.intervals import FEW_IMAGES, RESAMPLES, Interval, difference
from search.tasks.images import Photo
from search.types import InputError

BICUBIC = "bicubic"
"""What stands for bicubic enlargement where a preset is asked for; a folder of that name is `./bicubic`."""

_HEADINGS = {"psnr_db": ("PSNR", "dB"), "ssim": ("SSIM", ""), "lpips": ("LPIPS", ""), "dists": ("DISTS", "")}
_DECIMALS = {"psnr_db": 2, "ssim": 4, "lpips": 4, "dists": 4}


def evaluate_preset(
    preset: str,
    *,
    folder: Path,
    upscale: int | None,
    task: str | None,
    degraded: Path | None,
    against: str | None,
    metrics: str,
    rgb: bool,
    seen: bool,
    device: str,
    half: str,
    tile_px: int | None,
    overlap_px: int,
    csv_file: Path | None,
    as_json: bool,
) -> None:
    """Score a preset, or bicubic, on a folder of photographs and print the table.

    Raises:
        InputError: If the preset, the task, a metric or a folder cannot be used, or a preset has seen a photograph.
    """
    if task is not None and degraded is not None:
        raise InputError("--task and --degraded: images are degraded by a task, or given as files. Leave one out.")
    _check_csv(csv_file)
    errors = error_console()
    with logging_to(shown_log(errors)):
        if preset == BICUBIC:
            _refuse_for_bicubic(
                {
                    "--task": task is not None,
                    "--against": against is not None,
                    "--tile": tile_px is not None,
                    "--half": half != "none",
                    "--device": device != "cpu" and set(metrics.split(",")) <= {"psnr", "ssim"},
                }
            )
            subject, other, place = what_costs_nothing(_upscale(upscale), 3), None, None
            chosen = TaskSection(kind="super_resolution", upscale=upscale)
        else:
            if upscale is not None:
                raise InputError("--upscale is for bicubic; a network knows by how much it enlarges. Leave it out.")

            def opened(name: str) -> Restorer:
                return open_restorer(name, device=device, half=half_named(half), tile_px=tile_px, overlap_px=overlap_px)

            restorer = opened(preset)
            subject, place = network(restorer, preset), restorer.device
            chosen = None
            if degraded is None:
                chosen = read_task(task) if task is not None else recorded_task(preset, restorer.scale)
            if against is None or against == BICUBIC:
                other = what_costs_nothing(restorer.scale, restorer.channels)
                _refuse_bicubic_restoration(against, other)
            else:
                other = network(opened(against), against)
        ruler = Ruler(metrics.split(","), scale=subject.scale, channels=subject.channels, rgb=rgb, device=place)

        def check(photos: Sequence[Photo]) -> list[str]:
            names = [name for name in (preset, against) if name not in (None, BICUBIC)]
            return [note for name in names if (note := check_unseen(str(name), photos, allowed=seen))]

        with shown_progress(errors) as bar:
            scores = score_folder(
                subject,
                folder,
                task=None if degraded is not None else chosen,
                degraded=degraded,
                other=other,
                ruler=ruler,
                check=check,
                on_image=lambda done, count: bar("evaluating", done, count, ""),
            )
    if csv_file is not None:
        _write_csv(scores, csv_file)
    if as_json:
        print_json(_as_json(scores, preset, folder, tile_px))
    else:
        _print_scores(scores, preset, folder, tile_px)


def _upscale(upscale: int | None) -> int:
    if upscale is None:
        raise InputError(
            "bicubic enlarges by what you say. Give --upscale 2, 3 or 4 (a folder of that name: ./bicubic)."
        )
    return upscale


def _refuse_for_bicubic(given: dict[str, bool]) -> None:
    wrong = [option for option, there in given.items() if there]
    if wrong:
        raise InputError(
            f"{', '.join(wrong)}: for networks, not for bicubic, which shrinks by --upscale and enlarges back on the "
            "CPU. Leave it out; to compare a network with bicubic: evaluate PRESET."
        )


def _refuse_bicubic_restoration(against: str | None, other: Subject) -> None:
    if against == BICUBIC and other.name != BICUBIC:
        raise InputError(
            "--against bicubic: the network does not enlarge, and is compared with its input. Leave it out."
        )


def _print_scores(scores: Scores, preset: str, folder: Path, tile_px: int | None) -> None:
    console = output_console()
    console.print(f"{shown(preset)} on {shown(folder)}: {scores.task}", style="bold", highlight=False, soft_wrap=True)
    table = Table(box=None, pad_edge=False)
    table.add_column("image\n", overflow="fold")
    names = list(scores.mean.figures)
    for heading in _headings(names, scores.baseline):
        table.add_column(heading, justify="right", no_wrap=True)
    for i, row in enumerate(scores.images):
        table.add_row(*_row(row), end_section=i == len(scores.images) - 1)
    table.add_row(*_row(scores.mean), style="bold")
    console.print(table)
    for line in _differences_in_words(scores):
        console.print(line, highlight=False)
    tiles = "" if tile_px is None else f"; tiles of {tile_px} px"
    console.print(f"{scores.conventions}{tiles}", style="dim", highlight=False)
    for note in scores.notes:
        console.print(f"data: {note}", style="dim", soft_wrap=True)


def _headings(names: list[str], baseline: str | None) -> list[str]:
    own = ["\n".join(_HEADINGS[name]) for name in names]
    if baseline is None:
        return own
    short = baseline if len(baseline) <= 8 else "other"
    other = [f"{short}\n{_HEADINGS[name][1] or _HEADINGS[name][0]}" for name in names]
    return [*own, *other, *(["gain\ndB"] if "psnr_db" in names else [])]


def _row(row: Score) -> list[str]:
    cells = [f"{value:.{_DECIMALS[name]}f}" for name, value in row.figures.items()]
    if row.other is None:
        return [row.image, *cells]
    cells += [f"{value:.{_DECIMALS[name]}f}" for name, value in row.other.items()]
    gain = [f"{row.figures['psnr_db'] - row.other['psnr_db']:+.2f}"] if "psnr_db" in row.figures else []
    return [row.image, *cells, *gain]


def _intervals(scores: Scores) -> dict[str, Interval | None]:
    """Return the interval of each mean difference, what is scored less what it is compared with."""
    names = scores.mean.figures if scores.baseline is not None else ()
    others = [row.other or {} for row in scores.images]
    return {
        name: difference([other[name] for other in others], [row.figures[name] for row in scores.images])
        for name in names
    }


def _differences_in_words(scores: Scores) -> list[str]:
    lines = []
    mean = scores.mean
    for name, interval in _intervals(scores).items():
        if interval is None or mean.other is None:
            continue
        label, unit = _HEADINGS[name]
        digits = _DECIMALS[name]
        found = mean.figures[name] - mean.other[name]
        lines.append(
            f"{label} {found:+.{digits}f} {unit}".rstrip()
            + f" to {scores.baseline}, 95 % interval {interval.low:+.{digits}f} .. {interval.high:+.{digits}f}"
        )
    if lines:
        few = f"; fewer than {FEW_IMAGES}: narrower than it says" if len(scores.images) < FEW_IMAGES else ""
        lines.append(
            f"intervals by the paired bootstrap over {count(len(scores.images), 'image')}, {RESAMPLES} draws{few}"
        )
    return lines


def _record(row: Score) -> dict[str, Any]:
    other = {f"baseline_{name}": value for name, value in (row.other or {}).items()}
    return {"image": row.image, **row.figures, **other}


def _as_json(scores: Scores, preset: str, folder: Path, tile_px: int | None) -> dict[str, Any]:
    mean = scores.mean
    return {
        "preset": preset,
        "data": str(folder),
        "task": scores.task,
        "baseline": scores.baseline,
        "conventions": scores.conventions,
        "tile_px": tile_px,
        "images": [_record(row) for row in scores.images],
        "mean": {key: value for key, value in _record(mean).items() if key != "image"},
        "difference": {
            name: {
                "mean": mean.figures[name] - (mean.other or {})[name],
                "interval_95": None if interval is None else [interval.low, interval.high],
            }
            for name, interval in _intervals(scores).items()
        },
        "notes": list(scores.notes),
    }


def _check_csv(path: Path | None) -> None:
    """Refuse a CSV that cannot be written, before anything is computed."""
    if path is not None and not may_write(path):
        raise InputError(f"--csv {shown(path)}: cannot be written. Name another file, in a folder that exists.")


def _write_csv(scores: Scores, path: Path) -> None:
    rows = [_record(row) for row in scores.images]
    try:
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    except OSError as error:
        raise InputError(f"--csv {path}: cannot be written ({error.strerror}). Name another file.") from error
