"""The jobs that workers run for a network to compare with: try it, measure it, train it through a rung.

Any module: its cost is taken by the code that candidates are measured by, its training is theirs.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from hfir.losses import PIXEL_LOSSES
from search.evaluation.cost import WRITTEN_OUT, as_deployed, random_image
from search.evaluation.counting import count
from search.evaluation.latency import LIMIT_S
from search.evaluation.meter import measure_latency, peak_memory_mib
from search.evaluation.plan import CostPlan, EvaluationPlan, ReferenceJob
from search.evaluation.proxy import Training, train_through, validate
from search.evaluation.quality import mean_quality
from search.evaluation.trainable import Plain
from search.references.loading import build, deploy_form
from search.tasks.pairs import TaskData
from search.tasks.patches import PatchSampler
from search.types import Cost, Measurement


@dataclass(frozen=True, slots=True)
class Maker:
    """Builds a reference network for a task."""

    plan: EvaluationPlan
    job: ReferenceJob

    def __call__(self) -> nn.Module:
        """Return the training form, tried; weights come from torch's global generator.

        Raises:
            SpecError: If it cannot be had, or does not restore images.
        """
        task = self.plan.task
        return build(self.job.reference, in_channels=task.channels, upscale=task.upscale)

    def seeded(self) -> nn.Module:
        """Return the training form with the weights that its training starts from."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.job.seed)
            return self()


def try_reference(plan: EvaluationPlan, job: ReferenceJob) -> bool:
    """Build a reference and restore a small image; True, or SpecError where that fails."""
    Maker(plan, job).seeded()
    return True


def measure_reference(plan: EvaluationPlan, job: ReferenceJob) -> Cost:
    """Measure what the deploy form of a reference costs, as members of the front are measured at the end."""
    network = Maker(plan, job).seeded()
    return cost_of(network, plan.cost, plan.task.channels)


def train_reference(plan: EvaluationPlan, job: ReferenceJob, data: TaskData) -> Measurement:
    """Train a reference through a rung, going on from where it stands; one without parameters is only scored."""
    maker = Maker(plan, job)
    network = maker.seeded()
    if not any(p.requires_grad for p in network.parameters()):
        return _untrained(deploy_form(network), plan, data)
    training = Training(Plain(maker, deploy_form), plan.proxy, data, job.seed)
    return train_through(training, rung=job.rung, checkpoint=Path(job.checkpoint))


def cost_of(network: nn.Module, plan: CostPlan, channels: int) -> Cost:
    """Measure any network.

    Args:
        network: In training form.
        plan: Sizes and threads; the limits are not looked at.
        channels: Of its input.
    """
    deployed = as_deployed(deploy_form(network))
    counted = count(deployed, random_image(channels, plan.macs_at), written_out=WRITTEN_OUT)
    params_m = _params_m(deployed)
    return Cost(
        params_m=params_m,
        params_train_m=_params_m(network),
        params_active_m=params_m,
        macs_g=counted.macs / 1e9,
        macs_at=str(plan.macs_at),
        activations_m=counted.activations / 1e6,
        latency=measure_latency(
            deployed,
            plan.latency_at,
            plan.threads,
            runtime=plan.runtime,
            device=plan.device,
            in_channels=channels,
            limit_s=2 * LIMIT_S,
        ),
        peak_mem_mib=peak_memory_mib(deployed, plan.latency_at, in_channels=channels, device=plan.device),
        peak_mem_at=str(plan.latency_at),
    )


def _params_m(network: nn.Module) -> float:
    return sum(p.numel() for p in network.parameters()) / 1e6


def _untrained(network: nn.Module, plan: EvaluationPlan, data: TaskData) -> Measurement:
    """Score a network that has nothing to learn: the last rung, after no step."""
    qualities = validate(as_deployed(network), data)
    mean = mean_quality(qualities)
    proxy = plan.proxy
    batch = PatchSampler(data, proxy.patch_px, proxy.batch, proxy.data_seed).batch(0)
    with torch.inference_mode():
        loss = float(PIXEL_LOSSES[proxy.loss](network(batch.degraded), batch.clean))
    return Measurement(
        rung=len(proxy.rungs) - 1,
        step=0,
        psnr_db=mean.psnr_db,
        ssim=mean.ssim,
        psnr_per_image_db=tuple(q.psnr_db for q in qualities),
        elapsed_s=0.0,
        loss=loss,
    )
