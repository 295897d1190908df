"""What a run does next, decided from its records alone, and who keeps each answer."""

from __future__ import annotations

import logging
from collections.abc import Collection
from typing import Any

from search.evaluation.answers import Baseline
from search.evaluation.plan import CandidateJob
from search.executors import Outcome, value_of
from search.store import RunStore
from search.study.bounds import Bounds
from search.study.failures import Failures, divergence
from search.study.gate import Gate
from search.study.generation import generation_of
from search.study.jobs import CandidateJobs
from search.study.moving import Moving
from search.study.problem import Problem
from search.study.proposals import Proposals
from search.study.references import REFERENCE_KINDS, References
from search.study.rules import Rules
from search.study.second_looks import Replication, Verification
from search.study.steps import Job, Kind, Step
from search.study.trainings import Trainings
from search.types import EvaluationError, Trial, TrialState

log = logging.getLogger("search.study")


class Director:
    """Decides a run's next step, and has what came of each recorded.

    Args:
        problem: What is searched.
        store: The run's record.
        references: The networks that the run is compared with.
        scalars: Write the course of each training for TensorBoard.
        move: Take all latencies anew where they were taken on another machine than this; otherwise that is refused.
        remeasure: Measure the front's untrusted latencies again at the end, of a finished run, too.
        rules: For how long, what goes first, and what is done about jobs that fail.
    """

    def __init__(
        self,
        problem: Problem,
        store: RunStore,
        *,
        references: References | None = None,
        scalars: bool = False,
        move: bool = False,
        remeasure: bool = False,
        rules: Rules | None = None,
    ) -> None:
        self.problem, self.store, self.rules = problem, store, rules or Rules()
        jobs = CandidateJobs(problem, store, self.rules, scalars=scalars)
        self._bounds = Bounds(problem, store, self.rules)
        self._moving = Moving(problem, store, jobs, allowed=move)
        self._proposals = Proposals(problem, store, self.rules)
        self._gate = Gate(problem, store, jobs)
        self._trainings = Trainings(problem, store, jobs, self._bounds)
        self._references = references
        self._verification = Verification(problem, store, jobs, remeasure=remeasure)
        self._replication = Replication(problem, store, jobs, most=self.rules.replicates)
        self._failures = Failures(problem, store, self.rules)

    # -- which step is next ------------------------------------------------------------------------

    def next_step(self) -> Step | None:
        """Return what is to be done now; None where nothing is left."""
        return self._beginning() or self._searching() or self._finishing()

    def _beginning(self) -> Step | None:
        """Return what comes before the search: a look at the data, another machine's latencies, trying references."""
        moving = self._moving.next_step()
        if moving is not None or self._references is None:
            return moving
        return self._references.trying(self.store.study())

    def _searching(self) -> Step | None:
        """Return what the search for candidates wants; None where it is over."""
        measuring = None if self.is_out_of_time else self._gate.next_step()
        if measuring is not None:
            return measuring
        may_propose = not self._bounds.are_spent and not self._proposals.nothing_left
        if may_propose and not self._has_full_generation():
            return Step(kind=Kind.PROPOSE, phase="proposing")
        screening = self._gate.screening()
        if screening is not None:
            return screening
        wanted = self._trainings.wanted()
        training = None if wanted is None else self._trainings.step(*wanted)
        if training is not None:
            return training
        if may_propose and wanted is None and not self._bounds.stagnates:
            return Step(kind=Kind.PROPOSE, phase="proposing")
        if self.store.index.count(TrialState.RUNNING) or not self._bounds.are_closed:
            return Step(kind=Kind.CLOSE, phase="closing")
        return None

    def _finishing(self) -> Step | None:
        """Return what is left to do once the search is over: references, second measurements, further seeds."""
        comparison = None if self._references is None else self._references.next_step(self.store.study())
        last = comparison or self._verification.next_step() or self._replication.next_step()
        return last or (None if self.is_finished else Step(kind=Kind.FINISH, phase="done"))

    def ahead(self, running: Collection[int]) -> CandidateJob | None:
        """Return a training that an idle worker may begin before the step's others are done; None where there is none.

        Args:
            running: Numbers of the trials in training.
        """
        if not self.rules.asynchronous or self.is_out_of_time:
            return None
        return self._trainings.ahead(running)

    # -- steps without jobs ------------------------------------------------------------------------

    def begin(self) -> None:
        """Tell off what an earlier driver had asked for but not recorded, and keep what is enqueued."""
        lost = self.store.close_lost_proposals()
        if lost:
            log.info("study=%s lost_proposals=%d", self.problem.name, lost)
        self._proposals.begin()
        if self._references is not None:
            self._references.begin()

    def propose(self) -> None:
        """Ask for one candidate and record it; illegal and repeated ones are told at once and cost nothing."""
        last = next(self.store.index.newest_first(), None)
        self._proposals.propose(generation=0 if last is None else last.generation + self._has_full_generation())

    def screen(self) -> None:
        """Leave behind those of the last generation whose score and costs others outrank; they cost no trial."""
        self._gate.screen()

    def close(self) -> None:
        """Tell off the candidates that no rung promoted, and keep what ended the search."""
        is_cut = bool(self._trainings.wanted() or self.store.index.unmeasured())
        self._bounds.close(is_cut=is_cut, nothing_left=self._proposals.nothing_left)

    def finish(self) -> None:
        """Keep for how many trials, and under which bounds, the run is finished; asked for more, it goes on."""
        self._bounds.finish()

    # -- who keeps which answer --------------------------------------------------------------------

    def take(self, kind: Kind, outcome: Outcome[Job, Any]) -> None:
        """Record the answer to a job; a failure is recorded, and the run goes on.

        Raises:
            InputError: If the data cannot be used, or a network to compare with.
            StoreError: If the record cannot be written.
        """
        with self.store.together(durable=kind is not Kind.ADMIT):
            if self._references is not None and kind in REFERENCE_KINDS:
                self._references.take(kind, outcome)
            elif kind is Kind.LOOK:
                self._keep_baseline(value_of(outcome))
            else:
                self._keep(kind, _candidate_job(outcome), outcome)

    def _keep_baseline(self, baseline: Baseline) -> None:
        """Have the look at the data recorded; a run that has moved measures its references anew, too."""
        self._moving.keep_baseline(baseline)
        if self._references is not None and self._moving.has_moved:
            self._references.move_to(baseline.host)

    def _keep(self, kind: Kind, job: CandidateJob, outcome: Outcome[Job, Any]) -> None:
        """Have the answer about a candidate recorded."""
        if kind in (Kind.TRAIN, Kind.REPLICATE):
            self._bounds.note_time()
        trial = self.store.index[job.number]
        moves = kind is Kind.REMEASURE and self._moving.is_foreign(trial)
        if outcome.error is not None:
            self._failures.keep(kind, trial, outcome, outcome.error)
            if moves:
                self._moving.give_up(trial, outcome)
            elif kind is Kind.REMEASURE:
                self._verification.miss(trial)
        elif moves:
            self._moving.keep(trial, value_of(outcome))
        elif kind is Kind.ADMIT:
            self._gate.keep(trial, value_of(outcome))
        elif kind is Kind.REMEASURE:
            self._verification.keep(trial, value_of(outcome))
        else:
            self._keep_training(kind, trial, job, outcome)

    def _keep_training(self, kind: Kind, trial: Trial, job: CandidateJob, outcome: Outcome[Job, Any]) -> None:
        measurement = value_of(outcome)
        fault = divergence(measurement)
        if fault is not None:
            self._failures.keep(kind, trial, outcome, fault)
        elif kind is Kind.REPLICATE:
            self._replication.keep(trial, job, measurement)
        else:
            self._trainings.keep(trial, measurement)

    # -- how far the run is ------------------------------------------------------------------------

    @property
    def elapsed_s(self) -> float:
        """Wall time spent on the run, summed over its sessions."""
        return self._bounds.elapsed_s

    @property
    def is_out_of_time(self) -> bool:
        """Whether `search.time` is spent: no training is begun any more."""
        return self._bounds.is_out_of_time

    @property
    def waiting(self) -> int:
        """How many enqueued points were not proposed yet."""
        return self._proposals.waiting

    @property
    def is_finished(self) -> bool:
        """Whether nothing is left to do under the present number of trials, bounds and references."""
        references = self._references
        if references is not None and not (references.are_done and not references.untrusted):
            return False
        return self._bounds.are_met and not self._verification.untrusted

    def _has_full_generation(self) -> bool:
        """Say whether the last generation has all its candidates, so that they may be trained."""
        generation = generation_of(self.problem, self.store)
        full = generation.places >= self.problem.search.generation
        return full or self._bounds.are_spent or any(t.measurements for t in generation.members)


def _candidate_job(outcome: Outcome[Job, Any]) -> CandidateJob:
    """Return the job of an answer about a candidate."""
    if not isinstance(outcome.job, CandidateJob):
        raise EvaluationError(f"{outcome.job!r} is no candidate's job; please report this.")
    return outcome.job
