from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator

import pytest

from search.executors import Executor, InlineExecutor, ProcessExecutor
from search.types import EvaluationError, SpecError


def nothing() -> None:
    return None


def square(x: int) -> int:
    return x * x


def refuse_two(x: int) -> int:
    if x == 2:
        raise SpecError("two", remedy="use another", source="here.yaml", line=7)
    return x


def die_on_two(x: int) -> int:
    if x == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    return x


class Unpicklable(Exception):
    def __init__(self, a: int, b: int) -> None:
        super().__init__(f"{a} and {b}")


def raise_unpicklable(x: int) -> int:
    raise Unpicklable(x, x)


def environment(x: str) -> str | None:
    return os.environ.get(x)


@pytest.fixture(params=["inline", "one process", "two processes"])
def executor(request: pytest.FixtureRequest) -> Iterator[Executor]:
    kinds = {
        "inline": InlineExecutor,
        "one process": lambda: ProcessExecutor(1, nothing),
        "two processes": lambda: ProcessExecutor(2, nothing),
    }
    made = kinds[request.param]()
    yield made
    made.close()


@pytest.fixture
def processes() -> Iterator[ProcessExecutor]:
    made = ProcessExecutor(2, nothing)
    yield made
    made.close()


def test_every_job_has_one_outcome(executor: Executor):
    outcomes = {o.job: o.value for o in executor.run(square, range(5))}
    assert outcomes == {0: 0, 1: 1, 2: 4, 3: 9, 4: 16}


def test_an_error_is_the_outcome_of_its_job_alone(executor: Executor):
    outcomes = {o.job: o for o in executor.run(refuse_two, [1, 2, 3])}
    assert (outcomes[1].value, outcomes[3].value) == (1, 3)
    error = outcomes[2].error
    assert isinstance(error, SpecError)
    assert (error.line, error.remedy) == (7, "use another")
    assert "refuse_two" in outcomes[2].trace


def test_jobs_are_read_only_as_workers_fall_idle(executor: Executor):
    asked: list[int] = []

    def jobs() -> Iterator[int]:
        for i in range(10):
            asked.append(i)
            yield i

    first = next(iter(executor.run(square, jobs())))
    assert first.job in (0, 1)
    assert len(asked) <= executor.workers


def test_a_worker_that_dies_fails_its_job_and_the_others_go_on(processes: ProcessExecutor):
    outcomes = {o.job: o for o in processes.run(die_on_two, range(6))}
    assert {job for job, o in outcomes.items() if o.error is None} == {0, 1, 3, 4, 5}
    assert isinstance(outcomes[2].error, EvaluationError)
    assert "SIGKILL" in str(outcomes[2].error)
    assert [o.value for o in processes.run(square, [3])] == [9]


def test_an_error_that_cannot_be_pickled_arrives_as_text(processes: ProcessExecutor):
    [outcome] = processes.run(raise_unpicklable, [4])
    assert isinstance(outcome.error, EvaluationError)
    assert "Unpicklable: 4 and 4" in str(outcome.error)


def test_workers_run_one_sleeping_thread_and_the_driver_is_left_as_it_was(
    processes: ProcessExecutor, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    answers = {o.job: o.value for o in processes.run(environment, ["OMP_NUM_THREADS", "OMP_WAIT_POLICY"])}
    assert answers == {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}
    assert os.environ["OMP_NUM_THREADS"] == "7"


DRIVER = """
import os, time
from search.executors import ProcessExecutor

def start():
    pass

def sleep(seconds):
    print(os.getpid(), flush=True)
    time.sleep(seconds)

if __name__ == "__main__":
    list(ProcessExecutor(1, start).run(sleep, [60]))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="kills by POSIX signals")
def test_workers_end_when_their_driver_is_killed(tmp_path):
    script = tmp_path / "driver.py"
    script.write_text(textwrap.dedent(DRIVER))
    with subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, text=True) as driver:
        assert driver.stdout is not None
        worker = int(driver.stdout.readline())
        driver.kill()
    deadline = time.monotonic() + 20
    while is_alive(worker) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not is_alive(worker)


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
