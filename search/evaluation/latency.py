"""How long one forward pass takes, with the interval that goes with it; remembered per machine.

Nothing else of ours runs meanwhile: other measurements wait, and trainers between two steps (`turns`). Whether
something of somebody else's ran is asked three times. A reference network, timed before and after each block of passes,
tells neighbours that slow the whole machine down; the operating system tells processes beside us (`host.Load`); and
blocks that are slower than the others saw something that neither noticed. Such blocks do not count, and more are timed
for a while. Where too few count, the figure is marked as untrusted, and made of all blocks, each divided by what the
reference beside it lost (ADR 9).

A figure is remembered, its doubt included, in the user's cache folder under everything that it depends on: network,
size, threads, device, runtime, versions, the network's code and the machine. So one network has one latency on one
machine, and a run that is repeated there meets the same figures and takes the same path. A figure is forgotten where
the reference has since been found faster: then the machine was busy all the time that it was taken.
"""

from __future__ import annotations

import dataclasses
import math
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import chain
from typing import Any

import torch
from torch import nn

from hfir.model import HydraFusionIR
from search.caching import cache_folder, positive, read_json, write_json
from search.evaluation.allocator import keep_memory
from search.evaluation.cost import random_image
from search.evaluation.host import Load, host_name, network_code, versions
from search.evaluation.reference import Reference, rest_ms, size_class, time_block
from search.evaluation.runtimes import (
    Clock,
    Pass,
    check_device,
    clock_for,
    describe,
    describe_device,
    pass_of,
    wall_clock,
)
from search.evaluation.turns import measuring
from search.types import InputSize, Latency, stable_hash

WARM_UP_S = 0.1
LIMIT_S = 0.9
PATIENCE = 2
"""Where too few blocks count, the limit is so many times as long. More makes few more figures trusted, and those that
are not hardly better (ADR 9)."""
MIN_PASSES, MAX_PASSES = 9, 1000
MIN_BLOCKS = 3
"""So many blocks must agree. Each has three passes at least, so slow networks are trusted after three blocks."""
TOLERANCE = 0.02
"""Repeat until the median's 95 % interval is within ±2 % of it, or a limit is reached."""
DRIFT = 0.05
"""A block counts where the reference beside it is slower than at rest by this share at most."""
AGREEMENT = 0.05
"""Blocks agree whose medians are at most this share above that of the second fastest."""
TAIL = 0.1
"""Share of the blocks that lie beyond either end of an untrusted figure's interval."""


@dataclass(frozen=True, slots=True)
class Block:
    """Some passes in a row, and what was seen of the machine meanwhile.

    Args:
        times_ms: Of each pass, as timed.
        before_ms: One pass of the reference before the block.
        after_ms: One pass of the reference after it.
        crowded: Others took computing time from us, as the operating system counts it.
    """

    times_ms: Sequence[float]
    before_ms: float
    after_ms: float
    crowded: bool = False

    def is_at_rest(self, rest_ms: float) -> bool:
        """Say whether nothing else ran, as far as can be seen."""
        return not self.crowded and max(self.before_ms, self.after_ms) <= (1 + DRIFT) * rest_ms

    def at_rest(self, rest_ms: float) -> list[float]:
        """Return what the passes would have taken at rest, in ms: they lose what the reference beside them lost."""
        share = rest_ms / ((self.before_ms + self.after_ms) / 2)
        return [time_ms * share for time_ms in self.times_ms]


@dataclass(slots=True)
class Blocks:
    """Blocks of passes, and what they tell of the time at rest.

    Args:
        rest_ms: One pass of the reference at rest; what is known of it may improve while blocks are timed.
        timed: All blocks.
    """

    rest_ms: float
    timed: list[Block] = field(default_factory=list)

    def counting(self) -> list[list[float]]:
        """Return the passes of the blocks at rest that agree with the second fastest of them, block by block, in ms.

        A neighbour makes blocks slower, never faster; the fastest alone may be luck.
        """
        blocks = [block.at_rest(self.rest_ms) for block in self.timed if block.is_at_rest(self.rest_ms)]
        medians = [statistics.median(block) for block in blocks]
        if not medians:
            return []
        limit = (1 + AGREEMENT) * sorted(medians)[min(1, len(medians) - 1)]
        return [block for block, median in zip(blocks, medians, strict=True) if median <= limit]

    def passes(self) -> int:
        """Return how many passes the figure is made of."""
        return sum(map(len, self.counting())) if self.is_trusted() else sum(len(b.times_ms) for b in self.timed)

    def dropped(self) -> int:
        """Return how many blocks do not count, even where the figure is made of them for want of others."""
        return len(self.timed) - len(self.counting())

    def is_trusted(self) -> bool:
        """Say whether enough was timed at rest: blocks, and passes in them."""
        blocks = self.counting()
        return len(blocks) >= MIN_BLOCKS and sum(map(len, blocks)) >= MIN_PASSES

    def interval(self) -> tuple[float, float, float]:
        """Return (low, median, high) of the time at rest, in ms.

        Of blocks that count, the median with its 95 % interval. Where too few do, the median of all blocks, and the
        middle 80 % of them: how far the reference is from telling a block's loss is much the same for all passes of a
        session, so an interval of the median would be too narrow.
        """
        if self.is_trusted():
            return median_interval(list(chain.from_iterable(self.counting())))
        medians = sorted(statistics.median(block.at_rest(self.rest_ms)) for block in self.timed)
        last = len(medians) - 1
        return medians[math.floor(TAIL * last)], statistics.median(medians), medians[math.ceil((1 - TAIL) * last)]

    def is_enough(self) -> bool:
        """Say whether the interval is as narrow as wanted."""
        if not self.is_trusted():
            return False
        low, median, high = self.interval()
        return self.passes() >= MAX_PASSES or max(high - median, median - low) <= TOLERANCE * median


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
    """Time forward passes: batch 1, fp32, after a warm-up. Waits until no other measurement of ours goes on.

    Args:
        model: In eval mode, on the CPU; moved to the device and back.
        at: Input size.
        threads: Of the runtime, for these passes only.
        runtime: A name in `runtimes.RUNTIMES`.
        device: `cpu` or `cuda:N`.
        in_channels: Of the input; by default as a HydraFusionIR's configuration says.
        limit_s: Stop after this long, however wide the interval; `PATIENCE` times as long on a busy machine, and
            longer where `MIN_PASSES` take longer.

    Raises:
        InputError: If the device is not there, or the runtime cannot take the network.
        EvaluationError: If the runtime cannot run the network.
    """
    check_device(device, runtime)
    keep_memory()
    image = random_image(in_channels or model.config.in_channels, at).to(device)  # pyright: ignore[reportAttributeAccessIssue, reportArgumentType]
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with torch.inference_mode():
            run = pass_of(model.to(device), image, runtime=runtime, threads=threads)
            with measuring():
                clock = clock_for(device)
                warm_ms = _warm_up(run, clock)
                size = size_class(warm_ms)
                reference = Reference(size, threads, device)
                patience_s = max(PATIENCE * limit_s, 2 * MIN_PASSES * warm_ms / 1e3)
                blocks = interleaved(run, reference, limit_s, clock, patience_s=patience_s)
                reference.remember([block.after_ms for block in blocks.timed])
    finally:
        torch.set_num_threads(before)
        model.to("cpu")
    beside_ms = statistics.median(block.after_ms for block in blocks.timed)
    low, median, high = blocks.interval()
    return Latency(
        median_ms=median,
        low_ms=low,
        high_ms=high,
        repeats=blocks.passes(),
        at=str(at),
        threads=threads,
        device=describe_device(device),
        dtype="float32",
        runtime=describe(runtime),
        host=host_name(),
        measured_at=datetime.now(UTC).isoformat(timespec="seconds"),
        trusted=blocks.is_trusted(),
        reference=size,
        reference_ratio=median / blocks.rest_ms,
        reference_drift=beside_ms / blocks.rest_ms - 1,
        discarded_blocks=blocks.dropped(),
        versions=versions(),
    )


def interleaved(
    run: Pass, reference: Reference, limit_s: float, clock: Clock = wall_clock, *, patience_s: float | None = None
) -> Blocks:
    """Time a candidate in blocks, the reference between them, until enough of them count.

    Args:
        run: One pass of the candidate.
        reference: What is timed beside it.
        limit_s: Stop after this long where the figure is to be trusted, however wide its interval.
        clock: Times one pass.
        patience_s: Stop after this long in any case; by default `PATIENCE` times the limit.
    """
    patience_s = PATIENCE * limit_s if patience_s is None else patience_s
    blocks, load = Blocks(reference.calibrated_ms), Load()
    start, before = time.perf_counter(), reference.block_ms()
    while True:
        times, after = time_block(run, clock), reference.block_ms()
        blocks.timed.append(Block(times, before, after, load.is_crowded()))
        slower = max(before, after)
        if reference.drift(slower) < -DRIFT:  # never was the machine at rest before
            reference.learn(slower)
            blocks.rest_ms = slower
        before = after
        if blocks.is_enough() or time.perf_counter() - start > (limit_s if blocks.is_trusted() else patience_s):
            return blocks


def remembered_latency(
    model: HydraFusionIR,
    at: InputSize,
    threads: int,
    *,
    remeasure: bool,
    runtime: str = "torch",
    device: str = "cpu",
) -> Latency:
    """Return the latency that this machine remembers for the network, or measure and remember it."""
    path = cache_folder("latency") / f"{_cache_key(model, at, threads, runtime, device)}.json"
    known = None if remeasure else read_json(path, _parsed)
    if known is not None and not _is_outdated(known, device):
        return known
    latency = measure_latency(model, at, threads, runtime=runtime, device=device)
    write_json(path, dataclasses.asdict(latency))
    return latency


def _parsed(entry: Any) -> Latency:
    latency = Latency(**entry)
    for figure in (latency.median_ms, latency.low_ms, latency.high_ms, latency.threads):
        positive(figure)
    return latency


def _is_outdated(known: Latency, device: str) -> bool:
    """Say whether the machine took for rest what is now known to be slow, when a figure was taken."""
    if not known.reference_ratio:
        return False
    rest = rest_ms(known.reference or size_class(known.median_ms), known.threads, device)
    return rest is not None and known.median_ms / known.reference_ratio > (1 + 2 * DRIFT) * rest


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


def _warm_up(run: Pass, clock: Clock) -> float:
    """Run for a while and return the time of the last pass, in ms."""
    start = time.perf_counter()
    while True:
        last_ms = clock(run)
        if time.perf_counter() - start > WARM_UP_S:
            return last_ms


def _cache_key(model: HydraFusionIR, at: InputSize, threads: int, runtime: str, device: str) -> str:
    where = [describe(runtime), describe_device(device)]
    conditions = [model.config.to_dict(), str(at), threads, host_name(), network_code(), versions()["torch"], *where]
    return stable_hash(conditions)
