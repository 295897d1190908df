"""fvcore's count of one forward pass, for readers who know its figures from papers."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import NamedTuple

import torch

from search.evaluation.cost import random_image
from search.measuring.networks import Subject
from search.types import EvaluationError, InputSize


class FvcoreCount(NamedTuple):
    """What fvcore counts and what it leaves out.

    Args:
        macs: Of the whole network. fvcore calls them flops and counts a multiply-add as one, as we do.
        by_module: MACs by the module's path; the whole network has the empty path.
        left_out: Operators that fvcore has no formula for, with how often they are called. They count as 0.
    """

    macs: int
    by_module: Mapping[str, int]
    left_out: Mapping[str, int]


def count_by_fvcore(subject: Subject, at: InputSize) -> FvcoreCount:
    """Count one forward pass of a network by fvcore's own formulas, from a trace on the CPU.

    Raises:
        EvaluationError: If the network cannot be traced.
    """
    image = random_image(subject.in_channels, at)
    try:
        # fvcore 0.1.5 is built on torch.jit, which torch calls deprecated; the tracer warns of sizes that are fixed.
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            from fvcore.nn import FlopCountAnalysis

            analysis = FlopCountAnalysis(subject.model, image)
            analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False).tracer_warnings("none")
            by_module = {path: int(macs) for path, macs in analysis.by_module().items()}
            left_out = {str(name): int(calls) for name, calls in analysis.unsupported_ops().items()}
    except Exception as error:  # whatever a tracer raises: it has no common base
        reason = (str(error).splitlines() or [""])[0]
        raise EvaluationError(
            f"{subject.name}: fvcore cannot trace it ({type(error).__name__}: {reason}). Its count is left out."
        ) from error
    return FvcoreCount(by_module[""], by_module, left_out)
