"""The leak guard: what is trained on, selected by and tested on are different pictures, by their decoded pixels.

Pictures are told apart by `Photo.digest`: a copy under another name or in another lossless format is the same
picture; a crop, a resized copy or a JPEG made from it is not found.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from search.counts import count
from search.tasks.images import Photo
from search.tasks.pairs import TaskData
from search.types import InputError

_SHOWN = 5


class Seen(NamedTuple):
    """Which photographs a network has seen: names by digest."""

    train: Mapping[str, str]
    """Trained on."""
    validation: Mapping[str, str]
    """Selected by."""
    complete: bool = True
    """False where something that it has seen was not recorded: it goes on from a network without a record."""
    degraded: Mapping[str, str] | None = None
    """Digests of degraded forms that were given as files, by the clean photograph's; None where not recorded."""

    def and_also(self, other: Seen) -> Seen:
        """Return what was seen in both; degraded forms are left out."""
        train, validation = ({**a, **b} for a, b in zip(self[:2], other[:2], strict=True))
        return Seen(train, validation, self.complete and other.complete)

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values, for facts and cards."""
        whole = {"train": dict(self.train), "validation": dict(self.validation), "complete": self.complete}
        return whole if self.degraded is None else {**whole, "degraded": dict(self.degraded)}


NOTHING = Seen({}, {})
UNKNOWN = Seen({}, {}, complete=False)


def seen_in(data: TaskData) -> Seen:
    """Return what a network sees that is trained and validated on a task."""
    train = {photo.digest: photo.name for photo in data.train}
    validation = {pair.digest: pair.photo or pair.name for pair in data.validation}
    degraded = {p.digest: p.degraded_digest for p in (*data.train, *data.validation) if p.degraded_digest}
    return Seen(train, validation, degraded=degraded)


def seen_from_json(record: Any) -> Seen | None:
    """Read back what `Seen.to_json` gave; None where it is something else, or nothing was recorded."""
    if not isinstance(record, Mapping) or not all(isinstance(record.get(k), Mapping) for k in ("train", "validation")):
        return None
    names = [{str(k): str(v) for k, v in record[key].items()} for key in ("train", "validation")]
    degraded = record.get("degraded")
    return Seen(
        *names,
        complete=record.get("complete") is True,
        degraded={str(k): str(v) for k, v in degraded.items()} if isinstance(degraded, Mapping) else None,
    )


def refuse_leaks(train: Sequence[Photo], validation: Sequence[Photo], places: tuple[str, str]) -> None:
    """Refuse photographs that are both trained and validated on.

    Args:
        train: To train on.
        validation: To validate on.
        places: The folders of the two, for the message.

    Raises:
        InputError: If they share a picture; it names up to five pairs of files.
    """
    held_out = {photo.digest: photo.name for photo in validation}
    pairs = [
        f"{places[0]}/{photo.name} = {places[1]}/{held_out[photo.digest]}"
        for photo in train
        if photo.digest in held_out
    ]
    if pairs:
        raise InputError(
            f"{len(pairs)} of {len(train)} training photographs are validated on as well:\n"
            f"{listed(pairs)}\n"
            "  What is trained on tells nothing about other pictures: take these files out of one of the two folders."
        )


def refuse_trained_on(photographs: Mapping[str, str], start: Seen, name: str) -> None:
    """Refuse to validate on photographs (names by digest) that the network to be trained further was trained on.

    Raises:
        InputError: If there is one; it names up to five pairs of files.
    """
    pairs = [f"{file} = {start.train[digest]}" for digest, file in photographs.items() if digest in start.train]
    if pairs:
        raise InputError(
            f"{len(pairs)} of {len(photographs)} validation photographs are among those that {name} was trained on:\n"
            f"{listed(pairs)}\n"
            "  Their PSNR would flatter it: validate on others, or move them from task.data.validation to train."
        )


def seen_before(photos: Iterable[Photo], seen: Seen) -> list[str]:
    """Return one line for each photograph that a network was trained on or selected by."""
    lines = []
    for photo in photos:
        if photo.digest in seen.train:
            lines.append(f"{photo.name} = {seen.train[photo.digest]}, trained on")
        elif photo.digest in seen.validation:
            lines.append(f"{photo.name} = {seen.validation[photo.digest]}, selected by")
    return lines


def refuse_seen(name: str, lines: Sequence[str], tested: int) -> None:
    """Refuse to test a network on what it has seen.

    Args:
        name: Of the network.
        lines: From `seen_before`.
        tested: Photographs to test on.

    Raises:
        InputError: If there is a line.
    """
    if lines:
        raise InputError(
            f"{name} has seen {len(lines)} of these {count(tested, 'photograph')}:\n{listed(lines)}\n"
            "  A test on them says nothing about other pictures: take them out of --data, or score them all the same "
            "with --seen, which the output then says."
        )


def listed(lines: Sequence[str]) -> str:
    """Return up to five lines, indented, and how many more there are."""
    more = [f"  … and {len(lines) - _SHOWN} more"] if len(lines) > _SHOWN else []
    return "\n".join([*(f"  {line}" for line in lines[:_SHOWN]), *more])
