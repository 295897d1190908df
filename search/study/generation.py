"""The candidates that are proposed before any of them is trained, and which of them a score leaves behind."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from itertools import takewhile

from search.schedulers import Screening, screened_out
from search.store import RunStore, TrialIndex
from search.study.enqueued import enqueued
from search.study.problem import Problem, Screened
from search.types import Trial, TrialState

ADMITTED = (TrialState.RUNNING, TrialState.COMPLETE, TrialState.STOPPED, TrialState.FAILED)
"""States that cost one of `search.trials`."""
PASSED = (*ADMITTED, TrialState.SCREENED)
"""States of what passed the budget, or failed at it."""


@dataclass(frozen=True, slots=True)
class Generation:
    """The last generation, as the records tell it.

    Args:
        members: Its candidates that passed the budget.
        screening: By which score candidates are left behind; None for by none.
        exempt: Keys of points that were asked for by name: they are trained whatever their score.
    """

    members: Sequence[Trial]
    screening: Screening | None = None
    exempt: Collection[str] = ()

    @property
    def places(self) -> int:
        """How many trainings its candidates are worth so far."""
        if self.screening is None:
            return len(self.members)
        free = len(self._free(self.members))
        return len(self.members) - free + free // self.screening.of

    @property
    def to_leave(self) -> int:
        """How many open candidates will not be trained once it is screened, as far as whole lots are there."""
        if self.screening is None or self._is_under_way or any(t.state is TrialState.SCREENED for t in self.members):
            return 0
        waiting = len(self._free(t for t in self.members if t.state is TrialState.RUNNING))
        return waiting - waiting // self.screening.of

    def losers(self, objectives: Sequence[str]) -> tuple[Trial, ...]:
        """Return the open candidates that are to be left behind; the same ones again after some of them were."""
        if self.screening is None or self._is_under_way:
            return ()
        scored = [t for t in self._free(self.members) if t.scores]
        out = screened_out(scored, self.screening, objectives)
        return tuple(t for t in out if t.state is TrialState.RUNNING)

    @property
    def _is_under_way(self) -> bool:
        return any(t.measurements for t in self.members)

    def _free(self, trials: Iterable[Trial]) -> list[Trial]:
        return [t for t in trials if t.key not in self.exempt]


def last_generation(index: TrialIndex, screening: Screening | None = None, exempt: Collection[str] = ()) -> Generation:
    """Return the last generation of a run."""
    last = next(index.newest_first(), None)
    same = takewhile(lambda t: last is not None and t.generation == last.generation, index.newest_first())
    return Generation([t for t in same if t.state in PASSED], screening, exempt)


def generation_of(problem: Problem, store: RunStore) -> Generation:
    """Return the last generation of a run as its problem wants it screened; what was asked for by name is not."""
    screening = problem.screening if isinstance(problem, Screened) else None
    if screening is None:
        return last_generation(store.index)
    return last_generation(store.index, screening, {point.key for point in enqueued(store.facts)})
