"""The search: propose, measure, hold against the budget, train by rungs, record, tell; until the trials are spent.

The run is a function of its records. Each step looks at what the store holds and does what is missing, so a run that
was stopped anywhere, by whatever, goes on from there.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import optuna

from hfir.config import HFIRConfig
from hfir.errors import ConfigError
from search.evaluation.evaluator import Baseline, admit, look_at_data, remeasure, train
from search.evaluation.plan import CandidateJob, EvaluationPlan
from search.executors import Executor, Outcome
from search.experiment import Experiment
from search.pareto import pareto_front
from search.samplers import GivenPoint, build_sampler, proposal_seed, propose
from search.schedulers import by_levels, one_stratum, promotions
from search.store import RunStore
from search.types import (
    Cost,
    EvaluationError,
    Genotype,
    InputError,
    Measurement,
    Study,
    Trial,
    TrialState,
    stable_hash,
    to_json,
)

J = TypeVar("J")
R = TypeVar("R")

log = logging.getLogger(__name__)

DRY_BEFORE_RANDOM = 40
"""After so many free proposals in a row the sampler is stuck, and points are drawn at random."""
DRY_BEFORE_END = 500
"""After so many, the budget leaves nothing to train."""
SMALL_SPACE = 20_000
"""Spaces up to this size are enumerated to find what was not yet considered."""

ADMITTED = (TrialState.RUNNING, TrialState.COMPLETE, TrialState.STOPPED, TrialState.FAILED)
"""States that cost one of `search.trials`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """What an onlooker is shown after each change.

    Args:
        study: The run as it stands.
        phase: What goes on, in words.
        running: Numbers of the trials that are in training.
    """

    study: Study
    phase: str
    running: frozenset[int]


Onlooker = Callable[[Progress], None]


class SearchRun:
    """One run of an experiment in a folder, from wherever it stands to its end.

    Args:
        experiment: What to search.
        store: The run's record.
        executor: Where measuring and training take place.
        onlooker: Called after each change.
        deadline: `time.monotonic()` after which no new job starts; None for none.
        remeasure: Take latencies anew even where this machine remembers them.
        scalars: Write the course of each training for TensorBoard.
    """

    def __init__(
        self,
        experiment: Experiment,
        store: RunStore,
        executor: Executor,
        *,
        onlooker: Onlooker = lambda progress: None,
        deadline: float | None = None,
        remeasure: bool = False,
        scalars: bool = False,
    ) -> None:
        self.experiment, self.store, self.executor = experiment, store, executor
        plan = experiment.evaluation_plan()
        self.plan: EvaluationPlan = replace(plan, cost=replace(plan.cost, remeasure=remeasure))
        self._onlooker, self._deadline, self._scalars = onlooker, deadline, scalars
        self._phase = "starting"
        self._running: set[int] = set()

    def run(self) -> Study:
        """Search until the trials, the space or the time are spent; return the run as it then stands.

        Raises:
            InputError: If the data cannot be used.
        """
        lost = self.store.close_lost_proposals()
        if lost:
            log.info("study=%s lost_proposals=%d", self.experiment.name, lost)
        self._look_at_data()
        if self._is_closed(self.store.study()):  # an earlier driver was stopped after it had filled this generation
            self._train_generation()
        more = True
        while more and not self._out_of_time():
            more = self._fill_generation()
            self._train_generation()
        if not self._out_of_time():
            self._stop_the_rest()
            self._verify_front()
        return self.store.study()

    @property
    def is_finished(self) -> bool:
        """Whether nothing is left to do under the present number of trials."""
        return int(self.store.study().facts.get("finished", 0)) >= self.experiment.search.trials

    # -- proposing ---------------------------------------------------------------------------------

    def _fill_generation(self) -> bool:
        """Propose until the generation has its candidates; return whether there may be another one."""
        study = self.store.study()
        last = study.trials[-1].generation if study.trials else 0
        generation = last + 1 if self._is_closed(study) else last
        while not self._out_of_time():
            study = self.store.study()
            unmeasured = [t for t in study.in_state(TrialState.RUNNING) if t.cost is None]
            if unmeasured:
                self._admit(unmeasured[0])
            elif len(_admitted_in(study, generation)) >= self.experiment.search.generation:
                return True
            elif self._spent(study):
                return False
            elif reason := self._nothing_left(study):
                self.store.note("ended_early", reason)
                log.warning("study=%s ended_early=%r", self.experiment.name, reason)
                return False
            else:
                self._propose(study, generation)
        return True

    def _is_closed(self, study: Study) -> bool:
        """Say whether the last generation has all its candidates, so that they may be trained."""
        if not study.trials:
            return False
        members = _admitted_in(study, study.trials[-1].generation)
        full = len(members) >= self.experiment.search.generation
        return full or self._spent(study) or any(t.measurements for t in members)

    def _spent(self, study: Study) -> bool:
        return len(study.in_state(*ADMITTED)) >= self.experiment.search.trials

    def _nothing_left(self, study: Study) -> str:
        if len({t.key for t in study.trials}) >= self.experiment.space.size:
            return f"all {self.experiment.space.size} points of the space were considered"
        if self._dry(study) >= DRY_BEFORE_END:
            return f"the last {DRY_BEFORE_END} proposals were all over the budget, illegal or duplicates"
        return ""

    def _dry(self, study: Study) -> int:
        """Return how many of the last proposals in a row were free."""
        dry = 0
        for trial in reversed(study.trials):
            if trial.state in ADMITTED:
                break
            dry += 1
        return dry

    def _propose(self, study: Study, generation: int) -> None:
        """Ask for one candidate and record it; illegal and repeated ones are told at once and cost nothing."""
        self._show("proposing")
        index, seed = len(study.trials), self.experiment.search.seed
        self.store.optuna.sampler = self._sampler(study, index)
        trial, genotype = propose(self.store.optuna, self.experiment.space)
        config, fault = self._decode(genotype)
        number = self.store.record_proposal(
            trial,
            genotype=genotype,
            seed=proposal_seed(seed, index, purpose=1),
            generation=generation,
            config=None if config is None else config.to_dict(),
        )
        twin = _twin(study, genotype, config)
        if twin is not None:
            self.store.finish(number, TrialState.DUPLICATE, reason=f"same network as trial {twin}")
        elif config is None:
            self.store.finish(number, TrialState.INFEASIBLE, reason=fault, constraint="legal")

    def _sampler(self, study: Study, index: int) -> optuna.samplers.BaseSampler:
        """Return the sampler for the next proposal; a stuck one gives way to chance."""
        space, search = self.experiment.space, self.experiment.search
        seed = proposal_seed(search.seed, index)
        if self._dry(study) < DRY_BEFORE_RANDOM:
            front = [t.genotype for t in pareto_front(study.trials, self.experiment.objectives).members]
            return build_sampler(search.sampler, seed=seed, index=index, space=space, front=front)
        if space.size <= SMALL_SPACE:
            seen = {t.key for t in study.trials}
            unseen = [g for g in space.enumerate() if g.key not in seen]
            return GivenPoint(unseen[seed % len(unseen)])
        return GivenPoint(space.sample(seed))

    def _decode(self, genotype: Genotype) -> tuple[HFIRConfig | None, str]:
        try:
            return self.experiment.decode(genotype), ""
        except ConfigError as error:
            return None, str(error).splitlines()[0]

    # -- the budget gate ---------------------------------------------------------------------------

    def _admit(self, trial: Trial) -> None:
        """Measure one candidate with nothing else running, and reject it where it is over a limit."""
        self._show(f"measuring trial {trial.number}")
        [outcome] = self.executor.run(partial(admit, self.plan), [self._job(trial, rung=0)])
        if outcome.error is not None:
            self._fail(trial, outcome)
            return
        admission = _value(outcome)
        self.store.record_cost(trial.number, admission.cost, admission.margins)
        doubt = _doubt(admission.cost)
        if doubt:
            log.warning("study=%s trial=%d %s", self.experiment.name, trial.number, doubt)
        if admission.reason:
            reason = f"{admission.reason} ({doubt})" if doubt else admission.reason
            self.store.finish(trial.number, TrialState.INFEASIBLE, reason=reason)
        log.info("study=%s trial=%d rejected=%r", self.experiment.name, trial.number, admission.reason)

    # -- training ----------------------------------------------------------------------------------

    def _train_generation(self) -> None:
        """Train what waits for its first rung, then whatever each rung promotes."""
        fresh = [
            t for t in self.store.study().in_state(TrialState.RUNNING) if t.cost is not None and not t.measurements
        ]
        self._train(fresh, rung=0)
        proxy, predictor = self.experiment.proxy, self.experiment.predictor
        for rung in range(len(proxy.rungs) - 1):
            chosen = promotions(
                self.store.study().trials,
                rung=rung,
                keep=proxy.keep,
                objectives=self.experiment.objectives,
                stratum=by_levels if proxy.rank_by == "within_strata" else one_stratum,
                expected_psnr_db=predictor.predict if predictor is not None else None,
            )
            self._train(chosen, rung=rung + 1)

    def _train(self, trials: Sequence[Trial], rung: int) -> None:
        """Train candidates through a rung in parallel, the slowest first; record each as it comes in."""
        self._phase = f"training to step {self.experiment.proxy.rungs[rung]}"
        by_number = {t.number: t for t in trials}
        slowest_first = sorted(trials, key=lambda t: -(t.value("latency_ms") or 0.0))
        for outcome in self.executor.run(partial(train, self.plan), self._started(slowest_first, rung)):
            trial = by_number[outcome.job.number]
            self._running.discard(trial.number)
            if outcome.error is not None:
                self._fail(trial, outcome)
            else:
                self._record(trial, _value(outcome))
            self._show(self._phase)

    def _started(self, trials: Sequence[Trial], rung: int) -> Iterator[CandidateJob]:
        """Yield jobs as workers fall idle, until the time is up."""
        for trial in trials:
            if self._out_of_time():
                return
            self._running.add(trial.number)
            self._show(self._phase)
            yield self._job(trial, rung=rung)

    def _record(self, trial: Trial, measurement: Measurement) -> None:
        self.store.record_measurement(trial, measurement)
        if measurement.rung == len(self.experiment.proxy.rungs) - 1:
            done = replace(trial, measurements=(*trial.measurements, measurement))
            values = [_known(done, objective) for objective in self.experiment.objectives]
            self.store.finish(trial.number, TrialState.COMPLETE, values=values, reason=_doubt(trial.cost))
        log.info(
            "study=%s trial=%d step=%d psnr_db=%.3f elapsed_s=%.1f",
            self.experiment.name,
            trial.number,
            measurement.step,
            measurement.psnr_db,
            measurement.elapsed_s,
        )

    def _fail(self, trial: Trial, outcome: Outcome[CandidateJob, Any]) -> None:
        """Record a crash or a divergence; the run goes on."""
        if isinstance(outcome.error, InputError):
            raise outcome.error
        reason = str(outcome.error).splitlines()[0] if str(outcome.error) else repr(outcome.error)
        log.warning("study=%s trial=%d state=FAILED reason=%r", self.experiment.name, trial.number, reason)
        failure = outcome.trace or str(outcome.error)
        self.store.finish(trial.number, TrialState.FAILED, reason=reason, failure=failure)

    # -- beginning and end -------------------------------------------------------------------------

    def _look_at_data(self) -> None:
        """Load the data once before anything is spent, and keep what the run is compared with."""
        self._show("loading photographs")
        [outcome] = self.executor.run(look_at_data, [self.plan])
        if outcome.error is not None:
            raise outcome.error
        baseline: Baseline = _value(outcome)
        for note in baseline.notes:
            log.info("study=%s data=%r", self.experiment.name, note)
        if "baseline" not in self.store.study().facts:
            self.store.note("baseline", asdict(baseline))

    def _stop_the_rest(self) -> None:
        """Tell off the candidates that no rung promoted."""
        for trial in self.store.study().in_state(TrialState.RUNNING):
            last = trial.last
            where = "before its first rung" if last is None else f"after {last.step} steps"
            self.store.finish(trial.number, TrialState.STOPPED, reason=f"not promoted, stopped {where}")

    def _verify_front(self) -> None:
        """Measure the front's members again; one that misses a limit now is withdrawn, and the next take its place."""
        while True:
            study = self.store.study()
            verified = dict(study.facts.get("verified", {}))
            members = pareto_front(study.trials, self.experiment.objectives).members
            waiting = [t for t in members if str(t.number) not in verified]
            if not waiting:
                break
            for trial in waiting:
                self._show(f"measuring trial {trial.number} of the front again")
                self._verify(trial, verified)
        self.store.note("finished", self.experiment.search.trials)
        self._show("done")

    def _verify(self, trial: Trial, verified: dict[str, object]) -> None:
        again = replace(self.plan, cost=replace(self.plan.cost, remeasure=True))
        [outcome] = self.executor.run(partial(remeasure, again), [self._job(trial, rung=0)])
        if outcome.error is not None:
            raise outcome.error
        admission = _value(outcome)
        verified[str(trial.number)] = to_json(admission.cost)
        doubt = _doubt(admission.cost)
        if doubt:
            log.warning("study=%s trial=%d measured_again=%r", self.experiment.name, trial.number, doubt)
        elif admission.reason:
            withdrawn = dict(self.store.study().facts.get("withdrawn", {}))
            withdrawn[str(trial.number)] = f"measured again at the end: {admission.reason}"
            self.store.note("withdrawn", withdrawn)
        self.store.note("verified", verified)

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

    def _out_of_time(self) -> bool:
        return self._deadline is not None and time.monotonic() > self._deadline

    def _show(self, phase: str) -> None:
        self._phase = phase
        self._onlooker(Progress(study=self.store.study(), phase=phase, running=frozenset(self._running)))


def checkpoint_path(folder: Path, number: int) -> Path:
    """Return where a trial's training is kept."""
    return folder / "checkpoints" / f"{number:05d}.pt"


def scalars_path(folder: Path, number: int) -> Path:
    """Return where the TensorBoard scalars of a trial's training are kept."""
    return folder / "tensorboard" / f"trial-{number:04d}"


def _admitted_in(study: Study, generation: int) -> list[Trial]:
    return [t for t in study.in_state(*ADMITTED) if t.generation == generation]


def _twin(study: Study, genotype: Genotype, config: HFIRConfig | None) -> int | None:
    """Return the earlier trial with the same genotype or the same network, if any."""
    fingerprint = None if config is None else stable_hash(config.to_dict())
    for trial in study.trials:
        same_network = trial.config is not None and stable_hash(dict(trial.config)) == fingerprint
        if trial.key == genotype.key or same_network:
            return trial.number
    return None


def _value(outcome: Outcome[J, R]) -> R:
    if outcome.value is None:
        raise EvaluationError("a worker answered with nothing; please report this.") from outcome.error
    return outcome.value


def _doubt(cost: Cost | None) -> str:
    """Return why a candidate's latency is not to be trusted, if so."""
    return "" if cost is None or cost.latency is None else cost.latency.doubt


def _known(trial: Trial, objective: str) -> float:
    value = trial.value(objective)
    if value is None:
        raise EvaluationError(f"trial {trial.number} completed without a figure for {objective}; please report this.")
    return value
