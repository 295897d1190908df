"""`run --remeasure` on a finished run: untrusted latencies are measured again, and all files are written from them."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from ruamel.yaml import YAML
from typer.testing import CliRunner

from search.certainty import untrusted_latencies
from search.cli import presets, running
from search.cli.app import app
from search.cli.running import _latency_advice
from search.evaluation import evaluator
from search.evaluation.answers import Admission
from search.evaluation.plan import CandidateJob, ReferenceJob
from search.executors import InlineExecutor
from search.experiment import Experiment
from search.pareto import pareto_front
from search.references.plan import ReferencePlan
from search.store import RunStore, read_study
from search.study import References, SearchRun, added_plans
from search.types import Cost, Latency, Measurement, Study, Trial, TrialState, to_json

from .synthetic import Arithmetic, Rungs, Search, Synthetic

PROBLEM = Synthetic(
    search=Search(trials=8, generation=4), proxy=Rungs(rungs=(10,)), objectives=("psnr_db", "latency_ms")
)
MS = (4.0, 5.0, 5.2, 9.0, 12.0, 13.0, 14.0, 15.0)
PSNR = (30.0, 31.0, 30.9, 29.0, 28.0, 32.0, 27.0, 26.0)
"""On the front: 0, 1 and 5. The latency of 2 is known so badly that it may belong there."""
WIDE = 2
NETWORK = ReferencePlan(name="other", network="bicubic")


def latency(ms: float, *, trusted: bool, low: float | None = None, host: str = "made up") -> Latency:
    where = {"threads": 1, "device": "cpu", "dtype": "float32", "runtime": "none", "host": host, "at": "8x8"}
    ends = {"low_ms": ms if low is None else low, "high_ms": ms}
    return Latency(median_ms=ms, repeats=1, measured_at="", trusted=trusted, **ends, **where)  # pyright: ignore[reportArgumentType]


@dataclass(frozen=True)
class Machine(Arithmetic):
    """Measures latencies: wide and untrusted while it is busy, exact while it is idle. Keeps what it was asked for."""

    busy: bool = True
    asked: list[str] | None = None
    broken: bool = False

    def note(self, what: str) -> None:
        if self.asked is not None:
            self.asked.append(what)

    def answer(self, ms: float, answer: Admission, share: float = 0.98) -> Admission:
        found = latency(ms, trusted=not self.busy, low=share * ms if self.busy else None)
        return replace(answer, cost=replace(answer.cost, latency=found), reason="", margins={})

    def admit(self, job: CandidateJob) -> Admission:
        return self.answer(MS[job.number], super().admit(job), 0.5 if job.number == WIDE else 0.98)

    def train(self, job: CandidateJob) -> Measurement:
        self.note("training")
        psnr = PSNR[job.number]
        return replace(super().train(job), psnr_db=psnr, psnr_per_image_db=(psnr, psnr))

    def remeasure(self, job: CandidateJob) -> Admission:
        self.note(f"trial {job.number}")
        if self.broken:
            raise MemoryError("too large")
        return self.admit(job)

    def try_reference(self, job: ReferenceJob) -> bool:
        return True

    def measure_reference(self, job: ReferenceJob) -> Admission:
        self.note(f"reference {job.reference.name}")
        if self.broken:
            raise MemoryError("too large")
        cost = Cost(params_m=0.0, params_train_m=0.0, params_active_m=0.0, macs_g=0.0, macs_at="8x8")
        return self.answer(5.0, Admission(cost=cost, margins={}, reason=""))

    def train_reference(self, job: ReferenceJob) -> Measurement:
        self.note("training")
        return Measurement(
            rung=0, step=10, psnr_db=20.0, ssim=0.5, psnr_per_image_db=(20.0, 20.0), elapsed_s=0.0, loss=0.0
        )


def session(folder: Path, machine: Machine, *, remeasure: bool = False) -> tuple[Study, bool]:
    """Run the search in a folder from wherever it stands; return it, and whether it was finished before."""
    store = RunStore(
        folder,
        name="synthetic",
        objectives=PROBLEM.objectives,
        identity="i",
        spec={"objectives": list(PROBLEM.objectives)},
    )
    references = References([NETWORK], store, rungs=PROBLEM.proxy.rungs, seed=0, remeasure=remeasure)
    run = SearchRun(PROBLEM, machine, store, InlineExecutor(), references=references, remeasure=remeasure)
    was_finished = run.is_finished
    study = run.run()
    assert run.is_finished
    store.close()
    return study, was_finished


@pytest.fixture
def busy(tmp_path: Path) -> Study:
    """A finished run whose latencies are all untrusted."""
    study, _ = session(tmp_path, Machine(str(tmp_path)))
    assert "reference other" in untrusted_latencies(study)
    return study


def idle(folder: Path, **options: Any) -> Machine:
    return Machine(str(folder), busy=False, asked=[], **options)


def test_a_finished_run_measures_its_untrusted_latencies_again_and_trains_nothing(busy: Study, tmp_path: Path):
    assert session(tmp_path, idle(tmp_path))[1], "not asked for: finished"
    machine = idle(tmp_path)
    study, was_finished = session(tmp_path, machine, remeasure=True)
    assert not was_finished
    assert machine.asked is not None
    assert set(untrusted_latencies(busy)) <= set(machine.asked)
    assert len(machine.asked) == len(set(machine.asked)), "each once"
    assert "training" not in machine.asked
    assert untrusted_latencies(study) == ()
    members = pareto_front(study.trials, study.objectives).members
    assert all(t.cost and t.cost.latency and t.cost.latency.trusted for t in members)
    assert study.references[0].value("latency_ms") == 5.0
    assert session(tmp_path, idle(tmp_path), remeasure=True)[1], "all are trusted: finished"


def test_what_an_untrusted_latency_keeps_off_the_front_is_measured_again(busy: Study, tmp_path: Path):
    front = {t.number for t in pareto_front(busy.trials, busy.objectives).members}
    assert (front, WIDE in front) == ({0, 1, 5}, False)
    assert untrusted_latencies(busy) == ("trial 0", "trial 1", "trial 2", "trial 5", "reference other")
    machine = idle(tmp_path)
    session(tmp_path, machine, remeasure=True)
    assert sorted(machine.asked or ()) == ["reference other", "trial 0", "trial 1", "trial 2", "trial 5"]


def test_what_stays_untrusted_is_measured_once_a_session(busy: Study, tmp_path: Path):
    machine = Machine(str(tmp_path), asked=[])
    study, _ = session(tmp_path, machine, remeasure=True)
    assert sorted(machine.asked or ()) == sorted(untrusted_latencies(busy))
    assert untrusted_latencies(study) == untrusted_latencies(busy)


def test_what_cannot_be_measured_again_keeps_its_figure(busy: Study, tmp_path: Path):
    machine = idle(tmp_path, broken=True)
    study, _ = session(tmp_path, machine, remeasure=True)
    assert sorted(machine.asked or ()) == sorted(untrusted_latencies(busy))
    assert [t.cost for t in study.trials] == [t.cost for t in busy.trials]
    assert study.references == busy.references
    assert len(session(tmp_path, idle(tmp_path), remeasure=True)[0].facts["verified"]) >= len(busy.facts["verified"])


def test_networks_added_by_hand_are_measured_again_but_no_code_is_named_by_a_record(busy: Study):
    record = busy.facts["references"]["other"]
    made = {"network": "edsr", "args": {"width": 8}}
    module = {"module": "os:remove", "args": {}, "code": ""}
    known = {
        "other": record,
        "by-hand": record | {"added": True, "made": made},
        "module": record | {"added": True, "made": module},
    }
    study = replace(busy, facts=busy.facts | {"references": known})
    assert added_plans(study) == (ReferencePlan(name="by-hand", network="edsr", args={"width": 8}),)


# -- the command line --------------------------------------------------------------------------------


def test_the_advice_names_the_option_where_it_would_do_something(make_study, make_trial):
    trial = make_trial(0, psnr_db=31.0, latency_ms=5.0, macs_g=1.0)
    trusted = make_study([trial])
    untrusted = make_study([untrusted_copy(trial)])
    assert _latency_advice(trusted, remeasure=False) == ""
    assert _latency_advice(untrusted, remeasure=False) == (
        "1 latency is untrusted: rerun this command with --remeasure on an idle machine to measure again."
    )
    assert _latency_advice(trusted, remeasure=True) == (
        "Every latency of its front and its references is trusted, so nothing was measured again. --remeasure measures "
        "untrusted latencies of a finished run again; while a run is not finished, it ignores cached ones."
    )


def untrusted_copy(trial: Trial, *, trusted: bool = False) -> Trial:
    assert trial.cost is not None
    assert trial.cost.latency is not None
    return replace(trial, cost=replace(trial.cost, latency=replace(trial.cost.latency, trusted=trusted)))


@pytest.fixture
def trust(store_of: Callable[..., RunStore], tiny: Callable[..., Experiment]) -> Callable[..., None]:
    """Return a function that makes all latencies of the tiny run in a folder trusted or untrusted."""

    def change(folder: Path, *, trusted: bool) -> None:
        with closing(store_of(tiny(), folder)) as store:
            for trial in store.study().in_state(TrialState.COMPLETE):
                store.note("remeasured", to_json(untrusted_copy(trial, trusted=trusted).cost), trial=trial.number)

    return change


@pytest.fixture
def finished(
    unbroken: Study, tiny_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trust: Callable[..., None]
) -> Callable[..., str]:
    """Return a function that gives the `run` command of a finished run again, and returns what it prints.

    The run has presets, one of a latency class, figures, and trusted latencies. Its checkpoints are lost.
    """
    folder = tmp_path / "run"
    shutil.copytree(unbroken.folder, folder)
    trust(folder, trusted=True)
    monkeypatch.setattr(running, "_workers", lambda *_: InlineExecutor())
    monkeypatch.setattr(presets, "ProcessExecutor", lambda *_: InlineExecutor())
    monkeypatch.setattr(evaluator, "remeasure", measured)

    def call(*arguments: object) -> str:
        done = CliRunner().invoke(app, [str(a) for a in arguments])
        assert done.exit_code == 0, done.output
        return " ".join(done.output.split())

    call("run", tiny_file, "--out", folder)
    call("presets", folder, "--no-onnx", "--classes", 5000)
    call("report", folder, "--format", "svg")
    shutil.rmtree(folder / "checkpoints")
    return lambda *options: call("run", tiny_file, "--out", folder, *options)


def measured(plan: object, job: CandidateJob) -> Admission:
    known = read_study(Path(job.checkpoint).parents[1]).trials[job.number].cost
    assert known is not None
    assert known.latency is not None
    again = replace(known.latency, median_ms=4321.0, low_ms=4320.0, high_ms=4322.0, trusted=True)
    return Admission(cost=replace(known, latency=again), margins={}, reason="")


@pytest.mark.slow
def test_the_command_says_what_it_does_and_writes_tables_page_figures_and_presets_again(
    finished: Callable[..., str], trust: Callable[..., None], tmp_path: Path
):
    folder = tmp_path / "run"
    assert "Every latency of its front and its references is trusted" in finished("--remeasure")
    trust(folder, trusted=False)
    assert "rerun this command with --remeasure on an idle machine" in finished()
    number = len(untrusted_latencies(read_study(folder)))
    before = (folder / "figures" / "front.svg").stat().st_mtime_ns
    told = finished("--remeasure")
    assert f"Untrusted latencies of the front and the references: {number} before, 0 now." in told
    assert "is finished" not in told
    assert set(pd.read_csv(folder / "front.csv")["latency_ms"]) == {4321.0}
    assert "4,321" in (folder / "report.html").read_text()
    assert (folder / "figures" / "front.svg").stat().st_mtime_ns > before
    cards = {path.parent.name: YAML(typ="safe").load(path) for path in folder.glob("presets/*/preset.yaml")}
    assert {role: card["measured"]["latency_ms"] for role, card in cards.items()} == dict.fromkeys(
        ("fastest", "balanced", "best", "within_5000ms"), 4321.0
    )
