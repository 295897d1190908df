"""optuna-dashboard on a run: it answers, and it changes nothing."""

from __future__ import annotations

import json
import socket
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from http.client import HTTPResponse
from pathlib import Path
from wsgiref.simple_server import make_server

import pytest
from typer.testing import CliRunner

from search.cli.app import app
from search.cli.dashboard import _Handler, dashboard_app
from search.store import JOURNAL, RunStore, opened_storage
from search.types import Genotype, TrialState

pytest.importorskip("optuna_dashboard")


@pytest.fixture(params=["journal", "sqlite"])
def run(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    folder = tmp_path / "run"
    store = RunStore(
        folder,
        name="shown",
        objectives=("psnr_db", "macs_g"),
        identity="x",
        spec={"objectives": ["psnr_db", "macs_g"]},
        storage=None if request.param == "journal" else f"sqlite:///{tmp_path}/runs.db",
    )
    for width in (4, 8):
        trial = store.optuna.ask()
        trial.suggest_int("width", 4, 64)
        store.record_proposal(trial, genotype=Genotype({"width": width}), seed=1, generation=0, config=None)
        store.finish(trial.number, TrialState.COMPLETE, values=[30.0 + width, 1.5])
    store.close()
    return folder


@pytest.fixture
def address(run: Path) -> Iterator[str]:
    with (
        opened_storage(run) as storage,
        make_server("127.0.0.1", 0, dashboard_app(storage), handler_class=_Handler) as server,
    ):
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def get(url: str, method: str = "GET") -> HTTPResponse:
    return urllib.request.urlopen(urllib.request.Request(url, method=method), timeout=30)


def test_the_page_and_the_trials_are_served(address: str):
    with get(f"{address}/dashboard") as page:
        assert b"<html" in page.read().lower()
    with get(f"{address}/api/studies") as answer:
        [study] = json.load(answer)["study_summaries"]
    assert study["study_name"] == "shown"
    with get(f"{address}/api/studies/{study['study_id']}") as answer:
        trials = json.load(answer)["trials"]
    assert [t["values"][0] for t in trials] == [34.0, 38.0]
    assert [t["state"] for t in trials] == ["Complete", "Complete"]


def test_what_would_change_the_run_is_refused(address: str, run: Path):
    before = {path: path.read_bytes() for path in (run / JOURNAL, run.parent / "runs.db") if path.is_file()}
    with get(f"{address}/api/studies") as answer:
        number = json.load(answer)["study_summaries"][0]["study_id"]
    for method in ("DELETE", "POST", "PUT"):
        with pytest.raises(urllib.error.HTTPError, match="403") as caught:
            get(f"{address}/api/studies/{number}", method)
        assert "read-only" in json.load(caught.value)["reason"]
        caught.value.close()
    assert {path: path.read_bytes() for path in before} == before


def test_a_port_that_is_taken_and_a_folder_without_a_run_are_one_clear_error(run: Path, tmp_path: Path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        result = CliRunner().invoke(app, ["dashboard", str(run), "--port", str(port)])
    assert result.exit_code == 2
    assert f"--port {port}: this address cannot be had" in result.output
    result = CliRunner().invoke(app, ["dashboard", str(tmp_path)])
    assert (result.exit_code, "holds no run" in result.output) == (2, True)


def test_a_package_that_is_missing_is_one_clear_error(run: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "optuna_dashboard", None)
    result = CliRunner().invoke(app, ["dashboard", str(run)])
    assert result.exit_code == 2
    assert "pip install 'hfir-search[dashboard]'" in result.output
