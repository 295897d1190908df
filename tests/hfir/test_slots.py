"""Conformance: whatever stands in a slot does what the slot asks, and a network can be built with it."""

import dataclasses

import pytest
import torch

from hfir import FrequencySplitConfig, HFIRConfig
from hfir.config import _KINDS
from hfir.slots import ALL, ATTENTIONS, DETAIL_MIXERS, DOWNSAMPLERS, MIXERS, SKIPS, UPSAMPLERS

BASE = HFIRConfig(width=8, encoder_blocks=(1, 1), decoder_blocks=(1, 1), frequency_split=FrequencySplitConfig())


def with_part(slot: str, name: str) -> HFIRConfig:
    """Return a network of two levels with that part, at its defaults."""
    kinds = _KINDS.get(slot)
    return dataclasses.replace(BASE, **{slot: name if kinds is None else kinds[name]()})


@pytest.mark.parametrize(("slot", "name"), [(slot, name) for slot, parts in ALL.items() for name in parts])
def test_every_part_builds_runs_and_travels(built, image, slot: str, name: str):
    config = with_part(slot, name)
    assert HFIRConfig.from_dict(config.to_dict()) == config
    y = built(config)(image(1, 3, 9, 14))
    assert y.shape == (1, 3, 18, 28)
    y.sum().backward()


@pytest.mark.parametrize("slot", ALL)
def test_every_kind_that_a_configuration_names_has_its_slot(slot: str):
    if slot in _KINDS:
        assert set(ALL[slot]) == set(_KINDS[slot])


def test_every_slot_is_listed():
    assert set(map(id, ALL.values())) == set(
        map(id, (MIXERS, ATTENTIONS, DOWNSAMPLERS, UPSAMPLERS, SKIPS, DETAIL_MIXERS))
    )


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("name", MIXERS)
def test_a_mixer_keeps_the_shape(image, name: str, fused: bool):
    mixer = _KINDS["mixer"][name]()
    block = MIXERS[name](6, dataclasses.replace(BASE, mixer=mixer, fused=fused), mixer)
    assert block(image(2, 6, 5, 9)).shape == (2, 6, 5, 9)


@pytest.mark.parametrize("shifted", [False, True])
@pytest.mark.parametrize("name", ATTENTIONS)
def test_attention_keeps_the_shape(image, name: str, shifted: bool):
    attention = ATTENTIONS[name](6, _KINDS["attention"][name](num_heads=2), shifted=shifted)
    assert attention(image(2, 6, 5, 9)).shape == (2, 6, 5, 9)


@pytest.mark.parametrize("name", DOWNSAMPLERS)
def test_a_downsampler_halves_the_side(image, name: str):
    assert DOWNSAMPLERS[name](6, 10)(image(2, 6, 8, 14)).shape == (2, 10, 4, 7)


@pytest.mark.parametrize("name", UPSAMPLERS)
def test_an_upsampler_doubles_the_side(image, name: str):
    assert UPSAMPLERS[name](6, 10)(image(2, 6, 3, 5)).shape == (2, 10, 6, 10)


@pytest.mark.parametrize("name", SKIPS)
def test_a_skip_joins_two_into_one_and_starts_near_their_sum(image, name: str):
    x, side = image(2, 6, 3, 5), image(2, 6, 3, 5, seed=1)
    joined = SKIPS[name](6)(x, side)
    share = 0.8808 if name == "gated" else 1.0
    torch.testing.assert_close(joined, x + share * side, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("index", [0, 1])
@pytest.mark.parametrize("name", DETAIL_MIXERS)
def test_a_detail_mixer_keeps_the_shape(image, name: str, index: int):
    assert DETAIL_MIXERS[name](6, index)(image(2, 6, 5, 9)).shape == (2, 6, 5, 9)
