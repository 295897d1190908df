"""What workers do: measure a candidate, train it through a rung, look at the data. They are sent it by `jobs`.

Pure functions of what they are sent: the same job gives the same answer on any worker (latencies aside).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from hfir.config import HFIRConfig
from hfir.losses import routing_loss
from hfir.model import HydraFusionIR, build_model
from search.evaluation.answers import Admission, Baseline
from search.evaluation.cost import deploy_form, static_counts
from search.evaluation.data import task_data
from search.evaluation.host import host_name, versions
from search.evaluation.latency import LIMIT_S
from search.evaluation.meter import measure_latency, peak_memory_mib, remembered_latency
from search.evaluation.plan import CandidateJob, CostPlan, EvaluationPlan, ReferenceJob, TaskPlan
from search.evaluation.proxy import train_rung
from search.evaluation.quality import bicubic_baseline, mean_quality
from search.evaluation.references import measure_reference, train_reference
from search.evaluation.zero_cost import SCORES, proxy_batch
from search.tasks.identity import refuse_changed_meanwhile
from search.tasks.leaks import seen_in
from search.tasks.pairs import TaskData
from search.tasks.patches import PatchSampler
from search.timing import span
from search.types import Cost, DataError, EvaluationError, InputError, Measurement

SANITY_PX = 24
"""Side of the image of the one training step that every admitted candidate must survive."""


def admit(plan: EvaluationPlan, job: CandidateJob) -> Admission:
    """Measure what a candidate costs and hold it against the limits, cheapest figures first.

    What keeps to them is scored, where the plan names a score.

    Raises:
        EvaluationError: If one training step on noise is not finite, or a score.
    """
    config = HFIRConfig.from_dict(job.config)
    cost = _static_cost(config, plan.cost)
    margins = _margins(plan.cost, cost)
    if not _over(margins):
        with span("memory"):
            model = deploy_form(config)
            memory = peak_memory_mib(model, plan.cost.latency_at, device=plan.cost.device)
        cost = dataclasses.replace(cost, peak_mem_mib=memory, peak_mem_at=str(plan.cost.latency_at))
        margins = _margins(plan.cost, cost)
        if not _over(margins):
            with span("latency"):
                latency = remembered_latency(
                    model,
                    plan.cost.latency_at,
                    plan.cost.threads,
                    remeasure=plan.cost.remeasure,
                    runtime=plan.cost.runtime,
                    device=plan.cost.device,
                )
            cost = dataclasses.replace(cost, latency=latency)
            margins = _margins(plan.cost, cost)
    scores: dict[str, float] = {}
    if not _over(margins):
        with span("one_step"):
            _survive_one_step(config, job)
        scores = _scored(plan, config, job)
    return Admission(cost=cost, margins=margins, reason=_reason(plan.cost, cost, margins), scores=scores)


def _scored(plan: EvaluationPlan, config: HFIRConfig, job: CandidateJob) -> dict[str, float]:
    """Return the score that candidates are screened by, if they are, from the weights that it would start with."""
    if plan.score is None:
        return {}
    with span("score"):
        batch = proxy_batch(plan.proxy, _data_of_the_run(plan.task, job))
        return {plan.score: SCORES[plan.score](config, batch, job.seed)}


def admit_reference(plan: EvaluationPlan, job: ReferenceJob) -> Admission:
    """Measure what a network to compare with costs, and hold it against the limits."""
    cost = measure_reference(plan, job)
    margins = _margins(plan.cost, cost)
    return Admission(cost=cost, margins=margins, reason=_reason(plan.cost, cost, margins))


def remeasure(plan: EvaluationPlan, job: CandidateJob) -> Admission:
    """Measure an admitted candidate's memory and latency afresh, twice as long, and hold them against the limits."""
    config = HFIRConfig.from_dict(job.config)
    cost = _measured(plan.cost, deploy_form(config), _static_cost(config, plan.cost), limit_s=2 * LIMIT_S)
    margins = _margins(plan.cost, cost)
    return Admission(cost=cost, margins=margins, reason=_reason(plan.cost, cost, margins))


def measure_network(plan: CostPlan, model: HydraFusionIR) -> Cost:
    """Measure a network as it is: counts, and memory and latency afresh.

    Args:
        plan: Sizes and threads; the limits are not looked at.
        model: In deploy form, as `as_deployed` returns it.
    """
    return _measured(plan, model, _static_cost(model.config, plan), limit_s=LIMIT_S)


def train(plan: EvaluationPlan, job: CandidateJob) -> Measurement:
    """Train a candidate through a rung, going on from where it stands."""
    with span("photographs"):
        data = _data_of_the_run(plan.task, job)
    return train_rung(
        HFIRConfig.from_dict(job.config),
        plan.proxy,
        data,
        rung=job.rung,
        seed=job.seed,
        checkpoint=Path(job.checkpoint),
        device=job.device,
        scalars=None if job.scalars is None else Path(job.scalars),
    )


def train_network(plan: EvaluationPlan, job: ReferenceJob) -> Measurement:
    """Train a network to compare with through a rung, going on from where it stands."""
    return train_reference(plan, job, _data_of_the_run(plan.task, job))


def _data_of_the_run(plan: TaskPlan, job: CandidateJob | ReferenceJob) -> TaskData:
    """Return the photographs, which the driver of the run has loaded before and recorded.

    Raises:
        InputError: If they are not those that the run recorded.
        DataError: If they cannot be loaded.
    """
    try:
        data = task_data(plan)
    except InputError:
        raise
    except Exception as error:
        raise DataError(
            f"the photographs cannot be loaded ({type(error).__name__}: {error}). Check the folders of task.data."
        ) from error
    owner = f"trial {job.number}" if isinstance(job, CandidateJob) else f"reference {job.reference.name}"
    refuse_changed_meanwhile(job.photographs, seen_in(data), owner)
    return data


def look_at_data(plan: EvaluationPlan) -> Baseline:
    """Load the data and score what costs nothing; raises InputError where the data cannot be used."""
    with span("photographs"):
        data = task_data(plan.task)
    patches = PatchSampler(data, plan.proxy.patch_px, plan.proxy.batch, plan.proxy.data_seed)
    scores = bicubic_baseline(data)
    mean = mean_quality(scores)
    return Baseline(
        psnr_db=mean.psnr_db,
        ssim=mean.ssim,
        images=tuple(pair.name for pair in data.validation),
        psnr_per_image_db=tuple(q.psnr_db for q in scores),
        train_images=data.train_images,
        notes=(*data.notes, *patches.notes),
        host=host_name(),
        versions=versions(),
        photographs=seen_in(data).to_json(),
        storage=data.storage,
    )


def _static_cost(config: HFIRConfig, plan: CostPlan) -> Cost:
    """Return what can be counted without running the network."""
    with span("counts"):
        counts = static_counts(config, plan.macs_at)
    return Cost(
        params_m=counts.params.deploy_m,
        params_train_m=counts.params.train_m,
        params_active_m=counts.params.active_m,
        macs_g=counts.macs_g,
        macs_at=str(plan.macs_at),
        activations_m=counts.activations_m,
    )


def _measured(plan: CostPlan, model: HydraFusionIR, cost: Cost, *, limit_s: float) -> Cost:
    """Add to a cost what has to be measured: latency, not as remembered, and memory."""
    with span("latency"):
        latency = measure_latency(
            model, plan.latency_at, plan.threads, runtime=plan.runtime, device=plan.device, limit_s=limit_s
        )
    with span("memory"):
        memory = peak_memory_mib(model, plan.latency_at, device=plan.device)
    return dataclasses.replace(cost, peak_mem_mib=memory, peak_mem_at=str(plan.latency_at), latency=latency)


def _margins(plan: CostPlan, cost: Cost) -> dict[str, float]:
    """Return how far each known figure is over (> 0) or under its limit, as a share of the limit."""
    known: dict[str, Any] = {name: _gated(cost, name) for name, _ in plan.limits}
    return {name: known[name] / limit - 1 for name, limit in plan.limits if known[name] is not None}


def _gated(cost: Cost, name: str) -> float | None:
    """Return the figure that a limit is held against: of the latency, the upper end of its interval."""
    if name == "latency_ms":
        return None if cost.latency is None else cost.latency.high_ms
    return getattr(cost, name)


def _over(margins: Mapping[str, float]) -> bool:
    return any(margin > 0 for margin in margins.values())


def _reason(plan: CostPlan, cost: Cost, margins: Mapping[str, float]) -> str:
    limits = dict(plan.limits)
    over = [f"{name} {_gated(cost, name):.4g} > {limits[name]:g}" for name, m in margins.items() if m > 0]
    return ", ".join(over)


def _survive_one_step(config: HFIRConfig, job: CandidateJob) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(job.seed)
        model = build_model(config)
        image = torch.rand(2, config.in_channels, SANITY_PX, SANITY_PX)
    restored, routings = model.forward_with_routing(image)
    (restored.square().mean() + routing_loss(routings)).backward()
    sizes = [p.grad.abs().sum() for p in model.parameters() if p.grad is not None]
    total = float(torch.stack([restored.detach().abs().sum(), *sizes]).sum())
    if not math.isfinite(total):
        raise EvaluationError(
            f"trial {job.number}: one training step on noise is not finite ({total}). "
            "The network cannot be trained as it is; please report its configuration."
        )
