"""Second looks at the front once the search is over: its members are measured again, and trained with further seeds."""

from __future__ import annotations

import logging

from search.certainty import at_lowest_latency, quality_of, to_replicate, untrusted_candidates
from search.evaluation.answers import Admission
from search.evaluation.plan import CandidateJob
from search.pareto import pareto_front
from search.store import REPLICATES, RunStore
from search.study.jobs import CandidateJobs
from search.study.problem import Problem
from search.study.steps import Kind, Step
from search.types import Measurement, Replicate, Trial, to_json

log = logging.getLogger("search.study")


class Verification:
    """Has each member of the front measured again: one that misses a limit now leaves its place to others.

    So is what a doubtful latency keeps off the front: what would be on it at the lower end of its interval. A doubtful
    first figure gives way to the second, which is twice as long, and was not chosen for being low.

    Args:
        problem: What is searched.
        store: The run's record.
        jobs: Makes the measuring.
        remeasure: Also measure every latency again that is still untrusted after that, once a session.
    """

    def __init__(self, problem: Problem, store: RunStore, jobs: CandidateJobs, *, remeasure: bool = False) -> None:
        self._problem, self._store, self._jobs, self._remeasure = problem, store, jobs, remeasure
        self._measured: set[int] = set()
        """Trials that were measured again, or failed to be, in this session."""

    def next_step(self) -> Step | None:
        """Return the next measurement of a candidate; None where none is left."""
        second = self._second()
        untrusted = self.untrusted
        if second is not None or not untrusted:
            return second
        phase = f"measuring trial {untrusted[0].number} again, its latency is untrusted"
        return Step(kind=Kind.REMEASURE, phase=phase, jobs=(self._jobs.measuring(untrusted[0]),))

    @property
    def untrusted(self) -> list[Trial]:
        """Candidates whose untrusted latency is to be measured again in this session; none unless that is asked for."""
        if not self._remeasure:
            return []
        found = untrusted_candidates(self._store.index.trials, self._problem.objectives)
        return [trial for trial in found if trial.number not in self._measured]

    def _second(self) -> Step | None:
        """Return the second measurement of a candidate; None where all that want one have theirs, or had it missed."""
        verified = {**self._store.facts.get("verified", {}), **self._store.facts.get("unverified", {})}
        trials = self._store.index.trials
        hopeful = [trial if str(trial.number) in verified else at_lowest_latency(trial) for trial in trials]
        for wording, tried in (("of the front again", trials), ("again, which may belong to the front", hopeful)):
            for trial in pareto_front(tried, self._problem.objectives).members:
                if str(trial.number) not in verified:
                    job = self._jobs.measuring(self._store.index[trial.number])
                    return Step(kind=Kind.REMEASURE, phase=f"measuring trial {trial.number} {wording}", jobs=(job,))
        return None

    def keep(self, trial: Trial, admission: Admission) -> None:
        """Record a second measurement; a doubtful one withdraws nobody."""
        doubt = admission.cost.doubt
        if doubt:
            log.warning("study=%s trial=%d measured_again=%r", self._problem.name, trial.number, doubt)
        elif admission.reason:
            reason = f"measured again at the end: {admission.reason}"
            self._store.note("withdrawn", reason, trial=trial.number)
        if trial.cost is not None and trial.cost.doubt and not (doubt and admission.reason):
            self._store.note("remeasured", to_json(admission.cost), trial=trial.number)
        self._store.note("verified", to_json(admission.cost), trial=trial.number)
        self._measured.add(trial.number)

    def miss(self, trial: Trial) -> None:
        """Do not ask again in this session for a candidate that could not be measured; its old figure stays."""
        if str(trial.number) in self._store.facts.get("unverified", {}):
            self._measured.add(trial.number)


class Replication:
    """Has the front's members trained with further seeds, while their order is not clear.

    Args:
        problem: What is searched.
        store: The run's record.
        jobs: Makes the trainings.
        most: Further seeds of each, at most.
    """

    def __init__(self, problem: Problem, store: RunStore, jobs: CandidateJobs, *, most: int) -> None:
        self._problem, self._store, self._jobs, self._most = problem, store, jobs, most

    def next_step(self) -> Step | None:
        """Return the training of the front's members with one more seed each; None where that is not wanted."""
        members = pareto_front(self._store.index.trials, self._problem.objectives).members
        chosen = to_replicate(members, quality_of(self._problem.objectives), self._most)
        if not chosen:
            return None
        place = 1 + len(chosen[0].replicates)
        phase = f"training the front with seed {place + 1}"
        return Step(kind=Kind.REPLICATE, phase=phase, jobs=tuple(self._jobs.replicating(t, place) for t in chosen))

    def keep(self, trial: Trial, job: CandidateJob, measurement: Measurement) -> None:
        """Record what a candidate reached with a further seed."""
        replicate = Replicate(
            seed=job.seed,
            psnr_db=measurement.psnr_db,
            ssim=measurement.ssim,
            psnr_per_image_db=measurement.psnr_per_image_db,
            step=measurement.step,
            elapsed_s=measurement.elapsed_s,
        )
        note_replicate(self._store, trial, replicate)
        values = (self._problem.name, trial.number, replicate.seed, measurement.psnr_db)
        log.info("study=%s trial=%d seed=%d psnr_db=%.3f", *values)


def note_replicate(store: RunStore, trial: Trial, replicate: Replicate) -> None:
    """Record what came of a further seed, beside what came of the others."""
    known = [to_json(r) for r in (*trial.replicates, replicate)]
    store.note(REPLICATES, known, trial=trial.number)
