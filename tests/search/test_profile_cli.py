"""`hfir-search profile`: the table, the sentence, its JSON, and what it says of runs from before there were records."""

import json
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from search.cli.app import app
from search.cli.profiling import profile_lines, profile_record
from search.report import conditions
from search.report.profile import read_profile
from search.store import RunStore

SESSION = {
    "since": "process",
    "workers": 2,
    "before_s": 0.0,
    "wall_s": 100.0,
    "phases": {
        "start_up": 6.0,
        "proposing": 1.0,
        "measuring": 10.0,
        "training": 79.0,
        "recording": 1.0,
        "results": 3.0,
    },
    "parts": {
        "start_up": {"imports": 2.0, "starting": 3.0},
        "measuring": {"latency": 9.0, "rest": 1.0},
        "training": {"starting": 3.0, "steps": 130.0, "validation": 18.0, "rest": 2.0},
        "results": {"imports": 1.5, "preset_costs": 1.0, "rest": 0.5},
    },
    "counts": {"proposing": 30, "measuring": 20, "training": 10},
    "busy_s": [79.0, 71.0],
}
BY_RAY = {**SESSION, "workers": None, "busy_s": None}


@pytest.fixture
def run(rich_study, tmp_path):
    """Return a function that calls the command on a run with such sessions."""

    def call(*options, sessions=(SESSION,), elapsed_s=95.0):
        store = RunStore(tmp_path, name="handmade", objectives=rich_study.objectives, identity="i", spec={})
        store.note("elapsed_s", elapsed_s)
        for number, session in enumerate(sessions):
            store.note(f"profile:{number}", session)
        return CliRunner().invoke(app, ["profile", str(tmp_path), *options])

    return call


def test_the_table_has_each_phase_and_the_sentence_follows(run):
    text = run().output
    assert "Where 100.0 s of handmade went" in text
    for name, seconds, share in (
        ("start-up", "6.0", "6.0%"),
        ("training", "79.0", "79.0%"),
        ("all", "100.0", "100.0%"),
    ):
        [line] = [line for line in text.splitlines() if line.startswith(f"{name} ")]
        assert line.split()[1:3] == [seconds, share]
    assert "10.0% of the wall time was neither training nor measuring." in text  # presets' costs are measuring
    assert "workers were busy 95% of the time (worker 0: 100%, 1: 90%)" in text
    assert "2, one thread each, engine pool" in text


def test_json_holds_the_same_in_seconds_and_shares(run):
    record = json.loads(run("--json", sessions=(SESSION, SESSION)).output)
    assert record["recorded"] is True
    assert record["sessions"] == 2
    assert record["wall_s"] == pytest.approx(200.0)
    assert sum(record["phases_s"].values()) == pytest.approx(record["wall_s"])
    assert record["overhead"] == pytest.approx(0.1)
    assert record["workers_busy_s"] == pytest.approx(300.0)
    assert record["workers_idle_s"] == pytest.approx(16.0)
    assert record["workers"][1] == {"worker": 1, "busy_s": 142.0, "busy": pytest.approx(142 / 158, abs=1e-3)}
    assert record["counts"] == {"proposing": 60, "measuring": 40, "training": 20}
    assert record["parts_s"]["training"] == {"steps": 260.0, "validation": 36.0, "rest": 4.0}


def test_of_a_run_without_records_it_says_what_is_missing_and_what_can_be_told(rich_study, run):
    text = run(sessions=()).output
    assert "from before its time was recorded by phases" in text
    assert "neither training nor measuring" not in text
    lines = profile_lines(rich_study, read_profile(rich_study))
    assert any("of training steps, summed over" in line for line in lines)
    record = profile_record(rich_study, read_profile(rich_study))
    assert (record["recorded"], record["wall_s"], record["overhead"]) == (False, None, None)
    assert record["training_steps_s"] > 0
    assert record["slowest"][0]["train_s"] == max(s["train_s"] for s in record["slowest"])


def test_time_from_before_the_records_is_said_to_be_missing(run):
    assert "Not in it: 50 s from before its time" in run(sessions=({**SESSION, "before_s": 50.0},)).output


def test_with_an_unknown_number_of_workers_idle_time_is_not_known_and_that_is_said(run):
    text = run(sessions=(BY_RAY,)).output
    assert "Workers: how many there were is not known, so neither is their idle time." in text
    assert "idle  " not in text
    record = json.loads(run("--json", sessions=(BY_RAY,)).output)
    assert (record["workers_idle_s"], record["workers"]) == (None, [])


def test_the_report_says_it_in_one_line(make_study):
    told = conditions(make_study(facts={"profile": {"0": SESSION}}))["Where it went"]
    assert told.startswith("start-up 6.0%, proposing 1.0%, measuring 10.0%, training 79.0%")
    assert "10.0% of the wall time was neither training nor measuring" in told
    assert "Where it went" not in conditions(make_study())


def test_a_folder_without_a_run_is_refused(tmp_path):
    assert CliRunner().invoke(app, ["profile", str(tmp_path / "nothing")]).exit_code == 2


def test_reading_a_profile_loads_no_torch(run, tmp_path):
    run()
    code = (
        "import sys\nfrom pathlib import Path\nfrom search.cli.profiling import show_profile\n"
        f"show_profile(Path({str(tmp_path)!r}), as_json=True)\nassert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)


def test_a_driver_that_starts_its_workers_loads_neither_torch_nor_ray():
    code = "import sys\nimport search.cli.running, search.study\nassert not {'torch', 'ray'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
