"""Where jobs run: in this process, or in worker processes. Knows nothing of networks.

A pool that breaks as a whole when one worker dies (as those of the standard library do) cannot say whose job killed
it. Here each worker is a process on a pipe of its own: when one dies, exactly its job has failed, and a fresh worker
takes the place; when a job takes longer than it may, exactly its worker is ended. Workers end themselves when the
driver is gone, whatever they are doing, so that no orphan writes into a run that goes on elsewhere.
"""

from __future__ import annotations

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
from search.types import EvaluationError, JobTimeoutError, WorkerDiedError

J = TypeVar("J")
R = TypeVar("R")

WORKER_ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "OMP_WAIT_POLICY": "PASSIVE",
    "KMP_BLOCKTIME": "0",
    "KINETO_LOG_LEVEL": "99",
}
"""One thread a worker, and waiting threads sleep: two spinning ones can slow a busy machine down tenfold."""


BEGUN = None
"""What a worker sends when it takes up a job."""


@dataclass(frozen=True, slots=True)
class Ready:
    """What a worker sends when it has started."""

    starting_s: float


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
        self._has_run = False

    def start(self) -> None:
        """Begin to start all workers, and do not wait for them: they import while the driver does."""
        while len(self._pool) < self.workers:
            self._add()

    def run(self, function: Callable[[J], R], jobs: Iterable[J]) -> Iterator[Outcome[J, R]]:
        """Yield one outcome a job, in the order of completion.

        A dead worker is its job's WorkerDiedError, one that was ended for taking too long its JobTimeoutError.

        `jobs` is read as workers fall idle, so a generator may decide late, or stop. An iterator that has none left is
        asked again after each outcome, as long as jobs are running.
        """
        if self._has_run:
            self._settle()
        self._has_run = True
        waiting = iter(jobs)
        busy: dict[Connection, tuple[_Worker, J]] = {}
        while True:
            for job in islice(waiting, self.workers - len(busy)):
                worker = self._idle({w for w, _ in busy.values()})
                worker.send(function, job, self._limit_s(job))
                busy[worker.pipe] = (worker, job)
            if not busy:
                return
            wait(list(busy), timeout=_soonest([worker for worker, _ in busy.values()]))
            for pipe, (worker, job) in list(busy.items()):
                outcome = self._outcome(worker, job)
                if outcome is not None:
                    del busy[pipe]
                    yield outcome

    def close(self) -> None:
        """Kill the workers."""
        for worker in self._pool:
            worker.kill()
        self._pool.clear()

    def _idle(self, busy: set[_Worker]) -> _Worker:
        for worker in self._pool:
            if worker not in busy:
                return worker
        return self._add()

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
                worker.hear(worker.pipe.recv())
            except (EOFError, OSError):
                self._pool.remove(worker)
                worker.kill()

    def _outcome(self, worker: _Worker, job: J) -> Outcome[J, Any] | None:
        """Return what became of a worker's job; None while it is at work."""
        try:
            while worker.pipe.poll():
                answer = worker.hear(worker.pipe.recv())
                if answer is not None:
                    value, error, trace, work = answer
                    return worker.outcome(job, work, value=value, error=error, trace=trace)
        except (EOFError, OSError):
            self._pool.remove(worker)
            return worker.outcome(job, worker.work, error=worker.obituary())
        if worker.is_late:
            self._pool.remove(worker)
            worker.kill()
            return worker.outcome(job, worker.work, error=_too_late(worker.limit_s))
        return None


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
        self.process: SpawnProcess = context.Process(target=_serve, args=(theirs, start, time.time()), daemon=True)
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
        """By `time.monotonic()`; None where the job has no limit, or was not taken up yet."""
        self.is_starting = True
        self._starting_s = 0.0
        self._begun: float | None = None

    def hear(self, message: Any) -> Any:
        """Note that the worker has started, or taken up its job; return an answer, None where the message is none."""
        if isinstance(message, Ready):
            self.is_starting, self._starting_s = False, message.starting_s
        elif message is BEGUN:
            self._begun = time.monotonic()
            self.deadline = None if self.limit_s is None else self._begun + self.limit_s
        else:
            return message
        return None

    @property
    def work(self) -> Work:
        """What is known of a job that has no answer: for how long the worker was at it."""
        return Work(busy_s=0.0 if self._begun is None else time.monotonic() - self._begun)

    def outcome(self, job: J, work: Work, **became: Any) -> Outcome[J, Any]:
        """Return what became of a job; how long the worker took to start is told once."""
        starting_s, self._starting_s = self._starting_s, 0.0
        return Outcome(job, work=work, worker=self.number, starting_s=starting_s, **became)

    @property
    def is_late(self) -> bool:
        return self.deadline is not None and time.monotonic() >= self.deadline

    def send(self, function: Callable[[Any], Any], job: Any, limit_s: float | None) -> None:
        self.limit_s, self.deadline, self._begun = limit_s, None, None
        with suppress(BrokenPipeError, ConnectionResetError):  # a dead worker is noticed when it is read from
            self.pipe.send((function, job))

    def kill(self) -> None:
        self.process.kill()
        self.process.join()
        self.pipe.close()

    def obituary(self) -> WorkerDiedError:
        self.process.join(timeout=5)
        code = self.process.exitcode
        cause = f"signal {signal.Signals(-code).name}" if code is not None and code < 0 else f"exit code {code}"
        return WorkerDiedError(
            f"the worker process died ({cause}) while it worked on this candidate. "
            "Out of memory is the usual cause: lower proxy.batch, proxy.patch_px or execution.workers.",
            killed=cause == "signal SIGKILL",
        )


def _soonest(workers: Iterable[_Worker]) -> float | None:
    """Return the seconds until the first worker is late; None where none can be."""
    deadlines = [worker.deadline for worker in workers if worker.deadline is not None]
    return max(0.0, min(deadlines) - time.monotonic()) if deadlines else None


def _too_late(limit_s: float | None) -> JobTimeoutError:
    return JobTimeoutError(
        f"not done after {limit_s or 0:.4g} s, so the worker was ended. Where it was slow and not stuck, "
        "raise execution.timeout_s."
    )


def _serve(pipe: Connection, start: Callable[[], None], asked_for: float) -> None:
    """Answer jobs until the driver closes the pipe; Ctrl-C is the driver's to handle."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_driver, daemon=True).start()
    start()
    pipe.send(Ready(time.time() - asked_for))
    while True:
        try:
            function, job = pipe.recv()
        except EOFError:
            return
        pipe.send(BEGUN)
        value, error, trace, work = _answer(function, job)
        pipe.send((value, None if error is None else portable(error), trace, work))


def _answer(function: Callable[[J], R], job: J) -> tuple[R | None, Exception | None, str, Work]:
    """Return a job's value, or its error with the traceback, and how long it took."""
    with working() as work:
        try:
            return function(job), None, "", work
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
