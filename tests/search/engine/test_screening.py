"""Screening: of many candidates within the budget the most promising are trained, and the run repeats itself."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest

from search import load_run
from search.evaluation.answers import Admission
from search.evaluation.plan import CandidateJob
from search.executors import Executor, InlineExecutor
from search.report import funnel, read_status
from search.samplers import Request
from search.samplers.known import figures
from search.schedulers import Screening
from search.space import Parameter, SearchSpace
from search.store import RunStore, read_study
from search.study import Rules, SearchRun
from search.types import Genotype, Study, Trial, TrialState

from .synthetic import Arithmetic, Rungs, Search, Synthetic

SCORE = "made_up"
BY_FOUR = Screening(score=SCORE, of=4)


@dataclass(frozen=True)
class Screening4(Synthetic):
    screening: Screening | None = BY_FOUR


@dataclass(frozen=True)
class Scored(Arithmetic):
    """Scores every admitted candidate by its depth."""

    def admit(self, job: CandidateJob) -> Admission:
        answer = super().admit(job)
        return answer if answer.reason else replace(answer, scores={SCORE: float(job.config["depth"])})


def store_in(folder: Path, problem: Synthetic, storage: Any = None) -> RunStore:
    objectives = problem.objectives
    return RunStore(
        folder, name="synthetic", objectives=objectives, identity="1", spec={"objectives": objectives}, storage=storage
    )


def search(
    folder: Path,
    problem: Synthetic | None = None,
    executor: Executor | None = None,
    rules: Rules | None = None,
    storage: Any = None,
) -> Study:
    folder.mkdir(exist_ok=True)
    asked = problem or Screening4()
    store = store_in(folder / "run", asked, storage)
    return SearchRun(asked, Scored(str(folder)), store, executor or InlineExecutor(), rules=rules).run()


def told(study: Study) -> list[tuple[Any, ...]]:
    return [(t.number, t.state, t.key, t.seed, t.generation, t.reason, t.scores, t.measurements) for t in study.trials]


def trained(study: Study) -> list[Trial]:
    return [t for t in study.trials if t.measurements]


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory) -> Study:
    return search(tmp_path_factory.mktemp("unbroken"))


def test_one_of_four_is_trained_and_the_others_cost_no_trial(unbroken: Study):
    passed = [t for t in unbroken.trials if t.state not in (TrialState.INFEASIBLE, TrialState.DUPLICATE)]
    sizes = Counter(t.generation for t in passed)
    went_on = Counter(t.generation for t in trained(unbroken))
    assert sizes == {0: 24, 1: 24, 2: 24}
    assert went_on == {0: 6, 1: 6, 2: 6}
    assert len(unbroken.in_state(TrialState.SCREENED)) == 54
    assert not unbroken.in_state(TrialState.RUNNING)


def test_what_is_screened_out_is_said_with_its_score_and_never_trained(unbroken: Study):
    for trial in unbroken.in_state(TrialState.SCREENED):
        assert trial.measurements == ()
        depth = trial.genotype["depth"]
        assert trial.reason == (f"screened out before its first rung: {SCORE} {depth}; 6 of 24 candidates went on")


def test_cheap_networks_are_not_screened_away(unbroken: Study):
    for generation in range(3):
        members = [t for t in unbroken.trials if t.generation == generation and t.scores]
        cheapest = min(t.value("macs_g") or 0.0 for t in members)
        assert any(t.value("macs_g") == cheapest for t in members if t.measurements)


def test_nothing_that_is_trained_is_beaten_by_what_is_not(unbroken: Study):
    def figures_of(trial: Trial) -> tuple[float, float]:
        return -trial.scores[SCORE], trial.value("macs_g") or 0.0

    for one in trained(unbroken):
        for other in unbroken.in_state(TrialState.SCREENED):
            a, b = figures_of(one), figures_of(other)
            beaten = b != a and b[0] <= a[0] and b[1] <= a[1]
            assert not (beaten and one.generation == other.generation)


@pytest.mark.parametrize("jobs", [1, 13, 30, 31, 36, 44, 75, 100])
def test_a_run_that_was_interrupted_goes_on_to_what_the_unbroken_one_finds(
    jobs: int, tmp_path: Path, unbroken: Study, interrupted_after: Callable[[int], Executor]
):
    with pytest.raises(KeyboardInterrupt):
        search(tmp_path, executor=interrupted_after(jobs))
    assert told(search(tmp_path)) == told(unbroken)


def test_a_screening_that_was_cut_in_the_middle_is_brought_to_its_end(
    tmp_path: Path, unbroken: Study, monkeypatch: pytest.MonkeyPatch
):
    storage, finish, left = optuna.storages.InMemoryStorage(), RunStore.finish, [7]

    def dies(self: RunStore, number: int, state: TrialState, **how: Any) -> None:
        if state is TrialState.SCREENED:
            left[0] -= 1
            if left[0] < 0:
                raise KeyboardInterrupt
        finish(self, number, state, **how)

    monkeypatch.setattr(RunStore, "finish", dies)
    with pytest.raises(KeyboardInterrupt):
        search(tmp_path, storage=storage)
    monkeypatch.undo()
    again = search(tmp_path, storage=storage)
    assert [(t.number, t.state, t.key) for t in again.trials] == [(t.number, t.state, t.key) for t in unbroken.trials]


@pytest.mark.parametrize(("trials", "generation", "of"), [(7, 3, 4), (1, 6, 4), (5, 1, 3), (6, 6, 2)])
def test_as_many_are_trained_as_were_asked_for(trials: int, generation: int, of: int, tmp_path: Path):
    problem = Screening4(search=Search(trials=trials, generation=generation), screening=Screening(score=SCORE, of=of))
    study = search(tmp_path, problem)
    assert len(trained(study)) == trials
    assert len(study.in_state(TrialState.SCREENED)) == trials * (of - 1)


def test_a_space_that_is_spent_is_screened_as_far_as_it_goes(tmp_path: Path):
    space = SearchSpace([Parameter("width", (8,)), Parameter("depth", tuple(range(1, 17))), Parameter("levels", (1,))])
    study = search(tmp_path, Screening4(space=space, search=Search(trials=18, generation=6)))
    passed = len(study.in_state(TrialState.COMPLETE, TrialState.STOPPED, TrialState.SCREENED))
    assert len(trained(study)) == -(-passed // 4)
    assert "points of the space were considered" in study.facts["ended_early"]


def test_what_was_asked_for_by_name_is_trained_whatever_its_score(tmp_path: Path):
    poor = [Genotype({"width": 32 + 4 * i, "depth": 1, "levels": 1}) for i in range(3)]
    study = search(tmp_path, rules=Rules(enqueued=tuple(poor)))
    ends = {t.key: t for t in study.trials}
    asked = [ends[point.key] for point in poor]
    assert all(t.measurements or t.state is TrialState.INFEASIBLE for t in asked)
    assert any(t.measurements for t in asked)
    assert len(trained(study)) == 18


def test_without_screening_a_run_is_what_it_was(tmp_path: Path):
    plain = search(tmp_path / "plain", Synthetic())
    off = search(tmp_path / "off", Screening4(screening=None))
    assert told(plain) == told(off)
    assert not plain.in_state(TrialState.SCREENED)


def test_samplers_are_told_the_costs_of_what_was_screened_out_and_no_quality(tmp_path: Path):
    storage = optuna.storages.InMemoryStorage()
    study = search(tmp_path, storage=storage)
    out = study.in_state(TrialState.SCREENED)
    assert np.isnan(figures(out, "psnr_db")).all()
    assert np.isfinite(figures(out, "macs_g")).all()
    frozen = {t.number: t for t in optuna.load_study(study_name="synthetic", storage=storage).trials}
    for trial in out:
        assert frozen[trial.number].state is optuna.trial.TrialState.PRUNED
        assert frozen[trial.number].system_attrs["constraints:macs_g"] < 0
    seen = Request(trials=study.trials, space=study_space(), objectives=study.objectives, run_seed=0, index=99).seen
    assert {t.key for t in out} <= seen


def study_space() -> SearchSpace:
    return Screening4().space


@pytest.mark.parametrize("sampler", ["auto", "tpe", "nsga2", "evolution", "local"])
def test_every_sampler_goes_on_beside_what_was_screened_out(sampler: str, tmp_path: Path):
    problem = Screening4(search=Search(trials=9, generation=3, sampler=sampler), proxy=Rungs(rungs=(10, 20)))
    study = search(tmp_path, problem)
    assert len(trained(study)) == 9
    assert len(study.in_state(TrialState.SCREENED)) == 27


def test_a_real_run_is_screened_by_an_untrained_networks_score(
    tiny: Callable[..., Any], search_in: Callable[..., Study], tmp_path: Path
):
    experiment = tiny("search.screening={score: naswot, of: 2}", "search.trials=3")
    study = search_in(experiment, "screened")
    assert len(trained(study)) == 3
    out = study.in_state(TrialState.SCREENED)
    assert len(out) == 3
    assert all(t.reason.startswith("screened out before its first rung: naswot ") for t in out)
    assert funnel(study)["screened"] == 3
    assert told(read_study(tmp_path / "screened")) == told(study)
    status = read_status(tmp_path / "screened")
    assert (status.admitted, status.states["SCREENED"]) == (3, 3)
    frame = load_run(tmp_path / "screened").trials
    assert frame.loc[frame["state"] == "SCREENED", "score"].notna().all()


def test_screening_is_part_of_what_a_run_is_and_leaving_it_out_is_not(tiny: Callable[..., Any]):
    plain = tiny()
    screened = tiny("search.screening={score: naswot, of: 2}")
    assert "screening" not in plain.spec["search"]
    assert len({plain.identity, screened.identity, tiny("search.screening={score: synflow, of: 2}").identity}) == 3
