"""`measure`: one network on this machine; the candidates of a run on another device."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path

from rich.table import Table

from search.cli.consoles import error_console, output_console
from search.cli.showing import print_json
from search.counts import count
from search.evaluation.counting import Count, ModuleCount
from search.evaluation.plan import CostPlan
from search.evaluation.runtimes import check_device
from search.files import shown
from search.measuring.bundle import SCRIPT, write_bundle
from search.measuring.fvcore_count import FvcoreCount, count_by_fvcore
from search.measuring.importing import import_latencies
from search.measuring.networks import Subject, count_subject, measure_subject, module_subject, preset_subject
from search.types import Cost, EvaluationError, InputError, InputSize, to_json


def measure_network(
    preset: str | None,
    *,
    module: str | None,
    args: str | None,
    channels: int,
    upscale: int,
    at: str,
    macs_at: str | None,
    threads: int,
    runtime: str,
    device: str,
    by_module: bool,
    as_json: bool,
) -> None:
    """Measure a preset or any module and print what it costs.

    Raises:
        InputError: If the network, a size, the runtime or the device cannot be used.
        EvaluationError: If the runtime cannot run the network, or an operation cannot be counted.
    """
    check_device(device, runtime)
    latency_at = _size("--at", at)
    counted_at = latency_at if macs_at is None else _size("--macs-at", macs_at)
    plan = CostPlan(
        macs_at=counted_at, latency_at=latency_at, threads=threads, limits=(), runtime=runtime, device=device
    )
    subject = _subject(preset, module, args, channels, upscale)
    if by_module:
        _show_modules(subject, plan, as_json=as_json)
        return
    with error_console().status("measuring …"):
        cost = measure_subject(subject, plan)
    if as_json:
        print_json({"network": subject.name, "cost": to_json(cost)})
    else:
        _show_cost(subject, cost)


def bundle_run(run: Path, out: Path, *, every: bool, as_json: bool) -> None:
    """Write candidates of a run for another device, and say what to do with them."""
    with error_console().status("writing …") as status:
        bundled = write_bundle(
            run, out, every=every, onlooker=lambda done, of: status.update(f"writing ONNX file {done + 1} of {of} …")
        )
    if as_json:
        print_json({**dataclasses.asdict(bundled), "folder": str(bundled.folder)})
        return
    console = output_console()
    console.print(
        f"{shown(out)}: {count(len(bundled.trials), 'network')} and {SCRIPT}", highlight=False, soft_wrap=True
    )
    for number, reason in bundled.failed.items():
        console.print(f"without trial {number}: {reason}", highlight=False, markup=False)
    console.print(
        f"Copy the folder to the device, run  python {SCRIPT}  there (it needs onnxruntime and numpy), and bring\n"
        f"results.csv back:  hfir-search measure import {shown(run)} results.csv --name NAME",
        highlight=False,
        markup=False,
        soft_wrap=True,
    )


def import_run(run: Path, file: Path, *, name: str | None) -> None:
    """Keep the latencies of another device with a run."""
    name = name or file.stem
    number = import_latencies(run, file, name=name)
    console = output_console()
    console.print(f"{number} latencies of {name} are kept with {shown(run)}", highlight=False, soft_wrap=True)
    console.print(f"Look:  hfir-search front {shown(run)} --on {name}", highlight=False, soft_wrap=True)


def _subject(preset: str | None, module: str | None, args: str | None, channels: int, upscale: int) -> Subject:
    if (preset is None) == (module is None):
        raise InputError(
            "give a PRESET or --module, one of the two.\n  Presets are folders, files or names (efficient)."
        )
    if module is None:
        return preset_subject(str(preset))
    try:
        keywords = json.loads(args or "{}")
    except json.JSONDecodeError as error:
        raise InputError(f"--args {args}: is not JSON ({error}).\n  Write e.g. '{{\"width\": 32}}'.") from error
    if not isinstance(keywords, dict):
        raise InputError(f"--args {args}: is no JSON object.\n  Write keyword arguments, e.g. '{{\"width\": 32}}'.")
    return module_subject(module, keywords, in_channels=channels, upscale=upscale)


def _size(option: str, text: str) -> InputSize:
    width, _, height = text.lower().partition("x")
    if not (width.isdigit() and height.isdigit() and int(width) > 0 and int(height) > 0):
        raise InputError(f"{option} {text}: no size.\n  Write WIDTHxHEIGHT of the network's input, e.g. 640x360.")
    return InputSize(width=int(width), height=int(height))


def _show_cost(subject: Subject, cost: Cost) -> None:
    table = Table(box=None, title=f"{subject.name}, deploy form, batch 1", title_justify="left", title_style="bold")
    for heading, justify in (("figure", "left"), ("value", "right"), ("holds for", "left")):
        table.add_column(heading, justify=justify)  # pyright: ignore[reportArgumentType]
    for row in _rows(cost):
        table.add_row(*row)
    console = output_console()
    console.print(table)
    if cost.latency is not None and cost.latency.doubt:
        console.print(f"{cost.latency.doubt}; measure again on a quiet one", highlight=False)


def _rows(cost: Cost) -> list[tuple[str, str, str]]:
    rows = [
        ("parameters (M)", f"{cost.params_m:.6f}", f"training form {cost.params_train_m:.6f}"),
        ("  of them active", f"{cost.params_active_m:.6f}", "for one image"),
        ("MACs (G)", f"{cost.macs_g:.5f}", f"input {cost.macs_at}; FLOPs are twice that"),
        ("activations (M)", f"{cost.activations_m or 0.0:.4f}", f"input {cost.macs_at}"),
    ]
    if cost.peak_mem_mib is not None:
        rows.append(("peak memory (MiB)", f"{cost.peak_mem_mib:.1f}", f"input {cost.peak_mem_at}, eager torch"))
    if cost.latency is not None:
        at = cost.latency
        mark = "?" if at.doubt else ""
        share = "95 % interval" if at.trusted else "middle 80 % of its blocks"
        interval = f"{share} {at.low_ms:.2f} to {at.high_ms:.2f}, {at.repeats} passes"
        rows.append(("latency (ms)", f"{at.median_ms:.2f}{mark}", interval))
        rows.append(("", "", f"input {at.at}, {at.runtime}, {at.device}, threads {at.threads}"))
        rows.append(("", "", at.host))
    return rows


def _show_modules(subject: Subject, plan: CostPlan, *, as_json: bool) -> None:
    counted, (other, trouble) = count_subject(subject, plan), _fvcore(subject, plan.macs_at)
    if as_json:
        print_json(_record(subject, plan, counted, other, trouble))
        return
    title = f"{subject.name}, deploy form, input {plan.macs_at}: multiply-accumulates by module"
    table = Table(box=None, title=title, title_justify="left", title_style="bold")
    table.add_column("module", no_wrap=True)
    for heading in ("params", "MACs", "share", "activations", "fvcore"):
        table.add_column(heading, justify="right", no_wrap=True)
    for module in _worth_a_line(counted.modules):
        figures = (f"{module.macs:,}", f"{_share(module.macs, counted.macs):.1%}", f"{module.activations:,}")
        theirs = 0 if other is None else other.by_module.get(module.path, 0)
        ours = figures if module.macs else ("", "", "")
        table.add_row(_indented(module), f"{module.params:,}", *ours, f"{theirs:,}" if theirs or module.macs else "")
    console = output_console()
    console.print(table)
    kinds = ", ".join(
        f"{kind} {_share(macs, counted.macs):.1%}" for kind, macs in sorted(counted.kinds.items()) if macs
    )
    console.print(f"By kind of operation: {kinds}", highlight=False)
    console.print(_difference(counted, other) if other is not None else trouble, highlight=False)


def _fvcore(subject: Subject, at: InputSize) -> tuple[FvcoreCount | None, str]:
    """Return fvcore's count, or None and why there is none."""
    try:
        return count_by_fvcore(subject, at), ""
    except EvaluationError as error:
        return None, str(error)


def _record(
    subject: Subject, plan: CostPlan, counted: Count, other: FvcoreCount | None, trouble: str
) -> dict[str, object]:
    """Return both counts as JSON values."""
    modules = [
        {
            **dataclasses.asdict(m),
            "share": _share(m.macs, counted.macs),
            "fvcore_macs": None if other is None else other.by_module.get(m.path, 0),
        }
        for m in counted.modules
    ]
    theirs = {"error": trouble} if other is None else {"macs": other.macs, "left_out": dict(other.left_out)}
    conditions = {"at": str(plan.macs_at), "macs": counted.macs, "activations": counted.activations}
    return {
        "network": subject.name,
        **conditions,
        "kinds": dict(counted.kinds),
        "fvcore": theirs,
        "modules": modules,
    }


def _difference(counted: Count, other: FvcoreCount) -> str:
    """Say how fvcore's count compares, and which operators it leaves out."""
    text = f"fvcore counts {other.macs:,} MACs (it calls them flops), {other.macs - counted.macs:+,} compared with ours"
    if not other.left_out:
        return f"{text}. It has a formula for every operator here."
    names = ", ".join(f"{name} ({calls})" for name, calls in sorted(other.left_out.items()))
    return f"{text}. It leaves out, with the number of calls: {names}."


def _worth_a_line(modules: Sequence[ModuleCount]) -> list[ModuleCount]:
    """Leave out what costs nothing: activation functions, identities, containers that are not called."""
    return [m for m in modules if m.macs or m.params]


def _indented(module: ModuleCount) -> str:
    depth = module.path.count(".") + 1 if module.path else 0
    name = module.path.rpartition(".")[2] or "whole network"
    return f"{'  ' * depth}{name} ({module.name})"


def _share(part: int, whole: int) -> float:
    return part / whole if whole else 0.0
