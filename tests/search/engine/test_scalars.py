"""TensorBoard scalars of the proxy trainings: what is written, and that nothing else changes by it."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from search.evaluation.evaluator import train
from search.evaluation.jobs import ProxyEvaluator
from search.evaluation.plan import CandidateJob
from search.evaluation.proxy import ProxyTraining
from search.executors import InlineExecutor
from search.experiment import Experiment
from search.store import RunStore
from search.study import SearchRun
from search.types import Measurement, Study, TrialState

Tiny = Callable[..., Experiment]
RUNGS = "proxy.rungs=[10,25]"


class Recorder:
    """Stands in for SummaryWriter."""

    opened: list[Recorder]

    def __init__(self, folder: str, purge_step: int) -> None:
        self.folder, self.purge_step, self.closed = folder, purge_step, False
        self.scalars: list[tuple[str, float, int]] = []
        self.opened.append(self)

    def add_scalar(self, name: str, value: float, step: int) -> None:
        self.scalars.append((name, value, step))

    def close(self) -> None:
        self.closed = True

    def steps(self, name: str) -> list[int]:
        return [step for other, _, step in self.scalars if other == name]


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[Recorder]:
    """Put a stand-in where TensorBoard would be imported from; return the writers that were opened."""
    module: Any = ModuleType("torch.utils.tensorboard")
    module.SummaryWriter, Recorder.opened = Recorder, []
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", module)
    return Recorder.opened


@pytest.fixture
def train_rungs(tiny: Tiny, unbroken: Study, tmp_path: Path) -> Callable[..., list[Measurement]]:
    """Train one candidate of the tiny run through rungs of 10 and 25 steps."""
    trial = unbroken.in_state(TrialState.COMPLETE)[0]

    def run(name: str, scalars: Path | None = None, rungs: tuple[int, ...] = (0, 1)) -> list[Measurement]:
        job = {"number": 7, "config": dict(trial.config or {}), "seed": trial.seed}
        checkpoint, folder = str(tmp_path / name / "00007.pt"), None if scalars is None else str(scalars)
        plan = tiny(RUNGS).evaluation_plan()
        return [train(plan, CandidateJob(**job, checkpoint=checkpoint, rung=r, scalars=folder)) for r in rungs]

    return run


def test_loss_rate_and_speed_every_ten_steps_and_quality_at_each_rung(opened: list[Recorder], train_rungs, tmp_path):
    measured = train_rungs("a", tmp_path / "tensorboard")
    first, second = opened
    assert (first.purge_step, second.purge_step) == (1, 11)
    assert first.closed
    assert second.closed
    for name in ("train/loss", "train/learning_rate", "train/images_per_s"):
        assert (first.steps(name), second.steps(name)) == ([10], [20])
    assert ("validation/psnr_db", measured[1].psnr_db, 25) in second.scalars
    assert ("validation/ssim", measured[0].ssim, 10) in first.scalars


def test_no_figure_and_no_weight_changes_by_it(opened: list[Recorder], train_rungs, tmp_path):
    with_scalars, without = train_rungs("with", tmp_path / "tensorboard"), train_rungs("without")
    for a, b in zip(with_scalars, without, strict=True):
        assert (a.psnr_per_image_db, a.ssim, a.loss) == (b.psnr_per_image_db, b.ssim, b.loss)
    ours, theirs = (torch.load(tmp_path / name / "00007.pt", weights_only=True) for name in ("with", "without"))
    assert all(torch.equal(p, theirs["model"][key]) for key, p in ours["model"].items())
    assert all(torch.equal(p, q) for p, q in zip(ours["average"], theirs["average"], strict=True))
    assert len(opened) == 2


def test_without_the_flag_tensorboard_is_not_imported(monkeypatch: pytest.MonkeyPatch, train_rungs):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    assert [m.step for m in train_rungs("plain")] == [10, 25]


def test_a_rung_that_is_answered_from_its_checkpoint_writes_nothing(opened: list[Recorder], train_rungs, tmp_path):
    train_rungs("a", tmp_path, rungs=(0,))
    train_rungs("a", tmp_path, rungs=(0,))
    assert len(opened) == 1


def test_a_training_that_breaks_closes_its_file(
    opened: list[Recorder], train_rungs, tmp_path, monkeypatch: pytest.MonkeyPatch
):
    def broken(self: ProxyTraining) -> torch.Tensor:
        raise RuntimeError("broken")

    monkeypatch.setattr(ProxyTraining, "_train_step", broken)
    with pytest.raises(RuntimeError, match="broken"):
        train_rungs("a", tmp_path)
    assert opened[0].closed


def test_each_trained_trial_has_a_folder_of_its_own(
    opened: list[Recorder], tiny: Tiny, tmp_path: Path, store_of: Callable[..., RunStore]
):
    experiment, folder = tiny("search.trials=2", "search.generation=2", "proxy.rungs=[2]"), tmp_path / "run"
    study = SearchRun(
        experiment,
        ProxyEvaluator(experiment.evaluation_plan()),
        store_of(experiment, folder),
        InlineExecutor(),
        scalars=True,
    ).run()
    trained = [f"trial-{t.number:04d}" for t in study.trials if t.measurements]
    assert sorted(w.folder for w in opened) == [str(folder / "tensorboard" / name) for name in trained]
    assert len(trained) == 2


def test_tensorboard_reads_what_is_written(train_rungs, tmp_path):
    pytest.importorskip("tensorboard", reason="tensorboard is not installed")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    measured = train_rungs("a", tmp_path / "tensorboard")
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert [e.step for e in events.Scalars("train/loss")] == [10, 20]
    read = [(e.step, e.value) for e in events.Scalars("validation/psnr_db")]
    assert read == [(m.step, pytest.approx(m.psnr_db, rel=1e-6)) for m in measured]
