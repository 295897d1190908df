"""What somebody would write without this package: an Optuna study as it comes, every trial trained to the end."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import optuna

from search.samplers.asking import suggest
from search.tabular.benchmark import FULL, Course
from search.tabular.table import Table

PLAIN = "optuna"
"""How tables and figures call it."""


def bench_plain(table: Table, *, seed: int, evaluations: int, limits: Mapping[str, float] | None = None) -> Course:
    """Search a table once by `study.optimize`, and return the course of the dominated volume.

    Optuna's default sampler for several objectives, and nothing of ours: what is proposed again is trained again, what
    is over a limit is trained and told as a violated constraint, and counts for nothing.

    Args:
        table: What answers.
        seed: Of the sampler, and of which of a point's trainings is seen.
        evaluations: Trials, repeated ones included.
        limits: Upper limits of costs.
    """
    limits = limits or {}
    study = optuna.create_study(directions=["maximize", "minimize"], sampler=optuna.samplers.TPESampler(seed=seed))
    drawn = np.random.default_rng(seed)
    total = table.total(limits)
    rows: list[int] = []
    shares: list[float] = []

    def trained(trial: optuna.Trial) -> tuple[float, float]:
        row = table.row_of[table.space.grow(lambda parameter: suggest(trial, parameter)).key]
        over = {name: float(table.costs[name][row]) / limit - 1 for name, limit in limits.items()}
        for name, margin in over.items():
            trial.set_constraint(name, margin)
        if not any(margin > 0 for margin in over.values()):
            rows.append(row)
        shares.append(table.volume(rows, limits) / total)
        return float(table.quality[row, drawn.choice(table.seeds_of(row)), -1]), float(table.costs[table.cost][row])

    study.optimize(trained, n_trials=evaluations)
    numbers = range(1, evaluations + 1)
    return Course(
        sampler=PLAIN,
        scheduler=FULL,
        seed=seed,
        trained=tuple(numbers),
        steps=tuple(number * table.steps[-1] for number in numbers),
        shares=tuple(shares),
        considered=evaluations,
    )
