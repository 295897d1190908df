"""Members of the front trained with further seeds: recorded, resumed, in parallel, and never told the sampler."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from search.evaluation.jobs import ProxyEvaluator
from search.evaluation.plan import CandidateJob
from search.executors import Executor, ProcessExecutor
from search.experiment import Experiment
from search.pareto import pareto_front
from search.store import read_study
from search.study import Rules, replicate_path
from search.types import DivergedError, Measurement, Study, TrialState

Search = Callable[..., Study]
Tiny = Callable[..., Experiment]
RULES = Rules(replicates=2)


def seeds(study: Study) -> dict[int, list[tuple[int, float | None]]]:
    return {t.number: [(r.seed, r.psnr_db) for r in t.replicates] for t in study.trials if t.replicates}


@pytest.fixture(scope="session")
def replicated(ran: Search) -> Study:
    return ran(rules=RULES)


def test_members_are_trained_again_from_other_weights_and_nothing_else_changes(replicated: Study, unbroken: Study):
    members = pareto_front(replicated.trials, replicated.objectives).members
    assert len(members) > 1
    assert set(seeds(replicated)) <= {t.number for t in members}
    for number, known in seeds(replicated).items():
        trial = replicated.trials[number]
        assert 1 <= len(known) <= 2
        assert len({trial.seed, *(seed for seed, _ in known)}) == 1 + len(known)
        assert all(psnr_db is not None and psnr_db != trial.value("psnr_db") for _, psnr_db in known)
        assert {r.step for r in trial.replicates} == {6}
        assert replicate_path(replicated.folder, number, 1).is_file()
    assert [t.value("psnr_db") for t in replicated.trials] == [t.value("psnr_db") for t in unbroken.trials]
    assert read_study(replicated.folder).trials == replicated.trials


def test_a_finished_run_is_replicated_when_it_is_asked_for(
    tiny: Tiny, search_in: Search, copy_of: Search, replicated: Study
):
    assert not seeds(copy_of("run"))
    assert seeds(search_in(tiny(), "run", rules=RULES)) == seeds(replicated)


@pytest.mark.parametrize("jobs", [2, pytest.param(4, marks=pytest.mark.slow)])
def test_an_interrupted_replication_goes_on_where_it_was(
    jobs: int,
    tiny: Tiny,
    search_in: Search,
    copy_of: Search,
    replicated: Study,
    interrupted_after: Callable[[int], Executor],
):
    copy_of("run")
    with pytest.raises(KeyboardInterrupt):
        search_in(tiny(), "run", interrupted_after(jobs), rules=RULES)
    assert seeds(search_in(tiny(), "run", rules=RULES)) == seeds(replicated)


@pytest.mark.slow
def test_workers_change_nothing(
    tiny: Tiny, search_in: Search, copy_of: Search, replicated: Study, two_workers: ProcessExecutor
):
    copy_of("run")
    assert seeds(search_in(tiny(), "run", two_workers, rules=RULES)) == seeds(replicated)


class DivergesAgain(ProxyEvaluator):
    """Diverges wherever a candidate is trained with another seed than its own."""

    def train(self, job: CandidateJob) -> Measurement:
        if "seed" in Path(job.checkpoint).name:
            raise DivergedError("the loss is nan")
        return super().train(job)


def test_a_seed_that_diverges_is_recorded_and_the_candidate_stays_complete(
    tiny: Tiny, search_in: Search, copy_of: Search
):
    copy_of("run")
    asked = DivergesAgain(tiny().evaluation_plan())
    study = search_in(tiny(), "run", evaluator=asked, rules=Rules(replicates=1))
    tried = [t for t in study.trials if t.replicates]
    assert tried
    for trial in tried:
        [replicate] = trial.replicates
        assert (trial.state, replicate.psnr_db, replicate.reason) == (
            TrialState.COMPLETE,
            None,
            "diverged: the loss is nan",
        )
    assert study.facts["finished"] == 6
