"""On which machine a run goes on: its latencies are of one, and on another one they are refused or taken anew."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from search.evaluation.answers import Admission, Baseline
from search.executors import Outcome
from search.store import RunStore
from search.study.jobs import CandidateJobs
from search.study.problem import Problem
from search.study.rules import failure_kind
from search.study.steps import Kind, Step
from search.tasks.identity import refuse_other_photographs
from search.tasks.leaks import seen_from_json
from search.types import InputError, Study, Trial, TrialState, to_json

log = logging.getLogger("search.study")

ELSEWHERE = "start in a new folder with --out"


class Moving:
    """Finds out on which machine the run is, and has the candidates of another one measured on it.

    Args:
        problem: What is searched.
        store: The run's record.
        jobs: Makes the measuring.
        allowed: Take all latencies anew where they were taken on another machine than this; otherwise refuse.
    """

    def __init__(self, problem: Problem, store: RunStore, jobs: CandidateJobs, *, allowed: bool) -> None:
        self._problem, self._store, self._jobs, self._allowed = problem, store, jobs, allowed
        self._host: str | None = None
        self._moved: tuple[int, ...] = ()

    def next_step(self) -> Step | None:
        """Return the look at the data that tells the machine, then what is to be measured on it; None for nothing."""
        if self._host is None:
            return Step(kind=Kind.LOOK, phase="loading photographs", jobs=(None,))
        foreign = self._foreign([self._store.index[n] for n in self._moved], self._host)
        if not foreign:
            return None
        phase = f"measuring trial {foreign[0].number} on this machine"
        return Step(kind=Kind.REMEASURE, phase=phase, jobs=(self._jobs.measuring(foreign[0]),))

    def keep_baseline(self, baseline: Baseline) -> None:
        """Keep what the run is compared with; refuse other photographs, and latencies of another machine.

        Raises:
            InputError: If there are such, and moving is not allowed.
        """
        for note in (*baseline.notes, *([baseline.storage] if baseline.storage else [])):
            log.info("study=%s data=%r", self._problem.name, note)
        refuse_other_baseline(self._store.study(), baseline)
        if "baseline" not in self._store.facts:
            self._store.note("baseline", baseline.facts())
        foreign = self._foreign(self._store.index.trials, baseline.host)
        if foreign and not self._allowed:
            raise InputError(
                f"{self._store.folder}: its latencies were taken on {_host(foreign[0])}, and this machine is "
                f"{baseline.host}.\n  Latencies of two machines do not compare. Go on there, start anew in another "
                "folder with --out, or take all of them again here with --remeasure."
            )
        if foreign:
            self._store.forget("verified")
            self._store.forget("unverified")
        self._store.accept_data_folders()
        self._host, self._moved = baseline.host, tuple(t.number for t in foreign)

    def is_foreign(self, trial: Trial) -> bool:
        """Say whether a candidate is one of those to be measured on this machine, and was not yet."""
        return trial.number in self._moved and _host(trial) not in (None, self._host)

    @property
    def has_moved(self) -> bool:
        """Whether candidates were measured on another machine when this session began."""
        return bool(self._moved)

    def give_up(self, trial: Trial, outcome: Outcome[Any, Any]) -> None:
        """Withdraw a candidate that cannot be measured here, once no more tries are left: it compares with nothing."""
        error = outcome.error
        if error is None or str(trial.number) not in self._store.facts.get("unverified", {}) or trial.cost is None:
            return
        reason = f"{failure_kind(error)}: not measured again on another machine"
        if trial.state is TrialState.RUNNING:
            log.warning("study=%s trial=%d state=FAILED reason=%r", self._problem.name, trial.number, reason)
            self._store.finish(trial.number, TrialState.FAILED, reason=reason, failure=outcome.trace or str(error))
        elif trial.state is TrialState.COMPLETE:
            self._store.note("withdrawn", reason, trial=trial.number)
        self._store.note("remeasured", to_json(replace(trial.cost, latency=None)), trial=trial.number)

    def keep(self, trial: Trial, admission: Admission) -> None:
        """Replace what a candidate costs by what it costs on this machine; one that misses a limit here is out."""
        if admission.reason and trial.state is TrialState.RUNNING:
            self._store.finish(trial.number, TrialState.INFEASIBLE, reason=admission.reason)
        elif admission.reason and trial.state is TrialState.COMPLETE:
            reason = f"measured again on another machine: {admission.reason}"
            self._store.note("withdrawn", reason, trial=trial.number)
        self._store.note("remeasured", to_json(admission.cost), trial=trial.number)
        if admission.doubt:
            log.warning("study=%s trial=%d %s", self._problem.name, trial.number, admission.doubt)

    def _foreign(self, trials: Sequence[Trial], host: str) -> list[Trial]:
        return foreign_trials(replace(self._store.study(), trials=tuple(trials)), host)


def foreign_trials(study: Study, host: str) -> list[Trial]:
    """Return the candidates whose latencies are of another machine, where latencies count."""
    limit = study.spec.get("budget", {}).get("latency_ms", {}).get("max")
    counts = limit is not None or "latency_ms" in study.objectives
    return [t for t in study.trials if counts and _host(t) not in (None, host)]


def refuse_other_baseline(study: Study, baseline: Baseline) -> None:
    """Refuse to resume a run on other photographs than those it recorded.

    Raises:
        InputError: If they differ; it names what was changed, removed or added.
    """
    found = seen_from_json(baseline.photographs)
    if found is not None:
        refuse_other_photographs(
            study.facts.get("baseline", {}).get("photographs"), found, str(study.folder), ELSEWHERE
        )


def _host(trial: Trial) -> str | None:
    """Return the machine that a candidate's latency was taken on, where it was taken."""
    return None if trial.cost is None or trial.cost.latency is None else trial.cost.latency.host
