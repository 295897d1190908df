"""LPIPS and DISTS by pyiqa, which is optional, and whose weights it downloads at the first use.

LPIPS (Zhang et al. 2018, version 0.1 on AlexNet) and DISTS (Ding et al. 2020, on VGG16) compare features of
classification networks; lower is better, 0 for identical images.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import version
from typing import Any

import numpy as np
import torch
from torch import Tensor

from search.tasks.images import Pixels
from search.types import InputError

PERCEPTUAL = ("lpips", "dists")
"""The names that pyiqa knows them by, too."""


class PerceptualMetric:
    """One of `PERCEPTUAL`, its weights loaded.

    Args:
        name: Which.
        device: Where it runs.

    Raises:
        InputError: If pyiqa is not installed, or its weights cannot be had.
    """

    def __init__(self, name: str, device: torch.device) -> None:
        self.name, self._device = name, device
        self._measure = _from_pyiqa(name, device)

    @property
    def source(self) -> str:
        """The package and its version."""
        return f"pyiqa {version('pyiqa')}"

    def __call__(self, first: Pixels, second: Pixels, *, border: int) -> float:
        """Compare two 8-bit images `[h w c]` without `border` pixels at each side; grey counts as equal channels."""
        with torch.inference_mode():
            return float(self._measure(self._tensor(first, border), self._tensor(second, border)))

    def _tensor(self, pixels: Pixels, border: int) -> Tensor:
        height, width = pixels.shape[:2]
        inner = pixels[border : height - border, border : width - border]
        colour = np.repeat(inner, 3, axis=2) if inner.shape[-1] == 1 else inner
        levels = torch.from_numpy(colour.astype(np.float32) / np.float32(255))
        return levels.permute(2, 0, 1)[None].contiguous().to(self._device)


def _from_pyiqa(name: str, device: torch.device) -> Callable[[Tensor, Tensor], Any]:
    try:
        import pyiqa  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise InputError(
            f"--metrics {name} needs the package pyiqa, which cannot be imported ({error}).\n"
            "  Install it: pip install 'hfir-search[perceptual]'; psnr and ssim need nothing."
        ) from error
    try:
        return pyiqa.create_metric(name, device=device)
    except Exception as error:  # a download, a file, a state dict: no common base
        cause = " ".join(str(error).split()) or "no reason given"
        raise InputError(
            f"--metrics {name}: its weights cannot be loaded ({type(error).__name__}: {cause}).\n"
            "  pyiqa downloads them at the first use: connect once, or copy them from a machine that has them into "
            f"{torch.hub.get_dir()}; psnr and ssim need none."
        ) from error
