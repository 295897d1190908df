"""Figures for tests of what becomes of a figure: at once, and the same whenever they are asked for.

Processes of tests find this module by `HFIR_SEARCH_MADE_UP_FIGURES`, too; see `search.evaluation.made_up`.
"""

from __future__ import annotations

from datetime import UTC, datetime

from torch import nn

from search.types import InputSize, Latency


def latency(model: nn.Module, at: InputSize, threads: int, runtime: str, device: str) -> Latency:
    """Larger networks and larger images take longer, more threads less."""
    ms = 0.1 + _size(model, at) / threads
    return Latency(
        median_ms=ms,
        low_ms=0.98 * ms,
        high_ms=1.02 * ms,
        repeats=9,
        at=str(at),
        threads=threads,
        device=device,
        dtype="float32",
        runtime=runtime,
        host="",
        measured_at=datetime.now(UTC).isoformat(timespec="seconds"),
        reference="small",
        reference_ratio=ms,
        reference_drift=0.0,
        versions={},
    )


def peak_memory_mib(model: nn.Module, at: InputSize) -> float:
    return 1.0 + _size(model, at)


def _size(model: nn.Module, at: InputSize) -> float:
    return 1e-6 * at.width * at.height * sum(p.numel() for p in model.parameters())
