"""How much memory does a 12-megapixel restore take, and how far is a tiled result from the whole one?

Usage: `python benchmarks/tiled_restore.py PRESET [-- OPTIONS]`, where PRESET is a trained preset's folder and OPTIONS
go to `hfir-search restore`. The picture of 4000 x 3000 px is a photograph of scikit-image, mirrored side by side. The
peak of resident memory is that of a fresh process, whole: interpreter, torch, picture and result.

The difference to the untiled result is taken on 512 x 384 px of it, twice: of the network as it is, and with the
means over the image (channel attention) held at their values for the whole image. Only the second is free of a global
path, unless experts are routed per image.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

WIDTH, HEIGHT = 4000, 3000
CROP_WIDTH, CROP_HEIGHT = 512, 384
TILES_PX = (96, 128, 192, 256)
LIMIT_MIB = 1536
COMMAND = "import sys; from search.cli import main; sys.argv[0] = 'hfir-search'; main()"


class Cost(NamedTuple):
    """What one restore took."""

    peak_mib: float
    elapsed_s: float
    log: str


def mirrored_photo(width: int, height: int) -> npt.NDArray[np.uint8]:
    """Return `[height width 3]`: a photograph and its mirror images side by side, without steps between."""
    from skimage import data

    photo = data.astronaut()
    pair = np.concatenate([photo, photo[:, ::-1]], axis=1)
    block = np.concatenate([pair, pair[::-1]], axis=0)
    across, down = -(-width // block.shape[1]), -(-height // block.shape[0])
    return np.ascontiguousarray(np.tile(block, (down, across, 1))[:height, :width])


def restore_in_fresh_process(preset: str, folder: Path, options: list[str]) -> Cost:
    """Restore the large picture by the command line, and return what the process took."""
    from PIL import Image

    source = folder / "large.png"
    Image.fromarray(mirrored_photo(WIDTH, HEIGHT)).save(source, compress_level=1)
    arguments = ["restore", str(source), "--preset", preset, "--out", str(folder / "restored.png"), *options]
    log = folder / "log.txt"
    start = time.perf_counter()
    with log.open("w") as stderr:
        process = subprocess.Popen([sys.executable, "-c", COMMAND, *arguments], stdout=stderr, stderr=stderr)
        _, status, usage = os.wait4(process.pid, 0)
    elapsed_s = time.perf_counter() - start
    if status:
        raise SystemExit(log.read_text())
    return Cost(usage.ru_maxrss / 1024, elapsed_s, log.read_text())


def largest_difference(model: Any, image: Any, whole: Any, tile_px: int) -> float:
    """Return max |tiled - whole| in 8-bit levels."""
    from hfir.tiling import restore_tiled

    tiled = restore_tiled(model, image, tile_px=tile_px)
    return float((tiled.clamp(0, 1) - whole.clamp(0, 1)).abs().max()) * 255


def differences(preset: str) -> list[tuple[int, float, float]]:
    """Return for each tile side the largest difference of the network as it is, and with its means held."""
    import torch

    from hfir.blocks.naf import ChannelAttention
    from search.inference.networks import load_trained

    model = load_trained(preset)
    image = torch.from_numpy(mirrored_photo(WIDTH, HEIGHT)[200 : 200 + CROP_HEIGHT, 300 : 300 + CROP_WIDTH])
    image = image.permute(2, 0, 1)[None].float() / 255
    if model.config.in_channels == 1:
        image = image.mean(dim=1, keepdim=True)
    held: dict[Any, Any] = {}
    hooks = [m.conv.register_forward_hook(lambda m, _, y: held.update({m: y})) for m in _of(model, ChannelAttention)]
    with torch.inference_mode():
        whole = model(image)
    for hook in hooks:
        hook.remove()
    as_it_is = [largest_difference(model, image, whole, side) for side in TILES_PX]
    for module in _of(model, ChannelAttention):
        module.conv.register_forward_hook(lambda m, _, y: held[m])
    fixed = [largest_difference(model, image, whole, side) for side in TILES_PX]
    return list(zip(TILES_PX, as_it_is, fixed, strict=True))


def _of(model: Any, kind: type) -> list[Any]:
    return [module for module in model.modules() if isinstance(module, kind)]


def main() -> int:
    """Print both; return 1 where memory or a difference is above its limit."""
    parser = argparse.ArgumentParser(description="Memory of a 12-megapixel restore, and what tiling changes.")
    parser.add_argument("preset", help="folder of a trained preset")
    parser.add_argument("options", nargs="*", help="for hfir-search restore, after --")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:  # first: a child's peak counts from its parent's size
        cost = restore_in_fresh_process(arguments.preset, Path(folder), arguments.options)
    print(cost.log.rstrip())
    print(f"{WIDTH} x {HEIGHT} px: peak resident {cost.peak_mib:.0f} MiB (limit {LIMIT_MIB}), {cost.elapsed_s:.1f} s")
    print(f"max |tiled - whole| in 8-bit levels on {CROP_WIDTH} x {CROP_HEIGHT} px, overlap 32")
    print(f"{'tile':>6}{'as it is':>12}{'means held':>12}")
    found = differences(arguments.preset)
    for side, as_it_is, fixed in found:
        print(f"{side:>6}{as_it_is:>12.4f}{fixed:>12.4f}")
    import torch

    from search.evaluation.host import host_name

    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, {host_name()}")
    return 0 if cost.peak_mib <= LIMIT_MIB and max(fixed for _, _, fixed in found) < 2 else 1


if __name__ == "__main__":
    raise SystemExit(main())
