"""What becomes of a job that fails: done again, or the candidate's end, or a measurement or a seed that is missed."""

from __future__ import annotations

import logging
import math
from typing import Any

from search.counts import count
from search.executors import Outcome
from search.files import NO_ROOM
from search.store import SETBACKS, RunStore
from search.study.problem import Problem
from search.study.rules import Rules, failure_kind, is_retried
from search.study.second_looks import note_replicate
from search.study.steps import Kind
from search.types import DivergedError, InputError, Measurement, Replicate, StoreError, Trial, TrialState

log = logging.getLogger("search.study")


class Failures:
    """Records jobs of candidates that failed.

    Args:
        problem: What is searched.
        store: The run's record.
        rules: How often a job is done again.
    """

    def __init__(self, problem: Problem, store: RunStore, rules: Rules) -> None:
        self._problem, self._store, self._rules = problem, store, rules

    def keep(self, kind: Kind, trial: Trial, outcome: Outcome[Any, Any], error: BaseException) -> None:
        """Record a failed job.

        Args:
            kind: What was asked.
            trial: Whom it was about.
            outcome: Of the job.
            error: Its own, or what is wrong with its answer.

        Raises:
            InputError: If the data is at fault: every other job would fail likewise.
            StoreError: If there was no room for a checkpoint.
        """
        if isinstance(error, InputError):
            raise error
        if isinstance(error, OSError) and error.errno in NO_ROOM:
            raise StoreError(
                f"{self._store.folder}: a worker could not write {error.filename or 'a file'} ({error.strerror}).\n"
                f"  Trial {trial.number} is not at fault and stays open. "
                "Free disk space, then rerun the same command to resume."
            ) from error
        name, number = self._problem.name, trial.number
        reason = f"{failure_kind(error)}: {_first_line(error)}"
        if is_retried(error) and len(trial.setbacks) < self._rules.retries:
            log.warning("study=%s trial=%d again_after=%r", name, number, reason)
            self._store.note(SETBACKS, [*trial.setbacks, reason], trial=number)
        elif kind is Kind.REMEASURE:
            log.warning("study=%s trial=%d not_measured_again=%r", name, number, reason)
            self._store.note("unverified", reason, trial=number)
        elif kind is Kind.REPLICATE:
            log.warning("study=%s trial=%d failed_again=%r", name, number, reason)
            note_replicate(self._store, trial, Replicate(seed=outcome.job.seed, reason=reason))
        else:
            tries = len(trial.setbacks)
            reason += f" (tried {tries + 1} times)" if tries else ""
            log.warning("study=%s trial=%d state=FAILED reason=%r", name, number, reason)
            self._store.finish(number, TrialState.FAILED, reason=reason, failure=outcome.trace or str(error))


def divergence(measurement: Measurement) -> DivergedError | None:
    """Return why a measurement cannot be compared, as the error that the training should have ended with; else None."""
    if math.isfinite(measurement.psnr_db) and math.isfinite(measurement.ssim):
        return None
    figures = f"psnr_db = {measurement.psnr_db}, ssim = {measurement.ssim}"
    return DivergedError(
        f"validation after {count(measurement.step, 'step')} gave {figures}. Lower proxy.learning_rate."
    )


def _first_line(error: BaseException) -> str:
    return str(error).splitlines()[0] if str(error) else repr(error)
