"""Samplers and schedulers on a table, over many seeds: the shipped search, its trainings looked up."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from search.executors import InlineExecutor
from search.schedulers import Screening
from search.study import SearchRun
from search.tabular.memory import MemoryStore
from search.tabular.problem import TableEvaluator, TableProblem, TableRungs, TableSearch
from search.tabular.table import Table
from search.types import InputError

FULL, HALVING = "full", "halving"
SCHEDULERS = (FULL, HALVING)
"""Every candidate trained to the last rung, or successive halving over the table's rungs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Halving:
    """At which steps of a table candidates are halved, and by how much.

    Args:
        steps: Of the table, rising, its last one included; none stands for all that it has.
        keep: Share of the candidates at a rung that go on, 0 < keep <= 1.

    Raises:
        InputError: If `keep` is no such share.
    """

    steps: tuple[int, ...] = ()
    keep: float = 0.5

    def __post_init__(self) -> None:
        """Check the share."""
        if not 0 < self.keep <= 1:
            raise InputError(f"keep = {self.keep:g}: not a share.\n  Give a number above 0, at most 1.")

    def rungs_of(self, table: Table) -> tuple[int, ...]:
        """Return the places of the steps in the table.

        Raises:
            InputError: If the table has no such step, or they do not rise to its last one.
        """
        wanted = self.steps or table.steps
        missing = [step for step in wanted if step not in table.steps]
        if missing or list(wanted) != sorted(set(wanted)) or wanted[-1] != table.steps[-1]:
            raise InputError(
                f"rungs {', '.join(map(str, wanted))}: not rungs of the table {table.name}.\n"
                f"  Name some of {', '.join(map(str, table.steps))}, rising, the last one among them."
            )
        return tuple(table.steps.index(step) for step in wanted)


@dataclass(frozen=True, slots=True, kw_only=True)
class Course:
    """What one search of a table found, and when.

    Args:
        sampler: Its name.
        scheduler: `full` or `halving`.
        seed: Of the run.
        trained: Candidates in training so far, after each training of one through a rung.
        steps: Training steps that had been spent by then, on all candidates.
        shares: Share of the true front's volume that the candidates trained to the last rung dominate.
        considered: Proposals in all, free ones included.
        screening: By which score candidates were left behind untrained; None for by none.
    """

    sampler: str
    scheduler: str
    seed: int
    trained: tuple[int, ...]
    steps: tuple[int, ...]
    shares: tuple[float, ...]
    considered: int
    screening: Screening | None = None


def bench(
    table: Table,
    *,
    sampler: str,
    scheduler: str = FULL,
    seed: int,
    evaluations: int,
    generation: int = 1,
    limits: Mapping[str, float] | None = None,
    screening: Screening | None = None,
    halving: Halving | None = None,
) -> Course:
    """Search a table once, by the shipped loop, and return the course of the dominated volume.

    Args:
        table: What answers.
        sampler: A name in `search.samplers.SAMPLERS`.
        scheduler: `full`, or `halving` where the table has several rungs.
        seed: Of the run: of proposals, and of which of a point's trainings is seen.
        evaluations: Candidates to train.
        generation: Candidates that are proposed before any is trained.
        limits: Upper limits of costs; what is over one costs no evaluation.
        screening: By which of the table's scores candidates are left behind untrained; None for by none.
        halving: How, with `scheduler="halving"`; at all rungs, keeping half, if nothing is said.

    Raises:
        InputError: If `halving` names rungs that the table does not have.
    """
    halving = halving or Halving()
    rungs = halving.rungs_of(table) if scheduler == HALVING else (len(table.steps) - 1,)
    problem = TableProblem(
        table=table,
        search=TableSearch(sampler=sampler, trials=evaluations, seed=seed, generation=generation),
        proxy=TableRungs(rungs=tuple(table.steps[rung] for rung in rungs), keep=halving.keep),
        limits=limits or {},
        screening=screening,
    )
    score = None if screening is None else screening.score
    evaluator = TableEvaluator(table=table, rungs=rungs, limits=limits or {}, score=score)
    store = MemoryStore(problem.name, problem.objectives)
    study = SearchRun(problem, evaluator, store, InlineExecutor()).run()
    trained, steps, shares = _course(table, store, limits or {})
    return Course(
        sampler=sampler,
        scheduler=scheduler,
        seed=seed,
        trained=trained,
        steps=steps,
        shares=shares,
        considered=len(study.trials),
        screening=screening,
    )


def _course(
    table: Table, store: MemoryStore, limits: Mapping[str, float]
) -> tuple[tuple[int, ...], tuple[int, ...], tuple[float, ...]]:
    """Return, after each training that was looked up: candidates, steps, and the share reached."""
    total = table.total(limits)
    seen: dict[int, int] = {}
    rows: list[int] = []
    share = 0.0
    course: list[tuple[int, int, float]] = []
    for trial, measurement in store.trainings:
        seen[trial.number] = measurement.step
        if measurement.step == table.steps[-1]:
            rows.append(table.row_of[trial.key])
            share = table.volume(rows, limits) / total
        course.append((len(seen), sum(seen.values()), share))
    trained, steps, shares = zip(*course, strict=True) if course else ((), (), ())
    return trained, steps, shares


def at_trained(course: Course, count: int) -> float:
    """Return the share reached once so many candidates were trained; 0 where they were never."""
    return max((share for n, share in zip(course.trained, course.shares, strict=True) if n <= count), default=0.0)


def steps_to(course: Course, share: float) -> float:
    """Return the training steps that were spent when a share was reached; infinity where it never was."""
    return next((float(s) for s, found in zip(course.steps, course.shares, strict=True) if found >= share), np.inf)
