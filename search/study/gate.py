"""The budget gate: what a candidate costs, whether it is within the limits, and whether it is worth a training."""

from __future__ import annotations

import logging

from search.counts import count
from search.evaluation.answers import Admission
from search.store import RunStore
from search.study.generation import Generation, generation_of
from search.study.jobs import CandidateJobs
from search.study.problem import Problem
from search.study.steps import Kind, Step
from search.types import Trial, TrialState

log = logging.getLogger("search.study")


class Gate:
    """Has candidates measured and screened, and records what is rejected.

    Args:
        problem: What is searched.
        store: The run's record.
        jobs: Makes the measuring.
    """

    def __init__(self, problem: Problem, store: RunStore, jobs: CandidateJobs) -> None:
        self._problem, self._store, self._jobs = problem, store, jobs

    def next_step(self) -> Step | None:
        """Return the measuring of the first candidate whose cost is not known; None where all are measured."""
        unmeasured = self._store.index.unmeasured()
        if not unmeasured:
            return None
        phase = f"measuring trial {unmeasured[0].number}"
        return Step(kind=Kind.ADMIT, phase=phase, jobs=(self._jobs.measuring(unmeasured[0]),))

    def keep(self, trial: Trial, admission: Admission) -> None:
        """Record a candidate's cost, and reject it where it is over a limit."""
        self._store.record_cost(trial.number, admission.cost, admission.margins, admission.scores)
        if admission.doubt:
            log.warning("study=%s trial=%d %s", self._problem.name, trial.number, admission.doubt)
        if admission.reason:
            doubt = admission.cost.doubt
            reason = f"{admission.reason} ({doubt})" if doubt else admission.reason
            self._store.finish(trial.number, TrialState.INFEASIBLE, reason=reason)
        log.info("study=%s trial=%d rejected=%r", self._problem.name, trial.number, admission.reason)

    def screening(self) -> Step | None:
        """Return the screening of the last generation; None where nobody is to be left behind."""
        losers = self._generation.losers(self._problem.objectives)
        return Step(kind=Kind.SCREEN, phase="screening") if losers else None

    def screen(self) -> None:
        """Leave behind those of the last generation whose score and costs others outrank; they cost no trial."""
        generation = self._generation
        losers = generation.losers(self._problem.objectives)
        with self._store.together():
            for trial in losers:
                scores = ", ".join(f"{name} {score:.4g}" for name, score in trial.scores.items())
                went_on = (
                    f"{len(generation.members) - len(losers)} of {count(len(generation.members), 'candidate')} went on"
                )
                reason = f"screened out before its first rung: {scores}; {went_on}"
                self._store.finish(trial.number, TrialState.SCREENED, reason=reason)
        log.info("study=%s screened_out=%d of=%d", self._problem.name, len(losers), len(generation.members))

    @property
    def _generation(self) -> Generation:
        return generation_of(self._problem, self._store)
