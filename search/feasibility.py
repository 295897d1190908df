"""What a space and a budget mean together, before anything is spent: size, legality, limits, time, data."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from statistics import median

from hfir.config import HFIRConfig
from hfir.errors import ConfigError
from search.evaluation.answers import Baseline
from search.evaluation.cost import count_macs_g, count_parameters, deploy_form
from search.evaluation.evaluator import look_at_data, task_data
from search.evaluation.meter import measure_latency, peak_memory_mib
from search.evaluation.plan import CostPlan
from search.evaluation.proxy import ProxyTraining
from search.experiment import Experiment
from search.references.loading import build

STATIC_PROBE = 60
"""Random points that are decoded and counted."""
TIMED_PROBE = 12
"""Of the legal ones, those that are run for latency and memory."""
TRAINED_PROBE = 8
"""Of these, those that train a few steps."""
PROBE_STEPS = 3
MEASURING_S = 3.0
"""What measuring one candidate costs outside training, roughly, in seconds."""


@dataclass(slots=True)
class Probe:
    """One random point and what is known of it; None where it was not looked at."""

    config: HFIRConfig
    figures: dict[str, float] = field(default_factory=dict)
    step_s: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Feasibility:
    """What `hfir-search check` says.

    Args:
        size: Points of the canonical space, exactly.
        probed: Random points looked at.
        legal: Of these, how many stand for a network.
        within: For each limit: (points within it, points it was checked on), legal ones only.
        within_all: Likewise for all limits at once.
        trials: Candidates expected to be trained: those asked for, or what a smaller space holds within the limits.
        proposals: Proposals expected for them; None where nothing fits the budget.
        training_steps: Steps expected in all.
        minutes: Expected wall time on the workers asked for; None where no point could be timed.
        baseline: What the data gives for free.
    """

    size: int
    probed: int
    legal: int
    within: dict[str, tuple[int, int]]
    within_all: tuple[int, int]
    trials: int
    proposals: int | None
    training_steps: int
    minutes: float | None
    baseline: Baseline


def check_feasibility(experiment: Experiment, workers: int) -> Feasibility:
    """Probe a space at random: decode, count, and run a few.

    Args:
        experiment: What would be searched.
        workers: Worker processes that the search would have.

    Raises:
        InputError: If the data cannot be used, or a network to compare with.
    """
    plan = experiment.evaluation_plan()
    baseline = look_at_data(plan)
    for reference in experiment.references:
        build(reference, in_channels=plan.task.channels, upscale=plan.task.upscale)
    probes = _legal_points(experiment)
    for probe in probes:
        counts = count_parameters(probe.config)
        probe.figures["params_m"] = counts.deploy_m
        probe.figures["macs_g"] = count_macs_g(probe.config, plan.cost.macs_at)
    for probe in [p for p in probes if _fits(p, plan.cost)][:TIMED_PROBE]:
        _run(probe, plan.cost)
    for probe in [p for p in probes if "latency_ms" in p.figures and _fits(p, plan.cost)][:TRAINED_PROBE]:
        training = ProxyTraining(probe.config, plan.proxy, task_data(plan.task), seed=0)
        training.run_to(1)
        start = time.perf_counter()
        training.run_to(1 + PROBE_STEPS)
        probe.step_s = (time.perf_counter() - start) / PROBE_STEPS
    return _summary(experiment, probes, baseline, workers)


def expected_steps(experiment: Experiment, trials: int) -> int:
    """Return the training steps that so many trials take when each rung passes on just the share it keeps."""
    share, steps, before = 1.0, 0.0, 0
    for rung in experiment.proxy.rungs:
        steps += share * (rung - before)
        share, before = share * experiment.proxy.keep, rung
    return round(steps * trials)


def _legal_points(experiment: Experiment) -> list[Probe]:
    probes = []
    for seed in range(STATIC_PROBE):
        try:
            probes.append(Probe(experiment.decode(experiment.space.sample(seed))))
        except ConfigError:
            continue
    return probes


def _run(probe: Probe, plan: CostPlan) -> None:
    model = deploy_form(probe.config)
    probe.figures["peak_mem_mib"] = peak_memory_mib(model, plan.latency_at, device=plan.device)
    latency = measure_latency(
        model, plan.latency_at, plan.threads, runtime=plan.runtime, device=plan.device, limit_s=0.5
    )
    probe.figures["latency_ms"] = latency.high_ms


def _fits(probe: Probe, plan: CostPlan) -> bool:
    return all(probe.figures.get(name, 0.0) <= limit for name, limit in plan.limits)


def _summary(experiment: Experiment, probes: list[Probe], baseline: Baseline, workers: int) -> Feasibility:
    plan = experiment.evaluation_plan().cost
    within = {}
    for name, limit in plan.limits:
        known = [p.figures[name] for p in probes if name in p.figures]
        within[name] = (sum(value <= limit for value in known), len(known))
    static = [p for p in probes if _fits_static(p, plan)]
    timed = [p for p in static if "latency_ms" in p.figures]
    share = len(static) / STATIC_PROBE * _share(sum(_fits(p, plan) for p in timed), len(timed))
    size = experiment.space.size
    trials = min(experiment.most_trials, max(1, round(share * size))) if share else experiment.most_trials
    proposals = min(round(trials / share), size) if share else None
    steps = expected_steps(experiment, trials)
    step_s = [p.step_s for p in probes if p.step_s is not None]
    minutes = None
    if step_s and proposals is not None:
        beside = len(experiment.references) * experiment.proxy.rungs[-1]
        training = (steps + beside) * median(step_s) / workers
        minutes = (training + MEASURING_S * trials) / 60
    return Feasibility(
        size=size,
        probed=STATIC_PROBE,
        legal=len(probes),
        within=within,
        within_all=(round(share * STATIC_PROBE), STATIC_PROBE),
        trials=trials,
        proposals=proposals,
        training_steps=steps,
        minutes=minutes,
        baseline=baseline,
    )


def _fits_static(probe: Probe, plan: CostPlan) -> bool:
    return all(probe.figures[n] <= limit for n, limit in plan.limits if n in ("params_m", "macs_g"))


def _share(part: int, whole: int) -> float:
    return part / whole if whole else 0.0
