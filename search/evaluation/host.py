"""Which machine a figure was taken on, and with which code: figures of two machines never share an axis."""

from __future__ import annotations

import hashlib
import os
import platform
import time
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from pathlib import Path

import hfir
from search.evaluation.made_up import MARK, source


def host_name() -> str:
    """Return a short name of this machine: processor, cores, node; and whether its figures are made up."""
    return f"{_machine()}, figures {MARK} by {source()}" if source() else _machine()


@cache
def _machine() -> str:
    return f"{_processor()} x{os.cpu_count()} ({platform.node()})"


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


@cache
def versions() -> dict[str, str]:
    """Return the versions that figures depend on."""
    packages = ("torch", "optuna", "numpy", "hfir-search")
    found = {"python": platform.python_version()}
    for package in packages:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = "not installed as a package"
    return found


@cache
def network_code() -> str:
    """Return a hash of the network's source: a latency holds for the code that it was measured with."""
    digest = hashlib.blake2b(digest_size=8)
    folder = Path(str(hfir.__file__)).parent
    for path in sorted(folder.rglob("*.py")):
        digest.update(path.relative_to(folder).as_posix().encode() + path.read_bytes())
    return digest.hexdigest()


class Load:
    """How busy others keep this machine, as the operating system counts it; Linux only.

    A neighbour on the same physical machine but outside of ours does not show here, and a process beside us that sleeps
    while the reference network is timed does not show there: each sees what the other misses.
    """

    def __init__(self) -> None:
        self._marks = [_mark()]

    def is_crowded(self) -> bool:
        """Say whether others took computing time from us since the call before the last one.

        They do where they use more than a quarter of a processor, and all together more than half of the processors:
        two threads of one core share what it has.
        """
        self._marks = [*self._marks[-2:], _mark()]
        then, now = self._marks[0], self._marks[-1]
        wall = now.wall_s - then.wall_s
        if then.busy_s is None or now.busy_s is None or wall < MIN_WINDOW_S:
            return False
        busy, own = (now.busy_s - then.busy_s) / wall, (now.own_s - then.own_s) / wall
        return busy - own > FOREIGN_SHARE and busy > _processors() / 2


FOREIGN_SHARE = 0.25
"""Of one processor: what others may use while we measure. Linux counts in steps of 10 ms."""
MIN_WINDOW_S = 0.1
"""Over less time, its steps say nothing."""


@dataclass(frozen=True, slots=True)
class _Mark:
    wall_s: float
    own_s: float
    busy_s: float | None


def _mark() -> _Mark:
    return _Mark(time.perf_counter(), time.process_time(), _busy_s())


def _busy_s() -> float | None:
    """Return for how long all processors together have been at work, in seconds; None where nobody counts."""
    stat = Path("/proc/stat")
    if not stat.is_file():
        return None
    user, nice, system, _idle, _wait, irq, soft_irq = map(int, stat.read_text(encoding="utf-8").split(maxsplit=8)[1:8])
    return (user + nice + system + irq + soft_irq) / os.sysconf("SC_CLK_TCK")


@cache
def _processors() -> int:
    return os.cpu_count() or 1
