"""Where results go: paths that cannot be used give one message, and any terminal's encoding is good enough."""

from __future__ import annotations

import errno
import io
import json
import shutil
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from search import files
from search.cli import presets
from search.cli.app import app, main
from search.files import may_write, replace_file

RECORDS = Path(__file__).parents[2] / "results/reference"
RUN = RECORDS / "efficient"
SMOKE = str(Path(__file__).parents[2] / "spaces/smoke.yaml")

COMMANDS = {
    "run": ["run", SMOKE],
    "calibrate": ["calibrate", SMOKE],
    "train": ["train", "efficient"],
    "report": ["report", str(RUN)],
    "presets": ["presets", str(RUN)],
    "export": ["export", "efficient", "--untrained", "--format", "safetensors"],
    "measure bundle": ["measure", "bundle", str(RUN)],
    "bench-samplers": ["bench-samplers", "--seeds", "2", "--evaluations", "4", "--samplers", "random"],
}
"""Commands with `--out`, which they write a folder under."""


@pytest.mark.parametrize("place", ["a file", "below a file", "/proc"])
@pytest.mark.parametrize("command", COMMANDS)
def test_a_folder_that_cannot_be_made_gives_one_message(command: str, place: str, tmp_path: Path):
    file = tmp_path / "file"
    file.write_text("kept")
    out = {"a file": file, "below a file": file / "x", "/proc": Path("/proc/no-such-folder")}[place]
    result = CliRunner().invoke(app, [*COMMANDS[command], "--out", str(out)])
    assert result.exit_code == 2, result.output
    assert isinstance(result.exception, SystemExit)
    assert f"hfir-search: {out}: cannot be used (" in result.output
    assert "another folder with --out" in result.output
    assert file.read_text() == "kept"


def test_figures_of_a_comparison_say_where_they_cannot_go(tmp_path: Path):
    runs = [str(RECORDS / name) for name in ("small", "small-seed1")]
    result = CliRunner().invoke(app, ["compare", *runs, "--out", str(tmp_path / "none/x.png")])
    assert result.exit_code == 2
    assert "there is no folder" in result.output


def test_a_csv_that_cannot_be_written_is_refused_before_anything_is_computed(tmp_path: Path):
    (tmp_path / "file").touch()
    for csv in (tmp_path / "file/x.csv", tmp_path / "none/x.csv", tmp_path):
        result = CliRunner().invoke(app, ["evaluate", "none", "--data", "none", "--csv", str(csv)])
        assert result.exit_code == 2
        assert f"--csv {csv}: cannot be written" in result.output
    assert may_write(tmp_path / "x.csv")
    assert may_write(tmp_path / "file")


def listing(folder: Path) -> dict[str, int]:
    return {str(path): path.stat().st_mtime_ns for path in (folder, *folder.rglob("*"))}


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """Return a finished run that may be written to, so that what is written shows."""
    return Path(shutil.copytree(RUN, tmp_path / "run"))


def test_a_run_is_reported_elsewhere_and_only_read(copy: Path, tmp_path: Path):
    before = listing(copy)
    result = CliRunner().invoke(app, ["report", str(copy), "--out", str(tmp_path / "out"), "--format", "svg"])
    assert result.exit_code == 0, result.output
    assert listing(copy) == before
    written = {path.name for path in (tmp_path / "out").iterdir()}
    assert {"report.html", "trials.csv", "front.csv", "front.png", "pictures", "figures"} <= written
    page = (tmp_path / "out/report.html").read_text(encoding="utf-8")
    assert page.count("data:image/png;base64,") >= 5  # the pictures came along


def test_presets_elsewhere_leave_the_run_alone(copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(presets, "ship", lambda *a, **k: presets.Shipment((), ()))
    before = listing(copy)
    assert CliRunner().invoke(app, ["presets", str(copy), "--out", str(tmp_path / "out")]).exit_code == 0
    assert listing(copy) == before
    assert CliRunner().invoke(app, ["presets", str(copy)]).exit_code == 0
    assert (copy / "run.lock").is_file()  # what writes into the run keeps others out


def test_a_read_only_run_is_told_by_the_name_of_the_file(copy: Path, monkeypatch: pytest.MonkeyPatch):
    def refuse(path: Path, content: bytes) -> int:
        raise OSError(errno.EROFS, "Read-only file system", str(path))

    monkeypatch.setattr(Path, "write_bytes", refuse)
    result = CliRunner().invoke(app, ["report", str(copy)])
    assert result.exit_code == 2
    assert f"{copy / 'trials.csv'}: cannot be used (Read-only file system)" in result.output
    assert ".part" not in result.output


def test_errors_of_the_program_keep_their_traceback(monkeypatch: pytest.MonkeyPatch):
    def fail(*arguments: object, **options: object) -> None:
        raise OSError(errno.EIO, "Input/output error", "x")

    monkeypatch.setattr("search.cli.showing.show_front", fail)
    assert isinstance(CliRunner().invoke(app, ["front", str(RUN)]).exception, OSError)


def test_an_error_names_the_file_and_not_its_temporary_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(files, "_flush_to_disk", lambda path: (_ for _ in ()).throw(OSError(28, "full", str(path))))
    with pytest.raises(OSError, match="full") as caught:
        replace_file(tmp_path / "a.csv", lambda partial: partial.write_text("x"))
    assert caught.value.filename == str(tmp_path / "a.csv")


# Encodings ----------------------------------------------------------------------------------------

SHOWN = {
    "front": ["front", str(RUN)],
    "explain": ["front", str(RUN), "--explain"],
    "select": ["select", str(RUN), "--latency-ms", "20"],
    "status": ["status", str(RUN)],
    "compare": ["compare", str(RECORDS / "small"), str(RECORDS / "small-seed1")],
    "help": ["run", "--help"],
    "an error": ["front", "Straße–東京"],
}


def output_of(arguments: list[str], encoding: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """Return what the program prints where its output has an encoding, as the interpreter would open it."""
    raw = {name: io.BytesIO() for name in ("stdout", "stderr")}
    with monkeypatch.context() as patch:
        for name, buffer in raw.items():
            patch.setattr(sys, name, io.TextIOWrapper(buffer, encoding=encoding))
        patch.setattr(sys, "argv", ["hfir-search", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        for name in raw:
            getattr(sys, name).flush()
        printed = "".join(buffer.getvalue().decode(encoding) for buffer in raw.values())
    assert ended.value.code in (0, 2 if "Straße–東京" in arguments else 0)
    return printed


@pytest.mark.parametrize("encoding", ["latin-1", "cp437"])
@pytest.mark.parametrize("command", SHOWN)
def test_every_command_prints_in_any_encoding(command: str, encoding: str, monkeypatch: pytest.MonkeyPatch):
    whole = output_of(SHOWN[command], "utf-8", monkeypatch)
    shown = output_of(SHOWN[command], encoding, monkeypatch)
    assert whole.splitlines()[0].encode(encoding, "replace").decode(encoding) == shown.splitlines()[0]
    assert len(shown.splitlines()) == len(whole.splitlines())


@pytest.mark.parametrize("encoding", ["latin-1", "ascii"])
def test_json_loses_nothing_in_any_encoding(encoding: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    run = Path(shutil.copytree(RECORDS / "small", tmp_path / "東京"))
    arguments = ["status", str(run), "--json"]
    found = json.loads(output_of(arguments, encoding, monkeypatch))
    assert found == json.loads(output_of(arguments, "utf-8", monkeypatch))
    assert "東京" in found["folder"]
