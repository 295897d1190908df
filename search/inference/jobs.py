"""What is restored to where: inputs and an output, as people write them, become a list of jobs."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from search.files import is_file, is_folder, shown
from search.inference.pictures import FORMATS, format_of
from search.tasks.images import PICTURE_SUFFIXES, find_pictures
from search.types import InputError

_SHOWN = 5


class Job(NamedTuple):
    """One picture to restore."""

    source: Path
    target: Path


class Plan(NamedTuple):
    """What is restored, and one line for each thing that is left out."""

    jobs: list[Job]
    notes: list[str]


def plan_jobs(inputs: Sequence[Path], out: Path, *, format_name: str | None = None, recursive: bool = False) -> Plan:
    """Name the output of every input, and refuse what would lose a file.

    OUT is a file where there is one input file and OUT has the suffix of a format; else a folder, in which each
    result is `<stem>.<format>`, below the subfolders that a recursive search went through.

    Args:
        inputs: Files and folders; of folders the pictures in them, hidden files left out.
        out: A file or a folder.
        format_name: One of `FORMATS`; None for the suffix of OUT, or png in a folder.
        recursive: Search subfolders too.

    Returns:
        Jobs, each source once, and notes.

    Raises:
        InputError: If an input is missing or cannot be read, a folder holds no picture, two results would have one
            name, a result would replace an input, or OUT does not fit.
    """
    suffix = format_of(out)
    single = len(inputs) == 1 and is_file(inputs[0]) and suffix is not None and not is_folder(out)
    if single:
        if format_name not in (None, suffix):
            raise InputError(f"-o {shown(out)} with --format {format_name}: the two must agree. Leave --format out.")
        return Plan(_checked([Job(inputs[0], out)], _RealPaths()), [])
    if is_file(out):
        raise InputError(
            f"-o {shown(out)}: a file is there, and the results of {len(inputs)} inputs need a folder (one result "
            f"needs the suffix of one of {', '.join(FORMATS)}). Name a folder."
        )
    ending = FORMATS[format_name or "png"][0]
    real = _RealPaths()
    jobs: dict[str, Job] = {}
    notes: list[str] = []
    for given in inputs:
        sources, left_out = _sources(given, recursive=recursive, out=out)
        notes += left_out
        for source, inside in sources:
            job = Job(source, out / inside.parent / f"{inside.stem}{ending}")
            first = jobs.setdefault(real.of(source), job)
            if first.target != job.target:
                notes.append(f"{shown(source)}: the same file as {shown(first.source)}; restored once")
    return Plan(_checked(list(jobs.values()), real), notes)


def _sources(given: Path, *, recursive: bool, out: Path) -> tuple[list[tuple[Path, Path]], list[str]]:
    """Return the pictures of an input with their paths within it, and notes of what was left out."""
    if is_file(given):
        return [(given, Path(given.name))], []
    if not is_folder(given):
        raise InputError(f"{shown(given)}: no such file or folder. Check the name.")
    files, notes = find_pictures(given, recursive=recursive, leave_out=(out,))
    if not files:
        hint = "" if recursive else " itself (--recursive searches subfolders)"
        raise InputError(
            "\n  ".join(
                [
                    f"{shown(given)}: no pictures. A folder must hold pictures{hint}: "
                    f"{', '.join(sorted(PICTURE_SUFFIXES))}.",
                    *notes[:_SHOWN],
                ]
            )
        )
    return [(file, file.relative_to(given)) for file in files], notes


class _RealPaths:
    """Paths without links; each folder is looked up once."""

    def __init__(self) -> None:
        self._folders: dict[Path, str] = {}

    def of(self, path: Path) -> str:
        """Return a path without links."""
        folder = self._folders.get(path.parent)
        if folder is None:
            folder = self._folders[path.parent] = os.path.realpath(path.parent)
        with suppress(OSError):  # a name too long for the file system, which is reported where it is written
            if path.is_symlink():
                return os.path.realpath(path)
        return f"{folder}{os.sep}{path.name}"


def _checked(jobs: list[Job], real: _RealPaths) -> list[Job]:
    """Refuse results of one name, and results that would replace an input."""
    sources = {real.of(job.source) for job in jobs}
    by_target: dict[str, list[Path]] = {}
    for job in jobs:
        if real.of(job.target) in sources:
            raise InputError(
                f"{shown(job.target)}: the result of {shown(job.source)} would replace an input. "
                "Name another folder with -o."
            )
        by_target.setdefault(os.path.normcase(job.target), []).append(job.source)
    clashes = {target: found for target, found in by_target.items() if len(found) > 1}
    if clashes:
        lines = [f"  {shown(target)} from {' and '.join(map(shown, found))}" for target, found in clashes.items()]
        more = [f"  … and {len(lines) - _SHOWN} more"] if len(lines) > _SHOWN else []
        raise InputError(
            "\n".join(
                [
                    "several inputs would have one result. Each needs a name of its own: rename them, "
                    "or restore them into different folders.",
                    *lines[:_SHOWN],
                    *more,
                ]
            )
        )
    return jobs
