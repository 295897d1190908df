"""Small networks that together hold every block, and their outputs: `python tests/golden/outputs.py` stores them.

Weights and images come from numpy's `SeedSequence`, whose output is fixed for good (NEP 19), by the name of each
parameter. Every parameter is moved off its start value: gates that start closed and scales that start at zero would
hide what stands behind them.
"""

import dataclasses
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from hfir import (
    ChannelAttentionConfig,
    DeformableRefinerConfig,
    DenseConfig,
    DFTRefinerConfig,
    FrequencySplitConfig,
    HFIRConfig,
    HydraFusionIR,
    LargeKernelConfig,
    MoEConfig,
    WindowAttentionConfig,
    build_model,
)

FILE = Path(__file__).with_name("outputs.npz")
SMALLEST_SAY = 4e-4
"""What half of each parameter changes of the output at least, as a share of its range: four times the tolerance."""
CLEAR_MARGIN = 1e-3
"""Difference between the logits of a chosen and the next expert: rounding must not decide."""
DECISIVE = 8.0
"""Factor on the weights that route and summarise, so that they tell images apart."""

BASE = HFIRConfig(upscale=1, in_channels=1, width=8, encoder_blocks=(1, 1), bottleneck_blocks=1, decoder_blocks=(1, 1))
SPLIT = FrequencySplitConfig()
FLAT = dataclasses.replace(BASE, encoder_blocks=(1,), bottleneck_blocks=1, decoder_blocks=(1,), channel_attention=False)
"""One level, and nothing global but what a case adds."""


class Case(NamedTuple):
    """A network and the shape of the images that it is given."""

    config: HFIRConfig
    shape: tuple[int, int, int] = (1, 13, 19)
    """Images, height, width."""
    noise: bool = False
    seed: int = 0
    """Of the weights; chosen where there are experts, so that several have work."""


def _attending(**options: object) -> Case:
    attention = WindowAttentionConfig(stages=("enc1", "mid"), **options)  # pyright: ignore[reportArgumentType]
    return Case(dataclasses.replace(FLAT, attention=attention))


def _mixing(shape: tuple[int, int, int], experts: MoEConfig, seed: int = 0) -> Case:
    return Case(dataclasses.replace(FLAT, experts=experts, frequency_split=SPLIT), shape, seed=seed)


def _refining(refiner: DFTRefinerConfig | DeformableRefinerConfig, *, noise: bool = False) -> Case:
    return Case(dataclasses.replace(FLAT, frequency_split=SPLIT, refiner=refiner), noise=noise)


CASES = {
    "naf": Case(BASE),
    "naf, no channel attention, expansion 1.5": Case(
        dataclasses.replace(BASE, channel_attention=False, expansion=1.5, decoder_blocks=(0, 2))
    ),
    "large kernel 7": Case(dataclasses.replace(FLAT, mixer=LargeKernelConfig(kernel_size=7))),
    "large kernel 13": Case(dataclasses.replace(FLAT, mixer=LargeKernelConfig(kernel_size=13))),
    "large kernel 5, plain": Case(dataclasses.replace(FLAT, mixer=LargeKernelConfig(kernel_size=5, reparam=False))),
    "dense": Case(dataclasses.replace(FLAT, width=20, mixer=DenseConfig())),
    "window attention, shifted": _attending(window_size=4),
    "window attention, overlap": _attending(window_size=4, overlap=0.5),
    "window attention, tokens": _attending(window_size=8, num_tokens=4),
    "window attention, all": _attending(window_size=4, num_heads=4, overlap=0.5, num_tokens=4),
    "channel attention": Case(dataclasses.replace(FLAT, attention=ChannelAttentionConfig(stages=("enc1", "mid")))),
    "experts per image, top 1": _mixing((3, 7, 9), MoEConfig(num_experts=6), seed=1),
    "experts per image, top 2, told": _mixing(
        (3, 7, 9), MoEConfig(num_experts=5, top_k=2, condition_channels=3, temperature=0.5, stages=("enc1", "mid"))
    ),
    "experts per window, top 1": _mixing((1, 19, 18), MoEConfig(routing="window", stages=("enc1", "mid")), seed=1),
    "experts per window, top 2": _mixing((1, 17, 33), MoEConfig(routing="window", top_k=2, temperature=2.0)),
    "refiner dft": _refining(DFTRefinerConfig(depth=2)),
    "refiner dft, noise": _refining(DFTRefinerConfig(depth=1, noise=True), noise=True),
    "refiner deformable": _refining(DeformableRefinerConfig(depth=2)),
    "refiner deformable, noise": _refining(DeformableRefinerConfig(depth=1, noise=True), noise=True),
    "refiner with experts": Case(
        dataclasses.replace(
            FLAT, frequency_split=SPLIT, refiner=DFTRefinerConfig(), experts=MoEConfig(stages=("refiner",))
        ),
        (3, 7, 9),
        seed=11,
    ),
    "frequency split 3": Case(dataclasses.replace(FLAT, frequency_split=FrequencySplitConfig(kernel_size=3))),
    "frequency split 7": Case(dataclasses.replace(FLAT, width=12, frequency_split=FrequencySplitConfig(kernel_size=7))),
    "skip add": Case(dataclasses.replace(BASE, skip="add")),
    "skip concat": Case(dataclasses.replace(BASE, skip="concat")),
    "down unshuffle": Case(dataclasses.replace(BASE, downsampler="unshuffle")),
    "up nearest": Case(dataclasses.replace(BASE, upsampler="nearest")),
    "up dysample": Case(dataclasses.replace(BASE, upsampler="dysample")),
    "three levels, nothing in the middle, x2 colour": Case(
        HFIRConfig(
            width=4, encoder_blocks=(1, 1, 1), bottleneck_blocks=0, decoder_blocks=(0, 0, 0), in_channels=3, upscale=2
        ),
        (1, 7, 6),
    ),
    "one pixel, x3": Case(dataclasses.replace(BASE, upscale=3), (1, 1, 1)),
    "x3 colour": Case(dataclasses.replace(FLAT, in_channels=3, upscale=3), (1, 4, 5)),
    "x4 colour and transparency": Case(dataclasses.replace(BASE, in_channels=4, upscale=4), (1, 3, 5)),
}


def uniform(name: str, *shape: int) -> Tensor:
    """Return numbers in (-1, 1) that a name decides."""
    count = int(np.prod(shape))
    words = np.random.SeedSequence(zlib.crc32(name.encode())).generate_state(count, np.uint32)
    return torch.from_numpy(((words + 0.5) / 2**31 - 1).astype(np.float32)).reshape(shape)


def network(case: Case) -> HydraFusionIR:
    """Return a case's network in eval mode, each parameter drawn by its name: large enough to have a say."""
    model = build_model(case.config).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            inputs = parameter.shape[-1] if parameter.ndim < 4 else parameter[0].numel()
            size = 1.0 if parameter.ndim == 1 or inputs == 1 else (3 / inputs) ** 0.5
            decides = any(part in name for part in ("router.weight", "question.weight"))
            parameter.copy_(uniform(f"{name} {case.seed}", *parameter.shape) * size * (DECISIVE if decides else 1))
            if any(part in name for part in ("norm", "scale", "gamma", "beta", "gain")):
                parameter.add_(1)
    return model


def given(case: Case) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """Return a case's images, the descriptors of their degradation, and noise.

    Each image has less contrast than the one before, and each less from column 16 on: routers choose by roughness.
    """
    images, height, width = case.shape
    contrast = 0.5 * 0.1 ** torch.arange(images)[:, None, None, None] * torch.where(torch.arange(width) < 16, 1, 0.1)
    x = 0.5 + contrast * uniform("image", images, case.config.in_channels, height, width)
    length = 0 if case.config.experts is None else case.config.experts.condition_channels
    told = uniform("condition", images, length) if length else None
    return x, told, uniform("noise", images, 1, height, width) if case.noise else None


def output(case: Case, model: HydraFusionIR, memory_format: torch.memory_format = torch.contiguous_format) -> Tensor:
    """Return what a case's network makes of its images."""
    x, told, noise = given(case)
    with torch.no_grad():
        return model.to(memory_format=memory_format)(x.contiguous(memory_format=memory_format), told, noise)


def faults(case: Case) -> Iterator[str]:
    """Yield the parameters that a case's output hardly depends on, and decisions that rounding could change."""
    model, (x, told, noise) = network(case), given(case)
    with torch.no_grad():
        y, routings = model.forward_with_routing(x, told, noise)
    extent = float(y.max() - y.min())
    for routing in routings:
        ranked = routing.logits.sort(dim=1, descending=True).values
        margin = float((ranked[:, :-1] - ranked[:, 1:])[:, : routing.chosen.shape[1]].min())
        if margin < CLEAR_MARGIN:
            yield f"{routing.place}: logits differ by {margin:.1e}"
        if len(set(map(tuple, routing.chosen.tolist()))) == 1:
            yield f"{routing.place}: all go to the same experts"
    for name, parameter in model.named_parameters():
        kept = parameter.detach().clone()
        with torch.no_grad():
            parameter.copy_(0.5 * kept)
            say = float((model(x, told, noise) - y).abs().max()) / extent
            parameter.copy_(kept)
        if say < SMALLEST_SAY and not name.endswith("question.bias"):  # a softmax over pixels: adds nothing to any
            yield f"{name}: halved, it changes the output by {say:.1e} of its range"


def main() -> None:
    """Store the output of every case; refuse cases that would not notice a change."""
    found = [f"{name}: {fault}" for name, case in CASES.items() for fault in faults(case)]
    if found:
        raise SystemExit("\n".join(found))
    np.savez_compressed(FILE, **{name: output(case, network(case)).numpy() for name, case in CASES.items()})


if __name__ == "__main__":
    main()
