"""The cache: a damaged, unreadable or unwritable one costs a warning, and never what asked for it."""

import errno
import json
import logging
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import filelock
import numpy as np
import pytest
import torch

from hfir.config import HFIRConfig
from hfir.model import build_model
from search import caching, files
from search.caching import cache_folder, entry_lock, read_json, write_json
from search.evaluation import cost, latency, reference, turns
from search.evaluation.cost import count_afresh, static_counts
from search.evaluation.latency import remembered_latency
from search.evaluation.reference import rest_ms
from search.evaluation.turns import Steps, measuring
from search.store import LOCK, hold, is_held
from search.tabular import nb201
from search.types import InputSize, Latency

AT = InputSize(width=8, height=8)
SMALL = HFIRConfig(width=4, encoder_blocks=(1,))
DAMAGE = {
    "empty": b"",
    "cut": b'{"sessions_ms": [1.0',
    "zeros": bytes(64),
    "another": b"[]",
    "not a number": b'{"sessions_ms": [NaN], "params": [NaN, 1, 1], "macs_g": 1, "activations_m": 1}',
    "not UTF-8": b"\xff\xfe{}",
}


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Use an empty cache, in a process that has warned of nothing yet."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(caching, "_warned", set())
    monkeypatch.setattr(caching, "_unwritten", {})
    cost._remembered.cache_clear()
    return tmp_path / "cache"


def counts() -> object:
    cost._remembered.cache_clear()  # as another process would find it
    return static_counts(SMALL, AT)


def speed_at_rest() -> object:
    reference.Reference("small", threads=1)
    return rest_ms("small", 1) is not None


def one_latency() -> object:
    return remembered_latency(build_model(SMALL).eval(), AT, 1, remeasure=False).median_ms


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look at the reference for an instant; each measured latency is one ms more than the one before."""
    monkeypatch.setattr(reference, "CALIBRATION_S", 0.01)
    figures = iter(range(1, 100))

    def measured(*arguments: object, **options: object) -> Latency:
        ms = float(next(figures))
        words = dict.fromkeys(("at", "device", "dtype", "runtime", "host", "measured_at"), "")
        return Latency(median_ms=ms, low_ms=ms, high_ms=ms, repeats=1, threads=1, **words)

    monkeypatch.setattr(latency, "measure_latency", measured)


READERS = pytest.mark.parametrize("ask", [counts, speed_at_rest, one_latency], ids=lambda f: f.__name__)


@pytest.mark.usefixtures("quick")
@READERS
@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_entry_is_ignored_reported_once_and_rewritten(ask: Callable[[], object], damage: str, home, caplog):
    first = ask()
    entries = list(home.rglob("*.json"))
    assert entries
    for path in entries:
        path.write_bytes(DAMAGE[damage])
    caching._unwritten.clear()
    again = ask()
    assert type(again) is type(first)
    assert again == (2.0 if ask is one_latency else first)  # measured again
    folder = entries[0].parent
    assert [r.message.count("is damaged") for r in caplog.records if str(folder) in r.message] == [1]
    for path in entries:
        json.loads(path.read_text())
        assert path.read_bytes() != DAMAGE[damage]


def in_the_way(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home.write_text("a file where the folder should be")


def dev_null(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/dev/null")


def read_only(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path, *args: object, **options: object) -> None:
        raise PermissionError(errno.EROFS, "Read-only file system", str(path))

    monkeypatch.setattr(Path, "mkdir", refuse)


def full_disk(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", refuse)


UNWRITABLE = pytest.mark.parametrize("fault", [in_the_way, dev_null, read_only, full_disk], ids=lambda f: f.__name__)


@pytest.mark.usefixtures("quick")
@READERS
@UNWRITABLE
def test_without_a_writable_cache_figures_are_the_same_and_a_warning_says_so_once(
    ask: Callable[[], object], fault: Callable[..., None], home, monkeypatch, caplog
):
    fault(home, monkeypatch)
    first = ask()
    assert ask() == first  # this process knows it still
    written = [r.message for r in caplog.records if "cannot be written" in r.message]
    assert len(written) == 1
    assert "continuing without this cache" in written[0]
    assert "hfir-search" in written[0]
    if ask is counts:
        assert first == count_afresh(SMALL, AT)


def test_an_entry_that_cannot_be_read_is_computed_again(home, monkeypatch, caplog):
    write_json(home / "a.json", 1)

    def refuse(path: Path, **options: object) -> str:
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(Path, "read_text", refuse)
    assert read_json(home / "a.json", int) is None
    assert f"{home / 'a.json'} cannot be read (Permission denied)" in caplog.text


def test_an_entry_is_written_again_as_soon_as_that_is_possible(home, monkeypatch):
    with monkeypatch.context() as full:
        full_disk(home, full)
        write_json(home / "a.json", 1)
    assert not (home / "a.json").exists()
    assert read_json(home / "a.json", int) == 1
    write_json(home / "a.json", 2)
    assert json.loads((home / "a.json").read_text()) == read_json(home / "a.json", int) == 2


def test_writers_of_one_entry_do_not_disturb_each_other(home):
    with ThreadPoolExecutor(8) as pool:
        for _ in pool.map(lambda number: write_json(home / "a.json", {"number": number}), range(200)):
            assert read_json(home / "a.json", lambda entry: 0 <= entry["number"] < 200)
    assert [path.name for path in home.iterdir()] == ["a.json"]
    assert not caching._unwritten


# Locks --------------------------------------------------------------------------------------------


def no_locks(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(file: object, how: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    fcntl = pytest.importorskip("fcntl", reason="turns are taken by POSIX locks")
    monkeypatch.setattr(fcntl, "flock", refuse)


@pytest.mark.parametrize("fault", [in_the_way, dev_null, read_only, no_locks], ids=lambda f: f.__name__)
def test_without_locks_measurements_and_steps_run_and_a_warning_says_what_that_means(fault, home, monkeypatch, caplog):
    fault(home, monkeypatch)
    with measuring():
        pass
    for _ in range(2):
        with Steps() as steps:
            for _ in range(2):
                with steps.turn():
                    pass
    with measuring():
        pass
    warnings = [r.message for r in caplog.records if r.levelno >= logging.WARNING]
    assert len(warnings) == 1
    assert str(cache_folder("turns")) in warnings[0]
    assert "latencies may disturb each other" in warnings[0]
    assert not turns._measuring_here


@pytest.mark.parametrize("error", [OSError(errno.EOPNOTSUPP, "Operation not supported"), NotImplementedError("flock")])
def test_an_entry_is_made_where_it_cannot_be_locked(error: Exception, home, monkeypatch):
    def refuse(lock: object) -> None:
        raise error

    monkeypatch.setattr(filelock.FileLock, "acquire", refuse)
    with entry_lock(home / "entry"):
        write_json(home / "entry", 1)
    assert read_json(home / "entry", int) == 1


@pytest.mark.parametrize("error", [OSError(errno.ENOLCK, "No locks available"), NotImplementedError("flock")])
def test_a_run_is_held_without_locks_and_a_warning_says_so(error: Exception, home, monkeypatch, caplog):
    def refuse(lock: object) -> None:
        raise error

    monkeypatch.setattr(filelock.FileLock, "acquire", refuse)
    with hold(home / "run"):
        pass
    assert f"{home / 'run'} cannot be locked" in caplog.text
    (home / "run" / LOCK).touch()
    assert is_held(home / "run") is None


def test_a_run_whose_folder_cannot_be_written_is_not_held(home, monkeypatch):
    def refuse(lock: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system", "run.lock")

    monkeypatch.setattr(filelock.FileLock, "acquire", refuse)
    with pytest.raises(OSError, match="Read-only"), hold(home / "run"):
        pass


# Tables -------------------------------------------------------------------------------------------


def few_figures(monkeypatch: pytest.MonkeyPatch) -> nb201._Figures:
    cells = len(nb201.OPERATIONS) ** nb201.EDGES
    figures = nb201._Figures(*(np.full((cells, 3), 1.0) for _ in range(2)), *(np.full(cells, 1.0) for _ in range(2)))
    monkeypatch.setattr(nb201, "find_spec", lambda name: type("Spec", (), {"submodule_search_locations": ["/x"]}))
    monkeypatch.setattr(nb201, "version", lambda name: "0.2.0")
    monkeypatch.setattr(nb201, "_convert", lambda source: figures)
    return figures


@pytest.mark.parametrize("damage", ["empty", "cut", "another"])
def test_a_damaged_table_is_read_from_the_wheel_again(damage: str, home, monkeypatch, caplog):
    few_figures(monkeypatch)
    nb201.load_nb201("nb201-cifar10")
    (entry,) = home.rglob("*.npz")
    whole = entry.read_bytes()
    entry.write_bytes({"empty": b"", "cut": whole[: len(whole) // 2], "another": DAMAGE["another"]}[damage])
    nb201.load_nb201("nb201-cifar10")
    assert f"{entry} is damaged" in caplog.text
    assert nb201._read(entry).accuracy.shape == (15_625, 3)


def test_a_table_is_read_without_a_cache(home, monkeypatch, caplog):
    few_figures(monkeypatch)
    in_the_way(home, monkeypatch)
    assert nb201.load_nb201("nb201-cifar10").quality.shape == (15_625, 3, 1)
    assert "cannot be written" in caplog.text


@pytest.mark.usefixtures("measured_figures")
def test_measuring_does_not_need_any_of_it(monkeypatch, caplog):
    monkeypatch.setattr(reference, "CALIBRATION_S", 0.01)
    monkeypatch.setenv("XDG_CACHE_HOME", "/proc/nowhere")
    network = torch.nn.Conv2d(3, 3, 1).eval()
    figure = latency.measure_latency(network, AT, threads=1, in_channels=3, limit_s=0.01)
    assert figure.median_ms > 0
    assert os.sep + "proc" in caplog.text
