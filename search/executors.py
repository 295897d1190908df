"""Where jobs run: in this process, or in worker processes. Knows nothing of networks.

A pool that breaks as a whole when one worker dies (as those of the standard library do) cannot say whose job killed
it. Here each worker is a process on a pipe of its own: when one dies, exactly its job has failed, and a fresh worker
takes the place; when a job takes longer than it may, exactly its worker is ended. Workers end themselves when the
driver is gone, whatever they are doing, so that no orphan writes into a run that goes on elsewhere.

Workers do not import from the current folder: a user's `types.py` there would stop Python itself from starting.
"""

from __future__ import annotations

import logging
import math
import multiprocessing
import os
import pickle
import signal
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from typing import Any, Generic, Protocol, TypeVar

from search.timing import Work, working
from search.types import EvaluationError, JobTimeoutError, WorkerDiedError, WorkerStartError

log = logging.getLogger("search.executors")

J = TypeVar("J")
R = TypeVar("R")

WORKER_ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "OMP_WAIT_POLICY": "PASSIVE",
    "KMP_BLOCKTIME": "0",
    "KINETO_LOG_LEVEL": "99",
    "PYTHONSAFEPATH": "1",
}
"""One thread a worker, and waiting threads sleep: two spinning ones can slow a busy machine down tenfold.

With PYTHONSAFEPATH Python does not put the current folder on the path of modules.
"""
SLICE_S = 1.0
"""Longest wait while a job has a time limit, so that a suspension of this process is noticed."""
SUSPENDED_S = 1.0
"""A process that is later than this, without having computed, was suspended."""


@dataclass(frozen=True, slots=True)
class Ready:
    """What a worker sends when it has started."""

    starting_s: float


@dataclass(frozen=True, slots=True)
class StartFailed:
    """What a worker sends instead when its start raised an error; then it ends."""

    error: str
    trace: str


@dataclass(frozen=True, slots=True)
class Begun:
    """What a worker sends when it begins a job; `ticket` is the job's number in this worker."""

    ticket: int


@dataclass(frozen=True, slots=True)
class Answer:
    """What a worker sends when a job has ended: its value, or its error with the traceback."""

    ticket: int
    value: Any
    error: Exception | None
    trace: str
    work: Work


@dataclass(frozen=True, slots=True)
class Outcome(Generic[J, R]):
    """What became of one job: a value, or the error that it ended in."""

    job: J
    value: R | None = None
    error: BaseException | None = None
    trace: str = ""
    """The traceback of the error, as text."""
    work: Work | None = None
    """How long it took where it ran; None where that is not known."""
    worker: int | None = None
    """Number of the worker that ran it; None where workers have none."""
    starting_s: float = 0.0
    """How long that worker took to start; told with its first answer only."""


def value_of(outcome: Outcome[J, R]) -> R:
    """Return a job's answer; raises its error where it has none."""
    if outcome.error is not None:
        raise outcome.error
    if outcome.value is None:
        raise EvaluationError("a worker answered with nothing; please report this.")
    return outcome.value


class Executor(Protocol):
    """Runs `function(job)` for each job and yields the outcomes as they come in."""

    workers: int

    def run(self, function: Callable[[J], R], jobs: Iterable[J]) -> Iterator[Outcome[J, R]]:
        """Yield one outcome a job, in the order of completion; an error of a job is its outcome."""
        ...

    def close(self) -> None:
        """End the workers, whatever they are doing."""
        ...


class InlineExecutor:
    """Runs jobs one after the other in this process: the reference, and handy under a debugger. Knows no time limit."""

    workers = 1

    def run(self, function: Callable[[J], R], jobs: Iterable[J]) -> Iterator[Outcome[J, R]]:
        """Yield one outcome a job, in the order of the jobs."""
        for job in jobs:
            value, error, trace, work = _answer(function, job)
            yield Outcome(job, value=value, error=error, trace=trace, work=work, worker=0)

    def close(self) -> None:
        """Do nothing: there are no workers."""


class ProcessExecutor:
    """Runs jobs in `workers` processes of their own, one job a process at a time.

    Workers start when they are first needed, or ahead by `start`. Only the first `run` goes on beside workers that are
    still starting: what is measured later is measured with nothing else of ours running.

    Args:
        workers: Processes, >= 1.
        start: Called once in each worker before its first job; importable by name.
        limit_s: For how many seconds a job may run, counted from when its worker takes it up; None for any.
    """

    def __init__(
        self, workers: int, start: Callable[[], None], *, limit_s: Callable[[Any], float | None] = lambda job: None
    ) -> None:
        self.workers = workers
        self._prepare, self._limit_s = start, limit_s
        self._pool: list[_Worker] = []
        self._runs = 0
        self._clock = AwakeClock()

    def start(self) -> None:
        """Begin to start all workers, and do not wait for them: they import while the driver does."""
        while len(self._pool) < self.workers:
            self._add()

    def run(self, function: Callable[[J], R], jobs: Iterable[J]) -> Iterator[Outcome[J, R]]:
        """Yield one outcome a job, in the order of completion.

        A dead worker is its job's WorkerDiedError, one that was ended for taking too long its JobTimeoutError.

        `jobs` is read as workers fall idle, so a generator may decide late, or stop. An iterator that has none left is
        asked again after each outcome, as long as jobs are running. Jobs that still run when the iteration is
        abandoned, or when `run` is called again, are ended with their workers.

        Raises:
            WorkerStartError: If a worker could not start, so that no job can run.
        """
        if self._runs:
            self._settle()
        self._runs += 1
        this_run = self._runs
        for worker in [w for w in self._pool if w.is_busy]:
            self._end(worker)
        waiting = iter(jobs)
        busy: dict[Connection, tuple[_Worker, J]] = {}
        try:
            while True:
                for job in islice(waiting, self.workers - len(busy)):
                    worker = self._idle()
                    busy[worker.pipe] = (worker, job)
                    worker.send(function, job, self._limit_s(job))
                if not busy:
                    return
                self._wait([worker for worker, _ in busy.values()])
                for pipe, (worker, job) in list(busy.items()):
                    outcome = self._outcome(worker, job)
                    if outcome is not None:
                        del busy[pipe]
                        yield outcome
                        if self._runs != this_run:
                            raise RuntimeError("a later run() of the same executor has ended the jobs of this one.")
        finally:
            for worker, _ in busy.values():
                self._end(worker)

    def close(self) -> None:
        """Kill the workers."""
        for worker in self._pool:
            worker.kill()
        self._pool.clear()

    def _wait(self, busy: list[_Worker]) -> None:
        """Wait for a message, or until the first job may be late; then move the clock on."""
        deadlines = [worker.deadline for worker in busy if worker.deadline is not None]
        longest = min(SLICE_S, max(0.0, min(deadlines) - self._clock.now)) if deadlines else None
        wait([worker.pipe for worker in busy], timeout=longest)
        self._clock.advance(math.inf if longest is None else longest)

    def _end(self, worker: _Worker) -> None:
        """Kill a worker; another takes its place when needed."""
        if worker in self._pool:
            self._pool.remove(worker)
        worker.kill()

    def _idle(self) -> _Worker:
        return next((worker for worker in self._pool if not worker.is_busy), None) or self._add()

    def _add(self) -> _Worker:
        """Return a new worker, with the lowest number that is free."""
        taken = {worker.number for worker in self._pool}
        worker = _Worker(next(n for n in range(self.workers) if n not in taken), self._prepare)
        self._pool.append(worker)
        return worker

    def _settle(self) -> None:
        """Wait until no worker is starting; one that died at it is forgotten, another takes its place when needed."""
        for worker in [w for w in self._pool if w.is_starting]:
            try:
                worker.hear(worker.pipe.recv(), self._clock.now)
            except (EOFError, OSError, WorkerStartError):
                self._end(worker)

    def _outcome(self, worker: _Worker, job: J) -> Outcome[J, Any] | None:
        """Return what became of a worker's job; None while it is at work."""
        try:
            while worker.pipe.poll():
                answer = worker.hear(worker.pipe.recv(), self._clock.now)
                if answer is not None:
                    return worker.outcome(job, answer.work, value=answer.value, error=answer.error, trace=answer.trace)
        except (EOFError, OSError):
            error = worker.death_error()
            self._end(worker)
            return worker.outcome(job, worker.work, error=error)
        if worker.deadline is not None and self._clock.now >= worker.deadline:
            self._end(worker)
            return worker.outcome(job, worker.work, error=_too_late(worker.limit_s))
        return None


class AwakeClock:
    """Seconds in which this process was not suspended (by SIGSTOP, Ctrl-Z, or with its container).

    Between two readings a process sleeps for as long as it asked for, and computes. Where clearly more time has passed,
    it was suspended for the rest, and its workers with it as a rule.

    Args:
        wall: Seconds from any point on.
        cpu: Seconds for which this process has computed.
    """

    def __init__(
        self, wall: Callable[[], float] = time.monotonic, cpu: Callable[[], float] = time.process_time
    ) -> None:
        self._wall, self._cpu = wall, cpu
        self._last = wall(), cpu()
        self.now = 0.0

    def advance(self, slept_s: float) -> None:
        """Move on to the present moment.

        Args:
            slept_s: The longest time that was waited for since the last call.
        """
        last_wall, last_cpu = self._last
        self._last = self._wall(), self._cpu()
        passed, explained = self._last[0] - last_wall, slept_s + self._last[1] - last_cpu
        self.now += passed if passed <= explained + SUSPENDED_S else explained


class _Worker:
    """One process and the driver's end of its pipe.

    Args:
        number: Of the worker, from 0.
        start: Called once before its first job.
    """

    def __init__(self, number: int, start: Callable[[], None]) -> None:
        self.number = number
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self.process: SpawnProcess = context.Process(
            target=_serve, args=(theirs, pickle.dumps(start), time.time()), daemon=True
        )
        before = {name: os.environ.get(name) for name in WORKER_ENVIRONMENT}
        os.environ.update(WORKER_ENVIRONMENT)
        try:
            self.process.start()
        finally:
            for name, value in before.items():
                if value is None:
                    del os.environ[name]
                else:
                    os.environ[name] = value
        theirs.close()
        self.limit_s: float | None = None
        self.deadline: float | None = None
        """By the executor's clock; None where the job has no limit, or has not begun."""
        self.is_starting, self.is_busy = True, False
        self._starting_s = 0.0
        self._ticket = 0
        self._begun: float | None = None

    def hear(self, message: Ready | StartFailed | Begun | Answer, now: float) -> Answer | None:
        """Note what a worker says at a time of the executor's clock; return the answer to its present job, if it is.

        Raises:
            WorkerStartError: If the worker could not start.
        """
        match message:
            case Ready():
                self.is_starting, self._starting_s = False, message.starting_s
            case StartFailed():
                log.error("worker=%d could not start:\n%s", self.number, message.trace)
                raise WorkerStartError(
                    f"a worker process could not start: {message.error}\n"
                    "  No candidate is at fault, and none was tried in this process. Its traceback is in the log. "
                    "Repair the installation, then rerun the same command."
                )
            case Begun(ticket) if ticket == self._ticket:
                self._begun = time.monotonic()
                self.deadline = None if self.limit_s is None else now + self.limit_s
            case Answer(ticket) if ticket == self._ticket:
                self.is_busy = False
                return message
            case _:
                pass  # about an earlier job
        return None

    @property
    def work(self) -> Work:
        """What is known of a job that has no answer: for how long the worker was at it."""
        return Work(busy_s=0.0 if self._begun is None else time.monotonic() - self._begun)

    def outcome(self, job: J, work: Work, **became: Any) -> Outcome[J, Any]:
        """Return what became of a job; how long the worker took to start is told once."""
        starting_s, self._starting_s = self._starting_s, 0.0
        return Outcome(job, work=work, worker=self.number, starting_s=starting_s, **became)

    def send(self, function: Callable[[Any], Any], job: Any, limit_s: float | None) -> None:
        self.limit_s, self.deadline, self._begun = limit_s, None, None
        self.is_busy = True
        self._ticket += 1
        with suppress(BrokenPipeError, ConnectionResetError):  # a dead worker is noticed when it is read from
            self.pipe.send((self._ticket, pickle.dumps((function, job))))

    def kill(self) -> None:
        self.process.kill()
        self.process.join()
        self.pipe.close()

    def death_error(self) -> WorkerDiedError:
        """Return why the process ended by itself, as its job's error.

        Raises:
            WorkerStartError: If it ended while it was starting, and not for lack of memory.
        """
        self.process.join(timeout=5)
        code = self.process.exitcode
        cause = f"signal {signal.Signals(-code).name}" if code is not None and code < 0 else f"exit code {code}"
        killed = cause == "signal SIGKILL"
        if self.is_starting and not killed:
            raise WorkerStartError(
                f"a worker process ended ({cause}) while it was starting.\n"
                "  No candidate is at fault. Its last lines on standard error say why. "
                'A Python script that starts workers does so under `if __name__ == "__main__":`.'
            )
        if killed:
            advice = "Out of memory is the usual cause: lower proxy.batch, proxy.patch_px or execution.workers."
        else:
            advice = "Its last lines on standard error say why."
        return WorkerDiedError(
            f"the worker process died ({cause}) while it worked on this candidate. {advice}", killed=killed
        )


def _too_late(limit_s: float | None) -> JobTimeoutError:
    return JobTimeoutError(
        f"not done after {limit_s or 0:.4g} s, so the worker was ended. Where it was slow and not stuck, "
        "raise execution.timeout_s."
    )


def _serve(pipe: Connection, start: bytes, asked_for: float) -> None:
    """Answer jobs until the driver closes the pipe; Ctrl-C is the driver's to handle.

    What the driver sends is unpickled here, where an import that fails is an error to report and not the end.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_driver, daemon=True).start()
    try:
        pickle.loads(start)()
    except (Exception, SystemExit) as error:
        pipe.send(StartFailed(f"{type(error).__name__}: {error}", traceback.format_exc()))
        raise SystemExit(1) from None
    pipe.send(Ready(time.time() - asked_for))
    while True:
        try:
            ticket, pickled = pipe.recv()
        except EOFError:
            return
        pipe.send(Begun(ticket))
        value, error, trace, work = _answer(_call, pickled)
        if error is not None:
            error = portable(error)
        try:
            pipe.send(Answer(ticket, value, error, trace, work))
        except (pickle.PicklingError, AttributeError, TypeError) as problem:
            unsendable = EvaluationError(f"the result cannot be sent to the driver ({problem}).")
            pipe.send(Answer(ticket, None, unsendable, traceback.format_exc(), work))


def _call(pickled: bytes) -> Any:
    function, job = pickle.loads(pickled)
    return function(job)


def _answer(function: Callable[[J], R], job: J) -> tuple[R | None, Exception | None, str, Work]:
    """Return a job's value, or its error with the traceback, and how long it took."""
    with working() as work:
        try:
            return function(job), None, "", work
        except SystemExit as error:
            return None, EvaluationError(f"the job called sys.exit({error.code!r})."), traceback.format_exc(), work
        except Exception as error:
            return None, error, traceback.format_exc(), work


def _end_with_driver() -> None:
    driver = multiprocessing.parent_process()
    if driver is not None:
        wait([driver.sentinel])
        os._exit(1)


def portable(error: Exception) -> Exception:
    """Return the error, or its text where it does not survive pickling."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return EvaluationError(f"{type(error).__name__}: {error}")
    return error
