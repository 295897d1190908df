"""Where a run's time goes, as the run itself adds it up: phases without a gap, sessions, workers, parts of jobs."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from search.executors import Executor, InlineExecutor, ProcessExecutor
from search.report.profile import read_profile
from search.store import PROFILE, RunStore, hold
from search.study import Profile, SearchRun
from search.study import profile as profile_module
from search.timing import Phase, Stopwatch, process_age_s, span, working
from search.types import Study

from .synthetic import Arithmetic, Synthetic, nothing, process, rest, slowly


class Clock:
    """Each look at it takes a second."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        self.now += 1.0
        return self.now


def test_phases_add_up_to_all_the_time_there_was():
    clock = Clock()
    watch = Stopwatch(age_s=3.0, clock=clock)
    begun = clock.now - 3.0
    for phase in (Phase.PROPOSING, Phase.TRAINING, Phase.RECORDING, Phase.TRAINING):
        watch.enter(phase)
    seconds = watch.read()
    assert sum(seconds.values()) == clock.now - begun
    assert seconds[Phase.START_UP] == 4.0
    assert seconds[Phase.TRAINING] == 2.0


def test_spans_are_heard_by_who_listens_and_cost_others_nothing():
    with span("unheard"):
        pass
    with working() as work:
        with span("a"):
            time.sleep(0.002)
        for _ in range(2):
            with span("b"):
                pass
    assert set(work.spans) == {"a", "b"}
    assert 0.002 <= work.spans["a"] <= work.busy_s


@pytest.mark.skipif(not Path("/proc/self/stat").is_file(), reason="only Linux says when a process began")
def test_a_process_is_as_old_as_the_operating_system_says():
    age_s = process_age_s()
    assert age_s is not None
    boot = float(Path("/proc/uptime").read_text().split()[0])
    assert 0 < age_s <= boot + 1


@pytest.fixture
def run(tmp_path: Path) -> Callable[..., Study]:
    """Return a function that runs the synthetic search in one folder, with a profile of its own clock."""

    def go(executor: Executor | None = None, *, trials: int = 18, **options: Any) -> Study:
        from .synthetic import Search

        problem = Synthetic(search=Search(trials=trials))
        folder = tmp_path / "run"
        executor = executor or InlineExecutor()
        with hold(folder):
            store = RunStore(folder, name="synthetic", objectives=problem.objectives, identity="i", spec={})
            profile = Profile(store, workers=executor.workers, **options)
            return SearchRun(problem, Arithmetic(str(tmp_path)), store, executor, profile=profile).run()

    return go


@pytest.fixture
def two_processes() -> Iterator[ProcessExecutor]:
    made = ProcessExecutor(2, nothing)
    yield made
    made.close()


def test_what_a_run_records_adds_up_to_its_wall_time(run: Callable[..., Study]):
    begun = time.monotonic()
    study = run(age_s=2.0)
    wall_s = time.monotonic() - begun + 2.0
    [record] = study.facts[PROFILE].values()
    assert record["wall_s"] == pytest.approx(sum(record["phases"].values()), abs=0.01)
    assert record["wall_s"] <= wall_s
    assert record["phases"]["start_up"] >= 2.0
    assert record["parts"]["start_up"]["imports"] == 2.0
    assert all(record["phases"][phase] > 0 for phase in ("proposing", "measuring", "training", "recording"))


def test_what_is_done_is_counted(run: Callable[..., Study]):
    study = run()
    [record] = study.facts[PROFILE].values()
    assert record["counts"]["proposing"] == len(study.trials)
    assert record["counts"]["training"] == sum(len(t.measurements) for t in study.trials)
    assert record["counts"]["measuring"] >= sum(t.cost is not None for t in study.trials)


def test_sessions_add_up(run: Callable[..., Study]):
    first = read_profile(run(trials=6))
    study = run(trials=12)
    both = read_profile(study)
    assert set(study.facts[PROFILE]) == {"0", "1"}
    assert both.sessions == 2
    assert both.wall_s == pytest.approx(sum(r["wall_s"] for r in study.facts[PROFILE].values()), abs=0.01)
    assert both.counts[Phase.TRAINING] > first.counts[Phase.TRAINING]


def test_each_worker_has_its_share_and_what_is_left_is_idle(run: Callable[..., Study], two_processes: ProcessExecutor):
    profile = read_profile(run(two_processes))
    assert [use.worker for use in profile.workers] == [0, 1]
    assert all(use.wall_s == pytest.approx(profile.phases[Phase.TRAINING]) for use in profile.workers)
    assert profile.busy_s == pytest.approx(sum(use.busy_s for use in profile.workers), abs=0.1)
    assert profile.idle_s == pytest.approx(2 * profile.phases[Phase.TRAINING] - profile.busy_s)


def test_workers_without_numbers_have_no_shares(run: Callable[..., Study]):
    profile = read_profile(run(numbered=False))
    assert profile.workers == ()
    assert profile.busy_s > 0


def test_a_record_is_written_with_answers_and_seldom(run: Callable[..., Study], monkeypatch: pytest.MonkeyPatch):
    written: list[float] = []
    note = RunStore.note

    def counted(store: RunStore, key: str, value: Any, **options: Any) -> None:
        written.extend([0.0] if key.startswith(PROFILE) else [])
        note(store, key, value, **options)

    monkeypatch.setattr(RunStore, "note", counted)
    monkeypatch.setattr(profile_module, "KEEP_EVERY_S", 1e9)
    run()
    assert len(written) == 2  # with the first answer, and at the end


def test_a_real_run_says_what_its_jobs_did(unbroken: Study):
    [record] = unbroken.facts[PROFILE].values()
    assert {"counts", "memory", "latency", "one_step"} <= set(record["parts"]["measuring"])
    training = record["parts"]["training"]
    assert {"steps", "validation", "checkpoint", "building"} <= set(training)
    steps_s = sum(t.last.elapsed_s for t in unbroken.trials if t.last is not None)
    assert training["steps"] == pytest.approx(steps_s, rel=0.2, abs=0.1)


# -- workers that start ahead --------------------------------------------------------------------------


def test_a_job_says_how_long_it_took_and_where(two_processes: ProcessExecutor):
    outcomes = list(two_processes.run(rest, [0.01] * 4))
    assert {outcome.worker for outcome in outcomes} <= {0, 1}
    assert all(outcome.work is not None and outcome.work.busy_s >= 0.01 for outcome in outcomes)
    assert sum(outcome.starting_s > 0 for outcome in outcomes) == len({o.worker for o in outcomes})


def test_workers_that_start_ahead_are_those_that_work():
    executor = ProcessExecutor(2, slowly)
    try:
        executor.start()
        ahead = {worker.process.pid for worker in executor._pool}
        found = {outcome.value for outcome in executor.run(process, range(4))}
        assert found <= ahead
        assert len(ahead) == 2
    finally:
        executor.close()


def test_only_the_first_run_goes_on_beside_workers_that_are_starting():
    executor = ProcessExecutor(2, slowly)
    try:
        executor.start()
        list(executor.run(process, [0]))
        list(executor.run(process, [0]))
        assert not any(worker.is_starting for worker in executor._pool)
    finally:
        executor.close()
