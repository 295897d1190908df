from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from search.executors import AwakeClock, Executor, InlineExecutor, ProcessExecutor, _Worker
from search.types import EvaluationError, SpecError, WorkerDiedError, WorkerStartError


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


def square_late(x: int) -> int:
    time.sleep(x)
    return x * x


@pytest.mark.slow
def test_the_jobs_of_an_abandoned_run_end_and_their_answers_are_not_taken_for_others(processes: ProcessExecutor):
    abandoned = processes.run(square_late, [0, 2])
    assert next(abandoned).value == 0
    abandoned.close()  # pyright: ignore[reportAttributeAccessIssue] - a generator
    assert {o.job: o.value for o in processes.run(square, [7, 8])} == {7: 49, 8: 64}


@pytest.mark.slow
def test_a_later_run_ends_the_earlier_one(processes: ProcessExecutor):
    earlier = processes.run(square_late, [0, 2])
    assert next(earlier).value == 0
    assert {o.job: o.value for o in processes.run(square, [7, 8])} == {7: 49, 8: 64}
    with pytest.raises(RuntimeError, match="a later run"):
        next(earlier)


@pytest.mark.slow
def test_an_answer_belongs_to_the_job_that_was_sent_last():
    worker = _Worker(0, nothing)
    try:
        worker.send(square, 2, None)
        worker.send(square, 3, None)
        answer = None
        while answer is None:
            answer = worker.hear(worker.pipe.recv(), now=0.0)
    finally:
        worker.kill()
    assert answer.value == 9


def fail_to_import() -> None:
    raise ImportError("libfoo.so.3: cannot open shared object file")


def leave() -> None:
    os._exit(1)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("start", "cause"),
    [
        (fail_to_import, "could not start: ImportError: libfoo.so.3: cannot open shared object file"),
        (leave, r"ended \(exit code 1\) while it was starting"),
    ],
)
def test_a_worker_that_cannot_start_is_no_fault_of_a_job_and_says_why(start: Callable[[], None], cause: str):
    executor = ProcessExecutor(1, start)
    with pytest.raises(WorkerStartError, match=cause) as raised:
        list(executor.run(square, [1]))
    executor.close()
    assert "emory" not in str(raised.value)


def leave_on_two(x: int) -> int:
    if x == 2:
        os._exit(3)
    return x


@pytest.mark.slow
def test_memory_is_blamed_only_where_a_worker_was_killed(processes: ProcessExecutor):
    killed = {o.job: o.error for o in processes.run(die_on_two, [2])}[2]
    ended = {o.job: o.error for o in processes.run(leave_on_two, [2])}[2]
    assert isinstance(killed, WorkerDiedError)
    assert isinstance(ended, WorkerDiedError)
    assert "Out of memory" in str(killed)
    assert "exit code 3" in str(ended)
    assert "memory" not in str(ended)


class Unloadable:
    def __reduce__(self) -> tuple[Any, ...]:
        return fail_to_import, ()


@pytest.mark.slow
def test_a_job_that_the_worker_cannot_import_has_that_error(processes: ProcessExecutor):
    [outcome] = processes.run(repr, [Unloadable()])
    assert isinstance(outcome.error, ImportError)
    assert "libfoo.so.3" in str(outcome.error)


def function_of(x: int) -> Callable[[], int]:
    return lambda: x


@pytest.mark.slow
def test_a_result_that_cannot_be_pickled_is_an_error_of_its_job(processes: ProcessExecutor):
    [outcome] = processes.run(function_of, [1])
    assert isinstance(outcome.error, EvaluationError)
    assert "cannot be sent to the driver" in str(outcome.error)


def exit_with(code: int) -> None:
    sys.exit(code)


def test_a_job_that_calls_sys_exit_has_failed_and_nothing_else_ends(executor: Executor):
    [outcome] = executor.run(exit_with, [4])
    assert isinstance(outcome.error, EvaluationError)
    assert "sys.exit(4)" in str(outcome.error)


SHADOWED = ("types", "signal", "struct", "socket", "pickle", "threading")


def imported_from(name: str) -> str:
    return str(Path(__import__(name).__file__ or "").parent)


@pytest.mark.slow
def test_workers_start_in_a_folder_with_files_named_like_modules_of_python(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    for name in SHADOWED:
        (tmp_path / f"{name}.py").write_text(f"raise SystemExit('{name} of the current folder was imported')")
    monkeypatch.chdir(tmp_path)
    executor = ProcessExecutor(1, nothing)
    found = {o.job: o.value for o in executor.run(imported_from, SHADOWED)}
    executor.close()
    assert found == {name: imported_from(name) for name in SHADOWED}


@pytest.mark.parametrize(
    ("slept_s", "passed_s", "computed_s", "counted_s"),
    [
        (1.0, 0.3, 0.0, 0.3),  # woken early
        (1.0, 1.2, 0.0, 1.2),  # a little late
        (1.0, 41.0, 0.1, 1.1),  # suspended
        (0.0, 30.0, 29.5, 30.0),  # computed
        (float("inf"), 500.0, 0.0, 500.0),  # waited without an end
    ],
)
def test_time_in_which_the_driver_is_suspended_does_not_count(
    slept_s: float, passed_s: float, computed_s: float, counted_s: float
):
    wall, cpu = iter([100.0, 100.0 + passed_s]), iter([5.0, 5.0 + computed_s])
    clock = AwakeClock(wall=lambda: next(wall), cpu=lambda: next(cpu))
    clock.advance(slept_s)
    assert clock.now == pytest.approx(counted_s)


LIMITED_DRIVER = """
import pathlib, sys, time
from search.executors import ProcessExecutor

def start():
    pass

def wait_for(path):
    print("begun", flush=True)
    while not pathlib.Path(path).exists():
        time.sleep(0.05)
    return "done"

if __name__ == "__main__":
    executor = ProcessExecutor(1, start, limit_s=lambda job: 4.0)
    [outcome] = executor.run(wait_for, [sys.argv[1]])
    print(outcome.value, outcome.error, flush=True)
    executor.close()
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="suspends by POSIX signals")
def test_a_job_that_was_suspended_with_its_driver_is_not_late(tmp_path: Path):
    script, event = tmp_path / "driver.py", tmp_path / "event"
    script.write_text(textwrap.dedent(LIMITED_DRIVER))
    command = [sys.executable, str(script), str(event)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True) as driver:
        assert driver.stdout is not None
        assert driver.stdout.readline() == "begun\n"
        os.killpg(driver.pid, signal.SIGSTOP)
        time.sleep(6)
        event.touch()
        os.killpg(driver.pid, signal.SIGCONT)
        assert driver.stdout.read() == "done None\n"
