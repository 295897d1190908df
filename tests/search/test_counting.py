"""The counter against torch's own, against arithmetic by hand, and against what it has never heard of."""

from __future__ import annotations

import dataclasses
import math
from functools import cache
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from hfir import ConfigError, DFTRefinerConfig, FrequencySplitConfig, HFIRConfig, MoEConfig
from hfir.blocks.attention import WindowAttention
from hfir.blocks.deformable import DeformableMix
from hfir.blocks.frequency import PatchDFT
from hfir.blocks.moe import Flow, MoEX
from search.evaluation import cost, counting
from search.evaluation.cost import (
    WRITTEN_OUT,
    count_afresh,
    count_network,
    count_parameters,
    deploy_form,
    measured_image,
    shell,
    static_counts,
)
from search.evaluation.counting import count
from search.experiment import load_experiment
from search.types import EvaluationError, InputSize

WIDE = load_experiment(Path(__file__).parents[1] / "assets" / "wide.yaml")
AT = InputSize(width=70, height=45)
TORCHS = ("convolution", "matrix product", "attention")
"""The kinds that torch's counter counts."""


@cache
def drawn(number: int) -> list[HFIRConfig]:
    """Return so many legal networks of the widest space."""
    found: list[HFIRConfig] = []
    for seed in range(10 * number):
        try:
            found.append(WIDE.decode(WIDE.space.sample(seed)))
        except ConfigError:
            continue
        if len(found) == number:
            break
    return found


@pytest.mark.parametrize("part", [range(12), pytest.param(range(12, 100), marks=pytest.mark.slow)])
def test_torchs_counter_agrees_on_networks_of_the_widest_space(part: range):
    for config in drawn(part.stop)[part.start :]:
        model = shell(dataclasses.replace(config, fused=True))
        image = torch.empty(1, config.in_channels, AT.height, AT.width, device="meta")
        with torch.no_grad(), FlopCounterMode(display=False) as outside:
            model(image)
        kinds = count_network(config, AT).kinds
        assert sum(kinds.get(kind, 0) for kind in TORCHS) == pytest.approx(outside.get_total_flops() / 2, rel=0.02)


def test_a_pass_that_is_run_counts_like_one_on_the_meta_device():
    for config in drawn(6):
        run = count(deploy_form(config), measured_image(config, AT), written_out=WRITTEN_OUT)
        still = count_network(config, AT)
        assert (run.macs, run.activations) == (still.macs, still.activations)


def test_a_shell_has_the_parameters_of_a_network_that_is_built():
    for config in drawn(6):
        assert count_parameters(config).deploy_m == sum(p.numel() for p in deploy_form(config).parameters()) / 1e6


# -- by hand -------------------------------------------------------------------------------------------


def macs_of(model: nn.Module, *inputs: torch.Tensor) -> int:
    return count(model.eval(), *inputs, written_out=WRITTEN_OUT).macs


def test_a_convolution_by_hand():
    # Each of 8·10·10 output values sums over 3 channels · 9 taps: 800 · 27.
    counted = count(nn.Conv2d(3, 8, 3, padding=1), torch.zeros(1, 3, 10, 10))
    assert (counted.macs, counted.activations) == (21600, 800)


def test_a_strided_and_a_transposed_convolution_by_hand():
    # Stride 2, no padding, 10 -> 5: 8·5·5 values, 3 channels · 4 taps each.
    assert macs_of(nn.Conv2d(3, 8, 2, stride=2), torch.zeros(1, 3, 10, 10)) == 200 * 12
    # Transposed, each of 3·5·5 input values goes to 8 channels · 4 taps.
    assert macs_of(nn.ConvTranspose2d(3, 8, 2, stride=2), torch.zeros(1, 3, 5, 5)) == 75 * 32


def test_a_depth_wise_convolution_by_hand():
    # 8 channels of 10·10 values, 25 taps each, no other channel: 800 · 25.
    assert macs_of(nn.Conv2d(8, 8, 5, padding=2, groups=8), torch.zeros(1, 8, 10, 10)) == 20000


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_window_attention_by_hand(device: str):
    # 16x16 pixels, 8 channels, windows of 8, not shifted, nothing to pad. qkv 8 -> 24 and projection 8 -> 8 at each of
    # 256 pixels: 256·(192 + 64) = 65536. 4 windows of 64 queries and 64 keys: scores and sum, all heads together,
    # 4·64·64·8 each: 2·131072 = 262144.
    attention = WindowAttention(8, 8, 2, shifted=False).to(device)
    assert macs_of(attention, torch.zeros(1, 8, 16, 16, device=device)) == 65536 + 262144


def test_a_dft_of_patches_by_hand():
    # 16x16 pixels, 4 channels; there and back, along rows and along columns: 4 products of each of 1024 values with
    # 8 numbers.
    assert macs_of(PatchDFT(4), torch.zeros(1, 4, 16, 16)) == 4 * 1024 * 8


def test_a_fast_fourier_transform_by_hand():
    class Transform(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.fft.irfft2(torch.fft.rfft2(x))

    # Two real transforms of 4 planes of 8·8: each 2.5 · 64·log2(64) / 2 = 480 a plane.
    assert macs_of(Transform(), torch.zeros(1, 4, 8, 8)) == 2 * 4 * 480


@pytest.mark.parametrize(("mode", "taps"), [("bilinear", 4), ("bicubic", 16), ("nearest", 0)])
def test_samples_at_free_places_by_hand(mode: str, taps: int):
    class Sample(nn.Module):
        def forward(self, x: torch.Tensor, grid: torch.Tensor) -> torch.Tensor:
            return F.grid_sample(x, grid, mode=mode, align_corners=False)

    # 5 channels at 6·7 places.
    assert macs_of(Sample(), torch.zeros(1, 5, 9, 9), torch.zeros(1, 6, 7, 2)) == taps * 210


@pytest.mark.parametrize(("mode", "taps"), [("bilinear", 4), ("bicubic", 16), ("nearest", 0)])
def test_an_interpolation_by_hand(mode: str, taps: int):
    # 3 channels of 8·8 values become 16·16.
    assert macs_of(nn.Upsample(scale_factor=2, mode=mode), torch.zeros(1, 3, 8, 8)) == taps * 768


def test_a_deformable_mix_by_hand():
    # 10x10 pixels, 4 channels. Look 3x3 depth-wise: 400·9 = 3600. Moves 4 -> 18 and gates 4 -> 9: 100·4·27 = 10800.
    # Nine samples of each of 400 values, 4 taps each: 14400. Their weighted sum: 3600.
    assert macs_of(DeformableMix(4), torch.zeros(1, 4, 10, 10)) == 3600 + 10800 + 14400 + 3600


@pytest.mark.parametrize("top_k", [1, 2])
@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_a_mixture_by_hand(top_k: int, device: str):
    # 8 channels, 4x4 pixels, expanded to 16. An expert: 16 pixels · (8·16 + 16·9 + 8·8) = 16·336 = 5376.
    # The router: 8 numbers to 4 experts, 32.
    mixture = MoEX(8, MoEConfig(num_experts=4, top_k=top_k), expansion=2.0, cue_channels=0, scale=0.1).to(device).eval()
    x = torch.zeros(1, 8, 4, 4, device=device)
    assert count(mixture, x, Flow(), written_out=WRITTEN_OUT).macs == top_k * 5376 + 32


@pytest.mark.parametrize(("routing", "decisions"), [("image", 2), ("window", 2 * 2 * 3)])
def test_each_window_that_is_begun_is_routed(routing: str, decisions: int):
    # Two images of 33x17 pixels lie in 3x2 windows of 16 pixels each. A decision: 8 numbers to 4 experts, 32.
    mixture = MoEX(8, MoEConfig(routing=routing), expansion=2.0, cue_channels=0, scale=0.1)
    assert cost._router_macs(mixture, (torch.zeros(2, 8, 17, 33),)) == decisions * 32


def test_attention_with_wider_values_by_hand():
    # 3 queries and 5 keys of 4 numbers, values of 6: 3·5·4 for the scores and 3·5·6 for the sum.
    q, k, v = torch.zeros(1, 1, 3, 4), torch.zeros(1, 1, 5, 4), torch.zeros(1, 1, 5, 6)
    assert counting._attention((q, k, v), None).macs == 60 + 90


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_fused_attention_counts_like_attention_written_out(device: str):
    class Fused(nn.Module):
        def forward(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
            return F.scaled_dot_product_attention(q, k, v)

    class Written(nn.Module):
        def forward(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
            return torch.softmax(q @ k.transpose(-1, -2), dim=-1) @ v

    q = torch.zeros(2, 3, 20, 8, device=device)
    k, v = (torch.zeros(2, 3, 30, 8, device=device) for _ in range(2))
    fused, written = (count(model, q, k, v) for model in (Fused(), Written()))
    assert (fused.macs, fused.activations) == (written.macs, written.activations) == (6 * 20 * 30 * 16, 6 * 20 * 38)


# -- modules -------------------------------------------------------------------------------------------


def test_modules_add_up_to_the_network():
    config = HFIRConfig(
        width=8,
        encoder_blocks=(1, 1),
        decoder_blocks=(1, 0),
        experts=MoEConfig(stages=("mid",)),
        frequency_split=FrequencySplitConfig(),
        refiner=DFTRefinerConfig(),
    )
    counted = count_network(config, AT)
    whole, *parts = counted.modules
    top = [part for part in parts if "." not in part.path]
    assert (whole.path, whole.macs, whole.activations) == ("", counted.macs, counted.activations)
    assert sum(part.macs for part in top) == whole.macs
    assert sum(part.params for part in top) == whole.params == sum(p.numel() for p in deploy_form(config).parameters())
    assert [part.path for part in parts] == [path for path, _ in shell(config).named_modules() if path]


def test_a_module_within_another_is_counted_in_both():
    model = nn.Sequential(nn.Sequential(nn.Conv2d(1, 1, 1), nn.ReLU()), nn.Conv2d(1, 2, 1))
    by_path = {m.path: m.macs for m in count(model, torch.zeros(1, 1, 4, 4), by_module=True).modules}
    assert by_path == {"": 48, "0": 16, "0.0": 16, "0.1": 0, "1": 32}


# -- nothing in silence --------------------------------------------------------------------------------


def test_an_operation_that_nobody_has_a_formula_for_is_an_error_that_names_it():
    class Odd(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.cdist(x, x)

    with pytest.raises(EvaluationError, match=r"aten\.\w+dist.*neither counted nor known"):
        count(Odd(), torch.rand(1, 30, 4))


def test_what_a_count_needs_is_put_back_after_an_error():
    class Odd(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.cdist(x, x)

    model = nn.Sequential(Odd())
    with pytest.raises(EvaluationError):
        count(model, torch.rand(1, 30, 4), by_module=True)
    assert not model[0]._forward_hooks
    assert not model[0]._forward_pre_hooks


def test_what_was_counted_is_remembered_and_equals_a_fresh_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    cost._remembered.cache_clear()
    for config in drawn(5):
        first = static_counts(config, AT)
        cost._remembered.cache_clear()  # as another process would find it
        monkeypatch.setattr(cost, "count_afresh", None)
        assert static_counts(config, AT) == first
        monkeypatch.undo()
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
        assert first == count_afresh(config, AT)
    assert len(list((tmp_path / "hfir-search" / "counts").iterdir())) == 5


def test_the_size_and_the_configuration_are_part_of_what_is_remembered(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    small, large = (HFIRConfig(width=width, encoder_blocks=(1,)) for width in (4, 8))
    figures = [
        static_counts(config, size).macs_g for config in (small, large) for size in (AT, InputSize(width=8, height=8))
    ]
    assert len(set(figures)) == 4
    assert all(math.isfinite(figure) for figure in figures)
