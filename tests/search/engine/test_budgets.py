"""What ends a search: trials, wall time over its sessions, training steps, or that nothing new is found."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from search.executors import Executor
from search.experiment import Experiment
from search.report import read_status
from search.report.words import conditions
from search.study import Rules, rules_of
from search.study.bounds import Bounds
from search.study.patience import trained_since_growth
from search.types import Study, Trial, TrialState

from .remembering import Remembering

Search = Callable[..., Study]
Tiny = Callable[..., Experiment]


def steps_spent(study: Study) -> int:
    return sum(t.last.step for t in study.trials if t.last is not None)


@pytest.fixture
def search_in(search_in: Search) -> Search:
    """Search with trainings that are not repeated."""
    return lambda experiment, name, *workers, **options: search_in(
        experiment, name, *workers, evaluator=Remembering(experiment.evaluation_plan()), **options
    )


def test_steps_are_never_exceeded_and_more_of_them_go_on(tiny: Tiny, search_in: Search, tmp_path: Path):
    experiment = tiny("search.steps=11")
    study = search_in(experiment, "run", rules=rules_of(experiment))
    assert 9 <= steps_spent(study) <= 11
    assert study.facts["ended_by"]["rule"] == "steps"
    assert "search.steps 11" in study.facts["ended_early"]
    assert not study.in_state(TrialState.RUNNING)
    (tmp_path / "run" / "experiment.yaml").touch()  # as the command line leaves it
    status = read_status(tmp_path / "run")
    assert status.finished
    assert "search.steps=22" in status.command
    assert "at most 11 training steps" in conditions(study)["Search"]
    more = tiny("search.steps=1k")
    extended = search_in(more, "run", rules=rules_of(more))
    assert extended.facts["ended_by"]["rule"] == "trials"
    assert extended.facts["ended_early"] == ""
    assert len(extended.in_state(TrialState.COMPLETE, TrialState.STOPPED)) == 6


def test_steps_that_suffice_change_nothing(tiny: Tiny, search_in: Search, unbroken: Study):
    experiment = tiny("search.steps=2M", "search.time=100h", "search.patience=1000")
    study = search_in(experiment, "run", rules=rules_of(experiment))
    assert [(t.key, t.state, t.value("psnr_db")) for t in study.trials] == [
        (t.key, t.state, t.value("psnr_db")) for t in unbroken.trials
    ]


def test_time_is_summed_over_the_sessions_and_ends_the_search(
    tiny: Tiny, search_in: Search, interrupted_after: Callable[[int], Executor]
):
    with pytest.raises(KeyboardInterrupt):
        search_in(tiny(), "run", interrupted_after(6))
    study = search_in(tiny(), "run", rules=Rules(time_s=1e-6))
    spent = study.facts["elapsed_s"]
    assert spent > 0
    assert study.facts["ended_by"]["rule"] == "time"
    assert not study.in_state(TrialState.RUNNING)
    assert study.in_state(TrialState.STOPPED)
    again = search_in(tiny(), "run", rules=Rules(time_s=1e6))
    assert again.facts["elapsed_s"] > spent
    assert again.facts["ended_by"]["rule"] == "trials"


def bounds(rules: Rules, *, spent: tuple[int, ...] = (), elapsed_s: float = 0.0) -> Bounds:
    """Make the bounds of a run with rungs of 10 and 30 steps, some candidates trained and some time gone."""
    trials = [SimpleNamespace(last=SimpleNamespace(step=step)) for step in spent]
    store = SimpleNamespace(facts={"elapsed_s": elapsed_s}, index=SimpleNamespace(trials=trials))
    problem = SimpleNamespace(proxy=SimpleNamespace(rungs=(10, 30)))
    return Bounds(problem, store, rules)  # pyright: ignore[reportArgumentType]


def waiting(*latencies_ms: float | None, step: int = 0) -> list[Trial]:
    """Return candidates of given latencies that wait for a training, from a step on."""
    last = SimpleNamespace(step=step) if step else None
    return [SimpleNamespace(value=lambda _, ms=ms: ms, last=last) for ms in latencies_ms]  # pyright: ignore


def latencies(trials: list[Trial]) -> list[float | None]:
    return [trial.value("latency_ms") for trial in trials]


def test_the_slowest_are_trained_first_so_that_no_worker_ends_late():
    assert latencies(bounds(Rules()).affordable(waiting(5.0, None, 9.0, 7.0), 0)) == [9.0, 7.0, 5.0, None]
    assert latencies(bounds(Rules(steps=1000)).affordable(waiting(5.0, 9.0), 0)) == [9.0, 5.0]


def test_steps_are_spent_to_the_last_one():
    # Three trainings of 10 steps take exactly the 30 that are left of 50; from 10 on to 30, one takes 20.
    assert latencies(bounds(Rules(steps=50), spent=(10, 10)).affordable(waiting(1, 2, 3, 4), 0)) == [4, 3, 2]
    assert latencies(bounds(Rules(steps=50), spent=(30,)).affordable(waiting(1, 2, step=10), 1)) == [2]
    assert latencies(bounds(Rules(steps=49), spent=(30,)).affordable(waiting(1, 2, step=10), 1)) == []


@pytest.mark.parametrize(("steps", "are_spent"), [(29, True), (30, False)])
def test_steps_are_spent_where_the_first_rung_takes_more_than_is_left(steps: int, are_spent: bool):
    assert bounds(Rules(steps=steps), spent=(10, 10))._has_too_few_steps is are_spent


@pytest.mark.parametrize(("elapsed_s", "is_out"), [(9.9, False), (10.0, True)])
def test_time_is_spent_at_its_end(elapsed_s: float, is_out: bool, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(time, "monotonic", lambda: 5.0)
    spent = bounds(Rules(time_s=10.0), elapsed_s=elapsed_s)
    assert spent.is_out_of_time is is_out
    assert spent.affordable(waiting(1.0), 0) == [] or not is_out


def test_patience_ends_a_search_that_finds_nothing_new(tiny: Tiny, search_in: Search):
    experiment = tiny("search.trials=40", "search.patience=2")
    study = search_in(experiment, "run", rules=rules_of(experiment))
    assert study.facts["ended_by"]["rule"] == "patience"
    assert trained_since_growth(study) >= 2
    assert len([t for t in study.trials if t.measurements]) < 40
    assert "search.patience 2" in study.facts["ended_early"]


def test_bounds_are_read_in_the_units_that_people_write(tiny: Tiny):
    search = tiny("search.time=1.5h", "search.steps=100k").search
    assert (search.time, search.steps, search.patience) == (5400.0, 100_000, None)
    assert tiny("search.time=90").search.time == 90.0
    assert tiny("search.time=90", "search.steps=3", "search.patience=4").identity == tiny().identity
