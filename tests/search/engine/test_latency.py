from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from hfir import HFIRConfig
from search.evaluation import latency, reference
from search.evaluation.cost import deploy_form
from search.evaluation.latency import (
    MIN_PASSES,
    Blocks,
    interleaved,
    measure_latency,
    median_interval,
    remembered_latency,
)
from search.evaluation.reference import Reference, size_class, time_block
from search.types import InputSize, Latency

AT = InputSize(width=24, height=24)


class Scripted:
    """A reference that fares as it is told: shares of its time at rest, the last one for ever."""

    def __init__(self, *shares: float) -> None:
        self.calibrated_ms = 10.0
        self.shares = list(shares)

    def block_ms(self) -> float:
        return 10.0 * (self.shares.pop(0) if len(self.shares) > 1 else self.shares[0])

    def drift(self, measured_ms: float) -> float:
        return measured_ms / self.calibrated_ms - 1

    def learn(self, measured_ms: float) -> None:
        self.calibrated_ms = measured_ms


@pytest.fixture(autouse=True)
def steady_blocks(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of five passes of exactly 2 ms, and no waiting, where a test asks for a script."""
    if "scripted" in request.node.name:
        monkeypatch.setattr(latency, "time_block", lambda run: [2.0] * 5)
        monkeypatch.setattr(latency, "PAUSE_S", 0.0)


def test_scripted_rest_keeps_every_block():
    blocks = interleaved(lambda: None, Scripted(1.0), limit_s=1)
    assert (len(blocks.kept), blocks.discarded_blocks, blocks.is_trusted()) == (MIN_PASSES, 0, True)


def test_scripted_busy_blocks_are_discarded_and_tried_again():
    # Before, after 1, after 2, …: the first two blocks have a slow reference beside them.
    blocks = interleaved(lambda: None, Scripted(1.0, 1.3, 1.0), limit_s=1)
    assert (len(blocks.discarded), blocks.discarded_blocks) == (10, 2)
    assert blocks.is_trusted()


def test_scripted_a_machine_that_stays_busy_gives_an_untrusted_figure():
    blocks = interleaved(lambda: None, Scripted(1.0, 1.5), limit_s=0.01)
    assert blocks.kept == []
    assert blocks.discarded
    assert not blocks.is_trusted()


def test_scripted_a_faster_reference_is_the_new_rest_and_what_came_before_was_busy():
    script = Scripted(1.0, 1.0, 0.8)
    blocks = interleaved(lambda: None, script, limit_s=1)
    assert script.calibrated_ms == pytest.approx(8.0)
    assert len(blocks.kept) == MIN_PASSES
    assert blocks.discarded  # the block that was timed beside the slow reference


def test_drift_within_five_percent_is_rest():
    script = Scripted(1.0)
    assert script.drift(10.49) <= latency.DRIFT < script.drift(10.51)


def test_the_interval_of_the_median_by_hand():
    # n = 25: ranks 12.5 ± 0.98·5 = 7.6 and 17.4, outwards 7 and 18, counted from 0; the median is the 13th value.
    assert median_interval([float(i) for i in range(25)]) == (7.0, 12.0, 18.0)
    assert median_interval([3.0]) == (3.0, 3.0, 3.0)
    assert median_interval([1.0, 2.0]) == (1.0, 1.5, 2.0)


def test_the_interval_contains_the_median_whatever_the_order():
    low, median, high = median_interval([5.0, 1.0, 9.0, 4.0, 4.0, 7.0, 2.0, 8.0, 6.0, 3.0])
    assert low <= median <= high
    assert median == 4.5


def test_enough_needs_both_passes_and_a_narrow_interval(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(latency, "TOLERANCE", 0.02)
    assert not Blocks(kept=[1.0] * (MIN_PASSES - 1)).is_enough()
    assert Blocks(kept=[1.0] * MIN_PASSES).is_enough()
    assert not Blocks(kept=[1.0, 2.0] * MIN_PASSES).is_enough()


def test_size_classes_cover_every_latency():
    assert [size_class(ms) for ms in (0.5, 1.0, 1.1, 6.0, 6.1, 1e6)] == [
        "small",
        "small",
        "medium",
        "medium",
        "large",
        "large",
    ]


def test_a_block_has_some_passes_however_slow():
    calls: list[int] = []
    assert len(time_block(lambda: calls.append(1))) == len(calls) >= reference.BLOCK_PASSES


@pytest.fixture
def model():
    return deploy_form(HFIRConfig(width=4, encoder_blocks=(1,), bottleneck_blocks=0, decoder_blocks=(0,)))


def test_a_measured_latency_says_how_it_was_taken(model):
    figure = measure_latency(model, AT, threads=1, limit_s=0.3)
    assert 0 < figure.low_ms <= figure.median_ms <= figure.high_ms
    assert (figure.at, figure.threads, figure.device, figure.dtype) == ("24x24", 1, "cpu", "float32")
    assert figure.repeats >= MIN_PASSES or not figure.trusted  # on a busy machine most blocks are discarded
    assert figure.reference_ratio is not None
    assert torch.get_num_threads() == 1


def test_threads_are_put_back(model):
    before = torch.get_num_threads()
    measure_latency(model, AT, threads=2, limit_s=0.05)
    assert torch.get_num_threads() == before


def remember(model, monkeypatch: pytest.MonkeyPatch, tmp_path, *, trusted: bool) -> Callable[..., Latency]:
    """Measure figures 1, 2, 3, … in a cache of its own."""
    from dataclasses import replace

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    real = measure_latency(model, AT, 1, limit_s=0.05)
    figures = iter(range(1, 100))
    monkeypatch.setattr(
        latency, "measure_latency", lambda *a, **k: replace(real, median_ms=float(next(figures)), trusted=trusted)
    )
    return lambda threads=1, remeasure=False: remembered_latency(model, AT, threads, remeasure=remeasure)


@pytest.mark.parametrize("trusted", [True, False])
def test_a_figure_is_remembered_with_its_doubt_until_it_is_taken_anew(trusted, model, monkeypatch, tmp_path):
    figure = remember(model, monkeypatch, tmp_path, trusted=trusted)
    assert [figure().median_ms, figure().median_ms] == [1.0, 1.0]
    assert figure(threads=2).median_ms == 2.0
    assert [figure(remeasure=True).median_ms, figure().median_ms] == [3.0, 3.0]
    assert figure().trusted is trusted


def test_the_machine_remembers_how_fast_the_reference_is_at_rest(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    first = Reference("small", threads=1)
    assert first.calibrated_ms > 0
    assert Reference("small", threads=1).calibrated_ms == first.calibrated_ms
    first.learn(0.001)
    assert Reference("small", threads=1).calibrated_ms == 0.001
