"""Made-up figures take the place of measured ones for tests alone, and nobody can mistake them."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

from hfir import HFIRConfig
from search.caching import cache_folder
from search.evaluation import made_up, meter
from search.evaluation.cost import deploy_form
from search.evaluation.host import host_name
from search.evaluation.made_up import SWITCH
from search.experiment import Experiment
from search.report.words import conditions
from search.store import read_study
from search.types import InputError, InputSize, Study

AT = InputSize(width=24, height=24)
NAME = "tests.search.made_up"
PRESET = Path(__file__).parents[3] / "results" / "reference" / "small" / "presets" / "fastest"


@pytest.fixture
def model():
    return deploy_form(HFIRConfig(width=4, encoder_blocks=(1,), bottleneck_blocks=0, decoder_blocks=(0,)))


@pytest.fixture
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return cache_folder("latency")


def test_a_made_up_latency_says_so_in_its_runtime_and_its_host_and_is_not_remembered(model, own_cache: Path):
    for remeasure in (True, False):
        figure = meter.remembered_latency(model, AT, 1, remeasure=remeasure)
        assert figure.runtime.endswith(", made up")
        assert figure.host.endswith(f", figures made up by {NAME}")
        assert (figure.at, figure.threads, figure.device) == ("24x24", 1, "cpu")
    assert not own_cache.exists()


def test_a_figure_that_is_measured_does_not_and_is_remembered(model, own_cache: Path, measured_figures: None):
    figure = meter.remembered_latency(model, AT, 1, remeasure=False)
    assert "made up" not in f"{figure.runtime} {figure.host} {host_name()}"
    assert meter.remembered_latency(model, AT, 1, remeasure=False) == figure
    assert own_cache.exists()


def test_figures_repeat_and_grow_with_the_network(model):
    wider = deploy_form(HFIRConfig(width=8, encoder_blocks=(1,), bottleneck_blocks=0, decoder_blocks=(0,)))
    small, again, large = (meter.measure_latency(m, AT, 1).median_ms for m in (model, model, wider))
    assert small == again < large
    assert meter.peak_memory_mib(model, AT) < meter.peak_memory_mib(wider, AT)


def test_each_process_that_makes_figures_up_warns_of_it(model, caplog: pytest.LogCaptureFixture):
    made_up._imported.cache_clear()
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            meter.peak_memory_mib(model, AT)
    [record] = caplog.records
    assert record.levelname == "WARNING"
    assert f"made up by {NAME}, not measured ({SWITCH} is set)" in record.getMessage()


def test_a_name_that_is_no_module_is_refused(model, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv(SWITCH, "nowhere.figures")
    with pytest.raises(InputError, match=r"nowhere\.figures: cannot be imported"):
        meter.measure_latency(model, AT, 1)


@pytest.mark.parametrize(("runtime", "device"), [("tensorrt", "cpu"), ("torch", "cuda:99")])
def test_a_runtime_or_a_device_that_is_not_there_is_refused_as_ever(runtime: str, device: str, model):
    with pytest.raises(InputError):
        meter.measure_latency(model, AT, 1, runtime=runtime, device=device)


def test_a_run_with_made_up_figures_shows_it(unbroken: Study):
    told = conditions(unbroken)
    assert f"made up by {NAME}" in told["Host"]
    assert ", made up" in told["Latency"]


def test_a_run_with_made_up_figures_does_not_go_on_with_measured_ones(
    tiny: Callable[..., Experiment],
    search_in: Callable[..., Study],
    copy_of: Callable[..., Study],
    measured_figures: None,
):
    before = copy_of("run")
    with pytest.raises(InputError, match="this machine is"):
        search_in(tiny(), "run")
    assert read_study(before.folder).trials == before.trials


def test_a_network_that_is_measured_by_command_says_so(call: Callable[..., Result]):
    shown = json.loads(call("measure", PRESET, "--at", "32x32", "--json").stdout)
    assert "made up" in shown["cost"]["latency"]["host"]
