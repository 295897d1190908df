"""Where the next candidate comes from: what is enqueued, then the sampler, then chance, where that one is stuck."""

from __future__ import annotations

from itertools import islice, takewhile

import optuna

from hfir.errors import ConfigError
from search.samplers import GivenPoint, Request, build_sampler, proposal_seed, propose
from search.store import RunStore, TrialIndex
from search.study.enqueued import enqueue, enqueued
from search.study.generation import PASSED
from search.study.problem import Described, Problem
from search.study.rules import Rules
from search.study.warm import prior_trials
from search.types import Genotype, TrialState

DRY_BEFORE_RANDOM = 40
"""After so many free proposals in a row the sampler is stuck, and points are drawn at random."""
DRY_BEFORE_END = 500
"""After so many, the budget leaves nothing to train."""
SMALL_SPACE = 20_000
"""Spaces up to this size are enumerated to find what was not yet considered."""


class Proposals:
    """Asks for candidates, and records them.

    Args:
        problem: What is searched.
        store: The run's record.
        rules: What goes first.
    """

    def __init__(self, problem: Problem, store: RunStore, rules: Rules) -> None:
        self._problem, self._store, self._rules = problem, store, rules

    def begin(self) -> None:
        """Keep what is enqueued."""
        enqueue(self._store, self._rules.enqueued)

    @property
    def waiting(self) -> int:
        """How many enqueued points were not proposed yet."""
        asked = {point.key for point in (*self._rules.enqueued, *enqueued(self._store.facts))}
        return len(asked - set(self._store.index.keys))

    @property
    def nothing_left(self) -> str:
        """Why there is nothing left to propose, in words; empty where there is."""
        size = self._problem.space.size
        if len(self._store.index.keys) >= size:
            return (
                "the only point of the space was considered"
                if size == 1
                else f"all {size} points of the space were considered"
            )
        if _dry(self._store.index) >= DRY_BEFORE_END:
            return f"the last {DRY_BEFORE_END} proposals were all over the budget, illegal or duplicates"
        return ""

    def propose(self, generation: int) -> None:
        """Ask for one candidate and record it; illegal and repeated ones are told at once and cost nothing."""
        index, seed = len(self._store.index), self._problem.search.seed
        with self._store.together(durable=False):
            self._store.optuna.sampler = self._sampler(index)
            trial, genotype = propose(self._store.optuna, self._problem.space)
            described, fault = self._decode(genotype)
            config = None if described is None else described.to_dict()
            twin = self._store.index.twin(genotype.key, config)
            number = self._store.record_proposal(
                trial,
                genotype=genotype,
                seed=proposal_seed(seed, index, purpose=1),
                generation=generation,
                config=config,
            )
            if twin is not None:
                self._store.finish(number, TrialState.DUPLICATE, reason=f"same network as trial {twin}")
            elif described is None:
                self._store.finish(number, TrialState.INFEASIBLE, reason=fault, constraint="legal")

    def _sampler(self, index: int) -> optuna.samplers.BaseSampler:
        """Return the sampler for the next proposal: what is enqueued goes first; a stuck one gives way to chance."""
        space, search = self._problem.space, self._problem.search
        asked = {point.key: point for point in enqueued(self._store.facts)}
        waiting = [point for key, point in asked.items() if key not in self._store.index.keys]
        if waiting:
            return GivenPoint(waiting[0])
        seed = proposal_seed(search.seed, index)
        if _dry(self._store.index) < DRY_BEFORE_RANDOM:
            priors = prior_trials(self._store.facts)
            request = Request(
                trials=(*priors, *self._store.index.trials),
                space=space,
                objectives=self._problem.objectives,
                run_seed=search.seed,
                index=index + len(priors) - len(asked),
                limits=self._problem.limits,
            )
            return build_sampler(search.sampler, request)
        if space.size <= SMALL_SPACE:
            unseen = [g for g in space.enumerate() if g.key not in self._store.index.keys]
            return GivenPoint(unseen[seed % len(unseen)])
        return GivenPoint(space.sample(seed))

    def _decode(self, genotype: Genotype) -> tuple[Described | None, str]:
        try:
            return self._problem.decode(genotype), ""
        except ConfigError as error:
            return None, str(error).splitlines()[0]


def _dry(index: TrialIndex) -> int:
    """Return how many of the last proposals in a row were free; no more than what ends a run are counted."""
    newest = islice(index.newest_first(), DRY_BEFORE_END)
    return sum(1 for _ in takewhile(lambda t: t.state not in PASSED, newest))
