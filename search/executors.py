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
class Outcome(Generic[J, R]):
    """What became of one job: a value, or the error that it ended in."""

    job: J
    value: R | None = None
    error: BaseException | None = None
    trace: str = ""
    """The traceback of the error, as text."""


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
            try:
                yield Outcome(job, value=function(job))
            except Exception as error:
                yield Outcome(job, error=error, trace=traceback.format_exc())

    def close(self) -> None:
        """Do nothing: there are no workers."""


class ProcessExecutor:
    """Runs jobs in `workers` processes of their own, one job a process at a time.

    Args:
        workers: Processes, >= 1.
        start: Called once in each worker before its first job; importable by name.
        limit_s: For how many seconds a job may run, counted from when its worker takes it up; None for any.
    """

    def __init__(
        self, workers: int, start: Callable[[], None], *, limit_s: Callable[[Any], float | None] = lambda job: None
    ) -> None:
        self.workers = workers
        self._start, self._limit_s = start, limit_s
        self._pool: list[_Worker] = []

    def run(self, function: Callable[[J], R], jobs: Iterable[J]) -> Iterator[Outcome[J, R]]:
        """Yield one outcome a job, in the order of completion.

        A dead worker is its job's WorkerDiedError, one that was ended for taking too long its JobTimeoutError.

        `jobs` is read as workers fall idle, so a generator may decide late, or stop. An iterator that has none left is
        asked again after each outcome, as long as jobs are running.
        """
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
        worker = _Worker(self._start)
        self._pool.append(worker)
        return worker

    def _outcome(self, worker: _Worker, job: J) -> Outcome[J, Any] | None:
        """Return what became of a worker's job; None while it is at work."""
        try:
            while worker.pipe.poll():
                answer = worker.pipe.recv()
                if answer is not BEGUN:
                    value, error, trace = answer
                    return Outcome(job, value=value, error=error, trace=trace)
                worker.begin()
        except (EOFError, OSError):
            self._pool.remove(worker)
            return Outcome(job, error=worker.obituary())
        if worker.is_late:
            self._pool.remove(worker)
            worker.kill()
            return Outcome(job, error=_too_late(worker.limit_s))
        return None


class _Worker:
    """One process and the driver's end of its pipe."""

    def __init__(self, start: Callable[[], None]) -> None:
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self.process: SpawnProcess = context.Process(target=_serve, args=(theirs, start), daemon=True)
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

    def begin(self) -> None:
        """Start the clock: the worker has taken up its job."""
        self.deadline = None if self.limit_s is None else time.monotonic() + self.limit_s

    @property
    def is_late(self) -> bool:
        return self.deadline is not None and time.monotonic() >= self.deadline

    def send(self, function: Callable[[Any], Any], job: Any, limit_s: float | None) -> None:
        self.limit_s, self.deadline = limit_s, None
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


def _serve(pipe: Connection, start: Callable[[], None]) -> None:
    """Answer jobs until the driver closes the pipe; Ctrl-C is the driver's to handle."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_driver, daemon=True).start()
    start()
    while True:
        try:
            function, job = pipe.recv()
        except EOFError:
            return
        pipe.send(BEGUN)
        try:
            answer = (function(job), None, "")
        except Exception as error:
            answer = (None, portable(error), traceback.format_exc())
        pipe.send(answer)


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
