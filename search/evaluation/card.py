"""What a preset's card says of costs, the figures and the conditions that they hold under, and of its files."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from search.types import Cost, Latency, to_json


def cost_figures(cost: Cost, again: Latency | None = None) -> dict[str, Any]:
    """Return the figures of a cost, rounded to what they are good for; None where one was not measured.

    Args:
        cost: Of the deploy form.
        again: The latency of a second measurement.
    """
    latency, memory = cost.latency, cost.peak_mem_mib
    return {
        "latency_ms": None if latency is None else round(latency.median_ms, 3),
        "latency_interval_ms": None if latency is None else [round(latency.low_ms, 3), round(latency.high_ms, 3)],
        "latency_measured_again_ms": None if again is None else round(again.median_ms, 3),
        "macs_g": round(cost.macs_g, 5),
        "params_m": round(cost.params_m, 6),
        "peak_mem_mib": None if memory is None else round(memory, 2),
    }


def cost_conditions(cost: Cost) -> dict[str, Any]:
    """Return what the figures of a cost hold for."""
    latency = to_json(cost)["latency"]
    return {
        "form": "deploy: fused, eval, batch 1",
        "latency": None if latency is None else {k: v for k, v in latency.items() if not k.endswith("_ms")},
        "macs_at": cost.macs_at,
        "macs": "multiply-accumulates in units of 1e9; FLOPs are twice that",
        "peak_mem_at": cost.peak_mem_at,
    }


def file_digest(path: Path) -> str:
    """Return a file's SHA-256 in hexadecimal digits."""
    return hashlib.sha256(path.read_bytes()).hexdigest()
