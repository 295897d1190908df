"""`bench-samplers`: every sampler on a table, over many seeds. Loads no torch."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pandas as pd
from rich.progress import track
from rich.table import Table as Sheet

from search.cli.consoles import error_console, output_console
from search.counts import count
from search.executors import Executor, InlineExecutor, ProcessExecutor
from search.files import shown
from search.report.figures import render
from search.report.tables import write_atomically
from search.samplers import SAMPLERS
from search.schedulers import Screening
from search.tabular import Course, Table, bench, load_table
from search.tabular.benchmark import FULL, HALVING, SCHEDULERS, Halving, at_trained
from search.tabular.fidelity import Fidelity, fidelity_of
from search.tabular.figure import draw_courses, draw_fidelity
from search.tabular.plain import PLAIN, bench_plain
from search.tabular.summary import Contender, behind_chance, contenders, marks_up_to, mean_of, saving
from search.types import InputError

CONTENDERS = (*SAMPLERS, PLAIN)
DEFAULT_CONTENDERS = tuple(name for name in CONTENDERS if name != "gp")
"""All that answer within milliseconds; gp takes a second a proposal, and is asked for by name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchJob:
    """One search of a table."""

    table: str
    sampler: str
    scheduler: str
    seed: int
    evaluations: int
    generation: int
    limits: tuple[tuple[str, float], ...]
    screening: Screening | None
    halving: Halving


def bench_samplers(
    table_name: str,
    *,
    samplers: str,
    schedulers: str,
    seeds: int,
    first_seed: int,
    evaluations: int,
    generation: int,
    within: float | None,
    screening: str,
    rungs: str,
    keep: float | None,
    workers: int,
    out: Path,
) -> None:
    """Run samplers and schedulers over a table; print what they reached, and write CSV and figures.

    Raises:
        InputError: If a name is unknown, or a package is missing.
    """
    names = _names(samplers, CONTENDERS, DEFAULT_CONTENDERS, "--samplers")
    ways = _names(schedulers, SCHEDULERS, SCHEDULERS, "--schedulers")
    table = _load(table_name)
    screenings = (None, *_screenings(screening, table))
    if len(table.steps) == 1:
        ways = (FULL,)
    if HALVING not in ways and (rungs or keep is not None):
        raise InputError(
            "--rungs, --keep: nothing is halved here.\n  Leave them out, or halve a table of several rungs."
        )
    halving = _halving(rungs, keep, table)
    limits = {} if within is None else {table.cost: float(np.quantile(table.costs[table.cost], within))}
    most = int(table.within(limits).sum())
    if evaluations > most:
        raise InputError(
            f"--evaluations {evaluations}: table {table_name} has {count(most, 'point')}"
            f"{' within the limit' if limits else ''}.\n  Ask for at most so many."
        )
    jobs = [
        BenchJob(
            table=table_name,
            sampler=name,
            scheduler=way,
            seed=first_seed + seed,
            evaluations=evaluations,
            generation=generation,
            limits=tuple(limits.items()),
            screening=screen,
            halving=halving,
        )
        for name in names
        for way in (ways if name in SAMPLERS else (FULL,))
        for screen in (screenings if name in SAMPLERS else (None,))
        for seed in range(seeds)
    ]
    out.mkdir(parents=True, exist_ok=True)
    found = contenders(_done(jobs, workers))
    console = output_console()
    console.print(_shares_sheet(found, evaluations))
    notes = [*_conditions(table, found, limits), *_halving_words(table, found, halving), *_findings(found, evaluations)]
    console.print("\n".join(notes), highlight=False, markup=False, soft_wrap=True)
    fidelity = fidelity_of(table)
    if fidelity is not None:
        console.print(_fidelity_sheet(table, fidelity))
    for path in _written(out, table, found, fidelity, evaluations, within):
        console.print(f"Written: {shown(path)}", highlight=False, markup=False)


def run_job(job: BenchJob) -> Course:
    """Run one search; what a worker does."""
    table = _load(job.table)
    if job.sampler == PLAIN:
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        return bench_plain(table, seed=job.seed, evaluations=job.evaluations, limits=dict(job.limits))
    return bench(
        table,
        sampler=job.sampler,
        scheduler=job.scheduler,
        seed=job.seed,
        evaluations=job.evaluations,
        generation=job.generation,
        limits=dict(job.limits),
        screening=job.screening,
        halving=job.halving,
    )


def start_worker() -> None:
    """Prepare a worker process: there is nothing to prepare."""


@cache
def _load(name: str) -> Table:
    return load_table(name)


def _done(jobs: Sequence[BenchJob], workers: int) -> list[Course]:
    """Run the searches, side by side, and return them in the order of the jobs."""
    executor: Executor = InlineExecutor() if workers == 1 else ProcessExecutor(workers, start_worker)
    found: dict[BenchJob, Course] = {}
    try:
        for outcome in _tracked(executor, jobs):
            if outcome.error is not None:
                raise outcome.error
            found[outcome.job] = outcome.value
    finally:
        executor.close()
    return [found[job] for job in jobs]


def _tracked(executor: Executor, jobs: Sequence[BenchJob]) -> Iterator[Any]:
    console = error_console()
    outcomes = executor.run(run_job, jobs)
    return iter(track(outcomes, "searches", total=len(jobs), console=console, disable=not console.is_terminal))


def _names(text: str, known: Sequence[str], default: Sequence[str], option: str) -> tuple[str, ...]:
    names = tuple(default) if text == "all" else tuple(name.strip() for name in text.split(",") if name.strip())
    for name in names:
        if name not in known:
            raise InputError(f"{option}: there is no {name}.\n  Known are {', '.join(known)}; separate them by commas.")
    if not names:
        raise InputError(f"{option} names none.\n  Known are {', '.join(known)}.")
    return names


def _steps(text: str) -> tuple[int, ...]:
    """Read `200,400,800`."""
    parts = [part.strip() for part in text.split(",")] if text else []
    if not all(part.isdecimal() for part in parts):
        raise InputError(f"--rungs {text}: not a list of steps.\n  Write whole numbers, rising: 200,400,800.")
    return tuple(map(int, parts))


def _halving(rungs: str, keep: float | None, table: Table) -> Halving:
    given = Halving(steps=_steps(rungs))
    try:
        given.rungs_of(table)
    except InputError as error:
        raise InputError(f"--{error}") from None
    return given if keep is None else replace(given, keep=keep)


def _screenings(text: str, table: Table) -> tuple[Screening, ...]:
    """Read what screenings are asked for, e.g. `synflow:4,naswot:2`."""
    found: list[Screening] = []
    for part in filter(None, (part.strip() for part in text.split(","))):
        score, _, of = part.partition(":")
        if not of.isdecimal() or int(of) < 2:
            raise InputError(f"--screening {part}: not a score and a number.\n  Write SCORE:OF, OF >= 2: synflow:4.")
        if score not in table.scores:
            known = ", ".join(table.scores) or "none"
            raise InputError(f"--screening {part}: table {table.name} has no score {score}.\n  It has {known}.")
        found.append(Screening(score=score, of=int(of)))
    return tuple(found)


# -- what is printed -----------------------------------------------------------------------------------


def _shares_sheet(found: Sequence[Contender], evaluations: int) -> Sheet:
    marks = marks_up_to(evaluations)
    sheet = _sheet(
        "Share of the true front's hypervolume", ["sampler", *(f"{mark} trained" for mark in marks), "proposals"]
    )
    for contender in found:
        means = [mean_of(contender.shares_at(mark)) for mark in marks]
        proposals = np.mean([course.considered for course in contender.courses])
        cells = [f"{m.mean:.3f} ({m.low:.3f} … {m.high:.3f})" for m in means]
        sheet.add_row(contender.label, *cells, f"{proposals:.0f}")
    return sheet


def _conditions(table: Table, found: Sequence[Contender], limits: Mapping[str, float]) -> list[str]:
    within = "".join(f", {name} <= {limit:.4g}" for name, limit in limits.items())
    return [
        f"Table {table.name}: {table.quality_label} against the logarithm of {table.cost}{within}.",
        f"Mean over {len(found[0].courses)} seeds, 95 % interval. {table.conditions}.",
    ]


def _halving_words(table: Table, found: Sequence[Contender], halving: Halving) -> list[str]:
    if all(contender.scheduler != HALVING for contender in found):
        return []
    steps = ", ".join(str(table.steps[rung]) for rung in halving.rungs_of(table))
    return [f"Halving: at {steps} steps, {halving.keep:g} of the candidates go on."]


def _findings(found: Sequence[Contender], evaluations: int) -> list[str]:
    """Say how `auto` stands to chance, and to an Optuna study as it comes, with full trainings."""
    by_name = {(c.sampler, c.scheduler): c for c in found if c.screening is None}
    lines: list[str] = []
    chance, plain = by_name.get(("random", FULL)), by_name.get((PLAIN, FULL))
    auto = by_name.get(("auto", FULL))
    if auto is not None and chance is not None and evaluations >= 20:
        behind = behind_chance(auto, chance, evaluations)
        worst = min(behind, key=lambda b: b[1], default=None)
        lines.append(
            "auto is at no number of trained candidates from 20 on below random search."
            if worst is None
            else f"auto is below random search at {len(behind)} numbers of trained candidates, most at {worst[0]}: "
            f"by {-worst[1]:.4f}."
        )
    for way in (FULL, HALVING):
        one = by_name.get(("auto", way))
        if one is not None and plain is not None:
            lines += [_saving_words(one, plain, mark) for mark in marks_up_to(evaluations)]
    screened = [c for c in found if c.screening is not None]
    return lines + [_screened_words(c, by_name[c.sampler, c.scheduler], evaluations) for c in screened]


def _screened_words(one: Contender, other: Contender, trained: int) -> str:
    """Say what a screening gains over the same search without it."""
    saved = saving(one, other, trained)
    reached = f"the share {saved.share:.3f} that {other.label} ends with in half of the seeds"
    if not np.isfinite(saved.steps):
        return f"{one.label} does not reach {reached}, in half of its own."
    return f"{one.label} needs {saved.ratio:.2f} of the steps for {reached} (medians)."


def _saving_words(one: Contender, plain: Contender, trials: int) -> str:
    saved = saving(one, plain, trials)
    reached = f"the share {saved.share:.3f} that {trials} trials of an Optuna study as it comes reach"
    if not np.isfinite(saved.steps):
        return f"{one.label} does not come to {reached}, in half of its searches."
    spent = f"{saved.steps:,.0f} steps, that study {saved.other_steps:,.0f}"
    return f"{one.label} needs for {reached} {spent}: {saved.ratio:.2f} of them (medians)."


def _fidelity_sheet(table: Table, fidelity: Fidelity) -> Sheet:
    sheet = _sheet(
        f"Kendall's tau to step {table.steps[-1]} on {table.name}", ["order by", "same seed", "another seed"]
    )
    for place, step in enumerate(table.steps[:-1]):
        other = "" if fidelity.across_rungs is None else _agreement_words(fidelity.across_rungs[place])
        sheet.add_row(f"step {step}", _agreement_words(fidelity.by_rung[place]), other)
    if fidelity.seeds is not None:
        sheet.add_row(f"step {table.steps[-1]}", "", _agreement_words(fidelity.seeds))
    sheet.add_row(f"{table.cost} alone", _agreement_words(fidelity.by_cost), "")
    return sheet


def _agreement_words(agreement: Any) -> str:
    return f"{agreement.tau:.2f} ({agreement.low:.2f} … {agreement.high:.2f})"


def _sheet(title: str, headings: Sequence[str]) -> Sheet:
    sheet = Sheet(title=title, title_justify="left", title_style="bold", box=None, pad_edge=False)
    for place, heading in enumerate(headings):
        sheet.add_column(heading, justify="right" if place else "left", overflow="fold")
    return sheet


# -- what is written -----------------------------------------------------------------------------------


def _written(
    out: Path,
    table: Table,
    found: tuple[Contender, ...],
    fidelity: Fidelity | None,
    evaluations: int,
    within: float | None,
) -> list[Path]:
    stem = table.name if within is None else f"{table.name}-within-{within:g}"
    title = f"Samplers on {table.name}" + ("" if within is None else f", cost within its {within:.0%} quantile")
    try:
        paths = [
            write_atomically(out / f"{stem}.csv", _csv(_records(found, evaluations))),
            write_atomically(out / f"{stem}.png", render(draw_courses(table, found, title=title), "png")),
        ]
        if fidelity is not None:
            paths.append(write_atomically(out / f"{stem}-fidelity.csv", _csv(_fidelity_records(table, fidelity))))
            paths.append(write_atomically(out / f"{stem}-fidelity.png", render(draw_fidelity(table, fidelity), "png")))
    except OSError as error:
        raise InputError(f"--out {out}: cannot be written ({error}).\n  Give another folder.") from error
    return paths


def _csv(records: list[dict[str, Any]]) -> bytes:
    return pd.DataFrame(records).to_csv(index=False, lineterminator="\n", float_format="%.6g").encode()


def _records(found: Sequence[Contender], evaluations: int) -> list[dict[str, Any]]:
    """Return one row a search and number of trained candidates: every fifth, and the marks."""
    counts = sorted({*range(5, evaluations + 1, 5), *marks_up_to(evaluations)})
    rows: list[dict[str, Any]] = []
    for contender in found:
        for course in contender.courses:
            for most in counts:
                steps = (s for n, s in zip(course.trained, course.steps, strict=True) if n <= most)
                rows.append(
                    {
                        "sampler": contender.sampler,
                        "scheduler": contender.scheduler,
                        "screening": "" if contender.screening is None else str(contender.screening),
                        "seed": course.seed,
                        "trained": most,
                        "steps": max(steps, default=0),
                        "share": at_trained(course, most),
                    }
                )
    return rows


def _fidelity_records(table: Table, fidelity: Fidelity) -> list[dict[str, Any]]:
    rows = [("same seed", str(s), a) for s, a in zip(table.steps, fidelity.by_rung, strict=False)]
    if fidelity.across_rungs is not None and fidelity.seeds is not None:
        others = (*fidelity.across_rungs, fidelity.seeds)
        rows += [("another seed", str(s), a) for s, a in zip(table.steps, others, strict=True)]
    rows.append(("cost", table.cost, fidelity.by_cost))
    return [{"against": kind, "order_by": by, **agreement._asdict()} for kind, by, agreement in rows]


def default_workers() -> int:
    """Return one worker a core."""
    return os.cpu_count() or 1
