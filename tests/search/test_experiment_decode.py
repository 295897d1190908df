"""From a point of the space to a network's configuration: what counts where, and what switched-off parts become."""

import json
from functools import cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hfir import ConfigError
from hfir.config import (
    ChannelAttentionConfig,
    DeformableRefinerConfig,
    DFTRefinerConfig,
    FrequencySplitConfig,
    HFIRConfig,
    LargeKernelConfig,
    MoEConfig,
    NAFConfig,
    WindowAttentionConfig,
)
from search.experiment import available_spaces, load_experiment
from search.experiment.decode import stages_of

points = st.tuples(st.sampled_from(available_spaces()), st.integers(0, 2**63))
shipped = cache(load_experiment)


def experiment_with(tmp_path, *space):
    path = tmp_path / "x.yaml"
    path.write_text("\n  ".join(["name: x\ntask: {kind: super_resolution, upscale: 3, channels: 1}\nspace:", *space]))
    return load_experiment(path)


def the_network(tmp_path, *space):
    experiment = experiment_with(tmp_path, *space)
    assert experiment.space.size == 1
    return experiment.decode(experiment.space.sample(0))


def networks(experiment):
    return [(point.values, experiment.decode(point)) for point in experiment.space.enumerate()]


@given(points)
@settings(max_examples=200, deadline=None)
def test_a_network_survives_the_way_through_json(point):
    name, seed = point
    config = shipped(name).decode(shipped(name).space.sample(seed))
    assert HFIRConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


@given(points)
@settings(max_examples=200, deadline=None)
def test_a_dimension_is_there_exactly_where_it_counts(point):
    name, seed = point
    values = shipped(name).space.sample(seed).values
    levels, named = values["levels"], {p.name for p in shipped(name).space.parameters}
    counts = {
        "kernel_size": values["mixer"] == "large_kernel",
        "reparam": values["mixer"] == "large_kernel",
        "channel_attention": values["mixer"] != "dense",
        "expansion": values["mixer"] != "dense",
        "window_size": values.get("attention") == "window",
        "window_overlap": values.get("attention") == "window",
        "global_tokens": values.get("attention") == "window",
        "num_heads": values.get("attention") in ("window", "channel"),
        "attention_stages": values.get("attention") in ("window", "channel"),
        "top_k": values["num_experts"] > 1,
        "expert_routing": values["num_experts"] > 1,
        "expert_stages": values["num_experts"] > 1,
        "downsampler": levels > 1,
        "upsampler": levels > 1,
        "refiner": values["frequency_split"] is True,
        "split_kernel_size": values["frequency_split"] is True,
        "refiner_depth": values.get("refiner") in ("dft", "deformable"),
        "refiner_noise": values.get("refiner") in ("dft", "deformable"),
        **{f"encoder_blocks.{n}": n <= levels for n in (1, 2, 3)},
        **{f"decoder_blocks.{n}": n <= levels for n in (1, 2, 3)},
    }
    assert {n for n in counts if n in values} == {n for n, there in counts.items() if there and n in named}


@given(points)
@settings(max_examples=200, deadline=None)
def test_a_network_has_what_its_point_says(point):
    name, seed = point
    experiment = shipped(name)
    values = experiment.space.sample(seed).values
    config = experiment.decode(experiment.space.sample(seed))
    levels = range(1, values["levels"] + 1)
    assert (config.width, config.levels) == (values["width"], values["levels"])
    assert config.expansion == values.get("expansion", 2.0)
    assert config.encoder_blocks == tuple(values[f"encoder_blocks.{n}"] for n in levels)
    assert config.decoder_blocks == tuple(values[f"decoder_blocks.{n}"] for n in reversed(levels))
    assert config.mixer.kind == values["mixer"]
    places = stages_of(values.get("attention_stages", "none"), config.levels)
    attends = any(place in config.stages and config.blocks_at(place) > 0 for place in places)
    assert (config.attention is not None) == (values.get("attention", "none") != "none" and attends)
    assert (config.experts is None) == (values["num_experts"] == 1)
    assert (config.frequency_split is None) == (not values["frequency_split"])
    assert (config.refiner is None) == (values.get("refiner", "none") == "none")
    assert config.fused is False


def test_a_space_that_names_nothing_is_the_default_network(tmp_path):
    config = the_network(tmp_path, "width: 16")
    assert config == HFIRConfig(
        upscale=3,
        in_channels=1,
        width=16,
        encoder_blocks=(2,),
        bottleneck_blocks=1,
        decoder_blocks=(1,),
        mixer=NAFConfig(),
        expansion=2.0,
    )


def test_every_part_can_be_written_down(tmp_path):
    config = the_network(
        tmp_path,
        "width: 32",
        "levels: 3",
        "encoder_blocks: {1: 1, 2: 2, 3: 3}",
        "bottleneck_blocks: 4",
        "decoder_blocks: {1: 5, 2: 6, 3: 7}",
        "mixer: large_kernel",
        "kernel_size: 9",
        "reparam: false",
        "channel_attention: false",
        "expansion: 1.5",
        "attention: window",
        "window_size: 12",
        "window_overlap: 0.5",
        "global_tokens: 4",
        "num_heads: 4",
        "attention_stages: enc2+deepest",
        "num_experts: 4",
        "top_k: 2",
        "expert_routing: window",
        "expert_condition: false",
        "expert_temperature: 2.0",
        "expert_noise: 0.5",
        "expert_stages: dec1+refiner",
        "downsampler: unshuffle",
        "upsampler: dysample",
        "skip: concat",
        "frequency_split: true",
        "split_kernel_size: 7",
        "refiner: deformable",
        "refiner_depth: 2",
        "refiner_noise: true",
    )
    assert config == HFIRConfig(
        upscale=3,
        in_channels=1,
        width=32,
        encoder_blocks=(1, 2, 3),
        bottleneck_blocks=4,
        decoder_blocks=(7, 6, 5),
        mixer=LargeKernelConfig(kernel_size=9, reparam=False),
        expansion=1.5,
        channel_attention=False,
        attention=WindowAttentionConfig(
            window_size=12, num_heads=4, overlap=0.5, num_tokens=4, stages=("enc2", "enc3", "mid", "dec3")
        ),
        experts=MoEConfig(
            num_experts=4, top_k=2, routing="window", temperature=2.0, noise=0.5, stages=("dec1", "refiner")
        ),
        downsampler="unshuffle",
        upsampler="dysample",
        skip="concat",
        frequency_split=FrequencySplitConfig(kernel_size=7),
        refiner=DeformableRefinerConfig(depth=2, noise=True),
    )


def test_the_deepest_stages_follow_the_number_of_levels(tmp_path):
    experiment = experiment_with(tmp_path, "levels: [1, 2, 3]", "attention: window", "attention_stages: mid+deepest")
    found = {values["levels"]: config.attention.stages for values, config in networks(experiment)}
    assert found == {n: ("mid", f"enc{n}", f"dec{n}") for n in (1, 2, 3)}


def test_attention_is_where_blocks_are_and_nowhere_else(tmp_path):
    experiment = experiment_with(
        tmp_path,
        "bottleneck_blocks: [0, 1]",
        "decoder_blocks: 0",
        "attention: window",
        "attention_stages: [mid, mid+dec1]",
    )
    found = {(v["bottleneck_blocks"], v["attention_stages"]): config for v, config in networks(experiment)}
    assert {at: config.attention and config.attention.stages for at, config in found.items()} == {
        (0, "mid"): None,
        (0, "mid+dec1"): None,
        (1, "mid"): ("mid",),
        (1, "mid+dec1"): ("mid",),
    }
    assert len(set(found.values())) == 2  # the rest are repeats, and free


def test_a_stage_that_is_not_there_is_still_refused(tmp_path):
    experiment = experiment_with(tmp_path, "attention: window", "attention_stages: mid+enc2", "bottleneck_blocks: 0")
    with pytest.raises(ConfigError, match="with levels = 1 the stages are enc1, mid, dec1"):
        experiment.decode(experiment.space.sample(0))


def test_the_other_kinds_can_be_written_down(tmp_path):
    config = the_network(
        tmp_path,
        "attention: channel",
        "num_heads: 4",
        "attention_stages: enc1",
        "frequency_split: true",
        "refiner: dft",
    )
    assert config.attention == ChannelAttentionConfig(num_heads=4, stages=("enc1",))
    assert config.refiner == DFTRefinerConfig(depth=1)


def test_what_a_condition_switches_off_is_off(tmp_path):
    experiment = experiment_with(
        tmp_path,
        "levels: [1, 2]",
        "attention: {choices: [window], when: {levels: 2}}",
        "num_experts: {min: 2, max: 3, when: {levels: 2}}",
        "frequency_split: {choices: [true], when: {levels: 2}}",
        "refiner: {choices: [dft], when: {num_experts: [3]}}",
    )
    for values, config in networks(experiment):
        parts = (config.attention, config.experts, config.frequency_split)
        assert [part is None for part in parts] == [values["levels"] == 1] * 3
        assert (config.refiner is None) == (values.get("num_experts") != 3)
    assert [config.levels for _, config in networks(experiment)] == [1, 2, 2]


def test_conditions_that_are_written_hold_together(tmp_path):
    experiment = experiment_with(
        tmp_path,
        "width: [8, 16]",
        "levels: [1, 2]",
        "attention: {choices: [window], when: {levels: 2, width: [16]}}",
    )
    attending = [values for values, config in networks(experiment) if config.attention]
    assert [(values["width"], values["levels"]) for values in attending] == [(16, 2)]


def test_a_stage_that_a_network_lacks_makes_it_illegal_with_a_reason(tmp_path):
    experiment = experiment_with(tmp_path, "levels: 1", "attention: window", "attention_stages: enc2")
    with pytest.raises(ConfigError, match="with levels = 1 the stages are enc1, mid, dec1"):
        experiment.decode(experiment.space.sample(0))


def test_one_list_or_range_serves_all_levels(tmp_path):
    space = experiment_with(tmp_path, "levels: 2", "encoder_blocks: {min: 1, max: 4, step: 2}").space
    assert space["encoder_blocks.1"].choices == space["encoder_blocks.2"].choices == (1, 3)


def test_a_range_of_fractions_is_free_of_rounding(tmp_path):
    space = experiment_with(tmp_path, "expansion: {min: 1, max: 1.75, step: 0.1}").space
    assert space["expansion"].choices == (1.0, 1.1, 1.2, 1.3, 1.4, 1.5, 1.6, 1.7)
