from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import optuna
import pytest

from search.experiment import Experiment
from search.store import JOURNAL, RunStore, hold, read_study, repair_journal
from search.types import (
    Cost,
    Genotype,
    InputError,
    Latency,
    Measurement,
    StoreError,
    TrialState,
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
