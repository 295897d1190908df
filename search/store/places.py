"""Where a run's records lie: in its folder's journal, or in a database that its folder points to.

Passwords stand nowhere: not in the folder, not in a message. A URL that holds one is refused; PostgreSQL's own means
(PGPASSWORD, ~/.pgpass) take its place.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import quote, unquote_to_bytes

import optuna
from optuna.storages import BaseStorage, RDBStorage, get_storage

from search.files import replace_file
from search.files import shown as printable
from search.types import InputError, StoreError

POINTER = "storage.json"
FORMS = "sqlite:///FILE or postgresql+psycopg://USER@HOST/DATABASE"
_POSTGRES = ("postgresql", "postgres", "postgresql+psycopg")
_SQLITE = "sqlite:///"


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A study in a database.

    Args:
        url: Without a password; of SQLite with an absolute path, encoded once.
        study: Name of the study in it.
    """

    url: str
    study: str


def checked_url(text: str, *, where: str = "--storage") -> str:
    """Return a storage URL as it is kept.

    Args:
        text: The URL.
        where: Where it was given, for messages.

    Raises:
        InputError: If it cannot be read, holds a password, or names another database than SQLite or PostgreSQL.
    """
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import ArgumentError

    file = sqlite_file(text)
    if file is not None:
        return f"{_SQLITE}{_encoded(file.absolute())}"
    try:
        url = make_url(text)
    except (ArgumentError, ValueError) as error:  # a port that is no number is a ValueError
        raise InputError(f"{where} {shown(text)}: this is no storage URL.\n  Give {FORMS}.") from error
    if url.password is not None or any("password" in name for name in url.query):
        raise InputError(
            f"{where} {shown(text)}: the URL holds a password, which others could read from the list of processes.\n"
            "  Leave it out and give it as PGPASSWORD in the environment, or in ~/.pgpass."
        )
    if url.drivername in _POSTGRES and url.database:
        return url.set(drivername="postgresql+psycopg").render_as_string(hide_password=False)
    raise InputError(f"{where} {shown(text)}: this storage backend is not supported.\n  Give {FORMS}.")


def shown(url: str) -> str:
    """Return a URL without its password, whatever is wrong with it."""
    file = sqlite_file(url)
    if file is not None:
        return f"{_SQLITE}{printable(file)}"
    scheme, mark, rest = url.partition("://")
    login, at, place = rest.rpartition("@")
    user = login.partition(":")[0] + (":***" if ":" in login else "")
    place, query, _ = place.partition("?")
    return f"{scheme}{mark}{user}{at}{place}{query}{'…' if query else ''}"


def sqlite_file(url: str) -> Path | None:
    """Return the file that a URL of SQLite names; None where it is none. Its path is decoded here, and only here."""
    if not url.startswith(_SQLITE):
        return None
    path = os.fsdecode(unquote_to_bytes(url.removeprefix(_SQLITE).partition("?")[0]))
    return None if path in ("", ":memory:") else Path(path)


def _encoded(path: Path) -> str:
    """Return a path as part of a URL: what would be read as something else there is encoded, and no other character."""
    return re.sub("[%?{}\udc80-\udcff]", lambda found: quote(os.fsencode(found[0]), safe=""), str(path))


def write_pointer(folder: Path, place: Place) -> None:
    """Keep in a run's folder where its records lie."""
    text = json.dumps({"storage": place.url, "study": place.study}, indent=1) + "\n"
    replace_file(folder / POINTER, lambda path: path.write_text(text, encoding="utf-8"))


def read_pointer(folder: Path) -> Place | None:
    """Return where the records of a folder's run lie; None where in its journal.

    Raises:
        InputError: If it names a database that `--storage` would refuse.
        StoreError: If the pointer is damaged.
    """
    path = folder / POINTER
    if not path.is_file():
        return None
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        place = Place(url=content["storage"], study=content["study"])
    except (ValueError, LookupError, TypeError) as error:
        raise StoreError(
            f"{path}: the pointer to the run's database is damaged ({error}).\n"
            '  It should read {"storage": URL, "study": NAME}.'
        ) from error
    return replace(place, url=checked_url(place.url, where=printable(path)))


def open_database(url: str, *, create: bool) -> tuple[BaseStorage, RDBStorage]:
    """Connect to a database; return Optuna's storage, and what is beneath its cache.

    Args:
        url: As from `checked_url`.
        create: Make its tables, if they are not there.

    Raises:
        InputError: If the package for it is not installed, or a file to be read is not there.
        StoreError: If it cannot be reached or read.
    """
    file = sqlite_file(url)
    if file is not None and not create and not file.is_file():
        raise InputError(f"{file}: the database is not there.\n  Bring it back, or give the folder of another run.")
    try:
        database = RDBStorage(
            _for_sqlalchemy(url, file), engine_kwargs={"pool_pre_ping": True}, skip_table_creation=not create
        )
    except ImportError as error:
        raise InputError(
            f"{shown(url)}: the package for this database cannot be imported ({error}).\n"
            "  Install it: pip install 'hfir-search[postgres]'."
        ) from error
    except Exception as error:  # whatever a driver, a server or the network between may raise
        raise unreachable(url, error) from error
    return get_storage(database), database


def _for_sqlalchemy(url: str, file: Path | None) -> str:
    """Return a URL as the installed SQLAlchemy reads it: before 2.1 it did not decode the path of a database."""
    from sqlalchemy.engine import URL

    return url if file is None else URL.create("sqlite", database=str(file)).render_as_string()


@contextmanager
def reading(place: Place) -> Iterator[BaseStorage]:
    """Open a database to read.

    Raises:
        InputError: If its file is not there, or the package for it is not installed.
        StoreError: If it cannot be reached or read.
    """
    storage, database = open_database(place.url, create=False)
    try:
        yield storage
    except optuna.exceptions.StorageInternalError as error:
        raise unreachable(place.url, error) from error
    finally:
        database.engine.dispose()


@contextmanager
def reading_study(place: Place) -> Iterator[optuna.Study]:
    """Open a study of a database to read; InputError where it is not there, else as `reading`."""
    with reading(place) as storage:
        try:
            study = optuna.load_study(study_name=place.study, storage=storage)
        except KeyError as error:
            raise InputError(
                f"{shown(place.url)}: holds no study {place.study}.\n  Start the run, or give another folder."
            ) from error
        yield study


def unreachable(url: str, error: BaseException) -> StoreError:
    """Return an error of a database in words: its innermost cause, without a password."""
    while error.__cause__ is not None:
        error = error.__cause__
    reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
    secret = os.environ.get("PGPASSWORD")
    told = reason.replace(secret, "***") if secret else reason
    return StoreError(
        f"{shown(url)}: the database cannot be reached or used ({told}).\n"
        "  Everything recorded so far is kept there. See to the server, then give the same command again."
    )
