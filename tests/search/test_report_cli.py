"""`hfir-search report`: what it writes, and what it refuses."""

import dataclasses
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from search.cli import reporting
from search.cli.app import app
from search.report import save_figures
from search.store import RunStore

SMOKE = Path(__file__).parents[2] / "spaces/smoke.yaml"


@pytest.fixture
def run(rich_study, tmp_path):
    """Return a function that calls the command on the folder of a run that has only begun."""
    RunStore(tmp_path, name="begun", objectives=rich_study.objectives, identity="i", spec=rich_study.spec)
    return lambda *options: CliRunner().invoke(app, ["report", str(tmp_path), *options])


def test_the_page_and_the_tables_are_written(run, tmp_path):
    result = run()
    assert result.exit_code == 0
    assert result.output.splitlines()[-1] == str(tmp_path / "report.html")
    assert (tmp_path / "trials.csv").is_file()
    assert not (tmp_path / "figures").exists()


def test_figures_for_papers_are_written_in_each_format(run, tmp_path):
    assert run("--format", "svg, PDF").exit_code == 0
    names = {path.name for path in (tmp_path / "figures").iterdir()}
    stems = ("front", "front-latency_ms", "front-macs_g", "rungs", "hypervolume")
    assert names == {f"{stem}.{end}" for stem in stems for end in ("svg", "pdf")}
    assert (tmp_path / "figures/front.pdf").read_bytes().startswith(b"%PDF")


def test_an_unknown_format_is_refused_before_anything_is_written(run, tmp_path):
    result = run("--format", "png,gif")
    assert result.exit_code == 2
    assert "'gif' is not known" in result.output
    assert not (tmp_path / "report.html").exists()


def test_a_folder_without_a_run_is_refused(tmp_path):
    assert CliRunner().invoke(app, ["report", str(tmp_path)]).exit_code == 2


def test_a_damaged_preset_gives_a_page_without_pictures(run, tmp_path, caplog):
    (tmp_path / "presets/best").mkdir(parents=True)
    (tmp_path / "presets/best/weights.safetensors").write_bytes(b"no weights")
    shutil.copy(SMOKE, tmp_path / "experiment.yaml")
    assert run().exit_code == 0
    assert "no pictures of the presets" in caplog.text
    assert "weights.safetensors" in caplog.text


def test_presets_whose_photographs_are_gone_give_a_page_without_pictures(run, tmp_path, caplog):
    (tmp_path / "presets").mkdir()
    assert run().exit_code == 0
    assert "no pictures of the presets" in caplog.text
    assert (tmp_path / "report.html").is_file()


def test_the_page_is_shown_on_request(run, tmp_path, monkeypatch):
    shown = []
    monkeypatch.setattr(reporting.webbrowser, "open", shown.append)
    run("--open")
    assert shown == [(tmp_path / "report.html").as_uri()]


def test_the_same_records_give_the_same_pdf(rich_study, tmp_path):
    study = dataclasses.replace(rich_study, folder=tmp_path)
    first = [path.read_bytes() for path in save_figures(study, "pdf")]
    assert [path.read_bytes() for path in save_figures(study, "pdf")] == first


def test_writing_a_report_loads_no_torch():
    code = "import search.cli.reporting, sys; sys.exit(any(name in sys.modules for name in ('torch', 'hfir')))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
