"""Crops of validation photographs, as the run left them in `pictures/`; here they are only read."""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from search.types import StoreError

FOLDER, INDEX = "pictures", "pictures.json"
SCHEMA = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Form:
    """One form of a photograph: the input, bicubic, a preset's result, or the truth.

    Args:
        name: What it is.
        psnr_db: Of the whole photograph, by the run's convention; None for the input of super-resolution and the truth.
        source: The crop as a data URI.
    """

    name: str
    psnr_db: float | None
    source: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Photograph:
    """One crop in all its forms."""

    name: str
    forms: tuple[Form, ...]


def read_pictures(folder: Path) -> tuple[Photograph, ...]:
    """Return the crops of a run, from its folder; none where there are no pictures.

    Raises:
        StoreError: If the list of pictures is damaged, or names a file that is not there.
    """
    index = folder / FOLDER / INDEX
    if not index.is_file():
        return ()
    try:
        data = json.loads(index.read_text(encoding="utf-8"))
        return tuple(_photograph(index.parent, entry) for entry in data["photographs"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StoreError(
            f"{index}: cannot be read ({error!r}). Delete {index.parent}: `hfir-search report` makes it anew."
        ) from error


def _photograph(folder: Path, entry: dict[str, Any]) -> Photograph:
    return Photograph(
        name=str(entry["name"]),
        forms=tuple(
            Form(name=str(form["name"]), psnr_db=form["psnr_db"], source=_data_uri(folder / Path(form["file"]).name))
            for form in entry["forms"]
        ),
    )


def _data_uri(path: Path) -> str:
    return "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode()
