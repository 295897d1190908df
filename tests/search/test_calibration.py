"""What is read off a calibration's record: agreement, predictors, the verdict. Curves are made by hand."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import kendalltau

from search.calibration.figure import draw_calibration
from search.calibration.fitting import FAMILIES, check_rungs, fit_predictor, left_out
from search.calibration.record import RECORD, Candidate, Curve, Record, read_record, write_record
from search.calibration.statistics import (
    _weighted_recall,
    _weighted_tau,
    kendall_tau,
    ordering,
    read_agreement,
    table_of,
    top_recall,
)
from search.calibration.summary import write_findings
from search.calibration.verdict import best_rate, least_keep, range_table, read_findings, recommend_rungs, survival
from search.prediction import features_at, read_predictor
from search.types import Cost, Genotype, InputError, Measurement, StoreError, Trial, TrialState

STEPS = (40, 80, 160, 240, 400, 800)
RUNGS = (80, 240, 800)


def made_record(*, count: int = 12, noise_db: float = 0.0, slow_db: float = 1.0, seeds: int = 2) -> Record:
    """Return curves that end the higher the more parameters there are, and start the lower the more levels."""
    rng = np.random.default_rng(0)
    candidates, curves = [], []
    for number in range(count):
        levels, params_m = 1 + number % 3, 0.01 * 1.3**number
        genotype = {"levels": levels, "width": 8}
        candidates.append(
            Candidate(number=number, genotype=genotype, config={}, params_m=params_m, macs_g=1 + 0.1 * (number % 5))
        )
        for seed in range(seeds):
            luck = noise_db * rng.normal()
            end = 30 + 0.1 * number + luck
            psnr_db = tuple(end - slow_db * (levels - 0.5) * float(np.log2(STEPS[-1] / s)) / 3 for s in STEPS)
            curves.append(
                Curve(
                    candidate=number,
                    seed=seed,
                    learning_rate=0.004,
                    steps=STEPS,
                    psnr_db=psnr_db,
                    raw_psnr_db=tuple(p - 0.1 for p in psnr_db),
                    whole_psnr_db=end + 1,
                    elapsed_s=1.0,
                )
            )
    conditions = {
        "task": {"kind": "denoise", "sigma": 25.0, "channels": 3, "data": {"folder": "embedded"}},
        "proxy": {"batch": 8, "patch_px": 32, "learning_rate": 0.004, "data_seed": 0},
        "limits": {"params_m": 1.0},
        "crop_px": 192,
        "baseline": {"train_images": 8, "images": ["a.png", "b.png"], "host": "A processor"},
    }
    return Record(
        name="made",
        identity="i",
        space="s",
        conditions=conditions,
        candidates=tuple(candidates),
        curves=tuple(curves),
    )


@pytest.fixture(scope="module")
def record() -> Record:
    return made_record(noise_db=0.02)


# -- statistics --------------------------------------------------------------------------------------


def test_tau_by_hand():
    # Of three pairs two agree and one does not: (2 - 1) / 3.
    assert kendall_tau([1, 2, 3], [1, 3, 2]) == pytest.approx(1 / 3)
    assert kendall_tau([1, 1, 1], [1, 2, 3]) == 0


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=2, max_size=12))
def test_tau_is_that_of_scipy(pairs: list[tuple[int, int]]):
    first, second = zip(*pairs, strict=True)
    expected = 0.0 if len(set(first)) == 1 or len(set(second)) == 1 else kendalltau(first, second).statistic
    assert kendall_tau(first, second) == pytest.approx(expected)


@given(
    st.lists(st.integers(0, 3), min_size=5, max_size=5).filter(lambda w: sum(w) > 1),
    st.permutations(range(5)),
    st.permutations(range(5)),
)
def test_weights_count_a_candidate_as_often_as_its_copies_would(
    weights: list[int], first: list[int], second: list[int]
):
    x, y = np.array(first, dtype=np.float64), np.array(second, dtype=np.float64)
    counted = np.array([weights], dtype=np.float64)
    copies = [np.repeat(v, weights) for v in (x, y)]
    assert _weighted_tau(x, y, counted)[0] == pytest.approx(kendall_tau(*copies))
    if sum(weights) >= 4:
        top = max(1, round(len(x) / 4))
        best = [sorted(v)[-top:] for v in copies]
        assert top == 1
        assert _weighted_recall(x, y, counted)[0] == (copies[1][np.argmax(copies[0])] == best[1][-1])


def test_recall_by_hand():
    # Of eight, the best two are 6 and 7; the scores put 7 and 0 first.
    assert top_recall([9, 1, 2, 3, 4, 5, 6, 8], range(8)) == 0.5


def test_seeds_without_noise_agree_fully_and_params_order_what_they_made():
    agreement = read_agreement(table_of(made_record()))
    assert (agreement.ceiling.value, agreement.ceiling.low, agreement.ceiling.high) == (1, 1, 1)
    assert agreement.params.tau.value == 1
    assert agreement.seed_sd_db == pytest.approx(0)
    assert agreement.spread_db == pytest.approx(1.1)
    assert agreement.whole_tau == 1


def test_an_early_bias_of_families_shows_overall_and_not_within_levels():
    agreement = read_agreement(table_of(made_record()))
    first = agreement.values[0]
    assert first.tau.value < 0.5
    assert all(tau == 1 for tau in first.by_levels.values())
    assert agreement.values[-1].tau.value == 1


def test_agreement_across_seeds_never_holds_a_seed_against_itself():
    table = table_of(made_record(noise_db=0.5))
    order = ordering(table, table.last)
    by_hand = np.mean([kendall_tau(table.last[0], table.last[1]), kendall_tau(table.last[1], table.last[0])])
    assert order.tau_across.value == pytest.approx(by_hand)
    assert order.tau_across.value < order.tau.value


def test_candidates_without_all_seeds_are_left_out(record: Record):
    short = dataclasses.replace(record, curves=record.curves[:-1])
    assert [c.number for c in table_of(short).candidates] == list(range(11))


def test_one_seed_is_too_little():
    with pytest.raises(ValueError, match="curves of all of 1 seed"):
        table_of(made_record(seeds=1))


# -- the predictor -----------------------------------------------------------------------------------


def test_a_prediction_never_saw_its_candidate(record: Record):
    table = table_of(record)
    honest = left_out(table, RUNGS, 1, "curve, costs")
    changed = table.psnr_db.copy()
    changed[:, 3, -1] += 5
    assert np.array_equal(
        honest[:, 3], left_out(dataclasses.replace(table, psnr_db=changed), RUNGS, 1, "curve, costs")[:, 3]
    )


def test_what_the_curve_shows_beats_its_value(record: Record):
    table = table_of(record)
    value, predicted = (
        ordering(table, scores).tau.value for scores in (table.psnr_db[:, :, 3], left_out(table, RUNGS, 1, "curve"))
    )
    assert predicted > value + 0.2


def trial_of(candidate: Candidate, curve: Curve, rung: int) -> Trial:
    cost = Cost(
        params_m=candidate.params_m, params_train_m=1, params_active_m=1, macs_g=candidate.macs_g, macs_at="8x8"
    )
    measurements = tuple(
        Measurement(
            rung=i,
            step=step,
            psnr_db=curve.psnr_db[STEPS.index(step)],
            ssim=0.5,
            psnr_per_image_db=(),
            elapsed_s=1,
            loss=0,
        )
        for i, step in enumerate(RUNGS[: rung + 1])
    )
    genotype = Genotype(candidate.genotype)
    return Trial(
        number=candidate.number,
        state=TrialState.RUNNING,
        genotype=genotype,
        key=genotype.key,
        seed=0,
        generation=0,
        cost=cost,
        measurements=measurements,
    )


@pytest.mark.parametrize("family", [name for name in FAMILIES if name != "costs"])
def test_a_predictor_read_back_predicts_a_trial_near_its_end(record: Record, family: str, tmp_path: Path):
    fitted = fit_predictor(record, table_of(record), RUNGS, family, {})
    path = tmp_path / "p.json"
    from search.prediction import predictor_to_json

    path.write_text(json.dumps(predictor_to_json(fitted)))
    predictor = read_predictor(path)
    assert predictor == fitted
    errors = []
    for candidate in record.candidates:
        curve = record.curve_of(candidate.number, 0)
        assert curve is not None
        trial = trial_of(candidate, curve, rung=1)
        errors.append(predictor.predict(trial, 1) - curve.psnr_db[-1])
        features = features_at(
            [(80, curve.psnr_db[1]), (240, curve.psnr_db[3])],
            params_m=candidate.params_m,
            macs_g=candidate.macs_g,
            levels=candidate.levels,
        )
        assert predictor.predict(trial, 1) == predictor.models[1].predict(features)
        assert predictor.predict(trial_of(candidate, curve, rung=2), 2) == curve.psnr_db[-1]
    assert np.std(errors) < 0.4
    assert abs(np.mean(errors)) < 0.05


def test_gain_is_for_a_doubling_of_steps():
    # From 80 to 320 steps are two doublings, in which it rose by 1 dB.
    seen = features_at([(80, 29.0), (320, 30.0)], params_m=0.5, macs_g=4.0, levels=2)
    assert seen == {"psnr_db": 30.0, "gain_db": 0.5, "log2_params": -1.0, "log2_macs": 2.0, "levels=2": 1.0}


def test_a_trial_without_the_rung_is_refused(record: Record):
    predictor = fit_predictor(record, table_of(record), RUNGS, "value", {})
    with pytest.raises(ValueError, match="was not measured at rung 1"):
        predictor.predict(trial_of(record.candidates[0], record.curves[0], rung=0), 1)


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"schema": 2, "models": []}'])
def test_a_damaged_predictor_is_told(tmp_path: Path, text: str):
    path = tmp_path / "p.json"
    path.write_text(text)
    with pytest.raises(InputError, match=r"p\.json: not a predictor of schema 1"):
        read_predictor(path)


# -- the verdict -------------------------------------------------------------------------------------


def test_rungs_stay_where_they_do_and_move_where_they_do_not(record: Record):
    table = table_of(record)
    assert recommend_rungs(table, "value, levels", floor=0.0, present=(160, 400, 800)) == (160, 400, 800)
    late = recommend_rungs(table, "value", floor=0.0, present=(40, 80, 800))
    assert late[0] > 40
    assert late[-1] == 800


def test_keep_is_the_least_share_that_lets_the_best_through(record: Record):
    table = table_of(record)
    upside_down = dataclasses.replace(table, psnr_db=table.psnr_db * np.where(np.array(STEPS) < 800, -1, 1))
    assert least_keep(table, (400, 800), "value, levels", "extrapolated") == 0.25
    assert least_keep(upside_down, (400, 800), "value", "value") == 1.0


def test_within_strata_each_sends_its_share_and_by_value_the_slow_send_nobody():
    # The best three end with numbers 9, 10 and 11: one of each number of levels, and those of three start lowest.
    table = table_of(made_record(slow_db=9))
    shares = survival(table, (80, 800), 0, "value, levels", keep=0.25).shares
    assert shares["within_strata"] == 1
    assert shares["value"] == pytest.approx(1 / 3)


def test_rungs_that_tell_less_than_counting_are_warned_of():
    warned = read_findings(made_record(), RUNGS, 0.35).words
    assert any(line.startswith("WARNING: no rung but the last beats costs alone") for line in warned)


def test_rungs_that_are_no_steps_are_refused(record: Record):
    with pytest.raises(InputError, match=r"rungs \[100, 800\]: not steps of the ladder"):
        check_rungs(table_of(record), (100, 800))


def test_a_rate_at_which_one_diverged_is_left_out(record: Record):
    rates = [
        dataclasses.replace(record.curves[2 * c], learning_rate=rate, psnr_db=tuple(p + 9 * rate for p in STEPS))
        for rate in (0.01, 0.02, 0.04)
        for c in range(2)
    ]
    rows = range_table(rates[:-1])
    assert [row.learning_rate for row in rows] == [0.01, 0.02]
    best = best_rate(rows)
    assert best is not None
    assert best.learning_rate == 0.02
    assert range_table([]) == ()


# -- files -------------------------------------------------------------------------------------------


def test_a_record_comes_back_as_it_was(record: Record, tmp_path: Path):
    write_record(tmp_path, record)
    assert read_record(tmp_path) == record
    assert read_record(tmp_path / "elsewhere") is None


def test_a_damaged_record_is_told(tmp_path: Path):
    (tmp_path / RECORD).write_text("{")
    with pytest.raises(StoreError, match=r"record\.json: not a calibration's record"):
        read_record(tmp_path)


def test_the_files_say_what_was_found(record: Record, tmp_path: Path):
    findings = read_findings(record, RUNGS, 0.35)
    names = {path.name for path in write_findings(tmp_path, record, findings)}
    assert names == {"predictor.json", "calibration.json", "calibration.png", "README.md"}
    page = (tmp_path / "README.md").read_text()
    assert all(line in page for line in findings.words)
    assert f"**{findings.family}**" in page
    stored = json.loads((tmp_path / "calibration.json").read_text())
    assert stored["agreement"]["ceiling"]["value"] == findings.agreement.ceiling.value
    assert read_predictor(tmp_path / "predictor.json") == findings.predictor


def test_the_figure_names_all_that_is_compared(record: Record):
    findings = read_findings(record, RUNGS, 0.35)
    curves, agreement = draw_calibration(record, findings).axes
    labels = " ".join(agreement.get_legend_handles_labels()[1])
    for name in ("between seeds", "parameters alone", "MACs alone", "value, averaged", f"predictor: {findings.family}"):
        assert name in labels
    assert curves.get_legend_handles_labels()[1] == ["1 level", "2 levels", "3 levels"]
