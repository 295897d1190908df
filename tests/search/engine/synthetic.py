"""A search without networks: answers from arithmetic, each training written down, and killed where it is told to.

Workers import this, so it loads little.
"""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from search.evaluation.answers import Admission, Baseline
from search.evaluation.plan import CandidateJob
from search.files import replace_file
from search.space import Parameter, SearchSpace
from search.types import Cost, Genotype, Measurement, measurement_from_json, stable_hash, to_json

SPACE = SearchSpace(
    [
        Parameter("width", tuple(range(4, 68, 4))),
        Parameter("depth", tuple(range(1, 17))),
        Parameter("levels", (1, 2)),
    ]
)
TRAININGS = "trainings.txt"
"""Each training that was begun, a line: trial and rung."""


@dataclass(frozen=True)
class Point:
    values: dict[str, Any]

    def to_dict(self) -> dict[str, Any]:
        return self.values


@dataclass(frozen=True)
class Search:
    trials: int = 18
    sampler: str = "random"
    seed: int = 0
    generation: int = 6


@dataclass(frozen=True)
class Rungs:
    rungs: tuple[int, ...] = (10, 20, 30)
    keep: float = 0.5


@dataclass(frozen=True)
class Synthetic:
    search: Search = field(default_factory=Search)
    proxy: Rungs = field(default_factory=Rungs)
    name: str = "synthetic"
    space: SearchSpace = SPACE
    objectives: tuple[str, ...] = ("psnr_db", "macs_g")
    limits: Mapping[str, float] = field(default_factory=dict)

    def decode(self, genotype: Genotype) -> Point:
        return Point(dict(genotype.values))


@dataclass(frozen=True)
class Arithmetic:
    """Answers from a point alone; every fifth or so is over the limit.

    Args:
        folder: Where trainings are written down.
        deadly: Trials at whose first rung the worker is killed: after the training was begun (0) or once its
            checkpoint is written (1), before the answer.
    """

    folder: str
    deadly: Mapping[int, int] = field(default_factory=dict)

    def look_at_data(self, job: None) -> Baseline:
        return Baseline(
            psnr_db=20.0,
            ssim=0.5,
            images=("none",),
            psnr_per_image_db=(20.0,),
            train_images=0,
            notes=(),
            host="made up",
            versions={},
        )

    def admit(self, job: CandidateJob) -> Admission:
        params = job.config["width"] ** 2 * job.config["depth"] * 1e-4
        cost = Cost(params_m=params, params_train_m=params, params_active_m=params, macs_g=params / 2, macs_at="64x64")
        over = int(stable_hash(job.config), 16) % 5 == 0
        return Admission(cost=cost, margins={"macs_g": 0.5 if over else -0.5}, reason="macs_g over" if over else "")

    def train(self, job: CandidateJob) -> Measurement:
        checkpoint = Path(job.checkpoint)
        if checkpoint.is_file() and (saved := json.loads(checkpoint.read_text()))["rung"] == job.rung:
            return measurement_from_json(saved)
        with (Path(self.folder) / TRAININGS).open("a") as file:
            file.write(f"{job.number} {job.rung}\n")
        self._perhaps_die(job, 0)
        noise = int(stable_hash([job.seed, job.rung]), 16) / 2**64
        psnr = 20 + job.config["width"] ** 0.5 + job.config["depth"] / 10 + job.rung + noise
        measurement = Measurement(
            rung=job.rung,
            step=10 * (job.rung + 1),
            psnr_db=psnr,
            ssim=psnr / 50,
            psnr_per_image_db=(psnr, psnr),
            elapsed_s=1.0,
            loss=0.1,
        )
        checkpoint.parent.mkdir(parents=True, exist_ok=True)
        replace_file(checkpoint, lambda path: path.write_text(json.dumps(to_json(measurement))))
        self._perhaps_die(job, 1)
        return measurement

    def remeasure(self, job: CandidateJob) -> Admission:
        return self.admit(job)

    def _perhaps_die(self, job: CandidateJob, moment: int) -> None:
        if job.rung == 0 and self.deadly.get(job.number) == moment:
            os.kill(os.getpid(), signal.SIGKILL)


@dataclass(frozen=True)
class OneStraggler(Arithmetic):
    """Takes its time for the first rung of one trial: until another one is trained ahead, or its patience is over.

    Args:
        patience_s: How long it waits.
        number: The trial.
    """

    patience_s: float = 60.0
    number: int = 0

    def train(self, job: CandidateJob) -> Measurement:
        ahead = Path(self.folder) / "ahead"
        deadline = time.monotonic() + self.patience_s
        while (job.number, job.rung) == (self.number, 0) and not ahead.exists() and time.monotonic() < deadline:
            time.sleep(0.02)
        measured = super().train(job)
        if job.rung > 0:
            ahead.touch()
        return measured


def nothing() -> None:
    """Prepare a worker: there is nothing to prepare."""


def slowly() -> None:
    """Prepare a worker that takes its time."""
    time.sleep(0.3)


def rest(seconds: float) -> None:
    time.sleep(seconds)


def process(job: int) -> int:
    return os.getpid()
