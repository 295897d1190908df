"""The table `ours`: small networks of this package, trained one by one; data/ours.md says how it was made."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from search.counts import count
from search.evaluation.plan import SCORE_NAMES
from search.experiment import load_experiment
from search.tabular.table import Table
from search.types import InputError

FOLDER = Path(__file__).parent / "data"
NAME = "ours"


def load_ours(path: Path | None = None) -> Table:
    """Read the table from the package, or from a file that `benchmarks/build_table.py` packed.

    Fronts are drawn over latency where it was measured, else over MACs. The worst network of the table bounds the
    volume, so the whole front counts.

    Raises:
        InputError: If there is no such file, or it lacks networks of its space.
    """
    source = path or FOLDER / f"{NAME}.parquet"
    if not source.is_file():
        raise InputError(f"{source}: no table here.\n  `python benchmarks/build_table.py` makes one.")
    frame = pd.read_parquet(source)
    networks = frame.drop_duplicates("key").set_index("key")
    keys = list(networks.index)
    seeds, steps = sorted(frame["seed"].unique()), sorted(frame["step"].unique())
    shape = (len(keys), len(seeds), len(steps))
    indexed = frame.set_index(["key", "seed", "step"]).sort_index()
    full = indexed.reindex(pd.MultiIndex.from_product([keys, seeds, steps]))
    scores = {name: full[name].to_numpy(dtype=float).reshape(shape)[..., 0] for name in SCORE_NAMES if name in full}
    costs = {name: networks[name].to_numpy(dtype=float) for name in ("params_m", "macs_g")}
    measured = networks["latency_ms"].to_numpy(dtype=float)
    if np.isfinite(measured).all():
        costs["latency_ms"] = measured
    return Table(
        name=NAME,
        space=load_experiment(FOLDER / f"{NAME}.yaml").space,
        keys=tuple(keys),
        steps=tuple(int(step) for step in steps),
        quality=full["psnr_db"].to_numpy(dtype=float).reshape(shape),
        elapsed_s=full["elapsed_s"].to_numpy(dtype=float).reshape(shape),
        costs=costs,
        cost="latency_ms" if "latency_ms" in costs else "macs_g",
        quality_label="PSNR (dB)",
        conditions=f"{count(len(keys), 'network')} x {count(len(seeds), 'seed')}, trained to step {steps[-1]}; "
        f"see {NAME}.md beside it",
        scores=scores,
    )
