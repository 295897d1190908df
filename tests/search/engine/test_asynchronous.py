"""Promoting ahead: an idle worker takes up what may go on already; nothing is trained twice or beyond its share."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from search.executors import Outcome, ProcessExecutor
from search.experiment import Experiment
from search.store import RunStore, TrialIndex
from search.study import Director, Kind, Rules, SearchRun
from search.types import Measurement, Study, TrialState

from .synthetic import OneStraggler, Search, Synthetic, nothing

Tiny = Callable[..., Experiment]
AHEAD = Rules(asynchronous=True)


class Logged(ProcessExecutor):
    """Notes in which order trainings came to their ends."""

    def __init__(self, workers: int) -> None:
        super().__init__(workers, nothing)
        self.log: list[tuple[int, int]] = []

    def run(self, function: Callable[[Any], Any], jobs: Iterable[Any]) -> Iterator[Outcome[Any, Any]]:
        for outcome in super().run(function, jobs):
            if outcome.job is not None and isinstance(outcome.value, Measurement):
                self.log.append((outcome.job.number, outcome.job.rung))
            yield outcome


@pytest.fixture
def ended(tmp_path: Path) -> Callable[[float, Rules], tuple[Study, list[tuple[int, int]]]]:
    """Return a function that searches with two workers, one of which has a straggler, by some rules."""

    def search(patience_s: float, rules: Rules) -> tuple[Study, list[tuple[int, int]]]:
        problem, executor = Synthetic(search=Search(trials=4, generation=4)), Logged(2)
        store = RunStore(tmp_path, name="ahead", objectives=problem.objectives, identity="i", spec={})
        asked = OneStraggler(str(tmp_path), patience_s=patience_s)
        try:
            return SearchRun(problem, asked, store, executor, rules=rules).run(), executor.log
        finally:
            executor.close()

    return search


def test_an_idle_worker_promotes_ahead_of_a_straggler(ended: Callable[..., Any]):
    study, log = ended(60.0, AHEAD)
    assert any(rung > 0 for _, rung in log[: log.index((0, 0))])
    assert len(set(log)) == len(log)
    assert not study.in_state(TrialState.RUNNING, TrialState.FAILED)
    assert study.in_state(TrialState.COMPLETE)


def test_without_the_option_a_rung_is_finished_first(ended: Callable[..., Any]):
    _, log = ended(0.5, Rules())
    assert all(rung == 0 for _, rung in log[: log.index((0, 0))])
    assert any(rung > 0 for _, rung in log)


def test_no_more_than_the_share_goes_on_ahead(tiny: Tiny, copy_of: Callable[..., Study], store_of, tmp_path):
    changes = ("search.trials=4", "search.generation=4", "space.levels=1")
    experiment, whole = tiny(*changes), copy_of("run", *changes)
    store = store_of(experiment, tmp_path / "run")
    director = Director(experiment, store, rules=AHEAD)
    reached = [t for t in whole.trials if t.measurements]
    first = [replace(t, state=TrialState.RUNNING, measurements=t.measurements[:1]) for t in reached]

    def asked(count: int, running: set[int]) -> int | None:
        store.index = TrialIndex(first[:count])
        job = director.ahead(running)
        return None if job is None else job.number

    assert asked(1, set()) is None  # half of one, rounded down
    chosen = asked(2, set())
    assert chosen in {t.number for t in first[:2]}
    assert chosen is not None
    assert asked(2, {chosen}) is None
    assert asked(4, {chosen}) not in (None, chosen)
    assert Kind.TRAIN.method == "train"
