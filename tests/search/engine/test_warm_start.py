"""What goes before the sampler: enqueued configurations, and what an earlier run found out."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from search.executors import Executor
from search.experiment import Experiment, encode
from search.report.words import conditions
from search.store import RunStore
from search.study import Rules, warm_start
from search.study.warm import WarmStart
from search.types import Genotype, InputError, Study, TrialState

Search = Callable[..., Study]
Tiny = Callable[..., Experiment]
Open = Callable[[Experiment, Path], RunStore]


@pytest.fixture
def points(tiny: Tiny) -> tuple[Genotype, ...]:
    space = tiny().space
    return tuple(space.sample(seed) for seed in (50, 60))


def story(study: Study) -> list[tuple[object, ...]]:
    return [(t.number, t.key, t.state, t.value("psnr_db")) for t in study.trials]


def test_enqueued_points_come_first_and_then_the_sampler(tiny: Tiny, search_in: Search, points: tuple[Genotype, ...]):
    study = search_in(tiny("search.trials=3"), "run", rules=Rules(enqueued=(*points, points[0])))
    assert [t.key for t in study.trials[:2]] == [point.key for point in points]
    smallest = {name: min(p.choices) for name in ("width", "levels") if (p := tiny().space[name])}
    assert {name: study.trials[2].genotype[name] for name in smallest} == smallest
    assert all(t.measurements for t in study.trials[:2])
    assert study.trials[2].state is not TrialState.DUPLICATE  # the third was enqueued twice, and proposed once


def test_an_interrupted_run_goes_on_although_the_list_is_no_longer_given(
    tiny: Tiny,
    search_in: Search,
    ran: Search,
    points: tuple[Genotype, ...],
    interrupted_after: Callable[[int], Executor],
):
    whole = ran("search.trials=4", rules=Rules(enqueued=points))
    with pytest.raises(KeyboardInterrupt):
        search_in(tiny("search.trials=4"), "broken", interrupted_after(2), rules=Rules(enqueued=points))
    assert story(search_in(tiny("search.trials=4"), "broken")) == story(whole)


def started(experiment: Experiment, folder: Path, earlier: Study, store_of: Open) -> WarmStart:
    store = store_of(experiment, folder)
    return warm_start(store, experiment.space, earlier, encode)


def test_a_run_of_the_same_meaning_is_known_to_the_sampler(
    tiny: Tiny, search_in: Search, unbroken: Study, store_of: Open, tmp_path: Path
):
    complete = unbroken.in_state(TrialState.COMPLETE)
    experiment = tiny("search.seed=9", "search.trials=2", "space.width=[4,8,12]")
    made = started(experiment, tmp_path / "run", unbroken, store_of)
    assert (made.known, made.enqueued, made.differ) == (len(complete), (), ())
    assert started(experiment, tmp_path / "run", unbroken, store_of) == made
    known = store_of(experiment, tmp_path / "run").optuna.get_trials()
    assert [t.values for t in known] == [[t.value(o) for o in unbroken.objectives] for t in complete]
    study = search_in(experiment, "run")
    assert len(study.in_state(TrialState.COMPLETE, TrialState.STOPPED)) == 2
    assert len(study.trials) < 12  # earlier candidates are none of this run's
    assert "known to the sampler" in conditions(study)["Warm start"]


def test_a_run_of_another_meaning_is_trained_here_its_front_first(
    tiny: Tiny, search_in: Search, unbroken: Study, store_of: Open, tmp_path: Path
):
    experiment = tiny("search.trials=2", "proxy.rungs=[2,3]", "space.width=4")
    made = started(experiment, tmp_path / "run", unbroken, store_of)
    assert made.differ == ("proxy",)
    assert made.known == 0
    assert made.foreign == sum(t.genotype["width"] == 8 for t in unbroken.in_state(TrialState.COMPLETE))
    assert len(made.enqueued) == len(unbroken.in_state(TrialState.COMPLETE)) - made.foreign
    assert "proxy differ" in str(made)
    study = search_in(experiment, "run")
    first = min(2, len(made.enqueued))
    assert [t.key for t in study.trials[:first]] == [point.key for point in made.enqueued[:first]]


def test_a_run_cannot_start_from_itself(tiny: Tiny, unbroken: Study, store_of: Open):
    with pytest.raises(InputError, match="this is the run itself"):
        started(tiny(), unbroken.folder, unbroken, store_of)
