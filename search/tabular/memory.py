"""A run's record that is kept in memory alone: for searches that are over in seconds and leave a curve behind."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna
from optuna.storages import InMemoryStorage
from optuna.study import StudyDirection

from search.store import OPTUNA_STATE, with_notes
from search.types import OBJECTIVES, Cost, Genotype, Measurement, Study, Trial, TrialState


class MemoryStore:
    """Keeps what `search.store.RunStore` keeps, and tells Optuna the same, without a file.

    Args:
        name: Of the study.
        objectives: Names in `search.types.OBJECTIVES`.

    `trainings` lists each candidate's training through a rung, in the order in which they were recorded.
    """

    def __init__(self, name: str, objectives: tuple[str, ...]) -> None:
        self.name, self.objectives, self.folder = name, objectives, Path()
        self._storage = InMemoryStorage()
        directions = [
            StudyDirection.MAXIMIZE if OBJECTIVES[each].maximise else StudyDirection.MINIMIZE for each in objectives
        ]
        self.optuna = optuna.create_study(storage=self._storage, study_name=name, directions=directions)
        self._study_id = self._storage.get_study_id_from_name(name)
        self._trials: list[Trial] = []
        self.trainings: list[tuple[Trial, Measurement]] = []
        self._facts: dict[str, Any] = {}

    def note(self, key: str, value: Any) -> None:
        """Keep a fact about the run as a whole."""
        self._facts[key] = value
        _, _, number = key.partition(":")
        if number:  # what belongs to a trial
            self._trials[int(number)] = with_notes(self._trials[int(number)], self._facts)

    def record_proposal(
        self,
        trial: optuna.Trial,
        *,
        genotype: Genotype,
        seed: int,
        generation: int,
        config: Mapping[str, Any] | None,
    ) -> int:
        """Keep what was proposed; return its number."""
        self._trials.append(
            Trial(
                number=trial.number,
                state=TrialState.RUNNING,
                genotype=genotype,
                key=genotype.key,
                seed=seed,
                generation=generation,
                config=config,
            )
        )
        return trial.number

    def record_cost(self, number: int, cost: Cost, margins: Mapping[str, float]) -> None:
        """Keep what a candidate costs, and its margins as Optuna's constraints."""
        for name, margin in margins.items():
            self._storage.set_trial_system_attr(self._trial_id(number), f"constraints:{name}", margin)
        self._trials[number] = replace(self._trials[number], cost=cost)

    def record_measurement(self, trial: Trial, measurement: Measurement) -> None:
        """Keep what a rung showed."""
        known = self._trials[trial.number]
        self.trainings.append((trial, measurement))
        self._trials[trial.number] = replace(known, measurements=(*known.measurements, measurement))

    def finish(
        self,
        number: int,
        state: TrialState,
        *,
        values: list[float] | None = None,
        reason: str = "",
        failure: str = "",
        constraint: str | None = None,
    ) -> None:
        """Keep how a candidate ended, and tell Optuna."""
        if constraint is not None:
            self._storage.set_trial_system_attr(self._trial_id(number), f"constraints:{constraint}", 1.0)
        self._trials[number] = replace(self._trials[number], state=state, reason=reason, failure=failure)
        self.optuna.tell(number, values=values, state=OPTUNA_STATE[state])

    def close_lost_proposals(self) -> int:
        """Return 0: what is in memory goes with its driver, so none is ever lost."""
        return 0

    def study(self) -> Study:
        """Return the run as it stands."""
        return Study(
            name=self.name,
            folder=self.folder,
            objectives=self.objectives,
            spec={},
            facts=self._facts,
            trials=tuple(self._trials),
        )

    def _trial_id(self, number: int) -> int:
        return self._storage.get_trial_id_from_study_id_trial_number(self._study_id, number)
