"""Reference networks: plain convolutions whose speed tells whether the machine is at rest.

Beside each block of a candidate's passes, a block of a reference network of like size is timed. The machine remembers
how fast the reference ran in its last sessions, and takes the fastest tenth of them for rest: a neighbour only ever
slows a machine down, often for minutes. Where the reference is slower than at rest, something else was running, and
the candidate lost some such share, too.
"""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from search.caching import cache_folder, positive, read_json, write_json
from search.evaluation.host import host_name
from search.evaluation.runtimes import Clock, Pass, clock_for, describe, wall_clock
from search.types import stable_hash

BLOCK_S = 0.04
"""A block of passes takes about this long, and has at least `BLOCK_PASSES`."""
BLOCK_PASSES = 3
CALIBRATION_S = 2.0
"""So long a reference is looked at when it is new to the machine: neighbours come and go within seconds."""
SESSIONS = 50
"""So many are remembered; a machine that is slower for good is believed after as many."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SizeClass:
    """A class of networks that are timed beside one reference: `layers` 3×3 convolutions at `side`² pixels.

    Args:
        up_to_ms: The class serves candidates up to this latency.
        width: Channels of the reference.
        layers: Its convolutions.
        side: Of its input, in pixels.
    """

    up_to_ms: float
    width: int
    layers: int
    side: int


SIZE_CLASSES = {
    "small": SizeClass(up_to_ms=1.0, width=8, layers=2, side=64),
    "medium": SizeClass(up_to_ms=6.0, width=16, layers=4, side=96),
    "large": SizeClass(up_to_ms=float("inf"), width=32, layers=5, side=96),
}


class Reference:
    """The reference network of a size class, and what its speed at rest is known to be.

    Args:
        name: A name in `SIZE_CLASSES`.
        threads: Threads that passes run on; the caller sets them.
        device: `cpu` or `cuda:N`.
    """

    def __init__(self, name: str, threads: int, device: str = "cpu") -> None:
        size = SIZE_CLASSES[name]
        image = torch.rand(1, 3, size.side, size.side).contiguous(memory_format=torch.channels_last)
        self._network, self._image = _plain_stack(size).to(device), image.to(device)
        self._clock = clock_for(device)
        self._path = _memory(name, threads, device)
        self._sessions = _sessions(self._path)
        self.calibrated_ms = _fastest_tenth(self._sessions) if self._sessions else self._calibrate()

    def block_ms(self) -> float:
        """Return the median time of one pass over a block of passes, in ms."""
        return statistics.median(time_block(self._pass, self._clock))

    def drift(self, measured_ms: float) -> float:
        """Return by how much the reference is slower than at rest, as a share; a faster one is the new rest."""
        return measured_ms / self.calibrated_ms - 1

    def learn(self, measured_ms: float) -> None:
        """Take a faster figure as the speed at rest: the machine was busy whenever it was looked at before."""
        self.calibrated_ms = measured_ms
        self._write([measured_ms])

    def remember(self, blocks_ms: list[float]) -> None:
        """Remember how a session went, by the lower quartile of its blocks: one lucky block is no measure of rest."""
        self._write([*self._sessions, _lower_quartile(blocks_ms)][-SESSIONS:])

    def _pass(self) -> Tensor:
        return self._network(self._image)

    def _calibrate(self) -> float:
        self.block_ms()
        start, blocks_ms = time.perf_counter(), [self.block_ms()]
        while time.perf_counter() - start < CALIBRATION_S:
            blocks_ms.append(self.block_ms())
        self._write([_fastest_tenth(blocks_ms)])
        return self._sessions[0]

    def _write(self, sessions: list[float]) -> None:
        self._sessions = sessions
        write_json(self._path, {"sessions_ms": sessions})


def rest_ms(name: str, threads: int, device: str = "cpu") -> float | None:
    """Return how fast a reference is known to run at rest, in ms; None where that is not known yet."""
    sessions = _sessions(_memory(name, threads, device))
    return _fastest_tenth(sessions) if sessions else None


def _memory(name: str, threads: int, device: str) -> Path:
    size = SIZE_CLASSES[name]
    conditions = [name, size.width, size.layers, size.side, threads, device, host_name(), describe("torch")]
    return cache_folder("latency") / f"reference-{stable_hash(conditions)}.json"


def _sessions(path: Path) -> list[float]:
    return read_json(path, _parsed) or []


def _parsed(entry: Any) -> list[float]:
    return [positive(ms) for ms in entry["sessions_ms"]]


def _fastest_tenth(times_ms: list[float]) -> float:
    """Return where the fastest tenth ends: of fewer than ten, the fastest."""
    return sorted(times_ms)[len(times_ms) // 10]


def _lower_quartile(blocks_ms: list[float]) -> float:
    return sorted(blocks_ms)[len(blocks_ms) // 4]


def size_class(latency_ms: float) -> str:
    """Return the class that serves a candidate of this latency."""
    return next(name for name, size in SIZE_CLASSES.items() if latency_ms <= size.up_to_ms)


def time_block(run: Pass, clock: Clock = wall_clock) -> list[float]:
    """Return the times of a block of single passes, in ms."""
    times: list[float] = []
    start = time.perf_counter()
    while len(times) < BLOCK_PASSES or time.perf_counter() - start < BLOCK_S:
        times.append(clock(run))
    return times


def _plain_stack(size: SizeClass) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        layers: list[nn.Module] = []
        for i in range(size.layers):
            layers += [nn.Conv2d(size.width if i else 3, size.width, 3, padding=1), nn.ReLU()]
    return nn.Sequential(*layers).eval().to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
