"""Presets keep their size, networks their output, ONNX files their weights.

A change on purpose is written by `just golden`; review the diff.
"""

import json
import runpy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from hfir import fuse, list_presets, load_preset
from hfir.slots import ALL

GOLDEN = Path(__file__).parents[1] / "golden"
SHIPPED = sorted((Path(__file__).parents[2] / "results" / "reference" / "efficient" / "presets").iterdir())
NETWORKS = runpy.run_path(str(GOLDEN / "outputs.py"))
CASES = NETWORKS["CASES"]
SAMPLERS = ("downsampler", "upsampler")
"""Not used by a network of one level."""
TOLERANCE = 1e-4
"""Of the output's range: rounding on another CPU stays far below, a changed computation does not."""


@pytest.fixture(scope="module")
def found() -> dict[str, dict[str, int]]:
    return runpy.run_path(str(GOLDEN / "regenerate.py"))["figures"]()


@pytest.fixture(scope="module")
def stored() -> dict[str, Any]:
    with np.load(NETWORKS["FILE"]) as file:
        return dict(file)


@pytest.mark.parametrize("name", list_presets())
def test_a_preset_keeps_its_parameters_and_macs(found, name: str):
    golden = json.loads((GOLDEN / "presets.json").read_text(encoding="utf-8"))
    assert found[name] == golden[name]


def test_every_golden_preset_still_exists():
    assert sorted(json.loads((GOLDEN / "presets.json").read_text(encoding="utf-8"))) == sorted(list_presets())


def worst(image: torch.Tensor, expected: np.ndarray) -> float:
    """Return the largest difference as a share of the range of what is expected."""
    assert image.shape == expected.shape
    return float(np.abs(image.numpy() - expected).max() / np.ptp(expected))


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("form", ["training", "fused", "channels last"])
def test_a_network_keeps_its_output(stored, name: str, form: str):
    model, channels_last = NETWORKS["network"](CASES[name]), form == "channels last"
    image = NETWORKS["output"](
        CASES[name],
        model if form == "training" else fuse(model),
        torch.channels_last if channels_last else torch.contiguous_format,
    )
    assert worst(image, stored[name]) < TOLERANCE


def test_every_stored_output_has_its_network(stored):
    assert sorted(stored) == sorted(CASES)


@pytest.mark.parametrize("slot", ALL)
def test_every_choice_of_a_slot_has_a_stored_output(slot: str):
    configs = [case.config for case in CASES.values() if case.config.levels > 1 or slot not in SAMPLERS]
    chosen = {getattr(config, slot) for config in configs}
    assert {getattr(choice, "kind", choice) for choice in chosen} >= set(ALL[slot])


@pytest.mark.parametrize("folder", SHIPPED, ids=lambda folder: folder.name)
def test_a_shipped_onnx_file_computes_what_its_weights_do(folder: Path, image):
    import onnxruntime

    [file] = folder.glob("*.onnx")
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    x = image(1, 3, 37, 50, seed=1)
    [of_onnx] = session.run(None, {session.get_inputs()[0].name: x.numpy()})
    with torch.no_grad():
        assert worst(load_preset(folder)(x), of_onnx) < TOLERANCE
