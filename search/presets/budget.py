"""The budget, once more: measured on the network as it was read back from its file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from hfir.presets import load_preset
from search.evaluation.cost import as_deployed
from search.evaluation.evaluator import measure_network
from search.evaluation.plan import CostPlan
from search.types import OBJECTIVES, Cost


@dataclass(frozen=True, slots=True)
class BudgetCheck:
    """What the limits say of a cost.

    Args:
        refusal: Which limits are missed, with the figures; empty where none is.
        notes: What could not be held against its limit, and why.
    """

    refusal: str
    notes: tuple[str, ...]


def measure_folder(plan: CostPlan, folder: Path) -> Cost:
    """Measure the network of a preset folder afresh; to be run in a worker, with nothing else of ours beside it."""
    return measure_network(plan, as_deployed(load_preset(folder)))


def check_budget(cost: Cost, limits: Mapping[str, float], recorded_host: str | None) -> BudgetCheck:
    """Hold a cost against limits, of the latency the upper end of its interval.

    Args:
        cost: Measured here.
        limits: Upper limits by the cost's name.
        recorded_host: The machine that the run's latencies were taken on, and so what their limit holds for.
    """
    missed, notes = [], []
    for name, limit in limits.items():
        value = cost.latency.high_ms if name == "latency_ms" and cost.latency else getattr(cost, name)
        if value is None or value <= limit:
            continue
        miss = f"{OBJECTIVES[name].label} {_shown(cost, name, value)} > {limit:g}"
        doubt = _latency_doubt(cost, recorded_host) if name == "latency_ms" else ""
        if doubt:
            notes.append(f"{miss}, but {doubt}")
        else:
            missed.append(miss)
    if cost.latency is not None and not cost.latency.trusted and not notes:
        notes.append(cost.latency.doubt)
    return BudgetCheck(", ".join(missed), tuple(notes))


def _shown(cost: Cost, name: str, value: float) -> str:
    if name == "latency_ms" and cost.latency is not None:
        return f"{value:.4g} (upper end; median {cost.latency.median_ms:.4g})"
    return f"{value:.4g}"


def _latency_doubt(cost: Cost, recorded_host: str | None) -> str:
    """Return why a missed latency refuses nobody; empty where it does."""
    if cost.latency is None:
        return ""
    if recorded_host is not None and recorded_host != cost.latency.host:
        return f"the limit was set on another machine ({recorded_host}): the two do not compare"
    return cost.latency.doubt
