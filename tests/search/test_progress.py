"""The live panel: the front as a plot where there is room for it, and nothing that could end a run."""

import dataclasses
import io

import pytest
from rich.console import Console

from search.cli.progress import front_plot, live_progress
from search.experiment import load_experiment
from search.study import Progress
from search.types import Genotype, TrialState

WHOLE = {"bottleneck_blocks": 0, "encoder_blocks.1": 1, "decoder_blocks.1": 0, "decoder_blocks.2": 0}
"""What the table prints of a genotype and hand-made ones leave out."""


def whole(study):
    trials = [dataclasses.replace(t, genotype=Genotype({**WHOLE, **t.genotype.values})) for t in study.trials]
    return dataclasses.replace(study, trials=tuple(trials))


def panel(study, *, width=120, height=60):
    """Return all that the panel wrote for one look at a study."""
    written = io.StringIO()
    console = Console(file=written, force_terminal=True, width=width, height=height)
    with live_progress(load_experiment("smoke"), console) as look:
        look(Progress(study=whole(study), phase="training", running=frozenset({3})))
    return written.getvalue()


def test_the_plot_is_below_the_table(rich_study):
    text = panel(rich_study)
    assert text.index("Pareto front of") < text.index("Front so far: 4 members (*), 1 dominated (.)")
    assert "latency (ms), logarithmic" in text


@pytest.mark.parametrize(("width", "height"), [(120, 18), (41, 100)])
def test_without_room_there_is_no_plot(rich_study, width, height):
    assert "Front so far" not in panel(rich_study, width=width, height=height)


def test_before_the_first_complete_candidate_there_is_no_plot(rich_study, make_study):
    running = rich_study.in_state(TrialState.RUNNING)
    for study in (make_study(), dataclasses.replace(rich_study, trials=running)):
        text = panel(study)
        assert "in training: 3" in text
        assert "Front so far" not in text


@pytest.mark.parametrize("odd", [float("nan"), float("inf")])
def test_a_figure_that_is_not_finite_does_not_end_the_run(make_trial, make_study, odd):
    trials = [
        make_trial(0, psnr_db=31.0, latency_ms=8.0, macs_g=2.0),
        make_trial(1, psnr_db=odd, latency_ms=4.0, macs_g=1.0),
    ]
    assert "Front so far" in panel(make_study(trials))


def test_the_plot_fits_where_it_is_drawn(rich_study):
    for lines in range(40):
        plot = front_plot(rich_study, columns=60, lines=lines)
        assert len(plot) <= lines
        assert all(len(line) <= 60 for line in plot)
    assert front_plot(rich_study, columns=60, lines=11)
    assert not front_plot(rich_study, columns=60, lines=10)
