"""How long one forward pass takes, with the interval that goes with it; remembered per machine.

Nothing else of ours may run meanwhile: the caller sees to it that trainers are drained. Whether something else of
somebody else's ran is told by a reference network, timed in turn with the candidate: blocks beside which it is slower
than at rest are discarded, and tried again for a while. Where too few are left, the figure is marked as untrusted.

A figure is remembered, its doubt included, in the user's cache folder under everything that it depends on: network,
size, threads, device, versions, the network's code and the machine. So one network has one latency on one machine, and
a run that is repeated there meets the same figures and takes the same path.
"""

from __future__ import annotations

import dataclasses
import json
import math
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime

import torch
from torch import Tensor, nn

from hfir.model import HydraFusionIR
from search.evaluation.cost import measured_image
from search.evaluation.host import host_name, network_code, versions
from search.evaluation.reference import Reference, cache_folder, size_class, time_block
from search.files import replace_file
from search.types import InputSize, Latency, stable_hash

WARM_UP_S = 0.1
LIMIT_S = 1.5
PATIENCE = 4
"""Where blocks are discarded, the limit is so many times as long."""
PAUSE_S = 0.1
"""After a discarded block, wait so long before the next."""
MIN_PASSES, MAX_PASSES = 15, 1000
TOLERANCE = 0.02
"""Repeat until the median's 95 % interval is within ±2 % of it, or a limit is reached."""
DRIFT = 0.05
"""A block is discarded where the reference beside it is slower than at rest by more than this share."""


@dataclass(slots=True)
class Blocks:
    """Times of single passes in ms, by whether the machine was at rest."""

    kept: list[float] = field(default_factory=list)
    discarded: list[float] = field(default_factory=list)
    discarded_blocks: int = 0
    reference_ms: list[float] = field(default_factory=list)

    def is_trusted(self) -> bool:
        """Say whether enough passes were timed at rest."""
        return len(self.kept) >= MIN_PASSES

    def is_enough(self) -> bool:
        """Say whether the interval is as narrow as wanted."""
        if len(self.kept) >= MAX_PASSES:
            return True
        if not self.is_trusted():
            return False
        low, median, high = median_interval(self.kept)
        return max(high - median, median - low) <= TOLERANCE * median


def measure_latency(model: HydraFusionIR, at: InputSize, threads: int, *, limit_s: float = LIMIT_S) -> Latency:
    """Time forward passes of a deploy form at a size; see `latency_of`."""
    return latency_of(model, measured_image(model.config, at), threads, limit_s=limit_s)


def latency_of(model: nn.Module, image: Tensor, threads: int, *, limit_s: float = LIMIT_S) -> Latency:
    """Time forward passes of any network: batch 1, fp32, CPU, eager torch, after a warm-up.

    Args:
        model: In eval mode.
        image: [1, c, h, w], channels last.
        threads: Of torch, for these passes only.
        limit_s: Stop after this long, however wide the interval; `PATIENCE` times as long on a busy machine.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with torch.inference_mode():
            warm_ms = _warm_up(lambda: model(image))
            reference = Reference(size_class(warm_ms), threads)
            blocks = interleaved(lambda: model(image), reference, limit_s)
    finally:
        torch.set_num_threads(before)
    low, median, high = median_interval(blocks.kept if blocks.is_trusted() else blocks.kept + blocks.discarded)
    return Latency(
        median_ms=median,
        low_ms=low,
        high_ms=high,
        repeats=len(blocks.kept) if blocks.is_trusted() else len(blocks.kept) + len(blocks.discarded),
        at=str(InputSize(width=image.shape[-1], height=image.shape[-2])),
        threads=threads,
        device="cpu",
        dtype="float32",
        runtime=f"torch {torch.__version__} eager, channels_last",
        host=host_name(),
        measured_at=datetime.now(UTC).isoformat(timespec="seconds"),
        trusted=blocks.is_trusted(),
        reference_ratio=median / statistics.median(blocks.reference_ms),
        reference_drift=statistics.median(blocks.reference_ms) / reference.calibrated_ms - 1,
        discarded_blocks=blocks.discarded_blocks,
    )


def interleaved(run: Callable[[], object], reference: Reference, limit_s: float) -> Blocks:
    """Time a candidate in blocks, the reference between them, and sort the blocks by how the reference fared."""
    blocks = Blocks()
    start, before = time.perf_counter(), reference.block_ms()
    while True:
        times, after = time_block(run), reference.block_ms()
        if reference.drift(max(before, after)) < -DRIFT:  # never was the machine at rest before
            reference.learn(max(before, after))
            blocks = Blocks(discarded=blocks.kept + blocks.discarded, discarded_blocks=blocks.discarded_blocks + 1)
        if reference.drift(max(before, after)) <= DRIFT:
            blocks.kept += times
        else:
            blocks.discarded += times
            blocks.discarded_blocks += 1
            time.sleep(PAUSE_S)
        blocks.reference_ms.append(after)
        before = after
        patience = PATIENCE if blocks.discarded_blocks else 1
        if blocks.is_enough() or time.perf_counter() - start > limit_s * patience:
            return blocks


def remembered_latency(model: HydraFusionIR, at: InputSize, threads: int, *, remeasure: bool) -> Latency:
    """Return the latency that this machine remembers for the network, or measure and remember it."""
    path = cache_folder() / f"{_cache_key(model, at, threads)}.json"
    if not remeasure and path.is_file():
        return Latency(**json.loads(path.read_text()))
    latency = measure_latency(model, at, threads)
    path.parent.mkdir(parents=True, exist_ok=True)
    replace_file(path, lambda partial: partial.write_text(json.dumps(dataclasses.asdict(latency))))
    return latency


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


def _warm_up(run: Callable[[], object]) -> float:
    """Run for a while and return the time of the last pass, in ms."""
    start = time.perf_counter()
    while True:
        before = time.perf_counter()
        run()
        after = time.perf_counter()
        if after - start > WARM_UP_S:
            return (after - before) * 1e3


def _cache_key(model: HydraFusionIR, at: InputSize, threads: int) -> str:
    conditions = [model.config.to_dict(), str(at), threads, host_name(), network_code(), versions()["torch"]]
    return stable_hash(conditions)
