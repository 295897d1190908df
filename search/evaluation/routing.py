"""What the experts do: how the load is shared, and which degradation goes to which expert.

Measured on the routers' decisions over the validation photographs, in eval mode. A photograph counts once, whatever
its size: where a router decides window by window, a photograph's choices are averaged first.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from hfir.blocks.moe import Routing
from hfir.config import EXPERT_NAMES, HFIRConfig
from search.types import ExpertUse


def asks_for_degradation(config: HFIRConfig) -> bool:
    """Say whether a network's routers can be told the degradation of an image."""
    return config.experts is not None and config.experts.condition_channels == len(EXPERT_NAMES)


def condition_from(config: HFIRConfig, labels: Int[Tensor, " b"] | None) -> Float[Tensor, "b 4"] | None:
    """Return what the routers of a network are told of known degradations; None where it asks for nothing.

    Args:
        config: The network's.
        labels: The degradation of each image, an index into `EXPERT_NAMES`; None where it is not known.
    """
    if labels is None or not asks_for_degradation(config):
        return None
    return F.one_hot(labels, len(EXPERT_NAMES)).float()


def expert_use(
    routings: Sequence[Sequence[Routing]], labels: Sequence[int | None], names: Sequence[str]
) -> tuple[ExpertUse, ...]:
    """Return what the experts of each mixture did, in the order of the data; nothing where there is no mixture.

    Args:
        routings: For each photograph (batch 1) the decision of each mixture.
        labels: The degradation of each photograph, an index into `names`; None where it has none.
        names: Of the degradations; empty in a task without labels.
    """
    return tuple(_use(made[0].place, made, labels, names) for made in zip(*routings, strict=True))


def _use(stage: str, made: Sequence[Routing], labels: Sequence[int | None], names: Sequence[str]) -> ExpertUse:
    shares = torch.stack([_shares(routing) for routing in made])
    load = shares.mean(dim=0)
    members = [[i for i, label in enumerate(labels) if label == kind] for kind in range(len(names))]
    by_degradation = [shares[rows].mean(dim=0) for rows in members]
    information = _information_bits(by_degradation, [len(rows) for rows in members]) if by_degradation else None
    return ExpertUse(
        stage=stage,
        load=tuple(load.tolist()),
        load_entropy=_entropy(load) / math.log(len(load)),
        confidence=float(torch.stack([_confidence(routing) for routing in made]).mean()),
        degradations=tuple(names),
        load_by_degradation=tuple(tuple(row.tolist()) for row in by_degradation),
        information_bits=information,
    )


def _shares(routing: Routing) -> Tensor:
    """Return the share of one photograph's choices that went to each expert: [e], summing to 1."""
    return F.one_hot(routing.chosen, routing.logits.shape[1]).double().mean(dim=(0, 1))


def _confidence(routing: Routing) -> Tensor:
    """Return the mean probability of the likeliest expert."""
    return torch.softmax(routing.logits.double(), dim=1).amax(dim=1).mean()


def _entropy(shares: Tensor) -> float:
    """Return the entropy in nats; an expert without a share adds nothing."""
    return float(torch.special.entr(shares).sum())


def _information_bits(rows: Sequence[Tensor], weights: Sequence[int]) -> float:
    """Return I(degradation; expert) = H(expert) - H(expert | degradation) in bits; at least 0, rounding aside."""
    total = sum(weights)
    mean = sum((row * (n / total) for row, n in zip(rows, weights, strict=True)), start=torch.zeros_like(rows[0]))
    within = sum(_entropy(row) * n / total for row, n in zip(rows, weights, strict=True))
    return max((_entropy(mean) - within) / math.log(2), 0.0)
