"""`train`: full training from the command line."""

from __future__ import annotations

import logging
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path

import torch
from rich.console import Console

from search.cli.consoles import output_console
from search.cli.logs import file_log, logging_to
from search.cli.showing import print_json
from search.files import shown
from search.training import load_recipe
from search.training.files import BEST_FOLDER, GAN_FOLDER
from search.training.start import Start, start_from, start_from_trial
from search.training.trainer import Outcome, make_fabric, train
from search.types import InputError


def train_network(
    preset: str | None,
    *,
    run_folder: Path | None,
    trial: int | None,
    out: Path,
    recipe: Path | None,
    assignments: list[str],
    deadline: float | None,
    accelerator: str,
    devices: int,
    compiled: bool,
    quiet: bool,
    as_json: bool,
) -> None:
    """Train a network in a folder and say what came of it.

    Raises:
        InputError: If the options, the recipe or the folder cannot be used.
        KeyboardInterrupt: After a signal, when the checkpoint is written.
    """
    torch.set_flush_denormal(True)
    start = _start(preset, run_folder, trial)
    loaded = load_recipe(recipe, assignments, start.task)
    fabric = make_fabric(loaded.plan.precision, accelerator=accelerator, devices=devices)
    with logging_to(*_logs(out, quiet=quiet)) if fabric.is_global_zero else nullcontext():
        outcome = train(loaded, start, out, fabric, deadline=deadline, compiled=compiled)
    if not fabric.is_global_zero:
        return
    if outcome.interrupted:
        raise KeyboardInterrupt
    if as_json:
        print_json(asdict(outcome) | {"folder": str(outcome.folder)})
    elif not quiet:
        _tell(outcome)


def _start(preset: str | None, run_folder: Path | None, trial: int | None) -> Start:
    if preset is not None and run_folder is None and trial is None:
        return start_from(preset)
    if preset is None and run_folder is not None and trial is not None:
        return start_from_trial(run_folder, trial)
    raise InputError(
        "train: give either a PRESET, or --run and --trial.\n"
        "  For instance: hfir-search train results/efficient/presets/best --out results/trained"
    )


def _logs(folder: Path, *, quiet: bool) -> list[logging.Handler]:
    folder.mkdir(parents=True, exist_ok=True)
    kept = file_log(folder / "train.log")
    return [kept] if quiet else [kept, logging.StreamHandler()]


def _tell(outcome: Outcome) -> None:
    console: Console = output_console()
    before, best, last = outcome.before, outcome.best, outcome.last
    console.print(
        f"{best.psnr_db:.3f} dB, SSIM {best.ssim:.4f} at step {best.step}; "
        f"{before.psnr_db:.3f} dB, SSIM {before.ssim:.4f} before ({best.psnr_db - before.psnr_db:+.3f} dB)",
        highlight=False,
    )
    console.print(f"Preset: {shown(outcome.folder / BEST_FOLDER)}", highlight=False)
    if last.stage == "gan":
        figure = f"{last.psnr_db:.3f} dB; PSNR does not judge it, look"
        console.print(f"After the GAN stage: {shown(outcome.folder / GAN_FOLDER)} ({figure})")
    if not outcome.finished:
        console.print("Paused by --time-budget; the same command goes on.", highlight=False)
