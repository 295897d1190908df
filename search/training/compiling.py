"""The network of a training compiled by `torch.compile`: as a whole or not at all."""

from __future__ import annotations

from collections.abc import Callable

import torch

from hfir.model import HydraFusionIR
from search.types import InputError


def compile_network(model: HydraFusionIR) -> None:
    """Have `forward_with_routing` of a network compiled when it is first called, for each shape and mode anew.

    The network stays what it is: its modules, the names in its state and what is copied from it do not change.
    """
    torch.compiler.reset()  # graphs of earlier networks count against the cache's limit
    model.forward_with_routing = torch.compile(model.forward_with_routing, dynamic=False, fullgraph=True)


def try_compiled(run: Callable[[], object]) -> None:
    """Run what compiles for the first time, forwards and backwards.

    Raises:
        InputError: If it fails; nothing is trained uncompiled instead.
    """
    try:
        run()
    except Exception as error:  # whatever dynamo, inductor or the C++ compiler raise: there is no common base
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise InputError(
            f"--compile: torch {torch.__version__} cannot compile this network: {reason}\n"
            "  A training is compiled as a whole or not at all; on a CPU that needs a C++ compiler (g++ or clang; "
            "the variable CXX names another).\n"
            "  Install one, or train with --no-compile: the same command goes on from the same folder."
        ) from error
