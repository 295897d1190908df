"""What holds of every place where a run's records may lie, and what is refused."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import optuna
import pytest
from filelock import FileLock
from ruamel.yaml import YAML
from typer.testing import CliRunner

from search.cli import measuring_beside
from search.cli.app import app
from search.cli.status import status_lines
from search.executors import InlineExecutor
from search.experiment import Experiment
from search.report import read_status
from search.store import (
    JOURNAL,
    LOCK,
    POINTER,
    RunStore,
    holding,
    is_held,
    note_fact,
    opened_storage,
    read_study,
    times_of,
)
from search.store.places import checked_url, shown, sqlite_file
from search.types import Cost, Genotype, InputError, Measurement, StoreError, TrialState

from .stores import PASSWORD, new_database, postgres_programs, postgres_server, why_no_postgres

COST = Cost(params_m=0.1, params_train_m=0.2, params_active_m=0.1, macs_g=1.5, macs_at="64x64")
MEASUREMENT = Measurement(
    rung=0, step=2, psnr_db=30.25, ssim=0.9, psnr_per_image_db=(30.0, 30.5), elapsed_s=1.5, loss=0.1
)
Open = Callable[..., RunStore]


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    if lacking := why_no_postgres():
        pytest.skip(lacking)
    programs = postgres_programs()
    assert programs is not None
    with postgres_server(programs) as host:
        yield host


@pytest.fixture(autouse=True)
def password(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGPASSWORD", PASSWORD)
    monkeypatch.setattr(holding, "SETTLE_S", 0.01)


@pytest.fixture(params=["journal", "sqlite", pytest.param("postgresql", marks=pytest.mark.slow)])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str | None:
    """Where the records go; None for the journal."""
    if request.param == "postgresql":
        return new_database(request.getfixturevalue("postgres"))
    return None if request.param == "journal" else f"sqlite:///{tmp_path}/runs.db"


@pytest.fixture
def open_store(tmp_path: Path) -> Iterator[Open]:
    """Return what opens a store, the run's folder and its name as said; all are closed in the end."""
    stores: list[RunStore] = []

    def open_one(storage: object = None, folder: str = "run", identity: str = "x", name: str = "any") -> RunStore:
        spec = {"objectives": ["psnr_db", "macs_g"], "search": {"trials": 3}, "name": name, "identity": identity}
        stores.append(
            RunStore(
                tmp_path / folder,
                name=name,
                objectives=("psnr_db", "macs_g"),
                identity=identity,
                spec=spec,
                storage=storage,  # pyright: ignore[reportArgumentType]
            )
        )
        return stores[-1]

    yield open_one
    for store in stores:
        store.close()


def propose(store: RunStore, width: int = 4) -> int:
    trial = store.optuna.ask()
    trial.suggest_int("width", 4, 64)
    return store.record_proposal(
        trial, genotype=Genotype({"width": width}), seed=2**40, generation=2, config={"width": width, "deep": [1, 2]}
    )


def write_some(store: RunStore) -> None:
    """Record one of each: complete, stopped, rejected, failed, withdrawn, still open, and one that is lost."""
    for width, state in enumerate([TrialState.COMPLETE, TrialState.STOPPED, TrialState.INFEASIBLE, TrialState.FAILED]):
        with store.together():
            number = propose(store, width)
            store.record_cost(number, COST, {"macs_g": -0.5})
            store.record_measurement(store.index[number], MEASUREMENT)
            values = [30.25, 1.5] if state is TrialState.COMPLETE else None
            store.finish(number, state, values=values, reason="für immer", failure="trace\n" * 500, constraint="legal")
    store.note("baseline", {"psnr_db": 20.5, "images": ["a.png"]})
    store.note("verified", {"macs_g": 1.5}, trial=0)
    store.note("withdrawn", "measured again", trial=1)
    store.record_cost(propose(store, 7), COST, {})
    store.optuna.ask()


def test_what_was_recorded_is_read_back_by_anybody_and_after_reopening(open_store: Open, url: str | None):
    store = open_store(url)
    write_some(store)
    written = store.study()
    assert [t.state.value for t in written.trials] == ["COMPLETE", "INFEASIBLE", "INFEASIBLE", "FAILED", "RUNNING"]
    assert written.trials[0].measurements == (MEASUREMENT,)
    assert written.trials[0].config == {"width": 0, "deep": [1, 2]}
    assert written.facts["verified"] == {"0": {"macs_g": 1.5}}
    assert read_study(store.folder) == written
    store.close()
    again = open_store()  # the folder knows where
    assert again.close_lost_proposals() == 1
    assert again.study() == written
    assert again.optuna.get_trials()[0].values == [30.25, 1.5]
    assert again.optuna.get_trials()[0].constraints == {"macs_g": -0.5, "legal": 1.0}
    number = propose(again)
    again.finish(number, TrialState.STOPPED)
    assert len(read_study(again.folder).trials) == 6


def test_memory_holds_the_same_and_leaves_nothing(open_store: Open, tmp_path: Path):
    store, other = open_store(optuna.storages.InMemoryStorage()), open_store(folder="other")
    write_some(store)
    write_some(other)
    kept, told = store.study(), other.study()
    assert (kept.trials, kept.facts) == (told.trials, told.facts)
    assert [p.name for p in tmp_path.iterdir()] == ["other"]


def test_where_a_run_stands_is_seen_from_its_folder(open_store: Open, url: str | None):
    store = open_store(url)
    write_some(store)
    status, times = read_status(store.folder), times_of(store.folder)
    assert status.states["COMPLETE"] == 1
    assert status.is_running is (url is not None)  # of a journal's driver one sees the folder's lock, not taken here
    assert times is not None
    assert 0 <= time.time() - times[0].timestamp() < 600
    assert 0 <= (times[1] - times[0]).total_seconds() < 600
    store.close()
    assert is_held(store.folder) is False
    with FileLock(store.folder / LOCK):
        assert is_held(store.folder) is True


def test_another_experiment_is_refused_everywhere(open_store: Open, url: str | None):
    open_store(url).close()
    with pytest.raises(InputError, match="another experiment: identity differ"):
        open_store(identity="y")


@pytest.mark.slow
def test_every_command_finds_a_database_through_the_folder(tiny_file: Path, tmp_path: Path):
    folder, url = tmp_path / "run", f"sqlite:///{tmp_path}/a.db"

    def call(*words: object) -> str:
        result = CliRunner().invoke(app, [str(word) for word in words])
        assert result.exit_code == 0, result.output
        return result.output

    call("run", tiny_file, "--out", folder, "--trials", 1, "--set", "search.generation=1", "-q", "--storage", url)
    before = len(read_study(folder).trials)
    assert not (folder / JOURNAL).exists()
    call("run", tiny_file, "--out", folder, "--trials", 2, "--set", "search.generation=1", "-q")
    assert len(read_study(folder).trials) > before
    assert "PSNR" in call("front", folder)
    assert "finished" in call("status", folder)
    assert "trial" in call("select", folder)
    assert "report.html" in call("report", folder)


def test_a_network_is_measured_beside_a_run_wherever_its_records_are(
    tiny: Callable[..., Experiment], tmp_path: Path, url: str | None, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(measuring_beside, "ProcessExecutor", lambda *_: InlineExecutor())
    experiment, folder = tiny(), tmp_path / "run"
    folder.mkdir()
    identity = experiment.identity
    settings = {"name": "tiny", "objectives": experiment.objectives, "identity": identity, "spec": experiment.spec}
    RunStore(folder, **settings, storage=url).close()
    YAML().dump(experiment.spec, folder / "experiment.yaml")
    done = CliRunner().invoke(app, ["measure", "beside", str(folder), "--network", "bicubic", "--json"])
    assert done.exit_code == 0, done.output
    assert [r["name"] for r in json.loads(done.stdout)["references"]] == ["bicubic"]
    assert [r.name for r in read_study(folder).references] == ["bicubic"]
    assert is_held(folder) is False


@pytest.mark.slow
def test_no_password_is_written_anywhere(open_store: Open, postgres: str, tmp_path: Path):
    store = open_store(new_database(postgres))
    write_some(store)
    assert json.loads((store.folder / POINTER).read_text()).keys() == {"storage", "study"}
    for path in tmp_path.rglob("*"):
        assert not path.is_file() or PASSWORD.encode() not in path.read_bytes()


def test_a_url_with_a_password_is_refused_without_repeating_it(open_store: Open):
    for url in ("postgresql://me:geheim@host/db", "postgresql://me@host/db?password=geheim", "mysql://a:geheim@b/c"):
        with pytest.raises(InputError, match=r"PGPASSWORD|not supported") as caught:
            open_store(url)
        assert "geheim" not in str(caught.value)


@pytest.mark.slow
def test_a_wrong_password_and_a_server_that_is_not_there_are_told_in_words(
    open_store: Open, postgres: str, monkeypatch: pytest.MonkeyPatch
):
    url = new_database(postgres)
    monkeypatch.setenv("PGPASSWORD", "geheim")
    with pytest.raises(StoreError, match=r"hfir@.*password authentication failed") as caught:
        open_store(url)
    assert "geheim" not in str(caught.value)
    with pytest.raises(StoreError, match="cannot be reached"):
        open_store("postgresql://hfir@/any?host=/nowhere")


@pytest.mark.parametrize("url", ["nonsense", "sqlite://", "sqlite:///:memory:", "mysql://host/db", "postgresql://host"])
def test_other_storages_are_refused_with_what_can_be_given(open_store: Open, url: str):
    with pytest.raises(InputError, match="postgresql\\+psycopg://USER@HOST/DATABASE"):
        open_store(url)


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("postgresql://me:pw@host/db", "postgresql://me:***@host/db"),
        ("postgresql://me:p@w@host/db?password=pw", "postgresql://me:***@host/db?…"),
        ("sqlite:///a.db", "sqlite:///a.db"),
        ("pw", "pw"),
    ],
)
def test_urls_are_shown_without_passwords(url: str, told: str):
    assert shown(url) == told


def test_a_relative_file_is_remembered_by_its_whole_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    assert checked_url("sqlite:///runs.db") == f"sqlite:///{tmp_path}/runs.db"


@pytest.mark.parametrize("name", ["a%20b", "ws%2Fx", "what?", "{braces}", "ü b", "plain"])
def test_a_database_is_made_in_the_folder_that_is_named_whatever_its_name(
    open_store: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
):
    (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path / name)
    store = open_store("sqlite:///runs.db", folder=f"{name}/run")
    write_some(store)
    store.close()
    assert {path.name for path in (tmp_path / name).iterdir()} == {"run", "runs.db"}
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert sqlite_file(checked_url("sqlite:///runs.db")) == tmp_path / name / "runs.db"
    assert len(read_study(tmp_path / name / "run").trials) == 5
    assert len(open_store(folder=f"{name}/run").study().trials) == 5


def test_the_path_of_a_url_is_decoded_once(tmp_path: Path):
    assert sqlite_file(f"sqlite:///{tmp_path}/my%20runs.db") == tmp_path / "my runs.db"
    assert sqlite_file(checked_url(f"sqlite:///{tmp_path}/my%2520runs.db")) == tmp_path / "my%20runs.db"


def test_a_run_keeps_to_its_place(open_store: Open, tmp_path: Path):
    open_store().close()
    with pytest.raises(InputError, match=f"has its records here, in {JOURNAL}"):
        open_store(f"sqlite:///{tmp_path}/a.db")
    open_store(f"sqlite:///{tmp_path}/a.db", folder="other").close()
    with pytest.raises(InputError, match=r"lie in sqlite:.*a\.db, not in .*b\.db"):
        open_store(f"sqlite:///{tmp_path}/b.db", folder="other")


def test_a_study_whose_checkpoints_lie_elsewhere_is_not_taken_up(open_store: Open, tmp_path: Path):
    store = open_store(f"sqlite:///{tmp_path}/a.db")
    propose(store)
    store.close()
    with pytest.raises(InputError, match=r"holds a study any already, with 1 candidate, whose checkpoints"):
        open_store(f"sqlite:///{tmp_path}/a.db", folder="other")
    assert len(read_study(tmp_path / "run").trials) == 1
    open_store(f"sqlite:///{tmp_path}/a.db", folder="other", name="second").close()


def test_a_database_that_is_gone_is_an_error_in_words(open_store: Open, tmp_path: Path):
    open_store(f"sqlite:///{tmp_path}/a.db").close()
    (tmp_path / "a.db").unlink()
    for read in (read_study, read_status):
        with pytest.raises(InputError, match=r"a\.db: the database is not there"):
            read(tmp_path / "run")
    assert not (tmp_path / "a.db").exists()


# -- records that are gone ---------------------------------------------------------------------------


def test_a_run_whose_records_are_gone_is_not_started_again_over_its_checkpoints(
    open_store: Open, tmp_path: Path, url: str | None
):
    store = open_store(url)
    propose(store)
    store.close()
    (store.folder / "checkpoints").mkdir()
    if url is None:
        (store.folder / JOURNAL).rename(tmp_path / "kept")
    elif url.startswith("sqlite"):
        (tmp_path / "runs.db").rename(tmp_path / "kept")
    else:
        with opened_storage(store.folder) as storage:
            storage.delete_study(storage.get_study_id_from_name("any"))
    for storage in (None, url):
        with pytest.raises(InputError, match=r"records of this run are missing: .*\n.*would overwrite") as refused:
            open_store(storage)
        assert "Restore the records, or start in a new folder with --out." in str(refused.value)
    assert not (tmp_path / "runs.db").exists()
    assert not (store.folder / JOURNAL).exists()
    if (tmp_path / "kept").exists():
        (tmp_path / "kept").rename(store.folder / JOURNAL if url is None else tmp_path / "runs.db")
        assert len(open_store().study().trials) == 1


def test_an_empty_journal_beside_results_is_a_record_that_is_gone(open_store: Open, tmp_path: Path):
    open_store().close()
    (tmp_path / "run" / "trials.csv").touch()
    (tmp_path / "run" / JOURNAL).write_bytes(b"")
    with pytest.raises(InputError, match=rf"{JOURNAL} is empty, though the folder holds trials\.csv"):
        open_store()


def test_a_run_keeps_its_name_where_the_experiment_is_renamed(open_store: Open, url: str | None):
    store = open_store(url)
    propose(store)
    store.close()
    for storage in (None, url):
        again = open_store(storage, name="renamed")
        assert (again.name, len(again.study().trials)) == ("any", 1)
        again.close()
    assert read_study(store.folder).name == "any"


# -- folders from somebody else ----------------------------------------------------------------------


def received(folder: Path, url: str) -> Path:
    folder.mkdir()
    (folder / POINTER).write_text(json.dumps({"storage": url, "study": "any"}))
    return folder


@pytest.fixture
def unnamed(open_store: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Make a database with a run in it; return its URL, which then is as on a machine of somebody else."""
    url = f"sqlite:///{tmp_path}/private.db"
    store = open_store(url, folder="mine")
    propose(store)
    store.close()
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state of another user"))
    return url


def test_a_received_folder_is_followed_to_a_database_only_by_consent(
    open_store: Open, unnamed: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    folder = received(tmp_path / "received", unnamed)
    commands: list[Callable[[], object]] = [
        lambda: read_study(folder),
        lambda: read_status(folder),
        lambda: is_held(folder),
        lambda: times_of(folder),
        lambda: note_fact(folder, "note", 1),
        lambda: open_store(folder="received"),
    ]
    for command in commands:
        with pytest.raises(InputError, match=r"storage\.json names a database that you have not used .*private\.db"):
            command()
    monkeypatch.setenv("HFIR_SEARCH_STORAGE", unnamed)
    assert len(read_study(folder).trials) == 1
    monkeypatch.delenv("HFIR_SEARCH_STORAGE")
    open_store(unnamed, folder="received").close()  # as `run --storage` does, and from now on it is known
    assert len(read_study(folder).trials) == 1


def test_a_database_within_the_folder_needs_no_consent(open_store: Open, unnamed: str, tmp_path: Path):
    folder = received(tmp_path / "received", f"sqlite:///{tmp_path}/received/private.db")
    (tmp_path / "private.db").rename(folder / "private.db")
    assert len(read_study(folder).trials) == 1
    (folder / "private.db").rename(tmp_path / "private.db")
    (folder / "private.db").symlink_to(tmp_path / "private.db")
    with pytest.raises(InputError, match="you have not used"):
        read_study(folder)


@pytest.mark.parametrize("url", ["mysql://host/db", "postgresql://me:geheim@host/db"])
def test_a_folder_points_to_nothing_that_could_not_be_given_as_storage(tmp_path: Path, url: str):
    with pytest.raises(InputError, match=r"storage\.json .*(\*\*\*|mysql)") as refused:
        read_study(received(tmp_path / "received", url))
    assert "geheim" not in str(refused.value)


def test_a_state_folder_that_cannot_be_written_costs_a_warning(
    open_store: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "file"))
    open_store(f"sqlite:///{tmp_path}/a.db").close()
    assert "set HFIR_SEARCH_STORAGE for other commands on this run" in caplog.text


def test_a_pointer_that_is_damaged_is_an_error_in_words(tmp_path: Path):
    (tmp_path / POINTER).write_text('{"storage": 3')
    with pytest.raises(StoreError, match="pointer to the run's database is damaged"):
        read_study(tmp_path)


# -- two drivers on one study ----------------------------------------------------------------------


def move(store: RunStore, to: Path) -> None:
    """Make a run's folder known under another path, as a second machine would see it."""
    to.mkdir()
    (to / POINTER).write_bytes((store.folder / POINTER).read_bytes())


def test_a_second_driver_is_refused_and_told_who_the_first_is(open_store: Open, url: str, tmp_path: Path):
    if url is None:
        pytest.skip("the folder's lock does it: test_store.py")
    first = open_store(url)
    move(first, tmp_path / "there")
    with pytest.raises(StoreError, match=rf"at work on it: process {os.getpid()} on .*, folder {first.folder}"):
        open_store(folder="there")
    propose(first)
    first.close()
    assert len(open_store(folder="there").study().trials) == 1


def test_a_driver_that_died_in_this_folder_is_followed_at_once(open_store: Open, tmp_path: Path):
    first = open_store(f"sqlite:///{tmp_path}/a.db")
    propose(first)  # and is killed: never closed
    assert len(open_store().study().trials) == 1


def test_a_driver_without_a_sign_is_followed_after_a_look_and_may_not_write_any_more(
    open_store: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    first = open_store(f"sqlite:///{tmp_path}/a.db")  # its next sign would come in 10 s
    move(first, tmp_path / "there")
    monkeypatch.setattr(holding, "STALE_S", 0.2)
    monkeypatch.setattr(holding, "BEAT_S", 0.1)
    time.sleep(0.3)
    second = open_store(folder="there")
    assert "took_over=" in caplog.text
    propose(second)
    with pytest.raises(StoreError, match="has taken it over"):
        propose(first)
    assert len(second.study().trials) == len(read_study(second.folder).trials) == 1


def test_a_driver_whose_clock_is_wrong_is_seen_by_its_signs(
    open_store: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(holding, "BEAT_S", 0.1)
    monkeypatch.setattr(holding, "age_of", lambda lease: -3600.0)
    first = open_store(f"sqlite:///{tmp_path}/a.db")
    move(first, tmp_path / "there")
    with pytest.raises(StoreError, match="at work on it"):
        open_store(folder="there")


def test_a_driver_whose_clock_is_ahead_counts_as_alive_for_those_who_look_on(
    open_store: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(holding, "BEAT_S", 0.1)
    first = open_store(f"sqlite:///{tmp_path}/a.db")
    monkeypatch.setattr(holding, "age_of", lambda lease: -3600.0)
    assert is_held(first.folder)
    with pytest.raises(StoreError, match="at work on this run"):
        note_fact(first.folder, "note", 1)
    move(first, tmp_path / "there")
    with pytest.raises(StoreError, match=r"whose clock is 3600 s ahead of the clock here, folder"):
        open_store(folder="there")


def test_a_dead_driver_with_a_clock_ahead_is_followed_after_a_look(
    open_store: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    first = open_store(f"sqlite:///{tmp_path}/a.db")
    elsewhere = holding.lease_of(first.optuna) | {"host": "elsewhere", "renewed_at": time.time() + 3600}
    first.close()
    first.optuna.set_user_attr(holding.LEASE, elsewhere)
    monkeypatch.setattr(holding, "BEAT_S", 0.1)
    move(first, tmp_path / "there")
    open_store(folder="there")


def test_a_dead_driver_of_this_machine_is_seen_at_once(open_store: Open, tmp_path: Path):
    store = open_store(f"sqlite:///{tmp_path}/a.db")
    store.close()
    with subprocess.Popen([sys.executable, "-c", ""]) as ended:
        ended.wait()
    sign = {"id": "x", "pid": ended.pid, "folder": str(store.folder.absolute()), "renewed_at": time.time()}
    for lease, held in [
        (sign | holding._here(), False),
        (sign | holding._here() | {"pid": os.getpid()}, True),
        (sign | holding._here() | {"host": "elsewhere"}, True),
    ]:
        store.optuna.set_user_attr(holding.LEASE, lease)
        assert is_held(store.folder) is held
    store.optuna.set_user_attr(holding.LEASE, sign | holding._here())
    with FileLock(store.folder / LOCK):
        assert is_held(store.folder)
    note_fact(store.folder, "note", 1)
    move(store, tmp_path / "there")
    open_store(folder="there")  # without waiting


def test_a_fact_is_kept_beside_a_run_that_rests_and_of_no_other(open_store: Open, url: str | None):
    store = open_store(url)
    if url is not None:
        with pytest.raises(StoreError, match="at work on this run"):
            note_fact(store.folder, "note", 1)
    store.close()
    note_fact(store.folder, "note", 2)
    assert read_study(store.folder).facts == {"note": 2}


def test_status_tells_of_a_driver_elsewhere(open_store: Open, tmp_path: Path):
    store = open_store(f"sqlite:///{tmp_path}/a.db")
    told = status_lines(read_status(store.folder))
    assert "running" in told[0]
    assert told[1] == f"records     sqlite:///{tmp_path}/a.db, study any"
    store.close()
    assert "stopped" in status_lines(read_status(store.folder))[0]
