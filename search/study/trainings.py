"""The training of candidates, rung by rung: who is trained next, who goes on, and what a rung showed."""

from __future__ import annotations

import logging
from collections.abc import Collection, Sequence
from dataclasses import replace

from search.evaluation.plan import CandidateJob
from search.schedulers import WITHIN_LEVELS, promotions
from search.store import RunStore
from search.study.bounds import Bounds
from search.study.jobs import CandidateJobs
from search.study.problem import Problem, Ranked
from search.study.steps import Kind, Step
from search.types import EvaluationError, Measurement, Trial, TrialState

log = logging.getLogger("search.study")


class Trainings:
    """Decides which candidates are trained, and records what came of it.

    Args:
        problem: What is searched.
        store: The run's record.
        jobs: Makes the trainings.
        bounds: What may still be spent on them.
    """

    def __init__(self, problem: Problem, store: RunStore, jobs: CandidateJobs, bounds: Bounds) -> None:
        self._problem, self._store, self._jobs, self._bounds = problem, store, jobs, bounds

    def wanted(self) -> tuple[Sequence[Trial], int] | None:
        """Return what is to be trained next, and to which rung: what waits for the first, else what is promoted."""
        fresh = self._store.index.waiting(0)
        if fresh:
            return fresh, 0
        for rung in range(len(self._problem.proxy.rungs) - 1):
            chosen = self._promoted(rung)
            if chosen:
                return chosen, rung + 1
        return None

    def step(self, trials: Sequence[Trial], rung: int) -> Step | None:
        """Return the training of what can be afforded of the candidates; None where that is nothing."""
        affordable = self._bounds.affordable(trials, rung)
        if not affordable:
            return None
        phase = f"training to step {self._problem.proxy.rungs[rung]}"
        return Step(kind=Kind.TRAIN, phase=phase, jobs=tuple(self._jobs.training(t, rung=rung) for t in affordable))

    def ahead(self, running: Collection[int]) -> CandidateJob | None:
        """Return a training that may begin before the others of its rung are done; None where there is none.

        Asynchronous successive halving (Li et al., "A system for massively parallel hyperparameter tuning", 2020): of
        those that reached a rung so far, the share `keep`, rounded down, may go on; the highest rung first.

        Args:
            running: Numbers of the trials in training.
        """
        for rung in reversed(range(len(self._problem.proxy.rungs) - 1)):
            reached = [t for t in self._store.index.trials if len(t.measurements) > rung]
            gone_on = [t for t in reached if len(t.measurements) > rung + 1 or t.number in running]
            if len(gone_on) + 1 > self._problem.proxy.keep * len(reached):
                continue
            free = [t for t in self._promoted(rung) if t.number not in running]
            if free:
                affordable = self._bounds.affordable(free, rung + 1)
                return self._jobs.training(affordable[0], rung=rung + 1) if affordable else None
        return None

    def keep(self, trial: Trial, measurement: Measurement) -> None:
        """Record what a rung showed; the last one completes the candidate."""
        self._store.record_measurement(trial, measurement)
        if measurement.rung == len(self._problem.proxy.rungs) - 1:
            done = replace(trial, measurements=(*trial.measurements, measurement))
            values = [_known(done, objective) for objective in self._problem.objectives]
            doubt = "" if trial.cost is None else trial.cost.doubt
            self._store.finish(trial.number, TrialState.COMPLETE, values=values, reason=doubt)
        log.info(
            "study=%s trial=%d step=%d psnr_db=%.3f elapsed_s=%.1f",
            self._problem.name,
            trial.number,
            measurement.step,
            measurement.psnr_db,
            measurement.elapsed_s,
        )

    def _promoted(self, rung: int) -> Sequence[Trial]:
        """Return what stands at a rung and belongs to the best of all that reached it."""
        if not self._store.index.waiting(rung + 1):
            return ()
        return promotions(
            self._store.index.trials,
            rung=rung,
            keep=self._problem.proxy.keep,
            objectives=self._problem.objectives,
            ranking=self._problem.ranking if isinstance(self._problem, Ranked) else WITHIN_LEVELS,
        )


def _known(trial: Trial, objective: str) -> float:
    value = trial.value(objective)
    if value is None:
        raise EvaluationError(f"trial {trial.number} completed without a figure for {objective}; please report this.")
    return value
