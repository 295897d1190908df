"""From the training form to the deploy form."""

import dataclasses

import torch
from torch import Tensor

from hfir.blocks.folding import Foldable
from hfir.model import HydraFusionIR


def fuse(model: HydraFusionIR) -> HydraFusionIR:
    """Return a new network in deploy form: re-parameterised kernels folded into one each.

    The input is left as it is. Folding is exact up to rounding (fp64, then the model's dtype); fusing a fused
    network copies it. The deploy form has state-dict keys of its own and `config.fused` is True.
    """
    config = dataclasses.replace(model.config, fused=True)
    reference = next(model.parameters())
    with torch.random.fork_rng(devices=[]):  # building draws weights, which are overwritten
        deployed = HydraFusionIR(config).to(device=reference.device, dtype=reference.dtype)
    deployed.load_state_dict(_folded_state(model))
    return deployed.train(model.training)


def _folded_state(model: HydraFusionIR) -> dict[str, Tensor]:
    """Return the state dict with each re-parameterised convolution replaced by its folded one."""
    state = {name: value.detach().clone() for name, value in model.state_dict().items()}
    for path, module in model.named_modules():
        if isinstance(module, Foldable):
            for name in [n for n in state if n.startswith(f"{path}.")]:
                del state[name]
            state |= {f"{path}.{name}": value for name, value in module.folded().items()}
    return state
