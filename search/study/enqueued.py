"""The points that are asked for by name: by the user, then by warm starts. They are proposed before a sampler's own."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from search.store import RunStore
from search.study.warm import enqueued_points
from search.types import Genotype

FACT = "enqueued"


def enqueue(store: RunStore, points: Iterable[Genotype]) -> None:
    """Keep what the user asks for, beside what an earlier session was asked for."""
    known = store.facts.get(FACT, [])
    keys = {Genotype(values).key for values in known}
    new = [dict(point.values) for point in points if point.key not in keys]
    if new:
        store.note(FACT, [*known, *new])


def enqueued(facts: Mapping[str, Any]) -> list[Genotype]:
    """Return what is proposed before the sampler is asked, in order, the same point more than once where it is."""
    return [*map(Genotype, facts.get(FACT, ())), *enqueued_points(facts)]
