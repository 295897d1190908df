"""How a machine's cores train most: many workers of one thread, or fewer of several.

python benchmarks/threads.py [results/reference/efficient/presets/*] [--cores 2] [--turns 3] [--seconds 5]

For each network and each number of threads that divides the cores: so many processes as fill them train the network
and do nothing else, in turns. Steps a second of all together, the median, as a share of those with one thread each;
then one process with so many threads beside one with one, which is what matters where fewer candidates train than
there are cores. OpenMP's waiting threads sleep, as in workers (`OMP_WAIT_POLICY`); `--wait ACTIVE` lets them spin.
"""

from __future__ import annotations

import argparse
import os
import statistics
from dataclasses import replace
from pathlib import Path

from ruamel.yaml import YAML
from throughput import steps_per_s

from hfir import HFIRConfig
from search.evaluation.host import host_name
from search.executors import WORKER_ENVIRONMENT
from search.experiment import load_experiment


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("presets", nargs="*", type=Path)
    parser.add_argument("--cores", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--wait", default="PASSIVE", choices=("PASSIVE", "ACTIVE"))
    args = parser.parse_args()
    os.environ.update(WORKER_ENVIRONMENT | {"OMP_WAIT_POLICY": args.wait})
    if args.wait == "ACTIVE":
        os.environ.pop("KMP_BLOCKTIME", None)
    experiment = load_experiment("efficient")
    several = [threads for threads in range(2, args.cores + 1) if args.cores % threads == 0]
    ways = [(args.cores, 1), (1, 1), *((args.cores // t, t) for t in several), *((1, t) for t in several)]
    print(f"{host_name()}, {args.cores} cores, OMP_WAIT_POLICY={args.wait}")
    for folder in args.presets or sorted(Path("results/reference/efficient/presets").iterdir()):
        deployed = HFIRConfig.from_dict(YAML(typ="safe").load(folder / "preset.yaml")["config"])
        config = replace(deployed, fused=False)  # candidates train unfolded
        turns = [
            {(n, t): steps_per_s(experiment, n, args.seconds, config=config, threads=t) for n, t in ways}
            for _ in range(args.turns)
        ]
        print(f"{folder.name}: {statistics.median(t[ways[0]] for t in turns):.1f} steps/s by {args.cores} × 1 thread")
        for t in several:
            filled = statistics.median(turn[args.cores // t, t] / turn[ways[0]] for turn in turns)
            alone = statistics.median(turn[1, t] / turn[1, 1] for turn in turns)
            print(
                f"  {args.cores // t} × {t} threads: {filled:.2f} of that; one alone: {alone:.2f} of 1 thread",
                flush=True,
            )


if __name__ == "__main__":
    main()
