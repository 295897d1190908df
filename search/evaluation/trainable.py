"""What the proxy has to know of a network, beside its parameters: how it is built, run and deployed.

`Searched` is a network of the search, `Plain` any other module. The proxy treats both alike: the same patches, steps,
optimiser, averaged weights and validation.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import NamedTuple, Protocol, TypeVar

import torch
from torch import Tensor, nn

from hfir.blocks.moe import Routing
from hfir.config import HFIRConfig
from hfir.fusion import fuse
from hfir.model import HydraFusionIR, build_model
from search.evaluation.routing import condition_from

M = TypeVar("M", bound=nn.Module)


class Restored(NamedTuple):
    """What a network made of a batch."""

    images: Tensor
    routings: list[Routing]
    """The decision of each of its mixtures; none for a network without any."""


class Trainable(Protocol[M]):
    """A network that the proxy can train."""

    def build(self) -> M:
        """Return the training form; weights come from torch's global generator."""
        ...

    def deployed(self, model: M, parameters: list[Tensor]) -> M:
        """Return the deploy form of a network like `model` with other parameters, in the order of its own."""
        ...


class Searched:
    """A network of the search.

    Args:
        config: In training form.
    """

    def __init__(self, config: HFIRConfig) -> None:
        self.config = config

    def build(self) -> HydraFusionIR:
        """Return the training form."""
        return build_model(self.config)

    def deployed(self, model: HydraFusionIR, parameters: list[Tensor]) -> HydraFusionIR:
        """Return the network fused, its parameters replaced."""
        return fuse(build_copy(model, parameters))


class Plain:
    """Any module.

    Args:
        make: Returns the training form; its weights come from torch's global generator.
        deploy: Returns the deploy form of a module, and may change what it is given.
    """

    def __init__(self, make: Callable[[], nn.Module], deploy: Callable[[nn.Module], nn.Module]) -> None:
        self._make, self._deploy = make, deploy

    def build(self) -> nn.Module:
        """Return the training form."""
        return self._make()

    def deployed(self, model: nn.Module, parameters: list[Tensor]) -> nn.Module:
        """Return the deploy form; buffers, such as the statistics of batch norm, are those of the last step."""
        averaged = copy.deepcopy(model)
        _replace(averaged, parameters)
        return self._deploy(averaged)


def restored_by(model: nn.Module, degraded: Tensor, labels: Tensor | None) -> Restored:
    """Run a network: a searched one keeps what its routers decide, and is told the degradation where it asks for it.

    Args:
        model: Of the search, or any other.
        degraded: [b, c, h, w].
        labels: The degradation of each image, an index into `hfir.config.EXPERT_NAMES`; None where it is not known.
    """
    if isinstance(model, HydraFusionIR):
        return Restored(*model.forward_with_routing(degraded, condition_from(model.config, labels)))
    return Restored(model(degraded), [])


def build_copy(model: HydraFusionIR, parameters: list[Tensor]) -> HydraFusionIR:
    """Return a network like `model` with other parameters (in the order of `model.parameters()`)."""
    with torch.random.fork_rng(devices=[]):
        copied = build_model(model.config)
    copied.load_state_dict(model.state_dict())
    _replace(copied, parameters)
    return copied


def _replace(model: nn.Module, parameters: list[Tensor]) -> None:
    with torch.no_grad():
        for target, source in zip(model.parameters(), parameters, strict=True):
            target.copy_(source)
