"""The networks that a run is compared with: tried first, measured and trained at its end, kept among its facts."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

from search.certainty import has_untrusted_latency
from search.evaluation.answers import Admission
from search.evaluation.plan import ReferenceJob
from search.executors import Outcome, value_of
from search.references.plan import ReferencePlan
from search.store import RunStore
from search.study.paths import reference_path
from search.study.steps import Job, Kind, Step
from search.tasks.identity import photographs_key
from search.types import InputError, Measurement, Study, cost_from_json, stable_hash, to_json

log = logging.getLogger("search.study")

FACT = "references"
REFERENCE_KINDS = (Kind.TRY_REFERENCE, Kind.MEASURE_REFERENCE, Kind.TRAIN_REFERENCE)


class References:
    """Decides what is to be done for a run's references, and records what came of it.

    What is known of each stands in the run's records under its name, with a key of how it is made: one whose making
    has changed is begun anew, one that is done is left alone. They are no part of what a trial means, so they may be
    added to a run at any time.

    Args:
        plans: The references, in the order in which they are shown.
        store: The run's record.
        rungs: Steps of training, rising; they are trained through all of them.
        seed: Of the run.
        complete: Whether `plans` are all that the experiment names: others that it once named are forgotten.
        remeasure: Measure every untrusted latency of theirs again, once a session.
    """

    def __init__(
        self,
        plans: Sequence[ReferencePlan],
        store: RunStore,
        *,
        rungs: tuple[int, ...],
        seed: int,
        complete: bool = True,
        remeasure: bool = False,
    ) -> None:
        self._plans = {plan.name: plan for plan in plans}
        self._store, self._rungs, self._seed, self._complete = store, rungs, seed, complete
        self._remeasure = remeasure
        self._keys = {plan.name: plan.key for plan in plans}  # once: a user's module may be edited meanwhile
        self._tried: set[str] = set()
        self._measured: set[str] = set()

    def begin(self) -> None:
        """Forget what the experiment no longer names, and what is made differently now."""
        known = self._known()
        kept = {n: r for n, r in known.items() if (not self._is_stale(n, r) if n in self._plans else self._stays(r))}
        if list(self._in_order(kept)) != list(known):
            self._store.note(FACT, self._in_order(kept))

    def move_to(self, host: str) -> None:
        """Forget latencies of another machine than this; those of `plans` are measured here, trainings are kept."""
        known = self._known()
        foreign = {name: record for name, record in known.items() if _host(record) not in (None, host)}
        if foreign:
            moved = {name: r | {"cost": r["cost"] | {"latency": None}, "over": ""} for name, r in foreign.items()}
            self._store.note(FACT, known | moved)

    @property
    def are_done(self) -> bool:
        """Whether each is measured and trained through all rungs, or has failed."""
        known = self._known()
        return all(not self._is_stale(n, known.get(n)) and self._is_done(known[n]) for n in self._plans)

    @property
    def untrusted(self) -> list[str]:
        """Names of those whose untrusted latency is to be measured again in this session."""
        return self._untrusted(self._known())

    def trying(self, study: Study) -> Step | None:
        """Return the trial of those with work left; None where it was made."""
        names = [name for name in self._waiting(_known_of(study)) if name not in self._tried]
        jobs = tuple(self._job(name) for name in names)
        return Step(kind=Kind.TRY_REFERENCE, phase="trying the references", jobs=jobs) if names else None

    def next_step(self, study: Study) -> Step | None:
        """Return what is to be done now; None where nothing is left."""
        known = _known_of(study)
        waiting = self._waiting(known)
        unmeasured = [name for name in waiting if _host(known[name]) is None]
        if unmeasured:
            phase = f"measuring reference {unmeasured[0]}"
            return Step(kind=Kind.MEASURE_REFERENCE, phase=phase, jobs=(self._job(unmeasured[0]),))
        if not waiting:
            untrusted = self._untrusted(known)
            phase = f"measuring reference {untrusted[0]} again, its latency is untrusted" if untrusted else ""
            jobs = tuple(self._job(name) for name in untrusted[:1])
            return Step(kind=Kind.MEASURE_REFERENCE, phase=phase, jobs=jobs) if jobs else None
        rungs = {name: len(known[name]["measurements"]) for name in waiting}
        rung = min(rungs.values())
        jobs = tuple(self._job(name, rung=rung) for name in waiting if rungs[name] == rung)
        return Step(kind=Kind.TRAIN_REFERENCE, phase=f"training references to step {self._rungs[rung]}", jobs=jobs)

    def take(self, kind: Kind, outcome: Outcome[Job, Any]) -> None:
        """Record the answer to a job; a reference that fails is recorded as such, and the run goes on.

        Raises:
            InputError: If a reference cannot be built, or does not restore images.
        """
        if not isinstance(outcome.job, ReferenceJob):
            raise TypeError(f"{kind}: answers a {type(outcome.job).__name__}, not a ReferenceJob.")
        name = outcome.job.reference.name
        if kind is Kind.MEASURE_REFERENCE:
            self._measured.add(name)
        if kind is Kind.TRY_REFERENCE:
            value_of(outcome)
            self._tried.add(name)
            known = self._known()
            self._store.note(FACT, self._in_order(known | {name: known.get(name) or self._fresh(name)}))
        elif outcome.error is not None:
            self._fail(name, outcome)
        elif kind is Kind.MEASURE_REFERENCE:
            admission: Admission = value_of(outcome)
            self._change(name, cost=to_json(admission.cost), over=admission.reason)
        else:
            self._keep(name, value_of(outcome))

    def _keep(self, name: str, measurement: Measurement) -> None:
        self._change(name, measurements=[*self._known()[name]["measurements"], to_json(measurement)])
        values = (self._store.name, name, measurement.step, measurement.psnr_db, measurement.elapsed_s)
        log.info("study=%s reference=%s step=%d psnr_db=%.3f elapsed_s=%.1f", *values)

    def _fail(self, name: str, outcome: Outcome[Job, Any]) -> None:
        """Record a failure; one that was measured before keeps that figure."""
        if isinstance(outcome.error, InputError):
            raise outcome.error
        reason = str(outcome.error).splitlines()[0] if str(outcome.error) else repr(outcome.error)
        if self._is_done(self._known()[name]):
            log.warning("study=%s reference=%s not_measured_again=%r", self._store.name, name, reason)
            return
        log.warning("study=%s reference=%s state=FAILED reason=%r", self._store.name, name, reason)
        self._change(name, reason=reason, failure=outcome.trace or str(outcome.error))

    def _change(self, name: str, **changes: Any) -> None:
        known = self._known()
        self._store.note(FACT, known | {name: known[name] | changes})

    def _known(self) -> dict[str, Any]:
        return _known_of(self._store.study())

    def _waiting(self, known: dict[str, Any]) -> list[str]:
        return [name for name in self._plans if name not in known or not self._is_done(known[name])]

    def _stays(self, record: dict[str, Any]) -> bool:
        """Say whether to keep what is none of `plans`: one that was added by hand, or that others are named beside."""
        return record["added"] or not self._complete

    def _in_order(self, records: dict[str, Any]) -> dict[str, Any]:
        """Return records in the order in which they are shown: as the experiment names them, then the others."""
        named = {name: records[name] for name in self._plans if name in records}
        return named | records if self._complete else records | named

    def _is_done(self, record: dict[str, Any]) -> bool:
        measured = record["measurements"]
        is_trained = bool(measured) and measured[-1]["rung"] == len(self._rungs) - 1
        return bool(record["reason"]) or (is_trained and _host(record) is not None)

    def _untrusted(self, known: dict[str, Any]) -> list[str]:
        if not self._remeasure:
            return []
        measured = {n: known[n] for n in self._plans if n in known and n not in self._measured}
        costs = {n: cost_from_json(r["cost"]) for n, r in measured.items() if r["cost"] and not r["reason"]}
        return [name for name, cost in costs.items() if has_untrusted_latency(cost)]

    def _is_stale(self, name: str, record: dict[str, Any] | None) -> bool:
        return record is None or record["key"] != self._keys[name]

    def _fresh(self, name: str) -> dict[str, Any]:
        plan = self._plans[name]
        begun = {"key": self._keys[name], "made": plan.made, "added": not self._complete, "cost": None, "over": ""}
        return {**begun, "measurements": [], "reason": "", "failure": ""}

    def _job(self, name: str, rung: int = 0) -> ReferenceJob:
        plan = self._plans[name]
        return ReferenceJob(
            reference=plan,
            seed=int(stable_hash([self._seed, name]), 16) % 2**32,
            checkpoint=str(reference_path(self._store.folder, name, self._keys[name])),
            rung=rung,
            photographs=photographs_key(self._store.facts.get("baseline", {}).get("photographs")),
        )


def added_plans(study: Study) -> tuple[ReferencePlan, ...]:
    """Return the built-in networks that were added to a run by hand, so that they can be measured again.

    Modules are left out: a run's record does not decide which code is imported.
    """
    records = _known_of(study)
    made = {name: record["made"] for name, record in records.items() if record["added"]}
    return tuple(
        ReferencePlan(name=name, network=how["network"], args=how["args"])
        for name, how in made.items()
        if how.get("network")
    )


def _host(record: dict[str, Any]) -> str | None:
    """Return the machine that a reference was measured on, where it was."""
    latency = (record["cost"] or {}).get("latency")
    return None if latency is None else latency["host"]


def _known_of(study: Study) -> dict[str, Any]:
    return dict(study.facts.get(FACT, {}))
