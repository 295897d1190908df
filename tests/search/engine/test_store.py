from __future__ import annotations

import errno
import gc
import json
import os
import shutil
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock

from search.experiment import Experiment
from search.store import JOURNAL, RunStore, hold, read_study, repair_journal
from search.store.journal import JournalReader, _parsed
from search.store.records import study_of
from search.types import (
    Cost,
    Genotype,
    InputError,
    Latency,
    Measurement,
    StoreError,
    Trial,
    TrialState,
    to_json,
)

COST = Cost(
    params_m=0.1,
    params_train_m=0.2,
    params_active_m=0.1,
    macs_g=1.5,
    macs_at="64x64",
    peak_mem_mib=3.5,
    peak_mem_at="24x24",
    latency=Latency(
        median_ms=2,
        low_ms=1.9,
        high_ms=2.2,
        repeats=20,
        at="24x24",
        threads=1,
        device="cpu",
        dtype="float32",
        runtime="torch",
        host="here",
        measured_at="2026-01-01T00:00:00+00:00",
    ),
)
MEASUREMENT = Measurement(
    rung=0, step=2, psnr_db=30.25, ssim=0.9, psnr_per_image_db=(30.0, 30.5), elapsed_s=1.5, loss=0.1
)


@pytest.fixture
def experiment(tiny: Callable[..., Experiment]) -> Experiment:
    return tiny()


@pytest.fixture
def store(experiment: Experiment, tmp_path: Path, store_of: Callable[[Experiment, Path], RunStore]) -> RunStore:
    return store_of(experiment, tmp_path / "run")


def optuna_journal(path: Path) -> JournalStorage:
    """Open a journal as any other program does."""
    return JournalStorage(JournalFileBackend(str(path), lock_obj=JournalFileOpenLock(str(path))))


def propose(store: RunStore, width: int = 4) -> int:
    return store.record_proposal(
        store.optuna.ask(), genotype=Genotype({"width": width}), seed=11, generation=2, config={"width": width}
    )


def test_a_trial_is_read_back_as_it_was_recorded(store: RunStore):
    number = propose(store)
    store.record_cost(number, COST, {"macs_g": -0.5})
    store.record_measurement(store.study().trials[0], MEASUREMENT)
    store.finish(number, TrialState.COMPLETE, values=[30.25, 1.5, 0.1])
    for study in (store.study(), read_study(store.folder)):
        [trial] = study.trials
        assert (trial.number, trial.state, trial.seed, trial.generation) == (0, TrialState.COMPLETE, 11, 2)
        assert (trial.genotype, trial.config) == (Genotype({"width": 4}), {"width": 4})
        assert (trial.cost, trial.measurements) == (COST, (MEASUREMENT,))


def test_optuna_sees_values_and_constraints(store: RunStore):
    number = propose(store)
    store.record_cost(number, COST, {"macs_g": 0.5})
    store.finish(number, TrialState.INFEASIBLE, reason="macs_g 1.5 > 1")
    [frozen] = store.optuna.get_trials()
    assert frozen.state is optuna.trial.TrialState.PRUNED
    assert frozen.constraints == {"macs_g": 0.5}
    assert store.optuna.metric_names == ["psnr_db", "macs_g", "params_m"]


@pytest.mark.parametrize("state", [TrialState.STOPPED, TrialState.DUPLICATE, TrialState.FAILED])
def test_reasons_are_kept(store: RunStore, state: TrialState):
    store.finish(propose(store), state, reason="because", failure="trace")
    [trial] = store.study().trials
    assert (trial.state, trial.reason, trial.failure) == (state, "because", "trace")


def test_another_experiment_is_refused_with_what_differs(
    store: RunStore, tiny: Callable[..., Experiment], store_of: Callable[[Experiment, Path], RunStore]
):
    with pytest.raises(InputError, match=r"search\.seed, space\.width differ.*\n.*--out"):
        store_of(tiny("search.seed=4", "space.width=8"), store.folder)


def test_more_trials_and_other_workers_are_the_same_experiment(
    store: RunStore, tiny: Callable[..., Experiment], store_of: Callable[[Experiment, Path], RunStore]
):
    again = store_of(tiny("search.trials=50", "execution.workers=1"), store.folder)
    assert again.study().spec["search"]["trials"] == 50


def test_a_journal_cut_anywhere_in_its_last_line_keeps_all_lines_before(
    store: RunStore, experiment: Experiment, store_of: Callable[[Experiment, Path], RunStore], tmp_path: Path
):
    for width in (4, 8):
        store.finish(propose(store, width), TrialState.DUPLICATE)
    store.note("half", "written")
    content = (store.folder / JOURNAL).read_bytes()
    last = content.rstrip(b"\n").rfind(b"\n") + 1
    for cut in (last + 1, (last + len(content)) // 2, len(content) - 2, len(content) - 1):
        folder = tmp_path / f"cut{cut}"
        folder.mkdir()
        (folder / JOURNAL).write_bytes(content[:cut])
        reopened = store_of(experiment, folder)
        assert [t.state for t in reopened.study().trials] == [TrialState.DUPLICATE] * 2
        assert ("half" in reopened.study().facts) == (cut == len(content) - 1)
        reopened.finish(propose(reopened, 4), TrialState.STOPPED)
        assert len(read_study(folder).trials) == 3
        assert all(json.loads(line) for line in (folder / JOURNAL).read_bytes().splitlines())


def test_a_whole_journal_is_left_alone(store: RunStore):
    before = (store.folder / JOURNAL).read_bytes()
    repair_journal(store.folder / JOURNAL)
    assert (store.folder / JOURNAL).read_bytes() == before


def test_a_journal_damaged_in_the_middle_is_refused(
    store: RunStore, experiment: Experiment, store_of: Callable[[Experiment, Path], RunStore], tmp_path: Path
):
    lines = (store.folder / JOURNAL).read_bytes().splitlines(keepends=True)
    folder = tmp_path / "damaged"
    folder.mkdir()
    (folder / JOURNAL).write_bytes(b"".join([lines[0], b'{"op_code": 3, "wor\n', *lines[1:]]))
    with pytest.raises(StoreError, match="damaged"):
        store_of(experiment, folder)


def test_a_last_line_that_is_the_beginning_of_one_is_dropped_even_where_it_ends(
    store: RunStore, experiment: Experiment, store_of: Callable[[Experiment, Path], RunStore]
):
    store.finish(propose(store), TrialState.STOPPED)
    path = store.folder / JOURNAL
    whole = path.read_bytes()
    path.write_bytes(whole + b'{"op_code": 3, "wor\n')
    reopened = store_of(experiment, store.folder)
    reopened.finish(propose(reopened), TrialState.STOPPED)
    assert len(read_study(store.folder).trials) == 2
    assert path.read_bytes().startswith(whole)
    assert all(json.loads(line) for line in path.read_bytes().splitlines())


@pytest.mark.parametrize("tail", [b"{\n{}", b"{\n{", b"{\n{\n", b"\xff\xfe\n"])
def test_a_journal_damaged_before_a_torn_end_is_refused_to_who_would_write(
    store: RunStore, experiment: Experiment, store_of: Callable[[Experiment, Path], RunStore], tail: bytes
):
    path = store.folder / JOURNAL
    line = len(path.read_bytes().splitlines()) + 1
    with path.open("ab") as file:
        file.write(tail)
    with pytest.raises(StoreError, match=rf"the journal is damaged \(line {line}: "):
        store_of(experiment, store.folder)


@pytest.mark.parametrize("lines", [b'{"a": [1\n2]}\n{}\n', b"{},{}\n{}\n"])
def test_lines_that_are_json_only_together_are_damaged(tmp_path: Path, lines: bytes):
    (tmp_path / JOURNAL).write_bytes(lines)
    with pytest.raises(ValueError, match="line 1: "):
        list(JournalReader(tmp_path / JOURNAL).read_logs(0))


@pytest.mark.parametrize("at_once", [1, 300, 1000])
def test_a_journal_longer_than_what_is_parsed_at_once_is_read_whole(
    store: RunStore, monkeypatch: pytest.MonkeyPatch, at_once: int
):
    for _ in range(5):
        propose(store)
    path = store.folder / JOURNAL
    lines = [json.loads(line) for line in path.read_bytes().splitlines()]
    monkeypatch.setattr("search.store.journal._AT_ONCE", at_once)
    for tail in (b"", b"{", b"{\n"):
        with path.open("ab") as file:
            file.write(tail)
        assert list(JournalReader(path).read_logs(0)) == lines
        assert list(JournalReader(path).read_logs(7)) == lines[7:]


def test_a_reader_that_was_stopped_halfway_misses_nothing(store: RunStore):
    propose(store)
    reader = JournalReader(store.folder / JOURNAL)
    lines = list(reader.read_logs(0))
    assert next(reader.read_logs(0)) == lines[0]
    assert list(reader.read_logs(1)) == lines[1:]


@pytest.mark.parametrize("damage", [b"", b"{\n{}\n"])
def test_garbage_is_sought_again_after_a_run_was_read(store: RunStore, damage: bytes):
    with (store.folder / JOURNAL).open("ab") as file:
        file.write(damage)
    with suppress(StoreError):
        read_study(store.folder)
    assert gc.isenabled()


def test_a_reader_yields_what_optunas_own_does_and_then_what_was_added(store: RunStore):
    propose(store)
    path = store.folder / JOURNAL
    own, theirs = JournalReader(path), JournalFileBackend(str(path), lock_obj=JournalFileOpenLock(str(path)))
    first = list(own.read_logs(0))
    assert first == list(theirs.read_logs(0))
    propose(store)
    added = list(own.read_logs(len(first)))
    assert added == list(theirs.read_logs(len(first)))
    assert added
    assert list(own.read_logs(len(first) + len(added))) == []
    assert list(own.read_logs(2)) == [*first, *added][2:]  # from anywhere, if asked
    with path.open("ab") as file:
        file.write(b'{"op_code": 2')  # the writer is at it
    assert list(own.read_logs(0)) == [*first, *added]


def test_a_reader_does_not_write(store: RunStore):
    with pytest.raises(StoreError, match="opened to read"):
        JournalReader(store.folder / JOURNAL).append_logs([{}])


def test_a_lock_left_by_a_killed_driver_does_not_block(
    store: RunStore, experiment: Experiment, store_of: Callable[[Experiment, Path], RunStore]
):
    (store.folder / f"{JOURNAL}.lock").touch()
    assert store_of(experiment, store.folder).study().trials == ()


def test_a_proposal_that_was_not_recorded_is_told_off_and_never_shown(store: RunStore):
    store.optuna.ask()
    assert store.close_lost_proposals() == 1
    assert store.study().trials == ()
    assert not store.optuna.get_trials(states=(optuna.trial.TrialState.RUNNING,))


def test_an_end_that_was_recorded_but_not_told_is_told(store: RunStore, monkeypatch: pytest.MonkeyPatch):
    number = propose(store)
    store.record_cost(number, COST, {})
    store.record_measurement(store.study().trials[0], MEASUREMENT)
    with monkeypatch.context() as patch:
        patch.setattr(store.optuna, "tell", lambda *args, **kwargs: None)
        store.finish(number, TrialState.COMPLETE, values=[30.25, 1.5, 0.1])
    assert store.close_lost_proposals() == 0
    [frozen] = store.optuna.get_trials()
    assert (frozen.state, frozen.values) == (optuna.trial.TrialState.COMPLETE, [30.25, 1.5, 0.1])


def test_a_withdrawn_trial_is_infeasible(store: RunStore):
    number = propose(store)
    store.record_cost(number, COST, {})
    store.record_measurement(store.study().trials[0], MEASUREMENT)
    store.finish(number, TrialState.COMPLETE, values=[30.25, 1.5, 0.1])
    store.note("withdrawn", {str(number): "measured again: over"})
    [trial] = store.study().trials
    assert (trial.state, trial.reason) == (TrialState.INFEASIBLE, "measured again: over")


CHANGES = st.lists(st.tuples(st.sampled_from("pcmfwx"), st.integers(0, 9)), max_size=25)


@given(CHANGES)
@settings(max_examples=40, deadline=None)
def test_what_is_kept_in_memory_is_what_the_records_say(changes: list[tuple[str, int]]):
    store = RunStore(
        Path("nowhere"),
        name="any",
        objectives=("psnr_db", "macs_g"),
        identity="x",
        spec={"objectives": ["psnr_db", "macs_g"]},
        storage=optuna.storages.InMemoryStorage(),
    )
    for change, pick in changes:
        if change == "p":
            propose(store, 4 * (pick % 4))
        elif (known := store.study().trials) and (trial := known[pick % len(known)]).state is TrialState.RUNNING:
            change_one(store, trial, change)
        elif known and change == "w":
            store.note("withdrawn", "over", trial=trial.number)
    trials = study_of(store.folder, store.optuna).trials
    assert store.study() == study_of(store.folder, store.optuna)
    assert store.index.trials == trials == tuple(reversed(list(store.index.newest_first())))
    for state in TrialState:
        assert store.index.count(state) == sum(t.state is state for t in trials)
    open_trials = [t for t in trials if t.state is TrialState.RUNNING]
    assert list(store.index.unmeasured()) == [t for t in open_trials if t.cost is None]
    for rung in range(3):
        waiting = [t for t in open_trials if t.cost is not None and len(t.measurements) == rung]
        assert list(store.index.waiting(rung)) == waiting
    for width in (0, 4, 8, 12, 16):
        first = next((t.number for t in trials if t.config == {"width": width}), None)
        assert store.index.twin(Genotype({"width": width}).key, None) == first
        assert store.index.twin("another", {"width": width}) == first


def change_one(store: RunStore, trial: Trial, change: str) -> None:
    match change:
        case "c":
            store.record_cost(trial.number, COST, {"macs_g": -0.5})
        case "m":
            store.record_measurement(trial, replace(MEASUREMENT, rung=len(trial.measurements)))
        case "f":
            store.finish(trial.number, TrialState.FAILED, reason="because")
        case "x":
            store.finish(trial.number, TrialState.COMPLETE, values=[30.0, 1.0])
        case _:
            store.finish(trial.number, TrialState.STOPPED)


def test_measurements_of_older_runs_are_read_and_added_to(store: RunStore):
    number = propose(store)
    store.optuna._storage.set_trial_user_attr(number, "measurements", [to_json(MEASUREMENT)])
    [trial] = read_study(store.folder).trials
    assert trial.measurements == (MEASUREMENT,)
    store.record_measurement(trial, replace(MEASUREMENT, rung=1))
    assert [m.rung for m in read_study(store.folder).trials[0].measurements] == [0, 1]


def test_what_belongs_together_is_appended_at_once(store: RunStore):
    journal = store.folder / JOURNAL
    before = journal.read_bytes()
    for durable in (False, True):
        with store.together(durable=durable):
            number = propose(store)
            store.finish(number, TrialState.STOPPED, reason="because")
            assert journal.read_bytes() == before
            assert store.study().trials[-1].reason == "because"
        before = journal.read_bytes()
        assert read_study(store.folder).trials == store.study().trials


@pytest.fixture
def bytes_on_disk(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The size of the file at each moment at which the system was told to write it to the disk."""
    sizes: list[int] = []
    fsync = os.fsync

    def recorded(descriptor: int) -> None:
        sizes.append(os.fstat(descriptor).st_size)
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", recorded)
    return sizes


def test_a_record_is_on_the_disk_when_it_was_made(store: RunStore, bytes_on_disk: list[int]):
    journal = store.folder / JOURNAL
    for record in (
        lambda: propose(store),
        lambda: store.record_cost(0, COST, {}),
        lambda: store.record_measurement(store.index[0], MEASUREMENT),
        lambda: store.note("note", 1),
        lambda: store.finish(0, TrialState.STOPPED),
        lambda: store.optuna.set_user_attr("alone", 1),  # outside of `together`
    ):
        record()
        assert bytes_on_disk[-1] == journal.stat().st_size


def test_lines_that_were_written_in_part_are_taken_back(store: RunStore, monkeypatch: pytest.MonkeyPatch):
    before = (store.folder / JOURNAL).read_bytes()

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StoreError, match="the record cannot be written"):
        store.note("note", 1)
    assert (store.folder / JOURNAL).read_bytes() == before


def test_what_would_be_recorded_again_does_not_wait_for_the_disk(store: RunStore, bytes_on_disk: list[int]):
    number = propose(store)
    waits = len(bytes_on_disk)
    with store.together(durable=False):
        store.note("note", 1, trial=number)
    assert len(bytes_on_disk) == waits


def test_a_journal_that_another_program_writes_into_meanwhile_is_left_as_it_is(store: RunStore):
    other = optuna.load_study(study_name="tiny", storage=optuna_journal(store.folder / JOURNAL))

    def write_both() -> None:
        with store.together():
            propose(store)
            other.set_user_attr("note", "mine")

    with pytest.raises(StoreError, match="another program wrote"):
        write_both()
    assert read_study(store.folder).trials == ()


def test_what_the_driver_wrote_itself_it_does_not_read_again(store: RunStore, monkeypatch: pytest.MonkeyPatch):
    parsed: list[bytes] = []
    monkeypatch.setattr(
        "search.store.journal._parsed", lambda lines, first: parsed.extend(lines) or _parsed(lines, first)
    )
    for _ in range(3):
        with store.together():
            store.finish(propose(store), TrialState.STOPPED)
    assert not parsed
    store.optuna.set_user_attr("alone", "is read, since others may have written before it")
    assert len(parsed) == 1


def test_a_line_that_another_program_has_half_written_is_not_written_behind(store: RunStore):
    path = store.folder / JOURNAL

    def write_behind() -> None:
        with store.together():
            propose(store)
            with path.open("ab") as file:
                file.write(b'{"op_code": 2')

    before = path.read_bytes()
    with pytest.raises(StoreError, match="another program wrote"):
        write_behind()
    assert path.read_bytes() == before + b'{"op_code": 2'


def test_what_another_program_wrote_before_is_read_and_kept(store: RunStore):
    optuna.load_study(study_name="tiny", storage=optuna_journal(store.folder / JOURNAL)).set_user_attr("note", "mine")
    assert store.optuna.user_attrs["note"] == "mine"
    store.finish(propose(store), TrialState.STOPPED)
    assert len(read_study(store.folder).trials) == 1
    assert optuna_journal(store.folder / JOURNAL).get_study_user_attrs(0)["note"] == "mine"


def test_a_run_in_memory_leaves_nothing_behind(experiment: Experiment, tmp_path: Path):
    store = RunStore(
        tmp_path / "run",
        name=experiment.name,
        objectives=experiment.objectives,
        identity=experiment.identity,
        spec=experiment.spec,
        storage=optuna.storages.InMemoryStorage(),
    )
    store.finish(propose(store), TrialState.STOPPED, reason="because")
    [trial] = store.study().trials
    assert (trial.state, trial.reason) == (TrialState.STOPPED, "because")
    assert not list(tmp_path.iterdir())


def test_a_folder_without_a_run_is_said_so(tmp_path: Path):
    with pytest.raises(InputError, match="holds no run"):
        read_study(tmp_path)


def test_reading_changes_nothing(store: RunStore, tmp_path: Path):
    propose(store)
    before = (store.folder / JOURNAL).read_bytes()
    read_study(store.folder)
    assert (store.folder / JOURNAL).read_bytes() == before
    copy = tmp_path / "copy"
    shutil.copytree(store.folder, copy)
    (copy / JOURNAL).write_bytes(before[:-5])
    read_study(copy)
    assert (copy / JOURNAL).read_bytes() == before[:-5]


def test_a_second_driver_is_refused(tmp_path: Path):
    with hold(tmp_path / "run"), pytest.raises(StoreError, match="another hfir-search"), hold(tmp_path / "run"):
        pass
    with hold(tmp_path / "run"):
        pass
