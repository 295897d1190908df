"""How long does the report of a large run take, and how large is the page?

Usage: `python benchmarks/report_size.py [--trials 2000] [--out FOLDER]`. Points are drawn from the space of
`spaces/efficient.yaml` and decoded into real networks; their figures are made up from the networks' sizes, with noise:
no photograph is looked at, nothing is trained. Prints seconds and bytes, and leaves the run's files in the folder.
"""

from __future__ import annotations

import argparse
import math
import tempfile
import time
from pathlib import Path

import numpy as np

from hfir.config import HFIRConfig
from hfir.errors import ConfigError
from search.experiment import Experiment, load_experiment
from search.experiment.decode import decode
from search.report import write_all, write_report
from search.types import Cost, Genotype, Latency, Measurement, Study, Trial, TrialState

STEP_S = 0.02
"""Made-up seconds of a training step."""


def synthetic_study(folder: Path, trials: int) -> Study:
    """Return a run of the efficient space with as many candidates, and figures that only look like some."""
    experiment = load_experiment("efficient", [f"search.trials={trials}"])
    baseline = {
        "psnr_db": 29.4,
        "ssim": 0.86,
        "images": ["chelsea.png", "coffee.png", "coins.png", "china.jpg"],
        "train_images": 8,
        "host": "made up",
        "versions": {"hfir-search": "made up"},
    }
    return Study(
        name="synthetic",
        folder=folder,
        objectives=experiment.objectives,
        spec=experiment.spec,
        facts={"baseline": baseline, "elapsed_s": 36_000.0, "finished": trials},
        trials=tuple(_trial(experiment, number) for number in range(trials)),
    )


def _trial(experiment: Experiment, number: int) -> Trial:
    genotype = experiment.space.sample(number)
    draw = np.random.default_rng([7, number])
    try:
        config = decode(genotype, upscale=2, in_channels=3)
    except ConfigError as error:
        return _record(number, TrialState.INFEASIBLE, genotype, reason=str(error).splitlines()[0])
    cost = _cost(config, draw)
    if cost.macs_g > 8:
        return _record(number, TrialState.INFEASIBLE, genotype, config, cost, reason=f"macs_g {cost.macs_g:.3f} > 8")
    reached = 3 if draw.random() < 0.35 else 1 + int(draw.random() < 0.35)
    state = TrialState.COMPLETE if reached == 3 else TrialState.STOPPED
    reason = "" if reached == 3 else "not promoted"
    return _record(number, state, genotype, config, cost, _measurements(config, cost, draw, reached), reason)


def _record(
    number: int,
    state: TrialState,
    genotype: Genotype,
    config: HFIRConfig | None = None,
    cost: Cost | None = None,
    measurements: tuple[Measurement, ...] = (),
    reason: str = "",
) -> Trial:
    return Trial(
        number=number,
        state=state,
        genotype=genotype,
        key=genotype.key,
        seed=number,
        generation=number // 12,
        config=None if config is None else config.to_dict(),
        cost=cost,
        measurements=measurements,
        reason=reason,
    )


def _cost(config: HFIRConfig, draw: np.random.Generator) -> Cost:
    blocks = sum(config.encoder_blocks) + config.bottleneck_blocks + sum(config.decoder_blocks)
    macs_g = float(config.width**1.6 * blocks**0.8 / 90 * draw.uniform(0.9, 1.2))
    latency_ms = float(2.0 + 3.5 * macs_g * draw.uniform(0.7, 1.4))
    params_m = float(config.width**2 * blocks * 4.0 ** (config.levels - 1) * 8e-6)
    return Cost(
        params_m=params_m,
        params_train_m=params_m,
        params_active_m=params_m,
        macs_g=macs_g,
        macs_at="640x360",
        latency=Latency(
            median_ms=latency_ms,
            low_ms=0.97 * latency_ms,
            high_ms=1.04 * latency_ms,
            repeats=60,
            at="160x160",
            threads=1,
            device="cpu",
            dtype="float32",
            runtime="made up",
            host="made up",
            measured_at="2026-01-01T00:00:00+00:00",
        ),
        peak_mem_mib=3 + 40 * params_m,
        peak_mem_at="160x160",
    )


def _measurements(config: HFIRConfig, cost: Cost, draw: np.random.Generator, reached: int) -> tuple[Measurement, ...]:
    top = 29.9 + 0.35 * math.log(1 + cost.macs_g) + 0.2 * (config.refiner is not None) + draw.normal(0, 0.06)
    rungs = (80, 240, 800)[:reached]
    qualities = [float(top - 0.5 * math.log(800 / step) / math.log(10) + draw.normal(0, 0.03)) for step in rungs]
    return tuple(
        Measurement(
            rung=rung,
            step=step,
            psnr_db=quality,
            ssim=quality / 35,
            psnr_per_image_db=(quality - 2.1, quality - 0.5, quality + 0.3, quality + 2.3),
            elapsed_s=STEP_S * step,
            loss=0.02,
        )
        for rung, (step, quality) in enumerate(zip(rungs, qualities, strict=True))
    )


def main() -> None:
    """Write the report of a made-up run, and print what it took."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=2000)
    parser.add_argument("--out", type=Path, help="folder of the run's files; a temporary one otherwise")
    arguments = parser.parse_args()
    folder = arguments.out or Path(tempfile.mkdtemp())
    folder.mkdir(parents=True, exist_ok=True)
    study = synthetic_study(folder, arguments.trials)
    start = time.perf_counter()
    page = write_report(study)
    page_s = time.perf_counter() - start
    write_all(study)
    print(f"{len(study.trials):,} candidates, {len(study.in_state(TrialState.COMPLETE)):,} of them complete")
    print(f"{page}: {page_s:.1f} s, {page.stat().st_size / 1e6:.2f} MB")
    print(f"all files of the report: {time.perf_counter() - start - page_s:.1f} s")


if __name__ == "__main__":
    main()
