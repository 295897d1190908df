"""What a run does next, decided from its records alone, and what is kept of each answer."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import replace
from itertools import islice, takewhile
from typing import Any

import optuna

from hfir.errors import ConfigError
from search.evaluation.answers import Admission, Baseline
from search.evaluation.plan import CandidateJob
from search.executors import Outcome, value_of
from search.files import NO_ROOM
from search.pareto import pareto_front
from search.samplers import GivenPoint, Request, build_sampler, proposal_seed, propose
from search.schedulers import WITHIN_LEVELS, promotions
from search.store import RunStore, TrialIndex
from search.study.paths import checkpoint_path, scalars_path
from search.study.problem import Described, Problem, Ranked
from search.study.references import REFERENCE_KINDS, References
from search.study.steps import Job, Kind, Step
from search.types import (
    Cost,
    EvaluationError,
    Genotype,
    InputError,
    Measurement,
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
    """

    def __init__(
        self,
        problem: Problem,
        store: RunStore,
        *,
        references: References | None = None,
        scalars: bool = False,
        move: bool = False,
    ) -> None:
        self.problem, self.store = problem, store
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
            return Step(kind=Kind.REMEASURE, phase=phase, jobs=(self._job(foreign[0], rung=0),))
        trying = None if self._references is None else self._references.trying(self.store.study())
        if trying is not None:
            return trying
        unmeasured = self.store.index.unmeasured()
        if unmeasured:
            phase = f"measuring trial {unmeasured[0].number}"
            return Step(kind=Kind.ADMIT, phase=phase, jobs=(self._job(unmeasured[0], rung=0),))
        may_propose = not self._is_spent() and not self._nothing_left()
        if may_propose and not self._is_closed():
            return Step(kind=Kind.PROPOSE, phase="proposing")
        training = self._training()
        if training is not None:
            return training
        if may_propose:
            return Step(kind=Kind.PROPOSE, phase="proposing")
        if self.store.index.count(TrialState.RUNNING):
            return Step(kind=Kind.CLOSE, phase="closing")
        if self._references is not None:
            comparison = self._references.next_step(self.store.study())
            if comparison is not None:
                return comparison
        return self._verification()

    def take(self, kind: Kind, outcome: Outcome[Job, Any]) -> None:
        """Record the answer to a job; a crash or a divergence is recorded, and the run goes on.

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
        trial = self.store.index[_number(outcome)]
        if kind is Kind.REMEASURE and _host(trial) not in (None, self._host):
            self._keep_move(trial, value_of(outcome))
        elif kind is Kind.REMEASURE:
            self._keep_verification(trial, value_of(outcome))
        elif outcome.error is not None:
            self._fail(trial, outcome)
        elif kind is Kind.ADMIT:
            self._keep_admission(trial, value_of(outcome))
        elif fault := _no_figure(value_of(outcome)):
            self._fail(trial, Outcome(outcome.job, error=EvaluationError(fault)))
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
        members = _last_generation(self.store.index)
        full = len(members) >= self.problem.search.generation
        return full or self._is_spent() or any(t.measurements for t in members)

    def _is_spent(self) -> bool:
        return self.store.index.count(*ADMITTED) >= self.problem.search.trials

    def _nothing_left(self) -> str:
        if len(self.store.index.keys) >= self.problem.space.size:
            return f"all {self.problem.space.size} points of the space were considered"
        if _dry(self.store.index) >= DRY_BEFORE_END:
            return f"the last {DRY_BEFORE_END} proposals were all over the budget, illegal or duplicates"
        return ""

    def _sampler(self, index: int) -> optuna.samplers.BaseSampler:
        """Return the sampler for the next proposal; a stuck one gives way to chance."""
        space, search = self.problem.space, self.problem.search
        seed = proposal_seed(search.seed, index)
        if _dry(self.store.index) < DRY_BEFORE_RANDOM:
            request = Request(
                trials=self.store.index.trials,
                space=space,
                objectives=self.problem.objectives,
                run_seed=search.seed,
                index=index,
                limits=self.problem.limits,
            )
            return build_sampler(search.sampler, request)
        if space.size <= SMALL_SPACE:
            unseen = [g for g in space.enumerate() if g.key not in self.store.index.keys]
            return GivenPoint(unseen[seed % len(unseen)])
        return GivenPoint(space.sample(seed))

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

    def _training(self) -> Step | None:
        """Return the training of what waits for its first rung, else of what the lowest rung promotes."""
        fresh = self.store.index.waiting(0)
        if fresh:
            return self._train(fresh, rung=0)
        ranking = self.problem.ranking if isinstance(self.problem, Ranked) else WITHIN_LEVELS
        for rung in range(len(self.problem.proxy.rungs) - 1):
            if not self.store.index.waiting(rung + 1):
                continue
            chosen = promotions(
                self.store.index.trials,
                rung=rung,
                keep=self.problem.proxy.keep,
                objectives=self.problem.objectives,
                ranking=ranking,
            )
            if chosen:
                return self._train(chosen, rung=rung + 1)
        return None

    def _train(self, trials: Sequence[Trial], rung: int) -> Step:
        """Return the training of candidates through a rung, the slowest first."""
        slowest_first = sorted(trials, key=lambda t: -(t.value("latency_ms") or 0.0))
        phase = f"training to step {self.problem.proxy.rungs[rung]}"
        return Step(kind=Kind.TRAIN, phase=phase, jobs=tuple(self._job(t, rung=rung) for t in slowest_first))

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

    def _fail(self, trial: Trial, outcome: Outcome[Any, Any]) -> None:
        if isinstance(outcome.error, InputError):
            raise outcome.error
        if isinstance(outcome.error, OSError) and outcome.error.errno in NO_ROOM:
            raise StoreError(
                f"{self.store.folder}: a worker could not write its checkpoint ({outcome.error.strerror}).\n"
                f"  Trial {trial.number} is not to blame and stays open. Make room, then give the same command again."
            ) from outcome.error
        reason = str(outcome.error).splitlines()[0] if str(outcome.error) else repr(outcome.error)
        log.warning("study=%s trial=%d state=FAILED reason=%r", self.problem.name, trial.number, reason)
        failure = outcome.trace or str(outcome.error)
        self.store.finish(trial.number, TrialState.FAILED, reason=reason, failure=failure)

    # -- beginning and end -------------------------------------------------------------------------

    def begin(self) -> None:
        """Tell off what an earlier driver had asked for but not recorded."""
        lost = self.store.close_lost_proposals()
        if lost:
            log.info("study=%s lost_proposals=%d", self.problem.name, lost)
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
        """Tell off the candidates that no rung promoted, and keep why the run ended before its trials were spent."""
        if not self._is_spent():
            reason = self._nothing_left()
            self.store.note("ended_early", reason)
            log.warning("study=%s ended_early=%r", self.problem.name, reason)
        with self.store.together():
            for trial in self.store.study().in_state(TrialState.RUNNING):
                last = trial.last
                where = "before its first rung" if last is None else f"after {last.step} steps"
                self.store.finish(trial.number, TrialState.STOPPED, reason=f"not promoted, stopped {where}")

    def finish(self) -> None:
        """Keep for how many trials the run is finished; asked for more, it goes on."""
        self.store.note("finished", self.problem.search.trials)

    @property
    def is_finished(self) -> bool:
        """Whether nothing is left to do under the present number of trials, and the present references."""
        if self._references is not None and not self._references.are_done:
            return False
        return int(self.store.facts.get("finished", 0)) >= self.problem.search.trials

    def _verification(self) -> Step | None:
        """Return the second measurement of a front's member: one that misses a limit now leaves its place to others."""
        verified = self.store.facts.get("verified", {})
        for trial in pareto_front(self.store.index.trials, self.problem.objectives).members:
            if str(trial.number) not in verified:
                phase = f"measuring trial {trial.number} of the front again"
                return Step(kind=Kind.REMEASURE, phase=phase, jobs=(self._job(trial, rung=0),))
        return None if self.is_finished else Step(kind=Kind.FINISH, phase="done")

    def _keep_verification(self, trial: Trial, admission: Admission) -> None:
        doubt = _doubt(admission.cost)
        if doubt:
            log.warning("study=%s trial=%d measured_again=%r", self.problem.name, trial.number, doubt)
        elif admission.reason:
            reason = f"measured again at the end: {admission.reason}"
            self.store.note("withdrawn", reason, trial=trial.number)
        self.store.note("verified", to_json(admission.cost), trial=trial.number)

    # -- jobs --------------------------------------------------------------------------------------

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
        )


def _number(outcome: Outcome[Job, Any]) -> int:
    """Return the number of the trial that a job was about."""
    if not isinstance(outcome.job, CandidateJob):
        raise EvaluationError(f"{outcome.job!r} is no candidate's job; please report this.")
    return outcome.job.number


def _last_generation(index: TrialIndex) -> list[Trial]:
    """Return the candidates of the last generation that cost a trial."""
    last = next(index.newest_first(), None)
    same = takewhile(lambda t: last is not None and t.generation == last.generation, index.newest_first())
    return [t for t in same if t.state in ADMITTED]


def _dry(index: TrialIndex) -> int:
    """Return how many of the last proposals in a row were free; no more than what ends a run are counted."""
    newest = islice(index.newest_first(), DRY_BEFORE_END)
    return sum(1 for _ in takewhile(lambda t: t.state not in ADMITTED, newest))


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
