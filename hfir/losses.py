"""Training losses: what is compared, and what keeps experts in balance."""

from collections.abc import Callable, Iterable, Mapping

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from hfir.blocks.moe import Routing


def l1(restored: Float[Tensor, "b c h w"], clean: Float[Tensor, "b c h w"]) -> Float[Tensor, ""]:
    """Return the mean absolute difference."""
    return F.l1_loss(restored, clean)


def charbonnier(restored: Float[Tensor, "b c h w"], clean: Float[Tensor, "b c h w"]) -> Float[Tensor, ""]:
    """Return the mean of `sqrt(d² + 1e-6)`: L1 that is smooth at zero (Charbonnier et al., 1994)."""
    return torch.sqrt((restored - clean) ** 2 + 1e-6).mean()


PIXEL_LOSSES: Mapping[str, Callable[[Tensor, Tensor], Tensor]] = {"charbonnier": charbonnier, "l1": l1}


def load_balance(routing: Routing) -> Float[Tensor, ""]:
    """Return `E · Σ f_e P_e`: 1 when every expert gets its share, E when one gets all (arXiv 2101.03961, eq. 4).

    `f` is the share of choices that went to an expert (so it sums to 1 for any k), `P` its mean probability.
    """
    num_experts = routing.logits.shape[1]
    share = F.one_hot(routing.chosen, num_experts).float().mean(dim=(0, 1))
    return num_experts * (share * torch.softmax(routing.logits, dim=1).mean(dim=0)).sum()


def router_z(routing: Routing) -> Float[Tensor, ""]:
    """Return the mean squared log-sum-exp of the logits: keeps them small (ST-MoE, arXiv 2202.08906, eq. 5)."""
    return torch.logsumexp(routing.logits, dim=1).square().mean()


def routing_loss(routings: Iterable[Routing], *, balance: float = 0.01, z: float = 0.001) -> Float[Tensor, ""] | float:
    """Return the weighted sum of both router losses over all mixtures; 0.0 where there is none."""
    return sum((balance * load_balance(r) + z * router_z(r) for r in routings), start=0.0)


SKILLS = 4
"""Skills that experts are named after, in turn: expert `i` has skill `i % 4`."""


def routing_supervision(routings: Iterable[Routing], labels: Int[Tensor, " b"]) -> Float[Tensor, ""] | float:
    """Return the cross-entropy of each router's skills with the known ones, summed over all mixtures.

    A skill's probability is the sum over its experts. An image whose skill no expert has (fewer than four experts) is
    left out; the mean is over the rows of the others.

    Args:
        routings: The decisions [n e] of each mixture, n a multiple of b: the rows of an image follow each other.
        labels: The skill that each image asks for, 0 .. 3.
    """
    return sum((_skill_cross_entropy(r.logits, labels) for r in routings), start=0.0)


def _skill_cross_entropy(logits: Float[Tensor, "n e"], labels: Int[Tensor, " b"]) -> Float[Tensor, ""]:
    rows, num_experts = logits.shape
    skills = min(SKILLS, num_experts)
    known = torch.log_softmax(logits, dim=1)
    of_skill = torch.stack([known[:, skill::SKILLS].logsumexp(dim=1) for skill in range(skills)], dim=1)
    wanted = labels.repeat_interleave(rows // labels.shape[0])
    counted = wanted < skills
    losses = F.nll_loss(of_skill, torch.where(counted, wanted, 0), reduction="none") * counted
    return losses.sum() / counted.sum().clamp(min=1)
