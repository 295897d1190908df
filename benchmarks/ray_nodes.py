"""A cluster of several nodes on one machine, and how to kill parts of it."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import psutil
from ray.cluster_utils import Cluster

NODE = {"object_store_memory": 80 * 2**20, "include_dashboard": False}
IMPATIENT = {"health_check_period_ms": 500, "health_check_timeout_ms": 5000, "health_check_failure_threshold": 3}
"""A lost node is given up after seconds, not after half a minute."""


@contextmanager
def cluster_of(nodes: int, cpus: int) -> Iterator[Cluster]:
    """Make a cluster: the driver's node, without workers of its own, and so many others; it ends with us.

    Args:
        nodes: Beside the driver's.
        cpus: Trials at a time on each.
    """
    os.environ.update(RAY_USAGE_STATS_ENABLED="0", RAY_AUTH_MODE="disabled")
    cluster = Cluster(initialize_head=True, head_node_args={**NODE, "num_cpus": 0, "_system_config": IMPATIENT})
    try:
        for _ in range(nodes):
            join(cluster, cpus)
        yield cluster
    finally:
        cluster.shutdown()


def join(cluster: Cluster, cpus: int) -> Any:
    """Let a node join, and return it."""
    return cluster.add_node(num_cpus=cpus, object_store_memory=NODE["object_store_memory"])


def lose(cluster: Cluster, node: Any) -> None:
    """Kill a node at once, workers and all, as a power cut does."""
    raylet = psutil.Process(node.all_processes["raylet"][0].process.pid)
    for process in [raylet, *raylet.children(recursive=True)]:
        kill(process.pid)
    cluster.remove_node(node, allow_graceful=False)


def workers_of(node: Any) -> list[int]:
    """Return the process ids of a node's workers that have a trial; its agents are not among them."""
    raylet = psutil.Process(node.all_processes["raylet"][0].process.pid)
    titles: dict[int, str] = {}
    for process in raylet.children():
        with suppress(psutil.Error):
            titles[process.pid] = " ".join(process.cmdline())
    return [pid for pid, title in titles.items() if re.match(r"ray::(?!IDLE|\w+Agent)", title)]


def kill(pid: int) -> None:
    """Kill a process at once, if it is there."""
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
