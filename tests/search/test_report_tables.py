"""Tables of a run: their columns, types and files; the funnel; reading a run from its folder."""

import dataclasses
import json
import re
from pathlib import Path

import pandas as pd
import pytest

from search.report import COLUMNS, Run, front_frame, funnel, load_run, trials_frame, write_atomically, write_tables
from search.store import RunStore
from search.types import InputError, TrialState

FIXED = ["trial", "name", "state", "reason", "key", "psnr_db", "ssim", "latency_ms", "macs_g", "params_m"]
FIXED += ["peak_mem_mib"]
FIXED += ["steps", "train_s", "seed", "expert_load_entropy", "expert_dead"]
FIXED += ["seeds", "psnr_mean_db", "psnr_low_db", "psnr_high_db", "psnr_interval", "front_probability", "score"]


def test_the_columns_are_fixed_then_the_dimensions_as_the_file_lists_them_then_the_rest(rich_study):
    dimensions = ["space.width", "space.levels", "space.encoder_blocks.1", "space.encoder_blocks.2", "space.zoom"]
    assert list(trials_frame(rich_study).columns) == [*FIXED, *dimensions, "config"]


def test_the_described_columns_are_the_real_ones_and_have_their_types(rich_study):
    frame = trials_frame(rich_study)
    real = list(dict.fromkeys("space.<name>" if name.startswith("space.") else name for name in frame.columns))
    assert real == list(COLUMNS)
    described = {name: column.dtype for name, column in COLUMNS.items() if column.dtype}
    assert {name: str(frame[name].dtype) for name in described} == described


def test_the_documentation_describes_the_columns_as_the_code_does():
    page = Path(__file__).parents[2] / "docs" / "tables.md"
    rows = re.findall(r"^\| `(.+?)` \| (.+?) \| (.+?) \| (.+) \|$", page.read_text(encoding="utf-8"), re.MULTILINE)
    written = [(name, c.unit or "–", c.dtype or "of the dimension", c.meaning) for name, c in COLUMNS.items()]
    assert rows == written


def test_a_front_under_other_objectives_has_the_same_columns_and_the_runs_own_by_default(rich_study):
    run = Run(study=rich_study, trials=trials_frame(rich_study), front=front_frame(rich_study))
    pd.testing.assert_frame_equal(run.front_over(), run.front)
    front = run.front_over("psnr_db", "params_m")
    assert front.dtypes.equals(run.trials.dtypes)
    complete = run.trials[run.trials["state"] == "COMPLETE"].dropna(subset=["psnr_db", "params_m"])
    beaten = [
        ((complete["psnr_db"] >= row.psnr_db) & (complete["params_m"] <= row.params_m)
         & ((complete["psnr_db"] > row.psnr_db) | (complete["params_m"] < row.params_m))).any()
        for row in complete.itertuples()
    ]  # fmt: skip
    assert sorted(front["trial"]) == sorted(complete["trial"][[not is_beaten for is_beaten in beaten]])


def test_a_front_over_an_unknown_figure_is_refused(rich_study):
    run = Run(study=rich_study, trials=trials_frame(rich_study), front=front_frame(rich_study))
    with pytest.raises(InputError, match="psnr"):
        run.front_over("psnr", "params_m")


def test_there_is_one_row_a_candidate_whatever_its_state(rich_study):
    frame = trials_frame(rich_study)
    assert frame["trial"].tolist() == list(range(13))
    assert set(frame["state"]) == set(TrialState) - {TrialState.SCREENED}  # which has a test of its own


def test_figures_are_those_of_the_last_rung_reached(rich_study):
    row = trials_frame(rich_study).set_index("trial").loc[12]
    assert (row["psnr_db"], row["steps"], row["train_s"]) == (30.8, 400, 20.0)


def test_what_is_not_known_is_missing(rich_study):
    frame = trials_frame(rich_study).set_index("trial")
    assert frame.loc[6, ["psnr_db", "latency_ms", "steps", "peak_mem_mib"]].isna().all()
    assert frame.loc[6, "macs_g"] == 8.109
    assert frame.loc[8, ["macs_g", "config"]].isna().all()


def test_the_least_balanced_mixture_and_the_dead_experts_of_all_are_told(expert_study):
    frame = trials_frame(expert_study).set_index("trial")
    assert frame.loc[0, ["expert_load_entropy", "expert_dead"]].tolist() == [0.5, 2]
    assert frame.loc[1, ["expert_load_entropy", "expert_dead"]].tolist() == [1.0, 0]
    assert frame.loc[2, ["expert_load_entropy", "expert_dead"]].isna().all()


def test_an_inactive_dimension_is_missing(rich_study):
    frame = trials_frame(rich_study).set_index("trial")
    assert frame.loc[0, "space.encoder_blocks.2"] == 1
    assert frame["space.encoder_blocks.2"].isna().sum() == 12


def test_types_fit_the_figures_and_do_not_depend_on_the_rows_shown(rich_study):
    whole, front = trials_frame(rich_study), front_frame(rich_study)
    expected = {"trial": "Int64", "steps": "Int64", "seed": "Int64", "psnr_db": "float64", "space.width": "Int64"}
    assert {name: str(whole[name].dtype) for name in expected} == expected
    assert whole.dtypes.equals(front.dtypes)


@pytest.mark.parametrize(
    ("values", "dtype"),
    [
        ([True, False], "boolean"),
        ([1, 2], "Int64"),
        ([1.0, 2.0], "float64"),
        ([1, 2.5], "float64"),
        (["a", 1], "string"),
    ],
)
def test_a_dimension_has_the_type_of_its_values(make_trial, make_study, values, dtype):
    genotypes = [{"width": 8, "levels": 1, "extra": value} for value in values]
    study = make_study([make_trial(n, genotype=g) for n, g in enumerate(genotypes)])
    assert str(trials_frame(study)["space.extra"].dtype) == dtype


def test_numbers_within_names_sort_as_numbers(make_trial, make_study):
    genotype = {"width": 8, "levels": 1, "encoder_blocks.10": 1, "encoder_blocks.2": 1}
    columns = [c for c in trials_frame(make_study([make_trial(0, genotype=genotype)])) if "blocks" in c]
    assert columns == ["space.encoder_blocks.2", "space.encoder_blocks.10"]


def test_the_front_holds_what_is_not_dominated_by_rising_latency(rich_study):
    assert front_frame(rich_study)["trial"].tolist() == [4, 1, 5, 0]


def test_a_config_reads_back_as_it_was(rich_study):
    assert json.loads(front_frame(rich_study)["config"].iloc[0]) == rich_study.trials[4].config


def test_an_empty_study_gives_empty_tables_with_the_fixed_columns(make_study):
    for frame in (trials_frame(make_study()), front_frame(make_study())):
        assert len(frame) == 0
        assert list(frame.columns) == [*FIXED, "config"]


def test_the_files_read_back_as_the_tables(rich_study):
    paths = {path.name: path for path in write_tables(rich_study)}
    assert sorted(paths) == ["front.csv", "trials.csv", "trials.parquet"]
    pd.testing.assert_frame_equal(pd.read_parquet(paths["trials.parquet"]), trials_frame(rich_study))
    assert pd.read_csv(paths["front.csv"])["trial"].tolist() == [4, 1, 5, 0]
    assert pd.read_csv(paths["trials.csv"])["trial"].tolist() == list(range(13))


def test_writing_leaves_no_draft_behind_and_replaces_the_old_file(tmp_path):
    path = tmp_path / "table.csv"
    path.write_bytes(b"old")
    assert write_atomically(path, b"new") == path
    assert [p.name for p in tmp_path.iterdir()] == ["table.csv"]
    assert path.read_bytes() == b"new"


def test_the_funnel_counts_every_candidate_where_it_ended(rich_study):
    assert funnel(rich_study) == {
        "considered": 13,
        "duplicate": 1,
        "illegal": 1,
        "over_params_m": 0,
        "over_macs_g": 1,
        "over_latency_ms": 1,
        "screened": 0,
        "trained": 8,
        "stopped": 2,
        "complete": 5,
        "withdrawn": 0,
        "failed": 1,
        "running": 1,
    }


def test_a_candidate_over_two_limits_counts_under_the_first(make_trial, make_study):
    reason = "params_m 1.5 > 1, macs_g 9.1 > 8"
    counted = funnel(make_study([make_trial(0, TrialState.INFEASIBLE, macs_g=9.1, reason=reason)]))
    assert (counted["over_params_m"], counted["over_macs_g"]) == (1, 0)


def test_a_candidate_that_was_screened_out_counts_as_that_and_keeps_its_score(make_trial, make_study):
    trial = make_trial(0, TrialState.SCREENED, macs_g=1.0, reason="screened out before its first rung: naswot 4.2")
    study = make_study([dataclasses.replace(trial, scores={"naswot": 4.2})])
    assert (funnel(study)["screened"], funnel(study)["trained"], funnel(study)["stopped"]) == (1, 0, 0)
    assert trials_frame(study)["score"].tolist() == [4.2]


def test_a_withdrawn_candidate_counts_as_trained_and_withdrawn(make_trial, make_study):
    reason = "measured again at the end: latency_ms 61 > 60"
    trial = make_trial(0, TrialState.INFEASIBLE, psnr_db=31.0, latency_ms=59.0, macs_g=1.0, reason=reason)
    counted = funnel(make_study([trial], facts={"withdrawn": {"0": reason}}))
    assert (counted["trained"], counted["withdrawn"], counted["over_latency_ms"]) == (1, 1, 0)


def test_a_run_is_read_from_its_folder(tmp_path):
    store = RunStore(
        tmp_path, name="stored", objectives=("psnr_db", "latency_ms"), identity="i", spec={"objectives": ["psnr_db"]}
    )
    store.note("baseline", {"psnr_db": 29.5})
    run = load_run(str(tmp_path))
    assert isinstance(run, Run)
    assert (run.study.name, run.baseline_psnr_db) == ("stored", 29.5)
    assert (len(run.trials), len(run.front)) == (0, 0)


def test_a_folder_without_a_run_is_refused(tmp_path):
    with pytest.raises(InputError, match="holds no run"):
        load_run(tmp_path)
