"""What ends a search: trials, wall time over its sessions, training steps, or that nothing new is found."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from search.executors import Executor
from search.experiment import Experiment
from search.report import read_status
from search.report.words import conditions
from search.study import Rules, rules_of
from search.study.patience import trained_since_growth
from search.types import Study, TrialState

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
