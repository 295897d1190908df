"""The trainings of a calibration: what is drawn, what is looked at, what a stop costs; and runs that rank by it."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from search import ladder
from search.calibration.record import Candidate, Curve, Record, read_record
from search.calibration.verdict import FIRST_TAU, read_findings
from search.cli.app import app
from search.cli.calibrating import default_ladder
from search.evaluation.evaluator import task_data
from search.evaluation.proxy import ProxyTraining
from search.executors import InlineExecutor
from search.experiment import Experiment, load_experiment
from search.experiment.calibrations import FOLDER, calibration_words
from search.experiment.loading import spaces_folder
from search.ladder import Calibration, LadderJob, centres, draw_candidates, ladder_plan, train_ladder
from search.prediction import Predictor, RungModel, predictor_to_json, read_predictor
from search.schedulers import BY_VALUE, WITHIN_LEVELS
from search.types import EvaluationError, InputError, SpecError, StoreError

Tiny = Callable[..., Experiment]


@pytest.fixture(autouse=True)
def small_pool(monkeypatch: pytest.MonkeyPatch) -> None:
    """Draw from few points: counting each takes a while."""
    monkeypatch.setattr(ladder, "POOL", 2)


def calibration(experiment: Experiment, folder: Path, **options) -> Calibration:
    folder.mkdir(exist_ok=True)
    settings = {"candidates": 4, "seeds": 2, "steps": [1, 2], "crop_px": 32}
    return Calibration(experiment, folder, InlineExecutor(), **{**settings, **options})


def untimed(record: Record) -> Record:
    return dataclasses.replace(record, curves=tuple(dataclasses.replace(c, elapsed_s=0) for c in record.curves))


# -- what is drawn -----------------------------------------------------------------------------------


def test_candidates_keep_to_the_limits_and_come_from_all_levels_alike(tiny: Tiny):
    experiment = tiny("budget.params_m=0.01")
    drawn = draw_candidates(experiment, 4)
    assert all(c.params_m <= 0.01 for c in drawn)
    assert [c.levels for c in drawn] == [1] * 2 + [2] * 2
    assert [c.number for c in drawn] == list(range(4))
    assert len({json.dumps(dict(c.genotype)) for c in drawn}) == 4
    assert draw_candidates(experiment, 4) == drawn


def test_a_stratum_is_spread_from_its_cheapest_to_its_dearest():
    members = [
        Candidate(number=i, genotype={"levels": 1}, config={}, params_m=1, macs_g=macs)
        for i, macs in enumerate((1.0, 1.1, 1.2, 3.9, 4.1, 16.0))
    ]
    assert [c.macs_g for c in ladder._spread(members, 3)] == [1.0, 4.1, 16.0]
    assert len(ladder._spread(members, 9)) == 6


def test_too_many_candidates_are_refused(tiny: Tiny):
    one_network = ["width", "levels", "bottleneck_blocks", "kernel_size", "num_experts"]
    experiment = tiny(*(f"space.{name}={value}" for name, value in zip(one_network, (4, 1, 0, 3, 1), strict=True)))
    with pytest.raises(InputError, match="2 of 3 candidates were found within the limits"):
        draw_candidates(experiment, 3)


@pytest.mark.parametrize("steps", [[], [2, 2], [4, 2], [0, 2]])
def test_a_ladder_rises(tiny: Tiny, steps: list[int]):
    with pytest.raises(InputError, match="not a ladder"):
        ladder_plan(tiny(), steps, 64)


def test_the_default_ladder_holds_all_rungs():
    assert default_ladder((80, 240, 800)) == [40, 80, 160, 240, 320, 400, 480, 560, 640, 720, 800]
    assert default_ladder((2, 4)) == [1, 2, 3, 4]


# -- what is looked at -------------------------------------------------------------------------------


def test_the_centres_are_parts_of_the_photographs_that_fit_each_other(tiny: Tiny):
    data = task_data(tiny().evaluation_plan().task)
    for whole, centre in zip(data.validation, centres(data, 32).validation, strict=True):
        assert centre.clean.shape[:2] == (32, 32)
        assert centre.degraded.shape[:2] == (16, 16)
        assert np.array_equal(centre.clean, whole.clean[16:48, 16:48])
        assert np.array_equal(centre.degraded, whole.degraded[8:24, 8:24])
    assert all(
        np.array_equal(a.clean, b.clean) for a, b in zip(data.validation, centres(data, 640).validation, strict=True)
    )


def test_a_curve_is_the_training_of_a_run_looked_at_on_the_way(tiny: Tiny):
    experiment = tiny()
    [candidate, *_] = draw_candidates(experiment, 4)
    job = LadderJob(candidate=0, config=dict(candidate.config), seed=1, learning_rate=0.002)
    curve = train_ladder(ladder_plan(experiment, [1, 3], 640), job)
    plan = experiment.evaluation_plan()
    proxy = dataclasses.replace(plan.proxy, learning_rate=0.002, data_seed=plan.proxy.data_seed + 1)
    seed = int(np.random.SeedSequence([1, 0]).generate_state(1)[0])
    from hfir.config import HFIRConfig

    training = ProxyTraining(HFIRConfig.from_dict(job.config), proxy, task_data(plan.task), seed)
    training.run_to(3)
    expected = np.mean([q.psnr_db for q in training.validate().qualities])
    assert curve.psnr_db[-1] == pytest.approx(expected)
    assert curve.whole_psnr_db == pytest.approx(expected)
    assert curve.raw_psnr_db[-1] != curve.psnr_db[-1]


# -- stops -------------------------------------------------------------------------------------------


class Stop(Exception):
    pass


def stopping_after(trainings: int) -> Callable[[Record, int], None]:
    def look(record: Record, wanted: int) -> None:
        if len(record.curves) == trainings:
            raise Stop

    return look


def test_a_stopped_calibration_goes_on_without_repeating_a_training(tiny: Tiny, tmp_path: Path):
    unbroken = calibration(tiny(), tmp_path / "a").run()
    with pytest.raises(Stop):
        calibration(tiny(), tmp_path / "b", onlooker=stopping_after(5)).run()
    stopped = read_record(tmp_path / "b")
    assert stopped is not None
    assert len(stopped.curves) == 5
    going_on = calibration(tiny(), tmp_path / "b")
    assert going_on.missing == 3
    assert untimed(going_on.run()) == untimed(unbroken)
    assert going_on.record.curves[:5] == stopped.curves
    assert len({(c.candidate, c.seed) for c in unbroken.curves}) == len(unbroken.curves) == 8


def test_more_seeds_go_on_from_fewer(tiny: Tiny, tmp_path: Path):
    first = calibration(tiny(), tmp_path / "a", seeds=1).run()
    both = calibration(tiny(), tmp_path / "a", seeds=2).run()
    assert both.curves[:4] == first.curves
    assert [c.seed for c in both.curves[4:]] == [1] * 4


def test_other_conditions_are_refused_in_the_same_folder(tiny: Tiny, tmp_path: Path):
    calibration(tiny(), tmp_path / "a")
    with pytest.raises(StoreError, match="holds a calibration of tiny under other conditions"):
        calibration(tiny("proxy.learning_rate=0.001"), tmp_path / "a")
    calibration(tiny("proxy.keep=0.9", "proxy.rungs=[1, 2]", "search.trials=99"), tmp_path / "a")


def test_a_range_test_trains_a_few_at_each_rate_and_leaves_out_what_diverges(tiny: Tiny, tmp_path: Path, monkeypatch):
    real = ladder.train_ladder

    def diverging(plan, job) -> Curve:
        if job.learning_rate == 0.5:
            raise EvaluationError("training diverged: the loss is nan")
        return real(plan, job)

    monkeypatch.setattr(ladder, "train_ladder", diverging)
    record = calibration(tiny(), tmp_path / "a").run_range_test([0.001, 0.5], candidates=2, step=2)
    assert [(c.candidate, c.learning_rate) for c in record.range_test] == [(0, 0.001), (3, 0.001)]
    assert record.curves == ()


# -- the command -------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_command_leaves_a_verdict_and_a_predictor_that_a_run_can_rank_by(tiny_file: Path, tmp_path: Path):
    out = tmp_path / "calibration"
    words = ["calibrate", str(tiny_file), "--out", str(out), "--quick", "--candidates", "6", "--crop", "32"]
    words += ["--rates", "0.002,0.004", "--workers", "1", "--json"]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)
    assert told["rungs"] == [2, 4, 6]
    assert len(told["rates"]) == 2
    assert "Missing: 12 trainings of 6 steps, about" in done.stderr
    assert {p.name for p in out.iterdir()} >= {"record.json", "predictor.json", "calibration.png", "README.md"}

    experiment = load_experiment(tiny_file, ["proxy.rank_by=extrapolated", f"proxy.predictor={out / 'predictor.json'}"])
    assert experiment.predictor is not None
    assert experiment.ranking.expected_psnr_db == experiment.predictor.predict

    again = CliRunner().invoke(app, [w for w in words if w != "--json"])
    assert again.exit_code == 0, again.output
    assert "Missing:" not in again.stderr
    assert "Recommended: rungs" in again.stdout


def test_one_rung_has_no_order_to_be_judged(tiny_file: Path, tmp_path: Path):
    words = ["calibrate", str(tiny_file), "--out", str(tmp_path), "--set", "proxy.rungs=[4]"]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 2
    assert "One rung has no early order to be judged" in done.stderr


@pytest.mark.parametrize(("option", "text"), [("--steps", "4,x"), ("--rates", "0.1,-1"), ("--steps", "9,3")])
def test_a_list_that_is_none_is_told(tiny_file: Path, tmp_path: Path, option: str, text: str):
    done = CliRunner().invoke(app, ["calibrate", str(tiny_file), "--out", str(tmp_path), option, text])
    assert done.exit_code == 2
    assert f"{option} {text}: not a l" in done.stderr.replace("9,3: not a ladder", "9,3: not a l")


# -- runs that rank by it ----------------------------------------------------------------------------


def made_predictor(experiment: Experiment, **changes) -> Predictor:
    """Return one for the tiny experiment that expects the more, the fewer parameters there are."""
    models = tuple(
        RungModel(
            step=step,
            features=("log2_params", "levels=1", "levels=2"),
            means=(0.0, 0.0, 0.0),
            scales=(1.0, 1.0, 1.0),
            coefficients=(-1.0, 0.0, 0.0),
            intercept=0.0,
            alpha=1.0,
            tau=0.5,
            tau_low=0.1,
            tau_high=0.8,
        )
        for step in experiment.proxy.rungs[:-1]
    )
    fields = {
        "name": experiment.name,
        "space": experiment.space.hash,
        "task": {k: v for k, v in experiment.spec["task"].items() if k != "data"},
        "proxy": {"batch": 2, "patch_px": 12, "learning_rate": 0.004},
        "rungs": experiment.proxy.rungs,
        "fitted_on": "made by hand",
        "models": models,
        "facts": {},
    }
    return Predictor(**{**fields, **changes})


@pytest.fixture
def ranked(tiny: Tiny, tmp_path: Path) -> Callable[..., Experiment]:
    """Return a loader of the tiny experiment that ranks by a predictor, with changes to the latter."""

    def load(*overrides: str, name: str = "p.json", **changes) -> Experiment:
        path = tmp_path / name
        path.write_text(json.dumps(predictor_to_json(made_predictor(tiny(), **changes))))
        return tiny("proxy.rank_by=extrapolated", f"proxy.predictor={path}", *overrides)

    return load


def test_a_run_ranks_as_its_file_says(tiny: Tiny, ranked: Callable[..., Experiment]):
    assert tiny().ranking == WITHIN_LEVELS
    assert tiny("proxy.rank_by=value").ranking == BY_VALUE
    assert ranked().ranking.expected_psnr_db is not None


def test_how_a_run_ranks_is_part_of_what_it_is(tiny: Tiny, ranked: Callable[..., Experiment]):
    default = tiny().identity
    assert tiny("proxy.rank_by=within_strata").identity == default
    others = [tiny("proxy.rank_by=value"), ranked(), ranked(rungs=(2, 4, 6), fitted_on="other candidates")]
    assert len({default, *(e.identity for e in others)}) == 4
    assert ranked(name="elsewhere.json").identity == ranked().identity


def test_a_run_under_the_predictor_promotes_whom_it_expects_most_of(ranked: Callable[..., Experiment], search_in):
    study = search_in(ranked("objectives=[psnr_db, macs_g]"), "run")
    trained = [t for t in study.trials if t.measurements]
    complete = [t for t in trained if len(t.measurements) == 3]
    smallest = min(trained, key=lambda t: t.cost.params_m)
    assert smallest in complete
    assert len(complete) < len(trained)


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"proxy": {"learning_rate": 0.1}}, "was fitted with learning_rate = 0.1, and here it is 0.004"),
        ({"task": {"kind": "denoise"}}, "was fitted with task = {'kind': 'denoise'}"),
        ({"rungs": (2, 4, 9)}, r"was fitted with rungs = \[2, 4, 9\], and here it is \[2, 4, 6\]"),
    ],
)
def test_a_predictor_of_other_conditions_is_refused(ranked: Callable[..., Experiment], changes, problem: str):
    with pytest.raises(SpecError, match=problem):
        ranked(**changes)


def test_a_predictor_that_never_saw_such_a_network_is_refused(tiny: Tiny, ranked: Callable[..., Experiment]):
    seen = [
        dataclasses.replace(m, features=("log2_params", "levels=1", "levels=3")) for m in made_predictor(tiny()).models
    ]
    with pytest.raises(SpecError, match="has seen no network of 2 levels"):
        ranked(models=tuple(seen))


def test_a_predictor_that_is_not_there_is_told_with_its_key(tiny: Tiny, tmp_path: Path):
    with pytest.raises(SpecError, match=r"proxy\.predictor: .*nowhere\.json: not a predictor"):
        tiny("proxy.rank_by=extrapolated", f"proxy.predictor={tmp_path / 'nowhere.json'}")


# -- what ships --------------------------------------------------------------------------------------

ROOT = Path(__file__).parents[3]
SHIPPED = sorted((spaces_folder() / FOLDER).glob("*.json"))


@pytest.mark.parametrize("path", SHIPPED, ids=[path.stem for path in SHIPPED])
def test_a_shipped_calibration_is_of_its_space_and_its_first_rung_orders_better_than_the_number_of_parameters(
    path: Path,
):
    experiment = load_experiment(path.stem, ["proxy.rank_by=extrapolated"])
    assert experiment.predictor is not None
    facts = experiment.predictor.facts
    first = facts["tau_of_value"][str(experiment.proxy.rungs[0])][0]
    assert first >= FIRST_TAU
    assert first > facts["tau_of_params"][0]
    words = calibration_words(load_experiment(path.stem))
    assert words.startswith("Calibrated: ")
    # MACs alone may order as well as the first rung does, so their figure stands next to it.
    alone = max((facts[f"tau_of_{cost}"][0], name) for cost, name in (("params", "parameters"), ("macs", "MACs")))
    assert f"is {experiment.proxy.rungs[0]}: {first:.2f}" in words
    assert f"of {alone[1]} alone {alone[0]:.2f}" in words


def test_the_shipped_predictor_is_what_its_record_gives():
    record = read_record(ROOT / "results" / "reference" / "calibration" / "efficient")
    assert record is not None
    experiment = load_experiment("efficient")
    assert record.space == experiment.space.hash
    found = read_findings(record, experiment.proxy.rungs, experiment.proxy.keep).predictor
    shipped = read_predictor(SHIPPED[0])
    assert found.rungs == shipped.rungs
    for ours, theirs in zip(found.models, shipped.models, strict=True):
        assert ours.features == theirs.features
        assert ours.coefficients == pytest.approx(theirs.coefficients, rel=1e-4)
        assert ours.tau == pytest.approx(theirs.tau)


def test_a_space_that_nobody_calibrated_is_said_to_be_so(tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    assert calibration_words(tiny()).startswith("Not calibrated: ")
    assert calibration_words(load_experiment("efficient", ["proxy.learning_rate=0.01"])).startswith("Not calibrated: ")
