"""The commands and their options. What they need is imported when they run: `--help` answers at once."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import Annotated, NoReturn

import typer

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
    remeasure: Annotated[
        bool, typer.Option("--remeasure", help="Take latencies anew that this machine remembers.")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print nothing but errors.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Search: propose networks, measure, train, and draw the Pareto front. Goes on where it was stopped."""
    with _exit_codes():
        from search.cli.running import run_experiment

        run_experiment(
            experiment,
            overrides=_overrides(assignments, trials=trials, workers=workers),
            out=out,
            time_budget_s=None if time_budget is None else _seconds(time_budget),
            remeasure=remeasure,
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
def front(run_folder: RunArgument, as_json: JsonOption = False) -> None:
    """Print the Pareto front of a run, also while it is going on."""
    with _exit_codes():
        from search.cli.showing import show_front

        show_front(run_folder, as_json=as_json)


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
    opset: Annotated[int, typer.Option(help="Version of the ONNX operators.", min=1)] = 18,
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
def select(
    run_folder: RunArgument,
    latency_ms: Annotated[float | None, typer.Option(help="At most this latency.")] = None,
    macs_g: Annotated[float | None, typer.Option(help="At most these multiply-accumulates, in 1e9.")] = None,
    params_m: Annotated[float | None, typer.Option(help="At most these parameters, in millions.")] = None,
    peak_mem_mib: Annotated[float | None, typer.Option(help="At most this memory, in MiB.")] = None,
    psnr_db: Annotated[float | None, typer.Option(help="At least this PSNR.")] = None,
    ssim: Annotated[float | None, typer.Option(help="At least this SSIM.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Print the members of a front that keep to limits, best first; say which limit excludes what."""
    limits = {"latency_ms": latency_ms, "macs_g": macs_g, "params_m": params_m, "peak_mem_mib": peak_mem_mib}
    floors = {"psnr_db": psnr_db, "ssim": ssim}
    with _exit_codes():
        from search.cli.showing import show_selection

        show_selection(run_folder, _given(limits), _given(floors), as_json=as_json)


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
    """Run the command line."""
    app()


@contextmanager
def _exit_codes() -> Iterator[None]:
    """Turn errors into one message and the documented exit code; SIGTERM is taken like Ctrl-C."""
    previous = signal.signal(signal.SIGTERM, _interrupt)
    try:
        yield
    except InputError as error:
        _end(str(error), 2)
    except HFIRSearchError as error:
        _end(str(error), 1)
    except KeyboardInterrupt:
        _end("interrupted; everything finished so far is kept. The same command goes on from here.", 130)
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


def _given(values: dict[str, float | None]) -> dict[str, float]:
    return {name: value for name, value in values.items() if value is not None}


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
