"""`train` as its user meets it: another process, a signal, the same command again."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from click.testing import Result
from typer.testing import CliRunner

import hfir
from search.cli.app import app
from search.evaluation.evaluator import task_data
from search.training import load_recipe
from search.training.start import start_from_trial
from search.training.trainer import make_fabric, train
from search.types import InputError, Study, TrialState

COMMAND = str(Path(sys.executable).with_name("hfir-search"))
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}


def called(*arguments: str) -> Result:
    """Call the command line without another process."""
    return CliRunner().invoke(app, arguments)


@pytest.fixture
def command(tmp_path: Path, photos: Path) -> list[str]:
    """The command line of an endless training of a tiny preset in `tmp_path / "out"`."""
    preset = tmp_path / "preset"
    preset.mkdir()
    config = hfir.HFIRConfig(width=4, encoder_blocks=(1,), bottleneck_blocks=0, decoder_blocks=(0,))
    hfir.save_weights(hfir.fuse(hfir.build_model(config)), preset / "weights.safetensors")
    data = {"train": str(photos / "train"), "validation": str(photos / "validation")}
    task = {"kind": "super_resolution", "upscale": config.upscale, "channels": 3, "data": data}
    card = {"name": "tiny", "task": task, "measured": {}, "conditions": {}}
    (preset / "preset.yaml").write_text(json.dumps(card))
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("{batch: 2, patch_px: 16, warmup_steps: 2, validate_every: 4}")
    options = ["--out", str(tmp_path / "out"), "--steps", "1000000", "--recipe", str(recipe), "--accelerator", "cpu"]
    return [COMMAND, "train", str(preset), *options]


@pytest.mark.slow
def test_a_terminated_training_keeps_its_steps_and_the_same_command_goes_on(command: list[str], tmp_path: Path):
    log = tmp_path / "out" / "train.log"
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT) as process:
        patience = time.monotonic() + 60
        while "step=4/" not in (log.read_text() if log.is_file() else "") and time.monotonic() < patience:
            time.sleep(0.05)
        process.send_signal(signal.SIGTERM)
        _, said = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "The same command goes on" in said
    kept = torch.load(tmp_path / "out" / "last.ckpt")["step"]
    assert kept >= 4
    on = called(*command[1:], "--time-budget", "0.001s", "--quiet", "--json")
    assert on.exit_code == 0, on.output
    assert json.loads(on.stdout)["steps"] == kept + 1


def test_options_that_name_two_starts_or_none_are_refused():
    for options in (["efficient", "--run", "x", "--trial", "1"], ["--run", "x"], []):
        result = called("train", *options, "--out", "out")
        assert result.exit_code == 2
        assert "either a PRESET, or --run and --trial" in result.output


def test_a_trial_is_trained_in_training_form_from_its_averaged_weights(unbroken: Study, tmp_path: Path):
    trial = unbroken.in_state(TrialState.COMPLETE)[0]
    start = start_from_trial(unbroken.folder, trial.number)
    changes = ["steps=2", "batch=2", "patch_px=16", f"seed={unbroken.spec['search']['seed']}"]
    recipe = load_recipe(None, changes, start.task)
    model = start.build(recipe.task, 0)
    assert not model.config.fused
    assert len(task_data(recipe.task).validation) == 2
    outcome = train(recipe, start, tmp_path / "out", make_fabric("32-true", accelerator="cpu"))
    assert outcome.before.psnr_db == pytest.approx(trial.value("psnr_db"), abs=0.005)
    assert hfir.load_preset(tmp_path / "out" / "best").config.fused


def test_a_trial_that_was_not_trained_is_refused(unbroken: Study):
    with pytest.raises(InputError, match="trial 999 was not trained"):
        start_from_trial(unbroken.folder, 999)


def test_reading_a_recipe_loads_neither_torch_nor_fabric():
    code = "import search.training, sys; sys.exit(bool({'torch', 'lightning_fabric'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], env=ENVIRONMENT, check=False).returncode == 0
