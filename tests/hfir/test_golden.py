"""Named presets keep their size; a change on purpose is written by `python tests/golden/regenerate.py`."""

import json
import runpy
from pathlib import Path

import pytest

from hfir import list_presets

GOLDEN = Path(__file__).parents[1] / "golden"


@pytest.fixture(scope="module")
def found() -> dict[str, dict[str, int]]:
    return runpy.run_path(str(GOLDEN / "regenerate.py"))["figures"]()


@pytest.mark.parametrize("name", list_presets())
def test_a_preset_keeps_its_parameters_and_macs(found, name: str):
    golden = json.loads((GOLDEN / "presets.json").read_text(encoding="utf-8"))
    assert found[name] == golden[name]


def test_every_golden_preset_still_exists():
    assert sorted(json.loads((GOLDEN / "presets.json").read_text(encoding="utf-8"))) == sorted(list_presets())
