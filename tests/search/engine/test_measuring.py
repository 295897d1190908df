"""`hfir-search measure`: a network on this machine, the candidates of a run on another one and back."""

from __future__ import annotations

import csv
import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from typer.testing import CliRunner

from hfir.model import HydraFusionIR
from search.cli.app import app
from search.measuring import bundle
from search.measuring.bundle import MANIFEST, SCRIPT, write_bundle
from search.measuring.device import COLUMNS, agreeing, interval, measure, middle
from search.measuring.importing import import_latencies
from search.report.devices import on_device
from search.store import read_study
from search.types import InputError

pytestmark = pytest.mark.usefixtures("measured_figures")

SMALL = Path(__file__).parents[3] / "results" / "reference" / "small"
NETWORK = """
from torch import nn

def make(width=4):
    return nn.Sequential(nn.Conv2d(3, width, 3, padding=1), nn.Conv2d(width, 12, 1), nn.PixelShuffle(2))

def odd():
    return 7
"""


def hfir_search(*words: str) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, list(words))
    return result.exit_code, result.stdout, result.stderr


@pytest.fixture
def network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "somebodys_net.py").write_text(NETWORK)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "somebodys_net", raising=False)
    return "somebodys_net:make"


# -- one network ---------------------------------------------------------------------------------------


def test_any_module_is_measured_by_its_import_path(network: str):
    words = ("--module", network, "--args", '{"width": 8}', "--upscale", "2", "--at", "16x12", "--json")
    code, out, err = hfir_search("measure", *words)
    assert code == 0, err
    cost = json.loads(out)["cost"]
    # 16·12 pixels: 8 · 27 and 12 · 8 products each.
    assert cost["macs_g"] == pytest.approx(192 * (216 + 96) / 1e9)
    assert cost["activations_m"] == pytest.approx(192 * 20 / 1e6)
    assert cost["params_m"] == pytest.approx((8 * 27 + 8 + 12 * 8 + 12) / 1e6)
    assert (cost["latency"]["at"], cost["latency"]["threads"]) == ("16x12", 1)


def test_a_preset_is_shown_part_by_part():
    code, out, err = hfir_search(
        "measure", str(SMALL / "presets" / "fastest"), "--by-module", "--at", "32x32", "--json"
    )
    assert code == 0, err
    record = json.loads(out)
    assert record["modules"][0]["path"] == ""
    assert record["modules"][0]["share"] == 1.0
    assert sum(m["macs"] for m in record["modules"] if m["path"] and "." not in m["path"]) == record["macs"]
    code, out, err = hfir_search("measure", str(SMALL / "presets" / "fastest"), "--by-module", "--at", "32x32")
    assert "stem (Conv2d)" in out
    assert "By kind of operation: convolution" in out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--module", "somebodys_net"), "is no import path"),
        (("--module", "somebodys_net:odd"), "returns int"),
        (("--module", "somebodys_net:nothing"), "has no nothing"),
        (("--module", "somebodys_net:make"), "The task's scale is 1"),
        (("--module", "somebodys_net:make", "--args", "{width: 8}"), "is not JSON"),
        (("--module", "somebodys_net:make", "--args", "[8]"), "no JSON object"),
        (("--module", "somebodys_net:make", "--channels", "1"), "raises RuntimeError"),
        (("efficient", "--module", "somebodys_net:make"), "one of the two"),
        (("nowhere",), "no such file"),
        (("efficient", "--at", "160"), "WIDTHxHEIGHT"),
        (("efficient", "--runtime", "tensorrt"), "not known"),
        (("efficient", "--device", "cuda:99"), "CUDA devices"),
    ],
)
@pytest.mark.usefixtures("network")
def test_what_cannot_be_measured_is_said_in_one_message(words: tuple[str, ...], said: str):
    code, _, err = hfir_search("measure", *words)
    assert code == 2
    assert said in err


def test_measure_offers_its_commands_and_the_options_of_a_network():
    assert "bundle" in hfir_search("measure", "--help")[1]
    assert "--by-module" in hfir_search("measure", "network", "--help")[1]


# -- other devices -------------------------------------------------------------------------------------


def bundle_in(folder: Path) -> tuple[Path, Path]:
    """Write the bundle of a run, with two networks; return both."""
    run = folder / "run"
    shutil.copytree(SMALL, run)
    with pytest.MonkeyPatch.context() as patch:
        every = bundle._chosen
        patch.setattr(bundle, "_chosen", lambda study, every_=False, **k: list(every(study, every=False))[:2])
        write_bundle(run, folder / "bundle", every=False)
    return run, folder / "bundle"


def unexported(model: HydraFusionIR, out: Path, *, format: str, name: str, overwrite: bool) -> SimpleNamespace:
    """Stand for an export: a file that nobody runs."""
    path = out / f"{name}.{format}"
    path.write_bytes(name.encode())
    return SimpleNamespace(path=path)


@pytest.fixture(scope="module")
def bundled(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Return a run and its bundle, whose ONNX files are none."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bundle, "export_model", unexported)
        return bundle_in(tmp_path_factory.mktemp("devices"))


@pytest.fixture
def measured(bundled: tuple[Path, Path], tmp_path: Path) -> tuple[Path, Path]:
    """Return a copy of the run, and a CSV as a device would write it."""
    run = tmp_path / "run"
    shutil.copytree(bundled[0], run)
    models = json.loads((bundled[1] / MANIFEST).read_text())["models"]
    rows = [
        {
            **{"trial": model["trial"], "sha256": model["sha256"], "median_ms": 5.0 - place, "low_ms": 1.0},
            **{"high_ms": 9.0, "repeats": 20, "trusted": True, "reference_drift": -0.001, "discarded_blocks": 0},
            **{"at": "96x96", "threads": 1, "runtime": "onnxruntime 1", "device": "cpu", "host": "Tensor G3"},
            "measured_at": "2026-01-01T00:00:00+00:00",
        }
        for place, model in enumerate(models)
    ]
    return run, written(tmp_path / "pixel8.csv", rows)


def written(path: Path, rows: list[dict]) -> Path:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(rows)
    return path


def changed(path: Path, **values: object) -> Path:
    """Change the second line of figures."""
    rows = list(csv.DictReader(path.read_text().splitlines()))
    rows[1] |= values
    return written(path, rows)


@pytest.mark.slow
def test_the_script_of_a_bundle_runs_alone_and_goes_on_where_it_stopped(tmp_path: Path):
    run, folder = bundle_in(tmp_path)
    call = [sys.executable, "-I", str(folder / SCRIPT), "--limit-s", "0.05"]
    out = subprocess.run(call, capture_output=True, text=True, check=True).stdout
    assert "2/2" in out
    whole = (folder / "results.csv").read_text()
    first = "".join(whole.splitlines(keepends=True)[:2])
    (folder / "results.csv").write_text(first + whole.splitlines()[2][:30])  # stopped within the second line
    out = subprocess.run(call, capture_output=True, text=True, check=True).stdout
    assert out.startswith("2/2")
    again = (folder / "results.csv").read_text()
    assert again.startswith(first.replace("\r\n", "\n")) or again.startswith(first)
    assert import_latencies(run, folder / "results.csv", name="here") == 2


def test_figures_of_a_device_rank_the_front_anew(measured: tuple[Path, Path]):
    run, file = measured
    assert import_latencies(run, file, name="pixel8") == 2
    seen = on_device(read_study(run), "pixel8")
    known = {t.number: t.value("latency_ms") for t in seen.trials if t.value("latency_ms") is not None}
    assert sorted(known.values()) == [4.0, 5.0]
    latency = next(t.cost.latency for t in seen.trials if t.number in known and t.cost)
    assert latency is not None
    assert latency.host == "pixel8: Tensor G3"
    code, out, _ = hfir_search("front", str(run), "--on", "pixel8", "--json")
    assert code == 0
    assert {row["latency_ms"] for row in json.loads(out)["front"]} <= {4.0, 5.0}
    assert hfir_search("select", str(run), "--on", "pixel8", "--latency-ms", "100")[0] == 0
    assert hfir_search("select", str(run), "--on", "pixel8", "--latency-ms", "1")[0] == 1
    assert "Did you mean pixel8?" in hfir_search("front", str(run), "--on", "pixel9")[2]


def test_a_report_by_a_device_has_a_folder_of_its_own(measured: tuple[Path, Path]):
    run, file = measured
    import_latencies(run, file, name="pixel8")
    before = (run / "front.csv").read_bytes()
    code, _, err = hfir_search("report", str(run), "--on", "pixel8")
    assert code == 0, err
    assert "pixel8: Tensor G3" in (run / "devices" / "pixel8" / "report.html").read_text()
    assert (run / "front.csv").read_bytes() == before


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"trial": 999}, "trial 999 is none of smoke"),
        ({"trial": "x"}, "trial x is none of smoke"),
        ({"sha256": "0" * 64}, "was not written of it here"),
        ({"median_ms": "nan"}, "median_ms: 'nan' is no figure"),
        ({"median_ms": "inf"}, "median_ms: 'inf' is no figure"),
        ({"low_ms": -1}, "low_ms: '-1' is no figure"),
        ({"high_ms": ""}, "high_ms: '' is no figure"),
        ({"low_ms": 8.0}, "does not lie in its interval"),
        ({"trusted": "yes"}, "neither True nor False"),
        ({"host": "another"}, "Import each under its own name"),
    ],
)
def test_a_wrong_line_is_refused_with_its_number_and_nothing_is_kept(measured, values: dict, said: str):
    run, file = measured
    with pytest.raises(InputError) as refusal:
        import_latencies(run, changed(file, **values), name="pixel8")
    assert said in str(refusal.value)
    assert f"{file}:3:" in str(refusal.value) or "host" in values
    assert "pixel8" not in read_study(run).facts.get("devices", {})


def test_a_wrong_file_and_a_wrong_name_are_refused(measured, tmp_path: Path):
    run, file = measured
    (tmp_path / "other.csv").write_text("a,b\n1,2\n")
    with pytest.raises(InputError, match="lacks trial, sha256"):
        import_latencies(run, tmp_path / "other.csv", name="pixel8")
    with pytest.raises(InputError, match="no name for a device"):
        import_latencies(run, file, name="../pixel8")
    with pytest.raises(InputError, match="holds no measurement"):
        import_latencies(run, written(tmp_path / "empty.csv", []), name="pixel8")
    rows = list(csv.DictReader(file.read_text().splitlines()))
    with pytest.raises(InputError, match="stands there twice"):
        import_latencies(run, written(file, [rows[0], rows[0]]), name="pixel8")


def test_a_device_without_the_objective_gets_it(measured):
    run, file = measured
    import_latencies(run, file, name="pixel8")
    study = replace(read_study(run), objectives=("psnr_db", "macs_g"))
    assert on_device(study, "pixel8").objectives == ("psnr_db", "macs_g", "latency_ms")
    assert on_device(study, None) is study


def test_the_script_computes_what_the_search_computes():
    from search.evaluation.latency import Block, Blocks, median_interval

    times = [float(i) for i in range(25)]
    assert interval(times) == median_interval(times)
    blocks = [[ms] * 5 for ms in (2.3, 2.0, 2.4, 2.05, 2.0)]
    assert agreeing(blocks) == Blocks(1.0, [Block(block, 1.0, 1.0) for block in blocks]).counting()
    busy = Blocks(1.0, [Block([ms] * 3, 2.0, 2.0) for ms in times])
    assert middle([block.at_rest(1.0) for block in busy.timed]) == busy.interval()


class Ticking:
    """A network of 2 ms, or the reference beside it, on a machine that is slower by the shares that it is told."""

    def __init__(self, *shares: float) -> None:
        self.ms, self.shares = 10.0, list(shares)

    def block(self) -> list[float]:
        return [2.0 * self.shares[0]] * 5

    def block_ms(self) -> float:
        return 10.0 * (self.shares.pop(0) if len(self.shares) > 1 else self.shares[0])


@pytest.mark.parametrize(
    ("shares", "trusted", "ms"),
    [((1.0,), True, 2.0), ((1.5,), False, 2.0), ((1.0, 0.8), True, 1.6)],
    ids=["at rest", "busy throughout", "never at rest before"],
)
def test_the_script_divides_by_what_the_reference_lost(shares, trusted, ms):
    machine = Ticking(*shares)
    row = measure(machine, machine, limit_s=0.01)
    assert (row["trusted"], row["median_ms"]) == (trusted, pytest.approx(ms))
    assert row["low_ms"] == row["high_ms"] == pytest.approx(ms)
