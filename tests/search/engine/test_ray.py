"""Ray Tune as the engine: the same trials as without it, whatever dies."""

from __future__ import annotations

import importlib.util
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from types import ModuleType
from typing import Any

import psutil
import pytest
import ray
from ray.cluster_utils import Cluster

from search.evaluation.evaluator import ProxyEvaluator, start_worker
from search.executors import InlineExecutor
from search.experiment import Experiment
from search.ray_engine import RayRun, RaySettings
from search.store import RunStore, hold
from search.study import SearchRun
from search.types import Study, TrialState

ROOT = Path(__file__).parents[3]
NODE = {"object_store_memory": 80 * 2**20, "include_dashboard": False}
IMPATIENT = {"health_check_period_ms": 500, "health_check_timeout_ms": 5000, "health_check_failure_threshold": 3}

pytestmark = pytest.mark.slow


def _loaded(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, ROOT / "benchmarks" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


waiting = _loaded("waiting_task")
ray.cloudpickle.register_pickle_by_value(waiting)  # nodes have hfir-search, not its benchmarks


def no_preparation() -> None:
    pass


ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])


@pytest.fixture(scope="module")
def cluster(own_cache: None) -> Iterator[Cluster]:
    """Two nodes, of which the first, without workers of its own, is the driver's."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("RAY_AUTH_MODE", "disabled")
        made = Cluster(
            initialize_head=True,
            head_node_args={**NODE, "num_cpus": 0, "_system_config": IMPATIENT},
        )
        made.add_node(num_cpus=2, object_store_memory=NODE["object_store_memory"])
        yield made
        made.shutdown()


def ray_run(search: SearchRun, cluster: Cluster, start: Callable[[], None] = no_preparation, **settings: Any) -> Study:
    return RayRun(search, RaySettings(address=cluster.address, **settings), start).run()


def run_waiting(
    folder: Path, cluster: Cluster | None, trials: int = 4, seconds: float = 0.0, fails: Any = (), **settings: Any
) -> Study:
    folder.mkdir(exist_ok=True)
    problem = waiting.WaitingProblem(waiting.Settings(trials=trials, generation=trials))
    evaluator = waiting.Waiting(folder / "ledger", seconds, fails=fails)
    with hold(folder):
        search = SearchRun(
            problem,
            evaluator,
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
    assert [(t.genotype, t.state, t.reason, _figures(t)) for t in study.trials] == [
        (t.genotype, t.state, t.reason, _figures(t)) for t in unbroken.trials
    ]
    trained = {f"{t.number:05d}.pt" for t in study.trials if t.measurements}
    assert {path.name for path in (tmp_path / "checkpoints").iterdir()} == trained
    assert not (tmp_path / "ray").exists()


def _figures(trial: Any) -> list[Any]:
    return [(m.rung, m.step, m.psnr_db, m.ssim, m.loss) for m in trial.measurements]


def test_figures_that_are_none_and_errors_and_lost_workers_end_as_they_do_in_the_pool(cluster: Cluster, tmp_path: Path):
    study = run_waiting(
        tmp_path, cluster, trials=5, fails=((0, "nan"), (1, "error"), (2, "killed")), workers=2, retries=1
    )
    states = [t.state for t in study.trials]
    assert states[1:3] == [TrialState.FAILED, TrialState.FAILED]
    assert TrialState.RUNNING not in states
    assert study.trials[1].reason == "as asked for"
    assert study.trials[2].reason.startswith("its worker was lost 2 times, execution.retries = 1; the last time: ")
    assert "died" in study.trials[2].reason
    begun = [e for e in waiting.read_ledger(tmp_path / "ledger") if e.what == "begun"]
    assert begun.count(("begun", 1, 0)) == 1
    assert begun.count(("begun", 2, 0)) == 2


def test_a_node_that_is_lost_takes_nothing_with_it(cluster: Cluster, tmp_path: Path):
    node = cluster.add_node(num_cpus=2, object_store_memory=NODE["object_store_memory"])
    unbroken = run_waiting(tmp_path / "unbroken", None, trials=6)
    ledger = tmp_path / "broken" / "ledger"

    def kill_when_under_way() -> None:
        while not ledger.is_file() or ledger.read_text().count("begun") < 4:
            time.sleep(0.02)
        kill_node(node)

    killer = threading.Thread(target=kill_when_under_way, daemon=True)
    killer.start()
    study = run_waiting(tmp_path / "broken", cluster, trials=6, seconds=1.0, retries=5)
    killer.join()
    cluster.remove_node(node, allow_graceful=False)
    assert waiting.faults(study, unbroken, ledger) == []


def kill_node(node: Any) -> None:
    """Kill a node at once, workers and all, as a power cut does."""
    raylet = psutil.Process(node.all_processes["raylet"][0].process.pid)
    for process in [raylet, *raylet.children(recursive=True)]:
        with suppress(ProcessLookupError):
            os.kill(process.pid, signal.SIGKILL)
