"""The photographs that a task plan names: loaded once a process, and held once for all processes."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import cast

from search.evaluation.plan import TaskPlan
from search.files import FolderWalk, is_folder
from search.tasks import dataset
from search.tasks.dataset import MAX_VALIDATION_PX, embedded_task, folder_task, layout_task, paired_task
from search.tasks.degradations import DEGRADATIONS, Degradation, Mixed
from search.tasks.embedded import embedded_files
from search.tasks.images import listed
from search.tasks.layouts import find, recognised
from search.tasks.pairs import TaskData
from search.tasks.storage import shared_task
from search.types import stable_hash


@cache
def task_data(plan: TaskPlan) -> TaskData:
    """Return a task's photographs, mapped from a file that all processes of this machine share.

    Raises:
        InputError: If a folder is missing, or holds nothing that can be used.
    """
    make = cast("Callable[..., Degradation | Mixed]", DEGRADATIONS[plan.kind])
    degradation = make(**dict(plan.options))
    files = _files(plan)
    return shared_task(_key(plan, files), lambda: _loaded(plan, degradation), degradation)


def _loaded(plan: TaskPlan, degradation: Degradation | Mixed) -> TaskData:
    folders = {name: Path(folder) for name, folder in plan.folders}
    layout, root = _layout(plan)
    if root is not None:
        return layout_task(layout, root, plan.kind, degradation, plan.channels, plan.seed)
    if dict(plan.folders).get("folder") == "embedded":
        return embedded_task(degradation, plan.channels, plan.seed)
    if "train_degraded" in folders:
        return paired_task(
            folders["train"],
            folders["train_degraded"],
            folders["validation"],
            folders["validation_degraded"],
            plan.upscale,
            plan.channels,
        )
    train = folders.get("folder") or folders["train"]
    return folder_task(degradation, train, plan.channels, plan.seed, validation=folders.get("validation"))


def _layout(plan: TaskPlan) -> tuple[str | None, Path | None]:
    """Return the layout that a plan names, or its folder shows, and where it lies; None twice where there is none."""
    folders = dict(plan.folders)
    if "layout" in folders:
        return folders["layout"], Path(folders["root"])
    folder = folders.get("folder", "embedded")
    shown = None if folder == "embedded" else recognised(Path(folder))
    return shown, None if shown is None else Path(folder)


def _files(plan: TaskPlan) -> list[Path]:
    """Return every file that a task is read from.

    Raises:
        InputError: If a data set does not have its layout.
    """
    layout, root = _layout(plan)
    if root is not None and layout is not None:
        return _in_folders(find(layout, root, plan.kind, plan.upscale).folders)
    folders = dict(plan.folders)
    if folders.get("folder") == "embedded":
        return embedded_files()
    return _in_folders([Path(folder) for folder in folders.values()])


def _in_folders(folders: Sequence[Path]) -> list[Path]:
    return [file for folder in folders if is_folder(folder) for file in listed(FolderWalk(folder))]


def _key(plan: TaskPlan, files: Sequence[Path]) -> str:
    """Name what a task's photographs depend on: plan, files (path, inode, size, times), code and libraries.

    A program may set the time of modification (`cp -p`, `rsync -t`); that of the last status change it cannot.
    """
    found = [(file, file.stat()) for file in files]
    stats = [(str(file), s.st_ino, s.st_size, s.st_mtime_ns, s.st_ctime_ns) for file, s in found]
    libraries = [version(name) for name in ("numpy", "pillow", "scikit-image", "scipy")]
    return stable_hash([asdict(plan), MAX_VALIDATION_PX, stats, _code(), libraries])


@cache
def _code() -> str:
    """Return a digest of the sources that turn files into photographs, so that a change of them is noticed."""
    digest = hashlib.blake2b(digest_size=8)
    for source in sorted(Path(dataset.__file__).parent.glob("*.py")):
        digest.update(source.read_bytes())
    return digest.hexdigest()
