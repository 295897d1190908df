"""One copy of a task's photographs in memory, however many processes work on them.

What was decoded, degraded and cropped once lies in files of the user's cache folder, and processes map them into their
memory: the pages are the operating system's, and there once. An entry is a folder, made elsewhere and moved into place
whole: `pixels.npy` (8-bit levels), `levels.npy` (float32) and `index.json`, which says where each image lies in them,
and their checksums. An entry that does not hold what its index says is made anew; deleting any of them is safe.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import os
import shutil
import tempfile
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from search.caching import cache_folder, entry_lock, read_entry, reason_of
from search.tasks.degradations import Degradation, Mixed
from search.tasks.pairs import Pair, TaskData, TrainPhoto

log = logging.getLogger(__name__)

MAX_AGE_DAYS = 30
"""Entries that were not used for so long are removed when another one is written."""
MAX_GIB = 20.0
"""Entries may take as much together; the least recently used go first."""

_SCHEMA = 2
_INDEX = "index.json"
_ARRAYS = {"pixels.npy": np.dtype(np.uint8), "levels.npy": np.dtype(np.float32)}
_CHUNK = 1 << 22

Array = npt.NDArray[Any]


def shared_task(
    key: str, build: Callable[[], TaskData], degradation: Degradation | Mixed, *, folder: Path | None = None
) -> TaskData:
    """Return a task's data, mapped from its entry; where there is none, it is built and written first.

    Where the entry cannot be written (a folder that is read-only, a full disk), the data stays in this process's own
    memory, and a warning and `TaskData.storage` say so.

    Args:
        key: Names everything that the data depends on.
        build: Makes the data.
        degradation: What the data has as its degradation, unless its degraded forms were given as files.
        folder: Of the entries; by default in the user's cache folder.

    Raises:
        InputError: What `build` raises.
    """
    entry = (cache_folder("photographs") if folder is None else folder) / key
    found = _opened(entry, degradation)
    if found is not None:
        return found
    with entry_lock(entry):
        found = _opened(entry, degradation)  # another process may have made it while this one waited
        return found or _built(entry, build, degradation)


def _built(entry: Path, build: Callable[[], TaskData], degradation: Degradation | Mixed) -> TaskData:
    data = build()
    try:
        _write(entry, data)
        _tidy(entry)
    except OSError as error:
        return _opened(entry, degradation) or _unshared(data, entry, error)
    return _opened(entry, degradation) or _unshared(data, entry, OSError("what was written cannot be read back"))


def _unshared(data: TaskData, entry: Path, error: OSError) -> TaskData:
    storage = (
        f"photographs cannot be shared between processes: {entry.parent} cannot be written "
        f"({reason_of(error)}); each process holds a copy of {_mib(_size(data)):.0f} MiB"
    )
    log.warning("%s", storage)
    return dataclasses.replace(data, storage=storage)


# Writing ------------------------------------------------------------------------------------------


def _write(entry: Path, data: TaskData) -> None:
    """Write an entry beside its place and move it there; an earlier one, damaged, makes way."""
    entry.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=entry.parent, prefix=".writing-"))
    try:
        writers = {name: _ArrayWriter(temporary / name, kind) for name, kind in _ARRAYS.items()}
        pixels, levels = (writers[name] for name in _ARRAYS)
        index: dict[str, Any] = {
            "schema": _SCHEMA,
            "key": entry.name,
            "given": data.degradation is None,
            "upscale": data.upscale,
            "channels": data.channels,
            "notes": list(data.notes),
            "train": [
                [p.name, p.digest, p.label, p.degraded_digest, pixels.add(p.clean), pixels.add(p.prepared)]
                for p in data.train
            ],
            "validation": [
                [
                    *(p.name, p.digest, p.label, p.skill, p.photo, p.degraded_digest),
                    *(pixels.add(p.clean), levels.add(p.degraded)),
                ]
                for p in data.validation
            ],
        }
        for name, writer in writers.items():
            writer.write()
            index[name] = _checksum(temporary / name)
        text = json.dumps(index)
        whole = {"index": text, "checksum": zlib.crc32(text.encode())}
        (temporary / _INDEX).write_text(json.dumps(whole), encoding="utf-8")
        shutil.rmtree(entry, ignore_errors=True)
        temporary.replace(entry)
    except OSError:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


class _ArrayWriter:
    """Collects arrays and writes them one behind the other into a flat `.npy` file; an array that is shared, once.

    Args:
        path: Of the file.
        kind: Of its elements.
    """

    def __init__(self, path: Path, kind: np.dtype[Any]) -> None:
        self._path, self._kind = path, kind
        self._arrays: list[Array] = []
        self._places: dict[int, int] = {}
        self._length = 0

    def add(self, array: Array) -> list[Any]:
        """Return the place that an array will have: its offset and its shape."""
        if id(array) not in self._places:
            self._places[id(array)] = self._length
            self._arrays.append(array)  # kept, so that no other one gets its id
            self._length += array.size
        return [self._places[id(array)], list(array.shape)]

    def write(self) -> None:
        """Write the file, not through a mapping: a full disk is then an error and not a signal."""
        with self._path.open("wb") as file:
            header = {"descr": np.lib.format.dtype_to_descr(self._kind), "fortran_order": False}
            np.lib.format.write_array_header_1_0(file, {**header, "shape": (self._length,)})
            for array in self._arrays:
                file.write(np.ascontiguousarray(array, dtype=self._kind).data)
            file.flush()
            os.fsync(file.fileno())


def _tidy(kept: Path) -> None:
    """Remove entries that were not used for long, then the least recently used ones above the limit."""
    entries = sorted(
        ((_used(path), path) for path in kept.parent.iterdir() if path.is_dir() and path != kept), reverse=True
    )
    total = _bytes(kept)
    for used, path in entries:
        total += _bytes(path)
        if time.time() - used > MAX_AGE_DAYS * 86_400 or _mib(total) > MAX_GIB * 1024:
            total -= _bytes(path)
            log.info("removed photographs not in use path=%s", path)
            shutil.rmtree(path, ignore_errors=True)  # processes that have mapped it keep it
            path.with_suffix(".lock").unlink(missing_ok=True)


def _used(entry: Path) -> float:
    return max((f.stat().st_mtime for f in (entry, entry / _INDEX) if f.exists()), default=0.0)


def _bytes(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.iterdir()) if folder.is_dir() else 0


# Reading ------------------------------------------------------------------------------------------


def _opened(entry: Path, degradation: Degradation | Mixed) -> TaskData | None:
    """Map an entry; None where there is none, or where it is not what it should be."""
    data = read_entry(entry, lambda found: _mapped(found, _read_index(found), degradation))
    if data is None:
        return None
    try:
        os.utime(entry / _INDEX)  # in use: `_tidy` looks at it
    except OSError:
        log.info("%s is read-only: its age is not renewed", entry)
    log.info("%s", data.storage)
    return data


def _read_index(entry: Path) -> dict[str, Any]:
    """Return the index of an entry; ValueError where it, or a file that it describes, is not as it was written."""
    whole = json.loads((entry / _INDEX).read_text(encoding="utf-8"))
    if zlib.crc32(whole["index"].encode()) != whole["checksum"]:
        raise ValueError(f"{_INDEX} differs")
    index = json.loads(whole["index"])
    missing = [name for name in _ARRAYS if not (entry / name).is_file()]
    if missing:
        raise ValueError(f"{', '.join(missing)} missing")
    found = {name: _checksum(entry / name) for name in _ARRAYS}
    expected = {"schema": _SCHEMA, "key": entry.name, **found}
    wrong = [name for name, value in expected.items() if index.get(name) != value]
    if wrong:
        raise ValueError(f"{', '.join(wrong)} differ")
    return index


def _mapped(entry: Path, index: Any, degradation: Degradation | Mixed) -> TaskData:
    pixels, levels = (np.load(entry / name, mmap_mode="r").view(np.ndarray) for name in _ARRAYS)
    seen: dict[tuple[int, ...], Array] = {}

    def part(source: Array, place: Any) -> Array:
        offset, shape = place
        name = (id(source), offset, *shape)
        if name not in seen:  # forms of one photograph share their array again
            seen[name] = source[offset : offset + int(np.prod(shape))].reshape(shape)
        return seen[name]

    train = tuple(
        TrainPhoto(name, part(pixels, clean), part(pixels, prepared), digest, label, degraded_digest)
        for name, digest, label, degraded_digest, clean, prepared in index["train"]
    )
    validation = tuple(
        Pair(name, part(pixels, clean), part(levels, degraded), label, digest, photo, skill, degraded_digest)
        for name, digest, label, skill, photo, degraded_digest, clean, degraded in index["validation"]
    )
    size = sum((entry / name).stat().st_size for name in _ARRAYS)
    return TaskData(
        degradation=None if index["given"] else degradation,
        upscale=index["upscale"],
        channels=index["channels"],
        train=train,
        validation=validation,
        notes=tuple(index["notes"]),
        storage=f"photographs are mapped from {entry} ({_mib(size):.0f} MiB, one copy for all processes)",
    )


def _checksum(path: Path) -> int:
    """Return the CRC-32 of a file, read in pieces: a mapping would count as this process's memory."""
    found = 0
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            found = zlib.crc32(chunk, found)
    return found


def _size(data: TaskData) -> int:
    arrays = {id(a): a for p in data.train for a in (p.clean, p.prepared)}
    arrays |= {id(a): a for p in data.validation for a in (p.clean, p.degraded)}
    return sum(array.nbytes for array in arrays.values())


def _mib(size: float) -> float:
    return size / 2**20
