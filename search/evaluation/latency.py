"""How long one forward pass takes, with the interval that goes with it; remembered per machine.

Nothing else of ours runs meanwhile: other measurements wait, and trainers between two steps (`turns`). Whether
something of somebody else's ran is asked three times. A reference network, timed before and after each block of passes,
tells neighbours that slow the whole machine down; the operating system tells processes beside us (`host.Load`); and
blocks that are slower than the others saw something that neither noticed. Such blocks are discarded, and tried again
for a while. Where too few are left, the figure is marked as untrusted.

A figure is remembered, its doubt included, in the user's cache folder under everything that it depends on: network,
size, threads, device, runtime, versions, the network's code and the machine. So one network has one latency on one
machine, and a run that is repeated there meets the same figures and takes the same path. A figure is forgotten where
the reference has since been found faster: then the machine was busy all the time that it was taken.
"""

from __future__ import annotations

import dataclasses
import json
import math
import statistics
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import chain

import torch
from torch import nn

from hfir.model import HydraFusionIR
from search.evaluation.allocator import keep_memory
from search.evaluation.cost import random_image
from search.evaluation.host import Load, cache_folder, host_name, network_code, versions
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
from search.files import replace_file
from search.types import InputSize, Latency, stable_hash

WARM_UP_S = 0.1
LIMIT_S = 0.9
PATIENCE = 5
"""Where blocks are discarded, the limit is so many times as long."""
PAUSE_S = 0.1
"""After a discarded block, wait so long before the next."""
MIN_PASSES, MAX_PASSES = 9, 1000
MIN_BLOCKS = 3
"""So many blocks must agree. Each has three passes at least, so slow networks are trusted after three blocks."""
TOLERANCE = 0.02
"""Repeat until the median's 95 % interval is within ±2 % of it, or a limit is reached."""
DRIFT = 0.05
"""A block is discarded where the reference beside it is slower than at rest by more than this share. Up to there its
times are divided by the reference's drift: the machine's own speed wanders by some per cent from minute to minute."""
AGREEMENT = 0.05
"""Blocks agree whose medians are at most this share above that of the second fastest."""


@dataclass(slots=True)
class Blocks:
    """Times of single passes in ms, in blocks, by whether the machine was at rest."""

    kept: list[list[float]] = field(default_factory=list)
    discarded: list[list[float]] = field(default_factory=list)
    reference_ms: list[float] = field(default_factory=list)

    def agreeing(self) -> list[list[float]]:
        """Return the kept blocks that agree with the second fastest: a neighbour makes blocks slower, never faster."""
        medians = [statistics.median(block) for block in self.kept]
        if not medians:
            return []
        limit = (1 + AGREEMENT) * sorted(medians)[min(1, len(medians) - 1)]
        return [block for block, median in zip(self.kept, medians, strict=True) if median <= limit]

    def passes(self) -> list[float]:
        """Return the passes that the figure is made of: those that agree, or all where too few do."""
        blocks = self.agreeing() if self.is_trusted() else self.kept + self.discarded
        return list(chain.from_iterable(blocks))

    def dropped(self) -> int:
        """Return how many blocks do not count."""
        return len(self.discarded) + (len(self.kept) - len(self.agreeing()) if self.is_trusted() else 0)

    def is_trusted(self) -> bool:
        """Say whether enough was timed at rest: blocks, and passes in them."""
        blocks = self.agreeing()
        return len(blocks) >= MIN_BLOCKS and sum(map(len, blocks)) >= MIN_PASSES

    def is_enough(self) -> bool:
        """Say whether the interval is as narrow as wanted."""
        if not self.is_trusted():
            return False
        passes = self.passes()
        low, median, high = median_interval(passes)
        return len(passes) >= MAX_PASSES or max(high - median, median - low) <= TOLERANCE * median


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
                reference = Reference(size_class(warm_ms), threads, device)
                patience_s = max(PATIENCE * limit_s, 2 * MIN_PASSES * warm_ms / 1e3)
                blocks = interleaved(run, reference, limit_s, clock, patience_s=patience_s)
                reference.remember(blocks.reference_ms)
    finally:
        torch.set_num_threads(before)
        model.to("cpu")
    passes, beside_ms = blocks.passes(), statistics.median(blocks.reference_ms)
    low, median, high = median_interval(passes)
    return Latency(
        median_ms=median,
        low_ms=low,
        high_ms=high,
        repeats=len(passes),
        at=str(at),
        threads=threads,
        device=describe_device(device),
        dtype="float32",
        runtime=describe(runtime),
        host=host_name(),
        measured_at=datetime.now(UTC).isoformat(timespec="seconds"),
        trusted=blocks.is_trusted(),
        reference_ratio=median / beside_ms,
        reference_drift=beside_ms / reference.calibrated_ms - 1,
        discarded_blocks=blocks.dropped(),
        versions=versions(),
    )


def interleaved(
    run: Pass, reference: Reference, limit_s: float, clock: Clock = wall_clock, *, patience_s: float | None = None
) -> Blocks:
    """Time a candidate in blocks, the reference between them, and sort the blocks by how the machine fared.

    Args:
        run: One pass of the candidate.
        reference: What is timed beside it.
        limit_s: Stop after this long where the figure is to be trusted, however wide its interval.
        clock: Times one pass.
        patience_s: Stop after this long in any case; by default `PATIENCE` times the limit.
    """
    patience_s = PATIENCE * limit_s if patience_s is None else patience_s
    blocks, load = Blocks(), Load()
    start, before = time.perf_counter(), reference.block_ms()
    while True:
        times, after = time_block(run, clock), reference.block_ms()
        beside, mean = max(before, after), (before + after) / 2
        if reference.drift(beside) < -DRIFT:  # never was the machine at rest before
            reference.learn(beside)
            blocks.discarded += blocks.kept
            blocks.kept = []
        if reference.drift(beside) <= DRIFT and not load.is_crowded():
            blocks.kept.append([time_ms / (1 + reference.drift(mean)) for time_ms in times])
        else:
            blocks.discarded.append(times)
            time.sleep(PAUSE_S)
        blocks.reference_ms.append(after)
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
    known = None if remeasure or not path.is_file() else Latency(**json.loads(path.read_text()))
    if known is not None and not _is_outdated(known, device):
        return known
    latency = measure_latency(model, at, threads, runtime=runtime, device=device)
    path.parent.mkdir(parents=True, exist_ok=True)
    replace_file(path, lambda partial: partial.write_text(json.dumps(dataclasses.asdict(latency))))
    return latency


def _is_outdated(known: Latency, device: str) -> bool:
    """Say whether the reference beside a figure was slower than it is now known to run at rest."""
    if not known.trusted or not known.reference_ratio:
        return False
    rest = rest_ms(size_class(known.median_ms), known.threads, device)
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
