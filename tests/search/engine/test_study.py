"""The search on the real thing, made small: real networks, photographs, costs and training."""

from __future__ import annotations

import os
import signal
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from search.evaluation.answers import Admission, Baseline
from search.evaluation.evaluator import admit, train
from search.evaluation.jobs import ProxyEvaluator
from search.evaluation.plan import CandidateJob
from search.executors import Executor, InlineExecutor, ProcessExecutor
from search.experiment import Experiment
from search.pareto import pareto_front
from search.store import RunStore, read_study
from search.study import SearchRun, checkpoint_path
from search.types import FailureKind, InputError, Measurement, Study, Trial, TrialState

from .remembering import Remembering

Search = Callable[..., Study]
Tiny = Callable[..., Experiment]
Ran = Callable[..., Study]
"""`ran` of the fixtures: the tiny run with changes, run once; `copy_of`: a copy of it."""


def story(study: Study) -> list[tuple[Any, ...]]:
    """What must repeat: all but times and latencies."""
    return [
        (
            t.number,
            t.state,
            t.key,
            t.seed,
            t.generation,
            "" if t.state is TrialState.COMPLETE else t.reason,  # there, a doubt about a latency is the machine's
            tuple((m.step, m.psnr_db, m.ssim, m.loss, m.psnr_per_image_db) for m in t.measurements),
        )
        for t in study.trials
    ]


def test_a_run_trains_what_it_was_asked_to_and_leaves_nothing_open(unbroken: Study):
    states = Counter(t.state for t in unbroken.trials)
    assert states[TrialState.RUNNING] == states[TrialState.FAILED] == 0
    assert states[TrialState.COMPLETE] + states[TrialState.STOPPED] == 6
    assert states[TrialState.COMPLETE] >= 1
    assert unbroken.facts["finished"] == 6
    assert unbroken.facts["baseline"]["images"] == ["300.png", "400.png"]


def test_complete_trials_went_through_every_rung_and_stopped_ones_did_not(unbroken: Study):
    for trial in unbroken.in_state(TrialState.COMPLETE):
        assert [m.step for m in trial.measurements] == [2, 4, 6]
    for trial in unbroken.in_state(TrialState.STOPPED):
        assert 1 <= len(trial.measurements) < 3
        assert "not promoted" in trial.reason


def test_the_same_file_and_seed_give_the_same_run_bit_for_bit(tiny: Tiny, search_in: Search, unbroken: Study):
    again = search_in(tiny(), "again")
    assert story(again) == story(unbroken)
    assert read_study(again.folder) == again, "the record alone gives the study back"


def test_another_seed_gives_other_weights_and_other_proposals(tiny: Tiny, search_in: Search, unbroken: Study):
    other = search_in(tiny("search.seed=4", "search.trials=2"), "other")
    assert [t.key for t in other.trials[1:]] != [t.key for t in unbroken.trials[1 : len(other.trials)]]
    assert other.trials[0].key == unbroken.trials[0].key  # the small end of the space comes first, whatever the seed
    assert other.trials[0].measurements[0].psnr_db != unbroken.trials[0].measurements[0].psnr_db


@pytest.mark.slow  # by default the run of test_cli.py shows it
def test_workers_change_nothing_but_the_time(
    tiny: Tiny, search_in: Search, unbroken: Study, two_workers: ProcessExecutor
):
    assert story(search_in(tiny(), "two", two_workers)) == story(unbroken)


@pytest.mark.parametrize("jobs", [4, 9, *(pytest.param(n, marks=pytest.mark.slow) for n in (0, 2, 6, 13))])
def test_an_interrupted_run_goes_on_to_what_the_unbroken_one_finds(
    jobs: int, tiny: Tiny, search_in: Search, unbroken: Study, interrupted_after: Callable[[int], Executor]
):
    with pytest.raises(KeyboardInterrupt):
        search_in(tiny(), "broken", interrupted_after(jobs))
    assert story(search_in(tiny(), "broken")) == story(unbroken)


def test_going_on_repeats_no_finished_job(tiny: Tiny, search_in: Search, interrupted_after: Callable[[int], Executor]):
    whole, first, second = Counting(), Counting(left=6), Counting()
    experiment = tiny("search.trials=3")
    search_in(experiment, "whole", whole)
    with pytest.raises(KeyboardInterrupt):
        search_in(experiment, "broken", first)
    search_in(experiment, "broken", second)
    looks = 1  # at the data, in every session
    assert len(first.jobs) == 6
    assert len(first.jobs) + len(second.jobs) == len(whole.jobs) + looks


class Counting(InlineExecutor):
    """Notes the jobs that it finishes; is interrupted after `left` of them."""

    def __init__(self, left: int = 10_000) -> None:
        self.jobs: list[Any] = []
        self.left = left

    def run(self, function: Any, jobs: Any):
        for outcome in super().run(function, jobs):
            if len(self.jobs) == self.left:
                raise KeyboardInterrupt
            self.jobs.append(outcome.job)
            yield outcome


def test_over_budget_candidates_cost_no_step_and_no_trial(tiny: Tiny, search_in: Search):
    study = search_in(tiny("budget.params_m=0.004", "search.trials=4", "search.sampler=random"), "run")
    rejected = study.in_state(TrialState.INFEASIBLE)
    assert rejected
    for trial in rejected:
        assert trial.measurements == ()
        assert trial.reason.startswith("params_m")
        assert trial.cost is not None
        assert trial.cost.params_m > 0.004
        assert trial.cost.latency is None  # the dearer figures were not taken
    trained = study.in_state(TrialState.COMPLETE, TrialState.STOPPED)
    assert len(trained) == 4
    assert all(t.cost and t.cost.params_m <= 0.004 for t in trained)


THREE = "search.trials=3"
SPENT = ("space.width=4", "space.levels=1", "space.num_experts=1", "search.trials=50")


def test_a_network_is_never_trained_twice(ran: Ran):
    study = ran(*SPENT)
    duplicates = study.in_state(TrialState.DUPLICATE)
    assert duplicates
    assert all(t.measurements == () and "same network as trial" in t.reason for t in duplicates)
    trained = [str(t.config) for t in study.trials if t.measurements]
    assert len(set(trained)) == len(trained)


def test_a_space_that_is_spent_ends_the_run_with_the_reason(tiny: Tiny, ran: Ran):
    study, size = ran(*SPENT), tiny(*SPENT).space.size
    assert study.facts["ended_early"] == f"all {size} points of the space were considered"
    assert len({t.key for t in study.trials}) == size


def test_illegal_networks_are_recorded_with_the_rule(tiny: Tiny, search_in: Search):
    # Heads that do not divide the width are legal points of a space, but no networks.
    experiment = tiny("space.attention=window", "space.num_heads=[1,3]", "space.window_size=4", "budget.params_m=0.1")
    study = search_in(experiment, "run")
    illegal = [t for t in study.in_state(TrialState.INFEASIBLE) if t.config is None]
    assert illegal
    assert all("num_heads = 3 does not divide" in t.reason for t in illegal)


class FailsOnce(Remembering):
    """Fails the training of one trial, as a crash or a bug would."""

    def train(self, job: CandidateJob) -> Measurement:
        if job.number == 1:
            raise RuntimeError("out of memory, say")
        return super().train(job)


def test_a_failed_candidate_is_one_failed_trial_and_the_run_goes_on(tiny: Tiny, search_in: Search):
    study = search_in(tiny(), "run", evaluator=FailsOnce(tiny().evaluation_plan()))
    [failed] = study.in_state(TrialState.FAILED)
    assert (failed.number, failed.reason) == (1, "out of memory: out of memory, say")
    assert "RuntimeError" in failed.failure
    assert len(study.in_state(TrialState.COMPLETE, TrialState.STOPPED)) == 5


class DiesOnce(ProxyEvaluator):
    """Kills the worker that trains one trial."""

    def train(self, job: CandidateJob) -> Measurement:
        if job.number == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().train(job)


@pytest.mark.slow
def test_a_worker_that_dies_is_one_failed_trial_and_the_run_goes_on(
    tiny: Tiny, search_in: Search, two_workers: ProcessExecutor
):
    study = search_in(tiny(), "run", two_workers, evaluator=DiesOnce(tiny().evaluation_plan()))
    [failed] = study.in_state(TrialState.FAILED)
    assert failed.number == 1
    assert "SIGKILL" in failed.reason
    assert len(study.in_state(TrialState.COMPLETE, TrialState.STOPPED)) == 5


def test_a_finished_run_can_be_extended(tiny: Tiny, search_in: Search, copy_of: Ran):
    before = copy_of("run", THREE)
    after = search_in(tiny("search.trials=6"), "run")
    assert story(after)[: len(before.trials)] == story(before)
    assert len(after.in_state(TrialState.COMPLETE, TrialState.STOPPED)) == 6


def test_a_finished_run_does_nothing_more(tiny: Tiny, search_in: Search, copy_of: Ran):
    study = copy_of("run")
    counting = Counting()
    again = search_in(tiny(), "run", counting)
    assert story(again) == story(study)
    assert len(counting.jobs) == 1  # the look at the data


def test_a_deadline_pauses_the_run_and_it_goes_on(tiny: Tiny, search_in: Search, unbroken: Study):
    paused = search_in(tiny(), "run", deadline=0.0)
    assert "finished" not in paused.facts
    assert story(search_in(tiny(), "run")) == story(unbroken)


def test_the_front_is_measured_again_at_the_end(unbroken: Study):
    members = pareto_front(unbroken.trials, unbroken.objectives).members
    assert members
    for trial in members:
        again = unbroken.facts["verified"][str(trial.number)]
        assert trial.cost
        assert trial.cost.latency
        assert again["macs_g"] == trial.cost.macs_g
        assert again["latency"]["measured_at"] >= trial.cost.latency.measured_at


class Tampered(Remembering):
    """Answers as the real evaluator does, but for what a test changes in the answer."""

    def changed(self, answer: Admission, *, reason: str, **latency: Any) -> Admission:
        assert answer.cost.latency
        cost = replace(answer.cost, latency=replace(answer.cost.latency, **latency))
        return replace(answer, cost=cost, reason=reason)


class SlowTheSecondTime(Tampered):
    def remeasure(self, job: CandidateJob) -> Admission:
        FIRST.append(job.number)
        reason = "latency_ms 9999 > 5000" if job.number == FIRST[0] else ""
        return self.changed(super().remeasure(job), reason=reason, trusted=True)  # a doubtful one withdraws nobody


class OnABusyMachine(Tampered):
    def admit(self, job: CandidateJob) -> Admission:
        return self.changed(super().admit(job), reason="", trusted=False, reference_drift=0.4)

    def remeasure(self, job: CandidateJob) -> Admission:
        reason = "latency_ms 9999 > 5000"
        return self.changed(super().remeasure(job), reason=reason, trusted=False, reference_drift=0.4)


FIRST: list[int] = []


def test_a_member_that_misses_the_budget_when_measured_again_is_withdrawn(tiny: Tiny, search_in: Search):
    FIRST.clear()
    study = search_in(tiny(), "run", evaluator=SlowTheSecondTime(tiny().evaluation_plan()))
    [withdrawn] = [t for t in study.in_state(TrialState.INFEASIBLE) if t.number == FIRST[0]]
    assert withdrawn.reason == "measured again at the end: latency_ms 9999 > 5000"
    members = pareto_front(study.trials, study.objectives).members
    assert withdrawn.number not in [t.number for t in members]
    assert all(str(t.number) in study.facts["verified"] for t in members)


class Elsewhere(Tampered):
    """Answers as another machine would."""

    def look_at_data(self, job: None) -> Baseline:
        return replace(super().look_at_data(job), host="elsewhere")

    def admit(self, job: CandidateJob) -> Admission:
        answer = super().admit(job)
        return answer if answer.cost.latency is None else self.changed(answer, reason=answer.reason, host="elsewhere")

    def remeasure(self, job: CandidateJob) -> Admission:
        return self.changed(super().remeasure(job), reason="", host="elsewhere", median_ms=1234.5)


def test_a_run_whose_latencies_count_does_not_go_on_on_another_machine(tiny: Tiny, search_in: Search, copy_of: Ran):
    copy_of("run", THREE)
    moved = Elsewhere(tiny().evaluation_plan())
    with pytest.raises(InputError, match="this machine is elsewhere") as refusal:
        search_in(tiny(), "run", evaluator=moved)
    assert "another folder with --out" in str(refusal.value)
    assert "--remeasure" in str(refusal.value)


def test_a_run_that_moves_takes_all_its_latencies_anew(tiny: Tiny, search_in: Search, copy_of: Ran):
    before = copy_of("run", THREE)
    study = search_in(tiny(), "run", evaluator=Elsewhere(tiny().evaluation_plan()), move=True)
    hosts = {t.cost.latency.host for t in study.trials if t.cost is not None and t.cost.latency is not None}
    assert hosts == {"elsewhere"}
    assert {t.value("latency_ms") for t in study.trials[: len(before.trials)] if t.cost} == {1234.5}
    assert len(study.trials) > len(before.trials)
    members = pareto_front(study.trials, study.objectives).members
    assert all(study.facts["verified"][str(t.number)]["latency"]["host"] == "elsewhere" for t in members)


class TooLargeElsewhere(Elsewhere):
    """Cannot measure again the candidate of the number `LOST`."""

    def remeasure(self, job: CandidateJob) -> Admission:
        if job.number == LOST[0]:
            raise MemoryError("out of memory")
        return super().remeasure(job)


LOST = [0]
BY_LATENCY = "objectives=[psnr_db, latency_ms]"
FREE = "budget.latency_ms={at: [24, 24]}"


@pytest.mark.parametrize("state", [TrialState.COMPLETE, TrialState.STOPPED])
def test_a_run_moves_without_a_candidate_that_cannot_be_measured_anew(
    tiny: Tiny, search_in: Search, copy_of: Ran, state: TrialState
):
    before = copy_of("run", THREE, BY_LATENCY)
    LOST[0] = before.in_state(state)[0].number
    there = tiny(BY_LATENCY)
    study = search_in(there, "run", evaluator=TooLargeElsewhere(there.evaluation_plan()), move=True)
    lost = study.trials[LOST[0]]
    assert lost.value("latency_ms") is None
    if state is TrialState.COMPLETE:
        assert lost.state is TrialState.INFEASIBLE
        assert lost.reason == "out of memory: not measured again on another machine"
    assert study.facts["finished"] == 6
    again = search_in(there, "run", evaluator=Elsewhere(there.evaluation_plan()))
    assert again.trials[lost.number] == lost


def test_a_candidate_in_training_that_cannot_be_measured_anew_has_failed_of_that(
    tiny: Tiny, search_in: Search, interrupted_after: Callable[[int], Executor], tmp_path: Path
):
    there = tiny(BY_LATENCY)
    with pytest.raises(KeyboardInterrupt):
        search_in(there, "run", interrupted_after(5))
    LOST[0] = next(t.number for t in read_study(tmp_path / "run").in_state(TrialState.RUNNING) if t.cost)
    study = search_in(there, "run", evaluator=TooLargeElsewhere(there.evaluation_plan()), move=True)
    lost = study.trials[LOST[0]]
    assert (lost.state, lost.failure_kind) == (TrialState.FAILED, FailureKind.OUT_OF_MEMORY)
    assert "MemoryError" in lost.failure


def test_a_second_look_that_fails_withdraws_nobody_where_latency_does_not_count(
    tiny: Tiny, search_in: Search, copy_of: Ran, store_of: Callable[..., RunStore], tmp_path: Path
):
    free = tiny(THREE, FREE)
    before = copy_of("run", THREE, FREE)
    store_of(free, tmp_path / "run").forget("verified")
    LOST[0] = pareto_front(before.trials, before.objectives).members[0].number
    study = search_in(free, "run", evaluator=TooLargeElsewhere(free.evaluation_plan()))
    assert str(LOST[0]) in study.facts["unverified"]
    assert study.trials[LOST[0]] == before.trials[LOST[0]]


def test_a_run_whose_latencies_do_not_count_goes_on_anywhere(tiny: Tiny, search_in: Search, copy_of: Ran):
    copy_of("run", THREE, FREE)
    study = search_in(tiny(FREE), "run", evaluator=Elsewhere(tiny(FREE).evaluation_plan()))
    assert study.facts["finished"] == 6


def test_an_untrusted_latency_that_decides_says_so(tiny: Tiny, search_in: Search, caplog: pytest.LogCaptureFixture):
    search_in(tiny("search.trials=1"), "run", evaluator=OnABusyMachine(tiny().evaluation_plan()))
    assert "a reference ran 40% slower than at rest; within its limit all the same" in caplog.text


def test_an_untrusted_latency_is_said_and_never_withdraws(tiny: Tiny, search_in: Search):
    study = search_in(tiny(), "run", evaluator=OnABusyMachine(tiny().evaluation_plan()))
    complete = study.in_state(TrialState.COMPLETE)
    assert complete
    assert all("machine was busy, a reference ran 40% slower" in t.reason for t in complete)
    assert "withdrawn" not in study.facts


class QuietTheSecondTime(Tampered):
    """Doubts the first figures; the second one is lower for trials of an even number, and trusted for every third."""

    def admit(self, job: CandidateJob) -> Admission:
        return self.changed(super().admit(job), reason="", trusted=False, reference_drift=0.4, median_ms=9.0)

    def remeasure(self, job: CandidateJob) -> Admission:
        median_ms = 8.0 if job.number % 2 == 0 else 10.0
        trusted = job.number % 3 == 0
        return self.changed(super().remeasure(job), reason="", trusted=trusted, median_ms=median_ms)


def test_a_doubtful_latency_gives_way_to_the_second(tiny: Tiny, search_in: Search):
    study = search_in(tiny(), "run", evaluator=QuietTheSecondTime(tiny().evaluation_plan()))
    looked = {t.number: t for t in study.trials if str(t.number) in study.facts["verified"]}
    assert {(n % 2, n % 3 == 0) for n in looked} >= {(0, True), (1, False)}
    for number, trial in looked.items():
        assert trial.value("latency_ms") == (8.0 if number % 2 == 0 else 10.0)
        assert trial.cost is not None
        assert trial.cost.latency is not None
        assert trial.cost.latency.trusted == (number % 3 == 0)
        assert bool(trial.reason) == (number % 3 != 0), "a doubt that is no more is not told"
    members = pareto_front(study.trials, study.objectives).members
    assert {t.number for t in members} <= set(looked), "who comes to the front by it is measured again, too"


class OverTheBudgetTheSecondTime(QuietTheSecondTime):
    def remeasure(self, job: CandidateJob) -> Admission:
        return self.changed(super().remeasure(job), reason="latency_ms 9999 > 5000", trusted=False, median_ms=9999.0)


def test_a_doubtful_second_latency_that_is_over_the_budget_is_not_taken(tiny: Tiny, search_in: Search):
    study = search_in(tiny(), "run", evaluator=OverTheBudgetTheSecondTime(tiny().evaluation_plan()))
    assert study.facts["verified"]
    assert {t.value("latency_ms") for t in study.in_state(TrialState.COMPLETE)} == {9.0}


class WideFirstTime(Tampered):
    """Doubts all first figures; their intervals reach down to almost nothing, or not at all."""

    low_ms = 0.001

    def admit(self, job: CandidateJob) -> Admission:
        ms = 9.0 + job.number
        return self.changed(super().admit(job), reason="", trusted=False, median_ms=ms, low_ms=self.low_ms or ms)

    def remeasure(self, job: CandidateJob) -> Admission:
        return self.changed(super().remeasure(job), reason="", trusted=True, median_ms=9.0 + job.number)


class NarrowFirstTime(WideFirstTime):
    low_ms = 0.0


def test_what_a_doubtful_latency_may_keep_off_the_front_is_measured_again(tiny: Tiny, search_in: Search):
    file = tiny("objectives=[psnr_db, latency_ms]", "proxy.rungs=[2]")
    wide = search_in(file, "wide", evaluator=WideFirstTime(file.evaluation_plan()))
    narrow = search_in(file, "narrow", evaluator=NarrowFirstTime(file.evaluation_plan()))
    front = {t.number for t in pareto_front(wide.trials, wide.objectives).members}
    complete = {t.number for t in wide.in_state(TrialState.COMPLETE)}
    assert front == {t.number for t in pareto_front(narrow.trials, narrow.objectives).members}
    assert front < complete, "some are kept off"
    assert {int(n) for n in narrow.facts["verified"]} == front
    assert {int(n) for n in wide.facts["verified"]} == complete


class QuietBothTimes(Tampered):
    def admit(self, job: CandidateJob) -> Admission:
        return self.changed(super().admit(job), reason="", trusted=True, median_ms=9.0)

    def remeasure(self, job: CandidateJob) -> Admission:
        return self.changed(super().remeasure(job), reason="", trusted=True, median_ms=8.0)


def test_a_trusted_latency_stays_whatever_the_second_says(tiny: Tiny, search_in: Search):
    study = search_in(tiny(), "run", evaluator=QuietBothTimes(tiny().evaluation_plan()))
    assert study.facts["verified"]
    assert {t.value("latency_ms") for t in study.in_state(TrialState.COMPLETE)} == {9.0}


def test_a_lost_record_is_answered_from_the_checkpoint_without_a_step(tiny: Tiny, unbroken: Study):
    trial = unbroken.in_state(TrialState.COMPLETE)[0]
    assert train(tiny().evaluation_plan(), job_of(trial, unbroken.folder, rung=2)) == trial.last


def test_training_by_rungs_equals_training_in_one_go(tiny: Tiny, unbroken: Study, tmp_path: Path):
    trial = unbroken.in_state(TrialState.COMPLETE)[0]
    plan = tiny("proxy.rungs=[6]").evaluation_plan()
    at_once = train(plan, job_of(trial, tmp_path / "elsewhere", rung=0))
    assert trial.last
    assert (at_once.psnr_db, at_once.ssim) == (trial.last.psnr_db, trial.last.ssim)


@pytest.mark.usefixtures("measured_figures")
def test_costs_repeat_and_latency_is_remembered(tiny: Tiny, unbroken: Study, tmp_path: Path):
    job = job_of(unbroken.in_state(TrialState.STOPPED)[0], tmp_path, rung=0)
    assert admit(tiny().evaluation_plan(), job).cost == admit(tiny().evaluation_plan(), job).cost


def job_of(trial: Trial, folder: Path, rung: int) -> Any:
    from search.evaluation.plan import CandidateJob

    return CandidateJob(
        number=trial.number,
        config=dict(trial.config or {}),
        seed=trial.seed,
        checkpoint=str(checkpoint_path(folder, trial.number)),
        rung=rung,
    )


def test_an_onlooker_sees_the_run_grow(tiny: Tiny, tmp_path: Path, store_of: Callable[..., RunStore]):
    seen: list[tuple[str, int]] = []
    experiment = tiny("search.trials=3")
    store = store_of(experiment, tmp_path / "run")
    SearchRun(
        experiment,
        ProxyEvaluator(experiment.evaluation_plan()),
        store,
        InlineExecutor(),
        onlooker=lambda p: seen.append((p.phase.split(" trial")[0], len(p.study.trials))),
    ).run()
    assert [count for _, count in seen] == sorted(count for _, count in seen)
    assert {"loading photographs", "proposing", "measuring", "training to step 2", "done"} <= {p for p, _ in seen}
