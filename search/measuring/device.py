"""Time the networks of this folder on this device, and write one line of CSV for each.

    python measure_here.py [--out results.csv] [--threads 1] [--limit-s 3]

Needs Python 3.9 or later, onnxruntime and numpy, nothing else. Blocks of passes alternate with blocks of the folder's
first network: where that one is slower than it was at its fastest, something else was running, and the block does not
count. Stopped, it goes on where it stopped: networks that are in the CSV are left out. Bring the CSV back with

    hfir-search measure import RUN results.csv --name NAME
"""

import argparse
import csv
import hashlib
import json
import math
import platform
import statistics
import time
from datetime import datetime, timezone
from pathlib import Path

import numpy as np
import onnxruntime

HERE = Path(__file__).resolve().parent
COLUMNS = (
    *("trial", "sha256", "median_ms", "low_ms", "high_ms", "repeats", "trusted", "reference_drift", "discarded_blocks"),
    *("at", "threads", "runtime", "device", "host", "measured_at"),
)
BLOCK_S, BLOCK_PASSES = 0.04, 3
MIN_PASSES, MIN_BLOCKS, PATIENCE = 15, 3, 4
TOLERANCE, DRIFT = 0.02, 0.05


class Network:
    """One file, ready to run."""

    def __init__(self, path, shape, threads):
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        options.log_severity_level = 3
        self.session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        self.feed = {"input": np.random.default_rng(0).random(shape, dtype=np.float32)}

    def block(self):
        """Return the times of some passes, in ms."""
        times, start = [], time.perf_counter()
        while len(times) < BLOCK_PASSES or time.perf_counter() - start < BLOCK_S:
            before = time.perf_counter()
            self.session.run(None, self.feed)
            times.append((time.perf_counter() - before) * 1e3)
        return times


class Rest:
    """How fast the reference is when nothing else runs: the fastest that it ever was here."""

    def __init__(self, reference):
        self.reference = reference
        reference.block()
        self.ms = sorted(self.block_ms() for _ in range(12))[3]

    def block_ms(self):
        """Return the median of a block of the reference."""
        return statistics.median(self.reference.block())


def interval(times):
    """Return the median with its 95 % interval by order statistics."""
    ordered, n = sorted(times), len(times)
    reach = 0.98 * math.sqrt(n)
    low, high = math.floor(n / 2 - reach), math.ceil(n / 2 + reach)
    return ordered[max(0, low)], statistics.median(ordered), ordered[min(n - 1, high)]


def agreeing(blocks):
    """Return the blocks that agree with the second fastest: a neighbour makes blocks slower, never faster."""
    medians = sorted(statistics.median(block) for block in blocks)
    return [b for b in blocks if statistics.median(b) <= 1.05 * medians[min(1, len(medians) - 1)]]


def measure(network, rest, limit_s):
    """Return what the CSV says of one network, as far as it was measured."""
    network.block()
    kept, discarded, references = [], [], []
    start, before = time.perf_counter(), rest.block_ms()
    while True:
        block, after = network.block(), rest.block_ms()
        beside = max(before, after)
        if beside < (1 - DRIFT) * rest.ms:  # never was the device at rest before
            rest.ms, discarded, kept = beside, discarded + kept, []
        (kept if beside <= (1 + DRIFT) * rest.ms else discarded).append(block)
        references.append(after)
        before = after
        good = agreeing(kept) if kept else []
        trusted = len(good) >= MIN_BLOCKS and sum(map(len, good)) >= MIN_PASSES
        times = [t for b in (good if trusted else kept + discarded) for t in b]
        low, median, high = interval(times)
        narrow = trusted and max(high - median, median - low) <= TOLERANCE * median
        if narrow or time.perf_counter() - start > limit_s * (1 if trusted else PATIENCE):
            drift = statistics.median(references) / rest.ms - 1
            dropped = len(discarded) + len(kept) - (len(good) if trusted else len(kept))
            figures = {"median_ms": median, "low_ms": low, "high_ms": high, "repeats": len(times)}
            return {**figures, "trusted": trusted, "reference_drift": drift, "discarded_blocks": dropped}


def done(path):
    """Return the candidates and digests that a CSV holds already; a torn last line is dropped."""
    if not path.is_file():
        return set()
    rows = [
        r for r in csv.DictReader(path.read_text().splitlines()) if all(r.get(c) not in (None, "") for c in COLUMNS)
    ]
    write(path, rows)
    return {(row["trial"], row["sha256"]) for row in rows}


def write(path, rows):
    """Write the CSV anew."""
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(rows)


def main():
    """Measure what is not measured yet."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=HERE / "results.csv")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--limit-s", type=float, default=3.0)
    options = parser.parse_args()
    bundle = json.loads((HERE / "bundle.json").read_text())
    threads = options.threads or bundle["threads"]
    shape = (1, bundle["channels"], bundle["height"], bundle["width"])
    conditions = {
        "at": f"{bundle['width']}x{bundle['height']}",
        "threads": threads,
        "runtime": f"onnxruntime {onnxruntime.__version__} CPUExecutionProvider",
        "device": "cpu",
        "host": f"{platform.processor() or platform.machine()} ({platform.node()})",
    }
    known = done(options.out)
    if not known:
        write(options.out, [])
    rest = Rest(Network(HERE / bundle["models"][0]["file"], shape, threads))
    for number, model in enumerate(bundle["models"], 1):
        if (str(model["trial"]), model["sha256"]) in known:
            continue
        path = HERE / model["file"]
        if hashlib.sha256(path.read_bytes()).hexdigest() != model["sha256"]:
            raise SystemExit(f"{path} is not the file that was bundled: copy the folder again.")
        row = {"trial": model["trial"], "sha256": model["sha256"], **conditions}
        row |= measure(Network(path, shape, threads), rest, options.limit_s)
        row["measured_at"] = datetime.now(timezone.utc).isoformat(timespec="seconds")
        with options.out.open("a", newline="") as file:
            csv.DictWriter(file, COLUMNS).writerow(row)
        mark = "" if row["trusted"] else "  untrusted: the device was busy"
        print(f"{number}/{len(bundle['models'])}  trial {model['trial']}  {row['median_ms']:.2f} ms{mark}", flush=True)


if __name__ == "__main__":
    main()
