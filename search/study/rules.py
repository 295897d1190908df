"""How a run is carried out: for how long, and what is done about jobs that fail.

None of it is part of what a run is: it may be taken up under other rules.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from search.evaluation.plan import CandidateJob
from search.study.steps import Job
from search.types import EvaluationError, FailureKind, Genotype, InputSize, Trial, WorkerDiedError

if TYPE_CHECKING:
    from search.experiment import Experiment
    from search.experiment.sections import ExecutionSection

RETRIES = 1
"""How often a candidate is tried again, where nothing is said."""
SLACK_S = 600.0
"""What the automatic limit allows any training on top: loading the data, validation, a busy machine."""
SLOWER = 20.0
"""How many times longer than expected a training may take under the automatic limit."""
BACKWARD = 3.0
"""A training step costs about three forward passes over the same pixels: forward, and backward twice."""
CPU_GMACS_S = 1.0
"""1e9 multiply-accumulates a second that a training on one CPU thread does; the runs of `results/reference` did 0.6 to
27. Only where the latency is of another device than the trainings."""

_RETRIED = (FailureKind.DATA,)
_NO_MEMORY = ("out of memory", "can't allocate memory", "cannot allocate memory", "not enough memory", "MemoryError")


def _unlimited(trial: Trial, rung: int) -> float | None:
    return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """How a run is carried out.

    Args:
        time_s: Wall time of the search, summed over its sessions; None for any.
        steps: Training steps of the search, summed over its candidates; None for any.
        patience: End it once so many candidates in a row were trained without a growth of the dominated volume.
        enqueued: Points that are proposed before the sampler is asked, in order.
        replicates: Further seeds that each member of the front is trained with, at most, until their order is clear.
        asynchronous: Promote from a rung as soon as a worker is idle; two such runs differ.
        retries: How often a candidate's jobs are done again when they are lost through no fault of its own.
        limit_s: For how many seconds a trial may be trained through a rung; None for any time.
        measuring_limit_s: Likewise for measuring it.
    """

    time_s: float | None = None
    steps: int | None = None
    patience: int | None = None
    enqueued: tuple[Genotype, ...] = ()
    replicates: int = 0
    asynchronous: bool = False
    retries: int = RETRIES
    limit_s: Callable[[Trial, int], float | None] = _unlimited
    measuring_limit_s: float | None = None

    @property
    def bounds(self) -> dict[str, float]:
        """What a run is finished under besides the number of trials, by the keys of an experiment's `search`."""
        given = {"time": self.time_s, "steps": self.steps, "patience": self.patience, "replicates": self.replicates}
        return {key: value for key, value in given.items() if value}


def rules_of(experiment: Experiment) -> Rules:
    """Return the rules that an experiment asks for."""
    execution, proxy = experiment.execution, experiment.proxy
    limit = AutomaticLimit(
        rungs=proxy.rungs,
        pixels=proxy.batch * proxy.patch_px**2,
        latency_at=experiment.budget.latency_at,
        latency_device=experiment.budget.latency_ms.device,
        threads=experiment.budget.threads,
        macs_at=experiment.budget.macs_at,
    )
    given = execution.timeout_s
    return Rules(
        time_s=experiment.search.time,
        steps=experiment.search.steps,
        patience=experiment.search.patience,
        enqueued=experiment.enqueued,
        replicates=experiment.search.replicates,
        asynchronous=execution.asynchronous,
        retries=_retries(execution),
        limit_s=limit if given is None else (lambda trial, rung: given),
        measuring_limit_s=given,
    )


def _retries(execution: ExecutionSection) -> int:
    """Return how often candidates are tried again; Ray tries again by itself."""
    if execution.engine == "ray":
        return 0
    return RETRIES if execution.retries is None else execution.retries


@dataclass(frozen=True, slots=True, kw_only=True)
class AutomaticLimit:
    """For how long a training may take: `SLACK_S` and `SLOWER` times what is expected of one CPU thread.

    Trainings with a limit run in the pool, each on one thread of a CPU. What one takes is expected from the latency
    where that was measured on a CPU, else from the MACs.

    Args:
        rungs: Steps at which candidates are compared.
        pixels: Of the network's input in a training step.
        latency_at: Input size of the measured latency.
        latency_device: Where that was measured: cpu or cuda:N.
        threads: Threads that it was measured with.
        macs_at: Input size of the counted MACs.
    """

    rungs: tuple[int, ...]
    pixels: int
    latency_at: InputSize
    latency_device: str
    threads: int
    macs_at: InputSize

    def __call__(self, trial: Trial, rung: int) -> float | None:
        """Return the seconds that a trial may take to a rung, from any; None where its cost is not known."""
        seconds = self._seconds_a_pixel(trial)
        return None if seconds is None else SLACK_S + SLOWER * BACKWARD * self.rungs[rung] * self.pixels * seconds

    def _seconds_a_pixel(self, trial: Trial) -> float | None:
        """Return what one thread of a CPU takes for a forward pass, for each pixel of the input."""
        if self.latency_device == "cpu":
            latency_ms, at = trial.value("latency_ms"), self.latency_at
            seconds = None if latency_ms is None else self.threads * latency_ms / 1000
        else:
            macs_g, at = trial.value("macs_g"), self.macs_at
            seconds = None if macs_g is None else macs_g / CPU_GMACS_S
        return None if seconds is None else seconds / (at.width * at.height)


def time_limit(job: Job) -> float | None:
    """Return for how many seconds a job may run, for an executor; only candidates have a limit."""
    return job.limit_s if isinstance(job, CandidateJob) else None


def failure_kind(error: BaseException) -> FailureKind:
    """Return what a job failed of, by its error's type, and by its words where torch has no type for it."""
    if isinstance(error, EvaluationError) and error.kind is not FailureKind.CRASHED:
        return error.kind
    words = f"{type(error).__name__}: {error}"
    return FailureKind.OUT_OF_MEMORY if any(sign in words for sign in _NO_MEMORY) else FailureKind.CRASHED


def is_retried(error: BaseException) -> bool:
    """Say whether a job's failure is not its candidate's fault: its worker died, or the data could not be read."""
    return isinstance(error, WorkerDiedError) or failure_kind(error) in _RETRIED
