"""MLflow as a mirror: each trained candidate once, and a run that no server can hurt."""

import dataclasses
import logging
import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from typer.testing import CliRunner

from search.cli.app import app
from search.tracking import ENVIRONMENT, MLflowLog, metrics_of, params_of, tags_of
from search.types import TrialState


class Server:
    """Stands in for MLflow's client, with the parts of it that are used; what it keeps outlives the clients."""

    def __init__(self):
        self.runs: list[Any] = []
        self.experiments: list[str] = []
        self.fails = False
        self.dies_before_the_end = False
        self.calls = 0

    def _call(self):
        self.calls += 1
        if self.fails:
            raise ConnectionError("https://me:secret@host is not there")

    def get_experiment_by_name(self, name):
        self._call()
        return SimpleNamespace(experiment_id="1") if name in self.experiments else None

    def create_experiment(self, name):
        self.experiments.append(name)
        return "1"

    def search_runs(self, experiments, max_results, page_token):
        start = int(page_token or 0)
        page = Page(self.runs[start : start + 2])
        page.token = str(start + 2) if start + 2 < len(self.runs) else None
        return page

    def create_run(self, experiment, tags, run_name):
        self._call()
        info = SimpleNamespace(run_id=str(len(self.runs)), status="RUNNING", run_name=run_name)
        self.runs.append(SimpleNamespace(info=info, data=SimpleNamespace(tags=tags, params=[], metrics=[])))
        return self.runs[-1]

    def log_batch(self, run_id, metrics, params):
        self._call()
        self.runs[int(run_id)].data.metrics, self.runs[int(run_id)].data.params = metrics, params

    def set_terminated(self, run_id, status):
        if self.dies_before_the_end:
            raise KeyboardInterrupt
        self.runs[int(run_id)].info.status = status


class Page(list):
    token: str | None


@pytest.fixture
def server(monkeypatch):
    """Put a stand-in where MLflow would be imported from; return what it keeps."""
    kept = Server()
    package: Any = ModuleType("mlflow")
    entities: Any = ModuleType("mlflow.entities")
    package.MlflowClient = lambda tracking_uri: kept
    entities.Metric, entities.Param = lambda *parts: parts, lambda *parts: parts
    monkeypatch.setitem(sys.modules, "mlflow", package)
    monkeypatch.setitem(sys.modules, "mlflow.entities", entities)
    return kept


@pytest.fixture(autouse=True)
def own_environment(monkeypatch):
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)


def call(*arguments):
    return CliRunner().invoke(app, [str(a) for a in arguments])


def test_what_was_trained_is_logged_and_what_was_not_is_not(server, rich_study):
    MLflowLog("http://host").log(rich_study)
    trained = rich_study.in_state(TrialState.COMPLETE, TrialState.STOPPED, TrialState.FAILED)
    assert [run.data.tags["hfir_trial"] for run in server.runs] == [str(t.number) for t in trained]
    assert server.runs[0].info.run_name == f"{rich_study.name} trial-{trained[0].number:04d}"
    ended = {run.data.tags["hfir_state"]: run.info.status for run in server.runs}
    assert ended == {"COMPLETE": "FINISHED", "STOPPED": "FINISHED", "FAILED": "FAILED"}


def test_nothing_is_logged_twice_by_one_driver_or_the_next(server, rich_study):
    first = MLflowLog("http://host")
    first.log(rich_study)
    calls, runs = server.calls, len(server.runs)
    first.log(rich_study)
    assert server.calls == calls
    MLflowLog("http://host").log(rich_study)
    assert len(server.runs) == runs == 8
    assert server.experiments == [rich_study.name]


def test_another_folder_is_another_run(server, rich_study, tmp_path):
    MLflowLog("http://host").log(rich_study)
    MLflowLog("http://host").log(dataclasses.replace(rich_study, folder=tmp_path))
    assert len(server.runs) == 16


def test_what_was_broken_off_is_completed(server, rich_study):
    server.dies_before_the_end = True
    with pytest.raises(KeyboardInterrupt):
        MLflowLog("http://host").log(rich_study)
    server.dies_before_the_end = False
    MLflowLog("http://host").log(rich_study)
    assert len(server.runs) == 8
    assert "RUNNING" not in {run.info.status for run in server.runs}


def test_a_server_that_fails_is_told_once_without_the_password(server, rich_study, caplog):
    server.fails = True
    tracker = MLflowLog("https://me:secret@host")
    with caplog.at_level(logging.WARNING, logger="search.tracking"):
        tracker.log(rich_study)
        tracker.log(rich_study)
    [record] = caplog.records
    assert "ConnectionError: https://host is not there" in record.getMessage()
    assert "secret" not in record.getMessage()
    server.fails = False
    MLflowLog("https://me:secret@host").log(rich_study)
    assert len(server.runs) == 8


def test_params_metrics_and_tags_of_a_trial(make_trial, make_study):
    trial = make_trial(3, psnr_db=31.0, latency_ms=8.0, macs_g=2.0, genotype={"width": 8, "levels": 1, "reparam": True})
    study = make_study([trial])
    assert params_of(trial) == {"width": "8", "levels": "1", "reparam": "True"}
    metrics = metrics_of(trial)
    assert [(value, step) for name, value, step in metrics if name == "psnr_db"] == [
        (pytest.approx(30.2), 100),
        (pytest.approx(30.6), 400),
        (31.0, 1200),
    ]
    assert {("latency_ms", 8.0, 1200), ("macs_g", 2.0, 1200), ("training_s", 30.0, 1200)} <= set(metrics)
    tags = tags_of(study, trial)
    assert (tags["hfir_state"], tags["hfir_trial_key"]) == ("COMPLETE", trial.key)
    assert tags["hfir_run_folder"] == study.folder.resolve().as_uri()


@pytest.mark.parametrize(
    ("module", "options", "extra"),
    [
        ("torch.utils.tensorboard", ["--tensorboard"], "tensorboard"),
        ("mlflow", ["--mlflow", "sqlite:///x.db"], "mlflow"),
    ],
)
def test_a_missing_package_is_said_before_anything_is_spent(monkeypatch, tmp_path, module, options, extra):
    monkeypatch.setitem(sys.modules, module, None)
    answer = call("run", "smoke", "--out", tmp_path / "run", *options)
    assert answer.exit_code == 2
    assert f"pip install 'hfir-search[{extra}]'" in answer.output
    assert not (tmp_path / "run").exists()


@pytest.mark.filterwarnings("ignore")  # MLflow and its database layer warn of one another
def test_mlflow_keeps_what_is_logged(rich_study, tmp_path):
    mlflow = pytest.importorskip("mlflow", reason="mlflow-skinny is not installed")
    pytest.importorskip("cryptography", reason="cryptography is not installed")
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    for _ in range(2):
        MLflowLog(uri).log(rich_study)
    client = mlflow.MlflowClient(tracking_uri=uri)
    experiment = client.get_experiment_by_name(rich_study.name)
    runs = client.search_runs([experiment.experiment_id])
    assert len(runs) == 8
    best = next(run for run in runs if run.data.tags["hfir_trial"] == "0")
    trial = rich_study.trials[0]
    assert best.data.params == params_of(trial)
    assert best.data.metrics["psnr_db"] == trial.value("psnr_db")
    assert best.info.status == "FINISHED"
