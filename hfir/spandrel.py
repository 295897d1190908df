"""Plug-in for spandrel, the loader inside chaiNNer and ComfyUI: `register()`, and it knows HydraFusionIR.

spandrel tells architectures apart by the keys of a state dict alone. Ours carries its configuration as the buffer
`hfir_cfg` (JSON as bytes), so a weight file is recognised and rebuilt without a guess. Optional: needs spandrel.
"""

import json
from typing import Any

import torch

from hfir.config import HFIRConfig
from hfir.errors import WeightsError
from hfir.model import HydraFusionIR, build_model

try:
    from spandrel import (  # pyright: ignore[reportMissingImports]
        MAIN_REGISTRY,
        Architecture,
        ArchSupport,
        ImageModelDescriptor,
        ModelTiling,
        SizeRequirements,
    )
    from spandrel.util import KeyCondition  # pyright: ignore[reportMissingImports]
except ImportError as error:
    raise ImportError(
        f"hfir.spandrel needs spandrel and what spandrel needs ({error}). "
        "Install both: pip install 'hfir-search[spandrel]'.",
        name=error.name,
    ) from error

ARCHITECTURE = "HydraFusionIR"
MINIMUM_SIDE = 16
"""Sides below are legal too, but there is nothing to restore in them; spandrel pads them to this many pixels."""


class HydraFusionIRArch(Architecture[HydraFusionIR]):
    """How spandrel recognises and loads our networks, in training or deploy form."""

    def __init__(self) -> None:
        super().__init__(id=ARCHITECTURE, detect=KeyCondition.has_all("hfir_cfg", "stem.weight", "head.conv.weight"))

    def load(self, state_dict: dict[str, Any]) -> ImageModelDescriptor[HydraFusionIR]:
        """Build the network that the buffer describes, with the weights of the state dict (strictly).

        Raises:
            WeightsError: If the buffer holds no configuration.
            ConfigError: If the configuration breaks a rule, or is from a newer version of hfir.
        """
        config = _config_of(state_dict)
        model = build_model(config)
        return ImageModelDescriptor(
            model,
            state_dict,
            architecture=self,
            purpose="Restoration" if config.upscale == 1 else "SR",
            tags=[f"{config.width}w", f"{config.levels}L", *(["fused"] if config.fused else [])],
            supports_half=model.supports_fp16,
            supports_bfloat16=True,
            scale=config.upscale,
            input_channels=config.in_channels,
            output_channels=config.in_channels,
            size_requirements=SizeRequirements(minimum=MINIMUM_SIDE),
            tiling=ModelTiling.DISCOURAGED if model.has_global_path else ModelTiling.SUPPORTED,
        )


def register() -> None:
    """Make spandrel's loaders recognise HydraFusionIR, in this process; a second call changes nothing."""
    MAIN_REGISTRY.add(ArchSupport.from_architecture(HydraFusionIRArch()), ignore_duplicates=True)


def _config_of(state_dict: dict[str, Any]) -> HFIRConfig:
    buffer = state_dict["hfir_cfg"].to(torch.uint8)  # tools that cast every tensor to half keep these values exact
    try:
        data = json.loads(bytes(buffer.tolist()))
    except ValueError as error:  # no JSON, or not even text
        raise WeightsError(
            f"hfir_cfg: the file's configuration is not JSON ({error}). Use a file that hfir-search exported."
        ) from error
    return HFIRConfig.from_dict(data)
