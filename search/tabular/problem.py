"""What stands in for an experiment and its trainings, so that a search runs on a table as it runs on networks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from search.evaluation.answers import Admission, Baseline
from search.evaluation.plan import CandidateJob
from search.schedulers import Screening
from search.space import SearchSpace
from search.tabular.table import Table
from search.types import Cost, EvaluationError, Genotype, Latency, Measurement, stable_hash

COST_LIMITS = ("params_m", "macs_g", "latency_ms")
"""Costs that a table may hold and limit, in the order in which the gate looks at them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TableSearch:
    """How candidates are proposed; `search.study` says what the fields mean."""

    sampler: str
    trials: int
    seed: int
    generation: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class TableRungs:
    """At which steps candidates are compared, and the share that goes on."""

    rungs: tuple[int, ...]
    keep: float = 0.5


@dataclass(frozen=True, slots=True)
class Point:
    """What a genotype stands for in a table: itself."""

    values: Mapping[str, Any]

    def to_dict(self) -> dict[str, Any]:
        """Return the active parameters and their values."""
        return dict(self.values)


@dataclass(frozen=True, slots=True, kw_only=True)
class TableProblem:
    """A search of a table's space: what `SearchRun` asks for instead of an experiment."""

    table: Table
    search: TableSearch
    proxy: TableRungs
    limits: Mapping[str, float] = field(default_factory=dict)
    screening: Screening | None = None

    @property
    def name(self) -> str:
        """Name of the study."""
        return f"{self.table.name}-{self.search.sampler}-{self.search.seed}"

    @property
    def space(self) -> SearchSpace:
        """The table's."""
        return self.table.space

    @property
    def objectives(self) -> tuple[str, ...]:
        """Quality, and the table's cost."""
        return ("psnr_db", self.table.cost)

    def decode(self, genotype: Genotype) -> Point:
        """Return the point itself: every one is legal."""
        return Point(genotype.values)


@dataclass(frozen=True, slots=True, kw_only=True)
class TableEvaluator:
    """Answers from a table. Which of a point's seeds it saw depends on the trial's seed alone, so runs repeat.

    `rungs` are the table's rungs that are looked at; a search of full trainings looks at the last alone. `score` names
    one of the table's, where candidates are screened.
    """

    table: Table
    rungs: tuple[int, ...]
    limits: Mapping[str, float] = field(default_factory=dict)
    score: str | None = None

    def look_at_data(self, job: None) -> Baseline:
        """Return that there is nothing to compare with but the table itself."""
        worst = float(self.table.true_quality.min())
        return Baseline(
            psnr_db=worst,
            ssim=0.0,
            images=(self.table.name,),
            psnr_per_image_db=(worst,),
            train_images=0,
            notes=(self.table.conditions,),
            host=self.table.name,
            versions={},
        )

    def admit(self, job: CandidateJob) -> Admission:
        """Look up a candidate's costs and hold them against the limits."""
        row = self._row(job)
        known = {name: float(values[row]) for name, values in self.table.costs.items()}
        margins = {name: known[name] / self.limits[name] - 1 for name in COST_LIMITS if name in self.limits}
        over = [f"{name} {known[name]:.4g} > {self.limits[name]:g}" for name, m in margins.items() if m > 0]
        scores = {} if self.score is None or over else {self.score: self._score(self.score, row, job)}
        cost = _cost(known, self.table.name)
        return Admission(cost=cost, margins=margins, reason=", ".join(over), scores=scores)

    def remeasure(self, job: CandidateJob) -> Admission:
        """Look up the same again."""
        return self.admit(job)

    def train(self, job: CandidateJob) -> Measurement:
        """Look up what a candidate reached at a rung."""
        row = self._row(job)
        seed = self._seed(row, job)
        rung = self.rungs[job.rung]
        quality = float(self.table.quality[row, seed, rung])
        return Measurement(
            rung=job.rung,
            step=self.table.steps[rung],
            psnr_db=quality,
            ssim=0.0,
            psnr_per_image_db=(quality,),
            elapsed_s=float(self.table.elapsed_s[row, seed, rung]),
            loss=0.0,
        )

    def _score(self, name: str, row: int, job: CandidateJob) -> float:
        return float(self.table.scores[name][row, self._seed(row, job)])

    def _seed(self, row: int, job: CandidateJob) -> int:
        seeds = self.table.seeds_of(row)
        return int(seeds[job.seed % len(seeds)])

    def _row(self, job: CandidateJob) -> int:
        key = stable_hash(job.config)
        if key not in self.table.row_of:
            raise EvaluationError(f"table {self.table.name} holds no {job.config}: it is not a point of its space.")
        return self.table.row_of[key]


def _cost(known: Mapping[str, float], name: str) -> Cost:
    """Return a record of costs; what the table does not hold is NaN where the record has no word for it."""
    missing, params = float("nan"), known.get("params_m", float("nan"))
    latency = known.get("latency_ms")
    return Cost(
        params_m=params,
        params_train_m=params,
        params_active_m=params,
        macs_g=known.get("macs_g", missing),
        macs_at="table",
        latency=None if latency is None else _latency(latency, name),
    )


def _latency(median_ms: float, name: str) -> Latency:
    return Latency(
        median_ms=median_ms,
        low_ms=median_ms,
        high_ms=median_ms,
        repeats=1,
        at="table",
        threads=1,
        device="table",
        dtype="float32",
        runtime="table",
        host=name,
        measured_at="",
    )
