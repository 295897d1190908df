"""HydraFusionIR, a family of image-restoration and super-resolution networks.

The names below are the public surface. They load on first use, so that a configuration can be read or checked
without torch.
"""

from typing import TYPE_CHECKING, Any

from hfir.config import (
    EXPERT_NAMES,
    ChannelAttentionConfig,
    DeformableRefinerConfig,
    DenseConfig,
    DFTRefinerConfig,
    FrequencySplitConfig,
    HFIRConfig,
    LargeKernelConfig,
    MoEConfig,
    NAFConfig,
    WindowAttentionConfig,
)
from hfir.errors import ConfigError, ExportError, HFIRError, TilingError, WeightsError

if TYPE_CHECKING:
    from hfir.export import Exported, export_model
    from hfir.fusion import fuse
    from hfir.model import HydraFusionIR, build_model
    from hfir.presets import list_presets, load_preset, preset_config, save_weights
    from hfir.tiling import restore_tiled

__all__ = [
    "EXPERT_NAMES",
    "ChannelAttentionConfig",
    "ConfigError",
    "DFTRefinerConfig",
    "DeformableRefinerConfig",
    "DenseConfig",
    "ExportError",
    "Exported",
    "FrequencySplitConfig",
    "HFIRConfig",
    "HFIRError",
    "HydraFusionIR",
    "LargeKernelConfig",
    "MoEConfig",
    "NAFConfig",
    "TilingError",
    "WeightsError",
    "WindowAttentionConfig",
    "build_model",
    "export_model",
    "fuse",
    "list_presets",
    "load_preset",
    "preset_config",
    "restore_tiled",
    "save_weights",
]

_HOMES = {
    "Exported": "hfir.export",
    "export_model": "hfir.export",
    "fuse": "hfir.fusion",
    "HydraFusionIR": "hfir.model",
    "build_model": "hfir.model",
    "list_presets": "hfir.presets",
    "load_preset": "hfir.presets",
    "preset_config": "hfir.presets",
    "restore_tiled": "hfir.tiling",
    "save_weights": "hfir.presets",
}


def __getattr__(name: str) -> Any:
    """Load the torch-bound names on first use."""
    if name not in _HOMES:
        raise AttributeError(f"module 'hfir' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOMES[name]), name)
