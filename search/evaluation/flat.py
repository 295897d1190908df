"""A network's parameters, gradients and averages, each in one piece of memory: a step is a few operations on all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

ALIGNED = 16
"""Each parameter begins at a multiple of so many numbers, as vector instructions like it."""
MOMENTS = ("exp_avg", "exp_avg_sq")


class FlatTraining:
    """AdamW over a network whose parameters lie in one tensor, with clipped gradients and an average of the weights.

    A network of a few thousand parameters in a dozen tensors spends as long on clipping, stepping, averaging and
    forgetting gradients one by one as on a convolution. In one tensor each is one operation. The parameters stay
    what they are to everyone else: views of it, of the shape and memory layout that they had.

    Args:
        model: Its parameters are moved, on their device and in their memory layout; of any floating types.
        lr: Learning rate, > 0.
        betas: Of AdamW.
        clip: The gradients' norm over all parameters is at most this.
    """

    def __init__(self, model: nn.Module, *, lr: float, betas: tuple[float, float], clip: float) -> None:
        self._clip = clip
        self._pieces = [_Piece(list(those)) for _, those in groupby(_by_type(model), key=_type)]
        weights = [piece.weights for piece in self._pieces]
        self._averages = [piece.weights.detach().clone() for piece in self._pieces]
        self._adam = torch.optim.AdamW(weights, lr=lr, betas=betas, weight_decay=0.0, fused=True)
        order = {id(p): i for i, p in enumerate(model.parameters())}
        self._places = [[order[id(p)] for p in piece.parameters] for piece in self._pieces]

    @property
    def rate(self) -> float:
        """The learning rate."""
        return self._adam.param_groups[0]["lr"]

    @rate.setter
    def rate(self, rate: float) -> None:
        for group in self._adam.param_groups:
            group["lr"] = rate

    @property
    def average(self) -> list[Tensor]:
        """The averaged weights, in the order of the network's parameters; views."""
        return self._in_order(self._averages)

    def step(self, loss: Tensor, decay: float) -> None:
        """Go one step down a loss, and let the average follow: `decay` of it stays."""
        for piece in self._pieces:
            piece.forget()
        loss.backward()
        torch.nn.utils.clip_grad_norm_([piece.weights for piece in self._pieces], self._clip, foreach=True)
        self._adam.step()
        get_ema_multi_avg_fn(decay)(self._averages, [piece.weights.detach() for piece in self._pieces], None)

    def state(self) -> dict[str, Any]:
        """Return the average and AdamW's state, parameter by parameter, as `torch.optim.AdamW` writes it."""
        states = [self._adam.state.get(piece.weights, {}) for piece in self._pieces]
        moments = {name: self._in_order([state[name] for state in states]) for name in MOMENTS} if all(states) else {}
        count = len(self.average) if moments else 0
        each = {i: {"step": states[0]["step"].clone(), **{n: moments[n][i] for n in MOMENTS}} for i in range(count)}
        groups = [dict(self._adam.param_groups[0], params=list(range(len(self.average))))]
        return {"optimiser": {"state": each, "param_groups": groups}, "average": self.average}

    def resume(self, state: dict[str, Any]) -> None:
        """Take up what `state` returned, or an AdamW over the parameters one by one; the rate is left as it is."""
        each = state["optimiser"]["state"]
        if each:
            step = max(one["step"] for one in each.values())
            for piece in self._pieces:
                moments = {name: torch.zeros_like(piece.weights) for name in MOMENTS}
                self._adam.state[piece.weights] = {"step": step.clone(), **moments}
            for name in MOMENTS:
                moments = self._in_order([self._adam.state[piece.weights][name] for piece in self._pieces])
                _copy({i: one[name] for i, one in each.items()}, moments)
        _copy(dict(enumerate(state["average"])), self.average)

    def _in_order(self, wholes: Sequence[Tensor]) -> list[Tensor]:
        """Return views of tensors that lie as the pieces do, in the order of the network's parameters."""
        found: dict[int, Tensor] = {}
        for piece, places, whole in zip(self._pieces, self._places, wholes, strict=True):
            found |= dict(zip(places, piece.views(whole), strict=True))
        return [found[i] for i in range(len(found))]


class _Piece:
    """Parameters of one type and device, and their gradients, in one tensor each.

    Args:
        parameters: They become views of it.
    """

    def __init__(self, parameters: list[nn.Parameter]) -> None:
        self.parameters = parameters
        self._starts = [0]
        for parameter in parameters:
            self._starts.append(self._starts[-1] + -(-parameter.numel() // ALIGNED) * ALIGNED)
        self._strides = [torch.empty_like(p).stride() for p in parameters]  # as they are, if they are dense
        first = parameters[0]
        self.weights = nn.Parameter(torch.zeros(self._starts[-1], dtype=first.dtype, device=first.device))
        self.weights.grad = torch.zeros_like(self.weights)
        views, gradients = self.views(self.weights.detach()), self.views(self.weights.grad)
        for parameter, view, gradient in zip(parameters, views, gradients, strict=True):
            view.copy_(parameter.detach())
            parameter.data = view
            if parameter.requires_grad:
                parameter.grad = gradient

    def views(self, whole: Tensor) -> list[Tensor]:
        """Return each parameter's part of a tensor as long as the weights, in the parameter's layout."""
        places = zip(self.parameters, self._strides, self._starts[:-1], strict=True)
        return [whole.as_strided(p.shape, stride, start) for p, stride, start in places]

    def forget(self) -> None:
        """Set all gradients to zero."""
        if self.weights.grad is not None:
            self.weights.grad.zero_()


def _copy(sources: Mapping[int, Tensor], targets: Sequence[Tensor]) -> None:
    with torch.no_grad():
        for i, source in sources.items():
            targets[i].copy_(source)


def _by_type(model: nn.Module) -> list[nn.Parameter]:
    """Return the parameters, those of one type and device together, else in their order."""
    return sorted(model.parameters(), key=_type)


def _type(parameter: nn.Parameter) -> tuple[str, str]:
    return str(parameter.dtype), str(parameter.device)
