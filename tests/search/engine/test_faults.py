"""kill -9 of the driver and of workers, and a full disk, at drawn moments: nothing is lost, nothing done twice.

Drivers are processes of their own, forked from a server that has everything loaded. A driver dies at its so-and-so-many
call, counted by the interpreter, so a seed names the moment exactly; the operating system keeps what it had written.
"""

from __future__ import annotations

import errno
import multiprocessing
import os
import random
import resource
import signal
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import optuna
import pytest

from search.evaluation.plan import CandidateJob
from search.executors import Executor, InlineExecutor, ProcessExecutor
from search.store import JOURNAL, RunStore, hold, read_study
from search.study import SearchRun
from search.types import Measurement, StoreError, Study, Trial, TrialState

from .synthetic import TRAININGS, Arithmetic, Synthetic, nothing

KILLS = pytest.mark.parametrize("kills", [3, pytest.param(20, marks=pytest.mark.slow)])
TOLD, COUNTED = "told.txt", "calls.txt"
REFUSED = 3
"""Exit code of a driver that ended with a StoreError."""


@dataclass(frozen=True)
class Fate:
    """What happens to a driver: it dies at a call, or the disk is full beyond so many bytes of a file."""

    dies_at: int | None = None
    room: int | None = None
    deadly: dict[int, int] = field(default_factory=dict)
    told: Path | None = None
    """Where it leaves its last words, if not beside the run's folder."""


def drive(folder: Path, workers: int, fate: Fate) -> None:
    """Search until the end, or the fate; run in a process of its own."""
    if fate.room is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (fate.room, fate.room))
    executor = ProcessExecutor(workers, nothing) if workers else InlineExecutor()
    calls = _count_calls(fate.dies_at)
    try:
        _search(folder, executor, fate)
    except StoreError as error:
        sys.setprofile(None)
        (fate.told or folder.parent / TOLD).write_text(str(error))
        os._exit(REFUSED)
    finally:
        executor.close()
    sys.setprofile(None)
    (folder.parent / COUNTED).write_text(str(calls[0]))


def _count_calls(dies_at: int | None) -> list[int]:
    calls = [0]

    def count(frame: Any, event: str, argument: Any) -> None:
        calls[0] += 1
        if calls[0] == dies_at:
            os.kill(os.getpid(), signal.SIGKILL)

    sys.setprofile(count)
    return calls


def _search(folder: Path, executor: Executor, fate: Fate) -> None:
    problem = Synthetic()
    with hold(folder):
        store = RunStore(
            folder,
            name=problem.name,
            objectives=problem.objectives,
            identity="synthetic",
            spec={"objectives": list(problem.objectives)},
        )
        SearchRun(problem, Arithmetic(str(folder), fate.deadly), store, executor).run()


@pytest.fixture(scope="module")
def nursery() -> Any:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["search.study", "optuna.storages.journal"])
    return context


@pytest.fixture(scope="module")
def unbroken(nursery: Any, tmp_path_factory: pytest.TempPathFactory) -> Study:
    folder = tmp_path_factory.mktemp("unbroken") / "run"
    assert end_of(nursery, folder, 0, Fate()) == 0
    return read_study(folder)


@pytest.fixture(scope="module")
def calls(unbroken: Study) -> int:
    """Calls that the whole run takes, inline."""
    return int((unbroken.folder.parent / COUNTED).read_text())


def end_of(nursery: Any, folder: Path, workers: int, fate: Fate) -> int:
    process = nursery.Process(target=drive, args=(folder, workers, fate))
    process.start()
    process.join()
    code = process.exitcode
    process.close()
    return code


def records(folder: Path) -> dict[int, Trial]:
    """Read what is recorded; nothing yet where there is no journal yet."""
    if not (folder / JOURNAL).is_file() or b"\n" not in (folder / JOURNAL).read_bytes():
        return {}
    return {t.number: t for t in read_study(folder).trials}


def trainings(folder: Path) -> list[tuple[int, int]]:
    path = folder / TRAININGS
    lines = path.read_text().splitlines() if path.is_file() else []
    return [(int(trial), int(rung)) for trial, rung in map(str.split, lines)]


class Witness:
    """Looks at a run after each of its drivers' ends, and sees whether anything was lost or done again."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.known: dict[int, Trial] = {}
        self.seen = 0

    def look(self) -> None:
        now, begun = records(self.folder), trainings(self.folder)
        for number, before in self.known.items():
            after = now[number]
            assert after.measurements[: len(before.measurements)] == before.measurements
            if before.state is not TrialState.RUNNING:
                assert after == before, "a finished trial changed"
        again = [(trial, rung) for trial, rung in begun[self.seen :] if self._has(trial, rung)]
        assert again == [], "trained again, though it was recorded"
        self.known, self.seen = now, len(begun)

    def _has(self, trial: int, rung: int) -> bool:
        return trial in self.known and len(self.known[trial].measurements) > rung

    def compare(self, unbroken: Study) -> None:
        study = read_study(self.folder)
        assert study.trials == unbroken.trials
        times = {"elapsed_s": 0, "profile": 0}
        assert study.facts | times == unbroken.facts | times


@KILLS
@pytest.mark.parametrize(("workers", "share"), [(0, 8), (2, 4)], ids=["inline", "two workers"])
def test_a_driver_that_is_killed_loses_nothing_and_repeats_nothing(
    workers: int, share: int, kills: int, nursery: Any, unbroken: Study, calls: int, tmp_path: Path
):
    draw, run = random.Random(f"driver {workers}"), 0
    witness = Witness(tmp_path / "run0")
    while kills > 0:
        fate = Fate(dies_at=draw.randrange(1, calls // share))
        code = end_of(nursery, witness.folder, workers, fate)
        assert code in (0, -signal.SIGKILL), f"{kills} kills left, {fate}, run {run}: exit code {code}"
        witness.look()
        kills -= code != 0
        if code == 0:
            witness.compare(unbroken)
            run += 1
            witness = Witness(tmp_path / f"run{run}")
    assert end_of(nursery, witness.folder, workers, Fate()) == 0
    witness.look()
    witness.compare(unbroken)


@KILLS
def test_a_worker_that_is_killed_costs_its_own_candidate_another_try_and_no_other_anything(
    kills: int, nursery: Any, tmp_path: Path
):
    draw, run = random.Random("worker"), 0
    while kills > 0:
        folder = tmp_path / f"run{run}"
        fate = Fate(deadly={n: draw.randrange(2) for n in draw.sample(range(20), 12)})
        assert end_of(nursery, folder, 2, fate) == 0
        begun, study = Counter(trainings(folder)), read_study(folder)
        failed = study.in_state(TrialState.FAILED)
        struck = {n: moment for n, moment in fate.deadly.items() if (n, 0) in begun}
        lost = {n for n, moment in struck.items() if moment == 0}  # the others' checkpoint answers the second try
        assert {t.number for t in failed} == lost, f"{fate}, run {run}"
        assert all("SIGKILL" in t.reason for t in failed)
        assert {t.number for t in study.trials if t.setbacks} == set(struck)
        assert all(tries == (2 if rung == 0 and number in lost else 1) for (number, rung), tries in begun.items())
        assert not study.in_state(TrialState.RUNNING)
        assert study.facts["finished"] == 18
        for trial in study.in_state(TrialState.COMPLETE, TrialState.STOPPED):
            assert [begun[trial.number, m.rung] for m in trial.measurements] == [1] * len(trial.measurements)
        kills, run = kills - len(struck) - len(lost), run + 1


@pytest.mark.parametrize(
    ("workers", "times"),
    [
        pytest.param(0, 3, id="inline"),
        pytest.param(0, 20, id="inline, often", marks=pytest.mark.slow),
        pytest.param(2, 5, id="two workers", marks=pytest.mark.slow),
    ],
)
def test_a_full_disk_is_one_clear_error_and_the_run_goes_on_once_there_is_room(
    workers: int, times: int, nursery: Any, unbroken: Study, tmp_path: Path
):
    draw, whole = random.Random(f"disk {workers}"), (unbroken.folder / JOURNAL).stat().st_size
    witness = Witness(tmp_path / "run")
    for room in sorted(draw.sample(range(2000, whole - 200), times)):
        code = end_of(nursery, witness.folder, workers, Fate(room=room))
        told = (tmp_path / TOLD).read_text()
        assert code == REFUSED, f"room {room}: exit code {code}"
        assert "study.journal: the record cannot be written (File too large)" in told
        assert "Free disk space, then rerun the same command to resume" in told
        assert (witness.folder / JOURNAL).stat().st_size <= room
        witness.look()
    assert end_of(nursery, witness.folder, workers, Fate()) == 0
    witness.look()
    witness.compare(unbroken)


def test_a_disk_that_is_really_full(nursery: Any, unbroken: Study, tmp_path: Path):
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(disk)]
    if os.geteuid() != 0 or subprocess.run(mounted, capture_output=True).returncode != 0:
        pytest.skip("a file system of its own can be mounted by root alone; RLIMIT_FSIZE stands for it above")
    try:
        witness, filler = Witness(disk / "run"), disk / "filler"
        for room in (12_000, 20_000, 40_000):
            filler.write_bytes(b"x" * (2 * 2**20 - used(disk) - room // 4096 * 4096))
            assert end_of(nursery, witness.folder, 0, Fate(told=tmp_path / TOLD)) == REFUSED
            filler.unlink()
            assert "No space left on device" in (tmp_path / TOLD).read_text()
            witness.look()
        assert end_of(nursery, witness.folder, 0, Fate()) == 0
        witness.compare(unbroken)
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def used(disk: Path) -> int:
    status = os.statvfs(disk)
    return (status.f_blocks - status.f_bfree) * status.f_frsize


class Full(Arithmetic):
    """Its workers' disk is full."""

    def train(self, job: CandidateJob) -> Measurement:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), job.checkpoint)


def test_a_checkpoint_that_finds_no_room_is_not_its_candidates_fault():
    problem = Synthetic()
    store = RunStore(
        Path("nowhere"),
        name=problem.name,
        objectives=problem.objectives,
        identity="synthetic",
        spec={},
        storage=optuna.storages.InMemoryStorage(),
    )
    with pytest.raises(StoreError, match=r"could not write \S*0000\S* \(No space left on device\)"):
        SearchRun(problem, Full("nowhere"), store, InlineExecutor()).run()
    assert store.index.count(TrialState.FAILED) == 0
    assert store.index.waiting(0)
