"""A warm start: what an earlier run found out is known to the sampler, or is trained here first."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hfir.config import HFIRConfig
from hfir.errors import ConfigError
from search.counts import count
from search.evaluation.host import host_name
from search.pareto import pareto_front
from search.samplers import distribution_of
from search.space import SearchSpace, SpaceError
from search.store import RunStore
from search.types import (
    Genotype,
    InputError,
    Study,
    Trial,
    TrialState,
    cost_from_json,
    measurement_from_json,
    stable_hash,
    to_json,
)

FACT = "warm_start"
MEANING = ("task", "budget", "proxy", "objectives")
"""Sections that decide what a trial's figures mean."""

Encode = Callable[[HFIRConfig, SearchSpace], Genotype]


@dataclass(frozen=True, slots=True, kw_only=True)
class WarmStart:
    """What was taken over.

    Args:
        source: Folder of the earlier run.
        known: Its complete candidates that are points of this space and known to the sampler.
        enqueued: Those that are to be trained here instead, in order.
        foreign: How many of its complete candidates are no points of this space.
        differ: Why its figures do not hold here; empty where they do.
    """

    source: str
    known: int
    enqueued: tuple[Genotype, ...]
    foreign: int
    differ: tuple[str, ...]

    def __str__(self) -> str:
        """Return in words what was taken over, and what was not."""
        if self.differ:
            told = f"{', '.join(self.differ)} differ, with {count(len(self.enqueued), 'candidate')} to train here first"
        else:
            told = f"the sampler knows {count(self.known, 'candidate')} of it"
        left = f"; {self.foreign} are no points of this space" if self.foreign else ""
        return f"warm start from {self.source}: {told}{left}"


def warm_start(store: RunStore, space: SearchSpace, earlier: Study, encode: Encode) -> WarmStart:
    """Take over the complete candidates of an earlier run; done once for each, however often it is asked for.

    Where task, budget, proxy and objectives are the same (and the machine, where latency is an objective), they become
    observations of the sampler: it begins from what is known. They are no trials of this run: its front holds what it
    trained itself, and a network that was known only is no duplicate. Elsewhere their figures mean something else, so
    they are enqueued, the front's members first.

    Args:
        store: The run's record, opened.
        space: What this run searches.
        earlier: The earlier run.
        encode: Finds the point of a space that a network is; SpaceError where there is none.

    Raises:
        InputError: If it is the run itself.
    """
    if earlier.folder.resolve() == store.folder.resolve():
        raise InputError(f"--warm-start {earlier.folder}: this is the run itself.\n  Give the folder of another one.")
    mine = store.study()
    differ = _differences(mine.spec, earlier)
    found, foreign = _points(space, earlier, encode)
    if not differ:
        for trial, point in found:  # Optuna's samplers look here, ours at `prior_trials`
            values = [_figure(trial, objective) for objective in mine.objectives]
            store.add_prior(point, {p.name: distribution_of(p) for p in space.active(point.values)}, values)
    members = {t.number for t in pareto_front(earlier.trials, earlier.objectives).members}
    first = [point for trial, point in found if trial.number in members]
    rest = [point for trial, point in found if trial.number not in members]
    made = WarmStart(
        source=str(earlier.folder),
        known=0 if differ else len(found),
        enqueued=(*first, *rest) if differ else (),
        foreign=foreign,
        differ=tuple(differ),
    )
    priors = [] if differ else [_prior(trial, point) for trial, point in found]
    others = [start for start in _recorded(mine.facts) if start["source"] != made.source]
    store.note(FACT, [*others, {**_record(made), "priors": priors}])
    return made


def enqueued_points(facts: Mapping[str, Any]) -> list[Genotype]:
    """Return what warm starts want to see trained here."""
    return [Genotype(values) for w in _recorded(facts) for values in w["enqueued"]]


def prior_trials(facts: Mapping[str, Any]) -> list[Trial]:
    """Return the candidates that samplers know from warm starts, as trials before the first.

    Their keys are none of points, so that what is known only does not count as proposed.
    """
    known = [prior for start in _recorded(facts) for prior in start["priors"]]
    return [
        Trial(
            number=place - len(known),
            state=TrialState.COMPLETE,
            genotype=Genotype(prior["genotype"]),
            key=f"prior:{Genotype(prior['genotype']).key}",
            seed=0,
            generation=-1,
            config=prior["config"],
            cost=cost_from_json(prior["cost"]),
            measurements=tuple(measurement_from_json(m) for m in prior["measurements"]),
        )
        for place, prior in enumerate(known)
    ]


def _recorded(facts: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    return facts.get(FACT, ())


def _record(made: WarmStart) -> dict[str, Any]:
    return {
        "source": made.source,
        "known": made.known,
        "enqueued": [dict(point.values) for point in made.enqueued],
        "foreign": made.foreign,
        "differ": list(made.differ),
    }


def _prior(trial: Trial, point: Genotype) -> dict[str, Any]:
    return {
        "genotype": dict(point.values),
        "config": dict(trial.config or {}),
        "cost": to_json(trial.cost),
        "measurements": [to_json(m) for m in trial.measurements],
    }


def _differences(spec: Mapping[str, Any], earlier: Study) -> list[str]:
    """Return what keeps the earlier run's figures from holding here."""
    names = [name for name in MEANING if spec.get(name) != earlier.spec.get(name)]
    host = earlier.facts.get("baseline", {}).get("host")
    if "latency_ms" in spec.get("objectives", ()) and host != host_name():
        names.append(f"the machines ({host}, {host_name()})")
    return names


def _points(space: SearchSpace, earlier: Study, encode: Encode) -> tuple[list[tuple[Trial, Genotype]], int]:
    """Return the complete candidates as points of this space, each network once, and how many are none."""
    points: dict[str, tuple[Trial, Genotype]] = {}
    foreign = 0
    for trial in earlier.in_state(TrialState.COMPLETE):
        try:
            point = encode(HFIRConfig.from_dict(dict(trial.config or {})), space)
        except (SpaceError, ConfigError):
            foreign += 1
        else:
            points.setdefault(stable_hash(dict(trial.config or {})), (trial, point))
    return list(points.values()), foreign


def _figure(trial: Trial, objective: str) -> float:
    value = trial.value(objective)
    if value is None:
        raise InputError(f"trial {trial.number} of the earlier run is complete, but has no {objective}.")
    return value
