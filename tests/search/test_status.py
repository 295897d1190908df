"""Where a run stands, read from its folder by somebody else: recorded or not, running or not, whole or damaged."""

import dataclasses
import json
import time

import pytest
from filelock import FileLock
from typer.testing import CliRunner

from search.cli import status as command
from search.cli.app import app
from search.cli.status import status_lines, status_record
from search.cli.textplot import Mark, text_plot
from search.report import read_status
from search.store import JOURNAL, LOCK, RunStore, is_held
from search.types import Genotype, InputError, StoreError, TrialState

WHOLE = {"bottleneck_blocks": 0, "encoder_blocks.1": 1, "decoder_blocks.1": 0, "decoder_blocks.2": 0}
"""What the command line's tables print of a genotype and hand-made ones leave out."""


@pytest.fixture
def write(tmp_path):
    """Write a hand-made study as a run's folder, as the driver would have recorded it; return the folder."""

    def record(study, folder=None):
        folder = folder or tmp_path / "run"
        store = RunStore(folder, name=study.name, objectives=study.objectives, identity="x", spec=study.spec)
        for key, value in study.facts.items():
            store.note(key, value)
        for trial in study.trials:
            number = store.record_proposal(
                store.optuna.ask(),
                genotype=Genotype({**WHOLE, **trial.genotype.values}),
                seed=trial.seed,
                generation=trial.generation,
                config=trial.config,
            )
            if trial.cost is not None:
                store.record_cost(number, trial.cost, {})
            for place, measurement in enumerate(trial.measurements):
                so_far = dataclasses.replace(trial, number=number, measurements=trial.measurements[:place])
                store.record_measurement(so_far, measurement)
            if trial.state is not TrialState.RUNNING:
                complete = trial.state is TrialState.COMPLETE
                values = [trial.value(name) for name in study.objectives] if complete else None
                store.finish(number, trial.state, values=values, reason=trial.reason, failure=trial.failure)
        (folder / "experiment.yaml").write_text("name: handmade\n")
        return folder

    return record


def text_of(folder):
    return "\n".join(status_lines(read_status(folder)))


def call(*arguments):
    return CliRunner().invoke(app, [str(a) for a in arguments])


def test_it_counts_states_rungs_and_rejections(write, rich_study):
    status = read_status(write(rich_study))
    assert status.states == {
        "RUNNING": 1,
        "COMPLETE": 5,
        "STOPPED": 2,
        "SCREENED": 0,
        "INFEASIBLE": 3,
        "DUPLICATE": 1,
        "FAILED": 1,
    }
    assert (status.admitted, status.trials) == (9, 48)
    assert [(r.step, r.reached, r.waiting) for r in status.rungs] == [(100, 8, 1), (400, 6, 0), (1200, 5, 0)]
    assert status.rejections == {
        "over the limit of MACs (G)": 1,
        "over the limit of latency (ms)": 1,
        "no legal network: num_heads = 5 does not divide width": 1,
    }
    assert [t.number for t in status.front] == [4, 1, 5, 0]
    assert status.trained_s == pytest.approx(5 * 30 + 20 + 2 * 10)


def test_what_was_withdrawn_is_told_apart(write, rich_study):
    facts = {**rich_study.facts, "withdrawn": {"0": "latency_ms 61 > 60"}}
    rejections = read_status(write(dataclasses.replace(rich_study, facts=facts))).rejections
    assert rejections["withdrawn when measured again"] == 1


def test_a_stopped_run_says_how_to_go_on(write, rich_study):
    folder = write(rich_study)
    status = read_status(folder)
    assert (status.is_running, status.finished) == (False, False)
    assert status.command == f"hfir-search run {folder}/experiment.yaml --out {folder}"
    assert "stopped, not finished" in text_of(folder)


def test_a_folder_with_a_space_is_quoted_in_the_command(write, rich_study, tmp_path):
    assert f"--out '{tmp_path}/my run'" in read_status(write(rich_study, tmp_path / "my run")).command


def test_a_finished_run_says_how_to_get_more(write, rich_study):
    done = tuple(t for t in rich_study.trials if t.state is not TrialState.RUNNING)
    facts = {**rich_study.facts, "finished": 48}
    folder = write(dataclasses.replace(rich_study, trials=done, facts=facts))
    assert read_status(folder).finished
    assert read_status(folder).command.endswith("--trials 96")


def test_a_finished_run_that_is_asked_for_more_trials_is_not_finished(write, rich_study):
    done = tuple(t for t in rich_study.trials if t.state is not TrialState.RUNNING)
    facts = {**rich_study.facts, "finished": 24}
    assert not read_status(write(dataclasses.replace(rich_study, trials=done, facts=facts))).finished


def test_a_run_whose_lock_is_held_is_running(write, rich_study):
    folder = write(rich_study)
    with FileLock(folder / LOCK):
        status = read_status(folder)
        assert status.is_running is True
        assert status.command == ""
        assert status.elapsed_s is not None
    assert read_status(folder).is_running is False


def test_looking_leaves_the_lock_free_and_makes_none(write, rich_study):
    folder = write(rich_study)
    assert is_held(folder) is False
    assert not (folder / LOCK).exists()
    (folder / LOCK).touch()
    assert is_held(folder) is False
    with FileLock(folder / LOCK, timeout=0):
        pass


def test_the_time_of_a_run_that_stands_still_ends_with_its_last_record(write, rich_study):
    folder = write(rich_study)
    first = read_status(folder).elapsed_s
    time.sleep(0.05)
    assert read_status(folder).elapsed_s == first
    assert 0 <= first < 60


def test_the_front_is_plotted_with_units(write, rich_study):
    text = text_of(write(rich_study))
    assert "Front so far: 4 members (*), 1 dominated (.)" in text
    for part in ("PSNR (dB)", "latency (ms), logarithmic", "31.60", "30.70"):
        assert part in text
    panel = [line for line in text.splitlines() if " |" in line]
    assert sum(line.count("*") for line in panel) == 4
    assert panel[0].rstrip().endswith("*")


# -- odd folders -------------------------------------------------------------------------------------


def test_a_folder_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(InputError, match="no such folder"):
        read_status(tmp_path / "nowhere")
    done = call("status", tmp_path / "nowhere")
    assert done.exit_code == 2
    assert "no such folder" in done.stderr


def test_a_folder_of_something_else_is_refused(tmp_path):
    (tmp_path / "front.png").touch()
    done = call("status", tmp_path)
    assert done.exit_code == 2
    assert "no run has begun here" in done.stderr


@pytest.mark.parametrize("trace", [LOCK, JOURNAL, "experiment.yaml"])
def test_a_folder_without_records_is_a_run_that_has_none_yet(tmp_path, trace):
    (tmp_path / trace).touch()
    done = call("status", tmp_path)
    assert done.exit_code == 0
    assert "not running" in done.stdout
    assert "Nothing is recorded here yet" in done.stdout
    for other in ("front", "select"):
        assert call(other, tmp_path).exit_code == 2


def test_tables_without_a_journal_are_pointed_to(tmp_path):
    (tmp_path / "trials.csv").touch()
    assert f"its journal ({JOURNAL}) is not" in text_of(tmp_path)


def test_a_run_that_was_killed_before_it_said_what_it_searches_is_read(write, rich_study):
    folder = write(dataclasses.replace(rich_study, trials=()))
    lines = (folder / JOURNAL).read_bytes().splitlines(keepends=True)
    for kept in range(1, len(lines)):
        (folder / JOURNAL).write_bytes(b"".join(lines[:kept]))
        for name in ("status", "front", "select"):
            done = call(name, folder)
            assert done.exit_code == 0, (kept, done.output, done.exception)
            assert "no candidate" in done.stdout.lower()


@pytest.mark.parametrize("name", ["status", "front", "select", "explain"])
def test_one_trial_and_only_rejected_ones_give_clear_words(write, make_trial, make_study, tmp_path, name):
    arguments = ["front", "--explain"] if name == "explain" else [name]
    one = write(make_study([make_trial(0, psnr_db=31.0, latency_ms=5.0, macs_g=1.0)]), tmp_path / "one")
    state = TrialState.INFEASIBLE
    rejected = [make_trial(n, state, macs_g=9.0, peak_mem_mib=None, reason="macs_g 9 > 8") for n in range(2)]
    none = write(make_study(rejected), tmp_path / "none")
    for folder in (one, none):
        for extra in ([], ["--json"]):
            done = call(*arguments, folder, *extra)
            assert done.exit_code == int(folder == none and name != "status"), (done.output, done.exception)
            assert extra == [] or json.loads(done.stdout)
    if name == "status":
        assert "no candidate is complete yet" in call("status", none).stdout.lower()
    else:
        told = call(*arguments, none).stderr
        assert "no candidate is complete: of 2 considered, 2 over the limit of MACs (G)" in told
        assert "hfir-search check" in told


@pytest.mark.parametrize("name", ["front", "select"])
def test_a_run_whose_first_candidates_are_still_in_training_is_no_failure(write, make_trial, make_study, name):
    states = (TrialState.INFEASIBLE, TrialState.RUNNING)
    trials = [make_trial(n, state, macs_g=9.0, reason="macs_g 9 > 8") for n, state in enumerate(states)]
    done = call(name, write(make_study(trials)))
    assert (done.exit_code, "no candidate is complete yet" in done.stdout) == (0, True)


def test_a_torn_tail_costs_no_more_than_the_last_record(write, rich_study):
    folder = write(rich_study)
    whole = (folder / JOURNAL).read_bytes()
    last = whole.rstrip(b"\n").rfind(b"\n") + 1
    for cut in (whole[: last + 1], whole[:-1], whole + b"\x00" * 64, whole + b'{"op_code": 9, "wor', whole + b"{\n"):
        (folder / JOURNAL).write_bytes(cut)
        for name in ("status", "front", "select"):
            assert call(name, folder).exit_code == 0
        assert len(read_status(folder).study.trials) == len(rich_study.trials)
        assert (folder / JOURNAL).read_bytes() == cut  # looked at, not touched


@pytest.mark.parametrize("damage", [b"{\n{}\n", b"[1]\n", b"7\n", b"\xff\xfe\n", b'{"op_code": 99}\n{}\n'])
def test_a_journal_damaged_before_its_end_is_an_error_in_words(write, rich_study, damage):
    folder = write(rich_study)
    with (folder / JOURNAL).open("ab") as file:
        file.write(damage)
    with pytest.raises(StoreError, match="the journal is damaged"):
        read_status(folder)
    done = call("status", folder)
    assert done.exit_code == 1
    assert "Restore it from a copy" in done.stderr


# -- the command -------------------------------------------------------------------------------------


def test_json_holds_what_the_words_do(write, rich_study):
    folder = write(rich_study)
    record = json.loads(call("status", folder, "--json").stdout)
    assert record == json.loads(json.dumps(status_record(read_status(folder))))
    assert record["states"]["COMPLETE"] == 5
    assert [row["trial"] for row in record["front"]] == [4, 1, 5, 0]


def test_watching_ends_with_the_run(write, rich_study, monkeypatch):
    folder = write(rich_study)
    looks = iter([True, True, False])
    pauses = []
    monkeypatch.setattr(command.time, "sleep", pauses.append)
    monkeypatch.setattr("search.report.status.is_held", lambda folder: next(looks))
    done = call("status", folder, "--watch", 2)
    assert done.exit_code == 0
    assert pauses == [2.0, 2.0]
    assert done.stdout.count("running") == 2
    assert done.stdout.count("stopped, not finished") == 1


@pytest.mark.parametrize("seconds", ["0", "-1", "inf"])
def test_a_pause_must_be_positive(tmp_path, seconds):
    done = call("status", tmp_path, "--watch", seconds)
    assert done.exit_code == 2
    assert "not a pause" in done.stderr


def test_select_takes_bounds_and_preferences(write, rich_study):
    folder = write(rich_study)
    done = call("select", folder, "--latency-ms", "<20", "--psnr-db", ">30.8", "--prefer", "macs_g", "--json")
    record = json.loads(done.stdout)
    assert [t["number"] for t in record["candidates"]] == [4, 1]
    assert record["bounds"] == ["latency_ms < 20", "psnr_db > 30.8"]
    weighted = call("select", folder, "--weight", "psnr_db=2", "--weight", "latency_ms=1", "--json")
    assert [t["number"] for t in json.loads(weighted.stdout)["candidates"]] == [1, 0, 4, 5]
    none = call("select", folder, "--latency-ms", "<4", "--psnr-db", "31")
    assert none.exit_code == 1
    assert "no member of the front keeps to all bounds" in none.stderr
    assert call("select", folder, "--latency-ms", "<4", "--psnr-db", "31", "--json").exit_code == 1
    assert "It misses: latency_ms 5.10 at the upper end, not < 4: 1.10 over" in none.stdout
    assert "latency (ms) < 4 excludes 4, its upper end counts; 2 by it alone" in none.stdout
    assert "Together they exclude 4 of 4 members." in none.stdout


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("--prefer", "ssim", "--weight", "ssim=1"), "are both given"),
        (("--prefer", "speed"), "no figure speed"),
        (("--weight", "ssim"), "Write NAME=NUMBER"),
        (("--weight", "ssim=-1"), "finite and > 0"),
        (("--latency-ms", ">20"), "or a range"),
    ],
)
def test_select_refuses_what_makes_no_sense(tmp_path, options, told):
    done = call("select", tmp_path, *options)
    assert done.exit_code == 2
    assert told in done.stderr


def test_json_has_no_word_for_what_is_not_finite(write, make_trial, make_study):
    trial = make_trial(0, psnr_db=31.0, latency_ms=5.0, macs_g=1.0)
    diverged = dataclasses.replace(trial.last, loss=float("nan"))
    folder = write(make_study([dataclasses.replace(trial, measurements=(diverged,))]))
    record = json.loads(call("select", folder, "--json").stdout, parse_constant=pytest.fail)
    assert record["candidates"][0]["measurements"][0]["loss"] is None


# -- the plot ----------------------------------------------------------------------------------------


def test_a_plot_puts_ends_at_the_corners_and_ratios_evenly():
    marks = [Mark(x=1, y=10, sign="a"), Mark(x=10, y=20, sign="b"), Mark(x=100, y=30, sign="c")]
    assert text_plot(marks, x_label="x (ms)", y_label="y (dB)", columns=21, rows=3).splitlines() == [
        "y (dB)",
        "30.00 |                    c",
        "      |          b",
        "10.00 |a",
        "      +---------------------",
        "       1                 100",
        "        x (ms), logarithmic",
    ]


def test_a_plot_of_one_point_or_none_is_no_crash():
    assert "o" in text_plot([Mark(x=5, y=30, sign="o")], x_label="x", y_label="y")
    assert text_plot([], x_label="x", y_label="y") == ""
    assert text_plot([Mark(x=float("nan"), y=1, sign="o"), Mark(x=0, y=1, sign="o")], x_label="x", y_label="y") == ""
