"""What the network's parts cost beside the least they could cost. Ratios of medians within one run, one thread.

python benchmarks/blocks.py [--runs 15]

Each pair is timed in turns, so that a busy machine slows both. Channels last, fp32, eval, no gradients.
"""

import argparse
import statistics
import time
from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hfir.blocks.attention import WAGFFN, WindowAttention
from hfir.blocks.conv import Depthwise, pointwise
from hfir.blocks.large_kernel import RepLargeKernel
from hfir.blocks.moe import ExpertBank, Flow, MoEX
from hfir.config import MoEConfig

Run = Callable[[], object]


def medians_ms(runs: Mapping[str, Run], count: int) -> dict[str, float]:
    """Return the median time of each, taken in turns after one warm-up."""
    taken: dict[str, list[float]] = {name: [] for name in runs}
    for turn in range(count + 2):
        for name, run in runs.items():
            run()  # each finds its own data in the caches, not those of its neighbour
            start = time.perf_counter()
            run()
            if turn >= 2:
                taken[name].append(1000 * (time.perf_counter() - start))
    return {name: statistics.median(times) for name, times in taken.items()}


def image(*shape: int) -> Tensor:
    """Return fixed random features, channels last."""
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    return x.contiguous(memory_format=torch.channels_last)


def experts(batch: int, side: int, channels: int = 64) -> dict[str, Run]:
    """Return top-1 of 4 experts, and one dense expert with the same norm and residual, on spread images."""
    moe = MoEX(channels, MoEConfig(num_experts=4, top_k=1), expansion=2.0, cue_channels=0, scale=0.1).eval()
    nn.init.normal_(moe.router.weight, std=4.0)
    nn.init.normal_(moe.norm.bias)
    x = image(batch, channels, side, side) * torch.linspace(-3, 3, batch * channels).view(batch, channels, 1, 1)
    dense = DenseExpert(moe.experts)

    def one() -> Tensor:
        return x + moe.scale * dense(moe.norm(x))

    return {"top-1 of 4": lambda: moe(x, Flow()), "one dense": one}


class DenseExpert(nn.Module):
    """The first expert of a bank as three plain convolutions, as one would write a feed-forward part."""

    def __init__(self, bank: ExpertBank) -> None:
        super().__init__()
        self.hidden = bank.look.shape[1]
        self.expand, self.expand_bias = bank.expand[0, :, :, None, None], bank.expand_bias[0]
        self.look, self.look_bias = bank.look[0].view(self.hidden, 1, 3, 3), bank.look_bias[0]
        self.project, self.project_bias = bank.project[0, :, :, None, None], bank.project_bias[0]

    def forward(self, x: Tensor) -> Tensor:
        """Return the expert's output."""
        y = pointwise(x, self.expand, self.expand_bias)
        a, b = F.conv2d(y, self.look, self.look_bias, padding=1, groups=self.hidden).chunk(2, dim=1)
        return pointwise(F.gelu(a) * b, self.project, self.project_bias)


def large_kernel(kernel_size: int, side: int, channels: int = 64) -> dict[str, Run]:
    """Return the fused kernel, the training form, its branches run one by one, and a plain convolution."""
    x, rep = image(1, channels, side, side), RepLargeKernel(channels, kernel_size).eval()
    fused, plain = Depthwise(channels, kernel_size), Depthwise(channels, kernel_size)
    fused.load_state_dict(rep.folded())

    def by_branches() -> Tensor:
        y = F.conv2d(x, rep.full, rep.bias, padding=kernel_size // 2, groups=channels)
        for weight in rep.inner.values():
            y = y + F.conv2d(x, weight, padding=weight.shape[-1] // 2, groups=channels)
        for r, weight in rep.dilated.items():
            y = y + F.conv2d(x, weight, padding=int(r), dilation=int(r), groups=channels)
        return y + F.conv2d(x, rep.point, groups=channels) + rep.identity.view(1, -1, 1, 1) * x

    torch.testing.assert_close(by_branches(), fused(x), rtol=1e-4, atol=1e-4)
    return {
        "fused": lambda: fused(x),
        "plain": lambda: plain(x),
        "training form (merged kernel)": lambda: rep(x),
        "training form, branch by branch": by_branches,
    }


def attention(side: int, window: int, heads: int = 4, channels: int = 64) -> dict[str, Run]:
    """Return the whole block, and the least that window attention is: qkv, SDPA and projection on cut windows."""
    blocks = {
        shifted: WAGFFN(
            channels, WindowAttention(channels, window, heads, shifted=shifted), expansion=2.0, scale=0.1
        ).eval()
        for shifted in (False, True)
    }
    x = image(1, channels, side, side)
    qkv, project = nn.Linear(channels, 3 * channels), nn.Linear(channels, channels)
    windows = (side // window) ** 2

    def bare() -> Tensor:
        flat = x.permute(0, 2, 3, 1).reshape(windows, window * window, channels)
        q, k, v = qkv(flat).view(windows, -1, 3, heads, channels // heads).permute(2, 0, 3, 1, 4)
        return project(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))

    return {
        "bare": bare,
        "WAGFFN": lambda: blocks[False](x),
        "WAGFFN, shifted": lambda: blocks[True](x),
    }


def main() -> None:
    """Print one line a pair."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=15)
    count = parser.parse_args().runs
    torch.set_num_threads(1)
    torch.manual_seed(0)
    print(f"torch {torch.__version__}, 1 thread, fp32, channels last, eval; medians of {count} runs, in turns")
    pairs: list[tuple[str, Mapping[str, Run], str, str, float]] = []
    for batch in (1, 8):
        pairs.append((f"experts, batch {batch}, 64 ch, 96 px", experts(batch, 96), "top-1 of 4", "one dense", 1.25))
    for k in (5, 7, 9, 13):
        runs = large_kernel(k, 96)
        pairs.append((f"kernel {k}, 64 ch, 96 px", runs, "fused", "training form, branch by branch", 0.6))
        pairs.append((f"kernel {k}, 64 ch, 96 px", runs, "fused", "training form (merged kernel)", 0.6))
        pairs.append((f"kernel {k}, 64 ch, 96 px", runs, "fused", "plain", 1.05))
    for window in (8, 12):
        for name in ("WAGFFN", "WAGFFN, shifted"):
            pairs.append((f"window {window}, 64 ch, 96 px, 4 heads", attention(96, window), name, "bare", 1.5))
    timed: dict[int, dict[str, float]] = {}
    with torch.inference_mode():
        for title, runs, one, other, limit in pairs:
            if id(runs) not in timed:
                timed[id(runs)] = medians_ms(runs, count)
            times = timed[id(runs)]
            ratio = times[one] / times[other]
            verdict = f"<= {limit}: {'kept' if ratio <= limit else 'MISSED'}"
            print(f"{title}: {one} {times[one]:.2f} ms / {other} {times[other]:.2f} ms = {ratio:.2f} ({verdict})")


if __name__ == "__main__":
    main()
