"""The proxy's training beside a plain PyTorch loop, and how near it comes to the machine's peak.

python benchmarks/proxy_speed.py [results/reference/efficient/presets/*] [--steps 200] [--turns 3]
python benchmarks/proxy_speed.py --steps 40 --turns 15    # on a restless host: the turns of a pair lie seconds apart

For each network, in turns on one thread: `--steps` steps of the proxy (patches, optimiser, averaged weights), and as
many of the plain loop of `baseline_optuna.py` (DataLoader, channels first, AdamW, cosine rate). Patches a second, the
median of the turns' ratios, PSNR-Y after the last turn of each, and the share of the machine's peak: 3 x 2 x MACs of
the forward pass in training form over the time, held against a 1024 x 1024 matrix product on the same thread.
"""

import argparse
import statistics
import time
from dataclasses import replace
from pathlib import Path

import torch
from baseline_optuna import psnr_y, train_plainly
from ruamel.yaml import YAML

from hfir import HFIRConfig, build_model, fuse
from search.evaluation.evaluator import task_data
from search.evaluation.jobs import start_worker
from search.evaluation.proxy import ProxyTraining
from search.experiment import Experiment, load_experiment


def peak_gflops() -> float:
    """Return the best of some large matrix products, in 1e9 floating-point operations a second."""
    side = 1024
    a, b = torch.rand(side, side), torch.rand(side, side)
    times = []
    for _ in range(12):
        start = time.perf_counter()
        torch.mm(a, b)
        times.append(time.perf_counter() - start)
    return 2 * side**3 / min(times) / 1e9


def train_macs_g(config: HFIRConfig, experiment: Experiment) -> float:
    """Return the multiply-accumulates of one forward pass of a batch, training form, in units of 1e9."""
    from torch.utils.flop_counter import FlopCounterMode

    side, batch = experiment.proxy.patch_px, experiment.proxy.batch
    model = build_model(config)
    with FlopCounterMode(display=False) as counter:
        model(torch.rand(batch, config.in_channels, side, side))
    return counter.get_total_flops() / 2e9


def compare(folder: Path, experiment: Experiment, turns: int) -> None:
    """Print one network's row."""
    deployed = HFIRConfig.from_dict(YAML(typ="safe").load(folder / "preset.yaml")["config"])
    config = replace(deployed, fused=False)  # candidates train unfolded
    plan = experiment.evaluation_plan()
    data, steps = task_data(plan.task), plan.proxy.rungs[-1]
    ours: list[float] = []
    plain: list[float] = []
    ours_db, plain_db = 0.0, 0.0
    for seed in range(turns):
        training = ProxyTraining(config, plan.proxy, data, seed)
        start = time.perf_counter()
        training.run_to(steps)
        ours.append(time.perf_counter() - start)
        ours_db = psnr_y(training.deployed(), data)
        torch.manual_seed(seed)
        model = build_model(config)
        start = time.perf_counter()
        train_plainly(model, data, experiment)
        plain.append(time.perf_counter() - start)
        plain_db = psnr_y(fuse(model).eval(), data)
    patches = steps * plan.proxy.batch
    fast, slow = statistics.median(ours), statistics.median(plain)
    ratio = statistics.median(b / a for a, b in zip(ours, plain, strict=True))
    gflops = 6 * train_macs_g(config, experiment) * steps / fast
    print(
        f"{folder.name:12s} {patches / fast:8.0f} {patches / slow:8.0f} {ratio:6.2f} "
        f"{ours_db:7.2f} {plain_db:7.2f} {gflops:7.1f} {gflops / peak_gflops():6.1%}",
        flush=True,
    )


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("presets", nargs="*", type=Path)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--turns", type=int, default=3)
    args = parser.parse_args()
    start_worker()
    experiment = load_experiment("efficient", [f"proxy.rungs=[{args.steps}]"])
    presets = args.presets or sorted(Path("results/reference/efficient/presets").iterdir())
    print(
        f"{'network':12s} {'ours/s':>8s} {'plain/s':>8s} {'ratio':>6s} {'dB':>7s} {'plain':>7s} "
        f"{'GFLOP/s':>7s} {'peak':>6s}"
    )
    for folder in presets:
        compare(folder, experiment, args.turns)


if __name__ == "__main__":
    main()
