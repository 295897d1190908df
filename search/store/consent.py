"""Which databases this user has named on this machine.

A run's folder may come from somebody else, and its `storage.json` may name any database. It is followed to a database
that this user gave with `--storage` before or names in an environment variable, and to a file within the folder.
"""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path

from platformdirs import user_state_path

from search.files import replace_file
from search.files import shown as printable
from search.store.places import POINTER, Place, checked_url, read_pointer, shown, sqlite_file
from search.types import InputError

VARIABLE = "HFIR_SEARCH_STORAGE"

log = logging.getLogger(__name__)


def followed_pointer(folder: Path) -> Place | None:
    """Return the database with the records of a folder's run; None where they are in its journal.

    Raises:
        InputError: If this user has never named that database.
        StoreError: If the pointer is damaged.
    """
    place = read_pointer(folder)
    if place is None or _is_within(place, folder) or place.url in _named():
        return place
    raise InputError(
        f"{printable(folder / POINTER)} names a database that you have not used on this machine: {shown(place.url)}.\n"
        "  A folder from somebody else may name any database: it is followed only where you name it yourself.\n"
        f"  If it is the right one, resume the run with --storage, or set {VARIABLE} to this URL for other commands."
    )


def remember(url: str) -> None:
    """Keep that this user named a database with `--storage`, as `checked_url` returns it."""
    named = _remembered()
    if url in named:
        return
    path = _file()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        text = json.dumps([*named, url], indent=1) + "\n"
        replace_file(path, lambda partial: partial.write_text(text, encoding="utf-8"))
    except OSError as error:
        reason = error.strerror or str(error)
        log.warning("%s cannot be written (%s): set %s for other commands on this run", path, reason, VARIABLE)


def _is_within(place: Place, folder: Path) -> bool:
    file = sqlite_file(place.url)
    return file is not None and file.resolve().is_relative_to(folder.resolve())


def _named() -> set[str]:
    given = os.environ.get(VARIABLE)
    return {*_remembered(), *([checked_url(given, where=VARIABLE)] if given else [])}


def _remembered() -> list[str]:
    try:
        content = json.loads(_file().read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return []
    return [str(url) for url in content] if isinstance(content, list) else []


def _file() -> Path:
    return user_state_path("hfir-search") / "storages.json"
