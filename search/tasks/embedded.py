"""Photographs that are there without a download: files of the scikit-image and scikit-learn wheels.

The split is fixed. Eight photographs and textures to train on, four unlike ones to validate on.
Left out on purpose: drawings, text, depth maps, microscopy and sky surveys, and the motorcycle's right
view, which is almost the left one again.
"""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

from search.tasks.images import ImageProblem, Photo, read_image
from search.types import InputError

_SKIMAGE = ("skimage", "scikit-image", "data")
_SKLEARN = ("sklearn", "scikit-learn", "datasets/images")
"""Import name, distribution, and the folder inside the package."""

_TRAIN = {
    _SKIMAGE: (
        "astronaut.png",
        "brick.png",
        "camera.png",
        "grass.png",
        "gravel.png",
        "motorcycle_left.png",
        "rocket.jpg",
    ),
    _SKLEARN: ("flower.jpg",),
}
_VALIDATION = {_SKIMAGE: ("chelsea.png", "coffee.png", "coins.png"), _SKLEARN: ("china.jpg",)}


class EmbeddedSet(NamedTuple):
    """The fixed split; no picture is in both."""

    train: tuple[Photo, ...]
    validation: tuple[Photo, ...]


def embedded_photos() -> EmbeddedSet:
    """Read the photographs from the installed packages, which are found but not imported.

    Raises:
        InputError: If a package or one of its files is missing.
    """
    return EmbeddedSet(_read(_TRAIN), _read(_VALIDATION))


def embedded_files() -> list[Path]:
    """Return the files of the photographs, those that are missing left out."""
    files: list[Path] = []
    for (module, _, inside), names in (*_TRAIN.items(), *_VALIDATION.items()):
        spec = find_spec(module)
        places = [] if spec is None else list(spec.submodule_search_locations or ())
        files += [file for place in places[:1] for name in names if (file := Path(place) / inside / name).is_file()]
    return files


def _read(files: dict[tuple[str, str, str], tuple[str, ...]]) -> tuple[Photo, ...]:
    return tuple(_read_one(package, name) for package, names in files.items() for name in names)


def _read_one(package: tuple[str, str, str], name: str) -> Photo:
    module, distribution, inside = package
    try:
        return read_image(_package_folder(module) / inside / name)
    except ImageProblem as problem:
        raise InputError(
            f"the embedded photograph {name} cannot be read from {distribution} "
            f"{_version(distribution)}: {problem} "
            f"Embedded data needs the photographs of its wheel: reinstall {distribution}, "
            "or name a folder of photographs."
        ) from problem


def _package_folder(module: str) -> Path:
    spec = find_spec(module)
    if spec is None or not spec.submodule_search_locations:
        raise ImageProblem(f"the package {module} is not installed.")
    return Path(next(iter(spec.submodule_search_locations)))


def _version(distribution: str) -> str:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return "(not installed)"
