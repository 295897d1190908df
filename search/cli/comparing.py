"""`compare`: runs side by side, as a table and a figure. Loads no torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from search.cli.consoles import output_console
from search.cli.showing import print_json
from search.files import shown
from search.report import Band, Comparison, compare_runs, merged_bands
from search.report.intervals import Interval
from search.report.words import after_steps, figure
from search.store import read_study
from search.types import OBJECTIVES, InputError

FORMATS = ("png", "svg", "pdf")


def show_comparison(folders: Sequence[Path], *, out: Path | None, as_json: bool) -> None:
    """Compare runs; print a table or JSON, and draw a figure where one is asked for.

    Raises:
        InputError: If a folder holds no run, the runs do not compare, or the figure cannot be written.
        StoreError: If a journal is damaged.
    """
    _check_figure(out)
    comparison = compare_runs([read_study(folder) for folder in folders])
    if out is not None:
        _draw(comparison, out)
    if as_json:
        print_json(comparison_record(comparison) | {"figure": None if out is None else str(out)})
        return
    console = output_console()
    _print(console, comparison)
    if out is not None:
        console.print(f"Figure: {shown(out)}", highlight=False, markup=False)


def comparison_record(comparison: Comparison) -> dict[str, Any]:
    """Return a comparison as JSON values."""
    return {
        "cost": comparison.cost,
        "cost_conditions": comparison.cost_conditions,
        "not_compared_on": dict(comparison.why_not),
        "reference": None
        if comparison.reference is None
        else dict(zip(("psnr_db", comparison.cost), comparison.reference, strict=True)),
        "baseline_psnr_db": comparison.baseline_psnr_db,
        "images": comparison.images,
        "runs": [
            {
                "label": run.label,
                "folder": str(run.study.folder),
                "front": [{"trial": t.number, **{name: t.value(name) for name in OBJECTIVES}} for t in run.front],
                "hypervolume_db_doublings": run.hypervolume,
                "interval": None if run.interval is None else asdict(run.interval),
                "behind_the_first": None if run.behind is None else asdict(run.behind),
            }
            for run in comparison.runs
        ],
        "bands": [asdict(band) | {"is_clear": band.is_clear} for band in comparison.bands],
        "caveats": list(comparison.caveats),
    }


def _print(console: Console, comparison: Comparison) -> None:
    label = OBJECTIVES[comparison.cost].label
    for name, reason in comparison.why_not.items():
        console.print(f"Not compared on {OBJECTIVES[name].label}: {reason}.", highlight=False, markup=False)
    if comparison.reference is None:
        console.print("No candidate of these runs is complete yet: there is nothing to compare.")
        return
    console.print(_runs_table(comparison))
    console.print(_bands_table(comparison))
    psnr, cost = comparison.reference
    notes = [
        f"Compared on PSNR and {label} ({comparison.cost_conditions or 'no conditions'})"
        + ("; latencies are medians." if comparison.cost == "latency_ms" else "."),
        f"Hypervolume: dB times doublings of the cost, up to PSNR {psnr:.2f} dB and {figure(comparison.cost, cost)}.",
        *comparison.caveats,
    ]
    console.print("\n".join(notes), style="dim", highlight=False, markup=False)


def _runs_table(comparison: Comparison) -> Table:
    table = _table("Runs", ("run", "members", "hypervolume", "95 % interval", "behind the largest"))
    for run in comparison.runs:
        table.add_row(
            run.label,
            str(len(run.front)),
            f"{run.hypervolume:.3f}",
            _words(run.interval, 3),
            _words(run.behind, 3),
        )
    return table


def _bands_table(comparison: Comparison) -> Table:
    label = OBJECTIVES[comparison.cost].label
    table = _table(
        f"Who has the highest PSNR{_after(comparison)} at no more than this {label}",
        ("from", "to", "run", "lead dB", "verdict"),
    )
    for group in merged_bands(comparison.bands):
        high = group[-1].high
        table.add_row(
            figure(comparison.cost, group[0].low),
            "" if high is None else figure(comparison.cost, high),
            group[0].winner,
            _lead(group),
            _verdict(group[0]),
        )
    return table


def _after(comparison: Comparison) -> str:
    """Return after how many steps the runs are compared, where that is the same for all."""
    steps = {after_steps(run.study) for run in comparison.runs if run.front}
    return f" {steps.pop()}" if len(steps) == 1 else ""


def _table(title: str, headings: Sequence[str]) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold", box=None, pad_edge=False)
    for heading in headings:
        table.add_column(heading, justify="left" if heading in ("run", "verdict") else "right", overflow="fold")
    return table


def _lead(group: Sequence[Band]) -> str:
    """Return the smallest and the largest lead within neighbouring bands."""
    leads = [band.lead_db for band in group if band.lead_db is not None]
    if not leads:
        return ""
    low, high = f"{min(leads):.2f}", f"{max(leads):.2f}"
    return low if low == high else f"{low} … {high}"


def _verdict(band: Band) -> str:
    if band.second is None:
        return "no other run has a member as cheap"
    if band.lead_interval_db is None:
        return f"over {band.second}; no interval can be had"
    return f"clearly over {band.second}" if band.is_clear else f"cannot be told apart from {band.second}"


def _words(interval: Interval | None, decimals: int) -> str:
    return "" if interval is None else f"{interval.low:.{decimals}f} … {interval.high:.{decimals}f}"


def _check_figure(out: Path | None) -> None:
    if out is None:
        return
    if out.suffix.removeprefix(".").lower() not in FORMATS:
        raise InputError(f"--out {out}: not a figure's name.\n  End it in {', '.join('.' + f for f in FORMATS)}.")
    if not out.absolute().parent.is_dir():
        raise InputError(f"--out {out}: there is no folder {out.absolute().parent}.\n  Make it first.")


def _draw(comparison: Comparison, out: Path) -> None:
    from search.report import draw_comparison, write_atomically
    from search.report.figures import render

    content = render(draw_comparison(comparison), out.suffix.removeprefix(".").lower())
    try:
        write_atomically(out, content)
    except OSError as error:
        raise InputError(f"--out {out}: cannot be written ({error}).\n  Give another file.") from error
