"""What a run does next, decided from its records alone, and what is kept of each answer."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Collection, Sequence
from dataclasses import replace
from itertools import islice, takewhile
from typing import Any

import optuna

from hfir.errors import ConfigError
from search.certainty import quality_of, to_replicate
from search.evaluation.answers import Admission, Baseline
from search.evaluation.plan import CandidateJob
from search.executors import Outcome, value_of
from search.files import NO_ROOM
from search.pareto import pareto_front
from search.samplers import GivenPoint, Request, build_sampler, proposal_seed, propose
from search.schedulers import WITHIN_LEVELS, promotions
from search.store import REPLICATES, SETBACKS, RunStore, TrialIndex
from search.study.generation import ADMITTED, PASSED, Generation, last_generation
from search.study.paths import checkpoint_path, replicate_path, scalars_path
from search.study.patience import GROWTH, trained_since_growth
from search.study.problem import Described, Problem, Ranked, Screened
from search.study.references import REFERENCE_KINDS, References
from search.study.rules import Rules, failure_kind, is_retried
from search.study.steps import Job, Kind, Step
from search.study.warm import enqueued_points, prior_trials
from search.types import (
    Cost,
    DivergedError,
    EvaluationError,
    Genotype,
    InputError,
    Measurement,
    Replicate,
    StoreError,
    Trial,
    TrialState,
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
        store: RunStore,
        *,
        references: References | None = None,
        scalars: bool = False,
        move: bool = False,
        rules: Rules | None = None,
    ) -> None:
        self.problem, self.store, self.rules = problem, store, rules or Rules()
        self._screening = problem.screening if isinstance(problem, Screened) else None
        self._before_s = float(store.facts.get("elapsed_s", 0.0))
        self._begun = time.monotonic()
        self._references = references
        self._scalars, self._move = scalars, move
        self._host: str | None = None
        self._moved: tuple[int, ...] = ()

    def next_step(self) -> Step | None:
        """Return what is to be done now; None where nothing is left."""
        if self._host is None:
            return Step(kind=Kind.LOOK, phase="loading photographs", jobs=(None,))
        foreign = self._foreign([self.store.index[n] for n in self._moved], self._host)
        if foreign:
            phase = f"measuring trial {foreign[0].number} on this machine"
            return Step(kind=Kind.REMEASURE, phase=phase, jobs=(self._measuring_job(foreign[0]),))
        trying = None if self._references is None else self._references.trying(self.store.study())
        if trying is not None:
            return trying
        return self._searching() or self._finishing()

    def _searching(self) -> Step | None:
        """Return what the search for candidates wants; None where it is over."""
        unmeasured = self.store.index.unmeasured()
        if unmeasured and not self.is_out_of_time:
            phase = f"measuring trial {unmeasured[0].number}"
            return Step(kind=Kind.ADMIT, phase=phase, jobs=(self._measuring_job(unmeasured[0]),))
        may_propose = not self._is_spent() and not self._nothing_left()
        if may_propose and not self._is_closed():
            return Step(kind=Kind.PROPOSE, phase="proposing")
        if self._generation().losers(self.problem.objectives):
            return Step(kind=Kind.SCREEN, phase="screening")
        wanted = self._wanted()
        affordable = [] if wanted is None else self._affordable(*wanted)
        if wanted is not None and affordable:
            return self._train(affordable, rung=wanted[1])
        if may_propose and wanted is None and not self._stagnates():
            return Step(kind=Kind.PROPOSE, phase="proposing")
        if self.store.index.count(TrialState.RUNNING) or self.store.facts.get("closed") != self._closed():
            return Step(kind=Kind.CLOSE, phase="closing")
        return None

    def _finishing(self) -> Step | None:
        """Return what is left to do once the search is over: references, second measurements, further seeds."""
        comparison = None if self._references is None else self._references.next_step(self.store.study())
        last = comparison or self._verification() or self._replication()
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
        for rung in reversed(range(len(self.problem.proxy.rungs) - 1)):
            reached = [t for t in self.store.index.trials if len(t.measurements) > rung]
            gone_on = [t for t in reached if len(t.measurements) > rung + 1 or t.number in running]
            if len(gone_on) + 1 > self.problem.proxy.keep * len(reached):
                continue
            free = [t for t in self._promoted(rung) if t.number not in running]
            if free:
                affordable = self._affordable(free, rung + 1)
                return self._job(affordable[0], rung=rung + 1) if affordable else None
        return None

    def take(self, kind: Kind, outcome: Outcome[Job, Any]) -> None:
        """Record the answer to a job; a failure is recorded, and the run goes on.

        Raises:
            InputError: If the data cannot be used, or a network to compare with.
            StoreError: If the record cannot be written.
        """
        with self.store.together(durable=kind is not Kind.ADMIT):
            self._keep(kind, outcome)

    def _keep(self, kind: Kind, outcome: Outcome[Job, Any]) -> None:
        if self._references is not None and kind in REFERENCE_KINDS:
            self._references.take(kind, outcome)
            return
        if kind is Kind.LOOK:
            self._keep_baseline(value_of(outcome))
            return
        if kind in (Kind.TRAIN, Kind.REPLICATE):
            self._note_time()
        trial = self.store.index[_number(outcome)]
        if kind is Kind.REMEASURE and _host(trial) not in (None, self._host):
            self._keep_move(trial, value_of(outcome))
        elif outcome.error is not None:
            self._keep_failure(kind, trial, outcome)
        elif kind is Kind.REMEASURE:
            self._keep_verification(trial, value_of(outcome))
        elif kind is Kind.ADMIT:
            self._keep_admission(trial, value_of(outcome))
        elif fault := _no_figure(value_of(outcome)):
            self._keep_failure(kind, trial, Outcome(outcome.job, error=DivergedError(fault)))
        elif kind is Kind.REPLICATE:
            self._keep_replicate(trial, outcome)
        else:
            self._keep_measurement(trial, value_of(outcome))

    # -- proposing ---------------------------------------------------------------------------------

    def propose(self) -> None:
        """Ask for one candidate and record it; illegal and repeated ones are told at once and cost nothing."""
        index, seed = len(self.store.index), self.problem.search.seed
        last = next(self.store.index.newest_first(), None)
        generation = 0 if last is None else last.generation + self._is_closed()
        with self.store.together(durable=False):
            self.store.optuna.sampler = self._sampler(index)
            trial, genotype = propose(self.store.optuna, self.problem.space)
            described, fault = self._decode(genotype)
            config = None if described is None else described.to_dict()
            twin = self.store.index.twin(genotype.key, config)
            number = self.store.record_proposal(
                trial,
                genotype=genotype,
                seed=proposal_seed(seed, index, purpose=1),
                generation=generation,
                config=config,
            )
            if twin is not None:
                self.store.finish(number, TrialState.DUPLICATE, reason=f"same network as trial {twin}")
            elif described is None:
                self.store.finish(number, TrialState.INFEASIBLE, reason=fault, constraint="legal")

    def _is_closed(self) -> bool:
        """Say whether the last generation has all its candidates, so that they may be trained."""
        generation = self._generation()
        full = generation.places >= self.problem.search.generation
        return full or self._is_spent() or any(t.measurements for t in generation.members)

    def _generation(self) -> Generation:
        """Return the last generation; what was asked for by name is not screened."""
        if self._screening is None:
            return last_generation(self.store.index)
        return last_generation(self.store.index, self._screening, {point.key for point in self._enqueued()})

    def _is_spent(self) -> bool:
        """Say whether the trials, the time or the steps are spent, so that nothing more is proposed."""
        left = self._steps_left()
        too_few = left is not None and left < self.problem.proxy.rungs[0]
        return self._has_all_trials() or self.is_out_of_time or too_few

    def _has_all_trials(self) -> bool:
        return self.store.index.count(*ADMITTED) - self._generation().to_leave >= self.problem.search.trials

    @property
    def elapsed_s(self) -> float:
        """Wall time spent on the run, summed over its sessions."""
        return self._before_s + time.monotonic() - self._begun

    @property
    def is_out_of_time(self) -> bool:
        """Whether `search.time` is spent: no training is begun any more."""
        return self.rules.time_s is not None and self.elapsed_s >= self.rules.time_s

    def _steps_left(self) -> int | None:
        if self.rules.steps is None:
            return None
        return self.rules.steps - sum(t.last.step for t in self.store.index.trials if t.last is not None)

    def _stagnates(self) -> bool:
        return self.rules.patience is not None and trained_since_growth(self.store.study()) >= self.rules.patience

    def _note_time(self) -> None:
        self.store.note("elapsed_s", round(self.elapsed_s, 1))

    def _nothing_left(self) -> str:
        if len(self.store.index.keys) >= self.problem.space.size:
            return f"all {self.problem.space.size} points of the space were considered"
        if _dry(self.store.index) >= DRY_BEFORE_END:
            return f"the last {DRY_BEFORE_END} proposals were all over the budget, illegal or duplicates"
        return ""

    def _sampler(self, index: int) -> optuna.samplers.BaseSampler:
        """Return the sampler for the next proposal: what is enqueued goes first; a stuck one gives way to chance."""
        space, search = self.problem.space, self.problem.search
        enqueued = {point.key: point for point in self._enqueued()}
        waiting = [point for key, point in enqueued.items() if key not in self.store.index.keys]
        if waiting:
            return GivenPoint(waiting[0])
        seed = proposal_seed(search.seed, index)
        if _dry(self.store.index) < DRY_BEFORE_RANDOM:
            priors = prior_trials(self.store.facts)
            request = Request(
                trials=(*priors, *self.store.index.trials),
                space=space,
                objectives=self.problem.objectives,
                run_seed=search.seed,
                index=index + len(priors) - len(enqueued),
                limits=self.problem.limits,
            )
            return build_sampler(search.sampler, request)
        if space.size <= SMALL_SPACE:
            unseen = [g for g in space.enumerate() if g.key not in self.store.index.keys]
            return GivenPoint(unseen[seed % len(unseen)])
        return GivenPoint(space.sample(seed))

    def _enqueued(self) -> list[Genotype]:
        """Return what is proposed before the sampler is asked: by the user, then by warm starts."""
        facts = self.store.facts
        return [*map(Genotype, facts.get("enqueued", ())), *enqueued_points(facts)]

    @property
    def waiting(self) -> int:
        """How many enqueued points were not proposed yet."""
        return len({point.key for point in (*self.rules.enqueued, *self._enqueued())} - set(self.store.index.keys))

    def _decode(self, genotype: Genotype) -> tuple[Described | None, str]:
        try:
            return self.problem.decode(genotype), ""
        except ConfigError as error:
            return None, str(error).splitlines()[0]

    # -- the budget gate ---------------------------------------------------------------------------

    def _keep_admission(self, trial: Trial, admission: Admission) -> None:
        """Record a candidate's cost, and reject it where it is over a limit."""
        self.store.record_cost(trial.number, admission.cost, admission.margins, admission.scores)
        if admission.doubt:
            log.warning("study=%s trial=%d %s", self.problem.name, trial.number, admission.doubt)
        if admission.reason:
            doubt = _doubt(admission.cost)
            reason = f"{admission.reason} ({doubt})" if doubt else admission.reason
            self.store.finish(trial.number, TrialState.INFEASIBLE, reason=reason)
        log.info("study=%s trial=%d rejected=%r", self.problem.name, trial.number, admission.reason)

    def screen(self) -> None:
        """Leave behind those of the last generation whose score and costs others outrank; they cost no trial."""
        generation = self._generation()
        losers = generation.losers(self.problem.objectives)
        with self.store.together():
            for trial in losers:
                scores = ", ".join(f"{name} {score:.4g}" for name, score in trial.scores.items())
                went_on = f"{len(generation.members) - len(losers)} of {len(generation.members)} candidates went on"
                reason = f"screened out before its first rung: {scores}; {went_on}"
                self.store.finish(trial.number, TrialState.SCREENED, reason=reason)
        log.info("study=%s screened_out=%d of=%d", self.problem.name, len(losers), len(generation.members))

    # -- training ----------------------------------------------------------------------------------

    def _wanted(self) -> tuple[Sequence[Trial], int] | None:
        """Return what is to be trained next, and to which rung: what waits for the first, else what is promoted."""
        fresh = self.store.index.waiting(0)
        if fresh:
            return fresh, 0
        for rung in range(len(self.problem.proxy.rungs) - 1):
            chosen = self._promoted(rung)
            if chosen:
                return chosen, rung + 1
        return None

    def _promoted(self, rung: int) -> Sequence[Trial]:
        """Return what stands at a rung and belongs to the best of all that reached it."""
        if not self.store.index.waiting(rung + 1):
            return ()
        return promotions(
            self.store.index.trials,
            rung=rung,
            keep=self.problem.proxy.keep,
            objectives=self.problem.objectives,
            ranking=self.problem.ranking if isinstance(self.problem, Ranked) else WITHIN_LEVELS,
        )

    def _affordable(self, trials: Sequence[Trial], rung: int) -> list[Trial]:
        """Return the candidates whose training fits into what is left of time and steps, the slowest first."""
        if self.is_out_of_time:
            return []
        slowest_first = sorted(trials, key=lambda t: -(t.value("latency_ms") or 0.0))
        left = self._steps_left()
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
        if isinstance(error, OSError) and error.errno in NO_ROOM:
            raise StoreError(
                f"{self.store.folder}: a worker could not write its checkpoint ({error.strerror}).\n"
                f"  Trial {trial.number} is not to blame and stays open. Make room, then give the same command again."
            ) from error
        reason = f"{failure_kind(error)}: {_first_line(error)}"
        if is_retried(error) and len(trial.setbacks) < self.rules.retries:
            log.warning("study=%s trial=%d again_after=%r", self.problem.name, trial.number, reason)
            self.store.note(SETBACKS, [*trial.setbacks, reason], trial=trial.number)
        elif kind is Kind.REMEASURE:
            log.warning("study=%s trial=%d not_measured_again=%r", self.problem.name, trial.number, reason)
            self.store.note("unverified", reason, trial=trial.number)
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
        known = self.store.facts.get("enqueued", [])
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
        if "baseline" not in self.store.facts:
            self.store.note("baseline", baseline.facts())
        foreign = self._foreign(self.store.index.trials, baseline.host)
        if foreign and not self._move:
            raise InputError(
                f"{self.store.folder}: its latencies were taken on {_host(foreign[0])}, and this machine is "
                f"{baseline.host}.\n  Latencies of two machines do not compare. Go on there, start anew in another "
                "folder with --out, or take all of them again here with --remeasure."
            )
        if foreign:
            self.store.forget("verified")
            self.store.forget("unverified")
        self._host, self._moved = baseline.host, tuple(t.number for t in foreign)

    def _foreign(self, trials: Sequence[Trial], host: str) -> list[Trial]:
        """Return the candidates whose latencies are of another machine, where latencies count."""
        limit = self.store.study().spec.get("budget", {}).get("latency_ms", {}).get("max")
        counts = limit is not None or "latency_ms" in self.problem.objectives
        return [t for t in trials if counts and _host(t) not in (None, host)]

    def _keep_move(self, trial: Trial, admission: Admission) -> None:
        """Replace what a candidate costs by what it costs on this machine; one that misses a limit here is out."""
        if admission.reason and trial.state is TrialState.RUNNING:
            self.store.finish(trial.number, TrialState.INFEASIBLE, reason=admission.reason)
        elif admission.reason and trial.state is TrialState.COMPLETE:
            reason = f"measured again on another machine: {admission.reason}"
            self.store.note("withdrawn", reason, trial=trial.number)
        self.store.note("remeasured", to_json(admission.cost), trial=trial.number)
        if admission.doubt:
            log.warning("study=%s trial=%d %s", self.problem.name, trial.number, admission.doubt)

    def close(self) -> None:
        """Tell off the candidates that no rung promoted, and keep what ended the search."""
        rule, reason = self._ending()
        early = "" if rule == "trials" else reason
        if early:
            log.warning("study=%s ended_early=%r", self.problem.name, early)
        with self.store.together():
            self.store.note("ended_by", {"rule": rule, "reason": reason})
            if early or self.store.facts.get("ended_early"):
                self.store.note("ended_early", early)
            self._note_time()
            for trial in self.store.study().in_state(TrialState.RUNNING):
                last = trial.last
                where = "before its first rung" if last is None else f"after {last.step} steps"
                self.store.finish(trial.number, TrialState.STOPPED, reason=f"not promoted, stopped {where}")
            self.store.note("closed", self._closed())

    def _closed(self) -> dict[str, Any]:
        """Return what a close holds for: with more candidates, or under other bounds, the search goes on."""
        considered = len(self.store.index)
        return {"considered": considered, "trials": self.problem.search.trials, **self.rules.bounds}

    def _ending(self) -> tuple[str, str]:
        """Return which rule ends the search, by its name in the experiment, and why in words."""
        cut = bool(self._wanted() or self.store.index.unmeasured())
        unfinished = cut or not self._has_all_trials()
        left = self._steps_left()
        if self.is_out_of_time and unfinished:
            return "time", f"search.time of {self.rules.time_s:g} s is spent"
        if left is not None and (cut or (unfinished and left < self.problem.proxy.rungs[0])):
            return "steps", f"{left:,} of search.steps {self.rules.steps:,} are left, less than the next training takes"
        if not unfinished:
            return "trials", f"{self.problem.search.trials} candidates were trained"
        nothing_left = self._nothing_left()
        if nothing_left:
            return "space", nothing_left
        return "patience", (
            f"the last {trained_since_growth(self.store.study())} trained candidates did not enlarge the dominated "
            f"volume by {GROWTH:.1%} (search.patience {self.rules.patience})"
        )

    def finish(self) -> None:
        """Keep for how many trials, and under which bounds, the run is finished; asked for more, it goes on."""
        with self.store.together():
            self._note_time()
            self.store.note("finished_under", self.rules.bounds)
            self.store.note("finished", self.problem.search.trials)

    @property
    def is_finished(self) -> bool:
        """Whether nothing is left to do under the present number of trials, bounds and references."""
        if self._references is not None and not self._references.are_done:
            return False
        facts = self.store.facts
        same = facts.get("finished_under", self.rules.bounds) == self.rules.bounds
        return same and int(facts.get("finished", 0)) >= self.problem.search.trials

    def _verification(self) -> Step | None:
        """Return the second measurement of a front's member: one that misses a limit now leaves its place to others."""
        verified = {**self.store.facts.get("verified", {}), **self.store.facts.get("unverified", {})}
        for trial in pareto_front(self.store.index.trials, self.problem.objectives).members:
            if str(trial.number) not in verified:
                phase = f"measuring trial {trial.number} of the front again"
                return Step(kind=Kind.REMEASURE, phase=phase, jobs=(self._measuring_job(trial),))
        return None

    def _keep_verification(self, trial: Trial, admission: Admission) -> None:
        doubt = _doubt(admission.cost)
        if doubt:
            log.warning("study=%s trial=%d measured_again=%r", self.problem.name, trial.number, doubt)
        elif admission.reason:
            reason = f"measured again at the end: {admission.reason}"
            self.store.note("withdrawn", reason, trial=trial.number)
        self.store.note("verified", to_json(admission.cost), trial=trial.number)

    # -- further seeds -----------------------------------------------------------------------------

    def _replication(self) -> Step | None:
        """Return the training of the front's members with one more seed each, while their order is not clear."""
        members = pareto_front(self.store.index.trials, self.problem.objectives).members
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
        known = [to_json(r) for r in (*trial.replicates, replicate)]
        self.store.note(REPLICATES, known, trial=trial.number)

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


def _number(outcome: Outcome[Job, Any]) -> int:
    """Return the number of the trial that a job was about."""
    if not isinstance(outcome.job, CandidateJob):
        raise EvaluationError(f"{outcome.job!r} is no candidate's job; please report this.")
    return outcome.job.number


def _first_line(error: BaseException) -> str:
    return str(error).splitlines()[0] if str(error) else repr(error)


def _dry(index: TrialIndex) -> int:
    """Return how many of the last proposals in a row were free; no more than what ends a run are counted."""
    newest = islice(index.newest_first(), DRY_BEFORE_END)
    return sum(1 for _ in takewhile(lambda t: t.state not in PASSED, newest))


def _host(trial: Trial) -> str | None:
    """Return the machine that a candidate's latency was taken on, where it was taken."""
    return None if trial.cost is None or trial.cost.latency is None else trial.cost.latency.host


def _doubt(cost: Cost | None) -> str:
    """Return why a candidate's latency is not to be trusted, if so."""
    return "" if cost is None or cost.latency is None else cost.latency.doubt


def _no_figure(measurement: Measurement) -> str:
    """Return why a measurement cannot be compared, if so."""
    if math.isfinite(measurement.psnr_db) and math.isfinite(measurement.ssim):
        return ""
    figures = f"psnr_db = {measurement.psnr_db}, ssim = {measurement.ssim}"
    return f"validation after {measurement.step} steps gave {figures}. Lower proxy.learning_rate."


def _known(trial: Trial, objective: str) -> float:
    value = trial.value(objective)
    if value is None:
        raise EvaluationError(f"trial {trial.number} completed without a figure for {objective}; please report this.")
    return value
