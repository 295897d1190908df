"""Zero-cost scores: what an untrained network says of itself, within milliseconds and without a training step.

Each is a function of a configuration, a batch of the proxy's patches and a seed, higher for what is expected to be
better. It builds a network of its own in training form, so nobody's weights or random numbers change. How far they
tell the order of trained networks: docs/adr/0025. To add one, write its function and add a line to `SCORES`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from hfir.blocks.ffn import GatedFFN, SimpleGate
from hfir.blocks.norm import ChannelNorm
from hfir.config import HFIRConfig
from hfir.losses import l1, routing_loss
from hfir.model import HydraFusionIR, build_model
from search.evaluation.plan import ProxyPlan
from search.evaluation.trainable import restored_by
from search.tasks.pairs import TaskData
from search.tasks.patches import Batch, PatchSampler
from search.types import EvaluationError

FLOW_PX = 24
"""Side of the image of ones that `synflow` looks through a network with."""

Score = Callable[[HFIRConfig, Batch | None, int], float]
"""`(config, batch, seed) -> figure`; a batch may be None where the score looks at no image."""


def synflow(config: HFIRConfig, batch: Batch | None, seed: int) -> float:
    """Return the logarithm (base 10) of how much signal a network's weights let through together.

    Synaptic flow (Tanaka et al., 2020, arXiv 2006.05467), summed over a network as a score of it (Abdelfattah et al.,
    2021, arXiv 2101.08134): Σ |θ·∂R/∂θ|, where R sums the output to an image of ones of a network whose weights are
    replaced by their magnitudes. A norm over channels would let positive features cancel, and without any a product
    follows the other through all gates; so norms divide by the root mean square here, which counts as constant.

    Args:
        config: The network.
        batch: Not looked at.
        seed: Draws the initial weights.

    Raises:
        EvaluationError: If the figure is not finite.
    """
    with torch.random.fork_rng(devices=[]):
        model = _built(config, seed).eval()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.abs_()
        for module in model.modules():
            if isinstance(module, ChannelNorm):
                module.register_forward_hook(_by_mean_square)
        model(torch.ones(1, config.in_channels, FLOW_PX, FLOW_PX)).sum().backward()
    flows = [(p.detach() * p.grad).abs().sum() for p in model.parameters() if p.grad is not None]
    total = float(torch.stack(flows).double().sum())
    return _finite("synflow", math.log10(total) if total > 0 else -math.inf)


def naswot(config: HFIRConfig, batch: Batch | None, seed: int) -> float:
    """Return how differently an untrained network treats the patches of a batch.

    Neural architecture search without training (Mellor et al., 2021, arXiv 2006.04647): each image has a binary code,
    and the score is the logarithm of the determinant of the matrix that counts the places where two codes agree. A
    code there says which ReLUs are on. In this family a signal is bent where one half of the features multiplies the
    other, and in dense blocks by a PReLU. So a code is made of the signs of both operands of each such gate and of what
    goes into each PReLU, in trunk blocks, attention blocks and the refiner. Experts are left out: images that go
    different ways have no codes to compare. The identity is added to the matrix, so that patches that are all alike
    give a low figure, and not minus infinity.

    Args:
        config: The network.
        batch: Whose degraded patches are looked at; the more, the more is told apart.
        seed: Draws the initial weights.

    Raises:
        EvaluationError: If there is no batch, or the figure is not finite.
    """
    shown = _given("naswot", batch)
    signs: list[Tensor] = []
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        model = _built(config, seed).eval()
        for module in model.modules():
            if isinstance(module, SimpleGate | nn.PReLU):
                module.register_forward_pre_hook(lambda gate, inputs: signs.append(_signs(inputs[0])))
            elif isinstance(module, GatedFFN):
                module.look.register_forward_hook(lambda look, inputs, output: signs.append(_signs(output)))
        restored_by(model, shown.degraded, shown.labels)
    agreements = sum((s.shape[1] + s @ s.T) / 2 for s in signs) + torch.eye(len(shown.degraded))
    return _finite("naswot", float(torch.linalg.slogdet(agreements.double()).logabsdet))


def grad_norm(config: HFIRConfig, batch: Batch | None, seed: int) -> float:
    """Return the norms of the gradients of one batch's loss, summed over the parameters.

    After Abdelfattah et al. (2021, arXiv 2101.08134). The loss is the mean absolute error, and what balances routers.

    Args:
        config: The network.
        batch: A batch of the proxy.
        seed: Draws the initial weights, and the noise of routers.

    Raises:
        EvaluationError: If there is no batch, or the figure is not finite.
    """
    shown = _given("grad_norm", batch)
    with torch.random.fork_rng(devices=[]):
        model = _built(config, seed).train()
        restored, routings = restored_by(model, shown.degraded, shown.labels)
    (l1(restored, shown.clean) + routing_loss(routings)).backward()
    norms = [p.grad.norm() for p in model.parameters() if p.grad is not None]
    return _finite("grad_norm", float(torch.stack(norms).sum()))


SCORES: Mapping[str, Score] = {"synflow": synflow, "naswot": naswot, "grad_norm": grad_norm}


def proxy_batch(plan: ProxyPlan, data: TaskData) -> Batch:
    """Return the first batch that the proxy trains on, the same for all candidates."""
    return PatchSampler(data, plan.patch_px, plan.batch, plan.data_seed).batch(0)


def _built(config: HFIRConfig, seed: int) -> HydraFusionIR:
    torch.manual_seed(seed)
    return build_model(config)


def _by_mean_square(norm: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> Tensor:
    features: Tensor = inputs[0]
    size = features.detach().square().mean(dim=1, keepdim=True).sqrt()
    return features / (size + 1e-6) * norm.get_parameter("weight")[:, None, None]


def _signs(features: Tensor) -> Tensor:
    """Return [b n], 1 where a value is above zero and -1 elsewhere."""
    return (features > 0).flatten(1).float() * 2 - 1


def _given(name: str, batch: Batch | None) -> Batch:
    if batch is None:
        raise EvaluationError(f"{name} looks at patches, but there is no batch. Give one of the proxy: proxy_batch.")
    return batch


def _finite(name: str, figure: float) -> float:
    if not math.isfinite(figure):
        raise EvaluationError(
            f"the score {name} is {figure}; it must be finite. Search by another score, or without search.screening."
        )
    return figure
