"""Figures of a run: what is drawn where, by their artists; the numbers behind them."""

import dataclasses

import numpy as np
import pytest
from matplotlib.collections import PathCollection
from matplotlib.text import Annotation, Text

from search.report import draw_experts, draw_front, draw_hypervolume, draw_panel, draw_rungs, save_front
from search.report.figures import DARK, hypervolume_growth, log_ticks, plain, render
from search.types import TrialState


def points(axes, label):
    """The points of one kind, as [[cost, quality], ...]."""
    found = [c for c in axes.collections if isinstance(c, PathCollection) and str(c.get_label()).startswith(label)]
    return sorted(np.asarray(c.get_offsets()).round(6).tolist()[i] for c in found for i in range(len(c.get_offsets())))


def words(figure):
    return " | ".join(text.get_text() for text in figure.findobj(Text))


def boxes(axes):
    figure = axes.get_figure(root=True)
    renderer = figure.canvas.get_renderer()
    notes = [n for n in axes.texts if isinstance(n, Annotation)]
    for note in notes:
        note.update_positions(renderer)
    return {note.get_text(): Text.get_window_extent(note, renderer) for note in notes}


def test_there_is_one_panel_for_each_cost_at_1200_by_500_pixels(rich_study):
    figure = draw_front(rich_study)
    assert [axes.get_xlabel() for axes in figure.axes] == ["Latency (ms), 160×160 input", "MACs (G), 640×360 input"]
    assert figure.axes[0].get_ylabel() == "PSNR (dB)"
    assert (figure.get_size_inches() * figure.dpi).tolist() == [1200.0, 500.0]
    assert {axes.get_xscale() for axes in figure.axes} == {"log"}


def test_candidates_are_drawn_by_what_became_of_them(rich_study):
    latency = draw_front(rich_study).axes[0]
    assert points(latency, "front") == [[5.0, 30.9], [10.0, 31.4], [12.0, 30.7], [40.0, 31.6]]
    assert points(latency, "front, by another cost") == [[12.0, 30.7]]
    assert points(latency, "complete, dominated") == [[20.0, 31.2]]
    assert points(latency, "stopped early (100 steps)") == [[15.0, 30.6]]
    assert points(latency, "stopped early (400 steps)") == [[18.0, 30.8]]
    assert points(latency, "knee") == [[10.0, 31.4]]


def test_the_front_is_joined_by_steps_that_never_promise_more_than_was_reached(rich_study):
    line = draw_front(rich_study).axes[0].lines[0]
    corners = [[5, 30.9], [10, 30.9], [10, 31.4], [40, 31.4], [40, 31.6]]
    assert np.asarray(line.get_xydata()).tolist() == corners


def test_the_baseline_is_a_line_with_its_value_or_named_where_it_is_far_below_the_front(rich_study):
    near = {**rich_study.facts, "baseline": {**rich_study.facts["baseline"], "psnr_db": 30.5}}
    axes = draw_front(dataclasses.replace(rich_study, facts=near)).axes[0]
    assert [30.5, 30.5] in [list(line.get_ydata()) for line in axes.lines]
    assert "bicubic 30.50 dB" in boxes(axes)
    axes = draw_front(rich_study).axes[0]
    assert [30.0, 30.0] not in [list(line.get_ydata()) for line in axes.lines]
    assert "↓ bicubic 30.00 dB" in boxes(axes)


def test_bars_are_of_the_gain_photograph_by_photograph_and_the_axis_fits_the_front(unlike_study):
    for figure in (draw_front(unlike_study), draw_panel(unlike_study, "latency_ms")):
        axes = figure.axes[0]
        bars = [line for line in axes.lines if len(set(line.get_xdata())) == 1 and len(line.get_xdata()) == 2]
        assert [list(line.get_xdata()) for line in bars] == [[4.0, 4.0], [8.0, 8.0], [12.0, 12.0]]
        ends = [end for line in bars for end in line.get_ydata()]
        assert ends == pytest.approx([30.9, 31.1, 31.0, 31.2, 31.1, 31.3])
        low, high = axes.get_ylim()
        assert 30.5 < low < 30.9
        assert 31.3 < high < 31.5
        assert "↓ bicubic 30.00 dB" in boxes(axes)
        text = words(figure)
        for part in ("gain, 95 %", "reference (below the axis: edsr)", "1 below the axis"):
            assert part in text


def test_a_reference_within_the_axis_has_its_bar(unlike_study):
    record = unlike_study.facts["references"]["edsr"]
    near = [
        *record["measurements"][:-1],
        {**record["measurements"][-1], "psnr_db": 31.0, "psnr_per_image_db": [25.9, 36.1]},
    ]
    facts = {**unlike_study.facts, "references": {"edsr": {**record, "measurements": near}}}
    axes = draw_front(dataclasses.replace(unlike_study, facts=facts)).axes[0]
    [bar] = [line for line in axes.lines if list(line.get_xdata()) == [30.0, 30.0]]
    assert list(bar.get_ydata()) == pytest.approx([30.9, 31.1])


def test_a_restoration_is_compared_with_its_input(rich_study):
    study = dataclasses.replace(rich_study, spec={**rich_study.spec, "task": {"kind": "denoise", "sigma": 25.0}})
    text = words(draw_front(study))
    assert "input 30.00 dB" in text
    assert "Denoising, σ = 25" in text


def test_title_and_caption_say_task_steps_and_conditions(rich_study):
    text = words(draw_front(rich_study))
    for part in ("Super-resolution ×2", "2 validation photographs", "1,200 training steps", "1 thread", "float32"):
        assert part in text
    for part in ("cpu", "160×160", "640×360", "seed 7", "A processor x2 (bench)"):
        assert part in text


def test_labels_cover_neither_each_other_nor_a_point(make_trial, make_study):
    front = [(30.9, 10.0), (31.1, 10.6), (31.15, 11.2), (31.2, 16.0)]
    crowd = [(30.88 - 0.06 * row, 10.8 + 1.1 * column) for row in range(4) for column in range(6)]
    trials = [
        make_trial(n, psnr_db=psnr_db, latency_ms=ms, macs_g=ms / 10) for n, (psnr_db, ms) in enumerate(front + crowd)
    ]
    for axes in draw_front(make_study(trials)).axes:
        placed = boxes(axes)
        assert len(placed) == 4
        for name, box in placed.items():
            assert not any(box.overlaps(other) for label, other in placed.items() if label != name)
            pixels = axes.transData.transform(points(axes, ""))
            assert not any(box.contains(*pixel) for pixel in pixels)


def test_presets_that_coincide_share_a_label(make_trial, make_study):
    figure = draw_front(make_study([make_trial(3, psnr_db=31.0, latency_ms=5.0, macs_g=1.0)]))
    assert "fastest = balanced = best  #3" in words(figure)


def test_a_diverged_candidate_does_not_crush_the_panel_and_is_counted(rich_study, make_trial):
    lost = make_trial(20, TrialState.STOPPED, psnr_db=5.0, latency_ms=9.0, macs_g=1.0, rungs=1)
    figure = draw_front(dataclasses.replace(rich_study, trials=(*rich_study.trials, lost)))
    assert figure.axes[0].get_ylim()[0] > 28
    assert "stopped early (100 steps), 1 below the axis" in words(figure)


def test_a_study_without_a_complete_candidate_says_so(make_study):
    assert "no candidate is complete yet" in words(draw_front(make_study()))
    assert "nothing complete dominates the baseline yet" in words(draw_hypervolume(make_study()))
    assert render(draw_rungs(make_study())).startswith(b"<?xml")


def test_a_single_quality_and_cost_give_a_single_panel(rich_study):
    figure = draw_front(dataclasses.replace(rich_study, objectives=("ssim", "params_m")))
    assert [axes.get_xlabel() for axes in figure.axes] == ["Parameters (M)"]
    assert figure.axes[0].get_ylabel() == "SSIM"


def test_rung_curves_show_every_trained_candidate_and_highlight_the_front(rich_study):
    lines = draw_rungs(rich_study).axes[0].lines
    assert [line.get_label() for line in lines].count("on the front") == 4
    assert [line.get_label() for line in lines].count("other candidates") == 4
    assert [100, 400, 1200] in [list(line.get_xdata()) for line in lines]


def test_the_dominated_volume_is_a_box_for_one_candidate(make_trial, make_study):
    # 1 dB over the baseline, at a tenth of the latency limit and an eighth of the MACs limit: ln 10 * ln 8.
    study = make_study([make_trial(0, psnr_db=31.0, latency_ms=6.0, macs_g=1.0)])
    assert hypervolume_growth(study) == pytest.approx([np.log(10) * np.log(8)])


def test_the_dominated_volume_never_falls_and_stopped_candidates_add_nothing(rich_study):
    volumes = hypervolume_growth(rich_study)
    assert len(volumes) == 8
    assert all(np.diff(volumes) >= 0)
    assert volumes[2] == volumes[3]


def test_the_volume_is_shown_as_a_share_of_what_it_is_now(rich_study):
    [line] = draw_hypervolume(rich_study).axes[0].lines
    assert list(line.get_ydata())[::8] == [0.0, 1.0]


@pytest.mark.parametrize(("low", "high"), [(4.2, 6.5), (0.7, 2.5), (1, 1000), (0.002, 0.03), (9.9, 10.4), (5, 50)])
def test_ticks_are_few_round_and_inside(low, high):
    ticks = log_ticks(low, high)
    assert 3 <= len(ticks) <= 9
    assert all(low <= tick <= high for tick in ticks)


def test_ticks_are_written_as_plain_numbers():
    assert [plain(x) for x in (0.0005, 0.30000000000000004, 1.5, 20.0, 1200.0)] == [
        "0.0005",
        "0.3",
        "1.5",
        "20",
        "1,200",
    ]


def test_the_front_is_written_as_png_or_svg(rich_study):
    png, svg = save_front(rich_study), save_front(rich_study, "svg")
    assert (png.name, svg.name) == ("front.png", "front.svg")
    assert png.read_bytes().startswith(b"\x89PNG")
    assert b"<svg" in svg.read_bytes()


def test_the_same_records_give_the_same_bytes(rich_study):
    first, second = (render(draw_panel(rich_study, "macs_g", DARK)) for _ in range(2))
    assert first == second


def test_each_mixture_has_its_loads_and_where_labels_are_known_its_table(expert_study):
    figure = draw_experts(expert_study, [("best", expert_study.trials[0])])
    (load, table, half, none) = figure.axes
    assert [bar.get_height() for bar in load.patches] == [0.25] * 4
    assert [bar.get_height() for bar in half.patches] == [0.5, 0.5, 0.0, 0.0]
    assert np.array_equal(np.asarray(table.images[0].get_array()), np.eye(4))
    assert [text.get_text() for text in table.get_yticklabels()] == ["texture", "denoise", "deblur", "artifact"]
    assert not none.axison


def test_balance_dead_experts_and_shares_are_told_in_words_too(expert_study):
    said = words(draw_experts(expert_study, [("best", expert_study.trials[0])], DARK))
    for part in (
        "load entropy 1.00: balanced",
        "load entropy 0.50: 2 dead experts: 3, 4",
        "0% dead",
        "25%",
        "2.00 bits",
        "4\nartifact",
    ):
        assert part in said


def test_experts_bear_no_names_that_they_were_not_taught(expert_study):
    untaught = dataclasses.replace(expert_study, spec={**expert_study.spec, "proxy": {}})
    labels = [t.get_text() for t in draw_experts(untaught, [("", untaught.trials[1])]).axes[0].get_xticklabels()]
    assert labels == ["1", "2", "3", "4"]
