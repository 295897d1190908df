"""Whether photographs are the same as those recorded: by decoded pixels, role and order, not by folder or file name.

Order counts, because patches are drawn and figures are listed by it; files are read in order of their names, so
renamed files are accepted where their order stays.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from search.tasks.leaks import Seen, listed, seen_from_json
from search.types import InputError, stable_hash

ROLES = {"train": "training", "validation": "validation"}
"""What photographs are used for: names of `Seen`, and as they are written."""


def photographs_key(record: Any) -> str:
    """Return a hash of a recorded set of photographs, names left out; empty where not all of it was recorded."""
    photographs = seen_from_json(record)
    return "" if photographs is None or photographs.degraded is None else _key(photographs)


def refuse_other_photographs(
    record: Any, found: Seen, owner: str, remedy: str, *, roles: Sequence[str] = tuple(ROLES)
) -> None:
    """Refuse photographs that differ from the recorded ones.

    Args:
        record: `Seen.to_json` of the photographs that the figures so far are based on; anything else: not compared.
        found: The photographs as they are now.
        owner: Whose record it is, for the message.
        remedy: What to do instead of restoring them.
        roles: Which photographs are compared.

    Raises:
        InputError: If they differ; it names up to five of them.
    """
    recorded = seen_from_json(record)
    differences = [] if recorded is None else photograph_differences(recorded, found, roles)
    if differences:
        raise InputError(
            f"{owner}: photographs differ from the recorded ones ({len(differences)}):\n{listed(differences)}\n"
            "  Figures compare on the same photographs only; pixels, role and order count, the folder does not. "
            f"Restore the photographs, or {remedy}."
        )


def refuse_changed_meanwhile(key: str, found: Seen, owner: str) -> None:
    """Refuse photographs that differ from those that the driver of a run looked at.

    Args:
        key: `photographs_key` of what the run recorded; empty: not compared.
        found: The photographs as this process loaded them.
        owner: Who was to be trained, for the message.

    Raises:
        InputError: If they differ.
    """
    if key and key != _key(found):
        raise InputError(
            f"{owner}: the photographs changed since this session started "
            f"({len(found.train)} to train on and {len(found.validation)} to validate on here).\n"
            "  All candidates need the same photographs. Rerun the same command: it names what changed."
        )


def photograph_differences(recorded: Seen, found: Seen, roles: Sequence[str] = tuple(ROLES)) -> list[str]:
    """Return one line for each photograph of the roles that differs; empty where they are the same."""
    lines = [line for role in roles for line in _differences_of(role, recorded, found)]
    return lines or [line for role in roles for line in _moved(role, getattr(recorded, role), getattr(found, role))]


def _differences_of(role: str, recorded: Seen, found: Seen) -> Iterator[str]:
    """Yield what was changed, removed and added among the photographs of a role."""
    name_of_role = ROLES[role]
    before: Mapping[str, str] = getattr(recorded, role)
    now: Mapping[str, str] = getattr(found, role)
    gone = {name: digest for digest, name in before.items() if digest not in now}
    new = {name: digest for digest, name in now.items() if digest not in before}
    everywhere = {**found.train, **found.validation}
    for name, digest in gone.items():
        if name in new and digest not in everywhere:
            yield f"{name} ({name_of_role}): changed"
        elif digest not in everywhere:
            yield f"{name} ({name_of_role}): removed, or not readable any more"
    recorded_everywhere = {**recorded.train, **recorded.validation}
    for name, digest in new.items():
        if digest in recorded_everywhere:
            yield f"{name}: used for {name_of_role} now, not before"
        elif name not in gone:
            yield f"{name} ({name_of_role}): added"
    for digest, name in now.items():
        if digest in before and _degraded_differs(digest, recorded, found):
            yield f"{name} ({name_of_role}): its degraded form changed"


def _degraded_differs(digest: str, recorded: Seen, found: Seen) -> bool:
    if recorded.degraded is None or found.degraded is None:
        return False
    return recorded.degraded.get(digest) != found.degraded.get(digest)


def _moved(role: str, before: Mapping[str, str], now: Mapping[str, str]) -> Iterator[str]:
    for place, (was, is_) in enumerate(zip(before, now, strict=True), start=1):
        if was != is_:
            yield f"{now[is_]} ({ROLES[role]}): now at position {place}, where {before[was]} was"


def _key(photographs: Seen) -> str:
    degraded = sorted((photographs.degraded or {}).items())
    return stable_hash([list(photographs.train), list(photographs.validation), degraded])
