"""Costs against hand-worked figures and against a second counter."""

import dataclasses
import math
import warnings
from collections import Counter

import jaxtyping
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hfir import (
    DFTRefinerConfig,
    FrequencySplitConfig,
    HFIRConfig,
    LargeKernelConfig,
    MoEConfig,
    WindowAttentionConfig,
    fuse,
)
from search.evaluation.cost import (
    MIB,
    count_macs_g,
    count_parameters,
    deploy_form,
    measured_image,
    peak_memory_mib,
)
from search.experiment import load_experiment
from search.types import InputSize

EFFICIENT = load_experiment("efficient")
SMALL = InputSize(width=48, height=32)
TINY_INPUT = InputSize(width=24, height=16)

PLAIN = HFIRConfig(width=8, encoder_blocks=(2,))
DEEP = HFIRConfig(width=8, encoder_blocks=(1, 1, 1), decoder_blocks=(1, 1, 1), mixer=LargeKernelConfig(), upscale=4)
CONFIGS = {
    "plain": PLAIN,
    "deep": DEEP,
    "nearest": dataclasses.replace(DEEP, upsampler="nearest", downsampler="unshuffle"),
    "attention": dataclasses.replace(DEEP, attention=WindowAttentionConfig(stages=("enc1", "enc2", "mid", "dec3"))),
    "experts": dataclasses.replace(PLAIN, experts=MoEConfig(stages=("enc1", "mid"), top_k=2)),
    "refiner": dataclasses.replace(PLAIN, frequency_split=FrequencySplitConfig(), refiner=DFTRefinerConfig(depth=2)),
    "everything": dataclasses.replace(
        DEEP,
        attention=WindowAttentionConfig(stages=("enc2", "mid")),
        experts=MoEConfig(stages=("enc2", "mid")),
        frequency_split=FrequencySplitConfig(),
        refiner=DFTRefinerConfig(),
    ),
}


def shape(value) -> list[int]:
    """Return the shape of a value of a traced graph."""
    return value.type().sizes()


def matmul_macs(inputs, outputs) -> Counter[str]:
    """Count a product [.. n k] x [.. k m], broadcast: fvcore's own handler forgets the broadcast axes."""
    return Counter({"matmul": math.prod(shape(outputs[0])) * shape(inputs[0])[-1]})


def baddbmm_macs(inputs, outputs) -> Counter[str]:
    return Counter({"baddbmm": math.prod(shape(outputs[0])) * shape(inputs[1])[-1]})


def attention_macs(inputs, outputs) -> Counter[str]:
    """Count the scores [n m] from k = d and the weighted sum of v: two products of n·m·d."""
    *batch, n, d = shape(inputs[0])
    m = shape(inputs[1])[-2]
    return Counter({"attention": 2 * math.prod(batch) * n * m * d})


def nothing(inputs, outputs) -> Counter[str]:
    """Count nothing; fvcore goes on counting what it knows where the handler is None."""
    return Counter()


def second_opinion(config: HFIRConfig, at: InputSize) -> float:
    """Count by fvcore, which traces a real forward pass, in MACs."""
    with warnings.catch_warnings():
        # torch 2.9 and later call torch.jit deprecated, on which fvcore 0.1.5 is built; the tracer warns of sizes
        # that become constants, which is what is wanted here.
        warnings.simplefilter("ignore")
        from fvcore.nn import FlopCountAnalysis

        count = FlopCountAnalysis(deploy_form(config), measured_image(config, at))
        count.unsupported_ops_warnings(False).uncalled_modules_warnings(False).tracer_warnings("none")
        count.set_op_handle("aten::scaled_dot_product_attention", attention_macs)
        count.set_op_handle("aten::matmul", matmul_macs, "aten::baddbmm", baddbmm_macs)
        for elementwise in ("aten::layer_norm", "aten::upsample_nearest2d"):
            count.set_op_handle(elementwise, nothing)
        return count.total()


@pytest.fixture
def unchecked():
    """No checks of shapes: in a trace, sizes are tensors."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("name", CONFIGS)
def test_two_counters_agree_within_two_percent(name: str):
    macs = count_macs_g(CONFIGS[name], SMALL) * 1e9
    assert macs == pytest.approx(second_opinion(CONFIGS[name], SMALL), rel=0.02)


# By hand, for a network of width 4 at 10 x 10 pixels; for each pixel:
#   stem 3x3, 1 -> 4: 36; block: expand 4*8 = 32, depth-wise 8*9 = 72, project 4*4 = 16, expand 32, project 16;
#   skip gate 8*4 = 32; conv gate 4*9 = 36; head 3x3, 4 -> 4: 144; base 5x5, 1 -> 4: 100; together 516.
# Once: the channel attention on the means, 4*4 = 16.
TINY = HFIRConfig(in_channels=1, width=4, bottleneck_blocks=0, decoder_blocks=(0,))


def test_the_smallest_network_takes_51616_macs():
    assert count_macs_g(TINY, InputSize(width=10, height=10)) * 1e9 == pytest.approx(516 * 100 + 16)


def test_an_input_size_is_width_first_and_an_image_height_first():
    image = measured_image(TINY, InputSize(width=20, height=10))
    assert image.shape == (1, 1, 10, 20)
    assert image.is_contiguous(memory_format=torch.channels_last)


def test_macs_grow_with_the_pixels():
    # All but the channel attention on the means (16 MACs) is done once a pixel.
    one, four = (count_macs_g(TINY, InputSize(width=w, height=w)) * 1e9 for w in (10, 20))
    assert four - 16 == pytest.approx(4 * (one - 16))


@pytest.mark.parametrize("top_k", [1, 2])
def test_experts_that_do_not_work_cost_no_macs_but_the_routers(top_k: int):
    few, many = (
        count_macs_g(dataclasses.replace(PLAIN, experts=MoEConfig(num_experts=n, top_k=top_k)), SMALL) for n in (2, 64)
    )
    # The router maps 8 channels to as many logits as there are experts: 62 more of them, 8 products each.
    assert (many - few) * 1e9 == pytest.approx(62 * 8)


def test_branches_of_training_cost_no_macs():
    rep, plain = (
        count_macs_g(dataclasses.replace(PLAIN, mixer=LargeKernelConfig(reparam=r)), SMALL) for r in (True, False)
    )
    assert rep == plain


@given(st.integers(0, 10**6))
def test_active_parameters_are_no_more_than_deployed_ones_and_these_no_more_than_trained_ones(number: int):
    config = EFFICIENT.decode(EFFICIENT.space.sample(number))
    counts = count_parameters(config)
    assert 0 < counts.active_m <= counts.deploy_m <= counts.train_m
    experts, mixer = config.experts, config.mixer
    assert (counts.active_m < counts.deploy_m) is (experts is not None and experts.top_k < experts.num_experts)
    assert (counts.deploy_m < counts.train_m) is (isinstance(mixer, LargeKernelConfig) and mixer.reparam)


def test_parameters_are_those_of_the_network_itself():
    config = CONFIGS["everything"]
    model = deploy_form(config)
    assert count_parameters(config).deploy_m == sum(p.numel() for p in model.parameters()) / 1e6
    assert count_parameters(TINY).deploy_m == 508e-6  # worked out in tests/hfir/test_model.py


def test_three_of_four_experts_are_idle():
    # Width 4: an expert holds 40 + 80 + 20 = 140 parameters; the router is always at work.
    counts = count_parameters(dataclasses.replace(TINY, experts=MoEConfig(num_experts=4, top_k=1)))
    assert counts.deploy_m - counts.active_m == pytest.approx(3 * 140e-6)


def test_a_fused_configuration_costs_what_its_training_form_costs_when_deployed():
    config = CONFIGS["everything"]
    fused = dataclasses.replace(config, fused=True)
    assert count_macs_g(fused, SMALL) == count_macs_g(config, SMALL)
    assert count_parameters(fused).deploy_m == count_parameters(config).deploy_m


def test_the_deploy_form_is_fused_still_and_repeatable():
    one, two = deploy_form(DEEP), deploy_form(DEEP)
    assert one.config.fused
    assert not one.training
    assert one.stem.weight.is_contiguous(memory_format=torch.channels_last)
    assert all(torch.equal(value, two.state_dict()[name]) for name, value in one.state_dict().items())
    assert fuse(one).state_dict().keys() == one.state_dict().keys()


@pytest.mark.parametrize("name", CONFIGS)
def test_peak_memory_is_the_same_every_time_and_holds_weights_input_and_output(name: str):
    config = CONFIGS[name]
    model = deploy_form(config)
    peak = peak_memory_mib(model, TINY_INPUT)
    assert peak_memory_mib(model, TINY_INPUT) == peak
    pixels = TINY_INPUT.width * TINY_INPUT.height * config.in_channels
    weights = sum(p.numel() for p in model.parameters())
    assert peak >= 4 * (weights + pixels + pixels * config.upscale**2) / MIB


@pytest.mark.parametrize("name", ["plain", "everything"])
def test_peak_memory_grows_with_the_image(name: str):
    model = deploy_form(CONFIGS[name])
    sizes = [InputSize(width=side, height=side) for side in (8, 24, 64)]
    peaks = [peak_memory_mib(model, at) for at in sizes]
    assert peaks == sorted(set(peaks))


def test_peak_memory_sees_the_widest_moment():
    # At 64 x 64 a block of width 8 holds, at its 3x3 convolution, at least its 16 channels before and after
    # the convolution and the 8 it adds to: 40 planes of 4096 pixels of 4 bytes, 0.625 MiB.
    assert peak_memory_mib(deploy_form(PLAIN), InputSize(width=64, height=64)) > 0.625
