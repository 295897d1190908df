"""A run from wherever it stands to its end, each step carried out by an executor."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from search.evaluation.answers import Evaluator
from search.evaluation.plan import CandidateJob
from search.executors import Executor, Outcome
from search.store import RunStore
from search.study.director import Director
from search.study.problem import Problem
from search.study.profile import Profile, name_of
from search.study.references import References
from search.study.rules import Rules
from search.study.steps import Job, Kind, Step
from search.timing import Phase
from search.types import Study


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


class _Jobs:
    """Jobs of a step; one that has none left may have another after the next outcome, which a generator could not.

    Args:
        jobs: The step's own.
        ahead: Asked when they are given out.
        may_begin: Asked of each before it is given out; where it says no, the step is over.
    """

    def __init__(
        self,
        jobs: Sequence[Job],
        *,
        ahead: Callable[[], CandidateJob | None],
        may_begin: Callable[[Job], bool],
    ) -> None:
        self._own, self._ahead, self._may_begin = list(reversed(jobs)), ahead, may_begin
        self._is_over = False

    def __iter__(self) -> _Jobs:
        return self

    def __next__(self) -> Job:
        if self._is_over:
            raise StopIteration
        if self._own:
            job = self._own.pop()
        else:
            job = self._ahead()
            if job is None:
                raise StopIteration
        self._is_over = not self._may_begin(job)
        if self._is_over:
            raise StopIteration
        return job


class SearchRun:
    """One run of a problem in a folder.

    Args:
        problem: What to search.
        evaluator: Answers about candidates.
        store: The run's record.
        executor: Where the evaluator's jobs run.
        references: What the run is compared with; the evaluator is a `ReferenceEvaluator`, too, where there are any.
        onlooker: Called after each change.
        deadline: `time.monotonic()` after which no new job starts; None for none.
        scalars: Write the course of each training for TensorBoard.
        move: Take all latencies anew where they were taken on another machine than this; otherwise that is refused.
        remeasure: Measure the front's untrusted latencies again at the end, of a finished run, too.
        rules: For how long, what goes first, and what is done about jobs that fail.
        profile: Where this session's time goes, begun by the caller; None for one that begins now.
    """

    def __init__(
        self,
        problem: Problem,
        evaluator: Evaluator,
        store: RunStore,
        executor: Executor,
        *,
        references: References | None = None,
        onlooker: Onlooker = lambda progress: None,
        deadline: float | None = None,
        scalars: bool = False,
        move: bool = False,
        remeasure: bool = False,
        rules: Rules | None = None,
        profile: Profile | None = None,
    ) -> None:
        self.profile = profile or Profile(store, workers=executor.workers)
        self.store, self.executor, self.evaluator = store, executor, evaluator
        self.director = Director(
            problem, store, references=references, scalars=scalars, move=move, remeasure=remeasure, rules=rules
        )
        self._onlooker, self._deadline = onlooker, deadline
        self._running: set[int] = set()

    def run(self) -> Study:
        """Search until a bound of the search or the deadline ends it; return the run as it then stands.

        Raises:
            InputError: If the data or a network to compare with cannot be used, or latencies are of another machine.
        """
        self.director.begin()
        while (step := self.until_training()) is not None:
            self._have_done(step)
        self.profile.keep()
        return self.store.study()

    def until_training(self) -> Step | None:
        """Carry out what comes before the next training, and return that one; None where nothing is left, or no time.

        Raises:
            InputError: If the data cannot be used.
        """
        while not self.is_out_of_time:
            step = self.director.next_step()
            if step is None or step.kind is Kind.TRAIN:
                return step
            self._carry_out(step)
        return None

    def started(self, number: int, phase: str) -> None:
        """Show that a trial is in training."""
        self._running.add(number)
        self.profile.begin(Kind.TRAIN, number)
        self._show(phase)

    def take(self, kind: Kind, outcome: Outcome[Job, Any], phase: str) -> None:
        """Record the answer to a job, and show it.

        Raises:
            InputError: If the data cannot be used.
        """
        if isinstance(outcome.job, CandidateJob):
            self._running.discard(outcome.job.number)
        self.profile.end(kind, outcome)
        with self.store.together(durable=kind is not Kind.ADMIT):
            self.director.take(kind, outcome)
            self.profile.keep_if_due()
        self._show(phase)

    @property
    def is_out_of_time(self) -> bool:
        """Whether no new job is to be started."""
        return self._deadline is not None and time.monotonic() > self._deadline

    @property
    def is_finished(self) -> bool:
        """Whether nothing is left to do under the present number of trials and bounds."""
        return self.director.is_finished

    def _carry_out(self, step: Step) -> None:
        self._show(step.phase)
        match step.kind:
            case Kind.PROPOSE:
                self.profile.propose()
                self.director.propose()
                self.profile.enter(Phase.RECORDING)
            case Kind.SCREEN:
                self.director.screen()
            case Kind.CLOSE:
                self.director.close()
            case Kind.FINISH:
                self.director.finish()
            case _:
                self._have_done(step)

    def _have_done(self, step: Step) -> None:
        """Hand a step's jobs to the workers, and record the answers as they come in."""
        for outcome in self.executor.run(getattr(self.evaluator, step.kind.method), self._started(step)):
            self.take(step.kind, outcome, step.phase)

    def _started(self, step: Step) -> _Jobs:
        """Return jobs, given out as workers fall idle, until the time is up; what may begin ahead after the own."""
        return _Jobs(step.jobs, ahead=lambda: self._ahead(step), may_begin=lambda job: self._begin(step, job))

    def _begin(self, step: Step, job: Job) -> bool:
        """Say whether there is time for a job; show one that is a training."""
        if self.is_out_of_time or (step.kind is Kind.TRAIN and self.director.is_out_of_time):
            return False
        if isinstance(job, CandidateJob) and step.kind in (Kind.TRAIN, Kind.REPLICATE):
            self.started(job.number, step.phase)
        else:
            self.profile.begin(step.kind, name_of(job))
        return True

    def _ahead(self, step: Step) -> CandidateJob | None:
        return self.director.ahead(self._running) if step.kind is Kind.TRAIN else None

    def _show(self, phase: str) -> None:
        self._onlooker(Progress(study=self.store.study(), phase=phase, running=frozenset(self._running)))
