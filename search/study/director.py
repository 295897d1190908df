"""What a run does next, decided from its records alone, and what is kept of each answer."""

from __future__ import annotations

import logging
import time
from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Any

import optuna

from hfir.errors import ConfigError
from search.certainty import quality_of, to_replicate
from search.evaluation.answers import Admission, Baseline
from search.evaluation.plan import CandidateJob
from search.executors import Outcome, value_of
from search.pareto import pareto_front
from search.samplers import GivenPoint, Request, build_sampler, proposal_seed, propose
from search.schedulers import WITHIN_LEVELS, promotions
from search.store import REPLICATES, SETBACKS
from search.study.paths import checkpoint_path, replicate_path, scalars_path
from search.study.patience import GROWTH, trained_since_growth
from search.study.problem import Described, Problem, Ranked
from search.study.records import Store
from search.study.references import REFERENCE_KINDS, References
from search.study.rules import Rules, failure_kind, is_retried
from search.study.steps import Job, Kind, Step
from search.study.warm import enqueued_points, prior_trials
from search.types import (
    Cost,
    EvaluationError,
    Genotype,
    InputError,
    Measurement,
    Replicate,
    Study,
    Trial,
    TrialState,
    stable_hash,
    to_json,
)

log = logging.getLogger("search.study")

DRY_BEFORE_RANDOM = 40
"""After so many free proposals in a row the sampler is stuck, and points are drawn at random."""
DRY_BEFORE_END = 500
"""After so many, the budget leaves nothing to train."""
SMALL_SPACE = 20_000
"""Spaces up to this size are enumerated to find what was not yet considered."""

SEED_PURPOSE = 100
"""From here on purposes of `proposal_seed` are further seeds of a trial, by its number."""

ADMITTED = (TrialState.RUNNING, TrialState.COMPLETE, TrialState.STOPPED, TrialState.FAILED)
"""States that cost one of `search.trials`."""


class Director:
    """Decides a run's next step, and records what came of each.

    Args:
        problem: What is searched.
        store: The run's record.
        references: The networks that the run is compared with.
        scalars: Write the course of each training for TensorBoard.
        move: Take all latencies anew where they were taken on another machine than this; otherwise that is refused.
        rules: For how long, what goes first, and what is done about jobs that fail.
    """

    def __init__(
        self,
        problem: Problem,
        store: Store,
        *,
        references: References | None = None,
        scalars: bool = False,
        move: bool = False,
        rules: Rules | None = None,
    ) -> None:
        self.problem, self.store, self.rules = problem, store, rules or Rules()
        self._before_s = float(store.study().facts.get("elapsed_s", 0.0))
        self._begun = time.monotonic()
        self._references = references
        self._scalars, self._move = scalars, move
        self._host: str | None = None

    def next_step(self) -> Step | None:
        """Return what is to be done now; None where nothing is left."""
        study = self.store.study()
        if self._host is None:
            return Step(kind=Kind.LOOK, phase="loading photographs", jobs=(None,))
        foreign = self._foreign(study, self._host)
        if foreign:
            phase = f"measuring trial {foreign[0].number} on this machine"
            return Step(kind=Kind.REMEASURE, phase=phase, jobs=(self._measuring_job(foreign[0]),))
        trying = None if self._references is None else self._references.trying(study)
        if trying is not None:
            return trying
        return self._searching(study) or self._finishing(study)

    def _searching(self, study: Study) -> Step | None:
        """Return what the search for candidates wants; None where it is over."""
        unmeasured = _unmeasured(study)
        if unmeasured and not self.is_out_of_time:
            phase = f"measuring trial {unmeasured[0].number}"
            return Step(kind=Kind.ADMIT, phase=phase, jobs=(self._measuring_job(unmeasured[0]),))
        may_propose = not self._spent(study) and not self._nothing_left(study)
        if may_propose and not self._is_closed(study):
            return Step(kind=Kind.PROPOSE, phase="proposing")
        wanted = self._wanted(study)
        affordable = [] if wanted is None else self._affordable(study, *wanted)
        if wanted is not None and affordable:
            return self._train(affordable, rung=wanted[1])
        if may_propose and wanted is None and not self._stagnates(study):
            return Step(kind=Kind.PROPOSE, phase="proposing")
        if study.in_state(TrialState.RUNNING) or study.facts.get("closed") != self._closed(study):
            return Step(kind=Kind.CLOSE, phase="closing")
        return None

    def _finishing(self, study: Study) -> Step | None:
        """Return what is left to do once the search is over: references, second measurements, further seeds."""
        comparison = None if self._references is None else self._references.next_step(study)
        last = comparison or self._verification(study) or self._replication(study)
        return last or (None if self.is_finished else Step(kind=Kind.FINISH, phase="done"))

    def ahead(self, running: Collection[int]) -> CandidateJob | None:
        """Return a training that an idle worker may begin before the step's others are done; None where there is none.

        Asynchronous successive halving (Li et al., "A system for massively parallel hyperparameter tuning", 2020): of
        those that reached a rung so far, the share `keep`, rounded down, may go on; the highest rung first.

        Args:
            running: Numbers of the trials in training.
        """
        if not self.rules.asynchronous or self.is_out_of_time:
            return None
        study = self.store.study()
        for rung in reversed(range(len(self.problem.proxy.rungs) - 1)):
            reached = [t for t in study.trials if len(t.measurements) > rung]
            gone_on = [t for t in reached if len(t.measurements) > rung + 1 or t.number in running]
            free = [t for t in self._promoted(study, rung) if t.number not in running]
            if len(gone_on) + 1 <= self.problem.proxy.keep * len(reached) and free:
                affordable = self._affordable(study, free, rung + 1)
                return self._job(affordable[0], rung=rung + 1) if affordable else None
        return None

    def take(self, kind: Kind, outcome: Outcome[Job, Any]) -> None:
        """Record the answer to a job; a failure is recorded, and the run goes on.

        Raises:
            InputError: If the data cannot be used, or a network to compare with.
        """
        if self._references is not None and kind in REFERENCE_KINDS:
            self._references.take(kind, outcome)
            return
        if kind is Kind.LOOK:
            self._keep_baseline(value_of(outcome))
            return
        if kind in (Kind.TRAIN, Kind.REPLICATE):
            self._note_time()
        trial = self._trial(outcome)
        if kind is Kind.REMEASURE and _host(trial) not in (None, self._host):
            self._keep_move(trial, value_of(outcome))
        elif outcome.error is not None:
            self._keep_failure(kind, trial, outcome)
        elif kind is Kind.REMEASURE:
            self._keep_verification(trial, value_of(outcome))
        elif kind is Kind.REPLICATE:
            self._keep_replicate(trial, outcome)
        elif kind is Kind.ADMIT:
            self._keep_admission(trial, value_of(outcome))
        else:
            self._keep_measurement(trial, value_of(outcome))

    # -- proposing ---------------------------------------------------------------------------------

    def propose(self) -> None:
        """Ask for one candidate and record it; illegal and repeated ones are told at once and cost nothing."""
        study = self.store.study()
        last = study.trials[-1].generation if study.trials else 0
        generation = last + 1 if self._is_closed(study) else last
        index, seed = len(study.trials), self.problem.search.seed
        self.store.optuna.sampler = self._sampler(study, index)
        trial, genotype = propose(self.store.optuna, self.problem.space)
        described, fault = self._decode(genotype)
        number = self.store.record_proposal(
            trial,
            genotype=genotype,
            seed=proposal_seed(seed, index, purpose=1),
            generation=generation,
            config=None if described is None else described.to_dict(),
        )
        twin = _twin(study, genotype, described)
        if twin is not None:
            self.store.finish(number, TrialState.DUPLICATE, reason=f"same network as trial {twin}")
        elif described is None:
            self.store.finish(number, TrialState.INFEASIBLE, reason=fault, constraint="legal")

    def _is_closed(self, study: Study) -> bool:
        """Say whether the last generation has all its candidates, so that they may be trained."""
        if not study.trials:
            return False
        members = [t for t in study.in_state(*ADMITTED) if t.generation == study.trials[-1].generation]
        full = len(members) >= self.problem.search.generation
        return full or self._spent(study) or any(t.measurements for t in members)

    def _spent(self, study: Study) -> bool:
        """Say whether the trials, the time or the steps are spent, so that nothing more is proposed."""
        left = self._steps_left(study)
        too_few = left is not None and left < self.problem.proxy.rungs[0]
        return self._has_all_trials(study) or self.is_out_of_time or too_few

    def _has_all_trials(self, study: Study) -> bool:
        return len(study.in_state(*ADMITTED)) >= self.problem.search.trials

    @property
    def elapsed_s(self) -> float:
        """Wall time spent on the run, summed over its sessions."""
        return self._before_s + time.monotonic() - self._begun

    @property
    def is_out_of_time(self) -> bool:
        """Whether `search.time` is spent: no training is begun any more."""
        return self.rules.time_s is not None and self.elapsed_s >= self.rules.time_s

    def _steps_left(self, study: Study) -> int | None:
        if self.rules.steps is None:
            return None
        return self.rules.steps - sum(t.last.step for t in study.trials if t.last is not None)

    def _stagnates(self, study: Study) -> bool:
        return self.rules.patience is not None and trained_since_growth(study) >= self.rules.patience

    def _note_time(self) -> None:
        self.store.note("elapsed_s", round(self.elapsed_s, 1))

    def _nothing_left(self, study: Study) -> str:
        if len({t.key for t in study.trials}) >= self.problem.space.size:
            return f"all {self.problem.space.size} points of the space were considered"
        if _dry(study) >= DRY_BEFORE_END:
            return f"the last {DRY_BEFORE_END} proposals were all over the budget, illegal or duplicates"
        return ""

    def _sampler(self, study: Study, index: int) -> optuna.samplers.BaseSampler:
        """Return the sampler for the next proposal: what is enqueued goes first; a stuck one gives way to chance."""
        space, search = self.problem.space, self.problem.search
        enqueued, seen = self._enqueued(study), {t.key for t in study.trials}
        waiting = [point for point in enqueued if point.key not in seen]
        if waiting:
            return GivenPoint(waiting[0])
        seed = proposal_seed(search.seed, index)
        if _dry(study) < DRY_BEFORE_RANDOM:
            priors = prior_trials(study.facts)
            request = Request(
                trials=(*priors, *study.trials),
                space=space,
                objectives=self.problem.objectives,
                run_seed=search.seed,
                index=index + len(priors) - len(seen & {point.key for point in enqueued}),
                limits=self.problem.limits,
            )
            return build_sampler(search.sampler, request)
        if space.size <= SMALL_SPACE:
            unseen = [g for g in space.enumerate() if g.key not in seen]
            return GivenPoint(unseen[seed % len(unseen)])
        return GivenPoint(space.sample(seed))

    def _enqueued(self, study: Study) -> list[Genotype]:
        """Return what is proposed before the sampler is asked: by the user, then by warm starts."""
        return [*map(Genotype, study.facts.get("enqueued", ())), *enqueued_points(study.facts)]

    @property
    def waiting(self) -> int:
        """How many enqueued points were not proposed yet."""
        study = self.store.study()
        seen = {t.key for t in study.trials}
        return len({point.key for point in (*self.rules.enqueued, *self._enqueued(study))} - seen)

    def _decode(self, genotype: Genotype) -> tuple[Described | None, str]:
        try:
            return self.problem.decode(genotype), ""
        except ConfigError as error:
            return None, str(error).splitlines()[0]

    # -- the budget gate ---------------------------------------------------------------------------

    def _keep_admission(self, trial: Trial, admission: Admission) -> None:
        """Record a candidate's cost, and reject it where it is over a limit."""
        self.store.record_cost(trial.number, admission.cost, admission.margins)
        if admission.doubt:
            log.warning("study=%s trial=%d %s", self.problem.name, trial.number, admission.doubt)
        if admission.reason:
            doubt = _doubt(admission.cost)
            reason = f"{admission.reason} ({doubt})" if doubt else admission.reason
            self.store.finish(trial.number, TrialState.INFEASIBLE, reason=reason)
        log.info("study=%s trial=%d rejected=%r", self.problem.name, trial.number, admission.reason)

    # -- training ----------------------------------------------------------------------------------

    def _wanted(self, study: Study) -> tuple[Sequence[Trial], int] | None:
        """Return what is to be trained next, and to which rung: what waits for the first, else what is promoted."""
        fresh = [t for t in study.in_state(TrialState.RUNNING) if t.cost is not None and not t.measurements]
        if fresh:
            return fresh, 0
        for rung in range(len(self.problem.proxy.rungs) - 1):
            chosen = self._promoted(study, rung)
            if chosen:
                return chosen, rung + 1
        return None

    def _promoted(self, study: Study, rung: int) -> Sequence[Trial]:
        """Return what stands at a rung and belongs to the best of all that reached it."""
        return promotions(
            study.trials,
            rung=rung,
            keep=self.problem.proxy.keep,
            objectives=self.problem.objectives,
            ranking=self.problem.ranking if isinstance(self.problem, Ranked) else WITHIN_LEVELS,
        )

    def _affordable(self, study: Study, trials: Sequence[Trial], rung: int) -> list[Trial]:
        """Return the candidates whose training fits into what is left of time and steps, the slowest first."""
        if self.is_out_of_time:
            return []
        slowest_first = sorted(trials, key=lambda t: -(t.value("latency_ms") or 0.0))
        left = self._steps_left(study)
        if left is None:
            return slowest_first
        chosen: list[Trial] = []
        for trial in slowest_first:
            left -= self.problem.proxy.rungs[rung] - (0 if trial.last is None else trial.last.step)
            chosen += [trial] if left >= 0 else []
        return chosen

    def _train(self, trials: Sequence[Trial], rung: int) -> Step:
        phase = f"training to step {self.problem.proxy.rungs[rung]}"
        return Step(kind=Kind.TRAIN, phase=phase, jobs=tuple(self._job(t, rung=rung) for t in trials))

    def _keep_measurement(self, trial: Trial, measurement: Measurement) -> None:
        self.store.record_measurement(trial, measurement)
        if measurement.rung == len(self.problem.proxy.rungs) - 1:
            done = replace(trial, measurements=(*trial.measurements, measurement))
            values = [_known(done, objective) for objective in self.problem.objectives]
            self.store.finish(trial.number, TrialState.COMPLETE, values=values, reason=_doubt(trial.cost))
        log.info(
            "study=%s trial=%d step=%d psnr_db=%.3f elapsed_s=%.1f",
            self.problem.name,
            trial.number,
            measurement.step,
            measurement.psnr_db,
            measurement.elapsed_s,
        )

    # -- failures ----------------------------------------------------------------------------------

    def _keep_failure(self, kind: Kind, trial: Trial, outcome: Outcome[Any, Any]) -> None:
        """Record a failed job: to be done again, or the candidate's end, or a measurement or a seed missed."""
        error = outcome.error
        if error is None or isinstance(error, InputError):
            value_of(outcome)
            return
        reason = f"{failure_kind(error)}: {_first_line(error)}"
        if is_retried(error) and len(trial.setbacks) < self.rules.retries:
            log.warning("study=%s trial=%d again_after=%r", self.problem.name, trial.number, reason)
            self.store.note(f"{SETBACKS}:{trial.number}", [*trial.setbacks, reason])
        elif kind is Kind.REMEASURE:
            log.warning("study=%s trial=%d not_measured_again=%r", self.problem.name, trial.number, reason)
            facts = self.store.study().facts
            self.store.note("unverified", dict(facts.get("unverified", {})) | {str(trial.number): reason})
        elif kind is Kind.REPLICATE:
            log.warning("study=%s trial=%d failed_again=%r", self.problem.name, trial.number, reason)
            self._note_replicate(trial, Replicate(seed=outcome.job.seed, reason=reason))
        else:
            tries = len(trial.setbacks)
            reason += f" (tried {tries + 1} times)" if tries else ""
            log.warning("study=%s trial=%d state=FAILED reason=%r", self.problem.name, trial.number, reason)
            failure = outcome.trace or str(error)
            self.store.finish(trial.number, TrialState.FAILED, reason=reason, failure=failure)

    # -- beginning and end -------------------------------------------------------------------------

    def begin(self) -> None:
        """Tell off what an earlier driver had asked for but not recorded, and keep what is enqueued."""
        lost = self.store.close_lost_proposals()
        if lost:
            log.info("study=%s lost_proposals=%d", self.problem.name, lost)
        known = self.store.study().facts.get("enqueued", [])
        keys = {Genotype(values).key for values in known}
        new = [dict(point.values) for point in self.rules.enqueued if point.key not in keys]
        if new:
            self.store.note("enqueued", [*known, *new])
        if self._references is not None:
            self._references.begin()

    def _keep_baseline(self, baseline: Baseline) -> None:
        """Keep what the run is compared with, and refuse to go on beside latencies of another machine."""
        for note in (*baseline.notes, *([baseline.storage] if baseline.storage else [])):
            log.info("study=%s data=%r", self.problem.name, note)
        if "baseline" not in self.store.study().facts:
            self.store.note("baseline", baseline.facts())
        foreign = self._foreign(self.store.study(), baseline.host)
        if foreign and not self._move:
            raise InputError(
                f"{self.store.folder}: its latencies were taken on {_host(foreign[0])}, and this machine is "
                f"{baseline.host}.\n  Latencies of two machines do not compare. Go on there, start anew in another "
                "folder with --out, or take all of them again here with --remeasure."
            )
        if foreign:
            self.store.note("verified", {})
            self.store.note("unverified", {})
        self._host = baseline.host

    def _foreign(self, study: Study, host: str) -> list[Trial]:
        """Return the candidates whose latencies are of another machine, where latencies count."""
        limit = study.spec.get("budget", {}).get("latency_ms", {}).get("max")
        counts = limit is not None or "latency_ms" in self.problem.objectives
        return [t for t in study.trials if counts and _host(t) not in (None, host)]

    def _keep_move(self, trial: Trial, admission: Admission) -> None:
        """Replace what a candidate costs by what it costs on this machine; one that misses a limit here is out."""
        facts, number = self.store.study().facts, str(trial.number)
        if admission.reason and trial.state is TrialState.RUNNING:
            self.store.finish(trial.number, TrialState.INFEASIBLE, reason=admission.reason)
        elif admission.reason and trial.state is TrialState.COMPLETE:
            reason = f"measured again on another machine: {admission.reason}"
            self.store.note("withdrawn", dict(facts.get("withdrawn", {})) | {number: reason})
        self.store.note("remeasured", dict(facts.get("remeasured", {})) | {number: to_json(admission.cost)})
        if admission.doubt:
            log.warning("study=%s trial=%d %s", self.problem.name, trial.number, admission.doubt)

    def close(self) -> None:
        """Tell off the candidates that no rung promoted, and keep what ended the search."""
        study = self.store.study()
        rule, reason = self._ending(study)
        early = "" if rule == "trials" else reason
        self.store.note("ended_by", {"rule": rule, "reason": reason})
        if early or study.facts.get("ended_early"):
            self.store.note("ended_early", early)
        if early:
            log.warning("study=%s ended_early=%r", self.problem.name, early)
        self._note_time()
        for trial in study.in_state(TrialState.RUNNING):
            last = trial.last
            where = "before its first rung" if last is None else f"after {last.step} steps"
            self.store.finish(trial.number, TrialState.STOPPED, reason=f"not promoted, stopped {where}")
        self.store.note("closed", self._closed(study))

    def _closed(self, study: Study) -> dict[str, Any]:
        """Return what a close holds for: with more candidates, or under other bounds, the search goes on."""
        return {"considered": len(study.trials), "trials": self.problem.search.trials, **self.rules.bounds}

    def _ending(self, study: Study) -> tuple[str, str]:
        """Return which rule ends the search, by its name in the experiment, and why in words."""
        cut = bool(self._wanted(study) or _unmeasured(study))
        unfinished = cut or not self._has_all_trials(study)
        left = self._steps_left(study)
        if self.is_out_of_time and unfinished:
            return "time", f"search.time of {self.rules.time_s:g} s is spent"
        if left is not None and (cut or (unfinished and left < self.problem.proxy.rungs[0])):
            return "steps", f"{left:,} of search.steps {self.rules.steps:,} are left, less than the next training takes"
        if not unfinished:
            return "trials", f"{self.problem.search.trials} candidates were trained"
        nothing_left = self._nothing_left(study)
        if nothing_left:
            return "space", nothing_left
        return "patience", (
            f"the last {trained_since_growth(study)} trained candidates did not enlarge the dominated volume by "
            f"{GROWTH:.1%} (search.patience {self.rules.patience})"
        )

    def finish(self) -> None:
        """Keep for how many trials, and under which bounds, the run is finished; asked for more, it goes on."""
        self._note_time()
        self.store.note("finished_under", self.rules.bounds)
        self.store.note("finished", self.problem.search.trials)

    @property
    def is_finished(self) -> bool:
        """Whether nothing is left to do under the present number of trials, bounds and references."""
        if self._references is not None and not self._references.are_done:
            return False
        facts = self.store.study().facts
        same = facts.get("finished_under", self.rules.bounds) == self.rules.bounds
        return same and int(facts.get("finished", 0)) >= self.problem.search.trials

    def _verification(self, study: Study) -> Step | None:
        """Return the second measurement of a front's member: one that misses a limit now leaves its place to others."""
        verified = {**study.facts.get("verified", {}), **study.facts.get("unverified", {})}
        for trial in pareto_front(study.trials, self.problem.objectives).members:
            if str(trial.number) not in verified:
                phase = f"measuring trial {trial.number} of the front again"
                return Step(kind=Kind.REMEASURE, phase=phase, jobs=(self._measuring_job(trial),))
        return None

    def _keep_verification(self, trial: Trial, admission: Admission) -> None:
        facts = self.store.study().facts
        doubt = _doubt(admission.cost)
        if doubt:
            log.warning("study=%s trial=%d measured_again=%r", self.problem.name, trial.number, doubt)
        elif admission.reason:
            withdrawn = {str(trial.number): f"measured again at the end: {admission.reason}"}
            self.store.note("withdrawn", dict(facts.get("withdrawn", {})) | withdrawn)
        self.store.note("verified", dict(facts.get("verified", {})) | {str(trial.number): to_json(admission.cost)})

    # -- further seeds -----------------------------------------------------------------------------

    def _replication(self, study: Study) -> Step | None:
        """Return the training of the front's members with one more seed each, while their order is not clear."""
        members = pareto_front(study.trials, self.problem.objectives).members
        chosen = to_replicate(members, quality_of(self.problem.objectives), self.rules.replicates)
        if not chosen:
            return None
        place = 1 + len(chosen[0].replicates)
        phase = f"training the front with seed {place + 1}"
        return Step(kind=Kind.REPLICATE, phase=phase, jobs=tuple(self._replicate_job(t, place) for t in chosen))

    def _replicate_job(self, trial: Trial, place: int) -> CandidateJob:
        job = self._job(trial, rung=len(self.problem.proxy.rungs) - 1)
        seed = proposal_seed(self.problem.search.seed, trial.number, purpose=SEED_PURPOSE + place)
        path = replicate_path(self.store.folder, trial.number, place)
        return replace(job, seed=seed, checkpoint=str(path), scalars=None)

    def _keep_replicate(self, trial: Trial, outcome: Outcome[Any, Any]) -> None:
        shown: Measurement = value_of(outcome)
        replicate = Replicate(
            seed=outcome.job.seed,
            psnr_db=shown.psnr_db,
            ssim=shown.ssim,
            psnr_per_image_db=shown.psnr_per_image_db,
            step=shown.step,
            elapsed_s=shown.elapsed_s,
        )
        self._note_replicate(trial, replicate)
        values = (self.problem.name, trial.number, replicate.seed, shown.psnr_db)
        log.info("study=%s trial=%d seed=%d psnr_db=%.3f", *values)

    def _note_replicate(self, trial: Trial, replicate: Replicate) -> None:
        self.store.note(f"{REPLICATES}:{trial.number}", [to_json(r) for r in (*trial.replicates, replicate)])

    # -- jobs --------------------------------------------------------------------------------------

    def _measuring_job(self, trial: Trial) -> CandidateJob:
        return replace(self._job(trial, rung=0), limit_s=self.rules.measuring_limit_s)

    def _job(self, trial: Trial, rung: int) -> CandidateJob:
        if trial.config is None:
            raise EvaluationError(f"trial {trial.number} has no configuration: it stands for no legal network.")
        return CandidateJob(
            number=trial.number,
            config=dict(trial.config),
            seed=trial.seed,
            checkpoint=str(checkpoint_path(self.store.folder, trial.number)),
            rung=rung,
            scalars=str(scalars_path(self.store.folder, trial.number)) if self._scalars else None,
            limit_s=self.rules.limit_s(trial, rung),
        )

    def _trial(self, outcome: Outcome[Job, Any]) -> Trial:
        number = outcome.job.number if isinstance(outcome.job, CandidateJob) else -1
        return next(t for t in self.store.study().trials if t.number == number)


def _first_line(error: BaseException) -> str:
    return str(error).splitlines()[0] if str(error) else repr(error)


def _unmeasured(study: Study) -> list[Trial]:
    return [t for t in study.in_state(TrialState.RUNNING) if t.cost is None]


def _dry(study: Study) -> int:
    """Return how many of the last proposals in a row were free."""
    dry = 0
    for trial in reversed(study.trials):
        if trial.state in ADMITTED:
            break
        dry += 1
    return dry


def _twin(study: Study, genotype: Genotype, described: Described | None) -> int | None:
    """Return the earlier trial with the same genotype or the same network, if any."""
    fingerprint = None if described is None else stable_hash(described.to_dict())
    for trial in study.trials:
        same_network = trial.config is not None and stable_hash(dict(trial.config)) == fingerprint
        if trial.key == genotype.key or same_network:
            return trial.number
    return None


def _host(trial: Trial) -> str | None:
    """Return the machine that a candidate's latency was taken on, where it was taken."""
    return None if trial.cost is None or trial.cost.latency is None else trial.cost.latency.host


def _doubt(cost: Cost | None) -> str:
    """Return why a candidate's latency is not to be trusted, if so."""
    return "" if cost is None or cost.latency is None else cost.latency.doubt


def _known(trial: Trial, objective: str) -> float:
    value = trial.value(objective)
    if value is None:
        raise EvaluationError(f"trial {trial.number} completed without a figure for {objective}; please report this.")
    return value
