"""The trainings of a calibration: candidates drawn over a whole space, each looked at on every step of a ladder."""

from __future__ import annotations

import dataclasses
import json
import logging
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from hfir.config import HFIRConfig
from hfir.errors import ConfigError
from hfir.fusion import fuse
from hfir.model import HydraFusionIR
from search.calibration.record import Candidate, Curve, Record, read_record, write_record
from search.evaluation.cost import as_deployed, count_macs_g, count_parameters
from search.evaluation.evaluator import look_at_data, task_data
from search.evaluation.plan import ProxyPlan, TaskPlan
from search.evaluation.proxy import ProxyTraining, restore_pair, validate
from search.evaluation.quality import mean_quality, psnr_db, to_uint8
from search.executors import Executor
from search.experiment import Experiment
from search.tasks.identity import photographs_key, refuse_changed_meanwhile, refuse_other_photographs
from search.tasks.leaks import NOTHING, seen_from_json, seen_in
from search.tasks.pairs import Pair, TaskData
from search.types import EvaluationError, InputError, StoreError, stable_hash

log = logging.getLogger(__name__)

POOL = 8
"""Points drawn for each candidate that is wanted."""
MAX_DRAWS = 40
"""Draws for each point wanted in the pool, before a space counts as too sparse."""
TIMED = 5
"""Candidates that train a few steps to tell how long it will take."""
TIMED_STEPS = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class LadderPlan:
    """How candidates are trained and looked at.

    Args:
        task: Which photographs, and what is done to them.
        proxy: How to train; of its rungs nothing is used.
        steps: Where to look, rising; the last one is the reference.
        crop_px: Side of the centre of each validation photograph that is looked at, in pixels of the output.
        photographs: `photographs_key` of what the calibration recorded: a worker that loads others refuses.
    """

    task: TaskPlan
    proxy: ProxyPlan
    steps: tuple[int, ...]
    crop_px: int
    photographs: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class LadderJob:
    """One training, as it is sent to a worker."""

    candidate: int
    config: dict[str, Any]
    seed: int
    learning_rate: float


def draw_candidates(experiment: Experiment, count: int) -> tuple[Candidate, ...]:
    """Draw networks that keep to the limits on parameters and MACs, spread over the space.

    Equally many of each number of `levels`; within one, at even distances of the logarithm of their MACs, from the
    cheapest to the dearest of a random pool. The same experiment and count give the same networks.

    Raises:
        InputError: If the space has fewer within its limits.
    """
    pool = _pool(experiment, POOL * count)
    strata: dict[int, list[Candidate]] = {}
    for candidate in pool:
        strata.setdefault(candidate.levels, []).append(candidate)
    chosen: list[Candidate] = []
    waiting = sorted(strata.values(), key=len)
    for place, members in enumerate(waiting):  # the smallest strata first: what they lack the others give
        share = math.ceil((count - len(chosen)) / (len(waiting) - place))
        chosen += _spread(members, min(share, count - len(chosen)))
    if len(chosen) < count:
        raise InputError(
            f"{experiment.source}: {len(chosen)} of {count} candidates were found within the limits on parameters "
            "and MACs.\n  Ask for fewer with --candidates, or raise the limits: `hfir-search check` says which bites."
        )
    chosen.sort(key=lambda c: (c.levels, c.macs_g))
    return tuple(dataclasses.replace(c, number=number) for number, c in enumerate(chosen))


def ladder_plan(experiment: Experiment, steps: Sequence[int], crop_px: int) -> LadderPlan:
    """Return how an experiment's candidates are trained and looked at.

    Raises:
        InputError: If the steps do not rise, or the crop is too small.
    """
    if not steps or any(a >= b for a, b in zip([0, *steps], steps, strict=False)):
        raise InputError(f"--steps {','.join(map(str, steps))}: not a ladder.\n  Write rising steps: 40,80,160.")
    if crop_px < 32:
        raise InputError(f"--crop {crop_px}: too small to score.\n  Give at least 32 pixels.")
    plan = experiment.evaluation_plan()
    return LadderPlan(task=plan.task, proxy=plan.proxy, steps=tuple(steps), crop_px=crop_px)


def train_ladder(plan: LadderPlan, job: LadderJob) -> Curve:
    """Train a candidate to the last step and return what it showed on the way.

    Patches differ from seed to seed and are the same for all candidates of one, so that two seeds share nothing
    that would flatter their agreement.
    """
    data = task_data(plan.task)
    refuse_changed_meanwhile(plan.photographs, seen_in(data), f"candidate {job.candidate}")
    looked_at = centres(data, plan.crop_px)
    proxy = dataclasses.replace(plan.proxy, learning_rate=job.learning_rate, data_seed=plan.proxy.data_seed + job.seed)
    training = ProxyTraining(HFIRConfig.from_dict(job.config), proxy, data, _weight_seed(job))
    averaged, raw = [], []
    for step in plan.steps:
        training.run_to(step)
        averaged.append(_mean_psnr_db(training.deployed(), looked_at))
        raw.append(_mean_psnr_db(as_deployed(fuse(training.model)), looked_at))
    return Curve(
        candidate=job.candidate,
        seed=job.seed,
        learning_rate=job.learning_rate,
        steps=plan.steps,
        psnr_db=tuple(averaged),
        raw_psnr_db=tuple(raw),
        whole_psnr_db=mean_quality(validate(training.deployed(), data)).psnr_db,
        elapsed_s=training.elapsed_s,
    )


def centres(data: TaskData, crop_px: int) -> TaskData:
    """Return a task that validates on the centres of its photographs, `crop_px` output pixels a side at most."""
    return dataclasses.replace(data, validation=tuple(_centre(pair, data.upscale, crop_px) for pair in data.validation))


def _centre(pair: Pair, upscale: int, crop_px: int) -> Pair:
    side = crop_px // upscale
    height, width = pair.degraded.shape[:2]
    top, left = max(0, (height - side) // 2), max(0, (width - side) // 2)
    degraded = np.ascontiguousarray(pair.degraded[top : top + side, left : left + side])
    rows, columns = (slice(n * upscale, (n + side) * upscale) for n in (top, left))
    return dataclasses.replace(pair, degraded=degraded, clean=np.ascontiguousarray(pair.clean[rows, columns]))


def _mean_psnr_db(model: HydraFusionIR, data: TaskData) -> float:
    """Return the mean PSNR over the validation photographs; SSIM, which takes longer than the network, is left out."""
    border, luma = (data.upscale, data.channels == 3) if data.upscale > 1 else (0, False)
    values = [
        psnr_db(to_uint8(restore_pair(model, pair)[0]), pair.clean, border=border, luma=luma)
        for pair in data.validation
    ]
    return sum(values) / len(values)


def _weight_seed(job: LadderJob) -> int:
    return int(np.random.SeedSequence([job.seed, job.candidate]).generate_state(1)[0])


def _pool(experiment: Experiment, wanted: int) -> list[Candidate]:
    """Draw distinct networks within the limits that can be counted, at most `wanted`."""
    limits = experiment.budget.limits()
    found: dict[str, Candidate] = {}
    for seed in range(MAX_DRAWS * wanted):
        if len(found) >= min(wanted, experiment.space.size):
            break
        genotype = experiment.space.sample(seed)
        if genotype.key in found:
            continue
        try:
            config = experiment.decode(genotype)
        except ConfigError:
            continue
        params_m = count_parameters(config).deploy_m
        if params_m > limits.get("params_m", math.inf):
            continue
        macs_g = count_macs_g(config, experiment.budget.macs_at)
        if macs_g <= limits.get("macs_g", math.inf):
            found[genotype.key] = Candidate(
                number=len(found),
                genotype=dict(genotype.values),
                config=config.to_dict(),
                params_m=params_m,
                macs_g=macs_g,
            )
    return list(found.values())


def _spread(members: Sequence[Candidate], count: int) -> list[Candidate]:
    """Choose candidates nearest to even distances of log MACs, each once."""
    left = sorted(members, key=lambda c: c.macs_g)
    low, high = math.log(left[0].macs_g), math.log(left[-1].macs_g)
    chosen: list[Candidate] = []
    for target in np.linspace(low, high, count)[: len(left)]:
        nearest = min(left, key=lambda c: abs(math.log(c.macs_g) - target))
        left.remove(nearest)
        chosen.append(nearest)
    return chosen


class Calibration:
    """The trainings of one calibration in its folder, from wherever they stand to the end.

    Args:
        experiment: Whose space and proxy are calibrated.
        folder: Where the record lies; held by the caller.
        executor: Where training takes place.
        candidates: How many networks.
        seeds: Trainings of each, from seed 0.
        steps: Where they are looked at.
        crop_px: Side of what is looked at.
        onlooker: Shown the record after each training, and how many are wanted in all.

    Raises:
        InputError: If the ladder or the data cannot be used, or too few networks are within the limits.
        StoreError: If the folder holds another calibration.
    """

    def __init__(
        self,
        experiment: Experiment,
        folder: Path,
        executor: Executor,
        *,
        candidates: int,
        seeds: int,
        steps: Sequence[int],
        crop_px: int,
        onlooker: Callable[[Record, int], None] = lambda record, wanted: None,
    ) -> None:
        self.plan = ladder_plan(experiment, steps, crop_px)
        self.folder, self.executor, self._onlooker = folder, executor, onlooker
        self._seeds, self._experiment = seeds, experiment
        self._compared = False
        self.record = self._opened(experiment, candidates)

    def run(self) -> Record:
        """Train what is missing and return the record.

        Raises:
            InputError: If the data cannot be used.
            EvaluationError: If a training fails: no order of candidates holds with one missing.
        """
        self._train(self._missing(), "curves", len(self.record.candidates) * self._seeds)
        return self.record

    def run_range_test(self, rates: Sequence[float], candidates: int, step: int) -> Record:
        """Train a few candidates a short way at each rate, and return the record.

        Args:
            rates: To be compared.
            candidates: How many, evenly over the record's.
            step: Where each training ends.

        Raises:
            InputError: If the data cannot be used. A training that diverges is logged and leaves no curve.
        """
        places = np.linspace(0, len(self.record.candidates) - 1, candidates).round().astype(int)
        members = [self.record.candidates[i] for i in dict.fromkeys(places.tolist())]
        done = {(c.candidate, c.learning_rate) for c in self.record.range_test}
        jobs = [_job(c, 0, rate) for rate in rates for c in members if (c.number, rate) not in done]
        steps = (*(s for s in self.plan.steps if s < step), step)
        plan = dataclasses.replace(self.plan, steps=steps)
        self._train(jobs, "range_test", len(rates) * len(members), plan)
        return self.record

    @property
    def missing(self) -> int:
        """How many trainings are not finished, the range test left out."""
        return len(self._missing())

    def expected_s(self) -> float:
        """Return how long the missing trainings will take, from a few steps of a few of them."""
        missing = self._missing()
        if not missing:
            return 0.0
        self._compare_photographs()
        places = dict.fromkeys(np.linspace(0, len(missing) - 1, TIMED).round().astype(int).tolist())
        jobs = [missing[i] for i in places]
        step_s = [_value(o) for o in self.executor.run(partial(time_steps, self.plan), jobs)]
        return float(np.mean(step_s)) * self.plan.steps[-1] * len(missing) / self.executor.workers

    def _missing(self) -> list[LadderJob]:
        """Return the trainings to be done: seed by seed, the dearest first."""
        rate = self.plan.proxy.learning_rate
        return [
            _job(candidate, seed, rate)
            for seed in range(self._seeds)
            for candidate in sorted(self.record.candidates, key=lambda c: -c.macs_g)
            if self.record.curve_of(candidate.number, seed) is None
        ]

    def _opened(self, experiment: Experiment, count: int) -> Record:
        conditions = _conditions(experiment, self.plan, count)
        task = {key: value for key, value in conditions["task"].items() if key != "data"}
        identity = stable_hash({**conditions, "task": task, "space": experiment.space.hash})
        earlier_identity = stable_hash(
            {**conditions, "space": experiment.space.hash}
        )  # with the folders of photographs
        found = read_record(self.folder)
        if found is None:
            return self._begun(experiment, count, conditions, identity)
        if found.identity not in (identity, earlier_identity):
            raise StoreError(
                f"{self.folder}: holds a calibration of {found.name} under other conditions.\n"
                "  Space, task, proxy, limits, steps, crop and number of candidates must be the same: "
                "give another folder with --out."
            )
        return found

    def _begun(self, experiment: Experiment, count: int, conditions: Mapping[str, Any], identity: str) -> Record:
        [outcome] = self.executor.run(look_at_data, [experiment.evaluation_plan()])
        baseline = _value(outcome)
        self._compared = True
        [drawn] = self.executor.run(partial(draw_candidates, count=count), [experiment])
        record = Record(
            name=experiment.name,
            identity=identity,
            space=experiment.space.hash,
            conditions=json.loads(json.dumps({**conditions, "baseline": dataclasses.asdict(baseline)})),
            candidates=_value(drawn),
        )
        write_record(self.folder, record)
        return record

    def _compare_photographs(self) -> None:
        """Refuse to go on with other photographs than those recorded; done once, before the first training."""
        if not self._compared:
            [outcome] = self.executor.run(look_at_data, [self._experiment.evaluation_plan()])
            found = seen_from_json(_value(outcome).photographs) or NOTHING
            remedy = "calibrate in a new folder with --out"
            refuse_other_photographs(self._recorded_photographs, found, str(self.folder), remedy)
            self._compared = True

    @property
    def _recorded_photographs(self) -> Any:
        return self.record.conditions["baseline"].get("photographs")

    def _train(self, jobs: Sequence[LadderJob], where: str, wanted: int, plan: LadderPlan | None = None) -> None:
        self._onlooker(self.record, wanted)
        if not jobs:
            return
        self._compare_photographs()
        key = photographs_key(self._recorded_photographs)
        plan = dataclasses.replace(plan or self.plan, photographs=key)
        for outcome in self.executor.run(partial(train_ladder, plan), jobs):
            if where == "range_test" and isinstance(outcome.error, EvaluationError):
                log.warning(
                    "calibration=%s rate=%g error=%r", self.record.name, outcome.job.learning_rate, outcome.error
                )
                continue
            curve = _value(outcome)
            self.record = dataclasses.replace(self.record, **{where: (*getattr(self.record, where), curve)})
            write_record(self.folder, self.record)
            log.info(
                "calibration=%s candidate=%d seed=%d rate=%g psnr_db=%.3f elapsed_s=%.1f",
                self.record.name,
                curve.candidate,
                curve.seed,
                curve.learning_rate,
                curve.psnr_db[-1],
                curve.elapsed_s,
            )
            self._onlooker(self.record, wanted)


def time_steps(plan: LadderPlan, job: LadderJob) -> float:
    """Return the seconds of a training step of a candidate, the first one left out."""
    training = ProxyTraining(HFIRConfig.from_dict(job.config), plan.proxy, task_data(plan.task), seed=0)
    training.run_to(1)
    start = time.perf_counter()
    training.run_to(1 + TIMED_STEPS)
    return (time.perf_counter() - start) / TIMED_STEPS


def _job(candidate: Candidate, seed: int, rate: float) -> LadderJob:
    return LadderJob(candidate=candidate.number, config=dict(candidate.config), seed=seed, learning_rate=rate)


def _conditions(experiment: Experiment, plan: LadderPlan, count: int) -> dict[str, Any]:
    """Return what decides what a curve means, as plain values."""
    proxy = dataclasses.asdict(plan.proxy)
    del proxy["rungs"]
    limits = {name: value for name, value in experiment.budget.limits().items() if name in ("params_m", "macs_g")}
    return {
        "task": experiment.spec["task"],
        "proxy": proxy,
        "limits": limits,
        "macs_at": str(experiment.budget.macs_at),
        "steps": list(plan.steps),
        "crop_px": plan.crop_px,
        "candidates": count,
    }


def _value(outcome: Any) -> Any:
    """Return what a job gave, or raise what it ended in."""
    if outcome.error is not None:
        raise outcome.error
    return outcome.value
