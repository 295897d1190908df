"""How long one forward pass takes, with the interval that goes with it; remembered per machine.

Nothing else of ours may run meanwhile: the caller sees to it that trainers are drained.

A figure is remembered in the user's cache folder under everything that it depends on: network, size, threads, device,
versions, the network's code and the machine. So one network has one latency on one machine, and a run that is
repeated there meets the same figures and takes the same path.
"""

from __future__ import annotations

import dataclasses
import json
import math
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import torch
from platformdirs import user_cache_path

from hfir.model import HydraFusionIR
from search.evaluation.cost import measured_image
from search.evaluation.host import host_name, network_code, versions
from search.types import InputSize, Latency, stable_hash

WARM_UP_S = 0.15
LIMIT_S = 1.5
MIN_REPEATS, MAX_REPEATS = 15, 1000
TOLERANCE = 0.02
"""Repeat until the median's 95 % interval is within ±2 % of it, or a limit is reached."""


def measure_latency(model: HydraFusionIR, at: InputSize, threads: int, *, limit_s: float = LIMIT_S) -> Latency:
    """Time forward passes of a deploy form: batch 1, fp32, CPU, eager torch, after a warm-up.

    Args:
        model: In eval mode.
        at: Input size.
        threads: Of torch, for these passes only.
        limit_s: Stop after this long, however wide the interval (at least `MIN_REPEATS` are made).
    """
    image = measured_image(model.config, at)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with torch.inference_mode():
            times = _timed(lambda: model(image), limit_s)
    finally:
        torch.set_num_threads(before)
    low, median, high = median_interval(times)
    return Latency(
        median_ms=median,
        low_ms=low,
        high_ms=high,
        repeats=len(times),
        at=str(at),
        threads=threads,
        device="cpu",
        dtype="float32",
        runtime=f"torch {torch.__version__} eager, channels_last",
        host=host_name(),
        measured_at=datetime.now(UTC).isoformat(timespec="seconds"),
    )


def remembered_latency(model: HydraFusionIR, at: InputSize, threads: int, *, remeasure: bool) -> Latency:
    """Return the latency that this machine remembers for the network, or measure and remember it."""
    path = cache_folder() / f"{_cache_key(model, at, threads)}.json"
    if not remeasure and path.is_file():
        return Latency(**json.loads(path.read_text()))
    latency = measure_latency(model, at, threads)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".part")
    partial.write_text(json.dumps(dataclasses.asdict(latency)))
    partial.replace(path)
    return latency


def cache_folder() -> Path:
    """Return the folder of remembered latencies; deleting it is safe."""
    return user_cache_path("hfir-search") / "latency"


def median_interval(times_ms: list[float]) -> tuple[float, float, float]:
    """Return (low, median, high): the median and its 95 % confidence interval by order statistics.

    The ranks are n/2 ± 0.98·√n (normal approximation of the binomial; Conover, 1999, §3.2).
    """
    ordered = sorted(times_ms)
    n = len(ordered)
    reach = 0.98 * math.sqrt(n)
    low, high = math.floor(n / 2 - reach), math.ceil(n / 2 + reach)
    median = (ordered[(n - 1) // 2] + ordered[n // 2]) / 2
    return ordered[max(0, low)], median, ordered[min(n - 1, high)]


def _timed(run: Callable[[], object], limit_s: float) -> list[float]:
    """Return times of single runs in ms, after a warm-up."""
    start = time.perf_counter()
    run()
    while time.perf_counter() - start < WARM_UP_S:
        run()
    times: list[float] = []
    start = time.perf_counter()
    while len(times) < MAX_REPEATS:
        before = time.perf_counter()
        run()
        after = time.perf_counter()
        times.append((after - before) * 1e3)
        if len(times) >= MIN_REPEATS and len(times) % 5 == 0:
            low, median, high = median_interval(times)
            if after - start > limit_s or max(high - median, median - low) <= TOLERANCE * median:
                break
    return times


def _cache_key(model: HydraFusionIR, at: InputSize, threads: int) -> str:
    conditions = [model.config.to_dict(), str(at), threads, host_name(), network_code(), versions()["torch"]]
    return stable_hash(conditions)
