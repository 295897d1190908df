"""Known data sets by the layout of their folders: DIV2K, GoPro, SIDD.

A layout says where the photographs to train on and to validate on lie; nothing is read here. Test sets are left alone.

* `div2k` (Agustsson & Timofte 2017): `DIV2K_train_HR`, `DIV2K_valid_HR`, and where they are there
  `DIV2K_train_LR_bicubic/X2` and its like.
* `gopro` (Nah et al. 2017): `train/SEQUENCE/blur` and `train/SEQUENCE/sharp`.
* `sidd` (Abdelhamed et al. 2018): `Data/INSTANCE/*_NOISY_SRGB_*` and `*_GT_SRGB_*`.

GoPro and SIDD come without a validation set: whole sequences or scenes are held out, as neighbouring frames show almost
the same.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from search.files import FolderWalk, is_file, is_folder, shown
from search.tasks.images import find_pictures, listed
from search.types import InputError

_HELD_OUT_SHARE = 5
_SHOWN = 5


class FilePair(NamedTuple):
    """A clean photograph and its degraded form."""

    name: str
    """Path of the clean one below the data set's folder."""
    clean: Path
    degraded: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What a layout came to: folders of photographs, or pairs of files.

    Args:
        layout: Its name in `LAYOUTS`.
        folders: All that is read, for who wants to know whether something changed.
        clean: Folders to train and to validate on; None where pairs are listed.
        degraded: Folders of their degraded forms; None where they are made from the clean ones.
        train: Pairs to train on.
        held_out: Pairs of the sequences or scenes to validate on; more than are needed.
        notes: What was recognised, one line each.
    """

    layout: str
    folders: tuple[Path, ...]
    notes: tuple[str, ...]
    clean: tuple[Path, Path] | None = None
    degraded: tuple[Path, Path] | None = None
    train: tuple[FilePair, ...] = ()
    held_out: tuple[FilePair, ...] = ()


def recognised(root: Path) -> str | None:
    """Return the layout that a folder has or begins to have; None where it holds images itself, or shows no sign."""
    if not is_folder(root) or _images(root):
        return None
    return next((name for name, layout in LAYOUTS.items() if layout.shows(root)), None)


def find(layout: str, root: Path, kind: str, upscale: int) -> Found:
    """Return where a data set's photographs lie.

    Args:
        layout: A name in `LAYOUTS`.
        root: The data set's folder.
        kind: Of the task.
        upscale: Of the task; 1 for restoration.

    Raises:
        InputError: If the folder does not have the layout, with all that is missing, or the task does not fit it.
    """
    if not is_folder(root):
        raise InputError(f"{shown(root)}: no such folder. It must hold the data set {layout}: check the path.")
    kinds = LAYOUTS[layout].kinds
    if kinds and kind not in kinds:
        raise InputError(
            f"{shown(root)}: the data set {layout} holds pairs for {' and '.join(kinds)}, the task is {kind}. "
            "Choose that kind, or name one of its folders of clean photographs: data: {train: …, validation: …}."
        )
    return LAYOUTS[layout].find(root, upscale)


def _div2k(root: Path, upscale: int) -> Found:
    clean = root / "DIV2K_train_HR", root / "DIV2K_valid_HR"
    small = tuple(root / f"DIV2K_{part}_LR_bicubic" / f"X{upscale}" for part in ("train", "valid"))
    given = upscale > 1 and any(is_folder(folder) for folder in small)
    _refuse_gaps("div2k", root, [f for f in (*clean, *(small if given else ())) if not _images(f)], "with images")
    counts = [len(_images(folder)) for folder in clean]
    notes = [f"{shown(root)}: recognised as DIV2K: {counts[0]} to train on, {counts[1]} to validate on"]
    if given:
        notes.append(f"{shown(root)}: degraded forms are the files of {small[0].parent.name}/X{upscale} and its twin")
    elif upscale > 1:
        notes.append(
            f"{shown(root)}: no DIV2K_train_LR_bicubic/X{upscale}: degraded forms are made here, as MATLAB does"
        )
    return Found(
        layout="div2k",
        folders=(*clean, *(small if given else ())),
        notes=tuple(notes),
        clean=clean,
        degraded=(small[0], small[1]) if given else None,
    )


def _gopro(root: Path, upscale: int) -> Found:
    sequences = _subfolders(root / "train")
    folders = [sequence / part for sequence in sequences for part in ("sharp", "blur")]
    missing = [folder for folder in folders if not _images(folder)]
    _refuse_gaps("gopro", root, missing or ([] if sequences else [root / "train" / "SEQUENCE"]), "with images")
    groups = {shown(s.name): [_pair(root, f, s / "blur" / f.name) for f in _images(s / "sharp")] for s in sequences}
    _refuse_gaps("gopro", root, _without_file(groups), "")
    return _split("gopro", "GoPro", root, groups, folders, "sequence")


def _sidd(root: Path, upscale: int) -> Found:
    instances = _subfolders(root / "Data")
    _refuse_gaps("sidd", root, [] if instances else [root / "Data" / "INSTANCE"], "with images")
    groups: dict[str, list[FilePair]] = {}
    empty: list[Path] = []
    for instance in instances:
        files = [file for file in _images(instance) if "GT_SRGB" in file.name.upper()]
        pairs = [_pair(root, file, file.with_name(file.name.replace("GT_SRGB", "NOISY_SRGB"))) for file in files]
        groups.setdefault(_scene(shown(instance.name)), []).extend(pairs)
        empty += [] if pairs else [instance / "*_GT_SRGB_*"]
    _refuse_gaps("sidd", root, [*empty, *_without_file(groups)], "")
    return _split("sidd", "SIDD", root, groups, instances, "scene")


def _scene(instance: str) -> str:
    """Take the scene from `0001_001_S6_00100_…`: its second field."""
    fields = instance.split("_")
    return fields[1] if len(fields) > 2 else instance


def _split(
    layout: str, title: str, root: Path, groups: Mapping[str, Sequence[FilePair]], folders: Sequence[Path], noun: str
) -> Found:
    """Hold out a fifth of the groups (at least one): those with the smallest digest of their name."""
    if len(groups) < 2:
        raise InputError(
            f"{shown(root)}: one {noun} ({', '.join(groups)}) cannot be both trained and validated on. "
            f"The layout {layout} holds whole {noun}s out: add another, or name the folders: data: {{train: …, …}}."
        )
    count = max(round(len(groups) / _HELD_OUT_SHARE), 1)
    held_out = sorted(groups, key=lambda name: hashlib.blake2b(name.encode()).digest())[:count]
    train = tuple(pair for name, pairs in groups.items() if name not in held_out for pair in pairs)
    rest = tuple(pair for name in sorted(held_out) for pair in groups[name])
    names = ", ".join(sorted(held_out)[:_SHOWN]) + (", …" if count > _SHOWN else "")
    found = f"{len(train)} pairs to train on, {len(rest)} of {noun} {names} held out"
    note = f"{shown(root)}: recognised as {title}: {found}"
    return Found(layout=layout, folders=tuple(folders), notes=(note,), train=train, held_out=rest)


def _refuse_gaps(layout: str, root: Path, missing: Sequence[Path], what: str) -> None:
    if not missing:
        return
    lines = [f"  {shown(path.relative_to(root))}" for path in missing[:_SHOWN]]
    lines += [f"  … and {len(missing) - _SHOWN} more"] if len(missing) > _SHOWN else []
    wanted = f" {what}" if what else ""
    remedy = "Add what is missing, or name the folders: data: {train: …, validation: …}."
    raise InputError(
        "\n".join(
            [
                f"{shown(root)}: has the layout {layout} in part; missing{wanted}:",
                *lines,
                f"  {LAYOUTS[layout].rule} {remedy}",
            ]
        )
    )


def _without_file(groups: Mapping[str, Iterable[FilePair]]) -> list[Path]:
    return [pair.degraded for pairs in groups.values() for pair in pairs if not is_file(pair.degraded)]


def _pair(root: Path, clean: Path, degraded: Path) -> FilePair:
    return FilePair(shown(clean.relative_to(root)), clean, degraded)


def _images(folder: Path) -> list[Path]:
    return find_pictures(folder)[0] if is_folder(folder) else []


def _subfolders(folder: Path) -> list[Path]:
    if not is_folder(folder):
        return []
    walk = FolderWalk(folder)
    listed(walk)
    return walk.subfolders


def _shows_div2k(root: Path) -> bool:
    return any(folder.name.startswith(("DIV2K_train", "DIV2K_valid")) for folder in _subfolders(root))


def _shows_gopro(root: Path) -> bool:
    return any(is_folder(sequence / part) for sequence in _subfolders(root / "train") for part in ("blur", "sharp"))


def _shows_sidd(root: Path) -> bool:
    names = (file.name.upper() for instance in _subfolders(root / "Data") for file in _images(instance))
    return any("GT_SRGB" in name or "NOISY_SRGB" in name for name in names)


class Layout(NamedTuple):
    """How a data set lies in its folder."""

    shows: Callable[[Path], bool]
    find: Callable[[Path, int], Found]
    kinds: tuple[str, ...]
    """Tasks that its pairs are for; empty for any."""
    rule: str


LAYOUTS: Mapping[str, Layout] = {
    "div2k": Layout(
        _shows_div2k,
        _div2k,
        (),
        "DIV2K has DIV2K_train_HR and DIV2K_valid_HR, and both or neither of DIV2K_train_LR_bicubic/X2 and "
        "DIV2K_valid_LR_bicubic/X2 (or X3, X4).",
    ),
    "gopro": Layout(
        _shows_gopro,
        _gopro,
        ("deblur", "motion_blur"),
        "GoPro has train/SEQUENCE/blur and train/SEQUENCE/sharp, whose files have the same names.",
    ),
    "sidd": Layout(
        _shows_sidd,
        _sidd,
        ("denoise", "poisson"),
        "SIDD has Data/INSTANCE/*_GT_SRGB_* with a *_NOISY_SRGB_* beside each.",
    ),
}
"""Every known layout, in the order in which a folder is held against them."""
