"""How sure a front is: the order of its members under further seeds, and which latencies are untrusted.

A candidate's quality is one draw: another seed of its initial weights gives another. Members of the front are drawn
again (replicates) until their order is clear. Nothing here changes a front: its figures are those of the first seed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

import numpy as np
from scipy.special import stdtrit

from search.pareto import Floats, minimisation_matrix, pareto_front
from search.types import OBJECTIVES, Cost, Study, Trial, TrialState

COVERAGE = 0.95
DRAWS = 4000
"""Draws of the Monte Carlo estimate; its own error is below 0.016 with 95 % confidence."""
ENOUGH_SEEDS = 3
"""From so many seeds on a candidate's own standard deviation is taken, below it the pooled one."""


def quality_of(objectives: Sequence[str]) -> str:
    """Return the quality that seeds are compared in: PSNR where it is an objective, else the first quality."""
    qualities = [name for name in objectives if OBJECTIVES[name].maximise]
    return "psnr_db" if "psnr_db" in qualities or not qualities else qualities[0]


def values_of(trial: Trial, quality: str, tries: int | None = None) -> list[float]:
    """Return a candidate's quality under its seeds, the first one's first; seeds that failed are left out.

    Args:
        trial: The candidate.
        quality: psnr_db or ssim.
        tries: Look at so many seeds, failed ones counted; None for all.
    """
    first = trial.value(quality)
    further = [getattr(replicate, quality) for replicate in trial.replicates]
    return [float(v) for v in [first, *further][:tries] if v is not None and math.isfinite(v)]


def mean_interval(values: Sequence[float]) -> tuple[float, float]:
    """Return the 95 % interval of a mean by Student's t: `mean ± t(0.975, n - 1) s / sqrt(n)`, n >= 2."""
    mean, count = float(np.mean(values)), len(values)
    half = float(stdtrit(count - 1, 0.5 + COVERAGE / 2)) * float(np.std(values, ddof=1)) / math.sqrt(count)
    return mean - half, mean + half


def difference_interval(one: Sequence[float], other: Sequence[float]) -> tuple[float, float]:
    """Return the 95 % interval of a difference of means, `other` less `one`; each of two values or more.

    Welch, "The generalization of Student's problem when several different population variances are involved", 1947:
    the standard error is `sqrt(a + b)` with `a = s1² / n1`, `b = s2² / n2`, the degrees of freedom are
    `(a + b)² / (a² / (n1 - 1) + b² / (n2 - 1))`. Seeds of different networks have nothing in common, so they are not
    paired.
    """
    difference = float(np.mean(other)) - float(np.mean(one))
    a, b = (float(np.var(values, ddof=1)) / len(values) for values in (one, other))
    if a + b == 0:
        return difference, difference
    freedom = (a + b) ** 2 / (a**2 / (len(one) - 1) + b**2 / (len(other) - 1))
    half = float(stdtrit(freedom, 0.5 + COVERAGE / 2)) * math.sqrt(a + b)
    return difference - half, difference + half


def to_replicate(members: Sequence[Trial], quality: str, at_most: int) -> tuple[Trial, ...]:
    """Return the members that need one more seed before their order is clear; those with the fewest seeds first.

    Neighbours in quality are compared. Their order is clear from the first number of seeds on, counted alike for
    both, at which the interval of their difference leaves zero out. So what is asked for does not depend on which of
    several trainings came in first. Looking again after each seed makes the interval a little narrower than it says.

    Args:
        members: Of the front.
        quality: What they are ordered by.
        at_most: Further seeds a member, >= 0.
    """
    ordered = sorted(members, key=lambda t: (t.value(quality) or 0.0, t.number))
    unclear = {t.number: t for pair in pairwise(ordered) if not is_clear(*pair, quality) for t in pair}
    open_ = [t for t in unclear.values() if len(t.replicates) < at_most]
    fewest = min((len(t.replicates) for t in open_), default=0)
    return tuple(sorted((t for t in open_ if len(t.replicates) == fewest), key=lambda t: t.number))


def is_clear(one: Trial, other: Trial, quality: str) -> bool:
    """Say whether seeds tell which of two candidates is the better one (see `to_replicate`)."""
    shared = 1 + min(len(one.replicates), len(other.replicates))
    for tries in range(2, shared + 1):
        a, b = values_of(one, quality, tries), values_of(other, quality, tries)
        if min(len(a), len(b)) >= 2:
            low, high = difference_interval(a, b)
            if low > 0 or high < 0:
                return True
    return False


def front_probabilities(
    trials: Sequence[Trial], objectives: Sequence[str], *, draws: int = DRAWS, seed: int = 0
) -> dict[int, float]:
    """Return for each complete candidate the probability that it is on the front, by its number.

    Monte Carlo: the expected quality of candidate i is drawn as `mean_i + s_i / sqrt(n_i) * T`, T by Student's t. With
    `ENOUGH_SEEDS` seeds, s_i is its own standard deviation and T has `n_i - 1` degrees of freedom; with fewer, s_i is
    the pooled one, `sqrt(sum((n_j - 1) s_j²) / sum(n_j - 1))` over all candidates with two seeds or more, and T has
    `sum(n_j - 1)`. Costs and other qualities are taken as they are. The share of draws in which no other candidate is
    as good in all of them and better in quality is the probability. Candidates were chosen by their first seed, which
    flatters them: the figure is an upper one.

    Args:
        trials: In any state; complete ones that know all objectives take part.
        objectives: Names in `OBJECTIVES`.
        draws: How many.
        seed: Draws them.

    Returns:
        Nothing where no candidate has two seeds: then nothing is known of what a seed changes.
    """
    quality = quality_of(objectives)
    known = [t for t in trials if t.state is TrialState.COMPLETE and all(_is_known(t, name) for name in objectives)]
    seeds = [values_of(t, quality) for t in known]
    freedom = sum(len(values) - 1 for values in seeds)
    if not freedom:
        return {}
    pooled = math.sqrt(sum((len(v) - 1) * float(np.var(v, ddof=1)) for v in seeds if len(v) > 1) / freedom)
    rng = np.random.default_rng(seed)
    drawn = np.stack([_draws(values, pooled, freedom, draws, rng) for values in seeds], axis=1)
    rest = [name for name in objectives if name != quality]
    fixed = minimisation_matrix(known, rest) if rest else np.zeros((len(known), 0))
    shares = {}
    for place, trial in enumerate(known):
        rivals = np.flatnonzero((fixed <= fixed[place]).all(axis=1))
        shares[trial.number] = float((drawn[:, rivals] <= drawn[:, [place]]).all(axis=1).mean())
    return shares


def untrusted_candidates(trials: Sequence[Trial], objectives: Sequence[str]) -> tuple[Trial, ...]:
    """Return the candidates whose untrusted latency matters to the front, in order of their numbers.

    These are members, and candidates that would be members at the lower end of their latency's interval.
    """
    if not objectives:
        return ()
    members = pareto_front(trials, objectives).members
    possible = pareto_front([at_lowest_latency(t) for t in trials], objectives).members
    numbers = {t.number for t in (*members, *possible)}
    return tuple(t for t in trials if t.number in numbers and has_untrusted_latency(t.cost))


def untrusted_latencies(study: Study) -> tuple[str, ...]:
    """Return the names of what `run --remeasure` measures again: `trial 3`, `reference edsr`."""
    references = [r for r in study.references if not r.reason and has_untrusted_latency(r.cost)]
    return (
        *(f"trial {t.number}" for t in untrusted_candidates(study.trials, study.objectives)),
        *(f"reference {r.name}" for r in references),
    )


def at_lowest_latency(trial: Trial) -> Trial:
    """Return a candidate with the lower end of its latency's interval as its latency, where that is untrusted."""
    if trial.cost is None or trial.cost.latency is None or trial.cost.latency.trusted:
        return trial
    latency = replace(trial.cost.latency, median_ms=trial.cost.latency.low_ms)
    return replace(trial, cost=replace(trial.cost, latency=latency))


def has_untrusted_latency(cost: Cost | None) -> bool:
    """Say whether a latency was measured while the machine was busy."""
    return cost is not None and cost.latency is not None and not cost.latency.trusted


def _draws(values: Sequence[float], pooled: float, freedom: int, draws: int, rng: np.random.Generator) -> Floats:
    own = len(values) >= ENOUGH_SEEDS
    deviation = float(np.std(values, ddof=1)) if own else pooled
    spread = rng.standard_t(len(values) - 1 if own else freedom, size=draws)
    return float(np.mean(values)) + deviation / math.sqrt(len(values)) * spread


def _is_known(trial: Trial, objective: str) -> bool:
    value = trial.value(objective)
    return value is not None and math.isfinite(value)
