"""What the shuffle by strided copies saves a network, and its training, beside torch's own; in turns, one thread.

python benchmarks/shuffling.py [results/reference/efficient/presets/*] [--turns 40]

For each preset, medians: one pass of the deploy form at 160 x 160 px with torch's shuffle, with ours, and the ratio;
one training step of 8 patches of 32 px likewise.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
import torch.nn.functional as F

import hfir.blocks.resample
import hfir.model
from hfir import build_model, load_preset
from hfir.blocks.shuffling import shuffle, unshuffle
from search.evaluation.jobs import start_worker

WAYS = {"torch": (F.pixel_shuffle, F.pixel_unshuffle), "ours": (shuffle, unshuffle)}


def use(way: str) -> None:
    """Have the network's modules shuffle one way."""
    there, back = WAYS[way]
    hfir.model.shuffle = hfir.blocks.resample.shuffle = there
    hfir.blocks.resample.unshuffle = back


def in_turns(run: Callable[[], object], turns: int) -> dict[str, float]:
    """Return the median time of both ways, in ms."""
    times: dict[str, list[float]] = {way: [] for way in WAYS}
    for _ in range(turns):
        for way in WAYS:
            use(way)
            run()
            begun = time.perf_counter()
            run()
            times[way].append(1e3 * (time.perf_counter() - begun))
    return {way: statistics.median(taken) for way, taken in times.items()}


def main() -> None:
    """Print a row for each preset."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("presets", nargs="*", type=Path)
    parser.add_argument("--turns", type=int, default=40)
    arguments = parser.parse_args()
    start_worker()
    print(f"{'network':14}{'pass: torch':>12}{'ours ms':>9}{'ratio':>7}{'step: torch':>13}{'ours ms':>9}{'ratio':>7}")
    for folder in arguments.presets or sorted(Path("results/reference/efficient/presets").iterdir()):
        deployed = load_preset(str(folder))
        deployed.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
        channels, upscale = deployed.config.in_channels, deployed.config.upscale
        image = torch.rand(1, channels, 160, 160).to(memory_format=torch.channels_last)
        with torch.inference_mode():
            one = in_turns(lambda net=deployed, x=image: net(x), arguments.turns)
        model = build_model(replace(deployed.config, fused=False))
        model.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
        patches = torch.rand(8, channels, 32, 32).to(memory_format=torch.channels_last)
        clean = torch.rand(8, channels, 32 * upscale, 32 * upscale).to(memory_format=torch.channels_last)
        step = in_turns(lambda net=model, x=patches, y=clean: (net(x) - y).abs().mean().backward(), arguments.turns)
        cells = "".join(
            f"{found['torch']:{first}.2f}{found['ours']:9.2f}{found['torch'] / found['ours']:7.2f}"
            for found, first in ((one, 12), (step, 13))
        )
        print(f"{folder.name:14}{cells}", flush=True)


if __name__ == "__main__":
    main()
