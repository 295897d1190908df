"""Runs side by side: what may be compared, whose front is larger, and who leads where."""

import dataclasses
import json
import math

import pytest
from matplotlib.text import Text
from typer.testing import CliRunner

from search.cli import comparing
from search.cli.app import app
from search.report import compare_runs, draw_comparison, merged_bands
from search.report.figures import render
from search.types import InputError, TrialState

SHIFTS = (-2.0, -1.0, 1.0, 2.0)


def with_images(study, shifts=SHIFTS):
    """Return a study with as many validation images as there are shifts; its trials keep their means."""
    trials = tuple(
        dataclasses.replace(
            t,
            measurements=tuple(
                dataclasses.replace(m, psnr_per_image_db=tuple(m.psnr_db + s for s in shifts)) for m in t.measurements
            ),
        )
        for t in study.trials
    )
    baseline = study.facts["baseline"] | {
        "images": [f"{n}.png" for n in range(len(shifts))],
        "psnr_per_image_db": [30.0 + s for s in shifts],
    }
    return dataclasses.replace(study, trials=trials, facts={"baseline": baseline})


@pytest.fixture
def pair(make_trial, make_study):
    """Two runs: `one` leads below 8 ms (alone below 5) and from 10 ms on, `two` between."""
    one = make_study(
        [
            make_trial(0, psnr_db=31.0, latency_ms=4.0, macs_g=1.0),
            make_trial(1, psnr_db=31.5, latency_ms=10.0, macs_g=2.0),
            make_trial(2, psnr_db=30.5, latency_ms=20.0, macs_g=4.0),
        ]
    )
    two = make_study(
        [
            make_trial(0, psnr_db=30.8, latency_ms=5.0, macs_g=1.1),
            make_trial(1, psnr_db=31.2, latency_ms=8.0, macs_g=1.5),
        ]
    )
    return with_images(dataclasses.replace(one, name="one")), with_images(dataclasses.replace(two, name="two"))


def on_host(study, **changes):
    """Return a study whose latencies were taken under other conditions."""

    def moved(trial):
        latency = dataclasses.replace(trial.cost.latency, **changes)
        return dataclasses.replace(trial, cost=dataclasses.replace(trial.cost, latency=latency))

    return dataclasses.replace(study, trials=tuple(moved(t) for t in study.trials))


# -- what is found -----------------------------------------------------------------------------------


def test_the_hypervolume_is_the_area_worked_out_by_hand(pair):
    # Reference: the baseline, 30 dB, and 11 ms. One: 1 dB from 4 ms on and half a dB more from 10 ms on.
    comparison = compare_runs(pair)
    assert comparison.reference == (30.0, pytest.approx(11.0))
    one, two = comparison.runs
    assert one.hypervolume == pytest.approx(math.log2(11 / 4) + 0.5 * math.log2(11 / 10))
    assert two.hypervolume == pytest.approx(0.8 * math.log2(11 / 5) + 0.4 * math.log2(11 / 8))
    assert [t.number for t in one.front] == [0, 1]


def test_the_interval_follows_the_images_and_that_of_the_difference_is_paired(pair):
    # Candidates and baseline move together with the images, so a resample changes no volume.
    one, two = compare_runs(pair).runs
    assert (one.interval.low, one.interval.high) == (pytest.approx(one.hypervolume), pytest.approx(one.hypervolume))
    assert one.behind is None
    assert two.behind.low == pytest.approx(one.hypervolume - two.hypervolume)


def test_the_interval_is_wide_where_images_disagree(pair):
    one, two = pair
    trials = tuple(
        dataclasses.replace(t, measurements=(dataclasses.replace(t.last, psnr_per_image_db=(28.0, 30.0, 32.0, 34.0)),))
        for t in one.trials
    )
    interval = compare_runs([dataclasses.replace(one, trials=trials), two]).runs[0].interval
    assert interval.high - interval.low > 0.5


def test_bands_run_from_member_to_member_and_name_who_leads(pair):
    bands = compare_runs(pair).bands
    assert [(b.low, b.high, b.winner, b.number) for b in bands] == [
        (4.0, 5.0, "one", 0),
        (5.0, 8.0, "one", 0),
        (8.0, 10.0, "two", 1),
        (10.0, None, "one", 1),
    ]
    assert [b.second for b in bands] == [None, "two", "one", "two"]
    assert [b.lead_db for b in bands] == [None, *map(pytest.approx, (0.2, 0.2, 0.3))]
    assert all(b.is_clear for b in bands)


def test_a_lead_within_the_choice_of_images_is_not_clear(pair):
    # Against 31.0 + SHIFTS, the second run's better member wins by 0.7 dB on two images and loses by 0.3 on two.
    one, two = pair
    by_turns = tuple(31.2 + s for s in (-2.5, -0.5, 0.5, 2.5))
    member = two.trials[1]
    changed = dataclasses.replace(member, measurements=(dataclasses.replace(member.last, psnr_per_image_db=by_turns),))
    bands = compare_runs([one, dataclasses.replace(two, trials=(two.trials[0], changed))]).bands
    assert [(b.winner, b.is_clear) for b in bands] == [("one", True), ("one", True), ("two", False), ("one", False)]


def test_neighbouring_bands_with_one_verdict_are_shown_as_one(pair):
    one, two = pair
    better = dataclasses.replace(two.trials[1], measurements=one.trials[1].measurements)
    bands = compare_runs([one, dataclasses.replace(two, trials=(two.trials[0], better))]).bands
    assert sum(len(group) for group in merged_bands(bands)) == len(bands)
    assert len(merged_bands(compare_runs(pair).bands)) == 4


# -- what may be compared ----------------------------------------------------------------------------


def test_runs_on_one_host_are_compared_on_latency(pair):
    comparison = compare_runs(pair)
    assert (comparison.cost, comparison.why_not) == ("latency_ms", {})
    assert "host A processor x2 (bench)" in comparison.cost_conditions


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"host": "another"}, "host: A processor x2 (bench) against another"),
        ({"threads": 4}, "threads: 1 against 4"),
        ({"at": "96x96"}, "input: 160x160 against 96x96"),
        ({"runtime": "onnx"}, "runtime: onnx against torch eager"),
    ],
)
def test_latencies_under_other_conditions_give_way_to_macs_and_it_says_why(pair, change, told):
    comparison = compare_runs([pair[0], on_host(pair[1], **change)])
    assert comparison.cost == "macs_g"
    assert comparison.why_not == {"latency_ms": told}


def test_a_cost_that_not_every_run_searched_over_is_used_last_and_marked(pair):
    runs = [
        dataclasses.replace(pair[0], objectives=("psnr_db", "latency_ms")),
        dataclasses.replace(on_host(pair[1], host="another"), objectives=("psnr_db", "latency_ms")),
    ]
    comparison = compare_runs(runs)
    assert comparison.cost == "macs_g"
    assert any("Not every run searched over MACs" in text for text in comparison.caveats)


def test_other_validation_images_are_refused_with_the_rule(pair):
    one, two = pair
    baseline = two.facts["baseline"] | {"images": ["other.png", "1.png", "2.png", "3.png"]}
    with pytest.raises(InputError, match=r"different images.*\n.*same validation images only"):
        compare_runs([one, dataclasses.replace(two, facts={"baseline": baseline})])


def test_images_of_one_name_but_other_content_are_refused(pair):
    one, two = pair
    baseline = two.facts["baseline"] | {"psnr_per_image_db": [28.0, 29.0, 31.0, 32.5]}
    with pytest.raises(InputError, match="doing nothing scores differently"):
        compare_runs([one, dataclasses.replace(two, facts={"baseline": baseline})])


def test_other_tasks_are_refused(pair):
    one, two = pair
    spec = {**two.spec, "task": {**two.spec["task"], "upscale": 4}}
    with pytest.raises(InputError, match="upscale: 2 against 4"):
        compare_runs([one, dataclasses.replace(two, spec=spec)])


def test_the_same_photographs_may_lie_in_other_folders(pair):
    one, two = pair
    spec = {**two.spec, "task": {**two.spec["task"], "data": {"folder": "/elsewhere"}}}
    assert compare_runs([one, dataclasses.replace(two, spec=spec)]).cost == "latency_ms"


def test_other_training_is_allowed_and_said(pair):
    one, two = pair
    spec = {**two.spec, "proxy": {**two.spec["proxy"], "rungs": [100, 400], "keep": 0.9}}
    [text] = [t for t in compare_runs([one, dataclasses.replace(two, spec=spec)]).caveats if "trained" in t]
    assert "(steps; one: 1,200 training steps; two: 400 training steps)" in text


def test_fewer_than_two_runs_or_one_twice_are_refused(pair):
    with pytest.raises(InputError, match="two runs or more"):
        compare_runs(pair[:1])
    with pytest.raises(InputError, match="given twice"):
        compare_runs([pair[0], pair[0]])


def test_runs_of_one_name_are_told_apart_by_their_folders(pair):
    runs = compare_runs([dataclasses.replace(s, name="same") for s in pair]).runs
    assert [r.label for r in runs] == [str(s.folder) for s in pair]


def test_odd_runs_take_part_without_a_crash(pair, make_trial, make_study):
    rejected = make_trial(0, TrialState.INFEASIBLE, macs_g=9.0, reason="macs_g 9 > 8")
    nan = make_trial(1, psnr_db=float("nan"), latency_ms=5.0, macs_g=1.0)
    for trials in ([], [rejected], [rejected, nan]):
        odd = dataclasses.replace(make_study(trials), name="odd", facts={})
        comparison = compare_runs([pair[0], odd])
        assert comparison.runs[1].front == ()
        assert comparison.runs[1].hypervolume == 0.0
        assert {b.winner for b in comparison.bands} == {"one"}
        render(draw_comparison(comparison))
    unborn = dataclasses.replace(make_study(), objectives=(), spec={}, facts={}, name="unborn")
    empty = compare_runs([unborn, dataclasses.replace(make_study(), spec={}, facts={})])
    assert (empty.reference, empty.bands) == (None, ())
    assert compare_runs([pair[0], dataclasses.replace(unborn, name="other")]).runs[0].hypervolume > 0


def test_a_single_image_gives_no_interval_and_says_so(pair):
    comparison = compare_runs([with_images(study, (0.0,)) for study in pair])
    assert [run.interval for run in comparison.runs] == [None, None]
    assert any("a single image gives no interval" in text for text in comparison.caveats)


# -- figure and command ------------------------------------------------------------------------------


def test_the_figure_tells_the_runs_apart_without_colour(pair):
    figure = draw_comparison(compare_runs(pair))
    panel, strip = figure.axes
    lines = [line for line in panel.lines if line.get_marker() not in ("None", "", None) and len(line.get_xdata())]
    assert len({line.get_marker() for line in lines}) == len({line.get_color() for line in lines}) == 2
    assert [list(map(float, line.get_xdata())) for line in lines] == [[4.0, 10.0], [5.0, 8.0]]
    assert [label.get_text() for label in strip.get_yticklabels()] == ["one", "two"]
    words = " | ".join(text.get_text() for text in figure.findobj(Text))
    for part in ("Super-resolution ×2", "PSNR (dB)", "Latency (ms)", "bicubic 30.00 dB", "A processor x2 (bench)"):
        assert part in words


def test_bars_are_of_the_gain_and_the_axis_fits_the_fronts(unlike_study):
    study = dataclasses.replace(unlike_study, name="one")
    panel = draw_comparison(
        compare_runs([study, dataclasses.replace(study, name="two", folder=study.folder / "x")])
    ).axes[0]
    low, high = panel.get_ylim()
    assert 30.5 < low < 30.95
    assert 31.2 < high < 31.5
    words = [text.get_text() for text in panel.get_figure().findobj(Text)]
    assert "bicubic 30.00 dB, below the axis" in words
    assert "bars: gain, 95 %" in " ".join(" ".join(words).split())


def test_a_comparison_says_after_how_many_steps_and_that_the_order_may_change(call):
    told = " ".join(call().stdout.split())
    assert "Who has the highest PSNR after 1,200 steps at no more than this latency (ms)" in told
    assert "PSNR is after 1,200 steps of training; longer training may change the order." in told
    assert "longer training may change the order" in json.loads(call("--json").stdout)["caveats"][0]


def test_blocks_that_are_not_clear_are_hollow(pair):
    comparison = compare_runs([with_images(study, (0.0,)) for study in pair])
    strip = draw_comparison(comparison).axes[1]
    assert [bar.get_facecolor()[3] for bar in strip.patches] == [1.0, 0.0, 0.0, 0.0]


def test_an_empty_comparison_is_drawn_with_words(make_study):
    figure = draw_comparison(compare_runs([make_study(), make_study()]))
    assert "no candidate is complete yet" in " ".join(text.get_text() for text in figure.findobj(Text))


@pytest.fixture
def call(pair, monkeypatch):
    """Call the command line on the two runs, without their journals."""
    by_folder = {study.folder: study for study in pair}
    monkeypatch.setattr(comparing, "read_study", by_folder.__getitem__)

    def invoke(*arguments):
        return CliRunner().invoke(app, ["compare", *map(str, by_folder), *map(str, arguments)])

    return invoke


def test_the_command_prints_tables_and_writes_the_figure(call, tmp_path):
    done = call("-o", tmp_path / "both.png")
    assert done.exit_code == 0, done.output
    for part in ("hypervolume", "clearly over", "no other run has a member as cheap", "not training seeds"):
        assert part in " ".join(done.stdout.split())
    assert (tmp_path / "both.png").read_bytes().startswith(b"\x89PNG")


def test_the_command_prints_json(call):
    record = json.loads(call("--json").stdout)
    assert [run["label"] for run in record["runs"]] == ["one", "two"]
    assert record["bands"][2]["winner"] == "two"
    assert record["reference"] == {"psnr_db": 30.0, "latency_ms": pytest.approx(11.0)}


@pytest.mark.parametrize("name", ["both.jpg", "both", "nowhere/both.png"])
def test_a_figure_that_cannot_be_written_is_refused_at_once(call, tmp_path, name):
    done = call("-o", tmp_path / name)
    assert done.exit_code == 2
    assert "--out" in done.stderr
