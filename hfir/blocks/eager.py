"""Whether a faster way that only pays in plain PyTorch on a CPU may be taken."""

import torch
from torch import Tensor


def is_eager(x: Tensor) -> bool:
    """Say whether `x` is on a CPU and computed with as written: compilers and exports know operators, not our ways."""
    return (
        x.is_cpu
        and not torch.compiler.is_compiling()
        and not torch.compiler.is_exporting()
        and not torch.jit.is_tracing()  # pyright: ignore[reportPrivateImportUsage]
    )
