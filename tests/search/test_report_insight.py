"""What the page's figures rest on: importance of dimensions, agreement of rungs, the packed records."""

import base64
import dataclasses
import gzip
import json

import pytest

from search.report.agreement import rank_agreement
from search.report.importance import ENOUGH, importances
from search.report.interactive import pack, packed_data, packed_plotly, page_data
from search.types import TrialState


def unpacked(text):
    return gzip.decompress(base64.b64decode(text)).decode()


@pytest.fixture(scope="module")
def two_dimensions(make_trial, make_study):
    """64 candidates: the quality is the width's alone, the costs are the blocks' alone, `zoom` counts with width 8."""

    def trial(number):
        width, blocks, zoom = 8 + 2 * (number % 4), 1 + number // 4 % 4, number // 16 % 2
        genotype = {"width": width, "levels": 1, "encoder_blocks.1": blocks} | ({"zoom": zoom} if width == 8 else {})
        return make_trial(number, psnr_db=30 + width / 10, latency_ms=5.0 * blocks, macs_g=0.5, genotype=genotype)

    return make_study([trial(number) for number in range(64)], objectives=("psnr_db", "latency_ms"))


def test_the_dimension_that_decides_has_the_largest_share(two_dimensions):
    quality, latency = importances(two_dimensions)
    assert (quality.objective, quality.candidates, quality.best) == ("psnr_db", 64, 6)
    assert quality.shares["width"] > 0.9
    assert latency.shares["encoder_blocks.1"] > 0.9
    assert all(sum(found.shares.values()) == pytest.approx(1) for found in (quality, latency))


def test_a_dimension_with_one_value_has_no_share(two_dimensions):
    assert set(importances(two_dimensions)[0].shares) == {"width", "encoder_blocks.1", "zoom"}


def test_an_inactive_dimension_does_not_take_what_is_its_parents(two_dimensions):
    """Narrow networks are the worst here, and only they have `zoom`."""
    assert importances(two_dimensions)[0].shares["zoom"] < 0.05


def test_what_matters_is_what_the_best_have_in_common_not_the_worst(make_trial, make_study):
    """Of the widest networks the deepest are the best; of the narrowest those with the smallest `zoom` the worst."""

    def trial(number):
        width, blocks, zoom = 8 + 6 * (number % 2), 1 + number // 2 % 4, number // 8 % 4
        quality = 30 + width / 10 + (0.05 * blocks if width == 14 else 0.05 * zoom)
        genotype = {"width": width, "levels": 1, "encoder_blocks.1": blocks, "zoom": zoom}
        return make_trial(number, psnr_db=quality, latency_ms=5.0, macs_g=0.5, genotype=genotype)

    shares = importances(make_study([trial(number) for number in range(64)]))[0].shares
    assert shares["encoder_blocks.1"] > 5 * shares["zoom"]


def test_too_few_candidates_show_nothing(two_dimensions):
    few = dataclasses.replace(two_dimensions, trials=two_dimensions.trials[: ENOUGH - 1])
    assert importances(few) == []


def test_truth_and_one_are_two_values(make_trial, make_study):
    trials = [
        make_trial(n, psnr_db=30.0 + n % 2, latency_ms=5.0, macs_g=1.0, genotype={"width": 8, "levels": 1, "x": value})
        for n, value in enumerate([1, True] * 16)
    ]
    assert importances(make_study(trials))[0].shares == {"x": pytest.approx(1.0)}


def test_rungs_agree_by_rank(make_trial, make_study):
    """Early order 1 2 3 4, late order 1 2 4 3: Spearman is 1 - 6 * 2 / (4 * 15) = 0.8."""

    def trial(number, early, late):
        first, last = make_trial(number, psnr_db=30.0, latency_ms=5.0, macs_g=1.0, rungs=2).measurements
        changed = (dataclasses.replace(first, psnr_db=early), dataclasses.replace(last, psnr_db=late))
        made = make_trial(number, psnr_db=30.0, latency_ms=5.0, macs_g=1.0)
        return dataclasses.replace(made, measurements=changed)

    orders = [(30.1, 31.1), (30.2, 31.2), (30.3, 33.0), (30.4, 31.3)]
    stopped = make_trial(9, TrialState.STOPPED, psnr_db=25.0, latency_ms=5.0, macs_g=1.0, rungs=1)
    study = make_study([*(trial(n, *order) for n, order in enumerate(orders)), stopped])
    [at] = rank_agreement(study)
    assert (at.step, at.last_step, at.candidates, at.best_kept) == (100, 400, 4, False)
    assert at.spearman == pytest.approx(0.8)


def test_rungs_of_few_or_equal_candidates_have_no_figure(make_trial, make_study):
    few = make_study([make_trial(n, psnr_db=30.0, latency_ms=5.0, macs_g=1.0) for n in range(3)])
    same = make_study([make_trial(n, psnr_db=30.0, latency_ms=5.0, macs_g=1.0) for n in range(6)])
    assert [(at.spearman, at.best_kept) for at in rank_agreement(few)] == [(None, None)] * 2
    assert [at.spearman for at in rank_agreement(same)] == [None, None]
    assert rank_agreement(make_study()) == []


def test_the_records_are_columns_with_intervals(rich_study):
    data = page_data(rich_study)
    at = data["trials"]["number"].index(1)
    assert data["trials"]["values"]["latency_ms"][at] == 10.0
    assert data["trials"]["latency"][at] == [9.8, 10.2]
    assert data["trials"]["photographs"][at] == [31.4, 31.4]
    assert data["presets"] == {"fastest": 4, "balanced": 1, "best": 0}
    assert sorted(data["front"]) == [0, 1, 4, 5]
    assert data["baseline"] == {"name": "bicubic", "values": {"psnr_db": 30.0, "ssim": 0.85}}
    assert len({len(column) for column in data["trials"]["values"].values()} | {len(data["trials"]["config"])}) == 1


def test_compute_adds_up_over_the_candidates(rich_study):
    volume = page_data(rich_study)["volume"]
    assert volume["number"] == [0, 1, 2, 3, 4, 5, 11, 12]
    assert volume["seconds"] == [30, 60, 90, 100, 130, 160, 170, 190]
    assert volume["share"][-1] == 1.0


def test_a_dimension_that_is_not_active_stands_at_zero(rich_study):
    parallel = page_data(rich_study)["parallel"]
    zoom = next(d for d in parallel["dimensions"] if d["name"] == "zoom")
    assert (zoom["values"], zoom["inactive"]) == (["1.5", "2"], True)
    assert parallel["number"][-2:] == [3, 11]
    assert dict(zip(parallel["number"], zoom["places"], strict=True)) == {
        0: 2, 1: 0, 2: 1, 3: 0, 4: 0, 5: 0, 11: 0, 12: 0,
    }  # fmt: skip


def test_a_figure_that_is_not_finite_is_none(make_trial, make_study):
    trial = make_trial(0, psnr_db=31.0, latency_ms=5.0, macs_g=1.0)
    broken = dataclasses.replace(trial.measurements[-1], psnr_per_image_db=(float("nan"), 31.0))
    study = make_study([dataclasses.replace(trial, measurements=(*trial.measurements[:-1], broken))])
    assert None in page_data(study)["trials"]["photographs"][0]
    assert json.loads(unpacked(packed_data(study)))["run"] == "handmade"


def test_packing_gives_the_same_bytes_and_the_text_back():
    assert pack("<ü>") == pack("<ü>")
    assert unpacked(pack("<ü>")) == "<ü>"
    assert "plotly.js v" in unpacked(packed_plotly())[:100]
