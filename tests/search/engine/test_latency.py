from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from hfir import HFIRConfig
from search.evaluation import latency, reference
from search.evaluation.cost import MIB, deploy_form, peak_memory_mib
from search.evaluation.latency import (
    MIN_PASSES,
    Block,
    Blocks,
    interleaved,
    measure_latency,
    median_interval,
    remembered_latency,
)
from search.evaluation.reference import Reference, size_class, time_block
from search.types import EvaluationError, InputError, InputSize, Latency

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


class Quiet:
    """A machine on which nobody else runs anything."""

    def is_crowded(self) -> bool:
        return False


@pytest.fixture(autouse=True)
def steady_blocks(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of three passes of exactly 2 ms, and no neighbours, where a test asks for a script."""
    if "scripted" in request.node.name:
        monkeypatch.setattr(latency, "time_block", lambda run, clock: [2.0] * 3)
        monkeypatch.setattr(latency, "Load", Quiet)


def at_rest(*medians_ms: float, passes: int = 5) -> Blocks:
    """Return blocks of equal passes, beside a reference that takes 10 ms, as at rest."""
    return Blocks(10.0, [Block([ms] * passes, 10.0, 10.0) for ms in medians_ms])


def test_scripted_rest_keeps_every_block():
    blocks = interleaved(lambda: None, Scripted(1.0), limit_s=1)
    assert (blocks.passes(), blocks.dropped(), blocks.is_trusted()) == (MIN_PASSES, 0, True)


def test_scripted_busy_blocks_do_not_count_and_more_are_timed():
    # Before, after 1, after 2, …: the first two blocks have a slow reference beside them.
    blocks = interleaved(lambda: None, Scripted(1.0, 1.3, 1.0), limit_s=1)
    assert (len(blocks.timed), blocks.dropped()) == (5, 2)
    assert blocks.is_trusted()


def test_scripted_a_machine_that_stays_busy_gives_an_untrusted_figure_without_what_the_reference_lost():
    blocks = interleaved(lambda: None, Scripted(1.6), limit_s=0.01)
    assert blocks.counting() == []
    assert not blocks.is_trusted()
    assert blocks.interval() == pytest.approx((2.0 / 1.6,) * 3)
    assert blocks.passes() == 3 * len(blocks.timed) == 3 * blocks.dropped()


def test_an_untrusted_figure_is_the_median_of_its_blocks_and_the_middle_of_them_its_interval():
    # Beside a reference at 1.5 of its rest, blocks of 15, 16.5, … 30 ms are 10, 11, … 20 at rest.
    blocks = Blocks(10.0, [Block([15.0 + 1.5 * i] * 3, 14.0, 16.0) for i in (3, 0, 7, 1, 9, 2, 10, 5, 4, 6, 8)])
    assert not blocks.is_trusted()
    assert blocks.interval() == pytest.approx((11.0, 15.0, 19.0))


def test_scripted_a_faster_reference_is_the_new_rest_and_what_came_before_was_busy():
    script = Scripted(1.0, 1.0, 0.8)
    blocks = interleaved(lambda: None, script, limit_s=1)
    assert script.calibrated_ms == blocks.rest_ms == pytest.approx(8.0)
    assert blocks.passes() == MIN_PASSES
    assert blocks.dropped()  # the blocks that were timed beside the slow reference


def test_drift_within_five_percent_is_rest():
    script = Scripted(1.0)
    assert script.drift(10.49) <= latency.DRIFT < script.drift(10.51)


def test_scripted_a_rest_that_is_a_little_slow_is_allowed_for():
    # The reference runs at 1.04 of its rest, and so does the candidate, whose passes take 2 ms.
    blocks = interleaved(lambda: None, Scripted(1.04), limit_s=1)
    assert blocks.counting() == [pytest.approx([2.0 / 1.04] * 3)] * 3
    assert blocks.interval() == pytest.approx((2.0 / 1.04,) * 3)
    assert blocks.is_trusted()


def test_the_interval_of_the_median_by_hand():
    # n = 25: ranks 12.5 ± 0.98·5 = 7.6 and 17.4, outwards 7 and 18, counted from 0; the median is the 13th value.
    assert median_interval([float(i) for i in range(25)]) == (7.0, 12.0, 18.0)
    assert median_interval([3.0]) == (3.0, 3.0, 3.0)
    assert median_interval([1.0, 2.0]) == (1.0, 1.5, 2.0)


def test_the_interval_contains_the_median_whatever_the_order():
    low, median, high = median_interval([5.0, 1.0, 9.0, 4.0, 4.0, 7.0, 2.0, 8.0, 6.0, 3.0])
    assert low <= median <= high
    assert median == 4.5


def test_scripted_processes_beside_us_that_the_reference_does_not_see_are_seen(monkeypatch: pytest.MonkeyPatch):
    class Crowded:
        crowded = iter([True, True, False, False, False, False])

        def is_crowded(self) -> bool:
            return next(self.crowded)

    monkeypatch.setattr(latency, "Load", Crowded)
    blocks = interleaved(lambda: None, Scripted(1.0), limit_s=1)
    assert (len(blocks.counting()), blocks.dropped(), blocks.is_trusted()) == (3, 2, True)


def test_blocks_that_are_slower_than_the_others_do_not_count():
    # Medians 2.0, 2.0, 2.05, 2.3, 2.4: the limit is 1.05 · 2.0 = 2.1.
    blocks = at_rest(2.3, 2.0, 2.4, 2.05, 2.0)
    assert sorted(block[0] for block in blocks.counting()) == [2.0, 2.0, 2.05]
    assert blocks.is_trusted()
    assert (blocks.passes(), blocks.dropped()) == (15, 2)


def test_one_lucky_block_does_not_shut_the_others_out():
    assert len(at_rest(1.5, 2.0, 2.0, 2.0).counting()) == 4


def test_blocks_that_do_not_agree_are_no_figure_to_trust():
    blocks = at_rest(2.0, 2.0, 3.0, 3.5, 4.0, passes=9)
    assert not blocks.is_trusted()
    assert blocks.passes() == 45


def test_enough_needs_blocks_and_passes_and_a_narrow_interval(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(latency, "TOLERANCE", 0.02)
    assert not at_rest(*[1.0] * 4, passes=2).is_enough()  # 8 passes
    assert not at_rest(*[1.0] * 2, passes=100).is_enough()  # two blocks
    assert at_rest(*[1.0] * 3, passes=3).is_enough()
    spread = [Block([0.9, 0.9, 1.0, 1.1, 1.1], 10.0, 10.0)] * 3
    assert not Blocks(10.0, spread).is_enough()  # they agree, but ±2 % is not reached


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

    def measured(*args, **options) -> Latency:
        ms = float(next(figures))
        return replace(real, trusted=trusted, median_ms=ms, reference_ratio=ms / 100.0)

    monkeypatch.setattr(latency, "measure_latency", measured)
    monkeypatch.setattr(latency, "rest_ms", lambda *a: 100.0)
    return lambda threads=1, remeasure=False: remembered_latency(model, AT, threads, remeasure=remeasure)


@pytest.mark.parametrize("trusted", [True, False])
def test_a_figure_is_remembered_with_its_doubt_until_it_is_taken_anew(trusted, model, monkeypatch, tmp_path):
    figure = remember(model, monkeypatch, tmp_path, trusted=trusted)
    assert [figure().median_ms, figure().median_ms] == [1.0, 1.0]
    assert figure(threads=2).median_ms == 2.0
    assert [figure(remeasure=True).median_ms, figure().median_ms] == [3.0, 3.0]
    assert figure().trusted is trusted


@pytest.mark.parametrize("trusted", [True, False])
def test_a_figure_that_was_taken_on_a_slower_machine_than_this_turns_out_to_be_is_taken_anew(
    trusted, model, monkeypatch, tmp_path
):
    figure = remember(model, monkeypatch, tmp_path, trusted=trusted)
    assert [figure().median_ms, figure().median_ms] == [1.0, 1.0]
    monkeypatch.setattr(latency, "rest_ms", lambda *a: 90.0)  # it was held against a rest of 100 ms
    assert figure().median_ms == 2.0


def test_the_machine_remembers_how_fast_the_reference_is_at_rest(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    first = Reference("small", threads=1)
    assert first.calibrated_ms > 0
    assert reference.rest_ms("small", 1) == Reference("small", threads=1).calibrated_ms == first.calibrated_ms
    first.learn(0.001)
    assert Reference("small", threads=1).calibrated_ms == 0.001


def test_rest_is_the_fastest_tenth_of_the_sessions(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    machine = Reference("small", threads=1)
    machine.learn(2.0)
    for ms in (4.0, 3.0, 1.0):
        machine.remember([ms] * 4)
    assert Reference("small", threads=1).calibrated_ms == 1.0
    for _ in range(8):
        machine.remember([2.0] * 4)  # twelve sessions: the second fastest
    assert Reference("small", threads=1).calibrated_ms == 2.0
    for _ in range(reference.SESSIONS):
        machine.remember([5.0] * 4)  # a machine that is slower for good
    assert Reference("small", threads=1).calibrated_ms == 5.0


def test_rest_is_found_between_a_neighbours_bursts(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    times = iter([9.0] * 30 + [1.0] * 8 + [9.0] * 10**6)
    monkeypatch.setattr(Reference, "block_ms", lambda self: next(times))
    ticks = iter(range(10**6))
    monkeypatch.setattr(reference.time, "perf_counter", lambda: next(ticks) * reference.CALIBRATION_S / 50)
    assert Reference("small", threads=1).calibrated_ms == 1.0


def test_a_session_is_remembered_by_the_lower_quartile_of_its_blocks(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    machine = Reference("small", threads=1)
    machine.learn(9.0)
    machine.remember([1.0, 5.0, 6.0, 7.0])
    assert Reference("small", threads=1).calibrated_ms == 5.0


# -- runtimes and devices ------------------------------------------------------------------------------


@pytest.mark.slow
def test_onnx_runtime_is_named_with_its_version(model):
    figure = measure_latency(model, AT, threads=1, runtime="onnxruntime", limit_s=0.05)
    assert figure.runtime.startswith("onnxruntime 1.")
    assert figure.versions["torch"]


def test_runtimes_are_remembered_apart(model, monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    keys = {latency._cache_key(model, AT, 1, runtime, "cpu") for runtime in ("torch", "compile", "onnxruntime")}
    assert len(keys) == 3


@pytest.mark.parametrize(
    ("runtime", "device", "said"),
    [
        ("tensorrt", "cpu", "not known"),
        ("torch", "gpu", "Write cpu, or cuda:0"),
        ("torch", "cuda:99", "this machine has"),
    ],
)
def test_a_runtime_or_a_device_that_is_not_there_is_said(runtime: str, device: str, said: str, model):
    with pytest.raises(InputError, match=said):
        measure_latency(model, AT, threads=1, runtime=runtime, device=device)


def test_onnx_runtime_takes_any_network():
    figure = measure_latency(
        torch.nn.Conv2d(2, 3, 1).eval(), AT, threads=1, runtime="onnxruntime", in_channels=2, limit_s=0.05
    )
    assert figure.runtime.startswith("onnxruntime 1.")


def test_what_onnx_cannot_say_is_an_error_with_the_reason():
    class Odd(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x if x.sum() > 0 else -x

    with pytest.raises(EvaluationError, match="no ONNX file to measure"):
        measure_latency(Odd().eval(), AT, threads=1, runtime="onnxruntime", in_channels=2)


def test_any_network_can_be_timed():
    figure = measure_latency(torch.nn.Conv2d(2, 3, 1).eval(), AT, threads=1, in_channels=2, limit_s=0.05)
    assert figure.median_ms > 0


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("runtime", ["torch", "compile"])
def test_a_network_is_timed_on_a_cuda_device_by_events(runtime: str, model):
    figure = measure_latency(model, AT, threads=1, runtime=runtime, device="cuda:0", limit_s=0.3)
    assert 0 < figure.low_ms <= figure.median_ms <= figure.high_ms
    assert figure.device.startswith("cuda:0 (")
    assert all(p.device.type == "cpu" for p in model.parameters())


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_peak_memory_on_a_cuda_device_holds_at_least_the_weights(model):
    weights = sum(p.numel() for p in model.parameters())
    assert peak_memory_mib(model, AT, device="cuda:0") >= 4 * weights / MIB
