"""Whether compiling a network for its training pays: seconds to compile, seconds a step, steps to break even.

    python benchmarks/compiled_training.py [results/reference/efficient/presets/*] [--patch-px 48] [--blocks 8]

For each network, in training form, on one thread: the proxy's steps (patches, optimiser, averaged weights; batch 8 of
the embedded photographs) as they are and with the network compiled, in turns of 10 steps after the first 50. Seconds
to compile are those of the first compiled step less those of a plain one: once with an empty cache of Inductor and
once, in another process, with what that left. All seconds are the processor's, the C++ compiler's included: other
processes lengthen them less, and on an idle machine they are those of the clock. Steps to break even are the seconds
to compile over what a step saves. The losses of the first 50 steps are compared with those of the plain training, and
so are those of a third one, plain from weights changed in their last bits: what rounding alone does.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import torch

from hfir import load_preset
from search.evaluation.evaluator import task_data
from search.evaluation.jobs import start_worker
from search.evaluation.proxy import ProxyTraining
from search.experiment import load_experiment
from search.training.compiling import compile_network

COMPARED = 50
"""Steps whose losses are compared."""
TURN = 10
"""Steps of one training before it is the other's turn."""


class Figures(NamedTuple):
    """What one process finds of a network; the last four are 0 where only compiling is timed."""

    compile_s: float
    plain_s: float = 0.0
    compiled_s: float = 0.0
    strayed: float = 0.0
    by_rounding: float = 0.0


def processor_s() -> float:
    """Return the processor's seconds of this process and of the compilers that it ran."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in used)


def seconds_a_step(training: ProxyTraining, steps: int) -> float:
    """Take some steps and return the seconds of each."""
    start = processor_s()
    training.run_to(training.step + steps)
    return (processor_s() - start) / steps


def first_losses(training: ProxyTraining) -> torch.Tensor:
    """Train up to the last step that is compared, and return the losses from the second step on."""
    seen: list[torch.Tensor] = []
    training.run_to(COMPARED, lambda step, loss, rate: seen.append(loss))
    return torch.stack(seen)


def measure(preset: Path, patch_px: int, blocks: int) -> Figures:
    """Measure a network in this process; without blocks, how long it takes to compile alone."""
    start_worker()
    plan = load_experiment("efficient", [f"proxy.patch_px={patch_px}", "proxy.batch=8"]).evaluation_plan()
    data = task_data(plan.task)
    config = replace(load_preset(preset).config, fused=False)
    plain, compiled, nudged = (ProxyTraining(config, plan.proxy, data, 0) for _ in range(3))
    compile_network(compiled.model)
    with torch.no_grad():
        for parameter in nudged.model.parameters():
            parameter.mul_(1 + torch.finfo(parameter.dtype).eps)
    first = [seconds_a_step(training, 1) for training in (nudged, plain, compiled)]
    if not blocks:
        return Figures(first[2] - first[1])
    expected, compiled_losses, nudged_losses = (first_losses(each) for each in (plain, compiled, nudged))
    turns = [[seconds_a_step(each, TURN) for each in (plain, compiled)] for _ in range(blocks)]
    plain_s, compiled_s = (statistics.median(times) for times in zip(*turns, strict=True))
    return Figures(
        first[2] - first[1],
        plain_s,
        compiled_s,
        (compiled_losses - expected).abs().max().item(),
        (nudged_losses - expected).abs().max().item(),
    )


def in_process(preset: Path, patch_px: int, blocks: int, cache: Path) -> Figures:
    """Measure a network in a process of its own, its compilers being children that wait."""
    told = {"TORCHINDUCTOR_CACHE_DIR": str(cache), "TORCHINDUCTOR_COMPILE_THREADS": "1", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, __file__, str(preset), "--patch-px", str(patch_px), "--blocks", str(blocks), "--alone"]
    done = subprocess.run(command, env=os.environ | told, check=True, stdout=subprocess.PIPE, text=True)
    return Figures(*json.loads(done.stdout))


def compare(preset: Path, patch_px: int, blocks: int) -> None:
    """Print one network's row."""
    with tempfile.TemporaryDirectory() as cache:
        cold = in_process(preset, patch_px, blocks, Path(cache))
        warm = in_process(preset, patch_px, 0, Path(cache))
    saved = cold.plain_s - cold.compiled_s
    even = [f"{each.compile_s / saved:7.0f}" if saved > 0 else "  never" for each in (cold, warm)]
    print(
        f"{preset.name:12s} {cold.compile_s:7.1f} {warm.compile_s:7.1f} {1000 * cold.plain_s:8.1f} "
        f"{1000 * cold.compiled_s:8.1f} {cold.plain_s / cold.compiled_s:6.2f} {even[0]} {even[1]} "
        f"{cold.strayed:9.1e} {cold.by_rounding:9.1e}",
        flush=True,
    )


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("presets", nargs="*", type=Path)
    parser.add_argument("--patch-px", type=int, default=48)
    parser.add_argument("--blocks", type=int, default=8)
    parser.add_argument("--alone", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    presets = args.presets or sorted(Path("results/reference/efficient/presets").iterdir())
    if args.alone:
        print(json.dumps(measure(presets[0], args.patch_px, args.blocks)))
        return
    print(f"torch {torch.__version__}, 1 thread, fp32, batch 8, patches of {args.patch_px} px, channels last")
    print(
        f"{'network':12s} {'cold s':>7s} {'warm s':>7s} {'plain ms':>8s} {'comp. ms':>8s} {'ratio':>6s} "
        f"{'even':>7s} {'(warm)':>7s} {'loss off':>9s} {'rounding':>9s}"
    )
    for preset in presets:
        compare(preset, args.patch_px, args.blocks)


if __name__ == "__main__":
    main()
