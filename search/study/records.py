"""What the search asks of a run's record: `search.store.RunStore` keeps it in a folder, others in memory."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import optuna

from search.types import Cost, Genotype, Measurement, Study, Trial, TrialState


class Store(Protocol):
    """Where a run's records are; `RunStore` says what each method does."""

    @property
    def folder(self) -> Path:
        """Where checkpoints go."""
        ...

    @property
    def optuna(self) -> optuna.Study:
        """What samplers are asked through."""
        ...

    def note(self, key: str, value: Any) -> None:
        """Keep a fact about the run as a whole."""
        ...

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
        ...

    def record_cost(self, number: int, cost: Cost, margins: Mapping[str, float]) -> None:
        """Keep what a candidate costs, and its margins."""
        ...

    def record_measurement(self, trial: Trial, measurement: Measurement) -> None:
        """Keep what a rung showed."""
        ...

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
        """Keep how a candidate ended."""
        ...

    def close_lost_proposals(self) -> int:
        """Tell off what was asked for but not recorded; return how many."""
        ...

    def study(self) -> Study:
        """Return the run as it stands."""
        ...
