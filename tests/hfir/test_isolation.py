"""What importing brings: the network stands without the platform, and its configuration without torch."""

import json
import os
import subprocess
import sys
from pathlib import Path

import hfir

PLATFORM = frozenset({"search", "optuna", "ray", "pandas", "matplotlib", "fvcore"})
ROOT = Path(hfir.__file__).parents[1]


def brought_by(code: str, *before: Path) -> set[str]:
    """Return the top-level packages that a fresh interpreter holds after running `code`."""
    report = "import json, sys; print(json.dumps(sorted({name.split('.')[0] for name in sys.modules})))"
    env = os.environ | {"PYTHONPATH": os.pathsep.join(map(str, (*before, ROOT)))}
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\n{report}"], env=env, capture_output=True, text=True, check=True
    )
    return set(json.loads(done.stdout))


def test_importing_hfir_brings_neither_torch_nor_the_platform():
    brought = brought_by("import hfir; hfir.HFIRConfig.from_dict(hfir.HFIRConfig().to_dict())")
    assert "hfir" in brought
    assert not brought & (PLATFORM | {"torch", "numpy"})


def test_building_a_network_brings_torch_and_not_the_platform():
    brought = brought_by("import hfir; hfir.build_model(hfir.HFIRConfig(width=4)); hfir.load_preset; hfir.fuse")
    assert "torch" in brought
    assert not brought & PLATFORM


def test_these_checks_can_fail(tmp_path: Path):
    for name in sorted((PLATFORM - {"search"}) | {"torch"}):  # stand-ins: the real ones are slow to import
        (tmp_path / f"{name}.py").write_text("")
    everything = "import hfir, search, optuna, ray, pandas, matplotlib, fvcore, torch"
    assert brought_by(everything, tmp_path) >= PLATFORM | {"torch"}


def test_every_public_name_is_there():
    assert all(getattr(hfir, name) is not None for name in hfir.__all__)
    assert set(hfir._HOMES) < set(hfir.__all__)
