"""What an evaluation is told: plain, frozen, picklable. Standard library only, so that reading it loads no torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from search.references.plan import ReferencePlan
from search.types import InputSize

SCORE_NAMES = ("synflow", "naswot", "grad_norm")
"""Names in `search.evaluation.zero_cost.SCORES`, for those who do without torch."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskPlan:
    """Which photographs, and what is done to them.

    Args:
        kind: A name in `search.tasks.degradations.DEGRADATIONS`.
        options: The degradation's options, as pairs.
        channels: 1 or 3.
        folders: Names and absolute paths, as pairs; `("folder", "embedded")` for the embedded photographs.
        seed: Draws the noise of the validation photographs.
    """

    kind: str
    options: tuple[tuple[str, float | int | tuple[str, ...]], ...]
    channels: int
    folders: tuple[tuple[str, str], ...]
    seed: int

    @property
    def upscale(self) -> int:
        """Enlargement; 1 for restoration."""
        upscale = dict(self.options).get("upscale", 1)
        return int(upscale) if isinstance(upscale, int | float) else 1


@dataclass(frozen=True, slots=True, kw_only=True)
class CostPlan:
    """At which sizes costs are taken, and their limits.

    Args:
        macs_at: Input size for MACs.
        latency_at: Input size for latency and memory.
        threads: Threads that the latency is measured with.
        limits: Costs and their upper limits, as pairs; the names are fields of `search.types.Cost`.
        remeasure: Take latencies anew even where this machine remembers them.
        runtime: What runs networks while they are timed: torch, compile or onnxruntime.
        device: Where: cpu or cuda:N.
    """

    macs_at: InputSize
    latency_at: InputSize
    threads: int
    limits: tuple[tuple[str, float], ...]
    remeasure: bool = False
    runtime: str = "torch"
    device: str = "cpu"


@dataclass(frozen=True, slots=True, kw_only=True)
class ProxyPlan:
    """How candidates are trained; the same for all of a run.

    Args:
        rungs: Steps at which candidates are compared, rising.
        batch: Patches in a step.
        patch_px: Side of a patch of the network's input.
        learning_rate: Constant rate after the warm-up.
        warmup_steps: Steps over which the rate rises from 0.
        loss: A name in `hfir.losses.PIXEL_LOSSES`.
        data_seed: Draws the patches, alike for all candidates.
        routing_supervision: Weight of what teaches routers which expert is for which degradation; 0 for none.
    """

    rungs: tuple[int, ...]
    batch: int
    patch_px: int
    learning_rate: float
    warmup_steps: int
    loss: str
    data_seed: int
    routing_supervision: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationPlan:
    """All that a worker needs to measure and train any candidate of a run.

    Args:
        task: Which photographs, and what is done to them.
        cost: What is measured, and the limits.
        proxy: How candidates are trained.
        score: A name in `SCORE_NAMES` that admitted candidates are screened by; None for none.
    """

    task: TaskPlan
    cost: CostPlan
    proxy: ProxyPlan
    score: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CandidateJob:
    """One candidate, as it is sent to a worker.

    Args:
        number: The trial's number, for messages.
        config: `HFIRConfig.to_dict()`.
        seed: Draws the initial weights.
        checkpoint: Where its training is kept.
        rung: The rung to train through; ignored by other jobs.
        scalars: Folder for the TensorBoard scalars of its training; None for none.
        limit_s: Seconds after which its worker is ended; None for none.
        device: Where to train it, as torch names devices.
        photographs: `photographs_key` of what the run recorded: a worker that loads others refuses; empty: any.
    """

    number: int
    config: dict[str, Any]
    seed: int
    checkpoint: str
    rung: int = 0
    scalars: str | None = None
    limit_s: float | None = None
    device: str = "cpu"
    photographs: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReferenceJob:
    """One network to compare with, as it is sent to a worker.

    Args:
        reference: Which one.
        seed: Draws the initial weights.
        checkpoint: Where its training is kept.
        rung: The rung to train through; ignored by other jobs.
        photographs: As in `CandidateJob`.
    """

    reference: ReferencePlan
    seed: int
    checkpoint: str
    rung: int = 0
    photographs: str = ""
