"""What a preset is called: names that say what they are."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from search.types import EvaluationError, Trial


def descriptive_name(role: str, trial: Trial) -> str:
    """Return a name with the figures in it, e.g. `balanced_cpu1_12ms_31.2dB_0.31M`.

    Role, device with threads, median latency at the run's input size, PSNR on the run's validation photographs,
    parameters of the deploy form; the sizes and photographs stand in `preset.yaml`.

    Raises:
        EvaluationError: If the trial was not measured to its end.
    """
    if trial.cost is None or trial.cost.latency is None or trial.last is None:
        raise EvaluationError(f"preset {role}: trial {trial.number} is not complete, so it has no figures.")
    latency = trial.cost.latency
    return "_".join(
        (
            role,
            f"{latency.device}{latency.threads}",
            f"{_two_digits(latency.median_ms)}ms",
            f"{trial.last.psnr_db:.1f}dB",
            f"{_two_digits(trial.cost.params_m)}M",
        )
    )


def shipped_name(card: Mapping[str, Any]) -> str:
    """Return the name for files that leave a preset's folder: run and preset; runs share roles, and even figures.

    Args:
        card: What `preset.yaml` holds.
    """
    return "-".join([*filter(None, [card.get("provenance", {}).get("run")]), str(card["name"])])


def _two_digits(value: float) -> str:
    """Return a positive number with two significant digits, never fewer than its whole part has."""
    decimals = max(0, 1 - math.floor(math.log10(value)))
    return f"{value:.{decimals}f}"
