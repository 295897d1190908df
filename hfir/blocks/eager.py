"""Whether a faster way that only pays in plain PyTorch on a CPU may be taken."""

import torch
from torch import Tensor


def is_eager(x: Tensor) -> bool:
    """Say whether `x` is on a CPU and computed with as written.

    Compilers and exports know operators, not our ways; and whoever counts operations is to see those of the network.
    """
    return (
        x.is_cpu
        and not torch.compiler.is_compiling()
        and not torch.compiler.is_exporting()
        and not torch.jit.is_tracing()  # pyright: ignore[reportPrivateImportUsage]
        and not torch._C._len_torch_dispatch_stack()  # pyright: ignore[reportPrivateUsage, reportAttributeAccessIssue]
    )
