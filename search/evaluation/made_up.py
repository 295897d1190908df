"""Made-up figures in place of measured ones: for tests of what becomes of a figure, which need not wait for one.

The environment variable `HFIR_SEARCH_MADE_UP_FIGURES` names a module with the two functions of `Figures`. It reaches
worker processes, too. Nobody must take such figures for measured ones: each process that makes them up logs a warning,
their latencies and this machine's name say so, and the user's cache remembers none. Standard library only.
"""

from __future__ import annotations

import importlib
import logging
import os
from functools import cache
from typing import TYPE_CHECKING, Protocol, cast

from search.types import InputError, InputSize, Latency

if TYPE_CHECKING:
    from torch import nn

log = logging.getLogger(__name__)

SWITCH = "HFIR_SEARCH_MADE_UP_FIGURES"
MARK = "made up"
"""What the runtime and the host of a made-up latency say."""


class Figures(Protocol):
    """What the named module has."""

    def latency(self, model: nn.Module, at: InputSize, threads: int, runtime: str, device: str) -> Latency:
        """Return a latency; its host and its runtime are marked by the caller."""
        ...

    def peak_memory_mib(self, model: nn.Module, at: InputSize) -> float:
        """Return the peak memory of a forward pass, in MiB."""
        ...


def source() -> str:
    """Return the module that figures come from; empty where they are measured."""
    return os.environ.get(SWITCH, "")


def made_up_figures() -> Figures | None:
    """Return what makes figures up, and warn of it once in a process; None where they are measured.

    Raises:
        InputError: If there is no such module.
    """
    name = source()
    return _imported(name) if name else None


def warn() -> None:
    """Log that figures are made up, where they are."""
    if name := source():
        log.warning("latency and peak memory are made up by %s, not measured (%s is set)", name, SWITCH)


@cache
def _imported(name: str) -> Figures:
    try:
        module = importlib.import_module(name)
    except ImportError as error:
        raise InputError(
            f"{SWITCH} = {name}: cannot be imported ({error}).\n"
            "  The variable names a module that makes figures up, for tests. Unset it to measure."
        ) from error
    warn()
    return cast(Figures, module)
