"""The two stages of training, each one step at a time: towards the pixels, then against a discriminator."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import torch
from lightning_fabric import Fabric
from torch import Tensor

from hfir.blocks.moe import Routing
from hfir.config import HFIRConfig
from hfir.discriminator import UNetDiscriminator
from hfir.errors import HFIRError
from hfir.losses import (
    ADVERSARIAL_LOSSES,
    PIXEL_LOSSES,
    PerceptualLoss,
    frequency_loss,
    l1,
    routing_loss,
    routing_supervision,
    ssim_loss,
)
from hfir.model import HydraFusionIR
from search.evaluation.routing import condition_from
from search.tasks.patches import Batch
from search.training.pace import StepFigures
from search.training.plan import GanPlan, PerceptualPlan, TrainingPlan
from search.types import InputError

PIXEL_BETAS = (0.9, 0.9)
GAN_BETAS = (0.9, 0.99)


class Stage(Protocol):
    """A way to take steps."""

    name: str

    def step(self, batch: Batch, rate: float) -> StepFigures:
        """Take one step at a learning rate."""
        ...

    def state(self) -> dict[str, Any]:
        """Return everything that going on needs, the network aside."""
        ...

    def resume(self, state: Mapping[str, Any]) -> None:
        """Take up the stage from what `state` returned."""
        ...


class PixelStage:
    """AdamW towards the pixels: Charbonnier or L1, on request SSIM and frequencies, and the routers' losses.

    Args:
        fabric: Where to train.
        network: The network as Fabric wraps it.
        model: The same network, bare.
        plan: How to train.
    """

    name = "psnr"

    def __init__(self, fabric: Fabric, network: Any, model: HydraFusionIR, plan: TrainingPlan) -> None:
        self._fabric, self._network, self._plan, self._config = fabric, network, plan, model.config
        self._optimiser: Any = fabric.setup_optimizers(
            torch.optim.AdamW(model.parameters(), lr=0.0, betas=PIXEL_BETAS, weight_decay=0.0, fused=True)
        )

    def step(self, batch: Batch, rate: float) -> StepFigures:
        """Take one step."""
        restored, routings = run_network(self._fabric, self._network, self._config, batch)
        clean = batch.clean
        loss = PIXEL_LOSSES[self._plan.loss](restored, clean)
        if self._plan.ssim_weight:
            loss = loss + self._plan.ssim_weight * ssim_loss(restored, clean)
        if self._plan.frequency_weight:
            loss = loss + self._plan.frequency_weight * frequency_loss(restored, clean)
        total = loss + _router_loss(routings, batch.labels, self._plan.routing_supervision)
        norm = _descend(self._fabric, self._network, self._optimiser, total, rate, self._plan.gradient_clip)
        return StepFigures(loss.detach(), loss.detach() + norm)

    def state(self) -> dict[str, Any]:
        """Return the optimiser's state."""
        return {"optimiser": self._optimiser.state_dict()}

    def resume(self, state: Mapping[str, Any]) -> None:
        """Take up the optimiser."""
        self._optimiser.load_state_dict(state["optimiser"])


class GanStage:
    """Adam for both players: L1, on request features, and the judgement of a U-Net discriminator.

    Args:
        fabric: Where to train.
        network: The network as Fabric wraps it.
        model: The same network, bare; it is put into GAN mode.
        plan: How to train.
        gan: Its section on this stage.
        seed: Draws the discriminator's weights.
    """

    name = "gan"

    def __init__(
        self, fabric: Fabric, network: Any, model: HydraFusionIR, plan: TrainingPlan, gan: GanPlan, seed: int
    ) -> None:
        self._fabric, self._network, self._plan, self._gan = fabric, network, plan, gan
        self._config = model.config
        model.gan_mode(True)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self._judge = UNetDiscriminator(model.config.in_channels, gan.discriminator_width)
        self._wrapped_judge: Any = fabric.setup_module(self._judge)
        self._optimiser: Any = fabric.setup_optimizers(_adam(model.parameters()))
        self._judge_optimiser: Any = fabric.setup_optimizers(_adam(self._judge.parameters()))
        self._perceptual = None if gan.perceptual is None else _perceptual(gan.perceptual).to(fabric.device)

    def step(self, batch: Batch, rate: float) -> StepFigures:
        """Take one step with each player; the loss is the network's."""
        restored, routings = run_network(self._fabric, self._network, self._config, batch)
        clean = batch.clean
        loss = self._gan.pixel_weight * l1(restored, clean) + self._gan.gan_weight * self._disbelief(restored)
        if self._gan.perceptual is not None and self._perceptual is not None:
            with self._fabric.autocast():
                features = self._perceptual(restored, clean)
            loss = loss + self._gan.perceptual.weight * features
        total = loss + _router_loss(routings, batch.labels, self._plan.routing_supervision)
        clip = self._plan.gradient_clip
        norm = _descend(self._fabric, self._network, self._optimiser, total, rate, clip)

        real, fake = self._wrapped_judge(torch.cat([clean, restored.detach()])).chunk(2)
        judged = ADVERSARIAL_LOSSES[self._gan.loss].discriminator(real, fake)
        judge_norm = _descend(self._fabric, self._wrapped_judge, self._judge_optimiser, judged, rate, clip)
        return StepFigures(loss.detach(), loss.detach() + norm + judged.detach() + judge_norm)

    def _disbelief(self, restored: Tensor) -> Tensor:
        """Return the network's adversarial loss; the discriminator learns nothing from it."""
        self._judge.requires_grad_(False)
        with self._fabric.autocast():
            logits = self._judge(restored)
        self._judge.requires_grad_(True)
        return ADVERSARIAL_LOSSES[self._gan.loss].generator(logits)

    def state(self) -> dict[str, Any]:
        """Return the discriminator and both optimisers' states."""
        return {
            "judge": self._judge.state_dict(),
            "optimiser": self._optimiser.state_dict(),
            "judge_optimiser": self._judge_optimiser.state_dict(),
        }

    def resume(self, state: Mapping[str, Any]) -> None:
        """Take up the discriminator and both optimisers."""
        self._judge.load_state_dict(state["judge"])
        self._optimiser.load_state_dict(state["optimiser"])
        self._judge_optimiser.load_state_dict(state["judge_optimiser"])


def run_network(fabric: Fabric, network: Any, config: HFIRConfig, batch: Batch) -> tuple[Tensor, list[Routing]]:
    """Return the restored batch in fp32 and the routers' decisions; a network that asks for the degradation is told it.

    Fabric casts for `forward`, and for other methods on several devices only: hence the autocast.
    """
    with fabric.autocast():
        restored, routings = network.forward_with_routing(batch.degraded, condition_from(config, batch.labels))
    return restored.float(), routings


def _router_loss(routings: list[Routing], labels: Tensor | None, supervision: float) -> Tensor | float:
    """Return what keeps routers balanced and small, and teaches them the known degradations."""
    taught = routing_supervision(routings, labels) if labels is not None and supervision else 0.0
    return routing_loss(routings) + supervision * taught


def _adam(parameters: Any) -> torch.optim.Optimizer:
    return torch.optim.Adam(parameters, lr=0.0, betas=GAN_BETAS, fused=True)


def _descend(fabric: Fabric, network: Any, optimiser: Any, loss: Tensor, rate: float, clip: float) -> Tensor:
    """Take a step down a loss; return the norm of the gradient before it was clipped."""
    for group in optimiser.param_groups:
        group["lr"] = rate
    optimiser.zero_grad(set_to_none=True)
    fabric.backward(loss)
    norm = fabric.clip_gradients(network, optimiser, max_norm=clip, error_if_nonfinite=False)
    optimiser.step()
    return torch.as_tensor(norm).detach()


def _perceptual(plan: PerceptualPlan) -> PerceptualLoss:
    try:
        return PerceptualLoss(plan.backbone, Path(plan.weights), plan.layers, mean=plan.mean, std=plan.std)
    except HFIRError as error:
        raise InputError(str(error)) from error
