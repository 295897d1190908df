"""Candidates that fail, each in its own way, through real code: one FAILED trial, its kind told, and on it goes."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from search.evaluation import evaluator as evaluator_module
from search.evaluation.jobs import ProxyEvaluator, start_worker
from search.evaluation.plan import CandidateJob
from search.executors import ProcessExecutor
from search.experiment import Experiment
from search.report import funnel, read_status
from search.report.page import render_page
from search.report.words import failure_words, failures
from search.store import read_study
from search.study import Rules, rules_of, time_limit
from search.study.rules import failure_kind
from search.tasks.patches import PatchSampler
from search.types import EvaluationError, FailureKind, Measurement, Study, TrialState, WorkerDiedError

from .remembering import Remembering

Search = Callable[..., Study]
Tiny = Callable[..., Experiment]


@pytest.fixture
def limited_worker() -> Iterator[ProcessExecutor]:
    executor = ProcessExecutor(1, start_worker, limit_s=time_limit)
    yield executor
    executor.close()


def only_failure(study: Study) -> tuple[int, FailureKind | None, str]:
    [failed] = study.in_state(TrialState.FAILED)
    assert len(study.in_state(TrialState.COMPLETE, TrialState.STOPPED)) == study.spec["search"]["trials"] - 1
    return failed.number, failed.failure_kind, failed.reason


class Exploding(Remembering):
    """Trains one candidate at a rate at which nothing converges."""

    def train(self, job: CandidateJob) -> Measurement:
        if job.number != 1:
            return super().train(job)
        from dataclasses import replace

        proxy = replace(self.plan.proxy, learning_rate=1e6, warmup_steps=0)
        return evaluator_module.train(replace(self.plan, proxy=proxy), job)


def test_an_exploding_loss_is_told_with_the_loss_and_the_rate_everywhere(tiny: Tiny, search_in: Search, tmp_path: Path):
    study = search_in(tiny("search.trials=3"), "run", evaluator=Exploding(tiny().evaluation_plan()))
    number, kind, reason = only_failure(study)
    assert (number, kind) == (1, FailureKind.DIVERGED)
    assert reason.startswith("diverged: the loss is ")
    assert "learning_rate = 1e+06" in reason
    assert failures(study) == {FailureKind.DIVERGED: 1}
    assert failure_words(study) == "1 diverged"
    assert funnel(study)["failed"] == 1
    assert "failed (1 diverged)" in render_page(study)
    assert read_status(tmp_path / "run").failures == {"diverged": 1}


class BrokenPhotographs(PatchSampler):
    def batch(self, step: int):
        raise OSError("broken data stream when reading image file")


def test_a_dataset_that_raises_fails_the_candidates_after_a_retry(
    tiny: Tiny, search_in: Search, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("search.evaluation.proxy.PatchSampler", BrokenPhotographs)
    study = search_in(tiny("search.trials=2"), "run")
    for trial in study.in_state(TrialState.FAILED):
        assert trial.failure_kind is FailureKind.DATA
        assert "OSError: broken data stream" in trial.reason
        assert trial.reason.endswith("(tried 2 times)")
        assert len(trial.setbacks) == 1
    assert len(study.in_state(TrialState.FAILED)) == 2


class NoMemory(Remembering):
    """Asks for more memory than there can be, for one candidate by torch, for another by Python."""

    def train(self, job: CandidateJob) -> Measurement:
        if job.number == 1:
            torch.empty(2**60, dtype=torch.uint8)
        if job.number == 2:
            bytearray(2**60)
        return super().train(job)


def test_memory_that_is_refused_is_told_as_such(tiny: Tiny, search_in: Search):
    study = search_in(tiny("search.trials=4"), "run", evaluator=NoMemory(tiny().evaluation_plan()))
    assert failures(study) == {FailureKind.OUT_OF_MEMORY: 2}


class Sleeping(ProxyEvaluator):
    """Hangs on one candidate."""

    def train(self, job: CandidateJob) -> Measurement:
        if job.number == 1:
            time.sleep(600)
        return super().train(job)


@pytest.mark.slow
def test_a_hanging_training_is_ended_and_the_run_goes_on(
    tiny: Tiny, search_in: Search, limited_worker: ProcessExecutor
):
    rules = Rules(limit_s=lambda trial, rung: 2.0 if trial.number == 1 else None)
    asked = Sleeping(tiny().evaluation_plan())
    study = search_in(tiny("search.trials=3"), "run", limited_worker, evaluator=asked, rules=rules)
    number, kind, reason = only_failure(study)
    assert (number, kind) == (1, FailureKind.TIMEOUT)
    assert "not done after 2 s" in reason
    assert "execution.timeout_s" in reason


class DiesUntil(ProxyEvaluator):
    """Kills the worker that trains one candidate, until it was tried so often."""

    def train(self, job: CandidateJob) -> Measurement:
        tries = Path(job.checkpoint).parent.parent / f"tries-{job.number}"
        with tries.open("a") as file:
            file.write("x")
        if job.number == 1 and tries.stat().st_size <= 1:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().train(job)


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="kills by POSIX signals")
def test_a_candidate_whose_worker_died_is_tried_again_and_that_is_recorded(
    tiny: Tiny, search_in: Search, ran: Search, limited_worker: ProcessExecutor, tmp_path: Path
):
    experiment = tiny("search.trials=3")
    (tmp_path / "run").mkdir()
    asked = DiesUntil(experiment.evaluation_plan())
    study = search_in(experiment, "run", limited_worker, evaluator=asked, rules=rules_of(experiment))
    assert not study.in_state(TrialState.FAILED)
    [setback] = study.trials[1].setbacks
    assert setback.startswith("out of memory: the worker process died (signal SIGKILL)")
    assert read_study(tmp_path / "run").trials[1].setbacks == (setback,)
    assert [t.measurements[0].psnr_db for t in study.trials if t.measurements] == [
        t.measurements[0].psnr_db for t in ran("search.trials=3").trials if t.measurements
    ]


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="kills by POSIX signals")
def test_without_retries_a_dead_worker_is_a_failed_candidate(
    tiny: Tiny, search_in: Search, limited_worker: ProcessExecutor, tmp_path: Path
):
    experiment = tiny("search.trials=2", "execution.retries=0")
    (tmp_path / "run").mkdir()
    asked = DiesUntil(experiment.evaluation_plan())
    study = search_in(experiment, "run", limited_worker, evaluator=asked, rules=rules_of(experiment))
    assert only_failure(study)[:2] == (1, FailureKind.OUT_OF_MEMORY)


class FailsAtTheEnd(Remembering):
    def remeasure(self, job: CandidateJob):
        raise RuntimeError("no timer")


def test_a_second_measurement_that_fails_keeps_the_first_and_says_so(tiny: Tiny, search_in: Search):
    study = search_in(tiny("search.trials=2"), "run", evaluator=FailsAtTheEnd(tiny().evaluation_plan()))
    assert set(study.facts["unverified"].values()) == {"crashed: no timer"}
    assert study.facts["finished"] == 2


def test_limits_come_from_the_file_or_from_the_latency(tiny: Tiny, unbroken: Study):
    fixed, automatic = rules_of(tiny("execution.timeout_s=7.5")), rules_of(tiny())
    trial = unbroken.trials[0]
    assert (fixed.limit_s(trial, 0), fixed.measuring_limit_s) == (7.5, 7.5)
    assert automatic.measuring_limit_s is None
    latency_ms = trial.value("latency_ms")
    assert latency_ms
    expected = 6 * 3 * (2 * 12**2 / 24**2) * latency_ms / 1000  # 6 steps of 2 patches of 12 px, measured at 24 px
    assert automatic.limit_s(trial, 2) == pytest.approx(600 + 20 * expected)


def test_the_automatic_limit_is_that_of_a_cpu_whatever_the_latency_was_measured_on(tiny: Tiny, unbroken: Study):
    trial = unbroken.trials[0]
    cost = trial.cost
    assert cost is not None
    assert cost.latency_ms is not None
    pixels = 2 * 12**2  # of 2 patches of 12 px
    on_cuda = rules_of(tiny("budget.latency_ms.device=cuda:0"))
    macs_at = tiny().budget.macs_at
    expected = 6 * 3 * pixels * cost.macs_g / (macs_at.width * macs_at.height)  # at 1e9 MACs a second
    assert on_cuda.limit_s(trial, 2) == pytest.approx(600 + 20 * expected)
    on_four_threads = rules_of(tiny("budget.threads=4"))
    expected = 6 * 3 * (pixels / 24**2) * 4 * cost.latency_ms / 1000
    assert on_four_threads.limit_s(trial, 2) == pytest.approx(600 + 20 * expected)


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (MemoryError(), FailureKind.OUT_OF_MEMORY),
        (EvaluationError("OutOfMemoryError: CUDA out of memory."), FailureKind.OUT_OF_MEMORY),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), FailureKind.OUT_OF_MEMORY),
        (ValueError("shapes"), FailureKind.CRASHED),
        (WorkerDiedError("exit code 3", killed=False), FailureKind.CRASHED),
    ],
)
def test_errors_are_told_apart(error: Exception, kind: FailureKind):
    assert failure_kind(error) is kind
