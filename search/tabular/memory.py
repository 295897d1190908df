"""A run's record that is kept in memory alone: for searches that are over in seconds and leave a curve behind."""

from __future__ import annotations

from pathlib import Path

from optuna.storages import InMemoryStorage

from search.store import RunStore
from search.types import Measurement, Trial


class MemoryStore(RunStore):
    """Keeps and tells what any `RunStore` does, without a file.

    Args:
        name: Of the study.
        objectives: Names in `search.types.OBJECTIVES`.
        storage: Of an earlier store, to go on from its records; None for an empty one.

    `trainings` lists each candidate's training through a rung, in the order in which they were recorded.
    """

    def __init__(self, name: str, objectives: tuple[str, ...], storage: InMemoryStorage | None = None) -> None:
        self.records = storage or InMemoryStorage()
        super().__init__(Path(), name=name, objectives=objectives, identity="in memory", spec={}, storage=self.records)
        self.trainings: list[tuple[Trial, Measurement]] = []

    def record_measurement(self, trial: Trial, measurement: Measurement) -> None:
        """Keep what a rung showed."""
        self.trainings.append((trial, measurement))
        super().record_measurement(trial, measurement)
