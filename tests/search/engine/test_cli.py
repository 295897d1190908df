"""The command line as its user meets it: exit codes, signals, files; in a process of its own where that matters.

A process takes seconds to start, so commands that need none are called in this one (`call`, of the fixtures).
"""

from __future__ import annotations

import dataclasses
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from click.testing import Result

from search import load_run
from search.cli import checking, running
from search.evaluation.made_up import MARK, SWITCH
from search.feasibility import Feasibility, check_feasibility
from search.report.profile import read_profile
from search.store import JOURNAL, hold, is_held, read_study
from search.types import Study, TrialState

COMMAND = str(Path(sys.executable).with_name("hfir-search"))
Call = Callable[..., Result]


def processed(*arguments: object, cwd: Path | None = None, measured: bool = False) -> subprocess.CompletedProcess[str]:
    """Call the command line in a process of its own."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"} | ({SWITCH: ""} if measured else {})
    return subprocess.run(
        [COMMAND, *map(str, arguments)], capture_output=True, text=True, cwd=cwd, env=environment, check=False
    )


@pytest.fixture(scope="session")
def finished(tiny_file: Path, made_once: Callable[..., Path]) -> Path:
    """Return the folder of a run from one end to the other: its own processes, its figures measured."""

    def run(folder: Path) -> None:
        done = processed("run", tiny_file, "--workers", 2, "--out", folder / "tiny", measured=True)
        assert done.returncode == 0, done.stderr
        assert "Pareto front of tiny" in done.stdout
        assert MARK not in done.stderr

    return made_once("cli", run) / "tiny"


def test_the_figures_of_a_run_are_measured_on_this_machine(finished: Path, monkeypatch: pytest.MonkeyPatch):
    from search.evaluation.host import host_name

    monkeypatch.delenv(SWITCH)
    for trial in read_study(finished).in_state(TrialState.COMPLETE):
        assert trial.cost is not None
        assert trial.cost.latency is not None
        assert trial.cost.latency.host == host_name()
        assert MARK not in f"{host_name()} {trial.cost.latency.runtime}"
        assert trial.cost.latency.reference_ratio, "a reference was timed beside it"
        assert trial.cost.peak_mem_mib


def test_a_run_by_worker_processes_finds_what_a_run_in_one_process_does(finished: Path, unbroken: Study):
    assert len(read_profile(read_study(finished)).workers) == 2
    assert story(finished) == story(unbroken.folder)


def test_a_run_leaves_its_files(finished: Path):
    expected = {
        "study.journal",
        "experiment.yaml",
        "run.log",
        "trials.csv",
        "trials.parquet",
        "front.csv",
        "front.png",
        "report.html",
        "presets",
        "checkpoints",
    }
    assert expected <= {path.name for path in finished.iterdir()}
    assert {path.name for path in (finished / "presets").iterdir()} == {"fastest", "balanced", "best"}


def test_the_tables_have_the_columns_that_others_rely_on(finished: Path):
    trials = pd.read_csv(finished / "trials.csv")
    fixed = ["trial", "name", "state", "reason", "key", "psnr_db", "ssim", "latency_ms", "macs_g", "params_m"]
    fixed += ["peak_mem_mib", "steps", "train_s", "seed", "expert_load_entropy", "expert_dead"]
    fixed += ["seeds", "psnr_mean_db", "psnr_low_db", "psnr_high_db", "psnr_interval", "front_probability"]
    fixed += ["score"]
    assert list(trials.columns[:23]) == fixed
    assert trials.columns[-1] == "config"
    assert all(column.startswith("space.") for column in trials.columns[23:-1])
    front = pd.read_csv(finished / "front.csv")
    assert list(front.columns) == list(trials.columns)
    assert front["macs_g"].is_monotonic_increasing  # the first cost among the objectives
    run = load_run(finished)
    assert len(run.trials) == len(trials)


def test_presets_score_what_their_trials_did_and_hfir_alone_loads_them(finished: Path):
    from ruamel.yaml import YAML

    import hfir
    from search.evaluation.evaluator import task_data
    from search.evaluation.proxy import validate
    from search.experiment import load_experiment

    data = task_data(load_experiment(finished / "experiment.yaml").evaluation_plan().task)
    trials = {t.number: t for t in read_study(finished).trials}
    for folder in (finished / "presets").iterdir():
        card = YAML(typ="safe").load(folder / "preset.yaml")
        network = hfir.load_preset(folder)
        assert network.config.fused
        scores = [q.psnr_db for q in validate(network, data)]
        assert sum(scores) / len(scores) == pytest.approx(card["measured"]["psnr_db"], abs=0.01)
        assert trials[card["provenance"]["trial"]].value("psnr_db") == pytest.approx(
            card["measured"]["psnr_db"], abs=1e-4
        )


@pytest.mark.usefixtures("measured_figures")
def test_a_finished_run_says_so_and_keeps_its_record(finished: Path, tiny_file: Path, call: Call):
    before = len(read_study(finished).trials)
    again = call("run", tiny_file, "--out", finished)
    assert again.exit_code == 0
    assert "is finished: 6 candidates were trained" in again.stderr
    assert len(read_study(finished).trials) == before


@pytest.mark.usefixtures("measured_figures")
def test_the_resolved_experiment_is_the_same_experiment(finished: Path, call: Call):
    again = call("run", finished / "experiment.yaml", "--out", finished)
    assert again.exit_code == 0, again.stderr
    assert "is finished" in again.stderr


def test_front_and_select_print_tables_and_json(finished: Path, call: Call):
    assert "Pareto front of tiny" in call("front", finished).stdout
    front = json.loads(call("front", finished, "--json").stdout)
    assert front["front"]
    assert {"trial", "psnr_db", "macs_g"} <= set(front["front"][0])
    chosen = json.loads(call("select", finished, "--params-m", 1, "--json").stdout)
    assert len(chosen["candidates"]) == len(front["front"])
    none = call("select", finished, "--params-m", 0.000001)
    assert none.exit_code == 1
    assert "No member of the front keeps to all bounds" in none.stdout
    explained = json.loads(call("front", finished, "--explain", "--json").stdout)["explanation"]
    assert [m["trial"] for m in explained["members"]] == [row["trial"] for row in front["front"]]


def test_status_says_that_a_run_is_finished(finished: Path, call: Call):
    told = json.loads(call("status", finished, "--json").stdout)
    assert (told["finished"], told["is_running"]) == (True, False)
    assert call("status", finished, "--watch", 1).stdout.startswith(f"{finished}: finished")


def test_a_run_is_compared_with_a_copy_of_itself(finished: Path, tmp_path: Path, call: Call):
    (tmp_path / "copy").mkdir()
    (tmp_path / "copy" / JOURNAL).write_bytes((finished / JOURNAL).read_bytes())
    told = call("compare", finished, tmp_path / "copy", "-o", tmp_path / "both.png", "--json")
    assert told.exit_code == 0, told.stderr
    assert len({run["hypervolume_db_doublings"] for run in json.loads(told.stdout)["runs"]}) == 1
    assert (tmp_path / "both.png").is_file()


@pytest.mark.usefixtures("measured_figures")
def test_quiet_prints_nothing_and_json_prints_only_json(finished: Path, tiny_file: Path, call: Call):
    quiet = call("run", tiny_file, "--out", finished, "--quiet")
    assert (quiet.exit_code, quiet.stdout, quiet.stderr) == (0, "", "")
    as_json = json.loads(call("run", tiny_file, "--out", finished, "--json", "--quiet").stdout)
    assert as_json["finished"] is True


def test_check_says_what_to_expect(tiny_file: Path, call: Call, monkeypatch: pytest.MonkeyPatch):
    seen: list[Feasibility] = []

    def kept(*arguments: Any, **options: Any) -> Feasibility:
        seen.append(check_feasibility(*arguments, **options))
        return seen[0]

    monkeypatch.setattr(checking, "check_feasibility", kept)
    answer = call("check", tiny_file)
    assert answer.exit_code == 0, answer.stderr
    assert re.search(r"points of the space, exactly\s+48\b", answer.stdout)
    found = dataclasses.asdict(seen[0])
    assert found["size"] == 2 * 2 * 2 * (1 + 2 * 1) * (1 + 1)
    assert found["legal"] == found["probed"]
    assert found["within"]["params_m"][1] == found["legal"]
    assert found["training_steps"] == 6 * (2 + 1 + 0.5)
    assert found["proposals"] >= 6
    assert found["minutes"] > 0
    assert found["baseline"]["images"] == ("300.png", "400.png")


@pytest.mark.slow
def test_a_run_on_photographs_of_any_name_leaves_report_presets_and_pictures(
    tiny_file: Path, photos: Path, tmp_path: Path, call: Call
):
    shutil.copytree(photos, tmp_path / "photos")
    for part in ("train", "validation"):
        for file in list((tmp_path / "photos" / part).iterdir()):
            file.rename(file.with_name(os.fsdecode(b"\xdf[bold]") + file.name))
    file = tmp_path / "tiny.yaml"
    file.write_text(tiny_file.read_text("utf-8").replace(str(photos), str(tmp_path / "photos")), encoding="utf-8")
    done = call("run", file, "--out", tmp_path / "run", "--trials", 2, "--set", "proxy.rungs=[2]", "--workers", 1)
    assert done.exit_code == 0, done.output
    record = json.loads((tmp_path / "run/pictures/pictures.json").read_text("utf-8"))
    names = [entry["name"] for entry in record["photographs"]]
    assert names == [r"\xdf[bold]300.png", r"\xdf[bold]400.png"]
    assert all(name in (tmp_path / "run/report.html").read_text("utf-8") for name in names)
    assert all(name in (tmp_path / "run/presets/best/preset.yaml").read_text("utf-8") for name in names)


def test_wrong_files_are_told_in_one_message_and_exit_code_2(tmp_path: Path):
    file = tmp_path / "wrong.yaml"
    file.write_text("name: wrong\ntask: {kind: super_resolution}\nspace: {widht: [8]}\n")
    answer = processed("run", file)
    assert answer.returncode == 2
    assert answer.stderr.startswith(f"hfir-search: {file}:3: space.widht: unknown dimension.")
    assert "Did you mean width" in answer.stderr
    assert "Traceback" not in answer.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("run", "no-such-space"), 2, "no such experiment file"),
        (("run", "efficent"), 2, "Did you mean efficient"),
        (("run", "smoke", "--time-budget", "soon"), 2, "not a time"),
        (("run", "smoke", "--set", "proxy.rungs"), 2, "section.key=value"),
        (("run", "smoke", "--trials", "0"), 2, "Invalid value"),
        (("front", "nowhere"), 2, "holds no run"),
        (("frobnicate",), 2, "No such command"),
    ],
)
def test_wrong_calls_exit_with_2_and_say_what_to_do(
    arguments: tuple[str, ...], code: int, words: str, call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    answer = call(*arguments)
    assert answer.exit_code == code
    assert words in answer.stderr
    assert "Traceback" not in answer.stderr


def test_a_budget_that_nothing_fits_fails_with_the_reason(tiny_file: Path, tmp_path: Path, call: Call):
    answer = call("run", tiny_file, "--out", tmp_path / "run", "--set", "budget.params_m=0.0001")
    assert answer.exit_code == 1
    assert "no candidate completed" in answer.stderr
    assert "params_m" in (tmp_path / "run" / "trials.csv").read_text()
    assert (tmp_path / "run" / "report.html").is_file()


def test_data_that_is_not_there_is_wrong_input(
    tiny_file: Path, tmp_path: Path, call: Call, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    answer = call("run", tiny_file, "--out", tmp_path / "run", "--set", "task.data=nowhere")
    assert answer.exit_code == 2
    assert "nowhere" in answer.stderr
    assert "Traceback" not in answer.stderr


def test_a_run_is_quiet_but_for_made_up_figures_and_picks_up_no_strangers_module(tiny_file: Path, tmp_path: Path):
    (tmp_path / "search.py").write_text("raise SystemExit('the wrong search')")
    (tmp_path / "hfir.py").write_text("raise SystemExit('the wrong hfir')")
    options = ("--trials", 1, "--workers", 1, "--quiet", "--out", tmp_path / "run")
    answer = processed("run", tiny_file, *options, cwd=tmp_path)
    assert (answer.returncode, answer.stdout) == (0, ""), answer.stderr
    made_up = f"latency and peak memory are {MARK} by {os.environ[SWITCH]}, not measured"
    assert answer.stderr
    assert all(line.startswith(made_up) for line in answer.stderr.splitlines())
    assert made_up in (tmp_path / "run" / "run.log").read_text()


def started(*arguments: object) -> subprocess.Popen[str]:
    # Where the tests themselves run in the background of a shell, Ctrl-C is ignored, and children inherit that.
    previous = signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        return _driver(*arguments)
    finally:
        signal.signal(signal.SIGINT, previous)


def _driver(*arguments: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [COMMAND, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        start_new_session=True,
    )


def wait_for(folder: Path, condition: Callable[[Study], bool]) -> None:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        if (folder / JOURNAL).is_file() and condition(read_study(folder)):
            return
        time.sleep(0.05)
    pytest.fail(f"{folder}: the run did not come to where it was to be stopped")


def measured(study: Study) -> int:
    return sum(len(t.measurements) for t in study.trials)


def story(folder: Path) -> list[tuple[object, ...]]:
    return [
        (t.number, t.state, t.key, tuple((m.step, m.psnr_db) for m in t.measurements))
        for t in read_study(folder).trials
    ]


LONGER = ("proxy.rungs=[20,60,120]", "search.trials=4")


@pytest.fixture
def longer(tiny_file: Path) -> tuple[object, ...]:
    """Return the run that is stopped in the midst: long enough to be caught there."""
    return ("run", tiny_file, *(word for change in LONGER for word in ("--set", change)), "--workers")


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="kills by POSIX signals")
@pytest.mark.parametrize(
    ("workers", "at", "torn"),
    [
        pytest.param(1, 1, True, id="early, last line torn in half"),
        pytest.param(2, 5, False, id="late"),
    ],
)
def test_after_a_kill_the_same_command_loses_and_repeats_nothing(
    workers: int, at: int, torn: bool, longer: tuple[object, ...], ran: Callable[..., Study], call: Call, tmp_path: Path
):
    folder, unstopped = tmp_path / "run", ran(*LONGER).folder
    longer = (*longer, workers)
    with started(*longer, "--out", folder) as driver:
        wait_for(folder, lambda study: measured(study) >= at)
        driver.kill()
    journal = folder / JOURNAL
    if torn:
        content = journal.read_bytes()
        last = content.rstrip(b"\n").rfind(b"\n") + 1
        journal.write_bytes(content[: (last + len(content)) // 2])
    before = {t.number: t for t in read_study(folder).trials}
    assert call(*longer, "--out", folder).exit_code == 0
    after = {t.number: t for t in read_study(folder).trials}
    for number, trial in before.items():
        assert after[number].measurements[: len(trial.measurements)] == trial.measurements
    assert story(folder) == story(unstopped)


@pytest.mark.skipif(sys.platform == "win32", reason="kills by POSIX signals")
@pytest.mark.parametrize("number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)])
def test_an_interrupted_run_exits_with_130_and_keeps_what_it_has(
    number: signal.Signals, longer: tuple[object, ...], tmp_path: Path
):
    folder = tmp_path / "run"
    with started(*longer, 1, "--out", folder) as driver:
        wait_for(folder, lambda study: measured(study) >= 1)
        driver.send_signal(number)
        _, errors = driver.communicate(timeout=60)
    assert driver.returncode == 130
    assert "The same command goes on" in errors
    assert "Traceback" not in errors
    assert measured(read_study(folder)) >= 1


@pytest.mark.parametrize("goes_on", [True, False])
def test_what_is_interrupted_says_that_it_goes_on_only_where_it_does(goes_on: bool, capsys: pytest.CaptureFixture[str]):
    from search.cli.app import _exit_codes

    with pytest.raises(SystemExit) as ended, _exit_codes(goes_on=goes_on):
        raise KeyboardInterrupt
    assert ended.value.code == 130
    assert ("The same command goes on" in capsys.readouterr().err) is goes_on


def test_a_time_budget_pauses_and_the_same_command_goes_on(
    tiny_file: Path, unbroken: Study, tmp_path: Path, call: Call
):
    folder = tmp_path / "run"
    paused = call("run", tiny_file, "--out", folder, "--time-budget", "0.01s")
    assert paused.exit_code == 0, paused.output
    assert "Paused" in paused.stdout
    assert read_study(folder).in_state(TrialState.COMPLETE, TrialState.STOPPED) == ()
    again = call("run", tiny_file, "--out", folder)
    assert again.exit_code == 0, again.output
    assert story(folder) == story(unbroken.folder)


def test_a_second_driver_on_the_folder_is_refused(
    tiny_file: Path, tmp_path: Path, call: Call, monkeypatch: pytest.MonkeyPatch
):
    class Crashing(running.ProcessExecutor):
        def run(self, function: Callable, jobs: Iterable) -> Iterator:
            assert is_held(tmp_path / "run"), "a driver holds its folder while jobs are done"
            raise KeyboardInterrupt

    monkeypatch.setattr(running, "ProcessExecutor", Crashing)
    assert call("run", tiny_file, "--out", tmp_path / "run").exit_code == 130
    with hold(tmp_path / "run"):
        answer = call("run", tiny_file, "--out", tmp_path / "run")
    assert answer.exit_code == 1
    assert "another hfir-search is running" in answer.stderr


def loaded_by(code: str) -> set[str]:
    script = f"{code}\nimport sys; print(*{{name.partition('.')[0] for name in sys.modules}})"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return set(done.stdout.splitlines()[-1].split())


HELP = """
import sys
sys.argv = ["hfir-search", "--help"]
from search.cli import main
try:
    main()
except SystemExit:
    pass
"""


def test_help_loads_no_torch_nor_other_heavy_package():
    heavy = {"torch", "optuna", "pandas", "matplotlib", "numpy", "pydantic", "hfir", "ray"}
    assert not heavy & loaded_by(HELP)


def test_reading_a_run_loads_no_torch(finished: Path):
    code = f"from search import load_run; load_run({str(finished)!r})"
    assert not {"torch", "hfir", "ray"} & loaded_by(code)


def test_loading_an_experiment_loads_no_torch():
    code = "from search import load_experiment; e = load_experiment('smoke'); e.decode(e.space.sample(0))"
    found = loaded_by(code)
    assert "torch" not in found
    assert "hfir" in found


def test_the_isolation_check_can_fail():
    assert "numpy" in loaded_by("import numpy")
