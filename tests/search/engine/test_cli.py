"""The command line as its user meets it: other processes, exit codes, signals, files."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from search import load_run
from search.store import JOURNAL, read_study
from search.types import Study, TrialState

COMMAND = str(Path(sys.executable).with_name("hfir-search"))
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}


def call(*arguments: object, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [COMMAND, *map(str, arguments)], capture_output=True, text=True, cwd=cwd, env=ENVIRONMENT, check=False
    )


@pytest.fixture(scope="module")
def finished(tiny_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a run that the command line ran to its end."""
    folder = tmp_path_factory.mktemp("cli") / "tiny"
    done = call("run", tiny_file, "--out", folder)
    assert done.returncode == 0, done.stderr
    assert "Pareto front of tiny" in done.stdout
    return folder


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


def test_a_finished_run_says_so_and_keeps_its_record(finished: Path, tiny_file: Path):
    before = len(read_study(finished).trials)
    again = call("run", tiny_file, "--out", finished)
    assert again.returncode == 0
    assert "is finished: 6 candidates were trained" in again.stderr
    assert len(read_study(finished).trials) == before


def test_the_resolved_experiment_is_the_same_experiment(finished: Path):
    again = call("run", finished / "experiment.yaml", "--out", finished)
    assert again.returncode == 0, again.stderr
    assert "is finished" in again.stderr


def test_front_and_select_print_tables_and_json(finished: Path):
    assert "Pareto front of tiny" in call("front", finished).stdout
    front = json.loads(call("front", finished, "--json").stdout)
    assert front["front"]
    assert {"trial", "psnr_db", "macs_g"} <= set(front["front"][0])
    chosen = json.loads(call("select", finished, "--params-m", 1, "--json").stdout)
    assert len(chosen["candidates"]) == len(front["front"])
    none = call("select", finished, "--params-m", 0.000001)
    assert none.returncode == 1
    assert "No member of the front keeps to all bounds" in none.stdout
    explained = json.loads(call("front", finished, "--explain", "--json").stdout)["explanation"]
    assert [m["trial"] for m in explained["members"]] == [row["trial"] for row in front["front"]]


def test_status_says_that_a_run_is_finished(finished: Path):
    told = json.loads(call("status", finished, "--json").stdout)
    assert (told["finished"], told["is_running"]) == (True, False)
    assert call("status", finished, "--watch", 1).stdout.startswith(f"{finished}: finished")


def test_a_run_is_compared_with_a_copy_of_itself(finished: Path, tmp_path: Path):
    (tmp_path / "copy").mkdir()
    (tmp_path / "copy" / JOURNAL).write_bytes((finished / JOURNAL).read_bytes())
    told = call("compare", finished, tmp_path / "copy", "-o", tmp_path / "both.png", "--json")
    assert told.returncode == 0, told.stderr
    assert len({run["hypervolume_db_doublings"] for run in json.loads(told.stdout)["runs"]}) == 1
    assert (tmp_path / "both.png").is_file()


def test_quiet_prints_nothing_and_json_prints_only_json(finished: Path, tiny_file: Path):
    quiet = call("run", tiny_file, "--out", finished, "--quiet")
    assert (quiet.returncode, quiet.stdout, quiet.stderr) == (0, "", "")
    as_json = json.loads(call("run", tiny_file, "--out", finished, "--json", "--quiet").stdout)
    assert as_json["finished"] is True


def test_check_says_what_to_expect(tiny_file: Path):
    from search.experiment import load_experiment
    from search.feasibility import check_feasibility

    answer = call("check", tiny_file)
    assert answer.returncode == 0, answer.stderr
    assert re.search(r"points of the space, exactly\s+48\b", answer.stdout)
    found = dataclasses.asdict(check_feasibility(load_experiment(tiny_file), workers=2))
    assert found["size"] == 2 * 2 * 2 * (1 + 2 * 1) * (1 + 1)
    assert found["legal"] == found["probed"]
    assert found["within"]["params_m"][1] == found["legal"]
    assert found["training_steps"] == 6 * (2 + 1 + 0.5)
    assert found["proposals"] >= 6
    assert found["minutes"] > 0
    assert found["baseline"]["images"] == ("300.png", "400.png")


def test_wrong_files_are_told_in_one_message_and_exit_code_2(tmp_path: Path):
    file = tmp_path / "wrong.yaml"
    file.write_text("name: wrong\ntask: {kind: super_resolution}\nspace: {widht: [8]}\n")
    answer = call("run", file)
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
def test_wrong_calls_exit_with_2_and_say_what_to_do(arguments: tuple[str, ...], code: int, words: str, tmp_path: Path):
    answer = call(*arguments, cwd=tmp_path)
    assert answer.returncode == code
    assert words in answer.stderr
    assert "Traceback" not in answer.stderr


def test_a_budget_that_nothing_fits_fails_with_the_reason(tiny_file: Path, tmp_path: Path):
    answer = call("run", tiny_file, "--out", tmp_path / "run", "--set", "budget.params_m=0.0001")
    assert answer.returncode == 1
    assert "no candidate completed" in answer.stderr
    assert "params_m" in (tmp_path / "run" / "trials.csv").read_text()
    assert (tmp_path / "run" / "report.html").is_file()


def test_data_that_is_not_there_is_wrong_input(tiny_file: Path, tmp_path: Path):
    answer = call("run", tiny_file, "--out", tmp_path / "run", "--set", "task.data=nowhere", cwd=tmp_path)
    assert answer.returncode == 2
    assert "nowhere" in answer.stderr
    assert "Traceback" not in answer.stderr


def test_a_strangers_search_module_in_the_current_folder_is_not_picked_up(tiny_file: Path, tmp_path: Path):
    (tmp_path / "search.py").write_text("raise SystemExit('the wrong search')")
    (tmp_path / "hfir.py").write_text("raise SystemExit('the wrong hfir')")
    answer = call("run", tiny_file, "--trials", 2, "--out", tmp_path / "run", cwd=tmp_path)
    assert answer.returncode == 0, answer.stderr


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
        env=ENVIRONMENT,
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


@pytest.fixture(scope="module")
def longer(tiny_file: Path) -> tuple[object, ...]:
    """Return the run that is stopped in the midst: long enough to be caught there."""
    return ("run", tiny_file, "--set", "proxy.rungs=[20,60,120]", "--set", "execution.workers=2")


@pytest.fixture(scope="module")
def unstopped(longer: tuple[object, ...], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("unstopped") / "run"
    assert call(*longer, "--out", folder).returncode == 0
    return folder


@pytest.mark.skipif(sys.platform == "win32", reason="kills by POSIX signals")
@pytest.mark.parametrize(("at", "torn"), [(1, True), (5, False)], ids=["early, last line torn in half", "late"])
def test_after_a_kill_the_same_command_loses_and_repeats_nothing(
    at: int, torn: bool, longer: tuple[object, ...], unstopped: Path, tmp_path: Path
):
    folder = tmp_path / "run"
    with started(*longer, "--out", folder) as driver:
        wait_for(folder, lambda study: measured(study) >= at)
        driver.kill()
    journal = folder / JOURNAL
    if torn:
        content = journal.read_bytes()
        last = content.rstrip(b"\n").rfind(b"\n") + 1
        journal.write_bytes(content[: (last + len(content)) // 2])
    before = {t.number: t for t in read_study(folder).trials}
    assert call(*longer, "--out", folder).returncode == 0
    after = {t.number: t for t in read_study(folder).trials}
    for number, trial in before.items():
        assert after[number].measurements[: len(trial.measurements)] == trial.measurements
    assert story(folder) == story(unstopped)


@pytest.mark.skipif(sys.platform == "win32", reason="kills by POSIX signals")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_exits_with_130_and_keeps_what_it_has(
    number: signal.Signals, longer: tuple[object, ...], tmp_path: Path
):
    folder = tmp_path / "run"
    with started(*longer, "--out", folder) as driver:
        wait_for(folder, lambda study: measured(study) >= 2)
        driver.send_signal(number)
        _, errors = driver.communicate(timeout=60)
    assert driver.returncode == 130
    assert "The same command goes on" in errors
    assert "Traceback" not in errors
    assert measured(read_study(folder)) >= 2


@pytest.mark.parametrize("goes_on", [True, False])
def test_what_is_interrupted_says_that_it_goes_on_only_where_it_does(goes_on: bool, capsys: pytest.CaptureFixture[str]):
    from search.cli.app import _exit_codes

    with pytest.raises(SystemExit) as ended, _exit_codes(goes_on=goes_on):
        raise KeyboardInterrupt
    assert ended.value.code == 130
    assert ("The same command goes on" in capsys.readouterr().err) is goes_on


def test_a_time_budget_pauses_and_the_same_command_goes_on(tiny_file: Path, finished: Path, tmp_path: Path):
    folder = tmp_path / "run"
    paused = call("run", tiny_file, "--out", folder, "--time-budget", "0.001s")
    assert paused.returncode == 0, paused.stderr
    assert "Paused" in paused.stdout
    assert read_study(folder).in_state(TrialState.COMPLETE, TrialState.STOPPED) == ()
    resumed = call("run", tiny_file, "--out", folder)
    assert resumed.returncode == 0, resumed.stderr
    assert story(folder) == story(finished)


def test_a_second_driver_on_the_folder_is_refused(longer: tuple[object, ...], tmp_path: Path):
    folder = tmp_path / "run"
    with started(*longer, "--out", folder) as driver:
        wait_for(folder, lambda study: len(study.trials) >= 1)
        second = call(*longer, "--out", folder)
        driver.kill()
    assert second.returncode == 1
    assert "another hfir-search is running" in second.stderr


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
    assert "torch" in loaded_by("import hfir; hfir.build_model")
