"""Presets: chosen candidates as folders that ship, and the check that a folder still holds what it says.

A folder holds `preset.yaml` (figures, conditions, checksums), `weights.safetensors`, `card.md` with `sample.png` for
people, and, where asked for, an ONNX file. `hfir.load_preset` reads it without the platform.
"""

from hfir.presets import PRESET_FILE
from search.presets.exporting import Refused, Written, export_presets
from search.presets.names import shipped_name
from search.presets.verifying import Comparison, Verdict, verify_preset

__all__ = [
    "PRESET_FILE",
    "Comparison",
    "Refused",
    "Verdict",
    "Written",
    "export_presets",
    "shipped_name",
    "verify_preset",
]
