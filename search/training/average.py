"""The moving average of weights that is validated and shipped."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn


class WeightAverage:
    """An exponential moving average of all that a network's state holds, buffers included.

    The decay warms up, `min(limit, (1 + t) / (10 + t))` at update t: the first weights are soon forgotten. What is
    not floating-point (counters, bytes) is copied.

    Args:
        model: Its state is the average's first value.
        limit: Largest decay, below 1.
    """

    def __init__(self, model: nn.Module, limit: float) -> None:
        self.limit, self.updates = limit, 0
        self.weights = {name: value.detach().clone() for name, value in model.state_dict().items()}

    def update(self, model: nn.Module) -> None:
        """Take in the network as it stands."""
        decay = min(self.limit, (1 + self.updates) / (10 + self.updates))
        self.updates += 1
        with torch.no_grad():
            for name, value in model.state_dict().items():
                average = self.weights[name]
                if average.is_floating_point():
                    average.lerp_(value, 1 - decay)
                else:
                    average.copy_(value)

    def state(self) -> dict[str, Any]:
        """Return everything that going on needs."""
        return {"weights": self.weights, "updates": self.updates}

    def resume(self, state: Mapping[str, Any]) -> None:
        """Take up an average from what `state` returned."""
        weights: Mapping[str, Tensor] = state["weights"]
        for name, value in self.weights.items():
            value.copy_(weights[name])
        self.updates = state["updates"]
