"""Numbers with their nouns: one thread, four threads, wherever a count is printed."""

from __future__ import annotations

import dataclasses

import pytest

from search.cli.showing import _conditions_of
from search.counts import count
from search.report.words import _latency_words


@pytest.mark.parametrize(
    ("number", "text"), [(0, "0 threads"), (1, "1 thread"), (2, "2 threads"), (1200, "1,200 threads")]
)
def test_only_one_is_singular(number: int, text: str):
    assert count(number, "thread") == text


def test_a_plural_of_its_own_is_taken():
    assert [count(n, "entry", "entries") for n in (1, 2)] == ["1 entry", "2 entries"]


@pytest.mark.parametrize(("threads", "text"), [(1, "1 thread,"), (4, "4 threads,")])
def test_a_latency_names_its_threads_alike_in_the_terminal_and_on_the_page(threads: int, text: str, rich_study):
    trial = next(t for t in rich_study.trials if t.cost is not None and t.cost.latency is not None)
    latency = dataclasses.replace(trial.cost.latency, threads=threads)
    trial = dataclasses.replace(trial, cost=dataclasses.replace(trial.cost, latency=latency))
    assert text in _conditions_of(trial, rich_study)
    assert text in _latency_words(latency)
