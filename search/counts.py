"""Numbers with their nouns. Standard library only."""

from __future__ import annotations


def count(number: int, singular: str, plural: str = "") -> str:
    """Return a number with its noun, in the singular for 1: `1 thread`, `4 threads`, `1,200 steps`."""
    return f"{number:,} {singular if number == 1 else plural or singular + 's'}"
