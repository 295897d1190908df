"""Messages that name the cause and what to do about it."""

from __future__ import annotations

from pathlib import Path

import pytest

from search.experiment import load_experiment
from search.store import RunStore
from search.store.places import checked_url, open_database, unreachable
from search.types import InputError, SpecError, StoreError


def fault(tmp_path: Path, *lines: str, override: str | None = None) -> str:
    path = tmp_path / "x.yaml"
    path.write_text("\n".join(["name: x", "task: {kind: super_resolution}", "space: {width: [8, 16]}", *lines, ""]))
    with pytest.raises(SpecError) as caught:
        load_experiment(str(path), [] if override is None else [override])
    return str(caught.value)


@pytest.mark.parametrize(
    ("lines", "message", "remedy"),
    [
        (["proxy: {learning_rate: 0,004}"], "x.yaml:4: proxy.learning_rate: 0,004 is not one", "learning_rate: 0.004."),
        (["proxy: {batch: 8, keep: 0,5}"], "proxy.keep: 0,5 is not one", "keep: 0.5."),
        (
            ["proxy:", "  learning_rate: 0,004"],
            'x.yaml:5: proxy.learning_rate: "0,004" is not a number',
            "point: 0.004.",
        ),
        (["budget: {params_m: 1,50}"], "budget.params_m: 1,50 is not one", "params_m: 1.50."),
    ],
)
def test_a_decimal_comma_is_named(lines: list[str], message: str, remedy: str, tmp_path: Path):
    told = fault(tmp_path, *lines)
    assert message in told
    assert remedy in told


@pytest.mark.parametrize(
    ("override", "message", "remedy"),
    [
        ("proxy={learning_rate: 0,004}", "learning_rate: 0,004 is not one number", "learning_rate: 0.004."),
        ("space.expansion={min: 1,5, max: 2}", "min: 1,5 is not one number", "min: 1.5."),
        ("space.expansion=1,5", '"1,5" is not a number', "Write a decimal point: 1.5."),
    ],
)
def test_a_decimal_comma_on_the_command_line_is_named(override: str, message: str, remedy: str, tmp_path: Path):
    told = fault(tmp_path, override=override)
    assert message in told
    assert remedy in told


def test_a_key_without_a_value_is_still_that(tmp_path: Path):
    assert "proxy.batch: has no value" in fault(tmp_path, "proxy: {keep: 0.5, batch}")
    assert "1: has no value" in fault(tmp_path, "  # none", override="space.encoder_blocks={1: }")


def test_a_home_folder_in_a_url_is_named_with_the_whole_path(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HOME", "/home/someone")
    with pytest.raises(InputError) as caught:
        checked_url("sqlite:///~/x.db")
    assert "`~` does not stand for the home folder" in str(caught.value)
    assert "sqlite:////home/someone/x.db" in str(caught.value)
    assert checked_url("sqlite:////home/someone/x.db") == "sqlite:////home/someone/x.db"


def test_a_database_in_a_folder_that_is_not_there_names_the_folder(tmp_path: Path):
    with pytest.raises(InputError) as caught:
        open_database(f"sqlite:///{tmp_path}/none/x.db", create=True)
    assert f"there is no folder {tmp_path}/none" in str(caught.value)


def test_a_file_is_no_server(tmp_path: Path):
    file = str(unreachable(f"sqlite:///{tmp_path}/x.db", OSError("unable to open database file")))
    assert "permissions of the file" in file
    assert "Check the server" not in file
    assert "Check the server" in str(unreachable("postgresql+psycopg://host/db", OSError("refused")))
    (tmp_path / "x.db").mkdir()
    with pytest.raises(StoreError, match="Check the permissions of the file and its folder"):
        open_database(f"sqlite:///{tmp_path}/x.db", create=True)


def test_other_choices_in_a_runs_folder_lead_to_a_warm_start(tmp_path: Path):
    def store(identity: str, choices: list[int]) -> RunStore:
        spec = {"space": {"width": choices}}
        return RunStore(tmp_path, name="x", objectives=("psnr_db", "macs_g"), identity=identity, spec=spec)

    store("one", [8]).close()
    with pytest.raises(InputError) as caught:
        store("two", [8, 16])
    assert "space.width differ" in str(caught.value)
    assert f"--warm-start {tmp_path}" in str(caught.value)
