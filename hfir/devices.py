"""Keep work on the CPU from initialising CUDA."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor


@contextmanager
def cuda_untouched() -> Iterator[None]:
    """Keep torch from initialising CUDA to save its random state; does nothing where CUDA is initialised already.

    The exporter of torch 2.13 saves that state wherever a device is visible, and fails where the device cannot be used
    (exclusive mode, for one). A device that is not initialised has drawn nothing, so there is nothing to save.
    """
    if torch.cuda.is_initialized():
        yield
        return
    saved = torch.cuda.get_rng_state, torch.cuda.set_rng_state
    torch.cuda.get_rng_state, torch.cuda.set_rng_state = _no_state, _set_nothing
    try:
        yield
    finally:
        torch.cuda.get_rng_state, torch.cuda.set_rng_state = saved


def _no_state(device: object = "cuda") -> Tensor:
    return torch.empty(0, dtype=torch.uint8)


def _set_nothing(new_state: Tensor, device: object = "cuda") -> None:
    pass
