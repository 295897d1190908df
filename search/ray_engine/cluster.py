"""The way to a Ray cluster: one of our own on this machine, or one that is there."""

from __future__ import annotations

import logging
import os
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from logging.handlers import MemoryHandler
from tempfile import TemporaryDirectory
from typing import Any

import ray
import ray._private.worker as ray_worker

from search.counts import count
from search.executors import WORKER_ENVIRONMENT
from search.types import InputError

ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",  # no report to Ray's makers
    "RAY_TRAIN_COUNT_PREEMPTION_AS_FAILURE": "1",  # a preempted node counts against the retries, too
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # Ctrl-C is ours to handle
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",
    "TUNE_WARN_THRESHOLD_S": "3600",
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
}
"""How Ray and Tune are told to be quiet and to leave decisions to us; what the user has set stands."""
LOCAL_OBJECT_STORE_BYTES = 100 * 2**20
"""Of our own cluster: checkpoints go through files, so little passes through Ray's memory."""
CONNECT_TIMEOUT_S = 10.0
PENDING_TRIALS = 16
"""Trials that may wait for a worker, where the cluster's size is the only limit: a growing cluster sees the demand."""


@contextmanager
def connected(address: str, workers: int | None, *, gpus: float) -> Iterator[None]:
    """Connect to a cluster, and disconnect in the end; one of our own ends with us.

    Workers get an empty working directory, so that no `search.py` of the folder we were started in stands in the way
    of ours, and the environment of the pool's workers.

    Args:
        address: `local`, `auto` (the cluster that this machine belongs to), or HOST:PORT.
        workers: Processes of a cluster of our own.
        gpus: Share of a GPU that each trial takes.

    Raises:
        InputError: If there is no cluster at the address, or no GPU in one of our own.
    """
    for name, value in (ENVIRONMENT | {"TUNE_MAX_PENDING_TRIALS_PG": str(workers or PENDING_TRIALS)}).items():
        os.environ.setdefault(name, value)
    if ray.is_initialized():
        raise InputError("this process is connected to Ray already.\n  Call ray.shutdown() first.")
    with TemporaryDirectory(prefix="hfir-search-") as empty, _quiet():
        options: dict[str, Any] = {"runtime_env": {"working_dir": empty, "env_vars": WORKER_ENVIRONMENT}}
        if address == "local":
            options |= {
                "num_cpus": workers,
                "object_store_memory": LOCAL_OBJECT_STORE_BYTES,
                "include_dashboard": False,
            }
        try:
            _require_listener(address)
            with _own_sigterm():
                ray.init(address, logging_level=logging.WARNING, log_to_driver=False, **options)
        except (OSError, RuntimeError, ValueError) as error:
            raise InputError(_connection_problem(address, error)) from error
        try:
            logging.getLogger("search.ray_engine").info(
                "ray_session=%r nodes=%d resources=%r",
                ray.get_runtime_context().get_session_name(),
                len(alive_nodes()),
                ray.cluster_resources(),
            )
            _require_gpus(address, gpus)
            yield
        finally:
            ray.shutdown()


def alive_nodes() -> list[str]:
    """Return the ids of the cluster's nodes."""
    return [node["NodeID"] for node in ray.nodes() if node["Alive"]]


def _connection_problem(address: str, error: Exception) -> str:
    """Return what to tell the user when Ray cannot be started or reached."""
    cause = _first_line(error)
    name = next((name for name in ("RAY_TMPDIR", "TMPDIR") if name in os.environ), None)
    if "AF_UNIX" in cause and name is not None:
        return (
            f"{name} = {os.environ[name]}: Ray makes its sockets below this folder, and their path is too long "
            f"({cause}).\n  Set RAY_TMPDIR to a short folder, e.g. RAY_TMPDIR=/tmp, and rerun the same command."
        )
    if address == "local":
        return (
            f"execution.address = local: Ray cannot start on this machine ({cause}).\n"
            "  Remove the cause, or use engine: pool, which needs no Ray."
        )
    return (
        f"execution.address = {address}: no Ray cluster can be reached there ({cause}).\n"
        "  Start one (`ray start --head`, `ray up`, KubeRay), give its HOST:PORT, or use address: local."
    )


def _require_listener(address: str) -> None:
    """Raise OSError where nothing listens at HOST:PORT: Ray itself would try for minutes."""
    host, _, port = address.rpartition(":")
    if host:
        socket.create_connection((host, int(port)), timeout=CONNECT_TIMEOUT_S).close()


@contextmanager
def _own_sigterm() -> Iterator[None]:
    """Keep our way of taking SIGTERM, which Ray replaces by its own."""
    ours = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, ours)


def _require_gpus(address: str, gpus: float) -> None:
    there = ray.cluster_resources().get("GPU", 0.0)
    if there >= gpus:
        return
    problem = f"execution.gpus_per_trial = {gpus:g}: the cluster has {count(int(there), 'GPU')}"
    if address == "local":
        raise InputError(
            f"{problem}.\n  Set it to 0 to train on processors, or give the address of a cluster with GPUs."
        )
    logging.getLogger("search.ray_engine").warning("%s; trials wait until a node with one joins", problem)


@contextmanager
def _quiet() -> Iterator[None]:
    """Send what Ray logs in this process where the log of the run goes, not to the terminal."""
    logger = logging.getLogger("ray")
    before = list(logger.handlers), logger.level, logger.propagate
    kept = [handler for handler in logging.getLogger("search").handlers if isinstance(handler, logging.FileHandler)]
    # Ray sets its format to each handler that it finds, so it is given others, which hand on at once.
    logger.handlers = [MemoryHandler(0, logging.NOTSET, handler) for handler in kept] or [logging.NullHandler()]
    logger.propagate = False
    logging.getLogger("ray.tune.analysis").setLevel(logging.ERROR)  # it misses the files of loggers that are off
    # Ray 2.60 prints the errors of nodes on standard output, and has no option against it; to be deleted when it has.
    printing, ray_worker.print_to_stdstream = ray_worker.print_to_stdstream, _log_lines
    try:
        yield
    finally:
        ray_worker.print_to_stdstream = printing
        logger.handlers, logger.propagate = before[0], before[2]
        logger.setLevel(before[1])


def _log_lines(data: dict[str, Any], ignore_prefix: bool) -> None:
    for line in data["lines"]:
        logging.getLogger("ray").warning("%s: %s", data["pid"], line)


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
