"""One suite that every sampler passes, and what ours do beyond it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from importlib.util import find_spec

import numpy as np
import pytest
from optuna.distributions import CategoricalDistribution, IntDistribution

from search import samplers
from search.pareto import hypervolume
from search.samplers import SAMPLERS, WARM_UP, Request, build_sampler, distribution_of, proposal_seed, propose
from search.samplers.coding import OFF, Coding
from search.samplers.evolution import POPULATION, evolved_point
from search.samplers.guided import guided_point
from search.samplers.improvement import improvement
from search.samplers.known import figures
from search.samplers.model import fit
from search.samplers.spread import smallest_point, spread_point
from search.space import Condition, Parameter, SearchSpace
from search.tabular.memory import MemoryStore
from search.types import Cost, Genotype, InputError, Measurement, Study, TrialState

SPACE = SearchSpace(
    [
        Parameter("width", (8, 12, 16)),
        Parameter("levels", (1, 2, 3)),
        Parameter("ratio", (1.5, 2.66)),
        Parameter("fixed", ("only",)),
        Parameter("attention", ("none", "window")),
        Parameter("heads", (1,), (Condition("attention", ("window",)),)),
        Parameter("window", (12, 8), (Condition("heads", (1,)),)),
        Parameter("split", (True, False)),
        Parameter("depth", (4, 1, 2), (Condition("split", (True,)),)),
    ]
)
OBJECTIVES = ("psnr_db", "macs_g")
EVERY = [name for name in SAMPLERS if name != "gp" or find_spec("torch")]


def quality(point: Genotype) -> float:
    return int(point["width"]) / 4 + 2.0 * (point["attention"] == "window") - 0.5 * int(point["levels"])


def cost_of(point: Genotype) -> Cost:
    macs = int(point["width"]) * int(point["levels"]) / 10
    return Cost(params_m=1.0, params_train_m=1.0, params_active_m=1.0, macs_g=macs, macs_at="64x64")


def measured(point: Genotype, rung: int) -> Measurement:
    figure = quality(point) + rung
    return Measurement(
        rung=rung, step=10**rung, psnr_db=figure, ssim=0.5, psnr_per_image_db=(figure,), elapsed_s=1.0, loss=0.1
    )


class Run:
    """A run in memory whose candidates end as the test says."""

    def __init__(self, sampler: str, seed: int = 5, limits: Mapping[str, float] | None = None) -> None:
        self.sampler, self.seed, self.limits = sampler, seed, limits or {}
        self.store = MemoryStore("run", OBJECTIVES)

    def request(self) -> Request:
        trials = self.store.study().trials
        return Request(
            trials=trials,
            space=SPACE,
            objectives=OBJECTIVES,
            run_seed=self.seed,
            index=len(trials),
            limits=self.limits,
        )

    def ask(self) -> Genotype:
        self.store.optuna.sampler = build_sampler(self.sampler, self.request())
        trial, genotype = propose(self.store.optuna, SPACE)
        self.store.record_proposal(trial, genotype=genotype, seed=0, generation=0, config=dict(genotype.values))
        return genotype

    def tell(self, state: TrialState, rungs: int = 2) -> None:
        """Tell how the last proposal ended; RUNNING leaves it waiting for its training."""
        trial = self.store.study().trials[-1]
        if state is TrialState.DUPLICATE:
            self.store.finish(trial.number, state, reason="same network as trial 0")
            return
        margins = {name: cost_of(trial.genotype).macs_g / limit - 1 for name, limit in self.limits.items()}
        self.store.record_cost(trial.number, cost_of(trial.genotype), margins)
        if state in (TrialState.COMPLETE, TrialState.STOPPED):
            for rung in range(rungs if state is TrialState.COMPLETE else 1):
                self.store.record_measurement(trial, measured(trial.genotype, rung))
        if state is not TrialState.RUNNING:
            values = [quality(trial.genotype) + rungs - 1, cost_of(trial.genotype).macs_g]
            complete = state is TrialState.COMPLETE
            self.store.finish(trial.number, state, values=values if complete else None, reason="" if complete else "so")

    def go(self, count: int, states: tuple[TrialState, ...] = (TrialState.COMPLETE,)) -> list[Genotype]:
        found: list[Genotype] = []
        for number in range(count):
            found.append(self.ask())
            self.tell(states[number % len(states)])
        return found

    def copy(self) -> Run:
        """Return a run that knows only the records, as after a restart."""
        other = Run(self.sampler, self.seed, self.limits)
        other.store = MemoryStore("run", OBJECTIVES, self.store.records)
        return other


# -- the suite ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", EVERY)
def test_proposals_are_points_of_the_space_in_type_and_value(name: str):
    for genotype in Run(name).go(20):
        assert SPACE.contains(genotype)


@pytest.mark.parametrize("name", EVERY)
def test_proposals_hold_a_conditional_parameter_where_it_counts_alone(name: str):
    for genotype in Run(name).go(18):
        assert ("window" in genotype.values) == (genotype["attention"] == "window")
        assert ("depth" in genotype.values) == (genotype["split"] is True)


@pytest.mark.parametrize("name", EVERY)
def test_a_seed_gives_one_run_and_another_seed_another(name: str):
    first = Run(name, seed=3).go(16)
    assert Run(name, seed=3).go(16) == first
    assert Run(name, seed=4).go(16) != first


@pytest.mark.parametrize("name", EVERY)
def test_a_stopped_run_proposes_what_the_unbroken_one_would_have(name: str):
    whole = Run(name).go(20)
    begun = Run(name)
    assert begun.go(14) + begun.copy().go(6) == whole


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize("state", [*TrialState])
def test_nothing_told_but_one_state_is_survived(name: str, state: TrialState):
    run = Run(name, limits={"macs_g": 2.0})
    run.go(1, (state,))
    assert SPACE.contains(run.ask())


@pytest.mark.parametrize("name", EVERY)
def test_a_run_of_every_state_goes_on(name: str):
    run = Run(name, limits={"macs_g": 4.0})
    assert len(set(run.go(3 * len(TrialState), tuple(TrialState)))) > 5


@pytest.mark.parametrize("name", EVERY)
def test_proposals_vary_and_none_is_the_first_one_for_ever(name: str):
    assert len(set(Run(name).go(24))) > 8


def test_every_name_is_known_to_the_experiment_file_but_the_one_for_comparison():
    from search.experiment.sections import SearchSection

    offered = SearchSection.model_json_schema()["properties"]["sampler"]["enum"]
    assert [name for name in SAMPLERS if name != "tpe-default"] == offered


def test_gp_without_its_package_says_what_to_install(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(samplers, "find_spec", lambda name: None if name == "torch" else find_spec(name))
    with pytest.raises(InputError, match="gp needs torch, which cannot be imported here") as error:
        Run("gp").ask()
    assert "pip install torch" in str(error.value)


# -- the warm-up -------------------------------------------------------------------------------------


def test_auto_begins_at_the_small_end():
    first = Run("auto").ask()
    assert first == smallest_point(SPACE)
    assert (first["width"], first["levels"], first["ratio"], first["depth"]) == (8, 1, 1.5, 1)


def test_a_space_without_numbers_has_no_small_end():
    space = SearchSpace([Parameter("mixer", ("a", "b", "c"))])
    request = Request(trials=(), space=space, objectives=OBJECTIVES, run_seed=0, index=0)
    sampler = build_sampler("auto", request)
    run = MemoryStore("plain", OBJECTIVES)
    run.optuna.sampler = sampler
    assert propose(run.optuna, space)[1] == spread_point(request)


def test_the_warm_up_sees_every_choice_equally_often():
    request = Run("auto").request()
    points = [spread_point(replace(request, index=i)) for i in range(6)]
    for parameter in (p for p in SPACE.parameters if not p.conditions):
        times = [sum(p[parameter.name] == choice for p in points) for choice in parameter.choices]
        assert set(times) == {6 // len(parameter.choices)}


def test_every_round_of_the_warm_up_has_an_order_of_its_own():
    parameter = Parameter("width", tuple(range(12)))
    request = replace(Run("auto").request(), space=SearchSpace([parameter]))
    orders = [[spread_point(replace(request, index=12 * lap + i))["width"] for i in range(12)] for lap in range(3)]
    assert [sorted(order) for order in orders] == [list(range(12))] * 3
    assert len(set(map(tuple, orders))) == 3


def test_seeds_differ_by_run_proposal_and_purpose():
    seeds = {proposal_seed(run, index, purpose) for run in (0, 1) for index in (0, 1) for purpose in (0, 1)}
    assert len(seeds) == 8


def test_evenly_spaced_whole_numbers_are_ordered_and_the_rest_are_choices():
    assert distribution_of(Parameter("levels", (1, 2, 3))) == IntDistribution(1, 3, step=1)
    assert distribution_of(Parameter("width", (8, 12, 16))) == IntDistribution(8, 16, step=4)
    assert distribution_of(Parameter("width", (8, 12, 24))) == CategoricalDistribution((8, 12, 24))
    assert distribution_of(Parameter("window", (12, 8))) == CategoricalDistribution((12, 8))
    assert distribution_of(Parameter("split", (True, False))) == CategoricalDistribution((True, False))


# -- our own -----------------------------------------------------------------------------------------


def test_local_search_changes_one_choice_of_a_member_of_the_front():
    run = Run("local")
    run.go(WARM_UP)
    study = run.store.study()
    child = run.ask()
    shared = [t.genotype.values for t in study.trials if child.key not in {t.key for t in study.trials}]
    apart = [sum(values[n] != child.values[n] for n in values.keys() & child.values.keys()) for values in shared]
    assert min(apart) == 1


def test_evolution_lets_only_the_youngest_have_children(make_trial):
    # The ten oldest are better than all others, and differ from them in both parameters.
    space = SearchSpace([Parameter("a", tuple(range(40))), Parameter("b", tuple(range(40)))])
    points = [{"a": i, "b": 0 if i < 10 else 39} for i in range(10 + POPULATION)]
    figures_of = [(40.0, 1.0) if i < 10 else (30.0, 2.0) for i in range(10 + POPULATION)]
    trials = [
        replace(make_trial(i, psnr_db=psnr, macs_g=macs), genotype=Genotype(point), key=Genotype(point).key)
        for i, (point, (psnr, macs)) in enumerate(zip(points, figures_of, strict=True))
    ]
    for index in range(WARM_UP, WARM_UP + 20):
        request = Request(trials=trials, space=space, objectives=OBJECTIVES, run_seed=1, index=index)
        child = evolved_point(request)
        assert child["b"] == 39 or child["a"] in range(10, 10 + POPULATION)


@pytest.mark.parametrize("name", ["auto", "local", "evolution"])
def test_ours_propose_nothing_twice_while_there_is_something_new(name: str):
    found = Run(name).go(40)
    after = found[WARM_UP:]
    assert len(set(after)) == len(after)
    assert not set(after) & set(found[:WARM_UP])


def test_auto_finds_the_best_of_216_points_within_40():
    assert SPACE.size == 216
    best = max(SPACE.enumerate(), key=quality)
    assert quality(best) in {quality(point) for point in Run("auto").go(40)}


def test_auto_keeps_to_a_limit_that_most_points_miss():
    limits = {"macs_g": 1.3}
    share = np.mean([cost_of(point).macs_g <= 1.3 for point in SPACE.enumerate()])
    run = Run("auto", limits=limits)
    for _ in range(30):
        point = run.ask()
        over = cost_of(point).macs_g > 1.3
        run.tell(TrialState.INFEASIBLE if over else TrialState.COMPLETE)
    later = run.store.study().trials[WARM_UP:]
    kept = np.mean([cost_of(t.genotype).macs_g <= 1.3 for t in later])
    assert kept > 2 * share


def test_auto_seeks_elsewhere_than_where_candidates_wait_for_their_training():
    run = Run("auto")
    run.go(WARM_UP)
    waiting = run.go(6, (TrialState.RUNNING,))
    assert len(set(waiting)) == 6


def test_with_too_little_known_the_model_promises_nothing():
    run = Run("auto")
    run.go(2)
    assert guided_point(run.request()) is None


def test_an_early_stop_is_judged_by_what_others_gained_from_there_on(make_trial):
    trials = [
        make_trial(0, psnr_db=31.0, latency_ms=4.0, macs_g=2.0),
        make_trial(1, psnr_db=30.0, latency_ms=4.0, macs_g=2.0, rungs=1),
        make_trial(2),
    ]
    told = figures(trials, "psnr_db")
    assert told[:2] == pytest.approx([-31.0, -30.8])
    assert np.isnan(told[2])
    assert figures(trials, "latency_ms")[:2] == pytest.approx([2.0, 2.0])


def test_coding_takes_points_there_and_back():
    coding = Coding(SPACE)
    points = list(SPACE.enumerate())
    rows = coding.encode(points)
    assert [coding.decode(row) for row in rows] == points
    assert len(np.unique(rows, axis=0)) == SPACE.size


def test_drawn_rows_and_neighbours_are_points():
    coding, rng = Coding(SPACE), np.random.default_rng(0)
    rows = coding.draw(rng, 200)
    assert all(SPACE.contains(coding.decode(row)) for row in rows)
    near = coding.neighbours(rows[0], rng)
    assert all(SPACE.contains(coding.decode(row)) for row in near)
    free = [i for i, p in enumerate(SPACE.parameters) if not p.is_fixed]
    assert len(near) == sum(len(SPACE.parameters[i].choices) - 1 for i in free if rows[0][i] != OFF)


def test_distance_counts_steps_between_numbers_and_differing_choices():
    space = SearchSpace([Parameter("width", (8, 16, 12)), Parameter("mixer", ("a", "b"))])
    coding = Coding(space)
    rows = coding.encode(space.canonical(v) for v in ({"width": 8, "mixer": "a"}, {"width": 12, "mixer": "b"}))
    assert coding.apart(rows, rows) == pytest.approx(np.array([[0.0, 0.75], [0.75, 0.0]]))


def test_a_model_says_again_what_it_was_told_and_is_less_sure_far_away():
    coding = Coding(SPACE)
    points = [SPACE.sample(seed) for seed in range(40)]
    rows = coding.encode(points)
    values = np.array([quality(point) for point in points])
    told = fit(coding.apart(rows, rows), values, np.random.default_rng(0)).predict(coding.apart(rows, rows))
    assert np.corrcoef(told.mean, values)[0, 1] > 0.98
    model = fit(coding.apart(rows[:3], rows[:3]), values[:3], np.random.default_rng(0))
    far = model.predict(coding.apart(rows, rows[:3])).deviation
    assert far[:3].max() < far.max()


@pytest.mark.parametrize("objectives", [1, 2, 3, 4])
def test_improvement_is_what_the_hypervolume_grows_by(objectives: int):
    rng = np.random.default_rng(objectives)
    reference = np.full(objectives, 0.9)
    for members in (0, 1, 6):
        front, points = rng.random((members, objectives)), rng.random((5, objectives))
        before = hypervolume(front, reference)
        grown = [hypervolume(np.vstack([front, point[None]]), reference) - before for point in points]
        assert improvement(front, reference, points) == pytest.approx(grown, abs=1e-12)


def test_a_study_in_memory_tells_optuna_what_a_folder_would(make_study):
    run = Run("random", limits={"macs_g": 1.0})
    run.go(4, (TrialState.COMPLETE, TrialState.INFEASIBLE, TrialState.STOPPED, TrialState.FAILED))
    states = [trial.state.name for trial in run.store.optuna.get_trials()]
    assert states == ["COMPLETE", "PRUNED", "PRUNED", "FAIL"]
    assert isinstance(run.store.study(), Study)
