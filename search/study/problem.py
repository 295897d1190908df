"""What the search has to know of an experiment: `search.experiment.Experiment` is one, a table's problem another."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

from search.schedulers import Ranking, Screening
from search.space import SearchSpace
from search.types import Genotype


class Described(Protocol):
    """What a genotype stands for, e.g. a network's configuration."""

    def to_dict(self) -> dict[str, Any]:
        """Return all that decides it, as plain JSON; two candidates with the same are one."""
        ...


class SearchSettings(Protocol):
    """How candidates are proposed, and how many."""

    @property
    def sampler(self) -> str:
        """A name that `build_sampler` knows."""
        ...

    @property
    def trials(self) -> int:
        """Candidates to train."""
        ...

    @property
    def seed(self) -> int:
        """Of the whole run."""
        ...

    @property
    def generation(self) -> int:
        """Candidates that are proposed before any is trained further."""
        ...


class RungSettings(Protocol):
    """At which steps candidates are compared."""

    @property
    def rungs(self) -> tuple[int, ...]:
        """Steps of training, rising."""
        ...

    @property
    def keep(self) -> float:
        """Share of the candidates at a rung that go on, 0 < keep <= 1."""
        ...


class Problem(Protocol):
    """What is searched, for what, and by which rules."""

    @property
    def name(self) -> str:
        """Name of the study."""
        ...

    @property
    def space(self) -> SearchSpace:
        """Where candidates come from."""
        ...

    @property
    def objectives(self) -> tuple[str, ...]:
        """Names in `search.types.OBJECTIVES`."""
        ...

    @property
    def limits(self) -> Mapping[str, float]:
        """Upper limits of costs, by the cost's name."""
        ...

    @property
    def search(self) -> SearchSettings:
        """How candidates are proposed."""
        ...

    @property
    def proxy(self) -> RungSettings:
        """How far they are trained."""
        ...

    def decode(self, genotype: Genotype) -> Described:
        """Return what a genotype stands for.

        Raises:
            hfir.ConfigError: If it stands for nothing legal.
        """
        ...


@runtime_checkable
class Ranked(Protocol):
    """A problem that says what promotions compare; of others, candidates of equal levels are compared."""

    @property
    def ranking(self) -> Ranking:
        """What is compared at a rung, and among whom."""
        ...


@runtime_checkable
class Screened(Protocol):
    """A problem that may have candidates screened before their training; of others, all that are admitted are trained.

    Its evaluator answers `admit` with the score, then.
    """

    @property
    def screening(self) -> Screening | None:
        """By which score, and how many; None for no screening."""
        ...
