"""Configurations: every rule of the network, and the way to disk and back."""

import dataclasses
import json
import subprocess
import sys
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hfir import (
    ConfigError,
    DFTRefinerConfig,
    FrequencySplitConfig,
    HFIRConfig,
    LargeKernelConfig,
    MoEConfig,
    WindowAttentionConfig,
    build_model,
)


@given(st.integers(0, 2**32))
def test_a_configuration_survives_the_way_to_json_and_back(drawn, number: int):
    config = drawn(number)
    assert HFIRConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config
    assert HFIRConfig.from_dict(json.loads(config.to_json_bytes())) == config


def test_every_field_is_written_and_read_back(everything):
    changed = dataclasses.replace(
        everything, in_channels=1, downsampler="unshuffle", upsampler="nearest", expansion=1.5, fused=True
    )
    assert set(changed.to_dict()) == {"schema", *(f.name for f in dataclasses.fields(HFIRConfig))}
    assert HFIRConfig.from_dict(changed.to_dict()) == changed


def test_missing_keys_take_their_defaults():
    assert HFIRConfig.from_dict({}) == HFIRConfig()


def test_equal_configurations_give_equal_bytes(everything):
    twin = HFIRConfig.from_dict(dict(reversed(everything.to_dict().items())))
    assert twin.to_json_bytes() == everything.to_json_bytes()


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ({"widht": 16}, ("widht", "'width'")),
        ({"upscal": 2}, ("upscal", "'upscale'")),
        ({"mixer": {"kind": "large_kernel", "kernelsize": 7}}, ("mixer.kernelsize", "'kernel_size'")),
        ({"experts": {"topk": 1}}, ("experts.topk", "'top_k'")),
        (
            {"attention": {"kind": "window", "zzz": 1}},
            ("attention.zzz", "window_size, num_heads, overlap, num_tokens, stages"),
        ),
        ({"mixer": {"kind": "nafnet"}}, ("mixer.kind", "'nafnet'", "naf, large_kernel")),
        ({"refiner": {"depth": 1}}, ("refiner.kind", "None", "dft")),
    ],
)
def test_an_unknown_key_or_kind_names_what_was_meant(data: dict[str, Any], said: tuple[str, ...]):
    with pytest.raises(ConfigError) as caught:
        HFIRConfig.from_dict(data)
    for words in said:
        assert words in str(caught.value)


@pytest.mark.parametrize("schema", [2, 99])
def test_a_newer_schema_is_refused_with_what_to_install(schema: int):
    with pytest.raises(ConfigError, match=rf"schema = {schema}: .*reads schema 1\. Install"):
        HFIRConfig.from_dict({"schema": schema})


SPLIT = FrequencySplitConfig()


def window(**values: Any) -> WindowAttentionConfig:
    return WindowAttentionConfig(**values)


@pytest.mark.parametrize(
    ("make", "value", "remedy"),
    [
        (lambda: HFIRConfig(upscale=5), "upscale = 5", "1, 2, 3, 4"),
        (lambda: HFIRConfig(upscale=0), "upscale = 0", "1, 2, 3, 4"),
        (lambda: HFIRConfig(in_channels=2), "in_channels = 2", "1, 3, 4"),
        (lambda: HFIRConfig(downsampler="max"), "downsampler = 'max'", "strided, unshuffle"),
        (lambda: HFIRConfig(upsampler="deconv"), "upsampler = 'deconv'", "pixelshuffle, nearest"),
        (lambda: HFIRConfig(width=2), "width = 2", "even number in 4..256"),
        (lambda: HFIRConfig(width=15), "width = 15", "even number in 4..256"),
        (lambda: HFIRConfig(width=258), "width = 258", "even number in 4..256"),
        (lambda: HFIRConfig(expansion=0.5), "expansion = 0.5", "Use 2"),
        (lambda: HFIRConfig(expansion=4.5), "expansion = 4.5", "Use 2"),
        (lambda: HFIRConfig(encoder_blocks=()), "encoder_blocks = []", "lengths equal"),
        (lambda: HFIRConfig(encoder_blocks=(1, 1)), "encoder_blocks = [1, 1]", "lengths equal"),
        (
            lambda: HFIRConfig(encoder_blocks=(1,) * 5, decoder_blocks=(1,) * 5),
            "encoder_blocks = [1, 1, 1, 1, 1]",
            "1 to 4",
        ),
        (lambda: HFIRConfig(encoder_blocks=(0,)), "encoder_blocks = [0]", "Raise"),
        (lambda: HFIRConfig(decoder_blocks=(-1,)), "decoder_blocks = [-1]", "Raise"),
        (lambda: HFIRConfig(bottleneck_blocks=-1), "bottleneck_blocks = -1", "Raise"),
        (lambda: LargeKernelConfig(kernel_size=4), "mixer.kernel_size = 4", "3, 5, 7, 9, 11 or 13"),
        (lambda: LargeKernelConfig(kernel_size=1), "mixer.kernel_size = 1", "3, 5, 7, 9, 11 or 13"),
        (lambda: LargeKernelConfig(kernel_size=15), "mixer.kernel_size = 15", "3, 5, 7, 9, 11 or 13"),
        (lambda: window(window_size=7), "attention.window_size = 7", "4, 8, 12 or 16"),
        (lambda: window(num_heads=0), "attention.num_heads = 0", "Use 1"),
        (
            lambda: HFIRConfig(width=16, attention=window(num_heads=3)),
            "attention.num_heads = 3 does not divide the 16 channels of stage mid",
            "1, 2, 4, 8, 16",
        ),
        (
            lambda: HFIRConfig(attention=window(stages=("enc2",))),
            "attention.stages = ['enc2']",
            "enc1, mid, dec1",
        ),
        (lambda: HFIRConfig(attention=window(stages=())), "attention.stages = []", "one or more"),
        (lambda: HFIRConfig(experts=MoEConfig(stages=("dec2",))), "experts.stages = ['dec2']", "enc1, mid"),
        (
            lambda: HFIRConfig(experts=MoEConfig(stages=("mid", "mid"))),
            "experts.stages = ['mid', 'mid']",
            "each once",
        ),
        (lambda: MoEConfig(num_experts=1), "experts.num_experts = 1", "experts: None"),
        (lambda: MoEConfig(top_k=3), "experts.top_k = 3", "1 or 2"),
        (lambda: MoEConfig(top_k=0), "experts.top_k = 0", "1 or 2"),
        (lambda: FrequencySplitConfig(kernel_size=4), "frequency_split.kernel_size = 4", "3, 5 or 7"),
        (lambda: FrequencySplitConfig(kernel_size=9), "frequency_split.kernel_size = 9", "3, 5 or 7"),
        (lambda: DFTRefinerConfig(depth=0), "refiner.depth = 0", "1 to 8"),
        (lambda: DFTRefinerConfig(depth=9), "refiner.depth = 9", "1 to 8"),
        (
            lambda: HFIRConfig(refiner=DFTRefinerConfig()),
            "refiner = dft without frequency_split",
            "Switch the frequency split on",
        ),
    ],
)
def test_a_broken_rule_names_the_value_and_the_remedy(make, value: str, remedy: str):
    with pytest.raises(ConfigError) as caught:
        make()
    assert value in str(caught.value)
    assert remedy in str(caught.value)
    assert isinstance(caught.value, ValueError)


@pytest.mark.parametrize(
    "config",
    [
        HFIRConfig(width=4),
        HFIRConfig(width=256),
        HFIRConfig(expansion=1.0),
        HFIRConfig(expansion=4.0),
        HFIRConfig(encoder_blocks=(1,) * 4, decoder_blocks=(0,) * 4, bottleneck_blocks=0),
        HFIRConfig(mixer=LargeKernelConfig(kernel_size=13)),
        HFIRConfig(frequency_split=SPLIT, refiner=DFTRefinerConfig(depth=8)),
        HFIRConfig(experts=MoEConfig(num_experts=2, top_k=2)),
    ],
    ids=range(8),
)
def test_the_last_legal_values_build(config: HFIRConfig):
    with torch.device("meta"):
        build_model(config)


@pytest.mark.parametrize(
    "part",
    [
        HFIRConfig(),
        LargeKernelConfig(),
        WindowAttentionConfig(),
        MoEConfig(),
        FrequencySplitConfig(),
        DFTRefinerConfig(),
    ],
    ids=lambda part: type(part).__name__,
)
def test_a_configuration_cannot_be_changed(part: Any):
    first = dataclasses.fields(part)[0].name
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(part, first, getattr(part, first))
    assert hash(part) == hash(dataclasses.replace(part))


def test_three_levels_have_seven_stages_and_double_the_channels_twice():
    config = HFIRConfig(width=12, encoder_blocks=(1, 1, 1), decoder_blocks=(1, 1, 1))
    assert config.levels == 3
    assert config.multiple_of == 4  # two downs
    assert config.stages == ("enc1", "enc2", "enc3", "mid", "dec3", "dec2", "dec1")
    assert [config.channels_at(stage) for stage in config.stages] == [12, 24, 48, 48, 48, 24, 12]


def test_each_stage_knows_its_blocks():
    config = HFIRConfig(encoder_blocks=(1, 2, 3), bottleneck_blocks=0, decoder_blocks=(6, 5, 4))
    assert {stage: config.blocks_at(stage) for stage in config.stages} == {
        **{"enc1": 1, "enc2": 2, "enc3": 3},
        "mid": 0,
        **{"dec3": 6, "dec2": 5, "dec1": 4},
    }


def test_one_level_pads_nothing():
    assert (HFIRConfig().levels, HFIRConfig().multiple_of) == (1, 1)
    assert HFIRConfig().stages == ("enc1", "mid", "dec1")


OTHER_TYPES = {
    "width = '16'": {"width": "16"},
    "width = 16.0": {"width": 16.0},
    "upscale = True": {"upscale": True},
    "encoder_blocks = 3": {"encoder_blocks": 3},
    "encoder_blocks = (1.5,)": {"encoder_blocks": [1.5]},
    "residual_scale = nan": {"residual_scale": float("nan")},
    "mixer = 'naf'": {"mixer": "naf"},
    "mixer = None": {"mixer": None},
    "mixer.kernel_size = '7'": {"mixer": {"kind": "large_kernel", "kernel_size": "7"}},
    "experts.stages = 'mid'": {"experts": {"stages": "mid"}},
}

TELL = """
import sys
from hfir import ConfigError, HFIRConfig
nan = float("nan")
for changes in eval(sys.argv[1]):
    try:
        HFIRConfig.from_dict(HFIRConfig().to_dict() | changes)
    except ConfigError as error:
        print(error)
"""


def test_a_value_of_another_type_is_refused_with_what_it_is():
    # In a process of its own: here the checker of shapes would be faster than the configuration.
    command = [sys.executable, "-c", TELL, repr(list(OTHER_TYPES.values()))]
    told = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    assert len(told) == len(OTHER_TYPES)
    for words, line in zip(OTHER_TYPES, told, strict=True):
        assert line.startswith(f"{words}: a value of type ")
        assert line.endswith("is expected. Write one of that type.")
