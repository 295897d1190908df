"""The whole network: what holds for every configuration."""

import dataclasses
import json
import math
import statistics

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from jaxtyping import TypeCheckError
from torch import nn

from hfir import HFIRConfig, MoEConfig, NAFConfig, build_model
from hfir.blocks.gating import Gate
from hfir.blocks.image import BicubicBase, pad_to_multiple

numbers = st.integers(0, 10**6)
sides = st.sampled_from([1, 7, 16, 37, 64])


@given(numbers, sides, sides)
def test_any_size_is_enlarged_by_the_scale(drawn, built, image, number: int, h: int, w: int):
    config = drawn(number)
    with torch.no_grad():
        y = built(config)(image(1, 3, h, w))
    assert y.shape == (1, 3, h * config.upscale, w * config.upscale)
    assert y.isfinite().all()


@pytest.mark.parametrize("in_channels", [1, 3])
@pytest.mark.parametrize("upscale", [1, 2, 3, 4])
def test_every_scale_and_channel_count_keeps_its_promise(everything, built, image, upscale: int, in_channels: int):
    model = built(dataclasses.replace(everything, upscale=upscale, in_channels=in_channels))
    for h, w in [(1, 1), (1, 37), (7, 64), (16, 16), (37, 7), (64, 1)]:
        with torch.no_grad():
            assert model(image(2, in_channels, h, w)).shape == (2, in_channels, h * upscale, w * upscale)


@pytest.mark.parametrize("h", [1, 7, 16, 37, 64])
@pytest.mark.parametrize("w", [1, 7, 16, 37, 64])
def test_every_pair_of_sides_works_with_every_kind_of_block(everything, built, image, h: int, w: int):
    with torch.no_grad():
        assert built(everything)(image(1, 3, h, w)).shape == (1, 3, 2 * h, 2 * w)


def test_four_levels_take_a_single_pixel(built, image):
    config = HFIRConfig(width=4, encoder_blocks=(1,) * 4, decoder_blocks=(1,) * 4)
    with torch.no_grad():
        assert built(config)(image(1, 3, 1, 1)).shape == (1, 3, 2, 2)


@given(numbers)
def test_gates_stay_within_zero_and_one(drawn, built, image, number: int):
    model = built(drawn(number), number, stirred=0.1)
    seen: list[torch.Tensor] = []
    for module in model.modules():
        if isinstance(module, Gate):
            with torch.no_grad():
                module.conv.weight.mul_(100)
            module.register_forward_hook(lambda _module, _inputs, gate: seen.append(gate))
    with torch.no_grad():
        model(image(1, 3, 12, 20, seed=number))
    assert seen
    assert all(gate.min() >= 0 and gate.max() <= 1 for gate in seen)
    assert any(gate.min() < 0.01 for gate in seen)  # provoked
    assert any(gate.max() > 0.99 for gate in seen)


@given(numbers)
def test_evaluation_is_deterministic(drawn, built, image, number: int):
    model = built(drawn(number), number, stirred=0.05)
    x = image(1, 3, 18, 21, seed=number)
    with torch.no_grad():
        assert torch.equal(model(x), model(x))


def test_one_seed_gives_one_network(everything, built):
    one, two, other = (built(everything, seed).state_dict() for seed in (3, 3, 4))
    assert all(torch.equal(value, two[name]) for name, value in one.items())
    assert any(not torch.equal(value, other[name]) for name, value in one.items())


@given(numbers)
def test_a_batch_of_two_equals_two_batches_of_one(drawn, built, image, number: int):
    model = built(drawn(number), number)
    x = image(2, 3, 13, 22, seed=number)
    x[1] *= 0.3  # so that the two may go to different experts
    with torch.no_grad():
        together, choices = model.forward_with_routing(x)
        alone = [model.forward_with_routing(x[i : i + 1]) for i in (0, 1)]
    torch.testing.assert_close(together, torch.cat([y for y, _ in alone]), rtol=1e-5, atol=1e-5)
    for place, routing in enumerate(choices):
        assert routing.chosen.tolist() == [own[place].chosen[0].tolist() for _, own in alone]


@given(numbers)
def test_memory_format_does_not_change_the_image(drawn, built, image, number: int):
    model = built(drawn(number), number)
    x = image(2, 3, 16, 19, seed=number)
    with torch.no_grad():
        contiguous = model(x)
        model = model.to(memory_format=torch.channels_last)
        pixels_last = model(x.contiguous(memory_format=torch.channels_last))
    torch.testing.assert_close(pixels_last, contiguous, rtol=1e-5, atol=1e-5)


def psnr_db(one: torch.Tensor, other: torch.Tensor) -> float:
    return -10 * math.log10(float((one - other).square().mean()))


def enlarged(model: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """Return the image that a network adds to."""
    return BicubicBase(model.config.in_channels, model.config.upscale)(x)


def test_the_start_is_close_to_the_base(drawn, built, image):
    # The residual of an untrained head: 41 dB below the base in the median, 5 dB of standard deviation between
    # networks, so 1 dB on the median of 40; the bound leaves three of these.
    found = []
    for number in range(40):
        model, x = built(drawn(number), number), image(1, 3, 24, 24, seed=number)
        with torch.no_grad():
            found.append(psnr_db(model(x), enlarged(model, x)))
    assert statistics.median(found) > 38


@given(numbers)
def test_without_its_head_a_network_gives_the_base(drawn, built, image, number: int):
    model = built(drawn(number), number)
    x = image(1, 3, 13, 22, seed=number)
    with torch.no_grad():
        model.head.conv.weight.zero_()
        h, w = 13 * model.config.upscale, 22 * model.config.upscale
        base = enlarged(model, pad_to_multiple(x, model.config.multiple_of))[..., :h, :w]
        assert torch.equal(model(x), base)


def test_without_enlargement_the_base_is_the_input(built, image):
    model = built(HFIRConfig(upscale=1, width=8, encoder_blocks=(1, 1), decoder_blocks=(1, 1)))
    x = image(1, 3, 7, 9)
    with torch.no_grad():
        model.head.conv.weight.zero_()
        assert torch.equal(model(x), x)


def test_merge_starts_as_the_sum_of_the_bands(everything, built, image):
    merge = built(everything).merge
    low, high = image(1, 8, 5, 6, seed=1), image(1, 8, 5, 6, seed=2)
    with torch.no_grad():
        torch.testing.assert_close(merge(torch.cat([low, high], dim=1)), low + high, rtol=0, atol=1e-6)


def test_the_frequency_split_changes_nothing_at_the_start(everything, built, image):
    split = dataclasses.replace(everything, experts=None, refiner=None)  # both see the high band
    plain = dataclasses.replace(split, frequency_split=None)
    with_split, without = built(split), built(plain)
    with_split.load_state_dict(without.state_dict() | {"hfir_cfg": with_split.hfir_cfg}, strict=False)
    x = image(1, 3, 20, 23)
    with torch.no_grad():
        torch.testing.assert_close(with_split(x), without(x), rtol=0, atol=1e-5)


def test_what_is_off_is_not_there(built):
    model = built(HFIRConfig())
    for part in (model.split, model.merge, model.refiner, model.fusion):
        assert part is None
    assert not [name for name in model.state_dict() if "experts" in name or "attention" in name]


def test_the_parts_stand_where_the_configuration_puts_them(everything, built):
    model = built(everything)
    where = [name for name, module in model.named_modules() if type(module).__name__ == "WindowAttention"]
    # One block in enc2, two in mid, one in dec3 (decoder.stages.0): each followed by attention.
    assert where == [
        "encoder.stages.1.blocks.1.attention",
        "bottleneck.blocks.1.attention",
        "bottleneck.blocks.3.attention",
        "decoder.stages.0.blocks.1.attention",
    ]
    shifts = [model.get_submodule(name).shift for name in where]
    assert shifts == [0, 2, 0, 2]  # every other block is shifted by half a window of 4
    experts = [name for name, module in model.named_modules() if type(module).__name__ == "MoEX"]
    assert experts == ["encoder.stages.1.experts", "bottleneck.experts"]
    assert [block.mix[1].offset for block in model.refiner.blocks] == [0, 4]


def test_every_mixture_reports_its_decision(everything, built, image):
    with torch.no_grad():
        _, routings = built(everything).forward_with_routing(image(3, 3, 8, 8))
    assert [r.logits.shape for r in routings] == [(3, 4), (3, 4)]
    assert [r.chosen.shape for r in routings] == [(3, 2), (3, 2)]


def test_every_parameter_gets_a_gradient(everything, built, image):
    model = built(everything, stirred=0.02).train()
    model(image(2, 3, 12, 12)).square().sum().backward()
    idle = {name for name, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0}
    assert idle == set()


@given(numbers)
def test_the_state_dict_carries_the_configuration(drawn, built, number: int):
    config = drawn(number)
    held = built(config).state_dict()["hfir_cfg"]
    assert held.dtype == torch.uint8
    assert HFIRConfig.from_dict(json.loads(bytes(held.tolist()))) == config


def test_a_network_is_built_on_the_meta_device_without_memory(everything):
    with torch.device("meta"):
        model = build_model(everything)
        assert model(torch.zeros(1, 3, 37, 41)).shape == (1, 3, 74, 82)


# By hand, for width 4 and one level: the expansion of 2 gives 8 channels, of which the gate leaves 4.
#   stem        3x3, 1 -> 4                4*9 + 4                         =  40
#   norm        weight and bias            2*4                             =   8, twice
#   expand      1x1, 4 -> 8                8*4 + 8                         =  40, twice (mixing, feed-forward)
#   mix         3x3 depth-wise, 8          8*9 + 8                         =  80
#   SCA         1x1, 4 -> 4                4*4 + 4                         =  20
#   project     1x1, 4 -> 4                4*4 + 4                         =  20, twice
#   scales      beta, gamma                2*4                             =   8
#   skip gate   1x1, 8 -> 4                4*8 + 4                         =  36
#   conv gate   3x3 depth-wise, 4          4*9 + 4                         =  40
#   head        3x3, 4 -> 1*2*2            4*4*9 + 4                       = 148
#   together    40 + 16 + 80 + 80 + 20 + 40 + 8 + 36 + 40 + 148            = 508
TINY = HFIRConfig(
    upscale=2,
    in_channels=1,
    width=4,
    encoder_blocks=(1,),
    bottleneck_blocks=0,
    decoder_blocks=(0,),
    mixer=NAFConfig(),
    expansion=2.0,
)


def test_the_smallest_network_has_508_parameters(built):
    assert sum(p.numel() for p in built(TINY).parameters()) == 508


def test_an_expert_more_costs_what_one_expert_holds(built):
    # Width 4, expansion 2: 1x1 4 -> 8 (40), 3x3 depth-wise of 8 (80), 1x1 4 -> 4 (20), and one more output of the
    # router, which sees 4 means (4 + 1): 145 for each.
    def size(num_experts: int) -> int:
        config = dataclasses.replace(TINY, experts=MoEConfig(num_experts=num_experts))
        return sum(p.numel() for p in built(config).parameters())

    assert size(5) - size(4) == 145
    assert size(2) - 508 == 2 * 145 + 8 + 4  # the mixture's own norm and residual scale


def test_shapes_are_checked_while_testing(built, image):
    with pytest.raises(TypeCheckError):
        built(TINY)(image(1, 8, 8))


def test_the_output_is_not_clamped(built, image):
    model = built(TINY)
    with torch.no_grad():
        nn.init.constant_(model.head.conv.bias, 2.0)
        assert model(image(1, 1, 6, 6)).max() > 1
