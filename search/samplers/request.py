"""What a sampler is asked with: the run's records, and which proposal is wanted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from search.space import SearchSpace
from search.types import Trial

WARM_UP = 12
"""Proposals that are spread over the space before any model of it is trusted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One proposal that is wanted. A sampler's answer is a function of it alone: nothing is kept from ask to ask.

    Args:
        trials: All of the run so far, in any state.
        space: What is searched.
        objectives: Names in `search.types.OBJECTIVES`.
        run_seed: Of the whole run.
        index: Of this proposal, from 0; free ones are counted.
        limits: Upper limits of costs, by name.
    """

    trials: Sequence[Trial]
    space: SearchSpace
    objectives: tuple[str, ...]
    run_seed: int
    index: int
    limits: Mapping[str, float] = field(default_factory=dict)

    @property
    def seed(self) -> int:
        """Of this proposal."""
        return proposal_seed(self.run_seed, self.index)

    @property
    def seen(self) -> frozenset[str]:
        """Keys of all that was proposed before."""
        return frozenset(trial.key for trial in self.trials)


def proposal_seed(run_seed: int, index: int, purpose: int = 0) -> int:
    """Return the seed of one proposal, from the run's seed and the proposal's index."""
    return int(np.random.SeedSequence([run_seed, index, purpose]).generate_state(1)[0])
