"""Ray Tune as the engine: the same trials as without it, whatever dies."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import ray
from ray.cluster_utils import Cluster

from search.evaluation.answers import Baseline
from search.evaluation.jobs import ProxyEvaluator, start_worker
from search.executors import InlineExecutor
from search.experiment import Experiment
from search.ray_engine import RayRun, RaySettings
from search.ray_engine.cluster import connected
from search.store import RunStore, hold, read_study
from search.study import SearchRun
from search.types import InputError, Study, Trial, TrialState

ROOT = Path(__file__).parents[3]

pytestmark = pytest.mark.slow


def _loaded(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, ROOT / "benchmarks" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


waiting, nodes = _loaded("waiting_task"), _loaded("ray_nodes")
for module in (waiting, sys.modules[__name__]):
    ray.cloudpickle.register_pickle_by_value(module)  # nodes have hfir-search, neither its benchmarks nor its tests


@pytest.fixture(scope="module")
def cluster(own_cache: None) -> Iterator[Cluster]:
    """Two nodes, of which the first, without workers of its own, is the driver's."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("RAY_AUTH_MODE", "disabled")
        with nodes.cluster_of(1, cpus=2) as made:
            yield made


def ray_run(search: SearchRun, cluster: Cluster, start: Callable[[], None] = waiting.no_preparation, **settings: Any):
    return RayRun(search, RaySettings(address=cluster.address, **settings), start).run()


def run_waiting(
    folder: Path, cluster: Cluster | None, trials: int = 4, evaluator: Any = None, **settings: Any
) -> Study:
    folder.mkdir(exist_ok=True)
    problem = waiting.WaitingProblem(waiting.Settings(trials=trials, generation=min(4, trials)))
    with hold(folder):
        search = SearchRun(
            problem,
            evaluator or waiting.Waiting(folder / "ledger"),
            problem.store(folder),
            InlineExecutor(),
            onlooker=waiting.recorder(folder / "ledger"),
        )
        return search.run() if cluster is None else ray_run(search, cluster, **settings)


def test_the_run_equals_the_inline_one_trial_for_trial(
    tiny: Callable[..., Experiment], unbroken: Study, cluster: Cluster, tmp_path: Path
):
    experiment = tiny()
    store = RunStore(
        tmp_path,
        name=experiment.name,
        objectives=experiment.objectives,
        identity=experiment.identity,
        spec=experiment.spec,
    )
    search = SearchRun(experiment, ProxyEvaluator(experiment.evaluation_plan()), store, InlineExecutor())
    study = ray_run(search, cluster, start_worker)
    assert [told(t) for t in study.trials] == [told(t) for t in unbroken.trials]
    trained = {f"{t.number:05d}.pt" for t in study.trials if t.measurements}
    assert {path.name for path in (tmp_path / "checkpoints").iterdir()} == trained
    assert not (tmp_path / "ray").exists()


def told(trial: Trial) -> tuple[Any, ...]:
    """Return all of a trial but its times, and what they say of its latency."""
    figures = [(m.rung, m.step, m.psnr_db, m.ssim, m.loss) for m in trial.measurements]
    reason = trial.reason if trial.state is TrialState.STOPPED else ""
    return trial.genotype, trial.state, reason, figures


def test_figures_that_are_none_errors_and_lost_workers_end_as_in_the_pool_and_nothing_is_printed(
    cluster: Cluster, tmp_path: Path, capfd: pytest.CaptureFixture[str]
):
    evaluator = waiting.Waiting(tmp_path / "ledger", fails=((0, "nan"), (1, "error"), (2, "killed")))
    study = run_waiting(tmp_path, cluster, 5, evaluator, workers=2, retries=1)
    nan, error, killed = study.trials[:3]
    assert {t.state for t in (nan, error, killed)} == {TrialState.FAILED}
    assert not study.in_state(TrialState.RUNNING)
    assert nan.reason.startswith("diverged: validation after 1 step gave psnr_db = nan")
    assert error.reason == "crashed: as asked for"
    assert killed.reason.startswith("crashed: its worker was lost 2 times, execution.retries = 1; the last time: ")
    assert "its worker process has died" in killed.reason
    begun = [tuple(entry) for entry in waiting.read_ledger(tmp_path / "ledger")]
    assert begun.count(("begun", 1, 0)) == 1
    assert begun.count(("begun", 2, 0)) == 2
    assert capfd.readouterr() == ("", "")


def test_a_node_that_is_lost_takes_nothing_with_it(cluster: Cluster, tmp_path: Path):
    unbroken = run_waiting(tmp_path / "unbroken", None, 6)
    node = nodes.join(cluster, 2)
    ledger = tmp_path / "broken" / "ledger"
    killer = threading.Thread(target=_lose_under_way, args=(cluster, node, ledger), daemon=True)
    killer.start()
    study = run_waiting(tmp_path / "broken", cluster, 6, waiting.Waiting(ledger, seconds=1.0))
    killer.join()
    assert waiting.faults(study, unbroken, ledger) == []


def _lose_under_way(cluster: Cluster, node: Any, ledger: Path) -> None:
    while not ledger.is_file() or ledger.read_text().count("begun") < 3:
        time.sleep(0.02)
    nodes.lose(cluster, node)


def test_a_killed_driver_is_followed_by_another_and_a_strangers_search_py_is_in_nobodys_way(
    cluster: Cluster, tmp_path: Path
):
    folder, size = tmp_path / "run", {"trials": 4, "generation": 4}
    for name in ("search", "hfir", "types", "signal", "struct", "socket", "pickle"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('a stranger was imported')\n")
    command = [sys.executable, ROOT / "benchmarks" / "ray_faults.py", "--drive", folder, "--address", cluster.address]
    command += ["--seconds=0.5", *(f"--{name}={value}" for name, value in size.items())]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(command, cwd=tmp_path, env=environment) as driver:
        while not (folder / "ledger").is_file() or (folder / "ledger").read_text().count("recorded") < 3:
            assert driver.poll() is None
            time.sleep(0.05)
        driver.kill()
    subprocess.run(command, cwd=tmp_path, env=environment, check=True, timeout=300)
    unbroken = run_waiting(tmp_path / "unbroken", None)
    assert waiting.faults(read_study(folder), unbroken, folder / "ledger") == []


def test_another_session_follows_when_one_has_had_its_trials_and_a_url_is_a_storage_path(
    cluster: Cluster, tmp_path: Path
):
    unbroken = run_waiting(tmp_path / "unbroken", None, 6)
    url = (tmp_path / "shared").as_uri()
    study = run_waiting(tmp_path / "run", cluster, 6, storage_path=url, max_trials=3)
    assert waiting.faults(study, unbroken, tmp_path / "run" / "ledger") == []
    assert [t.state for t in study.trials] == [t.state for t in unbroken.trials]
    assert list((tmp_path / "shared").iterdir()) == []


@dataclass(frozen=True)
class OnOneNode(waiting.Waiting):
    """Data that one process can read."""

    reader: int = 0

    def look_at_data(self, job: None) -> Baseline:
        if os.getpid() != self.reader:
            raise InputError("/photos: no such folder.")
        return super().look_at_data(job)


def test_a_node_without_the_data_is_named_before_anything_is_trained(cluster: Cluster, tmp_path: Path):
    evaluator = OnOneNode(tmp_path / "ledger", reader=os.getpid())
    with pytest.raises(InputError, match=r"^node [0-9.]+: /photos: no such folder\.$"):
        run_waiting(tmp_path, cluster, evaluator=evaluator)
    assert not read_study(tmp_path).trials


def test_data_that_a_worker_cannot_use_ends_the_run_and_names_the_node(cluster: Cluster, tmp_path: Path):
    evaluator = waiting.Waiting(tmp_path / "ledger", fails=((1, "input"),))
    with pytest.raises(InputError, match=r"^node [0-9.]+: as asked for\.$"):
        run_waiting(tmp_path, cluster, evaluator=evaluator)
    assert not read_study(tmp_path).in_state(TrialState.FAILED)


def test_an_address_without_a_cluster_is_told(tmp_path: Path):
    problem = waiting.WaitingProblem(waiting.Settings(trials=1, generation=1))
    search = SearchRun(problem, waiting.Waiting(tmp_path / "ledger"), problem.store(tmp_path), InlineExecutor())
    run = RayRun(search, RaySettings(address="127.0.0.1:1"), waiting.no_preparation)
    with pytest.raises(InputError, match=r"execution\.address = 127\.0\.0\.1:1: no Ray cluster can be reached there"):
        run.run()


def test_a_folder_of_temporary_files_that_is_too_long_for_sockets_is_told_with_the_way_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    deep = tmp_path / ("l" * 100)
    deep.mkdir()
    monkeypatch.delenv("RAY_TMPDIR", raising=False)
    monkeypatch.setenv("TMPDIR", str(deep))
    with (
        pytest.raises(InputError, match=r"^TMPDIR = .*\n  Set RAY_TMPDIR to a short folder"),
        connected("local", 1, gpus=0),
    ):
        pass


def test_the_command_line_and_the_pool_do_without_ray():
    script = "import sys, json; import search.cli.app, search.cli.running; print(json.dumps('ray' in sys.modules))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) is False
