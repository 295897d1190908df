"""A run's trials in memory, with what its next step is decided from: who waits for what, who came before."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from search.types import Trial, TrialState, stable_hash


class TrialIndex:
    """The trials of a run by number, state and network; each change costs the same, however long the run.

    It holds nothing of its own: it is filled from the records when a run is opened, and a trial is read from its
    record again after each change.

    Args:
        trials: In order of their numbers.
    """

    def __init__(self, trials: Iterable[Trial] = ()) -> None:
        self._trials: dict[int, Trial] = {}
        self._states: Counter[TrialState] = Counter()
        self._waiting: dict[int | None, dict[int, Trial]] = {}
        self._by_key: dict[str, int] = {}
        self._by_network: dict[str, int] = {}
        self._tuple: tuple[Trial, ...] | None = None
        for trial in trials:
            self.put(trial)

    def put(self, trial: Trial) -> None:
        """Take a trial in, or its new state; a new one has a higher number than all before."""
        before = self._trials.get(trial.number)
        if before is None:
            self._by_key.setdefault(trial.key, trial.number)
            if trial.config is not None:
                self._by_network.setdefault(fingerprint(trial.config), trial.number)
        else:
            self._states[before.state] -= 1
            self._waiting.get(_rung(before), {}).pop(trial.number, None)
        self._trials[trial.number] = trial
        self._states[trial.state] += 1
        if trial.state is TrialState.RUNNING:
            self._waiting.setdefault(_rung(trial), {})[trial.number] = trial
        self._tuple = None

    def __len__(self) -> int:
        return len(self._trials)

    def __getitem__(self, number: int) -> Trial:
        return self._trials[number]

    @property
    def trials(self) -> tuple[Trial, ...]:
        """All trials, in order of their numbers."""
        if self._tuple is None:
            self._tuple = tuple(self._trials.values())
        return self._tuple

    @property
    def keys(self) -> Mapping[str, int]:
        """The points of the space that were considered, with the trial that was the first."""
        return self._by_key

    def count(self, *states: TrialState) -> int:
        """Return how many trials are in one of the states."""
        return sum(self._states[state] for state in states)

    def newest_first(self) -> Iterator[Trial]:
        """Yield the trials from the last one back."""
        return reversed(self._trials.values())

    def unmeasured(self) -> tuple[Trial, ...]:
        """Return the open trials whose cost is not known yet, by number."""
        return self._open(None)

    def waiting(self, rung: int) -> tuple[Trial, ...]:
        """Return the open trials with a known cost whose next rung would be this one, by number."""
        return self._open(rung)

    def twin(self, key: str, network: Mapping[str, Any] | None) -> int | None:
        """Return the first trial at the same point of the space, or of the same network, if any."""
        known = [self._by_key.get(key), None if network is None else self._by_network.get(fingerprint(network))]
        return min((number for number in known if number is not None), default=None)

    def _open(self, rung: int | None) -> tuple[Trial, ...]:
        return tuple(trial for _, trial in sorted(self._waiting.get(rung, {}).items()))


def fingerprint(network: Mapping[str, Any]) -> str:
    """Return the name of a network's configuration: equal for equal ones, whatever genotype they came from."""
    return stable_hash(dict(network))


def _rung(trial: Trial) -> int | None:
    """Return the rung that an open trial would be trained through next; None before its cost is known."""
    return None if trial.cost is None else len(trial.measurements)
