"""What a worker is sent about a candidate."""

from __future__ import annotations

from dataclasses import replace

from search.evaluation.plan import CandidateJob
from search.samplers import proposal_seed
from search.store import RunStore
from search.study.paths import checkpoint_path, replicate_path, scalars_path
from search.study.problem import Problem
from search.study.rules import Rules
from search.tasks.identity import photographs_key
from search.types import EvaluationError, Trial

SEED_PURPOSE = 100
"""From here on purposes of `proposal_seed` are further seeds of a trial, by its number."""


class CandidateJobs:
    """Makes the jobs of a run's candidates.

    Args:
        problem: What is searched.
        store: The run's record.
        rules: For how long a job may run.
        scalars: Write the course of each training for TensorBoard.
    """

    def __init__(self, problem: Problem, store: RunStore, rules: Rules, *, scalars: bool) -> None:
        self._problem, self._store, self._folder, self._rules = problem, store, store.folder, rules
        self._scalars, self._photographs = scalars, ""

    def measuring(self, trial: Trial) -> CandidateJob:
        """Return the job of measuring a candidate."""
        return replace(self.training(trial, rung=0), limit_s=self._rules.measuring_limit_s)

    def training(self, trial: Trial, rung: int) -> CandidateJob:
        """Return the job of training a candidate through a rung."""
        if trial.config is None:
            raise EvaluationError(f"trial {trial.number} has no configuration: it stands for no legal network.")
        return CandidateJob(
            number=trial.number,
            config=dict(trial.config),
            seed=trial.seed,
            checkpoint=str(checkpoint_path(self._folder, trial.number)),
            rung=rung,
            scalars=str(scalars_path(self._folder, trial.number)) if self._scalars else None,
            limit_s=self._rules.limit_s(trial, rung),
            photographs=self._recorded_photographs(),
        )

    def replicating(self, trial: Trial, place: int) -> CandidateJob:
        """Return the job of training a candidate through all rungs with a further seed: its `place`-th, from 1."""
        job = self.training(trial, rung=len(self._problem.proxy.rungs) - 1)
        seed = proposal_seed(self._problem.search.seed, trial.number, purpose=SEED_PURPOSE + place)
        return replace(job, seed=seed, checkpoint=str(replicate_path(self._folder, trial.number, place)), scalars=None)

    def _recorded_photographs(self) -> str:
        """Return what identifies the run's photographs, which never change once they are recorded."""
        if not self._photographs:
            self._photographs = photographs_key(self._store.facts.get("baseline", {}).get("photographs"))
        return self._photographs
