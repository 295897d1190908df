"""From the record of `benchmarks/build_table.py` to the table that ships: Parquet, and how it was made."""

from __future__ import annotations

import json
from io import BytesIO
from pathlib import Path
from typing import Any

import pandas as pd

from search.counts import count
from search.experiment import Experiment
from search.files import replace_file
from search.types import InputError

MOST_BYTES = 5_000_000


def pack(record: Path, out: Path, experiment: Experiment) -> list[Path]:
    """Write `ours.parquet` and `ours.md` from a record's lines; return their paths.

    One row a network, seed and rung. A seed for which networks are missing is left out whole, so that every point of
    the table has the same seeds.

    Raises:
        InputError: If the record does not hold every network under one seed at least, or the table grows too large.
    """
    conditions: dict[str, Any] = json.loads((record / "conditions.json").read_text(encoding="utf-8"))
    trainings = _lines(record / "trainings.jsonl")
    latencies = {line["key"]: line["latency"] for line in _lines(record / "latencies.jsonl")}
    whole = [s for s in sorted({t["seed"] for t in trainings}) if _count(trainings, s) == experiment.space.size]
    if not whole:
        raise InputError(
            f"{record}: holds {_count(trainings, 0):,} of {count(experiment.space.size, 'network')} under seed 0.\n"
            "  Run `python benchmarks/build_table.py` on this folder to the end first."
        )
    measured = latencies if len(latencies) == experiment.space.size else {}
    rows = [row for training in trainings if training["seed"] in whole for row in _rows(training, measured)]
    frame = pd.DataFrame(rows).sort_values(["key", "seed", "step"], ignore_index=True)
    buffer = BytesIO()
    frame.to_parquet(buffer, index=False, compression="zstd")
    if len(buffer.getvalue()) > MOST_BYTES:
        raise InputError(f"{out}: the table has {len(buffer.getvalue())} bytes, over {MOST_BYTES}.\n  Train fewer.")
    out.mkdir(parents=True, exist_ok=True)
    text = describe(conditions, trainings, whole, measured)
    return [
        replace_file(out / "ours.parquet", lambda partial: partial.write_bytes(buffer.getvalue())),
        replace_file(out / "ours.md", lambda partial: partial.write_text(text, encoding="utf-8")),
    ]


def describe(
    conditions: dict[str, Any], trainings: list[dict[str, Any]], seeds: list[int], latencies: dict[str, dict[str, Any]]
) -> str:
    """Return, in Markdown, how a table was made, from its record."""
    used = [t for t in trainings if t["seed"] in seeds]
    proxy, steps = conditions["spec"]["proxy"], [rung["step"] for rung in used[0]["rungs"]]
    seconds = sum(t["rungs"][-1]["elapsed_s"] for t in used)
    packages = ", ".join(f"{name} {value}" for name, value in conditions["versions"].items())
    return f"""# The table `ours`

Every network of `ours.yaml` was trained from its first weights to the last rung, under each seed, by \
`python benchmarks/build_table.py`; nothing in it is modelled or interpolated.

* Networks: {len(used) // len(seeds)}, all points of the space (hash {conditions["space"]}). \
Seeds: {", ".join(map(str, seeds))}. Rungs: {", ".join(map(str, steps))} steps.
* Recipe: {conditions["spec"]["task"]["kind"]}, batch {proxy["batch"]}, patches of {proxy["patch_px"]} px of the \
input, constant rate {proxy["learning_rate"]:g} after {proxy["warmup_steps"]} steps, loss {proxy["loss"]}, averaged \
weights. A seed draws the patches, alike for all networks, and with a network's key its first weights.
* Training photographs: {", ".join(conditions["train"])}.
* Validation: the centre square of {conditions["validation_px"]} px of {", ".join(conditions["validation"])}; PSNR on \
luma in 8 bits, border of 2 px off.
* Machine: {conditions["host"]}, {count(conditions["threads"], "thread")}, from {used[0]["at"]} to {used[-1]["at"]} \
(UTC); {seconds / 60:.0f} minutes of training in all. It did other work at the same time: `elapsed_s` tells no \
network's speed. MACs and parameters are exact.
* Versions: {packages}.
* Latency: {_latency_words(latencies)}

Columns: `key` (of the genotype), `space.*`, `seed`, `step`, `psnr_db`, `ssim`, `psnr_per_image_db`, `loss`, \
`elapsed_s` (training up to the step, validation excluded), `params_m`, `params_train_m`, `macs_g` (640×360), \
`latency_ms` (missing where it was not measured).
"""


def _latency_words(latencies: dict[str, dict[str, Any]]) -> str:
    if not latencies:
        return "not measured; fronts are drawn over MACs."
    some = next(iter(latencies.values()))
    doubtful = sum(not each["trusted"] for each in latencies.values())
    return (
        f"median of one forward pass in deploy form at {some['at']}, {count(some['threads'], 'thread')}, "
        f"{some['runtime']}, on {some['host']}; {doubtful} of {len(latencies)} were measured while the machine was "
        "busy."
    )


def _rows(training: dict[str, Any], latencies: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    fixed = {
        "key": training["key"],
        **{f"space.{name}": value for name, value in training["genotype"].items()},
        "seed": training["seed"],
        **{name: training[name] for name in ("params_m", "params_train_m", "macs_g")},
        "latency_ms": latencies[training["key"]]["median_ms"] if latencies else float("nan"),
    }
    return [fixed | rung for rung in training["rungs"]]


def _count(trainings: list[dict[str, Any]], seed: int) -> int:
    return len({t["key"] for t in trainings if t["seed"] == seed})


def _lines(path: Path) -> list[dict[str, Any]]:
    if not path.is_file():
        return []
    content = path.read_bytes()
    return [json.loads(line) for line in content[: content.rfind(b"\n") + 1].splitlines()]
