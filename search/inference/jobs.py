"""What is restored to where: inputs and an output, as people write them, become a list of jobs."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from search.inference.pictures import FORMATS, READ_SUFFIXES, format_of
from search.types import InputError

_SHOWN = 5


class Job(NamedTuple):
    """One picture to restore."""

    source: Path
    target: Path


def plan_jobs(
    inputs: Sequence[Path], out: Path, *, format_name: str | None = None, recursive: bool = False
) -> list[Job]:
    """Name the output of every input, and refuse what would lose a file.

    OUT is a file where there is one input file and OUT has the suffix of a format; else a folder, in which each
    result is `<stem>.<format>`, below the subfolders that a recursive search went through.

    Args:
        inputs: Files and folders; of folders the pictures in them, hidden files left out.
        out: A file or a folder.
        format_name: One of `FORMATS`; None for the suffix of OUT, or png in a folder.
        recursive: Search subfolders too.

    Returns:
        Jobs, each source once.

    Raises:
        InputError: If an input is missing, a folder holds no picture, two results would have one name, a result
            would replace an input, or OUT does not fit.
    """
    suffix = format_of(out)
    single = len(inputs) == 1 and inputs[0].is_file() and suffix is not None and not out.is_dir()
    if single:
        if format_name not in (None, suffix):
            raise InputError(f"-o {out} with --format {format_name}: the two must agree. Leave --format out.")
        return _checked([Job(inputs[0], out)])
    if out.exists() and not out.is_dir():
        raise InputError(
            f"-o {out}: a file is there, and the results of {len(inputs)} inputs need a folder (one result needs the "
            f"suffix of one of {', '.join(FORMATS)}). Name a folder."
        )
    ending = FORMATS[format_name or "png"][0]
    jobs: dict[Path, Job] = {}
    for given in inputs:
        for source, inside in _sources(given, recursive=recursive, out=out):
            jobs.setdefault(source.resolve(), Job(source, out / inside.parent / f"{inside.stem}{ending}"))
    return _checked(list(jobs.values()))


def _sources(given: Path, *, recursive: bool, out: Path) -> Iterator[tuple[Path, Path]]:
    """Yield the pictures of an input, and their paths within it."""
    if given.is_file():
        yield given, Path(given.name)
        return
    if not given.is_dir():
        raise InputError(f"{given}: no such file or folder. Check the name.")
    files = sorted(_pictures_below(given, recursive=recursive, leave_out=out.resolve()))
    if not files:
        hint = "" if recursive else " itself (--recursive searches subfolders)"
        raise InputError(
            f"{given}: no pictures. A folder must hold pictures{hint}: {', '.join(sorted(READ_SUFFIXES))}."
        )
    for file in files:
        yield file, file.relative_to(given)


def _pictures_below(folder: Path, *, recursive: bool, leave_out: Path) -> Iterator[Path]:
    """Yield pictures, not those among the results of an earlier call."""
    for path in folder.iterdir():
        if path.name.startswith("."):
            continue
        if path.is_file() and path.suffix.lower() in READ_SUFFIXES:
            yield path
        elif recursive and path.is_dir() and path.resolve() != leave_out:
            yield from _pictures_below(path, recursive=recursive, leave_out=leave_out)


def _checked(jobs: list[Job]) -> list[Job]:
    """Refuse results of one name, and results that would replace an input."""
    sources = {job.source.resolve() for job in jobs}
    by_target: dict[str, list[Path]] = {}
    for job in jobs:
        if job.target.resolve() in sources:
            raise InputError(
                f"{job.target}: the result of {job.source} would replace an input. Name another folder with -o."
            )
        by_target.setdefault(os.path.normcase(job.target), []).append(job.source)
    clashes = {target: found for target, found in by_target.items() if len(found) > 1}
    if clashes:
        shown = [f"  {target} from {' and '.join(map(str, found))}" for target, found in clashes.items()]
        more = [f"  … and {len(shown) - _SHOWN} more"] if len(shown) > _SHOWN else []
        raise InputError(
            "\n".join(
                [
                    "several inputs would have one result. Each needs a name of its own: rename them, "
                    "or restore them into different folders.",
                    *shown[:_SHOWN],
                    *more,
                ]
            )
        )
    return jobs
