"""What the deploy form of a network costs: parameters, MACs, activations, peak memory."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import torch
from torch import nn
from torch.overrides import TorchFunctionMode
from torch.profiler import ProfilerActivity, profile

from hfir.blocks.deformable import DeformableMix
from hfir.blocks.moe import MoEX
from hfir.config import ROUTING_PX, HFIRConfig, LargeKernelConfig
from hfir.fusion import fuse
from hfir.model import HydraFusionIR, build_model
from search.caching import cache_folder, positive, read_json, write_json
from search.evaluation.counting import Count, WrittenOut, count
from search.evaluation.host import network_code, versions
from search.types import InputSize, stable_hash

M = TypeVar("M", bound=nn.Module)

MIB = 2**20


class ParameterCounts(NamedTuple):
    """Parameters, in millions."""

    deploy_m: float
    train_m: float
    active_m: float
    """Of the deploy form, with the experts that one image (or window) uses only."""


class StaticCounts(NamedTuple):
    """What can be counted of a network without running it."""

    params: ParameterCounts
    macs_g: float
    """Multiply-accumulates of one forward pass of the deploy form, in units of 1e9."""
    activations_m: float
    """Values that its convolutions and matrix products put out, in millions."""


def _deformable_macs(mix: DeformableMix, inputs: tuple[Any, ...]) -> int:
    """Count the weighted sum of nine samples for each value, which the part writes out as products and a sum."""
    return 9 * inputs[0].numel()


def _router_macs(mixture: MoEX, inputs: tuple[Any, ...]) -> int:
    """Count the router's linear map, written out in fp32: (what it looks at) · experts, for each image or window."""
    b, _, h, w = inputs[0].shape
    by_window = mixture.config.routing == "window"
    rows = b * math.ceil(h / ROUTING_PX) * math.ceil(w / ROUTING_PX) if by_window else b
    return rows * mixture.router.weight.numel()


WRITTEN_OUT: WrittenOut = {DeformableMix: _deformable_macs, MoEX: _router_macs}
"""Sums of products that our parts write as element-wise work."""


def static_counts(config: HFIRConfig, at: InputSize) -> StaticCounts:
    """Count parameters, MACs and activations; what was counted before is remembered, in the process and on disk.

    Remembered under the configuration, the size, the network's and the counter's code and the version of torch.
    """
    path = cache_folder("counts") / f"{stable_hash([config.to_dict(), str(at), _code(), versions()['torch']])}.json"
    return _remembered(config, at, path)


@lru_cache(maxsize=4096)
def _remembered(config: HFIRConfig, at: InputSize, path: Path) -> StaticCounts:
    known = read_json(path, _parsed)
    if known is not None:
        return known
    counted = count_afresh(config, at)
    write_json(path, counted._asdict())
    return counted


def _parsed(entry: Any) -> StaticCounts:
    params = ParameterCounts(*map(positive, entry["params"]))
    return StaticCounts(params, positive(entry["macs_g"]), positive(entry["activations_m"]))


def count_afresh(config: HFIRConfig, at: InputSize) -> StaticCounts:
    """Count parameters, MACs and activations of a network, whatever is remembered."""
    deploy = shell(_fused(config))
    counted = _count(deploy, at)
    return StaticCounts(_parameters(config, deploy), counted.macs / 1e9, counted.activations / 1e6)


def count_parameters(config: HFIRConfig) -> ParameterCounts:
    """Count parameters without memory for any: networks are built on the meta device."""
    return _parameters(config, shell(_fused(config)))


def count_macs_g(config: HFIRConfig, at: InputSize) -> float:
    """Count the multiply-accumulates of one forward pass of the deploy form, in units of 1e9; see `counting`."""
    return static_counts(config, at).macs_g


def count_network(config: HFIRConfig, at: InputSize) -> Count:
    """Count one forward pass of the deploy form module by module, on the meta device: nothing is computed."""
    return _count(shell(_fused(config)), at, by_module=True)


def shell(config: HFIRConfig) -> HydraFusionIR:
    """Return a network in eval mode on the meta device: every shape, no weights."""
    with torch.device("meta"), _Undrawn():
        return build_model(config).eval()


class _Undrawn(TorchFunctionMode):
    """Leaves out the drawing of start values, which takes half of the time to build a network on the meta device."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None) -> Any:
        """Return the tensor as it is where it would be drawn, and do everything else."""
        kwargs = kwargs or {}
        if getattr(func, "__module__", None) == "torch.nn.init":
            return args[0] if args else kwargs["tensor"]
        return func(*args, **kwargs)


def _count(model: HydraFusionIR, at: InputSize, *, by_module: bool = False) -> Count:
    image = torch.empty(1, model.config.in_channels, at.height, at.width, device="meta")
    image = image.contiguous(memory_format=torch.channels_last)
    return count(model, image, written_out=WRITTEN_OUT, by_module=by_module)


def _parameters(config: HFIRConfig, deploy: HydraFusionIR) -> ParameterCounts:
    """Count the parameters of both forms; a second network is built only where the two differ."""
    total = _numel(deploy)
    differ = isinstance(config.mixer, LargeKernelConfig) and config.mixer.reparam and not config.fused
    train = _numel(shell(config)) if differ else total
    idle = sum(_idle_expert_parameters(m) for m in deploy.modules() if isinstance(m, MoEX))
    return ParameterCounts(total / 1e6, train / 1e6, (total - idle) / 1e6)


@lru_cache(maxsize=1)
def _code() -> str:
    """Return a hash of the code that a count depends on."""
    here = Path(__file__)
    own = [path.read_text(encoding="utf-8") for path in (here, here.with_name("counting.py"))]
    return stable_hash([network_code(), *own])


def deploy_form(config: HFIRConfig) -> HydraFusionIR:
    """Return an untrained deploy form as it is measured: fused, eval, channels last, fp32."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return as_deployed(fuse(build_model(config)))


def as_deployed(model: M) -> M:
    """Return a network in eval mode and channels-last memory, as it is measured."""
    return model.eval().to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]


def measured_image(config: HFIRConfig, at: InputSize) -> torch.Tensor:
    """Return a fixed random image of the size for a network, batch 1, channels last."""
    return random_image(config.in_channels, at)


def random_image(channels: int, at: InputSize) -> torch.Tensor:
    """Return a fixed random image of the size, batch 1, channels last."""
    generator = torch.Generator().manual_seed(0)
    image = torch.rand(1, channels, at.height, at.width, generator=generator)
    return image.contiguous(memory_format=torch.channels_last)


def peak_memory_mib(model: nn.Module, at: InputSize, *, in_channels: int | None = None, device: str = "cpu") -> float:
    """Return the peak of tensor memory in one forward pass of eager torch, weights and input included, in MiB.

    On the CPU taken from the allocations that torch's profiler records: scratch that a library takes outside torch's
    allocator is not seen, and the interpreter itself is not counted. On CUDA as torch's allocator counts it.

    Args:
        model: In eval mode, on the CPU; moved to the device and back.
        at: Input size.
        in_channels: Of the input; by default as a HydraFusionIR's configuration says.
        device: `cpu` or `cuda:N`.
    """
    image = random_image(in_channels or model.config.in_channels, at)  # pyright: ignore[reportAttributeAccessIssue, reportArgumentType]
    return _peak_on_cpu(model, image) if device == "cpu" else _peak_on_cuda(model, image, torch.device(device))


def _peak_on_cpu(model: nn.Module, image: torch.Tensor) -> float:
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


def _peak_on_cuda(model: nn.Module, image: torch.Tensor, device: torch.device) -> float:
    before = torch.cuda.memory_allocated(device)
    try:
        with torch.inference_mode():
            network, on_device = model.to(device), image.to(device)
            network(on_device)
            torch.cuda.reset_peak_memory_stats(device)
            network(on_device)
            torch.cuda.synchronize(device)
        return (torch.cuda.max_memory_allocated(device) - before) / MIB
    finally:
        model.to("cpu")


def _fused(config: HFIRConfig) -> HFIRConfig:
    return dataclasses.replace(config, fused=True)


def _numel(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


def _idle_expert_parameters(mixture: MoEX) -> float:
    experts = mixture.experts.expand.shape[0]
    return _numel(mixture.experts) * (experts - mixture.config.top_k) / experts
