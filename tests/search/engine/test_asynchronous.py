"""Promoting ahead: an idle worker takes up what may go on already; nothing is trained twice or beyond its share."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from search.evaluation.jobs import ProxyEvaluator, start_worker
from search.evaluation.plan import CandidateJob
from search.executors import Outcome, ProcessExecutor
from search.experiment import Experiment
from search.store import TrialIndex
from search.study import Director, Kind, Rules
from search.types import Measurement, Study, TrialState

Search = Callable[..., Study]
Tiny = Callable[..., Experiment]
AHEAD = Rules(asynchronous=True)


class OneStraggler(ProxyEvaluator):
    """Takes its time for the first rung of one candidate: until another one is trained ahead, or nobody waits."""

    patience_s = 60.0

    def train(self, job: CandidateJob) -> Measurement:
        ahead = Path(job.checkpoint).parent.parent / "ahead"
        deadline = time.monotonic() + self.patience_s
        while (job.number, job.rung) == (0, 0) and not ahead.exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        measured = super().train(job)
        if job.rung > 0:
            ahead.touch()
        return measured


class Impatient(OneStraggler):
    patience_s = 1.0


class Logged(ProcessExecutor):
    """Notes in which order trainings came to their ends."""

    def __init__(self, workers: int) -> None:
        super().__init__(workers, start_worker)
        self.log: list[tuple[int, int]] = []

    def run(self, function: Callable[[Any], Any], jobs: Iterable[Any]) -> Iterator[Outcome[Any, Any]]:
        for outcome in super().run(function, jobs):
            if outcome.job is not None and isinstance(outcome.value, Measurement):
                self.log.append((outcome.job.number, outcome.job.rung))
            yield outcome


def ended(tiny: Tiny, search_in: Search, kind: type[OneStraggler], rules: Rules) -> tuple[Study, list[tuple[int, int]]]:
    executor = Logged(2)
    experiment = tiny("search.trials=4", "search.generation=4", "space.levels=1")
    try:
        asked = kind(experiment.evaluation_plan())
        return search_in(experiment, "run", executor, evaluator=asked, rules=rules), executor.log
    finally:
        executor.close()


def test_an_idle_worker_promotes_ahead_of_a_straggler(tiny: Tiny, search_in: Search):
    study, log = ended(tiny, search_in, OneStraggler, AHEAD)
    assert any(rung > 0 for _, rung in log[: log.index((0, 0))])
    assert len(set(log)) == len(log)
    assert not study.in_state(TrialState.RUNNING, TrialState.FAILED)
    assert study.in_state(TrialState.COMPLETE)


@pytest.mark.slow
def test_without_the_option_a_rung_is_finished_first(tiny: Tiny, search_in: Search):
    _, log = ended(tiny, search_in, Impatient, Rules())
    assert all(rung == 0 for _, rung in log[: log.index((0, 0))])


def test_no_more_than_the_share_goes_on_ahead(tiny: Tiny, copy_of: Search, store_of, tmp_path):
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
