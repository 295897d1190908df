"""Named configurations and preset folders: the only way from the platform back into the network.

A preset folder holds `preset.yaml` (what it is, measured figures and their conditions) and `weights.safetensors`
(the deploy form; its metadata carries the configuration, so the file also stands alone).
"""

import dataclasses
import json
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load, save

from hfir.config import DFTRefinerConfig, FrequencySplitConfig, HFIRConfig, LargeKernelConfig, MoEConfig
from hfir.config import WindowAttentionConfig as Window
from hfir.errors import ConfigError, WeightsError
from hfir.model import HydraFusionIR, build_model

WEIGHTS_FILE = "weights.safetensors"
PRESET_FILE = "preset.yaml"
METADATA_KEY = "hfir_config"

_PRESETS = {
    "efficient": HFIRConfig(
        upscale=2,
        width=16,
        encoder_blocks=(2, 3, 4),
        bottleneck_blocks=1,
        decoder_blocks=(4, 3, 2),
        mixer=LargeKernelConfig(kernel_size=7, reparam=True),
        attention=Window(window_size=8, num_heads=2, stages=("enc2", "enc3", "mid", "dec3", "dec2")),
        experts=MoEConfig(num_experts=4, top_k=1, stages=("enc3", "mid")),
        frequency_split=FrequencySplitConfig(),
        refiner=DFTRefinerConfig(depth=1),
    ),
    "enhanced": HFIRConfig(
        upscale=2,
        width=48,
        encoder_blocks=(2, 3, 4),
        bottleneck_blocks=2,
        decoder_blocks=(4, 3, 2),
        mixer=LargeKernelConfig(kernel_size=13, reparam=True),
        attention=Window(
            window_size=8,
            num_heads=4,
            overlap=0.5,
            num_tokens=8,
            stages=("enc2", "enc3", "mid", "dec3", "dec2"),
        ),
        experts=MoEConfig(
            num_experts=4, top_k=2, routing="window", stages=("enc2", "enc3", "mid", "dec3", "dec2", "refiner")
        ),
        upsampler="dysample",
        frequency_split=FrequencySplitConfig(),
        refiner=DFTRefinerConfig(depth=3, noise=True),
    ),
}


def list_presets() -> tuple[str, ...]:
    """Return the names that `load_preset` knows without a file."""
    return tuple(_PRESETS)


def preset_config(name: str, **changes: Any) -> HFIRConfig:
    """Return a named configuration, with some fields changed (`upscale=4`, say).

    Raises:
        ConfigError: If there is no preset of that name, or a change breaks a rule.
    """
    if name not in _PRESETS:
        raise ConfigError(f"preset {name!r}: known names are {', '.join(_PRESETS)}. Use one, or a preset's folder.")
    return dataclasses.replace(_PRESETS[name], **changes)


def load_preset(name_or_path: str | Path) -> HydraFusionIR:
    """Return a network in eval mode: trained from a preset folder or weight file, untrained for a known name.

    Args:
        name_or_path: A folder with `weights.safetensors`, such a file, or a name from `list_presets()`.

    Raises:
        WeightsError: If the folder or file is not there, is damaged, or was not written by hfir.
        ConfigError: If the configuration in the file breaks a rule (or is from a newer version).
    """
    if str(name_or_path) in _PRESETS:
        return build_model(_PRESETS[str(name_or_path)]).eval()
    path = Path(name_or_path)
    path = path / WEIGHTS_FILE if path.is_dir() else path
    if not path.is_file():
        raise WeightsError(
            f"{path}: no such file. Give a preset folder, a .safetensors file, or one of: {', '.join(_PRESETS)}."
        )
    try:
        data = path.read_bytes()  # safetensors itself opens no path that is not UTF-8
        state = load(data)
    except (SafetensorError, OSError) as error:
        raise WeightsError(f"{path}: cannot be read as safetensors ({error}). Copy the file again.") from error
    model = build_model(_config_of(path, data))
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        first = str(error).splitlines()[1].strip()
        raise WeightsError(
            f"{path}: the weights do not fit the configuration in the metadata ({first}). "
            "Use a file that hfir-search exported."
        ) from error
    return model.eval()


def save_weights(model: HydraFusionIR, path: Path) -> None:
    """Write a network's weights with its configuration in the metadata; `load_preset` reads them back."""
    state = {name: tensor.contiguous().cpu() for name, tensor in model.state_dict().items()}
    metadata = {"format": "pt", METADATA_KEY: model.config.to_json_bytes().decode()}
    path.write_bytes(save(state, metadata=metadata))  # unlike save_file, this keeps to the user's umask


def _config_of(path: Path, data: bytes) -> HFIRConfig:
    """Read the configuration in the header of a file: its length in 8 bytes, then JSON."""
    metadata = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")]).get("__metadata__", {})
    if METADATA_KEY not in metadata:
        raise WeightsError(
            f"{path}: carries no {METADATA_KEY!r} metadata, so it was not written by hfir. "
            "Use a file that hfir-search exported."
        )
    try:
        config = json.loads(metadata[METADATA_KEY])
    except json.JSONDecodeError as error:
        raise WeightsError(
            f"{path}: its {METADATA_KEY!r} metadata is not JSON ({error}). Use a file that hfir-search exported."
        ) from error
    return HFIRConfig.from_dict(config)
