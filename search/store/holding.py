"""Who writes into a run's folder, or its database: one process at a time."""

from __future__ import annotations

import logging
import os
import socket
import sys
import threading
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import optuna
from filelock import FileLock, Timeout

from search.caching import LOCK_ERRORS, reason_of
from search.files import NO_ROOM, UNUSABLE, shown
from search.store.consent import followed_pointer
from search.store.places import reading_study
from search.types import InputError, StoreError

LOCK = "run.lock"
HOLD_TIMEOUT_S = 0.3
"""How long a driver tries for its folder: `is_held` takes the lock for an instant, and must not turn one away."""

LEASE = "lease"
BEAT_S = 10.0
"""How often a driver says that it lives, to a database."""
STALE_S = 60.0
"""After so long without a sign it is taken for dead."""
SETTLE_S = 0.2
"""Of two drivers that start in the same moment the later one has written by then."""

log = logging.getLogger(__name__)


@contextmanager
def hold(folder: Path) -> Iterator[None]:
    """Hold a run's folder: a second driver on it is refused. The lock goes with the process, however it ends.

    Where the file system has no locks, a warning says so.

    Raises:
        StoreError: If another process holds it.
        OSError: If the folder cannot be made, or written to.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / LOCK, timeout=HOLD_TIMEOUT_S)
    try:
        lock.acquire()
    except Timeout as error:
        raise StoreError(
            f"{folder}: another hfir-search is running in this folder.\n"
            "  Wait for it, stop it, or give another folder with --out."
        ) from error
    except LOCK_ERRORS as error:
        if isinstance(error, OSError) and error.errno in (*UNUSABLE, *NO_ROOM):
            raise
        log.warning("%s cannot be locked (%s): start no second hfir-search in it", shown(folder), reason_of(error))
    try:
        yield
    finally:
        lock.release()


def is_held(folder: Path) -> bool | None:
    """Say whether a driver is at work on a run; None where that cannot be seen (a folder of another user)."""
    locked = _is_locked(folder)
    place = None if locked else followed_pointer(folder)
    if place is None:
        return locked
    try:
        with reading_study(place) as study:
            return is_fresh(lease_of(study))
    except InputError:
        return locked


def _is_locked(folder: Path) -> bool | None:
    if not (folder / LOCK).is_file():
        return False
    lock = FileLock(folder / LOCK, timeout=0)
    try:
        lock.acquire()
    except Timeout:
        return True
    except LOCK_ERRORS:
        return None
    lock.release()
    return False


class Lease:
    """A driver's claim on a study in a database, which drivers on other machines see, renewed while the driver lives.

    A lease that was not renewed for `STALE_S` is that of a driver that has died. Before it is taken over it is watched
    for a while: clocks of different machines may differ.

    Args:
        study: In the database.
        folder: The run's on this machine, held by this process.
    """

    def __init__(self, study: optuna.Study, folder: Path) -> None:
        self._study, self._folder = study, folder
        self._id, self._lost = uuid.uuid4().hex, threading.Event()
        self._stop = threading.Event()
        self._renewed = 0.0

    def acquire(self) -> None:
        """Take the study.

        Raises:
            StoreError: If another driver has it.
        """
        found = lease_of(self._study)
        if found and not self._is_ours(found):
            if not _has_died(found) and (abs(age_of(found)) < STALE_S or self._is_renewed(found)):
                raise StoreError(
                    f"study {self._study.study_name}: another hfir-search is at work on it: {_said(found)}.\n"
                    f"  Wait for it, or stop it. If it was killed, its hold ends {STALE_S:.0f} s after its last sign."
                )
            log.warning("study=%s took_over=%r last_sign_s=%.0f", self._study.study_name, _said(found), age_of(found))
        self._renew()
        time.sleep(SETTLE_S)
        self._look()
        threading.Thread(target=self._keep, name="lease", daemon=True).start()

    def check(self) -> None:
        """Make sure, before something is written, that the study is still this driver's.

        Raises:
            StoreError: If another driver took it over.
        """
        if self._lost.is_set() or time.time() - self._renewed > STALE_S:
            self._look()

    def release(self) -> None:
        """Give the study back, if it is still this driver's."""
        self._stop.set()
        if lease_of(self._study).get("id") == self._id:
            self._study.set_user_attr(LEASE, {})

    def _look(self) -> None:
        found = lease_of(self._study)
        if found.get("id") != self._id:
            self._lost.set()
            raise StoreError(
                f"study {self._study.study_name}: another hfir-search has taken it over: {_said(found)}.\n"
                "  This one stops; what it had recorded is kept."
            )

    def _keep(self) -> None:
        while not self._stop.wait(BEAT_S):
            try:
                self._look()
                self._renew()
            except StoreError:
                return
            except Exception as error:  # a server that is away for a moment: the driver's own writes will tell
                log.warning("study=%s lease_not_renewed=%s", self._study.study_name, type(error).__name__)

    def _renew(self) -> None:
        sign = {"id": self._id, **_here(), "pid": os.getpid(), "folder": str(self._folder.absolute())}
        self._study.set_user_attr(LEASE, sign | {"renewed_at": time.time()})
        self._renewed = time.time()

    def _is_ours(self, found: Mapping[str, Any]) -> bool:
        """Say whether a lease is of an earlier driver in this folder: it has died, or the folder would be locked."""
        return {**_here(), "folder": str(self._folder.absolute())}.items() <= found.items()

    def _is_renewed(self, found: Mapping[str, Any]) -> bool:
        time.sleep(1.5 * BEAT_S)
        return lease_of(self._study) not in (found, {})


def lease_of(study: optuna.Study) -> dict[str, Any]:
    """Return who holds a study of a database; empty where nobody does."""
    return dict(study.user_attrs.get(LEASE) or {})


def is_fresh(lease: Mapping[str, Any], *, held: Path | None = None) -> bool:
    """Say whether a driver has given a sign of late; one whose clock is ahead of this machine's counts as alive.

    Args:
        lease: As from `lease_of`.
        held: A folder that this process holds itself.
    """
    return bool(lease) and age_of(lease) < STALE_S and not _has_died(lease, held)


def age_of(lease: Mapping[str, Any]) -> float:
    """Return the seconds since the last sign of a driver, by this machine's clock."""
    return time.time() - float(lease["renewed_at"])


def _has_died(lease: Mapping[str, Any], held: Path | None = None) -> bool:
    """Say whether a driver was on this machine and is gone: its folder is not locked, and its process is not there."""
    if not _here().items() <= lease.items() or _exists(int(lease["pid"])):
        return False
    folder = Path(lease["folder"])
    return (held is not None and held.absolute() == folder) or _is_locked(folder) is False


def _exists(pid: int) -> bool:
    """Say whether there is a process of that number; on Windows, where asking would disturb it, always True."""
    if sys.platform == "win32":
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:  # of another user
        return True
    return True


def _here() -> dict[str, str]:
    return {"host": socket.gethostname(), "machine": f"{uuid.getnode():012x}"}


def _said(lease: Mapping[str, Any]) -> str:
    if not lease:
        return "one that is gone again"
    ahead_s = -age_of(lease)
    clock = f", whose clock is {ahead_s:.0f} s ahead of the clock here" if ahead_s > STALE_S else ""
    return f"process {lease['pid']} on {lease['host']}{clock}, folder {lease['folder']}"
