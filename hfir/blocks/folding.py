"""What trains as several branches and deploys as one convolution."""

import copy
from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn


class Foldable(nn.Module, ABC):
    """A sum of linear branches: in the deploy form, one convolution with the weight and bias that they add up to."""

    @abstractmethod
    def merged_kernel(self) -> Tensor:
        """Return the one kernel that all branches add up to."""

    @abstractmethod
    def merged_bias(self) -> Tensor:
        """Return the one bias."""

    @torch.no_grad()
    def folded(self) -> dict[str, Tensor]:
        """Return weight and bias of the equivalent plain convolution, folded in fp64."""
        like = next(self.parameters())
        exact = copy.deepcopy(self).double()
        return {"weight": exact.merged_kernel().to(like.dtype), "bias": exact.merged_bias().to(like.dtype)}
