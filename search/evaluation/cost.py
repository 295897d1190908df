"""What the deploy form of a network costs: parameters, MACs, peak memory."""

from __future__ import annotations

import dataclasses
from typing import NamedTuple, TypeVar

import torch
from torch import nn
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

from hfir.blocks.moe import MoEX
from hfir.config import HFIRConfig
from hfir.fusion import fuse
from hfir.model import HydraFusionIR, build_model
from search.types import InputSize

M = TypeVar("M", bound=nn.Module)

MIB = 2**20


class ParameterCounts(NamedTuple):
    """Parameters, in millions."""

    deploy_m: float
    train_m: float
    active_m: float
    """Of the deploy form, with the experts that one image (or window) uses only."""


def count_parameters(config: HFIRConfig) -> ParameterCounts:
    """Count parameters without memory for any: networks are built on the meta device."""
    with torch.device("meta"):
        train = build_model(config)
        deploy = build_model(_fused(config))
    idle = sum(_idle_expert_parameters(m) for m in deploy.modules() if isinstance(m, MoEX))
    total = _numel(deploy)
    return ParameterCounts(total / 1e6, _numel(train) / 1e6, (total - idle) / 1e6)


def count_macs_g(config: HFIRConfig, at: InputSize) -> float:
    """Count the multiply-accumulates of one forward pass of the deploy form, in units of 1e9.

    Counted by torch's own counter on the meta device, i.e. without computing anything: convolutions and every
    matrix product, attention's included (on meta it runs as the products it consists of). Element-wise work is not
    counted, as everywhere in the field.
    """
    with torch.device("meta"):
        model = build_model(_fused(config)).eval()
        image = torch.zeros(1, config.in_channels, at.height, at.width)
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            model(image)
    return counter.get_total_flops() / 2 / 1e9


def deploy_form(config: HFIRConfig) -> HydraFusionIR:
    """Return an untrained deploy form as it is measured: fused, eval, channels last, fp32."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return as_deployed(fuse(build_model(config)))


def as_deployed(model: M) -> M:
    """Return a network in eval mode and channels-last memory, as it is measured."""
    return model.eval().to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]


def measured_image(config: HFIRConfig, at: InputSize) -> torch.Tensor:
    """Return a fixed random image of the size, batch 1, channels last."""
    return random_image(config.in_channels, at)


def random_image(channels: int, at: InputSize) -> torch.Tensor:
    """Return a fixed random image of the size, batch 1, channels last."""
    generator = torch.Generator().manual_seed(0)
    image = torch.rand(1, channels, at.height, at.width, generator=generator)
    return image.contiguous(memory_format=torch.channels_last)


def peak_memory_mib(model: HydraFusionIR, at: InputSize) -> float:
    """Return the peak of tensor memory in one forward pass at a size, in MiB; see `peak_memory_of`."""
    return peak_memory_of(model, measured_image(model.config, at))


def peak_memory_of(model: nn.Module, image: torch.Tensor) -> float:
    """Return the peak of tensor memory in one forward pass on the CPU, weights and input included, in MiB.

    Taken from the allocations that torch's profiler records. Scratch that a library takes outside torch's
    allocator is not seen; the interpreter itself is not counted.
    """
    with torch.inference_mode():
        model(image)
        with profile(activities=[ProfilerActivity.CPU], profile_memory=True, acc_events=True) as record:
            model(image)
    events = [e for e in record.profiler.kineto_results.events() if e.name() == "[memory]"]  # pyright: ignore[reportOptionalMemberAccess]
    held = peak = 0
    for event in sorted(events, key=lambda e: e.start_ns()):
        held += event.nbytes()  # pyright: ignore[reportAttributeAccessIssue]
        peak = max(peak, held)
    resident = sum(t.numel() * t.element_size() for t in (*model.parameters(), *model.buffers(), image))
    return (peak + resident) / MIB


def _fused(config: HFIRConfig) -> HFIRConfig:
    return dataclasses.replace(config, fused=True)


def _numel(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


def _idle_expert_parameters(mixture: MoEX) -> float:
    experts = mixture.experts.expand.shape[0]
    return _numel(mixture.experts) * (experts - mixture.config.top_k) / experts
