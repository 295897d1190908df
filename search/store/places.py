"""Where a run's records lie: in its folder's journal, or in a database that its folder points to.

Passwords stand nowhere: not in the folder, not in a message. A URL that holds one is refused; PostgreSQL's own means
(PGPASSWORD, ~/.pgpass) take its place.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import optuna
from optuna.storages import BaseStorage, RDBStorage, get_storage

from search.files import replace_file
from search.types import InputError, StoreError

POINTER = "storage.json"
FORMS = "sqlite:///FILE or postgresql+psycopg://USER@HOST/DATABASE"
_POSTGRES = ("postgresql", "postgres", "postgresql+psycopg")


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A study in a database.

    Args:
        url: Without a password; of SQLite with an absolute path.
        study: Name of the study in it.
    """

    url: str
    study: str


def checked_url(text: str) -> str:
    """Return a storage URL as it is kept.

    Raises:
        InputError: If it cannot be read, holds a password, or names another database than SQLite or PostgreSQL.
    """
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import ArgumentError

    try:
        url = make_url(text)
    except (ArgumentError, ValueError) as error:  # a port that is no number is a ValueError
        raise InputError(f"--storage {shown(text)}: this is no storage URL.\n  Give {FORMS}.") from error
    if url.password is not None or any("password" in name for name in url.query):
        raise InputError(
            f"--storage {shown(text)}: the URL holds a password, which others could read from the list of processes.\n"
            "  Leave it out and give it as PGPASSWORD in the environment, or in ~/.pgpass."
        )
    if url.drivername in _POSTGRES and url.database:
        return url.set(drivername="postgresql+psycopg").render_as_string(hide_password=False)
    if url.drivername == "sqlite" and url.database and url.database != ":memory:":
        return f"sqlite:///{Path(url.database).absolute()}"
    raise InputError(f"--storage {shown(text)}: of this storage nothing is known here.\n  Give {FORMS}.")


def shown(url: str) -> str:
    """Return a URL without its password, whatever is wrong with it."""
    scheme, mark, rest = url.partition("://")
    login, at, place = rest.rpartition("@")
    user = login.partition(":")[0] + (":***" if ":" in login else "")
    place, query, _ = place.partition("?")
    return f"{scheme}{mark}{user}{at}{place}{query}{'…' if query else ''}"


def write_pointer(folder: Path, place: Place) -> None:
    """Keep in a run's folder where its records lie."""
    text = json.dumps({"storage": place.url, "study": place.study}, indent=1) + "\n"
    replace_file(folder / POINTER, lambda path: path.write_text(text, encoding="utf-8"))


def read_pointer(folder: Path) -> Place | None:
    """Return where the records of a folder's run lie; None where in its journal.

    Raises:
        StoreError: If the pointer is damaged.
    """
    path = folder / POINTER
    if not path.is_file():
        return None
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return Place(url=content["storage"], study=content["study"])
    except (ValueError, LookupError, TypeError) as error:
        raise StoreError(
            f"{path}: the pointer to the run's database is damaged ({error}).\n"
            '  It should read {"storage": URL, "study": NAME}.'
        ) from error


def open_database(url: str, *, create: bool) -> tuple[BaseStorage, RDBStorage]:
    """Connect to a database; return Optuna's storage, and what is beneath its cache.

    Args:
        url: As from `checked_url`.
        create: Make its tables, if they are not there.

    Raises:
        InputError: If the package for it is not installed, or a file to be read is not there.
        StoreError: If it cannot be reached or read.
    """
    file = url.removeprefix("sqlite:///")
    if file != url and not create and not Path(file).is_file():
        raise InputError(f"{file}: the database is not there.\n  Bring it back, or give the folder of another run.")
    try:
        database = RDBStorage(url, engine_kwargs={"pool_pre_ping": True}, skip_table_creation=not create)
    except ImportError as error:
        raise InputError(
            f"{shown(url)}: the package for this database cannot be imported ({error}).\n"
            "  Install it: pip install 'hfir-search[postgres]'."
        ) from error
    except Exception as error:  # whatever a driver, a server or the network between may raise
        raise unreachable(url, error) from error
    return get_storage(database), database


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
