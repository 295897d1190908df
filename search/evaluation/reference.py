"""Reference networks: plain convolutions whose speed tells whether the machine is at rest.

Beside each block of a candidate's passes, a block of a reference network of like size is timed. The machine remembers
how fast the reference runs at rest; where it is slower than that, something else was running, and the candidate's
block is discarded. The reference only detects: dividing by it cures large networks, not small ones.
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from search.evaluation.host import cache_folder, host_name, versions
from search.files import replace_file
from search.types import stable_hash

BLOCK_S = 0.04
"""A block of passes takes about this long, and has at least `BLOCK_PASSES`."""
BLOCK_PASSES = 3
CALIBRATION_BLOCKS = 12


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
    """

    def __init__(self, name: str, threads: int) -> None:
        size = SIZE_CLASSES[name]
        self._network = _plain_stack(size)
        self._image = torch.rand(1, 3, size.side, size.side).contiguous(memory_format=torch.channels_last)
        conditions = [name, size.width, size.layers, size.side, threads, host_name(), versions()["torch"]]
        self._path = cache_folder("latency") / f"reference-{stable_hash(conditions)}.json"
        self.calibrated_ms = self._read() or self._calibrate()

    def block_ms(self) -> float:
        """Return the median time of one pass over a block of passes, in ms."""
        return statistics.median(time_block(self._pass))

    def drift(self, measured_ms: float) -> float:
        """Return by how much the reference is slower than at rest, as a share; a faster one is the new rest."""
        return measured_ms / self.calibrated_ms - 1

    def learn(self, measured_ms: float) -> None:
        """Take a faster figure as the speed at rest: the machine was busy when it was calibrated."""
        self.calibrated_ms = measured_ms
        self._write()

    def _pass(self) -> Tensor:
        return self._network(self._image)

    def _calibrate(self) -> float:
        """Return the lower quartile of some blocks: one lucky block is no measure of rest."""
        self.block_ms()
        blocks = sorted(self.block_ms() for _ in range(CALIBRATION_BLOCKS))
        self.calibrated_ms = blocks[CALIBRATION_BLOCKS // 4]
        self._write()
        return self.calibrated_ms

    def _read(self) -> float | None:
        return float(json.loads(self._path.read_text())["rest_ms"]) if self._path.is_file() else None

    def _write(self) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        replace_file(self._path, lambda partial: partial.write_text(json.dumps({"rest_ms": self.calibrated_ms})))


def size_class(latency_ms: float) -> str:
    """Return the class that serves a candidate of this latency."""
    return next(name for name, size in SIZE_CLASSES.items() if latency_ms <= size.up_to_ms)


def time_block(run: Callable[[], object]) -> list[float]:
    """Return the times of a block of single passes, in ms."""
    times: list[float] = []
    start = time.perf_counter()
    while len(times) < BLOCK_PASSES or time.perf_counter() - start < BLOCK_S:
        before = time.perf_counter()
        run()
        times.append((time.perf_counter() - before) * 1e3)
    return times


def _plain_stack(size: SizeClass) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        layers: list[nn.Module] = []
        for i in range(size.layers):
            layers += [nn.Conv2d(size.width if i else 3, size.width, 3, padding=1), nn.ReLU()]
    return nn.Sequential(*layers).eval().to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
