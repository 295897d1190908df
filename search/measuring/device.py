"""Time the networks of this folder on this device, and write one line of CSV for each.

    python measure_here.py [--out results.csv] [--threads 1] [--limit-s 3]

Needs Python 3.9 or later, onnxruntime and numpy, nothing else. Blocks of passes alternate with blocks of the folder's
first network: where that one is slower than it was at its fastest, something else was running, and the block does not
count. Where too few count, the figure is untrusted: made of all blocks, each divided by what that one lost beside it.
Stopped, it goes on where it stopped: networks that are in the CSV are left out. Bring the CSV back with

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
MIN_PASSES, MIN_BLOCKS, PATIENCE, CALIBRATION_S = 15, 3, 2, 2.0
TOLERANCE, DRIFT, TAIL = 0.02, 0.05, 0.1


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
        start, blocks = time.perf_counter(), [self.block_ms()]
        while time.perf_counter() - start < CALIBRATION_S:
            blocks.append(self.block_ms())
        self.ms = sorted(blocks)[len(blocks) // 10]

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


def middle(blocks):
    """Return the median of the blocks' medians, and the middle 80 % of them."""
    medians = sorted(statistics.median(block) for block in blocks)
    last = len(medians) - 1
    return medians[math.floor(TAIL * last)], statistics.median(medians), medians[math.ceil((1 - TAIL) * last)]


def measure(network, rest, limit_s):
    """Return what the CSV says of one network, as far as it was measured."""
    network.block()
    timed = []  # passes, and the reference before and after them
    start, before = time.perf_counter(), rest.block_ms()
    while True:
        block, after = network.block(), rest.block_ms()
        timed.append((block, before, after))
        if max(before, after) < (1 - DRIFT) * rest.ms:  # never was the device at rest before
            rest.ms = max(before, after)
        before = after
        at_rest = [[t * rest.ms / ((b + a) / 2) for t in block] for block, b, a in timed]
        quiet = [max(b, a) <= (1 + DRIFT) * rest.ms for _, b, a in timed]
        good = agreeing([block for block, counts in zip(at_rest, quiet) if counts]) if any(quiet) else []
        trusted = len(good) >= MIN_BLOCKS and sum(map(len, good)) >= MIN_PASSES
        low, median, high = interval([t for block in good for t in block]) if trusted else middle(at_rest)
        narrow = trusted and max(high - median, median - low) <= TOLERANCE * median
        if narrow or time.perf_counter() - start > limit_s * (1 if trusted else PATIENCE):
            drift = statistics.median(a for _, _, a in timed) / rest.ms - 1
            repeats, dropped = sum(map(len, good if trusted else at_rest)), len(timed) - len(good)
            figures = {"median_ms": median, "low_ms": low, "high_ms": high, "repeats": repeats}
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
