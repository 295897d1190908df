"""Where the figures that depend on the machine come from: all commands take latency and peak memory through here.

They are measured (`latency`, `cost`), but for tests that set `HFIR_SEARCH_MADE_UP_FIGURES` (`made_up`).
"""

from __future__ import annotations

import dataclasses

from torch import nn

from hfir.model import HydraFusionIR
from search.evaluation import cost, latency
from search.evaluation.host import host_name
from search.evaluation.latency import LIMIT_S
from search.evaluation.made_up import MARK, Figures, made_up_figures
from search.evaluation.runtimes import check_device, describe, describe_device
from search.types import InputSize, Latency


def measure_latency(
    model: nn.Module,
    at: InputSize,
    threads: int,
    *,
    runtime: str = "torch",
    device: str = "cpu",
    in_channels: int | None = None,
    limit_s: float = LIMIT_S,
) -> Latency:
    """Return how long a forward pass takes; see `latency.measure_latency`."""
    made_up = made_up_figures()
    if made_up is not None:
        return _made_up(made_up, model, at, threads, runtime, device)
    return latency.measure_latency(
        model, at, threads, runtime=runtime, device=device, in_channels=in_channels, limit_s=limit_s
    )


def remembered_latency(
    model: HydraFusionIR, at: InputSize, threads: int, *, remeasure: bool, runtime: str = "torch", device: str = "cpu"
) -> Latency:
    """Return the latency that this machine remembers, or measure it; see `latency.remembered_latency`."""
    made_up = made_up_figures()
    if made_up is not None:
        return _made_up(made_up, model, at, threads, runtime, device)
    return latency.remembered_latency(model, at, threads, remeasure=remeasure, runtime=runtime, device=device)


def peak_memory_mib(model: nn.Module, at: InputSize, *, in_channels: int | None = None, device: str = "cpu") -> float:
    """Return the peak memory of a forward pass, in MiB; see `cost.peak_memory_mib`."""
    made_up = made_up_figures()
    if made_up is not None:
        return made_up.peak_memory_mib(model, at)
    return cost.peak_memory_mib(model, at, in_channels=in_channels, device=device)


def _made_up(figures: Figures, model: nn.Module, at: InputSize, threads: int, runtime: str, device: str) -> Latency:
    check_device(device, runtime)
    return dataclasses.replace(
        figures.latency(model, at, threads, runtime, device),
        at=str(at),
        threads=threads,
        device=describe_device(device),
        runtime=f"{describe(runtime)}, {MARK}",
        host=host_name(),
    )
