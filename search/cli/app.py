"""The commands and their options. What they need is imported when they run: `--help` answers at once."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from io import TextIOWrapper
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from search.cli.groups import DefaultGroup
from search.files import NO_ROOM, UNUSABLE, shown
from search.types import HFIRSearchError, InputError

app = typer.Typer(
    name="hfir-search",
    help="Search HydraFusionIR networks for image restoration and super-resolution, and choose among what was found.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)

measure_app = typer.Typer(
    cls=DefaultGroup,
    no_args_is_help=True,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(
    measure_app,
    name="measure",
    help="Measure a network on this machine (measure PRESET), or a run's candidates on another device.",
)

ExperimentArgument = Annotated[
    str,
    typer.Argument(help="Experiment file, or the name of one that ships (efficient).", show_default=False),
]
RunArgument = Annotated[Path, typer.Argument(help="Folder of a run, e.g. results/efficient.", show_default=False)]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Change the file, e.g. proxy.rungs=[100,400]. Repeatable."),
]
TrialsOption = Annotated[int | None, typer.Option(help="Candidates to train, instead of the file's.", min=1)]
WorkersOption = Annotated[int | None, typer.Option(help="Worker processes, instead of the file's.", min=1)]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
DeviceOption = Annotated[str, typer.Option(metavar="cpu|cuda|cuda:N", help="Where the network runs.")]
OnOption = Annotated[
    str | None, typer.Option("--on", metavar="NAME", help="Take latencies of a device, as `measure import` named it.")
]
HalfOption = Annotated[str, typer.Option(metavar="none|bf16|fp16", help="Half precision inside the network.")]
OverlapOption = Annotated[int, typer.Option(metavar="PX", help="Pixels that neighbouring tiles share.")]


class ExportFormat(StrEnum):
    """What `export` writes; the values are those of `hfir.export.FORMATS`."""

    ONNX = "onnx"
    TORCH_EXPORT = "torch-export"
    SAFETENSORS = "safetensors"


@app.command()
def run(
    experiment: ExperimentArgument,
    out: Annotated[Path | None, typer.Option(help="Folder of the run.", show_default="results/<name>")] = None,
    trials: TrialsOption = None,
    workers: WorkersOption = None,
    time_budget: Annotated[
        str | None,
        typer.Option(metavar="TIME", help="Pause after this long, e.g. 90s, 10m, 2h; the same command goes on."),
    ] = None,
    assignments: SetOption = None,
    enqueue: Annotated[
        list[str] | None,
        typer.Option(
            metavar="FILE|PRESET",
            help="Train these first: a YAML file with `enqueue`, a preset's folder, or the name of a network. "
            "Repeatable.",
        ),
    ] = None,
    warm_start: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="RUN",
            help="Begin from an earlier run: what it found out is known to the sampler where its figures hold here, "
            "else its candidates are trained first. Repeatable.",
        ),
    ] = None,
    remeasure: Annotated[
        bool,
        typer.Option(
            "--remeasure",
            help="Ignore cached latencies and measure again; of a finished run, the untrusted ones of its front and "
            "its references.",
        ),
    ] = False,
    tensorboard: Annotated[
        bool, typer.Option("--tensorboard", help="Write the course of each training to <run>/tensorboard.")
    ] = False,
    mlflow: Annotated[
        str | None,
        typer.Option(metavar="URI", help="Log each trained candidate to MLflow, e.g. sqlite:///mlflow.db."),
    ] = None,
    storage: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            help="Keep the records in a database: sqlite:///FILE or postgresql+psycopg://USER@HOST/DATABASE.",
            show_default="a journal in the folder",
        ),
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print nothing but errors.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Search: propose networks, measure, train, and draw the Pareto front. Goes on where it was stopped.

    Leaves presets with weights and card; `hfir-search presets RUN` adds ONNX files.
    """
    with _exit_codes(goes_on=True):
        from search.cli.running import run_experiment

        run_experiment(
            experiment,
            overrides=_overrides(assignments, trials=trials, workers=workers),
            out=out,
            enqueue=enqueue or [],
            warm_starts=warm_start or [],
            time_budget_s=None if time_budget is None else _seconds(time_budget),
            remeasure=remeasure,
            tensorboard=tensorboard,
            mlflow=mlflow,
            storage=storage,
            quiet=quiet,
            as_json=as_json,
        )


@app.command()
def check(
    experiment: ExperimentArgument,
    trials: TrialsOption = None,
    workers: WorkersOption = None,
    assignments: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Say what an experiment will do before anything is spent: size, limits that bite, time, data."""
    with _exit_codes():
        from search.cli.checking import check_experiment

        check_experiment(experiment, _overrides(assignments, trials=trials, workers=workers), as_json=as_json)


@app.command()
def calibrate(
    experiment: ExperimentArgument,
    out: Annotated[
        Path | None, typer.Option(help="Folder of the calibration.", show_default="results/<name>-calibration")
    ] = None,
    candidates: Annotated[int, typer.Option(help="Networks, spread over the space.", min=6)] = 16,
    seeds: Annotated[int, typer.Option(help="Trainings of each.", min=2)] = 2,
    steps: Annotated[
        str | None,
        typer.Option(metavar="STEP,STEP,…", help="Where to look.", show_default="the rungs and steps between"),
    ] = None,
    rates: Annotated[
        str | None,
        typer.Option(metavar="RATE,RATE,…", help="Range test: also train a few at these rates, to the second rung."),
    ] = None,
    crop: Annotated[int, typer.Option(metavar="PX", help="Centre of each photograph that is looked at.")] = 192,
    quick: Annotated[bool, typer.Option("--quick", help="8 candidates, looked at on the rungs: rough.")] = False,
    workers: WorkersOption = None,
    assignments: SetOption = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print nothing but errors.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Find out whether the short training orders networks as the long one does. Goes on where it was stopped.

    Trains a sample of the space through all rungs and says how each rung agrees with the last, beside what counting
    parameters achieves; fits a predictor that promotions can rank by, and recommends rungs. Takes as long as a run.
    """
    with _exit_codes(goes_on=True):
        from search.cli.calibrating import calibrate_experiment

        calibrate_experiment(
            experiment,
            overrides=_overrides(assignments, trials=None, workers=workers),
            out=out,
            candidates=candidates,
            seeds=seeds,
            steps=steps,
            rates=rates,
            crop_px=crop,
            quick=quick,
            quiet=quiet,
            as_json=as_json,
        )


@app.command()
def train(
    out: Annotated[Path, typer.Option(help="Folder of the training; an existing one goes on.", show_default=False)],
    preset: Annotated[
        str | None,
        typer.Argument(help="Preset folder of a run, or the name of a network (efficient).", show_default=False),
    ] = None,
    run_folder: Annotated[
        Path | None, typer.Option("--run", help="Instead of PRESET: the folder of a run, with --trial.")
    ] = None,
    trial: Annotated[int | None, typer.Option(help="Number of a trained trial of --run.", min=0)] = None,
    recipe: Annotated[Path | None, typer.Option(help="YAML file with the recipe.")] = None,
    steps: Annotated[int | None, typer.Option(help="Steps of the PSNR stage, instead of the recipe's.", min=1)] = None,
    time_budget: Annotated[
        str | None,
        typer.Option(metavar="TIME", help="Pause after this long, e.g. 90s, 10m, 2h; the same command goes on."),
    ] = None,
    data: Annotated[
        str | None, typer.Option(help="`embedded`, or a folder of photographs.", show_default="as the preset's")
    ] = None,
    task: Annotated[
        str | None,
        typer.Option(metavar="KIND", help="A kind of task, as in experiment files.", show_default="as the preset's"),
    ] = None,
    assignments: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Change the recipe, e.g. gan.steps=500. Repeatable."),
    ] = None,
    accelerator: Annotated[str, typer.Option(help="cpu, cuda, mps or auto.")] = "auto",
    devices: Annotated[int, typer.Option(help="How many of them.", min=1)] = 1,
    precision: Annotated[
        str | None, typer.Option(help="32-true or bf16-mixed.", show_default="as the recipe's")
    ] = None,
    compiled: Annotated[
        bool,
        typer.Option("--compile/--no-compile", help="Compile the network; may pay after thousands of steps."),
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print nothing but errors.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Train a chosen network fully, from its proxy weights. Goes on where it was stopped."""
    with _exit_codes(goes_on=True):
        deadline = None if time_budget is None else time.monotonic() + _seconds(time_budget)
        named = {"steps": steps, "precision": precision, "task.data": data, "task.kind": task}
        from search.cli.training import train_network

        train_network(
            preset,
            run_folder=run_folder,
            trial=trial,
            out=out,
            recipe=recipe,
            assignments=[*_assigned(named), *(assignments or ())],
            deadline=deadline,
            accelerator=accelerator,
            devices=devices,
            compiled=compiled,
            quiet=quiet,
            as_json=as_json,
        )


@app.command()
def front(
    run_folder: RunArgument,
    explain: Annotated[
        bool,
        typer.Option("--explain", help="Say what each member buys, what lies one change away, and what is a tie."),
    ] = False,
    on: OnOption = None,
    as_json: JsonOption = False,
) -> None:
    """Print the Pareto front of a run, also while it is going on."""
    with _exit_codes():
        from search.cli.showing import show_front

        show_front(run_folder, explain=explain, on=on, as_json=as_json)


@app.command()
def report(
    run_folder: RunArgument,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", metavar="DIR", help="Folder for what is written.", show_default="RUN"),
    ] = None,
    formats: Annotated[
        str | None, typer.Option("--format", metavar="png,svg,pdf", help="Write static figures, too, into figures/.")
    ] = None,
    open_page: Annotated[bool, typer.Option("--open", help="Show the page in the browser.")] = False,
    on: OnOption = None,
) -> None:
    """Write report.html of a run, its tables and its pictures again, also while it is going on."""
    with _exit_codes():
        from search.cli.reporting import write_reports

        write_reports(run_folder, out=out, formats=formats, open_page=open_page, on=on)


@app.command()
def export(
    preset: Annotated[
        str,
        typer.Argument(help="Preset folder, .safetensors file, or (with --untrained) a name.", show_default=False),
    ],
    out: Annotated[Path, typer.Option("--out", "-o", metavar="DIR", help="Folder for the file.", show_default=False)],
    format: Annotated[ExportFormat, typer.Option(help="What to write.")] = ExportFormat.ONNX,
    name: Annotated[
        str | None, typer.Option(help="Name inside the file's name.", show_default="run and preset")
    ] = None,
    opset: Annotated[
        int | None,
        typer.Option(help="Version of the ONNX operators.", min=1, show_default="the lowest that the network needs"),
    ] = None,
    fp16: Annotated[bool, typer.Option("--fp16", help="Write half precision.")] = False,
    untrained: Annotated[
        bool, typer.Option("--untrained", help="Export a named preset without weights, for timing on a device.")
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a file of that name.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Write a network for other programs, and check that the file computes what the network computes."""
    with _exit_codes():
        from search.cli.exporting import export_preset

        export_preset(
            preset,
            out,
            format=format.value,
            name=name,
            opset=opset,
            fp16=fp16,
            untrained=untrained,
            overwrite=overwrite,
            as_json=as_json,
        )


@app.command()
def presets(
    run_folder: RunArgument,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", metavar="DIR", help="Folder for the presets.", show_default="RUN/presets"),
    ] = None,
    classes: Annotated[
        str | None,
        typer.Option(
            metavar="MS,MS,…",
            help="Latency classes, e.g. 10,30,100: for each the best network within it.",
            show_default="the experiment's deploy.classes_ms",
        ),
    ] = None,
    onnx: Annotated[bool, typer.Option("--onnx/--no-onnx", help="Write ONNX files, 5 to 60 s a network.")] = True,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print nothing but errors.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Write the presets of a run as folders that ship: weights, ONNX, card, sample picture, checksums.

    The budget is checked again on each network as read back; one that misses it is refused. `run` writes the same
    folders at its end, without ONNX.
    """
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # torch's profiler, which measures memory, keeps still
    with _exit_codes():
        from search.cli.presets import write_presets

        write_presets(run_folder, out=out, classes=classes, onnx=onnx, quiet=quiet, as_json=as_json)


@app.command()
def verify(
    preset: Annotated[Path, typer.Argument(help="Folder of a preset.", show_default=False)],
    as_json: JsonOption = False,
) -> None:
    """Measure a preset again on this machine and say what differs. Exit code 1: weights, PSNR or ONNX do."""
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")
    with _exit_codes():
        from search.cli.presets import verify as verify_folder

        verify_folder(preset, as_json=as_json)


@app.command()
def select(
    run_folder: RunArgument,
    latency_ms: Annotated[
        str | None, typer.Option(metavar="BOUND", help="Latency; the whole 95 % interval must keep to it.")
    ] = None,
    macs_g: Annotated[str | None, typer.Option(metavar="BOUND", help="Multiply-accumulates, in 1e9.")] = None,
    params_m: Annotated[str | None, typer.Option(metavar="BOUND", help="Parameters, in millions.")] = None,
    peak_mem_mib: Annotated[str | None, typer.Option(metavar="BOUND", help="Peak memory, in MiB.")] = None,
    psnr_db: Annotated[str | None, typer.Option(metavar="BOUND", help="PSNR, in dB.")] = None,
    ssim: Annotated[str | None, typer.Option(metavar="BOUND", help="SSIM.")] = None,
    prefer: Annotated[
        str | None, typer.Option(metavar="NAME", help="Put the best in this figure first.", show_default="psnr_db")
    ] = None,
    weights: Annotated[
        list[str] | None,
        typer.Option(
            "--weight",
            metavar="NAME=NUMBER",
            help="Instead: put the nearest to the ideal first, by weighted Chebyshev distance. Each figure is scaled "
            "to [0, 1] over the whole front (0 its best, 1 its worst; costs by their logarithm); the largest weighted "
            "one counts. Repeatable.",
        ),
    ] = None,
    on: OnOption = None,
    as_json: JsonOption = False,
) -> None:
    """Print the members of a front that keep to bounds, in order of preference; say which bound excludes what.

    A BOUND is written "<20", "<=20", ">33.5", a range 20..40, or a number alone: at most of a cost, at least of a
    quality. Quote < and >, or the shell takes them.
    """
    bounds = {
        "latency_ms": latency_ms,
        "macs_g": macs_g,
        "params_m": params_m,
        "peak_mem_mib": peak_mem_mib,
        "psnr_db": psnr_db,
        "ssim": ssim,
    }
    with _exit_codes():
        from search.cli.showing import show_selection

        weighted = _weights(prefer, weights)
        show_selection(run_folder, {k: v for k, v in bounds.items() if v is not None}, weighted, on=on, as_json=as_json)


@app.command()
def compare(
    run_folders: Annotated[
        list[Path], typer.Argument(metavar="RUN RUN…", help="Folders of two runs or more.", show_default=False)
    ],
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Draw the fronts into this PNG, SVG or PDF.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Compare the fronts of runs: hypervolumes, and who leads at which cost. Refuses what does not compare."""
    with _exit_codes():
        from search.cli.comparing import show_comparison

        show_comparison(run_folders, out=out, as_json=as_json)


@measure_app.command("beside")
def measure_beside(
    where: Annotated[
        str,
        typer.Argument(
            metavar="RUN|EXPERIMENT", help="Folder of a run, which keeps and draws it; or a file.", show_default=False
        ),
    ],
    module: Annotated[
        str | None,
        typer.Option(metavar="PACKAGE.MOD:FACTORY", help="Any torch.nn.Module, from the current folder or installed."),
    ] = None,
    network: Annotated[
        str | None, typer.Option(metavar="bicubic|fsrcnn|edsr|rep_stack", help="Instead: a built-in network.")
    ] = None,
    args: Annotated[str, typer.Option(metavar="JSON", help="Arguments, e.g. '{\"width\": 32}'.")] = "{}",
    name: Annotated[str | None, typer.Option(help="What it is called.", show_default="its network or factory")] = None,
    as_json: JsonOption = False,
) -> None:
    """Measure a network that is no candidate, and train it as a run's candidates are, to compare it with the front."""
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")
    with _exit_codes():
        from search.cli.measuring_beside import measure_beside as beside

        beside(where, module=module, network=network, args=args, name=name, as_json=as_json)


@app.command()
def status(
    run_folder: RunArgument,
    watch: Annotated[
        float | None, typer.Option(metavar="SECONDS", help="Look again every so often, until the run ends.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Say where a run stands, from any terminal while it goes on; and how to go on with it where it is not."""
    with _exit_codes():
        from search.cli.status import show_status

        show_status(run_folder, watch_s=watch, as_json=as_json)


@app.command()
def profile(run_folder: RunArgument, as_json: JsonOption = False) -> None:
    """Say where a run's wall time went: training, measuring, and what was neither; how busy its workers were."""
    with _exit_codes():
        from search.cli.profiling import show_profile

        show_profile(run_folder, as_json=as_json)


@app.command()
def dashboard(
    run_folder: RunArgument,
    host: Annotated[
        str, typer.Option(help="Address to listen on; 0.0.0.0 shows the run to the network.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on; 0 for any that is free.", min=0, max=65535)] = 8080,
) -> None:
    """Show a run in optuna-dashboard, read-only, also while it is going on."""
    with _exit_codes():
        from search.cli.dashboard import serve_dashboard

        serve_dashboard(run_folder, host=host, port=port)


@app.command()
def restore(
    inputs: Annotated[
        list[Path], typer.Argument(metavar="INPUT", help="Pictures, and folders of pictures.", show_default=False)
    ],
    preset: Annotated[str, typer.Option(help="Folder of a preset, or its .safetensors file.", show_default=False)],
    out: Annotated[
        Path, typer.Option("--out", "-o", help="Folder of the results; for one input also a file.", show_default=False)
    ],
    file_format: Annotated[
        str | None,
        typer.Option("--format", metavar="png|jpg|webp|tif", help="Format of the results.", show_default="png"),
    ] = None,
    quality: Annotated[int | None, typer.Option(help="Of JPEG and WebP.", min=1, max=100, show_default="95")] = None,
    recursive: Annotated[bool, typer.Option("--recursive", help="Search subfolders too.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Restore anew what is there already.")] = False,
    tile: Annotated[
        int | None,
        typer.Option(metavar="PX", help="Longest side of a tile of the input.", show_default="by the memory limit"),
    ] = None,
    overlap: OverlapOption = 32,
    memory_limit_mib: Annotated[
        float, typer.Option(help="For one tile's pass; program and pictures come on top.", min=1.0)
    ] = 512.0,
    degradation: Annotated[
        str | None,
        typer.Option(
            metavar="texture|denoise|deblur|artifact", help="What to tell a network that asks for the degradation."
        ),
    ] = None,
    device: DeviceOption = "cpu",
    half: HalfOption = "none",
) -> None:
    """Restore or enlarge pictures by a trained network, tile by tile. What is there already stays."""
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # torch's profiler, which measures memory, keeps still
    with _exit_codes(goes_on=True):
        from search.cli.restoring import restore_files

        restore_files(
            inputs,
            preset=preset,
            out=out,
            recursive=recursive,
            overwrite=overwrite,
            format_name=file_format,
            quality=quality,
            device=device,
            half=half,
            tile_px=tile,
            overlap_px=overlap,
            memory_limit_mib=memory_limit_mib,
            degradation=degradation,
        )


@app.command()
def evaluate(
    preset: Annotated[
        str,
        typer.Argument(help="Folder of a preset, its .safetensors file, or bicubic.", show_default=False),
    ],
    data: Annotated[Path, typer.Option(help="Folder of clean photographs.", show_default=False)],
    upscale: Annotated[
        int | None, typer.Option(help="With bicubic: shrink and enlarge by this.", min=2, max=4, show_default=False)
    ] = None,
    task: Annotated[
        str | None,
        typer.Option(
            metavar="TASK",
            help="How to degrade them, as experiment files say it: '{kind: denoise, sigma: 25}'.",
            show_default="the preset's",
        ),
    ] = None,
    degraded: Annotated[
        Path | None, typer.Option(help="Folder of their degraded forms, same names; instead of a task.")
    ] = None,
    against: Annotated[
        str | None,
        typer.Option(metavar="PRESET", help="Another network to compare with.", show_default="bicubic, or the input"),
    ] = None,
    metrics: Annotated[
        str, typer.Option(metavar="NAME,NAME,…", help="Of psnr, ssim, lpips and dists; the last two by pyiqa.")
    ] = "psnr,ssim",
    rgb: Annotated[bool, typer.Option("--rgb", help="Score enlargements on RGB instead of luma.")] = False,
    seen: Annotated[
        bool, typer.Option("--seen", help="Score photographs too that the network was trained on or selected by.")
    ] = False,
    tile: Annotated[
        int | None,
        typer.Option(metavar="PX", help="Longest side of a tile of the input.", show_default="whole images"),
    ] = None,
    overlap: OverlapOption = 32,
    device: DeviceOption = "cpu",
    half: HalfOption = "none",
    csv: Annotated[Path | None, typer.Option(metavar="FILE", help="Write the figures of each image as CSV.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Score a trained network, or bicubic: PSNR and SSIM of each photograph, beside bicubic, the input or another."""
    with _exit_codes():
        from search.cli.evaluating import evaluate_preset

        evaluate_preset(
            preset,
            folder=data,
            upscale=upscale,
            task=task,
            degraded=degraded,
            against=against,
            metrics=metrics,
            rgb=rgb,
            seen=seen,
            device=device,
            half=half,
            tile_px=tile,
            overlap_px=overlap,
            csv_file=csv,
            as_json=as_json,
        )


@measure_app.command("network")
def measure(
    preset: Annotated[
        str | None, typer.Argument(help="Folder of a preset, its .safetensors file, or a name (efficient).")
    ] = None,
    module: Annotated[
        str | None, typer.Option(metavar="PKG.MOD:FACTORY", help="Instead of PRESET: any torch.nn.Module.")
    ] = None,
    args: Annotated[str | None, typer.Option(metavar="JSON", help="Keyword arguments of --module's factory.")] = None,
    channels: Annotated[int, typer.Option(help="Channels of --module's input.", min=1)] = 3,
    upscale: Annotated[int, typer.Option(help="Enlargement of --module.", min=1)] = 1,
    at: Annotated[str, typer.Option(metavar="WxH", help="Size of the input.")] = "160x160",
    macs_at: Annotated[
        str | None, typer.Option(metavar="WxH", help="Size for MACs and activations.", show_default="as --at")
    ] = None,
    threads: Annotated[int, typer.Option(help="Of the runtime.", min=1)] = 1,
    runtime: Annotated[str, typer.Option(metavar="torch|compile|onnxruntime", help="What runs the network.")] = "torch",
    device: Annotated[str, typer.Option(metavar="cpu|cuda:N", help="Where it runs.")] = "cpu",
    by_module: Annotated[
        bool, typer.Option("--by-module", help="Parameters, MACs (ours and fvcore's) and activations of each part.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Measure a network's deploy form on this machine, as a search does: a preset, or any torch.nn.Module."""
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")
    with _exit_codes():
        from search.cli.measuring import measure_network

        measure_network(
            preset,
            module=module,
            args=args,
            channels=channels,
            upscale=upscale,
            at=at,
            macs_at=macs_at,
            threads=threads,
            runtime=runtime,
            device=device,
            by_module=by_module,
            as_json=as_json,
        )


@measure_app.command("bundle")
def measure_bundle(
    run_folder: RunArgument,
    out: Annotated[Path, typer.Option("--out", "-o", metavar="DIR", help="Folder to write.", show_default=False)],
    every: Annotated[bool, typer.Option("--all/--front", help="All measured candidates, or the front alone.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Write ONNX files of a run's candidates and a script that times them on another device."""
    with _exit_codes():
        from search.cli.measuring import bundle_run

        bundle_run(run_folder, out, every=every, as_json=as_json)


@measure_app.command("import")
def measure_import(
    run_folder: RunArgument,
    file: Annotated[Path, typer.Argument(metavar="CSV", help="What the script wrote.", show_default=False)],
    name: Annotated[str | None, typer.Option(help="What the device is called.", show_default="the CSV's name")] = None,
) -> None:
    """Keep the latencies of another device with a run, for `front`, `select` and `report --on NAME`."""
    with _exit_codes():
        from search.cli.measuring import import_run

        import_run(run_folder, file, name=name)


@app.command("bench-samplers")
def bench_samplers(
    table: Annotated[
        str, typer.Option(metavar="NAME", help="ours, nb201-cifar10, nb201-cifar100 or nb201-imagenet16.")
    ] = "ours",
    samplers: Annotated[str, typer.Option(help="Names, separated by commas; all: every quick one.")] = "all",
    schedulers: Annotated[str, typer.Option(help="full, halving, or both: all.")] = "all",
    seeds: Annotated[int, typer.Option(help="Searches of each.", min=2)] = 20,
    first_seed: Annotated[int, typer.Option(help="Of the first search; the others count up.", min=0)] = 0,
    evaluations: Annotated[int, typer.Option(help="Candidates that a search trains.", min=4)] = 200,
    generation: Annotated[int, typer.Option(help="Candidates proposed before any is trained.", min=1)] = 1,
    within: Annotated[
        float | None,
        typer.Option(metavar="QUANTILE", help="Limit the cost to this quantile of the table's.", min=0.01, max=1.0),
    ] = None,
    screening: Annotated[
        str,
        typer.Option(metavar="SCORE:OF", help="Also search with screening, e.g. naswot:4; several by commas."),
    ] = "",
    rungs: Annotated[
        str, typer.Option(metavar="STEPS", help="Halve at these steps of the table.", show_default="all that it has")
    ] = "",
    keep: Annotated[
        float | None,
        typer.Option(help="Share of the candidates at a rung that go on.", min=0.01, max=1.0, show_default="0.5"),
    ] = None,
    workers: Annotated[int | None, typer.Option(help="Searches at a time.", min=1, show_default="one a core")] = None,
    out: Annotated[Path, typer.Option(help="Folder for CSV and figures.")] = Path("results/samplers"),
) -> None:
    """Compare samplers and schedulers on a table of networks whose trainings are looked up, in minutes."""
    with _exit_codes():
        from search.cli.benching import bench_samplers, default_workers

        bench_samplers(
            table,
            samplers=samplers,
            schedulers=schedulers,
            seeds=seeds,
            first_seed=first_seed,
            evaluations=evaluations,
            generation=generation,
            within=within,
            screening=screening,
            rungs=rungs,
            keep=keep,
            workers=workers or default_workers(),
            out=out,
        )


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"hfir-search {version('hfir-search')}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Search HydraFusionIR networks, and choose among what was found."""


def main() -> None:
    """Run the command line. A character that standard output cannot show is replaced, whatever its encoding."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="replace")
    app()


@contextmanager
def _exit_codes(*, goes_on: bool = False) -> Iterator[None]:
    """Turn errors into one message and the documented exit code; SIGTERM is taken like Ctrl-C.

    Args:
        goes_on: Whether the command, given again, goes on from where it was interrupted.
    """
    previous = signal.signal(signal.SIGTERM, _interrupt)
    try:
        yield
    except InputError as error:
        _end(str(error), 2)
    except HFIRSearchError as error:
        _end(str(error), 1)
    except OSError as error:
        name = error.filename
        path = shown(os.fsdecode(name)) if isinstance(name, str | bytes | os.PathLike) else "a file"
        if error.errno in NO_ROOM:
            _end(f"{path}: cannot be written ({error.strerror}). Free disk space, then try again.", 1)
        if error.errno not in UNUSABLE:
            raise
        reason = "a file is in the way" if isinstance(error, FileExistsError) else error.strerror
        _end(
            f"{path}: cannot be used ({reason}).\n"
            "  Check the path and its permissions. Results can go to another folder with --out.",
            2,
        )
    except KeyboardInterrupt:
        kept = "; everything finished so far is kept. The same command goes on from here." if goes_on else "."
        _end(f"interrupted{kept}", 130)
    finally:
        signal.signal(signal.SIGTERM, previous)


def _interrupt(number: int, frame: object) -> NoReturn:
    raise KeyboardInterrupt


def _end(message: str, code: int) -> NoReturn:
    typer.echo(f"hfir-search: {message}", err=True)
    sys.exit(code)


def _overrides(assignments: list[str] | None, *, trials: int | None, workers: int | None) -> list[str]:
    extra = [] if trials is None else [f"search.trials={trials}"]
    extra += [] if workers is None else [f"execution.workers={workers}"]
    return [*(assignments or ()), *extra]


def _assigned(values: dict[str, str | int | None]) -> list[str]:
    """Write options as assignments; JSON is YAML, whatever a folder is called."""
    return [f"{key}={json.dumps(value)}" for key, value in values.items() if value is not None]


def _weights(prefer: str | None, assignments: list[str] | None) -> dict[str, float]:
    """Read `--prefer NAME` as that figure alone, or `--weight NAME=NUMBER`s; PSNR alone where neither is given."""
    if prefer is not None and assignments:
        raise InputError("--prefer and --weight are both given.\n  --prefer orders by one figure, --weight by several.")
    weights = {} if assignments else {prefer or "psnr_db": 1.0}
    for text in assignments or ():
        name, _, number = text.partition("=")
        try:
            weights[name.strip()] = float(number)
        except ValueError as error:
            raise InputError(f"--weight {text}: not a weight.\n  Write NAME=NUMBER, e.g. psnr_db=2.") from error
    return weights


def _seconds(text: str) -> float:
    """Read 90, 90s, 10m or 2h."""
    units = {"s": 1.0, "m": 60.0, "h": 3600.0}
    number, unit = (text[:-1], text[-1]) if text[-1:] in units else (text, "s")
    try:
        seconds = float(number) * units[unit]
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < float("inf"):
        raise InputError(f"--time-budget {text}: not a time.\n  Write seconds, minutes or hours: 90s, 10m, 2h.")
    return seconds
