"""`hfir-search export` as its user meets it."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import jaxtyping
import pytest
import torch
from ruamel.yaml import YAML
from safetensors.torch import load_file
from typer.testing import CliRunner, Result

from hfir import ExportError, HFIRConfig, build_model, load_preset, save_weights
from hfir.export import FORMATS
from hfir.presets import WEIGHTS_FILE
from search.cli import exporting
from search.cli.app import ExportFormat, app

SMALL = HFIRConfig(width=4, upscale=1, encoder_blocks=(1,), bottleneck_blocks=0, decoder_blocks=(0,))
Call = Callable[..., Result]


@pytest.fixture(autouse=True, scope="module")
def unchecked_shapes() -> Iterator[None]:
    """Shape checks would compare the symbolic sizes of a trace, and so tie it to the traced size."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.fixture
def preset(tmp_path: Path) -> Path:
    folder = tmp_path / "presets" / "best"
    folder.mkdir(parents=True)
    with torch.random.fork_rng():
        save_weights(build_model(SMALL), folder / WEIGHTS_FILE)
    card = {"schema": 1, "name": "best", "task": {"kind": "denoise"}, "provenance": {"run": "quick run"}}
    YAML().dump(card, folder / "preset.yaml")
    return folder


@pytest.fixture
def call() -> Call:
    return lambda *arguments: CliRunner().invoke(app, ["export", *map(str, arguments)])


def test_onnx_is_the_default_and_its_check_is_printed(call: Call, preset: Path, tmp_path: Path):
    import onnx

    done = call(preset, "-o", tmp_path / "out")
    assert done.exit_code == 0, done.output
    [path] = (tmp_path / "out").iterdir()
    assert path.name == "1x_quick-run-best_HydraFusionIR_1x3xHxW_dyn-HW_fp32_op15.onnx"
    assert str(path) in done.stdout.replace("\n", "")
    assert "opset 15, IR version 8" in done.stdout
    assert "ONNX Runtime 1.9 or later reads it." in done.stdout
    assert all(size in done.stdout for size in ("16x16", "37x50", "64x48"))
    assert {entry.key: entry.value for entry in onnx.load(path).metadata_props}["task"] == "denoise"


def test_a_file_exported_before_keeps_its_name(call: Call, preset: Path, tmp_path: Path):
    first = json.loads(call(preset, "-o", tmp_path / "a", "--format", "safetensors", "--json").stdout)
    assert first["checks"] == [
        {"height": h, "width": w, "max_difference": 0.0} for h, w in ((16, 16), (37, 50), (64, 48))
    ]
    assert first["bytes"] == Path(first["path"]).stat().st_size
    again = json.loads(call(first["path"], "-o", tmp_path / "b", "--format", "safetensors", "--fp16", "--json").stdout)
    assert Path(again["path"]).name == "1x_quick-run-best_HydraFusionIR_fp16.safetensors"
    assert load_preset(again["path"]).config.fused


def test_nothing_is_overwritten_unasked(call: Call, preset: Path, tmp_path: Path):
    arguments = (preset, "-o", tmp_path / "a", "--format", "safetensors", "--name", "mine")
    assert call(*arguments).exit_code == 0
    again = call(*arguments)
    assert again.exit_code == 2
    assert "exists" in again.stderr
    assert call(*arguments, "--overwrite").exit_code == 0


def test_an_untrained_preset_is_refused_unless_asked_for(call: Call, tmp_path: Path):
    refused = call("efficient", "-o", tmp_path)
    assert refused.exit_code == 2
    assert "--untrained exports it all the same" in refused.stderr
    done = [call("efficient", "-o", tmp_path / f, "--format", "safetensors", "--untrained") for f in "ab"]
    assert [d.exit_code for d in done] == [0, 0]
    a, b = (tmp_path / f / "2x_efficient-untrained_HydraFusionIR.safetensors" for f in "ab")
    one, other = load_file(a), load_file(b)
    assert one.keys() == other.keys()
    assert all(torch.equal(value, other[name]) for name, value in one.items())


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (("nothing-here",), "no such file"),
        (("nothing-here", "--untrained"), "only a named preset has no weights (efficient"),
        (("{preset}", "--name", "///"), "letters or digits"),
    ],
)
def test_what_cannot_be_used_is_said_with_exit_code_2(call: Call, preset: Path, tmp_path: Path, given, said: str):
    done = call(*(str(preset) if word == "{preset}" else word for word in given), "-o", tmp_path / "out")
    assert done.exit_code == 2
    assert said in done.stderr
    assert not (tmp_path / "out").exists()


def test_what_cannot_be_written_is_said_with_exit_code_1(
    call: Call, preset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def refuse(*arguments: object, **options: object) -> None:
        raise ExportError("cannot export this network")

    monkeypatch.setattr(exporting, "export_model", refuse)
    done = call(preset, "-o", tmp_path / "out")
    assert done.exit_code == 1
    assert done.stderr == "hfir-search: cannot export this network\n"


def test_the_formats_offered_are_those_there_are():
    assert tuple(ExportFormat) == FORMATS
