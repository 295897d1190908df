"""Latency classes: the best member of the front within each."""

import dataclasses

from search.report.classes import choose_classes, upper_end_ms
from search.types import to_json


def test_a_class_takes_the_best_member_whose_upper_end_is_within(rich_study):
    choices = choose_classes(rich_study, (5.1, 10.1, 10.2, 1000))
    assert [choice.trial.number for choice in choices] == [4, 4, 1, 0]
    assert [choice.role for choice in choices] == ["within_5.1ms", "within_10.1ms", "within_10.2ms", "within_1000ms"]


def test_an_empty_class_names_the_nearest(rich_study):
    [choice] = choose_classes(rich_study, (2.0,))
    assert choice.trial is None
    assert (choice.nearest.number, round(choice.nearest_ms, 3)) == (4, 5.1)


def test_the_second_measurement_counts_where_it_is_trusted(make_trial, make_study):
    trial = make_trial(0, psnr_db=31.0, latency_ms=10.0, macs_g=1.0)
    slower = dataclasses.replace(trial.cost.latency, high_ms=12.0)
    doubtful = dataclasses.replace(slower, trusted=False)

    def end(latency):
        again = to_json(dataclasses.replace(trial.cost, latency=latency))
        return upper_end_ms(make_study([trial], facts={"verified": {"0": again}}), trial)

    assert end(slower) == 12.0
    assert end(doubtful) == 10.2


def test_without_a_complete_candidate_every_class_is_empty(make_study):
    [choice] = choose_classes(make_study(), (10.0,))
    assert choice.trial is None
    assert choice.nearest is None
