"""What stands in Optuna's records, and how it is read back as ours."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import FrozenTrial

from search.types import Genotype, Study, Trial, TrialState, cost_from_json, measurement_from_json, replicate_from_json

PROPOSAL, COST, SCORES, OUTCOME = "proposal", "cost", "scores", "outcome"
MEASUREMENT = "measurement:"
"""An attribute for each rung, numbered from 0; runs begun before version 0.2 hold them in one, `measurements`."""
FACT = "fact:"
PRIOR = "prior"
"""Of a trial that is none of this run's: what the sampler knows from a warm start."""
PROFILE = "profile"
"""Fact: where each session's time went, by the session's number."""
REPLICATES, SETBACKS = "replicates", "setbacks"
"""Facts about trials; Optuna closes a trial that was told, so that what comes later stands beside it."""

OPTUNA_STATE = {
    TrialState.COMPLETE: optuna.trial.TrialState.COMPLETE,
    TrialState.FAILED: optuna.trial.TrialState.FAIL,
    TrialState.STOPPED: optuna.trial.TrialState.PRUNED,
    TrialState.SCREENED: optuna.trial.TrialState.PRUNED,
    TrialState.INFEASIBLE: optuna.trial.TrialState.PRUNED,
    TrialState.DUPLICATE: optuna.trial.TrialState.PRUNED,
}
"""What the sampler is told. A rejection is PRUNED with its constraints: TPE learns nothing from FAIL. What was screened
out is PRUNED with its constraints, all kept to: TPE then takes it for worse than any that was trained, other samplers
learn its costs and no quality."""


def study_of(folder: Path, study: optuna.Study) -> Study:
    """Return a run as all of its records tell it."""
    attributes = study.user_attrs
    facts = facts_of(attributes)
    frozen = study.get_trials(deepcopy=False)
    spec = attributes.get("spec", {})
    return Study(
        name=study.study_name,
        folder=folder,
        objectives=tuple(spec.get("objectives", ())),
        spec=spec,
        facts=facts,
        trials=tuple(trial_of(t, facts) for t in frozen if is_recorded(t)),
    )


def facts_of(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """Return the facts of a run; those about single trials, `fact:NAME:NUMBER`, as one mapping a name.

    None stands for what was once known of a trial, and no longer holds.
    """
    facts: dict[str, Any] = {}
    for key, value in sorted(attributes.items()):
        name, _, trial = key.removeprefix(FACT).partition(":")
        if not key.startswith(FACT):
            continue
        if not trial:
            facts[name] = value
        else:
            others = {n: known for n, known in facts.get(name, {}).items() if n != trial}
            facts[name] = others if value is None else others | {trial: value}
    return facts


def is_recorded(frozen: FrozenTrial) -> bool:
    """Say whether a trial was recorded as proposed; until then it is no part of the study."""
    return PROPOSAL in frozen.user_attrs


def trial_of(frozen: FrozenTrial, facts: Mapping[str, Any]) -> Trial:
    """Read a recorded trial, as the facts amend it.

    It is INFEASIBLE where it missed its budget when it was measured again, and costs what it does on the machine that
    its run has moved to.
    """
    attributes = frozen.user_attrs
    proposal, outcome = attributes[PROPOSAL], attributes.get(OUTCOME, {})
    trial = Trial(
        number=frozen.number,
        state=TrialState(outcome.get("state", TrialState.RUNNING)),
        genotype=Genotype(proposal["genotype"]),
        key=proposal["key"],
        seed=proposal["seed"],
        generation=proposal["generation"],
        config=proposal["config"],
        cost=cost_from_json(attributes[COST]) if COST in attributes else None,
        scores=attributes.get(SCORES, {}),
        measurements=tuple(measurement_from_json(m) for m in _measurements(attributes)),
        reason=outcome.get("reason", ""),
        failure=outcome.get("failure", ""),
    )
    replicates, setbacks = (facts.get(name, {}).get(str(frozen.number)) for name in (REPLICATES, SETBACKS))
    if replicates or setbacks:
        seeds = tuple(replicate_from_json(r) for r in replicates or ())
        trial = replace(trial, replicates=seeds, setbacks=tuple(setbacks or ()))
    withdrawn = facts.get("withdrawn", {}).get(str(frozen.number))
    cost = facts.get("remeasured", {}).get(str(frozen.number))
    if cost is not None:
        amended = cost_from_json(cost)
        reason = amended.doubt if trial.state is TrialState.COMPLETE else trial.reason
        trial = replace(trial, cost=amended, reason=reason)
    return trial if withdrawn is None else replace(trial, state=TrialState.INFEASIBLE, reason=withdrawn)


def _measurements(attributes: Mapping[str, Any]) -> list[Any]:
    known = list(attributes.get("measurements", ()))
    while (key := f"{MEASUREMENT}{len(known)}") in attributes:
        known.append(attributes[key])
    return known
