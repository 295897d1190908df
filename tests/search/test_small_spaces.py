"""A space with fewer points than trials are asked for: no command expects or offers more than its points."""

from __future__ import annotations

import dataclasses
import io
from pathlib import Path
from types import SimpleNamespace

import pytest
from rich.console import Console

from hfir.config import HFIRConfig
from search.cli.checking import _summary_table
from search.cli.progress import _status
from search.cli.running import _tell_size, _why
from search.evaluation.answers import Baseline
from search.experiment import Experiment, load_experiment
from search.feasibility import STATIC_PROBE, Probe, _summary
from search.types import Study, Trial, TrialState


@pytest.fixture
def small(tmp_path: Path) -> Experiment:
    """Two networks, and a million trials."""
    path = tmp_path / "small.yaml"
    path.write_text(
        "name: small\ntask: {kind: super_resolution}\nspace: {width: [8, 16]}\nbudget: {params_m: 1}\n"
        "proxy: {rungs: [10, 20], keep: 0.5}\nsearch: {trials: 1000000}\n"
    )
    return load_experiment(str(path))


def probes(legal: int) -> list[Probe]:
    figures = {"params_m": 0.1, "macs_g": 0.1, "latency_ms": 1.0}
    return [Probe(HFIRConfig(), dict(figures), step_s=0.6) for _ in range(legal)]


BASELINE = Baseline(
    psnr_db=30.0,
    ssim=0.9,
    images=("a",),
    psnr_per_image_db=(30.0,),
    train_images=1,
    notes=(),
    host="",
    versions={},
    photographs={},
    storage="",
)


def printed(table: object) -> str:
    console = Console(file=io.StringIO(), width=200)
    console.print(table)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


@pytest.mark.parametrize(("legal", "trials"), [(STATIC_PROBE, 2), (STATIC_PROBE // 2, 1), (1, 1), (0, 2)])
def test_check_expects_no_more_trials_than_the_space_has_points(small: Experiment, legal: int, trials: int):
    found = _summary(small, probes(legal), BASELINE, workers=1)
    assert found.size == 2
    assert found.trials == trials
    assert found.training_steps == 15 * trials
    if legal:
        assert found.proposals is not None
        assert found.proposals <= 2
        assert found.minutes is not None
        assert found.minutes < 1
    text = printed(_summary_table(small, found, 1))
    assert f"about {trials} of the 1,000,000 asked for (the space has 2 points)" in text


def test_check_expects_all_trials_of_a_large_space(small: Experiment):
    large = dataclasses.replace(small, search=small.search.model_copy(update={"trials": 2}))
    found = _summary(large, probes(STATIC_PROBE), BASELINE, workers=1)
    assert (found.trials, found.proposals) == (2, 2)
    assert "asked for" not in printed(_summary_table(large, found, 1))


def test_a_run_says_at_its_start_that_the_space_is_small_and_keeps_its_size(small: Experiment):
    facts: dict[str, object] = {}
    store = SimpleNamespace(facts=facts, note=facts.__setitem__)
    said = Console(file=io.StringIO(), width=200)
    _tell_size(small, store, said)
    assert facts == {"points": 2}
    assert isinstance(said.file, io.StringIO)
    assert said.file.getvalue() == "The space has 2 points: at most 2 of the 1,000,000 trials can be trained.\n"


def test_the_display_counts_up_to_the_points(small: Experiment, rich_study: Study):
    progress = SimpleNamespace(study=rich_study, running=frozenset(), phase="training")
    assert "candidates 9/2 " in printed(_status(progress, small))


def exhausted(study: Study) -> Study:
    reason = "all 11 points of the space were considered"
    facts = {"finished": 48, "points": 11, "ended_early": reason, "ended_by": {"rule": "space", "reason": reason}}
    done = tuple(t for t in study.trials if t.state is not TrialState.RUNNING)
    return dataclasses.replace(study, trials=done, facts={**study.facts, **facts})


def test_a_run_that_exhausted_its_space_says_what_to_widen(rich_study: Study):
    words = _why(exhausted(rich_study))
    assert words.startswith("all 11 points of the space were considered. Nothing is left to train; widen the space")
    assert "--trials" not in words


def ended(study: Study, trials: tuple[Trial, ...]) -> Study:
    facts = {"finished": 48, "ended_early": "", "ended_by": {"rule": "trials", "reason": ""}}
    return dataclasses.replace(study, trials=trials, facts=facts)


def test_a_finished_run_counts_what_was_trained_and_not_what_failed(rich_study: Study):
    trained = tuple(t for t in rich_study.trials if t.measurements)
    failed = dataclasses.replace(trained[0], measurements=(), state=TrialState.FAILED, reason="crashed: no cache")
    assert _why(ended(rich_study, (failed, failed))).startswith("0 candidates were trained, 2 failed (2 crashed).")
    assert _why(ended(rich_study, trained[:1])) == "1 candidate was trained. Raise --trials to continue."
    some = _why(ended(rich_study, (*trained[:2], failed)))
    assert some.startswith("2 candidates were trained, 1 failed (1 crashed).")
