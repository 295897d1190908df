"""Write the golden figures of the named presets anew: `python tests/golden/regenerate.py`. Review the diff."""

import json
from pathlib import Path
from typing import Any

from hfir import list_presets, preset_config
from search.evaluation.cost import count_macs_g, count_parameters
from search.types import InputSize

FILE = Path(__file__).with_name("presets.json")
OUTPUT = InputSize(width=1280, height=720)
"""What the field's tables name: MACs for a 1280x720 output."""


def figures() -> dict[str, Any]:
    """Return parameters and multiply-accumulates of every preset, exact."""
    result: dict[str, Any] = {}
    for name in list_presets():
        config = preset_config(name)
        counts = count_parameters(config)
        at = InputSize(width=OUTPUT.width // config.upscale, height=OUTPUT.height // config.upscale)
        result[name] = {
            "macs": round(count_macs_g(config, at) * 1e9),
            "macs_at": str(at),
            "params_active": round(counts.active_m * 1e6),
            "params_deploy": round(counts.deploy_m * 1e6),
            "params_train": round(counts.train_m * 1e6),
        }
    return result


if __name__ == "__main__":
    FILE.write_text(json.dumps(figures(), indent=2, sort_keys=True) + "\n", encoding="utf-8")
