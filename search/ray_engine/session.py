"""A session of Tune: its searcher, its scheduler and its callback, and what the three of them ask."""

from __future__ import annotations

import logging
from collections import deque
from dataclasses import replace
from pathlib import Path
from typing import Any

from ray.tune import Callback, Checkpoint
from ray.tune.experiment import Trial as TuneTrial
from ray.tune.schedulers import TrialScheduler
from ray.tune.search import Searcher

from search.counts import count
from search.evaluation.plan import CandidateJob
from search.executors import Outcome
from search.ray_engine.exchange import Exchange, keep_checkpoint
from search.ray_engine.worker import EARLIER, JOB, OUTCOME
from search.study import Kind, SearchRun
from search.types import EvaluationError, StoreError

log = logging.getLogger("search.ray_engine")

MAX_TRIALS = 500
"""Trials of one session; the driver's memory grows with them (ray#64231), so another session follows."""


class Session:
    """What is to be trained, what is being trained, and what came of it; trials wait for one another at each step.

    Args:
        search: Does everything but the training, and records it.
        exchange: Where checkpoints are exchanged.
        at_once: Trials in training at the same time; None for as many as the cluster has room for.
        retries: Losses of its worker that a trial survives.
        device: Where to train.
        last_rung: Number of the last rung.
        max_trials: After so many trials of Tune, another session is to follow.
    """

    def __init__(
        self,
        search: SearchRun,
        exchange: Exchange,
        *,
        at_once: int | None,
        retries: int,
        device: str,
        last_rung: int,
        max_trials: int,
    ) -> None:
        self.last_rung, self.retries = last_rung, retries
        self.error: Exception | None = None
        self.is_over = self.is_at_end = False
        self._search, self._exchange, self._device = search, exchange, device
        self._at_once, self._max_trials = at_once, max_trials
        self._phase = ""
        self._waiting: deque[CandidateJob] = deque()
        self._out: dict[int, CandidateJob] = {}
        self._reported: dict[int, Outcome[CandidateJob, Any]] = {}
        self._trials: dict[int, TuneTrial] = {}
        self._begun = 0
        self._losses: dict[int, int] = {}

    def __getstate__(self) -> dict[str, Any]:
        """Return nothing: Tune pickles its parts to resume from, and a run resumes from its record alone."""
        return {}

    def advance(self) -> None:
        """When all that was asked for is answered, ask what is to be trained next; other work is done in here.

        Nothing is in training then, so what is measured is measured with nothing else running.
        """
        if self._search.is_out_of_time:
            self._waiting.clear()
        if self.is_over or self._waiting or self._out:
            return
        if self._begun >= self._max_trials:
            self.is_over = True
            return
        step = self._search.until_training()
        if step is None:
            self.is_over = self.is_at_end = True
            return
        self._phase = step.phase
        self._waiting.extend(replace(job, device=self._device) for job in step.jobs if isinstance(job, CandidateJob))

    def next_new(self) -> dict[str, Any] | None:
        """Return the configuration of the next trial that this session does not know yet."""
        job = self._next(paused=False)
        if job is None:
            return None
        self._begun += 1
        checkpoint = Path(job.checkpoint)
        earlier = self._exchange.offer(checkpoint) if checkpoint.is_file() else None
        return {JOB: job, EARLIER: earlier}

    def next_promoted(self) -> TuneTrial | None:
        """Return the next trial that is to go on from where it was paused, its job the next rung."""
        job = self._next(paused=True)
        if job is None:
            return None
        trial = self._trials[job.number]
        trial.set_config({**trial.config, JOB: job})
        return trial

    def know(self, trial: TuneTrial) -> None:
        """Keep a trial of Tune, new or tried again."""
        self._trials[number_of(trial)] = trial

    def started(self, trial: TuneTrial) -> None:
        """Show that a trial is in training."""
        self._search.started(number_of(trial), self._phase)

    def report(self, trial: TuneTrial, outcome: Outcome[CandidateJob, Any]) -> None:
        """Hear what a worker found out; a measurement counts when its checkpoint is there."""
        if outcome.error is not None:
            self._take(number_of(trial), outcome)
        else:
            self._reported[number_of(trial)] = outcome

    def keep(self, trial: TuneTrial, checkpoint: Checkpoint) -> None:
        """Keep a checkpoint, then record the measurement that came with it."""
        outcome = self._reported.pop(number_of(trial), None)
        if outcome is None:
            return
        job = self._out[number_of(trial)]
        try:
            keep_checkpoint(checkpoint, Path(job.checkpoint), None if job.scalars is None else Path(job.scalars))
        except OSError as error:
            self.error = StoreError(
                f"{job.checkpoint}: the checkpoint of trial {job.number} cannot be kept ({error}).\n"
                "  Free space, or mend the way to execution.storage_path, then run again: nothing recorded is lost."
            )
            return
        self._take(job.number, outcome)

    def lost(self, trial: TuneTrial) -> None:
        """Note that a trial's worker is gone; what it reported without a checkpoint does not count."""
        self._reported.pop(number_of(trial), None)
        self._losses[number_of(trial)] = self._losses.get(number_of(trial), 0) + 1
        log.warning("trial=%d worker_lost=%d reason=%r", number_of(trial), self._losses[number_of(trial)], why(trial))

    def given_up(self, trial: TuneTrial) -> None:
        """Take up a trial that Tune gave up, while it has losses left, or record it as failed.

        Tune does not try again where a worker is lost while it is handed over to another trial.
        """
        number = number_of(trial)
        losses = self._losses.get(number, 0)
        if losses <= self.retries:
            self._waiting.appendleft(self._out.pop(number))
            return
        lost = f"its worker was lost {count(losses, 'time')}, execution.retries = {self.retries}"
        reason = f"{lost}; the last time: {why(trial)}"
        self._take(number, Outcome(self._out[number], error=EvaluationError(reason), trace=failures_of(trial)))

    def _next(self, *, paused: bool) -> CandidateJob | None:
        """Take the first waiting job whose trial is, or is not, paused in this session; None where none may start."""
        if self._at_once is not None and len(self._out) >= self._at_once:
            return None
        for job in self._waiting:
            known = self._trials.get(job.number)
            if (known is not None and known.status == TuneTrial.PAUSED) is paused:
                self._waiting.remove(job)
                self._out[job.number] = job
                return job
        return None

    def _take(self, number: int, outcome: Outcome[Any, Any]) -> None:
        """Record what came of a job. What goes wrong ends the session at its next turn: Tune swallows errors here."""
        job = self._out.pop(number)
        try:
            self._search.take(Kind.TRAIN, replace(outcome, job=job), self._phase)
        except Exception as problem:
            self.error = problem


class StudySearcher(Searcher):
    """Hands out what the study wants trained that this session has not begun."""

    def __init__(self, session: Session) -> None:
        super().__init__()
        self._session = session
        self._trials: dict[str, TuneTrial] = {}

    def suggest(self, trial_id: str) -> Any:
        """Return the configuration of a trial, None where there is none now, FINISHED at the end of the session."""
        self._session.advance()
        return Searcher.FINISHED if self._session.is_over else self._session.next_new()

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Do nothing: the scheduler, which knows trials, is told as well."""

    def save(self, checkpoint_path: str) -> None:
        """Say where the state is: in the run's record."""
        Path(checkpoint_path).write_text(
            "The run's record, study.journal, is all that resuming reads.\n", encoding="utf-8"
        )

    def restore(self, checkpoint_path: str) -> None:
        """Do nothing: sessions are not restored."""


class RungScheduler(TrialScheduler):
    """Pauses each trial at its rung until the study promotes it, or the session ends."""

    _supports_buffered_results = False

    def __init__(self, session: Session) -> None:
        super().__init__()
        self._session = session

    def on_trial_add(self, tune_controller: Any, trial: TuneTrial) -> None:
        """Keep a trial that was suggested, or that is tried again."""
        self._session.know(trial)

    def on_trial_result(self, tune_controller: Any, trial: TuneTrial, result: dict[str, Any]) -> str:
        """Pause after a rung, stop after the last one or an error."""
        outcome: Outcome[CandidateJob, Any] = result[OUTCOME]
        self._session.report(trial, outcome)
        ended = outcome.error is not None or outcome.job.rung == self._session.last_rung
        return TrialScheduler.STOP if ended else TrialScheduler.PAUSE

    def choose_trial_to_run(self, tune_controller: Any) -> TuneTrial | None:
        """Return the next promoted trial, else one that waits for a worker; let go who waits in vain.

        Raises:
            Exception: What went wrong in a callback.
        """
        if self._session.error is not None:
            raise self._session.error
        trials = list(tune_controller.get_trials())
        for trial in trials:
            if trial.status == TuneTrial.PAUSED and self._session.is_over:
                tune_controller.stop_trial(trial)
        promoted = self._session.next_promoted()
        if promoted is not None:
            return promoted
        return next((trial for trial in trials if trial.status == TuneTrial.PENDING), None)

    def on_trial_error(self, tune_controller: Any, trial: TuneTrial) -> None:
        """Count the loss of a worker; Tune tries again by itself within the limit."""
        self._session.lost(trial)

    def on_trial_complete(self, tune_controller: Any, trial: TuneTrial, result: dict[str, Any]) -> None:
        """Do nothing: the result was taken when it came."""

    def on_trial_remove(self, tune_controller: Any, trial: TuneTrial) -> None:
        """Do nothing: why a trial was let go stands in the study."""

    def debug_string(self) -> str:
        """Return what Tune would show."""
        return "hfir-search"


class StudyCallback(Callback):
    """Tells the session of starts, checkpoints and trials that were given up."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def on_trial_start(self, iteration: int, trials: list[TuneTrial], trial: TuneTrial, **info: Any) -> None:
        """Show that a trial is in training."""
        self._session.started(trial)

    def on_checkpoint(
        self, iteration: int, trials: list[TuneTrial], trial: TuneTrial, checkpoint: Checkpoint, **info: Any
    ) -> None:
        """Fetch a checkpoint into the run's folder, and record the measurement."""
        self._session.keep(trial, checkpoint)

    def on_trial_error(self, iteration: int, trials: list[TuneTrial], trial: TuneTrial, **info: Any) -> None:
        """Take up, or record as failed, what Tune gave up."""
        self._session.given_up(trial)


def number_of(trial: TuneTrial) -> int:
    """Return the number in the study of a trial of Tune."""
    return trial.config[JOB].number


def failures_of(trial: TuneTrial) -> str:
    """Return what Tune wrote of a trial's failures."""
    path = trial.error_file
    return Path(path).read_text(encoding="utf-8", errors="replace") if path and Path(path).is_file() else ""


def why(trial: TuneTrial) -> str:
    """Return the cause of a trial's last failure, in one line, without Ray's advice."""
    last = failures_of(trial).rpartition("Failure # ")[2]
    lines = [line.strip() for line in last.splitlines()[1:] if line.strip()]
    telling = [line for line in lines if "because" in line or "Error" in line]
    return (telling or lines or ["unknown"])[-1].partition(" Some common causes")[0]
