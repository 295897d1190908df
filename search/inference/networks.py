"""A trained network made ready: on its device, in its precision, with tiles that fit into memory."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from hfir.config import EXPERT_NAMES
from hfir.errors import HFIRError
from hfir.fusion import fuse
from hfir.model import HydraFusionIR
from hfir.presets import PRESET_FILE, list_presets, load_preset
from hfir.tiling import (
    OVERLAP_PX,
    OnTile,
    PassMemory,
    TileGrid,
    Window,
    check_tile,
    restore_parts,
    tile_side_px,
)
from search.evaluation.cost import MIB, as_deployed, measured_image, peak_memory_mib
from search.evaluation.routing import asks_for_degradation, condition_from
from search.types import EvaluationError, InputError, InputSize

log = logging.getLogger(__name__)

Half = Literal["none", "bf16", "fp16"]
_UNSEEN = 1.75
"""What a pass takes over what torch counts: scratch of libraries, blending, gaps between blocks (docs/log.md)."""

_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}
_PROBES_PX = (96, 192)
"""Sides of the images that memory is measured on: the line through two points gives the rest."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Restorer:
    """A network with all that it takes to run it on images of any size.

    Args:
        model: Deploy form, eval mode, on `device`.
        device: Where it runs.
        half: `bf16` or `fp16` for autocast (the image itself stays fp32), or `none`.
        tile_px: Longest side of a tile in input pixels; None for whole images.
        overlap_px: Input pixels that neighbouring tiles share.
        degradation: What a network that asks for the degradation is told, an index into `EXPERT_NAMES`, or None.
    """

    model: HydraFusionIR
    device: torch.device
    half: Half = "none"
    tile_px: int | None = None
    overlap_px: int = OVERLAP_PX
    degradation: int | None = None

    @property
    def scale(self) -> int:
        """Output side over input side."""
        return self.model.config.upscale

    @property
    def channels(self) -> int:
        """Channels of the network's input and output."""
        return self.model.config.in_channels

    def __call__(self, image: Tensor) -> Tensor:
        """Return the network's output `[1 c h·s w·s]` for `[1 c h w]`, computed whole."""
        with torch.autocast(self.device.type, dtype=_DTYPES.get(self.half), enabled=self.half != "none"):
            return self.model(image, self._condition())

    def told(self, degradation: int | None) -> Restorer:
        """Return the restorer that tells its network a degradation, where it asks for one."""
        return dataclasses.replace(self, degradation=degradation)

    def _condition(self) -> Tensor | None:
        label = None if self.degradation is None else torch.tensor([self.degradation], device=self.device)
        return condition_from(self.model.config, label)

    def run(
        self,
        read: Callable[[Window], Tensor],
        write: Callable[[int, int, Tensor], None],
        size: tuple[int, int],
        on_tile: OnTile | None = None,
    ) -> TileGrid:
        """Restore an image that is read and written in parts; see `hfir.tiling.restore_parts`.

        Raises:
            EvaluationError: If not even small tiles fit into memory.
        """
        try:
            return restore_parts(
                self,
                read,
                write,
                size=size,
                scale=self.scale,
                tile_px=self.tile_px or max(*size, 2 * self.overlap_px, 32),
                overlap_px=self.overlap_px,
                alignment_px=self.model.config.grid_px,
                on_tile=on_tile,
            )
        except HFIRError as error:
            raise EvaluationError(str(error)) from error


def open_restorer(
    preset: str,
    *,
    device: str = "cpu",
    half: Half = "none",
    tile_px: int | None = None,
    overlap_px: int = OVERLAP_PX,
    degradation: str | None = None,
) -> Restorer:
    """Load a trained network and make it ready.

    Args:
        preset: A preset's folder, or a .safetensors file.
        device: `cpu`, `cuda` or `cuda:N`.
        half: Precision of the network's inner work.
        tile_px: Longest side of a tile; None for whole images.
        overlap_px: Input pixels that neighbouring tiles share.
        degradation: What to tell a network that asks, a name in `EXPERT_NAMES`.

    Raises:
        InputError: If the preset cannot be loaded or is untrained, the degradation is unknown or not asked for, the
            device is not there, the network is not made for fp16, or tile and overlap do not fit together.
    """
    place = find_device(device)
    model = load_trained(preset)
    if model.config.in_channels not in (1, 3):
        raise InputError(
            f"{preset}: a network of {model.config.in_channels} channels. Pictures need one of 1 (luma) or 3 (colour): "
            "use another preset; alpha is carried along without the network."
        )
    label = _label(model, preset, degradation)
    if half == "fp16" and not model.supports_fp16:
        raise InputError(f"{preset}: this network overflows in fp16. Use --half bf16 or none.")
    try:
        check_tile(max(2 * overlap_px, 32) if tile_px is None else tile_px, overlap_px)
    except HFIRError as error:
        raise InputError(str(error)) from error
    restorer = Restorer(model=model.to(place), device=place, half=half, tile_px=tile_px, overlap_px=overlap_px)
    return restorer.told(label)


def _label(model: HydraFusionIR, preset: str, degradation: str | None) -> int | None:
    if degradation is None:
        return None
    if degradation not in EXPERT_NAMES:
        raise InputError(f"degradation {degradation!r}: not known. Use one of {', '.join(EXPERT_NAMES)}.")
    if not asks_for_degradation(model.config):
        raise InputError(
            f"{preset}: this network finds out the degradation by itself, and cannot be told {degradation!r}. "
            "Leave --degradation out, or use a network that was searched with expert_condition."
        )
    return EXPERT_NAMES.index(degradation)


def with_tiles_within(restorer: Restorer, limit_mib: float) -> Restorer:
    """Return the restorer with the largest tiles whose pass keeps to a limit; memory is measured here.

    Raises:
        InputError: If not even the smallest tile keeps to the limit.
    """
    memory = measure_pass_memory(restorer)
    try:
        side = tile_side_px(memory, limit_mib, overlap_px=restorer.overlap_px)
    except HFIRError as error:
        raise InputError(str(error)) from error
    log.info("tile_px=%d limit_mib=%g fixed_mib=%.1f bytes_per_px=%.0f", side, limit_mib, *memory)
    return dataclasses.replace(restorer, tile_px=side)


def measure_pass_memory(restorer: Restorer) -> PassMemory:
    """Measure what a pass takes on two image sizes, and return the line through them."""
    small, large = (_peak_mib(restorer, InputSize(width=side, height=side)) for side in _PROBES_PX)
    pixels = [side**2 for side in _PROBES_PX]
    per_px = max((large - small) / (pixels[1] - pixels[0]), 1 / MIB)
    fixed = max(0.0, small - per_px * pixels[0])
    return PassMemory(fixed_mib=_UNSEEN * fixed, bytes_per_px=_UNSEEN * per_px * MIB)


def load_trained(preset: str) -> HydraFusionIR:
    """Return the deploy form of a trained network, ready to run.

    Raises:
        InputError: If it cannot be loaded, or is only a name: its weights would be random.
    """
    if preset in list_presets():
        raise InputError(
            f"preset {preset!r} is a configuration without weights: it would restore by random numbers. "
            "Give a preset's folder or .safetensors file; a run leaves three in results/<run>/presets/ "
            f"(a folder of that very name: ./{preset})."
        )
    try:
        model = load_preset(preset)
        return as_deployed(model if model.config.fused else fuse(model))
    except HFIRError as error:
        raise InputError(str(error)) from error


def find_device(name: str) -> torch.device:
    """Return a device by its name.

    Raises:
        InputError: If the name is not cpu, cuda or cuda:N, or torch does not see that device.
    """
    kind, _, index = name.partition(":")
    if name != "cpu" and (kind != "cuda" or not (name == "cuda" or index.isdecimal())):
        raise InputError(f"device {name!r}: not known. Use cpu, cuda or cuda:N.")
    count = torch.cuda.device_count() if kind == "cuda" else 0
    if kind == "cuda" and int(index or 0) >= count:
        seen = "no CUDA device" if not count else f"{count} CUDA devices, numbered from 0"
        raise InputError(f"device {name!r}: torch {torch.__version__} sees {seen} here. Use --device cpu, or another.")
    return torch.device(name)


def preset_file(preset: str) -> Path | None:
    """Return the card beside a preset's weights, or None where there is none."""
    path = Path(preset)
    card = (path if path.is_dir() else path.parent) / PRESET_FILE
    return card if card.is_file() else None


def _peak_mib(restorer: Restorer, at: InputSize) -> float:
    if restorer.device.type == "cpu":  # in fp32, which bounds what half precision takes
        return peak_memory_mib(restorer.model, at)
    image = measured_image(restorer.model.config, at).to(restorer.device)
    torch.cuda.reset_peak_memory_stats(restorer.device)
    with torch.inference_mode():
        restorer(image)
    return torch.cuda.max_memory_allocated(restorer.device) / MIB
