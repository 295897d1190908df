"""A CUDA device is visible but cannot be used, as in exclusive mode: work on the CPU does not notice."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

from hfir import HFIRConfig, build_model, fuse
from hfir.devices import cuda_untouched
from hfir.export import export_model
from search.evaluation.cost import deploy_form, peak_memory_mib
from search.evaluation.latency import measure_latency
from search.evaluation.proxy import drawing_from
from search.evaluation.zero_cost import synflow
from search.types import InputSize

ROOT = Path(__file__).parents[2]
TINY = HFIRConfig(width=8, encoder_blocks=(1,))
AT = InputSize(width=16, height=16)


def refuse() -> None:
    raise RuntimeError("all CUDA-capable devices are busy or unavailable")


@pytest.fixture(autouse=True)
def unusable_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "_lazy_init", refuse)
    monkeypatch.setattr(torch.cuda.random, "_lazy_init", refuse)


def test_a_network_is_built_fused_scored_and_measured_on_the_cpu():
    assert fuse(build_model(TINY)).config.fused
    model = deploy_form(TINY)
    assert peak_memory_mib(model, AT) > 0
    assert measure_latency(model, AT, threads=1, limit_s=0.01).device == "cpu"
    assert synflow(TINY, seed=0, batch=None) != 0
    with drawing_from(1, torch.device("cpu")):
        assert torch.rand(1).item() == torch.rand(1, generator=torch.Generator().manual_seed(1)).item()


@pytest.mark.slow
def test_a_network_is_exported_to_onnx_on_the_cpu(tmp_path: Path):
    assert export_model(build_model(TINY), tmp_path, format="onnx", name="x").path.is_file()


def test_the_random_state_of_cuda_is_saved_again_afterwards():
    functions = torch.cuda.get_rng_state, torch.cuda.set_rng_state
    with cuda_untouched():
        torch.cuda.set_rng_state(torch.cuda.get_rng_state())
    assert (torch.cuda.get_rng_state, torch.cuda.set_rng_state) == functions
    with pytest.raises(RuntimeError, match="busy or unavailable"):
        torch.cuda.get_rng_state()


def test_a_device_in_use_keeps_its_random_state(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    function = torch.cuda.get_rng_state
    with cuda_untouched():
        assert torch.cuda.get_rng_state is function


def test_every_copy_of_the_random_state_names_its_devices():
    sources = [path for folder in ("hfir", "search") for path in (ROOT / folder).rglob("*.py")]
    unnamed = [path for path in sources if re.search(r"fork_rng\((?!devices=)", path.read_text(encoding="utf-8"))]
    assert len(sources) > 100
    assert unnamed == []
