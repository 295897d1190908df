"""What ends a search: spent trials, time or steps, patience, a space with nothing left; and what is kept of the end."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from typing import Any

from search.counts import count
from search.store import RunStore
from search.study.generation import ADMITTED, generation_of
from search.study.patience import GROWTH, trained_since_growth
from search.study.problem import Problem
from search.study.rules import Rules
from search.types import Trial, TrialState

log = logging.getLogger("search.study")


class Bounds:
    """Says what a search may still spend, and records that it is over.

    The wall time counts from when this is made.

    Args:
        problem: What is searched, with how many trials.
        store: The run's record.
        rules: For how long.
    """

    def __init__(self, problem: Problem, store: RunStore, rules: Rules) -> None:
        self._problem, self._store, self._rules = problem, store, rules
        self._before_s = float(store.facts.get("elapsed_s", 0.0))
        self._begun = time.monotonic()

    @property
    def elapsed_s(self) -> float:
        """Wall time spent on the run, summed over its sessions."""
        return self._before_s + time.monotonic() - self._begun

    @property
    def is_out_of_time(self) -> bool:
        """Whether `search.time` is spent: no training is begun any more."""
        return self._rules.time_s is not None and self.elapsed_s >= self._rules.time_s

    @property
    def are_spent(self) -> bool:
        """Whether the trials, the time or the steps are spent, so that nothing more is proposed."""
        return self._has_all_trials or self.is_out_of_time or self._has_too_few_steps

    @property
    def stagnates(self) -> bool:
        """Whether `search.patience` is spent."""
        return self._rules.patience is not None and trained_since_growth(self._store.study()) >= self._rules.patience

    def affordable(self, trials: Sequence[Trial], rung: int) -> list[Trial]:
        """Return the candidates whose training fits into what is left of time and steps, the slowest first."""
        if self.is_out_of_time:
            return []
        slowest_first = sorted(trials, key=lambda t: -(t.value("latency_ms") or 0.0))
        left = self._steps_left
        if left is None:
            return slowest_first
        chosen: list[Trial] = []
        for trial in slowest_first:
            left -= self._problem.proxy.rungs[rung] - (0 if trial.last is None else trial.last.step)
            chosen += [trial] if left >= 0 else []
        return chosen

    def note_time(self) -> None:
        """Keep the wall time so far."""
        self._store.note("elapsed_s", round(self.elapsed_s, 1))

    @property
    def are_closed(self) -> bool:
        """Whether the search was closed as it stands: with more candidates, or under other bounds, it goes on."""
        return self._store.facts.get("closed") == self._closed()

    def close(self, *, is_cut: bool, nothing_left: str) -> None:
        """Tell off the candidates that no rung promoted, and keep what ended the search.

        Args:
            is_cut: Whether candidates still wait to be measured, or to be trained.
            nothing_left: Why nothing was left to propose, in words; empty where something was.
        """
        rule, reason = self._ending(is_cut=is_cut, nothing_left=nothing_left)
        early = "" if rule == "trials" else reason
        if early:
            log.warning("study=%s ended_early=%r", self._problem.name, early)
        with self._store.together():
            self._store.note("ended_by", {"rule": rule, "reason": reason})
            if early or self._store.facts.get("ended_early"):
                self._store.note("ended_early", early)
            self.note_time()
            for trial in self._store.study().in_state(TrialState.RUNNING):
                last = trial.last
                where = "before its first rung" if last is None else f"after {count(last.step, 'step')}"
                self._store.finish(trial.number, TrialState.STOPPED, reason=f"not promoted, stopped {where}")
            self._store.note("closed", self._closed())

    @property
    def are_met(self) -> bool:
        """Whether the run was finished under the present number of trials and bounds."""
        facts = self._store.facts
        same = facts.get("finished_under", self._rules.bounds) == self._rules.bounds
        return same and int(facts.get("finished", 0)) >= self._problem.search.trials

    def finish(self) -> None:
        """Keep for how many trials, and under which bounds, the run is finished; asked for more, it goes on."""
        with self._store.together():
            self.note_time()
            self._store.note("finished_under", self._rules.bounds)
            self._store.note("finished", self._problem.search.trials)

    @property
    def _has_all_trials(self) -> bool:
        to_leave = generation_of(self._problem, self._store).to_leave
        return self._store.index.count(*ADMITTED) - to_leave >= self._problem.search.trials

    @property
    def _steps_left(self) -> int | None:
        if self._rules.steps is None:
            return None
        return self._rules.steps - sum(t.last.step for t in self._store.index.trials if t.last is not None)

    @property
    def _has_too_few_steps(self) -> bool:
        left = self._steps_left
        return left is not None and left < self._problem.proxy.rungs[0]

    def _closed(self) -> dict[str, Any]:
        """Return what a close holds for."""
        considered = len(self._store.index)
        return {"considered": considered, "trials": self._problem.search.trials, **self._rules.bounds}

    def _ending(self, *, is_cut: bool, nothing_left: str) -> tuple[str, str]:
        """Return which rule ends the search, by its name in the experiment, and why in words."""
        unfinished = is_cut or not self._has_all_trials
        left, steps = self._steps_left, self._rules.steps
        if self.is_out_of_time and unfinished:
            return "time", f"search.time of {self._rules.time_s:g} s is spent"
        if left is not None and (is_cut or (unfinished and self._has_too_few_steps)):
            return "steps", f"{left:,} of search.steps {steps:,} are left, less than the next training takes"
        if not unfinished:
            return "trials", f"search.trials of {self._problem.search.trials:,} is spent"
        if nothing_left:
            return "space", nothing_left
        return "patience", (
            f"the last {trained_since_growth(self._store.study())} trained candidates did not enlarge the dominated "
            f"volume by {GROWTH:.1%} (search.patience {self._rules.patience})"
        )
