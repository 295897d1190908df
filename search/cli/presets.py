"""`presets` and `verify`: folders that ship, and whether they still hold what they say."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from rich.table import Table

from search.cli.consoles import error_console, output_console
from search.cli.showing import print_json
from search.evaluation.jobs import start_worker
from search.executors import ProcessExecutor
from search.experiment import Experiment, load_experiment
from search.files import shown
from search.presets import PRESET_FILE, Comparison, Refused, Verdict, Written, export_presets, verify_preset
from search.report import choose_presets
from search.report.classes import ClassChoice, choose_classes
from search.store import hold, read_study
from search.types import EvaluationError, HFIRSearchError, InputError, Study, TrialState

_CLASS = re.compile(r"within_(\d+(?:\.\d+)?(?:e[+-]?\d+)?)ms")
"""The folder of a latency class."""


@dataclasses.dataclass(frozen=True, slots=True)
class Shipment:
    """What became of a run's presets.

    Args:
        results: One for each role that a trial fills.
        empty: The latency classes that no member of the front keeps to.
    """

    results: tuple[Written | Refused, ...]
    empty: tuple[ClassChoice, ...]

    @property
    def written(self) -> list[Written]:
        """Those that are there."""
        return [r for r in self.results if isinstance(r, Written)]

    @property
    def refused(self) -> list[Refused]:
        """Those that are not."""
        return [r for r in self.results if isinstance(r, Refused)]

    def remarks(self) -> list[str]:
        """Return what there is to say beside the folders, one line each."""
        notes = [f"{w.role}: {note}" for w in self.written for note in w.notes]
        return [*(f"{r.role} refused: {r.reason}" for r in self.refused), *map(_empty_class, self.empty), *notes]

    def as_json(self) -> dict[str, Any]:
        """Return the same as plain JSON values."""
        return {
            "written": [{**dataclasses.asdict(w), "folder": str(w.folder)} for w in self.written],
            "refused": [dataclasses.asdict(r) for r in self.refused],
            "empty_classes": [
                {
                    "limit_ms": c.limit_ms,
                    "nearest": None if c.nearest is None else c.nearest.number,
                    "nearest_ms": c.nearest_ms,
                }
                for c in self.empty
            ],
        }


def write_presets(
    folder: Path, *, out: Path | None, classes: str | None, onnx: bool, quiet: bool, as_json: bool
) -> None:
    """Write the presets of a run and print what became of each.

    Args:
        folder: Of the run.
        out: Folder for the presets' folders; by default `presets/` of the run.
        classes: Latency classes in ms, as `10,30,100`; None for those of the experiment.
        onnx: Write ONNX files too.
        quiet: Print nothing but errors.
        as_json: Print JSON.

    Raises:
        InputError: If the folder holds no run, or the classes cannot be read.
        HFIRSearchError: If no candidate is complete, or a preset was refused or could not be written whole.
    """
    wanted = None if classes is None else _classes(classes)
    study = read_study(folder)
    _refuse_empty(study)
    experiment = load_experiment(folder / "experiment.yaml")
    if wanted is None:
        wanted = experiment.deploy.classes_ms
    with (
        hold(folder) if out is None else nullcontext(),
        error_console(quiet=quiet).status("reading back, scoring, measuring and writing …"),
    ):
        shipment = ship(study, experiment, wanted, out=out, onnx=onnx)
    if as_json:
        print_json({"run": study.name, **shipment.as_json()})
    elif not quiet:
        _show_shipment(shipment)
    failures = [f"{r.role}: {r.reason}" for r in shipment.refused]
    failures += [f"{w.role}: {note}" for w in shipment.written if onnx and w.onnx is None for note in w.notes]
    if failures:
        raise HFIRSearchError(f"{folder}: not all presets could be written.\n  " + "\n  ".join(failures))


def ship(
    study: Study,
    experiment: Experiment,
    classes_ms: Sequence[float],
    *,
    out: Path | None = None,
    onnx: bool = False,
    executor: ProcessExecutor | None = None,
    keep_current: bool = False,
) -> Shipment:
    """Choose and write the presets of a run; costs are measured in a process prepared as those of a run are.

    Args:
        study: The run.
        experiment: Its experiment.
        classes_ms: Latency classes.
        out: Folder for the presets' folders; by default `presets/` of the run.
        onnx: Write ONNX files too.
        executor: The run's, where it still has workers; None for one that starts, and ends, in here.
        keep_current: Leave a preset as it is that is there already, whole, and write the latency classes of earlier
            calls as well.
    """
    if keep_current:
        classes_ms = sorted({*classes_ms, *_earlier_classes(out or study.folder / "presets")})
    choices = choose_classes(study, classes_ms)
    filled = {choice.role: choice for choice in choices if choice.trial is not None}
    chosen = {**choose_presets(study), **{role: c.trial for role, c in filled.items() if c.trial is not None}}
    own = executor is None
    executor = executor or ProcessExecutor(1, start_worker)
    try:
        results = export_presets(
            study,
            experiment.evaluation_plan(),
            chosen,
            classes_ms={role: choice.limit_ms for role, choice in filled.items()},
            out=out,
            onnx=onnx,
            executor=executor,
            keep_current=keep_current,
        )
    finally:
        if own:
            executor.close()
    return Shipment(tuple(results), tuple(choice for choice in choices if choice.trial is None))


def verify(folder: Path, *, as_json: bool) -> None:
    """Measure a preset again and print recorded / here / difference.

    Raises:
        InputError: If the folder is no preset with a card.
        HFIRSearchError: If weights, PSNR or the ONNX file differ from what the card says.
    """
    executor = ProcessExecutor(1, start_worker)
    try:
        with error_console().status("measuring again …"):
            [outcome] = executor.run(verify_preset, [folder])
    finally:
        executor.close()
    if isinstance(outcome.error, HFIRSearchError):
        raise outcome.error
    if outcome.value is None:
        raise EvaluationError(f"{folder}: could not be measured ({outcome.error}).\n{outcome.trace}")
    rows = outcome.value
    if as_json:
        print_json({"preset": str(folder), "comparisons": [_comparison_as_json(row) for row in rows]})
    else:
        _show_comparisons(folder, rows)
    faults = [row.figure for row in rows if row.is_fault]
    if faults:
        raise HFIRSearchError(
            f"{folder} is not what its card says: {', '.join(faults)} differ.\n"
            "  Copy the folder again from where it was made, or write it anew: hfir-search presets RUN."
        )


def _classes(text: str) -> tuple[float, ...]:
    """Read `10,30,100`."""
    try:
        values = tuple(float(part) for part in text.split(","))
    except ValueError:
        values = ()
    if not values or any(not 0 < value < float("inf") for value in values) or list(values) != sorted(set(values)):
        raise InputError(
            f"--classes {text}: not a list of latencies.\n  Write numbers > 0 in ms, rising, each once: 10,30,100."
        )
    return values


def _earlier_classes(folder: Path) -> list[float]:
    """Return the latency classes that presets in a folder were written for, e.g. 10 for `within_10ms`."""
    found = [_CLASS.fullmatch(path.name) for path in folder.glob("within_*ms") if (path / PRESET_FILE).is_file()]
    return [float(match[1]) for match in found if match is not None]


def _refuse_empty(study: Study) -> None:
    if study.in_state(TrialState.COMPLETE):
        return
    counts = {state: len(study.in_state(state)) for state in TrialState}
    found = ", ".join(f"{number} {state.value.lower()}" for state, number in counts.items() if number)
    raise HFIRSearchError(
        f"{study.folder}: no candidate is complete, so there is nothing to ship ({found or 'none considered yet'}).\n"
        "  Let the run go on to its end (hfir-search run); `hfir-search check` says which limit bites."
    )


def _empty_class(choice: ClassChoice) -> str:
    limit = f"no member of the front is within {choice.limit_ms:g} ms"
    if choice.nearest is None or choice.nearest_ms is None:
        return f"{choice.role}: {limit}: no latency was measured"
    return f"{choice.role}: {limit}; the nearest is trial {choice.nearest.number}, upper end {choice.nearest_ms:.3g} ms"


def _show_shipment(shipment: Shipment) -> None:
    console = output_console()
    table = Table(box=None, title="Presets", title_justify="left", title_style="bold")
    for heading in ("folder", "name", "trial", "ONNX"):
        table.add_column(heading, overflow="fold")
    for w in shipment.written:
        table.add_row(shown(w.folder), w.name, str(w.trial), "yes" if w.onnx else "no")
    if shipment.written:
        console.print(table)
    for remark in shipment.remarks():
        console.print(remark, highlight=False, markup=False)


def _show_comparisons(folder: Path, rows: Sequence[Comparison]) -> None:
    console = output_console()
    table = Table(box=None, title=f"{shown(folder)} measured again", title_justify="left", title_style="bold")
    for heading in ("figure", "recorded", "here", "difference", ""):
        table.add_column(heading, overflow="fold")
    for row in rows:
        table.add_row(row.figure, row.recorded, row.here, row.difference, row.verdict.value)
    console.print(table)
    for row in rows:
        if row.comment and row.verdict is not Verdict.SAME:
            console.print(f"{row.figure}: {row.comment}", highlight=False, markup=False)


def _comparison_as_json(row: Comparison) -> dict[str, Any]:
    return {**dataclasses.asdict(row), "fault": row.is_fault}
