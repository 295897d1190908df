"""Judge the zero-cost scores on the table `ours`: whether they tell the order that training ends with.

    python benchmarks/zero_cost.py              # scores 240 networks x 2 seeds, half a minute, and prints the table
    python benchmarks/zero_cost.py --write      # the same, and keeps the scores in search/tabular/data/ours.parquet
    python benchmarks/zero_cost.py --stored     # prints the table from what is kept there, without the seconds
    python benchmarks/zero_cost.py --bounds     # what screening gains by a score that knows the truth, and by costs

Each network is scored as the search would: from the first weights that it was trained from, and on the first batch of
its training. `hfir-search bench-samplers ours --screening synflow:4` then answers what screening by a score gains.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping
from dataclasses import replace
from io import BytesIO
from typing import Any, cast

import numpy as np
import pandas as pd
from build_table import EXPERIMENT, VALIDATION_PX
from numpy.typing import NDArray

from search.evaluation.jobs import start_worker
from search.evaluation.zero_cost import SCORES, proxy_batch
from search.experiment import load_experiment
from search.files import replace_file
from search.pareto import Floats
from search.schedulers import Screening
from search.tabular import Table, bench, load_table
from search.tabular.fidelity import Agreement, agreement
from search.tabular.ours import FOLDER, NAME
from search.tabular.summary import mean_of
from search.tasks.dataset import embedded_task
from search.tasks.degradations import DEGRADATIONS
from search.types import stable_hash

SEEDS = 12
"""Searches behind each figure of `bounds`."""


def main() -> int:
    """Score, print, and on request keep the scores."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="keep the scores in the table that ships")
    parser.add_argument("--stored", action="store_true", help="take the scores from the table")
    parser.add_argument("--bounds", action="store_true", help="screen random proposals by the truth, and by costs")
    arguments = parser.parse_args()
    table = load_table(NAME)
    if arguments.bounds:
        print(bounds(table).to_string(index=False))
        return 0
    seconds: Mapping[str, float] = {}
    scores = table.scores
    if not arguments.stored:
        start_worker()
        scores, seconds = scored(table)
    if arguments.write:
        keep(table, scores)
    print(comparison(table, scores, seconds).to_string(index=False))
    return 0


def scored(table: Table) -> tuple[dict[str, Floats], dict[str, float]]:
    """Return each score of each network and seed, [n, s], and the mean seconds that one takes."""
    experiment = load_experiment(EXPERIMENT)
    data = embedded_task(
        cast(Any, DEGRADATIONS["super_resolution"])(upscale=2), channels=3, seed=0, max_validation_px=VALIDATION_PX
    )
    proxy = experiment.evaluation_plan().proxy
    seeds = table.quality.shape[1]
    batches = [proxy_batch(replace(proxy, data_seed=seed), data) for seed in range(seeds)]
    found = {name: np.empty((len(table.keys), seeds)) for name in SCORES}
    spent = dict.fromkeys(SCORES, 0.0)
    for genotype in experiment.space.enumerate():
        config, row = experiment.decode(genotype), table.row_of[genotype.key]
        for seed, batch in enumerate(batches):
            weights_seed = int(stable_hash([genotype.key, seed]), 16) % 2**31  # as in build_table.trained
            for name, score in SCORES.items():
                start = time.perf_counter()
                found[name][row, seed] = score(config, batch, weights_seed)
                spent[name] += time.perf_counter() - start
    return found, {name: total / (len(table.keys) * seeds) for name, total in spent.items()}


def keep(table: Table, scores: Mapping[str, Floats]) -> None:
    """Write the scores into the table's file, one column each, the same in all rows of a network and seed."""
    path = FOLDER / f"{NAME}.parquet"
    frame = pd.read_parquet(path)
    rows = np.array([table.row_of[key] for key in frame["key"]])
    for name, values in scores.items():
        frame[name] = values[rows, frame["seed"].to_numpy()]
    buffer = BytesIO()
    frame.to_parquet(buffer, index=False, compression="zstd")
    replace_file(path, lambda partial: partial.write_bytes(buffer.getvalue()))


def comparison(table: Table, scores: Mapping[str, Floats], seconds: Mapping[str, float]) -> pd.DataFrame:
    """Return tau with the true quality (mean over the seeds at the last rung), one row for each thing to order by.

    What depends on a seed is taken under the first one, as a search would see it. `beyond MACs` is Kendall's partial
    tau over all networks, MACs held constant: near 0 for what tells no more than they do. The seconds are means: of a
    score by the clock, and of training up to a rung as the table tells it.
    """
    levels = np.array([dict(g.values)["levels"] for g in _points(table)])
    best = table.true_quality >= np.quantile(table.true_quality, 2 / 3)
    among: dict[str, NDArray[np.bool_]] = {
        "all": np.ones(len(best), dtype=np.bool_),
        **{f"levels {n}": levels == n for n in np.unique(levels)},
        "best third": best,
    }
    orders: list[tuple[str, Floats, float]] = [(n, v[:, 0], seconds.get(n, np.nan)) for n, v in scores.items()]
    orders += [(name, table.costs[name], 0.0) for name in ("params_m", "macs_g")]
    trained = np.nanmean(table.elapsed_s[:, 0], axis=0)
    orders += [(f"psnr_db at step {s}", table.quality[:, 0, r], trained[r]) for r, s in enumerate(table.steps)]
    rows: list[dict[str, Any]] = []
    for name, values, took in orders:
        taus = {title: _words(agreement(values[mask], table.true_quality[mask])) for title, mask in among.items()}
        beyond = "" if name == "macs_g" else f"{_beyond(values, table.true_quality, table.costs['macs_g']):.2f}"
        rows.append({"order by": name, **taus, "beyond MACs": beyond, "s": f"{took:.3g}"})
    return pd.DataFrame(rows)


def bounds(table: Table) -> pd.DataFrame:
    """Return the share of the front's volume that random proposals reach, one of four trained, by what is no score.

    The truth is the most that a score could gain under this rule; costs are what it has to beat.
    """
    figures = {"truth": table.true_quality, "params_m": table.costs["params_m"], "macs_g": table.costs["macs_g"]}
    known = replace(table, scores={name: np.stack([v, v], axis=1) for name, v in figures.items()})
    rows: list[dict[str, Any]] = []
    for screening in (None, *(Screening(score=name, of=4) for name in figures)):
        row: dict[str, Any] = {"screened by": "nothing" if screening is None else screening.score}
        for count in (24, 48):
            shares = [
                bench(known, sampler="random", seed=s, evaluations=count, generation=12, screening=screening).shares[-1]
                for s in range(SEEDS)
            ]
            mean = mean_of(np.array(shares))
            row[f"{count} trained"] = f"{mean.mean:.3f} ({mean.low:.3f} … {mean.high:.3f})"
        rows.append(row)
    return pd.DataFrame(rows)


def _beyond(one: Floats, other: Floats, known: Floats) -> float:
    """Return Kendall's partial tau of two figures, a third held constant (Kendall, 1942)."""
    a, b, c = agreement(one, other).tau, agreement(one, known).tau, agreement(other, known).tau
    return (a - b * c) / np.sqrt((1 - b**2) * (1 - c**2))


def _points(table: Table) -> list[Any]:
    """Return the genotypes in the order of the table's rows."""
    return sorted(table.space.enumerate(), key=lambda g: table.row_of[g.key])


def _words(found: Agreement) -> str:
    return f"{found.tau:.2f} ({found.low:.2f} … {found.high:.2f})"


if __name__ == "__main__":
    raise SystemExit(main())
